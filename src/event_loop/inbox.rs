//! The inbox: what other threads hand in to an event loop.
//!
//! # What it promises
//! A message is drained by the loop, in the order of sending, or [`Inbox::send`] returns it: the loop has ended. A loop that
//! found the inbox empty and registered its waker is woken by the next message. Further messages wake nobody until the loop
//! registers again.
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
//! 1. One lock guards everything. Wakers are woken, and messages dropped, outside it: both run code of the user.
//! 2. The loop's thread alone drains and registers.
//!
//! # Synchronisation edges
//! There are none but those of the lock.
//!
//! # What can go wrong
//! * A message is sent while the loop falls asleep: `wake_as_it_falls_asleep`, `call_soon_wakes`; while it closes:
//!   `call_soon_close`.
#![forbid(unsafe_code)]

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Waker};

use crate::context::Context;
use crate::event_loop::state::AnyTask;
use crate::primitives::join_error::catch_and_discard;
use crate::sync::Mutex;

/// A task's future, which sends its own output. Its polls do not panic.
pub type Body = Pin<Box<dyn Future<Output = ()>>>;
/// The same, for another thread.
pub type SendBody = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task as its scheduler keeps it. Dropping it ends the task; it does not panic.
pub struct Entry<B> {
    pub shared: Arc<dyn AnyTask>,
    pub context: Context,
    /// `None` once the entry was [moved](Entry::into_local).
    pub body: Option<B>,
}

impl<B: Future<Output = ()> + Unpin> Entry<B> {
    /// Polls the task in its context, unless it was cancelled.
    pub fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let is_wanted = self.shared.state().begin(cx);
        let Some(body) = self.body.as_mut().filter(|_| is_wanted) else { return Poll::Ready(()) };
        self.context.within(|| Pin::new(body).poll(cx))
    }
}

impl Entry<SendBody> {
    /// From here on the task stays on its thread.
    pub fn into_local(mut self) -> Entry<Body> {
        let body = self.body.take().map(|body| body as Body);
        Entry { shared: self.shared.clone(), context: mem::take(&mut self.context), body }
    }
}

impl<B> Drop for Entry<B> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            self.shared.state().end();
            catch_and_discard(|| self.context.within(|| drop(body)));
        }
    }
}

/// What another thread has for the loop.
pub enum Message {
    /// A task was woken, or cancelled.
    Wake(Arc<dyn AnyTask>),
    /// A new task.
    Spawn(Entry<SendBody>),
}

#[derive(Default)]
pub struct Inbox(Mutex<State>);

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    /// Wakes the loop's thread: its parker's waker, which may be dropped under the lock.
    waker: Option<Waker>,
    closed: bool,
}

impl Inbox {
    /// Hands a message in, from any thread.
    pub fn send(&self, message: Message) -> Result<(), Message> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(message);
        }
        state.messages.push(message);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Takes the messages, in their order. `None`: the loop is closed.
    pub fn drain(&self) -> Option<Vec<Message>> {
        let mut state = self.0.lock();
        (!state.closed).then(|| mem::take(&mut state.messages))
    }

    /// Leaves the waker of a loop that is about to sleep. False: there is a message.
    pub fn register(&self, waker: &Waker) -> bool {
        let mut state = self.0.lock();
        state.waker = Some(waker.clone());
        state.messages.is_empty()
    }

    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// From now on `send` returns every message. Drops those that are still here.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let rest = mem::take(&mut state.messages);
        drop(state);
        drop(rest);
    }
}
