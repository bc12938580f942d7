//! A panic that the caller has caused points at the caller's line, not at a line of this crate.

#![forbid(unsafe_code)]

use offthread::{
    EventLoop, IteratorWrapper, JoinError, ThreadPool, block_on, spawn, spsc, sync_await, threaded, threaded_iterable,
    threaded_iterable_separate, threaded_separate,
};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// File and line of the last panic.
static LAST: Mutex<(String, u32)> = Mutex::new((String::new(), 0));

fn last() -> (String, u32) {
    LAST.lock().unwrap().clone()
}

/// Forbids: the location of a panic that the caller has caused is a line of this crate.
#[test]
fn panics_point_at_the_caller() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().unwrap();
        *LAST.lock().unwrap() = (place.file().to_owned(), place.line());
    }));
    let pool = ThreadPool::new(1);
    pool.spawn(|| ()).wait();
    /// Evaluates each expression. Returns its text, whether it has panicked, and the location of the panic.
    macro_rules! each_panics_here {
        ($($code:expr;)+) => { [$((stringify!($code), catch_unwind(AssertUnwindSafe(|| _ = $code)).is_err(), last())),+] };
    }
    let separate = || threaded_iterable_separate(|| 0..9);
    let started = || {
        let mut items = threaded_iterable(|| 0..9);
        block_on(items.next());
        items
    };
    let closed = || {
        let pool = ThreadPool::new(1);
        pool.drain();
        pool.spawn(|| ())
    };
    let results = each_panics_here![
        ThreadPool::new(0);
        ThreadPool::builder().threads(0);
        ThreadPool::builder().name("a\0b");
        EventLoop::builder().pool_size(0);
        spsc::channel::<u8>(0);
        spsc::channel::<u8>(usize::MAX);
        threaded(|| ()).name("a\0b");
        threaded_separate(|| ()).name("a\0b");
        threaded_iterable(|| 0..9).max_size(0);
        IteratorWrapper::new(|| 0..9).name("a\0b");
        separate().on(&pool);
        started().max_size(2);
        started().on(&pool);
        started().name("late");
        block_on(async { block_on(async {}) });
        block_on(async { EventLoop::new().block_on(async {}) });
        spawn(async {});
        offthread::LoopHandle::current();
        block_on(async { sync_await(async {}) });
        closed().wait();
    ];
    let _ = panic::take_hook();
    let mut line_before = 0;
    for (code, panicked, (file, line)) in results {
        assert!(panicked, "{code} does not panic");
        assert_eq!(file, file!(), "{code}");
        assert!(line > line_before, "{code}: the panic points at another line");
        line_before = line;
    }
    assert!(matches!(closed().outcome().wait(), Err(JoinError::Cancelled)));
}
