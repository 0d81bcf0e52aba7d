//! `GET /openapi.json`: the contract for machines. Works without a configuration.

use serde::Serialize;

use crate::config::LogLevel;
use crate::http::{Answer, JSON};
use crate::ports::{Assets, Log};
use crate::problem::{Code, Problem};

/// The asset: `src/answer/openapi.json` without its white space.
const DOCUMENT: &str = "openapi.json";

/// The document.
///
/// # Errors
/// `internal` when the deployment has no such asset.
pub async fn openapi(host: &(impl Assets + Log)) -> Result<Answer, Problem> {
    let document = asset(host, DOCUMENT).await?;
    Ok(Answer::new(200, JSON, document).with("cache-control", "public, max-age=300"))
}

/// The bytes of an asset; a missing one is logged.
pub(super) async fn asset(host: &(impl Assets + Log), name: &str) -> Result<Vec<u8>, Problem> {
    if let Some(bytes) = host.asset(name).await {
        return Ok(bytes);
    }
    let line = MissingAsset { level: "error", message: "asset missing", asset: name };
    host.log(LogLevel::Error, &serde_json::to_string(&line).unwrap_or_default());
    Err(Problem::new(Code::Internal, "the service was deployed without its documents"))
}

/// The log line of an asset that the deployment does not have.
#[derive(Serialize)]
struct MissingAsset<'a> {
    level: &'static str,
    message: &'static str,
    asset: &'a str,
}
