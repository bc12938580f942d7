//! Closing and dropping an iterable in each of its states; and `scope`.
//!
//! Each test says what it forbids.

#![forbid(unsafe_code)]

use crate::helpers::iterables::*;
use offthread::{IteratorWrapper, ThreadPool, block_on, is_cancelled, oneshot, spawn, threaded_iterable};
use offthread::{wait_cancelled, yield_now};
use std::any::Any;
use std::cell::RefCell;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

// --- every state, closed in every way -------------------------------------------------------------------------------

/// A stream in some state. All threads of its pool are busy, so closing the stream must not need a free thread.
struct Case {
    stream: IteratorWrapper<Item>,
    watch: Watch,
    pool: ThreadPool,
    held: Vec<Running<()>>,
}

impl Case {
    /// Keeps the pool's `free` threads busy. These are all threads that the stream does not occupy.
    fn new((stream, watch): (IteratorWrapper<Item>, Watch), pool: ThreadPool, free: usize) -> Self {
        let held = hold(&pool, free);
        Self { stream, watch, pool, held }
    }
}

/// A stream that was polled once, and whose iterator has run until `reached` is true.
fn started<F, I>(
    kind: Kind,
    pool: &ThreadPool,
    make: F,
    reached: impl Fn(&Watch) -> bool,
) -> (IteratorWrapper<Item>, Watch)
where
    F: FnOnce(Numbers) -> I + Send + 'static,
    I: Iterator<Item = Item> + Send + 'static,
{
    let (watch, polled) = (Watch::default(), Gate::default());
    let wait = polled.clone();
    let mut stream = watch.stream(kind, pool, move |numbers| {
        wait.pass();
        make(numbers)
    });
    assert!(poll_once(&mut stream).is_pending());
    polled.open();
    until("the iterator has reached the state", || reached(&watch));
    (stream, watch)
}

fn not_started(kind: Kind) -> Case {
    let (pool, watch) = (ThreadPool::new(2), Watch::default());
    let stream = watch.stream(kind, &pool, |numbers| numbers);
    Case::new((stream, watch), pool, 2)
}

/// Polled, but the first turn has not begun.
fn queued(kind: Kind) -> Case {
    let mut case = not_started(kind);
    assert!(poll_once(&mut case.stream).is_pending());
    case
}

/// A full buffer: a pooled stream is paused, and a separate one is blocked.
fn full(kind: Kind) -> Case {
    let pool = ThreadPool::new(2);
    Case::new(filled(kind, &pool, 4), pool, 2)
}

/// Like `full`, but one item was taken.
fn almost_full(kind: Kind) -> Case {
    let mut case = full(kind);
    assert!(poll_once(&mut case.stream).is_ready());
    case
}

/// Half of a full buffer was taken: the next turn of a pooled stream is queued, and a separate one goes on.
fn half_taken(kind: Kind) -> Case {
    let mut case = full(kind);
    assert_eq!(numbers((0..2).map(|_| take(&mut case.stream).unwrap()).collect()), [0, 1]);
    case
}

/// All items of the buffer were taken, and the next turn is queued.
fn queued_again(kind: Kind) -> Case {
    let mut case = half_taken(kind);
    assert_eq!(numbers((0..2).map(|_| take(&mut case.stream).unwrap()).collect()), [2, 3]);
    assert!(poll_once(&mut case.stream).is_pending());
    case
}

/// `make` runs, and checks `is_cancelled`.
fn in_make(kind: Kind) -> Case {
    let (pool, inside) = (ThreadPool::new(2), Gate::default());
    let begin = inside.clone();
    let make = move |numbers| {
        begin.open();
        until("the iterator is told", is_cancelled);
        numbers
    };
    Case::new(started(kind, &pool, make, |_| inside.is_open()), pool, 1)
}

/// `next` runs, and checks `is_cancelled`; two items are in the buffer.
fn in_next(kind: Kind) -> Case {
    let pool = ThreadPool::new(2);
    let make = |numbers: Numbers| {
        numbers.inspect(|item| {
            if item.number == 2 {
                until("the iterator is told", is_cancelled);
            }
        })
    };
    Case::new(started(kind, &pool, make, |watch| watch.calls() == 3), pool, 1)
}

/// The iterator is at its end, and all of its items are in the buffer.
fn made(kind: Kind) -> Case {
    let pool = ThreadPool::new(2);
    Case::new(started(kind, &pool, |numbers| numbers.take(3), |watch| watch.end().is_some()), pool, 2)
}

fn ended(kind: Kind) -> Case {
    let mut case = made(kind);
    assert_eq!(numbers(take_all(&mut case.stream)), [0, 1, 2]);
    case
}

fn panicked(kind: Kind) -> Case {
    let pool = ThreadPool::new(2);
    let make = |numbers: Numbers| {
        numbers.inspect(|item| {
            if item.number == 0 {
                quiet_panic("the first one");
            }
        })
    };
    let mut case = Case::new(started(kind, &pool, make, |watch| watch.end().is_some()), pool, 2);
    assert_panics_once(&mut case.stream);
    case
}

#[track_caller]
fn assert_closed(stream: &mut IteratorWrapper<Item>, watch: &Watch) {
    assert!(watch.end().is_some() || watch.makes() == 0, "`close` has not waited for the iterator's end");
    assert!(stream.is_closed());
    assert!(matches!(poll_once(stream), Poll::Ready(None)));
    assert!(take(stream).is_none());
    assert_eq!(block_on(stream.next_many(&mut Vec::new(), 5)), 0);
    assert!(stream.is_closed());
}

/// Every way to close or drop a stream.
const WAYS: [fn(IteratorWrapper<Item>, &Watch); 8] = [
    |mut stream, watch| {
        block_on(stream.close());
        assert_closed(&mut stream, watch);
    },
    // Twice.
    |mut stream, watch| {
        for _ in 0..2 {
            block_on(stream.close());
            assert_closed(&mut stream, watch);
        }
    },
    // On another thread.
    |mut stream, watch| {
        thread::scope(|scope| {
            scope.spawn(|| {
                block_on(stream.close());
                assert_closed(&mut stream, watch);
            });
        });
    },
    // In a task of a loop.
    |mut stream, watch| {
        let mut stream = block_on(async {
            let closing = spawn(async {
                stream.close().await;
                stream
            });
            closing.await
        });
        assert_closed(&mut stream, watch);
    },
    // Again, after a first `close` was cancelled.
    |mut stream, watch| {
        let witness = Witness::default();
        let _ = witness.poll(Box::pin(stream.close()));
        block_on(stream.close());
        assert_closed(&mut stream, watch);
    },
    |stream, watch| {
        block_on(stream.scope(async |_| ()));
        assert!(watch.end().is_some() || watch.makes() == 0, "`scope` has not waited for the iterator's end");
    },
    |stream, _| drop(stream),
    |stream, _| thread::spawn(|| drop(stream)).join().unwrap(),
];

/// Closes the stream in each way. Afterwards everything that it owned has been dropped, and the pool works as before.
#[track_caller]
fn close_each(kinds: &[Kind], makes: usize, state: fn(Kind) -> Case) {
    let _watchdog = watchdog();
    for kind in kinds {
        for way in WAYS {
            let Case { stream, watch, pool, held } = state(*kind);
            way(stream, &watch);
            watch.wait_for_the_end();
            assert_eq!(watch.makes(), makes);
            release(held);
            assert_eq!(pool.spawn(|| 1).wait(), 1);
            assert_at_rest(&pool);
        }
    }
}

/// Forbids that closing a stream that was never polled runs `make`, waits for the thread that never started, or
/// leaks the stream.
#[test]
fn a_stream_that_has_not_started_can_be_closed() {
    close_each(&BOTH, 0, not_started);
}

/// Forbids that closing a stream whose first turn is queued waits for that turn, or runs `make`.
#[test]
fn a_stream_queued_behind_a_full_pool_can_be_closed() {
    close_each(&[Kind::Pool], 0, queued);
}

/// Forbids the same for a later turn.
#[test]
fn a_stream_queued_again_behind_a_full_pool_can_be_closed() {
    close_each(&[Kind::Pool], 1, queued_again);
    close_each(&[Kind::Pool], 1, half_taken);
}

/// Forbids that closing a paused stream waits for a thread of its busy pool.
#[test]
fn a_paused_stream_can_be_closed() {
    close_each(&[Kind::Pool], 1, full);
    close_each(&[Kind::Pool], 1, almost_full);
}

/// Forbids that a separate iterator that is blocked on its full buffer stays blocked after a close.
#[test]
fn a_stream_blocked_on_a_full_buffer_can_be_closed() {
    close_each(&[Kind::Separate], 1, full);
    close_each(&[Kind::Separate], 1, almost_full);
}

/// Forbids that a separate iterator goes on after the close when items were taken from its full buffer.
#[test]
fn a_separate_stream_with_some_items_taken_can_be_closed() {
    close_each(&[Kind::Separate], 1, half_taken);
}

/// Forbids that `make` does not learn of the close, or that the iterator that `make` then returns is leaked.
#[test]
fn a_stream_can_be_closed_during_make() {
    close_each(&BOTH, 1, in_make);
}

/// Forbids that `next` is called after the stream was closed or dropped, or its pool was shut down, while `make` ran.
/// In one case `next` would block for ever.
#[test]
fn a_stream_closed_during_make_begins_no_item() {
    let _watchdog = watchdog();
    let shut_down: fn(IteratorWrapper<Item>, &Watch, &ThreadPool) = |stream, _, pool| {
        pool.shutdown();
        drop(stream);
    };
    for kind in BOTH {
        let ways = WAYS.map(Some).into_iter().chain((kind == Kind::Pool).then_some(None));
        for way in ways {
            for blocks in [false, true] {
                let (pool, inside, never) = (ThreadPool::new(2), Gate::default(), Gate::default());
                let (begin, wait) = (inside.clone(), never.clone());
                let make = move |numbers: Numbers| {
                    begin.open();
                    until("the iterator is told", is_cancelled);
                    let mut numbers = Some(numbers).filter(|_| !blocks);
                    std::iter::from_fn(move || {
                        let Some(numbers) = &mut numbers else {
                            wait.pass();
                            return None;
                        };
                        numbers.next()
                    })
                };
                let (stream, watch) = started(kind, &pool, make, |_| inside.is_open());
                match way {
                    Some(way) => way(stream, &watch),
                    None => shut_down(stream, &watch, &pool),
                }
                watch.wait_for_the_end();
                assert_eq!((watch.makes(), watch.calls()), (1, 0), "{kind:?}");
            }
        }
    }
}

/// Forbids that a running `next` does not learn of the close, or that its item is leaked.
#[test]
fn a_stream_can_be_closed_during_next() {
    close_each(&BOTH, 1, in_next);
}

/// Forbids that the untaken items of an iterator that has ended are leaked.
#[test]
fn a_stream_with_untaken_items_can_be_closed() {
    close_each(&BOTH, 1, made);
}

/// Forbids that closing after the end hangs or changes anything.
#[test]
fn a_stream_can_be_closed_after_its_end() {
    close_each(&BOTH, 1, ended);
}

/// Forbids that closing after a panic hangs, or that the panic comes out again.
#[test]
fn a_stream_can_be_closed_after_a_panic() {
    close_each(&BOTH, 1, panicked);
}

// --- waiting, or not ------------------------------------------------------------------------------------------------

/// A stream whose iterator blocks inside `next` until the gate opens, and does not check `is_cancelled`.
fn unresponsive(kind: Kind, pool: &ThreadPool) -> (IteratorWrapper<Item>, Watch, Gate) {
    let gate = Gate::default();
    let wait = gate.clone();
    let make = move |numbers: Numbers| {
        numbers.inspect(move |item| {
            if item.number == 1 {
                wait.pass();
            }
        })
    };
    let (stream, watch) = started(kind, pool, make, |watch| watch.calls() == 2);
    (stream, watch, gate)
}

/// Forbids that `close` returns before a busy iterator has been dropped, or that cancelling a `close` undoes it.
#[test]
fn close_waits_for_an_iterator_that_is_busy() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for again in [false, true] {
            let (mut stream, watch, gate) = unresponsive(kind, &pool);
            let [first, second] = [(); 2].map(|()| Witness::default());
            if again {
                let mut given_up = Box::pin(stream.close());
                assert!(first.poll(&mut given_up).is_pending());
                drop(given_up);
                assert!(stream.is_closed());
            }
            let mut closing = Box::pin(stream.close());
            assert!(second.poll(&mut closing).is_pending());
            assert_eq!(first.kept(), 0);
            assert!(watch.end().is_none());
            gate.open();
            second.wait();
            until("the stream is closed", || second.poll(&mut closing).is_ready());
            assert!(watch.end().is_some());
            drop(closing);
            assert_eq!(first.wakes(), 0);
            assert_closed(&mut stream, &watch);
            drop(stream);
            watch.wait_for_the_end();
            // One more item was finished, and none was begun after it.
            assert_eq!(watch.calls(), 2);
        }
    }
}

/// Forbids that dropping the stream waits for the iterator, or that the iterator goes on after its current item.
#[test]
fn a_drop_does_not_wait() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let (stream, watch, gate) = unresponsive(kind, &pool);
        drop(stream);
        assert!(watch.end().is_none());
        gate.open();
        watch.wait_for_the_end();
        assert_eq!(watch.calls(), 2);
    }
}

/// Forbids that dropping a task with its stream waits for the iterator, or leaks it.
#[test]
fn a_task_may_be_dropped_with_its_stream() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let (mut stream, watch, gate) = unresponsive(kind, &pool);
        block_on(async {
            let reading = spawn(async move {
                while let Some(item) = stream.next().await {
                    drop(item);
                }
            });
            until_taken(&watch).await;
            drop(reading);
        });
        gate.open();
        watch.wait_for_the_end();
    }
}

/// Lets the loop run, so that its tasks read the available items.
async fn until_taken(watch: &Watch) {
    for _ in 0..10 {
        yield_now().await;
    }
    assert!(watch.end().is_none());
}

/// Forbids that `is_cancelled` is true in the iterator before the close.
#[test]
fn an_iterator_is_not_cancelled_before_the_close() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let make = || {
            let in_make = is_cancelled();
            (0..100).map(move |_| in_make || is_cancelled())
        };
        let mut stream = kind.stream(&pool, make).max_size(4);
        assert_eq!(take_all(&mut stream), [false; 100]);
        // Nor for the next job on a pool's thread after a close.
        let mut stream = kind.stream(&pool, || 0..).max_size(4);
        assert_eq!(take(&mut stream), Some(0));
        block_on(stream.close());
        assert!(!pool.spawn(is_cancelled).wait());
    }
}

/// Forbids that an item is dropped twice or never, at whatever moment the consumer is dropped.
#[test]
fn the_consumer_may_be_dropped_at_any_moment() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    for kind in BOTH {
        for round in 0..150 {
            let watch = Watch::default();
            let mut stream = watch.stream(kind, &pool, |numbers| numbers.take(20)).max_size(1 + round % 3);
            if round % 2 == 0 {
                drop(poll_once(&mut stream));
            } else {
                drop(take(&mut stream));
            }
            (0..round * 10).for_each(|_| std::hint::spin_loop());
            if round % 4 < 2 {
                drop(stream);
            } else {
                block_on(stream.close());
                assert!(watch.end().is_some() || watch.makes() == 0);
                drop(stream);
            }
            until("the iterator is dropped", || watch.end().is_some() || watch.makes() == 0);
            // `Iterator::take` does not call `next` after its last item, so each counted call has made an item.
            watch.wait_for_the_end();
        }
    }
    assert_at_rest(&pool);
}

/// Forbids that `make` runs after the return of a close that came as the stream started.
#[test]
fn make_does_not_run_after_a_close_during_the_start() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for round in 0..150 {
            let watch = Watch::default();
            let mut stream = watch.stream(kind, &pool, |numbers| numbers);
            drop(poll_once(&mut stream));
            (0..round * 20).for_each(|_| std::hint::spin_loop());
            block_on(stream.close());
            let makes = watch.makes();
            assert_eq!(watch.end().is_some(), makes == 1);
            drop(stream);
            watch.wait_for_the_end();
            assert_eq!(watch.makes(), makes);
        }
    }
}

// --- panics and drops -----------------------------------------------------------------------------------------------

/// Forbids that `close` loses a panic in the iterator's `Drop`.
#[test]
fn a_panic_in_the_iterators_drop_comes_out_of_close() {
    let _watchdog = watchdog();
    for kind in BOTH {
        let pool = ThreadPool::new(1);
        let (mut stream, watch) = started(kind, &pool, Numbers::bomb, |watch| watch.calls() >= 1024);
        until("the stream is paused", || kind == Kind::Separate || all_are_idle(&pool));
        assert_eq!(panic_of(|| block_on(stream.close())), "the iterator's end");
        assert_closed(&mut stream, &watch);
        block_on(stream.close());
        drop(stream);
        watch.wait_for_the_end();
        assert_eq!(pool.spawn(|| 1).wait(), 1);
    }
}

/// Forbids the same for a stream that is closed during `next`.
#[test]
fn a_panic_in_the_drop_of_a_busy_iterator_comes_out_of_close() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let make = |numbers: Numbers| numbers.bomb().inspect(|_| until("the iterator is told", is_cancelled));
        let (mut stream, watch) = started(kind, &pool, make, |watch| watch.calls() == 1);
        assert_eq!(panic_of(|| block_on(stream.close())), "the iterator's end");
        assert_closed(&mut stream, &watch);
        assert_eq!(pool.spawn(|| 1).wait(), 1);
    }
}

/// Forbids that a panic in the `Drop` of an iterator without a consumer aborts the process or ends a thread of the
/// pool.
#[test]
fn a_panic_in_a_drop_without_a_consumer_ends_no_thread() {
    let _watchdog = watchdog();
    let threads = Threads::default();
    let pool = threads.watch(ThreadPool::builder().threads(1)).build();
    let thread = thread_of(&pool);
    for kind in BOTH {
        let (stream, watch) = started(kind, &pool, |numbers| numbers.bomb().take(9), |watch| watch.end().is_some());
        drop(stream);
        watch.wait_for_the_end();
        let (stream, watch) = started(kind, &pool, Numbers::bomb, |watch| watch.calls() >= 1024);
        drop(stream);
        watch.wait_for_the_end();
        let make = |numbers: Numbers| numbers.bomb().inspect(|_| until("the iterator is told", is_cancelled));
        let (stream, watch) = started(kind, &pool, make, |watch| watch.calls() == 1);
        drop(stream);
        watch.wait_for_the_end();
    }
    assert_eq!(thread_of(&pool), thread);
}

/// Forbids that an item whose `Drop` panics keeps other items, or the iterator, from being dropped.
#[test]
fn an_item_whose_drop_panics_leaks_nothing() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for bomb in 0..5 {
            for close in [true, false] {
                let arm = move |item: Item| if item.number == bomb { item.armed() } else { item };
                let make = move |numbers: Numbers| numbers.take(5).map(arm);
                let (mut stream, watch) = started(kind, &pool, make, |watch| watch.end().is_some());
                // It is unspecified where this panic comes out.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    if close {
                        block_on(stream.close());
                    }
                }));
                let _ = catch_unwind(AssertUnwindSafe(|| drop(stream)));
                watch.wait_for_the_end();
                assert_eq!(watch.calls(), 5);
            }
        }
        // The item that is made during the close, which the iterator's thread drops.
        let make = |numbers: Numbers| {
            numbers.map(|item| {
                until("the iterator is told", is_cancelled);
                item.armed()
            })
        };
        let (stream, watch) = started(kind, &pool, make, |watch| watch.calls() == 1);
        drop(stream);
        watch.wait_for_the_end();
        assert_eq!(pool.spawn(|| 1).wait(), 1);
    }
}

/// Forbids that an unreceived panic leaks its payload, or ends a thread when the payload's `Drop` panics.
#[test]
fn an_unreceived_panic_leaks_nothing() {
    thread_local!(static AT_THE_END: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) });
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let (payload, dropped) = bomb();
        let mut payload = Some(payload);
        let (polled, ended) = (Gate::default(), Gate::default());
        let (wait, end) = (polled.clone(), ended.clone());
        let mut stream = kind.stream(&pool, move || {
            AT_THE_END.set(Some(Box::new(on_drop(move || end.open()))));
            wait.pass();
            std::iter::from_fn(move || -> Option<()> { std::panic::resume_unwind(Box::new(payload.take())) })
        });
        assert!(poll_once(&mut stream).is_pending());
        polled.open();
        match kind {
            Kind::Pool => until("the iterator has panicked", || all_are_idle(&pool)),
            Kind::Separate => ended.pass(),
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(stream)));
        assert!(dropped.recv().is_ok() && dropped.recv().is_err());
        assert_eq!(pool.spawn(|| 1).wait(), 1);
    }
}

/// Forbids that a closing stream drops a value under a lock: the value's `Drop` may use the pool and close other
/// streams.
#[test]
fn values_dropped_by_a_close_may_use_the_pool() {
    let _watchdog = watchdog();
    for kind in BOTH {
        // Each of these drops occupies its thread.
        let pool = ThreadPool::new(2);
        let make = |pool: &ThreadPool, count: &Arc<AtomicUsize>| {
            let (pool, count) = (pool.clone(), Arc::clone(count));
            move || {
                let (pool, count) = (pool.clone(), Arc::clone(&count));
                on_drop(move || {
                    // Not `block_on`, because this may run in a closing call on a loop's thread.
                    let mut inner = IteratorWrapper::new(|| 0..).on(&pool);
                    until("there is an item", || poll_once(&mut inner).is_ready());
                    let mut closing = Box::pin(inner.close());
                    until("the inner stream is closed", || Witness::default().poll(&mut closing).is_ready());
                    pool.spawn(|| ()).wait();
                    count.fetch_add(1, Ordering::SeqCst);
                })
            }
        };
        let dropped = Arc::new(AtomicUsize::new(0));
        let item = make(&pool, &dropped);
        let captured = item();
        let mut stream = kind.stream(&pool, move || {
            std::iter::repeat_with(move || {
                let _ = &captured;
                item()
            })
            .take(3)
        });
        drop(poll_once(&mut stream));
        until("all are made, and the iterator is dropped", || dropped.load(Ordering::SeqCst) > 0);
        block_on(stream.close());
        drop(stream);
        until("all is dropped", || dropped.load(Ordering::SeqCst) == 4);
    }
}

// --- scope ----------------------------------------------------------------------------------------------------------

/// Forbids that `scope` returns another value than its body's, or returns before the iterator has been dropped.
#[test]
fn scope_returns_the_value_of_its_body() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let watch = Watch::default();
        let stream = watch.stream(kind, &pool, |numbers| numbers).max_size(2);
        let sum = block_on(stream.scope(async |items| {
            let mut sum = 0;
            while let Some(item) = items.next().await {
                sum += item.number;
                if item.number == 10 {
                    break;
                }
            }
            sum
        }));
        assert_eq!(sum, 55);
        assert!(watch.end().is_some());
        watch.wait_for_the_end();
    }
}

/// Forbids that a body that returns early, by `?`, leaks the iterator.
#[test]
fn an_early_return_from_a_scope_leaks_nothing() {
    async fn sum(items: &mut IteratorWrapper<Item>) -> Result<usize, String> {
        let mut sum = 0;
        while let Some(item) = items.next().await {
            sum += (item.number < 3).then_some(item.number).ok_or(format!("{sum} is enough"))?;
        }
        Ok(sum)
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let watch = Watch::default();
        let stream = watch.stream(kind, &pool, |numbers| numbers);
        assert_eq!(block_on(stream.scope(sum)), Err("3 is enough".to_owned()));
        assert!(watch.end().is_some());
        watch.wait_for_the_end();
    }
}

/// Forbids that `scope` fails when its body closes the stream, or reads it to its end.
#[test]
fn the_body_of_a_scope_may_close_the_stream() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let rest = block_on(kind.stream(&pool, || 0..).scope(async |items| {
            let first = items.next().await;
            items.close().await;
            (first, items.next().await)
        }));
        assert_eq!(rest, (Some(0), None));
        let all = block_on(kind.stream(&pool, || 0..3).scope(async |items| {
            let mut all = Vec::new();
            while items.next_many(&mut all, 10).await > 0 {}
            all
        }));
        assert_eq!(all, [0, 1, 2]);
    }
}

/// Forbids that a panic in the body is lost, or leaks the iterator.
#[test]
fn a_panic_in_the_body_of_a_scope_is_not_lost() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let watch = Watch::default();
        let stream = watch.stream(kind, &pool, |numbers| numbers);
        let said = panic_of(|| {
            block_on(stream.scope(async |items| {
                items.next().await;
                quiet_panic("in the body");
            }));
        });
        assert_eq!(said, "in the body");
        watch.wait_for_the_end();
        // A panic of the iterator comes out of the body.
        let stream = kind.stream(&pool, || (0..1).chain(std::iter::from_fn(|| quiet_panic("in next"))));
        let said = panic_of(|| block_on(stream.scope(async |items| while items.next().await.is_some() {})));
        assert_eq!(said, "in next");
    }
}

/// Forbids that a scope that is dropped during its body, or during its close, leaks the iterator or hangs.
#[test]
fn a_dropped_scope_neither_leaks_nor_hangs() {
    type Scope = fn(IteratorWrapper<Item>) -> Pin<Box<dyn Future<Output = ()>>>;
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let bodies: [Scope; 2] = [
            |stream| {
                Box::pin(stream.scope(async |items| {
                    items.next().await;
                    pending::<()>().await;
                }))
            },
            |stream| Box::pin(stream.scope(async |_| ())),
        ];
        for body in bodies {
            let (stream, watch, gate) = unresponsive(kind, &pool);
            let witness = Witness::default();
            let mut scope = body(stream);
            assert!(witness.poll(&mut scope).is_pending());
            drop(scope);
            assert!(watch.end().is_none());
            witness.wait_until_none_is_kept();
            gate.open();
            watch.wait_for_the_end();
        }
    }
}

/// Forbids that a scope that was never polled runs `make` or its body, or leaks the iterator.
#[test]
fn a_scope_that_was_never_polled_runs_nothing() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let (watch, log) = (Watch::default(), Mutex::new(0));
        drop(watch.stream(kind, &pool, |numbers| numbers).scope(async |_| *log.lock().unwrap() += 1));
        watch.wait_for_the_end();
        assert_eq!((watch.makes(), *log.lock().unwrap(), pool.stats().threads), (0, 0, 0));
    }
}

/// Forbids that a close waits for a thread that waits in its start hook: a thread that was started before the close, or
/// one that is started for the close.
#[test]
fn a_close_does_not_wait_for_start_hooks_that_wait() {
    let _watchdog = watchdog();
    for jobs in 0..3 {
        // The hook of the first thread does not wait.
        let (opens, gates): (Vec<_>, Vec<_>) = [(); 8].map(|()| oneshot::channel::<()>()).into_iter().unzip();
        let gates = Mutex::new(gates.into_iter().map(Some).chain([None]).collect::<Vec<_>>());
        let hook = move || {
            let gate = gates.lock().unwrap().pop().flatten();
            if let Some(gate) = gate {
                let _ = gate.recv_blocking();
            }
        };
        let pool = ThreadPool::builder().threads(3).on_thread_start(hook).build();
        let mut stream = threaded_iterable(|| 0..).on(&pool).max_size(1);
        assert_eq!(take(&mut stream), Some(0));
        until("the stream is paused", || pool.stats().idle == 1);
        let gate = Gate::default();
        let pass = gate.clone();
        let busy = pool.spawn(move || pass.pass());
        until("the job runs", || pool.stats().queued == 0);
        let waiting = pool.spawn_many((0..jobs).map(|_| || ()));
        block_on(stream.close());
        drop(opens);
        gate.open();
        busy.wait();
        waiting.into_iter().for_each(offthread::Job::wait);
    }
}

/// Forbids that a scope aborts the process when the iterator's `Drop` panics, and then that of the body's result.
#[test]
fn a_scope_survives_a_result_and_an_iterator_whose_drop_panics() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            quiet_panic("in drop");
        }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let make = || {
        let bomb = Bomb;
        (0..).inspect(move |_| _ = &bomb)
    };
    let body = async |items: &mut IteratorWrapper<i32>| {
        items.next().await;
        Bomb
    };
    let scope = threaded_iterable(make).on(&pool).max_size(1).scope(body);
    assert!(catch_unwind(AssertUnwindSafe(|| block_on(scope))).is_err());
}

/// Forbids that a consumer's waker that panics keeps a close from reaching the iterator.
#[test]
fn a_close_survives_the_panic_of_the_consumers_waker() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            quiet_panic("on purpose");
        }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for drops in [false, true] {
        let (begin, begun) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let make = move || {
            begin.send(()).unwrap();
            end.send(wait_cancelled(Duration::MAX)).unwrap();
            0..1
        };
        let mut stream = threaded_iterable(make).on(&pool);
        let waker = Waker::from(Arc::new(Panics));
        assert!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(&waker)).is_pending());
        begun.recv().unwrap();
        if drops {
            drop(stream);
        } else {
            block_on(stream.close());
        }
        assert_eq!(ended.recv(), Ok(true));
    }
}
