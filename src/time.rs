//! Sleeping, time-outs and timers, under any executor.
//!
//! On an event loop of ours, deadlines are the loop's: it wakes for the earliest one. Elsewhere a thread, started when a
//! deadline is first waited for, sleeps until the earliest one, wakes whoever waits for it, and ends when it has had nothing
//! to wait for during [`LINGER`].
//!
//! 1. `running` is true while the thread exists, or is about to. It turns false under the lock, in the same step that
//!    finds no timer; so whoever adds a deadline knows whether to start a thread.
//! 2. The thread sleeps in a [`poll_until`]: it registers, then looks again whether the earliest deadline is still the
//!    one that it knows. Whoever adds an earlier one wakes it.
//! 3. Wakers are woken and dropped outside the locks.
//! 4. A sleep that comes to be polled by another loop than before moves there: the other one may be standing still.
//!
//! # What can go wrong
//! * A timer is cancelled as it fires: it is called, or it was cancelled, never both or neither: `cancel_as_it_fires`.
#![forbid(unsafe_code)]

use std::future::{Future, IntoFuture, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use std::{error, fmt};

use crate::event_loop::timers::{Key, Timers};
use crate::event_loop::{LoopHandle, Reactor, Start, Task, running, runs_here};
use crate::primitives::join_error::catch_and_discard;
use crate::primitives::parker::poll_until;
use crate::primitives::spsc::{Receiver, RecvTimeoutError};
use crate::primitives::waker_slot::WakerSlot;
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{Mutex, OnceLock, thread};

/// How long the thread stays when there is nothing to wait for.
const LINGER: Duration = Duration::from_secs(10);

/// The thread for those who have no loop.
struct TimerThread {
    state: Mutex<State>,
    /// Where the thread waits for an earlier deadline.
    earlier: WakerSlot,
}

struct State {
    timers: Timers,
    running: bool,
}

impl TimerThread {
    fn get() -> &'static Self {
        static THREAD: OnceLock<TimerThread> = OnceLock::new();
        THREAD.get_or_init(|| Self {
            state: Mutex::new(State { timers: Timers::new(Instant::now()), running: false }),
            earlier: WakerSlot::default(),
        })
    }

    fn add(&'static self, deadline: Instant, waker: Waker) -> Key {
        let mut state = self.state.lock();
        let is_earliest = state.timers.earliest().is_none_or(|earliest| deadline < earliest);
        let key = state.timers.add(deadline, waker);
        let start = !mem::replace(&mut state.running, true);
        drop(state);
        if start {
            if let Err(error) = thread::Builder::new().name("offthread-time".into()).spawn(|| self.run()) {
                let mut state = self.state.lock();
                state.running = false;
                let waker = state.timers.remove(key);
                drop(state);
                drop(waker);
                panic!("no thread could be started for timers: {error}");
            }
        } else if is_earliest {
            self.earlier.wake();
        }
        key
    }

    /// What the thread does.
    fn run(&self) {
        loop {
            let now = Instant::now();
            let mut state = self.state.lock();
            let due = state.timers.take_due(now);
            let known = state.timers.earliest();
            drop(state);
            for waker in due {
                // A waker that panics must not end the thread that all others rely on.
                catch_and_discard(|| waker.wake());
            }
            let changed = poll_until(Some(known.unwrap_or(now + LINGER)), |cx| {
                self.earlier.register(cx.waker());
                if self.state.lock().timers.earliest() == known { Poll::Pending } else { Poll::Ready(()) }
            });
            let mut state = self.state.lock();
            if changed.is_none() && state.timers.earliest().is_none() {
                state.running = false;
                return;
            }
        }
    }
}

/// Who wakes sleepers.
enum Clock {
    /// This loop.
    Loop(Arc<Reactor>),
    Thread,
}

impl Clock {
    fn here() -> Self {
        running().map_or(Self::Thread, Self::Loop)
    }

    /// Whether it is the one of [`here`](Self::here).
    fn is_here(&self) -> bool {
        match self {
            Self::Loop(reactor) => runs_here(reactor),
            Self::Thread => running().is_none(),
        }
    }

    /// Has `waker` woken at the deadline.
    fn add(&self, deadline: Instant, waker: Waker) -> Key {
        match self {
            Self::Loop(reactor) => reactor.timers.lock().add(deadline, waker),
            Self::Thread => TimerThread::get().add(deadline, waker),
        }
    }

    fn with_timers<R>(&self, f: impl FnOnce(&mut Timers) -> R) -> R {
        match self {
            Self::Loop(reactor) => f(&mut reactor.timers.lock()),
            Self::Thread => f(&mut TimerThread::get().state.lock().timers),
        }
    }
}

/// Waits until `duration` has passed. Never less; [`Duration::MAX`] is for ever.
///
/// On an event loop of this crate it is the loop that wakes it, so the loop has to run: another executor's `block_on` in a
/// task would wait in vain.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # offthread::block_on(async {
/// let start = Instant::now();
/// offthread::sleep(Duration::from_millis(10)).await;
/// assert!(start.elapsed() >= Duration::from_millis(10));
/// # });
/// ```
///
/// # Panics
/// When polled outside an event loop of this crate, if the system refuses to start the one thread that timers need there.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { deadline: Instant::now().checked_add(duration), waiting: None }
}

/// Waits until `deadline`.
///
/// # Panics
/// As [`sleep`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline: Some(deadline), waiting: None }
}

/// A future that is ready at an instant. From [`sleep`] and [`sleep_until`]. Dropping it cancels it.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sleep {
    /// `None`: never.
    deadline: Option<Instant>,
    /// Where its waker is, once it has been polled.
    waiting: Option<(Clock, Key)>,
}

impl Sleep {
    fn withdraw(&mut self) {
        if let Some((clock, key)) = self.waiting.take() {
            let waker = clock.with_timers(|timers| timers.remove(key));
            drop(waker);
        }
    }
}

impl Sleep {
    /// Waits for the clock to say that the time has come, in the order of the deadlines, even if it has.
    async fn in_order(mut self) {
        if let Some(deadline) = self.deadline {
            poll_fn(|cx| {
                if self.waiting.is_some() {
                    return Poll::Ready(());
                }
                let clock = Clock::here();
                let key = clock.add(deadline, cx.waker().clone());
                self.waiting = Some((clock, key));
                Poll::Pending
            })
            .await;
        }
        self.await;
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let waiting = self.waiting.as_ref().filter(|(clock, _)| clock.is_here());
        let wakes = waiting.map(|(clock, key)| clock.with_timers(|timers| timers.wakes(*key, cx.waker())));
        // If its clock has taken it out, the time has come. That is cheaper to ask than the time is.
        if wakes == Some(None) {
            self.waiting = None;
            return Poll::Ready(());
        }
        if Instant::now() >= deadline {
            self.withdraw();
            return Poll::Ready(());
        }
        if wakes != Some(Some(true)) {
            self.withdraw();
            let clock = Clock::here();
            let key = clock.add(deadline, cx.waker().clone());
            self.waiting = Some((clock, key));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Awaits a future, but not longer than `duration`; then drops it.
///
/// [`Duration::MAX`] is for ever. A future that is ready at once is, whatever the duration.
///
/// ```
/// # use std::time::Duration;
/// # offthread::block_on(async {
/// let never = std::future::pending::<()>();
/// assert!(offthread::timeout(Duration::from_millis(1), never).await.is_err());
/// # });
/// ```
///
/// # Errors
/// [`Elapsed`] if the future was not ready in time.
///
/// # Panics
/// As [`sleep`]; and if the future does.
pub async fn timeout<F: IntoFuture>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut sleep = sleep(duration);
    let mut future = pin!(future.into_future());
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

/// A future was not ready in time. From [`timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the future was not ready in time, and was dropped: allow it more time, or find out what it waits for",
        )
    }
}

impl error::Error for Elapsed {}

impl<T> Receiver<T> {
    /// Receives the next item; waits for it, but not longer than `timeout`. [`Duration::MAX`] is for ever.
    ///
    /// # Errors
    /// [`Timeout`](RecvTimeoutError::Timeout) if none came in time, [`Closed`](RecvTimeoutError::Closed) if the channel is
    /// closed and nothing is left.
    ///
    /// # Cancellation
    /// As [`recv`](Self::recv): nothing is lost, neither by dropping the future nor by the time-out.
    pub async fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        match self::timeout(timeout, self.recv()).await {
            Ok(item) => item.ok_or(RecvTimeoutError::Closed),
            Err(Elapsed) => Err(RecvTimeoutError::Timeout),
        }
    }
}

impl LoopHandle {
    /// Has the loop call `f` when `delay` has passed; not before. From any thread; never blocks.
    ///
    /// `f` runs in a copy of the caller's context. If it panics, nobody hears of it but the panic hook. Dropping the handle
    /// that this returns changes nothing; if the loop ends before, `f` is dropped. [`Duration::MAX`] is never.
    ///
    /// ```
    /// use offthread::{LoopHandle, block_on, oneshot};
    /// use std::time::Duration;
    ///
    /// block_on(async {
    ///     let (sender, receiver) = oneshot::channel();
    ///     LoopHandle::current().call_later(Duration::from_millis(1), move || sender.send("called").unwrap());
    ///     assert_eq!(receiver.await, Ok("called"));
    /// });
    /// ```
    pub fn call_later(&self, delay: Duration, f: impl FnOnce() + Send + 'static) -> TimerHandle {
        let fate = Arc::new(Fate(AtomicBool::new(false)));
        let sleep = sleep(delay);
        let task = self.spawn_to_start(Start::BeforeTimers, {
            let due = Due(fate.clone());
            async move {
                sleep.in_order().await;
                if due.0.settle() {
                    f();
                }
            }
        });
        TimerHandle { fate, task: Some(task) }
    }
}

/// Whether it is settled what becomes of a timer.
struct Fate(AtomicBool);

impl Fate {
    /// Whether the caller is the one who settles it.
    fn settle(&self) -> bool {
        // ORDERING: Relaxed: that only one gets true is all it takes.
        !self.0.swap(true, Relaxed)
    }
}

/// The loop's side of a timer. If it is dropped before it has fired, it never will.
struct Due(Arc<Fate>);

impl Drop for Due {
    fn drop(&mut self) {
        self.0.settle();
    }
}

/// A call that the event loop will make. From [`LoopHandle::call_later`]. Dropping it changes nothing.
pub struct TimerHandle {
    fate: Arc<Fate>,
    /// There until this is dropped.
    task: Option<Task<()>>,
}

impl TimerHandle {
    /// Cancels the call. True: it had not been made, and never will be. From any thread.
    ///
    /// On the loop's own thread the closure has been dropped when this returns; otherwise the loop drops it.
    ///
    /// False: it has been made, or is being made; it was cancelled before; or the loop has ended.
    pub fn cancel(&self) -> bool {
        let is_cancelled = self.fate.settle();
        if let Some(task) = self.task.as_ref().filter(|_| is_cancelled) {
            task.cancel();
        }
        is_cancelled
    }
}

impl Drop for TimerHandle {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.detach();
        }
    }
}

impl fmt::Debug for TimerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerHandle").finish_non_exhaustive()
    }
}
