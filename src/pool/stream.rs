//! Streams: sources of items that run in turns on the threads of a pool, and use no thread while their buffer is full.
//!
//! # What it promises
//! A [`Source`] is called by one thread at a time. Its user code runs in the stream's context. When its buffer is full,
//! the stream gives its thread back; when there is room again, the stream goes to the end of the queue. (Except for a
//! generator: its body is one turn, which blocks its thread while the buffer is full. See `iterable/generator.rs`.) A
//! stream ends once: when its items are over, when it panics, when its consumer closes it, or when the pool is closed.
//! Then the iterator is dropped, and after that the consumer is told. A stream that is closed ends without waiting for
//! a free thread.
//!
//! # State machine
//! ```text
//!             resume: a turn is submitted             claim: a thread takes it
//!   PAUSED -------------------------------> QUEUED ------------------------------> RUNNING ---------> ENDED
//!    | ^                                                                           |     ^   its iterator has
//!    | |                  there is no room, or others wait                         |     | been dropped
//!    | +---------------------------------------------------------------------------+     |
//!    |                                                                                   |
//!    |   close, also from QUEUED: the call claims a turn, and submits it with priority   |
//!    |   or ends the stream itself                                                       |
//!    +-----------------------------------------------------------------------------------+
//! ```
//! A new stream is RUNNING on the thread that makes it, and this thread pauses it at once. `woken` says that the stream
//! is to be resumed after its pause, `closed` that the consumer wants no more items: the thread that pauses the stream
//! looks at both. While a stream is RUNNING, the holder of the claimed turn has the source to itself.
//!
//! A stream registers a waker with the [`Stop`] of its pool, under the number [`STREAMS`]. So a shutdown resumes each
//! paused stream, which then ends. After a drain a paused stream ends when it is resumed.
//!
//! # Locks
//! A stream has one lock, for its stage. The pool asks for stages under its own locks. So a thread that submits a turn
//! takes the pool's lock first, and then the stream's.
//!
//! # What can go wrong
//! * The consumer takes an item as the stream pauses: `pause_take`.
//! * A stream finds room again while a job is queued, and keeps its thread: `gives_way_when_there_is_room_again`.
//! * The consumer closes as the stream pauses, is resumed, or ends: `close_pause`, `close_resume`, `close_completion`.
//! * The consumer closes while a turn is running, or while the first turn is queued: `drop_running`, `close_queued`.
//! * The consumer closes as a worker ends a job and claims the stream's turn: `close_as_a_worker_goes_on`.
//! * A paused stream is closed while all threads are busy: `close_pause_while_all_are_busy`.
//! * The same, and new threads wait in the start hook: `close_pause_while_start_hooks_wait`.
//! * A stream is closed while its turn is queued behind a job: `close_queued_again`.
//! * The pool is shut down as the stream pauses, or while an item is made: `shutdown_pause`, `shutdown_stops`.
//! * Two threads shut the pool down while a stream is paused: `two_shutdowns_pause`.
//! * The pool is drained while a turn is queued or runs: `drain_queued`, `drain_running`; by a job: `drain_in_a_job`.
//! * A worker drops an iterator whose `Drop` waits for a queued job: `iterator_whose_drop_waits_for_the_next_job`.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};

use crate::context::Context;
use crate::pool::Shared;
use crate::primitives::cancel::{Running, STREAMS, Stop, run_as};
use crate::primitives::job::{Progress, Queued, Turns};
use crate::primitives::join_error::{JoinError, catch_and_discard};
use crate::primitives::oneshot;
use crate::primitives::waker_map::Key;
use crate::sync::{self, Mutex};

/// Makes the items, and puts them into a buffer.
pub trait Source {
    /// Makes items until the buffer is full, until it has made as many as the buffer can hold, until there are no more,
    /// or until it is to stop. A generator's source runs its whole body in one turn, and blocks while there is no room.
    fn turn(&mut self, stop: &Stop) -> Turn;
    /// Ready if there is room, or if the consumer wants no more. Otherwise the waker is woken later.
    fn poll_room(&mut self, cx: &mut task::Context<'_>) -> Poll<()>;
    /// Whether the user's code has been called.
    fn has_started(&self) -> bool;
    /// Drops the iterator. The items that were made stay in the buffer. Dropping the source tells the consumer that
    /// there will be no more.
    fn drop_iterator(&mut self);
}

/// Why a source has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The buffer is full.
    Full,
    /// The source has made as many items as the buffer can hold, and would make more.
    Enough,
    /// There are no more items, or the consumer wants no more, or the source was stopped.
    Over,
}

/// How a stream has ended. An error other than a panic means that the stream ended early: the pool was closed or had no
/// thread, or the consumer closed the stream.
pub type End = Result<(), JoinError>;

/// See the head.
pub struct Stream {
    shared: sync::Arc<Shared>,
    state: Mutex<State>,
}

struct State {
    stage: Stage,
    woken: bool,
    closed: bool,
    /// `None` while a turn runs, and when the stream has ended.
    parts: Option<Parts>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Paused,
    Queued,
    Running,
    Ended,
}

/// What belongs to the thread that runs the stream.
struct Parts {
    source: Box<dyn Source + Send>,
    context: Context,
    end: oneshot::Sender<End>,
    /// The stream's waker in the pool's `Stop`: a shutdown of the pool wakes the stream.
    watch: Key,
}

impl Stream {
    /// Makes a stream, and queues its first turn. The receiver gets the stream's `End`.
    pub fn start(shared: &sync::Arc<Shared>, source: Box<dyn Source + Send>) -> (Arc<Self>, oneshot::Receiver<End>) {
        let (end, ended) = oneshot::channel();
        let state = State { stage: Stage::Running, woken: true, closed: false, parts: None };
        let this = Arc::new(Self { shared: shared.clone(), state: Mutex::new(state) });
        let watch = shared.stop.register(STREAMS, this.clone().into());
        Self::pause(&this, Parts { source, context: Context::current(), end, watch }, &mut |_| {});
        (this, ended)
    }

    /// Queues a turn, if the stream is paused. If the pool is closed, ends the stream here.
    fn resume(this: &Arc<Self>, tell: &mut dyn FnMut(Progress)) {
        let mut pool = this.shared.state.lock();
        let mut state = this.state.lock();
        state.woken = true;
        if state.stage != Stage::Paused {
            return;
        }
        state.stage = Stage::Queued;
        drop(state);
        let turn = Queued::turn(this.clone());
        if pool.closing.closed {
            drop(pool);
            tell(Progress::UserCode);
            drop(turn);
        } else {
            pool.queue.push([turn]);
            Shared::added(&this.shared, pool);
        }
    }

    /// The consumer wants no more items. If a turn is running, only wakes code that waits for its cancellation: the
    /// thread of that turn ends the stream. Otherwise queues a turn in which the stream ends; but if the pool is
    /// closed, if no worker could run that turn soon, or if no user code has run, ends the stream here.
    pub fn close(this: &Arc<Self>, tell: &mut dyn FnMut(Progress)) {
        let mut pool = this.shared.state.lock();
        let mut state = this.state.lock();
        state.closed = true;
        let stage = state.stage;
        if matches!(stage, Stage::Running | Stage::Ended) {
            drop((state, pool));
            // The code of the stream may be waiting for its cancellation.
            let id = (&**this as &dyn Running).id();
            return this.shared.stop.wake(id..=id);
        }
        state.stage = Stage::Queued;
        let has_started = state.parts.as_ref().is_some_and(|parts| parts.source.has_started());
        drop(state);
        // `None`: a worker has claimed the earlier turn, and will see that the stream is closed.
        let Some(turn) = Queued::turn(this.clone()).claim() else { return };
        // The entry of a turn that was queued before is stale now.
        let purge_is_due = stage == Stage::Queued && pool.queue.add_stale();
        let waiting = pool.queue.priority_len() + 1;
        let left = if has_started && !pool.closing.closed && pool.workers.will_take_priority(waiting, true) {
            pool.queue.push_priority(turn);
            Shared::added(&this.shared, pool);
            None
        } else {
            drop(pool);
            Some(turn)
        };
        if purge_is_due {
            this.shared.purge();
        }
        if let Some(turn) = left {
            tell(Progress::UserCode);
            drop(turn);
        }
    }

    /// The stream gives its thread back. Queues the next turn, if that is due already.
    fn pause(this: &Arc<Self>, parts: Parts, tell: &mut dyn FnMut(Progress)) {
        let mut state = this.state.lock();
        state.parts = Some(parts);
        state.stage = Stage::Paused;
        let State { closed, woken, .. } = *state;
        drop(state);
        if closed {
            Self::close(this, tell);
        } else if woken {
            Self::resume(this, tell);
        }
    }

    /// Takes the parts. Only the holder of the claimed turn calls this.
    fn take_parts(&self) -> Parts {
        let mut state = self.state.lock();
        state.woken = false;
        match state.parts.take() {
            Some(parts) => parts,
            None => unreachable!("they are there when a turn is queued"),
        }
    }

    /// Runs user code in the stream's context. To [`is_cancelled`](crate::is_cancelled) this is the code of a job.
    fn inside<R>(&self, parts: &mut Parts, work: impl FnOnce(&mut dyn Source) -> R) -> Result<R, JoinError> {
        let Parts { source, context, .. } = parts;
        catch_unwind(AssertUnwindSafe(|| run_as(self, || context.within(|| work(&mut **source)))))
            .map_err(JoinError::caught)
    }

    /// Makes items until the stream is to pause (`None`), or until it has ended.
    fn make_items(&self, parts: &mut Parts, waker: &Waker) -> Option<End> {
        loop {
            let turn = match self.inside(parts, |source| source.turn(&self.shared.stop)) {
                Ok(turn) => turn,
                Err(error) => return Some(Err(error)),
            };
            if turn == Turn::Over {
                let stopped = self.shared.stop.is_set() && !self.state.lock().closed;
                // If the source was told to stop, there may be more items: the end is an error.
                return Some(if stopped { Err(JoinError::Cancelled) } else { Ok(()) });
            }
            let pool = self.shared.state.lock();
            let (closed, others_wait) = (pool.closing.closed, pool.queue.len() > 0 || pool.workers.has_surplus());
            drop(pool);
            if closed {
                return Some(Err(JoinError::Cancelled));
            }
            if turn == Turn::Full && parts.source.poll_room(&mut task::Context::from_waker(waker)).is_pending() {
                return None;
            }
            if others_wait {
                // To the end of the queue.
                self.state.lock().woken = true;
                return None;
            }
        }
    }

    /// Drops the iterator, and sends the stream's end.
    fn end(&self, mut parts: Parts, end: End, tell: &mut dyn FnMut(Progress)) {
        let dropped = self.inside(&mut parts, |source| source.drop_iterator());
        let end = match (end, dropped) {
            // If both panicked, the first panic counts.
            (Err(JoinError::Panicked(panic)), dropped) => {
                catch_and_discard(|| drop(dropped));
                Err(JoinError::Panicked(panic))
            }
            (end, dropped) => dropped.and(end),
        };
        self.state.lock().stage = Stage::Ended;
        let Parts { source, end: sender, context, watch } = parts;
        drop(self.shared.stop.withdraw(watch));
        drop(context);
        tell(Progress::TurnOver);
        tell(Progress::UserCode);
        // `send` wakes a consumer that waits for the end; the drop of the source wakes one that waits for an item.
        catch_and_discard(|| drop(sender.send(end)));
        catch_and_discard(|| drop(source));
    }
}

impl Turns for Stream {
    fn claim_turn(&self) -> bool {
        let mut state = self.state.lock();
        let is_queued = state.stage == Stage::Queued;
        if is_queued {
            state.stage = Stage::Running;
        }
        is_queued
    }

    fn is_turn_claimed(&self) -> bool {
        self.state.lock().stage != Stage::Queued
    }

    fn run_turn(self: Arc<Self>, tell: &mut dyn FnMut(Progress)) {
        let mut parts = self.take_parts();
        let waker = self.clone().into();
        if let Some(end) = self.make_items(&mut parts, &waker) {
            self.end(parts, end, tell);
        } else {
            tell(Progress::TurnOver);
            Self::pause(&self, parts, tell);
        }
    }

    fn refuse_turn(&self, error: JoinError) {
        self.end(self.take_parts(), Err(error), &mut |_| {});
    }
}

impl Running for Stream {
    fn is_cancelled(&self) -> bool {
        self.state.lock().closed || self.shared.stop.is_set()
    }

    fn stop(&self) -> &Stop {
        &self.shared.stop
    }
}

impl Wake for Stream {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Self::resume(self, &mut |_| {});
    }
}
