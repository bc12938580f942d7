//! A function that is applied to many items, in the jobs of a pool.
//!
//! # What it promises
//! Nothing runs before the first poll. At most `max_size` jobs are ahead of the consumer: submitted, with results that
//! have not been taken. The items' iterator runs in the consumer's polls, and only when there is room for a result.
//! Dropping the map cancels its jobs.
//!
//! # How
//! An ordered map has its jobs in a queue: the next result is that of the job at the front. In an unordered map, each
//! job's closure owns a [`Guard`], which reports the job's number when the closure has run or has been dropped unrun.
//! So each job reports once, and a result costs the same however many jobs are in flight.
//!
//! # What can go wrong
//! * A job reports as the consumer begins to wait, or takes another result: `map_one_by_one`, `map_two_reports`.
//! * A job ends by a panic, or never runs, and does not report: `map_panic`, `map_shutdown`.
//! * A job ends as a `next`, or the map, is dropped: `map_next_dropped`, `map_next_dropped_after_the_report`, `map_dropped`.
//! * A job is started while there is no room for its result: `map_bounds_the_jobs`.
//! * The cancelled jobs report to the very task that drops the map: `map_dropped_in_its_task`.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::iter;
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::pool::{Shared, ThreadPool};
use crate::primitives::budget::Budget;
use crate::primitives::job::{Job, Outcome, Queued};
use crate::primitives::join_error::{JoinError, catch_and_discard};
use crate::primitives::parker;
use crate::primitives::waker_slot::WakerSlot;
use crate::sync::{self, Mutex};

/// The results of a function for many items, which the jobs of a pool compute. From [`ThreadPool::map`].
///
/// [`poll_next`](Self::poll_next) has the signature of the `Stream` trait's method in the crate `futures`. To make a
/// `Stream` of a `map`: `futures::stream::poll_fn(move |cx| Pin::new(&mut map).poll_next(cx))`.
///
/// # Cancellation
/// Dropping the map cancels the jobs whose results have not been taken.
#[must_use = "nothing runs until it is asked for a result"]
pub struct Map<I, F, R> {
    pool: ThreadPool,
    /// `None` once the iterator has returned `None`.
    items: Option<I>,
    function: Arc<F>,
    max_size: usize,
    jobs: Jobs<R>,
    budget: Budget,
}

enum Jobs<R> {
    Ordered(VecDeque<Outcome<R>>),
    Unordered(Unordered<R>),
}

/// Jobs by their numbers.
struct Unordered<R> {
    jobs: Vec<Option<Outcome<R>>>,
    /// The numbers that no job has now: indices of `None` in `jobs`.
    free: Vec<usize>,
    reports: Arc<Reports>,
    /// The numbers that the consumer has taken out of `reports`. The result of the first job comes next.
    reported: VecDeque<usize>,
}

/// The numbers of jobs that have reported, until the consumer takes them.
#[derive(Default)]
struct Reports {
    numbers: Mutex<VecDeque<usize>>,
    consumer: WakerSlot,
}

/// Reports a job's number when it is dropped.
struct Guard {
    reports: Arc<Reports>,
    number: usize,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut numbers = self.reports.numbers.lock();
        numbers.push_back(self.number);
        let is_first = numbers.len() == 1;
        drop(numbers);
        // A consumer that waits has emptied the list, so only the first report in it has to wake the consumer. A panic
        // of the waker is caught, since the function may be unwinding.
        if is_first {
            catch_and_discard(|| self.reports.consumer.wake());
        }
    }
}

/// A panic leaves the map usable: the next call goes on with the other items.
impl<I, F, R> UnwindSafe for Map<I, F, R> {}
impl<I, F, R> RefUnwindSafe for Map<I, F, R> {}
/// Nothing in a map is ever pinned.
impl<I, F, R> Unpin for Map<I, F, R> {}

impl<I, F, R> Map<I, F, R> {
    pub(super) fn new(pool: ThreadPool, items: I, function: F, threads: usize) -> Self {
        let jobs = Jobs::Ordered(VecDeque::new());
        let max_size = threads.saturating_mul(2);
        Self { pool, items: Some(items), function: Arc::new(function), max_size, jobs, budget: Budget::default() }
    }

    /// How many jobs may be ahead of the consumer: submitted, with results that have not been taken. Default: twice the
    /// number of the pool's threads.
    ///
    /// # Panics
    /// If `jobs` is 0.
    #[track_caller]
    pub fn max_size(mut self, jobs: usize) -> Self {
        assert!(jobs > 0, "Map::max_size: jobs is 0, but at least one must run");
        self.max_size = jobs;
        self
    }

    /// Gives the results as the jobs finish, not in the order of the items.
    ///
    /// # Panics
    /// If jobs have been submitted whose results have not been taken.
    #[track_caller]
    pub fn unordered(mut self) -> Self {
        let started = self.jobs.len() > 0;
        assert!(!started, "Map::unordered: it has been started: call this before it is asked for a result");
        self.jobs = Jobs::Unordered(Unordered {
            jobs: Vec::new(),
            free: Vec::new(),
            reports: Arc::default(),
            reported: VecDeque::new(),
        });
        self
    }
}

impl<I, F, R> Map<I, F, R>
where
    I: Iterator<Item: Send + 'static>,
    F: Fn(I::Item) -> R + Send + Sync + 'static,
    R: Send + 'static,
{
    /// Submits jobs while there is room for their results, in batches: one job first, and then each time as many jobs
    /// as before. So a slow iterator does not hold up the first jobs.
    fn fill(&mut self) {
        let pool = self.pool.shared();
        let mut batch = Batch { pool, jobs: Vec::new() };
        let mut submitted = 0;
        while self.jobs.len() < self.max_size {
            let Some(item) = self.items.as_mut().and_then(Iterator::next) else {
                self.items = None;
                return;
            };
            let function = self.function.clone();
            batch.jobs.push(match &mut self.jobs {
                Jobs::Ordered(jobs) => {
                    let (queued, job) = Shared::job(pool, move || function(item));
                    jobs.push_back(job.outcome());
                    queued
                }
                Jobs::Unordered(jobs) => jobs.add(|guard| {
                    Shared::job(pool, move || {
                        let _guard = guard;
                        function(item)
                    })
                }),
            });
            if batch.jobs.len() >= submitted {
                submitted += batch.jobs.len();
                batch.submit();
            }
        }
    }

    /// The next result. If there is none yet, the waker is woken later. `None`: the end. The signature is that of the
    /// `Stream` trait of the crate `futures`.
    ///
    /// If several calls were pending, the waker of the last call is woken. Panics as [`next`](Self::next). After 128
    /// results in a row this yields: it wakes the waker and is pending once.
    pub fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        let this = &mut *self;
        ready!(this.budget.poll_ready(cx));
        // Waits until a quarter of the room is free, since several jobs at once are cheaper to submit. But a consumer
        // that has to wait first fills all the room (below).
        if this.max_size.saturating_sub(this.jobs.len()) >= this.max_size.div_ceil(4) {
            this.fill();
        }
        let result = this.jobs.poll_next(cx);
        if result.is_pending() {
            this.fill();
        }
        this.budget.count(usize::from(result.is_ready()));
        result.map(|result| result.map(Job::value))
    }

    /// The next result; waits until it has been computed. `None`: the end.
    ///
    /// # Panics
    /// If the function panicked for this item, with its panic; and if the job did not run, since the pool was closed or
    /// had no thread. The next call goes on with the other items.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing: no result is taken before the future is ready.
    ///
    /// # Synchronization
    /// All that the job did happens before this returns.
    pub async fn next(&mut self) -> Option<R> {
        /// Withdraws the waker, however the waiting ends.
        struct Attempt<'a, I, F, R>(&'a mut Map<I, F, R>);
        impl<I, F, R> Drop for Attempt<'_, I, F, R> {
            fn drop(&mut self) {
                self.0.jobs.unwatch();
            }
        }
        let attempt = Attempt(self);
        poll_fn(|cx| Pin::new(&mut *attempt.0).poll_next(cx)).await
    }

    /// Iterates over the results in blocking code.
    ///
    /// # Blocking
    /// Each step waits for a result. On an event loop's thread this stops the loop, and never returns if the job needs
    /// the loop: use [`next`](Self::next) there.
    pub fn wait(mut self) -> impl Iterator<Item = R> {
        iter::from_fn(move || parker::block_on(self.next()))
    }
}

/// Jobs that are to be submitted together. Dropping the batch submits them, also if the items' iterator panics.
struct Batch<'a> {
    pool: &'a sync::Arc<Shared>,
    jobs: Vec<Queued>,
}

impl Batch<'_> {
    fn submit(&mut self) {
        if !self.jobs.is_empty() {
            Shared::submit(self.pool, self.jobs.drain(..));
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.submit();
    }
}

impl<R> Jobs<R> {
    /// How many jobs have been submitted whose results have not been taken.
    fn len(&self) -> usize {
        match self {
            Self::Ordered(jobs) => jobs.len(),
            Self::Unordered(unordered) => unordered.jobs.len() - unordered.free.len(),
        }
    }

    /// Takes the next result. `None`: there are no jobs.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<R, JoinError>>> {
        match self {
            Self::Ordered(jobs) => {
                let Some(job) = jobs.front_mut() else { return Poll::Ready(None) };
                let result = ready!(Pin::new(job).poll(cx));
                jobs.pop_front();
                Poll::Ready(Some(result))
            }
            Self::Unordered(_) if self.len() == 0 => Poll::Ready(None),
            Self::Unordered(unordered) => unordered.poll_next(cx).map(Some),
        }
    }

    /// Stops waiting: drops the waker of the last poll.
    fn unwatch(&self) {
        match self {
            Self::Ordered(jobs) => jobs.front().into_iter().for_each(Outcome::unwatch),
            Self::Unordered(unordered) => unordered.unwatch(),
        }
    }
}

impl<R> Unordered<R> {
    /// Adds the job that `make` makes. The job's closure is to own the guard. Returns the job's entry for the queue.
    fn add(&mut self, make: impl FnOnce(Guard) -> (Queued, Job<R>)) -> Queued {
        let number = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        let (queued, job) = make(Guard { reports: self.reports.clone(), number });
        self.jobs[number] = Some(job.outcome());
        queued
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<R, JoinError>> {
        if self.reported.is_empty() {
            // Register, then look.
            self.reports.consumer.register(cx.waker());
            mem::swap(&mut self.reported, &mut *self.reports.numbers.lock());
        }
        let Some(&number) = self.reported.front() else { return Poll::Pending };
        let Some(job) = &mut self.jobs[number] else { unreachable!("a job reports once") };
        // It has reported, so it resolves soon.
        let result = ready!(Pin::new(job).poll(cx));
        self.reported.pop_front();
        self.jobs[number] = None;
        self.free.push(number);
        Poll::Ready(result)
    }

    fn unwatch(&self) {
        drop(self.reports.consumer.take());
        if let Some(job) = self.reported.front().and_then(|number| self.jobs[*number].as_ref()) {
            job.unwatch();
        }
    }
}

impl<R> Drop for Unordered<R> {
    fn drop(&mut self) {
        // Cancelling the jobs must not wake the very task that drops this.
        self.unwatch();
    }
}

impl<I, F, R> fmt::Debug for Map<I, F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("max_size", &self.max_size)
            .field("started", &self.jobs.len())
            .finish_non_exhaustive()
    }
}
