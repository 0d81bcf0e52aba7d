//! The retired words of the glossary (STYLE.md of the project): none of them is in the tree, but in the changelog, which
//! keeps its history.

#![expect(clippy::expect_used, reason = "a tree that cannot be read fails the test")]

use std::fs;
use std::path::Path;

/// Words with a standard term. Words that plain English needs too (form, follow, tell, hold) are reviewed by people.
const RETIRED: &[&str] = &[
    "anybody",
    "asked",
    "bite",
    "bites",
    "chore",
    "chores",
    "claimed",
    "death",
    "desk",
    "desks",
    "died",
    "dies",
    "hear",
    "heard",
    "hears",
    "neighbor",
    "neighbors",
    "neighbour",
    "neighbours",
    "news",
    "nobody",
    "outermost.js",
    "piece",
    "pieces",
    "settled",
    "somebody",
    "someone",
    "tells",
    "told",
    "unwritten",
    "whoever",
    "wish",
    "wishes",
];
/// Names in stored data and sentences of others.
const EXCEPTIONS: &[&str] = &[
    "told_limited",
    "asked_by",
    "claimed_ms",
    "asked?: submitted",
    "asked: submitted",
    // Comments of released migrations, which a later one restates.
    "the caller was told",
    "what a user asked",
    "that was asked for",
    "nobody writes into",
    "being told which",
];
const FOLDERS: &[&str] = &[
    "src",
    "tests",
    "scripts",
    "supabase",
    "bench",
    "examples/astro/src",
    "fuzz/targets",
    "migrations",
    "docs",
    "operations",
    "tools",
];
const FILES: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "STYLE.md",
    "Cargo.toml",
    "wrangler.toml",
    "package.json",
    "deny.toml",
    "clippy.toml",
    ".ci/run",
];
const SKIPPED: &[&str] =
    &["bundle", "node_modules", "target", "results", "fixtures", "cases", "proptest-regressions"];
const KINDS: &[&str] = &["astro", "css", "js", "json", "md", "mjs", "rs", "sql", "toml", "ts"];

fn check(root: &Path, path: &Path, found: &mut Vec<String>, files: &mut usize) {
    let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
    if path.is_dir() {
        if SKIPPED.contains(&name.as_str()) {
            return;
        }
        for entry in fs::read_dir(path).expect("the folder exists") {
            check(root, &entry.expect("it can be read").path(), found, files);
        }
        return;
    }
    let kind = path.extension().map(|kind| kind.to_string_lossy().into_owned()).unwrap_or_default();
    if name.contains("lock") || !(KINDS.contains(&kind.as_str()) || name == "run") {
        return;
    }
    *files += 1;
    let text = fs::read_to_string(path).expect("it is text");
    for (number, line) in text.lines().enumerate() {
        let plain = EXCEPTIONS
            .iter()
            .fold(line.to_lowercase(), |line, known| line.replace(&known.to_lowercase(), ""));
        let words = plain.split(|c: char| !c.is_alphanumeric() && c != '.');
        for word in words.map(|word| word.trim_end_matches('.')) {
            if RETIRED.contains(&word) {
                let path = path.strip_prefix(root).expect("it is in the tree").display();
                found.push(format!("{path}:{}: {word}", number + 1));
            }
        }
    }
}

#[test]
fn no_retired_word_is_in_the_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut files) = (Vec::new(), 0);
    for path in FOLDERS.iter().chain(FILES) {
        check(root, &root.join(path), &mut found, &mut files);
    }
    found.retain(|place| !place.starts_with("tests/core/vocabulary.rs"));
    assert_eq!(found, Vec::<String>::new());
    assert!(files > 300, "only {files} files were read");
}
