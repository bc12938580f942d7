//! Models of `src/primitives/waker_slot.rs`: a caller that checks after `register` sees the event, or the waker
//! registered last is woken.

mod common;

use std::sync::Arc as StdArc;
use std::task::{Wake, Waker};

use common::{CountingWaker, model};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::thread;
use offthread::internals::WakerSlot;

/// A slot, and an event to wait for. The accesses to the event are relaxed, so only the slot can order them.
#[derive(Clone)]
struct SlotAndEvent(Arc<(WakerSlot, AtomicBool)>);

impl SlotAndEvent {
    fn new() -> Self {
        Self(Arc::new((WakerSlot::default(), AtomicBool::new(false))))
    }

    fn register(&self, waker: &Waker) {
        self.0.0.register(waker);
    }

    /// Starts a thread that sets the event and then wakes the slot.
    fn happen(&self) -> thread::JoinHandle<()> {
        let place = self.clone();
        thread::spawn(move || {
            place.0.1.store(true, Relaxed);
            place.0.0.wake();
        })
    }

    fn seen(&self) -> bool {
        self.0.1.load(Relaxed)
    }
}

/// Forbids: an event comes during the registration, is not seen afterwards, and causes no wake-up.
#[test]
fn event_or_wake() {
    model(|| {
        let place = SlotAndEvent::new();
        let other = place.happen();
        let (wakes, waker) = CountingWaker::new();
        place.register(&waker);
        let seen = place.seen();
        other.join().unwrap();
        assert!(seen || wakes.wakes() == 1, "a wake-up was lost");
    });
}

/// Forbids: a wake comes while a waker is being replaced, wakes only the old one, and the event is not seen; or the old
/// waker is leaked.
#[test]
fn replaced_waker_or_event() {
    model(|| {
        let place = SlotAndEvent::new();
        let other = place.happen();
        let (old, old_waker) = CountingWaker::new();
        let (new, new_waker) = CountingWaker::new();
        place.register(&old_waker);
        place.register(&new_waker);
        let seen = place.seen();
        other.join().unwrap();
        assert!(seen || new.wakes() == 1, "a wake-up was lost");
        drop((old_waker, place));
        assert_eq!(StdArc::strong_count(&old), 1, "the replaced waker was kept");
    });
}

/// Forbids: a registration after a take finds the waker still in the cell, or does not see the event of that take.
#[test]
fn register_again_after_take() {
    model(|| {
        let place = SlotAndEvent::new();
        let (_, first) = CountingWaker::new();
        place.register(&first);
        let other = place.happen();
        let (second, waker) = CountingWaker::new();
        place.register(&waker);
        let seen = place.seen();
        other.join().unwrap();
        assert!(seen || second.wakes() == 1, "a wake-up was lost");
    });
}

/// Forbids: a take, or a registration that a taker has marked, leaves the slot locked, so that each later registration
/// fails and wakes its own waker.
#[test]
fn quiet_after_take() {
    model(|| {
        let place = SlotAndEvent::new();
        let other = place.happen();
        let (_, first) = CountingWaker::new();
        place.register(&first);
        other.join().unwrap();
        let (wakes, waker) = CountingWaker::new();
        place.register(&waker);
        assert_eq!(wakes.wakes(), 0, "woken by its own registration");
        place.0.0.wake();
        assert_eq!(wakes.wakes(), 1);
    });
}

/// Forbids: two takers both get the waker, or neither does; or the slot keeps it.
#[test]
fn two_takers() {
    model(|| {
        let place = SlotAndEvent::new();
        let (wakes, waker) = CountingWaker::new();
        place.register(&waker);
        let others = [place.happen(), place.happen()];
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(wakes.wakes(), 1);
        drop(waker);
        assert_eq!(StdArc::strong_count(&wakes), 1, "the slot keeps a waker that it has woken");
    });
}

/// Forbids: a `register` takes its waker back because of a taker's mark, and a later `take` or `register` does not see
/// the empty cell.
#[test]
fn two_registrations_two_takes() {
    model(|| {
        let place = SlotAndEvent::new();
        let others = [place.happen(), place.happen()];
        let (_, first) = CountingWaker::new();
        place.register(&first);
        let (second, waker) = CountingWaker::new();
        place.register(&waker);
        let seen = place.seen();
        for other in others {
            other.join().unwrap();
        }
        assert!(seen || second.wakes() == 1, "a wake-up was lost");
    });
}

/// Forbids: the slot drops a replaced waker while it is locked, so that a `register` in that waker's `Drop` fails; or a
/// take during either registration wakes both of the new wakers, or neither.
#[test]
fn waker_that_registers_in_drop() {
    struct Registers {
        place: SlotAndEvent,
        last: StdArc<CountingWaker>,
    }
    impl Wake for Registers {
        fn wake(self: StdArc<Self>) {}
    }
    impl Drop for Registers {
        fn drop(&mut self) {
            self.place.register(&self.last.clone().into());
        }
    }
    model(|| {
        let place = SlotAndEvent::new();
        let (last, _) = CountingWaker::new();
        place.register(&StdArc::new(Registers { place: place.clone(), last: last.clone() }).into());
        let taking = thread::spawn({
            let place = place.clone();
            move || place.0.0.take()
        });
        let (new, replacement) = CountingWaker::new();
        place.register(&replacement);
        let taken = taking.join().unwrap();
        if taken.is_none() {
            // The take has marked one of the two registrations, which wakes its own waker. The other registration must
            // not notice.
            assert_eq!(new.wakes() + last.wakes(), 1);
            place.0.0.wake();
            assert_eq!(last.wakes(), 1, "the waker registered last was not woken");
        }
    });
}
