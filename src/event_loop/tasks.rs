//! The tasks of an event loop, on the loop's own thread: their slots, and the run queue.
//!
//! # What it promises
//! A round ([`Tasks::turn`]) drains the inbox and fires the timers that are due; then it polls once each task that is
//! in the run queue. A task that is queued meanwhile is polled in the next round. So a task that is always ready
//! starves neither other tasks nor timers nor the main future. Each task is polled, and dropped, in its own context.
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
//! 1. Everything here stays on the loop's thread. While user code runs (a poll, a drop, a waker), nothing is borrowed:
//!    user code may spawn, wake and cancel tasks, its own task included.
//! 2. A task's state has the task's place: its slot and the slot's number. The run queue is a list of places. A slot
//!    gets a new number for each task, so a wake that comes too late does not reach the slot's next task. While the run
//!    queue is empty, tasks may be moved to other slots.
//! 3. Dropping a task may drop the handle of the next one, and so on: see `drop_queue`.
//!
//! # What can go wrong
//! There is no synchronisation in this file.
//! * The waker of a task that has ended polls the slot's next task: `stale_waker`.
//! * The waker of a task polls the task after its end: `wake_as_it_ends`.
//! * A task of another thread runs after one that was spawned later: `callbacks_run_in_order_of_submission`.
//! * The loop closes while tasks are left, or in the inbox: `wake_as_the_loop_closes`, `call_soon_close`.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::panic::RefUnwindSafe;
use std::sync::Arc;

use crate::event_loop::inbox::{Body, Entry, Message};
use crate::event_loop::reactor::{Reactor, wake_all};
use crate::event_loop::state::{Place, TaskState};
use crate::pool::ThreadPool;
use crate::primitives::parker::Parker;

/// An idle loop keeps memory for at most this number of tasks, or for twice the number of tasks that it has.
const KEEP_CAPACITY: usize = 64;

/// The part of the loop that stays on its thread.
pub struct Tasks {
    pub reactor: Arc<Reactor>,
    slots: RefCell<Slots>,
    /// The tasks that are to be polled, in order.
    run_queue: RefCell<VecDeque<Place>>,
}

/// Nothing is borrowed while user code runs (rule 1).
impl RefUnwindSafe for Tasks {}

/// A task of this thread.
pub type LocalEntry = Entry<dyn Body>;

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    vacant: Vec<u32>,
    /// The number that was given last.
    number: u32,
}

struct Slot {
    /// Changes when a task is added, and when it is removed.
    number: u32,
    /// `None`: the task is being polled, or the slot is vacant.
    task: Option<LocalEntry>,
}

impl Slots {
    /// Adds a task. Returns its place, if it is to be polled.
    fn add(&mut self, task: LocalEntry) -> Option<Place> {
        let number = self.next_number();
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.all.push(Slot { number, task: None });
            u32::try_from(self.all.len() - 1).expect("there is no memory for so many tasks")
        });
        let place = Place { slot, number };
        let state = task.state()?;
        state.set_place(place);
        let is_queued = state.is_queued();
        self.all[slot as usize] = Slot { number, task: Some(task) };
        is_queued.then_some(place)
    }

    fn next_number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// The task's slot, if it has one.
    fn get(&mut self, place: Place) -> Option<&mut Slot> {
        self.all.get_mut(place.slot as usize).filter(|slot| slot.number == place.number)
    }

    /// Vacates the task's slot, if it has one. Takes the task, unless it is being polled.
    fn remove(&mut self, place: Place) -> Option<LocalEntry> {
        let number = self.next_number();
        let removed = mem::replace(self.get(place)?, Slot { number, task: None }).task;
        self.vacant.push(place.slot);
        removed
    }

    fn tasks(self) -> impl Iterator<Item = LocalEntry> {
        self.all.into_iter().filter_map(|slot| slot.task)
    }

    /// Frees memory: moves the tasks together. None is in the run queue or being polled.
    fn shrink(&mut self) {
        let used = self.all.len() - self.vacant.len();
        if self.all.len() > KEEP_CAPACITY.max(2 * used) {
            let number = self.number;
            for task in mem::replace(self, Self { number, ..Self::default() }).tasks() {
                self.add(task);
            }
        }
    }
}

impl Tasks {
    /// A loop of this thread.
    pub fn new(pool: Option<ThreadPool>) -> Self {
        Self { reactor: Reactor::new(pool, None), slots: RefCell::default(), run_queue: RefCell::default() }
    }

    /// Queues a task. A task that has not been added yet has no place: it is queued when it is added.
    pub fn queue(&self, task: &TaskState) {
        self.run_queue.borrow_mut().push_back(task.place());
    }

    /// Adds a new task, after those that other threads have sent before. A closed loop drops the task.
    pub fn spawn(&self, task: LocalEntry) {
        if self.drain() { self.add(task) } else { drop(task) }
    }

    fn add(&self, task: LocalEntry) {
        if let Some(place) = self.slots.borrow_mut().add(task) {
            self.run_queue.borrow_mut().push_back(place);
        }
    }

    /// Handles the messages of other threads. False: the loop is closed.
    fn drain(&self) -> bool {
        let Some(messages) = self.reactor.inbox.drain() else { return false };
        for message in messages {
            match message {
                Message::Wake(task) => self.queue(task.state()),
                Message::Spawn(task) => self.add(task.into_local()),
            }
        }
        true
    }

    /// Handles the messages of other threads, and fires the timers that are due.
    pub fn run_external(&self) {
        // Timers first, then messages: `call_later` adds its timer, and then sends its task. So if the timer of a
        // `call_later` that has returned is due here, the task is added before the wake.
        let due = self.reactor.take_due();
        self.drain();
        wake_all(due);
    }

    /// One round: polls each queued task once, then sleeps if none is queued.
    pub fn turn(&self, parker: &mut Parker) {
        self.run_external();
        let queued = self.run_queue.borrow().len();
        for _ in 0..queued {
            let place = self.run_queue.borrow_mut().pop_front();
            if let Some(place) = place {
                self.poll(place);
            }
        }
        if self.run_queue.borrow().is_empty() {
            self.slots.borrow_mut().shrink();
            self.run_queue.borrow_mut().shrink_to(KEEP_CAPACITY);
            self.reactor.wait(parker);
        }
    }

    fn poll(&self, place: Place) {
        let task = self.slots.borrow_mut().get(place).and_then(|slot| slot.task.take());
        let Some(mut task) = task else { return };
        let polled = task.poll(None);
        let mut slots = self.slots.borrow_mut();
        match slots.get(place) {
            Some(slot) if polled.is_pending() => slot.task = Some(task),
            _ => {
                slots.remove(place);
                drop(slots);
                drop(task);
            }
        }
    }

    /// Drops a task that has been cancelled. A task that is being polled is dropped after the poll.
    pub fn remove(&self, task: &TaskState) {
        // The task may still be in the inbox.
        self.drain();
        let removed = self.slots.borrow_mut().remove(task.place());
        drop(removed);
    }

    /// Ends the loop: drops its tasks, and refuses new ones.
    pub fn close(&self) {
        self.reactor.close();
        let slots = self.slots.take();
        slots.tasks().for_each(drop);
        self.run_queue.take();
    }
}
