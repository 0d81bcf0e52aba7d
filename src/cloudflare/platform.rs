//! What every host here has: time, waiting, randomness, the log, the settings.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use js_sys::{JSON, Reflect};
use wasm_bindgen::JsValue;
use web_sys::console;
use worker::{Delay, Env};

use crate::config::{Config, ConfigError, LogLevel};
use crate::ports::{Clock, Log, Random, Timer};

/// Marks the hosts of this platform: they get the ports below from here, and those of `outgoing` from there.
pub(super) trait OnWorkers {
    /// The settings of this deployment.
    fn settings(&self) -> &Settings;
}

/// The settings, or what is wrong with them.
pub(super) type Settings = Rc<Result<Config, Vec<ConfigError>>>;

thread_local! {
    static SETTINGS: OnceCell<Settings> = const { OnceCell::new() };
}

/// Reads the settings, once in an isolate's life: a new deployment gets new isolates.
pub(super) fn settings(env: &Env) -> Settings {
    let read = || Rc::new(Config::read(|name| text_of(&Reflect::get(env, &name.into()).ok()?)));
    SETTINGS.with(|cell| Rc::clone(cell.get_or_init(read)))
}

/// A variable as text. `wrangler.toml` also has numbers and booleans, which must not pass for variables that are not
/// set; anything else becomes a text that no variable may have.
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

impl<T: OnWorkers> Clock for T {
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "JavaScript's clock gives whole milliseconds since 1970 as a float"
    )]
    fn now_ms(&self) -> u64 {
        js_sys::Date::now() as u64
    }
}

impl<T: OnWorkers> Timer for T {
    async fn sleep(&self, ms: u64) {
        Delay::from(Duration::from_millis(ms)).await;
    }
}

impl<T: OnWorkers> Random for T {
    fn random_bits(&self) -> u128 {
        let mut bytes = [0; 16];
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the host: the one place that gives randomness"
        )]
        let filled = getrandom::fill(&mut bytes);
        // `crypto.getRandomValues` does not fail for 16 bytes; without it there would be no host to run in.
        debug_assert!(filled.is_ok());
        u128::from_ne_bytes(bytes)
    }
}

impl<T: OnWorkers> Log for T {
    fn log(&self, level: LogLevel, line: &str) {
        let least = self.settings().as_ref().as_ref().map_or(LogLevel::Debug, |config| config.log_level);
        if level < least {
            return;
        }
        match level {
            LogLevel::Error => console::error_1(&line.into()),
            LogLevel::Warn => console::warn_1(&line.into()),
            LogLevel::Debug | LogLevel::Info => console::log_1(&line.into()),
        }
    }
}
