//! The workers of a pool: what each of them does, and whom to wake or start for the jobs that wait.
//!
//! # Stages
//! ```text
//!   Held <-> Starting --> Active <------> Blocked     the start hook, or the job, sleeps in a blocking call of this crate
//!                         ^ |  ^ \
//!                   job   | |   \ +-----> Exempt      the worker's job waits for the pool to finish
//!                         | v    \
//!                     Searching   Woken <--- Idle --> Ended     the worker waits on its condvar; its time is up
//!                         |
//!                         v  a waker or a `Drop` of the user runs
//!                     Finishing
//! ```
//! *Searching* workers are certain to look at the queue soon. *Finishing* workers look at it after user code that may take
//! long. Both, and those that are *Starting* or *Woken*, count as active like the ones that run a job. At most `size` workers
//! may be active. When blocked workers come back there may be more; the surplus takes no jobs, and ends. One thread is started
//! in the place of a worker that is *held* up in its start hook; not for each of several, since all threads run that hook.
//!
//! # The invariant
//! After every step under the lock of the state, each entry that waits has a worker that will take it, or none could:
//!
//! * a worker is `Woken`: it looks at the queue when it arrives; or
//! * at least as many workers are searching or starting as entries wait; or, if finishing ones are counted as well, the
//!   submitter looks again ([`Next::Recheck`]); or
//! * `size` workers are active: the first that ends its job takes the next. For a turn with priority that is not enough; or
//! * nobody is idle, and there is no room for one more thread, or the system has just refused one. Then turns with priority
//!   are given back to the threads that submitted them.
//!
//! [`Workers::next`] restores it. Every step that adds a job, takes one after a wake, blocks, or stops searching calls it.
//!
//! Workers are woken one at a time, and the one that arrives wakes the next: several workers at one lock get into each
//! other's way, and when jobs are short, the first has often done them all by then. The most recently idle worker is woken
//! first, so that a trickle of jobs lets the others end.
#![forbid(unsafe_code)]

use std::mem;

use crate::sync::{Arc, Condvar};

/// The worker that a thread is to wake, or the threads that it is to start, once the lock is free.
#[must_use = "a job may be waiting for it"]
pub enum Next {
    /// Each entry has a worker that will take it, or none could.
    Leave,
    /// Notify this idle worker.
    Wake(Arc<Condvar>),
    /// Start so many threads.
    Start(usize),
    /// The entries are left to workers that are finishing: yield, and ask again.
    Recheck,
}

/// What a worker does: see the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Starting,
    Woken,
    Searching,
    Finishing,
    Active,
    Idle,
    Blocked,
    Held,
    Exempt,
    Ended,
}

/// See the head.
pub struct Workers {
    /// How many workers are in each stage.
    counts: [usize; Stage::Ended as usize + 1],
    /// The idle ones, the last to go idle at the end.
    idle: Vec<Arc<Condvar>>,
    /// How many may be active.
    size: usize,
    /// How many there may be, blocked ones included.
    max_threads: usize,
}

impl Workers {
    pub fn new(size: usize, max_threads: usize) -> Self {
        Self { counts: Default::default(), idle: Vec::new(), size, max_threads }
    }

    /// How many may be active.
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn count(&self, stage: Stage) -> usize {
        self.counts[stage as usize]
    }

    fn active(&self) -> usize {
        self.counts[..=Stage::Active as usize].iter().sum()
    }

    /// All of them.
    pub fn threads(&self) -> usize {
        self.counts[..Stage::Ended as usize].iter().sum()
    }

    /// Whether more are active than may be.
    pub fn has_surplus(&self) -> bool {
        self.active() > self.size
    }

    /// Whether a worker that finds nothing to do is not needed any more: it was started in the place of a blocked one.
    pub fn is_spare(&self) -> bool {
        self.active() + self.count(Stage::Idle) > self.size
    }

    /// Restores the invariant for so many entries that wait, of which some have priority. `count_finishing`: whether the
    /// caller can look again.
    pub fn next(&mut self, waiting: usize, priority: usize, count_finishing: bool) -> Next {
        let (starting, searching) = (self.count(Stage::Starting), self.count(Stage::Searching));
        let left = waiting.saturating_sub(searching);
        // For priority a spare worker, if none is about to look. It wakes the next.
        let spare = usize::from(priority > 0 && searching + starting == 0);
        let room = self.size.saturating_sub(self.active()).max(spare);
        if self.count(Stage::Woken) > 0 || left == 0 || room == 0 {
            return Next::Leave;
        }
        if count_finishing && left <= self.count(Stage::Finishing) && priority == 0 {
            return Next::Recheck;
        }
        if let Some(condvar) = self.idle.pop() {
            self.recount(Stage::Idle, Stage::Woken);
            return Next::Wake(condvar);
        }
        let starts = left.saturating_sub(starting).min(room).min(self.max_threads - self.threads());
        if starts == 0 || self.count(Stage::Held) > 1 {
            return Next::Leave;
        }
        self.counts[Stage::Starting as usize] += starts;
        Next::Start(starts)
    }

    /// Whether some worker can take a turn with priority beside those that wait already. (A searching one does not count: it
    /// may have to do something else first.)
    pub fn can_take_priority(&self, waiting: usize) -> bool {
        let can_come =
            [Stage::Woken, Stage::Starting, Stage::Idle].map(|stage| self.count(stage)).iter().sum::<usize>();
        waiting < can_come + self.max_threads - self.threads()
    }

    /// Whether so many turns with priority wait in vain.
    pub fn leave_in_vain(&self, priority: usize) -> bool {
        let [woken, idle, searching, starting] =
            [Stage::Woken, Stage::Idle, Stage::Searching, Stage::Starting].map(|stage| self.count(stage));
        woken + idle == 0 && searching + starting < priority
    }

    pub fn recount(&mut self, from: Stage, to: Stage) {
        self.counts[from as usize] -= 1;
        self.counts[to as usize] += 1;
    }

    /// An active worker goes to sleep on its condvar: it will look at the queue once it was woken, or its time is up.
    pub fn go_idle(&mut self, condvar: &Arc<Condvar>) {
        self.idle.push(condvar.clone());
        self.recount(Stage::Active, Stage::Idle);
    }

    /// Whether the worker has not been woken.
    pub fn is_idle(&self, condvar: &Arc<Condvar>) -> bool {
        self.idle.iter().any(|idle| Arc::ptr_eq(idle, condvar))
    }

    /// The time of an idle worker is up: it ends.
    pub fn time_out(&mut self, condvar: &Arc<Condvar>) {
        self.idle.retain(|idle| !Arc::ptr_eq(idle, condvar));
        self.recount(Stage::Idle, Stage::Ended);
    }

    /// The pool is closed: those that are idle are to look at the queue, or to end.
    #[must_use = "they are to be notified"]
    pub fn wake_all(&mut self) -> Vec<Arc<Condvar>> {
        self.counts[Stage::Woken as usize] += mem::take(&mut self.counts[Stage::Idle as usize]);
        mem::take(&mut self.idle)
    }
}
