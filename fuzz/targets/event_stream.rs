//! A response of the model API: bytes → events → chunks → content → candidates. The outcome is the same at any chunk borders.
//!
//! The first byte of the input is the type of the response and its end, the next four are the lengths of the chunks.
#![no_main]

use ai_sessions::generation::candidate::{Candidate, Candidates};
use ai_sessions::openrouter::response_reader::{End, Outcome, ResponseReader};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [kind, sizes @ .., _] = data.first_chunk::<6>().copied().unwrap_or_default();
    let answer = data.get(5..).unwrap_or_default();
    let content_type = if kind & 1 == 0 { "text/event-stream" } else { "application/json" };
    let status = if kind & 2 == 0 { 200 } else { 500 };
    let end = [End::Regular, End::Cut, End::IdleTimeout, End::Deadline][usize::from(kind >> 2 & 3)];
    let read = |chunks: &[&[u8]]| read(status, content_type, chunks, end);

    let whole = read(&[answer]);
    for candidate in &whole.0 {
        for (text, most) in [(&candidate.front, 200), (&candidate.back, 500), (&candidate.prompt, 500)] {
            assert!((1..=most).contains(&text.chars().count()));
        }
    }
    // Each has a letter or a digit; a complete answer has a candidate.
    for Candidate { front, back, prompt, .. } in &whole.0 {
        assert!(
            [front, back, prompt]
                .iter()
                .any(|text| text.chars().any(|c| c.is_ascii_alphanumeric() || !c.is_ascii()))
        );
    }
    assert!(whole.1.failure.is_some() || !whole.0.is_empty());
    let mut chunks = Vec::new();
    let mut rest = answer;
    for size in sizes.iter().cycle() {
        let (chunk, tail) = rest.split_at(usize::from(*size % 64 + 1).min(rest.len()));
        chunks.push(chunk);
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(read(&chunks), whole, "by {sizes:?}");
    assert_eq!(read(&answer.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
});

fn read(status: u16, content_type: &str, chunks: &[&[u8]], end: End) -> (Vec<Candidate>, Outcome) {
    let (mut candidates, mut list) = (Candidates::new(20), Vec::new());
    let mut on_found = |found| candidates.add(found).map(|candidate| list.push(candidate)).is_ok();
    let mut reader = ResponseReader::new(status, content_type, Some("7"));
    for chunk in chunks {
        reader.push(chunk, &mut on_found);
    }
    let outcome = reader.end(end, &mut on_found);
    (list, outcome)
}
