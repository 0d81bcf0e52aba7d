//! The sanitizer on the cases of the page's copy of it (`tests/client/text.test.ts`): page and service count alike.

use ai_sessions::input::sanitize::sanitize;
use serde::Deserialize;

/// The fixture's cases; with fewer, a file that lost some would pass.
const CASES_MIN: usize = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    text: String,
    clean: String,
    characters: usize,
}

#[test]
fn sanitized_texts_and_their_lengths_equal_the_fixture() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../fixtures/texts.json")).expect("the fixture is JSON");
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    for Case { name, text, clean, characters } in cases {
        assert_eq!(sanitize(&text), clean, "{name}");
        assert_eq!(clean.chars().count(), characters, "{name}");
    }
}
