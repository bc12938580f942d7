//! How it is made, 4: a pool of threads. One lock guards a queue, and a condvar wakes threads that have no job.
//!
//! The real pool is `src/pool/`. Beyond this version it
//! * starts threads when jobs come, and ends them when they are idle (the *invariant* in `workers.rs`);
//! * wakes one worker, which wakes the next; and splits the queue in two, to avoid contention (`queue.rs`);
//! * replaces a worker that blocks (stage *Blocked* in `workers.rs`).

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{self, JoinHandle};

type Job = Box<dyn FnOnce() + Send>;
#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Wakes one thread for each job, and all threads when the pool is closed.
    changed: Condvar,
}

struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}
impl Pool {
    fn new(threads: usize) -> Self {
        let shared = Arc::<Shared>::default();
        let start = |shared: Arc<Shared>| thread::spawn(move || shared.run_jobs());
        let threads = (0..threads).map(|_| start(shared.clone())).collect();
        Self { shared, threads }
    }

    fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.queue.lock().unwrap().jobs.push_back(Box::new(job));
        self.shared.changed.notify_one();
    }
}

impl Shared {
    /// `None`: the pool is closed, and all jobs have been taken.
    fn next_job(&self) -> Option<Job> {
        let mut queue = self.queue.lock().unwrap();
        loop {
            // Jobs come first: a closed pool still runs the queued jobs.
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            } else if queue.closed {
                return None;
            }
            queue = self.changed.wait(queue).unwrap();
        }
    }

    fn run_jobs(&self) {
        // A panic ends the job, not the thread.
        while let Some(job) = self.next_job() {
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }
}

/// Closes the pool: runs the queued jobs, and waits for the threads to end.
impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue.lock().unwrap().closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn main() {
    let pool = Pool::new(2);
    let (sender, results) = mpsc::channel();
    for n in 0..100 {
        let sender = sender.clone();
        pool.spawn(move || sender.send(n * n).unwrap());
    }
    drop((pool, sender)); // all jobs have run
    assert_eq!(results.iter().sum::<i32>(), 328_350);
    println!("100 jobs ran in 2 threads");
}
