//! The log line and the data point of each request. Never the text, the token or a key: there is no field for them.

use serde::Serialize;
use uuid::Uuid;

use crate::config::{ConfigError, LogLevel};
use crate::generation::usage::Usage;
use crate::http::problem::Code;
use crate::points::{REQUEST, figure};
use crate::ports::{Log, Metrics, log_line};
use crate::user_object::reply::LogFields;

/// The log line of a request.
#[derive(Debug, Serialize)]
struct RequestLine<'a> {
    level: &'static str,
    message: &'static str,
    request_id: &'a str,
    method: &'a str,
    route: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// The content of the log line of a request.
#[derive(Debug, Clone, Copy)]
pub struct Logged<'a> {
    /// `X-Request-Id`.
    pub request_id: &'a str,
    /// In upper case.
    pub method: &'a str,
    /// The pattern of the route; `none` without one.
    pub route: &'static str,
    /// Of the response.
    pub status: u16,
    /// The user's pseudonym.
    pub user: Option<&'a str>,
    /// Milliseconds until the response.
    pub duration_ms: u64,
    /// Milliseconds of the authentication.
    pub auth_ms: Option<u64>,
    /// The fields of the command.
    pub fields: &'a LogFields,
}

/// Logs and measures a request.
pub fn log_request(host: &(impl Log + Metrics), logged: &Logged<'_>) {
    let fields = logged.fields;
    let level = level_of(fields.code);
    let line = RequestLine {
        level: level.name(),
        message: "request",
        request_id: logged.request_id,
        method: logged.method,
        route: logged.route,
        status: logged.status,
        code: fields.code,
        user: logged.user,
        duration_ms: logged.duration_ms,
        auth_ms: logged.auth_ms,
        model_ms: fields.model_ms,
        database_ms: fields.database_ms,
        session_id: fields.session_id,
        model: fields.model.as_deref(),
        attempts: fields.attempts,
        usage: fields.usage,
    };
    log_line(host, level, &line);
    measure(host, &line);
}

/// Writes the point of the line.
fn measure(metrics: &impl Metrics, line: &RequestLine<'_>) {
    let ms = |ms: Option<u64>| figure(ms.unwrap_or(0));
    let usage = line.usage.unwrap_or_default();
    let texts = [line.route, line.method, line.code.map_or("", Code::name), line.model.unwrap_or("")];
    let figures = [
        f64::from(line.status),
        figure(line.duration_ms),
        ms(line.auth_ms),
        ms(line.model_ms),
        ms(line.database_ms),
        f64::from(line.attempts.unwrap_or(0)),
        figure(usage.prompt_tokens),
        figure(usage.completion_tokens),
        usage.cost,
    ];
    metrics.measure(&REQUEST.point(&texts, &figures));
}

fn level_of(code: Option<Code>) -> LogLevel {
    match code {
        Some(Code::AiMisconfigured | Code::Internal) => LogLevel::Error,
        Some(code) if code.status() >= 500 => LogLevel::Warn,
        _ => LogLevel::Info,
    }
}

#[derive(Serialize)]
struct ConfigurationLine {
    level: &'static str,
    message: &'static str,
    errors: Vec<String>,
}

/// Logs which variables are missing or invalid.
pub fn log_configuration(log: &impl Log, errors: &[ConfigError]) {
    let level = LogLevel::Error;
    let errors = errors.iter().map(|error| [error.variable, " ", error.expected].concat()).collect();
    log_line(log, level, &ConfigurationLine { level: level.name(), message: "configuration", errors });
}
