//! Deadlines in order, and whom to wake at each. Takes the time from its caller: it owns no clock.
//!
//! A sorted map: adding and removing take time that grows with the logarithm of their number, and what is removed leaves
//! nothing behind, however far off its deadline was. Wakers that come out are the caller's to wake or to drop: they run
//! users' code, and this may stand behind a lock.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Where a waker is: the deadline, in nanoseconds since the beginning, and a number that tells those of the same instant apart
/// and puts them in the order in which they came.
pub type Key = (u64, u64);

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

    /// After some five hundred years, all instants are the same.
    fn nanos(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.beginning);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    pub fn add(&mut self, deadline: Instant, waker: Waker) -> Key {
        self.added += 1;
        let key = (self.nanos(deadline), self.added);
        self.wakers.insert(key, waker);
        key
    }

    /// Whether it is this waker that is there. `None`: it has been taken out.
    pub fn wakes(&self, key: Key, waker: &Waker) -> Option<bool> {
        self.wakers.get(&key).map(|there| there.will_wake(waker))
    }

    pub fn remove(&mut self, key: Key) -> Option<Waker> {
        self.wakers.remove(&key)
    }

    pub fn earliest(&self) -> Option<Instant> {
        let (&(nanos, _), _) = self.wakers.first_key_value()?;
        self.beginning.checked_add(Duration::from_nanos(nanos))
    }

    /// Takes those out whose deadline has come, in order.
    pub fn take_due(&mut self, now: Instant) -> Vec<Waker> {
        let mut due = Vec::new();
        let now = self.nanos(now);
        while let Some(first) = self.wakers.first_entry().filter(|first| first.key().0 <= now) {
            due.push(first.remove());
        }
        due
    }

    pub fn take_all(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers).into_values().collect()
    }
}
