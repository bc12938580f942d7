//! How much memory an idle event loop, or the timer thread, keeps after a burst.

use crate::heap::{NOW, alone};
use offthread::{LoopHandle, block_on, sleep, spawn, yield_now};
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

const MANY: usize = 100_000;
const LITTLE: usize = 32 << 10;

/// How many more bytes are allocated than before the burst, once the loop is idle.
fn kept_after(burst: impl AsyncFnOnce()) -> usize {
    let _alone = alone();
    block_on(async {
        spawn(async {}).await;
        sleep(Duration::from_millis(1)).await;
        let before = NOW.load(SeqCst);
        burst().await;
        for _ in 0..3 {
            sleep(Duration::from_millis(1)).await;
        }
        NOW.load(SeqCst).saturating_sub(before)
    })
}

#[test]
fn idle_loop_keeps_nothing_of_many_tasks() {
    let kept = kept_after(async || {
        let tasks: Vec<_> = (0..MANY).map(|_| spawn(yield_now())).collect();
        for task in tasks {
            task.await;
        }
    });
    assert!(kept < LITTLE, "{kept} bytes");
}

/// The last task of the burst lives on, and so does a task that is spawned afterwards.
#[test]
fn tasks_that_live_on_keep_no_memory_of_others() {
    let kept = kept_after(async || {
        let tasks: Vec<_> = (0..MANY).map(|_| spawn(yield_now())).collect();
        spawn(pending::<()>()).detach();
        for task in tasks {
            task.await;
        }
        spawn(pending::<()>()).detach();
    });
    assert!(kept < LITTLE, "{kept} bytes");
}

#[test]
fn idle_loop_keeps_nothing_of_many_sleeps() {
    let kept = kept_after(async || {
        let tasks: Vec<_> = (0..MANY as u64).map(|n| spawn(sleep(Duration::from_micros(n % 5000)))).collect();
        for task in tasks {
            task.await;
        }
    });
    assert!(kept < LITTLE, "{kept} bytes");
}

/// The sleep that lives on is the last one of the burst.
#[test]
fn sleeps_that_live_on_keep_no_memory_of_others() {
    let kept = kept_after(async || {
        let mut tasks: Vec<_> = (0..MANY as u64).map(|n| spawn(sleep(Duration::from_micros(n % 5000)))).collect();
        tasks.push(spawn(sleep(Duration::from_secs(1000))));
        yield_now().await;
        tasks.pop().unwrap().detach();
        for task in tasks {
            task.await;
        }
    });
    assert!(kept < LITTLE, "{kept} bytes");
}

#[test]
fn idle_loop_keeps_nothing_of_many_calls() {
    let kept = kept_after(async || {
        let handle = LoopHandle::current();
        for n in 0..MANY as u64 {
            handle.call_soon(|| ());
            let timer = handle.call_later(Duration::from_secs(1000 + n), || ());
            if n % 2 == 0 {
                assert!(timer.cancel());
            } else {
                yield_now().await;
                assert!(timer.cancel());
            }
        }
    });
    assert!(kept < LITTLE, "{kept} bytes");
}

/// The messages are calls and tasks that another thread has submitted while the loop was busy.
#[test]
fn idle_loop_keeps_nothing_of_many_messages() {
    let kept = kept_after(async || {
        let handle = LoopHandle::current();
        let other = thread::spawn(move || {
            for _ in 0..MANY {
                handle.call_soon(|| ());
                handle.spawn(async {}).detach();
            }
        });
        other.join().unwrap();
        yield_now().await;
    });
    assert!(kept < LITTLE, "{kept} bytes");
}

/// A chain of tasks, each of which owns the one before it. Their futures are dropped one after the other.
#[test]
fn thread_keeps_nothing_of_a_long_chain() {
    let kept = kept_after(async || {
        let mut last = spawn(async {});
        for _ in 0..MANY {
            last = spawn(last);
        }
        drop(last);
    });
    assert!(kept < LITTLE, "{kept} bytes");
}

/// The sleeps, outside of loops, end or are cancelled. In the second round, one sleep lives on.
#[test]
fn timer_thread_keeps_nothing_of_many_sleeps() {
    let _alone = alone();
    let poll = |sleep: &mut offthread::Sleep| Pin::new(sleep).poll(&mut Context::from_waker(Waker::noop()));
    let mut first = sleep(Duration::from_secs(1000));
    assert!(poll(&mut first).is_pending());
    let before = NOW.load(SeqCst);
    for live in [false, true] {
        let mut sleeps: Vec<_> = (0..MANY as u64)
            .map(|n| sleep(if n % 2 == 0 { Duration::from_micros(n % 5000) } else { Duration::from_secs(500 + n) }))
            .collect();
        for sleep in &mut sleeps {
            let _ = poll(sleep);
        }
        thread::sleep(Duration::from_millis(20));
        let last = sleeps.pop().filter(|_| live);
        drop(sleeps);
        let deadline = Instant::now() + Duration::from_secs(20);
        let kept = || NOW.load(SeqCst).saturating_sub(before);
        while kept() >= LITTLE {
            assert!(Instant::now() < deadline, "{} bytes", kept());
            thread::sleep(Duration::from_millis(1));
        }
        drop(last);
    }
}
