//! Blocks a thread until a waker fires: the one place where this crate waits.
//!
//! # What it promises
//! [`drive`] takes turns until one of them ends it, and lets the thread sleep in between. Each wake of the waker that the
//! turns are given, from any thread, even after the call has returned, is followed by another turn, which is told of it, or
//! by none if the call is over. The same holds for each call of the [`Unparker`]. What was written before is seen by that
//! turn. Calls may be nested on one thread. One that ends with the first turn, and leaves its waker alone, costs no
//! allocation, no atomic read-modify-write and no system call. [`poll_until`] and [`block_on`] are the everyday forms.
//!
//! # State machine
//! ```text
//!            notify                            notify: wakes the sleeper
//!   EMPTY ------------> WOKEN, UNPARKED <-------------------- PARKED
//!     ^  \               or both                              ^ |
//!     |   \------ consume   |                                 | | sleep: the deadline has passed
//!     |                     |                                 | v
//!     +---------------------+           sleep: about to sleep +-- EMPTY
//! ```
//! One `Parker` belongs to one thread, its owner, who alone goes to `EMPTY` and to `PARKED`. Anyone may notify: the waker
//! leaves `WOKEN`, the unparker `UNPARKED`, so that an event loop can tell whether its main future was woken or it was
//! called for something else. (The first to notify a sleeper leaves `PARKED` beside that: the next ones need not wake it
//! again.) The state is the parker's own and not the thread's park token, since code inside a poll may eat the token (a
//! mutex or a channel of std that blocks there, or `thread::park` itself). So a return from sleep means nothing until the
//! state says so.
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
//! | P2 | `sleep`: to `PARKED` | `notify` | `sleeper` | `wake_finds_the_sleeper` |
//! | P3 | `notify` | `sleep`: the deadline has passed | what was written before the wake | `deadline_against_wake` |
//!
//! # What can go wrong
//! * A wake between the poll and the sleep: `wake_publishes`.
//! * A wake during the poll, also by the thread itself: `wake_during_poll`.
//! * Woken and unparked at once, on whichever thread: neither hides the other: `woken_and_unparked`.
//! * Whoever is told that the thread goes to sleep wakes it, on that thread: `woken_by_the_one_who_is_told`.
//! * A spurious return from sleep, or a token that somebody ate: `spurious_wake_ups`.
//! * A waker that is kept and fires when its call has long returned: `stale_waker`.
//! * A deadline that passes as the wake comes: `deadline_against_wake`.
//! * The first poll's waker, which makes the real one when it is cloned, cloned on two threads at once: `lazy_waker`.
//!
//! # Why it yields before it sleeps
//! A sleep and a wake cost tens of microseconds; another thread that is just about to answer needs one. So the owner
//! first pauses a few times, then gives its core away again and again, and looks after each. That pays only if
//! answers are quick: see [`Patience`].

use std::cell::{Cell, RefCell};
use std::future::IntoFuture;
use std::mem::ManuallyDrop;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::time::{Duration, Instant};
use std::{fmt, mem, ptr};

use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicBool, AtomicU8};
use crate::sync::{self, Mutex, Sleeper, UnsafeCell, thread, thread_local};

const EMPTY: u8 = 0;
const WOKEN: u8 = 1;
const UNPARKED: u8 = 2;
const PARKED: u8 = 4;

/// What a thread was notified of. Of nothing: its deadline has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notified {
    /// By its waker.
    pub woken: bool,
    /// By an [`Unparker`].
    pub unparked: bool,
}

impl Notified {
    fn of(state: u8) -> Self {
        Self { woken: state & WOKEN != 0, unparked: state & UNPARKED != 0 }
    }

    /// Of anything at all.
    fn is_any(self) -> bool {
        self.woken || self.unparked
    }
}

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

    fn wake_owner(&self) {
        if here() == self.owner {
            // The owner is awake: it is here.
            // ORDERING: Relaxed: read by this very thread (rule 3).
            self.by_itself.store(true, Relaxed);
        } else {
            self.notify(WOKEN);
        }
    }

    fn notify(&self, of: u8) {
        // ORDERING: AcqRel: Release [P1, P3]: pairs with `consume` and the end of `sleep`; publishes what the caller did
        // before. Acquire [P2]: pairs with the step to PARKED; `sleeper` is there.
        if self.state.fetch_or(of, AcqRel) == PARKED {
            self.sleeper.with(|sleeper| {
                // SAFETY: rule 2.
                if let Some(sleeper) = unsafe { &*sleeper } {
                    sleeper.wake();
                }
            });
        }
    }

    /// Owner only: what it was notified of. That is used up.
    fn consume(&self) -> Notified {
        // ORDERING: Relaxed: only a hint that the exchange is worth trying; nothing is read because of it.
        let notified = if self.state.load(Relaxed) & (WOKEN | UNPARKED) == 0 {
            Notified::default()
        } else {
            // ORDERING: Acquire [P1]: pairs with `notify`; the turn that follows sees what came before.
            Notified::of(self.state.swap(EMPTY, Acquire))
        };
        // ORDERING: Relaxed: written by this very thread (rule 3).
        if !self.by_itself.load(Relaxed) {
            return notified;
        }
        // ORDERING: as above.
        self.by_itself.store(false, Relaxed);
        Notified { woken: true, ..notified }
    }

    /// Owner only: sleeps until it is notified, or until the deadline. Of what; that is used up.
    fn sleep(&self, deadline: Option<Instant>) -> Notified {
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
        loop {
            let notified = self.consume();
            if notified.is_any() {
                return notified;
            }
            if deadline.is_some_and(sync::is_past) {
                // ORDERING: Acquire [P3]: pairs with `notify`, which may have come just now.
                return Notified::of(self.state.swap(EMPTY, Acquire));
            }
            sync::sleep(deadline);
        }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_owner();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_owner();
    }
}

/// Has a thread take another turn of its [`drive`], without waking what that polls.
#[derive(Clone)]
pub struct Unparker(Arc<Parker>);

impl Unparker {
    /// From any thread. If the thread sleeps, it is woken.
    pub fn unpark(&self) {
        self.0.notify(UNPARKED);
    }
}

impl fmt::Debug for Unparker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unparker").finish_non_exhaustive()
    }
}

/// How many times to pause or yield before sleeping: many while answers are quick, none when they are slow.
///
/// Each answer that comes before it sleeps, and soon, earns another turn; each wait that was long costs half of them, so that
/// a thread that waits for long jobs soon goes to sleep at once; and one that has only slept for a moment has a few again.
/// After many quick answers there is patience enough for what may hold up the other thread: an interrupt, or that it is
/// being moved to another core. Who sleeps then is woken on the other's core, and there they stay, taking turns, until the
/// scheduler moves one of them again, and that can take tens of milliseconds.
///
/// Where an answer never comes while it pauses, it may be that the other thread runs on this very core: then it yields from
/// the start, but for a try now and then. And some waits, less and less often, it spends asleep: the system may well give a
/// thread that it wakes another core, but those that yield to each other it leaves where they are.
///
/// Where a single yield takes long, others want the core: then yielding costs a turn of the scheduler's, while a sleeper is
/// put back at once. So a number of waits go without, and twice as many each time that it happens again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    turns: u32,
    /// Since an answer last came in a pause: to how many waits it came later, but before they slept, and how many slept for
    /// just that reason.
    paused_in_vain: u32,
    /// How many waits are to go without.
    rest: u32,
    /// How many it was the last time.
    last_rest: u32,
}

impl Patience {
    pub const NEW: Self = Self { turns: Self::FEW, paused_in_vain: 0, rest: 0, last_rest: 0 };
    /// To begin with, and when a short sleep has shown that it may be worth it.
    const FEW: u32 = 64;
    /// No more is earned by quick answers.
    const MANY: u32 = 512;
    /// So many of them only pause; the others yield, which is a system call, but lets a thread run that needs this core.
    const PAUSES: u32 = 16;
    /// How long such a pause is: about as long as the look after it.
    const PAUSE: u32 = 2;
    /// So often in a row it pauses in vain by chance. After that it does so once in [`SELDOM`](Self::SELDOM) waits that are short.
    const BY_CHANCE: u32 = 4;
    const SELDOM: u32 = 16;
    /// After so many it sleeps: by then it has lost about what a sleep costs. After twice as many it does so again, and so on.
    const FIRST_SLEEP: u32 = 32;
    /// Then that begins from the start.
    const SLEEP_CYCLE: u32 = 1024;
    /// What a hand-over takes between two threads that both go to sleep, and a bit.
    const SHORT: Duration = Duration::from_micros(50);
    /// It stops when it has spent so long, however many turns are left: it is about what the most of them take.
    const LONGEST: Duration = Duration::from_micros(200);
    /// Longer than any yield takes when nobody else wants the core, a timer's interrupt included, and much shorter than a turn
    /// of the scheduler's. (If the interrupt were taken for such a turn, the thread would sleep just when the scheduler looks
    /// whether two want one core.)
    const SLOW_YIELD: Duration = Duration::from_micros(100);
    const LONGEST_REST: u32 = 1024;

    /// Waits from `start` on as long as it is worth it, without going to sleep. `None`: there was no answer, and what follows
    /// is to be [told](Self::after_sleep).
    pub fn linger<T>(
        &mut self,
        start: Instant,
        deadline: Option<Instant>,
        mut answer: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        // With one CPU nobody can answer while this thread runs; the one that will gets it by this thread's sleep.
        let mut turns = if sync::cpus() > 1 { self.turns } else { 0 };
        let in_vain = self.paused_in_vain % Self::SLEEP_CYCLE;
        if turns > 0 && in_vain >= Self::FIRST_SLEEP && in_vain.is_power_of_two() {
            self.paused_in_vain += 1;
            // Nothing is learned from how long that takes.
            (turns, self.rest) = (0, 1);
        }
        let is_vain = self.paused_in_vain >= Self::BY_CHANCE && self.paused_in_vain % Self::SELDOM != 0;
        let pauses = if is_vain { 0 } else { Self::PAUSES };
        let (mut now, mut slowest) = (Duration::ZERO, Duration::ZERO);
        for turn in 0..turns {
            if turn < pauses {
                sync::pause(Self::PAUSE);
            } else {
                thread::yield_now();
            }
            let answer = answer();
            let before = mem::replace(&mut now, start.elapsed());
            slowest = slowest.max(now.saturating_sub(before));
            if answer.is_some() {
                self.paused_in_vain = if turn < pauses { 0 } else { self.paused_in_vain.wrapping_add(1) };
                self.turns = if now < Self::SHORT { (turns + 1).min(Self::MANY) } else { turns / 2 };
                self.after_yielding(slowest);
                return answer;
            }
            if now >= Self::LONGEST || deadline.is_some_and(sync::is_past) {
                break;
            }
        }
        if turns > 0 {
            self.after_yielding(slowest);
        }
        None
    }

    fn after_yielding(&mut self, slowest: Duration) {
        if slowest < Self::SLOW_YIELD {
            self.last_rest /= 2;
        } else {
            self.last_rest = (2 * self.last_rest).clamp(1, Self::LONGEST_REST);
            (self.turns, self.rest) = (0, self.last_rest);
        }
    }

    /// It slept in the end, until there was an answer, or until its deadline: that is none, however near it was.
    pub fn after_sleep(&mut self, wait: Duration, answered: bool) {
        if self.rest > 0 {
            self.rest -= 1;
        } else {
            let is_short = answered && wait < Self::SHORT;
            self.turns = if is_short { self.turns.max(Self::FEW) } else { self.turns / 2 };
        }
    }
}

/// The owner's side: a parker, its waker, and what was learned from earlier waits.
struct Waiter {
    unparker: Unparker,
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
        Self { waker: parker.clone().into(), unparker: Unparker(parker), patience: Patience::NEW }
    }

    fn parker(&self) -> &Parker {
        &self.unparker.0
    }

    /// For the next call.
    #[cold]
    fn goes_back(self) {
        // If the thread is ending and has no cache any more, the waiter ends too.
        let _ = CACHE.try_with(|cache| cache.borrow_mut().push(self));
    }

    /// Blocks until there is a notification, or until the deadline. Of what.
    fn wait(&mut self, deadline: Option<Instant>) -> Notified {
        let notified = self.parker().consume();
        if notified.is_any() {
            return notified;
        }
        let start = Instant::now();
        let parker = &self.unparker.0;
        let answer = || Some(parker.consume()).filter(|notified| notified.is_any());
        if let Some(notified) = self.patience.linger(start, deadline, answer) {
            return notified;
        }
        let around_sleep = AROUND_SLEEP.try_with(Cell::get).ok().flatten();
        if let Some(tell) = around_sleep {
            tell(Sleeping::Begins);
        }
        // Who was told may have woken this very thread.
        let mut notified = self.parker().consume();
        if !notified.is_any() {
            notified = self.parker().sleep(deadline);
        }
        if let Some(tell) = around_sleep {
            tell(Sleeping::Ends);
        }
        self.patience.after_sleep(start.elapsed(), notified.is_any());
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

#[inline]
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
    #[inline]
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
        unsafe { &*call.cast::<Self>() }.with_waiter(|waiter| waiter.parker().wake_owner());
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.get_mut().take() {
            waiter.goes_back();
        }
    }
}

/// What a turn of [`drive`] has at hand.
#[derive(Debug)]
pub struct Turn<'a, 'b> {
    /// Why it is taken. The first one counts as woken.
    pub notified: Notified,
    /// For polls.
    pub cx: &'a mut Context<'b>,
    /// Has the thread take another turn. Not there yet in the first one, which may well be the last.
    pub unparker: Option<&'a Unparker>,
}

/// What is to happen before the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Skip,
    /// The thread blocks until it is notified, or until the deadline.
    Until(Option<Instant>),
}

/// Takes turns until one of them ends it, and blocks this thread in between.
///
/// What a poll left registered somewhere stays there: it is the caller's to withdraw.
#[inline]
pub fn drive<T>(mut turn: impl FnMut(Turn<'_, '_>) -> ControlFlow<T, Rest>) -> T {
    let mut call = Call::new();
    let first_waker = call.first_waker();
    let notified = Notified { woken: true, unparked: false };
    let mut rest = match turn(Turn { notified, cx: &mut Context::from_waker(&first_waker), unparker: None }) {
        ControlFlow::Break(value) => return value,
        ControlFlow::Continue(rest) => rest,
    };
    let waiter = call.waiter.get_mut().get_or_insert_with(Waiter::of_this_thread);
    loop {
        let notified = match rest {
            Rest::Skip => waiter.parker().consume(),
            Rest::Until(deadline) => waiter.wait(deadline),
        };
        let cx = &mut Context::from_waker(&waiter.waker);
        match turn(Turn { notified, cx, unparker: Some(&waiter.unparker) }) {
            ControlFlow::Break(value) => return value,
            ControlFlow::Continue(then) => rest = then,
        }
    }
}

/// Calls `poll` until it is ready, and blocks this thread in between. `None`: the deadline has passed.
///
/// As for [`drive`], what the poll left registered stays there.
pub fn poll_until<T>(deadline: Option<Instant>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    drive(|Turn { notified, cx, unparker }| {
        if notified.woken {
            if let Poll::Ready(value) = poll(cx) {
                return ControlFlow::Break(Some(value));
            }
        }
        // After a poll too, in case the wake-ups never cease. After the first one, whoever waits may be notified already.
        let is_first = unparker.is_none();
        if !is_first && deadline.is_some_and(sync::is_past) {
            return ControlFlow::Break(None);
        }
        ControlFlow::Continue(Rest::Until(deadline))
    })
}

/// Polls a future of this crate until it is ready, and blocks this thread in between. What runs futures of its users is the
/// event loop.
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    match poll_until(None, |cx| future.as_mut().poll(cx)) {
        Some(output) => output,
        None => unreachable!("there is no deadline that could pass"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a wait began, by a clock that does not go on.
    fn just_now() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    /// How many times a wait looks that gets no answer.
    fn looks(patience: &mut Patience) -> u32 {
        looks_since(just_now(), patience)
    }

    fn looks_since(start: Instant, patience: &mut Patience) -> u32 {
        let mut looks = 0;
        let answer = patience.linger(start, None, || {
            looks += 1;
            None::<()>
        });
        assert_eq!(answer, None);
        looks
    }

    /// Where there is one core, nobody waits for an answer without going to sleep.
    fn with_two_cores(looks: u32) -> u32 {
        if sync::cpus() > 1 { looks } else { 0 }
    }

    #[test]
    fn quick_answers_earn_patience_and_long_waits_cost_it() {
        let mut patience = Patience::NEW;
        for turns in Patience::FEW..Patience::MANY + 10 {
            assert_eq!(patience.turns, with_two_cores(turns.min(Patience::MANY)).max(Patience::FEW));
            patience.linger(just_now(), None, || Some(()));
        }
        let mut turns = with_two_cores(Patience::MANY).max(Patience::FEW);
        while turns > 0 {
            assert_eq!(looks(&mut patience), with_two_cores(turns));
            patience.after_sleep(Patience::SHORT, true);
            turns /= 2;
        }
        assert_eq!(looks(&mut patience), 0);
        patience.after_sleep(Duration::ZERO, false);
        assert_eq!(looks(&mut patience), 0);
        patience.after_sleep(Duration::ZERO, true);
        assert_eq!(looks(&mut patience), with_two_cores(Patience::FEW));
        patience.linger(Instant::now().checked_sub(Patience::SHORT).unwrap(), None, || Some(()));
        assert!(looks(&mut patience) <= Patience::FEW / 2);
    }

    #[test]
    fn who_pauses_in_vain_sleeps_less_and_less_often() {
        let mut patience = Patience::NEW;
        let sleeps: Vec<u32> = (0..Patience::SLEEP_CYCLE + 100)
            .filter(|waits| {
                let is_try = *waits < Patience::BY_CHANCE || waits % Patience::SELDOM == 0;
                let mut in_vain = if is_try { Patience::PAUSES } else { 0 };
                let answer = || {
                    let is_there = in_vain == 0;
                    in_vain = in_vain.saturating_sub(1);
                    is_there.then_some(())
                };
                let sleeps = patience.linger(just_now(), None, answer).is_none();
                if sleeps {
                    patience.after_sleep(Patience::SHORT, true);
                }
                sleeps
            })
            .collect();
        if sync::cpus() > 1 {
            // It has not lost patience by what it chose to do.
            assert_eq!(patience.turns, Patience::MANY);
            assert_eq!(sleeps, [32, 64, 128, 256, 512, 1024 + 32, 1024 + 64]);
        } else {
            assert_eq!(sleeps.len(), 1024 + 100);
        }
    }

    #[test]
    fn no_wait_lingers_for_ever() {
        let long_ago = Instant::now().checked_sub(Patience::LONGEST).unwrap();
        assert_eq!(looks_since(long_ago, &mut { Patience::NEW }), with_two_cores(1));
    }

    #[test]
    fn a_slow_yield_has_the_next_waits_go_without() {
        let mut patience = Patience::NEW;
        let mut slow = |waits: u32| {
            let start = Instant::now().checked_sub(Patience::SLOW_YIELD).unwrap();
            assert_eq!(patience.linger(start, None, || Some(())).is_some(), sync::cpus() > 1);
            for _ in 0..with_two_cores(waits) {
                assert_eq!(looks(&mut patience), 0);
                patience.after_sleep(Duration::ZERO, true);
            }
            assert_eq!(looks(&mut patience), 0);
            patience.after_sleep(Duration::ZERO, true);
        };
        slow(1);
        slow(2);
    }
}
