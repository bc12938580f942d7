//! Python: `executor.map(f, items)`, `as_completed`. One function for many items, a bounded number of them at once.

use std::sync::{Mutex, mpsc};

use offthread::{ThreadPool, block_on};

fn main() {
    let pool = ThreadPool::new(4);

    // Results in the order of the items. The iterator may be infinite: `map` takes an item only while there is room.
    let mut squares = pool.map(0.., |n: u64| n * n).max_size(8);
    let sum = block_on(async {
        let mut sum = 0;
        while let Some(square) = squares.next().await {
            if square > 10_000 {
                break;
            }
            sum += square;
        }
        sum
    });
    drop(squares); // cancels the jobs that have not started
    assert_eq!(sum, (0..=100).map(|n| n * n).sum());

    // Results in the order in which jobs finish. Item 0 waits for the other results, so its own result comes last.
    let (open, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let wait_at_gate = move |n: u32| {
        if n == 0 {
            gate.lock().unwrap().recv().unwrap();
        }
        n
    };
    let mut results = pool.map(0..4, wait_at_gate).unordered().wait();
    let mut finished: Vec<_> = results.by_ref().take(3).collect();
    open.send(()).unwrap();
    assert_eq!(results.next(), Some(0));
    finished.sort_unstable();
    assert_eq!(finished, [1, 2, 3]);
    println!("the squares up to 100 * 100 add up to {sum}");
}
