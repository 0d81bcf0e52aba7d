//! The body of `POST /ai-sessions`: strict JSON, then the sanitizer, then the limits.
//!
//! ```text
//! bytes ─► RawBody (which members, of which type) ─► NewSession (sanitized) ─► validated
//! ```
//! Strict means: UTF-8 without a byte order mark, no duplicate or unknown member, no lone surrogate, nothing after the end.
//! All errors of the fields are reported at once.

use validator::ValidateLength as _;

use super::sanitize::sanitize;
use crate::http::problem::{Code, FieldError, Problem};
use crate::json::{Value, strict};

/// The least number of characters (Unicode scalar values) of `input_text` after sanitizing.
pub const INPUT_TEXT_MIN: u64 = 1000;
/// The most characters. A check in `migrations/` repeats both limits.
pub const INPUT_TEXT_MAX: u64 = 10_000;

/// The longest body: 10000 characters in their longest JSON form (`\ud83d\ude00`, 12 bytes) are 120000 bytes; twice as much
/// allows for escaped characters that the sanitizer removes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// The most field errors, and the longest unknown field name, in a response: it must not grow with the request.
const ERRORS_MAX: usize = 16;
const NAME_CHARS_MAX: usize = 64;

/// A valid request for a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Sanitized; 1000 to 10000 characters.
    pub input_text: String,
    /// One of the allowed models.
    pub model: String,
}

impl NewSession {
    /// Reads a whole body.
    ///
    /// # Errors
    /// `malformed_json`: it is not strict JSON, or has a duplicate member. `validation_failed`: a field is missing, unknown, of
    /// another type or outside its limits.
    pub fn read(body: &[u8], allowed_models: &[String]) -> Result<Self, Problem> {
        let raw = RawBody::read(body).map_err(|at| {
            let place = place_of(body, at);
            Problem::new(Code::MalformedJson, ["the body is not strict JSON at ", &place].concat())
        })?;
        if let Some(name) = raw.duplicate {
            let mut problem = Problem::new(Code::MalformedJson, "the body has a duplicate member");
            problem.errors.push(field_error(&name, "duplicate", "must appear once".to_owned()));
            return Err(problem);
        }
        let mut errors = Vec::new();
        if !raw.is_object {
            errors.push(field_error("", "type", "the body must be an object".to_owned()));
        }
        let input_text = text_field(raw.input_text, "input_text", raw.is_object, &mut errors);
        let model = text_field(raw.model, "model", raw.is_object, &mut errors);
        for name in raw.unknown {
            errors.push(field_error(&name, "unknown", "is not a field of this request".to_owned()));
        }
        let new = Self { input_text: sanitize(&input_text).into_owned(), model };
        new.add_limit_errors(allowed_models, &mut errors);
        if errors.is_empty() {
            return Ok(new);
        }
        errors.truncate(ERRORS_MAX);
        let detail = match errors.first() {
            Some(error) if error.field.is_empty() => error.message.clone(),
            Some(error) => [&error.field, " ", &error.message].concat(),
            None => String::new(),
        };
        let mut problem = Problem::new(Code::ValidationFailed, detail);
        problem.errors = errors;
        Err(problem)
    }

    /// Adds the errors of the limits, except for fields that have an error already.
    fn add_limit_errors(&self, allowed_models: &[String], errors: &mut Vec<FieldError>) {
        let is_new = |errors: &[FieldError], field: &str| {
            errors.iter().all(|error| error.field != field && !error.field.is_empty())
        };
        // Not by the derived `validate`, whose maps of errors are 6 KB of the module.
        let is_within = self.input_text.validate_length(Some(INPUT_TEXT_MIN), Some(INPUT_TEXT_MAX), None);
        if !is_within && is_new(errors, "input_text") {
            let actual = self.input_text.length().unwrap_or(u64::MAX);
            errors.push(FieldError {
                min: Some(INPUT_TEXT_MIN),
                max: Some(INPUT_TEXT_MAX),
                actual: Some(actual),
                ..field_error(
                    "input_text",
                    "length",
                    format!("has {actual} characters, {INPUT_TEXT_MIN} to {INPUT_TEXT_MAX} are allowed"),
                )
            });
        }
        if !allowed_models.contains(&self.model) && is_new(errors, "model") {
            errors.push(field_error(
                "model",
                "not_allowed",
                "is not an allowed model, see GET /models".to_owned(),
            ));
        }
    }
}

fn field_error(field: &str, code: &'static str, message: String) -> FieldError {
    let field = sanitize(field).chars().take(NAME_CHARS_MAX).collect();
    FieldError { field, code, message, min: None, max: None, actual: None }
}

fn text_field(raw: Option<RawField>, field: &str, is_object: bool, errors: &mut Vec<FieldError>) -> String {
    match raw {
        Some(RawField::Text(text)) => return text,
        Some(RawField::Other) => errors.push(field_error(field, "type", "must be a string".to_owned())),
        None if is_object => errors.push(field_error(field, "required", "is required".to_owned())),
        None => {}
    }
    String::new()
}

/// The members of the body, before any rule but JSON's own.
#[derive(Default)]
struct RawBody {
    is_object: bool,
    input_text: Option<RawField>,
    model: Option<RawField>,
    unknown: Vec<String>,
    duplicate: Option<String>,
}

enum RawField {
    Text(String),
    Other,
}

impl RawBody {
    /// Reads the members.
    ///
    /// # Errors
    /// The number of bytes before the first that is no strict JSON.
    fn read(body: &[u8]) -> Result<Self, usize> {
        let Some(members) = strict::members(strict::check(body)?) else { return Ok(Self::default()) };
        let mut raw = Self { is_object: true, ..Self::default() };
        for (name, value) in members {
            let field = match &*name {
                "input_text" => &mut raw.input_text,
                "model" => &mut raw.model,
                _ => {
                    if raw.unknown.iter().any(|known| *known == name) {
                        raw.duplicate.get_or_insert(name.into_owned());
                    } else if raw.unknown.len() < ERRORS_MAX {
                        raw.unknown.push(name.into_owned());
                    }
                    continue;
                }
            };
            if field.replace(RawField::of(value)).is_some() {
                raw.duplicate.get_or_insert(name.into_owned());
            }
        }
        Ok(raw)
    }
}

impl RawField {
    fn of(value: Value<'_>) -> Self {
        match value {
            Value::Text(text) => Self::Text(strict::decode(text).into_owned()),
            _ => Self::Other,
        }
    }
}

/// Returns the line and the column of a byte, from 1; at the end of the body those of the last byte.
fn place_of(body: &[u8], at: usize) -> String {
    let before = body.get(..at).unwrap_or(body);
    let lines = before.split(|byte| *byte == b'\n');
    let column = before.rsplit(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len);
    format!("line {}, column {}", lines.count(), column.saturating_add(usize::from(at < body.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Result<NewSession, Problem> {
        NewSession::read(body, &["a/one".to_owned(), "b/two".to_owned()])
    }

    fn body(text: &str) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({ "input_text": text, "model": "a/one" })).expect("it is JSON")
    }

    fn errors_of(result: Result<NewSession, Problem>) -> (Code, Vec<(String, &'static str)>) {
        let problem = result.expect_err("it is rejected");
        (problem.code, problem.errors.into_iter().map(|error| (error.field, error.code)).collect())
    }

    #[test]
    fn characters_are_scalar_values_counted_after_sanitizing() {
        for (text, accepted) in [
            ("x".repeat(999), false),
            ("x".repeat(1000), true),
            ("x".repeat(10_000), true),
            ("x".repeat(10_001), false),
            ("\u{1f600}".repeat(999), false),
            ("\u{1f600}".repeat(1000), true),
            ("\u{1f600}".repeat(10_000), true),
            ("\u{1f600}".repeat(10_001), false),
            (format!("  {}\r\n", "x".repeat(999)), false),
            (format!("  {}\r\n", "x".repeat(10_000)), true),
            (format!("{}\0{}", "x".repeat(500), "x".repeat(499)), false),
            (format!("{}\r\n{}", "x".repeat(5000), "x".repeat(5000)), false),
            (format!("{}\r\n{}", "x".repeat(5000), "x".repeat(4999)), true),
        ] {
            assert_eq!(read(&body(&text)).is_ok(), accepted, "{} characters", text.chars().count());
        }
    }

    #[test]
    fn a_length_error_has_the_limits_and_the_actual_length() {
        let problem = read(&body(&"\u{1f600}".repeat(999))).expect_err("one too few");
        assert_eq!(problem.code, Code::ValidationFailed);
        let error = problem.errors.first().expect("one error");
        assert_eq!((error.field.as_str(), error.code), ("input_text", "length"));
        assert_eq!((error.min, error.max, error.actual), (Some(1000), Some(10_000), Some(999)));
    }

    #[test]
    fn the_input_text_is_sanitized() {
        let text = format!("\u{feff} a\r\nb\0{} ", "x".repeat(1000));
        let new = read(&body(&text)).expect("it is long enough");
        assert_eq!(new.input_text, format!("a\nb{}", "x".repeat(1000)));
    }

    #[test]
    fn all_field_errors_are_reported_at_once() {
        assert_eq!(
            errors_of(read(br#"{"input_text":5,"modle":"a/one"}"#)),
            (
                Code::ValidationFailed,
                vec![
                    ("input_text".to_owned(), "type"),
                    ("model".to_owned(), "required"),
                    ("modle".to_owned(), "unknown")
                ]
            )
        );
        assert_eq!(
            errors_of(read(br#"{"input_text":"short","model":"c/three"}"#)),
            (
                Code::ValidationFailed,
                vec![("input_text".to_owned(), "length"), ("model".to_owned(), "not_allowed")]
            )
        );
        for not_an_object in ["[]", "[1,{}]", "null", "true", "12", "-1", "1.5", "\"x\""] {
            assert_eq!(
                errors_of(read(not_an_object.as_bytes())),
                (Code::ValidationFailed, vec![(String::new(), "type")]),
                "{not_an_object}"
            );
        }
    }

    #[test]
    fn json_is_read_strictly() {
        let long = "x".repeat(1000);
        let good = format!(r#"{{"input_text":"{long}","model":"a/one"}}"#);
        assert!(read(good.as_bytes()).is_ok());
        let mut with_mark = vec![0xef, 0xbb, 0xbf];
        with_mark.extend_from_slice(good.as_bytes());
        for bad in [
            b"".to_vec(),
            b"{".to_vec(),
            b"{}x".to_vec(),
            with_mark,
            format!("{good} ,").into_bytes(),
            format!("{good}\0").into_bytes(),
            format!(r#"{{"input_text":"{long}","model":"a/one",}}"#).into_bytes(),
            format!(r#"{{'input_text':"{long}","model":"a/one"}}"#).into_bytes(),
            format!(r#"{{"input_text":"{long}\ud83d","model":"a/one"}}"#).into_bytes(),
            format!(r#"{{"input_text":"\udc00{long}","model":"a/one"}}"#).into_bytes(),
            format!("{{\"input_text\":\"{long}\n\",\"model\":\"a/one\"}}").into_bytes(),
            [br#"{"input_text":""#, &[0xff][..], br#"","model":"a/one"}"#].concat(),
            [br#"{"input_text":""#, &[0xed, 0xa0, 0x80][..], br#"","model":"a/one"}"#].concat(),
            "[".repeat(200_000).into_bytes(),
            // The same in an ignored value.
            [br#"{"x":""#, &[0xff][..], br#""}"#].concat(),
            br#"{"x":"\ud83d"}"#.to_vec(),
            br#"{"x":[{"y":"\udc00"}]}"#.to_vec(),
            br#"{"input_text":["\ud83d"]}"#.to_vec(),
            br#"{"model":{"\ud83d":1}}"#.to_vec(),
            br#"["\ud83d"]"#.to_vec(),
            [br#"[""#, &[0xff][..], br#""]"#].concat(),
            br#"{"x":1e999}"#.to_vec(),
            format!(r#"{{"x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000)).into_bytes(),
        ] {
            assert_eq!(
                errors_of(read(&bad)).0,
                Code::MalformedJson,
                "{:?}",
                String::from_utf8_lossy(&bad).get(..40)
            );
        }
        for twice in [
            format!(r#"{{"input_text":"{long}","model":"a/one","model":"a/one"}}"#),
            format!(r#"{{"input_text":"{long}","model":"a/one","x":1,"x":2}}"#),
            format!(r#"{{"input_text":"{long}","m\u006fdel":"a/one","model":"b/two"}}"#),
        ] {
            let (code, errors) = errors_of(read(twice.as_bytes()));
            assert_eq!((code, errors.first().map(|error| error.1)), (Code::MalformedJson, Some("duplicate")));
        }
    }

    #[test]
    fn the_list_of_field_errors_is_bounded() {
        let names: Vec<String> =
            (0..1000).map(|number| format!(r#""{}{number}":0"#, "n".repeat(500))).collect();
        let problem = read(format!("{{{}}}", names.join(",")).as_bytes()).expect_err("no member is known");
        assert_eq!(problem.errors.len(), ERRORS_MAX);
        assert!(problem.errors.iter().all(|error| error.field.chars().count() <= NAME_CHARS_MAX));
    }

    #[test]
    fn a_deeply_nested_value_is_a_type_error() {
        let deep = format!(r#"{{"model":{}{}}}"#, "[".repeat(100), "]".repeat(100));
        assert_eq!(errors_of(read(deep.as_bytes())).0, Code::ValidationFailed);
    }

    #[test]
    fn the_place_of_a_syntax_error_is_a_line_and_a_column() {
        for (body, place) in [
            ("", "line 1, column 0"),
            ("{", "line 1, column 1"),
            ("{\"a\" 1}", "line 1, column 6"),
            ("{\n  \"a\": tru\n}", "line 2, column 8"),
            ("{}\nx", "line 2, column 1"),
        ] {
            let problem = read(body.as_bytes()).expect_err(body);
            assert_eq!(problem.detail, format!("the body is not strict JSON at {place}"), "{body}");
        }
    }
}
