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
//! The channel is a single allocation, and sending and receiving are one atomic read-modify-write in all while the
//! receiver is not asleep. Either end may block or await, and may be moved between threads at any time.
//!
//! | | the receiver awaits | the receiver has closed, or was dropped |
//! |---|---|---|
//! | **the sender sends** | it gets the value | `Err(value)`: the value comes back |
//! | **the sender is dropped** | [`Closed`] | nothing |
//! | **the sender awaits [`closed`](Sender::closed)** | pending | ready |
// The five parts of the head, for those who maintain it; what is above is the module's public documentation.
//
// # What it promises
// `Core` hands one value from a sender to a receiver, at most once: sent, it is either received or given back to the
// sender, or dropped with the receiver that did not want it. Exactly one side is told to free the memory, and the other
// does not touch it any more.
//
// # State machine
// Five bits; sender's transitions go right, receiver's go down:
//
//     0 ----------- send ---------> VALUE                    0 ------- finish -----> CLOSED
//     | wait                                                 the sender was dropped
//     v
//     WAITING ----- send ---------> VALUE|WAITING ---------> VALUE          (the same with CLOSED)
//                                   the sender takes the waker, then leaves
//
//     A sender that `part`s sets CLOSED and leaves, and does not touch the waker.
//     UNWANTED: set by the receiver, at any time: nothing is to be sent any more. `send` never sets VALUE over it.
//     GONE: set by the receiver as its last act, if the sender has not left yet.
//
// The sender has FINISHED once VALUE or CLOSED is set, and has LEFT once WAITING is not set besides: WAITING beside
// VALUE or CLOSED says that the sender is still at the waker.
//
// # Who may touch what
// 1. `cell` is the sender's until it sets VALUE, then the receiver's. (If setting it fails, it stays the sender's.) Before
//    the value it may hold something else; then that is the sender's, and who takes it out is for the two sides to settle.
// 2. WAITING is set by the receiver alone, and only before the sender has finished; it is cleared by the sender alone.
// 3. The memory: a sender that has LEFT does not touch it again; nor does a receiver that has set GONE. Who comes second
//    frees it: the receiver if it finds the sender LEFT, the sender if it finds GONE as it leaves.
//
// # Synchronisation edges
// | id | release side | acquire side | publishes | model |
// |---|---|---|---|---|
// | O1 | `send`: VALUE | `poll`, `try_recv`, `is_finished` | the value | `send_poll` |
// | O2 | `leave`, `part`: WAITING cleared | `release` | the sender has done with the slot: the memory may be freed | `send_drop_after_poll` |
// | O3 | `release`: GONE | `leave`, `finish`, `part` | the receiver has done with everything | `send_drop_after_poll`, `drop_drop` |
// | O4 | `close`: UNWANTED | `is_closed` | what the receiver did before it closed | `close_publishes` |
// | O5 | `finish`: CLOSED | `poll`, `try_recv` | what the sender did before it was dropped | `drop_publishes` |
//
// WAITING itself orders nothing: the slot's own edges do (W1 to W4 of `waker_slot`). If a sender that has read WAITING
// took the waker before it was registered, that registration would see the take, and so would WAITING, which the sender
// had read before: an effect ahead of its cause.
//
// # What can go wrong
// * The receiver polls, then is dropped, while the sender sends (RUSTSEC-2026-0005): `send_drop_after_poll`.
// * It closes, or is dropped, while the sender sends: the value is dropped once: `send_close`, `send_drop`.
// * Polled by one waker, then by another, while the sender sends: `replaced_waker`.
// * Both dropped at once: freed once: `drop_drop`.
// * `closed` registers as the receiver closes: `closed_close`, `closed_drop`.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::{error, fmt};

use crate::primitives::parker;
use crate::primitives::waker_slot::WakerSlot;
use crate::sync::atomic::AtomicU8;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{self, Mutex, UnsafeCell};

/// A snapshot of the five bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State(u8);

impl State {
    const EMPTY: Self = Self(0);
    const VALUE: Self = Self(1);
    const CLOSED: Self = Self(2);
    const WAITING: Self = Self(4);
    const UNWANTED: Self = Self(8);
    const GONE: Self = Self(16);

    #[inline]
    fn with(self, bit: Self) -> Self {
        Self(self.0 | bit.0)
    }

    #[inline]
    fn has(self, bit: Self) -> bool {
        self.0 & bit.0 != 0
    }

    /// The sender has finished, and does not touch the memory any more.
    #[inline]
    fn sender_has_left(self) -> bool {
        self.has(Self::VALUE.with(Self::CLOSED)) && !self.has(Self::WAITING)
    }
}

/// Which side was the last one to use the memory.
#[must_use = "the side that is last frees the memory, unless an `Arc` does"]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// The caller: it frees.
    Yes,
    /// The other side is still there: it frees, and the caller must not touch the memory again.
    No,
}

/// The sender has finished and left. What is still to be done runs users' code, and comes after the freeing.
#[must_use = "the receiver is to be woken"]
pub(crate) struct Left {
    last: Last,
    waker: Option<Waker>,
}

impl Left {
    /// Whether the sender was the last one: it frees the memory.
    #[inline]
    pub(crate) fn is_last(&self) -> bool {
        self.last == Last::Yes
    }

    /// Wakes the receiver, if it waits and is still there.
    #[inline]
    pub(crate) fn wake(self) {
        match self.waker {
            Some(waker) if !self.is_last() => waker.wake(),
            _ => {}
        }
    }
}

/// The hand-over of one value, in place: for the channel below, and for a job's result.
///
/// The sender's functions are [`send`](Self::send), [`finish`](Self::finish) or [`part`](Self::part), once (and `finish` after a
/// `send` that failed), and [`is_closed`](Self::is_closed) before that. Either side may [take](Self::take_before) what is there
/// before the value, as they have settled it. The others are the receiver's, until it has got a value, and [`release`](Self::release) ends them.
///
/// Where the other side may free the memory in the middle of a function, that function takes a pointer: a reference would
/// promise that the memory is there until it returns.
pub(crate) struct Core<T, B = (), C = ()> {
    state: AtomicU8,
    /// What else the two sides share: here, since there is room for it beside the state.
    pub(crate) beside: C,
    waker: WakerSlot,
    cell: UnsafeCell<Place<T, B>>,
}

/// Of a value, and before of what the value is made from.
union Place<T, B> {
    before: ManuallyDrop<B>,
    value: ManuallyDrop<T>,
}

// SAFETY: the value is moved from the sender's thread to the receiver's and never shared; nor is what was there before
// (rule 1).
unsafe impl<T: Send, B: Send, C: Sync> Sync for Core<T, B, C> {}

impl<T, B, C> Core<T, B, C> {
    /// Makes one in its place: a copy of what was just written piece by piece would wait for the pieces, and that takes as long
    /// as all the rest of making it.
    ///
    /// # Safety
    /// The memory is there, aligned, and nobody else's.
    pub(crate) unsafe fn write(this: *mut Self, before: B, beside: C) {
        // SAFETY: the caller's promise; each of the four fields is written once.
        unsafe {
            (&raw mut (*this).state).write(AtomicU8::new(State::EMPTY.0));
            (&raw mut (*this).beside).write(beside);
            (&raw mut (*this).waker).write(WakerSlot::default());
            (&raw mut (*this).cell).write(UnsafeCell::new(Place { before: ManuallyDrop::new(before) }));
        }
    }

    /// Takes out what is there before the value.
    ///
    /// # Safety
    /// Once, by one side or the other, and not while a value is sent, or after that.
    pub(crate) unsafe fn take_before(&self) -> B {
        // SAFETY: the caller's promise; it was put in at the beginning.
        self.cell.with_mut(|cell| unsafe { ManuallyDrop::take(&mut (*cell).before) })
    }

    /// Sends the value, or gives it back if the receiver does not want it; then [`finish`](Self::finish) is still due.
    ///
    /// # Safety
    /// The sender's, at most once, and not after `finish`. After `Ok` the sender has left.
    pub(crate) unsafe fn send(this: *const Self, value: T) -> Result<Left, T> {
        // SAFETY: rule 3: the sender has not left. These two are behind references, since they are cells throughout.
        let (state, cell) = unsafe { (&(*this).state, &(*this).cell) };
        // SAFETY: rule 1: VALUE is not set, so the cell is the sender's.
        cell.with_mut(|cell| unsafe { (&raw mut (*cell).value).write(ManuallyDrop::new(value)) });
        let mut seen = State::EMPTY;
        loop {
            // ORDERING: Release [O1]: pairs with the looks of `poll`, `try_recv` and `is_finished`; publishes the
            // value. On failure, Relaxed: nothing is read because of it but the waker, which the slot's own edges order.
            match state.compare_exchange(seen.0, seen.with(State::VALUE).0, Release, Relaxed) {
                // SAFETY: the sender has just finished.
                Ok(_) => return Ok(unsafe { Self::leave(this, seen) }),
                Err(now) if State(now).has(State::UNWANTED) => {
                    // SAFETY: rule 1: VALUE was not set, so the cell is still the sender's; written just above.
                    return Err(cell.with_mut(|cell| unsafe { ManuallyDrop::take(&mut (*cell).value) }));
                }
                // WAITING has appeared, which happens once.
                Err(now) => seen = State(now),
            }
        }
    }

    /// Says that no value will come.
    ///
    /// # Safety
    /// The sender's, at most once, and not after a `send` that succeeded. The sender has left.
    pub(crate) unsafe fn finish(this: *const Self) -> Left {
        // ORDERING: AcqRel: Release [O5]: pairs with the loads of `poll` and `try_recv`; publishes what was done before.
        // Acquire [O3]: pairs with the step to GONE; the memory is ours.
        // SAFETY: rule 3: the sender has not left.
        let before = unsafe { &(*this).state }.fetch_or(State::CLOSED.0, AcqRel);
        // SAFETY: the sender has just finished.
        unsafe { Self::leave(this, State(before)) }
    }

    /// As `finish`, where the receiver knows it from elsewhere: its waker stays in the slot, and is the receiver's.
    ///
    /// # Safety
    /// As `finish`.
    pub(crate) unsafe fn part(this: *const Self) -> Last {
        // ORDERING: AcqRel: Release [O2]: pairs with `release`; this side has done with the memory. Acquire [O3]: pairs with the
        // step to GONE; the memory is ours.
        // SAFETY: rule 3: the sender has not left.
        let mut before = State(unsafe { &(*this).state }.fetch_or(State::CLOSED.0, AcqRel));
        if before.has(State::WAITING) {
            // ORDERING: AcqRel: as above.
            // SAFETY: rule 3: while WAITING is set, the sender has not left.
            before = State(unsafe { &(*this).state }.fetch_and(!State::WAITING.0, AcqRel));
        }
        if before.has(State::GONE) { Last::Yes } else { Last::No }
    }

    /// Whether a value was sent.
    pub(crate) fn has_value(&self) -> bool {
        // ORDERING: Acquire [O1]: pairs with `send`.
        State(self.state.load(Acquire)).has(State::VALUE)
    }

    /// # Safety
    /// The sender has just finished, and `before` is the state that it found.
    unsafe fn leave(this: *const Self, before: State) -> Left {
        let last = |before: State| if before.has(State::GONE) { Last::Yes } else { Last::No };
        if !before.has(State::WAITING) {
            return Left { last: last(before), waker: None };
        }
        // SAFETY: rule 3: while WAITING is set, the sender has not left.
        let waker = unsafe { &(*this).waker }.take();
        // ORDERING: AcqRel: Release [O2]: pairs with `release`; this side has done with the slot. Acquire [O3]: pairs with
        // the step to GONE; the memory is ours.
        // SAFETY: as above.
        let before = unsafe { &(*this).state }.fetch_and(!State::WAITING.0, AcqRel);
        Left { last: last(State(before)), waker }
    }

    /// Whether the receiver wants no value any more.
    pub(crate) fn is_closed(&self) -> bool {
        // ORDERING: Acquire [O4]: pairs with `close`; what the receiver did before is seen.
        State(self.state.load(Acquire)).has(State::UNWANTED)
    }

    /// Whether the sender has finished: a look now would not be in vain.
    pub(crate) fn is_finished(&self) -> bool {
        // ORDERING: Acquire [O1, O5]: pairs with `send` and `finish`; what the sender did before is seen.
        State(self.state.load(Acquire)).has(State::VALUE.with(State::CLOSED))
    }

    /// What the state says to the receiver. Takes the value if there is one.
    ///
    /// # Safety
    /// The receiver's, with a state that it has acquired, and not after it has got the value.
    unsafe fn look(&self, state: State) -> Poll<Result<T, Closed>> {
        if state.has(State::VALUE) {
            // SAFETY: rule 1: VALUE is set and acquired, so the value is there and ours; it is read once.
            Poll::Ready(Ok(self.cell.with_mut(|cell| unsafe { ManuallyDrop::take(&mut (*cell).value) })))
        } else if state.has(State::CLOSED.with(State::UNWANTED)) {
            Poll::Ready(Err(Closed))
        } else {
            Poll::Pending
        }
    }

    /// The value, if it is there.
    ///
    /// # Safety
    /// The receiver's, and not after it has got the value.
    pub(crate) unsafe fn try_recv(&self) -> Poll<Result<T, Closed>> {
        // ORDERING: Acquire [O1, O5]: pairs with `send` and `finish`; the value, or what came before the end.
        let state = State(self.state.load(Acquire));
        // SAFETY: the caller's promise; the state is acquired.
        unsafe { self.look(state) }
    }

    /// The value, or a wake-up once it is there.
    ///
    /// # Safety
    /// The receiver's, and not after it has got the value.
    pub(crate) unsafe fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<T, Closed>> {
        // ORDERING: Acquire [O1, O5]: as in `try_recv`.
        let state = State(self.state.load(Acquire));
        // SAFETY: the caller's promise; the state is acquired.
        let result = unsafe { self.look(state) };
        if result.is_ready() {
            return result;
        }
        // Register, then look again: the exchange is the second look, and it fails if there is anything to see.
        self.waker.register(cx.waker());
        // ORDERING: Relaxed: it cannot come before the registration, which acquires; and the slot's own edges order the
        // waker. On failure, Acquire [O1, O5]: as in `try_recv`.
        match self.state.compare_exchange(state.0, state.with(State::WAITING).0, Relaxed, Acquire) {
            Ok(_) => Poll::Pending,
            Err(now) => {
                // Nobody will take it now.
                drop(self.waker.take());
                // SAFETY: the caller's promise; the state is acquired, and the first look took nothing.
                unsafe { self.look(State(now)) }
            }
        }
    }

    /// The receiver does not wait any more; its waker is dropped. WAITING may stay, for a wake that finds nobody.
    pub(crate) fn unwatch(&self) {
        drop(self.waker.take());
    }

    /// Wakes the receiver: it has something to see on its own side.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Says that no value is wanted any more. A value that was sent before is still there.
    pub(crate) fn close(&self) {
        // ORDERING: Release [O4]: pairs with `is_closed`; publishes what was done before.
        self.state.fetch_or(State::UNWANTED.0, Release);
    }

    /// Closes, and gives back a value that was sent before, and the receiver's waker if it is still there: for the caller
    /// to drop, once all else is done.
    ///
    /// # Safety
    /// The receiver's, and not after it has got the value.
    pub(crate) unsafe fn abandon(&self) -> (Option<T>, Option<Waker>) {
        self.close();
        let waker = self.waker.take();
        // SAFETY: the caller's promise.
        match unsafe { self.try_recv() } {
            Poll::Ready(Ok(value)) => (Some(value), waker),
            _ => (None, waker),
        }
    }

    /// Drops the waker, for one who has this alone.
    pub(crate) fn clear(&mut self) {
        sync::assert_alone(&mut self.state);
        self.waker.clear();
    }

    /// The receiver leaves.
    ///
    /// # Safety
    /// The receiver's last call, after it has got the value, or has closed, or if none will be sent.
    pub(crate) unsafe fn release(this: *const Self) -> Last {
        // SAFETY: rule 3: the receiver has not left.
        let state = unsafe { &(*this).state };
        // ORDERING: Acquire [O2]: pairs with `leave`; the sender has done with the slot.
        if State(state.load(Acquire)).sender_has_left() {
            return Last::Yes;
        }
        // ORDERING: AcqRel: Release [O3]: pairs with `leave` and `finish`; this side has done with everything. Acquire
        // [O2]: as above, if the sender has left in between.
        if State(state.fetch_or(State::GONE.0, AcqRel)).sender_has_left() { Last::Yes } else { Last::No }
    }
}

/// What both ends point to.
struct Channel<T> {
    core: Core<T>,
    /// The sender waits here for the receiver to close.
    closed: WakerSlot,
}

impl<T> Channel<T> {
    fn allocate() -> NonNull<Self> {
        let channel = NonNull::from(Box::leak(Box::<Self>::new_uninit())).cast::<Self>();
        let place = channel.as_ptr();
        // SAFETY: the memory is there, aligned, and nobody else's; each of the two fields is written once.
        unsafe {
            Core::write(&raw mut (*place).core, (), ());
            (&raw mut (*place).closed).write(WakerSlot::default());
        }
        channel
    }

    /// # Safety
    /// The caller was told that it is the last, and does not touch the channel again.
    unsafe fn free(this: NonNull<Self>) {
        // SAFETY: it comes from the `Box` in `allocate`, and is freed once: only one side is told to (rule 3).
        let mut channel = unsafe { Box::from_raw(this.as_ptr()) };
        // Dropping the box does this too; by hand, the models notice if the other side is still at a slot.
        channel.core.clear();
        channel.closed.clear();
    }
}

/// Makes a channel for one value. One allocation.
///
/// See the [module](self) for what its two ends do.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let channel = Channel::allocate();
    (Sender { channel }, Receiver { channel: Some(channel) })
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
pub struct Sender<T> {
    channel: NonNull<Channel<T>>,
}

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
pub struct Receiver<T> {
    /// `None` once the value has been received.
    channel: Option<NonNull<Channel<T>>>,
}

// SAFETY: each end may live on a thread of its own, and takes a value with it or gets it there; `Core` is made for that.
unsafe impl<T: Send> Send for Sender<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Receiver<T> {}
// SAFETY: with a shared `Sender` one can only ask for a bit of the state; with a shared `Receiver`, nothing.
unsafe impl<T: Send> Sync for Sender<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Receiver<T> {}

impl<T> Sender<T> {
    fn core(&self) -> *const Core<T> {
        // SAFETY: rule 3: this side has not left while it has its `Sender`. No reference is made.
        unsafe { &raw const (*self.channel.as_ptr()).core }
    }

    /// # Safety
    /// `left` is what this sender's `send` or `finish` gave. The channel is not used afterwards.
    unsafe fn after(&self, left: Left) {
        if left.is_last() {
            // SAFETY: as `is_last` says.
            unsafe { Channel::free(self.channel) };
        }
        left.wake();
    }

    fn channel(&self) -> &Channel<T> {
        // SAFETY: rule 3: this side has not left while it has its `Sender`.
        unsafe { self.channel.as_ref() }
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
        let sender = ManuallyDrop::new(self);
        // SAFETY: this is the sender's one send; its `Drop` does not run after a success.
        match unsafe { Core::send(sender.core(), value) } {
            Ok(left) => {
                // SAFETY: this is what the sender's `send` gave.
                unsafe { sender.after(left) };
                Ok(())
            }
            Err(value) => {
                drop(ManuallyDrop::into_inner(sender));
                Err(value)
            }
        }
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
        struct Waiting<'a, T>(&'a Sender<T>);
        impl<T> Drop for Waiting<'_, T> {
            fn drop(&mut self) {
                drop(self.0.channel().closed.take());
            }
        }
        if self.is_closed() {
            return;
        }
        let waiting = Waiting(self);
        poll_fn(|cx| {
            // Register, then look.
            waiting.0.channel().closed.register(cx.waker());
            if waiting.0.is_closed() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // SAFETY: `send` has not succeeded, or this would not run; it runs once.
        unsafe { self.after(Core::finish(self.core())) };
    }
}

impl<T> Receiver<T> {
    /// Looks for the value, by whichever of the core's two ways. Leaves the channel once it has got it.
    fn receive(&mut self, get: impl FnOnce(&Core<T>) -> Poll<Result<T, Closed>>) -> Poll<Result<T, Closed>> {
        let Some(channel) = self.channel else {
            return Poll::Ready(Err(Closed));
        };
        // SAFETY: rule 3: this side has not left while it has the pointer.
        let result = get(&unsafe { channel.as_ref() }.core);
        if let Poll::Ready(Ok(_)) = result {
            self.channel = None;
            // SAFETY: the value has been received, and the pointer is used no more unless this side is the last.
            unsafe { Self::leave(channel) };
        }
        result
    }

    /// Does not wait any more: the waker of the last poll is dropped.
    pub(crate) fn unwatch(&mut self) {
        if let Some(channel) = self.channel {
            // SAFETY: rule 3: this side has not left while it has the pointer.
            unsafe { channel.as_ref() }.core.unwatch();
        }
    }

    /// # Safety
    /// The receiver's last act, after it has got the value or has closed.
    unsafe fn leave(channel: NonNull<Channel<T>>) {
        // SAFETY: rule 3, and the caller's promise. No reference is made.
        if unsafe { Core::release(&raw const (*channel.as_ptr()).core) } == Last::Yes {
            // SAFETY: as `release` says.
            unsafe { Channel::free(channel) };
        }
    }

    /// The value, if it is there. Never blocks.
    ///
    /// # Errors
    /// [`Empty`](TryRecvError::Empty): it may still come. [`Closed`](TryRecvError::Closed): it will not: the sender was
    /// dropped without sending, this end was closed before a value was sent, or the value has been received.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        // SAFETY: this is the receiver, and it has not got the value while it has a channel.
        match self.receive(|core| unsafe { core.try_recv() }) {
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
    /// On the thread of an event loop this stops the loop, and if the value is to come from that loop, for ever: await
    /// the receiver there.
    pub fn recv_blocking(self) -> Result<T, Closed> {
        parker::block_on(self)
    }

    /// Closes the channel: the sender cannot send any more, and learns it. A value that was sent before can still be
    /// received.
    pub fn close(&mut self) {
        if let Some(channel) = self.channel {
            // SAFETY: rule 3: this side has not left while it has the pointer.
            let channel = unsafe { channel.as_ref() };
            channel.core.close();
            channel.closed.wake();
            // A waker that a poll was given on this end: it has the end to see.
            channel.core.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: this is the receiver, and it has not got the value while it has a channel.
        self.receive(|core| unsafe { core.poll(cx) })
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if let Some(channel) = self.channel {
            // SAFETY: rule 3: this side leaves below; it has not got the value while it has a channel.
            let (unwanted, closed) = unsafe {
                let channel = channel.as_ref();
                (channel.core.abandon(), channel.closed.take())
            };
            // SAFETY: the channel has been closed.
            unsafe { Self::leave(channel) };
            // Users' code comes last: a panic in it leaves nothing behind.
            if let Some(closed) = closed {
                closed.wake();
            }
            drop(unwanted);
        }
    }
}

/// A channel and something that its ends share with others, in one `Arc`. From [`shared`].
///
/// In itself it gives no access to the value, wherever it is: that is for the ends.
pub(crate) struct Shared<T, H> {
    pub(crate) head: H,
    core: Core<T>,
}

// SAFETY: the value is reached through the two ends alone, which are `Send` where it is. And none is left in here to be
// dropped with the last `Arc`, on whichever thread: what was sent is taken by the receiver, at the latest when that is
// dropped; after that, it comes back to the sender.
unsafe impl<T, H: Send> Send for Shared<T, H> {}
// SAFETY: as above.
unsafe impl<T, H: Sync> Sync for Shared<T, H> {}

/// As [`Sender`], of a [`Shared`].
pub(crate) struct SharedSender<T, H> {
    /// `None` once it has sent.
    shared: Option<Arc<Shared<T, H>>>,
    _value: PhantomData<Mutex<T>>,
}

/// As [`Receiver`], of a [`Shared`].
pub(crate) struct SharedReceiver<T, H> {
    /// `None` once the value has been received, or has been given up.
    shared: Option<Arc<Shared<T, H>>>,
    _value: PhantomData<Mutex<T>>,
}

/// Nothing in here is ever pinned.
impl<T, H> Unpin for SharedReceiver<T, H> {}

/// Makes a channel with room for something that is shared. One allocation.
pub(crate) fn shared<T, H>(head: H) -> (SharedSender<T, H>, SharedReceiver<T, H>) {
    // Made in its place: see `Core::write`.
    let place = Arc::into_raw(Arc::<Shared<T, H>>::new_uninit()).cast_mut().cast::<Shared<T, H>>();
    // SAFETY: the memory is that of one channel, and nobody else's yet; each of its fields is written once, and then the
    // `Arc` is taken up again as one of what is in it now.
    let shared = unsafe {
        (&raw mut (*place).head).write(head);
        Core::write(&raw mut (*place).core, (), ());
        Arc::from_raw(place)
    };
    let sender = SharedSender { shared: Some(shared.clone()), _value: PhantomData };
    (sender, SharedReceiver { shared: Some(shared), _value: PhantomData })
}

impl<T, H> SharedSender<T, H> {
    pub(crate) fn shared(&self) -> Option<&Arc<Shared<T, H>>> {
        self.shared.as_ref()
    }

    /// As [`Sender::send`].
    pub(crate) fn send(mut self, value: T) -> Result<(), T> {
        let Some(shared) = self.shared.take() else { unreachable!("it sends once") };
        // The memory belongs to an `Arc`, so it does not matter who is last.
        // SAFETY: this is the sender's one send; its `Drop` finds nothing after it.
        match unsafe { Core::send(&raw const shared.core, value) } {
            Ok(left) => {
                left.wake();
                Ok(())
            }
            Err(value) => {
                self.shared = Some(shared);
                Err(value)
            }
        }
    }
}

impl<T, H> Drop for SharedSender<T, H> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            // SAFETY: `send` has not succeeded, or this would not be reached; it is once.
            unsafe { Core::finish(&raw const shared.core) }.wake();
        }
    }
}

impl<T, H> SharedReceiver<T, H> {
    /// `None` once the value has been received, or has been given up.
    pub(crate) fn shared(&self) -> Option<&Arc<Shared<T, H>>> {
        self.shared.as_ref()
    }

    /// Whether the value, or the end, is there: a look now would not be in vain.
    pub(crate) fn is_finished(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.core.is_finished())
    }

    /// Wants the value no more. If it is there, drops it. Gives back what was shared, unless it has been received before.
    pub(crate) fn give_up(&mut self) -> Option<Arc<Shared<T, H>>> {
        let shared = self.shared.take()?;
        // SAFETY: this is the receiver, and it has not got the value while it has the channel.
        drop(unsafe { shared.core.abandon() });
        Some(shared)
    }
}

impl<T, H> Future for SharedReceiver<T, H> {
    type Output = Result<T, Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(shared) = &self.shared else { return Poll::Ready(Err(Closed)) };
        // SAFETY: this is the receiver, and it has not got the value while it has the channel.
        let polled = unsafe { shared.core.poll(cx) };
        if polled.is_ready() {
            self.shared = None;
        }
        polled
    }
}

impl<T, H> Drop for SharedReceiver<T, H> {
    fn drop(&mut self) {
        self.give_up();
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
