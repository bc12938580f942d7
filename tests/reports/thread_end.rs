//! The crate in the destructors of thread-locals.

use crate::helpers::iterables::*;
use crate::{LONG, MILLI, poll};
use offthread::{
    Context, ContextVar, EventLoop, IteratorWrapper, LoopHandle, ThreadPool, block_on, gather, is_cancelled, sleep,
    spawn, spsc, threaded, threaded_iterable,
};
use std::any::Any;
use std::cell::RefCell;
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Waker;
use std::thread;

/// tokio 5162, tokio 4973, tokio 5902: forbids that a loop, a pool or a handle in a thread-local panics or hangs when
/// it is dropped, before or after the crate's own thread-locals.
#[test]
fn everything_may_be_dropped_in_a_thread_local() {
    thread_local! {
        static KEPT: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
    }
    static VAR: ContextVar<Arc<str>> = ContextVar::new();
    let work = |dropped: &Arc<AtomicUsize>| {
        VAR.set("a".into());
        block_on(async { spawn(sleep(MILLI)).await });
        let pool = ThreadPool::new(1);
        let mut event_loop = EventLoop::builder().pool(pool.clone()).build();
        let (inside, dropped) = (pool.clone(), dropped.clone());
        let guard = on_drop(move || {
            VAR.get();
            VAR.set("b".into());
            VAR.clear();
            LoopHandle::try_current();
            Context::current().run(|| ());
            assert!(!is_cancelled());
            inside.spawn(|| ()).wait();
            let _ = poll(sleep(MILLI), Waker::noop());
            let _ = poll(threaded(|| ()).into_future(), Waker::noop());
            drop(threaded_iterable(|| 0..3));
            // This comes last, since the loop discards a panic of this closure.
            dropped.fetch_add(1, SeqCst);
        });
        let (mut sender, mut receiver) = spsc::channel(1);
        event_loop.block_on(async move {
            let task = async move {
                let _guard = guard;
                let mut items = threaded_iterable(|| 0..).max_size(1);
                items.next().await;
                let job = threaded(|| thread::sleep(5 * MILLI)).async_call();
                gather!(sleep(LONG), job, receiver.recv()).await;
            };
            spawn(task).detach();
            sleep(2 * MILLI).await;
        });
        sender.try_send(1).unwrap();
        let mut nap = sleep(LONG);
        assert!(poll(&mut nap, Waker::noop()).is_pending());
        let mut items = IteratorWrapper::new(|| 0..).on(&pool).max_size(1);
        take(&mut items);
        let job = pool.spawn(|| thread::sleep(5 * MILLI));
        KEPT.with_borrow_mut(|kept| {
            kept.push(Box::new(event_loop));
            kept.push(Box::new((nap, items, job, sender, Context::current())));
            kept.push(Box::new(pool));
        });
    };
    let _watchdog = watchdog();
    // The order of first use decides the order of destruction.
    for crate_first in [false, true] {
        let dropped = Arc::new(AtomicUsize::new(0));
        let inside = dropped.clone();
        let run = move || {
            if !crate_first {
                KEPT.with(|_| ());
            }
            work(&inside);
        };
        thread::spawn(run).join().unwrap();
        assert_eq!(dropped.load(SeqCst), 1);
    }
}
