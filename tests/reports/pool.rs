//! Pools: code in unusual places that closes its pool, waits for its pool, or blocks; hooks; the global pool; the end
//! of the process.

use crate::helpers::iterables::*;
use crate::hooks::Hooks;
use crate::{CLOSE, MILLI, poll};
use offthread::{
    ContextVar, IteratorWrapper, Job, JoinError, ThreadPool, block_on, gather, is_cancelled, oneshot, sleep, spawn,
    sync_await, threaded, threaded_iterable_separate, threaded_separate, timeout, yield_now,
};
use std::any::Any;
use std::cell::RefCell;
use std::future::pending;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;
use std::{process, thread};

thread_local! {
    /// A value that is dropped when the thread ends.
    static KEPT: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// The value of a context variable. The last context that owns the value drops it.
type Value = Arc<Mutex<dyn Send>>;
static VALUE: ContextVar<Value> = ContextVar::new();

// --- closing a pool from inside -------------------------------------------------------------------------------------

/// zio 534, scoped-pool 1, tokio 2529: forbids that a handle's waker, which runs on a thread of the pool, waits for
/// this thread when it closes the pool.
#[test]
fn a_waker_may_close_the_pool() {
    let _watchdog = watchdog();
    for close in CLOSE {
        let (pool, hooks, closed) = (ThreadPool::new(1), Arc::<Hooks>::default(), Gate::default());
        let (inside, has_closed) = (pool.clone(), closed.clone());
        hooks.wake.set(move || {
            close(&inside);
            has_closed.open();
        });
        let Running { mut job, stop } = running(&pool, || 1);
        assert!(poll(&mut job, &hooks.waker()).is_pending());
        stop.open();
        closed.pass();
        assert_eq!(job.wait(), 1);
        pool.drain();
    }
}

/// A worker that joins itself: forbids that the `Drop` of a job's closure, result, payload or context waits for the
/// thread on which it runs, when it closes the pool.
#[test]
fn values_of_a_job_may_close_the_pool() {
    let _watchdog = watchdog();
    for close in CLOSE {
        for what in ["closure", "result", "payload", "context"] {
            let (pool, closed) = (ThreadPool::new(1), Gate::default());
            let (inside, has_closed) = (pool.clone(), closed.clone());
            let guard = on_drop(move || {
                close(&inside);
                has_closed.open();
            });
            match what {
                "closure" => leave_behind(running(&pool, move || _ = &guard)),
                "result" => leave_behind(running(&pool, move || guard)),
                "payload" => leave_behind(running(&pool, move || -> () { resume_unwind(Box::new(guard)) })),
                _ => {
                    VALUE.set(Arc::new(Mutex::new(guard)));
                    let running = running(&pool, || ());
                    VALUE.clear();
                    leave_behind(running);
                }
            }
            closed.pass();
            pool.drain();
        }
    }
}

/// Detaches the job, and then lets it end.
fn leave_behind<R>(running: Running<R>) {
    running.job.detach();
    running.stop.open();
}

/// rayon 1242: forbids that a thread that ends after its keep-alive time waits for itself, when one of its
/// thread-locals closes the pool. (`tests/pool/shutdown.rs` tests threads that end with their pool.)
#[test]
fn a_thread_local_of_an_idle_thread_may_close_the_pool() {
    let _watchdog = watchdog();
    for close in CLOSE {
        let (pool, closed) = (ThreadPool::builder().threads(1).keep_alive(5 * MILLI).build(), Gate::default());
        let (inside, has_closed) = (pool.clone(), closed.clone());
        let set = move || {
            KEPT.set(Some(Box::new(on_drop(move || {
                close(&inside);
                has_closed.open();
            }))));
        };
        pool.spawn(set).wait();
        closed.pass();
        pool.shutdown();
    }
}

// --- hooks ----------------------------------------------------------------------------------------------------------

/// tokio 2006, rayon 271: forbids that the stop hook of the only thread hangs when it waits for a job of its pool.
/// (`tests/pool/edges.rs` tests start hooks.)
#[test]
fn a_stop_hook_may_wait_for_a_job_of_its_pool() {
    let _watchdog = watchdog();
    let own: Arc<OnceLock<ThreadPool>> = Arc::default();
    let (inside, once, (said, hears)) = (own.clone(), AtomicBool::new(false), mpsc::channel());
    let hook = move || {
        if !once.swap(true, SeqCst) {
            said.send(inside.get().unwrap().spawn(|| 5).wait()).unwrap();
        }
    };
    let pool = ThreadPool::builder().threads(1).keep_alive(5 * MILLI).on_thread_stop(hook).build();
    assert!(own.set(pool.clone()).is_ok());
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    assert_eq!(hears.recv(), Ok(5));
    assert_eq!(pool.spawn(|| 2).wait(), 2);
    pool.drain();
}

/// tokio 2327, tokio 4862: forbids that async code in a hook panics, or uses the loop on which the thread was started.
#[test]
fn hooks_may_run_async_code() {
    let _watchdog = watchdog();
    let runs = Arc::new(AtomicUsize::new(0));
    let hook = || {
        let runs = runs.clone();
        move || {
            assert!(!is_cancelled());
            sync_await(async {
                sleep(MILLI).await;
                yield_now().await;
            });
            block_on(async { spawn(sleep(MILLI)).await });
            assert_eq!(block_on(threaded_separate(|| 1)), 1);
            runs.fetch_add(1, SeqCst);
        }
    };
    let pool = ThreadPool::builder().threads(1).on_thread_start(hook()).on_thread_stop(hook()).build();
    // A loop starts the thread, which ends after that loop.
    assert_eq!(block_on(threaded(|| 1).on(&pool)), 1);
    pool.drain();
    let runs = runs.load(SeqCst);
    assert!(runs >= 2 && runs % 2 == 0, "{runs} hooks ran to their end");
}

/// rayon 271: forbids that each thread that waits in its start hook is replaced by another thread, which then waits in
/// its own start hook.
#[test]
fn a_start_hook_that_waits_starts_few_threads() {
    let _watchdog = watchdog();
    let starts = Arc::new(AtomicUsize::new(0));
    let (count, (ready, is_ready)) = (starts.clone(), oneshot::channel::<()>());
    let (ready, is_ready) = (Mutex::new(Some(ready)), Mutex::new(Some(is_ready)));
    let hook = move || {
        if count.fetch_add(1, SeqCst) == 0 {
            // The first thread stays in its hook until another thread has waited there, but at most for five seconds.
            let is_ready = is_ready.lock().unwrap().take().unwrap();
            let _ = block_on(timeout(5000 * MILLI, is_ready));
        } else {
            for _ in 0..10 {
                block_on(sleep(MILLI));
            }
            drop(ready.lock().unwrap().take());
        }
    };
    let pool = ThreadPool::builder().threads(1).on_thread_start(hook).build();
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    pool.drain();
    assert!(starts.load(SeqCst) <= 2, "{} threads for one job in a pool of one", starts.load(SeqCst));
}

/// No report: forbids that a thread that returns from its start hook leaves the job to a thread that is still in that
/// hook. The second thread would do the same, and so on.
#[test]
fn a_thread_out_of_its_start_hook_takes_the_job() {
    let _watchdog = watchdog();
    let (starts, leaves, ran) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Gate::default());
    let waiting = Mutex::new(None::<oneshot::Sender<()>>);
    let hook = {
        let (starts, leaves, ran) = (starts.clone(), leaves.clone(), ran.clone());
        move || {
            let number = starts.fetch_add(1, SeqCst);
            if number > 3 {
                return;
            }
            let former = waiting.lock().unwrap().take();
            if let Some(former) = former {
                // Lets the previous thread return from its hook. This thread stays busy meanwhile, without a blocking
                // call of the crate.
                let _ = former.send(());
                until("the previous thread has left its hook", || leaves.load(SeqCst) >= number);
                for _ in 0..1000 {
                    thread::sleep(MILLI);
                    if ran.is_open() {
                        return;
                    }
                }
            }
            // Blocks until the next thread has begun.
            let (sender, receiver) = oneshot::channel();
            *waiting.lock().unwrap() = Some(sender);
            let _ = block_on(timeout(5000 * MILLI, receiver));
            leaves.fetch_add(1, SeqCst);
        }
    };
    let pool = ThreadPool::builder().threads(1).on_thread_start(hook).build();
    pool.spawn(move || ran.open()).wait();
    let starts = starts.load(SeqCst);
    assert!(starts <= 2, "{starts} threads for one job in a pool of one");
}

/// A worker that joins itself: forbids that a job or the other hook does not run when a hook drops the last handle of
/// its pool.
#[test]
fn hooks_may_drop_the_last_handle() {
    let _watchdog = watchdog();
    for in_start in [true, false] {
        let own = Arc::new(Mutex::new(None::<ThreadPool>));
        let (ended, test_handle_gone) = (Arc::new(AtomicUsize::new(0)), Gate::default());
        let hook = |drops: bool| {
            let (own, ended, gone) = (own.clone(), ended.clone(), test_handle_gone.clone());
            move || {
                if drops {
                    // Waits until the hook's handle is the last one.
                    gone.pass();
                    let pool = own.lock().unwrap().take();
                    drop(pool);
                }
                ended.fetch_add(1, SeqCst);
            }
        };
        let builder = ThreadPool::builder().threads(1).keep_alive(5 * MILLI);
        let pool = builder.on_thread_start(hook(in_start)).on_thread_stop(hook(!in_start)).build();
        *own.lock().unwrap() = Some(pool.clone());
        let job = pool.spawn(|| 1);
        drop(pool);
        test_handle_gone.open();
        assert_eq!(job.wait(), 1);
        until("both hooks have ended", || ended.load(SeqCst) == 2);
    }
}

/// Start hooks that ran without their stop hooks: forbids that threads with a keep-alive time of zero lose a job or an
/// item, or run one hook without the other.
#[test]
fn threads_that_are_not_kept_alive_lose_nothing() {
    let _watchdog = watchdog();
    let threads = Threads::default();
    let pool = threads.watch(ThreadPool::builder().threads(2).keep_alive(Duration::ZERO)).build();
    for number in 0..500 {
        assert_eq!(pool.spawn(move || number).wait(), number);
    }
    let inside = pool.clone();
    assert_eq!(pool.spawn(move || inside.spawn(|| 1).wait()).wait(), 1);
    for max_size in [1, 2, 5] {
        let mut items = IteratorWrapper::new(|| 0..300).on(&pool).max_size(max_size);
        assert!(take_all(&mut items).into_iter().eq(0..300));
    }
    pool.shutdown();
    assert_eq!((threads.started(), pool.stats().threads), (threads.stopped(), 0));
}

// --- user code that blocks outside of jobs --------------------------------------------------------------------------

/// No report: forbids that user code which a worker runs outside of its jobs, and which blocks without the crate's
/// knowledge, delays the next job although a thread is free. (`tests/pool/starvation.rs` tests the waker of a job's
/// handle.)
#[test]
fn code_that_blocks_outside_of_jobs_occupies_only_its_own_thread() {
    type Code = Box<dyn FnOnce() + Send>;
    let _watchdog = watchdog();
    for what in ["result", "payload", "context", "iterator", "item", "consumer's waker", "thread-local", "stop hook"] {
        let (begun, go) = (Gate::default(), Gate::default());
        let (begin, may_go) = (begun.clone(), go.clone());
        let block = move || {
            begin.open();
            may_go.pass();
        };
        let hook: Arc<Mutex<Option<Code>>> = Arc::default();
        let inside = hook.clone();
        let stop = move || {
            let code = inside.lock().unwrap().take();
            if let Some(code) = code {
                code();
            }
        };
        let pool = ThreadPool::builder().threads(2).keep_alive(5 * MILLI).on_thread_stop(stop).build();
        let mut kept: Option<Box<dyn Any>> = None;
        match what {
            "result" => leave_behind(running(&pool, move || on_drop(block))),
            "payload" => leave_behind(running(&pool, move || -> () { resume_unwind(Box::new(on_drop(block))) })),
            "context" => {
                VALUE.set(Arc::new(Mutex::new(on_drop(block))));
                let running = running(&pool, || ());
                VALUE.clear();
                leave_behind(running);
            }
            "iterator" => {
                let guard = on_drop(block);
                let mut items = IteratorWrapper::new(move || (0..3).inspect(move |_| _ = &guard)).on(&pool);
                take(&mut items);
                kept = Some(Box::new(items));
            }
            "item" => {
                let (making, made) = (Gate::default(), Gate::default());
                let (begin, end) = (making.clone(), made.clone());
                let make = move || {
                    std::iter::once_with(move || {
                        begin.open();
                        end.pass();
                        on_drop(block)
                    })
                };
                let mut items = IteratorWrapper::new(make).on(&pool);
                assert!(poll_once(&mut items).is_pending());
                making.pass();
                drop(items);
                made.open();
            }
            "consumer's waker" => {
                let made = Gate::default();
                let end = made.clone();
                let make = move || {
                    end.pass();
                    0..3
                };
                let mut items = IteratorWrapper::new(make).on(&pool);
                let hooks = Arc::<Hooks>::default();
                hooks.wake.set(block);
                assert!(Pin::new(&mut items).poll_next(&mut Context::from_waker(&hooks.waker())).is_pending());
                made.open();
                kept = Some(Box::new(items));
            }
            "thread-local" => pool.spawn(move || KEPT.set(Some(Box::new(on_drop(block))))).wait(),
            _ => {
                *hook.lock().unwrap() = Some(Box::new(block));
                pool.spawn(|| ()).wait();
            }
        }
        begun.pass();
        let next = pool.spawn(|| ());
        until(&format!("the next job has run while the {what} blocks"), || next.is_finished());
        go.open();
        drop(kept);
        pool.drain();
    }
}

// --- jobs and locks -------------------------------------------------------------------------------------------------

/// nearcore 15554, aptos-core 19541: forbids that a job which waits for a second job while it holds a lock runs, on its
/// own stack, a third job that locks the same mutex.
#[test]
fn waiting_with_a_lock_runs_only_the_awaited_job() {
    let _watchdog = watchdog();
    let (pool, lock) = (ThreadPool::new(1), Arc::new(Mutex::new(0)));
    let (inside, held) = (pool.clone(), lock.clone());
    let job = pool.spawn(move || {
        let mut count = held.lock().unwrap();
        let wanting = inside.spawn_many((0..10).map(|_| {
            let lock = held.clone();
            move || *lock.lock().unwrap() += 1
        }));
        *count += inside.spawn(|| 1).wait();
        let nested = inside.clone();
        *count += inside.spawn(move || nested.spawn(|| 1).wait()).wait();
        drop(count);
        wanting.into_iter().for_each(Job::wait);
    });
    job.wait();
    assert_eq!(*lock.lock().unwrap(), 12);
}

/// affinitypool 45: forbids that a pool hangs when one of its jobs polls another job of that pool once, and drops it.
#[test]
fn a_job_may_poll_and_drop_a_job_of_its_own_pool() {
    let _watchdog = watchdog();
    for threads in [1, 2, 4] {
        let pool = ThreadPool::new(threads);
        for _ in 0..200 {
            let inside = pool.clone();
            let job = pool.spawn(move || {
                let mut job = inside.spawn(|| ());
                let _ = poll(&mut job, Waker::noop());
                drop(job);
                drop(threaded(|| ()).async_call());
                inside.spawn(|| ()).cancel();
            });
            job.wait();
        }
        pool.shutdown();
        let stats = pool.stats();
        assert_eq!((stats.queued, stats.submitted), (0, stats.succeeded + stats.cancelled));
    }
}

/// cpython 94440: forbids that a shutdown right after a job was cancelled hangs.
#[test]
fn a_shutdown_right_after_a_cancelled_job_does_not_hang() {
    let _watchdog = watchdog();
    for number in 0..100 {
        let pool = ThreadPool::new(1);
        if number % 2 == 0 {
            pool.spawn(|| ()).wait();
        }
        let job = pool.spawn(|| ());
        job.cancel();
        if number % 3 == 0 {
            drop(job);
            pool.drain();
        } else {
            pool.shutdown();
            assert!(job.is_finished());
        }
    }
}

/// rayon 449, rayon 819, rayon 446: forbids that a pool hangs, or loses its queued jobs, when a job of another pool
/// makes and drops it.
#[test]
fn pools_may_be_made_and_dropped_in_jobs_of_other_pools() {
    fn nested(left: u32) -> u32 {
        if left == 0 {
            return 0;
        }
        let pool = ThreadPool::new(1);
        let jobs = pool.spawn_many((0..2).map(|_| move || nested(left - 1)));
        if left % 2 == 0 {
            // The queued jobs still run.
            drop(pool);
            return jobs.into_iter().map(Job::wait).sum::<u32>() + 1;
        }
        let sum = block_on(gather(jobs)).into_iter().sum::<u32>() + 1;
        pool.shutdown();
        sum
    }
    let _watchdog = watchdog();
    assert_eq!(ThreadPool::new(1).spawn(|| nested(5)).wait(), 31);
}

// --- processes ------------------------------------------------------------------------------------------------------

/// geoengine 393: forbids that the global pool cannot be built, used or obtained inside jobs and hooks.
#[test]
fn the_global_pool_may_be_configured_inside_a_job() {
    let output = child("pool::global_pool_probe", None);
    assert!(output.as_ref().is_ok_and(|text| text.contains("the probe has passed")), "{output:?}");
}

#[test]
#[ignore = "run by `the_global_pool_may_be_configured_inside_a_job`, in a process of its own"]
fn global_pool_probe() {
    let _watchdog = watchdog();
    let build = || {
        let hook = || _ = ThreadPool::global().stats();
        let builder = ThreadPool::builder().threads(2).name("ht-inside");
        builder.on_thread_start(hook).on_thread_stop(hook).build_global()
    };
    assert!(ThreadPool::new(1).spawn(build).wait().is_ok());
    assert!(ThreadPool::builder().build_global().is_err());
    assert!(ThreadPool::global().spawn(|| ThreadPool::builder().threads(9).build_global().is_err()).wait());
    assert!(block_on(threaded(own_name)).starts_with("ht-inside"));
    ThreadPool::global().shutdown();
    assert!(matches!(block_on(threaded(|| 1).async_call().outcome()), Err(JoinError::Cancelled)));
    assert!(ThreadPool::builder().build_global().is_err());
    println!("the probe has passed");
}

/// pixi 4402, tokio 5338: forbids that a process that exits in a job waits for other jobs, streams or loops, or
/// crashes.
#[test]
fn a_job_may_exit_the_process() {
    let output = child("pool::exit_probe", None);
    assert!(output.as_ref().is_ok_and(|text| text.contains("the job exits")), "{output:?}");
}

#[test]
#[ignore = "run by `a_job_may_exit_the_process`, in a process of its own"]
fn exit_probe() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(4);
    hold(&pool, 1).remove(0).job.detach();
    thread::spawn(|| block_on(pending::<()>()));
    let mut items = threaded_iterable_separate(|| (0..).inspect(|_| thread::sleep(MILLI))).max_size(2);
    take(&mut items);
    let _ = poll(sleep(MILLI), Waker::noop());
    let exit = || {
        thread::sleep(5 * MILLI);
        println!("the job exits");
        process::exit(0);
    };
    block_on(pool.spawn(exit));
}
