//! `GET /health/ready`: can a generation succeed now? One row per dependency, checked at the same time.

use std::rc::Rc;

use futures_util::future::join3;

use crate::config::{Config, ConfigError, Misconfigured};
use crate::edge::documents::{Check, Ready};
use crate::http::{JSON, Response, to_json};
use crate::ports::{Background, Clock, Fetch, IsolateMemory, Timer, within};
use crate::readiness::Next;
use crate::user_object::session_view::rfc3339;
use crate::{openrouter, supabase};

/// A caller would not wait longer for a dependency.
const TIMEOUT_MS: u64 = 5000;
/// Requests of one isolate cannot wait for each other's promises, so they poll.
const POLL_MS: u64 = 20;

/// 200 when all dependencies are available, else 503. The check is a task of its own, which continues when the client leaves: a
/// client that disconnects must not make the next one check the dependencies again.
pub async fn ready(host: &impl ReadyHost, config: &Result<Rc<Config>, Misconfigured>) -> Response {
    loop {
        match host.with_memory(|memory| memory.readiness.next(host.now_ms())) {
            Next::Send(response) => return response,
            Next::Wait => host.sleep(POLL_MS).await,
            Next::Check => {
                let (behind, config) = (host.clone(), config.clone());
                host.after_response(async move {
                    let response = check(&behind, &config).await;
                    behind.with_memory(|memory| memory.readiness.checked(response, behind.now_ms()));
                });
            }
        }
    }
}

/// Everything that it needs of its host.
pub trait ReadyHost: Fetch + Timer + Clock + IsolateMemory + Background + 'static {}
impl<H: Fetch + Timer + Clock + IsolateMemory + Background + 'static> ReadyHost for H {}

async fn check(
    host: &(impl Fetch + Timer + Clock + IsolateMemory),
    config: &Result<Rc<Config>, Misconfigured>,
) -> Response {
    let checks = match config {
        Ok(config) => check_all(host, config).await,
        Err(Misconfigured { errors, .. }) => errors.iter().map(misconfigured).collect(),
    };
    let (status, name) = if checks.iter().all(|check| check.ok) { (200, "ok") } else { (503, "unavailable") };
    Response::new(status, JSON, to_json(&Ready { status: name, checks: &checks }))
        .with("cache-control", "no-store")
}

/// Without `since`: the configuration of an isolate never changes, so the time would be that of the isolate's first check.
fn misconfigured(error: &ConfigError) -> Check {
    let detail = [error.variable, " ", error.expected].concat();
    Check { name: "configuration", ok: false, latency_ms: 0, detail: Some(detail), since: None }
}

async fn check_all(host: &(impl Fetch + Timer + Clock + IsolateMemory), config: &Config) -> Vec<Check> {
    let began_ms = host.now_ms();
    let (auth_keys, database, model_api) = join3(
        check_one(host, "auth_keys", supabase::keys::probe(host, &config.supabase)),
        check_one(host, "database", check_database(host, config)),
        check_one(host, "model_api", openrouter::probe::probe(host, &config.model_api)),
    )
    .await;
    let mut dependencies = [auth_keys, database, model_api];
    let ok = dependencies.each_ref().map(|check| check.ok);
    let since_ms = host.with_memory(|memory| memory.readiness.since(ok, began_ms));
    for (check, since_ms) in dependencies.iter_mut().zip(since_ms) {
        check.since = since_ms.map(rfc3339);
    }
    let [auth_keys, database, model_api] = dependencies;
    let configuration = Check { name: "configuration", ok: true, latency_ms: 0, detail: None, since: None };
    vec![configuration, auth_keys, database, model_api]
}

/// Where the database has the user state too, the check of its key is the one request: its function is created after the tables.
async fn check_database(host: &(impl Fetch + Clock + Timer), config: &Config) -> Result<(), String> {
    match &config.user_state_key {
        Some(_) => supabase::user_store::check(host, config).await,
        None => supabase::rest::probe(host, &config.supabase).await,
    }
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
    Check { name, ok: probed.is_ok(), latency_ms, detail: probed.err(), since: None }
}
