//! Models of `src/iterable/` and `src/pool/stream.rs`. Every item arrives once and in order; the iterator is dropped
//! once, before the consumer sees the end; and no thread waits for ever.

mod common;

use common::{Drops, Note, model_with};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;
use offthread::internals::block_on;
use offthread::{
    IteratorWrapper, ThreadPool, Yielder, is_cancelled, oneshot, spsc, threaded_generator, threaded_generator_separate,
};
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// These models have many steps: with three preemptions they take minutes.
fn model(check: impl Fn() + Send + Sync + 'static) {
    model_with(2, check);
}

/// Yields `0..end`; its `Drop` writes the note.
struct Count {
    next: usize,
    end: usize,
    dropped: Note,
}

impl Iterator for Count {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.next += 1;
        (self.next <= self.end).then_some(self.next - 1)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.dropped.write();
    }
}

fn count(end: usize, dropped: &Note) -> impl FnOnce() -> Count + Send + use<> {
    let dropped = dropped.clone();
    move || Count { next: 0, end, dropped }
}

/// Reads a counting stream to its end, checks the order, and returns the number of items.
fn read(mut items: IteratorWrapper<usize>) -> usize {
    let mut seen = 0;
    while let Some(item) = block_on(items.next()) {
        assert_eq!(item, seen);
        seen += 1;
    }
    seen
}

/// An iterable with a buffer for one item, whose consumer has taken the first item: the stream makes the next item, is
/// about to pause, or has paused.
fn started(pool: &ThreadPool, dropped: &Note) -> IteratorWrapper<usize> {
    let mut items = IteratorWrapper::new(count(9, dropped)).on(pool).max_size(1);
    assert_eq!(block_on(items.next()), Some(0));
    items
}

/// Takes the remaining items, and asserts that one panic follows, and then the end.
fn assert_cut_off(mut items: IteratorWrapper<usize>) {
    let end = catch_unwind(AssertUnwindSafe(|| while block_on(items.next()).is_some() {}));
    assert!(end.is_err());
    assert_eq!(block_on(items.next()), None);
}

/// A flag that threads wait for in a spin loop: in a blocking call of this crate, the pool would start a spare thread.
#[derive(Clone, Default)]
struct Flag(Arc<AtomicUsize>);

impl Flag {
    fn set(&self) {
        self.0.store(1, Relaxed);
    }

    /// Returns a closure that waits for the flag.
    fn waiter(&self) -> impl FnOnce() + Send + use<> {
        let flag = self.0.clone();
        move || {
            while flag.load(Relaxed) == 0 {
                thread::yield_now();
            }
        }
    }
}

/// Forbids: in a buffer for one item, an item is lost, doubled or out of order; or the consumer sees the end before the
/// iterator has been dropped.
#[test]
fn lockstep() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        assert_eq!(read(IteratorWrapper::new(count(2, &dropped)).on(&pool).max_size(1)), 2);
        assert!(dropped.is_written());
        assert_eq!(pool.stats().submitted, 0);
    });
}

/// The same for an iterator on a separate thread.
#[test]
fn separate_lockstep() {
    model(|| {
        let dropped = Note::new();
        assert_eq!(read(IteratorWrapper::separate(count(2, &dropped)).max_size(1)), 2);
        assert!(dropped.is_written());
    });
}

/// Forbids: the consumer takes an item just as the stream pauses on a full buffer, and nobody resumes the stream.
#[test]
fn pause_take() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        assert_eq!(read(IteratorWrapper::new(count(3, &dropped)).on(&pool).max_size(2)), 3);
    });
}

/// Forbids: a stream finds room again just as it is about to pause, and keeps its thread although a job is queued.
#[test]
fn gives_way_when_there_is_room_again() {
    model(|| {
        let pool = ThreadPool::new(1);
        let (sender, seen) = oneshot::channel();
        let mut items = IteratorWrapper::new({
            let pool = pool.clone();
            move || {
                let made = Arc::new(AtomicUsize::new(0));
                let mut sender = Some(sender);
                iter::repeat_with(move || {
                    made.fetch_add(1, Relaxed);
                    if let Some(sender) = sender.take() {
                        let made = made.clone();
                        pool.spawn(move || sender.send(made.load(Relaxed)).unwrap()).detach();
                    }
                })
            }
        });
        items = items.on(&pool).max_size(1);
        assert_eq!(block_on(items.next()), Some(()));
        assert_eq!(block_on(seen), Ok(1));
        block_on(items.close());
    });
}

/// Forbids: a close that comes as the stream pauses waits for ever, or returns before the iterator has been dropped.
#[test]
fn close_pause() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let mut items = started(&pool, &dropped);
        block_on(items.close());
        assert!(dropped.is_written());
        assert_eq!(block_on(items.next()), None);
    });
}

/// The same while a job occupies the pool's only thread until the close has returned.
#[test]
fn close_pause_while_all_are_busy() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let mut items = started(&pool, &dropped);
        let closed = Flag::default();
        let busy = pool.spawn(closed.waiter());
        block_on(items.close());
        assert!(dropped.is_written());
        closed.set();
        block_on(busy);
    });
}

/// Forbids: the turn of a closed stream is left to new threads, whose start hooks wait until the close has returned.
#[test]
fn close_pause_while_start_hooks_wait() {
    model_with(1, || {
        let dropped = Note::new();
        let (opens, gates): (Vec<_>, Vec<_>) = [(); 2].map(|()| oneshot::channel::<()>()).into_iter().unzip();
        let gates = Mutex::new(gates.into_iter().map(Some).chain([None]).collect::<Vec<_>>());
        // The hook of the first thread does not wait.
        let hook = move || {
            let gate = gates.lock().unwrap().pop().flatten();
            if let Some(gate) = gate {
                let _ = gate.recv_blocking();
            }
        };
        let pool = ThreadPool::builder().threads(1).on_thread_start(hook).build();
        let mut items = started(&pool, &dropped);
        let closed = Flag::default();
        let busy = pool.spawn(closed.waiter());
        block_on(items.close());
        assert!(dropped.is_written());
        closed.set();
        drop(opens);
        block_on(busy);
    });
}

/// Forbids: a close that comes right after the stream was resumed waits for ever, or returns before the iterator has
/// been dropped.
#[test]
fn close_resume() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let mut items = started(&pool, &dropped);
        // Takes the next item, if there is one, which resumes the stream.
        let _ = common::poll_once(&mut Box::pin(items.next()));
        block_on(items.close());
        assert!(dropped.is_written());
    });
}

/// Forbids: a close that comes as the iterator ends waits for ever, or returns before the iterator has been dropped.
#[test]
fn close_completion() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let mut items = IteratorWrapper::new(count(1, &dropped)).on(&pool).max_size(1);
        assert_eq!(block_on(items.next()), Some(0));
        block_on(items.close());
        assert!(dropped.is_written());
    });
}

/// Forbids: a close that comes while the first turn is queued, or begins, waits for ever; or the closure that makes the
/// iterator is dropped twice or never.
#[test]
fn close_queued() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let drops = Drops::default();
        let in_make = drops.value(0);
        let mut items = IteratorWrapper::new({
            let count = count(1, &dropped);
            move || {
                drop(in_make);
                count()
            }
        });
        items = items.on(&pool).max_size(1);
        let _ = common::poll_once(&mut Box::pin(items.next()));
        block_on(items.close());
        assert_eq!(drops.count(), 1);
        pool.drain();
    });
}

/// Forbids: a stream whose next turn is queued behind a job is closed, and the close waits for that job; or the stream
/// makes another item; or `drain` waits for a turn that no longer exists.
#[test]
fn close_queued_again() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let count = count(9, &dropped);
        let mut items = IteratorWrapper::new(|| count().inspect(|_| assert!(!is_cancelled()))).on(&pool).max_size(1);
        assert_eq!(block_on(items.next()), Some(0));
        let (started, has_started) = oneshot::channel();
        let closed = Flag::default();
        let wait = closed.waiter();
        let busy = pool.spawn(|| {
            started.send(()).unwrap();
            wait();
        });
        block_on(has_started).unwrap();
        // If the stream is paused, there is an item, and taking it resumes the stream.
        let _ = common::poll_once(&mut Box::pin(items.next()));
        block_on(items.close());
        assert!(dropped.is_written());
        closed.set();
        block_on(busy);
        pool.drain();
    });
}

/// Forbids: a stream is closed just as a worker ends a job and starts the stream's turn, and both the close and the
/// worker claim the turn, or neither does.
#[test]
fn close_as_a_worker_goes_on() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        // While the first job runs, the second job and the turn are submitted; the worker takes both from the queue at
        // once.
        let go = [(); 2].map(|()| Flag::default());
        let (started, has_started): (Vec<_>, Vec<_>) = [(); 2].map(|()| oneshot::channel()).into_iter().unzip();
        let mut has_started = has_started.into_iter();
        let mut jobs = go.iter().map(Flag::waiter).zip(started).map(|(wait, started)| {
            pool.spawn(move || {
                started.send(()).unwrap();
                wait();
            })
        });
        let first = jobs.next().unwrap();
        block_on(has_started.next().unwrap()).unwrap();
        let second = jobs.next().unwrap();
        let mut items = IteratorWrapper::new(count(9, &dropped)).on(&pool).max_size(1);
        let _ = common::poll_once(&mut Box::pin(items.next()));
        go[0].set();
        block_on(has_started.next().unwrap()).unwrap();
        go[1].set();
        // loom resumes a thread that has yielded only when every other thread has yielded or blocked.
        thread::yield_now();
        block_on(items.close());
        block_on(first);
        block_on(second);
        pool.drain();
    });
}

/// Forbids: a stream whose consumer keeps up goes on after its pool was closed by `drain`.
#[test]
fn drain_running() {
    model(|| {
        let pool = ThreadPool::new(1);
        let own = pool.clone();
        let count = count(3, &Note::new());
        let mut items = IteratorWrapper::new(move || {
            while !own.is_closed() {
                thread::yield_now();
            }
            count()
        });
        items = items.on(&pool).max_size(1);
        let _ = common::poll_once(&mut Box::pin(items.next()));
        let draining = thread::spawn(move || pool.drain());
        assert_eq!(block_on(items.next()), Some(0));
        let end = catch_unwind(AssertUnwindSafe(|| block_on(items.next())));
        assert!(end.is_err());
        draining.join().unwrap();
    });
}

/// Forbids: a job drains its own pool, and `drain` does not wait for a turn that is queued.
#[test]
fn drain_in_a_job() {
    model(|| {
        let pool = ThreadPool::new(1);
        let made = Arc::new(AtomicUsize::new(0));
        let queued = Flag::default();
        let job = pool.spawn({
            let (pool, wait, made) = (pool.clone(), queued.waiter(), made.clone());
            move || {
                wait();
                pool.drain();
                made.load(Relaxed)
            }
        });
        let mut items = IteratorWrapper::new({
            let made = made.clone();
            move || {
                made.store(1, Relaxed);
                [0]
            }
        });
        items = items.on(&pool);
        let _ = common::poll_once(&mut Box::pin(items.next()));
        queued.set();
        assert_eq!(block_on(job), 1);
    });
}

/// Forbids: a queued job is left to a worker that counts as searching but, since the pool was closed, first drops an
/// iterator whose `Drop` waits for that job.
#[test]
fn iterator_whose_drop_waits_for_the_next_job() {
    /// An iterator whose `Drop` waits for the flag.
    struct Waits(Flag);
    impl Iterator for Waits {
        type Item = usize;

        fn next(&mut self) -> Option<usize> {
            Some(0)
        }
    }
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.waiter()();
        }
    }
    model(|| {
        let pool = ThreadPool::new(2);
        let done = Flag::default();
        let mut items = IteratorWrapper::new({
            let done = done.clone();
            move || Waits(done)
        });
        items = items.on(&pool).max_size(1);
        assert_eq!(block_on(items.next()), Some(0));
        pool.spawn(move || done.set()).detach();
        pool.drain();
        drop(items);
    });
}

/// Forbids: a stream that is making an item as its pool shuts down makes one more, or its consumer sees a normal end.
#[test]
fn shutdown_stops() {
    model(|| {
        let pool = ThreadPool::new(1);
        let (started, has_started) = oneshot::channel();
        let made = Arc::new(AtomicUsize::new(0));
        let mut items = IteratorWrapper::new({
            let made = made.clone();
            move || {
                let mut started = Some(started);
                iter::repeat_with(move || {
                    started.take().into_iter().for_each(|started| started.send(()).unwrap());
                    while !is_cancelled() {
                        thread::yield_now();
                    }
                    made.fetch_add(1, Relaxed)
                })
            }
        });
        items = items.on(&pool);
        let _ = common::poll_once(&mut Box::pin(items.next()));
        block_on(has_started).unwrap();
        pool.shutdown();
        assert_eq!(made.load(Relaxed), 1);
        assert_cut_off(items);
    });
}

/// Forbids: the consumer is dropped while an item is being made, and an item is leaked, or `shutdown` waits for ever.
#[test]
fn drop_running() {
    model(|| {
        let drops = Drops::default();
        let pool = ThreadPool::new(1);
        let made = Arc::new(AtomicUsize::new(0));
        let mut items = IteratorWrapper::new({
            let (drops, made) = (drops.clone(), made.clone());
            move || {
                (0..2).map(move |number| {
                    made.fetch_add(1, Relaxed);
                    drops.value(number)
                })
            }
        });
        items = items.on(&pool).max_size(1);
        let _ = common::poll_once(&mut Box::pin(items.next()));
        drop(items);
        pool.shutdown();
        assert_eq!(drops.count(), made.load(Relaxed));
    });
}

/// Forbids: the iterator's code does not learn of the close, or does not see what the consumer wrote before the close.
#[test]
fn close_is_seen_inside() {
    model(|| {
        let pool = ThreadPool::new(1);
        let (started, has_started) = oneshot::channel();
        let before = Note::new();
        let mut items = IteratorWrapper::new({
            let before = before.clone();
            move || {
                started.send(()).unwrap();
                while !is_cancelled() {
                    thread::yield_now();
                }
                assert!(before.is_written());
                [0]
            }
        });
        items = items.on(&pool);
        let _ = common::poll_once(&mut Box::pin(items.next()));
        block_on(has_started).unwrap();
        before.write();
        block_on(items.close());
    });
}

/// Forbids: a stream that pauses as its pool shuts down stays paused for ever, or its consumer sees a normal end.
#[test]
fn shutdown_pause() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let items = started(&pool, &dropped);
        pool.shutdown();
        assert!(dropped.is_written());
        assert_cut_off(items);
    });
}

/// Forbids: two threads shut a pool down, and one returns while the other still drops the iterator of a paused stream.
#[test]
fn two_shutdowns_pause() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let _items = started(&pool, &dropped);
        let closing = thread::spawn({
            let pool = pool.clone();
            move || pool.shutdown()
        });
        pool.shutdown();
        assert!(dropped.is_written());
        closing.join().unwrap();
    });
}

/// Forbids: `drain` does not wait for a queued turn, or waits for ever for a paused stream.
#[test]
fn drain_queued() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let mut items = IteratorWrapper::new(count(9, &dropped)).on(&pool).max_size(1);
        let _ = common::poll_once(&mut Box::pin(items.next()));
        pool.drain();
        assert_eq!(pool.stats().threads, 0);
        // A paused stream ends when an item is taken.
        assert_cut_off(items);
        assert!(dropped.is_written());
    });
}

/// Forbids: closing a separate iterator waits for ever, whether the iterator waits for room or makes an item.
#[test]
fn separate_close() {
    model(|| {
        let dropped = Note::new();
        let mut items = IteratorWrapper::separate(count(9, &dropped)).max_size(1);
        assert_eq!(block_on(items.next()), Some(0));
        block_on(items.close());
        assert!(dropped.is_written());
    });
}

/// Forbids: a separate iterator goes on after its consumer was dropped, or leaks an item.
#[test]
fn separate_drop() {
    model(|| {
        let drops = Drops::default();
        let (ended, has_ended) = oneshot::channel::<()>();
        let made = Arc::new(AtomicUsize::new(0));
        let mut items = IteratorWrapper::separate({
            let (drops, made) = (drops.clone(), made.clone());
            move || {
                (0..).map(move |number| {
                    let _ended = &ended;
                    made.fetch_add(1, Relaxed);
                    drops.value(number)
                })
            }
        });
        items = items.max_size(1);
        let _ = common::poll_once(&mut Box::pin(items.next()));
        drop(items);
        block_on(has_ended).unwrap_err();
        assert_eq!(drops.count(), made.load(Relaxed));
    });
}

/// A body that puts the numbers `0..end`. A local of the body writes the note when it is dropped.
fn put(
    end: usize,
    dropped: &Note,
) -> impl FnOnce(&mut Yielder<usize>) -> Result<(), spsc::SendError<usize>> + Send + use<> {
    let count = count(end, dropped);
    move |out| count().try_for_each(|number| out.put(number))
}

/// Forbids: in a buffer for one item, an item that was put is lost, doubled or out of order; or the consumer sees the
/// end before the body has returned.
#[test]
fn generator_lockstep() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        assert_eq!(read(threaded_generator(put(2, &dropped)).on(&pool).max_size(1)), 2);
        assert!(dropped.is_written());
        assert_eq!(pool.stats().submitted, 0);
    });
}

/// The same for a generator on a separate thread.
#[test]
fn separate_generator_lockstep() {
    model(|| {
        let dropped = Note::new();
        assert_eq!(read(threaded_generator_separate(put(2, &dropped)).max_size(1)), 2);
        assert!(dropped.is_written());
    });
}

/// Forbids: the consumer takes items from a buffer for two while `put` adds others, and an item is lost or out of order.
#[test]
fn put_take() {
    // With two preemptions this takes ten seconds.
    model_with(1, || {
        assert_eq!(read(threaded_generator_separate(put(4, &Note::new())).max_size(2)), 4);
    });
}

/// Forbids: a close waits for ever for a `put` that waits for room, or returns before the body has returned.
#[test]
fn put_close() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let mut items = threaded_generator(put(9, &dropped)).on(&pool).max_size(1);
        assert_eq!(block_on(items.next()), Some(0));
        block_on(items.close());
        assert!(dropped.is_written());
        assert_eq!(block_on(items.next()), None);
    });
}

/// Forbids: the consumer is dropped while `put` waits for room, and `put` keeps waiting, or not as many items are
/// dropped as were made.
#[test]
#[allow(clippy::result_large_err, reason = "counted values are large")]
fn put_drop() {
    model(|| {
        let drops = Drops::default();
        let pool = ThreadPool::new(1);
        let made = Arc::new(AtomicUsize::new(0));
        let mut items = threaded_generator({
            let (drops, made) = (drops.clone(), made.clone());
            move |out| {
                (0..9).try_for_each(|number| {
                    made.fetch_add(1, Relaxed);
                    out.put(drops.value(number))
                })
            }
        });
        items = items.on(&pool).max_size(1);
        let _ = common::poll_once(&mut Box::pin(items.next()));
        drop(items);
        pool.drain();
        assert_eq!(drops.count(), made.load(Relaxed));
        assert!(made.load(Relaxed) <= 3);
    });
}

/// Forbids: a body panics while its consumer waits, and the consumer sees a normal end, or misses the item that was put
/// before the panic.
#[test]
fn generator_panic() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let body = put(1, &dropped);
        let mut items = threaded_generator(|out| {
            body(out).unwrap();
            std::panic::resume_unwind(Box::new("in the body"))
        });
        items = items.on(&pool).max_size(1);
        assert_eq!(block_on(items.next()), Some(0));
        let end = catch_unwind(AssertUnwindSafe(|| block_on(items.next())));
        assert_eq!(end.unwrap_err().downcast_ref(), Some(&"in the body"));
        assert!(dropped.is_written());
        assert_eq!(block_on(items.next()), None);
    });
}

/// Forbids: a shutdown waits for ever for a `put` that waits for room, or the consumer sees a normal end.
#[test]
fn put_shutdown() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let mut items = threaded_generator(put(9, &dropped)).on(&pool).max_size(1);
        assert_eq!(block_on(items.next()), Some(0));
        pool.shutdown();
        assert!(dropped.is_written());
        assert_cut_off(items);
    });
}

/// Forbids: the same for `drain`.
#[test]
fn put_drain() {
    model(|| {
        let dropped = Note::new();
        let pool = ThreadPool::new(1);
        let mut items = threaded_generator(put(9, &dropped)).on(&pool).max_size(1);
        let _ = common::poll_once(&mut Box::pin(items.next()));
        pool.drain();
        assert!(dropped.is_written());
        assert_cut_off(items);
    });
}

/// Forbids: `put` succeeds in a body that has seen its pool's shutdown, or the consumer sees a normal end.
#[test]
fn put_after_shutdown() {
    model(|| {
        let pool = ThreadPool::new(1);
        let (started, has_started) = oneshot::channel();
        let mut items = threaded_generator(|out| {
            started.send(()).unwrap();
            while !is_cancelled() {
                thread::yield_now();
            }
            assert_eq!(out.put(0), Err(spsc::SendError(0)));
            Ok(())
        });
        items = items.on(&pool);
        let _ = common::poll_once(&mut Box::pin(items.next()));
        block_on(has_started).unwrap();
        pool.shutdown();
        let end = catch_unwind(AssertUnwindSafe(|| block_on(items.next()))).unwrap_err();
        assert!(end.downcast_ref::<&str>().unwrap().contains("the pool of the iterable was closed"));
    });
}

/// Forbids: a generator whose consumer keeps up goes on after its pool was closed, or its consumer sees a normal end.
#[test]
fn put_in_a_closed_pool() {
    model(|| {
        let pool = ThreadPool::new(1);
        let own = pool.clone();
        let body = put(2, &Note::new());
        let mut items = threaded_generator(|out| {
            own.drain();
            drop(own);
            body(out)
        });
        items = items.on(&pool).max_size(1);
        assert_eq!(block_on(items.next()), Some(0));
        assert_cut_off(items);
    });
}
