//! Locking what many threads want for a moment, over and over.
//!
//! If two threads on two cores do so at once, the lock and what it guards go from cache to cache each time, and that takes
//! several times as long as all else that a short job costs. One of them alone gets more done. So one that meets another
//! time and again gives its core away, if somebody wants it: submitters make way for a worker, say, and a second worker for
//! who awaits the results.
#![forbid(unsafe_code)]

use std::cell::Cell;

use crate::sync::{Mutex, MutexGuard, thread, thread_local};

/// So often in a row two threads meet by chance, while they do enough in between to be worth two cores.
const CROWD: u32 = 6;

thread_local! {
    /// How often in a row this thread has met another one.
    static MET: Cell<u32> = const { Cell::new(0) };
}

/// Locks it, and may give the core away before.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    if let Some(guard) = mutex.try_lock() {
        MET.with(|met| met.set(0));
        return guard;
    }
    if is_crowd() {
        thread::yield_now();
    }
    mutex.lock()
}

/// Counts a meeting. Whether there have been too many.
fn is_crowd() -> bool {
    MET.with(|all| {
        let met = all.get() + 1;
        all.set(met % CROWD);
        met == CROWD
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sixth_meeting_in_a_row_is_one_too_many() {
        let crowds = |meetings: u32| (0..meetings).filter(|_| is_crowd()).count();
        assert_eq!(crowds(CROWD - 1), 0);
        drop(lock(&Mutex::new(())));
        assert_eq!(crowds(CROWD - 1), 0);
        assert_eq!(crowds(1), 1);
        assert_eq!(crowds(2 * CROWD), 2);
    }
}
