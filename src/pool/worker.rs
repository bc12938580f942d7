//! One thread of a pool, from its start to its end. `workers.rs` explains the stages.
//!
//! ```text
//!              +----------------- the job has ended ------------------------+
//!              v                                                            |      sleeps
//! start ---> look --- a job waits, and there is no surplus -------------> run it <-----------> blocked
//!            ^  |  \                                                              wakes up
//!      woken |  |   +--- the pool is closed, or more than `size` are active or idle ---------+
//!            |  v                                                                            v
//!            idle ------------ not woken for `keep_alive` ---------------------------------> end
//! ```
//!
//! 1. A worker counts as searching from just before its job's handle resolves until the worker has looked at the queue.
//!    So a job that is submitted when the previous job has resolved runs on the same thread. While the worker runs a
//!    waker, or drops a result that nobody wants, the worker counts as finishing. A worker that knows of more entries
//!    in `Ready` (`has_more`) skips both stages and stays active.
//! 2. A worker that finds nothing yields for a moment, still searching, and then goes idle. An idle worker waits on a
//!    condvar of its own, with the lock of the pool's state. A thread that wakes the worker takes the worker out of the
//!    list of idle workers. If the worker is still in the list when it wakes up, its idle time is over, or the wake-up
//!    was spurious.
//! 3. While a job sleeps in the parker, its worker counts as blocked; while the start hook does, as held. Meanwhile
//!    another thread may run jobs.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr;
use std::rc::Rc;
use std::time::Instant;

use crate::pool::workers::{Next, Stage};
use crate::pool::{Shared, State};
use crate::primitives::backoff::Backoff;
use crate::primitives::job::{Progress, Started};
use crate::primitives::join_error::{JoinError, catch_and_discard};
use crate::primitives::parker::{Blocking, set_blocking_hook};
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{self, Arc, Condvar, MutexGuard, thread, thread_local};

/// The worker of a pool's thread, for code on that thread.
pub struct Worker {
    pub shared: Arc<Shared>,
    stage: Cell<Stage>,
    /// More entries were in `Ready` when this worker took its job: it takes the next one without the lock of the state.
    has_more: Cell<bool>,
    /// The address where the thread's stack begins.
    stack: usize,
}

thread_local! {
    static WORKER: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
    /// The address of the pool that started this thread. Destructors of thread-locals can read it too.
    static POOL: Cell<usize> = const { Cell::new(0) };
}

/// Whether this pool has started the calling thread.
pub fn is_thread_of(shared: &Arc<Shared>) -> bool {
    POOL.with(Cell::get) == Arc::as_ptr(shared).addr()
}

impl Worker {
    /// The worker of this thread.
    pub fn current() -> Option<Rc<Self>> {
        WORKER.try_with(|worker| worker.borrow().clone()).ok().flatten()
    }

    /// The worker of this thread, if this thread belongs to that pool.
    pub fn of(shared: &Arc<Shared>) -> Option<Rc<Self>> {
        Self::current().filter(|worker| Arc::ptr_eq(&worker.shared, shared))
    }

    /// Starts the thread of a worker that has been counted as starting.
    pub fn start(shared: &Arc<Shared>) {
        let mut builder = thread::Builder::new().name(shared.settings.name.clone());
        if let Some(size) = shared.settings.stack_size {
            builder = builder.stack_size(size);
        }
        let mut handles = shared.handles.lock();
        let started = builder.spawn({
            let shared = shared.clone();
            move || Self::run(&shared)
        });
        let error = match started {
            Ok(handle) => return handles.unjoined.push(handle),
            Err(error) => error,
        };
        drop(handles);
        let mut state = shared.state.lock();
        state.workers.start_refused();
        state.wake_waiters();
        // Wakes at most an idle worker: another start might fail again, without end.
        let next = if state.workers.count(Stage::Idle) == 0 { Next::Leave } else { state.decide(false) };
        drop(state);
        Shared::act_on(shared, next);
        // An `io::Error` cannot be copied; each job gets one of its own.
        let copy = || error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        shared.refuse(|| JoinError::NoThread(copy()), State::take_orphan);
    }

    /// The code of the worker's thread.
    fn run(shared: &Arc<Shared>) {
        let local = 0_u8;
        let worker = Rc::new(Self {
            shared: shared.clone(),
            stage: Cell::new(Stage::Starting),
            has_more: Cell::new(false),
            stack: ptr::from_ref(&local).addr(),
        });
        POOL.with(|pool| pool.set(Arc::as_ptr(shared).addr()));
        WORKER.with(|current| current.replace(Some(worker.clone())));
        set_blocking_hook(Some(blocking_hook));
        if let Some(hook) = &shared.settings.on_thread_start {
            catch_and_discard(hook);
        }
        let (condvar, mut backoff) = (Arc::default(), Backoff::NEW);
        while let Some(job) = worker.next_job(&condvar, &mut backoff) {
            job.run(&mut |progress| worker.note(progress));
        }
        set_blocking_hook(None);
        if let Some(hook) = &shared.settings.on_thread_stop {
            catch_and_discard(hook);
        }
        WORKER.with(RefCell::take);
        shared.thread_leaves();
    }

    /// Waits for a job. `None`: the thread is to end.
    fn next_job(&self, condvar: &Arc<Condvar>, backoff: &mut Backoff) -> Option<Started> {
        let shared = &*self.shared;
        if self.has_more.get() && self.stage.get() == Stage::Active {
            let mut ready = shared.ready.lock();
            let job = ready.take();
            self.has_more.set(ready.has_more());
            if job.is_some() {
                return job;
            }
        }
        let mut has_spun = false;
        loop {
            let (mut ready, mut state) = shared.lock();
            state.workers.recount(&self.stage, Stage::Active);
            state.pause_surplus(&mut ready);
            if let Some(job) = state.queue.take(&mut ready) {
                let next = state.decide(false);
                self.has_more.set(ready.has_more());
                drop((ready, state));
                Shared::act_on(&self.shared, next);
                return Some(job);
            }
            if state.closing.closed || state.workers.is_spare() {
                state.workers.recount(&self.stage, Stage::Ended);
                state.pause_surplus(&mut ready);
                state.wake_waiters();
                return None;
            }
            // ORDERING: Relaxed: a hint; the entries are behind the lock.
            shared.has_entries.store(false, Relaxed);
            if has_spun || backoff.is_spent() {
                state.queue.shrink(&mut ready);
                drop(ready);
                if !self.wait_idle(state, condvar, backoff) {
                    return None;
                }
            } else {
                state.workers.recount(&self.stage, Stage::Searching);
                drop((ready, state));
                // Without pauses: during one yield a submitter can add several jobs, so this worker and the submitter
                // contend for the lock once, not once for each job.
                // ORDERING: Relaxed: as above.
                backoff.spin(0, None, || shared.has_entries.load(Relaxed));
            }
            has_spun = self.stage.get() == Stage::Searching;
        }
    }

    /// Waits on the condvar until this worker is woken. False: its idle time is over, and it has ended.
    fn wait_idle<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        condvar: &Arc<Condvar>,
        backoff: &mut Backoff,
    ) -> bool {
        let start = Instant::now();
        let deadline = start.checked_add(self.shared.settings.keep_alive);
        state.workers.go_idle(&self.stage, condvar);
        while state.workers.is_idle(condvar) {
            if deadline.is_some_and(sync::is_past) {
                state.workers.time_out(&self.stage, condvar);
                return false;
            }
            state = condvar.wait(&self.shared.state, state, deadline);
        }
        drop(state);
        self.stage.set(Stage::Woken);
        backoff.waited(start.elapsed(), true);
        true
    }

    /// Counts a job that has ended, and updates the stage, at a step in the run of this worker's job.
    fn note(&self, progress: Progress) {
        let shared = &self.shared;
        if progress != Progress::UserCode {
            shared.ended.count(progress);
            if !self.has_more.get() || self.stage.get() == Stage::Exempt {
                shared.state.lock().workers.recount(&self.stage, Stage::Searching);
            }
        } else if self.stage.get() == Stage::Searching {
            self.leave_queue(Stage::Finishing);
        }
    }

    /// This worker goes to a stage in which it will not look at the queue soon: other workers must take the entries.
    fn leave_queue(&self, to: Stage) {
        let mut state = self.shared.state.lock();
        state.workers.recount(&self.stage, to);
        state.wake_waiters();
        let next = state.decide(false);
        drop(state);
        Shared::act_on(&self.shared, next);
    }

    /// From now on, the job, or the start hook, of this worker waits for the pool to finish.
    pub fn become_exempt(&self) {
        if !matches!(self.stage.get(), Stage::Exempt | Stage::Ended) {
            self.leave_queue(Stage::Exempt);
        }
    }

    /// Whether a job may run inside this worker's job: at least three quarters of the stack are left.
    pub fn has_stack(&self) -> bool {
        let local = 0_u8;
        self.stack.abs_diff(ptr::from_ref(&local).addr()) < self.shared.inline_stack
    }
}

/// This thread's job, or its start hook, goes to sleep or has woken up. (An exempt worker stays exempt.)
fn blocking_hook(blocking: Blocking) {
    let Some(worker) = Worker::current() else { return };
    match (blocking, worker.stage.get()) {
        (_, Stage::Exempt) => {}
        (Blocking::Enter, Stage::Starting) => {
            worker.leave_queue(Stage::Held);
            // This thread may have been started for a turn with priority.
            worker.shared.refuse(|| JoinError::Cancelled, State::take_orphan);
        }
        (Blocking::Enter, _) => worker.leave_queue(Stage::Blocked),
        (Blocking::Exit, stage) => {
            let (mut ready, mut state) = worker.shared.lock();
            state.workers.recount(&worker.stage, if stage == Stage::Held { Stage::Starting } else { Stage::Active });
            state.pause_surplus(&mut ready);
        }
    }
}
