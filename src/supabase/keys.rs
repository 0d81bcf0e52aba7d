//! The key set of the sign-in service, from `{SUPABASE_URL}/auth/v1/.well-known/jwks.json` or a cache of it.

use uuid::Uuid;

use crate::auth::jwk::{PublicKey, read_key_set};
use crate::auth::key_cache::STALE_MS;
use crate::config::Supabase;
use crate::http::Request;
use crate::ports::{Clock, Fetch, Incoming, SharedCache, Timer, read_whole, within};

/// A key set has some 300 bytes a key.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024;
/// A caller waits for this at most once in 30 s of an isolate's life.
const TIMEOUT_MS: u64 = 5000;
/// The time that the document left the sign-in service stands before it in the cache, in decimal digits.
const STAMP_BYTES: usize = 16;

/// Keys, and when they left the sign-in service.
#[derive(Debug, Clone)]
pub struct DatedKeys {
    /// At least one, unless the project says that it signs with a shared secret.
    pub keys: Vec<PublicKey>,
    /// Milliseconds since the epoch.
    pub fetched_ms: u64,
}

/// `iss` of every token of this project.
#[must_use]
pub fn issuer(supabase: &Supabase) -> String {
    [&supabase.url, "/auth/v1"].concat()
}

fn url(supabase: &Supabase) -> String {
    [&supabase.url, "/auth/v1/.well-known/jwks.json"].concat()
}

/// A key set without a usable key is as good as none: it must not push known keys out. Only a project that still
/// signs with a shared secret has none to publish.
fn read(supabase: &Supabase, document: &[u8], fetched_ms: u64) -> Option<DatedKeys> {
    let keys = read_key_set(document)?;
    (!keys.is_empty() || supabase.jwt_secret.is_some()).then_some(DatedKeys { keys, fetched_ms })
}

/// Where the key set is cached: a URL of the service's own host (`origin`) that is no route, so that nobody else's
/// responses are ever found there. It names the project, because deployments of several projects may share a host.
fn cache_url(supabase: &Supabase, origin: &str) -> String {
    let project = Uuid::new_v5(&Uuid::NAMESPACE_URL, url(supabase).as_bytes());
    [origin, "/.well-known/ai-sessions/jwks/", &project.to_string()].concat()
}

/// What other isolates of this place have fetched in the last 24 h.
pub async fn from_cache(host: &impl SharedCache, supabase: &Supabase, origin: &str) -> Option<DatedKeys> {
    let kept = host.get(&cache_url(supabase, origin)).await?;
    let (stamp, document) = kept.split_at_checked(STAMP_BYTES)?;
    read(supabase, document, std::str::from_utf8(stamp).ok()?.parse().ok()?)
}

/// Asks the sign-in service. `None` when it does not answer in time with a usable key set; else the keys, and the
/// document for [`store`].
pub async fn fetch(host: &(impl Fetch + Timer + Clock), supabase: &Supabase) -> Option<(DatedKeys, Vec<u8>)> {
    let request = Request {
        method: "GET",
        url: url(supabase),
        headers: vec![("accept", "application/json".to_owned()), ("apikey", supabase.anon_key.clone())],
        body: Vec::new(),
    };
    let answered = within(host, TIMEOUT_MS, async {
        let mut answer = host.fetch(request).await.ok()?;
        if answer.status() != 200 {
            return None;
        }
        read_whole(&mut answer, DOCUMENT_BYTES_MAX).await.ok()
    });
    let document = answered.await.ok()??;
    Some((read(supabase, &document, host.now_ms())?, document))
}

/// Keeps a document for the other isolates of this place.
pub async fn store(
    host: &impl SharedCache,
    supabase: &Supabase,
    origin: &str,
    document: &[u8],
    fetched_ms: u64,
) {
    let mut kept = format!("{fetched_ms:0STAMP_BYTES$}").into_bytes();
    kept.extend_from_slice(document);
    host.put(&cache_url(supabase, origin), &kept, STALE_MS / 1000).await;
}

/// Whether the sign-in service publishes keys that can be used.
///
/// # Errors
/// What it did instead, in words of this service.
pub async fn probe(host: &(impl Fetch + Timer + Clock), supabase: &Supabase) -> Result<(), String> {
    match fetch(host, supabase).await {
        Some(_) => Ok(()),
        None => Err("no usable key set".to_owned()),
    }
}
