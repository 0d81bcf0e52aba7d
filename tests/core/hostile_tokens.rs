//! Authenticates every token of `tests/fixtures/hostile_tokens.json`, which describes its own format.
//!
//! The clock stands still here, so that tests can use the exact second of a limit; a valid signature is
//! [`scripted_signature`]. The host checks real signatures: `tests/service/hostile_tokens.ts` makes the same tokens with real
//! keys.

#![expect(clippy::expect_used, clippy::panic, reason = "a fixture that cannot be read fails the test")]

use ai_sessions::auth::bearer::BearerToken;
use ai_sessions::auth::jwk::read_key_set;
use ai_sessions::auth::{Refused, User};
use ai_sessions::config::{Config, Platform};
use ai_sessions::edge::authenticate::authenticate;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::scripted_host::{Reply, ScriptedHost, scripted_signature};

pub(crate) const NOW_MS: u64 = 1_800_000_000_000;
pub(crate) const JWKS: &str = "/auth/v1/.well-known/jwks.json";
pub(crate) const ORIGIN: &str = "https://cards.example";
const USER: &str = "5d3e2c1b-0000-4000-8000-00000000000a";
const SUPABASE_URL: &str = "https://p.supabase.co";
const JWT_SECRET: &str = "the secret that the project signs with";
const ANON_KEY: &str = "the anon key";
const ES256_KID: &str = "kid-of-es256";
const RS256_KID: &str = "kid-of-rs256";

#[derive(Deserialize)]
struct Table {
    cases: Vec<Case>,
}

/// One token; the fixture describes the members.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields, default)]
struct Case {
    name: String,
    expect: String,
    header: Map<String, Value>,
    without_header: Vec<String>,
    header_as: String,
    header_encoding: Encoding,
    claims: Map<String, Value>,
    without_claims: Vec<String>,
    claims_as: String,
    claims_encoding: Encoding,
    signed_by: String,
    signature: String,
    token: String,
    bytes: Option<usize>,
    authorization: Vec<String>,
    unchecked: bool,
    service: String,
    #[serde(rename = "exact_time")]
    _exact_time: bool,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            name: String::new(),
            expect: String::new(),
            header: Map::new(),
            without_header: Vec::new(),
            header_as: "{<members>}".to_owned(),
            header_encoding: Encoding::default(),
            claims: Map::new(),
            without_claims: Vec::new(),
            claims_as: "{<members>}".to_owned(),
            claims_encoding: Encoding::default(),
            signed_by: "es256".to_owned(),
            signature: String::new(),
            token: "<header>.<claims>.<signature>".to_owned(),
            bytes: None,
            authorization: vec!["Bearer <token>".to_owned()],
            unchecked: false,
            service: String::new(),
            _exact_time: false,
        }
    }
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq)]
enum Encoding {
    #[default]
    #[serde(skip)]
    Right,
    #[serde(rename = "padded")]
    Padded,
    #[serde(rename = "trailing bits")]
    TrailingBits,
}

fn cases() -> Vec<Case> {
    let table = include_str!("../fixtures/hostile_tokens.json");
    serde_json::from_str::<Table>(table).expect("the fixture has the described format").cases
}

// The project and its keys.

pub(crate) fn key_set(es256_kids: &[&str]) -> String {
    let curve = |kid: &&str| json!({ "kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "x": coordinate(kid), "y": coordinate(kid) });
    let mut keys: Vec<Value> = es256_kids.iter().map(curve).collect();
    keys.push(json!({ "kty": "RSA", "kid": RS256_KID, "alg": "RS256", "n": "n".repeat(342), "e": "AQAB" }));
    json!({ "keys": keys }).to_string()
}

/// Returns coordinates in the right format but not on the curve, different for each key.
fn coordinate(kid: &str) -> String {
    format!("{kid:A<43}")
}

/// Returns the host's identifier of a key of the set.
fn published(kid: &str) -> String {
    let keys = read_key_set(key_set(&[kid]).as_bytes()).expect("it is a key set");
    keys.into_iter().rfind(|key| key.id == kid).expect("it is in the set").jwk
}

pub(crate) fn config(with_the_secret: bool) -> Config {
    Config::read(Platform::Cloudflare, |name| {
        let value = match name {
            "SUPABASE_URL" => SUPABASE_URL,
            "SUPABASE_ANON_KEY" => ANON_KEY,
            "OPENROUTER_API_KEY" => "the key of the model API",
            "SERVICE_SECRET" => "the secret of the service's own hashes",
            "SUPABASE_JWT_SECRET" if with_the_secret => JWT_SECRET,
            "ALLOW_ANONYMOUS_USERS" if with_the_secret => "1",
            _ => return None,
        };
        Some(value.to_owned())
    })
    .expect("the settings are valid")
}

pub(crate) fn host_at(now_ms: u64) -> ScriptedHost {
    let host = ScriptedHost::new(now_ms);
    host.always(JWKS, Reply::new(200).say(key_set(&[ES256_KID])));
    host
}

/// Authenticates as `edge::authenticate` does: header, format, keys, signature, claims.
pub(crate) fn authenticate_with(
    host: &ScriptedHost,
    config: &Config,
    authorization: Option<&str>,
) -> Result<User, Refused> {
    let token = BearerToken::read(authorization)?;
    host.run(authenticate(host, config, ORIGIN, token))
}

/// Makes a genuine token with this ES256 key, for an hour.
pub(crate) fn genuine(kid: &str) -> String {
    genuine_until(kid, NOW_MS / 1000 + 3600)
}

/// Makes a genuine HS256 token with the project's secret, for an hour.
pub(crate) fn genuine_by_secret(kid: Option<&str>) -> String {
    let mut case = Case::default();
    case.header.insert("alg".to_owned(), json!("HS256"));
    match kid {
        Some(kid) => {
            case.header.insert("kid".to_owned(), json!(kid));
        }
        None => case.without_header.push("kid".to_owned()),
    }
    ["Bearer ", &case.make_token_by(JWT_SECRET)].concat()
}

pub(crate) fn genuine_until(kid: &str, exp: u64) -> String {
    let mut case = Case::default();
    case.header.insert("kid".to_owned(), json!(kid));
    case.claims.insert("exp".to_owned(), json!(exp));
    ["Bearer ", &case.make_token_by(&published(kid))].concat()
}

// The maker.

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in (0..=group.len()).map(|place| 18 - 6 * place) {
            let letter = usize::try_from(bits >> place & 63).ok().and_then(|index| ALPHABET.get(index));
            text.push(char::from(*letter.expect("six bits")));
        }
    }
    text
}

fn base64url_chars(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// Replaces the last letter by another with the same bytes: its lowest bits are unused.
fn with_trailing_bits(text: &str) -> String {
    let (rest, last) = text.split_at(text.len() - 1);
    let next = char::from(last.as_bytes().first().expect("one letter") + 1);
    [rest, &next.to_string()].concat()
}

/// Appends white space to `json` where unused bits or padding need it.
fn encode(json: &str, encoding: Encoding) -> String {
    let mut json = json.to_owned();
    while encoding != Encoding::Right && json.len() % 3 != 1 {
        json.push(' ');
    }
    let text = base64url(json.as_bytes());
    match encoding {
        Encoding::Right => text,
        Encoding::Padded => text + "==",
        Encoding::TrailingBits => with_trailing_bits(&text),
    }
}

/// Replaces the placeholders.
fn fill(value: &Value) -> Value {
    let now_s = i64::try_from(NOW_MS / 1000).expect("it is not so late");
    match value {
        Value::Object(members) => match (members.get("now"), members.get("now as text")) {
            (Some(later), _) => match later.as_i64() {
                Some(later_s) => json!(now_s + later_s),
                None => {
                    let now_s = f64::from(u32::try_from(now_s).expect("it is before 2106"));
                    json!(now_s + later.as_f64().expect("a number"))
                }
            },
            (None, Some(later)) => json!((now_s + later.as_i64().expect("a number")).to_string()),
            (None, None) => members.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
        },
        Value::Array(items) => items.iter().map(fill).collect(),
        Value::String(text) if text.ends_with(" jwk>") => {
            json!({ "kty": "EC", "crv": "P-256", "x": coordinate(text) })
        }
        Value::String(text) => {
            let mut text = text.clone();
            let issuer = format!("{SUPABASE_URL}/auth/v1");
            for (placeholder, meant) in [
                ("<user>", USER.to_owned()),
                ("<USER>", USER.to_uppercase()),
                ("<user without hyphens>", USER.replace('-', "")),
                ("<issuer>", issuer.clone()),
                ("<ISSUER>", issuer.to_uppercase()),
                ("<supabase url>", SUPABASE_URL.to_owned()),
                ("<rs256 kid>", RS256_KID.to_owned()),
                ("<ES256 KID>", ES256_KID.to_uppercase()),
            ] {
                text = text.replace(placeholder, &meant);
            }
            Value::String(text)
        }
        _ => value.clone(),
    }
}

impl Case {
    fn header_text(&self) -> String {
        text_of(
            json!({ "alg": "ES256", "kid": ES256_KID, "typ": "JWT" }),
            (&self.header, &self.without_header),
            &self.header_as,
        )
    }

    fn claims_text(&self) -> String {
        let now_s = NOW_MS / 1000;
        text_of(
            json!({ "iss": format!("{SUPABASE_URL}/auth/v1"), "sub": USER, "aud": "authenticated", "exp": now_s + 3600,
                "iat": now_s, "email": "a@example.test", "phone": "", "app_metadata": { "provider": "email" },
                "user_metadata": {}, "role": "authenticated", "aal": "aal1", "session_id": USER, "is_anonymous": false }),
            (&self.claims, &self.without_claims),
            &self.claims_as,
        )
    }

    /// Returns the host's identifier of the signing key.
    fn key(&self) -> String {
        match self.signed_by.as_str() {
            "es256" => published(ES256_KID),
            "rs256" => published(RS256_KID),
            "secret: jwt secret" => JWT_SECRET.to_owned(),
            "secret: es256 jwk" => published(ES256_KID),
            "secret: rs256 jwk" => published(RS256_KID),
            "secret: anon key" => ANON_KEY.to_owned(),
            stranger => stranger.to_owned(),
        }
    }

    fn make_token_by(&self, key: &str) -> String {
        let mut case = self.clone();
        if let Some(bytes) = self.bytes {
            case.fill_up_to(bytes);
        }
        let header = encode(&case.header_text(), case.header_encoding);
        let claims = encode(&case.claims_text(), case.claims_encoding);
        let signature = scripted_signature(key, [&header, ".", &claims].concat().as_bytes());
        case.token
            .replace("<header>", &header)
            .replace("<claims>", &claims)
            .replace("<signature>", &changed(&signature, &case.signature))
            .replace("<other header>", &encode(&format!("{} ", case.header_text()), Encoding::Right))
            .replace("<other claims>", &encode(&format!("{} ", case.claims_text()), Encoding::Right))
    }

    /// Makes the token so long. The claims alone cannot have every length: base64url has none of 4 n + 1.
    fn fill_up_to(&mut self, bytes: usize) {
        while !(0..4).any(|_| {
            let others = base64url_chars(self.header_text().len()) + base64url_chars(64) + 2;
            let room = bytes - others;
            self.claims.insert("hint".to_owned(), json!(""));
            let note = room * 3 / 4 - self.claims_text().len();
            self.claims.insert("hint".to_owned(), json!("x".repeat(note)));
            base64url_chars(self.claims_text().len()) == room
        }) {
            let hint = self.header.get("hint").and_then(Value::as_str).unwrap_or_default();
            self.header.insert("hint".to_owned(), json!([hint, "x"].concat()));
        }
    }

    fn authorization(&self) -> Option<String> {
        let token = self.make_token_by(&self.key());
        let lines: Vec<String> =
            self.authorization.iter().map(|line| line.replace("<token>", &token)).collect();
        // RFC 9110, section 5.3: lines of one name are joined by a comma.
        (!lines.is_empty()).then(|| lines.join(", "))
    }
}

fn text_of(genuine: Value, (set, without): (&Map<String, Value>, &Vec<String>), around: &str) -> String {
    let Value::Object(mut members) = genuine else { panic!("it is an object") };
    members.extend(set.iter().map(|(name, value)| (name.clone(), fill(value))));
    for name in without {
        members.remove(name);
    }
    let text = Value::Object(members).to_string();
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    around.replace("<members>", inner.expect("an object has braces"))
}

/// Changes the bytes of a signature.
fn changed(signature: &[u8; 64], how: &str) -> String {
    // The order of P-256 (SEC 2, section 2.4.2).
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (r, s) = signature.split_at(32);
    let flipped = |at: usize, bit: u8| {
        let mut bytes = signature.to_vec();
        *bytes.get_mut(at).expect("it is there") ^= bit;
        bytes
    };
    let bytes = match how {
        "" => signature.to_vec(),
        "trailing bits" => return with_trailing_bits(&base64url(signature)),
        "truncated" => return base64url(signature).chars().take(85).collect(),
        "zeros" => vec![0; 64],
        "ones" => vec![0xff; 64],
        "r zero" => [&[0; 32], s].concat(),
        "s zero" => [r, &[0; 32]].concat(),
        "r the order" => [&ORDER, s].concat(),
        "s the order" => [r, &ORDER].concat(),
        "swapped" => [s, r].concat(),
        "DER" => {
            // A leading zero where the number would be negative.
            let number = |bytes: &[u8]| [&[2, 33, 0], bytes].concat();
            [&[0x30, 70][..], &number(r), &number(s)].concat()
        }
        "one byte less" => signature.iter().copied().take(63).collect(),
        "one byte more" => [signature, &[0][..]].concat(),
        "first bit" => flipped(0, 0x80),
        "last bit" => flipped(63, 1),
        "twice" => signature.repeat(2),
        other => panic!("{other} is no change of a signature"),
    };
    base64url(&bytes)
}

// The promises.

#[test]
fn every_token_of_the_table_has_its_expected_result() {
    let mut wrong = Vec::new();
    for case in cases() {
        let (host, config) = (host_at(NOW_MS), config(case.service == "with the secret"));
        // Loads the keys, so that the token alone decides whether its signature is checked.
        authenticate_with(&host, &config, Some(&genuine(ES256_KID))).expect("a genuine token is accepted");
        host.set_now_ms(NOW_MS);
        let checked_before = host.signatures_checked();

        let found = match authenticate_with(&host, &config, case.authorization().as_deref()) {
            Ok(user) if user.id.to_string() == USER => "let in",
            Ok(_) => "let in as another user",
            Err(refused) => refused.to_problem().code.name(),
        };
        if found != case.expect {
            wrong.push(format!("{}: {found} instead of {}", case.name, case.expect));
        }
        if case.unchecked && host.signatures_checked() != checked_before {
            wrong.push(format!("{}: its signature was checked", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_of_tokens_is_complete_and_consistent() {
    let cases = cases();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    for case in &cases {
        let token = case.make_token_by(&case.key());
        if let Some(bytes) = case.bytes {
            assert_eq!(token.len(), bytes, "{}", case.name);
        }
        assert!(!token.contains(['<', '>']), "{}: {token}", case.name);
        assert!(
            ["let in", "missing_token", "invalid_token", "expired_token", "anonymous_not_allowed"]
                .contains(&&*case.expect)
        );
    }
    let names: std::collections::BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases have the same name");
}
