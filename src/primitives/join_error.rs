//! Why a job or a task has no result.
//!
//! **Promise.** A [`JoinError`] is `Send` and `Sync`, so `?` works with any error box. The payload of a panic is not
//! lost: [`Panic`] gives it back. If [`unwind_cancelled`] unwinds a job, the error is `Cancelled`, not a panic.
//!
//! There is no state and no synchronisation in this file, and no model.

use std::any::Any;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind};
use std::{error, fmt, io, mem};

/// Why a job or a task has no result: the error of their `outcome`s.
///
/// ```
/// use offthread::{JoinError, ThreadPool};
///
/// let pool = ThreadPool::new(1);
/// pool.shutdown();
/// match pool.spawn(|| 6 * 7).outcome().wait() {
///     Ok(answer) => println!("{answer}"),
///     Err(JoinError::Panicked(panic)) => panic.resume(),
///     Err(JoinError::Cancelled) => println!("the pool is closed"), // this one
///     Err(error) => println!("{error}"),                          // no thread
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError {
    /// The closure, or the future, panicked.
    Panicked(Panic),
    /// A job: it was cancelled before it started, or [`sync_await`](crate::sync_await()) ended it after it was
    /// cancelled, or its pool was closed. A task: it was cancelled before it had finished, or its event loop was
    /// closed.
    Cancelled,
    /// The system refused to start a thread, and there was no other thread that could have run the job.
    NoThread(io::Error),
}

/// The payload with which cancelled code unwinds.
struct Cancellation;

/// Unwinds the code of a cancelled job, as a panic would, but without the panic hook.
pub fn unwind_cancelled() -> ! {
    resume_unwind(Box::new(Cancellation))
}

/// Whether this payload is that of [`unwind_cancelled`].
pub fn is_cancellation(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Cancellation>()
}

impl JoinError {
    /// From a payload that `catch_unwind` has caught: of a panic, or of [`unwind_cancelled`].
    pub(crate) fn caught(payload: Box<dyn Any + Send>) -> Self {
        if is_cancellation(&*payload) { Self::Cancelled } else { Self::Panicked(Panic(Box::new(payload))) }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(panic) => panic.fmt(f),
            Self::Cancelled => f.write_str("it was cancelled, or the pool or the event loop that had it was closed"),
            Self::NoThread(error) => write!(f, "no thread could be started for the job: {error}"),
        }
    }
}

impl error::Error for JoinError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::NoThread(error) => Some(error),
            _ => None,
        }
    }
}

/// A panic that was caught in a job or a task. The payload can be taken out, but not borrowed, so a `Panic` is `Sync`.
pub struct Panic(
    /// Boxed twice, so that a [`JoinError`], and with it every job, takes a word less.
    Box<Box<dyn Any + Send>>,
);

// SAFETY: a shared `Panic` gives access through `message` only, which reads the payload's type, and the payload only if
// that is `&str` or `String`: both are `Sync`.
unsafe impl Sync for Panic {}

/// The payload can only be taken out.
impl UnwindSafe for Panic {}
impl RefUnwindSafe for Panic {}

/// `io::Error` has neither trait, since it may hold any error. Shared access to a `JoinError` only reads that error.
impl UnwindSafe for JoinError {}
impl RefUnwindSafe for JoinError {}

impl Panic {
    /// The payload, as `std::panic::catch_unwind` would have given it.
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        *self.0
    }

    /// The panic's message, if the payload is a string, as it is for `panic!` with a message. Else a placeholder.
    pub fn message(&self) -> &str {
        let text = self.0.downcast_ref::<&str>().copied();
        text.or_else(|| self.0.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
    }

    /// Resumes the panic on this thread. The panic hook is not called again.
    pub fn resume(self) -> ! {
        resume_unwind(*self.0)
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panic").field(&self.message()).finish()
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it panicked: {}", self.message())
    }
}

/// Runs user code (a `Drop`, a waker) whose panic must not reach the caller. Only the panic hook reports it.
pub fn catch_and_discard(work: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
        discard(payload);
    }
}

/// Drops a panic's payload. If that panics, the new payload is leaked: its `Drop` might panic as well, without end.
pub fn discard(payload: Box<dyn Any + Send>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(payload);
    }
}
