//! Models of `src/primitives/job.rs` and `src/primitives/cancel.rs`: a job runs once or is cancelled, its closure and its result are dropped once, and
//! its handle resolves.

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

/// Where the jobs of a model belong.
#[derive(Clone)]
struct Home(StdArc<Inner>);

struct Inner {
    stop: Stop,
    /// How many jobs it was told will not run. Orders nothing, so that it cannot hide a missing edge.
    cancelled: AtomicUsize,
}

impl Home {
    fn new() -> Self {
        Self(StdArc::new(Inner { stop: Stop::default(), cancelled: AtomicUsize::new(0) }))
    }

    fn cancelled(&self) -> usize {
        self.0.cancelled.load(Relaxed)
    }
}

impl JobOwner for Home {
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
    /// Whether this thread is one that runs jobs.
    static INLINE: Cell<bool> = Cell::new(false);
}

/// A job that owns one counted value and returns another; and how often it has run.
struct Watched {
    home: Home,
    queued: Queued,
    handle: Job<Counted>,
    runs: Arc<AtomicUsize>,
    closures: Drops,
    results: Drops,
}

fn watched() -> Watched {
    let (runs, closures, results) = (Arc::new(AtomicUsize::new(0)), Drops::default(), Drops::default());
    let home = Home::new();
    let (captured, made) = (closures.value(0), results.clone());
    let counted = runs.clone();
    let (queued, handle) = job(
        move || {
            counted.fetch_add(1, Relaxed);
            drop(captured);
            made.value(7)
        },
        home.clone(),
    );
    Watched { home, queued, handle, runs, closures, results }
}

/// Runs the job in a thread; whether it ran there. The thread must be told so, once, and before user code runs.
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

/// A note that is written when this is dropped.
struct Dropped(Note);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.write();
    }
}

/// Forbids: the handle waits for a job that has finished, or gets its result before the closure is gone.
#[test]
fn run_await() {
    model(|| {
        let Watched { queued, handle, runs, closures, results, .. } = watched();
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
        let Watched { home, queued, handle, runs, closures, results } = watched();
        let worker = run(queued);
        let cancelled = handle.cancel();
        if cancelled {
            assert_eq!(closures.count(), 1, "cancelled, but its closure is still there");
            assert_eq!(home.cancelled(), 1, "nobody was told");
        }
        match handle.outcome().wait() {
            Ok(value) => assert!(value.number == 7 && !cancelled),
            Err(error) => assert!(matches!(error, JoinError::Cancelled) && cancelled),
        }
        assert_eq!(worker.join().unwrap(), !cancelled);
        assert_eq!(home.cancelled(), usize::from(cancelled));
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

/// Forbids: of two threads that cancel a job at once, both have done it, or neither.
#[test]
fn cancel_cancel() {
    model(|| {
        let Watched { home, queued, handle, runs, closures, results } = watched();
        // Dropping the queued job cancels it, as a pool that shuts down does.
        let dropping = thread::spawn(move || drop(queued));
        let by_handle = handle.cancel();
        if by_handle {
            assert_eq!(closures.count(), 1);
        }
        assert!(matches!(handle.outcome().wait(), Err(JoinError::Cancelled)));
        dropping.join().unwrap();
        assert_eq!(home.cancelled(), usize::from(by_handle));
        assert_eq!((runs.load(Relaxed), closures.count(), results.count()), (0, 1, 0));
    });
}

/// Forbids: a job that was cancelled is said to be finished before its closure has been dropped.
#[test]
fn cancelled_is_finished() {
    model(|| {
        let note = Note::new();
        let captured = Dropped(note.clone());
        let (queued, handle) = job(move || drop(captured), Home::new());
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

/// Forbids: who awaits a job hears nothing of it when another one cancels it, until the queue comes to it; or hears of it
/// twice.
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

/// Forbids: the waker of a handle is woken twice, or never, if the job is cancelled as a worker comes to it.
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
        let Watched { home, queued, handle, runs, closures, results } = watched();
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
        assert_eq!(home.cancelled(), usize::from(cancelled));
        assert_eq!((runs.load(Relaxed), closures.count(), results.count()), (0, 1, 0));
    });
}

/// Forbids: a job that learns that it was cancelled does not see what the canceller did before.
#[test]
fn cancel_publishes() {
    model(|| {
        let note = Note::new();
        let seen = note.clone();
        let (queued, handle) = job(move || assert!(!is_cancelled() || seen.is_written()), Home::new());
        let worker = run(queued);
        note.write();
        handle.cancel();
        worker.join().unwrap();
        assert!(handle.is_finished());
    });
}

/// Forbids: a job that learns that its pool shuts down does not see what was done before; or is not told.
#[test]
fn stop_publishes() {
    model(|| {
        let note = Note::new();
        let home = Home::new();
        let seen = note.clone();
        let until_told = move || {
            while !is_cancelled() {
                thread::yield_now();
            }
            assert!(seen.is_written());
        };
        let (queued, handle) = job(until_told, home.clone());
        let worker = run(queued);
        note.write();
        home.0.stop.set();
        worker.join().unwrap();
        block_on(handle);
    });
}

/// Forbids: a job that a thread runs while it waits for it is run by a worker as well, or by neither; or the worker, which
/// drops what it found in the queue, makes it believe that it was cancelled.
#[test]
fn inline_start() {
    model(|| {
        let Watched { home, queued, handle, runs, closures, results } = watched();
        let worker = run(queued);
        INLINE.with(|inline| inline.set(true));
        assert_eq!(handle.wait().number, 7);
        worker.join().unwrap();
        assert_eq!((runs.load(Relaxed), closures.count(), results.count(), home.cancelled()), (1, 1, 1, 0));
    });
}

/// Forbids: a job that runs in the thread that waits for it is told that it was cancelled, since its place in the queue
/// has been thrown away.
#[test]
fn inline_stale() {
    model(|| {
        let home = Home::new();
        let (queued, handle) = job(is_cancelled, home.clone());
        let dropping = thread::spawn(move || {
            let stale = queued.is_stale();
            drop(queued);
            stale
        });
        INLINE.with(|inline| inline.set(true));
        let outcome = handle.outcome().wait();
        let was_stale = dropping.join().unwrap();
        match outcome {
            Ok(told) => assert!(!told && home.cancelled() == 0),
            Err(error) => assert!(matches!(error, JoinError::Cancelled) && !was_stale && home.cancelled() == 0),
        }
    });
}

/// Forbids: a job is said to have finished when its result is not there yet, or what it did cannot be seen.
#[test]
fn is_finished() {
    model(|| {
        let note = Note::new();
        let written = note.clone();
        let (queued, mut handle) = job(move || written.write(), Home::new());
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
        let until_told = || {
            while !is_cancelled() {
                thread::yield_now();
            }
        };
        let (queued, handle) = job(until_told, Home::new());
        let worker = run(queued);
        drop(handle);
        worker.join().unwrap();
    });
}

/// A job that waits until it is told to stop.
fn watching(home: &Home) -> (Queued, Job<()>) {
    job(
        || {
            let mut watch = CancelWatch::default();
            poll_until(None, |cx| watch.poll(cx));
            assert!(is_cancelled());
        },
        home.clone(),
    )
}

/// Forbids: a job is cancelled as it comes to wait for that, and waits on.
#[test]
fn watch_cancel() {
    model(|| {
        let home = Home::new();
        let (queued, handle) = watching(&home);
        let worker = run(queued);
        handle.cancel();
        worker.join().unwrap();
    });
}

/// Forbids: a job's executor is stopped as it comes to wait for that, and it waits on.
#[test]
fn watch_stop() {
    model(|| {
        let home = Home::new();
        let (queued, handle) = watching(&home);
        let worker = run(queued);
        home.0.stop.set();
        block_on(handle);
        worker.join().unwrap();
    });
}

/// Forbids: of two jobs that wait to be cancelled, the other one is woken, or the one forgets the other.
#[test]
fn watch_beside_another() {
    model_with(2, || {
        let home = Home::new();
        let (one, other) = (watching(&home), watching(&home));
        let workers = [run(one.0), run(other.0)];
        one.1.cancel();
        other.1.cancel();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// Forbids: the queue's side, as it throws out a job that its handle has just claimed, wakes whoever awaits that, or makes
/// the job seem finished, before the closure has been dropped.
#[test]
fn thrown_out_as_it_is_cancelled() {
    /// Counts how often it is woken, which must not be before the note is written.
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
        let (queued, mut handle) = job(move || drop(captured), Home::new());
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
