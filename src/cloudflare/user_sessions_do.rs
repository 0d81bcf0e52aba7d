//! `UserSessions`: one Durable Object per user, named by the user's id.

use std::cell::OnceCell;
use std::rc::Rc;

use wasm_bindgen_futures::spawn_local;
use web_sys::ReadableStream;
use worker::{DurableObject, Env, Request, Response, State, durable_object};

use super::edge_host::REPLY_HEADER;
use super::object_host::ObjectHost;
use super::pipe::pipe;
use crate::config::LogLevel;
use crate::edge::events::write_events;
use crate::edge::wire::{read_command, write_reply};
use crate::http::problem::ProblemContext;
use crate::ports::{Clock, Log, StoreError, UserStore};
use crate::user_object::UserObject;
use crate::user_object::subscription::Subscription;
use crate::web::WebHost;
use crate::web::response::{OutgoingBody, response};

/// A failed alarm is set again after this time.
const ALARM_AGAIN_MS: u64 = 60_000;

/// The object of one user.
#[durable_object(alarm)]
pub struct UserSessions {
    host: ObjectHost,
    object: OnceCell<UserObject<ObjectHost>>,
}

impl UserSessions {
    fn object(&self) -> worker::Result<&UserObject<ObjectHost>> {
        // The edge handles an invalid configuration before it sends a command.
        let settings = self.host.settings().as_ref().as_ref();
        let config = settings.map_err(|_| worker::Error::from("not configured"))?;
        Ok(self.object.get_or_init(|| UserObject::new(self.host.clone(), Rc::clone(config))))
    }

    /// A body that is written in a task of its own, which continues after the head of the response.
    fn stream(&self, subscription: Subscription, context: ProblemContext) -> worker::Result<ReadableStream> {
        let (sink, body) = pipe()?;
        let host = self.host.clone();
        spawn_local(async move {
            // The client has left.
            let _ = write_events(&host, &subscription, &context, sink).await;
        });
        Ok(body)
    }
}

impl DurableObject for UserSessions {
    fn new(state: State, env: Env) -> Self {
        Self { host: ObjectHost::new(state, &env), object: OnceCell::new() }
    }

    async fn fetch(&self, mut request: Request) -> worker::Result<Response> {
        let received = read_command(&request.bytes().await?);
        let (command, context) = received.ok_or_else(|| worker::Error::from("no command"))?;
        let (mut executed, subscription) = self.object()?.execute(&command).await;
        let (reply, document) = write_reply(&mut executed);
        let body = match subscription {
            Some(subscription) => OutgoingBody::Stream(Some(self.stream(subscription, context)?)),
            None => OutgoingBody::Bytes(document),
        };
        Ok(response(200, &[(REPLY_HEADER, reply)], body)?.into())
    }

    async fn alarm(&self) -> worker::Result<Response> {
        let has_run = match self.object() {
            Ok(object) => object.run_alarm().await.is_ok(),
            // A deployment without a variable must not lose the jobs.
            Err(_) => false,
        };
        if !has_run {
            // The platform repeats a failed alarm for two minutes and then drops it; the jobs are kept for longer.
            self.host.log(LogLevel::Error, r#"{"level":"error","message":"alarm failed"}"#);
            let again_ms = self.host.now_ms().saturating_add(ALARM_AGAIN_MS);
            self.host.set_alarm(again_ms).await.map_err(|StoreError| worker::Error::from("no alarm"))?;
        }
        Response::empty()
    }
}
