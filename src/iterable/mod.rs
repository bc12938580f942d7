//! Blocking iterators as async streams.
//!
//! Items go through a bounded channel ([`spsc`]), whose receiver hands slots back by halves of the buffer. The end of
//! the iterator (its own end, a panic, or an error) is sent separately, and is read when the channel is empty and
//! closed. So a panic, or a closed pool, is never taken for the iterator's own end.
//!
//! The thread's side is in `source.rs`, and that of generators in `generator.rs`.
//!
//! # What can go wrong
//! * Producer and consumer wait for each other, with a buffer of one item: `lockstep`, `separate_lockstep`.
//! * The consumer closes, or is dropped, as an item is made: `separate_close`, `separate_drop`.
//! * The iterable is closed while its code waits for its cancellation: `close_is_seen_inside`.
#![forbid(unsafe_code)]

mod generator;
mod source;

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::{fmt, iter, mem, thread};

pub use crate::iterable::generator::{Yielder, threaded_generator, threaded_generator_separate};
use crate::iterable::source::{Make, MakeIter, Maker, Producer, first_panic};
use crate::pool::{ThreadPool, checked_name};
use crate::primitives::attempt::{Attempt, Watch};
use crate::primitives::join_error::{JoinError, catch_and_discard};
use crate::primitives::{parker, spsc};
use crate::sync::Mutex;
use crate::threaded::Place;

/// Makes a blocking iterator readable by async code: it runs in a thread, some items ahead of its consumer.
///
/// `make` is called on a thread of a pool. The iterator runs in that pool too, maybe on several threads in turn.
/// Nothing runs before the first item is asked for.
///
/// ```
/// use offthread::{block_on, threaded_iterable};
/// use std::io::{BufRead, BufReader};
/// use std::fs::File;
///
/// block_on(async {
///     let open = || BufReader::new(File::open("Cargo.toml").unwrap());
///     let mut lines = threaded_iterable(move || open().lines());
///     let mut bytes = 0;
///     while let Some(line) = lines.next().await {
///         bytes += line.unwrap().len();
///     }
///     assert!(bytes > 10);
/// });
/// ```
pub fn threaded_iterable<F, I>(make: F) -> IteratorWrapper<I::Item>
where
    F: FnOnce() -> I + Send + 'static,
    I: IntoIterator<IntoIter: Send + 'static, Item: Send + 'static>,
{
    IteratorWrapper::new(make)
}

/// Makes a blocking iterator readable by async code, in a thread of its own.
///
/// For an iterator that waits long for its next item: in a pool it would keep a thread from other jobs. This iterator
/// need not be `Send`, since it stays on its thread.
///
/// ```
/// use offthread::{block_on, threaded_iterable_separate};
/// use std::rc::Rc;
///
/// block_on(async {
///     let mut items = threaded_iterable_separate(|| [1, 2].into_iter().map({
///         let not_send = Rc::new(10);
///         move |item| item * *not_send
///     }));
///     assert_eq!(items.next().await, Some(10));
/// });
/// ```
pub fn threaded_iterable_separate<F, I>(make: F) -> IteratorWrapper<I::Item>
where
    F: FnOnce() -> I + Send + 'static,
    I: IntoIterator<IntoIter: 'static, Item: Send + 'static>,
{
    IteratorWrapper::separate(make)
}

/// How many items may be made ahead of the consumer, by default.
const MAX_SIZE: usize = 1024;

/// A blocking iterator that runs in a thread, and whose items async code reads. A [generator](threaded_generator()) is
/// one, too: what is said here of the iterator holds for the generator's body, unless the text mentions generators.
///
/// ```
/// use offthread::{IteratorWrapper, ThreadPool, block_on};
///
/// let pool = ThreadPool::new(1);
/// block_on(async {
///     let squares = IteratorWrapper::new(|| (0..).map(|n: u32| n * n));
///     let mut squares = squares.on(&pool).max_size(10);
///     assert_eq!(squares.next().await, Some(0));
///     assert_eq!(squares.next().await, Some(1));
///     squares.close().await; // the iterator is gone
///     assert_eq!(squares.next().await, None);
/// });
/// ```
///
/// # Where it runs
/// With [`new`](Self::new), in a pool: by default the same one as for [`threaded`](crate::threaded()). While the buffer
/// is full, the iterator uses no thread; it goes on, maybe on another thread, when half of the buffer is free. After
/// each `max_size` items it lets other jobs run. The wrapper counts as a handle of its pool if the pool was given with
/// [`on`](Self::on), or is the loop's default. If the pool is that of the job that started the iterator, the wrapper
/// does not count as a handle.
///
/// With [`separate`](Self::separate), on a thread of its own, which blocks while the buffer is full. Either way the
/// iterator has a copy of the context of the first call that asked for an item.
///
/// A generator cannot be paused, and does not give way to other jobs while there is room. Also in a pool it blocks its
/// thread while the buffer is full, and a spare thread runs other jobs meanwhile.
///
/// # Its end
/// If `make`, the iterator or its `Drop` panics, the items made before are delivered first. Then the call that asks for
/// the next item, or closes the wrapper, resumes the panic. If the pool was closed, or no thread could be started, the
/// call that asks for the next item panics too, since there may be more items. After such a panic, and after the
/// iterator's own end, the next item is `None`.
///
/// # Cancellation
/// Dropping the wrapper closes it without waiting: see [`close`](Self::close). Only the panic hook reports a panic
/// then.
///
/// # Streams
/// [`poll_next`](Self::poll_next) has the signature of the `Stream` trait's method in the crate `futures`. To make a
/// `Stream` of a wrapper:
///
/// ```
/// # mod futures {
/// #     pub mod stream {
/// #         use std::task::{Context, Poll};
/// #         pub fn poll_fn<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>>>(poll: F) -> F { poll }
/// #     }
/// # }
/// use std::pin::Pin;
///
/// let mut items = offthread::threaded_iterable(|| 0..3);
/// let stream = futures::stream::poll_fn(move |cx| Pin::new(&mut items).poll_next(cx));
/// ```
#[must_use = "nothing runs until it is asked for an item"]
pub struct IteratorWrapper<T> {
    stage: Stage<T>,
}

/// The stage is set before user code runs, so a panic leaves a valid stage.
impl<T> UnwindSafe for IteratorWrapper<T> {}
impl<T> RefUnwindSafe for IteratorWrapper<T> {}

enum Stage<T> {
    /// Nothing has run yet.
    New(Config<T>),
    Running {
        items: spsc::Receiver<T>,
        producer: Producer,
    },
    /// The consumer has closed the wrapper; the iterator may not have been dropped yet.
    Closing(Producer),
    Ended,
}

/// A producer that has not been started: its code, and its settings.
struct Config<T> {
    /// In a mutex that is never locked: so `make` need not be `Sync`.
    make: Mutex<Box<dyn Make<T>>>,
    max_size: usize,
    place: Place,
    name: Option<String>,
}

impl<T> IteratorWrapper<T> {
    /// As [`threaded_iterable`].
    pub fn new<F, I>(make: F) -> Self
    where
        F: FnOnce() -> I + Send + 'static,
        I: IntoIterator<Item = T, IntoIter: Send + 'static>,
        T: Send + 'static,
    {
        let start = |make, sender, place, _| Producer::pooled(place, |_| Maker::new(make, sender));
        Self::of(MakeIter { make: Some(make), start }, Place::Nearby)
    }

    /// As [`threaded_iterable_separate`].
    pub fn separate<F, I>(make: F) -> Self
    where
        F: FnOnce() -> I + Send + 'static,
        I: IntoIterator<Item = T, IntoIter: 'static>,
        T: Send + 'static,
    {
        let start = |make, sender, _, name| Producer::separate(name, || Maker::new(make, sender));
        Self::of(MakeIter { make: Some(make), start }, Place::Separate)
    }

    fn of(make: impl Make<T> + 'static, place: Place) -> Self {
        let make = Mutex::new(Box::new(make) as _);
        Self { stage: Stage::New(Config { make, max_size: MAX_SIZE, place, name: None }) }
    }

    /// How many items may be made ahead of the consumer. Default: 1024.
    ///
    /// A generator has one more item in its hands while [`put`](Yielder::put) waits.
    ///
    /// # Panics
    /// If `items` is 0, or if the iterator has been started. The first call that asks for an item panics if there is no
    /// memory for so many items.
    #[track_caller]
    pub fn max_size(mut self, items: usize) -> Self {
        assert!(items > 0, "IteratorWrapper::max_size: items is 0, but there must be room for at least one");
        self.config("max_size").max_size = items;
        self
    }

    /// Runs in this pool.
    ///
    /// # Panics
    /// If the iterator is a [`separate`](Self::separate) one, or has been started.
    #[track_caller]
    pub fn on(mut self, pool: &ThreadPool) -> Self {
        let place = &mut self.config("on").place;
        let is_separate = matches!(place, Place::Separate);
        assert!(
            !is_separate,
            "IteratorWrapper::on: a separate one keeps its thread; make it with `new` to run in a pool"
        );
        *place = Place::Pool(pool.clone());
        self
    }

    /// The name of the separate thread, as debuggers show it. A thread of a pool keeps the name of its pool.
    ///
    /// # Panics
    /// If the name contains a zero byte, which no thread's name can, or if the iterator has been started.
    #[track_caller]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config("name").name = Some(checked_name("IteratorWrapper", name.into()));
        self
    }

    #[track_caller]
    fn config(&mut self, caller: &str) -> &mut Config<T> {
        match &mut self.stage {
            Stage::New(config) => config,
            _ => panic!("IteratorWrapper::{caller}: it has been started: call this before it is asked for an item"),
        }
    }

    /// Starts the producer, unless it has been started.
    fn start(&mut self) {
        if !matches!(self.stage, Stage::New(_)) {
            return;
        }
        let Stage::New(config) = mem::replace(&mut self.stage, Stage::Ended) else { return };
        let Config { mut make, max_size, place, name } = config;
        let (sender, items) = spsc::channel_by_halves(max_size);
        let producer = make.get_mut().start(sender, place, name);
        self.stage = Stage::Running { items, producer };
    }

    /// The next item. If there is none yet, the waker is woken later. `None`: the end. The signature is that of the
    /// `Stream` trait of the crate `futures`.
    ///
    /// If several calls were pending, the waker of the last call is woken; if that was a [`next`](Self::next) that was
    /// dropped, none is. Panics as [`next`](Self::next). After 128 items in a row this yields: it wakes the waker and
    /// is pending once.
    pub fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.start();
        let Stage::Running { items, .. } = &mut self.stage else { return Poll::Ready(None) };
        match ready!(items.poll_recv(cx)) {
            Some(item) => Poll::Ready(Some(item)),
            None => self.poll_end(cx).map(|()| None),
        }
    }

    /// The next item; waits until it has been made. `None`: the end.
    ///
    /// # Panics
    /// If the iterator has panicked, with its panic; and if it was ended early, since its pool was closed or no thread
    /// could be started.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing: no item is taken before the future is ready.
    ///
    /// # Synchronization
    /// All that the iterator did before it returned the item happens before this returns.
    pub async fn next(&mut self) -> Option<T> {
        self.start();
        let Stage::Running { items, .. } = &mut self.stage else { return None };
        let item = items.recv().await;
        if item.is_none() {
            self.end().await;
        }
        item
    }

    /// Takes up to `limit` items at once: as many as there are, but at least one. Waits while there is none.
    ///
    /// Adds them to `buf` and returns how many. 0 is the end (or `limit` is 0, which takes nothing and does not wait).
    ///
    /// ```
    /// # offthread::block_on(async {
    /// let mut items = offthread::threaded_iterable(|| 0..100);
    /// let mut batch = Vec::new();
    /// while items.next_many(&mut batch, 16).await > 0 {}
    /// assert!(batch.into_iter().eq(0..100));
    /// # });
    /// ```
    ///
    /// # Panics
    /// As [`next`](Self::next).
    ///
    /// # Cancellation
    /// As for [`next`](Self::next).
    pub async fn next_many(&mut self, buf: &mut Vec<T>, limit: usize) -> usize {
        if limit == 0 {
            return 0;
        }
        self.start();
        let Stage::Running { items, .. } = &mut self.stage else { return 0 };
        let taken = items.recv_many(buf, limit).await;
        if taken == 0 {
            self.end().await;
        }
        taken
    }

    /// Awaits `poll_end`. Withdraws the waker, also if cancelled.
    async fn end(&mut self) {
        let attempt = Attempt(self);
        poll_fn(|cx| attempt.0.poll_end(cx)).await;
    }

    /// Ready when the iterator has been dropped. Panics as [`next`](Self::next).
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Stage::Running { producer, .. } | Stage::Closing(producer)) = &mut self.stage else {
            return Poll::Ready(());
        };
        let end = ready!(producer.poll_end(cx));
        let is_closed = self.is_closed();
        self.stage = Stage::Ended;
        match end {
            Err(JoinError::Panicked(panic)) => panic.resume(),
            Err(JoinError::NoThread(error)) if !is_closed => {
                panic!("there may be more items, but no thread could be started to make them: {error}")
            }
            Err(JoinError::Cancelled) if !is_closed => panic!(
                "there may be more items, but the pool of the iterable was closed: read it to its end, or close it, before \
                 its pool is closed"
            ),
            _ => Poll::Ready(()),
        }
    }

    /// Closes the wrapper: no more items are made, and those that were made are dropped. Returns once the iterator has
    /// been dropped.
    ///
    /// From now on [`is_cancelled`](crate::is_cancelled) is true in the iterator and its `Drop`, and a
    /// [`sync_await`](crate::sync_await()) in it ends; but an item that is being made cannot be interrupted. An
    /// iterator that has not started never runs. A paused iterator is dropped on a thread of its pool, ahead of the
    /// jobs that wait. If the pool is closed, or no thread can be started, this call drops the iterator. Closing
    /// again only waits until the iterator has been dropped.
    ///
    /// ```
    /// # offthread::block_on(async {
    /// let mut numbers = offthread::threaded_iterable(|| 0..);
    /// assert_eq!(numbers.next().await, Some(0));
    /// numbers.close().await; // the iterator has been dropped
    /// assert_eq!(numbers.next().await, None);
    /// # });
    /// ```
    ///
    /// # Panics
    /// If the iterator has panicked, and no call has resumed the panic yet; and if the `Drop` of `make` or of an item
    /// panics.
    ///
    /// # Cancellation
    /// Dropping the future does not stop the closing.
    pub async fn close(&mut self) {
        let begun = catch_unwind(AssertUnwindSafe(|| self.begin_to_close()));
        let ended = catch(self.end()).await;
        first_panic(begun, ended);
    }

    fn begin_to_close(&mut self) {
        match mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Running { mut items, producer } => {
                // This comes first, so that an item that is made later is refused. It may wake a waker that panics.
                catch_and_discard(|| items.close());
                producer.close();
                self.stage = Stage::Closing(producer);
                drop(items);
            }
            stage @ Stage::Closing(_) => self.stage = stage,
            Stage::New(_) | Stage::Ended => {}
        }
    }

    /// Whether the consumer has seen the end, or has closed the wrapper: then [`next`](Self::next) returns `None`.
    pub fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closing(_) | Stage::Ended)
    }

    /// Lends the wrapper to `body`, and [closes](Self::close) it on the way out, also if `body` panics.
    ///
    /// ```
    /// # use offthread::{block_on, threaded_iterable};
    /// # block_on(async {
    /// let first = threaded_iterable(|| (1..).map(|n| n * n))
    ///     .scope(async |squares| {
    ///         while let Some(square) = squares.next().await {
    ///             if square > 50 {
    ///                 return square;
    ///             }
    ///         }
    ///         unreachable!("there is no end")
    ///     })
    ///     .await;
    /// assert_eq!(first, 64); // and the iterator is gone
    /// # });
    /// ```
    ///
    /// # Panics
    /// As `body` does, or else as [`close`](Self::close).
    ///
    /// # Cancellation
    /// Dropping the future closes the wrapper without waiting.
    pub async fn scope<R>(mut self, body: impl AsyncFnOnce(&mut Self) -> R) -> R {
        let result = catch(body(&mut self)).await;
        let closed = catch(self.close()).await;
        first_panic(result, closed)
    }

    /// Iterates on the calling thread: `make` is called now. If the iterator has been started in its thread, this takes
    /// the items from there.
    ///
    /// A generator still runs in its own thread or pool, since it cannot be paused. It starts when the first item is
    /// asked for.
    ///
    /// # Blocking
    /// As long as the iterator does.
    pub fn sync_call(mut self) -> impl Iterator<Item = T> {
        let mut here = match &mut self.stage {
            Stage::New(config) => config.make.get_mut().here(),
            _ => None,
        };
        iter::from_fn(move || match &mut here {
            Some(iterator) => iterator.next(),
            None => parker::block_on(self.next()),
        })
    }
}

/// A future's panic, as a value.
async fn catch<R>(future: impl Future<Output = R>) -> thread::Result<R> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(payload) => Poll::Ready(Err(payload)),
    })
    .await
}

impl<T> Watch for IteratorWrapper<T> {
    fn unwatch(&mut self) {
        if let Stage::Running { producer, .. } | Stage::Closing(producer) = &mut self.stage {
            producer.unwatch();
        }
    }
}

impl<T> Drop for IteratorWrapper<T> {
    fn drop(&mut self) {
        catch_and_discard(|| self.begin_to_close());
        // The producer may have the iterator's panic, whose payload may panic in its `Drop`.
        catch_and_discard(|| self.stage = Stage::Ended);
    }
}

impl<T> fmt::Debug for IteratorWrapper<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("IteratorWrapper");
        match &self.stage {
            Stage::New(config) => debug.field("max_size", &config.max_size).field("place", &config.place),
            Stage::Running { items, .. } => debug.field("max_size", &items.max_size()).field("made", &items.len()),
            Stage::Closing(_) | Stage::Ended => debug.field("is_closed", &true),
        };
        debug.finish_non_exhaustive()
    }
}
