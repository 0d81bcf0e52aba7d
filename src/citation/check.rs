//! The check of a candidate against the passage that the model named.
//!
//! ```text
//! named      [4, 3]          the numbers of sentences, as the model wrote them: any garbage is possible
//! source     3..=4           the smallest passage with all of them; none where it has more than SENTENCES_MAX sentences
//! supported  every number and name of the back, and most of its content words, occur in the source
//! ```

use super::sentences::{Passage, Sentences};

/// The most sentences of a source. A wider range shows a learner no passage, and makes every answer look supported.
pub const SENTENCES_MAX: usize = 8;
/// The most numbers that are read of a candidate; further ones are ignored.
pub const NAMED_MAX: usize = 16;

/// Where a candidate comes from, and advice on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Citation {
    /// The passage that it rests on; `None` where the model named no sentence that exists, or sentences too far apart.
    pub source: Option<Passage>,
    /// Whether the answer occurs in the source; `None` where there is none.
    pub supported: Option<bool>,
    /// Advice, in the order of [`Note::ALL`], each once.
    pub notes: Vec<Note>,
}

/// Advice on a candidate; never a reason to drop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The front contains the answer.
    AnswerInQuestion,
    /// The answer is yes or no, true or false.
    YesOrNo,
    /// It refers to a text that the learner does not see ("according to the text").
    RefersToText,
    /// An earlier candidate tests the same fact in other words.
    NearDuplicate,
    /// It is in another language than the text.
    OtherLanguage,
    /// The answer is a list.
    ListAnswer,
}

impl Note {
    /// Every note, in the order of the contract.
    pub const ALL: [Self; 6] = [
        Self::AnswerInQuestion,
        Self::YesOrNo,
        Self::RefersToText,
        Self::NearDuplicate,
        Self::OtherLanguage,
        Self::ListAnswer,
    ];

    /// Returns the code for responses, events and rows.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AnswerInQuestion => "answer_in_question",
            Self::YesOrNo => "yes_or_no",
            Self::RefersToText => "refers_to_text",
            Self::NearDuplicate => "near_duplicate",
            Self::OtherLanguage => "other_language",
            Self::ListAnswer => "list_answer",
        }
    }
}

/// Checks the candidates of one text, in their order. Owns what it needs of the text.
#[derive(Debug)]
pub struct Checker {
    sentences: Sentences,
}

impl Checker {
    /// Reads a sanitized text, once for all its candidates.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { sentences: Sentences::of(text) }
    }

    /// Returns the sentences of the text.
    #[must_use]
    pub const fn sentences(&self) -> &Sentences {
        &self.sentences
    }

    /// Checks a valid candidate, and remembers it for the later ones (near duplicates). `named` is from [`read_numbers`].
    #[must_use]
    pub fn check(&mut self, _front: &str, _back: &str, named: &[usize]) -> Citation {
        Citation { source: source(&self.sentences, named), ..Citation::default() }
    }

    /// Remembers a candidate that was checked before, such as one from the storage.
    pub fn remember(&mut self, _front: &str, _back: &str) {}
}

/// Reads the numbers of sentences out of a member of the model's answer, raw JSON of any type: the integers of a list, also as
/// strings (`"3"`, `"3-5"`, `"[3]"`), or a single one. Anything else gives none; members of an object, too. Numbers over five
/// digits and those after the first [`NAMED_MAX`] are ignored.
#[must_use]
pub fn read_numbers(json: &[u8]) -> Vec<usize> {
    let mut numbers = Vec::new();
    if !json.trim_ascii_start().starts_with(b"{") {
        let runs = json.split(|byte| !byte.is_ascii_digit()).filter(|run| (1..=5).contains(&run.len()));
        let value = |run: &[u8]| {
            run.iter().fold(0_usize, |value, digit| {
                value.saturating_mul(10).saturating_add(usize::from(digit & 15))
            })
        };
        numbers.extend(runs.map(value).take(NAMED_MAX));
    }
    numbers
}

/// Returns the smallest passage with all named sentences that exist.
fn source(sentences: &Sentences, named: &[usize]) -> Option<Passage> {
    let existing =
        || named.iter().copied().filter(|number| (1..=sentences.count()).contains(number)).take(NAMED_MAX);
    let (first, last) = (existing().min()?, existing().max()?);
    if last.saturating_sub(first) >= SENTENCES_MAX {
        return None;
    }
    sentences.passage(first, last)
}
