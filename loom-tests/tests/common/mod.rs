//! What all models share.
#![allow(dead_code, reason = "no model file uses all of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

/// Explores every interleaving with at most three preemptions; `LOOM_MAX_PREEMPTIONS` overrides it.
pub fn model(check: impl Fn() + Send + Sync + 'static) {
    model_with(3, check);
}

/// The same with another number of preemptions.
pub fn model_with(preemptions: usize, check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    let nothing_leaked = || assert_eq!(BIG_ONES.get(), 0, "memory with a `Counted` in it was leaked, or freed twice");
    builder.check(move || {
        // Of the execution before this one: a thread is joined before loom has freed all that it was started with.
        nothing_leaked();
        check();
    });
    nothing_leaked();
}

/// Counts the allocations that hold a [`Counted`] in place: nothing else is aligned so.
struct Counting;

thread_local! {
    /// How many there are. loom runs all threads of a model on one of the system's, and tests on several.
    static BIG_ONES: Cell<isize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: it is the system's allocator, but for the counting.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() >= align_of::<Counted>() {
            BIG_ONES.set(BIG_ONES.get() + 1);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if layout.align() >= align_of::<Counted>() {
            BIG_ONES.set(BIG_ONES.get() - 1);
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// A value whose drops are counted. So are the allocations that it lives in: see [`model`].
#[repr(align(512))]
#[derive(Debug)]
pub struct Counted {
    pub number: usize,
    drops: Drops,
}

/// How many [`Counted`] values have been dropped.
#[derive(Clone, Debug, Default)]
pub struct Drops(Arc<AtomicUsize>);

impl Drops {
    pub fn value(&self, number: usize) -> Counted {
        Counted { number, drops: self.clone() }
    }

    pub fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.drops.0.fetch_add(1, SeqCst);
    }
}

/// A waker that only counts, and does so without ordering anything, so that it cannot hide a missing edge.
#[derive(Debug, Default)]
pub struct CountingWaker(AtomicUsize);

impl CountingWaker {
    pub fn new() -> (Arc<Self>, Waker) {
        let this = Arc::new(Self::default());
        (this.clone(), this.into())
    }

    pub fn wakes(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Polls a future once, with a waker of its own, which is returned beside the result.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> (Poll<F::Output>, Arc<CountingWaker>) {
    let (wakes, waker) = CountingWaker::new();
    (Pin::new(future).poll(&mut Context::from_waker(&waker)), wakes)
}

/// Something that one thread writes and another one reads afterwards. loom fails the model if nothing orders the two.
#[derive(Clone, Debug)]
pub struct Note(loom::sync::Arc<NoteCell>);

#[derive(Debug)]
struct NoteCell(loom::cell::UnsafeCell<bool>);

// SAFETY: loom checks each access.
unsafe impl Sync for NoteCell {}

impl Note {
    pub fn new() -> Self {
        Self(loom::sync::Arc::new(NoteCell(loom::cell::UnsafeCell::new(false))))
    }

    pub fn write(&self) {
        // SAFETY: loom checks that it is ordered.
        self.0.0.with_mut(|written| unsafe { *written = true });
    }

    pub fn is_written(&self) -> bool {
        // SAFETY: loom checks that it is ordered.
        self.0.0.with(|written| unsafe { *written })
    }
}
