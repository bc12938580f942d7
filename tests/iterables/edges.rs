//! Edge cases of the iterables, which were found in a review. In a pool an iterator runs in *turns*: each turn is one
//! entry of the pool's queue (see `src/pool/stream.rs`).

#![forbid(unsafe_code)]

use crate::helpers::iterables::*;
use offthread::{ContextVar, IteratorWrapper, Job, ThreadPool, block_on, sync_await};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;
use std::{future, iter, thread};

/// Runs code when it is dropped.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

/// A paused stream whose iterator runs `on_drop` when it is dropped.
fn paused(pool: &ThreadPool, on_drop: impl FnOnce() + Send + 'static) -> IteratorWrapper<u32> {
    let make = move || {
        let on_drop = OnDrop(Some(on_drop));
        (0..).inspect(move |_| _ = &on_drop)
    };
    let mut stream = IteratorWrapper::new(make).on(pool).max_size(2);
    assert_eq!(take(&mut stream), Some(0));
    until("the stream is paused", || all_are_idle(pool));
    stream
}

/// Waits for a new job of the pool with a std channel, so that the pool does not know that this thread blocks.
fn wait_for_a_job(pool: &ThreadPool) {
    let (done, is_done) = mpsc::channel();
    pool.spawn(move || done.send(()).unwrap()).detach();
    is_done.recv().unwrap();
}

/// Forbids that a spare thread that dropped an iterator goes on with jobs, so that more jobs run than the pool may run.
#[test]
fn a_spare_thread_that_dropped_an_iterator_takes_no_jobs() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (stream, watch) = filled(Kind::Pool, &pool, 2);
    let (crowd, go, started) = (Crowd::default(), Gate::default(), Gate::default());
    let job = |number| {
        let (crowd, go, started) = (crowd.clone(), go.clone(), started.clone());
        move || {
            crowd.enter();
            if number == 0 {
                started.open();
            }
            go.pass();
            crowd.leave();
        }
    };
    // When the worker takes the first job, the other two move with it from the queue's `submitted` part to its `Ready`
    // part (see `src/pool/queue.rs`). A spare thread must not take them from there.
    let jobs = pool.spawn_many((0..3).map(job));
    started.pass();
    drop(stream);
    watch.wait_for_the_end();
    until("the spare thread has ended", || pool.stats().threads == 1);
    assert_eq!(crowd.most(), 1);
    go.open();
    jobs.into_iter().for_each(Job::wait);
}

/// Forbids that a shutdown drops a paused iterator before it cancels the queued job that the iterator's `Drop` waits
/// for.
#[test]
fn during_a_shutdown_an_iterators_drop_may_wait_for_a_queued_job() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (slot, done) = (Arc::new(Mutex::new(None::<Job<()>>)), Gate::default());
    let (inside, end) = (Arc::clone(&slot), done.clone());
    let _stream = paused(&pool, move || {
        let job = inside.lock().unwrap().take();
        assert_cancelled(job.expect("the job"));
        // A panic in this closure is discarded with the stream.
        end.open();
    });
    let held = hold(&pool, 1);
    *slot.lock().unwrap() = Some(pool.spawn(|| ()));
    assert!(pool.shutdown_timeout(Duration::ZERO).is_err());
    assert!(done.is_open(), "the iterator's `Drop` has not run to its end");
    release(held);
}

/// The same for an iterator whose `Drop` closes a queued stream.
#[test]
fn during_a_shutdown_an_iterators_drop_may_close_a_queued_stream() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (slot, done) = (Arc::new(Mutex::new(None::<IteratorWrapper<u32>>)), Gate::default());
    let (inside, end) = (Arc::clone(&slot), done.clone());
    let _stream = paused(&pool, move || {
        let stream = inside.lock().unwrap().take();
        block_on(stream.expect("the stream").close());
        // As above.
        end.open();
    });
    let held = hold(&pool, 1);
    let mut queued = IteratorWrapper::new(|| 0..5).on(&pool);
    assert!(poll_once(&mut queued).is_pending());
    *slot.lock().unwrap() = Some(queued);
    assert!(pool.shutdown_timeout(Duration::ZERO).is_err());
    assert!(done.is_open(), "the iterator's `Drop` has not run to its end");
    release(held);
}

/// The same for an iterator whose `Drop` waits for a running job, which waits in `sync_await` to be cancelled.
#[test]
fn during_a_shutdown_an_iterators_drop_may_wait_for_a_job_in_sync_await() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let done = Gate::default();
    // Several streams, so that some are dropped before the job is cancelled, if the order is wrong.
    let streams: Vec<_> =
        iter::repeat_with(|| done.clone()).take(20).map(|done| paused(&pool, move || done.pass())).collect();
    let started = Gate::default();
    let job = pool.spawn({
        let started = started.clone();
        move || {
            started.open();
            let _ = catch_unwind(|| sync_await(future::pending::<()>()));
            done.open();
        }
    });
    started.pass();
    pool.shutdown();
    job.wait();
    drop(streams);
}

/// Forbids that a stream whose consumer takes each item at once keeps its thread for more than `max_size` items,
/// although a job is queued.
#[test]
fn a_quick_consumer_delays_a_queued_job_by_at_most_max_size_items() {
    let _watchdog = watchdog();
    for max_size in [1, 2, 4] {
        let pool = ThreadPool::new(1);
        let (made, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let count = Arc::clone(&made);
        let make = move || iter::repeat_with(move || count.fetch_add(1, SeqCst));
        let mut stream = IteratorWrapper::new(make).on(&pool).max_size(max_size);
        let stopped = Arc::clone(&stop);
        let reader = thread::spawn(move || {
            while !stopped.load(SeqCst) {
                let _ = poll_once(&mut stream);
            }
        });
        until("the iterator runs", || made.load(SeqCst) > 100);
        for _ in 0..500 {
            let made_inside = Arc::clone(&made);
            let job = pool.spawn(move || made_inside.load(SeqCst));
            let submitted = made.load(SeqCst);
            assert!(job.wait() <= submitted + max_size);
        }
        stop.store(true, SeqCst);
        reader.join().unwrap();
    }
}

/// Forbids that a job is left to a worker that is dropping the payload of an unreceived panic.
#[test]
fn a_payloads_drop_may_wait_for_a_job() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let (dropped, entered, go) = (Gate::default(), Gate::default(), Gate::default());
    let payload = {
        let (pool, dropped) = (pool.clone(), dropped.clone());
        OnDrop(Some(move || {
            wait_for_a_job(&pool);
            dropped.open();
        }))
    };
    let (inside, may_go) = (entered.clone(), go.clone());
    let make = move || -> std::ops::Range<u32> {
        inside.open();
        may_go.pass();
        resume_unwind(Box::new(payload))
    };
    let mut stream = IteratorWrapper::new(make).on(&pool);
    assert!(poll_once(&mut stream).is_pending());
    entered.pass();
    drop(stream);
    go.open();
    dropped.pass();
}

/// The same for the value of a context variable whose last copy the stream owns.
#[test]
fn a_contexts_drop_may_wait_for_a_job() {
    type Value = Arc<Mutex<dyn Send>>;
    static VALUE: ContextVar<Value> = ContextVar::new();
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let (dropped, go) = (Gate::default(), Gate::default());
    VALUE.set(Arc::new(Mutex::new(OnDrop(Some({
        let (pool, dropped) = (pool.clone(), dropped.clone());
        move || {
            wait_for_a_job(&pool);
            dropped.open();
        }
    })))));
    let may_go = go.clone();
    let make = move || {
        may_go.pass();
        0..1
    };
    let mut stream = IteratorWrapper::new(make).on(&pool);
    assert!(poll_once(&mut stream).is_pending());
    drop(VALUE.clear());
    go.open();
    dropped.pass();
}

/// Forbids that a panic of the consumer's waker ends the iterator.
#[test]
fn a_waker_that_panics_does_not_end_the_iterator() {
    struct Panics(AtomicBool, Gate);
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            let is_first = !self.0.swap(true, SeqCst);
            self.1.open();
            if is_first {
                resume_unwind(Box::new("the waker"));
            }
        }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let go = Gate::default();
        let may_go = go.clone();
        let mut stream = kind.stream(&pool, move || {
            may_go.pass();
            0..3
        });
        let panics = Arc::new(Panics(AtomicBool::new(false), Gate::default()));
        let waker: Waker = Arc::clone(&panics).into();
        assert!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(&waker)).is_pending());
        go.open();
        panics.1.pass();
        assert_eq!(take_all(&mut stream), [0, 1, 2]);
    }
}

/// Forbids that `close` resumes the panic of a buffered item's `Drop` before the iterator has been dropped.
#[test]
fn an_armed_item_does_not_cut_the_close_short() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let (watch, polled) = (Watch::default(), Gate::default());
        let (entered, go) = (Gate::default(), Gate::default());
        let (may_start, inside, may_go) = (polled.clone(), entered.clone(), go.clone());
        let mut stream = watch.stream(kind, &pool, move |numbers| {
            may_start.pass();
            numbers.map(move |item| {
                if item.number == 0 {
                    return item.armed();
                }
                inside.open();
                may_go.pass();
                item
            })
        });
        // `make` waits until this poll has returned; otherwise the poll might take the first item.
        assert!(poll_once(&mut stream).is_pending());
        polled.open();
        entered.pass();
        thread::scope(|scope| {
            // The close waits for the iterator, or has returned too early.
            let closing = spawn_until_asleep(scope, || {
                let closed = catch_unwind(AssertUnwindSafe(|| block_on(stream.close())));
                assert!(watch.end().is_some());
                closed.is_err()
            });
            go.open();
            assert!(closing.join().unwrap());
        });
    }
}

/// Forbids that a cancelled `close` keeps its waker, or that a second `close` then waits for ever.
#[test]
fn a_close_that_is_given_up_keeps_no_waker() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let (entered, go) = (Gate::default(), Gate::default());
        let (inside, may_go) = (entered.clone(), go.clone());
        let mut stream = kind.stream(&pool, move || {
            inside.open();
            may_go.pass();
            0..3
        });
        assert!(poll_once(&mut stream).is_pending());
        entered.pass();
        let witness = Witness::default();
        assert!(witness.poll(Box::pin(stream.close())).is_pending());
        assert_eq!(witness.kept(), 0);
        let closing = thread::spawn(move || block_on(stream.close()));
        go.open();
        closing.join().unwrap();
    }
}

/// Forbids that, when many streams are closed at the same time, each close starts a thread.
#[test]
fn many_closes_start_few_threads() {
    let _watchdog = watchdog();
    let started = Arc::new(AtomicUsize::new(0));
    let gates: [Gate; 2] = Default::default();
    // After the first four threads, each thread waits in its start hook for one of the gates.
    let hook = {
        let (started, gates) = (Arc::clone(&started), gates.clone());
        move || match started.fetch_add(1, SeqCst) {
            0..4 => {}
            4 => gates[0].pass(),
            _ => gates[1].pass(),
        }
    };
    let pool = ThreadPool::builder().threads(4).keep_alive(Duration::MAX).on_thread_start(hook).build();
    let dropped = Arc::new(AtomicUsize::new(0));
    let streams: Vec<_> = (0..300)
        .map(|_| {
            let dropped = Arc::clone(&dropped);
            paused(&pool, move || _ = dropped.fetch_add(1, SeqCst))
        })
        .collect();
    let held = hold(&pool, 4);
    drop(streams);
    assert_eq!(pool.stats().threads, 5, "one spare thread will end the streams");
    gates[0].open();
    until("the streams have ended", || dropped.load(SeqCst) == 300);
    gates[1].open();
    until("the spare threads have ended", || pool.stats().threads == 4);
    // The first spare thread started a second one when it took a turn, and no more while that one was starting.
    assert_eq!(started.load(SeqCst), 6);
    release(held);
}

#[test]
#[ignore = "run by `a_drain_in_a_job_refuses_a_turn_that_no_thread_can_run`, in a process whose memory is limited"]
fn drain_probe() {
    let _watchdog = watchdog();
    // There is no memory for a second stack of this size, so no thread can run the turn while the job waits.
    let pool = ThreadPool::builder().threads(1).stack_size(600 << 20).build();
    let (started, go, draining) = (Gate::default(), Gate::default(), pool.clone());
    let drainer = pool.spawn({
        let (started, go) = (started.clone(), go.clone());
        move || {
            started.open();
            go.pass();
            draining.drain();
        }
    });
    started.pass();
    let mut stream = IteratorWrapper::new(|| 0..5).on(&pool);
    assert!(poll_once(&mut stream).is_pending());
    go.open();
    drainer.wait();
    assert_says(&assert_panics_once(&mut stream), "thread");
    println!("the probe has passed");
}

/// Forbids that a job that drains its pool waits for a queued turn that no thread can run.
#[cfg(target_os = "linux")]
#[test]
fn a_drain_in_a_job_refuses_a_turn_that_no_thread_can_run() {
    let output = confined_child("drain_probe", 1000, 4);
    assert!(output.as_ref().is_ok_and(|text| text.contains("the probe has passed")), "{output:?}");
}
