//! The time of each pure stage of a generation: the check of the token (without its signature), the candidates of the model's
//! answer, their check against the text, the quota of the user.

use std::hint::black_box;

use ai_sessions::auth::bearer::BearerToken;
use ai_sessions::auth::claims::{Expected, check};
use ai_sessions::auth::token::UnverifiedToken;
use ai_sessions::citation::check::Checker;
use ai_sessions::citation::sentences::Sentences;
use ai_sessions::generation::candidate::Candidates;
use ai_sessions::generation::candidate_reader::CandidateReader;
use ai_sessions::openrouter::response_reader::{End, ResponseReader};
use ai_sessions::quota::{Ledger, Policies, Quota};
use base64ct::{Base64UrlUnpadded, Encoding};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use uuid::Uuid;

const NOW_MS: u64 = 1_795_500_000_000;
const ISSUER: &str = "https://project.supabase.co/auth/v1";
/// Some five tokens, as providers send them.
const PART_BYTES: usize = 20;

fn token_check(criterion: &mut Criterion) {
    let part = |part: &Value| Base64UrlUnpadded::encode_string(part.to_string().as_bytes());
    let header = json!({ "alg": "ES256", "kid": "5d3e2c1b-0000-4000-8000-00000000000a", "typ": "JWT" });
    let now_s = NOW_MS / 1000;
    let claims = json!({
        "iss": ISSUER, "sub": "018f3a3e-0000-4000-8000-000000000001", "aud": "authenticated", "exp": now_s + 3600, "iat": now_s,
        "email": "learner@example.test", "phone": "", "app_metadata": { "provider": "email", "providers": ["email"] },
        "user_metadata": {}, "role": "authenticated", "aal": "aal1", "amr": [{ "method": "password", "timestamp": now_s }],
        "session_id": "018f3a3e-0000-4000-8000-000000000002", "is_anonymous": false,
    });
    let signature = Base64UrlUnpadded::encode_string(&[7; 64]);
    let field = format!("Bearer {}.{}.{signature}", part(&header), part(&claims));
    let expected = Expected { issuer: ISSUER, allow_anonymous: false };
    criterion.bench_function("token check, without its signature", |bencher| {
        bencher.iter(|| {
            let token = BearerToken::read(Some(black_box(&field))).expect("it is a bearer token");
            let token = UnverifiedToken::read(token).expect("it is a token");
            check(&token.claims().expect("they are claims"), &expected, NOW_MS).expect("they are valid")
        });
    });
}

/// A model's message.
fn message(candidates: usize) -> String {
    let candidate = |number| {
        json!({
            "front": format!("{number}. What carries water from the sea into the air?"),
            "back": "Evaporation: the sun's heat turns surface water into vapour, which rises with warm air.",
            "prompt": format!("Tests step {number} of the way of water through sea, air and land."),
        })
    };
    json!({ "candidates": (1..=candidates).map(candidate).collect::<Vec<_>>() }).to_string()
}

/// The message as a stream: an event for each part.
fn events(message: &str) -> Vec<Vec<u8>> {
    let event = |delta: Value, finish_reason: Value| {
        let choices = [json!({ "index": 0, "delta": delta, "finish_reason": finish_reason })];
        let chunk = json!({ "id": "gen-1", "provider": "P", "model": "a/1", "object": "chat.completion.chunk", "choices": choices });
        format!("data: {chunk}\n\n").into_bytes()
    };
    let parts = message.as_bytes().chunks(PART_BYTES).map(|part| str::from_utf8(part).expect("it is ASCII"));
    let mut events: Vec<_> = parts.map(|part| event(json!({ "content": part }), Value::Null)).collect();
    events.push(event(json!({ "content": "" }), json!("stop")));
    events.push(b"data: [DONE]\n\n".to_vec());
    events
}

fn candidate_reader(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("candidates out of a message, in parts of 20 bytes");
    for candidates in [8, 50, 200] {
        let message = message(candidates);
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(candidates), |bencher| {
            bencher.iter(|| {
                let mut reader = CandidateReader::default();
                let mut found = 0;
                for part in message.as_bytes().chunks(PART_BYTES) {
                    reader.push(part, &mut |candidate| {
                        found += usize::from(black_box(candidate).is_ok());
                        true
                    });
                }
                assert!(reader.is_closed());
                found
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("candidates out of a stream, event by event");
    for candidates in [8, 50, 200] {
        let events = events(&message(candidates));
        group.throughput(Throughput::Bytes(events.iter().map(Vec::len).sum::<usize>() as u64));
        group.bench_function(BenchmarkId::from_parameter(candidates), |bencher| {
            bencher.iter(|| {
                let (mut candidates, mut list) = (Candidates::new(candidates), Vec::new());
                let mut take = |found| candidates.add(found).map(|candidate| list.push(candidate)).is_ok();
                let mut reader = ResponseReader::new(200, "text/event-stream", None);
                for event in &events {
                    reader.push(black_box(event), &mut take);
                }
                assert_eq!(reader.end(End::Regular, &mut take).failure, None);
                list
            });
        });
    }
    group.finish();
}

/// A text of 10000 characters: split and numbered for the prompt, read for the check, and 20 candidates checked.
fn citation(criterion: &mut Criterion) {
    let sentence =
        "Water rises from the sea as vapour, cools high above the land and falls as rain in the mountains. ";
    let text: String = sentence.chars().cycle().take(10_000).collect();
    let text = text.trim();
    let sentences = Sentences::of(text);
    criterion.bench_function("citation: sentences, numbered, 10000 characters", |bencher| {
        bencher.iter(|| Sentences::of(black_box(text)).numbered(text));
    });
    criterion.bench_function("citation: text of 10000 characters, read for the check", |bencher| {
        bencher.iter(|| Checker::new(black_box(text), &sentences));
    });
    criterion.bench_function("citation: 20 candidates", |bencher| {
        bencher.iter_batched_ref(
            || Checker::new(text, &sentences),
            |checker| {
                for number in 1..=20 {
                    let front = "What carries water from the sea into the air?";
                    let back = "Evaporation: the sun's heat turns surface water into vapour, which rises with warm air.";
                    black_box(checker.check(front, back, &[number]));
                }
            },
            BatchSize::SmallInput,
        );
    });
}

fn quota(criterion: &mut Criterion) {
    const TEXT_BYTES: usize = 3_000;
    let policies = Policies {
        burst: Quota { count: 10, window_s: 60 },
        generations: Quota { count: 50, window_s: 86_400 },
        attempts: Quota { count: 150, window_s: 86_400 },
        concurrent: 2,
        spend: None,
    };
    // A user in the middle of the day.
    let mut used = Ledger::default();
    for generation in 0..40_u64 {
        let (id, now_ms) = (Uuid::from_u128(generation.into()), NOW_MS + generation * 600_000);
        used.count_request(&policies, now_ms).expect("quota is available");
        used.reserve(&policies, id, TEXT_BYTES, 120_000, now_ms).expect("quota is available");
        used.release(id);
    }
    let now_ms = NOW_MS + 40 * 600_000;
    let id = Uuid::from_u128(40);
    criterion.bench_function("quota: count, reserve, release", |bencher| {
        bencher.iter_batched_ref(
            || used.clone(),
            |ledger| {
                ledger.count_request(&policies, now_ms).expect("quota is available");
                ledger.reserve(&policies, black_box(id), TEXT_BYTES, 120_000, now_ms).expect("quota is available");
                ledger.release(id);
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(stages, token_check, candidate_reader, citation, quota);
criterion_main!(stages);
