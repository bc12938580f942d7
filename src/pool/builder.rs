//! How a pool is made.
#![forbid(unsafe_code)]

use std::env;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use crate::pool::closing::Closing;
use crate::pool::queue::Queue;
use crate::pool::stats::Counters;
use crate::pool::workers::Workers;
use crate::pool::{GLOBAL, GlobalPoolExists, Owner, Shared, State, ThreadPool};
use crate::primitives::cache_padded::CachePadded;
use crate::primitives::cancel::Stop;
use crate::sync::{self, Arc, Mutex};

/// How many threads a pool of a smaller size may have, with those of blocked jobs.
const MAX_THREADS: usize = 512;

type Hook = Box<dyn Fn() + Send + Sync>;

/// How many threads a pool has by default.
fn default_size() -> usize {
    match env::var_os("OFFTHREAD_POOL_SIZE").filter(|size| !size.is_empty()) {
        None => sync::cpus().clamp(4, 32),
        Some(size) => match size.to_str().and_then(|size| size.parse().ok()) {
            Some(size @ 1..) => size,
            _ => panic!("OFFTHREAD_POOL_SIZE is {size:?}, but must be a positive number of threads"),
        },
    }
}

/// The default size of a thread's stack, in bytes: as in std.
fn default_stack_size() -> usize {
    let size = env::var("RUST_MIN_STACK").ok().and_then(|size| size.parse().ok());
    size.unwrap_or(2 << 20)
}

/// Configures and makes a [`ThreadPool`]. From [`ThreadPool::builder`].
///
/// ```
/// use offthread::ThreadPool;
///
/// let pool = ThreadPool::builder().threads(2).name("images").stack_size(256 << 10).build();
/// let name = pool.spawn(|| std::thread::current().name().map(str::to_owned)).wait();
/// assert_eq!(name.as_deref(), Some("images"));
/// ```
#[must_use = "nothing is made until `build` or `build_global`"]
pub struct ThreadPoolBuilder {
    threads: Option<usize>,
    pub(super) name: String,
    pub(super) stack_size: Option<usize>,
    pub(super) keep_alive: Duration,
    pub(super) on_thread_start: Option<Hook>,
    pub(super) on_thread_stop: Option<Hook>,
    pub(super) timed: bool,
}

/// The hooks can be called, but not accessed in any other way.
impl UnwindSafe for ThreadPoolBuilder {}
impl RefUnwindSafe for ThreadPoolBuilder {}

impl Default for ThreadPoolBuilder {
    fn default() -> Self {
        Self {
            threads: None,
            name: "offthread".into(),
            stack_size: None,
            keep_alive: Duration::from_secs(10),
            on_thread_start: None,
            on_thread_stop: None,
            timed: false,
        }
    }
}

impl ThreadPoolBuilder {
    /// How many jobs run at once: see [`ThreadPool::new`]. Default: as in the [global](ThreadPool::global) pool.
    ///
    /// # Panics
    /// If `threads` is 0.
    #[track_caller]
    pub fn threads(mut self, threads: usize) -> Self {
        assert!(threads > 0, "ThreadPoolBuilder::threads: threads is 0, but a pool needs at least one");
        self.threads = Some(threads);
        self
    }

    /// The name of each of its threads, as debuggers show it. Default: `offthread`.
    ///
    /// # Panics
    /// If the name contains a zero byte, which no thread's name can.
    #[track_caller]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = checked_name("ThreadPoolBuilder", name.into());
        self
    }

    /// The size of its threads' stacks, in bytes. Default: std's.
    ///
    /// If the system does not grant this size, no thread can be started, and jobs resolve with
    /// [`JoinError::NoThread`](crate::JoinError::NoThread).
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// After how long an idle thread ends. Default: 10 seconds. [`Duration::MAX`]: never.
    pub fn keep_alive(mut self, keep_alive: Duration) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Runs on each thread before its first job. A panic of the hook is caught; only the panic hook reports it.
    ///
    /// A hook that waits for a job of the pool may wait for ever: each thread that the pool starts for this job runs
    /// the hook, too.
    pub fn on_thread_start(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_thread_start = Some(Box::new(hook));
        self
    }

    /// Runs on each thread after its last job: once for each run of `on_thread_start`, even if that run panicked.
    pub fn on_thread_stop(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_thread_stop = Some(Box::new(hook));
        self
    }

    /// Whether to measure [`busy`](crate::PoolStats::busy) and [`waited`](crate::PoolStats::waited). Default: no, since
    /// each job then takes some hundred nanoseconds longer.
    pub fn timed(mut self, timed: bool) -> Self {
        self.timed = timed;
        self
    }

    /// The pool. No thread is started yet.
    ///
    /// # Panics
    /// If the number of threads was not set, and `OFFTHREAD_POOL_SIZE` is set, but not to a positive number.
    /// An empty value counts as unset.
    pub fn build(self) -> ThreadPool {
        let size = self.threads.unwrap_or_else(default_size);
        let state = State {
            queue: Queue::default(),
            workers: Workers::new(size, size.max(MAX_THREADS)),
            closing: Closing::default(),
            counters: Counters::default(),
        };
        let shared = Arc::new(Shared {
            ready: CachePadded::default(),
            state: CachePadded(Mutex::new(state)),
            ended: CachePadded::default(),
            handles: Mutex::default(),
            has_entries: CachePadded::default(),
            stop: Stop::default(),
            inline_stack: self.stack_size.unwrap_or_else(default_stack_size) / 4,
            settings: self,
        });
        ThreadPool { owner: Arc::new(Owner { shared }) }
    }

    /// Makes the [global](ThreadPool::global) pool, which must not have been used before.
    ///
    /// # Errors
    /// [`GlobalPoolExists`] if there is one already.
    ///
    /// # Panics
    /// As [`build`](Self::build).
    pub fn build_global(self) -> Result<(), GlobalPoolExists> {
        GLOBAL.set(self.build()).map_err(|_| GlobalPoolExists)
    }
}

/// Checks that a thread can have this name.
#[track_caller]
pub fn checked_name(caller: &str, name: String) -> String {
    assert!(!name.contains('\0'), "{caller}::name: {name:?} contains a zero byte");
    name
}

impl_debug!(ThreadPoolBuilder, threads, name, stack_size, keep_alive, timed);
