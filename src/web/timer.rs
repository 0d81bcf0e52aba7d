//! Waiting, by `setTimeout`.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::WorkerGlobalScope;

use super::WebHost;
use crate::ports::Timer;

impl<T: WebHost> Timer for T {
    async fn sleep(&self, ms: u64) {
        sleep(ms).await;
    }
}

/// Ends after `ms` milliseconds, never before.
pub(crate) fn sleep(ms: u64) -> impl Future<Output = ()> {
    Sleep { ms, timeout: None, state: Rc::default() }
}

#[derive(Default)]
struct State {
    has_fired: bool,
    waker: Option<Waker>,
}

/// Dropped before its end, it clears its timeout.
struct Sleep {
    ms: u64,
    /// The timeout's number and its callback, which JavaScript may call until the timeout has fired or was cleared.
    timeout: Option<(i32, Closure<dyn FnMut()>)>,
    state: Rc<RefCell<State>>,
}

fn global() -> WorkerGlobalScope {
    js_sys::global().unchecked_into()
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.has_fired {
            return Poll::Ready(());
        }
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        drop(state);
        if self.timeout.is_none() {
            let state = Rc::clone(&self.state);
            let callback: Closure<dyn FnMut()> = Closure::new(move || {
                let mut state = state.borrow_mut();
                state.has_fired = true;
                let waker = state.waker.take();
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            });
            let ms = i32::try_from(self.ms).unwrap_or(i32::MAX);
            let function = callback.as_ref().unchecked_ref();
            // Every runtime has it, and takes a function.
            let Ok(number) = global().set_timeout_with_callback_and_timeout_and_arguments_0(function, ms)
            else {
                return Poll::Ready(());
            };
            self.timeout = Some((number, callback));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((number, _)) = self.timeout.as_ref().filter(|_| !self.state.borrow().has_fired) {
            global().clear_timeout_with_handle(*number);
        }
    }
}
