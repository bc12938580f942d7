//! A future and what goes with it, in one allocation.
//!
//! # What it promises
//! The future in a [`Framed`] does not move once the whole has been pinned. It is dropped in its place: by its user, or with the
//! whole, before what goes with it.
//!
//! There is no synchronisation in here, and no model.
//!
//! # Who may touch what
//! 1. `future` is pinned with the whole: nobody gets a `&mut F` to it. There is no `Drop`, and no `Unpin` but the automatic one.
//! 2. `frame` is never pinned: it may be moved.
//!
//! An `async` block would do the same without unsafe code; but it keeps room for the future twice, where it is captured and where
//! it is pinned. A task that yields once took a quarter longer.

use std::pin::Pin;

/// A future, until it is dropped, and what goes with it.
pub struct Framed<F, S> {
    future: Option<F>,
    frame: S,
}

impl<F, S> Framed<F, S> {
    pub fn new(future: F, frame: S) -> Self {
        Self { future: Some(future), frame }
    }

    /// What goes with the future.
    pub fn frame(&self) -> &S {
        &self.frame
    }

    /// The two parts.
    pub fn parts(self: Pin<&mut Self>) -> (Pin<&mut Option<F>>, &mut S) {
        // SAFETY: `future` stays pinned (rule 1), and `frame` may be moved (rule 2). Nothing is moved here.
        unsafe {
            let Self { future, frame } = self.get_unchecked_mut();
            (Pin::new_unchecked(future), frame)
        }
    }
}
