//! The log, on the console.

use web_sys::console;

use super::WebHost;
use crate::config::LogLevel;
use crate::ports::Log;

impl<T: WebHost> Log for T {
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
