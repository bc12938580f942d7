//! Waits that end early: by a time-out, by a cancellation, or when the first of several futures is ready.

#![forbid(unsafe_code)]

use crate::helpers::iterables::*;
use offthread::{
    ContextVar, Either, Job, JoinError, ThreadPool, block_on, gather, is_cancelled, oneshot, race, sleep, spawn, spsc,
    threaded_separate, try_gather, wait_cancelled, yield_now,
};
use std::cell::Cell;
use std::future::{pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(20);

// --- wait_cancelled -------------------------------------------------------------------------------------------------

/// Forbids: a job in `wait_cancelled` sleeps on after it was cancelled, its handle was dropped, or its pool was shut
/// down.
#[test]
fn a_cancelled_job_in_wait_cancelled_wakes_up() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let ends: [fn(Job<bool>, &ThreadPool); 3] = [
        |job, _| {
            assert!(!job.cancel());
            assert!(job.wait());
        },
        |job, _| drop(job),
        |job, pool| {
            pool.shutdown();
            assert!(job.wait());
        },
    ];
    for end in ends {
        let (started, has_started) = mpsc::channel();
        let (report, reported) = mpsc::channel();
        let job = pool.spawn(move || {
            started.send(()).unwrap();
            let cancelled = wait_cancelled(Duration::MAX);
            report.send(cancelled && is_cancelled()).unwrap();
            cancelled
        });
        has_started.recv().unwrap();
        end(job, &pool);
        assert_eq!(reported.recv(), Ok(true));
    }
}

/// Forbids: without a cancellation, `wait_cancelled` returns early, or returns true.
#[test]
fn wait_cancelled_without_a_cancellation_is_a_sleep() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let sleeps = || {
        let start = Instant::now();
        assert!(!wait_cancelled(Duration::ZERO));
        assert!(!wait_cancelled(SHORT));
        start.elapsed() >= SHORT
    };
    assert!(sleeps());
    assert!(pool.spawn(sleeps).wait());
    assert!(threaded_separate(sleeps).async_call().wait());
}

/// Forbids: an iterator in `wait_cancelled` does not learn that its stream was closed.
#[test]
fn an_iterator_in_wait_cancelled_wakes_up_when_closed() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let (waits, is_waiting) = oneshot::channel();
        let mut waits = Some(waits);
        let mut stream = kind.stream(&pool, move || {
            std::iter::from_fn(move || {
                waits.take().unwrap().send(()).unwrap();
                assert!(wait_cancelled(Duration::MAX));
                None::<u8>
            })
        });
        assert!(poll_once(&mut stream).is_pending());
        is_waiting.recv_blocking().unwrap();
        block_on(stream.close());
    }
}

/// Forbids: a job in `wait_cancelled` keeps other jobs of its pool from running.
#[test]
fn a_job_in_wait_cancelled_delays_no_other_job() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let sleeper = pool.spawn(|| wait_cancelled(Duration::MAX));
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    sleeper.cancel();
    assert!(sleeper.wait());
}

// --- time-outs ------------------------------------------------------------------------------------------------------

/// Forbids: `wait_timeout` loses the job, its result, or its panic; or returns too early.
#[test]
fn wait_timeout_waits_for_the_given_time() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let gate = Gate::default();
    let inside = gate.clone();
    let job = pool.spawn(move || {
        inside.pass();
        7
    });
    let start = Instant::now();
    let Err(job) = job.wait_timeout(SHORT) else { panic!("the job cannot have finished") };
    assert!(start.elapsed() >= SHORT);
    let Err(job) = job.wait_timeout(Duration::ZERO) else { panic!("the job cannot have finished") };
    let Err(outcome) = job.outcome().wait_timeout(Duration::ZERO) else { panic!("the job cannot have finished") };
    gate.open();
    assert_eq!(outcome.wait_timeout(Duration::MAX).unwrap().unwrap(), 7);

    let job = pool.spawn(|| 8);
    until("the job has finished", || job.is_finished());
    assert_eq!(job.wait_timeout(Duration::ZERO).unwrap(), 8);
    let job = pool.spawn(|| quiet_panic("on purpose"));
    assert!(catch_unwind(AssertUnwindSafe(|| job.wait_timeout(Duration::MAX).map_err(|_| ()))).is_err());
    let outcome = pool.spawn(|| quiet_panic("on purpose")).outcome().wait_timeout(Duration::MAX).unwrap();
    assert!(matches!(outcome, Err(JoinError::Panicked(_))));

    // A job whose wait has timed out is cancelled when its handle is dropped.
    let held = hold(&pool, 1);
    let job = pool.spawn(|| ()).wait_timeout(Duration::ZERO).unwrap_err();
    drop(job);
    assert_eq!(pool.stats().cancelled, 1);
    release(held);
}

/// Forbids: a channel operation with a time-out loses an item, times out too early, or never does.
#[test]
fn channel_operations_wait_for_the_given_time() {
    let _watchdog = watchdog();
    let (mut sender, mut receiver) = spsc::channel(1);
    let start = Instant::now();
    assert_eq!(receiver.recv_blocking_timeout(SHORT), Err(spsc::RecvTimeoutError::Timeout));
    assert!(start.elapsed() >= SHORT);
    assert_eq!(sender.send_blocking_timeout(1, Duration::ZERO), Ok(()));
    let start = Instant::now();
    assert_eq!(sender.send_blocking_timeout(2, SHORT), Err(spsc::SendTimeoutError::Timeout(2)));
    assert!(start.elapsed() >= SHORT);
    assert_eq!(receiver.recv_blocking_timeout(Duration::ZERO), Ok(1));
    block_on(async {
        assert_eq!(sender.send_timeout(3, Duration::ZERO).await, Ok(()));
        let start = Instant::now();
        assert_eq!(sender.send_timeout(4, SHORT).await, Err(spsc::SendTimeoutError::Timeout(4)));
        assert!(start.elapsed() >= SHORT);
        let (sent, received) = gather!(sender.send_timeout(5, Duration::MAX), async {
            yield_now().await;
            receiver.recv().await
        })
        .await;
        assert_eq!((sent, received), (Ok(()), Some(3)));
    });
    let reader = thread::spawn(move || {
        let first = receiver.recv_blocking_timeout(Duration::MAX);
        let second = receiver.recv_blocking_timeout(Duration::MAX);
        (first, second, receiver.recv_blocking_timeout(Duration::MAX))
    });
    assert_eq!(sender.send_blocking_timeout(6, Duration::MAX), Ok(()));
    drop(sender);
    assert_eq!(reader.join().unwrap(), (Ok(5), Ok(6), Err(spsc::RecvTimeoutError::Closed)));

    let (mut sender, receiver) = spsc::channel(1);
    drop(receiver);
    assert_eq!(sender.send_blocking_timeout(1, Duration::MAX), Err(spsc::SendTimeoutError::Closed(1)));
    assert_eq!(block_on(sender.send_timeout(2, Duration::MAX)), Err(spsc::SendTimeoutError::Closed(2)));
}

/// Forbids: the blocking iterator over a receiver ends early, or never.
#[test]
fn a_loop_over_a_receiver_yields_all_items() {
    let _watchdog = watchdog();
    let (mut sender, receiver) = spsc::channel(2);
    let sends = thread::spawn(move || (0..100).all(|item| sender.send_blocking(item).is_ok()));
    let mut sum = 0;
    for item in receiver {
        sum += item;
    }
    assert_eq!(sum, 4950);
    assert!(sends.join().unwrap());
}

// --- race and try_gather --------------------------------------------------------------------------------------------

/// Forbids: the wrong future wins a `race`, or the loser has not been dropped when `race` returns.
#[test]
fn the_first_future_wins_a_race_and_the_other_is_dropped() {
    let _watchdog = watchdog();
    block_on(async {
        assert_eq!(race(ready(1), ready("b")).await, Either::Left(1));
        assert_eq!(race(pending::<u8>(), ready("b")).await, Either::Right("b"));
        assert_eq!(race(async { 5 }, pending()).await.into_inner(), 5);

        let dropped = Rc::new(Cell::new(false));
        let note = dropped.clone();
        let loser = async move {
            let _guard = on_drop(move || note.set(true));
            pending::<()>().await;
        };
        assert_eq!(
            race(loser, async {
                yield_now().await;
                3
            })
            .await,
            Either::Right(3)
        );
        assert!(dropped.get());

        // A job that loses is cancelled.
        let pool = ThreadPool::new(1);
        let held = hold(&pool, 1);
        assert_eq!(race(pool.spawn(|| ()), sleep(Duration::from_millis(1))).await, Either::Right(()));
        assert_eq!(pool.stats().cancelled, 1);
        release(held);
    });
}

/// Forbids: two branches become ready in one turn of the loop, and the second branch wins; or a branch is polled that
/// was not woken.
#[test]
fn the_first_branch_wins_if_both_are_ready() {
    let _watchdog = watchdog();
    block_on(async {
        let ((first, a), (second, b)) = (oneshot::channel(), oneshot::channel());
        let polls = Rc::new(Cell::new(0));
        let count = polls.clone();
        let mut a = a;
        let counted = poll_fn(move |cx| {
            count.set(count.get() + 1);
            std::pin::Pin::new(&mut a).poll(cx)
        });
        // The second branch wakes itself once: the race is polled again, but not its first branch.
        let second_branch = async move {
            yield_now().await;
            b.await
        };
        let racing = spawn(race(counted, second_branch));
        yield_now().await;
        assert_eq!(polls.get(), 1);
        yield_now().await;
        assert_eq!(polls.get(), 1);
        second.send(2).unwrap();
        first.send(1).unwrap();
        assert_eq!(racing.await, Either::Left(Ok(1)));
        assert_eq!(polls.get(), 2);
    });
}

/// Forbids: the branch that loses a `race`, or comes after an error of a `try_gather`, is polled in the same turn, and
/// so loses an item.
#[test]
fn the_other_branch_takes_no_item() {
    let _watchdog = watchdog();
    block_on(async {
        let (mut sender, mut receiver) = spsc::channel(3);
        let (first, is_first) = oneshot::channel();
        (0..3).for_each(|item| sender.try_send(item).unwrap());
        assert_eq!(race(ready(()), receiver.recv()).await, Either::Left(()));
        assert_eq!(receiver.recv().await, Some(0));
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(1), Some(2)));
        // Both branches are woken in one turn, the second branch first.
        let racing = spawn(async move { (race(is_first, receiver.recv()).await, receiver) });
        yield_now().await;
        sender.try_send(3).unwrap();
        first.send("first").unwrap();
        let (winner, mut receiver) = racing.await;
        assert_eq!(winner, Either::Left(Ok("first")));
        assert_eq!(receiver.recv().await, Some(3));

        let was_polled = Cell::new([false; 2]);
        let branches = [0, 1].map(async |branch| {
            let mut polled = was_polled.get();
            polled[branch] = true;
            was_polled.set(polled);
            Err::<(), _>(branch)
        });
        assert_eq!(try_gather(branches).await, Err(0));
        assert_eq!(was_polled.get(), [true, false]);
    });
}

/// Forbids: the branches of a `race` or a `try_gather` share a context.
#[test]
fn branches_have_their_own_contexts() {
    static ID: ContextVar<u8> = ContextVar::new();
    block_on(async {
        ID.set(1);
        let branch = |id| async move {
            ID.set(id);
            yield_now().await;
            assert_eq!(ID.get(), Some(id));
            yield_now().await;
        };
        race(branch(2), branch(3)).await;
        assert_eq!(ID.get(), Some(1));
        try_gather([4, 5].map(|id| async move {
            branch(id).await;
            Ok::<_, ()>(())
        }))
        .await
        .unwrap();
        assert_eq!(ID.get(), Some(1));
    });
}

/// Forbids: `try_gather` mixes up the order; or after an error, it waits for the other branches or does not drop them.
#[test]
fn the_first_error_drops_the_others() {
    let _watchdog = watchdog();
    block_on(async {
        assert_eq!(try_gather(Vec::<std::future::Ready<Result<u8, ()>>>::new()).await, Ok(vec![]));
        let all = try_gather((0..100).map(|n| async move {
            for _ in 0..n % 7 {
                yield_now().await;
            }
            Ok::<_, ()>(n)
        }));
        assert!(all.await.unwrap().into_iter().eq(0..100));

        let dropped = Rc::new(Cell::new(0));
        let results = try_gather((0..10).map(|n| {
            let note = dropped.clone();
            let guard = on_drop(move || note.set(note.get() + 1));
            async move {
                let _guard = guard;
                match n {
                    0 | 1 => Ok(n),
                    6 | 7 => {
                        yield_now().await;
                        Err(n)
                    }
                    _ => pending().await,
                }
            }
        }));
        assert_eq!(results.await, Err(6));
        assert_eq!(dropped.get(), 10);

        let panicked = panics(try_gather([async { quiet_panic("on purpose") as Result<(), ()> }])).await;
        assert!(panicked);
        assert_eq!(gather(Vec::<std::future::Ready<()>>::new()).await.len(), 0);
    });
}

/// Whether a future panics.
async fn panics(future: impl Future) -> bool {
    let mut future = Box::pin(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(_)) => Poll::Ready(false),
        Err(_) => Poll::Ready(true),
    })
    .await
}
