//! The jobs that wait, and the turns of streams among them.
//!
//! Submitters push to the back of `submitted`; workers take from the front of `ready`, and when that is empty they swap
//! the two. Each has a lock of its own: [`Ready`], and the pool's state, which [`Queue`] is a part of. So while many
//! jobs wait, submitters and workers rarely contend for a lock. A thread that needs both locks takes that of `Ready`
//! first.
//!
//! The turn in which a closed stream ends has priority, since its consumer may wait for the end: it goes into a third
//! queue, already claimed. A worker that holds both locks takes from there first.
//!
//! A cancelled job stays in its queue as a *stale* entry, which owns no user data. When more than half of the entries
//! are stale, the stale ones are purged: so each costs a constant time.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::iter;
use std::mem;

use crate::primitives::job::{Queued, Started};

/// So many stale entries are not purged.
const MIN_STALE: usize = 32;
/// An empty queue keeps room for so many entries.
const KEEP_CAPACITY: usize = 64;

/// The entries that workers take next. It has a lock of its own.
#[derive(Default)]
pub struct Ready {
    jobs: VecDeque<Queued>,
    /// Reported only: how many jobs, and how many turns, have been taken out.
    pub started: u64,
    pub turns_started: u64,
    /// No job may be taken: the pool was shut down, or too many workers are active, since some have come back from
    /// blocking.
    pub paused: bool,
}

impl Ready {
    /// The next job or turn.
    pub fn take(&mut self) -> Option<Started> {
        if self.paused {
            return None;
        }
        let started = pop(&mut self.jobs)?;
        self.count(&started);
        Some(started)
    }

    fn count(&mut self, started: &Started) {
        let counter = if started.is_turn() { &mut self.turns_started } else { &mut self.started };
        *counter += 1;
    }

    /// Whether there are more entries.
    pub fn has_more(&self) -> bool {
        !self.jobs.is_empty()
    }
}

/// The part of the queue behind the lock of the pool's state.
#[derive(Default)]
pub struct Queue {
    submitted: VecDeque<Queued>,
    priority: VecDeque<Started>,
    /// At least the number of entries in `Ready`.
    ready_len: usize,
    /// At least the number of stale entries.
    stale: usize,
}

impl Queue {
    /// At least the number of entries that wait, stale ones included.
    pub fn len(&self) -> usize {
        self.submitted.len() + self.ready_len + self.priority.len()
    }

    /// How many turns with priority wait.
    pub fn priority_len(&self) -> usize {
        self.priority.len()
    }

    pub fn push(&mut self, entries: impl IntoIterator<Item = Queued>) {
        self.submitted.extend(entries);
    }

    pub fn push_priority(&mut self, turn: Started) {
        self.priority.push_back(turn);
    }

    /// The next turn or job, from all parts.
    pub fn take(&mut self, ready: &mut Ready) -> Option<Started> {
        if let Some(turn) = self.priority.pop_front() {
            ready.count(&turn);
            return Some(turn);
        }
        let mut started = ready.take();
        if started.is_none() && !ready.paused && !self.submitted.is_empty() {
            mem::swap(&mut self.submitted, &mut ready.jobs);
            started = ready.take();
        }
        self.ready_len = ready.jobs.len();
        started
    }

    /// The next turn with priority, to be refused.
    pub fn pop_priority(&mut self) -> Option<Started> {
        self.priority.pop_front()
    }

    /// The next turn or job, to be refused.
    pub fn pop(&mut self, ready: &mut Ready) -> Option<Started> {
        let entry = self.pop_priority().or_else(|| pop(&mut ready.jobs)).or_else(|| pop(&mut self.submitted));
        self.ready_len = ready.jobs.len();
        entry
    }

    /// Nothing waits, and a worker goes idle: frees the memory of a burst.
    pub fn shrink(&mut self, ready: &mut Ready) {
        self.stale = 0;
        self.priority.shrink_to(KEEP_CAPACITY);
        for entries in [&mut self.submitted, &mut ready.jobs] {
            entries.shrink_to(KEEP_CAPACITY);
        }
    }

    /// An entry has become stale, or will soon. Returns whether a [`purge`](Self::purge) is due.
    pub fn add_stale(&mut self) -> bool {
        self.stale += 1;
        self.stale > MIN_STALE && 2 * self.stale > self.len()
    }

    /// Throws the stale entries out.
    pub fn purge(&mut self, ready: &mut Ready) {
        for entries in [&mut self.submitted, &mut ready.jobs] {
            entries.retain(|entry| !entry.is_stale());
            entries.shrink_to(KEEP_CAPACITY.max(2 * entries.len()));
        }
        self.ready_len = ready.jobs.len();
        self.stale = 0;
    }
}

/// The first entry that is not stale. Dropping the stale ones runs no user code.
fn pop(entries: &mut VecDeque<Queued>) -> Option<Started> {
    iter::from_fn(|| entries.pop_front()).find_map(Queued::claim)
}
