//! Runs blocking code in threads and hands the results to async code, and back. std alone: no dependency, under any
//! executor or none.

// With loom in std's place, nothing may go round `sync`: see `clippy.toml`.
#![cfg_attr(offthread_loom, warn(clippy::disallowed_types, clippy::disallowed_methods))]

// In reading order: a line uses only what stands above it.
mod sync;
mod primitives;
mod pool;

pub use primitives::parker::block_on;
pub use primitives::oneshot;
pub use primitives::spsc;
pub use primitives::job::{Job, JoinError, Outcome, Panic, is_cancelled};
pub use pool::ThreadPool;

/// For the models of `loom-tests/` alone.
#[cfg(offthread_loom)]
#[doc(hidden)]
pub mod internals {
    pub use crate::primitives::job::{Ended, Queued, job};
    pub use crate::primitives::parker::poll_until;
    pub use crate::primitives::waker_slot::WakerSlot;
    pub use crate::sync::Sleeper;
}
