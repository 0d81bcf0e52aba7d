//! The pacing of reads: how many bytes of the model's answer one read waits for, and until when. Pure.
//!
//! Each read costs a crossing between JavaScript and Wasm, so a fast answer is read in batches that grow. A read of one byte
//! returns as soon as anything has arrived. Three deadlines end the reading: that of the call, the idle timeout, and that of
//! the tail (usage and end of stream) after the last candidate.

use crate::openrouter::response_reader::{End, Remaining};

/// How long the tail is waited for, in milliseconds. The usage follows the candidates at once; a server that never ends its
/// stream must not delay the response.
pub const TAIL_MS: u64 = 2_000;
/// How long a batch may take to fill. After that the read returns the bytes that have arrived: comments alone keep a stream
/// alive, and a candidate must be stored soon.
pub const BATCH_MS: u64 = 250;
/// A batch that fills within this is followed by a larger one.
const FAST_MS: u64 = BATCH_MS / 4;
/// The smallest batch: fewer bytes are not worth the copy that a host keeps of them.
const BATCH_BYTES_MIN: usize = 1024;
/// The largest batch.
pub const BATCH_BYTES_MAX: usize = 16 * 1024;

/// The next read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Read, and wait for at least so many bytes until that moment (milliseconds since the Unix epoch).
    Read {
        /// 1 to [`BATCH_BYTES_MAX`].
        at_least: usize,
        /// When the read is over, even without bytes.
        until_ms: u64,
    },
    /// Stop reading.
    End(End),
}

#[derive(Debug, Clone, Copy)]
struct Read {
    began_ms: u64,
    at_least: usize,
    until_ms: u64,
}

/// The pacing of one response.
#[derive(Debug)]
pub struct ReadPacing {
    idle_timeout_ms: u64,
    deadline_ms: u64,
    /// When bytes were last received.
    received_ms: u64,
    tail_until_ms: Option<u64>,
    batch_bytes: usize,
    /// The read in progress.
    read: Option<Read>,
}

impl ReadPacing {
    /// The pacing of a response whose head was received now.
    #[must_use]
    pub const fn new(idle_timeout_ms: u64, deadline_ms: u64, now_ms: u64) -> Self {
        Self {
            idle_timeout_ms,
            deadline_ms,
            received_ms: now_ms,
            tail_until_ms: None,
            batch_bytes: 1,
            read: None,
        }
    }

    /// The read in progress, or the next one. `bytes_max` limits a read that begins: 1 where each candidate is wanted at once.
    pub fn next(&mut self, remaining: Remaining, bytes_max: usize, now_ms: u64) -> Pace {
        match remaining {
            // More content followed an apparent end.
            Remaining::Candidates => self.tail_until_ms = None,
            Remaining::Tail => {
                self.tail_until_ms.get_or_insert(now_ms.saturating_add(TAIL_MS));
                self.batch_bytes = 1; // the end of the stream may never come
            }
            Remaining::Nothing => return Pace::End(End::Regular),
        }
        if let Some(Read { at_least, until_ms, .. }) = self.read {
            return Pace::Read { at_least, until_ms };
        }
        let tail_until_ms = self.tail_until_ms.unwrap_or(u64::MAX);
        let idle_until_ms = self.received_ms.saturating_add(self.idle_timeout_ms);
        if now_ms >= tail_until_ms {
            return Pace::End(End::Regular);
        }
        if now_ms >= self.deadline_ms {
            return Pace::End(End::Deadline);
        }
        if now_ms >= idle_until_ms {
            return Pace::End(End::IdleTimeout);
        }
        let until_ms = tail_until_ms.min(self.deadline_ms).min(idle_until_ms);
        // No batch begins so near a deadline: bytes that arrived in an unfilled batch would be lost, and count as silence.
        let is_late = until_ms.saturating_sub(now_ms) <= BATCH_MS.saturating_mul(2);
        let at_least = if is_late { 1 } else { self.batch_bytes.min(bytes_max.max(1)) };
        let until_ms = if at_least > 1 { until_ms.min(now_ms.saturating_add(BATCH_MS)) } else { until_ms };
        self.read = Some(Read { began_ms: now_ms, at_least, until_ms });
        Pace::Read { at_least, until_ms }
    }

    /// The read in progress has received bytes.
    pub fn received(&mut self, now_ms: u64) {
        self.received_ms = now_ms;
        let Some(read) = self.read.take() else { return };
        if now_ms.saturating_sub(read.began_ms) < FAST_MS {
            // Not to the largest at once: the bytes of an unfilled batch arrive fast, too.
            self.batch_bytes = self.batch_bytes.saturating_mul(4).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX);
        } else if read.at_least == 1 {
            self.batch_bytes = 1;
        }
    }

    /// No bytes were received until now: ends the read in progress if its time is over.
    pub fn expire(&mut self, now_ms: u64) {
        if self.read.is_some_and(|read| now_ms >= read.until_ms) {
            (self.read, self.batch_bytes) = (None, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_800_000_000_000;
    const IDLE_MS: u64 = 15_000;
    const DEADLINE_MS: u64 = T + 60_000;

    fn pacing() -> ReadPacing {
        ReadPacing::new(IDLE_MS, DEADLINE_MS, T)
    }

    /// The next read when no bytes were received until then.
    fn expired(pacing: &mut ReadPacing, remaining: Remaining, bytes_max: usize, now_ms: u64) -> Pace {
        pacing.expire(now_ms);
        pacing.next(remaining, bytes_max, now_ms)
    }

    /// The requested batch after reads that took so many milliseconds each.
    fn after_reads(took_ms: &[u64], bytes_max: usize) -> (ReadPacing, usize, u64) {
        let (mut pacing, mut now_ms) = (pacing(), T);
        for ms in took_ms {
            assert!(matches!(pacing.next(Remaining::Candidates, bytes_max, now_ms), Pace::Read { .. }));
            now_ms += ms;
            pacing.received(now_ms);
        }
        let Pace::Read { at_least, .. } = pacing.next(Remaining::Candidates, bytes_max, now_ms) else {
            panic!("the response goes on");
        };
        (pacing, at_least, now_ms)
    }

    #[test]
    fn batches_grow_while_they_fill_fast() {
        for (took_ms, bytes_max, at_least) in [
            (&[][..], BATCH_BYTES_MAX, 1),
            (&[FAST_MS - 1], BATCH_BYTES_MAX, 1024),
            (&[FAST_MS], BATCH_BYTES_MAX, 1),
            (&[0, 0], BATCH_BYTES_MAX, 4096),
            (&[0, 0, 0], BATCH_BYTES_MAX, BATCH_BYTES_MAX),
            (&[0, 0, 0, 0], BATCH_BYTES_MAX, BATCH_BYTES_MAX),
            (&[0, FAST_MS], BATCH_BYTES_MAX, 1024), // slow, but it filled
            (&[0, 0, 0], 2048, 2048),
            (&[0, 0, 0], 1, 1),
            (&[0, 0, 0], 0, 1),
        ] {
            assert_eq!(after_reads(took_ms, bytes_max).1, at_least, "{took_ms:?} {bytes_max}");
        }
    }

    #[test]
    fn an_unfilled_batch_is_followed_by_a_read_of_one_byte() {
        let (mut pacing, at_least, now_ms) = after_reads(&[0], BATCH_BYTES_MAX);
        assert_eq!(at_least, 1024);
        let until_ms = now_ms + BATCH_MS;
        for (at_ms, pace) in [
            (now_ms, Pace::Read { at_least, until_ms }),
            (until_ms - 1, Pace::Read { at_least, until_ms }),
            (until_ms, Pace::Read { at_least: 1, until_ms: now_ms + IDLE_MS }),
        ] {
            assert_eq!(expired(&mut pacing, Remaining::Candidates, BATCH_BYTES_MAX, at_ms), pace, "{at_ms}");
        }
    }

    #[test]
    fn a_read_in_progress_keeps_its_size() {
        let (mut pacing, at_least, now_ms) = after_reads(&[0, 0], BATCH_BYTES_MAX);
        assert_eq!(at_least, 4096);
        let pace = pacing.next(Remaining::Candidates, 1, now_ms + 1);
        assert_eq!(pace, Pace::Read { at_least: 4096, until_ms: now_ms + BATCH_MS });
    }

    #[test]
    fn each_deadline_ends_the_reading_to_the_millisecond() {
        let idle_ms = T + IDLE_MS;
        for (at_ms, end) in [(idle_ms - 1, None), (idle_ms, Some(End::IdleTimeout))] {
            let mut pacing = pacing();
            pacing.next(Remaining::Candidates, 1, T);
            let pace = expired(&mut pacing, Remaining::Candidates, 1, at_ms);
            assert_eq!(end.map(Pace::End).unwrap_or(Pace::Read { at_least: 1, until_ms: idle_ms }), pace);
        }
        let tail_ms = T + TAIL_MS;
        for (at_ms, end) in [(tail_ms - 1, None), (tail_ms, Some(End::Regular))] {
            let mut pacing = pacing();
            pacing.next(Remaining::Tail, 1, T);
            let pace = expired(&mut pacing, Remaining::Tail, 1, at_ms);
            assert_eq!(end.map(Pace::End).unwrap_or(Pace::Read { at_least: 1, until_ms: tail_ms }), pace);
        }
        for (at_ms, end) in [(DEADLINE_MS - 1, None), (DEADLINE_MS, Some(End::Deadline))] {
            let mut pacing = pacing();
            pacing.received(DEADLINE_MS - 1);
            let pace = expired(&mut pacing, Remaining::Candidates, 1, at_ms);
            assert_eq!(end.map(Pace::End).unwrap_or(Pace::Read { at_least: 1, until_ms: DEADLINE_MS }), pace);
        }
    }

    #[test]
    fn nothing_is_read_once_nothing_remains() {
        assert_eq!(pacing().next(Remaining::Nothing, BATCH_BYTES_MAX, T), Pace::End(End::Regular));
    }

    #[test]
    fn content_after_an_apparent_end_removes_the_deadline_of_the_tail() {
        let mut pacing = pacing();
        pacing.next(Remaining::Tail, 1, T);
        pacing.received(T + 1);
        let pace = pacing.next(Remaining::Candidates, 1, T + TAIL_MS);
        assert_eq!(pace, Pace::Read { at_least: 1, until_ms: T + 1 + IDLE_MS });
    }

    #[test]
    fn no_batch_begins_near_a_deadline() {
        for (left_ms, at_least) in [(2 * BATCH_MS + 1, 1024), (2 * BATCH_MS, 1)] {
            let now_ms = DEADLINE_MS - left_ms;
            let mut pacing = ReadPacing::new(IDLE_MS, DEADLINE_MS, now_ms);
            pacing.next(Remaining::Candidates, BATCH_BYTES_MAX, now_ms);
            pacing.received(now_ms);
            let Pace::Read { at_least: found, .. } =
                pacing.next(Remaining::Candidates, BATCH_BYTES_MAX, now_ms)
            else {
                panic!("the response goes on");
            };
            assert_eq!(found, at_least, "{left_ms}");
        }
    }
}
