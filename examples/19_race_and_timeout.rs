//! Python: `asyncio.gather`, `asyncio.wait(..., FIRST_COMPLETED)`, `wait_for`. All, the first, or not for too long.

use std::thread;
use std::time::{Duration, Instant};

use offthread::{
    Either, block_on, gather, is_cancelled, race, sleep, spsc, threaded, timeout, try_gather, wait_cancelled,
};

const LONG: Duration = Duration::from_secs(60);

fn main() {
    let start = Instant::now();
    block_on(async {
        // All of them, in order; of different types with the macro.
        assert_eq!(gather([1, 2, 3].map(|n| threaded(move || n * 10))).await, [10, 20, 30]);
        assert_eq!(gather!(threaded(|| "text"), async { 7 }).await, ("text", 7));

        // The first error ends it: the other branches are dropped, and their jobs cancelled.
        let parsed = try_gather(["1", "x", "3"].map(|text| async move { text.parse::<u32>() })).await;
        assert!(parsed.is_err());

        // The first that is ready. The other one is dropped.
        match race(threaded(|| "quick"), sleep(LONG)).await {
            Either::Left(word) => assert_eq!(word, "quick"),
            Either::Right(()) => unreachable!("a minute is longer"),
        }

        // Not for too long. The time-out drops the job's handle, which cancels the job.
        let (mut ended, mut end) = spsc::channel(1);
        let slow = threaded(move || {
            wait_cancelled(LONG);
            ended.send_blocking(is_cancelled())
        });
        assert!(timeout(Duration::from_millis(5), slow).await.is_err());
        assert_eq!(end.recv().await, Some(true), "the job was told, and stopped");
    });

    // Blocking code can wait with a limit, too, and gets the handle back.
    let job = threaded(|| thread::sleep(Duration::from_millis(20))).async_call();
    let job = job.wait_timeout(Duration::from_millis(1)).unwrap_err();
    job.wait();
    assert!(start.elapsed() < LONG);
    println!("nobody waited for a minute");
}
