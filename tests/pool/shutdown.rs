//! How a pool ends: `drain`, `shutdown`, `shutdown_timeout`, the last handle, from outside and from its own jobs.
//!
//! Each test says what it forbids.

#![forbid(unsafe_code)]

use crate::helpers::pool::*;
use offthread::{Job, JoinError, ThreadPool, block_on, is_cancelled, oneshot, threaded_iterable};
use std::cell::RefCell;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

/// Every way to close a pool and wait for its end.
const WAYS: [fn(&ThreadPool); 3] =
    [ThreadPool::drain, ThreadPool::shutdown, |pool| pool.shutdown_timeout(Duration::MAX).unwrap()];

// --- from outside ---------------------------------------------------------------------------------------------------

/// Forbids that closing an unused or closed pool hangs or fails.
#[test]
fn an_unused_or_closed_pool_can_be_closed() {
    let _watchdog = watchdog();
    for first in WAYS {
        for second in WAYS {
            let pool = ThreadPool::new(2);
            assert!(!pool.is_closed());
            first(&pool);
            assert!(pool.is_closed());
            second(&pool);
            assert!(pool.clone().is_closed());
            assert_eq!((pool.stats().submitted, pool.stats().threads), (0, 0));
        }
    }
}

/// Forbids that a drain loses a queued job, returns before the last job has ended, or tells a running job to stop.
#[test]
fn drain_runs_all_queued_jobs() {
    let _watchdog = watchdog();
    for size in [1, 3] {
        let pool = ThreadPool::new(size);
        let held = hold(&pool, size - 1);
        let inside = pool.clone();
        let running = running(&pool, move || {
            until("the drain has begun", || inside.is_closed());
            is_cancelled()
        });
        let ran = Arc::new(AtomicUsize::new(0));
        let count = || {
            let ran = Arc::clone(&ran);
            move || {
                quiet_assert(!is_cancelled());
                ran.fetch_add(1, Ordering::SeqCst)
            }
        };
        let jobs: Vec<_> = (0..20).map(|_| pool.spawn(count())).collect();
        pool.spawn(count()).detach();
        drop(pool.spawn(count()));
        running.stop.open();
        stop_all(&held);
        pool.drain();
        assert_eq!(ran.load(Ordering::SeqCst), 21);
        assert!(!running.job.wait());
        assert!(jobs.into_iter().all(|job| job.is_finished() && job.outcome().wait().is_ok()));
        assert_at_rest(&pool);
        release(held);
    }
}

/// Forbids that a shutdown runs a queued job or leaks its closure, does not tell a running job to stop, or does not
/// wait for a running job.
#[test]
fn shutdown_cancels_queued_jobs_and_waits_for_running_ones() {
    let _watchdog = watchdog();
    for way in &WAYS[1..] {
        let pool = ThreadPool::new(2);
        let ended = Arc::new(AtomicUsize::new(0));
        let (told, were_told) = mpsc::channel();
        let start = || {
            let (ended, told) = (Arc::clone(&ended), told.clone());
            running(&pool, move || {
                until("the job is told", is_cancelled);
                told.send(()).unwrap();
                ended.fetch_add(1, Ordering::SeqCst);
                "the value"
            })
        };
        let (first, second) = (start(), start());
        let ran = Arc::new(AtomicBool::new(false));
        let (captured, dropped): (Vec<_>, Vec<_>) = (0..10).map(|_| traced()).unzip();
        let queued = pool.spawn_many(captured.into_iter().map(|captured| {
            let ran = Arc::clone(&ran);
            move || {
                let _captured = captured;
                ran.store(true, Ordering::SeqCst);
            }
        }));
        thread::scope(|scope| {
            let closer = spawn_until_asleep(scope, || {
                way(&pool);
                ended.load(Ordering::SeqCst)
            });
            // The queued jobs resolve although both threads are busy.
            queued.into_iter().for_each(assert_cancelled);
            assert!(dropped.into_iter().all(|dropped| dropped.recv().is_ok()));
            assert!(!closer.is_finished());
            first.stop.open();
            second.stop.open();
            assert_eq!(closer.join().unwrap(), 2, "the shutdown did not wait");
        });
        assert_eq!((were_told.recv(), were_told.recv()), (Ok(()), Ok(())));
        // The running jobs were only asked to stop: their handles yield the value.
        assert_eq!((first.job.wait(), second.job.wait()), ("the value", "the value"));
        assert!(!ran.load(Ordering::SeqCst));
        let stats = pool.stats();
        assert_eq!((stats.succeeded, stats.cancelled, stats.submitted), (2, 10, 12));
        assert_at_rest(&pool);
    }
}

/// Forbids that a shutdown does not tell a running job that is detached or blocked.
#[test]
fn shutdown_tells_every_running_job() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let (report, reported) = mpsc::channel();
    let (sender, receiver) = oneshot::channel();
    let also_report = report.clone();
    let detached = running(&pool, move || report.send(is_cancelled()).unwrap());
    detached.job.detach();
    let blocked = running(&pool, move || {
        receiver.recv_blocking().unwrap();
        also_report.send(is_cancelled()).unwrap();
    });
    blocked.stop.open();
    assert_eq!(pool.shutdown_timeout(Duration::ZERO).unwrap_err().running, 2);
    detached.stop.open();
    sender.send(()).unwrap();
    assert_eq!((reported.recv(), reported.recv()), (Ok(true), Ok(true)));
    blocked.job.wait();
    pool.shutdown();
}

/// Forbids that a shutdown does not cancel a queued job that is detached, waited for or awaited.
#[test]
fn shutdown_resolves_every_kind_of_handle() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let held = hold(&pool, 1);
    let (captured, dropped) = traced();
    pool.spawn(move || drop(captured)).detach();
    let (waited, awaited, resumed) = (pool.spawn(|| ()), pool.spawn(|| ()), pool.spawn(|| ()));
    let kept = pool.spawn(|| ());
    thread::scope(|scope| {
        let waited = scope.spawn(|| assert_cancelled(waited));
        let awaited = scope.spawn(|| assert!(matches!(block_on(awaited.outcome()), Err(JoinError::Cancelled))));
        let resumed = scope.spawn(|| catch_unwind(AssertUnwindSafe(|| resumed.wait())).unwrap_err());
        let closer = scope.spawn(|| pool.shutdown());
        waited.join().unwrap();
        awaited.join().unwrap();
        // Without a value, `wait` panics and says why.
        let panic = resumed.join().unwrap();
        assert!(text(&*panic).to_lowercase().contains("cancel"), "{}", text(&*panic));
        release(held);
        closer.join().unwrap();
    });
    assert!(dropped.recv().is_ok());
    assert!(kept.is_finished());
    assert_cancelled(kept);
    assert_eq!(pool.stats().cancelled, 5);
}

/// Forbids that a job of a closed pool does not resolve, or that its closure is leaked.
#[test]
fn a_closed_pool_refuses_jobs_at_once() {
    let _watchdog = watchdog();
    for close in WAYS {
        for used in [false, true] {
            let pool = ThreadPool::new(1);
            if used {
                pool.spawn(|| ()).wait();
            }
            close(&pool);
            let (captured, dropped) = traced();
            let job = pool.spawn(move || drop(captured));
            assert!(job.is_finished());
            assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
            assert_cancelled(job);
            for job in pool.spawn_many((0..5).map(|_| || ())) {
                assert!(job.is_finished());
                assert_cancelled(job);
            }
            pool.spawn(|| ()).detach();
            assert!(matches!(block_on(pool.spawn(|| ()).outcome()), Err(JoinError::Cancelled)));
            assert!(catch_unwind(AssertUnwindSafe(|| pool.spawn(|| ()).wait())).is_err());
            let stats = pool.stats();
            assert_eq!((stats.cancelled, stats.submitted), (9, 9 + u64::from(used)));
            assert_at_rest(&pool);
        }
    }
}

/// Forbids that a pool that is closing, but still busy, accepts a job.
#[test]
fn a_closing_pool_refuses_jobs_at_once() {
    let _watchdog = watchdog();
    for close in WAYS {
        let pool = ThreadPool::new(1);
        let held = hold(&pool, 1);
        thread::scope(|scope| {
            scope.spawn(|| close(&pool));
            until("the pool is closed", || pool.is_closed());
            let job = pool.spawn(|| ());
            assert!(job.is_finished());
            assert_cancelled(job);
            release(held);
        });
    }
}

/// Forbids that `shutdown_timeout` waits for ever, or that its error has a wrong number of running jobs.
#[test]
fn shutdown_timeout_says_how_many_still_run() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(3);
    let held = hold(&pool, 2);
    let third = running(&pool, || ());
    let queued = pool.spawn(|| ());
    for timeout in [Duration::ZERO, Duration::from_millis(10)] {
        let error = pool.shutdown_timeout(timeout).unwrap_err();
        assert_eq!(error.running, 3);
        assert!(error.to_string().contains('3'), "{error}");
        let boxed: Box<dyn Error + Send + Sync> = error.into();
        assert!(!format!("{boxed:?}").is_empty());
    }
    assert!(pool.is_closed());
    assert_cancelled(queued);
    assert_cancelled(pool.spawn(|| ()));
    third.finish();
    until("the third job has ended", || pool.shutdown_timeout(Duration::ZERO).unwrap_err().running == 2);
    release(held);
    pool.shutdown_timeout(Duration::MAX).unwrap();
    pool.shutdown_timeout(Duration::ZERO).unwrap();
    pool.shutdown();
    assert_at_rest(&pool);
}

/// Forbids that a shutdown waits for an earlier drain, or that this drain waits for the jobs that the shutdown cancels.
#[test]
fn a_shutdown_overtakes_a_drain() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let told = running(&pool, || until("the job is told", is_cancelled));
    let queued: Vec<_> = (0..5).map(|_| pool.spawn(|| ())).collect();
    thread::scope(|scope| {
        scope.spawn(|| pool.drain());
        until("the drain has begun", || pool.is_closed());
        assert!(queued.iter().all(|job| !job.is_finished()));
        scope.spawn(|| pool.shutdown());
        queued.into_iter().for_each(assert_cancelled);
        told.finish();
    });
    assert_at_rest(&pool);
}

/// Forbids that, of several threads that close the pool at once, one hangs or returns too early.
#[test]
fn several_threads_may_close_the_pool_at_once() {
    let _watchdog = watchdog();
    for round in 0..20 {
        let pool = ThreadPool::new(2);
        let held = [running(&pool, || ()), running(&pool, || ())];
        let over = AtomicBool::new(false);
        let barrier = Barrier::new(7);
        thread::scope(|scope| {
            for number in 0..6 {
                let (pool, over, barrier) = (&pool, &over, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    WAYS[(number + round) % 3](pool);
                    assert!(over.load(Ordering::SeqCst), "too early");
                });
            }
            barrier.wait();
            until("the pool is closed", || pool.is_closed());
            let [first, second] = held;
            first.finish();
            over.store(true, Ordering::SeqCst);
            second.finish();
        });
        assert_at_rest(&pool);
    }
}

/// Forbids that a job runs after the call that closes the pool has returned, or that a job that is submitted during the
/// call does not resolve.
#[test]
fn jobs_submitted_while_the_pool_closes_resolve() {
    let _watchdog = watchdog();
    for round in 0..60 {
        let pool = ThreadPool::new(1 + round % 3);
        let (over, ran, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut after_the_end = 0;
                    while after_the_end < 5 {
                        after_the_end += usize::from(over.load(Ordering::SeqCst));
                        let (over, ran) = (Arc::clone(&over), Arc::clone(&ran));
                        let job = pool.spawn(move || {
                            ran.fetch_add(1, Ordering::SeqCst);
                            quiet_assert(!over.load(Ordering::SeqCst));
                        });
                        match job.outcome().wait() {
                            Ok(()) => _ = taken.fetch_add(1, Ordering::SeqCst),
                            Err(JoinError::Cancelled) => assert!(pool.is_closed()),
                            Err(other) => panic!("a job ran after the end: {other}"),
                        }
                    }
                });
            }
            until("some have run", || ran.load(Ordering::SeqCst) > 20);
            WAYS[round % 2](&pool);
            over.store(true, Ordering::SeqCst);
        });
        assert_eq!(ran.load(Ordering::SeqCst), taken.load(Ordering::SeqCst));
        assert_at_rest(&pool);
    }
}

// --- threads --------------------------------------------------------------------------------------------------------

/// Forbids that an idle or busy thread outlives its pool for its keep-alive time, however the pool ends.
#[test]
fn all_threads_end_with_the_pool() {
    let _watchdog = watchdog();
    let close_and_drop = WAYS.map(|way| (Some(way), "closed")).into_iter().chain([(None, "dropped")]);
    for (number, (close, how)) in close_and_drop.enumerate() {
        let name = format!("ht-end{number}");
        let threads = Threads::default();
        let builder = ThreadPool::builder().threads(4).name(&name).keep_alive(Duration::MAX);
        let pool = threads.watch(builder).build();
        release(hold(&pool, 4));
        let busy = hold(&pool, 1);
        #[cfg(target_os = "linux")]
        until("the system lists all threads", || threads_named(&name).len() == 4);
        stop_all(&busy);
        if let Some(close) = close {
            close(&pool);
            until("no thread is counted", || pool.stats().threads == 0 && pool.stats().idle == 0);
        }
        drop(pool);
        threads.wait_for_all_to_stop();
        assert_eq!(threads.started(), 4, "{how}");
        #[cfg(target_os = "linux")]
        until("the system lists no thread", || threads_named(&name).is_empty());
        release(busy);
    }
}

/// Forbids that a thread is counted wrongly, and stays, when its pool is closed as the thread starts, ends or falls
/// asleep.
#[test]
fn no_thread_stays_whenever_its_pool_is_closed() {
    let _watchdog = watchdog();
    for round in 0..200_u32 {
        let threads = Threads::default();
        let keep_alive = Duration::from_micros(u64::from(round % 5) * 20);
        let pool = threads.watch(ThreadPool::builder().threads(2).keep_alive(keep_alive)).build();
        let (first, second) = (pool.spawn(|| ()), pool.spawn(|| ()));
        if round % 2 == 0 {
            first.wait();
        } else {
            first.detach();
        }
        (0..round % 40 * 50).for_each(|_| std::hint::spin_loop());
        match round % 4 {
            0 | 3 => drop(pool.clone()),
            1 => pool.shutdown(),
            _ => pool.drain(),
        }
        drop(pool);
        // The job resolves, with whatever outcome.
        let _ = second.outcome().wait();
        threads.wait_for_all_to_stop();
    }
}

/// Forbids that dropping the last handle waits, loses a queued job, or tells a job to stop.
#[test]
fn queued_jobs_run_after_the_last_handle_was_dropped() {
    let _watchdog = watchdog();
    let threads = Threads::default();
    let pool = threads.watch(ThreadPool::builder().threads(1)).build();
    let running = running(&pool, is_cancelled);
    let jobs: Vec<_> = (0..50).map(|number| pool.spawn(move || (number, is_cancelled()))).collect();
    let (sender, receiver) = mpsc::channel();
    pool.spawn(move || sender.send(is_cancelled()).unwrap()).detach();
    let clone = pool.clone();
    drop(pool);
    assert!(!clone.is_closed());
    drop(clone);
    // The drop has returned although the thread is busy.
    assert!(!running.finish());
    assert!(jobs.into_iter().map(Job::wait).eq((0..50).map(|number| (number, false))));
    assert_eq!(receiver.recv(), Ok(false));
    threads.wait_for_all_to_stop();
    assert_eq!(threads.started(), 1);
}

/// Forbids that a worker that drops the last handle joins itself, or loses queued jobs.
#[test]
fn the_last_handle_may_be_dropped_in_a_job() {
    let _watchdog = watchdog();
    for place in 0..6 {
        let threads = Threads::default();
        let pool = threads.watch(ThreadPool::builder().threads(2)).build();
        let held = hold(&pool, 2);
        let last = pool.clone();
        let keep = on_drop(move || drop(last));
        let mut cancelled = None;
        match place {
            // The last handle is dropped inside the job, at the end of the closure, with the result, with the payload,
            // by a panic, or by a cancel.
            0 => pool.spawn(move || drop(keep)).detach(),
            1 => pool.spawn(move || _ = &keep).detach(),
            2 => pool.spawn(move || keep).detach(),
            3 => pool.spawn(move || std::panic::panic_any(keep)).detach(),
            4 => {
                let job = pool.spawn(move || {
                    let _keep = keep;
                    resume_unwind(Box::new(1));
                });
                job.detach();
            }
            _ => cancelled = Some(pool.spawn(move || drop(keep))),
        }
        let after: Vec<_> = (0..10).map(|number| pool.spawn(move || number)).collect();
        let canceller = pool.spawn(move || drop(cancelled));
        drop(pool);
        release(held);
        assert!(after.into_iter().map(Job::wait).eq(0..10));
        // Waits until the canceller has run. The job that it cancels may have run before.
        canceller.wait();
        threads.wait_for_all_to_stop();
        assert_eq!(threads.started(), 2);
    }
}

// --- from its own jobs ----------------------------------------------------------------------------------------------

/// Forbids that a job that closes its own pool waits for itself.
#[test]
fn a_job_may_close_its_own_pool() {
    let _watchdog = watchdog();
    for size in [1, 2] {
        for close in WAYS {
            for again in WAYS {
                let threads = Threads::default();
                let pool = threads.watch(ThreadPool::builder().threads(size)).build();
                let inside = pool.clone();
                let job = pool.spawn(move || {
                    close(&inside);
                    assert_cancelled(inside.spawn(|| ()));
                    again(&inside);
                    1
                });
                assert_eq!(job.wait(), 1);
                // A drain from outside returns as well.
                pool.drain();
                assert_at_rest(&pool);
                threads.wait_for_all_to_stop();
            }
        }
    }
}

/// Forbids that a job that shuts its own pool down does not tell the other jobs to stop, or does not wait for them.
#[test]
fn a_job_that_closes_its_pool_waits_for_the_others() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let ended = Arc::new(AtomicBool::new(false));
    let (set, get) = (Arc::clone(&ended), Arc::clone(&ended));
    let other = running(&pool, move || {
        until("the job is told", is_cancelled);
        set.store(true, Ordering::SeqCst);
    });
    let (inside, (thread, threads)) = (pool.clone(), mpsc::channel());
    let closer = pool.spawn(move || {
        thread.send(ThisThread::new()).unwrap();
        inside.shutdown();
        get.load(Ordering::SeqCst)
    });
    threads.recv().unwrap().wait_until_asleep();
    assert!(!closer.is_finished());
    other.finish();
    assert!(closer.wait());
}

/// Forbids that a job that drains its own pool of one thread waits for ever for queued jobs.
#[test]
fn a_job_may_drain_its_pool_of_one_thread() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let inside = pool.clone();
    let order = Arc::new(AtomicUsize::new(0));
    let ran = Arc::clone(&order);
    let drainer = pool.spawn(move || {
        for _ in 0..10 {
            let ran = Arc::clone(&ran);
            inside.spawn(move || ran.fetch_add(1, Ordering::SeqCst)).detach();
        }
        inside.drain();
        ran.load(Ordering::SeqCst)
    });
    assert_eq!(drainer.wait(), 10);
    assert_at_rest(&pool);
}

/// Forbids that jobs that close their pool at the same time wait for each other, or that other threads do not wait for
/// them.
#[test]
fn jobs_and_other_threads_may_close_the_pool_at_once() {
    let _watchdog = watchdog();
    for round in 0..30 {
        let pool = ThreadPool::new(4);
        let barrier = Arc::new(Barrier::new(4 + 2));
        let (back, go_on) = (Arc::new(AtomicUsize::new(0)), Gate::default());
        let jobs: Vec<_> = (0..4)
            .map(|number| {
                let (inside, barrier) = (pool.clone(), Arc::clone(&barrier));
                let (back, go_on) = (Arc::clone(&back), go_on.clone());
                pool.spawn(move || {
                    barrier.wait();
                    WAYS[(number + round) % 3](&inside);
                    back.fetch_add(1, Ordering::SeqCst);
                    // The job still runs, and no other job's call waits for its end.
                    go_on.pass();
                    back.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        thread::scope(|scope| {
            for number in 0..2 {
                let (pool, barrier, back) = (&pool, &barrier, &back);
                scope.spawn(move || {
                    barrier.wait();
                    WAYS[(number + round) % 3](pool);
                    assert_eq!(back.load(Ordering::SeqCst), 8, "another thread did not wait");
                });
            }
            // None of the four jobs has ended, but the call of each has returned.
            until("all calls have returned", || back.load(Ordering::SeqCst) == 4);
            go_on.open();
        });
        jobs.into_iter().for_each(Job::wait);
        assert_at_rest(&pool);
    }
}

/// Forbids that a job that closes its pool waits for a job that has closed it before, and still runs.
#[test]
fn a_closing_job_does_not_wait_for_a_job_that_closed_before() {
    let _watchdog = watchdog();
    for (first, second) in [(WAYS[0], WAYS[1]), (WAYS[1], WAYS[0]), (WAYS[1], WAYS[1]), (WAYS[0], WAYS[2])] {
        let pool = ThreadPool::new(2);
        let (early_is_back, late_is_back) = (Gate::default(), Gate::default());
        let (inside, back, over) = (pool.clone(), early_is_back.clone(), late_is_back.clone());
        let late = running(&pool, move || {
            first(&inside);
            back.pass();
            second(&inside);
            over.open();
        });
        let inside = pool.clone();
        let early = running(&pool, move || {
            first(&inside);
            early_is_back.open();
            late_is_back.pass();
        });
        late.stop.open();
        early.finish();
        late.finish();
        assert_at_rest(&pool);
    }
}

/// Forbids that `shutdown_timeout` in a job counts the job itself as running.
#[test]
fn shutdown_timeout_in_a_job_does_not_count_the_job() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let other = running(&pool, || ());
    let inside = pool.clone();
    let closer = pool.spawn(move || inside.shutdown_timeout(Duration::from_millis(5)).unwrap_err().running);
    assert_eq!(closer.wait(), 1);
    other.finish();
    pool.shutdown();
}

/// Forbids that a job that runs inline in another job's `wait` waits for that job when it closes the pool.
#[test]
fn a_job_that_runs_inline_may_close_the_pool() {
    let _watchdog = watchdog();
    for close in WAYS {
        let pool = ThreadPool::new(1);
        let inside = pool.clone();
        let outer = pool.spawn(move || {
            let innermost = inside.clone();
            inside.spawn(move || close(&innermost)).wait();
            2
        });
        assert_eq!(outer.wait(), 2);
        assert_at_rest(&pool);
    }
}

/// Forbids that a job that shuts its pool down, and then waits for a cancelled job, hangs.
#[test]
fn a_job_that_waits_for_a_cancelled_job_learns_of_the_cancel() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let inside = pool.clone();
    let job = pool.spawn(move || {
        let queued = inside.spawn(|| ());
        inside.shutdown();
        assert_cancelled(queued);
        assert!(catch_unwind(AssertUnwindSafe(|| inside.spawn(|| ()).wait())).is_err());
        3
    });
    assert_eq!(job.wait(), 3);
}

/// Forbids that the jobs of two pools that close each other's pool, and then their own, hang.
#[test]
fn two_pools_may_close_each_other() {
    let _watchdog = watchdog();
    let (left, right) = (ThreadPool::new(1), ThreadPool::new(1));
    let both_run = Arc::new(Barrier::new(2));
    let close = |other: &ThreadPool, own: &ThreadPool| {
        let (other, own, both_run) = (other.clone(), own.clone(), Arc::clone(&both_run));
        move || {
            both_run.wait();
            // Without a wait, because the other job may wait for this one.
            let _ = other.shutdown_timeout(Duration::ZERO);
            own.shutdown();
        }
    };
    let (first, second) = (left.spawn(close(&right, &left)), right.spawn(close(&left, &right)));
    first.wait();
    second.wait();
    for pool in [left, right] {
        pool.drain();
        assert_at_rest(&pool);
    }
}

// --- user code during a shutdown ------------------------------------------------------------------------------------

/// Forbids that a shutdown drops jobs under a lock: their `Drop` may submit, read counters, close the pool, and drop
/// handles.
#[test]
fn values_dropped_by_a_shutdown_may_use_the_pool() {
    let _watchdog = watchdog();
    for from_a_job in [false, true] {
        let pool = ThreadPool::new(2);
        let held = hold(&pool, 1);
        let inside = pool.clone();
        let closer = running(&pool, move || inside.shutdown_timeout(Duration::ZERO).unwrap_err().running);
        let used = Arc::new(AtomicUsize::new(0));
        let queued = pool.spawn_many((0..10).map(|_| {
            let (inside, used) = (pool.clone(), Arc::clone(&used));
            let captured = on_drop(move || {
                assert_cancelled(inside.spawn(|| ()));
                assert!(inside.is_closed() && inside.stats().submitted > 10);
                inside.shutdown_timeout(Duration::ZERO).unwrap_err();
                used.fetch_add(1, Ordering::SeqCst);
            });
            move || drop(captured)
        }));
        if !from_a_job {
            assert_eq!(pool.shutdown_timeout(Duration::ZERO).unwrap_err().running, 2);
            assert_eq!(used.load(Ordering::SeqCst), 10);
        }
        assert_eq!(closer.finish(), 1);
        queued.into_iter().for_each(assert_cancelled);
        assert_eq!(used.load(Ordering::SeqCst), 10);
        release(held);
        pool.shutdown();
        assert_at_rest(&pool);
    }
}

/// Forbids that, after a panic in the `Drop` of a queued job, later jobs do not resolve.
#[test]
fn a_shutdown_survives_a_panic_in_a_drop() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let held = hold(&pool, 1);
    let (jobs, dropped): (Vec<_>, Vec<_>) = (0..9)
        .map(|_| {
            let (captured, dropped) = bomb();
            (pool.spawn(move || drop(captured)), dropped)
        })
        .unzip();
    let last = pool.spawn(|| ());
    // It is unspecified whether the panic comes out here.
    let _ = catch_unwind(AssertUnwindSafe(|| pool.shutdown_timeout(Duration::ZERO)));
    jobs.into_iter().for_each(assert_cancelled);
    assert_cancelled(last);
    for dropped in dropped {
        assert_eq!((dropped.recv().is_ok(), dropped.recv().is_ok()), (true, false));
    }
    release(held);
    pool.shutdown();
    assert_eq!(pool.stats().cancelled, 10);
    assert_at_rest(&pool);
}

/// Forbids that a panic of a job, or of its result's `Drop`, after the pool was closed delays the end.
#[test]
fn a_panic_after_the_close_does_not_delay_the_end() {
    let _watchdog = watchdog();
    for close in WAYS {
        let threads = Threads::default();
        let pool = threads.watch(ThreadPool::builder().threads(2)).build();
        let inside = pool.clone();
        let panicking = running(&pool, move || {
            until("the pool is closed", || inside.is_closed());
            resume_unwind(Box::new(1));
        });
        let (result, dropped) = bomb();
        let inside = pool.clone();
        let bombing = running(&pool, move || {
            until("the pool is closed", || inside.is_closed());
            result
        });
        panicking.stop.open();
        bombing.job.detach();
        bombing.stop.open();
        close(&pool);
        assert!(matches!(panicking.job.outcome().wait(), Err::<(), _>(JoinError::Panicked(_))));
        assert!(dropped.recv().is_ok());
        threads.wait_for_all_to_stop();
        assert_eq!(pool.stats().panicked, 1);
    }
}

/// Forbids that closing a pool does not wait for a running job whose handle was dropped.
#[test]
fn a_job_without_a_handle_is_waited_for() {
    let _watchdog = watchdog();
    for close in WAYS {
        let pool = ThreadPool::new(1);
        let ended = Arc::new(AtomicBool::new(false));
        let (inside, set) = (pool.clone(), Arc::clone(&ended));
        let job = running(&pool, move || {
            until("the pool is closed", || inside.is_closed());
            thread::yield_now();
            set.store(true, Ordering::SeqCst);
        });
        drop(job.job);
        job.stop.open();
        close(&pool);
        assert!(ended.load(Ordering::SeqCst));
        assert_at_rest(&pool);
    }
}

/// Forbids: one of two threads that call `drain` or `shutdown` returns before the destructors of the pool's
/// thread-locals have run.
#[test]
fn closing_waits_for_the_destructors_of_thread_locals() {
    struct Flag(Arc<AtomicBool>, Arc<Mutex<Vec<ThisThread>>>);
    impl Drop for Flag {
        fn drop(&mut self) {
            until("both threads close the pool", || self.1.lock().unwrap().len() == 2);
            // Each thread waits for this destructor, or has returned too early.
            let closers = self.1.lock().unwrap().clone();
            closers.iter().for_each(ThisThread::wait_until_asleep);
            self.0.store(true, Ordering::SeqCst);
        }
    }
    thread_local!(static FLAG: RefCell<Option<Flag>> = const { RefCell::new(None) });
    let _watchdog = watchdog();
    for close in [ThreadPool::drain, ThreadPool::shutdown] {
        let pool = ThreadPool::new(2);
        let (flags, closers): ([Arc<AtomicBool>; 2], Arc<Mutex<Vec<_>>>) = Default::default();
        let both = Arc::new(Barrier::new(2));
        let jobs = flags.clone().map(|flag| {
            let (both, closers) = (both.clone(), closers.clone());
            pool.spawn(move || {
                FLAG.set(Some(Flag(flag, closers)));
                both.wait();
            })
        });
        jobs.into_iter().for_each(Job::wait);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    closers.lock().unwrap().push(ThisThread::new());
                    close(&pool);
                    assert!(flags.iter().all(|flag| flag.load(Ordering::SeqCst)));
                });
            }
        });
    }
}

/// Forbids: closing a pool in the destructor of a thread-local, on a thread of this pool, waits for that same thread.
#[test]
fn a_thread_local_may_close_its_pool() {
    struct Closes(ThreadPool, fn(&ThreadPool), mpsc::Sender<()>);
    impl Drop for Closes {
        fn drop(&mut self) {
            self.1(&self.0);
            self.2.send(()).unwrap();
        }
    }
    thread_local!(static CLOSES: RefCell<Option<Closes>> = const { RefCell::new(None) });
    let _watchdog = watchdog();
    for close in [ThreadPool::drain, ThreadPool::shutdown] {
        let pool = ThreadPool::new(1);
        let (closed, has_closed) = mpsc::channel();
        pool.spawn({
            let pool = pool.clone();
            move || CLOSES.set(Some(Closes(pool, close, closed)))
        })
        .wait();
        close(&pool);
        has_closed.try_recv().expect("the destructor has run");
    }
}

/// Forbids: a running job that waits for a queued job hangs, because a shutdown is dropping the closure that precedes
/// the queued job, and the closure's `Drop` waits for the running job.
#[test]
fn a_job_may_wait_for_a_job_behind_a_closure_whose_drop_drains() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (runs, does_run) = mpsc::channel();
    let (start, started) = mpsc::channel::<Job<()>>();
    let running = pool.spawn(move || {
        runs.send(()).unwrap();
        started.recv().unwrap().outcome().wait().is_err()
    });
    does_run.recv().unwrap();
    let guard = on_drop({
        let pool = pool.clone();
        move || pool.drain()
    });
    let first = pool.spawn(move || drop(guard));
    let second = pool.spawn(|| ());
    let closing = thread::spawn({
        let pool = pool.clone();
        move || pool.shutdown()
    });
    until("the pool is closed", || pool.is_closed());
    start.send(second).unwrap();
    assert!(running.wait());
    closing.join().unwrap();
    assert!(first.outcome().wait().is_err());
}

/// Forbids: a job drains another pool, waits for that pool's stop hook, and so keeps its own pool from running the job
/// that the hook waits for.
#[test]
fn a_job_that_drains_another_pool_delays_no_job() {
    let _watchdog = watchdog();
    let own = ThreadPool::new(1);
    let other = ThreadPool::builder().threads(1).on_thread_stop({
        let own = own.clone();
        move || own.spawn(|| ()).wait()
    });
    let other = other.build();
    other.spawn(|| ()).wait();
    own.spawn(move || other.drain()).wait();
}

/// Forbids that a `shutdown` in the `Drop` of a cancelled closure returns before the closures that it refuses are gone.
#[test]
fn a_shutdown_in_a_drop_drops_the_closures_that_it_refuses() {
    /// Shuts the pool down in its `Drop`, and then waits for the end of the other closure.
    struct ShutsDown(ThreadPool, mpsc::Receiver<()>);
    impl Drop for ShutsDown {
        fn drop(&mut self) {
            assert!(self.0.shutdown_timeout(Duration::ZERO).is_err(), "the busy job still runs");
            assert_eq!(self.1.recv(), Err(mpsc::RecvError), "the other closure is gone");
        }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (stop, stopped) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let busy = pool.spawn(move || {
        begin.send(()).unwrap();
        let _ = stopped.recv();
    });
    begun.recv().unwrap();
    let (other, gone) = mpsc::channel::<()>();
    let shuts_down = ShutsDown(pool.clone(), gone);
    let first = pool.spawn(move || drop(shuts_down));
    let second = pool.spawn(move || drop(other));
    drop(first);
    assert_cancelled(second);
    drop(stop);
    busy.wait();
}

/// Forbids that one of two concurrent calls of `shutdown` returns while the other still drops paused iterators.
#[test]
fn each_of_two_shutdowns_waits_for_the_iterators_of_paused_iterables() {
    /// An endless iterator. Its `Drop` says that it begins, and waits.
    struct Slow(mpsc::Sender<()>, mpsc::Receiver<()>, Arc<AtomicBool>);
    impl Iterator for Slow {
        type Item = ();
        fn next(&mut self) -> Option<()> {
            Some(())
        }
    }
    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            let _ = self.1.recv();
            self.2.store(true, Ordering::SeqCst);
        }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (begin, begun) = mpsc::channel();
    let (go, gate) = mpsc::channel();
    let dropped = Arc::new(AtomicBool::new(false));
    let slow = Slow(begin, gate, dropped.clone());
    let mut items = threaded_iterable(|| slow).on(&pool).max_size(1);
    assert_eq!(block_on(items.next()), Some(()));
    until("the stream is paused", || pool.stats().idle == 1);
    thread::scope(|scope| {
        scope.spawn(|| pool.shutdown());
        begun.recv().unwrap();
        let second = scope.spawn(|| {
            let result = pool.shutdown_timeout(Duration::MAX);
            assert!(dropped.load(Ordering::SeqCst), "the iterator is not gone");
            result.unwrap();
        });
        // Gives the second call time to begin its wait, or to return too early.
        for _ in 0..100 {
            thread::yield_now();
        }
        drop(go);
        second.join().unwrap();
    });
}

/// Forbids that `shutdown_timeout` in a start hook says that all jobs have ended while another thread runs one.
#[test]
fn shutdown_timeout_in_a_start_hook_sees_the_job_of_another_thread() {
    let _watchdog = watchdog();
    let own = Arc::new(OnceLock::<ThreadPool>::new());
    let hooks = AtomicUsize::new(0);
    let (report, result) = mpsc::channel();
    let hook = {
        let own = own.clone();
        move || {
            if hooks.fetch_add(1, Ordering::SeqCst) == 1 {
                report.send(own.get().unwrap().shutdown_timeout(Duration::from_millis(1))).unwrap();
            }
        }
    };
    let pool = own.get_or_init(|| ThreadPool::builder().threads(2).on_thread_start(hook).build());
    let (begin, begun) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let busy = pool.spawn(move || {
        begin.send(()).unwrap();
        let _ = stopped.recv();
    });
    begun.recv().unwrap();
    pool.spawn(|| ()).detach();
    assert_eq!(result.recv().unwrap().unwrap_err().running, 1);
    drop(stop);
    busy.wait();
}

/// Forbids that a job that closes the pool, and a refused closure whose `Drop` drains the pool, wait for each other.
#[test]
fn a_job_and_the_drop_of_a_refused_closure_may_both_close_the_pool() {
    /// Says that its `Drop` begins, and drains the pool.
    struct Drains(ThreadPool, mpsc::Sender<()>);
    impl Drop for Drains {
        fn drop(&mut self) {
            self.1.send(()).unwrap();
            self.0.drain();
        }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (begin, begun) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let closes = pool.clone();
    let job = pool.spawn(move || {
        begin.send(()).unwrap();
        let _ = gate.recv();
        closes.shutdown();
    });
    begun.recv().unwrap();
    let (begin, begun) = mpsc::channel();
    let drains = Drains(pool.clone(), begin);
    pool.spawn(move || drop(drains)).detach();
    thread::scope(|scope| {
        scope.spawn(|| pool.shutdown());
        begun.recv().unwrap();
        drop(go);
    });
    job.wait();
}
