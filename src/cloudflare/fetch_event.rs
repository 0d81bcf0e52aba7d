//! The Worker's fetch handler.

use worker::{Context, Env, event};

use super::edge_platform::WorkerRequest;
use crate::web::edge_host::EdgeHost;
use crate::web::messages::InboundRequest;

#[event(fetch)]
async fn fetch(request: web_sys::Request, env: Env, context: Context) -> worker::Result<web_sys::Response> {
    let url = request.url();
    let host = EdgeHost::new(WorkerRequest::new(env, context));
    Ok(host.respond(InboundRequest::new(request, url)).await?)
}
