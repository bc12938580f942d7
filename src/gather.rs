//! Many futures at once.
//!
//! Each future (branch) has a waker of its own, which puts the branch on a list and wakes the task that awaits the
//! gather.
//!
//! # What can go wrong
//! * Two branches are woken at once, and one of them is not polled: `branches_woken_at_once`.
#![forbid(unsafe_code)]

use std::future::{Future, IntoFuture, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};

use crate::context::{Context, WithContext};
use crate::event_loop::run_external;
use crate::primitives::waker_slot::WakerSlot;
use crate::sync::Mutex;

/// Lets everything else run that is ready: the event loop's other tasks, its timers, and tasks that other threads have
/// sent.
///
/// ```
/// # offthread::block_on(async {
/// let task = offthread::spawn(async {});
/// offthread::yield_now().await;
/// assert!(task.is_finished());
/// # });
/// ```
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        run_external();
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs futures concurrently, and returns what they return, in their order.
///
/// The futures are polled on the task that awaits this. Each future is polled only when it was woken, in its own copy
/// of the context. For a few futures of different types there is [`gather!`](crate::gather!).
///
/// ```
/// # offthread::block_on(async {
/// use offthread::{gather, threaded};
///
/// let files = ["Cargo.toml", "README.md"];
/// let size = |path: &str| std::fs::metadata(path).unwrap().len();
/// let sizes = gather(files.map(|path| threaded(move || size(path)))).await;
/// assert_eq!(sizes.len(), 2);
/// # });
/// ```
///
/// # Panics
/// If one of the futures panics, with its panic; the others are dropped.
///
/// # Cancellation
/// Dropping it drops all the futures.
pub async fn gather<I: IntoIterator<Item: IntoFuture>>(futures: I) -> Vec<<I::Item as IntoFuture>::Output> {
    let mut branches: Vec<_> = futures.into_iter().map(Branch::new).collect();
    let all = branches.len();
    poll_woken(all, all, |branch, cx| branches[branch].poll(cx).into()).await;
    branches.into_iter().filter_map(Branch::into_output).collect()
}

/// As [`gather`], for futures of results: the first error drops the other futures, and is returned.
///
/// ```
/// # offthread::block_on(async {
/// use offthread::{threaded, try_gather};
///
/// let read = |path: &'static str| threaded(move || std::fs::read(path));
/// assert_eq!(try_gather([read("Cargo.toml"), read("README.md")]).await.unwrap().len(), 2);
/// assert!(try_gather([read("Cargo.toml"), read("no such file")]).await.is_err());
/// # });
/// ```
///
/// # Errors
/// The first error.
///
/// # Panics
/// As [`gather`].
///
/// # Cancellation
/// As [`gather`].
pub async fn try_gather<I, T, E>(futures: I) -> Result<Vec<T>, E>
where
    I: IntoIterator<Item: IntoFuture<Output = Result<T, E>>>,
{
    let mut branches: Vec<_> = futures.into_iter().map(Branch::new).collect();
    let all = branches.len();
    let mut failed = None;
    poll_woken(all, all, |branch, cx| match (branches[branch].poll(cx), &branches[branch]) {
        (true, Branch::Done(Err(_))) => {
            failed = Some(branch);
            all
        }
        (finished, _) => finished.into(),
    })
    .await;
    if let Some(failed) = failed {
        // Drops the other outputs and futures.
        branches = vec![branches.swap_remove(failed)];
    }
    branches.into_iter().filter_map(Branch::into_output).collect()
}

/// The output of the future that was ready first. From [`race`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Either<A, B> {
    /// The first future.
    Left(A),
    /// The second future.
    Right(B),
}

impl<T> Either<T, T> {
    /// The output, from either future.
    pub fn into_inner(self) -> T {
        match self {
            Self::Left(output) | Self::Right(output) => output,
        }
    }
}

/// Runs two futures concurrently, and returns the output of the first that is ready. The other future is dropped, and
/// so cancelled, before this returns. If both are ready, this returns the output of `a`, and does not poll `b`: so the
/// race of two `recv` or `next` loses no item.
///
/// Both are polled as in [`gather`]: each one only when it was woken, and in its own copy of the context.
///
/// ```
/// # offthread::block_on(async {
/// use offthread::{Either, race, sleep, threaded};
/// use std::time::Duration;
///
/// let first = race(threaded(|| "a job"), sleep(Duration::from_secs(60))).await;
/// assert_eq!(first, Either::Left("a job"));
/// # });
/// ```
///
/// # Panics
/// If one of the futures panics, with its panic; the other one is dropped.
///
/// # Cancellation
/// Dropping it drops both futures.
pub async fn race<A: IntoFuture, B: IntoFuture>(a: A, b: B) -> Either<A::Output, B::Output> {
    let (mut a, mut b) = (Branch::new(a), Branch::new(b));
    poll_woken(2, 1, |branch, cx| if branch == 0 { a.poll(cx) } else { b.poll(cx) }.into()).await;
    match (a.into_output(), b.into_output()) {
        (Some(output), _) => Either::Left(output),
        (None, Some(output)) => Either::Right(output),
        (None, None) => unreachable!("one of the two has finished"),
    }
}

/// Polls branches, each one only when it was woken, until `enough` have finished. `poll` returns what to add to the
/// number of finished branches: 1 if its call has finished the branch, `enough` to end all branches, else 0.
pub async fn poll_woken(branches: usize, enough: usize, mut poll: impl FnMut(usize, &mut task::Context<'_>) -> usize) {
    /// A branch's waker may outlive the gather, and must not keep the parent's waker.
    struct LetGo(Arc<Woken>);
    impl Drop for LetGo {
        fn drop(&mut self) {
            drop(self.0.parent.take());
        }
    }
    let woken = Arc::new(Woken::all(branches));
    let _let_go = LetGo(woken.clone());
    let wakers: Vec<Waker> =
        (0..branches).map(|branch| Arc::new(BranchWaker { woken: woken.clone(), branch }).into()).collect();
    let mut finished = 0;
    poll_fn(|cx| {
        // Register, then look.
        woken.parent.register(cx.waker());
        let mut branches = woken.take();
        // Of two branches that are ready, the first wins a race. The other one is not polled, so it takes no item.
        branches.sort_unstable();
        let mut branches = branches.into_iter();
        while finished < enough {
            let Some(branch) = branches.next() else { return Poll::Pending };
            finished += poll(branch, &mut task::Context::from_waker(&wakers[branch]));
        }
        Poll::Ready(())
    })
    .await;
}

/// One of the futures, in its own copy of the context.
#[derive(Debug)]
pub enum Branch<F: Future> {
    /// The future has not finished.
    Running(WithContext<F>),
    /// The future's output.
    Done(F::Output),
}

impl<F: Future> Branch<F> {
    /// Copies the current context.
    pub fn new(future: impl IntoFuture<IntoFuture = F>) -> Self {
        let mut context = Context::current();
        let future = context.within(|| future.into_future());
        Self::Running(context.wrap(future))
    }

    /// Polls the future. Returns whether it has finished in this poll.
    pub fn poll(&mut self, cx: &mut task::Context<'_>) -> bool {
        let Self::Running(future) = self else { return false };
        let Poll::Ready(output) = Pin::new(future).poll(cx) else { return false };
        *self = Self::Done(output);
        true
    }

    /// The future's output, if it has finished.
    pub fn into_output(self) -> Option<F::Output> {
        match self {
            Self::Done(output) => Some(output),
            Self::Running(_) => None,
        }
    }
}

/// Which branches are to be polled.
struct Woken {
    /// The task that awaits the gather.
    parent: WakerSlot,
    list: Mutex<List>,
}

struct List {
    branches: Vec<usize>,
    /// Whether each branch is in `branches`. So a branch that is woken several times is polled once.
    listed: Vec<bool>,
}

impl Woken {
    /// All branches are to be polled.
    fn all(branches: usize) -> Self {
        let list = List { branches: (0..branches).collect(), listed: vec![true; branches] };
        Self { parent: WakerSlot::default(), list: Mutex::new(list) }
    }

    fn take(&self) -> Vec<usize> {
        let mut list = self.list.lock();
        let branches = mem::take(&mut list.branches);
        for &branch in &branches {
            list.listed[branch] = false;
        }
        branches
    }

    fn add(&self, branch: usize) {
        let mut list = self.list.lock();
        if !mem::replace(&mut list.listed[branch], true) {
            list.branches.push(branch);
            drop(list);
            self.parent.wake();
        }
    }
}

struct BranchWaker {
    woken: Arc<Woken>,
    branch: usize,
}

impl Wake for BranchWaker {
    fn wake(self: Arc<Self>) {
        self.woken.add(self.branch);
    }
}
