//! How a pool closes, and how threads wait for that.
//!
//! # What it promises
//! A closed pool refuses new jobs; its workers end when the queue is empty. A pool that is shut down also refuses the
//! entries that wait. [`Shared::wait_until_finished`] returns when no entry waits, none is being refused, and:
//!
//! * for a caller on another thread: all workers have ended. With `join`, the threads have ended as well, including the
//!   destructors of their thread-locals; except threads that were detached while the pool was open (see below).
//! * for a caller on one of the pool's threads: every worker left is *exempt*. A worker is exempt from the moment its
//!   user code (a job, the start hook, or a waker or `Drop` after a job) waits for the pool to finish until that code
//!   ends. So jobs that wait for the pool do not wait for one another.
//!
//! # How
//! Entries are refused one after the other. Each is taken out of the queue under the lock and dropped outside of the
//! lock, since a closure's `Drop` is user code. Such a `Drop` may itself wait for the pool. This inner wait first
//! refuses the entries that are left. It does not wait for entries that are being refused, since one of these is the
//! entry whose `Drop` is running. A job that waits for the pool does not wait for such a `Drop` either, since the
//! `Drop` waits for the job.
//!
//! An ended thread keeps its stack until it is joined or detached. A thread that ends while the pool is open is
//! detached. While the pool is closed, each thread that ends joins the one that ended before it.
#![forbid(unsafe_code)]

use std::mem;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::pool::queue::Ready;
use crate::pool::worker::{Worker, is_thread_of};
use crate::pool::workers::Stage;
use crate::pool::{Shared, State};
use crate::primitives::cancel::STREAMS;
use crate::primitives::drop_queue::Apart;
use crate::primitives::job::Started;
use crate::primitives::join_error::JoinError;
use crate::primitives::parker::{blocking, poll_until};
use crate::sync::thread::{self, JoinHandle, ThreadId};
use crate::sync::{Arc, MutexGuard};

/// The part of the pool's state that says how far it is closed.
#[derive(Default)]
pub struct Closing {
    /// New jobs are refused.
    pub closed: bool,
    /// The entries that wait are refused.
    pub shut_down: bool,
    /// The threads that are refusing an entry, or ending the streams.
    refusing: Vec<ThreadId>,
    /// The threads that wait for the closed pool to finish, in the `Drop` of an entry that they refuse, or of the iterator
    /// of a stream that they end.
    waiting: Vec<ThreadId>,
    /// The wakers of threads that wait for the closed pool to finish.
    waiters: Vec<Waker>,
}

/// The handles of the threads. Locked while a thread is started: so a thread that ends finds its handle.
#[derive(Default)]
pub struct Handles {
    pub unjoined: Vec<JoinHandle<()>>,
    /// The thread that left a closed pool last. The next one to leave joins it, so few ended threads keep their stacks.
    left: Option<JoinHandle<()>>,
    /// How many threads are being joined.
    joining: usize,
}

impl State {
    /// Whether a closed pool has finished, except that threads may have to be joined. `inside`: the caller is on one of
    /// the pool's threads.
    fn has_finished(&self, inside: bool) -> bool {
        let left = self.workers.threads() - if inside { self.workers.count(Stage::Exempt) } else { 0 };
        let Closing { refusing, waiting, .. } = &self.closing;
        // A `Drop` that waits for the pool waits for the caller's job too, so a caller inside does not wait for the `Drop`.
        let is_over = |id| inside && waiting.contains(id);
        let refused = refusing.iter().all(is_over) || refusing.contains(&thread::current().id());
        left == 0 && self.queue.len() == 0 && refused
    }

    /// If no worker is left that takes entries, takes the next entry. Otherwise, if too few of the existing workers
    /// will soon take turns with priority, takes one such turn. Threads that could still be started are not considered.
    pub fn take_orphan(&mut self, ready: &mut Ready) -> Option<Started> {
        let exempt = if self.closing.closed { self.workers.count(Stage::Exempt) } else { 0 };
        if self.workers.threads() == exempt {
            self.queue.pop(ready)
        } else if self.workers.will_take_priority(self.queue.priority_len(), false) {
            None
        } else {
            self.queue.pop_priority()
        }
    }

    /// Wakes the threads that wait for the pool to finish, so that they look again.
    pub fn wake_waiters(&mut self) {
        // No user code: these are wakers of parkers.
        mem::take(&mut self.closing.waiters).into_iter().for_each(Waker::wake);
    }
}

impl Shared {
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closing.closed = true;
        let idle = state.workers.wake_all();
        drop(state);
        for condvar in idle {
            condvar.notify();
        }
        // A generator's `put` that waits for room fails now.
        self.stop.wake_jobs();
    }

    pub fn shut_down(&self) {
        let (mut ready, mut state) = self.lock();
        state.closing.shut_down = true;
        state.pause_surplus(&mut ready);
        drop((ready, state));
        self.close();
        self.stop.set();
        self.refuse_queued();
        // This comes last: it ends the paused streams, and the `Drop` of an iterator may wait for any job.
        self.while_refusing(self.state.lock(), || self.stop.wake(STREAMS..=STREAMS));
    }

    /// If the pool was shut down, refuses all entries that wait; otherwise those that no worker will take.
    fn refuse_queued(&self) {
        self.refuse(
            || JoinError::Cancelled,
            |state, ready| if state.closing.shut_down { state.queue.pop(ready) } else { state.take_orphan(ready) },
        );
    }

    /// Refuses each entry that `take` takes out of the queue.
    pub(super) fn refuse(
        &self,
        error: impl Fn() -> JoinError,
        mut take: impl FnMut(&mut State, &mut Ready) -> Option<Started>,
    ) {
        loop {
            let (mut ready, mut state) = self.lock();
            let Some(entry) = take(&mut state, &mut ready) else { return };
            state.counters.cancelled += u64::from(!entry.is_turn());
            drop(ready);
            self.while_refusing(state, || entry.refuse(error()));
        }
    }

    /// Refuses entries, or ends streams, outside of the lock. Threads that wait for the pool wait for this work too.
    /// When the thread's outermost call of this function returns, the refused entries and the ended streams have been
    /// dropped, even if that call was made while an outer `drop_flat` is running: see [`Apart`].
    fn while_refusing(&self, mut state: MutexGuard<'_, State>, work: impl FnOnce()) {
        let id = thread::current().id();
        // Only the outermost call begins an `Apart`. If each did, a chain of values, each of which shuts the pool down
        // in its `Drop`, would be dropped recursively.
        let is_outermost = !state.closing.refusing.contains(&id);
        state.closing.refusing.push(id);
        drop(state);
        let apart = is_outermost.then(Apart::begin);
        work();
        drop(apart);
        let mut state = self.state.lock();
        let refusing = &mut state.closing.refusing;
        refusing.iter().position(|refusing| *refusing == id).map(|at| refusing.swap_remove(at));
        state.wake_waiters();
    }

    /// The calling thread is about to end. Drops the thread's handle, so that the system can free the thread's stack; if
    /// the pool is closed, the next thread to leave joins this one instead.
    pub fn thread_leaves(&self) {
        let closed = self.state.lock().closing.closed;
        let id = thread::current().id();
        let mut handles = self.handles.lock();
        let at = handles.unjoined.iter().position(|handle| handle.thread().id() == id);
        // Otherwise another thread is joining this one.
        let Some(own) = at.map(|at| handles.unjoined.swap_remove(at)) else { return };
        if closed {
            if let Some(left) = handles.left.replace(own) {
                self.join(handles, left);
            }
        }
    }

    /// Joins a thread, which may still be in its stop hook or in the destructors of its thread-locals.
    fn join(&self, mut handles: MutexGuard<'_, Handles>, thread: JoinHandle<()>) {
        handles.joining += 1;
        drop(handles);
        // The thread catches all panics, so `join` returns no error.
        let _ = blocking(|| thread.join());
        self.handles.lock().joining -= 1;
        self.state.lock().wake_waiters();
    }

    /// Waits until the closed pool has finished. With `join`, also waits for the ends of the pool's threads, unless the
    /// caller is on one of them. False: the deadline has passed.
    pub fn wait_until_finished(this: &Arc<Self>, deadline: Option<Instant>, join: bool) -> bool {
        let inside = is_thread_of(this);
        let join = join && !inside;
        if let Some(worker) = Worker::of(this) {
            worker.become_exempt();
        }
        let id = thread::current().id();
        let mut state = this.state.lock();
        let is_in_a_drop = state.closing.refusing.contains(&id);
        if is_in_a_drop {
            state.closing.waiting.push(id);
            state.wake_waiters();
        }
        drop(state);
        let finished = poll_until(deadline, |cx| {
            // Register, then look. The waker is there already if an earlier poll or wait has left it.
            let mut state = this.state.lock();
            if !state.closing.waiters.iter().any(|waiter| waiter.will_wake(cx.waker())) {
                state.closing.waiters.push(cx.waker().clone());
            }
            drop(state);
            this.refuse_queued();
            while this.state.lock().has_finished(inside) {
                let mut handles = this.handles.lock();
                let thread = if join { handles.unjoined.pop().or_else(|| handles.left.take()) } else { None };
                match thread {
                    Some(thread) => this.join(handles, thread),
                    None if join && handles.joining > 0 => break,
                    None => return Poll::Ready(()),
                }
            }
            Poll::Pending
        });
        if is_in_a_drop {
            let waiting = &mut this.state.lock().closing.waiting;
            waiting.iter().position(|waiting| *waiting == id).map(|at| waiting.swap_remove(at));
        }
        finished.is_some()
    }
}
