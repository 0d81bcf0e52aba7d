//! The marks around the reasoning of a model, where the server sends the reasoning as content.
//!
//! Not for: the content between them ([`super::candidate_reader`] ignores it).

/// The parts of the names of reasoning elements, in upper or lower case: `<think>` (DeepSeek R1, Qwen 3, GLM, MiniMax and
/// most others), `<thought>` (EXAONE, Gemini), `<seed:think>`, `<longcat_think>`, `<|thinking|>`, `<reasoning>`, `<reflection>`.
const NAMES: [&str; 6] = ["think", "thought", "reason", "reflect", "analysis", "scratchpad"];

/// The longest name, and the longest rest of a tag, in bytes.
const NAME_BYTES_MAX: usize = 32;

/// Other marks at which reasoning begins and ends, and their models; in upper or lower case.
const BLOCKS: &[(&str, &str)] = &[
    ("[THINK]", "[/THINK]"),                             // Magistral
    ("\u{25c1}think\u{25b7}", "\u{25c1}/think\u{25b7}"), // Kimi
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"), // Command
    ("<|inner_prefix|>", "<|inner_suffix|>"),   // Apertus
    ("<|channel>", "<channel|>"),               // Gemma 4
    // gpt-oss: all channels but the last are reasoning, or calls.
    ("<|channel|>", "<|channel|>final"),
    // The same where the server has removed the marks and left their names.
    ("assistantanalysis", "assistantfinal"),
    ("Here is my thought process:", "Here is my response:"), // Granite
];

/// A mark in content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Reasoning begins, and lasts until `end`.
    Begin {
        /// Bytes of the mark.
        length: usize,
        /// The end mark; `None`: the end tag of any element of reasoning.
        end: Option<&'static str>,
    },
    /// Reasoning ends.
    End {
        /// Bytes of the mark.
        length: usize,
    },
}

/// Returns the mark that this text begins with.
#[must_use]
pub fn tag_at(text: &[u8]) -> Option<Tag> {
    // Most bytes begin no mark.
    if !matches!(text.first(), Some(b'<' | b'[' | b'a' | b'A' | b'h' | b'H' | 0xE2)) {
        return None;
    }
    let end =
        BLOCKS.iter().find(|(_, end)| begins_with(text, end)).map(|(_, end)| Tag::End { length: end.len() });
    let begin = || {
        let (begin, end) = BLOCKS.iter().find(|(begin, _)| begins_with(text, begin))?;
        Some(Tag::Begin { length: begin.len(), end: Some(end) })
    };
    end.or_else(begin).or_else(|| element_at(text))
}

/// Returns the tag of an element of reasoning: `<think>`, `<think type="x">`, `</think>`, `<|thinking|>`.
fn element_at(text: &[u8]) -> Option<Tag> {
    let rest = text.strip_prefix(b"<")?;
    let rest = rest.strip_prefix(b"|").unwrap_or(rest);
    let name = rest.strip_prefix(b"/").unwrap_or(rest);
    let is_of_name = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-');
    let (name, after) = name.split_at(name.iter().take(NAME_BYTES_MAX).take_while(is_of_name).count());
    if !matches!(after.first(), Some(b'>' | b'|' | b' ')) {
        return None;
    }
    let close = after.iter().take(NAME_BYTES_MAX).position(|byte| matches!(byte, b'>' | b'<' | b'\n'))?;
    if after.get(close) != Some(&b'>') {
        return None;
    }
    if !NAMES
        .iter()
        .any(|word| (0..name.len()).any(|at| name.get(at..).is_some_and(|rest| begins_with(rest, word))))
    {
        return None;
    }
    let length = text.len().saturating_sub(after.len()).saturating_add(close).saturating_add(1);
    Some(if rest.starts_with(b"/") { Tag::End { length } } else { Tag::Begin { length, end: None } })
}

/// Returns the offset after the end of an open block, or the end of the text where the block has no end.
#[must_use]
pub fn end_of_block(text: &[u8], end: Option<&str>) -> usize {
    let end_at = |at: usize| {
        let rest = text.get(at..).unwrap_or_default();
        let length = match (end, rest.first()) {
            (Some(end), _) => begins_with(rest, end).then_some(end.len()),
            (None, Some(b'<')) => match element_at(rest) {
                Some(Tag::End { length }) => Some(length),
                _ => None,
            },
            (None, _) => None,
        };
        length.map(|length| at.saturating_add(length))
    };
    (0..text.len()).find_map(end_at).unwrap_or(text.len())
}

fn begins_with(text: &[u8], mark: &str) -> bool {
    text.get(..mark.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(mark.as_bytes()))
}
