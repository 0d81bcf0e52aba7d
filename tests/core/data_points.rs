//! The data points of the user object: one for each generation that has ended, one for each due job that failed.

#![expect(clippy::expect_used, reason = "a point without a column fails the test")]

use ai_sessions::points::{GENERATION, JOB};
use ai_sessions::user_state::{HEARTBEAT_MS, KEEP_FAILURE_MS, KEEP_NOT_PERSISTED_MS};
use serde_json::{Value, json};

use crate::scripted_client::{delete, get, post};
use crate::scripted_database::{Failure, Operation};
use crate::scripted_model::{answer, begun, candidate, delta, model_error, slow_answer, stream};
use crate::scripted_store::Mode;
use crate::scripted_world::{MeasuredPoint, World};

const MODES: [Mode; 3] = [Mode::Rows, Mode::Memory, Mode::Shared];
/// The modes of a host whose alarms outlive a crash.
const WITH_ALARMS: [Mode; 2] = [Mode::Rows, Mode::Memory];

/// The points of a kind, in their order.
fn points(world: &World, kind: &str) -> Vec<MeasuredPoint> {
    let is_kind = |(texts, _): &MeasuredPoint| texts.first().map(String::as_str) == Some(kind);
    world.points().into_iter().filter(is_kind).collect()
}

/// The one point of a generation.
fn only_generation(world: &World) -> MeasuredPoint {
    let points = points(world, "generation");
    assert_eq!(points.len(), 1, "{points:?}");
    points.into_iter().next().expect("there is one")
}

/// The named figures of a generation's point.
fn figures<const N: usize>((_, figures): &MeasuredPoint, names: [&str; N]) -> [f64; N] {
    names.map(|name| {
        let index = GENERATION.figures.iter().position(|known| *known == name).expect(name);
        *figures.get(index).expect(name)
    })
}

/// The outcome of a generation's point.
fn outcome((texts, _): &MeasuredPoint) -> &str {
    texts.get(1).expect("an outcome")
}

/// Job, reason and number of each job's point.
fn jobs(world: &World) -> Vec<(String, String, f64)> {
    let row = |(texts, figures): MeasuredPoint| {
        let [kind, job, reason] = <[String; 3]>::try_from(texts).expect("three texts");
        assert_eq!((kind.as_str(), figures.len()), ("job", JOB.figures.len()));
        (job, reason, *figures.first().expect("a number"))
    };
    points(world, "job").into_iter().map(row).collect()
}

fn job(job: &str, reason: &str, number: f64) -> (String, String, f64) {
    (job.to_owned(), reason.to_owned(), number)
}

#[test]
fn a_generation_is_measured_with_each_column() {
    let candidates = [
        candidate(1),
        candidate(2),
        candidate(1),
        json!({ "front": "x".repeat(201), "back": "b", "prompt": "p" }).to_string(),
        json!({ "front": "", "back": "b", "prompt": "p" }).to_string(),
        json!({ "front": "...", "back": "...", "prompt": "..." }).to_string(),
        "7".to_owned(),
        json!({ "front": 1 }).to_string(),
        json!({ "front": "a" }).to_string(),
        candidate(3),
        candidate(4),
        candidate(5),
        candidate(6),
    ];
    let content = ["{\"candidates\":[", &candidates.join(","), "]}"].concat();
    let usage =
        json!({ "choices": [], "usage": { "prompt_tokens": 70, "completion_tokens": 50, "cost": 0.5 } });
    for mode in MODES {
        let world = World::with(mode, &[("MAX_CANDIDATES", "2")]);
        let failed = model_error(502).head_after(100);
        world.model(failed);
        world.model(
            stream()
                .wait(1_000)
                .say(delta(&content))
                .wait(400)
                .say(format!("data: {usage}\n\n"))
                .say("data: [DONE]\n\n"),
        );
        world.database().fail(Operation::Finish, &[Failure::Slow(30)]);
        assert_eq!(world.request(post().stream()).status, 200);
        world.run_for(10_000);
        let point = only_generation(&world);
        assert_eq!(point.0, ["generation", "completed", "a/one", "a/served", "A Provider"], "{mode:?}");
        let [first_ms, model_ms] = figures(&point, ["first_candidate_ms", "model_ms"]);
        assert!(first_ms > 1_100.0 && first_ms < 10_000.0, "{first_ms}");
        assert!((0.0..=400.0).contains(&(model_ms - first_ms)), "{model_ms} {first_ms}");
        let known =
            [2.0, 70.0, 50.0, 0.5, 2.0, 11.0, 2.0, 1.0, 3.0, 1.0, 4.0, 0.0, first_ms, model_ms, 30.0, 1.0];
        assert_eq!(point.1, known, "{mode:?}");
    }
}

/// The outcome, what leads to it, and the expected figures.
type Case = (&'static str, fn(&World), [f64; 4]);

#[test]
fn each_outcome_is_measured_once() {
    let cases: [Case; 9] = [
        // candidates, partial, persisted, attempts
        ("completed", |world| world.model(answer(3)), [3.0, 0.0, 1.0, 1.0]),
        ("completed", |world| world.model(begun(2, 10).cut()), [2.0, 1.0, 1.0, 1.0]),
        ("ai_misconfigured", |world| world.model(model_error(401)), [0.0, 0.0, 1.0, 1.0]),
        ("ai_refused", |world| world.model(model_error(403)), [0.0, 0.0, 1.0, 1.0]),
        ("ai_unavailable", |world| (0..3).for_each(|_| world.model(model_error(503))), [0.0, 0.0, 1.0, 2.0]),
        ("ai_timeout", |world| world.model(stream().hang()), [0.0, 0.0, 1.0, 1.0]),
        (
            "ai_invalid_response",
            |world| (0..3).for_each(|_| world.model(stream().say(delta("no")).say("data: [DONE]\n\n"))),
            [0.0, 0.0, 1.0, 2.0],
        ),
        (
            "database_error",
            |world| {
                world.model(stream().wait(5_000));
                world.database().fail(Operation::Open, &[Failure::Refused(403, "42501")]);
            },
            [0.0, 0.0, 1.0, 1.0],
        ),
        (
            "database_error",
            |world| {
                world.model(stream().wait(5_000));
                world.database().fail_all(Some(Failure::Down));
            },
            [0.0, 0.0, 0.0, 1.0],
        ),
    ];
    for mode in MODES {
        for (name, prepare, expected) in cases {
            let variables =
                [("AI_TIMEOUT_MS", "4000"), ("AI_MAX_ATTEMPTS", "2"), ("AI_IDLE_TIMEOUT_MS", "60000")];
            let world = World::with(mode, &variables);
            prepare(&world);
            world.request(post());
            let point = only_generation(&world);
            let columns = ["candidates", "partial", "persisted", "attempts"];
            assert_eq!((outcome(&point), figures(&point, columns)), (name, expected), "{mode:?}");
            assert_eq!(jobs(&world), [], "{mode:?} {name}");
        }
    }
}

#[test]
fn a_stopped_generation_is_measured_once() {
    for mode in MODES {
        for (candidates, name, expected) in
            [(0, "cancelled", [0.0, 0.0, 1.0, 1.0]), (2, "completed", [2.0, 1.0, 1.0, 1.0])]
        {
            let world = World::new(mode);
            world.model(begun(candidates, 5).hang());
            let id = world.request(post().respond_async()).session();
            world.run_for(1_000);
            assert!(world.request(delete(id)).status < 300);
            world.run_for(60_000);
            let point = only_generation(&world);
            let columns = ["candidates", "partial", "persisted", "attempts"];
            assert_eq!((outcome(&point), figures(&point, columns)), (name, expected), "{mode:?}");
            let [first_ms, model_ms] = figures(&point, ["first_candidate_ms", "model_ms"]);
            assert_eq!((1.0..=255.0).contains(&first_ms), candidates > 0, "{first_ms}");
            assert!((1_000.0..=1_500.0).contains(&model_ms), "{model_ms}");
        }
    }
}

#[test]
fn an_end_that_is_persisted_later_is_measured_once() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        assert_eq!(world.request(post()).code(), "database_error");
        assert_eq!(figures(&only_generation(&world), ["persisted", "candidates"]), [0.0, 3.0], "{mode:?}");
        assert_eq!(jobs(&world), []);
        world.run_for(20_000);
        let failed = [2.0, 3.0, 4.0].map(|number| job("persist", "unavailable", number));
        assert_eq!(jobs(&world), failed, "{mode:?}");
        let ages: Vec<f64> = points(&world, "job").iter().map(|(_, figures)| figures[1]).collect();
        assert!(ages.first().is_some_and(|age| (2_000.0..5_000.0).contains(age)), "{ages:?}");
        assert!(ages.is_sorted() && ages.last() > ages.first(), "{ages:?}");
        world.database().fail_always(Operation::Finish, None);
        world.run_for(60_000);
        assert!(world.store().state().generations.is_empty(), "{mode:?}");
        assert_eq!(jobs(&world), failed, "a job that succeeds writes no point");
        only_generation(&world);
    }
}

#[test]
fn a_job_that_is_refused_ends_with_an_abandoned_one() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail_always(Operation::Finish, Some(Failure::Refused(400, "23514")));
        world.request(post());
        world.run_for(120_000);
        assert_eq!(figures(&only_generation(&world), ["persisted"]), [0.0]);
        assert_eq!(
            jobs(&world),
            [job("persist", "refused", 2.0), job("persist", "abandoned", 3.0)],
            "{mode:?}"
        );
    }
}

#[test]
fn an_end_that_is_kept_too_long_is_measured_as_abandoned() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(model_error(402));
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        world.request(post());
        world.run_for(KEEP_FAILURE_MS + 10_000);
        let (name, reason, _) = jobs(&world).pop().expect("a point");
        assert_eq!((name.as_str(), reason.as_str()), ("persist", "abandoned"), "{mode:?}");
        assert_eq!(outcome(&only_generation(&world)), "ai_misconfigured");
    }
}

#[test]
fn a_generation_is_measured_once_after_a_crash() {
    for mode in WITH_ALARMS {
        let world = World::new(mode);
        world.model(stream().hang());
        world.request(post().respond_async());
        world.run_for(1_000);
        world.crash();
        world.run_for(HEARTBEAT_MS);
        let point = only_generation(&world);
        assert_eq!(
            (outcome(&point), figures(&point, ["attempts", "persisted"])),
            ("completed", [2.0, 1.0]),
            "{mode:?}"
        );
    }
}

#[test]
fn a_resumption_that_fails_is_measured_as_a_job() {
    for mode in WITH_ALARMS {
        let world = World::with(mode, &[("AI_TIMEOUT_MS", "11500")]);
        world.model(stream().hang());
        let id = world.request(post().respond_async()).session();
        world.run_for(1_000);
        world.crash();
        world.database().fail_all(Some(Failure::Down));
        world.run_for(HEARTBEAT_MS + 3_000);
        assert_eq!(points(&world, "generation"), []);
        world.database().fail_all(None);
        world.run_for(60_000);
        assert_eq!(world.database().row(id).expect("a row").status, "failed");
        let failed = jobs(&world);
        assert!(!failed.is_empty(), "{mode:?}");
        assert_eq!(failed.first(), Some(&job("resume", "unavailable", 1.0)), "{mode:?}");
        assert_eq!(outcome(&only_generation(&world)), "ai_timeout");
        let log = world.log_lines();
        let ended: Vec<&Value> = log.iter().filter(|line| line["message"] == "generation").collect();
        assert_eq!(ended.len(), 1, "{mode:?}");
    }
}

#[test]
fn a_generation_that_cannot_be_resumed_is_measured_once() {
    for mode in WITH_ALARMS {
        let world = World::new(mode);
        world.model(stream().hang());
        world.request(post().respond_async().token_ms(2 * KEEP_NOT_PERSISTED_MS));
        world.run_for(1_000);
        world.crash();
        world.database().fail_all(Some(Failure::Down));
        world.run_for(2 * KEEP_FAILURE_MS);
        assert!(world.store().state().generations.is_empty(), "{mode:?}");
        let point = only_generation(&world);
        assert_eq!((outcome(&point), figures(&point, ["persisted"])), ("database_error", [0.0]), "{mode:?}");
        let (name, reason, _) = jobs(&world).pop().expect("a point");
        assert_eq!((name.as_str(), reason.as_str()), ("resume", "abandoned"), "{mode:?}");
    }
}

#[test]
fn each_run_of_a_session_is_measured() {
    for mode in MODES {
        let world = World::with(mode, &[("AI_MAX_ATTEMPTS", "1")]);
        world.model(model_error(503));
        assert_eq!(world.request(post().key("k")).code(), "ai_unavailable");
        let id = world.request(post().key("k")).session();
        assert_eq!(world.request(get(id)).session_status(), "completed");
        let outcomes: Vec<String> =
            points(&world, "generation").iter().map(|point| outcome(point).to_owned()).collect();
        assert_eq!(outcomes, ["ai_unavailable", "completed"], "{mode:?}");
    }
}

#[test]
fn the_log_line_of_a_generation_has_the_measured_facts() {
    let world = World::new(Mode::Rows);
    world.model(slow_answer(2, 1_000));
    world.request(post());
    let valid = [candidate(1), candidate(1), "7".to_owned()].join(",");
    let content = ["{\"candidates\":[", &valid, "]}"].concat();
    world.model(stream().say(delta(&content)).say("data: [DONE]\n\n"));
    world.request(post());
    let log = world.log_lines();
    let lines: Vec<&Value> = log.iter().filter(|line| line["message"] == "generation").collect();
    let facts = |line: &Value| ["provider", "candidates_dropped"].map(|name| line[name].clone());
    let facts: Vec<[Value; 2]> = lines.iter().map(|line| facts(line)).collect();
    assert_eq!(facts, [[json!("A Provider"), json!(0)], [json!("A Provider"), json!(2)]]);
    let first_ms = lines.first().and_then(|line| line["first_candidate_ms"].as_u64());
    assert!(first_ms.is_some_and(|ms| (1_000..=1_250).contains(&ms)), "{first_ms:?}");
}

#[test]
fn each_stage_of_a_traced_generation_is_a_span() {
    for mode in MODES {
        let world = World::new(mode);
        world.trace();
        world.model(model_error(503));
        world.model(slow_answer(2, 100));
        assert_eq!(world.request(post()).status, 201);
        let read = ["call_model", "/call_model", "read_answer", "/read_answer"];
        let expected =
            [&["open_row"], &read[..1], &["/open_row"], &read[1..], &read[..], &["persist", "/persist"]]
                .concat();
        assert_eq!(world.spans(), expected, "{mode:?}");
    }
}

#[test]
fn every_span_ends_with_a_stop_or_a_failure() {
    for mode in MODES {
        let world = World::new(mode);
        world.trace();
        world.model(begun(1, 10).hang());
        let id = world.request(post().respond_async()).session();
        world.run_for(1_000);
        world.request(delete(id));
        world.database().fail_all(Some(Failure::Down));
        world.request(post());
        world.run_for(60_000);
        let spans = world.spans();
        let (ends, begins): (Vec<&String>, Vec<&String>) =
            spans.iter().partition(|name| name.starts_with('/'));
        assert!(begins.len() > 6, "{spans:?}");
        assert_eq!(begins.len(), ends.len(), "{mode:?}: {spans:?}");
    }
}

#[test]
fn a_generation_without_a_sampled_trace_begins_one_span() {
    for mode in MODES {
        let world = World::new(mode);
        world.request(post());
        assert_eq!(world.spans(), ["open_row"], "{mode:?}");
    }
}
