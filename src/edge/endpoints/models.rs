//! `GET /models`: the allowed models.

use crate::config::Config;
use crate::edge::documents::{Model, Models};
use crate::http::{JSON, Response, to_json};

/// The allowed models, the default first.
#[must_use]
pub fn models(config: &Config) -> Response {
    let models = config.model_api.allowed_models.iter().enumerate();
    let models = models.map(|(index, id)| Model { id, default: index == 0 }).collect();
    Response::new(200, JSON, to_json(&Models { models })).with("cache-control", "public, max-age=300")
}
