//! `GET /openapi.json`: the contract for machines. Works without a configuration.

use serde::Serialize;

use crate::config::LogLevel;
use crate::http::problem::{Code, Problem};
use crate::http::{JSON, Response};
use crate::ports::{Assets, Log, log_line};

/// The asset: `src/edge/openapi.json` without its white space.
const DOCUMENT: &str = "openapi.json";

/// The URL of the asset's one server.
const SERVER: &str = r#""url":"/""#;

/// The document. Its server is `public_url`, where that is set.
///
/// # Errors
/// `internal` when the deployment has no such asset.
pub async fn openapi(host: &(impl Assets + Log), public_url: Option<&str>) -> Result<Response, Problem> {
    let document = asset(host, DOCUMENT).await?;
    let document = match public_url {
        Some(url) => with_server(document, url),
        None => document,
    };
    Ok(Response::new(200, JSON, document).with("cache-control", "public, max-age=300"))
}

/// The document with another server. INVARIANT of the settings: the URL has no character that JSON escapes.
fn with_server(document: Vec<u8>, url: &str) -> Vec<u8> {
    let at = document.windows(SERVER.len()).position(|window| window == SERVER.as_bytes());
    let Some((before, rest)) = at.and_then(|at| document.split_at_checked(at)) else { return document };
    let after = rest.get(SERVER.len()..).unwrap_or_default();
    [before, br#""url":""#, url.as_bytes(), b"\"", after].concat()
}

/// The bytes of an asset; a missing one is logged.
pub(super) async fn asset(host: &(impl Assets + Log), name: &str) -> Result<Vec<u8>, Problem> {
    if let Some(bytes) = host.asset(name).await {
        return Ok(bytes);
    }
    let level = LogLevel::Error;
    log_line(host, level, &MissingAsset { level: level.name(), message: "asset missing", asset: name });
    Err(Problem::new(Code::Internal, "the service was deployed without its documents"))
}

/// The log line of an asset that the deployment does not have.
#[derive(Serialize)]
struct MissingAsset<'a> {
    level: &'static str,
    message: &'static str,
    asset: &'a str,
}
