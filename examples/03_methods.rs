//! Python: `@threaded` on methods, class methods and static methods.
//!
//! A job may outlive its caller, so a method takes its receiver by value: `self`, or `self: Arc<Self>`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use offthread::{block_on, gather, threaded};

struct Counter {
    count: AtomicUsize,
}

impl Counter {
    threaded! {
        /// No receiver: a static method in Python.
        fn starting_at(count: usize) -> Arc<Self> {
            Arc::new(Self { count: AtomicUsize::new(count) })
        }

        /// A shared receiver: many jobs use the same object.
        fn increment(self: Arc<Self>, by: usize) -> usize {
            self.count.fetch_add(by, Ordering::Relaxed) + by
        }

        /// Generic parameters, bounds and `mut` arguments are allowed as in any function.
        fn longest<T>(mut words: Vec<T>) -> Option<T>
        where
            T: AsRef<str> + Send + 'static,
        {
            words.sort_by_key(|word| word.as_ref().len());
            words.pop()
        }
    }
}

fn main() {
    block_on(async {
        let counter = Counter::starting_at(10).await;
        gather((0..5).map(|_| counter.clone().increment(2))).await;
        assert_eq!(counter.count.load(Ordering::Relaxed), 20);

        let longest = Counter::longest(vec!["one", "three", "two"]).await;
        assert_eq!(longest, Some("three"));
        println!("five jobs counted to 20 in one object");
    });
}
