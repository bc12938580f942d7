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

use crate::pool::{End, Source, Stream, Turn};
use crate::primitives::cancel::Stop;
use crate::primitives::job::Outcome;
use crate::primitives::join_error::{catch_and_discard, is_cancellation};
use crate::primitives::{oneshot, parker, spsc};
use crate::separate;
use crate::threaded::Place;

/// The function that makes the iterator, with its types erased.
pub trait Make<T>: Send {
    /// Makes the iterator on this thread. `Err`: this is a generator, which needs another thread.
    fn here(self: Box<Self>) -> Result<Box<dyn Iterator<Item = T>>, Box<dyn Make<T>>>;
    fn start(self: Box<Self>, sender: spsc::Sender<T>, place: Place, name: Option<String>) -> Producer;
}

pub type Start<F, T> = fn(F, spsc::Sender<T>, Place, Option<String>) -> Producer;

pub struct MakeIter<F, T> {
    pub make: F,
    /// Starts the iterator in a pool, or on a thread of its own.
    pub start: Start<F, T>,
}

impl<F, I> Make<I::Item> for MakeIter<F, I::Item>
where
    F: FnOnce() -> I + Send + 'static,
    I: IntoIterator<IntoIter: 'static>,
{
    fn here(self: Box<Self>) -> Result<Box<dyn Iterator<Item = I::Item>>, Box<dyn Make<I::Item>>> {
        Ok(Box::new((self.make)().into_iter()))
    }

    fn start(self: Box<Self>, sender: spsc::Sender<I::Item>, place: Place, name: Option<String>) -> Producer {
        (self.start)(self.make, sender, place, name)
    }
}

/// Makes the items.
struct Maker<F, I: Iterator> {
    iterator: Phase<F, I>,
    sender: spsc::Sender<I::Item>,
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
            // Also after `make`: the consumer may have closed the iterable meanwhile.
            let Phase::Iterate(iterator) = &mut self.iterator else { return Turn::Over };
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
pub fn make_all(mut source: impl Source) {
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

pub fn start_pooled<F, I>(make: F, sender: spsc::Sender<I::Item>, place: Place, _name: Option<String>) -> Producer
where
    F: FnOnce() -> I + Send + 'static,
    I: IntoIterator<IntoIter: Send + 'static, Item: Send + 'static>,
{
    let source = Box::new(Maker { iterator: Phase::Make(make), sender });
    let place = place.settle();
    let (stream, end) = place.with_pool(|pool| Stream::start(pool, source));
    Producer::Pooled { stream, end, _place: place }
}

pub fn start_separate<F, I>(make: F, sender: spsc::Sender<I::Item>, _place: Place, name: Option<String>) -> Producer
where
    F: FnOnce() -> I + Send + 'static,
    I: IntoIterator<IntoIter: 'static, Item: Send + 'static>,
{
    let job = separate::spawn(name, move || make_all(Maker { iterator: Phase::Make(make), sender }));
    Producer::Separate(job.outcome())
}

/// The thread's side, as the consumer knows it.
pub enum Producer {
    Pooled {
        stream: Arc<Stream>,
        end: oneshot::Receiver<End>,
        /// If a pool was named, or is the loop's default, this has a handle of the pool: so the pool stays open.
        _place: Place,
    },
    Separate(Outcome<()>),
}

impl Producer {
    /// The consumer wants no more items.
    pub fn close(&self) {
        match self {
            Self::Pooled { stream, .. } => Stream::close(stream),
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
        (Ok(_), Err(payload)) => resume_unwind(payload),
    }
}
