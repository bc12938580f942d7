//! A program that `tests/cancellation.rs` builds with `panic = "abort"`. The exit status is 0 if nothing aborts the
//! program.

use offthread::{LoopHandle, SyncWaitError, ThreadPool, block_on, oneshot, sync_await, threaded};

fn main() {
    block_on(async {
        // A job that is cancelled in `sync_await` does not unwind, and runs to its end.
        let (started, has_started) = oneshot::channel();
        let (open, gate) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let job = threaded(move || {
            sync_await(async move {
                started.send(()).unwrap();
                gate.await.unwrap();
            });
            end.send("to its end").unwrap();
        })
        .async_call();
        has_started.await.unwrap();
        drop(job);
        open.send(()).unwrap();
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
