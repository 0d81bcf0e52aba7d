//! The table of all errors that a caller can receive, and their documents: `application/problem+json` (RFC 9457).
//!
//! ```text
//! { "type": "https://…/docs#validation_failed", "title": "…", "status": 400, "detail": "…", "code": "…",
//!   "request_id": "…", "retryable": false, "errors": [ … ], "violated-policies": [ … ],
//!   "spend": { "limit": "0.5", "remaining": "0.02", "window_s": 86400 } }
//! ```
//! Not for: messages to the operator. A problem contains no text of an upstream, no token and no key: this service writes
//! `detail`, and `code` is a row of the table.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::http::{PROBLEM_JSON, Response};
use crate::json::record::{FromJson, ToJson};

macro_rules! table {
    ($($code:ident $name:literal $status:literal $retryable:expr, $title:literal;)+) => {
        /// The rows of the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $title] $code),+ }

        impl Code {
            /// All rows, for the documents and the tests that compare them.
            pub const ALL: &'static [Self] = &[$(Self::$code),+];

            /// The value of `code` in the document.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$code => $name),+ } }
            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 { match self { $(Self::$code => $status),+ } }
            /// RFC 9457: "a short, human-readable summary of the problem type".
            #[must_use]
            pub const fn title(self) -> &'static str { match self { $(Self::$code => $title),+ } }
            /// Whether the same request can succeed later; only for failures that cost a generation.
            #[must_use]
            pub const fn retryable(self) -> Option<bool> { match self { $(Self::$code => $retryable),+ } }

            /// Returns the row of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.name() == name)
            }
        }
    };
}

table! {
    MalformedJson "malformed_json" 400 None, "The body is not strict JSON";
    ValidationFailed "validation_failed" 400 None, "A field is outside its limits";
    InvalidParameter "invalid_parameter" 400 None, "A parameter of the URL or a header is outside its limits";
    MissingToken "missing_token" 401 None, "An access token is required";
    InvalidToken "invalid_token" 401 None, "The access token is not valid";
    ExpiredToken "expired_token" 401 None, "The access token has expired";
    AnonymousNotAllowed "anonymous_not_allowed" 401 None, "Anonymous sign-ins are not allowed";
    NotFound "not_found" 404 None, "There is no such thing here";
    MethodNotAllowed "method_not_allowed" 405 None, "This path has no such method";
    IdempotencyInProgress "idempotency_in_progress" 409 None, "A request with this key is still running";
    NotRunning "not_running" 409 None, "The generation does not run any more";
    Cancelled "cancelled" 409 Some(true), "The generation was stopped";
    BodyTooLarge "body_too_large" 413 None, "The body is too large";
    UnsupportedMediaType "unsupported_media_type" 415 None, "The body must be application/json";
    IdempotencyKeyReused "idempotency_key_reused" 422 None, "This key was used with another body";
    RateLimited "rate_limited" 429 None, "The limit is reached";
    AiUnavailable "ai_unavailable" 500 Some(true), "The model cannot be reached";
    AiTimeout "ai_timeout" 500 Some(true), "The model took too long";
    AiInvalidResponse "ai_invalid_response" 500 Some(true), "The model's answer had no usable flashcard";
    AiRefused "ai_refused" 500 Some(false), "The model refused this text";
    AiMisconfigured "ai_misconfigured" 500 Some(false), "The model is not set up correctly";
    DatabaseError "database_error" 500 Some(true), "The database did not answer as it should";
    RateLimiterUnavailable "rate_limiter_unavailable" 500 None, "The limits cannot be checked now";
    AuthUnavailable "auth_unavailable" 500 None, "Access tokens cannot be checked now";
    Internal "internal" 500 None, "Something here is broken";
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl ToJson for Code {
    fn write(&self, json: &mut String) {
        self.name().write(json);
    }
}

impl FromJson for Code {
    fn read(json: &[u8]) -> Option<Self> {
        Self::from_name(&String::read(json)?)
    }
}

/// draft-ietf-httpapi-ratelimit-headers-11, section 5.1: the problem type of a request over its quota.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// An error of one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field's name as the caller wrote it, or as the contract names it.
    pub field: String,
    /// `required`, `type`, `length`, `range`, `not_allowed`, `unknown`, `duplicate`.
    pub code: &'static str,
    /// For a person.
    pub message: String,
    /// The least allowed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// The greatest allowed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// The value of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<u64>,
}

/// The limit of money, for a request that exceeds it. Amounts are US dollars as decimal numbers in text, which no reader rounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpendLimit {
    /// In any window.
    pub limit: String,
    /// What is left of it now.
    pub remaining: String,
    /// Seconds.
    pub window_s: u32,
}

/// One error for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The row of the table.
    pub code: Code,
    /// This occurrence, for a person; lower case, no full stop.
    pub detail: Cow<'static, str>,
    /// Field by field, for `validation_failed` and `invalid_parameter`.
    pub errors: Vec<FieldError>,
    /// The names of the violated policies, for `rate_limited`.
    pub violated_policies: Vec<&'static str>,
    /// The limit in money, where `spend` is one of them.
    pub spend: Option<Box<SpendLimit>>,
    /// Whole seconds after which a retry can succeed.
    pub retry_after_s: Option<u64>,
    /// Whether the same request can succeed later: as the table says, unless the cause decides otherwise.
    pub retryable: Option<bool>,
}

/// The context of a problem document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProblemContext {
    /// The service's own URL, where `/docs` explains the codes: `PUBLIC_URL`, or the origin of the request (`https://host`).
    pub origin: String,
    /// `X-Request-Id` of the request.
    pub request_id: String,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(rename = "violated-policies", skip_serializing_if = "<[_]>::is_empty")]
    violated_policies: &'a [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    spend: Option<&'a SpendLimit>,
}

impl Problem {
    /// Creates a problem with a detail alone.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            violated_policies: Vec::new(),
            spend: None,
            retry_after_s: None,
            retryable: code.retryable(),
        }
    }

    /// Creates a `database_error` that no retry can fix, because a firewall before the database rejects the request.
    #[must_use]
    pub fn by_firewall(detail: &'static str) -> Self {
        Self { retryable: Some(false), ..Self::new(Code::DatabaseError, detail) }
    }

    /// The document, for a response or for the `error` event of a stream.
    #[must_use]
    pub fn to_json(&self, context: &ProblemContext) -> Vec<u8> {
        let anchor;
        let kind = if self.code == Code::RateLimited {
            QUOTA_EXCEEDED
        } else {
            anchor = [&context.origin, "/docs#", self.code.name()].concat();
            &anchor
        };
        let document = Document {
            r#type: kind,
            title: self.code.title(),
            status: self.code.status(),
            detail: &self.detail,
            code: self.code.name(),
            request_id: &context.request_id,
            retryable: self.retryable,
            errors: &self.errors,
            violated_policies: &self.violated_policies,
            spend: self.spend.as_deref(),
        };
        // Serializing a struct of strings and numbers cannot fail.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// The response. RFC 6750, section 3: "the resource server MUST include the HTTP `WWW-Authenticate`
    /// response header field"; without a token "the resource server SHOULD NOT include an error code".
    #[must_use]
    pub fn to_response(&self, context: &ProblemContext) -> Response {
        let response = Response::new(self.code.status(), PROBLEM_JSON, self.to_json(context))
            .with("cache-control", "no-store");
        let response = match self.code {
            Code::MissingToken => response.with("www-authenticate", "Bearer realm=\"ai-sessions\""),
            Code::InvalidToken | Code::ExpiredToken | Code::AnonymousNotAllowed => {
                response.with("www-authenticate", "Bearer realm=\"ai-sessions\", error=\"invalid_token\"")
            }
            _ => response,
        };
        match self.retry_after_s {
            Some(seconds) => response.with("retry-after", seconds.to_string()),
            None => response,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(origin: &str) -> ProblemContext {
        ProblemContext { origin: origin.to_owned(), request_id: "r".to_owned() }
    }

    #[test]
    fn code_names_are_unique_and_find_their_row() {
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.name()), Some(*code));
        }
    }

    #[test]
    fn a_document_has_the_members_of_the_contract() {
        let mut problem = Problem::new(Code::ValidationFailed, "input_text has 12 characters");
        problem.errors.push(FieldError {
            field: "input_text".to_owned(),
            code: "length",
            message: "1000 to 10000 characters are allowed".to_owned(),
            min: Some(1000),
            max: Some(10000),
            actual: Some(12),
        });
        let document: serde_json::Value =
            serde_json::from_slice(&problem.to_json(&context("https://cards.example"))).expect("it is JSON");
        assert_eq!(
            document,
            serde_json::json!({
                "type": "https://cards.example/docs#validation_failed",
                "title": "A field is outside its limits",
                "status": 400,
                "detail": "input_text has 12 characters",
                "code": "validation_failed",
                "request_id": "r",
                "errors": [{ "field": "input_text", "code": "length",
                    "message": "1000 to 10000 characters are allowed", "min": 1000, "max": 10000, "actual": 12 }],
            })
        );
    }

    #[test]
    fn rate_limited_has_the_registered_problem_type() {
        let mut problem = Problem::new(Code::RateLimited, "10 requests in 60 seconds are allowed");
        problem.violated_policies.push("burst");
        problem.retry_after_s = Some(7);
        let response = problem.to_response(&context("https://cards.example"));
        assert_eq!(response.header("retry-after"), Some("7"));
        let document: serde_json::Value = serde_json::from_slice(&response.body).expect("it is JSON");
        assert_eq!(document["type"], QUOTA_EXCEEDED);
        assert_eq!(document["violated-policies"], serde_json::json!(["burst"]));
        assert_eq!(document.get("spend"), None);
        let (limit, remaining) = ("0.5".to_owned(), "0.02".to_owned());
        problem.spend = Some(Box::new(SpendLimit { limit, remaining, window_s: 60 }));
        let document: serde_json::Value =
            serde_json::from_slice(&problem.to_json(&context(""))).expect("it is JSON");
        assert_eq!(
            document["spend"],
            serde_json::json!({ "limit": "0.5", "remaining": "0.02", "window_s": 60 })
        );
    }

    #[test]
    fn a_rejected_token_has_the_challenge_of_rfc_6750() {
        for (code, expected) in [
            (Code::MissingToken, "Bearer realm=\"ai-sessions\""),
            (Code::InvalidToken, "Bearer realm=\"ai-sessions\", error=\"invalid_token\""),
            (Code::ExpiredToken, "Bearer realm=\"ai-sessions\", error=\"invalid_token\""),
        ] {
            let response = Problem::new(code, "x").to_response(&context(""));
            assert_eq!(response.header("www-authenticate"), Some(expected));
        }
    }
}
