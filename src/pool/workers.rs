//! The workers of a pool: how many are in which stage, and which to wake or start when jobs wait.
//!
//! # Stages
//! | stage | the worker | next stages |
//! |---|---|---|
//! | Starting | is a new thread, or runs the start hook | Active, Held, Exempt; Ended, if the system refuses the thread |
//! | Held | sleeps in the start hook, in a blocking call of this crate | Starting |
//! | Active | runs a job, or is looking at the queue under the locks | Searching, Blocked, Exempt, Idle, Ended |
//! | Searching | has run a job, or found none, and will soon look at the queue | Active, Finishing |
//! | Finishing | runs user code after a job: a waker, or the `Drop` of a result | Active, Blocked, Exempt |
//! | Blocked | sleeps in a blocking call of this crate, in a job | Active |
//! | Exempt | runs a job, or a hook, that waits for the pool to finish | Searching, Active |
//! | Idle | waits on its condvar | Woken; Ended, after `keep_alive` |
//! | Woken | has been woken, and is about to look at the queue | Active |
//! | Ended | takes no more jobs | |
//!
//! Searching workers are certain to look at the queue soon, finishing ones only after user code that may take long. At
//! most `size` workers may be active, which includes those that are starting, woken, searching or finishing. When
//! blocked workers come back there may be more: then no worker takes a job until the surplus has ended. One thread is
//! started in place of a held worker. While two are held no thread is started, since each runs the same hook.
//!
//! # The invariant
//! After every step under the lock of the state, one of these holds for the entries that wait:
//!
//! * a worker is woken: it looks at the queue when it arrives, and wakes the next; or
//! * at least as many workers are searching or starting as entries wait; or, counting the finishing ones too, the
//!   submitter looks again ([`Next::Recheck`]); or
//! * `size` workers are active, the first of which to end its job takes the next, and no turn with priority waits; or
//! * no worker is idle, and no thread can be started: there are too many, or the system has just refused one. Then
//!   turns with priority are not queued, or are taken out and refused.
//!
//! [`Workers::next`] restores it. Every step that adds a job, takes one after a look at the whole queue, blocks, or
//! stops searching calls it.
//!
//! Workers are woken one at a time: several would contend for the lock, and when jobs are short, the first has often
//! run them all before a second arrives. The most recently idle worker is woken first, so that a trickle of jobs lets
//! the others end.
#![forbid(unsafe_code)]

use std::mem;

use crate::sync::{Arc, Condvar};

/// The worker that a thread is to wake, or the threads that it is to start, once the lock is free.
#[must_use = "a job may be waiting for it"]
pub enum Next {
    /// Nothing is to be done: the invariant holds.
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

    /// Whether more are active than may be. A thread that is starting may be held up, and leaves the jobs to the others.
    pub fn has_surplus(&self) -> bool {
        self.active() - self.count(Stage::Starting) > self.size
    }

    /// Whether a worker that finds nothing to do is to end: there are too many, since some replaced blocked ones.
    pub fn is_spare(&self) -> bool {
        self.active() + self.count(Stage::Idle) > self.size
    }

    /// Restores the invariant: `waiting` entries wait, `priority` of which have priority. `count_finishing`: the caller
    /// can look again.
    pub fn next(&mut self, waiting: usize, priority: usize, count_finishing: bool) -> Next {
        let (starting, searching) = (self.count(Stage::Starting), self.count(Stage::Searching));
        let left = waiting.saturating_sub(searching);
        // A turn with priority gets one worker beyond `size`, if no worker is about to look.
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

    /// Whether each of the `waiting` turns with priority will soon get a worker, so that none waits for the user code of
    /// another. `can_start`: the system has not just refused a thread. (A searching worker does not count: it may have to
    /// run user code first.)
    pub fn will_take_priority(&self, waiting: usize, can_start: bool) -> bool {
        let coming = [Stage::Woken, Stage::Starting, Stage::Idle].map(|stage| self.count(stage)).iter().sum::<usize>();
        waiting <= coming + if can_start { self.max_threads - self.threads() } else { 0 }
    }

    pub fn recount(&mut self, from: Stage, to: Stage) {
        self.counts[from as usize] -= 1;
        self.counts[to as usize] += 1;
    }

    /// An active worker goes to sleep on its condvar, until it is woken or its idle time ends.
    pub fn go_idle(&mut self, condvar: &Arc<Condvar>) {
        self.idle.push(condvar.clone());
        self.recount(Stage::Active, Stage::Idle);
    }

    /// Whether the worker is still idle: it has not been woken.
    pub fn is_idle(&self, condvar: &Arc<Condvar>) -> bool {
        self.idle.iter().any(|idle| Arc::ptr_eq(idle, condvar))
    }

    /// The idle time of a worker is over: it ends.
    pub fn time_out(&mut self, condvar: &Arc<Condvar>) {
        self.idle.retain(|idle| !Arc::ptr_eq(idle, condvar));
        self.recount(Stage::Idle, Stage::Ended);
    }

    /// The pool is closed: wakes all idle workers, which look at the queue, and then end.
    #[must_use = "they are to be notified"]
    pub fn wake_all(&mut self) -> Vec<Arc<Condvar>> {
        self.counts[Stage::Woken as usize] += mem::take(&mut self.counts[Stage::Idle as usize]);
        mem::take(&mut self.idle)
    }
}
