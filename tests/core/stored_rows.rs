//! The rows that the service reads from the database: their number, their size, and odd values that a user can write.

#![expect(clippy::expect_used, reason = "a read that fails against expectation fails the test")]

use std::fmt::Write as _;

use ai_sessions::auth::credentials::Credentials;
use ai_sessions::citation::check::{Citation, Note};
use ai_sessions::citation::sentences::Passage;
use ai_sessions::config::Supabase;
use ai_sessions::supabase::rest::RestError;
use ai_sessions::supabase::sessions::{self, SessionRow};
use uuid::Uuid;

use crate::scripted_host::{Reply, ScriptedHost};

const SESSION: Uuid = Uuid::from_u128(7);

fn supabase() -> Supabase {
    Supabase {
        url: "https://project.example".to_owned(),
        anon_key: "anon".to_owned(),
        jwt_secret: None,
        jwks: None,
    }
}

fn credentials() -> Credentials {
    Credentials { token: "token".into(), expires_ms: 0, traceparent: None }
}

/// Returns the row of a completed session as PostgREST writes it, with these members in place of its own.
fn row(more: &str) -> String {
    format!(
        r#"{{"id":"{SESSION}","run":1,"status":"completed","model":"test/first","partial":false,"error_code":null,
            "created_at":"2026-11-27T10:00:00+00:00","ended_at":"2026-11-27T10:00:09+00:00",{more}}}"#
    )
}

/// Returns so many candidates of the largest size, each character in its longest JSON form.
fn candidates(count: usize) -> String {
    let text = |chars: usize| r"\ud83d\ude00".repeat(chars);
    let (front, side) = (text(200), text(500));
    let mut list = String::new();
    for number in 0..count {
        let comma = if number == 0 { "" } else { "," };
        let id = Uuid::from_u128(u128::try_from(number).unwrap_or_default());
        write!(list, r#"{comma}{{"id":"{id}","front":"{front}","back":"{side}","prompt":"{side}"}}"#)
            .expect("a string takes it");
    }
    list
}

fn read(host: &ScriptedHost, candidates_max: usize) -> Result<Option<SessionRow>, RestError> {
    host.run(sessions::read(host, &supabase(), &credentials(), SESSION, candidates_max))
}

#[test]
fn a_read_requests_at_most_max_candidates() {
    for (candidates_max, parts) in [
        (1, &["&flashcard_candidates.limit=1"][..]),
        (20, &["&flashcard_candidates.limit=20"]),
        (1000, &["&flashcard_candidates.limit=1000"]),
        // PostgREST returns at most 1000 rows of each embedded list.
        (1001, &["&first.position=lt.1000", "&rest.position=gte.1000", "&rest.limit=1"]),
        (2000, &["&first.position=lt.1000", "&rest.position=gte.1000", "&rest.limit=1000"]),
    ] {
        let host = ScriptedHost::new(0);
        host.on("/rest/v1/ai_generation_sessions", Reply::new(200).say("[]"));
        assert_eq!(read(&host, candidates_max), Ok(None));
        let sent = host.sent();
        let url = &sent.first().expect("it was sent").request.url;
        for part in parts {
            assert!([url, "&"].concat().contains(&[part, "&"].concat()), "{url}");
        }
    }
}

#[test]
fn the_candidates_of_a_large_session_are_read_from_two_lists() {
    let host = ScriptedHost::new(0);
    let candidate = |number: u128| {
        format!(r#"{{"id":"{}","front":"f","back":"b","prompt":"p"}}"#, Uuid::from_u128(number))
    };
    let members = format!(r#""first":[{},{}],"rest":[{}]"#, candidate(1), candidate(2), candidate(3));
    host.on("/rest/v1", Reply::new(200).say(format!("[{}]", row(&members))));
    let row = read(&host, 2000).expect("it is read").expect("it is there");
    let ids: Vec<u128> = row.candidates.iter().map(|candidate| candidate.id.as_u128()).collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn the_largest_candidates_are_read() {
    for candidates_max in [1, 20, 100] {
        let host = ScriptedHost::new(0);
        let members = format!(r#""flashcard_candidates":[{}]"#, candidates(candidates_max));
        host.on("/rest/v1", Reply::new(200).say(format!("[{}]", row(&members))));
        let row = read(&host, candidates_max).expect("it is read").expect("it is there");
        assert_eq!(row.candidates.len(), candidates_max);
    }
}

#[test]
fn a_response_beyond_max_candidates_is_not_read() {
    // The limit includes the page of a proxy, which is as large as some 17 of the largest candidates.
    for (candidates_max, sent) in [(1, 30), (20, 50), (100, 140)] {
        let host = ScriptedHost::new(0);
        let members = format!(r#""flashcard_candidates":[{}]"#, candidates(sent));
        host.always("/rest/v1", Reply::new(200).say(format!("[{}]", row(&members))));
        assert_eq!(read(&host, candidates_max), Err(RestError::Unavailable));
    }
}

#[test]
fn a_response_beyond_the_limit_of_a_list_is_not_read() {
    let list = |host: &ScriptedHost, limit| {
        host.run(sessions::list(host, &supabase(), &credentials(), limit, None)).map(|rows| rows.len())
    };
    // A model's id of 200 characters, each in its longest form.
    let long = row("\"cost\":null").replace("test/first", &r"\ud83d\ude00".repeat(200));
    let page = |rows: usize| Reply::new(200).say(format!("[{}]", vec![long.as_str(); rows].join(",")));
    let host = ScriptedHost::new(0);
    host.on("/rest/v1", page(101));
    assert_eq!(list(&host, 101), Ok(101));
    host.always("/rest/v1", page(280));
    assert_eq!(list(&host, 101), Err(RestError::Unavailable));
}

#[test]
fn a_row_has_its_source_in_two_columns() {
    let host = ScriptedHost::new(0);
    let candidate =
        |columns: &str| format!(r#"{{"id":"{SESSION}","front":"f","back":"b","prompt":"p",{columns}}}"#);
    let rows = [
        r#""source_start":0,"source_end":10000,"supported":false,"notes":["list_answer","yes_or_no"]"#,
        r#""source_start":null,"source_end":null,"supported":null,"notes":[]"#,
        // Of a later version.
        r#""source_start":7,"source_end":9,"supported":true,"notes":["boring"]"#,
    ]
    .map(candidate);
    let members = format!(r#""coverage_percent":67,"flashcard_candidates":[{}]"#, rows.join(","));
    host.on("/rest/v1", Reply::new(200).say(format!("[{}]", row(&members))));
    let row = read(&host, 20).expect("it is read").expect("it is there");
    let citations: Vec<_> = row.candidates.iter().map(|candidate| candidate.citation.clone()).collect();
    let cited = |start, end, supported, notes: &[Note]| Citation {
        source: Some(Passage { start, end }),
        supported: Some(supported),
        notes: notes.to_vec(),
    };
    let first = cited(0, 10_000, false, &[Note::ListAnswer, Note::YesOrNo]);
    assert_eq!(citations, [first, Citation::default(), cited(7, 9, true, &[])]);
    assert_eq!(row.coverage_percent, Some(67));
}

#[test]
fn an_odd_cost_does_not_fail_the_read() {
    let digits = format!("1{}", "0".repeat(400));
    for (cost, expected) in [
        ("0.000123", Some(0.000_123)),
        ("0", Some(0.0)),
        ("null", None),
        (r#""NaN""#, None),
        (r#""Infinity""#, None),
        (&digits, None),
        ("1e400", None),
        ("-1e400", None),
        (r#"{"a":[1]}"#, None),
        ("true", None),
    ] {
        let host = ScriptedHost::new(0);
        let members = format!(r#""prompt_tokens":null,"completion_tokens":1,"cost":{cost}"#);
        host.on("/rest/v1", Reply::new(200).say(format!("[{}]", row(&members))));
        let row = read(&host, 20).expect("it is read").expect("it is there");
        assert_eq!((row.prompt_tokens, row.cost), (None, expected), "{members}");
        assert_eq!(row.completion_tokens, Some(1));
    }
}
