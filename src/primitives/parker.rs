//! Blocks a thread until a waker fires. Nothing else in this crate waits for a waker.
//!
//! # What it promises
//! A wake of a parker's waker, from any thread, ends the [`Parker::park`] that is running, or else the next `park`. All
//! writes before the wake are seen after that `park` returns. [`poll_until`] and [`block_on`] poll a future and park in
//! between; they may be nested on one thread.
//!
//! The simplest version: `examples/made_3_block_on.rs`.
//!
//! # State machine
//! ```text
//!     +------------------- park: about to sleep ---------------------+
//!     |                                                              v
//!   EMPTY ---- wake ----> NOTIFIED <-- wake: unparks the thread -- PARKED
//!     ^                      |                                       |
//!     +------- consume ------+                                       |
//!     +------------------ the deadline has passed -------------------+
//! ```
//! A parker belongs to one thread, its owner; only the owner sets `EMPTY` and `PARKED`. The parker has a state of its
//! own, since code inside a poll may consume the thread's park token: `thread::park` does, and so does a channel of std
//! that blocks. So the owner reads the state after each sleep.
//!
//! # Who may touch what
//! 1. `thread` is written before the parker is shared, and never again.
//!
//! # Synchronisation edges
//! | id | release side | acquire side | publishes | model |
//! |---|---|---|---|---|
//! | P1 | `notify` | `consume` | what was written before the wake | `wake_publishes` |
//! | P2 | `notify` | `sleep`: the deadline has passed | what was written before the wake | `deadline_against_wake` |
//!
//! # What can go wrong
//! * A wake between the poll and the sleep: `wake_publishes`.
//! * A wake during the poll, also by the thread itself: `wake_during_poll`.
//! * The blocking hook wakes the thread that is about to sleep: `woken_by_the_hook`.
//! * A spurious return from sleep, or a park token that other code consumed: `spurious_wake_ups`.
//! * A waker that fires after its `block_on` has returned: `stale_waker`.
//! * A deadline that passes as the wake comes: `deadline_against_wake`.
//!
//! The three states are those of std's parker and of crossbeam's.

use std::cell::{Cell, RefCell};
use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use crate::primitives::backoff::{Backoff, PAUSES};
use crate::sync::atomic::AtomicU8;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{self, ThreadHandle, thread_local};

const EMPTY: u8 = 0;
const NOTIFIED: u8 = 1;
const PARKED: u8 = 2;

/// The part of a parker that its wakers share.
struct Unparker {
    state: AtomicU8,
    thread: ThreadHandle,
}

impl Unparker {
    fn notify(&self) {
        // ORDERING: Release [P1, P2]: pairs with `consume` and the end of `sleep`; publishes what the caller did
        // before.
        if self.state.swap(NOTIFIED, Release) == PARKED {
            self.thread.unpark();
        }
    }

    /// Owner only: consumes a notification. False: there is none.
    fn consume(&self) -> bool {
        // ORDERING: Relaxed: only the owner ends NOTIFIED, so the swap below finds NOTIFIED too. The swap acquires, and
        // nothing is read before it.
        self.state.load(Relaxed) == NOTIFIED && {
            // ORDERING: Acquire [P1]: pairs with `notify`; all that came before the wake is seen.
            self.state.swap(EMPTY, Acquire);
            true
        }
    }

    /// Owner only: sleeps until a notification comes, and consumes it. False: the deadline has passed.
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        // ORDERING: Relaxed: publishes nothing. If there is a notification already, the exchange fails, and `consume`
        // finds the notification.
        let _ = self.state.compare_exchange(EMPTY, PARKED, Relaxed, Relaxed);
        loop {
            if self.consume() {
                return true;
            }
            if deadline.is_some_and(sync::is_past) {
                // ORDERING: Acquire [P2]: pairs with `notify`, which may have come just now.
                return self.state.swap(EMPTY, Acquire) == NOTIFIED;
            }
            sync::sleep(deadline);
        }
    }
}

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

/// Lets this thread wait for a waker.
pub struct Parker {
    unparker: Arc<Unparker>,
    waker: Waker,
    backoff: Backoff,
}

impl Parker {
    fn new() -> Self {
        let unparker = Arc::new(Unparker { state: AtomicU8::new(EMPTY), thread: ThreadHandle::current() });
        Self { waker: unparker.clone().into(), unparker, backoff: Backoff::NEW }
    }

    /// Lends a parker of this thread to `f`. Only the first call at each depth of nesting allocates.
    pub fn with<R>(f: impl FnOnce(&mut Self) -> R) -> R {
        // At the end of a thread the cache may be gone; then the parker is dropped.
        let cached = CACHE.try_with(|cache| cache.borrow_mut().pop()).ok().flatten();
        let mut parker = cached.unwrap_or_else(|| Box::new(Self::new()));
        let result = f(&mut parker);
        let _ = CACHE.try_with(|cache| cache.borrow_mut().push(parker));
        result
    }

    /// The waker that ends a `park`.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Blocks until the waker has fired since the last `park`, or until the deadline. False: the deadline has passed.
    #[inline]
    pub fn park(&mut self, deadline: Option<Instant>) -> bool {
        self.unparker.consume() || self.wait(deadline)
    }

    /// `park`, when the waker has not fired yet.
    fn wait(&mut self, deadline: Option<Instant>) -> bool {
        let unparker = &*self.unparker;
        if self.backoff.spin(PAUSES, deadline, || unparker.consume()) {
            return true;
        }
        blocking(|| {
            let start = Instant::now();
            let notified = unparker.sleep(deadline);
            self.backoff.waited(start.elapsed(), notified);
            notified
        })
    }
}

/// Runs code that blocks the thread, between the two calls of the thread's hook.
pub fn blocking<R>(code: impl FnOnce() -> R) -> R {
    // The hook is removed meanwhile, so that it does not report its own blocking.
    let hook = BLOCKING_HOOK.try_with(Cell::take).ok().flatten();
    let tell = |blocking| hook.into_iter().for_each(|hook| hook(blocking));
    tell(Blocking::Enter);
    let result = code();
    tell(Blocking::Exit);
    let _ = BLOCKING_HOOK.try_with(|current| current.set(hook));
    result
}

impl_debug!(Parker);

/// The argument of the [blocking hook](set_blocking_hook).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// The thread goes to sleep now, or waits for another thread to end.
    Enter,
    /// The thread is awake again.
    Exit,
}

/// Installs this thread's hook, which each blocking call runs before it sleeps and after it wakes up. `None` removes
/// it.
///
/// With this hook, a pool lets another thread run jobs meanwhile. The hook must not panic. It may wake the thread, and
/// may block: its own blocking calls run no hook.
pub fn set_blocking_hook(hook: Option<fn(Blocking)>) {
    BLOCKING_HOOK.with(|current| current.set(hook));
}

thread_local! {
    static BLOCKING_HOOK: Cell<Option<fn(Blocking)>> = const { Cell::new(None) };
    /// The parkers of this thread that are not lent. Boxed, so that lending one moves a pointer.
    #[allow(clippy::vec_box, reason = "see above")]
    static CACHE: RefCell<Vec<Box<Parker>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `poll` until the result is ready, and parks this thread in between. `None`: the deadline has passed.
///
/// Wakers that `poll` has registered stay registered: the caller withdraws them.
pub fn poll_until<T>(deadline: Option<Instant>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    Parker::with(|parker| {
        // The deadline holds even if wakes never stop: a wake after the deadline causes one last poll.
        let mut is_late = false;
        loop {
            if let Poll::Ready(value) = poll(&mut Context::from_waker(&parker.waker)) {
                return Some(value);
            }
            if is_late || !parker.park(deadline) {
                return None;
            }
            is_late = deadline.is_some_and(sync::is_past);
        }
    })
}

/// Polls a future of this crate until it is ready, and blocks this thread in between. The futures of users are run by
/// the event loop.
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    match poll_until(None, |cx| future.as_mut().poll(cx)) {
        Some(output) => output,
        None => unreachable!("there is no deadline that could pass"),
    }
}
