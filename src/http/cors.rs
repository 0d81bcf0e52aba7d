//! CORS (WHATWG Fetch, section 3.2) and `Server-Timing` (W3C): the headers of every response.

use super::Response;
use crate::config::AllowedOrigins;

/// The headers that a page may read.
const EXPOSED: &str = "X-Request-Id, Location, Retry-After, RateLimit, RateLimit-Policy, Server-Timing, \
                       WWW-Authenticate, Preference-Applied, Cache-Status";
/// The headers that a page may send.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, Accept, Prefer, Idempotency-Key, Last-Event-ID, \
                               Cache-Control, X-Request-Id, traceparent";
const ALLOWED_METHODS: &str = "GET, POST, DELETE, OPTIONS";
/// Two hours: the longest that Chromium caches a preflight.
const PREFLIGHT_MAX_AGE_S: &str = "7200";

/// The CORS headers of any response, errors included: without them a browser hides the error from its page.
/// Credentials are never allowed; the token is sent in a header of its own.
#[must_use]
pub fn headers(allowed: &AllowedOrigins, origin: Option<&str>) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    match (allowed, origin) {
        (AllowedOrigins::Any, _) => headers.push(("access-control-allow-origin", "*".to_owned())),
        (AllowedOrigins::Exactly(origins), origin) => {
            headers.push(("vary", "Origin".to_owned()));
            let Some(origin) = origin.filter(|origin| origins.iter().any(|allowed| allowed == origin)) else {
                return headers;
            };
            headers.push(("access-control-allow-origin", origin.to_owned()));
        }
    }
    headers.push(("access-control-expose-headers", EXPOSED.to_owned()));
    headers
}

/// The response to `OPTIONS`, without the CORS headers of any response.
#[must_use]
pub fn preflight() -> Response {
    Response::empty(204)
        .with("access-control-allow-methods", ALLOWED_METHODS)
        .with("access-control-allow-headers", ALLOWED_HEADERS)
        .with("access-control-max-age", PREFLIGHT_MAX_AGE_S)
}

/// `Server-Timing`: the measured stages, in milliseconds.
#[must_use]
pub fn server_timing(stages: &[(&'static str, Option<u64>)]) -> Option<String> {
    let mut field = String::new();
    for (name, ms) in stages {
        let Some(ms) = ms else { continue };
        if !field.is_empty() {
            field.push_str(", ");
        }
        field.push_str(name);
        field.push_str(";dur=");
        field.push_str(&ms.to_string());
    }
    (!field.is_empty()).then_some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow_origin(allowed: &AllowedOrigins, origin: Option<&str>) -> Option<String> {
        let name = "access-control-allow-origin";
        headers(allowed, origin).into_iter().find(|(header, _)| *header == name).map(|(_, value)| value)
    }

    #[test]
    fn only_the_listed_origins_may_read() {
        let one = AllowedOrigins::Exactly(vec!["https://cards.example".to_owned()]);
        assert_eq!(
            allow_origin(&one, Some("https://cards.example")).as_deref(),
            Some("https://cards.example")
        );
        for other in
            [None, Some("https://cards.example.evil"), Some("http://cards.example"), Some("null"), Some("")]
        {
            assert_eq!(allow_origin(&one, other), None);
            assert!(
                headers(&one, other).contains(&("vary", "Origin".to_owned())),
                "a cache must distinguish them"
            );
        }
        assert_eq!(allow_origin(&AllowedOrigins::Any, Some("https://a.example")).as_deref(), Some("*"));
    }

    #[test]
    fn only_measured_stages_are_sent() {
        assert_eq!(
            server_timing(&[("auth", Some(3)), ("model", None), ("database", Some(0))]).as_deref(),
            Some("auth;dur=3, database;dur=0")
        );
        assert_eq!(server_timing(&[("auth", None)]), None);
    }
}
