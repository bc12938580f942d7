//! The threads that run jobs.
//!
//! # What it promises
//! A job that is submitted runs, on one of the pool's threads, in the order of submission, at most `threads` of them at
//! once; whatever happens, its handle resolves. Threads are started lazily, one for each job that finds no idle one, and
//! end when they have been idle for long. A job that waits for another job never keeps that one from running.
//!
//! # How
//! Jobs wait in two trays; one lock holds the list of idle workers and every count that decides, so that *call one, start one,
//! or leave it* is decided on facts. What is decided stands in `state.rs`, and what a thread does in `worker.rs`; and what who
//! submits a job, or takes the next one, does if the tray is locked time and again, in `contention.rs`. No user code runs
//! under a lock, and nobody is woken under one.
//!
//! A waker that a job's handle was given runs on the worker, which is counted on for the next job meanwhile: like all
//! wakers it should return soon. (If it blocks in a call of this crate, the pool is told.)
//!
//! Among the jobs wait the turns of iterables: see `stream.rs`.
//!
//! A pool cannot starve itself: a job that waits for another one that has not started runs that one right there
//! ([`Job::wait`]); and a thread that sleeps in a blocking call of this crate, whatever it waits for, does not count as
//! one of the `threads` while it does, so that another one takes its place if jobs wait.
//!
//! # What can go wrong
//! * A job is submitted as the only worker goes idle, or as its time is up: `submit_idle`, `submit_timeout`.
//! * Two submitters see the same idle worker, or the same room for a thread: `two_submitters`, `two_jobs_two_threads`.
//! * The one who is called does not call the next, and its own job waits for that one's: `called_one_calls_the_next`.
//! * A worker is counted as looking, but does something that takes long: `result_whose_drop_waits_for_the_next_job`,
//!   `waker_that_waits`.
//! * A worker wakes up for no reason: `spurious_wake_up`.
//! * A job comes as the pool is closed: `submit_shutdown`, `submit_drain`; or one that waits is cancelled as the pool waits
//!   for it: `cancel_drain`; as a worker takes it: `cancel_start`.
//! * A pool is closed by several at once: `two_shutdowns`; by its own jobs: `two_jobs_drain`; its last handle is dropped in
//!   a job, or beside one: `last_handle_in_a_job`, `last_handle_running`.
//! * A worker blocks while the job that it waits for comes: `submit_block`; and comes back to the thread that was started in
//!   its place: `spare_thread`, `spare_in_a_crowd`.
//! * A job is run where it is waited for, and taken by a worker: `inline_wait`.
#![forbid(unsafe_code)]

mod builder;
mod contention;
mod state;
mod stream;
mod worker;

use std::cell::Cell;
use std::task::Poll;
use std::time::{Duration, Instant};
use std::{env, error, fmt};

use crate::context::Context;
pub use crate::pool::builder::{ThreadPoolBuilder, checked_name};
use crate::pool::state::{Next, Out, State};
pub use crate::pool::stream::{End, Source, Stream, Turn};
use crate::pool::worker::{Inline, Worker};
use crate::primitives::cache_padded::CachePadded;
use crate::primitives::job::{self, Executor, Job, JoinError, Queued, Stop, job};
use crate::primitives::parker::poll_until;
use crate::primitives::share::Share;
use crate::sync::{self, Arc, Mutex, MutexGuard, OnceLock, thread_local};

/// A handle of a pool of threads that run jobs. Clones share the pool.
///
/// ```
/// use offthread::{ThreadPool, block_on, gather};
///
/// let pool = ThreadPool::new(4);
/// let squares = block_on(gather((0..10).map(|n: u64| pool.spawn(move || n * n))));
/// assert_eq!(squares.iter().sum::<u64>(), 285);
/// ```
///
/// # Threads
/// They are started when jobs come, and end when they have been idle for 10 seconds, or as the
/// [builder](ThreadPool::builder) was told. While a job sleeps in a blocking call of this crate, its thread does not count,
/// and another one may run jobs instead; so there may be more threads than the pool was made with, up to 512. If the system
/// refuses that thread, the jobs wait until a thread is free.
///
/// # Closing
/// Dropping the last handle lets the queue run empty, without waiting for it; then the threads end. [`drain`](Self::drain)
/// waits for that, and [`shutdown`](Self::shutdown) cancels what has not started.
#[derive(Clone)]
pub struct ThreadPool {
    owner: Arc<Owner>,
}

/// What the handles share. When the last one is dropped, the pool closes.
struct Owner {
    shared: Share<Shared>,
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// What the handles and the threads share.
pub(crate) struct Shared {
    out: CachePadded<Mutex<Out>>,
    state: CachePadded<Mutex<State>>,
    stop: Stop,
    name: String,
    stack_size: Option<usize>,
    keep_alive: Duration,
    on_thread_start: Option<Hook>,
    on_thread_stop: Option<Hook>,
    timed: bool,
}

static GLOBAL: OnceLock<ThreadPool> = OnceLock::new();

thread_local! {
    /// How many calls on this thread are refusing jobs, one inside the other.
    static REFUSING: Cell<u32> = const { Cell::new(0) };
    /// How often in a row this thread has met another one as it submitted a job.
    static MET: Cell<u32> = const { Cell::new(0) };
}

impl ThreadPool {
    /// A pool that runs at most `threads` jobs at once.
    ///
    /// # Panics
    /// If `threads` is 0.
    pub fn new(threads: usize) -> Self {
        assert!(threads > 0, "ThreadPool::new: threads is 0, but a pool needs at least one");
        Self::builder().threads(threads).build()
    }

    /// For a pool that differs from the usual.
    pub fn builder() -> ThreadPoolBuilder {
        ThreadPoolBuilder::new()
    }

    /// The pool for whoever names no other, made when it is first asked for.
    ///
    /// It has one thread for each thread that the machine can run at once, but at least 4 and at most 32; the environment
    /// variable `OFFTHREAD_POOL_SIZE` overrides this.
    ///
    /// # Panics
    /// At the first call, if `OFFTHREAD_POOL_SIZE` is set and is not a positive number.
    pub fn global() -> &'static Self {
        GLOBAL.get_or_init(|| Self::builder().build())
    }

    /// Submits a job, and returns its handle. Never waits for a job, or for a thread to be free.
    ///
    /// The handle resolves to what `job` returns; dropping it cancels the job. If the system refuses to start a thread,
    /// the pool goes on with those it has; without any, the job resolves with
    /// [`JoinError::NoThread`]. If the pool is closed, it resolves with
    /// [`JoinError::Cancelled`].
    ///
    /// # Synchronization
    /// What was done before happens before the job starts, and all that the job does happens before its handle resolves.
    pub fn spawn<F, R>(&self, job: F) -> Job<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        Shared::spawn(&self.owner.shared, job)
    }

    /// Submits many jobs in one go, and returns their handles in the same order. Otherwise as [`spawn`](Self::spawn).
    pub fn spawn_many<I, F, R>(&self, jobs: I) -> Vec<Job<R>>
    where
        I: IntoIterator<Item = F>,
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let shared = &self.owner.shared;
        // All of them first: the iterator is the user's, and may panic.
        let jobs: Vec<F> = jobs.into_iter().collect();
        let mut share = shared.clone();
        let (queued, handles): (Vec<_>, _) =
            jobs.into_iter().map(|job| Shared::job(shared, job, || share.give())).unzip();
        let submitted = shared.state.lock().submit_many(queued);
        Shared::submitted(shared, submitted);
        handles
    }

    /// What the pool has done so far, and what it does now. The figures are of one instant.
    pub fn stats(&self) -> PoolStats {
        let (out, state) = self.owner.shared.lock();
        state.stats(&out)
    }

    /// Closes the pool, and waits until all its jobs have run and its threads have nothing left to do.
    ///
    /// New jobs are refused: they resolve with [`JoinError::Cancelled`]. Iterables that are just running, or queued, end
    /// after `max_size` more items; those that are paused end when they would go on, in the call that takes an item.
    ///
    /// # Blocking
    /// Until the last job has ended. Called in one of the pool's own jobs, it does not wait for that one, nor for others
    /// that wait like this.
    pub fn drain(&self) {
        self.owner.shared.close();
        Shared::wait_until_finished(&self.owner.shared, None);
    }

    /// Closes the pool, cancels the jobs that have not started, and waits for those that run.
    ///
    /// Those that run see that [`is_cancelled`](crate::is_cancelled) is true. All iterables end; the iterators of those that
    /// do not run are dropped right here.
    ///
    /// # Blocking
    /// As [`drain`](Self::drain), and as long as it takes to drop closures and iterators.
    pub fn shutdown(&self) {
        self.owner.shared.shut_down();
        Shared::wait_until_finished(&self.owner.shared, None);
    }

    /// As [`shutdown`](Self::shutdown), but does not wait longer than `timeout` for the jobs that run.
    ///
    /// # Errors
    /// [`ShutdownTimeout`] if some still run. They run on, and the pool stays closed.
    ///
    /// # Blocking
    /// As [`shutdown`](Self::shutdown), but for those that run up to `timeout`. [`Duration::MAX`]: as long as it takes.
    pub fn shutdown_timeout(&self, timeout: Duration) -> Result<(), ShutdownTimeout> {
        let deadline = Instant::now().checked_add(timeout);
        let shared = &self.owner.shared;
        shared.shut_down();
        if Shared::wait_until_finished(shared, deadline).is_some() {
            return Ok(());
        }
        let (out, state) = shared.lock();
        match state.running(&out, Worker::of(shared).is_some()) {
            0 => Ok(()),
            running => Err(ShutdownTimeout { running }),
        }
    }

    /// What its threads share.
    pub(crate) fn shared(&self) -> &Share<Shared> {
        &self.owner.shared
    }

    /// Whether the pool refuses new jobs. It stays so.
    pub fn is_closed(&self) -> bool {
        self.owner.shared.state.lock().is_closed()
    }
}

/// How many threads a pool has if nobody says.
fn default_size() -> usize {
    match env::var_os("OFFTHREAD_POOL_SIZE") {
        None => sync::cpus().clamp(4, 32),
        Some(size) => match size.to_str().and_then(|size| size.parse().ok()) {
            Some(size @ 1..) => size,
            _ => panic!("OFFTHREAD_POOL_SIZE is {}, but must be a positive number of threads", size.to_string_lossy()),
        },
    }
}

/// Shows the pool that the job runs on which calls this; or the global one, if there is none or it is closed.
pub(crate) fn with_nearby<R>(f: impl FnOnce(&Share<Shared>) -> R) -> R {
    match Worker::current().filter(|worker| !worker.shared.state.lock().is_closed()) {
        Some(worker) => f(&worker.shared),
        None => f(ThreadPool::global().shared()),
    }
}

impl Shared {
    pub fn spawn<F, R>(this: &Share<Self>, func: F) -> Job<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        // The job gets its share of the pool under the lock that it is submitted under.
        let lock = || MET.with(|met| contention::lock(&this.state, met));
        let mut state = None;
        let share = || match &mut state.insert(lock()).share {
            Some(share) => share.give(),
            None => this.clone(),
        };
        let (queued, handle) = Self::job(this, func, share);
        let submitted = state.get_or_insert_with(lock).submit(queued);
        drop(state);
        Self::submitted(this, submitted);
        handle
    }

    fn job<F, R>(this: &Share<Self>, func: F, share: impl FnOnce() -> Share<Self>) -> (Queued, Job<R>)
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let mut context = Context::current();
        let func = move || context.within(func);
        if this.timed {
            let watch = Watch { shared: this.clone(), submitted: Instant::now() };
            job(move || watch.time(func), share)
        } else {
            job(func, share)
        }
    }

    /// Goes on when the lock is free. Jobs that have come back are dropped, and so cancelled.
    fn submitted<J>(this: &Share<Self>, submitted: Result<Next, J>) {
        if let Ok(next) = submitted {
            Self::go_on(this, next);
        }
    }

    /// Both locks, in the order in which they are taken.
    fn lock(&self) -> (MutexGuard<'_, Out>, MutexGuard<'_, State>) {
        (self.out.lock(), self.state.lock())
    }

    /// Does what was decided under the lock.
    fn go_on(this: &Share<Self>, next: Next) {
        match next {
            Next::Leave => {}
            Next::Call(waker) => waker.wake(),
            Next::Start(threads) => (0..threads).for_each(|_| Worker::start(this)),
        }
    }

    fn close(&self) {
        let (called, share) = self.state.lock().close();
        drop(share);
        for waker in called {
            waker.wake();
        }
    }

    fn tidy(&self) {
        let (mut out, mut state) = self.lock();
        let closers = state.tidy(&mut out);
        drop((out, state));
        closers.wake();
    }

    fn shut_down(&self) {
        let (mut out, mut state) = self.lock();
        let (called, share) = state.close();
        let jobs = state.take_all(&mut out);
        drop((out, state));
        drop(share);
        for waker in called {
            waker.wake();
        }
        self.refusing(|| {
            let streams = self.stop.set();
            for job in jobs {
                job.refuse(JoinError::Cancelled);
            }
            // Last, since this ends those that are paused, right here, and their iterators' `Drop`s may wait for any job.
            for stream in streams {
                stream.wake();
            }
        });
    }

    /// Does what is to be done with the jobs that were taken out of the trays.
    fn refusing(&self, refuse: impl FnOnce()) {
        REFUSING.with(|refusing| refusing.set(refusing.get() + 1));
        refuse();
        REFUSING.with(|refusing| refusing.set(refusing.get() - 1));
        let (out, mut state) = self.lock();
        let closers = state.refused(&out);
        drop((out, state));
        closers.wake();
    }

    /// Waits until the closed pool has finished. `None`: the deadline has passed.
    fn wait_until_finished(this: &Share<Self>, deadline: Option<Instant>) -> Option<()> {
        let worker = Worker::of(this);
        if let Some(worker) = &worker {
            if worker.becomes_caller() {
                let (out, mut state) = this.lock();
                let closers = state.call(&out);
                drop((out, state));
                closers.wake();
            }
        }
        poll_until(deadline, |cx| {
            let (out, mut state) = this.lock();
            // A job that is refused may wait for the pool to finish as it is dropped, and so be in its own way.
            let resolved = !state.is_refusing() || REFUSING.with(Cell::get) > 0;
            if resolved && state.has_finished(&out, worker.is_some()) {
                return Poll::Ready(());
            }
            state.wait(cx.waker().clone());
            Poll::Pending
        })
    }
}

impl Executor for Share<Shared> {
    fn cancelled(&self) {
        let tidy = self.state.lock().cancelled();
        if tidy {
            self.tidy();
        }
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }

    fn inline(&self) -> Option<Box<dyn job::Worker>> {
        Some(Box::new(Inline::in_pool(self)?))
    }
}

/// Measures a job's times.
struct Watch {
    shared: Share<Shared>,
    submitted: Instant,
}

impl Watch {
    fn time<R>(self, job: impl FnOnce() -> R) -> R {
        /// Adds them up at the end, also after a panic.
        struct Running(Watch, Instant);
        impl Drop for Running {
            fn drop(&mut self) {
                let (waited, busy) = (self.1 - self.0.submitted, self.1.elapsed());
                let mut state = self.0.shared.state.lock();
                state.add_times(waited, busy);
            }
        }
        let _running = Running(self, Instant::now());
        job()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("name", &self.owner.shared.name).finish_non_exhaustive()
    }
}

/// What a pool has done and what it does. From [`ThreadPool::stats`].
///
/// `submitted` is the sum of the jobs that are queued, that run, and that have succeeded, panicked or been cancelled. What
/// a job adds is there before its handle resolves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// How many threads there are, but for those that have done their last job and are about to end.
    pub threads: usize,
    /// How many of them have nothing to do.
    pub idle: usize,
    /// How many jobs have not started. Cancelled ones are not among them.
    pub queued: usize,
    /// How many jobs have been submitted, those included that were refused since the pool was closed.
    pub submitted: u64,
    /// How many have returned.
    pub succeeded: u64,
    /// How many have panicked.
    pub panicked: u64,
    /// How many will never run: cancelled, refused, or left without a thread.
    pub cancelled: u64,
    /// How long jobs have run, in all. Only if the pool is [timed](ThreadPoolBuilder::timed); counted when they end.
    pub busy: Duration,
    /// How long these had been queued, in all.
    pub waited: Duration,
}

/// Jobs still run. From [`ThreadPool::shutdown_timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownTimeout {
    /// How many. In a job of the pool, that one does not count.
    pub running: usize,
}

impl fmt::Display for ShutdownTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.running;
        write!(f, "{running} jobs still ran when the time was up: allow more time, or have them ask `is_cancelled()`")
    }
}

/// There is a global pool already. From [`ThreadPoolBuilder::build_global`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalPoolExists;

impl fmt::Display for GlobalPoolExists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is a global pool already: build it before anything uses it, and once")
    }
}

impl error::Error for ShutdownTimeout {}
impl error::Error for GlobalPoolExists {}
