//! The wire format of a command and of its reply, between the edge and a user object in another process: one flat JSON object
//! each, the shortest in code and on the wire.
//!
//! ```text
//! command   {"operation":"generate","user_id":"…","token":"…",…,"input_text":"…",…}
//! reply     {"reply":"session","session_id":"…",…,"quota":[[9,6],[49,512],[149,512]],"spend":[750000000,512],…}, and beside it the body of the response
//! ```
//! The command's message also carries the context of the problem document in the last event of a stream: the object's host writes
//! the events where the object is, so that they are forwarded untouched. The user object itself gets the command alone.

use uuid::Uuid;

use crate::auth::credentials::Credentials;
use crate::generation::usage::Usage;
use crate::http::problem::ProblemContext;
use crate::json::record::{Members, ToJson, write_object};
use crate::quota::{ATTEMPTS, BURST, CONCURRENT, GENERATIONS, PolicyStatus, Refusal, SPEND, UserQuota};
use crate::user_object::command::{Command, Generate, Operation};
use crate::user_object::reply::{Cause, Executed, Failure, LogFields, Reply, SessionDocument};

/// Writes a command.
#[must_use]
pub fn write_command(command: &Command, context: &ProblemContext) -> Vec<u8> {
    let credentials = &command.credentials;
    let (operation, id, after, generate) = match &command.operation {
        Operation::Count => ("count", None, None, None),
        Operation::Generate(generate) => ("generate", Some(generate.id), generate.after, Some(generate)),
        Operation::Read { id } => ("read", Some(*id), None, None),
        Operation::Subscribe { id, after } => ("subscribe", Some(*id), *after, None),
        Operation::Stop { id } => ("stop", Some(*id), None, None),
    };
    let no_cache = generate.is_some_and(|generate| generate.no_cache);
    let mut members: Vec<(&str, &dyn ToJson)> = vec![
        ("operation", &operation),
        ("user_id", &command.user_id),
        ("token", &credentials.token),
        ("token_expires_ms", &credentials.expires_ms),
        ("traceparent", &credentials.traceparent),
        ("began_ms", &command.began_ms),
        ("is_repeated", &command.is_repeated),
        ("origin", &context.origin),
        ("request_id", &context.request_id),
        ("id", &id),
        ("after", &after),
        ("no_cache", &no_cache),
    ];
    if let Some(generate) = generate {
        let generate: [(&str, &dyn ToJson); 5] = [
            ("input_text", &generate.input_text),
            ("model", &generate.model),
            ("referer", &generate.referer),
            ("key", &generate.key),
            ("mode", &generate.mode),
        ];
        members.extend(generate);
    }
    // Of most commands, without the text; that is reserved when it is written.
    let mut json = String::with_capacity(2048);
    write_object(&mut json, &members);
    json.into_bytes()
}

/// Reads a command; `None` when it is not one.
#[must_use]
pub fn read_command(bytes: &[u8]) -> Option<(Command, ProblemContext)> {
    let message = Members::read(bytes)?;
    let id: Option<Uuid> = message.get("id")?;
    let operation = match message.get::<String>("operation")?.as_str() {
        "count" => Operation::Count,
        "generate" => Operation::Generate(Box::new(Generate {
            id: id?,
            input_text: message.get("input_text")?,
            model: message.get("model")?,
            no_cache: message.get("no_cache")?,
            referer: message.get("referer")?,
            key: message.get("key")?,
            mode: message.get("mode")?,
            after: message.get("after")?,
        })),
        "read" => Operation::Read { id: id? },
        "subscribe" => Operation::Subscribe { id: id?, after: message.get("after")? },
        "stop" => Operation::Stop { id: id? },
        _ => return None,
    };
    let command = Command {
        user_id: message.get("user_id")?,
        credentials: Credentials {
            token: message.get("token")?,
            expires_ms: message.get("token_expires_ms")?,
            traceparent: message.get("traceparent")?,
        },
        began_ms: message.get("began_ms")?,
        is_repeated: message.get("is_repeated")?,
        operation,
    };
    let context = ProblemContext { origin: message.get("origin")?, request_id: message.get("request_id")? };
    Some((command, context))
}

/// Writes a reply, and the body of its response; that of a subscription is written event by event instead.
#[must_use]
pub fn write_reply(executed: &mut Executed) -> (String, Vec<u8>) {
    let (name, log) = (name_of(&executed.reply), &executed.log);
    // The session of the reply, or of the log.
    let (mut session_id, mut body) = (log.session_id, Vec::new());
    let (mut is_generating, mut was_reused) = (false, None);
    let (mut violated, mut failure, mut is_blocked, mut retry_after_s) = (&[][..], None, false, None);
    match &mut executed.reply {
        Reply::Session(found) | Reply::Accepted(found) => {
            session_id = Some(found.id);
            body = std::mem::take(&mut found.json);
            (is_generating, was_reused) = (found.is_generating, found.was_reused);
        }
        Reply::Subscribed(id) => session_id = Some(*id),
        Reply::LimitExceeded(refusal) => {
            (violated, retry_after_s) = (&refusal.violated, Some(refusal.retry_after_s));
        }
        Reply::Failed(failed) => {
            (is_blocked, retry_after_s) = (failed.is_blocked, failed.retry_after_s);
            if let Cause::Generation(code) = failed.cause {
                failure = Some(code);
            }
        }
        Reply::Counted | Reply::NotFound | Reply::Stopped | Reply::NotRunning | Reply::KeyReused => {}
    }
    let members: [(&str, &dyn ToJson); 17] = [
        ("reply", &name),
        ("session_id", &session_id),
        ("is_generating", &is_generating),
        ("was_reused", &was_reused),
        ("violated", &violated),
        ("is_blocked", &is_blocked),
        ("retry_after_s", &retry_after_s),
        ("failure", &failure),
        ("quota", &executed.quota.map(|quota| Vec::from(quota.counts))),
        ("spend", &executed.quota.and_then(|quota| quota.spend)),
        ("refusal_lasts_ms", &executed.refusal_lasts_ms),
        ("code", &log.code),
        ("model", &log.model),
        ("attempts", &log.attempts),
        ("usage", &log.usage.map(|usage| (usage.prompt_tokens, usage.completion_tokens, usage.cost))),
        ("model_ms", &log.model_ms),
        ("database_ms", &log.database_ms),
    ];
    let mut json = String::new();
    write_object(&mut json, &members);
    (json, body)
}

/// Reads a reply; `None` when it is not one. The body is forwarded beside it.
#[must_use]
pub fn read_reply(json: &str) -> Option<Executed> {
    let message = Members::read(json.as_bytes())?;
    let session_id: Option<Uuid> = message.get("session_id")?;
    let (is_blocked, retry_after_s) = (message.get("is_blocked")?, message.get("retry_after_s")?);
    let document = || {
        let (is_generating, was_reused) = (message.get("is_generating")?, message.get("was_reused")?);
        Some(SessionDocument { id: session_id?, is_generating, was_reused, json: Vec::new() })
    };
    let failed = |cause| Reply::Failed(Failure { cause, is_blocked, retry_after_s });
    let reply = match message.get::<String>("reply")?.as_str() {
        "counted" => Reply::Counted,
        "session" => Reply::Session(document()?),
        "accepted" => Reply::Accepted(document()?),
        "subscribed" => Reply::Subscribed(session_id?),
        "stopped" => Reply::Stopped,
        "not_found" => Reply::NotFound,
        "not_running" => Reply::NotRunning,
        "key_reused" => Reply::KeyReused,
        "limit_exceeded" => {
            let names: Vec<String> = message.get("violated")?;
            let is_violated = |policy: &&str| names.iter().any(|name| name == policy);
            let policies = [BURST, GENERATIONS, ATTEMPTS, SPEND, CONCURRENT].into_iter();
            let violated = policies.filter(is_violated).collect();
            Reply::LimitExceeded(Refusal { violated, retry_after_s: retry_after_s? })
        }
        "generation_failed" => failed(Cause::Generation(message.get("failure")?)),
        "not_persisted" => failed(Cause::NotPersisted),
        "not_readable" => failed(Cause::NotReadable),
        "token_expired" => failed(Cause::TokenExpired),
        "unknown_user" => failed(Cause::UnknownUser),
        "storage_failed" => failed(Cause::Storage),
        "lost" => failed(Cause::Lost),
        _ => return None,
    };
    let usage = |(prompt_tokens, completion_tokens, cost)| Usage { prompt_tokens, completion_tokens, cost };
    let log = LogFields {
        code: message.get("code")?,
        session_id,
        model: message.get("model")?,
        attempts: message.get("attempts")?,
        usage: message.get::<Option<_>>("usage")?.map(usage),
        model_ms: message.get("model_ms")?,
        database_ms: message.get("database_ms")?,
    };
    let counts: Option<Vec<PolicyStatus>> = message.get("quota")?;
    let counts = counts.map(<[PolicyStatus; 3]>::try_from).transpose().ok()?;
    // An object of the previous version sends no `spend` and no `refusal_lasts_ms`.
    let spend = message.get_or_default("spend")?;
    let quota = counts.map(|counts| UserQuota { counts, spend });
    Some(Executed { reply, quota, refusal_lasts_ms: message.get_or_default("refusal_lasts_ms")?, log })
}

const fn name_of(reply: &Reply) -> &'static str {
    match reply {
        Reply::Counted => "counted",
        Reply::LimitExceeded(_) => "limit_exceeded",
        Reply::NotFound => "not_found",
        Reply::Session(_) => "session",
        Reply::Accepted(_) => "accepted",
        Reply::Subscribed(_) => "subscribed",
        Reply::Stopped => "stopped",
        Reply::NotRunning => "not_running",
        Reply::KeyReused => "key_reused",
        Reply::Failed(failure) => match failure.cause {
            Cause::Generation(_) => "generation_failed",
            Cause::NotPersisted => "not_persisted",
            Cause::NotReadable => "not_readable",
            Cause::TokenExpired => "token_expired",
            Cause::UnknownUser => "unknown_user",
            Cause::Storage => "storage_failed",
            Cause::Lost => "lost",
        },
    }
}
