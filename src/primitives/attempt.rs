//! One attempt of a wait that can be cancelled.
#![forbid(unsafe_code)]

/// Something that may have registered a waker.
pub trait Watch {
    /// Withdraws the waker.
    fn unwatch(&mut self);
}

/// One attempt to get a result from `W`. It withdraws the waker however the attempt ends: done, timed out or cancelled.
pub struct Attempt<'a, W: Watch>(pub &'a mut W);

impl<W: Watch> Drop for Attempt<'_, W> {
    fn drop(&mut self) {
        self.0.unwatch();
    }
}
