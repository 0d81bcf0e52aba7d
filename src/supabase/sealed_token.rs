//! The owner's access token in a stored generation, sealed by AES-256-GCM: hexadecimal digits of nonce and ciphertext.
//!
//! Only with `WAKE_UP`. A generation that no isolate drives can then be resumed without a request of its owner; the database
//! cannot read the token. Each session has a key of its own, derived from the service's secret, so that a token that is copied
//! to another session or another user cannot be opened, and no key seals so often that two random nonces are equal.

use std::rc::Rc;

use uuid::Uuid;

use crate::auth::credentials::Credentials;
use crate::keyed_hash::{from_hex, hex, keyed_hash};
use crate::ports::{Cipher, Random};

/// Separates this hash from the others under the secret.
const LABEL: &[u8] = b"ai-sessions/sealed-token\0";
/// The bytes of a nonce: NIST SP 800-38D, section 5.2.1.1, recommends this length.
const NONCE_BYTES: usize = 12;

/// The owner of a token, and the session for which it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The service's secret.
    pub secret: &'a str,
    /// The owner.
    pub user: Uuid,
    /// The session.
    pub session: Uuid,
}

impl Context<'_> {
    fn key(&self) -> [u8; 32] {
        keyed_hash(self.secret, &[LABEL, self.user.as_bytes(), self.session.as_bytes()])
    }
}

/// Seals a token with its expiry; `None` when the platform refuses.
pub async fn seal(
    host: &(impl Cipher + Random),
    context: Context<'_>,
    credentials: &Credentials,
) -> Option<String> {
    let random = host.random_bits().to_be_bytes();
    let nonce = random.get(..NONCE_BYTES)?;
    let message = [&credentials.expires_ms.to_string(), " ", &credentials.token].concat();
    let sealed = host.seal(&context.key(), nonce, message.as_bytes()).await?;
    Some([hex(nonce), hex(&sealed)].concat())
}

/// Opens a sealed token: the token and its expiry. `None` for one that was not sealed in this context.
pub async fn open(host: &impl Cipher, context: Context<'_>, sealed: &str) -> Option<(Rc<str>, u64)> {
    let sealed = from_hex(sealed)?;
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
    let message = String::from_utf8(host.open(&context.key(), nonce, sealed).await?).ok()?;
    let (expires_ms, token) = message.split_once(' ')?;
    Some((Rc::from(token), expires_ms.parse().ok()?))
}
