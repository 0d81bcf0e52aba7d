//! The key set of the sign-in service, from `{SUPABASE_URL}/auth/v1/.well-known/jwks.json`, a cache of it, or the settings.

use uuid::Uuid;

use crate::auth::jwk::{PublicKey, read_key_set};
use crate::auth::key_cache::STALE_MS;
use crate::config::Supabase;
use crate::http::Request;
use crate::ports::{Clock, Exchange, Fetch, Limits, SharedCache, Timer};

/// The longest key set; a key has some 300 bytes.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024;
/// A caller waits for a fetch at most once in 30 s of an isolate.
const TIMEOUT_MS: u64 = 5000;
/// The decimal digits of the time of the fetch, which precede the document in the cache.
const STAMP_BYTES: usize = 16;

/// Keys and the time of their fetch.
#[derive(Debug, Clone)]
pub struct DatedKeys {
    /// At least one, unless the project signs with a shared secret.
    pub keys: Vec<PublicKey>,
    /// Milliseconds since the epoch.
    pub fetched_ms: u64,
}

/// Returns the `iss` of every token of this project.
#[must_use]
pub fn issuer(supabase: &Supabase) -> String {
    [&supabase.url, "/auth/v1"].concat()
}

fn url(supabase: &Supabase) -> String {
    [&supabase.url, "/auth/v1/.well-known/jwks.json"].concat()
}

/// Reads a key set with a usable key; one without must not replace stored keys. Only a project that still signs with a shared
/// secret publishes none.
fn read(supabase: &Supabase, document: &[u8], fetched_ms: u64) -> Option<DatedKeys> {
    let keys = read_key_set(document)?;
    (!keys.is_empty() || supabase.jwt_secret.is_some()).then_some(DatedKeys { keys, fetched_ms })
}

/// Returns the keys that the deployment's settings have; `None` without a usable one.
#[must_use]
pub fn configured(supabase: &Supabase) -> Option<Vec<PublicKey>> {
    read_key_set(supabase.jwks.as_deref()?.as_bytes()).filter(|keys| !keys.is_empty())
}

/// Returns the cache URL of the key set: on the host that the request was sent to (`origin`) but no route, so that it never contains another
/// response. It names the project, because deployments of several projects may share a host.
fn cache_url(supabase: &Supabase, origin: &str) -> String {
    let project = Uuid::new_v5(&Uuid::NAMESPACE_URL, url(supabase).as_bytes());
    [origin, "/.well-known/ai-sessions/jwks/", &project.to_string()].concat()
}

/// Reads the key set that another isolate of this location fetched in the last 24 h.
pub async fn from_cache(host: &impl SharedCache, supabase: &Supabase, origin: &str) -> Option<DatedKeys> {
    let cached = host.get(&cache_url(supabase, origin)).await?;
    let (stamp, document) = cached.split_at_checked(STAMP_BYTES)?;
    read(supabase, document, std::str::from_utf8(stamp).ok()?.parse().ok()?)
}

/// Fetches the key set. Returns the keys, and the document for [`store`]; `None` without a usable key set in time.
pub async fn fetch(host: &(impl Fetch + Timer + Clock), supabase: &Supabase) -> Option<(DatedKeys, Vec<u8>)> {
    let request = Request {
        method: "GET",
        url: url(supabase),
        headers: vec![("accept", "application/json".to_owned()), ("apikey", supabase.anon_key.clone())],
        body: Vec::new(),
    };
    let limits = Limits { timeout_ms: TIMEOUT_MS, bytes_max: DOCUMENT_BYTES_MAX };
    let answer = host.exchange(request, limits).await.ok().filter(|answer| answer.status == 200)?;
    let document = answer.body;
    Some((read(supabase, &document, host.now_ms())?, document))
}

/// Stores a document for the other isolates of this location.
pub async fn store(
    host: &impl SharedCache,
    supabase: &Supabase,
    origin: &str,
    document: &[u8],
    fetched_ms: u64,
) {
    let mut cached = format!("{fetched_ms:0STAMP_BYTES$}").into_bytes();
    cached.extend_from_slice(document);
    host.put(&cache_url(supabase, origin), &cached, STALE_MS / 1000).await;
}

/// Checks that the sign-in service publishes usable keys.
///
/// # Errors
/// A description of the failure, in words of this service.
pub async fn probe(host: &(impl Fetch + Timer + Clock), supabase: &Supabase) -> Result<(), String> {
    match fetch(host, supabase).await {
        Some(_) => Ok(()),
        None => Err("no usable key set".to_owned()),
    }
}
