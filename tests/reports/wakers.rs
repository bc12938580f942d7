//! Wakers that panic when they are cloned, woken or dropped.

use crate::helpers::iterables::*;
use crate::hooks::Hooks;
use crate::{LONG, MILLI, caught, poll, poll_uncloneable, uncloneable_waker};
use offthread::{
    LoopHandle, ThreadPool, block_on, gather, oneshot, sleep, sleep_until, spawn, spsc, wait_cancelled, yield_now,
};
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

/// tokio 3689, asyncband 259: forbids that a waker whose clone panics keeps a channel from registering the next waker.
#[test]
fn a_channel_survives_a_waker_that_cannot_be_cloned() {
    let _watchdog = watchdog();
    let (mut sender, mut receiver) = spsc::channel(1);
    poll_uncloneable(pin!(receiver.recv()));
    let witness = Witness::default();
    assert!(receiver.poll_recv(&mut Context::from_waker(&witness.waker())).is_pending());
    sender.try_send(1).unwrap();
    assert_eq!(witness.wakes(), 1);

    poll_uncloneable(pin!(sender.send(2)));
    let witness = Witness::default();
    let mut send = pin!(sender.send(2));
    assert!(witness.poll(send.as_mut()).is_pending());
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(witness.wakes(), 1);
    assert!(witness.poll(send).is_ready());
    assert_eq!(receiver.recv_blocking(), Some(2));

    let (sender, mut receiver) = oneshot::channel();
    poll_uncloneable(&mut receiver);
    let witness = Witness::default();
    assert!(witness.poll(&mut receiver).is_pending());
    sender.send(3).unwrap();
    assert_eq!(witness.wakes(), 1);
    assert_eq!(witness.poll(&mut receiver), Poll::Ready(Ok(3)));

    let (mut sender, receiver) = oneshot::channel::<u8>();
    poll_uncloneable(pin!(sender.closed()));
    let witness = Witness::default();
    let mut closed = pin!(sender.closed());
    assert!(witness.poll(closed.as_mut()).is_pending());
    drop(receiver);
    assert_eq!(witness.wakes(), 1);
    assert!(witness.poll(closed).is_ready());
}

/// tokio 8107, tokio 4069: forbids that a waker whose clone panics poisons the timer thread, a job or an iterable.
#[test]
fn handles_survive_a_waker_that_cannot_be_cloned() {
    let _watchdog = watchdog();
    let mut bad = sleep(5 * MILLI);
    poll_uncloneable(&mut bad);
    let witness = Witness::default();
    let mut other = sleep(5 * MILLI);
    if witness.poll(&mut other).is_pending() {
        witness.wait();
    }
    until("both sleeps are over", || witness.poll(&mut other).is_ready());
    until("both sleeps are over", || witness.poll(&mut bad).is_ready());

    let pool = ThreadPool::new(1);
    let Running { mut job, stop } = running(&pool, || 1);
    poll_uncloneable(&mut job);
    let witness = Witness::default();
    assert!(witness.poll(&mut job).is_pending());
    stop.open();
    witness.wait();
    assert_eq!(job.wait(), 1);

    for kind in BOTH {
        let go = Gate::default();
        let may_go = go.clone();
        let mut items = kind.stream(&pool, move || {
            may_go.pass();
            0..3
        });
        let waker = uncloneable_waker();
        let _ = catch_unwind(AssertUnwindSafe(|| {
            Pin::new(&mut items).poll_next(&mut Context::from_waker(&waker)).is_ready()
        }));
        let witness = Witness::default();
        assert!(Pin::new(&mut items).poll_next(&mut Context::from_waker(&witness.waker())).is_pending());
        go.open();
        witness.wait();
        assert_eq!(take_all(&mut items), [0, 1, 2]);
    }
}

/// tokio 3689: forbids that a task, a sleep of a loop, or a `gather` waits for ever after it was polled with a waker
/// whose clone panics.
#[test]
fn a_loop_survives_a_waker_that_cannot_be_cloned() {
    let _watchdog = watchdog();
    block_on(async {
        let mut task = spawn(async {
            yield_now().await;
            1
        });
        poll_uncloneable(&mut task);
        assert_eq!(task.await, 1);

        let mut nap = sleep(5 * MILLI);
        poll_uncloneable(&mut nap);
        sleep(MILLI).await;
        nap.await;

        let (sender, receiver) = oneshot::channel();
        let mut all = Box::pin(gather([receiver]));
        poll_uncloneable(all.as_mut());
        // The panic may have ended the `gather`, like the panic of a branch. But the `gather` must not wait for ever.
        let _ = sender.send(2);
        if let Ok(values) = caught(all).await {
            assert_eq!(values, [Ok(2)]);
        }
    });
}

/// tokio 4055, tokio 6584: forbids that the wake-ups of other timers are lost when a waker panics in the timer thread.
#[test]
fn a_timer_survives_a_waker_that_panics() {
    let _watchdog = watchdog();
    for drop_panics in [false, true] {
        let bad = Arc::<Hooks>::default();
        let bad_waker = bad.waker();
        bad.wake.set(|| quiet_panic("the waker's wake"));
        if drop_panics {
            bad.drop.set(|| quiet_panic("the waker's drop"));
        }
        let witness = Witness::default();
        let deadline = Instant::now() + 20 * MILLI;
        let mut sleeps: Vec<_> = (0..6).map(|_| sleep_until(deadline)).collect();
        let (mut expected, good_waker) = (0, witness.waker());
        for (number, sleep) in sleeps.iter_mut().enumerate() {
            let is_bad = number == 2;
            let is_pending = poll(sleep, if is_bad { &bad_waker } else { &good_waker }).is_pending();
            expected += usize::from(is_pending && !is_bad);
        }
        until("all others are woken", || witness.wakes() == expected);
        let later = Witness::default();
        let mut sleep = sleep(5 * MILLI);
        if later.poll(&mut sleep).is_pending() {
            later.wait();
        }
        bad.drop.set(|| ());
    }
}

/// tokio 4055: forbids that a waker that panics on a loop's thread stops the loop, its timers or its tasks.
#[test]
fn a_loop_survives_a_waker_that_panics() {
    let _watchdog = watchdog();
    block_on(async {
        let bad = Arc::<Hooks>::default();
        let other = spawn(async {
            sleep(10 * MILLI).await;
            1
        });
        bad.wake.set(|| quiet_panic("the waker's wake"));
        let mut nap = sleep(5 * MILLI);
        let is_pending = poll(&mut nap, &bad.waker()).is_pending();
        assert_eq!(other.await, 1);
        assert!(!is_pending || bad.wake.has_run());

        bad.wake.set(|| quiet_panic("the waker's wake"));
        let mut task = spawn(yield_now());
        assert!(poll(&mut task, &bad.waker()).is_pending());
        turn_until("the task has ended", || task.is_finished()).await;
        turn_until("the waker has panicked", || bad.wake.has_run()).await;
        assert_eq!(spawn(async { 2 }).await, 2);
    });
}

/// No report: forbids that a thread counts as a thread of the runtime for ever after the runtime's waker has panicked.
#[test]
fn a_runtime_survives_a_waker_that_cannot_be_cloned() {
    let _watchdog = watchdog();
    let (send, sent) = mpsc::channel();
    let handle = LoopHandle::from_spawner(move |future| send.send(future).unwrap());
    let task = handle.spawn(pending::<()>());
    poll_uncloneable(sent.recv().unwrap());
    drop(task);
    let runtime = thread::spawn(move || block_on(sent.recv().unwrap()));
    assert_eq!(handle.sync_wait(async { 1 }).unwrap(), 1);
    runtime.join().unwrap();
}

/// No report: forbids that dropping a handle does not cancel when the `Drop` of the handle's waker panics.
#[test]
fn dropping_a_handle_cancels_although_its_waker_cannot_be_dropped() {
    fn poll_with_bad_waker<F: Future + Unpin>(handle: F) {
        let hooks = Arc::<Hooks>::default();
        let waker = hooks.waker();
        let mut handle = handle;
        assert!(poll(&mut handle, &waker).is_pending());
        hooks.drop.set(|| quiet_panic("the waker's drop"));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(handle))).is_err());
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (end, ended) = mpsc::channel();
    poll_with_bad_waker(pool.spawn(move || end.send(wait_cancelled(LONG)).unwrap()));
    assert!(ended.recv().unwrap_or(true), "the job was not told");
    block_on(async {
        let captured = Arc::new(());
        let held = captured.clone();
        poll_with_bad_waker(spawn(async move {
            pending::<()>().await;
            drop(held);
        }));
        assert_eq!(Arc::strong_count(&captured), 1);
    });
}
