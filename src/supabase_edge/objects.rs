//! The user objects of this isolate.

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Array, Promise};
use uuid::Uuid;
use wasm_bindgen::JsValue;

use super::background;
use super::object_platform::{IsolateObject, run_alarm};
use crate::edge::execute::{Received, UserObjectError};
use crate::http::problem::ProblemContext;
use crate::least_recently_used::LeastRecentlyUsed;
use crate::user_object::UserObject;
use crate::user_object::command::Command;
use crate::user_object::reply::Reply;
use crate::web::edge_host::Execution;
use crate::web::object_host::ObjectHost;
use crate::web::operations::OutgoingBody;
use crate::web::promise_of;
use crate::web::settings::Settings;

/// The most objects of an isolate: some 10 KB each. Its CPU time is used up by a tenth of so many generations.
const OBJECTS_MAX: usize = 1_000;

thread_local! {
    static OBJECTS: RefCell<LeastRecentlyUsed<Rc<Entry>>> =
        const { RefCell::new(LeastRecentlyUsed::new(OBJECTS_MAX)) };
}

struct Entry {
    object: UserObject<ObjectHost>,
    platform: Rc<IsolateObject>,
}

/// Executes a command with the object of its user.
pub(super) async fn execute(settings: &Settings, command: &Command, context: &ProblemContext) -> Execution {
    let entry = find_or_insert(settings, command.user_id)?;
    let busy = entry.platform.busy();
    let (mut executed, subscription) = entry.object.execute(command).await;
    drop(busy);
    let body = match (subscription, &mut executed.reply) {
        (Some(subscription), _) => {
            let stream = entry.object.host().stream(subscription, context.clone());
            OutgoingBody::stream(stream.map_err(|_| UserObjectError::Unreachable)?)
        }
        (None, Reply::Session(document) | Reply::Accepted(document)) => {
            OutgoingBody::Bytes(std::mem::take(&mut document.json))
        }
        (None, _) => OutgoingBody::Bytes(Vec::new()),
    };
    Ok(Received { executed, body })
}

/// Runs the due jobs of a user. An isolate with too many objects in use leaves them to a later call.
pub(super) fn wake_up(settings: &Settings, user_id: Uuid) {
    if find_or_insert(settings, user_id).is_ok() {
        background::spawn(Box::pin(run_alarm(user_id)));
    }
}

fn find_or_insert(settings: &Settings, user_id: Uuid) -> Result<Rc<Entry>, UserObjectError> {
    // The edge handles an invalid configuration before it sends a command.
    let config = settings.as_ref().as_ref().map_err(|_| UserObjectError::Unreachable)?;
    let make = || {
        let platform = Rc::new(IsolateObject::new(user_id, settings, config));
        let object = UserObject::new(ObjectHost::new(Rc::clone(&platform)), Rc::clone(config));
        Rc::new(Entry { object, platform })
    };
    let is_idle = |entry: &Rc<Entry>| !entry.platform.is_busy();
    OBJECTS
        .with_borrow_mut(|objects| objects.find_or_insert(user_id, is_idle, make))
        .map_err(|_| UserObjectError::Overloaded)
}

/// The object of a user, where this isolate has it.
pub(super) fn find(user_id: Uuid) -> Option<UserObject<ObjectHost>> {
    OBJECTS.with_borrow(|objects| objects.find(user_id).map(|entry| entry.object.clone()))
}

/// Releases the leases of all runs, all at once: the isolate has little time left.
pub(super) fn release_leases() -> Promise {
    let releasing = Array::new();
    OBJECTS.with_borrow(|objects| {
        for entry in objects.values().filter(|entry| entry.platform.is_busy()) {
            let object = entry.object.clone();
            releasing.push(&promise_of(Box::pin(async move {
                // A lease that is not released expires.
                let _ = object.release_leases().await;
                Ok(JsValue::UNDEFINED)
            })));
        }
    });
    Promise::all(&releasing)
}
