//! Python: `IteratorWrapper(gen, executor=pool, max_size=10)`. An iterator as a stream, in a chosen pool.

use std::{iter, thread};

use offthread::{IteratorWrapper, ThreadPool, block_on};

fn main() {
    let pool = ThreadPool::builder().threads(1).name("reader").build();
    block_on(async {
        // Two streams share the pool's only thread: each gives the thread back while its buffer is full.
        let thread_name = || thread::current().name().map(str::to_owned);
        let names = IteratorWrapper::new(move || iter::repeat_with(thread_name).take(25));
        let mut names = names.on(&pool).max_size(10);
        let mut numbers = IteratorWrapper::new(|| 0..25).on(&pool).max_size(10);

        let mut count = 0;
        while let (Some(name), Some(n)) = (names.next().await, numbers.next().await) {
            assert_eq!(name.as_deref(), Some("reader"));
            assert_eq!(n, count);
            count += 1;
        }
        assert_eq!(count, 25);
        println!("{count} items of each stream, {} thread", pool.stats().threads);
    });
}
