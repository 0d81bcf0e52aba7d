//! `GET /health/ready`: can a generation succeed now? One row per dependency, asked at the same time.

use futures_util::future::join3;

use crate::answer::documents::{Check, Ready, to_json};
use crate::answer::readiness::Next;
use crate::config::{Config, ConfigError};
use crate::http::{Answer, JSON};
use crate::ports::{Clock, Fetch, IsolateMemory, Timer, within};
use crate::{openrouter, supabase};

/// A dependency that takes longer is not one that a caller would wait for.
const TIMEOUT_MS: u64 = 5000;
/// Requests of one isolate cannot wait for each other's promises, so they look.
const LOOK_AGAIN_MS: u64 = 20;

/// 200 when all are well, else 503.
pub async fn ready(
    host: &(impl Fetch + Timer + Clock + IsolateMemory),
    config: &Result<Config, Vec<ConfigError>>,
) -> Answer {
    loop {
        match host.with_memory(|memory| memory.readiness.next(host.now_ms())) {
            Next::Say(answer) => return answer,
            Next::Wait => host.sleep(LOOK_AGAIN_MS).await,
            Next::Check => break,
        }
    }
    let checks = match config {
        Ok(config) => check_all(host, config).await,
        Err(errors) => errors.iter().map(misconfigured).collect(),
    };
    let (status, word) = if checks.iter().all(|check| check.ok) { (200, "ok") } else { (503, "unavailable") };
    let answer = Answer::new(status, JSON, to_json(&Ready { status: word, checks: &checks }))
        .with("cache-control", "no-store");
    host.with_memory(|memory| memory.readiness.checked(answer.clone(), host.now_ms()));
    answer
}

fn misconfigured(error: &ConfigError) -> Check {
    let detail = [error.variable, " ", error.expected].concat();
    Check { name: "configuration", ok: false, latency_ms: 0, detail: Some(detail) }
}

async fn check_all(host: &(impl Fetch + Timer + Clock), config: &Config) -> Vec<Check> {
    let (auth_keys, database, model_api) = join3(
        check(host, "auth_keys", supabase::keys::probe(host, &config.supabase)),
        check(host, "database", supabase::rest::probe(host, &config.supabase)),
        check(host, "model_api", openrouter::key::probe(host, &config.model_api)),
    )
    .await;
    let configuration = Check { name: "configuration", ok: true, latency_ms: 0, detail: None };
    vec![configuration, auth_keys, database, model_api]
}

async fn check(
    host: &(impl Timer + Clock),
    name: &'static str,
    probe: impl Future<Output = Result<(), String>>,
) -> Check {
    let began_ms = host.now_ms();
    let probed =
        within(host, TIMEOUT_MS, probe).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    let latency_ms = host.now_ms().saturating_sub(began_ms);
    Check { name, ok: probed.is_ok(), latency_ms, detail: probed.err() }
}
