//! Bugs that users of similar projects have reported, tested on this crate.
//!
//! Each test names the report, by project and number, or the fault that other projects have had; and says what it
//! forbids. "No report" marks a variant of another test.

#![deny(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]
#![allow(clippy::async_yields_async, reason = "a test often returns a handle from its future")]

#[path = "../helpers/mod.rs"]
mod helpers;
#[path = "../helpers/hooks.rs"]
#[allow(unsafe_code, reason = "std has no safe way to make a waker that runs code at each clone, or at each drop")]
mod hooks;

mod channels;
mod event_loop;
mod iterables;
mod pool;
mod printing;
mod thread_end;
mod timers;
mod values;
mod wakers;

use helpers::iterables::quiet_panic;
use hooks::Hooks;
use offthread::ThreadPool;
use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const MILLI: Duration = Duration::from_millis(1);

/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(1000);

/// Two of the ways to close a pool and wait for its jobs.
const CLOSE: [fn(&ThreadPool); 2] = [ThreadPool::drain, ThreadPool::shutdown];

/// Polls a future, or a reference to one.
fn poll<F: Future + Unpin>(mut future: F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(&mut future).poll(&mut Context::from_waker(waker))
}

/// A waker whose next clone panics.
fn uncloneable_waker() -> Waker {
    let hooks = Arc::<Hooks>::default();
    hooks.clone.set(|| quiet_panic("the waker's clone"));
    hooks.waker()
}

/// Polls with a waker whose clone panics. The panic may come out or not.
fn poll_uncloneable<F: Future + Unpin>(future: F) {
    let waker = uncloneable_waker();
    let _ = catch_unwind(AssertUnwindSafe(|| poll(future, &waker).is_ready()));
}

/// Awaits a future that may panic.
async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = Box::pin(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => Poll::Ready(Err(payload)),
    })
    .await
}
