//! Runs blocking code in threads for async code, and async code for threads. This crate depends on std only. It works
//! under any executor, and has an event loop of its own.
//!
//! A blocking closure becomes awaitable:
//!
//! ```
//! use offthread::{block_on, threaded};
//!
//! let text = block_on(async { threaded(|| std::fs::read_to_string("Cargo.toml")).await });
//! assert!(text.unwrap().contains("offthread"));
//! ```
//!
//! A pool runs many closures at once, and `gather` returns their results in order:
//!
//! ```
//! use offthread::{ThreadPool, block_on, gather};
//!
//! let pool = ThreadPool::new(4);
//! let jobs = ["one", "two", "three"].map(|word| pool.spawn(move || word.len()));
//! assert_eq!(block_on(gather(jobs)), [3, 3, 5]);
//! ```
//!
//! A blocking iterator becomes a stream of items. A thread makes some items ahead of the consumer:
//!
//! ```
//! use offthread::{block_on, threaded_iterable};
//!
//! let folder = threaded_iterable(|| std::fs::read_dir("src").unwrap());
//! let entries = block_on(folder.scope(async |entries| {
//!     let mut count = 0;
//!     while let Some(entry) = entries.next().await {
//!         entry.unwrap();
//!         count += 1;
//!     }
//!     count
//! }));
//! assert!(entries > 3);
//! ```
//!
//! A bounded channel carries items from a thread to async code, or from async code to a thread:
//!
//! ```
//! use offthread::{block_on, spsc};
//!
//! let (mut sender, mut receiver) = spsc::channel(2);
//! std::thread::spawn(move || (0..5).try_for_each(|n| sender.send_blocking(n)));
//! let sum = block_on(async {
//!     let mut sum = 0;
//!     while let Some(n) = receiver.recv().await {
//!         sum += n;
//!     }
//!     sum
//! });
//! assert_eq!(sum, 10);
//! ```
//!
//! A job can run a future on the event loop from which the job was started:
//!
//! ```
//! use offthread::{block_on, sleep, sync_await, threaded};
//! use std::time::Duration;
//!
//! let answer = block_on(threaded(|| {
//!     // In a thread: run a future on the event loop, and block until it has ended.
//!     sync_await(async {
//!         sleep(Duration::from_millis(1)).await;
//!         6 * 7
//!     })
//! }));
//! assert_eq!(answer, 42);
//! ```
//!
//! The [`guide`] has a page for each question: which way to run blocking code, how to cancel it, where a panic is
//! resumed, which calls block, how a pool is closed.
//!
//! # Blocking code in threads
//! [`threaded()`] and [`threaded_separate()`], and [`Threaded`], which they return; [`threaded!`] and
//! [`threaded_separate!`], the same for whole functions; [`ThreadPool`] with its [builder](ThreadPoolBuilder) and its
//! [statistics](PoolStats); [`Map`], the results of one function for many items; [`Job`], a job's handle, and
//! [`Outcome`], a handle that yields errors as values; [`is_cancelled`] and [`wait_cancelled`], for the code of a job;
//! [`JoinError`] and [`Panic`], the errors.
//!
//! # Blocking iterators in threads
//! [`threaded_iterable()`] and [`threaded_iterable_separate()`], and [`IteratorWrapper`], which they return;
//! [`threaded_iterable!`] and [`threaded_iterable_separate!`], the same for whole functions; [`threaded_generator`] and
//! [`threaded_generator_separate`], for code that hands its items to a [`Yielder`] in the middle of a loop.
//!
//! # Async code
//! [`block_on`], and [`EventLoop`] with its [builder](EventLoopBuilder); [`spawn`], [`Task`] and [`TaskOutcome`];
//! [`gather!`], [`gather()`], [`try_gather`] and [`race`]; [`yield_now`], [`sleep`], [`sleep_until`] and [`timeout`];
//! [`LoopHandle`], to reach an event loop from anywhere, and [`TimerHandle`].
//!
//! # Between threads and async code
//! [`sync_await()`], which runs a future on the event loop for a thread, and [`SyncWaitError`]; [`spsc`], a bounded
//! channel; [`oneshot`], a channel for one value; [`ContextVar`] and [`Context`], values that jobs and tasks inherit.
//!
//! # Verification
//! All unsafe code of the crate is in `src/primitives/` and `src/sync.rs`. Each file of a protocol opens with its
//! promises, and with how the code keeps these promises. The loom models in `loom-tests/` check the promises. A tool in
//! `loom-tests/` weakens each memory ordering, plants mistakes in the logic, and checks that a model fails for each.

// In a loom build, only `sync` may use std's synchronisation: see `clippy.toml`.
#![cfg_attr(offthread_loom, warn(clippy::disallowed_types, clippy::disallowed_methods))]

// In reading order: a module uses only modules above it (`tests/rules/layers.rs` checks that).
mod sync;
#[macro_use]
mod describe;
mod primitives;
mod context;
mod pool;
mod separate;
mod event_loop;
mod time;
mod gather;
mod sync_await;
mod threaded;
mod iterable;
mod macros;
pub mod guide;

pub use context::{Context, ContextVar, WithContext};
pub use event_loop::{EventLoop, EventLoopBuilder, LoopHandle, Task, TaskOutcome, block_on, spawn};
pub use gather::{Either, gather, race, try_gather, yield_now};
pub use iterable::{
    IteratorWrapper, Yielder, threaded_generator, threaded_generator_separate, threaded_iterable,
    threaded_iterable_separate,
};
pub use pool::{GlobalPoolExists, Map, PoolStats, ShutdownTimeout, ThreadPool, ThreadPoolBuilder};
pub use primitives::cancel::{is_cancelled, wait_cancelled};
pub use primitives::job::{Job, Outcome};
pub use primitives::join_error::{JoinError, Panic};
pub use primitives::{oneshot, spsc};
pub use sync_await::{SyncWaitError, sync_await};
pub use threaded::{Threaded, threaded, threaded_separate};
pub use time::{Elapsed, Sleep, TimerHandle, sleep, sleep_until, timeout};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Used by the macros only.
#[doc(hidden)]
pub mod __gather {
    pub use crate::gather::{Branch, poll_woken};
}

/// Used by the models of `loom-tests/` only.
#[cfg(offthread_loom)]
#[doc(hidden)]
pub mod internals {
    pub use crate::primitives::cancel::{CancelWatch, Stop};
    pub use crate::primitives::job::{JobOwner, Progress, Queued, Started, job};
    pub use crate::primitives::parker::{Blocking, Parker, block_on, poll_until, set_blocking_hook};
    pub use crate::primitives::waker_slot::WakerSlot;
    pub use crate::sync::ThreadHandle;
    pub use crate::time::TimerThread;
}
