//! Python: `async with iterable() as gen`, `await gen.close()`. A reader that stops early closes the iterator.
//!
//! `close` returns when the iterator has been dropped: by then its files are closed and its locks are released.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use offthread::{IteratorWrapper, block_on, threaded_iterable};

/// All numbers. Sets the flag when the iterator is dropped.
fn numbers(dropped: &Arc<AtomicBool>) -> IteratorWrapper<u32> {
    struct Resource(Arc<AtomicBool>);
    impl Drop for Resource {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let resource = Resource(dropped.clone());
    threaded_iterable(move || (0..).inspect(move |_| _ = &resource))
}

fn main() {
    block_on(async {
        // An explicit `close`.
        let dropped = Arc::new(AtomicBool::new(false));
        let mut items = numbers(&dropped);
        assert_eq!(items.next().await, Some(0));
        items.close().await;
        assert!(dropped.load(Ordering::Relaxed));
        assert!(items.is_closed());
        assert_eq!(items.next().await, None);

        // `scope` closes the iterable when the closure has ended, also after a panic, as `async with` does.
        let dropped = Arc::new(AtomicBool::new(false));
        let big = numbers(&dropped)
            .scope(async |items| {
                loop {
                    match items.next().await {
                        Some(item) if item * item > 1000 => return item,
                        _ => {}
                    }
                }
            })
            .await;
        assert_eq!((big, dropped.load(Ordering::Relaxed)), (32, true));

        // Dropping an iterable closes it too, but does not wait until the iterator has been dropped.
        drop(numbers(&dropped));
        println!("32 * 32 > 1000, and the iterator has been dropped");
    });
}
