//! Blocking functions that become awaitable.
#![forbid(unsafe_code)]

use std::future::IntoFuture;

use crate::event_loop::LoopHandle;
use crate::pool::{self, Shared, ThreadPool, checked_name};
use crate::primitives::job::Job;
use crate::separate;
use crate::sync::Arc;

/// Makes a blocking closure awaitable: nothing has started yet.
///
/// Await the returned value: this runs the closure in a thread, and gives the closure's result. The value's methods
/// choose where and how the closure runs.
///
/// ```
/// # offthread::block_on(async {
/// let text = offthread::threaded(|| std::fs::read_to_string("Cargo.toml")).await.unwrap();
/// assert!(text.lines().count() > 1);
/// # });
/// ```
pub fn threaded<F: FnOnce() -> R + Send + 'static, R: Send + 'static>(func: F) -> Threaded<F> {
    Threaded { func, place: Place::Nearby, name: None }
}

/// Makes a blocking closure awaitable, in a thread of its own: [`threaded(func).separate()`](Threaded::separate).
///
/// For a closure that blocks for long, or for ever: in a pool it would keep a thread from other jobs.
///
/// ```
/// # offthread::block_on(async {
/// let name = || std::thread::current().name().map(str::to_owned);
/// let name = offthread::threaded_separate(name).name("clock").await;
/// assert_eq!(name.as_deref(), Some("clock"));
/// # });
/// ```
pub fn threaded_separate<F: FnOnce() -> R + Send + 'static, R: Send + 'static>(func: F) -> Threaded<F> {
    threaded(func).separate()
}

/// A blocking closure and where to run it. From [`threaded`]. Nothing has started yet.
///
/// By default the closure runs in the [default pool](LoopHandle::set_default_pool) of the
/// [current](LoopHandle::current) event loop. If there is no loop, or the loop is closed, it runs in the pool of the
/// calling job. If there is no such pool, or that pool is closed, it runs in the [global](ThreadPool::global) pool.
#[must_use = "nothing runs until it is awaited, or until `async_call` or `sync_call`"]
pub struct Threaded<F> {
    func: F,
    place: Place,
    name: Option<String>,
}

/// Where a closure or an iterator runs.
#[derive(Debug)]
pub(crate) enum Place {
    /// In the current loop's default pool, or else in the pool of the calling job, or else in the global pool.
    Nearby,
    Pool(ThreadPool),
    /// In a thread of its own.
    Separate,
}

impl Place {
    /// Replaces `Nearby` by the current loop's pool, if there is one.
    pub(crate) fn settle(self) -> Self {
        match self {
            Self::Nearby => {
                let pool = LoopHandle::try_current().and_then(|handle| handle.default_pool());
                pool.map_or(Self::Nearby, Self::Pool)
            }
            settled => settled,
        }
    }

    /// Calls `f` with the pool. Called after `settle`.
    pub(crate) fn with_pool<R>(&self, f: impl FnOnce(&Arc<Shared>) -> R) -> R {
        match self {
            Self::Pool(pool) => f(pool.shared()),
            _ => pool::with_nearby(f),
        }
    }
}

impl<F> Threaded<F> {
    /// Runs in this pool.
    ///
    /// ```
    /// use offthread::{ThreadPool, block_on, threaded};
    ///
    /// let pool = ThreadPool::builder().threads(1).name("mine").build();
    /// let name = || std::thread::current().name().map(str::to_owned);
    /// let name = block_on(threaded(name).on(&pool));
    /// assert_eq!(name.as_deref(), Some("mine"));
    /// ```
    pub fn on(mut self, pool: &ThreadPool) -> Self {
        self.place = Place::Pool(pool.clone());
        self
    }

    /// Runs in a new thread of its own, which ends with the closure.
    ///
    /// ```
    /// use offthread::{block_on, threaded};
    ///
    /// assert_eq!(block_on(threaded(|| 6 * 7).separate().name("answer")), 42);
    /// ```
    pub fn separate(mut self) -> Self {
        self.place = Place::Separate;
        self
    }

    /// The name of the separate thread, as debuggers show it. A thread of a pool keeps the name of its pool.
    ///
    /// # Panics
    /// If the name contains a zero byte, which no thread's name can.
    #[track_caller]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(checked_name("Threaded", name.into()));
        self
    }

    /// Submits the job now, or starts its thread, and returns its handle. Does not block: at most this yields the CPU 48
    /// times, while threads of the pool are about to be free.
    ///
    /// If the system refuses a separate thread, or a thread for a pool that has none, the job resolves with
    /// [`JoinError::NoThread`](crate::JoinError::NoThread).
    ///
    /// ```
    /// use offthread::{block_on, threaded};
    ///
    /// let job = threaded(|| 6 * 7).async_call(); // it may run already
    /// assert_eq!(block_on(job), 42);
    /// ```
    pub fn async_call<R>(self) -> Job<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        match self.place {
            Place::Separate => separate::spawn(self.name, self.func),
            place => place.settle().with_pool(|pool| Shared::spawn(pool, self.func)),
        }
    }

    /// Runs the closure on the calling thread, and returns its result.
    ///
    /// ```
    /// use offthread::threaded;
    /// use std::thread;
    ///
    /// assert_eq!(threaded(|| thread::current().id()).sync_call(), thread::current().id());
    /// ```
    ///
    /// # Blocking
    /// As long as the closure does.
    pub fn sync_call<R>(self) -> R
    where
        F: FnOnce() -> R,
    {
        (self.func)()
    }
}

/// Awaiting it calls [`async_call`](Threaded::async_call), and awaits the job.
impl<F: FnOnce() -> R + Send + 'static, R: Send + 'static> IntoFuture for Threaded<F> {
    type Output = R;
    type IntoFuture = Job<R>;

    fn into_future(self) -> Job<R> {
        self.async_call()
    }
}

impl_debug!(Threaded<F>, place, name);
