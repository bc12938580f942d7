//! Models of `src/pool.rs`: every job that is submitted runs, whatever the workers are about to do.

mod common;

use common::model;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;
use offthread::{ThreadPool, block_on, oneshot};

/// Forbids: a job that is submitted while the only worker goes idle is left in the queue.
#[test]
fn submit_idle() {
    model(|| {
        let pool = ThreadPool::new(1);
        let first = pool.spawn(|| 1);
        let second = pool.spawn(|| 2);
        assert_eq!(block_on(first) + block_on(second), 3);
        assert_eq!(block_on(pool.spawn(|| 3)), 3);
    });
}

/// Forbids: two threads that submit at once each think that the other one's job gets the only idle worker, or the room
/// for a new one.
#[test]
fn two_submitters() {
    model(|| {
        let pool = ThreadPool::new(2);
        let other = thread::spawn({
            let pool = pool.clone();
            move || block_on(pool.spawn(|| 1))
        });
        assert_eq!(block_on(pool.spawn(|| 2)), 2);
        assert_eq!(other.join().unwrap(), 1);
    });
}

/// Forbids: two jobs, of which the first waits for the second, get one idle worker between them, though the pool may have
/// two.
#[test]
fn two_jobs_two_threads() {
    model(|| {
        let pool = ThreadPool::new(2);
        block_on(pool.spawn(|| ()));
        let (sender, receiver) = oneshot::channel();
        let first = pool.spawn(|| receiver.recv_blocking());
        let second = pool.spawn(|| sender.send(7));
        assert_eq!(block_on(first), Ok(7));
        assert_eq!(block_on(second), Ok(()));
    });
}

/// Forbids: a job that is submitted as soon as the one before has resolved gets a thread of its own, though that one's is
/// free.
#[test]
fn one_after_another() {
    model(|| {
        let pool = ThreadPool::new(2);
        let first = block_on(pool.spawn(|| thread::current().id()));
        let second = block_on(pool.spawn(|| thread::current().id()));
        assert_eq!(first, second);
    });
}

/// Forbids: a job is left to a worker that is about to look for one, but drops a result first, and that `Drop` waits for
/// the very job.
#[test]
fn result_whose_drop_waits_for_the_next_job() {
    struct Waits(Option<oneshot::Receiver<()>>);
    impl Drop for Waits {
        fn drop(&mut self) {
            if let Some(receiver) = self.0.take() {
                receiver.recv_blocking().unwrap();
            }
        }
    }
    model(|| {
        let pool = ThreadPool::new(2);
        let (sender, receiver) = oneshot::channel();
        let (go, gone) = oneshot::channel();
        let first = pool.spawn(|| {
            gone.recv_blocking().unwrap();
            Waits(Some(receiver))
        });
        // Only then, so that the result is dropped in the worker.
        first.detach();
        go.send(()).unwrap();
        block_on(pool.spawn(|| sender.send(()))).unwrap();
    });
}

/// Forbids: dropping the last handle leaves a queued job behind, or a worker asleep.
#[test]
fn last_handle() {
    model(|| {
        let runs = Arc::new(AtomicUsize::new(0));
        let pool = ThreadPool::new(1);
        let jobs = [(); 2].map(|()| {
            let runs = runs.clone();
            pool.spawn(move || runs.fetch_add(1, Relaxed))
        });
        drop(pool);
        for job in jobs {
            block_on(job);
        }
        assert_eq!(runs.load(Relaxed), 2);
    });
}

/// Forbids: a job that owns the last handle of its own pool hangs, or keeps its worker.
#[test]
fn last_handle_in_a_job() {
    model(|| {
        let pool = ThreadPool::new(1);
        let own = pool.clone();
        let job = pool.spawn(move || drop(own));
        drop(pool);
        block_on(job);
    });
}
