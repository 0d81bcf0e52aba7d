//! The settings and the timer of every host here.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use js_sys::{JSON, Reflect};
use wasm_bindgen::JsValue;
use worker::{Delay, Env};

use crate::config::{Config, Platform};
use crate::ports::Timer;
use crate::web::{Settings, WebHost};

thread_local! {
    static SETTINGS: OnceCell<Settings> = const { OnceCell::new() };
}

/// Reads the settings, once in an isolate's life: a new deployment gets new isolates.
pub(super) fn settings(env: &Env) -> Settings {
    let read = || {
        let config =
            Config::read(Platform::Cloudflare, |name| text_of(&Reflect::get(env, &name.into()).ok()?));
        Rc::new(config.map(Rc::new))
    };
    SETTINGS.with(|cell| Rc::clone(cell.get_or_init(read)))
}

/// A variable as text. `wrangler.toml` also has numbers and booleans, which must not count as variables that are not set; any
/// other value becomes a text that no variable may have.
fn text_of(value: &JsValue) -> Option<String> {
    if value.is_undefined() || value.is_null() {
        return None;
    }
    let plain = value.as_string().or_else(|| match value.as_bool() {
        Some(flag) => Some(String::from(if flag { "1" } else { "0" })),
        // JavaScript writes it: the formatting of floats would be a tenth of this module.
        None => value.as_f64().and_then(|_| JSON::stringify(value).ok()?.as_string()),
    });
    Some(plain.unwrap_or_else(|| "\u{0}".to_owned()))
}

impl<T: WebHost> Timer for T {
    async fn sleep(&self, ms: u64) {
        Delay::from(Duration::from_millis(ms)).await;
    }
}
