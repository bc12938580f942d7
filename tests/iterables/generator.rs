//! Generators: blocking code that puts its items into a stream.
//!
//! Each test says what it forbids.

#![forbid(unsafe_code)]

use crate::helpers::iterables::*;
use offthread::spsc::SendError;
use offthread::{
    ContextVar, IteratorWrapper, LoopHandle, ThreadPool, Yielder, block_on, is_cancelled, sleep, sync_await,
    threaded_generator, threaded_generator_separate, wait_cancelled,
};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

/// A body that puts `0, 1, 2, ...` without end. Its local is the watched iterator: the body takes each item from this
/// iterator just before it puts the item.
fn endless(watch: &Watch) -> impl FnOnce(&mut Yielder<Item>) -> Put<Item> + Send + use<> {
    let watch = watch.clone();
    move |out| watch.numbers().try_for_each(|item| out.put(item))
}

/// A generator whose buffer is full, and whose body waits in `put` or is about to. Nothing has been taken.
fn blocked(kind: Kind, pool: &ThreadPool, max_size: usize) -> (IteratorWrapper<Item>, Watch) {
    let (watch, start) = (Watch::default(), Gate::default());
    let (body, inside) = (endless(&watch), start.clone());
    let mut stream = kind.generator(pool, move |out| {
        inside.pass();
        body(out)
    });
    stream = stream.max_size(max_size);
    assert!(poll_once(&mut stream).is_pending());
    start.open();
    until("the buffer is full", || watch.calls() == max_size + 1);
    if kind == Kind::Pool {
        // This job runs on a spare thread, once `put` waits.
        hold(pool, 1).into_iter().for_each(Running::finish);
    }
    (stream, watch)
}

/// Takes the rest of the stream: the given items, then one panic that mentions the pool, then the end.
#[track_caller]
fn assert_cut_off(mut stream: IteratorWrapper<Item>, watch: &Watch, items: std::ops::Range<usize>) {
    for number in items {
        assert_eq!(take(&mut stream).unwrap().number, number);
    }
    assert_says(&assert_panics_once(&mut stream), "pool");
    block_on(stream.close());
    drop(stream);
    watch.wait_for_the_end();
}

// --- items ----------------------------------------------------------------------------------------------------------

/// Forbids that an item is lost, doubled or out of order, for every way to ask for it.
#[test]
fn every_item_arrives_in_order() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for length in [0, 1, 2, 7, 3000] {
            for max_size in [1, 2, 3, 64, 5000] {
                let mut stream = kind.generator(&pool, move |out| (0..length).try_for_each(|n| out.put(n)));
                stream = stream.max_size(max_size);
                let mut all = Vec::new();
                block_on(async {
                    loop {
                        let Some(item) = stream.next().await else { break };
                        all.push(item);
                        let Some(item) = poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await else { break };
                        all.push(item);
                        if stream.next_many(&mut all, 3).await == 0 {
                            break;
                        }
                    }
                });
                assert!(all.into_iter().eq(0..length));
                assert!(stream.is_closed());
                assert_eq!((take(&mut stream), poll_once(&mut stream)), (None, Poll::Ready(None)));
            }
        }
    }
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.succeeded), (0, 0));
}

/// Forbids that a body runs, or a thread of the pool starts, before the first poll; or that the body of a closed or
/// dropped stream runs.
#[test]
fn nothing_runs_before_the_first_poll() {
    let _watchdog = watchdog();
    for kind in BOTH {
        for close in [false, true] {
            let (pool, watch) = (ThreadPool::new(1), Watch::default());
            let mut stream = kind.generator(&pool, endless(&watch)).max_size(5);
            drop(stream.next());
            drop(stream.next_many(&mut Vec::new(), 5));
            assert_eq!((watch.makes(), pool.stats().threads, stream.is_closed()), (0, 0, false));
            if close {
                block_on(stream.close());
                assert_eq!(take(&mut stream).map(|item| item.number), None);
            }
            drop(stream);
            watch.wait_for_the_end();
            assert_eq!(watch.makes(), 0);
        }
    }
}

/// Forbids that the buffer holds more items than `max_size`, or fewer. The body holds one more item, in its waiting
/// `put`.
#[test]
fn the_bound_is_exact() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for max_size in [1, 2, 3, 10] {
            let (put, returned) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let inside = (put.clone(), returned.clone());
            let mut stream = kind.generator(&pool, move |out| {
                (0..).try_for_each(|n| {
                    inside.0.fetch_add(1, Ordering::SeqCst);
                    let result = out.put(n);
                    inside.1.fetch_add(1, Ordering::SeqCst);
                    result
                })
            });
            stream = stream.max_size(max_size);
            assert_eq!(take(&mut stream), Some(0));
            for taken in 1..30 {
                assert!(returned.load(Ordering::SeqCst) <= taken + max_size);
                assert!(put.load(Ordering::SeqCst) <= taken + max_size + 1);
                assert_eq!(take(&mut stream), Some(taken));
            }
            drop(stream);
            let (stream, watch) = blocked(kind, &pool, max_size);
            assert_eq!(watch.calls(), max_size + 1);
            drop(stream);
            watch.wait_for_the_end();
        }
    }
}

/// Forbids that producer and consumer wait for each other, with a buffer for one item; and that generators which are
/// read in turn starve a pool of one thread, also inside a job of that pool.
#[test]
fn two_generators_in_lockstep_do_not_starve_a_pool_of_one_thread() {
    fn read(pool: &ThreadPool, max_size: usize) {
        let mut streams: Vec<_> = (0..2)
            .map(|n| threaded_generator(move |out| (n..).try_for_each(|n| out.put(n))).on(pool).max_size(max_size))
            .collect();
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
    until("the spare threads have ended", || pool.stats().threads <= 1);
}

/// Forbids that an error before the first item is lost, or that the stream goes on after it.
#[test]
fn an_error_before_the_first_item_is_not_lost() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let mut lines = kind.generator(&pool, |out| {
            let text = match std::fs::read_to_string("no such file") {
                Ok(text) => text,
                Err(error) => return out.put(Err(error)),
            };
            text.lines().try_for_each(|line| out.put(Ok(line.to_owned())))
        });
        assert_eq!(take(&mut lines).unwrap().unwrap_err().kind(), std::io::ErrorKind::NotFound);
        assert!(take(&mut lines).is_none());
    }
}

/// Forbids that an error of the body's own ends the stream differently than `Ok` does, or that the error's item arrives
/// or leaks.
#[test]
fn an_error_of_the_body_ends_the_stream() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let watch = Watch::default();
        let inside = watch.clone();
        let mut stream = kind.generator(&pool, move |out| {
            let mut numbers = inside.numbers();
            out.put(numbers.next().unwrap())?;
            Err(SendError(numbers.next().unwrap()))
        });
        assert_eq!(numbers(take_all(&mut stream)), [0]);
        drop(stream);
        watch.wait_for_the_end();
    }
}

/// Forbids that the locals of a body must be `Send`, or that its captures are dropped on another thread or too late.
#[test]
fn locals_need_not_be_send() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let (value, dropped) = traced();
        let mut stream = kind.generator(&pool, move |out| {
            let (ten, _value) = (Rc::new(10), value);
            (0..3).try_for_each(|n| out.put((n * *ten, thread::current().id())))
        });
        let items = take_all(&mut stream);
        assert!(items.iter().map(|item| item.0).eq([0, 10, 20]));
        assert!(dropped.try_iter().eq([items[0].1]));
    }
}

/// Forbids that a thread other than the body's cannot call `put`, or that such a `put` goes on after the pool was shut
/// down.
#[test]
fn a_yielder_may_be_lent_to_another_thread() {
    let _watchdog = watchdog();
    for kind in BOTH {
        let pool = ThreadPool::new(1);
        let mut stream = kind.generator(&pool, |out| {
            thread::scope(|scope| scope.spawn(|| (0..5).try_for_each(|n| out.put(n))).join().unwrap())
        });
        assert_eq!(take_all(&mut stream.max_size(2)), [0, 1, 2, 3, 4]);
        let put = Arc::new(AtomicUsize::new(0));
        let inside = put.clone();
        stream = kind.generator(&pool, move |out| {
            let mut forever = || {
                (0..).try_for_each(|n| {
                    inside.fetch_add(1, Ordering::SeqCst);
                    out.put(n)
                })
            };
            thread::scope(|scope| scope.spawn(&mut forever).join().unwrap())
        });
        stream = stream.max_size(2);
        assert!(matches!(poll_once(&mut stream), Poll::Pending | Poll::Ready(Some(0))));
        until("the buffer is full", || put.load(Ordering::SeqCst) >= 3);
        if kind == Kind::Pool {
            pool.shutdown();
        }
        drop(stream);
        until("the body has returned", || Arc::strong_count(&put) == 1);
    }
}

/// Forbids that a generator runs in another pool than the given one, or, if none is given, than the pool of its job or
/// the default pool of its loop; that the thread of a separate generator has another name than the given one; and that
/// a wrong setting, or a late one, is accepted.
#[test]
fn a_generator_runs_in_the_chosen_pool_or_thread() {
    let _watchdog = watchdog();
    let name = |out: &mut Yielder<String>| out.put(own_name());
    assert_eq!(take_all(&mut threaded_generator_separate(name).name("gen-own")), ["gen-own"]);
    let pool = ThreadPool::builder().threads(1).name("gen-pool").build();
    assert_says(&take_all(&mut threaded_generator(name).on(&pool))[0], "gen-pool");
    let nearby = pool.spawn(move || threaded_generator(name).sync_call().next()).wait();
    assert_says(&nearby.unwrap(), "gen-pool");
    let inside = pool.clone();
    let of_the_loop = block_on(async move {
        LoopHandle::current().set_default_pool(inside);
        threaded_generator(name).next().await
    });
    assert_says(&of_the_loop.unwrap(), "gen-pool");
    assert_says(&panic_of(|| threaded_generator_separate(name).on(&pool)), "separate");
    assert_says(&panic_of(|| threaded_generator(name).max_size(0)), "max_size");
    let mut started = threaded_generator(name).on(&pool);
    assert!(take(&mut started).is_some());
    assert_says(&panic_of(|| started.max_size(1)), "started");
}

/// Forbids that a body sees another context than that of the first poll, or changes the context of the first poll.
#[test]
fn a_body_runs_in_the_context_of_the_first_poll() {
    static VAR: ContextVar<i32> = ContextVar::new();
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        block_on(async {
            VAR.set(1);
            let body = |out: &mut Yielder<_>| {
                out.put(VAR.get())?;
                VAR.set(5);
                out.put(VAR.get())
            };
            let mut stream = kind.generator(&pool, body).max_size(1);
            VAR.set(2);
            assert_eq!(stream.next().await, Some(Some(2)));
            assert_eq!(stream.next().await, Some(Some(5)));
            assert_eq!((stream.next().await, VAR.get()), (None, Some(2)));
        });
    }
}

/// Forbids that a body cannot run futures, or runs them on another loop than the one that asked for its items.
#[test]
fn a_body_may_await() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let body = |out: &mut Yielder<_>| {
            (0..5).try_for_each(|n| {
                let item = sync_await(async move {
                    sleep(Duration::ZERO).await;
                    (n, thread::current().id())
                });
                out.put(item)
            })
        };
        let mut stream = kind.generator(&pool, body).max_size(1);
        block_on(async {
            for n in 0..5 {
                assert_eq!(stream.next().await, Some((n, thread::current().id())));
            }
            assert_eq!(stream.next().await, None);
        });
    }
}

// --- closing --------------------------------------------------------------------------------------------------------

/// Forbids that a close, or a `scope`, waits for ever for a `put` that waits for room, or returns before the locals of
/// the body have been dropped; and that an item leaks.
#[test]
fn a_close_ends_a_put_that_waits() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for max_size in [1, 5] {
            for way in 0..4 {
                let (mut stream, watch) = blocked(kind, &pool, max_size);
                match way {
                    0 => block_on(stream.close()),
                    1 => {
                        assert_eq!(take(&mut stream).unwrap().number, 0);
                        block_on(stream.close());
                    }
                    2 => {
                        let number = block_on(stream.scope(async |items| items.next().await.unwrap().number));
                        assert_eq!(number, 0);
                        stream = threaded_generator(|_| Ok(()));
                    }
                    _ => {
                        drop(stream);
                        until("the body has returned", || watch.end().is_some());
                        stream = threaded_generator(|_| Ok(()));
                    }
                }
                assert!(watch.end().is_some());
                drop(stream);
                watch.wait_for_the_end();
            }
        }
    }
    until("the spare threads have ended", || pool.stats().threads <= 1);
}

/// Forbids that `put` accepts an item after the close, or does not give it back. This holds also for later calls, if
/// the body ignores the error.
#[test]
fn put_after_the_close_gives_the_item_back() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let (closed, inside) = (Gate::default(), Gate::default());
        let (started, end) = (inside.clone(), closed.clone());
        let (tell, told) = mpsc::channel();
        let mut stream = kind.generator(&pool, move |out| {
            out.put(0)?;
            started.open();
            end.pass();
            let results: Vec<_> = (1..5000).map(|n| out.put(n)).collect();
            tell.send((results, is_cancelled())).unwrap();
            out.put(7)
        });
        assert_eq!(take(&mut stream), Some(0));
        inside.pass();
        drop(stream);
        closed.open();
        let (results, cancelled) = told.recv().unwrap();
        assert!(results.into_iter().eq((1..5000).map(|n| Err(SendError(n)))));
        assert!(cancelled);
    }
}

/// Forbids that a body that waits for its cancellation, or for a future, does not learn of a close.
#[test]
fn a_body_learns_of_the_close() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let (value, dropped) = traced();
        let mut waits = kind.generator(&pool, |out| {
            out.put(())?;
            let _value = value;
            assert!(wait_cancelled(Duration::MAX));
            Ok(())
        });
        assert!(take(&mut waits).is_some());
        block_on(waits.close());
        assert_eq!(dropped.try_iter().count(), 1);
        let (value, dropped) = traced();
        let mut awaits = kind.generator(&pool, |out| {
            out.put(())?;
            let _value = value;
            sync_await(pending::<()>());
            Ok(())
        });
        block_on(async {
            assert!(awaits.next().await.is_some());
            // The body is unwound, but `close` does not panic.
            awaits.close().await;
        });
        assert_eq!(dropped.try_iter().count(), 1);
    }
}

// --- panics ---------------------------------------------------------------------------------------------------------

/// Forbids that a panic is lost, comes before the items that were put, comes twice, or kills a worker.
#[test]
fn a_panic_comes_after_the_items() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for count in [0, 1, 5] {
            for max_size in [1, 100] {
                let mut stream = kind.generator(&pool, move |out| {
                    (0..count).try_for_each(|n| out.put(n))?;
                    quiet_panic("in the body")
                });
                stream = stream.max_size(max_size);
                for n in 0..count {
                    assert_eq!(take(&mut stream), Some(n));
                }
                assert_says(&assert_panics_once(&mut stream), "in the body");
            }
        }
        let mut closed = kind.generator(&pool, |out| {
            out.put(1)?;
            quiet_panic("in the body")
        });
        assert_eq!(take(&mut closed), Some(1));
        assert_says(&panic_of(|| block_on(closed.close())), "in the body");
        block_on(closed.close());
    }
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    assert_eq!(pool.stats().panicked, 0);
}

/// Forbids that a panic in the `Drop` of a local, or of an item that `put` gave back, is lost, or ends more than its
/// stream.
#[test]
fn a_panic_in_a_drop_is_not_lost() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let watch = Watch::default();
        let inside = watch.clone();
        let mut stream =
            kind.generator(&pool, move |out| inside.numbers().bomb().take(3).try_for_each(|item| out.put(item)));
        for n in 0..3 {
            assert_eq!(take(&mut stream).unwrap().number, n);
        }
        assert_says(&assert_panics_once(&mut stream), "the iterator's end");
        watch.wait_for_the_end();

        let watch = Watch::default();
        let inside = watch.clone();
        let arm = |item: Item| if item.number == 2 { item.armed() } else { item };
        let mut stream = kind.generator(&pool, move |out| inside.numbers().try_for_each(|item| out.put(arm(item))));
        stream = stream.max_size(1);
        assert_eq!(take(&mut stream).unwrap().number, 0);
        // Item 1 is in the buffer, and `put` gives item 2 back.
        until("the body puts item 2", || watch.calls() == 3);
        assert_says(&panic_of(|| block_on(stream.close())), "the item's end");
    }
    assert_eq!(pool.spawn(|| 1).wait(), 1);
}

// --- the pool -------------------------------------------------------------------------------------------------------

/// Forbids that a job in a pool of one thread has to wait for a generator that waits for room. The generator keeps its
/// thread, and a spare thread runs the job.
#[test]
fn a_job_runs_while_put_waits() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (mut stream, watch) = blocked(Kind::Pool, &pool, 2);
    assert_eq!(pool.spawn(|| 1).wait(), 1);
    for n in 0..10 {
        assert_eq!(take(&mut stream).unwrap().number, n);
        assert_eq!(pool.spawn(move || n).wait(), n);
    }
    drop(stream);
    watch.wait_for_the_end();
    assert_eq!((pool.stats().submitted, pool.stats().panicked), (12, 0));
    until("the spare threads have ended", || pool.stats().threads <= 1);
    assert_at_rest(&pool);
}

/// Forbids that a shutdown or a drain waits for ever for a `put` that waits for room, loses buffered items, or looks
/// like the end of the generator.
#[test]
fn the_end_of_the_pool_ends_a_put_that_waits() {
    let _watchdog = watchdog();
    for way in 0..3 {
        for max_size in [1, 4] {
            let pool = ThreadPool::new(1);
            let (stream, watch) = blocked(Kind::Pool, &pool, max_size);
            let (mut taken, other) = blocked(Kind::Pool, &pool, max_size);
            assert_eq!(take(&mut taken).unwrap().number, 0);
            match way {
                0 => pool.shutdown(),
                1 => pool.shutdown_timeout(Duration::MAX).unwrap(),
                _ => pool.drain(),
            }
            assert!(watch.end().is_some() && other.end().is_some());
            assert_eq!(pool.stats().threads, 0);
            assert_cut_off(stream, &watch, 0..max_size);
            let made = other.calls();
            // The last item was refused.
            assert_cut_off(taken, &other, 1..made - 1);
        }
    }
}

/// Forbids that `shutdown_timeout` waits longer than its time-out for a body that blocks without the crate's knowledge,
/// or does not count this body.
#[test]
fn shutdown_timeout_counts_a_running_body() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (started, end) = (Gate::default(), Gate::default());
    let inside = (started.clone(), end.clone());
    let mut stream = threaded_generator(move |out| {
        inside.0.open();
        inside.1.pass();
        out.put(1)
    });
    stream = stream.on(&pool);
    assert!(poll_once(&mut stream).is_pending());
    started.pass();
    assert_eq!(pool.shutdown_timeout(Duration::ZERO).unwrap_err().running, 1);
    end.open();
    pool.shutdown();
    assert_says(&assert_panics_once(&mut stream), "pool");
}

/// Forbids that a drain waits for an endless generator whose consumer keeps up, or lets the generator put more
/// than `max_size` further items; and that `put` succeeds again after it has failed.
#[test]
fn a_drain_ends_an_endless_generator() {
    let _watchdog = watchdog();
    for max_size in [1, 3, 50] {
        let pool = ThreadPool::new(1);
        let own = pool.clone();
        let late = Arc::new(AtomicUsize::new(0));
        let inside = late.clone();
        let mut stream = threaded_generator(move |out| {
            let mut number = 0;
            loop {
                let was_closed = own.is_closed();
                let put = out.put(number);
                if put.is_err() {
                    assert!((0..1000).all(|n| out.put(n).is_err()));
                    return put;
                }
                number += 1;
                inside.fetch_add(usize::from(was_closed), Ordering::SeqCst);
            }
        });
        stream = stream.on(&pool).max_size(max_size);
        assert_eq!(take(&mut stream), Some(0));
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut expected = 1;
                let end = catch_unwind(AssertUnwindSafe(|| {
                    while let Some(item) = take(&mut stream) {
                        assert_eq!(item, expected);
                        expected += 1;
                    }
                }));
                assert_says(text(&*end.unwrap_err()), "pool");
            });
            pool.drain();
            reader.join().unwrap();
        });
        assert!(late.load(Ordering::SeqCst) <= max_size);
        assert_eq!(take(&mut stream), None);
    }
}

/// Forbids that a generator which ends by itself while its pool closes looks cut off, or that a drain does not wait for
/// it.
#[test]
fn a_drain_waits_for_a_short_generator() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let held = hold(&pool, 1);
    let ended = Gate::default();
    let inside = ended.clone();
    let body = move |out: &mut Yielder<_>| {
        let put = (0..4).try_for_each(|n| out.put(n));
        // Gives a wrong drain time to return.
        thread::sleep(Duration::from_millis(10));
        inside.open();
        put
    };
    let mut queued = threaded_generator(body).on(&pool).max_size(4);
    assert!(poll_once(&mut queued).is_pending());
    thread::scope(|scope| {
        let closer = scope.spawn(|| pool.drain());
        until("the pool is closed", || pool.is_closed());
        release(held);
        closer.join().unwrap();
    });
    assert!(ended.is_open(), "the drain has returned before the body");
    assert_eq!(take_all(&mut queued), [0, 1, 2, 3]);
}

/// Forbids that a shutdown runs a body that is queued, or that a body starts in a pool that was shut down.
#[test]
fn a_body_does_not_start_after_a_shutdown() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let held = hold(&pool, 1);
    let watch = Watch::default();
    let mut queued = Kind::Pool.generator(&pool, endless(&watch));
    assert!(poll_once(&mut queued).is_pending());
    thread::scope(|scope| {
        let closer = scope.spawn(|| pool.shutdown());
        assert_says(&assert_panics_once(&mut queued), "pool");
        release(held);
        closer.join().unwrap();
    });
    let mut late = Kind::Pool.generator(&pool, endless(&watch));
    assert_says(&assert_panics_once(&mut late), "pool");
    block_on(Kind::Pool.generator(&pool, endless(&watch)).close());
    assert_eq!(watch.makes(), 0);
}

/// Forbids that a generator whose thread cannot be started looks like an empty one.
#[test]
fn a_generator_without_a_thread_panics() {
    let _watchdog = watchdog();
    // No system has so much memory for a stack.
    let pool = ThreadPool::builder().threads(1).stack_size(usize::MAX / 4).build();
    let mut stream = threaded_generator(|out| out.put(1)).on(&pool);
    assert_says(&assert_panics_once(&mut stream), "no thread could be started");
}

// --- without a loop -------------------------------------------------------------------------------------------------

/// Forbids that `sync_call` loses an item or hangs, whether or not the generator has started; and that it starts the
/// body before the first item is asked for.
#[test]
fn sync_call_waits_for_items_from_another_thread() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let body = |out: &mut Yielder<_>| (0..20).try_for_each(|n| out.put((n, thread::current().id())));
        let fresh: Vec<_> = kind.generator(&pool, body).max_size(3).sync_call().collect();
        assert!(fresh.iter().map(|item| item.0).eq(0..20));
        assert!(fresh.iter().all(|item| item.1 != thread::current().id()));
        let mut started = kind.generator(&pool, body).max_size(3);
        assert_eq!(take(&mut started).unwrap().0, 0);
        assert!(started.sync_call().map(|item| item.0).eq(1..20));

        let watch = Watch::default();
        let mut items = kind.generator(&pool, endless(&watch)).max_size(3).sync_call();
        assert_eq!(watch.makes(), 0);
        assert_eq!(items.next().unwrap().number, 0);
        drop(items);
        watch.wait_for_the_end();
        let inside = pool.clone();
        assert_eq!(pool.spawn(move || kind.generator(&inside, body).sync_call().count()).wait(), 20);
    }
    let panics = threaded_generator_separate(|_: &mut Yielder<()>| quiet_panic("in the body"));
    assert_says(&panic_of(|| panics.sync_call().count()), "in the body");
}
