//! The parts of a token before its verification.
//!
//! `jwt-compact` reads the compact serialization (RFC 7515, section 7.1; base64url without padding, canonical). This file
//! rejects headers that Supabase never writes: with a key of the token's own (`jwk`, `jku`, `x5u`, `x5c`), extensions (`crit`,
//! `b64`), compression or encryption (`zip`, `enc`), or a duplicate member.

use std::fmt;

use jwt_compact::{Claims, UntrustedToken};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::jwk::Algorithm;
use super::{Refused, bearer::BearerToken};

/// A well-formed token whose signature is not verified yet.
pub struct UnverifiedToken<'a> {
    inner: UntrustedToken<'a, OtherHeader>,
    algorithm: Algorithm,
    signed: &'a [u8],
}

impl<'a> UnverifiedToken<'a> {
    /// Reads the parts of a token.
    ///
    /// # Errors
    /// [`Refused::Invalid`].
    pub fn read(token: BearerToken<'a>) -> Result<Self, Refused> {
        let text = token.as_str();
        let inner = UntrustedToken::<OtherHeader>::try_from(text).map_err(|_| Refused::Invalid)?;
        let header = inner.header();
        if header.key_set_url.is_some() || header.certificate_url.is_some() {
            return Err(Refused::Invalid);
        }
        if header.token_type.as_ref().is_some_and(|kind| !kind.eq_ignore_ascii_case("jwt")) {
            return Err(Refused::Invalid);
        }
        let algorithm = Algorithm::from_name(inner.algorithm()).ok_or(Refused::Invalid)?;
        let (signed, _) = text.rsplit_once('.').ok_or(Refused::Invalid)?;
        Ok(Self { algorithm, signed: signed.as_bytes(), inner })
    }

    /// Returns `kid`, the key that the token names.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.inner.header().key_id.as_deref()
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
        self.inner.signature_bytes()
    }

    /// Reads the claims, which can be trusted only after the verification of the signature.
    ///
    /// # Errors
    /// [`Refused::Invalid`] when they have other types than those of Supabase.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<Claims<T>, Refused> {
        self.inner.deserialize_claims_unchecked().map_err(|_| Refused::Invalid)
    }
}

/// The header members without a field in `jwt-compact`, checked and dropped.
#[derive(Clone)]
struct OtherHeader;

const REFUSED_MEMBERS: &[&str] =
    &["crit", "b64", "jwk", "x5c", "zip", "enc", "epk", "apu", "apv", "iv", "tag", "p2s", "p2c"];

/// The most other members; Supabase writes none beside `alg`, `kid` and `typ`. Without a limit a header of 6 KB has some 700,
/// and each is compared with all before it, for an unauthenticated caller.
const OTHER_MEMBERS_MAX: usize = 8;

impl<'de> Deserialize<'de> for OtherHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = OtherHeader;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a token's header")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<OtherHeader, A::Error> {
                let mut names: Vec<String> = Vec::new();
                while let Some(name) = members.next_key::<String>()? {
                    let is_refused = REFUSED_MEMBERS.contains(&name.as_str()) || names.contains(&name);
                    if is_refused || names.len() >= OTHER_MEMBERS_MAX {
                        return Err(A::Error::custom("rejected"));
                    }
                    members.next_value::<IgnoredAny>()?;
                    names.push(name);
                }
                Ok(OtherHeader)
            }
        }

        deserializer.deserialize_map(Members)
    }
}
