//! Another runtime as the event loop.
//!
//! # What it promises
//! The other runtime may poll or drop a task's body on any thread; both happen in the task's own context. Meanwhile the
//! thread counts as the runtime's: waiting on it for another of the runtime's tasks could be a deadlock.
//!
//! # Who may touch what
//! 1. `polling` has a thread's id once for each body that the thread is polling or dropping: these may be nested.
//! 2. The spawn function runs outside all locks: it may poll the body before it returns, or use this runtime's handle.
//!
//! # What can go wrong
//! There is no synchronisation in this file but the lock. `state.rs` explains how a task of another runtime is
//! cancelled.
#![forbid(unsafe_code)]

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use crate::event_loop::inbox::{Message, SendEntry};
use crate::sync::Mutex;
use crate::sync::thread::{self, ThreadId};

type SendFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Another runtime.
pub struct External {
    spawn: Box<dyn Fn(SendFuture) + Send + Sync>,
    polling: Mutex<Vec<ThreadId>>,
}

impl External {
    /// `spawn` is the runtime's function that runs a future.
    pub fn new(spawn: impl Fn(SendFuture) + Send + Sync + 'static) -> Self {
        Self { spawn: Box::new(spawn), polling: Mutex::default() }
    }

    pub fn accept(self: &Arc<Self>, message: Message) {
        match message {
            Message::Wake(task) => task.state().wake_runtime(),
            Message::Spawn(entry) => {
                (self.spawn)(Box::pin(ExternalTask { runtime: self.clone(), entry: Some(entry) }));
            }
        }
    }

    /// Whether this thread polls, or drops, a task of this runtime.
    pub fn is_current_thread(&self) -> bool {
        self.polling.lock().contains(&thread::current().id())
    }
}

/// A task as the other runtime sees it.
struct ExternalTask {
    runtime: Arc<External>,
    /// `None` once the task has ended.
    entry: Option<SendEntry>,
}

impl ExternalTask {
    /// Runs `f` as code of the runtime.
    fn within<R>(&mut self, f: impl FnOnce(&mut Option<SendEntry>) -> R) -> R {
        struct Polling<'a>(&'a External);
        impl Drop for Polling<'_> {
            fn drop(&mut self) {
                let (id, mut polling) = (thread::current().id(), self.0.polling.lock());
                polling.iter().position(|polling| *polling == id).map(|at| polling.swap_remove(at));
            }
        }
        self.runtime.polling.lock().push(thread::current().id());
        // A guard: the id is also removed if a waker of the runtime panics.
        let _polling = Polling(&self.runtime);
        f(&mut self.entry)
    }
}

impl Future for ExternalTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        self.within(|entry| {
            let polled = entry.as_mut().map_or(Poll::Ready(()), |entry| entry.poll(Some(cx.waker())));
            polled.map(|()| *entry = None)
        })
    }
}

impl Drop for ExternalTask {
    fn drop(&mut self) {
        self.within(|entry| *entry = None);
    }
}
