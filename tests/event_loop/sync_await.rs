//! `sync_await` and `sync_wait`: a thread runs a future on a loop and blocks until it has a result or an error.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]
#![allow(clippy::async_yields_async, reason = "a test often returns a handle from its future")]

use crate::helpers::event_loop::*;
use crate::helpers::pool::spawn_until_asleep;
use offthread::{
    Elapsed, EventLoop, JoinError, LoopHandle, SyncWaitError, ThreadPool, block_on, is_cancelled, oneshot, sleep,
    spawn, sync_await, threaded, threaded_separate, timeout, yield_now,
};
use std::cell::Cell;
use std::error::Error;
use std::future::{Future, IntoFuture, pending, poll_fn, ready};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, ThreadId};
use std::time::Duration;

/// Runs `f` on each kind of thread that has a current loop: in a job of the loop's pool, in a job of another pool, in a
/// job of a job, in a separate job, and on a thread that has entered the loop.
async fn from_everywhere<R: Send + 'static>(f: impl Fn() -> R + Clone + Send + 'static) -> Vec<R> {
    let pool = ThreadPool::new(1);
    let handle = LoopHandle::current();
    let [in_pool, in_other, in_job, in_separate, entered] = [(); 5].map(|()| f.clone());
    vec![
        threaded(in_pool).await,
        pool.spawn(in_other).await,
        threaded(move || pool.spawn(in_job).wait()).await,
        threaded_separate(in_separate).await,
        elsewhere(move || handle.enter(entered)).await,
    ]
}

/// Wraps a future so that its first poll sends the thread's id.
fn tells_start<F: Future>(future: F) -> (impl Future<Output = F::Output>, oneshot::Receiver<ThreadId>) {
    let (sender, started) = oneshot::channel();
    let future = async {
        sender.send(thread::current().id()).unwrap();
        future.await
    };
    (future, started)
}

// --- value and panic ------------------------------------------------------------------------------------------------

/// The future runs on the loop, and its value is returned to the waiting thread.
#[test]
fn the_value_comes_back_from_the_loop() {
    let _watchdog = watchdog();
    block_on(async {
        let here = thread::current().id();
        let run = || {
            let value = sync_await(async {
                yield_now().await;
                sleep(MILLI).await;
                thread::current().id()
            });
            (value, thread::current().id())
        };
        for (ran_on, caller) in from_everywhere(run).await {
            assert_eq!(ran_on, here);
            assert_ne!(caller, here);
        }
        let run = || LoopHandle::current().sync_wait(async { thread::current().id() }).unwrap();
        assert!(from_everywhere(run).await.into_iter().all(|ran_on| ran_on == here));
        // A thread that only has the handle.
        let handle = LoopHandle::current();
        assert_eq!(elsewhere(move || handle.sync_wait(async { thread::current().id() }).unwrap()).await, here);
        // Neither the future nor its result need be `Sync`.
        let handle = LoopHandle::current();
        let cell = Cell::new(3);
        let job = threaded(move || {
            handle
                .sync_wait(async move {
                    yield_now().await;
                    cell
                })
                .unwrap()
                .get()
        });
        assert_eq!(job.await, 3);
    });
}

/// `into_future` is called on the waiting thread, not on the loop's.
#[test]
fn into_future_is_called_by_the_caller() {
    struct Asks;
    impl IntoFuture for Asks {
        type Output = (ThreadId, ThreadId);
        type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send>>;
        fn into_future(self) -> Self::IntoFuture {
            let caller = thread::current().id();
            Box::pin(async move { (caller, thread::current().id()) })
        }
    }
    let _watchdog = watchdog();
    block_on(async {
        let here = thread::current().id();
        for (called, (made, polled)) in from_everywhere(|| (thread::current().id(), sync_await(Asks))).await {
            assert_eq!((made, polled), (called, here));
        }
    });
}

/// A panic of the future comes out on the waiting thread, with its payload, and does not reach the loop.
#[test]
fn a_panic_comes_back_too() {
    let _watchdog = watchdog();
    block_on(async {
        let run = || {
            panic_of(|| {
                sync_await(async {
                    yield_now().await;
                    quiet_panic("in the future")
                })
            })
        };
        assert!(from_everywhere(run).await.into_iter().all(|message| message == "in the future"));
        let run = || LoopHandle::current().sync_wait(async { quiet_panic("as a value") });
        for result in from_everywhere(run).await {
            let Err(SyncWaitError::Panicked(panic)) = result else { panic!("no panic is reported") };
            assert_eq!(panic.message(), "as a value");
            assert_eq!(panic.into_payload().downcast_ref(), Some(&"as a value"));
        }
        // A job that does not catch the panic passes it on.
        assert_eq!(
            panic_in(threaded(|| sync_await(async { quiet_panic("handed on") })).into_future()).await,
            "handed on"
        );
        assert_eq!(spawn(ready(1)).await, 1);
    });
}

/// A `sync_await` of a `timeout` ends with the time-out, and leaves no future running.
#[test]
fn sync_await_can_be_bounded_by_a_timeout() {
    let _watchdog = watchdog();
    block_on(async {
        let here = thread::current().id();
        let run = || {
            let (value, dropped) = traced();
            (sync_await(timeout(MILLI, hold(value))), dropped.try_recv())
        };
        for (result, dropped) in from_everywhere(run).await {
            assert_eq!(result, Err(Elapsed));
            assert_eq!(dropped, Ok(here), "the loop has not dropped the future before `sync_await` returned");
        }
    });
    // Without a loop.
    let (value, dropped) = traced();
    assert_eq!(sync_await(timeout(MILLI, hold(value))), Err(Elapsed));
    assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
}

/// Many threads that wait at once get their own values.
#[test]
fn many_threads_wait_at_once() {
    let _watchdog = watchdog();
    let mut event_loop = EventLoop::builder().pool_size(4).build();
    event_loop.block_on(async {
        let jobs = (0..8_usize).map(|thread| {
            threaded(move || {
                (0..50_usize).for_each(|number| {
                    let value = sync_await(async move {
                        if number % 2 == 0 {
                            yield_now().await;
                        }
                        (thread, number)
                    });
                    assert_eq!(value, (thread, number));
                });
            })
        });
        offthread::gather(jobs).await;
    });
}

/// Nested calls, each of which waits for the next, do not block the loop.
#[test]
fn sync_await_can_be_nested() {
    fn down(levels: usize) -> usize {
        if levels == 0 {
            return 0;
        }
        sync_await(async move { threaded(move || down(levels - 1)).await + 1 })
    }
    let _watchdog = watchdog();
    block_on(async { assert_eq!(threaded(|| down(5)).await, 5) });
    assert_eq!(threaded_separate(|| down(5)).sync_call(), 5);
}

/// A pool of one thread does not starve itself when its job waits for a future that waits for a job of that pool.
#[test]
fn a_pool_of_one_thread_does_not_starve_itself() {
    fn down(levels: usize) -> usize {
        if levels == 0 { 0 } else { sync_await(threaded(move || down(levels - 1))) + 1 }
    }
    fn down_on(pool: &ThreadPool, levels: usize) -> usize {
        let inner = pool.clone();
        if levels == 0 { 0 } else { sync_await(threaded(move || down_on(&inner, levels - 1)).on(pool)) + 1 }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let mut event_loop = EventLoop::builder().pool(pool.clone()).build();
    let inner = pool.clone();
    event_loop.block_on(async {
        assert_eq!(threaded(|| down(1)).await, 1);
        assert_eq!(threaded(|| down(4)).await, 4);
        assert_eq!(threaded(move || down_on(&inner, 3)).await, 3);
        let several = (0..4).map(|_| threaded(|| down(2)));
        assert_eq!(offthread::gather(several).await, [2; 4]);
    });
    // The same without a loop.
    assert_eq!(pool.spawn(|| down(4)).wait(), 4);
    let inner = pool.clone();
    assert_eq!(pool.spawn(move || down_on(&inner, 3)).wait(), 3);
}

// --- LoopClosed -----------------------------------------------------------------------------------------------------

/// Waiting for a closed loop fails at once, and the future is never polled.
#[test]
fn waiting_for_a_closed_loop_fails_at_once() {
    let _watchdog = watchdog();
    let closed = [block_on(async { LoopHandle::current() }), EventLoop::new().handle()];
    for handle in closed {
        for on_another_thread in [false, true] {
            let check = || {
                let (value, dropped) = traced();
                let probe = Probe::default();
                let future = probe.future();
                let result = handle.sync_wait(async move {
                    let _value = value;
                    future.await;
                });
                assert!(matches!(result, Err(SyncWaitError::LoopClosed)));
                assert_eq!(probe.polls(), 0);
                assert!(dropped.try_recv().is_ok());
                assert_says(&panic_of(|| handle.enter(|| sync_await(ready(1)))), "loop");
            };
            if on_another_thread { meanwhile(check) } else { check() }
        }
    }
}

/// If the loop ends while a thread waits, the thread gets an error and the loop drops the future, however the loop
/// ends.
#[test]
fn a_loop_that_ends_releases_waiting_threads() {
    let _watchdog = watchdog();
    for end in 0..3 {
        let (value, dropped) = traced();
        let (future, started) = tells_start(hold(value));
        let (report, reported) = mpsc::channel();
        let wait_on = move |handle: LoopHandle| {
            thread::spawn(move || report.send(handle.sync_wait(future).map(|()| 0)).unwrap());
        };
        let here = thread::current().id();
        match end {
            0 => block_on(async {
                wait_on(LoopHandle::current());
                assert_eq!(started.await, Ok(here));
            }),
            1 => {
                let mut event_loop = EventLoop::new();
                wait_on(event_loop.handle());
                assert_eq!(event_loop.block_on(started), Ok(here));
                event_loop.block_on(turns());
                assert!(reported.try_recv().is_err(), "the end of a `block_on` call must not end the wait");
                drop(event_loop);
            }
            _ => {
                let panics = || {
                    block_on(async {
                        wait_on(LoopHandle::current());
                        started.await.unwrap();
                        quiet_panic("the main one");
                    });
                };
                assert_eq!(panic_of(panics), "the main one");
            }
        }
        assert_eq!(dropped.try_recv(), Ok(here));
        assert!(matches!(reported.recv(), Ok(Err(SyncWaitError::LoopClosed))));
    }
    // `sync_await` in a job panics with a message that mentions the loop.
    let (future, started) = tells_start(pending::<()>());
    let job = block_on(async {
        let job = threaded(|| panic_of(|| sync_await(future))).async_call();
        started.await.unwrap();
        job
    });
    assert_says(&job.wait(), "loop");
}

/// A loop that is not running is not closed: a waiting thread gets the value in the next `block_on` call.
#[test]
fn a_loop_between_two_calls_is_waited_for() {
    let _watchdog = watchdog();
    let mut event_loop = EventLoop::new();
    event_loop.block_on(turns());
    let handle = event_loop.handle();
    thread::scope(|scope| {
        let other = spawn_until_asleep(scope, move || handle.sync_wait(async { yield_now().await }));
        assert!(!other.is_finished(), "the thread does not wait for a loop that is not running");
        event_loop.block_on(until("the other thread has ended", || other.is_finished()));
        assert!(other.join().unwrap().is_ok());
    });
}

/// The loop closes just after a thread has found it open and is about to submit a future. The thread gets a value or an
/// error.
#[test]
fn a_wait_that_begins_while_the_loop_ends_gets_a_result() {
    let _watchdog = watchdog();
    for round in 0..200 {
        let living = Living::default();
        let (go, gone) = mpsc::channel();
        let (value, done) = (living.one(), Gate::default());
        let inside = done.clone();
        let other = thread::spawn(move || {
            let handle: LoopHandle = gone.recv().unwrap();
            (0..round % 20 * 10).for_each(|_| std::hint::spin_loop());
            let result = handle.sync_wait(async move {
                yield_now().await;
                drop(value);
                inside.open();
            });
            assert!(matches!(result, Ok(()) | Err(SyncWaitError::LoopClosed)));
            result.is_ok()
        });
        block_on(async {
            go.send(LoopHandle::current()).unwrap();
            for _ in 0..round % 5 {
                yield_now().await;
            }
        });
        assert_eq!(other.join().unwrap(), done.is_open());
        assert_eq!(living.count(), 0);
    }
}

// --- WouldDeadlock --------------------------------------------------------------------------------------------------

/// On the loop's own thread, `sync_wait` returns `WouldDeadlock`, wherever it is called.
#[test]
fn sync_wait_on_the_loops_own_thread_would_deadlock() {
    fn check() {
        let (value, dropped) = traced();
        let probe = Probe::default();
        let future = probe.future();
        let result = LoopHandle::current().sync_wait(async move {
            let _value = value;
            future.await;
        });
        assert!(matches!(result, Err(SyncWaitError::WouldDeadlock)));
        assert_eq!(probe.polls(), 0);
        assert!(dropped.try_recv().is_ok());
        assert_says(&panic_of(|| sync_await(ready(1))), "deadlock");
    }
    let _watchdog = watchdog();
    block_on(async {
        check();
        spawn(async { check() }).await;
        threaded(|| sync_await(async { check() })).await;
        let (sender, receiver) = oneshot::channel();
        LoopHandle::current().call_soon(|| {
            check();
            sender.send(()).unwrap();
        });
        receiver.await.unwrap();
        let (sender, receiver) = oneshot::channel();
        LoopHandle::current().call_later(MILLI, || {
            check();
            sender.send(()).unwrap();
        });
        receiver.await.unwrap();
        let (sender, receiver) = oneshot::channel();
        drop(spawn(hold(on_drop(|| {
            check();
            sender.send(()).unwrap();
        }))));
        receiver.await.unwrap();
    });
    // Between two calls, when only this thread could run the loop.
    let event_loop = EventLoop::new();
    assert!(matches!(event_loop.handle().sync_wait(ready(1)), Err(SyncWaitError::WouldDeadlock)));
    // In a job that `wait` runs inline on the loop's thread.
    let pool = ThreadPool::new(1);
    let inner = pool.clone();
    let job =
        pool.spawn(move || block_on(async move { inner.spawn(|| LoopHandle::current().sync_wait(ready(1))).wait() }));
    assert!(matches!(job.wait(), Err(SyncWaitError::WouldDeadlock)));
}

/// A loop's thread may wait for a loop of another thread.
#[test]
fn a_loop_may_wait_for_another() {
    let _watchdog = watchdog();
    let (sender, handles) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let other = thread::spawn(move || {
        block_on(async {
            sender.send((LoopHandle::current(), thread::current().id())).unwrap();
            stopped.await.unwrap();
        });
    });
    let (handle, others_thread) = handles.recv().unwrap();
    block_on(async {
        assert_eq!(handle.sync_wait(async { thread::current().id() }).unwrap(), others_thread);
        // From a job's own loop to the loop that the job was started from.
        let outer = LoopHandle::current();
        let here = thread::current().id();
        let job = threaded(move || block_on(async { outer.sync_wait(async { thread::current().id() }).unwrap() }));
        assert_eq!(job.await, here);
    });
    stop.send(()).unwrap();
    other.join().unwrap();
}

// --- Cancelled ------------------------------------------------------------------------------------------------------

/// A job that is cancelled while it waits stops waiting, and the loop's thread drops the future.
#[test]
fn a_cancelled_job_waits_no_longer() {
    let _watchdog = watchdog();
    block_on(async {
        let here = thread::current().id();
        for separate in [false, true] {
            for drop_it in [false, true] {
                let (value, dropped) = traced();
                let (future, started) = tells_start(hold(value));
                let (report, reported) = mpsc::channel();
                let call = threaded(move || {
                    let result = LoopHandle::current().sync_wait(future);
                    report.send(matches!(result, Err(SyncWaitError::Cancelled))).unwrap();
                });
                let job = if separate { call.separate().async_call() } else { call.async_call() };
                assert_eq!(started.await, Ok(here));
                if drop_it {
                    drop(job);
                } else {
                    assert!(!job.cancel());
                    job.await;
                }
                assert!(soon(&reported).await, "`sync_wait` did not return `Cancelled`");
                assert_eq!(soon(&dropped).await, here);
            }
        }
        // The first poll of the future makes a value that is not `Send`.
        let (value, dropped) = traced();
        let (future, started) = tells_start(async { spawn(hold(Rc::new(value))).await });
        let job = threaded(|| is_cut_short(|| sync_await(future))).async_call();
        started.await.unwrap();
        turns().await;
        job.cancel();
        assert!(job.await);
        assert_eq!(soon(&dropped).await, here);
    });
}

/// A job that was cancelled before it starts to wait does not wait.
#[test]
fn a_job_cancelled_before_it_waits_does_not_wait() {
    let _watchdog = watchdog();
    block_on(async {
        let (start, started) = oneshot::channel();
        let gate = Gate::default();
        let inside = gate.clone();
        let job = threaded(move || {
            start.send(()).unwrap();
            inside.pass();
            LoopHandle::current().sync_wait(pending::<()>())
        })
        .async_call();
        started.await.unwrap();
        assert!(!job.cancel());
        gate.open();
        assert!(matches!(job.await, Err(SyncWaitError::Cancelled)));
    });
    // The same without a loop.
    let pool = ThreadPool::new(1);
    let (start, started) = mpsc::channel();
    let gate = Gate::default();
    let inside = gate.clone();
    let job = pool.spawn(move || {
        start.send(()).unwrap();
        inside.pass();
        is_cut_short(|| sync_await(pending::<()>()))
    });
    started.recv().unwrap();
    assert!(!job.cancel());
    gate.open();
    assert!(job.wait());
}

/// A cancel that comes as the future ends leaks nothing, and the job stops waiting.
#[test]
fn a_cancel_while_the_future_ends_leaks_nothing() {
    let _watchdog = watchdog();
    let mut event_loop = EventLoop::new();
    for round in 0..100 {
        let living = Living::default();
        let value = living.one();
        let (sender, receiver) = oneshot::channel::<()>();
        let (future, started) = tells_start(async move {
            receiver.await.unwrap();
            drop(value);
        });
        event_loop.block_on(async {
            let job = threaded(|| LoopHandle::current().sync_wait(future)).async_call();
            started.await.unwrap();
            if round % 2 == 0 {
                sender.send(()).unwrap();
                job.cancel();
                assert!(matches!(job.await, Ok(()) | Err(SyncWaitError::Cancelled)));
            } else {
                thread::scope(|scope| {
                    scope.spawn(|| sender.send(()));
                    job.cancel();
                });
                assert!(matches!(job.await, Ok(()) | Err(SyncWaitError::Cancelled)));
            }
            until("the future is gone", || living.count() == 0).await;
        });
    }
}

/// Cancelling a job ends neither the wait of another job nor the wait of a thread without a job.
#[test]
fn cancelling_a_job_does_not_end_other_waits() {
    let _watchdog = watchdog();
    block_on(async {
        let handle = LoopHandle::current();
        let waits = || {
            let (sender, receiver) = oneshot::channel();
            let (future, started) = tells_start(async { receiver.await.unwrap() });
            (sender, future, started)
        };
        let (first, future, first_started) = waits();
        let kept = threaded(|| sync_await(future)).async_call();
        let (_second, future, second_started) = waits();
        let lost = threaded(|| is_cut_short(|| sync_await(future))).async_call();
        let (third, future, third_started) = waits();
        let no_job = thread::spawn(move || handle.sync_wait(future).unwrap());
        for started in [first_started, second_started, third_started] {
            started.await.unwrap();
        }
        lost.cancel();
        assert!(lost.await);
        first.send(1).unwrap();
        third.send(3).unwrap();
        assert_eq!(kept.await, 1);
        until("the thread has stopped waiting", || no_job.is_finished()).await;
        assert_eq!(no_job.join().unwrap(), 3);
    });
}

// --- without a loop -------------------------------------------------------------------------------------------------

/// Without a loop, `sync_await` runs the future on this thread, as `block_on` does.
#[test]
fn without_a_loop_sync_await_is_block_on() {
    let _watchdog = watchdog();
    let check = || {
        let here = thread::current().id();
        assert!(LoopHandle::try_current().is_none());
        let (ran_on, sum) = sync_await(async {
            sleep(MILLI).await;
            let sum = threaded(|| 1).await + spawn(async { 2 }).await;
            (thread::current().id(), sum)
        });
        assert_eq!((ran_on, sum), (here, 3));
        assert_eq!(panic_of(|| sync_await(async { quiet_panic("inside") })), "inside");
        assert!(LoopHandle::try_current().is_none());
    };
    check();
    meanwhile(check);
    ThreadPool::new(1).spawn(check).wait();
    threaded_separate(check).async_call().wait();
}

/// A job without a loop that is cancelled while it waits stops waiting.
#[test]
fn without_a_loop_a_cancelled_job_waits_no_longer() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for drop_it in [false, true] {
        for separate in [false, true] {
            let (value, dropped) = traced();
            let (future, started) = tells_start(hold(value));
            let (report, reported) = mpsc::channel();
            let call = threaded(move || {
                let cut_short = is_cut_short(|| sync_await(future));
                report.send((cut_short, thread::current().id())).unwrap();
            });
            let job = if separate { call.separate().async_call() } else { call.on(&pool).async_call() };
            let ran_on = started.recv_blocking().unwrap();
            if drop_it {
                drop(job);
            } else {
                assert!(!job.cancel());
            }
            let (cut_short, jobs_thread) = reported.recv().unwrap();
            assert!(cut_short);
            assert_eq!((dropped.recv(), ran_on), (Ok(jobs_thread), jobs_thread));
        }
    }
    // A job that was cancelled before does not start to wait, even if the future is ready.
    let (start, started) = oneshot::channel();
    let job = pool.spawn(move || {
        start.send(()).unwrap();
        while !is_cancelled() {
            thread::yield_now();
        }
        sync_await(async {});
    });
    started.recv_blocking().unwrap();
    assert!(!job.cancel());
    assert!(matches!(job.outcome().wait(), Err(JoinError::Cancelled)));
    // The future is still polled when it is woken.
    let mut polls = 0;
    let future = poll_fn(move |cx| {
        polls += 1;
        let waker = cx.waker().clone();
        thread::spawn(move || waker.wake());
        if polls == 20 { std::task::Poll::Ready(polls) } else { std::task::Poll::Pending }
    });
    assert_eq!(pool.spawn(|| sync_await(future)).wait(), 20);
}

// --- errors ---------------------------------------------------------------------------------------------------------

/// The messages of `LoopClosed` and `Panicked` name the reason; that of `WouldDeadlock` says to await instead.
#[test]
fn error_messages_name_the_reason_or_the_remedy() {
    let _watchdog = watchdog();
    let handle = EventLoop::new().handle();
    let closed = handle.sync_wait(ready(1)).unwrap_err();
    let event_loop = EventLoop::new();
    let deadlock = event_loop.handle().sync_wait(ready(1)).unwrap_err();
    assert_says(&closed.to_string(), "loop");
    assert_says(&deadlock.to_string(), "await");
    let boxed: [Box<dyn Error + Send + Sync>; 2] = [closed.into(), deadlock.into()];
    assert_ne!(boxed[0].to_string(), boxed[1].to_string());
    assert!(!format!("{boxed:?}").is_empty());
    let panicked = block_on(async {
        let handle = LoopHandle::current();
        timeout(Duration::MAX, threaded(move || handle.sync_wait(async { quiet_panic("its message") }))).await.unwrap()
    });
    assert_says(&panicked.unwrap_err().to_string(), "its message");
}
