//! Python: `@threaded`. A blocking function becomes awaitable: it runs in a thread of the pool.
//!
//! The event loop goes on meanwhile: here a task counts its turns while the thread sleeps.

use std::cell::Cell;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use offthread::{block_on, spawn, threaded, yield_now};

threaded! {
    /// Takes its time, and blocks its thread.
    fn slow_square(n: u64) -> u64 {
        thread::sleep(Duration::from_millis(20));
        n * n
    }
}

fn main() {
    block_on(async {
        let turns = Rc::new(Cell::new(0));
        let counter = spawn({
            let turns = turns.clone();
            async move {
                loop {
                    turns.set(turns.get() + 1);
                    yield_now().await;
                }
            }
        });

        // A function of the macro, and a closure: both run in a thread, and both are awaited.
        assert_eq!(slow_square(7).await, 49);
        let in_thread = threaded(|| thread::current().id()).await;
        assert_ne!(in_thread, thread::current().id());

        assert!(turns.get() > 1, "the loop went on while the thread slept");
        println!("7 * 7 = 49; meanwhile another task had {} turns", turns.get());
        drop(counter); // cancels the task
    });
}
