//! Tasks: futures that an event loop polls; their wakers; and the handle that awaits one.
//!
//! # What it promises
//! A task's future is polled, and dropped, by its loop alone, on the loop's thread. Each wake is followed by a poll, however
//! often it is woken before that by one. A task that has been cancelled is not polled again. Its handle is resolved once:
//! with the future's output, with its panic, or with [`JoinError::Cancelled`]; and if a cancelling call returned true, with
//! nothing else. A waker may outlive the task and the loop, and does nothing then.
//!
//! # State machine
//! ```text
//!            wake, cancel: puts it in the queue
//!   (idle) ------------------------------------> QUEUED        CANCELLED: the handle wants no more of it
//!      ^                                            |          ENDED: it has finished, or its future has been dropped
//!      +------------- begin: it is polled ----------+          Of these two, whichever is set first counts.
//!                                                              DETACHED: nobody will cancel it
//! ```
//! [`Header`] is what a waker points to. The future, its [`Body`], is the loop's and does not leave its
//! thread.
//!
//! # Synchronisation edges
//! | id | release side | acquire side | publishes | model |
//! |---|---|---|---|---|
//! | T1 | `wake`: QUEUED, set already | `begin` | what was written before the wake | `two_wakers` |
//! | T2 | `cancel` | `begin` | what the canceller did before | `cancel_publishes` |
//!
//! A wake that has to put the task into a queue goes through that queue's lock besides, or is on the loop's own thread.
//!
//! # What can go wrong
//! * Woken from two threads at once: it is polled, and sees both: `two_wakers`.
//! * Woken twice: it is polled once: `woken_twice`.
//! * Woken as it is polled: `wake_during_its_poll`; as it ends, or after that: `wake_as_it_ends`, `stale_waker`; as the loop is
//!   closed: `wake_as_the_loop_closes`.
//! * Cancelled as it ends: `cancel_as_it_ends`; while nothing else would wake the loop: `cancel_of_a_sleeper`.
//! * A task of another runtime is cancelled, or detached, as it is polled: `foreign_cancel`, `foreign_detach`.
//! * The future, its output or a panic's payload panics in `Drop`: see [`catch_and_discard`].
#![forbid(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};

use crate::context::Context;
use crate::event_loop::handle::Foreign;
use crate::event_loop::local::{Key, Local};
use crate::event_loop::reactor::{Letter, Reactor};
use crate::primitives::framed::{Frame, Framed};
use crate::primitives::join_error::{JoinError, Panic, catch_and_discard};
use crate::primitives::oneshot::{self, Receiving, Sending};
use crate::primitives::waker_slot::WakerSlot;
use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const QUEUED: u32 = 1;
const CANCELLED: u32 = 2;
const ENDED: u32 = 4;
const DETACHED: u32 = 8;

/// What its wakers and its handle know of a task: shared with the hand-over of its output.
pub struct Header {
    /// Not a byte: see `Claim` in `job`.
    state: AtomicU32,
    home: Home,
}

type Outcome<R> = Result<R, JoinError>;
type TaskCell<R> = oneshot::Shared<Header, Outcome<R>>;

/// A task, whatever its output. To be polled it has to be found in its slot.
pub trait AnyTask: Send + Sync {
    fn header(&self) -> &Header;
    fn into_waker(self: Arc<Self>) -> Waker;
}

impl<R: 'static> AnyTask for TaskCell<R> {
    fn header(&self) -> &Header {
        &self.head
    }

    fn into_waker(self: Arc<Self>) -> Waker {
        self.into()
    }
}

/// Who polls the task.
pub enum Home {
    /// A loop of ours. The task's slot there is known to the loop alone.
    Ours { reactor: Arc<Reactor>, slot: AtomicU32, generation: AtomicU32 },
    /// Another runtime. Its waker is needed to cancel, and is kept for that alone: it may keep the runtime's task alive.
    Foreign(Box<ForeignHome>),
}

/// Boxed, as most tasks have none.
pub struct ForeignHome {
    foreign: Arc<Foreign>,
    waker: WakerSlot,
}

impl Home {
    pub fn ours(reactor: &Arc<Reactor>) -> Self {
        Self::Ours { reactor: reactor.clone(), slot: AtomicU32::new(u32::MAX), generation: AtomicU32::new(0) }
    }

    pub fn foreign(foreign: &Arc<Foreign>) -> Self {
        Self::Foreign(Box::new(ForeignHome { foreign: foreign.clone(), waker: WakerSlot::default() }))
    }

    /// Lets go of the other runtime's waker.
    #[inline]
    fn forget_waker(&self) {
        if let Self::Foreign(home) = self {
            catch_and_discard(|| drop(home.waker.take()));
        }
    }

    /// While what this returns exists, a wait for the other runtime on this thread is known for a deadlock.
    #[inline]
    fn enter(&self) -> Option<impl Drop + use<>> {
        match self {
            Self::Ours { .. } => None,
            Self::Foreign(home) => Some(Foreign::polls_here(&home.foreign)),
        }
    }
}

impl Header {
    /// Where the loop keeps the task. For the loop. Before it does, there is no such slot.
    pub fn key(&self) -> Key {
        match &self.home {
            // ORDERING: Relaxed: written and read on the loop's thread.
            Home::Ours { slot, generation, .. } => {
                Key { slot: slot.load(Relaxed), generation: generation.load(Relaxed) }
            }
            Home::Foreign(_) => Key { slot: u32::MAX, generation: 0 },
        }
    }

    pub fn set_key(&self, key: Key) {
        if let Home::Ours { slot, generation, .. } = &self.home {
            // ORDERING: Relaxed: as above.
            slot.store(key.slot, Relaxed);
            // ORDERING: Relaxed: as above.
            generation.store(key.generation, Relaxed);
        }
    }

    /// Whether the caller is to put it in a queue. (If it has ended, nothing will be found there.)
    #[must_use]
    #[inline]
    fn mark_queued(&self) -> bool {
        // ORDERING: Release [T1]: pairs with `begin`; publishes what the waker's caller did, if QUEUED was set already.
        self.state.fetch_or(QUEUED, Release) & QUEUED == 0
    }

    /// The task is about to be polled: from here on, a wake queues it again. False: it has been cancelled.
    #[must_use]
    #[inline]
    fn begin(&self) -> bool {
        // ORDERING: Relaxed: a wake's Release reaches through this to the load below.
        self.state.fetch_and(!QUEUED, Relaxed);
        // ORDERING: Acquire [T1, T2]: pairs with `mark_queued` and `mark_cancelled`; the poll sees what came before the wake.
        // (The two steps apart are an instruction each; as one, they would be a loop.)
        self.state.load(Acquire) & CANCELLED == 0
    }

    /// The task has ended. False: it had been cancelled before.
    #[inline]
    fn end(&self) -> bool {
        // ORDERING: Relaxed: which of two bits comes first is all that matters; the output goes through the oneshot.
        self.state.fetch_or(ENDED, Relaxed) & CANCELLED == 0
    }

    /// Whether nobody will cancel it any more.
    fn is_detached(&self) -> bool {
        // ORDERING: Relaxed: who detaches looks at the waker after this was set, and who polls registers it before this look;
        // the slot's edges order the two.
        self.state.load(Relaxed) & DETACHED != 0
    }

    fn detach(&self) {
        // ORDERING: Relaxed: as above.
        self.state.fetch_or(DETACHED, Relaxed);
        self.home.forget_waker();
    }

    /// Whether the caller is to tell who polls the task. False: it has ended, or was cancelled before.
    #[must_use]
    fn mark_cancelled(&self) -> bool {
        // ORDERING: Release [T2]: pairs with `begin`; publishes what the canceller did before.
        self.state.fetch_or(CANCELLED, Release) & (CANCELLED | ENDED) == 0
    }
}

/// Puts a task in its loop's queue.
#[inline]
fn enqueue<R: 'static>(task: &Arc<TaskCell<R>>) {
    let Home::Ours { reactor, .. } = &task.head.home else { return };
    if let Some(local) = Local::of(reactor) {
        local.queue(task.head.key());
    } else {
        // If the loop is closed the task has gone.
        drop(reactor.send(Letter::Wake(task.clone())));
    }
}

/// Cancels. On the loop's own thread the future has been dropped when this returns, unless it is being polled. True: it had
/// not finished, and never will.
fn cancel<R: 'static>(task: &Arc<TaskCell<R>>) -> bool {
    let header = &task.head;
    if !header.mark_cancelled() {
        return false;
    }
    match &header.home {
        Home::Ours { reactor, .. } => match Local::of(reactor) {
            Some(local) => local.drop_task(header),
            None if header.mark_queued() => enqueue(task),
            None => {}
        },
        Home::Foreign(home) => home.waker.wake(),
    }
    true
}

impl<R: 'static> Wake for TaskCell<R> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.head.mark_queued() {
            enqueue(self);
        }
    }
}

/// A task as its loop sees it: ready when it has ended. It never panics.
pub type Body = Pin<Box<dyn Future<Output = ()>>>;
/// The same, on its way from another thread.
pub type SendBody = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What goes with the future. Dropping it ends the task.
struct TaskFrame<R> {
    context: Context,
    /// `None` once it has been resolved.
    output: Option<Sending<Outcome<R>, Header>>,
}

impl<R> TaskFrame<R> {
    fn header(&self) -> Option<&Header> {
        Some(&self.output.as_ref()?.shared()?.head)
    }
}

impl<F: Future> Frame<F> for TaskFrame<F::Output> {
    /// `None`: it has been cancelled.
    type Outcome = Option<Outcome<F::Output>>;

    fn poll(&mut self, future: Pin<&mut F>, cx: &mut task::Context<'_>) -> Poll<Self::Outcome> {
        let Some(header) = self.header() else { return Poll::Ready(None) };
        if let Home::Foreign(home) = &header.home {
            // Register, then look.
            home.waker.register(cx.waker());
            if header.is_detached() {
                header.home.forget_waker();
            }
        }
        if !header.begin() {
            return Poll::Ready(None);
        }
        let _polling = header.home.enter();
        match catch_unwind(AssertUnwindSafe(|| self.context.within(|| future.poll(cx)))) {
            Ok(polled) => polled.map(|value| Some(Ok(value))),
            Err(payload) => Poll::Ready(Some(Err(JoinError::Panicked(Panic::new(payload))))),
        }
    }

    fn drop_future(&mut self, drop: impl FnOnce()) {
        let _polling = self.header().and_then(|header| header.home.enter());
        catch_and_discard(|| self.context.within(drop));
    }

    fn resolve(&mut self, outcome: Self::Outcome) {
        let _polling = self.header().and_then(|header| header.home.enter());
        let is_wanted = self.header().is_some_and(Header::end);
        if let Some(header) = self.header() {
            header.home.forget_waker();
        }
        match (self.output.take(), outcome) {
            (Some(output), Some(outcome)) if is_wanted => catch_and_discard(|| drop(output.send(outcome))),
            (output, outcome) => {
                catch_and_discard(|| drop(outcome));
                catch_and_discard(|| drop(output));
            }
        }
    }
}

impl<R> Drop for TaskFrame<R> {
    fn drop(&mut self) {
        if let Some(header) = self.header() {
            header.end();
            header.home.forget_waker();
        }
        catch_and_discard(|| drop(self.output.take()));
    }
}

/// Makes a task: itself, what the loop polls, and the handle.
pub fn task<F>(home: Home, context: Context, future: F) -> (Arc<dyn AnyTask>, impl Future<Output = ()>, Task<F::Output>)
where
    F: Future<Output: 'static>,
{
    let (output, result) = oneshot::pair(Header { state: AtomicU32::new(QUEUED), home });
    let Some(cell) = result.shared().cloned() else { unreachable!("it has only just been made") };
    let body = Framed::new(future, TaskFrame { context, output: Some(output) });
    (cell, body, Task(TaskOutcome { result, cancel }))
}

/// The handle of a future that an event loop polls: a future of its output.
///
/// ```
/// # offthread::block_on(async {
/// let task = offthread::spawn(async { 6 * 7 });
/// assert_eq!(task.await, 42);
/// # });
/// ```
///
/// # Panics
/// Awaiting it resumes the task's panic, if it panicked; it panics if the task was cancelled, or its loop was closed.
///
/// # Cancellation
/// Dropping it cancels the task: see [`cancel`](Self::cancel). [`detach`](Self::detach) opts out.
///
/// # Synchronization
/// All that the task did happens before its handle resolves.
#[must_use = "dropping the handle cancels the task; `detach` it to let it run without anyone waiting"]
pub struct Task<R>(TaskOutcome<R>);

/// What became of a task: a future of `Result<R, JoinError>`. From [`Task::outcome`].
///
/// # Cancellation
/// Dropping it cancels the task, as dropping the [`Task`] does.
#[must_use = "dropping it cancels the task"]
pub struct TaskOutcome<R> {
    result: Receiving<Outcome<R>, TaskCell<R>>,
    /// [`cancel`], which is there only for an `R` that borrows nothing. It is known where the task is made.
    cancel: fn(&Arc<TaskCell<R>>) -> bool,
}

impl<R> Task<R> {
    /// Cancels the task: its future is dropped, and it never runs again. True: it had not finished.
    ///
    /// On the loop's own thread the future has been dropped when this returns, unless it is the one that is running, or
    /// another task's future is just being dropped: then it comes next. From
    /// another thread the loop is told to drop it: a future does not leave its thread. Either way the outcome is
    /// [`JoinError::Cancelled`].
    ///
    /// False: it has finished, or was cancelled before.
    pub fn cancel(&self) -> bool {
        self.0.result.shared().is_some_and(self.0.cancel)
    }

    /// Lets the task run without anyone waiting. Its output is dropped on the loop's thread.
    pub fn detach(mut self) {
        if let Some((task, unwanted)) = self.0.result.give_up() {
            task.head.detach();
            drop(unwanted);
        }
    }

    /// Whether the task has ended: then awaiting it returns at once.
    pub fn is_finished(&self) -> bool {
        self.0.result.is_finished()
    }

    /// What becomes of the task, as a value: its output, its panic, or that it was cancelled.
    pub fn outcome(self) -> TaskOutcome<R> {
        self.0
    }
}

impl<R> Future for Task<R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<R> {
        Pin::new(&mut self.0).poll(cx).map(|outcome| match outcome {
            Ok(value) => value,
            Err(JoinError::Panicked(panic)) => panic.resume(),
            Err(error) => panic!("{error}; to get this as a value, await the task's `outcome()`"),
        })
    }
}

impl<R> Future for TaskOutcome<R> {
    type Output = Result<R, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        assert!(self.result.shared().is_some(), "a task's handle was polled again after it had given its result");
        Pin::new(&mut self.result).poll(cx).map(|result| result.unwrap_or(Err(JoinError::Cancelled)))
    }
}

impl<R> Drop for TaskOutcome<R> {
    fn drop(&mut self) {
        // First this end of the channel, with its waker: cancelling must not wake the very task that drops this.
        if let Some((task, unwanted)) = self.result.give_up() {
            (self.cancel)(&task);
            drop(unwanted);
        }
    }
}

impl<R> fmt::Debug for Task<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("is_finished", &self.is_finished()).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for TaskOutcome<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskOutcome").finish_non_exhaustive()
    }
}
