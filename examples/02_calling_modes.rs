//! Python: `func.async_call()`, `func.sync_call()`, `await func()`. One function, three ways to call it.

use std::thread::{self, ThreadId};

use offthread::{ThreadPool, block_on, threaded};

threaded! {
    fn where_am_i() -> ThreadId {
        thread::current().id()
    }
}

fn main() {
    let main_thread = thread::current().id();
    let pool = ThreadPool::builder().threads(1).name("mine").build();

    block_on(async {
        // `.await` starts the function in a thread, and waits for the result without blocking this thread.
        assert_ne!(where_am_i().await, main_thread);

        // `async_call` starts the function at once, and returns a handle, which can be awaited later.
        let job = where_am_i().async_call();
        assert_ne!(job.await, main_thread);

        // `on` chooses the pool.
        let name = threaded(|| thread::current().name().map(str::to_owned)).on(&pool).await;
        assert_eq!(name.as_deref(), Some("mine"));
    });

    // `sync_call` runs the function on the calling thread.
    assert_eq!(where_am_i().sync_call(), main_thread);

    // Blocking code can wait for a handle as well.
    assert_ne!(where_am_i().async_call().wait(), main_thread);
    println!("one function, run in a thread and on this thread");
}
