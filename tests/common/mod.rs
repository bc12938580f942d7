//! What test binaries share.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use std::{io, process, thread};

/// Ends the run with a message if a test hangs, until what it returns is dropped.
#[must_use]
pub fn watchdog() -> mpsc::Sender<()> {
    let (done, watch) = mpsc::channel();
    let test = thread::current().name().unwrap_or("a test").to_owned();
    // A small stack of its own: some tests run where memory is short.
    let watcher = thread::Builder::new().stack_size(1 << 18).spawn(move || {
        if watch.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Not `eprintln!`: what the test harness has captured is lost in an abort.
            let _ = writeln!(io::stderr(), "{test} hangs");
            process::abort();
        }
    });
    watcher.unwrap();
    done
}

/// Counts its wake-ups, can be waited for, and knows how many of its wakers are still kept somewhere.
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

    /// Waits until no waker is left: the one that was woken may be on its way still.
    pub fn wait_until_none_is_kept(&self) {
        while self.kept() > 0 {
            thread::yield_now();
        }
    }

    /// Polls a future, or one that is lent or pinned.
    pub fn poll<F: Future + Unpin>(&self, mut future: F) -> Poll<F::Output> {
        Pin::new(&mut future).poll(&mut Context::from_waker(&self.waker()))
    }
}

/// Waits for what nothing announces, since it is the system, or a count, that is observed.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A door that is shut until it is opened, for good.
///
/// It is std's alone: whoever waits here holds its thread.
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
