//! The marks around the reasoning of a model, where the server sends the reasoning as content.
//!
//! Not for: the content between them ([`super::candidate_reader`] ignores it).

/// How reasoning begins and ends, and whose reasoning; in upper or lower case.
const BLOCKS: &[(&str, &str)] = &[
    ("<think>", "</think>"), // DeepSeek R1, Qwen 3, GLM, MiniMax and most others
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"), // EXAONE, Gemini
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<reason>", "</reason>"),
    ("<reflection>", "</reflection>"),
    ("<analysis>", "</analysis>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<seed:think>", "</seed:think>"), // Seed-OSS
    ("<longcat_think>", "</longcat_think>"),
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
        /// What ends it.
        end: &'static str,
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
    // Most bytes begin none.
    if !matches!(text.first(), Some(b'<' | b'[' | b'a' | b'A' | b'h' | b'H' | 0xE2)) {
        return None;
    }
    let end =
        BLOCKS.iter().find(|(_, end)| begins_with(text, end)).map(|(_, end)| Tag::End { length: end.len() });
    end.or_else(|| {
        let (begin, end) = BLOCKS.iter().find(|(begin, _)| begins_with(text, begin))?;
        Some(Tag::Begin { length: begin.len(), end })
    })
}

/// Returns the offset after the end of a block that has begun; that of the end of the text where the block has none.
#[must_use]
pub fn end_of_block(text: &[u8], end: &str) -> usize {
    let at = (0..text.len()).find(|at| text.get(*at..).is_some_and(|rest| begins_with(rest, end)));
    at.map_or(text.len(), |at| at.saturating_add(end.len()))
}

fn begins_with(text: &[u8], mark: &str) -> bool {
    text.get(..mark.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(mark.as_bytes()))
}
