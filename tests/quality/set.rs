//! The frozen set: `texts/*.json`.

use std::fs;
use std::path::Path;

use ai_sessions::citation::sentences::{Passage, Sentences};
use serde::Deserialize;

/// Which half of the set a text belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Half {
    /// The thresholds of the rule were chosen with it.
    Tuned,
    /// It was only measured.
    HeldOut,
}

/// The kind of a seeded defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Defect {
    /// A number of the answer is changed.
    Number,
    /// A name of the answer is another one.
    Name,
    /// The answer is a plausible fact that the text does not have.
    Invented,
    /// The card belongs to another text.
    OtherText,
    /// The answer says the opposite, in the words of the source.
    Negation,
    /// The question contains the answer.
    Leak,
    /// The answer is yes or no.
    YesOrNo,
    /// An earlier card of the text tests the same fact.
    Duplicate,
    /// The card is in another language than the text.
    OtherLanguage,
    /// It refers to a text that the learner does not see.
    RefersToText,
    /// The answer has four items or more, or three on lines of their own.
    ListAnswer,
}

/// When a card was written. The documents state what each batch showed at its first measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Batch {
    /// Before the rule.
    #[default]
    First,
    /// After the rule was tuned with the first half of the first batch.
    Second,
    /// After the rule was changed for the second batch: the rule is as it was when this batch was measured.
    Third,
    /// For the notes on references and lists, with the rule known: half of the references are in its most common phrases, the
    /// other half in phrases that it does not have.
    Fourth,
}

/// A card as a model would write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Card {
    pub(crate) front: String,
    pub(crate) back: String,
    /// The sentences that it rests on, by number.
    pub(crate) sentences: Vec<usize>,
    /// `None` for a good card.
    pub(crate) defect: Option<Defect>,
    /// When it was written.
    #[serde(default)]
    pub(crate) batch: Batch,
}

/// A text with its cards.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    #[serde(skip)]
    pub(crate) name: String,
    pub(crate) language: String,
    pub(crate) half: Half,
    /// The sentences as their author separates them, each with the white space before it.
    #[serde(rename = "text")]
    pub(crate) sentences: Vec<String>,
    pub(crate) cards: Vec<Card>,
}

impl Document {
    pub(crate) fn text(&self) -> String {
        self.sentences.concat()
    }

    /// Returns the place of an author's sentence, by number.
    fn place(&self, number: usize) -> Passage {
        let before: usize =
            self.sentences.iter().take(number - 1).map(|sentence| sentence.chars().count()).sum();
        let sentence = self.sentences.get(number - 1).expect("the card names a sentence");
        let length = |text: &str| text.chars().count();
        Passage {
            start: before + length(sentence) - length(sentence.trim_start()),
            end: before + length(sentence),
        }
    }

    /// Returns the numbers that a model reads before the sentences that a card rests on.
    pub(crate) fn named(&self, card: &Card, sentences: &Sentences) -> Vec<usize> {
        let places: Vec<Passage> = card.sentences.iter().map(|number| self.place(*number)).collect();
        let is_named = |passage: &Passage| {
            places.iter().any(|place| place.start < passage.end && passage.start < place.end)
        };
        sentences
            .passages()
            .enumerate()
            .filter(|(_, passage)| is_named(passage))
            .map(|(index, _)| index + 1)
            .collect()
    }

    /// Returns how many of the author's sentences the service finds as they are.
    pub(crate) fn found_sentences(&self, sentences: &Sentences) -> usize {
        let found: Vec<Passage> = sentences.passages().collect();
        (1..=self.sentences.len()).filter(|number| found.contains(&self.place(*number))).count()
    }
}

/// Reads the set, sorted by name.
pub(crate) fn documents() -> Vec<Document> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quality/texts");
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut documents: Vec<Document> = entries
        .map(|entry| {
            let path = entry.expect("it can be read").path();
            let json = fs::read_to_string(&path).expect("it is text");
            let document: Document = serde_json::from_str(&json).expect("it is a document of the set");
            Document { name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), ..document }
        })
        .collect();
    documents.sort_by(|one, other| one.name.cmp(&other.name));
    documents
}
