//! Wakers, each with a number that says what it waits for: a deadline, or a job.
//!
//! A search tree: the memory of an entry is freed when its waker is taken out. Wakers are returned to the caller, who
//! wakes or drops them outside of locks, since waking and dropping run user code.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::task::Waker;

/// The place of a waker in a map. No two wakers have the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(
    /// In the high half the number, in the low half how many wakers had been added. So wakers with the same number are
    /// in the order in which they were added. One integer is faster to compare than two.
    u128,
);

impl Key {
    fn new(number: u64, added: u64) -> Self {
        Self(u128::from(number) << 64 | u128::from(added))
    }
}

/// See the head.
#[derive(Debug, Default)]
pub struct WakerMap {
    wakers: BTreeMap<Key, Waker>,
    added: u64,
}

impl WakerMap {
    /// Adds a waker that waits for this number.
    pub fn add(&mut self, number: u64, waker: Waker) -> Key {
        self.added += 1;
        let key = Key::new(number, self.added);
        self.wakers.insert(key, waker);
        key
    }

    /// The waker. `None`: it has been taken out.
    pub fn get(&self, key: Key) -> Option<&Waker> {
        self.wakers.get(&key)
    }

    /// Takes one waker out.
    pub fn remove(&mut self, key: Key) -> Option<Waker> {
        self.wakers.remove(&key)
    }

    /// Takes out all wakers that wait for one of these numbers, in the order of the numbers.
    pub fn take(&mut self, numbers: RangeInclusive<u64>) -> Vec<Waker> {
        let range = Key::new(*numbers.start(), 0)..=Key::new(*numbers.end(), u64::MAX);
        let keys: Vec<_> = self.wakers.range(range).map(|(key, _)| *key).collect();
        keys.iter().filter_map(|key| self.wakers.remove(key)).collect()
    }

    /// The lowest number that a waker waits for.
    pub fn first(&self) -> Option<u64> {
        self.wakers.first_key_value().map(|(key, _)| (key.0 >> 64) as u64)
    }

    /// How many wakers there are.
    pub fn len(&self) -> usize {
        self.wakers.len()
    }
}
