//! The threads that run jobs.
//!
//! # What it promises
//! Jobs start on the pool's threads, in the order of submission; only a job that runs inline starts out of order. At
//! most `threads` jobs run at once, not counting jobs that sleep in a blocking call of this crate. (When such jobs wake
//! up there may be more, but no further job starts meanwhile.) Every handle resolves, whatever happens. A thread is
//! started when a job finds no idle one, and ends when it has been idle for `keep_alive`. A job that waits for another
//! job of its pool does not keep that job from running.
//!
//! The simplest version: `examples/made_4_pool.rs`.
//!
//! # How
//! *Decide under the lock, act outside.* The lock of [`State`] guards the queue, the list of idle workers and every
//! count that decides. (The part of the queue that workers take from has a second lock: see `queue.rs`.) So one thread
//! at a time decides whether to wake a worker, to start one, or to do neither. A decision is a `#[must_use]` value, and
//! is carried out when the lock is free. No user code runs under a lock, and no idle worker is woken under one.
//!
//! `queue.rs` has the jobs that wait, `workers.rs` the counts of workers and the invariant of the pool, and `worker.rs`
//! the code of one thread. `closing.rs` has the end of a pool, `stream.rs` the turns of iterables, and `map.rs` the
//! results of [`ThreadPool::map`]. The counters of [`PoolStats`] are reported, never decided on.
//!
//! A pool does not starve itself. If a job waits for one that has not started, the waiting thread runs the other job
//! inline ([`Job::wait`]), while its stack has room. A thread that sleeps in a blocking call of this crate does not
//! count as one of the `threads`, so another thread takes its place if jobs wait.
//!
//! # What can go wrong
//! * A job is submitted as the only worker goes idle, or as its idle time ends: `submit_idle`, `submit_timeout`.
//! * Two submitters see the same idle worker, or the same room for a thread: `two_submitters`.
//! * Two jobs are submitted while one worker is idle or searching, and this worker counts for both:
//!   `two_jobs_two_threads`.
//! * A woken worker wakes no other, and takes a job that waits for the next job: `woken_worker_wakes_the_next`.
//! * User code waits for a job while its worker counts as searching, or as starting: `waker_that_waits`,
//!   `start_hook_that_waits`.
//! * The same for a result that nobody wants: `result_whose_drop_waits_for_the_next_job`.
//! * The same for user code that blocks outside of this crate: `waker_that_spins`.
//! * An idle worker wakes up spuriously: `spurious_wake_up`.
//! * A job is submitted as the pool is closed: `submit_shutdown`, `submit_drain`.
//! * A queued job is cancelled as the pool is drained, or as a worker takes the job: `cancel_drain`, `cancel_start`.
//! * Several threads close a pool at once: `two_shutdowns`, `two_drains_join`.
//! * Several jobs close their own pool at once: `two_jobs_drain`.
//! * A job closes its pool while the `Drop` of a refused closure drains it: `refused_drop_that_drains`.
//! * The pool's last handle is dropped in a job, or while a job runs: `last_handle_in_a_job`, `last_handle_running`.
//! * A pool is drained while a thread is ending: `drain_joins`.
//! * A pool is shut down while a job runs, or while it is drained: `shutdown_timeout_waits`, `drain_beside_a_shutdown`.
//! * A thread waits for a closed pool while another thread refuses the last job: `drain_beside_a_refusal`.
//! * A worker blocks as the job that the worker waits for is submitted: `submit_block`.
//! * A blocked worker wakes up after a thread was started in its place: `spare_thread`, `surplus_thread_takes_no_job`.
//! * A job runs inline while a worker takes it: `inline_wait`.
#![forbid(unsafe_code)]

mod builder;
mod closing;
mod map;
mod queue;
mod stats;
mod stream;
mod worker;
mod workers;

use std::panic::RefUnwindSafe;
use std::time::{Duration, Instant};
use std::{fmt, iter};

use crate::context::Context;
pub use crate::pool::builder::{ThreadPoolBuilder, checked_name};
use crate::pool::closing::{Closing, Handles};
pub use crate::pool::map::Map;
use crate::pool::queue::{Queue, Ready};
use crate::pool::stats::{Counters, EndedJobs};
pub use crate::pool::stats::{PoolStats, ShutdownTimeout};
pub use crate::pool::stream::{End, Source, Stream, Turn};
use crate::pool::worker::{Worker, is_thread_of};
use crate::pool::workers::{Next, Stage, Workers};
use crate::primitives::cache_padded::CachePadded;
use crate::primitives::cancel::{Running, Stop};
use crate::primitives::job::{Job, JobOwner, Progress, Queued, job};
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{Arc, Mutex, MutexGuard, OnceLock, thread};

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
/// Threads are started when jobs come, and end when they have been idle for 10 seconds, or for the
/// [builder](ThreadPool::builder)'s `keep_alive`. While a job sleeps in a blocking call of this crate, its thread does
/// not count, and another one may run jobs instead. So there may be up to 512 threads, or `threads` if this is more. If
/// the system refuses another thread, the jobs wait until a thread is free.
///
/// The system decides on which CPUs the threads run. On Linux a thread inherits the CPU mask of the thread that starts
/// it: one that submits a job or uses an iterable, or another thread of the pool. The inherited mask then applies to
/// all jobs that the new thread runs. If some threads of the program are pinned, set the mask in
/// [`on_thread_start`](ThreadPoolBuilder::on_thread_start).
///
/// # Closing
/// Dropping the last handle closes the pool without waiting: its threads run the jobs that are queued, and then end.
/// [`drain`](Self::drain) closes the pool and waits for its threads. [`shutdown`](Self::shutdown) also cancels the jobs
/// that have not started.
#[derive(Clone)]
pub struct ThreadPool {
    owner: Arc<Owner>,
}

/// The part that the handles share. When the last handle is dropped, the pool closes.
struct Owner {
    shared: Arc<Shared>,
}

/// The part that the handles and the threads share.
pub(crate) struct Shared {
    ready: CachePadded<Mutex<Ready>>,
    state: CachePadded<Mutex<State>>,
    ended: CachePadded<EndedJobs>,
    handles: Mutex<Handles>,
    /// A hint for workers that yield: an entry was added after a worker last found none.
    has_entries: CachePadded<AtomicBool>,
    stop: Stop,
    settings: ThreadPoolBuilder,
    /// A job may be run inside another one while the thread has used less of its stack than this.
    inline_stack: usize,
}

/// No user code runs under its locks.
impl RefUnwindSafe for Shared {}

/// The data that the pool's lock guards.
struct State {
    queue: Queue,
    workers: Workers,
    closing: Closing,
    counters: Counters,
}

/// How often a submitter yields to workers that are finishing, before it wakes or starts another worker. This number of
/// yields takes about as long as a waker that makes a system call.
const MAX_RECHECKS: u32 = 48;

static GLOBAL: OnceLock<ThreadPool> = OnceLock::new();

impl ThreadPool {
    /// A pool that runs at most `threads` jobs at once.
    ///
    /// A job that sleeps in a blocking call of this crate does not count. While it sleeps, another job may start; when
    /// it wakes up, both run. Then no further job starts until fewer than `threads` run.
    ///
    /// # Panics
    /// If `threads` is 0.
    #[track_caller]
    pub fn new(threads: usize) -> Self {
        assert!(threads > 0, "ThreadPool::new: threads is 0, but a pool needs at least one");
        Self::builder().threads(threads).build()
    }

    /// Configures a pool.
    pub fn builder() -> ThreadPoolBuilder {
        ThreadPoolBuilder::default()
    }

    /// The default pool. The first call makes it.
    ///
    /// It has as many threads as the machine can run at once, but at least 4 and at most 32; the environment variable
    /// `OFFTHREAD_POOL_SIZE` overrides this. An empty value counts as unset.
    ///
    /// # Panics
    /// If `OFFTHREAD_POOL_SIZE` is set and is not a positive number, and there is no global pool yet.
    pub fn global() -> &'static Self {
        GLOBAL.get_or_init(|| Self::builder().build())
    }

    /// Submits a job, and returns its handle. Does not block: at most this yields the CPU 48 times, while threads of
    /// the pool are about to be free.
    ///
    /// The handle resolves to what `job` returns; dropping the handle cancels the job. If the system refuses to start a
    /// thread, the pool goes on with the threads it has; if it has none, the job resolves with
    /// [`JoinError::NoThread`](crate::JoinError::NoThread). If the pool is closed, the job resolves with
    /// [`JoinError::Cancelled`](crate::JoinError::Cancelled).
    ///
    /// # Synchronization
    /// All that the caller did before this call happens before the job starts. All that the job does happens before its
    /// handle resolves.
    pub fn spawn<F: FnOnce() -> R + Send + 'static, R: Send + 'static>(&self, job: F) -> Job<R> {
        Shared::spawn(&self.owner.shared, job)
    }

    /// Submits many jobs in one go, and returns their handles in the same order. Otherwise as [`spawn`](Self::spawn).
    ///
    /// ```
    /// use offthread::{ThreadPool, block_on, gather};
    ///
    /// let jobs = ThreadPool::new(2).spawn_many((0..4).map(|n| move || n * n));
    /// assert_eq!(block_on(gather(jobs)), [0, 1, 4, 9]);
    /// ```
    pub fn spawn_many<I, F, R>(&self, jobs: I) -> Vec<Job<R>>
    where
        I: IntoIterator<Item = F>,
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let shared = &self.owner.shared;
        // Collected first: the iterator is user code, and may panic.
        let jobs: Vec<F> = jobs.into_iter().collect();
        let (queued, handles): (Vec<_>, _) = jobs.into_iter().map(|func| Shared::job(shared, func)).unzip();
        Shared::submit(shared, queued.into_iter());
        handles
    }

    /// Applies a function to many items, in jobs of this pool, and returns a stream of the results. This is
    /// `Executor.map` of Python's `concurrent.futures`, but lazy.
    ///
    /// The results come in the order of the items, unless the map is [`unordered`](Map::unordered). At most
    /// [`max_size`](Map::max_size) jobs are ahead of the consumer, so there may be infinitely many items. The map takes
    /// items from the iterator only when it is polled, and when there is room for their results.
    ///
    /// ```
    /// use offthread::{ThreadPool, block_on};
    ///
    /// let pool = ThreadPool::new(4);
    /// let mut squares = pool.map(0..10_u64, |n| n * n);
    /// block_on(async {
    ///     while let Some(square) = squares.next().await {
    ///         println!("{square}");
    ///     }
    /// });
    /// // The same in blocking code.
    /// assert_eq!(pool.map(0..10_u64, |n| n * n).wait().sum::<u64>(), 285);
    /// ```
    pub fn map<I, F, R>(&self, items: I, function: F) -> Map<I::IntoIter, F, R>
    where
        I: IntoIterator<Item: Send + 'static>,
        F: Fn(I::Item) -> R + Send + Sync + 'static,
        R: Send + 'static,
    {
        let threads = self.owner.shared.state.lock().workers.size();
        Map::new(self.clone(), items.into_iter(), function, threads)
    }

    /// The pool's figures: what it has done so far, and what it does now. A job that ends during this call may or may
    /// not be counted as ended.
    ///
    /// ```
    /// let pool = offthread::ThreadPool::new(2);
    /// pool.spawn(|| ()).wait();
    /// let stats = pool.stats();
    /// assert_eq!((stats.submitted, stats.succeeded, stats.queued), (1, 1, 0));
    /// ```
    pub fn stats(&self) -> PoolStats {
        let shared = &self.owner.shared;
        let (ready, state) = shared.lock();
        let Counters { submitted, cancelled, ran_inline, busy, waited } = state.counters;
        // ORDERING: Relaxed: a job is counted before its result is published, so a thread that has seen the result also
        // sees the count.
        let [succeeded, panicked, cut_short] =
            [&shared.ended.succeeded, &shared.ended.panicked, &shared.ended.cancelled].map(|count| count.load(Relaxed));
        PoolStats {
            threads: state.workers.threads(),
            idle: state.workers.count(Stage::Idle),
            // It fits: each queued job has an allocation.
            queued: usize::try_from(submitted - cancelled - ran_inline - ready.started).unwrap_or(usize::MAX),
            submitted,
            succeeded,
            panicked,
            cancelled: cancelled + cut_short,
            busy,
            waited,
        }
    }

    /// Closes the pool, and waits until all its jobs have run and its threads have nothing left to do.
    ///
    /// New jobs are refused: they resolve with [`JoinError::Cancelled`](crate::JoinError::Cancelled). Iterables that
    /// are running or queued end after at most `max_size` more items. A paused iterable ends in the call that takes an
    /// item and so makes room. A [generator](crate::threaded_generator()) that waits for room gets an error.
    ///
    /// ```
    /// let pool = offthread::ThreadPool::new(1);
    /// let jobs = pool.spawn_many((0..10).map(|n| move || n));
    /// pool.drain();
    /// assert!(jobs.iter().all(|job| job.is_finished()));
    /// ```
    ///
    /// # Blocking
    /// Until all jobs and all threads have ended, including the destructors of the threads' thread-locals. A thread
    /// whose stop hook had returned before the pool was closed is not waited for. On one of the pool's own threads,
    /// this waits neither for the threads to end, nor for the calling job, nor for other jobs that wait for the pool.
    ///
    /// On an event loop's thread this stops the loop, and never returns if a job needs the loop: call it in
    /// [`threaded_separate`](crate::threaded_separate()) there.
    pub fn drain(&self) {
        self.owner.shared.close();
        Shared::wait_until_finished(&self.owner.shared, None, true);
    }

    /// Closes the pool, cancels the jobs that have not started, and waits for those that run.
    ///
    /// In the jobs that run, [`is_cancelled`](crate::is_cancelled) turns true. All iterables end; this call drops the
    /// iterators of those that do not run.
    ///
    /// ```
    /// use offthread::{ThreadPool, wait_cancelled};
    /// use std::time::Duration;
    ///
    /// let pool = ThreadPool::new(1);
    /// let (started, has_started) = std::sync::mpsc::channel();
    /// let running = pool.spawn(move || {
    ///     started.send(()).unwrap();
    ///     wait_cancelled(Duration::MAX)
    /// });
    /// has_started.recv().unwrap();
    /// let waiting = pool.spawn(|| ());
    /// pool.shutdown();
    /// assert!(running.wait(), "it was told to stop");
    /// assert!(waiting.outcome().wait().is_err(), "it never runs");
    /// ```
    ///
    /// # Blocking
    /// As [`drain`](Self::drain), and as long as it takes to drop closures and iterators.
    pub fn shutdown(&self) {
        self.owner.shared.shut_down();
        Shared::wait_until_finished(&self.owner.shared, None, true);
    }

    /// As [`shutdown`](Self::shutdown), but does not wait longer than `timeout` for the jobs that run.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = offthread::ThreadPool::new(1);
    /// let (open, gate) = std::sync::mpsc::channel::<()>();
    /// let job = pool.spawn(move || drop(gate.recv())); // does not look whether it was cancelled
    /// # while pool.stats().queued > 0 {}
    /// let timeout = pool.shutdown_timeout(Duration::from_millis(1)).unwrap_err();
    /// assert_eq!(timeout.running, 1);
    /// drop(open);
    /// job.wait();
    /// ```
    ///
    /// # Errors
    /// [`ShutdownTimeout`] if some still run. They run on, and the pool stays closed.
    ///
    /// # Blocking
    /// As [`shutdown`](Self::shutdown), but this waits at most `timeout` for the jobs that run, and does not wait for
    /// the threads to end. [`Duration::MAX`] sets no limit.
    pub fn shutdown_timeout(&self, timeout: Duration) -> Result<(), ShutdownTimeout> {
        let deadline = Instant::now().checked_add(timeout);
        let shared = &self.owner.shared;
        shared.shut_down();
        if Shared::wait_until_finished(shared, deadline, false) {
            return Ok(());
        }
        let (ready, state) = shared.lock();
        let inside = is_thread_of(shared);
        let count = |stage| if inside { state.workers.count(stage) } else { 0 };
        let started = ready.started + ready.turns_started + state.counters.ran_inline;
        // It fits: each running job has an allocation.
        let running = usize::try_from(started - shared.ended.all()).unwrap_or(usize::MAX);
        // From inside, exempt jobs do not count. But a worker that is exempt in a hook or a waker has no job, and is
        // subtracted too. So while another worker has a job, at least one running job is reported.
        let others = count(Stage::Active) + count(Stage::Blocked);
        match running.saturating_sub(count(Stage::Exempt)).max(others.min(1)) {
            0 => Ok(()),
            running => Err(ShutdownTimeout { running }),
        }
    }

    /// The part that the pool's handles and threads share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }

    /// Whether the pool refuses new jobs. Once true, this stays true.
    pub fn is_closed(&self) -> bool {
        self.owner.shared.state.lock().closing.closed
    }
}

/// Calls `f` with the pool whose thread this is. If this thread has no pool, or its pool is closed, calls `f` with the
/// global pool.
pub(crate) fn with_nearby<R>(f: impl FnOnce(&Arc<Shared>) -> R) -> R {
    match Worker::current().filter(|worker| !worker.shared.state.lock().closing.closed) {
        Some(worker) => f(&worker.shared),
        None => f(ThreadPool::global().shared()),
    }
}

impl Shared {
    pub fn spawn<F: FnOnce() -> R + Send + 'static, R: Send + 'static>(this: &Arc<Self>, func: F) -> Job<R> {
        let (queued, handle) = Self::job(this, func);
        Self::submit(this, iter::once(queued));
        handle
    }

    fn job<F: FnOnce() -> R + Send + 'static, R: Send + 'static>(this: &Arc<Self>, func: F) -> (Queued, Job<R>) {
        let mut context = Context::current();
        let timing = this.settings.timed.then(|| Box::new(Timing { shared: this.clone(), submitted: Instant::now() }));
        let func = move || {
            let _running = timing.map(Timing::start);
            context.within(func)
        };
        job(func, this.clone())
    }

    /// Adds jobs, with one lock for all. If the pool is closed, the jobs are cancelled.
    fn submit(this: &Arc<Self>, jobs: impl ExactSizeIterator<Item = Queued>) {
        let mut state = this.state.lock();
        state.counters.submitted += jobs.len() as u64;
        if state.closing.closed {
            state.counters.cancelled += jobs.len() as u64;
            drop(state);
            jobs.for_each(drop);
        } else {
            state.queue.push(jobs);
            Self::added(this, state);
        }
    }

    /// Entries have been added: wakes or starts a worker, if need be.
    fn added(this: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let next = state.decide(true);
        // ORDERING: Relaxed: a hint; the entries are behind the lock. The load avoids the write, which would take the
        // cache line from other cores.
        if !this.has_entries.load(Relaxed) {
            // ORDERING: Relaxed: as above.
            this.has_entries.store(true, Relaxed);
        }
        drop(state);
        Self::act_on(this, next);
    }

    /// Both locks, in the order in which they are taken.
    fn lock(&self) -> (MutexGuard<'_, Ready>, MutexGuard<'_, State>) {
        (self.ready.lock(), self.state.lock())
    }

    /// Does what was decided under the lock.
    fn act_on(this: &Arc<Self>, mut next: Next) {
        let mut yields = MAX_RECHECKS;
        while matches!(next, Next::Recheck) {
            // The finishing worker may be the calling thread, which must not wait for itself.
            let may_yield = yields > 0 && Worker::of(this).is_none();
            if may_yield {
                thread::yield_now();
                yields -= 1;
            }
            next = this.state.lock().decide(may_yield);
        }
        match next {
            Next::Leave | Next::Recheck => {}
            Next::Wake(condvar) => condvar.notify(),
            Next::Start(threads) => (0..threads).for_each(|_| Worker::start(this)),
        }
    }

    /// An entry has become stale.
    fn add_stale(&self, mut state: MutexGuard<'_, State>) {
        let due = state.queue.add_stale();
        drop(state);
        if due {
            self.purge();
        }
    }

    fn purge(&self) {
        let (mut ready, mut state) = self.lock();
        state.queue.purge(&mut ready);
    }
}

impl State {
    /// Restores the invariant: see `workers.rs`.
    fn decide(&mut self, count_finishing: bool) -> Next {
        self.workers.decide(self.queue.len(), self.queue.priority_len(), count_finishing)
    }

    /// Stops workers from taking jobs while too many of them are active, and once the pool was shut down.
    fn pause_surplus(&self, ready: &mut Ready) {
        ready.paused = self.closing.shut_down || self.workers.has_surplus();
    }
}

impl JobOwner for Arc<Shared> {
    fn cancelled(&self) {
        let mut state = self.state.lock();
        state.counters.cancelled += 1;
        self.add_stale(state);
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }

    fn may_run_inline(&self) -> bool {
        // A job that is still queued when the pool is shut down never starts.
        !self.stop.is_set() && Worker::of(self).is_some_and(|worker| worker.has_stack())
    }

    fn started_inline(&self) {
        let mut state = self.state.lock();
        state.counters.ran_inline += 1;
        self.add_stale(state);
    }

    fn ended_inline(&self, how: Progress) {
        self.ended.count(how);
    }
}

/// For a generator's `put` while it waits for room: this wait is to end when the pool is closed in any way, also by
/// `drain`.
impl Running for Shared {
    fn is_cancelled(&self) -> bool {
        self.state.lock().closing.closed
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }
}

/// Measures a job's times.
struct Timing {
    shared: Arc<Shared>,
    submitted: Instant,
}

impl Timing {
    /// The job starts. Dropping the returned value adds the job's times to the counters, also after a panic.
    fn start(self: Box<Self>) -> impl Drop {
        struct RunTimer(Box<Timing>, Instant);
        impl Drop for RunTimer {
            fn drop(&mut self) {
                let (waited, busy) = (self.1 - self.0.submitted, self.1.elapsed());
                let counters = &mut self.0.shared.state.lock().counters;
                counters.waited += waited;
                counters.busy += busy;
            }
        }
        RunTimer(self, Instant::now())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("name", &self.owner.shared.settings.name).finish_non_exhaustive()
    }
}

/// The global pool exists already. From [`ThreadPoolBuilder::build_global`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalPoolExists;

impl_error!(GlobalPoolExists: Self => "there is a global pool already: build it before anything uses it, and once");
