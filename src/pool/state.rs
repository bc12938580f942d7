//! What stands behind the pool's lock: the queue, the workers, and how the pool closes.
//!
//! A closed pool has finished when nothing waits and no worker is left. A job of the pool that waits for that is *exempt*: from
//! inside, the pool has finished when all workers that have a job are exempt.
#![forbid(unsafe_code)]

use std::mem;
use std::task::Waker;

use crate::pool::queue::{Queue, Ready};
use crate::pool::stats::Counters;
use crate::pool::workers::{Next, Workers};
use crate::primitives::job::Started;

/// Behind the pool's lock: the queue, the workers, and how the pool closes.
pub struct State {
    pub queue: Queue,
    pub workers: Workers,
    pub closed: bool,
    /// How many threads are no workers any more, but have not ended yet.
    pub leaving: usize,
    /// How many workers have a job that waits for the pool to finish.
    pub exempt: usize,
    /// How many threads are refusing jobs.
    pub refusing: usize,
    /// Those that wait for a closed pool to finish.
    pub shutdown_waiters: Vec<Waker>,
    pub counters: Counters,
}

/// What a worker does next.
#[must_use]
pub enum Look {
    Run(Started, Next),
    /// There is nothing to do.
    Rest,
    /// There is nothing to do, and the thread is not needed any more.
    End(Waiters),
}

/// Those that waited for the pool to finish, to be woken when the lock is free.
#[must_use = "they are to be woken"]
pub struct Waiters(Vec<Waker>);

impl Waiters {
    pub fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

impl State {
    pub fn new(size: usize, max_threads: usize) -> Self {
        Self {
            queue: Queue::default(),
            workers: Workers::new(size, max_threads),
            closed: false,
            leaving: 0,
            exempt: 0,
            refusing: 0,
            shutdown_waiters: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Restores the invariant: see `workers.rs`.
    pub fn next(&mut self, count_finishing: bool) -> Next {
        self.workers.next(self.queue.len(), self.queue.priority_len(), count_finishing)
    }

    /// What a worker that has no job is to do.
    pub fn look(&mut self, ready: &mut Ready) -> Look {
        ready.surplus = self.workers.has_surplus();
        if let Some(job) = self.queue.take_priority(ready).or_else(|| self.queue.take(ready)) {
            return Look::Run(job, self.next(false));
        }
        if !self.closed && !self.workers.is_spare() {
            return Look::Rest;
        }
        self.workers.threads -= 1;
        self.leaving += 1;
        ready.surplus = self.workers.has_surplus();
        Look::End(self.finished_waiters())
    }

    /// A thread could not be started. Gives back what nobody will ever take, or not soon enough.
    pub fn not_started(&mut self, ready: &mut Ready) -> (Vec<Started>, Next, Waiters) {
        self.workers.starting -= 1;
        self.workers.threads -= 1;
        let orphans = if self.workers.threads == 0 {
            self.queue.take_all(ready)
        } else if self.workers.leave_in_vain(self.queue.priority_len()) {
            self.queue.take_all_priority()
        } else {
            Vec::new()
        };
        self.refuse(&orphans);
        // Not another start: it might go on like that for ever.
        let next = if self.workers.idle.is_empty() { Next::Leave } else { self.next(false) };
        (orphans, next, self.finished_waiters())
    }

    /// These are going to be refused, by the calling thread.
    pub fn refuse(&mut self, jobs: &[Started]) {
        self.counters.cancelled += jobs.iter().filter(|job| !job.is_turn()).count() as u64;
        self.refusing += usize::from(!jobs.is_empty());
    }

    /// Whether a closed pool has finished, but for jobs that are being refused. From inside, those that wait for it do not
    /// count.
    pub fn has_finished(&self, inside: bool) -> bool {
        let is_quiet =
            if inside { self.workers.busy() <= self.exempt } else { self.workers.threads + self.leaving == 0 };
        is_quiet && self.queue.len() == 0
    }

    /// Those that wait, if the pool may have finished: either kind of waiter looks again.
    pub fn finished_waiters(&mut self) -> Waiters {
        let finished = self.closed && (self.has_finished(true) || self.has_finished(false));
        Waiters(if finished { mem::take(&mut self.shutdown_waiters) } else { Vec::new() })
    }
}
