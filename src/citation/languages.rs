//! What the check knows of single languages: their most frequent words, the words for yes and no, and the phrases that refer to
//! a text. All folded, as [`super::words`] folds.

use std::sync::LazyLock;

/// The most frequent words, which carry no fact: a word, a space and the letters of its languages in each line, sorted by bytes.
/// A word of one letter is not in the list: no check counts it.
const FREQUENT: &str = include_str!("frequent_words.txt");
/// The longest word of the list.
const BYTES_MAX: usize = 24;
/// The letters of the languages: Arabic, German, English, French, Hindi, Italian, Dutch, Portuguese, Polish, Russian, Spanish,
/// Turkish, Ukrainian.
const LANGUAGES: &str = "adefhinoprstu";

/// Answers that are yes or no.
pub(super) const YES_OR_NO: &str = "yes no true false correct incorrect tak nie prawda falsz ja nein wahr falsch richtig si verdadero falso cierto да нет верно неверно правда نعم لا صحيح خطا はい いいえ 正しい हां नहीं सही गलत oui non vrai faux vero sim nao 是 否 对 不是";

/// Phrases that refer to a text which the learner does not see.
pub(super) const REFERENCES: &[&str] = &[
    "according to the text",
    "according to the passage",
    "according to the author",
    "according to the article",
    "in the text",
    "in the passage",
    "in this passage",
    "in this text",
    "the text says",
    "the text states",
    "the text mentions",
    "the passage says",
    "mentioned in the",
    "described in the text",
    "the given text",
    "wedlug tekstu",
    "zgodnie z tekstem",
    "w tekscie",
    "wedlug autora tekstu",
    "autor tekstu",
    "w tym tekscie",
    "tekst mowi",
    "laut text",
    "laut dem text",
    "dem text zufolge",
    "gemass dem text",
    "im text",
    "in diesem text",
    "der text sagt",
    "segun el texto",
    "en el texto",
    "de acuerdo con el texto",
    "el texto dice",
    "segun el autor",
    "segun el pasaje",
    "согласно тексту",
    "в тексте",
    "по тексту",
    "в этом тексте",
    "автор текста",
    "текст говорит",
    "وفقا نص",
    "حسب نص",
    "في نص",
    "بحسب نص",
    "ورد في نص",
    "本文によ",
    "テキストによ",
    "文章によ",
    "本文で",
    "この文章",
    "本文に",
    "この本文",
    "पाठ के अनुसार",
    "पाठ में",
    "लेख के अनुसार",
    "गद्यांश",
    "अनुच्छेद के अनुसार",
    "selon le texte",
    "dans le texte",
    "secondo il testo",
    "segundo o texto",
    "volgens de tekst",
    "根据文本",
    "文中",
];

/// The beginnings of words of which every one of [`REFERENCES`] has at least one, so that a card without them has no reference.
pub(super) const REFERENCE_BEGINNINGS: &[&str] = &[
    "text",
    "testo",
    "tekst",
    "tekscie",
    "passage",
    "pasaje",
    "author",
    "autor",
    "article",
    "mentioned",
    "текст",
    "نص",
    "文",
    "テキスト",
    "本",
    "पाठ",
    "लेख",
    "गद्यांश",
    "अनुच्छेद",
];

/// The words before the last item of a list.
pub(super) const CONJUNCTIONS: &str = "and or i oraz lub und oder y e o и или و او और या et ou ed en of";

/// The slots of [`PLACES`], a power of two: three times the words, so that most look-ups read one line at most.
const SLOTS: usize = 2048;

/// Where the lines of [`FREQUENT`] begin, plus one, each in the first free slot from its word's hash on. Made once: a binary search
/// over the lines takes five times as long.
static PLACES: LazyLock<Vec<u16>> = LazyLock::new(|| {
    let mut places = vec![0; SLOTS];
    let mut next = 1_u16;
    for line in FREQUENT.split_inclusive('\n') {
        let word = line.split(' ').next().unwrap_or_default();
        let mut slot = slot(word);
        while places.get(slot).is_some_and(|place| *place != 0) {
            slot = following(slot);
        }
        if let Some(place) = places.get_mut(slot) {
            *place = next;
        }
        next = next.saturating_add(u16::try_from(line.len()).unwrap_or_default());
    }
    places
});

/// Returns the letters of the languages in which the word is frequent; empty for any other word.
pub(super) fn languages_of(word: &str) -> &'static str {
    if word.len() > BYTES_MAX {
        return "";
    }
    let mut slot = slot(word);
    while let Some(place) = PLACES.get(slot).filter(|place| **place != 0) {
        let line = FREQUENT.get(usize::from(*place).saturating_sub(1)..).unwrap_or_default();
        if let Some(languages) = line.strip_prefix(word).and_then(|rest| rest.strip_prefix(' ')) {
            let end = languages.bytes().position(|byte| byte == b'\n').unwrap_or_default();
            return languages.get(..end).unwrap_or_default();
        }
        slot = following(slot);
    }
    ""
}

/// Returns the slot of a word's hash (FNV-1a, folded).
fn slot(word: &str) -> usize {
    let hash =
        word.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    usize::try_from(hash ^ hash >> 15).unwrap_or_default() & SLOTS.saturating_sub(1)
}

const fn following(slot: usize) -> usize {
    slot.saturating_add(1) & SLOTS.saturating_sub(1)
}

/// Whether a list of words has the word.
pub(super) fn has_word(words: &str, word: &str) -> bool {
    let (mut rest, word) = (words.as_bytes(), word.as_bytes());
    loop {
        if let Some([] | [b' ', ..]) = rest.strip_prefix(word) {
            return true;
        }
        let Some(end) = rest.iter().position(|byte| *byte == b' ') else { return false };
        rest = rest.get(end.saturating_add(1)..).unwrap_or_default();
    }
}

/// Counts by language.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts([usize; LANGUAGES.len()]);

impl Counts {
    /// Adds a word of these languages.
    pub(super) fn add(&mut self, languages: &str) {
        for language in languages.bytes() {
            let place = LANGUAGES.bytes().position(|known| known == language);
            if let Some(count) = place.and_then(|place| self.0.get_mut(place)) {
                *count = count.saturating_add(1);
            }
        }
    }

    /// Returns the language with the most words, and their number; `None` where there are fewer than `least`.
    pub(super) fn best(&self, least: usize) -> Option<(usize, usize)> {
        self.0
            .iter()
            .copied()
            .enumerate()
            .max_by_key(|(_, count)| *count)
            .filter(|(_, count)| *count >= least)
    }

    /// Returns the number of words of a language.
    pub(super) fn of(&self, language: usize) -> usize {
        self.0.get(language).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::citation::words::Words;

    fn folded(text: &str) -> String {
        let words = Words::of(text);
        words.list.iter().map(|token| words.text(token)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_frequent_word_is_found_with_its_languages() {
        let words: Vec<&str> = FREQUENT.lines().map(|line| line.split_once(' ').expect("a word").0).collect();
        assert_eq!(words.iter().map(|word| word.len()).max(), Some(BYTES_MAX));
        assert!(words.is_sorted() && words.len() > 500, "{}", words.len());
        for line in FREQUENT.lines() {
            let (word, languages) = line.split_once(' ').expect("a word and its languages");
            assert_eq!(languages_of(word), languages);
            assert!(languages.chars().all(|language| LANGUAGES.contains(language)), "{line}");
            assert_eq!(folded(word), word);
        }
        for other in ["", "photosynthesis", "a", "zzz", "的"] {
            assert_eq!(languages_of(other), "");
        }
    }

    #[test]
    fn every_phrase_is_folded() {
        for phrase in REFERENCES {
            let joined = folded(phrase).replace(' ', "");
            assert_eq!(joined, phrase.replace(' ', ""));
        }
        for phrase in REFERENCES {
            let words = Words::of(phrase);
            let begins =
                |beginning: &&str| words.list.iter().any(|token| words.text(token).starts_with(*beginning));
            assert!(REFERENCE_BEGINNINGS.iter().any(begins), "{phrase}");
        }
        for word in YES_OR_NO.split(' ').chain(CONJUNCTIONS.split(' ')) {
            assert_eq!(folded(word).replace(' ', ""), word, "{word}");
        }
    }
}
