//! Drops a chain of values, each of which owns the next, without recursion.
//!
//! # What it promises
//! [`drop_flat`] drops a value before it returns, unless an outer `drop_flat` is running on this thread. An inner
//! `drop_flat` only queues its value; the outermost one drops the queued values before it returns, the last one first.
//! So a chain of any length needs the stack of two drops. Each value is dropped, also if the drops of others panic.
//!
//! Code in a `Drop` may wait for the effect of another drop. So a `block_on` inside a `Drop`, or a job that runs inline
//! there, must not leave values to the outer `drop_flat`. Each of these has a queue of its own ([`Apart`]).
//!
//! # Who may touch what
//! 1. `IS_DROPPING` is true while an outermost `drop_flat` runs; otherwise the queue is empty. Both belong to one
//!    thread.
//! 2. While the queue is borrowed, no user code runs.
//! 3. The queue is not dropped with the thread, since destructors of other thread-locals may use it. It owns nothing
//!    when the thread ends.
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
    /// Whether a `drop_flat` is running: faster to read than the queue.
    static IS_DROPPING: Cell<bool> = const { Cell::new(false) };
    static QUEUE: RefCell<ManuallyDrop<Queue>> = const { RefCell::new(ManuallyDrop::new(Queue::new())) };
}

fn with_queue<R>(f: impl FnOnce(&mut Queue) -> R) -> R {
    QUEUE.with(|queue| f(&mut queue.borrow_mut()))
}

/// Drops a value: now, or before the outermost `drop_flat` returns.
///
/// # Errors
/// The first panic among this value's drop and those queued meanwhile. An inner `drop_flat` returns `Ok`.
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

/// While this exists, `drop_flat` ignores the `drop_flat` calls outside of it.
pub struct Apart {
    /// The queue of the outer `drop_flat`. `None`: there is none.
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
