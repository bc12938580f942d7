//! Python: `sync_await(coro)`. From a thread back to the event loop: blocking code needs the result of async code.

use std::time::Duration;

use offthread::{EventLoop, block_on, sleep, sync_await, threaded};

/// Async code, which runs on the event loop.
async fn look_up(key: &str) -> String {
    sleep(Duration::from_millis(2)).await;
    format!("the {key}")
}

/// Blocking code, which runs in a thread.
fn report() -> Vec<String> {
    ["name", "address"].map(|key| sync_await(look_up(key))).into()
}

/// A job that waits for a job that waits for a job, and so on.
fn nested(depth: u32) -> u32 {
    if depth == 0 { 0 } else { 1 + sync_await(threaded(move || nested(depth - 1))) }
}

fn main() {
    // In a job, the future runs on the event loop that the job was started from.
    assert_eq!(block_on(threaded(report)), ["the name", "the address"]);

    // Eleven jobs in a pool of one thread: while a job waits, another thread runs the next job.
    let depth = EventLoop::builder().pool_size(1).build().block_on(threaded(|| nested(10)));
    assert_eq!(depth, 10);

    // Without an event loop, the future runs on the calling thread.
    assert_eq!(sync_await(async { 6 * 7 }), 42);
    println!("{depth} nested jobs in a pool of one thread");
}
