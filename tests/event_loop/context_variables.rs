//! Context variables: a value that is set in a context is seen in that context only.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]

use offthread::{Context, ContextVar, WithContext, block_on};
use std::cell::Cell;
use std::fmt::Debug;
use std::future::{Future, pending, poll_fn, ready};
use std::marker::PhantomPinned;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};
use std::{array, mem, thread};

// --- helpers --------------------------------------------------------------------------------------------------------

/// Panics without calling the panic hook, so that nothing is printed.
fn panic_silently(payload: &'static str) -> ! {
    resume_unwind(Box::new(payload))
}

/// The payload of the panic in `f`.
fn panic_of(f: impl FnOnce()) -> Option<&'static str> {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("the code did not panic");
    payload.downcast_ref().copied()
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut std::task::Context::from_waker(Waker::noop()))
}

fn on_a_thread<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(f).join().unwrap_or_else(|payload| resume_unwind(payload)))
}

/// Calls a function when the last clone is dropped.
#[derive(Clone)]
struct OnDrop(#[allow(dead_code, reason = "the field is only dropped")] Arc<Caller>);

struct Caller(Box<dyn Fn() + Send + Sync>);

impl Drop for Caller {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl OnDrop {
    fn call(f: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Caller(Box::new(f))))
    }
}

/// Calls a function when it is cloned.
struct OnClone(fn());

impl Clone for OnClone {
    fn clone(&self) -> Self {
        (self.0)();
        Self(self.0)
    }
}

// --- variables ------------------------------------------------------------------------------------------------------

#[test]
fn a_variable_has_the_value_that_was_set_last() {
    static VAR: ContextVar<String> = ContextVar::new();
    assert_eq!(VAR.get(), None);
    assert_eq!(VAR.set("one".into()), None);
    assert_eq!(VAR.get().as_deref(), Some("one"));
    assert_eq!(VAR.set("two".into()).as_deref(), Some("one"));
    assert_eq!(VAR.with(|value| value.map(String::len)), Some(3));
    assert_eq!(VAR.get().as_deref(), Some("two"));
    assert_eq!(VAR.clear().as_deref(), Some("two"));
    assert_eq!(VAR.clear(), None);
    assert_eq!(VAR.get(), None);
    assert!(VAR.with(|value| value.is_none()));
}

/// Variables are distinct, even if their values are zero-sized, or if they are in arrays or in leaked memory.
#[test]
fn variables_are_distinct() {
    static ONE: ContextVar<()> = ContextVar::new();
    static TWO: ContextVar<()> = ContextVar::new();
    static LIST: [ContextVar<()>; 2] = [const { ContextVar::new() }; 2];
    static NUMBER: ContextVar<u8> = ContextVar::new();
    let leaked: &'static ContextVar<()> = Box::leak(Box::new(ContextVar::new()));

    let all = [&ONE, &TWO, &LIST[0], &LIST[1], leaked];
    for (set, var) in all.iter().enumerate() {
        for (other, var) in all.iter().enumerate() {
            assert_eq!(var.get().is_some(), other < set);
        }
        var.set(());
    }
    assert_eq!(NUMBER.get(), None);
    NUMBER.set(1);
    for var in all {
        assert_eq!(var.clear(), Some(()));
        assert_eq!((var.get(), NUMBER.get()), (None, Some(1)));
    }
}

#[test]
fn threads_do_not_see_each_others_values() {
    static VAR: ContextVar<u8> = ContextVar::new();
    VAR.set(1);
    on_a_thread(|| {
        assert_eq!(VAR.get(), None);
        VAR.set(2);
    });
    assert_eq!(VAR.get(), Some(1));
}

/// `get` clones the value; `set` and `clear` clone it only if another context still has it.
#[test]
fn a_value_is_copied_only_where_it_must_be() {
    static COPIES: AtomicUsize = AtomicUsize::new(0);
    static VAR: ContextVar<OnClone> = ContextVar::new();
    static OTHER: ContextVar<u8> = ContextVar::new();
    let value = || OnClone(|| _ = COPIES.fetch_add(1, Ordering::Relaxed));
    let copies = || COPIES.swap(0, Ordering::Relaxed);

    VAR.set(value());
    OTHER.set(1);
    assert!(VAR.with(|value| value.is_some()));
    assert!(VAR.set(value()).is_some());
    assert!(VAR.clear().is_some());
    VAR.set(value());
    assert_eq!(copies(), 0, "no other context had the value");

    let context = Context::current();
    let another = context.clone();
    context.run(|| OTHER.set(2));
    assert!(poll(&mut another.wrap(async { OTHER.set(3) })).is_ready());
    OTHER.set(4);
    assert_eq!(copies(), 0, "a context is copied without its values");

    assert!(VAR.get().is_some());
    assert_eq!(copies(), 1);
    assert!(VAR.set(value()).is_some());
    assert_eq!(copies(), 1, "another context still has the value");
    context.run(|| assert!(VAR.clear().is_some()));
    assert_eq!(copies(), 1);
    drop(context);
    assert!(VAR.clear().is_some());
    assert_eq!(copies(), 0);
}

// --- contexts -------------------------------------------------------------------------------------------------------

#[test]
fn a_copy_does_not_see_later_changes() {
    static VAR: ContextVar<u8> = ContextVar::new();
    static OTHER: ContextVar<u8> = ContextVar::new();
    let without = Context::current();
    VAR.set(1);
    let one = Context::current();
    let same = one.clone();
    VAR.set(2);
    OTHER.set(3);
    let two = Context::current();
    VAR.clear();
    let seen = |context: &Context| context.run(|| (VAR.get(), OTHER.get()));
    assert_eq!(seen(&without), (None, None));
    assert_eq!(seen(&one), (Some(1), None));
    assert_eq!(seen(&same), (Some(1), None));
    assert_eq!(seen(&two), (Some(2), Some(3)));
    assert_eq!(seen(&Context::default()), (None, None));
    assert_eq!((VAR.get(), OTHER.get()), (None, Some(3)));
}

#[test]
fn changes_in_a_run_stay_inside() {
    static VAR: ContextVar<u8> = ContextVar::new();
    VAR.set(1);
    let context = Context::current();
    VAR.set(2);
    for _ in 0..2 {
        let inner = context.run(|| {
            assert_eq!(VAR.get(), Some(1), "the context was changed");
            assert_eq!(VAR.set(3), Some(1));
            Context::default().run(|| {
                assert_eq!(VAR.get(), None);
                VAR.set(4);
            });
            assert_eq!(VAR.get(), Some(3));
            Context::current()
        });
        assert_eq!(VAR.get(), Some(2), "the caller's context was changed");
        assert_eq!(inner.run(|| VAR.get()), Some(3));
    }
    context.run(|| VAR.clear());
    assert_eq!(context.run(|| VAR.get()), Some(1));
    assert_eq!(VAR.get(), Some(2));
}

#[test]
fn a_run_that_panics_gives_the_callers_context_back() {
    static VAR: ContextVar<u8> = ContextVar::new();
    VAR.set(1);
    let context = Context::current();
    VAR.set(2);
    let panic = panic_of(|| {
        context.run(|| {
            VAR.set(3);
            Context::default().run(|| {
                VAR.set(4);
                panic_silently("inside")
            })
        });
    });
    assert_eq!(panic, Some("inside"));
    assert_eq!(VAR.get(), Some(2));
    assert_eq!(context.run(|| VAR.get()), Some(1));
}

#[test]
fn a_context_can_be_taken_to_another_thread() {
    static VAR: ContextVar<u8> = ContextVar::new();
    VAR.set(1);
    let context = Context::current();
    on_a_thread(|| {
        assert_eq!(context.run(|| VAR.set(2)), Some(1));
        assert_eq!(VAR.get(), None);
    });
    assert_eq!(context.run(|| VAR.get()), Some(1));
    on_a_thread(move || drop(context));
    assert_eq!(VAR.get(), Some(1));
}

#[test]
fn a_context_is_one_word() {
    assert_eq!(size_of::<Context>(), size_of::<usize>());
}

// --- futures with a context -----------------------------------------------------------------------------------------

/// Returns `Pending` once.
async fn once_pending() {
    let mut polled = false;
    poll_fn(|_| if mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

#[test]
fn changes_of_a_wrapped_future_last_between_polls_and_stay_inside() {
    static VAR: ContextVar<u8> = ContextVar::new();
    VAR.set(1);
    let context = Context::current();
    let mut future = context.clone().wrap(async {
        assert_eq!(VAR.set(2), Some(1));
        once_pending().await;
        assert_eq!(VAR.set(3), Some(2));
        once_pending().await;
        VAR.clear()
    });
    VAR.set(10);
    assert_eq!(poll(&mut future), Poll::Pending);
    assert_eq!(VAR.set(11), Some(10));
    let mut future = on_a_thread(move || {
        assert_eq!(poll(&mut future), Poll::Pending);
        assert_eq!(VAR.get(), None);
        future
    });
    assert_eq!(poll(&mut future), Poll::Ready(Some(3)));
    assert_eq!(VAR.get(), Some(11));
    assert_eq!(context.run(|| VAR.get()), Some(1));
}

#[test]
fn wrapped_futures_of_one_task_do_not_see_each_other() {
    static VAR: ContextVar<usize> = ContextVar::new();
    let mut futures: [_; 3] = array::from_fn(|id| {
        Context::current().wrap(async move {
            assert_eq!(VAR.set(id), None);
            for _ in 0..3 {
                once_pending().await;
                assert_eq!(VAR.get(), Some(id));
            }
        })
    });
    for _ in 0..3 {
        assert!(futures.iter_mut().all(|future| poll(future).is_pending()));
    }
    assert!(futures.iter_mut().all(|future| poll(future).is_ready()));
}

#[test]
fn a_wrapped_future_is_polled_with_the_pollers_waker() {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    let waker = Waker::from(Arc::new(Nobody));
    let mut future = Context::default().wrap(poll_fn(|cx| Poll::Ready(cx.waker().clone())));
    let polled = Pin::new(&mut future).poll(&mut std::task::Context::from_waker(&waker));
    assert!(polled.map(|polled| polled.will_wake(&waker)) == Poll::Ready(true));
}

#[test]
fn a_poll_that_panics_gives_the_pollers_context_back() {
    static VAR: ContextVar<u8> = ContextVar::new();
    VAR.set(1);
    let mut polls = 0;
    let mut future = Context::default().wrap(poll_fn(|_| {
        polls += 1;
        let seen = VAR.set(2);
        if polls == 1 { panic_silently("in a poll") } else { Poll::Ready(seen) }
    }));
    assert_eq!(panic_of(|| _ = poll(&mut future)), Some("in a poll"));
    assert_eq!(VAR.get(), Some(1));
    assert_eq!(poll(&mut future), Poll::Ready(Some(2)));
    assert_eq!(VAR.get(), Some(1));
}

/// A wrapped future is dropped in its context, however the future ends.
#[test]
fn a_wrapped_future_is_dropped_in_its_context() {
    static VAR: ContextVar<u8> = ContextVar::new();
    static SEEN: Mutex<Vec<Option<u8>>> = Mutex::new(Vec::new());
    let wrapped = |is_ready: bool| {
        let seen = OnDrop::call(|| SEEN.lock().unwrap().push(VAR.set(9)));
        Context::default().wrap(poll_fn(move |_| {
            let _captured = &seen;
            VAR.set(2);
            if is_ready { Poll::Ready(()) } else { Poll::Pending }
        }))
    };
    let taken = || mem::take(&mut *SEEN.lock().unwrap());
    VAR.set(1);

    drop(wrapped(false));
    assert_eq!(taken(), [None], "never polled");

    let mut future = wrapped(false);
    assert!(poll(&mut future).is_pending());
    drop(future);
    assert_eq!(taken(), [Some(2)], "before its end");

    let mut future = wrapped(true);
    assert!(poll(&mut future).is_ready());
    assert_eq!(taken(), [Some(2)], "as soon as it is ready");
    drop(future);
    assert_eq!(taken(), []);

    let mut future = wrapped(false);
    assert!(poll(&mut future).is_pending());
    let panic = panic_of(move || {
        let _dropped = future;
        panic_silently("around it")
    });
    assert_eq!((panic, taken()), (Some("around it"), vec![Some(2)]), "in a panic");

    let mut future = wrapped(false);
    assert!(poll(&mut future).is_pending());
    on_a_thread(move || drop(future));
    assert_eq!(taken(), [Some(2)], "on another thread");

    assert_eq!(VAR.get(), Some(1));
}

#[test]
fn a_wrapped_futures_drop_may_panic() {
    static VAR: ContextVar<u8> = ContextVar::new();
    VAR.set(1);
    let wrapped = |is_ready: bool| {
        let bomb = OnDrop::call(|| {
            VAR.set(2);
            panic_silently("in a drop")
        });
        Context::default().wrap(poll_fn(move |_| {
            let _captured = &bomb;
            if is_ready { Poll::Ready(()) } else { Poll::Pending }
        }))
    };
    assert_eq!(panic_of(|| drop(wrapped(false))), Some("in a drop"));
    assert_eq!(VAR.get(), Some(1));
    let mut future = wrapped(true);
    assert_eq!(panic_of(|| _ = poll(&mut future)), Some("in a drop"));
    assert_eq!(VAR.get(), Some(1));
}

/// A poll after the end panics, even if the inner future would not panic.
#[test]
#[should_panic = "polled again after it had given its result"]
fn a_wrapped_future_is_not_polled_after_its_end() {
    let mut future = Context::default().wrap(poll_fn(|_| Poll::Ready(())));
    assert!(poll(&mut future).is_ready());
    let _ = poll(&mut future);
}

#[test]
fn a_wrapped_future_drops_its_context_when_it_is_ready() {
    static VAR: ContextVar<Arc<()>> = ContextVar::new();
    let value = Arc::new(());
    VAR.set(value.clone());
    let mut future = Context::current().wrap(ready(()));
    VAR.clear();
    assert_eq!(Arc::strong_count(&value), 2);
    assert!(poll(&mut future).is_ready());
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn a_wrapped_future_can_be_awaited() {
    static VAR: ContextVar<u8> = ContextVar::new();
    VAR.set(1);
    let context = Context::current();
    let seen = block_on(async {
        VAR.set(2);
        (context.wrap(async { VAR.get() }).await, VAR.get())
    });
    assert_eq!(seen, (Some(1), Some(2)));
}

// --- users' code in `with`, in a clone and in a drop ----------------------------------------------------------------

#[test]
fn a_value_does_not_change_while_with_reads_it() {
    static VAR: ContextVar<String> = ContextVar::new();
    VAR.set("one".into());
    VAR.with(|value| {
        assert_eq!(VAR.set("two".into()).as_deref(), Some("one"));
        assert_eq!(value.unwrap(), "one");
        assert_eq!(VAR.clear().as_deref(), Some("two"));
        VAR.with(|inner| assert_eq!(inner, None));
        Context::default().run(|| VAR.set("three".into()));
        assert_eq!(value.unwrap(), "one");
        VAR.set("four".into());
    });
    assert_eq!(VAR.get().as_deref(), Some("four"));
    assert_eq!(panic_of(|| VAR.with(|_| panic_silently("in `with`"))), Some("in `with`"));
    assert_eq!(VAR.set("five".into()).as_deref(), Some("four"));
}

#[test]
fn a_clone_may_use_the_variable_that_is_being_copied() {
    static VAR: ContextVar<OnClone> = ContextVar::new();
    static CLONES: AtomicUsize = AtomicUsize::new(0);
    let clones = || CLONES.swap(0, Ordering::Relaxed);
    let value = || {
        OnClone(|| {
            CLONES.fetch_add(1, Ordering::Relaxed);
            VAR.with(|_| ());
            VAR.set(OnClone(|| ()));
        })
    };
    VAR.set(value());
    assert!(VAR.get().is_some());
    assert_eq!(clones(), 2, "one clone for the copy, and one of the value that was replaced while `with` read it");

    VAR.set(value());
    let context = Context::current();
    assert!(VAR.set(OnClone(|| ())).is_some());
    assert_eq!(clones(), 1);
    context.run(|| {
        assert!(VAR.clear().is_some());
        assert_eq!(clones(), 1);
        assert!(VAR.clear().is_some(), "the variable is unset after the clone has set it");
    });
}

#[test]
fn a_clone_that_panics_leaves_the_change_done() {
    static VAR: ContextVar<OnClone> = ContextVar::new();
    static OTHER: ContextVar<u8> = ContextVar::new();
    VAR.set(OnClone(|| panic_silently("in a clone")));
    OTHER.set(1);
    let context = Context::current();
    assert_eq!(panic_of(|| _ = VAR.get()), Some("in a clone"));
    assert_eq!(panic_of(|| _ = VAR.set(OnClone(|| ()))), Some("in a clone"));
    assert!(VAR.get().is_some(), "the value was not replaced");
    context.run(|| {
        assert_eq!(panic_of(|| _ = VAR.clear()), Some("in a clone"));
        assert!(VAR.with(|value| value.is_none()));
        assert_eq!(OTHER.get(), Some(1));
    });
}

/// The last copy of a context may be dropped at the end of a run, with a wrapped future, by itself, or with its thread.
#[test]
fn a_drop_may_use_any_variable() {
    static VAR: ContextVar<OnDrop> = ContextVar::new();
    static OTHER: ContextVar<u8> = ContextVar::new();
    static SEEN: Mutex<Vec<Option<u8>>> = Mutex::new(Vec::new());
    let value = || {
        OnDrop::call(|| {
            assert!(VAR.with(|value| value.is_none()));
            VAR.set(OnDrop::call(|| ()));
            VAR.clear();
            let seen = OTHER.get();
            SEEN.lock().unwrap().push(seen);
            OTHER.set(seen.unwrap_or_default() + 1);
        })
    };
    let taken = || mem::take(&mut *SEEN.lock().unwrap());
    OTHER.set(1);

    Context::default().run(|| {
        OTHER.set(100);
        VAR.set(value());
    });
    assert_eq!(taken(), [Some(1)], "the caller's context is back");

    VAR.set(value());
    let context = Context::current();
    assert!(VAR.clear().is_some());
    assert_eq!(taken(), []);
    drop(context);
    assert_eq!(taken(), [Some(2)]);

    let mut future = Context::default().wrap(async {
        VAR.set(value());
        pending::<()>().await;
    });
    assert!(poll(&mut future).is_pending());
    drop(future);
    assert_eq!(taken(), [Some(3)]);

    VAR.set(value());
    drop(VAR.clear());
    assert_eq!(taken(), [Some(4)]);
    assert_eq!(OTHER.get(), Some(5));

    on_a_thread(|| {
        OTHER.set(100);
        VAR.set(value());
    });
    assert_eq!(taken(), [None], "the thread's context is gone");
}

/// A panic in the `Drop` of a context's value is discarded, also during another panic, and if several values panic.
#[test]
fn a_panic_in_the_drop_of_a_contexts_value_is_discarded() {
    static BOMBS: [ContextVar<OnDrop>; 2] = [const { ContextVar::new() }; 2];
    static VAR: ContextVar<u8> = ContextVar::new();
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    let set_bombs = || {
        for bomb in &BOMBS {
            bomb.set(OnDrop::call(|| {
                DROPS.fetch_add(1, Ordering::Relaxed);
                panic_silently("in a drop")
            }));
        }
    };
    let drops = || DROPS.swap(0, Ordering::Relaxed);
    VAR.set(1);

    Context::default().run(set_bombs);
    assert_eq!((drops(), VAR.get()), (2, Some(1)), "in a run");

    let panic = panic_of(|| {
        Context::default().run(|| {
            set_bombs();
            panic_silently("in a run")
        });
    });
    assert_eq!((panic, drops(), VAR.get()), (Some("in a run"), 2, Some(1)), "in a run that panics");

    let mut future = Context::default().wrap(async {
        set_bombs();
        pending::<()>().await;
    });
    assert!(poll(&mut future).is_pending());
    drop(future);
    assert_eq!((drops(), VAR.get()), (2, Some(1)), "in a wrapped future");

    // A panic at the end of a thread would abort the process.
    on_a_thread(set_bombs);
    assert_eq!(drops(), 2, "in a thread");
}

/// The caller of `set` or `clear` drops the old value, so the panic comes out there.
#[test]
fn a_replaced_values_drop_panics_where_it_is_dropped() {
    static VAR: ContextVar<OnDrop> = ContextVar::new();
    let quiet = || OnDrop::call(|| ());
    let bomb = || OnDrop::call(|| panic_silently("in a drop"));
    VAR.set(bomb());
    assert_eq!(panic_of(|| _ = VAR.set(quiet())), Some("in a drop"));
    assert!(VAR.get().is_some());
    VAR.set(bomb());
    assert_eq!(panic_of(|| _ = VAR.clear()), Some("in a drop"));
    assert!(VAR.get().is_none());
}

/// A value that is dropped with the thread's context may still call every function, but finds no context.
#[test]
fn at_a_threads_end_there_is_no_context() {
    static VAR: ContextVar<OnDrop> = ContextVar::new();
    static NUMBER: ContextVar<u8> = ContextVar::new();
    static DONE: AtomicBool = AtomicBool::new(false);
    static NOT_SET: AtomicBool = AtomicBool::new(false);
    let thread = thread::spawn(|| {
        NUMBER.set(1);
        let context = Context::current();
        VAR.set(OnDrop::call(move || {
            assert_eq!(NUMBER.get(), None);
            assert!(NUMBER.with(|value| value.is_none()));
            assert_eq!(NUMBER.set(2), None);
            assert_eq!((NUMBER.get(), NUMBER.clear()), (None, None));
            assert!(VAR.set(OnDrop::call(|| NOT_SET.store(true, Ordering::Relaxed))).is_none());
            assert!(NOT_SET.load(Ordering::Relaxed), "the value is dropped");
            assert_eq!(context.run(|| (NUMBER.get(), "ran")), (None, "ran"));
            assert_eq!(Context::current().run(|| NUMBER.get()), None);
            assert_eq!(poll(&mut context.clone().wrap(async { NUMBER.get() })), Poll::Ready(None));
            drop(context.clone().wrap(pending::<()>()));
            DONE.store(true, Ordering::Relaxed);
        }));
    });
    thread.join().unwrap();
    assert!(DONE.load(Ordering::Relaxed));
}

// --- traits of the types --------------------------------------------------------------------------------------------

/// Whether a type implements a trait, as a value.
macro_rules! has {
    ($type:ty: $bound:path) => {{
        #[allow(dead_code, reason = "only one of the two constants is used: it is the answer")]
        trait Otherwise {
            const HAS: bool = false;
        }
        impl<T> Otherwise for T {}
        struct Probe<T>(std::marker::PhantomData<T>);
        // If the bound holds, this inherent constant takes precedence over the trait's constant.
        #[allow(dead_code, reason = "only one of the two constants is used: it is the answer")]
        impl<T: $bound> Probe<T> {
            const HAS: bool = true;
        }
        Probe::<$type>::HAS
    }};
}

#[test]
fn types_are_send_and_sync_where_their_contents_are() {
    assert!(has!(Context: Send) && has!(Context: Sync));
    assert!(has!(ContextVar<u8>: Send) && has!(ContextVar<u8>: Sync));
    assert!(has!(WithContext<u8>: Send) && has!(WithContext<u8>: Sync));
    assert!(has!(WithContext<Cell<u8>>: Send) && !has!(WithContext<Cell<u8>>: Sync));
    assert!(!has!(WithContext<Rc<u8>>: Send) && !has!(WithContext<Rc<u8>>: Sync));
}

#[test]
fn types_are_unpin_and_debug_for_any_contents() {
    assert!(has!(Context: Unpin) && has!(Context: Debug));
    assert!(has!(ContextVar<PhantomPinned>: Unpin) && has!(ContextVar<OnClone>: Debug));
    assert!(has!(WithContext<PhantomPinned>: Unpin) && has!(WithContext<OnClone>: Debug));
    assert!(has!(Context: Clone) && has!(Context: Default));
    assert!(!has!(WithContext<u8>: Clone) && !has!(ContextVar<u8>: Clone));
}

#[test]
fn debug_shows_the_type_and_the_number_of_variables() {
    static VAR: ContextVar<u8> = ContextVar::new();
    let context = Context::default().run(|| {
        VAR.set(1);
        Context::current()
    });
    assert_eq!(format!("{VAR:?}"), "ContextVar<u8>");
    assert_eq!(format!("{:?}", Context::default()), "Context { variables: 0, .. }");
    assert_eq!(format!("{context:?}"), "Context { variables: 1, .. }");
    let mut future = context.wrap(ready(()));
    assert_eq!(format!("{future:?}"), "WithContext { context: Some(Context { variables: 1, .. }), .. }");
    assert!(poll(&mut future).is_ready());
    assert_eq!(format!("{future:?}"), "WithContext { context: None, .. }");
}

/// Forbids: a branch's `into_future` changes the context of another branch, or of the caller.
#[test]
fn into_future_of_a_branch_runs_in_the_branchs_context() {
    static ID: ContextVar<u32> = ContextVar::new();
    struct Set(u32);
    impl IntoFuture for Set {
        type Output = (Option<u32>, Option<u32>);
        type IntoFuture = std::future::Ready<Self::Output>;
        fn into_future(self) -> Self::IntoFuture {
            let before = ID.set(self.0);
            std::future::ready((before, ID.get()))
        }
    }
    block_on(async {
        ID.set(1);
        assert_eq!(offthread::gather([Set(10), Set(20)]).await, [(Some(1), Some(10)), (Some(1), Some(20))]);
        assert_eq!(ID.get(), Some(1));
    });
}
