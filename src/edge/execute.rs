//! The call to the user object.

use uuid::Uuid;

use super::render::{Responded, render};
use super::{Caller, EdgeHost, Request};
use crate::config::Config;
use crate::http::Response;
use crate::http::problem::{Code, Problem, ProblemContext};
use crate::ports::Inbound;
use crate::user_object::command::{Command, Operation};
use crate::user_object::reply::{Executed, Reply, SessionDocument};

/// The port to the user objects.
#[expect(async_fn_in_trait, reason = "the trait is for this crate's hosts, all of them single-threaded")]
pub trait UserObjects {
    /// A body that is forwarded to the client untouched.
    type Body;
    /// Sends a command to the object of its user. `context` is for the problem document in the last event of a stream.
    ///
    /// # Errors
    /// [`UserObjectError`] without a reply.
    async fn execute(
        &self,
        command: &Command,
        context: &ProblemContext,
    ) -> Result<Received<Self::Body>, UserObjectError>;
    /// Runs the due jobs of a user in a task that no request owns. Only where [`Config::wake_up`] can be set.
    fn wake_up(&self, user_id: Uuid);
}

/// The reply of a user object, with the body of the response where it has one: the document of a session, or its events.
#[derive(Debug)]
pub struct Received<B> {
    /// The reply.
    pub executed: Executed,
    /// Forwarded to the client untouched.
    pub body: B,
}

/// The reason why a user object did not reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserObjectError {
    /// The platform lost the command, or the reply.
    Unreachable,
    /// The platform refused the command, because more of them wait for the object than it can execute.
    Overloaded,
}

/// An executed command: its reply, perhaps at the second delivery.
#[derive(Debug)]
pub struct Execution<B> {
    /// The reply, and the body that belongs to it.
    pub received: Received<B>,
    /// Whether it is the reply to a repeated command.
    pub is_repeated: bool,
}

impl<B> Execution<B> {
    /// Whether the object has no such session.
    pub fn is_not_found(&self) -> bool {
        self.received.executed.reply == Reply::NotFound
    }

    /// The response to the reply; `on_session` is its head where that is a session.
    ///
    /// # Errors
    /// None; the type is that of every endpoint.
    pub fn respond<I>(
        self,
        config: &Config,
        request: &Request<I>,
        on_session: impl FnOnce(&SessionDocument) -> Response,
    ) -> Responded<B> {
        render(self.received, config, &request.context, on_session)
    }
}

/// Sends a command; once more when the platform lost the first reply (it moves objects, and a deployment restarts them): the
/// object recognizes a repeated command. An overloaded object gets no second command, which would make the overload worse
/// (<https://developers.cloudflare.com/durable-objects/best-practices/error-handling/>).
///
/// # Errors
/// `rate_limiter_unavailable`: without the object no limit can be checked.
pub async fn execute<H: EdgeHost>(
    host: &H,
    request: &Request<impl Inbound>,
    caller: &Caller,
    operation: Operation,
) -> Result<Execution<H::Body>, Problem> {
    let mut command = Command {
        user_id: caller.user.id,
        credentials: caller.credentials.clone(),
        began_ms: request.began_ms,
        is_repeated: false,
        operation,
    };
    match host.execute(&command, &request.context).await {
        Ok(received) => return Ok(Execution { received, is_repeated: false }),
        Err(UserObjectError::Overloaded) => return Err(unavailable()),
        Err(UserObjectError::Unreachable) => {}
    }
    command.is_repeated = true;
    let received = host.execute(&command, &request.context).await.map_err(|_| unavailable())?;
    Ok(Execution { received, is_repeated: true })
}

fn unavailable() -> Problem {
    let mut problem = Problem::new(Code::RateLimiterUnavailable, "your limits cannot be checked now");
    problem.retry_after_s = Some(5);
    problem
}
