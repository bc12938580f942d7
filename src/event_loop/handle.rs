//! Handles of event loops, of this crate's and of other runtimes, for any thread.
//!
//! # What it promises
//! The current loop is a context variable: jobs and tasks inherit it, and pass it on. A loop runs tasks only. So a call
//! (`call_soon`, `call_later`) is a task that runs a closure.
//!
//! # What can go wrong
//! This file has no synchronisation of its own.
//! * A task is sent while the loop closes, and is lost or runs twice: `call_soon_close`.
//! * A task runs before one that another thread sent earlier: `callbacks_run_in_order_of_submission`.
#![forbid(unsafe_code)]

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use crate::context::{self, Context, ContextVar, WithContext};
use crate::event_loop::foreign::External;
use crate::event_loop::frames;
use crate::event_loop::inbox::{Entry, Message, SendEntry};
use crate::event_loop::reactor::Reactor;
use crate::event_loop::task::{NewTask, Task};
use crate::event_loop::tasks::Tasks;
use crate::pool::ThreadPool;
use crate::primitives::cancel;

static CURRENT: ContextVar<LoopHandle> = ContextVar::new();

/// A handle of an event loop: of an [`EventLoop`](crate::EventLoop), of the one that [`block_on`](crate::block_on)
/// makes, or of [another runtime](Self::from_spawner). Clones are handles of the same loop.
///
/// A handle does not keep the loop alive. After the loop has ended, new tasks and calls are dropped at once.
///
/// ```
/// use offthread::{LoopHandle, block_on, threaded};
///
/// let answer = block_on(async {
///     let handle = LoopHandle::current();
///     // In a thread: run a future on the loop, and block until it has ended.
///     threaded(move || handle.sync_wait(async { 6 * 7 })).await
/// });
/// assert_eq!(answer.unwrap(), 42);
/// ```
#[derive(Clone)]
pub struct LoopHandle(pub(crate) Arc<Reactor>);

impl LoopHandle {
    /// The current loop: the loop that runs this code, or the loop from which this code's job was started.
    ///
    /// The current loop belongs to the [context](crate::Context). In [`Context::run`](crate::Context::run) and
    /// [`Context::wrap`](crate::Context::wrap) it is the loop that was current where the context was copied.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn current() -> Self {
        match Self::try_current() {
            Some(handle) => handle,
            None => panic!(
                "no event loop is current: run this in `block_on`, in a job that was started there, or in `LoopHandle::enter`"
            ),
        }
    }

    /// The current loop, if there is one.
    pub fn try_current() -> Option<Self> {
        context::complete();
        CURRENT.get().or_else(|| {
            let running = Self(frames::running()?.reactor.clone());
            // At the end of a thread there may be no context: then the running loop counts as current.
            running.enter(|| CURRENT.with(|current| current.is_none())).then_some(running)
        })
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
    ///     let ask = move || sender.send(sync_await(async { "from the loop" }));
    ///     std::thread::spawn(move || handle.enter(ask));
    ///     assert_eq!(receiver.await, Ok("from the loop"));
    /// });
    /// ```
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        self.context().within(f)
    }

    /// Sets the running loop as the current one, in the current context.
    pub(crate) fn running_becomes_current() {
        frames::running().map(|tasks| CURRENT.set(Self(tasks.reactor.clone())));
    }

    /// A copy of the current context in which this is the current loop.
    pub(crate) fn context(&self) -> Context {
        let mut context = Context::current();
        if !Self::is_current(&self.0) {
            context.within(|| CURRENT.set(self.clone()));
        }
        context
    }

    /// Whether blocking this thread would block the loop.
    pub(crate) fn is_current_thread(&self) -> bool {
        let runtime = self.0.external.as_ref();
        runtime.map_or_else(|| frames::find(&self.0).is_some(), |runtime| runtime.is_current_thread())
    }

    fn is_current(reactor: &Arc<Reactor>) -> bool {
        CURRENT.with(|current| current.is_some_and(|current| Arc::ptr_eq(&current.0, reactor)))
    }

    /// Runs a future on this loop, and returns its handle. From any thread; never blocks.
    ///
    /// The task gets a copy of the caller's context, in which this loop is the current one. If the loop is closed, the
    /// future is dropped at once, and the handle resolves with [`JoinError::Cancelled`](crate::JoinError::Cancelled).
    ///
    /// ```
    /// use offthread::{LoopHandle, block_on, threaded};
    ///
    /// let answer = block_on(async {
    ///     let handle = LoopHandle::current();
    ///     // In a thread: the future runs on the loop, and the thread goes on.
    ///     let task = threaded(move || handle.spawn(async { 6 * 7 })).await;
    ///     task.await
    /// });
    /// assert_eq!(answer, 42);
    /// ```
    ///
    /// # Synchronization
    /// All that the caller did before this call happens before the task's first poll.
    pub fn spawn<F: Future<Output: Send> + Send + 'static>(&self, future: F) -> Task<F::Output> {
        self.start(NewTask::new(self.0.clone(), true), future)
    }

    /// Gives this loop a new task.
    pub(crate) fn start<R: Send + 'static>(
        &self,
        task: NewTask<R>,
        future: impl Future<Output = R> + Send + 'static,
    ) -> Task<R> {
        let (body, handle) = task.with(future, self.context());
        let entry = SendEntry::new(body);
        match frames::find(&self.0) {
            Some(tasks) => tasks.spawn(entry.into_local()),
            None => self.0.send(Message::Spawn(entry)),
        }
        handle
    }

    /// Runs a future on the current loop, which must be this thread's.
    #[track_caller]
    pub(crate) fn spawn_local<F: Future + 'static>(future: F) -> Task<F::Output> {
        let tasks = Self::current_tasks();
        let (body, handle) = NewTask::new(tasks.reactor.clone(), true).with(future, Context::current());
        tasks.spawn(Entry::new(body));
        handle
    }

    #[track_caller]
    fn current_tasks() -> Rc<Tasks> {
        context::complete();
        let tasks = match frames::running() {
            Some(running) if Self::is_current(&running.reactor) => Some(running),
            // A job that runs inline on the loop's thread is treated like any other job.
            _ if cancel::current_id().is_some() => None,
            _ => Self::try_current().and_then(|current| frames::find(&current.0)),
        };
        let Some(tasks) = tasks else {
            panic!(
                "spawn was called where no event loop of this thread is current: run this in `block_on`; or if the future \
                 is `Send`, use the `LoopHandle::spawn` of another thread's loop"
            )
        };
        tasks
    }

    /// Makes the loop call `f` soon. A loop of this crate calls `f` after the tasks and calls that the loop got before;
    /// another runtime chooses the order. From any thread; never blocks.
    ///
    /// `f` runs in a copy of the caller's context. If `f` panics, only the panic hook reports it. If the loop is
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
        let pool = self.0.pool.lock().clone();
        Some(pool.unwrap_or_else(|| ThreadPool::global().clone()))
    }

    /// From now on, jobs that are started from this loop and name no pool run in `pool`. By default they run in the
    /// pool of the [`EventLoopBuilder`](crate::EventLoopBuilder), or else in the [global](ThreadPool::global) pool.
    ///
    /// ```
    /// use offthread::{LoopHandle, ThreadPool, block_on, threaded};
    ///
    /// let pool = ThreadPool::new(1);
    /// block_on(async {
    ///     LoopHandle::current().set_default_pool(pool.clone());
    ///     threaded(|| ()).await;
    /// });
    /// assert_eq!(pool.stats().succeeded, 1);
    /// ```
    pub fn set_default_pool(&self, pool: ThreadPool) {
        let mut default = self.0.pool.lock();
        // A loop drops its pool as it closes. A pool that is set later would stay open while a handle of the loop
        // exists.
        let unused = if self.is_closed() { Some(pool) } else { default.replace(pool) };
        drop(default);
        drop(unused);
    }

    /// Makes a handle of another runtime, which serves as the event loop. `spawn` is the runtime's function that runs a
    /// future.
    ///
    /// [`spawn`](Self::spawn), [`call_soon`](Self::call_soon), [`call_later`](Self::call_later),
    /// [`sync_wait`](Self::sync_wait) and [`sync_await`](crate::sync_await()) then run on that runtime. A task that the
    /// runtime drops before it has finished counts as cancelled. Such a loop never counts as closed. Until a task has
    /// ended or is detached, its handle keeps the waker of the runtime's last poll. This waker may keep the runtime's
    /// task alive. A panic of `spawn` comes out of the call that starts the task.
    ///
    /// This crate knows that a thread belongs to the runtime only while the thread polls or drops a task that was
    /// started through this handle or a clone of it. In other code on the runtime's only thread, `sync_wait` and
    /// `sync_await` wait for ever.
    ///
    /// ```
    /// use offthread::{LoopHandle, block_on, sync_await};
    ///
    /// // Any executor will do. This one has a thread for each future.
    /// let handle = LoopHandle::from_spawner(|future| {
    ///     std::thread::spawn(|| block_on(future));
    /// });
    /// assert_eq!(handle.enter(|| sync_await(async { 6 * 7 })), 42);
    /// ```
    pub fn from_spawner(spawn: impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync + 'static) -> Self {
        Self(Reactor::new(None, Some(External::new(spawn))))
    }

    /// Whether the loop has ended. Once true, this stays true.
    pub fn is_closed(&self) -> bool {
        self.0.inbox.is_closed()
    }

    /// A future for which this loop is the current one, wherever it is polled and dropped. For futures that another
    /// runtime runs.
    ///
    /// As with [`Context::wrap`], the future has its own copy of the context.
    ///
    /// ```
    /// use offthread::{LoopHandle, block_on, sync_await, threaded};
    ///
    /// let handle = LoopHandle::from_spawner(|future| {
    ///     std::thread::spawn(|| block_on(future));
    /// });
    /// let job = || sync_await(async { "on the other runtime" });
    /// let wrapped = handle.wrap(async move { threaded(job).await });
    /// assert_eq!(block_on(wrapped), "on the other runtime");
    /// ```
    pub fn wrap<F: Future>(&self, future: F) -> WithContext<F> {
        self.context().wrap(future)
    }
}

impl_debug!(LoopHandle, is_closed());
