//! The inbox: messages of other threads to an event loop.
//!
//! # What it promises
//! Messages are drained by the loop, in the order of sending. If the loop has ended, [`Inbox::send`] returns the
//! message. A loop that found the inbox empty and registered its waker is woken by the next message. Further messages
//! wake nobody until the loop registers again.
//!
//! # State machine
//! ```text
//!                   send                        drain, by the loop
//!   EMPTY ------------------------> MESSAGES ----------------------> EMPTY
//!     |    takes and wakes the waker    | ^                                       close, from both: CLOSED
//!     +-- register: leaves a waker      +-+ send
//! ```
//!
//! # Who may touch what
//! 1. One lock guards everything. Messages are dropped outside the lock, since that runs user code; the loop's waker is
//!    woken outside it, too.
//! 2. The loop's thread alone drains, registers and closes.
//! 3. `changed` is written under the lock and read without the lock: a hint, so that a look at an empty inbox costs no
//!    lock.
//!
//! # Synchronisation edges
//! Only those of the lock. `changed` is set before `send` returns: so code that happens after a `send` sees `changed`.
//!
//! # What can go wrong
//! * A message is sent while the loop falls asleep: `wake_as_it_falls_asleep`, `call_soon_wakes`.
//! * A message is sent while the loop closes: `call_soon_close`.
//! * A `Drop` on the loop's thread spawns a task while the loop closes: `spawn_as_the_loop_closes`.
#![forbid(unsafe_code)]

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::event_loop::state::{AnyTask, TaskState};
use crate::primitives::drop_queue::drop_flat;
use crate::primitives::join_error::discard;
use crate::sync::Mutex;
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering::Relaxed;

/// A task as its scheduler polls it. The methods panic only if a waker of another runtime does.
pub trait Body {
    /// `None` once the task has ended.
    fn state(&self) -> Option<&TaskState>;
    /// Polls the future in the task's context, with this waker or with the task's own. When the future is ready, sends
    /// its output. Also ready if the task was cancelled.
    fn poll(self: Pin<&mut Self>, waker: Option<&Waker>) -> Poll<()>;
    /// Drops the future in the task's context, and ends the task without an output, unless it has ended.
    fn cancel(self: Pin<&mut Self>);
}

/// A task as its scheduler keeps it. Dropping the entry ends the task, and does not panic.
pub struct Entry<B: Body + ?Sized + 'static>(
    /// `None` once the entry was [moved](Entry::into_local).
    Option<Pin<Box<B>>>,
);

/// A task that may go to another thread.
pub type SendEntry = Entry<dyn Body + Send>;

impl<B: Body + ?Sized + 'static> Entry<B> {
    pub fn new(body: Pin<Box<B>>) -> Self {
        Self(Some(body))
    }

    /// `None` once the task has ended.
    pub fn state(&self) -> Option<&TaskState> {
        self.0.as_ref()?.state()
    }

    /// See [`Body::poll`].
    pub fn poll(&mut self, waker: Option<&Waker>) -> Poll<()> {
        self.0.as_mut().map_or(Poll::Ready(()), |body| body.as_mut().poll(waker))
    }
}

impl SendEntry {
    /// From now on the task stays on the loop's thread.
    pub fn into_local(mut self) -> Entry<dyn Body> {
        Entry(self.0.take().map(|body| body as Pin<Box<dyn Body>>))
    }
}

impl<B: Body + ?Sized + 'static> Drop for Entry<B> {
    fn drop(&mut self) {
        /// A task that has not ended.
        struct Unended<B: Body + ?Sized>(Pin<Box<B>>);
        impl<B: Body + ?Sized> Drop for Unended<B> {
            fn drop(&mut self) {
                self.0.as_mut().cancel();
            }
        }
        if let Some(body) = self.0.take().filter(|body| body.state().is_some()) {
            // The task may own the handle of another task.
            drop_flat(Unended(body)).unwrap_or_else(discard);
        }
    }
}

/// A message of another thread to the loop.
pub enum Message {
    /// A task was woken, or cancelled.
    Wake(Arc<dyn AnyTask>),
    /// A new task.
    Spawn(SendEntry),
}

#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    /// Whether a message was sent, or the inbox closed, since the last `drain`. See rule 3.
    changed: AtomicBool,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    /// Wakes the loop's thread: its parker's waker, which may be dropped under the lock.
    waker: Option<Waker>,
    closed: bool,
}

impl Inbox {
    /// Sends a message, from any thread. `Err`: the loop is closed.
    pub fn send(&self, message: Message) -> Result<(), Message> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(message);
        }
        state.messages.push(message);
        // ORDERING: Relaxed: a hint, read in `drain`.
        self.changed.store(true, Relaxed);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Takes the messages, in their order. `None`: the loop is closed.
    #[inline]
    pub fn drain(&self) -> Option<Vec<Message>> {
        // ORDERING: Relaxed: a hint, which publishes nothing. If it misses a message, `register` finds the message
        // behind the lock, before the loop sleeps; after that lock the hint is seen.
        if !self.changed.load(Relaxed) {
            return Some(Vec::new());
        }
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        // ORDERING: Relaxed: the lock orders this and the store in `send`.
        self.changed.store(false, Relaxed);
        Some(mem::take(&mut state.messages))
    }

    /// Stores the waker of a loop that is about to sleep. False: there is a message.
    pub fn register(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        state.waker = Some(waker.clone());
        state.messages.is_empty()
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// From now on `send` returns every message. Drops the messages that are left.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        // ORDERING: Relaxed: read by this thread alone (rule 2).
        self.changed.store(true, Relaxed);
        let rest = mem::take(&mut state.messages);
        drop(state);
        drop(rest);
    }
}
