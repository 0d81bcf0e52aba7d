//! Reads the candidates of an answer from the model's content, in one pass.
//!
//! ```text
//! {"candidates":[…   ```json …   begins with JSON or a code fence: each candidate is reported at its closing brace
//!                                the first root with a candidate is the answer; single objects may follow each other
//! <think>…           Sure! …     begins with anything else: read to its end, then reported: the last list with
//!                                valid candidates, or the single objects if there is none; content in reasoning
//!                                tags or in a channel other than `final` is ignored
//! ```
//! Content is not joined over a gap (missing content): the open candidate is dropped, and the search continues after the gap.
//!
//! Not for: finding candidates in JSON ([`super::candidate_finder`]). The caller decides which
//! candidates it accepts.

use super::candidate::Found;
use super::candidate_finder::{CandidateFinder, Event, Root};
use super::reasoning::{Tag, end_of_block, tag_at};
use crate::json::Brackets;

/// The longest content. Twenty candidates have some 8 KB; longer content is from a model that repeats itself.
pub const CONTENT_BYTES_MAX: usize = 1024 * 1024;

/// Receives each candidate; returns whether it was accepted.
pub type OnFound<'a> = dyn FnMut(Found) -> bool + 'a;

/// The state between two chunks of content.
#[derive(Debug, Default)]
pub struct CandidateReader {
    reads: Reads,
    content_bytes: usize,
    answer: Answer,
}

/// When candidates are reported.
#[derive(Debug)]
enum Reads {
    /// Undecided; contains the first bytes, without white space before them.
    Unknown(Vec<u8>),
    AsItComes(CandidateFinder),
    AtTheEnd(Held),
}

impl Default for Reads {
    fn default() -> Self {
        Self::Unknown(Vec::new())
    }
}

/// Content that is read at its end.
#[derive(Debug, Default)]
struct Held {
    content: Vec<u8>,
    /// The offsets of the gaps.
    gaps: Vec<usize>,
    brackets: Brackets,
}

/// The reported candidates, and the state of the JSON around them.
#[derive(Debug, Default)]
struct Answer {
    /// Whether any candidate was accepted, in any root.
    has_candidate: bool,
    /// Whether a candidate of the open root was accepted.
    root_has_candidate: bool,
    has_gap: bool,
    is_closed: bool,
    /// A root with candidates was not closed, and never will be.
    is_cut: bool,
    /// The rest of the content is ignored.
    is_over: bool,
}

impl CandidateReader {
    /// Processes the next bytes of content. The first root with an accepted candidate is the answer; roots before it (an
    /// example, an empty try) are not.
    pub fn push(&mut self, chunk: &[u8], on_found: &mut OnFound<'_>) {
        let left = CONTENT_BYTES_MAX.saturating_sub(self.content_bytes);
        let chunk = chunk.get(..left).unwrap_or(chunk);
        self.content_bytes = self.content_bytes.saturating_add(chunk.len());
        match &mut self.reads {
            Reads::Unknown(begin) => {
                begin.extend_from_slice(if begin.is_empty() { chunk.trim_ascii_start() } else { chunk });
                let begin = std::mem::take(begin);
                match begins_with_json(&begin) {
                    None => self.reads = Reads::Unknown(begin),
                    Some(true) => {
                        let mut finder = CandidateFinder::default();
                        self.answer.push(&mut finder, &begin, on_found);
                        self.reads = Reads::AsItComes(finder);
                    }
                    Some(false) => {
                        let mut held = Held::default();
                        held.push(&begin);
                        self.reads = Reads::AtTheEnd(held);
                    }
                }
            }
            Reads::AsItComes(finder) => self.answer.push(finder, chunk, on_found),
            Reads::AtTheEnd(held) => held.push(chunk),
        }
    }

    /// Marks a gap: content is missing here.
    pub fn skip(&mut self) {
        self.answer.has_gap = true;
        match &mut self.reads {
            Reads::Unknown(begin) => begin.clear(),
            Reads::AsItComes(finder) => {
                self.answer.is_cut |= !finder.is_in_prose() && !self.answer.is_over;
                self.answer.is_closed &= self.answer.is_over;
                self.answer.root_has_candidate = false;
                finder.reset();
            }
            Reads::AtTheEnd(held) => {
                held.gaps.push(held.content.len());
                held.brackets = Brackets::default();
            }
        }
    }

    /// Marks a gap if a candidate may be open: at an event without content, or with unreadable content. Elsewhere a gap would
    /// only drop complete candidates.
    pub fn skip_within_candidate(&mut self) {
        let is_in_candidate = match &self.reads {
            Reads::Unknown(_) => false,
            Reads::AsItComes(finder) => finder.is_in_candidate(),
            Reads::AtTheEnd(held) => held.brackets.is_in_text(),
        };
        if is_in_candidate {
            self.skip();
        }
    }

    /// Ends the content, and reports the candidates that are reported only at the end.
    pub fn finish(&mut self, on_found: &mut OnFound<'_>) {
        if let Reads::AtTheEnd(held) = &mut self.reads {
            std::mem::take(held).report(&mut self.answer, on_found);
        }
    }

    /// Whether the JSON was closed: the answer is complete then, at any end of the stream.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.answer.is_closed && !self.answer.is_cut && !self.is_open()
    }

    /// Whether more roots may follow a closed one: a single object may be the first of several.
    #[must_use]
    pub const fn may_continue(&self) -> bool {
        !self.answer.is_over
    }

    /// Whether JSON is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match &self.reads {
            Reads::Unknown(_) => false,
            Reads::AsItComes(finder) => !self.answer.is_over && !finder.is_in_prose(),
            Reads::AtTheEnd(held) => held.brackets.is_open(),
        }
    }

    /// Whether there was any content but white space.
    #[must_use]
    pub const fn is_begun(&self) -> bool {
        match &self.reads {
            Reads::Unknown(begin) => !begin.is_empty(),
            Reads::AsItComes(_) | Reads::AtTheEnd(_) => true,
        }
    }

    /// Whether a candidate was accepted.
    #[must_use]
    pub const fn has_candidate(&self) -> bool {
        self.answer.has_candidate
    }

    /// Whether [`CONTENT_BYTES_MAX`] is reached: the rest is ignored.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.content_bytes >= CONTENT_BYTES_MAX
    }
}

/// The most white space between the bracket of a list and its first item, in content that begins with it: more is kept until the
/// end, so that each chunk is read once.
const SPACES_MAX: usize = 256;

/// Whether content begins as JSON or a code fence does; `None` when it is too short to decide. A bracket alone may begin a tag
/// (`[THINK]`), and a quote a quotation.
fn begins_with_json(content: &[u8]) -> Option<bool> {
    let (first, rest) = content.split_first()?;
    match first {
        b'{' => Some(true),
        // A fence has three.
        b'`' | b'~' => match rest.iter().take(2).take_while(|byte| *byte == first).count() {
            2 => Some(true),
            count if count == rest.len() => None,
            _ => Some(false),
        },
        b'[' => {
            let spaces = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
            if spaces > SPACES_MAX {
                return Some(false);
            }
            rest.get(spaces).map(|next| matches!(next, b'{' | b'[' | b'"' | b']'))
        }
        b'"' => rest.first().map(|next| matches!(next, b'{' | b'[' | b'\\')),
        _ => Some(false),
    }
}

impl Answer {
    fn push(&mut self, finder: &mut CandidateFinder, chunk: &[u8], on_found: &mut OnFound<'_>) {
        if self.is_over {
            return;
        }
        finder.push(chunk, &mut |event| match event {
            _ if self.is_over => {}
            Event::Found(found) => {
                let is_taken = on_found(found);
                self.root_has_candidate |= is_taken;
                self.has_candidate |= is_taken;
            }
            Event::Closed(root) => self.close(root),
            Event::Abandoned => self.is_cut |= std::mem::take(&mut self.root_has_candidate),
        });
    }

    fn close(&mut self, root: Root) {
        match (root, std::mem::take(&mut self.root_has_candidate)) {
            (Root::List, true) => {
                self.is_closed = true;
                self.is_over = true;
            }
            (Root::Single, true) => self.is_closed = !self.has_gap,
            (Root::Other, _) => {}
            // A root without a candidate is an answer, too, as long as no better one follows.
            _ => self.is_closed |= !self.has_candidate,
        }
    }
}

impl Held {
    fn push(&mut self, chunk: &[u8]) {
        self.content.extend_from_slice(chunk);
        self.brackets.push(chunk);
    }

    /// Reports the last list with valid candidates.
    fn report(self, answer: &mut Answer, on_found: &mut OnFound<'_>) {
        let mut lists = self.read();
        lists.cut();
        let (found, is_closed) = match (lists.list, lists.singles) {
            (Some((list, is_closed)), _) => (list, is_closed),
            (None, singles) if !singles.is_empty() => (singles, !answer.has_gap),
            _ => (Vec::new(), lists.has_empty),
        };
        for found in found {
            answer.has_candidate |= on_found(found);
        }
        answer.is_closed = is_closed;
        answer.is_over = true;
    }

    /// Reads the content without the reasoning in it.
    fn read(&self) -> Lists {
        let mut lists = Lists::default();
        let mut finder = CandidateFinder::default();
        let mut gaps = self.gaps.iter().copied().peekable();
        let mut read = |from: usize, to: usize, finder: &mut CandidateFinder, lists: &mut Lists| {
            let mut from = from;
            while let Some(gap) = gaps.next_if(|gap| *gap <= to) {
                let gap = gap.max(from);
                finder
                    .push(self.content.get(from..gap).unwrap_or_default(), &mut |event| lists.receive(event));
                finder.reset();
                lists.cut();
                from = gap;
            }
            finder.push(self.content.get(from..to).unwrap_or_default(), &mut |event| lists.receive(event));
        };
        let (mut from, mut at) = (0_usize, 0_usize);
        while let Some(rest) = self.content.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(tag) = tag_at(rest) else {
                at = at.saturating_add(1);
                continue;
            };
            read(from, at, &mut finder, &mut lists);
            from = at;
            let after = |length: usize| rest.get(length..).unwrap_or_default();
            match tag {
                Tag::Begin { length, end } if finder.is_in_prose() => {
                    let block = end_of_block(after(length), end);
                    at = at.saturating_add(length).saturating_add(block);
                    from = at;
                }
                // The request contained the begin mark: all content before is reasoning.
                Tag::End { length } if !finder.is_in_text() || begins_an_answer(after(length)) => {
                    finder.reset();
                    lists = Lists::default();
                    at = at.saturating_add(length);
                    from = at;
                }
                _ => at = at.saturating_add(1),
            }
        }
        read(from, self.content.len(), &mut finder, &mut lists);
        lists
    }
}

/// Whether this can follow the end of reasoning, and not the same words in a string of a candidate.
fn begins_an_answer(text: &[u8]) -> bool {
    matches!(text, [] | [b'\n' | b'\r' | b'{' | b'[', ..] | [b'`', b'`', b'`', ..])
}

/// The findings in content that is read at its end.
#[derive(Debug, Default)]
struct Lists {
    /// The findings of the open root.
    open: Vec<Found>,
    /// The last list with a valid candidate, and whether it was closed.
    list: Option<(Vec<Found>, bool)>,
    /// The findings outside of lists.
    singles: Vec<Found>,
    has_empty: bool,
}

impl Lists {
    fn receive(&mut self, event: Event) {
        match event {
            Event::Found(found) => self.open.push(found),
            Event::Abandoned => self.cut(),
            Event::Closed(root) => {
                let found = std::mem::take(&mut self.open);
                let has_valid = found.iter().any(Result::is_ok);
                match root {
                    Root::List if has_valid => self.list = Some((found, true)),
                    Root::Single if has_valid => self.singles.extend(found),
                    Root::Other => {}
                    _ => self.has_empty = true,
                }
            }
        }
    }

    /// Ends an open root that will not be closed.
    fn cut(&mut self) {
        let found = std::mem::take(&mut self.open);
        if found.iter().any(Result::is_ok) {
            self.list = Some((found, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the fronts of the reported candidates, and whether the answer was closed. `~` represents a gap.
    fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, bool) {
        let mut fronts = Vec::new();
        let mut reader = CandidateReader::default();
        let mut take = |found: Found| {
            let is_valid = found.is_ok();
            fronts.extend(found.map(|candidate| candidate.front));
            is_valid
        };
        for chunk in chunks {
            for (number, part) in chunk.split(|byte| *byte == b'~').enumerate() {
                if number > 0 {
                    reader.skip();
                }
                reader.push(part, &mut take);
            }
        }
        reader.finish(&mut take);
        let is_closed = reader.is_closed();
        assert_eq!(reader.has_candidate(), !fronts.is_empty());
        (fronts, is_closed)
    }

    /// Replaces `A`, `B` and `D` by candidates, and `E` by the example of the prompt.
    fn with_candidates(content: &str) -> String {
        let candidate = |front: &str| format!(r#"{{"front":"{front}","back":"b","prompt":"p"}}"#);
        let example = r#"{"front":"...","back":"...","prompt":"..."}"#;
        content
            .replace('E', example)
            .replace('A', &candidate("a"))
            .replace('B', &candidate("b"))
            .replace('D', &candidate("d"))
    }

    const CONTENTS: &[(&str, &[&str], bool)] = &[
        // Reported at once.
        (r#"{"candidates":[A,B]}"#, &["a", "b"], true),
        ("```json\n[A,B]\n```\nor [D]?", &["a", "b"], true),
        (r#"{"candidates":[A,B]} {"candidates":[D]}"#, &["a", "b"], true),
        (r#"{"candidates":[]} {"candidates":[E]} {"candidates":[A]}"#, &["a"], true),
        (r#"{"candidates":[]}"#, &[], true),
        (r#"{"candidates":[ ]} {"candidates":["#, &[], false),
        (r#"{"candidates":[A,B]"#, &["a", "b"], false),
        (r#"{"candidates":[A] oops {"x":[]}"#, &["a"], false),
        (r#"{"candidates":[A] oops {"x":[B]}"#, &["a", "b"], false),
        (r#"{"c":"[{\"front\":\"a\",\"back\":\"b\",\"prompt\":\"p\"},{\"fr"}"#, &["a"], false),
        (r#"So: {"c":"[{\"front\":\"a\",\"back\":\"b\",\"prompt\":\"p\"},{\"fr"}"#, &["a"], false),
        (r#""{\"front\":\"a\",\"back\":\"b\",\"prompt\":\"p\"}""#, &["a"], true),
        // A form feed is no white space of JSON.
        ("[\u{c}[A], 5]", &["a"], true),
        ("[ \u{c}\u{c}[ {\"f\":\"a\"}, 5 ]", &[], true),
        ("[ \n\t A]", &["a"], true),
        // Single objects.
        ("A", &["a"], true),
        ("A\nB\nD", &["a", "b", "d"], true),
        (r#"A {"front":"b","#, &["a"], false),
        ("```json\nA\n```\nand\n```json\nB\n```", &["a", "b"], true),
        // Reported at the end.
        ("`front`, as in [A], or [B].", &["b"], true),
        ("Sure! [A] Or better: [B,D]. Well?", &["b", "d"], true),
        ("Sure! [A] Or [E] or [] or [7].", &["a"], true),
        (r#"so: {"candidates":[E]}: {"candidates":[A]}"#, &["a"], true),
        ("Sure! [A] Or better: [B,", &["b"], false),
        ("Sure! [A] Or better: [", &["a"], true),
        ("Sure:\nA\nB", &["a", "b"], true),
        ("Sure: A, that is [B,D]; A again", &["b", "d"], true),
        ("I cannot help with that.", &[], false),
        ("I have none: []", &[], true),
        // Reasoning.
        ("<think>\n[A]\n</think>\n[B]", &["b"], true),
        ("<think>\n```json\n[A]\n```\n</think>```json\n[B]\n```", &["b"], true),
        ("<think>\n[A]\n</think>\nSorry.", &[], false),
        ("<think>\n[A]\n", &[], false),
        ("<THINKING>[A]</THINKING><reflection>[D]</reflection>[B]", &["b"], true),
        ("<think></think>A", &["a"], true),
        ("<|thinking|>{\"a\":[A<|/thinking|>[B]", &["b"], true),
        ("<inner_thoughts>A\n</inner_thoughts>B", &["b"], true),
        ("<think type=\"x\">it's {\"</think >\n<reflection>[A]</reflection>[B]", &["b"], true),
        ("Sure: <b>[A]</b> <think/>", &["a"], true),
        ("Okay, so [A]\n</think>\n[B]", &["b"], true),
        (r#"Okay, so {"candidates":[{"front":"half</think>[B]"#, &["b"], true),
        ("Okay, so [A]</think>No.", &[], false),
        ("[THINK]{\"a\":[A]}[/THINK]{\"a\":[B]}", &["b"], true),
        ("\u{25c1}think\u{25b7}[A]\u{25c1}/think\u{25b7}[B]", &["b"], true),
        (
            "<|begin_of_thought|>[A]<|end_of_thought|><|begin_of_solution|>[B]<|end_of_solution|>",
            &["b"],
            true,
        ),
        ("<seed:think>it's {\"</seed:think>[B]", &["b"], true),
        ("<|channel>thought\n[A]<channel|>[B]", &["b"], true),
        ("<reasoning>[A]</reasoning>\n<answer>[B]</answer>", &["b"], true),
        (
            "<|channel|>analysis<|message|>[A]<|end|><|start|>assistant<|channel|>final<|message|>[B]<|return|>",
            &["b"],
            true,
        ),
        (
            "<|channel|>final<|message|>[B]<|end|><|start|>assistant<|channel|>analysis<|message|>[A]",
            &["b"],
            true,
        ),
        ("<|channel|>analysis<|message|>[A]<|end|>", &[], false),
        ("<|channel|>commentary to=functions.x <|constrain|>json<|message|>[A]<|call|>", &[], false),
        ("analysisWe need [A]. Done.assistantfinal[B]", &["b"], true),
        // Reasoning marks within a candidate are its text.
        (
            r#"Sure: [{"front":"What does </think> do?","back":"<think>","prompt":"p"}]"#,
            &["What does </think> do?"],
            true,
        ),
        (r#"[{"front":"<think>","back":"</think>\n[","prompt":"p"},A]"#, &["<think>", "a"], true),
        // With a gap.
        ("[A,~,B]", &["a", "b"], false),
        (r#"[A,{"front":"x","back":"~y","prompt":"p"},B]"#, &["a", "b"], false),
        ("[A,B]~", &["a", "b"], true),
        ("~[A,B]", &["a", "b"], true),
        ("~,A]}", &["a"], false),
        ("A~", &["a"], false),
        (r#"Sure: [A,{"front":"x","back":"~y","prompt":"p"},B]"#, &["a"], false),
        ("Sure: [A~,B] [D]", &["d"], true),
    ];

    #[test]
    fn the_answer_is_found_in_all_that_models_write() {
        for (content, fronts, is_closed) in CONTENTS {
            let content = with_candidates(content);
            let (found, closed) = read([content.as_bytes()]);
            assert_eq!(
                (found.iter().map(String::as_str).collect(), closed),
                (fronts.to_vec(), *is_closed),
                "{content}"
            );
        }
    }

    #[test]
    fn the_answer_is_read_across_any_chunk_border() {
        for (content, _, _) in CONTENTS {
            let content = with_candidates(content);
            let whole = read([content.as_bytes()]);
            for size in 1..=content.len() {
                assert_eq!(read(content.as_bytes().chunks(size)), whole, "{content} by {size}");
            }
        }
    }

    #[test]
    fn a_candidate_is_reported_at_its_closing_brace() {
        for (content, ends) in [
            ("```json\n{\"candidates\":[A,B]}", [60, 98]),
            ("~~~\n[A,B]", [42, 80]),
            (
                r#"{"candidates":"[{\"front\":\"a\",\"back\":\"b\",\"prompt\":\"p\"},{\"front\":\"b\",\"back\":\"b\",\"prompt\":\"p\"}]"}"#,
                [65, 115],
            ),
        ] {
            let content = with_candidates(content);
            let mut reader = CandidateReader::default();
            let mut count = 0;
            for (at, byte) in content.bytes().enumerate() {
                reader.push(&[byte], &mut |_| {
                    count += 1;
                    true
                });
                assert_eq!(count, ends.iter().filter(|end| **end <= at + 1).count(), "{content} at {at}");
                assert_eq!(reader.is_closed(), at + 1 == content.len());
            }
        }
    }

    #[test]
    fn unreadable_content_drops_only_the_open_candidate() {
        for (before, after, fronts, is_closed) in [
            ("[A", ",B]", &["a", "b"][..], true),
            ("", "[A]", &["a"], true),
            ("[A]", "", &["a"], true),
            (r#"[A,{"front":"in 19"#, r#"","back":"b","prompt":"p"},B]"#, &["a", "b"], false),
            (r#"[A,{"front":"x","#, r#""back":"b","prompt":"p"},B]"#, &["a", "b"], false),
            (r#"Sure: [A,{"front":"in 19"#, r#"","back":"b","prompt":"p"},B]"#, &["a"], false),
            ("Sure: [A", ",B]", &["a", "b"], true),
        ] {
            let mut found = Vec::new();
            let mut take = |candidate: Found| {
                found.extend(candidate.map(|candidate| candidate.front));
                true
            };
            let mut reader = CandidateReader::default();
            reader.push(with_candidates(before).as_bytes(), &mut take);
            reader.skip_within_candidate();
            reader.push(with_candidates(after).as_bytes(), &mut take);
            reader.finish(&mut take);
            let is_whole = reader.is_closed();
            assert_eq!(
                (found.iter().map(String::as_str).collect::<Vec<_>>(), is_whole),
                (fronts.to_vec(), is_closed),
                "{before}"
            );
        }
    }

    #[test]
    fn content_beyond_the_limit_is_ignored() {
        for begin in ["[", "Sure: ["] {
            let mut reader = CandidateReader::default();
            let mut count = 0;
            let mut take = |_: Found| {
                count += 1;
                true
            };
            let a = with_candidates("A");
            reader.push(begin.as_bytes(), &mut take);
            reader.push(&vec![b' '; CONTENT_BYTES_MAX - begin.len() - a.len()], &mut take);
            assert!(!reader.is_full());
            reader.push(with_candidates("A,B]").as_bytes(), &mut take);
            assert!(reader.is_full());
            reader.push(with_candidates(",B]").as_bytes(), &mut take);
            reader.finish(&mut take);
            assert!(!reader.is_closed());
            assert_eq!(count, 1);
        }
    }

    proptest! {
        #[test]
        fn no_splitting_changes_the_answer(
            content in proptest::collection::vec(prop_oneof![
                Just("{"), Just("}"), Just("["), Just("]"), Just("\""), Just("\\"), Just(":"), Just(","), Just(" "), Just("x"),
                Just("A"), Just("B"), Just("{\"candidates\":["), Just("]}"), Just("<think>"), Just("</think>"), Just("\n"), Just("~"),
                Just("<|channel|>"), Just("final"), Just("```json\n"), Just("E"), Just("\u{25c1}think\u{25b7}"), Just("Sure: "),
            ], 0..40).prop_map(|parts| with_candidates(&parts.concat())),
            size in 1usize..9,
        ) {
            prop_assert_eq!(read(content.as_bytes().chunks(size)), read([content.as_bytes()]));
        }

        #[test]
        fn the_reader_reads_arbitrary_bytes_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(read([bytes.as_slice()]), read(bytes.chunks(1)));
        }
    }
}
