//! An accepted generation, until the database has its ending.

use std::rc::Rc;

use uuid::Uuid;

use super::stored::{VERSION_MEMBER, read_versioned};
use super::{CALL_MS_MIN, KEEP_FAILURE_MS, KEEP_NOT_PERSISTED_MS, REWRITE_MS, Write, WriteSet};
use crate::auth::credentials::Credentials;
use crate::citation::check::Citation;
use crate::citation::sentences::{Passage, Sentences};
use crate::generation::candidate::Candidate;
use crate::generation::usage::Usage;
use crate::http::problem::Code;
use crate::json::record::{FromJson, Members, ToJson, write_object};
use crate::json_string::JsonString;
use crate::quota::{Reported, Reservation};

/// A candidate with its id, as it is stored and sent. The service makes the id, so that a response needs nothing from the
/// database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCandidate {
    /// A UUIDv7.
    pub id: Uuid,
    /// 1 to 200 characters.
    pub front: String,
    /// 1 to 500 characters.
    pub back: String,
    /// 1 to 500 characters.
    pub prompt: String,
    /// Where it comes from in the text, and advice.
    pub citation: Citation,
}

impl SessionCandidate {
    /// Gives a candidate its id.
    #[must_use]
    pub fn new(id: Uuid, candidate: Candidate, citation: Citation) -> Self {
        let Candidate { front, back, prompt, .. } = candidate;
        Self { id, front, back, prompt, citation }
    }

    /// Returns the members of its JSON object.
    #[must_use]
    pub fn members(&self) -> [(&'static str, &dyn ToJson); 7] {
        let [source, supported, notes] = self.citation.members();
        [
            ("id", &self.id),
            ("front", &self.front),
            ("back", &self.back),
            ("prompt", &self.prompt),
            source,
            supported,
            notes,
        ]
    }
}

impl ToJson for SessionCandidate {
    fn write(&self, json: &mut String) {
        write_object(json, &self.members());
    }
}

impl FromJson for SessionCandidate {
    fn read(json: &[u8]) -> Option<Self> {
        let members = Members::read(json)?;
        Some(Self {
            id: members.get("id")?,
            front: members.get("front")?,
            back: members.get("back")?,
            prompt: members.get("prompt")?,
            citation: Citation::read(&members)?,
        })
    }
}

/// The parts of a request that the generation needs until its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The session's id.
    pub id: Uuid,
    /// The 1-based number of the run of this session: after a retryable failure, its idempotency key starts another.
    pub run: u32,
    /// The owner.
    pub user_id: Uuid,
    /// Sanitized; empty once it is no longer needed.
    pub input_text: JsonString,
    /// One of the allowed models.
    pub model: Rc<str>,
    /// The owner's; kept only until the ending is persisted.
    pub credentials: Credentials,
    /// `HTTP-Referer` of the model calls; empty: not sent.
    pub referer: Rc<str>,
    /// Whether `Cache-Control: no-cache` was sent.
    pub no_cache: bool,
}

impl Accepted {
    /// A bound of the bytes of the text.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.input_text.escaped().len()
    }
}

impl ToJson for Accepted {
    fn write(&self, json: &mut String) {
        let credentials = &self.credentials;
        let members: [(&str, &dyn ToJson); 10] = [
            ("id", &self.id),
            ("run", &self.run),
            ("user_id", &self.user_id),
            ("input_text", &self.input_text),
            ("model", &self.model),
            ("token", &credentials.token),
            ("token_expires_ms", &credentials.expires_ms),
            ("origin", &self.referer),
            ("traceparent", &credentials.traceparent),
            ("no_cache", &self.no_cache),
        ];
        write_object(json, &members);
    }
}

impl FromJson for Accepted {
    fn read(json: &[u8]) -> Option<Self> {
        let members = Members::read(json)?;
        Some(Self {
            id: members.get("id")?,
            run: members.get("run")?,
            user_id: members.get("user_id")?,
            input_text: members.get("input_text")?,
            model: members.get("model")?,
            credentials: Credentials {
                token: members.get("token")?,
                expires_ms: members.get("token_expires_ms")?,
                traceparent: members.get("traceparent")?,
            },
            referer: members.get("origin")?,
            no_cache: members.get("no_cache")?,
        })
    }
}

/// How a generation ended. With a code it failed, without one it is completed.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// The failure.
    pub code: Option<Code>,
    /// Whether the model's answer was cut.
    pub partial: bool,
    /// The billed usage, over all attempts.
    pub usage: Option<Usage>,
    /// The model that answered, as the model API names it.
    pub served_model: Option<String>,
    /// Model calls made.
    pub attempts: u32,
    /// Candidates dropped.
    pub dropped: u32,
    /// Milliseconds since the Unix epoch.
    pub ended_ms: u64,
    /// Seconds, from the model API.
    pub retry_after_s: Option<u64>,
    /// Whether the model API sent a cached answer; `None` where none was requested.
    pub was_reused: Option<bool>,
    /// Whether a firewall in front of the database refused the session: no retry can help.
    pub is_blocked: bool,
    /// The cost that its model calls reported.
    pub reported: Reported,
    /// The share of the text that has a candidate; `None` for a failure, and in records from before candidates had sources.
    pub coverage_percent: Option<u32>,
}

impl ToJson for Ending {
    fn write(&self, json: &mut String) {
        let members: [(&str, &dyn ToJson); 13] = [
            VERSION_MEMBER,
            ("code", &self.code),
            ("partial", &self.partial),
            ("usage", &self.usage),
            ("served_model", &self.served_model),
            ("attempts", &self.attempts),
            ("dropped", &self.dropped),
            ("ended_ms", &self.ended_ms),
            ("retry_after_s", &self.retry_after_s),
            ("was_reused", &self.was_reused),
            ("is_blocked", &self.is_blocked),
            ("reported", &self.reported),
            ("coverage_percent", &self.coverage_percent),
        ];
        write_object(json, &members);
    }
}

impl FromJson for Ending {
    fn read(json: &[u8]) -> Option<Self> {
        let members = read_versioned(json)?;
        Some(Self {
            code: members.get("code")?,
            partial: members.get("partial")?,
            usage: members.get("usage")?,
            served_model: members.get("served_model")?,
            attempts: members.get("attempts")?,
            dropped: members.get("dropped")?,
            ended_ms: members.get("ended_ms")?,
            retry_after_s: members.get("retry_after_s")?,
            was_reused: members.get("was_reused")?,
            is_blocked: members.get_or_default("is_blocked")?,
            reported: members.get_or_default("reported")?,
            coverage_percent: members.get("coverage_percent")?,
        })
    }
}

impl Ending {
    /// A failure without usage.
    #[must_use]
    pub const fn failed(code: Code, attempts: u32, ended_ms: u64) -> Self {
        Self {
            code: Some(code),
            partial: false,
            usage: None,
            served_model: None,
            attempts,
            dropped: 0,
            ended_ms,
            retry_after_s: None,
            was_reused: None,
            is_blocked: false,
            reported: Reported { calls: 0, nanodollars: 0 },
            coverage_percent: None,
        }
    }

    /// The ending of a generation that is not continued: with its complete candidates, else as a failure with `code`.
    #[must_use]
    pub fn interrupted(has_candidates: bool, code: Code, attempts: u32, ended_ms: u64) -> Self {
        let failed = Self::failed(code, attempts, ended_ms);
        Self { code: failed.code.filter(|_| !has_candidates), partial: has_candidates, ..failed }
    }
}

/// The state of a session's row before its ending is persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    /// It may exist: no request was sent yet, or its response was lost.
    Unknown,
    /// The database has confirmed it.
    Opened,
    /// The database has refused it: it does not exist.
    Refused,
}

impl ToJson for RowState {
    fn write(&self, json: &mut String) {
        let name = match self {
            Self::Unknown => "Unknown",
            Self::Opened => "Opened",
            Self::Refused => "Refused",
        };
        name.write(json);
    }
}

impl FromJson for RowState {
    fn read(json: &[u8]) -> Option<Self> {
        match json {
            br#""Unknown""# => Some(Self::Unknown),
            br#""Opened""# => Some(Self::Opened),
            br#""Refused""# => Some(Self::Refused),
            _ => None,
        }
    }
}

/// An accepted generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The parts of the request.
    pub accepted: Accepted,
    /// When it was accepted.
    pub started_ms: u64,
    /// `started_ms` + `AI_TIMEOUT_MS`: the model's answer is read until then at most.
    pub deadline_ms: u64,
    /// Its reservation of `generations`, until it is refunded or becomes final.
    pub reservation: Option<Reservation>,
    /// The state of the session's row.
    pub row: RowState,
    /// Model calls started.
    pub attempts: u32,
    /// Present: it has ended, and the ending has to be persisted. Stored beside the record.
    pub ending: Option<Ending>,
    /// Failed attempts to persist it.
    pub writes: u32,
    /// Those of them that the database refused in a way that no retry can change.
    pub refusals: u32,
    /// The earliest moment of the next attempt.
    pub write_at_ms: u64,
    /// The complete candidates in their order. Stored in rows of their own.
    pub candidates: Vec<Rc<SessionCandidate>>,
    /// The isolate that drives it. Stored beside the record.
    pub driver: Driver,
    /// Whether another isolate has requested a stop of this run. Stored beside the record.
    pub is_stop_requested: bool,
}

/// Without its ending, its candidates and its driver, which have rows or columns of their own.
impl ToJson for Generation {
    fn write(&self, json: &mut String) {
        let members: [(&str, &dyn ToJson); 10] = [
            VERSION_MEMBER,
            ("accepted", &self.accepted),
            ("started_ms", &self.started_ms),
            ("deadline_ms", &self.deadline_ms),
            ("unit", &self.reservation),
            ("row", &self.row),
            ("attempts", &self.attempts),
            ("writes", &self.writes),
            ("refusals", &self.refusals),
            ("write_at_ms", &self.write_at_ms),
        ];
        write_object(json, &members);
    }
}

impl FromJson for Generation {
    fn read(json: &[u8]) -> Option<Self> {
        let members = read_versioned(json)?;
        Some(Self {
            accepted: members.get("accepted")?,
            started_ms: members.get("started_ms")?,
            deadline_ms: members.get("deadline_ms")?,
            reservation: members.get("unit")?,
            row: members.get("row")?,
            attempts: members.get("attempts")?,
            ending: None,
            writes: members.get("writes")?,
            refusals: members.get_or_default("refusals")?,
            write_at_ms: members.get("write_at_ms")?,
            candidates: Vec::new(),
            driver: Driver::None,
            is_stop_requested: false,
        })
    }
}

/// The isolate that drives a generation, where several isolates share a user's state: it has a lease of the generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Driver {
    /// No isolate, or the only one that there is.
    #[default]
    None,
    /// This isolate, also after its lease has expired.
    Own,
    /// Another isolate, whose lease is valid.
    Other,
    /// Another isolate, whose lease has expired.
    Lapsed,
}

impl Generation {
    /// A generation that is accepted now.
    #[must_use]
    pub const fn new(accepted: Accepted, reservation: Reservation, timeout_ms: u64, now_ms: u64) -> Self {
        Self {
            accepted,
            started_ms: now_ms,
            deadline_ms: now_ms.saturating_add(timeout_ms),
            reservation: Some(reservation),
            row: RowState::Unknown,
            attempts: 0,
            ending: None,
            writes: 0,
            refusals: 0,
            write_at_ms: 0,
            candidates: Vec::new(),
            driver: Driver::None,
            is_stop_requested: false,
        }
    }

    /// The ending of a generation after a crash; `None` where another model call inside the deadline continues it. Complete
    /// candidates are kept; with any, no second call is billed.
    #[must_use]
    pub fn ending_after_crash(&self, attempts_max: u32, now_ms: u64) -> Option<Ending> {
        let may_call =
            self.attempts.max(1) < attempts_max && now_ms.saturating_add(CALL_MS_MIN) <= self.deadline_ms;
        if self.candidates.is_empty() && may_call {
            return None;
        }
        let ending = Ending::interrupted(!self.candidates.is_empty(), Code::AiTimeout, self.attempts, now_ms);
        if ending.code.is_some() {
            return Some(ending);
        }
        let coverage_percent = coverage_percent(&self.candidates, |sources| {
            Sentences::of(&self.accepted.input_text.decoded()).coverage_percent(sources)
        });
        Some(Ending { coverage_percent, ..ending })
    }

    /// When it is abandoned because it cannot be resumed, or its ending not persisted: early without candidates, because none is
    /// lost then.
    #[must_use]
    pub fn keep_until_ms(&self) -> u64 {
        let since_ms = self.ending.as_ref().map_or(self.deadline_ms, |ending| ending.ended_ms);
        let is_failure =
            self.ending.as_ref().map_or(self.candidates.is_empty(), |ending| ending.code.is_some());
        since_ms.saturating_add(if is_failure { KEEP_FAILURE_MS } else { KEEP_NOT_PERSISTED_MS })
    }

    /// Whether it is due at that moment to be resumed, or its ending to be written, with a token that the database can still
    /// accept.
    #[must_use]
    pub fn can_be_written(&self, at_ms: u64) -> bool {
        self.write_at_ms <= at_ms && self.has_valid_token(at_ms)
    }

    /// Delays the next attempt at the write, or at the resumption, each time for twice as long. Removes the text of a generation
    /// that has ended once the row is confirmed: the database has it, and no model call follows.
    pub fn back_off(&mut self, now_ms: u64) {
        let doubled = REWRITE_MS.start().saturating_mul(1 << self.writes.min(16));
        self.writes = self.writes.saturating_add(1);
        self.write_at_ms = now_ms.saturating_add(doubled.min(*REWRITE_MS.end()));
        if self.row == RowState::Opened && self.ending.is_some() {
            self.accepted.input_text = JsonString::new("");
        }
    }

    /// Whether another isolate drives it.
    #[must_use]
    pub fn is_driven_elsewhere(&self) -> bool {
        self.driver == Driver::Other
    }

    /// Whether another isolate has taken it over, so that this one must not write it.
    #[must_use]
    pub const fn is_taken_over(&self) -> bool {
        matches!(self.driver, Driver::Other | Driver::Lapsed)
    }

    /// Ends the lease of this isolate, where it has one.
    pub(super) fn release(&mut self) -> WriteSet {
        if self.driver != Driver::Own {
            return WriteSet::none();
        }
        self.driver = Driver::None;
        WriteSet::from([Write::Release(self.accepted.id)])
    }

    /// Whether there is a token, expired or not.
    #[must_use]
    pub fn has_token(&self) -> bool {
        !self.accepted.credentials.token.is_empty()
    }

    /// Whether there is a token that has not expired at that moment.
    #[must_use]
    pub fn has_valid_token(&self, at_ms: u64) -> bool {
        self.has_token() && at_ms < self.accepted.credentials.expires_ms
    }
}

/// Returns the share of the text that has one of the candidates, which `percent_of` computes from their sources; 0 where no
/// candidate has a source.
pub fn coverage_percent(
    candidates: &[Rc<SessionCandidate>],
    percent_of: impl FnOnce(&[Passage]) -> usize,
) -> Option<u32> {
    let sources: Vec<Passage> = candidates.iter().filter_map(|candidate| candidate.citation.source).collect();
    u32::try_from(percent_of(&sources)).ok()
}

/// A generation that has ended, and whether the attempt to persist it succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// With its candidates and its ending.
    pub generation: Generation,
    /// Whether the database has it.
    pub is_persisted: bool,
    /// Milliseconds of the completing transaction.
    pub database_ms: u64,
}
