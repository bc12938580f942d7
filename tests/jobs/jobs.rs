//! Jobs: `ThreadPool`, `threaded`, `Job`, `Outcome`, `is_cancelled` and `gather`. Results, panics, cancellation and
//! threads.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]

use crate::helpers::common::{Witness, watchdog};
use offthread::{Job, JoinError, Outcome, ThreadPool, block_on, gather, is_cancelled, oneshot, threaded, timeout};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::error::Error;
use std::future::{Future, IntoFuture, pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::pin::{Pin, pin};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;
use std::time::Duration;
use std::{env, io, thread};

// --- helpers --------------------------------------------------------------------------------------------------------

/// A value that sends the id of the thread that drops it.
struct Traced(mpsc::Sender<ThreadId>);

impl Drop for Traced {
    fn drop(&mut self) {
        // The test may have ended.
        let _ = self.0.send(thread::current().id());
    }
}

fn traced() -> (Traced, mpsc::Receiver<ThreadId>) {
    let (sender, receiver) = mpsc::channel();
    (Traced(sender), receiver)
}

/// A value whose `Drop` panics; it sends the thread's id as well.
struct Bomb(#[expect(dead_code, reason = "sends when it is dropped")] Traced);

impl Drop for Bomb {
    fn drop(&mut self) {
        // Prints nothing, unlike `panic!`.
        resume_unwind(Box::new("the bomb's panic"));
    }
}

fn bomb() -> (Bomb, mpsc::Receiver<ThreadId>) {
    let (traced, dropped) = traced();
    (Bomb(traced), dropped)
}

/// A pool of one thread that is busy until `free`, so that no other job starts.
struct Busy {
    pool: ThreadPool,
    open: mpsc::Sender<()>,
    blocker: Job<ThreadId>,
}

impl Busy {
    fn new() -> Self {
        let pool = ThreadPool::new(1);
        let (open, gate) = mpsc::channel();
        let (start, started) = mpsc::channel();
        let blocker = pool.spawn(move || {
            start.send(()).unwrap();
            gate.recv().unwrap();
            thread::current().id()
        });
        started.recv().unwrap();
        Self { pool, open, blocker }
    }

    /// Ends the blocking job. Returns the pool and the id of its thread.
    fn free(self) -> (ThreadPool, ThreadId) {
        self.open.send(()).unwrap();
        (self.pool, self.blocker.wait())
    }
}

/// A job that has started, and runs until it is told to stop.
struct Running<R> {
    job: Job<R>,
    stop: mpsc::Sender<()>,
}

/// Starts a job that runs until it is told to stop, and then returns the result of `end`.
fn running<R: Send + 'static>(pool: &ThreadPool, end: impl FnOnce() -> R + Send + 'static) -> Running<R> {
    let (stop, stopped) = mpsc::channel();
    let (start, started) = mpsc::channel();
    let job = pool.spawn(move || {
        start.send(()).unwrap();
        stopped.recv().unwrap();
        end()
    });
    started.recv().unwrap();
    Running { job, stop }
}

/// The id of the thread that runs the pool's next job.
fn thread_of(pool: &ThreadPool) -> ThreadId {
    pool.spawn(|| thread::current().id()).wait()
}

fn text(payload: &(dyn Any + Send)) -> &str {
    payload.downcast_ref::<String>().map_or_else(|| payload.downcast_ref::<&str>().copied().unwrap(), String::as_str)
}

/// A type that is `Send` only.
struct Opaque(Cell<i32>);

// --- results --------------------------------------------------------------------------------------------------------

#[test]
fn spawned_and_threaded_jobs_return_their_results() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    assert_eq!(block_on(pool.spawn(|| 2)), 2);
    assert!(matches!(pool.spawn(|| 3).outcome().wait(), Ok(3)));
    assert!(matches!(block_on(pool.spawn(|| 4).outcome()), Ok(4)));
    assert_eq!(block_on(threaded(|| 5)), 5);
    assert_eq!(block_on(threaded(|| 6).on(&pool)), 6);
    assert_eq!(threaded(|| 7).async_call().wait(), 7);
    assert_eq!(threaded(|| 8).on(&pool).async_call().wait(), 8);
    assert_eq!(threaded(|| 9).sync_call(), 9);
    assert_eq!(block_on(async { threaded(|| 10).await + threaded(|| 1).on(&pool).await }), 11);
    assert_eq!(ThreadPool::global().spawn(|| 12).wait(), 12);
    assert_eq!(pool.spawn(|| Opaque(Cell::new(13))).wait().0.get(), 13);
}

#[test]
fn a_job_runs_on_a_thread_of_its_pool() {
    let _watchdog = watchdog();
    let here = || thread::current().id();
    let (first, second) = (ThreadPool::new(1), ThreadPool::new(1));
    let ids = [thread_of(&first), thread_of(&second)];
    assert_eq!(HashSet::from([ids[0], ids[1], here()]).len(), 3);
    assert_eq!(threaded(here).on(&second).async_call().wait(), ids[1]);
    assert_eq!(block_on(threaded(here).on(&first)), ids[0]);
    // A clone is the same pool.
    assert_eq!(thread_of(&first.clone()), ids[0]);
    assert_ne!(threaded(here).async_call().wait(), here());
    assert_eq!(threaded(here).on(&first).sync_call(), here());
}

/// `threaded` starts nothing: the job starts when the returned `Threaded` is called or awaited.
#[test]
fn threaded_starts_nothing_by_itself() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let runs = Arc::new(AtomicUsize::new(0));
    let (traced, dropped) = traced();
    let inside = Arc::clone(&runs);
    let call = threaded(move || {
        let _traced = traced;
        inside.fetch_add(1, Ordering::SeqCst)
    })
    .on(&pool);
    // A job that had started would run before this job.
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert!(!format!("{call:?}").is_empty());
    drop(call);
    assert_eq!(dropped.recv(), Ok(thread::current().id()));
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

/// A job starts without a poll.
#[test]
fn a_job_starts_without_being_polled() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let (sender, receiver) = mpsc::channel();
    let send = |number| {
        let sender = sender.clone();
        move || sender.send(number).unwrap()
    };
    let job = pool.spawn(send(1));
    assert_eq!(receiver.recv(), Ok(1));
    job.wait();
    let job = threaded(send(2)).on(&pool).async_call();
    assert_eq!(receiver.recv(), Ok(2));
    job.wait();
    let job = threaded(send(3)).into_future();
    assert_eq!(receiver.recv(), Ok(3));
    job.wait();
}

#[test]
fn is_finished_turns_true_with_the_result() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let running = running(&pool, || 1);
    let queued = pool.spawn(|| 2);
    assert!(!running.job.is_finished() && !queued.is_finished());
    running.stop.send(()).unwrap();
    while !running.job.is_finished() {
        thread::yield_now();
    }
    assert_eq!(running.job.wait(), 1);
    assert_eq!(queued.wait(), 2);
    // Also for a job that panics, and for one that will never run.
    let panicking = pool.spawn(|| resume_unwind(Box::new(1)));
    while !panicking.is_finished() {
        thread::yield_now();
    }
    assert!(matches!(panicking.outcome().wait(), Err::<(), _>(JoinError::Panicked(_))));
    let busy = Busy::new();
    let cancelled = busy.pool.spawn(|| 3);
    assert!(!cancelled.is_finished());
    assert!(cancelled.cancel());
    assert!(cancelled.is_finished());
}

#[test]
fn jobs_of_one_thread_run_in_their_order() {
    let _watchdog = watchdog();
    let busy = Busy::new();
    let (sender, order) = mpsc::channel();
    let jobs: Vec<_> = (0..100)
        .map(|number| {
            let sender = sender.clone();
            busy.pool.spawn(move || sender.send(number).unwrap())
        })
        .collect();
    drop(sender);
    let _pool = busy.free();
    assert!(order.into_iter().eq(0..100));
    jobs.into_iter().for_each(Job::wait);
}

/// Several tasks may await a handle, one after the other: only the last waker is kept and woken, not the
/// first.
#[test]
fn the_last_waker_of_a_moved_handle_is_woken() {
    let _watchdog = watchdog();
    let busy = Busy::new();
    let [first, second] = [(); 2].map(|()| Witness::default());
    let mut job = busy.pool.spawn(|| 1);
    assert!(first.poll(&mut job).is_pending());
    assert_eq!(first.kept(), 1);
    assert!(second.poll(&mut job).is_pending());
    assert_eq!((first.kept(), second.kept()), (0, 1));
    let mut outcome = job.outcome();
    assert!(first.poll(&mut outcome).is_pending());
    assert_eq!((first.kept(), second.kept()), (1, 0));
    let mut other = busy.pool.spawn(|| 2);
    assert!(first.poll(&mut other).is_pending());
    let there = thread::spawn(move || (outcome.wait().unwrap(), block_on(other)));
    let _pool = busy.free();
    assert_eq!(there.join().unwrap(), (1, 2));
    // The other thread has replaced this waker, or the job has ended first. In both cases the waker is no longer
    // needed.
    first.wait_until_none_is_kept();
    assert_eq!((second.kept(), second.wakes()), (0, 0));
}

/// A waker is dropped when it has been woken, and when the handle is dropped. A waker that is kept would keep a whole
/// task alive.
#[test]
fn no_waker_outlives_its_use() {
    let _watchdog = watchdog();
    let witness = Witness::default();
    let busy = Busy::new();
    let waiting = || {
        let mut job = busy.pool.spawn(|| 1);
        assert!(witness.poll(&mut job).is_pending());
        assert_eq!(witness.kept(), 1);
        job
    };
    drop(waiting());
    assert_eq!((witness.kept(), witness.wakes()), (0, 0), "after drop");
    drop(waiting().outcome());
    assert_eq!((witness.kept(), witness.wakes()), (0, 0), "after the drop of the outcome");
    waiting().detach();
    assert_eq!((witness.kept(), witness.wakes()), (0, 0), "after detach");
    let mut woken = waiting();
    let (pool, _) = busy.free();
    // The one thread has finished that job when it runs the next.
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    assert_eq!((witness.kept(), witness.wakes()), (0, 1), "after the end");
    assert_eq!(witness.poll(&mut woken), Poll::Ready(1));

    // A running job whose handle is dropped.
    let mut running = running(&pool, || 1);
    assert!(witness.poll(&mut running.job).is_pending());
    drop(running.job);
    assert_eq!((witness.kept(), witness.wakes()), (0, 1), "after the drop of a running one");
    running.stop.send(()).unwrap();
}

/// The same for a cancelled job.
#[test]
fn a_cancelled_job_keeps_no_waker() {
    let witness = Witness::default();
    let busy = Busy::new();
    let mut job = busy.pool.spawn(|| 1);
    assert!(witness.poll(&mut job).is_pending());
    assert!(job.cancel());
    assert_eq!(witness.kept(), 0);
}

/// The waker is registered or replaced while the job ends. The last waker is woken, and its wake-up is not lost.
#[test]
fn a_waker_registered_while_the_job_ends_is_woken() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for round in 0..500 {
        let [old, new] = [(); 2].map(|()| Witness::default());
        let go = Arc::new(AtomicBool::new(false));
        let inside = Arc::clone(&go);
        let mut job = pool.spawn(move || {
            while !inside.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            round
        });
        if round % 2 == 0 {
            assert!(old.poll(&mut job).is_pending());
        }
        go.store(true, Ordering::SeqCst);
        match new.poll(&mut job) {
            Poll::Ready(result) => assert_eq!(result, round),
            Poll::Pending => {
                while new.wakes() == 0 {
                    thread::yield_now();
                }
                assert_eq!(new.poll(&mut job), Poll::Ready(round));
            }
        }
        // The thread of the job may still be waking them.
        old.wait_until_none_is_kept();
        new.wait_until_none_is_kept();
    }
}

#[test]
fn handles_print_without_the_result_being_printable() {
    let _watchdog = watchdog();
    let busy = Busy::new();
    assert!(!format!("{:?}", busy.pool).is_empty());
    let job = busy.pool.spawn(|| Opaque(Cell::new(1)));
    assert!(!format!("{job:?}").is_empty());
    assert!(!format!("{:?}", job.outcome()).is_empty());
    let finished = busy.pool.spawn(|| Opaque(Cell::new(1)));
    let cancelled = busy.pool.spawn(|| Opaque(Cell::new(1)));
    assert!(cancelled.cancel());
    let (pool, _) = busy.free();
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    assert!(!format!("{finished:?} {cancelled:?} {pool:?}").is_empty());
    assert_eq!(finished.wait().0.get(), 1);
}

/// A job's captured values have been dropped when its handle resolves, and do not live on until the next job.
#[test]
fn captured_values_are_dropped_with_the_job() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for panics in [false, true] {
        let captured = Arc::new(());
        let inside = Arc::clone(&captured);
        let job = pool.spawn(move || {
            assert_eq!(Arc::strong_count(&inside), 2);
            if panics {
                resume_unwind(Box::new("on the way"));
            }
        });
        assert_eq!(job.outcome().wait().is_err(), panics);
        assert_eq!(Arc::strong_count(&captured), 1);
    }
}

/// If nobody wants a result, or the payload of a panic, the worker drops it before the worker goes idle, and not only
/// at the next job. Here no job follows.
#[test]
fn an_unwanted_result_is_dropped_before_the_worker_goes_idle() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let worker = thread_of(&pool);
    let ways: [fn(Job<Traced>); 2] = [drop, Job::detach];
    for end in ways {
        for panics in [false, true] {
            let (result, dropped) = traced();
            // The job must still be running; otherwise this thread would drop the result.
            let running = running(&pool, move || if panics { resume_unwind(Box::new(result)) } else { result });
            end(running.job);
            running.stop.send(()).unwrap();
            assert_eq!(dropped.recv(), Ok(worker));
        }
    }
}

/// Closures and results of different sizes and alignments are each dropped once, whether the job is awaited, cancelled
/// or detached.
#[test]
fn closures_and_results_of_all_shapes_are_dropped_once() {
    #[derive(Clone, Copy)]
    #[repr(align(256))]
    struct Aligned(u8);
    type Big = [u64; 600];
    const BIG: Big = [7; 600];

    fn check<T: Copy + Send + 'static, R: Send + 'static>(captured: T, run: fn(T) -> R, is_right: fn(R) -> bool) {
        let job = |traced: Traced, result: Traced| {
            move || {
                let _traced = traced;
                (run(captured), result)
            }
        };
        let count = |dropped: mpsc::Receiver<ThreadId>| dropped.iter().count();
        let pool = ThreadPool::new(1);
        let ((closure, closures), (result, results)) = (traced(), traced());
        let (value, kept) = pool.spawn(job(closure, result)).wait();
        assert!(is_right(value));
        assert_eq!(count(closures), 1);
        drop(kept);
        assert_eq!(count(results), 1);

        let busy = Busy::new();
        let ((closure, closures), (result, results)) = (traced(), traced());
        let cancelled = busy.pool.spawn(job(closure, result));
        assert!(cancelled.cancel());
        assert_eq!((count(closures), count(results)), (1, 1));
        assert!(matches!(cancelled.outcome().wait(), Err(JoinError::Cancelled)));
        let ((closure, closures), (result, results)) = (traced(), traced());
        busy.pool.spawn(job(closure, result)).detach();
        busy.free();
        assert_eq!((count(closures), count(results)), (1, 1));
    }

    let _watchdog = watchdog();
    check((), |()| (), |()| true);
    check((), |()| BIG, |result| result == BIG);
    check(BIG, |big| big, |result| result == BIG);
    check(BIG, |big| big[599], |result| result == 7);
    check(BIG, |_| (), |()| true);
    check(Aligned(5), |aligned| aligned.0, |result| result == 5);
    check(5, Aligned, |result| result.0 == 5 && (&raw const result).is_aligned());
    check(Aligned(5), |aligned| [aligned; 2], |result| result[1].0 == 5);
}

// --- panics ---------------------------------------------------------------------------------------------------------

/// A panic payload that is not a string.
#[derive(Debug, PartialEq)]
struct Custom(i32);

/// A panic is resumed, with its payload, where the job is awaited; `outcome()` returns the panic as a value.
#[test]
fn a_panic_reaches_the_awaiter() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let number = 3;
    let panics: [fn(i32); 4] = [
        |_| panic!("a fixed text"),
        |number| panic!("text {number}"),
        |number| panic_any(Custom(number)),
        |number| resume_unwind(Box::new(number)),
    ];
    let is_right = [
        |payload: &(dyn Any + Send)| text(payload) == "a fixed text",
        |payload: &(dyn Any + Send)| text(payload) == "text 3",
        |payload: &(dyn Any + Send)| payload.downcast_ref() == Some(&Custom(3)),
        |payload: &(dyn Any + Send)| payload.downcast_ref() == Some(&3),
    ];
    let messages = [Some("a fixed text"), Some("text 3"), None, None];
    for ((panic, is_right), message) in panics.into_iter().zip(is_right).zip(messages) {
        let spawn = || pool.spawn(move || panic(number));
        let call = || threaded(move || panic(number)).on(&pool);
        let resumed: [Box<dyn FnOnce()>; 6] = [
            Box::new(|| spawn().wait()),
            Box::new(|| block_on(spawn())),
            Box::new(|| block_on(call())),
            Box::new(|| call().async_call().wait()),
            Box::new(|| call().sync_call()),
            Box::new(|| block_on(gather([spawn()])).clear()),
        ];
        for resume in resumed {
            let payload = catch_unwind(AssertUnwindSafe(resume)).unwrap_err();
            assert!(is_right(&*payload));
        }
        let given: [fn(Outcome<()>) -> JoinError; 2] =
            [|outcome| outcome.wait().unwrap_err(), |outcome| block_on(outcome).unwrap_err()];
        for error in given {
            let JoinError::Panicked(panic) = error(spawn().outcome()) else { panic!("no panic") };
            assert!(message.is_none_or(|message| panic.message() == message), "{}", panic.message());
            assert!(!panic.message().is_empty(), "a payload that is not a string has an empty message");
            assert!(!format!("{panic:?}").is_empty());
            assert!(is_right(&*panic.into_payload()));
            let JoinError::Panicked(panic) = error(spawn().outcome()) else { panic!("no panic") };
            let payload = catch_unwind(AssertUnwindSafe(|| panic.resume())).unwrap_err();
            assert!(is_right(&*payload));
        }
    }
}

/// A panic does not end the pool's only thread; otherwise later jobs would wait for ever.
#[test]
fn a_panic_does_not_kill_the_worker() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let worker = thread_of(&pool);
    for round in 0..20 {
        let job = pool.spawn(move || resume_unwind(Box::new(round)));
        match round % 4 {
            0 => job.detach(),
            1 => drop(job),
            2 => assert!(catch_unwind(AssertUnwindSafe(|| job.wait())).is_err()),
            _ => assert!(matches!(job.outcome().wait(), Err::<(), _>(JoinError::Panicked(_)))),
        }
        assert_eq!(thread_of(&pool), worker);
    }
}

/// A panic in the `Drop` of a result, of a payload or of a captured value does not end the worker.
#[test]
fn a_panic_in_a_drop_does_not_kill_the_worker() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let worker = thread_of(&pool);

    // The result of a job without a handle, or the payload of its panic.
    let ways: [fn(Job<Bomb>); 2] = [drop, Job::detach];
    for end in ways {
        for panics in [false, true] {
            let (result, dropped) = bomb();
            // The job must still be running; otherwise this thread would drop the result.
            let running = running(&pool, move || if panics { resume_unwind(Box::new(result)) } else { result });
            end(running.job);
            running.stop.send(()).unwrap();
            assert_eq!(dropped.recv(), Ok(worker));
            assert_eq!(dropped.recv(), Err(mpsc::RecvError), "dropped twice");
            assert_eq!(thread_of(&pool), worker);
        }
    }

    // A captured value that is dropped at the end of the job: its panic is the job's panic.
    let (captured, dropped) = bomb();
    let job = pool.spawn(move || drop(captured));
    assert!(matches!(job.outcome().wait(), Err(JoinError::Panicked(_))));
    assert_eq!(dropped.recv(), Ok(worker));
    let (captured, dropped) = bomb();
    let job = pool.spawn(move || {
        let _captured = &captured;
        1
    });
    let Err(JoinError::Panicked(panic)) = job.outcome().wait() else { panic!("the panic is lost") };
    assert_eq!(panic.message(), "the bomb's panic");
    assert_eq!(dropped.recv(), Ok(worker));
    assert_eq!(thread_of(&pool), worker);
}

/// A captured value's `Drop`, which runs on the thread that cancels the job, may panic.
#[test]
fn the_drop_of_a_cancelled_closure_may_panic() {
    let _watchdog = watchdog();
    let ways: [fn(Job<i32>); 3] = [drop, |job| drop(job.outcome()), |job| drop((job.cancel(), job))];
    for cancel in ways {
        let busy = Busy::new();
        let (captured, dropped) = bomb();
        let job = busy.pool.spawn(move || {
            let _captured = &captured;
            1
        });
        // The panic comes out of the call that cancels the job.
        assert!(catch_unwind(AssertUnwindSafe(|| cancel(job))).is_err());
        assert_eq!(dropped.recv(), Ok(thread::current().id()));
        assert_eq!(dropped.recv(), Err(mpsc::RecvError), "dropped twice");
        let later = busy.pool.spawn(|| thread::current().id());
        let (_pool, worker) = busy.free();
        assert_eq!(later.wait(), worker);
    }
}

/// A delivered payload whose `Drop` panics is dropped by the owner of the error.
#[test]
fn a_delivered_payload_is_dropped_by_its_owner() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (payload, dropped) = bomb();
    let outcome = pool.spawn(move || resume_unwind(Box::new(payload))).outcome();
    let error = outcome.wait().map(|()| "no panic").unwrap_err();
    assert!(dropped.try_recv().is_err());
    let _ = catch_unwind(AssertUnwindSafe(|| drop(error)));
    assert_eq!(dropped.recv(), Ok(thread::current().id()));
    assert_eq!(dropped.recv(), Err(mpsc::RecvError), "dropped twice");
    assert_eq!(pool.spawn(|| 1).wait(), 1);
}

#[test]
fn errors_can_be_boxed_and_have_messages() {
    fn check(error: JoinError) -> String {
        assert!(!format!("{error:?}").is_empty());
        let text = error.to_string();
        assert!(!text.is_empty());
        let boxed: Box<dyn Error + Send + Sync> = error.into();
        assert_eq!(boxed.to_string(), text);
        text
    }
    fn question_mark() -> Result<i32, Box<dyn Error + Send + Sync>> {
        let busy = Busy::new();
        let job = busy.pool.spawn(|| 1);
        job.cancel();
        Ok(job.outcome().wait()?)
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let panicked = check(pool.spawn(|| resume_unwind(Box::new("the text"))).outcome().wait().map(|()| 1).unwrap_err());
    assert!(panicked.contains("the text"), "{panicked}");
    let cancelled = question_mark().unwrap_err();
    assert!(matches!(cancelled.downcast_ref(), Some(JoinError::Cancelled)));
    assert_ne!(check(JoinError::Cancelled), panicked);
    // The system's reason is in the message, or is the source.
    let no_thread = JoinError::NoThread(io::Error::other("the system's reason"));
    let told = no_thread.source().is_some_and(|source| source.to_string().contains("the system's reason"));
    assert!(check(no_thread).contains("the system's reason") || told);
}

// --- cancelling -----------------------------------------------------------------------------------------------------

/// A job that is dropped before its start does not run, for every way to drop it. The closure is dropped at once, and
/// not only when a worker takes the job.
#[test]
fn a_job_dropped_before_its_start_never_runs() {
    let _watchdog = watchdog();
    let ways: [fn(Job<()>); 7] = [
        drop,
        |job| drop(job.outcome()),
        |job| assert!(job.cancel()),
        |mut job| assert!(Witness::default().poll(&mut job).is_pending()),
        |job| assert!(pin!(async { (job.await, 1) }).poll(&mut Context::from_waker(Waker::noop())).is_pending()),
        |job| assert!(block_on(timeout(Duration::ZERO, job)).is_err()),
        |job| assert!(pin!(gather([job])).poll(&mut Context::from_waker(Waker::noop())).is_pending()),
    ];
    for end in ways {
        let busy = Busy::new();
        let (captured, dropped) = traced();
        let runs = Arc::new(AtomicUsize::new(0));
        let inside = Arc::clone(&runs);
        let job = busy.pool.spawn(move || {
            let _captured = &captured;
            inside.fetch_add(1, Ordering::SeqCst);
        });
        assert!(dropped.try_recv().is_err());
        end(job);
        // The worker is still busy, so this thread has dropped the closure.
        assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
        let later = busy.pool.spawn(|| 1);
        let _pool = busy.free();
        assert_eq!(later.wait(), 1);
        assert_eq!(runs.load(Ordering::SeqCst), 0);
        assert_eq!(Arc::strong_count(&runs), 1);
    }
}

/// The handle of a job that was cancelled before its start resolves with `Cancelled`; `wait` and `await` panic.
#[test]
fn a_cancelled_job_resolves_as_cancelled() {
    let _watchdog = watchdog();
    let busy = Busy::new();
    let cancelled = || {
        let job = busy.pool.spawn(|| 1);
        assert!(job.cancel());
        job
    };
    assert!(matches!(cancelled().outcome().wait(), Err(JoinError::Cancelled)));
    assert!(matches!(block_on(cancelled().outcome()), Err(JoinError::Cancelled)));
    // Without a value, `wait` and `await` panic and say why.
    let job = cancelled();
    let panic = catch_unwind(AssertUnwindSafe(|| job.wait())).unwrap_err();
    assert!(text(&*panic).contains("cancel"), "{}", text(&*panic));
    let job = cancelled();
    let panic = catch_unwind(AssertUnwindSafe(|| block_on(job))).unwrap_err();
    assert!(text(&*panic).contains("cancel"), "{}", text(&*panic));
    // A cancelled job may be detached or dropped.
    cancelled().detach();
    drop(cancelled());
    // A job that a task already awaits.
    let witness = Witness::default();
    let mut job = busy.pool.spawn(|| 1);
    assert!(witness.poll(&mut job).is_pending());
    assert!(job.cancel());
    assert!(matches!(witness.poll(&mut job.outcome()), Poll::Ready(Err(JoinError::Cancelled))));
}

/// `cancel` only asks a running job to stop: its handle still yields the value.
#[test]
fn cancel_asks_a_running_job_to_stop() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (start, started) = mpsc::channel();
    let job = pool.spawn(move || {
        assert!(!is_cancelled());
        start.send(()).unwrap();
        while !is_cancelled() {
            thread::yield_now();
        }
        // `is_cancelled` stays true.
        assert!(is_cancelled());
        "stopped"
    });
    started.recv().unwrap();
    assert!(!job.cancel());
    assert!(!job.cancel());
    assert_eq!(job.wait(), "stopped");
    // The next job on that thread is not cancelled.
    assert!(!pool.spawn(is_cancelled).wait());
}

/// Dropping the handle of a running job does not interrupt the job: `is_cancelled` turns true in the job, and the
/// result is dropped.
#[test]
fn a_running_job_sees_that_its_handle_was_dropped() {
    let _watchdog = watchdog();
    let ways: [fn(Job<Traced>); 3] =
        [drop, |job| drop(job.outcome()), |job| assert!(block_on(timeout(Duration::from_millis(1), job)).is_err())];
    for end in ways {
        let pool = ThreadPool::new(1);
        let worker = thread_of(&pool);
        let (result, dropped) = traced();
        let (start, started) = mpsc::channel();
        let (report, reported) = mpsc::channel();
        let job = pool.spawn(move || {
            start.send(()).unwrap();
            while !is_cancelled() {
                thread::yield_now();
            }
            report.send("stopped").unwrap();
            result
        });
        started.recv().unwrap();
        assert!(dropped.try_recv().is_err());
        end(job);
        assert_eq!(reported.recv(), Ok("stopped"));
        assert_eq!(dropped.recv(), Ok(worker));
        assert!(!pool.spawn(is_cancelled).wait());
    }
}

#[test]
fn a_finished_job_cannot_be_cancelled() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let job = pool.spawn(|| 1);
    while !job.is_finished() {
        thread::yield_now();
    }
    assert!(!job.cancel());
    assert_eq!(job.wait(), 1);
}

/// Dropping the handle of a finished job drops the result in this call, on the caller's thread.
#[test]
fn the_result_of_a_finished_job_is_dropped_by_its_handle() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let ways: [fn(Job<Traced>); 3] = [drop, |job| drop(job.outcome()), |job| job.detach()];
    for end in ways {
        let (result, dropped) = traced();
        let job = pool.spawn(move || result);
        while !job.is_finished() {
            thread::yield_now();
        }
        assert!(dropped.try_recv().is_err());
        end(job);
        assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
    }
}

#[test]
fn is_cancelled_is_false_outside_a_cancelled_job() {
    let _watchdog = watchdog();
    assert!(!is_cancelled());
    assert!(!block_on(async { is_cancelled() }));
    assert!(!threaded(is_cancelled).sync_call());
    let pool = ThreadPool::new(1);
    assert!(!pool.spawn(is_cancelled).wait());
    assert!(!pool.spawn(|| block_on(async { is_cancelled() })).wait());
    // A thread that the job starts is not the job, but a call on the job's thread is part of the job.
    let (start, started) = mpsc::channel();
    let job = pool.spawn(move || {
        start.send(()).unwrap();
        while !is_cancelled() {
            thread::yield_now();
        }
        (threaded(is_cancelled).sync_call(), thread::spawn(is_cancelled).join().unwrap())
    });
    started.recv().unwrap();
    assert!(!job.cancel());
    assert_eq!(job.wait(), (true, false));
}

/// A detached job runs, although its handle is gone.
#[test]
fn a_detached_job_runs() {
    let _watchdog = watchdog();
    let busy = Busy::new();
    let (sender, receiver) = mpsc::channel();
    busy.pool.spawn(move || sender.send(is_cancelled()).unwrap()).detach();
    let (pool, _) = busy.free();
    assert_eq!(receiver.recv(), Ok(false));
    // Nor is it cancelled if the handle is detached while the job runs.
    let (report, reported) = mpsc::channel();
    let running = running(&pool, move || report.send(is_cancelled()).unwrap());
    running.job.detach();
    running.stop.send(()).unwrap();
    assert_eq!(reported.recv(), Ok(false));
}

/// A job may own its own handle, and cancel or drop it.
#[test]
fn a_job_cancels_or_drops_itself() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let worker = thread_of(&pool);
    for dropped_inside in [false, true] {
        let (give, take) = mpsc::channel::<Job<Traced>>();
        let (report, reported) = mpsc::channel();
        let (result, dropped) = traced();
        let job = pool.spawn(move || {
            let job = take.recv().unwrap();
            if dropped_inside {
                drop(job);
                report.send((is_cancelled(), None)).unwrap();
            } else {
                let answer = job.cancel();
                report.send((is_cancelled() && !answer, Some(job))).unwrap();
            }
            result
        });
        give.send(job).unwrap();
        let (is_cancelled, job) = reported.recv().unwrap();
        assert!(is_cancelled);
        if let Some(job) = job {
            assert!(dropped.try_recv().is_err());
            drop(job.wait());
        } else {
            assert_eq!(dropped.recv(), Ok(worker));
        }
        assert_eq!(thread_of(&pool), worker);
    }
}

/// A job that is cancelled just as the worker takes it either runs or is cancelled, and not both.
#[test]
fn a_job_cancelled_as_it_starts_runs_or_is_cancelled() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for round in 0..1000 {
        let runs = Arc::new(AtomicUsize::new(0));
        let inside = Arc::clone(&runs);
        let job = pool.spawn(move || inside.fetch_add(1, Ordering::SeqCst));
        // A different moment each time.
        (0..round % 50).for_each(|_| std::hint::spin_loop());
        let cancelled = job.cancel();
        match job.outcome().wait() {
            Ok(result) => assert_eq!((result, cancelled), (0, false)),
            Err(JoinError::Cancelled) => assert!(cancelled),
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(runs.load(Ordering::SeqCst), usize::from(!cancelled));
        assert_eq!(Arc::strong_count(&runs), 1);
    }
}

/// The handle is dropped at any moment of the job, and the captured value and the result are each dropped once.
#[test]
fn values_are_dropped_once_whenever_the_handle_is_dropped() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for round in 0..1000 {
        let (captured, closure_dropped) = traced();
        let (result, result_dropped) = traced();
        let job = pool.spawn(move || {
            drop(captured);
            result
        });
        (0..round % 100).for_each(|_| std::hint::spin_loop());
        drop(job);
        assert!(closure_dropped.recv().is_ok());
        assert!(result_dropped.recv().is_ok());
        assert_eq!(closure_dropped.recv(), Err(mpsc::RecvError), "dropped twice");
        assert_eq!(result_dropped.recv(), Err(mpsc::RecvError), "dropped twice");
    }
}

/// No user code runs under a lock: a value that a cancel or a worker drops may use the pool.
#[test]
fn a_drop_may_submit_to_the_pool() {
    struct Submits(ThreadPool, mpsc::Sender<i32>);
    impl Drop for Submits {
        fn drop(&mut self) {
            let sender = self.1.clone();
            self.0.spawn(move || sender.send(1).unwrap()).detach();
        }
    }
    let _watchdog = watchdog();
    let (sender, receiver) = mpsc::channel();
    let busy = Busy::new();
    let submits = || Submits(busy.pool.clone(), sender.clone());
    let captured = submits();
    drop(busy.pool.spawn(move || drop(captured)));
    let captured = submits();
    assert!(busy.pool.spawn(move || drop(captured)).cancel());
    let captured = submits();
    busy.pool.spawn(move || captured).detach();
    let captured = submits();
    busy.pool.spawn(move || panic_any(captured)).detach();
    let captured = submits();
    let job = busy.pool.spawn(move || captured);
    let (_pool, _) = busy.free();
    drop(job.wait());
    for _ in 0..5 {
        assert_eq!(receiver.recv(), Ok(1));
    }
}

/// A waker may use the pool.
#[test]
fn a_wake_up_may_submit_to_the_pool() {
    struct Submits(ThreadPool, Mutex<mpsc::Sender<i32>>);
    impl Wake for Submits {
        fn wake(self: Arc<Self>) {
            let sender = self.1.lock().unwrap().clone();
            self.0.spawn(move || sender.send(1).unwrap()).detach();
        }
    }
    let _watchdog = watchdog();
    let busy = Busy::new();
    let (sender, receiver) = mpsc::channel();
    let waker = Waker::from(Arc::new(Submits(busy.pool.clone(), Mutex::new(sender))));
    let mut job = busy.pool.spawn(|| 2);
    assert!(Pin::new(&mut job).poll(&mut Context::from_waker(&waker)).is_pending());
    let _pool = busy.free();
    assert_eq!(receiver.recv(), Ok(1));
    assert_eq!(job.wait(), 2);
}

/// Random operations on jobs from several threads: each job runs once, unless it was cancelled in time.
#[test]
fn each_job_runs_at_most_once_under_random_operations() {
    let _watchdog = watchdog();
    for threads in [1, 3] {
        let pool = ThreadPool::new(threads);
        let alive = Arc::new(());
        let (detached, ran) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        thread::scope(|scope| {
            for submitter in 0..4_u32 {
                let (pool, alive, detached, ran) = (&pool, &alive, &detached, &ran);
                scope.spawn(move || {
                    let mut random = submitter + 1;
                    for number in 0..400_u32 {
                        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let (runs, token) = (Arc::new(AtomicUsize::new(0)), Arc::clone(alive));
                        let (way, inside, ran) = ((random >> 16) % 6, Arc::clone(&runs), Arc::clone(ran));
                        let job = pool.spawn(move || {
                            inside.fetch_add(1, Ordering::SeqCst);
                            ran.fetch_add(usize::from(way == 3), Ordering::SeqCst);
                            (token, number)
                        });
                        match way {
                            0 => assert_eq!(job.wait().1, number),
                            1 => assert_eq!(block_on(job).1, number),
                            2 => {
                                let cancelled = job.cancel();
                                assert_eq!(job.outcome().wait().is_err(), cancelled);
                                assert_eq!(runs.load(Ordering::SeqCst), usize::from(!cancelled));
                            }
                            3 => {
                                detached.fetch_add(1, Ordering::SeqCst);
                                job.detach();
                            }
                            4 => drop(job),
                            _ => assert_eq!(block_on(job.outcome()).unwrap().1, number),
                        }
                        assert!(runs.load(Ordering::SeqCst) <= 1);
                    }
                });
            }
        });
        drop(pool);
        // Detached jobs run to their end, although the pool has no handle any more.
        while Arc::strong_count(&alive) > 1 {
            thread::yield_now();
        }
        assert_eq!(ran.load(Ordering::SeqCst), detached.load(Ordering::SeqCst));
    }
}

// --- threads --------------------------------------------------------------------------------------------------------

/// A pool of zero threads panics, and the message names the argument.
#[test]
fn a_pool_of_zero_threads_panics() {
    let panic = catch_unwind(|| ThreadPool::new(0)).unwrap_err();
    assert!(text(&*panic).contains("threads"), "{}", text(&*panic));
}

/// Threads are started lazily: the size is only a limit. The sizes are so large that the test could not end if a pool
/// used time or memory in advance for each thread that it may start.
#[test]
fn a_pool_costs_nothing_for_each_thread_it_may_have() {
    let _watchdog = watchdog();
    for size in [1_000_000, usize::MAX] {
        let pool = ThreadPool::new(size);
        assert_eq!(pool.stats().threads, 0);
        assert_eq!(thread_of(&pool), thread_of(&pool));
        assert_eq!(pool.stats().threads, 1);
    }
}

/// Jobs that are spawned and awaited one after the other need one thread, not two: when a handle resolves, its worker
/// counts as searching or finishing, and `spawn` yields to a finishing worker before it starts another thread.
#[test]
fn a_job_after_another_finds_the_idle_thread() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(8);
    let job = || pool.spawn(|| thread::current().id());
    let ids: HashSet<_> = (0..500).map(|_| job().wait()).collect();
    assert_eq!(ids.len(), 1, "with `wait`");
    let more: HashSet<_> = (0..500).map(|_| block_on(job())).collect();
    assert_eq!(ids, more, "with `block_on`");
}

/// Each job that finds no idle thread starts one, up to the size.
#[test]
fn as_many_jobs_run_at_once_as_the_pool_has_threads() {
    let _watchdog = watchdog();
    for size in [1, 2, 5] {
        let pool = ThreadPool::new(size);
        let barrier = Arc::new(Barrier::new(size));
        let meet = || {
            let barrier = Arc::clone(&barrier);
            pool.spawn(move || {
                barrier.wait();
                thread::current().id()
            })
        };
        // No job returns before all of them run.
        let first: Vec<_> = (0..size).map(|_| meet()).collect();
        let ids: HashSet<_> = first.into_iter().map(Job::wait).collect();
        assert_eq!(ids.len(), size);

        let running = Arc::new(AtomicUsize::new(0));
        let many: Vec<_> = (0..300)
            .map(|_| {
                let running = Arc::clone(&running);
                pool.spawn(move || {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    (now, thread::current().id())
                })
            })
            .collect();
        for (now, id) in many.into_iter().map(Job::wait) {
            assert!(now <= size, "{now} jobs at once");
            assert!(ids.contains(&id), "another thread was started");
        }
    }
}

/// Two jobs that are submitted while one thread is idle both run at once.
#[test]
fn two_jobs_submitted_to_one_idle_thread_run_at_once() {
    let _watchdog = watchdog();
    for _ in 0..50 {
        let pool = ThreadPool::new(2);
        let barrier = Arc::new(Barrier::new(2));
        // In the first round one thread has started; later, both have.
        for _ in 0..10 {
            assert_eq!(pool.spawn(|| 1).wait(), 1);
            let meet = || {
                let barrier = Arc::clone(&barrier);
                pool.spawn(move || barrier.wait().is_leader())
            };
            let (first, second) = (meet(), meet());
            assert_ne!(first.wait(), second.wait());
        }
    }
}

/// A job that blocks occupies one thread only.
#[test]
fn a_job_that_blocks_occupies_only_one_thread() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let running = running(&pool, || 1);
    let sum: i32 = (0..100).map(|number| pool.spawn(move || number)).map(Job::wait).sum();
    assert_eq!(sum, 4950);
    running.stop.send(()).unwrap();
    assert_eq!(running.job.wait(), 1);
}

#[test]
fn a_job_may_submit_jobs() {
    /// Each job submits the next.
    fn chain(pool: &ThreadPool, left: u32, done: mpsc::Sender<u32>) {
        let inside = pool.clone();
        pool.spawn(move || if left == 0 { done.send(7).unwrap() } else { chain(&inside, left - 1, done) }).detach();
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let inside = pool.clone();
    // The one thread runs the outer job, so the inner job is queued until the outer job has ended.
    let inner = pool.spawn(move || inside.spawn(|| 1)).wait();
    assert_eq!(inner.wait(), 1);
    let (done, end) = mpsc::channel();
    chain(&pool, 1000, done);
    assert_eq!(end.recv(), Ok(7));
}

/// The threads of a pool have a name, which debuggers show, even if the builder sets none.
#[test]
fn a_pools_threads_have_names() {
    let _watchdog = watchdog();
    let name = || thread::current().name().map(str::to_owned);
    assert!(ThreadPool::new(1).spawn(name).wait().is_some_and(|name| !name.is_empty()));
    assert!(ThreadPool::global().spawn(name).wait().is_some_and(|name| !name.is_empty()));
}

thread_local! {
    /// A value that is dropped when the thread ends.
    static AT_THE_END: RefCell<Option<Traced>> = const { RefCell::new(None) };
}

/// Makes `traced` report the end of this thread.
fn report_end(traced: Traced) {
    AT_THE_END.set(Some(traced));
}

/// After the last handle is dropped, the queued jobs run, and then the threads end. The drop does not wait for this.
#[test]
fn queued_jobs_run_after_the_last_handle_is_dropped() {
    let _watchdog = watchdog();
    let busy = Busy::new();
    let (traced, ended) = traced();
    let (sender, receiver) = mpsc::channel();
    let first = busy.pool.spawn(move || report_end(traced));
    let jobs: Vec<_> = (0..10).map(|number| busy.pool.spawn(move || number)).collect();
    busy.pool.spawn(move || sender.send(10).unwrap()).detach();
    let second = busy.pool.clone();
    drop(busy.pool);
    assert!(!second.spawn(|| 1).is_finished());
    drop(second);
    // The drop has returned although the worker is busy, and no handle is left.
    busy.open.send(()).unwrap();
    let worker = busy.blocker.wait();
    first.wait();
    for (number, job) in jobs.into_iter().enumerate() {
        assert_eq!(job.wait(), number);
    }
    assert_eq!(receiver.recv(), Ok(10));
    assert_eq!(ended.recv(), Ok(worker));
}

/// All idle threads end with the last handle, although their keep-alive time is not over.
#[test]
fn all_threads_end_with_the_pool() {
    let _watchdog = watchdog();
    let size = 4;
    let pool = ThreadPool::builder().threads(size).keep_alive(Duration::MAX).build();
    let barrier = Arc::new(Barrier::new(size));
    let (traced, ended): (Vec<_>, Vec<_>) = (0..size).map(|_| traced()).unzip();
    let jobs: Vec<_> = traced
        .into_iter()
        .map(|traced| {
            let barrier = Arc::clone(&barrier);
            pool.spawn(move || {
                barrier.wait();
                report_end(traced);
                thread::current().id()
            })
        })
        .collect();
    let ids: HashSet<_> = jobs.into_iter().map(Job::wait).collect();
    drop(pool);
    let ends: HashSet<_> = ended.into_iter().map(|ended| ended.recv().unwrap()).collect();
    assert_eq!(ids, ends);
}

/// A pool without jobs may be dropped.
#[test]
fn a_pool_may_be_dropped_unused() {
    let _watchdog = watchdog();
    for _ in 0..100 {
        let pool = ThreadPool::new(4);
        let clone = pool.clone();
        drop(pool);
        drop(clone);
    }
}

/// The last handle is dropped inside a job. The worker does not join itself, and ends.
#[test]
fn the_last_handle_may_be_dropped_in_a_job() {
    let _watchdog = watchdog();
    for panics in [false, true] {
        let busy = Busy::new();
        let (traced, ended) = traced();
        let inside = busy.pool.clone();
        let last = busy.pool.spawn(move || {
            report_end(traced);
            // Dropped at the end of the scope, or by the panic.
            let _inside = inside;
            if panics {
                resume_unwind(Box::new("in the job"));
            }
        });
        let queued = busy.pool.spawn(|| 1);
        drop(busy.pool);
        busy.open.send(()).unwrap();
        let worker = busy.blocker.wait();
        assert_eq!(last.outcome().wait().is_err(), panics);
        assert_eq!(queued.wait(), 1);
        assert_eq!(ended.recv(), Ok(worker));
    }
}

/// The same when the last handle is dropped with a job's result. If the last handle is dropped with the closure of a
/// cancelled job, on the thread that cancels, the queued job still runs.
#[test]
fn the_last_handle_may_be_dropped_with_a_result() {
    let _watchdog = watchdog();
    let busy = Busy::new();
    let (traced, ended) = traced();
    busy.pool.spawn(move || report_end(traced)).detach();
    let result = busy.pool.clone();
    busy.pool.spawn(move || result).detach();
    drop(busy.pool);
    busy.open.send(()).unwrap();
    assert_eq!(ended.recv(), Ok(busy.blocker.wait()));

    let busy = Busy::new();
    let (captured, last) = (busy.pool.clone(), busy.pool.spawn(|| 1));
    let cancelled = busy.pool.spawn(move || drop(captured));
    drop(busy.pool);
    drop(cancelled);
    busy.open.send(()).unwrap();
    assert_eq!(last.wait(), 1);
}

/// The thread of an idle pool does not wake up.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_thread_sleeps() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let status = pool
        .spawn(|| {
            let task = std::fs::read_link("/proc/thread-self").unwrap();
            format!("/proc/{}/status", task.display())
        })
        .wait();
    let switches = || {
        let text = std::fs::read_to_string(&status).unwrap();
        text.lines().filter(|line| line.contains("ctxt_switches")).map(str::to_owned).collect::<Vec<_>>()
    };
    // The thread may spin first, but not for as long as ten of these intervals.
    let sleeps = (0..10).any(|_| {
        let before = switches();
        assert_eq!(before.len(), 2);
        thread::sleep(Duration::from_millis(150));
        switches() == before
    });
    assert!(sleeps, "the idle thread keeps waking up");
}

// --- the global pool ------------------------------------------------------------------------------------------------

/// The environment variable with the pool size that the probe expects.
const EXPECTED_SIZE: &str = "OFFTHREAD_TEST_EXPECTED_SIZE";

/// The default size: as many threads as cores, but at least 4 and at most 32.
fn default_size() -> usize {
    thread::available_parallelism().unwrap().get().clamp(4, 32)
}

/// Asserts that the global pool of this process has the expected size.
#[test]
#[ignore = "run by the tests below, each in a process of its own: there is one global pool, made once"]
fn global_pool_probe() {
    let _watchdog = watchdog();
    let size = env::var(EXPECTED_SIZE).map_or_else(|_| default_size(), |size| size.parse().unwrap());
    let barrier = Arc::new(Barrier::new(size));
    let together: Vec<_> = (0..size)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            threaded(move || {
                barrier.wait();
                thread::current().id()
            })
            .async_call()
        })
        .collect();
    let ids: HashSet<_> = together.into_iter().map(Job::wait).collect();
    assert_eq!(ids.len(), size);
    let many: Vec<_> = (0..300)
        .map(|_| {
            ThreadPool::global().spawn(|| {
                thread::yield_now();
                thread::current().id()
            })
        })
        .collect();
    assert!(many.into_iter().all(|job| ids.contains(&job.wait())), "more than {size} threads");
}

/// Runs the probe with this setting. Returns its output if it fails.
fn probe(setting: Option<&str>, expected: usize) -> Result<(), String> {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--ignored", "global_pool_probe", "--nocapture"]);
    command.env_remove("OFFTHREAD_POOL_SIZE").env(EXPECTED_SIZE, expected.to_string());
    if let Some(setting) = setting {
        command.env("OFFTHREAD_POOL_SIZE", setting);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("1 test"), "the probe was not found: {text}");
    if output.status.success() { Ok(()) } else { Err(text) }
}

#[test]
fn without_a_setting_the_global_pool_has_the_default_size() {
    assert_eq!(probe(None, default_size()), Ok(()));
    assert_eq!(probe(Some(""), default_size()), Ok(()));
}

#[test]
fn the_size_of_the_global_pool_can_be_set() {
    for size in [1, 3, 40] {
        assert_eq!(probe(Some(&size.to_string()), size), Ok(()));
    }
}

/// A size that is not a positive number panics, and the message says so.
#[test]
fn a_bad_size_of_the_global_pool_panics() {
    for setting in ["0", "-1", "many", "1.5", " ", "3 threads"] {
        let text = probe(Some(setting), 1).expect_err(setting);
        assert!(text.contains(&format!("OFFTHREAD_POOL_SIZE is {setting:?}, but")), "{text}");
    }
}

/// There is one global pool for all threads.
#[test]
fn the_global_pool_is_one() {
    let _watchdog = watchdog();
    let pools: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| std::ptr::from_ref(ThreadPool::global()).addr())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(pools.iter().all(|pool| *pool == std::ptr::from_ref(ThreadPool::global()).addr()));
}

// --- threads that are refused ---------------------------------------------------------------------------------------

/// Allocates memory until no stack fits, but leaves a little for the rest of the program.
#[cfg(target_os = "linux")]
fn fill_the_memory() -> Vec<Vec<u8>> {
    let block = 1 << 18;
    let mut blocks = Vec::with_capacity(10_000);
    loop {
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(block).is_err() {
            break;
        }
        blocks.push(bytes);
    }
    // A stack takes eight blocks.
    blocks.truncate(blocks.len() - 4);
    assert!(thread::Builder::new().spawn(|| ()).is_err(), "there is still room for a thread");
    blocks
}

/// If the system refuses a thread, the pool goes on with the threads that it has. If the pool has no thread, the job
/// resolves with `NoThread`.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by the test below, in a process whose memory is limited"]
fn no_thread_probe() {
    let (one, none) = (ThreadPool::new(3), ThreadPool::new(3));
    let worker = thread_of(&one);
    let blocks = fill_the_memory();
    let jobs: Vec<_> = (0..10).map(|_| one.spawn(|| thread::current().id())).collect();
    assert!(jobs.into_iter().all(|job| job.wait() == worker));

    let (captured, dropped) = traced();
    let refused = none.spawn(move || drop(captured));
    let outcome = refused.outcome().wait();
    assert!(matches!(outcome, Err(JoinError::NoThread(_))), "{outcome:?}");
    assert!(dropped.recv().is_ok());
    assert!(matches!(block_on(none.spawn(|| 1).outcome()), Err(JoinError::NoThread(_))));
    assert!(catch_unwind(AssertUnwindSafe(|| none.spawn(|| 1).wait())).is_err());
    assert!(!none.spawn(|| 1).cancel(), "the job has already ended");

    // The pool works again when there is memory.
    drop(blocks);
    assert_eq!(none.spawn(|| 2).wait(), 2);
    assert_eq!(one.spawn(|| 2).wait(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn the_system_may_refuse_a_thread() {
    let _watchdog = watchdog();
    let mut command = Command::new("sh");
    // Otherwise each thread reserves, and later partly returns, tens of megabytes for its own arena.
    command.env("MALLOC_ARENA_MAX", "1");
    // The limit of the address space, in kilobytes.
    command.args(["-c", "ulimit -v 400000 && exec \"$0\" --ignored no_thread_probe --nocapture"]);
    let output = command.arg(env::current_exe().unwrap()).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

// --- gather ---------------------------------------------------------------------------------------------------------

/// `gather` returns the results in order, whichever branch finishes first.
#[test]
fn gather_keeps_the_order() {
    let _watchdog = watchdog();
    assert_eq!(block_on(gather(Vec::<Job<i32>>::new())), []);
    assert_eq!(block_on(gather([ready(1)])), [1]);
    assert_eq!(block_on(gather((0..100).map(ready))), (0..100).collect::<Vec<_>>());
    let pool = ThreadPool::new(4);
    assert_eq!(block_on(gather((0..100).map(|n| pool.spawn(move || n)))), (0..100).collect::<Vec<_>>());
    // Values that implement `IntoFuture`.
    assert_eq!(block_on(gather((0..10).map(|n| threaded(move || n)))), (0..10).collect::<Vec<_>>());
    // Finished from the last to the first.
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..10).map(|_| oneshot::channel()).unzip();
    let other = thread::spawn(move || {
        for (number, sender) in senders.into_iter().enumerate().rev() {
            sender.send(number).unwrap();
        }
    });
    assert!(block_on(gather(receivers)).into_iter().map(Result::unwrap).eq(0..10));
    other.join().unwrap();
}

/// The branches of `gather` run concurrently: here, each branch waits for the branch after it.
#[test]
fn gather_runs_all_at_once() {
    let _watchdog = watchdog();
    let local = Rc::new(Cell::new(0));
    let (mut senders, mut receivers): (Vec<_>, Vec<_>) = (0..10).map(|_| oneshot::channel()).unzip();
    senders.rotate_right(1);
    // The last branch waits for no other.
    receivers.pop();
    let (to_last, last) = oneshot::channel();
    to_last.send(0).unwrap();
    receivers.push(last);
    let branches = senders.into_iter().zip(receivers).map(|(sender, receiver)| {
        let local = Rc::clone(&local);
        async move {
            let number = receiver.await.unwrap();
            local.set(local.get() + 1);
            // Nobody receives the first branch's number.
            let _ = sender.send(number + 1);
            number
        }
    });
    assert!(block_on(gather(branches)).into_iter().eq((0..10).rev()));
    assert_eq!(local.get(), 10);
}

/// No branch is polled after its end.
#[test]
fn gather_polls_no_branch_after_its_end() {
    let _watchdog = watchdog();
    let branches = (0..20_usize).map(|number| {
        let mut left = Some(number % 5);
        poll_fn(move |cx| match left {
            None => panic!("polled after its end"),
            Some(0) => {
                left = None;
                Poll::Ready(number)
            }
            Some(more) => {
                left = Some(more - 1);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
    });
    assert_eq!(block_on(gather(branches)), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_panic_in_gather_comes_out_and_drops_the_others() {
    let _watchdog = watchdog();
    let busy = Busy::new();
    let (captured, dropped) = traced();
    let queued = busy.pool.spawn(move || drop(captured));
    let branches: [Pin<Box<dyn Future<Output = ()>>>; 3] =
        [Box::pin(queued), Box::pin(async { resume_unwind(Box::new("in a branch")) }), Box::pin(pending())];
    let panic = catch_unwind(AssertUnwindSafe(|| block_on(gather(branches)))).unwrap_err();
    assert_eq!(text(&*panic), "in a branch");
    assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
    let _pool = busy.free();
}

#[test]
fn a_dropped_gather_drops_its_branches() {
    let busy = Busy::new();
    let (captured, dropped): (Vec<_>, Vec<_>) = (0..3).map(|_| traced()).unzip();
    let jobs: Vec<_> = captured.into_iter().map(|captured| busy.pool.spawn(move || drop(captured))).collect();
    let witness = Witness::default();
    let mut all = Box::pin(gather(jobs));
    assert!(witness.poll(&mut all).is_pending());
    drop(all);
    assert!(dropped.into_iter().all(|dropped| dropped.try_recv() == Ok(thread::current().id())));
    assert_eq!(witness.kept(), 0);
}
