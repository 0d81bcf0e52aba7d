//! A token taken apart, before anything in it can be believed.
//!
//! `jwt-compact` reads the compact form (RFC 7515, section 7.1; base64url without padding, canonical), this file
//! refuses what Supabase never writes: header members that would make the check depend on the token (`jwk`, `jku`,
//! `x5u`, `x5c`), that ask for extensions (`crit`, `b64`), compression or encryption (`zip`, `enc`), and any
//! member that stands twice.

use std::fmt;

use jwt_compact::{Claims, UntrustedToken};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::jwk::Algorithm;
use super::{Refused, bearer::BearerToken};

/// A token whose form is right and whose signature nobody has looked at.
pub struct UnverifiedToken<'a> {
    inner: UntrustedToken<'a, OtherHeader>,
    algorithm: Algorithm,
    signed: &'a [u8],
}

impl<'a> UnverifiedToken<'a> {
    /// Takes a token apart.
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

    /// `kid`: which key the token claims to be signed with.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.inner.header().key_id.as_deref()
    }

    /// `alg`: must be that of the key, which alone decides.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What was signed.
    #[must_use]
    pub const fn signed(&self) -> &'a [u8] {
        self.signed
    }

    /// The signature, raw.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        self.inner.signature_bytes()
    }

    /// The claims. To be read when the signature has been found to hold.
    ///
    /// # Errors
    /// [`Refused::Invalid`] when they are not what Supabase writes.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<Claims<T>, Refused> {
        self.inner.deserialize_claims_unchecked().map_err(|_| Refused::Invalid)
    }
}

/// The header members that `jwt-compact` has no field for: read only to refuse.
#[derive(Clone)]
struct OtherHeader;

const REFUSED_MEMBERS: &[&str] =
    &["crit", "b64", "jwk", "x5c", "zip", "enc", "epk", "apu", "apv", "iv", "tag", "p2s", "p2c"];

/// Supabase writes none beside `alg`, `kid` and `typ`. Without a limit a header of 6 KB has some 700 members, and
/// each is compared with all before it, for somebody whom nobody knows yet.
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
                        return Err(A::Error::custom("refused"));
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
