//! The one upstream of all benchmarked workers: key set, PostgREST and model, with settable delays and chunk sizes. One
//! thread; an answer without a state is composed before the first request that gets it, so that serving one costs its system
//! calls.
//!
//! ```text
//! GET  /auth/v1/.well-known/jwks.json        the key set
//! any  /rest/v1/…                            PostgREST's response to `return=minimal`, and to the completing function; no rows
//! POST /rest/v1/rpc/transact_ai_user_state   the user state of the Edge Function
//! POST /rest/v1/rpc/take_request             the limiter of the peer's Edge Function
//! POST /api/v1/chat/completions              a stream of chunks, or one completion, as requested
//! PUT  /bench/settings   GET /bench/log      for the benchmark itself: delays and sizes; the requests so far
//! ```
//!
//! Not for: checking the requests. The benchmark reads the log for that.

mod connection;
mod log;
mod model;
mod requests_of_users;
mod settings;
mod user_states;

use std::cell::RefCell;
use std::rc::Rc;

use tokio::net::TcpListener;
use tokio::task::LocalSet;

use crate::connection::serve;

/// The state that all connections share; there is one thread.
#[derive(Default)]
struct State {
    settings: settings::Settings,
    log: log::Log,
    answers: model::Answers,
    user_states: user_states::UserStates,
    requests_of_users: requests_of_users::RequestsOfUsers,
}

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("http://{}", listener.local_addr()?);
        let state = Rc::new(RefCell::new(State::default()));
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            state.borrow_mut().log.connections += 1;
            let state = Rc::clone(&state);
            // A worker that ends cuts its connections: no error.
            tokio::task::spawn_local(async move { drop(serve(socket, &state).await) });
        }
    })
}
