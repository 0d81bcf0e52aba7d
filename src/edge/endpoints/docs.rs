//! `GET /docs`: the contract for people, made from the one for machines. Each code has an anchor, to which the `type` of
//! a problem links. Works without a configuration, and without JavaScript.

use super::openapi::asset;
use crate::http::Response;
use crate::http::problem::Problem;
use crate::ports::{Assets, Log};

/// The asset: the page, made by `scripts/docs_page.ts`.
const PAGE: &str = "docs.html";

/// Allows the inline style and no other resource.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page.
///
/// # Errors
/// `internal` when the deployment has no such asset.
pub async fn docs(host: &(impl Assets + Log)) -> Result<Response, Problem> {
    let page = asset(host, PAGE).await?;
    Ok(Response::new(200, "text/html; charset=utf-8", page)
        .with("cache-control", "public, max-age=300")
        .with("content-security-policy", POLICY)
        .with("x-content-type-options", "nosniff"))
}
