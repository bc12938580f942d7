//! Edge cases of the event loop, which were found in a review.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::helpers::event_loop::{BoxedFuture, Foreign, hold, on_drop, traced, watchdog};
use offthread::{
    ContextVar, EventLoop, JoinError, LoopHandle, Sleep, SyncWaitError, Task, ThreadPool, block_on, gather, oneshot,
    sleep, spawn, sync_await, threaded, threaded_iterable, threaded_separate, timeout, yield_now,
};

const LONG: Duration = Duration::from_secs(3600);

// --- tasks ----------------------------------------------------------------------------------------------------------

/// Dropping a long chain of tasks, each of which owns the next one's handle, does not overflow the stack.
#[test]
fn a_long_chain_of_tasks_is_dropped() {
    const LINKS: usize = 100_000;
    fn chain(log: &Rc<Cell<usize>>) -> Task<()> {
        let mut task = spawn(pending());
        for _ in 1..LINKS {
            let log = log.clone();
            let counted = on_drop(move || log.set(log.get() + 1));
            task = spawn(async move {
                let _counted = counted;
                task.await;
            });
        }
        task
    }
    let _watchdog = watchdog();
    let dropped = Rc::new(Cell::new(0));
    block_on(async {
        let first = chain(&dropped);
        yield_now().await;
        drop(first);
        assert_eq!(dropped.get(), LINKS - 1);
    });
    // The same when the loop ends.
    block_on(async {
        chain(&dropped).detach();
        yield_now().await;
    });
    assert_eq!(dropped.get(), 2 * (LINKS - 1));
}

/// On the loop's own thread, `cancel` drops the future in the call, even if the loop has not taken the task out of its
/// inbox yet.
#[test]
fn a_task_still_in_the_inbox_is_dropped_in_the_cancelling_call() {
    let _watchdog = watchdog();
    let event_loop = EventLoop::new();
    let handle = event_loop.handle();
    let (value, dropped) = traced();
    let task = thread::spawn(move || handle.spawn(hold(value))).join().unwrap();
    assert!(task.cancel());
    assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
}

/// When a task is cancelled, two panics may occur: in the `Drop` of the future, or of an output that comes too late;
/// and in the waker of the code that awaits the task. Each panic is caught by itself, because two panics at once would
/// abort the process.
#[test]
fn two_panics_as_a_task_ends_do_not_abort() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }
    fn wait<R>(task: &mut Task<R>) {
        let waker = Waker::from(Arc::new(Panics));
        assert!(Pin::new(task).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let _watchdog = watchdog();
    let bad = || on_drop(|| panic!("a drop that panics"));
    block_on(async {
        let value = bad();
        let mut task = spawn(hold(value));
        wait(&mut task);
        yield_now().await;
        assert!(task.cancel());
        assert!(matches!(task.outcome().await, Err(JoinError::Cancelled)));
    });
    block_on(async {
        let own = Rc::new(RefCell::new(None::<Task<_>>));
        let mut task = spawn({
            let own = own.clone();
            async move {
                assert!(own.borrow().as_ref().is_some_and(Task::cancel));
                bad()
            }
        });
        wait(&mut task);
        own.replace(Some(task));
        yield_now().await;
        let task = own.take().unwrap();
        assert!(matches!(task.outcome().await, Err(JoinError::Cancelled)));
    });
}

/// In a job, `spawn` panics, even if the job runs inline on the loop's own thread.
#[test]
fn spawn_panics_in_any_job() {
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let spawns = |pool: &ThreadPool| pool.spawn(|| spawn(async {}).detach()).outcome();
    let inline = {
        let inner = pool.clone();
        pool.spawn(move || block_on(async { spawns(&inner).wait().is_err() })).wait()
    };
    let elsewhere = block_on(async { spawns(&pool).await.is_err() });
    assert_eq!((inline, elsewhere), (true, true));
}

/// In the destructor of a thread-local, after the context was dropped, `spawn` still finds the running loop.
#[test]
fn spawn_works_in_the_destructor_of_a_thread_local() {
    static VAR: ContextVar<u8> = ContextVar::new();
    struct Flush(RefCell<Option<mpsc::Sender<u8>>>);
    impl Drop for Flush {
        fn drop(&mut self) {
            let Some(sender) = self.0.take() else { return };
            let task = block_on(async {
                assert!(!LoopHandle::current().is_closed());
                sleep(Duration::from_millis(1)).await;
                spawn(async { LoopHandle::current().spawn(async { 7 }).await }).await
            });
            let mut event_loop = EventLoop::new();
            sender.send(task + event_loop.block_on(async { spawn(async { 1 }).await })).unwrap();
        }
    }
    thread_local! {
        static FLUSH: Flush = const { Flush(RefCell::new(None)) };
    }
    let _watchdog = watchdog();
    // The order of first use decides the order of destruction.
    for used_before in [false, true] {
        let (sender, result) = mpsc::channel();
        let thread = thread::spawn(move || {
            if used_before {
                block_on(async { spawn(async {}).await });
            }
            FLUSH.with(|flush| flush.0.replace(Some(sender)));
            VAR.set(1);
            if !used_before {
                block_on(async { spawn(async {}).await });
            }
        });
        thread.join().unwrap();
        assert_eq!(result.recv(), Ok(8));
    }
}

/// In the destructor of a thread-local, a loop can run everything: jobs, which go to the loop's pool, timers,
/// iterables, and jobs of a pool that is made there.
#[test]
fn everything_works_in_the_destructor_of_a_thread_local() {
    static VAR: ContextVar<u8> = ContextVar::new();
    struct Flush(RefCell<Option<mpsc::Sender<i32>>>);
    impl Drop for Flush {
        fn drop(&mut self) {
            let Some(sender) = self.0.take() else { return };
            let name = || thread::current().name().unwrap_or_default().to_owned();
            let own = ThreadPool::builder().threads(1).name("own").build();
            let mut event_loop = EventLoop::builder().pool(own.clone()).build();
            let main = async {
                assert!(threaded(name).await.starts_with("own"));
                assert!(spawn(async move { threaded(name).await }).await.starts_with("own"));
                let (fire, fired) = oneshot::channel();
                LoopHandle::current().call_later(Duration::from_millis(1), move || fire.send(1).unwrap());
                assert!(timeout(Duration::from_millis(1), pending::<()>()).await.is_err());
                let in_job = threaded(|| sync_await(async { spawn(async { 2 }).await })).await;
                let mut items = threaded_iterable(move || (0..3).map(move |_| name())).max_size(1);
                while let Some(name) = items.next().await {
                    assert!(name.starts_with("own"), "{name}");
                }
                // If the thread's context was already destroyed, variables are unset, and `set` has no effect.
                VAR.set(3);
                assert!(spawn(async { VAR.get() }).await.is_none_or(|value| value == 3));
                fired.await.unwrap() + in_job
            };
            let sum = event_loop.block_on(main) + own.spawn(|| 4).wait() + block_on(threaded_separate(|| 5));
            own.drain();
            sender.send(sum).unwrap();
        }
    }
    thread_local! {
        static FLUSH: Flush = const { Flush(RefCell::new(None)) };
    }
    let _watchdog = watchdog();
    // The order of first use decides the order of destruction. The thread belongs to std, or to a pool.
    for used_before in [false, true] {
        for in_pool in [false, true] {
            let (sender, result) = mpsc::channel();
            let use_all = || {
                VAR.set(3);
                block_on(async { spawn(sleep(Duration::from_millis(1))).await });
            };
            let body = move || {
                if used_before {
                    use_all();
                }
                FLUSH.with(|flush| flush.0.replace(Some(sender)));
                if !used_before {
                    use_all();
                }
            };
            if in_pool {
                let pool = ThreadPool::new(1);
                pool.spawn(body).wait();
                pool.drain();
            } else {
                thread::spawn(body).join().unwrap();
            }
            assert_eq!(result.recv(), Ok(12));
        }
    }
}

/// Timers fire in the order of their deadlines, whichever thread added them.
#[test]
fn timers_of_other_threads_keep_the_order() {
    let _watchdog = watchdog();
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |number| {
        let order = order.clone();
        move || order.lock().unwrap().push(number)
    };
    block_on(async {
        let handle = LoopHandle::current();
        // The thread is joined before the loop can fire any of the three.
        let third = note(3);
        thread::scope(|scope| {
            let handle = handle.clone();
            let (second, first) = (note(2), note(1));
            scope.spawn(move || {
                handle.call_later(Duration::from_millis(200), second);
                handle.call_later(Duration::from_millis(20), first);
            });
        });
        // Later than the other two, since it is added after them.
        handle.call_later(Duration::from_millis(200), third);
        thread::sleep(Duration::from_millis(250));
        yield_now().await;
        yield_now().await;
    });
    assert_eq!(*order.lock().unwrap(), [1, 2, 3]);
}

// --- turns ----------------------------------------------------------------------------------------------------------

/// A callback that another thread has submitted runs before `yield_now` returns, in a task or in the main future.
#[test]
fn yielding_runs_callbacks_of_other_threads() {
    async fn check() {
        let called = Arc::new(AtomicBool::new(false));
        let (handle, mark) = (LoopHandle::current(), called.clone());
        thread::spawn(move || handle.call_soon(move || mark.store(true, SeqCst))).join().unwrap();
        yield_now().await;
        assert!(called.load(SeqCst));
    }
    let _watchdog = watchdog();
    block_on(check());
    block_on(async { spawn(check()).await });
}

/// A timer that is due also fires before `yield_now` returns.
#[test]
fn yielding_fires_due_timers() {
    async fn check() {
        let length = Duration::from_millis(5);
        let task = spawn(sleep(length));
        yield_now().await;
        // Lets the deadline pass without a wake-up.
        thread::sleep(2 * length);
        yield_now().await;
        assert!(task.is_finished());
    }
    let _watchdog = watchdog();
    block_on(check());
    block_on(async { spawn(check()).await });
}

// --- time -----------------------------------------------------------------------------------------------------------

fn is_ready(sleep: &mut Sleep) -> bool {
    Pin::new(sleep).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// A sleep does not end early when its loop closes.
#[test]
fn no_sleep_ends_early_as_the_loop_closes() {
    struct Checks(Sleep, mpsc::Sender<bool>);
    impl Drop for Checks {
        fn drop(&mut self) {
            self.1.send(is_ready(&mut self.0)).unwrap();
        }
    }
    let _watchdog = watchdog();
    let (sender, results) = mpsc::channel();
    block_on(async {
        spawn(async {
            let mut checks = Checks(sleep(LONG), sender);
            poll_fn(|cx| Pin::new(&mut checks.0).poll(cx)).await;
        })
        .detach();
        yield_now().await;
    });
    assert_eq!(results.iter().collect::<Vec<_>>(), [false]);
}

/// A sleep that is polled again and again inside one poll of a task becomes ready at its deadline.
#[test]
fn a_sleep_becomes_ready_without_a_wake_up() {
    let _watchdog = watchdog();
    block_on(async {
        let mut sleep = sleep(Duration::from_millis(5));
        while !is_ready(&mut sleep) {
            thread::yield_now();
        }
    });
}

/// Two loops wait for one sleep, with a waker that wakes both loops. The loop that polled last ends, and this wakes the
/// other loop.
#[test]
fn a_loop_that_ends_wakes_its_sleeps() {
    #[derive(Default)]
    struct All(Mutex<Vec<Waker>>);
    impl Wake for All {
        fn wake(self: Arc<Self>) {
            let wakers = std::mem::take(&mut *self.0.lock().unwrap());
            wakers.into_iter().for_each(Waker::wake);
        }
    }
    #[derive(Clone)]
    struct Shared(Arc<Mutex<Sleep>>, Arc<All>);
    impl Shared {
        fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
            self.1.0.lock().unwrap().push(cx.waker().clone());
            let waker: Waker = self.1.clone().into();
            Pin::new(&mut *self.0.lock().unwrap()).poll(&mut Context::from_waker(&waker))
        }
    }
    let _watchdog = watchdog();
    // Tries again if the sleep is over before the second loop polls it.
    let mut has_moved = false;
    while !has_moved {
        let shared = Shared(Arc::new(Mutex::new(sleep(Duration::from_millis(50)))), Arc::default());
        let (polled, has_polled) = mpsc::channel();
        let other = thread::spawn({
            let shared = shared.clone();
            move || {
                // In a task, which the loop polls only when the task is woken.
                let task = poll_fn(move |cx| {
                    let poll = shared.poll(cx);
                    polled.send(()).unwrap();
                    poll
                });
                block_on(async { spawn(task).await });
            }
        });
        has_polled.recv().unwrap();
        has_moved = block_on(poll_fn(|cx| Poll::Ready(shared.poll(cx).is_pending())));
        other.join().unwrap();
    }
}

// --- other runtimes -------------------------------------------------------------------------------------------------

/// `sync_wait` returns `WouldDeadlock` in the `Drop` of a future that the awaited runtime runs, after the future has
/// ended or was cancelled.
#[test]
fn waiting_for_the_runtime_that_drops_the_future_would_deadlock() {
    let _watchdog = watchdog();
    let (foreign, thread) = Foreign::start();
    let runtime = foreign.clone();
    let handle = LoopHandle::from_spawner(move |future| runtime.spawn(future));
    let (sender, results) = mpsc::channel();
    let waits = || {
        let (handle, sender) = (handle.clone(), sender.clone());
        on_drop(move || sender.send(handle.sync_wait(async {})).unwrap())
    };
    let waits_when_ended = waits();
    handle
        .spawn(poll_fn(move |_| {
            let _keeps = &waits_when_ended;
            Poll::Ready(())
        }))
        .detach();
    assert!(matches!(results.recv(), Ok(Err(SyncWaitError::WouldDeadlock))));
    let (polled, has_polled) = mpsc::channel();
    let waits_when_cancelled = waits();
    let task = handle.spawn(async move {
        let _keeps = waits_when_cancelled;
        polled.send(()).unwrap();
        pending::<()>().await;
    });
    has_polled.recv().unwrap();
    assert!(task.cancel());
    assert!(matches!(results.recv(), Ok(Err(SyncWaitError::WouldDeadlock))));
    foreign.close();
    thread.join().unwrap();
}

/// A waker that does nothing, for tests that count its clones.
struct Idle;
impl Wake for Idle {
    fn wake(self: Arc<Self>) {}
}

/// A task of another runtime, and the body that the runtime would poll.
fn caught_task<F>(future: F) -> (Task<F::Output>, BoxedFuture)
where
    F: Future<Output: Send> + Send + 'static,
{
    let caught = Arc::new(Mutex::new(None));
    let catch = caught.clone();
    let handle = LoopHandle::from_spawner(move |future| *catch.lock().unwrap() = Some(future));
    let task = handle.spawn(future);
    let body = caught.lock().unwrap().take().unwrap();
    (task, body)
}

/// A detached task keeps no waker of the runtime, because such a waker may keep the runtime's task alive.
#[test]
fn a_detached_task_keeps_no_waker_of_the_runtime() {
    for detached_before in [true, false] {
        let (task, mut body) = caught_task(pending::<()>());
        let parent = Arc::new(Idle);
        let waker = parent.clone().into();
        let mut task = Some(task);
        if detached_before {
            task.take().unwrap().detach();
        }
        assert!(body.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        task.into_iter().for_each(Task::detach);
        drop(waker);
        assert_eq!(Arc::strong_count(&parent), 1);
    }
}

/// A task that has ended keeps no waker of the runtime while its handle lives.
#[test]
fn a_task_that_has_ended_keeps_no_waker_of_the_runtime() {
    let polls = AtomicUsize::new(0);
    let second = poll_fn(move |_| if polls.fetch_add(1, SeqCst) == 0 { Poll::Pending } else { Poll::Ready(()) });
    let (task, mut body) = caught_task(second);
    let parent = Arc::new(Idle);
    let waker = parent.clone().into();
    assert!(body.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(body.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    drop((body, waker));
    assert!(task.is_finished());
    assert_eq!(Arc::strong_count(&parent), 1);
}

/// A kept waker of a branch does not keep the waker of the task that awaited the `gather`.
#[test]
fn a_branchs_waker_does_not_keep_the_parents() {
    let kept: Rc<RefCell<Vec<Waker>>> = Rc::default();
    let keep = kept.clone();
    let branch = poll_fn(move |cx| {
        keep.borrow_mut().push(cx.waker().clone());
        Poll::Ready(())
    });
    let parent = Arc::new(Idle);
    let waker = parent.clone().into();
    assert!(Box::pin(gather([branch])).as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    drop(waker);
    assert_eq!((kept.borrow().len(), Arc::strong_count(&parent)), (1, 1));
}

/// A spawner may run the future at once, drop it, or panic.
#[test]
fn a_spawner_may_run_drop_or_panic() {
    let _watchdog = watchdog();
    let at_once = LoopHandle::from_spawner(block_on);
    let start = Instant::now();
    assert_eq!(at_once.sync_wait(async { sleep(Duration::from_millis(1)).await }).map(|()| 7).unwrap(), 7);
    assert!(start.elapsed() >= Duration::from_millis(1));
    let drops = LoopHandle::from_spawner(drop);
    assert!(matches!(drops.sync_wait(async {}), Err(SyncWaitError::LoopClosed)));
    assert!(!drops.call_later(LONG, || ()).cancel());
    let panics = LoopHandle::from_spawner(|_| crate::helpers::event_loop::quiet_panic("no room"));
    assert_eq!(crate::helpers::event_loop::panic_of(|| panics.call_soon(|| ())), "no room");
}

/// Forbids: a loop that is dropped inside the `Drop` of another loop's task drops its own tasks only after that `Drop`
/// has ended.
#[test]
fn a_loop_dropped_in_a_drop_drops_its_tasks_at_once() {
    struct Owner(Option<EventLoop>, std::sync::mpsc::Receiver<()>);
    impl Drop for Owner {
        fn drop(&mut self) {
            drop(self.0.take());
            assert_eq!(self.1.recv(), Err(std::sync::mpsc::RecvError), "the task is gone");
        }
    }
    let _watchdog = watchdog();
    block_on(async {
        let inner = EventLoop::new();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let task = async move {
            pending::<()>().await;
            drop(sender);
        };
        inner.handle().spawn(task).detach();
        let owner = Owner(Some(inner), receiver);
        let task = spawn(async move {
            pending::<()>().await;
            drop(owner);
        });
        yield_now().await;
        assert!(task.cancel());
    });
}
