//! The thread's side of an iterable: makes the items.
//!
//! In a pool the iterator runs in turns ([`Stream`]), and waits for room without a thread. On a thread of its own the
//! iterator runs in one job ([`make_all`]), and blocks there: so it need not be `Send`. Both ways call
//! [`Source::turn`]. The source of an iterator ([`Maker`]) looks at the channel before each item: no item is made
//! without room for it. The source of a generator is in `generator.rs`.
#![forbid(unsafe_code)]

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use crate::pool::{End, Shared, Source, Stream, Turn};
use crate::primitives::cancel::Stop;
use crate::primitives::job::Outcome;
use crate::primitives::join_error::{catch_and_discard, is_cancellation};
use crate::primitives::{oneshot, parker, spsc};
use crate::separate;
use crate::sync;
use crate::threaded::Place;

/// What an iterable is made from, with its types erased.
pub trait Make<T>: Send {
    /// Makes the iterator, to be iterated on this thread. `None`: this is a generator, which needs another thread.
    fn here(&mut self) -> Option<Box<dyn Iterator<Item = T>>>;
    /// Starts to make items in a pool, or on a thread of its own.
    fn start(&mut self, sender: spsc::Sender<T>, place: Place, name: Option<String>) -> Producer;
}

/// The function that makes the iterator.
pub struct MakeIter<F, T> {
    /// `None` once the iterator has been made.
    pub make: Option<F>,
    /// See [`Make::start`].
    pub start: fn(F, spsc::Sender<T>, Place, Option<String>) -> Producer,
}

impl<F, I> Make<I::Item> for MakeIter<F, I::Item>
where
    F: FnOnce() -> I + Send + 'static,
    I: IntoIterator<IntoIter: 'static>,
{
    fn here(&mut self) -> Option<Box<dyn Iterator<Item = I::Item>>> {
        self.make.take().map(|make| Box::new(make().into_iter()) as _)
    }

    fn start(&mut self, sender: spsc::Sender<I::Item>, place: Place, name: Option<String>) -> Producer {
        let Some(make) = self.make.take() else { unreachable!("an iterator is made once") };
        (self.start)(make, sender, place, name)
    }
}

/// Makes the items of an iterator.
pub struct Maker<F, I: Iterator> {
    iterator: Phase<F, I>,
    sender: spsc::Sender<I::Item>,
}

impl<F, I: Iterator> Maker<F, I> {
    pub fn new(make: F, sender: spsc::Sender<I::Item>) -> Self {
        Self { iterator: Phase::Make(make), sender }
    }
}

enum Phase<F, I> {
    Make(F),
    Iterate(I),
    Over,
}

impl<F: FnOnce() -> C, C: IntoIterator<IntoIter = I>, I: Iterator<Item = C::Item>> Source for Maker<F, I> {
    fn turn(&mut self, stop: &Stop) -> Turn {
        let wants_more = |sender: &spsc::Sender<I::Item>| !sender.is_closed() && !stop.is_set();
        if matches!(self.iterator, Phase::Make(_)) && wants_more(&self.sender) {
            if let Phase::Make(make) = mem::replace(&mut self.iterator, Phase::Over) {
                self.iterator = Phase::Iterate(make().into_iter());
            }
        }
        for _ in 0..self.sender.max_size() {
            if self.sender.room().is_pending() {
                return Turn::Full;
            }
            let Phase::Iterate(iterator) = &mut self.iterator else { return Turn::Over };
            // Also after `make`: the consumer may have closed the iterable meanwhile.
            if !wants_more(&self.sender) {
                return Turn::Over;
            }
            let Some(before) = iterator.next().and_then(|item| self.sender.put(item).ok()) else { return Turn::Over };
            if before.is_waiting() {
                // A panic in the consumer's waker must not end the iterator.
                catch_and_discard(|| self.sender.notify(before));
            }
        }
        if self.sender.room().is_ready() { Turn::Enough } else { Turn::Full }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sender.poll_room(cx)
    }

    fn has_started(&self) -> bool {
        !matches!(self.iterator, Phase::Make(_))
    }

    fn drop_iterator(&mut self) {
        drop(mem::replace(&mut self.iterator, Phase::Over));
    }
}

/// Makes all items on this thread, and blocks while there is no room.
fn make_all(mut source: impl Source) {
    let stop = Stop::default();
    let made = catch_unwind(AssertUnwindSafe(|| {
        while source.turn(&stop) != Turn::Over {
            parker::poll_until(None, |cx| source.poll_room(cx));
        }
    }));
    let dropped = catch_unwind(AssertUnwindSafe(|| source.drop_iterator()));
    // Wakes a consumer that waits for an item.
    catch_and_discard(|| drop(source));
    first_panic(made, dropped);
}

/// The thread's side, as the consumer knows it.
pub enum Producer {
    Pooled {
        stream: Arc<Stream>,
        end: oneshot::Receiver<End>,
        /// If the pool was given with `on`, or is the loop's default, this has a handle of the pool: so the pool stays
        /// open.
        _place: Place,
    },
    Separate(Outcome<()>),
}

impl Producer {
    /// Starts a source in a pool.
    pub fn pooled<S: Source + Send + 'static>(place: Place, source: impl FnOnce(&sync::Arc<Shared>) -> S) -> Self {
        let place = place.settle();
        let (stream, end) = place.with_pool(|pool| Stream::start(pool, Box::new(source(pool))));
        Self::Pooled { stream, end, _place: place }
    }

    /// Starts a source on a thread of its own, which makes the source: so the source need not be `Send`.
    pub fn separate<S: Source>(name: Option<String>, source: impl FnOnce() -> S + Send + 'static) -> Self {
        Self::Separate(separate::spawn(name, || make_all(source())).outcome())
    }

    /// The consumer wants no more items.
    pub fn close(&self) {
        match self {
            Self::Pooled { stream, .. } => Stream::close(stream, &mut |_| {}),
            Self::Separate(job) => drop(job.cancel()),
        }
    }

    /// The consumer stops waiting for the end.
    pub fn unwatch(&mut self) {
        match self {
            Self::Pooled { end, .. } => end.unwatch(),
            Self::Separate(job) => job.unwatch(),
        }
    }

    /// Ready when the iterator has been dropped.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self {
            Self::Pooled { end, .. } => Pin::new(end).poll(cx).map(|end| match end {
                Ok(end) => end,
                Err(oneshot::Closed) => unreachable!("every stream says how it has ended"),
            }),
            Self::Separate(job) => Pin::new(job).poll(cx),
        }
    }
}

/// The result of `first`, unless one of the two has panicked: then this resumes the first panic. A cancellation gives
/// way to a panic.
pub fn first_panic<R>(first: thread::Result<R>, second: thread::Result<()>) -> R {
    match (first, second) {
        (Ok(result), Ok(())) => result,
        (Err(first), Err(second)) if is_cancellation(&*first) => resume_unwind(second),
        (Err(payload), second) => {
            catch_and_discard(|| drop(second));
            resume_unwind(payload)
        }
        (Ok(result), Err(payload)) => {
            catch_and_discard(|| drop(result));
            resume_unwind(payload)
        }
    }
}
