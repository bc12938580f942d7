//! Blocks a thread until a waker fires: the one place where this crate waits.
//!
//! # What it promises
//! [`block_on`] and [`poll_until`] call a poll function until it is ready, and let the thread sleep in between. Each
//! wake of the waker that the poll was given, from any thread, even after the call has returned, is followed by another
//! poll, or by none if the call is over. What was written before the wake is seen by that poll. They may be nested on
//! one thread. A poll that is ready at once, and leaves its waker alone, costs no allocation, no atomic read-modify-write
//! and no system call.
//!
//! # State machine
//! ```text
//!            notify                          notify: wakes the sleeper
//!   EMPTY ------------> NOTIFIED <-------------------------- PARKED
//!     ^  \                 |                                  ^ |
//!     |   \------ wait: consume                               | | wait: the deadline has passed
//!     |                    |                                  | v
//!     +--------------------+             wait: about to sleep +-- EMPTY
//! ```
//! One `Parker` belongs to one thread, its owner, who alone goes to `EMPTY` and to `PARKED`. Anyone may
//! notify. The state is the parker's own and not the thread's park token, since code inside a poll may eat the token
//! (a mutex or a channel of std that blocks there, or `thread::park` itself). So a return from sleep means nothing
//! until the state says so.
//!
//! # Who may touch what
//! 1. `sleeper` is written by the owner alone, once, before it first goes to `PARKED`.
//! 2. Anyone who has found `PARKED` may read it, from then on.
//! 3. `by_itself` is touched on the owner's thread alone. (A thread that comes to have the address by which an ended one was
//!    known may touch that one's, which nobody reads any more.)
//!
//! # Synchronisation edges
//! | id | release side | acquire side | publishes | model |
//! |---|---|---|---|---|
//! | P1 | `notify` | `consume` | what was written before the wake | `wake_publishes` |
//! | P2 | `wait`: to `PARKED` | `notify` | `sleeper` | `wake_finds_the_sleeper` |
//! | P3 | `notify` | `wait`: the deadline has passed | what was written before the wake | `deadline_against_wake` |
//!
//! # What can go wrong
//! * A wake between the poll and the sleep: `wake_publishes`.
//! * A wake during the poll, also by the thread itself: `wake_during_poll`.
//! * Whoever is told that the thread goes to sleep wakes it, on that thread: `woken_by_the_one_who_is_told`.
//! * A spurious return from sleep, or a token that somebody ate: `spurious_wake_ups`.
//! * A waker that is kept and fires when its call has long returned: `stale_waker`.
//! * A deadline that passes as the wake comes: `deadline_against_wake`.
//! * The first poll's waker, which makes the real one when it is cloned, cloned on two threads at once: `lazy_waker`.
//!
//! # Why it yields before it sleeps
//! A sleep and a wake cost tens of microseconds; another thread that is just about to answer needs one. So the owner
//! first pauses a few times, then gives its core away some dozens of times, and looks after each. That pays only if
//! answers are quick: see [`Patience`].

use std::cell::{Cell, RefCell};
use std::future::IntoFuture;
use std::mem::ManuallyDrop;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::time::{Duration, Instant};
use std::{mem, ptr};

use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicBool, AtomicU8};
use crate::sync::{self, Mutex, Sleeper, UnsafeCell, thread, thread_local};

const EMPTY: u8 = 0;
const NOTIFIED: u8 = 1;
const PARKED: u8 = 2;

/// What wakers point to.
struct Parker {
    /// The owner's thread, as `here` tells it.
    owner: usize,
    /// The owner has woken itself. Touched on its thread alone, so that this costs no read-modify-write.
    by_itself: AtomicBool,
    state: AtomicU8,
    sleeper: UnsafeCell<Option<Sleeper>>,
}

// SAFETY: `sleeper` is written before it can be read by others (rules 1 and 2), and is `Send` and `Sync` itself.
unsafe impl Sync for Parker {}

impl Parker {
    fn new(owner: usize) -> Self {
        Self { owner, by_itself: AtomicBool::new(false), state: AtomicU8::new(EMPTY), sleeper: UnsafeCell::new(None) }
    }

    fn notify(&self) {
        if here() == self.owner {
            // The owner is awake: it is here.
            // ORDERING: Relaxed: read by this very thread (rule 3).
            self.by_itself.store(true, Relaxed);
            return;
        }
        // ORDERING: AcqRel: Release [P1, P3]: pairs with `consume` and the end of `wait`; publishes what the waker's
        // caller did. Acquire [P2]: pairs with the step to PARKED; `sleeper` is there.
        if self.state.swap(NOTIFIED, AcqRel) == PARKED {
            self.sleeper.with(|sleeper| {
                // SAFETY: rule 2.
                if let Some(sleeper) = unsafe { &*sleeper } {
                    sleeper.wake();
                }
            });
        }
    }

    /// Owner only: whether there was a notification. It is used up.
    fn consume(&self) -> bool {
        // ORDERING: Relaxed: written by this very thread (rule 3).
        if self.by_itself.load(Relaxed) {
            // ORDERING: as above.
            self.by_itself.store(false, Relaxed);
            return true;
        }
        // ORDERING: Relaxed: only a hint that the exchange is worth trying; nothing is read because of it.
        self.state.load(Relaxed) == NOTIFIED
            // ORDERING: Acquire [P1]: pairs with `notify`; the poll that follows sees what came before the wake.
            && self.state.compare_exchange(NOTIFIED, EMPTY, Acquire, Relaxed).is_ok()
    }

    /// Owner only: sleeps until there is a notification, or until the deadline. Whether there was one; it is used up.
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        // SAFETY: rule 1: only the owner ever writes it, and it is the owner who reads here.
        if self.sleeper.with(|sleeper| unsafe { &*sleeper }.is_none()) {
            // SAFETY: rule 1: this is before the first step to PARKED, so nobody else reads.
            self.sleeper.with_mut(|sleeper| unsafe { *sleeper = Some(Sleeper::current()) });
        }
        // ORDERING: Release [P2]: pairs with `notify`; publishes `sleeper`. If there is a notification already, the
        // loop finds it.
        if self.state.compare_exchange(EMPTY, PARKED, Release, Relaxed).is_ok() {
            sync::sleep(deadline);
        }
        while !self.consume() {
            if deadline.is_some_and(sync::is_past) {
                // ORDERING: Acquire [P3]: pairs with `notify`, which may have come just now.
                return self.state.swap(EMPTY, Acquire) == NOTIFIED;
            }
            sync::sleep(deadline);
        }
        true
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

/// How many times to pause or yield before sleeping: many while answers are quick, none when they are slow.
///
/// A wait that was short, in whichever way it was spent, makes it worth trying again; each one that was long halves it, so
/// that a thread that waits for long jobs soon goes to sleep at once. And where a single yield takes long, others want the
/// core: then yielding costs a turn of the scheduler's, while a sleeper is put back at once. So a number of waits go without,
/// and twice as many each time that it happens again.
#[derive(Clone, Copy)]
struct Patience {
    turns: u32,
    /// How many waits are to go without.
    rest: u32,
    /// How many it was the last time.
    last_rest: u32,
}

impl Patience {
    const NEW: Self = Self { turns: Self::MOST, rest: 0, last_rest: 0 };
    const MOST: u32 = 64;
    /// So many of them only pause; the others yield, which is a system call, but lets a thread run that needs this core.
    const PAUSES: u32 = 4;
    /// What a hand-over takes between two threads that both go to sleep, and a bit. No more is spent on yielding either.
    const SHORT: Duration = Duration::from_micros(50);
    /// Longer than any yield takes when nobody else wants the core.
    const SLOW_YIELD: Duration = Duration::from_micros(20);
    const LONGEST_REST: u32 = 1024;

    fn after_yielding(&mut self, slowest: Duration) {
        if slowest < Self::SLOW_YIELD {
            self.last_rest /= 2;
        } else {
            self.last_rest = (2 * self.last_rest).clamp(1, Self::LONGEST_REST);
            *self = Self { turns: 0, rest: self.last_rest, last_rest: self.last_rest };
        }
    }

    fn after_sleep(&mut self, wait: Duration) {
        if self.rest > 0 {
            self.rest -= 1;
        } else {
            self.turns = if wait < Self::SHORT { Self::MOST } else { self.turns / 2 };
        }
    }
}

/// The owner's side: a parker, its waker, and what was learned from earlier waits.
struct Waiter {
    parker: Arc<Parker>,
    waker: Waker,
    patience: Patience,
}

impl Waiter {
    /// One of this thread's, or a new one if outer calls are using them all.
    fn of_this_thread() -> Self {
        CACHE.try_with(|cache| cache.borrow_mut().pop()).ok().flatten().unwrap_or_else(|| Self::new(here()))
    }

    /// A new one, to be owned by that thread.
    fn new(owner: usize) -> Self {
        let parker = Arc::new(Parker::new(owner));
        Self { waker: parker.clone().into(), parker, patience: Patience::NEW }
    }

    /// Blocks until there is a notification, or until the deadline. Whether there was one.
    fn wait(&mut self, deadline: Option<Instant>) -> bool {
        if self.parker.consume() {
            return true;
        }
        let start = Instant::now();
        // With one CPU nobody can answer while this thread runs; the one that will gets it by this thread's sleep.
        let turns = if sync::cpus() > 1 { self.patience.turns } else { 0 };
        let (mut now, mut slowest) = (Duration::ZERO, Duration::ZERO);
        for turn in 0..turns {
            if turn < Patience::PAUSES {
                sync::pause();
            } else {
                thread::yield_now();
            }
            let notified = self.parker.consume();
            let before = mem::replace(&mut now, start.elapsed());
            slowest = slowest.max(now.saturating_sub(before));
            if notified {
                self.patience.after_yielding(slowest);
                return true;
            }
            if now >= Patience::SHORT || deadline.is_some_and(sync::is_past) {
                break;
            }
        }
        if turns > 0 {
            self.patience.after_yielding(slowest);
        }
        let around_sleep = AROUND_SLEEP.try_with(Cell::get).ok().flatten();
        if let Some(tell) = around_sleep {
            tell(Sleeping::Begins);
        }
        // Who was told may have woken this very thread.
        let notified = self.parker.consume() || self.parker.sleep(deadline);
        if let Some(tell) = around_sleep {
            tell(Sleeping::Ends);
        }
        self.patience.after_sleep(start.elapsed());
        notified
    }
}

/// What [`tell_around_sleep`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleeping {
    /// The thread goes to sleep now, until somebody wakes it or its deadline has passed.
    Begins,
    /// It is awake again.
    Ends,
}

/// From now on, calls `tell` whenever a blocking call on this thread goes to sleep, and when it wakes up. `None`: no more.
///
/// For a pool, which has another thread run its jobs meanwhile. `tell` must not panic or block; it may wake the thread.
pub fn tell_around_sleep(tell: Option<fn(Sleeping)>) {
    AROUND_SLEEP.with(|around_sleep| around_sleep.set(tell));
}

thread_local! {
    /// Whom to tell when this thread blocks.
    static AROUND_SLEEP: Cell<Option<fn(Sleeping)>> = const { Cell::new(None) };
    /// The waiters of this thread that no call uses: so that none allocates but the first of each depth of nesting.
    static CACHE: RefCell<Vec<Waiter>> = const { RefCell::new(Vec::new()) };
    /// Its address tells threads that are alive at the same time apart.
    static HERE: u8 = const { 0 };
}

fn here() -> usize {
    HERE.try_with(|here| ptr::from_ref(here).addr()).unwrap_or(0)
}

/// One call's waiter, which comes to be when it is first needed: when the first poll clones or wakes its waker, or is
/// not ready. Goes back to the thread's cache in the end.
struct Call {
    thread: usize,
    waiter: Mutex<Option<Waiter>>,
}

/// During the first poll, `&Waker` may go to another thread, and with it the call.
const _: () = {
    const fn is_sync<T: Sync>() {}
    is_sync::<Call>();
};

impl Call {
    fn new() -> Self {
        Self { thread: here(), waiter: Mutex::new(None) }
    }

    /// Gives access to the waiter. Any thread may ask for it during the first poll: `&Waker` is `Sync`.
    fn with_waiter<R>(&self, f: impl FnOnce(&mut Waiter) -> R) -> R {
        let make = || if here() == self.thread { Waiter::of_this_thread() } else { Waiter::new(self.thread) };
        f(self.waiter.lock().get_or_insert_with(make))
    }

    /// A waker for the first poll. It points to this call and owns nothing.
    fn first_waker(&self) -> ManuallyDrop<Waker> {
        const VTABLE: RawWakerVTable = RawWakerVTable::new(
            |call| {
                // SAFETY: see `first_waker`: the call is alive.
                let waker = ManuallyDrop::new(unsafe { &*call.cast::<Call>() }.with_waiter(|w| w.waker.clone()));
                RawWaker::new(waker.data(), waker.vtable())
            },
            Call::wake_first,
            Call::wake_first,
            |_| {},
        );
        // SAFETY: the four functions do what RawWaker asks for: a clone is a real waker with an owner count of its own;
        // waking is thread-safe (a mutex); dropping has nothing to drop, as this waker owns nothing. The pointer is good
        // while `self` is borrowed: callers lend the waker to one poll within that time, and a `&Waker` cannot be kept,
        // only cloned.
        ManuallyDrop::new(unsafe { Waker::new(ptr::from_ref(self).cast(), &VTABLE) })
    }

    fn wake_first(call: *const ()) {
        // SAFETY: see `first_waker`: the call is alive.
        unsafe { &*call.cast::<Self>() }.with_waiter(|waiter| waiter.parker.notify());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.get_mut().take() {
            // If the thread is ending and has no cache any more, the waiter ends too.
            let _ = CACHE.try_with(|cache| cache.borrow_mut().push(waiter));
        }
    }
}

/// Calls `poll` until it is ready, and blocks this thread in between. `None`: the deadline has passed.
///
/// What the poll left registered somewhere stays there: it is the caller's to withdraw.
pub fn poll_until<T>(deadline: Option<Instant>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    let mut call = Call::new();
    let first_waker = call.first_waker();
    if let Poll::Ready(value) = poll(&mut Context::from_waker(&first_waker)) {
        return Some(value);
    }
    let waiter = call.waiter.get_mut().get_or_insert_with(Waiter::of_this_thread);
    while waiter.wait(deadline) {
        if let Poll::Ready(value) = poll(&mut Context::from_waker(&waiter.waker)) {
            return Some(value);
        }
        // Here too, in case the wake-ups never cease.
        if deadline.is_some_and(sync::is_past) {
            return None;
        }
    }
    None
}

/// Runs a future to its end on this thread, and returns its output.
///
/// Any future will do, whoever wakes it. One that is ready at once, and leaves its waker alone, costs no allocation and no
/// system call.
///
/// ```
/// let (sender, receiver) = offthread::oneshot::channel();
/// std::thread::spawn(move || sender.send("from a thread"));
/// assert_eq!(offthread::block_on(receiver), Ok("from a thread"));
/// ```
///
/// # Panics
/// If the future panics, with its panic.
///
/// # Blocking
/// Blocks the thread whenever the future is not ready: for some microseconds by giving its core away, then asleep.
///
/// # Synchronization
/// What a thread did before it woke the future's waker happens before the poll that this causes.
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    match poll_until(None, |cx| future.as_mut().poll(cx)) {
        Some(output) => output,
        None => unreachable!("there is no deadline that could pass"),
    }
}
