//! The figures by kind of defect, language and half.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use ai_sessions::citation::check::{Checker, Citation, Note};
use ai_sessions::citation::sentences::Sentences;

use crate::set::{Batch, Card, Defect, Document, Half};

/// What the check found in some texts.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) good: usize,
    pub(crate) good_unsupported: usize,
    /// Notes on good cards.
    pub(crate) good_notes: BTreeMap<&'static str, usize>,
    /// Cards for whose numbers there is no source.
    pub(crate) without_source: usize,
    pub(crate) count: BTreeMap<Defect, usize>,
    pub(crate) found: BTreeMap<Defect, usize>,
    /// The cards that were judged wrongly.
    pub(crate) wrong: Vec<String>,
}

/// A card with what the check found.
pub(crate) struct Checked<'a> {
    pub(crate) document: &'a Document,
    pub(crate) card: &'a Card,
    citation: Citation,
}

/// Checks all cards, those of a text in their order.
pub(crate) fn checked(documents: &[Document]) -> Vec<Checked<'_>> {
    let mut checked = Vec::new();
    for document in documents {
        let text = document.text();
        let sentences = Sentences::of(&text);
        let mut checker = Checker::new(&text, &sentences);
        for card in &document.cards {
            let named = document.named(card, &sentences);
            let citation = checker.check(&card.front, &card.back, &named);
            checked.push(Checked { document, card, citation });
        }
    }
    checked
}

/// Counts the chosen cards.
pub(crate) fn figures(checked: &[Checked<'_>], is_chosen: impl Fn(&Document, &Card) -> bool) -> Figures {
    let mut figures = Figures::default();
    for Checked { document, card, citation } in checked {
        if is_chosen(document, card) {
            figures.add(document, card, citation);
        }
    }
    figures
}

/// Returns how many of the sentences of the texts' authors the service finds as they are, and how many there are.
pub(crate) fn sentences_found(documents: &[Document]) -> (usize, usize) {
    let found = documents.iter().map(|document| document.found_sentences(&Sentences::of(&document.text())));
    (found.sum(), documents.iter().map(|document| document.sentences.len()).sum())
}

impl Figures {
    /// The defects found that the rule can see, and how many there are.
    fn visible(&self) -> (usize, usize) {
        let visible = [Defect::Number, Defect::Name, Defect::Invented, Defect::OtherText];
        let sum = |counts: &BTreeMap<Defect, usize>| -> usize {
            visible.iter().filter_map(|defect| counts.get(defect)).sum()
        };
        (sum(&self.found), sum(&self.count))
    }

    fn add(&mut self, document: &Document, card: &Card, citation: &Citation) {
        self.without_source += usize::from(citation.source.is_none());
        let mut wrong = |what: &str| {
            self.wrong.push(format!("{} {what}: {} | {}", document.name, card.front, card.back));
        };
        match card.defect {
            None => {
                self.good += 1;
                if citation.supported == Some(false) {
                    self.good_unsupported += 1;
                    wrong("good, unsupported");
                }
                for note in &citation.notes {
                    *self.good_notes.entry(note.code()).or_default() += 1;
                    wrong(&format!("good, {}", note.code()));
                }
            }
            Some(defect) => {
                *self.count.entry(defect).or_default() += 1;
                if is_found(defect, citation) {
                    *self.found.entry(defect).or_default() += 1;
                } else {
                    wrong(&format!("{defect:?}, not found"));
                }
            }
        }
    }
}

fn is_found(defect: Defect, citation: &Citation) -> bool {
    let note = match defect {
        Defect::Number | Defect::Name | Defect::Invented | Defect::OtherText | Defect::Negation => {
            return citation.supported == Some(false);
        }
        Defect::Leak => Note::AnswerInQuestion,
        Defect::YesOrNo => Note::YesOrNo,
        Defect::Duplicate => Note::NearDuplicate,
        Defect::OtherLanguage => Note::OtherLanguage,
        Defect::RefersToText => Note::RefersToText,
        Defect::ListAnswer => Note::ListAnswer,
    };
    citation.notes.contains(&note)
}

/// Returns what `docs/citation.md` has to state, each without line breaks.
pub(crate) fn statements(documents: &[Document], checked: &[Checked<'_>]) -> Vec<String> {
    let all = figures(checked, |_, _| true);
    let defects = checked.iter().filter(|checked| checked.card.defect.is_some()).count();
    let (found, sentences) = sentences_found(documents);
    let mut statements = vec![
        format!("{} cards, {defects} of them with a seeded defect", checked.len()),
        format!("Of {} good cards, {} are reported as not supported", all.good, all.good_unsupported),
        format!("Of the {sentences} sentences of the set, {found} are found"),
    ];
    for (defect, count) in &all.count {
        let found = all.found.get(defect).copied().unwrap_or_default();
        statements.push(format!("| {} | {found} of {count} |", label(*defect)));
    }
    for (code, name) in LANGUAGES {
        let figures = figures(checked, |document, _| document.language == code);
        let (found, count) = figures.visible();
        let Figures { good, good_unsupported, .. } = figures;
        statements.push(format!("| {name} | {found} of {count} | {good_unsupported} of {good} |"));
    }
    statements
}

const LANGUAGES: [(&str, &str); 8] = [
    ("ar", "Arabic"),
    ("de", "German"),
    ("en", "English"),
    ("es", "Spanish"),
    ("hi", "Hindi"),
    ("ja", "Japanese"),
    ("pl", "Polish"),
    ("ru", "Russian"),
];

/// Returns the name of a defect in the document.
fn label(defect: Defect) -> &'static str {
    match defect {
        Defect::Number => "number changed",
        Defect::Name => "name swapped, also for another one of the text",
        Defect::Invented => "invented fact",
        Defect::OtherText => "from another text",
        Defect::Negation => "negation",
        Defect::Leak => "answer in the question",
        Defect::YesOrNo => "yes or no",
        Defect::Duplicate => "duplicate in other words",
        Defect::OtherLanguage => "another language",
        Defect::RefersToText => "reference to the text",
        Defect::ListAnswer => "list as an answer",
    }
}

/// Returns the figures as a table for people.
pub(crate) fn table(documents: &[Document], checked: &[Checked<'_>]) -> String {
    let mut text = String::new();
    let all = figures(checked, |_, _| true);
    let tuned = figures(checked, |document, card| document.half == Half::Tuned && card.batch == Batch::First);
    let held_out =
        figures(checked, |document, card| document.half == Half::HeldOut && card.batch == Batch::First);
    let second = figures(checked, |_, card| card.batch == Batch::Second);
    let third = figures(checked, |_, card| card.batch == Batch::Third);
    let fourth = figures(checked, |_, card| card.batch == Batch::Fourth);
    text.push_str(
        "\ndefect: found of seeded (tuned half, held-out half, second batch, third batch, fourth batch)\n",
    );
    for (defect, count) in &all.count {
        let of = |figures: &Figures| {
            let get = |counts: &BTreeMap<Defect, usize>| counts.get(defect).copied().unwrap_or_default();
            format!("{} of {}", get(&figures.found), get(&figures.count))
        };
        let found = all.found.get(defect).copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "  {:14} {:3} %   {} ({}, {}, {}, {}, {})",
            format!("{defect:?}"),
            found * 100 / count,
            of(&all),
            of(&tuned),
            of(&held_out),
            of(&second),
            of(&third),
            of(&fourth)
        );
    }
    text.push_str(
        "\nfalse alarms on good cards (tuned half, held-out half, second batch, third batch, fourth batch)\n",
    );
    let _ = writeln!(
        text,
        "  unsupported    {} of {} ({} of {}, {} of {}, {} of {}, {} of {}, {} of {})",
        all.good_unsupported,
        all.good,
        tuned.good_unsupported,
        tuned.good,
        held_out.good_unsupported,
        held_out.good,
        second.good_unsupported,
        second.good,
        third.good_unsupported,
        third.good,
        fourth.good_unsupported,
        fourth.good
    );
    for note in Note::ALL.map(Note::code) {
        let of = |figures: &Figures| figures.good_notes.get(note).copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "  {note:18} {} ({}, {}, {}, {}, {})",
            of(&all),
            of(&tuned),
            of(&held_out),
            of(&second),
            of(&third),
            of(&fourth)
        );
    }
    text.push_str(
        "\nlanguage: defects of number, name, invented, other text found; good cards unsupported\n",
    );
    let languages: BTreeSet<&str> = documents.iter().map(|document| document.language.as_str()).collect();
    for language in languages {
        let figures = figures(checked, |document, _| document.language == language);
        let (found, count) = figures.visible();
        let Figures { good, good_unsupported, .. } = figures;
        let _ = writeln!(text, "  {language}  {found} of {count}; {good_unsupported} of {good}");
    }
    let (found, sentences) = sentences_found(documents);
    let _ = writeln!(text, "\nsentences found: {found} of {sentences}");
    text.push_str("\nwrong\n");
    for line in &all.wrong {
        let _ = writeln!(text, "  {line}");
    }
    text
}
