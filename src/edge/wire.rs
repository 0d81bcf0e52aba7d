//! The wire format of a command and of its reply, between the edge and a user object in another process: one flat JSON object
//! each, the shortest in code and on the wire.
//!
//! ```text
//! command   {"operation":"generate","user_id":"…","token":"…",…,"input_text":"…",…}
//! reply     {"reply":"session","session_id":"…",…,"quota":[[9,6],[49,512],[149,512]],…}, and beside it the body of the response
//! ```
//! The command's message also carries the context of the problem document in the last event of a stream: the object's host writes
//! the events where the object is, so that they are forwarded untouched. The user object itself gets the command alone.

use std::borrow::Cow;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::auth::credentials::Credentials;
use crate::generation::usage::Usage;
use crate::http::problem::{Code, ProblemContext};
use crate::http::response_mode::ResponseMode;
use crate::http::sse::EventId;
use crate::json_string::JsonString;
use crate::quota::{ATTEMPTS, BURST, CONCURRENT, GENERATIONS, PolicyStatus, Refusal};
use crate::user_object::command::{Command, Generate, Operation};
use crate::user_object::reply::{Cause, Executed, Failure, LogFields, Reply, SessionDocument};

#[derive(Serialize, Deserialize)]
struct CommandMessage<'a> {
    operation: Cow<'a, str>,
    user_id: Uuid,
    token: Rc<str>,
    token_expires_ms: u64,
    traceparent: Option<Rc<str>>,
    began_ms: u64,
    is_repeated: bool,
    origin: Cow<'a, str>,
    request_id: Cow<'a, str>,
    id: Option<Uuid>,
    after: Option<EventId>,
    input_text: Option<JsonString>,
    model: Option<Rc<str>>,
    referer: Option<Rc<str>>,
    no_cache: bool,
    key: Option<String>,
    mode: Option<ResponseMode>,
}

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
    let message = CommandMessage {
        operation: Cow::Borrowed(operation),
        user_id: command.user_id,
        token: Rc::clone(&credentials.token),
        token_expires_ms: credentials.expires_ms,
        traceparent: credentials.traceparent.clone(),
        began_ms: command.began_ms,
        is_repeated: command.is_repeated,
        origin: Cow::Borrowed(&context.origin),
        request_id: Cow::Borrowed(&context.request_id),
        id,
        after,
        input_text: generate.map(|generate| generate.input_text.clone()),
        model: generate.map(|generate| Rc::clone(&generate.model)),
        referer: generate.map(|generate| Rc::clone(&generate.referer)),
        no_cache: generate.is_some_and(|generate| generate.no_cache),
        key: generate.and_then(|generate| generate.key.clone()),
        mode: generate.map(|generate| generate.mode),
    };
    // Strings and numbers: serde_json has nothing that could fail in them.
    serde_json::to_vec(&message).unwrap_or_default()
}

/// Reads a command; `None` when it is not one.
#[must_use]
pub fn read_command(bytes: &[u8]) -> Option<(Command, ProblemContext)> {
    let message: CommandMessage<'_> = serde_json::from_slice(bytes).ok()?;
    let id = message.id;
    let operation = match &*message.operation {
        "count" => Operation::Count,
        "generate" => Operation::Generate(Box::new(Generate {
            id: id?,
            input_text: message.input_text?,
            model: message.model?,
            no_cache: message.no_cache,
            referer: message.referer?,
            key: message.key,
            mode: message.mode?,
            after: message.after,
        })),
        "read" => Operation::Read { id: id? },
        "subscribe" => Operation::Subscribe { id: id?, after: message.after },
        "stop" => Operation::Stop { id: id? },
        _ => return None,
    };
    let command = Command {
        user_id: message.user_id,
        credentials: Credentials {
            token: message.token,
            expires_ms: message.token_expires_ms,
            traceparent: message.traceparent,
        },
        began_ms: message.began_ms,
        is_repeated: message.is_repeated,
        operation,
    };
    let context =
        ProblemContext { origin: message.origin.into_owned(), request_id: message.request_id.into_owned() };
    Some((command, context))
}

#[derive(Serialize, Deserialize)]
struct ReplyMessage<'a> {
    reply: Cow<'a, str>,
    /// The session of the reply, or of the log.
    session_id: Option<Uuid>,
    is_generating: bool,
    was_reused: Option<bool>,
    violated: Vec<Cow<'a, str>>,
    is_blocked: bool,
    retry_after_s: Option<u64>,
    failure: Option<Code>,
    /// The remaining quota of each policy, and the seconds until it grows.
    quota: Option<[(u32, Option<u64>); 3]>,
    code: Option<Code>,
    model: Option<Cow<'a, str>>,
    attempts: Option<u32>,
    usage: Option<(u64, u64, f64)>,
    model_ms: Option<u64>,
    database_ms: Option<u64>,
}

/// Writes a reply, and the body of its response; that of a subscription is written event by event instead.
#[must_use]
pub fn write_reply(executed: &mut Executed) -> (String, Vec<u8>) {
    let log = &executed.log;
    let mut message = ReplyMessage {
        reply: Cow::Borrowed(name_of(&executed.reply)),
        session_id: log.session_id,
        is_generating: false,
        was_reused: None,
        violated: Vec::new(),
        is_blocked: false,
        retry_after_s: None,
        failure: None,
        quota: executed.quota.map(|quota| quota.map(|policy| (policy.remaining, policy.more_in_s))),
        code: log.code,
        model: log.model.as_deref().map(Cow::Borrowed),
        attempts: log.attempts,
        usage: log.usage.map(|usage| (usage.prompt_tokens, usage.completion_tokens, usage.cost)),
        model_ms: log.model_ms,
        database_ms: log.database_ms,
    };
    let mut body = Vec::new();
    match &mut executed.reply {
        Reply::Session(document) | Reply::Accepted(document) => {
            message.session_id = Some(document.id);
            (message.is_generating, message.was_reused) = (document.is_generating, document.was_reused);
            body = std::mem::take(&mut document.json);
        }
        Reply::Subscribed(id) => message.session_id = Some(*id),
        Reply::LimitExceeded(refusal) => {
            message.violated = refusal.violated.iter().map(|policy| Cow::Borrowed(*policy)).collect();
            message.retry_after_s = Some(refusal.retry_after_s);
        }
        Reply::Failed(failure) => {
            (message.is_blocked, message.retry_after_s) = (failure.is_blocked, failure.retry_after_s);
            if let Cause::Generation(code) = failure.cause {
                message.failure = Some(code);
            }
        }
        Reply::Counted | Reply::NotFound | Reply::Stopped | Reply::NotRunning | Reply::KeyReused => {}
    }
    (serde_json::to_string(&message).unwrap_or_default(), body)
}

/// Reads a reply; `None` when it is not one. The body is forwarded beside it.
#[must_use]
pub fn read_reply(json: &str) -> Option<Executed> {
    let message: ReplyMessage<'_> = serde_json::from_slice(json.as_bytes()).ok()?;
    let document = |id| SessionDocument {
        id,
        is_generating: message.is_generating,
        was_reused: message.was_reused,
        json: Vec::new(),
    };
    let (is_blocked, retry_after_s) = (message.is_blocked, message.retry_after_s);
    let failed = |cause| Reply::Failed(Failure { cause, is_blocked, retry_after_s });
    let reply = match &*message.reply {
        "counted" => Reply::Counted,
        "session" => Reply::Session(document(message.session_id?)),
        "accepted" => Reply::Accepted(document(message.session_id?)),
        "subscribed" => Reply::Subscribed(message.session_id?),
        "stopped" => Reply::Stopped,
        "not_found" => Reply::NotFound,
        "not_running" => Reply::NotRunning,
        "key_reused" => Reply::KeyReused,
        "limit_exceeded" => {
            let is_violated = |policy: &&str| message.violated.iter().any(|name| name == policy);
            let policies = [BURST, GENERATIONS, ATTEMPTS, CONCURRENT].into_iter();
            let violated = policies.filter(is_violated).collect();
            Reply::LimitExceeded(Refusal { violated, retry_after_s: retry_after_s? })
        }
        "generation_failed" => failed(Cause::Generation(message.failure?)),
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
        code: message.code,
        session_id: message.session_id,
        model: message.model.map(Cow::into_owned),
        attempts: message.attempts,
        usage: message.usage.map(usage),
        model_ms: message.model_ms,
        database_ms: message.database_ms,
    };
    let status = |(remaining, more_in_s)| PolicyStatus { remaining, more_in_s };
    Some(Executed { reply, quota: message.quota.map(|quota| quota.map(status)), log })
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
