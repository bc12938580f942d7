//! What the threads of an event loop's surroundings share with it, and how they get it out of its sleep.
//!
//! # What it promises
//! A letter that was handed in is collected by the loop, in the order of handing in, or comes back: [`Reactor::send`] says
//! which. A loop that sleeps is woken by the first letter, and by no other until it has collected; a loop that is awake
//! costs whoever hands in no system call.
//!
//! # How
//! ```text
//!            send: unparks                  collect
//!   EMPTY ------------------> LETTERS ---------------------> EMPTY          close, from both ------> CLOSED
//!                              |   ^
//!                              +---+ send: nothing more to do
//! ```
//! One lock holds the letters and how to unpark the thread. The loop sleeps in the [`parker`](crate::primitives::parker),
//! until it is unparked, its main future is woken, or the earliest deadline has passed. Nothing is lost in between: the
//! parker remembers that it was unparked, whatever the loop was doing then, and the loop collects in its next turn. A loop
//! that does not run has no unparker here: it collects when it starts to run.
//!
//! Timers stand behind a lock of their own, since whoever drops a sleep may be on another thread. They are added on the
//! loop's thread alone, so nobody has to be woken for an earlier deadline.
//!
//! # What can go wrong
//! * A letter comes as the loop falls asleep: `wake_as_it_falls_asleep`, `call_soon_wakes`; as it closes: `call_soon_close`.
//! * A letter was handed in before something that the loop's own thread asks for, and is done after it: `handed_in_before`.
#![forbid(unsafe_code)]

use std::mem;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use crate::event_loop::task::{AnyTask, SendBody};
use crate::event_loop::timers::Timers;
use crate::pool::ThreadPool;
use crate::primitives::join_error::catch_and_discard;
use crate::sync::Mutex;
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::thread::{self, ThreadId};

pub struct Reactor {
    mail: Mutex<Mail>,
    /// Whether there are letters; so that who has handed one in and then asks the loop for something on its own thread is
    /// served in that order, without a lock each time.
    has_mail: AtomicBool,
    pub timers: Mutex<Timers>,
    /// The loop's thread. It does not change.
    thread: ThreadId,
    /// Where jobs go that name no pool.
    pub pool: Mutex<Option<ThreadPool>>,
}

struct Mail {
    letters: Vec<Letter>,
    /// Of the thread, while the loop runs.
    unparker: Option<Waker>,
    closed: bool,
}

/// When a new task is polled for the first time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After those that were spawned before.
    InTurn,
    /// Before the next look at the timers: for a task that is one, so that timers fire in the order of their deadlines, however
    /// late the loop gets round to them. Its first poll must run no user's code.
    BeforeTimers,
}

/// What another thread has for the loop.
pub enum Letter {
    /// A task was woken, or cancelled.
    Wake(Arc<dyn AnyTask>),
    /// A new task.
    Spawn(Arc<dyn AnyTask>, SendBody, Start),
}

impl Reactor {
    /// For a loop on this thread.
    pub fn new(pool: Option<ThreadPool>) -> Self {
        Self {
            mail: Mutex::new(Mail { letters: Vec::new(), unparker: None, closed: false }),
            has_mail: AtomicBool::new(false),
            timers: Mutex::new(Timers::new(Instant::now())),
            thread: thread::current().id(),
            pool: Mutex::new(pool),
        }
    }

    /// Whether the loop is this thread's.
    pub fn is_here(&self) -> bool {
        thread::current().id() == self.thread
    }

    /// Hands a letter in, from any thread. It comes back if the loop is closed.
    pub fn send(&self, letter: Letter) -> Result<(), Letter> {
        let mut mail = self.mail.lock();
        if mail.closed {
            return Err(letter);
        }
        let is_first = mail.letters.is_empty();
        mail.letters.push(letter);
        // ORDERING: Relaxed: a hint; the letters are behind the lock.
        self.has_mail.store(true, Relaxed);
        let unparker = mail.unparker.clone().filter(|_| is_first);
        drop(mail);
        if let Some(unparker) = unparker {
            unparker.wake();
        }
        Ok(())
    }

    /// Takes the letters, in their order, and leaves the memory for the next ones: the box that it gets is empty.
    pub fn collect(&self, letters: &mut Vec<Letter>) {
        let mut mail = self.mail.lock();
        // ORDERING: Relaxed: as in `send`.
        self.has_mail.store(false, Relaxed);
        mem::swap(&mut mail.letters, letters);
    }

    /// Whether there may be letters. What happened before this call counts.
    pub fn has_mail(&self) -> bool {
        // ORDERING: Relaxed: as in `send`.
        self.has_mail.load(Relaxed)
    }

    /// The loop runs now, or does not any more.
    pub fn attach(&self, unparker: Option<Waker>) {
        let old = mem::replace(&mut self.mail.lock().unparker, unparker);
        drop(old);
    }

    pub fn is_closed(&self) -> bool {
        self.mail.lock().closed
    }

    /// From now on every letter comes back. Drops those that are still here, and the default pool; wakes who sleeps.
    pub fn close(&self) {
        let mut mail = self.mail.lock();
        mail.closed = true;
        let rest = (mem::take(&mut mail.letters), mail.unparker.take());
        drop(mail);
        drop(rest);
        let wakers = self.timers.lock().take_all();
        for waker in wakers {
            // Whoever sleeps here by another loop's leave has to find another clock.
            catch_and_discard(|| waker.wake());
        }
        let pool = self.pool.lock().take();
        drop(pool);
    }

    /// Wakes those whose time has come. When that was, if there were any.
    pub fn fire(&self) -> Option<Instant> {
        let mut timers = self.timers.lock();
        timers.earliest()?;
        let now = Instant::now();
        let due = timers.take_due(now);
        drop(timers);
        let fired = (!due.is_empty()).then_some(now);
        for waker in due {
            catch_and_discard(|| waker.wake());
        }
        fired
    }
}
