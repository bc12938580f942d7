//! Timers, in the order of their deadlines. The caller passes the time: there is no clock in this file.
#![forbid(unsafe_code)]

use std::task::Waker;
use std::time::{Duration, Instant};

use crate::primitives::waker_map::{Key, WakerMap};

/// The wakers of timers, each under its deadline, in nanoseconds since `beginning`.
#[derive(Debug)]
pub struct Timers {
    wakers: WakerMap,
    beginning: Instant,
}

impl Timers {
    pub fn new(beginning: Instant) -> Self {
        Self { wakers: WakerMap::default(), beginning }
    }

    /// Saturates after some 580 years.
    fn nanos(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.beginning).as_nanos()).unwrap_or(u64::MAX)
    }

    pub fn add(&mut self, deadline: Instant, waker: Waker) -> Key {
        self.wakers.add(self.nanos(deadline), waker)
    }

    /// Whether the timer has this waker. `None`: the timer has been taken out.
    pub fn wakes(&self, key: Key, waker: &Waker) -> Option<bool> {
        self.wakers.get(key).map(|own| own.will_wake(waker))
    }

    pub fn remove(&mut self, key: Key) -> Option<Waker> {
        self.wakers.remove(key)
    }

    pub fn len(&self) -> usize {
        self.wakers.len()
    }

    pub fn earliest(&self) -> Option<Instant> {
        self.beginning.checked_add(Duration::from_nanos(self.wakers.first()?))
    }

    /// Takes out the wakers of the timers that are due, in order.
    pub fn take_due(&mut self, now: Instant) -> Vec<Waker> {
        self.wakers.take(0..=self.nanos(now))
    }

    pub fn take_all(&mut self) -> Vec<Waker> {
        self.wakers.take(0..=u64::MAX)
    }
}
