//! Generators: random sizes, takes, panics and drops, against a plain iterator.

use crate::helpers::iterables::*;
use offthread::{ThreadPool, block_on, threaded};
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// How the body ends after its items.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Returns,
    Panics,
    /// The `Drop` of a local panics.
    DropPanics,
}

proptest! {
    // No regression files: a failing case is printed, and can be turned into a test.
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Forbids an item that is lost, doubled or out of order, a panic that is lost or looks like the end, a hang, and a
    /// value that is dropped twice or never.
    #[test]
    fn a_generator_behaves_like_a_plain_iterator(
        separate in any::<bool>(),
        max_size in 1..8_usize,
        length in 0..25_usize,
        end in prop_oneof![2 => Just(End::Returns), 1 => Just(End::Panics), 1 => Just(End::DropPanics)],
        takes in 0..30_usize,
        chunk in 0..5_usize,
        job_per_item in any::<bool>(),
        way in 0..4_u8,
    ) {
        let _watchdog = watchdog();
        let kind = if separate { Kind::Separate } else { Kind::Pool };
        let (pool, watch) = (ThreadPool::new(1), Watch::default());
        let inside = watch.clone();
        let mut stream = kind.generator(&pool, move |out| {
            let numbers = inside.numbers();
            let mut numbers = if end == End::DropPanics { numbers.bomb() } else { numbers };
            for item in numbers.by_ref().take(length) {
                if job_per_item {
                    threaded(|| ()).async_call().wait();
                }
                let put = out.put(item);
                if end == End::DropPanics && put.is_err() {
                    // A value that is being returned leaks if a local's `Drop` panics: rust-lang/rust 47949.
                    return Ok(());
                }
                put?;
            }
            if end == End::Panics {
                quiet_panic("the body's end")
            }
            Ok(())
        });
        stream = stream.max_size(max_size);
        let (mut taken, mut over) = (0, false);
        while taken < takes && !over {
            let mut items = Vec::new();
            let answer = catch_unwind(AssertUnwindSafe(|| match chunk {
                0 => items.extend(take(&mut stream)),
                _ => drop(block_on(stream.next_many(&mut items, chunk))),
            }));
            over = items.is_empty();
            prop_assert_eq!(answer.is_err(), over && end != End::Returns);
            for number in numbers(items) {
                prop_assert_eq!(number, taken);
                taken += 1;
            }
            prop_assert!(!over || taken == length);
        }
        match way {
            0 => drop(stream),
            1 => thread::spawn(|| drop(stream)).join().unwrap(),
            2 => {
                let answer = catch_unwind(AssertUnwindSafe(|| block_on(stream.close())));
                prop_assert!(answer.is_ok() || (!over && end != End::Returns));
                prop_assert!(watch.end().is_some() || watch.makes() == 0);
            }
            _ => {
                let answer = catch_unwind(AssertUnwindSafe(|| stream.sync_call().count()));
                match answer {
                    Ok(left) => prop_assert!((over || end == End::Returns) && left == length - taken),
                    Err(_) => prop_assert!(!over && end != End::Returns),
                }
            }
        }
        watch.wait_for_the_end();
        prop_assert_eq!(pool.spawn(|| 1).wait(), 1);
        assert_at_rest(&pool);
    }
}
