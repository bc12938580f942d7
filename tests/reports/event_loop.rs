//! The event loop: its end, code that nests in it, `gather` and `sync_await`.

use crate::helpers::iterables::*;
use crate::{LONG, MILLI, poll};
use offthread::{
    EventLoop, Job, JoinError, LoopHandle, SyncWaitError, Task, ThreadPool, block_on, gather, is_cancelled, oneshot,
    sleep, spawn, sync_await, threaded, timeout, yield_now,
};
use std::future::{Future, IntoFuture, Ready, pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

// --- the end of a loop ----------------------------------------------------------------------------------------------

/// tokio 4724, tokio 6505: forbids that tasks that wait for each other, or for themselves, are leaked when their loop
/// ends.
#[test]
fn tasks_that_wait_for_each_other_are_dropped() {
    let _watchdog = watchdog();
    let value = Arc::new(());
    block_on(async {
        let (first, has_first) = oneshot::channel::<Task<()>>();
        let (second, has_second) = oneshot::channel::<Task<()>>();
        let (own, has_own) = oneshot::channel::<Task<()>>();
        for (sender, receiver) in [(first, has_second), (second, has_first), (own, has_own)] {
            let value = value.clone();
            let task = spawn(async move {
                receiver.await.unwrap().await;
                unreachable!("{value:?}");
            });
            sender.send(task).unwrap();
        }
        for _ in 0..5 {
            yield_now().await;
        }
        assert_eq!(Arc::strong_count(&value), 4);
    });
    assert_eq!(Arc::strong_count(&value), 1);
}

/// compio 901, tokio 1584, tokio 6238: forbids that left-over tasks whose `Drop` panics are leaked, or hide the panic
/// of the main future.
#[test]
fn left_over_tasks_whose_drops_panic_are_not_leaked() {
    let _watchdog = watchdog();
    for main_panics in [false, true] {
        let (dropped, called) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        let result = catch_unwind(AssertUnwindSafe(|| {
            block_on(async {
                for _ in 0..5 {
                    let dropped = dropped.clone();
                    let bomb = on_drop(move || {
                        dropped.fetch_add(1, SeqCst);
                        quiet_panic("the drop of a task");
                    });
                    spawn(never_ending(bomb)).detach();
                    let called = called.clone();
                    LoopHandle::current().call_later(LONG, move || drop(called));
                }
                yield_now().await;
                if main_panics {
                    quiet_panic("the main future");
                }
            });
        }));
        assert_eq!((dropped.load(SeqCst), Arc::strong_count(&called)), (5, 1));
        assert!(!main_panics || text(&*result.unwrap_err()) == "the main future");
        assert_eq!(block_on(async { spawn(async { 1 }).await }), 1);
    }
}

/// tokio 1972, tokio 2046: forbids that a wake-up under a user's lock, while the loop ends, drops another task whose
/// `Drop` takes the same lock.
#[test]
fn a_wake_up_under_a_lock_does_not_deadlock_as_the_loop_ends() {
    let _watchdog = watchdog();
    for wakes_first in [false, true] {
        let (lock, waker) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(None::<Waker>)));
        block_on(async {
            let wakes = || {
                let (lock, waker) = (lock.clone(), waker.clone());
                let guard = on_drop(move || {
                    let mut count = lock.lock().unwrap();
                    let waker = waker.lock().unwrap().take();
                    if let Some(waker) = waker {
                        waker.wake_by_ref();
                        waker.wake();
                    }
                    *count += 1;
                });
                spawn(never_ending(guard)).detach();
            };
            if wakes_first {
                wakes();
            }
            let (inside, waker) = (lock.clone(), waker.clone());
            let guard = on_drop(move || *inside.lock().unwrap() += 1);
            spawn(poll_fn(move |cx| {
                let _guard = &guard;
                *waker.lock().unwrap() = Some(cx.waker().clone());
                Poll::<()>::Pending
            }))
            .detach();
            if !wakes_first {
                wakes();
            }
            yield_now().await;
            yield_now().await;
        });
        assert_eq!(*lock.lock().unwrap(), 2);
    }
}

/// tokio 3752, tokio 7499, zbus 380, asyncio 258: forbids that the end of a loop overflows the stack, or hangs, when
/// each task or call that the loop drops adds another one. (`tests/jobs/chains.rs` does the same with a closed loop.)
#[test]
fn each_drop_may_add_the_next_while_the_loop_ends() {
    type Add = fn(&LoopHandle, Adds);
    struct Adds(LoopHandle, Add, usize, Arc<AtomicUsize>);
    impl Drop for Adds {
        fn drop(&mut self) {
            self.3.fetch_add(1, SeqCst);
            if self.2 > 0 {
                self.1(&self.0, Adds(self.0.clone(), self.1, self.2 - 1, self.3.clone()));
            }
        }
    }
    const LENGTH: usize = 20_000;
    let ways: [Add; 3] = [
        |handle, next| handle.spawn(never_ending(next)).detach(),
        |handle, next| handle.call_soon(move || drop(next)),
        |handle, next| drop(handle.call_later(LONG, move || drop(next))),
    ];
    let _watchdog = watchdog();
    for add in ways {
        let dropped = Arc::default();
        let count = Arc::clone(&dropped);
        let run = move || {
            block_on(async {
                let handle = LoopHandle::current();
                add(&handle, Adds(handle.clone(), add, LENGTH, count));
            });
        };
        thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
        assert_eq!(dropped.load(SeqCst), LENGTH + 1);
    }
}

/// tokio 5843, cpython 93740: forbids that `sync_wait` hangs in the `Drop` of a task that its loop drops at the end.
#[test]
fn sync_wait_in_the_drop_of_a_left_over_task_does_not_hang() {
    let _watchdog = watchdog();
    let (said, hears) = mpsc::channel();
    block_on(async {
        let handle = LoopHandle::current();
        let guard = on_drop(move || said.send(handle.sync_wait(ready(1))).unwrap());
        spawn(never_ending(guard)).detach();
        yield_now().await;
    });
    assert!(hears.recv().unwrap().is_err(), "a loop that is ending has run the future");
}

/// bumble 947: forbids that a thread that has entered a closed loop cannot run jobs, or a loop of its own.
#[test]
fn a_thread_that_has_entered_a_closed_loop_can_run_jobs() {
    let _watchdog = watchdog();
    let handle = block_on(async { LoopHandle::current() });
    assert!(matches!(handle.sync_wait(ready(1)), Err(SyncWaitError::LoopClosed)));
    let pool = ThreadPool::new(1);
    handle.set_default_pool(pool.clone());
    handle.enter(|| {
        assert!(matches!(threaded(|| 3).async_call().outcome().wait(), Ok(3) | Err(JoinError::Cancelled)));
        assert_says(&panic_of(|| sync_await(ready(1))), "loop");
        assert_eq!(threaded(|| 3).on(&pool).async_call().wait(), 3);
        assert_eq!(block_on(async { spawn(async { 4 }).await }), 4);
        assert_eq!(block_on(threaded(|| sync_await(ready(5)))), 5);
    });
}

// --- nesting --------------------------------------------------------------------------------------------------------

/// tokio 5177, tokio 2529, tauri 5068: forbids that the running loop is damaged by a nested `block_on`, which panics,
/// or by another loop that is dropped inside it.
#[test]
fn a_loop_goes_on_after_a_nested_block_on() {
    let _watchdog = watchdog();
    let value = Arc::new(());
    let inside = value.clone();
    let sum = block_on(async move {
        let task = spawn(async {
            sleep(5 * MILLI).await;
            1
        });
        assert_says(&panic_of(|| block_on(ready(1))), "await");
        let mut inner = EventLoop::new();
        assert_says(&panic_of(|| inner.block_on(ready(1))), "await");
        let submitted = inner.handle().spawn(async move { drop(inside) });
        drop(inner);
        assert!(matches!(submitted.outcome().await, Err(JoinError::Cancelled)));
        let pool = ThreadPool::new(1);
        let in_job = threaded(|| block_on(async { spawn(async { 1 }).await })).on(&pool).await;
        let (sender, receiver) = oneshot::channel();
        LoopHandle::current().call_soon(|| sender.send(1).unwrap());
        task.await + in_job + receiver.await.unwrap() + spawn(async { 1 }).await
    });
    assert_eq!((sum, Arc::strong_count(&value)), (4, 1));
}

/// tokio 5177: forbids that after a panic in `into_future` a loop is still current, or counts as running.
#[test]
fn after_a_panic_in_into_future_no_loop_is_current() {
    struct Bad;
    impl IntoFuture for Bad {
        type Output = ();
        type IntoFuture = Ready<()>;
        fn into_future(self) -> Self::IntoFuture {
            quiet_panic("into_future")
        }
    }
    #[track_caller]
    fn panics<R>(code: impl FnOnce() -> R) {
        assert_eq!(panic_of(code), "into_future");
    }
    let _watchdog = watchdog();
    panics(|| block_on(Bad));
    let mut event_loop = EventLoop::new();
    let task = event_loop.block_on(async { spawn(async { 1 }) });
    panics(|| event_loop.block_on(Bad));
    assert_eq!(event_loop.block_on(task), 1);
    panics(|| block_on(async { timeout(MILLI, Bad).await }));
    panics(|| block_on(gather([Bad, Bad])));
    panics(|| block_on(gather!(ready(1), Bad)));
    let pool = ThreadPool::new(1);
    block_on(async {
        let outcome = threaded(|| sync_await(Bad)).on(&pool).async_call().outcome().await;
        assert!(matches!(outcome, Err(JoinError::Panicked(panic)) if panic.message() == "into_future"));
        assert_eq!(threaded(|| sync_await(ready(1))).on(&pool).await, 1);
    });
    assert!(LoopHandle::try_current().is_none());
    assert_eq!(block_on(async { spawn(async { 1 }).await }), 1);
}

/// asupersync 56, async-std 644: forbids that loops in jobs of other loops, with timers, hang on a pool of one thread.
#[test]
fn loops_in_jobs_of_other_loops_do_not_hang() {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    fn job<R: Send + 'static>(func: impl FnOnce() -> R + Send + 'static) -> Job<R> {
        POOL.get_or_init(|| ThreadPool::new(1)).spawn(func)
    }
    /// A loop that awaits a job. The job waits for a future on this loop, which awaits a second job. The second job
    /// runs the loop of the next level.
    fn level(left: u32) -> u32 {
        block_on(async move {
            let ticks = spawn(async {
                for _ in 0..3 {
                    sleep(MILLI).await;
                }
                1
            });
            let below = job(move || {
                sync_await(async move {
                    sleep(MILLI).await;
                    if left == 0 { 0 } else { timeout(LONG, job(move || level(left - 1))).await.unwrap() }
                })
            });
            below.await + ticks.await
        })
    }
    let _watchdog = watchdog();
    assert_eq!(level(0), 1);
    assert_eq!(level(3), 4);
}

/// cpython 111379: forbids that a job that has caught its cancellation waits for ever in its next `sync_await`, or is
/// counted as cancelled although it returns.
#[test]
fn a_job_may_catch_its_cancellation() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    block_on(async {
        let (started, has_started) = oneshot::channel();
        let job = pool.spawn(move || {
            started.send(()).unwrap();
            for _ in 0..2 {
                assert!(catch_unwind(|| sync_await(pending::<()>())).is_err());
                assert!(is_cancelled() && !thread::panicking());
            }
            5
        });
        has_started.await.unwrap();
        assert!(!job.cancel());
        assert_eq!(job.outcome().await.ok(), Some(5));
        let stats = pool.stats();
        assert_eq!((stats.succeeded, stats.panicked, stats.cancelled), (1, 0, 0));
    });
}

// --- gather ---------------------------------------------------------------------------------------------------------

/// futures-rs 1603: forbids that a `gather`, nested or not, of n futures that become ready one by one polls n² times.
#[test]
fn gather_polls_in_proportion_to_its_branches() {
    struct Counted<F>(F, Arc<AtomicUsize>);
    impl<F: Future + Unpin> Future for Counted<F> {
        type Output = F::Output;
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            self.1.fetch_add(1, SeqCst);
            poll(&mut self.0, cx.waker())
        }
    }
    let _watchdog = watchdog();
    assert_eq!(block_on(gather(Vec::<Ready<u8>>::new())), [0; 0]);
    let polls = Arc::new(AtomicUsize::new(0));
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..10_000).map(|_| oneshot::channel()).unzip();
    let receivers: Vec<_> = receivers.into_iter().map(|receiver| Counted(receiver, polls.clone())).collect();
    block_on(async {
        let mut receivers = receivers.into_iter();
        let mut hundred = || gather(receivers.by_ref().take(100).collect::<Vec<_>>());
        let mut thousand = || gather((0..10).map(|_| hundred()).collect::<Vec<_>>());
        let all = spawn(gather((0..10).map(|_| thousand()).collect::<Vec<_>>()));
        for (number, sender) in senders.into_iter().enumerate() {
            sender.send(number).unwrap();
            if number % 10 == 0 {
                yield_now().await;
            }
        }
        let all = all.await.into_iter().flatten().flatten().map(Result::unwrap);
        assert!(all.eq(0..10_000));
    });
    assert!(polls.load(SeqCst) <= 2 * 10_000, "{} polls", polls.load(SeqCst));
}
