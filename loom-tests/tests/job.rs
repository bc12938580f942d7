//! Models of `src/primitives/job.rs` and `src/primitives/cancel.rs`: a job runs once or is cancelled, its closure and
//! its result are dropped once, and its handle resolves.

mod common;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc as StdArc;
use std::task::{Context, Wake};

use common::{Counted, Drops, Note, model, model_with, poll_once};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;
use offthread::internals::{CancelWatch, JobOwner, Progress, Queued, Stop, block_on, job, poll_until};
use offthread::{Job, JoinError, is_cancelled};

/// The owner of the jobs in a model.
#[derive(Clone)]
struct Owner(StdArc<Inner>);

struct Inner {
    stop: Stop,
    /// How often the owner was told that a job was cancelled. Relaxed, so that the counter cannot hide a missing edge.
    cancelled: AtomicUsize,
}

impl Owner {
    fn new() -> Self {
        Self(StdArc::new(Inner { stop: Stop::default(), cancelled: AtomicUsize::new(0) }))
    }

    fn cancelled(&self) -> usize {
        self.0.cancelled.load(Relaxed)
    }
}

impl JobOwner for Owner {
    fn cancelled(&self) {
        self.0.cancelled.fetch_add(1, Relaxed);
    }

    fn stop(&self) -> &Stop {
        &self.0.stop
    }

    fn may_run_inline(&self) -> bool {
        INLINE.with(Cell::get)
    }
}

loom::thread_local! {
    /// Whether this thread may run a job inline while it waits for that job.
    static INLINE: Cell<bool> = Cell::new(false);
}

/// A job that owns one counted value and returns another, with its counters.
struct Watched {
    owner: Owner,
    queued: Queued,
    handle: Job<Counted>,
    runs: Arc<AtomicUsize>,
    closures: Drops,
    results: Drops,
}

fn watched() -> Watched {
    let (runs, closures, results) = (Arc::new(AtomicUsize::new(0)), Drops::default(), Drops::default());
    let owner = Owner::new();
    let (captured, made) = (closures.value(0), results.clone());
    let counted = runs.clone();
    let (queued, handle) = job(
        move || {
            counted.fetch_add(1, Relaxed);
            drop(captured);
            made.value(7)
        },
        owner.clone(),
    );
    Watched { owner, queued, handle, runs, closures, results }
}

/// Runs the job in a thread, which returns whether the job ran. Asserts that `Succeeded` is reported once, before
/// `UserCode`.
fn run(queued: Queued) -> thread::JoinHandle<bool> {
    thread::spawn(move || {
        let mut told = Vec::new();
        if let Some(job) = queued.claim() {
            job.run(&mut |progress| told.push(progress));
        }
        assert!(matches!(told[..], [] | [Progress::Succeeded] | [Progress::Succeeded, Progress::UserCode]), "{told:?}");
        !told.is_empty()
    })
}

/// Writes the note in its `Drop`.
struct Dropped(Note);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.write();
    }
}

/// Forbids: the handle waits for a job that has finished; or the closure or the result is dropped twice or never.
#[test]
fn run_await() {
    model(|| {
        let Watched { queued, handle, runs, closures, results, .. } = watched();
        let worker = run(queued);
        assert_eq!(block_on(handle).number, 7);
        assert!(worker.join().unwrap());
        assert_eq!((runs.load(Relaxed), closures.count(), results.count()), (1, 1, 1));
    });
}

/// Forbids: a job that is cancelled as a worker starts it both runs and is cancelled, or neither; or `cancel` returns
/// the wrong answer.
#[test]
fn cancel_start() {
    model(|| {
        let Watched { owner, queued, handle, runs, closures, results } = watched();
        let worker = run(queued);
        let cancelled = handle.cancel();
        if cancelled {
            assert_eq!(closures.count(), 1, "cancelled, but the closure has not been dropped");
            assert_eq!(owner.cancelled(), 1, "cancelled, but the owner was not told");
        }
        match handle.outcome().wait() {
            Ok(value) => assert!(value.number == 7 && !cancelled),
            Err(error) => assert!(matches!(error, JoinError::Cancelled) && cancelled),
        }
        assert_eq!(worker.join().unwrap(), !cancelled);
        assert_eq!(owner.cancelled(), usize::from(cancelled));
        let ran = usize::from(!cancelled);
        assert_eq!((runs.load(Relaxed), closures.count(), results.count()), (ran, 1, ran));
    });
}

/// Forbids: dropping the handle as the job starts, runs or ends drops the closure or the result twice, or never.
#[test]
fn drop_run() {
    model(|| {
        let Watched { queued, handle, runs, closures, results, .. } = watched();
        let worker = run(queued);
        drop(handle);
        worker.join().unwrap();
        assert_eq!((closures.count(), results.count()), (1, runs.load(Relaxed)));
    });
}

/// Forbids: the same, for a handle that has been polled.
#[test]
fn poll_drop_run() {
    model(|| {
        let Watched { queued, mut handle, runs, closures, results, .. } = watched();
        let worker = run(queued);
        drop(poll_once(&mut handle));
        drop(handle);
        worker.join().unwrap();
        assert_eq!((closures.count(), results.count()), (1, runs.load(Relaxed)));
    });
}

/// Forbids: a detached job does not run, or its result is dropped twice or never.
#[test]
fn detach_run() {
    model(|| {
        let Watched { queued, handle, runs, closures, results, .. } = watched();
        let worker = run(queued);
        handle.detach();
        assert!(worker.join().unwrap());
        assert_eq!((runs.load(Relaxed), closures.count(), results.count()), (1, 1, 1));
    });
}

/// Forbids: two threads cancel a job at once, and both succeed, or neither does.
#[test]
fn cancel_cancel() {
    model(|| {
        let Watched { owner, queued, handle, runs, closures, results } = watched();
        // Dropping the queue's entry cancels the job.
        let dropping = thread::spawn(move || drop(queued));
        let by_handle = handle.cancel();
        if by_handle {
            assert_eq!(closures.count(), 1);
        }
        assert!(matches!(handle.outcome().wait(), Err(JoinError::Cancelled)));
        dropping.join().unwrap();
        assert_eq!(owner.cancelled(), usize::from(by_handle));
        assert_eq!((runs.load(Relaxed), closures.count(), results.count()), (0, 1, 0));
    });
}

/// Forbids: `is_finished` is true for a cancelled job whose closure has not been dropped.
#[test]
fn cancelled_is_finished() {
    model(|| {
        let note = Note::new();
        let captured = Dropped(note.clone());
        let (queued, handle) = job(move || drop(captured), Owner::new());
        let handle = StdArc::new(handle);
        let cancelling = thread::spawn({
            let handle = handle.clone();
            move || assert!(handle.cancel())
        });
        if handle.is_finished() {
            assert!(note.is_written());
        }
        cancelling.join().unwrap();
        assert!(handle.is_finished() && note.is_written());
        drop(queued);
    });
}

/// Forbids: `cancel` does not wake the task that awaits the job, or dropping the stale queue entry wakes that task
/// again.
#[test]
fn cancel_wakes_the_handle() {
    model(|| {
        let Watched { queued, mut handle, closures, .. } = watched();
        let (polled, wakes) = poll_once(&mut handle);
        assert!(polled.is_pending());
        assert!(handle.cancel());
        assert_eq!((wakes.wakes(), closures.count()), (1, 1));
        let leaving = thread::spawn(move || drop(queued));
        assert!(matches!(handle.outcome().wait(), Err(JoinError::Cancelled)));
        leaving.join().unwrap();
        assert_eq!(wakes.wakes(), 1);
    });
}

/// Forbids: a job is cancelled as a worker takes it, and the handle's waker is woken twice or never.
#[test]
fn cancel_start_of_an_awaited_job() {
    model(|| {
        let Watched { queued, mut handle, closures, .. } = watched();
        let (polled, wakes) = poll_once(&mut handle);
        assert!(polled.is_pending());
        let worker = run(queued);
        let cancelled = handle.cancel();
        worker.join().unwrap();
        assert_eq!((wakes.wakes(), closures.count()), (1, 1));
        match handle.outcome().wait() {
            Ok(_) => assert!(!cancelled),
            Err(error) => assert!(matches!(error, JoinError::Cancelled) && cancelled),
        }
    });
}

/// Forbids: a job's queue entry is dropped, and the handle waits for ever.
#[test]
fn drop_queued() {
    model(|| {
        let Watched { queued, handle, runs, closures, .. } = watched();
        let dropping = thread::spawn(move || drop(queued));
        assert!(matches!(handle.outcome().wait(), Err(JoinError::Cancelled)));
        assert_eq!((runs.load(Relaxed), closures.count()), (0, 1));
        dropping.join().unwrap();
    });
}

/// Forbids: a job is refused as it is cancelled, and its handle resolves twice or never.
#[test]
fn cancel_refuse() {
    model(|| {
        let Watched { owner, queued, handle, runs, closures, results } = watched();
        let refusing = thread::spawn(move || {
            if let Some(job) = queued.claim() {
                job.refuse(JoinError::NoThread(std::io::ErrorKind::OutOfMemory.into()));
            }
        });
        let cancelled = handle.cancel();
        match handle.outcome().wait() {
            Err(JoinError::Cancelled) => assert!(cancelled),
            Err(JoinError::NoThread(_)) => assert!(!cancelled),
            other => panic!("{other:?}"),
        }
        refusing.join().unwrap();
        assert_eq!(owner.cancelled(), usize::from(cancelled));
        assert_eq!((runs.load(Relaxed), closures.count(), results.count()), (0, 1, 0));
    });
}

/// Forbids: a job sees that it was cancelled, but not what the canceller wrote before.
#[test]
fn cancel_publishes() {
    model(|| {
        let note = Note::new();
        let seen = note.clone();
        let (queued, handle) = job(move || assert!(!is_cancelled() || seen.is_written()), Owner::new());
        let worker = run(queued);
        note.write();
        handle.cancel();
        worker.join().unwrap();
        assert!(handle.is_finished());
    });
}

/// Forbids: a job does not see that its owner was stopped, or does not see what was written before the stop.
#[test]
fn stop_publishes() {
    model(|| {
        let note = Note::new();
        let owner = Owner::new();
        let seen = note.clone();
        let until_told = move || {
            while !is_cancelled() {
                thread::yield_now();
            }
            assert!(seen.is_written());
        };
        let (queued, handle) = job(until_told, owner.clone());
        let worker = run(queued);
        note.write();
        owner.0.stop.set();
        worker.join().unwrap();
        block_on(handle);
    });
}

/// Forbids: a thread waits for a job and runs it inline while a worker takes it, and the job runs twice or never; or
/// the worker drops the stale entry, which cancels the job.
#[test]
fn inline_start() {
    model(|| {
        let Watched { owner, queued, handle, runs, closures, results } = watched();
        let worker = run(queued);
        INLINE.with(|inline| inline.set(true));
        assert_eq!(handle.wait().number, 7);
        worker.join().unwrap();
        assert_eq!((runs.load(Relaxed), closures.count(), results.count(), owner.cancelled()), (1, 1, 1, 0));
    });
}

/// Forbids: a job that runs inline is told that it was cancelled, because its stale queue entry was dropped.
#[test]
fn inline_stale() {
    model(|| {
        let owner = Owner::new();
        let (queued, handle) = job(is_cancelled, owner.clone());
        let dropping = thread::spawn(move || {
            let stale = queued.is_stale();
            drop(queued);
            stale
        });
        INLINE.with(|inline| inline.set(true));
        let outcome = handle.outcome().wait();
        let was_stale = dropping.join().unwrap();
        match outcome {
            Ok(told) => assert!(!told && owner.cancelled() == 0),
            Err(error) => assert!(matches!(error, JoinError::Cancelled) && !was_stale && owner.cancelled() == 0),
        }
    });
}

/// Forbids: `is_finished` is true, but the result is not there yet, or the caller does not see what the job wrote.
#[test]
fn is_finished() {
    model(|| {
        let note = Note::new();
        let written = note.clone();
        let (queued, mut handle) = job(move || written.write(), Owner::new());
        let worker = run(queued);
        if handle.is_finished() {
            assert!(note.is_written());
            assert!(poll_once(&mut handle).0.is_ready(), "finished, but there is no result");
        }
        worker.join().unwrap();
    });
}

/// Forbids: a running job is not told that its handle was dropped, and goes on for ever.
#[test]
fn running_job_is_told() {
    model(|| {
        let until_told = || {
            while !is_cancelled() {
                thread::yield_now();
            }
        };
        let (queued, handle) = job(until_told, Owner::new());
        let worker = run(queued);
        drop(handle);
        worker.join().unwrap();
    });
}

/// A job that waits with a `CancelWatch` until it is cancelled.
fn watching(owner: &Owner) -> (Queued, Job<()>) {
    job(
        || {
            let mut watch = CancelWatch::default();
            poll_until(None, |cx| watch.poll(cx));
            assert!(is_cancelled());
        },
        owner.clone(),
    )
}

/// Forbids: a job is cancelled as it starts to wait for its cancellation, and waits on.
#[test]
fn watch_cancel() {
    model(|| {
        let owner = Owner::new();
        let (queued, handle) = watching(&owner);
        let worker = run(queued);
        handle.cancel();
        worker.join().unwrap();
    });
}

/// Forbids: a job's owner is stopped as the job starts to wait for its cancellation, and the job waits on.
#[test]
fn watch_stop() {
    model(|| {
        let owner = Owner::new();
        let (queued, handle) = watching(&owner);
        let worker = run(queued);
        owner.0.stop.set();
        block_on(handle);
        worker.join().unwrap();
    });
}

/// Forbids: two jobs wait for their cancellation, and cancelling one of them removes the other's waker without waking
/// it.
#[test]
fn watch_beside_another() {
    model_with(2, || {
        let owner = Owner::new();
        let (one, other) = (watching(&owner), watching(&owner));
        let workers = [run(one.0), run(other.0)];
        one.1.cancel();
        other.1.cancel();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// Forbids: a queue drops the stale entry of a job that is being cancelled, and this wakes the handle's waker, or makes
/// `is_finished` true, before the closure has been dropped.
#[test]
fn stale_entry_is_dropped_during_the_cancel() {
    /// Counts its wakes, and fails if it is woken before the note is written.
    struct After(Note, std::sync::atomic::AtomicUsize);
    impl Wake for After {
        fn wake(self: StdArc<Self>) {
            assert!(self.0.is_written(), "woken before the closure was dropped");
            self.1.fetch_add(1, Relaxed);
        }
    }
    model(|| {
        let note = Note::new();
        let captured = Dropped(note.clone());
        let (queued, mut handle) = job(move || drop(captured), Owner::new());
        let after = StdArc::new(After(note.clone(), std::sync::atomic::AtomicUsize::new(0)));
        let waker = after.clone().into();
        assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
        let handle = StdArc::new(handle);
        let queue = thread::spawn({
            let handle = handle.clone();
            move || {
                if queued.is_stale() {
                    drop(queued);
                    if handle.is_finished() {
                        assert!(note.is_written());
                    }
                    None
                } else {
                    Some(queued)
                }
            }
        });
        assert!(handle.cancel());
        let left = queue.join().unwrap();
        assert_eq!(after.1.load(Relaxed), 1);
        drop((left, handle));
    });
}
