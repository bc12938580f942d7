//! A blocking closure that runs once on some thread, and the handle that awaits its result; and what else a queue holds.
//!
//! # What it promises
//! A job's closure runs at most once. It runs, or somebody cancels it before: then it never runs, and it has been dropped
//! when the cancelling call returns. Either way the handle is resolved exactly once: with the closure's result, with its
//! panic, with [`JoinError::Cancelled`] or with [`JoinError::NoThread`]; and whoever keeps counts has heard of it before.
//! Nobody ever waits for a job that nobody will run: a [`Queued`] or [`Started`] that is dropped resolves its job.
//!
//! # State machine
//! ```text
//!            start                        cancel
//! QUEUED ------------> CLAIMED ----------------------> CLAIMED|CANCELLED   is_cancelled() turns true in the closure
//!    |
//!    | cancel                                   revoke
//!    +--------------------> CLAIMED|CANCELLED ---------> .. |REVOKED       it never ran, and the closure is gone
//! ```
//! Whoever sets `CLAIMED` first has the claim. The job's memory is that of a one-shot channel with a closure in it: the
//! queue has the sender's side, as a [`Runnable`], and the handle the receiver's, as a [`Joinable`]; and it is freed as a
//! channel's is. So the queue's side leaves by the very step that hands the result over, and for the handle to see the result
//! is to know that. If it is the handle that has the claim, what became of the job need not go through the channel; then
//! the job is stale in its queue, holds nothing of the user's there, and the queue's side parts from it: that runs no user's
//! code, since a queue throws such jobs out under its lock. The handle's waker is the handle's to wake, or to drop.
//!
//! A queue may also hold the turns of a stream ([`Turns`]), each in a cell of its own that belongs to the queue alone, and
//! which asks the stream who has it.
//!
//! # Who may touch what
//! 1. The closure lies where its result is to be, and belongs to whoever has the claim, who takes it out once.
//! 2. The sender's side of `core` belongs to the one [`Queued`], and then to the [`Started`] that it has become.
//! 3. The receiver's side of `core` belongs to the one handle.
//! 4. A job is claimed before the queue's side leaves. So the cell need not drop the closure.
//! 5. The memory belongs to both sides: see rule 3 of `oneshot`.
//!
//! # Synchronisation edges
//! | id | release side | acquire side | publishes | model |
//! |---|---|---|---|---|
//! | J1 | `cancel` | `is_cancelled` | what the canceller did before | `cancel_publishes` |
//! | J2 | `Stop::set` | `Stop::is_set` | what the one who stops did before | `stop_publishes` |
//! | J3 | `revoke` | `is_revoked` | that the closure has been dropped | `cancelled_is_finished` |
//!
//! A job that waits in a [`CancelWatch`] has left its waker with the executor's [`Stop`], behind a lock. Whoever cancels
//! the job marks it, then looks there; the job leaves the waker, then looks at the mark. So one of them sees the other.
//!
//! The closure goes to the worker through the queue's lock, and the result comes back by the edges of `oneshot`; so the
//! claim itself only has to be taken by one.
//!
//! # What can go wrong
//! * Cancelled while a worker starts it: it runs, or it is dropped, never both or neither: `cancel_start`.
//! * The handle is dropped while the job runs or ends: the result is dropped once: `drop_run`.
//! * Cancelled from two threads at once: one of them did it: `cancel_cancel`.
//! * Cancelled, or stopped, as it comes to wait for that: `watch_cancel`, `watch_stop`.
//! * Run by a thread that waits for it, while a worker takes it from the queue: it runs once: `inline_start`.
//! * The closure, its result, or a panic's payload panics in `Drop`, or the handle's waker panics: see [`contain`].

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::{error, fmt, io, mem, ptr};

use crate::primitives::oneshot::Last;
use crate::primitives::{oneshot, parker};
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicBool, AtomicU32};
use crate::sync::{Mutex, thread_local};

const CLAIMED: u32 = 1;
const CANCELLED: u32 = 2;
const REVOKED: u32 = 4;

/// Whether anyone has the job, and whether it was cancelled.
///
/// Not a byte: x86-64 has an instruction that sets a bit and tells what it was, for all sizes but that.
struct Claim(AtomicU32);

impl Claim {
    fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Whether the caller has the claim now, to run the job or to refuse it.
    #[must_use]
    fn start(&self) -> bool {
        // ORDERING: Relaxed: that only one caller gets true is all it takes (see the head).
        self.0.fetch_or(CLAIMED, Relaxed) & CLAIMED == 0
    }

    /// Cancels. Whether the caller has the claim now: then the job never starts.
    #[must_use]
    fn cancel(&self) -> bool {
        // ORDERING: Release [J1]: pairs with `is_cancelled`; publishes what the canceller did before.
        self.0.fetch_or(CLAIMED | CANCELLED, Release) & CLAIMED == 0
    }

    fn is_taken(&self) -> bool {
        // ORDERING: Relaxed: a hint. It stays so once it is.
        self.0.load(Relaxed) & CLAIMED != 0
    }

    fn is_cancelled(&self) -> bool {
        // ORDERING: Acquire [J1]: pairs with `cancel`.
        self.0.load(Acquire) & CANCELLED != 0
    }

    /// It was cancelled before it started, and its closure has been dropped.
    fn revoke(&self) {
        // ORDERING: Release [J3]: pairs with `is_revoked`; the closure is gone.
        self.0.fetch_or(REVOKED, Release);
    }

    fn is_revoked(&self) -> bool {
        // ORDERING: Acquire [J3]: pairs with `revoke`.
        self.0.load(Acquire) & REVOKED != 0
    }
}

/// How the running jobs of an executor learn that they are to stop: all of them, or one that was cancelled.
#[derive(Debug, Default)]
pub struct Stop {
    set: AtomicBool,
    watches: Mutex<Watches>,
}

#[derive(Debug, Default)]
struct Watches {
    waiting: BTreeMap<WatchId, Waker>,
    /// How many there have been.
    numbers: u64,
    /// Those that have turns. To wake one may end it, right there.
    streams: BTreeMap<JobId, Waker>,
}

/// Who waits, and a number of its own.
type WatchId = (JobId, u64);

/// The address of a job, or of a stream.
pub type JobId = usize;

impl Stop {
    /// From now on `is_cancelled` is true in all jobs of the executor. It stays so. The streams are for the caller to wake, once
    /// there is nothing left to do that their iterators might wait for as they are dropped.
    pub fn set(&self) -> impl Iterator<Item = Waker> + use<> {
        // ORDERING: Release [J2]: pairs with `is_set`; publishes what the caller did before.
        self.set.store(true, Release);
        let mut watches = self.watches.lock();
        let (waiting, streams) = (mem::take(&mut watches.waiting), mem::take(&mut watches.streams));
        drop(watches);
        for waker in waiting.into_values() {
            waker.wake();
        }
        streams.into_values()
    }

    /// Whether `set` was called.
    pub fn is_set(&self) -> bool {
        // ORDERING: Acquire [J2]: pairs with `set`.
        self.set.load(Acquire)
    }

    /// Leaves a waker, to be woken once by `set`, or by a `wake` of that job. The caller then looks whether one of them came
    /// before.
    fn watch(&self, job: JobId, waker: Waker) -> WatchId {
        let mut watches = self.watches.lock();
        watches.numbers += 1;
        let id = (job, watches.numbers);
        watches.waiting.insert(id, waker);
        id
    }

    /// Gives back a waker that was left, if nobody has woken it.
    fn withdraw(&self, id: WatchId) -> Option<Waker> {
        self.watches.lock().waiting.remove(&id)
    }

    /// Leaves a stream's waker, for [`set`](Self::set).
    pub fn add_stream(&self, stream: JobId, waker: Waker) {
        self.watches.lock().streams.insert(stream, waker);
    }

    /// The stream has ended.
    pub fn remove_stream(&self, stream: JobId) {
        let waker = self.watches.lock().streams.remove(&stream);
        drop(waker);
    }

    /// Wakes whoever waits in this job.
    pub fn wake(&self, job: JobId) {
        let mut watches = self.watches.lock();
        let ids: Vec<WatchId> = watches.waiting.range((job, 0)..=(job, u64::MAX)).map(|(&id, _)| id).collect();
        let woken: Vec<Waker> = ids.iter().filter_map(|id| watches.waiting.remove(id)).collect();
        drop(watches);
        for waker in woken {
            waker.wake();
        }
    }
}

/// A job that runs, or a stream in its turn, as the code inside it sees it.
pub trait Running {
    /// Whether it was cancelled, or its executor has stopped.
    fn is_cancelled(&self) -> bool;
    /// Its executor's.
    fn stop(&self) -> &Stop;
}

impl dyn Running {
    /// To tell it from others.
    pub fn id(&self) -> JobId {
        ptr::from_ref(self).addr()
    }
}

thread_local! {
    /// The job that this thread runs: the innermost, if a job runs another one.
    static CURRENT: Cell<Option<NonNull<dyn Running>>> = const { Cell::new(None) };
}

/// Whether the job that this code runs in was cancelled, its handle dropped, or its pool shut down; or whether the iterable
/// was closed.
///
/// A closure cannot be interrupted. One that runs for long asks from time to time whether anyone still wants its result,
/// and returns early if not. Outside of both: false.
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

/// Runs `f` as the code of this job.
#[inline]
pub fn within<R>(job: &(dyn Running + 'static), f: impl FnOnce() -> R) -> R {
    /// Puts the outer job back, also after a panic.
    struct Outer(Option<NonNull<dyn Running>>);
    impl Drop for Outer {
        fn drop(&mut self) {
            CURRENT.with(|current| current.set(self.0));
        }
    }
    let _outer = Outer(CURRENT.with(|current| current.replace(Some(NonNull::from(job)))));
    f()
}

/// Shows the job that this code runs in, if it runs in one.
#[inline]
fn with_current<R>(f: impl FnOnce(&(dyn Running + 'static)) -> R) -> Option<R> {
    // SAFETY: the pointer is there while `within` borrows what it points to, on this very thread, further down the stack.
    CURRENT.with(Cell::get).map(|job| f(unsafe { job.as_ref() }))
}

/// Which job this code runs in, to tell whether it still does.
#[inline]
pub fn current_id() -> Option<JobId> {
    with_current(<dyn Running>::id)
}

/// Waits until the job that this code runs in is cancelled, as [`is_cancelled`] has it. For a local variable: it must not
/// outlive the job. Dropping it withdraws the waker.
#[derive(Debug, Default)]
pub struct CancelWatch {
    id: Option<WatchId>,
    /// It stays on the job's thread.
    _here: PhantomData<*const ()>,
}

impl CancelWatch {
    /// Ready once the job is cancelled. Outside a job: never.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let is_cancelled = with_current(|job| {
            // Register, then look.
            drop(self.id.and_then(|id| job.stop().withdraw(id)));
            self.id = Some(job.stop().watch(job.id(), waker));
            job.is_cancelled()
        });
        if is_cancelled == Some(true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for CancelWatch {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            drop(with_current(|job| job.stop().withdraw(id)));
        }
    }
}

/// Where a job is to run: a pool, or a thread of the job's own. Its functions must not panic.
pub trait Executor: Send + Sync + 'static {
    /// A job of its queue has been claimed by the handle, and will not run. The handle resolves next.
    fn cancelled(&self);
    /// What tells its running jobs to stop.
    fn stop(&self) -> &Stop;
    /// This thread is about to wait for a job. If it is one of those that run this executor's jobs, it may as well run it,
    /// as this worker.
    fn inline(&self) -> Option<Box<dyn Worker>>;
}

/// A closure and its result.
struct JobCell<F, R, E> {
    core: oneshot::Core<Result<R, JoinError>, F, Claim>,
    executor: E,
}

impl<F, R, E> JobCell<F, R, E> {
    fn claim(&self) -> &Claim {
        &self.core.beside
    }
}

impl<F, R, E> Drop for JobCell<F, R, E> {
    fn drop(&mut self) {
        // This would happen anyway; by hand, the models notice if the other owner is still there.
        self.core.clear();
    }
}

/// A job, or a turn, as its queue sees it.
trait Runnable: Send + Sync {
    /// Takes the claim, to run the job or to refuse it. `None`: another one has it.
    #[must_use]
    fn start(&self) -> Option<Kind>;
    /// Whether anyone has the claim.
    fn is_stale(&self) -> bool;
    /// What the queue's side does with it in the end.
    fn ends(&self) -> &'static Ends;
}

/// The ways in which the queue's side leaves a cell. They get a pointer: the other side may free the cell in the middle, while
/// a method would borrow it until it returns.
///
/// # Safety
/// The pointer is that of the [`Entry`] which gave them, and this is the last use of it. For `run` and `refuse`, `start` has
/// given the claim to the caller; for `leave` it has not.
struct Ends {
    /// Runs the job.
    run: unsafe fn(NonNull<()>, &mut dyn Worker),
    /// Resolves the job without running it.
    refuse: unsafe fn(NonNull<()>, JoinError),
    /// Another one has the claim. Runs nothing of the user's.
    leave: unsafe fn(NonNull<()>),
}

/// The queue's side of a cell.
struct Entry(NonNull<dyn Runnable>);

// SAFETY: it lends the cell and in the end may drop it, on any thread: the cell is `Send` and `Sync`.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

impl Deref for Entry {
    type Target = dyn Runnable;

    fn deref(&self) -> &Self::Target {
        // SAFETY: rule 5: the queue's side has not left while it has its entry.
        unsafe { self.0.as_ref() }
    }
}

/// The handle's side of a cell. Whoever drops it has received the result, or has closed that side, or has the claim.
struct Handle<R>(NonNull<dyn Joinable<R>>);

// SAFETY: as for `Entry`. Who may have the result is decided by the `Outcome` that this is in.
unsafe impl<R> Send for Handle<R> {}
// SAFETY: as above.
unsafe impl<R> Sync for Handle<R> {}

impl<R> Deref for Handle<R> {
    type Target = dyn Joinable<R>;

    fn deref(&self) -> &Self::Target {
        // SAFETY: rule 5: the handle's side has not left while it has this.
        unsafe { self.0.as_ref() }
    }
}

impl<R> Drop for Handle<R> {
    fn drop(&mut self) {
        // SAFETY: this is the last use of it, and see above.
        unsafe { (self.release())(self.0.cast()) };
    }
}

/// What has been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A job, which is over when it has run.
    Job,
    /// One turn of a stream.
    Turn,
}

/// A job as its handle sees it.
trait Joinable<R>: Send + Sync {
    /// What became of the job.
    ///
    /// # Safety
    /// The handle's, and not after it has got the result.
    unsafe fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<R, JoinError>>;
    /// Whether a `poll` would give it.
    fn is_finished(&self) -> bool;
    /// The waker of the last `poll` is dropped.
    fn unwatch(&self);
    /// Cancels the job. True: it had not started, and never will.
    fn cancel(&self) -> bool;
    /// Runs the job right here, if it has not started and this thread is one that runs jobs of its executor.
    fn run_here(&self) -> Option<Result<R, JoinError>>;
    /// The result will not be asked for. What there is of it, and the waker of the last `poll`: for the caller to drop.
    ///
    /// # Safety
    /// As `poll`.
    unsafe fn abandon(&self) -> (Option<Result<R, JoinError>>, Option<Waker>);
    /// How the handle leaves. It gets a pointer: see [`Ends`].
    ///
    /// # Safety of what it gives
    /// The pointer is the handle's, this is the last use of it, and see [`Handle`].
    fn release(&self) -> unsafe fn(NonNull<()>);
}

/// Who runs jobs. Its functions must not panic.
pub trait Worker {
    /// The job has been taken past the queue, and starts.
    fn started(&mut self) {}
    /// The job's closure is gone, and its handle resolves next: whoever waits for that may act on it before this worker
    /// does anything else.
    fn ended(&mut self, how: Ended);
    /// Nobody wanted the result, and its `Drop` runs next, for as long as it likes.
    fn busy(&mut self);
}

/// How a job that ran has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its closure returned.
    Succeeded,
    /// Its closure panicked.
    Panicked,
    /// It was a stream's turn.
    Turn,
}

impl<F, R, E: Executor> JobCell<F, R, E>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    /// A new cell, made in its place: see `Core::write`.
    fn allocate(func: F, executor: impl FnOnce() -> E) -> NonNull<Self> {
        let cell = NonNull::from(Box::leak(Box::<Self>::new_uninit())).cast::<Self>();
        let place = cell.as_ptr();
        // SAFETY: the memory is that of one cell, and nobody else's yet; each of the two fields is written once.
        unsafe {
            oneshot::Core::write(&raw mut (*place).core, func, Claim::new());
            (&raw mut (*place).executor).write(executor());
        }
        cell
    }

    const ENDS: Ends = Ends { run: Self::run, refuse: Self::refuse, leave: Self::leave };

    /// Calls the closure, as the code of this job.
    ///
    /// # Safety
    /// The caller has the claim. This, or `drop_func`, is called once.
    unsafe fn call(&self) -> (Ended, Result<R, JoinError>) {
        // SAFETY: rule 1: the caller's promise.
        let func = unsafe { self.core.take_before() };
        match catch_unwind(AssertUnwindSafe(|| within(self, func))) {
            Ok(value) => (Ended::Succeeded, Ok(value)),
            Err(payload) => (Ended::Panicked, Err(JoinError::Panicked(Panic::new(payload)))),
        }
    }

    /// Drops the closure. Gives back what its `Drop` panicked with.
    ///
    /// # Safety
    /// As `call`.
    unsafe fn drop_func(&self) -> Result<(), Box<dyn Any + Send>> {
        // SAFETY: rule 1: the caller's promise.
        let func = unsafe { self.core.take_before() };
        catch_unwind(AssertUnwindSafe(|| drop(func)))
    }

    /// See [`Ends`].
    unsafe fn run(this: NonNull<()>, worker: &mut dyn Worker) {
        let this = this.cast::<Self>();
        // SAFETY: rules 1 and 5: the caller has the claim, and has not left.
        let (how, result) = unsafe { this.as_ref().call() };
        worker.ended(how);
        // SAFETY: rule 2: this is the sender's one end.
        if let Err(unwanted) = unsafe { Self::resolve(this, result) } {
            worker.busy();
            contain(|| drop(unwanted));
        }
    }

    /// See [`Ends`].
    unsafe fn refuse(this: NonNull<()>, error: JoinError) {
        let this = this.cast::<Self>();
        // SAFETY: as in `run`.
        let dropped = unsafe { this.as_ref().drop_func() };
        // SAFETY: as in `run`.
        let _handle_is_gone = unsafe { Self::resolve(this, Err(error)) };
        if let Err(payload) = dropped {
            contain(|| drop(payload));
        }
    }

    /// See [`Ends`].
    unsafe fn leave(this: NonNull<()>) {
        let this = this.cast::<Self>();
        // SAFETY: rule 2: this is the sender's one end.
        if unsafe { oneshot::Core::part(&raw const (*this.as_ptr()).core) } == Last::Yes {
            // SAFETY: as `part` says; the memory is that of a `Box`.
            drop(unsafe { Box::from_raw(this.as_ptr()) });
        }
    }

    /// Hands the result to the handle, or back if that is gone; and leaves.
    ///
    /// # Safety
    /// The sender's one end.
    unsafe fn resolve(this: NonNull<Self>, result: Result<R, JoinError>) -> Result<(), Result<R, JoinError>> {
        // SAFETY: rule 5: the queue's side has not left. No reference is made.
        let core = unsafe { &raw const (*this.as_ptr()).core };
        // SAFETY: the caller's promise; after a `send` that failed, `finish` is due.
        unsafe {
            match oneshot::Core::send(core, result) {
                Ok(left) => {
                    Self::left(this, left);
                    Ok(())
                }
                Err(unwanted) => {
                    Self::left(this, oneshot::Core::finish(core));
                    Err(unwanted)
                }
            }
        }
    }

    /// # Safety
    /// `left` is what the sender's one end gave. The cell is not used afterwards.
    unsafe fn left(this: NonNull<Self>, left: oneshot::Left) {
        if left.is_last() {
            // SAFETY: as `is_last` says; the memory is that of a `Box`.
            drop(unsafe { Box::from_raw(this.as_ptr()) });
        }
        contain(|| left.wake());
    }
}

impl<F, R, E: Executor> Running for JobCell<F, R, E> {
    fn is_cancelled(&self) -> bool {
        self.claim().is_cancelled() || self.executor.stop().is_set()
    }

    fn stop(&self) -> &Stop {
        self.executor.stop()
    }
}

impl<F, R, E: Executor> Runnable for JobCell<F, R, E>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    fn start(&self) -> Option<Kind> {
        self.claim().start().then_some(Kind::Job)
    }

    fn is_stale(&self) -> bool {
        self.claim().is_taken()
    }

    fn ends(&self) -> &'static Ends {
        &Self::ENDS
    }
}

impl<F, R, E: Executor> Joinable<R> for JobCell<F, R, E>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    unsafe fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<R, JoinError>> {
        if self.claim().is_revoked() {
            self.unwatch();
            return Poll::Ready(Err(JoinError::Cancelled));
        }
        // SAFETY: rule 3: the caller's promise.
        unsafe { self.core.poll(cx) }.map(|result| match result {
            Ok(outcome) => outcome,
            Err(oneshot::Closed) => unreachable!("every claim is followed by a result"),
        })
    }

    fn is_finished(&self) -> bool {
        self.claim().is_revoked() || self.core.has_value()
    }

    fn unwatch(&self) {
        self.core.unwatch();
    }

    fn cancel(&self) -> bool {
        let claimed = self.claim().cancel();
        if claimed {
            self.executor.cancelled();
            // SAFETY: the claim has just been made.
            let dropped = unsafe { self.drop_func() };
            self.claim().revoke();
            contain(|| self.core.wake());
            if let Err(payload) = dropped {
                resume_unwind(payload);
            }
        } else {
            self.executor.stop().wake((self as &dyn Running).id());
        }
        claimed
    }

    fn run_here(&self) -> Option<Result<R, JoinError>> {
        if self.claim().is_taken() {
            return None;
        }
        let mut worker = self.executor.inline()?;
        if !self.claim().start() {
            return None;
        }
        worker.started();
        // SAFETY: the claim has just been made.
        let (how, result) = unsafe { self.call() };
        worker.ended(how);
        Some(result)
    }

    unsafe fn abandon(&self) -> (Option<Result<R, JoinError>>, Option<Waker>) {
        // SAFETY: rule 3: the caller's promise.
        unsafe { self.core.abandon() }
    }

    fn release(&self) -> unsafe fn(NonNull<()>) {
        |this| {
            let this = this.cast::<Self>();
            // SAFETY: rule 5, and what a `Handle` promises. No reference is made: the other side may free the memory.
            if unsafe { oneshot::Core::release(&raw const (*this.as_ptr()).core) } == Last::Yes {
                // SAFETY: as `release` says; the memory is that of a `Box`.
                drop(unsafe { Box::from_raw(this.as_ptr()) });
            }
        }
    }
}

/// What has a turn on a thread of a pool now and again: between two turns it is in no queue.
pub trait Turns: Send + Sync + 'static {
    /// Takes the turn that was queued, to run it or to refuse it. False: another one has.
    #[must_use]
    fn start(&self) -> bool;
    /// Whether no turn is queued.
    fn is_stale(&self) -> bool;
    /// Runs the turn that was taken.
    fn run(this: &Arc<Self>, worker: &mut dyn Worker);
    /// There will be no more turns.
    fn refuse(&self, error: JoinError);
}

/// A turn, as its queue sees it. It has no other side.
struct TurnCell<T> {
    stream: Arc<T>,
}

impl<T: Turns> TurnCell<T> {
    const ENDS: Ends = Ends { run: Self::run, refuse: Self::refuse, leave: Self::leave };

    /// # Safety
    /// As [`Ends`].
    unsafe fn stream(this: NonNull<()>) -> Arc<T> {
        // SAFETY: the memory is that of a `Box`, and this is the last use of it.
        unsafe { Box::from_raw(this.cast::<Self>().as_ptr()) }.stream
    }

    /// See [`Ends`].
    unsafe fn run(this: NonNull<()>, worker: &mut dyn Worker) {
        // SAFETY: the caller's promise.
        T::run(&unsafe { Self::stream(this) }, worker);
    }

    /// See [`Ends`].
    unsafe fn refuse(this: NonNull<()>, error: JoinError) {
        // SAFETY: the caller's promise.
        unsafe { Self::stream(this) }.refuse(error);
    }

    /// See [`Ends`].
    unsafe fn leave(this: NonNull<()>) {
        // SAFETY: the caller's promise.
        drop(unsafe { Self::stream(this) });
    }
}

impl<T: Turns> Runnable for TurnCell<T> {
    fn start(&self) -> Option<Kind> {
        self.stream.start().then_some(Kind::Turn)
    }

    fn is_stale(&self) -> bool {
        self.stream.is_stale()
    }

    fn ends(&self) -> &'static Ends {
        &Self::ENDS
    }
}

/// Runs users' code (a `Drop`, a waker) whose panic must not come through, and which nobody hears of but the panic hook.
pub fn contain(work: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
        // A payload whose `Drop` panics too is given up: that panic's payload might do the same, for ever.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            mem::forget(payload);
        }
    }
}

/// A job that waits to be run. Dropping it resolves the job with [`JoinError::Cancelled`].
#[must_use = "dropping it cancels the job"]
pub struct Queued(Option<Entry>);

impl Queued {
    /// Claims the job, to run it or to refuse it. `None`: another one has claimed it.
    pub fn start(mut self) -> Option<Started> {
        self.claim()
    }

    fn claim(&mut self) -> Option<Started> {
        let entry = self.0.take()?;
        let Some(kind) = entry.start() else {
            // SAFETY: the entry's last use, and another one has the claim.
            unsafe { (entry.ends().leave)(entry.0.cast()) };
            return None;
        };
        Some(Started { entry: Some(entry), kind })
    }

    /// A stream's turn. Dropping this refuses it, unless another one has claimed it.
    pub fn turn(stream: Arc<impl Turns>) -> Self {
        Self(Some(Entry(NonNull::from(Box::leak(Box::new(TurnCell { stream }))))))
    }

    /// Whether another one has claimed the job: there is nothing left to do, and nothing of the user's in it.
    pub fn is_stale(&self) -> bool {
        self.0.as_ref().is_none_or(|job| job.is_stale())
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        drop(self.claim());
    }
}

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queued").finish_non_exhaustive()
    }
}

/// A job that has been claimed, to be run or to be refused. Dropping it resolves the job with [`JoinError::Cancelled`].
#[must_use = "dropping it cancels the job"]
pub struct Started {
    entry: Option<Entry>,
    kind: Kind,
}

impl Started {
    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Runs the job on this thread.
    pub fn run(mut self, worker: &mut dyn Worker) {
        if let Some(entry) = self.entry.take() {
            // SAFETY: it comes from `Queued::claim`, with the claim, and this is the last use of it.
            unsafe { (entry.ends().run)(entry.0.cast(), worker) };
        }
    }

    /// Resolves the job without running it.
    pub fn refuse(mut self, error: JoinError) {
        self.refuse_with(error);
    }

    fn refuse_with(&mut self, error: JoinError) {
        if let Some(entry) = self.entry.take() {
            // SAFETY: as in `run`.
            unsafe { (entry.ends().refuse)(entry.0.cast(), error) };
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.refuse_with(JoinError::Cancelled);
    }
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

/// Makes a job: what is to be run, and its handle. One allocation. `executor` is called after that, and must not panic.
pub fn job<F, R, E: Executor>(func: F, executor: impl FnOnce() -> E) -> (Queued, Job<R>)
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let cell = JobCell::allocate(func, executor);
    (Queued(Some(Entry(cell))), Job(Outcome { cell: Some(Handle(cell)), _result: PhantomData }))
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
/// Awaiting it resumes the job's panic, if it panicked; it panics if the job was cancelled, or if no thread could be
/// started for it. Await [`outcome`](Self::outcome) to get these as values.
///
/// # Cancellation
/// Dropping it cancels the job: see [`cancel`](Self::cancel). [`detach`](Self::detach) opts out. The result of a job that
/// has finished is dropped with it, right there. If the `Drop` of the closure or of the result panics, this does.
///
/// # Synchronization
/// All that the job did happens before its handle resolves.
#[must_use = "dropping the handle cancels the job; `detach` it to let it run without anyone waiting"]
pub struct Job<R>(Outcome<R>);

/// What became of a job: a future of `Result<R, JoinError>`. From [`Job::outcome`].
///
/// # Cancellation
/// Dropping it cancels the job, as dropping the [`Job`] does.
#[must_use = "dropping it cancels the job"]
pub struct Outcome<R> {
    /// `None` once it has been resolved, or has been detached.
    cell: Option<Handle<R>>,
    /// Send and Sync where `R` is Send, as a mutex is: a shared handle gives no access to the result.
    _result: PhantomData<Mutex<R>>,
}

/// Nothing in here is ever pinned.
impl<R> Unpin for Outcome<R> {}

impl<R> Job<R> {
    /// Cancels the job. True: it had not started; it never will, and its closure has been dropped.
    ///
    /// False: it has started (it cannot be interrupted, but [`is_cancelled`] turns true in it, and the handle still yields
    /// what it returns), or it was finished or cancelled before.
    ///
    /// # Panics
    /// If the closure's `Drop` does.
    pub fn cancel(&self) -> bool {
        self.0.cancel()
    }

    /// Lets the job run without anyone waiting. Its result is dropped in its thread.
    pub fn detach(mut self) {
        if let Some(cell) = self.0.cell.take() {
            // SAFETY: rule 3: this is the handle; it has not got the value while it has the cell.
            let unwanted = unsafe { cell.abandon() };
            drop(cell);
            drop(unwanted);
        }
    }

    /// Whether the result is there: then awaiting it, or [`wait`](Self::wait), returns at once.
    pub fn is_finished(&self) -> bool {
        self.0.cell.as_ref().is_none_or(|cell| cell.is_finished())
    }

    /// What becomes of the job, as a value: its result, its panic, or why it did not run.
    pub fn outcome(self) -> Outcome<R> {
        self.0
    }

    /// Blocks this thread until the job has finished, and returns its result.
    ///
    /// In a job of the same pool: if the job has not started yet, it runs right here, on this thread.
    ///
    /// # Panics
    /// As awaiting it does.
    ///
    /// # Blocking
    /// On the thread of an event loop this stops the loop for as long; await the job there.
    pub fn wait(mut self) -> R {
        match self.0.run_here() {
            Some(outcome) => Self::value(outcome),
            None => parker::block_on(self),
        }
    }

    fn value(outcome: Result<R, JoinError>) -> R {
        match outcome {
            Ok(value) => value,
            Err(JoinError::Panicked(panic)) => panic.resume(),
            Err(error) => panic!("{error}; to get this as a value, await the job's `outcome()`"),
        }
    }
}

impl<R> Outcome<R> {
    /// Blocks this thread until the job has finished, and returns what became of it.
    ///
    /// # Errors
    /// See [`JoinError`].
    ///
    /// # Blocking
    /// As [`Job::wait`].
    pub fn wait(mut self) -> Result<R, JoinError> {
        self.run_here().unwrap_or_else(|| parker::block_on(self))
    }

    fn run_here(&mut self) -> Option<Result<R, JoinError>> {
        let result = self.cell.as_ref()?.run_here()?;
        self.unwatch();
        self.cell = None;
        Some(result)
    }

    /// Does not wait any more: the waker of the last poll is dropped.
    pub(crate) fn unwatch(&mut self) {
        if let Some(cell) = &self.cell {
            cell.unwatch();
        }
    }

    /// As [`Job::cancel`].
    pub(crate) fn cancel(&self) -> bool {
        self.cell.as_ref().is_some_and(|cell| cell.cancel())
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
        let Some(cell) = &self.cell else { panic!("a job's handle was polled again after it had given its result") };
        // SAFETY: rule 3: this is the handle; it has not got the result while it has the cell.
        let result = unsafe { cell.poll(cx) };
        if result.is_ready() {
            self.cell = None;
        }
        result
    }
}

impl<R> Drop for Outcome<R> {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            // The waker first, so that cancelling does not wake the very task that drops this.
            // SAFETY: rule 3: this is the handle; it has not got the value while it has the cell.
            let unwanted = unsafe { cell.abandon() };
            cell.cancel();
            drop(unwanted);
        }
    }
}

/// Why a job or a task has no result. Carried by their `outcome`s.
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError {
    /// The closure, or the future, panicked.
    Panicked(Panic),
    /// The job was cancelled before it started, or its pool was closed; the task was cancelled before it had finished, or
    /// its event loop was closed.
    Cancelled,
    /// The system refused to start a thread, and there was none that could have run it.
    NoThread(io::Error),
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

/// A panic that was caught in a job or a task: its payload, which can only be taken out, so that it may be shared.
pub struct Panic(
    /// Boxed twice, so that a [`JoinError`], and with it every job, takes a word less.
    Box<Box<dyn Any + Send>>,
);

// SAFETY: all that a shared `Panic` gives is `message`, which looks at the payload's type, and into it only if it is a
// `&str` or a `String`, which may be shared.
unsafe impl Sync for Panic {}

impl Panic {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        Self(Box::new(payload))
    }

    /// The payload, as `std::panic::catch_unwind` would have given it.
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        *self.0
    }

    /// What the panic said, if its payload is a text: always so for `panic!` with a message.
    pub fn message(&self) -> &str {
        let text = self.0.downcast_ref::<&str>().copied();
        text.or_else(|| self.0.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
    }

    /// Goes on with the panic, on this thread. The panic hook is not called again.
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

impl<R> fmt::Debug for Job<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("is_finished", &self.is_finished()).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for Outcome<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome").finish_non_exhaustive()
    }
}
