//! How long to yield before going to sleep.
//!
//! **Promise.** [`Backoff::spin`] returns within about [`SHORT`], or, if one yield takes longer, after that yield.
//! After a few long waits `spin` returns at once, until a wait is short again.
//!
//! A sleep and a wake cost 10 to 40 microseconds, a yield about half a microsecond. So a waiting thread first pauses
//! and yields: at most [`MAX_YIELDS`] times (48), and not for longer than [`SHORT`]. On one CPU it does not pause: only
//! a yield lets the other thread run. Two rules set the number of yields:
//!
//! 1. An answer during the pauses, or within [`SHORT`] of the first yield or of falling asleep, restores the full
//!    number.
//! 2. A later answer, or a time-out of the sleep, halves the number. So if another process takes the CPU at each yield,
//!    threads soon sleep instead: the system wakes a sleeper sooner than it returns to a thread that yields.
//!
//! There is no synchronisation in this file, and no model.

use std::time::{Duration, Instant};

use crate::sync::{self, MAX_YIELDS, thread};

/// How often a parker pauses before it yields. The number is small: a pause costs no system call, but lets no other
/// thread run on this CPU.
pub const PAUSES: u32 = 16;
/// The length of one pause, for [`sync::pause`].
const PAUSE: u32 = 2;
/// Somewhat more than a sleep and a wake cost.
const SHORT: Duration = Duration::from_micros(50);

/// How many yields one thread makes before it sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    yields: u32,
}

impl Backoff {
    pub const NEW: Self = Self { yields: MAX_YIELDS };

    /// Pauses up to `pauses` times, then yields, until `is_ready` returns true. False: the caller should sleep.
    pub fn spin(&mut self, pauses: u32, deadline: Option<Instant>, mut is_ready: impl FnMut() -> bool) -> bool {
        if self.is_spent() {
            return false;
        }
        let pauses = if sync::cpus() > 1 { pauses } else { 0 };
        for _ in 0..pauses {
            sync::pause(PAUSE);
            if is_ready() {
                self.yields = MAX_YIELDS;
                return true;
            }
        }
        let start = Instant::now();
        for _ in 0..self.yields {
            thread::yield_now();
            let waited = start.elapsed();
            if is_ready() {
                self.waited(waited, true);
                return true;
            }
            if waited >= SHORT || deadline.is_some_and(sync::is_past) {
                break;
            }
        }
        false
    }

    /// Whether the caller should sleep at once.
    pub fn is_spent(self) -> bool {
        self.yields == 0
    }

    /// The thread has yielded, or slept, for `duration`. `answered`: the wait did not time out.
    pub fn waited(&mut self, duration: Duration, answered: bool) {
        self.yields = if answered && duration < SHORT { MAX_YIELDS } else { self.yields / 2 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_waits_halve_the_number_and_quick_answers_restore_it() {
        let mut backoff = Backoff::NEW;
        let mut last = MAX_YIELDS;
        while last > 0 {
            backoff.waited(SHORT, true);
            assert_eq!(backoff.yields, last / 2);
            last = backoff.yields;
        }
        assert!(backoff.is_spent() && !backoff.spin(PAUSES, None, || true));
        backoff.waited(Duration::ZERO, false);
        assert!(backoff.is_spent(), "a wait that timed out is no quick answer");
        backoff.waited(Duration::ZERO, true);
        assert_eq!(backoff.yields, MAX_YIELDS);
        backoff.waited(SHORT, true);
        assert!(backoff.spin(PAUSES, None, || true));
    }

    #[test]
    fn a_deadline_ends_the_spinning() {
        let mut looks = 0;
        assert!(!{ Backoff::NEW }.spin(PAUSES, Some(Instant::now()), || {
            looks += 1;
            false
        }));
        assert!(looks <= PAUSES + 1);
    }
}
