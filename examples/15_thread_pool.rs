//! Python: `ThreadPoolExecutor(4)`, `loop.set_default_executor(pool)`. A program's own pool, and how to close it.

use std::thread;
use std::time::Duration;

use offthread::{JoinError, LoopHandle, ThreadPool, block_on, gather, threaded};

fn main() {
    let pool = ThreadPool::builder().threads(4).name("worker").keep_alive(Duration::from_secs(1)).build();

    block_on(async {
        // From now on, jobs of this loop that name no pool run in `pool`.
        LoopHandle::current().set_default_pool(pool.clone());
        let name = threaded(|| thread::current().name().map(str::to_owned)).await;
        assert_eq!(name.as_deref(), Some("worker"));

        // Many jobs at once: cheaper than one `spawn` for each.
        let squares = gather(pool.spawn_many((0..100).map(|n: u64| move || n * n))).await;
        assert_eq!(squares.iter().sum::<u64>(), 328_350);

        // `outcome` returns a panic as a value. (Awaiting the job itself would resume the panic.)
        match pool.spawn(|| assert_eq!(1, 2, "one is not two")).outcome().await {
            Err(JoinError::Panicked(panic)) => assert!(panic.message().contains("one is not two")),
            other => panic!("{other:?}"),
        }

        // A detached job runs, although it has no handle that could await it.
        pool.spawn(|| println!("detached")).detach();
    });

    // `drain` runs the queued jobs, and waits until the threads have ended. `shutdown` would cancel the queued jobs.
    pool.drain();
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.succeeded, stats.panicked, stats.threads), (103, 102, 1, 0));

    // A closed pool refuses jobs.
    let refused = pool.spawn(|| ()).outcome().wait();
    assert!(matches!(refused, Err(JoinError::Cancelled)));
    println!("{} jobs succeeded, {} panicked", stats.succeeded, stats.panicked);
}
