//! A blocking closure that runs once on some thread, the handle that awaits its result, and the entries of a queue.
//!
//! # What it promises
//! A job's closure runs once, or is dropped without running. When `cancel` returns true, the closure has been dropped
//! (but see [`drop_flat`]). In all cases the handle resolves exactly once: with the closure's result, with its panic,
//! with [`JoinError::Cancelled`] or with [`JoinError::NoThread`]. If a handle cancels its job or runs the job inline,
//! the [`JobOwner`] is told before the handle resolves. No handle waits for a job that nobody will run: a [`Queued`] or
//! [`Started`] that is dropped resolves its job.
//!
//! The simplest version: `examples/made_5_job_handles.rs`.
//!
//! # State machine
//! ```text
//!         claim: by a worker, by a handle that waits, or to refuse it
//! QUEUED -----------------------------------------------------> CLAIMED
//!    |                                                             | cancel
//!    | cancel, or drop of the handle: drops the closure,           v
//!    +---------------------------------------------------> CLAIMED|CANCELLED   is_cancelled() is true in the closure
//!      and sends `Cancelled`
//! ```
//! The first to set `CLAIMED` gets the job's [`Claim`]. The claim is the right to take the closure, and to send the
//! result through the job's oneshot. Any thread may have the claim: a worker, a thread that waits for the job, a thread
//! that cancels it, or a thread that refuses it, since the pool is closed or the entry is dropped. The entry of a
//! claimed job that is still in its queue is *stale*: dropping the entry runs no user code.
//!
//! A queue also holds turns of streams. A stream keeps track of its claims itself: see [`Turns`].
//!
//! # Who may touch what
//! 1. A job makes one `Claim`. The claim stays together with its job, in one function or in one [`Started`].
//! 2. Only code with a `&mut Claim` of this job touches `func`.
//! 3. The sender of the job's core is the code that consumes the `Claim` of this job.
//! 4. The core's receiver is the job's handle.
//!
//! # Synchronisation edges
//! | id | release side | acquire side | publishes | model |
//! |---|---|---|---|---|
//! | J1 | `cancel` | `is_cancelled` | what the canceller did before it cancelled | `cancel_publishes` |
//!
//! A claim needs no ordering: it only has to go to one thread. A worker gets the closure through the queue's lock. A
//! thread that cancels the job, or runs it inline, gets the closure together with the handle. The result comes back by
//! the edges of `oneshot`.
//!
//! # What can go wrong
//! * A job is cancelled as it starts: its closure runs or is dropped, never both or neither: `cancel_start`.
//! * The handle is dropped while the job runs or ends: the result is dropped once: `drop_run`.
//! * A job is cancelled from two threads at once: one of the two calls returns true: `cancel_cancel`.
//! * A waiting thread runs a job inline while a worker takes the job from the queue: it runs once: `inline_start`.
//! * The closure, its result, or a panic's payload panics in `Drop`, or the handle's waker panics: see
//!   [`catch_and_discard`]. Only the `Drop` of the handle, `cancel` and `detach` pass such a panic on.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::Result as Caught;
use std::time::{Duration, Instant};

use crate::primitives::cancel::{Running, Stop, run_as};
use crate::primitives::drop_queue::{Apart, drop_flat};
use crate::primitives::join_error::{JoinError, catch_and_discard, discard};
use crate::primitives::oneshot::{Closed, Core, HasCore, Receiving, Shared};
use crate::primitives::parker::{self, poll_until};
use crate::sync::UnsafeCell;
use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const CLAIMED: u32 = 1;
const CANCELLED: u32 = 2;

/// Whether the job has been claimed, and whether it was cancelled.
///
/// Not a byte: x86-64 can set a bit and read its old value in one instruction, in all sizes but a byte.
struct State(AtomicU32);

/// The right to take a job's closure and to send its result. Each job makes one: see rule 1.
#[must_use = "without it nobody can resolve the job"]
struct Claim(());

impl State {
    /// Claims the job, to run it or to refuse it.
    fn claim(&self) -> Option<Claim> {
        // ORDERING: Relaxed: the claim goes to one caller, and publishes nothing (see the head).
        (self.0.fetch_or(CLAIMED, Relaxed) & CLAIMED == 0).then_some(Claim(()))
    }

    /// Cancels the job. `Some`: the job has not started, and never will.
    fn cancel(&self) -> Option<Claim> {
        // ORDERING: Release [J1]: pairs with `is_cancelled`; publishes what the canceller did before `cancel`.
        (self.0.fetch_or(CLAIMED | CANCELLED, Release) & CLAIMED == 0).then_some(Claim(()))
    }

    fn is_claimed(&self) -> bool {
        // ORDERING: Relaxed: a hint. A claimed job stays claimed.
        self.0.load(Relaxed) & CLAIMED != 0
    }

    fn is_cancelled(&self) -> bool {
        // ORDERING: Acquire [J1]: pairs with `cancel`.
        self.0.load(Acquire) & CANCELLED != 0
    }
}

/// The pool, or the separate thread, that runs a job. Its functions must not panic.
pub trait JobOwner: Send + Sync + 'static {
    /// A queued job was cancelled, and will not run. Its handle resolves next.
    fn cancelled(&self);
    /// The flag that tells its running jobs to stop.
    fn stop(&self) -> &Stop;
    /// Whether this thread, which is about to wait for a job, may run the job itself.
    fn may_run_inline(&self) -> bool {
        false
    }
    /// This thread has claimed a queued job, and runs it now.
    fn started_inline(&self) {}
    /// The job that this thread ran inline has ended. Its handle resolves next.
    fn ended_inline(&self, _how: Progress) {}
}

/// A step in the run of a job, or of a stream's turn: reported to the thread that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The closure has returned and is gone. The handle resolves next.
    Succeeded,
    /// The closure has panicked and is gone. The handle resolves next.
    Panicked,
    /// The closure was cut short, since the job was cancelled, and is gone. The handle resolves next.
    Cancelled,
    /// The stream's turn is over.
    TurnOver,
    /// User code runs next, which may take long: a waker, or the `Drop` of an unwanted result or of an iterator.
    UserCode,
}

/// The part of a job outside its oneshot.
struct Head<F, O> {
    state: State,
    func: UnsafeCell<Option<F>>,
    owner: O,
}

// SAFETY: `func` is touched by one thread at a time (rules 1 and 2). Any thread may be that one, so `F` is `Send`.
unsafe impl<F: Send, O: Sync> Sync for Head<F, O> {}

/// A closure and its result, in the one allocation of a job.
type JobCell<F, R, O> = Shared<Head<F, O>, Result<R, JoinError>>;

/// A job, or a stream, in its queue, with its types erased.
trait Runnable: Send + Sync {
    fn claim(&self) -> Option<Claim>;
    fn is_claimed(&self) -> bool;
    fn is_turn(&self) -> bool;
    /// Runs the closure, and resolves the handle.
    fn run(self: Arc<Self>, claim: Claim, tell: &mut dyn FnMut(Progress));
    /// Drops the closure, and resolves the handle. `Err`: the `Drop` panicked.
    fn refuse(&self, claim: Claim, error: JoinError) -> Caught<()>;
}

/// A job as its handle sees it.
trait Joinable<R>: HasCore<Result<R, JoinError>> + Send + Sync {
    /// See [`Job::cancel`].
    fn cancel(&self) -> bool;
    /// Drops a result that the handle gave up.
    fn discard(&self, result: Option<Result<R, JoinError>>);
    /// Runs the job on this thread, if nobody has claimed it and its owner allows it.
    fn run_inline(&self) -> Option<Result<R, JoinError>>;
}

impl<F: FnOnce() -> R + Send + 'static, R: Send + 'static, O: JobOwner> JobCell<F, R, O> {
    fn take_func(&self, _claim: &mut Claim) -> F {
        // SAFETY: rule 2: the borrowed claim is this job's, so no other thread touches the cell.
        match self.head.func.with_mut(|func| unsafe { &mut *func }.take()) {
            Some(func) => func,
            None => unreachable!("a claimed job runs, or is refused, once"),
        }
    }

    /// Runs the closure as the code of this job.
    fn call(&self, claim: &mut Claim) -> (Progress, Result<R, JoinError>) {
        let func = self.take_func(claim);
        match catch_unwind(AssertUnwindSafe(|| run_as(self, func))) {
            Ok(value) => (Progress::Succeeded, Ok(value)),
            Err(payload) => match JoinError::caught(payload) {
                JoinError::Cancelled => (Progress::Cancelled, Err(JoinError::Cancelled)),
                error => (Progress::Panicked, Err(error)),
            },
        }
    }

    /// Sends the result to the handle, or drops it if nobody wants it.
    fn resolve(&self, _claim: Claim, result: Result<R, JoinError>, tell: &mut dyn FnMut(Progress)) {
        // SAFETY: rule 3: the claim is this job's, and is given up here: this is the core's only `send`.
        let sent = unsafe { Core::send(self, result) };
        match sent {
            Ok(None) => {}
            Ok(Some(waker)) => {
                tell(Progress::UserCode);
                catch_and_discard(|| waker.wake());
            }
            Err(unwanted) => {
                tell(Progress::UserCode);
                drop_flat(unwanted).unwrap_or_else(discard);
            }
        }
    }
}

impl<F, R, O: JobOwner> Running for JobCell<F, R, O> {
    fn is_cancelled(&self) -> bool {
        self.head.state.is_cancelled() || self.head.owner.stop().is_set()
    }

    fn stop(&self) -> &Stop {
        self.head.owner.stop()
    }
}

impl<F: FnOnce() -> R + Send + 'static, R: Send + 'static, O: JobOwner> Runnable for JobCell<F, R, O> {
    fn claim(&self) -> Option<Claim> {
        self.head.state.claim()
    }

    fn is_claimed(&self) -> bool {
        self.head.state.is_claimed()
    }

    fn is_turn(&self) -> bool {
        false
    }

    fn run(self: Arc<Self>, mut claim: Claim, tell: &mut dyn FnMut(Progress)) {
        let (how, result) = self.call(&mut claim);
        tell(how);
        self.resolve(claim, result, tell);
    }

    fn refuse(&self, mut claim: Claim, error: JoinError) -> Caught<()> {
        let func = self.take_func(&mut claim);
        // The closure may own the handle of another job.
        let dropped = drop_flat(func);
        self.resolve(claim, Err(error), &mut |_| {});
        dropped
    }
}

impl<F: FnOnce() -> R + Send + 'static, R: Send + 'static, O: JobOwner> Joinable<R> for JobCell<F, R, O> {
    fn cancel(&self) -> bool {
        let Some(claim) = self.head.state.cancel() else {
            let id = (self as &dyn Running).id();
            self.stop().wake(id..=id);
            return false;
        };
        self.head.owner.cancelled();
        if let Err(payload) = self.refuse(claim, JoinError::Cancelled) {
            resume_unwind(payload);
        }
        true
    }

    fn discard(&self, result: Option<Result<R, JoinError>>) {
        // The result may own the handle of another job.
        drop_flat(result).unwrap_or_else(|payload| resume_unwind(payload));
    }

    fn run_inline(&self) -> Option<Result<R, JoinError>> {
        let owner = &self.head.owner;
        if self.head.state.is_claimed() || !owner.may_run_inline() {
            return None;
        }
        let mut claim = self.head.state.claim()?;
        owner.started_inline();
        let apart = Apart::begin();
        let (how, result) = self.call(&mut claim);
        drop(apart);
        owner.ended_inline(how);
        Some(result)
    }
}

/// A stream: it runs in turns on the threads of a pool. While it is paused, it is in no queue.
pub trait Turns: Send + Sync + 'static {
    /// Claims the turn that was queued, to run it or to refuse it. False: the turn was claimed before.
    #[must_use = "a turn that is claimed must be run or refused"]
    fn claim_turn(&self) -> bool;
    /// Whether no turn is queued.
    fn is_turn_claimed(&self) -> bool;
    /// Runs the turn that was claimed.
    fn run_turn(self: Arc<Self>, tell: &mut dyn FnMut(Progress));
    /// Refuses the turn that was claimed, which ends the stream with this error.
    fn refuse_turn(&self, error: JoinError);
}

impl<T: Turns> Runnable for T {
    fn claim(&self) -> Option<Claim> {
        self.claim_turn().then_some(Claim(()))
    }

    fn is_claimed(&self) -> bool {
        self.is_turn_claimed()
    }

    fn is_turn(&self) -> bool {
        true
    }

    fn run(self: Arc<Self>, _claim: Claim, tell: &mut dyn FnMut(Progress)) {
        self.run_turn(tell);
    }

    fn refuse(&self, _claim: Claim, error: JoinError) -> Caught<()> {
        self.refuse_turn(error);
        Ok(())
    }
}

/// An entry of a queue: a job, or a stream's turn. Dropping it resolves a job with [`JoinError::Cancelled`], and ends a
/// stream.
#[must_use = "dropping it cancels the job"]
#[allow(missing_debug_implementations, reason = "only the models see it")]
pub struct Queued(Option<Arc<dyn Runnable>>);

impl Queued {
    /// A stream's turn.
    pub fn turn(stream: Arc<impl Turns>) -> Self {
        Self(Some(stream))
    }

    /// Claims the job, or the turn, to run it or to refuse it. `None`: the entry is stale.
    pub fn claim(mut self) -> Option<Started> {
        self.take_claimed()
    }

    fn take_claimed(&mut self) -> Option<Started> {
        let entry = self.0.take()?;
        let claim = entry.claim()?;
        Some(Started(Some((entry, claim))))
    }

    /// Whether the job, or the turn, was claimed: this entry has nothing left to do, and dropping it runs no user code.
    pub fn is_stale(&self) -> bool {
        self.0.as_ref().is_none_or(|entry| entry.is_claimed())
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        drop(self.take_claimed());
    }
}

/// A job, or a turn, that has been claimed. Dropping it resolves a job with [`JoinError::Cancelled`], and ends a
/// stream.
#[must_use = "dropping it cancels the job"]
#[allow(missing_debug_implementations, reason = "only the models see it")]
pub struct Started(Option<(Arc<dyn Runnable>, Claim)>);

impl Started {
    /// Whether this is a stream's turn.
    pub fn is_turn(&self) -> bool {
        self.0.as_ref().is_some_and(|(entry, _)| entry.is_turn())
    }

    /// Runs the job, or the turn, on this thread, and reports the progress to `tell`.
    pub fn run(mut self, tell: &mut dyn FnMut(Progress)) {
        if let Some((entry, claim)) = self.0.take() {
            entry.run(claim, tell);
        }
    }

    /// Resolves the job, or ends the stream, with this error, and runs neither.
    pub fn refuse(mut self, error: JoinError) {
        self.take_refused(error);
    }

    fn take_refused(&mut self, error: JoinError) {
        if let Some((entry, claim)) = self.0.take() {
            entry.refuse(claim, error).unwrap_or_else(discard);
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.take_refused(JoinError::Cancelled);
    }
}

/// Makes a job: the entry for a queue, and the handle. One allocation.
pub fn job<F: FnOnce() -> R + Send + 'static, R: Send + 'static, O: JobOwner>(func: F, owner: O) -> (Queued, Job<R>) {
    let head = Head { state: State(AtomicU32::new(0)), func: UnsafeCell::new(Some(func)), owner };
    let cell: Arc<JobCell<F, R, O>> = Arc::new(Shared::new(head));
    (Queued(Some(cell.clone())), Job(Outcome(Receiving::new(cell))))
}

/// The handle of a blocking closure that runs in a thread: a future of what it returns.
///
/// ```
/// # offthread::block_on(async {
/// let job = offthread::threaded(|| 6 * 7).async_call();
/// assert_eq!(job.await, 42);
/// # });
/// ```
///
/// # Panics
/// Awaiting the handle resumes the job's panic. It also panics if the job was cancelled, or if no thread could be
/// started for the job. Await [`outcome`](Self::outcome) to get all these as values.
///
/// # Cancellation
/// Dropping the handle cancels the job: see [`cancel`](Self::cancel). [`detach`](Self::detach) opts out. If the job has
/// finished, its result is dropped with the handle. Dropping the handle panics if the `Drop` of the closure or of the
/// result does.
///
/// # Synchronization
/// All that the job did happens before its handle resolves.
#[must_use = "dropping the handle cancels the job; `detach` it to let it run without anyone waiting"]
pub struct Job<R>(Outcome<R>);

/// A job's result or error: a future of `Result<R, JoinError>`. From [`Job::outcome`].
///
/// # Cancellation
/// Dropping it cancels the job, as dropping the [`Job`] does.
#[must_use = "dropping it cancels the job"]
pub struct Outcome<R>(Receiving<Result<R, JoinError>, Arc<dyn Joinable<R>>>);

impl<R> Job<R> {
    /// Cancels the job. True: the job had not started, it never will, and its closure has been dropped. (Inside the
    /// `Drop` of a job's closure or result, of a task, or of a context's value, the closure is dropped only after that
    /// `Drop` has ended.)
    ///
    /// False: the job has started, or it was finished or cancelled before. In a job that has started,
    /// [`is_cancelled`](crate::is_cancelled) turns true, and a [`sync_await`](crate::sync_await()) unwinds the closure:
    /// the handle then yields [`JoinError::Cancelled`]. Nothing else interrupts a job that has started: the handle
    /// yields what the closure returns.
    ///
    /// ```
    /// use offthread::{JoinError, ThreadPool};
    ///
    /// let pool = ThreadPool::new(1);
    /// let (open, gate) = std::sync::mpsc::channel::<()>();
    /// let running = pool.spawn(move || gate.recv().is_err());
    /// let waiting = pool.spawn(|| unreachable!("it was cancelled"));
    /// assert!(waiting.cancel());
    /// assert!(matches!(waiting.outcome().wait(), Err(JoinError::Cancelled)));
    /// drop(open);
    /// assert!(running.wait());
    /// ```
    ///
    /// # Panics
    /// If the closure's `Drop` does.
    pub fn cancel(&self) -> bool {
        self.0.cancel()
    }

    /// Lets the job run without a handle. Its thread drops the result, or this call does, if the job has finished.
    ///
    /// ```
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// offthread::threaded(move || sender.send("it has run")).async_call().detach();
    /// assert_eq!(receiver.recv(), Ok("it has run"));
    /// ```
    ///
    /// # Panics
    /// If the job has finished, and the `Drop` of its result panics.
    pub fn detach(mut self) {
        if let Some((job, (result, waker))) = self.0.0.give_up() {
            drop(waker);
            job.discard(result);
        }
    }

    /// Whether the result is there: then awaiting it, or [`wait`](Self::wait), returns at once.
    pub fn is_finished(&self) -> bool {
        self.0.0.is_finished()
    }

    /// The outcome as a value: the job's result, its panic, or why it did not run.
    ///
    /// ```
    /// use offthread::{JoinError, block_on, threaded};
    ///
    /// let job = threaded(|| "seven".parse::<u8>().expect("a number")).async_call();
    /// match block_on(job.outcome()) {
    ///     Ok(number) => println!("{number}"),
    ///     Err(JoinError::Panicked(panic)) => assert!(panic.message().starts_with("a number")),
    ///     Err(error) => println!("it did not run: {error}"),
    /// }
    /// ```
    pub fn outcome(self) -> Outcome<R> {
        self.0
    }

    /// Blocks this thread until the job has finished, and returns its result.
    ///
    /// In a job of the same pool: if this job has not started yet, it runs on this thread, as long as the stack has
    /// room.
    ///
    /// # Panics
    /// As awaiting it does.
    ///
    /// # Blocking
    /// On an event loop's thread this stops the loop, and never returns if the job needs the loop: await the job there.
    #[track_caller]
    pub fn wait(self) -> R {
        Self::value(self.0.wait())
    }

    /// As [`wait`](Self::wait), but blocks no longer than `timeout`. [`Duration::MAX`] is for ever. A job that has not
    /// started does not run on this thread.
    ///
    /// ```
    /// use offthread::threaded;
    /// use std::time::Duration;
    ///
    /// let (open, gate) = std::sync::mpsc::channel();
    /// let job = threaded(move || gate.recv()).async_call();
    /// let job = job.wait_timeout(Duration::from_millis(1)).unwrap_err(); // the handle is back
    /// open.send(7).unwrap();
    /// assert_eq!(job.wait(), Ok(7));
    /// ```
    ///
    /// # Errors
    /// This handle, if the job has not finished in time. The job runs on.
    ///
    /// # Panics
    /// As awaiting it does.
    ///
    /// # Blocking
    /// As [`wait`](Self::wait), up to `timeout`.
    #[track_caller]
    pub fn wait_timeout(self, timeout: Duration) -> Result<R, Self> {
        self.0.wait_timeout(timeout).map(Self::value).map_err(Self)
    }

    /// The result of the job, or its panic.
    #[track_caller]
    pub(crate) fn value(outcome: Result<R, JoinError>) -> R {
        match outcome {
            Ok(value) => value,
            Err(JoinError::Panicked(panic)) => panic.resume(),
            Err(error) => panic!("{error}; to get this as a value, await the job's `outcome()`"),
        }
    }
}

impl<R> Outcome<R> {
    /// Blocks this thread until the job has finished, and returns its result or error.
    ///
    /// # Errors
    /// See [`JoinError`].
    ///
    /// # Blocking
    /// As [`Job::wait`].
    pub fn wait(mut self) -> Result<R, JoinError> {
        let Some(result) = self.0.shared().and_then(|job| job.run_inline()) else { return parker::block_on(self) };
        // Only a waker can be left: the result did not go through the core.
        drop(self.0.give_up());
        result
    }

    /// As [`wait`](Self::wait), but blocks no longer than `timeout`: see [`Job::wait_timeout`].
    ///
    /// # Errors
    /// This handle, if the job has not finished in time.
    ///
    /// # Blocking
    /// As [`Job::wait_timeout`].
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Result<R, JoinError>, Self> {
        let deadline = Instant::now().checked_add(timeout);
        poll_until(deadline, |cx| Pin::new(&mut self).poll(cx)).ok_or_else(|| {
            self.unwatch();
            self
        })
    }

    /// Stops waiting: drops the waker of the last poll.
    pub(crate) fn unwatch(&self) {
        self.0.unwatch();
    }

    /// As [`Job::cancel`].
    pub(crate) fn cancel(&self) -> bool {
        self.0.shared().is_some_and(|job| job.cancel())
    }
}

impl<R> Future for Job<R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        Pin::new(&mut self.0).poll(cx).map(Self::value)
    }
}

impl<R> Future for Outcome<R> {
    type Output = Result<R, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|result| match result {
            Ok(outcome) => outcome,
            Err(Closed) => panic!("a job's handle was polled again after it had given its result"),
        })
    }
}

impl<R> Drop for Outcome<R> {
    fn drop(&mut self) {
        // The waker is out of the core, so cancelling does not wake the very task that drops this.
        if let Some((job, (result, _waker))) = self.0.give_up() {
            job.cancel();
            job.discard(result);
        }
    }
}

impl_debug!(Job<R>, is_finished());

impl_debug!(Outcome<R>);
