//! Handles of event loops: from any thread, of ours and of other runtimes.
//!
//! The current loop is a context variable; so jobs and tasks inherit it, and what they start does.
//!
//! Whatever is asked of a loop is a task: a call is one that runs the closure at its first poll, and a timer is one that
//! sleeps before that.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::context::{self, Context, ContextVar};
use crate::event_loop::local::Local;
use crate::event_loop::reactor::{Letter, Reactor, Start};
use crate::event_loop::task::{Home, Task, task};
use crate::pool::ThreadPool;
use crate::primitives::cancel;
use crate::sync::Mutex;
use crate::sync::thread::{self, ThreadId};

static CURRENT: ContextVar<LoopHandle> = ContextVar::new();

/// A handle of an event loop: of an [`EventLoop`](crate::EventLoop), of the one that [`block_on`](crate::block_on) makes, or
/// of [another runtime](Self::from_spawner). Clones are handles of the same loop.
///
/// It does not keep the loop alive. When that has ended, tasks and calls are dropped as they are handed in.
///
/// ```
/// use offthread::{LoopHandle, block_on, threaded};
///
/// let answer = block_on(async {
///     let handle = LoopHandle::current();
///     // In a thread, which runs something on the loop:
///     threaded(move || handle.sync_wait(async { 6 * 7 })).await
/// });
/// assert_eq!(answer.unwrap(), 42);
/// ```
#[derive(Clone)]
pub struct LoopHandle(Kind);

#[derive(Clone)]
enum Kind {
    Ours(Arc<Reactor>),
    Foreign(Arc<Foreign>),
}

type Spawn = Box<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

/// Another runtime.
pub struct Foreign {
    spawn: Spawn,
    pool: Mutex<Option<ThreadPool>>,
    /// The threads on which one of our tasks is being polled, or dropped.
    polling: Mutex<Vec<ThreadId>>,
}

impl Foreign {
    /// Notes that this thread polls, or drops, one of its tasks, until what it returns is dropped.
    pub fn polls_here(this: &Arc<Self>) -> impl Drop + use<> {
        struct Polls(Arc<Foreign>);
        impl Drop for Polls {
            fn drop(&mut self) {
                let here = thread::current().id();
                let mut polling = self.0.polling.lock();
                if let Some(at) = polling.iter().position(|thread| *thread == here) {
                    polling.swap_remove(at);
                }
            }
        }
        this.polling.lock().push(thread::current().id());
        Polls(this.clone())
    }
}

impl LoopHandle {
    pub(crate) fn of(reactor: &Arc<Reactor>) -> Self {
        Self(Kind::Ours(reactor.clone()))
    }

    /// The loop that this code belongs to: the one that runs it, or the one that the job was started from which it runs in.
    ///
    /// # Panics
    /// If it belongs to none.
    #[track_caller]
    pub fn current() -> Self {
        match Self::try_current() {
            Some(handle) => handle,
            None => panic!(
                "there is no event loop here: run this in `block_on`, in a job that was started from there, or in `LoopHandle::enter`"
            ),
        }
    }

    /// The loop that this code belongs to, if there is one.
    pub fn try_current() -> Option<Self> {
        context::complete();
        CURRENT.get()
    }

    /// Makes this the current loop while `f` runs: for threads that this crate did not start.
    ///
    /// As in [`Context::run`], what `f` does to context variables does not leak out.
    ///
    /// ```
    /// use offthread::{LoopHandle, block_on, oneshot, sync_await};
    ///
    /// block_on(async {
    ///     let (sender, receiver) = oneshot::channel();
    ///     let handle = LoopHandle::current();
    ///     std::thread::spawn(move || handle.enter(|| sender.send(sync_await(async { "from the loop" }))));
    ///     assert_eq!(receiver.await, Ok("from the loop"));
    /// });
    /// ```
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        self.context().within(f)
    }

    /// Makes this the current loop, in the current context.
    pub(crate) fn become_current(&self) {
        CURRENT.set(self.clone());
    }

    /// A copy of the current context in which this is the current loop.
    pub(crate) fn context(&self) -> Context {
        let mut context = Context::current();
        if !CURRENT.peek(|current| current.is_some_and(|current| current.is(self))) {
            context.within(|| self.become_current());
        }
        context
    }

    fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Ours(one), Kind::Ours(other)) => Arc::ptr_eq(one, other),
            (Kind::Foreign(one), Kind::Foreign(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Whether blocking this thread would block the loop.
    pub(crate) fn is_here(&self) -> bool {
        match &self.0 {
            Kind::Ours(reactor) => reactor.is_here(),
            Kind::Foreign(foreign) => foreign.polling.lock().contains(&thread::current().id()),
        }
    }

    /// Runs a future on this loop, and returns its handle. From any thread; never blocks.
    ///
    /// The task gets a copy of the caller's context, in which this is the current loop. If the loop is closed the future is
    /// dropped at once, and the handle resolves with [`JoinError::Cancelled`](crate::JoinError::Cancelled).
    ///
    /// # Synchronization
    /// What was done before happens before the task's first poll.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_to_start(Start::InTurn, future)
    }

    /// As [`spawn`](Self::spawn), with a choice of when it is polled for the first time.
    pub(crate) fn spawn_to_start<F>(&self, start: Start, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match &self.0 {
            Kind::Ours(reactor) => {
                let (header, body, handle) = task(Home::ours(reactor), self.context(), future);
                match Local::of(reactor) {
                    Some(local) => local.spawn(header, Box::pin(body), start),
                    None => drop(reactor.send(Letter::Spawn(header, Box::pin(body), start))),
                }
                handle
            }
            Kind::Foreign(foreign) => {
                let (_, body, handle) = task(Home::foreign(foreign), self.context(), future);
                (foreign.spawn)(Box::pin(body));
                handle
            }
        }
    }

    /// Runs a future on the current loop, which must be this thread's.
    #[track_caller]
    pub(crate) fn spawn_here<F: Future + 'static>(future: F) -> Task<F::Output> {
        context::complete();
        let of = |reactor: &Arc<Reactor>| match Local::running() {
            Some(running) => Some(running).filter(|running| Arc::ptr_eq(&running.reactor, reactor)),
            // In a job that is run where it is waited for, on the loop's thread, it is as in any other.
            None => Local::of(reactor).filter(|_| cancel::current_id().is_none()),
        };
        let local = CURRENT.peek(|current| match current {
            Some(Self(Kind::Ours(reactor))) => Some(of(reactor)),
            Some(Self(Kind::Foreign(_))) => Some(None),
            None => None,
        });
        match local {
            Some(Some(local)) => {
                let (header, body, handle) = task(Home::ours(&local.reactor), Context::current(), future);
                local.spawn(header, Box::pin(body), Start::InTurn);
                handle
            }
            Some(None) => panic!(
                "spawn was called on another thread than the event loop's, and a future that is not `Send` cannot go there: use `LoopHandle::spawn`"
            ),
            None => panic!("spawn was called where there is no event loop: run this in `block_on`"),
        }
    }

    /// Has the loop call `f` soon, after what it has been asked for before. From any thread; never blocks.
    ///
    /// `f` runs in a copy of the caller's context. If it panics, nobody hears of it but the panic hook. If the loop is
    /// closed, `f` is dropped.
    ///
    /// ```
    /// # offthread::block_on(async {
    /// let (sender, receiver) = offthread::oneshot::channel();
    /// offthread::LoopHandle::current().call_soon(move || sender.send("called").unwrap());
    /// assert_eq!(receiver.await, Ok("called"));
    /// # });
    /// ```
    pub fn call_soon(&self, f: impl FnOnce() + Send + 'static) {
        self.spawn(async move { f() }).detach();
    }

    /// The pool for jobs that name none. `None`: the loop is closed.
    pub(crate) fn default_pool(&self) -> Option<ThreadPool> {
        if self.is_closed() {
            return None;
        }
        let pool = self.pool().lock().clone();
        Some(pool.unwrap_or_else(|| ThreadPool::global().clone()))
    }

    /// From now on, jobs that are started from this loop and name no pool run in this one. Until then it is the
    /// [global](ThreadPool::global) one.
    pub fn set_default_pool(&self, pool: ThreadPool) {
        let mut default = self.pool().lock();
        // As it closes, a loop lets go of its pool: one that is set after that would stay.
        let unused = if self.is_closed() { Some(pool) } else { default.replace(pool) };
        drop(default);
        drop(unused);
    }

    fn pool(&self) -> &Mutex<Option<ThreadPool>> {
        match &self.0 {
            Kind::Ours(reactor) => &reactor.pool,
            Kind::Foreign(foreign) => &foreign.pool,
        }
    }

    /// Makes another runtime the loop: `spawn` is its function that runs a future.
    ///
    /// [`spawn`](Self::spawn), [`call_soon`](Self::call_soon), [`call_later`](Self::call_later),
    /// [`sync_wait`](Self::sync_wait) and [`sync_await`](crate::sync_await()) then run on that runtime. What the runtime drops
    /// before it has finished counts as cancelled. It is never closed, for all this crate knows; and as long as a task's handle
    /// exists, so does the waker that the runtime gave it, which may keep the runtime's task.
    ///
    /// ```
    /// use offthread::{LoopHandle, block_on, sync_await};
    ///
    /// // Any executor will do. This one has a thread for each future.
    /// let handle = LoopHandle::from_spawner(|future| drop(std::thread::spawn(|| block_on(future))));
    /// assert_eq!(handle.enter(|| sync_await(async { 6 * 7 })), 42);
    /// ```
    pub fn from_spawner(spawn: impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync + 'static) -> Self {
        Self(Kind::Foreign(Arc::new(Foreign {
            spawn: Box::new(spawn),
            pool: Mutex::new(None),
            polling: Mutex::new(Vec::new()),
        })))
    }

    /// Whether the loop has ended. It stays so.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Kind::Ours(reactor) => reactor.is_closed(),
            Kind::Foreign(_) => false,
        }
    }
}

impl fmt::Debug for LoopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopHandle").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}
