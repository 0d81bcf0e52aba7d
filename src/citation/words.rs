//! The words, numbers and single characters of a text, folded for comparison.
//!
//! ```text
//! text     "Der Mond (3.474 km) …"   "水は3億"
//! words    der mond 3474 km          水 は 3 億
//! ```
//! A script without spaces between words gives a [`Kind::Character`] for each letter; a run of katakana is a word.

use super::characters::{Class, characters, class, is_mark, is_upper_case, push_folded};
use super::languages::languages_of;
use super::numbers::read_number;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word; also `%`.
    Word,
    /// A number in its decimal form. Two with the same place are two readings of one number.
    Number,
    /// A letter of a script without spaces.
    Character,
}

/// A part of a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// The place of the first character.
    pub(super) at: usize,
    /// The place after the last.
    pub(super) end: usize,
    /// Capitalized within a sentence, or written in capitals.
    pub(super) is_name: bool,
    /// The letters of the languages in which the word is frequent; empty where they are not read.
    pub(super) languages: &'static str,
    /// In the folded text.
    folded: (usize, usize),
}

/// A whole text.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) words: Words,
    /// Present once an answer is in doubt.
    beginnings: Option<Beginnings>,
}

impl Text {
    /// Reads a text, and looks the words of its first characters up among the frequent ones.
    pub(super) fn new(text: &str, sample_chars: usize) -> Self {
        let mut words = Words::of(text);
        words.read_languages(sample_chars);
        Self { words, beginnings: None }
    }

    /// Iterates over the words whose beginning may be that of the word.
    pub(super) fn alike<'a>(&'a mut self, word: &str) -> impl Iterator<Item = &'a str> {
        let beginnings = self.beginnings.get_or_insert_with(|| Beginnings::of(&self.words));
        beginnings.alike(&self.words, word)
    }
}

/// The different words of a text, in a list for each hash of their first bytes: a comparison of each word of a candidate with each of
/// the text would be most of the check's time.
#[derive(Debug)]
pub(super) struct Beginnings {
    /// For each hash the last word's place in the tokens, plus one; 0: none.
    last: Vec<u16>,
    /// For each token the place of the word before it in its list, in the same form.
    before: Vec<u16>,
}

/// The hashes of [`Beginnings`], a power of two.
const BEGINNINGS: usize = 512;
/// The bytes that are hashed: two forms of a word have them in common.
const BEGINNING_BYTES: usize = 3;

impl Beginnings {
    fn of(words: &Words) -> Self {
        let mut beginnings = Self { last: vec![0; BEGINNINGS], before: vec![0; words.list.len()] };
        for (place, token) in words.list.iter().enumerate() {
            let word = words.text(token);
            if token.kind != Kind::Word || beginnings.alike(words, word).any(|other| other == word) {
                continue;
            }
            let last = beginnings.last.get_mut(beginning(word));
            if let (Some(last), Some(before)) = (last, beginnings.before.get_mut(place)) {
                *before = *last;
                *last = u16::try_from(place.saturating_add(1)).unwrap_or_default();
            }
        }
        beginnings
    }

    /// Iterates over the words of a text whose first [`BEGINNING_BYTES`] may be those of the word.
    fn alike<'a>(&'a self, words: &'a Words, word: &str) -> impl Iterator<Item = &'a str> {
        let mut next = self.last.get(beginning(word)).copied();
        std::iter::from_fn(move || {
            let place = usize::from(next?).checked_sub(1)?;
            next = self.before.get(place).copied();
            words.list.get(place).map(|token| words.text(token))
        })
    }
}

/// Returns the hash of the first bytes of a word.
fn beginning(word: &str) -> usize {
    let bytes = word.bytes().take(BEGINNING_BYTES);
    bytes.fold(0_usize, |hash, byte| hash.wrapping_mul(37) ^ usize::from(byte)) & BEGINNINGS.saturating_sub(1)
}

/// The tokens of a text.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) chars: Vec<char>,
    folded: String,
    pub(super) list: Vec<Token>,
}

impl Words {
    /// Reads a text.
    pub(super) fn of(text: &str) -> Self {
        let chars = characters(text);
        // Of ASCII alone: the places of characters are those of bytes, and of folded ones.
        let is_ascii = text.is_ascii();
        let mut words = Self {
            chars: Vec::new(),
            folded: if is_ascii { text.to_ascii_lowercase() } else { String::with_capacity(text.len()) },
            list: Vec::with_capacity(chars.len() / 4),
        };
        let mut at = 0;
        // Whether a word at `at` begins a sentence, so that its capital says nothing.
        let mut is_first = true;
        while let Some(c) = chars.get(at).copied() {
            let next = at.saturating_add(1);
            if c == ' ' {
                at = next; // the most frequent character, which is in no token and begins no sentence
                continue;
            }
            let folded = words.folded.len();
            let rest = chars.get(at..).unwrap_or_default();
            at = match class(c) {
                Class::Letter if is_mark(c) => next,
                Class::Letter if c != 'ー' => {
                    let length = if is_ascii {
                        let rest = text.bytes().skip(at);
                        rest.take_while(u8::is_ascii_alphabetic).count()
                    } else {
                        rest.iter().take_while(|c| is_of_word(**c)).count()
                    };
                    let is_command = at.checked_sub(1).and_then(|before| chars.get(before)) == Some(&'\\');
                    if !is_command {
                        words.push_word(at, rest.get(..length).unwrap_or_default(), is_first, is_ascii);
                    }
                    is_first = false;
                    at.saturating_add(length.max(1))
                }
                Class::Letter => next,
                Class::Spaceless => {
                    words.folded.push(c);
                    words.push(Kind::Character, (at, next), folded, false);
                    is_first = false;
                    next
                }
                Class::Digit(_) => {
                    let (number, length) = read_number(rest);
                    for reading in number.readings() {
                        let (end, folded) = (at.saturating_add(length), words.folded.len());
                        words.folded.push_str(reading);
                        words.push(Kind::Number, (at, end), folded, false);
                    }
                    is_first = false;
                    at.saturating_add(length.max(1))
                }
                Class::RaisedDigit(_) => {
                    let mut end = at;
                    while let Some(Class::RaisedDigit(digit)) = chars.get(end).map(|c| class(*c)) {
                        words.folded.push(char::from(b'0'.saturating_add(digit)));
                        end = end.saturating_add(1);
                    }
                    words.push(Kind::Number, (at, end), folded, false);
                    end
                }
                Class::Other => {
                    if matches!(c, '%' | '٪' | '％') {
                        words.folded.push('%');
                        words.push(Kind::Word, (at, next), folded, false);
                    } else if let Some(value) = fraction(c) {
                        words.folded.push_str(value);
                        words.push(Kind::Number, (at, next), folded, false);
                    }
                    is_first = is_first && !matches!(c, ',' | '-')
                        || matches!(
                            c,
                            '.' | '!'
                                | '?'
                                | ':'
                                | '\n'
                                | '…'
                                | '•'
                                | '„'
                                | '“'
                                | '«'
                                | '"'
                                | '¿'
                                | '¡'
                                | ';'
                        );
                    next
                }
            };
        }
        words.chars = chars;
        words
    }

    /// Reads a text, and looks each word up among the frequent ones: once, because a look-up is half of the work of a check.
    pub(super) fn with_languages(text: &str) -> Self {
        let mut words = Self::of(text);
        words.read_languages(usize::MAX);
        words
    }

    /// Looks the words before a place up among the frequent ones.
    fn read_languages(&mut self, end: usize) {
        for token in self.list.iter_mut().take_while(|token| token.at < end) {
            if token.kind == Kind::Word {
                let word = self.folded.get(token.folded.0..token.folded.1).unwrap_or_default();
                token.languages = languages_of(word);
            }
        }
    }

    /// Reads a range of characters on its own, where one of its ends is within a token: a number with spaces in a sentence over
    /// the limit.
    pub(super) fn divided(&self, start: usize, end: usize) -> Option<Self> {
        let before = |at| self.between(0, at).last();
        let is_within = |at| before(at).is_some_and(|token| token.end > at);
        (is_within(start) || is_within(end))
            .then(|| Self::of(&self.chars.get(start..end).unwrap_or_default().iter().collect::<String>()))
    }

    /// Returns the tokens that begin in a range of characters.
    pub(super) fn between(&self, start: usize, end: usize) -> &[Token] {
        let place = |at| self.list.partition_point(|token| token.at < at);
        self.list.get(place(start)..place(end)).unwrap_or_default()
    }

    /// Returns the folded form of a token.
    pub(super) fn text(&self, token: &Token) -> &str {
        self.folded.get(token.folded.0..token.folded.1).unwrap_or_default()
    }

    fn push_word(&mut self, at: usize, word: &[char], is_first: bool, is_ascii: bool) {
        let capitals = word.iter().take(2).take_while(|c| is_upper_case(**c)).count();
        let is_name = capitals == 2 || capitals == 1 && !is_first;
        let end = at.saturating_add(word.len());
        if is_ascii {
            let folded = (at, end);
            self.list.push(Token { kind: Kind::Word, at, end, is_name, languages: "", folded });
            return;
        }
        let folded = self.folded.len();
        word.iter().for_each(|c| push_folded(&mut self.folded, *c));
        self.push(Kind::Word, (at, end), folded, is_name);
    }

    /// Adds a token of what was appended to the folded text since it ended at `start`, if anything was.
    fn push(&mut self, kind: Kind, (at, end): (usize, usize), start: usize, is_name: bool) {
        let start = start.saturating_add(article_length(self.folded.get(start..).unwrap_or_default()));
        if start < self.folded.len() {
            let folded = (start, self.folded.len());
            self.list.push(Token { kind, at, end, is_name, languages: "", folded });
        }
    }
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphabetic() || !c.is_ascii() && (class(c) == Class::Letter || is_mark(c))
}

/// Whether the first letter may be Arabic: of the characters U+0600 to U+067F.
pub(super) const fn is_arabic(word: &str) -> bool {
    matches!(word.as_bytes(), [0xd8 | 0xd9, ..])
}

/// Returns the bytes of the Arabic article, with the conjunction or preposition before it, where a word of two letters or more is
/// left.
fn article_length(word: &str) -> usize {
    if !is_arabic(word) {
        return 0;
    }
    let articles = ["ال", "وال", "بال", "فال", "كال", "لل", "ولل"];
    let mut rests = articles.iter().filter_map(|article| word.strip_prefix(*article));
    let rest = rests.find(|rest| rest.chars().nth(1).is_some());
    rest.map_or(0, |rest| word.len().saturating_sub(rest.len()))
}

/// Returns the value of a fraction that is one character.
const fn fraction(c: char) -> Option<&'static str> {
    Some(match c {
        '½' => "0.5",
        '¼' => "0.25",
        '¾' => "0.75",
        '⅕' => "0.2",
        '⅖' => "0.4",
        '⅗' => "0.6",
        '⅘' => "0.8",
        '⅛' => "0.125",
        '⅜' => "0.375",
        '⅝' => "0.625",
        '⅞' => "0.875",
        '⅓' => "1/3",
        '⅔' => "2/3",
        _ => return None,
    })
}
