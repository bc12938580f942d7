//! Drops values that own one another, however long the chain, on a small stack.
//!
//! # What it promises
//! [`drop_flat`] drops a value before it returns: unless it is called while another call of it is dropping a value on this
//! thread. Then the value waits in a queue, and the outermost call drops it before that one returns. So a value whose `Drop`
//! drops the next one, and so on, needs no more stack than two of them. Each value is dropped, also if others panic.
//!
//! Code that waits for the effect of a drop must not be kept waiting by its caller: a `block_on` inside a `Drop`, or a job that
//! runs inline there, has a queue of its own ([`Apart`]).
//!
//! # Who may touch what
//! 1. The queue is there while an outermost call runs. It belongs to one thread.
//! 2. While the queue is borrowed, no user code runs.
//! 3. The thread-local is not dropped with the thread, as it may be needed to the last. It owns nothing by then.
//!
//! There is no synchronisation in this file, and no model.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::Result as Caught;

use crate::primitives::join_error::discard;
use crate::sync::thread_local;

type Queue = Vec<Box<dyn Any>>;

thread_local! {
    /// Whether there is a queue. Quicker to ask than the queue itself.
    static IS_DROPPING: Cell<bool> = const { Cell::new(false) };
    static QUEUE: RefCell<ManuallyDrop<Queue>> = const { RefCell::new(ManuallyDrop::new(Queue::new())) };
}

fn with_queue<R>(f: impl FnOnce(&mut Queue) -> R) -> R {
    QUEUE.with(|queue| f(&mut queue.borrow_mut()))
}

/// Drops a value, now or when the outermost call gets to it.
///
/// # Errors
/// The first panic of this `Drop`, and of those that were left to this call. An inner call returns `Ok`.
pub fn drop_flat<T: 'static>(value: T) -> Caught<()> {
    if IS_DROPPING.with(|is_dropping| is_dropping.replace(true)) {
        with_queue(|queue| queue.push(Box::new(value)));
        return Ok(());
    }
    let mut result = catch_unwind(AssertUnwindSafe(|| drop(value)));
    while let Some(next) = with_queue(Queue::pop) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(next))) {
            match &result {
                Ok(()) => result = Err(payload),
                Err(_) => discard(payload),
            }
        }
    }
    drop(with_queue(mem::take));
    IS_DROPPING.with(|is_dropping| is_dropping.set(false));
    result
}

/// While it exists, values are dropped as if no other one was being dropped.
pub struct Apart {
    /// `None`: no other one is being dropped.
    outer: Option<Queue>,
}

impl Apart {
    #[inline]
    pub fn begin() -> Self {
        Self { outer: IS_DROPPING.with(Cell::get).then(Self::take_outer) }
    }

    #[cold]
    fn take_outer() -> Queue {
        IS_DROPPING.with(|is_dropping| is_dropping.set(false));
        with_queue(mem::take)
    }
}

impl Drop for Apart {
    #[inline]
    fn drop(&mut self) {
        if let Some(outer) = self.outer.take() {
            with_queue(|queue| *queue = outer);
            IS_DROPPING.with(|is_dropping| is_dropping.set(true));
        }
    }
}
