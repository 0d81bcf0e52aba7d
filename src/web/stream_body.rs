//! Bodies that are being received, with the best reader of the runtime.

use std::task::{Context, Poll};

use web_sys::ReadableStream;

use super::chunk_body::ChunkBody;
use super::pending_read_body::PendingReadBody;
use super::pipe::has_native_streams;
use crate::ports::{Body, Unreachable};

/// A body that is being received.
pub(crate) enum StreamBody {
    /// By reads that workerd fills natively.
    PendingRead(PendingReadBody),
    /// In the chunks of the web standard.
    Chunks(ChunkBody),
}

impl StreamBody {
    pub(crate) fn new(stream: Option<ReadableStream>) -> Self {
        if has_native_streams() {
            Self::PendingRead(PendingReadBody::new(stream))
        } else {
            Self::Chunks(ChunkBody::new(stream))
        }
    }

    /// Whether all of it was read, or it was cut.
    pub(super) const fn is_over(&self) -> bool {
        match self {
            Self::PendingRead(body) => body.is_over(),
            Self::Chunks(body) => body.is_over(),
        }
    }

    /// Ends the sender's work, where an aborted connection does not.
    pub(crate) fn cancel(&mut self) {
        if let Self::Chunks(body) = self {
            body.cancel();
        }
    }
}

impl Body for StreamBody {
    fn poll_next(
        &mut self,
        at_least: usize,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, Unreachable>> {
        match self {
            Self::PendingRead(body) => body.poll_next(at_least, context),
            Self::Chunks(body) => body.poll_next(at_least, context),
        }
    }

    fn look(&mut self) -> Vec<u8> {
        match self {
            Self::PendingRead(body) => body.look(),
            Self::Chunks(body) => body.look(),
        }
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        match self {
            Self::PendingRead(body) => body.next_of_whole().await,
            Self::Chunks(body) => body.next_of_whole().await,
        }
    }
}
