//! `GET /models`: what a caller may ask for.

use crate::answer::documents::{Model, Models, to_json};
use crate::config::Config;
use crate::http::{Answer, JSON};

/// The allowed models, the default first.
#[must_use]
pub fn models(config: &Config) -> Answer {
    let models = config.model_api.allowed_models.iter().enumerate();
    let models = models.map(|(index, id)| Model { id, default: index == 0 }).collect();
    Answer::new(200, JSON, to_json(&Models { models })).with("cache-control", "public, max-age=300")
}
