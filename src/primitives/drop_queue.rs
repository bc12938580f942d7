//! Drops a chain of values, each of which owns the next, without recursion.
//!
//! # What it promises
//! [`drop_flat`] drops a value before it returns, unless an outer `drop_flat` is running on this thread. An inner
//! `drop_flat` only queues its value; the outermost one drops the queued values before it returns, the last one first.
//! So a chain of any length needs the stack of two drops. Each value is dropped, also if the drops of others panic.
//!
//! Code in a `Drop` may wait for the effect of another drop. So some code inside a `Drop` leaves no values to the outer
//! `drop_flat`: a `block_on`, the drop of an `EventLoop`, a job that runs inline, and a pool that begins to refuse
//! entries. See [`Apart`].
//!
//! # Who may touch what
//! 1. A thread's queue exists while an outermost `drop_flat` runs on this thread. Only this thread touches it.
//! 2. While the queue is out of its cell, no user code runs, unless an [`Apart`] has the queue.
//! 3. The queue is not dropped with the thread, since destructors of other thread-locals may use it. It owns nothing
//!    when the thread ends.
//!
//! There is no synchronisation in this file, and no model.

use std::any::Any;
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::Result as Caught;

use crate::primitives::join_error::discard;
use crate::sync::thread_local;

/// The values that wait until the running drop has ended. `None`: no `drop_flat` is running on this thread, or each one
/// that is running began before the current [`Apart`].
type Queue = Option<Vec<Box<dyn Any>>>;

thread_local! {
    static QUEUE: Cell<ManuallyDrop<Queue>> = const { Cell::new(ManuallyDrop::new(None)) };
}

/// Replaces this thread's queue.
#[inline]
fn replace(queue: Queue) -> Queue {
    ManuallyDrop::into_inner(QUEUE.with(|current| current.replace(ManuallyDrop::new(queue))))
}

/// Drops a value: now, or before the outermost `drop_flat` returns.
///
/// # Errors
/// The first panic among this value's drop and those queued meanwhile. An inner `drop_flat` returns `Ok`.
pub fn drop_flat<T: 'static>(value: T) -> Caught<()> {
    if let Some(mut queue) = replace(None) {
        queue.push(Box::new(value));
        replace(Some(queue));
        return Ok(());
    }
    replace(Some(Vec::new()));
    drop_queued(catch_unwind(AssertUnwindSafe(|| drop(value))))
}

/// Drops the values that were queued meanwhile.
fn drop_queued(mut result: Caught<()>) -> Caught<()> {
    while let Some(mut queue) = replace(None) {
        let Some(next) = queue.pop() else { break };
        replace(Some(queue));
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(next))) {
            match &result {
                Ok(()) => result = Err(payload),
                Err(_) => discard(payload),
            }
        }
    }
    result
}

/// While this exists, `drop_flat` ignores the `drop_flat` calls that began before.
pub struct Apart {
    outer: Queue,
}

impl Apart {
    #[inline]
    pub fn begin() -> Self {
        Self { outer: replace(None) }
    }
}

impl Drop for Apart {
    #[inline]
    fn drop(&mut self) {
        replace(self.outer.take());
    }
}
