//! The pool at its edges: user code in unusual places (the `Drop` of jobs that never ran, thread hooks, wakers), jobs
//! that are resolved at unusual moments, values of unusual kinds, and long queues.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]

use crate::helpers::pool::*;
use offthread::ThreadPool;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

/// A waker that calls `f`.
fn waker(f: impl Fn() + Send + Sync + 'static) -> Waker {
    struct Calls<F>(F);
    impl<F: Fn() + Send + Sync + 'static> Wake for Calls<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }
    Arc::new(Calls(f)).into()
}

/// Forbids that a call that closes the pool, from the `Drop` of a job that a shutdown cancels, waits for the other jobs
/// that this shutdown cancels.
#[test]
fn the_drop_of_a_cancelled_job_may_close_the_pool() {
    let _watchdog = watchdog();
    for close in [ThreadPool::drain, ThreadPool::shutdown] {
        let pool = ThreadPool::new(1);
        let held = hold(&pool, 1);
        let (dropped, drops) = mpsc::channel();
        let jobs = pool.spawn_many((0..2).map(|_| {
            let (inside, dropped) = (pool.clone(), dropped.clone());
            let guard = on_drop(move || {
                close(&inside);
                dropped.send(()).unwrap();
            });
            move || drop(guard)
        }));
        // This call drops the jobs. It returns only after the running job has ended.
        let closing = std::thread::spawn({
            let pool = pool.clone();
            move || pool.shutdown()
        });
        until("the queue is empty", || pool.stats().queued == 0);
        release(held);
        closing.join().unwrap();
        assert_eq!(drops.try_iter().count(), 2);
        jobs.into_iter().for_each(assert_cancelled);
        assert_at_rest(&pool);
    }
}

/// Forbids that a drain, from the `Drop` of a refused job, waits for the other refused jobs. The jobs are refused
/// because the pool is closed or has no thread.
#[test]
fn the_drop_of_a_refused_job_may_drain_the_pool() {
    let _watchdog = watchdog();
    let closed = ThreadPool::new(1);
    closed.drain();
    let threadless = ThreadPool::builder().threads(1).stack_size(usize::MAX / 4).build();
    for pool in [closed, threadless] {
        let jobs = pool.spawn_many((0..2).map(|_| {
            let inside = pool.clone();
            let guard = on_drop(move || inside.drain());
            move || drop(guard)
        }));
        assert!(jobs.into_iter().all(|job| job.outcome().wait().is_err()));
        assert_at_rest(&pool);
    }
}

/// Forbids that a job is left to a thread in its start hook although another worker is idle.
#[test]
fn a_slow_start_hook_delays_no_job() {
    let _watchdog = watchdog();
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let started = Arc::new(AtomicUsize::new(0));
    let count = started.clone();
    let hook = move || {
        if count.fetch_add(1, SeqCst) == 1 {
            gone.lock().unwrap().recv().unwrap();
        }
    };
    let pool = ThreadPool::builder().threads(2).on_thread_start(hook).build();
    let held = hold(&pool, 1);
    let second = pool.spawn(|| ());
    until("the second thread is in its hook", || started.load(SeqCst) == 2);
    release(held);
    second.wait();
    until("the first thread is idle", || pool.stats().idle == 1);
    pool.spawn(|| ()).wait();
    go.send(()).unwrap();
}

/// Forbids that the start hook of the only thread hangs when it waits for a job of its pool, or closes the pool.
#[test]
fn a_start_hook_may_use_its_pool() {
    let _watchdog = watchdog();
    for close in [|_: &ThreadPool| {}, ThreadPool::shutdown, ThreadPool::drain] {
        let own: Arc<OnceLock<ThreadPool>> = Arc::default();
        let (inside, ran, ended) = (own.clone(), AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
        let has_ended = ended.clone();
        let hook = move || {
            if !ran.swap(true, SeqCst) {
                let pool = inside.get().unwrap();
                assert_eq!(offthread::block_on(pool.spawn(|| 1)), 1);
                assert_eq!(pool.spawn(|| 2).wait(), 2);
                close(pool);
                // A panic of the hook is discarded.
                ended.store(true, SeqCst);
            }
        };
        let pool = ThreadPool::builder().threads(1).on_thread_start(hook).build();
        assert!(own.set(pool.clone()).is_ok());
        // The job is cancelled if the hook shuts the pool down first.
        let _ = pool.spawn(|| ()).outcome().wait();
        until("the hook has run to its end", || has_ended.load(SeqCst));
        pool.drain();
        assert_at_rest(&pool);
    }
}

/// Forbids that a stop hook which closes its pool waits for its own thread.
#[test]
fn a_stop_hook_may_close_its_pool() {
    let _watchdog = watchdog();
    for close in [ThreadPool::shutdown, ThreadPool::drain] {
        let own: Arc<OnceLock<ThreadPool>> = Arc::default();
        let inside = own.clone();
        let pool = ThreadPool::builder().threads(2).on_thread_stop(move || close(inside.get().unwrap())).build();
        assert!(own.set(pool.clone()).is_ok());
        release(hold(&pool, 2));
        pool.drain();
        assert_at_rest(&pool);
    }
}

/// Forbids that `shutdown_timeout` fails although no job runs.
#[test]
fn shutdown_timeout_of_zero_succeeds_for_an_idle_pool() {
    let _watchdog = watchdog();
    for _ in 0..100 {
        let pool = ThreadPool::new(1);
        pool.spawn(|| ()).wait();
        assert!(pool.shutdown_timeout(Duration::ZERO).is_ok());
    }
}

/// Forbids that `shutdown` returns while another call is still refusing jobs.
#[test]
fn a_second_shutdown_waits_until_the_jobs_are_resolved() {
    let _watchdog = watchdog();
    for close in [ThreadPool::drain, ThreadPool::shutdown] {
        let pool = ThreadPool::new(1);
        let held = hold(&pool, 1);
        let gate = Gate::default();
        let (in_drop, is_in_drop) = mpsc::channel();
        let guard = on_drop({
            let gate = gate.clone();
            move || {
                in_drop.send(()).unwrap();
                gate.pass();
            }
        });
        let job = pool.spawn(move || drop(guard));
        let first = pool.clone();
        let first = std::thread::spawn(move || first.shutdown());
        is_in_drop.recv().unwrap();
        release(held);
        until("the thread has ended", || pool.stats().threads == 0);
        let second = pool.clone();
        let second = std::thread::spawn(move || {
            close(&second);
            assert!(job.is_finished(), "the shutdown returned before a job was resolved");
        });
        // The second call gets time to return too early.
        (0..100).for_each(|_| std::thread::yield_now());
        gate.open();
        first.join().unwrap();
        second.join().unwrap();
    }
}

/// Forbids that cancelling a job wakes the job's awaiting task under the pool's lock, or before the closure has been
/// dropped.
#[test]
fn the_awaiting_task_of_a_cancelled_job_is_woken_last() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let held = hold(&pool, 1);
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = on_drop({
        let dropped = dropped.clone();
        move || dropped.store(true, SeqCst)
    });
    let mut job = pool.spawn(move || drop(guard));
    let (woken, wakes) = mpsc::channel();
    let waker = waker({
        let pool = pool.clone();
        move || woken.send((dropped.load(SeqCst), pool.stats().cancelled)).unwrap()
    });
    assert!(Pin::new(&mut job).poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(job.cancel());
    release(held);
    assert_cancelled(job);
    pool.drain();
    assert_eq!(wakes.try_iter().collect::<Vec<_>>(), [(true, 1)]);
}

/// Forbids that a job that was polled, and then runs inline in `wait`, wakes the old waker.
#[test]
fn a_job_that_runs_inline_wakes_nobody() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let inside = pool.clone();
    let (woken, wakes) = mpsc::channel();
    pool.spawn(move || {
        let mut job = inside.spawn(|| 5);
        let waker = waker(move || woken.send(inside.stats()).unwrap());
        assert!(Pin::new(&mut job).poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(job.wait(), 5);
    })
    .wait();
    assert_at_rest(&pool);
    assert!(wakes.recv().is_err(), "the old waker was woken");
}

/// Forbids that `is_finished` is true while the closure is still being dropped.
#[test]
fn a_job_is_finished_only_when_its_closure_was_dropped() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let held = hold(&pool, 1);
    let (dropping, is_dropping) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let guard = on_drop(move || {
        dropping.send(()).unwrap();
        gone.recv().unwrap();
    });
    let job = Arc::new(pool.spawn(move || drop(guard)));
    let cancelling = std::thread::spawn({
        let job = job.clone();
        move || job.cancel()
    });
    is_dropping.recv().unwrap();
    assert!(!job.is_finished());
    go.send(()).unwrap();
    assert!(cancelling.join().unwrap());
    assert!(job.is_finished());
    release(held);
}

/// Forbids that the captured value or result of a job is misaligned, or damaged.
#[test]
fn values_may_be_large_aligned_or_zero_sized() {
    #[derive(Debug, PartialEq)]
    #[repr(align(4096))]
    struct Page(u8);
    #[derive(Debug, PartialEq)]
    #[repr(align(64))]
    struct Nothing;
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    for number in 0..100 {
        let (page, nothing) = (Page(number), Nothing);
        let next = pool.spawn(move || {
            assert!((&raw const page).is_aligned());
            Page(page.0 + 1)
        });
        let next = next.wait();
        assert!((&raw const next).is_aligned());
        assert_eq!(next, Page(number + 1));
        let nothing = pool.spawn(move || nothing).wait();
        assert!((&raw const nothing).is_aligned());
        let page = Page(number);
        pool.spawn(move || page).cancel();
    }
    until("no job runs", || running_now(&pool.stats()) == 0);
    assert_at_rest(&pool);
}

/// Forbids that a pool is leaked when a job's handle owns the pool's last `Arc`, and the `Drop` of a hook panics.
#[test]
fn a_handle_that_owns_the_last_arc_frees_the_pool() {
    struct Panics(Arc<AtomicUsize>);
    impl Drop for Panics {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            panic!("on purpose");
        }
    }
    let _watchdog = watchdog();
    let drops = Arc::new(AtomicUsize::new(0));
    let hook = Panics(drops.clone());
    let pool = ThreadPool::builder().threads(1).on_thread_start(move || assert_eq!(hook.0.load(SeqCst), 0)).build();
    let job = pool.spawn(|| vec![0_u8; 64]);
    pool.shutdown();
    drop(pool);
    // `shutdown` has joined the pool's thread, which owned an `Arc` of the pool. So the job's handle owns the last one.
    let mut job = Some(job);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(job.take())));
    until("the pool is gone", || drops.load(SeqCst) == 1);
    drop(panicked);
}

/// Forbids that each cancel in a closed pool searches the queue: with a hundred thousand jobs, this would take minutes.
#[test]
fn cancelling_in_a_closed_pool_is_not_quadratic() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let first = pool.spawn(move || gone.recv());
    let jobs = pool.spawn_many((0..100_000).map(|n| move || n));
    let closing = std::thread::spawn({
        let pool = pool.clone();
        move || pool.drain()
    });
    while !pool.is_closed() {
        std::thread::yield_now();
    }
    let start = std::time::Instant::now();
    drop(jobs);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(pool.stats().cancelled, 100_000);
    go.send(()).unwrap();
    first.wait().unwrap();
    closing.join().unwrap();
}

/// Forbids: two threads that wait in the start hook keep a pool from starting its other threads.
#[test]
fn start_hooks_that_wait_leave_the_jobs_to_other_threads() {
    let _watchdog = watchdog();
    let (opens, gates): (Vec<_>, Vec<_>) = [(); 2].map(|()| offthread::oneshot::channel::<()>()).into_iter().unzip();
    let gates = Mutex::new(gates);
    let hook = move || {
        let gate = gates.lock().unwrap().pop();
        if let Some(gate) = gate {
            let _ = gate.recv_blocking();
        }
    };
    let pool = ThreadPool::builder().threads(4).on_thread_start(hook).build();
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    drop(opens);
}
