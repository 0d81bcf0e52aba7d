//! The parameters of `GET /ai-sessions`: `limit`, and `before`, which is the `next` of the page before.
//!
//! ```text
//! 1800000000123456-8b7c…          a session's created_at in microseconds, as Postgres keeps it, and its id
//! ```
//! A cursor is opaque to callers. Sessions are listed by `(created_at, id)`, which never change, so a page does not change when
//! sessions are added before it.

use std::fmt;

use uuid::Uuid;

use crate::http::problem::{Code, FieldError, Problem};

/// The default number of sessions of a page: about what a screen shows.
pub const LIMIT_DEFAULT: u32 = 20;
/// The most sessions of a page.
pub const LIMIT_MAX: u32 = 100;

/// A page of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// 1 to [`LIMIT_MAX`].
    pub limit: u32,
    /// Only sessions before this place, which are older.
    pub before: Option<Cursor>,
}

/// A place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Microseconds since the Unix epoch.
    pub created_us: i64,
    /// Decides between sessions of the same microsecond.
    pub id: Uuid,
}

/// The last microsecond of the year 9999: RFC 3339 cannot express later times.
pub const CREATED_US_MAX: i64 = 253_402_300_799_999_999;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.created_us, self.id.simple())
    }
}

impl Cursor {
    fn read(text: &str) -> Option<Self> {
        let (created_us, id) = text.split_once('-')?;
        let is_number = created_us.bytes().all(|byte| byte.is_ascii_digit());
        let created_us = created_us.parse().ok().filter(|us| is_number && *us <= CREATED_US_MAX)?;
        Some(Self { created_us, id: Uuid::try_parse(id).ok()? })
    }
}

impl Page {
    /// Reads the query of a URL, without its question mark. Parameters of other names are ignored.
    ///
    /// # Errors
    /// `invalid_parameter`.
    pub fn read(query: &str) -> Result<Self, Problem> {
        let mut errors = Vec::new();
        let mut page = Self { limit: LIMIT_DEFAULT, before: None };
        let (mut limits, mut befores) = (0_u32, 0_u32);
        for (name, value) in query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            match name {
                "limit" => {
                    limits = limits.saturating_add(1);
                    match value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit())) {
                        Some(limit) if (1..=LIMIT_MAX).contains(&limit) => page.limit = limit,
                        actual => errors.push(bad_limit(actual)),
                    }
                }
                "before" => {
                    befores = befores.saturating_add(1);
                    page.before = Cursor::read(value);
                    if page.before.is_none() {
                        errors.push(error("before", "type", "must be the `next` of another page"));
                    }
                }
                _ => {}
            }
        }
        for (name, times) in [("limit", limits), ("before", befores)] {
            if times > 1 {
                errors.push(error(name, "duplicate", "must appear once"));
            }
        }
        let Some(first) = errors.first() else { return Ok(page) };
        let mut problem = Problem::new(Code::InvalidParameter, [&first.field, " ", &first.message].concat());
        problem.errors = errors;
        problem.errors.truncate(ERRORS_MAX);
        Err(problem)
    }
}

/// The most errors in a response, which must not grow with the request.
const ERRORS_MAX: usize = 4;

fn bad_limit(actual: Option<u32>) -> FieldError {
    FieldError {
        min: Some(1),
        max: Some(u64::from(LIMIT_MAX)),
        actual: actual.map(u64::from),
        ..error("limit", "range", "must be a whole number from 1 to 100")
    }
}

fn error(field: &str, code: &'static str, message: &str) -> FieldError {
    FieldError {
        field: field.to_owned(),
        code,
        message: message.to_owned(),
        min: None,
        max: None,
        actual: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor { created_us: 1_800_000_000_123_456, id: Uuid::from_u128(5) }
    }

    #[test]
    fn limit_and_before_are_read_from_the_query() {
        let before = format!("before={}", cursor());
        for (query, limit, before) in [
            ("", 20, None),
            ("limit=1", 1, None),
            ("limit=100", 100, None),
            ("utm=x&limit=007&y", 7, None),
            (&before, 20, Some(cursor())),
            (&[&before, "&limit=2"].concat(), 2, Some(cursor())),
        ] {
            assert_eq!(Page::read(query), Ok(Page { limit, before }), "{query}");
        }
    }

    #[test]
    fn an_invalid_parameter_is_reported_by_name() {
        for (query, field, code) in [
            ("limit=0", "limit", "range"),
            ("limit=101", "limit", "range"),
            ("limit=-1", "limit", "range"),
            ("limit=+1", "limit", "range"),
            ("limit=1.0", "limit", "range"),
            ("limit=", "limit", "range"),
            ("limit", "limit", "range"),
            ("limit=99999999999999999999", "limit", "range"),
            ("limit=1&limit=1", "limit", "duplicate"),
            ("before=", "before", "type"),
            ("before=x", "before", "type"),
            ("before=1-x", "before", "type"),
            ("before=-1-00000000000000000000000000000005", "before", "type"),
            ("before=99999999999999999999-00000000000000000000000000000005", "before", "type"),
            ("before=253402300800000000-00000000000000000000000000000005", "before", "type"),
        ] {
            let problem = Page::read(query).expect_err(query);
            assert_eq!(problem.code, Code::InvalidParameter);
            let errors: Vec<(&str, &str)> =
                problem.errors.iter().map(|e| (e.field.as_str(), e.code)).collect();
            assert_eq!(errors, [(field, code)], "{query}");
        }
        let many = "limit=0&".repeat(1000);
        assert_eq!(Page::read(&many).expect_err("it is bad").errors.len(), ERRORS_MAX);
    }
}
