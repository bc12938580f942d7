//! Models of `src/primitives/parker.rs`: each wake is followed by a poll that sees what was written before the wake.

mod common;

use std::cell::RefCell;
use std::mem;
use std::task::{Poll, Waker};
use std::time::Instant;

use common::model;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};
use loom::thread;
use offthread::internals::{Blocking, ThreadHandle, block_on, poll_until, set_blocking_hook};

/// An event to wait for: a flag and a value. If the flag is read with `Relaxed`, only the wake orders the writes before
/// the reads.
#[derive(Clone)]
struct Event(Arc<(AtomicBool, UnsafeCell<u32>)>);

impl Event {
    fn new() -> Self {
        Self(Arc::new((AtomicBool::new(false), UnsafeCell::new(0))))
    }

    /// Starts a thread that writes the value, sets the flag, and wakes `waker`.
    fn happen(&self, waker: Waker) -> thread::JoinHandle<()> {
        let event = self.clone();
        thread::spawn(move || {
            // SAFETY: `happened` reads the value only after it has seen the flag, which is set below.
            event.0.1.with_mut(|value| unsafe { *value = 7 });
            event.0.0.store(true, Release);
            waker.wake();
        })
    }

    fn happened(&self, look: Ordering) -> bool {
        // SAFETY: the value is written before the flag is set; loom checks that the wake, or `Acquire`, orders the
        // accesses.
        self.0.0.load(look) && self.0.1.with(|value| unsafe { *value }) == 7
    }
}

/// Waits for the event of a thread that the first poll starts. With `look` `Relaxed`, each later poll must see the
/// event; so nothing else may cause a further poll.
fn wait_for_thread(deadline: Option<Instant>, look: Ordering) -> (Option<()>, thread::JoinHandle<()>) {
    let event = Event::new();
    let mut other = None;
    let done = poll_until(deadline, |cx| match &other {
        None => {
            other = Some(event.happen(cx.waker().clone()));
            Poll::Pending
        }
        Some(_) if event.happened(look) => Poll::Ready(()),
        Some(_) => {
            assert_eq!(look, Acquire, "polled again without a wake-up, or before its event could be seen");
            Poll::Pending
        }
    });
    (done, other.unwrap())
}

/// Forbids: the poll after a wake does not see what was written before the wake; or a wake between poll and sleep is
/// lost.
#[test]
fn wake_publishes() {
    model(|| {
        let (done, other) = wait_for_thread(None, Relaxed);
        assert!(done.is_some());
        other.join().unwrap();
    });
}

/// Forbids: a wake by reference is lost.
#[test]
fn wake_by_reference() {
    model(|| {
        let ready = Arc::new(AtomicBool::new(false));
        let mut started = false;
        poll_until(None, |cx| {
            if ready.load(Relaxed) {
                return Poll::Ready(());
            }
            if !mem::replace(&mut started, true) {
                let (waker, ready) = (cx.waker().clone(), ready.clone());
                thread::spawn(move || {
                    ready.store(true, Relaxed);
                    waker.wake_by_ref();
                });
            }
            Poll::Pending
        });
    });
}

/// Forbids: a wake during the poll, by the polled code itself and by a thread at the same time, is lost.
#[test]
fn wake_during_poll() {
    model(|| {
        let event = Event::new();
        let mut other = None;
        let mut polls = 0;
        poll_until(None, |cx| {
            polls += 1;
            if polls == 1 {
                other = Some(event.happen(cx.waker().clone()));
            }
            if polls < 3 {
                cx.waker().wake_by_ref();
            }
            if polls >= 3 && event.happened(Acquire) { Poll::Ready(()) } else { Poll::Pending }
        });
        other.unwrap().join().unwrap();
    });
}

/// Forbids: a spurious return from sleep is taken for a wake-up.
#[test]
fn spurious_wake_ups() {
    model(|| {
        let waiting = ThreadHandle::current();
        let disturber = thread::spawn(move || waiting.unpark());
        let (done, other) = wait_for_thread(None, Relaxed);
        assert!(done.is_some());
        other.join().unwrap();
        disturber.join().unwrap();
    });
}

/// Forbids: a waker of an earlier call fires during a later call on the same thread, and the later call loses its
/// wake-up.
#[test]
fn stale_waker() {
    model(|| {
        let mut stale = None;
        block_on(std::future::poll_fn(|cx| {
            stale = Some(cx.waker().clone());
            Poll::Ready(())
        }));
        let stale = stale.unwrap();
        let firing = thread::spawn(move || stale.wake());
        let (done, other) = wait_for_thread(None, Acquire);
        assert!(done.is_some());
        other.join().unwrap();
        firing.join().unwrap();
    });
}

/// Forbids: a wake comes as the deadline passes, and a poll after the wake does not see the event; or the next call of
/// `poll_until` hangs.
#[test]
fn deadline_against_wake() {
    model(|| {
        let waiting = ThreadHandle::current();
        let clock = thread::spawn(move || waiting.time_out());
        let (_done, other) = wait_for_thread(Some(Instant::now()), Relaxed);
        other.join().unwrap();
        clock.join().unwrap();
        let (done, other) = wait_for_thread(None, Acquire);
        assert!(done.is_some());
        other.join().unwrap();
    });
}

/// Forbids: a call of `poll_until` waits on after its deadline has passed.
#[test]
fn deadline_alone() {
    model(|| {
        let waiting = ThreadHandle::current();
        let clock = thread::spawn(move || waiting.time_out());
        assert_eq!(poll_until(Some(Instant::now()), |_| Poll::<()>::Pending), None);
        clock.join().unwrap();
    });
}

/// Forbids: code that wakes itself at each poll keeps `poll_until` from returning at its deadline.
#[test]
fn deadline_with_ceaseless_wakes() {
    model(|| {
        let waiting = ThreadHandle::current();
        let clock = thread::spawn(move || waiting.time_out());
        let done = poll_until(Some(Instant::now()), |cx| {
            cx.waker().wake_by_ref();
            thread::yield_now();
            Poll::<()>::Pending
        });
        assert_eq!(done, None);
        clock.join().unwrap();
    });
}

/// Forbids: a `poll_until` inside the poll of another one consumes the outer call's wake-up, or wakes the outer call.
#[test]
fn nested() {
    model(|| {
        // Puts a parker into this thread's cache, as on any thread that has waited before.
        assert!(poll_until(None, |cx| Poll::Ready(cx.waker().clone())).is_some());
        let outer = Event::new();
        let mut other = None;
        poll_until(None, |cx| {
            if other.is_none() {
                other = Some(outer.happen(cx.waker().clone()));
                let (done, inner) = wait_for_thread(None, Relaxed);
                assert!(done.is_some());
                inner.join().unwrap();
                return Poll::Pending;
            }
            assert!(outer.happened(Relaxed), "polled again without a wake-up");
            Poll::Ready(())
        });
        other.unwrap().join().unwrap();
    });
}

/// Forbids: a thread sleeps for ever although its blocking hook has woken it.
#[test]
fn woken_by_the_hook() {
    loom::thread_local! {
        static OWN: RefCell<Option<Waker>> = RefCell::new(None);
    }
    model(|| {
        set_blocking_hook(Some(|blocking| {
            let waker = OWN.with(RefCell::take);
            if let Some(waker) = waker.filter(|_| blocking == Blocking::Enter) {
                waker.wake();
            }
        }));
        let mut polls = 0;
        let woken = poll_until(None, |cx| {
            polls += 1;
            if polls == 1 {
                OWN.with(|own| own.replace(Some(cx.waker().clone())));
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        set_blocking_hook(None);
        assert_eq!((woken, polls), (Some(()), 2));
    });
}
