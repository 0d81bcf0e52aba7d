//! Who imports whom: pure stages ← vendors ← edge ← hosts, imports point left only.
//!
//! Read from the source itself, so that a new file is checked without anybody thinking of it.

#![expect(clippy::expect_used, reason = "a source tree that cannot be read fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Values without behaviour of a layer: everybody may import them.
const SHARED: &[&str] = &["http", "keyed_hash", "problem", "pseudonym", "config"];
const PURE: &[&str] = &["auth", "input", "user_state", "quota", "generation", "answer"];
const VENDORS: &[&str] = &["supabase", "openrouter"];

/// What a module of `src/` may import from this crate.
fn allowed(module: &str) -> Option<Vec<&'static str>> {
    let layers: &[&[&'static str]] = match module {
        // The settings are made of the stages' own types.
        "config" => &[&["quota", "keyed_hash"]],
        "http" | "problem" => &[SHARED],
        "keyed_hash" => &[],
        "pseudonym" => &[&["keyed_hash"]],
        "ports" => &[SHARED, PURE],
        pure if PURE.contains(&pure) => &[SHARED, PURE],
        "supabase" => &[SHARED, PURE, &["ports", "supabase"]],
        "openrouter" => &[SHARED, PURE, &["ports", "openrouter"]],
        "edge" => &[SHARED, PURE, VENDORS, &["ports", "edge"]],
        "cloudflare" => &[SHARED, PURE, VENDORS, &["ports", "edge", "cloudflare"]],
        _ => return None,
    };
    Some(layers.concat())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(folder).expect("src/ is there").map(|entry| entry.expect("it can be read").path())
    {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
    found
}

/// The module of `src/` that a file belongs to, and its code without comments.
fn sources() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file: PathBuf| {
        let inside = file.strip_prefix(&src).expect("it is in src/");
        let first = inside.components().next().expect("it has a name").as_os_str().to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).expect("it can be read");
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        (module, file.clone(), code.join("\n"))
    };
    files(&src).into_iter().map(read).filter(|(module, ..)| module != "lib").collect()
}

/// Every name that follows `crate::`, groups included.
fn imports(code: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = code.get(at + "crate::".len()..).unwrap_or_default();
        match rest.strip_prefix('{') {
            Some(group) => {
                let (mut depth, mut member) = (0_usize, String::new());
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => found.push(name(std::mem::take(&mut member).trim())),
                        _ if depth == 0 => member.push(c),
                        _ => {}
                    }
                }
                found.push(name(member.trim()));
            }
            None => found.push(name(rest)),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn imports_point_left_only() {
    let mut wrong = Vec::new();
    for (module, file, code) in sources() {
        let Some(allowed) = allowed(&module) else {
            wrong.push(format!("{}: in none of the layers", file.display()));
            continue;
        };
        for import in imports(&code) {
            if import != module && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}: imports {import}", file.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn pure_stages_wait_for_nothing() {
    for (module, file, code) in sources() {
        if PURE.contains(&module.as_str()) {
            assert!(!code.contains("async ") && !code.contains(".await"), "{}", file.display());
        }
    }
}

#[test]
fn only_the_host_names_the_platform() {
    for (module, file, code) in sources() {
        let names_it =
            ["worker::", "wasm_bindgen", "js_sys", "web_sys"].iter().any(|name| code.contains(name));
        assert!(module == "cloudflare" || !names_it, "{}", file.display());
    }
}

#[test]
fn no_file_has_a_name_that_tells_nothing() {
    for (_, file, _) in sources() {
        let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        assert!(
            !["utils", "util", "helpers", "common", "types", "misc", "manager"].contains(&name.as_str()),
            "{name}"
        );
    }
}

#[test]
fn the_reader_of_imports_reads() {
    let code = "use crate::{a::B, c, d::{e, f}};\nuse crate::g;\nlet x = crate::h::i();";
    assert_eq!(imports(code), ["a", "c", "d", "g", "h"]);
}
