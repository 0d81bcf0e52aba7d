//! The model API: its answers as streams of events.

use serde_json::{Value, json};

use crate::scripted_host::Reply;

pub(crate) fn stream() -> Reply {
    Reply::new(200).with("content-type", "text/event-stream")
}

/// An event with a part of the answer.
pub(crate) fn delta(content: &str) -> String {
    let choices = json!([{ "delta": { "content": content } }]);
    let chunk = json!({ "id": "gen-1", "provider": "A Provider", "model": "a/served", "choices": choices });
    format!("data: {chunk}\n\n")
}

/// A candidate as the model writes it, from the sentence of that number.
pub(crate) fn candidate(number: usize) -> String {
    candidate_from(number, &json!([number]))
}

/// A candidate that names these sentences.
pub(crate) fn candidate_from(number: usize, sentences: &Value) -> String {
    let front = format!("front {number}");
    json!({ "front": front, "back": "back", "prompt": "prompt", "source": sentences }).to_string()
}

/// The begin of an answer, with so many complete candidates, each a while after the one before.
pub(crate) fn begun(candidates: usize, gap_ms: u64) -> Reply {
    let mut reply = stream().say(delta("{\"candidates\":["));
    for number in 1..=candidates {
        let comma = if number == 1 { "" } else { "," };
        reply = reply.wait(gap_ms).say(delta(&[comma, &candidate(number)].concat()));
    }
    reply
}

/// A complete answer with so many candidates, each a while after the one before.
pub(crate) fn slow_answer(candidates: usize, gap_ms: u64) -> Reply {
    let usage =
        json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 5, "cost": 0.5 } });
    begun(candidates, gap_ms).say(delta("]}")).say(format!("data: {usage}\n\n")).say("data: [DONE]\n\n")
}

/// A complete answer with so many candidates, at once.
pub(crate) fn answer(candidates: usize) -> Reply {
    slow_answer(candidates, 0)
}

/// An error of the model API.
pub(crate) fn model_error(status: u16) -> Reply {
    let error = json!({ "error": { "code": status, "message": "no" } });
    Reply::new(status).with("content-type", "application/json").say(error.to_string())
}
