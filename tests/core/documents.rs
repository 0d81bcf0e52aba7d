//! Tests of the documents against the code.

#![expect(clippy::expect_used, reason = "a document that cannot be read fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ai_sessions::config::{Config, Platform, VARIABLES};
use ai_sessions::edge::routes::TABLE;
use ai_sessions::http::problem::Code;
use ai_sessions::points::{Columns, GENERATION, JOB, REQUEST};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the document is there")
}

/// Every document, by its path from the root.
fn documents() -> Vec<String> {
    let fixed = [
        "README.md",
        "ARCHITECTURE.md",
        "STYLE.md",
        "CHANGELOG.md",
        "bench/README.md",
        "migrations/README.md",
        "operations/runbook.md",
        "operations/README.md",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join("docs")).expect("the folder is there");
    let names =
        entries.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned());
    let in_docs = names.filter(|name| name.ends_with(".md")).map(|name| ["docs/", &name].concat());
    fixed.iter().map(|name| (*name).to_owned()).chain(in_docs).collect()
}

/// The part of a document under a heading, up to the next one of that level or above.
fn chapter(document: &str, heading: &str) -> String {
    let level = heading.chars().take_while(|c| *c == '#').count();
    let text = read(document);
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        let depth = line.chars().take_while(|c| *c == '#').count();
        if (1..=level).contains(&depth) {
            inside = line == heading;
        } else if inside {
            lines.push(line);
        }
    }
    assert!(!lines.is_empty(), "{document} has no chapter {heading}");
    lines.join("\n")
}

/// The cells of a chapter's table rows, without head and rule.
fn rows(chapter: &str) -> Vec<Vec<String>> {
    let rows = chapter.lines().filter(|line| line.starts_with('|') && !line.starts_with("| ---"));
    let cells = |line: &str| {
        let inner = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', ""));
        inner.collect::<Vec<String>>()
    };
    rows.map(cells).skip(1).collect()
}

fn cell(row: &[String], index: usize) -> String {
    row.get(index).cloned().unwrap_or_default()
}

/// The chapter of all variables, and the one of those that differ on Supabase Edge Functions.
const VARIABLE_CHAPTERS: [&str; 2] = ["## Variables", "## On Supabase Edge Functions"];

/// The name and the default of each variable of a chapter.
fn variables(chapter_name: &str) -> Vec<(String, String)> {
    let rows = rows(&chapter("docs/configuration.md", chapter_name));
    rows.iter().map(|row| (cell(row, 0), cell(row, 1))).collect()
}

#[test]
fn every_variable_is_in_the_table_and_no_other() {
    let [on_both, on_edge] = VARIABLE_CHAPTERS.map(variables);
    let others = on_edge.iter().filter(|(name, _)| !on_both.iter().any(|(known, _)| known == name));
    let documented: Vec<&str> = on_both.iter().chain(others).map(|(name, _)| name.as_str()).collect();
    assert_eq!(documented, VARIABLES);
}

#[test]
fn every_default_in_the_table_is_true() {
    let api_key = "b".repeat(32);
    let least = [
        ("SUPABASE_URL", "https://a.example"),
        ("SUPABASE_ANON_KEY", "a"),
        ("OPENROUTER_API_KEY", api_key.as_str()),
        ("USER_STATE_KEY", api_key.as_str()),
    ];
    let with = |platform, more: &[(String, String)]| {
        let set = more.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let set: Vec<(&str, &str)> = set.chain(least).collect();
        Config::read(platform, |name| {
            set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    };
    let defaults = |chapter_name| -> Vec<(String, String)> {
        let documented = variables(chapter_name).into_iter().filter(|(_, default)| {
            !["required", "none", "derived", "four small models"].contains(&default.as_str())
        });
        documented
            .map(|(name, default)| (name, default.replace("${SUPABASE_URL}", "https://a.example")))
            .collect()
    };
    let [on_both, on_edge] = VARIABLE_CHAPTERS.map(defaults);
    assert!(on_both.len() > 8 && on_edge.len() > 2, "the tables were not read");
    let on_edge = [on_edge, on_both.clone()].concat();
    for (platform, defaults) in [(Platform::Cloudflare, on_both), (Platform::SupabaseEdge, on_edge)] {
        let read = with(platform, &[]);
        assert_eq!(with(platform, &defaults), read, "the documented defaults and those of the code");
        assert_eq!(read.expect("the least is enough").model_api.allowed_models.len(), 4);
    }
}

#[test]
fn a_base_path_that_begins_with_a_route_is_refused() {
    for (_, pattern, _) in TABLE {
        let public_url = ["https://a.example", pattern].concat();
        let read = Config::read(Platform::Cloudflare, |name| {
            Some(if name == "PUBLIC_URL" { public_url.clone() } else { String::new() })
        });
        let misconfigured = read.expect_err("nothing else is set");
        assert!(misconfigured.errors.iter().any(|error| error.variable == "PUBLIC_URL"), "{pattern}");
    }
}

#[test]
fn every_problem_is_in_the_table_with_its_status() {
    let documented: BTreeSet<(String, String)> =
        rows(&chapter("docs/api.md", "## Errors")).iter().map(|row| (cell(row, 0), cell(row, 1))).collect();
    let expected: BTreeSet<(String, String)> =
        Code::ALL.iter().map(|code| (code.status().to_string(), code.name().to_owned())).collect();
    assert_eq!(documented, expected);
}

/// The first three cells of the rows of a kind of point.
fn columns<const T: usize, const F: usize>(kind: &str, columns: &Columns<T, F>) -> Vec<[String; 3]> {
    let numbered = |column: &'static str, names: &[&str]| -> Vec<[String; 3]> {
        let rows = names.iter().zip(1..);
        rows.map(|(name, number)| [kind.to_owned(), format!("{column}{number}"), (*name).to_owned()])
            .collect()
    };
    [numbered("blob", &columns.texts), numbered("double", &columns.figures)].concat()
}

#[test]
fn every_column_of_each_point_is_in_the_table() {
    let documented: Vec<[String; 3]> = rows(&chapter("operations/README.md", "## Points"))
        .iter()
        .map(|row| [0, 1, 2].map(|index| cell(row, index)))
        .collect();
    let expected =
        [columns("request", &REQUEST), columns("generation", &GENERATION), columns("job", &JOB)].concat();
    assert_eq!(documented, expected);
}

/// Analytics Engine stores at most 20 texts and 20 figures of a point.
#[test]
fn no_point_has_more_columns_than_the_dataset_stores() {
    for row in rows(&chapter("operations/README.md", "## Points")) {
        let number = cell(&row, 1).trim_start_matches(|c: char| c.is_alphabetic()).parse::<u32>();
        assert!(number.is_ok_and(|number| (1..=20).contains(&number)), "{row:?}");
    }
}

/// The Rust files under a folder, but for tests, with their text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("the folder is there");
    for entry in entries.map(|entry| entry.expect("it can be read")) {
        let name = [folder, "/", &entry.file_name().to_string_lossy()].concat();
        if entry.path().is_dir() {
            found.extend(sources(&name));
        } else if name.ends_with(".rs") {
            found.push((name.clone(), read(&name)));
        }
    }
    found
}

/// The code that no current host sends.
const RESERVED: &str = "idempotency_in_progress";

#[test]
fn every_code_but_the_reserved_one_is_constructed() {
    let without_tests = |text: String| text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    let code: String = sources("src")
        .into_iter()
        .filter(|(file, _)| file != "src/http/problem.rs" && !file.ends_with("tests.rs"))
        .map(|(_, text)| without_tests(text))
        .collect();
    let variant = |name: &str| -> String {
        let words = name.split('_').map(|word| {
            let (first, rest) = word.split_at(1);
            [&first.to_uppercase(), rest].concat()
        });
        words.collect()
    };
    let never: Vec<&str> = Code::ALL
        .iter()
        .map(|code| code.name())
        .filter(|name| !code.contains(&["Code::", &variant(name)].concat()))
        .collect();
    assert_eq!(never, [RESERVED]);
}

#[test]
fn the_documents_mark_the_reserved_code() {
    let reserved: Vec<String> = rows(&chapter("docs/api.md", "## Errors"))
        .iter()
        .filter(|row| cell(row, 2).starts_with("reserved"))
        .map(|row| cell(row, 1))
        .collect();
    assert_eq!(reserved, [RESERVED]);
    let tested = chapter("docs/development.md", "## Tests").replace('\n', " ");
    assert!(tested.contains(&["every code but the reserved `", RESERVED, "`"].concat()));
}

#[test]
fn every_host_in_the_readme_runs_the_tests() {
    let hosts = [("Cloudflare Worker", "workerd_1.test.ts"), ("Edge Function", "supabase_edge_1.test.ts")];
    for (name, tests) in hosts {
        let has_tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts").join(tests).exists();
        assert_eq!(read("README.md").contains(name), has_tests, "{name}: tests/hosts/{tests}");
    }
}

#[test]
fn every_layer_but_the_host_has_native_tests() {
    let layers = [
        "auth",
        "citation",
        "edge",
        "generation",
        "http",
        "input",
        "openrouter",
        "quota",
        "supabase",
        "user_object",
        "user_state",
    ];
    for layer in layers {
        let files = sources(&["src/", layer].concat());
        assert!(files.iter().any(|(_, text)| text.contains("#[test]")), "{layer}");
    }
    // The host is compiled for Wasm only, so a test in it would never run.
    for (file, text) in sources("src/cloudflare") {
        assert!(!text.contains("#[test]"), "{file}");
    }
}

#[test]
fn the_advice_about_each_problem_equals_that_of_openapi_json() {
    let document: serde_json::Value =
        serde_json::from_str(&read("src/edge/openapi.json")).expect("it is JSON");
    let codes = document["components"]["schemas"]["ProblemCode"]["oneOf"].as_array().expect("it is a list");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().replace('`', "");
    let in_document: Vec<(String, String)> =
        codes.iter().map(|code| (text(&code["const"]), text(&code["description"]))).collect();
    let in_table: Vec<(String, String)> =
        rows(&chapter("docs/api.md", "## Errors")).iter().map(|row| (cell(row, 1), cell(row, 2))).collect();
    assert_eq!(in_table, in_document);
}

#[test]
fn every_route_is_in_the_table_of_the_readme() {
    let documented: BTreeSet<String> = rows(&chapter("README.md", "## One request"))
        .iter()
        .map(|row| cell(row, 0))
        .filter(|route| route.contains(" /"))
        .collect();
    let expected: BTreeSet<String> =
        TABLE.iter().map(|(method, path, _)| [*method, " ", *path].concat()).collect();
    assert_eq!(documented, expected);
}

#[test]
fn the_documents_and_package_json_have_the_same_commands() {
    let package: serde_json::Value = serde_json::from_str(&read("package.json")).expect("it is JSON");
    let scripts = package["scripts"].as_object().expect("it has scripts");
    let commands = chapter("docs/development.md", "## Commands");
    for name in scripts.keys() {
        let command = if name == "test" { "`npm test`".to_owned() } else { format!("`npm run {name}`") };
        assert!(commands.contains(&command), "docs/development.md does not contain {command}");
    }
    for document in documents() {
        for part in read(&document).split("npm run ").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == ':').collect();
            assert!(scripts.contains_key(&name), "{document}: npm run {name}");
        }
    }
}

#[test]
fn every_path_and_function_in_a_document_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut paths, mut functions) = (0, 0);
    for document in documents() {
        for quoted in read(&document).split('`').skip(1).step_by(2) {
            let is_path = ["src/", "tests/", "scripts/", "migrations/", "examples/", "bench/"]
                .iter()
                .any(|folder| quoted.starts_with(folder));
            if is_path && !quoted.contains([' ', '*', '{', '<']) {
                let (path, function) = quoted.split_once(':').unwrap_or((quoted, ""));
                assert!(root.join(path).exists(), "{document} names {quoted}");
                if !function.is_empty() {
                    let declares = ["fn ", function, "("].concat();
                    let generic = ["fn ", function, "<"].concat();
                    let code = read(path);
                    assert!(code.contains(&declares) || code.contains(&generic), "{document} names {quoted}");
                    functions += 1;
                }
                paths += 1;
            }
        }
    }
    assert!(paths > 20, "only {paths} paths were found");
    assert!(functions > 35, "only {functions} functions were found");
}

/// The anchor that GitHub gives a heading of one plain line.
fn anchor(heading: &str) -> String {
    heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_in_a_document_has_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for document in documents() {
        let text = read(&document);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let folder = root.join(&document).parent().expect("it is in a folder").to_owned();
            let path = if file.is_empty() { root.join(&document) } else { folder.join(file) };
            // A picture is no text.
            let bytes = fs::read(path).unwrap_or_default();
            let linked = String::from_utf8_lossy(&bytes);
            assert!(!linked.is_empty(), "{document} links to {target}");
            let has_heading = linked.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(heading.is_empty() || has_heading, "{document} links to {target}");
            links += 1;
        }
    }
    assert!(links > 20, "the links were not found");
}

#[test]
fn the_models_of_wrangler_toml_are_the_default_ones() {
    let wrangler = read("wrangler.toml");
    let line = wrangler.lines().find(|line| line.starts_with("ALLOWED_MODELS")).expect("it names the models");
    let models = line.split('"').nth(1).expect("in quotes");
    assert!(read("src/config.rs").contains(&format!("\"{models}\"")), "config.rs has another list");
}
