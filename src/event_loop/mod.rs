//! The event loop: runs futures on one thread.
//!
//! # What it promises
//! [`block_on`] runs a future to its end, and whatever tasks it spawns beside it, all on the calling thread; when there is
//! nothing to do the thread sleeps, until a deadline or until it is woken. Futures are polled and dropped on that thread
//! alone, so they need not be `Send`. A wake by the loop's own thread takes no lock and makes no system call; one from
//! outside wakes the sleeping loop once.
//!
//! # How
//! The main future is polled whenever the thread's own waker was woken, the [`parker`](crate::primitives::parker)'s.
//! Everything else is the loop's: what is on its thread stands in `local.rs`, what other threads see in `reactor.rs`, and a
//! task between the two in `task.rs`. The loop is made when it is first needed: a future that only waits for others needs
//! none.
//!
//! ```text
//!   other threads              |            the loop's thread
//!                      send    |  collect
//!   LoopHandle, wakers ----> Reactor --------> Local: slots of tasks, and the queue of those that are to be polled
//!   of tasks, Task             |  fire            |    ^
//!                            timers -----------+  |    | wake, spawn
//!                              |               |  v    |
//!   the main future's waker ----------------> block_on: main future, turn, main future, turn, ... or sleeps
//! ```
//!
//! # What can go wrong
//! The files' heads say it, and `loom-tests/tests/event_loop.rs` has the models. Here:
//! * The main future and a task are woken at once: `main_and_task`.
#![forbid(unsafe_code)]

mod handle;
mod local;
mod reactor;
mod task;
pub mod timers;

use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::ControlFlow;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use crate::context::Context;
pub use crate::event_loop::handle::LoopHandle;
use crate::event_loop::local::{Local, Run};
pub use crate::event_loop::reactor::{Reactor, Start};
pub use crate::event_loop::task::{Task, TaskOutcome};
use crate::pool::ThreadPool;
use crate::primitives::parker::Parker;

/// Runs a future to its end on this thread, and returns its output.
///
/// It is given an event loop of its own, on which it can [`spawn`] tasks. Those that are left when the future has ended are
/// dropped, on this thread, and then the loop is closed.
///
/// Any future will do, whoever wakes it. One that is ready at once costs no system call, and no allocation but in the first call
/// of its thread: the loop is made when something needs it.
///
/// ```
/// let (sender, receiver) = offthread::oneshot::channel();
/// std::thread::spawn(move || sender.send("from a thread"));
/// assert_eq!(offthread::block_on(receiver), Ok("from a thread"));
/// ```
///
/// The future has its own copy of the context, in which this loop is the [current](LoopHandle::current) one, already when
/// [`into_future`](IntoFuture::into_future) is called.
///
/// # Panics
/// If the future panics, with its panic; and if it is called inside a running event loop: await the future there instead.
/// In a job it is allowed.
///
/// # Blocking
/// Blocks the thread until the future has ended. When there is nothing to do: for some tens of microseconds by giving its
/// core away, then asleep.
///
/// # Synchronization
/// What a thread did before it woke the future's waker happens before the poll that this causes.
#[track_caller]
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let _run = Run::new(None);
    Context::incomplete(current_becomes_running, || until_ready(future))
}

/// Makes the loop that this code runs in the current one.
fn current_becomes_running() {
    if let Some(local) = Local::running() {
        LoopHandle::of(&local.reactor).become_current();
    }
}

/// Runs the main future and, once there is one, the loop that this code runs in.
#[inline]
fn until_ready<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    Parker::with(|parker| {
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut TaskContext::from_waker(parker.waker())) {
                return output;
            }
            loop {
                let rest = Run::local().map_or(ControlFlow::Continue(None), |local| local.turn(parker.waker()));
                let ControlFlow::Continue(deadline) = rest else { break };
                if parker.park(deadline) {
                    break;
                }
            }
        }
    })
}

/// On a loop of ours: takes in what has been handed in, and what timers are due, so that it stands in the queue before
/// what is woken next.
pub fn take_in() {
    if let Some(local) = Run::local() {
        local.take_in();
    }
}

/// Whether this code runs in that loop.
pub fn runs_here(reactor: &Arc<Reactor>) -> bool {
    Local::running().is_some_and(|local| Arc::ptr_eq(&local.reactor, reactor))
}

/// The loop that this code runs in, if it runs in one of ours.
pub fn running() -> Option<Arc<Reactor>> {
    Local::running().map(|local| local.reactor.clone())
}

/// Runs a future beside this one, on the same thread, and returns its handle. It need not be `Send`.
///
/// The task gets a copy of the current context. It is polled for the first time when the loop gets round to it, after those
/// that were spawned before.
///
/// ```
/// use std::rc::Rc;
///
/// offthread::block_on(async {
///     let shared = Rc::new("not Send");
///     let task = offthread::spawn({
///         let shared = shared.clone();
///         async move { shared.len() }
///     });
///     assert_eq!(task.await, shared.len());
/// });
/// ```
///
/// # Panics
/// If there is no [current](LoopHandle::current) loop, or if it is another thread's, as in a job: there,
/// [`LoopHandle::spawn`] does it.
#[track_caller]
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + 'static,
{
    LoopHandle::spawn_here(future)
}

/// A single-threaded executor with timers, for one who runs several futures on it one after the other. For one alone there
/// is [`block_on`].
///
/// Tasks live on from one call of [`block_on`](Self::block_on) to the next; in between they stand still. When the loop is
/// dropped, so are they. It stays on the thread that made it:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>() {}
/// is_send::<offthread::EventLoop>();
/// ```
///
/// ```
/// use offthread::{EventLoop, spawn};
///
/// let mut event_loop = EventLoop::new();
/// let task = event_loop.block_on(async { spawn(async { 6 * 7 }) });
/// assert_eq!(event_loop.block_on(task), 42);
/// ```
pub struct EventLoop {
    local: Rc<Local>,
}

impl EventLoop {
    /// A loop whose jobs run in the [global](ThreadPool::global) pool.
    #[expect(clippy::new_without_default, reason = "a loop belongs to its thread: nobody makes one by the way")]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// For a loop with a pool of its own.
    pub fn builder() -> EventLoopBuilder {
        EventLoopBuilder { pool: None }
    }

    /// A handle, which may go to other threads.
    pub fn handle(&self) -> LoopHandle {
        LoopHandle::of(&self.local.reactor)
    }

    /// Runs a future to its end on this thread, and the loop's tasks beside it, and returns its output.
    ///
    /// Otherwise as the function [`block_on`]; but the tasks that are left live on until the next call.
    ///
    /// # Panics
    /// As [`block_on`]. The loop is good for the next call.
    ///
    /// # Blocking
    /// As [`block_on`].
    #[track_caller]
    pub fn block_on<F: IntoFuture>(&mut self, future: F) -> F::Output {
        let _run = Run::new(Some(&self.local));
        self.handle().context().within(|| until_ready(future))
    }
}

/// Closes the loop, and drops its tasks.
impl Drop for EventLoop {
    fn drop(&mut self) {
        self.local.close();
    }
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop").finish_non_exhaustive()
    }
}

/// Makes an [`EventLoop`]. From [`EventLoop::builder`].
#[derive(Debug)]
#[must_use = "nothing happens until `build`"]
pub struct EventLoopBuilder {
    pool: Option<ThreadPool>,
}

impl EventLoopBuilder {
    /// Jobs that name no pool run in one of this loop's own, with so many threads. It closes with the loop.
    ///
    /// # Panics
    /// If `threads` is 0.
    pub fn pool_size(self, threads: usize) -> Self {
        assert!(threads > 0, "EventLoopBuilder::pool_size: threads is 0, but a pool needs at least one");
        self.pool(ThreadPool::new(threads))
    }

    /// Jobs that name no pool run in this one.
    pub fn pool(mut self, pool: ThreadPool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Makes the loop, for this thread.
    pub fn build(self) -> EventLoop {
        EventLoop { local: Local::new(self.pool) }
    }
}
