//! Sleeping and time-outs, under any executor.
//!
//! Deadlines stand in one sorted map. A thread, started when a deadline is first waited for, sleeps until the earliest
//! one, wakes whoever waits for it, and ends when it has had nothing to wait for during [`LINGER`].
//!
//! 1. `running` is true while the thread exists, or is about to. It turns false under the lock, in the same step that
//!    finds the map empty; so whoever adds a deadline knows whether to start a thread.
//! 2. The thread sleeps in a [`poll_until`]: it registers, then looks again whether the earliest deadline is still the
//!    one that it knows. Whoever adds an earlier one wakes it.
//! 3. Wakers are woken and dropped outside the lock.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::future::{Future, IntoFuture, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use std::{error, fmt};

use crate::primitives::job::contain;
use crate::primitives::parker::poll_until;
use crate::primitives::spsc::{Receiver, RecvTimeoutError};
use crate::primitives::waker_slot::WakerSlot;
use crate::sync::{Mutex, OnceLock, thread};

/// How long the thread stays when there is nothing to wait for.
const LINGER: Duration = Duration::from_secs(10);

/// Deadlines in order. The number tells those of the same instant apart.
type Key = (Instant, u64);

struct Clock {
    state: Mutex<State>,
    /// Where the thread waits for an earlier deadline.
    earlier: WakerSlot,
}

struct State {
    wakers: BTreeMap<Key, Waker>,
    added: u64,
    running: bool,
}

impl State {
    fn earliest(&self) -> Option<Instant> {
        self.wakers.first_key_value().map(|(&(deadline, _), _)| deadline)
    }
}

impl Clock {
    fn get() -> &'static Self {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        CLOCK.get_or_init(|| Self {
            state: Mutex::new(State { wakers: BTreeMap::new(), added: 0, running: false }),
            earlier: WakerSlot::default(),
        })
    }

    /// Has `waker` woken at the deadline.
    fn add(&'static self, deadline: Instant, waker: Waker) -> Key {
        let mut state = self.state.lock();
        state.added += 1;
        let key = (deadline, state.added);
        let is_earliest = state.earliest().is_none_or(|earliest| deadline < earliest);
        state.wakers.insert(key, waker);
        let start = !std::mem::replace(&mut state.running, true);
        drop(state);
        if start {
            if let Err(error) = thread::Builder::new().name("offthread-time".into()).spawn(|| self.run()) {
                self.state.lock().running = false;
                panic!("no thread could be started for timers: {error}");
            }
        } else if is_earliest {
            self.earlier.wake();
        }
        key
    }

    /// Puts another waker in the place of the one that was added. False: that one has been woken.
    fn replace(&self, key: Key, waker: Waker) -> bool {
        let mut state = self.state.lock();
        let old = state.wakers.get_mut(&key).map(|old| std::mem::replace(old, waker));
        drop(state);
        old.is_some()
    }

    fn remove(&self, key: Key) {
        let waker = self.state.lock().wakers.remove(&key);
        drop(waker);
    }

    /// What the thread does.
    fn run(&self) {
        loop {
            let now = Instant::now();
            let mut state = self.state.lock();
            // What is left are those that come later than now.
            let later = state.wakers.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut state.wakers, later);
            let known = state.earliest();
            drop(state);
            for waker in due.into_values() {
                // A waker that panics must not end the thread that all others rely on.
                contain(|| waker.wake());
            }
            let changed = poll_until(Some(known.unwrap_or(now + LINGER)), |cx| {
                self.earlier.register(cx.waker());
                if self.state.lock().earliest() == known { Poll::Pending } else { Poll::Ready(()) }
            });
            let mut state = self.state.lock();
            if changed.is_none() && state.wakers.is_empty() {
                state.running = false;
                return;
            }
        }
    }
}

/// Waits until `duration` has passed. Never less; [`Duration::MAX`] is for ever.
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
/// When polled, if the system refuses to start the one thread that timers need.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { deadline: Instant::now().checked_add(duration), key: None }
}

/// Waits until `deadline`.
///
/// # Panics
/// As [`sleep`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline: Some(deadline), key: None }
}

/// A future that is ready at an instant. From [`sleep`] and [`sleep_until`]. Dropping it cancels it.
#[must_use = "a future does nothing unless it is awaited"]
#[derive(Debug)]
pub struct Sleep {
    /// `None`: never.
    deadline: Option<Instant>,
    /// Where its waker is, once it has been polled.
    key: Option<Key>,
}

impl Sleep {
    fn remove(&mut self) {
        if let Some(key) = self.key.take() {
            Clock::get().remove(key);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        if Instant::now() >= deadline {
            self.remove();
            return Poll::Ready(());
        }
        let clock = Clock::get();
        if !self.key.is_some_and(|key| clock.replace(key, cx.waker().clone())) {
            self.key = Some(clock.add(deadline, cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.remove();
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
