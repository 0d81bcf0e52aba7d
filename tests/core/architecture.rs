//! The import rules: shared and pure ← ports ← vendors ← `user_object` ← `edge` ← `web` ← `cloudflare` and `supabase_edge`,
//! which do not import each other. Read from the source files, so that a new file is checked too.

#![expect(clippy::expect_used, reason = "a source tree that cannot be read fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Values of every layer.
const SHARED: &[&str] = &[
    "config",
    "http",
    "ids",
    "json",
    "json_string",
    "keyed_hash",
    "least_recently_used",
    "lower_case",
    "money",
    "points",
    "pseudonym",
    "readiness",
    "rfc3339",
    "text_search",
];
const PURE: &[&str] = &["auth", "citation", "generation", "input", "quota", "user_state"];
const VENDORS: &[&str] = &["openrouter", "supabase"];
const HOSTS: &[&str] = &["web", "cloudflare", "supabase_edge"];
/// The pure files of the other layers.
const PURE_FILES: &[&str] = &[
    "edge/documents.rs",
    "edge/failure.rs",
    "edge/render.rs",
    "edge/routes.rs",
    "edge/wire.rs",
    "openrouter/call.rs",
    "openrouter/chunk.rs",
    "openrouter/failure.rs",
    "openrouter/request.rs",
    "openrouter/response_reader.rs",
    "user_object/command.rs",
    "user_object/generate/read_pacing.rs",
    "user_object/generate/step.rs",
    "user_object/reply.rs",
    "user_object/session_view.rs",
];

/// The modules that a module may import; `None` for one without a layer.
fn allowed(module: &str) -> Option<Vec<&'static str>> {
    let layers: &[&[&'static str]] = match module {
        // The settings are of the stages' own types.
        "config" => &[&["json", "keyed_hash", "money", "quota", "text_search"]],
        "http" => &[&["config", "json", "quota", "text_search"]],
        "ids"
        | "json"
        | "keyed_hash"
        | "least_recently_used"
        | "lower_case"
        | "money"
        | "points"
        | "rfc3339"
        | "text_search" => &[],
        "json_string" => &[&["json"]],
        "readiness" => &[&["http"]],
        "pseudonym" => &[&["keyed_hash"]],
        pure if PURE.contains(&pure) => &[SHARED, PURE],
        "ports" => &[SHARED, PURE],
        vendor if VENDORS.contains(&vendor) => &[SHARED, PURE, &["ports"]],
        "user_object" => &[SHARED, PURE, &["ports"], VENDORS],
        "edge" => &[SHARED, PURE, &["ports"], VENDORS, &["user_object"]],
        "web" => &[SHARED, PURE, &["ports", "user_object", "edge"]],
        "cloudflare" | "supabase_edge" => {
            &[SHARED, PURE, &["ports"], VENDORS, &["user_object", "edge", "web"]]
        }
        _ => return None,
    };
    Some(layers.concat())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).expect("the folder exists");
    for entry in entries.map(|entry| entry.expect("it can be read").path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
    found
}

/// A file of `src/`.
struct Source {
    /// The module at the top of the crate.
    module: String,
    /// From `src/` on.
    path: String,
    /// Without comments.
    code: String,
}

/// Every file of `src/` but `lib.rs`.
fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file: PathBuf| {
        let path = file.strip_prefix(&src).expect("it is in src/").to_string_lossy().into_owned();
        let module = path.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).expect("it can be read");
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        Source { module, path, code: code.join("\n") }
    };
    let sources: Vec<Source> =
        files(&src).into_iter().map(read).filter(|file| file.module != "lib").collect();
    assert!(sources.len() > 80, "only {} files were found", sources.len());
    sources
}

/// Every path that follows `crate::`; those of a group one by one.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, matched) in code.match_indices("crate::") {
        expand(code.get(at + matched.len()..).unwrap_or_default(), "", &mut found);
    }
    found
}

/// Reads one path or group; returns the rest.
fn expand<'a>(text: &'a str, prefix: &str, found: &mut Vec<String>) -> &'a str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let path = [prefix, path].concat();
    let Some(mut members) = rest.strip_prefix('{').filter(|_| path.is_empty() || path.ends_with("::")) else {
        found.push(path.trim_end_matches(':').to_owned());
        return rest;
    };
    loop {
        members = members.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '_' && c != '}');
        if let Some(alias) = members.strip_prefix("as ") {
            members = alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            continue;
        }
        match members.strip_prefix('}') {
            Some(rest) => return rest,
            None if members.is_empty() => return members,
            None => members = expand(members, &path, found),
        }
    }
}

/// The module of a path.
fn module_of(import: &str) -> &str {
    import.split("::").next().unwrap_or_default()
}

#[test]
fn imports_point_left_only() {
    let mut wrong = Vec::new();
    for Source { module, path, code } in sources() {
        let Some(allowed) = allowed(&module) else {
            wrong.push(format!("{path}: in none of the layers"));
            continue;
        };
        for import in imports(&code) {
            let imported = module_of(&import);
            if imported != module && !allowed.contains(&imported) {
                wrong.push(format!("{path}: imports {import}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Which modules each module imports.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// The modules that import each other; none, when the graph has no cycle.
fn cycles(mut graph: Graph) -> Graph {
    loop {
        let imported: BTreeSet<String> = graph.values().flatten().cloned().collect();
        let before = graph.len();
        graph.retain(|module, imports| !imports.is_empty() && imported.contains(module));
        let left: BTreeSet<String> = graph.keys().cloned().collect();
        for imports in graph.values_mut() {
            imports.retain(|import| left.contains(import));
        }
        if graph.len() == before {
            return graph;
        }
    }
}

#[test]
fn no_module_left_of_the_hosts_is_in_an_import_cycle() {
    let mut graph = Graph::new();
    for Source { module, code, .. } in sources() {
        if HOSTS.contains(&module.as_str()) {
            continue;
        }
        let imports = imports(&code).into_iter().map(|import| module_of(&import).to_owned());
        let others: Vec<String> = imports.filter(|import| *import != module).collect();
        graph.entry(module).or_default().extend(others);
    }
    assert!(graph.values().flatten().count() > 40, "the imports were not read");
    assert_eq!(cycles(graph), Graph::new());
}

#[test]
fn a_cycle_is_found_with_its_modules_only() {
    let graph = |edges: &[(&str, &[&str])]| -> Graph {
        let imports = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        edges.iter().map(|(module, names)| ((*module).to_owned(), imports(names))).collect()
    };
    let ring: &[(&str, &[&str])] = &[("a", &["b"]), ("b", &["c"]), ("c", &["a"])];
    let around: &[(&str, &[&str])] = &[("d", &["a"]), ("c", &["a", "e"]), ("e", &[])];
    assert_eq!(cycles(graph(&[ring, around].concat())), graph(ring));
    assert_eq!(cycles(graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])), Graph::new());
}

#[test]
fn pure_code_awaits_nothing() {
    let mut files: BTreeSet<&str> = PURE_FILES.iter().copied().collect();
    for Source { module, path, code } in sources() {
        let is_pure_layer = [SHARED, PURE].concat().contains(&module.as_str());
        if files.remove(path.as_str()) || is_pure_layer {
            assert!(!code.contains("async ") && !code.contains(".await"), "{path}");
            let port = imports(&code).into_iter().find(|import| module_of(import) == "ports");
            assert_eq!(port, None, "{path}");
        }
    }
    assert!(files.is_empty(), "{files:?} do not exist");
}

#[test]
fn the_user_object_does_not_render_http() {
    for Source { path, code, .. } in sources().into_iter().filter(|file| file.module == "user_object") {
        for import in imports(&code).into_iter().filter(|import| module_of(import) == "http") {
            let is_value =
                ["http::problem::Code", "http::response_mode", "http::sse::EventId", "http::to_json"]
                    .iter()
                    .any(|known| import.starts_with(known));
            assert!(is_value, "{path}: imports {import}");
        }
        assert!(!code.contains("to_response("), "{path}");
    }
}

/// Without such a condition outside of the hosts, the native build proves that no other module names the platform.
#[test]
fn only_the_host_modules_are_compiled_for_wasm_alone() {
    for Source { path, code, .. } in sources() {
        assert!(!code.contains("target_arch") && !code.contains("target_family"), "{path}");
    }
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let lib = fs::read_to_string(lib).expect("it can be read");
    let lines: Vec<&str> = lib.lines().collect();
    let conditional: Vec<&str> = lines
        .windows(2)
        .filter_map(|pair| match pair {
            [condition, module] if condition.contains("target_arch") => Some(*module),
            _ => None,
        })
        .collect();
    assert_eq!(conditional, ["mod cloudflare;", "mod supabase_edge;", "mod web;"]);
    assert_eq!(lib.matches("target_").count(), conditional.len());
}

#[test]
fn the_web_host_names_no_platform_of_a_vendor() {
    for Source { path, code, .. } in sources().into_iter().filter(|file| file.module == "web") {
        assert!(!code.contains("worker::"), "{path}");
        let code = code.to_lowercase();
        assert!(!code.contains("cloudflare") && !code.contains("deno"), "{path}");
    }
}

#[test]
fn no_file_has_a_vague_name() {
    const VAGUE: &[&str] = &[
        "utils", "util", "helpers", "common", "types", "misc", "manager", "managers", "service", "services",
    ];
    for Source { path, .. } in sources() {
        let mut names = path.trim_end_matches(".rs").split('/');
        assert!(names.all(|name| !VAGUE.contains(&name)), "{path}");
    }
}

#[test]
fn imports_are_read_with_their_groups() {
    let code = "use crate::{a::B, c, d::{e, f as g}, h::*};\nuse crate::i;\nlet x = crate::j::k();";
    let modules: Vec<String> = imports(code).iter().map(|import| module_of(import).to_owned()).collect();
    assert_eq!(modules, ["a", "c", "d", "d", "h", "i", "j"]);
    assert_eq!(imports("use crate::a::{\n    b::{C, D},\n    self,\n};"), ["a::b::C", "a::b::D", "a::self"]);
}
