//! Back and forth: async code that awaits blocking code, which waits for async code.
//!
//! ```sh
//! cargo run --release --example sync_await
//! ```

#![forbid(unsafe_code)]

use std::time::Duration;

use offthread::{ContextVar, EventLoop, LoopHandle, SyncWaitError, block_on, sleep, sync_await, threaded, timeout};

static REQUEST: ContextVar<u32> = ContextVar::new();

/// Async code, which the blocking code needs.
async fn look_up(key: &'static str) -> String {
    sleep(Duration::from_millis(5)).await;
    // The task that this runs in has a copy of the job's context.
    format!("{key} of request {}", REQUEST.get().unwrap_or_default())
}

/// Blocking code, which knows nothing of its caller but that there may be an event loop.
fn report() -> Vec<String> {
    ["name", "address"].map(|key| sync_await(look_up(key))).into()
}

/// Waits for a job that waits for a job, and so on.
fn nested(depth: u32) -> u32 {
    if depth == 0 { 0 } else { 1 + sync_await(threaded(move || nested(depth - 1))) }
}

fn main() {
    // In a job: the future runs on the loop that the job was started from.
    let lines = block_on(async {
        REQUEST.set(7);
        threaded(report).await
    });
    assert_eq!(lines, ["name of request 7", "address of request 7"]);
    println!("{lines:?}");

    // In a pool of one thread, ten deep: whoever waits makes room for the others.
    let depth = EventLoop::builder().pool_size(1).build().block_on(threaded(|| nested(10)));
    assert_eq!(depth, 10);
    println!("{depth} deep in a pool of one thread");

    // Without a loop, the future runs right there.
    assert_eq!(sync_await(async { 6 * 7 }), 42);

    // It does not wait for ever: not longer than it is told to, and not for a loop that has ended.
    let handle = block_on(async {
        let late = threaded(|| sync_await(timeout(Duration::from_millis(5), std::future::pending::<()>()))).await;
        assert!(late.is_err());
        LoopHandle::current()
    });
    let error = handle.sync_wait(async {}).unwrap_err();
    assert!(matches!(error, SyncWaitError::LoopClosed));
    println!("{error}");
}
