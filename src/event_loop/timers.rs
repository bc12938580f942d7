//! Timers, in the order of their deadlines. The caller passes the time: there is no clock in this file.
//!
//! A search tree with an entry for each timer, whose memory is freed with the timer. Wakers are returned to the caller,
//! who wakes or drops them outside the lock, since that runs user code.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;
use std::time::{Duration, Instant};

/// A timer. No two have the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(
    /// The deadline, in nanoseconds since the beginning, and the timer's number: of timers with the same deadline, the
    /// first one added comes first. One integer, which is faster to compare.
    u128,
);

impl Key {
    fn new(nanos: u64, number: u64) -> Self {
        Self(u128::from(nanos) << 64 | u128::from(number))
    }
}

#[derive(Debug)]
pub struct Timers {
    wakers: BTreeMap<Key, Waker>,
    added: u64,
    beginning: Instant,
}

impl Timers {
    pub fn new(beginning: Instant) -> Self {
        Self { wakers: BTreeMap::new(), added: 0, beginning }
    }

    /// Saturates after some 580 years.
    fn nanos(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.beginning).as_nanos()).unwrap_or(u64::MAX)
    }

    pub fn add(&mut self, deadline: Instant, waker: Waker) -> Key {
        self.added += 1;
        let key = Key::new(self.nanos(deadline), self.added);
        self.wakers.insert(key, waker);
        key
    }

    /// Whether the timer has this waker. `None`: the timer has been taken out.
    pub fn wakes(&self, key: Key, waker: &Waker) -> Option<bool> {
        Some(self.wakers.get(&key)?.will_wake(waker))
    }

    pub fn remove(&mut self, key: Key) -> Option<Waker> {
        self.wakers.remove(&key)
    }

    pub fn len(&self) -> usize {
        self.wakers.len()
    }

    pub fn earliest(&self) -> Option<Instant> {
        let (key, _) = self.wakers.first_key_value()?;
        self.beginning.checked_add(Duration::from_nanos((key.0 >> 64) as u64))
    }

    /// Takes out the wakers of the timers that are due, in order.
    pub fn take_due(&mut self, now: Instant) -> Vec<Waker> {
        let last = Key::new(self.nanos(now), u64::MAX);
        let mut due = Vec::new();
        while self.wakers.first_key_value().is_some_and(|(key, _)| *key <= last) {
            due.extend(self.wakers.pop_first().map(|(_, waker)| waker));
        }
        due
    }

    pub fn take_all(&mut self) -> Vec<Waker> {
        mem::take(&mut self.wakers).into_values().collect()
    }
}
