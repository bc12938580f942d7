//! Jobs on separate threads: `threaded_separate` and `Threaded::separate`.
//!
//! Each test says what it forbids.

#![forbid(unsafe_code)]

use crate::helpers::pool::*;
use offthread::{Job, JoinError, ThreadPool, block_on, is_cancelled, oneshot, threaded, threaded_separate};
use std::collections::HashSet;
use std::future::IntoFuture;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::{self, ThreadId};

/// A separate job that has started, and runs until it is told to stop.
fn running_separate<R: Send + 'static>(end: impl FnOnce() -> R + Send + 'static) -> Running<R> {
    let (started, stop) = (Gate::default(), Gate::default());
    let (start, inside) = (started.clone(), stop.clone());
    let job = threaded_separate(move || {
        start.open();
        inside.pass();
        end()
    })
    .async_call();
    started.pass();
    Running { job, stop }
}

fn id() -> ThreadId {
    thread::current().id()
}

/// Forbids that a way to run a separate job does not return the result.
#[test]
fn every_way_to_run_a_separate_job_returns_the_result() {
    let _watchdog = watchdog();
    assert_eq!(threaded_separate(|| 1).async_call().wait(), 1);
    assert_eq!(threaded(|| 2).separate().async_call().wait(), 2);
    assert_eq!(block_on(threaded_separate(|| 3)), 3);
    assert_eq!(block_on(async { threaded(|| 4).separate().name("ht-four").await }), 4);
    assert_eq!(block_on(threaded_separate(|| 5).into_future()), 5);
    assert!(matches!(threaded_separate(|| 6).async_call().outcome().wait(), Ok(6)));
    assert!(matches!(block_on(threaded_separate(|| 7).async_call().outcome()), Ok(7)));
    assert_eq!(threaded_separate(|| 8).sync_call(), 8);
}

/// Forbids that a separate job shares its thread with another separate job, with a pool, or with its caller.
#[test]
fn each_job_has_its_own_thread() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let barrier = Arc::new(Barrier::new(50));
    let jobs: Vec<_> = (0..50)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            // No job ends before all have started: there is no limit, and no queue.
            let meet = move || {
                barrier.wait();
                id()
            };
            threaded_separate(meet).async_call()
        })
        .collect();
    let ids: HashSet<_> = jobs.into_iter().map(Job::wait).chain([id(), thread_of(&pool)]).collect();
    assert_eq!(ids.len(), 52);
    // Also if they run one after the other.
    let ids: HashSet<_> = (0..20).map(|_| threaded_separate(id).async_call().wait()).collect();
    assert_eq!(ids.len(), 20);
    assert_eq!(threaded_separate(id).sync_call(), id());
}

/// Forbids that the thread lacks the given name, or that a name is mandatory.
#[test]
fn the_thread_has_the_name() {
    let _watchdog = watchdog();
    assert_eq!(threaded_separate(own_name).name("ht-first").async_call().wait(), "ht-first");
    assert_eq!(threaded(own_name).separate().name(String::from("ht-second")).async_call().wait(), "ht-second");
    assert_eq!(threaded(own_name).name("ht-third").separate().async_call().wait(), "ht-third");
    threaded_separate(own_name).async_call().wait();
    #[cfg(target_os = "linux")]
    {
        let comm = || std::fs::read_to_string("/proc/thread-self/comm").unwrap();
        assert_eq!(threaded_separate(comm).name("ht-system").async_call().wait(), "ht-system\n");
    }
}

/// Forbids that the thread outlives its job, however the job ends.
#[cfg(target_os = "linux")]
#[test]
fn the_thread_ends_with_the_job() {
    let _watchdog = watchdog();
    let stop = Gate::default();
    let jobs: Vec<_> = (0..8)
        .map(|number| {
            let stop = stop.clone();
            let (result, _dropped) = bomb();
            let job = move || {
                stop.pass();
                if number % 2 == 0 { panic_any(result) } else { result }
            };
            threaded_separate(job).name("ht-ends").async_call()
        })
        .collect();
    until("all have started", || threads_named("ht-ends").len() == 8);
    jobs.into_iter().for_each(Job::detach);
    stop.open();
    until("all have ended", || threads_named("ht-ends").is_empty());
}

/// Forbids that a separate job starts before the call, or that it needs a poll to start.
#[test]
fn a_separate_job_starts_when_it_is_called() {
    let _watchdog = watchdog();
    let (captured, dropped) = traced();
    let ran = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&ran);
    let call = threaded_separate(move || {
        let _captured = captured;
        set.store(true, Ordering::SeqCst);
    });
    assert!(!format!("{call:?}").is_empty());
    drop(call);
    assert_eq!(dropped.try_recv(), Ok(id()));
    assert!(!ran.load(Ordering::SeqCst));
    let (sender, receiver) = mpsc::channel();
    let job = threaded_separate(move || sender.send(1).unwrap()).async_call();
    assert_eq!(receiver.recv(), Ok(1));
    until("the job is finished", || job.is_finished());
    assert!(!job.cancel());
    job.wait();
}

/// Forbids that a panic is lost, aborts the process, or does not come out where the result is awaited.
#[test]
fn a_panic_comes_out_where_it_is_awaited() {
    fn panic() {
        panic_any(5);
    }
    let _watchdog = watchdog();
    let call = || threaded_separate(panic);
    let resumed: [Box<dyn FnOnce()>; 3] =
        [Box::new(|| call().async_call().wait()), Box::new(|| block_on(call())), Box::new(|| call().sync_call())];
    for resume in resumed {
        let payload = catch_unwind(AssertUnwindSafe(resume)).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&5));
    }
    let error = threaded_separate(|| resume_unwind(Box::new("the text"))).async_call().outcome().wait();
    let Err::<(), _>(JoinError::Panicked(panic)) = error else { panic!("no panic") };
    assert_eq!(panic.message(), "the text");
    call().async_call().detach();
    drop(call().async_call());
}

/// Forbids that a panic in the `Drop` of a closure, a result or a payload aborts the process or hangs.
#[test]
fn a_panic_in_a_drop_neither_aborts_nor_hangs() {
    let _watchdog = watchdog();
    let ways: [fn(Job<Bomb>); 2] = [drop, Job::detach];
    for end in ways {
        for panics in [false, true] {
            let (result, dropped) = bomb();
            let job = running_separate(move || if panics { panic_any(result) } else { result });
            end(job.job);
            job.stop.open();
            assert_ne!(dropped.recv().unwrap(), id());
            assert!(dropped.recv().is_err(), "dropped twice");
        }
    }
    let (captured, dropped) = bomb();
    let job = threaded_separate(move || drop(captured)).async_call();
    assert!(matches!(job.outcome().wait(), Err(JoinError::Panicked(_))));
    assert!(dropped.recv().is_ok() && dropped.recv().is_err());
}

/// Forbids that a job that is cancelled just as it starts both runs and is cancelled, or neither.
#[test]
fn a_job_cancelled_as_it_starts_runs_or_is_cancelled() {
    let _watchdog = watchdog();
    for round in 0..100 {
        let ran = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&ran);
        let job = threaded_separate(move || set.store(true, Ordering::SeqCst)).async_call();
        (0..round * 20).for_each(|_| std::hint::spin_loop());
        let in_time = job.cancel();
        assert!(!in_time || Arc::strong_count(&ran) == 1, "the closure has not been dropped");
        assert_eq!(matches!(job.outcome().wait(), Err(JoinError::Cancelled)), in_time);
        assert_eq!(ran.load(Ordering::SeqCst), !in_time);
        assert_eq!(Arc::strong_count(&ran), 1);

        let (captured, dropped) = traced();
        drop(threaded_separate(move || drop(captured)).async_call());
        assert!(dropped.recv().is_ok() && dropped.recv().is_err());
    }
}

/// Forbids that a running job does not learn of a cancel or of its handle's drop, or counts as cancelled after a
/// `detach`.
#[test]
fn a_running_job_learns_of_a_cancel() {
    let _watchdog = watchdog();
    let asked = running_separate(is_cancelled);
    assert!(!asked.job.cancel());
    assert!(asked.finish());
    let ways: [fn(Job<Traced>); 3] = [drop, |job| drop(job.outcome()), Job::detach];
    for (end, told) in ways.into_iter().zip([true, true, false]) {
        let (result, dropped) = traced();
        let (report, reported) = mpsc::channel();
        let job = running_separate(move || {
            report.send((id(), is_cancelled())).unwrap();
            result
        });
        end(job.job);
        job.stop.open();
        let (thread, was_told) = reported.recv().unwrap();
        assert_eq!(was_told, told);
        assert_eq!(dropped.recv(), Ok(thread));
    }
    assert!(!running_separate(is_cancelled).finish());
}

/// Forbids that a captured value is still alive when the handle resolves, or that a result is dropped on the wrong
/// thread.
#[test]
fn captured_values_and_results_are_dropped_on_the_right_thread() {
    let _watchdog = watchdog();
    for panics in [false, true] {
        let (captured, dropped) = traced();
        let job = threaded_separate(move || {
            let _captured = captured;
            quiet_assert(!panics);
        });
        assert_eq!(job.async_call().outcome().wait().is_err(), panics);
        assert!(dropped.try_recv().is_ok_and(|thread| thread != id()));
    }
    let (result, dropped) = traced();
    let job = threaded_separate(move || result).async_call();
    until("the job is finished", || job.is_finished());
    assert!(dropped.try_recv().is_err());
    drop(job);
    assert_eq!(dropped.try_recv(), Ok(id()));
}

/// Forbids that separate jobs and jobs of a pool hang when they wait for each other.
#[test]
fn separate_threads_and_pools_wait_for_each_other() {
    fn nest(pool: &ThreadPool, left: u32) -> u32 {
        let inside = pool.clone();
        match left {
            0 => 0,
            _ if left % 2 == 0 => threaded_separate(move || nest(&inside, left - 1)).async_call().wait() + 1,
            _ => block_on(pool.spawn(move || nest(&inside, left - 1))) + 1,
        }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    assert_eq!(nest(&pool, 20), 20);
    let (sender, receiver) = oneshot::channel();
    let waiting = threaded_separate(|| receiver.recv_blocking().unwrap()).async_call();
    pool.spawn(move || sender.send(3).unwrap()).wait();
    assert_eq!(waiting.wait(), 3);
}

/// Forbids that a separate job belongs to the pool of the job that started it, and that it is affected by this pool's
/// end.
#[test]
fn a_separate_job_is_in_no_pool() {
    let _watchdog = watchdog();
    let pool = ThreadPool::builder().threads(1).name("ht-pool").build();
    let started = pool.spawn(|| running_separate(|| (is_cancelled(), threaded(own_name).async_call().wait()))).wait();
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.threads, running_now(&stats)), (1, 1, 0));
    pool.shutdown();
    assert!(!started.job.is_finished());
    // A job that the separate job starts goes to the global pool, as on any thread without a pool.
    let (told, name) = started.finish();
    assert!(!told && !name.starts_with("ht-pool"), "{name}");
    // A job of a closed pool may start a separate job.
    let pool = ThreadPool::new(1);
    let inside = pool.clone();
    let job = pool.spawn(move || {
        inside.shutdown();
        threaded_separate(|| 4).async_call().wait()
    });
    assert_eq!(job.wait(), 4);
}
