//! Python: `asyncio.gather`, `asyncio.wait(..., FIRST_COMPLETED)`, `wait_for`.
//!
//! Awaits many futures, the first of two that is ready, or one future with a time limit.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use offthread::{
    Either, block_on, gather, is_cancelled, race, sleep, spsc, threaded, timeout, try_gather, wait_cancelled,
};

const LONG: Duration = Duration::from_secs(60);

fn main() {
    let start = Instant::now();
    block_on(async {
        // The results of all futures, in order. The macro takes futures of different types.
        assert_eq!(gather([1, 2, 3].map(|n| threaded(move || n * 10))).await, [10, 20, 30]);
        assert_eq!(gather!(threaded(|| "text"), async { 7 }).await, ("text", 7));

        // The first error ends `try_gather`: the other branches are dropped.
        let parsed = try_gather(["1", "x", "3"].map(|text| async move { text.parse::<u32>() })).await;
        assert!(parsed.is_err());

        // The future that is ready first. The other one is dropped.
        match race(threaded(|| "quick"), sleep(LONG)).await {
            Either::Left(word) => assert_eq!(word, "quick"),
            Either::Right(()) => unreachable!("a minute is longer"),
        }

        // A time limit. The time-out drops the job's handle, which cancels the job.
        let (mut sender, mut progress) = spsc::channel(1);
        let slow = threaded(move || {
            sender.send_blocking("started").unwrap();
            wait_cancelled(LONG);
            sender.send_blocking(if is_cancelled() { "cancelled" } else { "finished" }).unwrap();
        })
        .async_call();
        assert_eq!(progress.recv().await, Some("started"));
        assert!(timeout(Duration::from_millis(5), slow).await.is_err());
        assert_eq!(progress.recv().await, Some("cancelled"));
    });

    // Blocking code can wait with a time limit, too. If the time is up, `wait_timeout` returns the handle.
    let (open, gate) = mpsc::channel();
    let job = threaded(move || gate.recv()).async_call();
    let job = job.wait_timeout(Duration::from_millis(1)).unwrap_err();
    open.send("result").unwrap();
    assert_eq!(job.wait(), Ok("result"));
    assert!(start.elapsed() < LONG);
    println!("no wait took a minute");
}
