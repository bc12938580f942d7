//! A future and what goes with it, in one allocation.
//!
//! # What it promises
//! The future in a [`Framed`] does not move once it has been pinned, and is dropped once, by the frame's hand: when it has
//! ended, or with the whole.
//!
//! There is no synchronisation in here, and no model.
//!
//! # Who may touch what
//! 1. `future` is pinned with the whole: nobody gets a `&mut F` to it, and it is dropped in its place.
//! 2. `frame` is never pinned: it may be moved.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What goes with a future: it stands between the future and whoever polls it.
pub trait Frame<F> {
    /// What becomes of the future.
    type Outcome;

    /// Polls the future.
    fn poll(&mut self, future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<Self::Outcome>;
    /// Drops the future, by calling this once.
    fn drop_future(&mut self, drop: impl FnOnce());
    /// The future has been dropped.
    fn resolve(&mut self, outcome: Self::Outcome);
}

/// A future in its frame. Ready when it has ended and the frame has its outcome.
pub struct Framed<F, S: Frame<F>> {
    /// `None` once it has ended.
    future: Option<F>,
    frame: S,
}

impl<F, S: Frame<F>> Framed<F, S> {
    pub fn new(future: F, frame: S) -> Self {
        Self { future: Some(future), frame }
    }

    fn drop_future(&mut self) {
        if self.future.is_some() {
            self.frame.drop_future(|| self.future = None);
        }
    }
}

impl<F, S: Frame<F>> Future for Framed<F, S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: nothing is moved out of it: `future` stays where it is (rule 1), and `frame` may be moved (rule 2).
        let this = unsafe { self.get_unchecked_mut() };
        let Some(future) = &mut this.future else { return Poll::Ready(()) };
        // SAFETY: rule 1: it is pinned with the whole, until it is dropped.
        let Poll::Ready(outcome) = this.frame.poll(unsafe { Pin::new_unchecked(future) }, cx) else {
            return Poll::Pending;
        };
        this.drop_future();
        this.frame.resolve(outcome);
        Poll::Ready(())
    }
}

impl<F, S: Frame<F>> Drop for Framed<F, S> {
    fn drop(&mut self) {
        self.drop_future();
    }
}
