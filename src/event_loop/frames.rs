//! The event loops of this thread, and the stack of the calls of `block_on` that run.
//!
//! # What it promises
//! [`running`] is the loop of the innermost `block_on`, for the code that this `block_on` polls, and for no job that happens to
//! run inside it. The loop is made when it is first asked for: a future that only waits for other threads needs none.
//! [`find`] tells whether a loop is this thread's, whether it runs or not. Both also work in the destructors of thread-locals.
//!
//! # State machine
//! ```text
//!                 enter                       enter, in a job that runs inline
//!   no frame ---------------> INNERMOST: A -----------------------------------> INNERMOST: B
//!            <---------------              <-----------------------------------   the `Running` of B keeps A
//!                 drop                        drop
//! ```
//!
//! # Who may touch what
//! 1. A frame is pushed and popped by its [`Running`], in the order of the calls.
//! 2. A loop is in the list from its making to its end.
//! 3. Neither thread-local is dropped with the thread, as they may be needed to the last. Both are empty by then: the frames are
//!    those of calls that have returned, and each loop has ended.
//! 4. While one of them is borrowed, no code of the user runs.
//!
//! # What can go wrong
//! There is no synchronisation here.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::mem::{self, ManuallyDrop};
use std::rc::Rc;
use std::sync::Arc;

use crate::event_loop::reactor::Reactor;
use crate::event_loop::tasks::Tasks;
use crate::pool::ThreadPool;
use crate::primitives::cancel;
use crate::primitives::drop_queue::Apart;
use crate::primitives::parker::Parker;
use crate::sync::thread_local;

/// The innermost call of `block_on`. Two separate cells: a 16-byte load right after two 8-byte stores defeats store forwarding.
struct Frame {
    /// See [`frame_id`]. 0: there is no such call.
    id: Cell<usize>,
    /// `None`: nobody has asked for its loop.
    tasks: RefCell<ManuallyDrop<Option<Rc<Tasks>>>>,
}

thread_local! {
    static INNERMOST: Frame = const { Frame { id: Cell::new(0), tasks: RefCell::new(ManuallyDrop::new(None)) } };
    static LOOPS: RefCell<ManuallyDrop<Vec<Rc<Tasks>>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

fn with_loops<R>(f: impl FnOnce(&mut Vec<Rc<Tasks>>) -> R) -> R {
    LOOPS.with(|loops| f(&mut loops.borrow_mut()))
}

/// The job that this code runs in, or 1: no job has that address. A `block_on` may run in a job that runs inside another one.
fn frame_id() -> usize {
    cancel::current_id().unwrap_or(1)
}

/// Makes a loop of this thread.
pub fn make_loop(pool: Option<ThreadPool>) -> Rc<Tasks> {
    let tasks = Rc::new(Tasks::new(pool));
    with_loops(|loops| loops.push(tasks.clone()));
    tasks
}

/// Ends a loop of this thread, and drops its tasks.
pub fn end_loop(tasks: &Rc<Tasks>) {
    tasks.close();
    with_loops(|loops| {
        loops.retain(|other| !Rc::ptr_eq(other, tasks));
        if loops.is_empty() {
            loops.shrink_to_fit();
        }
    });
}

/// That loop, if it is this thread's.
pub fn find(reactor: &Arc<Reactor>) -> Option<Rc<Tasks>> {
    with_loops(|loops| loops.iter().rfind(|tasks| Arc::ptr_eq(&tasks.reactor, reactor)).cloned())
}

/// The loop that this code runs in. `None`: it runs in none, or in a job that does; or the loop is just being closed.
pub fn running() -> Option<Rc<Tasks>> {
    let make = || make_loop(None);
    INNERMOST
        .with(|frame| (frame.id.get() == frame_id()).then(|| frame.tasks.borrow_mut().get_or_insert_with(make).clone()))
}

/// The loop of the innermost `block_on`, if there is one by now.
#[inline]
fn innermost() -> Option<Rc<Tasks>> {
    INNERMOST.with(|frame| (**frame.tasks.borrow()).clone())
}

/// What a `block_on` does between two polls of its main future.
#[inline]
pub fn turn(parker: &mut Parker) {
    match innermost() {
        Some(tasks) => tasks.turn(parker),
        None => _ = parker.park(None),
    }
}

/// On a loop of ours: takes in what other threads have sent, and fires the timers that are due. So they have their turn before
/// what is woken next.
pub fn run_external() {
    innermost().inspect(|tasks| tasks.run_external());
}

/// While it exists, a `block_on` runs on this thread.
pub struct Running {
    /// The frame around it: that is how the stack is linked.
    outer: (usize, Option<Rc<Tasks>>),
    /// Its loop ends with it.
    ends: bool,
    _apart: Apart,
}

impl Running {
    /// Without a loop, one is made when it is first asked for, and ends with this.
    #[inline]
    #[track_caller]
    pub fn enter(tasks: Option<&Rc<Tasks>>) -> Self {
        let id = frame_id();
        assert!(
            INNERMOST.with(|frame| frame.id.get()) != id,
            "block_on was called inside a running event loop, which it would stop: await the future instead"
        );
        Self { outer: replace(id, tasks.cloned()), ends: tasks.is_none(), _apart: Apart::begin() }
    }
}

/// Makes another frame the innermost one.
#[inline]
fn replace(id: usize, tasks: Option<Rc<Tasks>>) -> (usize, Option<Rc<Tasks>>) {
    INNERMOST.with(|frame| (frame.id.replace(id), mem::replace(&mut **frame.tasks.borrow_mut(), tasks)))
}

impl Drop for Running {
    #[inline]
    fn drop(&mut self) {
        let (_, tasks) = replace(self.outer.0, self.outer.1.take());
        if let Some(tasks) = tasks.filter(|_| self.ends) {
            end_loop(&tasks);
        }
    }
}
