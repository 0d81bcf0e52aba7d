//! The request for a generation.
//!
//! ```text
//! POST {base_url}/chat/completions
//! authorization: Bearer …        x-session-id: …        http-referer: …      x-openrouter-title: …
//! {"model":"…" | "models":["…",…],"messages":[{system},{user}],"stream":true,"usage":{"include":true},
//!  "response_format":{strict JSON schema},"provider":{"require_parameters":true,"data_collection":"deny",
//!  "max_price":{"prompt":1,"completion":5,"request":0}},
//!  "user":"…","max_tokens":…}
//! ```
//! INVARIANT: the body depends on user, model and text alone (and on the deployment), so that the model API can return a
//! cached answer for the same bytes. Values of one request are sent as headers.
//!
//! The request is always for a stream: only then does closing the connection end the billing.

use crate::citation::sentences::Sentences;
use crate::config::{ModelApi, answer_tokens_max};
use crate::generation::prompt::{ANSWER_SCHEMA, escaped_user_message, system_message};
use crate::http::Request;
use crate::json::record::quoted;
use crate::money;
use crate::pseudonym::pseudonym;

/// OpenRouter: "'models' array must have 3 items or fewer", with status 400.
const MODELS_MAX: usize = 3;
/// The name of this service in the statistics of the model API.
const TITLE: &str = "ai-sessions";

/// A request for a generation.
#[derive(Clone, Copy)]
pub struct ModelRequest<'a> {
    /// The service's secret: the key of the pseudonym and of the delimiter. Never sent.
    pub secret: &'a str,
    /// Groups the attempts of a session at the model API.
    pub session_id: &'a str,
    /// Never sent: the model API receives a pseudonym.
    pub user_id: &'a str,
    /// One of the allowed models.
    pub model: &'a str,
    /// Sanitized.
    pub text: &'a str,
    /// Those of the text.
    pub sentences: &'a Sentences,
    /// The caller does not allow a cached answer.
    pub no_cache: bool,
    /// W3C Trace Context, forwarded.
    pub traceparent: Option<&'a str>,
    /// The service's own URL; empty: not sent.
    pub referer: &'a str,
}

/// Builds the request. With `may_reuse` it allows a cached answer of the model API, if the deployment does; not after a failed
/// attempt, because the failure may be in the cache.
#[must_use]
pub fn build(settings: &ModelApi, request: &ModelRequest<'_>, may_reuse: bool) -> Request {
    let mut headers = vec![
        ("authorization", ["Bearer ", &settings.api_key].concat()),
        ("content-type", "application/json".to_owned()),
        ("accept", "text/event-stream".to_owned()),
        ("x-session-id", request.session_id.to_owned()),
        ("x-openrouter-title", TITLE.to_owned()),
        ("x-title", TITLE.to_owned()), // its name before 2026, which gateways still read
    ];
    if !request.referer.is_empty() {
        headers.push(("http-referer", request.referer.to_owned()));
    }
    if let Some(traceparent) = request.traceparent {
        headers.push(("traceparent", traceparent.to_owned()));
    }
    if may_reuse && allows_reuse(settings, request) {
        headers.push(("x-openrouter-cache", "true".to_owned()));
        headers.push(("x-openrouter-cache-ttl", settings.cache_ttl_s.to_string()));
    }
    Request {
        method: "POST",
        url: [&settings.base_url, "/chat/completions"].concat(),
        headers,
        body: body(settings, request).into_bytes(),
    }
}

/// Whether a cached answer is allowed.
#[must_use]
pub const fn allows_reuse(settings: &ModelApi, request: &ModelRequest<'_>) -> bool {
    settings.cache_ttl_s > 0 && !request.no_cache
}

/// Writes the body as text, so that every byte of it is visible here.
fn body(settings: &ModelApi, request: &ModelRequest<'_>) -> String {
    [
        "{",
        &model_or_models(settings, request.model),
        r#","messages":[{"role":"system","content":"#,
        &quoted(&system_message(settings.candidates_max)),
        r#"},{"role":"user","content":""#,
        &escaped_user_message(request.secret, request.text, request.sentences),
        r#""}],"stream":true,"usage":{"include":true},"response_format":{"type":"json_schema","json_schema":"#,
        r#"{"name":"flashcards","strict":true,"schema":"#,
        ANSWER_SCHEMA,
        // Without it a provider without schemas may serve the request and ignore the schema.
        r#"}},"provider":{"require_parameters":true,"data_collection":"#,
        // Always sent: the default of an account may differ.
        if settings.may_collect_data { r#""allow""# } else { r#""deny""# },
        if settings.zero_data_retention { r#","zdr":true"# } else { "" },
        &max_price(settings),
        r#"},"user":"#,
        &quoted(&pseudonym(request.secret, request.user_id)),
        // No temperature: with `require_parameters` a model without that parameter has no provider.
        r#","max_tokens":"#,
        &answer_tokens_max(settings.candidates_max).to_string(),
        "}",
    ]
    .concat()
}

/// Writes `max_price`: US dollars per million tokens, and for a request, which some providers charge in addition.
fn max_price(settings: &ModelApi) -> String {
    let Some(price) = settings.max_price else { return String::new() };
    let prompt = money::write(price.prompt, money::PRICE);
    let completion = money::write(price.completion, money::PRICE);
    [r#","max_price":{"prompt":"#, &prompt, r#","completion":"#, &completion, r#","request":0}"#].concat()
}

fn model_or_models(settings: &ModelApi, model: &str) -> String {
    if !settings.fallback {
        return [r#""model":"#, &quoted(model)].concat();
    }
    let others = settings.allowed_models.iter().map(String::as_str).filter(|other| *other != model);
    let models: Vec<_> = std::iter::once(model).chain(others).take(MODELS_MAX).map(quoted).collect();
    [r#""models":["#, &models.join(","), "]"].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::json_string::JsonString;
    use crate::keyed_hash::short_hash;
    use crate::quota::{PROMPT_TOKENS_MAX, Price, TEXT_BYTES_MAX, TEXT_BYTES_PER_BYTE_OF_NUMBERS};

    fn settings() -> ModelApi {
        ModelApi {
            base_url: "https://model.example/api/v1".to_owned(),
            api_key: "key".to_owned(),
            allowed_models: ["a/1", "b/2", "c/3", "d/4"].map(str::to_owned).to_vec(),
            fallback: false,
            timeout_ms: 60_000,
            idle_timeout_ms: 15_000,
            attempts_max: 3,
            candidates_max: 20,
            cache_ttl_s: 0,
            may_collect_data: false,
            zero_data_retention: false,
            max_price: None,
        }
    }

    const TEXT: &str = "some text \"quoted\"\n\u{1f600}";

    fn request_of(text: &str) -> ModelRequest<'static> {
        ModelRequest {
            secret: "secret",
            session_id: "018f3a3e-0000-7000-8000-00000000000a",
            user_id: "018f3a3e-0000-7000-8000-000000000001",
            model: "b/2",
            text: Box::leak(text.to_owned().into_boxed_str()),
            sentences: Box::leak(Box::new(Sentences::of(text))),
            no_cache: false,
            traceparent: None,
            referer: "https://cards.example",
        }
    }

    fn request() -> ModelRequest<'static> {
        request_of(TEXT)
    }

    /// The message before it is escaped.
    fn user_message(secret: &str, text: &str) -> String {
        let mark = short_hash(secret, &[b"ai-sessions/text-mark\0", &[0; 4], text.as_bytes()]);
        format!("TEXT {mark}\n{}\nTEXT {mark}", Sentences::of(text).numbered(text))
    }

    fn body_of(settings: &ModelApi, request: &ModelRequest<'_>) -> Value {
        serde_json::from_slice(&build(settings, request, true).body).expect("it is JSON")
    }

    #[test]
    fn the_body_has_the_members_of_the_contract_and_no_others() {
        assert_eq!(
            body_of(&settings(), &request()),
            json!({
                "model": "b/2",
                "messages": [
                    { "role": "system", "content": system_message(20) },
                    { "role": "user", "content": user_message("secret", TEXT) },
                ],
                "stream": true,
                "usage": { "include": true },
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "flashcards",
                        "strict": true,
                        "schema": serde_json::from_str::<Value>(ANSWER_SCHEMA).expect("it is JSON"),
                    },
                },
                "provider": { "require_parameters": true, "data_collection": "deny" },
                "user": pseudonym("secret", request().user_id),
                "max_tokens": 9_000,
            })
        );
    }

    #[test]
    fn the_body_depends_on_user_model_and_text_alone() {
        let first = build(&settings(), &request(), true);
        let other = ModelRequest {
            session_id: "another",
            no_cache: true,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            referer: "",
            ..request()
        };
        assert_eq!(build(&settings(), &other, false).body, first.body);
        for other in [
            ModelRequest { user_id: "u", ..request() },
            ModelRequest { model: "a/1", ..request() },
            request_of("t"),
        ] {
            assert_ne!(build(&settings(), &other, true).body, first.body);
        }
    }

    #[test]
    fn the_user_id_is_never_sent() {
        let sent = build(&settings(), &request(), true);
        let user_id = request().user_id;
        assert!(!String::from_utf8_lossy(&sent.body).contains(user_id));
        assert!(sent.headers.iter().all(|(_, value)| !value.contains(user_id)));
    }

    #[test]
    fn fallback_models_follow_the_requested_one_up_to_three() {
        let mut settings = settings();
        settings.fallback = true;
        let body = body_of(&settings, &request());
        assert_eq!(body["models"], json!(["b/2", "a/1", "c/3"]));
        assert_eq!(body.get("model"), None);
    }

    #[test]
    fn provider_settings_follow_the_configuration() {
        for (may_collect_data, zero_data_retention, provider) in [
            (false, false, json!({ "require_parameters": true, "data_collection": "deny" })),
            (true, false, json!({ "require_parameters": true, "data_collection": "allow" })),
            (false, true, json!({ "require_parameters": true, "data_collection": "deny", "zdr": true })),
            (true, true, json!({ "require_parameters": true, "data_collection": "allow", "zdr": true })),
        ] {
            let settings = ModelApi { may_collect_data, zero_data_retention, ..settings() };
            assert_eq!(body_of(&settings, &request())["provider"], provider);
        }
    }

    #[test]
    fn the_highest_price_is_sent_in_dollars_per_million_tokens() {
        for (prompt, completion, sent) in [
            (1_000_000, 5_000_000, json!({ "prompt": 1, "completion": 5, "request": 0 })),
            (75_000, 600_000, json!({ "prompt": 0.075, "completion": 0.6, "request": 0 })),
            (1, 10_000_000_000, json!({ "prompt": 0.000_001, "completion": 10_000, "request": 0 })),
        ] {
            let max_price = Some(Price { prompt, completion });
            let body = body_of(&ModelApi { max_price, zero_data_retention: true, ..settings() }, &request());
            assert_eq!(
                body["provider"],
                json!({ "require_parameters": true, "data_collection": "deny", "zdr": true, "max_price": sent })
            );
        }
    }

    /// A token of a prompt has a byte or more, so that the bytes of the request bound its tokens.
    #[test]
    fn the_reserved_tokens_cover_the_request() {
        let most = ModelApi {
            fallback: true,
            candidates_max: usize::MAX,
            max_price: Some(Price { prompt: 1, completion: 1 }),
            zero_data_retention: true,
            ..settings()
        };
        let sentences = ["\u{1f600}".repeat(12), "\u{3002}".to_owned()].concat().repeat(10_000 / 13);
        for text in ["", TEXT, &"\u{1f600}".repeat(10_000), &"\"".repeat(10_000), &sentences] {
            let request = request_of(text);
            let bytes = build(&most, &request, true).body.len();
            let text_bytes =
                u64::try_from(JsonString::new(request.text).escaped().len()).expect("it is small");
            let most_bytes = text_bytes + text_bytes / TEXT_BYTES_PER_BYTE_OF_NUMBERS + PROMPT_TOKENS_MAX / 2;
            // As much again as the rest for the chat template, and a provider's own words around the schema.
            assert!(
                u64::try_from(bytes).expect("it is small") <= most_bytes,
                "{bytes} of {most_bytes} bytes"
            );
            assert!(text_bytes <= TEXT_BYTES_MAX, "{text_bytes} bytes");
        }
    }

    #[test]
    fn the_schema_has_no_keyword_that_providers_reject() {
        let schema = body_of(&settings(), &request())["response_format"].to_string();
        for keyword in ["minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "pattern"] {
            assert!(!schema.contains(&[r#"""#, keyword, r#"""#].concat()), "{keyword}");
        }
    }

    #[test]
    fn max_tokens_grows_with_the_number_of_candidates() {
        for (candidates_max, tokens_max) in [(1, 1_400), (20, 9_000), (100, 16_000), (usize::MAX, 16_000)] {
            let body = body_of(&ModelApi { candidates_max, ..settings() }, &request());
            assert_eq!(body["max_tokens"], tokens_max);
        }
    }

    #[test]
    fn per_request_values_are_sent_as_headers() {
        let sent = build(&settings(), &request(), true);
        assert_eq!(
            (sent.method, sent.url.as_str()),
            ("POST", "https://model.example/api/v1/chat/completions")
        );
        let expected = [
            ("authorization", "Bearer key"),
            ("content-type", "application/json"),
            ("accept", "text/event-stream"),
            ("x-session-id", request().session_id),
            ("x-openrouter-title", "ai-sessions"),
            ("x-title", "ai-sessions"),
            ("http-referer", "https://cards.example"),
        ];
        assert_eq!(sent.headers, expected.map(|(name, value)| (name, value.to_owned())));

        let traced = build(
            &settings(),
            &ModelRequest { traceparent: Some("00-1-2-01"), referer: "", ..request() },
            true,
        );
        assert!(traced.headers.contains(&("traceparent", "00-1-2-01".to_owned())));
        assert!(!traced.headers.iter().any(|(name, _)| *name == "http-referer"));
    }

    #[test]
    fn a_cached_answer_is_requested_only_where_all_allow_it() {
        let on = ModelApi { cache_ttl_s: 300, ..settings() };
        let cache_headers = |settings: &ModelApi, request: &ModelRequest<'_>, may_reuse| {
            let headers = build(settings, request, may_reuse).headers;
            headers.into_iter().filter(|(name, _)| name.contains("cache")).collect::<Vec<_>>()
        };
        let expected =
            [("x-openrouter-cache", "true".to_owned()), ("x-openrouter-cache-ttl", "300".to_owned())];
        assert_eq!(cache_headers(&on, &request(), true), expected);
        assert_eq!(cache_headers(&on, &request(), false), []);
        assert_eq!(cache_headers(&on, &ModelRequest { no_cache: true, ..request() }, true), []);
        assert_eq!(cache_headers(&settings(), &request(), true), []);
    }

    proptest! {
        /// A cached answer of the model API depends on the bytes.
        #[test]
        fn the_user_message_is_escaped_as_serde_json_escapes_it(text in any::<String>(), special in "[\"\\\\/\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}\u{2028}\u{1f600}]{0,9}") {
            let text = [text, special].concat();
            let message = quoted(&user_message("secret", &text));
            let body = build(&settings(), &request_of(&text), true).body;
            let expected = [r#"{"role":"user","content":"#, &message, r#"}],"stream":true"#].concat();
            prop_assert!(String::from_utf8(body)?.contains(&expected));
        }
    }
}
