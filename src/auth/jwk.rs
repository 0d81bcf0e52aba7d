//! The public keys of the sign-in service (RFC 7517) that can verify a token here.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A signature algorithm. The key determines it; the `alg` of the token must be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// Ed25519.
    EdDsa,
    /// HMAC with SHA-256 and the project's shared secret; never with a published key.
    Hs256,
}

impl Algorithm {
    /// Returns the algorithm of this name in a token's header; names are case-sensitive (RFC 7515, section 4.1.1).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            "RS256" => Some(Self::Rs256),
            "EdDSA" => Some(Self::EdDsa),
            "HS256" => Some(Self::Hs256),
            _ => None,
        }
    }
}

/// A public key that can verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// `kid`.
    pub id: String,
    /// The algorithm of its signatures.
    pub algorithm: Algorithm,
    /// The members of the key material alone, as JSON: for the host to import, and to compare keys.
    pub jwk: String,
}

/// The most keys that are read; no project has as many, not even during a rotation.
const KEYS_MAX: usize = 32;

/// Reads a key set; keys of other kinds, uses or sizes are skipped. Returns `None` for a document that is no key set.
#[must_use]
pub fn read_key_set(document: &[u8]) -> Option<Vec<PublicKey>> {
    let set: KeySet<'_> = serde_json::from_slice(document).ok()?;
    Some(set.keys.into_iter().filter_map(read_key).take(KEYS_MAX).collect())
}

#[derive(Deserialize)]
struct KeySet<'a> {
    /// Raw, so that a key of an unknown kind does not fail the others.
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The members of a key, parsed on access: a type with a field for each would make the module 4 KB larger.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = object.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'a> Members<'a> {
    /// Returns a member as that type, or the default where it is missing; `None` for one of another type or a duplicate.
    fn get<T: Deserialize<'a> + Default>(&self, name: &str) -> Option<T> {
        let mut found = self.0.iter().filter(|(known, _)| known == name);
        let Some((_, value)) = found.next() else { return Some(T::default()) };
        let value = serde_json::from_slice(value.get().as_bytes()).ok()?;
        found.next().is_none().then_some(value)
    }

    fn text(&self, name: &str) -> Option<Option<String>> {
        self.get(name)
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Material<'a> {
    Curve { kty: &'a str, crv: &'a str, x: &'a str, y: &'a str },
    Edwards { kty: &'a str, crv: &'a str, x: &'a str },
    Rsa { kty: &'a str, n: &'a str, e: &'a str },
}

/// 32 bytes as base64url without padding: a coordinate of P-256, a key of Ed25519.
const COORDINATE_CHARS: usize = 43;
/// 2048 to 8192 bits; shorter keys are not safe, longer ones cost too much time.
const MODULUS_CHARS: std::ops::RangeInclusive<usize> = 342..=1366;

fn read_key(raw: &RawValue) -> Option<PublicKey> {
    let key: Members<'_> = serde_json::from_slice(raw.get().as_bytes()).ok()?;
    let operations: Option<Vec<String>> = key.get("key_ops")?;
    if key.text("use")?.is_some_and(|usage| usage != "sig")
        || operations.is_some_and(|operations| !operations.iter().any(|operation| operation == "verify"))
    {
        return None;
    }
    let coordinate = |name| key.text(name)?.filter(|text| text.len() == COORDINATE_CHARS);
    let (algorithm, jwk) = match (key.text("kty")??.as_str(), key.text("crv")?.as_deref()) {
        ("EC", Some(crv @ "P-256")) => {
            let (x, y) = (coordinate("x")?, coordinate("y")?);
            (Algorithm::Es256, serde_json::to_string(&Material::Curve { kty: "EC", crv, x: &x, y: &y }))
        }
        ("OKP", Some(crv @ "Ed25519")) => {
            let x = coordinate("x")?;
            (Algorithm::EdDsa, serde_json::to_string(&Material::Edwards { kty: "OKP", crv, x: &x }))
        }
        ("RSA", None) => {
            let n = key.text("n")?.filter(|n| MODULUS_CHARS.contains(&n.len()))?;
            let e = key.text("e")?.filter(|e| !e.is_empty() && e.len() <= 8)?;
            (Algorithm::Rs256, serde_json::to_string(&Material::Rsa { kty: "RSA", n: &n, e: &e }))
        }
        _ => return None,
    };
    if key.text("alg")?.is_some_and(|alg| Algorithm::from_name(&alg) != Some(algorithm)) {
        return None;
    }
    Some(PublicKey { id: key.text("kid")?.filter(|kid| !kid.is_empty())?, algorithm, jwk: jwk.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(document: &str) -> Option<Vec<(String, Algorithm)>> {
        read_key_set(document.as_bytes())
            .map(|keys| keys.into_iter().map(|key| (key.id, key.algorithm)).collect())
    }

    #[test]
    fn only_keys_that_can_verify_are_read() {
        let (x, n) = ("A".repeat(43), "A".repeat(342));
        let good = format!(
            r#"{{"keys":[
            {{"kty":"EC","crv":"P-256","kid":"ec","x":"{x}","y":"{x}","alg":"ES256","use":"sig","key_ops":["verify"],"ext":true}},
            {{"kty":"RSA","kid":"rsa","n":"{n}","e":"AQAB"}},
            {{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"{x}"}}]}}"#
        );
        assert_eq!(
            ids(&good),
            Some(vec![
                ("ec".to_owned(), Algorithm::Es256),
                ("rsa".to_owned(), Algorithm::Rs256),
                ("ed".to_owned(), Algorithm::EdDsa)
            ])
        );
        for skipped in [
            r#"{"kty":"oct","kid":"a","k":"c2VjcmV0","alg":"HS256"}"#.to_owned(),
            format!(r#"{{"kty":"EC","crv":"P-384","kid":"a","x":"{x}","y":"{x}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","kid":"a","x":"{x}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","kid":"a","x":"{x}A","y":"{x}"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","kid":"a","x":"{x}","y":"{x}","alg":"HS256"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","kid":"a","x":"{x}","y":"{x}","use":"enc"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","kid":"a","x":"{x}","y":"{x}","key_ops":["sign"]}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}}"#),
            r#"{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}"#.to_owned(),
            r#"{"kty":"new"}"#.to_owned(),
            "5".to_owned(),
        ] {
            assert_eq!(ids(&format!(r#"{{"keys":[{skipped}]}}"#)), Some(Vec::new()), "{skipped}");
        }
    }

    #[test]
    fn other_documents_are_not_read_as_a_key_set() {
        for document in ["", "<html></html>", "[]", "{}", r#"{"keys":{}}"#, "null"] {
            assert_eq!(ids(document), None, "{document}");
        }
        assert_eq!(ids(r#"{"keys":[]}"#), Some(Vec::new()));
    }
}
