//! Models of `src/pool/map.rs`: each result comes once, whatever the jobs and the consumer do meanwhile. If the map is
//! ordered, the results come in the order of the items.

mod common;

use common::{CountingWaker, Note, model_with, poll_once};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::thread::{self, ThreadId};
use offthread::internals::block_on;
use offthread::{ContextVar, Map, ThreadPool, oneshot};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc as StdArc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// These models have many steps: with three preemptions they take minutes.
fn model(check: impl Fn() + Send + Sync + 'static) {
    model_with(2, check);
}

/// Explores a model for each kind of map. The argument of `check` says whether the map is unordered.
fn both(check: impl Fn(bool) + Copy + Send + Sync + 'static) {
    for unordered in [false, true] {
        model(move || check(unordered));
    }
}

/// A map of at most `max_size` jobs.
fn map<F>(pool: &ThreadPool, unordered: bool, max_size: usize, items: Vec<usize>, function: F) -> Numbers<F>
where
    F: Fn(usize) -> usize + Send + Sync + 'static,
{
    let map = pool.map(items, function).max_size(max_size);
    if unordered { map.unordered() } else { map }
}

type Numbers<F> = Map<std::vec::IntoIter<usize>, F, usize>;

fn poll_now<F>(map: &mut Numbers<F>, waker: &Waker) -> Poll<Option<usize>>
where
    F: Fn(usize) -> usize + Send + Sync + 'static,
{
    Pin::new(map).poll_next(&mut Context::from_waker(waker))
}

/// Forbids: a result comes as the consumer registers its waker, and the consumer sleeps on; or a result comes out of
/// order, twice, or never.
#[test]
fn map_one_by_one() {
    both(|unordered| {
        let pool = ThreadPool::new(1);
        let mut map = map(&pool, unordered, 1, vec![1, 2], |n| n);
        assert_eq!(block_on(map.next()), Some(1));
        assert_eq!(block_on(map.next()), Some(2));
        assert_eq!(block_on(map.next()), None);
    });
}

/// Forbids: one job reports as the consumer takes the result of the other job, and the consumer sleeps on.
#[test]
fn map_two_reports() {
    both(|unordered| {
        let pool = ThreadPool::new(2);
        let mut map = map(&pool, unordered, 2, vec![1, 2], |n| n);
        let results = [block_on(map.next()), block_on(map.next())];
        if unordered {
            assert!(results == [Some(1), Some(2)] || results == [Some(2), Some(1)]);
        } else {
            assert_eq!(results, [Some(1), Some(2)]);
        }
        assert_eq!(block_on(map.next()), None);
    });
}

/// Forbids: a job is started while `max_size` results have not been taken. Only the map orders the two jobs' accesses
/// to the note.
#[test]
fn map_bounds_the_jobs() {
    both(|unordered| {
        let pool = ThreadPool::new(2);
        let note = Note::new();
        let function = move |n| {
            note.write();
            n
        };
        let mut map = map(&pool, unordered, 1, vec![1, 2], function);
        assert_eq!(block_on(map.next()), Some(1));
        assert_eq!(block_on(map.next()), Some(2));
    });
}

/// Forbids: a job panics as the consumer starts to wait, and wakes nobody; or its panic comes out of order, or ends the
/// map.
#[test]
fn map_panic() {
    both(|unordered| {
        let pool = ThreadPool::new(1);
        let function = |n| if n == 1 { resume_unwind(Box::new("on purpose")) } else { n };
        let mut map = map(&pool, unordered, 1, vec![1, 2], function);
        let panic = catch_unwind(AssertUnwindSafe(|| block_on(map.next()))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
        assert_eq!(block_on(map.next()), Some(2));
        assert_eq!(block_on(map.next()), None);
    });
}

/// Forbids: a `next` is dropped as a result comes, and loses the result; or a `next` that is ready at its first poll
/// leaves its waker behind.
#[test]
fn map_next_dropped() {
    both(|unordered| {
        let pool = ThreadPool::new(1);
        let mut map = map(&pool, unordered, 1, vec![1], |n| n);
        let (polled, waker) = poll_once(&mut Box::pin(map.next()));
        if polled.is_pending() {
            assert_eq!(block_on(map.next()), Some(1));
        }
        pool.drain();
        assert_eq!(StdArc::strong_count(&waker), 1, "a waker was kept");
        assert_eq!(block_on(map.next()), None);
    });
}

/// Forbids: a `next` is dropped after its job has reported but before the job resolves, and leaves its waker with the
/// job; or the following `next` sleeps on when the job resolves. The job drops its context between the report and the
/// result; a value in that context blocks in its `Drop`, and so holds the job up there.
#[test]
fn map_next_dropped_after_the_report() {
    static HELD: ContextVar<StdArc<Holds>> = ContextVar::new();
    struct Holds(Arc<AtomicBool>, Mutex<Option<oneshot::Receiver<()>>>);
    impl Drop for Holds {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
            let gone = self.1.lock().unwrap().take();
            gone.unwrap().recv_blocking().unwrap();
        }
    }
    both(|unordered| {
        let pool = ThreadPool::new(1);
        let is_held = Arc::new(AtomicBool::new(false));
        let (go, gone) = oneshot::channel();
        let holds = Mutex::new(Some(StdArc::new(Holds(is_held.clone(), Mutex::new(Some(gone))))));
        let function = move |n| {
            HELD.set(holds.lock().unwrap().take().unwrap());
            n
        };
        let mut map = map(&pool, unordered, 1, vec![1], function);
        assert!(poll_now(&mut map, Waker::noop()).is_pending());
        while !is_held.load(Relaxed) {
            thread::yield_now();
        }
        let (polled, waker) = poll_once(&mut Box::pin(map.next()));
        assert!(polled.is_pending());
        assert_eq!(StdArc::strong_count(&waker), 1, "a waker was kept");
        go.send(()).unwrap();
        assert_eq!(block_on(map.next()), Some(1));
    });
}

/// Forbids: a map that is dropped as a result comes, or while its jobs wait or run, leaks an item, a result or its
/// waker, or accesses freed memory.
#[test]
fn map_dropped() {
    both(|unordered| {
        let item = Arc::new(());
        let pool = ThreadPool::new(1);
        let mut map = pool.map([item.clone(), item.clone()], |item| item).max_size(2);
        if unordered {
            map = map.unordered();
        }
        let (wakes, waker) = CountingWaker::new();
        drop(Pin::new(&mut map).poll_next(&mut Context::from_waker(&waker)));
        drop((map, waker));
        pool.drain();
        assert_eq!(Arc::strong_count(&item), 1);
        assert_eq!(StdArc::strong_count(&wakes), 1, "a waker was kept");
    });
}

/// Forbids: dropping a map cancels a queued job, and this wakes the task that drops the map. (A job that reports
/// meanwhile may wake that task from the job's own thread.)
#[test]
fn map_dropped_in_its_task() {
    /// Counts the wakes by one thread.
    struct Own(ThreadId, Mutex<usize>);
    impl Wake for Own {
        fn wake(self: StdArc<Self>) {
            *self.1.lock().unwrap() += usize::from(self.0 == thread::current().id());
        }
    }
    both(|unordered| {
        let pool = ThreadPool::new(1);
        let mut map = map(&pool, unordered, 2, vec![1, 2], |n| n);
        let own = StdArc::new(Own(thread::current().id(), Mutex::new(0)));
        let _ = poll_now(&mut map, &own.clone().into());
        // A registration that meets a wake wakes its own waker, so the count can be above zero.
        let before = *own.1.lock().unwrap();
        drop(map);
        assert_eq!(*own.1.lock().unwrap(), before, "woken by the thread that drops the map");
    });
}

/// Forbids: the pool is shut down as the consumer waits for a result, and the consumer sleeps on; or a result that was
/// computed is lost.
#[test]
fn map_shutdown() {
    both(|unordered| {
        let pool = ThreadPool::new(1);
        let ran = StdArc::new(Mutex::new(0));
        let function = {
            let ran = ran.clone();
            move |n| {
                *ran.lock().unwrap() += n;
                n
            }
        };
        let mut map = map(&pool, unordered, 1, vec![1], function);
        let closing = thread::spawn(move || pool.shutdown());
        match catch_unwind(AssertUnwindSafe(|| block_on(map.next()))) {
            Ok(result) => assert_eq!(result, Some(1)),
            Err(_) => assert_eq!(*ran.lock().unwrap(), 0, "the job has run"),
        }
        assert_eq!(block_on(map.next()), None);
        closing.join().unwrap();
    });
}
