//! Python: `asyncio.run`, `entrypoint(pool_size=8)`. The event loop: tasks, timers, and a pool of its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use offthread::{EventLoop, LoopHandle, block_on, gather, oneshot, sleep, spawn, threaded, yield_now};

const TICK: Duration = Duration::from_millis(20);

fn main() {
    // Tasks of one loop share data without a lock: they run on one thread, one at a time.
    let log = Rc::new(RefCell::new(Vec::new()));
    block_on(async {
        let tasks = ["a", "b"].map(|name| {
            let log = log.clone();
            spawn(async move {
                for turn in 1..=2 {
                    log.borrow_mut().push(format!("{name}{turn}"));
                    yield_now().await;
                }
            })
        });
        gather(tasks).await;
    });
    assert_eq!(*log.borrow(), ["a1", "b1", "a2", "b2"]);

    // A thousand sleeps of 20 ms take about as long as one. One after the other, they would take 20 s.
    let start = Instant::now();
    block_on(gather((0..1000).map(|_| sleep(TICK))));
    assert!((TICK..1000 * TICK).contains(&start.elapsed()));

    // `call_later`, from any thread. The first call is cancelled in time.
    block_on(async {
        let handle = LoopHandle::current();
        let never = handle.call_later(Duration::from_secs(3600), || unreachable!("it was cancelled"));
        let (sender, receiver) = oneshot::channel();
        std::thread::spawn(move || handle.call_later(TICK, move || sender.send("called").unwrap()));
        assert_eq!(receiver.await, Ok("called"));
        assert!(never.cancel());
    });

    // A loop that is used twice. Its jobs run in the loop's own pool, of 8 threads.
    let mut event_loop = EventLoop::builder().pool_size(8).build();
    let task = event_loop.handle().spawn(async {
        sleep(TICK).await;
        threaded(|| 6 * 7).await
    });
    event_loop.block_on(yield_now());
    assert!(!task.is_finished(), "the task is still alive after the first `block_on`");
    assert_eq!(event_loop.block_on(task), 42);
    println!("tasks took turns: {}", log.borrow().join(" "));
}
