//! How it is made, 5: a job with a handle. The handle waits for the result, or cancels a job that has not started.
//!
//! The part that `made_4_pool` lacks is the *claim*. The closure is in an `Option` under a mutex; the thread that
//! takes the closure out has the claim. So a job runs or is cancelled, never both. The real job is
//! `src/primitives/job.rs`. Beyond this version it
//! * needs one allocation for closure, claim, result and context together;
//! * claims with one atomic operation (its *State machine*), not with a lock;
//! * also resolves a job that is dropped with its queue (*What it promises*), so no handle waits for ever;
//! * runs a job that has not started on the thread that waits for it, if this is a thread of the same pool
//!   (`run_inline`);
//! * passes a panic on as a value, and lets async code await the result.

#![forbid(unsafe_code)]

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

/// A job's closure: `None` once the job has been claimed.
struct Cell<F, R> {
    claim: Mutex<Option<(F, Sender<R>)>>,
}

/// A job with its types erased, for the queue and the handle.
trait AnyJob: Send + Sync {
    fn run(&self);
    fn cancel(&self) -> bool;
}

impl<F: FnOnce() -> R + Send, R: Send> AnyJob for Cell<F, R> {
    fn run(&self) {
        // A statement of its own: the lock is free again before the closure runs.
        let claimed = self.claim.lock().unwrap().take();
        if let Some((func, result)) = claimed {
            // The handle may have been dropped: then nobody wants the result.
            let _ = result.send(func());
        }
    }

    fn cancel(&self) -> bool {
        let claimed = self.claim.lock().unwrap().take();
        // The closure is dropped here, not when a worker gets to the job.
        claimed.is_some()
    }
}

struct Job<R> {
    cell: Arc<dyn AnyJob>,
    result: Receiver<R>,
}

impl<R> Job<R> {
    /// True: the job had not started, and never will.
    fn cancel(&self) -> bool {
        self.cell.cancel()
    }

    /// `None`: the job was cancelled, or has panicked.
    fn wait(self) -> Option<R> {
        self.result.recv().ok()
    }
}

fn job<F, R>(func: F) -> (Arc<dyn AnyJob>, Job<R>)
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let (sender, result) = mpsc::channel();
    let cell = Arc::new(Cell { claim: Mutex::new(Some((func, sender))) });
    (cell.clone(), Job { cell, result })
}

fn main() {
    // A pool of one thread: a queue of jobs. `made_4_pool` has a better one.
    let (queue, jobs) = mpsc::channel::<Arc<dyn AnyJob>>();
    let worker = thread::spawn(move || jobs.iter().for_each(|job| job.run()));

    let (entry, answer) = job(|| 6 * 7);
    queue.send(entry).unwrap();
    let (entry, never) = job(|| unreachable!("it was cancelled"));
    assert!(never.cancel() && !never.cancel());
    queue.send(entry).unwrap(); // a worker finds nothing to do

    assert_eq!((answer.wait(), never.wait()), (Some(42), None::<()>));
    drop(queue);
    worker.join().unwrap();
    println!("one job ran, one was cancelled");
}
