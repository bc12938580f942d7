//! Models of `src/event_loop/` and of the files that build on it. Each wake is followed by a poll. Each task and each
//! callback runs or is dropped once. No thread waits for a loop that has ended.

mod common;

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};

use common::{Drops, Note, model_with, poll_once};
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread::{self, JoinHandle};
use offthread::internals::{ThreadHandle, TimerThread, block_on as parker_block_on};
use offthread::{
    EventLoop, JoinError, LoopHandle, SyncWaitError, Task, block_on, gather, oneshot, spawn, threaded_separate,
};

const HOUR: Duration = Duration::from_secs(3600);

/// These models have many steps: with three preemptions they take minutes.
fn model(check: impl Fn() + Send + Sync + 'static) {
    model_with(2, check);
}

/// An event to wait for. The accesses to the flag are relaxed, so only the wake orders the poll after the event.
#[derive(Clone)]
struct Event(Arc<AtomicBool>);

impl Event {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    fn has_happened(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Starts a thread that sets the flag and then wakes `waker`.
    fn happen(&self, waker: Waker) -> JoinHandle<()> {
        let event = self.clone();
        thread::spawn(move || {
            event.0.store(true, Relaxed);
            waker.wake();
        })
    }
}

/// Waits for the event of a thread that the first poll starts.
async fn wait_for_a_thread() {
    let event = Event::new();
    let mut thread = None;
    poll_fn(|cx| {
        if thread.is_none() {
            thread = Some(event.happen(cx.waker().clone()));
            return Poll::Pending;
        }
        if event.has_happened() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    thread.unwrap().join().unwrap();
}

/// Forbids: a thread wakes a task while the loop falls asleep, and the loop sleeps on; or the poll does not see what
/// the thread wrote before the wake.
#[test]
fn wake_as_it_falls_asleep() {
    model(|| block_on(async { spawn(wait_for_a_thread()).await }));
}

/// Forbids: two threads wake a task at once, and the next poll does not see the event of the thread that found the task
/// already queued.
#[test]
fn two_wakers() {
    model(|| {
        block_on(spawn_here(|| {
            let (one, other) = (Event::new(), Event::new());
            let mut threads = Vec::new();
            poll_fn(move |cx| {
                if threads.is_empty() {
                    threads.extend([&one, &other].map(|event| event.happen(cx.waker().clone())));
                    return Poll::Pending;
                }
                if one.has_happened() && other.has_happened() { Poll::Ready(()) } else { Poll::Pending }
            })
        }));
    });
}

/// Makes a future inside the loop, spawns it there, and waits for it.
async fn spawn_here<F: Future + 'static>(future: impl FnOnce() -> F) -> F::Output {
    spawn(future()).await
}

/// Forbids: a task is woken during its poll, by itself and by a thread, and one of the wakes is lost.
#[test]
fn wake_during_its_poll() {
    model(|| {
        block_on(spawn_here(|| {
            let event = Event::new();
            let mut polls = 0;
            poll_fn(move |cx| {
                polls += 1;
                if polls == 1 {
                    drop(event.happen(cx.waker().clone()));
                }
                if polls < 3 {
                    cx.waker().wake_by_ref();
                }
                if polls >= 3 && event.has_happened() { Poll::Ready(()) } else { Poll::Pending }
            })
        }));
    });
}

/// Forbids: a wake that comes as the task ends polls the task again, or leaks it.
#[test]
fn wake_as_it_ends() {
    model(|| {
        let drops = Drops::default();
        let value = drops.value(1);
        let polls = Rc::new(Cell::new(0));
        let count = polls.clone();
        let thread = block_on(async {
            let mut thread = None;
            let thread = spawn(async move {
                let _value = value;
                poll_fn(|cx| {
                    count.set(count.get() + 1);
                    let waker = cx.waker().clone();
                    thread = Some(thread::spawn(move || waker.wake()));
                    Poll::Ready(())
                })
                .await;
                thread
            })
            .await;
            offthread::yield_now().await;
            thread
        });
        assert_eq!((polls.get(), drops.count()), (1, 1));
        thread.unwrap().join().unwrap();
    });
}

/// Forbids: a waker of a dropped task polls the next task in the same slot.
#[test]
fn stale_waker() {
    model(|| {
        block_on(async {
            let waker = Rc::new(RefCell::new(None));
            let first = spawn({
                let waker = waker.clone();
                poll_fn(move |cx| {
                    waker.replace(Some(cx.waker().clone()));
                    Poll::<()>::Pending
                })
            });
            offthread::yield_now().await;
            let waker: Waker = waker.take().unwrap();
            // One wake before the task is dropped, and one at any time.
            waker.wake_by_ref();
            let thread = thread::spawn(move || waker.wake());
            drop(first);
            let polls = Rc::new(Cell::new(0));
            let count = polls.clone();
            let next = spawn(poll_fn(move |_| {
                count.set(count.get() + 1);
                Poll::<()>::Pending
            }));
            offthread::yield_now().await;
            thread.join().unwrap();
            offthread::yield_now().await;
            assert_eq!(polls.get(), 1);
            drop(next);
        });
    });
}

/// Forbids: two wakes during one poll cause more than one further poll.
#[test]
fn woken_twice() {
    model(|| {
        block_on(async {
            let polls = Rc::new(Cell::new(0));
            let count = polls.clone();
            let event = Event::new();
            let task = spawn(poll_fn(move |cx| {
                count.set(count.get() + 1);
                if count.get() == 1 {
                    cx.waker().wake_by_ref();
                    event.happen(cx.waker().clone()).join().unwrap();
                }
                Poll::<()>::Pending
            }));
            for _ in 0..3 {
                offthread::yield_now().await;
            }
            assert_eq!(polls.get(), 2);
            drop(task);
        });
    });
}

/// Forbids: a wake that comes as the loop closes leaks the task, or blocks the thread that wakes.
#[test]
fn wake_as_the_loop_closes() {
    model(|| {
        let drops = Drops::default();
        let value = drops.value(1);
        let thread = block_on(async {
            let wakers = Rc::new(RefCell::new(None));
            let left = wakers.clone();
            spawn(async move {
                let _value = value;
                poll_fn(|cx| {
                    left.replace(Some(cx.waker().clone()));
                    Poll::<()>::Pending
                })
                .await;
            })
            .detach();
            offthread::yield_now().await;
            let waker: Waker = wakers.take().unwrap();
            thread::spawn(move || waker.wake())
        });
        assert_eq!(drops.count(), 1);
        thread.join().unwrap();
    });
}

/// Forbids: a loop that closes keeps a task that the `Drop` of a left-over task has spawned meanwhile.
#[test]
fn spawn_as_the_loop_closes() {
    struct OnDrop<F: FnMut()>(F);
    impl<F: FnMut()> Drop for OnDrop<F> {
        fn drop(&mut self) {
            self.0();
        }
    }
    model(|| {
        let spawned = Rc::new(RefCell::new(None));
        let is_refused = Rc::new(Cell::new(false));
        block_on(async {
            let (handle, left) = (LoopHandle::current(), spawned.clone());
            let spawns = OnDrop(move || _ = left.replace(Some(handle.spawn(pending::<()>()))));
            let (found, note) = (spawned.clone(), is_refused.clone());
            let looks = OnDrop(move || note.set(found.borrow().as_ref().is_some_and(Task::is_finished)));
            spawn(async move {
                let _spawns = spawns;
                pending::<()>().await;
            })
            .detach();
            spawn(async move {
                let _looks = looks;
                pending::<()>().await;
            })
            .detach();
        });
        assert!(is_refused.get());
    });
}

/// Forbids: the main future and a task are woken at once, and one of the two wakes is lost.
#[test]
fn main_and_task() {
    model(|| {
        block_on(async {
            let task = spawn(wait_for_a_thread());
            wait_for_a_thread().await;
            task.await;
        });
    });
}

/// Forbids: the loop's thread drops a cancelled future, but does not see what the canceller wrote before.
#[test]
fn cancel_publishes() {
    struct ReadsInDrop(Note, Rc<Cell<bool>>);
    impl Drop for ReadsInDrop {
        fn drop(&mut self) {
            assert!(self.0.is_written());
            self.1.set(true);
        }
    }
    model(|| {
        block_on(async {
            let (note, dropped) = (Note::new(), Rc::new(Cell::new(false)));
            let reads = ReadsInDrop(note.clone(), dropped.clone());
            let task = spawn(async move {
                let _reads = reads;
                // The task is always in the run queue, so `cancel` need not queue it.
                always_ready(|| false).await;
            });
            let canceller = thread::spawn(move || {
                note.write();
                assert!(task.cancel());
            });
            always_ready(|| dropped.get()).await;
            canceller.join().unwrap();
        });
    });
}

/// Forbids: a thread cancels a task that nothing else wakes, and the loop never drops the task.
#[test]
fn cancel_of_a_sleeper() {
    model(|| {
        block_on(async {
            let (sender, receiver) = offthread::oneshot::channel::<()>();
            let task = LoopHandle::current().spawn(async move {
                let _sender = sender;
                pending::<()>().await;
            });
            offthread::yield_now().await;
            let canceller = thread::spawn(move || assert!(task.cancel()));
            assert!(receiver.await.is_err());
            canceller.join().unwrap();
        });
    });
}

/// A future that wakes itself at each poll until `is_so` returns true.
async fn always_ready(mut is_so: impl FnMut() -> bool) {
    poll_fn(|cx| {
        if is_so() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        thread::yield_now();
        Poll::Pending
    })
    .await;
}

/// Forbids: a task is cancelled as it ends, and `cancel` and the outcome disagree; or the output is dropped twice or
/// never.
#[test]
fn cancel_as_it_ends() {
    model(|| {
        let drops = Drops::default();
        let value = drops.value(1);
        block_on(async {
            let task = LoopHandle::current().spawn(async move { value });
            let (tell, told) = offthread::oneshot::channel();
            let canceller = thread::spawn(move || {
                let cancelled = task.cancel();
                assert!(tell.send((cancelled, task.outcome())).is_ok());
            });
            // The loop stays open until the outcome is known, so nothing else cancels the task.
            let (cancelled, outcome) = told.await.unwrap();
            match outcome.await {
                Ok(value) => assert!(!cancelled && value.number == 1),
                Err(error) => assert!(cancelled && matches!(error, JoinError::Cancelled)),
            }
            canceller.join().unwrap();
        });
        assert_eq!(drops.count(), 1);
    });
}

/// Forbids: another thread sees that a task has finished, but not what the task wrote.
#[test]
fn finished_publishes() {
    model(|| {
        let note = Note::new();
        let written = note.clone();
        let looking = block_on(async {
            let task = LoopHandle::current().spawn(async move { written.write() });
            let looking = thread::spawn(move || {
                assert!(!task.is_finished() || note.is_written());
                task
            });
            offthread::yield_now().await;
            looking
        });
        assert!(looking.join().unwrap().is_finished());
    });
}

/// Forbids: a callback that is submitted as the loop closes is dropped twice or never, whether it runs or not.
#[test]
fn call_soon_close() {
    model(|| {
        let drops = Drops::default();
        let value = drops.value(1);
        let thread = block_on(async {
            let handle = LoopHandle::current();
            let thread = thread::spawn(move || {
                handle.call_soon(move || drop(value));
            });
            offthread::yield_now().await;
            thread
        });
        thread.join().unwrap();
        assert_eq!(drops.count(), 1);
    });
}

/// Forbids: a callback that is submitted while the loop falls asleep does not run.
#[test]
fn call_soon_wakes() {
    model(|| {
        block_on(async {
            let handle = LoopHandle::current();
            let (sender, receiver) = offthread::oneshot::channel();
            let thread = thread::spawn(move || handle.call_soon(move || sender.send(7).unwrap()));
            assert_eq!(receiver.await, Ok(7));
            thread.join().unwrap();
        });
    });
}

/// Forbids: a thread submits a future as the loop closes, and waits for ever.
#[test]
fn sync_wait_close() {
    model(|| {
        let waiting = block_on(async {
            let handle = LoopHandle::current();
            let thread = thread::spawn(move || handle.sync_wait(async { 7 }));
            offthread::yield_now().await;
            thread
        });
        match waiting.join().unwrap() {
            Ok(value) => assert_eq!(value, 7),
            Err(error) => assert!(matches!(error, SyncWaitError::LoopClosed)),
        }
    });
}

/// Forbids: a thread waits for a future on the loop, and is not woken when the loop ends.
#[test]
fn sync_wait_close_while_it_waits() {
    model(|| {
        let waiting = block_on(async {
            let handle = LoopHandle::current();
            let (sender, receiver) = offthread::oneshot::channel();
            let thread = thread::spawn(move || {
                handle.sync_wait(async {
                    sender.send(()).unwrap();
                    pending::<()>().await;
                })
            });
            receiver.await.unwrap();
            thread
        });
        assert!(matches!(waiting.join().unwrap(), Err(SyncWaitError::LoopClosed)));
    });
}

/// Forbids: a job that waits for a future on the loop is cancelled, but waits on; or the future is leaked.
#[test]
fn sync_wait_cancel() {
    model(|| {
        let drops = Drops::default();
        let value = drops.value(1);
        let mut event_loop = EventLoop::new();
        let handle = event_loop.handle();
        let job = threaded_separate(move || {
            handle.sync_wait(async move {
                let _value = value;
                pending::<()>().await;
            })
        })
        .async_call();
        let result = event_loop.block_on(async {
            job.cancel();
            job.outcome().await
        });
        match result {
            Ok(result) => assert!(matches!(result, Err(SyncWaitError::Cancelled))),
            Err(error) => assert!(matches!(error, JoinError::Cancelled)),
        }
        drop(event_loop);
        assert_eq!(drops.count(), 1);
    });
}

/// Forbids: a timer is cancelled as it fires, and its callback both runs and is cancelled, or neither.
#[test]
fn cancel_as_it_fires() {
    model(|| {
        let called = Arc::new(AtomicBool::new(false));
        let mark = called.clone();
        let mut event_loop = EventLoop::new();
        let timer = event_loop.handle().call_later(Duration::ZERO, move || mark.store(true, Relaxed));
        let canceller = thread::spawn(move || timer.cancel());
        event_loop.block_on(offthread::yield_now());
        let cancelled = canceller.join().unwrap();
        event_loop.block_on(offthread::yield_now());
        assert_ne!(cancelled, called.load(Relaxed));
    });
}

/// Forbids: a thread adds a timer while the loop falls asleep, and the loop sleeps on; or the timer wakes its task
/// before the loop has added the task, and the task is never polled.
#[test]
fn timer_from_a_thread() {
    model(|| {
        block_on(async {
            let (handle, this) = (LoopHandle::current(), ThreadHandle::current());
            let (sender, receiver) = offthread::oneshot::channel();
            let thread = thread::spawn(move || {
                drop(handle.call_later(Duration::ZERO, move || sender.send(7).unwrap()));
                // From now on every deadline of the loop's thread counts as past. A sleep without a deadline goes on.
                this.time_out();
            });
            assert_eq!(receiver.await, Ok(7));
            thread.join().unwrap();
        });
    });
}

/// A timer thread that has not started, and a deadline that has passed.
fn timer_thread() -> (&'static TimerThread, Instant) {
    let now = Instant::now();
    (Box::leak(Box::new(TimerThread::new(now))), now)
}

/// Adds a timer, and waits until the timer thread wakes it. Returns the handle of that thread.
fn wake_at(timers: &'static TimerThread, deadline: Instant) -> ThreadHandle {
    /// Sends the handle of the thread that wakes it.
    struct Sends(std::sync::Mutex<Option<oneshot::Sender<ThreadHandle>>>);
    impl Wake for Sends {
        fn wake(self: std::sync::Arc<Self>) {
            let sender = self.0.lock().unwrap().take();
            sender.unwrap().send(ThreadHandle::current()).unwrap();
        }
    }
    let (sender, receiver) = oneshot::channel();
    let waker = std::sync::Arc::new(Sends(std::sync::Mutex::new(Some(sender)))).into();
    timers.with_timers(|timers| timers.add(deadline, waker));
    parker_block_on(receiver).unwrap()
}

/// Forbids: the timer thread sleeps until its earliest deadline, or is about to, and a timer with an earlier deadline
/// does not wake the thread.
#[test]
fn earlier_timer() {
    model(|| {
        let (timers, now) = timer_thread();
        let later = timers.with_timers(|timers| timers.add(now + HOUR, Waker::noop().clone()));
        let thread = wake_at(timers, now);
        timers.with_timers(|timers| timers.remove(later));
        // The thread ends.
        thread.time_out();
    });
}

/// Forbids: the timer thread ends, because it has had no timer for some time; a timer is added meanwhile; and nothing
/// wakes this timer.
#[test]
fn timer_as_the_thread_ends() {
    model(|| {
        let (timers, now) = timer_thread();
        for _ in 0..2 {
            wake_at(timers, now).time_out();
        }
    });
}

/// A task of another runtime, and the body that the runtime would poll.
fn foreign_task() -> (Task<()>, Pin<Box<dyn Future<Output = ()> + Send>>) {
    let caught = std::sync::Arc::new(std::sync::Mutex::new(None));
    let catch = caught.clone();
    let handle = LoopHandle::from_spawner(move |future| *catch.lock().unwrap() = Some(future));
    let task = handle.spawn(pending());
    let body = caught.lock().unwrap().take().unwrap();
    (task, body)
}

/// Forbids: a task of another runtime is cancelled while it is polled, and its body never ends.
#[test]
fn foreign_cancel() {
    model(|| {
        let (task, body) = foreign_task();
        let canceller = thread::spawn(move || assert!(task.cancel()));
        parker_block_on(body);
        canceller.join().unwrap();
    });
}

/// Forbids: a task of another runtime is detached while it is polled, and keeps the runtime's waker.
#[test]
fn foreign_detach() {
    model(|| {
        let (task, mut body) = foreign_task();
        let detacher = thread::spawn(move || task.detach());
        let (polled, parent) = poll_once(&mut body);
        assert!(polled.is_pending());
        detacher.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&parent), 1);
    });
}

/// Forbids: two branches are woken at once, and one of them is not polled.
#[test]
fn branches_woken_at_once() {
    model(|| {
        block_on(gather([wait_for_a_thread(), wait_for_a_thread()]));
    });
}

/// Forbids: the loop runs a callback of its own thread before one that another thread had submitted earlier.
#[test]
fn callbacks_run_in_order_of_submission() {
    model(|| {
        let mut event_loop = EventLoop::new();
        let handle = event_loop.handle();
        let order = Arc::new(loom::sync::Mutex::new(Vec::new()));
        let note = |name: &'static str| {
            let order = order.clone();
            move || order.lock().unwrap().push(name)
        };
        let first = note("first");
        thread::spawn({
            let handle = handle.clone();
            move || handle.call_soon(first)
        })
        .join()
        .unwrap();
        handle.call_soon(note("second"));
        event_loop.block_on(offthread::yield_now());
        assert_eq!(mem::take(&mut *order.lock().unwrap()), ["first", "second"]);
    });
}
