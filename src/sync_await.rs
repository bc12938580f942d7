//! Runs a future on the event loop for a thread, which blocks until the future has ended.
//!
//! The future runs as a task, and the thread waits for the task's outcome. If the loop drops the task, the outcome is
//! an error. The thread also waits for its own job to be cancelled. If the job is cancelled, the thread drops the
//! task's handle, which cancels the task, and `sync_await` unwinds the job.
//!
//! # What can go wrong
//! * The loop ends as a thread begins to wait, or while it waits: `sync_wait_close`, `sync_wait_close_while_it_waits`.
//! * The job that waits is cancelled: `sync_wait_cancel`.
#![forbid(unsafe_code)]

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::thread;

use crate::event_loop::{LoopHandle, block_on};
use crate::primitives::cancel::{CancelWatch, is_cancelled};
use crate::primitives::join_error::{JoinError, Panic, unwind_cancelled};
use crate::primitives::parker::poll_until;

/// In a job: runs a future on the event loop from which the job was started, blocks this thread until the future has
/// ended, and returns the future's output. Where there is no event loop, the future runs on this thread.
///
/// ```
/// use offthread::{block_on, sync_await, threaded};
/// use std::time::Duration;
///
/// let slept = block_on(threaded(|| {
///     // Blocking code that needs an async function:
///     sync_await(async {
///         offthread::sleep(Duration::from_millis(1)).await;
///         "slept"
///     })
/// }));
/// assert_eq!(slept, "slept");
/// ```
///
/// [`LoopHandle::sync_wait`] is the same with errors as values.
///
/// # Panics
/// If the future panics, with its panic. If the loop ends before the future does; and on the loop's own thread, where
/// this would wait for ever: see [`SyncWaitError`].
///
/// # Cancellation
/// If the job that calls this is cancelled, or the iterable closed, the future is dropped, and this does not return:
/// the job's code is unwound, which runs its destructors. This is not a panic: the panic hook is not called, and the
/// outcome of the job is [`JoinError::Cancelled`]. Code that must not be cut short uses
/// [`LoopHandle::sync_wait`]. In a destructor that runs during an unwind, and in a crate compiled with `panic =
/// "abort"`, a cancellation does not end the waiting.
///
/// # Blocking
/// Until the future has ended. In a job of a pool another thread may run jobs meanwhile. A
/// [`timeout`](crate::timeout()) around the future sets a limit.
#[track_caller]
pub fn sync_await<F: IntoFuture<IntoFuture: Send + 'static, Output: Send + 'static>>(future: F) -> F::Output {
    let mut watch = (!cfg!(panic = "abort") && !thread::panicking()).then(CancelWatch::default);
    let result = match LoopHandle::try_current() {
        Some(handle) => handle.wait_for(future, watch),
        None if watch.is_some() && is_cancelled() => Err(SyncWaitError::Cancelled),
        None => block_on(async {
            let mut future = pin!(future.into_future());
            poll_fn(|cx| poll_unless_cancelled(future.as_mut(), &mut watch, cx)).await
        }),
    };
    match result {
        Ok(output) => output,
        Err(SyncWaitError::Panicked(panic)) => panic.resume(),
        Err(SyncWaitError::Cancelled) => unwind_cancelled(),
        Err(error) => panic!("sync_await: {error}"),
    }
}

/// Polls the future, and then the `watch`, if there is one.
fn poll_unless_cancelled<F: Future>(
    future: Pin<&mut F>,
    watch: &mut Option<CancelWatch>,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, SyncWaitError>> {
    match (future.poll(cx), watch) {
        (Poll::Ready(output), _) => Poll::Ready(Ok(output)),
        (Poll::Pending, Some(watch)) => watch.poll(cx).map(|()| Err(SyncWaitError::Cancelled)),
        (Poll::Pending, None) => Poll::Pending,
    }
}

impl LoopHandle {
    /// Runs a future on this loop, blocks this thread until the future has ended, and returns its output. For any
    /// thread but the loop's own.
    ///
    /// [`into_future`](IntoFuture::into_future) is called on the calling thread. The future runs as a task, with a copy
    /// of the caller's context.
    ///
    /// # Errors
    /// See [`SyncWaitError`].
    ///
    /// # Blocking
    /// As [`sync_await`].
    pub fn sync_wait<F>(&self, future: F) -> Result<F::Output, SyncWaitError>
    where
        F: IntoFuture<IntoFuture: Send + 'static, Output: Send + 'static>,
    {
        self.wait_for(future, Some(CancelWatch::default()))
    }

    fn wait_for<F>(&self, future: F, mut watch: Option<CancelWatch>) -> Result<F::Output, SyncWaitError>
    where
        F: IntoFuture<IntoFuture: Send + 'static, Output: Send + 'static>,
    {
        let may_be_cancelled = watch.is_some();
        if may_be_cancelled && is_cancelled() {
            return Err(SyncWaitError::Cancelled);
        }
        if self.is_closed() {
            return Err(SyncWaitError::LoopClosed);
        }
        if self.is_current_thread() {
            return Err(SyncWaitError::WouldDeadlock);
        }
        let mut outcome = self.spawn(future.into_future()).outcome();
        let result = poll_until(None, |cx| poll_unless_cancelled(Pin::new(&mut outcome), &mut watch, cx));
        match result {
            Some(Ok(Ok(output))) => Ok(output),
            Some(Ok(Err(JoinError::Panicked(panic)))) => Err(SyncWaitError::Panicked(panic)),
            // The loop may have ended after the job was cancelled.
            Some(Ok(Err(_))) if may_be_cancelled && is_cancelled() => Err(SyncWaitError::Cancelled),
            Some(Ok(Err(_))) => Err(SyncWaitError::LoopClosed),
            Some(Err(error)) => Err(error),
            None => unreachable!("there is no deadline that could pass"),
        }
    }
}

/// Why a thread that waited for a future on an event loop got no output. From [`LoopHandle::sync_wait`].
///
/// ```
/// use offthread::{LoopHandle, SyncWaitError, block_on};
///
/// let handle = block_on(async { LoopHandle::current() });
/// match handle.sync_wait(async { 6 * 7 }) {
///     Ok(answer) => println!("{answer}"),
///     Err(SyncWaitError::LoopClosed) => println!("the loop has ended"), // this one
///     Err(SyncWaitError::Panicked(panic)) => panic.resume(),
///     Err(error) => println!("{error}"),
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum SyncWaitError {
    /// The loop ended before the future did, or before this call; or the runtime that is the loop dropped the future.
    LoopClosed,
    /// This is the loop's own thread: blocking it would stop the loop, and so the future. Await the future instead.
    WouldDeadlock,
    /// The job that waited was cancelled. The loop drops the future, if it was sent.
    Cancelled,
    /// The future panicked.
    Panicked(Panic),
}

impl_error!(SyncWaitError:
    Self::LoopClosed => "the event loop ended before the future did: keep it running until its jobs have ended",
    Self::WouldDeadlock => "this is the event loop's own thread, and waiting here would be a deadlock: await the future instead",
    Self::Cancelled => "the job that waited was cancelled: nobody wants its result, so it may as well return",
    Self::Panicked(panic) => "{panic}"
);
