//! Iterables in a pool: threads that are given back, fairness, the end of the pool, and refused threads.
//!
//! Each test says what it forbids.

#![forbid(unsafe_code)]

use crate::helpers::iterables::*;
use offthread::{IteratorWrapper, ThreadPool, block_on, is_cancelled, oneshot, threaded, threaded_iterable_separate};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

// --- threads given back ---------------------------------------------------------------------------------------------

/// Forbids that paused streams occupy threads: other jobs can run on every thread.
#[test]
fn five_hundred_idle_streams_use_no_thread() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(4);
    let watches: Vec<_> = (0..500).map(|_| Watch::default()).collect();
    let mut streams: Vec<_> =
        watches.iter().map(|watch| watch.stream(Kind::Pool, &pool, |numbers| numbers).max_size(2)).collect();
    let mut expected: Vec<_> = streams.iter_mut().map(|stream| usize::from(poll_once(stream).is_ready())).collect();
    until("all are full", || watches.iter().zip(&expected).all(|(watch, taken)| watch.calls() >= 2 + taken));
    until("no thread is in use", || all_are_idle(&pool));
    assert!(pool.stats().threads <= 4);
    release(hold(&pool, 4));
    assert_at_rest(&pool);
    for _ in 0..5 {
        for (stream, number) in streams.iter_mut().zip(&mut expected) {
            assert_eq!(take(stream).unwrap().number, *number);
            *number += 1;
        }
    }
    drop(streams);
    watches.iter().for_each(Watch::wait_for_the_end);
    until("the spare threads have ended", || pool.stats().threads <= 4);
}

/// Forbids that streams that are opened, read once and closed, one after the other, start more threads than the pool's
/// size, or leave anything behind.
#[test]
fn ten_thousand_short_streams_need_two_threads() {
    let _watchdog = watchdog();
    let threads = Threads::default();
    let pool = threads.watch(ThreadPool::builder().threads(2).keep_alive(Duration::MAX)).build();
    let value = Arc::new(());
    block_on(async {
        for number in 0..10_000 {
            let value = value.clone();
            let make = move || (number..).inspect(move |_| _ = &value);
            let mut stream = IteratorWrapper::new(make).on(&pool).max_size(4);
            assert_eq!(stream.next().await, Some(number));
            stream.close().await;
        }
    });
    assert!(threads.started() <= 2, "{} threads", threads.started());
    assert_eq!(Arc::strong_count(&value), 1);
    until("all threads are idle", || all_are_idle(&pool));
    assert_at_rest(&pool);
    pool.drain();
    assert_eq!((threads.started(), pool.stats().threads), (threads.stopped(), 0));
}

/// Forbids that streams that are read in turn need more than one thread, from outside or in a job of the same pool.
#[test]
fn eight_streams_in_lockstep_need_one_thread() {
    fn read(pool: &ThreadPool, max_size: usize) {
        let mut streams: Vec<_> =
            (0..8).map(|n| IteratorWrapper::new(move || n..).on(pool).max_size(max_size)).collect();
        block_on(async {
            for round in 0..100 {
                for (n, stream) in streams.iter_mut().enumerate() {
                    assert_eq!(stream.next().await, Some(n + round));
                }
            }
        });
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for max_size in [1, 2, 7] {
        read(&pool, max_size);
        let inside = pool.clone();
        pool.spawn(move || read(&inside, max_size)).wait();
    }
}

/// Forbids that a paused stream goes on before half of its buffer was taken, or does not go on afterwards.
#[test]
fn a_paused_stream_goes_on_when_half_was_taken() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for half in [1, 2, 4, 50] {
        let (mut stream, watch) = filled(Kind::Pool, &pool, 2 * half);
        let calls = watch.calls();
        for taken in 1..half {
            assert_eq!(take(&mut stream).unwrap().number, taken - 1);
        }
        // A queued turn would run before this job.
        pool.spawn(|| ()).wait();
        assert_eq!(watch.calls(), calls);
        assert_eq!(take(&mut stream).unwrap().number, half - 1);
        until("the stream goes on without a poll", || watch.calls() >= 3 * half);
    }
}

/// Forbids that a stream whose consumer keeps up keeps its thread: after `max_size` items, queued jobs run.
#[test]
fn a_busy_stream_gives_way() {
    let _watchdog = watchdog();
    for max_size in [1, 4, 100] {
        let pool = ThreadPool::new(1);
        let (inside, (sender, mut seen)) = (pool.clone(), oneshot::channel());
        let (watch, mut sender) = (Watch::default(), Some(sender));
        let made = watch.clone();
        let make = move |numbers: Numbers| {
            numbers.inspect(move |_| {
                if let Some(sender) = sender.take() {
                    let made = made.clone();
                    inside.spawn(move || sender.send(made.calls()).unwrap()).detach();
                }
            })
        };
        let mut stream = watch.stream(Kind::Pool, &pool, make).max_size(max_size);
        let calls = block_on(async {
            loop {
                drop(stream.next().await);
                if let Ok(calls) = seen.try_recv() {
                    return calls;
                }
            }
        });
        assert!((1..=max_size).contains(&calls), "{calls} items in a turn of {max_size}");
    }
}

/// Forbids that one of two busy streams in a pool of one thread hangs or loses an item.
#[test]
fn two_busy_streams_share_a_thread() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let streams = [(); 2].map(|()| IteratorWrapper::new(|| 0..5000).on(&pool).max_size(8));
    let read = |mut stream: IteratorWrapper<i32>| thread::spawn(move || take_all(&mut stream).len());
    assert_eq!(streams.map(read).map(|thread| thread.join().unwrap()), [5000; 2]);
}

/// Forbids that a resumed stream runs before jobs that were queued earlier, or after later ones.
#[test]
fn a_resumed_stream_goes_to_the_back_of_the_queue() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    let add = |entry| {
        let order = Arc::clone(&order);
        move || order.lock().unwrap().push(entry)
    };
    let note = add("stream");
    let mut stream = IteratorWrapper::new(move || (0..).inspect(move |_| note())).on(&pool).max_size(2);
    let first = usize::from(poll_once(&mut stream).is_ready());
    until("the stream is paused", || order.lock().unwrap().len() >= 2 + first && all_are_idle(&pool));
    let held = hold(&pool, 1);
    order.lock().unwrap().clear();
    let before = pool.spawn(add("before"));
    for _ in 0..2 {
        take(&mut stream).unwrap();
    }
    let after = pool.spawn(add("after"));
    release(held);
    before.wait();
    after.wait();
    let mut order = order.lock().unwrap().clone();
    order.dedup();
    assert_eq!(order[..3], ["before", "stream", "after"]);
}

/// Forbids that more iterators run at once than the pool has threads.
#[test]
fn the_size_holds_for_streams() {
    let _watchdog = watchdog();
    for size in [1, 2] {
        let (pool, crowd) = (ThreadPool::new(size), Crowd::default());
        let readers: Vec<_> = (0..6)
            .map(|_| {
                let crowd = crowd.clone();
                let item = move |_| {
                    crowd.enter();
                    thread::yield_now();
                    crowd.leave();
                };
                let mut stream = IteratorWrapper::new(move || (0..200).map(item)).on(&pool).max_size(3);
                thread::spawn(move || take_all(&mut stream).len())
            })
            .collect();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 200);
        }
        assert!((1..=size).contains(&crowd.most()));
    }
}

/// Forbids that a turn is counted as a job, however the turn ends.
#[test]
fn turns_are_not_counted_as_jobs() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    assert_eq!(take_all(&mut IteratorWrapper::new(|| 0..50).on(&pool).max_size(2)).len(), 50);
    let mut panicking =
        IteratorWrapper::new(|| std::iter::from_fn(|| -> Option<()> { quiet_panic("in next") })).on(&pool);
    assert_panics_once(&mut panicking);
    let (stream, watch) = filled(Kind::Pool, &pool, 2);
    drop(stream);
    watch.wait_for_the_end();
    let held = hold(&pool, 1);
    let mut queued = IteratorWrapper::new(|| 0..).on(&pool);
    assert!(poll_once(&mut queued).is_pending());
    assert_eq!(running_now(&pool.stats()), 1);
    drop(queued);
    release(held);
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.succeeded, stats.panicked, stats.cancelled), (1, 1, 0, 0));
    assert_at_rest(&pool);
}

/// Forbids that a `next` that waits for a job of its own pool of one thread, or blocks in a channel, starves the pool.
#[test]
fn an_iterator_that_blocks_does_not_starve_its_pool() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let item = |number: usize| threaded(move || number).async_call().wait();
    let mut stream = IteratorWrapper::new(move || (0..50).map(item)).on(&pool).max_size(3);
    assert!(take_all(&mut stream).into_iter().eq(0..50));
    let (sender, receiver) = oneshot::channel();
    let mut stream = IteratorWrapper::new(|| std::iter::once_with(|| receiver.recv_blocking().unwrap())).on(&pool);
    assert!(poll_once(&mut stream).is_pending());
    pool.spawn(move || sender.send(5).unwrap()).wait();
    assert_eq!(take(&mut stream), Some(5));
    until("the spare thread has ended", || pool.stats().threads <= 1);
}

// --- closing --------------------------------------------------------------------------------------------------------

/// Forbids that a paused iterator is dropped on a thread outside of its pool, or only after the queued jobs.
#[test]
fn a_paused_iterator_is_dropped_on_a_thread_of_its_pool() {
    let _watchdog = watchdog();
    for busy in [false, true] {
        for close in [false, true] {
            let pool = ThreadPool::builder().threads(1).name("ht-paused").build();
            let (mut stream, watch) = filled(Kind::Pool, &pool, 4);
            let held = hold(&pool, usize::from(busy));
            let queued = pool.spawn_many((0..usize::from(busy)).map(|_| || ()));
            if close {
                block_on(stream.close());
                assert!(watch.end().is_some());
            }
            drop(stream);
            until("the iterator is dropped", || watch.end().is_some());
            assert!(queued.iter().all(|job| !job.is_finished()));
            assert_says(&watch.end().unwrap().1, "ht-paused");
            release(held);
            queued.into_iter().for_each(offthread::Job::wait);
            watch.wait_for_the_end();
            until("the spare thread has ended", || pool.stats().threads <= 1);
        }
    }
}

/// Forbids that a job hangs when it closes a stream of its own pool of one thread.
#[test]
fn a_job_may_close_a_stream_of_its_own_pool() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (mut stream, watch) = filled(Kind::Pool, &pool, 4);
    pool.spawn(move || block_on(stream.close())).wait();
    assert!(watch.end().is_some());
    watch.wait_for_the_end();
}

// --- the pool's end -------------------------------------------------------------------------------------------------

/// Takes the rest of the stream: the given items in order, then one panic that mentions the pool, then the end.
#[track_caller]
fn assert_cut_off(mut stream: IteratorWrapper<Item>, watch: &Watch, items: std::ops::Range<usize>) {
    let left = items.clone().map(|_| take(&mut stream).unwrap()).collect();
    assert!(numbers(left).into_iter().eq(items));
    assert_says(&assert_panics_once(&mut stream), "pool");
    block_on(stream.close());
    drop(stream);
    watch.wait_for_the_end();
}

/// Forbids that a shutdown waits for a paused stream or loses its buffered items, or that the consumer sees a normal
/// end.
#[test]
fn a_shutdown_cuts_a_paused_stream_off() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let (stream, watch) = filled(Kind::Pool, &pool, 4);
    let (mut taken, other) = filled(Kind::Pool, &pool, 4);
    assert_eq!(take(&mut taken).unwrap().number, 0);
    pool.shutdown();
    assert_cut_off(stream, &watch, 0..4);
    assert_cut_off(taken, &other, 1..4);
}

/// Forbids that a shutdown runs a queued turn, or that its consumer hangs or sees a normal end.
#[test]
fn a_shutdown_cuts_a_queued_stream_off() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (mut again, again_watch) = filled(Kind::Pool, &pool, 4);
    let held = hold(&pool, 1);
    for number in 0..2 {
        assert_eq!(take(&mut again).unwrap().number, number);
    }
    let watch = Watch::default();
    let mut first = watch.stream(Kind::Pool, &pool, |numbers| numbers);
    let witness = Witness::default();
    assert!(witness.poll(Box::pin(first.next())).is_pending());
    let mut asking = Box::pin(first.next());
    assert!(witness.poll(&mut asking).is_pending());
    thread::scope(|scope| {
        let closer = scope.spawn(|| pool.shutdown());
        // The waiting consumer is woken at once.
        witness.wait();
        release(held);
        closer.join().unwrap();
    });
    drop(asking);
    assert_cut_off(again, &again_watch, 2..4);
    assert_cut_off(first, &watch, 0..0);
    assert_eq!(watch.makes(), 0);
}

/// Forbids that a stream starts in a closed pool, or that its consumer sees a normal end.
#[test]
fn a_stream_does_not_start_in_a_closed_pool() {
    let _watchdog = watchdog();
    for close in [ThreadPool::shutdown, ThreadPool::drain] {
        let (pool, watch) = (ThreadPool::new(1), Watch::default());
        let stream = watch.stream(Kind::Pool, &pool, |numbers| numbers);
        close(&pool);
        assert_cut_off(stream, &watch, 0..0);
        assert_eq!(watch.makes(), 0);
    }
}

/// Forbids that a running iterator does not learn of a shutdown, or that the shutdown does not wait for the iterator.
#[test]
fn a_shutdown_asks_a_running_iterator_to_stop() {
    let _watchdog = watchdog();
    let (pool, watch) = (ThreadPool::new(1), Watch::default());
    let (begun, told) = (Gate::default(), Gate::default());
    let (begin, tell) = (begun.clone(), told.clone());
    let make = move |numbers: Numbers| {
        numbers.inspect(move |item| {
            if item.number == 2 {
                begin.open();
                until("the iterator is told", is_cancelled);
                tell.open();
            }
        })
    };
    let mut stream = watch.stream(Kind::Pool, &pool, make);
    assert_eq!(take(&mut stream).unwrap().number, 0);
    begun.pass();
    pool.shutdown();
    assert!(told.is_open());
    // It is unspecified whether the current item is delivered.
    assert_eq!(take(&mut stream).unwrap().number, 1);
    let calls = watch.calls();
    until("the stream is cut off", || {
        let next = std::panic::AssertUnwindSafe(|| take(&mut stream));
        // Outside of the `catch_unwind`, so that a normal end fails the test.
        std::panic::catch_unwind(next).map(|item| item.expect("cut off, not a normal end")).is_err()
    });
    assert!(take(&mut stream).is_none() && stream.is_closed());
    assert_eq!(watch.calls(), calls);
    drop(stream);
    watch.wait_for_the_end();
}

/// Forbids that an iterator that has ended looks cut off when its pool is closed.
#[test]
fn an_ended_stream_is_not_cut_off() {
    let _watchdog = watchdog();
    for close in [ThreadPool::shutdown, ThreadPool::drain] {
        let (pool, watch) = (ThreadPool::new(1), Watch::default());
        let mut stream = watch.stream(Kind::Pool, &pool, |numbers| numbers.take(5));
        let first = poll_once(&mut stream).is_ready();
        until("the iterator has ended", || watch.end().is_some() && all_are_idle(&pool));
        close(&pool);
        assert_eq!(take_all(&mut stream).len(), 5 - usize::from(first));
        assert!(stream.is_closed());
        watch.wait_for_the_end();
    }
}

/// Forbids that a drain does not run a queued turn, or lets the turn make more than `max_size` items.
#[test]
fn drain_runs_a_queued_turn() {
    let _watchdog = watchdog();
    for length in [3, 1000] {
        let (pool, watch) = (ThreadPool::new(1), Watch::default());
        let held = hold(&pool, 1);
        let mut stream = watch.stream(Kind::Pool, &pool, move |numbers| numbers.take(length)).max_size(8);
        assert!(poll_once(&mut stream).is_pending());
        thread::scope(|scope| {
            let closer = scope.spawn(|| pool.drain());
            until("the pool is closed", || pool.is_closed());
            release(held);
            closer.join().unwrap();
        });
        if length == 3 {
            assert_eq!(numbers(take_all(&mut stream)), [0, 1, 2]);
            drop(stream);
            watch.wait_for_the_end();
        } else {
            assert_cut_off(stream, &watch, 0..8);
        }
    }
}

/// Forbids that a drain waits for a paused stream, or loses its buffered items; or that a later close or drop leaves
/// the iterator to another thread.
#[test]
fn a_drain_cuts_a_paused_stream_off() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let (stream, watch) = filled(Kind::Pool, &pool, 4);
    let (mut closed, closed_watch) = filled(Kind::Pool, &pool, 4);
    let (dropped, dropped_watch) = filled(Kind::Pool, &pool, 4);
    pool.drain();
    assert_cut_off(stream, &watch, 0..4);
    let early = closed_watch.end().is_some();
    block_on(closed.close());
    assert!(early || closed_watch.end() == Some(here()));
    assert!(closed.is_closed() && take(&mut closed).is_none());
    let early = dropped_watch.end().is_some();
    drop(dropped);
    assert!(early || dropped_watch.end() == Some(here()));
    drop(closed);
    closed_watch.wait_for_the_end();
    dropped_watch.wait_for_the_end();
}

/// Forbids that a drain waits for ever for an endless stream whose consumer keeps up, or that the consumer sees a
/// normal end.
#[test]
fn drain_ends_an_endless_stream() {
    let _watchdog = watchdog();
    for max_size in [1, 16, 1024] {
        let (pool, taken) = (ThreadPool::new(1), Arc::new(AtomicUsize::new(0)));
        let mut stream = IteratorWrapper::new(|| 0..).on(&pool).max_size(max_size);
        let count = Arc::clone(&taken);
        let reader = thread::spawn(move || {
            let said = panic_of(|| {
                while let Some(number) = take(&mut stream) {
                    assert_eq!(number, count.fetch_add(1, Ordering::SeqCst));
                }
            });
            (said, take(&mut stream))
        });
        until("the stream is running", || taken.load(Ordering::SeqCst) > 100);
        pool.drain();
        let (said, end) = reader.join().unwrap();
        assert_says(&said, "pool");
        assert_eq!(end, None);
    }
}

/// Forbids that the end of a pool affects a separate iterator that was started in one of its jobs.
#[test]
fn a_separate_iterator_is_in_no_pool() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let inside = pool.clone();
    let stream = pool.spawn(move || {
        let mut stream = threaded_iterable_separate(|| (0..100).map(|number| (number, is_cancelled()))).max_size(2);
        assert_eq!(take(&mut stream), Some((0, false)));
        assert_eq!(inside.stats().submitted, 1);
        stream
    });
    let mut stream = stream.wait();
    pool.shutdown();
    assert!(take_all(&mut stream).into_iter().eq((1..100).map(|number| (number, false))));
}

// --- no threads -----------------------------------------------------------------------------------------------------

/// Forbids that a stream that no thread will run hangs or is leaked, or that its consumer sees a normal end.
#[test]
fn without_any_thread_the_consumer_panics() {
    let _watchdog = watchdog();
    let refused = |size: &usize| thread::Builder::new().stack_size(*size).spawn(|| ()).is_err();
    let sizes: Vec<_> = [usize::MAX / 4, usize::MAX >> 18].into_iter().filter(refused).collect();
    assert!(!sizes.is_empty(), "this system accepts every stack size");
    for size in sizes {
        let pool = ThreadPool::builder().threads(2).stack_size(size).build();
        let watch = Watch::default();
        let mut stream = watch.stream(Kind::Pool, &pool, |numbers| numbers);
        assert_says(&assert_panics_once(&mut stream), "thread");
        block_on(stream.close());
        drop(stream);
        watch.wait_for_the_end();
        for close in [false, true] {
            let mut stream = watch.stream(Kind::Pool, &pool, |numbers| numbers);
            if close {
                block_on(stream.close());
            }
            drop(stream);
            watch.wait_for_the_end();
        }
        assert_eq!(watch.makes(), 0);
        assert_at_rest(&pool);
    }
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by `without_its_own_thread_the_consumer_panics`, in a process whose memory is limited"]
fn separate_probe() {
    let _watchdog = watchdog();
    let watch = Watch::default();
    let pool = ThreadPool::new(1);
    let mut stream = watch.stream(Kind::Separate, &pool, |numbers| numbers);
    assert_says(&assert_panics_once(&mut stream), "thread");
    block_on(stream.close());
    drop(stream);
    watch.wait_for_the_end();
    assert_eq!(watch.makes(), 0);
    println!("the probe has passed");
}

/// Forbids the same for a separate iterator.
#[cfg(target_os = "linux")]
#[test]
fn without_its_own_thread_the_consumer_panics() {
    // There is memory for one stack of this size: that of the probe's own thread.
    let output = confined_child("separate_probe", 1000, 600);
    assert!(output.as_ref().is_ok_and(|text| text.contains("the probe has passed")), "{output:?}");
}

#[test]
#[ignore = "run by `without_a_spare_thread_the_closing_call_drops_the_iterator`, in a process whose memory is limited"]
fn spare_probe() {
    let _watchdog = watchdog();
    // There is memory for one stack of this size.
    let pool = ThreadPool::builder().threads(1).stack_size(600 << 20).build();
    for close in [false, true] {
        let (mut stream, watch) = filled(Kind::Pool, &pool, 4);
        let held = hold(&pool, 1);
        if close {
            block_on(stream.close());
        }
        drop(stream);
        assert_eq!(watch.end(), Some(here()));
        watch.wait_for_the_end();
        release(held);
    }
    assert_eq!(pool.spawn(|| 7).wait(), 7);
    pool.drain();
    println!("the probe has passed");
}

/// Forbids that a close waits for a busy thread when the system refuses another thread.
#[cfg(target_os = "linux")]
#[test]
fn without_a_spare_thread_the_closing_call_drops_the_iterator() {
    let output = confined_child("spare_probe", 1000, 4);
    assert!(output.as_ref().is_ok_and(|text| text.contains("the probe has passed")), "{output:?}");
}

/// Forbids that `shutdown_timeout` does not count a stream that is still running, or counts one that has ended.
#[test]
fn a_shutdown_counts_the_streams_that_run() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    assert!(take_all(&mut Kind::Pool.stream(&pool, || 0..100).max_size(3)).into_iter().eq(0..100));
    let (started, gate) = (Gate::default(), Gate::default());
    let mut stream = Kind::Pool.stream(&pool, {
        let (started, gate) = (started.clone(), gate.clone());
        move || {
            started.open();
            gate.pass();
            0..0
        }
    });
    assert!(poll_once(&mut stream).is_pending());
    started.pass();
    assert_eq!(pool.shutdown_timeout(Duration::ZERO).unwrap_err().running, 1);
    gate.open();
    pool.shutdown_timeout(Duration::MAX).unwrap();
    assert_panics_once(&mut stream);
}

/// Forbids that a paused stream is leaked when it is closed or dropped while its pool has no thread.
#[test]
fn a_paused_stream_whose_threads_have_ended_is_not_leaked() {
    let _watchdog = watchdog();
    let pool = ThreadPool::builder().threads(1).keep_alive(Duration::from_millis(1)).build();
    for close in [false, true] {
        let (mut stream, watch) = filled(Kind::Pool, &pool, 4);
        until("its thread has ended", || pool.stats().threads == 0);
        if close {
            block_on(stream.close());
            assert!(watch.end().is_some());
        }
        drop(stream);
        watch.wait_for_the_end();
    }
}
