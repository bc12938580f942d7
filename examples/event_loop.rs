//! The event loop: tasks, timers, calls from other threads, and a loop that is used again.
//!
//! ```sh
//! cargo run --release --example event_loop
//! ```

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use offthread::{EventLoop, LoopHandle, block_on, gather, oneshot, sleep, spawn, timeout};

const TICK: Duration = Duration::from_millis(20);

fn main() {
    tasks_take_turns();
    sleeping_is_concurrent();
    calling_later();
    giving_up();
    again_and_again();
    println!("every claim above was checked");
}

/// Tasks share what is on their thread without a lock: only one of them runs at a time.
fn tasks_take_turns() {
    let log = Rc::new(RefCell::new(Vec::new()));
    block_on(async {
        let tasks = ["a", "b"].map(|name| {
            let log = log.clone();
            spawn(async move {
                for turn in 1..=2 {
                    log.borrow_mut().push(format!("{name}{turn}"));
                    offthread::yield_now().await;
                }
            })
        });
        gather(tasks).await;
    });
    assert_eq!(*log.borrow(), ["a1", "b1", "a2", "b2"]);
    println!("tasks take turns: {}", log.borrow().join(" "));
}

/// A thousand sleeps take as long as one.
fn sleeping_is_concurrent() {
    let start = Instant::now();
    block_on(gather((0..1000).map(|_| sleep(TICK))));
    let took = start.elapsed();
    assert!((TICK..40 * TICK).contains(&took), "{took:?}");
    println!("a thousand sleeps of {TICK:?} took {took:.1?}");
}

/// A call at a later time, from whichever thread; and one that is cancelled in time.
fn calling_later() {
    let start = Instant::now();
    let (sender, receiver) = oneshot::channel();
    let called_after = block_on(async move {
        let handle = LoopHandle::current();
        let never = handle.call_later(10 * TICK, || unreachable!("it was cancelled"));
        std::thread::spawn(move || handle.call_later(TICK, move || sender.send(start.elapsed()).unwrap()));
        let called_after = receiver.await.unwrap();
        assert!(never.cancel());
        called_after
    });
    assert!(called_after >= TICK);
    println!("called after {called_after:.1?}");
}

/// What takes too long is dropped.
fn giving_up() {
    let answer = block_on(timeout(TICK, async {
        sleep(Duration::MAX).await;
        "never"
    }));
    println!("{}", answer.unwrap_err());
}

/// Tasks live on from one call to the next.
fn again_and_again() {
    let mut event_loop = EventLoop::builder().pool_size(1).build();
    let work = async {
        sleep(TICK).await;
        6 * 7
    };
    let task = event_loop.handle().spawn(work);
    event_loop.block_on(offthread::yield_now());
    assert!(!task.is_finished());
    assert_eq!(event_loop.block_on(task), 42);
    println!("a task that began in the first call ended in the second");
}
