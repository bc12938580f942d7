//! One task's state, which does not depend on its output or its scheduler.
//!
//! # What it promises
//! Each wake is followed by a poll; several wakes before that poll share it. Either the end of a task or its
//! cancellation comes first, and both sides learn which one.
//!
//! # State machine
//! ```text
//!            mark_queued: a wake puts the task into the run queue
//!   (idle) ------------------------------------------------------> QUEUED
//!      ^                                                              |
//!      +----------------------- begin: the task is polled ------------+
//!
//!   CANCELLED, ENDED: whichever is set first counts.    DETACHED: nobody will cancel the task.
//! ```
//!
//! # Who may touch what
//! 1. A task's [`Place`] is written and read on the loop's thread alone.
//! 2. The scheduler alone calls `begin` and `end`.
//! 3. If another runtime polls the task, the runtime's waker is kept for one purpose: to cancel the task. Such a waker
//!    may keep the runtime's task alive. So it is dropped when the task has ended or is detached.
//!
//! # Synchronisation edges
//! | id | release side | acquire side | publishes | model |
//! |---|---|---|---|---|
//! | T1 | `mark_queued`, when QUEUED was set before | `begin` | what was written before the wake | `two_wakers` |
//! | T2 | `mark_cancelled` | `begin` | what the canceller did before it cancelled | `cancel_publishes` |
//!
//! A wake that sets QUEUED needs no edge here: the wake is on the loop's own thread, or goes through the inbox's lock.
//!
//! # What can go wrong
//! * Two threads wake the task at once, and the next poll does not see one of them: `two_wakers`.
//! * A task that is woken twice is polled twice: `woken_twice`.
//! * A wake is lost during the poll: `wake_during_its_poll`.
//! * A task is cancelled while it ends, and both sides believe that they were first: `cancel_as_it_ends`.
//! * A task of another runtime is cancelled, or detached, while it is polled: `foreign_cancel`, `foreign_detach`.
#![forbid(unsafe_code)]

use std::task;

use crate::primitives::join_error::catch_and_discard;
use crate::primitives::waker_slot::WakerSlot;
use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const QUEUED: u32 = 1;
const CANCELLED: u32 = 2;
const ENDED: u32 = 4;
const DETACHED: u32 = 8;

/// The part of a task that its wakers and its handle share, with the output's type erased.
pub trait AnyTask: Send + Sync {
    fn state(&self) -> &TaskState;
}

/// Where a task is on its loop. No two tasks have the same place, since a slot gets a new number for each task.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub slot: u32,
    pub number: u32,
}

pub struct TaskState {
    /// Not a byte: see `State` in `job`.
    bits: AtomicU32,
    slot: AtomicU32,
    number: AtomicU32,
    /// For a task of another runtime. See rule 3.
    runtime_waker: Option<Box<WakerSlot>>,
}

impl TaskState {
    /// `is_queued`: the task is polled as soon as its scheduler has it. Otherwise a wake causes the first poll.
    pub fn new(is_queued: bool, is_external: bool) -> Self {
        let bits = AtomicU32::new(if is_queued { QUEUED } else { 0 });
        let runtime_waker = is_external.then(Box::default);
        Self { bits, slot: AtomicU32::new(u32::MAX), number: AtomicU32::new(0), runtime_waker }
    }

    /// The task's place. Before it has one: a place that no task has.
    pub fn place(&self) -> Place {
        // ORDERING: Relaxed: rule 1.
        Place { slot: self.slot.load(Relaxed), number: self.number.load(Relaxed) }
    }

    pub fn set_place(&self, place: Place) {
        // ORDERING: Relaxed: rule 1.
        self.slot.store(place.slot, Relaxed);
        // ORDERING: Relaxed: rule 1.
        self.number.store(place.number, Relaxed);
    }

    /// Whether a poll is due. For the scheduler that adds the task.
    pub fn is_queued(&self) -> bool {
        // ORDERING: Relaxed: a thread that sets QUEUED from now on hands the task to the scheduler.
        self.bits.load(Relaxed) & QUEUED != 0
    }

    /// Marks the task as queued. True: the caller is to queue it.
    #[must_use = "otherwise nobody queues the task"]
    pub fn mark_queued(&self) -> bool {
        // ORDERING: Release [T1]: pairs with `begin`; publishes what the waker's caller did, if QUEUED was set already.
        self.bits.fetch_or(QUEUED, Release) & QUEUED == 0
    }

    /// Marks the task as cancelled. True: the caller is to tell the scheduler. False: the task has ended, or was
    /// cancelled before.
    #[must_use = "otherwise the task is not cancelled before its next wake"]
    pub fn mark_cancelled(&self) -> bool {
        // ORDERING: Release [T2]: pairs with `begin`; publishes what the canceller did before it cancelled.
        self.bits.fetch_or(CANCELLED, Release) & (CANCELLED | ENDED) == 0
    }

    /// The task is about to be polled: from now on, a wake queues it again. False: it has been cancelled.
    #[must_use = "a task that has been cancelled must not be polled"]
    pub fn begin(&self, cx: &task::Context<'_>) -> bool {
        if let Some(waker) = &self.runtime_waker {
            // Register, then look: whether the task is detached, and below, whether it is cancelled.
            waker.register(cx.waker());
            // ORDERING: Relaxed: `detach` sets the bit, then takes the waker; the slot's edges order the two sides.
            if self.bits.load(Relaxed) & DETACHED != 0 {
                self.forget_waker();
            }
        }
        // ORDERING: Relaxed: a wake's Release reaches through this to the load below.
        self.bits.fetch_and(!QUEUED, Relaxed);
        // ORDERING: Acquire [T1, T2]: pairs with `mark_queued` and `mark_cancelled`; the poll sees what came before the
        // wake. (On x86-64, a `fetch_and` whose value is used becomes a loop.)
        self.bits.load(Acquire) & CANCELLED == 0
    }

    /// The task has ended. False: it had been cancelled before.
    pub fn end(&self) -> bool {
        self.forget_waker();
        // ORDERING: Relaxed: all that matters is which of two bits comes first; the output goes through the oneshot.
        self.bits.fetch_or(ENDED, Relaxed) & CANCELLED == 0
    }

    pub fn detach(&self) {
        // ORDERING: Relaxed: as in `begin`.
        self.bits.fetch_or(DETACHED, Relaxed);
        self.forget_waker();
    }

    /// Wakes the other runtime's task, so that the runtime polls it.
    pub fn wake_runtime(&self) {
        self.runtime_waker.as_ref().inspect(|waker| waker.wake());
    }

    fn forget_waker(&self) {
        if let Some(waker) = &self.runtime_waker {
            catch_and_discard(|| drop(waker.take()));
        }
    }
}
