//! The model call with all kinds of failures of a model API: its result, and the number and times of the attempts.

#![expect(clippy::panic, reason = "a generation that does not end with an answer fails the test")]

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use ai_sessions::citation::sentences::Sentences;
use ai_sessions::config::ModelApi;
use ai_sessions::generation::candidate::{Candidate, DroppedCounts};
use ai_sessions::generation::usage::Usage;
use ai_sessions::http::problem::Code;
use ai_sessions::openrouter::call::{Answer, Extent};
use ai_sessions::openrouter::request::{ModelRequest, allows_reuse, build};
use ai_sessions::ports::reusable_timer::ReusableTimer;
use ai_sessions::ports::{Body, Clock, Fetch, Head, Incoming, Random, Unreachable};
use ai_sessions::user_object::generate::read_pacing::TAIL_MS;
use ai_sessions::user_object::generate::step::{
    Action, Ended, HOLD_MS, Input, ModelEnd, ModelHead, Step, StepSettings,
};
use serde_json::{Value, json};

use crate::scripted_host::{Reply, ScriptedHost, ScriptedIncoming};

const START_MS: u64 = 1_700_000_000_000;
const TIMEOUT_MS: u64 = 60_000;
const IDLE_MS: u64 = 15_000;

const PARTIAL: Result<Extent, Code> = Ok(Extent::Partial);
const WHOLE: Result<Extent, Code> = Ok(Extent::Whole);
const DONE: &str = "data: [DONE]\n\n";
const COMMENT: &str = ": OPENROUTER PROCESSING\n\n";

fn settings() -> ModelApi {
    ModelApi {
        base_url: "https://model.example/api/v1".to_owned(),
        api_key: "key".to_owned(),
        allowed_models: vec!["a/1".to_owned(), "b/2".to_owned()],
        fallback: false,
        timeout_ms: TIMEOUT_MS,
        idle_timeout_ms: IDLE_MS,
        attempts_max: 3,
        candidates_max: 20,
        cache_ttl_s: 0,
        may_collect_data: false,
        zero_data_retention: false,
        max_price: None,
    }
}

const SESSION_ID: &str = "018f3a3e-0000-7000-8000-00000000000a";

fn request<'a>(text: &'a str, sentences: &'a Sentences, no_cache: bool) -> ModelRequest<'a> {
    ModelRequest {
        secret: "secret",
        session_id: SESSION_ID,
        user_id: "018f3a3e-0000-7000-8000-000000000001",
        model: "a/1",
        text,
        sentences,
        no_cache,
        traceparent: None,
        referer: "https://cards.example",
    }
}

/// A model call, with the state of its user object.
#[derive(Clone, Copy)]
struct Call<'a> {
    deadline_ms: u64,
    attempts_made: u32,
    no_cache: bool,
    /// Each candidate is stored as soon as it is complete; without one, reads are batches.
    has_subscriber: bool,
    has_quota: &'a dyn Fn() -> bool,
    may_start: &'a dyn Fn(u32) -> bool,
}

const CALL: Call<'_> = Call {
    deadline_ms: START_MS + TIMEOUT_MS,
    attempts_made: 0,
    no_cache: false,
    has_subscriber: true,
    has_quota: &|| true,
    may_start: &|_| true,
};

/// The result of a call and its times.
struct Outcome {
    host: ScriptedHost,
    answer: Answer,
    candidates: Vec<Candidate>,
    /// The front of each candidate, and the milliseconds until it was stored.
    stored: Vec<(String, u64)>,
    attempts_counted: Vec<u32>,
    took_ms: u64,
}

fn calling(settings: &ModelApi, call: Call<'_>, replies: impl IntoIterator<Item = Reply>) -> Outcome {
    let host = ScriptedHost::new(START_MS);
    for reply in replies {
        host.on("https://model.example/api/v1/chat/completions", reply);
    }
    calling_on(&host, settings, call)
}

fn calling_on(host: &ScriptedHost, settings: &ModelApi, call: Call<'_>) -> Outcome {
    let (mut candidates, mut stored, mut attempts_counted) = (Vec::new(), Vec::new(), Vec::new());
    let store = |complete: Vec<Candidate>| {
        for candidate in complete {
            stored.push((candidate.front.clone(), host.now_ms() - START_MS));
            candidates.push(candidate);
        }
    };
    let answer = host.run(drive(host, settings, call, store, &mut attempts_counted));
    let took_ms = host.now_ms() - START_MS;
    Outcome { host: host.clone(), answer, candidates, stored, attempts_counted, took_ms }
}

/// The connection to the model API.
enum Connection<'h> {
    Closed,
    Sent(Pin<Box<dyn Future<Output = Result<ScriptedIncoming, Unreachable>> + 'h>>),
    Open(ScriptedIncoming),
}

/// Drives the step of a generation whose row is open, as the user object does.
async fn drive(
    host: &ScriptedHost,
    settings: &ModelApi,
    call: Call<'_>,
    mut store: impl FnMut(Vec<Candidate>),
    attempts_counted: &mut Vec<u32>,
) -> Answer {
    let text = "some text";
    let sentences = Sentences::of(text);
    let request = request(text, &sentences, call.no_cache);
    let &ModelApi { attempts_max, candidates_max, idle_timeout_ms, .. } = settings;
    let (deadline_ms, allows_reuse) = (call.deadline_ms, allows_reuse(settings, &request));
    let step_settings =
        StepSettings { attempts_max, candidates_max, idle_timeout_ms, deadline_ms, allows_reuse };
    let mut step = Step::new(step_settings, call.attempts_made, host.now_ms());
    step.handle(Input::RowOpened(true), host.now_ms());
    let (mut connection, mut timer) = (Connection::Closed, ReusableTimer::new(host));
    loop {
        let input = match step.next(call.has_subscriber, host.now_ms()) {
            Action::Store(candidates) => {
                store(candidates);
                continue;
            }
            Action::CheckQuota => {
                Input::QuotaChecked { has_quota: (call.has_quota)(), random_bits: host.random_bits() }
            }
            Action::CountAttempt(attempt) => {
                let may_start = (call.may_start)(attempt);
                attempts_counted.extend(may_start.then_some(attempt));
                Input::AttemptCounted(may_start)
            }
            Action::Send(may_reuse) => {
                connection = Connection::Sent(Box::pin(host.fetch(build(settings, &request, may_reuse))));
                continue;
            }
            Action::Wait { at_least, until_ms } => {
                if at_least.is_none() {
                    connection = Connection::Closed;
                }
                poll_fn(|context| match connection.poll(at_least.unwrap_or(1), context) {
                    Poll::Ready(input) => Poll::Ready(input),
                    Poll::Pending => timer.poll(until_ms, context).map(|()| Input::Timer(connection.look())),
                })
                .await
            }
            Action::End(Ended::Answered(answer), held) => {
                store(held.candidates);
                return answer;
            }
            action => panic!("the row is open and the generation is not stopped: {action:?}"),
        };
        step.handle(input, host.now_ms());
    }
}

impl Connection<'_> {
    fn poll(&mut self, at_least: usize, context: &mut Context<'_>) -> Poll<Input> {
        let response = match self {
            Self::Closed => return Poll::Pending,
            Self::Sent(response) => std::task::ready!(response.as_mut().poll(context)),
            Self::Open(body) => {
                return body.poll_next(at_least, context).map(|bytes| match bytes {
                    Ok(Some(bytes)) => Input::ModelBytes(bytes),
                    Ok(None) => Input::ModelEnded(ModelEnd::Regular),
                    Err(Unreachable) => Input::ModelEnded(ModelEnd::Cut),
                });
            }
        };
        let Ok(response) = response else { return Poll::Ready(Input::ModelEnded(ModelEnd::Cut)) };
        let head = ModelHead {
            status: response.status(),
            content_type: response.header("content-type").unwrap_or_default(),
            retry_after: response.header("retry-after"),
            cache_status: response.header("x-openrouter-cache-status"),
            generation_id: response.header("x-generation-id"),
        };
        *self = Self::Open(response);
        Poll::Ready(Input::ModelHead(head))
    }

    fn look(&mut self) -> Vec<u8> {
        match self {
            Self::Open(body) => body.look(),
            Self::Closed | Self::Sent(_) => Vec::new(),
        }
    }
}

/// Runs the call with single reads and with batches, which must have the same outcome.
fn both_ways(settings: &ModelApi, replies: &[Reply]) -> Outcome {
    let [single, batched] = [true, false]
        .map(|has_subscriber| calling(settings, Call { has_subscriber, ..CALL }, replies.to_vec()));
    assert_eq!(single.answer, batched.answer);
    assert_eq!(single.candidates, batched.candidates);
    assert_eq!(single.attempts_counted, batched.attempts_counted);
    assert!(single.host.is_used_up() && batched.host.is_used_up());
    single
}

fn candidate(front: &str) -> String {
    json!({ "front": front, "back": "b", "prompt": "p" }).to_string()
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn delta(content: &str) -> String {
    event(
        &json!({ "id": "gen-1", "model": "m/served", "provider": "A Provider", "choices": [{ "delta": { "content": content }, "finish_reason": null }] }),
    )
}

fn stopped(reason: &str) -> String {
    event(&json!({ "choices": [{ "delta": {}, "finish_reason": reason }] }))
}

fn used(prompt_tokens: u64, cost: f64) -> String {
    event(
        &json!({ "choices": [], "usage": { "prompt_tokens": prompt_tokens, "completion_tokens": 2, "cost": cost } }),
    )
}

fn stream() -> Reply {
    Reply::new(200).with("content-type", "text/event-stream; charset=utf-8")
}

fn document(status: u16, value: &Value) -> Reply {
    Reply::new(status).with("content-type", "application/json").say(value.to_string())
}

/// Two candidates in closed JSON, as a model writes them.
fn whole() -> Reply {
    stream()
        .say(COMMENT)
        .say(delta("{\"candidates\":["))
        .say(delta(&candidate("one")))
        .say(delta(&[",", &candidate("two")].concat()))
        .say(delta("]}"))
        .say(stopped("stop"))
        .say(used(1, 0.25))
        .say(DONE)
}

/// One complete candidate and the beginning of another.
fn begun() -> Reply {
    stream().say(delta("{\"candidates\":[")).say(delta(&candidate("one"))).say(delta(",{\"front\":\"tw"))
}

#[test]
fn a_complete_answer_has_candidates_usage_and_model() {
    let outcome = both_ways(&settings(), &[whole()]);
    assert_eq!(outcome.answer.outcome, WHOLE);
    assert_eq!(outcome.candidates.len(), 2);
    assert_eq!(outcome.answer.usage, Some(Usage { prompt_tokens: 1, completion_tokens: 2, cost: 0.25 }));
    assert_eq!(outcome.answer.model.as_deref(), Some("m/served"));
    assert_eq!(outcome.answer.provider.as_deref(), Some("A Provider"));
    assert_eq!(outcome.answer.generation_id.as_deref(), Some("gen-1"));
    assert_eq!((outcome.answer.attempts, outcome.attempts_counted), (1, vec![1]));
    assert_eq!((outcome.answer.dropped.total(), outcome.answer.retry_after_s), (0, None));
    assert_eq!(outcome.answer.operator_note, "");
    assert_eq!(outcome.took_ms, 0);
}

#[test]
fn with_a_subscriber_a_complete_candidate_is_stored_at_once() {
    let reply = stream()
        .say(delta(&["[", &candidate("one")].concat()))
        .wait(300)
        .say(delta(&[",", &candidate("two")].concat()));
    let reply = reply.wait(400).say(delta("]")).say(DONE);
    let outcome = calling(&settings(), CALL, [reply]);
    assert_eq!(outcome.stored, [("one".to_owned(), 0), ("two".to_owned(), 300)]);
    assert_eq!(outcome.took_ms, 700);
}

#[test]
fn without_a_subscriber_a_complete_candidate_is_stored_within_250_ms() {
    let reply = stream().say(delta(&["[", &candidate("one")].concat())).wait(1_000);
    let reply = reply.say(delta(&[",", &candidate("two")].concat())).wait(1_000).say(delta("]")).say(DONE);
    let outcome = calling(&settings(), Call { has_subscriber: false, ..CALL }, [reply]);
    assert_eq!(outcome.stored, [("one".to_owned(), HOLD_MS), ("two".to_owned(), 1_000)]);
    assert_eq!((HOLD_MS, outcome.took_ms), (250, 2_000));
}

#[test]
fn inputs_of_a_connection_that_is_closed_are_ignored() {
    let ModelApi { attempts_max, candidates_max, idle_timeout_ms, .. } = settings();
    let deadline_ms = START_MS + TIMEOUT_MS;
    let step_settings =
        StepSettings { attempts_max, candidates_max, idle_timeout_ms, deadline_ms, allows_reuse: false };
    let closed = delta(&["[", &candidate("one"), "]"].concat()).into_bytes();
    for input in [
        Input::ModelHead(ModelHead { status: 200, ..ModelHead::default() }),
        Input::ModelBytes(closed),
        Input::ModelEnded(ModelEnd::Regular),
        Input::ModelEnded(ModelEnd::Cut),
        Input::AttemptCounted(false),
        Input::Timer(Vec::new()),
    ] {
        let mut step = Step::new(step_settings, 0, START_MS);
        step.handle(Input::RowOpened(true), START_MS);
        step.handle(input.clone(), START_MS);
        assert_eq!(step.next(true, START_MS), Action::CountAttempt(1), "{input:?}");
        step.handle(Input::AttemptCounted(true), START_MS);
        if input != Input::AttemptCounted(false) {
            step.handle(input.clone(), START_MS);
        }
        assert_eq!(step.next(true, START_MS), Action::Send(false), "{input:?}");
    }
}

#[test]
fn a_permanent_failure_is_not_retried() {
    for (status, code) in [
        (301, Code::AiMisconfigured),
        (307, Code::AiMisconfigured),
        (400, Code::AiMisconfigured),
        (401, Code::AiMisconfigured),
        (402, Code::AiMisconfigured),
        (403, Code::AiRefused),
        (404, Code::AiMisconfigured),
        (405, Code::AiMisconfigured),
        (413, Code::AiMisconfigured),
        (422, Code::AiMisconfigured),
    ] {
        let error = json!({ "error": { "code": status, "message": "m" } });
        let mut replies = vec![Reply::new(status).with("retry-after", "1"), document(status, &error)];
        if status >= 400 {
            replies.push(document(200, &error));
            replies.push(stream().say(event(&error)));
            replies.push(document(
                200,
                &json!({ "choices": [{ "message": { "content": "" }, "error": error["error"] }] }),
            ));
        }
        for reply in replies {
            let outcome = both_ways(&settings(), &[reply]);
            assert_eq!(outcome.answer.outcome, Err(code), "{status}");
            assert_eq!((outcome.answer.attempts, outcome.took_ms), (1, 0), "{status}");
            assert_eq!(outcome.answer.retry_after_s, None);
            assert_eq!(outcome.answer.operator_note, format!("status {status}"));
        }
    }
}

#[test]
fn error_types_of_permanent_failures_are_not_retried() {
    for (error, code) in [
        (
            json!({ "availability": { "code": "constraint_filtered", "retryable": true } }),
            Code::AiMisconfigured,
        ),
        (json!({ "code": 502, "metadata": { "error_type": "content_policy_violation" } }), Code::AiRefused),
        (json!({ "code": "400", "message": "m" }), Code::AiMisconfigured),
        (json!({ "code": 503, "availability": { "code": "x", "retryable": false } }), Code::AiUnavailable),
    ] {
        for reply in [
            document(503, &json!({ "error": error })),
            document(200, &json!({ "error": error })),
            stream().say(event(&json!({ "error": error }))),
        ] {
            let outcome = both_ways(&settings(), &[reply]);
            assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (Err(code), 1), "{error}");
        }
    }
}

/// Transient failures before the first candidate: reply, code, note.
fn passing_failures() -> Vec<(Reply, Code, &'static str)> {
    let error = |code: Value| json!({ "error": { "code": code, "message": "m" } });
    let long_html =
        Reply::new(200).with("content-type", "text/html").say("<!doctype html><title>502</title>");
    vec![
        (Reply::unreachable(), Code::AiUnavailable, "no connection"),
        (Reply::new(408), Code::AiTimeout, "status 408"),
        (Reply::new(429), Code::AiUnavailable, "status 429"),
        (Reply::new(500).say("<html>"), Code::AiUnavailable, "status 500"),
        (document(502, &error(json!(502))), Code::AiUnavailable, "status 502"),
        (Reply::new(503).hang(), Code::AiUnavailable, "status 503"),
        (Reply::new(504).say("{\"err").cut(), Code::AiTimeout, "status 504"),
        (Reply::new(529), Code::AiUnavailable, "status 529"),
        (document(200, &error(json!(502))), Code::AiUnavailable, "status 502"),
        (document(200, &error(json!("429"))), Code::AiUnavailable, "status 429"),
        (document(200, &error(json!("provider_overloaded"))), Code::AiUnavailable, "provider_overloaded"),
        (document(200, &json!({ "error": { "message": "m", "availability": { "code": "new" } } })), Code::AiUnavailable, "error"),
        (document(200, &json!({ "choices": [{ "message": { "content": "{\"cand" }, "finish_reason": "error", "error": { "code": 504 } }] })), Code::AiTimeout, "status 504"),
        (document(200, &json!({ "choices": [{ "message": { "content": "" }, "finish_reason": "error" }] })), Code::AiUnavailable, "error"),
        (stream().say(COMMENT).say(event(&error(json!(502)))), Code::AiUnavailable, "status 502"),
        (stream().say(delta("{\"candidates\":[{\"fr")).say(event(&error(json!("server")))), Code::AiUnavailable, "server"),
        (stream().say(event(&json!({ "error": { "code": 500, "metadata": { "error_type": "timeout" } }, "choices": [] }))).hang(), Code::AiTimeout, "timeout 500"),
        (stream(), Code::AiUnavailable, "cut"),
        (stream().cut(), Code::AiUnavailable, "cut"),
        (stream().say(COMMENT).say(delta("{\"candidates\":[{\"front\":\"o")).cut(), Code::AiUnavailable, "cut"),
        (stream().say(delta("{\"candidates\":[{\"front\":\"o")), Code::AiUnavailable, "cut"),
        (stream().say("data: {\"choi"), Code::AiUnavailable, "cut"),
        (document(200, &json!({ "choices": [] })).cut(), Code::AiUnavailable, "cut"),
        (stream().say(delta("{\"candidates\":[{\"front\":\"o")).say(stopped("length")).say(DONE), Code::AiInvalidResponse, "length"),
        (stream().say(delta("{\"candidates\":[]}")).say(DONE), Code::AiInvalidResponse, "no valid card"),
        (stream().say(delta("{\"candidates\":[{\"front\":7}]}")).cut(), Code::AiInvalidResponse, "no valid card"),
        (stream().say(delta("Sorry, no.")).say(stopped("stop")).say(DONE), Code::AiInvalidResponse, "no valid card"),
        (stream().say("data: <html>\n\n").hang(), Code::AiTimeout, "silence"),
        (stream().say("data: {\"choices\n\n").say(DONE), Code::AiInvalidResponse, "unreadable"),
        (stream().say(delta("<think>[")).say(delta(&candidate("draft"))).say(delta("]</think>")).say(stopped("stop")), Code::AiInvalidResponse, "no valid card"),
        (stream().say(delta("<think>[")).say(delta(&candidate("draft"))).say(delta("]")), Code::AiUnavailable, "cut"),
        (document(200, &json!({ "detail": [{ "type": "extra_forbidden", "loc": ["body", "provider"] }] })), Code::AiInvalidResponse, "no valid card"),
        (long_html, Code::AiInvalidResponse, "unreadable"),
        (Reply::new(204), Code::AiInvalidResponse, "unreadable"),
        (stream().say([b'x'; 1024 * 1024 + 1]).hang(), Code::AiInvalidResponse, "too large"),
        (stream().say(delta(&"x".repeat(1024 * 1024 - 200))).say(delta(&"x".repeat(1024))).hang(), Code::AiInvalidResponse, "too large"),
        (Reply::new(200).say(vec![b' '; 5 * 1024 * 1024]).hang(), Code::AiInvalidResponse, "too large"),
    ]
}

#[test]
fn a_transient_failure_before_the_first_candidate_is_retried() {
    for (reply, _, note) in passing_failures() {
        let outcome = both_ways(&settings(), &[reply, whole()]);
        assert_eq!(outcome.answer.outcome, WHOLE, "{note}");
        assert_eq!(outcome.candidates.len(), 2, "{note}");
        assert_eq!((outcome.answer.attempts, outcome.attempts_counted), (2, vec![1, 2]), "{note}");
        assert_eq!(outcome.answer.operator_note, "", "{note}");
    }
}

#[test]
fn after_the_last_attempt_the_last_failure_is_reported() {
    for (reply, code, note) in passing_failures() {
        let outcome = both_ways(&settings(), &[Reply::unreachable(), Reply::unreachable(), reply]);
        assert_eq!(outcome.answer.outcome, Err(code), "{note}");
        assert_eq!((outcome.answer.attempts, outcome.answer.operator_note.as_str()), (3, note));
        assert_eq!(outcome.candidates, []);
    }
}

#[test]
fn a_silent_stream_is_retried_after_the_idle_timeout() {
    for reply in [
        Reply::silence(),
        stream().hang(),
        stream().say(delta("{\"candidates\":[{")).hang(),
        Reply::new(200).say("{").hang(),
    ] {
        let outcome = both_ways(&settings(), &[reply.clone(), whole()]);
        assert_eq!((outcome.answer.outcome, outcome.answer.attempts, outcome.took_ms), (WHOLE, 2, IDLE_MS));

        let outcome = both_ways(&ModelApi { attempts_max: 1, ..settings() }, &[reply]);
        assert_eq!((outcome.answer.outcome, outcome.took_ms), (Err(Code::AiTimeout), IDLE_MS));
        assert_eq!(outcome.answer.operator_note, "silence");
    }
}

#[test]
fn comments_reset_the_idle_timeout() {
    let mut reply = stream();
    for _ in 0..5 {
        reply = reply.say(COMMENT).wait(IDLE_MS - 1);
    }
    reply = reply.say(delta(&["[", &candidate("one"), "]"].concat())).say(DONE);
    let patient = ModelApi { timeout_ms: 100_000, ..settings() };
    for has_subscriber in [true, false] {
        let call = Call { deadline_ms: START_MS + 100_000, has_subscriber, ..CALL };
        let outcome = calling(&patient, call, [reply.clone()]);
        assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (WHOLE, 1));
        assert_eq!(outcome.took_ms, 5 * (IDLE_MS - 1));
    }
}

#[test]
fn the_idle_timeout_applies_to_the_response_head() {
    let outcome = both_ways(&settings(), &[whole().head_after(IDLE_MS - 1)]);
    assert_eq!((outcome.answer.outcome, outcome.answer.attempts, outcome.took_ms), (WHOLE, 1, IDLE_MS - 1));
    let outcome = both_ways(&settings(), &[whole().head_after(IDLE_MS + 1), whole()]);
    assert_eq!((outcome.answer.outcome, outcome.answer.attempts, outcome.took_ms), (WHOLE, 2, IDLE_MS));
}

#[test]
fn a_fast_stream_that_turns_slow_is_not_idle() {
    // Batches have grown by then; the following chunks fill none of them in time.
    let mut reply = stream().say(delta("["));
    for _ in 0..100 {
        reply = reply.say(delta(" ")).wait(1);
    }
    for second in 1..=40 {
        reply = reply.wait(1_000).say(if second % 2 == 0 { COMMENT.to_owned() } else { delta(" ") });
    }
    reply = reply.say(delta(&[&candidate("one"), "]"].concat())).say(DONE);
    for has_subscriber in [true, false] {
        let outcome = calling(&settings(), Call { has_subscriber, ..CALL }, [reply.clone()]);
        assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (WHOLE, 1), "{has_subscriber}");
        assert_eq!(outcome.took_ms, 40_100, "{has_subscriber}");
    }
}

#[test]
fn comments_after_a_fast_stream_reset_a_short_idle_timeout() {
    let mut reply = stream().say(delta("["));
    for _ in 0..100 {
        reply = reply.say(delta(" ")).wait(1);
    }
    for _ in 0..40 {
        reply = reply.wait(50).say(COMMENT);
    }
    reply = reply.say(delta(&[&candidate("one"), "]"].concat())).say(DONE);
    for idle_timeout_ms in [100, 200, 250, 400] {
        let outcome = both_ways(&ModelApi { idle_timeout_ms, ..settings() }, &[reply.clone()]);
        assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (WHOLE, 1), "{idle_timeout_ms}");
    }
}

#[test]
fn candidates_until_the_deadline_are_kept_with_any_batch_size() {
    let many = ModelApi { candidates_max: 2_000, ..settings() };
    for pace_ms in [3, 5, 20, 50] {
        // One arrives in the last millisecond.
        let mut reply = stream().say(delta("[")).wait(2_999 % pace_ms);
        for number in 1..=4_000 / pace_ms {
            reply = reply.wait(pace_ms).say(delta(&[&candidate(&number.to_string()), ","].concat()));
        }
        for has_subscriber in [true, false] {
            let call = Call { deadline_ms: START_MS + 3_000, has_subscriber, ..CALL };
            let outcome = calling(&many, call, [reply.clone()]);
            assert_eq!(
                (outcome.answer.outcome, outcome.took_ms),
                (PARTIAL, 3_000),
                "{pace_ms} {has_subscriber}"
            );
            let last = outcome.candidates.last().map(|candidate| candidate.front.as_str());
            assert_eq!(last, Some((2_999 / pace_ms).to_string().as_str()), "{pace_ms} {has_subscriber}");
        }
    }
}

#[test]
fn a_slow_stream_is_not_idle() {
    let mut reply = stream().say(COMMENT).wait(1).say(COMMENT).wait(1).say(delta("["));
    for _ in 0..40 {
        reply = reply.wait(900).say(delta(" "));
    }
    reply = reply.say(delta(&[&candidate("one"), "]"].concat())).say(DONE);
    let outcome = both_ways(&settings(), &[reply]);
    assert_eq!((outcome.answer.outcome, outcome.answer.attempts, outcome.took_ms), (WHOLE, 1, 36_002));
}

#[test]
fn usage_after_the_candidates_is_read() {
    let reply = stream().say(delta(&["[", &candidate("one"), "]"].concat())).wait(1).say(used(7, 0.5)).hang();
    let outcome = both_ways(&settings(), &[reply]);
    assert_eq!(outcome.answer.usage.map(|usage| usage.prompt_tokens), Some(7));
}

#[test]
fn an_answer_cut_off_after_a_candidate_is_kept_and_not_retried() {
    let error = event(
        &json!({ "error": { "code": 502, "message": "m" }, "choices": [{ "delta": { "content": "" }, "finish_reason": "error" }] }),
    );
    let cut = ["{\"candidates\":[", &candidate("one"), ",{"].concat();
    let cut_document = json!({ "choices": [{ "message": { "content": cut }, "finish_reason": "length" }] });
    for (reply, note, took_ms) in [
        (begun().cut(), "cut", 0),
        (begun(), "cut", 0),
        (begun().say("data: {\"choices\":[{\"del").cut(), "cut", 0),
        (begun().say(&error), "status 502", 0),
        (begun().say(&error).hang(), "status 502", 0),
        (begun().say(event(&json!({ "error": { "code": "401" } }))), "status 401", 0),
        (begun().say(stopped("length")).say(DONE), "length", 0),
        (begun().say(stopped("length")).hang(), "length", IDLE_MS),
        (begun().say(stopped("stop")).say(used(1, 0.0)).hang(), "silence", IDLE_MS),
        (begun().say(stopped("content_filter")).say(DONE), "refused", 0),
        (begun().say(stopped("stop")).say(DONE), "not closed", 0),
        (begun().say(stopped("error")).say(DONE), "error", 0),
        (begun().say("data: {\"choices\n\n").say(delta("\"}]}")), "unreadable", 0),
        (begun().hang(), "silence", IDLE_MS),
        (
            begun().say(delta(&"x".repeat(600 * 1024))).say(delta(&"x".repeat(600 * 1024))).hang(),
            "too large",
            0,
        ),
        (document(200, &cut_document), "length", 0),
    ] {
        let outcome = both_ways(&settings(), &[reply]);
        assert_eq!(outcome.answer.outcome, PARTIAL, "{note}");
        assert_eq!(outcome.stored, [("one".to_owned(), 0)], "{note}");
        assert_eq!((outcome.answer.attempts, outcome.answer.operator_note.as_str()), (1, note));
        assert_eq!((outcome.took_ms, outcome.answer.retry_after_s), (took_ms, None), "{note}");
    }
}

#[test]
fn candidates_before_a_hang_are_kept_with_any_batch_size() {
    // Fast, so that batches grow to their full size, and then nothing: less than a batch is pending.
    let mut reply = stream().say(delta("["));
    let fronts: Vec<_> = (0..20).map(|number| format!("candidate {number}")).collect();
    for front in &fronts {
        for chunk in [candidate(front), ",".to_owned()].concat().as_bytes().chunks(7) {
            reply = reply.say(delta(&String::from_utf8_lossy(chunk))).wait(1);
        }
    }
    for has_subscriber in [true, false] {
        let call = Call { has_subscriber, ..CALL };
        let outcome = calling(&settings(), call, [reply.clone().hang()]);
        assert_eq!(outcome.answer.outcome, PARTIAL, "{has_subscriber}");
        let given: Vec<_> = outcome.candidates.iter().map(|candidate| candidate.front.as_str()).collect();
        assert_eq!(given, fronts, "{has_subscriber}");
    }
}

#[test]
fn an_answer_with_closed_json_is_complete_after_any_end() {
    let closed =
        || stream().say(delta(&["```json\n{\"candidates\":[", &candidate("one"), "]}\n```"].concat()));
    for (reply, took_ms) in [
        (closed(), 0),
        (closed().cut(), 0),
        (closed().hang(), TAIL_MS),
        (closed().say(DONE).hang(), 0),
        (closed().say(stopped("length")).cut(), 0),
        (closed().say(stopped("content_filter")).say(DONE), 0),
        (closed().say(event(&json!({ "error": { "code": 502 } }))), 0),
        (closed().say("data: <html>"), 0),
        (closed().say("data: <html>\n\n").hang(), TAIL_MS),
        (closed().wait(TAIL_MS / 2).say(COMMENT).wait(TAIL_MS).say(used(1, 0.0)).hang(), TAIL_MS),
    ] {
        let outcome = both_ways(&settings(), &[reply]);
        assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (WHOLE, 1));
        assert_eq!((outcome.candidates.len(), outcome.took_ms), (1, took_ms));
        assert_eq!(outcome.answer.operator_note, "");
    }
}

#[test]
fn an_answer_that_begins_with_prose_is_read_to_its_end() {
    let prose = || {
        stream().say(delta(&["Sure: [", &candidate("draft"), "], or better: "].concat())).wait(TAIL_MS + 1)
    };
    let answer = || prose().say(delta(&["[", &candidate("one"), "]"].concat()));
    for (reply, took_ms) in [
        (answer(), 0),
        (answer().say(DONE).hang(), 0),
        (answer().cut(), 0),
        (answer().say(stopped("stop")).hang(), TAIL_MS),
        (answer().say(stopped("stop")).say(used(1, 0.0)).hang(), TAIL_MS),
        (answer().hang(), IDLE_MS),
    ] {
        let outcome = both_ways(&settings(), &[reply]);
        assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (WHOLE, 1));
        assert_eq!(outcome.stored, [("one".to_owned(), outcome.took_ms)]);
        assert_eq!(outcome.took_ms, TAIL_MS + 1 + took_ms);
    }
}

#[test]
fn a_finish_reason_or_usage_in_each_chunk_ends_no_answer() {
    let chunk = |content: &str, reason: &str| {
        event(&json!({
            "choices": [{ "delta": { "content": content }, "finish_reason": reason }],
            "usage": { "prompt_tokens": 1, "completion_tokens": 1 },
        }))
    };
    for reason in ["", "stop", "length", "tool_calls"] {
        for begin in ["[", "<think>[]</think>[", ""] {
            let mut reply = stream().say(chunk("", reason)).wait(3 * TAIL_MS).say(chunk(begin, reason));
            for front in ["one", "two", "three"] {
                reply = reply.wait(700).say(chunk(
                    &[candidate(front).as_str(), if begin.is_empty() { "\n" } else { "," }].concat(),
                    reason,
                ));
            }
            reply = reply.wait(700).say(chunk(if begin.is_empty() { " " } else { "]" }, reason)).say(DONE);
            let outcome = both_ways(&settings(), &[reply]);
            assert_eq!((outcome.answer.outcome, outcome.candidates.len()), (WHOLE, 3), "{reason} {begin}");
        }
    }
}

#[test]
fn empty_events_change_no_answer() {
    const NOTHING: &[&str] = &[
        "data: ping\n\n",
        "data: null\n\n",
        "data: NaN\n\n",
        "data: : OPENROUTER PROCESSING\n\n",
        "data: {}\n\n",
        "data:\n\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "data: []\n\n",
        "data: 7\n\n",
        "data: {\"error\":{}}\n\n",
        "data: {\"error\":null,\"choices\":null}\n\n",
        "data: {\"choices\":[{\"delta\":null}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\"},\"logprobs\":-Infinity}],\"usage\":7,\"usage\":7}\n\n",
        "event: ping\n\n",
        "<html>\n\n",
    ];
    let content = ["{\"candidates\":[", &candidate("one"), ",", &candidate("two"), "]}"].concat();
    let mut reply = stream();
    for (number, chunk) in content.as_bytes().chunks(5).enumerate() {
        reply = reply.say(NOTHING[number % NOTHING.len()]).say(delta(&String::from_utf8_lossy(chunk)));
    }
    let outcome = both_ways(&settings(), &[reply.say(DONE)]);
    assert_eq!((outcome.answer.outcome, outcome.candidates.len()), (WHOLE, 2));
    assert_eq!((outcome.answer.attempts, outcome.answer.dropped.total()), (1, 0));
}

#[test]
fn the_first_byte_decides_between_stream_and_document() {
    let events = [delta(&["[", &candidate("one"), "]"].concat()), DONE.to_owned()].concat();
    let list = ["[", &candidate("one"), "]"].concat();
    let completion = json!({ "choices": [{ "message": { "content": list } }] }).to_string();
    for (body, content_type) in [
        (events.clone(), ""),
        (events.clone(), "application/json"),
        (events.clone(), "text/plain"),
        (["\u{feff}\r\n", &events].concat(), "text/html"),
        ([COMMENT, &events].concat(), ""),
        (["event: message\n", &events].concat(), ""),
        (["id: 1\n", &events].concat(), ""),
        (events.replace("\n\n", "\n"), "text/event-stream"),
        (events.replace("\n\n", "\r"), "text/event-stream"),
        (completion.clone(), "text/event-stream"),
        ([" \n", &completion, "\n\ndata: [DONE]\n\n"].concat(), "text/event-stream"),
        ([&completion, "\n", &completion].concat(), "application/x-ndjson"),
    ] {
        let outcome =
            both_ways(&settings(), &[Reply::new(200).with("content-type", content_type).say(&body)]);
        assert_eq!((outcome.answer.outcome, outcome.candidates.len()), (WHOLE, 1), "{content_type} {body}");
    }
}

#[test]
fn errors_of_other_formats_are_read() {
    let error = json!({ "code": 400, "message": "the request exceeds the available context size", "type": "invalid_request_error" });
    let vllm =
        json!({ "object": "error", "message": "m", "type": "BadRequestError", "param": null, "code": 400 });
    for reply in [
        stream().say(format!("error: {error}\n\ndata: [DONE]\n\n")),
        stream().say(format!("event: error\ndata: {error}\n\n")).hang(),
        stream().say(format!("event: error\ndata: {{\"error\":{error}}}\n\n")),
        stream().say(event(&vllm)).hang(),
        stream().say(event(&error)),
        document(200, &vllm),
        document(200, &error),
        Reply::new(200).with("content-type", "text/event-stream").say(vllm.to_string()),
        document(
            200,
            &json!({ "type": "error", "error": { "type": "invalid_request_error", "message": "m" } }),
        ),
    ] {
        let outcome = both_ways(&settings(), &[reply]);
        assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (Err(Code::AiMisconfigured), 1));
    }
    for reply in [
        stream().say("event: error\ndata: Internal Server Error\n\n").hang(),
        stream().say("error: overloaded\n\n").hang(),
        stream().say("event: error\ndata: {\"code\":503}\n\n"),
    ] {
        let outcome = both_ways(&ModelApi { attempts_max: 2, ..settings() }, &[reply.clone(), reply]);
        assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (Err(Code::AiUnavailable), 2));
    }
    let outcome = both_ways(&settings(), &[begun().say(format!("error: {error}\n\n"))]);
    assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (PARTIAL, 1));
}

#[test]
fn usage_shortly_after_the_candidates_is_waited_for() {
    let reply = stream()
        .say(delta(&["[", &candidate("one"), "]"].concat()))
        .say(stopped("stop"))
        .wait(TAIL_MS - 1)
        .say(used(7, 0.5))
        .hang();
    let outcome = both_ways(&settings(), &[reply]);
    assert_eq!(outcome.answer.usage.map(|usage| usage.prompt_tokens), Some(7));
    assert_eq!(outcome.took_ms, TAIL_MS - 1);
}

#[test]
fn the_generation_id_is_read_from_the_body_or_else_the_header() {
    let long = "x".repeat(129);
    for (reply, id) in [
        (whole().with("x-generation-id", "gen-of-the-head"), Some("gen-1")),
        (Reply::new(402).with("x-generation-id", "gen-of-the-head"), Some("gen-of-the-head")),
        (Reply::new(200).with("x-generation-id", "gen-of-the-head").hang(), Some("gen-of-the-head")),
        (Reply::new(402).with("x-generation-id", "two words"), None),
        (Reply::new(402).with("x-generation-id", long), None),
        (Reply::new(402), None),
    ] {
        let outcome = calling(&ModelApi { attempts_max: 1, ..settings() }, CALL, [reply]);
        assert_eq!(outcome.answer.generation_id.as_deref(), id);
    }
}

#[test]
fn the_usage_of_failed_attempts_is_added() {
    let empty = || stream().say(delta("{\"candidates\":[]}")).say(used(10, 0.5)).say(DONE);
    let outcome = both_ways(&settings(), &[empty(), Reply::new(503), whole()]);
    assert_eq!(outcome.answer.usage, Some(Usage { prompt_tokens: 11, completion_tokens: 4, cost: 0.75 }));

    let outcome = both_ways(&settings(), &[empty(), empty(), empty()]);
    assert_eq!(outcome.answer.outcome, Err(Code::AiInvalidResponse));
    assert_eq!(outcome.answer.usage, Some(Usage { prompt_tokens: 30, completion_tokens: 6, cost: 1.5 }));

    let outcome = both_ways(&settings(), &[Reply::new(503), Reply::new(503), Reply::new(503)]);
    assert_eq!(outcome.answer.usage, None);
}

#[test]
fn a_refusal_is_not_retried_and_keeps_its_usage() {
    let refusal = |place: &str| json!({ "choices": [{ place: { "content": null, "refusal": "I can't help with that." } }] });
    for reply in [
        stream().say(event(&refusal("delta"))).say(stopped("stop")).say(used(7, 0.5)).say(DONE),
        stream().say(event(&refusal("delta"))).say(used(7, 0.5)).hang(),
        stream().say(stopped("content_filter")).say(used(7, 0.5)),
        document(200, &json!({ "choices": refusal("message")["choices"], "usage": { "prompt_tokens": 7 } })),
    ] {
        let outcome = both_ways(&settings(), &[reply]);
        assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (Err(Code::AiRefused), 1));
        assert_eq!(outcome.answer.usage.map(|usage| usage.prompt_tokens), Some(7));
        assert_eq!(outcome.answer.operator_note, "refused");
    }

    let endless = stream().say(event(&refusal("delta"))).hang();
    assert_eq!(both_ways(&settings(), &[endless]).took_ms, TAIL_MS);
}

#[test]
fn a_slow_stream_past_the_deadline_keeps_complete_candidates() {
    let drip = |content: &str| {
        let mut reply = stream().say(delta("{\"candidates\":["));
        for chunk in content.as_bytes().chunks(4) {
            reply = reply.wait(1_000).say(delta(&String::from_utf8_lossy(chunk)));
        }
        reply
    };
    let candidates: String = (0..20).map(|number| [&candidate(&number.to_string()), ","].concat()).collect();
    let outcome = both_ways(&settings(), &[drip(&candidates)]);
    assert_eq!((outcome.answer.outcome, outcome.took_ms), (PARTIAL, TIMEOUT_MS));
    assert_eq!((outcome.candidates.len(), outcome.answer.operator_note.as_str()), (6, "deadline"));

    let outcome = both_ways(&settings(), &[drip(&"x".repeat(1_000))]);
    assert_eq!((outcome.answer.outcome, outcome.took_ms), (Err(Code::AiTimeout), TIMEOUT_MS));
    assert_eq!((outcome.answer.attempts, outcome.answer.operator_note.as_str()), (1, "deadline"));

    let busy = (0..100_000).fold(stream(), |reply, _| reply.say(COMMENT).wait(1)).hang();
    let outcome = calling(&settings(), CALL, [busy]);
    assert_eq!((outcome.answer.outcome, outcome.took_ms), (Err(Code::AiTimeout), TIMEOUT_MS));
}

#[test]
fn no_attempt_runs_past_the_deadline() {
    let outcome = calling(&ModelApi { idle_timeout_ms: 90_000, ..settings() }, CALL, [Reply::silence()]);
    assert_eq!((outcome.answer.outcome, outcome.took_ms), (Err(Code::AiTimeout), TIMEOUT_MS));
    assert_eq!(outcome.answer.operator_note, "deadline");

    // Four idle timeouts of 15 s are a minute: the fourth attempt would have no time left.
    let silences = [Reply::silence(), Reply::silence(), Reply::silence(), Reply::silence()];
    let outcome = calling(&ModelApi { attempts_max: 10, ..settings() }, CALL, silences);
    assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (Err(Code::AiTimeout), 4));
    assert_eq!(outcome.took_ms, TIMEOUT_MS);

    let outcome = calling(&settings(), Call { deadline_ms: START_MS, ..CALL }, []);
    assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (Err(Code::AiTimeout), 0));
}

#[test]
fn waits_between_attempts_double_and_are_random() {
    for (random_bits, first_ms, second_ms) in [(0, 0, 0), (500, 500, 500), (1_000, 499, 1_000), (7, 7, 7)] {
        let host = ScriptedHost::new(START_MS);
        host.set_random_bits(random_bits);
        host.always("/chat/completions", Reply::new(503));
        let outcome = calling_on(&host, &settings(), CALL);
        let sent_ms: Vec<_> = host.sent().iter().map(|sent| sent.at_ms - START_MS).collect();
        assert_eq!(sent_ms, [0, first_ms, first_ms + second_ms], "{random_bits}");
        assert_eq!(outcome.took_ms, first_ms + second_ms);
    }
}

#[test]
fn a_retry_after_is_waited_for_or_forwarded_if_it_is_too_long() {
    for status in [429, 503] {
        let outcome = both_ways(&settings(), &[Reply::new(status).with("retry-after", "7"), whole()]);
        assert_eq!((outcome.answer.outcome, outcome.took_ms), (WHOLE, 7_000));

        let outcome = both_ways(&settings(), &[Reply::new(status).with("retry-after", "3600")]);
        assert_eq!((outcome.answer.outcome, outcome.took_ms), (Err(Code::AiUnavailable), 0));
        assert_eq!((outcome.answer.attempts, outcome.answer.retry_after_s), (1, Some(3600)));
    }
    let reported = json!({ "error": { "code": 503, "availability": { "code": "provider_overloaded", "retryable": true, "retry_after": 2.5 } } });
    let outcome = both_ways(&settings(), &[document(200, &reported), whole()]);
    assert_eq!((outcome.answer.outcome, outcome.took_ms), (WHOLE, 3_000));
}

#[test]
fn a_429_is_always_forwarded_with_a_retry_after() {
    let rate_limit =
        json!({ "error": { "message": "m", "metadata": { "error_type": "rate_limit_exceeded" } } });
    for reply in
        [Reply::new(429), document(200, &json!({ "error": { "code": "429" } })), document(200, &rate_limit)]
    {
        let outcome = both_ways(&ModelApi { attempts_max: 1, ..settings() }, &[reply]);
        assert_eq!(outcome.answer.outcome, Err(Code::AiUnavailable));
        assert_eq!(outcome.answer.retry_after_s, Some(10));
    }
    let outcome = both_ways(&ModelApi { attempts_max: 1, ..settings() }, &[Reply::new(503)]);
    assert_eq!(outcome.answer.retry_after_s, None);
}

#[test]
fn attempts_before_a_restart_count() {
    let call = Call { attempts_made: 2, ..CALL };
    let outcome = calling(&settings(), call, [Reply::new(503)]);
    assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (Err(Code::AiUnavailable), 3));
    assert_eq!(outcome.attempts_counted, [3]);

    let outcome = calling(&settings(), Call { attempts_made: 3, ..CALL }, []);
    assert_eq!((outcome.answer.outcome, outcome.answer.attempts), (Err(Code::AiUnavailable), 3));
    assert_eq!(outcome.answer.operator_note, "no attempt left");
}

#[test]
fn a_retry_is_counted_when_it_is_made_and_not_before_its_backoff() {
    let host = ScriptedHost::new(START_MS);
    for reply in [Reply::new(503).with("retry-after", "7"), whole()] {
        host.on("https://model.example/api/v1/chat/completions", reply);
    }
    let counted = RefCell::new(Vec::new());
    let may_start = |attempt| {
        counted.borrow_mut().push((attempt, host.now_ms() - START_MS));
        true
    };
    let outcome = calling_on(&host, &settings(), Call { may_start: &may_start, ..CALL });
    assert_eq!(outcome.answer.attempts, 2);
    assert_eq!(*counted.borrow(), [(1, 0), (2, 7_000)]);
}

#[test]
fn a_forbidden_retry_has_no_backoff() {
    let none_left = Call { has_quota: &|| false, may_start: &|attempt| attempt == 1, ..CALL };
    let outcome = calling(&settings(), none_left, [Reply::new(503).with("retry-after", "7")]);
    assert_eq!((outcome.answer.outcome, outcome.took_ms), (Err(Code::AiUnavailable), 0));
    assert_eq!(outcome.answer.retry_after_s, Some(7));
}

#[test]
fn every_attempt_sends_the_same_bytes() {
    let outcome = both_ways(&settings(), &[Reply::unreachable(), Reply::new(503), whole()]);
    let sent = outcome.host.sent();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|attempt| attempt.request == sent[0].request));
    let body: Value = serde_json::from_slice(&sent[0].request.body).expect("it is JSON");
    assert_eq!(body["model"], "a/1");
    assert_eq!(sent[0].header("x-session-id"), Some(SESSION_ID));
}

#[test]
fn a_cached_answer_is_requested_only_by_the_first_attempt() {
    let on = ModelApi { cache_ttl_s: 300, ..settings() };
    let empty = stream().with("x-openrouter-cache-status", "HIT").say(delta("{\"candidates\":[]}")).say(DONE);
    let outcome = both_ways(&on, &[empty, whole()]);
    let requested: Vec<_> =
        outcome.host.sent().iter().map(|sent| sent.header("x-openrouter-cache").is_some()).collect();
    assert_eq!(requested, [true, false]);
    assert_eq!(outcome.answer.was_reused, None);

    for (header, was_reused) in [("HIT", Some(true)), ("hit", Some(true)), ("MISS", Some(false))] {
        let outcome = both_ways(&on, &[whole().with("x-openrouter-cache-status", header)]);
        assert_eq!(outcome.answer.was_reused, was_reused);
    }
    assert_eq!(both_ways(&on, &[whole()]).answer.was_reused, None);
    assert_eq!(
        calling(&on, Call { no_cache: true, ..CALL }, [whole()]).host.sent()[0].header("x-openrouter-cache"),
        None
    );
}

#[test]
fn no_connection_is_left_open() {
    for reply in [
        whole(),
        whole().hang(),
        begun().hang(),
        Reply::new(503).hang(),
        Reply::silence(),
        stream().say(event(&json!({ "error": {} }))).hang(),
        stream().say(event(&json!({ "error": { "code": 500 } }))).hang(),
    ] {
        let outcome = calling(&ModelApi { attempts_max: 1, ..settings() }, CALL, [reply]);
        assert_eq!(outcome.host.sent()[0].closed_ms, Some(START_MS + outcome.took_ms));
    }
}

#[test]
fn dropped_candidates_are_counted_and_affect_no_other() {
    let long = "x".repeat(201);
    let content = [
        "[",
        &candidate("one"),
        ",",
        &candidate("ONE "),
        ",",
        &candidate(&long),
        ",",
        &candidate(""),
        ",7,{\"front\":1},",
        &candidate("a\u{0}b"),
        "]",
    ];
    let outcome = both_ways(&settings(), &[stream().say(delta(&content.concat())).say(DONE)]);
    assert_eq!(outcome.answer.outcome, WHOLE);
    assert_eq!(outcome.stored.iter().map(|(front, _)| front.as_str()).collect::<Vec<_>>(), ["one", "ab"]);
    let dropped = DroppedCounts { duplicate: 1, too_long: 1, empty: 1, unreadable: 2, too_many: 0 };
    assert_eq!(outcome.answer.dropped, dropped);

    let outcome = both_ways(&ModelApi { candidates_max: 1, ..settings() }, &[whole()]);
    assert_eq!((outcome.answer.outcome, outcome.candidates.len()), (WHOLE, 1));
    assert_eq!(outcome.answer.dropped, DroppedCounts { too_many: 1, ..DroppedCounts::default() });
}

#[test]
fn a_plain_completion_in_place_of_a_stream_is_read_too() {
    let content = ["```json\n{\"candidates\":[", &candidate("one"), "]}\n```"].concat();
    let completion = json!({
        "id": "gen-2", "model": "llama", "usage": { "prompt_tokens": 1, "completion_tokens": 2 },
        "choices": [{ "message": { "role": "assistant", "content": content }, "finish_reason": "stop" }],
    });
    let outcome = both_ways(&settings(), &[document(200, &completion)]);
    assert_eq!((outcome.answer.outcome, outcome.answer.model.as_deref()), (WHOLE, Some("llama")));
    assert_eq!(outcome.answer.usage, Some(Usage { prompt_tokens: 1, completion_tokens: 2, cost: 0.0 }));
}

#[test]
fn an_answer_of_many_chunks_needs_few_timers() {
    let mut reply = stream().say(delta("["));
    for _ in 0..500 {
        reply = reply.wait(20).say(delta(" "));
    }
    reply = reply.say(delta(&[&candidate("one"), "]"].concat())).say(DONE);
    let outcome = calling(&settings(), CALL, [reply]);
    assert_eq!((outcome.answer.outcome, outcome.took_ms), (WHOLE, 10_000));
    assert!(outcome.host.slept_ms().len() <= 3, "{:?}", outcome.host.slept_ms());
}
