//! A subscription to one generation: its candidates as they are stored, then its end. Each subscriber has its own position in the
//! one list, so a slow one delays no other.

use std::rc::Rc;

use uuid::Uuid;

use super::run::Run;
use super::session_view::SessionView;
use crate::http::sse::EventId;
use crate::user_state::generation::SessionCandidate;

/// At most so many streams of one generation: each keeps a connection open. A learner has a tab or two, and a cut connection that is
/// not noticed yet. Clients that wait without a stream come with a `POST` each, so `burst` bounds them.
pub const SUBSCRIBERS_PER_SESSION_MAX: usize = 8;
/// At most so many of one user.
pub const SUBSCRIBERS_PER_USER_MAX: usize = 32;

/// A client that receives the events of a session. Counted for as long as it exists.
#[derive(Debug)]
pub struct Subscription {
    /// The session.
    pub session_id: Uuid,
    /// The 1-based number of the session's run.
    pub run: u32,
    /// The last event that the client received before.
    pub after: Option<EventId>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Run(Rc<Run>),
    Ended(Box<SessionView>),
}

/// An update for a subscriber.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The candidates after those that were received; at least one.
    Candidates(Vec<Rc<SessionCandidate>>),
    /// The session with its end.
    Ended(Box<SessionView>),
    /// The storage failed, and the run ended without a result.
    Lost,
}

impl Subscription {
    /// Subscribes to a generation that runs.
    pub(super) fn to_run(session_run: u32, after: Option<EventId>, run: &Rc<Run>) -> Self {
        run.subscribe();
        Self { session_id: run.id, run: session_run, after, source: Source::Run(Rc::clone(run)) }
    }

    /// Subscribes to a session that does not run.
    #[must_use]
    pub fn to_ended(session: SessionView, after: Option<EventId>) -> Self {
        let (session_id, run) = (session.id, session.run);
        Self { session_id, run, after, source: Source::Ended(Box::new(session)) }
    }

    /// Waits for an update. `received`: how many candidates the client has received.
    pub async fn next(&self, received: usize) -> Update {
        let run = match &self.source {
            Source::Ended(session) => return Update::Ended(session.clone()),
            Source::Run(run) => run,
        };
        run.until(|| match run.result() {
            Some(Some(result)) => Some(Update::Ended(Box::new(result.session.clone()))),
            Some(None) => Some(Update::Lost),
            None => Some(run.stored_from(received)).filter(|new| !new.is_empty()).map(Update::Candidates),
        })
        .await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Source::Run(run) = &self.source {
            run.unsubscribe();
        }
    }
}
