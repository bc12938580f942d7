//! Chains of up to 100 000 values, each of which owns the next, on a stack of 2 MiB. The chains are cancelled, dropped,
//! refused, awaited, or waited for.

#![forbid(unsafe_code)]

use crate::helpers::iterables::*;
use offthread::{Context, ContextVar, Job, LoopHandle, Task, ThreadPool};
use offthread::{block_on, spawn, threaded_iterable, yield_now};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

const LENGTH: usize = 100_000;

/// Runs a test on a thread with a small stack.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let _watchdog = watchdog();
    thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap().join().unwrap();
}

/// A link of a chain, which owns the handle of the link before it. Counts the dropped links.
struct Link(Option<Job<()>>, Arc<AtomicUsize>);

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.0.take());
        self.1.fetch_add(1, SeqCst);
    }
}

/// Queued jobs, each of which owns the handle of the one before. Returns the handle of the last.
fn chain_of_jobs(pool: &ThreadPool, dropped: &Arc<AtomicUsize>) -> Job<()> {
    let mut last = None;
    for _ in 0..LENGTH {
        let link = Link(last, dropped.clone());
        last = Some(pool.spawn(move || drop(link)));
    }
    last.unwrap()
}

/// Forbids: the stack overflows when queued jobs that own one another are cancelled.
#[test]
fn queued_jobs_that_own_one_another_are_cancelled() {
    on_a_small_stack(|| {
        let pool = ThreadPool::new(1);
        for end in [drop, |last: Job<()>| assert!(last.cancel())] {
            let dropped = Arc::default();
            let held = hold(&pool, 1);
            end(chain_of_jobs(&pool, &dropped));
            assert_eq!(dropped.load(SeqCst), LENGTH, "not all jobs were dropped when the outermost call returned");
            release(held);
        }
        for close in
            [ThreadPool::shutdown, |pool: &ThreadPool| pool.shutdown_timeout(std::time::Duration::MAX).unwrap()]
        {
            let (pool, dropped) = (ThreadPool::new(1), Arc::default());
            let held = hold(&pool, 1);
            let last = chain_of_jobs(&pool, &dropped);
            let closing = thread::spawn({
                let pool = pool.clone();
                move || close(&pool)
            });
            assert!(last.outcome().wait().is_err());
            release(held);
            closing.join().unwrap();
            assert_eq!(dropped.load(SeqCst), LENGTH);
        }
    });
}

/// Forbids: a chain of jobs does not run to its end.
#[test]
fn jobs_that_wait_for_one_another_run() {
    on_a_small_stack(|| {
        let pool = ThreadPool::new(2);
        let held = hold(&pool, 2);
        let mut last = pool.spawn(|| 0);
        for _ in 0..LENGTH {
            last = pool.spawn(move || last.wait() + 1);
        }
        release(held);
        assert_eq!(last.wait(), LENGTH);

        let mut last = pool.spawn(|| 0);
        for _ in 0..LENGTH / 10 {
            last = pool.spawn(move || block_on(last) + 1);
        }
        assert_eq!(block_on(last), LENGTH / 10);
    });
}

/// Forbids: the stack overflows when results are dropped that own the handles of finished jobs.
#[test]
fn results_that_own_finished_jobs_are_dropped() {
    struct Chain(#[expect(dead_code, reason = "the field only owns the next link")] Option<Job<Chain>>);
    on_a_small_stack(|| {
        let pool = ThreadPool::new(1);
        for end in [drop, |last: Job<Chain>| drop(last.wait()), Job::detach] {
            let mut last = None;
            for _ in 0..LENGTH {
                let before = last.take();
                last = Some(pool.spawn(move || Chain(before)));
            }
            let last = last.unwrap();
            until("all have run", || last.is_finished());
            end(last);
        }
    });
}

/// Forbids: the stack overflows when a closed pool refuses a closure whose `Drop` submits the next job, and so on.
#[test]
fn each_refused_job_submits_the_next() {
    struct Submits(ThreadPool, usize, Arc<AtomicUsize>);
    impl Drop for Submits {
        fn drop(&mut self) {
            self.2.fetch_add(1, SeqCst);
            if self.1 > 0 {
                let next = Submits(self.0.clone(), self.1 - 1, self.2.clone());
                self.0.spawn(move || drop(next)).detach();
            }
        }
    }
    on_a_small_stack(|| {
        let (pool, dropped) = (ThreadPool::new(1), Arc::default());
        pool.drain();
        drop(Submits(pool, LENGTH, Arc::clone(&dropped)));
        assert_eq!(dropped.load(SeqCst), LENGTH + 1);
    });
}

/// Forbids: the stack overflows when a closed loop drops a task, a call or a timer whose `Drop` adds the next, and so
/// on.
#[test]
fn each_task_that_a_closed_loop_drops_spawns_the_next() {
    type Spawn = fn(&LoopHandle, Box<dyn FnOnce() + Send>);
    struct Spawns(LoopHandle, Spawn, usize, Arc<AtomicUsize>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            self.3.fetch_add(1, SeqCst);
            if self.2 > 0 {
                let next = Spawns(self.0.clone(), self.1, self.2 - 1, self.3.clone());
                self.1(&self.0, Box::new(move || drop(next)));
            }
        }
    }
    on_a_small_stack(|| {
        let handle = block_on(async { LoopHandle::current() });
        let ways: [Spawn; 3] = [
            |handle, call| handle.spawn(async move { call() }).detach(),
            |handle, call| handle.call_soon(call),
            |handle, call| drop(handle.call_later(std::time::Duration::ZERO, call)),
        ];
        for way in ways {
            let dropped = Arc::default();
            drop(Spawns(handle.clone(), way, LENGTH, Arc::clone(&dropped)));
            assert_eq!(dropped.load(SeqCst), LENGTH + 1);
        }
    });
}

/// Forbids: the stack overflows when tasks that own one another are cancelled, or when the last of them is awaited.
#[test]
fn tasks_that_own_one_another_are_dropped() {
    on_a_small_stack(|| {
        block_on(async {
            let mut last = spawn(async {});
            for _ in 0..LENGTH {
                last = spawn(last);
            }
            drop(last);

            let mut last = spawn(async {});
            for _ in 0..LENGTH {
                last = spawn(last);
            }
            last.await;
        });
    });
}

/// Forbids: the stack overflows when outputs are dropped that own the handles of finished tasks.
#[test]
fn outputs_that_own_finished_tasks_are_dropped() {
    struct Chain(#[expect(dead_code, reason = "the field only owns the next link")] Option<Task<Chain>>);
    on_a_small_stack(|| {
        for end in [drop, |last: Task<Chain>| drop(last.outcome()), Task::detach] {
            block_on(async {
                let mut last = None;
                for _ in 0..LENGTH {
                    let before = last.take();
                    last = Some(spawn(async { Chain(before) }));
                }
                let last = last.unwrap();
                while !last.is_finished() {
                    yield_now().await;
                }
                end(last);
            });
        }
    });
}

/// Forbids: the stack overflows when a chain of contexts is dropped, each of which is a value in the next.
#[test]
fn contexts_in_contexts_are_dropped() {
    static PARENT: ContextVar<Context> = ContextVar::new();
    on_a_small_stack(|| {
        for _ in 0..LENGTH {
            PARENT.set(Context::current());
        }
        PARENT.clear();
        // The same for the context of a job.
        let pool = ThreadPool::new(1);
        let held = hold(&pool, 1);
        for _ in 0..LENGTH {
            PARENT.set(Context::current());
        }
        let job = pool.spawn(|| ());
        PARENT.clear();
        assert!(job.cancel());
        release(held);
    });
}

/// Forbids: the stack overflows when iterators are dropped that own other iterables, in a pool or on separate threads.
#[test]
fn iterables_that_own_one_another_are_closed() {
    on_a_small_stack(|| {
        for kind in [Kind::Pool, Kind::Separate] {
            let length = if kind == Kind::Pool { LENGTH / 10 } else { 300 };
            let pool = ThreadPool::new(1);
            let dropped = Arc::new(AtomicUsize::new(0));
            let mut last = threaded_iterable(|| Some(0_u8));
            for _ in 0..length {
                let count = dropped.clone();
                let inner = Mutex::new(last);
                let guard = on_drop(move || _ = count.fetch_add(1, SeqCst));
                last = kind
                    .stream(&pool, move || std::iter::repeat(0_u8).inspect(move |_| _ = (&inner, &guard)))
                    .max_size(1);
                assert_eq!(take(&mut last), Some(0));
            }
            drop(last);
            until("all have been dropped", || dropped.load(SeqCst) == length);
        }
    });
}

/// Forbids: the stack overflows when a pool refuses closures whose `Drop` shuts the pool down again.
#[test]
fn each_refused_job_shuts_the_pool_down() {
    struct ShutsDown(ThreadPool, Arc<AtomicUsize>);
    impl Drop for ShutsDown {
        fn drop(&mut self) {
            assert!(self.0.shutdown_timeout(Duration::ZERO).is_err(), "a job still runs");
            // The count comes last: a panic of the assertion above is discarded, so only the count shows it.
            self.1.fetch_add(1, SeqCst);
        }
    }
    on_a_small_stack(|| {
        let pool = ThreadPool::new(1);
        let (begin, begun) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let busy = pool.spawn(move || {
            begin.send(()).unwrap();
            let _ = stopped.recv();
        });
        begun.recv().unwrap();
        let count = Arc::<AtomicUsize>::default();
        for _ in 0..LENGTH / 10 {
            let shuts_down = ShutsDown(pool.clone(), count.clone());
            pool.spawn(move || drop(shuts_down)).detach();
        }
        assert!(pool.shutdown_timeout(Duration::ZERO).is_err(), "a job still runs");
        assert_eq!(count.load(SeqCst), LENGTH / 10);
        drop(stop);
        busy.wait();
    });
}
