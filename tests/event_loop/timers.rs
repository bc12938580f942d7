//! The event loop's timers: `call_later`, and `sleep` in tasks. `time.rs` tests what `sleep` and `timeout` promise
//! under any executor.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]
#![allow(clippy::async_yields_async, reason = "a test often returns a handle from its future")]
#![allow(clippy::no_effect_underscore_binding, reason = "a captured value is dropped with its closure")]

use crate::helpers::event_loop::*;
use offthread::{
    EventLoop, LoopHandle, Sleep, TimerHandle, block_on, oneshot, sleep, sleep_until, spawn, timeout, yield_now,
};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Durations that may overflow when they are added to an `Instant`.
const WITHOUT_END: [Duration; 5] = [
    Duration::MAX,
    Duration::from_secs(u64::MAX),
    Duration::from_secs(u64::MAX / 2),
    Duration::from_millis(u64::MAX),
    Duration::from_nanos(u64::MAX),
];

/// A waker that counts its wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<F: Future + Unpin>(future: &mut F, wakes: &Arc<Wakes>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(wakes))))
}

/// Adds a callback that sends the time and the thread of its call. Returns the timer's handle and the receiver.
fn call_later(handle: &LoopHandle, delay: Duration) -> (TimerHandle, mpsc::Receiver<(Instant, thread::ThreadId)>) {
    let (sender, called) = mpsc::channel();
    let timer = handle.call_later(delay, move || sender.send((Instant::now(), thread::current().id())).unwrap());
    (timer, called)
}

// --- call_later -----------------------------------------------------------------------------------------------------

/// A callback does not run early, on another thread, or inside `call_later`.
#[test]
fn a_call_is_never_early() {
    let _watchdog = watchdog();
    block_on(async {
        for micros in [0, 1, 10, 500, 1000, 1234, 5000] {
            for from_elsewhere in [false, true] {
                let delay = Duration::from_micros(micros);
                let handle = LoopHandle::current();
                let start = Instant::now();
                let (_timer, called) = if from_elsewhere {
                    elsewhere(move || call_later(&handle, delay)).await
                } else {
                    let later = call_later(&handle, delay);
                    assert!(later.1.try_recv().is_err(), "the callback ran inside `call_later`");
                    later
                };
                let (at, thread) = soon(&called).await;
                assert!(at >= start + delay, "{:?} for {delay:?}", at - start);
                assert_eq!(thread, thread::current().id());
            }
        }
    });
}

/// No sleep in a task ends early, although others end at about the same time.
#[test]
fn ten_thousand_sleeps_are_never_early() {
    let _watchdog = watchdog();
    block_on(async {
        let start = Instant::now();
        let tasks: Vec<_> = (0..10_000_u32)
            .map(|number| {
                // In a scattered order, and many with the same deadline.
                let delay = Duration::from_micros(u64::from(number * 7919 % 10_000 / 10 * 50));
                spawn(async move {
                    sleep(delay).await;
                    assert!(start.elapsed() >= delay, "too early");
                    number
                })
            })
            .collect();
        for (number, task) in (0..).zip(tasks) {
            if number % 3 == 0 { drop(task) } else { assert_eq!(task.await, number) }
        }
    });
}

/// Each pending sleep is polled once, and is dropped with its loop.
#[test]
fn ten_thousand_pending_sleeps_are_polled_once() {
    let _watchdog = watchdog();
    let living = Living::default();
    block_on(async {
        let polls = Arc::new(AtomicUsize::new(0));
        for number in 0..10_000 {
            let (value, polls) = (living.one(), Arc::clone(&polls));
            let mut sleep = sleep(LONG + Duration::from_micros(number * 7919 % 10_000));
            spawn(poll_fn(move |cx| {
                let _value = &value;
                polls.fetch_add(1, Ordering::SeqCst);
                Pin::new(&mut sleep).poll(cx)
            }))
            .detach();
        }
        for _ in 0..20 {
            sleep(MILLI).await;
        }
        assert_eq!((living.count(), polls.load(Ordering::SeqCst)), (10_000, 10_000));
    });
    assert_eq!(living.count(), 0);
}

/// If `cancel` returns true, which it does once, the callback is dropped without a call.
#[test]
fn a_cancelled_call_is_never_made() {
    let _watchdog = watchdog();
    block_on(async {
        let handle = LoopHandle::current();
        let calls = Arc::new(AtomicUsize::new(0));
        for from_elsewhere in [false, true] {
            for delay in [Duration::ZERO, MILLI, LONG, Duration::MAX] {
                let (count, (value, dropped)) = (Arc::clone(&calls), traced());
                let timer = handle.call_later(delay, move || {
                    let _value = value;
                    count.fetch_add(1, Ordering::SeqCst);
                });
                // The loop has not run in between.
                let cancel = || (timer.cancel(), timer.cancel());
                assert_eq!(if from_elsewhere { meanwhile(cancel) } else { cancel() }, (true, false));
                soon(&dropped).await;
                assert!(!timer.cancel());
            }
        }
        sleep(5 * MILLI).await;
        assert_eq!(calls.load(Ordering::SeqCst), 0, "a cancelled callback ran");
    });
}

/// `cancel` returns false after the callback has run.
#[test]
fn a_timer_that_has_fired_cannot_be_cancelled() {
    let _watchdog = watchdog();
    block_on(async {
        for delay in [Duration::ZERO, MILLI] {
            let (timer, called) = call_later(&LoopHandle::current(), delay);
            soon(&called).await;
            assert!(!timer.cancel());
            assert!(!elsewhere(move || timer.cancel()).await);
        }
        // Also inside the callback itself.
        let (sender, receiver) = oneshot::channel();
        let (give, timer) = mpsc::channel::<TimerHandle>();
        give.send(LoopHandle::current().call_later(MILLI, move || {
            sender.send(timer.recv().unwrap().cancel()).unwrap();
        }))
        .unwrap();
        assert_eq!(receiver.await, Ok(false));
    });
}

/// A timer is cancelled just as it is due: either `cancel` returns true and the callback does not run, or false and it
/// runs.
#[test]
fn a_timer_cancelled_as_it_is_due_fires_or_is_cancelled() {
    let _watchdog = watchdog();
    block_on(async {
        for round in 0..100_u32 {
            let (timer, called) = call_later(&LoopHandle::current(), Duration::from_micros(200));
            let start = Instant::now();
            let cancelled = elsewhere(move || {
                while start.elapsed() < Duration::from_micros(150) + round * Duration::from_micros(1) {
                    std::hint::spin_loop();
                }
                timer.cancel()
            })
            .await;
            if cancelled {
                turns().await;
                assert!(called.try_recv().is_err());
            } else {
                soon(&called).await;
            }
        }
    });
}

/// Dropping the handle does not cancel the callback.
#[test]
fn a_call_needs_no_handle() {
    let _watchdog = watchdog();
    block_on(async {
        let (timer, called) = call_later(&LoopHandle::current(), 2 * MILLI);
        drop(timer);
        soon(&called).await;
    });
}

/// A callback that panics stops neither the loop, nor callbacks and sleeps that are due at the same time.
#[test]
fn a_call_may_panic() {
    let _watchdog = watchdog();
    block_on(async {
        let handle = LoopHandle::current();
        let (sender, order) = mpsc::channel();
        for number in 0..6 {
            let sender = sender.clone();
            handle.call_later(MILLI, move || {
                sender.send(number).unwrap();
                if number % 2 == 0 {
                    quiet_panic("in a call");
                }
            });
        }
        let sleeper = spawn(sleep(MILLI));
        let mut seen = Vec::new();
        while seen.len() < 6 {
            seen.push(soon(&order).await);
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        sleeper.await;
        sleep(MILLI).await;
    });
}

/// A callback may add and cancel other timers.
#[test]
fn a_call_may_use_the_timers() {
    let _watchdog = watchdog();
    block_on(async {
        let handle = LoopHandle::current();
        let (sender, receiver) = oneshot::channel();
        let (give, other) = mpsc::channel::<TimerHandle>();
        handle.call_later(MILLI, move || {
            assert!(other.recv().unwrap().cancel());
            let inner = LoopHandle::current();
            inner.clone().call_later(Duration::ZERO, move || {
                inner.call_later(MILLI, || sender.send("the third").unwrap());
            });
        });
        give.send(handle.call_later(LONG, || panic!("a cancelled callback ran"))).unwrap();
        assert_eq!(receiver.await, Ok("the third"));
    });
}

/// A callback that adds itself again with a delay of zero does not starve other code.
#[test]
fn a_call_that_calls_itself_starves_nobody() {
    fn again(count: Arc<AtomicUsize>) {
        LoopHandle::current().call_later(Duration::ZERO, || {
            count.fetch_add(1, Ordering::SeqCst);
            again(count);
        });
    }
    let _watchdog = watchdog();
    let count = Arc::new(AtomicUsize::new(0));
    block_on(async {
        again(Arc::clone(&count));
        until("the callback has run several times", || count.load(Ordering::SeqCst) > 10).await;
        sleep(MILLI).await;
        assert_eq!(spawn(async { 1 }).await, 1);
    });
    assert_eq!(Arc::strong_count(&count), 1);
}

/// An endless delay neither overflows nor ends, and does not delay other timers.
#[test]
fn delays_without_end_never_end() {
    let _watchdog = watchdog();
    block_on(async {
        let handle = LoopHandle::current();
        for delay in WITHOUT_END {
            let timer = handle.call_later(delay, || panic!("never means never"));
            let other = handle.clone();
            let from_elsewhere = meanwhile(move || other.call_later(delay, || panic!("never means never")));
            let sleeper = spawn(sleep(delay));
            sleep(MILLI).await;
            assert!(timeout(MILLI, sleep(delay)).await.is_err());
            assert_eq!(timeout(delay, async { 1 }).await, Ok(1));
            assert!(!sleeper.is_finished());
            assert!(timer.cancel() && sleeper.cancel());
            assert!(from_elsewhere.cancel());
        }
    });
}

// --- the sleeping loop ----------------------------------------------------------------------------------------------

/// An earlier timer of another thread wakes a loop that sleeps until a later deadline.
#[test]
fn an_earlier_timer_wakes_the_loop() {
    let _watchdog = watchdog();
    block_on(async {
        let handle = LoopHandle::current();
        handle.call_later(LONG, || ());
        spawn(sleep(LONG)).detach();
        for _ in 0..20 {
            let handle = handle.clone();
            let (sender, receiver) = oneshot::channel();
            let other = thread::spawn(move || {
                handle.call_later(Duration::from_micros(500), || sender.send(()).unwrap());
            });
            // Nothing else wakes the loop.
            receiver.await.unwrap();
            other.join().unwrap();
        }
    });
}

/// A task that is always ready does not starve timers.
#[test]
fn a_busy_loop_fires_its_timers() {
    let _watchdog = watchdog();
    block_on(async {
        let busy = spawn(async {
            loop {
                yield_now().await;
            }
        });
        let start = Instant::now();
        let (_timer, called) = call_later(&LoopHandle::current(), 10 * MILLI);
        let sleeper = spawn(async {
            sleep(10 * MILLI).await;
            Instant::now()
        });
        assert!(timeout(10 * MILLI, pending::<()>()).await.is_err());
        let in_time = start + Duration::from_secs(10);
        assert!(soon(&called).await.0 < in_time && sleeper.await < in_time);
        drop(busy);
    });
    // Also with a main future that is always ready.
    let mut timer = None;
    let called = Arc::new(AtomicUsize::new(0));
    block_on(poll_fn(|cx| {
        timer.get_or_insert_with(|| {
            let called = Arc::clone(&called);
            LoopHandle::current().call_later(10 * MILLI, move || called.store(1, Ordering::SeqCst))
        });
        cx.waker().wake_by_ref();
        if called.load(Ordering::SeqCst) == 1 { Poll::Ready(()) } else { Poll::Pending }
    }));
}

/// A timer that is due between two `block_on` calls fires in the next call.
#[test]
fn timers_live_on_until_the_next_call() {
    let _watchdog = watchdog();
    let mut event_loop = EventLoop::new();
    let handle = event_loop.handle();
    // The call ends with the first poll of the main future, so neither timer can fire in this call.
    let (timer, called, task) = event_loop.block_on(async {
        let (timer, called) = call_later(&handle, 2 * MILLI);
        (timer, called, spawn(sleep(2 * MILLI)))
    });
    // Lets the deadlines pass.
    thread::sleep(5 * MILLI);
    assert!(called.try_recv().is_err() && !task.is_finished());
    let before = Instant::now();
    event_loop.block_on(async {
        task.await;
        assert!(soon(&called).await.0 >= before);
    });
    assert!(!timer.cancel());
}

// --- sleeps that move -----------------------------------------------------------------------------------------------

/// A sleep that began on one loop, or without a loop, can end on any other loop or thread.
#[test]
fn a_sleep_may_move_between_loops() {
    fn begin(duration: Duration) -> Sleep {
        let mut begun = sleep(duration);
        let _ = poll(&mut begun, &Arc::default());
        begun
    }
    let _watchdog = watchdog();
    let start = Instant::now();
    let mut first = EventLoop::new();
    // The sleep's loop is not running.
    let begun = first.block_on(async { begin(10 * MILLI) });
    block_on(begun);
    // The sleep's loop has ended.
    let begun = block_on(async { begin(10 * MILLI) });
    thread::spawn(move || block_on(async { spawn(begun).await })).join().unwrap();
    // The sleep began without a loop.
    let begun = begin(10 * MILLI);
    first.block_on(begun);
    // Begun here, and awaited on another loop, while this loop runs.
    first.block_on(async {
        let begun = begin(10 * MILLI);
        elsewhere(move || block_on(begun)).await;
    });
    // Begun on another loop, and awaited here.
    let begun = first.block_on(async { elsewhere(|| block_on(async { begin(10 * MILLI) })).await });
    first.block_on(begun);
    assert!(start.elapsed() >= 50 * MILLI);
}

/// A sleep may outlive its loop. Then it neither uses the loop nor leaks its waker.
#[test]
fn a_sleep_may_outlive_its_loop() {
    let _watchdog = watchdog();
    let wakes: Arc<Wakes> = Arc::default();
    for delay in [MILLI, LONG, Duration::MAX] {
        let mut left = block_on(async {
            let mut begun = sleep(delay);
            let _ = poll(&mut begun, &wakes);
            begun
        });
        if delay > MILLI {
            assert!(poll(&mut left, &wakes).is_pending());
            let dropped = thread::spawn(move || drop(left));
            dropped.join().unwrap();
        } else {
            block_on(left);
        }
    }
    block_on(until("no waker is left", || Arc::strong_count(&wakes) == 1));
}

/// On a loop, the last waker of a sleep is woken, not the first. No other waker is kept, and none after the end.
#[test]
fn a_sleep_in_a_loop_keeps_the_last_waker() {
    let _watchdog = watchdog();
    block_on(async {
        let [first, second]: [Arc<Wakes>; 2] = Default::default();
        for delay in [LONG, Duration::MAX] {
            let mut long = sleep(delay);
            assert!(poll(&mut long, &first).is_pending());
            assert!(poll(&mut long, &second).is_pending());
            assert_eq!(Arc::strong_count(&first), 1);
            drop(long);
            assert_eq!(Arc::strong_count(&second), 1);
        }
        let mut short = sleep_until(Instant::now() + 20 * MILLI);
        // Begins again if the deadline passes before the second poll.
        while poll(&mut short, &first).is_ready() || poll(&mut short, &second).is_ready() {
            short = sleep_until(Instant::now() + 20 * MILLI);
        }
        until("the sleep has woken its waker", || second.0.load(Ordering::SeqCst) > 0).await;
        assert!(poll(&mut short, &second).is_ready());
        until("no waker is left", || Arc::strong_count(&second) == 1).await;
        assert_eq!((first.0.load(Ordering::SeqCst), Arc::strong_count(&first)), (0, 1));
    });
}

/// The timer of a dropped task does not wake the next task in the same slot.
#[test]
fn a_dropped_sleeper_wakes_nobody() {
    let _watchdog = watchdog();
    block_on(async {
        for _ in 0..10 {
            let sleeper = spawn(sleep(MILLI));
            turns().await;
            drop(sleeper);
            let probe = Probe::default();
            let task = spawn(probe.future());
            sleep(2 * MILLI).await;
            turns().await;
            assert_eq!(probe.polls(), 1);
            drop(task);
        }
    });
}
