//! Generators: blocking code that hands out its items one by one, as async streams.
//!
//! # What it promises
//! A generator behaves as an iterable whose iterator is its body: lazy, with the same bound, the same end and the same
//! close. But a body cannot be paused: [`Yielder::put`] blocks its thread while the buffer is full. In a pool a spare
//! thread runs jobs meanwhile.
//!
//! # How
//! The body is one turn of a [`Source`]: so a pool runs it as a stream, and a separate thread as any other source. A
//! stream checks between its turns whether its pool was closed. Here `put` does that: for a shutdown in each call, for
//! another way of closing after each `max_size` items and when it would wait. While `put` waits, it watches the pool's
//! `Stop`, which wakes all watches when the pool closes. A `put` that finds the pool closed closes the channel, so all
//! later calls fail too.
//!
//! # What can go wrong
//! * Producer and consumer wait for each other, with a buffer of one item: `generator_lockstep`.
//! * The same in a separate thread: `separate_generator_lockstep`.
//! * The consumer takes items while `put` adds others, and an item is lost or out of order: `put_take`.
//! * The consumer closes, or is dropped, while `put` waits for room: `put_close`, `put_drop`.
//! * The body panics while its consumer waits: `generator_panic`.
//! * The pool is shut down, or drained, while `put` waits for room: `put_shutdown`, `put_drain`.
//! * The body goes on in a pool that was shut down, or closed: `put_after_shutdown`, `put_in_a_closed_pool`.
#![forbid(unsafe_code)]

use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::pin;
use std::task::{Context, Poll};

use crate::iterable::IteratorWrapper;
use crate::iterable::source::{Make, Producer};
use crate::pool::{Shared, Source, Turn};
use crate::primitives::cancel::{CancelWatch, Running, Stop, run_as};
use crate::primitives::join_error::catch_and_discard;
use crate::primitives::{parker, spsc};
use crate::sync::Arc;
use crate::threaded::Place;

/// Makes the items of blocking code readable by async code: the counterpart of a generator function in Python.
///
/// For code that has its items in the middle of a loop, or that may fail before the first one. `body` runs in a thread,
/// some items ahead of its consumer, and [puts](Yielder::put) each item into a buffer. Nothing runs before the first
/// item is asked for.
///
/// ```
/// use offthread::{block_on, threaded_generator};
/// use std::{fs, io, path::PathBuf};
///
/// /// The files below a folder.
/// fn files(root: PathBuf) -> offthread::IteratorWrapper<io::Result<PathBuf>> {
///     threaded_generator(|out| {
///         let mut folders = vec![root];
///         while let Some(folder) = folders.pop() {
///             let entries = match fs::read_dir(folder) {
///                 Ok(entries) => entries,
///                 Err(error) => return out.put(Err(error)),
///             };
///             for path in entries.flatten().map(|entry| entry.path()) {
///                 if path.is_dir() {
///                     folders.push(path);
///                 } else {
///                     out.put(Ok(path))?;
///                 }
///             }
///         }
///         Ok(())
///     })
/// }
///
/// block_on(async {
///     assert!(files("src".into()).next().await.unwrap().is_ok());
///     assert!(files("nowhere".into()).next().await.unwrap().is_err());
/// });
/// ```
///
/// # Its end
/// The stream ends when `body` returns. An error that `body` returns is dropped, since `put` fails only if nobody wants
/// more items, or if the pool was closed. In the second case [`next`](IteratorWrapper::next) panics. A panic of `body`
/// is resumed in `next`, after the items that were put before.
///
/// # Blocking
/// `body` holds its thread until it returns, also while it waits for room: unlike an iterator, it cannot be paused. In
/// a pool a spare thread runs other jobs while `body` waits for room; while there is room, `body` does not give way to
/// other jobs. So for hundreds of streams that wait, use [`threaded_iterable`](crate::threaded_iterable()).
///
/// # Cancellation
/// As for [`IteratorWrapper`]: once the stream is closed or dropped, `put` gives its item back, also if it is waiting,
/// and [`is_cancelled`](crate::is_cancelled) is true in `body`. [`close`](IteratorWrapper::close) returns once `body`
/// has returned.
pub fn threaded_generator<T, F>(body: F) -> IteratorWrapper<T>
where
    F: FnOnce(&mut Yielder<T>) -> Result<(), spsc::SendError<T>> + Send + 'static,
    T: Send + 'static,
{
    IteratorWrapper::of(Body(Some(body)), Place::Nearby)
}

/// Makes the items of blocking code readable by async code, in a thread of its own.
///
/// As [`threaded_generator`], for code that waits long for its next item.
///
/// ```
/// use offthread::{block_on, threaded_generator_separate, wait_cancelled};
/// use std::time::{Duration, Instant};
///
/// block_on(async {
///     let mut ticks = threaded_generator_separate(|out| {
///         while !wait_cancelled(Duration::from_millis(1)) {
///             out.put(Instant::now())?;
///         }
///         Ok(())
///     });
///     assert!(ticks.next().await < ticks.next().await);
///     ticks.close().await; // the thread's work is over
/// });
/// ```
pub fn threaded_generator_separate<T, F>(body: F) -> IteratorWrapper<T>
where
    F: FnOnce(&mut Yielder<T>) -> Result<(), spsc::SendError<T>> + Send + 'static,
    T: Send + 'static,
{
    IteratorWrapper::of(Body(Some(body)), Place::Separate)
}

/// Takes the items of a [generator](threaded_generator).
pub struct Yielder<T> {
    sender: spsc::Sender<T>,
    /// The pool that the generator runs in. `None`: it has a thread of its own.
    pool: Option<Arc<Shared>>,
    /// How many items may be put before the next check whether the pool was closed.
    unchecked: usize,
    /// A `put` has found the pool closed: there may be more items.
    cut_short: bool,
}

/// A panic of an item's `Drop` leaves nothing half changed.
impl<T> UnwindSafe for Yielder<T> {}
impl<T> RefUnwindSafe for Yielder<T> {}

impl<T> Yielder<T> {
    fn new(sender: spsc::Sender<T>, pool: Option<Arc<Shared>>) -> Self {
        Self { unchecked: sender.max_size(), sender, pool, cut_short: false }
    }

    /// Hands out an item; blocks this thread while the buffer is full.
    ///
    /// # Errors
    /// The item, if the consumer has closed the stream or was dropped, or if the pool was shut down: return, usually
    /// with `?`. If the pool was closed in another way, the call fails when the buffer is full, or after `max_size`
    /// more items. From then on every call fails.
    ///
    /// # Blocking
    /// In a pool a spare thread runs other jobs meanwhile.
    ///
    /// # Synchronization
    /// All that this thread did before happens before the consumer gets the item. All that the consumer did before it
    /// closed the stream happens before the error.
    pub fn put(&mut self, item: T) -> Result<(), spsc::SendError<T>> {
        let is_stopped = self.pool.as_ref().is_some_and(|pool| pool.stop().is_set());
        if is_stopped || self.unchecked == 0 || self.sender.room().is_pending() {
            self.wait_for_room();
        }
        self.unchecked -= 1;
        let before = self.sender.put(item).map_err(spsc::SendError)?;
        if before.is_waiting() {
            // A panic in the consumer's waker must not end the body.
            catch_and_discard(|| self.sender.notify(before));
        }
        Ok(())
    }

    /// Waits for room, or until the consumer or the pool closes: then the channel is closed.
    fn wait_for_room(&mut self) {
        self.unchecked = self.sender.max_size();
        let Some(pool) = &self.pool else { return self.sender.block_for_room(None) };
        let is_pool_closed = run_as(&**pool, || {
            let (mut closing, mut room) = (CancelWatch::default(), pin!(self.sender.wait_for_room()));
            parker::poll_until(None, |cx| match closing.poll(cx) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending => room.as_mut().poll(cx).map(|()| false),
            })
        });
        if is_pool_closed == Some(true) {
            self.cut_short = true;
            catch_and_discard(|| self.sender.close());
        }
    }
}

impl_debug!(Yielder<T>, sender);

/// A body that has not started.
struct Body<F>(Option<F>);

impl<T, F> Make<T> for Body<F>
where
    F: FnOnce(&mut Yielder<T>) -> Result<(), spsc::SendError<T>> + Send + 'static,
    T: Send + 'static,
{
    fn here(&mut self) -> Option<Box<dyn Iterator<Item = T>>> {
        None
    }

    fn start(&mut self, sender: spsc::Sender<T>, place: Place, name: Option<String>) -> Producer {
        let body = self.0.take();
        let generator = |pool| Generator { body, out: Yielder::new(sender, pool) };
        match place {
            Place::Separate => Producer::separate(name, || generator(None)),
            place => Producer::pooled(place, |pool| generator(Some(pool.clone()))),
        }
    }
}

/// Runs the body, in one turn.
struct Generator<F, T> {
    body: Option<F>,
    out: Yielder<T>,
}

impl<T, F: FnOnce(&mut Yielder<T>) -> Result<(), spsc::SendError<T>>> Source for Generator<F, T> {
    fn turn(&mut self, _stop: &Stop) -> Turn {
        drop(self.body.take().map(|body| body(&mut self.out)));
        // `Enough`: there may be more items, and the stream finds that its pool was closed.
        if self.out.cut_short { Turn::Enough } else { Turn::Over }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.out.sender.poll_room(cx)
    }

    fn has_started(&self) -> bool {
        self.body.is_none()
    }

    fn drop_iterator(&mut self) {
        drop(self.body.take());
    }
}
