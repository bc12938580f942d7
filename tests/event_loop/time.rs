//! `sleep`, `sleep_until` and `timeout`: they never end early, never overflow, and leave nothing behind.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]

use crate::helpers::common::{Witness, watchdog};
use offthread::{
    Elapsed, Job, Sleep, ThreadPool, block_on, gather, is_cancelled, oneshot, sleep, sleep_until, spsc, threaded,
    timeout,
};
use std::cell::Cell;
use std::error::Error;
use std::future::{Future, pending, poll_fn, ready};
use std::panic::{catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

// --- helpers --------------------------------------------------------------------------------------------------------

/// Polls a future once with a no-op waker, and drops it.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

const MILLI: Duration = Duration::from_millis(1);

/// Durations that may overflow when they are added to an `Instant`.
fn durations_without_end() -> [Duration; 7] {
    [
        Duration::MAX,
        Duration::MAX.checked_sub(Duration::from_nanos(1)).unwrap(),
        Duration::from_secs(u64::MAX),
        Duration::from_secs(u64::MAX / 2),
        Duration::from_secs(i64::MAX.unsigned_abs()),
        Duration::from_millis(u64::MAX),
        Duration::from_nanos(u64::MAX),
    ]
}

// --- sleep ----------------------------------------------------------------------------------------------------------

/// A timer never fires early.
#[test]
fn a_sleep_is_never_too_short() {
    let _watchdog = watchdog();
    for micros in [0, 1, 10, 100, 500, 1000, 1234, 5000, 20_000] {
        for _ in 0..5 {
            let duration = Duration::from_micros(micros);
            let start = Instant::now();
            block_on(sleep(duration));
            assert!(start.elapsed() >= duration, "{:?} for {duration:?}", start.elapsed());
            let deadline = Instant::now() + duration;
            block_on(sleep_until(deadline));
            assert!(Instant::now() >= deadline);
        }
    }
}

#[test]
fn a_deadline_of_the_past_is_ready() {
    let now = Instant::now();
    assert!(poll_once(sleep_until(now)).is_ready());
    if let Some(past) = now.checked_sub(MILLI) {
        assert!(poll_once(sleep_until(past)).is_ready());
    }
    block_on(sleep(Duration::ZERO));
}

/// A sleep only needs a waker, here one without an executor.
#[test]
fn a_sleep_wakes_the_waker_that_it_was_given() {
    let _watchdog = watchdog();
    let witness = Witness::default();
    let deadline = Instant::now() + 20 * MILLI;
    let mut sleep = sleep_until(deadline);
    if witness.poll(&mut sleep).is_pending() {
        witness.wait();
        assert!(Instant::now() >= deadline, "woken too early");
        assert!(witness.poll(&mut sleep).is_ready());
    }
    witness.wait_until_none_is_kept();
}

/// Outside a loop. The longer sleep begins first, so the earlier deadline must wake the timer thread.
#[test]
fn a_short_sleep_overtakes_a_long_one() {
    let _watchdog = watchdog();
    let witness = Witness::default();
    let mut long = sleep(Duration::from_secs(1000));
    let mut middle = sleep(Duration::from_secs(500));
    assert!(witness.poll(&mut long).is_pending());
    for _ in 0..20 {
        let (start, other) = (Instant::now(), Witness::default());
        let mut short = sleep(MILLI);
        if other.poll(&mut short).is_pending() {
            other.wait();
            assert!(other.poll(&mut short).is_ready());
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert!(witness.poll(&mut middle).is_pending());
    }
    assert_eq!(witness.wakes(), 0);
    assert!(witness.poll(&mut long).is_pending());
}

/// The wake-ups of many sleeps come in the order of their deadlines.
#[test]
fn sleeps_end_in_the_order_of_their_deadlines() {
    struct Named(u32, Mutex<mpsc::Sender<u32>>);
    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().send(self.0).unwrap();
        }
    }
    let _watchdog = watchdog();
    // Repeated with later deadlines if some had passed before all sleeps were polled.
    for lead in [20, 100, 500, 2500] {
        let (sender, woken) = mpsc::channel();
        let start = Instant::now() + lead * MILLI;
        let mut sleeps: Vec<_> = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
            .into_iter()
            .map(|number| (number, sleep_until(start + number * MILLI)))
            .collect();
        for (number, sleep) in &mut sleeps {
            let waker = Waker::from(Arc::new(Named(*number, Mutex::new(sender.clone()))));
            let _ = Pin::new(sleep).poll(&mut Context::from_waker(&waker));
        }
        if Instant::now() < start {
            let order: Vec<_> = woken.iter().take(sleeps.len()).collect();
            assert_eq!(order, (0..10).collect::<Vec<_>>());
            assert!(sleeps.into_iter().all(|(_, sleep)| poll_once(sleep).is_ready()));
            return;
        }
    }
    panic!("this machine is too busy for the test");
}

/// Ten thousand sleeps at once, on several threads, and none ends early.
#[test]
fn many_sleeps_are_never_too_short() {
    let _watchdog = watchdog();
    thread::scope(|scope| {
        for thread in 0..4_u32 {
            scope.spawn(move || {
                let start = Instant::now();
                let sleeps = (0..2500_u32).map(|number| {
                    // In a scattered order.
                    let duration = Duration::from_micros(u64::from(number * 7919 % 2500 * 8 + thread));
                    async move {
                        sleep(duration).await;
                        assert!(start.elapsed() >= duration, "too early");
                        number
                    }
                });
                assert!(block_on(gather(sleeps)).into_iter().eq(0..2500));
            });
        }
    });
}

/// Every duration may be `Duration::MAX`, which means never. The addition to the current time does not overflow.
#[test]
fn durations_without_end_never_end() {
    let _watchdog = watchdog();
    for duration in durations_without_end() {
        let witness = Witness::default();
        let mut endless = sleep(duration);
        assert!(witness.poll(&mut endless).is_pending());
        assert!(!format!("{endless:?}").is_empty());
        // Other sleeps still end.
        block_on(sleep(MILLI));
        assert!(witness.poll(&mut endless).is_pending());
        drop(endless);
        assert_eq!((witness.wakes(), witness.kept()), (0, 0));

        assert_eq!(block_on(timeout(duration, ready(1))), Ok(1));
        assert_eq!(block_on(timeout(duration, threaded(|| 2))), Ok(2));
        assert_eq!(block_on(timeout(MILLI, sleep(duration))), Err(Elapsed));
        assert_eq!(block_on(timeout(duration, timeout(MILLI, pending::<()>()))), Ok(Err(Elapsed)));

        let (mut sender, mut receiver) = spsc::channel(1);
        assert!(poll_once(receiver.recv_timeout(duration)).is_pending());
        assert_eq!(sender.send_blocking_timeout(3, duration), Ok(()));
        assert_eq!(block_on(receiver.recv_timeout(duration)), Ok(3));
        // The channel is full, and its receiver is slow.
        sender.try_send(4).unwrap();
        let other = thread::spawn(move || {
            block_on(sleep(MILLI));
            receiver.iter().collect::<Vec<_>>()
        });
        assert_eq!(sender.send_blocking_timeout(5, duration), Ok(()));
        drop(sender);
        assert_eq!(other.join().unwrap(), [4, 5]);
    }
}

#[test]
fn a_deadline_far_away_neither_fires_nor_panics() {
    let witness = Witness::default();
    for years in [1, 100, 200] {
        if let Some(deadline) = Instant::now().checked_add(Duration::from_secs(years * 31_557_600)) {
            let mut far = sleep_until(deadline);
            assert!(witness.poll(&mut far).is_pending());
        }
    }
    assert_eq!((witness.wakes(), witness.kept()), (0, 0));
}

/// The timer keeps no waker of a dropped sleep: the waker would keep a whole task alive.
#[test]
fn a_dropped_sleep_leaves_no_waker_behind() {
    let witness = Witness::default();
    for duration in [Duration::from_secs(10), Duration::from_secs(1000), Duration::MAX] {
        let mut dropped = sleep(duration);
        assert!(witness.poll(&mut dropped).is_pending());
        assert!(witness.kept() <= 1);
        drop(dropped);
        assert_eq!((witness.kept(), witness.wakes()), (0, 0), "{duration:?}");
        assert_eq!(block_on(timeout(duration, ready(1))), Ok(1));
        let mut timed = Box::pin(timeout(duration, pending::<()>()));
        assert!(witness.poll(&mut timed).is_pending());
        drop(timed);
        assert_eq!((witness.kept(), witness.wakes()), (0, 0), "timeout of {duration:?}");
    }
}

/// The last waker is woken, not the first, and earlier wakers are dropped at once.
#[test]
fn the_last_waker_is_woken() {
    let _watchdog = watchdog();
    let [first, second] = [(); 2].map(|()| Witness::default());
    let mut sleep = sleep(30 * MILLI);
    for witness in [&first, &second, &second] {
        if witness.poll(&mut sleep).is_ready() {
            // The system has not run this thread for a while, and the deadline has passed.
            return;
        }
        assert_eq!(witness.kept(), 1);
    }
    assert_eq!(first.kept(), 0);
    // Another thread waits for the wake-up, and owns the sleep meanwhile.
    let (mut sleep, second) = thread::spawn(move || {
        second.wait();
        (sleep, second)
    })
    .join()
    .unwrap();
    assert!(first.poll(&mut sleep).is_ready());
    assert_eq!(first.wakes(), 0);
    second.wait_until_none_is_kept();
    assert_eq!(first.kept(), 0);
}

/// A sleep that began on one thread can end on another.
#[test]
fn a_sleep_may_move() {
    let _watchdog = watchdog();
    let start = Instant::now();
    let mut moved: Sleep = sleep(10 * MILLI);
    let _ = Witness::default().poll(&mut moved);
    thread::spawn(move || block_on(moved)).join().unwrap();
    assert!(start.elapsed() >= 10 * MILLI);
}

/// A waker may use the timer when it is woken and when it is dropped: no lock is held meanwhile.
#[test]
fn a_waker_may_use_the_timer() {
    struct Sleeps(Mutex<Option<Sleep>>, Mutex<mpsc::Sender<&'static str>>);
    impl Sleeps {
        fn use_the_timer(&self, step: &'static str) {
            // Registers a new sleep, and drops the one before.
            let mut new = sleep(Duration::from_secs(1000));
            assert!(Pin::new(&mut new).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            drop(self.0.lock().unwrap().replace(new));
            self.1.lock().unwrap().send(step).unwrap();
        }
    }
    impl Wake for Sleeps {
        fn wake(self: Arc<Self>) {
            self.use_the_timer("woken");
        }
    }
    impl Drop for Sleeps {
        fn drop(&mut self) {
            self.use_the_timer("dropped");
        }
    }
    let _watchdog = watchdog();
    let (sender, steps) = mpsc::channel();
    let make = || Waker::from(Arc::new(Sleeps(Mutex::new(None), Mutex::new(sender.clone()))));
    // The waker is woken, then dropped.
    let waker = make();
    let mut short = sleep(20 * MILLI);
    if Pin::new(&mut short).poll(&mut Context::from_waker(&waker)).is_pending() {
        drop(waker);
        assert_eq!(steps.recv(), Ok("woken"));
        assert_eq!(steps.recv(), Ok("dropped"));
    }
    // The waker is replaced.
    let mut long = sleep(Duration::from_secs(1000));
    assert!(Pin::new(&mut long).poll(&mut Context::from_waker(&make())).is_pending());
    assert!(Pin::new(&mut long).poll(&mut Context::from_waker(&make())).is_pending());
    assert_eq!(steps.recv(), Ok("dropped"));
    // The waker is dropped with its sleep.
    drop(long);
    assert_eq!(steps.recv(), Ok("dropped"));
    block_on(sleep(MILLI));
}

// --- timeout --------------------------------------------------------------------------------------------------------

#[test]
fn a_future_that_ends_in_time_returns_its_output() {
    let _watchdog = watchdog();
    let long = Duration::from_secs(1000);
    assert_eq!(block_on(timeout(long, ready("at once"))), Ok("at once"));
    assert_eq!(block_on(timeout(long, threaded(|| "from a thread"))), Ok("from a thread"));
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || sender.send("through a channel"));
    assert_eq!(block_on(timeout(long, receiver)), Ok(Ok("through a channel")));
    // The future may own values that are not `Send`, and borrow.
    let local = Rc::new(Cell::new(1));
    let borrowed = &local;
    let timed = timeout(long, async {
        sleep(MILLI).await;
        borrowed.set(2);
        Rc::clone(borrowed)
    });
    assert_eq!(block_on(timed).map(|local| local.get()), Ok(2));
}

#[test]
fn a_late_future_returns_elapsed() {
    let _watchdog = watchdog();
    for duration in [Duration::ZERO, MILLI, 10 * MILLI] {
        let start = Instant::now();
        assert_eq!(block_on(timeout(duration, pending::<()>())), Err(Elapsed));
        assert!(start.elapsed() >= duration, "too early");
    }
    let boxed: Box<dyn Error + Send + Sync> = Elapsed.into();
    assert!(!boxed.to_string().is_empty());
    assert!(!format!("{Elapsed:?}").is_empty());
}

/// Either the inner or the outer time-out is the shorter one.
#[test]
fn timeouts_nest() {
    let _watchdog = watchdog();
    let long = Duration::from_secs(1000);
    assert_eq!(block_on(timeout(long, timeout(MILLI, pending::<()>()))), Ok(Err(Elapsed)));
    assert_eq!(block_on(timeout(MILLI, timeout(long, pending::<()>()))), Err(Elapsed));
    assert_eq!(block_on(timeout(long, timeout(long, ready(1)))), Ok(Ok(1)));
}

/// The future in a `timeout` is polled whenever it is woken.
#[test]
fn a_future_in_a_timeout_is_polled_when_it_is_woken() {
    let _watchdog = watchdog();
    let mut polls = 0;
    let future = poll_fn(|cx| {
        polls += 1;
        if polls == 100 {
            return Poll::Ready("done");
        }
        let waker = cx.waker().clone();
        if polls % 10 == 0 {
            thread::spawn(move || waker.wake());
        } else {
            waker.wake();
        }
        Poll::Pending
    });
    assert_eq!(block_on(timeout(Duration::from_secs(1000), future)), Ok("done"));
    assert_eq!(polls, 100);
}

/// At the time-out the future is dropped, and does not go on running.
#[test]
fn a_late_future_is_dropped() {
    struct Tells(mpsc::Sender<()>);
    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let _watchdog = watchdog();
    let (sender, dropped) = mpsc::channel();
    let tells = Tells(sender);
    block_on(async {
        let result = timeout(MILLI, async move {
            let _tells = tells;
            pending::<()>().await;
        })
        .await;
        assert_eq!((result, dropped.try_recv()), (Err(Elapsed), Ok(())));
    });
    // When the future ends in time, the timer is dropped.
    let witness = Witness::default();
    let (sender, receiver) = oneshot::channel();
    let mut timed = Box::pin(timeout(Duration::from_secs(1000), receiver));
    assert!(witness.poll(&mut timed).is_pending());
    sender.send(1).unwrap();
    assert_eq!(witness.poll(&mut timed), Poll::Ready(Ok(Ok(1))));
    assert_eq!(witness.kept(), 0, "the timer is kept");
    drop(timed);
}

/// The same for jobs: at the time-out a job is cancelled.
#[test]
fn a_late_job_is_cancelled() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (start, started) = mpsc::channel();
    let (report, reported) = mpsc::channel();
    let late = pool.spawn(move || {
        start.send(()).unwrap();
        while !is_cancelled() {
            thread::yield_now();
        }
        report.send("cancelled").unwrap();
    });
    started.recv().unwrap();
    assert_eq!(block_on(timeout(MILLI, late)), Err(Elapsed));
    assert_eq!(reported.recv(), Ok("cancelled"));
    let on_time: Job<i32> = pool.spawn(|| 1);
    assert_eq!(block_on(timeout(Duration::from_secs(1000), on_time)), Ok(1));
}

/// `recv_timeout` without an executor ends when its timer wakes the waker.
#[test]
fn a_receive_with_a_limit_wakes_its_task() {
    let _watchdog = watchdog();
    let witness = Witness::default();
    let (sender, mut receiver) = spsc::channel::<i32>(1);
    let start = Instant::now();
    {
        let mut limited = Box::pin(receiver.recv_timeout(20 * MILLI));
        if witness.poll(&mut limited).is_pending() {
            witness.wait();
            assert!(start.elapsed() >= 20 * MILLI, "woken too early");
            assert_eq!(witness.poll(&mut limited), Poll::Ready(Err(spsc::RecvTimeoutError::Timeout)));
        }
    }
    witness.wait_until_none_is_kept();
    drop(sender);
}

#[test]
fn a_panic_of_the_future_comes_out_of_the_timeout() {
    let _watchdog = watchdog();
    let panic = catch_unwind(|| {
        block_on(timeout(Duration::from_secs(1000), async {
            sleep(MILLI).await;
            resume_unwind(Box::new("inside"));
        }))
    })
    .map(|result: Result<(), Elapsed>| result)
    .unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"inside"));
    block_on(sleep(MILLI));
}
