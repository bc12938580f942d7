//! The queue of deadlines, which takes the time from its caller, compared with a sorted list. The queue is private, so
//! its source is included here.

#[allow(dead_code, reason = "this test does not use all of it")]
#[path = "../../src/event_loop/timers.rs"]
mod queue;

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::primitives::waker_map::Key;
use queue::Timers;

/// A waker that `will_wake` distinguishes from others.
struct Named;

impl Wake for Named {
    fn wake(self: Arc<Self>) {}
}

fn named() -> Waker {
    Arc::new(Named).into()
}

#[derive(Clone, Debug)]
enum Step {
    Add(u64),
    Remove(prop::sample::Index),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..20_u64).prop_map(Step::Add),
        2 => (0..20_u64, 0..50_u32).prop_map(|(after, bits)| Step::Add(after << bits)),
        1 => any::<prop::sample::Index>().prop_map(Step::Remove),
        2 => (0..10_u64).prop_map(Step::Advance),
        1 => (0..10_u64, 0..50_u32).prop_map(|(by, bits)| Step::Advance(by << bits)),
    ]
}

proptest! {
    /// After any additions and removals, each advance of time takes out the same wakers as from a sorted list: none
    /// early, none late, in the order of the deadlines, and in the order of adding for equal deadlines.
    #[test]
    fn timers_behave_like_a_sorted_list(steps in vec(step(), 0..100)) {
        let mut now = Instant::now();
        let mut timers = Timers::new(now);
        let mut list: Vec<(Instant, Waker, Key)> = Vec::new();
        let mut gone: Vec<Key> = Vec::new();
        for step in steps {
            match step {
                Step::Add(after) => {
                    let (deadline, waker) = (now + Duration::from_nanos(after), named());
                    let key = timers.add(deadline, waker.clone());
                    let at = list.partition_point(|(other, ..)| *other <= deadline);
                    list.insert(at, (deadline, waker, key));
                }
                Step::Remove(which) if !list.is_empty() => {
                    let (_, waker, key) = list.remove(which.index(list.len()));
                    prop_assert!(timers.remove(key).is_some_and(|removed| removed.will_wake(&waker)));
                    gone.push(key);
                }
                Step::Remove(_) => {}
                Step::Advance(by) => {
                    now += Duration::from_nanos(by);
                    let due: Vec<_> = list.drain(..list.partition_point(|(deadline, ..)| *deadline <= now)).collect();
                    let taken = timers.take_due(now);
                    // A thread that sleeps until the earliest deadline does not wake up twice for the same time.
                    prop_assert!(timers.earliest().is_none_or(|earliest| earliest > now));
                    prop_assert_eq!(taken.len(), due.len());
                    prop_assert!(taken.iter().zip(&due).all(|(taken, (_, waker, _))| taken.will_wake(waker)));
                    gone.extend(due.into_iter().map(|(.., key)| key));
                }
            }
            let (earliest, first) = (timers.earliest(), list.first().map(|(deadline, ..)| *deadline));
            prop_assert_eq!(earliest, first);
            for (_, waker, key) in &list {
                prop_assert_eq!(timers.wakes(*key, waker), Some(true));
                prop_assert_eq!(timers.wakes(*key, &named()), Some(false));
            }
            for key in &gone {
                prop_assert!(timers.remove(*key).is_none() && timers.wakes(*key, &named()).is_none());
            }
        }
        let rest = timers.take_all();
        prop_assert!(rest.len() == list.len() && timers.earliest().is_none());
    }
}
