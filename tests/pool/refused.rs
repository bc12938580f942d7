//! The pool, and `separate`, when the system refuses threads.
//!
//! Each test says what it forbids.

#![forbid(unsafe_code)]

use crate::helpers::pool::*;
use offthread::{Job, JoinError, ThreadPool, block_on, oneshot, threaded, threaded_separate};
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Every way to close a pool and wait for its end.
const CLOSE: [fn(&ThreadPool); 3] =
    [ThreadPool::drain, ThreadPool::shutdown, |pool| pool.shutdown_timeout(Duration::MAX).unwrap()];

/// Stack sizes that this system refuses.
fn absurd_sizes() -> Vec<usize> {
    let refused = |size: &usize| thread::Builder::new().stack_size(*size).spawn(|| ()).is_err();
    let sizes: Vec<_> = [usize::MAX / 4, usize::MAX >> 18].into_iter().filter(refused).collect();
    assert!(!sizes.is_empty(), "this system accepts every stack size");
    sizes
}

#[track_caller]
fn assert_no_thread<R>(job: Job<R>) {
    match job.outcome().wait() {
        Err(JoinError::NoThread(_)) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("there was a thread"),
    }
}

/// Forbids that the system's refusal is swallowed: that a job that no thread will ever run stays queued, is leaked, or
/// poisons the pool's lock.
#[test]
fn without_any_thread_a_job_resolves_with_an_error() {
    let _watchdog = watchdog();
    for (size, close) in absurd_sizes().into_iter().flat_map(|size| CLOSE.map(|close| (size, close))) {
        let threads = Threads::default();
        let pool = threads.watch(ThreadPool::builder().threads(2).stack_size(size)).build();
        for round in 1..=3 {
            let (captured, dropped) = traced();
            let job = pool.spawn(move || drop(captured));
            assert!(job.is_finished(), "no thread could finish the job later");
            assert!(!job.cancel(), "the job has already ended");
            assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
            assert_no_thread(job);
            let stats = pool.stats();
            assert_eq!((stats.threads, stats.idle, stats.queued), (0, 0, 0));
            assert_eq!((stats.submitted, stats.cancelled, running_now(&stats)), (round, round, 0));
        }
        let error = block_on(pool.spawn(|| ()).outcome()).unwrap_err();
        assert!(!error.to_string().is_empty());
        let boxed: Box<dyn Error + Send + Sync> = error.into();
        assert!(!format!("{boxed:?}").is_empty());
        assert!(catch_unwind(AssertUnwindSafe(|| pool.spawn(|| ()).wait())).is_err());
        pool.spawn_many((0..5).map(|_| || ())).into_iter().for_each(assert_no_thread);
        pool.spawn(|| ()).detach();
        drop(pool.spawn(|| ()));
        assert_eq!(threads.started(), 0);
        close(&pool);
        assert!(matches!(pool.spawn(|| ()).outcome().wait(), Err(JoinError::Cancelled)));
    }
}

/// Forbids that a refused job is dropped under a lock, or that a panic in its `Drop` breaks the pool.
#[test]
fn the_drop_of_a_refused_job_may_use_the_pool_and_panic() {
    let _watchdog = watchdog();
    for size in absurd_sizes() {
        let pool = ThreadPool::builder().threads(2).stack_size(size).build();
        let inside = pool.clone();
        let captured = on_drop(move || assert_no_thread(inside.spawn(|| ())));
        assert_no_thread(pool.spawn(move || drop(captured)));
        assert_eq!(pool.stats().cancelled, 2);
        let (captured, dropped) = bomb();
        // It is unspecified whether the panic comes out here.
        let _ = catch_unwind(AssertUnwindSafe(|| assert_no_thread(pool.spawn(move || drop(captured)))));
        assert!(dropped.recv().is_ok() && dropped.recv().is_err());
        assert_no_thread(pool.spawn(|| ()));
        let stats = pool.stats();
        assert_eq!((stats.queued, running_now(&stats)), (0, 0));
    }
}

/// Forbids that a job hangs, or harms its own pool, when it submits a job to a pool without threads.
#[test]
fn a_job_may_submit_to_a_pool_without_threads() {
    let _watchdog = watchdog();
    for size in absurd_sizes() {
        let (none, one) = (ThreadPool::builder().threads(1).stack_size(size).build(), ThreadPool::new(1));
        let there = none.clone();
        one.spawn(move || assert_no_thread(there.spawn(|| ()))).wait();
        drop(none);
        assert_eq!(one.spawn(|| 1).wait(), 1);
    }
}

/// Forbids: a pool can start no thread, and a thread that drains the pool is not woken when another thread has refused
/// the last job.
#[test]
fn a_drain_ends_when_the_last_job_has_been_refused() {
    let _watchdog = watchdog();
    let pool = ThreadPool::builder().threads(1).stack_size(usize::MAX / 4).build();
    let (gate, (drops, is_dropped)) = (Gate::default(), mpsc::channel());
    let guard = on_drop({
        let gate = gate.clone();
        move || {
            drops.send(()).unwrap();
            gate.pass();
        }
    });
    thread::scope(|scope| {
        scope.spawn(|| assert_no_thread(pool.spawn(move || drop(guard))));
        is_dropped.recv().unwrap();
        let draining = spawn_until_asleep(scope, || pool.drain());
        let is_early = draining.is_finished();
        gate.open();
        draining.join().unwrap();
        assert!(!is_early, "the job was still being refused");
    });
}

// --- one thread, and no second --------------------------------------------------------------------------------------

/// A stack size in megabytes. The probe's memory has room for one such stack.
#[cfg(target_os = "linux")]
const STACK: usize = 600;
#[cfg(target_os = "linux")]
const MEMORY: usize = 1000;

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by `with_one_thread_the_job_stays_queued`, in a process whose memory is limited"]
fn one_thread_probe() {
    let _watchdog = watchdog();
    let threads = Threads::default();
    let builder = || ThreadPool::builder().threads(3).stack_size(STACK << 20).keep_alive(Duration::from_millis(20));
    let pool = threads.watch(builder()).build();
    let held = hold(&pool, 1);
    let jobs: Vec<_> = (0..10).map(|number| pool.spawn(move || (number, thread::current().id()))).collect();
    let many = pool.spawn_many((0..5).map(|_| || thread::current().id()));
    assert!(jobs.iter().all(|job| !job.is_finished()));
    let stats = pool.stats();
    assert_eq!((stats.threads, stats.queued, stats.submitted, running_now(&stats)), (1, 15, 16, 1));

    // Another pool gets no thread while this pool has one.
    let other = builder().build();
    assert_no_thread(other.spawn(|| ()));

    // The one thread runs all jobs. One of them waits for another job, which runs inline.
    let inside = pool.clone();
    let nested = pool.spawn(move || inside.spawn(|| thread::current().id()).wait());
    release(held);
    let (numbers, mut ids): (Vec<_>, Vec<_>) = jobs.into_iter().map(Job::wait).unzip();
    assert!(numbers.into_iter().eq(0..10));
    ids.extend(many.into_iter().map(Job::wait));
    ids.push(nested.wait());
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(threads.started(), 1);

    // When the thread ends, there is room for a thread of the other pool, which still works.
    until("the thread has ended", || pool.stats().threads == 0);
    let mut result = None;
    until("there is room", || {
        result = other.spawn(|| 1).outcome().wait().ok();
        result.is_some()
    });
    assert_eq!(result, Some(1));
    until("the thread has ended", || other.stats().threads == 0);
    until("there is room", || pool.spawn(|| 1).outcome().wait().is_ok());
    threads.wait_for_all_to_stop();
    pool.drain();
    other.shutdown();
    let closing = builder().build();
    until("there is room", || closing.spawn(|| ()).outcome().wait().is_ok());
    let (inside, (send, last)) = (closing.clone(), oneshot::channel());
    let drains = closing.spawn(move || {
        assert!(send.send(inside.spawn(|| ())).is_ok());
        inside.drain();
    });
    // The system refuses the spare thread that would run this job in place of the one that drains.
    assert_no_thread(last.recv_blocking().unwrap());
    drains.wait();
    assert_at_rest(&other);
    assert_at_rest(&closing);
    println!("the probe has passed");
}

/// Forbids that a pool with one thread refuses or loses a job because a second thread is refused. The exception: while
/// this one thread drains the pool, a queued job resolves with `NoThread`.
#[cfg(target_os = "linux")]
#[test]
fn with_one_thread_the_job_stays_queued() {
    let output = confined_child("one_thread_probe", MEMORY, 2);
    assert!(output.as_ref().is_ok_and(|text| text.contains("the probe has passed")), "{output:?}");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by `a_separate_thread_may_be_refused`, in a process whose memory is limited"]
fn separate_probe() {
    let _watchdog = watchdog();
    // There is memory for one stack of the default size, which `confined_child` sets: that of this test's own thread.
    for round in 0..3 {
        let (captured, dropped) = traced();
        let job = match round {
            0 => threaded_separate(move || drop(captured)).async_call(),
            1 => threaded(move || drop(captured)).separate().name("ht-refused").async_call(),
            _ => ThreadPool::builder().threads(1).build().spawn(move || drop(captured)),
        };
        assert!(job.is_finished());
        assert!(!job.cancel(), "the job has already ended");
        assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
        assert_no_thread(job);
    }
    assert!(matches!(block_on(threaded_separate(|| ()).async_call().outcome()), Err(JoinError::NoThread(_))));
    assert!(catch_unwind(|| threaded_separate(|| ()).async_call().wait()).is_err());
    let (captured, dropped) = bomb();
    let _ = catch_unwind(AssertUnwindSafe(|| drop(threaded_separate(move || drop(captured)).async_call())));
    assert!(dropped.recv().is_ok() && dropped.recv().is_err());
    // A smaller stack is granted.
    assert_eq!(ThreadPool::builder().threads(1).stack_size(1 << 20).build().spawn(|| 1).wait(), 1);
    println!("the probe has passed");
}

/// Forbids that `separate` panics, hangs or leaks the closure when its thread is refused.
#[cfg(target_os = "linux")]
#[test]
fn a_separate_thread_may_be_refused() {
    let output = confined_child("separate_probe", MEMORY, STACK);
    assert!(output.as_ref().is_ok_and(|text| text.contains("the probe has passed")), "{output:?}");
}

/// Forbids that a sleep which relies on another thread's attempt to start the timer thread waits for ever when that
/// attempt fails.
#[cfg(target_os = "linux")]
#[test]
fn each_sleep_panics_if_the_timer_thread_is_refused() {
    let _watchdog = watchdog();
    let output = confined_child("timer_thread_probe", MEMORY, STACK);
    assert!(output.as_ref().is_ok_and(|text| text.contains("the probe has passed")), "{output:?}");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by `each_sleep_panics_if_the_timer_thread_is_refused` in a process of its own"]
fn timer_thread_probe() {
    use std::pin::Pin;
    use std::sync::{Arc, Barrier};
    use std::task::{Context, Wake};
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    const SLEEPERS: usize = 4;
    for _ in 0..500 {
        let together = Arc::new(Barrier::new(SLEEPERS));
        let sleepers = [(); SLEEPERS].map(|()| {
            let together = together.clone();
            let sleep = move || {
                let waker = Arc::new(Unpark(thread::current())).into();
                let mut sleep = offthread::sleep(Duration::from_secs(3600));
                together.wait();
                while Pin::new(&mut sleep).poll(&mut Context::from_waker(&waker)).is_pending() {
                    thread::park();
                }
            };
            thread::Builder::new().stack_size(256 << 10).spawn(sleep).unwrap()
        });
        for sleeper in sleepers {
            let message = *sleeper.join().unwrap_err().downcast::<String>().unwrap();
            assert!(message.starts_with("no thread could be started for timers"), "{message}");
        }
    }
    println!("the probe has passed");
}
