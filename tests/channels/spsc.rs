//! `spsc`: every combination of operations of the two ends, the size, the items, the wakers, and races of the ends.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]
#![allow(clippy::similar_names, reason = "`sender`, `sends` and `sent` are distinct enough")]

use crate::helpers::common::{Witness, watchdog};
use crate::hooks::Hooks;
use crate::{Opaque, race};
use offthread::spsc::{
    self, Receiver, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError, TrySendError,
};
use offthread::{Job, JoinError, ThreadPool, block_on};
use std::any::Any;
use std::cell::RefCell;
use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

// --- helpers --------------------------------------------------------------------------------------------------------

/// Polls a pinned future with the given waker.
fn poll<F: Future>(waker: &Waker, future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

fn poll_recv<T>(waker: &Waker, receiver: &mut Receiver<T>) -> Poll<Option<T>> {
    receiver.poll_recv(&mut Context::from_waker(waker))
}

/// Polls a future once with a no-op waker, and drops it.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Records the numbers of the dropped items.
#[derive(Clone, Default)]
struct Drops(Arc<Mutex<Vec<u32>>>);

impl Drops {
    fn item(&self, number: u32) -> Item {
        Item { number, drops: self.clone(), bomb: false }
    }

    /// An item whose `Drop` panics, once.
    fn bomb(&self, number: u32) -> Item {
        Item { number, drops: self.clone(), bomb: true }
    }

    /// The numbers of the dropped items, sorted.
    fn sorted(&self) -> Vec<u32> {
        let mut numbers = self.0.lock().unwrap().clone();
        numbers.sort_unstable();
        numbers
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

struct Item {
    number: u32,
    drops: Drops,
    bomb: bool,
}

impl Drop for Item {
    fn drop(&mut self) {
        self.drops.0.lock().unwrap().push(self.number);
        if self.bomb {
            // Prints nothing, unlike `panic!`.
            resume_unwind(Box::new("the item's panic"));
        }
    }
}

/// How often a race is run: each test takes a fraction of a second.
const ROUNDS: usize = 200;

/// A generator of random numbers (xorshift), so that each run of a test is the same.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) % limit
    }
}

type Ends<T> = (Sender<T>, Receiver<T>);

/// The common result type of all ways to send.
#[derive(Debug, PartialEq)]
enum Sent<T> {
    Ok,
    /// Full, timed out, or still waiting. Contains the item, except for a `send` that was dropped with its item.
    NoRoom(Option<T>),
    Closed(T),
}

impl<T> From<Result<(), SendError<T>>> for Sent<T> {
    fn from(result: Result<(), SendError<T>>) -> Self {
        result.map_or_else(|SendError(item)| Self::Closed(item), |()| Self::Ok)
    }
}

impl<T> From<Result<(), TrySendError<T>>> for Sent<T> {
    fn from(result: Result<(), TrySendError<T>>) -> Self {
        match result {
            Ok(()) => Self::Ok,
            Err(TrySendError::Full(item)) => Self::NoRoom(Some(item)),
            Err(TrySendError::Closed(item)) => Self::Closed(item),
        }
    }
}

impl<T> From<Result<(), SendTimeoutError<T>>> for Sent<T> {
    fn from(result: Result<(), SendTimeoutError<T>>) -> Self {
        match result {
            Ok(()) => Self::Ok,
            Err(SendTimeoutError::Timeout(item)) => Self::NoRoom(Some(item)),
            Err(SendTimeoutError::Closed(item)) => Self::Closed(item),
        }
    }
}

type SendBy<T> = (&'static str, fn(&mut Sender<T>, T) -> Sent<T>);

/// The ways to send that do not wait for ever. (`tests/jobs/waits.rs` tests `send_timeout`.)
fn sends_that_give_up<T: 'static>() -> [SendBy<T>; 4] {
    [
        ("try_send", |sender, item| sender.try_send(item).into()),
        ("send_blocking_timeout, no time", |sender, item| sender.send_blocking_timeout(item, Duration::ZERO).into()),
        ("send_blocking_timeout", |sender, item| sender.send_blocking_timeout(item, Duration::from_micros(50)).into()),
        ("send, polled once", |sender, item| match poll_once(sender.send(item)) {
            Poll::Ready(result) => result.into(),
            Poll::Pending => Sent::NoRoom(None),
        }),
    ]
}

/// The ways to send, except `send_timeout`, for tests in which no send has to wait for ever.
fn all_sends<T: 'static>() -> Vec<SendBy<T>> {
    let waiting: [SendBy<T>; 4] = [
        ("send_blocking", |sender, item| sender.send_blocking(item).into()),
        ("send", |sender, item| block_on(sender.send(item)).into()),
        ("send_blocking_timeout, for ever", |sender, item| sender.send_blocking_timeout(item, Duration::MAX).into()),
        ("send_blocking_timeout, nearly for ever", |sender, item| {
            sender.send_blocking_timeout(item, Duration::MAX.checked_sub(Duration::from_nanos(1)).unwrap()).into()
        }),
    ];
    sends_that_give_up().into_iter().chain(waiting).collect()
}

/// The common result type of all ways to receive.
#[derive(Debug, PartialEq)]
enum Received<T> {
    Item(T),
    Nothing,
    Closed,
}

impl<T> From<Option<T>> for Received<T> {
    fn from(option: Option<T>) -> Self {
        option.map_or(Self::Closed, Self::Item)
    }
}

impl<T> From<Poll<Option<T>>> for Received<T> {
    fn from(polled: Poll<Option<T>>) -> Self {
        match polled {
            Poll::Ready(option) => option.into(),
            Poll::Pending => Self::Nothing,
        }
    }
}

impl<T> From<Result<T, TryRecvError>> for Received<T> {
    fn from(result: Result<T, TryRecvError>) -> Self {
        match result {
            Ok(item) => Self::Item(item),
            Err(TryRecvError::Empty) => Self::Nothing,
            Err(TryRecvError::Closed) => Self::Closed,
        }
    }
}

impl<T> From<Result<T, RecvTimeoutError>> for Received<T> {
    fn from(result: Result<T, RecvTimeoutError>) -> Self {
        match result {
            Ok(item) => Self::Item(item),
            Err(RecvTimeoutError::Timeout) => Self::Nothing,
            Err(RecvTimeoutError::Closed) => Self::Closed,
        }
    }
}

type ReceiveBy<T> = (&'static str, fn(&mut Receiver<T>) -> Received<T>);

/// The result of `recv_many` with a limit of one.
fn the_one<T>(number: usize, mut items: Vec<T>) -> Received<T> {
    assert_eq!(number, items.len());
    assert!(number <= 1);
    items.pop().into()
}

/// The ways to receive that do not wait for ever. (`tests/jobs/waits.rs` tests `recv_blocking_timeout`.)
fn receives_that_give_up<T: 'static>() -> [ReceiveBy<T>; 6] {
    [
        ("try_recv", |receiver| receiver.try_recv().into()),
        ("poll_recv", |receiver| receiver.poll_recv(&mut Context::from_waker(Waker::noop())).into()),
        ("recv, polled once", |receiver| poll_once(receiver.recv()).into()),
        ("recv_many, polled once", |receiver| {
            let mut items = Vec::new();
            match poll_once(receiver.recv_many(&mut items, 1)) {
                Poll::Ready(number) => the_one(number, items),
                Poll::Pending => Received::Nothing,
            }
        }),
        ("recv_timeout, no time", |receiver| block_on(receiver.recv_timeout(Duration::ZERO)).into()),
        ("recv_timeout", |receiver| block_on(receiver.recv_timeout(Duration::from_micros(50))).into()),
    ]
}

/// The ways to receive, except `recv_blocking_timeout` and `into_iter` (see `tests/jobs/waits.rs`), for tests in which
/// no receive has to wait.
fn all_receives<T: 'static>() -> Vec<ReceiveBy<T>> {
    let waiting: [ReceiveBy<T>; 6] = [
        ("recv_blocking", |receiver| receiver.recv_blocking().into()),
        ("recv", |receiver| block_on(receiver.recv()).into()),
        ("recv_many", |receiver| {
            let mut items = Vec::new();
            let number = block_on(receiver.recv_many(&mut items, 1));
            the_one(number, items)
        }),
        ("recv_timeout, for ever", |receiver| block_on(receiver.recv_timeout(Duration::MAX)).into()),
        ("recv_timeout, nearly for ever", |receiver| {
            block_on(receiver.recv_timeout(Duration::MAX.checked_sub(Duration::from_nanos(1)).unwrap())).into()
        }),
        ("iter", |receiver| receiver.iter().next().into()),
    ];
    receives_that_give_up().into_iter().chain(waiting).collect()
}

/// Asserts that both ends report the same state.
fn assert_state<T>(sender: &Sender<T>, receiver: &Receiver<T>, len: usize, closed: bool) {
    assert_eq!((sender.len(), receiver.len()), (len, len));
    assert_eq!((sender.is_empty(), receiver.is_empty()), (len == 0, len == 0));
    assert_eq!((sender.is_closed(), receiver.is_closed()), (closed, closed));
    assert_eq!(sender.max_size(), receiver.max_size());
}

/// Channel sizes to test: powers of two and others.
const SIZES: [usize; 9] = [1, 2, 3, 4, 5, 7, 8, 64, 100];

// --- operations of the ends -----------------------------------------------------------------------------------------

#[test]
fn receiving_from_an_empty_channel_gives_nothing() {
    let _watchdog = watchdog();
    for (name, receive) in receives_that_give_up() {
        let (sender, mut receiver) = spsc::channel::<u32>(2);
        for _ in 0..3 {
            assert_eq!(receive(&mut receiver), Received::Nothing, "{name}");
        }
        assert_state(&sender, &receiver, 0, false);
    }
}

/// Every way to send, followed by every way to receive.
#[test]
fn each_sent_item_is_received() {
    let _watchdog = watchdog();
    for (to, send) in all_sends() {
        for (from, receive) in all_receives() {
            for size in [1, 3] {
                let (mut sender, mut receiver) = spsc::channel(size);
                for number in 0..7 {
                    assert_eq!(send(&mut sender, number), Sent::Ok, "{to}");
                    assert_state(&sender, &receiver, 1, false);
                    assert_eq!(receive(&mut receiver), Received::Item(number), "{from}");
                    assert_state(&sender, &receiver, 0, false);
                }
            }
        }
    }
}

/// `max_size` is exact.
#[test]
fn a_full_channel_accepts_no_more() {
    let _watchdog = watchdog();
    for size in SIZES {
        for (to, send) in sends_that_give_up() {
            let (mut sender, mut receiver) = spsc::channel(size);
            assert_eq!((sender.max_size(), receiver.max_size()), (size, size));
            for number in 0..size {
                assert_state(&sender, &receiver, number, false);
                assert_eq!(send(&mut sender, number), Sent::Ok, "{to}");
            }
            for _ in 0..3 {
                match send(&mut sender, 1000) {
                    Sent::NoRoom(item) => assert!(item.is_none_or(|item| item == 1000), "{to}"),
                    other => panic!("{to} in a full channel of {size}: {other:?}"),
                }
            }
            assert_state(&sender, &receiver, size, false);
            // The items that did not fit do not arrive later.
            assert_eq!(receiver.try_recv(), Ok(0));
            assert_eq!(send(&mut sender, size), Sent::Ok, "{to}: the room is usable at once");
            assert!(matches!(send(&mut sender, 1000), Sent::NoRoom(_)), "{to}");
            sender.close();
            assert!(receiver.iter().eq(1..=size));
        }
    }
}

/// The positions in the ring wrap around, with every number of queued items. (A test cannot send so many items that the
/// counters overflow.)
#[test]
fn the_positions_in_the_ring_wrap_around() {
    for size in SIZES {
        let (mut sender, mut receiver) = spsc::channel(size);
        let mut random = Random::new(size as u64);
        let (mut sent, mut taken) = (0_usize, 0_usize);
        while taken < 20_000 {
            for _ in 0..=random.below(size as u64) {
                match sender.try_send(sent) {
                    Ok(()) => sent += 1,
                    Err(TrySendError::Full(item)) => assert_eq!((item, sent - taken), (sent, size)),
                    Err(TrySendError::Closed(_)) => panic!("closed without a `close`"),
                }
            }
            assert_state(&sender, &receiver, sent - taken, false);
            for _ in 0..=random.below(size as u64) {
                match receiver.try_recv() {
                    Ok(item) => assert_eq!((item, taken), (taken, item)),
                    Err(error) => {
                        assert_eq!((error, sent), (TryRecvError::Empty, taken));
                        continue;
                    }
                }
                taken += 1;
            }
        }
    }
}

/// After the sender has closed, the remaining items are still received.
#[test]
fn the_rest_is_received_after_the_sender_has_closed() {
    let _watchdog = watchdog();
    for (name, receive) in all_receives() {
        for size in [3, 5] {
            let (mut sender, mut receiver) = spsc::channel(size);
            for number in 0..3 {
                sender.try_send(number).unwrap();
            }
            sender.close();
            for number in 0..3 {
                assert_state(&sender, &receiver, 3 - number, true);
                assert_eq!(receive(&mut receiver), Received::Item(number), "{name}");
            }
            // The channel stays closed.
            for _ in 0..3 {
                assert_state(&sender, &receiver, 0, true);
                assert_eq!(receive(&mut receiver), Received::Closed, "{name}");
            }
        }
    }
}

/// Dropping the sender closes the channel.
#[test]
fn the_rest_is_received_after_the_sender_was_dropped() {
    let _watchdog = watchdog();
    for (name, receive) in all_receives() {
        let (mut sender, mut receiver) = spsc::channel(2);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        drop(sender);
        assert_eq!((receiver.len(), receiver.is_closed()), (2, true));
        assert_eq!(receive(&mut receiver), Received::Item(1), "{name}");
        assert_eq!(receive(&mut receiver), Received::Item(2), "{name}");
        assert_eq!(receive(&mut receiver), Received::Closed, "{name}");
        assert_eq!(receive(&mut receiver), Received::Closed, "{name}");
        assert_eq!((receiver.len(), receiver.is_closed()), (0, true));
    }
}

/// A send to a closed channel fails at once, even if the channel is full.
#[test]
fn a_closed_sender_sends_no_more() {
    let _watchdog = watchdog();
    for (name, send) in all_sends() {
        for filled in 0..=2 {
            let (mut sender, mut receiver) = spsc::channel(2);
            for number in 0..filled {
                sender.try_send(number).unwrap();
            }
            sender.close();
            sender.close();
            assert_eq!(send(&mut sender, 9), Sent::Closed(9), "{name} with {filled} items");
            assert!(receiver.iter().eq(0..filled));
            assert_eq!(send(&mut sender, 9), Sent::Closed(9), "{name} in the end");
        }
    }
}

#[test]
fn a_closed_receiver_receives_the_queued_items_and_no_more() {
    let _watchdog = watchdog();
    for (to, send) in all_sends() {
        for (from, receive) in all_receives() {
            for filled in 0..=2 {
                let (mut sender, mut receiver) = spsc::channel(2);
                for number in 0..filled {
                    sender.try_send(number).unwrap();
                }
                receiver.close();
                receiver.close();
                assert_state(&sender, &receiver, filled, true);
                assert_eq!(send(&mut sender, 9), Sent::Closed(9), "{to} with {filled} items");
                for number in 0..filled {
                    assert_eq!(receive(&mut receiver), Received::Item(number), "{from}");
                    assert_eq!(send(&mut sender, 9), Sent::Closed(9), "{to}");
                }
                assert_eq!(receive(&mut receiver), Received::Closed, "{from}");
                assert_state(&sender, &receiver, 0, true);
            }
        }
    }
}

/// Dropping the receiver closes the channel and drops the queued items at once, although the sender lives on.
#[test]
fn a_dropped_receiver_drops_the_queued_items() {
    let _watchdog = watchdog();
    for (name, send) in all_sends() {
        for filled in 0..=3 {
            let drops = Drops::default();
            let (mut sender, receiver) = spsc::channel(3);
            for number in 0..filled {
                assert!(sender.try_send(drops.item(number)).is_ok());
            }
            drop(receiver);
            assert_eq!(drops.sorted(), (0..filled).collect::<Vec<_>>());
            assert_eq!((sender.is_closed(), sender.len()), (true, 0));
            match send(&mut sender, drops.item(9)) {
                Sent::Closed(item) => assert_eq!((item.number, drops.count()), (9, filled as usize), "{name}"),
                _ => panic!("{name} to a dropped receiver"),
            }
            drop(sender);
            assert_eq!(drops.count(), filled as usize + 1);
        }
    }
}

#[test]
fn the_ways_to_send_and_to_receive_may_be_mixed() {
    let _watchdog = watchdog();
    let (mut sender, mut receiver) = spsc::channel(3);
    for round in 0_usize..50 {
        let (sends, receives) = (all_sends(), all_receives());
        for step in 0..3 {
            let (name, send) = sends[(round * 3 + step) % sends.len()];
            assert_eq!(send(&mut sender, round + step), Sent::Ok, "{name}");
        }
        for step in 0..3 {
            let (name, receive) = receives[(round * 5 + step) % receives.len()];
            assert_eq!(receive(&mut receiver), Received::Item(round + step), "{name}");
        }
    }
}

#[test]
fn recv_many_takes_the_queued_items() {
    let _watchdog = watchdog();
    let (mut sender, mut receiver) = spsc::channel(5);
    let mut items = vec![100];
    for number in 0..5 {
        sender.try_send(number).unwrap();
    }
    assert_eq!(block_on(receiver.recv_many(&mut items, 3)), 3);
    assert_eq!(items, [100, 0, 1, 2]);
    // These items wrap around the end of the ring.
    for number in 5..8 {
        sender.try_send(number).unwrap();
    }
    assert!(sender.try_send(9).is_err());
    assert_eq!(block_on(receiver.recv_many(&mut items, 100)), 5);
    assert_eq!(items, [100, 0, 1, 2, 3, 4, 5, 6, 7]);
    assert_state(&sender, &receiver, 0, false);
    // `recv_many` does not wait for more than one item.
    {
        let mut waiting = pin!(receiver.recv_many(&mut items, 2));
        let witness = Witness::default();
        assert!(witness.poll(waiting.as_mut()).is_pending());
        sender.try_send(8).unwrap();
        assert_eq!(witness.wakes(), 1);
        assert_eq!(witness.poll(waiting), Poll::Ready(1));
    }
    assert_eq!(items.pop(), Some(8));
    sender.try_send(9).unwrap();
    sender.close();
    assert_eq!(block_on(receiver.recv_many(&mut items, 2)), 1);
    assert_eq!(items.pop(), Some(9));
    assert_eq!(block_on(receiver.recv_many(&mut items, 2)), 0);
    assert_eq!(items.len(), 9);
}

/// A limit of zero takes no item.
#[test]
fn recv_many_with_a_limit_of_zero_takes_none() {
    let (mut sender, mut receiver) = spsc::channel(2);
    sender.try_send(1).unwrap();
    let mut items = Vec::new();
    assert_eq!(poll_once(receiver.recv_many(&mut items, 0)), Poll::Ready(0));
    assert!(items.is_empty());
    assert_eq!(receiver.len(), 1);
}

/// All the room that `recv_many` makes is usable at once, and a waiting sender is woken.
#[test]
fn recv_many_makes_room() {
    let (mut sender, mut receiver) = spsc::channel(4);
    for number in 0..4 {
        sender.try_send(number).unwrap();
    }
    let witness = Witness::default();
    {
        let mut waiting = pin!(sender.send(4));
        assert!(witness.poll(waiting.as_mut()).is_pending());
        let mut items = Vec::new();
        assert_eq!(poll_once(receiver.recv_many(&mut items, 3)), Poll::Ready(3));
        assert_eq!(witness.wakes(), 1);
        assert_eq!(witness.poll(waiting), Poll::Ready(Ok(())));
    }
    assert_eq!(sender.try_send(5), Ok(()));
    assert_eq!(sender.try_send(6), Ok(()));
    assert_eq!(sender.try_send(7), Err(TrySendError::Full(7)));
    sender.close();
    assert!(receiver.iter().eq(3..7));
}

#[test]
fn iter_ends_with_the_channel_and_may_be_dropped_early() {
    let _watchdog = watchdog();
    let (mut sender, mut receiver) = spsc::channel(2);
    let other = thread::spawn(move || {
        for number in 0..100 {
            sender.send_blocking(number).unwrap();
        }
    });
    assert!(receiver.iter().take(10).eq(0..10));
    assert_eq!(receiver.recv_blocking(), Some(10));
    assert!(receiver.iter().eq(11..100));
    assert_eq!(receiver.iter().next(), None);
    other.join().unwrap();
}

// --- sizes and items ------------------------------------------------------------------------------------------------

fn message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().map_or_else(|| panic.downcast_ref::<&str>().copied().unwrap(), String::as_str)
}

#[test]
fn a_channel_of_size_zero_panics() {
    assert!(catch_unwind(|| spsc::channel::<u32>(0)).is_err());
    assert!(catch_unwind(|| spsc::channel::<()>(0)).is_err());
}

/// A `max_size` that cannot be allocated, or that the counters cannot represent, panics with a message that contains
/// the size, and never aborts. The smaller sizes of this test can be counted, but need more bytes than a 64-bit
/// processor can address.
#[test]
fn a_size_that_cannot_be_allocated_panics_with_its_size() {
    fn check<T: 'static>(size: usize) {
        let panic = catch_unwind(|| spsc::channel::<T>(size)).unwrap_err();
        assert!(message(&*panic).contains(&size.to_string()), "{}", message(&*panic));
    }
    for size in [usize::MAX, usize::MAX - 1, usize::MAX / 2 + 1, usize::MAX / 2] {
        check::<u8>(size);
        check::<u64>(size);
        check::<[u8; 1 << 20]>(size);
    }
    for size in [usize::MAX / 8, usize::MAX / 16, usize::MAX / 32, usize::MAX / 64 + 1, 1 << (usize::BITS - 6)] {
        check::<[u8; 4]>(size);
        check::<u64>(size);
    }
}

/// A channel of zero-sized items needs no memory for them: it works with the exact size, or panics with the size.
#[test]
fn huge_channels_of_zero_sized_items_are_exact_or_panic() {
    for size in [usize::MAX, usize::MAX / 2 + 1, usize::MAX / 2, usize::MAX / 4, usize::MAX / 8, usize::MAX / 16] {
        match catch_unwind(|| spsc::channel::<()>(size)) {
            Err(panic) => assert!(message(&*panic).contains(&size.to_string()), "{}", message(&*panic)),
            Ok((mut sender, mut receiver)) => {
                assert_eq!((sender.max_size(), receiver.max_size()), (size, size));
                assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
                for number in 0..100 {
                    assert_eq!(sender.len(), number);
                    assert_eq!(sender.try_send(()), Ok(()));
                }
                assert!((0..100).all(|_| receiver.try_recv() == Ok(())));
                assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            }
        }
    }
}

#[test]
fn any_kind_of_item_can_be_sent() {
    #[derive(Debug, PartialEq, Clone)]
    #[repr(align(256))]
    struct Aligned(u8);
    #[derive(Debug, PartialEq, Clone)]
    #[repr(align(64))]
    struct NoSize;

    fn through<T: PartialEq + Debug + Clone>(item: &T) {
        for size in [1, 2, 3, 7] {
            let (mut sender, mut receiver) = spsc::channel(size);
            for round in 0..10 {
                for _ in 0..size {
                    assert!(sender.try_send(item.clone()).is_ok());
                }
                assert_eq!(sender.try_send(item.clone()), Err(TrySendError::Full(item.clone())));
                for _ in 0..size {
                    assert_eq!(receiver.try_recv().as_ref(), Ok(item), "round {round}");
                }
            }
        }
    }
    through(&());
    through(&NoSize);
    through(&[0_u64; 0]);
    through(&[7_u8; 16_000]);
    through(&(1_u8, 2_u32, 3_u8));
    through(&Aligned(3));
    through(&vec!["on", "the", "heap"]);
    through(&Rc::new("not Send"));
    through(&Some(Box::new(1)));
}

/// The `Drop` of zero-sized items runs.
#[test]
fn items_of_no_size_are_dropped_once() {
    thread_local! {
        static DROPS: RefCell<usize> = const { RefCell::new(0) };
    }
    struct NoSize;
    impl Drop for NoSize {
        fn drop(&mut self) {
            DROPS.with_borrow_mut(|drops| *drops += 1);
        }
    }
    let drops = || DROPS.with_borrow(|drops| *drops);
    let (mut sender, mut receiver) = spsc::channel(3);
    for _ in 0..3 {
        assert!(sender.try_send(NoSize).is_ok());
    }
    assert_eq!(drops(), 0);
    drop(receiver.try_recv());
    assert_eq!(drops(), 1);
    assert!(sender.try_send(NoSize).is_ok());
    assert!(matches!(sender.try_send(NoSize), Err(TrySendError::Full(NoSize))));
    assert_eq!(drops(), 2);
    drop(receiver);
    assert_eq!(drops(), 5);
    drop(sender);
    assert_eq!(drops(), 5);
}

#[test]
fn items_are_dropped_once_wherever_they_end() {
    for size in [1_u32, 2, 3, 7] {
        for start in 0..size {
            let drops = Drops::default();
            let (mut sender, mut receiver) = spsc::channel(size as usize);
            // So that the queued items wrap around the end of the ring.
            for number in 0..start {
                assert!(sender.try_send(drops.item(number)).is_ok());
                drop(receiver.try_recv());
            }
            for number in start..start + size {
                assert!(sender.try_send(drops.item(number)).is_ok());
            }
            assert_eq!(drops.count(), start as usize);
            if start % 2 == 0 {
                // The receiver drops the remaining items, even if it is dropped last.
                drop(sender);
                assert_eq!(drops.count(), start as usize);
                drop(receiver);
            } else {
                drop(receiver);
                assert_eq!(drops.count(), (start + size) as usize);
                drop(sender);
            }
            assert_eq!(drops.sorted(), (0..start + size).collect::<Vec<_>>());
        }
    }
}

/// If the `Drop` of an item panics, that item is not dropped again, and all others are still dropped once.
#[test]
fn an_item_whose_drop_panics_is_dropped_once_and_so_are_the_others() {
    for size in [1_u32, 2, 5] {
        for taken in 0..size {
            for bomb in taken..size {
                let drops = Drops::default();
                let witness = Witness::default();
                let (mut sender, mut receiver) = spsc::channel(size as usize);
                for number in 0..size {
                    let item = if number == bomb { drops.bomb(number) } else { drops.item(number) };
                    assert!(sender.try_send(item).is_ok());
                }
                for number in 0..taken {
                    assert_eq!(receiver.try_recv().map(|item| item.number), Ok(number));
                }
                // It is unspecified whether the panic comes out here.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(receiver)));
                assert_eq!(drops.sorted(), (0..size).collect::<Vec<_>>(), "bomb {bomb}, {taken} taken");
                // The sender works as usual.
                assert!(sender.is_closed());
                assert!(matches!(sender.try_send(drops.item(9)), Err(TrySendError::Closed(_))));
                assert!(matches!(witness.poll(pin!(sender.send(drops.item(9)))), Poll::Ready(Err(SendError(_)))));
                drop(sender);
                assert_eq!((drops.count(), witness.kept()), (size as usize + 2, 0));
            }
        }
    }
}

/// The same when the sender was dropped before, so that the receiver is the last end.
#[test]
fn an_item_whose_drop_panics_keeps_no_item_alive() {
    let drops = Drops::default();
    let token = Arc::new(());
    let (mut sender, receiver) = spsc::channel(3);
    for number in 0..3 {
        let item = if number == 1 { drops.bomb(number) } else { drops.item(number) };
        assert!(sender.try_send((item, Arc::clone(&token))).is_ok());
    }
    drop(sender);
    let _ = catch_unwind(AssertUnwindSafe(|| drop(receiver)));
    assert_eq!(drops.sorted(), [0, 1, 2]);
    assert_eq!(Arc::strong_count(&token), 1);
}

/// The item of a waiting `send` is dropped with the future. Its panic comes out, and the channel still works.
#[test]
fn a_waiting_item_whose_drop_panics_does_not_break_the_channel() {
    let drops = Drops::default();
    let (mut sender, mut receiver) = spsc::channel(1);
    assert!(sender.try_send(drops.item(0)).is_ok());
    let dropped = catch_unwind(AssertUnwindSafe(|| poll_once(sender.send(drops.bomb(1)))));
    assert!(dropped.is_err());
    assert_eq!(drops.sorted(), [1]);
    assert_eq!(receiver.try_recv().map(|item| item.number), Ok(0));
    assert!(sender.try_send(drops.item(2)).is_ok());
    assert_eq!(receiver.try_recv().map(|item| item.number), Ok(2));
    drop((sender, receiver));
    assert_eq!(drops.sorted(), [0, 1, 2]);
}

/// A channel contains, inside a second channel, its own sender. Dropping the receiver drops all items and the sender.
#[test]
fn a_channel_may_carry_its_own_sender() {
    let _watchdog = watchdog();
    let token = Arc::new(());
    let (mut sender, receiver) = spsc::channel::<Box<dyn Any>>(3);
    // A sender cannot be sent through itself, but a second channel can carry it.
    let (mut carrier, carried) = spsc::channel(1);
    assert!(sender.try_send(Box::new(Arc::clone(&token))).is_ok());
    assert!(sender.try_send(Box::new(carried)).is_ok());
    assert!(sender.try_send(Box::new(Arc::clone(&token))).is_ok());
    assert!(carrier.try_send(sender).is_ok());
    drop(receiver);
    assert_eq!(Arc::strong_count(&token), 1);
    assert!(carrier.is_closed());
}

/// The `Drop` of an item sends to the channel.
#[test]
fn an_items_drop_may_send() {
    struct Sends {
        back: Arc<Mutex<Option<Sender<Sends>>>>,
        refused: Arc<AtomicUsize>,
    }
    impl Drop for Sends {
        fn drop(&mut self) {
            // The refused item has an empty `back` of its own, so its `Drop` sends nothing.
            let sender = self.back.lock().unwrap().take();
            if let Some(mut sender) = sender {
                let item = Sends { back: Arc::default(), refused: Arc::clone(&self.refused) };
                if let Err(TrySendError::Closed(_)) = sender.try_send(item) {
                    self.refused.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }
    let _watchdog = watchdog();
    let (back, refused) = (Arc::default(), Arc::<AtomicUsize>::default());
    let (mut sender, receiver) = spsc::channel(2);
    assert!(sender.try_send(Sends { back: Arc::clone(&back), refused: Arc::clone(&refused) }).is_ok());
    *back.lock().unwrap() = Some(sender);
    drop(receiver);
    assert_eq!(refused.load(Ordering::SeqCst), 1);
}

#[test]
fn errors_can_be_boxed_and_have_distinct_messages() {
    fn check(error: impl Error + Send + Sync + 'static) -> String {
        assert!(!format!("{error:?}").is_empty());
        let text = error.to_string();
        assert!(!text.is_empty());
        let boxed: Box<dyn Error + Send + Sync> = error.into();
        assert_eq!(boxed.to_string(), text);
        text
    }
    check(SendError(Opaque));
    assert_ne!(check(TrySendError::Full(Opaque)), check(TrySendError::Closed(Opaque)));
    assert_ne!(check(SendTimeoutError::Timeout(Opaque)), check(SendTimeoutError::Closed(Opaque)));
    assert_ne!(check(TryRecvError::Empty), check(TryRecvError::Closed));
    assert_ne!(check(RecvTimeoutError::Timeout), check(RecvTimeoutError::Closed));
}

#[test]
fn ends_print_without_the_items_being_printable() {
    let (mut sender, mut receiver) = spsc::channel::<Opaque>(1);
    assert!(!format!("{sender:?} {receiver:?}").is_empty());
    assert!(poll_once(receiver.recv()).is_pending());
    assert!(sender.try_send(Opaque).is_ok());
    assert!(poll_once(sender.send(Opaque)).is_pending());
    assert!(!format!("{sender:?} {receiver:?}").is_empty());
    sender.close();
    assert!(!format!("{sender:?} {receiver:?}").is_empty());
    assert_eq!(receiver.len(), 1);
}

// --- cancelling -----------------------------------------------------------------------------------------------------

#[test]
fn futures_do_nothing_until_they_are_polled() {
    let drops = Drops::default();
    let (mut sender, mut receiver) = spsc::channel(1);
    drop(sender.send(drops.item(0)));
    assert_eq!(drops.sorted(), [0]);
    assert_state(&sender, &receiver, 0, false);
    assert!(sender.try_send(drops.item(1)).is_ok());
    drop(receiver.recv());
    drop(receiver.recv_many(&mut Vec::new(), 1));
    drop(receiver.recv_timeout(Duration::ZERO));
    assert_state(&sender, &receiver, 1, false);
}

/// A `recv` that is dropped just before or after the item arrives does not take the item with it.
#[test]
fn a_cancelled_recv_loses_nothing() {
    /// Waits in the given way, and gives up before or after the item has come.
    fn check<'a, F: Future + 'a>(wait: impl FnOnce(&'a mut Receiver<u32>) -> F, ends: &'a mut Ends<u32>, item: u32) {
        let (sender, receiver) = ends;
        let witness = Witness::default();
        let mut waiting = Box::pin(wait(receiver));
        assert!(witness.poll(waiting.as_mut()).is_pending());
        if item % 2 == 0 {
            sender.try_send(item).unwrap();
            assert_eq!(witness.wakes(), 1);
        }
        drop(waiting);
        if item % 2 == 1 {
            sender.try_send(item).unwrap();
        }
    }
    let _watchdog = watchdog();
    for size in [1, 2] {
        let mut ends = spsc::channel(size);
        for (name, receive) in all_receives() {
            for item in 0..2 {
                check(Receiver::recv, &mut ends, item);
                assert_eq!(receive(&mut ends.1), Received::Item(item), "{name} after recv");
                check(|receiver| receiver.recv_timeout(Duration::MAX), &mut ends, item);
                assert_eq!(receive(&mut ends.1), Received::Item(item), "{name} after recv_timeout");
                let mut items = Vec::new();
                check(|receiver| receiver.recv_many(&mut items, 2), &mut ends, item);
                assert_eq!(items, [], "a cancelled `recv_many` has taken an item");
                assert_eq!(receive(&mut ends.1), Received::Item(item), "{name} after recv_many");
            }
        }
    }
}

/// If a `send` is dropped before it is ready, its item is dropped with the future, and never arrives.
#[test]
fn a_cancelled_send_sends_nothing() {
    let _watchdog = watchdog();
    for room_in_time in [false, true] {
        for (name, send) in all_sends() {
            let drops = Drops::default();
            let witness = Witness::default();
            let (mut sender, mut receiver) = spsc::channel(1);
            assert!(sender.try_send(drops.item(0)).is_ok());
            {
                let mut waiting = pin!(sender.send(drops.item(1)));
                assert!(witness.poll(waiting.as_mut()).is_pending());
                if room_in_time {
                    assert_eq!(receiver.try_recv().map(|item| item.number), Ok(0));
                    assert_eq!(witness.wakes(), 1);
                    // The receiver did not take the waiting item.
                    assert_eq!(receiver.len(), 0);
                }
            }
            if !room_in_time {
                assert_eq!(drops.sorted(), [1]);
                assert_eq!(receiver.try_recv().map(|item| item.number), Ok(0));
            }
            assert_eq!(drops.sorted(), [0, 1]);
            assert!(receiver.try_recv().is_err());
            assert!(matches!(send(&mut sender, drops.item(2)), Sent::Ok), "{name}");
            assert_eq!(receiver.try_recv().map(|item| item.number), Ok(2));
            drop((sender, receiver));
            assert_eq!(drops.sorted(), [0, 1, 2]);
        }
    }
}

/// After a time-out the item is given back, and the send does not go on.
#[test]
fn a_send_that_timed_out_sends_nothing_later() {
    let _watchdog = watchdog();
    let drops = Drops::default();
    let (mut sender, mut receiver) = spsc::channel(1);
    assert!(sender.try_send(drops.item(0)).is_ok());
    let start = Instant::now();
    let back = match sender.send_blocking_timeout(drops.item(1), Duration::from_millis(20)) {
        Err(SendTimeoutError::Timeout(item)) => item,
        other => panic!("{other:?}"),
    };
    assert!(start.elapsed() >= Duration::from_millis(20), "too early");
    assert_eq!((back.number, drops.count()), (1, 0));
    assert_eq!(receiver.try_recv().map(|item| item.number), Ok(0));
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    assert!(sender.try_send(back).is_ok());
    assert_eq!(receiver.try_recv().map(|item| item.number), Ok(1));
}

#[test]
fn a_recv_that_timed_out_takes_nothing_later() {
    let _watchdog = watchdog();
    let (mut sender, mut receiver) = spsc::channel(1);
    let start = Instant::now();
    assert_eq!(block_on(receiver.recv_timeout(Duration::from_millis(20))), Err(RecvTimeoutError::Timeout));
    assert!(start.elapsed() >= Duration::from_millis(20), "too early");
    sender.try_send(1).unwrap();
    assert_eq!((sender.len(), receiver.len()), (1, 1));
    assert_eq!(block_on(receiver.recv_timeout(Duration::from_millis(20))), Ok(1));
    sender.close();
    assert_eq!(block_on(receiver.recv_timeout(Duration::from_millis(20))), Err(RecvTimeoutError::Closed));
}

// --- waking ---------------------------------------------------------------------------------------------------------

/// Taking one item wakes a sleeping sender at once. If the channel waited until half of it is free, programs would
/// deadlock.
#[test]
fn one_item_taken_wakes_the_sender() {
    for size in SIZES {
        let (mut sender, mut receiver) = spsc::channel(size);
        for number in 0..size {
            sender.try_send(number).unwrap();
        }
        for number in 0..2 * size {
            let witness = Witness::default();
            let mut waiting = pin!(sender.send(size + number));
            assert!(witness.poll(waiting.as_mut()).is_pending());
            assert_eq!(receiver.try_recv(), Ok(number));
            assert_eq!((witness.wakes(), witness.kept()), (1, 0), "in a channel of {size}");
            assert_eq!(witness.poll(waiting), Poll::Ready(Ok(())));
        }
    }
}

#[test]
fn one_item_sent_wakes_the_receiver() {
    let _watchdog = watchdog();
    for size in [1, 2, 3, 64] {
        for (name, send) in all_sends() {
            let (mut sender, mut receiver) = spsc::channel(size);
            for number in 0..5 {
                let witness = Witness::default();
                assert!(poll_recv(&witness.waker(), &mut receiver).is_pending());
                assert_eq!(send(&mut sender, number), Sent::Ok);
                assert_eq!((witness.wakes(), witness.kept()), (1, 0), "{name}");
                assert_eq!(poll_recv(&witness.waker(), &mut receiver), Poll::Ready(Some(number)));
            }
        }
    }
}

/// A close or a drop of the receiver wakes a sender that waits for room in a full buffer.
#[test]
fn the_receivers_close_wakes_the_sender() {
    for dropped in [false, true] {
        let witness = Witness::default();
        let (mut sender, mut receiver) = spsc::channel(1);
        sender.try_send(0).unwrap();
        let mut waiting = Box::pin(async move { sender.send(1).await });
        assert!(witness.poll(waiting.as_mut()).is_pending());
        let closed = if dropped {
            drop(receiver);
            None
        } else {
            receiver.close();
            Some(receiver)
        };
        // Before `try_recv`, which wakes a waiting sender as well.
        assert_eq!((witness.wakes(), witness.kept()), (1, 0));
        // Items that were sent before the close are received.
        assert!(closed.is_none_or(|mut receiver| receiver.try_recv() == Ok(0)));
        assert_eq!(witness.poll(waiting.as_mut()), Poll::Ready(Err(SendError(1))));
    }
}

#[test]
fn the_senders_close_wakes_the_receiver() {
    for dropped in [false, true] {
        let witness = Witness::default();
        let (mut sender, mut receiver) = spsc::channel::<u32>(1);
        assert!(poll_recv(&witness.waker(), &mut receiver).is_pending());
        if dropped {
            drop(sender);
        } else {
            sender.close();
        }
        assert_eq!((witness.wakes(), witness.kept()), (1, 0));
        assert_eq!(poll_recv(&witness.waker(), &mut receiver), Poll::Ready(None));
        assert_eq!(witness.kept(), 0);
    }
}

/// The last waker is woken, not the first, and earlier wakers are dropped at once.
#[test]
fn the_last_waker_is_woken() {
    let [first, second, third] = [(); 3].map(|()| Witness::default());
    let (mut sender, mut receiver) = spsc::channel(1);
    for (waker, before) in [(&second, &first), (&third, &second), (&first, &third)] {
        assert!(poll_recv(&waker.waker(), &mut receiver).is_pending());
        assert_eq!((waker.kept(), before.kept()), (1, 0));
    }
    sender.try_send(1).unwrap();
    assert_eq!([first.wakes(), second.wakes(), third.wakes()], [1, 0, 0]);
    {
        let mut waiting = pin!(sender.send(2));
        for (waker, before) in [(&second, &first), (&third, &second)] {
            assert!(waker.poll(waiting.as_mut()).is_pending());
            assert_eq!((waker.kept(), before.kept()), (1, 0));
        }
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!([first.wakes(), second.wakes(), third.wakes()], [1, 0, 1]);
        assert_eq!(first.poll(waiting), Poll::Ready(Ok(())));
    }
    assert_eq!(poll_recv(&third.waker(), &mut receiver), Poll::Ready(Some(2)));
    assert_eq!([first.kept(), second.kept(), third.kept()], [0, 0, 0]);
}

/// The channel keeps one clone of a waker, however often and in whatever way the waker is registered.
#[test]
fn the_same_waker_is_kept_once() {
    let witness = Witness::default();
    let (mut sender, mut receiver) = spsc::channel(1);
    for _ in 0..5 {
        assert!(poll_recv(&witness.waker(), &mut receiver).is_pending());
        let mut waiting = pin!(receiver.recv());
        assert!(witness.poll(waiting.as_mut()).is_pending());
        assert!(witness.poll(waiting).is_pending());
        assert!(witness.kept() <= 1);
    }
    assert!(poll_recv(&witness.waker(), &mut receiver).is_pending());
    assert_eq!(witness.kept(), 1);
    sender.try_send(1).unwrap();
    assert_eq!((witness.wakes(), witness.kept()), (1, 0));
    for _ in 0..5 {
        let mut waiting = pin!(sender.send(2));
        assert!(witness.poll(waiting.as_mut()).is_pending());
        assert!(witness.poll(waiting).is_pending());
        assert!(witness.kept() <= 1);
    }
    assert_eq!(receiver.try_recv(), Ok(1));
}

/// A waker is dropped when it can no longer be needed: it would keep a whole task alive.
#[test]
fn no_waker_outlives_its_end() {
    // The receiver's waker, when the receiver is dropped before the sender.
    let witness = Witness::default();
    let (mut sender, mut receiver) = spsc::channel(1);
    assert!(poll_recv(&witness.waker(), &mut receiver).is_pending());
    drop(receiver);
    assert_eq!((witness.wakes(), witness.kept()), (0, 0));
    assert_eq!(sender.try_send(1), Err(TrySendError::Closed(1)));
    assert_eq!(witness.wakes(), 0);

    // The sender's waker, when the sender is dropped before the receiver.
    let (mut sender, mut receiver) = spsc::channel(1);
    sender.try_send(1).unwrap();
    let mut waiting = Box::pin(async move { sender.send(2).await });
    assert!(witness.poll(waiting.as_mut()).is_pending());
    drop(waiting);
    assert_eq!((witness.wakes(), witness.kept()), (0, 0));
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    assert_eq!(witness.wakes(), 0);

    // A receiver that waited with `poll_recv`, and got its item with `try_recv`.
    let (mut sender, mut receiver) = spsc::channel(1);
    assert!(poll_recv(&witness.waker(), &mut receiver).is_pending());
    sender.try_send(1).unwrap();
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(witness.kept(), 0);
}

/// A closed receiver never waits again, so it drops its waker.
#[test]
fn a_closed_receiver_keeps_no_waker() {
    let witness = Witness::default();
    let (mut sender, mut receiver) = spsc::channel(1);
    assert!(poll_recv(&witness.waker(), &mut receiver).is_pending());
    receiver.close();
    assert_eq!(witness.kept(), 0);
    assert_eq!(sender.try_send(1), Err(TrySendError::Closed(1)));
}

/// A dropped `recv` future drops its waker, because the waker would keep the waiting task alive.
#[test]
fn a_cancelled_recv_leaves_no_waker_behind() {
    let witness = Witness::default();
    let (_sender, mut receiver) = spsc::channel::<u32>(1);
    assert!(witness.poll(pin!(receiver.recv())).is_pending());
    assert_eq!(witness.kept(), 0, "by recv");
    let mut items = Vec::new();
    assert!(witness.poll(pin!(receiver.recv_many(&mut items, 1))).is_pending());
    assert_eq!(witness.kept(), 0, "by recv_many");
    assert!(witness.poll(pin!(receiver.recv_timeout(Duration::MAX))).is_pending());
    assert_eq!(witness.kept(), 0, "by recv_timeout");
    assert!(witness.poll(pin!(receiver.recv_timeout(Duration::from_secs(1000)))).is_pending());
    assert_eq!(witness.kept(), 0, "by recv_timeout, or the timer");
}

#[test]
fn a_cancelled_send_leaves_no_waker_behind() {
    let witness = Witness::default();
    let (mut sender, _receiver) = spsc::channel::<u32>(1);
    sender.try_send(1).unwrap();
    assert!(witness.poll(pin!(sender.send(2))).is_pending());
    assert_eq!(witness.kept(), 0);
}

/// Dropping both ends neither wakes the receiver's waker nor keeps a clone of it: the first wake-up is the test's own,
/// on another thread.
#[test]
fn dropped_ends_neither_wake_nor_keep_the_waker() {
    let (mut sender, mut receiver) = spsc::channel(1);
    let hooks = Arc::<Hooks>::default();
    let (give, take) = mpsc::channel();
    hooks.wake.set(move || give.send(thread::current().id()).unwrap());
    let waker = hooks.waker();
    assert!(receiver.poll_recv(&mut Context::from_waker(&waker)).is_pending());
    drop(receiver);
    assert_eq!(sender.try_send(1), Err(TrySendError::Closed(1)));
    drop(sender);
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
    for closed in [false, true] {
        let (mut sender, receiver) = spsc::channel(1);
        let receiver = Arc::new(Mutex::new(receiver));
        let (give, take) = mpsc::channel();
        let hooks = Arc::<Hooks>::default();
        let inside = Arc::clone(&receiver);
        hooks.wake.set(move || {
            let mut receiver = inside.lock().unwrap();
            give.send((receiver.try_recv(), poll_once(receiver.recv()))).unwrap();
        });
        assert!(poll_recv(&hooks.waker(), &mut receiver.lock().unwrap()).is_pending());
        if closed {
            sender.close();
            assert_eq!(take.try_recv(), Ok((Err(TryRecvError::Closed), Poll::Ready(None))));
        } else {
            sender.try_send(1).unwrap();
            assert_eq!(take.try_recv(), Ok((Ok(1), Poll::Pending)));
            // The wake-up has made room during the first send, and the sender must see that.
            assert_eq!(sender.try_send(2), Ok(()));
        }
    }
}

#[test]
fn the_wake_up_may_send() {
    let _watchdog = watchdog();
    let (mut sender, mut receiver) = spsc::channel(1);
    sender.try_send(0).unwrap();
    let mut waiting = Box::pin(async move {
        sender.send(1).await.unwrap();
        sender
    });
    let hooks = Arc::<Hooks>::default();
    assert!(poll(&hooks.waker(), waiting.as_mut()).is_pending());
    let (give, take) = mpsc::channel();
    hooks.wake.set(move || give.send(poll_once(waiting).map(|mut sender| sender.try_send(2))).unwrap());
    assert_eq!(receiver.try_recv(), Ok(0));
    assert_eq!(take.try_recv(), Ok(Poll::Ready(Err(TrySendError::Full(2)))));
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
}

#[test]
fn the_wake_up_may_drop_its_end() {
    let _watchdog = watchdog();
    let drops = Drops::default();
    let (mut sender, mut receiver) = spsc::channel(2);
    let hooks = Arc::<Hooks>::default();
    assert!(poll_recv(&hooks.waker(), &mut receiver).is_pending());
    hooks.wake.set(move || drop(receiver));
    // The channel accepts the item and then drops it.
    assert!(sender.try_send(drops.item(0)).is_ok());
    assert!(hooks.wake.has_run());
    assert_eq!(drops.count(), 1);
    assert!(matches!(sender.try_send(drops.item(1)), Err(TrySendError::Closed(_))));
    assert_eq!(Arc::strong_count(&hooks), 1);

    let (mut sender, mut receiver) = spsc::channel(1);
    assert!(sender.try_send(drops.item(2)).is_ok());
    let item = drops.item(3);
    let mut waiting = Box::pin(async move { sender.send(item).await });
    assert!(poll(&hooks.waker(), waiting.as_mut()).is_pending());
    hooks.wake.set(move || drop(waiting));
    assert_eq!(receiver.try_recv().map(|item| item.number), Ok(2));
    assert!(hooks.wake.has_run());
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Closed)));
    assert_eq!(drops.sorted(), [0, 1, 2, 3]);
    assert_eq!(Arc::strong_count(&hooks), 1);
}

/// The item or the end arrives while the receiver clones the waker, after its first check.
#[test]
fn the_clone_of_the_receivers_waker_may_send() {
    let _watchdog = watchdog();
    for dropped in [false, true] {
        let (mut sender, mut receiver) = spsc::channel(1);
        let hooks = Arc::<Hooks>::default();
        hooks.clone.set(move || if dropped { drop(sender) } else { sender.try_send(1).unwrap() });
        hooks.wake.set(|| {});
        let expected = if dropped { None } else { Some(1) };
        match poll_recv(&hooks.waker(), &mut receiver) {
            Poll::Ready(result) => assert_eq!(result, expected),
            // The poll may have missed the event, but then the waker must have been woken.
            Poll::Pending => {
                assert!(hooks.wake.has_run(), "the wake-up is lost");
                assert_eq!(poll_once(receiver.recv()), Poll::Ready(expected));
            }
        }
        drop(receiver);
        assert_eq!(Arc::strong_count(&hooks), 1);
    }
}

/// There is room, or the end comes, while the sender clones the waker, after its first check.
#[test]
fn the_clone_of_the_senders_waker_may_receive() {
    let _watchdog = watchdog();
    for dropped in [false, true] {
        let (mut sender, mut receiver) = spsc::channel(1);
        sender.try_send(0).unwrap();
        let hooks = Arc::<Hooks>::default();
        let (give, take) = mpsc::channel();
        hooks.clone.set(move || {
            if dropped {
                drop(receiver);
            } else {
                assert_eq!(receiver.try_recv(), Ok(0));
                give.send(receiver).unwrap();
            }
        });
        hooks.wake.set(|| {});
        let expected = if dropped { Err(SendError(1)) } else { Ok(()) };
        {
            let mut waiting = pin!(sender.send(1));
            match poll(&hooks.waker(), waiting.as_mut()) {
                Poll::Ready(result) => assert_eq!(result, expected),
                Poll::Pending => {
                    assert!(hooks.wake.has_run(), "the wake-up is lost");
                    assert_eq!(poll_once(waiting), Poll::Ready(expected));
                }
            }
        }
        drop(sender);
        assert!(take.try_recv().ok().is_none_or(|mut receiver| receiver.try_recv() == Ok(1)));
        assert_eq!(Arc::strong_count(&hooks), 1);
    }
}

/// The `Drop` of a replaced waker uses the other end.
#[test]
fn the_drop_of_a_replaced_waker_may_use_the_other_end() {
    let _watchdog = watchdog();
    for dropped in [false, true] {
        let (mut sender, mut receiver) = spsc::channel(1);
        let (hooks, witness) = (Arc::<Hooks>::default(), Witness::default());
        assert!(poll_recv(&hooks.waker(), &mut receiver).is_pending());
        hooks.drop.set(move || if dropped { drop(sender) } else { sender.try_send(1).unwrap() });
        let expected = if dropped { None } else { Some(1) };
        match poll_recv(&witness.waker(), &mut receiver) {
            Poll::Ready(result) => assert_eq!(result, expected),
            Poll::Pending => {
                assert!(hooks.drop.has_run(), "the replaced waker is kept");
                assert_eq!(witness.wakes(), 1, "the wake-up is lost");
                assert_eq!(poll_once(receiver.recv()), Poll::Ready(expected));
            }
        }
        drop(receiver);
        assert_eq!((Arc::strong_count(&hooks), witness.kept()), (1, 0));

        let (mut sender, mut receiver) = spsc::channel(1);
        sender.try_send(0).unwrap();
        let (give, take) = mpsc::channel();
        let (expected, wakes) = (if dropped { Err(SendError(1)) } else { Ok(()) }, witness.wakes());
        {
            let mut waiting = pin!(sender.send(1));
            assert!(poll(&hooks.waker(), waiting.as_mut()).is_pending());
            hooks.drop.set(move || {
                if !dropped {
                    assert_eq!(receiver.try_recv(), Ok(0));
                    give.send(receiver).unwrap();
                }
            });
            match witness.poll(waiting.as_mut()) {
                Poll::Ready(result) => assert_eq!(result, expected),
                Poll::Pending => {
                    assert!(hooks.drop.has_run(), "the replaced waker is kept");
                    assert_eq!(witness.wakes(), wakes + 1, "the wake-up is lost");
                    assert_eq!(poll_once(waiting), Poll::Ready(expected));
                }
            }
        }
        assert!(take.try_recv().ok().is_none_or(|mut receiver| receiver.try_recv() == Ok(1)));
        drop(sender);
        assert_eq!((Arc::strong_count(&hooks), witness.kept()), (1, 0));
    }
}

/// An end is dropped, and the `Drop` of its waker uses the other end.
#[test]
fn the_drop_of_an_ends_waker_may_use_the_other_end() {
    let _watchdog = watchdog();
    for dropped in [false, true] {
        let drops = Drops::default();
        let (mut sender, mut receiver) = spsc::channel(1);
        let hooks = Arc::<Hooks>::default();
        assert!(poll_recv(&hooks.waker(), &mut receiver).is_pending());
        let item = drops.item(0);
        hooks.drop.set(move || if dropped { drop((sender, item)) } else { drop(sender.try_send(item)) });
        drop(receiver);
        assert!(hooks.drop.has_run());
        assert_eq!((drops.count(), Arc::strong_count(&hooks)), (1, 1));

        let drops = Drops::default();
        let (mut sender, mut receiver) = spsc::channel(1);
        assert!(sender.try_send(drops.item(0)).is_ok());
        let item = drops.item(1);
        let mut waiting = Box::pin(async move { sender.send(item).await });
        assert!(poll(&hooks.waker(), waiting.as_mut()).is_pending());
        hooks.drop.set(move || if dropped { drop(receiver) } else { drop(receiver.try_recv()) });
        drop(waiting);
        assert!(hooks.drop.has_run());
        assert_eq!((drops.sorted(), Arc::strong_count(&hooks)), (vec![0, 1], 1));
    }
}

// --- two threads ----------------------------------------------------------------------------------------------------

/// No sender stays blocked in `send_blocking`, `send` or `send_blocking_timeout`: the item is given back, whenever the
/// close comes.
#[test]
fn a_blocked_sender_is_released_by_the_close() {
    let _watchdog = watchdog();
    let sends: [SendBy<usize>; 3] = [
        ("send_blocking", |sender, item| sender.send_blocking(item).into()),
        ("send", |sender, item| block_on(sender.send(item)).into()),
        ("send_blocking_timeout", |sender, item| sender.send_blocking_timeout(item, Duration::MAX).into()),
    ];
    for round in 0..ROUNDS {
        let (name, send) = sends[round % 3];
        let (mut sender, mut receiver) = spsc::channel(1);
        sender.try_send(0).unwrap();
        let (sent, ()) = race(
            || send(&mut sender, 1),
            || {
                receiver.close();
                if round % 2 == 0 {
                    drop(receiver);
                }
            },
        );
        assert_eq!(sent, Sent::Closed(1), "{name}");
    }
}

/// In `recv_blocking`, `recv`, `recv_timeout` and `iter`, the receiver sees the end, whenever the end comes.
#[test]
fn a_blocked_receiver_is_released_by_the_close() {
    let _watchdog = watchdog();
    let receives: [ReceiveBy<usize>; 4] = [
        ("recv_blocking", |receiver| receiver.recv_blocking().into()),
        ("recv", |receiver| block_on(receiver.recv()).into()),
        ("recv_timeout", |receiver| block_on(receiver.recv_timeout(Duration::MAX)).into()),
        ("iter", |receiver| receiver.iter().next().into()),
    ];
    for round in 0..ROUNDS {
        let (name, receive) = receives[round % 4];
        let (mut sender, mut receiver) = spsc::channel(1);
        let (received, ()) = race(
            || (receive(&mut receiver), receive(&mut receiver)),
            || {
                if round % 8 < 4 {
                    sender.close();
                }
                drop(sender);
            },
        );
        assert_eq!(received, (Received::Closed, Received::Closed), "{name}");
    }
}

/// If a panic drops the sender, the channel closes. The receiver gets the remaining items and then `None`, as after a
/// normal close. The job's handle reports the panic.
#[test]
fn a_sender_dropped_by_a_panic_closes_the_channel() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (mut sender, mut receiver) = spsc::channel(2);
    let job: Job<()> = pool.spawn(move || {
        sender.send_blocking(1).unwrap();
        resume_unwind(Box::new("the sender's panic"))
    });
    assert_eq!(receiver.recv_blocking(), Some(1));
    assert_eq!(receiver.recv_blocking(), None);
    assert!(matches!(job.outcome().wait(), Err(JoinError::Panicked(panic)) if panic.message() == "the sender's panic"));
}

/// The receiver is dropped during the first send. The item is either given back or dropped once, and never leaked.
#[test]
fn a_receiver_dropped_during_the_first_send_leaks_nothing() {
    let _watchdog = watchdog();
    for round in 0..ROUNDS {
        let (drops, witness) = (Drops::default(), Witness::default());
        let (mut sender, mut receiver) = spsc::channel(1 + round % 2);
        if round % 3 == 0 {
            assert!(poll_recv(&witness.waker(), &mut receiver).is_pending());
        }
        let item = drops.item(0);
        let (sent, ()) = race(|| sender.try_send(item), || drop(receiver));
        assert!(!matches!(sent, Err(TrySendError::Full(_))));
        assert_eq!(drops.count(), usize::from(sent.is_ok()), "queued items are dropped at once");
        assert!(matches!(sender.try_send(drops.item(1)), Err(TrySendError::Closed(_))));
        drop((sent, sender));
        assert_eq!(drops.sorted(), [0, 1]);
        assert_eq!(witness.kept(), 0);
    }
}

/// The waker is registered or replaced while the item arrives. The last waker is woken, and its wake-up is not lost.
#[test]
fn a_receiver_that_starts_to_wait_during_a_send_is_woken() {
    let _watchdog = watchdog();
    for round in 0..ROUNDS {
        let [old, new] = [(); 2].map(|()| Witness::default());
        let (mut sender, mut receiver) = spsc::channel(1);
        if round % 2 == 0 {
            assert!(poll_recv(&old.waker(), &mut receiver).is_pending());
        }
        let close = round % 3 == 0;
        let ((), polled) = race(
            || if close { sender.close() } else { sender.try_send(1).unwrap() },
            || poll_recv(&new.waker(), &mut receiver),
        );
        let expected = if close { None } else { Some(1) };
        match polled {
            Poll::Ready(result) => assert_eq!(result, expected),
            Poll::Pending => {
                assert_eq!(new.wakes(), 1, "the wake-up is lost");
                assert_eq!(poll_recv(&new.waker(), &mut receiver), Poll::Ready(expected));
            }
        }
        drop((sender, receiver));
        assert_eq!((old.kept(), new.kept()), (0, 0));
    }
}

/// The same for the sender: room is made while the sender begins to wait.
#[test]
fn a_sender_that_starts_to_wait_as_room_is_made_is_woken() {
    let _watchdog = watchdog();
    for round in 0..ROUNDS {
        let [old, new] = [(); 2].map(|()| Witness::default());
        let (mut sender, mut receiver) = spsc::channel(1);
        sender.try_send(0).unwrap();
        let mut waiting = Box::pin(async move { sender.send(1).await });
        if round % 2 == 0 {
            assert!(old.poll(waiting.as_mut()).is_pending());
        }
        let close = round % 3 == 0;
        let ((), polled) = race(
            || if close { receiver.close() } else { assert_eq!(receiver.try_recv(), Ok(0)) },
            || new.poll(waiting.as_mut()),
        );
        let expected = if close { Err(SendError(1)) } else { Ok(()) };
        match polled {
            Poll::Ready(result) => assert_eq!(result, expected),
            Poll::Pending => {
                assert_eq!(new.wakes(), 1, "the wake-up is lost");
                assert_eq!(new.poll(waiting.as_mut()), Poll::Ready(expected));
            }
        }
        drop((waiting, receiver));
        assert_eq!((old.kept(), new.kept()), (0, 0));
    }
}

/// A `recv` that is dropped while its item is handed over does not destroy the item.
#[test]
fn a_recv_dropped_during_a_send_loses_nothing() {
    let _watchdog = watchdog();
    for _ in 0..ROUNDS {
        let witness = Witness::default();
        let (mut sender, mut receiver) = spsc::channel(1);
        let mut waiting = Box::pin(receiver.recv());
        assert!(witness.poll(waiting.as_mut()).is_pending());
        let (sent, ()) = race(|| sender.send_blocking(1), || drop(waiting));
        assert_eq!(sent, Ok(()));
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(witness.kept(), 0);
    }
}

/// The same for the sender: a `send` is dropped while room is made. Its item never arrives, and the next item does.
#[test]
fn a_send_dropped_as_room_is_made_sends_nothing() {
    let _watchdog = watchdog();
    for _ in 0..ROUNDS {
        let (drops, witness) = (Drops::default(), Witness::default());
        let (mut sender, mut receiver) = spsc::channel(1);
        assert!(sender.try_send(drops.item(0)).is_ok());
        let mut waiting = Box::pin(sender.send(drops.item(1)));
        assert!(witness.poll(waiting.as_mut()).is_pending());
        let (received, ()) = race(|| receiver.try_recv().map(|item| item.number), || drop(waiting));
        assert_eq!((received, drops.sorted()), (Ok(0), vec![0, 1]));
        assert!(sender.try_send(drops.item(2)).is_ok());
        assert_eq!(receiver.try_recv().map(|item| item.number), Ok(2));
        assert_eq!(witness.kept(), 0);
    }
}

/// An item whose send returned `Ok` is received, unless the receiver was dropped. After the receiver has seen the end,
/// no send returns `Ok`.
#[test]
fn items_sent_before_the_close_are_received() {
    let _watchdog = watchdog();
    for round in 0..ROUNDS {
        let drops = Drops::default();
        let (mut sender, mut receiver) = spsc::channel(1 + round % 4);
        let sender_drops = drops.clone();
        let (sent, received) = race(
            move || {
                let sends = all_sends::<Item>();
                for number in 0_u32.. {
                    // Also the sends that wait without limit: the close ends them.
                    let (_, send) = sends[(round + number as usize) % sends.len()];
                    match send(&mut sender, sender_drops.item(number)) {
                        Sent::Ok => {}
                        Sent::Closed(_) => return number,
                        // The same number again, with a send that does not give up.
                        Sent::NoRoom(_) => match sender.send_blocking(sender_drops.item(number)) {
                            Ok(()) => {}
                            Err(SendError(_)) => return number,
                        },
                    }
                }
                unreachable!("the receiver closes");
            },
            || {
                let mut received = 0;
                for _ in 0..round % 8 {
                    assert_eq!(receiver.recv_blocking().map(|item| item.number), Some(received));
                    received += 1;
                }
                receiver.close();
                for item in receiver.iter() {
                    assert_eq!(item.number, received);
                    received += 1;
                }
                received
            },
        );
        assert_eq!(sent, received);
        drop(receiver);
    }
}

/// Two threads send a number back and forth through two channels of size one; one thread awaits, the other blocks.
#[test]
fn two_threads_can_exchange_numbers() {
    let _watchdog = watchdog();
    let (mut to, mut from_here) = spsc::channel(1);
    let (mut back, mut from_there) = spsc::channel(1);
    thread::scope(|scope| {
        scope.spawn(move || {
            block_on(async {
                while let Some(number) = from_here.recv().await {
                    back.send(number + 1).await.unwrap();
                }
            });
        });
        for number in 0..1000 {
            to.send_blocking(number).unwrap();
            assert_eq!(from_there.recv_blocking(), Some(number + 1));
        }
        drop(to);
        assert_eq!(from_there.recv_blocking(), None);
    });
}

/// One end of a stress test, which moves between threads.
struct Half<E> {
    end: E,
    next: u32,
    random: Random,
    drops: Drops,
}

/// Sends numbers, each in a random way.
fn send_some(mut half: Half<Sender<Item>>, until: u32) -> Half<Sender<Item>> {
    let pause = Duration::from_micros(half.random.below(30));
    while half.next < until {
        let mut item = Some(half.drops.item(half.next));
        while let Some(unsent) = item.take() {
            item = match half.random.below(6) {
                0 => half.end.send_blocking(unsent).map_err(|SendError(_)| panic!("closed")).err(),
                1 => block_on(half.end.send(unsent)).map_err(|SendError(_)| panic!("closed")).err(),
                2 => half.end.try_send(unsent).err().map(|error| match error {
                    TrySendError::Full(item) => item,
                    TrySendError::Closed(_) => panic!("closed"),
                }),
                3 => half.end.send_blocking_timeout(unsent, pause).err().map(|error| match error {
                    SendTimeoutError::Timeout(item) => item,
                    SendTimeoutError::Closed(_) => panic!("closed"),
                }),
                4 => half.end.send_blocking_timeout(unsent, Duration::MAX).map_err(|_| panic!("closed")).err(),
                // The `send` is dropped after one poll, with its item. The next item gets the same number.
                _ => match poll_once(half.end.send(unsent)) {
                    Poll::Ready(result) => result.map_err(|SendError(_)| panic!("closed")).err(),
                    Poll::Pending => Some(half.drops.item(half.next)),
                },
            };
        }
        half.next += 1;
    }
    half
}

/// Receives numbers, each in a random way.
fn receive_some(mut half: Half<Receiver<Item>>, until: u32) -> Half<Receiver<Item>> {
    let pause = Duration::from_micros(half.random.below(30));
    let mut items = Vec::new();
    while half.next < until {
        let left = (until - half.next) as usize;
        match half.random.below(8) {
            0 => items.extend(half.end.recv_blocking()),
            1 => items.extend(block_on(half.end.recv())),
            2 => items.extend(half.end.try_recv()),
            3 => items.extend(block_on(half.end.recv_timeout(pause))),
            4 => items.extend(block_on(half.end.recv_timeout(Duration::MAX))),
            5 => assert_ne!(block_on(half.end.recv_many(&mut items, left.min(3))), 0),
            6 => items.extend(half.end.iter().take(left.min(2))),
            _ => match poll_once(half.end.recv()) {
                Poll::Ready(item) => items.extend(item),
                Poll::Pending => {}
            },
        }
        for item in items.drain(..) {
            assert_eq!(item.number, half.next);
            half.next += 1;
        }
    }
    half
}

/// Moves one end through three threads, which share the work.
fn in_three_threads<E: Send + 'static>(mut half: Half<E>, work: fn(Half<E>, u32) -> Half<E>, until: u32) -> Half<E> {
    for part in 1..=3 {
        half = thread::spawn(move || work(half, until / 3 * part)).join().unwrap();
    }
    half
}

/// Both ends work in all ways and move between threads: every item arrives once, in order.
#[test]
fn every_item_arrives_once_and_in_order() {
    let _watchdog = watchdog();
    for size in [1, 2, 3, 7, 64] {
        for seed in 0..4 {
            let drops = Drops::default();
            let items = 450;
            let (sender, receiver) = spsc::channel(size);
            let sender = Half { end: sender, next: 0, random: Random::new(seed), drops: drops.clone() };
            let receiver = Half { end: receiver, next: 0, random: Random::new(seed + 100), drops: drops.clone() };
            let sending = thread::spawn(move || drop(in_three_threads(sender, send_some, items)));
            let mut receiver = in_three_threads(receiver, receive_some, items);
            sending.join().unwrap();
            assert!(receiver.end.recv_blocking().is_none());
            // Each number is dropped at least once, and more often if a `send` was given up.
            let mut numbers = drops.sorted();
            assert_eq!(Arc::strong_count(&drops.0), 2, "an item is still alive");
            numbers.dedup();
            assert_eq!(numbers, (0..items).collect::<Vec<_>>());
        }
    }
}

/// One thread sends and another receives as fast as they can: the items arrive unchanged.
#[test]
fn a_long_stream_arrives_unchanged() {
    let _watchdog = watchdog();
    for size in [1, 3, 64] {
        let (mut sender, mut receiver) = spsc::channel(size);
        let numbers = 4_000_u64;
        let other = thread::spawn(move || {
            for number in 0..numbers {
                // Large enough that a torn read would be seen.
                sender.send_blocking([number; 6]).unwrap();
            }
        });
        let mut expected = 0;
        for item in receiver.iter() {
            assert_eq!(item, [expected; 6]);
            expected += 1;
        }
        assert_eq!(expected, numbers);
        other.join().unwrap();
    }
}
