//! The threads that run jobs.
//!
//! # What it promises
//! A job that is submitted runs, on one of at most `threads` threads, in the order of submission; whatever happens, its
//! handle resolves. Threads are started lazily, one for each job that finds no idle one. Dropping the last handle of a
//! pool lets its queue run empty; then its threads end.
//!
//! # How
//! One lock holds the queue, the idle workers and every count, so that *wake one, start one, or leave it in the queue* is
//! decided on facts:
//!
//! ```text
//! submit:  push the job, then     enough looking?  leave it to them
//!                                 an idle worker?  pop it, call it        (it is called once, then it is not idle)
//!                                 room for one?    count it, start it     (outside the lock; a failure is taken back)
//!                                 else             a worker takes the job when it comes by
//!
//! worker:  RUNNING --- its job has ended ---> LOOKING --- takes the next job ---> RUNNING
//!                                               |  ^
//!                                  queue empty  v  |  called
//!                                               IDLE          LOOKING, empty and closed ---> ENDED
//! ```
//!
//! 1. `idle` holds exactly the workers that sleep and have not been called. They form a stack: the one that was idle last
//!    is called first, as its stack and its cache are still warm.
//! 2. A called worker looks at the queue again; a job may have been taken by another one meanwhile, and then it goes idle
//!    again. A job is never left behind: every worker looks at the queue, under the lock, before it goes idle.
//! 3. A worker is looking from just before its job's handle resolves until it takes the lock to look at the queue. So who
//!    submits a job as soon as the one before has resolved is served by the same thread. One that has to drop an unwanted
//!    result first is not looking while it does, for that may take long.
//! 4. Each worker sleeps on a `Condvar` of its own: a call is for one, and cannot wake another.
//! 5. No user code runs under the lock: neither a job nor the `Drop` of one.
//!
//! The models are `submit_idle`, `two_submitters` and `last_handle` in `loom-tests/tests/pool.rs`.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::{env, fmt, io, mem};

use crate::primitives::job::{Ended, Job, Queued, Worker, job};
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{self, Arc, Condvar, Mutex, OnceLock, thread};

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
/// Dropping the last handle lets the queue run empty, without waiting for it; then the threads end.
#[derive(Clone)]
pub struct ThreadPool {
    owner: Arc<Owner>,
}

/// What the handles share. When the last one is dropped, the pool closes.
struct Owner {
    shared: Arc<Shared>,
}

struct Shared {
    /// How many threads there may be.
    size: usize,
    state: Mutex<State>,
}

struct State {
    queue: VecDeque<Queued>,
    /// The workers that sleep and have not been called, the last to go idle at the end.
    idle: Vec<Arc<Bed>>,
    /// How many workers are about to look at the queue. Each takes a job if there is one.
    looking: usize,
    /// How many workers there are, those included that are about to start.
    threads: usize,
    /// No more jobs will come.
    closed: bool,
}

/// Where one worker sleeps.
struct Bed {
    condvar: Condvar,
    /// Whether it has been called. Touched under the lock alone.
    called: AtomicBool,
}

/// What a submission has to do once the lock is free.
enum Next {
    Call(Arc<Bed>),
    Start,
    Leave,
}

impl ThreadPool {
    /// A pool of at most `threads` threads. They are started when jobs come.
    ///
    /// # Panics
    /// If `threads` is 0.
    pub fn new(threads: usize) -> Self {
        assert!(threads > 0, "ThreadPool::new: threads is 0, but a pool needs at least one");
        let state = State { queue: VecDeque::new(), idle: Vec::new(), looking: 0, threads: 0, closed: false };
        let shared = Arc::new(Shared { size: threads, state: Mutex::new(state) });
        Self { owner: Arc::new(Owner { shared }) }
    }

    /// The pool for whoever names no other, made when it is first asked for. It is never closed.
    ///
    /// It has one thread for each thread that the machine can run at once, but at least 4 and at most 32; the environment
    /// variable `OFFTHREAD_POOL_SIZE` overrides this.
    ///
    /// # Panics
    /// At the first call, if `OFFTHREAD_POOL_SIZE` is set and is not a positive number.
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<ThreadPool> = OnceLock::new();
        GLOBAL.get_or_init(|| Self::new(global_size()))
    }

    /// Submits a job, and returns its handle. Never blocks.
    ///
    /// The handle resolves to what `job` returns; dropping it cancels the job. If the system refuses to start a thread,
    /// the pool goes on with those it has; without any, the job resolves with
    /// [`JoinError::NoThread`](crate::JoinError::NoThread).
    ///
    /// # Synchronization
    /// What was done before happens before the job starts, and all that the job does happens before its handle resolves.
    pub fn spawn<F, R>(&self, job: F) -> Job<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let (queued, handle) = self::job(job);
        Shared::submit(&self.owner.shared, queued);
        handle
    }
}

fn global_size() -> usize {
    match env::var_os("OFFTHREAD_POOL_SIZE") {
        None => sync::cpus().clamp(4, 32),
        Some(size) => match size.to_str().and_then(|size| size.parse().ok()) {
            Some(size @ 1..) => size,
            _ => panic!("OFFTHREAD_POOL_SIZE is {}, but must be a positive number of threads", size.to_string_lossy()),
        },
    }
}

impl Shared {
    fn submit(this: &Arc<Self>, job: Queued) {
        let mut state = this.state.lock();
        state.queue.push_back(job);
        let next = state.next(this.size);
        drop(state);
        Self::go_on(this, next);
    }

    fn go_on(this: &Arc<Self>, next: Next) {
        match next {
            Next::Call(bed) => bed.condvar.notify_one(),
            Next::Start => Self::start(this),
            Next::Leave => {}
        }
    }

    /// Starts a worker that has been counted.
    fn start(this: &Arc<Self>) {
        let shared = this.clone();
        let started = thread::Builder::new().name("offthread".into()).spawn(move || Self::work(&shared));
        let Err(error) = started else { return };
        let mut state = this.state.lock();
        state.threads -= 1;
        // Workers that exist look at the queue before they go idle. If there is none, nobody would.
        let orphans = if state.threads == 0 { mem::take(&mut state.queue) } else { VecDeque::new() };
        drop(state);
        for job in orphans {
            // An `io::Error` cannot be copied; each job gets one of its own.
            job.refuse(error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error));
        }
    }

    /// What a worker's thread does.
    fn work(this: &Arc<Self>) {
        let bed = Arc::new(Bed { condvar: Condvar::new(), called: AtomicBool::new(false) });
        let mut state = this.state.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                let mut turn = Turn { shared: this, looking: false };
                job.run(&mut turn);
                let looking = turn.looking;
                state = this.state.lock();
                state.looking -= usize::from(looking);
            } else if state.closed {
                state.threads -= 1;
                return;
            } else {
                bed.called.store(false, Relaxed);
                state.idle.push(bed.clone());
                while !bed.called.load(Relaxed) {
                    state = bed.condvar.wait(state);
                }
            }
        }
    }
}

/// A worker, while it runs a job.
struct Turn<'a> {
    shared: &'a Arc<Shared>,
    /// Whether it is counted among those that look for a job.
    looking: bool,
}

impl Worker for Turn<'_> {
    fn ended(&mut self, _how: Ended) {
        self.shared.state.lock().looking += 1;
        self.looking = true;
    }

    fn busy(&mut self) {
        let mut state = self.shared.state.lock();
        state.looking -= 1;
        self.looking = false;
        // A job may have been left to this worker.
        let next = state.next(self.shared.size);
        drop(state);
        Shared::go_on(self.shared, next);
    }
}

impl State {
    /// Who serves the last job of the queue: all others have somebody.
    fn next(&mut self, size: usize) -> Next {
        if self.looking >= self.queue.len() {
            return Next::Leave;
        }
        if let Some(bed) = self.idle.pop() {
            bed.called.store(true, Relaxed);
            Next::Call(bed)
        } else if self.threads < size {
            self.threads += 1;
            Next::Start
        } else {
            Next::Leave
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        let called = mem::take(&mut state.idle);
        for bed in &called {
            bed.called.store(true, Relaxed);
        }
        drop(state);
        for bed in called {
            bed.condvar.notify_one();
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool").field("size", &self.owner.shared.size).finish_non_exhaustive()
    }
}
