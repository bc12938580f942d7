//! Iterables: iterators that misbehave, and scopes.

use crate::helpers::iterables::*;
use crate::{LONG, caught};
use offthread::{ThreadPool, block_on, threaded_iterable, timeout};
use std::future::poll_fn;
use std::iter::Empty;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::task::Poll;

/// crossbeam 1300: forbids that an iterable whose buffer cannot be allocated is leaked, or hangs when it is closed.
#[test]
fn an_iterable_whose_buffer_cannot_be_allocated_can_be_closed() {
    const TOO_MANY: usize = usize::MAX / 2;
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        let value = Arc::new(());
        let inside = value.clone();
        let make = move || (0..5_u64).inspect(move |_| _ = &inside);
        let mut items = kind.stream(&pool, make).max_size(TOO_MANY);
        block_on(async {
            let first = poll_fn(|cx| {
                let next = AssertUnwindSafe(|| Pin::new(&mut items).poll_next(cx).is_ready());
                Poll::Ready(catch_unwind(next))
            });
            let payload = first.await.expect_err("the buffer was allocated");
            assert_says(text(&*payload), &TOO_MANY.to_string());
            timeout(LONG, async { items.close().await }).await.unwrap();
        });
        drop(items);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}

/// futures-concurrency 120, futures-rs 1567: forbids that an iterator is called again after its end, or asked for its
/// size.
#[test]
fn an_iterator_is_not_called_after_its_end() {
    struct Unfused(Arc<AtomicU32>);
    impl Iterator for Unfused {
        type Item = u32;
        fn next(&mut self) -> Option<u32> {
            let number = self.0.fetch_add(1, SeqCst);
            (number != 2).then_some(number)
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            quiet_panic("the hint may be wrong")
        }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        for max_size in [1, 2, 3, 100] {
            let calls = Arc::new(AtomicU32::new(0));
            let unfused = Unfused(calls.clone());
            let mut items = kind.stream(&pool, || unfused).max_size(max_size);
            assert_eq!(take_all(&mut items), [0, 1]);
            assert_eq!((take(&mut items), take(&mut items)), (None, None));
            block_on(items.close());
            assert_eq!(calls.load(SeqCst), 3);
        }
    }
}

/// futures-concurrency 120: forbids that a panic in `into_iter` is lost.
#[test]
fn a_panic_in_into_iter_is_not_lost() {
    struct Bad;
    impl IntoIterator for Bad {
        type Item = u8;
        type IntoIter = Empty<u8>;
        fn into_iter(self) -> Self::IntoIter {
            quiet_panic("into_iter")
        }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    for kind in BOTH {
        assert_eq!(assert_panics_once(&mut kind.stream(&pool, || Bad)), "into_iter");
    }
}

/// No report: forbids that two nested scopes leave an iterable open when a body exchanges their iterables.
#[test]
fn scopes_may_exchange_their_iterables() {
    let _watchdog = watchdog();
    let value = Arc::new(());
    let stream = |first: u32| {
        let value = value.clone();
        threaded_iterable(move || (first..).inspect(move |_| _ = &value)).max_size(3)
    };
    let (a, b) = (stream(0), stream(100));
    let seen = block_on(a.scope(async |a| {
        let first = a.next().await;
        let inner = b.scope(async |b| {
            let other = b.next().await;
            mem::swap(a, b);
            (other, b.next().await)
        });
        let inner = inner.await;
        (first, inner, a.next().await)
    }));
    assert_eq!(seen, (Some(0), (Some(100), Some(1)), Some(101)));
    assert_eq!(Arc::strong_count(&value), 1);
}

/// A worker that joins itself: forbids that an iterator that closes the pool in which it runs waits for itself, in
/// `next` or in its `Drop`.
#[test]
fn an_iterator_may_close_its_pool() {
    let _watchdog = watchdog();
    for close in crate::CLOSE {
        for in_drop in [false, true] {
            let (pool, closed) = (ThreadPool::new(1), Gate::default());
            let (inside, has_closed) = (pool.clone(), closed.clone());
            let mut closes = Some(on_drop(move || {
                close(&inside);
                has_closed.open();
            }));
            let make = move || {
                (1..5).inspect(move |number| {
                    if *number == 2 && !in_drop {
                        drop(closes.take());
                    }
                })
            };
            let mut items = Kind::Pool.stream(&pool, make);
            assert_eq!(take(&mut items), Some(1));
            closed.pass();
            // The rest may be missing; then `next` panics.
            let _ = block_on(async { caught(async { while items.next().await.is_some() {} }).await });
            block_on(items.close());
            pool.shutdown();
        }
    }
}
