//! Helpers of the iterables' test binaries.

pub use super::common::Witness;
pub use super::event_loop::{
    Foreign, assert_says, elsewhere, hold as never_ending, panic_in, panic_of, quiet_panic, until as turn_until,
};
pub use super::pool::*;

use offthread::spsc::SendError;
use offthread::{IteratorWrapper, ThreadPool, Yielder, block_on, threaded_generator, threaded_generator_separate};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};

// --- streams --------------------------------------------------------------------------------------------------------

/// Where the iterator runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Pool,
    Separate,
}

pub const BOTH: [Kind; 2] = [Kind::Pool, Kind::Separate];

impl Kind {
    pub fn stream<F, I>(self, pool: &ThreadPool, make: F) -> IteratorWrapper<I::Item>
    where
        F: FnOnce() -> I + Send + 'static,
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
    {
        match self {
            Kind::Pool => IteratorWrapper::new(make).on(pool),
            Kind::Separate => IteratorWrapper::separate(make),
        }
    }
}

pub fn poll_once<T: Send + 'static>(stream: &mut IteratorWrapper<T>) -> Poll<Option<T>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop()))
}

/// Blocks for the next item.
pub fn take<T: Send + 'static>(stream: &mut IteratorWrapper<T>) -> Option<T> {
    block_on(stream.next())
}

/// Blocks for all remaining items.
pub fn take_all<T: Send + 'static>(stream: &mut IteratorWrapper<T>) -> Vec<T> {
    std::iter::from_fn(|| take(stream)).collect()
}

/// Asserts that `next` panics once and then reports the end. Returns the panic's message.
#[track_caller]
pub fn assert_panics_once<T: Send + 'static>(stream: &mut IteratorWrapper<T>) -> String {
    let said = panic_of(|| take(stream));
    for _ in 0..2 {
        assert!(take(stream).is_none());
        assert!(stream.is_closed());
    }
    said
}

/// A stream with a full buffer, from which no item has been taken. A pooled stream is paused, and all threads of its
/// pool are idle; a separate stream is blocked.
pub fn filled(kind: Kind, pool: &ThreadPool, max_size: usize) -> (IteratorWrapper<Item>, Watch) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let (watch, start) = (Watch::default(), Gate::default());
    let inside = start.clone();
    let mut stream = watch.stream(kind, pool, move |numbers| {
        inside.pass();
        numbers
    });
    let name = format!("ht-full{}-", NUMBER.fetch_add(1, Ordering::SeqCst));
    if kind == Kind::Separate {
        stream = stream.name(name.clone());
    }
    stream = stream.max_size(max_size);
    assert!(poll_once(&mut stream).is_pending());
    start.open();
    until("the buffer is full", || watch.calls() >= max_size);
    match kind {
        Kind::Pool => until("the stream is paused", || all_are_idle(pool)),
        #[cfg(target_os = "linux")]
        Kind::Separate => until("the stream is blocked", || {
            let status =
                |thread: std::path::PathBuf| std::fs::read_to_string(thread.join("status")).unwrap_or_default();
            threads_named(&name).into_iter().any(|thread| status(thread).contains("State:\tS"))
        }),
        #[cfg(not(target_os = "linux"))]
        Kind::Separate => {}
    }
    (stream, watch)
}

pub fn all_are_idle(pool: &ThreadPool) -> bool {
    let stats = pool.stats();
    stats.idle == stats.threads
}

// --- watched iterators ----------------------------------------------------------------------------------------------

/// Watches an iterator: whether it was made, how many items it made, where it was dropped, and which items were
/// dropped.
#[derive(Clone, Default)]
pub struct Watch(Arc<Seen>);

#[derive(Default)]
struct Seen {
    makes: AtomicUsize,
    calls: AtomicUsize,
    /// The numbers of the dropped items.
    dropped: Mutex<Vec<usize>>,
    ends: Mutex<Vec<Place>>,
}

/// A thread's id and name.
pub type Place = (ThreadId, String);

pub fn here() -> Place {
    (thread::current().id(), own_name())
}

impl Watch {
    /// A stream whose iterator `make` builds from the endless `0, 1, 2, ...`.
    pub fn stream<F, I>(&self, kind: Kind, pool: &ThreadPool, make: F) -> IteratorWrapper<I::Item>
    where
        F: FnOnce(Numbers) -> I + Send + 'static,
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
    {
        let watch = self.clone();
        kind.stream(pool, move || make(watch.numbers()))
    }

    /// Makes the iterator. A watch makes at most one.
    pub fn numbers(&self) -> Numbers {
        self.0.makes.fetch_add(1, Ordering::SeqCst);
        Numbers { watch: self.clone(), bomb: false }
    }

    /// How often the iterator was made.
    pub fn makes(&self) -> usize {
        self.0.makes.load(Ordering::SeqCst)
    }

    /// How often `next` was called: the number of items that were made, or are being made.
    pub fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// The thread that dropped the iterator, if the iterator was dropped.
    #[track_caller]
    pub fn end(&self) -> Option<Place> {
        let ends = self.0.ends.lock().unwrap();
        assert!(ends.len() <= 1, "dropped twice");
        ends.first().cloned()
    }

    /// Waits until all items have been dropped, and also the iterator (or the closure that would make it). Asserts that
    /// each item and the iterator were dropped once.
    #[track_caller]
    pub fn wait_for_the_end(&self) {
        until("everything is dropped", || Arc::strong_count(&self.0) == 1);
        assert!(self.makes() <= 1);
        assert!(self.end().is_some() || self.calls() == 0);
        let mut dropped = self.0.dropped.lock().unwrap().clone();
        dropped.sort_unstable();
        assert!(dropped.into_iter().eq(0..self.calls()), "each item is dropped once");
    }
}

/// Yields `0, 1, 2, ...` without end.
pub struct Numbers {
    watch: Watch,
    bomb: bool,
}

impl Numbers {
    /// Makes its `Drop` panic.
    pub fn bomb(mut self) -> Self {
        self.bomb = true;
        self
    }
}

impl Iterator for Numbers {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let number = self.watch.0.calls.fetch_add(1, Ordering::SeqCst);
        Some(Item { number, bomb: false, watch: self.watch.clone() })
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        self.watch.0.ends.lock().unwrap().push(here());
        if self.bomb {
            // Silent, unlike `panic!`.
            resume_unwind(Box::new("the iterator's end"));
        }
    }
}

pub struct Item {
    pub number: usize,
    bomb: bool,
    watch: Watch,
}

impl Item {
    /// Makes its `Drop` panic.
    pub fn armed(mut self) -> Self {
        self.bomb = true;
        self
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.watch.0.dropped.lock().unwrap().push(self.number);
        if self.bomb {
            resume_unwind(Box::new("the item's end"));
        }
    }
}

#[track_caller]
pub fn numbers(items: Vec<Item>) -> Vec<usize> {
    items.into_iter().map(|item| item.number).collect()
}

/// The return type of a generator's body.
pub type Put<T> = Result<(), SendError<T>>;

impl Kind {
    pub fn generator<T, F>(self, pool: &ThreadPool, body: F) -> IteratorWrapper<T>
    where
        F: FnOnce(&mut Yielder<T>) -> Put<T> + Send + 'static,
        T: Send + 'static,
    {
        match self {
            Kind::Pool => threaded_generator(body).on(pool),
            Kind::Separate => threaded_generator_separate(body),
        }
    }
}
