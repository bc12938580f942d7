//! The thread that wakes sleeps which belong to no event loop ends when nobody sleeps: this binary has no other sleeps.

#![cfg(target_os = "linux")]

use std::fs;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

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

/// Ten seconds after its last timer has gone, also if that was cancelled long before its time.
#[test]
fn timer_thread_ends_after_a_cancelled_sleep() {
    let long = begin(Duration::from_secs(3600));
    std::thread::sleep(Duration::from_millis(100));
    assert!(is_running());
    drop(long);
    std::thread::sleep(Duration::from_secs(5));
    assert!(is_running(), "it lingers");
    std::thread::sleep(Duration::from_secs(7));
    assert!(!is_running());
    // And it comes back.
    let long = begin(Duration::from_secs(3600));
    std::thread::sleep(Duration::from_millis(100));
    assert!(is_running());
    drop(long);
}
