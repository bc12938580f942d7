//! One value, one sender, one receiver.
//!
//! ```
//! # offthread::block_on(async {
//! let (sender, receiver) = offthread::oneshot::channel();
//! std::thread::spawn(move || sender.send(6 * 7));
//! assert_eq!(receiver.await, Ok(42));
//! # });
//! ```
//!
//! The channel is a single allocation. Either end may block or await, and may be moved between threads at any time.
//!
//! | | the receiver awaits | the receiver has closed, or was dropped |
//! |---|---|---|
//! | **the sender sends** | it gets the value | `Err(value)`: the value comes back |
//! | **the sender is dropped** | [`Closed`] | nothing |
//! | **the sender awaits [`closed`](Sender::closed)** | pending | ready |
// The five parts of the head, for maintainers; the text above is the module's public documentation.
//
// # What it promises
// `Core` hands one value from a sender to a receiver, at most once: a value that was sent is either received, or given back
// to the sender, or dropped by a receiver that gives up. `Shared` puts a core into an `Arc` beside data of its user. The
// channel below, a job's handle and a task's handle all receive through the same type, `Receiving`: it receives once, and
// gives up when it is dropped.
//
// # State machine
// Four bits. Transitions of the sender go right, those of the receiver go down:
//
//     0 ----------- send ---------> VALUE            0 ------- finish -----> CLOSED
//     | wait                                         the sender ended without a value
//     v
//     WAITING ----- send ---------> VALUE|WAITING    (the same with CLOSED)
//                                   the sender takes the receiver's waker and wakes it
//
//     UNWANTED: set by the receiver, at any time: it wants no value any more. `send` never sets VALUE after UNWANTED.
//
// # Who may touch what
// 1. `cell` is the sender's until the sender sets VALUE, then the receiver's. If `send` fails to set VALUE, `cell` stays
//    the sender's.
// 2. WAITING is set by the receiver alone, after it has put its waker into `receiver`.
// 3. There is one sender. For a `Sending` its constructor and `self` by value ensure that; any other sender has to promise
//    it to `Core::send`.
// 4. There is one receiver, a `Receiving`, and it drops its `Arc` in the step that takes the value out.
// 5. The `Arc` keeps the memory while either side uses it.
//
// # Synchronisation edges
// | id | release side | acquire side | publishes | model |
// |---|---|---|---|---|
// | O1 | `send`: VALUE | `poll`, `try_recv`, `is_finished` | the value | `send_poll` |
// | O2 | `close`: UNWANTED | `is_closed` | what the receiver did before it closed | `close_publishes` |
// | O3 | `finish`: CLOSED | `poll`, `try_recv` | what the sender did before it was dropped | `drop_publishes` |
//
// WAITING can be Relaxed: `take` acquires the slot. Had `take` run before `register`, `register` would synchronise with it
// and set WAITING afterwards, but the sender has already read WAITING: a contradiction.
//
// # What can go wrong
// * The receiver polls, then is dropped, while the sender sends (RUSTSEC-2026-0005): `send_drop_after_poll`.
// * It closes, or is dropped, while the sender sends: the value is dropped once: `send_close`, `send_drop`.
// * Polled with one waker, then with another, while the sender sends: `replaced_waker`.
// * Both are dropped at once: `drop_drop`.
// * `closed` registers as the receiver closes: `closed_close`, `closed_drop`.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::{error, fmt};

use crate::primitives::parker;
use crate::primitives::waker_slot::WakerSlot;
use crate::sync::atomic::AtomicU8;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{Mutex, UnsafeCell};

/// A snapshot of the four bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State(u8);

impl State {
    const EMPTY: Self = Self(0);
    const VALUE: Self = Self(1);
    const CLOSED: Self = Self(2);
    const WAITING: Self = Self(4);
    const UNWANTED: Self = Self(8);

    fn with(self, bit: Self) -> Self {
        Self(self.0 | bit.0)
    }

    fn has(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }
}

/// The hand-over of one value, in place.
pub(crate) struct Core<T> {
    state: AtomicU8,
    /// The receiver waits here.
    receiver: WakerSlot,
    cell: UnsafeCell<MaybeUninit<T>>,
}

impl<T> Core<T> {
    fn new() -> Self {
        Self {
            state: AtomicU8::new(State::EMPTY.0),
            receiver: WakerSlot::default(),
            cell: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Sends the value, and returns the receiver's waker, to be woken; or gives the value back if the receiver does not want it.
    ///
    /// # Safety
    /// The caller is the only sender of this core, and calls this at most once.
    pub(crate) unsafe fn send(&self, value: T) -> Result<Option<Waker>, T> {
        // SAFETY: rule 1: VALUE is not set before the only `send`, so the cell is the sender's.
        self.cell.with_mut(|cell| unsafe { (*cell).write(value) });
        let mut seen = State::EMPTY;
        loop {
            // ORDERING: Release [O1]: pairs with the loads of `poll`, `try_recv` and `is_finished`; publishes the value. On
            // failure, Relaxed: nothing is read because of it but the waker, which the slot's own edges order.
            match self.state.compare_exchange(seen.0, seen.with(State::VALUE).0, Release, Relaxed) {
                Ok(_) if seen.has(State::WAITING) => return Ok(self.receiver.take()),
                Ok(_) => return Ok(None),
                Err(now) if State(now).has(State::UNWANTED) => {
                    // SAFETY: rule 1: VALUE was not set, so the cell is still the sender's; it was written above.
                    return Err(self.cell.with_mut(|cell| unsafe { (*cell).assume_init_read() }));
                }
                // WAITING has appeared, which happens once.
                Err(now) => seen = State(now),
            }
        }
    }

    /// The sender ends without a value.
    fn finish(&self) {
        // ORDERING: Release [O3]: pairs with the loads of `poll` and `try_recv`; publishes what the sender did before.
        if State(self.state.fetch_or(State::CLOSED.0, Release)).has(State::WAITING) {
            self.receiver.wake();
        }
    }

    /// Whether the receiver wants no value any more.
    fn is_closed(&self) -> bool {
        // ORDERING: Acquire [O2]: pairs with `close`; what the receiver did before is seen.
        State(self.state.load(Acquire)).has(State::UNWANTED)
    }

    /// Whether the sender has sent a value, or has ended without one.
    fn is_finished(&self) -> bool {
        // ORDERING: Acquire [O1, O3]: pairs with `send` and `finish`; what the sender did before is seen.
        State(self.state.load(Acquire)).has(State::VALUE.with(State::CLOSED))
    }

    /// The receiver's view of the state. Takes the value out if there is one.
    ///
    /// # Safety
    /// The caller is the receiver, has acquired `state`, and has not taken the value before.
    unsafe fn look(&self, state: State) -> Poll<Result<T, Closed>> {
        if state.has(State::VALUE) {
            // SAFETY: rule 1: VALUE is set and acquired, so the cell is the receiver's; the value is read once.
            Poll::Ready(Ok(self.cell.with_mut(|cell| unsafe { (*cell).assume_init_read() })))
        } else if state.has(State::CLOSED.with(State::UNWANTED)) {
            Poll::Ready(Err(Closed))
        } else {
            Poll::Pending
        }
    }

    /// The value, if it is there.
    ///
    /// # Safety
    /// The caller is the receiver, and has not taken the value before.
    unsafe fn try_recv(&self) -> Poll<Result<T, Closed>> {
        // ORDERING: Acquire [O1, O3]: pairs with `send` and `finish`; the value, or what came before the end.
        let state = State(self.state.load(Acquire));
        // SAFETY: the receiver calls this, with a state that was acquired here.
        unsafe { self.look(state) }
    }

    /// The value, or a wake-up once it is there.
    ///
    /// # Safety
    /// As for `try_recv`.
    unsafe fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<T, Closed>> {
        // ORDERING: Acquire [O1, O3]: as in `try_recv`.
        let state = State(self.state.load(Acquire));
        // SAFETY: the receiver calls this, with a state that was acquired here.
        let result = unsafe { self.look(state) };
        if result.is_ready() {
            return result;
        }
        // Register, then look again: the exchange is the second look. It fails if the state has changed.
        self.receiver.register(cx.waker());
        // ORDERING: Relaxed: see the head. On failure, Acquire [O1, O3]: as in `try_recv`.
        match self.state.compare_exchange(state.0, state.with(State::WAITING).0, Relaxed, Acquire) {
            Ok(_) => Poll::Pending,
            Err(now) => {
                // The sender has ended, so it will not take the waker.
                self.unwatch();
                // SAFETY: the receiver calls this; the failed exchange acquired the state, and the first look took nothing.
                unsafe { self.look(State(now)) }
            }
        }
    }

    /// The receiver does not wait any more: drops its waker. WAITING may stay, for a wake that finds no waker.
    fn unwatch(&self) {
        drop(self.receiver.take());
    }

    /// The receiver wants no value any more. A value that was sent before is still there.
    fn close(&self) {
        // ORDERING: Release [O2]: pairs with `is_closed`; publishes what the receiver did before.
        self.state.fetch_or(State::UNWANTED.0, Release);
    }
}

/// The memory of a channel: the core of its two ends, and a head that its user may reach as well.
pub(crate) struct Shared<H, T> {
    pub(crate) head: H,
    core: Core<T>,
}

// SAFETY: a shared reference gives access to `head` alone; the value is reached through the two ends, which are `Send` only
// where the value is. No value is left to be dropped with the last `Arc`, on any thread: a sent value is taken out by the
// `Receiving`, at the latest when that is dropped (rule 4); after that, `send` gives the value back.
unsafe impl<H: Send, T> Send for Shared<H, T> {}
// SAFETY: see above.
unsafe impl<H: Sync, T> Sync for Shared<H, T> {}

impl<H, T> Shared<H, T> {
    pub(crate) fn new(head: H) -> Self {
        Self { head, core: Core::new() }
    }
}

/// A place with a core in it. It names the core of a [`Shared`] whose other types are erased.
pub(crate) trait HasCore<T> {
    fn core(&self) -> &Core<T>;
}

impl<H, T> HasCore<T> for Shared<H, T> {
    fn core(&self) -> &Core<T> {
        &self.core
    }
}

/// A sender. Dropping it ends the sending without a value.
pub(crate) struct Sending<T, H> {
    /// `None` once it has sent.
    shared: Option<Arc<Shared<H, T>>>,
    /// It is `Send` and `Sync` where `T` is `Send`.
    _value: PhantomData<Mutex<T>>,
}

/// Nothing in it is ever pinned.
impl<T, H> Unpin for Sending<T, H> {}
/// A panic leaves no end half changed: the state is changed in single steps.
impl<T, H> UnwindSafe for Sending<T, H> {}
impl<T, H> RefUnwindSafe for Sending<T, H> {}

/// A receiver. Dropping it gives the value up.
pub(crate) struct Receiving<T, S: HasCore<T> + ?Sized> {
    /// `None` once the value, or the end, has been received, or the receiver has given up.
    shared: Option<Arc<S>>,
    /// As for [`Sending`].
    _value: PhantomData<Mutex<T>>,
}

/// Nothing in it is ever pinned.
impl<T, S: HasCore<T> + ?Sized> Unpin for Receiving<T, S> {}
/// As for [`Sending`].
impl<T, S: HasCore<T> + ?Sized> UnwindSafe for Receiving<T, S> {}
impl<T, S: HasCore<T> + ?Sized> RefUnwindSafe for Receiving<T, S> {}

/// Makes both ends, and the memory that they share: one allocation.
pub(crate) fn pair<T, H>(head: H) -> (Sending<T, H>, Receiving<T, Shared<H, T>>) {
    let shared = Arc::new(Shared::new(head));
    (Sending { shared: Some(shared.clone()), _value: PhantomData }, Receiving::new(shared))
}

impl<T, H> Sending<T, H> {
    /// `None` once it has sent.
    pub(crate) fn shared(&self) -> Option<&Shared<H, T>> {
        self.shared.as_deref()
    }

    /// As [`Sender::send`].
    pub(crate) fn send(mut self, value: T) -> Result<(), T> {
        let Some(shared) = self.shared.take() else { unreachable!("`send` consumes the sender") };
        // SAFETY: rule 3: `pair` made one `Sending`, and this consumes it.
        if let Some(waker) = unsafe { shared.core.send(value) }? {
            waker.wake();
        }
        Ok(())
    }
}

impl<T, H> Drop for Sending<T, H> {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.core.finish();
        }
    }
}

impl<T, S: HasCore<T> + ?Sized> Receiving<T, S> {
    /// The one receiver of a core that has none yet.
    pub(crate) fn new(shared: Arc<S>) -> Self {
        Self { shared: Some(shared), _value: PhantomData }
    }

    /// `None` once the value, or the end, has been received, or the receiver has given up.
    pub(crate) fn shared(&self) -> Option<&Arc<S>> {
        self.shared.as_ref()
    }

    /// Whether a look now would find the value or the end.
    pub(crate) fn is_finished(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.core().is_finished())
    }

    fn try_recv(&mut self) -> Poll<Result<T, Closed>> {
        // SAFETY: rule 4: this is the receiver, and it has an `Arc` only until it has taken the value.
        self.receive(|core| unsafe { core.try_recv() })
    }

    /// Looks for the value by one of the core's two ways, and drops the `Arc` once there is a result.
    fn receive(&mut self, look: impl FnOnce(&Core<T>) -> Poll<Result<T, Closed>>) -> Poll<Result<T, Closed>> {
        let Some(shared) = &self.shared else { return Poll::Ready(Err(Closed)) };
        let result = look(shared.core());
        if result.is_ready() {
            self.shared = None;
        }
        result
    }

    /// Does not wait any more: drops the waker of the last poll.
    pub(crate) fn unwatch(&self) {
        if let Some(shared) = &self.shared {
            shared.core().unwatch();
        }
    }

    /// Gives the value up. Returns the memory, and what the core still held: the caller drops both, in its own order.
    #[expect(clippy::type_complexity, reason = "the caller only drops the two options")]
    pub(crate) fn give_up(&mut self) -> Option<(Arc<S>, (Option<T>, Option<Waker>))> {
        let shared = self.shared.take()?;
        let core = shared.core();
        core.close();
        let waker = core.receiver.take();
        // SAFETY: rule 4: this is the receiver, and it had an `Arc` until now, so it has not taken the value.
        let value = match unsafe { core.try_recv() } {
            Poll::Ready(Ok(value)) => Some(value),
            _ => None,
        };
        Some((shared, (value, waker)))
    }
}

impl<T, S: HasCore<T> + ?Sized> Future for Receiving<T, S> {
    type Output = Result<T, Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: rule 4: as in `try_recv`.
        self.receive(|core| unsafe { core.poll(cx) })
    }
}

impl<T, S: HasCore<T> + ?Sized> Drop for Receiving<T, S> {
    fn drop(&mut self) {
        drop(self.give_up());
    }
}

/// In the head of a public channel, the sender waits for the receiver to close.
type Channel<T> = Shared<WakerSlot, T>;

/// Makes a channel for one value. One allocation.
///
/// See the [module](self) for what its two ends do.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sending, receiving) = pair(WakerSlot::default());
    (Sender(sending), Receiver(receiving))
}

/// The end that sends the value. Dropping it closes the channel.
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>() {}
/// is_send::<offthread::oneshot::Sender<std::rc::Rc<()>>>();
/// ```
/// ```compile_fail,E0599
/// let (sender, _receiver) = offthread::oneshot::channel::<i32>();
/// let _ = sender.clone();
/// ```
#[must_use = "dropping the sender closes the channel without a value"]
pub struct Sender<T>(Sending<T, WakerSlot>);

/// The end that receives the value: a future of it. Dropping it closes the channel, and drops a value that was sent.
///
/// After the value has been received it is closed.
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>() {}
/// is_send::<offthread::oneshot::Receiver<std::rc::Rc<()>>>();
/// ```
/// ```compile_fail,E0599
/// let (_sender, receiver) = offthread::oneshot::channel::<i32>();
/// let _ = receiver.clone();
/// ```
#[must_use = "dropping the receiver closes the channel, and the value with it"]
pub struct Receiver<T>(Receiving<T, Channel<T>>);

impl<T> Sender<T> {
    fn channel(&self) -> &Channel<T> {
        match self.0.shared() {
            Some(channel) => channel,
            None => unreachable!("`send` consumes the sender"),
        }
    }

    /// Sends the value and wakes the receiver. Never blocks.
    ///
    /// # Errors
    /// The value, if the receiver was closed or dropped. After `Ok` the value is received, or dropped together with the
    /// receiver.
    ///
    /// # Synchronization
    /// What this thread did before happens before the receiver gets the value.
    pub fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }

    /// Whether the receiver was closed or dropped: a value would come back. It stays so.
    pub fn is_closed(&self) -> bool {
        self.channel().core.is_closed()
    }

    /// Returns once the receiver was closed or dropped.
    ///
    /// For work that is worth nothing when nobody waits for it any more.
    ///
    /// # Cancellation
    /// Dropping the future only stops the waiting.
    pub async fn closed(&mut self) {
        /// Withdraws the waker, however the waiting ends.
        struct Waiting<'a, T>(&'a Channel<T>);
        impl<T> Drop for Waiting<'_, T> {
            fn drop(&mut self) {
                drop(self.0.head.take());
            }
        }
        if self.is_closed() {
            return;
        }
        let waiting = Waiting(self.channel());
        poll_fn(|cx| {
            // Register, then look again.
            waiting.0.head.register(cx.waker());
            if waiting.0.core.is_closed() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl<T> Receiver<T> {
    /// The value, if it is there. Never blocks.
    ///
    /// # Errors
    /// [`Empty`](TryRecvError::Empty): it may still come. [`Closed`](TryRecvError::Closed): it will not: the sender was
    /// dropped without sending, this end was closed before a value was sent, or the value has been received.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        match self.0.try_recv() {
            Poll::Ready(Ok(value)) => Ok(value),
            Poll::Ready(Err(Closed)) => Err(TryRecvError::Closed),
            Poll::Pending => Err(TryRecvError::Empty),
        }
    }

    /// Blocks this thread until the value is there.
    ///
    /// # Errors
    /// [`Closed`] if no value will come.
    ///
    /// # Blocking
    /// On the thread of an event loop this stops the loop. If what it waits for needs that loop, it never returns: await the
    /// receiver there.
    pub fn recv_blocking(self) -> Result<T, Closed> {
        parker::block_on(self)
    }

    /// Does not wait any more: drops the waker of the last poll.
    pub(crate) fn unwatch(&self) {
        self.0.unwatch();
    }

    /// Closes the channel: the sender cannot send any more, and learns it. A value that was sent before can still be
    /// received.
    pub fn close(&mut self) {
        if let Some(channel) = self.0.shared() {
            channel.core.close();
            channel.head.wake();
            // A waker that a poll left on this end: there is an end to see.
            channel.core.receiver.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if let Some((channel, unwanted)) = self.0.give_up() {
            channel.head.wake();
            drop(unwanted);
        }
    }
}

/// No value will come: the sender was dropped without sending, or this end was closed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Why [`Receiver::try_recv`] has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// Not yet.
    Empty,
    /// It will not come: see [`Closed`].
    Closed,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no value will come: the sender was dropped without sending one, or the receiver was closed before")
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no value yet: try again later, or await the receiver"),
            Self::Closed => Closed.fmt(f),
        }
    }
}

impl error::Error for Closed {}
impl error::Error for TryRecvError {}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
