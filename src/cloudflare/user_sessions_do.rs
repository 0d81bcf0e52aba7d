//! `UserSessions`: one Durable Object per user, named by the user's id.

use std::cell::OnceCell;
use std::rc::Rc;

use worker::{DurableObject, Env, Request, Response, State, durable_object};

use super::edge_platform::REPLY_HEADER;
use super::object_platform::DurableObjectState;
use crate::config::LogLevel;
use crate::edge::wire::{read_command, write_reply};
use crate::ports::{Clock, Log, StoreError, UserStore};
use crate::user_object::UserObject;
use crate::web::WebHost;
use crate::web::object_host::ObjectHost;
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
}

impl DurableObject for UserSessions {
    fn new(state: State, env: Env) -> Self {
        let host = ObjectHost::new(Rc::new(DurableObjectState::new(state, &env)));
        Self { host, object: OnceCell::new() }
    }

    async fn fetch(&self, mut request: Request) -> worker::Result<Response> {
        let received = read_command(&request.bytes().await?);
        let (command, context) = received.ok_or_else(|| worker::Error::from("no command"))?;
        let (mut executed, subscription) = self.object()?.execute(&command).await;
        let (reply, document) = write_reply(&mut executed);
        let body = match subscription {
            Some(subscription) => OutgoingBody::Stream(Some(self.host.stream(subscription, context)?)),
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
