//! Python: `ContextVar`. Three requests at once. All code that runs for a request sees the id of that request.

use std::time::Duration;

use offthread::{ContextVar, block_on, gather, sleep, sync_await, threaded};

static REQUEST_ID: ContextVar<u32> = ContextVar::new();

/// Code far down the call stack, which does not get the id as an argument.
fn log(message: &str) -> String {
    format!("[{}] {message}", REQUEST_ID.get().unwrap_or_default())
}

/// Blocking code, in a thread of the pool.
fn query() -> String {
    sync_await(async { log("queried") })
}

async fn handle(id: u32) -> Vec<String> {
    REQUEST_ID.set(id);
    let first = log("began");
    // The other requests run while this one sleeps. Each keeps its own id.
    sleep(Duration::from_millis(1)).await;
    // The job gets a copy of the context.
    vec![first, threaded(query).await, log("ended")]
}

fn main() {
    let logs = block_on(gather([1, 2, 3].map(handle)));
    for (id, lines) in (1..).zip(&logs) {
        assert_eq!(*lines, ["began", "queried", "ended"].map(|message| format!("[{id}] {message}")));
    }
    // A value that a branch of `gather` sets is not seen outside of that branch.
    assert_eq!(REQUEST_ID.get(), None);
    println!("{}", logs.concat().join("\n"));
}
