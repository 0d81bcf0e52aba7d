//! The Worker's fetch handler.

use worker::{Context, Env, event};

use super::edge_host::EdgeHost;
use super::stream_body::InboundRequest;
use crate::edge::handle::handle;
use crate::edge::render::Outgoing;
use crate::web::WebHost;
use crate::web::response::{OutgoingBody, response};

#[event(fetch)]
async fn fetch(request: web_sys::Request, env: Env, context: Context) -> worker::Result<web_sys::Response> {
    let host = EdgeHost::new(env, context);
    let (head, body) = match handle(&host, host.settings(), InboundRequest::new(request)).await {
        Outgoing::Complete(mut complete) => {
            let body = std::mem::take(&mut complete.body);
            (complete, OutgoingBody::Bytes(body))
        }
        Outgoing::Forwarded(head, body) => (head, OutgoingBody::Stream(body)),
    };
    Ok(response(head.status, &head.headers, body)?)
}
