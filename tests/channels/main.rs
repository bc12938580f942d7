//! The channels: `oneshot` and `spsc`.

#[path = "../helpers/mod.rs"]
mod helpers;
#[path = "../helpers/hooks.rs"]
mod hooks;

mod oneshot;
mod spsc;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::{hint, thread};

/// A type that implements no trait.
struct Opaque;

/// Runs two closures at the same time, as nearly as possible.
fn race<A: Send, B>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B) -> (A, B) {
    let ready = AtomicUsize::new(0);
    let start = || {
        ready.fetch_add(1, Ordering::SeqCst);
        for spins in 0_u32.. {
            if ready.load(Ordering::SeqCst) == 2 {
                break;
            }
            // The other thread may have no core of its own.
            if spins > 200 { thread::yield_now() } else { hint::spin_loop() }
        }
    };
    thread::scope(|scope| {
        let a = scope.spawn(|| {
            start();
            a()
        });
        start();
        let b = b();
        (a.join().unwrap(), b)
    })
}
