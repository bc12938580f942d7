//! Python: `@threaded_separate`, and a `stop_event`. A function that blocks for long gets a thread of its own.
//!
//! Cancelling the job, or dropping its handle, is the stop event: `wait_cancelled` then returns true in the thread.

use std::time::Duration;

use offthread::{block_on, spsc, threaded_separate, wait_cancelled};

threaded_separate! {
    /// Sends a beat every millisecond, until the job is cancelled or the receiver is gone.
    fn heartbeat(mut beats: spsc::Sender<u32>) -> u32 {
        let mut count = 0;
        // As `stop_event.wait(0.001)`: sleeps for a millisecond, or until the job is cancelled.
        while !wait_cancelled(Duration::from_millis(1)) {
            count += 1;
            if beats.send_blocking(count).is_err() {
                break;
            }
        }
        count
    }
}

fn main() {
    block_on(async {
        let (sender, mut beats) = spsc::channel(1);
        let job = heartbeat(sender).async_call();

        for expected in 1..=3 {
            assert_eq!(beats.recv().await, Some(expected));
        }

        // The job runs, so it cannot be interrupted, only asked to stop. The handle still yields the job's result.
        assert!(!job.cancel());
        while beats.recv().await.is_some() {}
        let count = job.await;
        assert!(count >= 3);
        println!("stopped after {count} beats");
    });
}
