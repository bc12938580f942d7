//! Python: `sync_await(coro)`. The way back: blocking code in a thread needs the result of async code.

use std::time::Duration;

use offthread::{EventLoop, block_on, sleep, sync_await, threaded};

/// Async code. It runs on the event loop.
async fn look_up(key: &str) -> String {
    sleep(Duration::from_millis(2)).await;
    format!("the {key}")
}

/// Blocking code. It runs in a thread.
fn report() -> Vec<String> {
    ["name", "address"].map(|key| sync_await(look_up(key))).into()
}

/// A job that waits for a job that waits for a job, and so on.
fn nested(depth: u32) -> u32 {
    if depth == 0 { 0 } else { 1 + sync_await(threaded(move || nested(depth - 1))) }
}

fn main() {
    // In a job, the future runs on the loop that the job was started from.
    assert_eq!(block_on(threaded(report)), ["the name", "the address"]);

    // Ten deep, in a pool of one thread: a job that waits makes room for another one.
    let depth = EventLoop::builder().pool_size(1).build().block_on(threaded(|| nested(10)));
    assert_eq!(depth, 10);

    // Without a loop, the future runs right here.
    assert_eq!(sync_await(async { 6 * 7 }), 42);
    println!("{depth} deep in a pool of one thread");
}
