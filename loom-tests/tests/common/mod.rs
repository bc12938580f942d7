//! Helpers of the models.
#![allow(dead_code, reason = "no model file uses all of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

/// Explores every interleaving with at most three preemptions. `LOOM_MAX_PREEMPTIONS` overrides this bound.
pub fn model(check: impl Fn() + Send + Sync + 'static) {
    model_with(3, check);
}

/// Like [`model`], with at most `preemptions` preemptions.
pub fn model_with(preemptions: usize, check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    let nothing_leaked = || assert_eq!(BIG_ONES.get(), 0, "memory with a `Counted` in it was leaked, or freed twice");
    builder.check(move || {
        // Checks the previous execution. At the end of `check`, loom may not have freed all closures of joined threads.
        nothing_leaked();
        check();
    });
    nothing_leaked();
}

/// Counts the allocations that hold a [`Counted`] inline, recognised by their alignment.
struct Counting;

thread_local! {
    /// How many such allocations are live. loom runs all threads of a model on one OS thread; several tests run in
    /// parallel.
    static BIG_ONES: Cell<isize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: each call is forwarded to `System` unchanged. The counter needs no destructor, so setting it does not
// allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() >= align_of::<Counted>() {
            BIG_ONES.set(BIG_ONES.get() + 1);
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which `System` shares.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if layout.align() >= align_of::<Counted>() {
            BIG_ONES.set(BIG_ONES.get() - 1);
        }
        // SAFETY: `memory` comes from `alloc` above, hence from `System`, with the same layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// A value whose drops are counted. [`model`] fails if an allocation that holds one is leaked or freed twice.
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

/// A waker that only counts its wakes. The counter is not loom's, so it adds no edge that could hide a missing one.
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

/// Polls a future once with a new waker. Returns the result and the counter of that waker.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> (Poll<F::Output>, Arc<CountingWaker>) {
    let (wakes, waker) = CountingWaker::new();
    (Pin::new(future).poll(&mut Context::from_waker(&waker)), wakes)
}

/// A cell that one thread writes and another thread reads. loom fails the model if no edge orders the two accesses.
#[derive(Clone, Debug)]
pub struct Note(loom::sync::Arc<NoteCell>);

#[derive(Debug)]
struct NoteCell(loom::cell::UnsafeCell<bool>);

// SAFETY: loom's `UnsafeCell` fails the model when two accesses are not ordered.
unsafe impl Sync for NoteCell {}

impl Note {
    pub fn new() -> Self {
        Self(loom::sync::Arc::new(NoteCell(loom::cell::UnsafeCell::new(false))))
    }

    pub fn write(&self) {
        // SAFETY: loom fails the model if another thread's access is not ordered with this one.
        self.0.0.with_mut(|written| unsafe { *written = true });
    }

    pub fn is_written(&self) -> bool {
        // SAFETY: loom fails the model if another thread's access is not ordered with this one.
        self.0.0.with(|written| unsafe { *written })
    }
}
