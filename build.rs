//! Makes of `src/answer/openapi.json` what is served: the document without white space, and the page for people.
//!
//! The page is HTML without a script, and loads nothing. It is a walk through the document in its own order, so what is
//! not in the document is not on the page. What both say stands in the module once: the page is kept as
//!
//! ```text
//! its own text ␁ 1234 56 ␁ its own text ␁ …         56 bytes of the document, from its byte 1234 on
//! ```
//! which `src/edge/docs.rs` puts together. That takes 3 KB, gzipped, off the module.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a document that cannot be read must stop the build; a member that is not there is null"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use serde_json::Value;

const SOURCE: &str = "src/answer/openapi.json";
const STYLE: &str = "src/answer/docs.css";
const METHODS: &[&str] = &["post", "get", "delete"];

fn main() {
    for file in [SOURCE, STYLE] {
        println!("cargo::rerun-if-changed={file}");
    }
    let source = fs::read_to_string(SOURCE).expect("openapi.json is there");
    let style = fs::read_to_string(STYLE).expect("docs.css is there");
    let document: Value = serde_json::from_str(&source).expect("openapi.json is JSON");
    let folder = env::var("OUT_DIR").expect("cargo names it");
    let write = |name: &str, text: &str| {
        fs::write(Path::new(&folder).join(name), text).expect("cargo's folder can be written");
    };
    let served = document.to_string();
    write("docs.html", &without_shared(&Contract(&document).page(&style), &served));
    write("openapi.json", &served);
}

/// The shortest text that is worth a reference.
const SHARED_BYTES_MIN: usize = 24;

/// The page, in which a reference stands for what the document says too.
fn without_shared(page: &str, document: &str) -> String {
    let mut places = HashMap::new();
    for (at, start) in document.as_bytes().windows(SHARED_BYTES_MIN).enumerate() {
        places.entry(start).or_insert(at);
    }
    let (mut kept, mut rest) = (String::new(), page);
    while let Some(next) = rest.chars().next() {
        let start = rest.as_bytes().get(..SHARED_BYTES_MIN);
        let found = start
            .and_then(|start| places.get(start))
            .and_then(|at| document.get(*at..).map(|there| (at, there)));
        let length = if let Some((at, there)) = found {
            let alike = rest.chars().zip(there.chars()).take_while(|(here, there)| here == there);
            let length = alike.map(|(here, _)| here.len_utf8()).sum();
            let _ = write!(kept, "\u{1}{at} {length}\u{1}");
            length
        } else {
            kept.push(next);
            next.len_utf8()
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    kept
}

/// The document, of which each part is written once.
struct Contract<'a>(&'a Value);

impl<'a> Contract<'a> {
    fn page(&self, style: &str) -> String {
        let info = &self.0["info"];
        let (title, version) = (text(&info["title"]), text(&info["version"]));
        let style: String = style.lines().map(str::trim).collect();
        let mut page = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <title>{title}: the API</title><style>{style}</style>\
             <header><h1>{title} <small>{version}</small></h1>{}</header>",
            paragraphs(&info["description"]),
        );
        page += &self.contents();
        for tag in list(&self.0["tags"]) {
            let name = text(&tag["name"]);
            let _ = write!(page, "<h2>{}</h2>{}", capital(name), paragraphs(&tag["description"]));
            for (path, item, method) in
                self.operations().filter(|(_, item, method)| item[method]["tags"][0] == name)
            {
                page += &self.operation(path, item, method);
            }
        }
        page += "<h2>Every request</h2><dl>";
        for parameter in
            self.operations().next().into_iter().flat_map(|(_, item, _)| list(&item["parameters"]))
        {
            page += &self.parameter(parameter);
        }
        page += "</dl><h2>Every answer</h2>";
        page += &paragraphs(&self.0["x-every-answer"]["description"]);
        page += &self.names(&self.0["x-every-answer"]["headers"]);
        page += &paragraphs(&self.0["x-other-requests"]["description"]);
        page += &self.responses(&self.0["x-other-requests"]["responses"]);
        page += "<h2 id=errors>Errors</h2>";
        page += &paragraphs(&self.schema("Problem")["description"]);
        page += &self.example(&self.0["components"]["examples"]["validation_failed"]);
        page += &self.codes();
        page += "<h2 id=documents>Documents</h2>";
        for (name, schema) in
            members(&self.0["components"]["schemas"]).filter(|(name, _)| *name != "ProblemCode")
        {
            page += &self.document(name, schema);
        }
        page += "<h2 id=headers>Headers of answers</h2><dl>";
        for (name, header) in members(&self.0["components"]["headers"]) {
            let example =
                header["example"].as_str().map_or_else(|| header["example"].to_string(), str::to_owned);
            let _ = write!(
                page,
                "<div id=header-{name}><dt><code>{name}</code><dd>{}<p><code>{}</code></div>",
                paragraphs(&header["description"]),
                escape(&example),
            );
        }
        page + "</dl>"
    }

    /// Each operation: its path, the item of the path, its method.
    fn operations(&self) -> impl Iterator<Item = (&'a str, &'a Value, &'static str)> {
        members(&self.0["paths"]).flat_map(|(path, item)| {
            let there = METHODS.iter().filter(|method| item.get(**method).is_some());
            there.map(move |method| (path, item, *method))
        })
    }

    fn contents(&self) -> String {
        let mut list = String::from("<nav><ul>");
        for (path, item, method) in self.operations() {
            let (id, summary) = (text(&item[method]["operationId"]), escape(text(&item[method]["summary"])));
            let method = method.to_uppercase();
            let _ = write!(list, "<li><a href=#{id}><code>{method} {path}</code></a> <span>{summary}</span>");
        }
        list + "<li><a href=#errors>Errors</a>, <a href=#documents>documents</a>, <a href=#headers>headers</a></ul></nav>"
    }

    fn operation(&self, path: &str, item: &'a Value, method: &str) -> String {
        let operation = &item[method];
        let mut section = format!(
            "<section><h3 id={}>{}</h3><p><code>{} {path}</code></p>{}",
            text(&operation["operationId"]),
            escape(text(&operation["summary"])),
            method.to_uppercase(),
            paragraphs(&operation["description"]),
        );
        if operation.get("security").is_some() {
            let scheme = &self.0["components"]["securitySchemes"]["accessToken"];
            let _ = write!(section, "<h4>Authorization: Bearer</h4>{}", paragraphs(&scheme["description"]));
        }
        let in_path = list(&item["parameters"]).filter(|parameter| self.resolved(parameter)["in"] == "path");
        let parameters: String = in_path
            .chain(list(&operation["parameters"]))
            .map(|parameter| self.parameter(parameter))
            .collect();
        if !parameters.is_empty() {
            let _ = write!(section, "<h4>Parameters</h4><dl>{parameters}</dl>");
        }
        if let Some(body) = operation.get("requestBody") {
            let content = &body["content"]["application/json"];
            let _ = write!(
                section,
                "<h4>Body</h4><p>{}, <code>application/json</code>.</p>{}{}",
                self.kind(&content["schema"]),
                paragraphs(&body["description"]),
                self.examples(&content["examples"]),
            );
        }
        section + "<h4>Answers</h4>" + &self.responses(&operation["responses"]) + "</section>"
    }

    fn parameter(&self, parameter: &'a Value) -> String {
        let parameter = self.resolved(parameter);
        format!(
            "<div><dt><code>{}</code> <span>{}</span><dd><small>{}</small>{}</div>",
            text(&parameter["name"]),
            text(&parameter["in"]),
            self.kind(&parameter["schema"]),
            paragraphs(&parameter["description"]),
        )
    }

    fn responses(&self, responses: &'a Value) -> String {
        let mut all = String::from("<dl>");
        for (status, response) in members(responses) {
            let response = self.resolved(response);
            let (mut content, mut examples) = (String::new(), String::new());
            for (media_type, body) in members(&response["content"]) {
                let codes = strings(&body["schema"]["properties"]["code"]["enum"]);
                if codes.is_empty() {
                    let _ =
                        write!(content, "<p>{}, <code>{media_type}</code>.</p>", self.kind(&body["schema"]));
                    examples = self.examples(&body["examples"]);
                } else {
                    let links: Vec<String> =
                        codes.iter().map(|code| format!("<a href=#{code}><code>{code}</code></a>")).collect();
                    let _ = write!(content, "<p>{}</p>", links.join(", "));
                }
            }
            let _ = write!(
                all,
                "<div><dt>{status}<dd>{}{content}{}{examples}</div>",
                paragraphs(&response["description"]),
                self.names(&response["headers"]),
            );
        }
        all + "</dl>"
    }

    /// Headers, each by a link.
    fn names(&self, headers: &Value) -> String {
        let links: Vec<String> =
            members(headers).map(|(name, _)| format!("<a href=#header-{name}>{name}</a>")).collect();
        if links.is_empty() { String::new() } else { format!("<p><small>{}</small></p>", links.join(", ")) }
    }

    fn examples(&self, examples: &'a Value) -> String {
        members(examples).map(|(_, example)| self.example(self.resolved(example))).collect()
    }

    fn example(&self, example: &Value) -> String {
        let title = example["summary"].as_str().unwrap_or("Example");
        let value = &example["value"];
        let shown = value.as_str().map_or_else(|| format!("{value:#}"), str::to_owned);
        format!("<details><summary>{title}</summary><pre>{}</pre></details>", escape(shown.trim_end()))
    }

    /// Every code with its anchor, its status, what it means and what to do.
    fn codes(&self) -> String {
        let mut all = String::from("<dl>");
        for row in list(&self.schema("ProblemCode")["oneOf"]) {
            let code = text(&row["const"]);
            let mut examples =
                members(&self.0["components"]["examples"]).map(|(_, example)| &example["value"]);
            let example =
                examples.find(|example| example["code"] == code).expect("every code has an example");
            let _ = write!(
                all,
                "<div id={code}><dt><code>{code}</code> <span>{}</span><dd><p>{}: {}.</div>",
                example["status"],
                escape(text(&row["title"])),
                marked(text(&row["description"])),
            );
        }
        all + "</dl>"
    }

    fn document(&self, name: &str, schema: &Value) -> String {
        let mut section = format!("<h3 id={name}>{name}</h3>{}", paragraphs(&schema["description"]));
        let mut rows = String::new();
        for part in list(&schema["allOf"]).chain([schema]) {
            if part.get("$ref").is_some() {
                let _ = write!(section, "<p>All of {}, and:</p>", self.kind(part));
            }
            let required = strings(&part["required"]);
            for (member, member_schema) in members(&part["properties"]) {
                let optional = if required.contains(&member) { "" } else { " <span>where it helps</span>" };
                let _ = write!(
                    rows,
                    "<div><dt><code>{member}</code>{optional}<dd><small>{}</small>{}</div>",
                    self.kind(member_schema),
                    paragraphs(&member_schema["description"]),
                );
            }
        }
        for (event, data) in members(&schema["x-events"]) {
            let _ = write!(rows, "<div><dt><code>{event}</code><dd>{}</div>", self.kind(data));
        }
        if rows.is_empty() {
            let _ = write!(section, "<p>{}</p>", self.kind(schema));
        } else {
            let _ = write!(section, "<dl>{rows}</dl>");
        }
        section
    }

    /// What a value may be, in words.
    fn kind(&self, schema: &Value) -> String {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            let anchor = if name == "ProblemCode" { "errors" } else { name };
            return format!("<a href=#{anchor}>{name}</a>");
        }
        if let Some(value) = schema.get("const") {
            return format!("<code>{}</code>", text(value));
        }
        let (values, either) = (strings(&schema["enum"]), list(&schema["oneOf"]));
        if !values.is_empty() {
            return values.iter().map(|value| format!("<code>{value}</code>")).collect::<Vec<_>>().join(", ");
        }
        let either: Vec<String> = either.map(|schema| self.kind(schema)).collect();
        if !either.is_empty() {
            return either.join(", ");
        }
        let types = match &schema["type"] {
            Value::Array(types) => types.iter().map(text).collect::<Vec<_>>().join(", "),
            one => text(one).to_owned(),
        };
        let named = schema["format"].as_str().map_or(types.clone(), |format| types.replace("string", format));
        let unit = if types == "string" { " characters" } else { "" };
        let limit = |names: [&str; 2]| names.iter().find_map(|name| schema[name].as_u64());
        let range = match (limit(["minLength", "minimum"]), limit(["maxLength", "maximum"])) {
            (Some(min), Some(max)) => format!(", {min} to {max}{unit}"),
            (Some(min), None) => format!(", {min} or more{unit}"),
            (None, Some(max)) => format!(", at most {max}{unit}"),
            (None, None) => String::new(),
        };
        let items = schema.get("items").map_or_else(String::new, |items| format!(" of {}", self.kind(items)));
        let default =
            schema.get("default").map_or_else(String::new, |default| format!(", default {default}"));
        format!("{named}{items}{range}{default}")
    }

    fn schema(&self, name: &str) -> &'a Value {
        &self.0["components"]["schemas"][name]
    }

    /// What a reference stands for.
    fn resolved(&self, value: &'a Value) -> &'a Value {
        let Some(path) = value["$ref"].as_str() else { return value };
        self.0.pointer(path.trim_start_matches('#')).expect("a reference leads somewhere")
    }
}

fn members(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn list(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().into_iter().flatten()
}

fn strings(array: &Value) -> Vec<&str> {
    list(array).filter_map(Value::as_str).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The paragraphs of a description.
fn paragraphs(description: &Value) -> String {
    let all = text(description).split("\n\n").filter(|paragraph| !paragraph.is_empty());
    all.map(|paragraph| format!("<p>{}</p>", marked(paragraph))).collect()
}

/// A line in which back quotes mark code, which is all of Markdown that the document uses.
fn marked(line: &str) -> String {
    let parts = escape(line);
    let parts = parts.split('`').enumerate();
    parts.map(|(n, part)| if n % 2 == 0 { part.to_owned() } else { format!("<code>{part}</code>") }).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
