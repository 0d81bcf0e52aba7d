//! `UserSessions`: one Durable Object per user, named by the user's id. Load → decide → store happens in
//! `object_host`; what is decided, in `desk`.

use wasm_bindgen_futures::spawn_local;
use web_sys::ReadableStream;
use worker::{DurableObject, Env, Request, Response, State, durable_object};

use super::object_host::ObjectHost;
use super::outgoing::{OutgoingBody, pipe, response};
use super::platform::OnWorkers;
use crate::config::{Config, LogLevel};
use crate::edge::session_events::{Follow, write_events};
use crate::edge::user_desk::{Served, serve, tell_limited, wake};
use crate::ports::{DeskHost, Log};
use crate::user_state::ask::{Ask, HEAD_HEADER, Head};

/// One user's desk.
#[durable_object(alarm)]
pub struct UserSessions {
    host: ObjectHost,
}

impl UserSessions {
    async fn see_to_chores(&self) -> worker::Result<()> {
        wake(&self.host, self.config()?).map_err(|_| worker::Error::from("the storage failed"))?;
        self.host.delete_if_empty().await
    }

    /// A body that is written in a task of its own, which goes on after the answer's head.
    fn stream(&self, follow: Follow) -> worker::Result<ReadableStream> {
        let (sink, body) = pipe()?;
        let host = self.host.clone();
        // From now on: a generation that ends before the task begins must still be heard of.
        let follower = host.follow(follow.id);
        spawn_local(async move {
            if let Some(follower) = follower {
                // A reader that left is none of anybody's business.
                let _ = write_events(&host, &follow, &follower, sink).await;
            }
        });
        Ok(body)
    }

    fn config(&self) -> worker::Result<&Config> {
        // The edge answers for a bad configuration before it asks.
        self.host.settings().as_ref().as_ref().map_err(|_| worker::Error::from("not set up"))
    }
}

impl DurableObject for UserSessions {
    fn new(state: State, env: Env) -> Self {
        Self { host: ObjectHost::new(state, &env) }
    }

    async fn fetch(&self, mut request: Request) -> worker::Result<Response> {
        let ask: Ask = serde_json::from_slice(&request.bytes().await?)?;
        let Served { answer, follow, facts, limited } = serve(&self.host, self.config()?, &ask).await;
        let headers = answer.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let head = [(HEAD_HEADER, serde_json::to_string(&Head { headers, facts })?)];
        if !limited.is_empty() {
            let host = self.host.clone();
            spawn_local(async move {
                if let Ok(config) = host.settings().as_ref() {
                    tell_limited(&host, config, &ask, &limited).await;
                }
            });
        }
        let body = match follow {
            Some(follow) => OutgoingBody::Stream(Some(self.stream(follow)?)),
            None => OutgoingBody::Bytes(answer.body),
        };
        Ok(response(answer.status, &head, body)?.into())
    }

    async fn alarm(&self) -> worker::Result<Response> {
        self.host.alarm_is_over();
        if let Err(error) = self.see_to_chores().await {
            // The platform repeats a failed alarm for two minutes and then drops it; what waits here waits longer.
            drop(error);
            self.host.log(LogLevel::Error, r#"{"level":"error","message":"alarm failed"}"#);
            self.host.wake_again().await?;
        }
        Response::empty()
    }
}
