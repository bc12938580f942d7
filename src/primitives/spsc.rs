//! A bounded channel from one producer to one consumer, either of which may block or await.
//!
//! ```
//! let (mut sender, mut receiver) = offthread::spsc::channel(2);
//! std::thread::spawn(move || {
//!     for line in ["one", "two", "three"] {
//!         if sender.send_blocking(line).is_err() {
//!             break; // nobody listens any more
//!         }
//!     }
//! });
//! offthread::block_on(async {
//!     let mut lines = Vec::new();
//!     while let Some(line) = receiver.recv().await {
//!         lines.push(line);
//!     }
//!     assert_eq!(lines, ["one", "two", "three"]);
//! });
//! ```
//!
//! Never more than `max_size` items wait in the channel. An item whose send returned `Ok` can be received, unless the
//! receiver is dropped; once the receiver has seen the end, no send returns `Ok`. Each end sees at once what the other
//! end does: after a `recv` there is room for a `try_send`. Both ends may be moved between threads, and from blocking
//! to async use and back, at any time.
//!
//! | | room, or an item | full, or empty | the channel is closed |
//! |---|---|---|---|
//! | `send` | `Ok` | waits | `Err(SendError(item))` |
//! | `try_send` | `Ok` | `Err(Full(item))` | `Err(Closed(item))` |
//! | `recv` | `Some(item)` | waits | what is left, then `None` |
//! | `try_recv` | `Ok(item)` | `Err(Empty)` | what is left, then `Err(Closed)` |
//!
//! A call that wakes the other end panics if that end's waker does: a send has then sent its item, and a receive has
//! lost the item. (The items of `recv_many` are in `buf` even then.)
// The five parts of the head, for maintainers; the text above is the module's public documentation.
//
// # What it promises
// Items come out in the order they went in, each once; `max_size` is exact. A side that waits is woken by the other
// side's next operation that lets it go on.
//
// The simplest version: `examples/made_6_ring.rs`.
//
// # State machine
// A ring of `max_size` slots and two counters, which only grow (and wrap). `tail` counts the items that the sender has
// put in, `head` the items that the receiver has taken out. Each end keeps the index of its next slot, a copy of its
// own counter, and a copy of the other end's counter as last seen. To send or receive, an end reads the other end's
// counter only if its copy shows no room, or too few items. (The receiver of an iterable advances `head` in batches:
// see `channel_by_halves`.)
//
//      slots    . . . # # # # # . .          # holds an item: tail - head of them
//                     ^         ^
//                    head      tail
//
// A `Counter` is one word: the count, and two flags in its low bits. One side, the owner, advances the counter; the
// other side, the peer, watches it.
//
//      | count ............................ | CLOSED | WAITING |
//
//      advance  owner   count + n           learns: does the peer wait? is the channel closed?
//      close    either  sets CLOSED         learns the same, and the count
//      watch    peer    sets WAITING        learns whether the counter has changed, or is closed
//      wake     owner   clears WAITING, then takes the waker from the slot and wakes it (also the peer, as it closes)
//
// `advance`, `close`, and the changes of WAITING are each one atomic read-modify-write of the word. So both sides agree
// on the order of these steps.
//
// # Who may touch what
// 1. The slots of the items `head..tail` are the receiver's, the others the sender's. The side that advances its
//    counter hands over the slots that it advances past.
// 2. `tail`'s CLOSED decides. An item counted before CLOSED belongs to the receiver. An item counted after CLOSED stays
//    with the sender, which learns this from `advance`. A receiver that has set CLOSED does not read the count of
//    `tail` again.
// 3. `head`'s CLOSED only tells a sender that waits for room to look at `tail`.
// 4. The peer sets WAITING after it has put its waker into the slot. The owner clears WAITING before it takes the waker
//    out. So if a waker comes too late for one wake, WAITING is set for the next wake. A waker that comes between the
//    two steps of a wake may be woken for nothing, which is harmless.
//
// # Synchronisation edges
// | id | release side | acquire side | publishes | model |
// |---|---|---|---|---|
// | S1 | `advance` of `tail` | `load` and `close` by the receiver | the items in the slots | `send_recv` |
// | S2 | `advance` of `head` | `load` by the sender | the slots, empty again | `slots_are_reused` |
// | S3 | `close` by the sender | `load` by the receiver | what the sender did before it closed | `close_publishes` |
// | S4 | `close` by the receiver | `load`, `advance` by the sender | what the receiver did before it closed | `close_publishes` |
//
// WAITING itself orders nothing: the slot's own edges do, as in `oneshot`.
//
// # What can go wrong
// * A wake between the last look and the sleep: `both_sleep_in_turn`.
// * The receiver closes while the sender sends: received or given back, never both or neither: `send_close`.
// * The receiver closes while the sender waits for room (aiomisc 227): `close_wakes_sender`.
// * The receiver is dropped with items in the ring, while the sender sends (RUSTSEC-2025-0024): `send_drop`.
// * An item's `Drop` panics: the counter has moved on before: `tests::items_are_dropped_once_even_if_one_panics`.
// * A waker panics: an end updates its own fields before it wakes: `tests::panicking_waker_leaves_both_ends_valid`.
// * A cancelled `recv` or `send` (kanal 24): nothing has been sent or taken yet: `cancelled_recv`, `cancelled_send`.
// * A cancelled `recv` or `send` leaves its waker; `Attempt` withdraws it: `cancelled_attempts_leave_no_waker`.
// * The counters wrap: `tests::channel_works_when_counters_wrap`.
//
// The copy of the other side's counter is from MCRingBuffer (Lee et al., 2009).

use std::future::poll_fn;
use std::iter;
use std::mem::MaybeUninit;
use std::panic::RefUnwindSafe;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::primitives::attempt::{Attempt, Watch};
use crate::primitives::budget::Budget;
use crate::primitives::cache_padded::CachePadded;
use crate::primitives::parker;
use crate::primitives::waker_slot::WakerSlot;
use crate::sync::atomic::AtomicUsize;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use crate::sync::{self, Arc, UnsafeCell};

/// The peer waits for this counter to change.
const WAITING: usize = 1;
/// The channel is closed.
const CLOSED: usize = 2;
/// One item.
const ONE: usize = 4;

/// How long an end pauses before it waits, so that the other end can handle several items meanwhile.
const PAUSE: u32 = 16;

/// The value of a counter: the count, in steps of [`ONE`], and the two flags.
#[derive(Clone, Copy)]
#[must_use = "the other end may have to be woken"]
pub(crate) struct Seen(usize);

impl Seen {
    fn count(self) -> usize {
        self.0 & !(ONE - 1)
    }

    fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    pub(crate) fn is_waiting(self) -> bool {
        self.0 & WAITING != 0
    }
}

/// One side's progress, and the waker of the other side while that side waits.
struct Counter {
    word: AtomicUsize,
    peer: WakerSlot,
}

impl Counter {
    fn new(count: usize) -> Self {
        Self { word: AtomicUsize::new(count), peer: WakerSlot::default() }
    }

    fn load(&self) -> Seen {
        // ORDERING: Acquire [S1, S2, S3, S4]: pairs with `advance` and `close`; the slots that were advanced past are
        // ours.
        Seen(self.word.load(Acquire))
    }

    /// Owner: hands over the next `n` slots. Returns the value before: the caller passes it to `notify`, once its own
    /// fields are up to date.
    fn advance(&self, n: usize) -> Seen {
        // ORDERING: AcqRel: Release [S1, S2]: pairs with `load` and `close`; publishes the slots. Acquire [S4]: pairs
        // with `close`; what the receiver did before it closed is seen.
        Seen(self.word.fetch_add(n * ONE, AcqRel))
    }

    /// Either side: closes. Returns the value before, for `notify`, as `advance` does.
    fn close(&self) -> Seen {
        // ORDERING: AcqRel: Release [S3, S4]: pairs with `load` and `advance`; publishes what this side did before it
        // closed. Acquire [S1]: pairs with `advance`; the slots are ours.
        Seen(self.word.fetch_or(CLOSED, AcqRel))
    }

    /// Wakes the peer if it waited. This runs user code, which may panic.
    fn notify(&self, before: Seen) {
        if before.is_waiting() {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // ORDERING: Relaxed: this must come before the `take` in `WakerSlot::wake` (rule 4). That `take` releases, so
        // this cannot move behind it.
        self.word.fetch_and(!WAITING, Relaxed);
        self.peer.wake();
    }

    /// Peer: asks to be woken when the counter changes from `seen`, or is closed. False: that has happened already.
    fn watch(&self, cx: &mut Context<'_>, seen: usize) -> bool {
        self.peer.register(cx.waker());
        // ORDERING: Relaxed: this cannot move before the registration, which acquires; the slot's own edges order the
        // waker. After a change the caller looks again, with `load`.
        self.word.fetch_or(WAITING, Relaxed) & !WAITING == seen
    }

    /// Peer: stops waiting, and drops its waker. WAITING may stay set: the owner then finds no waker.
    fn unwatch(&self) {
        drop(self.peer.take());
    }
}

struct Shared<T> {
    /// Owned by the sender.
    tail: CachePadded<Counter>,
    /// Owned by the receiver.
    head: CachePadded<Counter>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: an item is moved from the sender's thread to the receiver's and never shared (rules 1 and 2).
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}
/// A panic (of a waker, or of an item's `Drop`) leaves no counter half changed.
impl<T> RefUnwindSafe for Shared<T> {}

impl<T> Shared<T> {
    /// `tail - head` when all slots hold an item.
    fn full(&self) -> usize {
        self.slots.len() * ONE
    }

    fn slot_after(&self, slot: usize) -> usize {
        if slot + 1 == self.slots.len() { 0 } else { slot + 1 }
    }
}

/// Makes a channel for at most `max_size` items at a time.
///
/// See the [module](self) for what its two ends do. One allocation for the items, and one for the rest.
///
/// # Panics
/// If `max_size` is 0, or if there is no memory for so many items.
#[track_caller]
pub fn channel<T>(max_size: usize) -> (Sender<T>, Receiver<T>) {
    channel_at(max_size, 0)
}

/// A channel that has already carried `carried` items: a test makes its counters wrap.
#[track_caller]
fn channel_at<T>(max_size: usize, carried: usize) -> (Sender<T>, Receiver<T>) {
    assert!(max_size > 0, "spsc::channel: max_size is 0, but a channel needs room for at least one item");
    // For `sync::pause`, later: the first call makes system calls, and allocates.
    sync::cpus();
    let can_be_counted = max_size <= usize::MAX / ONE;
    let Some(slots) = can_be_counted.then(|| sync::slots(max_size).ok()).flatten() else {
        panic!("spsc::channel: max_size is {max_size}: more than there is memory for, or than can be counted");
    };
    let (tail, slot, watching, closed) = (carried.wrapping_mul(ONE), 0, false, false);
    let counter = || CachePadded(Counter::new(tail));
    let shared = Arc::new(Shared { tail: counter(), head: counter(), slots });
    let (head, handed_back, batch) = (tail, tail, ONE);
    let sender = Sender { shared: shared.clone(), tail, head, slot, budget: Budget::default(), watching, closed };
    let budget = Budget::default();
    let receiver = Receiver { shared, tail, head, handed_back, batch, slot, budget, watching, closed };
    (sender, receiver)
}

/// A channel whose receiver hands slots back by halves of the buffer, and all of them before it waits. So a sender that
/// waits for room is woken when half of the buffer is free.
///
/// This is no public option. A consumer may take one item, and then wait for something that the sender does once the
/// sender has room: both ends would wait for ever. The sender of an iterable only makes items.
pub(crate) fn channel_by_halves<T>(max_size: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, mut receiver) = channel(max_size);
    receiver.batch = max_size.div_ceil(2) * ONE;
    (sender, receiver)
}

/// The end that items are put into. Dropping it closes the channel; the items that are left can still be received.
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>() {}
/// is_send::<offthread::spsc::Sender<std::rc::Rc<()>>>();
/// ```
/// ```compile_fail,E0599
/// let (sender, _receiver) = offthread::spsc::channel::<i32>(1);
/// let _ = sender.clone();
/// ```
#[must_use = "dropping the sender closes the channel"]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    /// Its own counter.
    tail: usize,
    /// The receiver's counter, as last seen.
    head: usize,
    /// Where the next item goes.
    slot: usize,
    budget: Budget,
    /// Whether a waker may still be at `head`.
    watching: bool,
    /// Whether this end knows that the channel is closed.
    closed: bool,
}

/// The end that items are taken from. Dropping it closes the channel and drops the items that are in there.
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>() {}
/// is_send::<offthread::spsc::Receiver<std::rc::Rc<()>>>();
/// ```
/// ```compile_fail,E0599
/// let (_sender, receiver) = offthread::spsc::channel::<i32>(1);
/// let _ = receiver.clone();
/// ```
#[must_use = "dropping the receiver closes the channel, and drops the items in it"]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The sender's counter, as last seen; once this end has closed the channel, as it was at that moment.
    tail: usize,
    /// Its own counter.
    head: usize,
    /// Its own counter, as the sender sees it: the slots from here to `head` have not been handed back yet.
    handed_back: usize,
    /// How many slots are handed back together, in steps of [`ONE`].
    batch: usize,
    /// Where the next item comes from.
    slot: usize,
    budget: Budget,
    /// Whether a waker may still be at `tail`.
    watching: bool,
    /// Whether this end has closed the channel.
    closed: bool,
}

impl<T> Watch for Sender<T> {
    fn unwatch(&mut self) {
        if self.watching {
            self.watching = false;
            self.shared.head.unwatch();
        }
    }
}

impl<T> Watch for Receiver<T> {
    fn unwatch(&mut self) {
        if self.watching {
            self.watching = false;
            self.shared.tail.unwatch();
        }
    }
}

impl<T> Sender<T> {
    fn has_room(&self) -> bool {
        self.tail.wrapping_sub(self.head) < self.shared.full()
    }

    /// Ready if there is room, or if the channel is closed: `push` tells which.
    pub(crate) fn room(&mut self) -> Poll<()> {
        if self.closed || self.has_room() {
            return Poll::Ready(());
        }
        self.head = self.shared.head.load().count();
        if self.has_room() {
            return Poll::Ready(());
        }
        self.closed = self.shared.tail.load().is_closed();
        if self.closed { Poll::Ready(()) } else { Poll::Pending }
    }

    /// As `room`; if the result is pending, the waker is woken later.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.room().is_ready() {
            return Poll::Ready(());
        }
        // As in `poll_available`.
        sync::pause(PAUSE);
        if self.room().is_ready() {
            return Poll::Ready(());
        }
        // Register, then look again.
        self.watching = true;
        if self.shared.head.watch(cx, self.head) { Poll::Pending } else { self.room() }
    }

    /// Puts an item in, after `room` was ready. Gives the item back if the channel is closed.
    fn push(&mut self, item: T) -> Result<(), T> {
        let before = self.put(item)?;
        self.notify(before);
        Ok(())
    }

    /// Wakes the receiver, if it waited before an item was put in.
    pub(crate) fn notify(&self, before: Seen) {
        self.shared.tail.notify(before);
    }

    /// As `push`, but leaves `notify` to the caller. Gives the item back if the channel is closed or full.
    #[inline]
    pub(crate) fn put(&mut self, item: T) -> Result<Seen, T> {
        if self.closed || !self.has_room() {
            return Err(item);
        }
        let cell = &self.shared.slots[self.slot];
        // SAFETY: rule 1: there is room, so the slot after the last item is the sender's.
        cell.with_mut(|cell| unsafe { (*cell).write(item) });
        let before = self.shared.tail.advance(1);
        if before.is_closed() {
            self.closed = true;
            // SAFETY: rule 2: the item was counted after the channel was closed, so it is still the sender's; it was
            // written just above.
            return Err(cell.with(|cell| unsafe { (*cell).assume_init_read() }));
        }
        self.tail = self.tail.wrapping_add(ONE);
        self.slot = self.shared.slot_after(self.slot);
        Ok(before)
    }

    /// Sends an item; waits while the channel is full.
    ///
    /// # Errors
    /// The item, if the channel is closed. After `Ok` the item can be received, unless the receiver is dropped.
    ///
    /// # Panics
    /// If the receiver's waker does; the item has been sent.
    ///
    /// # Cancellation
    /// Dropping the future before it is ready drops the item; nothing was sent.
    ///
    /// # Synchronization
    /// All that the sender did before happens before the receiver gets the item. All that the receiver did before it
    /// closed the channel happens before the error.
    pub async fn send(&mut self, item: T) -> Result<(), SendError<T>> {
        self.wait_for_room().await;
        self.push(item).map_err(SendError)
    }

    /// Waits until there is room, or the channel is closed: `push` tells which.
    pub(crate) async fn wait_for_room(&mut self) {
        let attempt = Attempt(self);
        poll_fn(|cx| {
            ready!(attempt.0.budget.poll_ready(cx));
            let room = attempt.0.poll_room(cx);
            attempt.0.budget.count(usize::from(room.is_ready()));
            room
        })
        .await;
    }

    /// Sends an item; blocks this thread while the channel is full.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Blocking
    /// On an event loop's thread this stops the loop, and never returns if the receiver needs the loop: use
    /// [`send`](Self::send) there.
    pub fn send_blocking(&mut self, item: T) -> Result<(), SendError<T>> {
        self.block_for_room(None);
        self.push(item).map_err(SendError)
    }

    /// Sends an item; blocks this thread while the channel is full, but not longer than `timeout`.
    ///
    /// `Duration::MAX` means for ever; with a `timeout` of zero this is [`try_send`](Self::try_send).
    ///
    /// ```
    /// use offthread::spsc::{SendTimeoutError, channel};
    /// use std::time::Duration;
    ///
    /// let (mut sender, _receiver) = channel(1);
    /// let millisecond = Duration::from_millis(1);
    /// assert_eq!(sender.send_blocking_timeout("a", millisecond), Ok(()));
    /// let late = sender.send_blocking_timeout("b", millisecond);
    /// assert_eq!(late, Err(SendTimeoutError::Timeout("b")));
    /// ```
    ///
    /// # Errors
    /// The item: [`Timeout`](SendTimeoutError::Timeout) if there was no room in time,
    /// [`Closed`](SendTimeoutError::Closed) if the channel is closed.
    ///
    /// # Blocking
    /// As [`send_blocking`](Self::send_blocking).
    pub fn send_blocking_timeout(&mut self, item: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        if self.room().is_pending() {
            self.block_for_room(Instant::now().checked_add(timeout));
        }
        self.send_now(item)
    }

    /// As `try_send`, at the end of a time-out.
    pub(crate) fn send_now(&mut self, item: T) -> Result<(), SendTimeoutError<T>> {
        self.try_send(item).map_err(|error| match error {
            TrySendError::Full(item) => SendTimeoutError::Timeout(item),
            TrySendError::Closed(item) => SendTimeoutError::Closed(item),
        })
    }

    /// Blocks until `room` is ready, or until the deadline.
    pub(crate) fn block_for_room(&mut self, deadline: Option<Instant>) {
        let attempt = Attempt(self);
        parker::poll_until(deadline, |cx| attempt.0.poll_room(cx));
    }

    /// Sends an item if there is room for it right now. Never blocks.
    ///
    /// ```
    /// use offthread::spsc::{TrySendError, channel};
    ///
    /// let (mut sender, mut receiver) = channel(1);
    /// assert_eq!(sender.try_send(1), Ok(()));
    /// assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    /// receiver.close();
    /// assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
    /// ```
    ///
    /// # Errors
    /// The item: [`Full`](TrySendError::Full) if there is no room, [`Closed`](TrySendError::Closed) if the channel is
    /// closed.
    pub fn try_send(&mut self, item: T) -> Result<(), TrySendError<T>> {
        match self.room() {
            Poll::Ready(()) => self.push(item).map_err(TrySendError::Closed),
            Poll::Pending => Err(TrySendError::Full(item)),
        }
    }

    /// Closes the channel: nothing more can be sent, and the receiver sees the end after the items that are left.
    pub fn close(&mut self) {
        self.closed = true;
        let before = self.shared.tail.close();
        self.shared.tail.notify(before);
    }

    /// Whether either end has closed the channel. Once true, this stays true.
    pub fn is_closed(&self) -> bool {
        self.shared.tail.load().is_closed()
    }

    /// How many items are in the channel. The receiver may take items meanwhile; only this end adds any.
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.shared.head.load().count()) / ONE
    }

    /// Whether no item is in the channel. Once true, this stays true until this end sends an item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items the channel holds at the most.
    pub fn max_size(&self) -> usize {
        self.shared.slots.len()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.close();
        self.unwatch();
    }
}

impl<T> Receiver<T> {
    /// How many items can be taken: at least one. `None`: the end. Reads the sender's counter only if fewer than
    /// `wanted` are known.
    fn available(&mut self, wanted: usize) -> Poll<Option<usize>> {
        let mut closed = self.closed;
        if self.known() < wanted && !closed {
            let tail = self.shared.tail.load();
            self.tail = tail.count();
            closed = tail.is_closed();
        }
        match self.known() {
            0 if closed => Poll::Ready(None),
            0 => Poll::Pending,
            items => Poll::Ready(Some(items)),
        }
    }

    fn known(&self) -> usize {
        self.tail.wrapping_sub(self.head) / ONE
    }

    fn poll_available(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Option<usize>> {
        let available = self.available(wanted);
        if available.is_ready() {
            return available;
        }
        self.hand_back(ONE);
        // A running sender puts several items in during the pause: cheaper for both ends than a wake-up for each item.
        sync::pause(PAUSE);
        let available = self.available(wanted);
        if available.is_ready() {
            return available;
        }
        // Register, then look again.
        self.watching = true;
        if self.shared.tail.watch(cx, self.tail) { Poll::Pending } else { self.available(wanted) }
    }

    /// Takes the next item out of its slot, without handing the slot back.
    fn read(&mut self) -> T {
        // SAFETY: rule 1: callers have found an item `available`, so the slot is the receiver's; it is read once, as
        // the counter moves on.
        let item = self.shared.slots[self.slot].with(|cell| unsafe { (*cell).assume_init_read() });
        self.head = self.head.wrapping_add(ONE);
        self.slot = self.shared.slot_after(self.slot);
        item
    }

    /// Hands back the slots of the items that were read, if these are at least `min` (in steps of [`ONE`]). Wakes the
    /// sender if it waits for room.
    #[inline]
    fn hand_back(&mut self, min: usize) {
        let read = self.head.wrapping_sub(self.handed_back);
        if read >= min {
            self.handed_back = self.head;
            let before = self.shared.head.advance(read / ONE);
            self.shared.head.notify(before);
        }
    }

    /// Takes one item out, after one was `available`.
    fn pop(&mut self) -> T {
        let item = self.read();
        self.hand_back(self.batch);
        item
    }

    /// Receives the next item; waits while the channel is empty. `None`: the channel is closed, and nothing is left.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing: no item is taken before the future is ready.
    ///
    /// # Synchronization
    /// All that the sender did before it sent the item, or before it closed the channel, happens before this returns.
    pub async fn recv(&mut self) -> Option<T> {
        let attempt = Attempt(self);
        poll_fn(|cx| attempt.0.poll_recv(cx)).await
    }

    /// As [`recv`](Self::recv), for hand-written futures and streams.
    ///
    /// If the result is pending, the waker is woken when there is an item or the end, unless another method of this end
    /// was called since. After 128 items in a row it yields: it wakes the waker and is pending once.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        ready!(self.budget.poll_ready(cx));
        let item = self.poll_item(cx);
        self.budget.count(usize::from(item.is_ready()));
        item
    }

    /// As `poll_recv`, but never yields.
    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let available = self.poll_available(cx, 1);
        if available.is_ready() {
            self.unwatch();
        }
        available.map(|items| items.map(|_| self.pop()))
    }

    /// Receives the next item; blocks this thread while the channel is empty. `None`: the channel is closed, and
    /// nothing is left.
    ///
    /// # Blocking
    /// On an event loop's thread this stops the loop, and never returns if the sender needs the loop: use
    /// [`recv`](Self::recv) there.
    pub fn recv_blocking(&mut self) -> Option<T> {
        let attempt = Attempt(self);
        parker::poll_until(None, |cx| attempt.0.poll_item(cx)).flatten()
    }

    /// As [`recv_blocking`](Self::recv_blocking), but blocks no longer than `timeout`. [`Duration::MAX`] is for ever.
    ///
    /// # Errors
    /// [`Timeout`](RecvTimeoutError::Timeout) if no item came in time, [`Closed`](RecvTimeoutError::Closed) if the
    /// channel is closed and nothing is left.
    ///
    /// # Blocking
    /// As [`recv_blocking`](Self::recv_blocking), up to `timeout`.
    pub fn recv_blocking_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let attempt = Attempt(self);
        let item = parker::poll_until(Instant::now().checked_add(timeout), |cx| attempt.0.poll_item(cx));
        item.map_or_else(|| attempt.0.recv_now(), |item| item.ok_or(RecvTimeoutError::Closed))
    }

    /// As `try_recv`, at the end of a time-out.
    pub(crate) fn recv_now(&mut self) -> Result<T, RecvTimeoutError> {
        self.try_recv().map_err(|error| match error {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Closed => RecvTimeoutError::Closed,
        })
    }

    /// Receives up to `limit` items at once: as many as there are, but at least one. Waits while the channel is empty.
    ///
    /// Adds them to `buf` and returns how many. 0 is the end: the channel is closed, and nothing is left. With a
    /// `limit` of 0 it returns 0 at once.
    ///
    /// # Cancellation
    /// As [`recv`](Self::recv).
    pub async fn recv_many(&mut self, buf: &mut Vec<T>, limit: usize) -> usize {
        if limit == 0 {
            return 0;
        }
        let attempt = Attempt(self);
        let available = poll_fn(|cx| {
            ready!(attempt.0.budget.poll_ready(cx));
            let available = attempt.0.poll_available(cx, limit);
            if available.is_pending() {
                attempt.0.budget.count(0);
            }
            available
        });
        let items = available.await.unwrap_or(0).min(limit);
        attempt.0.budget.count(items);
        // Before any item is taken: if there is no memory for them, they stay in the channel.
        buf.reserve(items);
        buf.extend(iter::repeat_with(|| attempt.0.read()).take(items));
        attempt.0.hand_back(attempt.0.batch);
        items
    }

    /// The next item, if there is one right now. Never blocks.
    ///
    /// ```
    /// use offthread::spsc::{TryRecvError, channel};
    ///
    /// let (mut sender, mut receiver) = channel(1);
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    /// sender.try_send(1).unwrap();
    /// sender.close();
    /// assert_eq!(receiver.try_recv(), Ok(1));
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    /// ```
    ///
    /// # Errors
    /// [`Empty`](TryRecvError::Empty): one may still come. [`Closed`](TryRecvError::Closed): the channel is closed, and
    /// nothing is left.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        match self.available(1) {
            Poll::Ready(Some(_)) => Ok(self.pop()),
            Poll::Ready(None) => Err(TryRecvError::Closed),
            Poll::Pending => Err(TryRecvError::Empty),
        }
    }

    /// Iterates over the items until the channel is closed and nothing is left. Dropping the iterator loses nothing.
    ///
    /// # Blocking
    /// Each step is a [`recv_blocking`](Self::recv_blocking).
    pub fn iter(&mut self) -> impl Iterator<Item = T> {
        iter::from_fn(|| self.recv_blocking())
    }

    /// Closes the channel: from now on every send gives its item back. The items that are left can still be received.
    pub fn close(&mut self) {
        if self.closed {
            return;
        }
        self.closed = true;
        let tail = self.shared.tail.close();
        self.tail = tail.count();
        // After `tail`: a sender that waits for room is woken by `head`, and then looks at `tail` (rule 3).
        let head = self.shared.head.close();
        self.shared.head.notify(head);
        // The waker of an earlier `poll_recv` of this receiver: its task can now see the end.
        self.shared.tail.notify(tail);
    }

    /// Whether either end has closed the channel; items may be left. Once true, this stays true.
    pub fn is_closed(&self) -> bool {
        self.closed || self.shared.tail.load().is_closed()
    }

    /// How many items are in the channel. The sender may add items meanwhile; only this end takes any.
    pub fn len(&self) -> usize {
        let tail = if self.closed { self.tail } else { self.shared.tail.load().count() };
        tail.wrapping_sub(self.head) / ONE
    }

    /// Whether no item is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items the channel holds at the most.
    pub fn max_size(&self) -> usize {
        self.shared.slots.len()
    }
}

/// Blocks for each item, until the channel is closed and nothing is left.
///
/// # Blocking
/// As [`recv_blocking`](Receiver::recv_blocking).
pub struct IntoIter<T>(Receiver<T>);

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv_blocking()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        /// Closes, and drops the items that are left, also if user code (a waker, an item's `Drop`) panics meanwhile.
        struct Drain<'a, T>(&'a mut Receiver<T>);
        impl<T> Drain<'_, T> {
            fn drain(&mut self) {
                self.0.close();
                while self.0.known() > 0 {
                    drop(self.0.pop());
                }
            }
        }
        impl<T> Drop for Drain<'_, T> {
            fn drop(&mut self) {
                self.drain();
            }
        }
        let mut drain = Drain(self);
        drain.0.unwatch();
        drain.drain();
    }
}

/// The channel is closed. Gives the item back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(pub T);

/// Why [`Sender::try_send`] could not send. Gives the item back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room right now.
    Full(T),
    /// The channel is closed.
    Closed(T),
}

/// Why [`Sender::send_timeout`] or [`Sender::send_blocking_timeout`] could not send. Gives the item back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendTimeoutError<T> {
    /// There was no room in time.
    Timeout(T),
    /// The channel is closed.
    Closed(T),
}

/// Why [`Receiver::try_recv`] has no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// No item is there right now.
    Empty,
    /// The channel is closed, and nothing is left.
    Closed,
}

/// Why [`Receiver::recv_timeout`] or [`Receiver::recv_blocking_timeout`] has no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvTimeoutError {
    /// No item came in time.
    Timeout,
    /// The channel is closed, and nothing is left.
    Closed,
}

const FULL: &str = "the channel is full: wait with `send` or `send_blocking`, or try again later";
const LATE: &str = "the channel was full for the whole timeout: its receiver does not keep up";
const ENDED: &str = "the channel is closed: nothing more can be sent, and this item was not";
const EMPTY: &str = "the channel is empty: wait with `recv` or `recv_blocking`, or try again later";
const SILENT: &str = "no item came within the timeout; the channel is still open";
const DRAINED: &str = "the channel is closed and nothing is left in it";

impl_error!(SendError<T>: SendError(_) => "SendError(..)" "{ENDED}");
impl_error!(TrySendError<T>: Self::Full(_) => "Full(..)" "{FULL}", Self::Closed(_) => "Closed(..)" "{ENDED}");
impl_error!(SendTimeoutError<T>: Self::Timeout(_) => "Timeout(..)" "{LATE}", Self::Closed(_) => "Closed(..)" "{ENDED}");
impl_error!(TryRecvError: Self::Empty => "{EMPTY}", Self::Closed => "{DRAINED}");
impl_error!(RecvTimeoutError: Self::Timeout => "{SILENT}", Self::Closed => "{DRAINED}");

impl_debug!(Sender<T>, len(), max_size(), is_closed());

impl_debug!(Receiver<T>, len(), max_size(), is_closed());
impl_debug!(IntoIter<T>);

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::task::Wake;
    use std::{cell::Cell, rc::Rc};

    /// The ends of a channel whose counters are about to wrap must not notice.
    #[test]
    fn channel_works_when_counters_wrap() {
        for max_size in [1, 2, 3, 7] {
            for before in 0..2 * max_size {
                let (mut sender, mut receiver) = channel_at(max_size, (usize::MAX / ONE).wrapping_sub(before));
                for round in 0..4 * max_size {
                    for item in 0..max_size {
                        assert_eq!(sender.len(), item);
                        assert_eq!(sender.try_send((round, item)), Ok(()));
                    }
                    assert_eq!(sender.try_send((round, max_size)), Err(TrySendError::Full((round, max_size))));
                    for item in 0..max_size {
                        assert_eq!(receiver.len(), max_size - item);
                        assert_eq!(receiver.try_recv(), Ok((round, item)));
                    }
                    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
                }
                assert!(!sender.is_closed() && !receiver.is_closed(), "a count has run into the flags");
                receiver.close();
                assert!(sender.is_closed());
            }
        }
    }

    #[test]
    fn put_without_room_gives_the_item_back() {
        let (mut sender, mut receiver) = channel(1);
        assert!(sender.put(1).is_ok());
        assert_eq!(sender.put(2).err(), Some(2));
        assert_eq!(receiver.try_recv(), Ok(1));
    }

    /// A receiver that hands slots back by halves does so when half of the buffer is free, and before it waits.
    #[test]
    fn slots_come_back_by_halves() {
        for max_size in 1..10 {
            let (mut sender, mut receiver) = channel_by_halves(max_size);
            while sender.try_send(()).is_ok() {}
            let mut taken = 0;
            while sender.room().is_pending() {
                receiver.try_recv().unwrap();
                taken += 1;
            }
            assert_eq!(taken, max_size.div_ceil(2));
            while receiver.try_recv().is_ok() {}
            assert!(receiver.poll_recv(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
            assert_eq!(sender.len(), 0);
        }
    }

    /// An item whose `Drop` panics is dropped once, and those behind it are dropped all the same.
    #[test]
    fn items_are_dropped_once_even_if_one_panics() {
        struct Item(Rc<Cell<usize>>, bool);
        impl Drop for Item {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
                assert!(!self.1, "in drop");
            }
        }
        let drops = Rc::new(Cell::new(0));
        let (mut sender, receiver) = channel(4);
        for panics in [false, true, false, false] {
            sender.try_send(Item(drops.clone(), panics)).unwrap();
        }
        assert!(catch_unwind(AssertUnwindSafe(|| drop(receiver))).is_err());
        assert_eq!(drops.get(), 4);
        assert!(sender.is_closed());
    }

    /// A waker that panics as it is woken leaves both ends as they must be after the send, the receive, or the close.
    #[test]
    fn panicking_waker_leaves_both_ends_valid() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: std::sync::Arc<Self>) {
                panic!("in wake");
            }
        }
        let waker = std::sync::Arc::new(Panics).into();
        let cx = &mut Context::from_waker(&waker);
        let (mut sender, mut receiver) = channel(2);
        let panics = |f: &mut dyn FnMut()| assert!(catch_unwind(AssertUnwindSafe(f)).is_err());

        assert!(receiver.poll_recv(cx).is_pending());
        panics(&mut || drop(sender.try_send(Box::new(1))));
        assert_eq!(sender.len(), 1);
        sender.try_send(Box::new(2)).unwrap();

        assert!(sender.poll_room(cx).is_pending());
        panics(&mut || drop(receiver.try_recv()));
        assert_eq!((sender.len(), receiver.len()), (1, 1));
        assert_eq!(receiver.try_recv(), Ok(Box::new(2)));

        assert!(receiver.poll_recv(cx).is_pending());
        panics(&mut || receiver.close());
        assert_eq!(sender.try_send(Box::new(3)), Err(TrySendError::Closed(Box::new(3))));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    }
}
