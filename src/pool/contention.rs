//! Locking what many threads want for a moment, over and over.
//!
//! If two threads on two cores do so at once, the lock and what it guards go from cache to cache each time, and that takes
//! several times as long as all else that a short job costs. One of them alone gets more done. So one that meets another
//! time and again gives its core away, if somebody wants it: submitters make way for a worker, say, and a second worker for
//! who awaits the results.
#![forbid(unsafe_code)]

use std::cell::Cell;

use crate::sync::{Mutex, MutexGuard, thread};

/// So often in a row it is not chance any more: what the two do in between is too short to be worth two cores.
const CROWD: u32 = 6;

/// Locks it, and may give the core away before. `met`: how often in a row this thread has met another one at this lock.
pub fn lock<'a, T>(mutex: &'a Mutex<T>, met: &Cell<u32>) -> MutexGuard<'a, T> {
    if let Some(guard) = mutex.try_lock() {
        met.set(0);
        return guard;
    }
    if meets_in_a_crowd(met) {
        thread::yield_now();
    }
    mutex.lock()
}

/// Counts a meeting. Whether there have been too many.
fn meets_in_a_crowd(met: &Cell<u32>) -> bool {
    let now = met.get() + 1;
    met.set(now % CROWD);
    now == CROWD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sixth_meeting_in_a_row_is_one_too_many() {
        let met = Cell::new(0);
        let crowds = |meetings: u32| (0..meetings).filter(|_| meets_in_a_crowd(&met)).count();
        assert_eq!(crowds(CROWD - 1), 0);
        drop(lock(&Mutex::new(()), &met));
        assert_eq!(crowds(CROWD - 1), 0);
        assert_eq!(crowds(1), 1);
        assert_eq!(crowds(2 * CROWD), 2);
    }
}
