//! The key set of the sign-in service, from `{SUPABASE_URL}/auth/v1/.well-known/jwks.json` or a cache of it.

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
pub type DatedKeys = (Vec<PublicKey>, u64);

/// `iss` of every token of this project.
#[must_use]
pub fn issuer(supabase: &Supabase) -> String {
    [&supabase.url, "/auth/v1"].concat()
}

fn url(supabase: &Supabase) -> String {
    [&supabase.url, "/auth/v1/.well-known/jwks.json"].concat()
}

/// What other isolates of this place have fetched in the last 24 h.
pub async fn from_cache(host: &impl SharedCache, supabase: &Supabase) -> Option<DatedKeys> {
    let kept = host.get(&url(supabase)).await?;
    let (stamp, document) = kept.split_at_checked(STAMP_BYTES)?;
    let fetched_ms = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    Some((read_key_set(document)?, fetched_ms))
}

/// Asks the sign-in service. `None` when it does not answer in time with a key set.
pub async fn fetch(
    host: &(impl Fetch + Timer + Clock + SharedCache),
    supabase: &Supabase,
) -> Option<DatedKeys> {
    let url = url(supabase);
    let request = Request {
        method: "GET",
        url: url.clone(),
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
    let keys = read_key_set(&document)?;
    let fetched_ms = host.now_ms();
    let mut kept = format!("{fetched_ms:0STAMP_BYTES$}").into_bytes();
    kept.extend_from_slice(&document);
    host.put(&url, &kept, STALE_MS / 1000).await;
    Some((keys, fetched_ms))
}
