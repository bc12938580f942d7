//! A pool's threads.
//!
//! ```text
//!                  +----------------- its job has ended --------------------+
//!                  v                                                        |  sleeps
//! STARTING ---> LOOKING --- a job waits, and not too many are active ---> RUNNING <-----> BLOCKED
//!                ^   |  \                                                           is woken
//!         called |   |   \--- the pool is closed, or there are more threads than are needed ---+
//!                |   v                                                                         v
//!                IDLE ------------ nobody has called it for `keep_alive` ------------------> ENDED
//! ```
//!
//! 1. A worker counts as looking from just before its job's handle resolves until it has looked. So who submits a job as
//!    soon as the one before has resolved is served by the same thread. A worker that has to drop an unwanted result
//!    first, or that blocks in the waker of whoever waits for the handle, does not count while it does.
//! 2. An idle worker waits in the parker like everybody else: it yields for a moment, then sleeps; and whoever calls it
//!    takes its waker out of the list of idle ones, which is how it knows that it has been called.
//! 3. A thread whose job, or start hook, blocks in the parker tells its pool, which may have another thread run jobs
//!    meanwhile.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use crate::pool::state::{Counted, Look, Since, Unbooked, WorkerId};
use crate::pool::{Shared, contention};
use crate::primitives::job::{self, Ended, JoinError, Started, contain};
use crate::primitives::parker::{Sleeping, poll_until, tell_around_sleep};
use crate::primitives::share::Share;
use crate::sync::{Arc, thread, thread_local};

/// How many jobs may run inside one another on one thread, before one that waits leaves the next to another thread: a stack
/// has an end.
const DEEPEST: u32 = 128;

/// One of a pool's threads, as it knows itself.
pub struct Worker {
    pub shared: Share<Shared>,
    id: WorkerId,
    unbooked: Arc<Unbooked>,
    /// There were more jobs in the out-tray when it had taken its own.
    more: Cell<bool>,
    counted: Cell<Counted>,
    /// How often in a row it has met another worker at the out-tray.
    met: Cell<u32>,
    /// How many jobs run inside its job.
    nested: Cell<u32>,
}

thread_local! {
    /// Set while the thread may run jobs.
    static WORKER: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
}

impl Worker {
    /// The worker on whose thread this is.
    pub fn current() -> Option<Rc<Self>> {
        WORKER.try_with(|worker| worker.borrow().clone()).ok().flatten()
    }

    /// The worker on whose thread this is, if it is one of that pool.
    pub fn of(shared: &Share<Shared>) -> Option<Rc<Self>> {
        Self::current().filter(|worker| Share::ptr_eq(&worker.shared, shared))
    }

    /// Starts a worker that has been counted.
    pub fn start(shared: &Share<Shared>) {
        let mut builder = thread::Builder::new().name(shared.name.clone());
        if let Some(size) = shared.stack_size {
            builder = builder.stack_size(size);
        }
        let started = builder.spawn({
            let shared = shared.clone();
            move || Self::run(&shared)
        });
        let Err(error) = started else { return };
        let (mut out, mut state) = shared.lock();
        let (orphans, next, closers) = state.not_started(&mut out);
        drop((out, state));
        closers.wake();
        Shared::go_on(shared, next);
        if let Some(orphans) = orphans {
            // An `io::Error` cannot be copied; each job gets one of its own.
            let copy = || error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            shared.refusing(|| orphans.into_iter().for_each(|job| job.refuse(JoinError::NoThread(copy()))));
        }
    }

    /// What its thread does.
    fn run(shared: &Share<Shared>) {
        let unbooked = Arc::<Unbooked>::default();
        let worker = Rc::new(Self {
            shared: shared.clone(),
            id: shared.state.lock().name(unbooked.clone()),
            unbooked,
            more: Cell::new(false),
            counted: Cell::new(Counted { starting: true, ..Counted::default() }),
            met: Cell::new(0),
            nested: Cell::new(0),
        });
        WORKER.with(|current| current.replace(Some(worker.clone())));
        if let Some(hook) = &shared.on_thread_start {
            telling_of_sleep(|| contain(hook));
        }
        while let Some(job) = worker.next_job() {
            telling_of_sleep(|| job.run(&mut Turn(&worker)));
        }
        if let Some(hook) = &shared.on_thread_stop {
            contain(hook);
        }
        WORKER.with(RefCell::take);
        let (out, mut state) = shared.lock();
        let closers = state.left(&out, worker.id, worker.counted.get().caller);
        drop((out, state));
        closers.wake();
    }

    /// Waits for a job. `None`: the thread is to end.
    fn next_job(&self) -> Option<Started> {
        let shared = &*self.shared;
        let mut since = Since::Turn(self.counted.take());
        if since == Since::Turn(Counted::default()) {
            let mut out = contention::lock(&shared.out, &self.met);
            out.book(&self.unbooked);
            let another = out.take_another();
            self.more.set(out.has_more());
            if another.is_some() {
                return another;
            }
        }
        loop {
            let (mut out, mut state) = shared.lock();
            out.book(&self.unbooked);
            match state.look(&mut out, since) {
                Look::Run(job, next) => {
                    self.more.set(out.has_more());
                    drop((out, state));
                    Shared::go_on(&self.shared, next);
                    return Some(job);
                }
                Look::End(closers) => {
                    drop((out, state));
                    closers.wake();
                    return None;
                }
                Look::Rest => {}
            }
            let deadline = Instant::now().checked_add(shared.keep_alive);
            let mut held = Some((out, state));
            let called = poll_until(deadline, |cx| {
                if let Some((mut out, mut state)) = held.take() {
                    state.rest(&mut out, self.id, cx.waker().clone());
                    return Poll::Pending;
                }
                if shared.state.lock().is_idle(self.id) { Poll::Pending } else { Poll::Ready(()) }
            });
            if called.is_none() {
                // The waker is dropped when the lock is free.
                let expired = shared.state.lock().expire(self.id);
                if expired.is_some() {
                    return None;
                }
            }
            since = Since::Call;
        }
    }

    /// Its job waits for the pool to finish from here on. Whether it had not done so before.
    pub fn becomes_caller(&self) -> bool {
        let counted = self.counted.get();
        self.counted.set(Counted { caller: true, ..counted });
        !counted.caller
    }

    /// It does something that may take long, and so is not counted among those who are about to look.
    fn takes_long(&self) -> Counted {
        let counted = self.counted.get();
        self.counted.set(Counted { caller: counted.caller, ..Counted::default() });
        counted
    }
}

/// Runs the user's code, and has the pool told when it blocks.
fn telling_of_sleep(code: impl FnOnce()) {
    tell_around_sleep(Some(around_sleep));
    code();
    tell_around_sleep(None);
}

/// Told by the parker that this thread's job blocks.
fn around_sleep(sleeping: Sleeping) {
    let Some(worker) = Worker::current() else { return };
    match sleeping {
        Sleeping::Begins => {
            let next = worker.shared.state.lock().block(worker.takes_long());
            Shared::go_on(&worker.shared, next);
        }
        Sleeping::Ends => {
            let (mut out, mut state) = worker.shared.lock();
            state.unblock(&mut out);
        }
    }
}

/// A worker, while it runs a job of the queue.
struct Turn<'a>(&'a Worker);

impl job::Worker for Turn<'_> {
    fn ended(&mut self, how: Ended) {
        self.0.unbooked.set(how);
        if !self.0.more.get() {
            self.0.shared.state.lock().will_look();
            self.0.counted.set(Counted { looking: true, ..self.0.counted.get() });
        }
    }

    fn busy(&mut self) {
        let next = self.0.shared.state.lock().will_not_look(self.0.takes_long());
        Shared::go_on(&self.0.shared, next);
    }
}

/// A worker, while its job waits for another job and runs that meanwhile.
pub(super) struct Inline(Rc<Worker>);

impl Inline {
    pub fn in_pool(shared: &Share<Shared>) -> Option<Self> {
        Worker::of(shared).filter(|worker| worker.nested.get() < DEEPEST).map(Self)
    }
}

impl job::Worker for Inline {
    fn started(&mut self) {
        self.0.nested.set(self.0.nested.get() + 1);
        let tidy = self.0.shared.state.lock().passed();
        if tidy {
            self.0.shared.tidy();
        }
    }

    fn ended(&mut self, how: Ended) {
        self.0.nested.set(self.0.nested.get() - 1);
        self.0.shared.out.lock().ended(how);
    }

    fn busy(&mut self) {}
}
