//! Models of `src/pool/`: every submitted job runs or is cancelled, whatever the workers are doing, and no more jobs
//! run at once than the pool may run.

mod common;

use common::{Note, model_with};
use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::thread;
use offthread::internals::{ThreadHandle, block_on};
use offthread::{JoinError, ThreadPool, is_cancelled, oneshot};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Wake};

/// These models have many steps: with three preemptions they take minutes.
fn model(check: impl Fn() + Send + Sync + 'static) {
    model_with(2, check);
}

/// Asserts that no job is queued, and that each submitted job has been counted as succeeded, panicked or cancelled.
fn assert_at_rest(pool: &ThreadPool) {
    let stats = pool.stats();
    assert_eq!(stats.queued, 0);
    assert_eq!(stats.submitted, stats.succeeded + stats.panicked + stats.cancelled);
}

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

/// Forbids: a job is not counted when its handle resolves, or is counted twice.
#[test]
fn counted_when_it_resolves() {
    model(|| {
        let pool = ThreadPool::new(1);
        for jobs in 1..=2 {
            block_on(pool.spawn(|| ()));
            let stats = pool.stats();
            assert_eq!((stats.submitted, stats.succeeded), (jobs, jobs));
        }
        pool.drain();
        assert_eq!(pool.stats().succeeded, 2);
    });
}

/// Forbids: two threads submit at once, each relies on the same worker for its job, and one job does not run.
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

/// Forbids: two jobs are submitted while a worker is idle or searching, and one of them does not run. The first job
/// waits for the second in a blocking call.
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

/// Forbids: a job that is submitted as soon as the job before it has resolved starts a second thread.
#[test]
fn one_after_another() {
    model(|| {
        let pool = ThreadPool::new(2);
        let first = block_on(pool.spawn(|| thread::current().id()));
        let second = block_on(pool.spawn(|| thread::current().id()));
        assert_eq!(first, second);
    });
}

/// Forbids: a job is left to a searching worker that first drops a result, and the result's `Drop` waits for that job.
#[test]
fn result_whose_drop_waits_for_the_next_job() {
    /// A result whose `Drop` spins: a blocking call of this crate would let the pool start a spare thread.
    struct Waits(Arc<AtomicBool>);
    impl Drop for Waits {
        fn drop(&mut self) {
            while !self.0.load(Relaxed) {
                thread::yield_now();
            }
        }
    }
    model(|| {
        let pool = ThreadPool::new(2);
        let done = Arc::new(AtomicBool::new(false));
        let (go, gone) = oneshot::channel();
        let first = pool.spawn({
            let done = done.clone();
            move || {
                gone.recv_blocking().unwrap();
                Waits(done)
            }
        });
        // The job ends after the detach, so that the worker drops the result.
        first.detach();
        go.send(()).unwrap();
        block_on(pool.spawn(move || done.store(true, Relaxed)));
    });
}

/// Forbids: after the last handle is dropped, a queued job does not run, or a worker sleeps for ever.
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

/// Forbids: a job drops the last handle of its own pool, and the job hangs, or its worker never ends.
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

/// Forbids: a job is submitted just as the only worker times out, and does not run.
#[test]
fn submit_timeout() {
    model(|| {
        // Every idle worker times out at once.
        let pool = ThreadPool::builder().threads(1).on_thread_start(|| ThreadHandle::current().time_out()).build();
        block_on(pool.spawn(|| ()));
        assert_eq!(block_on(pool.spawn(|| 2)), 2);
        assert_at_rest(&pool);
    });
}

/// Forbids: an idle worker takes a spurious wake-up for a real one, and the real one is lost.
#[test]
fn spurious_wake_up() {
    model(|| {
        let worker = std::sync::Arc::new(Mutex::new(None));
        let seen = worker.clone();
        let pool = ThreadPool::builder().threads(1).on_thread_start(move || {
            let current = ThreadHandle::current();
            *seen.lock().unwrap() = Some(current);
        });
        let pool = pool.build();
        block_on(pool.spawn(|| ()));
        let worker: ThreadHandle = worker.lock().unwrap().take().unwrap();
        let nothing = thread::spawn(move || worker.unpark());
        assert_eq!(block_on(pool.spawn(|| 2)), 2);
        nothing.join().unwrap();
        assert_eq!(pool.stats().threads, 1);
    });
}

/// Forbids: a job that is submitted as the pool shuts down neither runs nor is cancelled; or runs after `shutdown` has
/// returned.
#[test]
fn submit_shutdown() {
    model(|| {
        let pool = ThreadPool::new(1);
        let runs = Arc::new(AtomicUsize::new(0));
        let closing = thread::spawn({
            let (pool, runs) = (pool.clone(), runs.clone());
            move || {
                pool.shutdown();
                assert_eq!(pool.stats().threads, 0);
                runs.load(Relaxed)
            }
        });
        let job = pool.spawn({
            let runs = runs.clone();
            move || runs.fetch_add(1, Relaxed)
        });
        match job.outcome().wait() {
            Ok(_) => assert_eq!(runs.load(Relaxed), 1),
            Err(error) => assert!(matches!(error, JoinError::Cancelled)),
        }
        let seen = closing.join().unwrap();
        assert_eq!(seen, runs.load(Relaxed), "a job ran after the shutdown");
        assert_at_rest(&pool);
    });
}

/// Forbids: a batch from `spawn_many` that is submitted as the pool shuts down is left in the queue; or a batch that is
/// submitted after the shutdown runs.
#[test]
fn submit_many_shutdown() {
    model(|| {
        let pool = ThreadPool::new(1);
        let closing = thread::spawn({
            let pool = pool.clone();
            move || pool.shutdown()
        });
        for (number, job) in pool.spawn_many([7, 8].map(|number| move || number)).into_iter().enumerate() {
            match job.outcome().wait() {
                Ok(result) => assert_eq!(result, 7 + number),
                Err(error) => assert!(matches!(error, JoinError::Cancelled)),
            }
        }
        closing.join().unwrap();
        for job in pool.spawn_many([9, 10].map(|number| move || number)) {
            assert!(matches!(job.outcome().wait(), Err(JoinError::Cancelled)), "the pool is closed");
        }
        assert_at_rest(&pool);
    });
}

/// Forbids: a shutdown runs a queued job, drops it under the lock or before the job has been counted, or waits for the
/// running job first; or the running job is not told to stop.
#[test]
fn shutdown_queued() {
    struct UsesInDrop(ThreadPool, Arc<AtomicBool>);
    impl Drop for UsesInDrop {
        fn drop(&mut self) {
            assert_eq!(self.0.stats().queued, 0);
            self.1.store(true, Release);
        }
    }
    model(|| {
        let pool = ThreadPool::new(1);
        let (started, has_started) = oneshot::channel();
        let dropped = Arc::new(AtomicBool::new(false));
        let uses_the_pool = UsesInDrop(pool.clone(), dropped.clone());
        let first = pool.spawn(move || {
            started.send(()).unwrap();
            while !is_cancelled() || !dropped.load(Acquire) {
                thread::yield_now();
            }
        });
        block_on(has_started).unwrap();
        let second = pool.spawn(|| drop(uses_the_pool));
        pool.shutdown();
        assert!(first.is_finished());
        assert!(matches!(second.outcome().wait(), Err(JoinError::Cancelled)));
        assert_at_rest(&pool);
    });
}

/// Forbids: two threads shut a pool down, and one returns before the other has resolved all jobs.
#[test]
fn two_shutdowns() {
    model(|| {
        let pool = ThreadPool::new(1);
        let job = pool.spawn(|| ());
        let closing = thread::spawn({
            let pool = pool.clone();
            move || pool.shutdown()
        });
        pool.shutdown();
        assert!(job.is_finished());
        closing.join().unwrap();
        assert_at_rest(&pool);
    });
}

/// Forbids: a job that closes the pool, and a refused closure whose `Drop` drains the pool, wait for each other.
#[test]
fn refused_drop_that_drains() {
    struct Drains(ThreadPool);
    impl Drop for Drains {
        fn drop(&mut self) {
            self.0.drain();
        }
    }
    model(|| {
        let pool = ThreadPool::new(1);
        let job = pool.spawn({
            let pool = pool.clone();
            move || pool.shutdown()
        });
        let drains = Drains(pool.clone());
        pool.spawn(move || drop(drains)).detach();
        pool.shutdown();
        assert!(job.is_finished());
    });
}

/// Forbids: `drain` returns before an accepted job has run, or cancels that job.
#[test]
fn submit_drain() {
    model(|| {
        let pool = ThreadPool::new(1);
        let early = pool.spawn(|| 1);
        let draining = thread::spawn({
            let pool = pool.clone();
            move || pool.drain()
        });
        let late = pool.spawn(|| 2);
        match late.outcome().wait() {
            Ok(value) => assert_eq!(value, 2),
            Err(error) => assert!(matches!(error, JoinError::Cancelled)),
        }
        draining.join().unwrap();
        assert!(early.is_finished());
        assert_eq!(early.wait(), 1);
        assert_at_rest(&pool);
    });
}

/// Forbids: `drain` returns before a thread has ended; or `drain` waits for ever for a thread that has timed out
/// before.
#[test]
fn drain_joins() {
    model(|| {
        let stopped = Note::new();
        let pool =
            ThreadPool::builder().threads(1).on_thread_start(|| ThreadHandle::current().time_out()).on_thread_stop({
                let stopped = stopped.clone();
                move || stopped.write()
            });
        let pool = pool.build();
        block_on(pool.spawn(|| ()));
        pool.drain();
        assert!(stopped.is_written());
    });
}

/// Forbids: another thread has shut the pool down and is about to refuse a queued job, and `drain` returns while this
/// job is still queued.
#[test]
fn drain_beside_a_shutdown() {
    model(|| {
        let pool = ThreadPool::new(1);
        let job = pool.spawn(|| ());
        let other = thread::spawn({
            let pool = pool.clone();
            move || pool.shutdown()
        });
        pool.drain();
        assert!(job.is_finished());
        other.join().unwrap();
    });
}

/// Forbids: a thread that drains a pool sees that another thread is refusing the last job, and is not woken after the
/// job has been refused. (The other thread does not join the pool's threads, because this would wake the draining
/// thread too.)
#[test]
fn drain_beside_a_refusal() {
    model(|| {
        let pool = ThreadPool::new(1);
        let job = pool.spawn(|| ());
        let other = thread::spawn({
            let pool = pool.clone();
            move || pool.shutdown_timeout(std::time::Duration::MAX).unwrap()
        });
        pool.drain();
        assert!(job.is_finished());
        other.join().unwrap();
    });
}

/// Forbids: `shutdown_timeout` returns before a started job has ended.
#[test]
fn shutdown_timeout_waits() {
    model(|| {
        let pool = ThreadPool::new(1);
        let ran = Note::new();
        let job = pool.spawn({
            let ran = ran.clone();
            move || ran.write()
        });
        pool.shutdown_timeout(std::time::Duration::MAX).unwrap();
        assert!(job.is_finished());
        assert_eq!(block_on(job.outcome()).is_ok(), ran.is_written());
    });
}

/// Forbids: two threads drain a pool, one of them joins the pool's thread, and the other returns before that thread has
/// ended.
#[test]
fn two_drains_join() {
    model(|| {
        let stopped = Note::new();
        let pool = ThreadPool::builder().threads(1).on_thread_stop({
            let stopped = stopped.clone();
            move || stopped.write()
        });
        let pool = pool.build();
        block_on(pool.spawn(|| ()));
        let other = thread::spawn({
            let (pool, stopped) = (pool.clone(), stopped.clone());
            move || {
                pool.drain();
                assert!(stopped.is_written());
            }
        });
        pool.drain();
        assert!(stopped.is_written());
        other.join().unwrap();
    });
}

/// Forbids: two jobs that drain their own pool at the same time wait for each other.
#[test]
fn two_jobs_drain() {
    model(|| {
        let pool = ThreadPool::new(2);
        let jobs = [(); 2].map(|()| {
            let inside = pool.clone();
            pool.spawn(move || inside.drain()).outcome()
        });
        drop(pool);
        for job in jobs {
            // The second job is cancelled if it is submitted after the first has closed the pool.
            assert!(matches!(job.wait(), Ok(()) | Err(JoinError::Cancelled)));
        }
    });
}

/// Forbids: a job that is cancelled as a worker takes it runs as well; or it is counted both as run and as cancelled,
/// or as neither.
#[test]
fn cancel_start() {
    model(|| {
        let pool = ThreadPool::new(1);
        let runs = Arc::new(AtomicUsize::new(0));
        let job = pool.spawn({
            let runs = runs.clone();
            move || runs.fetch_add(1, Relaxed)
        });
        let cancelled = job.cancel();
        match job.outcome().wait() {
            Ok(_) => assert!(!cancelled),
            Err(error) => assert!(matches!(error, JoinError::Cancelled) && cancelled),
        }
        assert_at_rest(&pool);
        assert_eq!(pool.stats().cancelled, u64::from(cancelled));
        assert_eq!(runs.load(Relaxed), usize::from(!cancelled));
    });
}

/// Forbids: a job is cancelled while `drain` waits for it, and `drain` waits for ever.
#[test]
fn cancel_drain() {
    model(|| {
        let pool = ThreadPool::new(1);
        let (go, gone) = oneshot::channel();
        let first = pool.spawn(|| gone.recv_blocking().unwrap());
        let second = pool.spawn(|| ());
        let draining = thread::spawn(move || pool.drain());
        second.cancel();
        go.send(()).unwrap();
        draining.join().unwrap();
        assert!(first.is_finished() && second.is_finished());
    });
}

/// Forbids: the last handle is dropped while a job runs, and the drop hangs, or the job does not finish.
#[test]
fn last_handle_running() {
    model(|| {
        let pool = ThreadPool::new(1);
        let (sender, receiver) = oneshot::channel();
        let job = pool.spawn(|| receiver.recv_blocking());
        let dropping = thread::spawn(move || drop(pool));
        sender.send(7).unwrap();
        assert_eq!(block_on(job), Ok(7));
        dropping.join().unwrap();
    });
}

/// Forbids: in a pool of one thread, a blocked job keeps the job that it waits for from running; or two jobs run at
/// once after the blocked worker has returned.
#[test]
fn spare_thread() {
    model(|| {
        let pool = ThreadPool::new(1);
        let (sender, receiver) = oneshot::channel();
        let first = pool.spawn(|| receiver.recv_blocking());
        let second = pool.spawn(|| sender.send(7));
        assert_eq!(block_on(first), Ok(7));
        assert_eq!(block_on(second), Ok(()));
        // The blocked worker has returned, but the spare thread may still be there. Only the pool orders these two
        // jobs.
        let note = Note::new();
        let jobs = [(); 2].map(|()| {
            let note = note.clone();
            pool.spawn(move || note.write())
        });
        jobs.into_iter().for_each(block_on);
    });
}

/// Forbids: a job is submitted as the only worker blocks, and is left to that worker.
#[test]
fn submit_block() {
    model(|| {
        let pool = ThreadPool::new(1);
        let (sender, receiver) = oneshot::channel();
        let first = pool.spawn(|| receiver.recv_blocking());
        let submitting = thread::spawn({
            let pool = pool.clone();
            move || block_on(pool.spawn(|| sender.send(7)))
        });
        assert_eq!(block_on(first), Ok(7));
        submitting.join().unwrap().unwrap();
    });
}

/// Forbids: a job that another job runs inline is run by a worker as well, or is counted twice.
#[test]
fn inline_wait() {
    model(|| {
        let pool = ThreadPool::new(2);
        let runs = Arc::new(AtomicUsize::new(0));
        let outer = pool.spawn({
            let (inside, runs) = (pool.clone(), runs.clone());
            move || inside.spawn(move || runs.fetch_add(1, Relaxed)).wait()
        });
        assert_eq!(block_on(outer), 0);
        assert_eq!(runs.load(Relaxed), 1);
        assert_at_rest(&pool);
        assert_eq!(pool.stats().succeeded, 2);
    });
}

/// Forbids: two workers are idle, two jobs are submitted, and only one worker is woken. The first job spins until the
/// second has run, so the woken worker must wake the other worker.
#[test]
fn woken_worker_wakes_the_next() {
    model(|| {
        let pool = ThreadPool::new(2);
        // In the first round the workers may still be starting; in the second they are idle, or searching.
        for _ in 0..2 {
            let go = Arc::new(AtomicBool::new(false));
            let gone = go.clone();
            let first = pool.spawn(move || {
                while !gone.load(Relaxed) {
                    thread::yield_now();
                }
            });
            let second = pool.spawn(move || go.store(true, Relaxed));
            block_on(first);
            block_on(second);
        }
    });
}

/// Forbids: a spare thread takes another job after the blocked worker has returned.
#[test]
fn surplus_thread_takes_no_job() {
    model(|| {
        let pool = ThreadPool::new(1);
        let (sender, receiver) = oneshot::channel();
        let (is_back, note) = (Arc::new(AtomicBool::new(false)), Note::new());
        let blocked = pool.spawn({
            let (is_back, note) = (is_back.clone(), note.clone());
            move || {
                receiver.recv_blocking().unwrap();
                is_back.store(true, Relaxed);
                note.write();
            }
        });
        let waking = pool.spawn(|| sender.send(()));
        // This job may still run while the worker that was blocked runs again; `next` may not.
        let beside = pool.spawn(move || {
            while !is_back.load(Relaxed) {
                thread::yield_now();
            }
        });
        let next = pool.spawn(move || note.write());
        block_on(blocked);
        block_on(waking).unwrap();
        block_on(beside);
        block_on(next);
    });
}

/// Forbids: a job is left to a searching worker that first blocks in a waker, and that waker waits for this job.
#[test]
fn waker_that_waits() {
    struct Waits(ThreadPool, Mutex<Option<oneshot::Sender<()>>>);
    impl Wake for Waits {
        fn wake(self: std::sync::Arc<Self>) {
            block_on(self.0.spawn(|| ()));
            let done = self.1.lock().unwrap().take();
            done.unwrap().send(()).unwrap();
        }
    }
    model(|| {
        let pool = ThreadPool::new(1);
        let (done, is_done) = oneshot::channel();
        let waker = std::sync::Arc::new(Waits(pool.clone(), Mutex::new(Some(done)))).into();
        let mut job = pool.spawn(|| ());
        if Pin::new(&mut job).poll(&mut Context::from_waker(&waker)).is_pending() {
            is_done.recv_blocking().unwrap();
            block_on(job);
        }
    });
}

/// Forbids: a job is left to a searching worker that first runs a waker, and that waker spins until this job has run.
#[test]
fn waker_that_spins() {
    struct Spins(Arc<(AtomicBool, AtomicBool)>);
    impl Wake for Spins {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.0.store(true, Relaxed);
            while !self.0.1.load(Relaxed) {
                thread::yield_now();
            }
        }
    }
    model(|| {
        let pool = ThreadPool::new(2);
        let flags = Arc::new((AtomicBool::new(false), AtomicBool::new(false)));
        let waker = std::sync::Arc::new(Spins(flags.clone())).into();
        let mut first = pool.spawn(|| ());
        if Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending() {
            while !flags.0.load(Relaxed) {
                thread::yield_now();
            }
            block_on(pool.spawn(move || flags.1.store(true, Relaxed)));
            block_on(first);
        }
    });
}

/// Forbids: a job is left to a thread that is starting, and the thread's start hook waits for that job.
#[test]
fn start_hook_that_waits() {
    model(|| {
        let (sender, receiver) = oneshot::channel();
        let receiver = Mutex::new(Some(receiver));
        let pool = ThreadPool::builder().threads(1).on_thread_start(move || {
            let receiver: Option<oneshot::Receiver<()>> = receiver.lock().unwrap().take();
            if let Some(receiver) = receiver {
                receiver.recv_blocking().unwrap();
            }
        });
        let pool = pool.build();
        block_on(pool.spawn(|| sender.send(()))).unwrap();
    });
}
