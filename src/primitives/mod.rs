//! The verified core, and all unsafe code of the crate but that of `sync.rs`: one primitive a file, in reading order.
//!
//! A file that synchronises threads opens with what it promises, its state machine, who may touch what, its edges and
//! what can go wrong. The file of the same name in `loom-tests/tests/` has the models (for `cancel`: `job.rs`). An id
//! such as `[W1]` in an `ORDERING:` comment stands for a row of the file's table of edges.

pub mod cache_padded;
pub mod waker_map;
pub mod framed;
pub mod waker_slot;
pub mod backoff;
pub mod budget;
pub mod attempt;
pub mod parker;
pub mod oneshot;
pub mod spsc;
pub mod join_error;
pub mod drop_queue;
pub mod cancel;
pub mod job;
