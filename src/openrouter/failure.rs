//! Every way in which a model call fails, and which of our codes it is: one table for the words of the API,
//! one for its numbers, one for what goes wrong on the way.
//!
//! ```text
//! error.metadata.error_type, error.availability.code, error.code as a word   the better key: looked at first
//! error.code as a number, the HTTP status                                    400 to 599
//! error.type                                                                 where there is none of these
//! ```
//! Not for: finding these in an answer ([`super::chunk`]), and waiting (`generation::retry`).

use crate::problem::Code;

/// The longest `Retry-After` that is passed on, in seconds: a day. What is longer is a mistake.
pub const RETRY_AFTER_S_MAX: u64 = 86_400;

/// Why an attempt failed, or broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What the caller is told.
    pub code: Code,
    /// Whether another attempt may be made. Never after 400, 401, 402 and 403.
    pub may_retry: bool,
    /// How many seconds the other side asked to wait; 0 to [`RETRY_AFTER_S_MAX`].
    pub retry_after_s: Option<u64>,
    /// For the operator: the API's own word where this table knows it, else one of this service. Nothing that
    /// the other side wrote.
    pub word: &'static str,
    /// The HTTP status, or the number in `error.code`.
    pub status: Option<u16>,
}

/// `error_type` and `availability.code`, as OpenRouter documents them (2026-08), and a finish reason that
/// some gateways send as an error.
const WORDS: &[(&str, Code, bool)] = &[
    ("rate_limit_exceeded", Code::AiUnavailable, true),
    ("provider_overloaded", Code::AiUnavailable, true),
    ("provider_unavailable", Code::AiUnavailable, true),
    ("server", Code::AiUnavailable, true),
    ("unmapped", Code::AiUnavailable, true),
    ("timeout", Code::AiTimeout, true),
    ("payment_required", Code::AiMisconfigured, false),
    ("authentication", Code::AiMisconfigured, false),
    ("context_length_exceeded", Code::AiMisconfigured, false),
    ("max_tokens_exceeded", Code::AiMisconfigured, false),
    ("invalid_request", Code::AiMisconfigured, false),
    ("not_found", Code::AiMisconfigured, false),
    // No provider honours what the request requires: nothing that a second attempt would change.
    ("constraint_filtered", Code::AiMisconfigured, false),
    ("permission_denied", Code::AiRefused, false),
    ("content_policy_violation", Code::AiRefused, false),
    ("refusal", Code::AiRefused, false),
    ("content_filter", Code::AiRefused, false),
];

/// `error.type`, or `error.code` as a word, as OpenAI, Anthropic, vLLM and llama.cpp name it. Many servers send it beside a
/// number that says more.
const KINDS: &[(&str, Code, bool)] = &[
    ("rate_limit_error", Code::AiUnavailable, true),
    ("overloaded_error", Code::AiUnavailable, true),
    ("invalid_request_error", Code::AiMisconfigured, false),
    ("exceed_context_size_error", Code::AiMisconfigured, false),
    ("authentication_error", Code::AiMisconfigured, false),
    ("not_found_error", Code::AiMisconfigured, false),
    ("BadRequestError", Code::AiMisconfigured, false),
    ("AuthenticationError", Code::AiMisconfigured, false),
    ("NotFoundError", Code::AiMisconfigured, false),
    ("permission_error", Code::AiRefused, false),
    ("model_not_found", Code::AiMisconfigured, false),
    ("invalid_api_key", Code::AiMisconfigured, false),
];

/// What an error document says, as far as it says anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told<'a> {
    /// `error.metadata.error_type`.
    pub error_type: Option<&'a str>,
    /// `error.availability.code`.
    pub availability_code: Option<&'a str>,
    /// `error.code`, where it is a word.
    pub code_word: Option<&'a str>,
    /// `error.type`: looked at where there is no number.
    pub kind: Option<&'a str>,
    /// `error.code`, where it is a number, or a word of digits.
    pub code_number: Option<u64>,
    /// The HTTP status, unless it is a success.
    pub http_status: Option<u16>,
    /// `error.availability.retryable`.
    pub retryable: Option<bool>,
    /// The header `Retry-After`, or `error.availability.retry_after`; seconds.
    pub retry_after_s: Option<u64>,
}

impl Failure {
    /// What the other side told.
    #[must_use]
    pub fn told(told: &Told<'_>) -> Self {
        let number = told
            .code_number
            .and_then(|number| u16::try_from(number).ok())
            .filter(|code| (400..600).contains(code));
        let status = number.or(told.http_status);
        let word = [told.error_type, told.availability_code, told.code_word]
            .into_iter()
            .flatten()
            .find_map(|told| WORDS.iter().find(|(word, _, _)| *word == told));
        let kind = [told.code_word, told.kind]
            .into_iter()
            .flatten()
            .find_map(|told| KINDS.iter().find(|(kind, _, _)| *kind == told));
        let (word, code, may_retry) = match (word, status, kind) {
            (Some(row), _, _) | (None, None, Some(row)) => *row,
            (None, Some(status), _) => of_status(status),
            // "Availability errors may have no code at all."
            (None, None, None) => ("error", Code::AiUnavailable, true),
        };
        let is_final =
            [number, told.http_status].into_iter().flatten().any(|status| (400..=403).contains(&status));
        Self {
            code,
            may_retry: may_retry && !is_final && told.retryable != Some(false),
            retry_after_s: told.retry_after_s.map(|seconds| seconds.min(RETRY_AFTER_S_MAX)),
            word,
            status,
        }
    }

    /// What this side saw.
    #[must_use]
    pub const fn seen(word: &'static str, code: Code, may_retry: bool) -> Self {
        Self { code, may_retry, retry_after_s: None, word, status: None }
    }

    /// No connection.
    pub const UNREACHABLE: Self = Self::seen("no connection", Code::AiUnavailable, true);
    /// The connection broke, or ended without saying that it was the end.
    pub const CUT: Self = Self::seen("cut", Code::AiUnavailable, true);
    /// Nothing came for as long as silence is borne.
    pub const SILENCE: Self = Self::seen("silence", Code::AiTimeout, true);
    /// The time for the whole is over.
    pub const DEADLINE: Self = Self::seen("deadline", Code::AiTimeout, false);
    /// `finish_reason: "error"`, without an error.
    pub const ERROR: Self = Self::seen("error", Code::AiUnavailable, true);
    /// The model, or a filter before it, refused the text.
    pub const REFUSED: Self = Self::seen("refused", Code::AiRefused, false);
    /// `finish_reason: "length"`.
    pub const LENGTH: Self = Self::seen("length", Code::AiInvalidResponse, true);
    /// The answer is no JSON of the API: HTML, a broken chunk.
    pub const UNREADABLE: Self = Self::seen("unreadable", Code::AiInvalidResponse, true);
    /// The answer is longer than any that is read.
    pub const TOO_LARGE: Self = Self::seen("too large", Code::AiInvalidResponse, true);
    /// The answer ended as it should, and its cards did not.
    pub const NOT_CLOSED: Self = Self::seen("not closed", Code::AiInvalidResponse, true);
    /// The answer is whole and has no valid card.
    pub const NO_CARD: Self = Self::seen("no valid card", Code::AiInvalidResponse, true);
    /// The attempts were used up before (by a process that died).
    pub const NO_ATTEMPT_LEFT: Self = Self::seen("no attempt left", Code::AiUnavailable, false);

    /// For the log: `rate_limit_exceeded 429`. Holds nothing that the other side wrote.
    #[must_use]
    pub fn note(&self) -> String {
        match self.status {
            Some(status) => [self.word, " ", &status.to_string()].concat(),
            None => self.word.to_owned(),
        }
    }

    /// Whether the other side has a limit that was reached.
    #[must_use]
    pub fn is_rate_limit(&self) -> bool {
        self.code == Code::AiUnavailable && (self.status == Some(429) || self.word.starts_with("rate_limit"))
    }
}

const fn of_status(status: u16) -> (&'static str, Code, bool) {
    match status {
        403 => ("status", Code::AiRefused, false),
        408 | 504 => ("status", Code::AiTimeout, true),
        429 => ("status", Code::AiUnavailable, true),
        // A redirect is not followed: the key would go along to wherever it leads.
        300..=499 => ("status", Code::AiMisconfigured, false),
        _ => ("status", Code::AiUnavailable, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_the_code_of_the_contract() {
        for (statuses, code, may_retry) in [
            (
                &[301, 302, 307, 308, 400, 401, 402, 404, 405, 409, 413, 415, 422, 451][..],
                Code::AiMisconfigured,
                false,
            ),
            (&[403], Code::AiRefused, false),
            (&[408, 504], Code::AiTimeout, true),
            (&[429, 500, 501, 502, 503, 520, 529, 599], Code::AiUnavailable, true),
        ] {
            for status in statuses {
                let failure = Failure::told(&Told { http_status: Some(*status), ..Told::default() });
                assert_eq!((failure.code, failure.may_retry), (code, may_retry), "{status}");
                assert_eq!(failure.note(), format!("status {status}"));
                if *status >= 400 {
                    let told = Told { code_number: Some(u64::from(*status)), ..Told::default() };
                    assert_eq!(Failure::told(&told), failure, "the same number in a document");
                }
            }
        }
    }

    #[test]
    fn each_word_is_the_code_of_the_contract_wherever_it_stands() {
        for (words, code, may_retry) in [
            (
                &["rate_limit_exceeded", "provider_overloaded", "provider_unavailable", "server", "unmapped"]
                    [..],
                Code::AiUnavailable,
                true,
            ),
            (&["timeout"], Code::AiTimeout, true),
            (
                &[
                    "payment_required",
                    "authentication",
                    "context_length_exceeded",
                    "max_tokens_exceeded",
                    "invalid_request",
                    "not_found",
                    "constraint_filtered",
                ],
                Code::AiMisconfigured,
                false,
            ),
            (
                &["permission_denied", "content_policy_violation", "refusal", "content_filter"],
                Code::AiRefused,
                false,
            ),
        ] {
            for word in words {
                for told in [
                    Told { error_type: Some(word), ..Told::default() },
                    Told { availability_code: Some(word), ..Told::default() },
                    Told { code_word: Some(word), ..Told::default() },
                ] {
                    let failure = Failure::told(&told);
                    assert_eq!((failure.code, failure.may_retry), (code, may_retry), "{told:?}");
                    assert_eq!(failure.note(), *word);
                }
            }
        }
    }

    #[test]
    fn the_word_is_the_better_key_and_the_number_in_the_document_is_better_than_the_status() {
        for (told, code, may_retry, note) in [
            (
                Told {
                    error_type: Some("timeout"),
                    availability_code: Some("not_found"),
                    code_word: Some("server"),
                    ..Told::default()
                },
                Code::AiTimeout,
                true,
                "timeout",
            ),
            (
                Told { availability_code: Some("not_found"), code_word: Some("server"), ..Told::default() },
                Code::AiMisconfigured,
                false,
                "not_found",
            ),
            (
                Told { error_type: Some("provider_overloaded"), code_number: Some(500), ..Told::default() },
                Code::AiUnavailable,
                true,
                "provider_overloaded 500",
            ),
            (
                Told {
                    error_type: Some("refusal"),
                    code_number: Some(502),
                    http_status: Some(502),
                    ..Told::default()
                },
                Code::AiRefused,
                false,
                "refusal 502",
            ),
            (
                Told {
                    error_type: Some("content_policy_violation"),
                    http_status: Some(400),
                    ..Told::default()
                },
                Code::AiRefused,
                false,
                "content_policy_violation 400",
            ),
            (
                Told { error_type: Some("a new one"), code_number: Some(429), ..Told::default() },
                Code::AiUnavailable,
                true,
                "status 429",
            ),
            (
                Told { code_number: Some(504), http_status: Some(500), ..Told::default() },
                Code::AiTimeout,
                true,
                "status 504",
            ),
            (
                Told { code_number: Some(7), http_status: Some(404), ..Told::default() },
                Code::AiMisconfigured,
                false,
                "status 404",
            ),
            (Told { code_number: Some(u64::MAX), ..Told::default() }, Code::AiUnavailable, true, "error"),
            (Told { code_word: Some("weird"), ..Told::default() }, Code::AiUnavailable, true, "error"),
        ] {
            let failure = Failure::told(&told);
            assert_eq!((failure.code, failure.may_retry), (code, may_retry), "{told:?}");
            assert_eq!(failure.note(), note);
        }
    }

    #[test]
    fn no_attempt_follows_400_to_403_whatever_else_is_told() {
        for status in 400..=403 {
            for (code_number, http_status) in
                [(Some(u64::from(status)), None), (None, Some(status)), (Some(503), Some(status))]
            {
                let told = Told {
                    error_type: Some("provider_overloaded"),
                    retryable: Some(true),
                    retry_after_s: Some(1),
                    code_number,
                    http_status,
                    ..Told::default()
                };
                assert!(!Failure::told(&told).may_retry, "{told:?}");
            }
        }
        let told = Told { code_number: Some(503), retryable: Some(false), ..Told::default() };
        assert!(!Failure::told(&told).may_retry, "the other side says that it is no use");
    }

    #[test]
    fn a_wait_that_nobody_can_mean_is_cut_to_a_day() {
        let told = Told { http_status: Some(429), retry_after_s: Some(u64::MAX), ..Told::default() };
        assert_eq!(Failure::told(&told).retry_after_s, Some(RETRY_AFTER_S_MAX));
    }
}
