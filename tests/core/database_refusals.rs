//! The handling of rejections by the database, and by intermediaries before it, for a write that may be repeated.

#![expect(clippy::expect_used, reason = "invalid settings fail the test")]

use ai_sessions::auth::credentials::Credentials;
use ai_sessions::config::Supabase;
use ai_sessions::json_string::JsonString;
use ai_sessions::supabase::rest::RestError;
use ai_sessions::supabase::sessions::{self, NewRow};
use uuid::Uuid;

use crate::scripted_host::{Reply, ScriptedHost};

const ROWS: &str = "/rest/v1/ai_generation_sessions";

fn refusal(status: u16, code: &str, message: &str) -> Reply {
    let body = serde_json::json!({ "code": code, "details": null, "hint": null, "message": message });
    Reply::new(status).say(body.to_string())
}

fn not_yet_valid() -> Reply {
    refusal(401, "PGRST303", "JWT issued at future")
}

fn supabase() -> Supabase {
    Supabase {
        url: "https://p.supabase.co".to_owned(),
        anon_key: "anon".to_owned(),
        jwt_secret: None,
        jwks: None,
    }
}

/// Opens a session while the model call runs until `model_ends_ms`.
fn open(host: &ScriptedHost, model_ends_ms: u64) -> Result<bool, RestError> {
    use ai_sessions::ports::Clock as _;
    let credentials = Credentials { token: "token".into(), expires_ms: 0, traceparent: None };
    let row = NewRow {
        id: Uuid::nil(),
        run: 1,
        model: "a/1",
        input_text: &JsonString::new("text"),
        created_at: "2026-11-27T00:00:00Z",
    };
    let is_busy = || host.now_ms() < model_ends_ms;
    host.run(sessions::open(host, &supabase(), &credentials, &row, &is_busy))
}

fn refused_by(reply: Reply) -> (RestError, usize) {
    let host = ScriptedHost::new(0);
    host.always(ROWS, reply);
    let error = open(&host, 60_000).expect_err("it is rejected");
    (error, host.sent().len())
}

#[test]
fn a_token_that_is_not_valid_yet_is_retried_until_it_is() {
    for refusals in [1, 2, 5] {
        for model_ends_ms in [0, 60_000] {
            let host = ScriptedHost::new(0);
            for _ in 0..refusals {
                host.on(ROWS, not_yet_valid());
            }
            host.on(ROWS, Reply::new(201));
            assert_eq!(open(&host, model_ends_ms), Ok(true), "{refusals} refusals");
            assert_eq!(host.sent().len(), refusals + 1);
        }
    }
}

#[test]
fn a_token_that_stays_invalid_is_retried_4_s_past_the_model_call() {
    for (model_ends_ms, least_ms, most_ms) in [(0, 3_500, 5_000), (20_000, 23_500, 26_000)] {
        let host = ScriptedHost::new(0);
        host.always(ROWS, not_yet_valid());
        assert_eq!(open(&host, model_ends_ms), Err(RestError::NotYetValid));
        let sent = host.sent();
        let last_ms = sent.last().expect("it was sent").at_ms;
        assert!((least_ms..=most_ms).contains(&last_ms), "until {last_ms} ms");
        let waits = host.slept_ms().into_iter().filter(|ms| *ms <= 1000);
        assert!(waits.clone().all(|ms| ms >= 100), "no wait is shorter");
        assert!(u64::try_from(sent.len()).expect("few") <= last_ms / 1000 + 5, "{} requests", sent.len());
    }
}

#[test]
fn other_rejections_of_a_token_are_not_retried() {
    for (code, message) in [
        ("PGRST303", "JWT expired"),
        ("PGRST303", "JWT not in audience"),
        ("PGRST303", "Parsing claims failed"),
        ("PGRST301", "JWT issued at future"),
        ("PGRST301", "No suitable key was found to decode the JWT"),
        ("PGRST302", "Anonymous access is disabled"),
    ] {
        assert_eq!(refused_by(refusal(401, code, message)), (RestError::Unauthorized, 1), "{code} {message}");
    }
    for body in ["", "{}", r#"{"message":"Invalid API key"}"#] {
        assert_eq!(refused_by(Reply::new(401).say(body)), (RestError::Unauthorized, 1), "{body}");
    }
}

#[test]
fn a_rejection_without_a_json_body_is_from_a_firewall() {
    for body in [
        "<!DOCTYPE html><html><head><title>Attention Required!</title></head></html>",
        "\r\n <html></html>",
        "error code: 1020",
        "Forbidden",
        "not allowed",
        "\u{feff}<html>",
    ] {
        for status in [400, 404, 418, 421] {
            let (error, requests) = refused_by(Reply::new(status).say(body));
            assert_eq!((&error, requests), (&RestError::Refused { status, sqlstate: None }, 1), "{body}");
            assert!(!error.is_firewall_rejection() && !error.is_permanent());
        }
        for status in [401, 403, 406] {
            let (error, requests) = refused_by(Reply::new(status).say(body));
            assert_eq!((&error, requests), (&RestError::Firewall { status }, 1), "{body}");
            assert!(
                error.is_firewall_rejection()
                    && !error.is_database_rejection()
                    && error.note().contains("firewall")
            );
        }
    }
    for (body, sqlstate) in [
        ("", None),
        ("{}", None),
        (r#"{"message":"no Route matched with those values"}"#, None),
        (r#"{"code":403}"#, None),
        (r#"{"code":"42501","message":"permission denied"}"#, Some("42501".to_owned())),
    ] {
        let (error, requests) = refused_by(Reply::new(403).say(body));
        assert_eq!((&error, requests), (&RestError::Refused { status: 403, sqlstate }, 1), "{body}");
        assert!(!error.is_firewall_rejection());
    }
}

#[test]
fn an_html_page_confirms_no_write() {
    let page = |status| Reply::new(status).say("<!DOCTYPE html><title>Checking</title>");
    for (reply, is_confirmed) in [
        (page(200), false),
        (page(201), false),
        (Reply::new(200).say("no healthy upstream"), false),
        (Reply::new(201), true),
        (Reply::new(200).say("\"generating\""), true),
    ] {
        let host = ScriptedHost::new(0);
        host.on(ROWS, reply);
        assert_eq!(open(&host, 0), Ok(is_confirmed));
    }
    for status in [408, 429, 502, 522] {
        assert_eq!(refused_by(page(status)), (RestError::Unavailable, 3), "{status}");
    }
}

#[test]
fn a_rejection_after_a_lost_response_does_not_rule_out_a_write() {
    for refused in [not_yet_valid(), Reply::new(401), Reply::new(403), Reply::new(403).say("<html>")] {
        let host = ScriptedHost::new(0);
        host.on(ROWS, Reply::unreachable());
        host.always(ROWS, refused);
        assert_eq!(open(&host, 0), Err(RestError::Unavailable));
    }
    // Rejected at the first attempt, nothing was written.
    let host = ScriptedHost::new(0);
    host.on(ROWS, not_yet_valid());
    host.on(ROWS, Reply::new(401));
    assert_eq!(open(&host, 0), Err(RestError::Unauthorized));
}
