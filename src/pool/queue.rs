//! The jobs that wait, and the turns of streams among them.
//!
//! Submitters push to the back of `submitted`. Workers take from the front of [`Ready`]; when `Ready` is empty they
//! swap the two queues. `Ready` has a lock of its own; `submitted` is part of [`Queue`], behind the lock of the pool's
//! state. So while many jobs wait, submitters and workers rarely contend for a lock. A thread that needs both locks
//! takes the lock of `Ready` first.
//!
//! The turn in which a closed stream ends has priority, since the stream's consumer may wait for the end. Such a turn
//! is claimed, and goes into a third queue. A worker that holds both locks takes from this queue first.
//!
//! A job that is cancelled, or runs inline, stays in its queue as a *stale* entry; so does the earlier turn of a stream
//! that is closed. Dropping a stale entry runs no user code. When more than half of the entries are stale, the stale
//! ones are purged: so each stale entry costs a constant time.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::iter;
use std::mem;

use crate::primitives::job::{Queued, Started};

/// Up to this number of stale entries, none are purged.
const MIN_STALE: usize = 32;
/// An empty queue keeps memory for this number of entries.
const KEEP_CAPACITY: usize = 64;

/// The entries that workers take next. It has a lock of its own.
#[derive(Default)]
pub struct Ready {
    jobs: VecDeque<Queued>,
    /// Reported only: how many jobs, and how many turns, have been taken out to run.
    pub started: u64,
    pub turns_started: u64,
    /// Nothing may be taken from here, since the pool was shut down, or since more workers are active than may be (see
    /// `Workers::has_surplus`).
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
    /// How many entries have become stale since the last purge. Workers may have taken some of these out since.
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

    /// The next turn or job, from all three queues.
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

    /// Counts an entry that has become stale. Returns whether a [`purge`](Self::purge) is due.
    pub fn add_stale(&mut self) -> bool {
        self.stale += 1;
        self.stale > MIN_STALE && 2 * self.stale > self.len()
    }

    /// Removes the stale entries.
    pub fn purge(&mut self, ready: &mut Ready) {
        for entries in [&mut self.submitted, &mut ready.jobs] {
            entries.retain(|entry| !entry.is_stale());
            entries.shrink_to(KEEP_CAPACITY.max(2 * entries.len()));
        }
        self.ready_len = ready.jobs.len();
        self.stale = 0;
    }
}

/// Claims and takes the first entry that is not stale. Drops the stale entries before it, which runs no user code.
fn pop(entries: &mut VecDeque<Queued>) -> Option<Started> {
    iter::from_fn(|| entries.pop_front()).find_map(Queued::claim)
}
