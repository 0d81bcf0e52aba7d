//! The claims of a verified token, and the check of them.

use chrono::{DateTime, TimeDelta, Utc};
use jwt_compact::{Claims, TimeOptions, ValidationError};
use uuid::Uuid;

use super::{Refused, User};
use crate::json::{Cursor, Value, strict};

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

/// The claims other than the times, which are in `jwt-compact`'s own type.
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

/// Reads the claims of a token.
///
/// # Errors
/// [`Refused::Invalid`] when they have other types than those of Supabase, or when two have the same name.
pub fn read(document: &[u8]) -> Result<Claims<SupabaseClaims>, Refused> {
    let text = strict::check(document).map_err(|_| Refused::Invalid)?;
    let members = strict::members(text).ok_or(Refused::Invalid)?;
    let mut claims = Claims::new(SupabaseClaims::default());
    for (index, (name, value)) in members.iter().enumerate() {
        // RFC 7519, section 4: "The Claim Names within a JWT Claims Set MUST be unique".
        if members.iter().take(index).any(|(known, _)| known == name) {
            return Err(Refused::Invalid);
        }
        let (value, custom) = (*value, &mut claims.custom);
        match &**name {
            "exp" => claims.expiration = Some(time(value)?),
            "nbf" => claims.not_before = Some(time(value)?),
            "iat" => claims.issued_at = Some(time(value)?),
            "iss" => custom.issuer = Some(name_in(value)?),
            "sub" => custom.subject = Some(name_in(value)?),
            "role" => custom.role = Some(name_in(value)?),
            "is_anonymous" => custom.is_anonymous = switch(value)?,
            "aud" => custom.audience = audience(value)?,
            _ => {}
        }
    }
    Ok(claims)
}

/// A time in whole seconds; a fraction is dropped.
fn time(value: Value<'_>) -> Result<DateTime<Utc>, Refused> {
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "from a real number there is no other way, and this one saturates: outside of the calendar"
    )]
    let seconds = match value {
        Value::Bare(digits) => strict::read_number(digits).map(|seconds| seconds as i64),
        _ => None,
    };
    seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0)).ok_or(Refused::Invalid)
}

fn name_in(value: Value<'_>) -> Result<String, Refused> {
    match value {
        Value::Text(text) => Ok(strict::decode(text).into_owned()),
        _ => Err(Refused::Invalid),
    }
}

fn switch(value: Value<'_>) -> Result<bool, Refused> {
    match value {
        Value::Bare(b"true") => Ok(true),
        Value::Bare(b"false") => Ok(false),
        _ => Err(Refused::Invalid),
    }
}

/// One audience, or several.
fn audience(value: Value<'_>) -> Result<Vec<String>, Refused> {
    let Value::List(items) = value else { return name_in(value).map(|audience| vec![audience]) };
    let mut audience = Vec::new();
    Cursor::new(items).list(&mut |cursor| audience.push(name_in(cursor.value())));
    audience.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Expected, Refused, User, check, read};

    const NOW_S: u64 = 1_800_000_000;
    const USER: &str = "5d3e2c1b-0000-4000-8000-00000000000a";

    fn good() -> Value {
        json!({ "iss": "https://p.supabase.co/auth/v1", "aud": "authenticated", "role": "authenticated",
            "sub": USER, "exp": NOW_S + 3600, "iat": NOW_S, "email": "a@b.c", "is_anonymous": false })
    }

    fn checked(claims: &str, allow_anonymous: bool) -> Result<User, Refused> {
        let claims = read(claims.as_bytes())?;
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
