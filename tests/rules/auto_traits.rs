//! The public types that are `Send`, `Sync`, `Unpin`, `Debug` or errors: for contents that are `Send` and `Sync`
//! (`i32`), `Send` only (`Cell`), and neither (`Rc`).
//!
//! A missing bound is unsound: a value that belongs to one thread could reach another. A superfluous bound makes a type
//! useless in a task that moves between threads.

#![forbid(unsafe_code)]

use offthread::{
    Elapsed, EventLoop, EventLoopBuilder, GlobalPoolExists, IteratorWrapper, Job, JoinError, LoopHandle, Outcome,
    Panic, ShutdownTimeout, Sleep, SyncWaitError, Task, TaskOutcome, ThreadPool, Threaded, TimerHandle, Yielder,
    gather, oneshot, spsc, timeout, yield_now,
};
use std::cell::Cell;
use std::error::Error;
use std::fmt::Debug;
use std::future::{Future, IntoFuture};
use std::rc::Rc;
use std::time::Duration;

/// Whether a type implements a trait, as a value, so that a wrong answer fails one test instead of the build.
macro_rules! has {
    ($type:ty: $($bound:tt)+) => {{
        #[allow(dead_code, reason = "only one of the two constants is used: it is the answer")]
        trait Otherwise {
            const HAS: bool = false;
        }
        impl<T> Otherwise for T {}
        struct Probe<T>(std::marker::PhantomData<T>);
        // If the bound holds, this inherent constant takes precedence over the trait's constant.
        #[allow(dead_code, reason = "only one of the two constants is used: it is the answer")]
        impl<T: $($bound)+> Probe<T> {
            const HAS: bool = true;
        }
        Probe::<$type>::HAS
    }};
}

/// Whether a type is `Send`, and whether it is `Sync`.
macro_rules! threads {
    ($type:ty) => {
        (has!($type: Send), has!($type: Sync))
    };
}

type Shared = i32;
type Sendable = Cell<i32>;
type Local = Rc<i32>;

const ALL: (bool, bool) = (true, true);
const NONE: (bool, bool) = (false, false);

/// Tests the probe itself, on types whose answers are known.
#[test]
fn the_probe_is_right_about_known_types() {
    assert_eq!(threads!(Shared), ALL);
    assert_eq!(threads!(Sendable), (true, false));
    assert_eq!(threads!(Local), NONE);
    assert!(has!(Shared: Unpin) && !has!(std::marker::PhantomPinned: Unpin));
    assert!(has!(Shared: Debug) && !has!(Opaque: Debug));
    assert!(has!(std::fmt::Error: Error) && !has!(Shared: Error));
}

/// A type without `Debug`.
struct Opaque;

/// A stream is `Send` and `Sync` if its items are `Send`, and always `Debug` and `Unpin`.
#[test]
fn an_iterable_is_send_and_sync_where_its_items_are_send() {
    assert_eq!(threads!(IteratorWrapper<Shared>), ALL);
    assert_eq!(threads!(IteratorWrapper<Sendable>), ALL);
    assert_eq!(threads!(IteratorWrapper<Local>), NONE);
    assert!(has!(IteratorWrapper<Opaque>: Debug));
    assert!(has!(IteratorWrapper<std::marker::PhantomPinned>: Unpin));
    assert!(!has!(IteratorWrapper<Shared>: Clone));
}

/// The body of a generator may lend the yielder to another thread.
#[test]
fn a_yielder_is_send_and_sync_where_its_items_are_send() {
    assert_eq!(threads!(Yielder<Shared>), ALL);
    assert_eq!(threads!(Yielder<Sendable>), ALL);
    assert_eq!(threads!(Yielder<Local>), NONE);
    assert!(has!(Yielder<Opaque>: Debug));
    assert!(has!(Yielder<std::marker::PhantomPinned>: Unpin));
}

/// No method that takes `&self` hands out a value, so `T: Send` is enough for both traits.
#[test]
fn the_ends_of_a_oneshot_are_send_and_sync_where_the_value_is_send() {
    assert_eq!(threads!(oneshot::Sender<Shared>), ALL);
    assert_eq!(threads!(oneshot::Sender<Sendable>), ALL);
    assert_eq!(threads!(oneshot::Sender<Local>), NONE);
    assert_eq!(threads!(oneshot::Receiver<Shared>), ALL);
    assert_eq!(threads!(oneshot::Receiver<Sendable>), ALL);
    assert_eq!(threads!(oneshot::Receiver<Local>), NONE);
}

/// No method that takes `&self` hands out an item, so `T: Send` is enough for both traits.
#[test]
fn the_ends_of_a_channel_are_send_and_sync_where_the_items_are_send() {
    assert_eq!(threads!(spsc::Sender<Shared>), ALL);
    assert_eq!(threads!(spsc::Sender<Sendable>), ALL);
    assert_eq!(threads!(spsc::Sender<Local>), NONE);
    assert_eq!(threads!(spsc::Receiver<Shared>), ALL);
    assert_eq!(threads!(spsc::Receiver<Sendable>), ALL);
    assert_eq!(threads!(spsc::Receiver<Local>), NONE);
}

/// The handle of a job whose result is `Send`, but not `Sync`, is itself `Send`.
#[test]
fn a_job_is_send_where_its_result_is() {
    assert_eq!(threads!(Job<Shared>), ALL);
    assert!(has!(Job<Sendable>: Send));
    assert_eq!(threads!(Outcome<Shared>), ALL);
    assert!(has!(Outcome<Sendable>: Send));
}

/// The handle of a job whose result is not `Send` is not `Send` either.
#[test]
fn a_job_is_not_send_where_its_result_is_not() {
    assert!(!has!(Job<Local>: Send));
    assert!(!has!(Outcome<Local>: Send));
}

#[test]
fn errors_of_channels_are_send_and_sync_where_their_items_are() {
    assert_eq!(threads!(spsc::SendError<Shared>), ALL);
    assert_eq!(threads!(spsc::SendError<Sendable>), (true, false));
    assert_eq!(threads!(spsc::SendError<Local>), NONE);
    assert_eq!(threads!(spsc::TrySendError<Shared>), ALL);
    assert_eq!(threads!(spsc::TrySendError<Sendable>), (true, false));
    assert_eq!(threads!(spsc::TrySendError<Local>), NONE);
    assert_eq!(threads!(spsc::SendTimeoutError<Shared>), ALL);
    assert_eq!(threads!(spsc::SendTimeoutError<Sendable>), (true, false));
    assert_eq!(threads!(spsc::SendTimeoutError<Local>), NONE);
}

/// A panic's payload need not be `Sync`. `Panic` is `Sync` nevertheless, so a `JoinError` is too, and `?` converts it
/// into any error box.
#[test]
fn errors_without_parameters_and_sleeps_and_pools_are_send_and_sync() {
    assert_eq!(threads!(spsc::TryRecvError), ALL);
    assert_eq!(threads!(spsc::RecvTimeoutError), ALL);
    assert_eq!(threads!(oneshot::TryRecvError), ALL);
    assert_eq!(threads!(oneshot::Closed), ALL);
    assert_eq!(threads!(JoinError), ALL);
    assert_eq!(threads!(Panic), ALL);
    assert_eq!(threads!(Elapsed), ALL);
    assert_eq!(threads!(Sleep), ALL);
    assert_eq!(threads!(ThreadPool), ALL);
}

#[test]
fn a_threaded_call_is_send_and_sync_where_its_function_is() {
    assert_eq!(threads!(Threaded<fn() -> i32>), ALL);
    assert!(has!(Threaded<Sendable>: Send) && !has!(Threaded<Sendable>: Sync));
    assert_eq!(threads!(Threaded<Local>), NONE);
}

/// The undelivered value in an error need not be `Debug` or `Send`.
#[test]
fn every_error_type_implements_error() {
    assert!(has!(spsc::SendError<Opaque>: Error));
    assert!(has!(spsc::TrySendError<Opaque>: Error));
    assert!(has!(spsc::SendTimeoutError<Opaque>: Error));
    assert!(has!(spsc::SendError<Local>: Error));
    assert!(has!(spsc::TryRecvError: Error));
    assert!(has!(spsc::RecvTimeoutError: Error));
    assert!(has!(oneshot::TryRecvError: Error));
    assert!(has!(oneshot::Closed: Error));
    assert!(has!(Elapsed: Error));
    assert!(has!(GlobalPoolExists: Error));
    assert!(has!(ShutdownTimeout: Error));
    assert!(has!(SyncWaitError: Error));
    assert!(has!(JoinError: Error));
    assert!(has!(JoinError: Into<Box<dyn Error + Send + Sync>>));
    assert!(has!(spsc::TrySendError<Opaque>: Into<Box<dyn Error + Send + Sync>>));
}

/// Handles and errors are `Debug` even if their contents are not.
#[test]
fn handles_and_errors_are_debug_for_any_contents() {
    assert!(has!(oneshot::Sender<Opaque>: Debug));
    assert!(has!(oneshot::Receiver<Opaque>: Debug));
    assert!(has!(oneshot::Closed: Debug));
    assert!(has!(oneshot::TryRecvError: Debug));
    assert!(has!(spsc::Sender<Opaque>: Debug));
    assert!(has!(spsc::Receiver<Opaque>: Debug));
    assert!(has!(spsc::SendError<Opaque>: Debug));
    assert!(has!(spsc::TrySendError<Opaque>: Debug));
    assert!(has!(spsc::SendTimeoutError<Opaque>: Debug));
    assert!(has!(spsc::TryRecvError: Debug));
    assert!(has!(spsc::RecvTimeoutError: Debug));
    assert!(has!(Job<Opaque>: Debug));
    assert!(has!(Outcome<Opaque>: Debug));
    assert!(has!(JoinError: Debug));
    assert!(has!(Panic: Debug));
    assert!(has!(Threaded<Opaque>: Debug));
    assert!(has!(spsc::IntoIter<Opaque>: Debug));
    assert!(has!(ThreadPool: Debug));
    assert!(has!(Sleep: Debug));
    assert!(has!(Elapsed: Debug));
}

/// No handle stores its contents inline, so the contents need not be `Unpin`.
#[test]
fn handles_are_unpin_for_any_contents() {
    type Pinned = std::marker::PhantomPinned;
    assert!(has!(oneshot::Sender<Pinned>: Unpin));
    assert!(has!(oneshot::Receiver<Pinned>: Unpin));
    assert!(has!(spsc::Sender<Pinned>: Unpin));
    assert!(has!(spsc::Receiver<Pinned>: Unpin));
    assert!(has!(Job<Pinned>: Unpin));
    assert!(has!(Outcome<Pinned>: Unpin));
    assert!(has!(Sleep: Unpin));
    assert!(has!(ThreadPool: Unpin));
    assert!(has!(Threaded<fn()>: Unpin));
    assert!(has!(Panic: Unpin));
    assert!(has!(JoinError: Unpin));
    assert!(has!(Elapsed: Unpin));
}

#[test]
fn ends_and_jobs_are_not_clone_but_a_pool_is() {
    assert!(has!(ThreadPool: Clone));
    assert!(!has!(oneshot::Sender<Shared>: Clone));
    assert!(!has!(oneshot::Receiver<Shared>: Clone));
    assert!(!has!(spsc::Sender<Shared>: Clone));
    assert!(!has!(spsc::Receiver<Shared>: Clone));
    assert!(!has!(Job<Shared>: Clone));
    assert!(!has!(Outcome<Shared>: Clone));
}

#[test]
fn the_futures_have_the_documented_outputs() {
    assert!(has!(Job<Sendable>: Future<Output = Sendable>));
    assert!(has!(Outcome<Sendable>: Future<Output = Result<Sendable, JoinError>>));
    assert!(has!(oneshot::Receiver<Sendable>: Future<Output = Result<Sendable, oneshot::Closed>>));
    assert!(has!(Sleep: Future<Output = ()>));
    assert!(has!(Threaded<fn() -> Sendable>: IntoFuture<Output = Sendable>));
    assert!(has!(Threaded<fn() -> Sendable>: IntoFuture<IntoFuture = Job<Sendable>>));
}

/// A multi-threaded executor accepts a future only if it is `Send`.
#[test]
fn the_futures_of_async_functions_are_send_where_their_contents_are() {
    fn is_send(future: impl Send) {
        drop(future);
    }
    let (mut sender, mut receiver) = spsc::channel::<Sendable>(1);
    is_send(sender.send(Cell::new(1)));
    is_send(receiver.recv());
    is_send(receiver.recv_many(&mut Vec::new(), 1));
    is_send(receiver.recv_timeout(Duration::MAX));
    let (mut sender, receiver) = oneshot::channel::<Sendable>();
    is_send(sender.closed());
    is_send(timeout(Duration::MAX, receiver));
    is_send(gather([async { Cell::new(1) }]));
    is_send(timeout(Duration::MAX, ThreadPool::new(1).spawn(|| Cell::new(1))));
    is_send(async { offthread::threaded(|| Cell::new(1)).await });
}

/// No bound is missing, so no value that is not `Send` reaches another thread; and none is superfluous.
#[test]
fn event_loop_types_are_send_and_sync_where_their_contents_allow() {
    fn is_send(future: impl Send) {
        drop(future);
    }
    assert!(!has!(EventLoop: Send) && !has!(EventLoop: Sync));
    assert!(has!(LoopHandle: Send) && has!(LoopHandle: Sync) && has!(LoopHandle: Clone));
    assert!(has!(TimerHandle: Send) && has!(TimerHandle: Sync));
    assert!(has!(Task<i32>: Send) && has!(Task<i32>: Sync));
    assert!(
        has!(TaskOutcome<Cell<i32>>: Send) && has!(TaskOutcome<Cell<i32>>: Sync) && !has!(TaskOutcome<Rc<i32>>: Send)
    );
    assert!(has!(TaskOutcome<Opaque>: Debug) && has!(TaskOutcome<Opaque>: Unpin));
    assert!(has!(Task<Cell<i32>>: Send));
    assert!(!has!(Task<Rc<i32>>: Send) && !has!(Task<Rc<i32>>: Sync));
    assert!(!has!(Task<i32>: Clone) && !has!(EventLoop: Clone));
    assert!(has!(EventLoopBuilder: Debug) && has!(EventLoopBuilder: Unpin));
    assert!(has!(EventLoop: Debug) && has!(LoopHandle: Debug) && has!(TimerHandle: Debug) && has!(Task<Opaque>: Debug));
    assert!(has!(EventLoop: Unpin) && has!(LoopHandle: Unpin) && has!(TimerHandle: Unpin) && has!(Task<Opaque>: Unpin));
    assert!(has!(Task<Cell<i32>>: Future<Output = Cell<i32>>));
    assert!(has!(SyncWaitError: Send) && has!(SyncWaitError: Sync));
    is_send(yield_now());
    is_send(async { LoopHandle::current().spawn(std::future::ready(1)).await });
    is_send(async { LoopHandle::current().spawn(async { Cell::new(1) }).outcome().await });
}

/// Whether a type may cross `catch_unwind`, owned and borrowed.
macro_rules! unwinds {
    ($type:ty) => {
        (has!($type: std::panic::UnwindSafe), has!($type: std::panic::RefUnwindSafe))
    };
}

/// Every handle may be used in `catch_unwind`, whatever its contents are: a panic leaves none of them half changed.
#[test]
fn every_handle_is_unwind_safe() {
    /// Neither `UnwindSafe` nor `RefUnwindSafe`.
    type Unsafe = (Rc<Cell<i32>>, &'static mut i32);
    assert_eq!(unwinds!(Unsafe), NONE);
    let answers = [
        ("ThreadPool", unwinds!(ThreadPool)),
        ("ThreadPoolBuilder", unwinds!(offthread::ThreadPoolBuilder)),
        ("PoolStats", unwinds!(offthread::PoolStats)),
        ("Job", unwinds!(Job<Unsafe>)),
        ("Outcome", unwinds!(Outcome<Unsafe>)),
        ("Task", unwinds!(Task<Unsafe>)),
        ("TaskOutcome", unwinds!(TaskOutcome<Unsafe>)),
        ("EventLoop", unwinds!(EventLoop)),
        ("EventLoopBuilder", unwinds!(EventLoopBuilder)),
        ("LoopHandle", unwinds!(LoopHandle)),
        ("TimerHandle", unwinds!(TimerHandle)),
        ("Sleep", unwinds!(Sleep)),
        ("Context", unwinds!(offthread::Context)),
        ("ContextVar", unwinds!(offthread::ContextVar<Unsafe>)),
        ("IteratorWrapper", unwinds!(IteratorWrapper<Unsafe>)),
        ("Yielder", unwinds!(Yielder<Unsafe>)),
        ("Map", unwinds!(offthread::Map<Unsafe, Unsafe, Unsafe>)),
        ("spsc::Sender", unwinds!(spsc::Sender<Unsafe>)),
        ("spsc::Receiver", unwinds!(spsc::Receiver<Unsafe>)),
        ("oneshot::Sender", unwinds!(oneshot::Sender<Unsafe>)),
        ("oneshot::Receiver", unwinds!(oneshot::Receiver<Unsafe>)),
        ("JoinError", unwinds!(JoinError)),
        ("SyncWaitError", unwinds!(SyncWaitError)),
        ("Panic", unwinds!(Panic)),
    ];
    let wrong: Vec<_> = answers.iter().filter(|(_, answer)| *answer != ALL).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let pool = ThreadPool::new(1);
    assert_eq!(std::panic::catch_unwind(|| pool.spawn(|| 1).wait()).unwrap(), 1);
}
