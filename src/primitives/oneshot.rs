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
//! The channel is a single allocation, without a reference count. Either end may be used in blocking or in async
//! code, and may be moved between threads at any time.
//!
//! | | the receiver awaits | the receiver has closed, or was dropped |
//! |---|---|---|
//! | **the sender sends** | the receiver gets the value | `Err(value)`: the value comes back |
//! | **the sender is dropped** | [`Closed`] | nothing |
//! | **the sender awaits [`closed`](Sender::closed)** | pending | ready |
// The five parts of the head, for maintainers; the text above is the module's public documentation.
//
// # What it promises
// `Core` hands one value from a sender to a receiver, at most once. A value is received, or given back to the sender,
// or dropped by a receiver that gives up. `Shared` is the memory of both ends: a core, and a head with the user's data.
// The channel below, a job's handle and a task's handle all receive through the same type, `Receiving`: it receives
// once, and gives up when it is dropped.
//
// A job and a task keep their `Shared` in an `Arc`. A channel needs no reference count: it has two ends, each with a
// `ChannelPtr`, and one bit of the state says that one of the two ends is gone.
//
// The simplest versions: `examples/made_1_oneshot_blocking.rs`, and with a waker `examples/made_2_oneshot_waker.rs`.
//
// # State machine
// Five bits. Transitions of the sender go right, those of the receiver go down:
//
//     0 ----------- send ---------> VALUE|UNSHARED   0 ------- finish -----> CLOSED
//     | wait                                         the sender ended without a value
//     v
//     WAITING ----- send ---------> VALUE|WAITING    (the same with CLOSED)
//                                   the sender takes the receiver's waker and wakes it
//
//     UNWANTED: set by the receiver, at any time: it wants no value any more. `send` never sets VALUE after UNWANTED.
//     UNSHARED: set once, by the end that gives its pointer up first: from then on the other end owns the memory alone.
//               If the receiver does not wait, `send` sets UNSHARED together with VALUE. In all other cases the `drop`
//               of a `ChannelPtr` sets it. Where an `Arc` owns the memory, UNSHARED has no meaning.
//
// # Who may touch what
// 1. `cell` is the sender's until the sender sets VALUE, then the receiver's. If `send` fails to set VALUE, `cell`
//    stays the sender's.
// 2. WAITING is set by the receiver alone, after it has put its waker into `receiver`.
// 3. There is one sender. `pair` and `channel` make one `Sending`, and its `send` consumes it; any other caller of
//    `Core::send` promises to be the only one.
// 4. There is one receiver, a `Receiving`, and it drops its pointer in the step that takes the value out.
// 5. An end touches the memory only while it has its pointer. `channel` makes two `ChannelPtr`s of one memory. Setting
//    UNSHARED is the last access of the end that sets it; the end that finds UNSHARED set frees the memory. A pointer
//    of another type (`Arc`, `&`) owns the memory or borrows it.
//
// # Synchronisation edges
// | id | release side | acquire side | publishes | model |
// |---|---|---|---|---|
// | O1 | `send`: VALUE | `poll`, `is_finished` | the value | `send_poll` |
// | O2 | `close`: UNWANTED | `is_closed` | what the receiver did before it closed | `close_publishes` |
// | O3 | `finish`: CLOSED | `poll`, `is_finished` | what the sender did before it was dropped | `drop_publishes` |
// | O4 | `send`, `ChannelPtr::drop`: UNSHARED | `ChannelPtr::drop` | all accesses of one end | `drop_drop` |
//
// WAITING can be Relaxed: `take` acquires the slot. Had `take` run before `register`, `register` would synchronise with
// it and set WAITING afterwards, but the sender has already read WAITING: a contradiction.
//
// # What can go wrong
// * The receiver polls, then is dropped, while the sender sends (RUSTSEC-2026-0005): `send_drop_after_poll`.
// * The receiver closes, or is dropped, while the sender sends: the value is dropped once: `send_close`, `send_drop`.
// * Polled with one waker, then with another, while the sender sends: `replaced_waker`.
// * The receiver has the value and frees the memory while the sender is still in `send`: `free_after_send`.
// * The same while the sender still takes the waker: `free_after_wake`.
// * Both ends are dropped at once, and both free the memory, or neither does: `drop_drop`.
// * `closed` registers as the receiver closes: `closed_close`, `closed_drop`.
// * The receiver is dropped as the sender withdraws the waker of `closed`: `cancelled_closed_drop`.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::primitives::attempt::{Attempt, Watch};
use crate::primitives::parker;
use crate::primitives::waker_slot::WakerSlot;
use crate::sync::atomic::AtomicU8;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{Mutex, UnsafeCell};

/// A snapshot of the five bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State(u8);

impl State {
    const EMPTY: Self = Self(0);
    const VALUE: Self = Self(1);
    const CLOSED: Self = Self(2);
    const WAITING: Self = Self(4);
    const UNWANTED: Self = Self(8);
    const UNSHARED: Self = Self(16);

    fn with(self, bit: Self) -> Self {
        Self(self.0 | bit.0)
    }

    fn has(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }
}

/// The state and the cell through which one value goes from a sender to a receiver.
pub(crate) struct Core<T> {
    state: AtomicU8,
    /// The receiver waits here.
    receiver: WakerSlot,
    cell: UnsafeCell<MaybeUninit<T>>,
}

impl<T> Core<T> {
    /// Sends the value, and returns the receiver's waker, to be woken. Gives the value back if the receiver does not
    /// want it.
    ///
    /// This consumes the sender's pointer, since the receiver may free the memory before this returns.
    ///
    /// # Safety
    /// The caller is the only sender of this core, and calls this at most once.
    pub(crate) unsafe fn send<P: Pointer<T>>(shared: P, value: T) -> Result<Option<Waker>, T> {
        let core = shared.core();
        // SAFETY: rule 1: VALUE is not set before the only `send`, so the cell is the sender's.
        core.cell.with_mut(|cell| unsafe { (*cell).write(value) });
        let mut seen = State::EMPTY;
        loop {
            let sent = if seen.has(State::WAITING) { State::VALUE } else { State::VALUE.with(State::UNSHARED) };
            // ORDERING: Release [O1, O4]: pairs with the loads of `poll`, `is_finished` and `ChannelPtr::drop`;
            // publishes the value and all accesses before. On failure, Relaxed: only the waker is read because of it,
            // and the slot's own edges order that.
            match core.state.compare_exchange(seen.0, seen.with(sent).0, Release, Relaxed) {
                Ok(_) if seen.has(State::WAITING) => return Ok(core.take_waker()),
                Ok(_) => {
                    shared.unshare();
                    return Ok(None);
                }
                Err(now) if State(now).has(State::UNWANTED) => {
                    // SAFETY: rule 1: VALUE was not set, so the cell is still the sender's; it was written above.
                    return Err(core.cell.with_mut(|cell| unsafe { (*cell).assume_init_read() }));
                }
                // WAITING has appeared, which happens once.
                Err(now) => seen = State(now),
            }
        }
    }

    /// The sender ends without a value.
    fn finish(&self) {
        // ORDERING: Release [O3]: pairs with `poll` and `is_finished`; publishes what the sender did before its drop.
        if State(self.state.fetch_or(State::CLOSED.0, Release)).has(State::WAITING) {
            self.receiver.wake();
        }
    }

    /// Whether the receiver wants no value any more.
    fn is_closed(&self) -> bool {
        // ORDERING: Acquire [O2]: pairs with `close`; what the receiver did before it closed is seen.
        State(self.state.load(Acquire)).has(State::UNWANTED)
    }

    /// Whether the sender has sent a value, or has ended without one.
    fn is_finished(&self) -> bool {
        // ORDERING: Acquire [O1, O3]: pairs with `send` and `finish`; what the sender did before its end is seen.
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

    /// Takes the value, if it has been sent. Otherwise `waker`, if given, is woken when the sender has sent or ended.
    ///
    /// # Safety
    /// The caller is the receiver, and has not taken the value before.
    unsafe fn poll(&self, waker: Option<&Waker>) -> Poll<Result<T, Closed>> {
        // ORDERING: Acquire [O1, O3]: pairs with `send` and `finish`; the value, or what came before the end.
        let state = State(self.state.load(Acquire));
        // SAFETY: the receiver calls this, with a state that was acquired here.
        let result = unsafe { self.look(state) };
        let (Poll::Pending, Some(waker)) = (&result, waker) else { return result };
        // Register, then look again: the exchange is the second look. It fails if the state has changed.
        self.receiver.register(waker);
        // ORDERING: Relaxed: see the head. On failure, Acquire [O1, O3]: as above.
        match self.state.compare_exchange(state.0, state.with(State::WAITING).0, Relaxed, Acquire) {
            Ok(_) => Poll::Pending,
            Err(now) => {
                // The sender has sent or ended. If it did not see WAITING, it will not take the waker.
                drop(self.take_waker());
                // SAFETY: the receiver calls this; the failed exchange acquired the state; the first look took nothing.
                unsafe { self.look(State(now)) }
            }
        }
    }

    /// Takes the receiver's waker. WAITING may stay set: the sender then finds no waker. Cold, so that a `send` without
    /// a waiting receiver stays short.
    #[cold]
    fn take_waker(&self) -> Option<Waker> {
        self.receiver.take()
    }

    /// The receiver wants no value any more. A value that was sent before is still there.
    fn close(&self) {
        // ORDERING: Release [O2]: pairs with `is_closed`; publishes what the receiver did before it closed.
        self.state.fetch_or(State::UNWANTED.0, Release);
    }
}

/// The memory of two ends: their core, and a head, to which the user has access.
pub(crate) struct Shared<H, T> {
    pub(crate) head: H,
    core: Core<T>,
}

// SAFETY: a shared reference gives access to `head` alone; the value is reached through the two ends, which are `Send`
// only where the value is. No value is left to be dropped with the memory, on any thread. The `Receiving` takes a sent
// value out, at the latest when the `Receiving` is dropped (rule 4). After that, `send` gives the value back.
unsafe impl<H: Send, T> Send for Shared<H, T> {}
// SAFETY: see above.
unsafe impl<H: Sync, T> Sync for Shared<H, T> {}

impl<H, T> Shared<H, T> {
    pub(crate) fn new(head: H) -> Self {
        let state = AtomicU8::new(State::EMPTY.0);
        let cell = UnsafeCell::new(MaybeUninit::uninit());
        Self { head, core: Core { state, receiver: WakerSlot::default(), cell } }
    }
}

/// Gives access to the core of a [`Shared`] whose other types are erased.
pub(crate) trait HasCore<T> {
    fn core(&self) -> &Core<T>;
}

impl<H, T> HasCore<T> for Shared<H, T> {
    fn core(&self) -> &Core<T> {
        &self.core
    }
}

/// A pointer of one end to the memory of a core. The memory exists until the pointer is dropped: see rule 5.
pub(crate) trait Pointer<T>: Deref<Target: HasCore<T>> + Sized {
    /// Wakes a sender that waits for the receiver to close.
    fn wake_sender(&self) {}

    /// Drops the pointer of a sender that has set UNSHARED together with VALUE.
    fn unshare(self) {}
}

impl<T, S: HasCore<T> + ?Sized> Pointer<T> for Arc<S> {}
impl<T, S: HasCore<T>> Pointer<T> for &S {}

/// A sender, with its pointer to the memory. Dropping it before it has sent resolves the receiver with [`Closed`].
pub(crate) struct Sending<T, P: Pointer<T>> {
    /// `None` once it has sent.
    shared: Option<P>,
    /// Makes this `Send` and `Sync` if `T` is `Send`.
    _value: PhantomData<Mutex<T>>,
}

/// Nothing in it is ever pinned.
impl<T, P: Pointer<T>> Unpin for Sending<T, P> {}
/// A panic leaves no end half changed: the state is changed in single steps.
impl<T, P: Pointer<T>> UnwindSafe for Sending<T, P> {}
impl<T, P: Pointer<T>> RefUnwindSafe for Sending<T, P> {}

/// A receiver, with its pointer to the memory. Dropping it gives the value up.
pub(crate) struct Receiving<T, P: Pointer<T>> {
    /// `None` once the value, or the end, has been received, or the receiver has given up.
    shared: Option<P>,
    /// As for [`Sending`].
    _value: PhantomData<Mutex<T>>,
}

/// Nothing in it is ever pinned.
impl<T, P: Pointer<T>> Unpin for Receiving<T, P> {}
/// As for [`Sending`].
impl<T, P: Pointer<T>> UnwindSafe for Receiving<T, P> {}
impl<T, P: Pointer<T>> RefUnwindSafe for Receiving<T, P> {}

/// Makes both ends, and the memory that they share: one allocation.
#[expect(clippy::type_complexity, reason = "these are the two ends")]
pub(crate) fn pair<T, H>(head: H) -> (Sending<T, Arc<Shared<H, T>>>, Receiving<T, Arc<Shared<H, T>>>) {
    let shared = Arc::new(Shared::new(head));
    (Sending::new(shared.clone()), Receiving::new(shared))
}

impl<T, P: Pointer<T>> Sending<T, P> {
    /// The one sender of a core that has none yet.
    fn new(shared: P) -> Self {
        Self { shared: Some(shared), _value: PhantomData }
    }

    /// `None` once it has sent.
    pub(crate) fn shared(&self) -> Option<&P> {
        self.shared.as_ref()
    }

    /// As [`Sender::send`].
    pub(crate) fn send(mut self, value: T) -> Result<(), T> {
        let Some(shared) = self.shared.take() else { unreachable!("`send` consumes the sender") };
        // SAFETY: rule 3: a core has one `Sending`, and this consumes it.
        if let Some(waker) = unsafe { Core::send(shared, value) }? {
            waker.wake();
        }
        Ok(())
    }
}

impl<T, P: Pointer<T>> Drop for Sending<T, P> {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.core().finish();
        }
    }
}

impl<T, P: Pointer<T>> Receiving<T, P> {
    /// The one receiver of a core that has none yet.
    pub(super) fn new(shared: P) -> Self {
        Self { shared: Some(shared), _value: PhantomData }
    }

    /// `None` once the value, or the end, has been received, or the receiver has given up.
    pub(crate) fn shared(&self) -> Option<&P> {
        self.shared.as_ref()
    }

    /// Whether the sender has sent or ended, or this end has its result already: then a poll is ready.
    pub(crate) fn is_finished(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.core().is_finished())
    }

    /// As [`Core::poll`]. Drops the pointer once there is a result.
    fn receive(&mut self, waker: Option<&Waker>) -> Poll<Result<T, Closed>> {
        let Some(shared) = &self.shared else { return Poll::Ready(Err(Closed)) };
        // SAFETY: rule 4: this is the receiver, and it has its pointer only until it has taken the value.
        let result = unsafe { shared.core().poll(waker) };
        if result.is_ready() {
            self.shared = None;
        }
        result
    }

    /// Stops waiting: drops the waker of the last poll.
    pub(crate) fn unwatch(&self) {
        if let Some(shared) = &self.shared {
            drop(shared.core().take_waker());
        }
    }

    /// Gives the value up. Returns the pointer, and the value and the waker that the core still held. The caller drops
    /// these in the order that it needs.
    #[expect(clippy::type_complexity, reason = "the caller only drops the two options")]
    pub(crate) fn give_up(&mut self) -> Option<(P, (Option<T>, Option<Waker>))> {
        let shared = self.shared.take()?;
        let core = shared.core();
        core.close();
        let waker = core.receiver.take();
        // SAFETY: rule 4: this is the receiver, and it had its pointer until now, so it has not taken the value.
        let value = match unsafe { core.poll(None) } {
            Poll::Ready(Ok(value)) => Some(value),
            _ => None,
        };
        Some((shared, (value, waker)))
    }

    #[cold]
    fn drop_unreceived(&mut self) {
        if let Some((shared, unwanted)) = self.give_up() {
            shared.wake_sender();
            drop(unwanted);
        }
    }
}

impl<T, P: Pointer<T>> Future for Receiving<T, P> {
    type Output = Result<T, Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.receive(Some(cx.waker()))
    }
}

impl<T, P: Pointer<T>> Drop for Receiving<T, P> {
    fn drop(&mut self) {
        if self.shared.is_some() {
            self.drop_unreceived();
        }
    }
}

/// The memory of a public channel. Its head has the waker of a sender that waits for the receiver to close.
type Channel<T> = Shared<WakerSlot, T>;

/// The pointer of one end to the memory that the two ends of a channel own together. See rule 5.
struct ChannelPtr<T>(NonNull<Channel<T>>);

// SAFETY: a `ChannelPtr` gives shared access to a `Shared`, which is `Sync`, and frees the `Shared`, which is also
// `Send`, on any thread.
unsafe impl<T> Send for ChannelPtr<T> {}
// SAFETY: see above.
unsafe impl<T> Sync for ChannelPtr<T> {}

impl<T> Deref for ChannelPtr<T> {
    type Target = Channel<T>;

    fn deref(&self) -> &Channel<T> {
        // SAFETY: rule 5: this pointer has not been dropped, so the memory exists.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Pointer<T> for ChannelPtr<T> {
    fn wake_sender(&self) {
        self.head.wake();
    }

    fn unshare(self) {
        mem::forget(self);
    }
}

impl<T> Drop for ChannelPtr<T> {
    // Not inlined, so that the compiler can inline the destructors of the two ends.
    #[inline(never)]
    fn drop(&mut self) {
        let state = &self.core.state;
        // ORDERING: Acquire [O4]: pairs with `send`, or with the `fetch_or` below, of the other end; its accesses came
        // before.
        let is_alone = State(state.load(Acquire)).has(State::UNSHARED)
            // ORDERING: AcqRel [O4]: Release: pairs with both operations of the other end's drop; publishes this end's
            // accesses. Acquire: as above.
            || State(state.fetch_or(State::UNSHARED.0, AcqRel)).has(State::UNSHARED);
        if is_alone {
            // SAFETY: rule 5: the other end has set UNSHARED in its last access, which was acquired above. This end
            // does not use its pointer again. `channel` took the memory from a `Box` of this type.
            let channel = unsafe { Box::from_raw(self.0.as_ptr()) };
            // In a model this checks that the other end's last access came before.
            let _ = channel.core.state.into_inner();
        }
    }
}

/// Makes a channel for one value. One allocation.
///
/// See the [module](self) for what its two ends do.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    // Written in place: a copy from the stack would read in one load what several stores have just written, which
    // defeats store forwarding.
    let memory = Box::leak(Box::new_uninit());
    let channel = NonNull::from(memory.write(Channel::new(WakerSlot::default())));
    (Sender(Sending::new(ChannelPtr(channel))), Receiver(Receiving::new(ChannelPtr(channel))))
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
pub struct Sender<T>(Sending<T, ChannelPtr<T>>);

/// The end that receives the value: a future of it. Dropping it closes the channel, and drops a value that was sent.
///
/// After the value it yields [`Closed`].
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>() {}
/// is_send::<offthread::oneshot::Receiver<std::rc::Rc<()>>>();
/// ```
/// ```compile_fail,E0599
/// let (_sender, receiver) = offthread::oneshot::channel::<i32>();
/// let _ = receiver.clone();
/// ```
#[must_use = "dropping the receiver closes the channel, and drops the value"]
pub struct Receiver<T>(Receiving<T, ChannelPtr<T>>);

impl<T> Sender<T> {
    fn channel(&self) -> &Channel<T> {
        let Some(channel) = self.0.shared() else { unreachable!("`send` consumes the sender") };
        channel
    }

    /// Sends the value and wakes the receiver. Never blocks.
    ///
    /// # Errors
    /// The value, if the receiver was closed or dropped. After `Ok` the value is received, or dropped together with the
    /// receiver.
    ///
    /// # Synchronization
    /// All that this thread did before happens before the receiver gets the value.
    pub fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }

    /// Whether the receiver was closed or dropped: a value would come back. Once true, this stays true.
    pub fn is_closed(&self) -> bool {
        self.channel().core.is_closed()
    }

    /// Returns once the receiver was closed or dropped.
    ///
    /// For work that can stop when nobody waits for its result any more.
    ///
    /// # Cancellation
    /// Dropping the future only stops the waiting.
    pub async fn closed(&mut self) {
        if self.is_closed() {
            return;
        }
        let attempt = Attempt(self);
        poll_fn(|cx| {
            let channel = attempt.0.channel();
            // Register, then look again.
            channel.head.register(cx.waker());
            if channel.core.is_closed() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl<T> Watch for Sender<T> {
    fn unwatch(&mut self) {
        drop(self.channel().head.take());
    }
}

impl<T> Receiver<T> {
    /// The value, if it is there. Never blocks.
    ///
    /// # Errors
    /// [`Empty`](TryRecvError::Empty): the value may still come. [`Closed`](TryRecvError::Closed): it will not, since
    /// the sender was dropped without sending, this end was closed before, or the value has been received.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        match self.0.receive(None) {
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
    /// On an event loop's thread this stops the loop, and never returns if the sender needs the loop: await the
    /// receiver there.
    pub fn recv_blocking(self) -> Result<T, Closed> {
        parker::block_on(self)
    }

    /// Stops waiting: drops the waker of the last poll.
    pub(crate) fn unwatch(&self) {
        self.0.unwatch();
    }

    /// Closes the channel: from now on `send` fails, and [`closed`](Sender::closed) returns. A value that was sent
    /// before can still be received.
    pub fn close(&mut self) {
        if let Some(channel) = self.0.shared() {
            channel.core.close();
            channel.wake_sender();
            // The waker of an earlier poll of this receiver: its task can now see the end.
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

/// No value will come: the sender was dropped, this end was closed, or the value was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Why [`Receiver::try_recv`] has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// No value has been sent yet.
    Empty,
    /// No value will come: see [`Closed`].
    Closed,
}

const NO_VALUE: &str =
    "no value will come: the sender was dropped, the receiver was closed, or the value has been received already";

impl_error!(Closed: Self => "{NO_VALUE}");
impl_error!(TryRecvError:
    Self::Empty => "there is no value yet: try again later, or await the receiver",
    Self::Closed => "{NO_VALUE}"
);
impl_debug!(Sender<T>, is_closed());

impl_debug!(Receiver<T>);
