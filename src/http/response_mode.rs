//! How a client receives the result of a generation: by the headers `Accept` (RFC 9110, section 12.5.1) and `Prefer`
//! (RFC 7240).

use super::JSON;
use super::sse::EVENT_STREAM;
use crate::json::record::{FromJson, ToJson};

/// How a client receives the result of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseMode {
    /// One document when it has ended.
    Sync,
    /// Events as they come.
    Stream,
    /// A 202 at once.
    Async,
}

impl ToJson for ResponseMode {
    fn write(&self, json: &mut String) {
        let name = match self {
            Self::Sync => "sync",
            Self::Stream => "stream",
            Self::Async => "async",
        };
        name.write(json);
    }
}

impl FromJson for ResponseMode {
    fn read(json: &[u8]) -> Option<Self> {
        match json {
            br#""sync""# => Some(Self::Sync),
            br#""stream""# => Some(Self::Stream),
            br#""async""# => Some(Self::Async),
            _ => None,
        }
    }
}

impl ResponseMode {
    /// The mode that the headers request. A stream has to be named, with a weight no less than that of JSON, and before JSON
    /// at the same weight; `Prefer` yields to it.
    #[must_use]
    pub fn negotiate(accept: Option<&str>, prefer: Option<&str>) -> Self {
        if accept.is_some_and(wants_stream) {
            return Self::Stream;
        }
        if prefer.is_some_and(prefers_respond_async) { Self::Async } else { Self::Sync }
    }
}

fn wants_stream(accept: &str) -> bool {
    // Thousandths, so that there is no float to compare.
    let weight_of = |wanted: &str| {
        accept.split(',').enumerate().find_map(|(place, range)| {
            let mut parts = range.split(';').map(|part| part.trim_matches([' ', '\t']));
            let is_it = parts.next().is_some_and(|media_type| media_type.eq_ignore_ascii_case(wanted));
            let q = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            is_it.then(|| (thousandths(q.unwrap_or("1")), place))
        })
    };
    match (weight_of(EVENT_STREAM), weight_of(JSON)) {
        (Some((0, _)) | None, _) => false,
        (Some(_), None) => true,
        (Some((stream, place)), Some((json, json_place))) => {
            stream > json || (stream == json && place < json_place)
        }
    }
}

/// RFC 9110, section 12.4.2: `0.123`, at most three digits. An invalid weight counts as 0.
fn thousandths(weight: &str) -> u32 {
    let (whole, digits) = weight.split_once('.').unwrap_or((weight, ""));
    if digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    match whole {
        "1" => 1000,
        "0" => [digits, "000"].concat().get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0),
        _ => 0,
    }
}

fn prefers_respond_async(prefer: &str) -> bool {
    prefer.split(',').any(|preference| {
        let name = preference.split([';', '=']).next().unwrap_or_default();
        name.trim_matches([' ', '\t']).eq_ignore_ascii_case("respond-async")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_and_prefer_choose_the_response_mode() {
        use ResponseMode::{Async, Stream, Sync};
        for (accept, prefer, mode) in [
            (None, None, Sync),
            (Some("*/*"), None, Sync),
            (Some("application/json"), None, Sync),
            (Some("text/*"), None, Sync),
            (Some("text/event-stream"), None, Stream),
            (Some("Text/Event-Stream; charset=utf-8"), None, Stream),
            (Some("text/event-stream, */*;q=0.1"), None, Stream),
            (Some("text/event-stream;q=0"), None, Sync),
            (Some("text/event-stream;q=0.000"), None, Sync),
            (Some("text/event-stream;q=0.001"), None, Stream),
            (Some("text/event-stream;q=x"), None, Sync),
            (Some("text/event-stream, application/json"), None, Stream),
            (Some("application/json, text/event-stream"), None, Sync),
            (Some("application/json;q=0.5, text/event-stream"), None, Stream),
            (Some("text/event-stream;q=0.5, application/json;q=0.51"), None, Sync),
            (Some("text/event-streams"), None, Sync),
            (None, Some("respond-async"), Async),
            (None, Some("Respond-Async; foo=1"), Async),
            (None, Some("wait=10, respond-async"), Async),
            (None, Some("respond-asynchronously"), Sync),
            (None, Some("return=minimal"), Sync),
            (Some("text/event-stream"), Some("respond-async"), Stream),
            (Some("application/json"), Some("respond-async"), Async),
        ] {
            assert_eq!(ResponseMode::negotiate(accept, prefer), mode, "{accept:?} {prefer:?}");
        }
    }
}
