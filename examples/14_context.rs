//! Python: `ContextVar`. Three requests at once; whatever runs for one of them sees the id of that request.

use std::time::Duration;

use offthread::{ContextVar, block_on, gather, sleep, sync_await, threaded};

static REQUEST_ID: ContextVar<u32> = ContextVar::new();

/// Far down in the code. Nobody passes it the id.
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
    // The requests take turns here. Each keeps its own id.
    sleep(Duration::from_millis(1)).await;
    // The job gets a copy of the context.
    vec![first, threaded(query).await, log("ended")]
}

fn main() {
    let logs = block_on(gather([1, 2, 3].map(handle)));
    for (id, lines) in (1..).zip(&logs) {
        assert_eq!(*lines, ["began", "queried", "ended"].map(|message| format!("[{id}] {message}")));
    }
    // What a branch sets does not leak out.
    assert_eq!(REQUEST_ID.get(), None);
    println!("{}", logs.concat().join("\n"));
}
