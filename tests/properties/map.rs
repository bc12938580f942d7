//! Random programs on `ThreadPool::map`, compared with a plain `Iterator::map`.

#![forbid(unsafe_code)]

use crate::helpers::iterables::*;
use offthread::{Map, ThreadPool, block_on};
use proptest::collection::vec;
use proptest::prelude::*;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;
use std::vec;

/// How one item ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Value,
    /// A value that takes a while.
    Slow,
    /// The function panics.
    Panic,
    /// The items' iterator panics instead of giving this item.
    NoItem,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![10 => Just(Fate::Value), 2 => Just(Fate::Slow), 3 => Just(Fate::Panic), 1 => Just(Fate::NoItem)]
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Next,
    /// `next` on another thread.
    NextElsewhere,
    /// Polls `next` once and drops it.
    NextOnce,
    /// Polls the map once.
    Poll,
    /// Polls the map until it is ready, each time after its waker has been woken.
    PollUntilReady,
    /// Waits until no job runs.
    Pause,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Next),
        2 => Just(Step::NextElsewhere),
        6 => Just(Step::NextOnce),
        4 => Just(Step::Poll),
        6 => Just(Step::PollUntilReady),
        2 => Just(Step::Pause),
    ]
}

#[derive(Clone, Copy, Debug)]
enum End {
    Drop,
    DropElsewhere,
    /// Takes all remaining results.
    Run,
    /// The same, in blocking code.
    Wait,
    /// Shuts the pool down, and takes the remaining results.
    Shutdown,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        2 => Just(End::Drop),
        1 => Just(End::DropElsewhere),
        3 => Just(End::Run),
        2 => Just(End::Wait),
        2 => Just(End::Shutdown),
    ]
}

thread_local! {
    /// Whether this thread is asking the map for a result.
    static ASKS: Cell<bool> = const { Cell::new(false) };
}

/// The records of the iterator, the function and the consumer.
#[derive(Default)]
struct Record {
    max_size: usize,
    /// How many items the iterator has given, or has panicked in place of.
    given: AtomicUsize,
    /// How many jobs have started. The job of a missing item counts as soon as the iterator panics.
    started: AtomicUsize,
    /// How many results have been taken.
    taken: AtomicUsize,
    /// How often one of these rules was broken. Only the consumer calls the iterator, only if there is room, and not
    /// after the iterator's end. At most `max_size` jobs have started whose results have not been taken.
    broken: AtomicUsize,
}

impl Record {
    fn in_flight(&self, count: &AtomicUsize) -> usize {
        count.load(SeqCst) - self.taken.load(SeqCst)
    }

    fn check(&self, rule: bool) {
        self.broken.fetch_add(usize::from(!rule), SeqCst);
    }
}

/// An item, and then the result of its job.
struct Item {
    number: usize,
    fate: Fate,
    record: Arc<Record>,
}

struct Items {
    fates: vec::IntoIter<Fate>,
    number: usize,
    has_ended: bool,
    record: Arc<Record>,
}

impl Iterator for Items {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let record = &self.record;
        record.check(ASKS.get() && !self.has_ended && record.in_flight(&record.given) < record.max_size);
        let Some(fate) = self.fates.next() else {
            self.has_ended = true;
            return None;
        };
        let number = self.number;
        self.number += 1;
        record.given.fetch_add(1, SeqCst);
        if fate == Fate::NoItem {
            record.started.fetch_add(1, SeqCst);
            resume_unwind(Box::new(NoItem(number)));
        }
        Some(Item { number, fate, record: record.clone() })
    }
}

/// The payload of the iterator's panic, with the number of the missing item. The payload of the function's panic is the
/// item's number.
struct NoItem(usize);

fn function(item: Item) -> Item {
    let record = &item.record;
    record.started.fetch_add(1, SeqCst);
    record.check(record.in_flight(&record.started) <= record.max_size);
    match item.fate {
        Fate::Slow => thread::sleep(Duration::from_micros(300)),
        Fate::Panic => resume_unwind(Box::new(item.number)),
        Fate::Value | Fate::NoItem => {}
    }
    item
}

type Program = Map<Items, fn(Item) -> Item, Item>;

/// Asks the map for a result. A panic is the error.
fn ask<R>(map: &mut Program, ask: impl FnOnce(&mut Program) -> R) -> Result<R, Box<dyn Any + Send>> {
    ASKS.set(true);
    let answer = catch_unwind(AssertUnwindSafe(|| ask(map)));
    ASKS.set(false);
    answer
}

/// The model, a plain `map`: the results that should still come.
struct Expected {
    unordered: bool,
    record: Arc<Record>,
    /// The numbers and fates of the items whose results should still come, in order.
    results: Vec<(usize, Fate)>,
    /// The pool has been shut down: jobs may be cancelled.
    closed: bool,
    /// In an unordered map: how many of the `results` will not come, because their jobs were cancelled.
    cancelled: usize,
    is_over: bool,
}

impl Expected {
    fn new(fates: &[Fate], unordered: bool, record: &Arc<Record>) -> Self {
        let results = fates.iter().copied().enumerate().collect();
        Self { unordered, record: record.clone(), results, closed: false, cancelled: 0, is_over: false }
    }

    /// Compares an answer. Returns false if the answer is `Pending`.
    fn check(&mut self, answer: Result<Poll<Option<Item>>, Box<dyn Any + Send>>) -> Result<bool, TestCaseError> {
        match answer {
            Ok(Poll::Pending) => {
                prop_assert!(!self.is_over, "pending after the end");
                return Ok(false);
            }
            Ok(Poll::Ready(None)) => {
                prop_assert_eq!(self.results.len(), self.cancelled);
                self.is_over = true;
            }
            Ok(Poll::Ready(Some(item))) => self.check_result(item.number, &[Fate::Value, Fate::Slow])?,
            Err(panic) if panic.is::<NoItem>() => {
                self.check_result(panic.downcast::<NoItem>().unwrap().0, &[Fate::NoItem])?;
            }
            Err(panic) if panic.is::<usize>() => self.check_result(*panic.downcast().unwrap(), &[Fate::Panic])?,
            // A job was cancelled. An unordered map does not tell which.
            Err(panic) => {
                prop_assert!(self.closed && !self.results.is_empty(), "{}", text(&*panic));
                if self.unordered {
                    self.cancelled += 1;
                } else {
                    self.results.remove(0);
                }
                self.record.taken.fetch_add(1, SeqCst);
            }
        }
        Ok(true)
    }

    /// The result for the item of this number, or the panic in its place, has come. `fates`: the fates for which this
    /// answer is right.
    fn check_result(&mut self, number: usize, fates: &[Fate]) -> Result<(), TestCaseError> {
        // The jobs in flight are the first entries of `results`.
        let in_flight = self.record.in_flight(&self.record.given);
        let first = if self.unordered { in_flight + self.cancelled } else { 1 };
        let at = self.results.iter().take(first).position(|expected| expected.0 == number);
        let Some(at) = at else {
            return Err(TestCaseError::fail(format!("{number} came twice, or at the wrong place")));
        };
        let (_, fate) = self.results.remove(at);
        prop_assert!(fates.contains(&fate));
        self.record.taken.fetch_add(1, SeqCst);
        Ok(())
    }
}

fn poll(map: &mut Program, waker: &Waker) -> Poll<Option<Item>> {
    Pin::new(map).poll_next(&mut Context::from_waker(waker))
}

fn take(map: &mut Program) -> Result<Poll<Option<Item>>, Box<dyn Any + Send>> {
    ask(map, |map| Poll::Ready(block_on(map.next())))
}

fn run(map: &mut Program, expected: &mut Expected, pool: &ThreadPool, step: Step) -> Result<(), TestCaseError> {
    match step {
        Step::Next => _ = expected.check(take(map))?,
        Step::NextElsewhere => _ = expected.check(thread::scope(|scope| scope.spawn(|| take(map)).join().unwrap()))?,
        Step::NextOnce => {
            let witness = Witness::default();
            expected.check(ask(map, |map| witness.poll(Box::pin(map.next()))))?;
            // A thread that is waking the waker may still own it.
            witness.wait_until_none_is_kept();
        }
        Step::Poll => _ = expected.check(ask(map, |map| poll(map, Waker::noop())))?,
        Step::PollUntilReady => loop {
            let witness = Witness::default();
            if expected.check(ask(map, |map| poll(map, &witness.waker())))? {
                break;
            }
            witness.wait();
        },
        Step::Pause => until("no job runs", || running_now(&pool.stats()) == 0),
    }
    Ok(())
}

proptest! {
    // No regression files: a failing case is printed, and can be turned into a test.
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Forbids a result or a panic that is lost, doubled, or out of order; a consumer that is not woken; an iterator
    /// that is called without room, by another thread, or after its end; more than `max_size` jobs in flight; and an
    /// item that is never dropped.
    #[test]
    fn random_programs_agree_with_a_plain_map(
        threads in 1..4_usize,
        unordered in any::<bool>(),
        max_size in 1..8_usize,
        fates in vec(fate(), 0..40),
        steps in vec(step(), 0..40),
        end in end(),
    ) {
        let _watchdog = watchdog();
        let pool = ThreadPool::new(threads);
        let record = Arc::new(Record { max_size, ..Record::default() });
        let mut expected = Expected::new(&fates, unordered, &record);
        let items = Items { fates: fates.into_iter(), number: 0, has_ended: false, record: record.clone() };
        let mut map = pool.map(items, function as fn(Item) -> Item).max_size(max_size);
        if unordered {
            map = map.unordered();
        }
        prop_assert_eq!(pool.stats().submitted, 0);
        for step in steps {
            run(&mut map, &mut expected, &pool, step)?;
            prop_assert_eq!(record.broken.load(SeqCst), 0);
        }
        match end {
            End::Drop => drop(map),
            End::DropElsewhere => thread::spawn(|| drop(map)).join().unwrap(),
            End::Run | End::Shutdown => {
                if matches!(end, End::Shutdown) {
                    pool.shutdown();
                    expected.closed = true;
                }
                while !expected.is_over {
                    expected.check(take(&mut map))?;
                }
                drop(map);
            }
            End::Wait => {
                let mut results = map.wait();
                while !expected.is_over {
                    ASKS.set(true);
                    let answer = catch_unwind(AssertUnwindSafe(|| Poll::Ready(results.next())));
                    ASKS.set(false);
                    expected.check(answer)?;
                }
            }
        }
        // The test and `expected` own the record; an item that was not dropped would own it too.
        until("everything is dropped", || Arc::strong_count(&record) == 2);
        until("no job is left", || running_now(&pool.stats()) == 0);
        assert_at_rest(&pool);
        prop_assert_eq!(record.broken.load(SeqCst), 0);
        prop_assert_eq!(pool.stats().submitted, record.given.load(SeqCst) as u64);
    }
}
