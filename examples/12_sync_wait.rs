//! Python: `sync_wait_coroutine(loop, coro)`. Runs a future on an event loop, from any thread that has a handle.
//!
//! Unlike `sync_await`, `sync_wait` returns errors as values.

use std::thread;

use offthread::{LoopHandle, SyncWaitError, block_on, oneshot, threaded};

fn main() {
    let handle = block_on(async {
        let handle = LoopHandle::current();

        // A thread that this crate did not start.
        let (sender, answer) = oneshot::channel();
        let remote = handle.clone();
        thread::spawn(move || sender.send(remote.sync_wait(async { 6 * 7 })));
        assert_eq!(answer.await.unwrap().unwrap(), 42);

        // On the loop's own thread `sync_wait` would wait for ever. It returns an error instead.
        let error = handle.sync_wait(async {}).unwrap_err();
        assert!(matches!(error, SyncWaitError::WouldDeadlock));
        println!("{error}");

        // A panic of the future is an error value as well.
        let remote = handle.clone();
        let error = threaded(move || remote.sync_wait(async { assert_eq!(1, 2, "no") })).await.unwrap_err();
        match error {
            SyncWaitError::Panicked(panic) => assert!(panic.message().contains("no")),
            other => panic!("{other}"),
        }
        handle
    });

    // The loop has ended: `sync_wait` returns an error.
    let error = handle.sync_wait(async {}).unwrap_err();
    assert!(matches!(error, SyncWaitError::LoopClosed));
    println!("{error}");
}
