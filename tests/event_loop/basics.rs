//! The event loop: `block_on`, `EventLoop`, tasks and their handles, `call_soon`, the current loop and its default
//! pool.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]
#![allow(clippy::async_yields_async, reason = "a test often returns a handle from its future")]
#![allow(clippy::no_effect_underscore_binding, reason = "a captured value is dropped with its closure")]
#![allow(clippy::waker_clone_wake, reason = "each way to wake is tried")]

use crate::helpers::event_loop::*;
use crate::helpers::pool::Threads;
use offthread::{
    EventLoop, JoinError, LoopHandle, Task, ThreadPool, block_on, oneshot, sleep, spawn, threaded, threaded_separate,
    timeout, yield_now,
};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::{Future, IntoFuture, Ready, pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// The id of the loop's thread, returned by a task on that loop.
fn thread_of(handle: &LoopHandle) -> impl Future<Output = ThreadId> + use<> {
    handle.spawn(async { thread::current().id() })
}

fn own_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

fn named_pool(name: &str) -> ThreadPool {
    ThreadPool::builder().threads(1).name(name).build()
}

fn is_cancelled_error<R>(outcome: &Result<R, JoinError>) -> bool {
    matches!(outcome, Err(JoinError::Cancelled))
}

// --- block_on -------------------------------------------------------------------------------------------------------

/// `into_future` is called while the loop is current.
#[test]
fn into_future_is_called_with_the_loop_current() {
    struct Asks;
    impl IntoFuture for Asks {
        type Output = bool;
        type IntoFuture = Ready<bool>;
        fn into_future(self) -> Ready<bool> {
            ready(LoopHandle::try_current().is_some_and(|handle| !handle.is_closed()))
        }
    }
    let _watchdog = watchdog();
    assert!(block_on(Asks));
    assert!(EventLoop::new().block_on(Asks));
    assert!(LoopHandle::try_current().is_none(), "the loop is still current");
    // Because the loop is current, `threaded` finds the loop's pool.
    let mut own = EventLoop::builder().pool(named_pool("the-loops-own")).build();
    assert_says(&own.block_on(threaded(own_name)), "the-loops-own");
}

/// A task that is left over at the end is not polled again. Its future is dropped on this thread before `block_on`
/// returns.
#[test]
fn left_over_tasks_are_dropped_at_the_end_on_this_thread() {
    let _watchdog = watchdog();
    let [(never_polled, a), (waiting, b), (handled, c), (from_outside, d)] = [(); 4].map(|()| traced());
    let local = Rc::new(());
    let kept = block_on(async {
        spawn(hold((waiting, Rc::clone(&local)))).detach();
        turns().await;
        elsewhere({
            let handle = LoopHandle::current();
            move || handle.spawn(hold(from_outside)).detach()
        })
        .await;
        spawn(hold((never_polled, Rc::clone(&local)))).detach();
        spawn(hold(handled))
    });
    for dropped in [a, b, c, d] {
        assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
        assert!(dropped.try_recv().is_err());
    }
    assert_eq!(Rc::strong_count(&local), 1);
    assert!(is_cancelled_error(&block_on(kept.outcome())));
}

/// A panic of the main future drops all tasks, and closes the loop.
#[test]
fn a_panic_of_the_main_future_drops_the_tasks_too() {
    let _watchdog = watchdog();
    let (waiting, dropped) = traced();
    let handle = RefCell::new(None);
    let message = panic_of(|| {
        block_on(async {
            spawn(hold(waiting)).detach();
            handle.replace(Some(LoopHandle::current()));
            yield_now().await;
            quiet_panic("the main one");
        });
    });
    assert_eq!(message, "the main one");
    assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
    assert!(handle.into_inner().unwrap().is_closed());
    assert_eq!(block_on(async { spawn(ready(1)).await }), 1);
}

/// The `Drop` of a left-over task may submit to the loop; nothing that it submits is leaked.
#[test]
fn a_left_over_tasks_drop_may_use_the_loop() {
    let _watchdog = watchdog();
    let living = Living::default();
    block_on(async {
        let handle = LoopHandle::current();
        for _ in 0..3 {
            let (handle, value) = (handle.clone(), living.one());
            spawn(hold(on_drop(move || {
                let [soon, later, task] = [(); 3].map(|()| Arc::clone(&value));
                handle.call_soon(move || drop(soon));
                handle.call_later(MILLI, move || drop(later)).cancel();
                drop(handle.spawn(hold(Arc::clone(&task))));
                handle.spawn(hold(task)).detach();
            })))
            .detach();
        }
        turns().await;
        assert_eq!(living.count(), 3);
    });
    assert_eq!(living.count(), 0);
}

/// Each `block_on` has its own loop, which is closed when the call returns.
#[test]
fn the_loop_of_block_on_is_fresh() {
    let _watchdog = watchdog();
    let first = block_on(async { LoopHandle::current() });
    assert!(first.is_closed());
    block_on(async {
        assert!(first.is_closed() && !LoopHandle::current().is_closed());
        let (value, dropped) = traced();
        first.call_soon(move || drop(value));
        // The closed loop drops the callback in `call_soon` itself.
        assert!(dropped.try_recv().is_ok());
    });
}

/// `block_on` inside a running loop panics with the advice to await instead, and the loop goes on.
#[test]
fn block_on_inside_a_running_loop_panics() {
    let _watchdog = watchdog();
    let nested = || {
        let (value, dropped) = traced();
        assert_says(&panic_of(|| block_on(async move { drop(value) })), "await");
        assert!(dropped.try_recv().is_ok());
        assert_says(&panic_of(|| EventLoop::new().block_on(ready(()))), "await");
        // Also in a function that `sync_call` runs on this thread.
        assert_says(&panic_of(|| threaded(|| block_on(ready(()))).sync_call()), "await");
    };
    block_on(async move {
        nested();
        spawn(async move { nested() }).await;
        let (sender, receiver) = oneshot::channel();
        LoopHandle::current().call_soon(move || {
            nested();
            sender.send(()).unwrap();
        });
        receiver.await.unwrap();
        let (sender, receiver) = oneshot::channel();
        LoopHandle::current().call_later(MILLI, move || {
            nested();
            sender.send(()).unwrap();
        });
        receiver.await.unwrap();
        assert_eq!(spawn(ready(1)).await, 1);
    });
    // `block_on` is allowed again when the loop has ended.
    assert_eq!(block_on(ready(1)), 1);
}

/// A job may call `block_on`, wherever the job was started and wherever it runs; that call has its own loop.
#[test]
fn block_on_is_allowed_in_a_job() {
    fn nested() -> i32 {
        let before = LoopHandle::try_current();
        let inner = block_on(async {
            yield_now().await;
            assert_eq!(thread_of(&LoopHandle::current()).await, thread::current().id());
            LoopHandle::current()
        });
        assert!(inner.is_closed());
        assert_eq!(before.is_some(), LoopHandle::try_current().is_some());
        assert!(!before.is_some_and(|before| before.is_closed()));
        1
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    assert_eq!(pool.spawn(nested).wait(), 1);
    block_on(async {
        assert_eq!(threaded(nested).await, 1);
        assert_eq!(threaded_separate(nested).await, 1);
        assert_eq!(pool.spawn(nested).await, 1);
    });
    // In a pool of one thread, `wait` runs the job inline, inside the outer job's loop.
    let inner = pool.clone();
    assert_eq!(pool.spawn(move || block_on(async move { inner.spawn(nested).wait() })).wait(), 1);
}

/// Tasks that are always ready do not keep the main future from ending.
#[test]
fn ready_tasks_do_not_starve_the_main_future() {
    async fn spins() {
        loop {
            yield_now().await;
        }
    }
    fn breeds() {
        spawn(async { breeds() }).detach();
    }
    let _watchdog = watchdog();
    block_on(async {
        for _ in 0..3 {
            spawn(spins()).detach();
            breeds();
        }
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!(threaded(|| 1).await, 1);
        sleep(MILLI).await;
    });
}

/// A wake-up of a task polls that task and no other, and does not poll the main future.
#[test]
fn each_wake_up_polls_its_own_task() {
    let _watchdog = watchdog();
    let probe = Probe::default();
    let other = Probe::default();
    let mut polls = 0;
    let mut body = pin!(async {
        let task = spawn(probe.future());
        spawn(other.future()).detach();
        turns().await;
        for round in 1..10 {
            assert_eq!((probe.polls(), other.polls()), (round, 1));
            probe.waker().wake();
            turns().await;
        }
        probe.make_ready();
        probe.waker().wake();
        task.await;
    });
    block_on(poll_fn(|cx| {
        polls += 1;
        body.as_mut().poll(cx)
    }));
    // Five polls in each call of `turns`, the first poll, and at most one for the task's end.
    assert!(polls <= 52, "{polls} polls");
    assert_eq!(other.polls(), 1);
}

// --- EventLoop ------------------------------------------------------------------------------------------------------

/// Between two calls of `EventLoop::block_on`, tasks are neither dropped nor polled.
#[test]
fn tasks_live_on_until_the_next_call() {
    let _watchdog = watchdog();
    let mut event_loop = EventLoop::new();
    let log = Log::default();
    let (sender, receiver) = oneshot::channel();
    let inside = log.clone();
    let task = event_loop.block_on(async {
        spawn(async move {
            inside.add("started");
            inside.add(receiver.await.unwrap());
            yield_now().await;
            inside.add("goes on");
            "ended"
        })
    });
    event_loop.block_on(turns());
    assert_eq!(log.take(), ["started"]);
    sender.send("sent").unwrap();
    assert_eq!(log.len(), 0, "a task ran between the calls");
    assert!(!task.is_finished());
    assert_eq!(event_loop.block_on(task), "ended");
    assert_eq!(log.take(), ["sent", "goes on"]);
    assert!(!event_loop.handle().is_closed());
}

/// Code that is submitted between two calls runs in the next call, whichever thread submits it.
#[test]
fn code_submitted_between_two_calls_runs_in_the_next() {
    let _watchdog = watchdog();
    let mut event_loop = EventLoop::new();
    let handle = event_loop.handle();
    for from_another_thread in [false, true, true] {
        let (sender, order) = mpsc::channel();
        let submit = || {
            let [first, second, third] = [(); 3].map(|()| sender.clone());
            handle.call_soon(move || first.send("soon").unwrap());
            handle.spawn(async move { second.send("task").unwrap() }).detach();
            handle.call_later(Duration::ZERO, move || third.send("later").unwrap());
        };
        if from_another_thread {
            meanwhile(submit);
        } else {
            submit();
        }
        assert!(order.try_recv().is_err());
        let mut seen = event_loop.block_on(async { [soon(&order).await, soon(&order).await, soon(&order).await] });
        seen.sort_unstable();
        assert_eq!(seen, ["later", "soon", "task"]);
    }
}

/// Dropping the loop drops its tasks and callbacks at once, on this thread, and runs none of them.
#[test]
fn dropping_the_loop_drops_its_tasks_and_callbacks() {
    let _watchdog = watchdog();
    let mut event_loop = EventLoop::new();
    let handle = event_loop.handle();
    let calls = Arc::new(AtomicUsize::new(0));
    let never = |value: Traced| {
        let calls = Arc::clone(&calls);
        move || {
            let _value = value;
            calls.fetch_add(1, Ordering::SeqCst);
        }
    };
    let (values, dropped): (Vec<_>, Vec<_>) = (0..5).map(|_| traced()).unzip();
    let mut values = values.into_iter();
    let mut value = || values.next().unwrap();
    let waiting = value();
    event_loop.block_on(async {
        spawn(hold(waiting)).detach();
        turns().await;
    });
    let far = handle.call_later(LONG, never(value()));
    meanwhile(|| handle.call_soon(never(value())));
    let task = meanwhile(|| handle.spawn(hold(value())));
    handle.spawn(hold(value())).detach();
    assert!(dropped.iter().all(|dropped| dropped.try_recv().is_err()));
    drop(event_loop);
    for dropped in &dropped {
        assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0, "a callback ran");
    assert!(handle.is_closed() && task.is_finished());
    assert!(!task.cancel());
    assert!(!far.cancel());
    assert!(is_cancelled_error(&block_on(task.outcome())));
}

/// A closed loop accepts nothing: a task is cancelled, and a callback is dropped without a call.
#[test]
fn a_closed_loop_refuses_everything() {
    let _watchdog = watchdog();
    let handle = EventLoop::new().handle();
    assert!(handle.is_closed());
    for on_another_thread in [false, true] {
        let check = || {
            let living = Living::default();
            let [soon, later, task, detached, dropped] = [(); 5].map(|()| living.one());
            let calls = Arc::new(AtomicUsize::new(0));
            let call = |value: Arc<()>| {
                let calls = Arc::clone(&calls);
                move || {
                    calls.fetch_add(1, Ordering::SeqCst);
                    drop(value);
                }
            };
            handle.call_soon(call(soon));
            assert!(!handle.call_later(Duration::ZERO, call(later)).cancel());
            let task = handle.spawn(hold(task));
            handle.spawn(hold(detached)).detach();
            drop(handle.spawn(hold(dropped)));
            assert_eq!(living.count(), 0);
            assert_eq!(calls.load(Ordering::SeqCst), 0, "a callback ran");
            assert!(task.is_finished() && !task.cancel());
            assert!(is_cancelled_error(&block_on(task.outcome())));
        };
        if on_another_thread { meanwhile(check) } else { check() }
    }
}

/// The loop can be used again after a panic of the main future.
#[test]
fn a_loop_survives_the_panic_of_a_main_future() {
    let _watchdog = watchdog();
    let mut event_loop = EventLoop::new();
    let task = event_loop.block_on(async { spawn(threaded(|| 5).into_future()) });
    for _ in 0..3 {
        let message = panic_of(|| event_loop.block_on(async { quiet_panic("inside") }));
        assert_eq!(message, "inside");
        assert!(LoopHandle::try_current().is_none());
    }
    assert_eq!(event_loop.block_on(task), 5);
}

/// Two loops of one thread, used in turn, do not run each other's tasks.
#[test]
fn two_loops_of_one_thread_do_not_run_each_others_tasks() {
    let _watchdog = watchdog();
    let (mut first, mut second) = (EventLoop::new(), EventLoop::new());
    let log = Log::default();
    for (event_loop, name) in [(&mut first, "first"), (&mut second, "second")] {
        let log = log.clone();
        event_loop.block_on(async {
            spawn(async move {
                loop {
                    yield_now().await;
                    log.add(name);
                }
            })
            .detach();
        });
    }
    for _ in 0..3 {
        log.take();
        first.block_on(turns());
        assert!(log.len() > 0 && log.take().iter().all(|name| *name == "first"));
        second.block_on(turns());
        assert!(log.len() > 0 && log.take().iter().all(|name| *name == "second"));
    }
    drop(first);
    second.block_on(turns());
    assert!(log.len() > 0);
}

// --- tasks ----------------------------------------------------------------------------------------------------------

/// Neither the future nor its result need be `Send`; `spawn` does not poll the future in the call.
#[test]
fn a_task_may_be_local() {
    let _watchdog = watchdog();
    let seen = block_on(async {
        let local = Rc::new(Cell::new(0));
        let inside = Rc::clone(&local);
        let task = spawn(async move {
            inside.set(1);
            yield_now().await;
            inside.set(2);
            inside
        });
        assert_eq!(local.get(), 0, "polled in the call");
        let result = task.await;
        assert!(Rc::ptr_eq(&result, &local));
        result.get()
    });
    assert_eq!(seen, 2);
}

/// The outcome distinguishes a value, a panic and a cancellation.
#[test]
fn the_outcome_tells_a_value_from_a_panic_and_a_cancellation() {
    let _watchdog = watchdog();
    block_on(async {
        assert_eq!(spawn(async { "value" }).outcome().await.unwrap(), "value");
        let Err(JoinError::Panicked(panic)) = spawn(async { quiet_panic("payload") }).outcome().await else {
            panic!("no panic is reported");
        };
        assert_eq!(panic.message(), "payload");
        assert_eq!(panic.into_payload().downcast_ref(), Some(&"payload"));
        let task = spawn(pending::<()>());
        assert!(task.cancel());
        assert!(is_cancelled_error(&task.outcome().await));
        // The same when the handle itself is awaited.
        assert_eq!(panic_in(spawn(async { quiet_panic("resumed") })).await, "resumed");
        let task = spawn(pending::<()>());
        assert!(task.cancel());
        assert_says(&panic_in(task).await, "cancel");
    });
}

/// A panic ends its own task only, whether or not the handle is awaited.
#[test]
fn a_task_that_panics_does_not_stop_the_loop() {
    let _watchdog = watchdog();
    block_on(async {
        let other = spawn(async {
            turns().await;
            1
        });
        for round in 0..3 {
            let (value, dropped) = traced();
            let task = spawn(async move {
                let _value = value;
                if round > 0 {
                    yield_now().await;
                }
                quiet_panic("inside")
            });
            if round == 2 {
                task.detach();
            } else {
                assert_eq!(panic_in(task).await, "inside");
            }
            assert_eq!(soon(&dropped).await, thread::current().id());
        }
        assert_eq!(other.await, 1);
        assert_eq!(spawn(ready(2)).await, 2);
    });
}

/// A panic in the `Drop` of a result, of a payload, or of a future does not end the loop.
#[test]
fn a_drop_that_panics_does_not_stop_the_loop() {
    let _watchdog = watchdog();
    let bomb = || on_drop(|| quiet_panic("a bomb"));
    block_on(async {
        spawn(async move { bomb() }).detach();
        spawn(async { std::panic::resume_unwind(Box::new(on_drop(|| quiet_panic("a bomb")))) }).detach();
        // Owned by the future, so that the unwinding poll does not drop it.
        let held = bomb();
        spawn(poll_fn(move |_| -> Poll<()> {
            let _held = &held;
            quiet_panic("first this");
        }))
        .detach();
        // The panic may come out of the call that drops the task.
        let task = spawn(hold(bomb()));
        turns().await;
        let _ = catch_unwind(AssertUnwindSafe(|| drop(task)));
        let task = spawn(hold(bomb()));
        turns().await;
        elsewhere(move || drop(task)).await;
        turns().await;
        assert_eq!(spawn(ready(1)).await, 1);
    });
    assert_eq!(block_on(ready(1)), 1);
}

/// Dropping the handle drops the future in the call, and the future is never polled again.
#[test]
fn dropping_a_task_drops_its_future() {
    let _watchdog = watchdog();
    block_on(async {
        for polled in [false, true] {
            let (value, dropped) = traced();
            let probe = Probe::default();
            let task = spawn({
                let future = probe.future();
                async move {
                    let _value = value;
                    future.await;
                }
            });
            if polled {
                turns().await;
            }
            let waker = polled.then(|| probe.waker());
            let polls = probe.polls();
            drop(task);
            assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
            waker.inspect(std::task::Waker::wake_by_ref);
            turns().await;
            assert_eq!(probe.polls(), polls);
        }
        // The same if the handle is dropped with the future that owns it.
        let (value, dropped) = traced();
        assert!(timeout(MILLI, spawn(hold(value))).await.is_err());
        assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
        let (value, dropped) = traced();
        drop(spawn(hold(value)).outcome());
        assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
        // A task in a task.
        let (value, dropped) = traced();
        let outer = spawn(async { spawn(hold(value)).await });
        turns().await;
        drop(outer);
        assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
    });
}

/// A detached task runs to its end.
#[test]
fn a_detached_task_runs_on() {
    let _watchdog = watchdog();
    block_on(async {
        let (sender, receiver) = oneshot::channel();
        spawn(async {
            turns().await;
            sender.send("done").unwrap();
        })
        .detach();
        assert_eq!(receiver.await, Ok("done"));
        let (sender, receiver) = oneshot::channel();
        elsewhere({
            let handle = LoopHandle::current();
            move || handle.spawn(async { sender.send("done").unwrap() }).detach()
        })
        .await;
        assert_eq!(receiver.await, Ok("done"));
    });
}

/// `cancel` returns false for a task that has finished, and does not drop the result.
#[test]
fn a_finished_task_cannot_be_cancelled() {
    let _watchdog = watchdog();
    block_on(async {
        let task = spawn(async { 1 });
        assert!(!task.is_finished());
        until("the task has finished", || task.is_finished()).await;
        assert!(!task.cancel());
        assert!(task.is_finished());
        assert_eq!(task.await, 1);
        let task = spawn(async { quiet_panic("too late") });
        until("the task has finished", || task.is_finished()).await;
        assert!(!task.cancel());
        assert_eq!(panic_in(task).await, "too late");
        // A task that can be cancelled.
        let task = spawn(pending::<()>());
        turns().await;
        assert!(!task.is_finished());
        assert!(task.cancel());
        until("the task has finished", || task.is_finished()).await;
        assert!(!task.cancel());
    });
}

/// A future that is not `Send` is dropped on the loop's thread, even if another thread cancels it.
#[test]
fn a_future_stays_on_the_loops_thread() {
    let _watchdog = watchdog();
    block_on(async {
        let here = thread::current().id();
        for polled in [false, true] {
            for end in 0..4 {
                let (value, dropped) = traced();
                let local = Rc::new(value);
                let task: Task<i32> = spawn(async move {
                    pending::<()>().await;
                    drop(local);
                    1
                });
                if polled {
                    turns().await;
                }
                let outcome = elsewhere(move || match end {
                    0 => {
                        assert!(task.cancel());
                        Some(block_on(task.outcome()))
                    }
                    1 => {
                        drop(task);
                        None
                    }
                    2 => {
                        drop(task.outcome());
                        None
                    }
                    _ => {
                        assert!(block_on(timeout(Duration::ZERO, task)).is_err());
                        None
                    }
                })
                .await;
                assert!(outcome.is_none_or(|outcome| is_cancelled_error(&outcome)));
                assert_eq!(soon(&dropped).await, here);
            }
        }
    });
}

/// If another thread cancels a task or drops its handle while the loop does not run, the future is dropped on the
/// loop's thread, and is not polled again.
#[test]
fn a_cancelled_task_is_not_polled_again() {
    let _watchdog = watchdog();
    block_on(async {
        for cancel in [false, true] {
            let probe = Probe::default();
            let (value, dropped) = traced();
            let future = probe.future();
            let task = spawn(async move {
                let _value = value;
                future.await;
            });
            turns().await;
            assert_eq!(probe.polls(), 1);
            // Woken and then cancelled before the loop's next turn.
            let waker = probe.waker();
            let task = meanwhile(move || {
                waker.wake();
                if cancel {
                    assert!(task.cancel());
                    return Some(task);
                }
                drop(task);
                None
            });
            assert!(dropped.try_recv().is_err(), "dropped on the wrong thread");
            assert_eq!(soon(&dropped).await, thread::current().id());
            turns().await;
            assert_eq!(probe.polls(), 1, "polled again");
            if let Some(task) = task {
                assert!(is_cancelled_error(&task.outcome().await));
            }
        }
    });
}

/// A task that drops or cancels itself is dropped after the poll, not during it.
#[test]
fn a_task_may_cancel_itself() {
    let _watchdog = watchdog();
    block_on(async {
        for cancel in [false, true] {
            let own: Rc<RefCell<Option<Task<()>>>> = Rc::default();
            let (value, dropped) = traced();
            let inside = Rc::clone(&own);
            let polls = Rc::new(Cell::new(0));
            let counter = Rc::clone(&polls);
            let task = spawn(async move {
                let value = value;
                if cancel {
                    assert!(inside.borrow().as_ref().unwrap().cancel());
                } else {
                    drop(inside.take());
                }
                counter.set(counter.get() + 1);
                yield_now().await;
                counter.set(counter.get() + 1);
                drop(value);
            });
            own.replace(Some(task));
            assert_eq!(soon(&dropped).await, thread::current().id());
            turns().await;
            assert_eq!(polls.get(), 1, "the task was polled again");
            let rest = own.take();
            assert_eq!(rest.is_some(), cancel);
            if let Some(task) = rest {
                assert!(is_cancelled_error(&task.outcome().await));
            }
        }
    });
}

/// A future's `Drop` may wake, drop and spawn tasks of the loop: no lock is held while it runs.
#[test]
fn a_futures_drop_may_use_the_loop() {
    let _watchdog = watchdog();
    block_on(async {
        let probe = Probe::default();
        let woken = spawn(probe.future());
        turns().await;
        let other = spawn(pending::<()>());
        let (sender, receiver) = oneshot::channel();
        let (waker, ran) = (probe.waker(), Rc::new(Cell::new(false)));
        probe.make_ready();
        let inside = Rc::clone(&ran);
        let task = spawn(hold(on_drop(move || {
            waker.wake();
            drop(other);
            spawn(async move { inside.set(true) }).detach();
            LoopHandle::current().call_soon(|| sender.send("soon").unwrap());
        })));
        turns().await;
        drop(task);
        woken.await;
        assert_eq!(receiver.await, Ok("soon"));
        until("the task has run", || ran.get()).await;
    });
}

/// A task's handle can be awaited on a loop of another thread.
#[test]
fn a_task_can_be_awaited_on_another_loop() {
    let _watchdog = watchdog();
    block_on(async {
        let handle = LoopHandle::current();
        for round in 0..50 {
            let (sender, receiver) = oneshot::channel();
            let task = spawn(async move { receiver.await.unwrap() + 1 });
            if round % 2 == 0 {
                turns().await;
            }
            let handle = handle.clone();
            let result = elsewhere(move || {
                block_on(async {
                    let other = handle.spawn(async move { sender.send(round).unwrap() });
                    let sum = task.await;
                    other.await;
                    sum
                })
            });
            assert_eq!(result.await, round + 1);
        }
    });
}

// --- waking ---------------------------------------------------------------------------------------------------------

/// A task that is woken several times before a poll is polled once.
#[test]
fn waking_twice_polls_once() {
    let _watchdog = watchdog();
    block_on(async {
        let probe = Probe::default();
        let task = spawn(probe.future());
        turns().await;
        for round in 1..20 {
            assert_eq!(probe.polls(), round);
            let waker = probe.waker();
            let wake = || {
                waker.wake_by_ref();
                waker.clone().wake();
                waker.wake_by_ref();
            };
            match round % 3 {
                0 => wake(),
                1 => meanwhile(wake),
                _ => {
                    wake();
                    meanwhile(wake);
                    wake();
                }
            }
            turns().await;
        }
        drop(task);
    });
}

/// Tasks are polled in the order of their wakes, even if some queued tasks are dropped before their turn.
#[test]
fn many_tasks_are_polled_in_the_order_of_their_wakes() {
    const TASKS: usize = 5000;
    let _watchdog = watchdog();
    let polled = Rc::new(RefCell::new(Vec::new()));
    // Consecutive wakes go to tasks with distant numbers.
    let order: Vec<_> = (0..TASKS).map(|at| at * 1777 % TASKS).collect();
    block_on(async {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..TASKS).map(|_| oneshot::channel()).unzip();
        let mut tasks: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(task, receiver)| {
                let polled = polled.clone();
                Some(spawn(async move {
                    receiver.await.unwrap();
                    polled.borrow_mut().push(task);
                }))
            })
            .collect();
        yield_now().await;
        let mut senders: Vec<_> = senders.into_iter().map(Some).collect();
        for task in &order {
            senders[*task].take().unwrap().send(()).unwrap();
        }
        for task in order.iter().step_by(3) {
            tasks[*task] = None;
        }
        for task in tasks.into_iter().flatten() {
            task.await;
        }
    });
    let wanted: Vec<_> = order.into_iter().enumerate().filter(|(at, _)| at % 3 != 0).map(|(_, task)| task).collect();
    assert_eq!(*polled.borrow(), wanted);
}

/// A wake-up during the task's own poll, by this thread or by another, is not lost.
#[test]
fn a_wake_up_during_the_tasks_own_poll_is_not_lost() {
    let _watchdog = watchdog();
    block_on(async {
        for from_elsewhere in [false, true] {
            let mut polls = 0;
            let task = spawn(poll_fn(move |cx| {
                polls += 1;
                if polls == 100 {
                    return Poll::Ready(polls);
                }
                let waker = cx.waker().clone();
                if from_elsewhere {
                    meanwhile(|| waker.wake());
                } else {
                    waker.wake();
                }
                Poll::Pending
            }));
            assert_eq!(task.await, 100);
        }
    });
}

/// A wake-up is not lost if it comes between the loop's last check and its sleep.
#[test]
fn a_wake_up_while_the_loop_goes_to_sleep_is_not_lost() {
    let _watchdog = watchdog();
    let (requests, take) = mpsc::channel::<oneshot::Sender<usize>>();
    let other = thread::spawn(move || {
        for (round, sender) in take.into_iter().enumerate() {
            // The wake comes a little later from round to round; every 50 rounds the delay starts again at zero.
            (0..round % 50).for_each(|_| std::hint::spin_loop());
            sender.send(round).unwrap();
        }
    });
    let mut event_loop = EventLoop::new();
    for round in 0..2000 {
        let (sender, receiver) = oneshot::channel();
        requests.send(sender).unwrap();
        let received = if round % 2 == 0 {
            event_loop.block_on(receiver)
        } else {
            event_loop.block_on(async { spawn(receiver).await })
        };
        assert_eq!(received, Ok(round));
    }
    drop(requests);
    other.join().unwrap();
}

/// A task's poll may consume the thread's park token, and the wake-up that came with the token is not lost.
#[test]
fn a_task_may_consume_the_park_token() {
    let _watchdog = watchdog();
    block_on(async {
        for round in 0..50 {
            let mut polls = 0;
            let task = spawn(poll_fn(move |cx| {
                polls += 1;
                if polls == 4 {
                    return Poll::Ready(());
                }
                let waker = cx.waker().clone();
                if round % 2 == 0 {
                    meanwhile(|| waker.wake());
                } else {
                    waker.wake();
                }
                thread::current().unpark();
                thread::park();
                Poll::Pending
            }));
            task.await;
        }
    });
}

/// An `unpark` by other code polls nothing.
#[test]
fn foreign_unparks_poll_nothing() {
    let _watchdog = watchdog();
    let probe = Probe::default();
    let mut polls = 0;
    let loops_thread = thread::current();
    let (sender, receiver) = oneshot::channel();
    let mut receiver = pin!(receiver);
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..200 {
                loops_thread.unpark();
                thread::yield_now();
            }
            sender.send(()).unwrap();
        });
        let mut task = None;
        block_on(poll_fn(|cx| {
            polls += 1;
            task.get_or_insert_with(|| spawn(probe.future()));
            receiver.as_mut().poll(cx)
        }))
        .unwrap();
    });
    assert!(polls <= 2 && probe.polls() <= 1, "{polls} and {} polls", probe.polls());
}

/// A waker that outlives its task or its loop does no harm when it is woken, and keeps no future alive.
#[test]
fn a_waker_may_outlive_everything() {
    let _watchdog = watchdog();
    let living = Living::default();
    let check = |waker: &std::task::Waker| {
        for _ in 0..3 {
            waker.wake_by_ref();
            waker.clone().wake();
            meanwhile(|| waker.wake_by_ref());
            meanwhile(|| waker.clone().wake());
        }
    };
    let check_all = move |probes: &[Probe]| {
        for probe in probes {
            check(&probe.waker());
        }
    };
    let probes: Vec<_> = (0..3).map(|_| Probe::default()).collect();
    let other = thread::spawn({
        let (probes, living) = (probes.clone(), living.clone());
        move || {
            let mut event_loop = EventLoop::new();
            let [ended, cancelled, left] = [0, 1, 2].map(|number: usize| {
                let (value, future) = (living.one(), probes[number].future());
                event_loop.handle().spawn(async move {
                    let _value = value;
                    future.await;
                })
            });
            event_loop.block_on(async {
                turns().await;
                assert_eq!(living.count(), 3);
                probes[0].make_ready();
                probes[0].waker().wake();
                ended.await;
                assert_eq!(living.count(), 2, "the waker keeps the future of a task that has ended");
                drop(cancelled);
                assert_eq!(living.count(), 1, "the waker keeps the future of a task that was dropped");
                check(&probes[0].waker());
                check(&probes[1].waker());
                turns().await;
                assert_eq!((probes[0].polls(), probes[1].polls()), (2, 1));
            });
            drop(event_loop);
            assert_eq!(living.count(), 0, "the waker keeps the future of a loop that was dropped");
            check_all(&probes);
            left
        }
    });
    let left = other.join().unwrap();
    assert!(left.is_finished());
    check_all(&probes);
    // Woken on the thread of another loop, which is not disturbed.
    block_on(async {
        let probe = Probe::default();
        let task = spawn(probe.future());
        turns().await;
        check_all(&probes);
        turns().await;
        assert_eq!(probe.polls(), 1);
        drop(task);
    });
    assert_eq!(probes.iter().map(Probe::polls).sum::<usize>(), 4);
}

/// A stale waker does not wake the new task in the same slot.
#[test]
fn a_stale_waker_wakes_no_other_task() {
    let _watchdog = watchdog();
    block_on(async {
        for _ in 0..20 {
            let old = Probe::default();
            let task = spawn(old.future());
            turns().await;
            drop(task);
            let new = Probe::default();
            let task = spawn(new.future());
            turns().await;
            old.waker().wake();
            meanwhile(|| old.waker().wake());
            turns().await;
            assert_eq!((old.polls(), new.polls()), (1, 1));
            // The new task's own waker works.
            new.make_ready();
            new.waker().wake();
            task.await;
        }
    });
}

// --- turns ----------------------------------------------------------------------------------------------------------

/// Ready tasks take turns: none is polled twice before every other was polled once, and they start in the order of
/// spawning.
#[test]
fn ten_thousand_ready_tasks_take_turns() {
    const TASKS: usize = 10_000;
    let _watchdog = watchdog();
    let polled = block_on(async {
        let log = Log::default();
        let tasks: Vec<_> = (0..TASKS)
            .map(|number| {
                let log = log.clone();
                spawn(async move {
                    for _ in 0..3 {
                        log.add(number);
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        log.take()
    });
    assert_eq!(polled.len(), 3 * TASKS);
    assert!(polled[..TASKS].iter().copied().eq(0..TASKS), "not in the order of spawning");
    for turn in polled.chunks(TASKS) {
        let mut turn = turn.to_vec();
        turn.sort_unstable();
        assert!(turn.into_iter().eq(0..TASKS), "a task was polled twice in one turn");
    }
}

/// `yield_now` does not return before every other ready task was polled.
#[test]
fn yielding_lets_the_others_run() {
    let _watchdog = watchdog();
    let order = block_on(async {
        let log = Log::default();
        let tasks = ["a", "b", "c"].map(|name| {
            let log = log.clone();
            spawn(async move {
                for _ in 0..3 {
                    log.add(name);
                    yield_now().await;
                }
            })
        });
        for task in tasks {
            task.await;
        }
        log.take().concat()
    });
    assert_eq!(order, "abcabcabc");
}

/// A task that is always ready does not starve timers, other tasks, or callbacks of other threads.
#[test]
fn an_always_ready_task_starves_nobody() {
    let _watchdog = watchdog();
    block_on(async {
        let spinner = spawn(async {
            loop {
                yield_now().await;
            }
        });
        // Wakes itself without `yield_now`.
        let waker = spawn(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        let handle = LoopHandle::current();
        let start = Instant::now();
        sleep(10 * MILLI).await;
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        let (sender, receiver) = oneshot::channel();
        handle.call_later(10 * MILLI, || sender.send(1).unwrap());
        assert_eq!(receiver.await, Ok(1));
        let (sender, receiver) = oneshot::channel();
        elsewhere(move || handle.call_soon(|| sender.send(2).unwrap())).await;
        assert_eq!(receiver.await, Ok(2));
        assert_eq!(threaded(|| 3).await, 3);
        assert!(spinner.cancel() && waker.cancel());
    });
}

/// An idle loop does not wake up, and polls nothing.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_loop_sleeps() {
    fn of_status(thread: &str, field: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned()
    }
    let _watchdog = watchdog();
    let (report, thread) = mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let probe = Probe::default();
    let inside = probe.clone();
    let other = thread::spawn(move || {
        let link = std::fs::read_link("/proc/thread-self").unwrap();
        block_on(async {
            let handle = LoopHandle::current();
            handle.call_later(LONG, || ());
            handle.call_later(Duration::MAX, || ());
            spawn(sleep(LONG)).detach();
            spawn(sleep(Duration::MAX)).detach();
            spawn(inside.future()).detach();
            turns().await;
            report.send(link.to_str().unwrap().to_owned()).unwrap();
            stopped.await.unwrap();
        });
    });
    let thread = thread.recv().unwrap();
    let switches = || {
        let count = |field| of_status(&thread, field).parse::<u64>().unwrap();
        (count("voluntary_ctxt_switches:"), count("nonvoluntary_ctxt_switches:"))
    };
    // The thread sleeps when its switches have not changed for a while.
    let mut before = switches();
    block_until("the loop sleeps", || {
        thread::sleep(20 * MILLI);
        let last = std::mem::replace(&mut before, switches());
        last == before && of_status(&thread, "State:").starts_with('S')
    });
    thread::sleep(500 * MILLI);
    assert_eq!(switches(), before, "an idle loop has woken up");
    assert_eq!(probe.polls(), 1);
    stop.send(()).unwrap();
    other.join().unwrap();
}

// --- call_soon ------------------------------------------------------------------------------------------------------

/// Callbacks run on the loop's thread, in order, and not inside `call_soon`.
#[test]
fn call_soon_runs_in_order_and_not_in_the_call() {
    let _watchdog = watchdog();
    block_on(async {
        let here = thread::current().id();
        let handle = LoopHandle::current();
        let (sender, order) = mpsc::channel();
        for number in 0..100 {
            let sender = sender.clone();
            handle.call_soon(move || sender.send((number, thread::current().id())).unwrap());
        }
        assert!(order.try_recv().is_err(), "a callback ran inside `call_soon`");
        for number in 0..100 {
            assert_eq!(soon(&order).await, (number, here));
        }
        // From another thread, while the loop does not run.
        let from_outside = || {
            for number in 0..100 {
                let sender = sender.clone();
                handle.call_soon(move || sender.send((number, thread::current().id())).unwrap());
            }
        };
        meanwhile(from_outside);
        assert!(order.try_recv().is_err(), "a callback ran on the other thread");
        for number in 0..100 {
            assert_eq!(soon(&order).await, (number, here));
        }
    });
}

/// A callback that submits itself again does not starve other code.
#[test]
fn call_soon_may_call_soon() {
    fn again(count: Arc<AtomicUsize>) {
        LoopHandle::current().call_soon(|| {
            count.fetch_add(1, Ordering::SeqCst);
            again(count);
        });
    }
    let _watchdog = watchdog();
    let count = Arc::new(AtomicUsize::new(0));
    block_on(async {
        again(Arc::clone(&count));
        until("the callback has run several times", || count.load(Ordering::SeqCst) > 10).await;
        assert_eq!(threaded(|| 1).await, 1);
        sleep(MILLI).await;
    });
    assert_eq!(Arc::strong_count(&count), 1);
}

/// A callback that panics stops neither the loop nor later callbacks.
#[test]
fn call_soon_may_panic() {
    let _watchdog = watchdog();
    block_on(async {
        let handle = LoopHandle::current();
        let (sender, order) = mpsc::channel();
        for number in 0..6 {
            let sender = sender.clone();
            handle.call_soon(move || {
                sender.send(number).unwrap();
                if number % 2 == 0 {
                    quiet_panic("in a call");
                }
            });
        }
        // A local value of the callback, whose `Drop` panics.
        handle.call_soon(move || {
            let _bomb = on_drop(|| quiet_panic("a bomb"));
        });
        let task = spawn(ready(1));
        for number in 0..6 {
            assert_eq!(soon(&order).await, number);
        }
        assert_eq!(task.await, 1);
        turns().await;
        assert_eq!(spawn(ready(2)).await, 2);
    });
}

/// Callbacks and tasks that many threads submit at once all run, and run once.
#[test]
fn code_that_many_threads_submit_at_once_runs_once() {
    const THREADS: usize = 4;
    const TIMES: usize = 200;
    let _watchdog = watchdog();
    let mut event_loop = EventLoop::new();
    let handle = event_loop.handle();
    let (calls, polls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                for number in 0..TIMES {
                    let calls = Arc::clone(&calls);
                    handle.call_soon(move || {
                        calls.fetch_add(1, Ordering::SeqCst);
                    });
                    let polls = Arc::clone(&polls);
                    let task = handle.spawn(async move {
                        polls.fetch_add(1, Ordering::SeqCst);
                        number
                    });
                    if number % 4 == 0 { assert_eq!(block_on(task), number) } else { task.detach() }
                }
            });
        }
        event_loop.block_on(until("all callbacks and tasks have run", || {
            calls.load(Ordering::SeqCst) == THREADS * TIMES && polls.load(Ordering::SeqCst) == THREADS * TIMES
        }));
    });
    event_loop.block_on(turns());
    assert_eq!((calls.load(Ordering::SeqCst), polls.load(Ordering::SeqCst)), (THREADS * TIMES, THREADS * TIMES));
}

/// Code that is submitted while the loop ends either runs or is dropped, and every handle resolves, even if the loop
/// closes just after a thread has found it open.
#[test]
fn code_submitted_while_the_loop_ends_runs_or_is_dropped() {
    let _watchdog = watchdog();
    for round in 0..200 {
        let living = Living::default();
        let (ready, start) = mpsc::channel();
        let barrier = Arc::new(Barrier::new(2));
        let other = thread::spawn({
            let (barrier, living) = (Arc::clone(&barrier), living.clone());
            move || {
                let (handle, probe): (LoopHandle, Probe) = start.recv().unwrap();
                let waiting = handle.spawn(hold(living.one()));
                barrier.wait();
                (0..round % 20 * 10).for_each(|_| std::hint::spin_loop());
                let value = living.one();
                handle.call_soon(move || drop(value));
                let value = living.one();
                let task = handle.spawn(async move { drop(value) });
                probe.waker().wake();
                let value = living.one();
                let timer = handle.call_later(LONG, move || drop(value));
                handle.spawn(hold(living.one())).detach();
                waiting.cancel();
                let cancelled = block_on(waiting.outcome());
                assert!(is_cancelled_error(&cancelled));
                let outcome = block_on(task.outcome());
                assert!(outcome.is_ok() || is_cancelled_error(&outcome));
                timer.cancel();
            }
        });
        block_on(async {
            let probe = Probe::default();
            let future = probe.future();
            let value = living.one();
            spawn(async move {
                let _value = value;
                future.await;
            })
            .detach();
            turns().await;
            ready.send((LoopHandle::current(), probe)).unwrap();
            barrier.wait();
            if round % 2 == 0 {
                yield_now().await;
            }
        });
        other.join().unwrap();
        assert_eq!(living.count(), 0, "a value was leaked");
    }
}

/// A loop is not kept alive by handles in its own tasks: the values of the tasks are dropped, and the loop's pool
/// closes.
#[test]
fn a_loop_is_not_kept_by_its_own_tasks() {
    let _watchdog = watchdog();
    let living = Living::default();
    let threads = Threads::default();
    let pool = threads.watch(ThreadPool::builder().threads(1)).build();
    pool.spawn(|| ()).wait();
    block_on(async {
        let handle = LoopHandle::current();
        handle.set_default_pool(pool);
        let (first, second, third) = (handle.clone(), handle.clone(), living.one());
        spawn(async move {
            let task = first.spawn(pending::<()>());
            hold((first, task, third)).await;
        })
        .detach();
        let value = living.one();
        handle.call_later(LONG, move || drop((second, value)));
        turns().await;
    });
    assert_eq!(living.count(), 0);
    threads.wait_for_all_to_stop();
}

// --- the current loop -----------------------------------------------------------------------------------------------

/// Without a loop, `LoopHandle::current` and `spawn` panic and say so.
#[test]
fn without_a_loop_there_is_no_current_one() {
    let _watchdog = watchdog();
    let check = || {
        assert!(LoopHandle::try_current().is_none());
        assert_says(&panic_of(LoopHandle::current), "loop");
        let (value, dropped) = traced();
        assert_says(&panic_of(|| drop(spawn(async move { drop(value) }))), "loop");
        assert!(dropped.try_recv().is_ok());
    };
    check();
    meanwhile(check);
    ThreadPool::new(1).spawn(check).wait();
    threaded_separate(check).async_call().wait();
    block_on(async { elsewhere(check).await });
    let event_loop = EventLoop::new();
    check();
    drop(event_loop);
}

/// Jobs and tasks inherit the current loop, and pass it on to the jobs and tasks that they start.
#[test]
fn the_current_loop_is_inherited() {
    fn ask_the_loop() -> ThreadId {
        let handle = LoopHandle::current();
        assert!(LoopHandle::try_current().is_some());
        let (sender, receiver) = mpsc::channel();
        handle.call_soon(move || sender.send(thread::current().id()).unwrap());
        receiver.recv().unwrap()
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    block_on(async {
        let loops_thread = thread::current().id();
        assert_eq!(thread_of(&LoopHandle::current()).await, loops_thread);
        assert_eq!(spawn(async { thread_of(&LoopHandle::current()).await }).await, loops_thread);
        assert_eq!(threaded(ask_the_loop).await, loops_thread);
        assert_eq!(threaded_separate(ask_the_loop).await, loops_thread);
        assert_eq!(pool.spawn(ask_the_loop).await, loops_thread);
        for job in pool.spawn_many([ask_the_loop, ask_the_loop]) {
            assert_eq!(job.await, loops_thread);
        }
        // A job of a job, a job of a task, a task of a job.
        let inner = pool.clone();
        assert_eq!(pool.spawn(move || inner.spawn(ask_the_loop).wait()).await, loops_thread);
        assert_eq!(spawn(async { threaded(ask_the_loop).await }).await, loops_thread);
        let task_of_a_job = || LoopHandle::current().spawn(async { thread_of(&LoopHandle::current()).await });
        assert_eq!(threaded(task_of_a_job).await.await, loops_thread);
        let (sender, receiver) = oneshot::channel();
        LoopHandle::current().call_soon(|| sender.send(threaded(ask_the_loop).async_call()).unwrap());
        assert_eq!(receiver.await.unwrap().await, loops_thread);
        let (sender, receiver) = oneshot::channel();
        LoopHandle::current().call_later(MILLI, || sender.send(threaded(ask_the_loop).async_call()).unwrap());
        assert_eq!(receiver.await.unwrap().await, loops_thread);
    });
}

/// `spawn` takes futures that are not `Send`, so in a job it panics, and drops the future there.
#[test]
fn spawn_in_a_job_panics() {
    let _watchdog = watchdog();
    block_on(async {
        let (value, dropped) = traced();
        let job = threaded(|| {
            let message = panic_of(|| drop(spawn(async move { drop(value) })));
            assert_says(&message, "spawn");
            thread::current().id()
        });
        let jobs_thread = job.await;
        assert_eq!(dropped.try_recv(), Ok(jobs_thread));
    });
}

/// `enter` makes the loop current only while its closure runs, also if the closure panics.
#[test]
fn a_thread_may_enter_a_loop() {
    let _watchdog = watchdog();
    let [first, second] = ["first", "second"].map(|name| EventLoop::builder().pool(named_pool(name)).build());
    let (first, second) = (first.handle(), second.handle());
    let pool_of_here = || threaded(own_name).async_call().wait();
    assert_eq!(first.enter(|| 5), 5);
    assert_says(&first.enter(pool_of_here), "first");
    first.enter(|| {
        assert_says(&second.enter(pool_of_here), "second");
        assert_eq!(panic_of(|| second.enter(|| quiet_panic("inside"))), "inside");
        assert_says(&pool_of_here(), "first");
    });
    assert!(LoopHandle::try_current().is_none());
    // A loop that runs inside another loop's `enter` is the current one.
    let mut third = EventLoop::builder().pool(named_pool("third")).build();
    first.enter(|| {
        assert_says(&third.block_on(threaded(own_name)), "third");
        assert_says(&pool_of_here(), "first");
    });
}

// --- which pool -----------------------------------------------------------------------------------------------------

/// Jobs of a loop run in the loop's default pool, unless another pool is given.
#[test]
fn jobs_go_to_the_loops_default_pool() {
    let _watchdog = watchdog();
    let [first, second, third] = ["first", "second", "third"].map(named_pool);
    let mut event_loop = EventLoop::builder().pool(first.clone()).build();
    event_loop.block_on(async {
        assert_says(&threaded(own_name).await, "first");
        assert_says(&threaded(own_name).on(&third).await, "third");
        // Also in a job of another pool: the loop's pool takes precedence.
        assert_says(&third.spawn(|| threaded(own_name).async_call().wait()).await, "first");
        assert_says(&threaded_separate(|| threaded(own_name).async_call().wait()).await, "first");
        LoopHandle::current().set_default_pool(second.clone());
        assert_says(&threaded(own_name).await, "second");
        assert_says(&spawn(async { threaded(own_name).await }).await, "second");
        assert_says(&threaded(|| threaded(own_name).async_call().wait()).await, "second");
        let handle = LoopHandle::current();
        assert_says(&elsewhere(move || handle.enter(|| threaded(own_name).async_call().wait())).await, "second");
        let handle = LoopHandle::current();
        let third = third.clone();
        elsewhere(move || handle.set_default_pool(third)).await;
        assert_says(&threaded(own_name).await, "third");
    });
    // The default pool is kept from call to call, and belongs to this loop only.
    assert_says(&event_loop.block_on(threaded(own_name)), "third");
    let before = third.stats().submitted;
    assert!(!block_on(threaded(own_name)).contains("third"));
    assert_eq!(third.stats().submitted, before);
}

/// Without a loop, the jobs that a job starts go to the job's own pool; or to the global pool, if the job's own pool is
/// closed.
#[test]
fn without_a_loop_jobs_stay_in_their_pool() {
    let _watchdog = watchdog();
    let pool = named_pool("the-only-one");
    assert_says(&pool.spawn(|| threaded(own_name).async_call().wait()).wait(), "the-only-one");
    let gate = Gate::default();
    let (started, inside) = (Gate::default(), gate.clone());
    let start = started.clone();
    let job = pool.spawn(move || {
        start.open();
        inside.pass();
        threaded(own_name).async_call().wait()
    });
    started.pass();
    let closing = thread::spawn({
        let pool = pool.clone();
        move || pool.drain()
    });
    block_until("the pool is closed", || pool.is_closed());
    gate.open();
    assert_eq!(job.wait(), "offthread", "the job did not go to the global pool");
    closing.join().unwrap();
}

/// A loop's own pool has the requested size, which must not be zero.
#[test]
fn a_loops_own_pool_has_its_size() {
    let _watchdog = watchdog();
    let mut event_loop = EventLoop::builder().pool_size(3).build();
    let all = Arc::new(Barrier::new(3));
    // The jobs meet at the barrier, so there are three threads.
    let threads: HashSet<_> = event_loop.block_on(async {
        let jobs: Vec<_> = (0..3)
            .map(|_| {
                let all = Arc::clone(&all);
                threaded(move || {
                    all.wait();
                    thread::current().id()
                })
                .async_call()
            })
            .collect();
        offthread::gather(jobs).await.into_iter().collect()
    });
    assert_eq!(threads.len(), 3);
    let more = event_loop.block_on(async {
        let gate = Gate::default();
        let running = Arc::new(AtomicUsize::new(0));
        let jobs: Vec<_> = (0..6)
            .map(|_| {
                let (gate, running) = (gate.clone(), Arc::clone(&running));
                threaded(move || {
                    running.fetch_add(1, Ordering::SeqCst);
                    gate.pass();
                    thread::current().id()
                })
                .async_call()
            })
            .collect();
        until("three run", || running.load(Ordering::SeqCst) == 3).await;
        // Each `elsewhere` starts a thread and waits for its end. A fourth thread of the pool would have been started
        // before these, so it would run a job by now.
        for _ in 0..5 {
            elsewhere(|| ()).await;
        }
        assert_eq!(running.load(Ordering::SeqCst), 3, "more jobs run than the pool has threads");
        gate.open();
        offthread::gather(jobs).await
    });
    assert!(more.iter().all(|id| threads.contains(id)), "the pool has more threads than its size");
    assert_says(&panic_of(|| EventLoop::builder().pool_size(0)), "pool_size");
}

// --- types ----------------------------------------------------------------------------------------------------------

/// The `Debug` output starts with the type's name.
#[test]
fn debug_output_starts_with_the_types_name() {
    let _watchdog = watchdog();
    let event_loop = EventLoop::new();
    let handle = event_loop.handle();
    let timer = handle.call_later(LONG, || ());
    let task = handle.spawn(async { Cell::new(1) });
    for (text, name) in [
        (format!("{:?}", EventLoop::builder()), "EventLoopBuilder"),
        (format!("{event_loop:?}"), "EventLoop"),
        (format!("{handle:?}"), "LoopHandle"),
        (format!("{timer:?}"), "TimerHandle"),
        (format!("{task:?}"), "Task"),
    ] {
        assert!(text.starts_with(name), "{text}");
    }
}

/// A handle that is polled with one waker and then with another wakes the last one, and keeps no other waker.
#[test]
fn the_last_waker_of_a_handle_is_woken() {
    struct Count(AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let _watchdog = watchdog();
    let [first, second] = [(); 2].map(|()| Arc::new(Count(AtomicUsize::new(0))));
    let mut event_loop = EventLoop::new();
    let mut task = event_loop.handle().spawn(async { yield_now().await });
    for witness in [&first, &second] {
        let waker = Arc::clone(witness).into();
        assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(Arc::strong_count(&first), 1, "the first waker is kept");
    event_loop.block_on(until("the task has finished", || task.is_finished()));
    assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (0, 1));
    let waker = Arc::clone(&first).into();
    assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_ready());
    drop((task, waker));
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 1), "a waker is kept");
}
