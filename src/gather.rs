//! Many futures at once.
#![forbid(unsafe_code)]

use std::future::{Future, IntoFuture, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::primitives::waker_slot::WakerSlot;
use crate::sync::Mutex;

/// Runs futures concurrently, and returns what they return, in their order.
///
/// They are polled on the task that awaits this, each only when it was woken.
///
/// ```
/// # offthread::block_on(async {
/// use offthread::{gather, threaded};
///
/// let files = ["Cargo.toml", "README.md"];
/// let sizes = gather(files.map(|path| threaded(move || std::fs::metadata(path).unwrap().len()))).await;
/// assert_eq!(sizes.len(), 2);
/// # });
/// ```
///
/// # Panics
/// If one of the futures panics, with its panic; the others are dropped.
///
/// # Cancellation
/// Dropping it drops all the futures.
pub async fn gather<I>(futures: I) -> Vec<<I::Item as IntoFuture>::Output>
where
    I: IntoIterator,
    I::Item: IntoFuture,
{
    let mut branches: Vec<_> =
        futures.into_iter().map(|future| Branch::Running(Box::pin(future.into_future()))).collect();
    let woken = Arc::new(Woken::all(branches.len()));
    let wakers: Vec<Waker> =
        (0..branches.len()).map(|branch| Arc::new(BranchWaker { woken: woken.clone(), branch }).into()).collect();
    let mut running = branches.len();
    poll_fn(|cx| {
        // Register, then look.
        woken.parent.register(cx.waker());
        for branch in woken.take() {
            if branches[branch].poll(&mut Context::from_waker(&wakers[branch])) {
                running -= 1;
            }
        }
        if running == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    branches.into_iter().map(Branch::into_output).collect()
}

/// One of the futures. Boxed, as it must not move once it has been polled, and there is no unsafe code in here.
enum Branch<F: Future> {
    Running(Pin<Box<F>>),
    Done(F::Output),
}

impl<F: Future> Branch<F> {
    /// Whether it has finished just now.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let Self::Running(future) = self else { return false };
        let Poll::Ready(output) = future.as_mut().poll(cx) else { return false };
        *self = Self::Done(output);
        true
    }

    fn into_output(self) -> F::Output {
        match self {
            Self::Done(output) => output,
            Self::Running(_) => unreachable!("gather ends when all have finished"),
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
    /// Whether a branch is in `branches`: however often it is woken, it is polled once.
    listed: Vec<bool>,
}

impl Woken {
    /// To begin with, each of them.
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
