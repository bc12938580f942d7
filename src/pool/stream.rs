//! Streams: what makes one item after the other on a thread of a pool, and gives the thread back while there is no room.
//!
//! # What it promises
//! A [`Source`] is called by one thread at a time, in its own context. While its buffer is full no thread waits with it,
//! but for a moment if its consumer has been quick; when there is room again, it comes to the end of the queue. It ends
//! once: when it says so, when it panics, when its consumer closes it, or when the pool is closed. Then its iterator is
//! dropped, and only after that the consumer is told. A close does not wait for a thread to be free. A thread that does
//! something of the user's is not counted on for others.
//!
//! # State machine
//! ```text
//!             resume: a turn is submitted             start: a thread takes it
//!   PAUSED -------------------------------> QUEUED -----------------------------> RUNNING ---------> ENDED
//!      ^                                                                          |     ^   its iterator has
//!      |                  there is no room, or others wait                        |     | been dropped
//!      +--------------------------------------------------------------------------+     |
//!      |                                                                                |
//!      +--- close, also from QUEUED: an urgent turn is submitted; if nobody could run that, the closing call ends it
//! ```
//! `woken` says that `resume` came while it was RUNNING, and `closed` that the consumer wants no more: whoever pauses it
//! then looks at both. Who goes to RUNNING has the source alone, until it goes on from there.
//!
//! # Locks
//! A stream has one lock, for its stage. Whoever submits a turn, or takes one back, holds the pool's as well, so that what
//! is counted there and what the stage says agree. The pool asks stages while it holds its locks: so they come first.
//!
//! # What can go wrong
//! * The consumer takes an item just as the stream pauses: `pause_take`; while a job waits: `gives_way_when_there_is_room_again`.
//! * It closes as the stream pauses: `close_pause`; as it is resumed: `close_resume`; as it ends: `close_completion`; while a
//!   turn is running: `drop_running`; while its first turn is queued: `close_queued`; as a worker comes to that:
//!   `close_as_a_worker_goes_on`.
//! * It is closed while all threads are busy, and it is paused: `close_pause_while_all_are_busy`; or queued:
//!   `close_queued_again`.
//! * The pool is shut down as the stream pauses: `shutdown_pause`; while an item is made: `shutdown_stops`.
//! * It is drained while a turn is queued: `drain_queued`; by a job: `drain_in_a_job`; while the consumer keeps up:
//!   `drain_running`; or it has just been closed, and the iterator is dropped where it pauses:
//!   `iterator_whose_drop_waits_for_the_next_job`.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};
use std::time::Instant;

use crate::context::Context;
use crate::pool::Shared;
use crate::primitives::job::{
    self, Ended, JoinError, Panic, Queued, Running, Started, Stop, Turns, Worker, contain, within,
};
use crate::primitives::oneshot;
use crate::primitives::parker::Patience;
use crate::primitives::share::Share;
use crate::sync::Mutex;

/// What makes the items, and where it puts them.
pub trait Source: Send {
    /// Makes items, until there is no room, or it has made as many as there may be room for, or there are no more, or it is to
    /// stop.
    fn turn(&mut self, stop: &Stop) -> Turn;
    /// Ready if there is room, or if nobody wants any more.
    fn room(&mut self) -> Poll<()>;
    /// As `room`, and a wake-up otherwise.
    fn poll_room(&mut self, cx: &mut task::Context<'_>) -> Poll<()>;
    /// Whether the user's code has been called.
    fn has_started(&self) -> bool;
    /// Drops the iterator. The items that were made stay; dropping the source tells the consumer that there will be no more.
    fn drop_iterator(&mut self);
}

/// Why a source has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is no room.
    Full,
    /// It has made a number of items, and would make more.
    Enough,
    /// There are no more items, or nobody wants them, or it was stopped.
    Over,
}

/// How a stream has ended. An error other than a panic: early, since the pool was closed or had no thread.
pub type End = Result<(), JoinError>;

/// See the head.
pub struct Stream {
    shared: Share<Shared>,
    state: Mutex<State>,
}

struct State {
    stage: Stage,
    woken: bool,
    closed: bool,
    /// `None` while it runs, and when it has ended.
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
    source: Box<dyn Source>,
    context: Context,
    end: oneshot::Sender<End>,
    patience: Patience,
    /// Since when it waits for room.
    full_since: Option<Instant>,
}

impl Stream {
    /// Queues the first turn. The receiver tells how it has ended.
    pub fn start(shared: &Share<Shared>, source: Box<dyn Source>) -> (Arc<Self>, oneshot::Receiver<End>) {
        let (end, ended) = oneshot::channel();
        // As if it had run already, so that nobody else submits a turn before all is there.
        let state = State { stage: Stage::Running, woken: true, closed: false, parts: None };
        let this = Arc::new(Self { shared: shared.clone(), state: Mutex::new(state) });
        shared.stop.add_stream(this.id(), this.clone().into());
        let context = Context::current();
        // If the pool is closed, this ends it.
        drop(Self::pause(&this, Parts { source, context, end, patience: Patience::NEW, full_since: None }));
        (this, ended)
    }

    fn id(&self) -> job::JobId {
        (self as &dyn Running).id()
    }

    /// Has it go on, if it is paused. If the pool is closed, gives back the turn: to drop that ends the stream.
    fn resume(this: &Arc<Self>) -> Option<Started> {
        let mut pool = this.shared.state.lock();
        let mut state = this.state.lock();
        state.woken = true;
        if state.stage != Stage::Paused {
            return None;
        }
        state.stage = Stage::Queued;
        drop(state);
        match pool.submit_turn(Queued::turn(this.clone())) {
            Ok(next) => {
                drop(pool);
                Shared::go_on(&this.shared, next);
                None
            }
            Err(turn) => turn.start(),
        }
    }

    /// Has it end: its consumer wants no more. Does not wait for that.
    pub fn close(this: &Arc<Self>) {
        // If nobody else does, this call ends it.
        drop(Self::submit_end(this));
    }

    /// Submits the turn in which it ends. If nobody could run that, gives it back: to drop it ends the stream.
    fn submit_end(this: &Arc<Self>) -> Option<Started> {
        let mut pool = this.shared.state.lock();
        let mut state = this.state.lock();
        state.closed = true;
        let stage = state.stage;
        if matches!(stage, Stage::Running | Stage::Ended) {
            drop((state, pool));
            // It may be waiting for just that.
            this.shared.stop.wake(this.id());
            return None;
        }
        state.stage = Stage::Queued;
        let has_started = state.parts.as_ref().is_some_and(|parts| parts.source.has_started());
        drop(state);
        let was_queued = stage == Stage::Queued;
        let turn = Queued::turn(this.clone());
        let turn = match if has_started { pool.submit_urgent(turn, was_queued) } else { Err(turn) } {
            Ok(next) => {
                drop(pool);
                Shared::go_on(&this.shared, next);
                return None;
            }
            Err(turn) => turn.start(),
        };
        let tidy = was_queued && turn.is_some() && pool.withdrawn();
        drop(pool);
        if tidy {
            this.shared.tidy();
        }
        turn
    }

    /// It gives its thread back. If it is to go on, or to end, at once, and nobody could run that: gives back the turn.
    #[must_use]
    fn pause(this: &Arc<Self>, parts: Parts) -> Option<Started> {
        let mut state = this.state.lock();
        state.parts = Some(parts);
        state.stage = Stage::Paused;
        let State { closed, woken, .. } = *state;
        drop(state);
        if closed {
            Self::submit_end(this)
        } else if woken {
            Self::resume(this)
        } else {
            None
        }
    }

    /// Takes the parts, for the thread that has taken the turn.
    fn take_parts(&self) -> Parts {
        let mut state = self.state.lock();
        state.woken = false;
        match state.parts.take() {
            Some(parts) => parts,
            None => unreachable!("they are there when a turn is queued"),
        }
    }

    /// Runs the user's code in `work`: in its context, and as that of a running job.
    fn inside<R>(&self, parts: &mut Parts, work: impl FnOnce(&mut dyn Source) -> R) -> Result<R, JoinError> {
        let Parts { source, context, .. } = parts;
        catch_unwind(AssertUnwindSafe(|| within(self, || context.within(|| work(&mut **source)))))
            .map_err(|payload| JoinError::Panicked(Panic::new(payload)))
    }

    /// Makes items until it is to give its thread back. `Some`: until it has ended, and how.
    fn run_turn(&self, parts: &mut Parts, waker: &Waker) -> Option<End> {
        if let Some(since) = parts.full_since.take() {
            parts.patience.after_sleep(since.elapsed(), true);
        }
        loop {
            let turn = match self.inside(parts, |source| source.turn(&self.shared.stop)) {
                Ok(turn) => turn,
                Err(error) => return Some(Err(error)),
            };
            if turn == Turn::Over {
                let stopped = self.shared.stop.is_set() && !self.state.lock().closed;
                // It may have ended since it was told to stop: that is no end.
                return Some(if stopped { Err(JoinError::Cancelled) } else { Ok(()) });
            }
            let pool = self.shared.state.lock();
            let (is_closed, others_wait) = (pool.is_closed(), pool.others_wait());
            drop(pool);
            if is_closed {
                return Some(Err(JoinError::Cancelled));
            }
            if turn == Turn::Full {
                let since = Instant::now();
                let Parts { source, patience, full_since, .. } = parts;
                let room = || source.room().is_ready().then_some(());
                let has_room = !others_wait && patience.linger(since, None, room).is_some();
                if !has_room && source.poll_room(&mut task::Context::from_waker(waker)).is_pending() {
                    *full_since = (!others_wait).then_some(since);
                    return None;
                }
            }
            if others_wait {
                // To the end of the queue.
                self.state.lock().woken = true;
                return None;
            }
        }
    }

    /// Drops the iterator, and says how the stream has ended.
    fn end(&self, mut parts: Parts, end: End, mut worker: Option<&mut dyn Worker>) {
        let dropped = self.inside(&mut parts, |source| source.drop_iterator());
        let end = match (end, dropped) {
            // Of two panics, the first.
            (Err(JoinError::Panicked(panic)), dropped) => {
                contain(|| drop(dropped));
                Err(JoinError::Panicked(panic))
            }
            (end, dropped) => dropped.and(end),
        };
        self.shared.stop.remove_stream(self.id());
        self.state.lock().stage = Stage::Ended;
        let Parts { source, end: sender, context, .. } = parts;
        drop(context);
        if let Some(worker) = &mut worker {
            worker.ended(Ended::Turn);
        }
        // These wake whoever waits for the end, and then whoever waits for an item.
        let mut unwanted = None;
        contain(|| unwanted = sender.send(end).err());
        contain(|| drop(source));
        if let Some(end) = unwanted {
            if let Some(worker) = worker {
                worker.busy();
            }
            contain(|| drop(end));
        }
    }
}

impl Turns for Stream {
    fn start(&self) -> bool {
        let mut state = self.state.lock();
        let is_queued = state.stage == Stage::Queued;
        if is_queued {
            state.stage = Stage::Running;
        }
        is_queued
    }

    fn is_stale(&self) -> bool {
        self.state.lock().stage != Stage::Queued
    }

    fn run(this: &Arc<Self>, worker: &mut dyn Worker) {
        let mut parts = this.take_parts();
        let waker = this.clone().into();
        if let Some(end) = this.run_turn(&mut parts, &waker) {
            this.end(parts, end, Some(worker));
        } else {
            worker.ended(Ended::Turn);
            if let Some(turn) = Self::pause(this, parts) {
                worker.busy();
                drop(turn);
            }
        }
    }

    fn refuse(&self, error: JoinError) {
        self.end(self.take_parts(), Err(error), None);
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
        // If the pool is closed, this call ends it.
        drop(Self::resume(self));
    }
}
