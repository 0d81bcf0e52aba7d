//! The body of `POST /ai-sessions`: any bytes are rejected with the right code, or are within the limits.
#![no_main]

use ai_sessions::http::problem::Code;
use ai_sessions::input::new_session::{INPUT_TEXT_MAX, INPUT_TEXT_MIN, NewSession};
use ai_sessions::input::sanitize::sanitize;
use serde_json::Value;

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let models = ["a/one".to_owned(), "b/two".to_owned()];
    let json: Option<Value> = serde_json::from_slice(body).ok();
    match NewSession::read(body, &models) {
        Ok(new) => {
            let characters = new.input_text.chars().count() as u64;
            assert!((INPUT_TEXT_MIN..=INPUT_TEXT_MAX).contains(&characters));
            assert_eq!(sanitize(&new.input_text), new.input_text, "an accepted text is sanitized");
            assert!(models.contains(&new.model));
            let json = json.expect("an accepted body is JSON");
            assert_eq!(json.as_object().map(|members| members.len()), Some(2));
            assert_eq!(json["input_text"].as_str().map(sanitize).as_deref(), Some(new.input_text.as_str()));
            assert_eq!(json["model"].as_str(), Some(new.model.as_str()));

            let again = serde_json::json!({ "input_text": new.input_text, "model": new.model }).to_string();
            assert_eq!(NewSession::read(again.as_bytes(), &models).ok(), Some(new));
        }
        Err(problem) => {
            assert!(problem.errors.len() <= 16);
            assert!(problem.detail.len() <= 1000, "the detail is bounded");
            let is_duplicate = problem.errors.iter().any(|error| error.code == "duplicate");
            match problem.code {
                Code::MalformedJson => assert!(json.is_none() || is_duplicate),
                Code::ValidationFailed => {
                    assert!(json.is_some() && !problem.errors.is_empty() && !is_duplicate)
                }
                other => panic!("{other:?} is no code of a body"),
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(body) {
        let clean = sanitize(text);
        assert!(clean.len() <= text.len());
        assert_eq!(sanitize(&clean), clean);
    }
});
