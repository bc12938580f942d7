//! Whether the job that the current code runs in was cancelled, and how to wait for that.
//!
//! # What it promises
//! [`is_cancelled`] tells the code of a job, or of an iterable, to end early: nobody wants its result any more, or its
//! pool was shut down. A [`CancelWatch`] is ready once [`is_cancelled`] is true, and its waker is woken at that moment.
//!
//! # State machine
//! ```text
//!   Stop:  running ------- set -------> stopped          (and wakes the watches of all jobs)
//! ```
//! A job's own flag is part of its state in `job`; a stream's is part of its state in the pool.
//!
//! # Who may touch what
//! 1. `CURRENT` points to the job that runs on this thread. [`run_as`] sets it while a closure runs, and then puts the
//!    outer job back.
//! 2. The watches are behind a lock. Wakers are woken and dropped outside the lock.
//!
//! # Synchronisation edges
//! | id | release side | acquire side | publishes | model |
//! |---|---|---|---|---|
//! | C1 | `Stop::set` | `Stop::is_set` | what the caller of `set` did before the call | `stop_publishes` |
//!
//! A watch registers its waker, then reads the flags. A canceller sets a flag, then looks for wakers. The lock orders
//! the two: the watch sees the flag, or the canceller finds the waker.
//!
//! # What can go wrong
//! * The job is cancelled, or its pool stopped, while a watch registers: `watch_cancel`, `watch_stop`.
//! * Two jobs of one pool wait, and only one is cancelled: `watch_beside_another`.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::ptr::{self, NonNull};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::primitives::parker::poll_until;
use crate::primitives::waker_map::{Key, WakerMap};
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering::{Acquire, Release};
use crate::sync::{Mutex, thread_local};

/// Tells the running jobs of a pool, or of a separate thread, to stop.
#[derive(Debug, Default)]
pub struct Stop {
    set: AtomicBool,
    /// The wakers of the watches, by the job that each watch is in.
    watches: Mutex<WakerMap>,
}

/// The address of a [`Running`], or [`STREAMS`].
pub type JobId = u64;

/// The number under which each stream of a pool registers a waker. So a shutdown wakes a stream also while none of its
/// code runs.
pub const STREAMS: JobId = 0;

impl Stop {
    /// From now on `is_cancelled` is true in all jobs.
    pub fn set(&self) {
        // ORDERING: Release [C1]: pairs with `is_set`; publishes what the caller did before `set`.
        self.set.store(true, Release);
        self.wake_jobs();
    }

    /// Whether `set` was called.
    pub fn is_set(&self) -> bool {
        // ORDERING: Acquire [C1]: pairs with `set`.
        self.set.load(Acquire)
    }

    /// Wakes all watches but those of [`STREAMS`], so that they look again.
    pub fn wake_jobs(&self) {
        self.wake(STREAMS + 1..=JobId::MAX);
    }

    /// Wakes the watches in these jobs.
    pub fn wake(&self, jobs: RangeInclusive<JobId>) {
        let woken = self.watches.lock().take(jobs);
        woken.into_iter().for_each(Waker::wake);
    }

    /// The waker will be woken once: when this job is cancelled, or when all jobs are to look again.
    pub fn register(&self, job: JobId, waker: Waker) -> Key {
        self.watches.lock().add(job, waker)
    }

    /// Takes the waker out again, if it has not been woken. The caller drops it.
    pub fn withdraw(&self, key: Key) -> Option<Waker> {
        self.watches.lock().remove(key)
    }
}

/// A running job or stream, as the code inside sees it.
pub trait Running {
    /// Whether it was cancelled, or its pool has stopped.
    fn is_cancelled(&self) -> bool;
    /// The stop flag of its pool, or of its separate thread.
    fn stop(&self) -> &Stop;
}

impl dyn Running {
    /// No other running job or stream has the same id. While generators of a pool wait for room, all of them have one
    /// id: that of the pool.
    pub fn id(&self) -> JobId {
        ptr::from_ref(self).addr() as JobId
    }
}

thread_local! {
    /// The job that this thread runs: the innermost, if a job runs another one.
    static CURRENT: Cell<Option<NonNull<dyn Running>>> = const { Cell::new(None) };
}

/// Whether the job that this code runs in was cancelled, its handle dropped, or its pool shut down; or whether the
/// iterable was closed.
///
/// A closure cannot be interrupted. A long one should ask from time to time, and return early. Outside of jobs and
/// iterables this is false.
///
/// ```
/// use offthread::{ThreadPool, is_cancelled};
///
/// let (started, has_started) = std::sync::mpsc::channel();
/// let job = ThreadPool::new(1).spawn(move || {
///     started.send(()).unwrap();
///     while !is_cancelled() {
///         std::thread::yield_now(); // a bit of the work
///     }
///     "stopped early"
/// });
/// has_started.recv().unwrap();
/// assert!(!job.cancel()); // too late to keep it from running, but it is told
/// assert_eq!(job.wait(), "stopped early");
/// ```
pub fn is_cancelled() -> bool {
    with_current(Running::is_cancelled).unwrap_or(false)
}

/// Sleeps for `timeout`, or until the job that this code runs in is cancelled. True: the job was cancelled.
///
/// For blocking code that waits between two pieces of work, and is to end soon after its cancellation. [`is_cancelled`]
/// says what counts as cancelled. Outside of jobs and iterables this only sleeps, and returns false. [`Duration::MAX`]
/// is for ever.
///
/// ```
/// use offthread::{threaded_separate, wait_cancelled};
/// use std::time::Duration;
///
/// let (beat, beats) = std::sync::mpsc::channel();
/// let job = threaded_separate(move || {
///     while !wait_cancelled(Duration::from_millis(1)) {
///         beat.send(()).unwrap();
///     }
/// })
/// .async_call();
/// beats.recv().unwrap();
/// drop(job); // ends the thread
/// while beats.recv().is_ok() {}
/// ```
///
/// # Blocking
/// Up to `timeout`. In a job of a pool another thread may run jobs meanwhile. On an event loop's thread this stops the
/// loop: await [`sleep`](crate::sleep()) there.
pub fn wait_cancelled(timeout: Duration) -> bool {
    let mut watch = CancelWatch::default();
    poll_until(Instant::now().checked_add(timeout), |cx| watch.poll(cx)).is_some()
}

/// Runs `code` as the code of this job.
#[inline]
pub fn run_as<R>(job: &(dyn Running + 'static), code: impl FnOnce() -> R) -> R {
    /// Puts the outer job back, also after a panic.
    struct Former(Option<NonNull<dyn Running>>);
    impl Drop for Former {
        fn drop(&mut self) {
            CURRENT.with(|current| current.set(self.0));
        }
    }
    let _former = Former(CURRENT.with(|current| current.replace(Some(NonNull::from(job)))));
    code()
}

/// Calls `f` with the job that this code runs in, if there is one.
#[inline]
fn with_current<R>(f: impl FnOnce(&(dyn Running + 'static)) -> R) -> Option<R> {
    // SAFETY: rule 1: while the pointer is set, a `run_as` further down this thread's stack borrows the job.
    CURRENT.with(Cell::get).map(|job| f(unsafe { job.as_ref() }))
}

/// The identity of the job that this code runs in.
#[inline]
pub fn current_id() -> Option<JobId> {
    with_current(<dyn Running>::id)
}

/// Waits until [`is_cancelled`] is true for the job that this code runs in. Keep it in a local variable: it must not
/// outlive the job. Dropping it withdraws the waker.
#[derive(Debug, Default)]
pub struct CancelWatch {
    key: Option<Key>,
    /// It stays on the job's thread.
    _not_send: PhantomData<*const ()>,
}

impl CancelWatch {
    /// Ready once the job is cancelled. Outside a job: never.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let is_cancelled = with_current(|job| {
            // Register, then look again.
            drop(self.key.and_then(|key| job.stop().withdraw(key)));
            self.key = Some(job.stop().register(job.id(), waker));
            job.is_cancelled()
        });
        if is_cancelled == Some(true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for CancelWatch {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            drop(with_current(|job| job.stop().withdraw(key)));
        }
    }
}
