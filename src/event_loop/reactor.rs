//! The reactor: an idle event loop sleeps in it, and other threads reach the loop through it.
//!
//! # What it promises
//! [`Reactor::wait`] returns at the next timer's deadline, when a message comes in, or when the main future is woken,
//! whichever comes first. With many timers it may return up to [`SHARED_WAKE_UP`] after the deadline.
//! [`Reactor::take_due`] returns the wakers of all timers that are due, in the order of their deadlines, and of no
//! others. After [`Reactor::close`] no message is accepted and no timer is left.
//!
//! # State machine
//! ```text
//!                    register: the inbox has a message
//!            +----------------------------------------------+
//!            |                                              v
//!   wait: register -- the inbox is empty --> park ------> awake: the loop drains the inbox and fires the timers
//!                                                 woken by: send, the main future's waker, the earliest deadline
//! ```
//!
//! # Who may touch what
//! 1. The loop's thread alone waits and closes. Every other method is for any thread.
//! 2. Timers are behind a lock of their own, since a sleep may be dropped on another thread. Their wakers are woken and
//!    dropped outside the lock.
//! 3. The loop's thread may add timers, since it computes the next deadline before each sleep. Another thread that adds
//!    a timer sends a message afterwards, and the message wakes the loop.
//! 4. Where another runtime is the loop, messages go to that runtime, and nothing waits here.
//!
//! # Synchronisation edges
//! There are none but those of the locks (of the inbox, the timers and the default pool) and of the
//! [`parker`](crate::primitives::parker).
//!
//! # What can go wrong
//! * A message comes, or the main future is woken, between the last look and the sleep: `wake_as_it_falls_asleep`,
//!   `main_and_task`.
//! * Another thread adds a timer while the loop falls asleep: `timer_from_a_thread`.
#![forbid(unsafe_code)]

use std::panic::RefUnwindSafe;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::event_loop::foreign::External;
use crate::event_loop::inbox::{Inbox, Message};
use crate::event_loop::timers::Timers;
use crate::pool::ThreadPool;
use crate::primitives::join_error::catch_and_discard;
use crate::primitives::parker::Parker;
use crate::sync::Mutex;

/// A wake-up costs more than a timer. So a loop with more than [`FEW_TIMERS`] timers lets at least this time pass
/// between two wake-ups for timers. It wakes up about as rarely as if deadlines were whole milliseconds.
const SHARED_WAKE_UP: Duration = Duration::from_micros(1250);
/// With at most this number of timers, the loop wakes up on time for each.
const FEW_TIMERS: usize = 16;

pub struct Reactor {
    pub inbox: Inbox,
    timers: Mutex<Clock>,
    /// The other runtime, if that is the loop.
    pub external: Option<Arc<External>>,
    /// The pool of jobs that name none. `None`: the global one.
    pub pool: Mutex<Option<ThreadPool>>,
}

/// No user code runs under its locks.
impl RefUnwindSafe for Reactor {}

struct Clock {
    timers: Timers,
    /// When timers were last due.
    fired: Option<Instant>,
}

impl Reactor {
    /// For a loop of this crate, or for another runtime.
    pub fn new(pool: Option<ThreadPool>, external: Option<External>) -> Arc<Self> {
        Arc::new(Self {
            inbox: Inbox::default(),
            timers: Mutex::new(Clock { timers: Timers::new(Instant::now()), fired: None }),
            external: external.map(Arc::new),
            pool: Mutex::new(pool),
        })
    }

    /// Sends a message, from any thread. If the loop is closed, drops the message.
    pub fn send(&self, message: Message) {
        match &self.external {
            Some(runtime) => runtime.accept(message),
            None => drop(self.inbox.send(message)),
        }
    }

    /// Lends the timers, under their lock. Code that adds a timer follows rule 3.
    pub fn with_timers<R>(&self, f: impl FnOnce(&mut Timers) -> R) -> R {
        f(&mut self.timers.lock().timers)
    }

    /// Takes the wakers of the timers that are due. The caller wakes them.
    pub fn take_due(&self) -> Vec<Waker> {
        let mut clock = self.timers.lock();
        if clock.timers.earliest().is_none() {
            return Vec::new();
        }
        let now = Instant::now();
        let due = clock.timers.take_due(now);
        if !due.is_empty() {
            clock.fired = Some(now);
        }
        due
    }

    /// Sleeps until there is something to do. May also return spuriously.
    pub fn wait(&self, parker: &mut Parker) {
        // Register, then look at the inbox. A timer that another thread adds meanwhile is followed by a message: rule
        // 3.
        if self.inbox.register(parker.waker()) {
            let clock = self.timers.lock();
            let fired = clock.fired.filter(|_| clock.timers.len() > FEW_TIMERS);
            let shared = fired.and_then(|fired| fired.checked_add(SHARED_WAKE_UP));
            let deadline =
                clock.timers.earliest().map(|earliest| shared.map_or(earliest, |shared| earliest.max(shared)));
            drop(clock);
            parker.park(deadline);
        }
    }

    /// Refuses messages from now on. Drops the messages that are left, and the default pool. Wakes all sleeps, so that
    /// a sleep in a task of another loop moves to that loop's timers.
    pub fn close(&self) {
        self.inbox.close();
        let wakers = self.with_timers(Timers::take_all);
        wake_all(wakers);
        let pool = self.pool.lock().take();
        drop(pool);
    }
}

/// Wakes wakers that may be the user's: a panic of one is caught.
pub fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        catch_and_discard(|| waker.wake());
    }
}
