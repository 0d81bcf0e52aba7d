//! Due jobs: a generation is resumed after a crash, an ending is persisted with backoff, and an idle state is deleted.

#![expect(clippy::expect_used, reason = "a session without its parts fails the test")]

use ai_sessions::user_state::{
    ALARM_MIN_MS, HEARTBEAT_MS, KEEP_FAILURE_MS, KEEP_NOT_PERSISTED_MS, NOT_PERSISTED_MAX,
};
use serde_json::Value;
use uuid::Uuid;

use crate::scripted_client::{delete, get, post, post_text};
use crate::scripted_database::{Failure, Operation};
use crate::scripted_model::{answer, model_error, stream};
use crate::scripted_store::Mode;
use crate::scripted_world::{START_MS, World};

/// The modes of a host whose alarms outlive a crash.
const WITH_ALARMS: [Mode; 2] = [Mode::Rows, Mode::Memory];
const MODES: [Mode; 3] = [Mode::Rows, Mode::Memory, Mode::Shared];

fn only_generation(world: &World) -> Uuid {
    let state = world.store().state();
    assert_eq!(state.generations.len(), 1);
    state.generations.first().expect("there is one").accepted.id
}

/// When the ending of a session was sent to the database, in milliseconds after the start.
fn finishes(world: &World) -> Vec<u64> {
    let sent = world.host().sent().into_iter();
    let finishes = sent.filter(|sent| sent.request.url.contains("finish_ai_session"));
    finishes.map(|sent| sent.at_ms - START_MS).collect()
}

fn lines<'a>(log: &'a [Value], message: &str) -> Vec<&'a Value> {
    log.iter().filter(|line| line["message"] == message).collect()
}

#[test]
fn the_alarm_resumes_a_generation_after_a_crash() {
    for mode in WITH_ALARMS {
        let world = World::new(mode);
        world.model(stream().hang());
        let id = world.request(post().respond_async()).session();
        world.run_for(1_000);
        world.crash();
        // No request of the owner resumes it.
        assert_eq!(world.database().row(id).expect("a row").status, "generating");
        world.run_for(HEARTBEAT_MS);
        assert_eq!(world.database().row(id).expect("a row").status, "completed", "{mode:?}");
        assert_eq!(world.model_calls(), 2);
    }
}

#[test]
fn a_resumed_generation_too_near_its_deadline_makes_no_call() {
    for mode in WITH_ALARMS {
        let world = World::with(mode, &[("AI_TIMEOUT_MS", "10500")]);
        world.model(stream().hang());
        let id = world.request(post().respond_async()).session();
        world.run_for(100);
        world.crash();
        world.run_for(HEARTBEAT_MS + 1_000);
        let row = world.database().row(id).expect("a row");
        assert_eq!(
            (row.status.as_str(), row.error_code.as_deref()),
            ("failed", Some("ai_timeout")),
            "{mode:?}"
        );
        assert_eq!(world.model_calls(), 1);
        let log = world.log_lines();
        assert_eq!(lines(&log, "generation").len(), 1);
        assert_eq!(lines(&log, "generation")[0]["note"], "ended after a crash");
    }
}

#[test]
fn a_request_resumes_a_generation_before_the_alarm_does() {
    for mode in MODES {
        for request in [get, delete] {
            let world = World::new(mode);
            world.model(stream().hang());
            let id = world.request(post().respond_async()).session();
            world.run_for(1_000);
            world.crash();
            let resumed = world.request(request(id));
            assert!(resumed.status < 300, "{mode:?}: {}", resumed.status);
            world.let_owner_return();
            world.run_for(100);
            assert_ne!(world.database().row(id).expect("a row").status, "generating");
        }
    }
}

#[test]
fn an_ending_is_persisted_with_a_backoff_that_doubles() {
    for mode in MODES {
        let world = World::with(mode, &[("AI_TIMEOUT_MS", "600000")]);
        world.database().fail_always(Operation::Finish, Some(Failure::Refused(500, "XX000")));
        assert_eq!(world.request(post()).code(), "database_error");
        world.run_for(1_800_000);
        let finishes = finishes(&world);
        // Three requests an attempt, the last of them 500 ms after the first.
        let attempts: Vec<_> = finishes.iter().copied().step_by(3).collect();
        let gaps: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0] - 500).collect();
        assert_eq!(
            gaps.get(..8),
            Some(&[2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000][..]),
            "{mode:?}"
        );
        assert!(gaps.iter().skip(8).all(|gap| *gap == 300_000), "{gaps:?}");
        // It is one bill, and its candidates are kept.
        assert_eq!(world.model_calls(), 1);
        assert_eq!(world.store().state().generations[0].candidates.len(), 3);
        assert_eq!(world.used(&world.store().state())[1], 1, "it is not refunded");
    }
}

#[test]
fn at_most_two_endings_are_persisted_at_the_same_time() {
    let variables = [("RATE_LIMIT_CONCURRENT", "9"), ("RATE_LIMIT_BURST", "100/60")];
    for mode in MODES {
        let world = World::with(mode, &variables);
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        let texts: Vec<String> = (0..5).map(|number| format!("text {number} ").repeat(200)).collect();
        let calls: Vec<_> = texts.iter().map(|text| world.send(post_text(text))).collect();
        for call in &calls {
            assert_eq!(world.wait(call).code(), "database_error");
        }
        let before = finishes(&world).len();
        world.database().fail_always(Operation::Finish, Some(Failure::Slow(1_000)));
        world.run_for(2_900);
        assert_eq!(finishes(&world).len(), before + 2, "{mode:?}");
        world.run_for(60_000);
        assert!(world.store().state().generations.is_empty());
        assert_eq!(finishes(&world).len(), before + 5, "each is persisted once");
        assert_eq!(world.database().rows().len(), 5);
    }
}

#[test]
fn the_named_session_is_persisted_first() {
    let variables = [("RATE_LIMIT_CONCURRENT", "9"), ("RATE_LIMIT_BURST", "100/60")];
    for mode in MODES {
        let world = World::with(mode, &variables);
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        let texts: Vec<String> = (0..5).map(|number| format!("text {number} ").repeat(200)).collect();
        for text in &texts {
            assert_eq!(world.request(post_text(text)).code(), "database_error");
        }
        world.run_for(600_000);
        world.database().fail_always(Operation::Finish, None);
        let last = world.store().state().generations.last().expect("five").accepted.id;
        let found = world.request(get(last));
        assert_eq!((found.session_status().as_str(), found.candidates()), ("completed", 3), "{mode:?}");
        assert_eq!(world.database().row(last).expect("a row").status, "completed");
    }
}

#[test]
fn a_billed_result_is_abandoned_after_24_hours_with_an_error() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        world.request(post().key("k").token_ms(2 * KEEP_NOT_PERSISTED_MS));
        let ended_ms = world.store().state().generations[0].ending.as_ref().expect("it has ended").ended_ms;
        world.run_for(ended_ms + KEEP_NOT_PERSISTED_MS - 400_000 - world.host_now());
        assert_eq!(world.store().state().generations.len(), 1, "{mode:?}");
        world.run_for(800_000);
        assert!(world.store().state().generations.is_empty(), "{mode:?}");
        let log = world.log_lines();
        let abandoned = lines(&log, "abandoned");
        assert_eq!((abandoned.len(), &abandoned[0]["level"]), (1, &Value::from("error")));
        world.run_to_idle();
        assert!(world.store().is_empty());
    }
}

#[test]
fn a_failure_is_abandoned_after_10_minutes() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(model_error(402));
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        assert_eq!(
            world.request(post().key("k")).code(),
            "ai_misconfigured",
            "the failure of the model is reported"
        );
        let id = only_generation(&world);
        world.run_for(KEEP_FAILURE_MS - 10_000);
        assert_eq!(only_generation(&world), id);
        world.run_for(20_000);
        assert!(world.store().state().generations.is_empty(), "{mode:?}");
        assert_eq!(lines(&world.log_lines(), "abandoned").len(), 1);
        // The owner's next GET ends the row.
        world.database().fail_always(Operation::Finish, None);
        assert_eq!(world.request(get(id)).session_status(), "failed");
        let row = world.database().row(id).expect("a row");
        assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("failed", Some("database_error")));
        // The key is not free: no retry can change this failure.
        assert_eq!((world.request(post().key("k")).status, world.model_calls()), (500, 1));
    }
}

#[test]
fn a_retry_takes_over_an_expired_failure_without_abandoning_it() {
    for mode in MODES {
        let world = World::with(mode, &[("AI_MAX_ATTEMPTS", "1")]);
        world.model(model_error(503));
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        assert_eq!(world.request(post().key("k")).code(), "ai_unavailable");
        let id = only_generation(&world);
        // The alarm is lost.
        world.store().take_alarm();
        world.host().set_now_ms(world.host_now() + KEEP_FAILURE_MS + 1);
        world.database().fail_always(Operation::Finish, None);
        let created = world.request(post().key("k"));
        assert_eq!((created.status, created.session()), (201, id), "{mode:?}");
        assert!(lines(&world.log_lines(), "abandoned").is_empty(), "{mode:?}");
    }
}

#[test]
fn an_ending_that_is_refused_for_good_is_abandoned_after_3_tries() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail_always(Operation::Finish, Some(Failure::Refused(400, "23514")));
        assert_eq!(world.request(post().key("k")).code(), "database_error");
        world.run_for(120_000);
        assert_eq!(finishes(&world).len(), 3, "{mode:?}");
        assert!(world.store().state().generations.is_empty());
        assert_eq!(lines(&world.log_lines(), "abandoned").len(), 1);
        // The key can start another run.
        world.database().fail_always(Operation::Finish, None);
        assert_eq!(world.request(post().key("k")).status, 201, "{mode:?}");
        assert_eq!(world.model_calls(), 2);
    }
}

#[test]
fn an_expired_token_is_replaced_by_that_of_the_next_request() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        world.request(post().key("k").token_ms(60_000));
        world.run_for(300_000);
        let before = finishes(&world).len();
        world.database().fail_always(Operation::Finish, None);
        world.run_for(600_000);
        assert_eq!(finishes(&world).len(), before, "{mode:?}: no attempt with an expired token");
        let created = world.request(post().key("k"));
        assert_eq!((created.status, created.candidates(), world.model_calls()), (201, 3, 1), "{mode:?}");
        assert!(world.store().state().generations.is_empty());
    }
}

#[test]
fn any_request_of_the_owner_persists_pending_endings() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail_always(Operation::Finish, Some(Failure::Down));
        world.request(post().key("k").token_ms(60_000));
        let id = only_generation(&world);
        world.run_for(300_000);
        world.database().fail_always(Operation::Finish, None);
        assert_eq!(world.request(post_text(&"another ".repeat(200))).status, 201);
        world.run_tasks();
        assert_eq!(world.database().row(id).expect("a row").status, "completed", "{mode:?}");
        assert_eq!(world.model_calls(), 2);
    }
}

#[test]
fn at_most_20_generations_are_not_yet_persisted() {
    let variables = [("RATE_LIMIT_BURST", "100/60"), ("AI_TIMEOUT_MS", "1000")];
    for mode in MODES {
        let world = World::with(mode, &variables);
        world.database().fail_always(Operation::Finish, Some(Failure::Refused(500, "XX000")));
        for number in 0..NOT_PERSISTED_MAX {
            let failed = world.request(post_text(&format!("text {number} ").repeat(200)));
            assert_eq!(failed.code(), "database_error", "{mode:?} {number}");
        }
        assert_eq!(world.store().state().generations.len(), NOT_PERSISTED_MAX);
        let refused = world.request(post());
        assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"), "{mode:?}");
        assert_eq!(refused.json()["violated-policies"], serde_json::json!(["concurrent"]));
        assert_eq!(world.model_calls(), NOT_PERSISTED_MAX);
        world.database().fail_always(Operation::Finish, None);
        world.run_for(700_000);
        assert_eq!(world.request(post()).status, 201);
    }
}

#[test]
fn no_alarm_is_sooner_than_a_second_and_none_is_lost() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail(Operation::Finish, &[Failure::Down; 30]);
        world.model(model_error(503));
        world.request(post().key("k"));
        world.run_to_idle();
        let alarms = world.store().alarms();
        assert!(alarms.iter().all(|(set_ms, at_ms)| *at_ms >= set_ms + ALARM_MIN_MS), "{alarms:?}");
        assert!(alarms.len() < 200, "{mode:?}: {}", alarms.len());
        assert!(world.store().is_empty(), "an idle state is deleted");
        assert_eq!(world.store().deletions(), 1);
        // Its records have expired by then, and its quota is not used.
        assert!(world.host_now() >= START_MS + 24 * 3_600_000);
    }
}

#[test]
fn an_alarm_that_fails_is_repeated() {
    for mode in WITH_ALARMS {
        let world = World::new(mode);
        world.model(stream().hang());
        let id = world.request(post().respond_async()).session();
        world.run_for(1_000);
        world.crash();
        world.store().set_down(true);
        world.run_for(HEARTBEAT_MS);
        assert_eq!(lines(&world.log_lines(), "alarm failed").len(), 1, "{mode:?}");
        assert!(world.store().alarm_ms().is_some());
        world.store().set_down(false);
        world.run_for(60_000);
        assert_ne!(world.database().row(id).expect("a row").status, "generating");
    }
}

#[test]
fn a_deletion_that_fails_is_repeated() {
    for mode in MODES {
        let world = World::new(mode);
        world.request(post());
        world.store().fail_deletions(1);
        world.run_to_idle();
        assert_eq!(lines(&world.log_lines(), "alarm failed").len(), 1, "{mode:?}");
        assert_eq!(world.store().deletions(), 1);
    }
}

#[test]
fn an_idle_object_is_usable_again() {
    for mode in MODES {
        let world = World::new(mode);
        for _ in 0..2 {
            assert_eq!(world.request(post().key("k")).quota(), [9, 49, 149], "{mode:?}");
            world.run_to_idle();
            assert!(world.store().is_empty());
        }
        assert_eq!(world.database().rows().len(), 2, "an expired key has another session");
    }
}

#[test]
fn a_generation_that_runs_is_not_resumed_by_its_heartbeats() {
    for mode in WITH_ALARMS {
        let world = World::new(mode);
        world.model(crate::scripted_model::slow_answer(5, 10_100));
        assert_eq!(world.request(post()).candidates(), 5);
        assert_eq!((world.model_calls(), world.database().count(Operation::Open)), (1, 1), "{mode:?}");
        let heartbeats = world.store().alarms().len();
        assert!((5..=8).contains(&heartbeats), "{heartbeats}");
    }
}

#[test]
fn a_user_that_does_not_exist_is_rejected_until_the_token_expires() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail_always(Operation::Open, Some(Failure::Refused(409, "23503")));
        world.database().fail_always(Operation::Finish, Some(Failure::Refused(409, "23503")));
        world.model(answer(3));
        let token = world.token(crate::scripted_client::USER, 600_000);
        let request = || post().with("authorization", &["Bearer ", &token].concat());
        assert!(world.request(request()).status >= 400);
        let calls = world.model_calls();
        let rejected = world.request(request());
        assert_eq!((rejected.status, rejected.code().as_str()), (401, "invalid_token"), "{mode:?}");
        assert_eq!(world.model_calls(), calls);
        world.run_for(700_000);
        world.database().fail_always(Operation::Open, None);
        world.database().fail_always(Operation::Finish, None);
        assert_eq!(world.request(post()).status, 201, "{mode:?}");
    }
}

#[test]
fn a_firewall_is_reported_as_not_retryable() {
    for mode in MODES {
        let world = World::new(mode);
        world.database().fail_always(Operation::Finish, Some(Failure::Firewall(403)));
        let failed = world.request(post().key("k"));
        assert_eq!(
            (failed.code().as_str(), failed.json()["retryable"].as_bool()),
            ("database_error", Some(false))
        );
        assert_eq!(world.store().state().generations.len(), 1, "{mode:?}: the candidates are kept");
        world.database().fail_always(Operation::Finish, None);
        assert_eq!(world.request(post().key("k")).status, 201);
        assert_eq!(world.model_calls(), 1);
    }
}

#[test]
fn a_row_that_a_firewall_refuses_keeps_its_key() {
    for mode in MODES {
        let world = World::new(mode);
        world.model(stream().hang());
        world.database().fail_always(Operation::Open, Some(Failure::Firewall(403)));
        let failed = world.request(post().key("k"));
        assert_eq!(
            (failed.code().as_str(), failed.json()["retryable"].as_bool()),
            ("database_error", Some(false))
        );
        world.run_for(1_000);
        // No retry can help, so none is made.
        let again = world.request(post().key("k"));
        assert_eq!(
            (again.code().as_str(), again.json()["retryable"].as_bool()),
            ("database_error", Some(false)),
            "{mode:?}"
        );
        assert_eq!((world.model_calls(), world.database().count(Operation::Open)), (0, 1));
    }
}
