//! Step 1 of every request of a user: from the `Authorization` header to a [`User`].

use crate::auth::bearer::BearerToken;
use crate::auth::claims::{Expected, check};
use crate::auth::jwk::{Algorithm, PublicKey};
use crate::auth::key_cache::Lookup;
use crate::auth::token::UnverifiedToken;
use crate::auth::{Refused, User};
use crate::config::Config;
use crate::ports::{Background, Clock, Fetch, IsolateMemory, SharedCache, Timer, VerifyKey, VerifySignature};
use crate::supabase::keys;

/// What it takes to find out who is calling.
pub trait AuthHost:
    Fetch + Timer + Clock + SharedCache + VerifySignature + IsolateMemory + Background + 'static
{
}
impl<H: Fetch + Timer + Clock + SharedCache + VerifySignature + IsolateMemory + Background + 'static> AuthHost
    for H
{
}

/// Who is calling. The signature is checked first; what an unverified token claims decides nothing but which key it
/// is checked with.
///
/// # Errors
/// [`Refused`].
pub async fn authenticate(
    host: &impl AuthHost,
    config: &Config,
    token: BearerToken<'_>,
) -> Result<User, Refused> {
    if let Some(user) = host.with_memory(|memory| memory.verified.find(token, host.now_ms())) {
        return Ok(user);
    }
    let unverified = UnverifiedToken::read(token)?;
    let holds = if unverified.algorithm() == Algorithm::Hs256 {
        let secret = config.supabase.jwt_secret.as_deref().ok_or(Refused::Invalid)?;
        host.verify(VerifyKey::Secret(secret), unverified.signed(), unverified.signature()).await
    } else {
        let key = find_key(host, config, &unverified).await?;
        host.verify(VerifyKey::Public(&key), unverified.signed(), unverified.signature()).await
    };
    if !holds {
        return Err(Refused::Invalid);
    }
    let issuer = keys::issuer(&config.supabase);
    let expected = Expected { issuer: &issuer, allow_anonymous: config.allow_anonymous_users };
    let user = check(&unverified.claims()?, &expected, host.now_ms())?;
    host.with_memory(|memory| memory.verified.remember(token, &user));
    Ok(user)
}

async fn find_key(
    host: &impl AuthHost,
    config: &Config,
    token: &UnverifiedToken<'_>,
) -> Result<PublicKey, Refused> {
    if host.with_memory(|memory| memory.keys.is_cold())
        && let Some(known) = keys::from_cache(host, &config.supabase).await
    {
        host.with_memory(|memory| memory.keys.learn(known.keys, known.fetched_ms));
    }
    let (key_id, algorithm) = (token.key_id(), token.algorithm());
    loop {
        match host.with_memory(|memory| memory.keys.look_up(key_id, algorithm, host.now_ms())) {
            Lookup::Use(key) => return Ok(key),
            Lookup::Refuse(refused) => return Err(refused),
            Lookup::UseAndRefresh(key) => {
                refresh_behind(host, config);
                return Ok(key);
            }
            Lookup::Ask => refresh_behind(host, config),
            Lookup::Wait => host.sleep(LOOK_AGAIN_MS).await,
        }
    }
}

/// Requests of one isolate cannot wait for each other's promises, so they look. Only a cold isolate and a rotation
/// make anybody wait.
const LOOK_AGAIN_MS: u64 = 5;

/// Asks for the keys in work of its own, which goes on when this request's client leaves: a client that asks with a
/// forged key and hangs up must not use up the one question that may be put in 30 s.
fn refresh_behind(host: &impl AuthHost, config: &Config) {
    host.with_memory(|memory| memory.keys.asking(host.now_ms()));
    let (behind, supabase) = (host.clone(), config.supabase.clone());
    host.after_answer(async move {
        let fetched = keys::fetch(&behind, &supabase).await;
        let Some((known, document)) = fetched else {
            return behind.with_memory(|memory| memory.keys.answered(behind.now_ms()));
        };
        let fetched_ms = known.fetched_ms;
        behind.with_memory(|memory| {
            memory.keys.learn(known.keys, fetched_ms);
            memory.keys.answered(fetched_ms);
        });
        keys::keep(&behind, &supabase, &document, fetched_ms).await;
    });
}
