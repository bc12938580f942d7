//! Sleeping, time-outs and timers, under any executor.
//!
//! # What it promises
//! A sleep is ready at its deadline or later, never earlier. A sleep on an event loop of this crate is woken by the
//! loop, any other sleep by the timer thread. The timer thread starts with its first timer, sleeps until the earliest
//! deadline, and ends when there has been no timer for [`LINGER`].
//!
//! # Who may touch what
//! 1. `running` is true while the timer thread exists, or is about to be started. It becomes false in a step under the
//!    lock that leaves no timer. So a caller that adds a timer knows whether to start the thread.
//! 2. The timer thread waits in a [`poll_until`]: it registers, then looks again whether the earliest deadline has
//!    changed. A change of the earliest deadline wakes the thread.
//! 3. Wakers are woken and dropped outside the locks.
//! 4. A sleep that is polled by another loop than before moves to the new loop: the former loop may not be running.
//! 5. [`call_later`](LoopHandle::call_later) makes a task, and adds its timer before it sends the task: so calls are
//!    made in the order of their deadlines, however late the loop drains its inbox.
//!
//! # What can go wrong
//! * A call is cancelled as its timer fires, and `cancel` reports the wrong result: `cancel_as_it_fires`.
//! * A timer comes whose deadline is before the one that the timer thread sleeps for: `earlier_timer`.
//! * A timer comes as the timer thread ends: `timer_as_the_thread_ends`.
#![forbid(unsafe_code)]

use std::future::{Future, IntoFuture, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::event_loop::timers::Timers;
use crate::event_loop::{LoopHandle, NewTask, Reactor, Task, running, wake_all};
use crate::primitives::parker::poll_until;
use crate::primitives::spsc::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};
use crate::primitives::waker_map::Key;
use crate::primitives::waker_slot::WakerSlot;
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{Mutex, OnceLock, thread};

/// How long the timer thread stays when there is no timer.
const LINGER: Duration = Duration::from_secs(10);

/// The thread that wakes each [`Sleep`] that is polled outside of this crate's loops.
#[allow(missing_debug_implementations, reason = "only the models see it")]
pub struct TimerThread {
    state: Mutex<State>,
    /// The thread waits here for the earliest deadline to change.
    changed: WakerSlot,
}

struct State {
    timers: Timers,
    running: bool,
}

impl TimerThread {
    fn get() -> &'static Self {
        static THREAD: OnceLock<TimerThread> = OnceLock::new();
        THREAD.get_or_init(|| Self::new(Instant::now()))
    }

    /// A deadline before `beginning` counts as `beginning`.
    pub fn new(beginning: Instant) -> Self {
        let state = State { timers: Timers::new(beginning), running: false };
        Self { state: Mutex::new(state), changed: WakerSlot::default() }
    }

    /// Lends the timers, then starts or wakes the timer thread if needed.
    pub fn with_timers<R>(&'static self, f: impl FnOnce(&mut Timers) -> R) -> R {
        let mut state = self.state.lock();
        let before = state.timers.earliest();
        let result = f(&mut state.timers);
        let earliest = state.timers.earliest();
        let start = earliest.is_some() && !mem::replace(&mut state.running, true);
        drop(state);
        if start {
            self.start();
        } else if earliest != before {
            self.changed.wake();
        }
        result
    }

    fn start(&'static self) {
        if let Err(error) = thread::Builder::new().name("offthread-time".into()).spawn(|| self.run()) {
            let mut state = self.state.lock();
            state.running = false;
            let wakers = state.timers.take_all();
            drop(state);
            // Each sleep that relied on this start tries one of its own, at its next poll.
            wake_all(wakers);
            panic!("no thread could be started for timers: {error}");
        }
    }

    /// The code of the thread.
    fn run(&self) {
        loop {
            let now = Instant::now();
            let mut state = self.state.lock();
            let due = state.timers.take_due(now);
            let known = state.timers.earliest();
            drop(state);
            wake_all(due);
            let changed = poll_until(Some(known.unwrap_or(now + LINGER)), |cx| {
                self.changed.register(cx.waker());
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

/// What wakes a sleep: this loop, or the timer thread.
struct Clock(Option<Arc<Reactor>>);

impl Clock {
    fn current() -> Self {
        Self(running().map(|tasks| tasks.reactor.clone()))
    }

    fn is_current(&self) -> bool {
        running().as_ref().map(|tasks| Arc::as_ptr(&tasks.reactor)) == self.0.as_ref().map(Arc::as_ptr)
    }

    fn with_timers<R>(&self, f: impl FnOnce(&mut Timers) -> R) -> R {
        match &self.0 {
            Some(reactor) => reactor.with_timers(f),
            None => TimerThread::get().with_timers(f),
        }
    }
}

/// Waits until `duration` has passed. Never less; [`Duration::MAX`] is for ever. [`Duration::ZERO`] lets queued tasks
/// run; [`yield_now`](crate::yield_now()) does more.
///
/// On an event loop of this crate the loop wakes the sleep, so the loop has to run. If a task of such a loop calls
/// another executor's `block_on` with a sleep, that call never returns. A loop with many timers may end a sleep up to
/// 1.25 milliseconds late if other timers were due just before, since timers share wake-ups.
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
/// If the sleep is polled outside an event loop of this crate, and the system refuses to start the timer thread.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { deadline: Instant::now().checked_add(duration), waiting: None, gives_way: duration.is_zero() }
}

/// Waits until `deadline`.
///
/// # Panics
/// As [`sleep`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline: Some(deadline), waiting: None, gives_way: false }
}

/// A future that is ready at an instant. From [`sleep`] and [`sleep_until`]. Dropping it cancels it.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sleep {
    /// `None`: never.
    deadline: Option<Instant>,
    /// Where its waker is, once it has been polled.
    waiting: Option<(Clock, Key)>,
    /// Whether it lets the queued tasks run before it is ready.
    gives_way: bool,
}

impl Sleep {
    /// Adds a timer that wakes `waker` at the deadline.
    fn register(&mut self, clock: Clock, waker: &Waker) {
        self.withdraw();
        if let Some(deadline) = self.deadline {
            let waker = waker.clone();
            let key = clock.with_timers(|timers| timers.add(deadline, waker));
            self.waiting = Some((clock, key));
        }
    }

    fn withdraw(&mut self) {
        drop(self.waiting.take().and_then(|(clock, key)| clock.with_timers(|timers| timers.remove(key))));
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let waiting = self.waiting.as_ref().filter(|(clock, _)| clock.is_current());
        let wakes = waiting.map(|(clock, key)| clock.with_timers(|timers| timers.wakes(*key, cx.waker())));
        // If a loop has taken the waker out, the deadline has passed. This is cheaper to check than the time. (If the
        // timer thread cannot be started, the wakers are taken out early.)
        if wakes == Some(None) && matches!(self.waiting.take(), Some((Clock(Some(_)), _))) {
            return Poll::Ready(());
        }
        if Instant::now() >= deadline {
            if mem::take(&mut self.gives_way) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.withdraw();
            return Poll::Ready(());
        }
        if wakes != Some(Some(true)) {
            self.register(Clock::current(), cx.waker());
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl_debug!(Sleep, deadline);

/// Awaits a future, but not longer than `duration`; after that, drops the future.
///
/// [`Duration::MAX`] is for ever. A future that is ready at its first poll never times out.
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

impl_error!(Elapsed:
    Self => "the future was not ready in time, and was dropped: allow it more time, or find out what it waits for"
);

impl<T> Receiver<T> {
    /// Receives the next item; waits for it, but not longer than `timeout`. [`Duration::MAX`] is for ever.
    ///
    /// ```
    /// use offthread::spsc::{RecvTimeoutError, channel};
    /// use std::time::Duration;
    ///
    /// let (mut sender, mut receiver) = channel(1);
    /// sender.try_send(1).unwrap();
    /// offthread::block_on(async {
    ///     let millisecond = Duration::from_millis(1);
    ///     assert_eq!(receiver.recv_timeout(millisecond).await, Ok(1));
    ///     assert_eq!(receiver.recv_timeout(millisecond).await, Err(RecvTimeoutError::Timeout));
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Timeout`](RecvTimeoutError::Timeout) if none came in time, [`Closed`](RecvTimeoutError::Closed) if the channel
    /// is closed and nothing is left.
    ///
    /// # Cancellation
    /// As [`recv`](Self::recv): nothing is lost, neither by dropping the future nor by the time-out.
    pub async fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        match self::timeout(timeout, self.recv()).await {
            Ok(item) => item.ok_or(RecvTimeoutError::Closed),
            // `recv` may just have yielded, although there is an item.
            Err(Elapsed) => self.recv_now(),
        }
    }
}

impl<T> Sender<T> {
    /// Sends an item; waits while the channel is full, but not longer than `timeout`. [`Duration::MAX`] is for ever.
    ///
    /// # Errors
    /// The item: [`Timeout`](SendTimeoutError::Timeout) if there was no room in time,
    /// [`Closed`](SendTimeoutError::Closed) if the channel is closed.
    ///
    /// # Cancellation
    /// As [`send`](Self::send).
    pub async fn send_timeout(&mut self, item: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        // If there was no room in time, `send_now` fails.
        let _ = self::timeout(timeout, self.wait_for_room()).await;
        self.send_now(item)
    }
}

impl LoopHandle {
    /// Makes the loop call `f` when `delay` has passed, not earlier. From any thread; never blocks.
    ///
    /// `f` runs in a copy of the caller's context. If `f` panics, only the panic hook reports the panic. Dropping the
    /// returned handle changes nothing. If the loop ends before the call, `f` is dropped. [`Duration::MAX`] is never.
    ///
    /// ```
    /// use offthread::{LoopHandle, block_on, oneshot};
    /// use std::time::Duration;
    ///
    /// block_on(async {
    ///     let (sender, receiver) = oneshot::channel();
    ///     let call = move || sender.send("called").unwrap();
    ///     LoopHandle::current().call_later(Duration::from_millis(1), call);
    ///     assert_eq!(receiver.await, Ok("called"));
    /// });
    /// ```
    pub fn call_later(&self, delay: Duration, f: impl FnOnce() + Send + 'static) -> TimerHandle {
        let once = Arc::new(Once(AtomicBool::new(false)));
        let mut sleep = sleep(delay);
        // On a loop of this crate only the timer wakes the task. Another runtime polls the task at once, and this first
        // poll adds the timer.
        let is_external = self.0.external.is_some();
        let task = NewTask::new(self.0.clone(), is_external);
        if !is_external {
            sleep.register(Clock(Some(self.0.clone())), &task.waker);
        }
        let guard = FireGuard(once.clone());
        let call = async move {
            sleep.await;
            if guard.0.claim() {
                f();
            }
        };
        TimerHandle { once, task: Some(self.start(task, call)) }
    }
}

/// Claimed once: by the call, by the call's cancellation, or by the end of the call's task.
struct Once(AtomicBool);

impl Once {
    /// Whether the caller is the one that claims it.
    fn claim(&self) -> bool {
        // ORDERING: Relaxed: all that matters is that one caller gets true.
        !self.0.swap(true, Relaxed)
    }
}

/// The loop's side of a timer. If it is dropped before the call, the call is never made.
struct FireGuard(Arc<Once>);

impl Drop for FireGuard {
    fn drop(&mut self) {
        self.0.claim();
    }
}

/// A call that the event loop will make. From [`LoopHandle::call_later`]. Dropping it changes nothing.
pub struct TimerHandle {
    once: Arc<Once>,
    /// `None` once this is dropped.
    task: Option<Task<()>>,
}

impl TimerHandle {
    /// Cancels the call, from any thread. True: the call had not been made, and never will be.
    ///
    /// On the loop's own thread the closure has been dropped when this returns, with the exceptions of
    /// [`Task::cancel`]. On any other thread, the loop drops the closure later.
    ///
    /// False: the call has been made, is being made, or was cancelled before; or the loop has ended.
    pub fn cancel(&self) -> bool {
        let is_cancelled = self.once.claim();
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

impl_debug!(TimerHandle);
