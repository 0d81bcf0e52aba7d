//! The parts of a token before its verification: the compact serialization (RFC 7515, section 7.1; base64url without padding,
//! canonical).
//!
//! Headers that Supabase never writes are rejected: with a key of the token's own (`jwk`, `jku`, `x5u`, `x5c`), extensions
//! (`crit`, `b64`), compression or encryption (`zip`, `enc`), or a duplicate member. `jwt-compact` has a reader, too, whose
//! derived types make the module 10 KB larger, gzipped.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use jwt_compact::Claims;

use super::claims::{self, SupabaseClaims};
use super::jwk::Algorithm;
use super::{Refused, bearer::BearerToken};
use crate::json::{Value, strict};

/// A well-formed token whose signature is not verified yet.
pub struct UnverifiedToken<'a> {
    key_id: Option<String>,
    algorithm: Algorithm,
    signed: &'a [u8],
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> UnverifiedToken<'a> {
    /// Reads the parts of a token.
    ///
    /// # Errors
    /// [`Refused::Invalid`].
    pub fn read(token: BearerToken<'a>) -> Result<Self, Refused> {
        let (signed, signature) = token.as_str().rsplit_once('.').ok_or(Refused::Invalid)?;
        let (header, claims) = signed.split_once('.').ok_or(Refused::Invalid)?;
        // A further dot is no base64url.
        let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
        let Header { algorithm, key_id } = Header::read(&header).ok_or(Refused::Invalid)?;
        Ok(Self { key_id, algorithm, signed: signed.as_bytes(), claims, signature })
    }

    /// Returns `kid`, the key that the token names.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Returns `alg`, which must be the algorithm of the key.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the signed bytes.
    #[must_use]
    pub const fn signed(&self) -> &'a [u8] {
        self.signed
    }

    /// Returns the signature, decoded.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Reads the claims, which can be trusted only after the verification of the signature.
    ///
    /// # Errors
    /// [`Refused::Invalid`] when they have other types than those of Supabase.
    pub fn claims(&self) -> Result<Claims<SupabaseClaims>, Refused> {
        claims::read(&self.claims)
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Refused> {
    Base64UrlUnpadded::decode_vec(part).map_err(|_| Refused::Invalid)
}

/// The header members that decide how a token is verified.
struct Header {
    algorithm: Algorithm,
    key_id: Option<String>,
}

const REFUSED_MEMBERS: &[&str] =
    &["crit", "b64", "jwk", "x5c", "zip", "enc", "epk", "apu", "apv", "iv", "tag", "p2s", "p2c"];

/// The most members that have no meaning here; Supabase writes none beside `alg`, `kid` and `typ`. Without a limit a header of
/// 6 KB has some 700, and each is compared with all before it, for an unauthenticated caller.
const OTHER_MEMBERS_MAX: usize = 8;
/// With those that have one.
const MEMBERS_MAX: usize = OTHER_MEMBERS_MAX + 8;

impl Header {
    fn read(document: &[u8]) -> Option<Self> {
        let members = strict::members(strict::check(document).ok()?)?;
        if members.len() > MEMBERS_MAX {
            return None;
        }
        let (mut algorithm, mut key_id, mut others) = (None, None, 0_usize);
        for (index, (name, value)) in members.iter().enumerate() {
            if members.iter().take(index).any(|(known, _)| known == name) {
                return None;
            }
            match &**name {
                "alg" => algorithm = Algorithm::from_name(&text(*value)??),
                "kid" => key_id = text(*value)?,
                "typ" if text(*value)?.is_some_and(|kind| !kind.eq_ignore_ascii_case("jwt")) => return None,
                "cty" if text(*value)?.is_some_and(|kind| !kind.eq_ignore_ascii_case("json")) => return None,
                "jku" | "x5u" if *value != Value::Bare(b"null") => return None,
                "typ" | "cty" | "jku" | "x5u" => {}
                name if REFUSED_MEMBERS.contains(&name) => return None,
                _ => others = others.saturating_add(1),
            }
        }
        (others <= OTHER_MEMBERS_MAX).then_some(Self { algorithm: algorithm?, key_id })
    }
}

/// Reads a text or null.
fn text(value: Value<'_>) -> Option<Option<String>> {
    match value {
        Value::Text(text) => Some(Some(strict::decode(text).into_owned())),
        Value::Bare(b"null") => Some(None),
        _ => None,
    }
}
