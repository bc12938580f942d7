//! `ThreadPool::map`: ordered and unordered, in async and in blocking code.

#![forbid(unsafe_code)]

use crate::helpers::iterables::*;
use offthread::{
    ContextVar, JoinError, Map, ThreadPool, block_on, is_cancelled, oneshot, sync_await, timeout, yield_now,
};
use std::collections::HashSet;
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

fn poll_now<I, F, R>(map: &mut Map<I, F, R>) -> Poll<Option<R>>
where
    I: Iterator<Item: Send + 'static>,
    F: Fn(I::Item) -> R + Send + Sync + 'static,
    R: Send + 'static,
{
    Pin::new(map).poll_next(&mut Context::from_waker(Waker::noop()))
}

/// Forbids: a result is lost, comes twice, or comes out of order.
#[test]
fn the_results_are_those_of_a_plain_map() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(3);
    for items in [0, 1, 5, 1000] {
        for max_size in [1, 2, 7, usize::MAX] {
            let expected: Vec<_> = (0..items).map(|n| n * n).collect();
            let map = || pool.map(0..items, |n: u32| n * n).max_size(max_size);
            assert_eq!(map().wait().collect::<Vec<_>>(), expected);
            let mut unordered: Vec<_> = map().unordered().wait().collect();
            unordered.sort_unstable();
            assert_eq!(unordered, expected);
            block_on(async {
                let mut awaited = map();
                for result in &expected {
                    assert_eq!(awaited.next().await, Some(*result));
                }
                assert_eq!((awaited.next().await, awaited.next().await), (None, None));
                let mut seen = HashSet::new();
                let mut awaited = map().unordered();
                while let Some(result) = poll_fn(|cx| Pin::new(&mut awaited).poll_next(cx)).await {
                    assert!(seen.insert(result));
                }
                assert_eq!(seen.len(), expected.len());
            });
        }
    }
}

/// Forbids: anything runs before the first poll; an item is taken from the iterator without room for its job; or more
/// than `max_size` jobs are submitted whose results have not been taken.
#[test]
fn a_map_is_lazy_and_bounded() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    for unordered in [false, true] {
        let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Gate::default());
        let (count, pass) = (asked.clone(), gate.clone());
        let items = (0..).inspect(move |_: &u32| _ = count.fetch_add(1, SeqCst));
        let mut map = pool.map(items, move |n| {
            pass.pass();
            n
        });
        map = map.max_size(3);
        if unordered {
            map = map.unordered();
        }
        let before = pool.stats().submitted;
        assert_eq!(asked.load(SeqCst), 0);
        for _ in 0..3 {
            assert!(poll_now(&mut map).is_pending());
            assert_eq!((asked.load(SeqCst), pool.stats().submitted - before), (3, 3));
        }
        gate.open();
        for taken in 1..100 {
            block_on(map.next()).unwrap();
            assert!(asked.load(SeqCst) <= 3 + taken);
        }
        drop(map);
    }
    // The default `max_size` is twice the number of threads.
    let held = hold(&pool, 2);
    let before = pool.stats().submitted;
    assert!(poll_now(&mut pool.map(0.., |n: u8| n)).is_pending());
    assert_eq!(pool.stats().submitted - before, 4);
    release(held);
}

/// Forbids: the panic of one job ends the whole map, or comes out of order.
#[test]
fn a_panic_is_resumed_at_its_place() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    for unordered in [false, true] {
        let function = |n: u32| if n == 3 { quiet_panic("on purpose") } else { n };
        let mut map = pool.map(0..6, function).max_size(2);
        if unordered {
            map = map.unordered();
        }
        let mut results = Vec::new();
        loop {
            match catch_unwind(AssertUnwindSafe(|| block_on(map.next()))) {
                Ok(Some(result)) => results.push(result),
                Ok(None) => break,
                Err(_) => results.push(3),
            }
        }
        if unordered {
            results.sort_unstable();
        }
        assert_eq!(results, [0, 1, 2, 3, 4, 5]);
    }
    let mut map = pool.map([1, 2], |n| if n == 1 { quiet_panic("on purpose") } else { n });
    assert!(catch_unwind(AssertUnwindSafe(|| block_on(map.next()))).is_err(), "in order");
    assert_eq!(block_on(map.next()), Some(2));
}

/// Forbids: dropping a map leaves its jobs running or queued, or wakes the task that drops it.
#[test]
fn dropping_a_map_cancels_its_jobs() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for unordered in [false, true] {
        let (told, is_told) = mpsc::channel();
        let (started, has_started) = mpsc::channel();
        let mut map = pool.map(0..5, move |_: u32| {
            started.send(()).unwrap();
            until("the job is cancelled", is_cancelled);
            told.send(()).unwrap();
        });
        map = map.max_size(5);
        if unordered {
            map = map.unordered();
        }
        let before = pool.stats().cancelled;
        let witness = Witness::default();
        assert!(Pin::new(&mut map).poll_next(&mut Context::from_waker(&witness.waker())).is_pending());
        has_started.recv().unwrap();
        drop(map);
        assert_eq!((witness.wakes(), witness.kept()), (0, 0));
        assert_eq!(pool.stats().cancelled - before, 4);
        is_told.recv().unwrap();
        assert!(has_started.try_recv().is_err(), "another job has started");
    }
}

/// Forbids: a `next` that is dropped loses a result, or keeps its waker.
#[test]
fn next_is_cancel_safe() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    for unordered in [false, true] {
        let gate = Gate::default();
        let pass = gate.clone();
        let mut map = pool.map(0..50_u32, move |n| {
            pass.pass();
            n
        });
        if unordered {
            map = map.unordered();
        }
        let witness = Witness::default();
        for _ in 0..3 {
            let mut next = pin!(map.next());
            assert!(next.as_mut().poll(&mut Context::from_waker(&witness.waker())).is_pending());
        }
        assert_eq!(witness.kept(), 0);
        gate.open();
        let mut results: Vec<_> = map.wait().collect();
        results.sort_unstable();
        assert!(results.into_iter().eq(0..50));
    }
}

/// Forbids: after its pool was closed, a map hangs, or panics more than once for each job that was cancelled.
#[test]
fn a_map_of_a_closed_pool_panics_once_for_each_cancelled_job() {
    let _watchdog = watchdog();
    for unordered in [false, true] {
        let pool = ThreadPool::new(1);
        let mut map = pool.map(0..3_u8, |n| n).max_size(2);
        if unordered {
            map = map.unordered();
        }
        assert!(block_on(map.next()).is_some());
        pool.shutdown();
        let (mut taken, mut panics) = (1, 0);
        loop {
            match catch_unwind(AssertUnwindSafe(|| block_on(map.next()))) {
                Ok(None) => break,
                Ok(Some(_)) => taken += 1,
                Err(_) => panics += 1,
            }
        }
        // At least the last item's job was refused.
        assert!(panics > 0 && taken + panics == 3, "{taken} taken, {panics} panics");
    }
}

/// Forbids: a job does not run in a copy of its consumer's context.
#[test]
fn jobs_have_the_context_of_the_consumer() {
    static ID: ContextVar<u8> = ContextVar::new();
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    ID.set(6);
    let map = pool.map(0..10, |_: u8| ID.get());
    // The map starts its jobs at the first poll.
    ID.set(7);
    assert!(map.wait().all(|id| id == Some(7)));
}

/// Forbids: a job that maps on its own pool of one thread hangs.
#[test]
fn a_job_may_map_on_its_own_pool() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let inside = pool.clone();
    let sum = pool.spawn(move || {
        let ordered: u32 = inside.map(0..100, |n| n).wait().sum();
        ordered + inside.map(0..100, |n| n).unordered().wait().sum::<u32>()
    });
    assert_eq!(sum.wait(), 9900);
}

/// Forbids: the cost of a result grows with the number of jobs in flight.
#[test]
fn a_result_costs_the_same_however_many_jobs_are_in_flight() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for unordered in [false, true] {
        let time = |max_size| {
            let mut map = pool.map(0..20_000_u32, |n| n).max_size(max_size);
            if unordered {
                map = map.unordered();
            }
            let start = Instant::now();
            assert_eq!(map.wait().map(u64::from).sum::<u64>(), 199_990_000);
            start.elapsed()
        };
        // Tries again if other processes have disturbed a measurement.
        let is_cheap = (0..3).any(|_| time(10_000) < 5 * time(100));
        assert!(is_cheap, "with a hundred times as many jobs in flight, a result takes five times as long");
    }
}

/// Forbids: with many jobs in flight, a result is lost, or a reader that never has to wait starves a time-out.
#[test]
fn many_jobs_may_be_in_flight() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    for unordered in [false, true] {
        let mut map = pool.map(0..100_000_u32, |n| n).max_size(10_000);
        if unordered {
            map = map.unordered();
        }
        let sum: u64 = map.wait().map(u64::from).sum();
        assert_eq!(sum, 4_999_950_000);

        let mut endless = pool.map(0_u64.., |n| n).max_size(10_000);
        if unordered {
            endless = endless.unordered();
        }
        let reads = async { while endless.next().await.is_some() {} };
        assert!(block_on(timeout(Duration::from_millis(20), reads)).is_err());

        // All results are there, so the reader never has to wait.
        let ready = ThreadPool::new(2);
        let mut full = ready.map(0..1000_u32, |n| n).max_size(1000);
        if unordered {
            full = full.unordered();
        }
        let first = usize::from(poll_now(&mut full).is_ready());
        until("all jobs have ended", || ready.stats().succeeded == 1000);
        let in_a_row = std::iter::repeat_with(|| poll_now(&mut full)).take_while(Poll::is_ready).count();
        assert!(first + in_a_row <= 128, "{in_a_row} results in a row");
    }
}

/// Forbids: the map is unusable after its items' iterator has panicked, or loses an item before or after the panic.
#[test]
fn the_iterator_may_panic() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let items = (0..5_u8).inspect(|n| {
        if *n == 2 {
            quiet_panic("on purpose")
        }
    });
    let mut map = pool.map(items, |n| n).max_size(1);
    assert_eq!(block_on(map.next()), Some(0));
    assert_eq!(block_on(map.next()), Some(1));
    assert!(catch_unwind(AssertUnwindSafe(|| block_on(map.next()))).is_err());
    assert_eq!(block_on(map.next()), Some(3));
    block_on(async {
        yield_now().await;
        assert_eq!((map.next().await, map.next().await), (Some(4), None));
    });
}

/// Forbids: a `max_size` of zero is accepted, or `unordered` after the first poll.
#[test]
fn settings_are_checked() {
    let pool = ThreadPool::new(1);
    assert!(catch_unwind(|| pool.map(0..1, |n: u8| n).max_size(0)).is_err());
    let mut map = pool.map(0..9, |n: u8| n);
    block_on(map.next());
    assert!(catch_unwind(AssertUnwindSafe(|| map.unordered())).is_err());
    let mut map = pool.map(0..9, |n: u8| n).unordered();
    block_on(map.next());
    assert!(catch_unwind(AssertUnwindSafe(|| map.unordered())).is_err(), "the map has started");
}

/// Forbids: a panic of the consumer's waker aborts the process when the function has panicked too, or makes a job count
/// as panicked although its function has returned.
#[test]
fn a_waker_that_panics_does_not_disturb_the_job() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            quiet_panic("in wake");
        }
    }
    let _watchdog = watchdog();
    for panics in [false, true] {
        let pool = ThreadPool::new(1);
        let gate = Gate::default();
        let pass = gate.clone();
        let function = move |n: u8| {
            pass.pass();
            if panics { quiet_panic("on purpose") } else { n }
        };
        let mut map = pool.map([1], function).unordered();
        let waker = Waker::from(Arc::new(Panics));
        assert!(Pin::new(&mut map).poll_next(&mut Context::from_waker(&waker)).is_pending());
        gate.open();
        // The job has to end before the map gets another waker.
        until("the job has ended", || pool.stats().succeeded + pool.stats().panicked == 1);
        let result = catch_unwind(AssertUnwindSafe(|| block_on(map.next())));
        assert_eq!(result.ok().flatten(), (!panics).then_some(1));
        assert_eq!(pool.stats().panicked, u64::from(panics));
    }
}

/// Forbids: items that were taken before the iterator panicked are lost, or come out of order.
#[test]
fn items_before_a_panic_are_not_lost() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    for unordered in [false, true] {
        let items = (0..9_u8).inspect(|n| {
            if *n == 5 {
                quiet_panic("on purpose")
            }
        });
        let mut map = pool.map(items, |n| n).max_size(9);
        if unordered {
            map = map.unordered();
        }
        let mut answers: Vec<_> = (0..9).map(|_| catch_unwind(AssertUnwindSafe(|| block_on(map.next())))).collect();
        assert_eq!(block_on(map.next()), None);
        if !unordered {
            assert!(answers[5].is_err());
        }
        answers.retain(Result::is_ok);
        let mut rest: Vec<_> = answers.into_iter().filter_map(Result::unwrap).collect();
        if unordered {
            rest.sort_unstable();
        }
        assert_eq!(rest, [0, 1, 2, 3, 4, 6, 7, 8]);
    }
}

/// Forbids: the consumer does not get the results of the items before the iterator's first panic, if the iterator
/// panics in each later call too.
#[test]
fn results_come_before_the_panics_of_an_iterator_that_always_panics() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let items = (0..).inspect(|n| {
        if *n >= 3 {
            quiet_panic("on purpose")
        }
    });
    let mut map = pool.map(items, |n| n);
    let answers = [(); 6].map(|()| catch_unwind(AssertUnwindSafe(|| block_on(map.next()))).ok().flatten());
    assert_eq!(answers, [Some(0), Some(1), Some(2), None, None, None]);
}

/// Forbids: a job whose map's iterator waits in `sync_await` does not unwind when the job is cancelled.
#[test]
fn a_cancelled_job_unwinds_out_of_the_iterator_of_its_map() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let (started, has_started) = oneshot::channel();
    let job = pool.spawn({
        let pool = pool.clone();
        move || {
            let mut started = Some(started);
            let items = (0..2).inspect(move |n| {
                if *n == 1 {
                    started.take().unwrap().send(()).unwrap();
                    sync_await(pending::<()>());
                }
            });
            pool.map(items, |n| n).wait().count()
        }
    });
    block_on(has_started).unwrap();
    assert!(!job.cancel());
    assert!(matches!(block_on(job.outcome()), Err(JoinError::Cancelled)));
}

/// Forbids: a consumer waits although the map has room for another job. Then, if the awaited job waits for that other
/// job, the consumer waits for ever.
#[test]
fn a_consumer_that_waits_leaves_no_room() {
    const IN_FLIGHT: usize = 8;
    let _watchdog = watchdog();
    for unordered in [false, true] {
        let pool = ThreadPool::new(IN_FLIGHT);
        let all = Arc::new(std::sync::Barrier::new(IN_FLIGHT));
        // The first job ends at once; the other jobs wait for one another.
        let function = move |n: usize| {
            if n > 0 {
                all.wait();
            }
            n
        };
        let mut map = pool.map(0..=IN_FLIGHT, function).max_size(IN_FLIGHT);
        if unordered {
            map = map.unordered();
        }
        assert_eq!(block_on(map.next()), Some(0));
        assert!(block_on(map.next()).is_some());
        assert_eq!(map.wait().count(), IN_FLIGHT - 1);
    }
}

/// Forbids: a map whose room is made smaller while its jobs are in flight panics, or loses a result.
#[test]
fn max_size_may_become_smaller_while_jobs_are_in_flight() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    for unordered in [false, true] {
        let mut map = pool.map(0..20_u8, |n| n).max_size(8);
        if unordered {
            map = map.unordered();
        }
        let first = block_on(map.next()).into_iter();
        let mut all: Vec<_> = first.chain(map.max_size(1).wait()).collect();
        if unordered {
            all.sort_unstable();
        }
        assert!(all.into_iter().eq(0..20));
    }
}

/// Forbids: the process aborts when two results of a map that is dropped panic in `Drop`; or a result is not dropped.
#[test]
fn results_whose_drop_panics_are_dropped_with_the_map() {
    struct Bomb(Arc<AtomicUsize>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            quiet_panic("in drop");
        }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let held = hold(&pool, 1);
    let dropped = Arc::<AtomicUsize>::default();
    let count = dropped.clone();
    let mut map = pool.map(0..3, move |_| Bomb(count.clone())).max_size(3);
    assert!(Pin::new(&mut map).poll_next(&mut Context::from_waker(Waker::noop())).map(std::mem::forget).is_pending());
    release(held);
    until("all jobs have ended", || pool.stats().succeeded == 4);
    drop(map);
    // A job is counted before its result is sent, so a worker may drop the last result.
    until("all results are dropped", || dropped.load(SeqCst) == 3);
}
