//! Python: `sync_wait_coroutine(loop, coro)`. From any thread: run a future on a loop that one has a handle of.
//!
//! Unlike `sync_await`, it returns its errors as values.

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

        // On the loop's own thread it would wait for ever. It says so instead.
        let error = handle.sync_wait(async {}).unwrap_err();
        assert!(matches!(error, SyncWaitError::WouldDeadlock));
        println!("{error}");

        // A panic of the future is a value, too.
        let remote = handle.clone();
        let error = threaded(move || remote.sync_wait(async { assert_eq!(1, 2, "no") })).await.unwrap_err();
        match error {
            SyncWaitError::Panicked(panic) => assert!(panic.message().contains("no")),
            other => panic!("{other}"),
        }
        handle
    });

    // The loop has ended: an error, not a hang.
    let error = handle.sync_wait(async {}).unwrap_err();
    assert!(matches!(error, SyncWaitError::LoopClosed));
    println!("{error}");
}
