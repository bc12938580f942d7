//! How it is made, 7: an event loop. Tasks on one thread, wakers that queue them again, and timers.
//!
//! The real loop is `src/event_loop/`. Beyond this version it
//! * takes no lock when the loop's own thread wakes a task (`tasks.rs`); here every wake takes a lock;
//! * sleeps in one place for messages, timers and the main future (`reactor.rs`);
//! * has handles of tasks (`task.rs`) and the loop (`handle.rs`), and removes timers of dropped sleeps (`timers.rs`).

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// Shared by the loop and the wakers: the numbers of the tasks that are to be polled.
#[derive(Default)]
struct RunQueue {
    tasks: Mutex<Vec<usize>>,
    woken: Condvar,
}

struct TaskWaker {
    task: usize,
    queue: Arc<RunQueue>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.queue.tasks.lock().unwrap().push(self.task);
        self.queue.woken.notify_one();
    }
}

thread_local! {
    /// The wakers of all sleeps, by deadline.
    static TIMERS: RefCell<BTreeMap<Instant, Vec<Waker>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Waits without blocking the thread.
async fn sleep(duration: Duration) {
    let deadline = Instant::now() + duration;
    poll_fn(|cx| {
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        TIMERS.with_borrow_mut(|timers| timers.entry(deadline).or_default().push(cx.waker().clone()));
        Poll::Pending
    })
    .await;
}

/// Runs all tasks to their ends. A task that has ended is `None`.
fn run(tasks: Vec<Pin<Box<dyn Future<Output = ()>>>>) {
    let queue = Arc::<RunQueue>::default();
    queue.tasks.lock().unwrap().extend(0..tasks.len());
    let mut tasks: Vec<_> = tasks.into_iter().map(Some).collect();
    while tasks.iter().any(Option::is_some) {
        // Fires the timers that are due: this queues their tasks.
        let later = TIMERS.with_borrow_mut(|timers| timers.split_off(&Instant::now()));
        TIMERS.replace(later).into_values().flatten().for_each(Waker::wake);
        // Sleeps until a waker is called, or until the next deadline.
        let mut queued = queue.tasks.lock().unwrap();
        if queued.is_empty() {
            let next = TIMERS.with_borrow(|timers| timers.keys().next().copied());
            let left = next.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
            queued = queue.woken.wait_timeout(queued, left).unwrap().0;
        }
        let woken = std::mem::take(&mut *queued);
        // Polls without the lock: a poll may call its own waker.
        drop(queued);
        for task in woken {
            let waker = Arc::new(TaskWaker { task, queue: queue.clone() }).into();
            let polled = tasks[task].as_mut().map(|future| future.as_mut().poll(&mut Context::from_waker(&waker)));
            if polled == Some(Poll::Ready(())) {
                tasks[task] = None;
            }
        }
    }
}

fn main() {
    let start = Instant::now();
    run((1..=100).map(|n| Box::pin(sleep(Duration::from_millis(n % 20))) as Pin<Box<_>>).collect());
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(19));
    println!("a hundred sleeps, 950 ms in all, took {took:.0?}");
}
