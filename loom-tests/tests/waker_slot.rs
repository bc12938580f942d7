//! Models of `src/primitives/waker_slot.rs`: the waiter's second look sees the event, or its last waker is woken.

mod common;

use std::sync::Arc as StdArc;
use std::task::{Wake, Waker};

use common::{CountingWaker, model};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::thread;
use offthread::internals::WakerSlot;

/// A slot, and something to wait for. The event is relaxed: only the slot orders it.
#[derive(Clone)]
struct Place(Arc<(WakerSlot, AtomicBool)>);

impl Place {
    fn new() -> Self {
        Self(Arc::new((WakerSlot::default(), AtomicBool::new(false))))
    }

    fn register(&self, waker: &Waker) {
        self.0.0.register(waker);
    }

    /// A thread that makes the event come true and wakes.
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

/// Forbids: an event that comes during the registration is neither seen nor brings a wake-up.
#[test]
fn event_or_wake() {
    model(|| {
        let place = Place::new();
        let other = place.happen();
        let (wakes, waker) = CountingWaker::new();
        place.register(&waker);
        let seen = place.seen();
        other.join().unwrap();
        assert!(seen || wakes.wakes() == 1, "a wake-up was lost");
    });
}

/// Forbids: the waker in the slot is not the one that was put there before.
#[test]
fn registered_waker_is_woken() {
    model(|| {
        let place = Place::new();
        let (wakes, waker) = CountingWaker::new();
        place.register(&waker);
        let other = place.happen();
        other.join().unwrap();
        assert_eq!(wakes.wakes(), 1);
        drop(waker);
        assert_eq!(StdArc::strong_count(&wakes), 1, "the slot has kept a waker that it has woken");
    });
}

/// Forbids: a wake that meets the replacing of a waker goes to the old one alone, with the event unseen; or the old
/// waker is kept.
#[test]
fn replaced_waker_or_event() {
    model(|| {
        let place = Place::new();
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

/// Forbids: a registration that follows a take finds the cell as it was before, or does not see that take's event.
#[test]
fn register_again_after_take() {
    model(|| {
        let place = Place::new();
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

/// Forbids: a take leaves the slot locked, so that the next waiter is turned away, and wakes itself over and over.
#[test]
fn quiet_after_take() {
    model(|| {
        let place = Place::new();
        place.happen().join().unwrap();
        let (wakes, waker) = CountingWaker::new();
        place.register(&waker);
        assert_eq!(wakes.wakes(), 0, "woken for nothing");
        place.happen().join().unwrap();
        assert_eq!(wakes.wakes(), 1);
    });
}

/// Forbids: two takers both get the waker, or neither does.
#[test]
fn two_takers() {
    model(|| {
        let place = Place::new();
        let (wakes, waker) = CountingWaker::new();
        place.register(&waker);
        let others = [place.happen(), place.happen()];
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(wakes.wakes(), 1);
    });
}

/// Forbids: a taker finds a cell that another taker's mark has made the registering thread empty, in an older state.
#[test]
fn two_registrations_two_takes() {
    model(|| {
        let place = Place::new();
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

/// Forbids: the slot drops a waker while it is locked, so that a waker whose `Drop` registers another one finds it
/// locked by its own thread.
#[test]
fn waker_that_registers_in_drop() {
    struct Registers {
        place: Place,
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
        let place = Place::new();
        let (last, _) = CountingWaker::new();
        place.register(&StdArc::new(Registers { place: place.clone(), last: last.clone() }).into());
        let (_, replacement) = CountingWaker::new();
        place.register(&replacement);
        assert_eq!(last.wakes(), 0, "registered while the slot was locked");
        let other = place.happen();
        other.join().unwrap();
        assert_eq!(last.wakes(), 1, "the waker registered last was not woken");
    });
}
