//! Signature checks and encryption, by WebCrypto.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{JSON, Object, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{CryptoKey, WorkerGlobalScope};

use super::operations::{Operation, value_of};
use crate::auth::jwk::Algorithm;
use crate::ports::VerifyKey;

/// The most imported keys. A project has a handful; a rotation adds one.
const IMPORTED_MAX: usize = 16;

thread_local! {
    static IMPORTED: RefCell<Vec<Imported>> = const { RefCell::new(Vec::new()) };
}

/// A key, with the parameters of its checks.
#[derive(Clone)]
struct Imported {
    /// The JWK or the secret.
    source: Rc<str>,
    key: CryptoKey,
    algorithm: Object,
}

/// Whether the signature is valid; `false` for everything that the platform refuses.
pub(crate) async fn verify(key: VerifyKey<'_>, message: &[u8], signature: &[u8]) -> bool {
    let Ok(Imported { key, algorithm, .. }) = import(key).await else { return false };
    Operation::verify(&key, &algorithm, message, signature).await.status == 1
}

async fn import(key: VerifyKey<'_>) -> Result<Imported, JsValue> {
    let source = match key {
        VerifyKey::Public(public) => &public.jwk,
        VerifyKey::Secret(secret) => secret,
    };
    let known =
        IMPORTED.with_borrow(|imported| imported.iter().find(|known| &*known.source == source).cloned());
    if let Some(known) = known {
        return Ok(known);
    }
    let global: WorkerGlobalScope = js_sys::global().unchecked_into();
    let subtle = global.crypto()?.subtle();
    let usages = js_sys::Array::of1(&"verify".into());
    let (importing, algorithm) = match key {
        VerifyKey::Public(public) => {
            let algorithm = parameters(public.algorithm)?;
            let jwk: Object = JSON::parse(&public.jwk)?.dyn_into()?;
            (subtle.import_key_with_object("jwk", &jwk, &algorithm, false, &usages)?, algorithm)
        }
        VerifyKey::Secret(secret) => {
            let algorithm = parameters(Algorithm::Hs256)?;
            let bytes = Uint8Array::from(secret.as_bytes());
            (subtle.import_key_with_object("raw", &bytes, &algorithm, false, &usages)?, algorithm)
        }
    };
    let key: CryptoKey = value_of(&importing).await?.dyn_into()?;
    let new = Imported { source: source.into(), key, algorithm };
    IMPORTED.with_borrow_mut(|imported| {
        if imported.len() >= IMPORTED_MAX {
            imported.remove(0);
        }
        imported.push(new.clone());
    });
    Ok(new)
}

/// Encrypts or decrypts by AES-GCM, as `usage` (`encrypt` or `decrypt`) says; `None` for everything that the platform refuses.
pub(crate) async fn aes_gcm(usage: &str, key: &[u8], nonce: &[u8], input: &[u8]) -> Option<Vec<u8>> {
    try_aes_gcm(usage, key, nonce, input).await.ok()
}

async fn try_aes_gcm(usage: &str, key: &[u8], nonce: &[u8], input: &[u8]) -> Result<Vec<u8>, JsValue> {
    let global: WorkerGlobalScope = js_sys::global().unchecked_into();
    let subtle = global.crypto()?.subtle();
    let algorithm = Object::new();
    Reflect::set(&algorithm, &"name".into(), &"AES-GCM".into())?;
    Reflect::set(&algorithm, &"iv".into(), &Uint8Array::from(nonce))?;
    let usages = js_sys::Array::of1(&usage.into());
    let importing =
        subtle.import_key_with_object("raw", &Uint8Array::from(key), &algorithm, false, &usages)?;
    let key: CryptoKey = value_of(&importing).await?.dyn_into()?;
    let input = Uint8Array::from(input);
    let output = if usage == "encrypt" {
        subtle.encrypt_with_object_and_js_u8_array(&algorithm, &key, &input)?
    } else {
        subtle.decrypt_with_object_and_js_u8_array(&algorithm, &key, &input)?
    };
    Ok(Uint8Array::new(&value_of(&output).await?).to_vec())
}

/// The parameters of import and check.
fn parameters(algorithm: Algorithm) -> Result<Object, JsValue> {
    let (name, hash, curve) = match algorithm {
        Algorithm::Es256 => ("ECDSA", Some("SHA-256"), Some("P-256")),
        Algorithm::Rs256 => ("RSASSA-PKCS1-v1_5", Some("SHA-256"), None),
        Algorithm::EdDsa => ("Ed25519", None, None),
        Algorithm::Hs256 => ("HMAC", Some("SHA-256"), None),
    };
    let parameters = Object::new();
    Reflect::set(&parameters, &"name".into(), &name.into())?;
    if let Some(hash) = hash {
        Reflect::set(&parameters, &"hash".into(), &hash.into())?;
    }
    if let Some(curve) = curve {
        Reflect::set(&parameters, &"namedCurve".into(), &curve.into())?;
    }
    Ok(parameters)
}
