//! Step 1 of every request of a user: from the `Authorization` header to a [`User`].

use crate::auth::bearer::BearerToken;
use crate::auth::claims::{Expected, check};
use crate::auth::jwk::Algorithm;
use crate::auth::key_cache::{Lookup, Verifier};
use crate::auth::token::UnverifiedToken;
use crate::auth::{Refused, User};
use crate::config::Config;
use crate::points::{JOB, figure};
use crate::ports::{
    Background, Clock, Fetch, IsolateMemory, Metrics, SharedCache, Timer, VerifyKey, VerifySignature,
};
use crate::supabase::keys::{self, DatedKeys};

/// Everything that authentication needs of its host.
pub trait AuthHost:
    Fetch + Timer + Clock + SharedCache + VerifySignature + IsolateMemory + Background + Metrics + 'static
{
}
impl<H> AuthHost for H where
    H: Fetch + Timer + Clock + SharedCache + VerifySignature + IsolateMemory + Background + Metrics + 'static
{
}

/// Verifies the caller. The signature is checked first; the claims of an unverified token only decide which key checks it.
/// `origin` is that of the request.
///
/// # Errors
/// [`Refused`].
pub async fn authenticate(
    host: &impl AuthHost,
    config: &Config,
    origin: &str,
    token: BearerToken<'_>,
) -> Result<User, Refused> {
    let now_ms = host.now_ms();
    let known = host.with_memory(|memory| {
        let (user, verifier) = memory.verified.find(token, now_ms)?;
        let is_current = memory.keys.is_current(verifier, now_ms);
        is_current.then(|| (user.clone(), memory.keys.is_refresh_due(now_ms)))
    });
    if let Some((user, is_refresh_due)) = known {
        if is_refresh_due {
            refresh_behind(host, config, origin);
        }
        return Ok(user);
    }
    let unverified = UnverifiedToken::read(token)?;
    let secret = config.supabase.jwt_secret.as_deref();
    if unverified.algorithm() == Algorithm::Hs256 && secret.is_none() {
        return Err(Refused::Invalid);
    }
    let verifier = find_verifier(host, config, origin, &unverified).await?;
    let key = match &verifier {
        Verifier::Published(key) => VerifyKey::Public(key),
        Verifier::Secret(_) => VerifyKey::Secret(secret.ok_or(Refused::Invalid)?),
    };
    if !host.verify(key, unverified.signed(), unverified.signature()).await {
        return Err(Refused::Invalid);
    }
    let issuer = keys::issuer(&config.supabase);
    let expected = Expected { issuer: &issuer, allow_anonymous: config.allow_anonymous_users };
    let user = check(&unverified.claims()?, &expected, host.now_ms())?;
    host.with_memory(|memory| memory.verified.remember(token, &user, verifier));
    Ok(user)
}

async fn find_verifier(
    host: &impl AuthHost,
    config: &Config,
    origin: &str,
    token: &UnverifiedToken<'_>,
) -> Result<Verifier, Refused> {
    let (key_id, algorithm) = (token.key_id(), token.algorithm());
    if key_id.is_some() && host.with_memory(|memory| memory.keys.is_cold()) {
        // The platform provides its current keys to a new isolate, so they are as new as fetched ones.
        let configured =
            keys::configured(&config.supabase).map(|keys| DatedKeys { keys, fetched_ms: host.now_ms() });
        let known = match configured {
            Some(configured) => Some(configured),
            None => keys::from_cache(host, &config.supabase, origin).await,
        };
        if let Some(known) = known {
            host.with_memory(|memory| memory.keys.store(known.keys, known.fetched_ms));
        }
    }
    loop {
        match host.with_memory(|memory| memory.keys.look_up(key_id, algorithm, host.now_ms())) {
            Lookup::Use(verifier) => return Ok(verifier),
            Lookup::Refuse(refused) => return Err(refused),
            Lookup::UseAndRefresh(verifier) => {
                refresh_behind(host, config, origin);
                return Ok(verifier);
            }
            Lookup::Fetch => refresh_behind(host, config, origin),
            Lookup::Wait => host.sleep(POLL_MS).await,
        }
    }
}

/// Requests of one isolate cannot wait for each other's promises, so they poll. Only a cold isolate and a rotation make a request
/// wait.
const POLL_MS: u64 = 5;

/// Fetches the keys in a task of its own, which continues when the client leaves: a client that sends a forged key and disconnects
/// must not use up the one request that may be sent in 30 s. A failure writes a point, with the age of the keys that stay in use.
fn refresh_behind(host: &impl AuthHost, config: &Config, origin: &str) {
    host.with_memory(|memory| memory.keys.start_refresh(host.now_ms()));
    let (behind, supabase, origin) = (host.clone(), config.supabase.clone(), origin.to_owned());
    host.after_response(async move {
        let fetched = keys::fetch(&behind, &supabase).await;
        let Some((known, document)) = fetched else {
            let now_ms = behind.now_ms();
            let age_ms = behind.with_memory(|memory| {
                memory.keys.end_refresh(now_ms);
                memory.keys.age_ms(now_ms)
            });
            let figures = [0.0, figure(age_ms.unwrap_or(0))];
            return behind.measure(&JOB.point(&["job", "signing_keys", "unavailable"], &figures));
        };
        let fetched_ms = known.fetched_ms;
        behind.with_memory(|memory| {
            memory.keys.store(known.keys, fetched_ms);
            memory.keys.end_refresh(fetched_ms);
        });
        keys::store(&behind, &supabase, &origin, &document, fetched_ms).await;
    });
}
