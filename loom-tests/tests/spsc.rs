//! Models of `src/primitives/spsc.rs`: operations of the two ends at the same time, in channels for one item and for
//! two.
//!
//! Every model also forbids that both ends access a slot at once. A model with `Counted` items forbids that an item is
//! dropped twice or never.

mod common;

use std::sync::Arc as StdArc;
use std::task::{Context, Poll};
use std::time::Duration;

use common::{Counted, CountingWaker, Drops, Note, model_with, poll_once};
use loom::thread;
use offthread::internals::{ThreadHandle, block_on};
use offthread::spsc::{self, Receiver, SendTimeoutError, Sender, TryRecvError, TrySendError};

/// Explores every interleaving with at most two preemptions.
fn model(check: impl Fn() + Send + Sync + 'static) {
    model_with(2, check);
}

/// Runs `send` with `items` items in a thread, and `receive` here; then asserts that each item was dropped once.
fn ends<S: 'static>(
    max_size: usize,
    items: usize,
    send: impl Fn(Sender<Counted>, Vec<Counted>) -> S + Copy + Send + Sync + 'static,
    receive: impl Fn(Receiver<Counted>, Sending<S>) + Copy + Send + Sync + 'static,
) {
    model(move || {
        let drops: Vec<_> = (0..items).map(|_| Drops::default()).collect();
        let (sender, receiver) = spsc::channel(max_size);
        let values = drops.iter().enumerate().map(|(number, drops)| drops.value(number)).collect();
        let sending = thread::spawn(move || send(sender, values));
        receive(receiver, Sending(sending));
        assert!(drops.iter().all(|drops| drops.count() == 1), "each item must be dropped once");
    });
}

/// The sender's thread, which the receiving side joins.
struct Sending<S>(thread::JoinHandle<S>);

impl<S> Sending<S> {
    fn join(self) -> S {
        self.0.join().unwrap()
    }
}

/// Sends all items. Returns how many were accepted.
fn send_all(mut sender: Sender<Counted>, values: Vec<Counted>) -> usize {
    let mut accepted = 0;
    for value in values {
        let number = value.number;
        match sender.send_blocking(value) {
            Ok(()) => accepted += 1,
            Err(error) => assert_eq!(error.0.number, number, "a different item came back"),
        }
    }
    accepted
}

/// Receives until the end and checks the order. Returns how many items came.
fn receive_all(receiver: &mut Receiver<Counted>) -> usize {
    let mut received = 0;
    while let Some(value) = receiver.recv_blocking() {
        assert_eq!(value.number, received, "out of order");
        received += 1;
    }
    received
}

/// Forbids: an item is received before it has been written into its slot, out of order, or not at all.
#[test]
fn send_recv() {
    ends(2, 2, send_all, |mut receiver, sending| {
        assert_eq!(receive_all(&mut receiver), 2);
        assert_eq!(sending.join(), 2);
    });
}

/// Forbids: in a channel for one item, where both ends sleep in turn, a wake-up is lost.
#[test]
fn both_sleep_in_turn() {
    ends(1, 3, send_all, |mut receiver, sending| {
        assert_eq!(receive_all(&mut receiver), 3);
        assert_eq!(sending.join(), 3);
    });
}

/// Forbids: the same for ends that await.
#[test]
fn both_await_in_turn() {
    ends(
        1,
        2,
        |mut sender, values| {
            block_on(async {
                for value in values {
                    sender.send(value).await.unwrap();
                }
            });
        },
        |mut receiver, sending| {
            block_on(async {
                let mut received = 0;
                while let Some(value) = receiver.recv().await {
                    assert_eq!(value.number, received);
                    received += 1;
                }
                assert_eq!(received, 2);
            });
            sending.join();
        },
    );
}

/// Forbids: the sender writes into a slot before the receiver has taken the item out.
#[test]
fn slots_are_reused() {
    ends(
        1,
        2,
        |mut sender, values| {
            for mut value in values {
                while let Err(error) = sender.try_send(value) {
                    let TrySendError::Full(back) = error else { panic!("closed") };
                    value = back;
                    thread::yield_now();
                }
            }
        },
        |mut receiver, sending| {
            for number in 0..2 {
                let value = loop {
                    match receiver.try_recv() {
                        Ok(value) => break value,
                        Err(error) => assert_eq!(error, TryRecvError::Empty),
                    }
                    thread::yield_now();
                };
                assert_eq!(value.number, number);
            }
            sending.join();
        },
    );
}

/// Forbids: `recv_many`, which hands back several slots at once, does not wake the sender, or loses an item.
#[test]
fn recv_many() {
    ends(2, 3, send_all, |mut receiver, sending| {
        let mut batch = Vec::new();
        while block_on(receiver.recv_many(&mut batch, 2)) > 0 {}
        assert_eq!(batch.iter().map(|value| value.number).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(sending.join(), 3);
    });
}

/// Forbids: an item that is sent as the receiver closes is both received and given back, or neither.
#[test]
fn send_close() {
    for max_size in [1, 2] {
        ends(max_size, 2, send_all, |mut receiver, sending| {
            receiver.close();
            let received = receive_all(&mut receiver);
            assert_eq!(sending.join(), received);
        });
    }
}

/// Forbids: the same after an item has been received.
#[test]
fn send_recv_close() {
    ends(1, 3, send_all, |mut receiver, sending| {
        assert_eq!(receiver.recv_blocking().map(|value| value.number), Some(0));
        receiver.close();
        let left = receiver.try_recv().map(|value| value.number);
        assert!(matches!(left, Ok(1) | Err(TryRecvError::Closed)), "{left:?}");
        assert_eq!(receiver.try_recv().map(|value| value.number), Err(TryRecvError::Closed));
        assert_eq!(sending.join(), 1 + usize::from(left.is_ok()));
    });
}

/// Forbids: the receiver closes, and a sender that waits for room sleeps on, or an accepted item is lost.
#[test]
fn close_wakes_sender() {
    ends(1, 2, send_all, |mut receiver, sending| {
        receiver.close();
        let accepted = sending.join();
        assert!(accepted <= 1, "more items were accepted than there is room for");
        assert_eq!(receive_all(&mut receiver), accepted);
    });
}

/// Forbids: the receiver is dropped, and a sender that waits for room sleeps on, or the items in the ring are leaked.
#[test]
fn send_drop() {
    for max_size in [1, 2] {
        ends(max_size, 2, send_all, |receiver, sending| {
            drop(receiver);
            sending.join();
        });
    }
}

/// Forbids: the sender is dropped, and a receiver that waits for an item sleeps on.
#[test]
fn drop_wakes_receiver() {
    ends(
        1,
        1,
        |sender, values| drop((sender, values)),
        |mut receiver, sending| {
            assert_eq!(receive_all(&mut receiver), 0);
            sending.join();
        },
    );
}

/// Forbids: an item that was sent before the sender closed is not received.
#[test]
fn close_after_send() {
    ends(
        2,
        1,
        |mut sender, values| {
            for value in values {
                sender.try_send(value).unwrap();
            }
            sender.close();
            sender
        },
        |mut receiver, sending| {
            assert_eq!(receive_all(&mut receiver), 1);
            drop(sending.join());
        },
    );
}

/// Forbids: both ends close at once, and an end that has closed still counts as open, the receiver does not see the
/// end, or an accepted item is lost.
#[test]
fn close_close() {
    ends(
        1,
        1,
        |mut sender, mut values| {
            let sent = sender.try_send(values.remove(0)).is_ok();
            sender.close();
            assert!(sender.is_closed());
            sent
        },
        |mut receiver, sending| {
            receiver.close();
            assert!(receiver.is_closed());
            let received = receive_all(&mut receiver) == 1;
            assert_eq!(sending.join(), received);
        },
    );
}

/// Forbids: a cancelled `recv` loses an item, or a wake-up for a later `recv_blocking` is lost.
#[test]
fn cancelled_recv() {
    ends(1, 2, send_all, |mut receiver, sending| {
        let (polled, _) = poll_once(&mut Box::pin(receiver.recv()));
        let first = usize::from(polled.is_ready());
        drop(polled);
        for number in first..2 {
            assert_eq!(receiver.recv_blocking().map(|value| value.number), Some(number));
        }
        assert_eq!(sending.join(), 2);
    });
}

/// Forbids: a cancelled `send` leaves its item in the channel, or drops it twice.
#[test]
fn cancelled_send() {
    ends(
        1,
        3,
        |mut sender, values| {
            let mut accepted = Vec::new();
            for value in values {
                let number = value.number;
                if poll_once(&mut Box::pin(sender.send(value))).0.is_ready() {
                    accepted.push(number);
                }
            }
            accepted
        },
        |mut receiver, sending| {
            let mut received = Vec::new();
            while let Some(value) = receiver.recv_blocking() {
                received.push(value.number);
            }
            assert_eq!(sending.join(), received);
        },
    );
}

/// Forbids: a cancelled `recv` or `send` leaves its waker behind although no wake follows.
#[test]
fn cancelled_attempts_leave_no_waker() {
    model(|| {
        let (mut sender, mut receiver) = spsc::channel(1);
        let (polled, waker) = poll_once(&mut Box::pin(receiver.recv()));
        assert!(polled.is_pending());
        assert_eq!(StdArc::strong_count(&waker), 1, "a waker was kept by the receiver");
        let sending = thread::spawn(move || {
            sender.try_send(1).unwrap();
            let (polled, waker) = poll_once(&mut Box::pin(sender.send(2)));
            assert!(polled.is_pending());
            assert_eq!(StdArc::strong_count(&waker), 1, "a waker was kept by the sender");
        });
        sending.join().unwrap();
        assert_eq!(receiver.recv_blocking(), Some(1));
        assert_eq!(receiver.recv_blocking(), None);
    });
}

/// Forbids: `poll_recv` gets a second waker, and only the first one is woken.
#[test]
fn replaced_waker() {
    ends(1, 1, send_all, |mut receiver, sending| {
        let (_, first) = CountingWaker::new();
        match receiver.poll_recv(&mut Context::from_waker(&first)) {
            Poll::Ready(item) => assert_eq!(item.unwrap().number, 0),
            Poll::Pending => {
                let item = block_on(std::future::poll_fn(|cx| receiver.poll_recv(cx)));
                assert_eq!(item.unwrap().number, 0);
            }
        }
        assert_eq!(sending.join(), 1);
    });
}

/// Forbids: `send_blocking_timeout` times out just as room is made, and its item is lost, or both sent and given back.
#[test]
fn timeout_against_recv() {
    model(|| {
        let drops = Drops::default();
        let (mut sender, mut receiver) = spsc::channel(1);
        sender.try_send(drops.value(0)).unwrap();
        let waiting = ThreadHandle::current();
        let clock = thread::spawn(move || waiting.time_out());
        let receiving = thread::spawn(move || {
            assert_eq!(receiver.try_recv().unwrap().number, 0);
            receiver
        });
        let sent = match sender.send_blocking_timeout(drops.value(1), Duration::from_secs(1)) {
            Ok(()) => true,
            Err(SendTimeoutError::Timeout(value)) => {
                assert_eq!(value.number, 1);
                false
            }
            Err(SendTimeoutError::Closed(_)) => panic!("closed"),
        };
        clock.join().unwrap();
        let mut receiver = receiving.join().unwrap();
        assert_eq!(receiver.try_recv().is_ok(), sent);
        assert_eq!(drops.count(), 2);
    });
}

/// Forbids: an end sees that the other end has closed, but not what was written before the close.
#[test]
fn close_publishes() {
    for sender_closes in [true, false] {
        model(move || {
            let note = Note::new();
            let (mut sender, mut receiver) = spsc::channel::<()>(1);
            let other = note.clone();
            if sender_closes {
                let closing = thread::spawn(move || {
                    other.write();
                    drop(sender);
                });
                assert_eq!(receiver.recv_blocking(), None);
                assert!(note.is_written());
                closing.join().unwrap();
            } else {
                let closing = thread::spawn(move || {
                    other.write();
                    receiver.close();
                    receiver
                });
                // There is room for one item, so the second call waits, and one of the two calls fails.
                if sender.try_send(()).is_err() || sender.send_blocking(()).is_err() {
                    assert!(note.is_written());
                } else {
                    panic!("a channel for one item accepted two");
                }
                drop(closing.join().unwrap());
            }
        });
    }
}

/// Forbids: the sender is moved to another thread while the receiver may be asleep, and a wake-up is lost.
#[test]
fn moved_between_threads() {
    ends(
        1,
        2,
        |mut sender, mut values| {
            sender.send_blocking(values.remove(0)).unwrap();
            let moved = thread::spawn(move || {
                sender.send_blocking(values.remove(0)).unwrap();
            });
            moved.join().unwrap();
        },
        |mut receiver, sending| {
            assert_eq!(receive_all(&mut receiver), 2);
            sending.join();
        },
    );
}

/// Forbids: `send_blocking_timeout` sends or loses its item although its deadline has passed.
#[test]
fn timeout_alone() {
    model(|| {
        let (mut sender, receiver) = spsc::channel(1);
        sender.try_send(1).unwrap();
        // In a model no deadline passes by itself. Without this, the sender would wait for ever.
        ThreadHandle::current().time_out();
        assert_eq!(sender.send_blocking_timeout(2, Duration::ZERO), Err(SendTimeoutError::Timeout(2)));
        assert_eq!(receiver.len(), 1);
    });
}

/// One way to use the sender with the given items. Returns the numbers of the accepted ones.
type SenderSide = fn(Sender<Counted>, Vec<Counted>) -> Vec<usize>;

/// One way to use the receiver. Returns the numbers of the received items, or `None` if the receiver was dropped
/// unread.
type ReceiverSide = fn(Receiver<Counted>) -> Option<Vec<usize>>;

/// Combines one way to use the sender with every way to use the receiver, in channels for one item and for two.
///
/// Forbids: an accepted item is not received, a rejected one is received, or either side hangs.
fn matrix(send: SenderSide) {
    fn drain(receiver: &mut Receiver<Counted>) -> Vec<usize> {
        receiver.iter().map(|value| value.number).collect()
    }
    let receivers: [ReceiverSide; 5] = [
        |mut receiver| Some(drain(&mut receiver)),
        |mut receiver| {
            receiver.close();
            Some(drain(&mut receiver))
        },
        |receiver| {
            drop(receiver);
            None
        },
        |mut receiver| {
            let (polled, _) = poll_once(&mut Box::pin(receiver.recv()));
            let first = if let Poll::Ready(Some(value)) = polled { Some(value.number) } else { None };
            Some(first.into_iter().chain(drain(&mut receiver)).collect())
        },
        |mut receiver| {
            // `poll_recv` instead of `recv`, so that the waker is still registered when this end closes.
            let (_, waker) = CountingWaker::new();
            let polled = receiver.poll_recv(&mut Context::from_waker(&waker));
            let first = if let Poll::Ready(Some(value)) = polled { Some(value.number) } else { None };
            receiver.close();
            Some(first.into_iter().chain(drain(&mut receiver)).collect())
        },
    ];
    for max_size in [1, 2] {
        for receive in receivers {
            ends(max_size, 2, send, move |receiver, sending| {
                let received = receive(receiver);
                let accepted = sending.join();
                if let Some(received) = received {
                    assert_eq!(received, accepted);
                }
            });
        }
    }
}

#[test]
fn matrix_send() {
    matrix(|mut sender, values| {
        let accepts = |value: Counted| {
            let number = value.number;
            sender.send_blocking(value).is_ok().then_some(number)
        };
        values.into_iter().filter_map(accepts).collect()
    });
}

#[test]
fn matrix_try_send_and_close() {
    matrix(|mut sender, values| {
        let accepts = |value: Counted| {
            let number = value.number;
            sender.try_send(value).is_ok().then_some(number)
        };
        let accepted = values.into_iter().filter_map(accepts).collect();
        sender.close();
        assert!(sender.is_closed());
        accepted
    });
}

#[test]
fn matrix_drop() {
    matrix(|sender, values| {
        drop((sender, values));
        Vec::new()
    });
}

#[test]
fn matrix_cancelled_send() {
    matrix(|mut sender, values| {
        let accepts = |value: Counted| {
            let number = value.number;
            let (polled, _) = poll_once(&mut Box::pin(sender.send(value)));
            matches!(polled, Poll::Ready(Ok(()))).then_some(number)
        };
        values.into_iter().filter_map(accepts).collect()
    });
}
