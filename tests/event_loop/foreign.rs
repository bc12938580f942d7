//! Other runtimes: the crate's futures under a foreign executor that only provides a waker; and
//! `LoopHandle::from_spawner`, which makes such an executor the loop.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]
#![allow(clippy::no_effect_underscore_binding, reason = "a captured value is dropped with its closure")]

use crate::helpers::event_loop::*;
use offthread::{
    Context, ContextVar, EventLoop, JoinError, LoopHandle, SyncWaitError, ThreadPool, block_on, gather, oneshot, sleep,
    spawn, spsc, sync_await, threaded, threaded_separate, timeout, yield_now,
};
use std::future::{pending, ready};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// A foreign executor as a loop; the executor ends when this is dropped.
struct ForeignLoop {
    executor: Foreign,
    thread: Option<thread::JoinHandle<()>>,
    handle: LoopHandle,
}

impl ForeignLoop {
    fn start() -> Self {
        let (executor, thread) = Foreign::start();
        let inside = executor.clone();
        let handle = LoopHandle::from_spawner(move |future| inside.spawn(future));
        Self { executor, thread: Some(thread), handle }
    }

    fn id(&self) -> ThreadId {
        self.thread.as_ref().unwrap().thread().id()
    }

    /// Drops all futures of the executor, and waits for its thread. Fails if a panic has ended the executor.
    fn close(&mut self) {
        self.executor.close();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a panic has stopped the executor");
        }
    }
}

impl Drop for ForeignLoop {
    fn drop(&mut self) {
        self.executor.close();
    }
}

// --- under a foreign executor ---------------------------------------------------------------------------------------

/// Jobs, timers, channels and `gather` need only a waker: they work without a loop of this crate.
#[test]
fn everything_works_with_nothing_but_a_waker() {
    let _watchdog = watchdog();
    let (executor, thread) = Foreign::start();
    let pool = ThreadPool::new(1);
    let before = ThreadPool::global().stats().submitted;
    let sum = executor.run_here(async move {
        let mut sum = threaded(|| 1).await + threaded(|| 2).on(&pool).await + threaded_separate(|| 3).await;
        sum += gather([4, 5].map(|number| threaded(move || number))).await.into_iter().sum::<i32>();
        let (a, b) = gather!(threaded(|| 6), ready(7)).await;
        sum += a + b;
        let start = Instant::now();
        sleep(5 * MILLI).await;
        assert!(start.elapsed() >= 5 * MILLI);
        assert!(timeout(MILLI, pending::<()>()).await.is_err());
        assert!(timeout(LONG, threaded(|| ())).await.is_ok());
        yield_now().await;
        let (mut sender, mut receiver) = spsc::channel(1);
        let job = pool.spawn(move || (0..5).try_for_each(|number| sender.send_blocking(number)));
        while let Some(number) = receiver.recv().await {
            sum += number;
        }
        job.await.unwrap();
        let (sender, receiver) = oneshot::channel();
        pool.spawn(|| sender.send(8)).await.unwrap();
        let panicked = threaded(|| quiet_panic("in the job")).async_call().outcome().await;
        assert!(matches!(panicked, Err(JoinError::Panicked(_))));
        sum + receiver.await.unwrap()
    });
    assert_eq!(sum, (1..=8).sum::<i32>() + (0..5).sum::<i32>());
    // The jobs without a given pool.
    assert!(ThreadPool::global().stats().submitted >= before + 6);
    executor.close();
    thread.join().unwrap();
}

/// A foreign executor is no loop by itself: no loop is current, and `spawn` says so.
#[test]
fn a_foreign_executor_is_no_loop() {
    let _watchdog = watchdog();
    let (executor, thread) = Foreign::start();
    executor.run_here(async {
        assert!(LoopHandle::try_current().is_none());
        assert_says(&panic_of(LoopHandle::current), "loop");
        assert_says(&panic_of(|| drop(spawn(ready(1)))), "loop");
        assert!(threaded(|| LoopHandle::try_current().is_none()).await);
        // So `sync_await` in a job runs the future in the job.
        let (job, future) = threaded(|| (thread::current().id(), sync_await(async { thread::current().id() }))).await;
        assert_eq!(job, future);
        // No loop is running, so `block_on` is allowed.
        assert_eq!(block_on(ready(1)), 1);
    });
    executor.close();
    thread.join().unwrap();
}

/// On a foreign executor, a handle of this crate's loop works, and so does a context that contains this loop.
#[test]
fn a_loop_of_this_crate_can_be_used_from_a_foreign_executor() {
    static ID: ContextVar<u32> = ContextVar::new();
    let _watchdog = watchdog();
    let (executor, thread) = Foreign::start();
    block_on(async {
        let here = thread::current().id();
        ID.set(1);
        let (handle, context) = (LoopHandle::current(), Context::current());
        let on_the_foreign = async move {
            let ran_on = handle.spawn(async { thread::current().id() }).await;
            let wrapped = context.wrap(async {
                assert_eq!(ID.set(2), Some(1));
                yield_now().await;
                sleep(MILLI).await;
                assert_eq!(ID.get(), Some(2));
                threaded(|| sync_await(async { thread::current().id() })).await
            });
            let from_job = wrapped.await;
            assert_eq!(ID.get(), None);
            (ran_on, from_job)
        };
        let executor = executor.clone();
        assert_eq!(elsewhere(move || executor.run_here(on_the_foreign)).await, (here, here));
        assert_eq!(ID.get(), Some(1));
    });
    executor.close();
    thread.join().unwrap();
}

// --- from_spawner ---------------------------------------------------------------------------------------------------

/// A task of a foreign loop runs on its executor, and has the foreign loop as the current loop.
#[test]
fn tasks_run_on_the_other_runtime() {
    let _watchdog = watchdog();
    let mut foreign = ForeignLoop::start();
    let there = foreign.id();
    let ran_on = foreign.handle.spawn(async {
        yield_now().await;
        sleep(MILLI).await;
        let inner = LoopHandle::current().spawn(async { thread::current().id() }).await;
        (thread::current().id(), inner)
    });
    assert_eq!(block_on(ran_on), (there, there));
    // Submitted and awaited by a task of the executor.
    let handle = foreign.handle.clone();
    assert_eq!(foreign.executor.run_here(async move { handle.spawn(async { thread::current().id() }).await }), there);
    assert!(!foreign.handle.is_closed());
    foreign.close();
}

/// A task's handle works as on a loop of this crate: value, panic, cancel, detach. A panic does not reach the executor.
#[test]
fn handles_work_as_on_a_loop_of_this_crate() {
    let _watchdog = watchdog();
    let mut foreign = ForeignLoop::start();
    let (there, handle) = (foreign.id(), foreign.handle.clone());
    assert_eq!(block_on(handle.spawn(ready(1)).outcome()).unwrap(), 1);
    assert_eq!(panic_of(|| block_on(handle.spawn(async { quiet_panic("inside") }))), "inside");
    let Err(JoinError::Panicked(panic)) = block_on(handle.spawn(async { quiet_panic("a value") }).outcome()) else {
        panic!("no panic is reported");
    };
    assert_eq!(panic.message(), "a value");

    for drop_it in [false, true] {
        let (value, dropped) = traced();
        let probe = Probe::default();
        let future = probe.future();
        let task = handle.spawn(async move {
            let _value = value;
            future.await;
        });
        block_until("the future was polled", || probe.polls() == 1);
        assert!(!task.is_finished());
        if drop_it {
            drop(task);
            assert_eq!(dropped.recv(), Ok(there));
        } else {
            assert!(task.cancel());
            assert_eq!(dropped.recv(), Ok(there));
            assert!(matches!(block_on(task.outcome()), Err(JoinError::Cancelled)));
        }
        probe.waker().wake();
    }

    let finished = handle.spawn(ready(2));
    block_until("the task has finished", || finished.is_finished());
    assert!(!finished.cancel());
    assert_eq!(block_on(finished), 2);
    let (sender, receiver) = oneshot::channel();
    handle.spawn(async { sender.send(3).unwrap() }).detach();
    assert_eq!(receiver.recv_blocking(), Ok(3));
    foreign.close();
}

/// Callbacks run on the executor, in the order in which the executor got them, and not early. A callback that panics
/// stops neither the executor nor the others.
#[test]
fn calls_run_on_the_other_runtime() {
    let _watchdog = watchdog();
    let mut foreign = ForeignLoop::start();
    let (there, handle) = (foreign.id(), foreign.handle.clone());
    let (sender, order) = mpsc::channel();
    for number in 0..6 {
        let sender = sender.clone();
        handle.call_soon(move || {
            assert!(LoopHandle::try_current().is_some());
            sender.send((number, thread::current().id())).unwrap();
            if number % 2 == 0 {
                quiet_panic("in a call");
            }
        });
    }
    assert!(order.iter().take(6).eq((0..6).map(|number| (number, there))));

    for delay in [Duration::ZERO, MILLI, 5 * MILLI] {
        let start = Instant::now();
        let (sender, called) = mpsc::channel();
        let timer = handle.call_later(delay, move || {
            sender.send((Instant::now(), thread::current().id())).unwrap();
            quiet_panic("in a call");
        });
        let (at, thread) = called.recv().unwrap();
        assert!(at >= start + delay && thread == there);
        assert!(!timer.cancel());
    }
    let calls = Arc::new(AtomicUsize::new(0));
    for delay in [LONG, Duration::MAX] {
        let (count, (value, dropped)) = (Arc::clone(&calls), traced());
        let timer = handle.call_later(delay, move || {
            let _value = value;
            count.fetch_add(1, Ordering::SeqCst);
        });
        assert!(timer.cancel());
        assert!(!timer.cancel());
        dropped.recv().unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0, "a cancelled callback ran");
    foreign.close();
}

/// A thread can wait for a foreign loop as for a loop of this crate: it gets a value, a panic, or a time-out.
#[test]
fn a_thread_can_wait_for_a_foreign_loop() {
    let _watchdog = watchdog();
    let mut foreign = ForeignLoop::start();
    let (there, handle) = (foreign.id(), foreign.handle.clone());
    assert_eq!(handle.sync_wait(async { thread::current().id() }).unwrap(), there);
    assert_eq!(handle.enter(|| sync_await(async { thread::current().id() })), there);
    assert_eq!(panic_of(|| handle.enter(|| sync_await(async { quiet_panic("inside") }))), "inside");
    assert!(matches!(handle.sync_wait(async { quiet_panic("a value") }), Err(SyncWaitError::Panicked(_))));
    let (value, dropped) = traced();
    assert!(handle.sync_wait(timeout(MILLI, hold(value))).unwrap().is_err());
    assert_eq!(dropped.try_recv(), Ok(there));
    // A job that was started from one of its tasks, and a job of that job.
    let from_job = handle.spawn(async {
        let job = threaded(|| sync_await(async { thread::current().id() })).await;
        let inner = threaded(|| threaded(|| sync_await(async { thread::current().id() })).async_call().wait()).await;
        (job, inner)
    });
    assert_eq!(block_on(from_job), (there, there));
    foreign.close();
}

/// A job that is cancelled while it waits for a foreign loop stops waiting; the executor drops the future.
#[test]
fn a_cancelled_job_stops_waiting_for_a_foreign_loop() {
    let _watchdog = watchdog();
    let mut foreign = ForeignLoop::start();
    let pool = ThreadPool::new(1);
    for drop_it in [false, true] {
        let (value, dropped) = traced();
        let (start, started) = mpsc::channel();
        let (report, reported) = mpsc::channel();
        let handle = foreign.handle.clone();
        let job = pool.spawn(move || {
            let result = handle.sync_wait(async move {
                start.send(()).unwrap();
                hold(value).await;
            });
            report.send(matches!(result, Err(SyncWaitError::Cancelled))).unwrap();
        });
        started.recv().unwrap();
        if drop_it {
            drop(job);
        } else {
            assert!(!job.cancel());
        }
        assert_eq!(reported.recv(), Ok(true));
        assert_eq!(dropped.recv(), Ok(foreign.id()));
    }
    foreign.close();
}

/// If the runtime drops a future, waiters get `LoopClosed`, and a task is cancelled.
#[test]
fn a_future_that_the_runtime_drops_is_cancelled_and_its_waiters_get_loop_closed() {
    let _watchdog = watchdog();
    // At once.
    let handle = LoopHandle::from_spawner(drop);
    let living = Living::default();
    let [wait, task, detached, soon, later] = [(); 5].map(|()| living.one());
    assert!(matches!(handle.sync_wait(hold(wait)), Err(SyncWaitError::LoopClosed)));
    assert_says(&panic_of(|| handle.enter(|| sync_await(ready(1)))), "loop");
    let task = handle.spawn(hold(task));
    assert!(task.is_finished() && !task.cancel());
    assert!(matches!(block_on(task.outcome()), Err(JoinError::Cancelled)));
    handle.spawn(hold(detached)).detach();
    handle.call_soon(move || panic!("{soon:?} ran"));
    drop(handle.call_later(Duration::ZERO, move || panic!("{later:?} ran")));
    assert_eq!(living.count(), 0);

    // Later on, polled or not.
    for polled in [false, true] {
        let mut foreign = ForeignLoop::start();
        let gate = Gate::default();
        let inside = gate.clone();
        if !polled {
            // Keeps the executor from polling anything else before its end.
            foreign.handle.call_soon(move || inside.pass());
        }
        let probe = Probe::default();
        let (future, task, value) = (probe.future(), foreign.handle.spawn(hold(living.one())), living.one());
        let handle = foreign.handle.clone();
        let other = thread::spawn(move || {
            let future = async move {
                let _value = value;
                future.await;
            };
            matches!(handle.sync_wait(future), Err(SyncWaitError::LoopClosed))
        });
        if polled {
            block_until("the future was polled", || probe.polls() == 1);
        }
        foreign.executor.close();
        gate.open();
        assert!(other.join().unwrap());
        foreign.close();
        assert!(matches!(block_on(task.outcome()), Err(JoinError::Cancelled)));
        assert_eq!((probe.polls(), living.count()), (usize::from(polled), 0));
    }
}

/// A task of a foreign loop that waits for its own loop gets `WouldDeadlock`.
#[test]
fn sync_wait_on_the_runtimes_own_thread_would_deadlock() {
    let _watchdog = watchdog();
    let mut foreign = ForeignLoop::start();
    let task = foreign.handle.spawn(async { LoopHandle::current().sync_wait(ready(1)) });
    assert!(matches!(block_on(task), Err(SyncWaitError::WouldDeadlock)));
    foreign.close();
}

/// No lock is held while the spawner runs: the spawner may poll the future, start a loop, or submit to another loop.
#[test]
fn a_spawner_may_poll_start_a_loop_or_submit_to_another_loop() {
    let _watchdog = watchdog();
    // Polls to the end in the call.
    let inline = LoopHandle::from_spawner(block_on);
    let task = inline.spawn(async {
        yield_now().await;
        1
    });
    assert!(task.is_finished());
    assert_eq!(block_on(task), 1);
    // A spawner that runs each future in a loop on a new thread. The current loop is still the foreign loop.
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let threads = LoopHandle::from_spawner(move |future| {
        counter.fetch_add(1, Ordering::SeqCst);
        thread::spawn(move || block_on(future));
    });
    assert_eq!(threads.sync_wait(async { threaded(|| sync_await(async { 2 })).await }).unwrap(), 2);
    assert_eq!(count.load(Ordering::SeqCst), 2, "the inner task went to another loop");
    // A spawner that submits to a loop of this crate.
    let mut event_loop = EventLoop::new();
    let handle = event_loop.handle();
    let onwards = LoopHandle::from_spawner(move |future| handle.spawn(future).detach());
    let here = thread::current().id();
    let other = onwards.clone();
    let job = threaded(move || other.sync_wait(async { thread::current().id() }).unwrap());
    assert_eq!(event_loop.block_on(job), here);
    drop(event_loop);
    assert!(matches!(meanwhile(|| onwards.sync_wait(ready(1))), Err(SyncWaitError::LoopClosed)));
}

/// Jobs go to the foreign loop's default pool, if one was set.
#[test]
fn a_foreign_loop_may_have_a_default_pool() {
    let _watchdog = watchdog();
    let mut foreign = ForeignLoop::start();
    let pool = ThreadPool::builder().threads(1).name("of-the-foreign").build();
    let name = || thread::current().name().unwrap_or_default().to_owned();
    let in_task = || block_on(foreign.handle.spawn(async move { threaded(name).await }));
    assert!(!in_task().contains("of-the-foreign"));
    foreign.handle.set_default_pool(pool.clone());
    assert_says(&in_task(), "of-the-foreign");
    assert_says(&foreign.handle.enter(|| threaded(name).async_call().wait()), "of-the-foreign");
    foreign.close();
}

/// Neither the spawner nor a future is leaked.
#[test]
fn nothing_is_left_of_a_foreign_loop() {
    let _watchdog = watchdog();
    let living = Living::default();
    let mut foreign = ForeignLoop::start();
    let (executor, kept) = (foreign.executor.clone(), living.one());
    let handle = LoopHandle::from_spawner(move |future| {
        let _kept = &kept;
        executor.spawn(future);
    });
    let value = living.one();
    block_on(handle.spawn(async move { drop(value) }));
    let value = living.one();
    handle.sync_wait(async move { drop(value) }).unwrap();
    let value = living.one();
    handle.call_soon(move || drop(value));
    let value = living.one();
    assert!(handle.call_later(LONG, move || drop(value)).cancel());
    drop(handle.spawn(hold(living.one())));
    drop(handle);
    foreign.close();
    assert_eq!(living.count(), 0);
}
