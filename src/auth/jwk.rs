//! The public keys of the sign-in service (RFC 7517) that can verify a token here.

use crate::json::record::{FromJson, Items, Members, ToJson, write_object};
use crate::json::strict::follows_grammar;

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
    // As a whole: no key of a broken document is read.
    std::str::from_utf8(document).ok()?;
    if !follows_grammar(document) {
        return None;
    }
    let keys = Members::read(document)?.get::<Keys>("keys")?;
    Some(keys.0)
}

/// The keys of a set that can verify. Each is read by itself, so that one of an unknown kind does not fail the others.
struct Keys(Vec<PublicKey>);

impl FromJson for Keys {
    fn read(json: &[u8]) -> Option<Self> {
        Some(Self(Items::read(json)?.iter().filter_map(read_key).take(KEYS_MAX).collect()))
    }
}

/// 32 bytes as base64url without padding: a coordinate of P-256, a key of Ed25519.
const COORDINATE_CHARS: usize = 43;
/// 2048 to 8192 bits; shorter keys are not safe, longer ones cost too much time.
const MODULUS_CHARS: std::ops::RangeInclusive<usize> = 342..=1366;

fn read_key(json: &[u8]) -> Option<PublicKey> {
    let key = Members::read(json)?;
    let text = |name| key.get::<Option<String>>(name);
    let operations: Option<Vec<String>> = key.get("key_ops")?;
    if text("use")?.is_some_and(|usage| usage != "sig")
        || operations.is_some_and(|operations| !operations.iter().any(|operation| operation == "verify"))
    {
        return None;
    }
    let coordinate = |name| text(name)?.filter(|text| text.len() == COORDINATE_CHARS);
    let (kind, curve) = (text("kty")??, text("crv")?);
    let (algorithm, material) = match (kind.as_str(), curve.as_deref()) {
        ("EC", Some("P-256")) => (Algorithm::Es256, vec![("x", coordinate("x")?), ("y", coordinate("y")?)]),
        ("OKP", Some("Ed25519")) => (Algorithm::EdDsa, vec![("x", coordinate("x")?)]),
        ("RSA", None) => {
            let n = text("n")?.filter(|n| MODULUS_CHARS.contains(&n.len()))?;
            let e = text("e")?.filter(|e| !e.is_empty() && e.len() <= 8)?;
            (Algorithm::Rs256, vec![("n", n), ("e", e)])
        }
        _ => return None,
    };
    if text("alg")?.is_some_and(|alg| Algorithm::from_name(&alg) != Some(algorithm)) {
        return None;
    }
    let mut members: Vec<(&str, &dyn ToJson)> = vec![("kty", &kind)];
    members.extend(curve.as_ref().map(|curve| -> (&str, &dyn ToJson) { ("crv", curve) }));
    members.extend(material.iter().map(|(name, value)| -> (&str, &dyn ToJson) { (name, value) }));
    let mut jwk = String::new();
    write_object(&mut jwk, &members);
    Some(PublicKey { id: text("kid")?.filter(|kid| !kid.is_empty())?, algorithm, jwk })
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
