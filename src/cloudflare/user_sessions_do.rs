//! `UserSessions`: one Durable Object per user, named by the user's id. Load → decide → store happens in
//! `object_host`; what is decided, in `desk`.

use wasm_bindgen_futures::spawn_local;
use worker::{DurableObject, Env, Request, Response, State, durable_object};

use super::object_host::ObjectHost;
use super::outgoing::{OutgoingBody, response};
use super::platform::OnWorkers;
use crate::config::{Config, LogLevel};
use crate::desk::ask::{Ask, FACTS_HEADER};
use crate::ports::Log;
use crate::routes::user_desk::{Served, serve, tell_limited, wake};

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
        let ask: Ask = serde_json::from_slice(request.text().await?.as_bytes())?;
        let Served { mut answer, facts, limited } = serve(&self.host, self.config()?, &ask).await;
        answer.headers.push((FACTS_HEADER, serde_json::to_string(&facts)?));
        if !limited.is_empty() {
            let host = self.host.clone();
            spawn_local(async move {
                if let Ok(config) = host.settings().as_ref() {
                    tell_limited(&host, config, &ask, &limited).await;
                }
            });
        }
        Ok(response(answer.status, &answer.headers, OutgoingBody::Bytes(answer.body))?.into())
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
