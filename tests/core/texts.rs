//! The rule for texts, on the cases that hold the page's copy of it too (`tests/client/text.test.ts`): what the page counts
//! is what the service counts.

use ai_sessions::input::sanitize::sanitize;
use serde::Deserialize;

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
    for Case { name, text, clean, characters } in cases {
        assert_eq!(sanitize(&text), clean, "{name}");
        assert_eq!(clean.chars().count(), characters, "{name}");
    }
}
