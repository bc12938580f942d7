//! What an event loop has on its own thread: its tasks, and those of them that are to be polled.
//!
//! # What it promises
//! A turn collects what other threads have handed in, wakes whoever waited for a time that has come, and polls each task
//! once that was in the queue by then. What is queued meanwhile has its turn after the next such round; so a task that is
//! always ready starves neither the others nor the timers nor the main future.
//!
//! # How
//! A task's future lies in a slot, with a waker for it, and its [`Header`] knows its [`Key`]: the slot, and how many tasks that
//! had before. So what has been queued for an earlier one finds nothing. While a task is polled its slot is empty; and whatever a
//! future does when it is polled or dropped (spawn, wake, cancel, others or itself), it finds nothing borrowed.
//!
//! [`Header`]: crate::event_loop::task::Header
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hint;
use std::mem::ManuallyDrop;
use std::ops::ControlFlow;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::event_loop::reactor::{Letter, Reactor, Start};
use crate::event_loop::task::{AnyTask, Body, Header};
use crate::pool::ThreadPool;
use crate::primitives::cancel;
use crate::sync::thread_local;

/// The thread does not wake up for timers again so soon after it has; those that are due in between are late by as much at
/// most. To wake up costs more than a timer does: many timers, each on its own, would spend most of their time on that.
const TOGETHER: Duration = Duration::from_micros(250);

/// The memory of so many letters is kept. That of more was a burst's.
const FEW: usize = 64;

/// The slots of so many tasks are [looked at](Local::look_ahead) before the first of them is polled.
const AHEAD: usize = 16;
/// They are not in a loop that has never had so many tasks at once.
const MANY: usize = 1024;
/// Nor if the first and the last of them are no further apart.
const NEIGHBOURS: u32 = 128;

pub struct Local {
    pub reactor: Arc<Reactor>,
    slots: RefCell<Slots>,
    /// The tasks that are to be polled, in their order.
    queue: RefCell<VecDeque<Key>>,
    /// New ones that are to be polled [before the timers](Start::BeforeTimers).
    new_timers: RefCell<VecDeque<Key>>,
    /// The reactor knows how to wake this thread.
    attached: Cell<bool>,
    closed: Cell<bool>,
    /// No letters, but memory for the next ones.
    letters: Cell<Vec<Letter>>,
    /// When timers were due the last time.
    fired: Cell<Option<Instant>>,
    /// Futures that are to be dropped, while one is: see [`Local::bury`].
    dying: RefCell<Vec<(Waker, Body)>>,
    burying: Cell<bool>,
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
}

/// Where a task is, in its loop: no other task ever has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub slot: u32,
    /// How many tasks the slot had had before.
    pub generation: u32,
}

struct Slot {
    generation: u32,
    /// The task was cancelled while it was being polled, by itself.
    cancelled: bool,
    /// Both are `None` while it is being polled, and while there is none.
    waker: Option<Waker>,
    body: Option<Body>,
}

impl Slots {
    fn add(&mut self, task: Arc<dyn AnyTask>, body: Body) -> Key {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = u32::try_from(self.all.len()).expect("there is no memory for so many tasks");
            self.all.push(Slot { generation: 0, cancelled: false, waker: None, body: None });
            slot
        });
        let there = &mut self.all[slot as usize];
        let key = Key { slot, generation: there.generation };
        task.header().set_key(key);
        there.waker = Some(task.into_waker());
        there.body = Some(body);
        key
    }

    /// The task's slot, if it has not ended.
    #[inline]
    fn find(&mut self, key: Key) -> Option<&mut Slot> {
        self.all.get_mut(key.slot as usize).filter(|slot| slot.generation == key.generation)
    }

    /// Takes the task out. If it is to come back, its slot stays its own.
    #[inline]
    fn take(&mut self, key: Key) -> Option<(Waker, Body)> {
        let slot = self.find(key)?;
        Some((slot.waker.take()?, slot.body.take()?))
    }

    /// Puts back the task that was polled. If it was cancelled meanwhile: the slot is free.
    #[must_use = "to be dropped when nothing is borrowed"]
    fn put_back(&mut self, key: Key, waker: Waker, body: Body) -> Option<(Waker, Body)> {
        let slot = &mut self.all[key.slot as usize];
        if slot.cancelled {
            self.free(key);
            return Some((waker, body));
        }
        slot.waker = Some(waker);
        slot.body = Some(body);
        None
    }

    /// Takes a task that was cancelled out for good. If it is being polled: it will not be put back.
    fn cancel(&mut self, key: Key) -> Option<(Waker, Body)> {
        let taken = self.take(key);
        if taken.is_some() {
            self.free(key);
        } else if let Some(slot) = self.find(key) {
            slot.cancelled = true;
        }
        taken
    }

    /// The slot is free for the next task.
    #[inline]
    fn free(&mut self, key: Key) {
        let slot = &mut self.all[key.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.cancelled = false;
        self.free.push(key.slot);
    }
}

thread_local! {
    /// The loops of this thread. Not dropped at its end, when they may be needed to the last: a loop that ends leaves no more
    /// behind than it found.
    static LOOPS: RefCell<ManuallyDrop<Vec<Rc<Local>>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
    /// What runs here: the innermost, if one `block_on` runs in a job that is run in another one.
    static RUNNING: Running = const { Running { place: Cell::new(0), local: Cell::new(ptr::null()) } };
}

/// A `block_on`. Of two words, each for itself: who reads both at once what was just written one by one has to wait for that.
struct Running {
    /// Where it runs: see [`place`]. 0: nothing runs.
    place: Cell<usize>,
    /// Its loop's address. Null: there is none yet.
    local: Cell<*const Local>,
}

/// Tells the jobs apart in which a `block_on` may run, and what is no job.
#[inline]
fn place() -> usize {
    // No job has the address 1.
    cancel::current_id().unwrap_or(1)
}

impl Local {
    pub fn new(pool: Option<ThreadPool>) -> Rc<Self> {
        let local = Rc::new(Self {
            reactor: Arc::new(Reactor::new(pool)),
            slots: RefCell::default(),
            queue: RefCell::default(),
            new_timers: RefCell::default(),
            attached: Cell::new(false),
            closed: Cell::new(false),
            letters: Cell::default(),
            fired: Cell::new(None),
            dying: RefCell::default(),
            burying: Cell::new(false),
        });
        LOOPS.with(|loops| loops.borrow_mut().push(local.clone()));
        local
    }

    /// That loop, if it is this thread's.
    #[inline]
    pub fn of(reactor: &Arc<Reactor>) -> Option<Rc<Self>> {
        Self::find(|local| Arc::ptr_eq(&local.reactor, reactor))
    }

    fn find(which: impl Fn(&Self) -> bool) -> Option<Rc<Self>> {
        LOOPS.with(|loops| loops.borrow().iter().rfind(|local| which(local)).cloned())
    }

    /// The loop that this code runs in; makes it, if nobody has needed it before. `None`: it runs in no loop of ours, or in
    /// a job that does; or the loop has ended.
    pub fn running() -> Option<Rc<Self>> {
        RUNNING
            .with(|running| {
                (running.place.get() == place()).then(|| {
                    Run::local().unwrap_or_else(|| {
                        let local = Self::new(None);
                        running.local.set(Rc::as_ptr(&local));
                        local
                    })
                })
            })
            .filter(|local| !local.closed.get())
    }

    /// Has the task polled.
    #[inline]
    pub fn queue(&self, task: Key) {
        self.queue.borrow_mut().push_back(task);
    }

    /// Takes a new task, after those that other threads have handed in before. If the loop is closed: drops it.
    pub fn spawn(&self, task: Arc<dyn AnyTask>, body: Body, start: Start) {
        if self.closed.get() {
            drop(body);
            return;
        }
        self.collect();
        self.add(task, body, start);
    }

    /// Takes what other threads have handed in.
    fn collect(&self) {
        if !self.reactor.has_mail() {
            return;
        }
        let mut letters = self.letters.take();
        self.reactor.collect(&mut letters);
        for letter in letters.drain(..) {
            match letter {
                Letter::Wake(task) => self.queue(task.header().key()),
                Letter::Spawn(task, body, start) => self.add(task, body, start),
            }
        }
        letters.shrink_to(FEW);
        self.letters.set(letters);
    }

    fn add(&self, task: Arc<dyn AnyTask>, body: Body, start: Start) {
        let key = self.slots.borrow_mut().add(task, body);
        match start {
            Start::InTurn => self.queue(key),
            Start::BeforeTimers => self.new_timers.borrow_mut().push_back(key),
        }
    }

    /// Takes what other threads have handed in, and wakes those whose time has come.
    pub fn take_in(&self) {
        self.collect();
        loop {
            let timer = self.new_timers.borrow_mut().pop_front();
            let Some(timer) = timer else { break };
            self.poll(timer);
        }
        if let Some(now) = self.reactor.fire() {
            self.fired.set(Some(now));
        }
    }

    /// Drops a task that has been cancelled; if it is being polled, after that.
    pub fn drop_task(&self, task: &Header) {
        // It may still be on its way.
        self.collect();
        let dropped = self.slots.borrow_mut().cancel(task.key());
        self.bury(dropped);
    }

    /// Drops a task's future. Those that are dropped by that, since it has their handles, wait until it has gone: a stack
    /// has an end, and a chain of tasks need not have.
    fn bury(&self, task: Option<(Waker, Body)>) {
        self.dying.borrow_mut().extend(task);
        if self.burying.replace(true) {
            return;
        }
        loop {
            let task = self.dying.borrow_mut().pop();
            if task.is_none() {
                break;
            }
            drop(task);
        }
        self.burying.set(false);
    }

    /// Does what there is to do, and says until when the thread may sleep. `Break`: not at all.
    pub fn turn(&self, waker: &Waker) -> ControlFlow<(), Option<Instant>> {
        if !self.attached.replace(true) {
            self.reactor.attach(Some(waker.clone()));
        }
        self.take_in();
        let queued = self.queue.borrow().len();
        for at in 0..queued {
            if at % AHEAD == 0 {
                self.look_ahead();
            }
            let task = self.queue.borrow_mut().pop_front();
            if let Some(task) = task {
                self.poll(task);
            }
        }
        if !self.queue.borrow().is_empty() || !self.new_timers.borrow().is_empty() {
            return ControlFlow::Break(());
        }
        let earliest = self.reactor.timers.lock().earliest();
        let together = self.fired.get().and_then(|fired| fired.checked_add(TOGETHER));
        ControlFlow::Continue(earliest.map(|earliest| together.map_or(earliest, |together| earliest.max(together))))
    }

    /// Reads the slots of the next tasks, so that their memory comes all at once, and not one by one as each is polled. Where
    /// there are few, it is near anyway; and that of neighbours comes by itself.
    fn look_ahead(&self) {
        let (queue, slots) = (self.queue.borrow(), self.slots.borrow());
        let ahead = queue.len().min(AHEAD);
        let is_scattered = |first: Key, last: Key| first.slot.abs_diff(last.slot) > NEIGHBOURS;
        if slots.all.len() < MANY || ahead == 0 || !is_scattered(queue[0], queue[ahead - 1]) {
            return;
        }
        for key in queue.iter().take(ahead) {
            hint::black_box(slots.all.get(key.slot as usize).is_some_and(|slot| slot.body.is_some()));
        }
    }

    fn poll(&self, key: Key) {
        let task = self.slots.borrow_mut().take(key);
        let Some((waker, mut body)) = task else { return };
        if body.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.slots.borrow_mut().free(key);
        } else {
            let cancelled = self.slots.borrow_mut().put_back(key, waker, body);
            self.bury(cancelled);
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
        let mut at = 0_u32;
        loop {
            // A task that is dropped may cancel others, but not spawn any.
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.all.get(at as usize) else { break };
            let key = Key { slot: at, generation: slot.generation };
            let task = slots.cancel(key);
            drop(slots);
            self.bury(task);
            at += 1;
        }
        drop((self.queue.take(), self.new_timers.take()));
        LOOPS.with(|loops| {
            let mut loops = loops.borrow_mut();
            loops.retain(|local| !Rc::ptr_eq(local, self));
            if loops.is_empty() {
                loops.shrink_to_fit();
            }
        });
    }
}

/// While it exists, a `block_on` runs on this thread.
pub struct Run {
    outer_place: usize,
    outer_local: *const Local,
    /// Its loop ends with this.
    ends: bool,
}

impl Run {
    /// Without a loop, one is made when it is first needed, and ends with this.
    #[inline]
    #[track_caller]
    pub fn new(local: Option<&Rc<Local>>) -> Self {
        let place = place();
        RUNNING.with(|running| {
            assert!(
                running.place.get() != place,
                "block_on was called inside a running event loop, which it would stop: await the future instead"
            );
            Self {
                outer_place: running.place.replace(place),
                outer_local: running.local.replace(local.map_or(ptr::null(), Rc::as_ptr)),
                ends: local.is_none(),
            }
        })
    }

    /// Its loop, if there is one by now.
    #[inline]
    pub fn local() -> Option<Rc<Local>> {
        let running = RUNNING.with(|running| running.local.get());
        if running.is_null() { None } else { Local::find(|local| ptr::eq(local, running)) }
    }

    #[cold]
    fn end_of_loop(&self) {
        match Self::local() {
            Some(local) if self.ends => local.close(),
            Some(local) => local.detach(),
            None => {}
        }
    }
}

impl Drop for Run {
    #[inline]
    fn drop(&mut self) {
        RUNNING.with(|running| {
            if !running.local.get().is_null() {
                self.end_of_loop();
            }
            running.place.set(self.outer_place);
            running.local.set(self.outer_local);
        });
    }
}
