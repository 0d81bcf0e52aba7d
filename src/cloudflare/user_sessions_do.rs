//! `UserSessions`: one Durable Object per user, named by the user's id.

use std::cell::OnceCell;
use std::rc::Rc;

use js_sys::{Function, Promise};
use wasm_bindgen::prelude::*;
use web_sys::ReadableStream;
use worker::worker_sys::DurableObjectState as Context;

use super::object_platform::DurableObjectState;
use crate::config::LogLevel;
use crate::edge::wire::{read_command, write_reply};
use crate::ports::{Clock, Log, StoreError, UserStore};
use crate::user_object::UserObject;
use crate::web::object_host::ObjectHost;
use crate::web::tasks::start;
use crate::web::{WebHost, promise_of};

#[wasm_bindgen(module = "/src/cloudflare/operations.js")]
extern "C" {
    fn reply(resolve: &Function, text: &str, body: &[u8]);
    fn reply_stream(resolve: &Function, text: &str, body: &ReadableStream);
}

/// A failed alarm is set again after this time.
const ALARM_AGAIN_MS: u64 = 60_000;

/// The object of one user.
#[wasm_bindgen]
pub struct UserSessions(Rc<Object>);

struct Object {
    host: ObjectHost,
    object: OnceCell<UserObject<ObjectHost>>,
}

#[wasm_bindgen]
impl UserSessions {
    /// The object with this storage; not yet loaded.
    #[wasm_bindgen(constructor)]
    pub fn new(context: JsValue, env: JsValue, tracing: JsValue) -> Self {
        let context: Context = context.unchecked_into();
        let host = ObjectHost::new(Rc::new(DurableObjectState::new(&context, env, tracing)));
        Self(Rc::new(Object { host, object: OnceCell::new() }))
    }

    /// Executes a command of the edge, and resolves the call with the reply, or rejects it.
    pub fn execute(&self, command: Vec<u8>, resolve: Function, reject: Function) {
        let object = Rc::clone(&self.0);
        start(Box::pin(async move {
            if object.execute(&command, &resolve).await.is_none() {
                // The edge takes any error for a lost reply.
                let _ = reject.call0(&JsValue::UNDEFINED);
            }
        }));
    }

    /// Runs the due jobs.
    pub fn alarm(&self) -> Promise {
        let object = Rc::clone(&self.0);
        promise_of(Box::pin(async move {
            object.run_alarm().await.map_err(|StoreError| JsValue::from("no alarm"))?;
            Ok(JsValue::UNDEFINED)
        }))
    }
}

impl Object {
    /// `None` when the edge should not have sent a command: it handles an invalid configuration before.
    fn object(&self) -> Option<&UserObject<ObjectHost>> {
        let config = self.host.settings().as_ref().as_ref().ok()?;
        Some(self.object.get_or_init(|| UserObject::new(self.host.clone(), Rc::clone(config))))
    }

    async fn execute(&self, command: &[u8], resolve: &Function) -> Option<()> {
        let (command, context) = read_command(command)?;
        let (mut executed, subscription) = self.object()?.execute(&command).await;
        let (text, document) = write_reply(&mut executed);
        match subscription {
            Some(subscription) => {
                reply_stream(resolve, &text, &self.host.stream(subscription, context).ok()?);
            }
            None => reply(resolve, &text, &document),
        }
        Some(())
    }

    async fn run_alarm(&self) -> Result<(), StoreError> {
        let has_run = match self.object() {
            Some(object) => object.run_alarm().await.is_ok(),
            // A deployment without a variable must not lose the jobs.
            None => false,
        };
        if has_run {
            return Ok(());
        }
        // The platform repeats a failed alarm for two minutes and then drops it; the jobs are kept for longer.
        self.host.log(LogLevel::Error, r#"{"level":"error","message":"alarm failed"}"#);
        self.host.set_alarm(self.host.now_ms().saturating_add(ALARM_AGAIN_MS)).await
    }
}
