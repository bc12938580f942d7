//! Models of `src/primitives/job.rs`: a job runs once or is cancelled, its closure and its result are dropped once, and
//! its handle resolves.

mod common;

use common::{Counted, Drops, Note, model, poll_once};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;
use offthread::internals::{Ended, Queued, Worker, job};
use offthread::{Job, JoinError, block_on, is_cancelled};

/// A job that owns one counted value and returns another; and how often it has run.
struct Watched {
    queued: Queued,
    handle: Job<Counted>,
    runs: Arc<AtomicUsize>,
    closures: Drops,
    results: Drops,
}

fn watched() -> Watched {
    let (runs, closures, results) = (Arc::new(AtomicUsize::new(0)), Drops::default(), Drops::default());
    let (queued, handle) = job({
        let (runs, captured, results) = (runs.clone(), closures.value(0), results.clone());
        move || {
            runs.fetch_add(1, Relaxed);
            drop(captured);
            results.value(7)
        }
    });
    Watched { queued, handle, runs, closures, results }
}

/// Notes what a worker is told.
#[derive(Default)]
struct Told {
    ended: Vec<Ended>,
    busy: usize,
}

impl Worker for Told {
    fn ended(&mut self, how: Ended) {
        self.ended.push(how);
    }

    fn busy(&mut self) {
        assert_eq!(self.ended.len(), 1, "busy before the end");
        self.busy += 1;
    }
}

/// Runs the job in a thread; whether it ran there. It must be told so, once.
fn run(queued: Queued) -> thread::JoinHandle<bool> {
    thread::spawn(move || {
        let mut told = Told::default();
        queued.run(&mut told);
        assert!(matches!(told.ended[..], [] | [Ended::Succeeded]), "{:?}", told.ended);
        assert!(told.busy <= told.ended.len());
        !told.ended.is_empty()
    })
}

/// Forbids: the handle waits for a job that has finished, or gets its result before the closure is gone.
#[test]
fn run_await() {
    model(|| {
        let Watched { queued, handle, runs, closures, results } = watched();
        let worker = run(queued);
        assert_eq!(block_on(handle).number, 7);
        assert_eq!(closures.count(), 1, "the closure outlived its result");
        assert!(worker.join().unwrap());
        assert_eq!((runs.load(Relaxed), results.count()), (1, 1));
    });
}

/// Forbids: a job that is cancelled as a worker starts it both runs and is cancelled, or neither; or `cancel` says the
/// wrong thing of it.
#[test]
fn cancel_start() {
    model(|| {
        let Watched { queued, handle, runs, closures, results } = watched();
        let worker = run(queued);
        let cancelled = handle.cancel();
        if cancelled {
            assert_eq!(closures.count(), 1, "cancelled, but its closure is still there");
        }
        match handle.outcome().wait() {
            Ok(value) => assert!(value.number == 7 && !cancelled),
            Err(error) => assert!(matches!(error, JoinError::Cancelled) && cancelled),
        }
        assert_eq!(worker.join().unwrap(), !cancelled);
        let ran = usize::from(!cancelled);
        assert_eq!((runs.load(Relaxed), closures.count(), results.count()), (ran, 1, ran));
    });
}

/// Forbids: dropping the handle as the job starts, runs or ends drops the closure or the result twice, or never.
#[test]
fn drop_run() {
    model(|| {
        let Watched { queued, handle, runs, closures, results } = watched();
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
        let Watched { queued, mut handle, runs, closures, results } = watched();
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
        let Watched { queued, handle, runs, closures, results } = watched();
        let worker = run(queued);
        handle.detach();
        assert!(worker.join().unwrap());
        assert_eq!((runs.load(Relaxed), closures.count(), results.count()), (1, 1, 1));
    });
}

/// Forbids: of two threads that cancel a job at once, both have done it, or neither.
#[test]
fn cancel_cancel() {
    model(|| {
        let Watched { queued, handle, runs, closures, results } = watched();
        // Dropping the queued job cancels it, as a pool that shuts down does.
        let dropping = thread::spawn(move || drop(queued));
        let by_handle = handle.cancel();
        if by_handle {
            assert_eq!(closures.count(), 1);
        }
        assert!(matches!(handle.outcome().wait(), Err(JoinError::Cancelled)));
        dropping.join().unwrap();
        assert_eq!((runs.load(Relaxed), closures.count(), results.count()), (0, 1, 0));
    });
}

/// Forbids: a job whose queue is dropped leaves its handle waiting for ever.
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

/// Forbids: a job that is refused as it is cancelled resolves twice, or never.
#[test]
fn cancel_refuse() {
    model(|| {
        let Watched { queued, handle, runs, closures, results } = watched();
        let refusing = thread::spawn(move || queued.refuse(std::io::ErrorKind::OutOfMemory.into()));
        let cancelled = handle.cancel();
        match handle.outcome().wait() {
            Err(JoinError::Cancelled) => assert!(cancelled),
            Err(JoinError::NoThread(_)) => assert!(!cancelled),
            other => panic!("{other:?}"),
        }
        refusing.join().unwrap();
        assert_eq!((runs.load(Relaxed), closures.count(), results.count()), (0, 1, 0));
    });
}

/// Forbids: a job that learns that it was cancelled does not see what the canceller did before.
#[test]
fn cancel_publishes() {
    model(|| {
        let note = Note::new();
        let (queued, handle) = job({
            let note = note.clone();
            move || assert!(!is_cancelled() || note.is_written())
        });
        let worker = run(queued);
        note.write();
        handle.cancel();
        worker.join().unwrap();
        assert!(handle.is_finished());
    });
}

/// Forbids: a job is said to have finished when its result is not there yet, or what it did cannot be seen.
#[test]
fn is_finished() {
    model(|| {
        let note = Note::new();
        let (queued, mut handle) = job({
            let note = note.clone();
            move || note.write()
        });
        let worker = run(queued);
        if handle.is_finished() {
            assert!(note.is_written());
            assert!(poll_once(&mut handle).0.is_ready(), "finished, but there is no result");
        }
        worker.join().unwrap();
    });
}

/// Forbids: a job that runs is not told that it was cancelled, and goes on for ever.
#[test]
fn running_job_is_told() {
    model(|| {
        let (queued, handle) = job(|| {
            while !is_cancelled() {
                thread::yield_now();
            }
        });
        let worker = run(queued);
        drop(handle);
        worker.join().unwrap();
    });
}
