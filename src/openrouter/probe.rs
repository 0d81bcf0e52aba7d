//! The readiness probe of the model API: `GET {base_url}/key`. Compatible servers have no such path; any status but 401 and
//! 5xx shows that they are reachable.

use crate::config::ModelApi;
use crate::http::Request;
use crate::ports::{Fetch, Incoming};

/// Checks that the model API responds and accepts the key.
///
/// # Errors
/// A description of the failure, in words of this service.
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
