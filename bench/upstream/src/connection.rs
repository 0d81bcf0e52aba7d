//! One connection: requests one after the other, as HTTP/1.1 has them.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::State;
use crate::log::monotonic_ms;
use crate::model::{Answer, Answers};

struct Request {
    /// Method and path, without the query.
    call: String,
    /// Empty without one.
    authorization: String,
    body: Vec<u8>,
}

/// Serves requests until the other side closes.
pub async fn serve(mut socket: TcpStream, state: &RefCell<State>) -> Result<()> {
    let mut received = Vec::with_capacity(64 * 1024);
    while let Some(request) = read(&mut socket, &mut received).await? {
        let call = request.call.as_str();
        match call {
            "PUT /bench/settings" => {
                let settings = serde_json::from_slice(&request.body);
                let status = if settings.is_ok() { "204 No Content" } else { "400 Bad Request" };
                if let Ok(settings) = settings {
                    let mut state = state.borrow_mut();
                    state.settings = settings;
                    state.answers = Answers::default();
                }
                reply(&mut socket, status, "").await?;
            }
            "GET /bench/log" => {
                let log = std::mem::take(&mut state.borrow_mut().log);
                reply(&mut socket, "200 OK", &serde_json::to_string(&log)?).await?;
            }
            _ => {
                state.borrow_mut().log.count(call);
                answer(&mut socket, state, &request).await?;
                let mut state = state.borrow_mut();
                if state.settings.record {
                    state.log.answered.push(request.call);
                }
            }
        }
    }
    Ok(())
}

async fn answer(socket: &mut TcpStream, state: &RefCell<State>, request: &Request) -> Result<()> {
    let settings = state.borrow().settings.clone();
    match request.call.split_once(' ') {
        Some(("GET", "/auth/v1/.well-known/jwks.json")) => reply(socket, "200 OK", &settings.key_set).await,
        Some(("POST", "/api/v1/chat/completions")) => {
            state.borrow_mut().log.model_called();
            let found = state.borrow_mut().answers.find(&settings, &request.body);
            let answer = found.ok_or(Error::from(ErrorKind::InvalidData))?;
            // A sleep of zero would wait for the timer's next tick.
            if settings.model_delay_ms > 0 {
                sleep(settings.model_delay()).await;
            }
            match answer.as_ref() {
                Answer::Whole { body, chunks } => {
                    if settings.chunk_delay_ms > 0 {
                        sleep(settings.chunk_delay().saturating_mul(*chunks)).await;
                    }
                    reply_bytes(socket, "200 OK", body).await
                }
                Answer::Stream(chunks) => stream(socket, state, chunks, settings.chunk_delay()).await,
            }
        }
        Some((method, path)) if path.starts_with("/rest/v1/") => {
            if settings.record {
                state.borrow_mut().log.record(&request.call, &request.body);
            }
            if settings.database_delay_ms > 0 {
                sleep(settings.database_delay()).await;
            }
            match method {
                _ if path == "/rest/v1/rpc/transact_ai_user_state" => {
                    let result = state.borrow_mut().user_states.transact(&request.body);
                    reply_result(socket, result).await
                }
                _ if path == "/rest/v1/rpc/take_request" => {
                    let result =
                        state.borrow_mut().requests_of_users.take(&request.authorization, &request.body);
                    reply_result(socket, result).await
                }
                _ if path.starts_with("/rest/v1/rpc/") => reply(socket, "200 OK", "\"completed\"").await,
                "POST" => reply(socket, "201 Created", "").await,
                "GET" => reply(socket, "200 OK", "[]").await,
                _ => reply(socket, "204 No Content", "").await,
            }
        }
        _ => reply(socket, "404 Not Found", "").await,
    }
}

/// Each chunk is a write of its own, so that each can be a packet of its own.
async fn stream(
    socket: &mut TcpStream,
    state: &RefCell<State>,
    chunks: &[(Vec<u8>, usize)],
    delay: std::time::Duration,
) -> Result<()> {
    state.borrow_mut().log.closed_ms.clear();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await?;
    let mut ticks = (!delay.is_zero()).then(|| {
        let mut ticks = interval(delay);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        ticks
    });
    for (chunk, closed) in chunks {
        match &mut ticks {
            Some(ticks) => drop(ticks.tick().await),
            // Lets the tasks of other connections run.
            None => tokio::task::yield_now().await,
        }
        if *closed > 0 {
            let now_ms = monotonic_ms();
            state.borrow_mut().log.closed_ms.extend(std::iter::repeat_n(now_ms, *closed));
        }
        socket.write_all(chunk).await?;
    }
    socket.write_all(b"0\r\n\r\n").await
}

async fn reply(socket: &mut TcpStream, status: &str, body: &str) -> Result<()> {
    reply_bytes(socket, status, body.as_bytes()).await
}

/// The result of a function of the database.
async fn reply_result(socket: &mut TcpStream, result: Option<serde_json::Value>) -> Result<()> {
    match result {
        Some(result) => reply(socket, "200 OK", &result.to_string()).await,
        None => reply(socket, "400 Bad Request", "{}").await,
    }
}

async fn reply_bytes(socket: &mut TcpStream, status: &str, body: &[u8]) -> Result<()> {
    // RFC 9110, section 8.6: no Content-Length with 204.
    let length =
        if status.starts_with("204") { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let mut answer =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{length}\r\n").into_bytes();
    answer.extend_from_slice(body);
    socket.write_all(&answer).await
}

/// `None` when the other side has closed between two requests.
async fn read(socket: &mut TcpStream, received: &mut Vec<u8>) -> Result<Option<Request>> {
    let invalid = || Error::from(ErrorKind::InvalidData);
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut fields);
        if let httparse::Status::Complete(head_bytes) = head.parse(received).map_err(|_| invalid())? {
            let field = |name: &str| head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            if field("transfer-encoding").is_some() {
                return Err(invalid()); // every worker sends bodies that it has whole
            }
            let length = match field("content-length") {
                Some(field) => {
                    str::from_utf8(field.value).ok().and_then(|text| text.parse().ok()).ok_or_else(invalid)?
                }
                None => 0,
            };
            let authorization = field("authorization").and_then(|field| str::from_utf8(field.value).ok());
            let authorization = authorization.unwrap_or_default().to_owned();
            let path = head.path.unwrap_or_default().split('?').next().unwrap_or_default();
            let call = format!("{} {path}", head.method.unwrap_or_default());
            while received.len() < head_bytes + length {
                if socket.read_buf(received).await? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            let body = received[head_bytes..head_bytes + length].to_vec();
            received.drain(..head_bytes + length);
            return Ok(Some(Request { call, authorization, body }));
        }
        if socket.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}
