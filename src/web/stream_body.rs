//! Bodies that are being received, with the best reader of the runtime.

use std::task::{Context, Poll};

use web_sys::ReadableStream;

use super::batch_body::BatchBody;
use super::chunk_body::ChunkBody;
use super::pipe::has_native_streams;
use crate::ports::{Body, Unreachable};

/// A body that is being received.
pub(crate) enum StreamBody {
    /// In batches that the runtime gathers.
    Batches(BatchBody),
    /// In the chunks of the web standard.
    Chunks(ChunkBody),
}

impl StreamBody {
    pub(crate) fn new(stream: Option<ReadableStream>) -> Self {
        if has_native_streams() {
            Self::Batches(BatchBody::new(stream))
        } else {
            Self::Chunks(ChunkBody::new(stream))
        }
    }

    /// Whether all of it was read.
    pub(super) const fn is_over(&self) -> bool {
        match self {
            Self::Batches(body) => body.is_over(),
            Self::Chunks(body) => body.is_over(),
        }
    }

    /// Ends the sender's work, where an aborted connection does not.
    pub(crate) fn cancel(&mut self) {
        if let Self::Chunks(body) = self {
            body.cancel();
        }
    }

    /// Leaves the rest of the stream to another reader, where there can be one.
    pub(super) fn release(&mut self) {
        if let Self::Chunks(body) = self {
            body.release();
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
            Self::Batches(body) => body.poll_next(at_least, context),
            Self::Chunks(body) => body.poll_next(at_least, context),
        }
    }

    async fn next_of_whole(&mut self) -> Result<Option<Vec<u8>>, Unreachable> {
        match self {
            Self::Batches(body) => body.next_of_whole().await,
            Self::Chunks(body) => body.next_of_whole().await,
        }
    }
}
