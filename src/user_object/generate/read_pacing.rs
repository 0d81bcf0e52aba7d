//! The pacing of reads: how many bytes of the model's answer one read waits for, and when to look at the bytes of a read that
//! has not ended. Pure.
//!
//! Each read costs a crossing between JavaScript and Wasm, and no read is abandoned. So the first read waits for one byte, and
//! each later one for many; looks at the read in progress take the bytes that have arrived. Where each candidate is wanted at
//! once, reads of one byte return as soon as anything has arrived, as long as the model is slow; in a burst, one read of many
//! bytes and frequent looks take the place of a read for each chunk.
//!
//! Three deadlines end the reading: that of the call, the idle timeout, and that of the tail (usage and end of stream) after the
//! last candidate. Bytes count as received when a read or a look has taken them.

use crate::openrouter::response_reader::{End, Remaining};

/// How long the tail is waited for, in milliseconds. The usage follows the candidates at once; a server that never ends its
/// stream must not delay the response.
pub const TAIL_MS: u64 = 2_000;
/// The longest time between two looks at a read of many bytes: a candidate must be stored soon, and comments alone keep a
/// stream alive.
pub const LOOK_MS: u64 = 250;
/// The time to a look where each candidate is wanted at once, and in the tail. It doubles with each look without bytes.
const PROMPT_LOOK_MS: u64 = 2;
/// The longest such time.
const PROMPT_LOOK_MS_MAX: u64 = 16;
/// The most bytes that one read waits for: a short answer.
pub const READ_BYTES_MAX: usize = 32 * 1024;
/// The bytes of reads in a burst, one after the other. Not the most at once: looks at an unfilled read continue until it fills.
const BURST_BYTES: [usize; 3] = [1024, 4096, READ_BYTES_MAX];
/// A burst begins after so many reads of one byte in a row that ended in the millisecond in which they began.
const BURST_AFTER: usize = 3;
/// A burst continues while its reads fill within this time, in milliseconds.
const BURST_FILL_MS: u64 = 8;

/// The next read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Read, and wait for at least so many bytes; look at that moment (milliseconds since the Unix epoch).
    Read {
        /// 1 to [`READ_BYTES_MAX`]. A read in progress keeps its own.
        at_least: usize,
        /// When the bytes that have arrived are taken.
        until_ms: u64,
    },
    /// Stop reading.
    End(End),
}

#[derive(Debug, Clone, Copy)]
struct Read {
    began_ms: u64,
    at_least: usize,
}

/// The pacing of one response.
#[derive(Debug)]
pub struct ReadPacing {
    idle_timeout_ms: u64,
    deadline_ms: u64,
    /// When bytes were last received.
    received_ms: u64,
    tail_until_ms: Option<u64>,
    /// All bytes that had arrived then were received: the begin of the read in progress, or the last look at it.
    looked_ms: u64,
    prompt_look_ms: u64,
    /// How many reads in a row were fast.
    fast_reads: usize,
    has_begun: bool,
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
            looked_ms: now_ms,
            prompt_look_ms: PROMPT_LOOK_MS,
            fast_reads: 0,
            has_begun: false,
            read: None,
        }
    }

    /// The read in progress, or the next one. `is_followed`: each candidate is wanted at once.
    pub fn next(&mut self, remaining: Remaining, is_followed: bool, now_ms: u64) -> Pace {
        match remaining {
            // More content followed an apparent end.
            Remaining::Candidates => self.tail_until_ms = None,
            Remaining::Tail => {
                self.tail_until_ms.get_or_insert(now_ms.saturating_add(TAIL_MS));
            }
            Remaining::Nothing => return Pace::End(End::Regular),
        }
        if self.read.is_none() {
            self.looked_ms = now_ms;
        }
        // By the last look, not by now: bytes that arrived before a deadline are still received by the look at it.
        let tail_until_ms = self.tail_until_ms.unwrap_or(u64::MAX);
        let idle_until_ms = self.received_ms.saturating_add(self.idle_timeout_ms);
        if self.looked_ms >= tail_until_ms {
            return Pace::End(End::Regular);
        }
        if self.looked_ms >= self.deadline_ms {
            return Pace::End(End::Deadline);
        }
        if self.looked_ms >= idle_until_ms {
            return Pace::End(End::IdleTimeout);
        }
        let until_ms = tail_until_ms.min(self.deadline_ms).min(idle_until_ms);
        let next_at_least = match remaining {
            Remaining::Candidates if is_followed => self.burst_bytes(),
            Remaining::Candidates if self.has_begun => READ_BYTES_MAX,
            _ => 1, // the end of the stream may never come
        };
        let Read { at_least, .. } =
            *self.read.get_or_insert(Read { began_ms: now_ms, at_least: next_at_least });
        if at_least == 1 {
            return Pace::Read { at_least, until_ms };
        }
        let is_prompt = is_followed || remaining == Remaining::Tail;
        let look_ms = if is_prompt { self.prompt_look_ms } else { LOOK_MS };
        // A look that is overdue since the pace has changed follows at once.
        let look_at_ms = self.looked_ms.saturating_add(look_ms).max(now_ms.saturating_add(1));
        Pace::Read { at_least, until_ms: until_ms.min(look_at_ms) }
    }

    /// The read in progress has ended with bytes. Returns since when they can have arrived.
    pub fn received(&mut self, now_ms: u64) -> u64 {
        if let Some(Read { began_ms, at_least }) = self.read.take() {
            let fast_ms = if at_least == 1 { 1 } else { BURST_FILL_MS };
            let is_fast = now_ms.saturating_sub(began_ms) < fast_ms;
            self.fast_reads = if is_fast { self.fast_reads.saturating_add(1) } else { 0 };
        }
        self.has_begun = true;
        self.looked(true, now_ms)
    }

    /// A look has taken all bytes that have arrived. Returns since when they can have arrived.
    pub const fn looked(&mut self, has_bytes: bool, now_ms: u64) -> u64 {
        if has_bytes {
            self.received_ms = now_ms;
            self.prompt_look_ms = PROMPT_LOOK_MS;
        } else if self.prompt_look_ms < PROMPT_LOOK_MS_MAX {
            self.prompt_look_ms = self.prompt_look_ms.saturating_mul(2);
        }
        std::mem::replace(&mut self.looked_ms, now_ms)
    }

    fn burst_bytes(&self) -> usize {
        let Some(grown) = self.fast_reads.checked_sub(BURST_AFTER) else { return 1 };
        BURST_BYTES.get(grown).copied().unwrap_or(READ_BYTES_MAX)
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

    fn candidates(pacing: &mut ReadPacing, is_followed: bool, now_ms: u64) -> Pace {
        pacing.next(Remaining::Candidates, is_followed, now_ms)
    }

    /// A pacing after reads that took so many milliseconds each.
    fn after_reads(took_ms: &[u64], is_followed: bool) -> (ReadPacing, u64) {
        let (mut pacing, mut now_ms) = (pacing(), T);
        for ms in took_ms {
            assert!(matches!(candidates(&mut pacing, is_followed, now_ms), Pace::Read { .. }));
            now_ms += ms;
            pacing.received(now_ms);
        }
        (pacing, now_ms)
    }

    #[test]
    fn the_first_read_waits_for_a_byte_and_the_next_for_many() {
        let mut pacing = pacing();
        assert_eq!(candidates(&mut pacing, false, T), Pace::Read { at_least: 1, until_ms: T + IDLE_MS });
        pacing.received(T + 9_000);
        let at_least = READ_BYTES_MAX;
        let until_ms = T + 9_000 + LOOK_MS;
        assert_eq!(candidates(&mut pacing, false, T + 9_000), Pace::Read { at_least, until_ms });
        assert_eq!(candidates(&mut pacing, false, until_ms - 1), Pace::Read { at_least, until_ms });
        pacing.looked(false, until_ms);
        let until_ms = until_ms + LOOK_MS;
        assert_eq!(candidates(&mut pacing, false, until_ms - LOOK_MS), Pace::Read { at_least, until_ms });
    }

    #[test]
    fn reads_of_a_followed_answer_grow_in_a_burst() {
        for (took_ms, at_least) in [
            (&[][..], 1),
            (&[0, 0], 1),
            (&[0, 0, 0], 1024),
            (&[0, 1, 0], 1),
            (&[1, 1, 1, 1], 1),
            (&[0, 0, 0, BURST_FILL_MS - 1], 4096),
            (&[0, 0, 0, BURST_FILL_MS], 1),
            (&[0, 0, 0, 0, 0], READ_BYTES_MAX),
            (&[0, 0, 0, 0, 0, 0], READ_BYTES_MAX),
            (&[0, 0, 0, 0, 0, BURST_FILL_MS], 1),
        ] {
            let (mut pacing, now_ms) = after_reads(took_ms, true);
            let Pace::Read { at_least: found, .. } = candidates(&mut pacing, true, now_ms) else {
                panic!("the response goes on");
            };
            assert_eq!(found, at_least, "{took_ms:?}");
        }
    }

    #[test]
    fn looks_in_a_burst_become_rare_until_bytes_arrive() {
        let (mut pacing, mut now_ms) = after_reads(&[0, 0, 0], true);
        for (has_bytes, look_ms) in [
            (false, 2),
            (false, 4),
            (false, 8),
            (false, 16),
            (false, 16),
            (true, 16),
            (true, 2),
            (false, 2),
            (false, 4),
        ] {
            let until_ms = now_ms + look_ms;
            assert_eq!(candidates(&mut pacing, true, now_ms), Pace::Read { at_least: 1024, until_ms });
            now_ms = until_ms;
            pacing.looked(has_bytes, now_ms);
        }
    }

    #[test]
    fn a_read_in_progress_keeps_its_size_and_is_looked_at_by_the_pace() {
        let (mut pacing, now_ms) = after_reads(&[0], false);
        let at_least = READ_BYTES_MAX;
        let pace = |until_ms| Pace::Read { at_least, until_ms };
        assert_eq!(candidates(&mut pacing, false, now_ms), pace(now_ms + LOOK_MS));
        assert_eq!(candidates(&mut pacing, true, now_ms), pace(now_ms + PROMPT_LOOK_MS));
        assert_eq!(candidates(&mut pacing, true, now_ms + 100), pace(now_ms + 101));
        assert_eq!(candidates(&mut pacing, false, now_ms + 100), pace(now_ms + LOOK_MS));
    }

    #[test]
    fn bytes_can_have_arrived_since_the_last_look_or_the_begin_of_the_read() {
        let mut pacing = pacing();
        candidates(&mut pacing, false, T + 10);
        assert_eq!(pacing.received(T + 20), T + 10);
        candidates(&mut pacing, false, T + 30);
        assert_eq!(pacing.looked(true, T + 280), T + 30);
        assert_eq!(pacing.looked(false, T + 530), T + 280);
        assert_eq!(pacing.received(T + 540), T + 530);
    }

    #[test]
    fn each_deadline_ends_the_reading_to_the_millisecond() {
        let idle_ms = T + IDLE_MS;
        for (at_ms, end) in [(idle_ms - 1, None), (idle_ms, Some(End::IdleTimeout))] {
            let mut pacing = pacing();
            candidates(&mut pacing, true, T);
            pacing.looked(false, at_ms);
            let pace = candidates(&mut pacing, true, at_ms);
            assert_eq!(end.map(Pace::End).unwrap_or(Pace::Read { at_least: 1, until_ms: idle_ms }), pace);
        }
        let tail_ms = T + TAIL_MS;
        for (at_ms, end) in [(tail_ms - 1, None), (tail_ms, Some(End::Regular))] {
            let mut pacing = pacing();
            pacing.next(Remaining::Tail, true, T);
            pacing.looked(false, at_ms);
            let pace = pacing.next(Remaining::Tail, true, at_ms);
            assert_eq!(end.map(Pace::End).unwrap_or(Pace::Read { at_least: 1, until_ms: tail_ms }), pace);
        }
        for (at_ms, end) in [(DEADLINE_MS - 1, None), (DEADLINE_MS, Some(End::Deadline))] {
            let mut pacing = pacing();
            pacing.received(DEADLINE_MS - 1);
            candidates(&mut pacing, true, DEADLINE_MS - 1);
            pacing.looked(false, at_ms);
            let pace = candidates(&mut pacing, true, at_ms);
            assert_eq!(end.map(Pace::End).unwrap_or(Pace::Read { at_least: 1, until_ms: DEADLINE_MS }), pace);
        }
    }

    #[test]
    fn a_look_at_the_idle_timeout_that_finds_bytes_prevents_it() {
        let (mut pacing, _) = after_reads(&[0], false);
        let mut now_ms = T;
        while let Pace::Read { until_ms, .. } = candidates(&mut pacing, false, now_ms) {
            now_ms = until_ms;
            pacing.looked(now_ms == T + IDLE_MS, now_ms);
        }
        assert_eq!(now_ms, T + 2 * IDLE_MS);
    }

    #[test]
    fn no_deadline_ends_the_reading_before_the_look_at_it() {
        let (mut pacing, _) = after_reads(&[0], false);
        candidates(&mut pacing, false, T);
        pacing.looked(true, DEADLINE_MS - 1);
        let pace = Pace::Read { at_least: READ_BYTES_MAX, until_ms: DEADLINE_MS };
        // A late input of another kind.
        assert_eq!(candidates(&mut pacing, false, DEADLINE_MS + 5), pace);
        pacing.looked(true, DEADLINE_MS + 5);
        assert_eq!(candidates(&mut pacing, false, DEADLINE_MS + 5), Pace::End(End::Deadline));
    }

    #[test]
    fn nothing_is_read_once_nothing_remains() {
        assert_eq!(pacing().next(Remaining::Nothing, false, T), Pace::End(End::Regular));
    }

    #[test]
    fn content_after_an_apparent_end_removes_the_deadline_of_the_tail() {
        let mut pacing = pacing();
        pacing.next(Remaining::Tail, true, T);
        pacing.received(T + 1);
        let pace = candidates(&mut pacing, true, T + TAIL_MS);
        assert_eq!(pace, Pace::Read { at_least: 1, until_ms: T + 1 + IDLE_MS });
    }

    #[test]
    fn the_tail_is_looked_at_often_and_new_reads_of_it_wait_for_a_byte() {
        let (mut pacing, now_ms) = after_reads(&[0], false);
        candidates(&mut pacing, false, now_ms);
        pacing.looked(true, now_ms + LOOK_MS);
        let now_ms = now_ms + LOOK_MS;
        let pace = Pace::Read { at_least: READ_BYTES_MAX, until_ms: now_ms + PROMPT_LOOK_MS };
        assert_eq!(pacing.next(Remaining::Tail, false, now_ms), pace);
        pacing.received(now_ms + 1);
        let pace = Pace::Read { at_least: 1, until_ms: now_ms + TAIL_MS };
        assert_eq!(pacing.next(Remaining::Tail, false, now_ms + 1), pace);
    }
}
