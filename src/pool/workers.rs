//! The workers of a pool: who is idle, and whom to wake for the jobs that wait.
//!
//! # Counts
//! A worker is *idle* (it waits on its condvar, and stands in `idle`), *blocked* (its job sleeps in a blocking call of this
//! crate), or *active*. An active worker runs a job; or it is *starting*; or *searching*: it is certain to look at the queue
//! soon; or *finishing*: its job has ended, and it runs a waker or a `Drop` of the user before it looks at the queue. Jobs are
//! taken only while there are not more active workers than `size`. So when blocked workers come back, the surplus ends as soon
//! as its jobs have.
//!
//! # The invariant
//! After every step under the lock of the state, each entry that waits has a worker that will take it, or none could:
//!
//! * `wake_pending` is set: a worker has been woken, and will look at the queue when it arrives; or
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

/// What a worker is counted as while it has a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counted {
    /// As active.
    #[default]
    Active,
    Starting,
    Searching,
    Finishing,
}

/// See the head.
pub struct Workers {
    /// Those that have not been woken, the last to go idle at the end.
    pub idle: Vec<(WorkerId, Arc<Condvar>)>,
    /// All of them: idle, blocked and active.
    pub threads: usize,
    pub blocked: usize,
    pub starting: usize,
    searching: usize,
    finishing: usize,
    /// A worker has been woken and has not arrived yet.
    pub wake_pending: bool,
    /// How many may be active.
    size: usize,
    /// How many threads there may be, blocked ones included.
    max_threads: usize,
    next_id: u64,
}

/// Tells the workers of a pool apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId(u64);

impl Workers {
    pub fn new(size: usize, max_threads: usize) -> Self {
        Self {
            idle: Vec::new(),
            threads: 0,
            blocked: 0,
            starting: 0,
            searching: 0,
            finishing: 0,
            wake_pending: false,
            size,
            max_threads,
            next_id: 0,
        }
    }

    /// How many have a job, or look for one.
    pub fn busy(&self) -> usize {
        self.threads - self.idle.len()
    }

    fn active(&self) -> usize {
        self.busy() - self.blocked
    }

    /// Whether more are active than may be.
    pub fn has_surplus(&self) -> bool {
        self.active() > self.size
    }

    /// Whether a worker that finds nothing to do is not needed any more: it was started in the place of a blocked one.
    pub fn is_spare(&self) -> bool {
        self.threads - self.blocked > self.size
    }

    /// Restores the invariant for so many entries that wait, of which some have priority. `count_finishing`: whether the
    /// caller can look again.
    pub fn next(&mut self, waiting: usize, priority: usize, count_finishing: bool) -> Next {
        let left = waiting.saturating_sub(self.searching);
        // For priority a spare worker, if none is about to look. It wakes the next.
        let spare = usize::from(priority > 0 && self.searching + self.starting == 0);
        let room = self.size.saturating_sub(self.active()).max(spare);
        if self.wake_pending || left == 0 || room == 0 {
            return Next::Leave;
        }
        if count_finishing && left <= self.finishing && priority == 0 {
            return Next::Recheck;
        }
        if let Some((_, condvar)) = self.idle.pop() {
            self.wake_pending = true;
            return Next::Wake(condvar);
        }
        let starts = left.saturating_sub(self.starting).min(room).min(self.max_threads - self.threads);
        if starts == 0 {
            return Next::Leave;
        }
        self.threads += starts;
        self.starting += starts;
        Next::Start(starts)
    }

    /// Whether some worker can take a turn with priority beside those that wait already. (A searching one does not count: it
    /// may have to do something else first.)
    pub fn can_take_priority(&self, waiting: usize) -> bool {
        let can_come = usize::from(self.wake_pending) + self.starting + self.idle.len();
        waiting < can_come + self.max_threads - self.threads
    }

    /// Whether so many turns with priority wait in vain.
    pub fn leave_in_vain(&self, priority: usize) -> bool {
        !self.wake_pending && self.idle.is_empty() && self.searching + self.starting < priority
    }

    pub fn register_worker(&mut self) -> WorkerId {
        self.next_id += 1;
        WorkerId(self.next_id)
    }

    /// Counts a worker as something else.
    pub fn recount(&mut self, from: Counted, to: Counted) {
        for (counted, by) in [(from, -1), (to, 1)] {
            let count = match counted {
                Counted::Active => continue,
                Counted::Starting => &mut self.starting,
                Counted::Searching => &mut self.searching,
                Counted::Finishing => &mut self.finishing,
            };
            *count = count.wrapping_add_signed(by);
        }
    }

    /// A worker goes to sleep: it will look at the queue once it was woken, or its time is up.
    pub fn go_idle(&mut self, worker: WorkerId, condvar: &Arc<Condvar>) {
        self.idle.push((worker, condvar.clone()));
    }

    /// Whether the worker has not been woken.
    pub fn is_idle(&self, worker: WorkerId) -> bool {
        self.idle.iter().any(|&(idle, _)| idle == worker)
    }

    /// The time of an idle worker is up: it ends.
    pub fn time_out(&mut self, worker: WorkerId) {
        self.idle.retain(|&(idle, _)| idle != worker);
        self.threads -= 1;
    }

    /// The pool is closed: those that are idle are to look at the queue, or to end.
    #[must_use = "they are to be notified"]
    pub fn wake_all(&mut self) -> Vec<Arc<Condvar>> {
        mem::take(&mut self.idle).into_iter().map(|(_, condvar)| condvar).collect()
    }
}
