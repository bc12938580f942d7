//! When an end that never has to wait gives way.
//!
//! **Promise.** A future that is always ready never returns to its executor: a time-out around it would not fire, and other
//! tasks would not run. So an awaiting end counts how many items it handed over since it last returned `Pending`. After
//! [`MAX_ITEMS`] it wakes its own waker and returns `Pending` once. This works under any executor.
//!
//! There is no synchronisation in this file, and no model. Tokio calls the same idea a cooperative budget; there each task has
//! one, here each end of a channel.

use std::task::{Context, Poll};

/// How many items one end hands over in a row.
const MAX_ITEMS: usize = 128;

/// What one end has handed over since it last returned `Pending`.
#[derive(Debug, Default)]
pub struct Budget {
    items: usize,
}

impl Budget {
    /// Pending if it is time to give way: the waker has been woken already.
    #[inline]
    pub fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.items < MAX_ITEMS {
            return Poll::Ready(());
        }
        self.items = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The end has handed over so many items. 0: it has to wait.
    #[inline]
    pub fn count(&mut self, items: usize) {
        self.items = if items == 0 { 0 } else { self.items.saturating_add(items) };
    }
}
