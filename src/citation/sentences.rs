//! The sentences of a text: their ranges, and the text with a number before each.
//!
//! ```text
//! text       Water rises. It cools.⏎⏎Then it rains.
//! sentences  0..12, 13..22, 24..38                       characters, end exclusive, without the white space around them
//! numbered   1 Water rises.⏎2 It cools.⏎⏎3 Then it rains.
//! ```
//! The borders are those of UAX #29 (a terminator, the closing marks after it, white space), with its rule that a lower-case
//! letter continues a sentence, and four additions: abbreviations and initials, lines, scripts without terminators, long
//! sentences. `docs/citation.md` states each, and why the crate of that annex is not used.
//!
//! One pass, linear in the text; no panic on any text.

use super::abbreviations::is_abbreviation;
use super::characters::{characters, is_lower_case, is_mark};
use super::sort::sort;
use crate::lower_case::push_lower_case;

/// A longer sentence is cut at white space before this many characters: a learner has to find the fact in the passage, and an
/// answer has at most 500 characters. Few sentences of prose are longer.
pub const CHARS_MAX: usize = 400;
/// The least bytes of text for each number. A text of shorter sentences (a list of words) has its sentences joined up to this
/// size, so that the numbers add no more than the stated share of tokens. In bytes, because a token has about as many bytes in
/// every script.
pub const BYTES_PER_NUMBER_MIN: usize = 48;
/// A space ends a passage of Thai, Lao, Khmer or Burmese, which write no terminators, after this many characters.
const CHARS_BEFORE_SPACE: usize = 60;
/// A line at least this long that a lower-case letter follows on the next line was wrapped, so it does not end a sentence. Lines
/// of lists, headings and code are shorter.
const WRAPPED_LINE_CHARS: usize = 40;
/// Quotes, brackets and dashes that may precede the first letter of a sentence.
const OPENERS_MAX: usize = 4;

/// A range of the text, in characters (Unicode scalar values), end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Passage {
    /// The first character.
    pub start: usize,
    /// The character after the last.
    pub end: usize,
}

/// One sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sentence {
    passage: Passage,
    /// In bytes.
    start: usize,
    /// In bytes, exclusive.
    end: usize,
}

/// The sentences of one text, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sentences {
    list: Vec<Sentence>,
}

impl Sentences {
    /// Splits a sanitized text. Every character that is no white space is in exactly one sentence.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self::of_characters(&characters(text), text.len())
    }

    /// The same for a text in characters, and its bytes.
    pub(super) fn of_characters(chars: &[char], bytes: usize) -> Self {
        let mut splitter = Splitter { chars, ..Splitter::default() };
        splitter.run();
        let mut list = splitter.found;
        if list.len().saturating_mul(BYTES_PER_NUMBER_MIN) > bytes {
            list = joined(&list);
        }
        Self { list }
    }

    /// Returns the number of sentences; the numbers are 1 to this one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Returns the passage of each sentence.
    pub fn passages(&self) -> impl Iterator<Item = Passage> {
        self.list.iter().map(|sentence| sentence.passage)
    }

    /// Returns the passage from one sentence to another, both by number; `None` where a number does not exist.
    #[must_use]
    pub fn passage(&self, first: usize, last: usize) -> Option<Passage> {
        let find = |number: usize| self.list.get(number.checked_sub(1)?);
        let (first, last) = (find(first)?, find(last)?);
        Some(Passage { start: first.passage.start, end: last.passage.end })
    }

    /// Returns the text with a number and a space before each sentence, each sentence on a line of its own. Nothing else
    /// changes: blank lines, indentation and line ends within a sentence are kept. `text` is the one that was split.
    ///
    /// A text that contains such numbers cannot forge one: every line that begins with a digit begins with the number of its
    /// sentence. The same text gives the same bytes.
    #[must_use]
    pub fn numbered(&self, text: &str) -> String {
        let mut numbered =
            String::with_capacity(text.len().saturating_add(self.list.len().saturating_mul(5)));
        let mut end_before = 0;
        for (index, sentence) in self.list.iter().enumerate() {
            let gap = text.get(end_before..sentence.start).unwrap_or_default();
            let (lines, indentation) = match gap.rfind('\n') {
                Some(at) => gap.split_at_checked(at.saturating_add(1)).unwrap_or_default(),
                None if index == 0 => ("", ""),
                None => ("\n", ""),
            };
            numbered.push_str(lines);
            numbered.push_str(&index.saturating_add(1).to_string());
            numbered.push(' ');
            numbered.push_str(indentation);
            let lines = text.get(sentence.start..sentence.end).unwrap_or_default();
            for (index, line) in lines.split_inclusive('\n').enumerate() {
                if index > 0 && line.starts_with(|c: char| c.is_ascii_digit()) {
                    numbered.push(' ');
                }
                numbered.push_str(line);
            }
            end_before = sentence.end;
        }
        numbered
    }

    /// Returns the share of the text's characters that belong to sentences with a candidate, in percent, rounded down; 100 only
    /// where every sentence has one. A sentence has a candidate where one of the passages contains a part of it.
    #[must_use]
    pub fn coverage_percent(&self, sources: &[Passage]) -> usize {
        let packed = |passage: &Passage| {
            let [start, end] = [passage.start, passage.end].map(|at| u32::try_from(at).unwrap_or(u32::MAX));
            u64::from(start) << 32 | u64::from(end)
        };
        let mut sources: Vec<u64> = sources.iter().map(packed).collect();
        sort(&mut sources);
        let place = |bits: u64| usize::try_from(bits & 0xffff_ffff).unwrap_or_default();
        let mut rest = sources.iter().map(|packed| (place(packed >> 32), place(*packed))).peekable();
        let (mut covered, mut all, mut end) = (0_usize, 0_usize, 0);
        for sentence in self.passages() {
            let length = sentence.end.saturating_sub(sentence.start);
            all = all.saturating_add(length);
            // The farthest end among the sources that begin before the sentence ends.
            while let Some(source) = rest.next_if(|(start, _)| *start < sentence.end) {
                end = source.1.max(end);
            }
            if end > sentence.start {
                covered = covered.saturating_add(length);
            }
        }
        covered.saturating_mul(100).checked_div(all).unwrap_or_default()
    }
}

/// Joins each sentence that is shorter than [`BYTES_PER_NUMBER_MIN`] with the ones after it.
fn joined(list: &[Sentence]) -> Vec<Sentence> {
    let mut joined: Vec<Sentence> = Vec::new();
    for sentence in list {
        match joined.last_mut() {
            Some(last) if last.end.saturating_sub(last.start) < BYTES_PER_NUMBER_MIN => {
                last.end = sentence.end;
                last.passage.end = sentence.passage.end;
            }
            _ => joined.push(*sentence),
        }
    }
    joined
}

/// The state of the one pass.
#[derive(Default)]
struct Splitter<'a> {
    chars: &'a [char],
    found: Vec<Sentence>,
    /// The first character of the open sentence.
    start: Option<usize>,
    /// The last white space of the open sentence.
    space: Option<usize>,
    /// The first character of the line.
    line: usize,
    /// Up to where the characters are counted in bytes.
    counted: (usize, usize),
}

impl Splitter<'_> {
    fn run(&mut self) {
        let mut at = 0;
        while let Some(c) = self.at(at) {
            at = self.step(at, c);
        }
        self.end(at);
    }

    /// Handles one character, or a terminator with its closing marks; returns the next one's place.
    fn step(&mut self, at: usize, c: char) -> usize {
        let next = at.saturating_add(1);
        if is_plain(c) {
            let length = at.saturating_sub(*self.start.get_or_insert(at));
            let rest = self.chars.get(at..).unwrap_or_default();
            let mut end = at;
            for pair in rest.windows(2).take(CHARS_MAX.saturating_sub(length)) {
                match pair {
                    [' ', after] if after.is_ascii_alphanumeric() => self.space = Some(end),
                    [c, _] if is_plain(*c) => {}
                    _ => break,
                }
                end = end.saturating_add(1);
            }
            if end > at {
                return end;
            }
        }
        if is_line_end(c) {
            if !self.is_wrapped(at) {
                self.end(at);
            }
            self.line = next;
            self.space = self.start.map(|_| at);
            return next;
        }
        if self.is_space(at) {
            match self.start {
                None => {}
                Some(start) if self.ends_at_space(start, at) => self.end(at),
                Some(_) => self.space = Some(at),
            }
            return next;
        }
        let start = *self.start.get_or_insert(at);
        if at.saturating_sub(start) >= CHARS_MAX
            && let Some(space) = self.space.take()
        {
            self.end(space);
            self.start = Some(self.skip_spaces(space)).filter(|start| *start <= at);
            return at;
        }
        if !is_terminator(c) && !is_own_terminator(c) {
            return next;
        }
        let after = self.skip_closers(next);
        if self.ends_sentence(at, after) {
            self.end(after);
        }
        after
    }

    fn at(&self, at: usize) -> Option<char> {
        self.chars.get(at).copied()
    }

    /// Closes the open sentence before `end`, without its trailing white space.
    fn end(&mut self, end: usize) {
        self.space = None;
        let Some(start) = self.start.take() else { return };
        let mut last = end;
        while last > start && self.is_space(last.saturating_sub(1)) {
            last = last.saturating_sub(1);
        }
        let (start_byte, end_byte) = (self.byte_of(start), self.byte_of(last));
        if start < last {
            let passage = Passage { start, end: last };
            self.found.push(Sentence { passage, start: start_byte, end: end_byte });
        }
    }

    /// Returns the place of a character in bytes; the places never descend.
    fn byte_of(&mut self, at: usize) -> usize {
        let (counted, bytes) = self.counted;
        let between = self.chars.get(counted..at).unwrap_or_default();
        let bytes = between.iter().fold(bytes, |bytes, c| bytes.saturating_add(c.len_utf8()));
        self.counted = (at, bytes);
        bytes
    }

    /// White space without a mark on it: no border separates a mark from its base. A line end is no base.
    fn is_space(&self, at: usize) -> bool {
        self.at(at).is_some_and(|c| {
            is_line_end(c) || c.is_whitespace() && !self.at(at.saturating_add(1)).is_some_and(is_mark)
        })
    }

    fn skip_spaces(&self, mut at: usize) -> usize {
        while self.is_space(at) {
            at = at.saturating_add(1);
        }
        at
    }

    /// Skips further terminators, closing quotes and brackets, marks, and references such as `[3]`.
    fn skip_closers(&self, mut at: usize) -> usize {
        while let Some(c) = self.at(at) {
            let is_closer = matches!(
                c,
                '"' | '\''
                    | ')'
                    | ']'
                    | '}'
                    | '*'
                    | '_'
                    | '»'
                    | '«'
                    | '›'
                    | '’'
                    | '‘'
                    | '”'
                    | '“'
                    | '」'
                    | '』'
                    | '）'
                    | '】'
                    | '》'
                    | '〉'
                    | '］'
                    | '｝'
            );
            if is_closer || is_terminator(c) || is_own_terminator(c) || is_mark(c) {
                at = at.saturating_add(1);
            } else if let Some(length) = self.reference(at) {
                at = at.saturating_add(length);
            } else {
                break;
            }
        }
        at
    }

    /// Returns the length of a reference in brackets, of up to three digits.
    fn reference(&self, at: usize) -> Option<usize> {
        let rest = self.chars.get(at..)?;
        let (bracket, rest) = rest.split_first()?;
        let digits = rest.iter().take(4).take_while(|c| c.is_ascii_digit()).count();
        let is_reference = *bracket == '[' && (1..=3).contains(&digits) && rest.get(digits) == Some(&']');
        is_reference.then(|| digits.saturating_add(2))
    }

    /// Whether the line end at `at` is within a sentence: a long line that the next one continues in lower case.
    fn is_wrapped(&self, at: usize) -> bool {
        self.start.is_some()
            && at.saturating_sub(self.line) >= WRAPPED_LINE_CHARS
            && self.at(at.saturating_add(1)).is_some_and(is_lower_case)
    }

    fn ends_at_space(&self, start: usize, at: usize) -> bool {
        at.saturating_sub(start) >= CHARS_BEFORE_SPACE
            && self.at(at.saturating_sub(1)).is_some_and(is_without_terminators)
            && self.at(at.saturating_add(1)).is_some_and(is_without_terminators)
    }

    /// Whether the terminator at `at` ends its sentence; `after` follows its closing marks.
    fn ends_sentence(&self, at: usize, after: usize) -> bool {
        let Some(terminator) = self.at(at) else { return true };
        let marks = self.chars.get(at..after).unwrap_or_default();
        if marks.iter().any(|c| is_own_terminator(*c)) {
            let is_decimal =
                terminator == '．' && self.at(after).is_some_and(|c| matches!(c, '0'..='9' | '０'..='９'));
            return !is_decimal;
        }
        if after < self.chars.len() && !self.is_space(after) {
            return false;
        }
        let following = self.first_letter(self.skip_spaces(after));
        if following.is_some_and(is_lower_case) {
            return false;
        }
        let is_single = marks.iter().filter(|c| is_terminator(**c)).count() == 1;
        if terminator != '.' || !is_single {
            return true;
        }
        !following.is_some_and(|c| c.is_ascii_digit()) && !self.is_abbreviated(at)
    }

    /// Returns the character at `at`, or the one after opening quotes and brackets.
    fn first_letter(&self, at: usize) -> Option<char> {
        let rest = self.chars.get(at..)?;
        let is_opener = |c: &char| {
            matches!(
                c,
                '"' | '\''
                    | '('
                    | '['
                    | '{'
                    | '«'
                    | '»'
                    | '“'
                    | '”'
                    | '„'
                    | '‘'
                    | '¿'
                    | '¡'
                    | '–'
                    | '—'
                    | '-'
            )
        };
        rest.iter().take(OPENERS_MAX).find(|c| !is_opener(c)).copied()
    }

    /// Whether the single letter at `at` is a unit after a number.
    fn is_unit(&self, at: usize) -> bool {
        let before = |count| at.checked_sub(count).and_then(|place| self.at(place));
        let number = if before(1).is_some_and(char::is_whitespace) { before(2) } else { before(1) };
        self.at(at).is_some_and(|c| {
            matches!(c, 'm' | 'g' | 's' | 'h' | 'l' | 't' | 'м' | 'л' | 'т' | 'с' | 'A' | 'K' | 'V' | 'W')
        }) && number.is_some_and(|c| c.is_ascii_digit())
    }

    /// Whether the word before the full stop at `at` is an abbreviation, an initial or an ordinal.
    fn is_abbreviated(&self, at: usize) -> bool {
        const LONGEST: usize = 8;
        let before = self.chars.get(self.start.unwrap_or(at)..at).unwrap_or_default();
        let is_border =
            |c: &char| c.is_whitespace() || matches!(c, '(' | '[' | '"' | '„' | '“' | '«' | '-' | '–' | '/');
        let word: Vec<char> =
            before.iter().rev().take(LONGEST).take_while(|c| !is_border(c)).copied().collect();
        let letters = || word.iter().rev().filter(|c| !is_mark(**c));
        match letters().count() {
            0 => return false,
            // An initial; a unit after a number may end the sentence.
            1 => return !self.is_unit(at.saturating_sub(1)),
            2 if word.iter().all(char::is_ascii_digit) => return true,
            _ => {}
        }
        let mut folded = String::new();
        letters().for_each(|c| push_lower_case(&mut folded, *c));
        word.contains(&'.') || is_abbreviation(&folded)
    }
}

/// Whether the character is one of the frequent letters, digits and commas, which never end a sentence.
const fn is_plain(c: char) -> bool {
    matches!(
        c,
        'a'..='z' | 'A'..='Z' | '0'..='9' | ',' | '\u{c0}'..='\u{52f}' | '\u{620}'..='\u{6d3}' | '\u{900}'..='\u{963}'
            | '\u{3041}'..='\u{30ff}' | '\u{4e00}'..='\u{9fff}'
    )
}

const fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\u{2028}' | '\u{2029}')
}

/// A terminator that white space has to follow (UAX #29: `ATerm`, and those of `STerm` that occur within words of code).
const fn is_terminator(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '‼' | '⁇' | '⁈' | '⁉' | '‽')
}

/// A terminator that ends a sentence whatever follows (the others of `STerm`, of the scripts in use).
const fn is_own_terminator(c: char) -> bool {
    matches!(
        c,
        '。' | '！'
            | '？'
            | '｡'
            | '．'
            | '।'
            | '॥'
            | '؟'
            | '۔'
            | '։'
            | '።'
            | '፧'
            | '፨'
            | '။'
            | '៖'
            | '។'
            | '៕'
            | '᠃'
            | '܀'
            | '꓿'
            | '෴'
            | '༎'
            | '།'
    )
}

/// A letter of a script that separates sentences by spaces alone.
const fn is_without_terminators(c: char) -> bool {
    matches!(c, '\u{e01}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &str) -> Vec<String> {
        let chars: Vec<char> = text.chars().collect();
        Sentences::of(text)
            .passages()
            .map(|Passage { start, end }| chars[start..end].iter().collect())
            .collect()
    }

    /// Checks the borders of `|` in a text; long sentences around it keep short ones from being joined.
    fn check(marked: &str) {
        const LONG: &str = "This sentence is as long as it has to be, so that the text has few numbers for its size, and none of the short sentences in the middle of it is joined with another one because of that";
        let text =
            format!("{LONG}.\n{LONG}.\n{LONG}.\n\n{}\n\n{LONG}.\n{LONG}.\n{LONG}.", marked.replace('|', ""));
        let found = split(&text);
        let middle = &found[3..found.len() - 3];
        let expected: Vec<&str> = marked.split('|').map(str::trim).collect();
        assert_eq!(middle, expected);
    }

    #[test]
    fn each_script_has_its_borders() {
        for marked in [
            "Water rises. |It cools! |Does it rain? |“It does.” |(So it does.) |Really?! |The end",
            "Woda paruje. |Czy „pada”? |Tak… |Ćma leci.",
            "Das Wasser steigt. |„Regnet es?“ |Überall!",
            "El agua sube. |¿Llueve? |¡Sí! |Ñandú.",
            "Вода поднимается. |«Идёт дождь». |Ёж спит.",
            "يرتفع الماء. |هل تمطر؟ |نعم!",
            "水は蒸発する。|雨になる！|「本当？」|川へ流れる。|３．１４は数。|終わり．",
            "水蒸发。|下雨了！|真的吗？",
            "पानी ऊपर उठता है। |क्या बारिश होती है? |हाँ।|नदी बहती है॥",
            "پانی اوپر جاتا ہے۔ |بارش ہوتی ہے۔",
            "Ջուրը բարձրանում է։ |Անձրև է։",
        ] {
            check(marked);
        }
    }

    #[test]
    fn a_full_stop_within_a_sentence_ends_none() {
        for marked in [
            "Dr. Smith and J. R. R. Tolkien met in St. Albans, e.g. Monday at 3.15 p.m. or later.",
            "Siehe z. B. Seite 5, vgl. Abb. 3, am 3. Oktober im 19. Jahrhundert, d.h. Prof. Meier bzw. Frau Schmidt.",
            "W 1990 r. Kraków, ul. Długa 5, np. św. Jan i prof. Nowak, tzn. Polska.",
            "El Sr. García y la Dra. López, pág. 5, EE. UU. entre ellos.",
            "В 1990 г. Москва, т.е. Россия, ул. Ленина, см. Рис. 5 и др. города.",
            "Version 1.2.3 of example.com is at fig. 7. 12 more follow, see the U.S. Census.",
            "“Why?” she said. |He asks “what now?” and leaves… or stays! again.",
            "Vitamin C. Plan B.",
        ] {
            check(&marked.replace("asks", "says"));
        }
    }

    #[test]
    fn references_and_closing_marks_belong_to_the_sentence_before() {
        for marked in [
            "It rose.[3] |It fell.[12][4] |It ends.”) |Next [5] one.",
            "It rose!\u{fe0f} |Then fell.\u{301} |End.",
            "**Bold end.** |Next.",
        ] {
            check(marked);
        }
    }

    #[test]
    fn a_line_ends_a_sentence_but_for_a_wrapped_one() {
        for marked in [
            "# A heading\n|- first item\n|- second. |Still second\n|* third",
            "1. First\n|2. Second\n\n|Text",
            "def area(r):\n|    return 3.14 * r * r  # a. b\n|x = {}\n|if x:\n|    pass",
            "This line of a text was wrapped by a mail\nprogram, so its sentence goes on.\n|Next one\n|here",
            "A line\u{2028}|and the next",
        ] {
            check(marked);
        }
    }

    #[test]
    fn thai_is_split_at_spaces_after_a_while() {
        let clause = "น้ำระเหยขึ้นไปในอากาศ";
        let text = [clause; 12].join(" ");
        let found = split(&text);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.iter().all(|passage| passage.chars().count() == 65));
    }

    #[test]
    fn a_long_sentence_is_cut_at_white_space() {
        let words = "evaporation ".repeat(100);
        let found = split(words.trim());
        assert_eq!(found.iter().map(|part| part.chars().count()).collect::<Vec<_>>(), [395, 395, 395, 11]);
        assert_eq!(split(&"a".repeat(5_000)).len(), 1);
    }

    #[test]
    fn short_sentences_are_joined_where_a_text_has_many() {
        let text = "Der Hund\nDie Katze\n".repeat(40);
        let found = split(text.trim());
        assert!(found.len() * BYTES_PER_NUMBER_MIN <= text.len() + BYTES_PER_NUMBER_MIN, "{}", found.len());
        assert_eq!(found[0], "Der Hund\nDie Katze\nDer Hund\nDie Katze\nDer Hund\nDie Katze");
    }

    #[test]
    fn a_number_precedes_each_sentence() {
        let text = "Water rises into the air as vapour, because of heat. It cools high up, where the air is far colder.\n\n    Then it rains on land, and on the sea, of course.\n2 This line begins with a forged number of its own. End of the whole text, with a few more words.";
        assert_eq!(
            Sentences::of(text).numbered(text),
            "1 Water rises into the air as vapour, because of heat.\n2 It cools high up, where the air is far colder.\n\n3     Then it rains on land, and on the sea, of course.\n4 2 This line begins with a forged number of its own.\n5 End of the whole text, with a few more words."
        );
        assert_eq!(Sentences::of("").numbered(""), "");
        assert_eq!(Sentences::of("7").numbered("7"), "1 7");
        assert_eq!(Sentences::of("a\n7").numbered("a\n7"), "1 a\n 7");
    }

    #[test]
    fn passages_are_found_by_number() {
        let text = "水は太陽の熱によって蒸発して空へ昇っていく。そして高い空で冷やされて雨や雪になって降る。";
        let sentences = Sentences::of(text);
        assert_eq!(sentences.count(), 2);
        assert_eq!(sentences.passage(1, 2), Some(Passage { start: 0, end: 44 }));
        assert_eq!(sentences.passage(2, 2), Some(Passage { start: 22, end: 44 }));
        for (first, last) in [(0, 1), (1, 3), (usize::MAX, usize::MAX)] {
            assert_eq!(sentences.passage(first, last), None);
        }
    }

    #[test]
    fn the_coverage_is_the_share_of_characters_with_a_candidate() {
        let text = "水は太陽の熱によって蒸発して空へ昇っていく。そして高い空で冷やされて雨や雪になって降る。";
        let sentences = Sentences::of(text);
        let passage = |start, end| Passage { start, end };
        for (sources, percent) in [
            (&[][..], 0),
            (&[passage(0, 22)], 50),
            (&[passage(22, 44)], 50),
            (&[passage(22, 44), passage(3, 5), passage(0, 1)], 100),
            (&[passage(21, 23)], 100),
            (&[passage(50, 60)], 0),
        ] {
            assert_eq!(sentences.coverage_percent(sources), percent, "{sources:?}");
        }
        assert_eq!(Sentences::of("").coverage_percent(&[]), 0);
    }

    fn texts() -> impl Strategy<Value = String> {
        let special = ".!?…。！．।؟ \n\t\u{2028}\u{a0}\u{3000}\"'([])«»“”„19aZßŁжЖéกม水あא\u{5b0}ع\u{64e}हि\u{301}\u{fe0f}\u{200d}\u{1f468}\u{1f3fd}\u{20e3}-";
        let special = prop::sample::select(special.chars().collect::<Vec<_>>());
        let word = prop::sample::select(vec!["Dr", "z.B", "[12]", "word", "Слово", "นะ", "1990", "\n\n"]);
        let part = prop_oneof![
            5 => special.prop_map(String::from),
            2 => word.prop_map(str::to_owned),
            1 => any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(part, 0..600).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn the_sentences_cover_the_text_but_for_white_space(text in texts()) {
            let chars: Vec<char> = text.chars().collect();
            let mut end_before = 0;
            let sentences = Sentences::of(&text);
            for Passage { start, end } in sentences.passages() {
                prop_assert!(end_before <= start && start < end && end <= chars.len());
                prop_assert!(chars[end_before..start].iter().all(|c| c.is_whitespace()));
                end_before = end;
            }
            prop_assert!(chars[end_before..].iter().all(|c| c.is_whitespace()));
            let bytes: String = sentences.list.iter().map(|one| text[one.start..one.end].to_owned()).collect();
            let ranges: String = sentences.passages().flat_map(|one| &chars[one.start..one.end]).collect();
            prop_assert_eq!(bytes, ranges);
        }

        #[test]
        fn no_border_is_within_a_character_of_the_reader(text in texts()) {
            let chars: Vec<char> = text.chars().collect();
            for Passage { start, end } in Sentences::of(&text).passages() {
                prop_assert!(start == 0 || is_line_end(chars[start - 1]) || !is_mark(chars[start]));
                prop_assert!(!chars.get(end).copied().is_some_and(is_mark));
            }
        }

        #[test]
        fn every_line_with_a_number_begins_with_its_own(text in texts()) {
            let sentences = Sentences::of(&text);
            let numbered = sentences.numbered(&text);
            let numbers: Vec<usize> = numbered
                .split('\n')
                .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
                .map(|line| line.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default())
                .collect();
            prop_assert_eq!(numbers, (1..=sentences.count()).collect::<Vec<_>>());
        }

        #[test]
        fn the_numbers_are_few_for_the_size_of_the_text(text in texts()) {
            let count = Sentences::of(&text).count();
            prop_assert!(count <= text.len() / BYTES_PER_NUMBER_MIN + 1, "{count}");
        }
    }
}
