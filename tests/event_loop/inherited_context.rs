//! Code that runs in a copy of its starter's context: each job, task, callback and branch has its own copy, and the
//! current loop is part of the context. `context_variables.rs` tests the variables themselves.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]
#![allow(clippy::async_yields_async, reason = "a test often returns a handle from its future")]

use crate::helpers::event_loop::*;
use offthread::{
    Context, ContextVar, EventLoop, Job, LoopHandle, ThreadPool, block_on, gather, oneshot, sleep, spawn, sync_await,
    threaded, threaded_separate, timeout, yield_now,
};
use std::future::{Future, IntoFuture, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::thread::{self, ThreadId};

static ID: ContextVar<u32> = ContextVar::new();
static VALUE: ContextVar<Arc<()>> = ContextVar::new();

type Seen = Pin<Box<dyn Future<Output = Option<u32>>>>;

/// Sets `ID`, checks it after other code has run, and returns the value that `ID` had before.
async fn visits(new: u32) -> Option<u32> {
    let before = ID.get();
    ID.set(new);
    for _ in 0..3 {
        yield_now().await;
        assert_eq!(ID.get(), Some(new), "the value did not last from poll to poll");
    }
    before
}

/// Like `visits`, in blocking code.
fn visit(new: u32) -> Option<u32> {
    let before = ID.get();
    ID.set(new);
    assert_eq!(ID.get(), Some(new));
    before
}

/// Starts jobs, tasks, callbacks and wrapped futures in many ways. Each future returns the value that the code saw.
fn start_everything() -> Vec<(&'static str, Seen)> {
    fn boxed(seen: impl Future<Output = Option<u32>> + 'static) -> Seen {
        Box::pin(seen)
    }
    let handle = LoopHandle::current();
    let pool = ThreadPool::new(1);
    let [(soon, called_soon), (later, called_later), (never, called_never)] = [(); 3].map(|()| oneshot::channel());
    handle.call_soon(|| soon.send(visit(1)).unwrap());
    let _timer = handle.call_later(MILLI, || later.send(visit(2)).unwrap());
    drop(handle.call_later(MILLI * 2, || never.send(visit(3)).unwrap()));
    let many = pool.spawn_many([4, 5].map(|new| move || visit(new)));
    let mut started = vec![
        ("call_soon", boxed(async { called_soon.await.unwrap() })),
        ("call_later", boxed(async { called_later.await.unwrap() })),
        ("call_later without a handle", boxed(async { called_never.await.unwrap() })),
        ("spawn", boxed(spawn(visits(6)))),
        ("LoopHandle::spawn", boxed(handle.spawn(visits(7)))),
        ("a task of a task", boxed(spawn(async { spawn(visits(8)).await }))),
        ("threaded", boxed(threaded(|| visit(9)).async_call())),
        ("threaded_separate", boxed(threaded_separate(|| visit(10)).async_call())),
        ("ThreadPool::spawn", boxed(pool.spawn(|| visit(11)))),
        ("a job of a job", boxed(pool.spawn(|| threaded(|| visit(12)).async_call().wait()))),
        ("a task of a job", boxed(pool.spawn(|| sync_await(LoopHandle::current().spawn(visits(13)))))),
        ("sync_await in a job", boxed(pool.spawn(|| sync_await(visits(14))))),
        ("sync_wait in a job", boxed(pool.spawn(|| LoopHandle::current().sync_wait(visits(15)).unwrap()))),
        ("block_on in a job", boxed(pool.spawn(|| block_on(visits(16))))),
        ("wrap", boxed(Context::current().wrap(visits(17)))),
        (
            "wrap in another loop",
            boxed({
                let wrapped = Context::current().wrap(visits(18));
                elsewhere(|| block_on(wrapped))
            }),
        ),
    ];
    started.extend(many.into_iter().map(|job| ("spawn_many", boxed(job))));
    started
}

/// Code sees the context that its starter had at the start, not a later one, and its changes are not seen outside.
#[test]
fn all_started_code_has_its_own_copy() {
    let _watchdog = watchdog();
    block_on(async {
        ID.set(100);
        let started = start_everything();
        // The code that has been started must not see this value.
        ID.set(200);
        for (name, seen) in started {
            assert_eq!(seen.await, Some(100), "{name}");
            assert_eq!(ID.get(), Some(200), "the change of {name} is seen outside");
        }
        turns().await;
        assert_eq!(ID.get(), Some(200));
        // A variable that is not set is not set in the copies either.
        ID.clear();
        for (name, seen) in start_everything() {
            assert_eq!(seen.await, None, "{name}");
            assert_eq!(ID.get(), None, "the change of {name} is seen outside");
        }
    });
    assert_eq!(ID.get(), None);
}

/// Code that another thread submits runs in that thread's context, not in the loop's.
#[test]
fn submitted_code_runs_in_the_submitters_context() {
    let _watchdog = watchdog();
    block_on(async {
        ID.set(1);
        let handle = LoopHandle::current();
        let [soon, later] = elsewhere(move || {
            ID.set(2);
            assert_eq!(handle.sync_wait(visits(3)).unwrap(), Some(2));
            assert_eq!(block_on(handle.spawn(visits(4))), Some(2));
            assert_eq!(handle.enter(|| sync_await(visits(5))), Some(2));
            let [(soon, called_soon), (later, called_later)] = [(); 2].map(|()| oneshot::channel());
            handle.call_soon(|| soon.send(visit(6)).unwrap());
            handle.call_later(MILLI, || later.send(visit(7)).unwrap());
            assert_eq!(ID.get(), Some(2));
            [called_soon, called_later]
        })
        .await;
        assert_eq!((soon.await, later.await), (Ok(Some(2)), Ok(Some(2))));
        assert_eq!(ID.get(), Some(1));
    });
}

/// The changes of the main future, and of its `into_future`, are not seen outside, nor in the next call.
#[test]
fn the_main_future_has_a_copy() {
    struct Sets;
    impl IntoFuture for Sets {
        type Output = Option<u32>;
        type IntoFuture = Ready<Option<u32>>;
        fn into_future(self) -> Ready<Option<u32>> {
            ready(visit(9))
        }
    }
    let _watchdog = watchdog();
    ID.set(1);
    let mut event_loop = EventLoop::new();
    for _ in 0..2 {
        assert_eq!(block_on(visits(2)), Some(1));
        assert_eq!(event_loop.block_on(visits(3)), Some(1));
        assert_eq!(block_on(Sets), Some(1));
        assert_eq!(event_loop.block_on(Sets), Some(1));
        assert_eq!(sync_await(visits(4)), Some(1));
        assert_eq!(
            panic_of(|| block_on(async { quiet_panic(if visit(5).is_some() { "some" } else { "none" }) })),
            "some"
        );
        assert_eq!(ID.get(), Some(1));
    }
    ID.clear();
    // A task keeps the context of its start, whatever context a later `block_on` is called in.
    let task = Context::current().run(|| {
        ID.set(6);
        event_loop.block_on(async { spawn(visits(7)) })
    });
    ID.set(8);
    assert_eq!(event_loop.block_on(task), Some(6));
    assert_eq!(event_loop.block_on(async { ID.get() }), Some(8));
}

/// The branches of one `gather` never see each other's id, in the function and in the macro.
#[test]
fn each_branch_of_a_gather_has_a_copy() {
    async fn request(id: u32) -> u32 {
        assert_eq!(visits(id).await, Some(1000), "another branch's id");
        sleep(MILLI).await;
        let in_job = threaded(|| ID.get()).await;
        let in_task = spawn(async { ID.get() }).await;
        assert_eq!((in_job, in_task), (Some(id), Some(id)));
        // A gather in a gather.
        let inner = gather([id + 10, id + 20].map(async |inner| visits(inner).await)).await;
        assert_eq!(inner, [Some(id); 2]);
        assert_eq!(ID.get(), Some(id));
        id
    }
    let _watchdog = watchdog();
    block_on(async {
        ID.set(1000);
        assert_eq!(gather([1, 2, 3].map(request)).await, [1, 2, 3]);
        assert_eq!(ID.get(), Some(1000));
        assert_eq!(gather!(request(1), request(2), async { request(3).await }).await, (1, 2, 3));
        assert_eq!(ID.get(), Some(1000));
        // The arguments of the macro may be any `IntoFuture`.
        assert_eq!(gather!(threaded(|| visit(1)), visits(2)).await, (Some(1000), Some(1000)));
        assert_eq!(spawn(async { gather!(visits(1), visits(2)).await }).await, (Some(1000), Some(1000)));
        // A `timeout` has no context of its own: a change in it is a change in its task.
        assert_eq!(timeout(LONG, visits(5)).await, Ok(Some(1000)));
        assert_eq!(ID.get(), Some(5));
    });
}

/// A job that `wait` runs inline neither sees nor changes what the waiting job has set since the submission.
#[test]
fn a_job_that_runs_inline_sees_and_changes_no_other_context() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let inner = pool.clone();
    let job = pool.spawn(move || {
        ID.set(1);
        let job = inner.spawn(|| visit(2));
        ID.set(3);
        assert_eq!(job.wait(), Some(1));
        ID.get()
    });
    assert_eq!(job.wait(), Some(3));
    // The thread keeps no value.
    assert_eq!(pool.spawn(|| ID.get()).wait(), None);
}

/// The copy of a context is dropped with the code that runs in it.
#[test]
fn the_copy_of_a_context_is_dropped_with_its_code() {
    let _watchdog = watchdog();
    let living = Living::default();
    let mut event_loop = EventLoop::new();
    event_loop.block_on(async {
        VALUE.set(living.one());
        for (_, seen) in start_everything() {
            seen.await;
        }
        let dropped = start_everything();
        let timer = LoopHandle::current().call_later(LONG, || ());
        assert!(timer.cancel());
        drop(dropped);
        turns().await;
        VALUE.clear();
        until("all copies are gone", || living.count() == 0).await;
        // Dropped at the loop's end.
        VALUE.set(living.one());
        LoopHandle::current().call_later(LONG, || ());
        spawn(std::future::pending::<()>()).detach();
        turns().await;
    });
    assert!(living.count() > 0);
    drop(event_loop);
    assert_eq!(living.count(), 0);
}

// --- jobs -----------------------------------------------------------------------------------------------------------

/// Every way to run a job, with its name for the assertion messages.
fn ways_to_run<R: Send + 'static>(pool: &ThreadPool, job: fn() -> R) -> [(&'static str, Job<R>); 4] {
    let many = pool.spawn_many([job]).pop().unwrap();
    [
        ("spawn", pool.spawn(job)),
        ("spawn_many", many),
        ("on", threaded(job).on(pool).async_call()),
        ("separate", threaded_separate(job).async_call()),
    ]
}

/// Forbids: a job sees a change that was made between its submission and its start, or its own changes are seen
/// outside.
#[test]
fn a_job_gets_a_copy_of_its_starters_context() {
    static NUMBER: ContextVar<u32> = ContextVar::new();
    let pool = ThreadPool::new(1);
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let holding = pool.spawn(move || gone.recv().is_err());
    NUMBER.set(1);
    let jobs = ways_to_run(&pool, || (NUMBER.set(10), NUMBER.get()));
    NUMBER.set(2);
    drop(go);
    assert!(holding.wait());
    for (way, job) in jobs {
        assert_eq!(job.wait(), (Some(1), Some(10)), "{way}");
    }
    assert_eq!(NUMBER.get(), Some(2));
}

/// Forbids: a job sees variables of the job that ran on its thread before, whether or not that job panicked.
#[test]
fn a_thread_keeps_no_variables_of_a_job() {
    static NUMBER: ContextVar<u32> = ContextVar::new();
    let pool = ThreadPool::new(1);
    for panics in [false, true] {
        let outcome = pool.spawn(move || {
            NUMBER.set(1);
            if panics {
                quiet_panic("on purpose");
            }
        });
        assert_eq!(outcome.outcome().wait().is_err(), panics);
        for (way, job) in ways_to_run(&pool, || NUMBER.get()) {
            assert_eq!(job.wait(), None, "{way}");
        }
    }
}

/// Forbids: a job that runs inline sees what the waiting job has set since the submission, or changes the waiting job's
/// context.
#[test]
fn a_job_inside_another_has_its_own_context() {
    static NUMBER: ContextVar<u32> = ContextVar::new();
    let pool = ThreadPool::new(1);
    let inside = pool.clone();
    let outer = pool.spawn(move || {
        NUMBER.set(1);
        let inner = inside.spawn(|| NUMBER.set(10));
        NUMBER.set(2);
        let outer_thread = thread::current().id();
        assert_eq!(inside.spawn(|| thread::current().id()).wait(), outer_thread, "the job did not run inline");
        (inner.wait(), NUMBER.get())
    });
    assert_eq!(outer.wait(), (Some(1), Some(2)));
}

/// Forbids: a job that was cancelled or has finished keeps the values of its context.
#[test]
fn a_job_drops_its_copy() {
    static SHARED: ContextVar<Arc<()>> = ContextVar::new();
    let value = Arc::new(());
    let pool = ThreadPool::new(1);
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let holding = pool.spawn(move || gone.recv().is_err());
    SHARED.set(value.clone());
    let cancelled = pool.spawn(|| ());
    let done = pool.spawn(|| ());
    assert!(cancelled.cancel());
    SHARED.clear();
    assert_eq!(Arc::strong_count(&value), 2, "a cancelled job keeps its context");
    drop(go);
    assert!(holding.wait());
    done.wait();
    pool.shutdown();
    SHARED.set(value.clone());
    let refused = pool.spawn(|| ());
    SHARED.clear();
    assert!(refused.outcome().wait().is_err());
    drop(cancelled);
    assert_eq!(Arc::strong_count(&value), 1);
}

// --- the current loop -----------------------------------------------------------------------------------------------

/// The id of the current loop's thread.
async fn loops_thread() -> ThreadId {
    LoopHandle::current().spawn(async { thread::current().id() }).await
}

/// Code that runs in a context on another thread finds the context's loop current there. Afterwards the former loop, if
/// there was one, is current again.
#[test]
fn the_current_loop_travels_in_the_context() {
    let _watchdog = watchdog();
    block_on(async {
        let here = thread::current().id();
        let context = Context::current();
        elsewhere(move || {
            assert!(LoopHandle::try_current().is_none());
            assert_eq!(context.run(|| LoopHandle::current().sync_wait(loops_thread()).unwrap()), here);
            assert!(LoopHandle::try_current().is_none());
            // Polled by another loop, but with the context's loop current.
            block_on(async {
                let other = thread::current().id();
                assert_eq!(context.clone().wrap(loops_thread()).await, here);
                assert_eq!(loops_thread().await, other);
                assert_eq!(gather!(context.wrap(loops_thread()), loops_thread()).await, (here, other));
            });
        })
        .await;
        // The empty context has no loop.
        Context::default().run(|| assert!(LoopHandle::try_current().is_none()));
        assert!(LoopHandle::try_current().is_some());
    });
}

/// In a task or callback for another loop, that loop is current, but the variables are those of the submitter.
#[test]
fn submitted_code_has_the_other_loop_current() {
    let _watchdog = watchdog();
    let mut event_loop = EventLoop::new();
    let handle = event_loop.handle();
    let here = thread::current().id();
    let (started, from_other) = meanwhile(|| {
        block_on(async {
            ID.set(5);
            let (sender, receiver) = oneshot::channel();
            let task = handle.spawn(async { (loops_thread().await, ID.get()) });
            handle.call_soon(|| sender.send((LoopHandle::current(), ID.get())).unwrap());
            (task, receiver)
        })
    });
    event_loop.block_on(async {
        assert_eq!(started.await, (here, Some(5)));
        let (current, id) = from_other.await.unwrap();
        assert_eq!((current.spawn(async { thread::current().id() }).await, id), (here, Some(5)));
    });
    // `enter` changes the current loop only, and only while it runs.
    ID.set(6);
    let (is_some, id) = handle.enter(|| (LoopHandle::try_current().is_some(), ID.get()));
    assert_eq!((is_some, id, ID.get()), (true, Some(6), Some(6)));
    assert!(LoopHandle::try_current().is_none());
}
