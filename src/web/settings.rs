//! The settings, from the environment object of the platform.

use std::cell::OnceCell;
use std::rc::Rc;

use js_sys::{JSON, Reflect};
use wasm_bindgen::JsValue;

use crate::config::{Config, Misconfigured, Platform};

/// The settings, or the variables that are missing or invalid.
pub(crate) type Settings = Rc<Result<Rc<Config>, Misconfigured>>;

thread_local! {
    static SETTINGS: OnceCell<Settings> = const { OnceCell::new() };
}

/// Reads the settings, once in an isolate's life: a new deployment gets new isolates.
pub(crate) fn settings(platform: Platform, environment: &JsValue) -> Settings {
    let read = || {
        let config = Config::read(platform, |name| text_of(&Reflect::get(environment, &name.into()).ok()?));
        Rc::new(config.map(Rc::new))
    };
    SETTINGS.with(|cell| Rc::clone(cell.get_or_init(read)))
}

/// A variable as text. The file of a deployment may also have numbers and booleans, which must not count as variables that are not
/// set; any other value becomes a text that no variable may have.
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
