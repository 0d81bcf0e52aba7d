//! Decodes the escapes of JSON strings, those of servers and those of models. Models often forget to double the
//! backslashes of a formula.
//!
//! ```text
//! written        by a server       by a model
//! \" \\ \/       standard JSON     standard JSON
//! \u00e9         standard JSON     standard JSON; \u without four digits: a backslash (\underline)
//! \b \f          standard JSON     before a letter a backslash (\beta, \frac)
//! \t \n \r       standard JSON     a backslash, if all letters that follow are a TeX command (\theta, \nabla, \rho)
//! \( \s \%       a backslash       a backslash
//! ```
//! Text is bytes: half of a surrogate pair becomes WTF-8 (`super::candidate` joins the halves).

use std::borrow::Cow;

/// The TeX commands that begin with the letter of an escape that text has, too: `\t`, `\n`, `\r`. Commands of plain TeX,
/// LaTeX and amsmath, and a few that many textbooks use (`\tg`, `\num`). No escape of another letter needs a table.
const COMMANDS: &str = "tag tan tanh tau tbinom tensor text textasciitilde textbackslash textbf textcircled textcolor \
textdegree texteuro textgreater textit textless textmd textmu textnormal textrm textsc textsf textsl textstyle \
textsubscript textsuperscript texttt textup tfrac tg th thead therefore theta thetasym thick thickapprox thicksim \
thinspace tilde times tiny tint to top tr trace triangle triangledown triangleleft trianglelefteq triangleq \
triangleright trianglerighteq tt twoheadleftarrow twoheadrightarrow \
nLeftarrow nLeftrightarrow nRightarrow nVDash nVdash nabla natural ncong ne nearrow neg negmedspace negthickspace \
negthinspace neq newcommand newline nexists ngeq ngeqq ngeqslant ngtr ni nleftarrow nleftrightarrow nleq nleqq \
nleqslant nless nmid nobreak nobreakspace noindent nolimits nonumber norm normalfont normalsize not notag notin notni \
nparallel nprec npreceq nrightarrow nshortmid nshortparallel nsim nsubseteq nsubseteqq nsucc nsucceq nsupseteq \
nsupseteqq ntriangleleft ntrianglelefteq ntriangleright ntrianglerighteq nu num nvDash nvdash nwarrow \
raise raisebox rang rangle ratio rbrace rbrack rceil real ref relax restriction rfloor rgroup rho rhook right \
rightangle rightarrow rightarrowtail rightharpoondown rightharpoonup rightleftarrows rightleftharpoons rightrightarrows \
rightsquigarrow rightthreetimes risingdotseq rlap rm rmoustache root rotatebox rtimes rule rvert rVert";

/// The commands whose letters after the `n` are a word of some language: "e", "i", "u", "um", "less". After the end of a word
/// or of a sentence they are read as a line break.
const WORDS_AFTER_A_BREAK: &str = "ne ni nu num nexists nless nmid nparallel";

/// The bytes after a backslash that decide its meaning; no command has as many letters.
const COMMAND_LETTERS_MAX: usize = 32;

/// The author of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Server,
    /// A model that may have forgotten some backslashes.
    Model,
    /// A model that forgot them: `\\` at the end of a formula's row means two backslashes.
    ModelWithoutEscapes,
}

/// The progress of a decoding.
struct Decoded {
    /// Bytes of the input; fewer than all where an escape may continue in the next chunk.
    consumed: usize,
    /// A backslash was found where JSON has none.
    has_formula: bool,
}

/// Decodes a string by a server; borrowed where it has no escape.
#[must_use]
pub fn decode_server_text(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = Vec::with_capacity(raw.len());
    decode(raw, Writer::Server, true, &mut text);
    Cow::Owned(text)
}

/// Decodes a field of a candidate by a model; borrowed where it has no escape.
#[must_use]
pub fn decode_model_text(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = Vec::with_capacity(raw.len());
    if decode(raw, Writer::Model, true, &mut text).has_formula && raw.windows(2).any(|two| two == b"\\\\") {
        text.clear();
        decode(raw, Writer::ModelWithoutEscapes, true, &mut text);
    }
    Cow::Owned(text)
}

/// Decodes JSON within a string by a model, chunk by chunk: appends the decoded text and returns how many bytes of `raw`
/// were decoded. The rest belongs before the next chunk.
pub fn decode_model_chunk(raw: &[u8], text: &mut Vec<u8>) -> usize {
    decode(raw, Writer::Model, false, text).consumed
}

fn decode(raw: &[u8], writer: Writer, is_end: bool, text: &mut Vec<u8>) -> Decoded {
    let mut rest = raw;
    let mut has_formula = false;
    loop {
        let Some((plain, escape)) =
            rest.iter().position(|byte| *byte == b'\\').and_then(|at| rest.split_at_checked(at))
        else {
            text.extend_from_slice(rest);
            return Decoded { consumed: raw.len(), has_formula };
        };
        text.extend_from_slice(plain);
        let after = escape.get(1..).unwrap_or_default();
        let letters =
            after.iter().take(COMMAND_LETTERS_MAX).take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if !is_end && letters < COMMAND_LETTERS_MAX && after.len() <= letters {
            return Decoded { consumed: raw.len().saturating_sub(escape.len()), has_formula };
        }
        let (length, is_formula) = unescape(escape, writer, text);
        has_formula |= is_formula;
        rest = escape.get(length..).unwrap_or_default();
    }
}

/// Appends the value of an escape; returns the bytes of the escape, and whether it is a backslash that JSON does not define.
fn unescape(escape: &[u8], writer: Writer, text: &mut Vec<u8>) -> (usize, bool) {
    let is_model = writer != Writer::Server;
    let after = escape.get(1..).unwrap_or_default();
    let control = match after {
        [b'\\', ..] if writer == Writer::ModelWithoutEscapes => {
            return (push_backslashes(escape, text), false);
        }
        [byte @ (b'"' | b'\\' | b'/'), ..] => Some(*byte),
        [b'b' | b'f', next, ..] if is_model && next.is_ascii_alphabetic() => None,
        [b't' | b'n' | b'r', ..] if is_model && is_command(after, text) => None,
        [b'b', ..] => Some(0x08),
        [b'f', ..] => Some(0x0C),
        [b't', ..] => Some(b'\t'),
        [b'n', ..] => Some(b'\n'),
        [b'r', ..] => Some(b'\r'),
        [b'u', digits @ ..] => {
            if let Some(length) = push_unicode(digits, text) {
                return (length, false);
            }
            None
        }
        _ => None,
    };
    match control {
        Some(byte) => {
            text.push(byte);
            (2, false)
        }
        None => {
            text.push(b'\\');
            (1, !after.is_empty())
        }
    }
}

/// Appends one backslash for each pair; two where a single pair ends a row of a formula, before white space or before the
/// backslash of a command or of a line break. Returns the bytes of the pairs.
fn push_backslashes(escape: &[u8], text: &mut Vec<u8>) -> usize {
    let count = escape.iter().take_while(|byte| **byte == b'\\').count();
    let is_row = count == 3 || (count == 2 && escape.get(2).is_some_and(u8::is_ascii_whitespace));
    let pairs = count / 2;
    text.extend(std::iter::repeat_n(b'\\', if is_row { 2 } else { pairs }));
    pairs.saturating_mul(2)
}

fn is_command(after: &[u8], before: &[u8]) -> bool {
    let is_letter = |byte: &&u8| byte.is_ascii_alphabetic();
    let letters = after.get(..after.iter().take_while(is_letter).count()).unwrap_or_default();
    let is_in = |list: &str| list.split(' ').any(|command| command.as_bytes() == letters);
    is_in(COMMANDS) && !(is_in(WORDS_AFTER_A_BREAK) && ends_a_line(before))
}

/// Whether a line may end here: behind a line break, the end of a sentence, or a word in lower case that is no command.
fn ends_a_line(before: &[u8]) -> bool {
    match before {
        [.., b'\n' | b'\r'] => true,
        [.., b'\\', b'.' | b':' | b'!' | b'?'] => false,
        [.., b'.' | b':' | b'!' | b'?'] => true,
        _ => {
            let is_in_word = |byte: &&u8| byte.is_ascii_lowercase() || !byte.is_ascii();
            let length = before.iter().rev().take_while(is_in_word).count();
            let start = before.len().saturating_sub(length).checked_sub(1);
            let is_of_command = start.and_then(|at| before.get(at)).is_some_and(|byte| *byte == b'\\');
            length >= 2 && !is_of_command
        }
    }
}

/// Appends the character of `\u` and four digits, or of a pair of them; `None` for fewer digits.
fn push_unicode(digits: &[u8], text: &mut Vec<u8>) -> Option<usize> {
    let first = code_unit(digits)?;
    let second = match digits.get(4..) {
        Some([b'\\', b'u', digits @ ..]) => code_unit(digits),
        _ => None,
    };
    if let (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) = (first, second) {
        let c = char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + (low - 0xDC00));
        text.extend_from_slice(c.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut [0; 4]).as_bytes());
        return Some(12);
    }
    match char::from_u32(first) {
        Some(c) => text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        None => {
            let low = |shift: u32| u8::try_from(first >> shift & 0x3F).unwrap_or(0) | 0x80;
            text.extend_from_slice(&[0xED, low(6), low(0)]);
        }
    }
    Some(6)
}

fn code_unit(digits: &[u8]) -> Option<u32> {
    digits
        .first_chunk::<4>()?
        .iter()
        .try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(raw: &str) -> String {
        String::from_utf8(decode_model_text(raw.as_bytes()).into_owned()).expect("it is text")
    }

    #[test]
    fn standard_json_escapes_are_decoded() {
        for (raw, text) in [
            (r#"a\"b\\c\/d"#, "a\"b\\c/d"),
            (r"a\nb\tc\rd", "a\nb\tc\rd"),
            (r"a\b1\f \b", "a\u{8}1\u{c} \u{8}"),
            (r"\u00e9\u00E9\ud83d\ude00\u0000", "\u{e9}\u{e9}\u{1f600}\0"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(text_of(raw), text, "{raw}");
            assert_eq!(decode_server_text(raw.as_bytes()), text.as_bytes(), "{raw}");
        }
        assert_eq!(
            decode_server_text(br"\ud83d \ude00\ud83d\u0041"),
            b"\xED\xA0\xBD \xED\xB8\x80\xED\xA0\xBDA".as_slice()
        );
        assert!(matches!(decode_model_text(b"plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn single_backslashes_of_formulas_are_kept() {
        for formula in [
            r"\frac{1}{2} + \beta",
            r"\theta in \tan\theta",
            r"\boldsymbol{n \rightarrow p + e}",
            r"\nabla f \neq 0",
            r"\(\pi r^2\)",
            r"\sum 1/2^n",
            r"\underline{x} \upsilon \uparrow",
            r"E=h\nu",
            r"x \to 0",
            r"a \ne b",
            r"x\ne y",
            r"\mu,\nu",
            r"g_{\mu\nu}",
            r"\;\nu",
            r"A \ni a",
            r"\nu_1",
            r"AB\parallel CD, EF\nparallel GH",
            r"\rho\times\tau",
            r"\text{if }x",
            r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}",
            r"\hline a \\\hline b",
            r"50\%",
            r"\{1,2\}",
            r"\,",
            r"\cos\nu t",
        ] {
            assert_eq!(text_of(formula), formula);
        }
    }

    #[test]
    fn doubled_backslashes_are_decoded_to_single_ones() {
        for (raw, text) in [
            (r"\\frac{1}{2}", r"\frac{1}{2}"),
            (r"\\(\\frac{3}{4}\\)", r"\(\frac{3}{4}\)"),
            (r"\\theta \\nu \\to", r"\theta \nu \to"),
            (r"a & b \\\\ c", r"a & b \\ c"),
            (r"\u005cfrac \u005Ctheta", r"\frac \theta"),
            (r"\frac and \\theta", r"\frac and \theta"),
            (r"\alpha \\\\ \\beta", r"\alpha \\ \beta"),
        ] {
            assert_eq!(text_of(raw), text, "{raw}");
        }
    }

    #[test]
    fn line_breaks_and_tabs_before_words_stay() {
        for (raw, text) in [
            (r"One.\nThe other", "One.\nThe other"),
            (r"a\ntheir", "a\ntheir"),
            (r"1. a\n2. b\n\nnext", "1. a\n2. b\n\nnext"),
            (r"one\ttwo\r\nthree", "one\ttwo\r\nthree"),
            (r"dom\nu lasu", "dom\nu lasu"),
            (r"domy\ni lasy", "domy\ni lasy"),
            (r"examples:\ne.g. water", "examples:\ne.g. water"),
            (r"one\r\ni two", "one\r\ni two"),
            (r"word\nless", "word\nless"),
            (r"\nand\nnor\nin", "\nand\nnor\nin"),
            (r"\nux", "\nux"),
        ] {
            assert_eq!(text_of(raw), text, "{raw}");
        }
    }

    #[test]
    fn a_server_text_is_decoded_as_standard_json() {
        assert_eq!(decode_server_text(br"\theta\nabla\frac\beta"), b"\theta\nabla\x0Crac\x08eta".as_slice());
        assert_eq!(decode_server_text(br"\x\u12"), br"\x\u12".as_slice());
    }

    proptest! {
        #[test]
        fn text_that_was_escaped_as_json_is_decoded_unchanged(text in any::<String>()) {
            // A line break before the other letters of a command is ambiguous.
            let text = text.replace(['\n', '\t', '\r', '\u{8}', '\u{c}'], " ");
            let json = serde_json::to_string(&text)?;
            prop_assert_eq!(text_of(&json[1..json.len() - 1]), text);
        }

        #[test]
        fn no_border_changes_json_within_a_string(
            parts in proptest::collection::vec(prop_oneof![
                Just("\\"), Just("\\\\"), Just("\\\""), Just("\\n"), Just("theta"), Just("u00e9"), Just("\\ud83d\\ude00"), Just(" "),
                Just("\\frac"), Just("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), Just("{"), Just("\u{e9}"),
            ], 0..20),
            size in 1usize..9,
        ) {
            let raw = parts.concat();
            let read = |size: usize| {
                let (mut held, mut text) = (Vec::new(), Vec::new());
                for chunk in raw.as_bytes().chunks(size.max(1)) {
                    held.extend_from_slice(chunk);
                    let consumed = decode_model_chunk(&held, &mut text);
                    held.drain(..consumed);
                }
                (String::from_utf8_lossy(&text).into_owned(), held)
            };
            // Separated halves of a pair are joined later.
            prop_assume!(!raw.contains("ud83d"));
            prop_assert_eq!(read(size), read(raw.len()));
        }
    }
}
