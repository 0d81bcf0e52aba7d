//! Step 1 of every request of a user: from the `Authorization` header to a [`User`].

use crate::auth::bearer::BearerToken;
use crate::auth::claims::{Expected, check};
use crate::auth::jwk::{Algorithm, PublicKey};
use crate::auth::key_cache::Lookup;
use crate::auth::token::UnverifiedToken;
use crate::auth::{Refused, User};
use crate::config::Config;
use crate::ports::{AuthMemory, Background, Clock, Fetch, SharedCache, Timer, VerifyKey, VerifySignature};
use crate::supabase::keys;

/// What it takes to find out who is calling.
pub trait AuthHost:
    Fetch + Timer + Clock + SharedCache + VerifySignature + AuthMemory + Background + 'static
{
}
impl<H: Fetch + Timer + Clock + SharedCache + VerifySignature + AuthMemory + Background + 'static> AuthHost
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
    if let Some(user) = host.with_auth(|auth| auth.verified.find(token, host.now_ms())) {
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
    host.with_auth(|auth| auth.verified.remember(token, &user));
    Ok(user)
}

async fn find_key(
    host: &impl AuthHost,
    config: &Config,
    token: &UnverifiedToken<'_>,
) -> Result<PublicKey, Refused> {
    if host.with_auth(|auth| auth.keys.is_cold())
        && let Some((keys, fetched_ms)) = keys::from_cache(host, &config.supabase).await
    {
        host.with_auth(|auth| auth.keys.learn(keys, fetched_ms));
    }
    let (key_id, algorithm) = (token.key_id(), token.algorithm());
    match host.with_auth(|auth| auth.keys.look_up(key_id, algorithm, host.now_ms())) {
        Lookup::Use(key) => Ok(key),
        Lookup::Refuse(refused) => Err(refused),
        Lookup::UseAndRefresh(key) => {
            host.with_auth(|auth| auth.keys.asking(host.now_ms()));
            let (behind, supabase) = (host.clone(), config.supabase.clone());
            host.after_answer(async move { refresh(&behind, &supabase).await });
            Ok(key)
        }
        Lookup::Ask => {
            host.with_auth(|auth| auth.keys.asking(host.now_ms()));
            refresh(host, &config.supabase).await;
            host.with_auth(|auth| auth.keys.look_up_again(key_id, algorithm, host.now_ms()))
        }
    }
}

async fn refresh(host: &impl AuthHost, supabase: &crate::config::Supabase) {
    if let Some((keys, fetched_ms)) = keys::fetch(host, supabase).await {
        host.with_auth(|auth| auth.keys.learn(keys, fetched_ms));
    }
}
