//! Helpers of the event loop's test binaries.

pub use super::common::{Gate, OnDrop, Traced, on_drop, text, traced, until as block_until, watchdog};

use offthread::{oneshot, yield_now};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub const MILLI: Duration = Duration::from_millis(1);

/// Longer than any test may take.
pub const LONG: Duration = Duration::from_secs(1000);

// --- waiting --------------------------------------------------------------------------------------------------------

/// Lets the loop run until the condition is true.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "timed out: waited until {what}");
        yield_now().await;
    }
}

/// Receives from a std channel while the loop runs.
pub async fn soon<T>(channel: &mpsc::Receiver<T>) -> T {
    let mut value = None;
    until("the channel has a value", || {
        value = channel.try_recv().ok();
        value.is_some()
    })
    .await;
    value.unwrap()
}

/// Lets all other ready tasks be polled, several times.
pub async fn turns() {
    for _ in 0..5 {
        yield_now().await;
    }
}

/// Runs `f` on a thread without a loop, while the awaiting loop goes on.
pub async fn elsewhere<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = oneshot::channel();
    let other = thread::spawn(move || {
        let _ = sender.send(catch_unwind(AssertUnwindSafe(f)));
    });
    let result = receiver.await.unwrap();
    other.join().unwrap();
    result.unwrap_or_else(|payload| resume_unwind(payload))
}

/// Runs `f` on a thread without a loop, while this thread and its loop wait.
pub fn meanwhile<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    let result = thread::scope(|scope| scope.spawn(f).join());
    result.unwrap_or_else(|payload| resume_unwind(payload))
}

// --- values and futures ---------------------------------------------------------------------------------------------

/// Counts live values, the clones of the inner `Arc`. The outer `Arc` shares the counter.
#[derive(Clone, Default)]
#[expect(clippy::redundant_allocation, reason = "the two counts are independent")]
pub struct Living(Arc<Arc<()>>);

impl Living {
    pub fn one(&self) -> Arc<()> {
        Arc::clone(&*self.0)
    }

    pub fn count(&self) -> usize {
        Arc::strong_count(&*self.0) - 1
    }
}

/// A future that owns a value and never ends.
pub async fn hold<T>(value: T) {
    pending::<()>().await;
    drop(value);
}

/// A log to which the tasks of a test add entries.
#[derive(Clone)]
pub struct Log<T>(Rc<RefCell<Vec<T>>>);

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<T> Log<T> {
    pub fn add(&self, entry: T) {
        self.0.borrow_mut().push(entry);
    }

    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    pub fn take(&self) -> Vec<T> {
        self.0.take()
    }
}

/// Makes a future that stores its waker in the probe at each poll, and is ready only after `make_ready`.
#[derive(Clone, Default)]
pub struct Probe(Arc<ProbeState>);

#[derive(Default)]
struct ProbeState {
    polls: AtomicUsize,
    ready: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Probe {
    /// A future of this probe.
    pub fn future(&self) -> impl Future<Output = ()> + Send + use<> {
        let state = Arc::clone(&self.0);
        poll_fn(move |cx| {
            state.polls.fetch_add(1, Ordering::SeqCst);
            *state.waker.lock().unwrap() = Some(cx.waker().clone());
            if state.ready.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    pub fn polls(&self) -> usize {
        self.0.polls.load(Ordering::SeqCst)
    }

    pub fn waker(&self) -> Waker {
        self.0.waker.lock().unwrap().clone().expect("the future has been polled")
    }

    /// Makes the next poll return `Ready`, but wakes nobody.
    pub fn make_ready(&self) {
        self.0.ready.store(true, Ordering::SeqCst);
    }
}

// --- panics ---------------------------------------------------------------------------------------------------------

/// Panics without calling the panic hook, so that nothing is printed.
pub fn quiet_panic(payload: &'static str) -> ! {
    resume_unwind(Box::new(payload))
}

/// The message of the panic in `f`.
#[track_caller]
pub fn panic_of<R>(f: impl FnOnce() -> R) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("the code did not panic"),
        Err(payload) => text(&*payload).to_owned(),
    }
}

/// Whether `f` is cut short because its job was cancelled: `f` unwinds, but not with a message.
pub fn is_cut_short<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err_and(|payload| !payload.is::<&str>() && !payload.is::<String>())
}

/// The message of the panic of a future.
pub async fn panic_in<F: Future>(future: F) -> String {
    let mut future = Box::pin(future);
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(_)) => panic!("the future did not panic"),
        Err(payload) => Poll::Ready(text(&*payload).to_owned()),
    })
    .await
}

/// Asserts that the message contains the word, in upper or lower case.
#[track_caller]
pub fn assert_says(message: &str, word: &str) {
    assert!(message.to_lowercase().contains(word), "{message:?} does not say {word:?}");
}

// --- another runtime ------------------------------------------------------------------------------------------------

/// A hand-written single-threaded executor that does not use this crate.
#[derive(Clone)]
pub struct Foreign(Arc<ForeignState>);

pub type BoxedFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
struct ForeignState {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Arc<ForeignTask>>,
    all: Vec<Arc<ForeignTask>>,
    closed: bool,
}

struct ForeignTask {
    future: Mutex<Option<BoxedFuture>>,
    executor: Foreign,
}

impl Wake for ForeignTask {
    fn wake(self: Arc<Self>) {
        let executor = self.executor.clone();
        executor.0.queue.lock().unwrap().ready.push_back(self);
        executor.0.changed.notify_all();
    }
}

impl Foreign {
    /// Starts the executor on a thread, which ends after `close`.
    pub fn start() -> (Self, JoinHandle<()>) {
        let this = Self(Arc::default());
        let executor = this.clone();
        (this, thread::spawn(move || executor.run()))
    }

    fn run(&self) {
        loop {
            let queue = self.0.queue.lock().unwrap();
            let mut queue = self.0.changed.wait_while(queue, |queue| queue.ready.is_empty() && !queue.closed).unwrap();
            if queue.closed {
                let (ready, all) = (std::mem::take(&mut queue.ready), std::mem::take(&mut queue.all));
                drop(queue);
                for task in &all {
                    drop(task.future.lock().unwrap().take());
                }
                drop(ready);
                return;
            }
            let task = queue.ready.pop_front().unwrap();
            drop(queue);
            let Some(mut future) = task.future.lock().unwrap().take() else { continue };
            let waker = Waker::from(Arc::clone(&task));
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                *task.future.lock().unwrap() = Some(future);
            }
        }
    }

    /// Spawns a future. A closed executor drops it.
    pub fn spawn(&self, future: BoxedFuture) {
        let task = Arc::new(ForeignTask { future: Mutex::new(Some(future)), executor: self.clone() });
        let mut queue = self.0.queue.lock().unwrap();
        if queue.closed {
            drop(queue);
            drop(task);
            return;
        }
        queue.all.push(Arc::clone(&task));
        queue.ready.push_back(task);
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Runs a future on the executor, and blocks this thread until the future has ended.
    pub fn run_here<F>(&self, future: F) -> F::Output
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel();
        let mut future = Box::pin(future);
        self.spawn(Box::pin(async move {
            // Catches a panic, so that it ends the test and not the executor.
            let result = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
                Err(payload) => Poll::Ready(Err(payload)),
            })
            .await;
            let _ = sender.send(result);
        }));
        receiver.recv().unwrap().unwrap_or_else(|payload| resume_unwind(payload))
    }

    /// Ends the executor, which drops its futures.
    pub fn close(&self) {
        self.0.queue.lock().unwrap().closed = true;
        self.0.changed.notify_all();
    }
}
