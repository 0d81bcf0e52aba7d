//! The Worker's entrance.

use worker::{Context, Env, event};

use super::edge_host::EdgeHost;
use super::incoming::InboundRequest;
use super::outgoing::{OutgoingBody, response};
use super::platform::OnWorkers;
use crate::edge::{Reply, answer};

#[event(fetch)]
async fn fetch(request: web_sys::Request, env: Env, context: Context) -> worker::Result<web_sys::Response> {
    let host = EdgeHost::new(env, context);
    match answer(&host, host.settings(), InboundRequest::new(request)).await {
        Reply::Whole(answer) => response(answer.status, &answer.headers, OutgoingBody::Bytes(answer.body)),
        Reply::Passed { status, headers, body } => response(status, &headers, OutgoingBody::Stream(body)),
    }
}
