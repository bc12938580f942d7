//! Makes a channel's end yield when it never has to wait.
//!
//! **Promise.** After [`MAX_ITEMS`] items without a `Pending`, an end wakes its own waker and returns `Pending` once.
//! Otherwise a loop that never has to wait would not return to its executor: a time-out around the loop would not fire,
//! and other tasks would not run. This works under any executor.
//!
//! There is no synchronisation in this file, and no model. Tokio calls the same idea a cooperative budget; there each
//! task has one, here each end of a channel, and each map.

use std::task::{Context, Poll};

/// How many items one end sends or receives in a row.
const MAX_ITEMS: usize = 128;

/// How many items one end has sent or received since it last returned `Pending`.
#[derive(Debug, Default)]
pub struct Budget {
    items: usize,
}

impl Budget {
    /// Pending if the end is to yield: the waker has been woken already.
    #[inline]
    pub fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.items < MAX_ITEMS {
            return Poll::Ready(());
        }
        self.items = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The end has sent or received so many items. 0: it has to wait, so counting starts again.
    #[inline]
    pub fn count(&mut self, items: usize) {
        self.items = if items == 0 { 0 } else { self.items.saturating_add(items) };
    }
}
