//! In which form a caller wants to hear of a generation: by the headers `Accept` (RFC 9110, section 12.5.1) and
//! `Prefer` (RFC 7240).

use serde::{Deserialize, Serialize};

use super::events::EVENT_STREAM;
use crate::http::JSON;

/// All three are readers of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// One document when it has ended.
    Plain,
    /// Events as they come.
    Stream,
    /// A 202 at once.
    Later,
}

impl Form {
    /// The form that is asked for. A stream is one that is named, and liked no less than JSON where that is named
    /// too, before it; `Prefer` is a preference, which gives way to it.
    #[must_use]
    pub fn asked(accept: Option<&str>, prefer: Option<&str>) -> Self {
        if accept.is_some_and(wants_stream) {
            return Self::Stream;
        }
        if prefer.is_some_and(says_respond_async) { Self::Later } else { Self::Plain }
    }
}

fn wants_stream(accept: &str) -> bool {
    // Thousandths, so that there is no float to compare.
    let liking = |wanted: &str| {
        accept.split(',').enumerate().find_map(|(place, range)| {
            let mut parts = range.split(';').map(|part| part.trim_matches([' ', '\t']));
            let is_it = parts.next().is_some_and(|media_type| media_type.eq_ignore_ascii_case(wanted));
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            is_it.then(|| (thousandths(weight.unwrap_or("1")), place))
        })
    };
    match (liking(EVENT_STREAM), liking(JSON)) {
        (Some((0, _)) | None, _) => false,
        (Some(_), None) => true,
        (Some((stream, place)), Some((json, json_place))) => {
            stream > json || (stream == json && place < json_place)
        }
    }
}

/// RFC 9110, section 12.4.2: `0.123`, at most three digits. What is none counts as not liked.
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

fn says_respond_async(prefer: &str) -> bool {
    prefer.split(',').any(|preference| {
        let name = preference.split([';', '=']).next().unwrap_or_default();
        name.trim_matches([' ', '\t']).eq_ignore_ascii_case("respond-async")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_had_by_asking_for_it() {
        use Form::{Later, Plain, Stream};
        for (accept, prefer, form) in [
            (None, None, Plain),
            (Some("*/*"), None, Plain),
            (Some("application/json"), None, Plain),
            (Some("text/*"), None, Plain),
            (Some("text/event-stream"), None, Stream),
            (Some("Text/Event-Stream; charset=utf-8"), None, Stream),
            (Some("text/event-stream, */*;q=0.1"), None, Stream),
            (Some("text/event-stream;q=0"), None, Plain),
            (Some("text/event-stream;q=0.000"), None, Plain),
            (Some("text/event-stream;q=0.001"), None, Stream),
            (Some("text/event-stream;q=x"), None, Plain),
            (Some("text/event-stream, application/json"), None, Stream),
            (Some("application/json, text/event-stream"), None, Plain),
            (Some("application/json;q=0.5, text/event-stream"), None, Stream),
            (Some("text/event-stream;q=0.5, application/json;q=0.51"), None, Plain),
            (Some("text/event-streams"), None, Plain),
            (None, Some("respond-async"), Later),
            (None, Some("Respond-Async; foo=1"), Later),
            (None, Some("wait=10, respond-async"), Later),
            (None, Some("respond-asynchronously"), Plain),
            (None, Some("return=minimal"), Plain),
            (Some("text/event-stream"), Some("respond-async"), Stream),
            (Some("application/json"), Some("respond-async"), Later),
        ] {
            assert_eq!(Form::asked(accept, prefer), form, "{accept:?} {prefer:?}");
        }
    }
}
