//! The check of a candidate against the passage that the model named.
//!
//! ```text
//! named      [4, 3]          the numbers of sentences, as the model wrote them: any garbage is possible
//! source     3..=4           the smallest passage with all of them; none where it has more than SENTENCES_MAX sentences
//! supported  every number and name of the back, and most of its content words, occur in the source
//! ```

use super::notes::{self, Gist, Language};
use super::sentences::{Passage, Sentences};
use super::support::{Index, is_supported};
use super::words::{Kind, Text, Words};

/// The most sentences of a source. A wider range shows a learner no passage, and makes every answer look supported.
pub const SENTENCES_MAX: usize = 8;
/// The most numbers that are read of a candidate; further ones are ignored.
pub const NAMED_MAX: usize = 16;
/// The characters from the beginning of the text that show its language and its use of capitals.
const SAMPLE_CHARS: usize = 800;
/// The most capitalized words within sentences of a language that capitalizes names alone: German has 25 % and more, a text of
/// many names 15 %.
const NAMES_PERCENT_MAX: usize = 20;
/// The most candidates before one that it is compared with: as many as a learner reads at once, and bounded for 2000 candidates.
const EARLIER_MAX: usize = 64;

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

/// Checks the candidates of one text, in their order.
#[derive(Debug)]
pub struct Checker<'a> {
    text: Text,
    sentences: &'a Sentences,
    language: Language,
    /// Whether a capital within a sentence marks a name: not where all nouns have one.
    capitals: bool,
    earlier: Vec<Gist>,
}

impl<'a> Checker<'a> {
    /// Reads a sanitized text and its sentences, once for all its candidates.
    #[must_use]
    pub fn new(text: &str, sentences: &'a Sentences) -> Self {
        let text = Text::new(text, SAMPLE_CHARS);
        let sample = text.words.between(0, SAMPLE_CHARS);
        let words = || sample.iter().filter(|token| token.kind == Kind::Word);
        let names = words().filter(|token| token.is_name).count();
        Self {
            sentences,
            language: Language::of(&text.words),
            capitals: names.saturating_mul(100) < words().count().saturating_mul(NAMES_PERCENT_MAX),
            text,
            earlier: Vec::new(),
        }
    }

    /// Checks a valid candidate, and remembers it for the later ones (near duplicates). `named` is from [`read_numbers`].
    #[must_use]
    pub fn check(&mut self, front: &str, back: &str, named: &[usize]) -> Citation {
        let numbers = source(self.sentences, named);
        let source = numbers.and_then(|(first, last)| self.sentences.passage(first, last));
        let (front_words, back_words) = (Words::with_languages(front), Words::with_languages(back));
        let given = Index::of(&front_words, &front_words.list);
        let supported = source.map(|source| {
            is_supported(&front_words, &given, &back_words, source, self.capitals, &mut self.text)
        });
        let gist = Gist::of(&front_words, &back_words);
        let mut notes = Vec::new();
        for note in Note::ALL {
            let applies = match note {
                Note::AnswerInQuestion => notes::has_answer_in_question(&given, &back_words),
                Note::YesOrNo => notes::is_yes_or_no(back),
                Note::RefersToText => notes::refers_to_text(&front_words, &back_words, &self.text.words),
                Note::NearDuplicate => self.earlier.iter().any(|earlier| earlier.is_like(&gist)),
                Note::OtherLanguage => self.language.is_other([&front_words, &back_words]),
                Note::ListAnswer => notes::is_list(back),
            };
            if applies {
                notes.push(note);
            }
        }
        self.keep(gist);
        Citation { source, supported, notes }
    }

    /// Remembers a candidate that was checked before, such as one from the storage.
    pub fn remember(&mut self, front: &str, back: &str) {
        self.keep(Gist::of(&Words::with_languages(front), &Words::with_languages(back)));
    }

    fn keep(&mut self, gist: Gist) {
        if self.earlier.len() >= EARLIER_MAX {
            self.earlier.remove(0);
        }
        self.earlier.push(gist);
    }
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

/// Returns the first and the last of the named sentences that exist, where they are near enough.
fn source(sentences: &Sentences, named: &[usize]) -> Option<(usize, usize)> {
    let existing =
        || named.iter().copied().filter(|number| (1..=sentences.count()).contains(number)).take(NAMED_MAX);
    let (first, last) = (existing().min()?, existing().max()?);
    (last.saturating_sub(first) < SENTENCES_MAX).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "Evaporation lifts water from the ocean into the air, all the time. High above the land the vapour cools and forms clouds. In 1687 Newton wrote of the tides, which are something else. Then it rains, and the rivers carry the water home.";

    #[test]
    fn the_source_is_the_smallest_passage_with_all_named_sentences() {
        let sentences = Sentences::of(TEXT);
        let passage = |first, last| Some((first, last));
        for (named, expected) in [
            (&[2][..], passage(2, 2)),
            (&[4, 3], passage(3, 4)),
            (&[1, 3, 1], passage(1, 3)),
            (&[0, 2, 99, usize::MAX], passage(2, 2)),
            (&[], None),
            (&[0, 99], None),
        ] {
            assert_eq!(source(&sentences, named), expected, "{named:?}");
        }
        let long = "One sentence of the text, which is long enough to have a number. ".repeat(20);
        let sentences = Sentences::of(long.trim());
        assert_eq!(source(&sentences, &[1, SENTENCES_MAX]), Some((1, SENTENCES_MAX)));
        assert_eq!(source(&sentences, &[1, SENTENCES_MAX + 1]), None);
    }

    #[test]
    fn numbers_are_read_out_of_any_json() {
        for (json, expected) in [
            ("[3]", &[3][..]),
            ("[ 3 , 4 ]", &[3, 4]),
            (r#"["3","4-5"]"#, &[3, 4, 5]),
            ("7", &[7]),
            (r#""[7]""#, &[7]),
            ("[[1],[2]]", &[1, 2]),
            ("null", &[]),
            ("true", &[]),
            ("", &[]),
            (r#"{"a":1}"#, &[]),
            ("[123456]", &[]),
            ("[00012]", &[12]),
        ] {
            assert_eq!(read_numbers(json.as_bytes()), expected, "{json}");
        }
        assert_eq!(read_numbers("1,".repeat(1_000).as_bytes()).len(), NAMED_MAX);
    }

    /// A sentence over the limit is cut at white space, which may be within a number.
    #[test]
    fn a_number_that_a_cut_divides_has_its_parts_in_their_passages() {
        for shift in 0..12 {
            let text = ["a".repeat(7 + shift), " 100 200 300 400".repeat(60)].concat();
            let sentences = Sentences::of(&text);
            let mut checker = Checker::new(&text, &sentences);
            assert!(sentences.count() > 1);
            for (index, passage) in sentences.passages().enumerate() {
                let back = &text[passage.start..passage.end];
                assert_eq!(checker.check("", back, &[index + 1]).supported, Some(true), "{shift} {back}");
            }
        }
    }

    #[test]
    fn a_candidate_without_a_source_is_neither_supported_nor_not() {
        let sentences = Sentences::of(TEXT);
        let mut checker = Checker::new(TEXT, &sentences);
        let citation = checker.check("What lifts water?", "Evaporation", &[]);
        assert_eq!(citation, Citation::default());
        let citation = checker.check("What cools the vapour?", "The height above the land", &[2]);
        assert_eq!((citation.source, citation.supported), (sentences.passage(2, 2), Some(true)));
        assert_eq!(checker.check("Who wrote of tides?", "Laplace, in 1775", &[3]).supported, Some(false));
    }

    #[test]
    fn notes_have_the_order_of_the_contract() {
        let sentences = Sentences::of(TEXT);
        let mut checker = Checker::new(TEXT, &sentences);
        let citation = checker.check("According to the text, is it yes?", "Yes; no; true", &[1]);
        assert_eq!(citation.notes, [Note::YesOrNo, Note::RefersToText, Note::ListAnswer]);
        let codes = Note::ALL.map(Note::code);
        assert_eq!(
            codes,
            [
                "answer_in_question",
                "yes_or_no",
                "refers_to_text",
                "near_duplicate",
                "other_language",
                "list_answer"
            ]
        );
    }

    #[test]
    fn a_remembered_candidate_is_compared_too() {
        let card = ("Which process lifts water from the ocean?", "Evaporation");
        let sentences = Sentences::of(TEXT);
        let mut checker = Checker::new(TEXT, &sentences);
        checker.remember(card.0, card.1);
        let citation = checker.check("What process lifts the water of the ocean?", card.1, &[1]);
        assert_eq!(citation.notes, [Note::NearDuplicate]);
        for number in 0..EARLIER_MAX {
            checker.remember("Another question about mountains", &number.to_string());
        }
        assert_eq!(checker.earlier.len(), EARLIER_MAX);
        assert_eq!(checker.check(card.0, card.1, &[1]).notes, []);
    }

    fn texts() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            3 => prop::sample::select(vec![
                "Newton", "1,000", "½", "²", "km", " ", ". ", "\n", "の水", "カメラ", "वह ", "الماء ", "\\frac", "12.", "%", "ß", "", "yes", "нет", "ン",
            ]).prop_map(str::to_owned),
            1 => any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_text_and_candidate_are_checked(
            text in texts(), front in texts(), back in texts(), named in prop::collection::vec(0..9_usize, 0..4),
        ) {
            let sentences = Sentences::of(&text);
            let mut checker = Checker::new(&text, &sentences);
            let length = text.chars().count();
            for _ in 0..2 {
                let citation = checker.check(&front, &back, &named);
                prop_assert_eq!(citation.source.is_some(), citation.supported.is_some());
                prop_assert!(citation.source.is_none_or(|source| source.start < source.end && source.end <= length));
            }
        }

        /// What is copied out of the source is supported.
        #[test]
        fn a_sentence_of_the_text_supports_itself(text in texts()) {
            let sentences = Sentences::of(&text);
            let mut checker = Checker::new(&text, &sentences);
            let chars: Vec<char> = text.chars().collect();
            let passages: Vec<Passage> = sentences.passages().collect();
            for (index, passage) in passages.iter().enumerate().take(3) {
                let back: String = chars[passage.start..passage.end].iter().collect();
                prop_assert_eq!(checker.check("", &back, &[index + 1]).supported, Some(true), "{}", back);
            }
        }

        #[test]
        fn any_bytes_give_few_numbers(json in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read_numbers(&json).len() <= NAMED_MAX);
        }
    }
}
