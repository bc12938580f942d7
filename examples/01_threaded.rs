//! Python: `@threaded`. A blocking function becomes awaitable: it runs in a thread of the pool.
//!
//! The event loop goes on meanwhile: here the thread blocks until another task has been polled ten times.

use std::sync::mpsc;
use std::thread;

use offthread::{block_on, spawn, threaded, yield_now};

threaded! {
    /// Blocks its thread until the gate opens.
    fn slow_square(n: u64, gate: mpsc::Receiver<()>) -> u64 {
        gate.recv().expect("the task opens the gate");
        n * n
    }
}

fn main() {
    block_on(async {
        let (open, gate) = mpsc::channel();
        let task = spawn(async move {
            for _ in 1..10 {
                yield_now().await;
            }
            open.send(()).expect("the thread waits");
        });

        // If awaiting the function stopped the loop, the gate would never open.
        assert_eq!(slow_square(7, gate).await, 49);
        assert!(task.is_finished());

        // A closure runs in a thread, too.
        let in_thread = threaded(|| thread::current().id()).await;
        assert_ne!(in_thread, thread::current().id());
        println!("7 * 7 = 49; meanwhile another task was polled ten times");
    });
}
