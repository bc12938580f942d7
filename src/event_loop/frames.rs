//! The event loops of this thread, and the stack of its running `block_on` calls.
//!
//! # What it promises
//! In code that a `block_on` polls, [`running`] returns the loop of the innermost `block_on`. In a job that runs inline
//! there, it returns none. The loop is made when [`running`] first needs it. [`find`] returns the tasks of a loop if
//! the loop is this thread's, running or not. Both functions also work in the destructors of thread-locals.
//!
//! # State machine
//! ```text
//!                 enter                       enter, in a job that runs inline
//!   no frame ---------------> INNERMOST: A -----------------------------------> INNERMOST: B
//!            <---------------              <-----------------------------------   the `Entered` of B keeps A
//!                 drop                        drop
//! ```
//!
//! # Who may touch what
//! 1. A frame is pushed and popped by its [`Entered`], as the calls nest.
//! 2. A loop is in the list until it ends.
//! 3. Neither thread-local is dropped with the thread, since destructors of other thread-locals may use them. In the
//!    end both are empty: each `block_on` has returned, and each loop has ended.
//! 4. While a thread-local of this file is borrowed, no user code runs.
//!
//! # What can go wrong
//! There is no synchronisation in this file.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::mem::{self, ManuallyDrop};
use std::rc::Rc;
use std::sync::Arc;

use crate::event_loop::reactor::Reactor;
use crate::event_loop::tasks::Tasks;
use crate::pool::ThreadPool;
use crate::primitives::cancel::{self, JobId};
use crate::primitives::drop_queue::Apart;
use crate::primitives::parker::Parker;
use crate::sync::thread_local;

/// The frame of the innermost `block_on`. Two separate cells: a 16-byte load right after two 8-byte stores defeats
/// store forwarding.
struct Frame {
    /// See [`frame_id`]. 0: no `block_on` runs.
    id: Cell<JobId>,
    /// `None`: the loop of this `block_on` has not been needed yet.
    tasks: RefCell<ManuallyDrop<Option<Rc<Tasks>>>>,
}

thread_local! {
    static INNERMOST: Frame = const { Frame { id: Cell::new(0), tasks: RefCell::new(ManuallyDrop::new(None)) } };
    static LOOPS: RefCell<ManuallyDrop<Vec<Rc<Tasks>>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

fn with_loops<R>(f: impl FnOnce(&mut Vec<Rc<Tasks>>) -> R) -> R {
    LOOPS.with(|loops| f(&mut loops.borrow_mut()))
}

/// The address of the job that this code runs in, or 1 outside of jobs. So a `block_on` in a job that runs inline has
/// an id of its own.
fn frame_id() -> JobId {
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

/// The tasks of this loop, if the loop is this thread's.
pub fn find(reactor: &Arc<Reactor>) -> Option<Rc<Tasks>> {
    with_loops(|loops| loops.iter().rfind(|tasks| Arc::ptr_eq(&tasks.reactor, reactor)).cloned())
}

/// The loop that this code runs in. `None`: this code runs in no loop, or in a job inside one, or the loop of its
/// `block_on` is being closed.
pub fn running() -> Option<Rc<Tasks>> {
    let make = || make_loop(None);
    INNERMOST
        .with(|frame| (frame.id.get() == frame_id()).then(|| frame.tasks.borrow_mut().get_or_insert_with(make).clone()))
}

/// The loop of the innermost `block_on`, if it has been made.
#[inline]
fn innermost() -> Option<Rc<Tasks>> {
    INNERMOST.with(|frame| (**frame.tasks.borrow()).clone())
}

/// The step of a `block_on` between two polls of its main future: a round of the loop, or a sleep.
#[inline]
pub fn turn(parker: &mut Parker) {
    match innermost() {
        Some(tasks) => tasks.turn(parker),
        None => _ = parker.park(None),
    }
}

/// On a loop of this crate: handles the messages of other threads, and fires the timers that are due. Tasks added or
/// woken here are polled before a task that is woken later.
pub fn run_external() {
    innermost().inspect(|tasks| tasks.run_external());
}

/// While this exists, a `block_on` runs on this thread.
pub struct Entered {
    /// The outer frame, which is the next one of the stack.
    outer: (JobId, Option<Rc<Tasks>>),
    /// Whether the loop ends with this.
    ends: bool,
    _apart: Apart,
}

impl Entered {
    /// Without `tasks`, a loop is made when one is first needed. That loop ends when the returned value is dropped.
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
fn replace(id: JobId, tasks: Option<Rc<Tasks>>) -> (JobId, Option<Rc<Tasks>>) {
    INNERMOST.with(|frame| (frame.id.replace(id), mem::replace(&mut **frame.tasks.borrow_mut(), tasks)))
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        let (_, tasks) = replace(self.outer.0, self.outer.1.take());
        if let Some(tasks) = tasks.filter(|_| self.ends) {
            end_loop(&tasks);
        }
    }
}
