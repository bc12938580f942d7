//! A program that `tests/cancellation.rs` builds with `panic = "abort"`. The exit status is 0 if nothing aborts the
//! program.

use offthread::{LoopHandle, SyncWaitError, ThreadPool, block_on, oneshot, sleep, sync_await, threaded, timeout};
use std::time::Duration;

fn main() {
    block_on(async {
        // A job that is cancelled in `sync_await` does not unwind, and runs to its end.
        let (started, has_started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let job = threaded(move || {
            started.send(()).unwrap();
            sync_await(sleep(Duration::from_millis(50)));
            end.send("to its end").unwrap();
        });
        assert!(
            timeout(Duration::from_millis(10), async move {
                let job = job.async_call();
                has_started.await.unwrap();
                job.await;
            })
            .await
            .is_err()
        );
        assert_eq!(ended.await, Ok("to its end"));

        // A cancelled `sync_wait` still returns early, with an error.
        let (started, has_started) = oneshot::channel();
        let handle = LoopHandle::current();
        let job = threaded(move || {
            started.send(()).unwrap();
            handle.sync_wait(std::future::pending::<()>())
        })
        .async_call();
        has_started.await.unwrap();
        assert!(!job.cancel());
        assert!(matches!(job.await, Err(SyncWaitError::Cancelled)));
    });
    ThreadPool::global().shutdown();
}
