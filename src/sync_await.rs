//! The way back: from a thread, run a future on the event loop, and block for it.
//!
//! The future runs as a task, and the thread waits for the task's outcome. If the loop drops the task, that is an outcome
//! too. The thread also waits for its own job to be cancelled; then it drops the task's handle, which cancels the task.
//!
//! # What can go wrong
//! * The loop ends as a thread comes to wait, or while it waits: `sync_wait_close`, `sync_wait_close_while_it_waits`.
//! * The job that waits is cancelled: `sync_wait_cancel`.
#![forbid(unsafe_code)]

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::{error, fmt};

use crate::event_loop::{LoopHandle, block_on};
use crate::primitives::cancel::{CancelWatch, is_cancelled};
use crate::primitives::join_error::{JoinError, Panic};
use crate::primitives::parker::poll_until;

/// In a job: runs a future on the event loop that the job was started from, blocks this thread until it has ended, and
/// returns its output. Where there is no event loop: runs it right here.
///
/// ```
/// use offthread::{block_on, sync_await, threaded};
/// use std::time::Duration;
///
/// let slept = block_on(threaded(|| {
///     // Blocking code, which needs something that is async:
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
/// If the future panics, with its panic. If the loop ends before the future does; on the loop's own thread, where it would
/// wait for ever; and if the job is cancelled that calls it: see [`SyncWaitError`].
///
/// # Blocking
/// Until the future has ended. In a job of a pool another thread may run jobs meanwhile. A
/// [`timeout`](crate::timeout()) round the future sets it a limit, and drops it in time.
#[track_caller]
pub fn sync_await<F>(future: F) -> F::Output
where
    F: IntoFuture,
    F::IntoFuture: Send + 'static,
    F::Output: Send + 'static,
{
    let result = match LoopHandle::try_current() {
        Some(handle) => handle.sync_wait(future),
        None => here(future),
    };
    match result {
        Ok(output) => output,
        Err(SyncWaitError::Panicked(panic)) => panic.resume(),
        Err(error) => panic!("sync_await: {error}"),
    }
}

/// Runs the future on this thread, unless the job is cancelled that this is called in.
fn here<F: IntoFuture>(future: F) -> Result<F::Output, SyncWaitError> {
    let mut watch = CancelWatch::default();
    block_on(async {
        let mut future = pin!(future.into_future());
        poll_fn(|cx| poll_unless_cancelled(future.as_mut(), &mut watch, cx)).await
    })
}

fn poll_unless_cancelled<F: Future>(
    future: Pin<&mut F>,
    watch: &mut CancelWatch,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, SyncWaitError>> {
    match future.poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => watch.poll(cx).map(|()| Err(SyncWaitError::Cancelled)),
    }
}

impl LoopHandle {
    /// Runs a future on this loop, blocks this thread until it has ended, and returns its output. For any thread but the
    /// loop's own.
    ///
    /// [`into_future`](IntoFuture::into_future) is called on the calling thread. The future runs as a task, with a copy of
    /// the caller's context.
    ///
    /// # Errors
    /// See [`SyncWaitError`].
    ///
    /// # Blocking
    /// As [`sync_await`].
    pub fn sync_wait<F>(&self, future: F) -> Result<F::Output, SyncWaitError>
    where
        F: IntoFuture,
        F::IntoFuture: Send + 'static,
        F::Output: Send + 'static,
    {
        if self.is_closed() {
            return Err(SyncWaitError::LoopClosed);
        }
        if self.is_current_thread() {
            return Err(SyncWaitError::WouldDeadlock);
        }
        if is_cancelled() {
            return Err(SyncWaitError::Cancelled);
        }
        let mut outcome = self.spawn(future.into_future()).outcome();
        let mut watch = CancelWatch::default();
        let result = poll_until(None, |cx| poll_unless_cancelled(Pin::new(&mut outcome), &mut watch, cx));
        match result {
            Some(Ok(Ok(output))) => Ok(output),
            Some(Ok(Err(JoinError::Panicked(panic)))) => Err(SyncWaitError::Panicked(panic)),
            Some(Ok(Err(_))) => Err(SyncWaitError::LoopClosed),
            Some(Err(error)) => Err(error),
            None => unreachable!("there is no deadline that could pass"),
        }
    }
}

/// Why a thread that waited for a future on an event loop has no output. From [`LoopHandle::sync_wait`].
#[derive(Debug)]
#[non_exhaustive]
pub enum SyncWaitError {
    /// The loop had ended, or ended before the future did; or the runtime that is the loop dropped the future.
    LoopClosed,
    /// This is the loop's own thread: to wait here would stop the loop, and so the future. Await it instead.
    WouldDeadlock,
    /// The job that waited was cancelled. The future is dropped, on the loop's thread.
    Cancelled,
    /// The future panicked.
    Panicked(Panic),
}

impl fmt::Display for SyncWaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoopClosed => {
                f.write_str("the event loop ended before the future did: keep it running until its jobs have ended")
            }
            Self::WouldDeadlock => f.write_str(
                "this is the event loop's own thread, and waiting here would be a deadlock: await the future instead",
            ),
            Self::Cancelled => {
                f.write_str("the job that waited was cancelled: nobody wants its result, so it may as well return")
            }
            Self::Panicked(panic) => panic.fmt(f),
        }
    }
}

impl error::Error for SyncWaitError {}
