//! Maps each failure of a model call to a code of this service: a table of the API's error types, one of its numbers, and the
//! failures of the connection.
//!
//! ```text
//! error.metadata.error_type, error.availability.code, error.code as text     first
//! error.code as a number, the HTTP status                                    second; 400 to 599
//! error.type                                                                 without any of these
//! ```
//! Not for: reading these from a response ([`super::chunk`]), and waiting (`generation::retry`).

use crate::http::problem::Code;

/// The longest `Retry-After` that is forwarded, in seconds: a day. A longer one is a mistake.
pub const RETRY_AFTER_S_MAX: u64 = 86_400;

/// Why an attempt failed or was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The code for the caller.
    pub code: Code,
    /// Whether another attempt may be made. Never after 400, 401, 402 and 403.
    pub may_retry: bool,
    /// The `Retry-After` of the model API in seconds; 0 to [`RETRY_AFTER_S_MAX`].
    pub retry_after_s: Option<u64>,
    /// For the operator: the API's error type if it is in the table, else a label of this service. Never any other text of
    /// the API.
    pub label: &'static str,
    /// The HTTP status, or the number in `error.code`.
    pub status: Option<u16>,
}

/// `error_type` and `availability.code`, as OpenRouter documents them (2026-08), and a finish reason that
/// some gateways send as an error.
const ERROR_TYPES: &[(&str, Code, bool)] = &[
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
    // No provider supports the parameters of the request: a second attempt would fail, too.
    ("constraint_filtered", Code::AiMisconfigured, false),
    ("permission_denied", Code::AiRefused, false),
    ("content_policy_violation", Code::AiRefused, false),
    ("refusal", Code::AiRefused, false),
    ("content_filter", Code::AiRefused, false),
];

/// `error.type`, or `error.code` as text, as OpenAI, Anthropic, vLLM and llama.cpp name it. Many servers send it beside a more
/// specific number.
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

/// The details of an error, as far as the response has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErrorDetails<'a> {
    /// `error.metadata.error_type`.
    pub error_type: Option<&'a str>,
    /// `error.availability.code`.
    pub availability_code: Option<&'a str>,
    /// `error.code`, where it is text.
    pub code_text: Option<&'a str>,
    /// `error.type`, used where there is no number.
    pub kind: Option<&'a str>,
    /// `error.code`, where it is a number, or text of digits.
    pub code_number: Option<u64>,
    /// The HTTP status, unless it is a success.
    pub http_status: Option<u16>,
    /// `error.availability.retryable`.
    pub retryable: Option<bool>,
    /// The header `Retry-After`, or `error.availability.retry_after`; seconds.
    pub retry_after_s: Option<u64>,
}

impl Failure {
    /// Creates the failure that the API reported.
    #[must_use]
    pub fn from_details(details: &ErrorDetails<'_>) -> Self {
        let number = details
            .code_number
            .and_then(|number| u16::try_from(number).ok())
            .filter(|code| (400..600).contains(code));
        let status = number.or(details.http_status);
        let word = [details.error_type, details.availability_code, details.code_text]
            .into_iter()
            .flatten()
            .find_map(|sent| ERROR_TYPES.iter().find(|(word, _, _)| *word == sent));
        let kind = [details.code_text, details.kind]
            .into_iter()
            .flatten()
            .find_map(|sent| KINDS.iter().find(|(kind, _, _)| *kind == sent));
        let (label, code, may_retry) = match (word, status, kind) {
            (Some(row), _, _) | (None, None, Some(row)) => *row,
            (None, Some(status), _) => of_status(status),
            // "Availability errors may have no code at all."
            (None, None, None) => ("error", Code::AiUnavailable, true),
        };
        let is_final =
            [number, details.http_status].into_iter().flatten().any(|status| (400..=403).contains(&status));
        Self {
            code,
            may_retry: may_retry && !is_final && details.retryable != Some(false),
            retry_after_s: details.retry_after_s.map(|seconds| seconds.min(RETRY_AFTER_S_MAX)),
            label,
            status,
        }
    }

    /// Creates a failure that this service detected.
    #[must_use]
    pub const fn local(label: &'static str, code: Code, may_retry: bool) -> Self {
        Self { code, may_retry, retry_after_s: None, label, status: None }
    }

    /// No connection.
    pub const UNREACHABLE: Self = Self::local("no connection", Code::AiUnavailable, true);
    /// The connection was cut, or ended without an end of the answer.
    pub const CUT: Self = Self::local("cut", Code::AiUnavailable, true);
    /// Nothing was received within the idle timeout.
    pub const IDLE_TIMEOUT: Self = Self::local("silence", Code::AiTimeout, true);
    /// The deadline of the generation has passed.
    pub const DEADLINE: Self = Self::local("deadline", Code::AiTimeout, false);
    /// `finish_reason: "error"`, without an error.
    pub const ERROR: Self = Self::local("error", Code::AiUnavailable, true);
    /// The model, or a filter before it, refused the text.
    pub const REFUSED: Self = Self::local("refused", Code::AiRefused, false);
    /// `finish_reason: "length"`.
    pub const LENGTH: Self = Self::local("length", Code::AiInvalidResponse, true);
    /// The response is no JSON of the API: HTML, a broken chunk.
    pub const UNREADABLE: Self = Self::local("unreadable", Code::AiInvalidResponse, true);
    /// The response is longer than the limit.
    pub const TOO_LARGE: Self = Self::local("too large", Code::AiInvalidResponse, true);
    /// The response ended regularly within an open candidate list.
    pub const NOT_CLOSED: Self = Self::local("not closed", Code::AiInvalidResponse, true);
    /// The answer is complete and has no valid candidate.
    pub const NO_CANDIDATE: Self = Self::local("no valid card", Code::AiInvalidResponse, true);
    /// The attempts were used up before a restart.
    pub const NO_ATTEMPT_LEFT: Self = Self::local("no attempt left", Code::AiUnavailable, false);

    /// Returns a note for the log: `rate_limit_exceeded 429`. It contains no other text of the API.
    #[must_use]
    pub fn note(&self) -> String {
        match self.status {
            Some(status) => [self.label, " ", &status.to_string()].concat(),
            None => self.label.to_owned(),
        }
    }

    /// Whether a rate limit of the API was exceeded.
    #[must_use]
    pub fn is_rate_limit(&self) -> bool {
        self.code == Code::AiUnavailable && (self.status == Some(429) || self.label.starts_with("rate_limit"))
    }
}

const fn of_status(status: u16) -> (&'static str, Code, bool) {
    match status {
        403 => ("status", Code::AiRefused, false),
        408 | 504 => ("status", Code::AiTimeout, true),
        429 => ("status", Code::AiUnavailable, true),
        // A redirect is not followed, because the key would be sent to its target.
        300..=499 => ("status", Code::AiMisconfigured, false),
        _ => ("status", Code::AiUnavailable, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_maps_to_the_code_of_the_contract() {
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
                let failure = Failure::from_details(&ErrorDetails {
                    http_status: Some(*status),
                    ..ErrorDetails::default()
                });
                assert_eq!((failure.code, failure.may_retry), (code, may_retry), "{status}");
                assert_eq!(failure.note(), format!("status {status}"));
                if *status >= 400 {
                    let details =
                        ErrorDetails { code_number: Some(u64::from(*status)), ..ErrorDetails::default() };
                    assert_eq!(Failure::from_details(&details), failure, "the same number in a document");
                }
            }
        }
    }

    #[test]
    fn each_error_type_maps_to_the_code_of_the_contract() {
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
                for details in [
                    ErrorDetails { error_type: Some(word), ..ErrorDetails::default() },
                    ErrorDetails { availability_code: Some(word), ..ErrorDetails::default() },
                    ErrorDetails { code_text: Some(word), ..ErrorDetails::default() },
                ] {
                    let failure = Failure::from_details(&details);
                    assert_eq!((failure.code, failure.may_retry), (code, may_retry), "{details:?}");
                    assert_eq!(failure.note(), *word);
                }
            }
        }
    }

    #[test]
    fn an_error_type_outranks_a_number_and_a_number_the_status() {
        for (details, code, may_retry, note) in [
            (
                ErrorDetails {
                    error_type: Some("timeout"),
                    availability_code: Some("not_found"),
                    code_text: Some("server"),
                    ..ErrorDetails::default()
                },
                Code::AiTimeout,
                true,
                "timeout",
            ),
            (
                ErrorDetails {
                    availability_code: Some("not_found"),
                    code_text: Some("server"),
                    ..ErrorDetails::default()
                },
                Code::AiMisconfigured,
                false,
                "not_found",
            ),
            (
                ErrorDetails {
                    error_type: Some("provider_overloaded"),
                    code_number: Some(500),
                    ..ErrorDetails::default()
                },
                Code::AiUnavailable,
                true,
                "provider_overloaded 500",
            ),
            (
                ErrorDetails {
                    error_type: Some("refusal"),
                    code_number: Some(502),
                    http_status: Some(502),
                    ..ErrorDetails::default()
                },
                Code::AiRefused,
                false,
                "refusal 502",
            ),
            (
                ErrorDetails {
                    error_type: Some("content_policy_violation"),
                    http_status: Some(400),
                    ..ErrorDetails::default()
                },
                Code::AiRefused,
                false,
                "content_policy_violation 400",
            ),
            (
                ErrorDetails {
                    error_type: Some("a new one"),
                    code_number: Some(429),
                    ..ErrorDetails::default()
                },
                Code::AiUnavailable,
                true,
                "status 429",
            ),
            (
                ErrorDetails { code_number: Some(504), http_status: Some(500), ..ErrorDetails::default() },
                Code::AiTimeout,
                true,
                "status 504",
            ),
            (
                ErrorDetails { code_number: Some(7), http_status: Some(404), ..ErrorDetails::default() },
                Code::AiMisconfigured,
                false,
                "status 404",
            ),
            (
                ErrorDetails { code_number: Some(u64::MAX), ..ErrorDetails::default() },
                Code::AiUnavailable,
                true,
                "error",
            ),
            (
                ErrorDetails { code_text: Some("weird"), ..ErrorDetails::default() },
                Code::AiUnavailable,
                true,
                "error",
            ),
        ] {
            let failure = Failure::from_details(&details);
            assert_eq!((failure.code, failure.may_retry), (code, may_retry), "{details:?}");
            assert_eq!(failure.note(), note);
        }
    }

    #[test]
    fn statuses_400_to_403_are_never_retried() {
        for status in 400..=403 {
            for (code_number, http_status) in
                [(Some(u64::from(status)), None), (None, Some(status)), (Some(503), Some(status))]
            {
                let details = ErrorDetails {
                    error_type: Some("provider_overloaded"),
                    retryable: Some(true),
                    retry_after_s: Some(1),
                    code_number,
                    http_status,
                    ..ErrorDetails::default()
                };
                assert!(!Failure::from_details(&details).may_retry, "{details:?}");
            }
        }
        let details =
            ErrorDetails { code_number: Some(503), retryable: Some(false), ..ErrorDetails::default() };
        assert!(!Failure::from_details(&details).may_retry, "the API reports that a retry is useless");
    }

    #[test]
    fn a_retry_after_is_limited_to_one_day() {
        let details =
            ErrorDetails { http_status: Some(429), retry_after_s: Some(u64::MAX), ..ErrorDetails::default() };
        assert_eq!(Failure::from_details(&details).retry_after_s, Some(RETRY_AFTER_S_MAX));
    }
}
