//! `oneshot`: every combination of operations of the two ends, the wakers, and races of the ends.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]

use crate::helpers::common::{Witness, watchdog};
use crate::hooks::Hooks;
use crate::{Opaque, race};
use offthread::block_on;
use offthread::oneshot::{self, Closed, Receiver, Sender, TryRecvError};
use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::{mem, thread};

// --- helpers --------------------------------------------------------------------------------------------------------

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Polls with a no-op waker.
fn poll_now<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll(future, Waker::noop())
}

/// Counts how often values were dropped.
#[derive(Clone, Default)]
struct Drops(Arc<AtomicUsize>);

impl Drops {
    fn item(&self) -> Item {
        Item(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

struct Item(Drops);

impl Drop for Item {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// How often a race is run. Each test takes a fraction of a second.
const ROUNDS: usize = 300;

/// Both ends of a channel.
type Ends<T> = (Sender<T>, Receiver<T>);

/// Checks every way to receive a result that is already there, so that none of them waits.
fn check_every_way_to_receive(ends: impl Fn() -> Ends<i32>, expected: Result<i32, Closed>) {
    let _watchdog = watchdog();
    let (_sender, mut receiver) = ends();
    assert_eq!(receiver.try_recv(), expected.map_err(|Closed| TryRecvError::Closed));
    let (_sender, mut receiver) = ends();
    assert_eq!(poll_now(&mut receiver), Poll::Ready(expected));
    let (_sender, receiver) = ends();
    assert_eq!(receiver.recv_blocking(), expected);
    let (_sender, receiver) = ends();
    assert_eq!(block_on(receiver), expected);
    // On another thread.
    let (_sender, receiver) = ends();
    assert_eq!(thread::spawn(|| receiver.recv_blocking()).join().unwrap(), expected);
    let (_sender, receiver) = ends();
    assert_eq!(thread::spawn(|| block_on(receiver)).join().unwrap(), expected);
}

// --- operations of the ends -----------------------------------------------------------------------------------------

#[test]
fn an_unused_channel_is_empty_and_open() {
    let (sender, mut receiver) = oneshot::channel::<i32>();
    assert!(!sender.is_closed());
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(poll_now(&mut receiver), Poll::Pending);
    // The channel still works after a wait.
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    assert!(!sender.is_closed());
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!(receiver.try_recv(), Ok(1));
}

/// `send` consumes the sender, so `ends` returns the sender of a second channel in its place.
#[test]
fn a_value_that_was_sent_is_received() {
    let ends = || {
        let (sender, receiver) = oneshot::channel();
        assert_eq!(sender.send(1), Ok(()));
        (oneshot::channel().0, receiver)
    };
    check_every_way_to_receive(ends, Ok(1));
}

#[test]
fn a_value_that_was_sent_to_a_waiting_receiver_is_received() {
    let ends = || {
        let (sender, mut receiver) = oneshot::channel();
        assert_eq!(poll_now(&mut receiver), Poll::Pending);
        assert_eq!(sender.send(1), Ok(()));
        (oneshot::channel().0, receiver)
    };
    check_every_way_to_receive(ends, Ok(1));
}

#[test]
fn dropping_the_sender_closes_the_channel() {
    check_every_way_to_receive(|| (oneshot::channel().0, oneshot::channel().1), Err(Closed));
    let ends = || {
        let (sender, mut receiver) = oneshot::channel();
        assert_eq!(poll_now(&mut receiver), Poll::Pending);
        drop(sender);
        (oneshot::channel().0, receiver)
    };
    check_every_way_to_receive(ends, Err(Closed));
}

/// The sender of a closed channel lives on but cannot send, so the receiver must not wait for it.
#[test]
fn a_closed_receiver_does_not_wait() {
    let ends = || {
        let (sender, mut receiver) = oneshot::channel();
        receiver.close();
        (sender, receiver)
    };
    check_every_way_to_receive(ends, Err(Closed));
    let waited = || {
        let (sender, mut receiver) = oneshot::channel();
        assert_eq!(poll_now(&mut receiver), Poll::Pending);
        receiver.close();
        (sender, receiver)
    };
    check_every_way_to_receive(waited, Err(Closed));
}

#[test]
fn a_value_sent_before_the_close_is_received_after_it() {
    let ends = || {
        let (sender, mut receiver) = oneshot::channel();
        assert_eq!(sender.send(1), Ok(()));
        receiver.close();
        (oneshot::channel().0, receiver)
    };
    check_every_way_to_receive(ends, Ok(1));
}

#[test]
fn dropping_the_sender_after_the_close_changes_nothing() {
    let ends = || {
        let (sender, mut receiver) = oneshot::channel();
        receiver.close();
        drop(sender);
        (oneshot::channel().0, receiver)
    };
    check_every_way_to_receive(ends, Err(Closed));
}

#[test]
fn a_send_after_the_close_gives_the_value_back() {
    let (sender, mut receiver) = oneshot::channel();
    receiver.close();
    assert!(sender.is_closed());
    assert_eq!(sender.send(1), Err(1));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    assert_eq!(poll_now(&mut receiver), Poll::Ready(Err(Closed)));
}

#[test]
fn closing_twice_is_closing_once() {
    let (sender, mut receiver) = oneshot::channel();
    receiver.close();
    receiver.close();
    assert_eq!(sender.send(1), Err(1));
    receiver.close();
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
}

#[test]
fn a_send_after_the_receiver_was_dropped_gives_the_value_back() {
    let (sender, receiver) = oneshot::channel();
    drop(receiver);
    assert!(sender.is_closed());
    assert_eq!(sender.send(1), Err(1));
    // Also a receiver that has waited.
    let (sender, mut receiver) = oneshot::channel();
    assert_eq!(poll_now(&mut receiver), Poll::Pending);
    drop(receiver);
    assert!(sender.is_closed());
    assert_eq!(sender.send(1), Err(1));
}

/// After the value has been received, the channel is closed.
#[test]
fn after_the_value_the_receiver_is_closed() {
    let (sender, mut receiver) = oneshot::channel();
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    receiver.close();
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    assert_eq!(receiver.recv_blocking(), Err(Closed));

    let (sender, mut receiver) = oneshot::channel();
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!(poll_now(&mut receiver), Poll::Ready(Ok(1)));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
}

#[test]
fn a_blocking_receiver_is_woken_by_the_value() {
    let _watchdog = watchdog();
    let (sender, receiver) = oneshot::channel();
    let other = thread::spawn(move || receiver.recv_blocking());
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!(other.join().unwrap(), Ok(1));
}

#[test]
fn a_blocking_receiver_is_woken_by_the_drop_of_the_sender() {
    let _watchdog = watchdog();
    let (sender, receiver) = oneshot::channel::<i32>();
    let other = thread::spawn(move || receiver.recv_blocking());
    drop(sender);
    assert_eq!(other.join().unwrap(), Err(Closed));
}

/// If a panic drops the sender, the channel closes.
#[test]
fn a_sender_dropped_by_a_panic_closes_the_channel() {
    let _watchdog = watchdog();
    let (sender, receiver) = oneshot::channel::<i32>();
    let other = thread::spawn(move || {
        let _sender = sender;
        resume_unwind(Box::new("the sender's panic"));
    });
    assert_eq!(receiver.recv_blocking(), Err(Closed));
    assert!(other.join().is_err());
}

#[test]
fn ends_may_move_to_another_thread_after_a_poll() {
    let _watchdog = watchdog();
    let (sender, mut receiver) = oneshot::channel();
    let witness = Witness::default();
    assert!(witness.poll(&mut receiver).is_pending());
    // Each end moves to its own thread, and the receiver waits there in another way.
    let there = thread::spawn(move || receiver.recv_blocking());
    let here = thread::spawn(move || sender.send("moved"));
    assert_eq!(here.join().unwrap(), Ok(()));
    assert_eq!(there.join().unwrap(), Ok("moved"));
    assert_eq!(witness.kept(), 0);

    let (mut sender, receiver) = oneshot::channel::<Opaque>();
    assert!(pin!(sender.closed()).poll(&mut Context::from_waker(&witness.waker())).is_pending());
    let there = thread::spawn(move || block_on(sender.closed()));
    drop(receiver);
    there.join().unwrap();
    assert_eq!(witness.kept(), 0);
}

// --- values ---------------------------------------------------------------------------------------------------------

#[test]
fn any_kind_of_value_can_be_sent() {
    #[derive(Debug, PartialEq, Clone, Copy)]
    #[repr(align(256))]
    struct Aligned(u8);

    fn through<T: PartialEq + std::fmt::Debug + Clone>(value: &T) {
        let (sender, mut receiver) = oneshot::channel();
        assert_eq!(sender.send(value.clone()), Ok(()));
        assert_eq!(receiver.try_recv().as_ref(), Ok(value));
        let (sender, receiver) = oneshot::channel();
        drop(receiver);
        assert_eq!(sender.send(value.clone()).as_ref(), Err(value));
    }
    through(&());
    through(&[0_u64; 0]);
    through(&vec!["on", "the", "heap"]);
    through(&[7_u8; 16_000]);
    through(&Aligned(3));
    through(&Rc::new("not Send"));
    through(&Some(Box::new(1)));

    let (sender, mut receiver) = oneshot::channel::<Aligned>();
    assert_eq!(sender.send(Aligned(1)), Ok(()));
    let aligned = receiver.try_recv().unwrap();
    assert_eq!((&raw const aligned).addr() % 256, 0);
}

/// Forgetting an end leaks the channel, with a value that was sent. The other end works as before.
#[test]
fn a_forgotten_end_does_not_disturb_the_other() {
    let (sender, receiver) = oneshot::channel();
    mem::forget(receiver);
    assert_eq!(sender.send(1), Ok(()));
    let (mut sender, receiver) = oneshot::channel::<Box<i32>>();
    mem::forget(receiver);
    assert!(pin!(sender.closed()).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(sender);

    let (sender, mut receiver) = oneshot::channel::<i32>();
    mem::forget(sender);
    assert_eq!(poll_now(&mut receiver), Poll::Pending);
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    receiver.close();
    assert_eq!(poll_now(&mut receiver), Poll::Ready(Err(Closed)));
    drop(receiver);

    // The same after the value was received.
    let (sender, mut receiver) = oneshot::channel();
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!(receiver.try_recv(), Ok(1));
    mem::forget(receiver);
}

#[test]
fn a_value_is_dropped_once_wherever_it_ends() {
    let drops = Drops::default();
    let (sender, mut receiver) = oneshot::channel();
    assert!(sender.send(drops.item()).is_ok());
    let value = receiver.try_recv().ok();
    assert_eq!(drops.count(), 0);
    drop(receiver);
    assert_eq!(drops.count(), 0);
    drop(value);
    assert_eq!(drops.count(), 1);

    // Sent, and never taken: dropped with the receiver.
    let drops = Drops::default();
    let (sender, receiver) = oneshot::channel();
    assert!(sender.send(drops.item()).is_ok());
    assert_eq!(drops.count(), 0);
    drop(receiver);
    assert_eq!(drops.count(), 1);

    // The same after a close.
    let drops = Drops::default();
    let (sender, mut receiver) = oneshot::channel();
    assert!(sender.send(drops.item()).is_ok());
    receiver.close();
    assert_eq!(drops.count(), 0);
    drop(receiver);
    assert_eq!(drops.count(), 1);

    // Given back.
    let drops = Drops::default();
    let (sender, receiver) = oneshot::channel();
    drop(receiver);
    let back = sender.send(drops.item());
    assert_eq!(drops.count(), 0);
    drop(back);
    assert_eq!(drops.count(), 1);
}

/// A value that is never received, and whose `Drop` panics, is dropped once, and no waker is kept.
#[test]
fn a_value_whose_drop_panics_is_dropped_once() {
    struct Bomb(#[expect(dead_code, reason = "counts when it is dropped")] Item);
    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new("the value's panic"));
        }
    }
    let drops = Drops::default();
    let witness = Witness::default();
    let (sender, mut receiver) = oneshot::channel();
    assert!(witness.poll(&mut receiver).is_pending());
    assert!(sender.send(Bomb(drops.item())).is_ok());
    let panic = catch_unwind(AssertUnwindSafe(|| drop(receiver))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"the value's panic"));
    assert_eq!(drops.count(), 1);
    assert_eq!(witness.kept(), 0);
}

#[test]
fn errors_can_be_boxed_and_have_messages() {
    fn check(error: impl Error + Send + Sync + Clone + 'static) {
        assert!(!error.to_string().is_empty());
        assert!(!format!("{error:?}").is_empty());
        let boxed: Box<dyn Error + Send + Sync> = error.into();
        assert!(!boxed.to_string().is_empty());
    }
    check(Closed);
    check(TryRecvError::Empty);
    check(TryRecvError::Closed);
    assert_ne!(TryRecvError::Empty.to_string(), TryRecvError::Closed.to_string());
}

#[test]
fn ends_print_without_the_value_being_printable() {
    let (mut sender, mut receiver) = oneshot::channel::<Opaque>();
    assert!(!format!("{sender:?} {receiver:?}").is_empty());
    assert!(poll_now(&mut receiver).is_pending());
    assert!(poll_now(&mut pin!(sender.closed())).is_pending());
    assert!(!format!("{sender:?} {receiver:?}").is_empty());
    assert!(sender.send(Opaque).is_ok());
    assert!(!format!("{receiver:?}").is_empty());
    // Printing does not take the value.
    assert!(receiver.try_recv().is_ok());
    assert!(!format!("{receiver:?}").is_empty());
}

// --- closed() -------------------------------------------------------------------------------------------------------

#[test]
fn closed_waits_for_the_close_or_the_drop() {
    let witness = Witness::default();
    let (mut sender, mut receiver) = oneshot::channel::<i32>();
    {
        let mut closed = pin!(sender.closed());
        assert!(witness.poll(&mut closed).is_pending());
        receiver.close();
        assert_eq!(witness.wakes(), 1);
        assert!(witness.poll(&mut closed).is_ready());
    }
    // From now on, `closed` is ready at once.
    assert!(witness.poll(&mut pin!(sender.closed())).is_ready());
    drop(receiver);
    assert!(witness.poll(&mut pin!(sender.closed())).is_ready());
    assert_eq!(witness.wakes(), 1);

    let (mut sender, receiver) = oneshot::channel::<i32>();
    let mut closed = pin!(sender.closed());
    assert!(witness.poll(&mut closed).is_pending());
    drop(receiver);
    assert_eq!(witness.wakes(), 2);
    assert!(witness.poll(&mut closed).is_ready());
    assert_eq!(witness.kept(), 0);
}

#[test]
fn closed_blocks_until_the_receiver_closes() {
    let _watchdog = watchdog();
    let (mut sender, mut receiver) = oneshot::channel::<i32>();
    thread::scope(|scope| {
        let closed = scope.spawn(|| block_on(sender.closed()));
        receiver.close();
        closed.join().unwrap();
    });
    assert_eq!(sender.send(1), Err(1));
}

/// The sender can still send after its `closed` future was dropped.
#[test]
fn a_sender_may_send_after_its_closed_future_was_dropped() {
    let (asked, waiting) = (Witness::default(), Witness::default());
    let (mut sender, mut receiver) = oneshot::channel();
    assert!(asked.poll(&mut pin!(sender.closed())).is_pending());
    assert!(waiting.poll(&mut receiver).is_pending());
    assert!(asked.poll(&mut pin!(sender.closed())).is_pending());
    assert!(!sender.is_closed());
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!(waiting.wakes(), 1);
    assert_eq!(waiting.poll(&mut receiver), Poll::Ready(Ok(1)));
    assert_eq!(asked.wakes(), 0);
    assert_eq!((asked.kept(), waiting.kept()), (0, 0));
}

/// Both ends wait for each other; dropping one wakes only the other's waker.
#[test]
fn both_ends_may_wait_at_once() {
    let (left, right) = (Witness::default(), Witness::default());
    let (mut sender, mut receiver) = oneshot::channel::<i32>();
    {
        let mut closed = pin!(sender.closed());
        assert!(left.poll(&mut closed).is_pending());
        assert!(right.poll(&mut receiver).is_pending());
        assert!(left.poll(&mut closed).is_pending());
        drop(receiver);
        assert_eq!((left.wakes(), right.wakes()), (1, 0));
        assert!(left.poll(&mut closed).is_ready());
    }
    drop(sender);
    assert_eq!((left.wakes(), right.wakes()), (1, 0));
    assert_eq!((left.kept(), right.kept()), (0, 0));

    let (mut sender, mut receiver) = oneshot::channel::<i32>();
    assert!(right.poll(&mut receiver).is_pending());
    assert!(left.poll(&mut pin!(sender.closed())).is_pending());
    drop(sender);
    assert_eq!((left.wakes(), right.wakes()), (1, 1));
    assert_eq!(right.poll(&mut receiver), Poll::Ready(Err(Closed)));
    assert_eq!((left.kept(), right.kept()), (0, 0));
}

// --- wakers ---------------------------------------------------------------------------------------------------------

/// The last waker is woken, not the first, and earlier wakers are dropped at once.
#[test]
fn the_last_waker_is_woken() {
    let [first, second, third] = [(); 3].map(|()| Witness::default());
    let (sender, mut receiver) = oneshot::channel();
    for (waker, before) in [(&second, &first), (&third, &second), (&first, &third)] {
        assert!(waker.poll(&mut receiver).is_pending());
        assert_eq!((waker.kept(), before.kept()), (1, 0));
    }
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!([first.wakes(), second.wakes(), third.wakes()], [1, 0, 0]);
    assert_eq!(third.poll(&mut receiver), Poll::Ready(Ok(1)));
    assert_eq!([first.kept(), second.kept(), third.kept()], [0, 0, 0]);
}

/// The same for the sender's waker.
#[test]
fn the_last_waker_of_closed_is_woken() {
    let [first, second, third] = [(); 3].map(|()| Witness::default());
    let (mut sender, receiver) = oneshot::channel::<i32>();
    {
        let mut closed = pin!(sender.closed());
        assert!(first.poll(&mut closed).is_pending());
        assert!(second.poll(&mut closed).is_pending());
        assert_eq!((first.kept(), second.kept()), (0, 1));
    }
    // Another future of the same sender.
    let mut closed = pin!(sender.closed());
    assert!(third.poll(&mut closed).is_pending());
    assert_eq!((second.kept(), third.kept()), (0, 1));
    drop(receiver);
    assert_eq!([first.wakes(), second.wakes(), third.wakes()], [0, 0, 1]);
    assert!(first.poll(&mut closed).is_ready());
}

/// The channel keeps one clone of a waker, however often the waker is registered.
#[test]
fn the_same_waker_is_kept_once() {
    let witness = Witness::default();
    let (sender, mut receiver) = oneshot::channel();
    for _ in 0..10 {
        assert!(witness.poll(&mut receiver).is_pending());
        assert_eq!(witness.kept(), 1);
    }
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!(witness.wakes(), 1);
    assert_eq!(receiver.try_recv(), Ok(1));
}

/// A waker is dropped when it can no longer be needed: it would keep a whole task alive.
#[test]
fn no_waker_outlives_its_use() {
    let waiting = |witness: &Witness| {
        let (sender, mut receiver) = oneshot::channel();
        assert!(witness.poll(&mut receiver).is_pending());
        assert_eq!(witness.kept(), 1);
        (sender, receiver)
    };
    let witness = Witness::default();
    // Woken: the next poll registers a new waker if necessary.
    let (sender, receiver) = waiting(&witness);
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!((witness.kept(), witness.wakes()), (0, 1));
    drop(receiver);

    let witness = Witness::default();
    let (sender, receiver) = waiting(&witness);
    drop(sender);
    assert_eq!((witness.kept(), witness.wakes()), (0, 1));
    drop(receiver);

    // The receiver was dropped, although the sender lives on.
    let witness = Witness::default();
    let (sender, receiver) = waiting(&witness);
    drop(receiver);
    assert_eq!((witness.kept(), witness.wakes()), (0, 0));
    assert_eq!(sender.send(1), Err(1));
    assert_eq!(witness.wakes(), 0);

    // The sender has sent, so it no longer waits.
    let witness = Witness::default();
    let (mut sender, receiver) = oneshot::channel();
    assert!(witness.poll(&mut pin!(sender.closed())).is_pending());
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!((witness.kept(), witness.wakes()), (0, 0));
    drop(receiver);
    assert_eq!(witness.wakes(), 0);

    // The sender was dropped.
    let (mut sender, receiver) = oneshot::channel::<i32>();
    assert!(witness.poll(&mut pin!(sender.closed())).is_pending());
    drop(sender);
    assert_eq!((witness.kept(), witness.wakes()), (0, 0));
    drop(receiver);
    assert_eq!(witness.wakes(), 0);
}

/// A closed receiver never waits again, so it drops its waker.
#[test]
fn a_closed_receiver_keeps_no_waker() {
    let witness = Witness::default();
    let (sender, mut receiver) = oneshot::channel();
    assert!(witness.poll(&mut receiver).is_pending());
    receiver.close();
    assert_eq!(witness.kept(), 0);
    assert_eq!(sender.send(1), Err(1));
}

/// A dropped `closed` future drops its waker, because the waker would keep the waiting task alive.
#[test]
fn a_dropped_closed_leaves_no_waker_behind() {
    let witness = Witness::default();
    let (mut sender, _receiver) = oneshot::channel::<i32>();
    assert!(witness.poll(&mut pin!(sender.closed())).is_pending());
    assert_eq!(witness.kept(), 0);
}

/// Neither the receiver's drop nor a failed `send` wakes the receiver's waker, and no clone is kept: the first wake-up
/// is the test's own, on another thread.
#[test]
fn ends_that_are_gone_neither_wake_nor_keep_the_waker() {
    let (sender, mut receiver) = oneshot::channel();
    let hooks = Arc::<Hooks>::default();
    let (give, take) = mpsc::channel();
    hooks.wake.set(move || give.send(thread::current().id()).unwrap());
    let waker = hooks.waker();
    assert_eq!(poll(&mut receiver, &waker), Poll::Pending);
    drop(receiver);
    assert_eq!(sender.send(1), Err(1));
    let other = thread::spawn(move || waker.wake());
    let id = other.thread().id();
    other.join().unwrap();
    assert_eq!(take.recv(), Ok(id));
    assert_eq!(Arc::strong_count(&hooks), 1);
}

// --- wakers that use their channel, so no lock may be held -----------------------------------------------------------

#[test]
fn the_wake_up_may_receive() {
    let _watchdog = watchdog();
    let (sender, receiver) = oneshot::channel();
    let receiver = Arc::new(Mutex::new(receiver));
    let (give, take) = mpsc::channel();
    let hooks = Arc::<Hooks>::default();
    let inside = Arc::clone(&receiver);
    hooks.wake.set(move || give.send(inside.lock().unwrap().try_recv()).unwrap());
    assert!(poll(&mut *receiver.lock().unwrap(), &hooks.waker()).is_pending());
    assert_eq!(sender.send(1), Ok(()));
    assert_eq!(take.try_recv(), Ok(Ok(1)));
}

#[test]
fn the_wake_up_may_poll_again() {
    let _watchdog = watchdog();
    let (sender, receiver) = oneshot::channel::<i32>();
    let receiver = Arc::new(Mutex::new(receiver));
    let (give, take) = mpsc::channel();
    let hooks = Arc::<Hooks>::default();
    let inside = Arc::clone(&receiver);
    hooks.wake.set(move || give.send(poll_now(&mut *inside.lock().unwrap())).unwrap());
    assert!(poll(&mut *receiver.lock().unwrap(), &hooks.waker()).is_pending());
    drop(sender);
    assert_eq!(take.try_recv(), Ok(Poll::Ready(Err(Closed))));
}

#[test]
fn the_wake_up_may_drop_the_receiver() {
    let _watchdog = watchdog();
    let drops = Drops::default();
    let (sender, mut receiver) = oneshot::channel();
    let hooks = Arc::<Hooks>::default();
    assert!(poll(&mut receiver, &hooks.waker()).is_pending());
    hooks.wake.set(move || drop(receiver));
    assert!(sender.send(drops.item()).is_ok());
    assert!(hooks.wake.has_run());
    assert_eq!(drops.count(), 1);
    assert_eq!(Arc::strong_count(&hooks), 1);
}

#[test]
fn the_wake_up_of_closed_may_drop_the_sender() {
    let _watchdog = watchdog();
    let (mut sender, receiver) = oneshot::channel::<i32>();
    let hooks = Arc::<Hooks>::default();
    let waker = hooks.waker();
    // The wake-up drops the waiting future, and with it the sender.
    let mut closed = Box::pin(async move { sender.closed().await });
    assert!(poll(&mut closed, &waker).is_pending());
    let closed = Mutex::new(Some(closed));
    hooks.wake.set(move || drop(closed.lock().unwrap().take()));
    drop(receiver);
    assert!(hooks.wake.has_run());
    drop(waker);
    assert_eq!(Arc::strong_count(&hooks), 1);
}

#[test]
fn the_wake_up_of_closed_may_try_to_send() {
    let _watchdog = watchdog();
    let (mut sender, mut receiver) = oneshot::channel();
    let hooks = Arc::<Hooks>::default();
    let (give, take) = mpsc::channel();
    {
        let waker = hooks.waker();
        assert!(pin!(sender.closed()).poll(&mut Context::from_waker(&waker)).is_pending());
        // The first `closed` future has been dropped, with its waker. This future registers the waker again.
        let mut closed = Box::pin(async move {
            sender.closed().await;
            sender.send(1)
        });
        assert!(poll(&mut closed, &waker).is_pending());
        let closed = Mutex::new(closed);
        hooks.wake.set(move || give.send(poll_now(&mut *closed.lock().unwrap())).unwrap());
    }
    receiver.close();
    assert_eq!(take.try_recv(), Ok(Poll::Ready(Err(1))));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
}

/// The value arrives while the receiver clones the waker, after its first check.
#[test]
fn the_clone_of_the_waker_may_send() {
    let _watchdog = watchdog();
    for dropped in [false, true] {
        let (sender, mut receiver) = oneshot::channel();
        let hooks = Arc::<Hooks>::default();
        hooks.clone.set(move || if dropped { drop(sender) } else { sender.send(1).unwrap() });
        hooks.wake.set(|| {});
        let expected = if dropped { Err(Closed) } else { Ok(1) };
        match poll(&mut receiver, &hooks.waker()) {
            Poll::Ready(result) => assert_eq!(result, expected),
            // The poll may have missed the event, but then the waker must have been woken.
            Poll::Pending => {
                assert!(hooks.wake.has_run(), "the wake-up is lost");
                assert_eq!(poll_now(&mut receiver), Poll::Ready(expected));
            }
        }
        drop(receiver);
        assert_eq!(Arc::strong_count(&hooks), 1);
    }
}

/// The `Drop` of a replaced waker sends.
#[test]
fn the_drop_of_the_replaced_waker_may_send() {
    let _watchdog = watchdog();
    for dropped in [false, true] {
        let (sender, mut receiver) = oneshot::channel();
        let hooks = Arc::<Hooks>::default();
        assert!(poll(&mut receiver, &hooks.waker()).is_pending());
        hooks.drop.set(move || if dropped { drop(sender) } else { sender.send(1).unwrap() });
        let witness = Witness::default();
        let expected = if dropped { Err(Closed) } else { Ok(1) };
        match witness.poll(&mut receiver) {
            Poll::Ready(result) => assert_eq!(result, expected),
            Poll::Pending => {
                assert!(hooks.drop.has_run(), "the replaced waker is kept");
                assert_eq!(witness.wakes(), 1, "the wake-up is lost");
                assert_eq!(poll_now(&mut receiver), Poll::Ready(expected));
            }
        }
        drop(receiver);
        assert_eq!(Arc::strong_count(&hooks), 1);
        assert_eq!(witness.kept(), 0);
    }
}

/// The receiver is dropped, and the `Drop` of its waker uses the sender.
#[test]
fn the_drop_of_the_receivers_waker_may_use_the_sender() {
    let _watchdog = watchdog();
    for dropped in [false, true] {
        let drops = Drops::default();
        let (sender, mut receiver) = oneshot::channel();
        let hooks = Arc::<Hooks>::default();
        assert!(poll(&mut receiver, &hooks.waker()).is_pending());
        let item = drops.item();
        hooks.drop.set(move || if dropped { drop(sender) } else { drop(sender.send(item)) });
        drop(receiver);
        assert!(hooks.drop.has_run());
        assert_eq!(drops.count(), 1);
        assert_eq!(Arc::strong_count(&hooks), 1);
    }
}

/// The sender is dropped while it waits, and the `Drop` of its waker drops the receiver.
#[test]
fn the_drop_of_the_senders_waker_may_drop_the_receiver() {
    let _watchdog = watchdog();
    let (mut sender, receiver) = oneshot::channel::<i32>();
    let hooks = Arc::<Hooks>::default();
    let mut closed = Box::pin(async move { sender.closed().await });
    assert!(poll(&mut closed, &hooks.waker()).is_pending());
    hooks.drop.set(move || drop(receiver));
    drop(closed);
    assert!(hooks.drop.has_run());
    assert_eq!(Arc::strong_count(&hooks), 1);
}

// --- races ----------------------------------------------------------------------------------------------------------

/// A polled receiver is dropped while the sender sends. The sender does not use the channel after it was freed.
#[test]
fn a_polled_receiver_may_be_dropped_during_a_send() {
    let _watchdog = watchdog();
    for _ in 0..ROUNDS {
        let (drops, witness) = (Drops::default(), Witness::default());
        let item = drops.item();
        let (sender, mut receiver) = oneshot::channel();
        assert!(witness.poll(&mut receiver).is_pending());
        let (result, ()) = race(|| sender.send(item), || drop(receiver));
        let is_sent = result.is_ok();
        assert_eq!(drops.count(), usize::from(is_sent));
        drop(result);
        assert_eq!(drops.count(), 1);
        assert_eq!(witness.kept(), 0);
    }
}

/// The receiver closes while the sender sends: either the value is received, or it is given back.
#[test]
fn a_value_sent_during_a_close_is_received_or_given_back() {
    let _watchdog = watchdog();
    for _ in 0..ROUNDS {
        let witness = Witness::default();
        let (sender, mut receiver) = oneshot::channel();
        assert!(witness.poll(&mut receiver).is_pending());
        let (sent, taken) = race(
            || sender.send(1),
            || {
                receiver.close();
                receiver.try_recv()
            },
        );
        match sent {
            Ok(()) => assert_eq!(taken, Ok(1)),
            Err(back) => assert_eq!((back, taken), (1, Err(TryRecvError::Closed))),
        }
        drop(receiver);
        assert_eq!(witness.kept(), 0);
    }
}

/// The waker is registered or replaced while the value arrives. The last waker is woken, and its wake-up is not lost.
#[test]
fn a_receiver_that_starts_to_wait_during_a_send_is_woken() {
    let _watchdog = watchdog();
    for round in 0..ROUNDS {
        let [old, new] = [(); 2].map(|()| Witness::default());
        let (sender, mut receiver) = oneshot::channel();
        if round % 2 == 0 {
            assert!(old.poll(&mut receiver).is_pending());
        }
        let (sent, polled) =
            race(|| if round % 3 == 0 { drop(sender) } else { sender.send(1).unwrap() }, || new.poll(&mut receiver));
        assert_eq!(sent, ());
        let expected = if round % 3 == 0 { Err(Closed) } else { Ok(1) };
        match polled {
            Poll::Ready(result) => assert_eq!(result, expected),
            Poll::Pending => {
                assert_eq!(new.wakes(), 1, "the wake-up is lost");
                assert_eq!(new.poll(&mut receiver), Poll::Ready(expected));
            }
        }
        assert_eq!((old.kept(), new.kept()), (0, 0));
    }
}

/// `try_recv` sees the complete value, although no wake-up orders the two threads.
#[test]
fn try_recv_during_a_send_sees_the_complete_value() {
    let _watchdog = watchdog();
    for round in 0..ROUNDS {
        let (sender, mut receiver) = oneshot::channel();
        let (sent, taken) = race(
            || sender.send([round; 12]),
            || loop {
                match receiver.try_recv() {
                    Err(TryRecvError::Empty) => thread::yield_now(),
                    other => break other,
                }
            },
        );
        assert_eq!((sent, taken), (Ok(()), Ok([round; 12])));
    }
}

/// A blocking receiver sees a value that arrives at any moment.
#[test]
fn a_blocking_receiver_sees_a_value_that_arrives_at_any_moment() {
    let _watchdog = watchdog();
    for round in 0..ROUNDS {
        let (sender, receiver) = oneshot::channel();
        let (_, taken) = race(
            || if round % 2 == 0 { sender.send(vec![round]) } else { Err(Vec::new()) },
            || if round % 3 == 0 { block_on(receiver) } else { receiver.recv_blocking() },
        );
        assert_eq!(taken, if round % 2 == 0 { Ok(vec![round]) } else { Err(Closed) });
    }
}

#[test]
fn both_ends_may_be_dropped_at_once() {
    let _watchdog = watchdog();
    for round in 0..ROUNDS {
        let [left, right] = [(); 2].map(|()| Witness::default());
        let (mut sender, mut receiver) = oneshot::channel::<Item>();
        assert!(right.poll(&mut receiver).is_pending());
        if round % 2 == 0 {
            assert!(left.poll(&mut pin!(sender.closed())).is_pending());
        }
        race(|| drop(sender), || drop(receiver));
        assert_eq!((left.kept(), right.kept()), (0, 0));
    }
}

/// The sender starts to wait while the receiver closes.
#[test]
fn a_sender_that_starts_to_wait_during_a_close_is_woken() {
    let _watchdog = watchdog();
    for round in 0..ROUNDS {
        let [old, new] = [(); 2].map(|()| Witness::default());
        let (mut sender, mut receiver) = oneshot::channel::<i32>();
        if round % 2 == 0 {
            assert!(old.poll(&mut pin!(sender.closed())).is_pending());
        }
        {
            let mut closed = Box::pin(sender.closed());
            let ((), polled) = race(
                || {
                    receiver.close();
                    if round % 3 == 0 {
                        drop(receiver);
                    }
                },
                || new.poll(&mut closed),
            );
            if polled.is_pending() {
                assert_eq!(new.wakes(), 1, "the wake-up is lost");
                assert!(new.poll(&mut closed).is_ready());
            }
        }
        drop(sender);
        assert_eq!((old.kept(), new.kept()), (0, 0));
    }
}

/// The sender stops waiting, and sends, while the receiver starts to wait or is dropped.
#[test]
fn a_sender_may_stop_waiting_while_the_receiver_polls_or_is_dropped() {
    let _watchdog = watchdog();
    for round in 0..ROUNDS {
        let [left, right] = [(); 2].map(|()| Witness::default());
        let drops = Drops::default();
        let item = drops.item();
        let (mut sender, mut receiver) = oneshot::channel();
        let (sent, polled) = race(
            || {
                // Ready if the receiver was already dropped.
                let _ = left.poll(&mut pin!(sender.closed()));
                sender.send(item)
            },
            || {
                let polled = right.poll(&mut receiver);
                let receiver = (round % 2 == 0).then_some(receiver);
                (polled, receiver)
            },
        );
        match polled {
            (Poll::Ready(value), _) => assert!(value.is_ok() && sent.is_ok()),
            (Poll::Pending, Some(mut receiver)) => {
                assert!(sent.is_ok());
                assert_eq!(right.wakes(), 1, "the wake-up is lost");
                assert!(matches!(right.poll(&mut receiver), Poll::Ready(Ok(_))));
            }
            // The receiver was dropped, before or after the value came.
            (Poll::Pending, None) => {}
        }
        drop(sent);
        assert_eq!(drops.count(), 1);
        assert_eq!((left.kept(), right.kept()), (0, 0));
    }
}

/// Two threads send a number back and forth.
#[test]
fn two_threads_can_exchange_numbers() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(2);
    let (to, from) = mpsc::channel::<(u32, Sender<u32>)>();
    thread::scope(|scope| {
        scope.spawn(|| {
            barrier.wait();
            for (number, answer) in from {
                answer.send(number + 1).unwrap();
            }
        });
        barrier.wait();
        for number in 0..2000 {
            let (sender, receiver) = oneshot::channel();
            to.send((number, sender)).unwrap();
            let answer = if number % 2 == 0 { block_on(receiver) } else { receiver.recv_blocking() };
            assert_eq!(answer, Ok(number + 1));
        }
        drop(to);
    });
}
