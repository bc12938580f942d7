//! Keeps values on separate cache lines.
//!
//! **Promise.** Two `CachePadded` values never share a cache line, nor a pair of lines that the processor fetches
//! together. Otherwise two counters that two threads write would slow each other down ("false sharing").
//!
//! There is no state and no synchronisation in this file, and no model.

use std::ops::Deref;

/// Aligned to 128 bytes: a line is 64 bytes on most processors, but x86-64 fetches them in pairs, and Apple's have
/// lines of 128.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);

impl<T> Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
