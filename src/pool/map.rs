//! A function that is applied to many items, in the jobs of a pool.
//!
//! # What it promises
//! Nothing runs before the first poll. At most `max_size` jobs have been started whose results have not been taken. The items'
//! iterator is asked on the consumer's side, and only when there is room. Dropping the map cancels its jobs.
//!
//! # How
//! In order, the results are those of the jobs at the front of a queue. Without an order, each job's closure owns a [`Guard`],
//! which reports the job's number as it is dropped: when the closure has run, or when it is dropped because the job will not
//! run. So each job reports once, and a result costs the same however many jobs are in flight.
//!
//! # What can go wrong
//! * A job reports as the consumer comes to wait, or as it takes another result: `map_one_by_one`, `map_two_reports`.
//! * A job ends by a panic, or never runs, and does not report: `map_panic`, `map_shutdown`.
//! * A result comes as a `next`, or the map, is dropped: `map_next_dropped`, `map_next_dropped_after_the_report`, `map_dropped`.
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
/// [`poll_next`](Self::poll_next) is the function of the `Stream` trait of the crate `futures`; this makes one of a `map`:
/// `futures::stream::poll_fn(move |cx| Pin::new(&mut map).poll_next(cx))`.
///
/// # Cancellation
/// Dropping it cancels the jobs whose results have not been taken.
#[must_use = "nothing runs until it is asked for a result"]
pub struct Map<I, F, R> {
    pool: ThreadPool,
    /// `None` once it has come to its end.
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
    /// The numbers that no job has.
    free: Vec<usize>,
    reports: Arc<Reports>,
    /// The jobs that have reported, as taken out of `reports`. The result of the first comes next.
    reported: VecDeque<usize>,
}

/// The jobs that have reported and whose results have not been looked for.
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
        // A consumer that waits has found nothing: so the first report wakes the consumer. The waker may panic, and the
        // function may be unwinding.
        if is_first {
            catch_and_discard(|| self.reports.consumer.wake());
        }
    }
}

/// It is as it was before the call that panicked.
impl<I, F, R> UnwindSafe for Map<I, F, R> {}
impl<I, F, R> RefUnwindSafe for Map<I, F, R> {}
/// Nothing in it is ever pinned.
impl<I, F, R> Unpin for Map<I, F, R> {}

impl<I, F, R> Map<I, F, R> {
    pub(super) fn new(pool: ThreadPool, items: I, function: F, threads: usize) -> Self {
        let jobs = Jobs::Ordered(VecDeque::new());
        let max_size = threads.saturating_mul(2);
        Self { pool, items: Some(items), function: Arc::new(function), max_size, jobs, budget: Budget::default() }
    }

    /// How many jobs may have been started whose results have not been taken. Unless said: twice the pool's threads.
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
    /// If a result has been asked for.
    #[track_caller]
    pub fn unordered(mut self) -> Self {
        let started = matches!(&self.jobs, Jobs::Ordered(jobs) if !jobs.is_empty());
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
    /// Starts jobs while there is room for their results. Submits them in batches: one job, and then each time as many as
    /// before, so that a slow iterator does not hold up the first ones.
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

    /// The next result, or a wake-up when there is one. `None`: the end. The signature is that of the `Stream` trait of the crate
    /// `futures`.
    ///
    /// The waker of the last call that was pending is the one that is woken. Panics as [`next`](Self::next). After 128 results
    /// in a row the call gives way: it wakes the waker and is pending once.
    pub fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        let this = &mut *self;
        ready!(this.budget.poll_ready(cx));
        // Several at once is cheaper; but when the consumer waits, no room is left.
        if this.max_size - this.jobs.len() >= this.max_size.div_ceil(4) {
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
    /// If the function panicked for this item, with its panic; and if the pool was closed, or had no thread. The next call goes
    /// on with the other items.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing: no result has been taken before it is ready.
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
    /// Each step waits for a result. On the thread of an event loop this stops the loop. If what it waits for needs that loop,
    /// it never returns: use [`next`](Self::next) there.
    pub fn wait(mut self) -> impl Iterator<Item = R> {
        iter::from_fn(move || parker::block_on(self.next()))
    }
}

/// Jobs that are to be submitted: at the latest when this is dropped, also if the items' iterator panics.
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
    /// How many have been started whose results have not been taken.
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

    /// Does not wait any more: drops the waker of the last poll.
    fn unwatch(&self) {
        match self {
            Self::Ordered(jobs) => jobs.front().into_iter().for_each(Outcome::unwatch),
            Self::Unordered(unordered) => unordered.unwatch(),
        }
    }
}

impl<R> Unordered<R> {
    /// Adds the job that `make` makes, whose closure is to own the guard. Returns its entry for the queue.
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
