//! Deadlines in order, and whom to wake at each. Takes the time from its caller: it owns no clock.
//!
//! A radix heap (Ahuja, Mehlhorn, Orlin and Tarjan, 1990): a deadline lies in the bucket of the highest bit in which it differs
//! from the time of the last look. So all of a bucket come before those of the next, and none is touched before the time comes
//! near: then what is due is sorted, and the rest moves to earlier buckets, as many times as it has bits at most. Memory is
//! walked through in order; a tree, or a heap of pairs, would jump to and fro in it, and with many timers that is what takes
//! the time.
//!
//! A waker lies in a slot, and when it is removed it leaves at once. Its deadline stays, until its bucket's turn comes or such
//! deadlines are more than the others; so however far off it was, it does not stay for long where others come and go. Wakers
//! that come out are the caller's to wake or to drop: they run users' code, and this may stand behind a lock.
#![forbid(unsafe_code)]

use std::mem;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Where a waker is: no other one ever has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    slot: u32,
    /// How many wakers the slot had had before.
    generation: u32,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    waker: Option<Waker>,
}

/// Those of the same deadline are always in the same bucket, in the order in which they came.
#[derive(Debug, Default)]
struct Bucket {
    entries: Vec<(u64, Key)>,
    /// The earliest deadline, if there is any.
    earliest: u64,
}

/// An empty bucket keeps room for so many.
const ROOM: usize = 64;

/// In nanoseconds since the beginning. After some three hundred years, all instants are the same.
const END: u64 = u64::MAX >> 1;

#[derive(Debug)]
pub struct Timers {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Higher than that of any slot that there was before, and is not any more.
    generation: u32,
    /// As many as have been needed. The first one has what is not after `now`.
    buckets: Vec<Bucket>,
    /// How many deadlines there are whose wakers have been removed.
    stale: usize,
    /// Of the last look.
    now: u64,
    beginning: Instant,
}

impl Timers {
    pub fn new(beginning: Instant) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), generation: 0, buckets: Vec::new(), stale: 0, now: 0, beginning }
    }

    fn nanos(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.beginning);
        u64::try_from(since.as_nanos()).map_or(END, |nanos| nanos.min(END))
    }

    /// The bucket for a deadline.
    fn bucket(&self, nanos: u64) -> usize {
        if nanos <= self.now { 0 } else { (u64::BITS - (nanos ^ self.now).leading_zeros()) as usize }
    }

    fn put(&mut self, nanos: u64, key: Key) {
        let at = self.bucket(nanos);
        if at >= self.buckets.len() {
            self.buckets.resize_with(at + 1, Bucket::default);
        }
        let bucket = &mut self.buckets[at];
        bucket.earliest = if bucket.entries.is_empty() { nanos } else { bucket.earliest.min(nanos) };
        bucket.entries.push((nanos, key));
    }

    pub fn add(&mut self, deadline: Instant, waker: Waker) -> Key {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = u32::try_from(self.slots.len()).expect("there is no memory for so many timers");
            self.slots.push(Slot { generation: self.generation, waker: None });
            slot
        });
        let there = &mut self.slots[slot as usize];
        there.waker = Some(waker);
        let key = Key { slot, generation: there.generation };
        self.put(self.nanos(deadline), key);
        key
    }

    /// Whether it is this waker that is there. `None`: it has been taken out.
    pub fn wakes(&self, key: Key, waker: &Waker) -> Option<bool> {
        let slot = self.slots.get(key.slot as usize).filter(|slot| slot.generation == key.generation)?;
        Some(slot.waker.as_ref()?.will_wake(waker))
    }

    /// Takes a waker out of its slot, which is free then.
    fn take(&mut self, key: Key) -> Option<Waker> {
        let slot = self.slots.get_mut(key.slot as usize).filter(|slot| slot.generation == key.generation)?;
        let waker = slot.waker.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(waker)
    }

    pub fn remove(&mut self, key: Key) -> Option<Waker> {
        let waker = self.take(key)?;
        self.stale += 1;
        self.clean();
        Some(waker)
    }

    /// Drops the deadlines whose wakers have been removed, if they are more than the others; and, if no waker is left, what a
    /// burst of them took.
    fn clean(&mut self) {
        let live = self.slots.len() - self.free.len();
        if live == 0 && self.slots.len() > ROOM {
            self.generation = self.slots.drain(..).map(|slot| slot.generation).fold(self.generation, u32::max);
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        if self.stale <= live {
            return;
        }
        for Bucket { entries, earliest } in &mut self.buckets {
            entries.retain(|(_, key)| {
                self.slots.get(key.slot as usize).is_some_and(|slot| slot.generation == key.generation)
            });
            *earliest = entries.iter().map(|(nanos, _)| *nanos).min().unwrap_or(END);
            entries.shrink_to(ROOM);
        }
        self.stale = 0;
    }

    /// Not after the earliest deadline. (It may be one whose waker has been removed.)
    pub fn earliest(&self) -> Option<Instant> {
        self.beginning.checked_add(Duration::from_nanos(self.earliest_nanos()?))
    }

    fn earliest_nanos(&self) -> Option<u64> {
        Some(self.buckets.iter().find(|bucket| !bucket.entries.is_empty())?.earliest)
    }

    /// Takes those out whose deadline has come, in order.
    pub fn take_due(&mut self, now: Instant) -> Vec<Waker> {
        self.take_until(self.nanos(now))
    }

    pub fn take_all(&mut self) -> Vec<Waker> {
        self.take_until(END)
    }

    fn take_until(&mut self, now: u64) -> Vec<Waker> {
        if self.earliest_nanos().is_none_or(|earliest| now < earliest) {
            return Vec::new();
        }
        // What is in the buckets before this one is due; what is in it may be; what is after it is not.
        let now = now.max(self.now);
        let last = self.bucket(now);
        self.now = now;
        let mut due = Vec::new();
        for at in 0..self.buckets.len().min(last + 1) {
            let mut entries = mem::take(&mut self.buckets[at].entries);
            for (nanos, key) in entries.drain(..) {
                if nanos <= now {
                    due.push((nanos, key));
                } else {
                    self.put(nanos, key);
                }
            }
            entries.shrink_to(ROOM);
            self.buckets[at].entries = entries;
        }
        // Stable: of the same deadline, the first is the one that came first.
        due.sort_by_key(|(nanos, _)| *nanos);
        let all = due.len();
        let wakers: Vec<_> = due.into_iter().filter_map(|(_, key)| self.take(key)).collect();
        self.stale -= all - wakers.len();
        self.clean();
        wakers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_been_removed_takes_no_memory() {
        let beginning = Instant::now();
        let mut timers = Timers::new(beginning);
        let add =
            |timers: &mut Timers, second| timers.add(beginning + Duration::from_secs(second), Waker::noop().clone());
        let kept: Vec<_> = (1..=10).map(|second| add(&mut timers, second)).collect();
        for round in 0..10_000 {
            let key = add(&mut timers, 3600 + round % 1000);
            assert!(timers.remove(key).is_some());
        }
        assert_eq!(timers.slots.len(), kept.len() + 1);
        let entries = |timers: &Timers| timers.buckets.iter().map(|bucket| bucket.entries.len()).sum::<usize>();
        assert!(entries(&timers) <= 2 * kept.len());
        assert_eq!(timers.take_due(beginning + Duration::from_secs(9)).len(), 9);
        assert!(entries(&timers) <= 2);
        assert_eq!(timers.take_all().len(), 1);
        assert_eq!(entries(&timers), 0);
    }
}
