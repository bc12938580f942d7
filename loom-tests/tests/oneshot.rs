//! Models of `src/primitives/oneshot.rs`: the ways to end one side, combined with the ways to end the other.
//!
//! Every model also forbids an access to memory that the other side has freed. A model with a `Counted` value forbids
//! that the value is dropped, or its memory is freed, twice or never: `common::model` counts the allocations.

mod common;

use std::sync::Arc as StdArc;
use std::task::Poll;

use common::{Counted, Drops, Note, model, poll_once};
use loom::thread;
use offthread::internals::block_on;
use offthread::oneshot::{self, Closed, Receiver, Sender, TryRecvError};

/// Runs the sender's side in a thread and the receiver's side here, then asserts that the value was dropped once.
fn sides<S>(
    send: impl Fn(Sender<Counted>, Counted) -> S + Copy + Send + Sync + 'static,
    receive: impl Fn(Receiver<Counted>) + Copy + Send + Sync + 'static,
    check: impl Fn(S) + Send + Sync + 'static,
) where
    S: 'static,
{
    model(move || {
        let drops = Drops::default();
        let (sender, receiver) = oneshot::channel();
        let value = drops.value(7);
        let sending = thread::spawn(move || send(sender, value));
        receive(receiver);
        check(sending.join().unwrap());
        assert_eq!(drops.count(), 1, "the value must be dropped once");
    });
}

/// Sends the value. Returns whether it was accepted.
fn send(sender: Sender<Counted>, value: Counted) -> bool {
    match sender.send(value) {
        Ok(()) => true,
        Err(value) => {
            assert_eq!(value.number, 7, "a different value came back");
            false
        }
    }
}

fn drop_sender(sender: Sender<Counted>, value: Counted) {
    drop(sender);
    drop(value);
}

fn wait_for_close(mut sender: Sender<Counted>, value: Counted) -> bool {
    block_on(sender.closed());
    assert!(sender.is_closed());
    send(sender, value)
}

/// Awaits the value. Returns its number, or `None` if the channel closed.
fn awaited(receiver: Receiver<Counted>) -> Option<usize> {
    block_on(receiver).ok().map(|value| value.number)
}

/// The result of `try_recv`, with the value's number instead of the value.
fn tried(receiver: &mut Receiver<Counted>) -> Result<usize, TryRecvError> {
    receiver.try_recv().map(|value| value.number)
}

fn polled_then_dropped(mut receiver: Receiver<Counted>) {
    let _ = poll_once(&mut receiver);
    drop(receiver);
}

/// Polls once with one waker, then waits with a second waker.
fn polled_twice(mut receiver: Receiver<Counted>) -> Option<usize> {
    let (first, old) = poll_once(&mut receiver);
    let result = match first {
        Poll::Ready(result) => result,
        Poll::Pending => block_on(receiver),
    };
    assert!(StdArc::strong_count(&old) == 1 || old.wakes() == 0, "a waker was kept after it was woken");
    result.ok().map(|value| value.number)
}

/// Forbids: the receiver waits for a value that has been sent, or gets a different value.
#[test]
fn send_poll() {
    sides(send, |receiver| assert_eq!(awaited(receiver), Some(7)), |sent| assert!(sent));
}

/// Forbids: the same for a receiver that blocks its thread.
#[test]
fn send_recv_blocking() {
    sides(send, |receiver| assert_eq!(receiver.recv_blocking().map(|value| value.number), Ok(7)), |sent| assert!(sent));
}

/// Forbids: the replaced waker is woken instead of the new one.
#[test]
fn replaced_waker() {
    sides(send, |receiver| assert_eq!(polled_twice(receiver), Some(7)), |sent| assert!(sent));
}

/// Forbids: a polled receiver is dropped, and the memory is freed while the sender still takes the receiver's waker.
#[test]
fn send_drop_after_poll() {
    sides(send, polled_then_dropped, drop);
}

/// Forbids: the receiver is dropped as the value is sent, and the value is leaked.
#[test]
fn send_drop() {
    sides(send, drop, drop);
}

/// Forbids: a receiver that has the value frees the memory before the sender's last access, or neither side frees the
/// memory.
#[test]
fn free_after_send() {
    sides(
        send,
        |mut receiver| {
            let _ = tried(&mut receiver);
        },
        drop,
    );
}

/// Forbids: the same for a sender that has seen WAITING, and takes the receiver's waker.
#[test]
fn free_after_wake() {
    sides(
        send,
        |mut receiver| {
            let _ = poll_once(&mut receiver);
            let _ = tried(&mut receiver);
        },
        drop,
    );
}

/// Forbids: `try_recv` returns a value that is not written yet, or returns `Empty` and the value is lost.
#[test]
fn send_try_recv() {
    sides(
        send,
        |mut receiver| match tried(&mut receiver) {
            Ok(number) => {
                assert_eq!(number, 7);
                assert_eq!(tried(&mut receiver), Err(TryRecvError::Closed), "received twice");
            }
            Err(error) => {
                assert_eq!(error, TryRecvError::Empty, "`Closed` although the sender is sending");
                assert_eq!(awaited(receiver), Some(7));
            }
        },
        |sent| assert!(sent),
    );
}

/// Forbids: a value that is sent as the receiver closes is both received and given back, or neither.
#[test]
fn send_close() {
    model(|| {
        let drops = Drops::default();
        let (sender, mut receiver) = oneshot::channel();
        let value = drops.value(7);
        let sending = thread::spawn(move || send(sender, value));
        receiver.close();
        let received = tried(&mut receiver);
        assert_ne!(received, Err(TryRecvError::Empty), "`Empty` although no value can come any more");
        let sent = sending.join().unwrap();
        assert_eq!(sent, received.is_ok());
        drop(receiver);
        assert_eq!(drops.count(), 1);
    });
}

/// Forbids: the same with a registered waker, or the channel keeps that waker.
#[test]
fn send_poll_close() {
    model(|| {
        let drops = Drops::default();
        let (sender, mut receiver) = oneshot::channel();
        let value = drops.value(7);
        let sending = thread::spawn(move || send(sender, value));
        let (polled, waker) = poll_once(&mut receiver);
        if polled.is_ready() {
            drop(polled);
        } else {
            receiver.close();
            let received = tried(&mut receiver).is_ok();
            assert_eq!(sending.join().unwrap(), received);
            drop(receiver);
            assert_eq!(StdArc::strong_count(&waker), 1, "a waker was kept");
            assert_eq!(drops.count(), 1);
            return;
        }
        sending.join().unwrap();
    });
}

/// Forbids: the receiver waits for a sender that was dropped.
#[test]
fn drop_poll() {
    sides(drop_sender, |receiver| assert_eq!(awaited(receiver), None), drop);
}

/// Forbids: the same for a receiver that blocks its thread.
#[test]
fn drop_recv_blocking() {
    sides(drop_sender, |receiver| assert!(receiver.recv_blocking().is_err()), drop);
}

/// Forbids: the same for a receiver whose waker was replaced.
#[test]
fn drop_replaced_waker() {
    sides(drop_sender, |receiver| assert_eq!(polled_twice(receiver), None), drop);
}

/// Forbids: both sides free the memory, or neither does.
#[test]
fn drop_drop() {
    sides(drop_sender, drop, drop);
}

/// Forbids: the same while the sender takes the receiver's waker.
#[test]
fn drop_drop_after_poll() {
    sides(drop_sender, polled_then_dropped, drop);
}

/// Forbids: `try_recv` returns `Empty` as the sender is dropped, and the receiver then waits for ever.
#[test]
fn drop_try_recv() {
    sides(
        drop_sender,
        |mut receiver| {
            if tried(&mut receiver) == Err(TryRecvError::Empty) {
                assert_eq!(awaited(receiver), None);
            }
        },
        drop,
    );
}

/// Forbids: the receiver closes while the sender is dropped, and `try_recv` does not return `Closed`.
#[test]
fn drop_close() {
    sides(
        drop_sender,
        |mut receiver| {
            receiver.close();
            assert_eq!(tried(&mut receiver), Err(TryRecvError::Closed));
        },
        drop,
    );
}

/// Forbids: the same for a receiver that has been polled.
#[test]
fn drop_poll_close() {
    sides(
        drop_sender,
        |mut receiver| {
            drop(poll_once(&mut receiver));
            receiver.close();
            assert_eq!(tried(&mut receiver), Err(TryRecvError::Closed));
        },
        drop,
    );
}

/// Forbids: a close does not wake a sender in `closed`, or the sender can still send.
#[test]
fn closed_close() {
    model(|| {
        let drops = Drops::default();
        let (sender, mut receiver) = oneshot::channel();
        let value = drops.value(7);
        let waiting = thread::spawn(move || wait_for_close(sender, value));
        receiver.close();
        assert!(!waiting.join().unwrap());
        // The receiver must live until here, because dropping it closes the channel too.
        assert_eq!(awaited(receiver), None);
        assert_eq!(drops.count(), 1);
    });
}

/// Forbids: the same for a dropped receiver; or the memory is freed while the sender waits.
#[test]
fn closed_drop() {
    sides(wait_for_close, drop, |sent| assert!(!sent));
}

/// Forbids: the same for a receiver that is dropped after a poll.
#[test]
fn closed_drop_after_poll() {
    sides(wait_for_close, polled_then_dropped, |sent| assert!(!sent));
}

/// Forbids: a sender drops its `closed` future, and the channel keeps the waker, or the value does not arrive. The test
/// tries each way to wait for the value.
#[test]
fn cancelled_closed() {
    let receivers: [fn(Receiver<Counted>) -> Option<usize>; 4] = [
        awaited,
        polled_twice,
        |receiver| receiver.recv_blocking().ok().map(|value| value.number),
        |mut receiver| tried(&mut receiver).ok().or_else(|| awaited(receiver)),
    ];
    for receive in receivers {
        model(move || {
            let drops = Drops::default();
            let (mut sender, receiver) = oneshot::channel();
            let value = drops.value(7);
            let sending = thread::spawn(move || {
                let (polled, waker) = poll_once(&mut Box::pin(sender.closed()));
                assert!(polled.is_pending());
                assert_eq!(StdArc::strong_count(&waker), 1, "a waker was kept");
                send(sender, value)
            });
            assert_eq!(receive(receiver), Some(7));
            assert!(sending.join().unwrap());
            assert_eq!(drops.count(), 1);
        });
    }
}

/// Forbids: the sender frees the memory while the receiver, which is being dropped, still accesses the waker that the
/// sender withdraws.
#[test]
fn cancelled_closed_drop() {
    let sender_side = |mut sender: Sender<Counted>, value| {
        drop(poll_once(&mut Box::pin(sender.closed())));
        drop_sender(sender, value);
    };
    sides(sender_side, drop, drop);
}

/// Forbids: a sender sees that the receiver has closed, but not what the receiver wrote before.
#[test]
fn close_publishes() {
    model(|| {
        let note = Note::new();
        let (sender, mut receiver) = oneshot::channel::<()>();
        let closing = thread::spawn({
            let note = note.clone();
            move || {
                note.write();
                receiver.close();
                receiver
            }
        });
        if sender.is_closed() {
            assert!(note.is_written());
        }
        drop(closing.join().unwrap());
    });
}

/// Forbids: a receiver sees that the sender was dropped, but not what the sender wrote before.
#[test]
fn drop_publishes() {
    model(|| {
        let note = Note::new();
        let (sender, mut receiver) = oneshot::channel::<()>();
        let dropping = thread::spawn({
            let note = note.clone();
            move || {
                note.write();
                drop(sender);
            }
        });
        if receiver.try_recv() == Err(TryRecvError::Closed) {
            assert!(note.is_written());
        } else {
            assert_eq!(block_on(&mut receiver), Err(Closed));
            assert!(note.is_written());
        }
        dropping.join().unwrap();
    });
}

/// Forbids: the channel keeps the waker of a receiver that is dropped while the sender waits for the close.
#[test]
fn dropped_receiver_leaves_no_waker() {
    model(|| {
        let (mut sender, mut receiver) = oneshot::channel::<()>();
        let (polled, waker) = poll_once(&mut receiver);
        assert!(polled.is_pending());
        let dropping = thread::spawn(move || drop(receiver));
        block_on(sender.closed());
        dropping.join().unwrap();
        assert_eq!(StdArc::strong_count(&waker), 1, "a waker was kept");
        assert_eq!(waker.wakes(), 0, "a receiver that is dropped was woken");
        drop(sender);
    });
}

/// Forbids: a sender in `closed` replaces its waker, and the wake-up is lost.
#[test]
fn closed_with_another_waker() {
    model(|| {
        let (mut sender, receiver) = oneshot::channel::<()>();
        let dropping = thread::spawn(move || drop(receiver));
        {
            let mut closed = Box::pin(sender.closed());
            if poll_once(&mut closed).0.is_pending() {
                block_on(closed);
            }
        }
        assert!(sender.is_closed());
        dropping.join().unwrap();
    });
}
