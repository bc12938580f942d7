//! How it is made, 3: `block_on`. Polls a future on this thread, and sleeps until its waker is called.
//!
//! The real sleep and waker are in `src/primitives/parker.rs`, the real `block_on` is in `src/event_loop/mod.rs`.
//! Beyond this version, the real parker
//! * yields for up to 50 microseconds before it sleeps, since a sleep and a wake-up cost 10 to 40 microseconds
//!   (`src/primitives/backoff.rs`);
//! * keeps its wakers for later calls on the same thread, so that a call allocates nothing;
//! * tells the pool that its thread sleeps, so that another thread can take its place (`set_blocking_hook`);
//! * can stop at a deadline.

#![forbid(unsafe_code)]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};

struct ThreadWaker {
    thread: Thread,
    /// Set by each wake. The thread's own token is not enough: code inside the future may park this thread too, and
    /// consume the token that was meant for this function.
    woken: AtomicBool,
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        // Release: what was done before the wake is seen by the poll that follows it.
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waiter = Arc::new(ThreadWaker { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = waiter.clone().into();
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        // The flag is read after each sleep, since `park` may return for no reason. A wake between the read and the
        // sleep sets the thread's token, and `park` returns at once.
        while !waiter.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

fn main() {
    assert_eq!(block_on(async { 6 * 7 }), 42);

    // Woken by another thread, before this thread sleeps or while it sleeps.
    let done = Arc::new(AtomicBool::new(false));
    let mut started = false;
    let polls = block_on(async {
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            if !started {
                started = true;
                let (done, waker) = (done.clone(), cx.waker().clone());
                thread::spawn(move || {
                    done.store(true, Ordering::Release);
                    waker.wake();
                });
            }
            if done.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        polls
    });
    assert!((1..=2).contains(&polls));

    // The future consumes the thread's token between the wake and the sleep. The flag remembers the wake.
    let mut is_first = true;
    block_on(poll_fn(|cx| {
        if !std::mem::take(&mut is_first) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        thread::park();
        Poll::Pending
    }));
    println!("polled {polls} times, and no wake was lost");
}
