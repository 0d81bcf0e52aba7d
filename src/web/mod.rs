//! Host code of every web-standard runtime: fetch, responses, signatures, the clock, randomness, the log. Provides ports, makes no
//! decision.

pub(crate) mod clock;
pub(crate) mod crypto;
pub(crate) mod fetch;
pub(crate) mod log;
pub(crate) mod response;

use std::rc::Rc;

use crate::config::{Config, Misconfigured};

/// The settings, or the variables that are missing or invalid.
pub(crate) type Settings = Rc<Result<Rc<Config>, Misconfigured>>;

/// Marks the hosts of a web-standard runtime: they get the ports of this folder.
pub(crate) trait WebHost {
    /// The settings of the deployment.
    fn settings(&self) -> &Settings;
}
