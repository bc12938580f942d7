//! The workers of a pool: how many are in which stage, and which to wake or start when jobs wait. An *entry* of the
//! queue is a job or a turn of a stream. `queue.rs` explains `Ready`, and the turns that have priority.
//!
//! # Stages
//! | stage | the worker | next stages |
//! |---|---|---|
//! | Starting | is a new thread, or runs the start hook | Active, Held, Exempt; Ended, if the system refuses the thread |
//! | Held | sleeps in the start hook, in a blocking call of this crate | Starting, Exempt |
//! | Active | runs a job, or is looking at the queue under the locks | Searching, Blocked, Exempt, Idle, Ended |
//! | Searching | has run a job, or found none, and will soon look at the queue | Active, Finishing |
//! | Finishing | runs user code after a job: a waker, or the `Drop` of a result | Active, Blocked, Exempt |
//! | Blocked | sleeps in a blocking call of this crate, in a job or in user code after it | Active, Exempt |
//! | Exempt | runs user code that waits, or has waited, for the pool to finish | Searching, Active |
//! | Idle | waits on its condvar | Woken; Ended, after `keep_alive` |
//! | Woken | has been woken, and is about to look at the queue | Active |
//! | Ended | takes no more jobs | |
//!
//! A worker that knows of more entries in `Ready` stays Active after its job, also while it runs user code. A searching
//! worker looks at the queue soon, or becomes finishing. A finishing worker looks at the queue only after user code,
//! which may take long. The *active* workers are those in the stages Starting, Woken, Searching, Finishing and Active.
//! At most `size` workers may be active; more after blocked, held or exempt workers go on, or for a turn with priority.
//! While more than `size` workers are active, not counting the starting ones, no worker takes a job. (Exception: after
//! a worker was woken for a turn with priority, or because the pool was closed, a worker that knows of more entries in
//! `Ready` may take some until the woken worker has looked at the queue.) A held worker is not active, so another
//! thread may be started in its place. While two workers are held, no thread beyond `size` is started: it would run the
//! same hook.
//!
//! # The invariant
//! After every step under the lock of the state, one of these holds for the entries that wait:
//!
//! * A worker has been woken. This worker will look at the queue, and then wake the next worker.
//! * At least as many workers are searching or starting as entries wait.
//! * At least as many workers are searching or finishing as entries wait, and the submitter will look again
//!   ([`Next::Recheck`]).
//! * At least `size` workers are active. The first to end its job while there is no surplus (`has_surplus`) takes the
//!   next entry. If a turn with priority waits, a worker is searching or starting.
//! * No worker is idle, and no thread can be started: there are too many, two workers are held, or the system has just
//!   refused a thread. In this case turns with priority are not queued, or are taken out and refused.
//!
//! [`Workers::decide`] restores the invariant. Each step that adds a job calls it, and so does each step that takes a
//! job after a look at the whole queue, that blocks, or that stops searching.
//!
//! Workers are woken one at a time: several would contend for the lock, and when jobs are short, the first has often
//! run them all before a second arrives. The most recently idle worker is woken first, so that a trickle of jobs lets
//! the others end.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::mem;

use crate::sync::{Arc, Condvar};

/// The step that the calling thread is to take once the lock is free.
#[must_use = "a job may be waiting for it"]
pub enum Next {
    /// Nothing is to be done: the invariant holds.
    Leave,
    /// Notify this idle worker.
    Wake(Arc<Condvar>),
    /// Start this number of threads.
    Start(usize),
    /// Workers that are finishing may soon take the entries: yield, and ask again.
    Recheck,
}

/// The stage of a worker: see the head. The stages up to `Active` are those that count as active.
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
    /// The condvars of the idle workers. The worker that went idle last is at the end.
    idle: Vec<Arc<Condvar>>,
    /// How many workers may be active.
    size: usize,
    /// How many workers there may be in all stages but `Ended`.
    max_threads: usize,
}

impl Workers {
    pub fn new(size: usize, max_threads: usize) -> Self {
        Self { counts: Default::default(), idle: Vec::new(), size, max_threads }
    }

    /// How many workers may be active.
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn count(&self, stage: Stage) -> usize {
        self.counts[stage as usize]
    }

    /// How many workers are active: see the head.
    fn active(&self) -> usize {
        self.counts[..=Stage::Active as usize].iter().sum()
    }

    /// How many workers there are, except those that have ended.
    pub fn threads(&self) -> usize {
        self.counts[..Stage::Ended as usize].iter().sum()
    }

    /// Whether more workers are active than may be. Starting workers do not count here: one may stay in its start hook
    /// for long, and the others must take jobs meanwhile.
    pub fn has_surplus(&self) -> bool {
        self.active() - self.count(Stage::Starting) > self.size
    }

    /// Whether a worker that finds nothing to do is to end: more than `size` are active or idle, since some were
    /// started in place of blocked or held ones, or for a turn with priority.
    pub fn is_spare(&self) -> bool {
        self.active() + self.count(Stage::Idle) > self.size
    }

    /// How many threads may still be started. While two workers are held, no more than `size` in all: a new one would
    /// run the same hook.
    fn startable(&self) -> usize {
        let max_threads = if self.count(Stage::Held) > 1 { self.size } else { self.max_threads };
        max_threads.saturating_sub(self.threads())
    }

    /// Restores the invariant. `waiting` entries wait; `priority` of these are turns with priority. With
    /// `count_finishing`, the result may be [`Next::Recheck`]: the caller can look again.
    pub fn decide(&mut self, waiting: usize, priority: usize, count_finishing: bool) -> Next {
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
            self.shift(Stage::Idle, Stage::Woken);
            return Next::Wake(condvar);
        }
        let starts = left.saturating_sub(starting).min(room).min(self.startable());
        if starts == 0 {
            return Next::Leave;
        }
        self.counts[Stage::Starting as usize] += starts;
        Next::Start(starts)
    }

    /// Whether each of the `waiting` turns with priority will soon get a worker of its own, so that no turn waits for
    /// the user code of another turn. `can_start`: the system has not just refused a thread. A searching worker does
    /// not count, since it may become finishing and run user code first.
    pub fn will_take_priority(&self, waiting: usize, can_start: bool) -> bool {
        let coming = [Stage::Woken, Stage::Starting, Stage::Idle].map(|stage| self.count(stage)).iter().sum::<usize>();
        waiting <= coming + if can_start { self.startable() } else { 0 }
    }

    fn shift(&mut self, from: Stage, to: Stage) {
        self.counts[from as usize] -= 1;
        self.counts[to as usize] += 1;
    }

    /// The calling worker, which is in the stage `own`, goes to another stage.
    pub fn recount(&mut self, own: &Cell<Stage>, to: Stage) {
        self.shift(own.replace(to), to);
    }

    /// The system has refused a thread: a starting worker ends.
    pub fn start_refused(&mut self) {
        self.shift(Stage::Starting, Stage::Ended);
    }

    /// The calling worker goes to sleep on its condvar, until it is woken or its idle time ends. A thread that wakes
    /// the worker counts it as woken; the worker itself notes this in `own` when it runs again.
    pub fn go_idle(&mut self, own: &Cell<Stage>, condvar: &Arc<Condvar>) {
        self.idle.push(condvar.clone());
        self.recount(own, Stage::Idle);
    }

    /// Whether the worker is still idle: it has not been woken.
    pub fn is_idle(&self, condvar: &Arc<Condvar>) -> bool {
        self.idle.iter().any(|idle| Arc::ptr_eq(idle, condvar))
    }

    /// The idle time of the calling worker is over: it ends.
    pub fn time_out(&mut self, own: &Cell<Stage>, condvar: &Arc<Condvar>) {
        self.idle.retain(|idle| !Arc::ptr_eq(idle, condvar));
        self.recount(own, Stage::Ended);
    }

    /// The pool is closed: wakes all idle workers, which look at the queue, and then end.
    #[must_use = "these workers are to be notified"]
    pub fn wake_all(&mut self) -> Vec<Arc<Condvar>> {
        self.counts[Stage::Woken as usize] += mem::take(&mut self.counts[Stage::Idle as usize]);
        mem::take(&mut self.idle)
    }
}
