//! How much memory is kept after a burst. This binary counts the bytes on its heap, so its tests run one after the
//! other.

#[path = "../helpers/mod.rs"]
mod helpers;

mod event_loop;
mod heap;
mod pool;
