//! What an event loop has on its own thread: its tasks, and those of them that are to be polled.
//!
//! # What it promises
//! A turn collects what other threads have handed in, wakes whoever waited for a time that has come, and polls each task
//! once that was in the queue by then. What is queued meanwhile has its turn after the next such round; so a task that is
//! always ready starves neither the others nor the timers nor the main future.
//!
//! # How
//! A task's future lies in a slot, and its [`Header`] knows which. The slot knows the header: so a waker from before, when the
//! slot has been given to another task, finds nothing. While a task is polled its slot is empty; and whatever a future does when it is polled
//! or dropped (spawn, wake, cancel, turn by turn or itself), it finds nothing borrowed.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::{self, ManuallyDrop};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;

use crate::event_loop::reactor::{Letter, Reactor};
use crate::event_loop::task::{AnyTask, Body, Header};
use crate::pool::ThreadPool;
use crate::primitives::job::{self, JobId};
use crate::primitives::parker::{Rest, Unparker};
use crate::sync::thread_local;

pub struct Local {
    pub reactor: Arc<Reactor>,
    slots: RefCell<Slots>,
    /// The tasks that are to be polled, in their order.
    queue: RefCell<VecDeque<Arc<dyn AnyTask>>>,
    /// The reactor knows how to wake this thread.
    attached: Cell<bool>,
    closed: Cell<bool>,
}

#[derive(Default)]
struct Slots {
    all: Vec<Option<Slot>>,
    free: Vec<usize>,
}

struct Slot {
    /// The header's address. A task's header is there as long as its body, and as long as it stands in a queue: so no two
    /// are mistaken for each other.
    task: usize,
    /// `None` while it is being polled.
    body: Option<Body>,
    /// It was cancelled while it was being polled, by itself.
    cancelled: bool,
}

impl Slots {
    fn add(&mut self, task: &Header, body: Body) {
        let at = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() - 1
        });
        task.set_slot(at);
        self.all[at] = Some(Slot { task: ptr::from_ref(task).addr(), body: Some(body), cancelled: false });
    }

    /// The task's slot, if it has not ended.
    fn find(&mut self, task: &Header) -> Option<&mut Slot> {
        self.all.get_mut(task.slot())?.as_mut().filter(|slot| slot.task == ptr::from_ref(task).addr())
    }

    /// Puts back the task that was polled. If it was cancelled meanwhile: empties the slot.
    #[must_use = "to be dropped when nothing is borrowed"]
    fn put_back(&mut self, at: usize, body: Body) -> Option<Body> {
        match &mut self.all[at] {
            Some(slot) if !slot.cancelled => {
                slot.body = Some(body);
                None
            }
            _ => {
                self.empty(at);
                Some(body)
            }
        }
    }

    /// Empties a slot, for the next task.
    fn empty(&mut self, at: usize) {
        self.free.push(at);
        self.all[at] = None;
    }
}

// Neither is dropped at the end of the thread, where its own loops may be needed to the last: a loop that ends leaves no
// more behind than it found.
thread_local! {
    /// The loops of this thread.
    static LOOPS: RefCell<ManuallyDrop<Vec<Rc<Local>>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
    /// The one that runs: the innermost, if one runs in a job that is run in another.
    static RUNNING: RefCell<ManuallyDrop<Option<Running>>> = const { RefCell::new(ManuallyDrop::new(None)) };
}

struct Running {
    /// The job in which it runs.
    job: Option<JobId>,
    /// `None`: not made yet.
    local: Option<Rc<Local>>,
}

impl Running {
    /// The loop runs in this very job, not around it.
    fn is_here(&self) -> bool {
        self.job == job::current_id()
    }
}

impl Local {
    pub fn new(pool: Option<ThreadPool>) -> Rc<Self> {
        let local = Rc::new(Self {
            reactor: Arc::new(Reactor::new(pool)),
            slots: RefCell::default(),
            queue: RefCell::default(),
            attached: Cell::new(false),
            closed: Cell::new(false),
        });
        LOOPS.with(|loops| loops.borrow_mut().push(local.clone()));
        local
    }

    /// That loop, if it is this thread's.
    pub fn of(reactor: &Arc<Reactor>) -> Option<Rc<Self>> {
        let find = |loops: &RefCell<ManuallyDrop<Vec<Rc<Self>>>>| {
            loops.borrow().iter().rfind(|local| Arc::ptr_eq(&local.reactor, reactor)).cloned()
        };
        LOOPS.with(find)
    }

    /// The loop that this code runs in; makes it, if nobody has needed it before. `None`: it runs in no loop of ours, or in
    /// a job that does.
    pub fn running() -> Option<Rc<Self>> {
        RUNNING.with(|running| {
            let mut running = running.borrow_mut();
            let running = running.as_mut().filter(|running| running.is_here())?;
            Some(running.local.get_or_insert_with(|| Self::new(None)).clone())
        })
    }

    /// Has the task polled.
    pub fn queue(&self, task: Arc<dyn AnyTask>) {
        self.queue.borrow_mut().push_back(task);
    }

    /// Takes a new task, after those that other threads have handed in before. If the loop is closed: drops it.
    pub fn spawn(&self, task: Arc<dyn AnyTask>, body: Body) {
        if self.closed.get() {
            drop(body);
            return;
        }
        if self.reactor.has_mail() {
            self.collect();
        }
        self.add(task, body);
    }

    fn collect(&self) {
        for letter in self.reactor.collect() {
            match letter {
                Letter::Wake(task) => self.queue(task),
                Letter::Spawn(task, body) => self.add(task, body),
            }
        }
    }

    fn add(&self, task: Arc<dyn AnyTask>, body: Body) {
        self.slots.borrow_mut().add(task.header(), body);
        self.queue(task);
    }

    /// Drops a task that has been cancelled; if it is being polled, after that.
    pub fn drop_task(&self, task: &Header) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.find(task) else { return };
        let body = slot.body.take();
        if body.is_some() {
            slots.empty(task.slot());
        } else {
            slot.cancelled = true;
        }
        drop(slots);
        drop(body);
    }

    /// Does what there is to do, and says how long the thread may rest.
    pub fn turn(&self, unparked: bool, unparker: Option<&Unparker>) -> Rest {
        let attach = unparker.filter(|_| !self.attached.get());
        if let Some(unparker) = attach {
            self.reactor.attach(Some(unparker.clone()));
            self.attached.set(true);
        }
        if unparked || attach.is_some() {
            self.collect();
        }
        self.reactor.fire();
        let queued = self.queue.borrow().len();
        for _ in 0..queued {
            let task = self.queue.borrow_mut().pop_front();
            if let Some(task) = task {
                self.poll(task);
            }
        }
        if self.queue.borrow().is_empty() && self.attached.get() {
            Rest::Until(self.reactor.timers.lock().earliest())
        } else {
            Rest::Skip
        }
    }

    fn poll(&self, task: Arc<dyn AnyTask>) {
        let at = task.header().slot();
        let body = self.slots.borrow_mut().find(task.header()).and_then(|slot| slot.body.take());
        let Some(mut body) = body else { return };
        let waker = task.into_waker();
        if body.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.slots.borrow_mut().empty(at);
        } else {
            let cancelled = self.slots.borrow_mut().put_back(at, body);
            drop(cancelled);
        }
    }

    /// The thread does other things now.
    fn detach(&self) {
        self.reactor.attach(None);
        self.attached.set(false);
    }

    /// Ends the loop: drops its tasks, on this thread, and refuses new ones.
    pub fn close(self: &Rc<Self>) {
        self.closed.set(true);
        self.reactor.close();
        let mut at = 0;
        loop {
            // A task that is dropped may cancel others, but not spawn any.
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.all.get_mut(at) else { break };
            let task = slot.take();
            drop(slots);
            drop(task);
            at += 1;
        }
        drop(self.queue.take());
        LOOPS.with(|loops| {
            let mut loops = loops.borrow_mut();
            loops.retain(|local| !Rc::ptr_eq(local, self));
            if loops.is_empty() {
                loops.shrink_to_fit();
            }
        });
    }
}

/// While it exists, a loop runs on this thread.
pub struct Run {
    outer: Option<Running>,
    /// It ends with this.
    ends: bool,
}

impl Run {
    /// Without a loop, one is made when it is first needed, and ends with this.
    #[track_caller]
    pub fn new(local: Option<Rc<Local>>) -> Self {
        let ends = local.is_none();
        let job = job::current_id();
        let is_inside = RUNNING.with(|running| running.borrow().as_ref().is_some_and(Running::is_here));
        assert!(
            !is_inside,
            "block_on was called inside a running event loop, which it would stop: await the future instead"
        );
        let outer = RUNNING.with(|running| running.borrow_mut().replace(Running { job, local }));
        Self { outer, ends }
    }

    /// Its loop, if there is one by now.
    pub fn local() -> Option<Rc<Local>> {
        RUNNING.with(|running| running.borrow().as_ref()?.local.clone())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(local) = Self::local() {
            if self.ends {
                local.close();
            } else {
                local.detach();
            }
        }
        let inner = RUNNING.with(|running| mem::replace(&mut **running.borrow_mut(), self.outer.take()));
        drop(inner);
    }
}
