//! The data points for dashboards and alerts: their kinds and columns.
//!
//! ```text
//! request      index, blob1: its route   (begins with `/`, or is `none`)
//! generation   index, blob1: `generation`
//! job          index, blob1: `job`
//! ```
//! A query names a column by its number, so an order here is never changed, and a column is added at an end.
//! `operations/README.md` has the table. No column has a text of a user, a token, a key, or the id of a user or a session.
//!
//! Not for: the values (`edge::log`, `user_object::generate::log`), and writing them ([`crate::ports::Metrics`]).

/// One point: the values of its columns, in their order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point<'a> {
    /// Empty where there is none. The first is the index, too.
    pub texts: &'a [&'a str],
    /// 0 where there is none.
    pub figures: &'a [f64],
}

/// The names of a kind's columns.
#[derive(Debug, Clone, Copy)]
pub struct Columns<const T: usize, const F: usize> {
    /// `blob1` and the following ones.
    pub texts: [&'static str; T],
    /// `double1` and the following ones.
    pub figures: [&'static str; F],
}

impl<const T: usize, const F: usize> Columns<T, F> {
    /// A point with a value for each column.
    #[must_use]
    pub const fn point<'a>(&self, texts: &'a [&'a str; T], figures: &'a [f64; F]) -> Point<'a> {
        Point { texts, figures }
    }
}

/// Of a request, with its response.
pub const REQUEST: Columns<4, 9> = Columns {
    texts: ["route", "method", "code", "model"],
    figures: [
        "status",
        "duration_ms",
        "auth_ms",
        "model_ms",
        "database_ms",
        "attempts",
        "prompt_tokens",
        "completion_tokens",
        "cost",
    ],
};

/// Of a generation, once the first attempt to persist its end is over.
pub const GENERATION: Columns<5, 16> = Columns {
    texts: ["kind", "outcome", "model", "served_model", "provider"],
    figures: [
        "attempts",
        "prompt_tokens",
        "completion_tokens",
        "cost",
        "candidates",
        "dropped",
        "dropped_empty",
        "dropped_too_long",
        "dropped_unreadable",
        "dropped_duplicate",
        "dropped_too_many",
        "partial",
        "first_candidate_ms",
        "model_ms",
        "database_ms",
        "persisted",
    ],
};

/// Of a due job that failed, and of a refresh of the signing keys that failed.
pub const JOB: Columns<3, 2> = Columns { texts: ["kind", "job", "reason"], figures: ["try", "age_ms"] };

/// A number as a figure. Milliseconds and tokens of one generation: a number beyond 32 bits is no measurement.
#[must_use]
pub fn figure(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}
