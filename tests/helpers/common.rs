//! Helpers of the test binaries.

use std::any::Any;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use std::{io, process};

/// Aborts the process with a message if the test still runs after a minute. Dropping the returned value disarms the
/// watchdog.
#[must_use]
pub fn watchdog() -> mpsc::Sender<()> {
    let (done, watch) = mpsc::channel();
    let test = thread::current().name().unwrap_or("a test").to_owned();
    // A small stack, because some tests run with little memory.
    let watcher = thread::Builder::new().stack_size(1 << 18).spawn(move || {
        if watch.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Not `eprintln!`: an abort loses the output that the test harness has captured.
            let _ = writeln!(io::stderr(), "{test} hangs");
            process::abort();
        }
    });
    watcher.unwrap();
    done
}

/// Counts its wake-ups and its live wakers; a thread can block until the first wake-up.
#[derive(Default)]
pub struct Witness(Arc<Wakes>);

#[derive(Default)]
struct Wakes {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.count.lock().unwrap() += 1;
        self.changed.notify_all();
    }
}

impl Witness {
    pub fn waker(&self) -> Waker {
        Arc::clone(&self.0).into()
    }

    pub fn wakes(&self) -> usize {
        *self.0.count.lock().unwrap()
    }

    /// Blocks until there has been a wake-up.
    pub fn wait(&self) {
        drop(self.0.changed.wait_while(self.0.count.lock().unwrap(), |count| *count == 0).unwrap());
    }

    pub fn kept(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }

    /// Waits until no waker is left. A waker that was woken may not have been dropped yet.
    pub fn wait_until_none_is_kept(&self) {
        while self.kept() > 0 {
            thread::yield_now();
        }
    }

    /// Polls a future, or a reference to one.
    pub fn poll<F: Future + Unpin>(&self, mut future: F) -> Poll<F::Output> {
        Pin::new(&mut future).poll(&mut Context::from_waker(&self.waker()))
    }
}

/// Waits until the condition is true, by checking it every millisecond. Fails the test after 20 seconds.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "timed out: waited until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A gate that stays open once it has been opened.
///
/// The gate uses std only, so a thread that waits here blocks without the crate's knowledge.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn pass(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |open| !*open).unwrap());
    }

    pub fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap()
    }
}

/// A value that sends the id of the thread that drops it.
pub struct Traced(mpsc::Sender<ThreadId>);

impl Drop for Traced {
    fn drop(&mut self) {
        // The test may have ended.
        let _ = self.0.send(thread::current().id());
    }
}

pub fn traced() -> (Traced, mpsc::Receiver<ThreadId>) {
    let (sender, receiver) = mpsc::channel();
    (Traced(sender), receiver)
}

/// Runs code when it is dropped.
pub struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(code) = self.0.take() {
            code();
        }
    }
}

pub fn on_drop<F: FnOnce()>(code: F) -> OnDrop<F> {
    OnDrop(Some(code))
}

/// The message of a panic.
pub fn text(payload: &(dyn Any + Send)) -> &str {
    payload.downcast_ref::<String>().map_or_else(|| payload.downcast_ref::<&str>().copied().unwrap(), String::as_str)
}
