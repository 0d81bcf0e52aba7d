//! The stages of a generation as spans of its trace: open the row, call the model, read the answer, persist.
//!
//! Without a sampled trace, a generation makes one call for them: the first that has no span is the last.

use std::num::NonZeroU32;

use crate::ports::Trace;
use crate::user_object::run::Run;

/// A stage in progress. Its span ends when it is dropped.
pub(super) struct Stage<'h, H: Trace> {
    host: &'h H,
    span: Option<NonZeroU32>,
}

impl<'h, H: Trace> Stage<'h, H> {
    /// Begins a stage of a run.
    pub(super) fn begin(host: &'h H, run: &Run, name: &'static str) -> Self {
        let span = if run.is_traced() { host.begin_span(name) } else { None };
        run.set_traced(span.is_some());
        Self { host, span }
    }
}

impl<H: Trace> Drop for Stage<'_, H> {
    fn drop(&mut self) {
        if let Some(span) = self.span {
            self.host.end_span(span);
        }
    }
}
