//! `block_on` and every other call that blocks a thread: no wake-up is lost, calls nest, and a wait costs few
//! allocations and little CPU time.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]

use crate::helpers::common::watchdog;
use offthread::{ThreadPool, block_on, oneshot, spsc, threaded};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::future::{Future, IntoFuture, Ready, poll_fn, ready};
use std::panic::{catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

// --- helpers --------------------------------------------------------------------------------------------------------

/// The system's allocator, with a count of each thread's allocations.
struct Counting;

thread_local! {
    /// How often this thread has allocated, and how many bytes.
    static ALLOCATED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: usize) {
    // Nobody reads the count of a thread whose thread-locals have been destroyed.
    let _ = ALLOCATED.try_with(|counter| {
        let (times, sum) = counter.get();
        counter.set((times + 1, sum + bytes));
    });
}

// SAFETY: each call is forwarded to `System` unchanged. The counter needs no destructor, so counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which `System` shares.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` comes from `System`, with the same layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: `pointer` comes from `System`, with the same layout; the caller guarantees that `new_size` is valid.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The result of `code`, and the number and bytes of its allocations on this thread.
fn counted<R>(code: impl FnOnce() -> R) -> (R, usize, usize) {
    let (times, bytes) = ALLOCATED.get();
    let result = code();
    let (times_after, bytes_after) = ALLOCATED.get();
    (result, times_after - times, bytes_after - bytes)
}

/// How often `code` allocates on this thread.
fn allocations(code: impl FnOnce()) -> usize {
    counted(code).1
}

/// A future that wakes itself `times` times before it is ready.
fn wakes_itself(times: usize) -> impl Future<Output = usize> {
    let mut polls = 0;
    poll_fn(move |cx| {
        polls += 1;
        if polls > times {
            return Poll::Ready(polls);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Consumes this thread's park token, if there is one, without waiting.
fn consume_the_park_token() {
    thread::current().unpark();
    thread::park();
}

// --- results --------------------------------------------------------------------------------------------------------

#[test]
fn block_on_returns_the_output_of_a_ready_future() {
    assert_eq!(block_on(ready(1)), 1);
    assert_eq!(block_on(async { "a value" }), "a value");
    assert!(block_on(async { Rc::new(1) }).eq(&Rc::new(1)));
}

#[test]
fn a_future_may_borrow_and_stay_on_its_thread() {
    let _watchdog = watchdog();
    let text = String::from("borrowed");
    let seen = RefCell::new(Vec::new());
    let local = Rc::new(Cell::new(0));
    let length = block_on(async {
        let inside = Rc::clone(&local);
        wakes_itself(1).await;
        inside.set(inside.get() + 1);
        seen.borrow_mut().push(text.as_str());
        text.len()
    });
    assert_eq!((length, local.get(), seen.into_inner()), (8, 1, vec!["borrowed"]));
}

#[test]
fn any_into_future_is_accepted() {
    struct Later(i32);
    impl IntoFuture for Later {
        type Output = i32;
        type IntoFuture = Ready<i32>;
        fn into_future(self) -> Ready<i32> {
            ready(self.0)
        }
    }
    assert_eq!(block_on(Later(3)), 3);
    assert_eq!(block_on(threaded(|| 4)), 4);
}

/// `block_on` polls on the calling thread, once for each wake-up.
#[test]
fn each_wake_up_is_one_poll() {
    let _watchdog = watchdog();
    let caller = thread::current().id();
    for times in [0, 1, 2, 1000] {
        let mut polls = 0;
        let output = block_on(async {
            let mut inner = pin!(wakes_itself(times));
            poll_fn(|cx| {
                assert_eq!(thread::current().id(), caller);
                polls += 1;
                inner.as_mut().poll(cx)
            })
            .await
        });
        assert_eq!((output, polls), (times + 1, times + 1));
    }
}

#[test]
fn a_panic_comes_out_and_the_thread_goes_on() {
    let _watchdog = watchdog();
    for round in 0..3 {
        let panic = catch_unwind(|| {
            block_on(async {
                wakes_itself(round).await;
                resume_unwind(Box::new(round));
            });
        })
        .unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&round));
        assert_eq!(block_on(wakes_itself(2)), 3);
        let (sender, receiver) = oneshot::channel();
        thread::spawn(move || sender.send(round));
        assert_eq!(receiver.recv_blocking(), Ok(round));
    }
}

// --- waking ---------------------------------------------------------------------------------------------------------

#[test]
fn a_wake_up_from_another_thread_is_not_lost() {
    let _watchdog = watchdog();
    let (wakers, take) = mpsc::channel::<(Waker, Arc<AtomicBool>)>();
    let other = thread::spawn(move || {
        for (number, (waker, done)) in take.into_iter().enumerate() {
            done.store(true, Ordering::SeqCst);
            // Every way to wake.
            match number % 3 {
                0 => waker.wake(),
                1 => waker.wake_by_ref(),
                _ => {
                    let again = waker.clone();
                    drop(waker);
                    again.wake();
                }
            }
        }
    });
    for _ in 0..3000 {
        let done = Arc::new(AtomicBool::new(false));
        let mut given = false;
        block_on(poll_fn(|cx| {
            if done.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            if !given {
                given = true;
                wakers.send((cx.waker().clone(), Arc::clone(&done))).unwrap();
            }
            Poll::Pending
        }));
    }
    drop(wakers);
    other.join().unwrap();
}

/// Many threads wake at once, again and again; the last wake-up is not lost.
#[test]
fn the_last_of_many_wake_ups_is_not_lost() {
    let _watchdog = watchdog();
    let count = AtomicUsize::new(0);
    let (threads, times) = (4, 500);
    let mut started = false;
    thread::scope(|scope| {
        block_on(poll_fn(|cx| {
            if !started {
                started = true;
                for _ in 0..threads {
                    let waker = cx.waker().clone();
                    let count = &count;
                    scope.spawn(move || {
                        for _ in 0..times {
                            count.fetch_add(1, Ordering::SeqCst);
                            waker.wake_by_ref();
                        }
                    });
                }
            }
            if count.load(Ordering::SeqCst) == threads * times { Poll::Ready(()) } else { Poll::Pending }
        }));
    });
}

/// A wake-up by a waker of an earlier `block_on` does no harm, and does not replace a real wake-up.
#[test]
fn a_late_wake_up_is_harmless() {
    let _watchdog = watchdog();
    let mut wakers = Vec::new();
    for round in 0..100 {
        let (sender, receiver) = oneshot::channel();
        let mut receiver = pin!(receiver);
        let mut sender = Some(sender);
        let result = block_on(poll_fn(|cx| {
            // Wakes the old wakers at the first poll only: after that, the future needs the real wake-up.
            if let Some(sender) = sender.take() {
                wakers.iter().for_each(Waker::wake_by_ref);
                wakers.truncate(5);
                wakers.push(cx.waker().clone());
                thread::spawn(move || sender.send(round));
            }
            receiver.as_mut().poll(cx)
        }));
        assert_eq!(result, Ok(round));
        wakers.iter().for_each(Waker::wake_by_ref);
    }
}

/// A waker may be used after its thread has ended.
#[test]
fn a_waker_may_outlive_its_thread() {
    let _watchdog = watchdog();
    let take = |cx: &mut Context<'_>| Poll::Ready(cx.waker().clone());
    let waker = thread::spawn(move || block_on(poll_fn(take))).join().unwrap();
    waker.wake_by_ref();
    let again = waker.clone();
    again.wake();
    drop(waker);
}

/// An `unpark` by other code is not taken for a wake-up.
#[test]
fn foreign_unparks_are_ignored() {
    let _watchdog = watchdog();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (waiting, stop) = (thread::current(), &stop);
        scope.spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                waiting.unpark();
                thread::yield_now();
            }
        });
        for round in 0..200 {
            let (sender, receiver) = oneshot::channel();
            scope.spawn(move || sender.send(round));
            if round % 2 == 0 {
                let (mut receiver, mut polls) = (receiver, 0);
                let result = block_on(poll_fn(|cx| {
                    polls += 1;
                    Pin::new(&mut receiver).poll(cx)
                }));
                assert_eq!(result, Ok(round));
                assert!(polls <= 2, "polled {polls} times");
            } else {
                assert_eq!(receiver.recv_blocking(), Ok(round));
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
}

/// Code in the poll may consume the park token, and the wake-up that came with the token is not lost.
#[test]
fn a_poll_may_consume_the_park_token() {
    let _watchdog = watchdog();
    for round in 0..50 {
        let mut polls = 0;
        block_on(poll_fn(|cx| {
            polls += 1;
            if polls == 5 {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            if round % 2 == 0 {
                // Woken before the token is consumed.
                thread::spawn(move || waker.wake()).join().unwrap();
            } else {
                waker.wake();
            }
            consume_the_park_token();
            Poll::Pending
        }));
    }
}

/// The same as it occurs in programs: a poll blocks in std, which consumes the park token of a wake-up.
#[test]
fn blocking_std_calls_may_consume_the_park_token() {
    let _watchdog = watchdog();
    for _ in 0..50 {
        let mut polls = 0;
        block_on(poll_fn(|cx| {
            polls += 1;
            if polls == 3 {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            let (woken, wait) = mpsc::sync_channel(0);
            let other = thread::spawn(move || {
                waker.wake();
                woken.send(()).unwrap();
            });
            // These calls wait by parking this thread.
            wait.recv().unwrap();
            thread::scope(|scope| scope.spawn(|| ()).join().unwrap());
            other.join().unwrap();
            Poll::Pending
        }));
    }
}

/// A park token from before the call is not taken for a wake-up.
#[test]
fn a_park_token_from_before_is_no_wake_up() {
    let _watchdog = watchdog();
    let mut polls = 0;
    let (sender, receiver) = oneshot::channel();
    let mut receiver = pin!(receiver);
    let (look, looked) = mpsc::channel();
    let other = thread::spawn(move || {
        looked.recv().unwrap();
        sender.send(1).unwrap();
    });
    thread::current().unpark();
    let result = block_on(poll_fn(|cx| {
        polls += 1;
        let polled = receiver.as_mut().poll(cx);
        let _ = look.send(());
        polled
    }));
    assert_eq!(result, Ok(1));
    assert!(polls <= 2, "polled {polls} times for one wake-up");
    other.join().unwrap();
}

// --- nesting --------------------------------------------------------------------------------------------------------

/// Blocking calls inside a poll work, although they block everything else on the thread.
#[test]
fn blocking_calls_work_inside_a_poll() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let sum = block_on(async {
        let (sender, receiver) = oneshot::channel();
        let (mut to, mut from) = spsc::channel(1);
        let first = pool.spawn(move || sender.send(1));
        let second = pool.spawn(move || {
            to.send_blocking(2).unwrap();
            to.send_blocking(3).unwrap();
        });
        let mut sum = receiver.recv_blocking().unwrap();
        sum += from.iter().sum::<i32>();
        wakes_itself(3).await;
        first.wait().unwrap();
        second.wait();
        sum + pool.spawn(|| 4).await + pool.spawn(|| 5).wait()
    });
    assert_eq!(sum, 15);
}

/// A wake-up of the outer future is not lost when it comes during an inner blocking call.
#[test]
fn an_outer_wake_up_during_an_inner_wait_is_kept() {
    let _watchdog = watchdog();
    for round in 0..500 {
        let mut polls = 0;
        block_on(poll_fn(|cx| {
            polls += 1;
            if polls > 1 {
                return Poll::Ready(());
            }
            let outer = cx.waker().clone();
            let (sender, receiver) = oneshot::channel();
            thread::spawn(move || {
                outer.wake();
                sender.send(round).unwrap();
            });
            assert_eq!(receiver.recv_blocking(), Ok(round));
            Poll::Pending
        }));
        assert_eq!(polls, 2);
    }
}

/// A wake-up of the inner call does not wake the outer future.
#[test]
fn an_inner_wake_up_does_not_wake_the_outer_future() {
    let _watchdog = watchdog();
    for round in 0..100 {
        let (to_outer, outer) = oneshot::channel();
        let mut outer = pin!(outer);
        let (mut to_outer, mut polls) = (Some(to_outer), 0);
        let result = block_on(poll_fn(|cx| {
            polls += 1;
            let polled = outer.as_mut().poll(cx);
            let (sender, receiver) = oneshot::channel();
            let to_outer = to_outer.take();
            let other = thread::spawn(move || {
                sender.send(round).unwrap();
                to_outer
            });
            assert_eq!(receiver.recv_blocking(), Ok(round));
            if let Some(to_outer) = other.join().unwrap() {
                thread::spawn(move || to_outer.send(round));
            }
            polled
        }));
        assert_eq!((result, polls), (Ok(round), 2));
    }
}

/// `block_on` is allowed in a job, on a thread of a pool.
#[test]
fn a_job_may_call_block_on() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(2);
    let inner = pool.clone();
    let job = pool.spawn(move || {
        let (sender, receiver) = oneshot::channel();
        let other = inner.spawn(move || sender.send(20).unwrap());
        let value = block_on(async {
            wakes_itself(2).await;
            receiver.await.unwrap()
        });
        other.wait();
        value + 1
    });
    assert_eq!(block_on(job), 21);
}

/// The `Drop` of the future may block.
#[test]
fn the_futures_drop_may_block() {
    struct Waits(Option<oneshot::Receiver<i32>>, Rc<Cell<i32>>);
    impl Future for Waits {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }
    impl Drop for Waits {
        fn drop(&mut self) {
            self.1.set(self.0.take().unwrap().recv_blocking().unwrap());
        }
    }
    let _watchdog = watchdog();
    let (sender, receiver) = oneshot::channel();
    let seen = Rc::new(Cell::new(0));
    let waits = Waits(Some(receiver), Rc::clone(&seen));
    thread::spawn(move || sender.send(5));
    block_on(waits);
    assert_eq!(seen.get(), 5);
}

/// A blocking call works in the destructor of a thread-local, even after the crate's own thread-locals were destroyed.
#[test]
fn blocking_calls_work_while_the_thread_ends() {
    struct Blocks(RefCell<Option<mpsc::Sender<usize>>>);
    impl Drop for Blocks {
        fn drop(&mut self) {
            let Some(report) = self.0.take() else { return };
            let (sender, receiver) = oneshot::channel();
            thread::spawn(move || sender.send(3));
            let received = receiver.recv_blocking().unwrap();
            report.send(received + block_on(ready(1)) + block_on(wakes_itself(1))).unwrap();
        }
    }
    thread_local! {
        static BLOCKS: Blocks = const { Blocks(RefCell::new(None)) };
    }
    let _watchdog = watchdog();
    // The order of first use decides the order of destruction.
    for used_before in [false, true] {
        let (report, reported) = mpsc::channel();
        let other = thread::spawn(move || {
            if used_before {
                block_on(wakes_itself(1));
            }
            BLOCKS.with(|blocks| *blocks.0.borrow_mut() = Some(report));
            if !used_before {
                block_on(wakes_itself(1));
            }
        });
        other.join().unwrap();
        assert_eq!(reported.recv(), Ok(6));
    }
}

/// Threads that block at the same time do not disturb each other.
#[test]
fn many_threads_may_block_at_once() {
    let _watchdog = watchdog();
    let threads = 8;
    let barrier = Barrier::new(threads);
    let ends: Vec<_> = (0..threads).map(|_| spsc::channel(1)).collect();
    let (mut senders, receivers): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    // A ring: each thread receives the number from the thread before it.
    senders.rotate_left(1);
    thread::scope(|scope| {
        for (place, (mut sender, mut receiver)) in senders.into_iter().zip(receivers).enumerate() {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                if place == 0 {
                    sender.send_blocking(0).unwrap();
                }
                for _ in 0..200 {
                    let number = if place % 2 == 0 { block_on(receiver.recv()) } else { receiver.recv_blocking() };
                    // In the last round the next thread may have ended.
                    let _ = sender.send_blocking(number.unwrap() + 1);
                }
            });
        }
    });
}

// --- costs ----------------------------------------------------------------------------------------------------------

/// A ready future costs no allocation, after the thread's first call.
#[test]
fn a_ready_future_costs_no_allocation() {
    assert_eq!(block_on(ready(5)), 5);
    for _ in 0..3 {
        assert_eq!(allocations(|| assert_eq!(block_on(ready(5)), 5)), 0);
    }
}

/// On each thread, only the first call at each depth of nesting allocates: it makes a parker, with its waker. In later
/// calls, a wait costs no allocation.
#[test]
fn a_waiting_future_costs_no_allocation_after_the_first_call_of_its_thread() {
    let _watchdog = watchdog();
    assert_eq!(block_on(wakes_itself(1)), 2);
    for _ in 0..10 {
        assert_eq!(allocations(|| assert_eq!(block_on(wakes_itself(10)), 11)), 0);
    }
}

/// The same for a thread that really sleeps, in each blocking call.
#[test]
fn blocking_costs_no_allocation_after_the_first_call_of_its_thread() {
    let _watchdog = watchdog();
    let rounds = 20;
    let (oneshots, requests) = mpsc::sync_channel::<oneshot::Sender<u32>>(0);
    let (mut to, mut other_from) = spsc::channel(1);
    let (mut other_to, mut from) = spsc::channel(1);
    let other = thread::spawn(move || {
        // Longer than a waiting thread yields, so that it sleeps.
        let pause = || thread::sleep(Duration::from_millis(1));
        for sender in requests {
            pause();
            sender.send(1).unwrap();
        }
        while let Some(number) = other_from.recv_blocking() {
            pause();
            other_to.send_blocking(number + 1).unwrap();
        }
    });
    assert_eq!(block_on(wakes_itself(1)), 2);
    for round in 0..rounds {
        let (sender, receiver) = oneshot::channel();
        oneshots.send(sender).unwrap();
        let received = || if round % 2 == 0 { receiver.recv_blocking() } else { block_on(receiver) };
        assert_eq!(allocations(|| assert_eq!(received(), Ok(1))), 0);
    }
    drop(oneshots);
    for round in 0..rounds {
        let mut there_and_back = || {
            match round % 3 {
                0 => to.send_blocking(round).unwrap(),
                1 => block_on(to.send(round)).unwrap(),
                _ => to.send_blocking_timeout(round, Duration::MAX).unwrap(),
            }
            if round % 2 == 0 { from.recv_blocking() } else { block_on(from.recv()) }
        };
        assert_eq!(allocations(|| assert_eq!(there_and_back(), Some(round + 1))), 0);
    }
    drop(to);
    other.join().unwrap();
}

/// The same for a call inside another call's poll, on a thread that has made such calls before.
#[test]
fn nested_blocking_costs_no_allocation() {
    let _watchdog = watchdog();
    let (mut to, mut other_from) = spsc::channel(1);
    let (mut other_to, mut from) = spsc::channel(1);
    let other = thread::spawn(move || {
        while let Some(number) = other_from.recv_blocking() {
            other_to.send_blocking(number + 1).unwrap();
        }
    });
    // The first call at each depth allocates: it makes a parker. So this code makes calls at each depth first.
    block_on(async {
        wakes_itself(1).await;
        let (mut full, _receiver) = spsc::channel(1);
        full.send_blocking(0).unwrap();
        assert!(full.send_blocking_timeout(0, Duration::from_millis(1)).is_err());
    });
    let mut there_and_back = |number| {
        block_on(async {
            wakes_itself(1).await;
            to.send_blocking(number).unwrap();
            assert_eq!(from.recv_blocking(), Some(number + 1));
            wakes_itself(1).await;
        });
    };
    there_and_back(0);
    for number in 1..20 {
        assert_eq!(allocations(|| there_and_back(number)), 0);
    }
    drop(to);
    other.join().unwrap();
}

/// A oneshot channel takes one allocation.
#[test]
fn a_oneshot_is_one_allocation() {
    let (mut ends, made, _) = counted(oneshot::channel::<[u64; 4]>);
    assert_eq!(made, 1);
    let used = allocations(|| {
        let (mut sender, receiver) = (ends.0, &mut ends.1);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(sender.closed()).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut *receiver).poll(&mut cx).is_pending());
        assert_eq!(sender.send([1; 4]), Ok(()));
        assert_eq!(receiver.try_recv(), Ok([1; 4]));
        receiver.close();
    });
    assert_eq!(used, 0);
}

/// The whole ring is allocated when the channel is made.
#[test]
fn a_channel_in_use_does_not_allocate() {
    let (mut sender, mut receiver) = spsc::channel(3);
    let used = allocations(|| {
        for number in 0..100 {
            for step in 0..3 {
                assert_eq!(sender.try_send(number + step), Ok(()));
            }
            assert!(sender.try_send(0).is_err());
            let mut cx = Context::from_waker(Waker::noop());
            assert!(pin!(sender.send(0)).poll(&mut cx).is_pending());
            for step in 0..3 {
                assert_eq!(receiver.try_recv(), Ok(number + step));
            }
            assert!(receiver.poll_recv(&mut cx).is_pending());
        }
    });
    assert_eq!(used, 0);
}

/// A job takes one allocation of at most 128 bytes, on both threads together, for every way to wait for it.
#[test]
fn a_job_is_one_allocation() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    // Starts the thread, and lets the queue grow to its largest size in this test.
    let warm_up = || {
        let (open, gate) = mpsc::channel();
        let blocker = pool.spawn(move || gate.recv().unwrap());
        let jobs: Vec<_> = (0..100).map(|number| pool.spawn(move || number)).collect();
        open.send(()).unwrap();
        blocker.wait();
        assert!(jobs.into_iter().map(offthread::Job::wait).eq(0..100));
    };
    (0..3).for_each(|_| warm_up());
    block_on(wakes_itself(1));

    for round in 0..20_u64 {
        let (job, made, bytes) = counted(|| pool.spawn(move || round));
        assert_eq!(made, 1);
        assert!(bytes <= 128, "a job takes {bytes} bytes");
        let waited = allocations(|| match round % 3 {
            0 => assert_eq!(job.wait(), round),
            1 => assert_eq!(block_on(job), round),
            _ => assert!(job.outcome().wait().is_ok_and(|result| result == round)),
        });
        assert_eq!(waited, 0);
        let (job, made, _) = counted(|| threaded(move || round).on(&pool).async_call());
        assert_eq!(made, 1, "with `threaded`");
        assert_eq!(job.wait(), round);
    }
    // The worker's side. A worker that goes idle shrinks the queue, so the count starts when it is idle.
    while pool.stats().idle == 0 {
        thread::yield_now();
    }
    let on_the_worker = || pool.spawn(|| ALLOCATED.get().0).wait();
    let before = on_the_worker();
    for number in 0..20 {
        assert_eq!(pool.spawn(move || number).wait(), number);
    }
    assert_eq!(on_the_worker(), before);
}

/// Neither `cancel` nor dropping the handle allocates.
#[test]
fn cancelling_costs_no_allocation() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (open, gate) = mpsc::channel();
    let blocker = pool.spawn(move || gate.recv().unwrap());
    let jobs: Vec<_> = (0..10).map(|number| pool.spawn(move || number)).collect();
    let used = allocations(|| {
        for (number, job) in jobs.into_iter().enumerate() {
            assert!(number % 2 == 0 || job.cancel());
        }
    });
    assert_eq!(used, 0);
    open.send(()).unwrap();
    blocker.wait();
}

#[test]
fn a_call_on_this_thread_costs_no_allocation() {
    assert_eq!(allocations(|| assert_eq!(threaded(|| 1).sync_call(), 1)), 0);
}

/// A thread that waits for a long job uses little CPU time: for every way to wait, five waits of 200 ms take less than
/// 100 ms.
#[cfg(target_os = "linux")]
#[test]
fn waiting_takes_little_cpu_time() {
    /// This thread's CPU time so far, which the kernel counts in nanoseconds.
    fn cpu_time() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }
    /// Waits five times and checks the CPU time of this thread. If it was too much, tries twice more: on a busy machine
    /// the kernel may count time in which the thread did not run.
    fn check(name: &str, mut wait: impl FnMut()) {
        let mut used = Duration::ZERO;
        for _ in 0..3 {
            let before = cpu_time();
            (0..5).for_each(|_| wait());
            used = cpu_time().saturating_sub(before);
            // The five waits last a second.
            if used < Duration::from_millis(100) {
                return;
            }
        }
        panic!("{name} took {used:?} of CPU time");
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::new(6);
    // The long job.
    let long = || thread::sleep(Duration::from_millis(200));
    thread::scope(|scope| {
        scope.spawn(|| check("wait", || pool.spawn(long).wait()));
        scope.spawn(|| check("block_on", || block_on(pool.spawn(long))));
        scope.spawn(|| check("sleep", || block_on(offthread::sleep(Duration::from_millis(200)))));
        scope.spawn(|| check("outcome", || assert!(pool.spawn(long).outcome().wait().is_ok())));
        scope.spawn(|| {
            check("oneshot", || {
                let (sender, receiver) = oneshot::channel();
                let job = pool.spawn(move || {
                    long();
                    sender.send(1).unwrap();
                });
                assert_eq!(receiver.recv_blocking(), Ok(1));
                job.wait();
            });
        });
        scope.spawn(|| {
            let (mut sender, mut receiver) = spsc::channel(1);
            pool.spawn(move || {
                long();
                // Until the receiver is dropped.
                while sender.send_blocking(1).is_ok() {
                    long();
                }
            })
            .detach();
            check("recv_blocking", || assert!(receiver.recv_blocking().is_some()));
        });
        scope.spawn(|| {
            let (mut sender, mut receiver) = spsc::channel(1);
            sender.try_send(0).unwrap();
            pool.spawn(move || {
                long();
                // Until the sender is dropped.
                while receiver.recv_blocking().is_some() {
                    long();
                }
            })
            .detach();
            check("send_blocking", || sender.send_blocking(1).unwrap());
        });
    });
}
