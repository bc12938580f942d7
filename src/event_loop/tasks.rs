//! The tasks of an event loop, on the loop's own thread: slots, and the queue of those that are to be polled.
//!
//! # What it promises
//! A turn takes in what other threads have sent and fires the timers that are due; then it polls each task once that was in
//! the run queue by then. A task that is queued meanwhile has its turn in the next round. So a task that is always ready
//! starves neither other tasks nor timers nor the main future. A task is polled, and dropped, in its own context.
//!
//! # State machine
//! ```text
//!            add             poll                          ready: remove
//!   VACANT ------> a task --------> empty: it is polled ------------------> VACANT
//!                     ^                      |      |
//!                     +------- pending ------+      +--- removed meanwhile: the slot is VACANT, or another task's, and the
//!                                                        task is dropped after the poll
//! ```
//!
//! # Who may touch what
//! 1. Everything here stays on the loop's thread. While code of the user runs (a poll, a drop, a waker), nothing is borrowed: it
//!    may spawn, wake and cancel tasks, itself included.
//! 2. The run queue, messages and wakers refer to a task by its shared part, whose state has the number of the task's slot while
//!    there is one. So a wake that comes too late finds no slot, not the next task's; and tasks may be moved to other slots.
//! 3. While a task is dropped, tasks that are dropped by that wait in the drop queue: a chain of tasks, each of which owns the
//!    handle of the next one, may be longer than the stack is deep.
//!
//! # What can go wrong
//! There is no synchronisation here.
//! * A waker of an earlier task polls the slot's next task: `stale_waker`; or a task that has ended: `wake_as_it_ends`.
//! * A task handed in earlier by another thread runs after one that was spawned later: `callbacks_run_in_order_of_submission`.
//! * The loop closes while tasks are left, or on their way: `wake_as_the_loop_closes`, `call_soon_close`.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::panic::RefUnwindSafe;
use std::sync::Arc;
use std::task;

use crate::event_loop::inbox::{Body, Entry, Message};
use crate::event_loop::reactor::{Reactor, wake_all};
use crate::event_loop::state::{AnyTask, NO_SLOT, TaskState};
use crate::pool::ThreadPool;
use crate::primitives::parker::Parker;

/// An idle loop keeps memory for so many tasks, or for twice those that it has.
const KEEP_CAPACITY: usize = 64;

/// The loop's own part of it.
pub struct Tasks {
    pub reactor: Arc<Reactor>,
    slots: RefCell<Slots>,
    /// The tasks that are to be polled, in their order.
    run_queue: RefCell<VecDeque<Arc<dyn AnyTask>>>,
    /// See rule 3.
    drop_queue: RefCell<Vec<Slot>>,
    is_dropping: Cell<bool>,
}

/// Nothing is borrowed while user code runs (rule 1).
impl RefUnwindSafe for Tasks {}

#[derive(Default)]
struct Slots {
    /// `None`: vacant, or its task is being polled.
    all: Vec<Option<Slot>>,
    vacant: Vec<usize>,
}

/// A task in its slot.
pub type Slot = Entry<Body>;

impl Slots {
    fn add(&mut self, task: Slot) {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() - 1
        });
        task.shared.state().set_slot(u32::try_from(slot).expect("there is no memory for so many tasks"));
        self.all[slot] = Some(task);
    }

    /// Vacates the task's slot, if it has one. Takes the task, unless it is being polled.
    fn remove(&mut self, task: &TaskState) -> Option<Slot> {
        let slot = task.slot();
        let removed = self.all.get_mut(slot)?.take();
        task.set_slot(NO_SLOT);
        self.vacant.push(slot);
        removed
    }

    /// Gives back the memory of a burst: moves the tasks together. No task is being polled.
    fn shrink(&mut self) {
        let used = self.all.len() - self.vacant.len();
        if self.all.len() > KEEP_CAPACITY.max(2 * used) {
            for task in mem::take(self).all.into_iter().flatten() {
                self.add(task);
            }
        }
    }
}

impl Tasks {
    /// For this thread.
    pub fn new(pool: Option<ThreadPool>) -> Self {
        Self {
            reactor: Reactor::new(pool, None),
            slots: RefCell::default(),
            run_queue: RefCell::default(),
            drop_queue: RefCell::default(),
            is_dropping: Cell::new(false),
        }
    }

    /// Has a task polled.
    pub fn queue(&self, task: Arc<dyn AnyTask>) {
        self.run_queue.borrow_mut().push_back(task);
    }

    /// Takes a new task, after those that other threads have sent before. If the loop is closed: drops it.
    pub fn spawn(&self, task: Slot) {
        if self.drain() { self.add(task) } else { self.drop_later(task) }
    }

    fn add(&self, task: Slot) {
        if task.shared.state().is_queued() {
            self.queue(task.shared.clone());
        }
        self.slots.borrow_mut().add(task);
    }

    /// Takes in what other threads have sent. False: the loop is closed.
    fn drain(&self) -> bool {
        let messages = self.reactor.inbox.drain();
        let is_open = messages.is_some();
        for message in messages.into_iter().flatten() {
            match message {
                Message::Wake(task) => self.queue(task),
                Message::Spawn(task) => self.add(task.into_local()),
            }
        }
        is_open
    }

    /// Takes in what other threads have sent, and fires the timers that are due.
    pub fn run_external(&self) {
        // In this order: when a call of `call_later` has returned, and its timer is due, its task is here before the timer is woken.
        let due = self.reactor.take_due();
        self.drain();
        wake_all(due);
    }

    /// Polls each task once that is to be polled. If nothing is left to do, sleeps.
    pub fn turn(&self, parker: &mut Parker) {
        self.run_external();
        let queued = self.run_queue.borrow().len();
        for _ in 0..queued {
            let task = self.run_queue.borrow_mut().pop_front();
            if let Some(task) = task {
                self.poll(task);
            }
        }
        if self.run_queue.borrow().is_empty() {
            self.slots.borrow_mut().shrink();
            self.run_queue.borrow_mut().shrink_to(KEEP_CAPACITY);
            self.drop_queue.borrow_mut().shrink_to(KEEP_CAPACITY);
            self.reactor.wait(parker);
        }
    }

    fn poll(&self, task: Arc<dyn AnyTask>) {
        let slot = self.slots.borrow_mut().all.get_mut(task.state().slot()).and_then(Option::take);
        let Some(mut slot) = slot else { return };
        let polled = slot.poll(&mut task::Context::from_waker(&task.into_waker()));
        let mut slots = self.slots.borrow_mut();
        match slots.all.get_mut(slot.shared.state().slot()) {
            Some(vacant) if polled.is_pending() => *vacant = Some(slot),
            _ => {
                slots.remove(slot.shared.state());
                drop(slots);
                self.drop_later(slot);
            }
        }
    }

    /// Drops a task that has been cancelled; if it is being polled, after that.
    pub fn remove(&self, task: &TaskState) {
        // It may still be on its way.
        self.drain();
        let removed = self.slots.borrow_mut().remove(task);
        if let Some(task) = removed {
            self.drop_later(task);
        }
    }

    /// Drops a task, or leaves that to the call which is just dropping one. See rule 3.
    fn drop_later(&self, task: Slot) {
        self.drop_queue.borrow_mut().push(task);
        if self.is_dropping.replace(true) {
            return;
        }
        loop {
            let next = self.drop_queue.borrow_mut().pop();
            if next.is_none() {
                break;
            }
            drop(next);
        }
        self.is_dropping.set(false);
    }

    /// Ends the loop: drops its tasks, and refuses new ones.
    pub fn close(&self) {
        self.reactor.close();
        let slots = self.slots.take();
        for task in slots.all.into_iter().flatten() {
            self.drop_later(task);
        }
        self.run_queue.take();
    }
}
