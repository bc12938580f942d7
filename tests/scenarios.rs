//! What users of neighbouring projects have reported, tried on this crate. Each test names the report it comes from.
#![allow(clippy::pedantic, unused_must_use, missing_docs, dropping_references, dropping_copy_types, unused_features)]

use offthread::*;
use std::any::Any;
use std::cell::RefCell;
use std::env;
use std::fmt;
use std::fs::File;
use std::future::{Future, IntoFuture, pending, poll_fn, ready};
use std::mem::{self, ManuallyDrop};
use std::panic::{self, AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::{Pin, pin};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context as Cx, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

// ------------------------------------------------------------------------------------------------ helpers

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Runs the body in a thread of 2 MiB, for 10 s at the most.
#[track_caller]
fn within(body: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
                let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| payload.downcast_ref().cloned()).unwrap_or_else(|| "an odd payload".into());
                mem::forget(payload); // it may be a bomb
                text
            });
            sender.send(result)
        })
        .unwrap();
    match receiver.recv_timeout(Duration::from_secs(10)) {
        Ok(Ok(())) => {}
        Ok(Err(text)) => panic!("{text}"),
        Err(_) => panic!("hangs"),
    }
}

/// Runs the body in a process of its own, since it may abort it. The name is that of the test.
#[track_caller]
fn child(name: &str, body: fn()) {
    child_with(name, 0, body);
}

#[track_caller]
fn child_with(name: &str, code: i32, body: fn()) {
    const VAR: &str = "OFFTHREAD_SCENARIO_CHILD";
    if env::var(VAR).is_ok_and(|child| child == name) {
        return within(body);
    }
    let log = env::temp_dir().join(format!("offthread-scenario-{name}-{}", std::process::id()));
    let mut child = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(VAR, name)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if start.elapsed() > Duration::from_secs(15) {
            child.kill();
            child.wait();
            break None;
        }
        thread::sleep(ms(5));
    };
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    std::fs::remove_file(&log);
    let tail: String = said.chars().rev().take(1500).collect::<Vec<_>>().into_iter().rev().collect();
    match status {
        None => panic!("hangs: {tail}"),
        Some(status) => assert_eq!(status.code(), Some(code), "{status}: {tail}"),
    }
}

/// Waits, not for long, until something is so.
#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(5), "it does not come");
        thread::sleep(ms(1));
    }
}

/// A waker that counts, and that may panic once in each of its functions.
#[derive(Default)]
struct Hooks {
    wakes: AtomicUsize,
    clone_panics: AtomicBool,
    wake_panics: AtomicBool,
    drop_panics: AtomicBool,
}

impl Hooks {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    fn wakes(&self) -> usize {
        self.wakes.load(SeqCst)
    }

    fn waker(self: &Arc<Self>) -> Waker {
        unsafe fn arc(data: *const ()) -> Arc<Hooks> {
            unsafe { Arc::from_raw(data.cast()) }
        }
        fn clone(data: *const ()) -> RawWaker {
            let hooks = ManuallyDrop::new(unsafe { arc(data) });
            if hooks.clone_panics.swap(false, SeqCst) {
                panic!("the waker's clone");
            }
            RawWaker::new(Arc::into_raw(Arc::clone(&hooks)).cast(), &VTABLE)
        }
        fn wake(data: *const ()) {
            let hooks = unsafe { arc(data) };
            hooks.wakes.fetch_add(1, SeqCst);
            if hooks.wake_panics.swap(false, SeqCst) {
                panic!("the waker's wake");
            }
        }
        fn wake_by_ref(data: *const ()) {
            let hooks = ManuallyDrop::new(unsafe { arc(data) });
            hooks.wakes.fetch_add(1, SeqCst);
            if hooks.wake_panics.swap(false, SeqCst) {
                panic!("the waker's wake_by_ref");
            }
        }
        fn drop(data: *const ()) {
            let hooks = unsafe { arc(data) };
            if hooks.drop_panics.swap(false, SeqCst) {
                panic!("the waker's drop");
            }
        }
        static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop);
        unsafe { Waker::from_raw(RawWaker::new(Arc::into_raw(self.clone()).cast(), &VTABLE)) }
    }
}

fn poll<F: Future>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Cx::from_waker(waker))
}

/// Polls with a waker whose clone panics; whether that comes out does not matter.
fn poll_badly<F: Future>(future: Pin<&mut F>) {
    let hooks = Hooks::new();
    hooks.clone_panics.store(true, SeqCst);
    let waker = hooks.waker();
    catch_unwind(AssertUnwindSafe(|| poll(future, &waker).is_ready()));
}

/// Counts its drops.
struct Counts(Arc<AtomicU32>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Does something as it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

// ------------------------------------------------------------------------------------------------ wakers that panic

// apache/asyncband#259, tokio-rs/tokio#3689: a waker whose clone panics leaves the slot "registering" for ever
#[test]
fn a_waker_that_panics_as_it_is_cloned_channels() {
    within(|| {
        let (mut sender, mut receiver) = spsc::channel(1);
        poll_badly(pin!(receiver.recv()));
        let good = Hooks::new();
        let waker = good.waker();
        assert!(receiver.poll_recv(&mut Cx::from_waker(&waker)).is_pending());
        sender.try_send(1).unwrap();
        assert_eq!(good.wakes(), 1);
        poll_badly(pin!(sender.send(2)));
        let good = Hooks::new();
        let waker = good.waker();
        {
            let mut send = pin!(sender.send(2));
            assert!(poll(send.as_mut(), &waker).is_pending());
            assert_eq!(receiver.try_recv(), Ok(1));
            assert!(good.wakes() >= 1);
            assert!(poll(send, &waker).is_ready());
        }
        assert_eq!(receiver.recv_blocking(), Some(2));

        let (sender, mut receiver) = oneshot::channel();
        poll_badly(Pin::new(&mut receiver));
        let good = Hooks::new();
        let waker = good.waker();
        assert!(poll(Pin::new(&mut receiver), &waker).is_pending());
        sender.send(3).unwrap();
        assert_eq!(good.wakes(), 1);
        assert_eq!(poll(Pin::new(&mut receiver), &waker), Poll::Ready(Ok(3)));

        let (mut sender, receiver) = oneshot::channel::<u8>();
        poll_badly(pin!(sender.closed()));
        let good = Hooks::new();
        let waker = good.waker();
        let mut closed = pin!(sender.closed());
        assert!(poll(closed.as_mut(), &waker).is_pending());
        drop(receiver);
        assert_eq!(good.wakes(), 1);
        assert!(poll(closed, &waker).is_ready());
    });
}

// tokio-rs/tokio#8107 (review: the clone under the timer's lock may panic and poison it), tokio-rs/tokio#4069
#[test]
fn a_waker_that_panics_as_it_is_cloned_timers_jobs_iterables() {
    within(|| {
        let mut bad = sleep(ms(5));
        poll_badly(Pin::new(&mut bad));
        let good = Hooks::new();
        let waker = good.waker();
        let mut other = sleep(ms(5));
        assert!(poll(Pin::new(&mut other), &waker).is_pending());
        assert!(poll(Pin::new(&mut bad), &waker).is_pending() || bad_is_over(&mut bad));
        until(|| good.wakes() >= 1);
        until(|| poll(Pin::new(&mut other), &waker).is_ready());
        until(|| poll(Pin::new(&mut bad), &waker).is_ready());

        let pool = ThreadPool::new(1);
        let (go, gone) = mpsc::channel::<()>();
        let mut job = pool.spawn(move || gone.recv().is_ok());
        poll_badly(Pin::new(&mut job));
        let good = Hooks::new();
        let waker = good.waker();
        assert!(poll(Pin::new(&mut job), &waker).is_pending());
        go.send(()).unwrap();
        until(|| good.wakes() == 1);
        assert!(job.wait());

        let (go, gone) = mpsc::channel::<()>();
        let mut items = IteratorWrapper::new(move || gone.into_iter()).on(&pool);
        {
            let hooks = Hooks::new();
            hooks.clone_panics.store(true, SeqCst);
            let waker = hooks.waker();
            catch_unwind(AssertUnwindSafe(|| Pin::new(&mut items).poll_next(&mut Cx::from_waker(&waker)).is_ready()));
        }
        let good = Hooks::new();
        let waker = good.waker();
        assert!(Pin::new(&mut items).poll_next(&mut Cx::from_waker(&waker)).is_pending());
        go.send(()).unwrap();
        until(|| good.wakes() >= 1);
        assert_eq!(block_on(items.next()), Some(()));
        drop(go);
        assert_eq!(block_on(items.next()), None);
    });

    fn bad_is_over(sleep: &mut Sleep) -> bool {
        poll(Pin::new(sleep), Waker::noop()).is_ready()
    }
}

// the same reports, for tasks, sleeps on a loop and gather
#[test]
fn a_waker_that_panics_as_it_is_cloned_on_a_loop() {
    within(|| {
        block_on(async {
            let mut task = spawn(async {
                yield_now().await;
                1
            });
            poll_badly(Pin::new(&mut task));
            assert_eq!(task.await, 1);

            let mut nap = sleep(ms(5));
            poll_badly(Pin::new(&mut nap));
            sleep(ms(1)).await;
            nap.await;

            let (sender, receiver) = oneshot::channel();
            let mut all = Box::pin(gather([receiver]));
            poll_badly(all.as_mut());
            let good = Hooks::new();
            let waker = good.waker();
            // The panic may have ended it, as a panic of a branch does; but it must not lie there and wait.
            match catch_unwind(AssertUnwindSafe(|| poll(all.as_mut(), &waker))) {
                Err(_) => {}
                Ok(poll) => {
                    assert!(poll.is_pending());
                    sender.send(2).unwrap();
                    assert!(good.wakes() >= 1);
                    assert_eq!(all.await, [Ok(2)]);
                }
            }
        });
    });
}

// tokio-rs/tokio#4055, #6584 (review: "I'm worried about panics here. What happens to entries still in the list?")
#[test]
fn a_waker_that_panics_in_the_timer_thread() {
    within(|| {
        for drop_panics in [false, true] {
            let deadline = Instant::now() + ms(10);
            let good = Hooks::new();
            let good_waker = good.waker();
            let bad = Hooks::new();
            bad.wake_panics.store(true, SeqCst);
            bad.drop_panics.store(drop_panics, SeqCst);
            let bad_waker = ManuallyDrop::new(bad.waker());
            let mut sleeps: Vec<_> = (0..6).map(|_| sleep_until(deadline)).collect();
            for (n, sleep) in sleeps.iter_mut().enumerate() {
                let waker = if n == 2 { &*bad_waker } else { &good_waker };
                assert!(poll(Pin::new(sleep), waker).is_pending());
            }
            until(|| good.wakes() == 5); // all of the batch but the bad one
            let later = Hooks::new();
            let waker = later.waker();
            let mut sleep = sleep(ms(5)); // and the thread lives
            assert!(poll(Pin::new(&mut sleep), &waker).is_pending());
            until(|| later.wakes() == 1);
            bad.drop_panics.store(false, SeqCst);
        }
    });
}

// the same on a loop: what one future's waker does must not take the others' time away
#[test]
fn a_waker_that_panics_on_the_loop() {
    within(|| {
        block_on(async {
            let other = spawn(async {
                sleep(ms(10)).await;
                1
            });
            let bad = Hooks::new();
            bad.wake_panics.store(true, SeqCst);
            let waker = bad.waker();
            let mut nap = sleep(ms(5));
            assert!(poll(Pin::new(&mut nap), &waker).is_pending());
            assert_eq!(other.await, 1);
            assert_eq!(bad.wakes(), 1);

            let mut task = spawn(async { sleep(ms(1)).await });
            bad.wake_panics.store(true, SeqCst);
            assert!(poll(Pin::new(&mut task), &waker).is_pending());
            sleep(ms(5)).await;
            assert!(task.is_finished());
        });
    });
}

// ------------------------------------------------------------------------------------------------ payloads

struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            panic_any(Bomb(self.0 - 1));
        }
    }
}

// rust-lang/rust#86027, rust-lang/rust#85927: the payload of the panic in a payload's Drop panics in its Drop, and so on
#[test]
fn a_payload_whose_drop_panics_with_such_a_payload() {
    child("a_payload_whose_drop_panics_with_such_a_payload", || {
        for depth in [1, 2, 3, u32::MAX] {
            let pool = ThreadPool::builder().threads(1).on_thread_start(move || panic_any(Bomb(depth))).build();
            let job = pool.spawn(move || panic_any(Bomb(depth)));
            catch_unwind(AssertUnwindSafe(|| job.detach())).map_err(mem::forget); // it may have finished
            let job = pool.spawn(move || panic_any(Bomb(depth)));
            until(|| job.is_finished());
            catch_unwind(AssertUnwindSafe(|| drop(job))).map_err(mem::forget);
            assert_eq!(pool.spawn(|| 1).wait(), 1);
            assert_eq!(pool.stats().panicked, 2);
            block_on(async {
                spawn(async move { panic_any(Bomb(depth)) }).detach();
                LoopHandle::current().call_soon(move || panic_any(Bomb(depth)));
                LoopHandle::current().call_later(ms(1), move || panic_any(Bomb(depth)));
                sleep(ms(5)).await;
                let mut items = IteratorWrapper::new(move || (0..5).inspect(move |_| panic_any(Bomb(depth)))).on(&pool);
                let first = || poll(pin!(items.next()), Waker::noop()).is_ready();
                catch_unwind(AssertUnwindSafe(first)).map_err(mem::forget); // it may have panicked by then
                drop(items);
                pool.spawn(|| ()).await;
            });
            pool.drain();
        }
    });
}

// ------------------------------------------------------------------------------------------------ sizes

const BIG: usize = 48 << 10;

fn sum(bytes: &[u8; BIG]) -> usize {
    bytes.iter().map(|byte| usize::from(*byte)).sum()
}

// tokio-rs/tokio#6057: large futures and closures overflow the stack on their way into a task
#[test]
fn large_closures_and_results() {
    child("large_closures_and_results", || {
        // Each in a frame of its own: a frame has room for all copies.
        const CASES: [fn(&ThreadPool); 6] = [
            |pool| assert_eq!(pool.spawn(capturing()).wait(), BIG),
            |pool| assert_eq!(sum(&pool.spawn(|| [1; BIG]).wait()), BIG),
            |_| assert_eq!(threaded(capturing()).separate().async_call().wait(), BIG),
            |_| assert_eq!(sum(&threaded(|| [1; BIG]).separate().async_call().wait()), BIG),
            |pool| assert_eq!(block_on(threaded(capturing()).on(pool)), BIG),
            |pool| assert_eq!(pool.spawn_many([capturing()]).remove(0).wait(), BIG),
        ];
        fn capturing() -> impl FnOnce() -> usize + Send {
            let big = [1; BIG];
            move || sum(&big)
        }
        let pool = ThreadPool::new(2);
        for case in CASES {
            case(&pool);
        }
    });
}

// the same report, for futures, outputs and items
#[test]
fn large_futures_and_items() {
    child("large_futures_and_items", || {
        const CASES: [fn(); 6] = [
            || {
                let task = async {
                    let big = [1; BIG];
                    yield_now().await;
                    sum(&big)
                };
                assert_eq!(block_on(async { spawn(task).await }), BIG);
            },
            || assert_eq!(sum(&block_on(async { spawn(async { [1; BIG] }).await })), BIG),
            || {
                let (sender, receiver) = oneshot::channel();
                sender.send([1; BIG]).unwrap();
                assert_eq!(sum(&block_on(receiver).unwrap()), BIG);
            },
            || {
                let (mut sender, mut receiver) = spsc::channel(2);
                sender.send_blocking([1; BIG]).unwrap();
                assert_eq!(sum(&receiver.recv_blocking().unwrap()), BIG);
            },
            || {
                let mut items = threaded_iterable(|| (0..2).map(|_| [1u8; BIG])).max_size(1);
                assert_eq!(sum(&block_on(items.next()).unwrap()), BIG);
            },
            || assert_eq!(block_on(gather([0, 1].map(|_| async { [1u8; BIG] }))).len(), 2),
        ];
        for case in CASES {
            case();
        }
    });
}

// own idea: storage beyond the allocator's usual alignment
#[test]
fn a_page_of_alignment_everywhere() {
    #[derive(Clone)]
    #[repr(align(4096))]
    struct Page(u8);
    impl Page {
        fn check(&self, value: u8) {
            assert_eq!((std::ptr::from_ref(self).addr() % 4096, self.0), (0, value));
        }
    }
    static VAR: ContextVar<Page> = ContextVar::new();
    within(|| {
        let pool = ThreadPool::new(1);
        let page = Page(1);
        pool.spawn(move || {
            page.check(1);
            page
        })
        .wait()
        .check(1);
        VAR.set(Page(2));
        VAR.with(|page| page.unwrap().check(2));
        block_on(async {
            spawn(async { VAR.with(|page| page.unwrap().check(2)) }).await;
            let page = Page(3);
            spawn(async move {
                yield_now().await;
                page.check(3);
                page
            })
            .await
            .check(3);
            let page = Page(4);
            LoopHandle::current().call_soon(move || page.check(4));
            for page in gather((0..3).map(|n| ready(Page(n)))).await.iter().zip(0..) {
                page.0.check(page.1);
            }
            let mut items = threaded_iterable(|| (0..9).map(Page)).max_size(2);
            for n in 0..9 {
                items.next().await.unwrap().check(n);
            }
        });
        let (mut sender, mut receiver) = spsc::channel(3);
        thread::spawn(move || (0..9).for_each(|n| sender.send_blocking(Page(n)).unwrap()));
        for (page, n) in receiver.iter().zip(0..) {
            page.check(n);
        }
        let (sender, receiver) = oneshot::channel();
        sender.send(Page(5)).map_err(drop).unwrap();
        receiver.recv_blocking().unwrap().check(5);
    });
}

// rayon-rs/rayon#288 (a stack of usize::MAX): an error that can be seen, not a panic and not a hang
#[test]
fn stacks_and_pools_of_absurd_size() {
    within(|| {
        for bytes in [usize::MAX, usize::MAX / 2 + 1, isize::MAX as usize, usize::MAX - 4096] {
            let pool = ThreadPool::builder().threads(2).stack_size(bytes).build();
            match pool.spawn(|| 1).outcome().wait() {
                Ok(1) | Err(JoinError::NoThread(_)) => {}
                other => panic!("{bytes}: {other:?}"),
            }
            pool.drain();
        }
        // A small stack: nested waits go to other threads, if need be.
        let pool = ThreadPool::builder().threads(1).stack_size(128 << 10).build();
        fn nested(pool: &ThreadPool, depth: u32) -> u32 {
            let inner = pool.clone();
            if depth == 0 { 0 } else { pool.spawn(move || nested(&inner, depth - 1)).wait() + 1 }
        }
        assert_eq!(nested(&pool, 60), 60);
        let pool = ThreadPool::new(usize::MAX);
        assert_eq!(pool.spawn_many((0..20).map(|n| move || n)).into_iter().map(Job::wait).sum::<i32>(), 190);
        assert_eq!(nested(&pool, 20), 20);
        pool.shutdown();
    });
}

// own idea, after crossbeam-rs/crossbeam#1300: sizes that are limits, not requests
#[test]
fn many_at_once_without_a_limit() {
    within(|| {
        let (mut sender, mut receiver) = spsc::channel(4);
        (0..4).for_each(|n| sender.try_send(n).unwrap());
        let mut buf = Vec::new();
        assert_eq!(block_on(receiver.recv_many(&mut buf, usize::MAX)), 4);
        let mut items = threaded_iterable(|| 0..4);
        let mut taken = 0;
        loop {
            match block_on(items.next_many(&mut buf, usize::MAX)) {
                0 => break,
                n => taken += n,
            }
        }
        assert_eq!((taken, buf.as_slice()), (4, &[0, 1, 2, 3, 0, 1, 2, 3][..]));
    });
}

// crossbeam-rs/crossbeam#1300: a size that cannot be had is a clean panic; here: and the iterable can still be closed
#[test]
fn an_iterable_whose_buffer_cannot_be_had_can_be_closed() {
    within(|| {
        for separate in [false, true] {
            let drops = Arc::new(AtomicU32::new(0));
            let counts = Counts(drops.clone());
            let make = move || {
                let _counts = &counts;
                0..5u64
            };
            let items = if separate { IteratorWrapper::separate(make) } else { IteratorWrapper::new(make) };
            let mut items = items.max_size(usize::MAX / 2);
            block_on(async {
                let first = poll_fn(|cx| {
                    Poll::Ready(catch_unwind(AssertUnwindSafe(|| Pin::new(&mut items).poll_next(cx).is_ready())))
                });
                let payload = first.await.expect_err("so many do not fit");
                let message = Panic::message_of(&payload);
                assert!(message.contains(&(usize::MAX / 2).to_string()), "{message}");
                let closed = timeout(Duration::from_secs(3), async { items.close().await }).await;
                assert!(closed.is_ok(), "close hangs");
            });
            drop(items);
            assert_eq!(drops.load(SeqCst), 1);
        }
    });
}

trait MessageOf {
    fn message_of(payload: &Box<dyn Any + Send>) -> String;
}

impl MessageOf for Panic {
    fn message_of(payload: &Box<dyn Any + Send>) -> String {
        let text = payload.downcast_ref::<String>().cloned();
        text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    }
}

// rust-lang/rust#32475, rayon-rs/rayon#288: odd names
#[test]
fn threads_with_odd_names() {
    within(|| {
        for name in [
            "",
            "ünïcödé-names-that-are-cut-in-the-middle-of-ä-lëttër-🦀🦀🦀🦀🦀",
            "a\nb\u{1b}[31m",
            &"x".repeat(100_000),
        ] {
            let own = || thread::current().name().map(str::to_owned);
            let pool = ThreadPool::builder().threads(1).name(name).build();
            assert_eq!(pool.spawn(own).wait().as_deref(), Some(name));
            assert_eq!(threaded_separate(own).name(name).async_call().wait().as_deref(), Some(name));
            let mut items = threaded_iterable_separate(move || std::iter::once(own())).name(name);
            assert_eq!(block_on(items.next()).unwrap().as_deref(), Some(name));
        }
    });
}

// ------------------------------------------------------------------------------------------------ polled after the end

// tokio-rs/tokio#6402 ("JoinHandle polled after completion", then a reference count below zero), Nisoku/Saikuro#80 (pending
// for ever), tokio-rs/tokio#8168 (a Sleep that is over stays so)
#[test]
fn polled_after_it_was_ready() {
    fn again<F: Future + Unpin>(mut future: F) {
        let start = Instant::now();
        while poll(Pin::new(&mut future), Waker::noop()).is_pending() {
            assert!(start.elapsed() < Duration::from_secs(5));
            thread::yield_now();
        }
        for _ in 0..3 {
            match catch_unwind(AssertUnwindSafe(|| poll(Pin::new(&mut future), Waker::noop()).is_pending())) {
                Ok(false) | Err(_) => {}
                Ok(true) => panic!("pending for ever: {}", std::any::type_name::<F>()),
            }
        }
    }
    within(|| {
        let pool = ThreadPool::new(1);
        again(pool.spawn(|| Box::new(1)));
        again(pool.spawn(|| Box::new(1)).outcome());
        again(threaded_separate(|| Box::new(1)).async_call());
        let (sender, receiver) = oneshot::channel();
        sender.send(Box::new(1)).unwrap();
        again(receiver);
        let (sender, receiver) = oneshot::channel::<u8>();
        drop(sender);
        again(receiver);
        let mut nap = sleep(ms(1));
        until(|| poll(Pin::new(&mut nap), Waker::noop()).is_ready());
        for _ in 0..3 {
            assert!(poll(Pin::new(&mut nap), Waker::noop()).is_ready());
        }
        block_on(async {
            let task = spawn(async { Box::new(1) });
            yield_now().await;
            again(task);
            let task = spawn(async { Box::new(1) }).outcome();
            yield_now().await;
            again(task);
            let mut nap = sleep(ms(1));
            poll_fn(|cx| Pin::new(&mut nap).poll(cx)).await;
            poll_fn(|cx| Pin::new(&mut nap).poll(cx)).await;
        });
        pool.drain();
    });
}

// ------------------------------------------------------------------------------------------------ select loops, forgotten futures

// n0-computer/iroh#2536 (flume), fereidani/kanal#50, #65: a loop that drops and makes recv futures loses a wake-up or an item
#[test]
fn a_select_loop_loses_nothing() {
    within(|| {
        const ITEMS: u32 = 20_000;
        let ends: Vec<_> = (0..3)
            .map(|n| {
                let (mut sender, receiver) = spsc::channel(1 + n * 3);
                thread::spawn(move || (0..ITEMS).for_each(|item| sender.send_blocking(item).unwrap()));
                receiver
            })
            .collect();
        let mut ends = ends.into_iter();
        let (mut a, mut b, mut c) = (ends.next().unwrap(), ends.next().unwrap(), ends.next().unwrap());
        let mut next = [0; 3];
        let mut open = [true; 3];
        block_on(async {
            while open.contains(&true) {
                let (mut x, mut y, mut z) = (pin!(a.recv()), pin!(b.recv()), pin!(c.recv()));
                let (n, item) = poll_fn(|cx| {
                    if let (true, Poll::Ready(item)) =
                        (open[0], if open[0] { x.as_mut().poll(cx) } else { Poll::Pending })
                    {
                        return Poll::Ready((0, item));
                    }
                    if let (true, Poll::Ready(item)) =
                        (open[1], if open[1] { y.as_mut().poll(cx) } else { Poll::Pending })
                    {
                        return Poll::Ready((1, item));
                    }
                    if let (true, Poll::Ready(item)) =
                        (open[2], if open[2] { z.as_mut().poll(cx) } else { Poll::Pending })
                    {
                        return Poll::Ready((2, item));
                    }
                    Poll::Pending
                })
                .await;
                match item {
                    Some(item) => {
                        assert_eq!(item, next[n]);
                        next[n] += 1;
                    }
                    None => open[n] = false,
                }
            }
        });
        assert_eq!(next, [ITEMS; 3]);
    });
}

// asynchronics/tachyonix#1: a send future that is forgotten, then the sender is dropped: use after free there
#[test]
fn forgotten_futures_of_channels() {
    within(|| {
        let (sender, mut receiver) = spsc::channel(1);
        let mut sender = Box::new(sender);
        sender.try_send("a".to_owned()).unwrap();
        let hooks = Hooks::new();
        let waker = hooks.waker();
        let mut send = Box::pin(sender.send("b".to_owned()));
        assert!(poll(send.as_mut(), &waker).is_pending());
        mem::forget(send);
        drop(sender);
        assert_eq!(receiver.try_recv().unwrap(), "a");
        assert_eq!(receiver.try_recv(), Err(spsc::TryRecvError::Closed));

        // The next attempt gets the wake-up.
        let (mut sender, mut receiver) = spsc::channel(1);
        let forgotten = Hooks::new();
        let waker = forgotten.waker();
        let mut recv = Box::pin(receiver.recv());
        assert!(poll(recv.as_mut(), &waker).is_pending());
        mem::forget(recv);
        let hooks = Hooks::new();
        let waker = hooks.waker();
        {
            let mut recv = pin!(receiver.recv());
            assert!(poll(recv.as_mut(), &waker).is_pending());
            sender.try_send(1).unwrap();
            assert_eq!(hooks.wakes(), 1);
            assert_eq!(poll(recv, &waker), Poll::Ready(Some(1)));
        }
        sender.try_send(2).unwrap();
        let mut send = Box::pin(sender.send(3));
        assert!(poll(send.as_mut(), &waker).is_pending());
        mem::forget(send);
        let hooks = Hooks::new();
        let waker = hooks.waker();
        let mut send = pin!(sender.send(4));
        assert!(poll(send.as_mut(), &waker).is_pending());
        assert_eq!(receiver.recv_blocking(), Some(2));
        assert_eq!(hooks.wakes(), 1);
        assert!(poll(send, &waker).is_ready());
        assert_eq!(receiver.recv_blocking(), Some(4));
    });
}

// the same report; n0-computer/n0-watcher#62: handles, sleeps, gathers and loops that are forgotten
#[test]
fn forgotten_handles() {
    within(|| {
        let ran = Arc::new(AtomicU32::new(0));
        let pool = ThreadPool::new(1);
        let add = |n| {
            let ran = ran.clone();
            move || drop(ran.fetch_add(n, SeqCst))
        };
        mem::forget(pool.spawn(add(1)));
        block_on(async {
            let add = add(10);
            mem::forget(spawn(async move {
                yield_now().await;
                add();
            }));
            let mut limit = Box::pin(timeout(ms(5), pending::<()>()));
            assert!(poll(limit.as_mut(), Waker::noop()).is_pending());
            mem::forget(limit);
            let (sender, receiver) = oneshot::channel::<u8>();
            let mut all = Box::pin(gather([receiver]));
            assert!(poll_fn(|cx| Poll::Ready(all.as_mut().poll(cx))).await.is_pending());
            mem::forget(all);
            sender.send(1).unwrap();
            sleep(ms(20)).await;
        });
        let drops = Arc::new(AtomicU32::new(0));
        let counts = Counts(drops.clone());
        let mut items = IteratorWrapper::new(move || (0..).inspect(move |_| drop(&counts))).on(&pool).max_size(2);
        assert_eq!(block_on(items.next()), Some(0));
        mem::forget(items);
        let mut event_loop = EventLoop::new();
        event_loop.block_on(async { spawn(pending::<()>()).detach() });
        mem::forget(event_loop);
        assert_eq!(block_on(async { spawn(async { 5 }).await }), 5);
        pool.shutdown();
        assert_eq!(ran.load(SeqCst), 11);
        assert_eq!(drops.load(SeqCst), 1); // `shutdown` ends iterables, also one that nobody will ever read
    });
}

// tokio-rs/tokio#7631: after the receiver's close, try_recv said Empty and poll_recv said None, for ever
#[test]
fn all_ways_to_receive_agree_after_the_close() {
    within(|| {
        for left in [0, 1] {
            let make = || {
                let (mut sender, mut receiver) = spsc::channel::<u8>(2);
                (0..left).for_each(|n| sender.try_send(n).unwrap());
                receiver.close();
                (sender, receiver)
            };
            let expected = (left == 1).then_some(0);
            let (_sender, mut receiver) = make();
            assert_eq!(receiver.try_recv().ok(), expected);
            assert_eq!(receiver.try_recv(), Err(spsc::TryRecvError::Closed));
            let (_sender, mut receiver) = make();
            assert_eq!(receiver.poll_recv(&mut Cx::from_waker(Waker::noop())), Poll::Ready(expected));
            assert_eq!(receiver.poll_recv(&mut Cx::from_waker(Waker::noop())), Poll::Ready(None));
            let (_sender, mut receiver) = make();
            assert_eq!(receiver.recv_blocking(), expected);
            assert_eq!(receiver.recv_blocking(), None);
            let (_sender, mut receiver) = make();
            assert_eq!(block_on(receiver.recv_many(&mut Vec::new(), 9)), usize::from(left));
            assert_eq!(block_on(receiver.recv_many(&mut Vec::new(), 9)), 0);
            let (_sender, mut receiver) = make();
            assert_eq!(block_on(receiver.recv_timeout(Duration::MAX)).ok(), expected);
            assert_eq!(block_on(receiver.recv_timeout(Duration::MAX)), Err(spsc::RecvTimeoutError::Closed));
            let (_sender, mut receiver) = make();
            assert_eq!(receiver.iter().count(), usize::from(left));
            let (mut sender, mut receiver) = make();
            assert_eq!(receiver.iter().count(), usize::from(left));
            assert!(matches!(sender.try_send(9), Err(spsc::TrySendError::Closed(9))));
        }
    });
}

// ------------------------------------------------------------------------------------------------ timers

// tokio-rs/tokio#3229, zeroc-ice/ice#6022: a timer dropped at the moment it fires, by the waker of another one
#[test]
fn a_wake_up_drops_the_other_timers_of_its_batch() {
    struct DropsThem(Mutex<Vec<Sleep>>, AtomicU32);
    impl Wake for DropsThem {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, SeqCst);
            let sleeps = mem::take(&mut *self.0.lock().unwrap());
            drop(sleeps);
        }
    }
    fn arm() -> (Arc<DropsThem>, Vec<Arc<Hooks>>) {
        let deadline = Instant::now() + ms(60);
        let them = Arc::new(DropsThem(Mutex::default(), AtomicU32::new(0)));
        let waker = Waker::from(them.clone());
        let mut others = Vec::new();
        let mut sleeps = Vec::new();
        for n in 0..40 {
            let mut sleep = sleep_until(deadline);
            if n % 4 == 1 {
                assert!(poll(Pin::new(&mut sleep), &waker).is_pending(), "a slow machine");
            } else {
                let hooks = Hooks::new();
                let waker = hooks.waker();
                poll(Pin::new(&mut sleep), &waker);
                others.push(hooks);
            }
            sleeps.push(sleep);
        }
        *them.0.lock().unwrap() = sleeps;
        (them, others)
    }
    within(|| {
        let (them, others) = arm();
        until(|| them.1.load(SeqCst) >= 1);
        block_on(async {
            let (them, _others) = arm();
            sleep(ms(100)).await;
            assert!(them.1.load(SeqCst) >= 1);
        });
        // Nobody keeps a waker of a sleep that is gone.
        until(|| others.iter().all(|hooks| Arc::strong_count(hooks) == 1));
        let hooks = Hooks::new();
        let waker = hooks.waker();
        let mut nap = sleep(ms(1));
        assert!(poll(Pin::new(&mut nap), &waker).is_pending());
        until(|| hooks.wakes() == 1);
    });
}

// the same reports, for the waker's Drop: a sleep owns the waker that owns the next sleep
#[test]
fn a_wakers_drop_drops_the_next_sleep() {
    struct Owns(#[allow(dead_code)] Mutex<Option<Sleep>>, Arc<AtomicU32>);
    impl Wake for Owns {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Owns {
        fn drop(&mut self) {
            self.1.fetch_add(1, SeqCst);
        }
    }
    fn chain(deadline: Duration, drops: &Arc<AtomicU32>) -> Sleep {
        let mut next = None;
        for _ in 0..100 {
            let waker = Waker::from(Arc::new(Owns(Mutex::new(next), drops.clone())));
            let mut nap = sleep(deadline);
            assert!(poll(Pin::new(&mut nap), &waker).is_pending());
            next = Some(nap);
        }
        next.unwrap()
    }
    fn check() {
        for deadline in [Duration::from_secs(60), ms(20)] {
            let drops = Arc::new(AtomicU32::new(0));
            drop(chain(deadline, &drops));
            assert_eq!(drops.load(SeqCst), 100);
            let mut first = chain(deadline, &drops);
            poll(Pin::new(&mut first), Waker::noop()); // replaces the waker
            assert_eq!(drops.load(SeqCst), 200);
        }
    }
    within(|| {
        check();
        block_on(async { check() });
        let drops = Arc::new(AtomicU32::new(0));
        let mut nap = chain(ms(5), &drops);
        until(|| drops.load(SeqCst) == 100); // woken, all of them
        assert!(poll(Pin::new(&mut nap), Waker::noop()).is_ready());
    });
}

// tokio-rs/tokio#6584 (review), after FAULTS 2: a waker that blocks in the thread of the timers holds up everybody's time
#[test]
fn a_waker_that_blocks_in_the_timer_thread() {
    struct Blocks(Mutex<mpsc::Receiver<()>>, AtomicBool);
    impl Wake for Blocks {
        fn wake(self: Arc<Self>) {
            self.1.store(true, SeqCst);
            self.0.lock().unwrap().recv();
        }
    }
    child("a_waker_that_blocks_in_the_timer_thread", || {
        let (release, released) = mpsc::channel();
        let blocks = Arc::new(Blocks(Mutex::new(released), AtomicBool::new(false)));
        let waker = blocks.clone().into();
        let mut bad = sleep(ms(1));
        assert!(poll(Pin::new(&mut bad), &waker).is_pending());
        until(|| blocks.1.load(SeqCst));
        let good = Hooks::new();
        let waker = good.waker();
        let mut nap = sleep(ms(5));
        assert!(poll(Pin::new(&mut nap), &waker).is_pending());
        thread::sleep(ms(1000));
        let wakes = good.wakes();
        release.send(());
        assert_eq!(wakes, 1, "nobody else's timer fires meanwhile");
    });
}

// own idea: a call_later that is cancelled from inside itself, and from its closure's Drop
#[test]
fn a_call_that_cancels_itself() {
    within(|| {
        block_on(async {
            let own = Arc::new(Mutex::new(None::<TimerHandle>));
            let (sender, receiver) = oneshot::channel();
            let inside = own.clone();
            let handle = LoopHandle::current().call_later(ms(1), move || {
                let handle = inside.lock().unwrap().take().unwrap();
                sender.send(handle.cancel()).unwrap();
            });
            *own.lock().unwrap() = Some(handle);
            assert_eq!(receiver.await, Ok(false));

            let own = Arc::new(OnceLock::<TimerHandle>::new());
            let (said, hears) = mpsc::channel();
            let inside = own.clone();
            let on_drop = OnDrop(move || said.send(inside.get().map(TimerHandle::cancel)).unwrap());
            let handle = LoopHandle::current().call_later(ms(50), move || drop(on_drop));
            own.set(handle).unwrap();
            assert!(own.get().unwrap().cancel());
            sleep(ms(1)).await;
            assert_eq!(hears.recv(), Ok(Some(false)));
        });
    });
}

// own idea, after tokio-rs/tokio#6584: ten thousand sleeps with one deadline; and none early
#[test]
fn ten_thousand_sleeps_with_one_deadline() {
    within(|| {
        let deadline = Instant::now() + ms(100);
        block_on(async {
            let sleeps = gather((0..10_000).map(|_| async move {
                sleep_until(deadline).await;
                Instant::now() >= deadline
            }));
            assert!(sleeps.await.into_iter().all(|on_time| on_time));
        });
        assert!(deadline.elapsed() < Duration::from_secs(3));
    });
}

// python/cpython#86296, #134471: a time-out that fires in the same turn swallows the cancellation
#[test]
fn a_cancelled_task_stays_cancelled_though_its_time_is_up() {
    within(|| {
        for limit in [Duration::ZERO, ms(1)] {
            block_on(async {
                let went_on = Arc::new(AtomicBool::new(false));
                let flag = went_on.clone();
                let task = spawn(async move {
                    timeout(limit, pending::<()>()).await;
                    timeout(limit, pending::<()>()).await;
                    sleep(ms(5)).await;
                    flag.store(true, SeqCst);
                });
                yield_now().await;
                thread::sleep(ms(3)); // the loop stands still: the time is up, and nobody has been told
                assert!(task.cancel());
                assert!(matches!(task.outcome().await, Err(JoinError::Cancelled)));
                sleep(ms(10)).await;
                assert!(!went_on.load(SeqCst));
            });
        }
        // What is there at once gets through, whatever the limit.
        let (mut sender, mut receiver) = spsc::channel(1);
        sender.try_send(1).unwrap();
        assert_eq!(block_on(timeout(Duration::ZERO, receiver.recv())), Ok(Some(1)));
        assert_eq!(block_on(timeout(Duration::MAX, timeout(Duration::ZERO, ready(2)))), Ok(Ok(2)));
    });
}

// ------------------------------------------------------------------------------------------------ gather

// own idea, after tokio-rs/tokio#5177: IntoFuture::into_future panics; what was begun is taken back
#[test]
fn into_future_panics() {
    struct Bad;
    impl IntoFuture for Bad {
        type Output = ();
        type IntoFuture = std::future::Ready<()>;
        fn into_future(self) -> Self::IntoFuture {
            drop(LoopHandle::try_current());
            panic!("into_future");
        }
    }
    within(|| {
        let bad = |code: &mut dyn FnMut()| {
            let payload = catch_unwind(AssertUnwindSafe(code)).unwrap_err();
            assert_eq!(Panic::message_of(&payload), "into_future");
        };
        bad(&mut || block_on(Bad));
        let mut event_loop = EventLoop::new();
        let task = event_loop.block_on(async { spawn(async { 1 }) });
        bad(&mut || event_loop.block_on(Bad));
        assert_eq!(event_loop.block_on(task), 1);
        bad(&mut || block_on(async { timeout(ms(1), Bad).await }).unwrap());
        bad(&mut || drop(block_on(gather([Bad, Bad]))));
        bad(&mut || drop(block_on(gather!(ready(1), Bad))));
        let pool = ThreadPool::new(1);
        block_on(async {
            let outcome = threaded(|| sync_await(Bad)).on(&pool).async_call().outcome().await;
            assert!(matches!(outcome, Err(JoinError::Panicked(panic)) if panic.message() == "into_future"));
            assert_eq!(threaded(|| sync_await(async { 1 })).on(&pool).await, 1);
        });
        assert!(LoopHandle::try_current().is_none());
        assert_eq!(block_on(async { spawn(async { 1 }).await }), 1);
    });
}

// rust-lang/futures-rs#1603: joining n futures that become ready one by one polls n * n times; also when nested
#[test]
fn gather_polls_in_proportion() {
    struct Counted<F>(F, Arc<AtomicUsize>);
    impl<F: Future + Unpin> Future for Counted<F> {
        type Output = F::Output;
        fn poll(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<F::Output> {
            self.1.fetch_add(1, SeqCst);
            Pin::new(&mut self.0).poll(cx)
        }
    }
    within(|| {
        assert_eq!(block_on(gather(Vec::<std::future::Ready<u8>>::new())), [0; 0]);
        let () = block_on(gather!());
        let polls = Arc::new(AtomicUsize::new(0));
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..10_000).map(|_| oneshot::channel()).unzip();
        let mut receivers = receivers.into_iter().map(|receiver| Counted(receiver, polls.clone()));
        block_on(async {
            let all = spawn(gather(
                (0..10)
                    .map(|_| {
                        gather(
                            (0..10)
                                .map(|_| gather(receivers.by_ref().take(100).collect::<Vec<_>>()))
                                .collect::<Vec<_>>(),
                        )
                    })
                    .collect::<Vec<_>>(),
            ));
            for (n, sender) in senders.into_iter().enumerate() {
                sender.send(n).unwrap();
                if n % 10 == 0 {
                    yield_now().await;
                }
            }
            let all: Vec<_> = all.await.into_iter().flatten().flatten().map(Result::unwrap).collect();
            assert!(all.into_iter().eq(0..10_000));
        });
        assert!(polls.load(SeqCst) <= 2 * 10_000, "{} polls", polls.load(SeqCst));
    });
}

// ------------------------------------------------------------------------------------------------ the loop's end

// tokio-rs/tokio#4724, #6505: tasks that wait for each other, and for themselves, are never freed
#[test]
fn tasks_that_wait_for_each_other_are_dropped() {
    within(|| {
        let drops = Arc::new(AtomicU32::new(0));
        block_on(async {
            let (first, has_first) = oneshot::channel::<Task<()>>();
            let (second, has_second) = oneshot::channel::<Task<()>>();
            for (n, (sender, receiver)) in [(first, has_second), (second, has_first)].into_iter().enumerate() {
                let counts = Counts(drops.clone());
                let task = spawn(async move {
                    let _counts = counts;
                    receiver.await.unwrap().await;
                    unreachable!("{n}");
                });
                sender.send(task).unwrap();
            }
            let (own, has_own) = oneshot::channel::<Task<()>>();
            let counts = Counts(drops.clone());
            let task = spawn(async move {
                let _counts = counts;
                has_own.await.unwrap().await; // its own handle
            });
            own.send(task).map_err(drop).unwrap();
            for _ in 0..5 {
                yield_now().await;
            }
        });
        assert_eq!(drops.load(SeqCst), 3);
    });
}

// compio-rs/compio#901, tokio-rs/tokio#1584, #6238: several left-over tasks panic in their Drop, maybe after the main future did
#[test]
fn left_over_tasks_whose_drops_panic() {
    child("left_over_tasks_whose_drops_panic", || {
        for main_panics in [false, true] {
            let drops = Arc::new(AtomicU32::new(0));
            let result = catch_unwind(AssertUnwindSafe(|| {
                block_on(async {
                    for n in 0..5 {
                        let drops = drops.clone();
                        let bad = OnDrop(move || {
                            drops.fetch_add(1, SeqCst);
                            panic!("the drop of task {n}");
                        });
                        let task = async move {
                            let _bad = bad;
                            pending::<()>().await;
                        };
                        spawn(task).detach();
                        let drops = Counts(drops_of(&main_panics));
                        LoopHandle::current().call_later(Duration::from_secs(60), move || drop(drops));
                    }
                    yield_now().await;
                    assert!(!main_panics, "the main future");
                });
            }));
            assert_eq!(drops.load(SeqCst), 5);
            assert!(
                !main_panics || result.is_err_and(|payload| Panic::message_of(&payload).contains("the main future"))
            );
            assert_eq!(block_on(async { spawn(async { 1 }).await }), 1);
        }
        fn drops_of(_: &bool) -> Arc<AtomicU32> {
            Arc::default()
        }
    });
}

// tokio-rs/tokio#1972, #2046: a wake-up under a lock, while the loop is being closed, drops another task that wants the lock
#[test]
fn a_wake_up_under_a_lock_while_the_loop_closes() {
    within(|| {
        for wakes_first in [false, true] {
            let lock = Arc::new(Mutex::new(0));
            let waker = Arc::new(Mutex::new(None::<Waker>));
            block_on(async {
                let wakes = || {
                    let (lock, waker) = (lock.clone(), waker.clone());
                    let on_drop = OnDrop(move || {
                        let mut guard = lock.lock().unwrap();
                        let waker = waker.lock().unwrap().take();
                        if let Some(waker) = waker {
                            waker.wake_by_ref();
                            waker.wake();
                        }
                        *guard += 1;
                    });
                    spawn(async move {
                        let _on_drop = on_drop;
                        pending::<()>().await;
                    })
                    .detach();
                };
                if wakes_first {
                    wakes();
                }
                let (inner, waker) = (lock.clone(), waker.clone());
                let on_drop = OnDrop(move || *inner.lock().unwrap() += 1);
                spawn(async move {
                    let _on_drop = on_drop;
                    poll_fn(|cx| {
                        *waker.lock().unwrap() = Some(cx.waker().clone());
                        Poll::<()>::Pending
                    })
                    .await;
                })
                .detach();
                if !wakes_first {
                    wakes();
                }
                yield_now().await;
                yield_now().await;
            });
            assert_eq!(*lock.lock().unwrap(), 2);
        }
    });
}

struct Respawn<H: 'static + Clone>(H, u32, Arc<AtomicU32>, fn(&H, Respawn<H>));

impl<H: 'static + Clone> Drop for Respawn<H> {
    fn drop(&mut self) {
        self.2.fetch_add(1, SeqCst);
        if self.1 > 0 {
            (self.3)(&self.0, Respawn(self.0.clone(), self.1 - 1, self.2.clone(), self.3));
        }
    }
}

// tokio-rs/tokio#3752, #7499, z-galaxy/zbus#380, pydantic/monty#747: what is dropped at the end spawns something that is dropped
// at once and spawns something ...
#[test]
fn each_drop_spawns_the_next_task() {
    child("each_drop_spawns_the_next_task", || {
        fn next(handle: &LoopHandle, respawn: Respawn<LoopHandle>) {
            let task = handle.spawn(async move {
                let _respawn = respawn;
                pending::<()>().await;
            });
            task.detach();
        }
        let drops = Arc::new(AtomicU32::new(0));
        block_on(async { next(&LoopHandle::current(), Respawn(LoopHandle::current(), 20_000, drops.clone(), next)) });
        assert_eq!(drops.load(SeqCst), 20_001);
    });
}

// the same reports, for a loop that was closed before
#[test]
fn each_drop_spawns_the_next_task_of_a_closed_loop() {
    child("each_drop_spawns_the_next_task_of_a_closed_loop", || {
        fn next(handle: &LoopHandle, respawn: Respawn<LoopHandle>) {
            handle.spawn(async move { drop(respawn) }).detach();
        }
        let handle = block_on(async { LoopHandle::current() });
        assert!(handle.is_closed());
        let drops = Arc::new(AtomicU32::new(0));
        next(&handle, Respawn(handle.clone(), 20_000, drops.clone(), next));
        assert_eq!(drops.load(SeqCst), 20_001);
    });
}

// the same reports, for call_soon and call_later
#[test]
fn each_drop_makes_the_next_call() {
    child("each_drop_makes_the_next_call", || {
        fn soon(handle: &LoopHandle, respawn: Respawn<LoopHandle>) {
            handle.call_soon(move || drop(respawn));
        }
        fn later(handle: &LoopHandle, respawn: Respawn<LoopHandle>) {
            handle.call_later(Duration::from_secs(60), move || drop(respawn));
        }
        for next in [soon, later] {
            let drops = Arc::new(AtomicU32::new(0));
            block_on(async {
                next(&LoopHandle::current(), Respawn(LoopHandle::current(), 20_000, drops.clone(), next))
            });
            assert_eq!(drops.load(SeqCst), 20_001);
        }
    });
}

// python/asyncio#258, aio-libs/janus#102: the same, handed in to a loop that is gone
#[test]
fn each_drop_makes_the_next_call_on_a_closed_loop() {
    child("each_drop_makes_the_next_call_on_a_closed_loop", || {
        fn soon(handle: &LoopHandle, respawn: Respawn<LoopHandle>) {
            handle.call_soon(move || drop(respawn));
        }
        fn later(handle: &LoopHandle, respawn: Respawn<LoopHandle>) {
            handle.call_later(Duration::from_secs(60), move || drop(respawn));
        }
        let handle = block_on(async { LoopHandle::current() });
        for next in [soon, later] {
            let drops = Arc::new(AtomicU32::new(0));
            next(&handle, Respawn(handle.clone(), 20_000, drops.clone(), next));
            assert_eq!(drops.load(SeqCst), 20_001);
        }
    });
}

// the same as tokio-rs/tokio#7499 with few: what must hold in any case
#[test]
fn a_hundred_drops_submit_the_next_job_to_a_closed_pool() {
    within(|| {
        fn next(pool: &ThreadPool, respawn: Respawn<ThreadPool>) {
            pool.spawn(move || drop(respawn)).detach();
        }
        let pool = ThreadPool::new(1);
        pool.shutdown();
        let drops = Arc::new(AtomicU32::new(0));
        next(&pool, Respawn(pool.clone(), 100, drops.clone(), next));
        assert_eq!(drops.load(SeqCst), 101);
    });
}

// tokio-rs/tokio#7499: submitted during the shutdown, by the Drop of what was refused, twenty thousand times
#[test]
fn each_drop_submits_the_next_job_to_a_closed_pool() {
    child("each_drop_submits_the_next_job_to_a_closed_pool", || {
        fn next(pool: &ThreadPool, respawn: Respawn<ThreadPool>) {
            pool.spawn(move || drop(respawn)).detach();
        }
        let pool = ThreadPool::new(1);
        pool.shutdown();
        let drops = Arc::new(AtomicU32::new(0));
        next(&pool, Respawn(pool.clone(), 20_000, drops.clone(), next));
        assert_eq!(drops.load(SeqCst), 20_001);
    });
}

// rust-lang/futures-rs#202 (nesting without end), own idea: a context in a context in a context
#[test]
fn a_chain_of_contexts() {
    child("a_chain_of_contexts", || {
        static CHAIN: ContextVar<Context> = ContextVar::new();
        for _ in 0..100_000 {
            CHAIN.set(Context::current());
        }
        drop(CHAIN.clear());
        assert!(CHAIN.get().is_none());
    });
}

// tokio-rs/tokio#5843, python/cpython#93740: blocking for the loop in the Drop of what the loop drops as it ends
#[test]
fn sync_wait_in_the_drop_of_a_left_over_task() {
    within(|| {
        let (said, hears) = mpsc::channel();
        block_on(async {
            let handle = LoopHandle::current();
            let on_drop =
                OnDrop(move || said.send(handle.sync_wait(async { 1 }).map_err(|error| error.to_string())).unwrap());
            spawn(async move {
                let _on_drop = on_drop;
                pending::<()>().await;
            })
            .detach();
            yield_now().await;
        });
        hears.recv_timeout(ms(1000)).unwrap().expect_err("there is nobody to run it");
    });
}

// tokio-rs/tokio#5177 ("this is a bug" after the unwinding of a block_on that is not allowed), #2529, tauri-apps/tauri#5068
#[test]
fn a_loop_goes_on_after_a_nested_block_on() {
    within(|| {
        let drops = Arc::new(AtomicU32::new(0));
        let inside = drops.clone();
        let sum = block_on(async move {
            let task = spawn(async {
                sleep(ms(5)).await;
                1
            });
            assert!(catch_unwind(|| block_on(async { 1 })).is_err());
            let mut inner = EventLoop::new();
            assert!(catch_unwind(AssertUnwindSafe(|| inner.block_on(async { 1 }))).is_err());
            let counts = Counts(inside);
            let handed_in = inner.handle().spawn(async move {
                drop(counts);
                1
            });
            drop(inner); // a loop dropped inside another one
            assert!(matches!(handed_in.outcome().await, Err(JoinError::Cancelled)));
            let pool = ThreadPool::new(1);
            let in_job = threaded(|| block_on(async { spawn(async { 1 }).await })).on(&pool).await;
            sleep(ms(1)).await;
            let soon = oneshot::channel();
            LoopHandle::current().call_soon(|| soon.0.send(1).unwrap());
            task.await + in_job + soon.1.await.unwrap() + spawn(async { 1 }).await
        });
        assert_eq!((sum, drops.load(SeqCst)), (4, 1));
    });
}

// tokio-rs/tokio#5162, #4973, #5902: a loop (and other things) in a thread-local, dropped before or after the crate's own
#[test]
fn a_loop_in_a_thread_local() {
    child("a_loop_in_a_thread_local", || {
        thread_local! {
            static KEPT: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
        }
        static VAR: ContextVar<Arc<str>> = ContextVar::new();
        static DROPS: AtomicU32 = AtomicU32::new(0);
        for crate_first in [false, true] {
            DROPS.store(0, SeqCst);
            let work = move || {
                if !crate_first {
                    KEPT.with(|_| ());
                }
                VAR.set("a".into());
                block_on(async { spawn(sleep(ms(1))).await });
                let pool = ThreadPool::new(1);
                let mut event_loop = EventLoop::builder().pool(pool.clone()).build();
                let inner = pool.clone();
                let on_drop = OnDrop(move || {
                    DROPS.fetch_add(1, SeqCst);
                    VAR.get();
                    VAR.set("b".into());
                    VAR.clear();
                    LoopHandle::try_current();
                    Context::current().run(|| ());
                    is_cancelled();
                    inner.spawn(|| ()).wait();
                    poll(pin!(sleep(ms(1))), Waker::noop());
                    poll(pin!(threaded(|| ()).into_future()), Waker::noop());
                    drop(threaded_iterable(|| 0..3));
                });
                let (mut sender, mut receiver) = spsc::channel(1);
                event_loop.block_on(async move {
                    spawn(async move {
                        let _on_drop = on_drop;
                        let mut items = threaded_iterable(|| 0..).max_size(1);
                        items.next().await;
                        let job = threaded(|| thread::sleep(ms(20))).async_call();
                        gather!(sleep(Duration::from_secs(60)), job, receiver.recv()).await;
                    })
                    .detach();
                    sleep(ms(5)).await;
                });
                sender.try_send(1).unwrap();
                let mut nap = sleep(Duration::from_secs(60));
                poll(Pin::new(&mut nap), Waker::noop());
                let mut items = IteratorWrapper::new(|| 0..).on(&pool).max_size(1);
                block_on(items.next());
                let job = pool.spawn(|| thread::sleep(ms(20)));
                KEPT.with_borrow_mut(|kept| {
                    kept.push(Box::new(event_loop));
                    kept.push(Box::new((nap, items, job, sender, Context::current())));
                    kept.push(Box::new(pool));
                });
            };
            thread::spawn(work).join().unwrap();
            assert_eq!(DROPS.load(SeqCst), 1);
        }
    });
}

// python/asyncio#258, google/bumble#947: a handle of a loop that is gone, from another thread
#[test]
fn everything_on_a_loop_that_is_gone() {
    within(|| {
        let handle = block_on(async { LoopHandle::current() });
        let drops = Arc::new(AtomicU32::new(0));
        let counts = || Counts(drops.clone());
        assert!(matches!(handle.sync_wait(async { 1 }), Err(SyncWaitError::LoopClosed)));
        let c = counts();
        assert!(matches!(handle.spawn(async move { drop(c) }).outcome().wait_here(), Err(JoinError::Cancelled)));
        let c = counts();
        handle.call_soon(move || drop(c));
        let c = counts();
        assert!(!handle.call_later(ms(1), move || drop(c)).cancel());
        assert_eq!(drops.load(SeqCst), 3);
        handle.set_default_pool(ThreadPool::new(1));
        handle.enter(|| {
            match threaded(|| 3).async_call().outcome().wait() {
                Ok(3) | Err(JoinError::Cancelled) => {}
                other => panic!("{other:?}"),
            }
            assert!(catch_unwind(|| sync_await(async { 1 })).is_err());
            assert_eq!(block_on(async { spawn(async { 4 }).await }), 4);
            assert_eq!(block_on(threaded(|| sync_await(async { 5 }))), 5);
        });
    });
}

trait WaitHere: Future + Sized {
    fn wait_here(self) -> Self::Output {
        block_on(self)
    }
}

impl<F: Future> WaitHere for F {}

// ------------------------------------------------------------------------------------------------ closing a pool from inside

/// Closes the pool in each of both ways, and says so.
fn closes(pool: &ThreadPool, drain: bool, said: &mpsc::Sender<()>) {
    if drain {
        pool.drain()
    } else {
        pool.shutdown()
    }
    said.send(());
}

// lalinsky/zio#534, reem/rust-scoped-pool#1, tokio-rs/tokio#2529: a handle's waker, which runs on the pool's thread, closes the pool
#[test]
fn a_waker_closes_the_pool() {
    struct Closes(ThreadPool, bool, mpsc::Sender<()>);
    impl Wake for Closes {
        fn wake(self: Arc<Self>) {
            closes(&self.0, self.1, &self.2);
        }
    }
    within(|| {
        for drain in [false, true] {
            let pool = ThreadPool::new(1);
            let (said, hears) = mpsc::channel();
            let waker: Waker = Arc::new(Closes(pool.clone(), drain, said)).into();
            let (go, gone) = mpsc::channel::<()>();
            let mut job = pool.spawn(move || gone.recv().is_ok());
            assert!(poll(Pin::new(&mut job), &waker).is_pending());
            go.send(()).unwrap();
            assert!(hears.recv_timeout(Duration::from_secs(3)).is_ok(), "it hangs in the waker; drain: {drain}");
            assert!(job.wait());
            pool.drain();
        }
    });
}

// own idea, after KNOWN_BUGS 9: what a job leaves behind closes the pool: its result, its context, its payload
#[test]
fn what_a_job_leaves_behind_closes_the_pool() {
    static VAR: ContextVar<Arc<dyn Any + Send + Sync>> = ContextVar::new();
    within(|| {
        for drain in [false, true] {
            for what in ["closure", "result", "payload", "context"] {
                let pool = ThreadPool::new(1);
                let (said, hears) = mpsc::channel();
                let inner = pool.clone();
                let said = Mutex::new(said);
                let bomb = OnDrop(move || closes(&inner, drain, &said.lock().unwrap()));
                match what {
                    "closure" => pool.spawn(move || drop(&bomb)).detach(),
                    "result" => pool.spawn(move || bomb).detach(),
                    "payload" => pool.spawn(move || panic_any(bomb)).detach(),
                    _ => {
                        VAR.set(Arc::new(bomb));
                        let job = pool.spawn(|| thread::sleep(ms(5)));
                        drop(VAR.clear());
                        job.detach();
                    }
                }
                assert!(hears.recv_timeout(Duration::from_secs(2)).is_ok(), "it hangs: {what}, drain: {drain}");
                pool.drain();
            }
        }
    });
}

// rayon-rs/rayon#1242 (waiting until the threads have ended), own idea: a thread-local of a worker closes its pool
#[test]
fn a_workers_thread_local_closes_the_pool() {
    thread_local! {
        static KEPT: RefCell<Option<OnDrop<Box<dyn FnMut()>>>> = const { RefCell::new(None) };
    }
    within(|| {
        for drain in [false, true] {
            for from_outside in [false, true] {
                let pool = ThreadPool::builder().threads(1).keep_alive(ms(5)).build();
                let (said, hears) = mpsc::channel();
                let inner = pool.clone();
                pool.spawn(move || KEPT.set(Some(OnDrop(Box::new(move || closes(&inner, drain, &said)))))).wait();
                if from_outside {
                    pool.drain();
                }
                let heard = hears.recv_timeout(Duration::from_secs(2));
                assert!(heard.is_ok(), "it hangs; drain: {drain}, closed from outside: {from_outside}");
                pool.shutdown();
            }
        }
    });
}

// own idea, after rayon-rs/rayon#271: the start hook closes its pool
#[test]
fn a_start_hook_closes_its_pool() {
    within(|| {
        for drain in [false, true] {
            let own = Arc::new(OnceLock::<ThreadPool>::new());
            let inside = own.clone();
            let (said, hears) = mpsc::channel();
            let (said, once) = (Mutex::new(said), AtomicBool::new(false));
            let hook = move || {
                if !once.swap(true, SeqCst) {
                    closes(inside.get().unwrap(), drain, &said.lock().unwrap());
                }
            };
            let pool = ThreadPool::builder().threads(1).on_thread_start(hook).build();
            own.set(pool.clone()).unwrap();
            let job = pool.spawn(|| 1);
            assert!(hears.recv_timeout(Duration::from_secs(3)).is_ok(), "it hangs in the hook; drain: {drain}");
            match job.outcome().wait() {
                Ok(1) | Err(JoinError::Cancelled) => {}
                other => panic!("{other:?}"),
            }
            pool.drain();
        }
    });
}

// own idea, after KNOWN_BUGS 9: an iterator (which is no job) closes the pool that it runs in
#[test]
fn an_iterator_closes_its_pool() {
    struct Closer(ThreadPool, bool, Option<mpsc::Sender<()>>, u32, bool);
    impl Closer {
        fn act(&mut self) {
            if let Some(said) = self.2.take() {
                closes(&self.0, self.1, &said);
            }
        }
    }
    impl Iterator for Closer {
        type Item = u32;
        fn next(&mut self) -> Option<u32> {
            self.3 += 1;
            if self.3 == 2 && !self.4 {
                self.act();
            }
            (self.3 < 5).then_some(self.3)
        }
    }
    impl Drop for Closer {
        fn drop(&mut self) {
            self.act();
        }
    }
    within(|| {
        for drain in [false, true] {
            for in_drop in [false, true] {
                let pool = ThreadPool::new(1);
                let (said, hears) = mpsc::channel();
                let inner = pool.clone();
                let mut items = IteratorWrapper::new(move || Closer(inner, drain, Some(said), 0, in_drop)).on(&pool);
                let first = block_on(async { catch_unwind_async(items.next()).await });
                assert!(
                    hears.recv_timeout(Duration::from_secs(2)).is_ok(),
                    "it hangs; drain: {drain}, in its drop: {in_drop}"
                );
                assert!(first.is_err() || first.is_ok_and(|item| item == Some(1)));
                catch_unwind(AssertUnwindSafe(|| block_on(items.close())));
                pool.shutdown();
            }
        }
    });
}

async fn catch_unwind_async<F: Future>(future: F) -> thread::Result<F::Output> {
    let mut future = Box::pin(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => Poll::Ready(Err(payload)),
    })
    .await
}

// ------------------------------------------------------------------------------------------------ hooks

// tokio-rs/tokio#2006 (spawn_blocking from spawn_blocking), rayon-rs/rayon#271: hooks that submit to their own pool of one, and wait
#[test]
fn hooks_wait_for_jobs_of_their_own_pool() {
    within(|| {
        let own = Arc::new(OnceLock::<ThreadPool>::new());
        let (said, hears) = mpsc::channel();
        let hook = |name: &'static str| {
            let (own, once, said) = (own.clone(), AtomicBool::new(false), Mutex::new(said.clone()));
            move || {
                if !once.swap(true, SeqCst) {
                    let value = own.get().unwrap().spawn(|| 5).wait();
                    said.lock().unwrap().send((name, value)).unwrap();
                }
            }
        };
        let pool = ThreadPool::builder()
            .threads(1)
            .keep_alive(ms(10))
            .on_thread_start(hook("start"))
            .on_thread_stop(hook("stop"))
            .build();
        own.set(pool.clone()).unwrap();
        assert_eq!(pool.spawn(|| 1).wait(), 1);
        assert_eq!(hears.recv_timeout(Duration::from_secs(2)), Ok(("start", 5)), "the start hook hangs");
        assert_eq!(hears.recv_timeout(Duration::from_secs(2)), Ok(("stop", 5)), "the stop hook hangs");
        assert_eq!(pool.spawn(|| 2).wait(), 2);
        pool.drain();
    });
}

// tokio-rs/tokio#2327, #4862: async code from a hook
#[test]
fn hooks_that_run_async_code() {
    within(|| {
        let runs = Arc::new(AtomicU32::new(0));
        let hook = || {
            let runs = runs.clone();
            move || {
                assert!(!is_cancelled());
                sync_await(async {
                    sleep(ms(1)).await;
                    yield_now().await;
                });
                block_on(async { spawn(sleep(ms(1))).await });
                assert_eq!(block_on(threaded_separate(|| 1)), 1);
                runs.fetch_add(1, SeqCst);
            }
        };
        let pool = ThreadPool::builder().threads(1).on_thread_start(hook()).on_thread_stop(hook()).build();
        // The thread is started from a loop, and ends after it.
        assert_eq!(block_on(threaded(|| 1).on(&pool)), 1);
        pool.drain();
        let runs = runs.load(SeqCst);
        assert!(runs >= 2 && runs % 2 == 0, "{runs}");
    });
}

// own idea: a thread that waits in its start hook is replaced by another one, which waits in its start hook, and is replaced ...
#[test]
fn a_start_hook_that_waits_starts_few_threads() {
    within(|| {
        let starts = Arc::new(AtomicU32::new(0));
        let counts = starts.clone();
        let hook = move || {
            counts.fetch_add(1, SeqCst);
            block_on(sleep(ms(200)));
        };
        let pool = ThreadPool::builder().threads(1).on_thread_start(hook).build();
        assert_eq!(pool.spawn(|| 1).wait(), 1);
        pool.drain();
        let starts = starts.load(SeqCst);
        assert!(starts <= 2, "{starts} threads for one job in a pool of one");
    });
}

// own idea: the last handle of a pool is dropped by its own hooks
#[test]
fn hooks_drop_the_last_handle() {
    within(|| {
        for in_start in [true, false] {
            let own = Arc::new(Mutex::new(None::<ThreadPool>));
            let ended = Arc::new(AtomicU32::new(0));
            let hook = |acts: bool| {
                let (own, ended) = (own.clone(), ended.clone());
                move || {
                    if acts {
                        let pool = own.lock().unwrap().take();
                        drop(pool);
                    }
                    ended.fetch_add(1, SeqCst);
                }
            };
            let pool = ThreadPool::builder()
                .threads(1)
                .keep_alive(ms(5))
                .on_thread_start(hook(in_start))
                .on_thread_stop(hook(!in_start))
                .build();
            *own.lock().unwrap() = Some(pool.clone());
            let job = pool.spawn(|| 1);
            drop(pool);
            assert_eq!(job.wait(), 1);
            until(|| ended.load(SeqCst) == 2);
        }
    });
}

// own idea: threads that end at once, and hooks that are paired all the same
#[test]
fn threads_that_are_not_kept_alive() {
    within(|| {
        let (starts, stops) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (a, b) = (starts.clone(), stops.clone());
        let pool = ThreadPool::builder()
            .threads(2)
            .keep_alive(Duration::ZERO)
            .on_thread_start(move || drop(a.fetch_add(1, SeqCst)))
            .on_thread_stop(move || drop(b.fetch_add(1, SeqCst)))
            .build();
        for n in 0..2000 {
            assert_eq!(pool.spawn(move || n).wait(), n);
        }
        let inner = pool.clone();
        assert_eq!(pool.spawn(move || inner.spawn(|| 1).wait()).wait(), 1);
        for max_size in [1, 2, 5] {
            let mut items = IteratorWrapper::new(|| 0..1000).on(&pool).max_size(max_size);
            block_on(async {
                for n in 0..1000 {
                    assert_eq!(items.next().await, Some(n));
                }
                assert_eq!(items.next().await, None);
            });
        }
        pool.shutdown();
        assert_eq!(starts.load(SeqCst), stops.load(SeqCst));
        assert_eq!(pool.stats().threads, 0);
    });
}

// ------------------------------------------------------------------------------------------------ Debug, and the panic hook

// hyperium/h2#333, estk/log4rs#443: printing under a lock; here what is printed to uses, or panics in the middle of, the printed thing
#[test]
fn a_writer_that_uses_what_is_being_printed() {
    struct Writer<F: FnMut()>(F);
    impl<F: FnMut()> fmt::Write for Writer<F> {
        fn write_str(&mut self, _: &str) -> fmt::Result {
            (self.0)();
            Ok(())
        }
    }
    fn print(thing: &dyn fmt::Debug, use_it: &mut dyn FnMut()) {
        fmt::write(&mut Writer(&mut *use_it), format_args!("{thing:?} {thing:#?}")).unwrap();
        let panics = || fmt::write(&mut Writer(|| panic!("the writer")), format_args!("{thing:?}"));
        catch_unwind(AssertUnwindSafe(panics)).expect_err("it prints something");
        use_it();
    }
    static VAR: ContextVar<u8> = ContextVar::new();
    within(|| {
        let pool = ThreadPool::new(1);
        print(&pool, &mut || {
            pool.spawn(|| ()).wait();
            pool.stats();
        });
        let builder = ThreadPool::builder();
        print(&builder, &mut || ());
        print(&VAR, &mut || drop(VAR.set(1)));
        VAR.set(2);
        print(&VAR, &mut || drop(VAR.clear()));
        let context = Context::current();
        print(&context, &mut || context.run(|| drop(VAR.set(1))));
        let mut event_loop = EventLoop::builder().pool(pool.clone()).build();
        let handle = event_loop.handle();
        print(&event_loop, &mut || handle.call_soon(|| ()));
        print(&handle, &mut || {
            handle.call_soon(|| ());
            handle.call_later(ms(1), || ());
            handle.spawn(async {}).detach();
        });
        event_loop.block_on(async {
            let task = spawn(pending::<()>());
            print(&task, &mut || drop(task.is_finished()));
            let outcome = spawn(pending::<()>()).outcome();
            print(&outcome, &mut || spawn(async {}).detach());
            let timer = LoopHandle::current().call_later(ms(1), || ());
            print(&timer, &mut || drop(timer.cancel()));
            let mut nap = sleep(ms(1));
            poll(Pin::new(&mut nap), Waker::noop());
            print(&nap, &mut || {
                poll(pin!(sleep(ms(1))), Waker::noop());
            });
        });
        let job = pool.spawn(|| 1);
        print(&job, &mut || drop(job.cancel()));
        let mut items = IteratorWrapper::new(|| 0..9).on(&pool);
        block_on(items.next());
        print(&items, &mut || drop(items.is_closed()));
        let (sender, receiver) = spsc::channel::<mpsc::Receiver<u8>>(1);
        print(&sender, &mut || drop(receiver.len()));
        print(&receiver, &mut || drop(sender.len()));
        let error = pool.spawn(|| panic!("a")).outcome().wait().map(|()| ()).unwrap_err();
        print(&error, &mut || pool.spawn(|| ()).wait());
        pool.drain();
    });
}

// tikv/tikv#4686: the panic hook uses what has panicked
#[test]
fn a_panic_hook_that_uses_the_pool_and_the_loop() {
    child("a_panic_hook_that_uses_the_pool_and_the_loop", || {
        static POOLS: OnceLock<[ThreadPool; 2]> = OnceLock::new();
        static HOOKS: AtomicU32 = AtomicU32::new(0);
        let [pool, closed] = POOLS.get_or_init(|| {
            let start = || panic!("the start hook");
            [ThreadPool::builder().threads(1).on_thread_start(start).build(), ThreadPool::new(1)]
        });
        panic::set_hook(Box::new(|info| {
            thread_local!(static INSIDE: RefCell<bool> = const { RefCell::new(false) });
            eprintln!("{info}");
            if INSIDE.replace(true) {
                return;
            }
            HOOKS.fetch_add(1, SeqCst);
            for pool in POOLS.get().unwrap() {
                pool.stats();
                pool.spawn(|| ()).outcome().wait();
                format!("{pool:?}");
            }
            if let Some(handle) = LoopHandle::try_current() {
                handle.call_soon(|| ());
                handle.spawn(async {}).detach();
            }
            poll(pin!(sleep(ms(1))), Waker::noop());
            INSIDE.set(false);
        }));
        let mut expected = 0;
        let mut must_panic = |code: &mut dyn FnMut()| {
            catch_unwind(AssertUnwindSafe(code)).expect_err("this is to panic");
            expected += 1;
            assert!(HOOKS.load(SeqCst) >= expected);
        };
        must_panic(&mut || pool.spawn(|| panic!("a job")).wait());
        let mut items = IteratorWrapper::new(|| 0..).on(closed).max_size(1);
        block_on(items.next());
        let mut queued = IteratorWrapper::new(|| 0..).on(closed).max_size(1);
        closed.shutdown();
        must_panic(&mut || while block_on(items.next()).is_some() {});
        must_panic(&mut || drop(block_on(queued.next())));
        must_panic(&mut || drop(closed.spawn(|| 1).wait()));
        must_panic(&mut || drop(ThreadPool::new(0)));
        must_panic(&mut || drop(spsc::channel::<u8>(0)));
        must_panic(&mut || drop(spsc::channel::<u64>(usize::MAX)));
        must_panic(&mut || drop(spawn(async {})));
        must_panic(&mut || block_on(async { block_on(async {}) }));
        must_panic(&mut || block_on(async { spawn(async { panic!("a task") }).await }));
        must_panic(&mut || block_on(async { sync_await(async {}) }));
        must_panic(&mut || {
            let mut items = IteratorWrapper::new(|| (0..).inspect(|_| panic!("an iterator"))).on(pool);
            drop(block_on(items.next()));
        });
        block_on(async { LoopHandle::current().call_soon(|| panic!("a call")) });
        block_on(async {
            LoopHandle::current().call_soon(|| panic!("a call"));
            sleep(ms(2)).await;
        });
        pool.drain();
        drop(panic::take_hook());
    });
}

// ------------------------------------------------------------------------------------------------ pools, jobs and locks

// near/nearcore#15554, aptos-labs/aptos-core#19541: who waits with a lock runs another job, which wants that lock, on its own stack
#[test]
fn waiting_with_a_lock_runs_no_other_job() {
    within(|| {
        let pool = ThreadPool::new(1);
        let lock = Arc::new(Mutex::new(0));
        let (inner, held) = (pool.clone(), lock.clone());
        pool.spawn(move || {
            let mut guard = held.lock().unwrap();
            let wanting: Vec<_> = (0..10)
                .map(|_| {
                    let lock = held.clone();
                    inner.spawn(move || *lock.lock().unwrap() += 1)
                })
                .collect();
            *guard += inner.spawn(|| 1).wait();
            let nested = inner.clone();
            *guard += inner.spawn(move || nested.spawn(|| 1).wait()).wait();
            drop(guard);
            wanting.into_iter().for_each(Job::wait);
        })
        .wait();
        assert_eq!(*lock.lock().unwrap(), 12);
    });
}

// surrealdb/affinitypool#45: a job submits to its own pool, polls the handle once and drops it: the pool hangs there
#[test]
fn a_job_polls_and_drops_a_job_of_its_own_pool() {
    within(|| {
        for threads in [1, 2, 4] {
            let pool = ThreadPool::new(threads);
            for _ in 0..500 {
                let inner = pool.clone();
                pool.spawn(move || {
                    let mut job = inner.spawn(|| ());
                    poll(Pin::new(&mut job), Waker::noop());
                    drop(job);
                    drop(threaded(|| ()).async_call());
                    inner.spawn(|| ()).cancel();
                })
                .wait();
            }
            pool.shutdown();
            let stats = pool.stats();
            assert_eq!((stats.queued, stats.submitted), (0, stats.succeeded + stats.cancelled));
        }
    });
}

// python/cpython#94440: a job, then one that is cancelled at once, then a shutdown that waits: hangs there
#[test]
fn shutdown_right_after_a_cancelled_job() {
    within(|| {
        for n in 0..300 {
            let pool = ThreadPool::new(1);
            if n % 2 == 0 {
                pool.spawn(|| ()).wait();
            }
            let job = pool.spawn(|| ());
            job.cancel();
            if n % 3 == 0 {
                drop(job);
                pool.drain();
            } else {
                pool.shutdown();
                assert!(job.is_finished());
            }
        }
    });
}

// rayon-rs/rayon#449, #819, #446: pools within pools, made and dropped by jobs
#[test]
fn pools_made_and_dropped_in_jobs_of_other_pools() {
    within(|| {
        fn nested(depth: u32) -> u32 {
            if depth == 0 {
                return 0;
            }
            let pool = ThreadPool::new(1);
            let jobs = pool.spawn_many((0..2).map(|_| move || nested(depth - 1)));
            if depth % 2 == 0 {
                drop(pool); // the queue still runs
                return jobs.into_iter().map(Job::wait).sum::<u32>() + 1;
            }
            let sum = block_on(gather(jobs)).into_iter().sum::<u32>() + 1;
            pool.shutdown();
            sum
        }
        assert_eq!(ThreadPool::new(1).spawn(|| nested(5)).wait(), 31);
    });
}

// geo-engine/geoengine#393 (rayon's build_global, twice): from inside jobs and hooks
#[test]
fn the_global_pool_is_configured_from_inside() {
    child("the_global_pool_is_configured_from_inside", || {
        let other = ThreadPool::new(1);
        let built = other.spawn(|| {
            let hook = || drop(ThreadPool::global().stats());
            ThreadPool::builder()
                .threads(2)
                .name("configured")
                .on_thread_start(hook)
                .on_thread_stop(hook)
                .build_global()
        });
        assert!(built.wait().is_ok());
        assert!(ThreadPool::builder().build_global().is_err());
        let again = ThreadPool::global().spawn(|| ThreadPool::builder().threads(9).build_global().is_err());
        assert!(again.wait());
        let name = block_on(threaded(|| thread::current().name().map(str::to_owned)));
        assert_eq!(name.as_deref(), Some("configured"));
        ThreadPool::global().shutdown();
        assert!(matches!(block_on(threaded(|| 1).async_call().outcome()), Err(JoinError::Cancelled)));
        assert!(ThreadPool::builder().build_global().is_err());
    });
}

// prefix-dev/pixi#4402, tokio-rs/tokio#5338: the process ends while jobs, streams and loops are busy
#[test]
fn the_process_exits_from_a_job() {
    child_with("the_process_exits_from_a_job", 7, || {
        let pool = ThreadPool::new(4);
        pool.spawn(|| thread::sleep(Duration::from_secs(60))).detach();
        thread::spawn(|| block_on(sleep(Duration::from_secs(60))));
        let mut items = threaded_iterable_separate(|| (0..).inspect(|_| thread::sleep(ms(1)))).max_size(2);
        block_on(items.next());
        poll(pin!(sleep(ms(1))), Waker::noop());
        pool.spawn(|| {
            thread::sleep(ms(10));
            std::process::exit(7)
        })
        .detach();
        block_on(pending::<()>());
    });
}

// ------------------------------------------------------------------------------------------------ sync_await

// Dicklesworthstone/asupersync#56, async-rs/async-std#644: loops within loops, with timers, on a pool of one
#[test]
fn sync_await_three_loops_deep() {
    within(|| {
        static POOL: OnceLock<ThreadPool> = OnceLock::new();
        fn job<R: Send + 'static>(func: impl FnOnce() -> R + Send + 'static) -> Job<R> {
            POOL.get_or_init(|| ThreadPool::new(1)).spawn(func)
        }
        fn level(depth: u32) -> u32 {
            // in a job: a loop, a job, back to that loop, and from there the next level
            block_on(async move {
                let ticks = spawn(async {
                    for _ in 0..3 {
                        sleep(ms(1)).await;
                    }
                    1
                });
                let below = job(move || {
                    sync_await(async move {
                        sleep(ms(1)).await;
                        if depth == 0 {
                            0
                        } else {
                            timeout(Duration::from_secs(5), job(move || level(depth - 1))).await.unwrap()
                        }
                    })
                });
                below.await + ticks.await
            })
        }
        assert_eq!(level(0), 1);
        assert_eq!(level(3), 4);
    });
}

// own idea, after python/cpython#111379: a job catches the unwinding of its sync_await, and goes on
#[test]
fn a_job_that_swallows_its_cancellation() {
    within(|| {
        let pool = ThreadPool::new(1);
        block_on(async {
            let (started, has_started) = oneshot::channel();
            let job = pool.spawn(move || {
                started.send(()).unwrap();
                assert!(catch_unwind(|| sync_await(pending::<()>())).is_err());
                assert!(catch_unwind(|| sync_await(pending::<()>())).is_err());
                assert!(is_cancelled());
                assert!(!thread::panicking());
                5
            });
            has_started.await.unwrap();
            assert!(!job.cancel());
            assert_eq!(job.outcome().await.ok(), Some(5)); // it only was asked
            let stats = pool.stats();
            assert_eq!((stats.succeeded, stats.panicked, stats.cancelled), (1, 0, 0));
        });
    });
}

// tokio-rs/tokio#5843 (async clean-up in Drop), own idea: the clean-up of a cancelled job uses sync_await while the stack is unwound
#[test]
fn sync_await_in_the_clean_up_of_a_cancelled_job() {
    child("sync_await_in_the_clean_up_of_a_cancelled_job", || {
        let pool = ThreadPool::new(1);
        block_on(async {
            let (started, has_started) = oneshot::channel();
            let job = pool.spawn(move || {
                let _clean_up = OnDrop(|| sync_await(async { sleep(ms(1)).await }));
                started.send(()).unwrap();
                sync_await(pending::<()>());
            });
            has_started.await.unwrap();
            sleep(ms(5)).await;
            job.cancel();
            match job.outcome().await {
                Err(JoinError::Cancelled) => {}
                other => panic!("{other:?}"),
            }
            pool.spawn(|| ()).await;
        });
    });
}

// ------------------------------------------------------------------------------------------------ iterables

// yoshuawuyts/futures-concurrency#120, rust-lang/futures-rs#1567: an iterator that is asked again after its end; and hints that lie
#[test]
fn an_iterator_that_lies() {
    struct Liar(Arc<AtomicU32>);
    impl Iterator for Liar {
        type Item = u32;
        fn next(&mut self) -> Option<u32> {
            let n = self.0.fetch_add(1, SeqCst);
            (n != 2).then_some(n) // not fused
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            panic!("nobody is to ask");
        }
    }
    struct BadIntoIter;
    impl IntoIterator for BadIntoIter {
        type Item = u8;
        type IntoIter = std::iter::Empty<u8>;
        fn into_iter(self) -> Self::IntoIter {
            panic!("into_iter");
        }
    }
    within(|| {
        for separate in [false, true] {
            for max_size in [1, 2, 3, 100] {
                let calls = Arc::new(AtomicU32::new(0));
                let liar = Liar(calls.clone());
                let items = if separate { IteratorWrapper::separate(|| liar) } else { IteratorWrapper::new(|| liar) };
                let mut items = items.max_size(max_size);
                block_on(async {
                    assert_eq!(items.next().await, Some(0));
                    assert_eq!(items.next().await, Some(1));
                    for _ in 0..3 {
                        assert_eq!(items.next().await, None);
                    }
                    items.close().await;
                });
                assert_eq!(calls.load(SeqCst), 3);
            }
            let mut items =
                if separate { IteratorWrapper::separate(|| BadIntoIter) } else { IteratorWrapper::new(|| BadIntoIter) };
            let payload = block_on(async { catch_unwind_async(items.next()).await }).unwrap_err();
            assert_eq!(Panic::message_of(&payload), "into_iter");
            assert_eq!(block_on(items.next()), None);
        }
    });
}

// python/cpython#78911, #76707: closing is given up in the middle, and done again: it must still wait for the iterator's end
#[test]
fn closing_again_after_giving_up() {
    within(|| {
        for separate in [false, true] {
            let drops = Arc::new(AtomicU32::new(0));
            let counts = Counts(drops.clone());
            let (go, gone) = mpsc::channel::<()>();
            let (waits, is_waiting) = mpsc::channel();
            let make = move || {
                (0..).inspect(move |n| {
                    let _counts = &counts;
                    if *n == 1 {
                        waits.send(()).unwrap();
                        gone.recv().ok();
                    }
                })
            };
            let mut items = if separate { IteratorWrapper::separate(make) } else { IteratorWrapper::new(make) };
            block_on(async {
                assert_eq!(items.next().await, Some(0));
                is_waiting.recv().unwrap();
                for _ in 0..3 {
                    assert!(timeout(ms(2), items.close()).await.is_err());
                    assert!(items.is_closed());
                    assert_eq!(items.next().await, None);
                }
                let mut close = pin!(items.close());
                assert!(poll(close.as_mut(), Waker::noop()).is_pending());
                go.send(()).unwrap();
                close.await;
                assert_eq!(drops.load(SeqCst), 1);
            });
        }
    });
}

// own idea: the bodies of two scopes exchange what they were lent
#[test]
fn scopes_that_exchange_their_iterables() {
    within(|| {
        let drops = Arc::new(AtomicU32::new(0));
        let make = |first: u32| {
            let counts = Counts(drops.clone());
            threaded_iterable(move || (first..).inspect(move |_| drop(&counts))).max_size(3)
        };
        let (a, b) = (make(0), make(100));
        let seen = block_on(a.scope(async |a| {
            let first = a.next().await;
            let other = b
                .scope(async |b| {
                    let other = b.next().await;
                    mem::swap(a, b);
                    (other, b.next().await)
                })
                .await;
            (first, other, a.next().await)
        }));
        assert_eq!(seen, (Some(0), (Some(100), Some(1)), Some(101)));
        assert_eq!(drops.load(SeqCst), 2);
    });
}

// ------------------------------------------------------------------------------------------------ what blocks beside the job

// own idea, after FAULTS 2: what a worker does beside its jobs blocks (with std's means); another one takes the next job
#[test]
fn what_blocks_beside_a_job_holds_up_its_own_thread_only() {
    static VAR: ContextVar<Arc<dyn Any + Send + Sync>> = ContextVar::new();
    struct BlockingWaker(Mutex<Box<dyn FnMut() + Send>>);
    impl Wake for BlockingWaker {
        fn wake(self: Arc<Self>) {
            (self.0.lock().unwrap())();
        }
    }
    within(|| {
        let mut failed = Vec::new();
        for what in
            ["result", "payload", "context", "iterator", "item", "consumer's waker", "thread-local", "stop hook"]
        {
            let (begun, has_begun) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            let mut ends = Some((begun, released));
            let mut block = move || {
                if let Some((begun, released)) = ends.take() {
                    begun.send(()).unwrap();
                    released.recv().ok();
                }
            };
            let hook = Arc::new(Mutex::new(None::<Box<dyn FnMut() + Send>>));
            let inside = hook.clone();
            let stop = move || {
                let code = inside.lock().unwrap().take();
                if let Some(mut code) = code {
                    code();
                }
            };
            let pool = ThreadPool::builder().threads(2).keep_alive(ms(5)).on_thread_stop(stop).build();
            let mut kept = None;
            match what {
                "result" => pool.spawn(move || (thread::sleep(ms(5)), OnDrop(block))).detach(),
                "payload" => {
                    let panics = move || {
                        thread::sleep(ms(5));
                        panic_any(OnDrop(block))
                    };
                    pool.spawn(panics).detach();
                }
                "context" => {
                    let block = Mutex::new(block);
                    VAR.set(Arc::new(OnDrop(move || (block.lock().unwrap())())));
                    let job = pool.spawn(|| thread::sleep(ms(5)));
                    drop(VAR.clear());
                    job.detach();
                }
                "iterator" => {
                    let on_drop = OnDrop(block);
                    let mut items = IteratorWrapper::new(move || {
                        let mut on_drop = Some(on_drop);
                        (0..3).inspect(move |_| drop(on_drop.as_mut()))
                    })
                    .on(&pool);
                    block_on(items.next());
                    kept = Some(items);
                }
                "item" => {
                    let on_drop = OnDrop(block);
                    let (closed, is_closed) = mpsc::channel::<()>();
                    let (entered, has_entered) = mpsc::channel();
                    let mut items = IteratorWrapper::new(move || {
                        std::iter::once_with(move || {
                            entered.send(()).unwrap();
                            is_closed.recv().ok();
                            on_drop
                        })
                    })
                    .on(&pool);
                    poll(pin!(items.next()), Waker::noop()).is_ready();
                    has_entered.recv().unwrap();
                    drop(items);
                    drop(closed);
                }
                "consumer's waker" => {
                    let (go, gone) = mpsc::channel::<()>();
                    let mut items = IteratorWrapper::new(move || {
                        gone.recv().ok();
                        0..3
                    })
                    .on(&pool);
                    let waker = Arc::new(BlockingWaker(Mutex::new(Box::new(block)))).into();
                    assert!(Pin::new(&mut items).poll_next(&mut Cx::from_waker(&waker)).is_pending());
                    drop(go);
                    kept = Some(items);
                }
                "thread-local" => {
                    thread_local!(static KEPT: RefCell<Option<OnDrop<Box<dyn FnMut()>>>> = const { RefCell::new(None) });
                    pool.spawn(move || KEPT.set(Some(OnDrop(Box::new(block))))).wait();
                }
                _ => {
                    *hook.lock().unwrap() = Some(Box::new(move || block()));
                    pool.spawn(|| ()).wait();
                }
            }
            has_begun.recv_timeout(Duration::from_secs(2)).expect(what);
            let next = pool.spawn(|| ());
            let start = Instant::now();
            while !next.is_finished() && start.elapsed() < ms(700) {
                thread::sleep(ms(1));
            }
            if !next.is_finished() {
                failed.push(what);
            }
            drop(release);
            next.wait();
            drop(kept);
            pool.drain();
        }
        assert_eq!(failed, [""; 0], "the next job waits though a thread is free");
    });
}
