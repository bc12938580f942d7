//! A value that several owners share, as behind an `Arc`; but who gives away many shares does not count each of them.
//!
//! # What it promises
//! The value is there while there is a [`Share`] of it, and is dropped, once, with the last one. A share may have more of
//! them in store, which were counted in advance: to [give](Share::give) one away costs no atomic operation but when the
//! store is empty, and does not touch the count, which those who end their shares on other threads write to all the time.
//!
//! # State machine
//! There is one number, `count`: of all shares, those in store included. It goes up by whoever has a share, and down by each
//! one that ends, with what it had in store. Whoever takes it to 0 frees the memory.
//!
//! # Who may touch what
//! 1. Whoever has a share may look at the value.
//! 2. Who has a share mutably, and finds that all that are counted are its own, may change the value: only who has a share
//!    can make another.
//! 3. How many are in store is written in the low bits of the share's own pointer, which are free since the memory is
//!    aligned. So a share takes one word, as it has to: contexts are swapped at each poll.
//!
//! # Synchronisation edges
//! | id | release side | acquire side | publishes | model |
//! |---|---|---|---|---|
//! | H1 | `drop` | `drop`, to 0 | the other owners have done with the value: it may be dropped | `dropped_once` |
//! | H2 | `drop` | `make_mut` | the other owners have done with the value: it may be changed | `changed_when_alone` |
//!
//! # What can go wrong
//! * The last two shares end at once: the value is dropped once: `dropped_once`.
//! * A share that gave others away ends before they do, with some in store, or after: `given_away`.
//! * A share ends as another one asks whether it is alone: `changed_when_alone`.
//! * So many shares are leaked that the count overflows: the process is ended, long before.
//!
//! To count references in advance is the simplest case of weighted reference counting (Bevan; Watson and Watson: both 1987).

use std::ops::Deref;
use std::ptr::NonNull;
use std::{fmt, process};

use crate::sync::Tracked;
use crate::sync::atomic::AtomicUsize;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// So many more are counted when the store is empty.
const STORE: usize = if cfg!(offthread_loom) { 2 } else { ALIGN };
const ALIGN: usize = 64;

/// Aligned to [`ALIGN`]. After one has been given away, what is left in store is less than that.
#[repr(align(64))]
struct Counted<T> {
    count: AtomicUsize,
    value: T,
    _tracked: Tracked,
}

const _: () = assert!(align_of::<Counted<()>>() == ALIGN && STORE <= ALIGN);

/// One of the owners of a value.
pub struct Share<T>(NonNull<Counted<T>>);

// SAFETY: it lends the value to whichever thread it is on, and may drop it there, as an `Arc` does.
unsafe impl<T: Send + Sync> Send for Share<T> {}
// SAFETY: as above: what is shared can be cloned.
unsafe impl<T: Send + Sync> Sync for Share<T> {}

impl<T> Share<T> {
    /// The first share of a value.
    pub fn new(value: T) -> Self {
        let counted = Counted { count: AtomicUsize::new(1), value, _tracked: Tracked::default() };
        Self(NonNull::from(Box::leak(Box::new(counted))))
    }

    #[inline]
    fn place(&self) -> *mut Counted<T> {
        self.0.as_ptr().map_addr(|addr| addr & !(ALIGN - 1))
    }

    #[inline]
    fn counted(&self) -> &Counted<T> {
        // SAFETY: this is a share, so the memory is there (rule 3).
        unsafe { &*self.place() }
    }

    /// How many it has in store.
    #[inline]
    fn store(&self) -> usize {
        self.0.addr().get() & (ALIGN - 1)
    }

    /// Another share, with nothing in store.
    #[inline]
    fn other(&self) -> Self {
        // SAFETY: no pointer to a value is null.
        Self(unsafe { NonNull::new_unchecked(self.place()) })
    }

    #[inline]
    fn count(&self, more: usize) {
        // ORDERING: Relaxed: the caller has a share, so nobody takes the count to 0 before.
        if self.counted().count.fetch_add(more, Relaxed) > usize::MAX / 2 {
            // There is no memory for so many: they were leaked.
            process::abort();
        }
    }

    /// Another share, as by `clone`, but out of the store. If that is empty, it is filled first.
    #[must_use]
    #[inline]
    pub fn give(&mut self) -> Self {
        let store = match self.store() {
            0 => {
                self.count(STORE);
                STORE
            }
            store => store,
        };
        let left = self.place().map_addr(|addr| addr | (store - 1));
        // SAFETY: no pointer to a value is null, and this one has had bits set at most.
        self.0 = unsafe { NonNull::new_unchecked(left) };
        self.other()
    }

    /// The value, to be changed: of a new one, which is a copy, if there are other shares.
    pub fn make_mut(&mut self) -> &mut T
    where
        T: Clone,
    {
        // ORDERING: Acquire [H2]: pairs with `drop`; what the other owners did with the value is over.
        if self.counted().count.load(Acquire) != 1 + self.store() {
            *self = Self::new(T::clone(self));
        }
        // SAFETY: rule 2.
        unsafe { &mut (*self.place()).value }
    }

    /// Whether both are of the same value.
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.place() == other.place()
    }
}

/// The copy has nothing in store.
impl<T> Clone for Share<T> {
    #[inline]
    fn clone(&self) -> Self {
        self.count(1);
        self.other()
    }
}

impl<T> Drop for Share<T> {
    #[inline]
    fn drop(&mut self) {
        let own = 1 + self.store();
        // ORDERING: Release [H1, H2]: pairs with the load below, and with `make_mut`; this owner has done with the value.
        if self.counted().count.fetch_sub(own, Release) == own {
            // ORDERING: Acquire [H1]: pairs with the step of each other owner; the value is ours.
            self.counted().count.load(Acquire);
            // SAFETY: it is the memory of a `Box`, and nobody has a share any more.
            drop(unsafe { Box::from_raw(self.place()) });
        }
    }
}

impl<T> Deref for Share<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T> fmt::Debug for Share<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").finish_non_exhaustive()
    }
}
