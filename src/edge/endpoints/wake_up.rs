//! `POST /internal/wake-up`: runs the due jobs of a user without a request of the user. Called by a schedule of the database,
//! where `WAKE_UP` is set; without it there is nothing at this path, and it is no part of the API.

use crate::config::Config;
use crate::edge::EdgeHost;
use crate::http::Response;
use crate::http::problem::{Code, Problem};
use crate::ports::Inbound;
use crate::supabase::wake_up::{BODY_BYTES_MAX, verify};

/// The path; not in the table of routes, which is the one of the API.
pub const PATH: &str = "/internal/wake-up";

/// Responds at once; the jobs run after the response.
///
/// # Errors
/// `invalid_token`: the database has not signed the request in the last minute.
pub async fn wake_up(
    host: &impl EdgeHost,
    config: &Config,
    inbound: &mut impl Inbound,
) -> Result<Response, Problem> {
    let key = config.user_state_key.as_deref().unwrap_or_default();
    let body = inbound.whole_body(BODY_BYTES_MAX).await.unwrap_or_default();
    let user = verify(key, &body, host.now_ms());
    host.wake_up(user.ok_or_else(|| Problem::new(Code::InvalidToken, "the proof is not valid"))?);
    Ok(Response::empty(204))
}
