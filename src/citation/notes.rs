//! Advice on a candidate, from its own words, the language of the text and the candidates before it.

use super::characters::{Class, class, push_folded};
use super::languages::{CONJUNCTIONS, Counts, REFERENCE_BEGINNINGS, REFERENCES, YES_OR_NO, has_word};
use super::sort::sort;
use super::support::{Index, Item, contains, items};
use super::words::{Kind, Words};

/// The least items of a list.
const LIST_ITEMS_MIN: usize = 4;
/// The most characters of an item of a list; longer parts between commas are clauses.
const LIST_ITEM_CHARS_MAX: usize = 40;

/// Whether everything that the back says is in the front.
pub(super) fn has_answer_in_question(given: &Index<'_>, back: &Words) -> bool {
    let mut count = 0_usize;
    let all = items(back).all(|item| {
        count = count.saturating_add(1);
        match item {
            Item::Number(readings, unit) => given.has_number(back, readings, unit),
            Item::Word(token) => given.has_word(back.text(token)),
            Item::Pair(first, second) => given.has_pair(first, second),
        }
    });
    all && count > 0
}

/// Whether the back is yes or no, alone or before a punctuation mark.
pub(super) fn is_yes_or_no(back: &str) -> bool {
    let mut first = String::new();
    for c in back.trim_start().chars().take_while(|c| c.is_whitespace() || class(*c) != Class::Other) {
        if first.len() > YES_OR_NO_BYTES_MAX {
            return false;
        }
        if !c.is_whitespace() {
            push_folded(&mut first, c);
        } else if !first.ends_with(' ') {
            first.push(' ');
        }
    }
    has_word(YES_OR_NO, first.trim())
}

/// Whether the front or the back has a phrase that refers to a text, and the text itself does not have it.
pub(super) fn refers_to_text(front: &Words, back: &Words, text: &Words) -> bool {
    if ![front, back].iter().any(|words| words.list.iter().any(|token| may_refer(words.text(token)))) {
        return false;
    }
    let (front, back) = (joined(front), joined(back));
    let mut found =
        REFERENCES.iter().filter(|phrase| has_phrase(&front, phrase) || has_phrase(&back, phrase)).peekable();
    found.peek().is_some() && {
        let text = joined(text);
        found.any(|phrase| !has_phrase(&text, phrase))
    }
}

/// Whether a word may be one of a reference: every phrase has such a word.
fn may_refer(word: &str) -> bool {
    // Most words are shorter than the beginnings of ASCII, or begin with another letter than all.
    let may = word.bytes().next().is_some_and(|byte| match byte {
        b't' | b'p' | b'a' | b'm' => word.len() >= 4,
        _ => byte >= 0x80,
    });
    may && REFERENCE_BEGINNINGS.iter().any(|beginning| word.as_bytes().starts_with(beginning.as_bytes()))
}

/// Joins the folded words: one space where the text has anything between two.
fn joined(words: &Words) -> String {
    let mut joined = String::from(" ");
    let mut end = None;
    for token in &words.list {
        if end.is_some_and(|end| token.at > end) {
            joined.push(' ');
        }
        joined.push_str(words.text(token));
        end = Some(token.end);
    }
    joined.push(' ');
    joined
}

fn has_phrase(joined: &str, phrase: &str) -> bool {
    let has_spaces = phrase.contains(' ')
        || phrase.chars().next().is_some_and(|c| class(c) == Class::Letter && !is_katakana(c));
    let mut searched = String::from(phrase);
    if has_spaces {
        searched.insert(0, ' ');
        searched.push(' ');
    }
    contains(joined.as_bytes(), searched.as_bytes())
}

const fn is_katakana(c: char) -> bool {
    matches!(c, '゠'..='ヿ')
}

/// Whether the back is a list: items on lines of their own or between semicolons, or short ones between commas.
pub(super) fn is_list(back: &str) -> bool {
    // Most answers have too few separators.
    let weak = back.bytes().filter(|byte| matches!(byte, b'\n' | b',')).count();
    if weak < 2 && !back.bytes().any(|byte| matches!(byte, b';' | 0x80..)) {
        return false;
    }
    let lines = back.lines().filter(|line| !line.trim().is_empty()).count();
    if lines >= LIST_ITEMS_MIN.saturating_sub(1) {
        return true;
    }
    if back.contains(['$', '\\']) {
        return false; // A formula, in which commas separate no items.
    }
    items_between(back, is_semicolon) >= LIST_ITEMS_MIN.saturating_sub(1)
        || items_between(back, is_comma) >= LIST_ITEMS_MIN
}

/// Returns the number of short items between separators; 0 where one is long.
fn items_between(back: &str, is_separator: fn(char) -> bool) -> usize {
    let mut count = 0_usize;
    let mut last = "";
    let mut rest = back;
    while !rest.is_empty() {
        let end = rest.find(is_separator).unwrap_or(rest.len());
        let (item, after) = rest.split_at_checked(end).unwrap_or_default();
        if !item.trim().is_empty() {
            last = item.trim();
            count = count.saturating_add(1);
        }
        if last.chars().nth(LIST_ITEM_CHARS_MAX).is_some() {
            return 0;
        }
        let mut after = after.chars();
        after.next();
        rest = after.as_str();
    }
    // "a, b and c": the last item is two.
    let is_two = count > 1 && last.split_whitespace().skip(1).any(is_conjunction);
    count.saturating_add(usize::from(is_two))
}

const fn is_semicolon(c: char) -> bool {
    matches!(c, ';' | '；')
}

const fn is_comma(c: char) -> bool {
    matches!(c, ',' | '،' | '、' | '，')
}

fn is_conjunction(word: &str) -> bool {
    let mut folded = String::new();
    word.chars().for_each(|c| push_folded(&mut folded, c));
    has_word(CONJUNCTIONS, &folded)
}

/// The most bytes of an answer that is yes or no; a longer one is not searched.
const YES_OR_NO_BYTES_MAX: usize = 24;

/// The number of scripts that are distinguished.
const SCRIPTS: usize = 10;
const KANA: usize = 7;

/// The letters of a text by script.
#[derive(Debug, Default, Clone)]
struct Scripts([usize; SCRIPTS]);

impl Scripts {
    fn add(&mut self, c: char) {
        let script = if c.is_ascii() { c.is_ascii_alphabetic().then_some(0) } else { script(c) };
        if let Some(count) = script.and_then(|script| self.0.get_mut(script)) {
            *count = count.saturating_add(1);
        }
    }

    /// Returns the count of a script; that of Chinese characters includes kana.
    fn of_script(&self, script: usize) -> usize {
        self.0.get(script).copied().unwrap_or_default()
    }

    fn all(&self) -> usize {
        self.0.iter().sum()
    }
}

const fn script(c: char) -> Option<usize> {
    Some(match c {
        'a'..='z' | 'A'..='Z' | 'À'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => 0,
        '\u{370}'..='\u{3ff}' => 1,
        '\u{400}'..='\u{52f}' => 2,
        '\u{5d0}'..='\u{5ea}' => 3,
        '\u{620}'..='\u{6d3}' | '\u{750}'..='\u{77f}' => 4,
        '\u{900}'..='\u{97f}' => 5,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' => 6,
        '\u{3041}'..='\u{30ff}' => KANA,
        '\u{ac00}'..='\u{d7a3}' => 8,
        '\u{980}'..='\u{dff}'
        | '\u{e01}'..='\u{eff}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1200}'..='\u{137f}'
        | '\u{1780}'..='\u{17ff}' => 9,
        _ => return None,
    })
}

/// The language of a text, as far as its letters and frequent words show it.
#[derive(Debug)]
pub(super) struct Language {
    scripts: Scripts,
    words: Counts,
    /// The language of most frequent words.
    best: Option<usize>,
}

/// The least frequent words that show a language: in the text, and in a candidate.
const TEXT_WORDS_MIN: usize = 12;
const CANDIDATE_WORDS_MIN: usize = 3;

impl Language {
    /// Reads a text.
    pub(super) fn of(text: &Words) -> Self {
        let (mut words, mut scripts) = (Counts::default(), Scripts::default());
        text.chars.iter().for_each(|c| scripts.add(*c));
        add_words(&mut words, text);
        let best = words.best(TEXT_WORDS_MIN).map(|(language, _)| language);
        Self { scripts, words, best }
    }

    /// Whether a candidate is in another language: mostly in a script that the text hardly has, or with the frequent words of
    /// another language and hardly any of the text's.
    pub(super) fn is_other(&self, words: [&Words; 2]) -> bool {
        let mut scripts = Scripts::default();
        words.iter().flat_map(|words| &words.chars).for_each(|c| scripts.add(*c));
        let letters = scripts.all();
        if letters < 8 {
            return false;
        }
        let is_of_another_script = (0..SCRIPTS).filter(|script| *script != KANA).any(|script| {
            let with_kana = |counts: &Scripts| {
                let kana = if script == 6 { counts.of_script(KANA) } else { 0 };
                counts.of_script(script).saturating_add(kana)
            };
            with_kana(&scripts).saturating_mul(10) >= letters.saturating_mul(7)
                && with_kana(&self.scripts).saturating_mul(20) < self.scripts.all()
        });
        if is_of_another_script {
            return true;
        }
        let mut counts = Counts::default();
        words.iter().for_each(|words| add_words(&mut counts, words));
        match (self.best, counts.best(CANDIDATE_WORDS_MIN)) {
            (Some(text), Some((other, count))) => {
                text != other
                    && counts.of(text).saturating_mul(3) < count
                    && self.words.of(other).saturating_mul(2) < self.words.of(text)
            }
            _ => false,
        }
    }
}

fn add_words(counts: &mut Counts, words: &Words) {
    for token in words.list.iter().filter(|token| token.kind == Kind::Word) {
        counts.add(token.languages);
    }
}

/// What a candidate says, as sorted hashes.
#[derive(Debug)]
pub(super) struct Gist {
    all: Vec<u64>,
    back: Vec<u64>,
    numbers: Vec<u64>,
}

impl Gist {
    pub(super) fn of(front: &Words, back: &Words) -> Self {
        let mut gist = Self { all: Vec::new(), back: Vec::new(), numbers: Vec::new() };
        gist.all.extend(items(front).map(|item| hash_of(front, &item)));
        for item in items(back) {
            let hash = hash_of(back, &item);
            gist.back.push(hash);
            if matches!(item, Item::Number(..)) {
                gist.numbers.push(hash);
            }
        }
        gist.all.extend_from_slice(&gist.back);
        for list in [&mut gist.all, &mut gist.back, &mut gist.numbers] {
            sort(list);
            list.dedup();
        }
        gist
    }

    /// Whether both test the same fact: the same numbers, and most of what the shorter one says, in the answer and altogether.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let is_shared = |one: &[u64], other: &[u64], percent: usize| {
            let smaller = one.len().min(other.len());
            smaller > 0 && shared(one, other).saturating_mul(100) >= smaller.saturating_mul(percent)
        };
        let have_numbers = !self.numbers.is_empty() && !other.numbers.is_empty();
        (!have_numbers || self.numbers == other.numbers)
            && self.all.len().min(other.all.len()) >= 3
            && is_shared(&self.back, &other.back, 60)
            && is_shared(&self.all, &other.all, 70)
    }
}

/// Returns a hash of an item: of the first five letters of a word, so that its forms are equal.
fn hash_of(words: &Words, item: &Item<'_>) -> u64 {
    // FNV-1a.
    let next = |hash: u32, c: char| (hash ^ u32::from(c)).wrapping_mul(0x0100_0193);
    let hash = |text: &str, letters: usize| text.chars().take(letters).fold(0x811c_9dc5, next);
    u64::from(match item {
        Item::Number(readings, _) => readings.first().map_or(0, |first| hash(words.text(first), usize::MAX)),
        Item::Word(token) => hash(words.text(token), 5),
        Item::Pair(first, second) => second.iter().fold(next(0x811c_9dc5, *first), |hash, c| next(hash, *c)),
    })
}

/// Counts the hashes that two sorted lists share.
fn shared(one: &[u64], mut other: &[u64]) -> usize {
    let mut count = 0_usize;
    for hash in one {
        while let Some((first, rest)) = other.split_first()
            && first <= hash
        {
            count = count.saturating_add(usize::from(first == hash));
            other = rest;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_the_question_is_found() {
        for (front, back, expected) in [
            ("When do the weaker neap tides follow?", "The weaker neap tides", true),
            ("Which city is Mainz?", "Mainz", true),
            ("Is it 1450 or 1455?", "In 1450", true),
            ("Who printed in Mainz?", "Gutenberg in Mainz", false),
            ("江戸時代の富士講とは何か。", "富士講", true),
            ("江戸時代の信仰は何か。", "富士講", false),
            ("Is it so?", "Yes", false),
        ] {
            let [front, back] = [front, back].map(Words::with_languages);
            let given = Index::of(&front, &front.list);
            assert_eq!(has_answer_in_question(&given, &back), expected, "{front:?} {back:?}");
        }
    }

    #[test]
    fn yes_and_no_are_found_in_each_language() {
        for back in [
            "Yes",
            "No.",
            "True",
            "yes, it does",
            "Tak",
            "Nie, nigdy",
            "Fałsz",
            "Ja.",
            "Nein – nie",
            "Sí",
            "Verdadero",
            "Да, верно",
            "Нет",
            "نعم",
            "لا، أبداً",
            "はい",
            "いいえ。",
            "हाँ",
            "हां, सही",
            "नहीं।",
            "Oui",
            "是",
        ] {
            assert!(is_yes_or_no(back), "{back}");
        }
        for padding in ["\n", "\u{3000}", " \t"].map(|white_space| white_space.repeat(20)) {
            for back in
                [format!("Yes{padding}"), format!("{padding}Nein{padding}, nie"), format!("はい{padding}。")]
            {
                assert!(is_yes_or_no(&back), "{back:?}");
            }
            assert!(!is_yes_or_no(&format!("No{padding}king")));
        }
        for back in ["Nie wolno", "No king", "Норвегия", "Jakob", "The true one", "لايبزيغ", "はいく", "", "?"]
        {
            assert!(!is_yes_or_no(back), "{back}");
        }
    }

    #[test]
    fn a_reference_to_the_text_is_found_in_each_language() {
        let refers = |front: &str, text: &str| {
            refers_to_text(&Words::with_languages(front), &Words::with_languages(""), &Words::of(text))
        };
        for front in [
            "According to the text, what rises?",
            "What is mentioned in the passage?",
            "Co według tekstu paruje?",
            "Was steigt laut Text auf?",
            "¿Qué sube según el texto?",
            "Что, согласно тексту, поднимается?",
            "ماذا يرتفع وفقاً للنص؟",
            "本文によると、何が昇るか。",
            "पाठ के अनुसार क्या उठता है?",
        ] {
            assert!(refers(front, "Water rises."), "{front}");
        }
        assert!(!refers("What rises?", "Water rises."));
        assert!(!refers("What is in the textile?", "Cotton."));
        assert!(!refers("Where is the cursor in the text?", "The cursor is in the text."));
    }

    #[test]
    fn a_list_is_found() {
        for back in [
            "red, green, blue and white",
            "1. a\n2. b\n3. c",
            "a; b; c",
            "酵母、乳酸菌、麹菌、酢酸菌",
            "أحمر، أخضر، أزرق، أبيض",
        ] {
            assert!(is_list(back), "{back}");
        }
        for back in [
            "red and green",
            "Paris, France, in 1867",
            "It rises, then it cools high up in the air far above the land, then it falls on the sea, and at last it flows",
            "f(a, b, c, d) $x$",
            "",
        ] {
            assert!(!is_list(back), "{back}");
        }
    }

    #[test]
    fn another_language_is_found_by_script_or_frequent_words() {
        let german = "Der Mond ist mit der Erde im Raum und sie wird von ihm auf der Seite angezogen, die er sieht. Das ist nicht neu.";
        let russian = "Вода поднимается в воздух и не падает, но это было давно, и как она туда попала, мы узнаем только потом.";
        let japanese = "水は太陽の熱によって蒸発して空へ昇っていく。";
        for (text, card, expected) in [
            (german, "What is the force that pulls the sea to the Moon?", true),
            (german, "Was zieht die Erde auf der Seite des Mondes an?", false),
            (german, "Newton Principia 1687", false),
            (german, "Что притягивает море?", true),
            (russian, "What lifts water into the air?", true),
            (russian, "Что поднимает воду в воздух?", false),
            (japanese, "What lifts water into the air?", true),
            (japanese, "水を昇らせるのは何か。", false),
            ("Hund dog Katze cat", "What is the dog that is in the house?", false),
        ] {
            let language = Language::of(&Words::with_languages(text));
            assert_eq!(
                language.is_other([&Words::with_languages(card), &Words::default()]),
                expected,
                "{card} for {text}"
            );
        }
    }

    #[test]
    fn the_same_fact_in_other_words_is_found() {
        let gist =
            |front: &str, back: &str| Gist::of(&Words::with_languages(front), &Words::with_languages(back));
        let first = gist("Which tides occur when Sun and Moon are at right angles?", "Neap tides");
        for (front, back, expected) in [
            (
                "What are the tides called when the Sun and the Moon stand at right angles?",
                "Neap tides",
                true,
            ),
            ("Which tides occur at new moon?", "Spring tides", false),
            ("At which angle do Sun and Moon cause the weaker tides?", "At right angles", false),
            ("Who?", "Newton", false),
        ] {
            assert_eq!(gist(front, back).is_like(&first), expected, "{front}");
        }
        let year = gist("When did Newton explain the tides by gravitation?", "In 1687");
        assert!(!gist("When did Newton explain the tides by gravitation?", "In 1775").is_like(&year));
    }
}
