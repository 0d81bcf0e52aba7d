//! The passage of the text that a candidate rests on, whether its answer occurs there, and advice on weak candidates.
//!
//! ```text
//! text ─► Sentences ─► numbered()                the text as the model reads it, a number before each sentence
//!             │        (the model names numbers)
//!             ▼
//!         Checker ─► check(front, back, named) ─► Citation { source, supported, notes }
//!             │
//!             └────► Sentences::coverage_percent(sources)
//! ```
//! The rule is one for all languages and uses no second model: `docs/citation.md` states it with its figures. It compares what
//! is written, so it cannot see a negation or a wrong relation between words that are all in the source.
//!
//! Pure. Not for: dropping candidates, which no finding of this folder does; reading the model's answer.

mod abbreviations;
mod characters;
pub mod check;
mod languages;
mod notes;
mod numbers;
pub mod record;
pub mod sentences;
mod sort;
mod support;
mod words;
