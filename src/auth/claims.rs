//! The claims of a verified token, and the check of them.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use jwt_compact::{Claims, TimeOptions, ValidationError};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use uuid::Uuid;

use super::{Refused, User};

/// The tolerated difference between the clocks of the sign-in service and the edge, in seconds.
pub const LEEWAY_S: i64 = 30;

/// The requirements for a token.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// `{SUPABASE_URL}/auth/v1`.
    pub issuer: &'a str,
    /// `ALLOW_ANONYMOUS_USERS`.
    pub allow_anonymous: bool,
}

/// The claims other than the times, which `jwt-compact` reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SupabaseClaims {
    issuer: Option<String>,
    audience: Vec<String>,
    role: Option<String>,
    subject: Option<String>,
    is_anonymous: bool,
}

/// Supabase's role and audience of a signed-in user.
const AUTHENTICATED: &str = "authenticated";

/// Checks the claims of a token whose signature is valid.
///
/// # Errors
/// [`Refused::Expired`], [`Refused::Anonymous`], and [`Refused::Invalid`] for everything else.
pub fn check(claims: &Claims<SupabaseClaims>, expected: &Expected<'_>, now_ms: u64) -> Result<User, Refused> {
    let now = i64::try_from(now_ms)
        .ok()
        .and_then(DateTime::<Utc>::from_timestamp_millis)
        .ok_or(Refused::Invalid)?;
    let leeway = TimeDelta::try_seconds(LEEWAY_S).ok_or(Refused::Invalid)?;
    let clock = TimeOptions::new(leeway, move || now);
    let custom = &claims.custom;

    if custom.issuer.as_deref() != Some(expected.issuer)
        || !custom.audience.iter().any(|audience| audience == AUTHENTICATED)
        || custom.role.as_deref() != Some(AUTHENTICATED)
    {
        return Err(Refused::Invalid);
    }
    let id = custom.subject.as_deref().and_then(read_user_id).ok_or(Refused::Invalid)?;
    // Not by `validate_maturity`: it subtracts the leeway from `nbf`, and panics where the result is outside the calendar.
    let begun_by = now.checked_add_signed(leeway).ok_or(Refused::Invalid)?;
    let begins = [claims.not_before, claims.issued_at];
    if begins.into_iter().flatten().any(|begin| begin > begun_by) {
        return Err(Refused::Invalid);
    }
    claims.validate_expiration(&clock).map_err(|error| match error {
        ValidationError::Expired => Refused::Expired,
        _ => Refused::Invalid,
    })?;
    if custom.is_anonymous && !expected.allow_anonymous {
        return Err(Refused::Anonymous);
    }
    let expires_ms = claims.expiration.and_then(|at| u64::try_from(at.timestamp_millis()).ok());
    Ok(User { id, expires_ms: expires_ms.ok_or(Refused::Invalid)? })
}

/// Reads a UUID in its hyphenated form and no other, so that one user has one id everywhere.
fn read_user_id(subject: &str) -> Option<Uuid> {
    const HYPHENATED_CHARS: usize = 36;
    if subject.len() != HYPHENATED_CHARS {
        return None;
    }
    Uuid::try_parse(subject).ok()
}

impl<'de> Deserialize<'de> for SupabaseClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = SupabaseClaims;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the claims of an access token")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<SupabaseClaims, A::Error> {
                let mut claims = SupabaseClaims::default();
                let mut names: Vec<String> = Vec::new();
                while let Some(name) = members.next_key::<String>()? {
                    // RFC 7519, section 4: "The Claim Names within a JWT Claims Set MUST be unique".
                    if names.contains(&name) {
                        return Err(A::Error::custom("duplicate claim"));
                    }
                    match name.as_str() {
                        "iss" => claims.issuer = Some(members.next_value()?),
                        "sub" => claims.subject = Some(members.next_value()?),
                        "role" => claims.role = Some(members.next_value()?),
                        "is_anonymous" => claims.is_anonymous = members.next_value()?,
                        "aud" => {
                            claims.audience = match members.next_value()? {
                                Audience::One(audience) => vec![audience],
                                Audience::Several(audience) => audience,
                            }
                        }
                        _ => {
                            members.next_value::<IgnoredAny>()?;
                        }
                    }
                    names.push(name);
                }
                Ok(claims)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW_S: u64 = 1_800_000_000;
    const USER: &str = "5d3e2c1b-0000-4000-8000-00000000000a";

    fn good() -> Value {
        json!({ "iss": "https://p.supabase.co/auth/v1", "aud": "authenticated", "role": "authenticated",
            "sub": USER, "exp": NOW_S + 3600, "iat": NOW_S, "email": "a@b.c", "is_anonymous": false })
    }

    fn checked(claims: &str, allow_anonymous: bool) -> Result<User, Refused> {
        let claims: Claims<SupabaseClaims> = serde_json::from_str(claims).map_err(|_| Refused::Invalid)?;
        let expected = Expected { issuer: "https://p.supabase.co/auth/v1", allow_anonymous };
        check(&claims, &expected, NOW_S * 1000)
    }

    fn with(member: &str, value: Value) -> Result<User, Refused> {
        let mut claims = good();
        claims[member] = value;
        checked(&claims.to_string(), false)
    }

    fn without(member: &str) -> Result<User, Refused> {
        let mut claims = good();
        claims.as_object_mut().expect("an object").remove(member);
        checked(&claims.to_string(), false)
    }

    #[test]
    fn the_claims_of_a_signed_in_user_are_accepted() {
        let user = checked(&good().to_string(), false).expect("the claims are valid");
        assert_eq!(user.id.to_string(), USER);
        assert_eq!(user.expires_ms, (NOW_S + 3600) * 1000);
        assert!(with("aud", json!(["other", "authenticated"])).is_ok());
        assert!(without("iat").is_ok());
        assert!(without("email").is_ok());
    }

    #[test]
    fn times_are_checked_to_the_second_of_the_leeway() {
        for (member, value, expected) in [
            ("exp", json!(NOW_S - 30), Ok(())),
            ("exp", json!(NOW_S - 31), Err(Refused::Expired)),
            ("exp", json!(0), Err(Refused::Expired)),
            ("exp", json!(-1), Err(Refused::Expired)),
            ("nbf", json!(-8_334_601_228_800_i64), Ok(())),
            ("iat", json!(-8_334_601_228_800_i64), Ok(())),
            ("nbf", json!(NOW_S + 30), Ok(())),
            ("nbf", json!(NOW_S + 31), Err(Refused::Invalid)),
            ("iat", json!(NOW_S + 30), Ok(())),
            ("iat", json!(NOW_S + 31), Err(Refused::Invalid)),
            ("exp", json!((NOW_S + 3600).to_string()), Err(Refused::Invalid)),
            ("exp", json!(1e300), Err(Refused::Invalid)),
            ("exp", json!(u64::MAX), Err(Refused::Invalid)),
            ("exp", Value::Null, Err(Refused::Invalid)),
            ("exp", json!([NOW_S + 3600]), Err(Refused::Invalid)),
            ("nbf", json!("0"), Err(Refused::Invalid)),
            ("iat", json!(true), Err(Refused::Invalid)),
        ] {
            let shown = value.to_string();
            assert_eq!(with(member, value).map(|_| ()), expected, "{member} {shown}");
        }
        assert_eq!(without("exp"), Err(Refused::Invalid));
    }

    #[test]
    fn claims_of_another_project_or_role_are_rejected() {
        for (member, value) in [
            ("iss", json!("https://q.supabase.co/auth/v1")),
            ("iss", json!("https://p.supabase.co/auth/v1/")),
            ("iss", json!("supabase")),
            ("iss", json!(["https://p.supabase.co/auth/v1"])),
            ("aud", json!("anon")),
            ("aud", json!([])),
            ("aud", json!({ "authenticated": true })),
            ("role", json!("anon")),
            ("role", json!("service_role")),
            ("role", json!(["authenticated"])),
            ("sub", json!("")),
            ("sub", json!("5d3e2c1b00004000800000000000000a")),
            ("sub", json!("{5d3e2c1b-0000-4000-8000-00000000000a}")),
            ("sub", json!("urn:uuid:5d3e2c1b-0000-4000-8000-00000000000a")),
            ("sub", json!("../../etc")),
            ("is_anonymous", json!("false")),
        ] {
            let shown = value.to_string();
            assert_eq!(with(member, value), Err(Refused::Invalid), "{member} {shown}");
        }
        for member in ["iss", "aud", "role", "sub"] {
            assert_eq!(without(member), Err(Refused::Invalid), "{member}");
        }
    }

    #[test]
    fn a_duplicate_claim_is_rejected() {
        let good = good().to_string();
        for twice in [
            "\"sub\":\"x\"",
            "\"exp\":1",
            "\"email\":\"x\"",
            "\"aud\":\"authenticated\"",
            "\"role\":\"authenticated\"",
        ] {
            let claims = good.replacen('{', &format!("{{{twice},"), 1);
            assert_eq!(checked(&claims, false), Err(Refused::Invalid), "{twice}");
        }
    }

    #[test]
    fn anonymous_users_are_accepted_only_where_allowed() {
        let mut claims = good();
        claims["is_anonymous"] = json!(true);
        assert_eq!(checked(&claims.to_string(), false), Err(Refused::Anonymous));
        assert!(checked(&claims.to_string(), true).is_ok());
    }
}
