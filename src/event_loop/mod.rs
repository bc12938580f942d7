//! The event loop: runs futures on one thread.
//!
//! # What it promises
//! [`block_on`] runs a future to its end, and beside it the tasks that the future spawns, all on the calling thread.
//! When there is nothing to do, the thread sleeps until a deadline or a wake. Futures are polled and dropped on that
//! thread only, so they need not be `Send`. A wake by the loop's own thread takes no lock and makes no system call.
//! Several wakes from other threads wake a sleeping loop once.
//!
//! The simplest version: `examples/made_7_event_loop.rs`.
//!
//! # How
//! [`block_on`] polls its main future and runs a round of the loop, alternately. A round polls the queued tasks, and
//! sleeps in the reactor if no task is queued. The loop is made when something first needs it; until then
//! `frames::turn` parks the thread. The main future gets the waker of the [`parker`](crate::primitives::parker).
//!
//! ```text
//!   other threads                 |   the loop's thread
//!                         send    |              drain
//!   LoopHandle, Task, --------> Reactor: inbox ---------> Tasks: slots, and a queue of those that are to be polled
//!   wakers of tasks               |      timers --------->    ^
//!                                 |              fire         | wake, spawn: by the loop's own thread, without a lock
//!   the main future's waker ---> parker                       |
//!                                 |   block_on: the main future, a round, the main future, a round, ...
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `timers.rs` | deadlines, in order |
//! | `state.rs` | one task's state: queued, cancelled, ended |
//! | `inbox.rs` | messages of other threads, and a task as its scheduler keeps it |
//! | `foreign.rs` | another runtime as the loop |
//! | `reactor.rs` | what an idle loop sleeps in |
//! | `tasks.rs` | slots and run queue, on the loop's own thread |
//! | `frames.rs` | which loops are this thread's, which one runs, and what a `block_on` sleeps in |
//! | `task.rs` | how a task is made and woken; `Task` |
//! | `handle.rs` | `LoopHandle`; the current loop |
//!
//! # What can go wrong
//! The heads of the other files list their races, and `loom-tests/tests/event_loop.rs` has the models. In this file:
//! * The main future and a task are woken at once, and one of them is not polled: `main_and_task`.
#![forbid(unsafe_code)]

// In reading order: a file uses only files above it.
pub mod timers;
mod state;
mod inbox;
mod foreign;
mod reactor;
mod tasks;
mod frames;
mod task;
mod handle;

use std::future::IntoFuture;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};

use crate::context::Context;
use crate::event_loop::frames::Entered;
pub use crate::event_loop::frames::{run_external, running};
pub use crate::event_loop::handle::LoopHandle;
pub use crate::event_loop::reactor::{Reactor, wake_all};
pub use crate::event_loop::task::{NewTask, Task, TaskOutcome};
use crate::event_loop::tasks::Tasks;
use crate::pool::ThreadPool;
use crate::primitives::drop_queue::Apart;
use crate::primitives::parker::Parker;

/// Runs a future to its end on this thread, and returns its output.
///
/// The future gets an event loop of its own, on which it can [`spawn`] tasks. When the future has ended, the loop is
/// closed, and the tasks that are left are dropped on this thread.
///
/// Any future will do, whatever wakes it. The loop is made when something needs it: a future that only waits for other
/// threads costs no allocation, except in the first call on each thread, and in the first call of the program that
/// waits. A waker may take a lock or free memory: in a signal handler, call it only if both are allowed there.
///
/// ```
/// let (sender, receiver) = offthread::oneshot::channel();
/// std::thread::spawn(move || sender.send("from a thread"));
/// assert_eq!(offthread::block_on(receiver), Ok("from a thread"));
/// ```
///
/// The future has its own copy of the context. In this copy, this loop is the [current](LoopHandle::current) one,
/// already when [`into_future`](IntoFuture::into_future) is called.
///
/// # Panics
/// If the future panics, with its panic; and if `block_on` is called inside a running event loop: await the future
/// there instead. A job may call `block_on`.
///
/// # Blocking
/// Blocks the thread until the future has ended. When there is nothing to do, the thread yields its core for a moment,
/// up to some 50 microseconds, and then sleeps.
///
/// # Synchronization
/// All that a thread did before it woke the future's waker happens before the poll that this wake causes.
#[track_caller]
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let _entered = Entered::enter(None);
    Context::incomplete(LoopHandle::running_becomes_current, || until_ready(future))
}

/// Polls the main future until it is ready. In between, runs a round of its loop, or parks if there is no loop yet. A
/// poll may be spurious.
#[inline]
fn until_ready<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    Parker::with(|parker| {
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut TaskContext::from_waker(parker.waker())) {
                return output;
            }
            frames::turn(parker);
        }
    })
}

/// Runs a future beside the calling one, on the same thread, and returns its handle. The future need not be `Send`.
///
/// The task gets a copy of the current context, and is first polled after the tasks that were spawned before.
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
/// If there is no [current](LoopHandle::current) loop, or if the current loop is another thread's, as in a job: use
/// [`LoopHandle::spawn`] there.
#[track_caller]
pub fn spawn<F: Future + 'static>(future: F) -> Task<F::Output> {
    LoopHandle::spawn_local(future)
}

/// A single-threaded executor with timers, which can run several futures, one after the other. To run a single one, use
/// [`block_on`].
///
/// Tasks live on from one [`block_on`](Self::block_on) to the next; in between they do not run. Dropping the loop drops
/// its tasks. The loop stays on the thread that made it:
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
    tasks: Rc<Tasks>,
}

impl EventLoop {
    /// A loop whose jobs run in the [global](ThreadPool::global) pool.
    #[expect(clippy::new_without_default, reason = "a loop belongs to its thread: no `Default` makes one")]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Configures a loop.
    pub fn builder() -> EventLoopBuilder {
        EventLoopBuilder::default()
    }

    /// A handle, which may go to other threads.
    pub fn handle(&self) -> LoopHandle {
        LoopHandle(self.tasks.reactor.clone())
    }

    /// Runs a future to its end on this thread, and the loop's tasks beside it, and returns its output.
    ///
    /// As the function [`block_on`], except that the tasks that are left go on in the next call.
    ///
    /// # Panics
    /// As [`block_on`]. The loop can be used again.
    ///
    /// # Blocking
    /// As [`block_on`].
    #[track_caller]
    pub fn block_on<F: IntoFuture>(&mut self, future: F) -> F::Output {
        let _entered = Entered::enter(Some(&self.tasks));
        self.handle().context().within(|| until_ready(future))
    }
}

/// Closes the loop, and drops its tasks.
impl Drop for EventLoop {
    fn drop(&mut self) {
        // The tasks are gone when this returns, even if this is part of another drop.
        let _apart = Apart::begin();
        frames::end_loop(&self.tasks);
    }
}

impl_debug!(EventLoop);

/// Configures and makes an [`EventLoop`]. From [`EventLoop::builder`].
///
/// ```
/// use offthread::{EventLoop, threaded};
///
/// let mut event_loop = EventLoop::builder().pool_size(1).build();
/// assert_eq!(event_loop.block_on(threaded(|| 6 * 7)), 42);
/// ```
#[derive(Debug, Default)]
#[must_use = "nothing happens until `build`"]
pub struct EventLoopBuilder {
    pool: Option<ThreadPool>,
}

impl EventLoopBuilder {
    /// Jobs that name no pool run in a new pool with this number of threads. The pool closes with the loop, unless
    /// an iterable still uses it.
    ///
    /// # Panics
    /// If `threads` is 0.
    #[track_caller]
    pub fn pool_size(self, threads: usize) -> Self {
        assert!(threads > 0, "EventLoopBuilder::pool_size: threads is 0, but a pool needs at least one");
        self.pool(ThreadPool::new(threads))
    }

    /// Jobs that name no pool run in this pool.
    pub fn pool(mut self, pool: ThreadPool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Makes the loop, for this thread.
    pub fn build(self) -> EventLoop {
        EventLoop { tasks: frames::make_loop(self.pool) }
    }
}
