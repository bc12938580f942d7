//! The timer thread, which wakes the sleeps outside of event loops, ends when there are no such sleeps. This binary has
//! no other sleeps.

#![cfg(target_os = "linux")]

use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::helpers::common::until;
use offthread::{Sleep, sleep};

fn is_running() -> bool {
    let names = fs::read_dir("/proc/self/task").unwrap().flatten().map(|thread| thread.path().join("comm"));
    names.flat_map(fs::read_to_string).any(|name| name.trim_end() == "offthread-time")
}

fn begin(duration: Duration) -> Sleep {
    let mut sleep = sleep(duration);
    assert!(Pin::new(&mut sleep).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    sleep
}

/// The thread ends ten seconds after its last timer was removed, even if the timer was cancelled early.
#[test]
fn timer_thread_ends_after_a_cancelled_sleep() {
    let long = begin(Duration::from_secs(3600));
    until("the thread has its name", is_running);
    let start = Instant::now();
    drop(long);
    thread::sleep(Duration::from_secs(9));
    until("the thread has ended", || !is_running());
    assert!(start.elapsed() >= Duration::from_secs(10), "the thread ended too early");
    // A new sleep starts the thread again.
    let long = begin(Duration::from_secs(3600));
    until("the thread runs again", is_running);
    drop(long);
}
