//! The state of the key, as a sign of life: `GET {base_url}/key`. Servers that only speak the model API have no such
//! path; any answer but 401 and 5xx says that they are there.

use crate::config::ModelApi;
use crate::http::Request;
use crate::ports::{Fetch, Incoming};

/// Whether the model API answers, and takes the key.
///
/// # Errors
/// What it did instead, in words of this service.
pub async fn probe(host: &impl Fetch, settings: &ModelApi) -> Result<(), String> {
    let request = Request {
        method: "GET",
        url: [&settings.base_url, "/key"].concat(),
        headers: vec![("authorization", ["Bearer ", &settings.api_key].concat())],
        body: Vec::new(),
    };
    match host.fetch(request).await {
        Ok(answer) if answer.status() == 401 => Err("the key is not taken".to_owned()),
        Ok(answer) if answer.status() >= 500 => Err(["status ", &answer.status().to_string()].concat()),
        Ok(_) => Ok(()),
        Err(_) => Err("no connection".to_owned()),
    }
}
