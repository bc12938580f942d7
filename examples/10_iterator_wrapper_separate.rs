//! Python: `IteratorWrapperSeparate(gen, max_size=5)`. The iterator stays on one thread of its own.
//!
//! So the iterator need not be `Send`: it may own an `Rc`, or a handle of a library that must stay on one thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::thread;

use offthread::{IteratorWrapper, block_on};

fn main() {
    block_on(async {
        let mut items = IteratorWrapper::separate(|| {
            let threads = Rc::new(RefCell::new(vec![thread::current().id()]));
            (0..20).map(move |n| {
                let mut threads = threads.borrow_mut();
                threads.push(thread::current().id());
                let is_one_thread = threads.windows(2).all(|pair| pair[0] == pair[1]);
                (n, is_one_thread)
            })
        })
        .max_size(5)
        .name("counter");

        let mut sum = 0;
        while let Some((n, is_one_thread)) = items.next().await {
            assert!(is_one_thread);
            sum += n;
        }
        assert_eq!(sum, 190);
        println!("0 + 1 + ... + 19 = {sum}, all made on one thread");
    });
}
