//! Tasks that continue after the response. The isolate is kept until each of them has ended, or until its own end.

use std::cell::RefCell;

use futures_util::future::LocalBoxFuture;
use js_sys::{Function, Promise};
use wasm_bindgen::JsValue;

use crate::web::promise_of;

thread_local! {
    /// The function of the latest request: a task that no request owns uses it too.
    static WAIT_UNTIL: RefCell<Option<Function>> = const { RefCell::new(None) };
}

pub(super) fn set_wait_until(wait_until: Function) {
    WAIT_UNTIL.set(Some(wait_until));
}

/// Keeps the isolate until the work has ended.
pub(super) fn keep_until(work: &Promise) {
    WAIT_UNTIL.with_borrow(|wait_until| {
        if let Some(wait_until) = wait_until {
            // A refused promise shortens the life of the isolate; the task itself is not affected.
            let _ = wait_until.call1(&JsValue::UNDEFINED, work);
        }
    });
}

/// Runs a task to its end.
pub(super) fn spawn(task: LocalBoxFuture<'static, ()>) {
    keep_until(&promise_of(Box::pin(async {
        task.await;
        Ok(JsValue::UNDEFINED)
    })));
}
