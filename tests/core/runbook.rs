//! `operations/runbook.md` against the code: every alert and every 5xx code has an entry, with all of its parts, and every variable
//! and function that it names exists. `tests/core/documents.rs` checks its links, paths and npm commands;
//! `tests/scripts/runbook.test.ts` the commands of wrangler, and `tests/hosts/rotation.test.ts` those of Node.

#![expect(clippy::expect_used, reason = "a document that cannot be read fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ai_sessions::auth::key_cache::{FRESH_MS, STALE_MS};
use ai_sessions::config::VARIABLES;
use ai_sessions::http::problem::Code;

/// The names of the alerts, which link to the entries.
const ALERTS: [&str; 10] = [
    "availability-fast-burn",
    "availability-slow-burn",
    "ai-misconfigured",
    "not-persisted",
    "dollars-per-hour",
    "rate-limited-share",
    "first-candidate-p95",
    "dropped-candidates-share",
    "signing-keys-stale",
    "no-traffic",
];

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("it can be read")
}

/// The sections of a chapter: heading and text.
fn entries(chapter: &str) -> Vec<(String, String)> {
    let runbook = read("operations/runbook.md");
    let start = ["\n## ", chapter, "\n"].concat();
    let text = runbook.split(&start).nth(1).expect("the chapter is there");
    let text = text.split("\n## ").next().unwrap_or_default();
    let sections =
        text.split("\n### ").skip(1).map(|section| section.split_once('\n').unwrap_or((section, "")));
    sections.map(|(heading, text)| (heading.to_owned(), text.to_owned())).collect()
}

/// The texts in code format, of a line each.
fn quoted(text: &str) -> Vec<String> {
    let without_blocks: String = text.split("```").step_by(2).collect();
    without_blocks.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_alert_has_an_entry_in_the_runbook() {
    let headings: Vec<String> = entries("Alerts").into_iter().map(|(heading, _)| heading).collect();
    assert_eq!(headings, ALERTS);
}

#[test]
fn every_5xx_code_has_an_entry_in_the_runbook() {
    let headings: Vec<String> = entries("5xx codes").into_iter().map(|(heading, _)| heading).collect();
    let codes: Vec<&str> =
        Code::ALL.iter().filter(|code| code.status() >= 500).map(|code| code.name()).collect();
    assert_eq!(headings, codes);
}

#[test]
fn every_entry_has_meaning_query_action_and_end() {
    for (heading, text) in [entries("Alerts"), entries("5xx codes")].concat() {
        let places: Vec<Option<usize>> =
            ["\n**Meaning.** ", "\n**See.** ", "\n```sql\n", "\n**Act.** ", "\n**Over.** "]
                .iter()
                .map(|part| text.find(part))
                .collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{heading}: {places:?}");
        assert_eq!(text.matches("```").count(), 2, "{heading} has one query");
        assert!(text.contains("FROM ai_sessions\nWHERE blob1"), "{heading} queries one kind of point");
    }
}

#[test]
fn every_variable_and_function_of_the_runbook_exists() {
    let runbook = read("operations/runbook.md");
    let migrations: String = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations"))
        .expect("the folder is there")
        .filter_map(|entry| fs::read_to_string(entry.expect("it can be read").path()).ok())
        .collect();
    let is_variable =
        |word: &str| word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let mut variables = 0;
    for text in quoted(&runbook) {
        let words = text
            .split([' ', '=', '<', '>'])
            .filter(|word| is_variable(word) && *word != "NAME" && *word != "VALUE");
        for word in words {
            assert!(VARIABLES.contains(&word) || word == "METRICS", "{word} is no variable");
            variables += 1;
        }
    }
    assert!(variables > 40, "only {variables} variables were found");
    let functions =
        runbook.split("ai_sessions.").skip(1).map(|rest| rest.split(['(', ' ']).next().unwrap_or_default());
    let mut found = 0;
    for name in functions {
        let name = ["ai_sessions.", name].concat();
        assert!(
            migrations.contains(&["create function ", &name, "("].concat())
                || migrations.contains(&["create table ", &name, " ("].concat()),
            "{name}"
        );
        found += 1;
    }
    assert!(found > 2, "only {found} functions and tables were found");
}

#[test]
fn the_entry_of_refusals_names_every_limit() {
    let alerts = entries("Alerts");
    let (_, text) = alerts.iter().find(|(heading, _)| heading == "rate-limited-share").expect("it is there");
    for variable in VARIABLES.iter().filter(|variable| variable.starts_with("RATE_LIMIT_")) {
        assert!(text.contains(&["`", variable, "`"].concat()), "{variable}");
    }
}

/// Keys are fetched from a cache of the sign-in service that is as old as fresh ones, and used stale by the first request after.
#[test]
fn the_rotation_says_how_long_a_revoked_key_is_accepted() {
    let rotations = entries("Rotate secrets");
    let (_, text) = rotations.iter().find(|(heading, _)| heading == "The signing keys").expect("it is there");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        format!("for at most {} minutes more", 2 * FRESH_MS / 60_000),
        format!("up to {} h after", STALE_MS / 3_600_000),
    ] {
        assert!(text.contains(&expected), "{expected}");
    }
}

/// The columns that a kind of point has, by the table of `operations/README.md`.
fn columns(kind: &str) -> BTreeSet<String> {
    let table = read("operations/README.md");
    let rows = table.lines().filter(|line| line.starts_with(&["| ", kind, " |"].concat()));
    rows.filter_map(|line| line.split('`').nth(1)).map(str::to_owned).collect()
}

/// The columns in a query.
fn named_columns(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric());
    let is_column = |word: &&str| {
        let digits = word.strip_prefix("blob").or_else(|| word.strip_prefix("double"));
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    words.filter(is_column).map(str::to_owned).collect()
}

#[test]
fn every_query_of_the_runbook_names_columns_of_its_points() {
    for (heading, text) in [entries("Alerts"), entries("5xx codes")].concat() {
        let query = text.split("```").nth(1).unwrap_or_default();
        let kinds = [("= 'generation'", "generation"), ("= 'job'", "job"), ("LIKE '/", "request")];
        let kind = kinds.iter().find(|(condition, _)| query.contains(&["WHERE blob1 ", condition].concat()));
        let (_, kind) = kind.expect("it selects one kind of point");
        let (known, named) = (columns(kind), named_columns(query));
        assert!(known.len() > 4, "the columns of {kind} were not read");
        assert!(!named.is_empty() && named.is_subset(&known), "{heading}: {named:?}");
    }
}
