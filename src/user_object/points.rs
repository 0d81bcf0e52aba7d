//! The data points of a user object: one for each generation that has ended, one for each due job that failed.

use super::generate::log::Note;
use crate::http::problem::Code;
use crate::points::{GENERATION, JOB, figure};
use crate::ports::Metrics;
use crate::user_state::generation::{Ending, Generation};

/// A job of the user state, by the name in its points.
#[derive(Debug, Clone, Copy)]
pub(super) enum JobName {
    /// Persists an end.
    Persist,
    /// Resumes a generation after a crash.
    Resume,
}

impl JobName {
    const fn text(self) -> &'static str {
        match self {
            Self::Persist => "persist",
            Self::Resume => "resume",
        }
    }
}

/// Why a job failed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reason {
    /// No answer, or one that a retry can change.
    Unavailable,
    /// The database refused it.
    Refused,
    /// No attempt follows.
    Abandoned,
}

impl Reason {
    const fn text(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Writes the point of a generation that has ended, after the first attempt to persist it.
pub(super) fn measure_generation(
    metrics: &impl Metrics,
    generation: &Generation,
    ending: &Ending,
    note: &Note,
    database_ms: u64,
    is_persisted: bool,
) {
    let since_start = |at_ms: u64| figure(at_ms.saturating_sub(generation.started_ms));
    let usage = ending.usage.unwrap_or_default();
    let dropped = note.dropped;
    let candidates = if ending.code.is_none() { generation.candidates.len() } else { 0 };
    let texts = [
        "generation",
        ending.code.map_or("completed", Code::name),
        &*generation.accepted.model,
        ending.served_model.as_deref().unwrap_or(""),
        note.provider.as_deref().unwrap_or(""),
    ];
    let figures = [
        f64::from(ending.attempts),
        figure(usage.prompt_tokens),
        figure(usage.completion_tokens),
        usage.cost,
        figure(u64::try_from(candidates).unwrap_or(u64::MAX)),
        f64::from(ending.dropped),
        f64::from(dropped.empty),
        f64::from(dropped.too_long),
        f64::from(dropped.unreadable),
        f64::from(dropped.duplicate),
        f64::from(dropped.too_many),
        f64::from(u8::from(ending.partial)),
        note.first_candidate_ms.map_or(0.0, since_start),
        since_start(note.answered_ms.unwrap_or(ending.ended_ms)),
        figure(database_ms),
        f64::from(u8::from(is_persisted)),
    ];
    metrics.measure(&GENERATION.point(&texts, &figures));
}

/// Writes the point of a due job that failed.
pub(super) fn measure_job(
    metrics: &impl Metrics,
    job: JobName,
    reason: Reason,
    generation: &Generation,
    now_ms: u64,
) {
    let age_ms = now_ms.saturating_sub(generation.started_ms);
    // Those before have failed, too.
    let number = generation.writes.saturating_add(1);
    metrics.measure(&JOB.point(&["job", job.text(), reason.text()], &[f64::from(number), figure(age_ms)]));
}
