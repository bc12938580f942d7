//! Runs blocking code in threads and hands the results to async code, and back. It depends on std only, and works under any
//! executor or none.
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
//! Many run at once, in a pool, and their results come in order:
//!
//! ```
//! use offthread::{ThreadPool, block_on, gather};
//!
//! let pool = ThreadPool::new(4);
//! let lengths = block_on(gather(["one", "two", "three"].map(|word| pool.spawn(move || word.len()))));
//! assert_eq!(lengths, [3, 3, 5]);
//! ```
//!
//! A blocking iterator becomes a stream of items, some of which are made ahead:
//!
//! ```
//! use offthread::{block_on, threaded_iterable};
//!
//! let entries = block_on(threaded_iterable(|| std::fs::read_dir("src").unwrap()).scope(async |entries| {
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
//! A thread sends items to async code, or the other way round, through a channel of bounded size:
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
//! And a thread gets back to async code:
//!
//! ```
//! use offthread::{block_on, sleep, sync_await, threaded};
//! use std::time::Duration;
//!
//! let answer = block_on(threaded(|| {
//!     // In a thread: run something async on the event loop that this was started from.
//!     sync_await(async {
//!         sleep(Duration::from_millis(1)).await;
//!         6 * 7
//!     })
//! }));
//! assert_eq!(answer, 42);
//! ```
//!
//! # Blocking code in threads
//! [`threaded()`] and [`threaded_separate()`], and [`Threaded`], which they return; [`threaded!`] and [`threaded_separate!`],
//! the same for whole functions; [`ThreadPool`] with its [builder](ThreadPoolBuilder) and its [figures](PoolStats); [`Job`],
//! a job's handle, and [`Outcome`], what became of it as a value; [`is_cancelled`] and
//! [`wait_cancelled`], for the code inside; [`JoinError`] and
//! [`Panic`], why there is no result.
//!
//! # Blocking iterators in threads
//! [`threaded_iterable()`] and [`threaded_iterable_separate()`], and [`IteratorWrapper`], which they return;
//! [`threaded_iterable!`] and [`threaded_iterable_separate!`], the same for whole functions.
//!
//! # Async code
//! [`block_on`], and [`EventLoop`] with its [builder](EventLoopBuilder); [`spawn`], [`Task`] and [`TaskOutcome`];
//! [`gather!`], [`gather()`], [`try_gather`] and [`race`]; [`yield_now`], [`sleep`], [`sleep_until`] and [`timeout`]; [`LoopHandle`], to reach an event
//! loop from anywhere, and [`TimerHandle`].
//!
//! # Between the two
//! [`sync_await()`], from a thread back to the event loop, and [`SyncWaitError`]; [`spsc`], a bounded channel; [`oneshot`], a channel for one value; [`ContextVar`] and [`Context`], values that code sees
//! without having been passed them.
//!
//! # How far it can be trusted
//! All unsafe code of the crate is in `src/primitives/` and `src/sync.rs`. Each file of `src/primitives/` opens with what it promises and how, and so do the
//! pool and the event loop; loom models in `loom-tests/` check it, and each weakened ordering and each missing wake-up that we
//! could think of makes a model fail.

// With loom in std's place, nothing may go round `sync`: see `clippy.toml`.
#![cfg_attr(offthread_loom, warn(clippy::disallowed_types, clippy::disallowed_methods))]

// In reading order: a line uses only what stands above it (`tests/layers.rs` holds that).
mod sync;
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

pub use context::{Context, ContextVar, WithContext};
pub use event_loop::{EventLoop, EventLoopBuilder, LoopHandle, Task, TaskOutcome, block_on, spawn};
pub use gather::{Either, gather, race, try_gather, yield_now};
pub use iterable::{IteratorWrapper, threaded_iterable, threaded_iterable_separate};
pub use pool::{GlobalPoolExists, Map, PoolStats, ShutdownTimeout, ThreadPool, ThreadPoolBuilder};
pub use primitives::cancel::{is_cancelled, wait_cancelled};
pub use primitives::job::{Job, Outcome};
pub use primitives::join_error::{JoinError, Panic};
pub use primitives::{oneshot, spsc};
pub use sync_await::{SyncWaitError, sync_await};
pub use threaded::{Threaded, threaded, threaded_separate};
pub use time::{Elapsed, Sleep, TimerHandle, sleep, sleep_until, timeout};

/// For the macros alone.
#[doc(hidden)]
pub mod __gather {
    pub use crate::gather::{Branch, poll_woken};
}

/// For the models of `loom-tests/` alone.
#[cfg(offthread_loom)]
#[doc(hidden)]
pub mod internals {
    pub use crate::primitives::cancel::{CancelWatch, Stop};
    pub use crate::primitives::job::{JobOwner, Progress, Queued, Started, job};
    pub use crate::primitives::parker::{Blocking, Parker, block_on, poll_until, set_blocking_hook};
    pub use crate::primitives::waker_slot::WakerSlot;
    pub use crate::sync::ThreadHandle;
}
