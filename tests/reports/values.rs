//! Values of unusual kinds: payloads whose `Drop` panics, large values, strict alignments, odd names.

#![allow(clippy::large_stack_arrays, clippy::large_futures, reason = "the tests are about large values")]

use crate::helpers::iterables::*;
use crate::{MILLI, caught};
use offthread::{
    ContextVar, IteratorWrapper, LoopHandle, ThreadPool, block_on, gather, oneshot, sleep, spawn, spsc, threaded,
    threaded_iterable, threaded_iterable_separate, threaded_separate, yield_now,
};
use std::future::{pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::{mem, thread};

/// A value whose `Drop` panics, with another such value as the payload.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            resume_unwind(Box::new(Bomb(self.0 - 1)));
        }
    }
}

/// rust 86027, rust 85927: forbids that a thread or the process ends because the `Drop` of a panic payload panics, with
/// a payload whose `Drop` panics, and so on.
#[test]
fn a_payload_whose_drop_panics_with_such_a_payload_ends_no_thread() {
    /// Catches a panic, and leaks its payload, whose `Drop` would panic.
    fn survive(code: impl FnOnce()) {
        let _ = catch_unwind(AssertUnwindSafe(code)).map_err(mem::forget);
    }
    let _watchdog = watchdog();
    for depth in [1, 2, 3, u32::MAX] {
        let explode = move || -> () { resume_unwind(Box::new(Bomb(depth))) };
        let pool = ThreadPool::builder().threads(1).on_thread_start(explode).build();
        let job = pool.spawn(explode);
        survive(|| job.detach());
        let job = pool.spawn(explode);
        until("the job has ended", || job.is_finished());
        survive(|| drop(job));
        assert_eq!(pool.spawn(|| 1).wait(), 1);
        assert_eq!(pool.stats().panicked, 2);
        block_on(async {
            spawn(async move { explode() }).detach();
            LoopHandle::current().call_soon(explode);
            LoopHandle::current().call_later(MILLI, explode);
            sleep(5 * MILLI).await;
            let mut items = IteratorWrapper::new(move || (0..5).inspect(move |_| explode())).on(&pool);
            survive(|| _ = poll_once(&mut items));
            drop(items);
            pool.spawn(|| ()).await;
            let mut items = IteratorWrapper::new(move || (0..5).inspect(move |_| explode())).on(&pool);
            let _ = caught(items.next()).await.map_err(mem::forget);
        });
        pool.drain();
    }
}

/// No report: forbids that dropping an iterable panics because the `Drop` of its iterator's panic payload panics.
#[test]
fn dropping_an_iterable_discards_the_payload_of_its_iterator() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let (go, gate) = mpsc::channel::<()>();
    let make = move || -> [u8; 0] {
        let _ = gate.recv();
        resume_unwind(Box::new(Bomb(1)));
    };
    let mut items = IteratorWrapper::new(make).on(&pool);
    assert!(poll_once(&mut items).is_pending());
    drop(go);
    pool.drain();
    drop(items);
}

/// No report: forbids that cancelling a task panics. A value of the task's context panics in its `Drop`, with a payload
/// whose `Drop` panics as well.
#[test]
fn cancelling_a_task_discards_the_payload_of_a_value_of_its_context() {
    #[derive(Clone)]
    struct Explodes;
    impl Drop for Explodes {
        fn drop(&mut self) {
            resume_unwind(Box::new(Bomb(1)));
        }
    }
    static VALUE: ContextVar<Explodes> = ContextVar::new();
    let _watchdog = watchdog();
    block_on(async {
        let task = spawn(async {
            VALUE.set(Explodes);
            pending::<()>().await;
        });
        yield_now().await;
        assert!(task.cancel());
    });
}

// --- sizes ----------------------------------------------------------------------------------------------------------

const BIG: usize = 48 << 10;

fn sum(bytes: &[u8; BIG]) -> usize {
    bytes.iter().map(|byte| usize::from(*byte)).sum()
}

/// Runs each case in its own stack frame, on a thread with a stack of 2 MiB.
fn on_a_small_stack(cases: Vec<fn(&ThreadPool)>) {
    let run = move || {
        let pool = ThreadPool::builder().threads(2).stack_size(2 << 20).build();
        for case in cases {
            case(&pool);
        }
    };
    thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

/// tokio 6057: forbids that a closure or result of 48 KiB overflows a stack of 2 MiB on its way into or out of a job.
#[test]
fn large_closures_and_results_fit_a_small_stack() {
    fn capturing() -> impl FnOnce() -> usize + Send {
        let big = [1; BIG];
        move || sum(&big)
    }
    let _watchdog = watchdog();
    on_a_small_stack(vec![
        |pool| assert_eq!(pool.spawn(capturing()).wait(), BIG),
        |pool| assert_eq!(sum(&pool.spawn(|| [1; BIG]).wait()), BIG),
        |_| assert_eq!(threaded(capturing()).separate().async_call().wait(), BIG),
        |_| assert_eq!(sum(&threaded(|| [1; BIG]).separate().async_call().wait()), BIG),
        |pool| assert_eq!(block_on(threaded(capturing()).on(pool)), BIG),
        |pool| assert_eq!(pool.spawn_many([capturing()]).remove(0).wait(), BIG),
    ]);
}

/// tokio 6057: forbids that a future, output or item of 48 KiB overflows a stack of 2 MiB.
#[test]
fn large_futures_and_items_fit_a_small_stack() {
    let _watchdog = watchdog();
    on_a_small_stack(vec![
        |_| {
            let task = async {
                let big = [1; BIG];
                yield_now().await;
                sum(&big)
            };
            assert_eq!(block_on(async { spawn(task).await }), BIG);
        },
        |_| assert_eq!(sum(&block_on(async { spawn(async { [1; BIG] }).await })), BIG),
        |_| {
            let (sender, receiver) = oneshot::channel();
            sender.send([1; BIG]).unwrap();
            assert_eq!(sum(&block_on(receiver).unwrap()), BIG);
        },
        |_| {
            let (mut sender, mut receiver) = spsc::channel(2);
            sender.send_blocking([1; BIG]).unwrap();
            assert_eq!(sum(&receiver.recv_blocking().unwrap()), BIG);
        },
        |pool| {
            let mut items = threaded_iterable(|| (0..2).map(|_| [1; BIG])).on(pool).max_size(1);
            assert_eq!(sum(&block_on(items.next()).unwrap()), BIG);
        },
        |_| assert_eq!(block_on(gather([0, 1].map(|_| async { [1_u8; BIG] }))).len(), 2),
    ]);
}

/// No report: forbids that a value with the alignment of a page is misaligned. (`tests/pool/edges.rs` tests jobs.)
#[test]
fn values_may_be_aligned_as_a_page() {
    #[derive(Clone)]
    #[repr(align(4096))]
    struct Page(u8);
    impl Page {
        #[track_caller]
        fn check(&self, value: u8) {
            assert_eq!((std::ptr::from_ref(self).addr() % 4096, self.0), (0, value));
        }
    }
    static VAR: ContextVar<Page> = ContextVar::new();
    let _watchdog = watchdog();
    VAR.set(Page(2));
    VAR.with(|page| page.unwrap().check(2));
    block_on(async {
        spawn(async { VAR.with(|page| page.unwrap().check(2)) }).await;
        let page = Page(3);
        let task = async move {
            yield_now().await;
            page.check(3);
            page
        };
        spawn(task).await.check(3);
        let page = Page(4);
        LoopHandle::current().call_soon(move || page.check(4));
        for (page, number) in gather((0..3).map(|number| ready(Page(number)))).await.iter().zip(0..) {
            page.check(number);
        }
        let mut items = threaded_iterable(|| (0..9).map(Page)).max_size(2);
        for number in 0..9 {
            items.next().await.unwrap().check(number);
        }
    });
    let (mut sender, mut receiver) = spsc::channel(3);
    let sending = thread::spawn(move || (0..9).for_each(|number| sender.send_blocking(Page(number)).unwrap()));
    for (page, number) in receiver.iter().zip(0..9) {
        page.check(number);
    }
    sending.join().unwrap();
    let (sender, receiver) = oneshot::channel();
    sender.send(Page(5)).map_err(drop).unwrap();
    receiver.recv_blocking().unwrap().check(5);
}

/// rust 32475: forbids that an empty, long or strange thread name is refused or altered.
#[test]
fn threads_may_have_odd_names() {
    let _watchdog = watchdog();
    let own = || thread::current().name().map(str::to_owned);
    let long = "x".repeat(100_000);
    for name in ["", "ünïcödé-nämes-that-the-system-cuts-in-the-middle-of-ä-lëttër-🦀", "a\nb\u{1b}[31m", &long]
    {
        let pool = ThreadPool::builder().threads(1).name(name).build();
        assert_eq!(pool.spawn(own).wait().as_deref(), Some(name));
        assert_eq!(threaded_separate(own).name(name).async_call().wait().as_deref(), Some(name));
        let mut items = threaded_iterable_separate(move || std::iter::once(own())).name(name);
        assert_eq!(take(&mut items).unwrap().as_deref(), Some(name));
    }
}
