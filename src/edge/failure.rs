//! The problem of a failure of the user object.

use crate::auth::Refused;
use crate::http::problem::{Code, Problem};
use crate::user_object::reply::{Cause, Failure};

/// The problem of a failure of the user object.
#[must_use]
pub fn problem_of(failure: Failure) -> Problem {
    let mut problem = match (failure.cause, failure.is_blocked) {
        (Cause::Generation(Code::DatabaseError), true) => Problem::by_firewall(BLOCKED),
        (Cause::Generation(code), _) => Problem::new(code, detail_of(code)),
        (Cause::NotPersisted, true) => Problem::by_firewall(NOT_PERSISTED_BLOCKED),
        (Cause::NotPersisted, false) => Problem::new(Code::DatabaseError, NOT_PERSISTED),
        (Cause::NotReadable, true) => Problem::by_firewall(NOT_READABLE_BLOCKED),
        (Cause::NotReadable, false) => Problem::new(Code::DatabaseError, NOT_READABLE),
        (Cause::TokenExpired, _) => Refused::Expired.to_problem(),
        (Cause::UnknownUser, _) => Refused::Invalid.to_problem(),
        (Cause::Storage, _) => {
            Problem::new(Code::RateLimiterUnavailable, "your limits cannot be checked now")
        }
        (Cause::Lost, _) => Problem::new(Code::Internal, "the generation was lost"),
    };
    problem.retry_after_s = failure.retry_after_s.or(problem.retry_after_s);
    problem
}

const NOT_PERSISTED: &str =
    "the session cannot be stored now; what was generated is kept and will be there later";
const NOT_PERSISTED_BLOCKED: &str = "the session was refused by a firewall in front of the database; what was generated is kept, its operator has to act";
const BLOCKED: &str = "the session was refused by a firewall in front of the database; no generation was counted, its operator has to act";
const NOT_READABLE: &str = "the session cannot be read now; try again later";
const NOT_READABLE_BLOCKED: &str =
    "the session cannot be read: refused by a firewall in front of the database";

/// The detail of a failed generation, for the caller.
const fn detail_of(code: Code) -> &'static str {
    match code {
        Code::AiUnavailable => "the model cannot be reached now; no generation was counted, try again later",
        Code::AiTimeout => "the model did not answer in time; no generation was counted, try again",
        Code::AiInvalidResponse => "the model gave no usable flashcard; no generation was counted, try again",
        Code::AiRefused => "the model refuses this text; change the text",
        Code::AiMisconfigured => "the model API refuses this service; its operator has to act",
        Code::DatabaseError => "the session could not be stored; no generation was counted, try again later",
        Code::Cancelled => "the generation was stopped before its first card; no generation was counted",
        _ => "the generation did not succeed",
    }
}
