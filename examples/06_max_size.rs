//! Python: `@threaded_iterable(max_size=2)`. The iterator runs at most `max_size` items ahead of its reader.
//!
//! While the buffer is full, the iterator uses no thread of the pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use offthread::{EventLoop, threaded, threaded_iterable};

threaded_iterable! {
    #[max_size(2)]
    fn numbers(made: Arc<AtomicUsize>) -> impl Iterator<Item = usize> {
        (1..).inspect(move |_| _ = made.fetch_add(1, Ordering::Relaxed))
    }
}

fn main() {
    // A pool of one thread, for the iterator and the job.
    let mut event_loop = EventLoop::builder().pool_size(1).build();
    event_loop.block_on(async {
        let made = Arc::new(AtomicUsize::new(0));
        let mut items = numbers(made.clone());
        assert_eq!(made.load(Ordering::Relaxed), 0, "lazy: nothing runs before the first `next`");

        assert_eq!(items.next().await, Some(1));
        // The job gets the pool's only thread: the iterator gives the thread back.
        threaded(|| ()).await;
        let ahead = made.load(Ordering::Relaxed) - 1;
        assert!(ahead <= 2, "{ahead} items wait");

        // Takes the items that are in the buffer, at least one and at most ten.
        let mut batch = Vec::new();
        let count = items.next_many(&mut batch, 10).await;
        assert_eq!(batch, (2..2 + count).collect::<Vec<_>>());
        println!("{ahead} items waited, {count} came at once");
    });
}
