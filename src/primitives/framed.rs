//! A future and the data beside it, in one allocation.
//!
//! # What it promises
//! Once a [`Framed`] has been pinned, its future does not move. The future is dropped in place: by the owner, or
//! together with the `Framed`. In the second case the future is dropped before the frame.
//!
//! There is no synchronisation in this file, and no model.
//!
//! # Who may touch what
//! 1. `future` is pinned with the `Framed`: nobody gets a `&mut F`. `Framed` has no `Drop`, and only the automatic
//!    `Unpin`.
//! 2. `frame` is never pinned: it may be moved.
//!
//! An `async` block would need no unsafe code, but it stores the future twice: where it is captured and where it is
//! pinned. A task that yields once took a quarter longer.

use std::pin::Pin;

/// A future, until it is dropped, and the data beside it.
pub struct Framed<F, S> {
    future: Option<F>,
    frame: S,
}

impl<F, S> Framed<F, S> {
    pub fn new(future: F, frame: S) -> Self {
        Self { future: Some(future), frame }
    }

    /// The data beside the future.
    pub fn frame(&self) -> &S {
        &self.frame
    }

    /// The two parts.
    pub fn parts(self: Pin<&mut Self>) -> (Pin<&mut Option<F>>, &mut S) {
        // SAFETY: `future` stays pinned (rule 1), and `frame` may be moved (rule 2). This moves neither.
        unsafe {
            let Self { future, frame } = self.get_unchecked_mut();
            (Pin::new_unchecked(future), frame)
        }
    }
}
