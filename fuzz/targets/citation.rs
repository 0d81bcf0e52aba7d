//! The check of cards against a text: any text, any cards, any numbers of sentences.
//!
//! The input is the text, then the front, the back and the numbers (JSON) of each card, separated by the byte 0x1e.
#![no_main]

use ai_sessions::citation::check::{Checker, NAMED_MAX, Note, SENTENCES_MAX, read_numbers};
use ai_sessions::citation::sentences::{Passage, Sentences};
use ai_sessions::input::sanitize::sanitize;

/// The most cards of an input, so that none is slow.
const CARDS_MAX: usize = 8;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|byte| *byte == 0x1e);
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let text = sanitize(&text);
    let characters = text.chars().count();
    let sentences = Sentences::of(&text);
    let passages: Vec<Passage> = sentences.passages().collect();
    assert_eq!(passages.len(), sentences.count());
    let mut end = 0;
    for passage in &passages {
        assert!(end <= passage.start && passage.start < passage.end && passage.end <= characters);
        end = passage.end;
    }
    assert_eq!(sentences.coverage_percent(&[]), 0);
    assert_eq!(sentences.coverage_percent(&passages), if passages.is_empty() { 0 } else { 100 });

    let rest: Vec<&[u8]> = parts.take(3 * CARDS_MAX).collect();
    let mut checker = Checker::new(&text, &sentences);
    let mut before: Vec<[String; 2]> = Vec::new();
    let (mut sources, mut coverage) = (Vec::new(), 0);
    for card in rest.chunks(3) {
        let part = |index: usize| card.get(index).copied().unwrap_or_default();
        let [front, back] = [0, 1].map(|index| String::from_utf8_lossy(part(index)).into_owned());
        let named = read_numbers(part(2));
        assert!(named.len() <= NAMED_MAX);

        let citation = checker.check(&front, &back, &named);
        let existing = || named.iter().filter(|number| (1..=passages.len()).contains(*number)).copied();
        let ends =
            existing().min().zip(existing().max()).filter(|(first, last)| last - first < SENTENCES_MAX);
        let source = ends
            .map(|(first, last)| Passage { start: passages[first - 1].start, end: passages[last - 1].end });
        assert_eq!(citation.source, source, "of {named:?}");
        assert_eq!(citation.supported.is_some(), source.is_some());
        let notes = Note::ALL.into_iter().filter(|note| citation.notes.contains(note));
        assert_eq!(notes.collect::<Vec<_>>(), citation.notes, "in the order of the contract, each once");

        // After a crash, the cards before it are remembered.
        let mut after_crash = Checker::new(&text, &sentences);
        before.iter().for_each(|[front, back]| after_crash.remember(front, back));
        assert_eq!(after_crash.check(&front, &back, &named), citation);
        before.push([front, back]);

        // An answer that is copied from its source is supported by it.
        if let Some(source) = source {
            let copied: String = text.chars().take(source.end).skip(source.start).collect();
            assert_eq!(checker.check("", &copied, &named).supported, Some(true), "{copied}");
            before.push([String::new(), copied]);
        }

        sources.extend(source);
        let percent = sentences.coverage_percent(&sources);
        assert!((coverage..=100).contains(&percent), "{percent} after {coverage}");
        assert!(percent < 100 || is_covered(&passages, &sources));
        coverage = percent;
    }
});

/// Whether every passage has a part of a source.
fn is_covered(passages: &[Passage], sources: &[Passage]) -> bool {
    let has_source = |passage: &Passage| {
        sources.iter().any(|source| source.start < passage.end && passage.start < source.end)
    };
    passages.iter().all(has_source)
}
