//! `GET /health/ready`: can a generation succeed now? One row per dependency, asked at the same time.

use futures_util::future::join3;

use crate::answer::documents::{Check, Ready, to_json};
use crate::answer::readiness::Next;
use crate::config::{Config, ConfigError};
use crate::http::{Answer, JSON};
use crate::ports::{Background, Clock, Fetch, IsolateMemory, Timer, within};
use crate::{openrouter, supabase};

/// A dependency that takes longer is not one that a caller would wait for.
const TIMEOUT_MS: u64 = 5000;
/// Requests of one isolate cannot wait for each other's promises, so they look.
const LOOK_AGAIN_MS: u64 = 20;

/// 200 when all are well, else 503. The check is work of its own, which goes on when the client that asked leaves: a
/// client that asks and hangs up must not make the next one ask the dependencies again.
pub async fn ready(host: &impl ReadyHost, config: &Result<Config, Vec<ConfigError>>) -> Answer {
    loop {
        match host.with_memory(|memory| memory.readiness.next(host.now_ms())) {
            Next::Say(answer) => return answer,
            Next::Wait => host.sleep(LOOK_AGAIN_MS).await,
            Next::Check => {
                let (behind, config) = (host.clone(), config.clone());
                host.after_answer(async move {
                    let answer = check(&behind, &config).await;
                    behind.with_memory(|memory| memory.readiness.checked(answer, behind.now_ms()));
                });
            }
        }
    }
}

/// All that it may touch.
pub trait ReadyHost: Fetch + Timer + Clock + IsolateMemory + Background + 'static {}
impl<H: Fetch + Timer + Clock + IsolateMemory + Background + 'static> ReadyHost for H {}

async fn check(host: &(impl Fetch + Timer + Clock), config: &Result<Config, Vec<ConfigError>>) -> Answer {
    let checks = match config {
        Ok(config) => check_all(host, config).await,
        Err(errors) => errors.iter().map(misconfigured).collect(),
    };
    let (status, word) = if checks.iter().all(|check| check.ok) { (200, "ok") } else { (503, "unavailable") };
    Answer::new(status, JSON, to_json(&Ready { status: word, checks: &checks }))
        .with("cache-control", "no-store")
}

fn misconfigured(error: &ConfigError) -> Check {
    let detail = [error.variable, " ", error.expected].concat();
    Check { name: "configuration", ok: false, latency_ms: 0, detail: Some(detail) }
}

async fn check_all(host: &(impl Fetch + Timer + Clock), config: &Config) -> Vec<Check> {
    let (auth_keys, database, model_api) = join3(
        check_one(host, "auth_keys", supabase::keys::probe(host, &config.supabase)),
        check_one(host, "database", supabase::rest::probe(host, &config.supabase)),
        check_one(host, "model_api", openrouter::key::probe(host, &config.model_api)),
    )
    .await;
    let configuration = Check { name: "configuration", ok: true, latency_ms: 0, detail: None };
    vec![configuration, auth_keys, database, model_api]
}

async fn check_one(
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
