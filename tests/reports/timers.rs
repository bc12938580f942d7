//! Timers whose wakers use other timers, and time-outs that fire at the same time as another event.

use crate::helpers::iterables::*;
use crate::{LONG, MILLI, poll};
use offthread::{
    JoinError, LoopHandle, Sleep, TimerHandle, block_on, oneshot, sleep, sleep_until, spawn, spsc, timeout, yield_now,
};
use std::future::{pending, ready};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};
use std::{mem, thread};

/// tokio 3229, ice 6022: forbids that a timer is used after the wake-up of another timer with the same deadline has
/// dropped it.
#[test]
fn a_wake_up_may_drop_the_other_timers_of_its_deadline() {
    #[derive(Default)]
    struct Drops {
        sleeps: Mutex<Vec<Sleep>>,
        wakes: AtomicUsize,
    }
    impl Wake for Drops {
        fn wake(self: Arc<Self>) {
            self.wakes.fetch_add(1, SeqCst);
            let sleeps = mem::take(&mut *self.sleeps.lock().unwrap());
            drop(sleeps);
        }
    }
    /// Forty sleeps with one deadline. The waker of every fourth sleep drops all of them.
    fn arm() -> (Arc<Drops>, Witness) {
        let (drops, witness) = (Arc::<Drops>::default(), Witness::default());
        let deadline = Instant::now() + 50 * MILLI;
        let wakers = [witness.waker(), drops.clone().into(), witness.waker(), witness.waker()];
        let mut sleeps: Vec<_> = (0..40).map(|_| sleep_until(deadline)).collect();
        for (sleep, waker) in sleeps.iter_mut().zip(wakers.iter().cycle()) {
            let _ = poll(sleep, waker);
        }
        *drops.sleeps.lock().unwrap() = sleeps;
        if Instant::now() >= deadline {
            // This thread was slow, and perhaps all sleeps were ready at once, so that no waker was registered.
            drops.clone().wake();
        }
        (drops, witness)
    }
    let _watchdog = watchdog();
    let (drops, witness) = arm();
    until("one sleep has woken its waker", || drops.wakes.load(SeqCst) > 0);
    block_on(async {
        let (drops, witness) = arm();
        while drops.wakes.load(SeqCst) == 0 {
            sleep(MILLI).await;
        }
        assert_eq!(witness.kept(), 0);
    });
    witness.wait_until_none_is_kept();
    let witness = Witness::default();
    let mut nap = sleep(MILLI);
    if witness.poll(&mut nap).is_pending() {
        witness.wait();
    }
}

/// tokio 3229: forbids that dropping a waker that owns the next sleep, whose waker owns the next one, and so on,
/// deadlocks or leaks a sleep.
#[test]
fn a_wakers_drop_may_drop_the_next_sleep() {
    struct Owns(#[expect(dead_code, reason = "the waker only owns the sleep")] Mutex<Option<Sleep>>, Arc<AtomicUsize>);
    impl Wake for Owns {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Owns {
        fn drop(&mut self) {
            self.1.fetch_add(1, SeqCst);
        }
    }
    /// The last of a hundred sleeps. The waker of each sleep owns the sleep before it.
    fn chain(deadline: Instant, dropped: &Arc<AtomicUsize>) -> Sleep {
        let mut last = None;
        for _ in 0..100 {
            let waker = Arc::new(Owns(Mutex::new(last), dropped.clone())).into();
            let mut next = sleep_until(deadline);
            let _ = poll(&mut next, &waker);
            last = Some(next);
        }
        last.unwrap()
    }
    fn check() {
        for delay in [LONG, 20 * MILLI] {
            let dropped = Arc::default();
            drop(chain(Instant::now() + delay, &dropped));
            // The timer thread may be about to drop wakers that it has woken.
            until("all have been dropped", || delay == LONG || dropped.load(SeqCst) == 100);
            assert_eq!(dropped.load(SeqCst), 100);
            let mut last = chain(Instant::now() + delay, &dropped);
            // Replaces the waker, unless the deadline has passed.
            let _ = poll(&mut last, Waker::noop());
            until("all have been dropped", || dropped.load(SeqCst) == 200);
        }
    }
    let _watchdog = watchdog();
    check();
    block_on(async { check() });
    let dropped = Arc::default();
    let mut last = chain(Instant::now() + 5 * MILLI, &dropped);
    until("all have been woken", || dropped.load(SeqCst) == 100);
    assert!(poll(&mut last, Waker::noop()).is_ready());
}

/// No report: forbids that a deadlock occurs, or that `cancel` returns true a second time, when a timer is cancelled
/// and its callback's `Drop` cancels the same timer again.
#[test]
fn a_callback_may_cancel_itself_as_it_is_dropped() {
    let _watchdog = watchdog();
    block_on(async {
        let own = Arc::new(OnceLock::<TimerHandle>::new());
        let (said, hears) = mpsc::channel();
        let inside = own.clone();
        let guard = on_drop(move || said.send(inside.get().map(TimerHandle::cancel)).unwrap());
        own.set(LoopHandle::current().call_later(LONG, move || drop(guard))).unwrap();
        assert!(own.get().unwrap().cancel());
        yield_now().await;
        assert_eq!(hears.try_recv(), Ok(Some(false)));
    });
}

/// cpython 86296, cpython 134471: forbids that a task is cancelled and goes on, because a time-out in it fires in the
/// same turn.
#[test]
fn a_cancelled_task_stays_cancelled_although_its_time_is_up() {
    let _watchdog = watchdog();
    for limit in [Duration::ZERO, MILLI] {
        block_on(async {
            let went_on = Arc::new(AtomicBool::new(false));
            let flag = went_on.clone();
            let task = spawn(async move {
                timeout(limit, pending::<()>()).await.unwrap_err();
                timeout(limit, pending::<()>()).await.unwrap_err();
                sleep(5 * MILLI).await;
                flag.store(true, SeqCst);
            });
            yield_now().await;
            // This blocks the loop. A time-out of a millisecond is over afterwards, but has not woken its task.
            thread::sleep(3 * MILLI);
            assert!(task.cancel());
            assert!(matches!(task.outcome().await, Err(JoinError::Cancelled)));
            sleep(10 * MILLI).await;
            assert!(!went_on.load(SeqCst));
        });
    }
}

/// cpython 86296: forbids that a time-out of zero hides a value that is ready at the first poll.
#[test]
fn a_ready_value_takes_precedence_over_a_time_out_of_zero() {
    let _watchdog = watchdog();
    let (mut sender, mut receiver) = spsc::channel(1);
    sender.try_send(1).unwrap();
    assert_eq!(block_on(timeout(Duration::ZERO, receiver.recv())), Ok(Some(1)));
    assert_eq!(block_on(timeout(Duration::MAX, timeout(Duration::ZERO, ready(2)))), Ok(Ok(2)));
    let (sender, receiver) = oneshot::channel();
    sender.send(3).unwrap();
    assert_eq!(block_on(timeout(Duration::ZERO, receiver)), Ok(Ok(3)));
}
