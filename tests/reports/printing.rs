//! Printing a value while it is used, and a panic hook that uses the pool or loop in which the panic occurred.

use crate::helpers::iterables::*;
use crate::{MILLI, poll};
use offthread::{
    Context, ContextVar, EventLoop, IteratorWrapper, LoopHandle, ThreadPool, block_on, sleep, spawn, spsc, sync_await,
};
use std::cell::Cell;
use std::fmt::{self, Debug, Write};
use std::future::pending;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Waker;

/// h2 333, log4rs 443: forbids that a value is printed while one of its locks is held: the writer may use the value, or
/// panic.
#[test]
fn a_writer_may_use_the_printed_value() {
    struct Writer<F>(F);
    impl<F: FnMut()> Write for Writer<F> {
        fn write_str(&mut self, _: &str) -> fmt::Result {
            (self.0)();
            Ok(())
        }
    }
    fn print(value: &dyn Debug, mut use_it: impl FnMut()) {
        fmt::write(&mut Writer(&mut use_it), format_args!("{value:?} {value:#?}")).unwrap();
        let fails = || fmt::write(&mut Writer(|| quiet_panic("the writer")), format_args!("{value:?}"));
        catch_unwind(AssertUnwindSafe(fails)).expect_err("nothing was printed");
        use_it();
    }
    static VAR: ContextVar<u8> = ContextVar::new();
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    print(&pool, || {
        pool.spawn(|| ()).wait();
        pool.stats();
    });
    print(&ThreadPool::builder(), || ());
    print(&VAR, || _ = VAR.set(1));
    VAR.set(2);
    print(&VAR, || _ = VAR.clear());
    let context = Context::current();
    print(&context, || context.run(|| _ = VAR.set(1)));
    let mut event_loop = EventLoop::builder().pool(pool.clone()).build();
    let handle = event_loop.handle();
    print(&event_loop, || handle.call_soon(|| ()));
    print(&handle, || {
        handle.call_soon(|| ());
        handle.call_later(MILLI, || ());
        handle.spawn(async {}).detach();
    });
    event_loop.block_on(async {
        let task = spawn(pending::<()>());
        print(&task, || _ = task.is_finished());
        let outcome = spawn(pending::<()>()).outcome();
        print(&outcome, || spawn(async {}).detach());
        let timer = LoopHandle::current().call_later(MILLI, || ());
        print(&timer, || _ = timer.cancel());
        let mut nap = sleep(MILLI);
        let _ = poll(&mut nap, Waker::noop());
        print(&nap, || _ = poll(sleep(MILLI), Waker::noop()));
    });
    let job = pool.spawn(|| 1);
    print(&job, || _ = job.cancel());
    let mut items = IteratorWrapper::new(|| 0..9).on(&pool);
    take(&mut items);
    print(&items, || _ = items.is_closed());
    let (sender, receiver) = spsc::channel::<std::sync::mpsc::Receiver<u8>>(1);
    print(&sender, || _ = receiver.len());
    print(&receiver, || _ = sender.len());
    let error = pool.spawn(|| quiet_panic("a job")).outcome().wait().unwrap_err();
    print(&error, || pool.spawn(|| ()).wait());
}

/// tikv 4686: forbids that a panic hook deadlocks when it uses the pool or the loop in which the panic occurred.
#[test]
fn a_panic_hook_may_use_the_pool_and_the_loop() {
    let output = child("printing::panic_hook_probe", None);
    assert!(output.as_ref().is_ok_and(|text| text.contains("the probe has passed")), "{output:?}");
}

#[test]
#[ignore = "run by `a_panic_hook_may_use_the_pool_and_the_loop`, in a process of its own, since it sets the panic hook"]
fn panic_hook_probe() {
    static POOLS: OnceLock<[ThreadPool; 2]> = OnceLock::new();
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let _watchdog = watchdog();
    let [pool, closed] = POOLS.get_or_init(|| {
        let start = || panic!("the start hook");
        [ThreadPool::builder().threads(1).on_thread_start(start).build(), ThreadPool::new(1)]
    });
    panic::set_hook(Box::new(|info| {
        thread_local!(static INSIDE: Cell<bool> = const { Cell::new(false) });
        eprintln!("{info}");
        if INSIDE.replace(true) {
            return;
        }
        CALLS.fetch_add(1, SeqCst);
        for pool in POOLS.get().unwrap() {
            pool.stats();
            let _ = pool.spawn(|| ()).outcome().wait();
            assert!(!format!("{pool:?}").is_empty());
        }
        if let Some(handle) = LoopHandle::try_current() {
            handle.call_soon(|| ());
            handle.spawn(async {}).detach();
        }
        let _ = poll(sleep(MILLI), Waker::noop());
        INSIDE.set(false);
    }));
    let mut expected = 0;
    let mut panics = |code: &mut dyn FnMut()| {
        catch_unwind(AssertUnwindSafe(code)).expect_err("the code did not panic");
        expected += 1;
        assert!(CALLS.load(SeqCst) >= expected);
    };
    panics(&mut || pool.spawn(|| panic!("a job")).wait());
    let mut started = IteratorWrapper::new(|| 0..).on(closed).max_size(1);
    take(&mut started);
    let mut queued = IteratorWrapper::new(|| 0..).on(closed).max_size(1);
    closed.shutdown();
    panics(&mut || while take(&mut started).is_some() {});
    panics(&mut || _ = take(&mut queued));
    panics(&mut || _ = closed.spawn(|| 1).wait());
    panics(&mut || drop(ThreadPool::new(0)));
    panics(&mut || drop(spsc::channel::<u8>(0)));
    panics(&mut || drop(spsc::channel::<u64>(usize::MAX)));
    panics(&mut || drop(spawn(async {})));
    panics(&mut || block_on(async { block_on(async {}) }));
    panics(&mut || block_on(async { spawn(async { panic!("a task") }).await }));
    panics(&mut || block_on(async { sync_await(async {}) }));
    panics(&mut || {
        let mut items = IteratorWrapper::new(|| (0..).inspect(|_| panic!("an iterator"))).on(pool);
        take(&mut items);
    });
    block_on(async { LoopHandle::current().call_soon(|| panic!("a call")) });
    block_on(async {
        LoopHandle::current().call_soon(|| panic!("a call"));
        sleep(MILLI).await;
    });
    pool.drain();
    drop(panic::take_hook());
    println!("the probe has passed");
}
