//! Blocking functions that become awaitable.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::IntoFuture;

use crate::pool::{self, ThreadPool};
use crate::primitives::job::Job;

/// Makes a blocking closure awaitable: nothing has started yet.
///
/// Await what this returns, to run the closure in a thread and get what it returns; or choose where and how first.
///
/// ```
/// # offthread::block_on(async {
/// let lines = offthread::threaded(|| std::fs::read_to_string("Cargo.toml")).await.unwrap().lines().count();
/// assert!(lines > 1);
/// # });
/// ```
pub fn threaded<F, R>(func: F) -> Threaded<F>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    Threaded { func, pool: None }
}

/// A blocking closure and where to run it. From [`threaded`]. Nothing has started yet.
#[must_use = "nothing runs until it is awaited, or until `async_call` or `sync_call`"]
pub struct Threaded<F> {
    func: F,
    /// `None`: the pool that the calling job runs on, or the global one.
    pool: Option<ThreadPool>,
}

impl<F> Threaded<F> {
    /// Runs in this pool instead of the [global](ThreadPool::global) one.
    pub fn on(mut self, pool: &ThreadPool) -> Self {
        self.pool = Some(pool.clone());
        self
    }

    /// Submits the job now, and returns its handle.
    pub fn async_call<R>(self) -> Job<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        match &self.pool {
            Some(pool) => pool.spawn(self.func),
            None => pool::spawn_nearby(self.func),
        }
    }

    /// Runs the closure right here, on the calling thread, and returns what it returns.
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

/// Awaiting it is [`async_call`](Threaded::async_call), awaited.
impl<F, R> IntoFuture for Threaded<F>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    type Output = R;
    type IntoFuture = Job<R>;

    fn into_future(self) -> Job<R> {
        self.async_call()
    }
}

impl<F> fmt::Debug for Threaded<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threaded").field("pool", &self.pool).finish_non_exhaustive()
    }
}
