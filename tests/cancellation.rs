//! A cancellation is not a panic: when a job is cancelled in `sync_await`, the job unwinds, but neither the panic hook
//! nor the job's handle reports a panic.

#![forbid(unsafe_code)]

#[path = "helpers/mod.rs"]
mod helpers;

use helpers::iterables::*;
use offthread::{
    Job, JoinError, LoopHandle, SyncWaitError, ThreadPool, block_on, is_cancelled, oneshot, sleep, sync_await,
    threaded, timeout,
};
use std::any::Any;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, mpsc};
use std::time::Duration;
use std::{env, fs, panic, process};

/// How often the panic hook was called, in the whole process.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Sets the count of panics to 0. Only one test at a time can hold the guard.
fn count_panics() -> MutexGuard<'static, ()> {
    static HOOK: Once = Once::new();
    static ONE_TEST: Mutex<()> = Mutex::new(());
    let guard = ONE_TEST.lock().unwrap_or_else(PoisonError::into_inner);
    PANICS.store(0, SeqCst);
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Expected>() {
                PANICS.fetch_add(1, SeqCst);
                hook(info);
            }
        }));
    });
    guard
}

/// The payload of a panic that a test makes on purpose.
struct Expected;

/// A job that waits in `sync_await` for ever. When this returns, the wait has begun.
fn waiting_job(start: impl FnOnce(Box<dyn FnOnce() + Send>) -> Job<()>) -> Job<()> {
    let (started, has_started) = mpsc::channel();
    let job = start(Box::new(move || {
        sync_await(async move {
            started.send(()).unwrap();
            pending::<()>().await;
        });
    }));
    has_started.recv().unwrap();
    job
}

/// Forbids: a job that is cancelled in `sync_await` is counted as panicked, has a panic as its outcome, or calls the
/// panic hook.
#[test]
fn a_job_that_is_cut_short_is_cancelled() {
    let _watchdog = watchdog();
    let _one_test = count_panics();
    let pool = ThreadPool::new(1);
    let job = waiting_job(|code| pool.spawn(code));
    assert!(!job.cancel(), "the running job was cancelled as if it had not started");
    assert!(matches!(job.outcome().wait(), Err(JoinError::Cancelled)));
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.cancelled, stats.panicked, stats.succeeded, stats.queued), (1, 1, 0, 0, 0));

    let separate = waiting_job(|code| threaded(code).separate().async_call());
    assert!(!separate.cancel());
    assert!(matches!(separate.outcome().wait(), Err(JoinError::Cancelled)));

    // The inner job runs inline, in the job that waits for it.
    let inside = pool.clone();
    let outer = pool.spawn(move || inside.spawn(|| sync_await(pending::<()>())).outcome().wait());
    until("the inner job runs", || running_now(&pool.stats()) == 2);
    pool.shutdown();
    assert!(matches!(outer.wait(), Err(JoinError::Cancelled)));
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.cancelled, stats.panicked, stats.succeeded, stats.queued), (3, 2, 0, 1, 0));
    assert_eq!(PANICS.load(SeqCst), 0);
}

/// Forbids: destructors do not run while the code unwinds; or a job that catches the unwinding cannot go on.
#[test]
fn destructors_run_and_the_unwinding_may_be_caught() {
    let _watchdog = watchdog();
    let _one_test = count_panics();
    let pool = ThreadPool::new(1);
    let (dropped, is_dropped) = mpsc::channel();
    let job = waiting_job(|code| {
        pool.spawn(move || {
            let _guard = on_drop(move || dropped.send(is_cancelled()).unwrap());
            code();
        })
    });
    drop(job);
    assert!(is_dropped.recv().unwrap());

    let (started, has_started) = mpsc::channel();
    let job = pool.spawn(move || {
        let caught: Box<dyn Any + Send> = catch_unwind(|| {
            sync_await(async move {
                started.send(()).unwrap();
                pending::<()>().await;
            });
        })
        .unwrap_err();
        assert!(!caught.is::<&str>() && !caught.is::<String>(), "the payload looks like that of a panic");
        7
    });
    has_started.recv().unwrap();
    assert!(!job.cancel());
    assert_eq!(job.wait(), 7);
    pool.drain();
    assert_eq!(PANICS.load(SeqCst), 0);
}

/// Forbids: a `sync_await` in a destructor that runs while a cancelled job unwinds aborts the process.
#[test]
fn a_destructor_of_a_cancelled_job_may_wait() {
    let _watchdog = watchdog();
    let _one_test = count_panics();
    for with_loop in [false, true] {
        let pool = ThreadPool::new(1);
        let body = async {
            let (cleaned, is_clean) = mpsc::channel();
            let (started, has_started) = oneshot::channel();
            let job = pool.spawn(move || {
                let _guard = on_drop(move || {
                    let value = sync_await(async {
                        sleep(Duration::from_millis(1)).await;
                        5
                    });
                    cleaned.send(value).unwrap();
                });
                sync_await(async move {
                    started.send(()).unwrap();
                    pending::<()>().await;
                });
            });
            has_started.await.unwrap();
            assert!(!job.cancel());
            assert!(matches!(job.outcome().await, Err(JoinError::Cancelled)));
            assert_eq!(is_clean.recv(), Ok(5));
        };
        if with_loop { block_on(body) } else { foreign_block_on(body) }
    }
    assert_eq!(PANICS.load(SeqCst), 0);
}

/// Runs a future without a loop of this crate.
fn foreign_block_on(future: impl Future<Output = ()>) {
    let mut future = std::pin::pin!(future);
    let witness = Witness::default();
    while future.as_mut().poll(&mut std::task::Context::from_waker(&witness.waker())).is_pending() {
        std::thread::yield_now();
    }
}

/// Forbids: closing or dropping an iterable whose iterator waits in `sync_await` panics, or calls the panic hook.
#[test]
fn closing_an_iterator_in_sync_await_is_silent() {
    let _watchdog = watchdog();
    let _one_test = count_panics();
    let pool = ThreadPool::new(2);
    for kind in BOTH {
        for close in [true, false] {
            let (waits, is_waiting) = oneshot::channel();
            let (dropped, is_dropped) = mpsc::channel();
            let mut waits = Some(waits);
            let first = block_on(async {
                let mut items = kind.stream(&pool, move || {
                    let guard = on_drop(move || dropped.send(()).unwrap());
                    (1..).inspect(move |n: &u32| {
                        let _guard = &guard;
                        if *n > 1 {
                            let waits = waits.take();
                            sync_await(async move {
                                waits.unwrap().send(()).unwrap();
                                sleep(Duration::MAX).await;
                            });
                        }
                    })
                });
                let first = items.next().await;
                is_waiting.await.unwrap();
                if close {
                    items.close().await;
                    is_dropped.try_recv().unwrap();
                    assert_eq!(items.next().await, None);
                }
                drop(items);
                first
            });
            assert_eq!(first, Some(1), "{kind:?}");
            if !close {
                is_dropped.recv().unwrap();
            }
        }
    }
    assert_eq!(PANICS.load(SeqCst), 0);
}

/// Forbids: a panic in the iterator's `Drop` is lost because the iterator was cancelled before.
#[test]
fn a_panic_in_drop_is_reported_despite_the_cancellation() {
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic::panic_any(Expected);
        }
    }
    let _watchdog = watchdog();
    let _one_test = count_panics();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let (waits, is_waiting) = oneshot::channel();
        let mut waits = Some(waits);
        let closed = block_on(async {
            let mut items = kind.stream(&pool, move || {
                let guard = PanicsInDrop;
                std::iter::from_fn(move || {
                    let (_guard, waits) = (&guard, waits.take());
                    sync_await(async move {
                        waits.unwrap().send(()).unwrap();
                        pending::<Option<u8>>().await
                    })
                })
            });
            assert!(timeout(Duration::from_millis(1), items.next()).await.is_err());
            is_waiting.await.unwrap();
            let mut close = std::pin::pin!(items.close());
            std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| close.as_mut().poll(cx))) {
                Ok(polled) => polled.map(Ok),
                Err(payload) => std::task::Poll::Ready(Err(payload)),
            })
            .await
        });
        match closed {
            Err(payload) if payload.is::<Expected>() => {}
            Err(payload) => resume_unwind(payload),
            Ok(()) => panic!("{kind:?}: the panic is lost"),
        }
    }
}

/// Forbids: a shutdown cuts an iterator short, and the consumer sees a normal end.
#[test]
fn a_shutdown_that_cuts_an_iterator_short_is_not_a_normal_end() {
    let _watchdog = watchdog();
    let _one_test = count_panics();
    let pool = ThreadPool::new(1);
    let (waits, is_waiting) = oneshot::channel();
    let mut waits = Some(waits);
    block_on(async {
        let mut items = Kind::Pool.stream(&pool, move || {
            (1..3).inspect(move |n| {
                if *n > 1 {
                    let waits = waits.take();
                    sync_await(async move {
                        waits.unwrap().send(()).unwrap();
                        pending::<()>().await;
                    });
                }
            })
        });
        assert_eq!(items.next().await, Some(1));
        is_waiting.await.unwrap();
        pool.shutdown();
        assert_eq!(PANICS.load(SeqCst), 0);
        let cut_short = std::future::poll_fn(|cx| {
            let next = AssertUnwindSafe(|| Pin::new(&mut items).poll_next(cx));
            std::task::Poll::Ready(catch_unwind(next).is_err())
        });
        assert!(cut_short.await, "the consumer sees a normal end");
        assert_eq!(items.next().await, None);
    });
    assert_eq!(PANICS.load(SeqCst), 1);
}

/// Forbids: a cancelled `sync_wait` unwinds, instead of returning an error.
#[test]
fn sync_wait_returns_the_cancellation() {
    let _watchdog = watchdog();
    let _one_test = count_panics();
    let result = block_on(async {
        let (started, has_started) = oneshot::channel();
        let handle = LoopHandle::current();
        let job = threaded(move || {
            handle.sync_wait(async move {
                started.send(()).unwrap();
                pending::<()>().await;
            })
        })
        .async_call();
        has_started.await.unwrap();
        assert!(!job.cancel());
        job.await
    });
    assert!(matches!(result, Err(SyncWaitError::Cancelled)));
    assert_eq!(PANICS.load(SeqCst), 0);
}

/// Forbids: with `panic = "abort"`, cancelling a job that waits in `sync_await` ends the process.
#[test]
fn a_cancel_does_not_abort_where_panics_do() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("abort-{}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    let compile = |arguments: &[&str]| {
        let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc
            .args(["--edition", "2024", "-C", "panic=abort", "--out-dir"])
            .arg(&folder)
            .args(arguments)
            .current_dir(root);
        assert!(rustc.status().unwrap().success(), "{rustc:?}");
    };
    compile(&["--crate-name", "offthread", "--crate-type", "rlib", "src/lib.rs"]);
    let library = format!("offthread={}", folder.join("liboffthread.rlib").display());
    compile(&["--extern", &library, "tests/abort/program.rs"]);
    let _watchdog = watchdog();
    let program = folder.join("program").with_extension(env::consts::EXE_EXTENSION);
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    fs::remove_dir_all(folder).unwrap();
}
