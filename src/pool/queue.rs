//! The jobs that wait, and the turns of streams among them.
//!
//! Submitters push to the back of `submitted`; workers take from the front of `ready`, and when that is empty they swap the
//! two. Each has a lock of its own: [`Ready`], and the pool's state, which [`Queue`] is a part of. So while there is much to
//! do, submitters and workers do not meet at every job. A thread that needs both locks takes that of `Ready` first.
//!
//! A turn whose consumer waits for its end has priority: it stands in a queue that is looked at first.
//!
//! A cancelled job stays in its place, as a *stale* entry that holds nothing of the user. When half of all entries are stale,
//! they are purged: so each costs a look or two.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::iter;
use std::mem;

use crate::primitives::job::{Queued, Started};

/// With fewer stale entries than this, they stay until their turn comes.
const MIN_STALE: usize = 32;
/// An empty queue keeps room for so many entries.
const KEEP_CAPACITY: usize = 64;

/// The entries that workers take next. Behind a lock of its own.
#[derive(Default)]
pub struct Ready {
    jobs: VecDeque<Queued>,
    /// Reported only: how many jobs, and how many turns, have been taken out.
    pub started: u64,
    pub turns_started: u64,
    /// More workers are active than may be, since some have come back from blocking: no job may be taken.
    pub surplus: bool,
}

impl Ready {
    /// The next job or turn.
    pub fn take(&mut self) -> Option<Started> {
        if self.surplus {
            return None;
        }
        // Dropping a stale entry runs no user code.
        let started = iter::from_fn(|| self.jobs.pop_front()).find_map(Queued::claim)?;
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
    priority: VecDeque<Queued>,
    /// No fewer than there are in `Ready`.
    ready_len: usize,
    /// No fewer than there are stale entries.
    stale: usize,
}

impl Queue {
    /// How many entries wait, stale ones included: no fewer than there are.
    pub fn len(&self) -> usize {
        self.submitted.len() + self.ready_len + self.priority.len()
    }

    /// How many turns with priority wait.
    pub fn priority_len(&self) -> usize {
        self.priority.len()
    }

    pub fn push(&mut self, entry: Queued) {
        self.submitted.push_back(entry);
    }

    pub fn push_many(&mut self, entries: Vec<Queued>) {
        self.submitted.extend(entries);
    }

    pub fn push_priority(&mut self, entry: Queued) {
        self.priority.push_back(entry);
    }

    /// The next turn with priority.
    pub fn take_priority(&mut self, ready: &mut Ready) -> Option<Started> {
        let turn = iter::from_fn(|| self.priority.pop_front()).find_map(Queued::claim)?;
        ready.count(&turn);
        Some(turn)
    }

    /// The next job or turn, from both parts.
    pub fn take(&mut self, ready: &mut Ready) -> Option<Started> {
        let mut started = ready.take();
        if started.is_none() && !ready.surplus && !self.submitted.is_empty() {
            mem::swap(&mut self.submitted, &mut ready.jobs);
            started = ready.take();
        }
        self.ready_len = ready.jobs.len();
        started
    }

    /// Nothing waits, and a worker goes idle: gives back the memory of a burst.
    pub fn shrink(&mut self, ready: &mut Ready) {
        self.stale = 0;
        for entries in [&mut self.submitted, &mut ready.jobs, &mut self.priority] {
            entries.shrink_to(KEEP_CAPACITY);
        }
    }

    /// An entry has become stale, or will soon. Whether a [`purge`](Self::purge) is due: when half of many entries are stale, or
    /// all of them, since a closed pool may wait for the queue to be empty.
    pub fn add_stale(&mut self) -> bool {
        self.stale += 1;
        self.stale >= self.len() || self.stale > MIN_STALE && 2 * self.stale > self.len()
    }

    /// Throws the stale entries out.
    pub fn purge(&mut self, ready: &mut Ready) {
        for entries in [&mut self.submitted, &mut ready.jobs, &mut self.priority] {
            entries.retain(|entry| !entry.is_stale());
            entries.shrink_to(KEEP_CAPACITY.max(2 * entries.len()));
        }
        self.ready_len = ready.jobs.len();
        self.stale = 0;
    }

    /// Claims everything that waits, to be refused. (All at once: while one is dropped, user code may wait for the pool to
    /// finish, and so for the others.)
    pub fn take_all(&mut self, ready: &mut Ready) -> Vec<Started> {
        (self.ready_len, self.stale) = (0, 0);
        let parts = [mem::take(&mut self.priority), mem::take(&mut ready.jobs), mem::take(&mut self.submitted)];
        parts.into_iter().flatten().filter_map(Queued::claim).collect()
    }

    /// As `take_all`, for the turns with priority alone.
    pub fn take_all_priority(&mut self) -> Vec<Started> {
        mem::take(&mut self.priority).into_iter().filter_map(Queued::claim).collect()
    }
}
