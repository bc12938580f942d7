//! A function that is applied to many items, in the jobs of a pool.
//!
//! # What it promises
//! Nothing runs before the first poll. At most `max_size` jobs are ahead of the consumer: submitted, with results that
//! have not been taken. The items' iterator runs in the consumer's polls, and only when there is room for a result.
//! Dropping the map cancels its jobs.
//!
//! # How
//! Each job has a number. `next` has the numbers of the jobs whose results come next. In an ordered map these are all
//! jobs, in the order of the items. In an unordered map each job's closure owns a [`Call`], which reports the job's
//! number when the closure has run or has been dropped unrun; the consumer moves the reports to `next`. So each job
//! reports once, and a result costs the same however many jobs are in flight.
//!
//! # What can go wrong
//! * A job reports as the consumer begins to wait, or takes another result: `map_one_by_one`, `map_two_reports`.
//! * A job ends by a panic, or never runs, and does not report: `map_panic`, `map_shutdown`.
//! * A `next` or map is dropped as a job ends: `map_next_dropped`, `map_next_dropped_after_the_report`, `map_dropped`.
//! * A job is started while there is no room for its result: `map_bounds_the_jobs`.
//! * The cancelled jobs report to the very task that drops the map: `map_dropped_in_its_task`.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::iter;
use std::mem;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::pool::{Shared, ThreadPool};
use crate::primitives::attempt::{Attempt, Watch};
use crate::primitives::budget::Budget;
use crate::primitives::job::{Job, Outcome};
use crate::primitives::join_error::{JoinError, catch_and_discard, is_cancellation};
use crate::primitives::parker;
use crate::primitives::waker_slot::WakerSlot;
use crate::sync::Mutex;

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
    work: Arc<Work<F>>,
    max_size: usize,
    /// The jobs whose results have not been taken, by their numbers.
    jobs: Vec<Option<Outcome<R>>>,
    /// The numbers that no job has now: indices of `None` in `jobs`.
    free: Vec<usize>,
    /// The numbers of the jobs whose results come next.
    next: VecDeque<usize>,
    budget: Budget,
}

/// What the consumer and the jobs share.
struct Work<F> {
    function: F,
    ordered: bool,
    /// The numbers of jobs that have ended, until the consumer takes them. Only of an unordered map.
    ended: Mutex<VecDeque<usize>>,
    consumer: WakerSlot,
}

/// One call of the function: owned by a job's closure. Reports the end of the call when it is dropped.
struct Call<F> {
    work: Arc<Work<F>>,
    number: usize,
}

impl<F> Call<F> {
    fn run<T, R>(self, item: T) -> R
    where
        F: Fn(T) -> R,
    {
        (self.work.function)(item)
    }
}

impl<F> Drop for Call<F> {
    fn drop(&mut self) {
        let Work { ordered, ended, consumer, .. } = &*self.work;
        if *ordered {
            return;
        }
        let mut ended = ended.lock();
        ended.push_back(self.number);
        let is_first = ended.len() == 1;
        drop(ended);
        // A consumer that waits has emptied the list, so only the first report in it has to wake the consumer. A panic
        // of the waker is caught, since the function may be unwinding.
        if is_first {
            catch_and_discard(|| consumer.wake());
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
        Self {
            pool,
            items: Some(items),
            work: Arc::new(Work { function, ordered: true, ended: Mutex::default(), consumer: WakerSlot::default() }),
            max_size: threads.saturating_mul(2),
            jobs: Vec::new(),
            free: Vec::new(),
            next: VecDeque::new(),
            budget: Budget::default(),
        }
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
    /// If a job has been submitted: call this before the map is asked for a result.
    #[track_caller]
    pub fn unordered(mut self) -> Self {
        match Arc::get_mut(&mut self.work) {
            Some(work) if self.jobs.is_empty() => work.ordered = false,
            _ => panic!("Map::unordered: it has been started: call this before it is asked for a result"),
        }
        self
    }

    /// How many jobs have been made whose results have not been taken.
    fn in_flight(&self) -> usize {
        self.jobs.len() - self.free.len()
    }

    /// Takes the next result. `None`: there are no jobs.
    fn poll_jobs(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<R, JoinError>>> {
        if self.in_flight() == 0 {
            return Poll::Ready(None);
        }
        if self.next.is_empty() {
            // Register, then look.
            self.work.consumer.register(cx.waker());
            mem::swap(&mut self.next, &mut *self.work.ended.lock());
            if self.next.is_empty() {
                return Poll::Pending;
            }
            drop(self.work.consumer.take());
        }
        let number = self.next[0];
        let Some(job) = &mut self.jobs[number] else { unreachable!("a job is next once") };
        // A job that has reported resolves soon.
        let result = ready!(Pin::new(job).poll(cx));
        self.next.pop_front();
        self.jobs[number] = None;
        self.free.push(number);
        Poll::Ready(Some(result))
    }
}

impl<I, F, R> Watch for Map<I, F, R> {
    fn unwatch(&mut self) {
        drop(self.work.consumer.take());
        if let Some(job) = self.next.front().and_then(|number| self.jobs[*number].as_ref()) {
            job.unwatch();
        }
    }
}

impl<I: Iterator<Item: Send + 'static>, F: Fn(I::Item) -> R + Send + Sync + 'static, R: Send + 'static> Map<I, F, R> {
    /// Submits jobs while there is room for their results, in batches: one job first, then each time as many jobs as
    /// this call has submitted so far. So a slow iterator does not hold up the first jobs. If the iterator panics, a
    /// job resumes the panic: so the panic comes at its place among the results.
    fn fill(&mut self) {
        let pool = self.pool.shared();
        let (mut batch, mut submitted) = (Vec::new(), 0);
        while self.in_flight() < self.max_size {
            let item = match catch_unwind(AssertUnwindSafe(|| self.items.as_mut().and_then(Iterator::next))) {
                Ok(Some(item)) => Ok(item),
                Ok(None) => {
                    self.items = None;
                    break;
                }
                // The job that polls this map was cancelled, and unwinds.
                Err(payload) if is_cancellation(&*payload) => resume_unwind(payload),
                Err(payload) => Err(payload),
            };
            let number = self.free.pop().unwrap_or_else(|| {
                self.jobs.push(None);
                self.jobs.len() - 1
            });
            let call = Call { work: self.work.clone(), number };
            let (queued, job) = match item {
                Ok(item) => Shared::job(pool, move || call.run(item)),
                Err(payload) => Shared::job(pool, move || {
                    let _call = call;
                    resume_unwind(payload)
                }),
            };
            self.jobs[number] = Some(job.outcome());
            if self.work.ordered {
                self.next.push_back(number);
            }
            batch.push(queued);
            if batch.len() >= submitted {
                submitted += batch.len();
                Shared::submit(pool, batch.drain(..));
            }
        }
        if !batch.is_empty() {
            Shared::submit(pool, batch.drain(..));
        }
    }

    /// The next result. If there is none yet, the waker is woken later. `None`: the end. The signature is that of the
    /// `Stream` trait of the crate `futures`.
    ///
    /// If several calls were pending, the waker of the last call is woken; if that was a [`next`](Self::next) that was
    /// dropped, none is. Panics as [`next`](Self::next). After 128 results in a row this yields: it wakes the waker and
    /// is pending once.
    pub fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        let this = &mut *self;
        ready!(this.budget.poll_ready(cx));
        // Calls `fill` only if at least a quarter of the room is free, since several jobs at once are cheaper to
        // submit. But before this returns `Pending`, `fill` uses all the room (below).
        if this.max_size.saturating_sub(this.in_flight()) >= this.max_size.div_ceil(4) {
            this.fill();
        }
        let result = this.poll_jobs(cx);
        if result.is_pending() {
            this.fill();
        }
        this.budget.count(usize::from(result.is_ready()));
        result.map(|result| result.map(Job::value))
    }

    /// The next result; waits until it has been computed. `None`: the end.
    ///
    /// # Panics
    /// If the function panicked for this item, or the items' iterator panicked in place of this item, with the panic.
    /// Also if the job did not run, since the pool was closed or had no thread, or if a shutdown of the pool ended the
    /// job in [`sync_await`](crate::sync_await()). The next call goes on with the other items.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing: no result is taken before the future is ready.
    ///
    /// # Synchronization
    /// All that the job did happens before this returns.
    pub async fn next(&mut self) -> Option<R> {
        let attempt = Attempt(self);
        let result = poll_fn(|cx| Pin::new(&mut *attempt.0).poll_next(cx)).await;
        // A poll that is ready leaves no waker.
        mem::forget(attempt);
        result
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

impl<I, F, R> Drop for Map<I, F, R> {
    fn drop(&mut self) {
        // Cancelling the jobs must not wake the very task that drops this.
        self.unwatch();
        // Each result is dropped, also if the `Drop` of another panics.
        self.jobs.drain(..).for_each(|job| catch_and_discard(|| drop(job)));
    }
}

impl_debug!(Map<I, F, R>, max_size, in_flight());
