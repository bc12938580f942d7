//! A slot for the waker of one waiter.
//!
//! # What it promises
//! A waiter calls [`register`](WakerSlot::register) and then **looks again** for the event that it waits for. The other
//! side publishes the event and then calls [`wake`](WakerSlot::wake), or [`take`](WakerSlot::take) and wakes the waker
//! that it got. Then at least one of the two holds: the waiter's second look sees the event, or the waker registered
//! last is woken. Neither call waits for the other side. If a taker is at work during a registration, the waiter is
//! woken at once, and looks once more.
//!
//! The simplest version has a lock round the waker: `examples/made_2_oneshot_waker.rs`.
//!
//! # State machine
//! ```text
//!             register: lock                take: lock
//! REGISTERING <-------------- IDLE ---------------------> TAKING
//!      |       -------------->  ^ <---------------------   (another take leaves it as it is)
//!      |       register: unlock |       take: unlock
//! take |                        |
//!      v                        | register: take its own waker back, unlock, and wake it
//! REGISTERING | TAKING ---------+
//! ```
//!
//! # Who may touch what
//! 1. `waker` belongs to the thread whose transition left `IDLE`, until that thread goes back to `IDLE`.
//! 2. A `take` that finds `REGISTERING` sets `TAKING` as a mark and returns. The registering thread then wakes the
//!    waker itself.
//! 3. While a thread owns the cell it only moves wakers in or out. Cloning, waking or dropping a waker runs the code of
//!    its executor, which may use this slot: so that is done outside the lock.
//!
//! # Synchronisation edges
//! | id | release side | acquire side | publishes | model |
//! |---|---|---|---|---|
//! | W1 | `register`: unlock | the next `take` or `register`: lock | the cell, with the waker | `event_or_wake` |
//! | W2 | `take`: unlock | the next `register` or `take`: lock | the cell, empty, and the event | `register_again_after_take` |
//! | W3 | `take`: mark left during a registration | the next `register`: lock | the event | `replaced_waker_or_event` |
//! | W4 | `register`: unlock after a mark | the next `take` or `register`: lock | the cell, empty | `two_registrations_two_takes` |
//!
//! # What can go wrong
//! * A wake between the waiter's first look and its registration: `event_or_wake`.
//! * A wake in the middle of a registration that replaces a waker: `replaced_waker_or_event`.
//! * Two takers at once, of which only one may have the waker: `two_takers`.
//! * A waker dropped by `register` that calls back into the slot: `waker_that_registers_in_drop`.
//!
//! The protocol is that of `AtomicWaker` in the `futures` project, except that wakers are cloned and dropped outside
//! the lock.

use std::mem;
use std::task::Waker;

use crate::sync::atomic::AtomicU8;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{UnsafeCell, thread};

const IDLE: u8 = 0;
const REGISTERING: u8 = 1;
const TAKING: u8 = 2;

/// One waiter's waker. See the file's head for the protocol.
pub struct WakerSlot {
    state: AtomicU8,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: `waker` is touched by one thread at a time (rule 1), and a `Waker` is `Send`.
unsafe impl Sync for WakerSlot {}

/// An empty slot.
impl Default for WakerSlot {
    #[inline]
    fn default() -> Self {
        Self { state: AtomicU8::new(IDLE), waker: UnsafeCell::new(None) }
    }
}

impl WakerSlot {
    /// Stores a waker for the next [`take`](Self::take), in place of the one stored before.
    ///
    /// The caller must look again for its event before it sleeps. A slot is for one waiter: of two that register at the
    /// same time, one is woken at once.
    pub fn register(&self, waker: &Waker) {
        let mut waker = Some(waker.clone());
        // ORDERING: Acquire [W1, W2, W3, W4]: pairs with the unlock of the thread that had the cell before, and with a
        // mark; the cell is ours, as that thread left it, and a taker's event is seen. On failure, Relaxed: nothing is
        // read because of it.
        if self.state.compare_exchange(IDLE, REGISTERING, Acquire, Relaxed).is_err() {
            // A taker is taking an earlier waker. Its event may be an old one, so the caller's second look may see
            // nothing: waking the caller makes it look once more, and no thread waits for the taker. The taker may have
            // been preempted: yield to it.
            thread::yield_now();
            wake(waker);
            return;
        }
        // SAFETY: rule 1: this thread has just gone from IDLE to REGISTERING.
        self.waker.with_mut(|cell| mem::swap(unsafe { &mut *cell }, &mut waker));
        // ORDERING: Release [W1]: pairs with the lock of the next `take` or `register`; hands over the cell. On failure
        // nothing is read yet.
        if self.state.compare_exchange(REGISTERING, IDLE, Release, Relaxed).is_err() {
            // SAFETY: rule 1: a taker has left its mark and gone (rule 2); the cell is still this thread's.
            let own = self.waker.with_mut(|cell| unsafe { &mut *cell }.take());
            // ORDERING: Release [W4]: pairs with the lock of the next `take` or `register`, which finds the cell empty.
            // The mark's event is seen by the next registration [W3]: its lock acquires, and this exchange passes on
            // what the mark released.
            self.state.swap(IDLE, Release);
            wake(own);
        }
        // Here, outside the lock, `waker` (the one that was replaced) is dropped.
    }

    /// Takes the waker out, if there is one and nobody else is taking it. The caller wakes or drops it.
    ///
    /// Also `None` during a registration: `register` then wakes its waker itself.
    #[must_use = "a waker that is taken must be woken, unless its waiter has given up"]
    pub fn take(&self) -> Option<Waker> {
        // ORDERING: AcqRel: Acquire [W1, W2, W4]: pairs with the unlock of the thread that had the cell before; the
        // cell is ours. Release [W2, W3]: the next registration acquires this very write, or a later one that passes it
        // on; publishes the event.
        if self.state.fetch_or(TAKING, AcqRel) != IDLE {
            return None;
        }
        // SAFETY: rule 1: this thread has just gone from IDLE to TAKING.
        let waker = self.waker.with_mut(|cell| unsafe { &mut *cell }.take());
        // ORDERING: Release [W2]: pairs with the next lock; hands back the emptied cell.
        self.state.fetch_and(!TAKING, Release);
        waker
    }

    /// Wakes the waiter, if there is one.
    pub fn wake(&self) {
        wake(self.take());
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl_debug!(WakerSlot);
