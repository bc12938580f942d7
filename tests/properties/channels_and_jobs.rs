//! Random sequences of operations, cancellations, drops and panics, each compared with a simple sequential model.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]

use crate::helpers::common::{Witness, watchdog};
use offthread::{Job, JoinError, ThreadPool, block_on, gather, oneshot, sleep_until, spsc};
use proptest::collection::vec;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use std::{mem, thread};

/// No regression files: a failing case is printed, and can be turned into a test.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Makes items, and checks that each is dropped once.
#[derive(Clone, Default)]
struct Items {
    made: Rc<Cell<usize>>,
    dropped: Rc<RefCell<Vec<usize>>>,
}

struct Item {
    number: usize,
    /// Whether its `Drop` panics.
    bomb: bool,
    items: Items,
}

impl Items {
    fn make(&self, bomb: bool) -> Item {
        let number = self.made.get();
        self.made.set(number + 1);
        Item { number, bomb, items: self.clone() }
    }

    fn each_was_dropped_once(&self) -> Result<(), TestCaseError> {
        let mut dropped = self.dropped.borrow().clone();
        dropped.sort_unstable();
        prop_assert_eq!(dropped, (0..self.made.get()).collect::<Vec<_>>());
        Ok(())
    }
}

impl Item {
    /// Drops the item without a panic, and returns its number.
    fn number(mut self) -> usize {
        self.bomb = false;
        self.number
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.items.dropped.borrow_mut().push(self.number);
        if self.bomb {
            // Prints nothing, unlike `panic!`.
            resume_unwind(Box::new(self.number));
        }
    }
}

/// Runs code that may drop an item, and ignores a panic.
fn survive(code: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(code));
}

// --- spsc -----------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum ChannelStep {
    TrySend,
    SendTimeout,
    /// Polls `send` once and drops it.
    SendOnce,
    /// Polls the waiting `send`, or begins one.
    Send,
    /// Drops the waiting `send`, and with it the sender.
    DropSend,
    TryRecv,
    PollRecv,
    /// Polls `recv` once and drops it.
    RecvOnce,
    RecvMany(usize),
    RecvTimeout,
    Take(usize),
    CloseSender,
    CloseReceiver,
    DropSender,
    DropReceiver,
}

fn channel_step() -> impl Strategy<Value = ChannelStep> {
    use ChannelStep::*;
    prop_oneof![
        8 => Just(TrySend),
        1 => Just(SendTimeout),
        4 => Just(SendOnce),
        8 => Just(Send),
        1 => Just(DropSend),
        6 => Just(TryRecv),
        6 => Just(PollRecv),
        4 => Just(RecvOnce),
        4 => (0_usize..5).prop_map(RecvMany),
        1 => Just(RecvTimeout),
        3 => (0_usize..5).prop_map(Take),
        1 => Just(CloseSender),
        1 => Just(CloseReceiver),
        1 => Just(DropSender),
        1 => Just(DropReceiver),
    ]
}

/// A `send` that owns its sender, and returns the sender with the result.
type Sending = Pin<Box<dyn Future<Output = (spsc::Sender<Item>, Result<(), spsc::SendError<Item>>)>>>;

/// The state of the sender.
enum SenderEnd {
    Idle(spsc::Sender<Item>),
    Waiting(Sending, usize),
    Gone,
}

/// A channel and its model.
struct Channel {
    items: Items,
    bomb_at: usize,
    sender: SenderEnd,
    receiver: Option<spsc::Receiver<Item>>,
    queue: VecDeque<usize>,
    size: usize,
    closed: bool,
    send_waker: Witness,
    recv_waker: Witness,
    /// How often the sender had been woken when it began to wait.
    send_wakes: usize,
    /// The same for the receiver, if it waits.
    recv_wakes: Option<usize>,
}

impl Channel {
    fn new(size: usize, bomb_at: usize) -> Self {
        let (sender, receiver) = spsc::channel(size);
        Self {
            items: Items::default(),
            bomb_at,
            sender: SenderEnd::Idle(sender),
            receiver: Some(receiver),
            queue: VecDeque::new(),
            size,
            closed: false,
            send_waker: Witness::default(),
            recv_waker: Witness::default(),
            send_wakes: 0,
            recv_wakes: None,
        }
    }

    fn item(&self) -> Item {
        self.items.make(self.items.made.get() == self.bomb_at)
    }

    /// Checks that the channel was right to accept an item.
    fn is_sent(&mut self, number: usize) -> Result<(), TestCaseError> {
        prop_assert!(!self.closed, "sent although it is closed");
        prop_assert!(self.queue.len() < self.size, "sent although it is full");
        self.queue.push_back(number);
        self.has_told_the_receiver()
    }

    /// Checks that a waiting receiver was woken, after an event that it waits for.
    fn has_told_the_receiver(&mut self) -> Result<(), TestCaseError> {
        if let Some(wakes) = self.recv_wakes.take() {
            prop_assert!(self.recv_waker.wakes() > wakes, "the receiver was not woken");
        }
        Ok(())
    }

    /// The expected result of a receive: an item, the end, or `Pending`.
    fn expected(&mut self) -> Poll<Option<usize>> {
        match self.queue.pop_front() {
            Some(number) => Poll::Ready(Some(number)),
            None if self.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn step(&mut self, step: &ChannelStep) -> Result<(), TestCaseError> {
        match step {
            ChannelStep::TrySend | ChannelStep::SendTimeout | ChannelStep::SendOnce => self.send_now(step)?,
            ChannelStep::Send => self.send()?,
            ChannelStep::DropSend => {
                if matches!(self.sender, SenderEnd::Waiting(..)) {
                    self.drop_sender()?;
                }
            }
            ChannelStep::CloseSender => {
                if let SenderEnd::Idle(sender) = &mut self.sender {
                    sender.close();
                    self.closed = true;
                    self.has_told_the_receiver()?;
                }
            }
            ChannelStep::DropSender => self.drop_sender()?,
            ChannelStep::CloseReceiver => {
                if let Some(receiver) = &mut self.receiver {
                    receiver.close();
                    self.closed = true;
                    // A receiver that closes needs no wake-up.
                    self.recv_wakes = None;
                }
            }
            ChannelStep::DropReceiver => {
                if let Some(receiver) = self.receiver.take() {
                    survive(|| drop(receiver));
                    self.queue.clear();
                    self.closed = true;
                    self.recv_wakes = None;
                    prop_assert_eq!(self.recv_waker.kept(), 0, "the waker of a dropped receiver is kept");
                }
            }
            ChannelStep::TryRecv
            | ChannelStep::PollRecv
            | ChannelStep::RecvOnce
            | ChannelStep::RecvMany(_)
            | ChannelStep::RecvTimeout
            | ChannelStep::Take(_) => self.receive(step)?,
        }
        self.check()
    }

    fn drop_sender(&mut self) -> Result<(), TestCaseError> {
        let sender = mem::replace(&mut self.sender, SenderEnd::Gone);
        if matches!(sender, SenderEnd::Gone) {
            return Ok(());
        }
        survive(|| drop(sender));
        self.closed = true;
        self.has_told_the_receiver()
    }

    /// Sends without waiting.
    fn send_now(&mut self, step: &ChannelStep) -> Result<(), TestCaseError> {
        let item = self.item();
        let number = item.number;
        let SenderEnd::Idle(sender) = &mut self.sender else {
            survive(|| drop(item));
            return Ok(());
        };
        let room = !self.closed && self.queue.len() < self.size;
        let refused = match step {
            ChannelStep::TrySend => match sender.try_send(item) {
                Ok(()) => None,
                Err(spsc::TrySendError::Full(item)) => Some((Some(item), false)),
                Err(spsc::TrySendError::Closed(item)) => Some((Some(item), true)),
            },
            ChannelStep::SendTimeout => match sender.send_blocking_timeout(item, Duration::from_micros(1)) {
                Ok(()) => None,
                Err(spsc::SendTimeoutError::Timeout(item)) => Some((Some(item), false)),
                Err(spsc::SendTimeoutError::Closed(item)) => Some((Some(item), true)),
            },
            _ => {
                let mut polled = None;
                // If the `send` has to wait, the item is dropped here.
                survive(|| {
                    let polled = &mut polled;
                    let mut sending = pin!(sender.send(item));
                    *polled = Some(self.send_waker.poll(sending.as_mut()));
                });
                match polled {
                    Some(Poll::Ready(Ok(()))) => None,
                    Some(Poll::Ready(Err(spsc::SendError(item)))) => Some((Some(item), true)),
                    Some(Poll::Pending) => Some((None, false)),
                    None => return Err(TestCaseError::fail("the poll of send panicked")),
                }
            }
        };
        match refused {
            None => self.is_sent(number)?,
            Some((item, closed)) => {
                prop_assert!(!room, "refused although there is room");
                prop_assert_eq!(closed, self.closed);
                if let Some(item) = item {
                    prop_assert_eq!(item.number(), number);
                }
            }
        }
        Ok(())
    }

    /// Polls the waiting `send`, or begins one.
    fn send(&mut self) -> Result<(), TestCaseError> {
        let (mut sending, number) = match mem::replace(&mut self.sender, SenderEnd::Gone) {
            SenderEnd::Gone => return Ok(()),
            SenderEnd::Waiting(sending, number) => (sending, number),
            SenderEnd::Idle(mut sender) => {
                let item = self.item();
                let number = item.number;
                let sending: Sending = Box::pin(async move {
                    let result = sender.send(item).await;
                    (sender, result)
                });
                (sending, number)
            }
        };
        match self.send_waker.poll(sending.as_mut()) {
            Poll::Pending => {
                prop_assert!(!self.closed && self.queue.len() == self.size, "the sender waits without a reason");
                self.send_wakes = self.send_waker.wakes();
                self.sender = SenderEnd::Waiting(sending, number);
            }
            Poll::Ready((sender, result)) => {
                self.sender = SenderEnd::Idle(sender);
                match result {
                    Ok(()) => self.is_sent(number)?,
                    Err(spsc::SendError(item)) => {
                        prop_assert_eq!(item.number(), number);
                        prop_assert!(self.closed, "refused although it is open");
                    }
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, step: &ChannelStep) -> Result<(), TestCaseError> {
        let Some(mut receiver) = self.receiver.take() else { return Ok(()) };
        match *step {
            ChannelStep::TryRecv => {
                let received = match receiver.try_recv() {
                    Ok(item) => Poll::Ready(Some(item.number())),
                    Err(spsc::TryRecvError::Closed) => Poll::Ready(None),
                    Err(spsc::TryRecvError::Empty) => Poll::Pending,
                };
                prop_assert_eq!(received, self.expected());
            }
            ChannelStep::PollRecv => {
                let received = receiver.poll_recv(&mut Context::from_waker(&self.recv_waker.waker()));
                self.recv_wakes = received.is_pending().then(|| self.recv_waker.wakes());
                prop_assert_eq!(received.map(|item| item.map(Item::number)), self.expected());
            }
            ChannelStep::RecvOnce => {
                let received = Witness::default().poll(pin!(receiver.recv()));
                // This poll has replaced the waker of the waiting receiver.
                self.recv_wakes = None;
                prop_assert_eq!(received.map(|item| item.map(Item::number)), self.expected());
            }
            ChannelStep::RecvTimeout => {
                let received = match block_on(receiver.recv_timeout(Duration::from_micros(1))) {
                    Ok(item) => Poll::Ready(Some(item.number())),
                    Err(spsc::RecvTimeoutError::Closed) => Poll::Ready(None),
                    Err(spsc::RecvTimeoutError::Timeout) => Poll::Pending,
                };
                self.recv_wakes = None;
                prop_assert_eq!(received, self.expected());
            }
            ChannelStep::RecvMany(limit) => {
                let mut buffer = Vec::new();
                let received = Witness::default().poll(pin!(receiver.recv_many(&mut buffer, limit + 1)));
                self.recv_wakes = None;
                let numbers: Vec<_> = buffer.into_iter().map(Item::number).collect();
                let expected: Vec<_> = self.queue.drain(..self.queue.len().min(limit + 1)).collect();
                match received {
                    Poll::Ready(count) => prop_assert!(count == expected.len() && (count > 0 || self.closed)),
                    Poll::Pending => prop_assert!(expected.is_empty() && !self.closed),
                }
                prop_assert_eq!(numbers, expected);
            }
            ChannelStep::Take(limit) => {
                // Takes only as many items as `iter` gives without a wait.
                let there = if self.closed { limit } else { limit.min(self.queue.len()) };
                let expected: Vec<_> = self.queue.drain(..self.queue.len().min(there)).collect();
                let numbers: Vec<_> = receiver.iter().take(there).map(Item::number).collect();
                prop_assert_eq!(numbers, expected);
            }
            _ => unreachable!("not a way to receive"),
        }
        self.receiver = Some(receiver);
        Ok(())
    }

    /// Checks the rules that hold after each step.
    fn check(&self) -> Result<(), TestCaseError> {
        let expected = (self.queue.len(), self.queue.is_empty(), self.closed, self.size);
        if let SenderEnd::Idle(sender) = &self.sender {
            prop_assert_eq!((sender.len(), sender.is_empty(), sender.is_closed(), sender.max_size()), expected);
        }
        if let Some(receiver) = &self.receiver {
            prop_assert_eq!((receiver.len(), receiver.is_empty(), receiver.is_closed(), receiver.max_size()), expected);
        }
        // A sender that no longer has to wait was woken.
        if matches!(self.sender, SenderEnd::Waiting(..)) && (self.closed || self.queue.len() < self.size) {
            prop_assert!(self.send_waker.wakes() > self.send_wakes, "the sender was not woken");
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), TestCaseError> {
        self.drop_sender()?;
        if let Some(receiver) = self.receiver.take() {
            survive(|| drop(receiver));
        }
        prop_assert_eq!((self.send_waker.kept(), self.recv_waker.kept()), (0, 0), "a waker outlives the channel");
        self.items.each_was_dropped_once()
    }
}

proptest! {
    #![proptest_config(config(256))]

    /// A channel behaves like a bounded queue, also if the `Drop` of one item panics.
    #[test]
    fn a_channel_is_a_queue(
        size in 1_usize..6,
        bomb_at in 0_usize..60,
        steps in vec(channel_step(), 1..80),
    ) {
        let _watchdog = watchdog();
        let mut channel = Channel::new(size, bomb_at);
        for step in &steps {
            channel.step(step)?;
        }
        channel.end()?;
    }
}

// --- oneshot --------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum OneshotStep {
    Send,
    /// Polls `closed` once and drops it.
    ClosedOnce,
    /// Polls the waiting `closed`, or begins one.
    Closed,
    DropSender,
    TryRecv,
    Poll,
    Close,
    DropReceiver,
}

fn oneshot_step() -> impl Strategy<Value = OneshotStep> {
    use OneshotStep::*;
    prop_oneof![
        2 => Just(Send),
        3 => Just(ClosedOnce),
        3 => Just(Closed),
        1 => Just(DropSender),
        3 => Just(TryRecv),
        4 => Just(Poll),
        1 => Just(Close),
        1 => Just(DropReceiver),
    ]
}

/// The state of the sender.
enum OneshotSender {
    Idle(oneshot::Sender<Item>),
    Waiting(Pin<Box<dyn Future<Output = oneshot::Sender<Item>>>>),
    Gone,
}

/// A oneshot and its model.
struct Oneshot {
    items: Items,
    bomb: bool,
    sender: OneshotSender,
    receiver: Option<oneshot::Receiver<Item>>,
    /// The number of the item that was sent and not received.
    value: Option<usize>,
    /// The receiver was closed or dropped.
    closed: bool,
    send_waker: Witness,
    recv_waker: Witness,
    /// How often each end had been woken when it began to wait.
    send_wakes: usize,
    recv_wakes: Option<usize>,
}

impl Oneshot {
    fn new(bomb: bool) -> Self {
        let (sender, receiver) = oneshot::channel();
        Self {
            items: Items::default(),
            bomb,
            sender: OneshotSender::Idle(sender),
            receiver: Some(receiver),
            value: None,
            closed: false,
            send_waker: Witness::default(),
            recv_waker: Witness::default(),
            send_wakes: 0,
            recv_wakes: None,
        }
    }

    fn step(&mut self, step: &OneshotStep) -> Result<(), TestCaseError> {
        match step {
            OneshotStep::Send => {
                if let OneshotSender::Idle(_) = &self.sender {
                    let OneshotSender::Idle(sender) = mem::replace(&mut self.sender, OneshotSender::Gone) else {
                        unreachable!("the sender is idle")
                    };
                    let item = self.items.make(self.bomb);
                    let number = item.number;
                    match sender.send(item) {
                        Ok(()) => {
                            prop_assert!(!self.closed, "sent although it is closed");
                            self.value = Some(number);
                            self.has_told_the_receiver()?;
                        }
                        Err(item) => {
                            prop_assert!(self.closed, "refused although it is open");
                            prop_assert_eq!(item.number(), number);
                        }
                    }
                }
            }
            OneshotStep::ClosedOnce => {
                if let OneshotSender::Idle(sender) = &mut self.sender {
                    let polled = self.send_waker.poll(pin!(sender.closed()));
                    prop_assert_eq!(polled.is_ready(), self.closed);
                }
            }
            OneshotStep::Closed => self.wait_for_the_close()?,
            OneshotStep::DropSender => {
                let sender = mem::replace(&mut self.sender, OneshotSender::Gone);
                if !matches!(sender, OneshotSender::Gone) {
                    drop(sender);
                    self.has_told_the_receiver()?;
                }
            }
            OneshotStep::TryRecv | OneshotStep::Poll => self.receive(step)?,
            OneshotStep::Close => {
                if let Some(receiver) = &mut self.receiver {
                    receiver.close();
                    self.closed = true;
                    self.recv_wakes = None;
                }
            }
            OneshotStep::DropReceiver => {
                if let Some(receiver) = self.receiver.take() {
                    survive(|| drop(receiver));
                    self.value = None;
                    self.closed = true;
                    self.recv_wakes = None;
                    prop_assert_eq!(self.recv_waker.kept(), 0, "the waker of a dropped receiver is kept");
                }
            }
        }
        if let OneshotSender::Idle(sender) = &self.sender {
            prop_assert_eq!(sender.is_closed(), self.closed);
        }
        if matches!(self.sender, OneshotSender::Waiting(_)) && self.closed {
            prop_assert!(self.send_waker.wakes() > self.send_wakes, "the sender was not woken");
        }
        Ok(())
    }

    /// Checks that a waiting receiver was woken, after an event that it waits for.
    fn has_told_the_receiver(&mut self) -> Result<(), TestCaseError> {
        if let Some(wakes) = self.recv_wakes.take() {
            prop_assert!(self.recv_waker.wakes() > wakes, "the receiver was not woken");
        }
        Ok(())
    }

    fn wait_for_the_close(&mut self) -> Result<(), TestCaseError> {
        let mut waiting = match mem::replace(&mut self.sender, OneshotSender::Gone) {
            OneshotSender::Gone => return Ok(()),
            OneshotSender::Waiting(waiting) => waiting,
            OneshotSender::Idle(mut sender) => Box::pin(async move {
                sender.closed().await;
                sender
            }),
        };
        match self.send_waker.poll(waiting.as_mut()) {
            Poll::Pending => {
                prop_assert!(!self.closed, "the sender waits without a reason");
                self.send_wakes = self.send_waker.wakes();
                self.sender = OneshotSender::Waiting(waiting);
            }
            Poll::Ready(sender) => {
                prop_assert!(self.closed, "`closed` is ready although the channel is open");
                self.sender = OneshotSender::Idle(sender);
            }
        }
        Ok(())
    }

    fn receive(&mut self, step: &OneshotStep) -> Result<(), TestCaseError> {
        let Some(receiver) = &mut self.receiver else { return Ok(()) };
        let received = match step {
            OneshotStep::Poll => {
                let received = self.recv_waker.poll(receiver);
                self.recv_wakes = received.is_pending().then(|| self.recv_waker.wakes());
                received.map(|result| result.ok().map(Item::number))
            }
            _ => match receiver.try_recv() {
                Ok(item) => Poll::Ready(Some(item.number())),
                Err(oneshot::TryRecvError::Closed) => Poll::Ready(None),
                Err(oneshot::TryRecvError::Empty) => Poll::Pending,
            },
        };
        let over = self.closed || matches!(self.sender, OneshotSender::Gone);
        let expected = match self.value.take() {
            Some(number) => Poll::Ready(Some(number)),
            None if over => Poll::Ready(None),
            None => Poll::Pending,
        };
        prop_assert_eq!(received, expected);
        Ok(())
    }

    fn end(mut self) -> Result<(), TestCaseError> {
        drop(mem::replace(&mut self.sender, OneshotSender::Gone));
        if let Some(receiver) = self.receiver.take() {
            survive(|| drop(receiver));
        }
        prop_assert_eq!((self.send_waker.kept(), self.recv_waker.kept()), (0, 0), "a waker outlives the channel");
        self.items.each_was_dropped_once()
    }
}

proptest! {
    #![proptest_config(config(256))]

    /// A oneshot behaves like an `Option` that is filled once and taken once.
    #[test]
    fn a_oneshot_is_an_option(bomb in any::<bool>(), steps in vec(oneshot_step(), 1..20)) {
        let _watchdog = watchdog();
        let mut oneshot = Oneshot::new(bomb);
        for step in &steps {
            oneshot.step(step)?;
        }
        oneshot.end()?;
    }
}

// --- gather ---------------------------------------------------------------------------------------------------------

/// The work of a branch of `gather` before it returns its number.
#[derive(Debug, Clone)]
enum Branch {
    /// Wakes itself this many times.
    Yields(usize),
    /// Waits for a job.
    Job,
    /// Sleeps for this many microseconds.
    Sleeps(u64),
    /// Waits for the next branch, if there is one.
    Waits,
}

fn branch() -> impl Strategy<Value = Branch> {
    prop_oneof![
        (0_usize..5).prop_map(Branch::Yields),
        Just(Branch::Job),
        (0_u64..300).prop_map(Branch::Sleeps),
        Just(Branch::Waits),
    ]
}

/// Pending `times` times, then ready. Panics if it is polled again.
fn yields(times: usize) -> impl Future<Output = ()> {
    let mut left = Some(times);
    poll_fn(move |cx| match left {
        None => panic!("polled after its end"),
        Some(0) => {
            left = None;
            Poll::Ready(())
        }
        Some(more) => {
            left = Some(more - 1);
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
}

/// The future of a branch. At its end it sends to the preceding branch.
async fn run(
    branch: Branch,
    item: Item,
    pool: ThreadPool,
    before: oneshot::Sender<()>,
    after: oneshot::Receiver<()>,
) -> usize {
    match branch {
        Branch::Yields(times) => yields(times).await,
        Branch::Job => pool.spawn(thread::yield_now).await,
        Branch::Sleeps(micros) => offthread::sleep(Duration::from_micros(micros)).await,
        // For the last branch, the sender has been dropped.
        Branch::Waits => drop(after.await),
    }
    let _ = before.send(());
    item.number()
}

/// The futures of the branches, each of which can wait for the next.
fn branches(branches: Vec<Branch>, items: &Items, pool: &ThreadPool) -> Vec<Pin<Box<dyn Future<Output = usize>>>> {
    let (mut senders, receivers): (Vec<_>, Vec<_>) = branches.iter().map(|_| oneshot::channel()).unzip();
    // Each branch sends to the one before it. Nobody receives from the first, and nobody sends to the last.
    let nobody = oneshot::channel();
    senders.insert(0, nobody.0);
    senders.pop();
    let ends = senders.into_iter().zip(receivers);
    branches
        .into_iter()
        .zip(ends)
        .map(|(branch, (before, after))| Box::pin(run(branch, items.make(false), pool.clone(), before, after)) as _)
        .collect()
}

proptest! {
    #![proptest_config(config(256))]

    /// `gather` returns the results of the branches in order.
    #[test]
    fn gather_returns_the_result_of_each_branch(kinds in vec(branch(), 0..12)) {
        let _watchdog = watchdog();
        let (items, pool) = (Items::default(), ThreadPool::new(2));
        let number = kinds.len();
        prop_assert_eq!(block_on(gather(branches(kinds, &items, &pool))), (0..number).collect::<Vec<_>>());
        items.each_was_dropped_once()?;
    }

    /// A `gather` that is dropped after any number of polls drops each branch once.
    #[test]
    fn a_dropped_gather_drops_each_branch_once(kinds in vec(branch(), 0..12), polls in 0_usize..6) {
        let _watchdog = watchdog();
        let (items, pool) = (Items::default(), ThreadPool::new(2));
        let witness = Witness::default();
        let mut all = Box::pin(gather(branches(kinds, &items, &pool)));
        for _ in 0..polls {
            if witness.poll(all.as_mut()).is_ready() {
                break;
            }
        }
        drop(all);
        items.each_was_dropped_once()?;
    }
}

// --- jobs -----------------------------------------------------------------------------------------------------------

/// How the handle of a job that has not started is used.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Wait,
    Await,
    Outcome,
    Detach,
    Cancel,
    CancelAndDrop,
    Drop,
    DropOutcome,
    PollAndDrop,
}

impl Fate {
    fn runs(self) -> bool {
        matches!(self, Self::Wait | Self::Await | Self::Outcome | Self::Detach)
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    use Fate::*;
    prop::sample::select(vec![Wait, Await, Outcome, Detach, Cancel, CancelAndDrop, Drop, DropOutcome, PollAndDrop])
}

proptest! {
    #![proptest_config(config(256))]

    /// A pool of one thread behaves like a queue: the jobs that were not cancelled run once, in order.
    #[test]
    fn a_pool_is_a_queue(fates in vec((fate(), any::<bool>()), 0..20)) {
        let _watchdog = watchdog();
        let pool = ThreadPool::new(1);
        let (open, gate) = mpsc::channel();
        let (start, started) = mpsc::channel();
        let blocker = pool.spawn(move || {
            start.send(()).unwrap();
            gate.recv().unwrap();
        });
        started.recv().unwrap();
        let (log, ran) = mpsc::channel();
        let jobs: Vec<_> = fates
            .iter()
            .enumerate()
            .map(|(number, &(_, panics))| {
                let log = log.clone();
                pool.spawn(move || {
                    log.send(number).unwrap();
                    if panics {
                        resume_unwind(Box::new(number));
                    }
                    number
                })
            })
            .collect();
        drop(log);
        // First the operations that do not wait, then those that do.
        let mut kept: Vec<(usize, Fate, bool, Job<usize>)> = Vec::new();
        for (number, (job, &(fate, panics))) in jobs.into_iter().zip(&fates).enumerate() {
            match fate {
                Fate::Wait | Fate::Await | Fate::Outcome => kept.push((number, fate, panics, job)),
                Fate::Cancel => {
                    prop_assert!(job.cancel());
                    kept.push((number, fate, panics, job));
                }
                Fate::Detach => job.detach(),
                Fate::CancelAndDrop => prop_assert!(job.cancel()),
                Fate::Drop => drop(job),
                Fate::DropOutcome => drop(job.outcome()),
                Fate::PollAndDrop => prop_assert!(Witness::default().poll(pin!(job)).is_pending()),
            }
        }
        open.send(()).unwrap();
        blocker.wait();
        for (number, fate, panics, job) in kept {
            let result = match fate {
                Fate::Wait => catch_unwind(AssertUnwindSafe(|| job.wait())).map_err(Some),
                Fate::Await => catch_unwind(AssertUnwindSafe(|| block_on(job))).map_err(Some),
                _ => job.outcome().wait().map_err(|error| match error {
                    JoinError::Panicked(panic) => Some(panic.into_payload()),
                    JoinError::Cancelled => None,
                    other => panic!("{other:?}"),
                }),
            };
            match result {
                Ok(result) => prop_assert_eq!((result, fate.runs(), panics), (number, true, false)),
                Err(Some(payload)) => {
                    prop_assert!(fate.runs() && panics);
                    prop_assert_eq!(payload.downcast_ref(), Some(&number));
                }
                Err(None) => prop_assert!(!fate.runs()),
            }
        }
        // The log ends when the last job has run.
        let expected: Vec<_> = (0..fates.len()).filter(|&number| fates[number].0.runs()).collect();
        prop_assert_eq!(ran.into_iter().collect::<Vec<_>>(), expected);
    }
}

// --- timers ---------------------------------------------------------------------------------------------------------

/// A waker that sends the number of its sleep, and the time of the wake-up.
struct Alarm(usize, Mutex<mpsc::Sender<(usize, Instant)>>);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().send((self.0, Instant::now())).unwrap();
    }
}

/// The treatment of a sleep before its deadline: left alone, polled again with another waker, or dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Treatment {
    LeftAlone,
    PolledAgain,
    Dropped,
}

const TREATMENTS: [Treatment; 3] = [Treatment::LeftAlone, Treatment::PolledAgain, Treatment::Dropped];

proptest! {
    // Each case waits for some milliseconds.
    #![proptest_config(config(48))]

    /// Sleeps end in the order of their deadlines and not early, and dropped sleeps wake nobody.
    #[test]
    fn sleeps_end_in_order(
        sleepers in vec((0_u32..40, prop::sample::select(TREATMENTS.to_vec())), 1..20),
    ) {
        let _watchdog = watchdog();
        // Repeated with later deadlines if some had passed before all sleeps were polled.
        for lead in [3, 30, 300, 3000] {
            let start = Instant::now() + Duration::from_millis(lead);
            // Several may have the same deadline.
            let deadline = |step: u32| start + step * Duration::from_micros(100);
            let (sender, woken) = mpsc::channel();
            let alarm = |number| Waker::from(Arc::new(Alarm(number, Mutex::new(mpsc::Sender::clone(&sender)))));
            let mut sleeps: Vec<_> = sleepers.iter().map(|&(step, _)| Some(sleep_until(deadline(step)))).collect();
            for (number, sleep) in sleeps.iter_mut().flatten().enumerate() {
                let _ = Pin::new(sleep).poll(&mut Context::from_waker(&alarm(number)));
            }
            for (number, (sleep, &(_, treatment))) in sleeps.iter_mut().zip(&sleepers).enumerate() {
                match treatment {
                    Treatment::LeftAlone => {}
                    Treatment::PolledAgain => {
                        let waker = alarm(sleepers.len() + number);
                        let _ = Pin::new(sleep.as_mut().unwrap()).poll(&mut Context::from_waker(&waker));
                    }
                    Treatment::Dropped => *sleep = None,
                }
            }
            drop(sender);
            if Instant::now() >= start {
                continue;
            }
            // The channel ends when the last waker has been dropped.
            let woken: Vec<_> = woken.into_iter().collect();
            let lasting = sleepers.iter().filter(|(_, treatment)| *treatment != Treatment::Dropped);
            let mut expected: Vec<_> = lasting.map(|&(step, _)| step).collect();
            expected.sort_unstable();
            let mut steps = Vec::new();
            for (number, at) in woken {
                let (step, treatment) = sleepers[number % sleepers.len()];
                let last = if number < sleepers.len() { Treatment::LeftAlone } else { Treatment::PolledAgain };
                prop_assert_eq!(treatment, last, "not the last waker");
                prop_assert!(at >= deadline(step), "too early");
                steps.push(step);
            }
            prop_assert_eq!(steps, expected);
            for sleep in sleeps.iter_mut().flatten() {
                prop_assert!(Pin::new(sleep).poll(&mut Context::from_waker(Waker::noop())).is_ready());
            }
            return Ok(());
        }
        prop_assume!(false, "this machine is too busy for the test");
    }
}
