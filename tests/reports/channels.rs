//! Channels, and futures that are polled, dropped or forgotten at unusual moments.

use crate::helpers::iterables::*;
use crate::{MILLI, poll};
use offthread::{
    EventLoop, IteratorWrapper, ThreadPool, block_on, gather, oneshot, sleep, spawn, spsc, threaded_iterable,
    threaded_separate, timeout, yield_now,
};
use std::any::type_name;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Poll, Waker};
use std::{mem, thread};

/// iroh 2536, kanal 50, kanal 65: forbids that a loop that makes and drops `recv` futures loses an item or a wake-up.
#[test]
fn a_select_loop_loses_nothing() {
    const ITEMS: u32 = 5000;
    /// The number of the channel that is ready first, and its item. Drops both futures.
    async fn select(a: &mut spsc::Receiver<u32>, b: &mut spsc::Receiver<u32>) -> (usize, Option<u32>) {
        let (mut a, mut b) = (pin!(a.recv()), pin!(b.recv()));
        poll_fn(|cx| match a.as_mut().poll(cx) {
            Poll::Ready(item) => Poll::Ready((0, item)),
            Poll::Pending => b.as_mut().poll(cx).map(|item| (1, item)),
        })
        .await
    }
    let _watchdog = watchdog();
    for max_size in [1, 4] {
        let [mut a, mut b] = [max_size, 2 * max_size].map(|max_size| {
            let (mut sender, receiver) = spsc::channel(max_size);
            thread::spawn(move || (0..ITEMS).for_each(|item| sender.send_blocking(item).unwrap()));
            receiver
        });
        let (mut from_a, mut from_b) = (0..ITEMS, 0..ITEMS);
        block_on(async {
            loop {
                match select(&mut a, &mut b).await {
                    (0, Some(item)) => assert_eq!(from_a.next(), Some(item)),
                    (_, Some(item)) => assert_eq!(from_b.next(), Some(item)),
                    (_, None) => break,
                }
            }
            while let Some(item) = a.recv().await {
                assert_eq!(from_a.next(), Some(item));
            }
            while let Some(item) = b.recv().await {
                assert_eq!(from_b.next(), Some(item));
            }
        });
        assert_eq!((from_a.next(), from_b.next()), (None, None));
    }
}

/// tachyonix 1: forbids that a forgotten `send` or `recv` future is accessed after its channel end was dropped, or
/// takes the wake-up of the next future.
#[test]
fn forgotten_futures_of_channels_disturb_no_others() {
    let _watchdog = watchdog();
    let (sender, mut receiver) = spsc::channel(1);
    let mut sender = Box::new(sender);
    sender.try_send("a".to_owned()).unwrap();
    let mut send = Box::pin(sender.send("b".to_owned()));
    assert!(Witness::default().poll(send.as_mut()).is_pending());
    mem::forget(send);
    drop(sender);
    assert_eq!(receiver.try_recv().unwrap(), "a");
    assert_eq!(receiver.try_recv(), Err(spsc::TryRecvError::Closed));

    let (mut sender, mut receiver) = spsc::channel(1);
    let mut recv = Box::pin(receiver.recv());
    assert!(Witness::default().poll(recv.as_mut()).is_pending());
    mem::forget(recv);
    let witness = Witness::default();
    let mut recv = Box::pin(receiver.recv());
    assert!(witness.poll(recv.as_mut()).is_pending());
    sender.try_send(1).unwrap();
    assert_eq!(witness.wakes(), 1);
    assert_eq!(witness.poll(recv.as_mut()), Poll::Ready(Some(1)));
    drop(recv);

    sender.try_send(2).unwrap();
    let mut send = Box::pin(sender.send(3));
    assert!(Witness::default().poll(send.as_mut()).is_pending());
    mem::forget(send);
    let witness = Witness::default();
    let mut send = Box::pin(sender.send(4));
    assert!(witness.poll(send.as_mut()).is_pending());
    assert_eq!(receiver.recv_blocking(), Some(2));
    assert_eq!(witness.wakes(), 1);
    assert!(witness.poll(send.as_mut()).is_ready());
    assert_eq!(receiver.recv_blocking(), Some(4));
}

/// n0-watcher 62: forbids that a forgotten handle cancels its job or task, or keeps a loop or a pool from ending.
#[test]
fn forgotten_handles_cancel_nothing() {
    let _watchdog = watchdog();
    let ran = Arc::new(AtomicUsize::new(0));
    let add = |number| {
        let ran = ran.clone();
        move || _ = ran.fetch_add(number, SeqCst)
    };
    let pool = ThreadPool::new(1);
    mem::forget(pool.spawn(add(1)));
    block_on(async {
        let add = add(10);
        mem::forget(spawn(async move {
            yield_now().await;
            add();
        }));
        let mut limit = Box::pin(timeout(MILLI, pending::<()>()));
        assert!(poll(limit.as_mut(), Waker::noop()).is_pending());
        mem::forget(limit);
        let (sender, receiver) = oneshot::channel::<u8>();
        let mut all = Box::pin(gather([receiver]));
        assert!(poll(all.as_mut(), Waker::noop()).is_pending());
        mem::forget(all);
        sender.send(1).unwrap();
        sleep(5 * MILLI).await;
    });
    let watch = Watch::default();
    let mut items = watch.stream(Kind::Pool, &pool, |numbers| numbers).max_size(2);
    assert!(take(&mut items).is_some());
    mem::forget(items);
    let mut event_loop = EventLoop::new();
    event_loop.block_on(async { spawn(pending::<()>()).detach() });
    mem::forget(event_loop);
    assert_eq!(block_on(async { spawn(async { 5 }).await }), 5);
    // A shutdown ends all iterables, also the forgotten one.
    pool.shutdown();
    assert_eq!(ran.load(SeqCst), 11);
    assert!(watch.end().is_some());
}

/// tokio 6402, tokio 8168, Saikuro 80: forbids that a future that was ready is pending when it is polled again.
#[test]
fn a_future_that_was_ready_is_never_pending_again() {
    fn again<F: Future + Unpin>(mut future: F) {
        until("the future is ready", || poll(&mut future, Waker::noop()).is_ready());
        for _ in 0..3 {
            let is_pending = || poll(&mut future, Waker::noop()).is_pending();
            let is_pending = catch_unwind(AssertUnwindSafe(is_pending)).unwrap_or(false);
            assert!(!is_pending, "pending for ever: {}", type_name::<F>());
        }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    again(pool.spawn(|| Box::new(1)));
    again(pool.spawn(|| Box::new(1)).outcome());
    again(threaded_separate(|| Box::new(1)).async_call());
    let (sender, receiver) = oneshot::channel();
    sender.send(Box::new(1)).unwrap();
    again(receiver);
    let (sender, receiver) = oneshot::channel::<u8>();
    drop(sender);
    again(receiver);
    let mut nap = sleep(MILLI);
    until("the sleep is over", || poll(&mut nap, Waker::noop()).is_ready());
    assert!((0..3).all(|_| poll(&mut nap, Waker::noop()).is_ready()));
    block_on(async {
        let task = spawn(async { Box::new(1) });
        yield_now().await;
        again(task);
        let outcome = spawn(async { Box::new(1) }).outcome();
        yield_now().await;
        again(outcome);
        let mut nap = sleep(MILLI);
        (&mut nap).await;
        (&mut nap).await;
    });
}

/// crossbeam 1300: forbids that `recv_many` or `next_many` reserves memory for as many items as its limit.
#[test]
fn an_endless_limit_reserves_no_memory() {
    let _watchdog = watchdog();
    let (mut sender, mut receiver) = spsc::channel(4);
    (0..4).for_each(|item| sender.try_send(item).unwrap());
    let mut items = Vec::new();
    assert_eq!(block_on(receiver.recv_many(&mut items, usize::MAX)), 4);
    let mut stream: IteratorWrapper<i32> = threaded_iterable(|| 4..8);
    while block_on(stream.next_many(&mut items, usize::MAX)) > 0 {}
    assert!(items.into_iter().eq(0..8));
}
