//! A thread of a pool, from its start to its end.
//!
//! ```text
//!                  +----------------- its job has ended --------------------+
//!                  v                                                        |  sleeps
//! STARTING ---> LOOKING --- a job waits, and there is no surplus -------> RUNNING <-----> BLOCKED
//!                ^   |  \                                                           wakes up
//!          woken |   |   \--- the pool is closed, or this is a spare thread that is not needed ---+
//!                |   v                                                                            v
//!                IDLE ------------ not woken for `keep_alive` ---------------------------------> ENDED
//! ```
//!
//! 1. A worker counts as searching from just before its job's handle resolves until it has looked at the queue; so whoever
//!    submits a job as soon as the one before has resolved is served by the same thread. While it runs a waker, or drops a
//!    result that nobody wants, it counts as finishing.
//! 2. A worker that finds nothing yields for a moment, still searching, and then goes idle. An idle worker waits on a condvar
//!    of its own, under the lock of the pool's state. The thread that wakes it takes it out of the list of idle workers,
//!    which is how it knows that it was woken.
//! 3. While a job, or the start hook, sleeps in the parker, its worker counts as blocked: another thread may run jobs.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr;
use std::rc::Rc;
use std::time::Instant;

use crate::pool::Shared;
use crate::pool::state::Look;
use crate::pool::workers::{Counted, WorkerId, Workers};
use crate::primitives::backoff::Backoff;
use crate::primitives::job::{Progress, Started};
use crate::primitives::join_error::{JoinError, catch_and_discard};
use crate::primitives::parker::{Blocking, set_blocking_hook};
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{self, Arc, Condvar, thread, thread_local};

/// One of a pool's threads, as it knows itself.
pub struct Worker {
    pub shared: Arc<Shared>,
    id: WorkerId,
    counted: Cell<Counted>,
    /// There were more jobs at hand when it took its own, so it goes on with the next one without asking.
    has_more: Cell<bool>,
    /// Its job waits for the pool to finish, which does not wait for this job.
    exempt: Cell<bool>,
    /// It will run no job any more.
    ending: Cell<bool>,
    /// Where its stack begins.
    stack: usize,
}

thread_local! {
    /// Set while the thread may run jobs.
    static WORKER: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
}

impl Worker {
    /// The worker of this thread.
    pub fn current() -> Option<Rc<Self>> {
        WORKER.try_with(|worker| worker.borrow().clone()).ok().flatten()
    }

    /// The worker of this thread, if it is one of that pool.
    pub fn of(shared: &Arc<Shared>) -> Option<Rc<Self>> {
        Self::current().filter(|worker| Arc::ptr_eq(&worker.shared, shared))
    }

    /// Starts a worker that has been counted.
    pub fn start(shared: &Arc<Shared>) {
        let mut builder = thread::Builder::new().name(shared.name.clone());
        if let Some(size) = shared.stack_size {
            builder = builder.stack_size(size);
        }
        let started = builder.spawn({
            let shared = shared.clone();
            move || Self::run(&shared)
        });
        let Err(error) = started else { return };
        let (mut ready, mut state) = shared.lock();
        let (orphans, next, waiters) = state.not_started(&mut ready);
        drop((ready, state));
        waiters.wake();
        Shared::go_on(shared, next);
        if !orphans.is_empty() {
            // An `io::Error` cannot be copied; each job gets one of its own.
            let copy = || error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            shared.refusing(|| orphans.into_iter().for_each(|job| job.refuse(JoinError::NoThread(copy()))));
        }
    }

    /// What its thread does.
    fn run(shared: &Arc<Shared>) {
        let local = 0_u8;
        let worker = Rc::new(Self {
            shared: shared.clone(),
            id: shared.state.lock().workers.register_worker(),
            counted: Cell::new(Counted::Starting),
            has_more: Cell::new(false),
            exempt: Cell::new(false),
            ending: Cell::new(false),
            stack: ptr::from_ref(&local).addr(),
        });
        WORKER.with(|current| current.replace(Some(worker.clone())));
        set_blocking_hook(Some(blocking_hook));
        if let Some(hook) = &shared.on_thread_start {
            catch_and_discard(hook);
        }
        let (condvar, mut backoff) = (Arc::default(), Backoff::NEW);
        while let Some(job) = worker.next_job(&condvar, &mut backoff) {
            job.run(&mut |progress| worker.note(progress));
        }
        set_blocking_hook(None);
        if let Some(hook) = &shared.on_thread_stop {
            catch_and_discard(hook);
        }
        WORKER.with(RefCell::take);
        let mut state = shared.state.lock();
        state.leaving -= 1;
        let waiters = state.finished_waiters();
        drop(state);
        waiters.wake();
    }

    /// Waits for a job. `None`: the thread is to end.
    fn next_job(&self, condvar: &Arc<Condvar>, backoff: &mut Backoff) -> Option<Started> {
        let shared = &*self.shared;
        let mut counted = self.counted.take();
        if self.has_more.get() && !self.exempt.get() {
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
            state.workers.recount(counted, Counted::Active);
            state.exempt -= usize::from(self.exempt.take());
            match state.look(&mut ready) {
                Look::Run(job, next) => {
                    self.has_more.set(ready.has_more());
                    drop((ready, state));
                    Shared::go_on(&self.shared, next);
                    return Some(job);
                }
                Look::End(waiters) => {
                    self.ending.set(true);
                    drop((ready, state));
                    waiters.wake();
                    return None;
                }
                Look::Rest => {}
            }
            // ORDERING: Relaxed: a hint; the entries are behind the lock.
            shared.has_entries.store(false, Relaxed);
            if !has_spun && !backoff.is_spent() {
                counted = Counted::Searching;
                state.workers.recount(Counted::Active, counted);
                drop((ready, state));
                // Without pauses: during a yield, a submitter adds several jobs, and they meet at the lock once.
                // ORDERING: Relaxed: as above.
                backoff.spin(0, None, || shared.has_entries.load(Relaxed));
                has_spun = true;
                continue;
            }
            state.queue.shrink(&mut ready);
            drop(ready);
            state.workers.go_idle(self.id, condvar);
            let start = Instant::now();
            let deadline = start.checked_add(shared.keep_alive);
            while state.workers.is_idle(self.id) {
                if deadline.is_some_and(sync::is_past) {
                    state.workers.time_out(self.id);
                    state.leaving += 1;
                    self.ending.set(true);
                    return None;
                }
                state = shared.state.wait(state, condvar, deadline);
            }
            state.workers.wake_pending = false;
            drop(state);
            backoff.slept(start.elapsed(), true);
            (counted, has_spun) = (Counted::Active, false);
        }
    }

    /// Its job has come so far.
    fn note(&self, progress: Progress) {
        let shared = &self.shared;
        if progress == Progress::UserCode {
            if self.counted.get() == Counted::Searching {
                let mut state = shared.state.lock();
                self.recount(&mut state.workers, Counted::Finishing);
                let next = state.next(false);
                drop(state);
                Shared::go_on(shared, next);
            }
        } else {
            shared.ended.count(progress);
            if !self.has_more.get() {
                self.recount(&mut shared.state.lock().workers, Counted::Searching);
            }
        }
    }

    fn recount(&self, workers: &mut Workers, to: Counted) {
        workers.recount(self.counted.replace(to), to);
    }

    /// From here on, the job of this worker waits for the pool to finish.
    pub fn become_exempt(&self) {
        if self.ending.get() || self.exempt.replace(true) {
            return;
        }
        let mut state = self.shared.state.lock();
        state.exempt += 1;
        let waiters = state.finished_waiters();
        drop(state);
        waiters.wake();
    }

    /// Whether a job may run inside this worker's job: three quarters of the stack are for what that job calls.
    pub fn has_stack(&self) -> bool {
        let local = 0_u8;
        self.stack.abs_diff(ptr::from_ref(&local).addr()) < self.shared.inline_stack
    }
}

/// This thread's job goes to sleep, or is awake again.
fn blocking_hook(blocking: Blocking) {
    let Some(worker) = Worker::current() else { return };
    match blocking {
        Blocking::Enter => {
            let mut state = worker.shared.state.lock();
            worker.recount(&mut state.workers, Counted::Active);
            state.workers.blocked += 1;
            let next = state.next(false);
            drop(state);
            Shared::go_on(&worker.shared, next);
        }
        Blocking::Exit => {
            let (mut ready, mut state) = worker.shared.lock();
            state.workers.blocked -= 1;
            ready.surplus = state.workers.has_surplus();
        }
    }
}
