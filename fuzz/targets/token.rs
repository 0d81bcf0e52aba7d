//! An access token: only the project's own claims are accepted, and no input panics.
//!
//! The first line of the input is the header and the second the claims of a token, as JSON, which the target encodes (a fuzzer
//! seldom generates base64url); the whole input is read as an `Authorization` header, too.
#![no_main]

use ai_sessions::auth::bearer::{BearerToken, TOKEN_BYTES_MAX};
use ai_sessions::auth::claims::{Expected, LEEWAY_S, check};
use ai_sessions::auth::jwk::read_key_set;
use ai_sessions::auth::token::UnverifiedToken;
use ai_sessions::auth::{Refused, User};
use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::Value;

const NOW_MS: u64 = 1_800_000_000_000;
const EXPECTED: Expected<'_> = Expected { issuer: "https://p.supabase.co/auth/v1", allow_anonymous: false };

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = read_key_set(data);
    if let Ok(header) = std::str::from_utf8(data) {
        let _ = read(header);
    }
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let encode = Base64UrlUnpadded::encode_string;
    let token = ["Bearer ", &encode(header), ".", &encode(claims), ".", &encode(&[7; 64])].concat();
    let is_too_long = token.len() - "Bearer ".len() > TOKEN_BYTES_MAX;
    match read(&token) {
        Ok(user) => {
            assert!(!is_too_long);
            is_the_projects_own(&user, header, claims);
        }
        Err(Refused::Missing | Refused::NoKeys) => panic!("a token was sent, and no keys are needed"),
        Err(Refused::Invalid | Refused::Expired | Refused::Anonymous) => {}
    }
});

fn read(header: &str) -> Result<User, Refused> {
    let token = BearerToken::read(Some(header))?;
    assert!(token.as_str().len() <= TOKEN_BYTES_MAX && !token.as_str().contains(char::is_whitespace));
    let unverified = UnverifiedToken::read(token)?;
    assert!(token.as_str().as_bytes().starts_with(unverified.signed()));
    check(&unverified.claims()?, &EXPECTED, NOW_MS)
}

/// Checks an accepted token with an independent reader.
fn is_the_projects_own(user: &User, header: &[u8], claims: &[u8]) {
    let header: Value = serde_json::from_slice(header).expect("the header is JSON");
    assert!(["ES256", "RS256", "EdDSA", "HS256"].map(Value::from).contains(&header["alg"]));
    for member in ["crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc"] {
        assert!(header.get(member).is_none_or(|value| value.is_null() && ["jku", "x5u"].contains(&member)));
    }
    let claims: Value = serde_json::from_slice(claims).expect("the claims are JSON");
    assert_eq!(claims["iss"], EXPECTED.issuer);
    assert_eq!(claims["role"], "authenticated");
    let audience = &claims["aud"];
    assert!(
        audience == "authenticated"
            || audience.as_array().is_some_and(|all| all.contains(&"authenticated".into()))
    );
    assert_eq!(claims["sub"].as_str().map(str::to_lowercase), Some(user.id.to_string()));
    assert!(claims.get("is_anonymous").is_none_or(|value| value == false));
    let now_s = (NOW_MS / 1000) as f64;
    assert!(claims["exp"].as_f64().expect("a number") >= now_s - LEEWAY_S as f64);
    for begin in ["nbf", "iat"] {
        // A fraction of a second is truncated.
        assert!(
            claims.get(begin).is_none_or(|at| at.as_f64().expect("a number") < now_s + LEEWAY_S as f64 + 1.0)
        );
    }
}
