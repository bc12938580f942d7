//! Tasks: how a task is made, its wakers, and the handle that awaits it.
//!
//! # What it promises
//! The handle resolves once: with the future's output, with its panic, or with [`JoinError::Cancelled`]. After a
//! `cancel` that returned true, the outcome is [`JoinError::Cancelled`]. A waker may outlive the task and the loop;
//! such a waker does nothing.
//!
//! # Who may touch what
//! 1. The future is part of the task's body. Only the scheduler polls and drops the body.
//! 2. The body has the sender of the output. If the body is dropped before the future has ended, the task counts as
//!    cancelled.
//!
//! # Synchronisation edges
//! Those of [`TaskState`] and of the oneshot.
//!
//! # What can go wrong
//! * A wake comes as the task ends, or later, and does harm: `wake_as_it_ends`, `stale_waker`.
//! * A wake comes as the loop closes: `wake_as_the_loop_closes`.
//! * A task is cancelled while it ends: `cancel_as_it_ends`.
//! * A task is cancelled while the loop sleeps, and nothing else would wake the loop: `cancel_of_a_sleeper`.
//! * A thread sees that the task has finished, but not the task's effects: `finished_publishes`.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};

use crate::context::Context;
use crate::event_loop::frames;
use crate::event_loop::inbox::{Body, Message};
use crate::event_loop::reactor::Reactor;
use crate::event_loop::state::{AnyTask, TaskState};
use crate::primitives::drop_queue::drop_flat;
use crate::primitives::framed::Framed;
use crate::primitives::join_error::{JoinError, catch_and_discard};
use crate::primitives::oneshot::{self, Receiving, Sending};

type Outcome<R> = Result<R, JoinError>;
type TaskCell<R> = oneshot::Shared<Head, Outcome<R>>;
type TaskSender<R> = Sending<Outcome<R>, Arc<TaskCell<R>>>;

/// The part of a task outside its oneshot.
pub struct Head {
    state: TaskState,
    reactor: Arc<Reactor>,
}

impl<R: 'static> AnyTask for TaskCell<R> {
    fn state(&self) -> &TaskState {
        &self.head.state
    }
}

impl<R: 'static> Wake for TaskCell<R> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Head { state, reactor } = &self.head;
        if state.mark_queued() {
            match frames::find(reactor) {
                Some(tasks) => tasks.queue(state),
                None => reactor.send(Message::Wake(self.clone())),
            }
        }
    }
}

impl Head {
    /// See [`Task::cancel`]. `wake` wakes the task, so that a scheduler on another thread drops the task.
    fn cancel(&self, wake: impl FnOnce()) -> bool {
        if !self.state.mark_cancelled() {
            return false;
        }
        match frames::find(&self.reactor) {
            Some(tasks) => tasks.remove(&self.state),
            None => wake(),
        }
        true
    }
}

/// A task's future, and what the scheduler needs to poll it.
type TaskBody<F> = Framed<F, Frame<<F as Future>::Output>>;

pub struct Frame<R> {
    /// `None` once the task has ended.
    output: Option<TaskSender<R>>,
    waker: Waker,
    context: Context,
}

impl<F: Future> Body for TaskBody<F> {
    fn state(&self) -> Option<&TaskState> {
        Some(&self.frame().output.as_ref()?.shared()?.head.state)
    }

    fn poll(self: Pin<&mut Self>, waker: Option<&Waker>) -> Poll<()> {
        let (mut future, Frame { output, waker: own, context }) = self.parts();
        let mut cx = task::Context::from_waker(waker.unwrap_or(own));
        let task = output.as_ref().and_then(Sending::shared);
        if !task.is_some_and(|task| task.head.state.begin(&cx)) {
            return Poll::Ready(());
        }
        context.within(|| {
            let Some(running) = future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
            let outcome = match catch_unwind(AssertUnwindSafe(|| running.poll(&mut cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(value)) => Ok(value),
                Err(payload) => Err(JoinError::caught(payload)),
            };
            end(future, output, Some(outcome));
            Poll::Ready(())
        })
    }

    fn cancel(self: Pin<&mut Self>) {
        let (future, Frame { output, context, .. }) = self.parts();
        if output.is_some() {
            context.within(|| end(future, output, None));
        }
    }
}

/// Drops a task's future, then ends the task. Three steps may panic: the future's `Drop`, the output's `Drop`, and the
/// waker of the task that awaits this one. Each panic is caught by itself: a second panic during an unwind would abort
/// the process.
fn end<F: Future>(
    mut future: Pin<&mut Option<F>>,
    output: &mut Option<TaskSender<F::Output>>,
    outcome: Option<Outcome<F::Output>>,
) {
    catch_and_discard(|| future.set(None));
    let Some(output) = output.take() else { return };
    let is_wanted = output.shared().is_some_and(|shared| shared.head.state.end());
    match outcome {
        Some(outcome) if is_wanted => catch_and_discard(|| drop(output.send(outcome))),
        unwanted => {
            catch_and_discard(|| drop(unwanted));
            catch_and_discard(|| drop(output));
        }
    }
}

/// A task that has no future yet.
pub struct NewTask<R> {
    output: TaskSender<R>,
    pub waker: Waker,
    handle: Task<R>,
}

impl<R: 'static> NewTask<R> {
    /// A task for this loop. For `is_queued`, see [`TaskState::new`].
    pub fn new(reactor: Arc<Reactor>, is_queued: bool) -> Self {
        let state = TaskState::new(is_queued, reactor.external.is_some());
        let (output, result) = oneshot::pair(Head { state, reactor });
        // The outcome may own the handle of another task.
        let discard = |outcome| drop_flat(outcome).unwrap_or_else(|payload| resume_unwind(payload));
        let Some(shared) = result.shared().cloned() else { unreachable!("it has received nothing yet") };
        Self { output, waker: shared.into(), handle: Task(TaskOutcome { result, wake: Wake::wake_by_ref, discard }) }
    }

    /// The body for the scheduler, and the handle for the user.
    pub fn with<F: Future<Output = R>>(self, future: F, context: Context) -> (Pin<Box<TaskBody<F>>>, Task<R>) {
        let frame = Frame { output: Some(self.output), waker: self.waker, context };
        (Box::pin(Framed::new(future, frame)), self.handle)
    }
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
/// Awaiting the handle resumes the task's panic. It also panics if the task was cancelled, or its loop was closed.
///
/// # Cancellation
/// Dropping the handle cancels the task: see [`cancel`](Self::cancel). [`detach`](Self::detach) opts out.
///
/// # Synchronization
/// All that the task did happens before its handle resolves.
#[must_use = "dropping the handle cancels the task; `detach` it to let it run without anyone waiting"]
pub struct Task<R>(TaskOutcome<R>);

/// A task's output or error: a future of `Result<R, JoinError>`. From [`Task::outcome`].
///
/// # Cancellation
/// Dropping it cancels the task, as dropping the [`Task`] does.
#[must_use = "dropping it cancels the task"]
pub struct TaskOutcome<R> {
    result: Receiving<Outcome<R>, Arc<TaskCell<R>>>,
    /// Wakes the task. A function pointer, since only the code that makes the task knows that `R` is `'static`, as
    /// `Wake` needs.
    wake: fn(&Arc<TaskCell<R>>),
    /// Drops an outcome that the handle gave up. A function pointer for the same reason.
    discard: fn(Option<Outcome<R>>),
}

impl<R> Task<R> {
    /// Cancels the task: its future is dropped, and never polled again. True: the task had not finished. Its outcome is
    /// [`JoinError::Cancelled`].
    ///
    /// On the loop's own thread the future has been dropped when this returns, except in two cases. If a task cancels
    /// itself, its future is dropped after the poll. If this is called in the `Drop` of a future, an output, a job or a
    /// context's value, the task's future is dropped right after that one. On any other thread, this tells the loop to
    /// drop the future, since a future does not leave the loop's thread. If another runtime is the loop, this tells the
    /// runtime to drop the future, on whichever thread this is called.
    ///
    /// False: the task has finished, or was cancelled before.
    pub fn cancel(&self) -> bool {
        let TaskOutcome { result, wake, .. } = &self.0;
        result.shared().is_some_and(|task| task.head.cancel(|| wake(task)))
    }

    /// Lets the task run without a handle. Its output is dropped on the loop's thread, or by this call, if the task has
    /// finished.
    pub fn detach(mut self) {
        if let Some((task, (outcome, waker))) = self.0.result.give_up() {
            task.head.state.detach();
            drop(waker);
            (self.0.discard)(outcome);
        }
    }

    /// Whether the task has ended: then awaiting it returns at once.
    pub fn is_finished(&self) -> bool {
        self.0.result.is_finished()
    }

    /// The outcome as a value: the task's output, its panic, or that it was cancelled.
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
        // The receiver gives up its waker first: cancelling must not wake the task that drops this.
        if let Some((task, (outcome, _waker))) = self.result.give_up() {
            task.head.cancel(|| (self.wake)(&task));
            (self.discard)(outcome);
        }
    }
}

impl_debug!(Task<R>, is_finished());

impl_debug!(TaskOutcome<R>);
