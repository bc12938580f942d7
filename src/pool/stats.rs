//! The figures of a pool: reported, never decided on.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::primitives::job::Progress;
use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::Relaxed;

/// Counted under the lock of the pool's state.
#[derive(Default)]
pub struct Counters {
    pub submitted: u64,
    pub cancelled: u64,
    /// Jobs that were started by the thread that waits for them.
    pub ran_inline: u64,
    pub busy: Duration,
    pub waited: Duration,
}

/// Counted by the threads that ran the jobs, before the handles resolve.
#[derive(Default)]
pub struct EndedJobs {
    pub succeeded: AtomicU64,
    pub panicked: AtomicU64,
    /// Jobs that were cut short after they had started.
    pub cancelled: AtomicU64,
    turns: AtomicU64,
}

impl EndedJobs {
    pub fn all(&self) -> u64 {
        // ORDERING: Relaxed: a report. No job ends before it was counted as started.
        [&self.succeeded, &self.panicked, &self.cancelled, &self.turns]
            .map(|counter| counter.load(Relaxed))
            .iter()
            .sum()
    }

    /// Counts a job that has ended.
    pub fn count(&self, progress: Progress) {
        let counter = match progress {
            Progress::Succeeded => &self.succeeded,
            Progress::Panicked => &self.panicked,
            Progress::Cancelled => &self.cancelled,
            Progress::TurnOver => &self.turns,
            Progress::UserCode => return,
        };
        // ORDERING: Relaxed: the job's result is published after this, so a thread that sees the result sees the count.
        counter.fetch_add(1, Relaxed);
    }
}

/// The figures of a pool: what it has done, and what it does now. From [`ThreadPool::stats`](crate::ThreadPool::stats).
///
/// `submitted` is the sum of the jobs that are queued, that run, and that have succeeded, panicked or been cancelled.
/// A job is counted before its handle resolves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// How many threads there are, except those that have done their last job and are about to end.
    pub threads: usize,
    /// How many of these threads have nothing to do.
    pub idle: usize,
    /// How many jobs have not started. Cancelled ones are not among them.
    pub queued: usize,
    /// How many jobs have been submitted, including those that the closed pool refused.
    pub submitted: u64,
    /// How many jobs have returned.
    pub succeeded: u64,
    /// How many jobs have panicked.
    pub panicked: u64,
    /// How many jobs will never run, since they were cancelled, refused, or left without a thread. Also counts the jobs
    /// that were cut short in a [`sync_await`](crate::sync_await()).
    pub cancelled: u64,
    /// The total time that jobs have run, counted when each job ends. Zero unless the pool is
    /// [timed](crate::ThreadPoolBuilder::timed).
    pub busy: Duration,
    /// The total time that the jobs counted in `busy` had been queued.
    pub waited: Duration,
}

/// Some jobs were still running. From [`ThreadPool::shutdown_timeout`](crate::ThreadPool::shutdown_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownTimeout {
    /// How many jobs and iterables. If the call was made on a thread of the pool, jobs that wait for the pool do not
    /// count.
    pub running: usize,
}

impl_error!(ShutdownTimeout: Self { running } =>
    "{running} jobs still ran when the time was up: allow more time, or have them ask `is_cancelled()`"
);
