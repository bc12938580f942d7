//! Models of `src/primitives/share.rs`: the value is dropped once, when nobody looks at it any more, and changed by nobody but
//! the only one who has it.

mod common;

use common::{Counted, Drops, model};
use loom::cell::UnsafeCell;
use loom::thread;
use offthread::internals::Share;

/// A value that loom watches, and whose drops and memory are counted.
struct Value {
    number: UnsafeCell<usize>,
    counted: Counted,
    drops: Drops,
}

// SAFETY: loom checks each access.
unsafe impl Sync for Value {}

impl Value {
    fn new(drops: &Drops) -> Self {
        Self { number: UnsafeCell::new(7), counted: drops.value(0), drops: drops.clone() }
    }

    fn number(&self) -> usize {
        // SAFETY: loom checks that nobody changes it meanwhile.
        self.number.with(|number| unsafe { *number })
    }

    fn set(&mut self, to: usize) {
        // SAFETY: loom checks that nobody looks at it meanwhile.
        self.number.with_mut(|number| unsafe { *number = to });
    }
}

impl Clone for Value {
    fn clone(&self) -> Self {
        let mut copy = Self::new(&self.drops);
        copy.set(self.number());
        copy
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: as `set`.
        self.number.with_mut(|number| unsafe { *number = self.counted.number });
    }
}

/// A thread that looks at the value, and ends its share.
fn look(share: Share<Value>) -> thread::JoinHandle<()> {
    thread::spawn(move || assert_eq!(share.number(), 7))
}

/// Forbids: the value is dropped while another one looks at it; or twice, or never.
#[test]
fn dropped_once() {
    model(|| {
        let drops = Drops::default();
        let share = Share::new(Value::new(&drops));
        let others = [look(share.clone()), look(share.clone())];
        assert_eq!(share.number(), 7);
        drop(share);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(drops.count(), 1);
    });
}

/// Forbids: the same, if shares were counted in advance, and some of them are left when the one who had them goes; and if
/// he gives away more than he had in store.
#[test]
fn given_away() {
    for more in [0, 1, 2] {
        model(move || {
            let drops = Drops::default();
            let mut share = Share::new(Value::new(&drops));
            let other = look(share.give());
            for _ in 0..more {
                drop(share.give());
            }
            assert_eq!(share.number(), 7);
            drop(share);
            other.join().unwrap();
            assert_eq!(drops.count(), 1);
        });
    }
}

/// Forbids: what was given away from a store is not there when the giver has gone.
#[test]
fn given_away_twice() {
    model(|| {
        let drops = Drops::default();
        let mut share = Share::new(Value::new(&drops));
        let others = [look(share.give()), look(share.give())];
        drop(share);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(drops.count(), 1);
    });
}

/// Forbids: the value is changed while another one looks at it; or is copied though nobody does.
#[test]
fn changed_when_alone() {
    model(|| {
        let drops = Drops::default();
        let mut share = Share::new(Value::new(&drops));
        let other = look(share.give());
        share.make_mut().set(8);
        assert_eq!(share.number(), 8);
        other.join().unwrap();
        let dropped = drops.count();
        assert!(dropped <= 1, "one copy was made at most, and has its own share");
        share.make_mut().set(9);
        assert_eq!(drops.count(), dropped, "it was copied, but the share was the only one");
        drop(share);
        assert_eq!(drops.count(), dropped + 1);
    });
}

/// Forbids: a copy that somebody made of a given share does not count.
#[test]
fn a_copy_of_a_gift() {
    model(|| {
        let drops = Drops::default();
        let mut share = Share::new(Value::new(&drops));
        let gift = share.give();
        let other = thread::spawn(move || {
            let copy = gift.clone();
            assert!(Share::ptr_eq(&copy, &gift));
            drop(gift);
            assert_eq!(copy.number(), 7);
        });
        drop(share);
        other.join().unwrap();
        assert_eq!(drops.count(), 1);
    });
}
