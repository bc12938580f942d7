//! Blocking iterators as async streams: items, panics, threads and contexts. `close.rs` tests closing, and `pool.rs`
//! tests iterables in pools.
//!
//! Each test says what it forbids.

#![forbid(unsafe_code)]

use crate::helpers::iterables::*;
use offthread::{
    ContextVar, IteratorWrapper, LoopHandle, SyncWaitError, ThreadPool, block_on, gather, is_cancelled, sleep, spawn,
    sync_await, threaded, threaded_iterable, threaded_iterable_separate, threaded_separate, yield_now,
};
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

// --- items ----------------------------------------------------------------------------------------------------------

/// Forbids that an item is lost, doubled or out of order, for every way to ask for it.
#[test]
fn every_item_arrives_in_order() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for length in [0, 1, 2, 7, 3000] {
            assert!(take_all(&mut kind.stream(&pool, move || 0..length)).into_iter().eq(0..length));
            for max_size in [1, 2, 3, 64] {
                let mut stream = kind.stream(&pool, move || 0..length).max_size(max_size);
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
            }
        }
    }
}

/// Forbids that a way to make a stream yields other items than the iterator's.
#[test]
fn every_way_to_make_a_stream_yields_the_items() {
    let _watchdog = watchdog();
    assert_eq!(take_all(&mut threaded_iterable(|| 0..3)), [0, 1, 2]);
    assert_eq!(take_all(&mut IteratorWrapper::new(|| vec!["a", "b"])), ["a", "b"]);
    assert_eq!(take_all(&mut threaded_iterable_separate(|| Some(String::from("a")))), ["a"]);
    assert_eq!(take_all(&mut IteratorWrapper::separate(|| [1, 2])), [1, 2]);
    let boxed = || -> Box<dyn Iterator<Item = u8> + Send> { Box::new(0..2) };
    assert_eq!(take_all(&mut threaded_iterable(boxed)), [0, 1]);
}

/// Forbids that a stream yields an item after its end, or calls the iterator again.
#[test]
fn after_the_end_there_is_nothing() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        // An iterator that would yield more items after its end.
        let odd = move || std::iter::from_fn(move || Some(count.fetch_add(1, Ordering::SeqCst)).filter(|n| *n != 2));
        let mut stream = kind.stream(&pool, odd);
        assert!(!stream.is_closed());
        assert_eq!(take_all(&mut stream), [0, 1]);
        for _ in 0..3 {
            assert_eq!(take(&mut stream), None);
            assert_eq!(block_on(stream.next_many(&mut Vec::new(), 3)), 0);
            assert_eq!(poll_once(&mut stream), Poll::Ready(None));
            assert!(stream.is_closed());
        }
        assert_eq!(calls.load(Ordering::SeqCst), 3);
    }
}

/// Forbids that the iterator is dropped after its consumer has seen the end.
#[test]
fn the_iterator_is_dropped_before_the_end_is_seen() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for length in 0..50 {
            let watch = Watch::default();
            let mut stream = watch.stream(kind, &pool, move |numbers| numbers.take(length));
            assert!(numbers(take_all(&mut stream)).into_iter().eq(0..length));
            assert!(watch.end().is_some());
            watch.wait_for_the_end();
        }
    }
}

/// Forbids that anything runs, or a thread starts, before the first poll.
#[test]
fn nothing_runs_before_the_first_poll() {
    let _watchdog = watchdog();
    for kind in BOTH {
        let (pool, watch) = (ThreadPool::new(1), Watch::default());
        let mut stream = watch.stream(kind, &pool, |numbers| numbers).max_size(5);
        drop(stream.next());
        drop(stream.next_many(&mut Vec::new(), 5));
        assert!(!stream.is_closed());
        assert_eq!(pool.stats().threads, 0);
        match kind {
            // The pool has one thread: an iterator that was queued by mistake would run before this job.
            Kind::Pool => pool.spawn(|| ()).wait(),
            // A thread that was started by mistake started earlier than these.
            Kind::Separate => (0..5).for_each(|_| threaded_separate(|| ()).async_call().wait()),
        }
        assert_eq!(watch.makes(), 0);
        assert_eq!(take(&mut stream).unwrap().number, 0);
        assert_eq!(watch.makes(), 1);
    }
}

/// Forbids that more than `max_size` items are made but not taken, or fewer if the consumer takes no item.
#[test]
fn max_size_is_exact() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for max_size in [1, 2, 3, 10, 1024] {
            let (mut stream, watch) = filled(kind, &pool, max_size);
            assert_eq!(watch.calls(), max_size);
            for taken in 1..50 {
                assert_eq!(take(&mut stream).unwrap().number, taken - 1);
                assert!(watch.calls() <= taken + max_size);
            }
            until("the iterator has gone on", || watch.calls() > max_size || max_size > 98);
        }
    }
}

/// Forbids that a fast consumer causes more items to be made than `max_size` allows.
#[test]
fn max_size_holds_at_any_moment() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for max_size in [1, 2, 5, 64] {
            let taken = Arc::new(AtomicUsize::new(0));
            let seen = Arc::clone(&taken);
            let ahead = move |number| number - seen.load(Ordering::SeqCst).min(number);
            let mut stream = kind.stream(&pool, move || (0..2000_usize).map(ahead)).max_size(max_size);
            block_on(async {
                loop {
                    // Counted before the item is taken, so that the iterator never sees too small a number.
                    taken.fetch_add(1, Ordering::SeqCst);
                    let Some(ahead) = stream.next().await else { break };
                    assert!(ahead < max_size, "{ahead} of {max_size}");
                }
            });
            assert_eq!(taken.load(Ordering::SeqCst), 2001);
        }
    }
}

/// Forbids that the default `max_size` is not 1024.
#[test]
fn the_default_max_size_is_1024() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let watch = Watch::default();
        let mut stream = watch.stream(kind, &pool, |numbers| numbers);
        let taken = usize::from(poll_once(&mut stream).is_ready());
        until("the buffer is full", || watch.calls() >= 1024 && all_are_idle(&pool));
        assert!(watch.calls() <= 1024 + taken);
    }
}

/// Forbids that a stream accepts a size of zero, a new size after its start, or a pool for a separate thread.
#[test]
fn invalid_settings_panic() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        assert_says(&panic_of(|| kind.stream(&pool, || 0..3).max_size(0)), "max_size");
        let mut stream = kind.stream(&pool, || 0..3);
        assert_eq!(take(&mut stream), Some(0));
        panic_of(|| stream.max_size(3));
    }
    let watch = Watch::default();
    let separate = watch.stream(Kind::Separate, &pool, |numbers| numbers);
    assert_says(&panic_of(|| separate.on(&pool)), "separate");
    watch.wait_for_the_end();
    assert_eq!(watch.makes(), 0);
}

/// Forbids that a cancelled `next` loses an item, even one that was being handed over.
#[test]
fn next_is_cancel_safe() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let mut stream = kind.stream(&pool, || 0..500).max_size(2);
        let mut all = Vec::new();
        block_on(async {
            while !stream.is_closed() {
                let witness = Witness::default();
                match witness.poll(Box::pin(stream.next())) {
                    Poll::Ready(item) => all.extend(item),
                    Poll::Pending => yield_now().await,
                }
            }
        });
        assert!(all.into_iter().eq(0..500));
    }
}

/// Forbids that `next_many` takes more than its limit, returns 0 before the end although the limit is positive, or
/// changes the items already in the vector.
#[test]
fn next_many_takes_the_available_items() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let (mut stream, _watch) = filled(kind, &pool, 8);
        let mut many = block_on(async {
            let mut items = vec![stream.next().await.unwrap()];
            assert_eq!(stream.next_many(&mut items, 3).await, 3);
            assert_eq!(stream.next_many(&mut items, 0).await, 0);
            assert!(!stream.is_closed());
            assert!((1..=1000).contains(&stream.next_many(&mut items, 1000).await));
            items
        });
        assert!(many.iter().map(|item| item.number).eq(0..many.len()));
        assert!(many.len() >= 8, "fewer items than were in the buffer");
        many.clear();
        // `next_many` waits until there is an item.
        let gate = Gate::default();
        let wait = gate.clone();
        let mut stream = kind.stream(&pool, move || (0..2).inspect(move |_| wait.pass()));
        let witness = Witness::default();
        let mut items = Vec::new();
        let mut asking = Box::pin(stream.next_many(&mut items, 5));
        assert!(witness.poll(&mut asking).is_pending());
        gate.open();
        witness.wait();
        until("there is an item", || witness.poll(&mut asking).is_ready());
        drop(asking);
        items.extend(take_all(&mut stream));
        assert_eq!(items, [0, 1]);
    }
}

/// A `Stream` trait like that of the stream libraries.
trait Stream {
    type Item;
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>>;
}

impl<T: Send + 'static> Stream for IteratorWrapper<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        IteratorWrapper::poll_next(self, cx)
    }
}

/// Forbids that `poll_next` has a signature with which it cannot implement `Stream::poll_next` of the stream libraries.
#[test]
fn poll_next_implements_a_stream_trait() {
    async fn collect<S: Stream>(stream: S) -> Vec<S::Item> {
        let (mut stream, mut all) = (std::pin::pin!(stream), Vec::new());
        while let Some(item) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
            all.push(item);
        }
        all
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        assert_eq!(block_on(collect(kind.stream(&pool, || "abc".chars()).max_size(1))), ['a', 'b', 'c']);
    }
}

/// Forbids that the first waker is woken instead of the last, or that a waker is kept when it is no longer needed.
#[test]
fn the_last_waker_is_woken() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let gate = Gate::default();
        let wait = gate.clone();
        let mut stream = kind.stream(&pool, move || (0..1).inspect(move |_| wait.pass()));
        let [first, second] = [(); 2].map(|()| Witness::default());
        for witness in [&first, &second] {
            let poll = Pin::new(&mut stream).poll_next(&mut Context::from_waker(&witness.waker()));
            assert!(poll.is_pending());
        }
        assert_eq!((first.kept(), second.kept()), (0, 1));
        gate.open();
        second.wait();
        until("there is the item", || poll_once(&mut stream) == Poll::Ready(Some(0)));
        assert_eq!(take(&mut stream), None);
        assert_eq!(first.wakes(), 0);
        second.wait_until_none_is_kept();
        // The waker of a stream that is dropped while its task waits.
        let gate = Gate::default();
        let wait = gate.clone();
        let mut stream = kind.stream(&pool, move || (0..1).inspect(move |_| wait.pass()));
        assert!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(&first.waker())).is_pending());
        drop(stream);
        first.wait_until_none_is_kept();
        gate.open();
    }
}

/// Forbids that a stream loses an item when it moves between threads.
#[test]
fn a_stream_may_move_between_threads() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let mut stream = kind.stream(&pool, || 0..30).max_size(2);
        for round in 0..10 {
            let _ = poll_once(&mut kind.stream(&pool, || 0..1));
            stream = thread::spawn(move || {
                assert_eq!(take(&mut stream), Some(3 * round));
                stream
            })
            .join()
            .unwrap();
            stream = block_on(async {
                let reading = spawn(async move {
                    assert_eq!(stream.next().await, Some(3 * round + 1));
                    stream
                });
                reading.await
            });
            assert_eq!(take(&mut stream), Some(3 * round + 2));
        }
        assert_eq!(take(&mut stream), None);
    }
}

// --- panics ---------------------------------------------------------------------------------------------------------

/// Forbids that a panic in `make` is lost, or looks like an end.
#[test]
fn a_panic_in_make_comes_out_once() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let watch = Watch::default();
        let mut stream = watch.stream(kind, &pool, |_| -> Numbers { quiet_panic("in make") });
        assert_eq!(assert_panics_once(&mut stream), "in make");
        drop(stream);
        watch.wait_for_the_end();
        assert_eq!(pool.spawn(|| 1).wait(), 1);
    }
}

/// Forbids that a panic in `next` is lost or looks like an end, overtakes items, or leaks the iterator; and that the
/// iterator is called again.
#[test]
fn a_panic_in_next_comes_out_once_and_after_the_items() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for (at, max_size) in [(0, 1), (3, 1), (3, 2), (3, 8), (100, 8)] {
            let watch = Watch::default();
            let make = move |numbers: Numbers| {
                numbers.inspect(move |item| {
                    if item.number == at {
                        quiet_panic("in next");
                    }
                })
            };
            let mut stream = watch.stream(kind, &pool, make).max_size(max_size);
            let before = (0..at).map(|_| take(&mut stream).unwrap()).collect();
            assert!(numbers(before).into_iter().eq(0..at));
            assert_eq!(assert_panics_once(&mut stream), "in next");
            drop(stream);
            watch.wait_for_the_end();
            assert_eq!(watch.calls(), at + 1);
            assert_eq!(pool.spawn(|| 1).wait(), 1);
        }
    }
}

/// Forbids that a panic comes out with another payload, for every way to ask for an item.
#[test]
fn a_panic_keeps_its_payload() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let asks: [fn(&mut IteratorWrapper<()>); 3] = [
            |stream| assert!(take(stream).is_none()),
            |stream| assert_eq!(block_on(stream.next_many(&mut Vec::new(), 5)), 0),
            |stream| until("the panic has come out", || poll_once(stream).is_ready()),
        ];
        for ask in asks {
            let panic = || std::panic::resume_unwind(Box::new(vec![5]));
            let mut stream = kind.stream(&pool, move || std::iter::from_fn(panic));
            let asking = std::panic::AssertUnwindSafe(|| ask(&mut stream));
            let payload = std::panic::catch_unwind(asking).unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&vec![5]));
            assert_eq!(take(&mut stream), None);
        }
    }
}

/// Forbids that a panic in the iterator's `Drop` after the last item looks like an end, or overtakes items.
#[test]
fn a_panic_in_the_iterators_drop_comes_out_once_and_after_the_items() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for length in [0, 1, 5] {
            let watch = Watch::default();
            let mut stream = watch.stream(kind, &pool, move |numbers| numbers.bomb().take(length)).max_size(2);
            let items = (0..length).map(|_| take(&mut stream).unwrap()).collect();
            assert!(numbers(items).into_iter().eq(0..length));
            assert_eq!(assert_panics_once(&mut stream), "the iterator's end");
            watch.wait_for_the_end();
            assert_eq!(pool.spawn(|| 1).wait(), 1);
        }
    }
}

/// Forbids that an iterator that panics in `next` and in its `Drop` aborts the process, or ends a thread of the pool.
#[test]
fn two_panics_of_an_iterator_do_not_abort() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let watch = Watch::default();
        let make = |numbers: Numbers| numbers.bomb().inspect(|_| quiet_panic("in next"));
        let mut stream = watch.stream(kind, &pool, make);
        assert_panics_once(&mut stream);
        watch.wait_for_the_end();
        assert_eq!(pool.spawn(|| 1).wait(), 1);
    }
}

// --- threads --------------------------------------------------------------------------------------------------------

/// Forbids that `make`, `next` or the iterator's `Drop` runs on a thread outside of the pool.
#[test]
fn a_pooled_iterator_runs_in_its_pool() {
    let _watchdog = watchdog();
    let pool = ThreadPool::builder().threads(1).name("ht-iterable").build();
    let (watch, thread) = (Watch::default(), thread_of(&pool));
    let make = |numbers: Numbers| {
        let made = here();
        numbers.take(20).map(move |_| [made.clone(), here()])
    };
    let mut stream = watch.stream(Kind::Pool, &pool, make).max_size(3);
    let places = take_all(&mut stream).concat();
    assert_eq!(places.len(), 40);
    assert!(places.iter().chain(&watch.end()).all(|(id, name)| *id == thread && name.starts_with("ht-iterable")));
}

/// Forbids that a separate iterator shares or changes its thread, or that the thread lacks the given name. The iterator
/// need not be `Send`.
#[test]
fn a_separate_iterator_has_its_own_thread() {
    struct Reports(Rc<mpsc::Sender<Place>>);
    impl Drop for Reports {
        fn drop(&mut self) {
            self.0.send(here()).unwrap();
        }
    }
    let _watchdog = watchdog();
    let (report, reported) = mpsc::channel();
    let make = |name: &'static str| {
        let report = report.clone();
        let make = move || {
            let reports = Reports(Rc::new(report));
            reports.0.send(here()).unwrap();
            let also = Rc::clone(&reports.0);
            (0..20).inspect(move |_| {
                let _ = &reports;
                also.send(here()).unwrap();
            })
        };
        threaded_iterable_separate(make).max_size(2).name(name)
    };
    let (mut first, mut second) = (make("ht-first"), make("ht-second"));
    let lockstep = gather([first.next(), second.next()]);
    assert_eq!(block_on(lockstep), [Some(0), Some(0)]);
    for stream in [&mut first, &mut second] {
        assert!(take_all(stream).into_iter().eq(1..20));
    }
    let mut places: Vec<_> = reported.try_iter().collect();
    // One `make`, twenty items, one drop.
    assert_eq!(places.len(), 2 * 22);
    places.sort_by(|left, right| left.1.cmp(&right.1));
    places.dedup();
    let names: Vec<_> = places.iter().map(|place| &*place.1).collect();
    assert_eq!(names, ["ht-first", "ht-second"]);
    assert!(places[0].0 != places[1].0 && places.iter().all(|place| place.0 != thread::current().id()));
}

/// Forbids that the thread of a separate iterator outlives the iterator, however the iterator ends.
#[cfg(target_os = "linux")]
#[test]
fn the_thread_of_a_separate_iterator_ends_with_it() {
    let _watchdog = watchdog();
    let named = || threaded_iterable_separate(|| 0..5).max_size(2).name("ht-iter-ends");
    let mut streams: Vec<_> = (0..4).map(|_| named()).collect();
    for stream in &mut streams {
        assert_eq!(take(stream), Some(0));
    }
    assert_eq!(threads_named("ht-iter-ends").len(), 4);
    let mut rest = streams.split_off(1);
    assert_eq!(take_all(&mut streams[0]), [1, 2, 3, 4]);
    block_on(rest[0].close());
    drop(rest);
    until("all have ended", || threads_named("ht-iter-ends").is_empty());
}

/// Forbids that `sync_call` iterates on another thread, runs ahead of its consumer, or loses a panic of the iterator.
#[test]
fn sync_call_iterates_on_the_callers_thread() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let watch = Watch::default();
        let make = |numbers: Numbers| {
            let made = here();
            numbers.take(5).map(move |item| (item.number, made.clone(), here()))
        };
        let mut items = watch.stream(kind, &pool, make).max_size(1).sync_call();
        for number in 0..5 {
            assert_eq!(items.next(), Some((number, here(), here())));
            assert_eq!(watch.calls(), number + 1);
        }
        assert_eq!(items.next(), None);
        drop(items);
        assert_eq!(watch.end(), Some(here()));
        let mut items = kind.stream(&pool, || (0..1).chain(std::iter::from_fn(|| quiet_panic("here")))).sync_call();
        assert_eq!(items.next(), Some(0));
        assert_eq!(panic_of(|| items.next()), "here");
        // Dropped before its end.
        let watch = Watch::default();
        assert_eq!(watch.stream(kind, &pool, |numbers| numbers).sync_call().next().unwrap().number, 0);
        assert_eq!(watch.end(), Some(here()));
        watch.wait_for_the_end();
    }
    assert_eq!(pool.stats().threads, 0);
}

// --- which pool -----------------------------------------------------------------------------------------------------

fn pool_named(name: &str) -> ThreadPool {
    ThreadPool::builder().threads(1).name(name).build()
}

/// The name of the thread that runs an iterable without a given pool.
async fn default_thread() -> String {
    threaded_iterable(|| std::iter::once_with(own_name)).next().await.unwrap()
}

/// Forbids that a stream runs in another pool than the first of these that exists: the given pool, the pool of the
/// current loop, the pool of the current job, the global pool.
#[test]
fn the_pool_is_the_given_the_loops_the_jobs_or_the_global_one() {
    let _watchdog = watchdog();
    block_on(async {
        LoopHandle::current().set_default_pool(pool_named("ht-of-loop"));
        assert_says(&default_thread().await, "ht-of-loop");
        // Also in a task, and in a job of another pool.
        assert_says(&spawn(default_thread()).await, "ht-of-loop");
        let pool = pool_named("ht-named");
        let name = threaded(|| sync_await(default_thread())).on(&pool).await;
        assert_says(&name, "ht-of-loop");
        let mut named = threaded_iterable(|| std::iter::once_with(own_name)).on(&pool);
        assert_says(&named.next().await.unwrap(), "ht-named");
    });
    // Without a loop, the stream is polled by hand.
    let by_hand = || {
        let mut stream = threaded_iterable(|| std::iter::once_with(own_name));
        let witness = Witness::default();
        let mut next = Box::pin(stream.next());
        loop {
            if let Poll::Ready(name) = witness.poll(&mut next) {
                return name.unwrap();
            }
            thread::yield_now();
        }
    };
    let outside = by_hand();
    assert!(!outside.starts_with("ht-of"), "{outside}");
    // Two threads, because the job occupies one.
    let of_job = ThreadPool::builder().threads(2).name("ht-of-job").build();
    assert_says(&of_job.spawn(by_hand).wait(), "ht-of-job");
}

// --- context and loop -----------------------------------------------------------------------------------------------

static ID: ContextVar<u32> = ContextVar::new();

/// Forbids that `make` or `next` misses the context in which the stream was started, or changes the caller's context.
#[test]
fn the_iterator_runs_in_its_starters_context() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        block_on(async {
            ID.set(1);
            let make = || {
                let in_make = ID.get();
                (0..10).map(move |_| (in_make, ID.get()))
            };
            let mut stream = kind.stream(&pool, make).max_size(2);
            assert_eq!(stream.next().await, Some((Some(1), Some(1))));
            // The context of the reader does not matter.
            let rest = spawn(async move {
                ID.set(2);
                let mut rest = Vec::new();
                while stream.next_many(&mut rest, 3).await > 0 {}
                rest
            });
            assert_eq!(rest.await, [(Some(1), Some(1)); 9]);
            let mut changing = kind.stream(&pool, || (3..6).map(|id| ID.set(id))).max_size(1);
            while changing.next().await.is_some() {}
            assert_eq!(ID.get(), Some(1));
        });
        assert_eq!(pool.spawn(|| ID.get()).wait(), None);
    }
}

/// Forbids that the iterator's code lacks the current loop, or that its `sync_await` runs on another loop.
#[test]
fn the_iterator_has_its_starters_current_loop() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        block_on(async {
            let make = || {
                let in_make = sync_await(async { thread::current().id() });
                (0..5).map(move |_| {
                    assert!(!LoopHandle::current().is_closed());
                    let task = sync_await(async { spawn(async { thread::current().id() }).await });
                    [in_make, task]
                })
            };
            let mut stream = kind.stream(&pool, make).max_size(1);
            let mut all = Vec::new();
            while stream.next_many(&mut all, 10).await > 0 {}
            assert_eq!(all, [[thread::current().id(); 2]; 5]);
        });
    }
}

/// Forbids that an iterator whose stream was closed or dropped goes on waiting. With a loop, `make` or `next` waits in
/// `sync_wait`. Without a loop, `next` waits in `sync_await`, and the stream is dropped.
#[test]
fn sync_wait_and_sync_await_in_a_closed_stream_are_cancelled() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for (in_make, drops) in [(true, false), (false, false), (true, true), (false, true)] {
            let (report, reported) = mpsc::channel();
            let (begin, begun) = mpsc::channel();
            let wait = move || {
                begin.send(()).unwrap();
                let result = LoopHandle::current().sync_wait(pending::<()>());
                report.send(matches!(result, Err(SyncWaitError::Cancelled)) && is_cancelled()).unwrap();
            };
            let make = move || {
                if in_make {
                    wait();
                    return Box::new(std::iter::repeat(())) as Box<dyn Iterator<Item = ()> + Send>;
                }
                Box::new(std::iter::repeat_with(wait))
            };
            let mut stream = kind.stream(&pool, make);
            block_on(async {
                assert!(poll_once(&mut stream).is_pending());
                turn_until("the iterator waits", || begun.try_recv().is_ok()).await;
                if drops {
                    drop(stream);
                } else {
                    stream.close().await;
                }
                let mut told = None;
                turn_until("the iterator was told", || {
                    told = reported.try_recv().ok();
                    told.is_some()
                })
                .await;
                assert_eq!(told, Some(true));
            });
        }
        // Without a loop, the `sync_await` unwinds, and the pool still works.
        let (gate, unwound) = (Gate::default(), Gate::default());
        let (begin, end) = (gate.clone(), unwound.clone());
        let wait = move || {
            let end = end.clone();
            let _end = on_drop(move || end.open());
            begin.open();
            sync_await(pending::<()>());
        };
        let mut stream = kind.stream(&pool, move || std::iter::repeat_with(wait));
        assert!(poll_once(&mut stream).is_pending());
        gate.pass();
        drop(stream);
        unwound.pass();
        assert_eq!(pool.spawn(|| 1).wait(), 1);
    }
}

/// Forbids that reading a stream, or waiting for a job, inside another stream hangs in a pool of one thread.
#[test]
fn a_stream_may_be_read_inside_a_stream() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let inside = pool.clone();
        let make = move || {
            let mut inner = kind.stream(&inside, || 0..20).max_size(2);
            std::iter::from_fn(move || take(&mut inner).map(|item| inside.spawn(move || item + 1).wait()))
        };
        assert!(take_all(&mut kind.stream(&pool, make).max_size(3)).into_iter().eq(1..21));
    }
}

/// Forbids that a stream needs more than a waker from its executor.
#[test]
fn a_stream_works_under_a_foreign_executor() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (executor, thread) = Foreign::start();
    for kind in BOTH {
        let inside = pool.clone();
        let sum = executor.run_here(async move {
            let mut sum = 0;
            let mut stream = kind.stream(&inside, || 0..200).max_size(3);
            while let Some(item) = stream.next().await {
                sum += item;
            }
            sum += kind.stream(&inside, || 1..).scope(async |items| items.next().await.unwrap()).await;
            let mut endless = kind.stream(&inside, || 0..).max_size(2);
            let mut some = Vec::new();
            while some.len() < 10 {
                endless.next_many(&mut some, 4).await;
            }
            endless.close().await;
            assert!(some.iter().copied().eq(0..some.len()));
            sum
        });
        assert_eq!(sum, 199 * 100 + 1);
        // With neither a loop nor a given pool: the global pool.
        assert!(!executor.run_here(default_thread()).starts_with("ht-"));
        let panicking = executor.clone();
        let panicking = move || {
            panicking.run_here(async move {
                kind.stream(&ThreadPool::new(1), || -> [(); 0] { quiet_panic("there") }).next().await
            })
        };
        assert_eq!(panic_of(panicking), "there");
    }
    executor.close();
    thread.join().unwrap();
}

/// Forbids that a stream without an item blocks the loop that awaits it.
#[test]
fn a_stream_without_an_item_does_not_block_the_loop() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let gate = Gate::default();
        let wait = gate.clone();
        let mut stream = kind.stream(&pool, move || (0..1).inspect(move |_| wait.pass()));
        let item = block_on(async {
            let opening = spawn(async move {
                sleep(Duration::from_millis(1)).await;
                gate.open();
            });
            let item = stream.next().await;
            opening.await;
            item
        });
        assert_eq!(item, Some(0));
    }
}

// --- the type -------------------------------------------------------------------------------------------------------

mod auto_traits {
    use offthread::IteratorWrapper;
    use std::cell::Cell;
    use std::fmt::Debug;
    use std::marker::PhantomPinned;

    fn holds<T: Send + Unpin + Debug>() {}

    /// `Send`, but neither `Debug` nor `Unpin` nor `Sync`.
    struct Opaque(#[expect(dead_code, reason = "stands for the contents of a user's type")] Cell<u8>, PhantomPinned);

    /// A stream is a handle that does not store items inline.
    #[test]
    fn a_stream_is_send_unpin_and_debug_for_any_items() {
        holds::<IteratorWrapper<i32>>();
        holds::<IteratorWrapper<Opaque>>();
        let stream = offthread::threaded_iterable(|| [Opaque(Cell::new(1), PhantomPinned)]);
        assert!(!format!("{stream:?}").is_empty());
    }

    /// The futures of the methods may move between threads with their task.
    #[test]
    fn the_futures_of_a_stream_are_send() {
        fn is_send<T: Send>(value: T) -> T {
            value
        }
        let mut stream = offthread::threaded_iterable(|| [Opaque(Cell::new(1), PhantomPinned)]);
        let mut items = Vec::new();
        drop(is_send(stream.next()));
        drop(is_send(stream.next_many(&mut items, 1)));
        drop(is_send(stream.close()));
        assert!(items.is_empty());
    }
}

/// Forbids that code that is generic over the items needs a bound on them.
#[test]
fn generic_code_needs_no_bound_on_the_items() {
    async fn all<T>(mut stream: IteratorWrapper<T>) -> Vec<T> {
        assert!(!stream.is_closed());
        let mut items: Vec<T> = stream.next().await.into_iter().collect();
        while stream.next_many(&mut items, 2).await > 0 {}
        stream.close().await;
        items
    }
    fn here<T>(stream: IteratorWrapper<T>) -> Vec<T> {
        stream.sync_call().collect()
    }
    let _watchdog = watchdog();
    assert_eq!(block_on(all(threaded_iterable(|| 0..5))), here(threaded_iterable_separate(|| 0..5)));
}
