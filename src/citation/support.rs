//! Whether the answer of a candidate occurs in its source.
//!
//! ```text
//! back      "Bi Sheng, um 1040"     names and words bi, sheng; number 1040
//! source    "… hatte Bi Sheng schon um 1040 Lettern …"
//! ```
//! Every number and every name must occur; of the content words and character pairs, [`SHARE_PERCENT`]. Words of the front are
//! given, so they count on neither side. A word occurs where one of the source begins as it does ([`begin_alike`]).

use super::languages::has_word;
use super::sentences::Passage;
use super::sort::sort;
use super::words::{Kind, Text, Token, Words, is_arabic};

/// The share of the back's content words and pairs that the source must have, in percent.
pub(super) const SHARE_PERCENT: usize = 50;
/// A number up to this one that is missing may be written as a word, where the source has no number at all.
const SMALL_NUMBER: &str = "12";

/// The least letters of a part of a compound ("Lettern" of "Metalllettern").
const PART_CHARS_MIN: usize = 5;

/// Units and multiples. A number with one of them occurs only where the source has it without another of them.
const UNITS: &str = "% mm cm m km km² µm nm mg g kg t ml l ms kw mw gw hz khz mhz ghz mln mld tys mio mrd млн млрд тыс мм см м км мг кг мл";

/// A thing that is compared.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item<'a> {
    /// A number, as the tokens of its readings, and the word after it.
    Number(&'a [Token], Option<&'a str>),
    /// A word that carries a fact.
    Word(&'a Token),
    /// Two adjacent letters of a script without spaces, or a single one. Hiragana, which is mostly grammar, and numbers are skipped.
    Pair(char, Option<char>),
}

/// Iterates over what a text says, word by word.
pub(super) fn items(words: &Words) -> impl Iterator<Item = Item<'_>> {
    let list = words.list.as_slice();
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some((token, rest)) = list.get(at..).and_then(<[Token]>::split_first) {
            let start = at;
            at = at.saturating_add(1);
            match token.kind {
                Kind::Number => {
                    at = at
                        .saturating_add(rest.iter().take_while(|other| is_reading_of(token, other)).count());
                    let readings = list.get(start..at).unwrap_or_default();
                    return Some(Item::Number(readings, following(words, list, token.end, at)));
                }
                Kind::Word if is_content(words.text(token), token) => return Some(Item::Word(token)),
                Kind::Word => {}
                Kind::Character => {
                    let c = letter(words, token);
                    let other = |place: Option<usize>| {
                        let other = list.get(place?).filter(|other| other.kind == Kind::Character)?;
                        let is_adjacent = other.at == token.end || other.end == token.at;
                        Some(letter(words, other)).filter(|c| is_adjacent && !is_skipped(*c))
                    };
                    match (other(start.checked_sub(1)), other(Some(at))) {
                        _ if is_skipped(c) => {}
                        (_, Some(after)) => return Some(Item::Pair(c, Some(after))),
                        (None, None) => return Some(Item::Pair(c, None)),
                        (Some(_), None) => {}
                    }
                }
            }
        }
        None
    })
}

fn is_reading_of(token: &Token, other: &Token) -> bool {
    other.kind == Kind::Number && other.at == token.at
}

/// Returns the word directly after a number: its unit, perhaps.
fn following<'a>(words: &'a Words, list: &[Token], end: usize, next: usize) -> Option<&'a str> {
    let token =
        list.get(next).filter(|token| token.kind == Kind::Word && token.at.saturating_sub(end) <= 1)?;
    Some(words.text(token))
}

fn letter(words: &Words, token: &Token) -> char {
    words.text(token).chars().next().unwrap_or_default()
}

/// Whether the letter is hiragana, or a number in Chinese characters, which may stand for digits.
const fn is_skipped(c: char) -> bool {
    matches!(
        c,
        'ぁ'
            ..='ゖ'
                | '〇'
                | '一'
                | '二'
                | '三'
                | '四'
                | '五'
                | '六'
                | '七'
                | '八'
                | '九'
                | '十'
                | '百'
                | '千'
    )
}

/// Whether a word carries a fact: three letters or more (two of Korean and katakana, or of a name), and not frequent in any
/// language.
fn is_content(word: &str, token: &Token) -> bool {
    let is_dense = word.chars().next().is_some_and(|c| matches!(c, '゠'..='ヿ' | '가'..='힣'));
    let least = if token.is_name || is_dense { 1 } else { 2 };
    token.languages.is_empty() && word.chars().nth(least).is_some()
}

/// What a text contains, sorted for look-ups.
#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    words: Vec<&'a str>,
    /// A reading of a number, and its unit.
    numbers: Vec<(&'a str, &'a str)>,
    /// As [`pair`] packs them, sorted.
    pairs: Vec<u64>,
}

impl<'a> Index<'a> {
    /// Sorts what is in a part of a text.
    pub(super) fn of(text: &'a Words, list: &[Token]) -> Self {
        let mut index = Self { words: Vec::with_capacity(list.len()), ..Self::default() };
        for (place, token) in list.iter().enumerate() {
            let folded = text.text(token);
            match token.kind {
                Kind::Word => {
                    index.words.push(folded);
                    index.words.extend(without_clitic(folded));
                }
                Kind::Number => {
                    let rest = list.get(place..).unwrap_or_default();
                    let readings = rest.iter().take_while(|other| is_reading_of(token, other)).count();
                    let unit = following(text, list, token.end, place.saturating_add(readings));
                    index.numbers.push((folded, unit.unwrap_or_default()));
                }
                Kind::Character => {
                    let c = letter(text, token);
                    index.pairs.push(pair(c, '\0'));
                    if let Some(other) =
                        list.get(place.saturating_add(1)).filter(|other| other.at == token.end)
                    {
                        index.pairs.push(pair(c, letter(text, other)));
                    }
                }
            }
        }
        sort(&mut index.pairs);
        index
    }

    /// Whether the text has the word, or one that begins as it does.
    pub(super) fn has_word(&self, word: &str) -> bool {
        self.has_form_of(word)
            || without_clitic(word).is_some_and(|word| self.has_form_of(word))
            || is_long(word) && self.has_part_or_compound_of(word)
    }

    #[inline(never)]
    fn has_form_of(&self, word: &str) -> bool {
        // Most pairs of words differ in the first byte.
        let first = word.bytes().next();
        self.words.iter().any(|known| known.bytes().next() == first && begin_alike(known, word))
    }

    /// Whether the text has a word that may come from the name: with a common beginning of all letters of the shorter one but
    /// two, and at least four ("Солнца", "солнечное").
    fn has_name(&self, name: &str) -> bool {
        self.words.iter().any(|known| {
            let shorter = known.chars().count().min(name.chars().count());
            common(known, name) >= 4.max(shorter.saturating_sub(2))
        })
    }

    /// Whether a word of the text is a part of this compound, or a compound with this word.
    fn has_part_or_compound_of(&self, word: &str) -> bool {
        let (word, stem) = (word.as_bytes(), without_last(word).as_bytes());
        self.words.iter().any(|text| {
            let known = text.as_bytes();
            known.len() >= PART_CHARS_MIN
                && (word.starts_with(known) || word.ends_with(known) || contains(known, stem))
                && is_long(text)
        })
    }

    /// Returns the units that the number has in the text.
    fn units_of(&self, number: &str) -> impl Iterator<Item = &'a str> {
        self.numbers.iter().filter(move |(known, _)| *known == number).map(|(_, unit)| *unit)
    }

    /// Returns the end of a number that the text has, and its unit there.
    fn unit_of(&self, text: &Words, readings: &[Token]) -> Option<(usize, &'a str)> {
        readings.iter().find_map(|reading| Some((reading.end, self.units_of(text.text(reading)).last()?)))
    }

    /// Whether the text has the pair, or the single letter.
    pub(super) fn has_pair(&self, first: char, second: Option<char>) -> bool {
        self.pairs.binary_search(&pair(first, second.unwrap_or_default())).is_ok()
    }

    /// Whether the text has the number, with its unit or without one.
    pub(super) fn has_number(&self, text: &Words, readings: &[Token], unit: Option<&str>) -> bool {
        let unit = unit.filter(|unit| is_unit(unit));
        let mut units = readings.iter().flat_map(|reading| self.units_of(text.text(reading)));
        units.any(|known| unit.is_none_or(|unit| known == unit || !is_unit(known)))
    }
}

/// Whether a word is long enough for a part of a compound.
fn is_long(word: &str) -> bool {
    word.chars().nth(PART_CHARS_MIN.saturating_sub(1)).is_some()
}

fn is_unit(word: &str) -> bool {
    has_word(UNITS, word)
}

/// Packs two letters.
fn pair(first: char, second: char) -> u64 {
    u64::from(u32::from(first)) << 32 | u64::from(u32::from(second))
}

/// Whether a short text contains another one. The search of the standard library prepares for long texts.
pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1)).any(|window| window == part)
}

/// Returns a word without its last letter, which may be an ending.
fn without_last(word: &str) -> &str {
    let mut chars = word.chars();
    chars.next_back();
    chars.as_str()
}

/// Whether two words are forms of one: equal, or with a common beginning of half of the longer one, and of at least four letters;
/// three where it has five or fewer.
pub(super) fn begin_alike(one: &str, other: &str) -> bool {
    // Most pairs of words differ in the first bytes, which costs less than letters.
    if one.bytes().zip(other.bytes()).take(3).any(|(a, b)| a != b) {
        return false;
    }
    let longer = one.chars().count().max(other.chars().count());
    let least = if longer <= 5 { 3 } else { longer.div_ceil(2).max(4) };
    one == other || common(one, other) >= least
}

/// Returns the number of letters with which both begin.
fn common(one: &str, other: &str) -> usize {
    one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count()
}

/// Returns an Arabic word without the conjunction or preposition that is written with it, where four letters or more are left.
fn without_clitic(word: &str) -> Option<&str> {
    if !is_arabic(word) {
        return None;
    }
    let rest = word.strip_prefix(['و', 'ف', 'ب', 'ل', 'ك'])?;
    rest.chars().nth(2).map(|_| rest)
}

/// How much of a back occurs in its source.
#[derive(Debug, Default)]
struct Tally<'a> {
    /// Words and pairs; a number that occurs counts as two of them.
    count: usize,
    found: usize,
    /// The words that do not occur.
    missing: Vec<&'a str>,
    /// A number or a name does not occur.
    lacks_fact: bool,
}

impl Tally<'_> {
    fn add(&mut self, weight: usize, is_found: bool) {
        self.count = self.count.saturating_add(weight);
        if is_found {
            self.found = self.found.saturating_add(weight);
        }
    }

    const fn is_most(&self) -> bool {
        self.found.saturating_mul(100) >= self.count.saturating_mul(SHARE_PERCENT)
    }
}

/// Whether the source has every number, every name and most words of the back. `capitals` says whether a capital within a
/// sentence marks a name.
pub(super) fn is_supported(
    front: &Words,
    given: &Index<'_>,
    back: &Words,
    source: Passage,
    capitals: bool,
    text: &mut Text,
) -> bool {
    let divided = text.words.divided(source.start, source.end);
    let words = divided.as_ref().unwrap_or(&text.words);
    let list = if divided.is_some() { &words.list } else { words.between(source.start, source.end) };
    let source = Index::of(words, list);
    let mut tally = tally(back, Some(given), &source, capitals);
    if tally.lacks_fact {
        return false;
    }
    if tally.count == 0 {
        // The back has nothing but words of the front, or none at all ("Yes."): the front is compared with the source.
        return self::tally(front, None, &source, false).is_most();
    }
    if tally.is_most() {
        return true;
    }
    if tally.found == 0 {
        return false;
    }
    // Words that the text has elsewhere name the subject of a sentence that says "it": they count on neither side.
    let is_elsewhere = |word: &&&str| text.alike(word).any(|known| begin_alike(known, word));
    tally.count = tally.count.saturating_sub(tally.missing.iter().filter(is_elsewhere).count());
    tally.is_most()
}

/// Compares a text with the source; what the front has already is given.
fn tally<'a>(text: &'a Words, given: Option<&Index<'_>>, source: &Index<'_>, capitals: bool) -> Tally<'a> {
    let mut tally = Tally::default();
    // The end of the last number that was found, and the unit that it has in the source.
    let mut unit: Option<(usize, &str)> = None;
    // A repeated word counts once.
    let mut words: Vec<&str> = Vec::new();
    for item in items(text) {
        match item {
            Item::Number(readings, following) => {
                unit = source.unit_of(text, readings);
                if given.is_some_and(|given| given.has_number(text, readings, following)) {
                    continue;
                }
                if source.has_number(text, readings, following) {
                    tally.add(2, true);
                } else {
                    let is_small = readings.first().is_some_and(|reading| is_small(text.text(reading)));
                    tally.lacks_fact |= !(is_small && source.numbers.is_empty());
                }
            }
            Item::Word(token) => {
                let word = text.text(token);
                // A unit that the source abbreviates ("5 km", "5 kilometres").
                let is_unit = unit.is_some_and(|(end, known)| {
                    token.at.saturating_sub(end) <= 1 && !known.is_empty() && word.starts_with(known)
                });
                if is_unit || words.contains(&word) || given.is_some_and(|given| given.has_word(word)) {
                    continue;
                }
                words.push(word);
                let is_found = source.has_word(word);
                tally.lacks_fact |= !is_found && capitals && token.is_name && !source.has_name(word);
                tally.add(1, is_found);
                if !is_found {
                    tally.missing.push(word);
                }
            }
            Item::Pair(first, second) => {
                if !given.is_some_and(|given| given.has_pair(first, second)) {
                    tally.add(1, source.has_pair(first, second));
                }
            }
        }
    }
    tally
}

fn is_small(number: &str) -> bool {
    number.len() == 1 || number.len() == SMALL_NUMBER.len() && number <= SMALL_NUMBER
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn supported(front: &str, back: &str, source: &str) -> bool {
        let [front, back] = [front, back].map(Words::with_languages);
        let passage = Passage { start: 0, end: source.chars().count() };
        let mut text = Text::new(&[source, " The sea is elsewhere."].concat(), 0);
        let given = Index::of(&front, &front.list);
        is_supported(&front, &given, &back, passage, true, &mut text)
    }

    #[test]
    fn every_number_has_to_occur() {
        for (back, source, expected) in [
            ("1000 km", "It is 1,000 km long.", true),
            ("1.000 km", "It is 1000 km long.", true),
            ("1 000", "It is 1,000 km long.", true),
            ("0.5", "About ½ of it.", true),
            ("2,5", "About 2½ of it.", true),
            ("٣٥", "It has 35 parts.", true),
            ("3.8 cm", "It moves by 3.8 cm a year.", true),
            ("8.3 cm", "It moves by 3.8 cm a year.", false),
            ("5 m", "It is 5 km long.", false),
            ("5 kilometres", "It is 5 km long.", true),
            ("5", "It is 5 km long.", true),
            ("50 %", "It is 50% of all.", true),
            ("CO₂ and 6", "6 CO_2", true),
            ("In 1939", "From 1939 to 1945.", true),
            ("In 1940", "From 1939 to 1945.", false),
            ("4", "A cat has four legs.", true),
            ("40", "A cat has four legs.", false),
            ("4", "A cat has 3 legs.", false),
        ] {
            assert_eq!(supported("How many legs?", back, source), expected, "{back} in {source}");
        }
    }

    #[test]
    fn every_name_has_to_occur() {
        const SOURCE: &str = "In 1687 Isaac Newton explained tides in his Principia.";
        for (back, expected) in [
            ("It was Isaac Newton", true),
            ("It was Newton's Principia", true),
            ("It was Isaac Barrow who explained tides in his Principia", false),
            ("NEWTON", true),
            ("Barrow", false),
        ] {
            assert_eq!(supported("Who explained tides?", back, SOURCE), expected, "{back}");
        }
        assert!(supported("What did Barrow do?", "Barrow explained tides", SOURCE), "it is given");
        assert!(supported("Чего?", "Затмение Солнца", "Он наблюдал солнечное затмение."));
    }

    #[test]
    fn half_of_the_content_words_have_to_occur() {
        const SOURCE: &str = "Evaporation lifts water from the ocean into the air.";
        for (back, expected) in [
            ("Evaporation", true),
            ("Evaporated water", true),
            ("Evaporation by heat", true),
            ("Evaporation by solar heat", false),
            ("Condensation", false),
            ("Evaporation from the open sea", true),
            ("Yes.", true),
        ] {
            assert_eq!(supported("What lifts water?", back, SOURCE), expected, "{back}");
        }
        assert!(!supported("Do plants sleep?", "Yes.", SOURCE));
    }

    #[test]
    fn scripts_without_spaces_are_compared_by_pairs() {
        const SOURCE: &str = "水は太陽の熱で蒸発して空へ昇る。";
        for (back, expected) in
            [("太陽の熱", true), ("蒸発", true), ("凝結", false), ("熱", true), ("氷", false)]
        {
            assert_eq!(supported("なぜか。", back, SOURCE), expected, "{back}");
        }
        assert!(supported("อะไร", "ไอน้ำ", "น้ำกลายเป็นไอน้ำในอากาศ"));
        assert!(!supported("อะไร", "ดวงจันทร์", "น้ำกลายเป็นไอน้ำในอากาศ"));
        assert!(supported("誰か。", "ルイ・パスツール", "フランスのルイ・パスツールが示した。"));
        assert!(!supported("誰か。", "ブフナー", "フランスのルイ・パスツールが示した。"));
    }

    #[test]
    fn forms_of_a_word_begin_alike() {
        for (one, other, expected) in [
            ("evaporation", "evaporate", true),
            ("woda", "wody", true),
            ("kopernik", "kopernika", true),
            ("international", "internet", false),
            ("martin", "marie", false),
            ("tide", "tidy", true),
            ("war", "was", false),
            ("मिलने", "मिलती", true),
        ] {
            assert_eq!(begin_alike(one, other), expected, "{one} {other}");
        }
        let words = Words::of("Thylakoidmembranen Lettern");
        let index = Index::of(&words, &words.list);
        assert!(
            index.has_word("membranen") && index.has_word("thylakoide") && index.has_word("metalllettern")
        );
        assert!(!index.has_word("zellkern"));
    }

    proptest! {
        /// The words of a whole text are found by their beginnings.
        #[test]
        fn each_form_of_a_word_is_in_the_list_of_its_beginning(
            text in "([a-c]{1,5}|[ая]{1,4}|[的水]|[ก-ค]{1,3}|[0-9]{1,3}|,)( ([a-c]{1,5}|[ая]{1,4}|é[a-c]{0,3}|[的水]|[0-9]{1,3})){0,40}",
            word in "[a-c]{1,6}|[ая]{1,5}|é[a-c]{0,4}",
        ) {
            let mut text = Text::new(&text, 0);
            let is_form =
                |token: &&Token| token.kind == Kind::Word && begin_alike(text.words.text(token), &word);
            let is_scanned = text.words.list.iter().any(|token| is_form(&token));
            let listed: Vec<&str> = text.alike(&word).collect();
            prop_assert_eq!(listed.iter().any(|known| begin_alike(known, &word)), is_scanned);
            prop_assert!(listed.iter().enumerate().all(|(place, known)| !listed[..place].contains(known)));
        }
    }
}
