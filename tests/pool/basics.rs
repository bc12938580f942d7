//! The pool from outside: builder, threads, counters, and jobs that are cancelled or panic.
//!
//! Each test says what it forbids.

#![forbid(unsafe_code)]

use crate::helpers::pool::*;
use offthread::{Job, JoinError, ThreadPool, block_on, is_cancelled, threaded};
use std::collections::HashSet;
use std::error::Error;
use std::future::Future;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

// --- the builder and the threads ------------------------------------------------------------------------------------

/// Forbids a pool of zero threads, and a panic whose message does not name the argument `threads`.
#[test]
fn a_pool_of_zero_threads_panics() {
    let makers: [fn() -> ThreadPool; 2] = [|| ThreadPool::new(0), || ThreadPool::builder().threads(0).build()];
    for make in makers {
        let panic = catch_unwind(make).unwrap_err();
        assert!(text(&*panic).contains("threads"), "{}", text(&*panic));
    }
}

/// Forbids that a setting of the builder is mandatory.
#[test]
fn a_pool_needs_no_settings() {
    let _watchdog = watchdog();
    let pool = ThreadPool::builder().build();
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    assert!(!format!("{pool:?}").is_empty());
}

/// Forbids that threads start without jobs, that there are more threads than jobs, or more threads than the size.
#[test]
fn threads_start_one_by_one_up_to_the_size() {
    let _watchdog = watchdog();
    let threads = Threads::default();
    let pool = threads.watch(ThreadPool::builder().threads(3)).build();
    assert_eq!((pool.stats().threads, threads.started()), (0, 0));
    let mut held = Vec::new();
    for number in 1..=3 {
        held.extend(hold(&pool, 1));
        assert_eq!((pool.stats().threads, threads.started()), (number, number));
    }
    let queued: Vec<_> = (0..5).map(|number| pool.spawn(move || number)).collect();
    assert_eq!((pool.stats().threads, pool.stats().queued, threads.started()), (3, 5, 3));
    release(held);
    assert!(queued.into_iter().map(Job::wait).eq(0..5));
    assert_eq!((pool.stats().threads, threads.started()), (3, 3));
}

/// Forbids a second thread for jobs that are submitted one after the other, each when the one before has resolved.
#[test]
fn a_loop_of_jobs_needs_one_thread() {
    let _watchdog = watchdog();
    let threads = Threads::default();
    let pool = threads.watch(ThreadPool::builder().threads(4)).build();
    for round in 0..300 {
        assert_eq!(if round % 2 == 0 { pool.spawn(|| 1).wait() } else { block_on(pool.spawn(|| 1)) }, 1);
    }
    assert_eq!(threads.started(), 1);
}

/// Forbids a second thread for a loop that awaits a thousand jobs.
#[test]
fn a_loop_of_awaited_jobs_needs_one_thread() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(4);
    block_on(async {
        for number in 0..1000 {
            assert_eq!(pool.spawn(move || number).await, number);
        }
    });
    assert_eq!(pool.stats().threads, 1);
}

/// Forbids that two jobs are left to one idle thread, because the count of idle threads is stale or wrong; also if the
/// thread ends at that moment.
#[test]
fn two_waiting_jobs_are_not_left_to_one_idle_thread() {
    let _watchdog = watchdog();
    for keep_alive in [Duration::from_secs(10), Duration::from_micros(50), Duration::ZERO] {
        let pool = ThreadPool::builder().threads(3).keep_alive(keep_alive).build();
        for round in 0..200 {
            let barrier = Arc::new(Barrier::new(2 + round % 2));
            let meet = || {
                let barrier = Arc::clone(&barrier);
                pool.spawn(move || barrier.wait().is_leader())
            };
            // No job returns before all of them run.
            let jobs: Vec<_> = (0..2 + round % 2).map(|_| meet()).collect();
            assert_eq!(jobs.into_iter().map(Job::wait).filter(|leader| *leader).count(), 1);
            let stats = pool.stats();
            assert!(stats.idle <= stats.threads && stats.threads <= 3, "{stats:?}");
        }
    }
}

/// Forbids that a thread of a pool lacks the given name.
#[test]
fn every_thread_has_the_name() {
    let _watchdog = watchdog();
    let pool = ThreadPool::builder().threads(3).name("ht-named").build();
    for held in hold(&pool, 2) {
        held.finish();
    }
    let barrier = Arc::new(Barrier::new(3));
    let names = pool.spawn_many((0..3).map(|_| {
        let barrier = Arc::clone(&barrier);
        move || {
            barrier.wait();
            own_name()
        }
    }));
    assert!(names.into_iter().all(|name| name.wait().starts_with("ht-named")));
    #[cfg(target_os = "linux")]
    until("the system lists all threads", || threads_named("ht-named").len() == 3);
    assert!(!ThreadPool::new(1).spawn(own_name).wait().is_empty());
}

/// With `left` 1000, uses some eight megabytes of stack, four times a thread's default.
#[inline(never)]
fn deep(left: u32) -> u64 {
    let frame = black_box([1_u8; 8192]);
    if left == 0 { 0 } else { u64::from(black_box(&frame)[left as usize]) + deep(left - 1) }
}

/// Forbids that `stack_size` has no effect.
#[test]
fn the_stack_has_the_given_size() {
    let _watchdog = watchdog();
    let pool = ThreadPool::builder().threads(1).stack_size(1 << 26).build();
    assert_eq!(pool.spawn(|| deep(1000)).wait(), 1000);
}

/// Forbids that idle threads never end, or that the pool cannot start new ones afterwards.
#[test]
fn after_a_burst_the_threads_end() {
    let _watchdog = watchdog();
    let threads = Threads::default();
    let builder = ThreadPool::builder().threads(8).name("ht-burst").keep_alive(Duration::from_millis(30));
    let pool = threads.watch(builder).build();
    for burst in 1..=2 {
        let held = hold(&pool, 8);
        assert_eq!(pool.stats().threads, 8);
        #[cfg(target_os = "linux")]
        until("the system lists all threads", || threads_named("ht-burst").len() == 8);
        release(held);
        until("all threads have ended", || pool.stats().threads == 0);
        assert_eq!(pool.stats().idle, 0);
        #[cfg(target_os = "linux")]
        until("the system lists no thread", || threads_named("ht-burst").is_empty());
        assert_eq!((threads.started(), threads.stopped()), (8 * burst, 8 * burst));
    }
    assert_eq!(pool.spawn(|| 1).wait(), 1);
}

/// Forbids that a trickle of jobs keeps all threads alive: the most recently idle thread must be woken first.
#[test]
fn a_trickle_lets_the_other_threads_end() {
    let _watchdog = watchdog();
    let pool = ThreadPool::builder().threads(4).keep_alive(Duration::from_millis(250)).build();
    release(hold(&pool, 4));
    assert_eq!(pool.stats().threads, 4);
    // If the jobs went to the four threads in turn, each thread would get a job about every twenty milliseconds.
    until("the others have ended", || {
        thread::sleep(Duration::from_millis(4));
        pool.spawn(|| ()).wait();
        pool.stats().threads <= 1
    });
}

/// Forbids that a job is lost because an idle thread ends as the job arrives.
#[test]
fn no_job_is_lost_to_a_thread_that_ends() {
    let _watchdog = watchdog();
    for (size, micros) in [(1, 0), (1, 20), (2, 100), (3, 300)] {
        let threads = Threads::default();
        let keep_alive = Duration::from_micros(micros);
        let pool = threads.watch(ThreadPool::builder().threads(size).keep_alive(keep_alive)).build();
        for round in 0..300_u32 {
            assert_eq!(pool.spawn(move || round).wait(), round);
            // The next job comes just before, at, or just after the end of the thread.
            let pause = Instant::now() + keep_alive * (round % 21) / 10;
            while Instant::now() < pause {
                std::hint::spin_loop();
            }
        }
        until("all threads have ended", || pool.stats().threads == 0);
        threads.wait_for_all_to_stop();
        assert_eq!(pool.stats().idle, 0);
    }
}

/// Forbids that a keep-alive time of `Duration::MAX` overflows, or ends the thread at once.
#[test]
fn an_endless_keep_alive_time_does_not_overflow() {
    let _watchdog = watchdog();
    let threads = Threads::default();
    let pool = threads.watch(ThreadPool::builder().threads(2).keep_alive(Duration::MAX)).build();
    let worker = thread_of(&pool);
    until("the thread is idle", || pool.stats().idle == 1);
    assert_eq!(thread_of(&pool), worker);
    drop(pool);
    threads.wait_for_all_to_stop();
}

/// Forbids a start hook without a stop hook, or a hook that runs twice, on another thread, or between jobs.
#[test]
fn hooks_are_paired_and_run_on_their_thread() {
    let _watchdog = watchdog();
    let events = Arc::new(Mutex::new(Vec::<(ThreadId, &str)>::new()));
    let record = |what| {
        let events = Arc::clone(&events);
        move || events.lock().unwrap().push((thread::current().id(), what))
    };
    let pool = ThreadPool::builder().threads(2).on_thread_start(record("start")).on_thread_stop(record("stop")).build();
    let barrier = Arc::new(Barrier::new(2));
    for _ in 0..2 {
        let jobs: Vec<_> = (0..2)
            .map(|number| {
                let (barrier, run) = (Arc::clone(&barrier), record("job"));
                pool.spawn(move || {
                    barrier.wait();
                    run();
                    if number == 1 {
                        resume_unwind(Box::new("a panic"));
                    }
                })
            })
            .collect();
        assert_eq!(jobs.into_iter().map(|job| job.outcome().wait()).filter(Result::is_err).count(), 1);
    }
    pool.drain();
    until("both have stopped", || events.lock().unwrap().len() == 8);
    let events = events.lock().unwrap();
    let ids: HashSet<_> = events.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), 2);
    for id in ids {
        let events = events.iter().filter(|event| event.0 == id).map(|event| event.1);
        assert!(events.eq(["start", "job", "job", "stop"]));
    }
}

/// Forbids that a panic of a job ends a thread, or that a stop hook is left out after it.
#[test]
fn hooks_are_paired_after_panics() {
    let _watchdog = watchdog();
    let threads = Threads::default();
    let pool = threads.watch(ThreadPool::builder().threads(1)).build();
    for round in 0..10 {
        let (result, _dropped) = bomb();
        let running = running(&pool, move || if round % 2 == 0 { panic_any(result) } else { result });
        running.job.detach();
        running.stop.open();
    }
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    assert_eq!((threads.started(), threads.stopped()), (1, 0));
    drop(pool);
    threads.wait_for_all_to_stop();
    assert_eq!(threads.started(), 1);
}

/// Forbids that an idle thread wakes up.
#[cfg(target_os = "linux")]
#[test]
fn idle_threads_sleep() {
    let _watchdog = watchdog();
    let pool = ThreadPool::builder().threads(3).name("ht-idle").keep_alive(Duration::from_secs(600)).build();
    release(hold(&pool, 3));
    let mut tasks = Vec::new();
    until("the system lists all threads", || {
        tasks = threads_named("ht-idle");
        tasks.len() == 3
    });
    let switches = || {
        let voluntary = |task: &std::path::PathBuf| {
            let status = std::fs::read_to_string(task.join("status")).unwrap();
            status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
        };
        tasks.iter().map(voluntary).collect::<Vec<_>>()
    };
    let quiet_for = |time| {
        let before = switches();
        thread::sleep(time);
        before == switches()
    };
    // The threads may yield first, and on a busy machine for long. Afterwards no thread may wake up within a second.
    until("the threads are idle", || pool.stats().idle == 3);
    until("the threads have gone to sleep", || quiet_for(Duration::from_millis(100)));
    assert!(quiet_for(Duration::from_secs(1)), "an idle thread woke up");
    assert_eq!(pool.stats().idle, 3);
}

/// Forbids that a captured value, or a result without a handle, lives on in an idle thread until the next job.
#[test]
fn an_idle_thread_keeps_nothing() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let worker = thread_of(&pool);
    let ways: [fn(Job<Traced>); 2] = [drop, Job::detach];
    for end in ways {
        let (captured, captured_dropped) = traced();
        let (result, result_dropped) = traced();
        let running = running(&pool, move || {
            let _captured = captured;
            result
        });
        end(running.job);
        running.stop.open();
        // No other job follows.
        assert_eq!(captured_dropped.recv(), Ok(worker));
        assert_eq!(result_dropped.recv(), Ok(worker));
    }
    let (captured, dropped) = traced();
    assert_eq!(pool.spawn(move || black_box(&captured).is_here()).wait(), 1);
    assert_eq!(dropped.try_recv(), Ok(worker), "a captured value lives when the handle resolves");
}

trait IsHere {
    /// A closure that calls this method captures the whole value, and drops the value at its end.
    fn is_here(&self) -> i32 {
        1
    }
}

impl<T> IsHere for T {}

// --- counters -------------------------------------------------------------------------------------------------------

/// Forbids that a handle resolves before the job is counted, however the job ended.
#[test]
fn counters_are_up_to_date_before_a_handle_resolves() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    for round in 1..=100 {
        pool.spawn(|| ()).wait();
        assert_eq!(pool.stats().succeeded, 3 * round - 2);
        block_on(pool.spawn(|| ()));
        assert_eq!(pool.stats().succeeded, 3 * round - 1);
        let job = pool.spawn(|| ());
        while !job.is_finished() {
            thread::yield_now();
        }
        assert_eq!(pool.stats().succeeded, 3 * round);
        assert!(pool.spawn(|| resume_unwind(Box::new(1))).outcome().wait().map(|()| 1).is_err());
        let stats = pool.stats();
        assert_eq!((stats.panicked, stats.submitted, running_now(&stats)), (round, 4 * round, 0));
    }
    let held = hold(&pool, 2);
    for round in 1..=10 {
        let job = pool.spawn(|| ());
        assert!(job.cancel());
        assert_eq!(pool.stats().cancelled, round);
        assert!(matches!(job.outcome().wait(), Err(JoinError::Cancelled)));
    }
    release(held);
}

/// Forbids that a job is counted twice, or not at all: `submitted` is the sum of the queued, running and ended jobs.
#[test]
fn submitted_is_the_sum_of_the_queued_running_and_ended_jobs() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.queued, running_now(&stats)), (0, 0, 0));
    let held = hold(&pool, 2);
    let queued: Vec<_> = (0..10).map(|number| pool.spawn(move || quiet_assert(!(3..6).contains(&number)))).collect();
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.queued, running_now(&stats)), (12, 10, 2));
    let mut queued = queued.into_iter();
    // Jobs 7, 8 and 9 are cancelled.
    let run: Vec<_> = queued.by_ref().take(7).collect();
    assert!(queued.next().unwrap().cancel());
    drop(queued.next().unwrap().outcome());
    drop(queued.next());
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.queued, stats.cancelled, running_now(&stats)), (12, 7, 3, 2));
    // A running job counts as succeeded even if its handle was dropped.
    for held in held {
        drop(held.job);
        held.stop.open();
    }
    let panics = run.into_iter().map(|job| job.outcome().wait()).filter(Result::is_err).count();
    assert_eq!(panics, 3);
    until("no job runs", || running_now(&pool.stats()) == 0);
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.queued, stats.cancelled, stats.panicked), (12, 0, 3, 3));
    assert_eq!(stats.succeeded, 6);
    pool.shutdown();
    assert!(pool.spawn(|| ()).outcome().wait().is_err());
    assert_eq!(pool.spawn_many((0..2).map(|_| || ())).len(), 2);
    let stats = pool.stats();
    assert_eq!(
        (stats.submitted, stats.cancelled, running_now(&stats)),
        (15, 6, 0),
        "a refused job counts as cancelled"
    );
}

/// Forbids that, while other threads use the pool, the counters do not add up, a counter decreases, or more jobs run
/// than the pool has threads.
#[test]
fn counters_add_up_at_any_moment() {
    let _watchdog = watchdog();
    let (pool, end) = (ThreadPool::new(2), AtomicUsize::new(0));
    thread::scope(|scope| {
        for submitter in 0..2 {
            let (pool, end) = (&pool, &end);
            scope.spawn(move || {
                for number in 0..600 {
                    let job = pool.spawn(move || quiet_assert(number % 7 != 0 || submitter != 0));
                    match number % 4 {
                        0 => drop(job),
                        1 => _ = job.cancel(),
                        2 => job.detach(),
                        _ => drop(job.outcome().wait()),
                    }
                }
                end.fetch_add(1, Ordering::SeqCst);
            });
        }
        let mut last = pool.stats();
        while end.load(Ordering::SeqCst) < 2 {
            let now = pool.stats();
            assert!(running_now(&now) <= 2, "{now:?}");
            assert!(now.threads <= 2 && now.idle <= now.threads, "{now:?}");
            assert!(now.submitted >= last.submitted && now.succeeded >= last.succeeded, "{last:?} {now:?}");
            assert!(now.panicked >= last.panicked && now.cancelled >= last.cancelled, "{last:?} {now:?}");
            last = now;
        }
    });
    pool.drain();
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.queued, running_now(&stats)), (1200, 0, 0));
}

/// Forbids that times are measured without `timed`, or not measured with it.
#[test]
fn busy_and_waited_are_measured_if_asked() {
    let _watchdog = watchdog();
    let time = Duration::from_millis(20);
    for timed in [false, true] {
        let pool = ThreadPool::builder().threads(1).timed(timed).build();
        let held = running(&pool, || ());
        let queued = pool.spawn(|| ());
        // The running job's `busy` time, and the queued job's `waited` time.
        thread::sleep(time);
        held.finish();
        queued.wait();
        let stats = pool.stats();
        if timed {
            assert!(stats.busy >= time && stats.waited >= time, "{stats:?}");
        } else {
            assert_eq!((stats.busy, stats.waited), (Duration::ZERO, Duration::ZERO));
        }
    }
}

// --- spawn_many -----------------------------------------------------------------------------------------------------

/// Forbids that `spawn_many` changes the order of the handles, or that a single thread runs the jobs in another order.
#[test]
fn spawn_many_keeps_the_order() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    assert!(pool.spawn_many(Vec::<fn() -> i32>::new()).is_empty());
    assert_eq!(pool.stats().submitted, 0);
    let (sender, order) = mpsc::channel();
    let jobs = pool.spawn_many((0..1000).map(|number| {
        let sender = sender.clone();
        move || {
            sender.send(number).unwrap();
            number
        }
    }));
    assert_eq!(jobs.len(), 1000);
    assert!(jobs.into_iter().map(Job::wait).eq(0..1000));
    assert!(order.into_iter().take(1000).eq(0..1000));
    assert_eq!(pool.stats().submitted, 1000);
}

/// Forbids that `spawn_many` leaves threads asleep, or not started, although there are jobs for them.
#[test]
fn spawn_many_uses_all_threads() {
    let _watchdog = watchdog();
    for size in [2, 3, 5] {
        let pool = ThreadPool::new(size);
        // In the first round the threads are started, and later woken.
        for _ in 0..20 {
            let barrier = Arc::new(Barrier::new(size));
            let jobs = pool.spawn_many((0..size).map(|_| {
                let barrier = Arc::clone(&barrier);
                move || barrier.wait().is_leader()
            }));
            assert_eq!(jobs.into_iter().map(Job::wait).filter(|leader| *leader).count(), 1);
        }
    }
}

/// Forbids that the iterator, which is user code, runs under a lock of the pool.
#[test]
fn spawn_many_may_be_given_an_iterator_that_uses_the_pool() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let jobs = pool.spawn_many((0..10).map(|number| {
        let inner = pool.spawn(move || number).wait();
        assert!(pool.stats().submitted > 0);
        move || inner + 1
    }));
    assert!(jobs.into_iter().map(Job::wait).eq(1..=10));
}

/// Forbids that a panic of the iterator breaks the pool, or leaks captured values.
#[test]
fn spawn_many_survives_a_panic_of_the_iterator() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let alive = Arc::new(());
    let jobs = (0..10).map(|number| {
        let alive = Arc::clone(&alive);
        if number == 5 {
            resume_unwind(Box::new("in the iterator"));
        }
        move || drop(alive)
    });
    let panic = catch_unwind(AssertUnwindSafe(|| pool.spawn_many(jobs))).unwrap_err();
    assert_eq!(text(&*panic), "in the iterator");
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    until("all captures are dropped", || Arc::strong_count(&alive) == 1);
    until("no job runs", || running_now(&pool.stats()) == 0);
}

/// Forbids that a job of `spawn_many` differs from other jobs when it is cancelled or detached, or panics.
#[test]
fn jobs_of_spawn_many_are_independent() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let held = hold(&pool, 1);
    let alive = Arc::new(AtomicUsize::new(0));
    let mut jobs = pool
        .spawn_many((0..4).map(|number| {
            let runs = Arc::clone(&alive);
            move || {
                runs.fetch_add(1 << (8 * number), Ordering::SeqCst);
                quiet_assert(number != 2);
            }
        }))
        .into_iter();
    assert_eq!(pool.stats().queued, 4);
    let (cancelled, detached) = (jobs.next().unwrap(), jobs.next().unwrap());
    let (panicking, dropped) = (jobs.next().unwrap(), jobs.next().unwrap());
    assert!(cancelled.cancel());
    detached.detach();
    drop(dropped);
    assert_eq!((Arc::strong_count(&alive), pool.stats().queued), (3, 2));
    release(held);
    assert!(matches!(panicking.outcome().wait(), Err(JoinError::Panicked(_))));
    assert!(matches!(cancelled.outcome().wait(), Err(JoinError::Cancelled)));
    assert_eq!(alive.load(Ordering::SeqCst), 0x1_0100);
}

// --- cancelling -----------------------------------------------------------------------------------------------------

/// Forbids that a job runs that was cancelled before its start, or that a worker has to drop the job's closure.
#[test]
fn a_job_cancelled_in_time_never_runs() {
    let _watchdog = watchdog();
    let ways: [fn(Job<()>); 5] = [
        |job| assert!(job.cancel()),
        drop,
        |job| drop(job.outcome()),
        |job| assert!(pin!(job).poll(&mut Context::from_waker(Waker::noop())).is_pending()),
        |job| assert!(pin!(async { (job.await, 1) }).poll(&mut Context::from_waker(Waker::noop())).is_pending()),
    ];
    for end in ways {
        let pool = ThreadPool::new(1);
        let held = hold(&pool, 1);
        let (captured, dropped) = traced();
        let ran = Arc::new(AtomicBool::new(false));
        let inside = Arc::clone(&ran);
        let job = pool.spawn(move || {
            let _captured = &captured;
            inside.store(true, Ordering::SeqCst);
        });
        end(job);
        assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
        assert_eq!((pool.stats().queued, pool.stats().cancelled), (0, 1));
        let later = pool.spawn(|| ());
        release(held);
        later.wait();
        assert!(!ran.load(Ordering::SeqCst));
    }
}

/// Forbids that a job that is cancelled just as it starts both runs and is cancelled, or neither.
#[test]
fn a_job_cancelled_as_it_starts_runs_or_is_cancelled() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let mut cancelled = 0;
    for round in 0..1000 {
        let ran = Arc::new(AtomicBool::new(false));
        let inside = Arc::clone(&ran);
        let job = pool.spawn(move || inside.store(true, Ordering::SeqCst));
        (0..round % 97).for_each(|_| std::hint::spin_loop());
        let in_time = job.cancel();
        assert!(!in_time || Arc::strong_count(&ran) == 1, "the closure has not been dropped");
        assert_eq!(job.outcome().wait().is_err(), in_time);
        assert_eq!(ran.load(Ordering::SeqCst), !in_time);
        cancelled += u64::from(in_time);
    }
    let stats = pool.stats();
    assert_eq!((stats.cancelled, stats.succeeded), (cancelled, 1000 - cancelled));
}

/// Forbids that cancelling a running job discards its result, or that `is_cancelled` stays false in the job.
#[test]
fn cancelling_a_running_job_only_asks_it_to_stop() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let asked = running(&pool, is_cancelled);
    assert!(!asked.job.cancel());
    assert!(!asked.job.is_finished());
    assert!(asked.finish());
    let (report, reported) = mpsc::channel();
    let job = running(&pool, move || report.send(is_cancelled()).unwrap());
    job.job.detach();
    job.stop.open();
    assert_eq!(reported.recv(), Ok(false), "`detach` opts out");
    // The next job on this thread is not cancelled.
    assert!(!pool.spawn(is_cancelled).wait());
    assert!(!is_cancelled());
    assert_eq!(pool.stats().cancelled, 0);
}

/// Forbids that a running job is not told that its handle was dropped, or that its result is leaked.
#[test]
fn dropping_the_handle_of_a_running_job_asks_it_to_stop() {
    let _watchdog = watchdog();
    let ways: [fn(Job<Traced>); 2] = [drop, |job| drop(job.outcome())];
    for end in ways {
        let pool = ThreadPool::new(1);
        let worker = thread_of(&pool);
        let (result, dropped) = traced();
        let (report, reported) = mpsc::channel();
        let job = running(&pool, move || {
            report.send(is_cancelled()).unwrap();
            result
        });
        end(job.job);
        job.stop.open();
        assert_eq!(reported.recv(), Ok(true));
        assert_eq!(dropped.recv(), Ok(worker));
    }
}

/// Forbids that the result of a finished job outlives its handle, or is dropped on another thread.
#[test]
fn the_handle_of_a_finished_job_owns_the_result() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let ways: [fn(Job<Traced>); 3] = [drop, |job| drop(job.outcome()), |job| assert!(!job.cancel())];
    for end in ways {
        let (result, dropped) = traced();
        let job = pool.spawn(move || result);
        until("the job is finished", || job.is_finished());
        assert!(dropped.try_recv().is_err());
        end(job);
        assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
    }
}

/// Forbids that cancelling a job in the middle of the queue changes the order of the others, or loses one.
#[test]
fn cancelling_a_job_keeps_the_order_of_the_others() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let held = hold(&pool, 1);
    let (sender, order) = mpsc::channel();
    let send = |number| {
        let sender = sender.clone();
        move || sender.send(number).unwrap()
    };
    let mut jobs: Vec<_> = (0..100).map(|number| Some(pool.spawn(send(number)))).collect();
    for number in (0..100).rev().filter(|number| number % 3 != 0) {
        jobs[number] = None;
    }
    let more: Vec<_> = (100..110).map(|number| pool.spawn(send(number))).collect();
    assert_eq!((pool.stats().queued, pool.stats().cancelled), (44, 66));
    release(held);
    jobs.into_iter().flatten().chain(more).for_each(Job::wait);
    drop(sender);
    assert!(order.into_iter().eq((0..100).filter(|number| number % 3 == 0).chain(100..110)));
}

// --- panics, and user code in unusual places ------------------------------------------------------------------------

/// Forbids that a panic of a job, or in the `Drop` of a result or payload, ends the pool's only thread, or reaches
/// another handle.
#[test]
fn a_pool_of_one_thread_survives_every_panic() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let worker = thread_of(&pool);

    let error = pool.spawn(|| resume_unwind(Box::new("of the job"))).outcome().wait().map(|()| 1).unwrap_err();
    let JoinError::Panicked(panic) = error else { panic!("{error}") };
    assert_eq!(panic.message(), "of the job");
    assert_eq!(thread_of(&pool), worker);

    let resumed = catch_unwind(AssertUnwindSafe(|| pool.spawn(|| panic_any(7)).wait())).map(|()| 1).unwrap_err();
    assert_eq!(resumed.downcast_ref(), Some(&7));
    assert_eq!(thread_of(&pool), worker);

    // Dropping the closure's captured values is part of the job.
    let (captured, dropped) = bomb();
    let outcome = pool.spawn(move || black_box(&captured).is_here()).outcome().wait();
    assert!(matches!(outcome, Err(JoinError::Panicked(_))), "{outcome:?}");
    assert_eq!((dropped.recv(), dropped.recv()), (Ok(worker), Err(mpsc::RecvError)));
    assert_eq!(thread_of(&pool), worker);

    // The `Drop` of a result or payload without a handle.
    let ways: [fn(Job<Bomb>); 2] = [drop, Job::detach];
    for end in ways {
        for panics in [false, true] {
            let (result, dropped) = bomb();
            let job = running(&pool, move || if panics { panic_any(result) } else { result });
            end(job.job);
            job.stop.open();
            assert_eq!((dropped.recv(), dropped.recv()), (Ok(worker), Err(mpsc::RecvError)));
            assert_eq!(thread_of(&pool), worker);
        }
    }

    // The `Drop` of a cancelled closure runs on the canceller's thread, whether or not the panic comes out there.
    let ways: [fn(Job<i32>); 2] = [drop, |job| drop((job.cancel(), job))];
    for end in ways {
        let held = hold(&pool, 1);
        let (captured, dropped) = bomb();
        let job = pool.spawn(move || black_box(&captured).is_here());
        let _ = catch_unwind(AssertUnwindSafe(|| end(job)));
        assert_eq!((dropped.recv(), dropped.recv()), (Ok(thread::current().id()), Err(mpsc::RecvError)));
        release(held);
        assert_eq!(thread_of(&pool), worker);
    }
    until("no job runs", || running_now(&pool.stats()) == 0);
    assert_eq!((pool.stats().threads, pool.stats().cancelled), (1, 2));
}

/// Forbids that the pool drops a user's value under a lock.
#[test]
fn values_dropped_by_a_pool_may_use_it() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (sender, receiver) = mpsc::channel();
    let uses = || {
        let (pool, sender) = (pool.clone(), sender.clone());
        on_drop(move || {
            // Submits, cancels, reads the counters, and detaches a handle.
            assert!(pool.stats().submitted > 0);
            let _ = pool.spawn(|| ()).cancel();
            pool.spawn(move || sender.send(()).unwrap()).detach();
        })
    };
    let held = hold(&pool, 1);
    let (one, two, three, four, five) = (uses(), uses(), uses(), uses(), uses());
    drop(pool.spawn(move || drop(one)));
    assert!(pool.spawn(move || drop(two)).cancel());
    pool.spawn(move || drop(three)).detach();
    pool.spawn(move || four).detach();
    pool.spawn(move || panic_any(five)).detach();
    release(held);
    for _ in 0..5 {
        assert_eq!(receiver.recv(), Ok(()));
    }
}

/// Forbids that a job hangs or panics when it uses its own pool: submits, cancels, waits, reads counters, closes.
#[test]
fn a_job_may_do_anything_with_its_pool() {
    let _watchdog = watchdog();
    for size in [1, 2] {
        let pool = ThreadPool::new(size);
        let inside = pool.clone();
        let sum = pool.spawn(move || {
            let waited = inside.spawn(|| 1).wait();
            let many: i32 = inside.spawn_many((0..10).map(|number| move || number)).into_iter().map(Job::wait).sum();
            let cancelled = inside.spawn(|| 1000).cancel();
            drop(inside.spawn(|| 2000));
            inside.spawn(|| ()).detach();
            let awaited = block_on(inside.spawn(|| 3));
            let panicked = inside.spawn(|| resume_unwind(Box::new(4))).outcome().wait().map(|()| 1).is_err();
            assert!(size == 2 || cancelled, "the only thread runs this job");
            assert!(panicked && inside.stats().submitted >= 16);
            inside.shutdown();
            assert!(inside.is_closed() && is_cancelled());
            waited + many + awaited
        });
        assert_eq!(sum.wait(), 49);
        assert!(pool.is_closed());
    }
}

/// Forbids that a clone is a separate pool.
#[test]
fn clones_share_the_pool() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let clone = pool.clone();
    assert_eq!(thread_of(&pool), thread_of(&clone));
    assert_eq!(clone.stats().submitted, 2);
    drop(pool);
    assert!(!clone.is_closed());
    let last = clone.clone();
    clone.shutdown();
    assert!(last.is_closed());
}

// --- which pool -----------------------------------------------------------------------------------------------------

/// Forbids that, without an event loop, `threaded` in a job uses another pool than the job's own.
#[test]
fn threaded_in_a_job_stays_in_its_pool() {
    let _watchdog = watchdog();
    let make = |name: &str| ThreadPool::builder().threads(2).name(name).build();
    let (first, second) = (make("ht-first"), make("ht-second"));
    let inner = || threaded(own_name).async_call().wait();
    assert!(first.spawn(inner).wait().starts_with("ht-first"));
    assert!(second.spawn(inner).wait().starts_with("ht-second"));
    // Nested, and from one pool to the other.
    let other = second.clone();
    let nested = first.spawn(move || {
        let there = threaded(inner).on(&other).async_call().wait();
        (threaded(inner).async_call().wait(), there, threaded(own_name).async_call().wait())
    });
    let (here, there, here_again) = nested.wait();
    assert!(here.starts_with("ht-first") && here_again.starts_with("ht-first"), "{here} {here_again}");
    assert!(there.starts_with("ht-second"), "{there}");
    // Outside of jobs: the global pool.
    let outside = threaded(own_name).async_call().wait();
    assert!(!outside.starts_with("ht-first") && !outside.starts_with("ht-second"), "{outside}");
}

/// Forbids that, without an event loop, `threaded` in a job of a closed pool is refused: it uses the global pool.
#[test]
fn threaded_in_a_job_leaves_a_closed_pool() {
    let _watchdog = watchdog();
    let pool = ThreadPool::builder().threads(1).name("ht-closed").build();
    let inside = pool.clone();
    let job = running(&pool, move || {
        until("the pool is closed", || inside.is_closed());
        let refused = threaded(|| ()).on(&inside).async_call().outcome().wait();
        assert!(matches!(refused, Err(JoinError::Cancelled)));
        threaded(own_name).async_call().wait()
    });
    job.stop.open();
    pool.drain();
    let name = job.job.wait();
    assert!(!name.is_empty() && !name.starts_with("ht-closed"), "{name}");
}

/// Forbids that `sync_call` uses a pool, even a given one, or catches a panic.
#[test]
fn sync_call_runs_on_the_callers_thread() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    pool.shutdown();
    let here = thread::current().id();
    assert_eq!(threaded(|| thread::current().id()).sync_call(), here);
    assert_eq!(threaded(|| thread::current().id()).on(&pool).sync_call(), here);
    assert_eq!(threaded(|| thread::current().id()).separate().sync_call(), here);
    let panic = catch_unwind(|| threaded(|| panic_any(1)).sync_call()).map(|()| 1).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&1));
    assert_eq!(pool.stats().submitted, 0);
}

/// Forbids that a `Threaded` starts, or starts a thread, before it is called.
#[test]
fn a_threaded_call_starts_when_it_is_called() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (captured, dropped) = traced();
    let call = threaded(move || drop(captured)).on(&pool);
    assert!(!format!("{call:?}").is_empty());
    assert_eq!((pool.stats().submitted, pool.stats().threads), (0, 0));
    drop(call);
    assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
    assert_eq!(block_on(threaded(|| 1).on(&pool)), 1);
    assert_eq!(pool.stats().submitted, 1);
}

// --- the global pool ------------------------------------------------------------------------------------------------

#[test]
#[ignore = "run by `the_global_pool_can_be_built`, in a process of its own"]
fn built_pool_probe() {
    let _watchdog = watchdog();
    let build = |name: &str| ThreadPool::builder().threads(2).name(name).build_global();
    build("ht-global").unwrap();
    let exists = build("ht-other").unwrap_err();
    assert!(!exists.to_string().is_empty());
    let boxed: Box<dyn Error + Send + Sync> = exists.into();
    assert!(!format!("{boxed:?}").is_empty());
    let pool = ThreadPool::global();
    assert!(pool.spawn(own_name).wait().starts_with("ht-global"));
    assert!(threaded(own_name).async_call().wait().starts_with("ht-global"));
    let held = hold(pool, 2);
    let queued = threaded(|| 1).async_call();
    assert_eq!((pool.stats().threads, pool.stats().queued), (2, 1));
    release(held);
    assert_eq!(queued.wait(), 1);
    // Once the global pool is closed, there is no other pool.
    pool.shutdown();
    assert!(matches!(threaded(|| ()).async_call().outcome().wait(), Err(JoinError::Cancelled)));
    assert!(build("ht-other").is_err());
    println!("the probe has passed");
}

/// Forbids that the global pool is replaced, or differs from the one that was built.
#[test]
fn the_global_pool_can_be_built() {
    let output = child("built_pool_probe", None);
    assert!(output.as_ref().is_ok_and(|text| text.contains("the probe has passed")), "{output:?}");
}

#[test]
#[ignore = "run by `the_global_pool_has_the_given_or_the_default_size`, in processes of its own"]
fn global_pool_probe() {
    let _watchdog = watchdog();
    let size = std::env::var("OFFTHREAD_POOL_SIZE").map_or_else(
        |_| None,
        |size| (!size.is_empty()).then(|| size.parse().expect("the test sets positive numbers only")),
    );
    let size = size.unwrap_or_else(|| thread::available_parallelism().unwrap().get().clamp(4, 32));
    let pool = ThreadPool::global();
    let held = hold(pool, size);
    let queued = pool.spawn(|| 1);
    assert_eq!((pool.stats().threads, pool.stats().queued), (size, 1));
    release(held);
    assert_eq!(queued.wait(), 1);
    assert!(ThreadPool::builder().build_global().is_err());
    println!("the probe has passed");
}

/// Forbids that the global pool has another size than the default, or the one in `OFFTHREAD_POOL_SIZE`.
#[test]
fn the_global_pool_has_the_given_or_the_default_size() {
    for size in [None, Some(""), Some("1"), Some("7"), Some("40")] {
        let output = child("global_pool_probe", size);
        assert!(output.as_ref().is_ok_and(|text| text.contains("the probe has passed")), "{size:?}: {output:?}");
    }
}

#[test]
#[ignore = "run by `a_bad_size_of_the_global_pool_panics`, in processes of its own"]
fn bad_size_probe() {
    let _watchdog = watchdog();
    let panic = catch_unwind(ThreadPool::global).map(|_| "a pool").unwrap_err();
    println!("the panic says: {}", text(&*panic));
}

/// Forbids that a size that is not a positive number is accepted.
#[test]
fn a_bad_size_of_the_global_pool_panics() {
    for size in ["0", "-1", "many", "2.5", " "] {
        let output = child("bad_size_probe", Some(size)).unwrap();
        let said = output.lines().find(|line| line.contains("the panic says: ")).unwrap();
        assert!(said.contains("OFFTHREAD_POOL_SIZE") && said.contains(&format!("{size:?}")), "{size:?}: {said}");
    }
}
