//! The heap of this binary, which counts its bytes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The system's allocator, with a count of the allocated bytes and of their maximum.
pub struct Heap;

pub static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static HEAP: Heap = Heap;

impl Heap {
    fn add(bytes: usize) {
        MOST.fetch_max(NOW.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
    }

    /// How many bytes `code` allocates at most at one time, and how many are left afterwards.
    pub fn measure(code: impl FnOnce()) -> (usize, usize) {
        let before = NOW.load(Ordering::SeqCst);
        MOST.store(before, Ordering::SeqCst);
        code();
        let after = NOW.load(Ordering::SeqCst);
        (MOST.load(Ordering::SeqCst).saturating_sub(before), after.saturating_sub(before))
    }
}

// SAFETY: each call is forwarded to `System` unchanged; the counter does not allocate.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which `System` shares.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: `pointer` comes from `System`, with the same layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs the tests one at a time, because they count the same bytes.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
