//! Python: `func.async_call()`, `func.sync_call()`, `await func()`. One function, three ways to call it.

use std::thread::{self, ThreadId};

use offthread::{ThreadPool, block_on, threaded};

threaded! {
    fn where_am_i() -> ThreadId {
        thread::current().id()
    }
}

fn main() {
    let here = thread::current().id();
    let pool = ThreadPool::builder().threads(1).name("mine").build();

    block_on(async {
        // Awaited: starts now, and waits for the result without blocking this thread.
        assert_ne!(where_am_i().await, here);

        // `async_call` starts it now, and gives a handle. The handle may be awaited later.
        let job = where_am_i().async_call();
        assert_ne!(job.await, here);

        // The same in a pool of one's own.
        let name = threaded(|| thread::current().name().map(str::to_owned)).on(&pool).await;
        assert_eq!(name.as_deref(), Some("mine"));
    });

    // `sync_call` runs it right here, on the calling thread.
    assert_eq!(where_am_i().sync_call(), here);

    // Blocking code can wait for a handle, too.
    assert_ne!(where_am_i().async_call().wait(), here);
    println!("awaited and started in a thread, called here: one function");
}
