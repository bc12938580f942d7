//! Random programs on small pools, compared with a sequential model.

#![forbid(unsafe_code)]

use crate::helpers::pool::*;
use offthread::{Job, JoinError, ThreadPool, block_on, threaded_separate};
use proptest::collection::vec;
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// The work of a job.
#[derive(Clone, Copy, Debug)]
enum Work {
    Value,
    Panic,
    /// Submits another job to its pool and waits for that job, this many levels deep. The innermost job submits one
    /// more job, and drops its handle.
    Nested(u8),
    /// The same, and each of these jobs panics, the innermost first.
    NestedPanic(u8),
    /// Submits another job, and drops its handle.
    Abandon,
    /// Submits another job, and detaches it.
    Detach,
}

#[derive(Clone, Debug)]
enum Step {
    Submit(Work),
    SubmitMany(Vec<Work>),
    /// Occupies all threads of the pool, so that no job starts.
    Hold,
    /// Releases the threads.
    Release,
    Cancel(usize),
    Detach(usize),
    Drop(usize),
    Wait(usize),
    Await(usize),
    Resume(usize),
    Stats,
    Drain,
    Shutdown,
}

fn work() -> impl Strategy<Value = Work> {
    prop_oneof![
        4 => Just(Work::Value),
        2 => Just(Work::Panic),
        2 => (1..5_u8).prop_map(Work::Nested),
        1 => (1..4_u8).prop_map(Work::NestedPanic),
        1 => Just(Work::Abandon),
        1 => Just(Work::Detach),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => work().prop_map(Step::Submit),
        3 => vec(work(), 0..6).prop_map(Step::SubmitMany),
        4 => Just(Step::Hold),
        3 => Just(Step::Release),
        5 => (0..20_usize).prop_map(Step::Cancel),
        3 => (0..20_usize).prop_map(Step::Detach),
        4 => (0..20_usize).prop_map(Step::Drop),
        3 => (0..20_usize).prop_map(Step::Wait),
        3 => (0..20_usize).prop_map(Step::Await),
        2 => (0..20_usize).prop_map(Step::Resume),
        3 => Just(Step::Stats),
        1 => Just(Step::Drain),
        1 => Just(Step::Shutdown),
    ]
}

/// What is counted for one job.
#[derive(Default)]
struct Record {
    runs: AtomicUsize,
    /// How many captured values and results were made, and how many were dropped.
    captured: (AtomicUsize, AtomicUsize),
    results: (AtomicUsize, AtomicUsize),
}

struct Captured(Arc<Record>);

impl Captured {
    fn new(record: &Arc<Record>) -> Self {
        record.captured.0.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(record))
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        self.0.captured.1.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Output(usize, #[expect(dead_code, reason = "counts when it is dropped")] OnItsEnd);

/// Counts the drop of a result.
struct OnItsEnd(Arc<Record>);

impl std::fmt::Debug for OnItsEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("_")
    }
}

impl Drop for OnItsEnd {
    fn drop(&mut self) {
        self.0.results.1.fetch_add(1, Ordering::SeqCst);
    }
}

/// The state that all jobs of a program share.
#[derive(Clone)]
struct World {
    pool: ThreadPool,
    /// How many jobs were submitted, by the program and inside its jobs.
    submitted: Arc<AtomicUsize>,
    /// How many jobs have returned.
    ended: Arc<AtomicUsize>,
    /// How many jobs have panicked.
    panicked: Arc<AtomicUsize>,
}

impl World {
    fn new(threads: usize) -> Self {
        let pool = ThreadPool::builder().threads(threads).keep_alive(Duration::from_millis(2)).build();
        Self { pool, submitted: Arc::default(), ended: Arc::default(), panicked: Arc::default() }
    }

    /// The closure of a job with this number.
    fn job(&self, work: Work, number: usize, record: &Arc<Record>) -> impl FnOnce() -> Output + Send + 'static {
        self.submitted.fetch_add(1, Ordering::SeqCst);
        let (world, captured) = (self.clone(), Captured::new(record));
        move || {
            let record = Arc::clone(&captured.0);
            record.runs.fetch_add(1, Ordering::SeqCst);
            if world.work(work) {
                world.panicked.fetch_add(1, Ordering::SeqCst);
                resume_unwind(Box::new(number));
            }
            world.ended.fetch_add(1, Ordering::SeqCst);
            record.results.0.fetch_add(1, Ordering::SeqCst);
            Output(number, OnItsEnd(record))
        }
    }

    /// Does the work. Returns whether the job should panic.
    fn work(&self, work: Work) -> bool {
        match work {
            Work::Value => false,
            Work::Panic => true,
            Work::Nested(0) | Work::Abandon | Work::Detach | Work::NestedPanic(0) => {
                let inner = self.pool.spawn(self.job(Work::Value, 0, &Arc::default()));
                if matches!(work, Work::Detach) {
                    inner.detach();
                } else {
                    drop(inner);
                }
                matches!(work, Work::NestedPanic(0))
            }
            Work::Nested(depth) => {
                // If the pool has been closed meanwhile, it refuses the job.
                let inner = self.pool.spawn(self.job(Work::Nested(depth - 1), 0, &Arc::default()));
                drop(inner.outcome().wait());
                false
            }
            Work::NestedPanic(depth) => {
                let inner = self.pool.spawn(self.job(Work::NestedPanic(depth - 1), 7, &Arc::default()));
                match inner.outcome().wait() {
                    Ok(_) => panic!("the panic is lost"),
                    Err(JoinError::Panicked(panic)) => assert_eq!(panic.into_payload().downcast_ref(), Some(&7_usize)),
                    Err(_) => assert!(self.pool.is_closed()),
                }
                true
            }
        }
    }
}

/// One job of the program in the model.
struct Known {
    /// The handle, until it was waited for, dropped or detached.
    handle: Option<Job<Output>>,
    record: Arc<Record>,
    number: usize,
    work: Work,
    /// All threads have been occupied since the job was submitted.
    has_not_started: bool,
    /// The job must never run.
    never: bool,
    /// The handle was not dropped, so a drain must run the job.
    wanted: bool,
}

/// The program's state.
struct Program {
    world: World,
    threads: usize,
    held: Vec<Running<()>>,
    jobs: Vec<Known>,
    closed: bool,
    holds: usize,
}

impl Program {
    fn submit(&mut self, works: &[Work], many: bool) {
        let first = self.jobs.len();
        let records: Vec<_> = works.iter().map(|_| Arc::<Record>::default()).collect();
        let closures =
            works.iter().zip(&records).enumerate().map(|(n, (work, record))| self.world.job(*work, first + n, record));
        let handles = if many {
            self.world.pool.spawn_many(closures)
        } else {
            closures.map(|closure| self.world.pool.spawn(closure)).collect()
        };
        for ((handle, record), work) in handles.into_iter().zip(records).zip(works) {
            if self.closed {
                assert!(handle.is_finished());
            }
            self.jobs.push(Known {
                handle: Some(handle),
                record,
                number: self.jobs.len(),
                work: *work,
                has_not_started: !self.held.is_empty(),
                never: self.closed,
                wanted: true,
            });
        }
    }

    fn hold(&mut self) {
        if self.held.is_empty() && !self.closed {
            // Otherwise a job might return from a wait, and run beside the jobs that occupy the threads.
            until("the pool is at rest", || {
                let stats = self.world.pool.stats();
                stats.queued == 0 && running_now(&stats) == 0
            });
            self.held = hold(&self.world.pool, self.threads);
            self.holds += self.threads;
        }
    }

    fn release(&mut self) {
        release(self.held.drain(..).collect());
        self.jobs.iter_mut().for_each(|job| job.has_not_started = false);
    }

    /// The nth of the jobs that have a handle.
    fn pick(&mut self, nth: usize) -> Option<&mut Known> {
        let left: Vec<_> = self.jobs.iter_mut().filter(|job| job.handle.is_some()).collect();
        let index = nth.checked_rem(left.len())?;
        left.into_iter().nth(index)
    }

    fn cancel(&mut self, nth: usize) {
        let Some(job) = self.pick(nth) else { return };
        let in_time = job.handle.as_ref().unwrap().cancel();
        if job.never {
            assert!(!in_time, "`cancel` returned true for a job that was cancelled or refused before");
            return;
        }
        assert!(in_time || !job.has_not_started, "`cancel` came too late for a job that had not started");
        if in_time {
            job.never = true;
            job.assert_never_ran();
        }
    }

    fn drop_handle(&mut self, nth: usize) {
        let Some(job) = self.pick(nth) else { return };
        drop(job.handle.take());
        job.wanted = false;
        if job.has_not_started {
            job.never = true;
            job.assert_never_ran();
        }
    }

    fn outcome(&mut self, nth: usize, wait: fn(Job<Output>) -> Result<Output, JoinError>) {
        let Some(job) = self.pick(nth) else { return };
        let number = job.number;
        if job.has_not_started && !job.never {
            self.release();
        }
        let job = &mut self.jobs[number];
        match wait(job.handle.take().unwrap()) {
            Ok(output) => assert!(output.0 == number && !job.panics() && !job.never && job.runs() == 1),
            Err(JoinError::Panicked(panic)) => {
                assert!(job.panics() && !job.never && job.runs() == 1);
                assert_eq!(panic.into_payload().downcast_ref(), Some(&number));
            }
            Err(JoinError::Cancelled) => {
                assert!(job.never);
                job.assert_never_ran();
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn stats(&self) {
        let stats = self.world.pool.stats();
        assert!(stats.idle <= stats.threads, "{stats:?}");
        if self.held.is_empty() {
            running_now(&stats);
        } else {
            let queued = self.jobs.iter().filter(|job| job.has_not_started && !job.never).count();
            assert_eq!(running_now(&stats), self.threads as u64);
            assert_eq!(stats.queued, queued);
        }
        assert_eq!(self.world.pool.is_closed(), self.closed);
    }

    /// Closes the pool. In a shutdown, threads that are held are released only after the queue is empty.
    fn close(&mut self, drain: bool) {
        let pool = self.world.pool.clone();
        thread::scope(|scope| {
            let closer = scope.spawn(|| if drain { pool.drain() } else { pool.shutdown() });
            until("the pool is closed", || pool.is_closed());
            if !drain {
                for job in self.jobs.iter_mut().filter(|job| job.has_not_started) {
                    // The shutdown cancels all of these, and every other queued job.
                    job.never = true;
                }
                until("the queue is empty", || pool.stats().queued == 0);
            }
            release(self.held.drain(..).collect());
            closer.join().unwrap();
        });
        let first = !std::mem::replace(&mut self.closed, true);
        for job in &mut self.jobs {
            job.has_not_started = false;
            assert!(job.handle.as_ref().is_none_or(Job::is_finished), "a handle has not resolved");
            assert!(!(drain && first && job.wanted) || job.never || job.runs() == 1, "the drain lost a job");
            // A job that has neither run nor been cancelled by the program was queued when the pool was shut down.
            job.never |= job.runs() == 0;
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Submit(work) => self.submit(&[*work], false),
            Step::SubmitMany(works) => self.submit(works, true),
            Step::Hold => self.hold(),
            Step::Release => self.release(),
            Step::Cancel(nth) => self.cancel(*nth),
            Step::Detach(nth) => {
                if let Some(job) = self.pick(*nth) {
                    job.handle.take().unwrap().detach();
                }
            }
            Step::Drop(nth) => self.drop_handle(*nth),
            Step::Wait(nth) => self.outcome(*nth, |job| job.outcome().wait()),
            Step::Await(nth) => self.outcome(*nth, |job| block_on(job.outcome())),
            Step::Resume(nth) => self.outcome(*nth, |job| {
                catch_unwind(AssertUnwindSafe(|| job.wait())).map_err(|payload| {
                    if payload.is::<usize>() {
                        // The same error again, from a separate job.
                        let again = threaded_separate(|| resume_unwind(payload)).async_call();
                        again.outcome().wait().map(|()| 1).unwrap_err()
                    } else {
                        JoinError::Cancelled
                    }
                })
            }),
            Step::Stats => self.stats(),
            Step::Drain => self.close(true),
            Step::Shutdown => self.close(false),
        }
    }

    /// Checks the rules that hold at the end of every program.
    fn end(mut self, drain: bool) {
        self.close(drain);
        while self.jobs.iter().any(|job| job.handle.is_some()) {
            self.outcome(0, |job| job.outcome().wait());
        }
        for job in &self.jobs {
            let Record { captured, results, .. } = &*job.record;
            assert!(job.runs() <= 1, "the job ran {} times", job.runs());
            assert!(job.runs() == 0 || !job.never, "a cancelled job ran");
            let dropped = |(made, dropped): &(AtomicUsize, AtomicUsize)| {
                made.load(Ordering::SeqCst) == dropped.load(Ordering::SeqCst)
            };
            // The worker drops an unreceived result after the job.
            until("everything is dropped", || dropped(captured) && dropped(results));
            assert_eq!(captured.1.load(Ordering::SeqCst), 1);
            assert!(results.1.load(Ordering::SeqCst) <= 1);
        }
        let World { pool, submitted, ended, panicked } = &self.world;
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst) as u64;
        let stats = pool.stats();
        assert_eq!((stats.queued, running_now(&stats)), (0, 0), "{stats:?}");
        assert_eq!(stats.submitted, count(submitted) + self.holds as u64);
        assert_eq!(stats.succeeded, count(ended) + self.holds as u64);
        assert_eq!(stats.panicked, count(panicked));
        until("all threads have ended", || pool.stats().threads == 0);
    }
}

impl Known {
    fn panics(&self) -> bool {
        matches!(self.work, Work::Panic | Work::NestedPanic(_))
    }

    fn runs(&self) -> usize {
        self.record.runs.load(Ordering::SeqCst)
    }

    #[track_caller]
    fn assert_never_ran(&self) {
        assert_eq!(self.runs(), 0, "the job ran");
        assert_eq!(self.record.captured.1.load(Ordering::SeqCst), 1, "the closure has not been dropped");
    }
}

proptest! {
    // No regression files: a failing case is printed, and can be turned into a test.
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    /// Forbids a handle that does not resolve or has a wrong outcome, a job that runs twice or after its cancellation,
    /// a value that is dropped twice or never, and counters that do not add up.
    #[test]
    fn random_programs_agree_with_a_model(threads in 1..4_usize, steps in vec(step(), 0..40), drain in any::<bool>()) {
        let _watchdog = watchdog();
        let mut program = Program {
            world: World::new(threads),
            threads,
            held: Vec::new(),
            jobs: Vec::new(),
            closed: false,
            holds: 0,
        };
        for step in &steps {
            program.step(step);
        }
        program.end(drain);
    }
}
