//! What a pool knows and decides.
//!
//! # Two trays
//! Submitters put jobs into the in-tray, and workers take them from the out-tray; when that is empty, they swap the two. So
//! while there is much to do, submitters and workers do not meet at every job. Each tray has a lock of its own. That of the
//! in-tray, [`State`], also guards every count and the list of idle workers, and *call one, start one, or leave it* is
//! decided under it; that of the out-tray, [`Out`], guards besides what a worker needs to go on with the next job at once.
//! Who needs both takes that of the out-tray first. Jobs move, or leave the trays unclaimed, under both alone: so who has
//! `State` alone knows how many jobs there are at most, which is enough to decide that somebody is needed.
//!
//! Turns of streams wait among the jobs, and count nowhere; but one that is only to drop its iterator, since its consumer waits
//! for that, stands in a queue of its own, `urgent`, which comes first, and gets a thread even if `size` workers are active.
//!
//! # Counts
//! A worker is *idle* (it sleeps, and stands in `idle`), *blocked* (its job sleeps in a blocking call of this crate), or
//! *active*: it runs a job, looks for one, or is about to start. Jobs are taken only while there are not more active workers
//! than `size`; so when blocked ones come back, the surplus ends as soon as its jobs have.
//!
//! # The invariant
//! Each job that waits has somebody who will take it, or nobody could: after every step under the lock of `State`,
//!
//! * `coming` is set: a worker has been called, and will look round when it arrives; or
//! * there are at least as many workers `looking` or `starting` as jobs that wait; or
//! * `size` workers are active: the first that ends its job takes the next; that is not enough for what is urgent; or
//! * nobody is idle, and there is no room for one more thread, or the system has just refused one. Then what is urgent is
//!   given back, and done by whoever brought it.
//!
//! [`State::next`] restores it. Whoever adds a job, takes one after a sleep, blocks, or stops looking calls it.
//!
//! Workers are called one at a time, and the one that arrives calls the next: several that wake up at once would only
//! get into each other's way, and when jobs are short, the first has often done them all by then.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;
use std::{iter, mem};

use crate::pool::{PoolStats, Shared};
use crate::primitives::job::{Ended, Kind, Queued, Started};
use crate::primitives::share::Share;
use crate::sync::Arc;
use crate::sync::atomic::AtomicU8;
use crate::sync::atomic::Ordering::Relaxed;

/// With fewer jobs than this, stale ones stay in the queue until their turn comes.
const FEW: usize = 32;

/// What workers need to go from one job to the next.
#[derive(Default)]
pub struct Out {
    tray: VecDeque<Queued>,
    /// How many jobs have been taken, in all.
    taken: u64,
    turns_taken: u64,
    ended: EndedJobs,
    /// More workers are active than may be: some have come back from blocking.
    surplus: bool,
}

/// How many have ended, in all.
#[derive(Clone, Copy, Default)]
struct EndedJobs {
    succeeded: u64,
    panicked: u64,
    turns: u64,
}

impl EndedJobs {
    fn add(&mut self, how: Ended) {
        match how {
            Ended::Succeeded => self.succeeded += 1,
            Ended::Panicked => self.panicked += 1,
            Ended::Turn => self.turns += 1,
        }
    }
}

/// How a worker's job has ended, from before its handle resolves until the worker comes to the out-tray for the next one, and
/// has this [booked](Out::book). So it locks that once for each job.
#[derive(Debug, Default)]
pub struct Unbooked(AtomicU8);

impl Unbooked {
    const SUCCEEDED: u8 = 1;
    const PANICKED: u8 = 2;
    const TURN: u8 = 3;

    /// For the worker itself. The job before has been booked.
    pub fn set(&self, how: Ended) {
        let how = match how {
            Ended::Succeeded => Self::SUCCEEDED,
            Ended::Panicked => Self::PANICKED,
            Ended::Turn => Self::TURN,
        };
        // ORDERING: Relaxed: nobody else writes it, and who has seen the job's result sees it.
        self.0.store(how, Relaxed);
    }

    fn get(&self) -> Option<Ended> {
        // ORDERING: Relaxed: as above; and it is booked under the lock of the out-tray, which the caller has.
        match self.0.load(Relaxed) {
            Self::SUCCEEDED => Some(Ended::Succeeded),
            Self::PANICKED => Some(Ended::Panicked),
            Self::TURN => Some(Ended::Turn),
            _ => None,
        }
    }
}

/// See the head.
pub struct State {
    /// The in-tray.
    tray: VecDeque<Queued>,
    submitted: u64,
    /// How many jobs there are in the out-tray at most.
    out: usize,
    /// Turns for which somebody waits.
    urgent: VecDeque<Queued>,
    /// How many turns of streams have been submitted, but for those that were withdrawn.
    stream_turns: u64,
    /// How many workers are about to look at the trays.
    looking: usize,
    /// How many threads are about to start, and then to look at the trays.
    starting: usize,
    /// Those who sleep and have not been called, the last to go idle at the end.
    idle: Vec<(WorkerId, Waker)>,
    /// How many workers there are: idle, blocked and active.
    threads: usize,
    blocked: usize,
    /// How many workers may be active.
    size: usize,
    /// A worker has been called and has not arrived yet.
    coming: bool,
    closed: bool,
    /// How many threads there may be, blocked ones included.
    most: usize,
    /// How many jobs in the trays have been claimed by somebody else, at most.
    stale: usize,
    cancelled: u64,
    /// How many jobs have been claimed to be run, but not through a tray.
    passed: u64,
    waited: Duration,
    busy: Duration,
    /// How many threads are no workers any more, but have not ended yet.
    leaving: usize,
    /// How many workers have a job, or look for the next one.
    turns: usize,
    /// How many of these wait for the others to finish.
    callers: usize,
    /// How many threads are refusing jobs.
    refusing: usize,
    /// Those who wait for a closed pool to finish.
    closers: Vec<Waker>,
    named: u64,
    /// What the workers have not had booked.
    unbooked: Vec<(WorkerId, Arc<Unbooked>)>,
    /// A share of the pool, which gives one to each job. `None` if the pool is closed: what keeps itself in memory never ends.
    pub share: Option<Share<Shared>>,
}

/// Tells the workers of a pool apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerId(u64);

/// What a worker has done before it looks at the trays, and so as what it was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// It was idle, and has been called.
    Call,
    /// It has had a job, or has started.
    Turn(Counted),
}

/// As what a worker is counted while it has its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Among those who start.
    pub starting: bool,
    /// Among those who look.
    pub looking: bool,
    /// Among those whose jobs wait for the pool to finish.
    pub caller: bool,
}

/// What a worker does next.
#[must_use]
pub enum Look {
    Run(Started, Next),
    /// There is nothing to do.
    Rest,
    /// There is nothing to do, and the thread is not needed any more.
    End(Closers),
}

/// Who is to take the jobs that wait. To be acted upon when the lock is free.
#[must_use = "a job may be waiting for it"]
pub enum Next {
    /// Somebody will, or nobody can.
    Leave,
    /// The idle worker to call.
    Call(Waker),
    /// How many threads to start.
    Start(usize),
}

/// Those who are to be woken when the lock is free.
#[must_use = "they are to be woken"]
pub struct Closers(Vec<Waker>);

impl Closers {
    pub fn wake(self) {
        for waker in self.0 {
            waker.wake();
        }
    }
}

impl Out {
    /// The next job.
    fn take(&mut self) -> Option<Started> {
        while let Some(job) = self.tray.pop_front() {
            // A stale one that is dropped here runs nothing of the user's.
            if let Some(job) = job.start() {
                self.has_taken(&job);
                return Some(job);
            }
        }
        None
    }

    fn has_taken(&mut self, job: &Started) {
        match job.kind() {
            Kind::Job => self.taken += 1,
            Kind::Turn => self.turns_taken += 1,
        }
    }

    /// The next job for a worker that has just had one, if there is no more to it than that.
    pub fn take_another(&mut self) -> Option<Started> {
        if self.surplus { None } else { self.take() }
    }

    /// Whether there are jobs, as far as anybody knows.
    pub fn has_more(&self) -> bool {
        !self.tray.is_empty()
    }

    /// A job has ended that was run where it was waited for.
    pub fn ended(&mut self, how: Ended) {
        self.ended.add(how);
    }

    /// Counts the caller's last job.
    pub fn book(&mut self, unbooked: &Unbooked) {
        if let Some(how) = unbooked.get() {
            self.ended.add(how);
            // ORDERING: Relaxed: who reads it has the lock.
            unbooked.0.store(0, Relaxed);
        }
    }
}

impl State {
    pub fn new(size: usize, most: usize) -> Self {
        Self {
            tray: VecDeque::new(),
            submitted: 0,
            out: 0,
            urgent: VecDeque::new(),
            stream_turns: 0,
            looking: 0,
            starting: 0,
            idle: Vec::new(),
            threads: 0,
            blocked: 0,
            size,
            coming: false,
            closed: false,
            most,
            stale: 0,
            cancelled: 0,
            passed: 0,
            waited: Duration::ZERO,
            busy: Duration::ZERO,
            leaving: 0,
            turns: 0,
            callers: 0,
            refusing: 0,
            closers: Vec::new(),
            named: 0,
            unbooked: Vec::new(),
            share: None,
        }
    }

    pub fn stats(&self, out: &Out) -> PoolStats {
        let ended = self.ended(out);
        PoolStats {
            threads: self.threads,
            idle: self.idle.len(),
            queued: self.queued(out),
            submitted: self.submitted,
            succeeded: ended.succeeded,
            panicked: ended.panicked,
            cancelled: self.cancelled,
            busy: self.busy,
            waited: self.waited,
        }
    }

    /// How many jobs wait. One that is being cancelled may still count.
    fn queued(&self, out: &Out) -> usize {
        // It fits: each of them has an allocation.
        usize::try_from(self.submitted - self.cancelled - self.passed - out.taken).unwrap_or(usize::MAX)
    }

    /// How many have ended, those included that are not booked.
    fn ended(&self, out: &Out) -> EndedJobs {
        let mut ended = out.ended;
        self.unbooked.iter().filter_map(|(_, unbooked)| unbooked.get()).for_each(|how| ended.add(how));
        ended
    }

    /// How many jobs a closed pool still waits for. From inside, those that wait themselves do not count.
    pub fn running(&self, out: &Out, inside: bool) -> usize {
        if inside {
            // More call than have a turn if a thread that ends does.
            return self.turns.saturating_sub(self.callers);
        }
        let ended = self.ended(out);
        let jobs = out.taken + self.passed - ended.succeeded - ended.panicked;
        usize::try_from(jobs + out.turns_taken - ended.turns).unwrap_or(usize::MAX)
    }

    // Jobs.

    /// Adds a job, or gives it back if the pool is closed: then it is to be dropped, and has been counted as cancelled.
    pub fn submit(&mut self, job: Queued) -> Result<Next, Queued> {
        self.submitted += 1;
        if self.closed {
            self.cancelled += 1;
            return Err(job);
        }
        self.tray.push_back(job);
        Ok(self.next())
    }

    /// The same for many.
    pub fn submit_many(&mut self, jobs: Vec<Queued>) -> Result<Next, Vec<Queued>> {
        self.submitted += jobs.len() as u64;
        if self.closed {
            self.cancelled += jobs.len() as u64;
            return Err(jobs);
        }
        self.tray.extend(jobs);
        Ok(self.next())
    }

    /// A job that was submitted has been claimed by somebody who will not run it. Whether [`tidy`](Self::tidy) is due.
    #[must_use]
    pub fn cancelled(&mut self) -> bool {
        self.cancelled += 1;
        self.has_gone_stale();
        self.closed || self.has_many_stale()
    }

    /// A job that was submitted has been claimed to be run, but not through a tray. Whether [`tidy`](Self::tidy) is due.
    #[must_use]
    pub fn passed(&mut self) -> bool {
        self.passed += 1;
        self.has_gone_stale();
        self.has_many_stale()
    }

    fn has_gone_stale(&mut self) {
        self.stale += 1;
        // Often it is one of the last. Who waits for a job usually has just submitted it.
        while self.tray.back().is_some_and(Queued::is_stale) {
            self.tray.pop_back();
            // The one who claimed it may not have come here yet.
            self.stale = self.stale.saturating_sub(1);
        }
    }

    fn has_many_stale(&self) -> bool {
        self.stale > FEW && 2 * self.stale > self.tray.len() + self.out
    }

    /// Throws out stale jobs, if they are half of all: so that costs each of them one look or two.
    pub fn tidy(&mut self, out: &mut Out) -> Closers {
        if self.has_many_stale() {
            for tray in [&mut self.tray, &mut out.tray] {
                tray.retain(|job| !job.is_stale());
                tray.shrink_to(2 * tray.len());
            }
            self.out = out.tray.len();
            self.stale = 0;
        }
        self.closers(out)
    }

    // Streams.

    /// Adds a stream's turn, or gives it back if the pool is closed.
    pub fn submit_turn(&mut self, turn: Queued) -> Result<Next, Queued> {
        if self.closed {
            return Err(turn);
        }
        self.stream_turns += 1;
        self.tray.push_back(turn);
        Ok(self.next())
    }

    /// Adds a turn that is not to wait for a worker to be free, or gives it back if there is nobody to run it. `again`: beside
    /// the one that waits already; whichever comes first is the one.
    pub fn submit_urgent(&mut self, turn: Queued, again: bool) -> Result<Next, Queued> {
        // One that is about to look does not count: it may have to do something else first.
        let can_come = usize::from(self.coming) + self.starting + self.idle.len();
        if self.closed || self.urgent.len() >= can_come + self.most - self.threads {
            return Err(turn);
        }
        if again {
            self.has_gone_stale();
        } else {
            self.stream_turns += 1;
        }
        self.urgent.push_back(turn);
        Ok(self.next())
    }

    /// A turn that was submitted has been claimed by somebody who is no worker. Whether [`tidy`](Self::tidy) is due.
    #[must_use]
    pub fn withdrawn(&mut self) -> bool {
        self.stream_turns -= 1;
        self.has_gone_stale();
        self.closed || self.has_many_stale()
    }

    /// Whether a stream has to let others have its worker.
    pub fn others_wait(&self) -> bool {
        self.tray.len() + self.out + self.urgent.len() > 0 || self.active() > self.size
    }

    /// The next turn for which somebody waits.
    fn take_urgent(&mut self, out: &mut Out) -> Option<Started> {
        let turn = iter::from_fn(|| self.urgent.pop_front()).find_map(Queued::start)?;
        out.has_taken(&turn);
        Some(turn)
    }

    /// Adds the times of a job that has ended.
    pub fn add_times(&mut self, waited: Duration, busy: Duration) {
        self.waited += waited;
        self.busy += busy;
    }

    /// All jobs that wait, claimed and counted as cancelled, for the caller to [refuse](Self::refused). (One at a time would
    /// not do: as one is dropped, the user's code may wait for the pool to finish, and so for the others.)
    pub fn take_all(&mut self, out: &mut Out) -> Vec<Started> {
        (self.out, self.stale) = (0, 0);
        let trays = [mem::take(&mut self.urgent), mem::take(&mut out.tray), mem::take(&mut self.tray)];
        self.claim_all(trays.into_iter().flatten())
    }

    fn claim_all(&mut self, queued: impl Iterator<Item = Queued>) -> Vec<Started> {
        let claimed: Vec<_> = queued.filter_map(Queued::start).collect();
        let jobs = claimed.iter().filter(|claimed| claimed.kind() == Kind::Job).count();
        self.cancelled += jobs as u64;
        self.stream_turns -= (claimed.len() - jobs) as u64;
        self.refusing += 1;
        claimed
    }

    /// What [`take_all`](Self::take_all) gave has been refused.
    pub fn refused(&mut self, out: &Out) -> Closers {
        self.refusing -= 1;
        self.closers(out)
    }

    // Workers.

    fn active(&self) -> usize {
        self.threads - self.idle.len() - self.blocked
    }

    /// Restores the invariant.
    pub fn next(&mut self) -> Next {
        let urgent = self.urgent.len();
        let left = (self.tray.len() + self.out + urgent).saturating_sub(self.looking);
        // For what is urgent, a spare one if nobody is about to look: it calls the next.
        let spare = usize::from(urgent > 0 && self.looking + self.starting == 0);
        let room = self.size.saturating_sub(self.active()).max(spare);
        if self.coming || left == 0 || room == 0 {
            return Next::Leave;
        }
        if let Some((_, waker)) = self.idle.pop() {
            self.coming = true;
            return Next::Call(waker);
        }
        let starts = left.saturating_sub(self.starting).min(room).min(self.most - self.threads);
        if starts == 0 {
            return Next::Leave;
        }
        self.threads += starts;
        self.starting += starts;
        self.turns += starts;
        Next::Start(starts)
    }

    /// The thread that was to be started could not be. Gives back the jobs that nobody will ever take, or not soon enough.
    pub fn not_started(&mut self, out: &mut Out) -> (Option<Vec<Started>>, Next, Closers) {
        self.starting -= 1;
        self.turns -= 1;
        self.threads -= 1;
        let nobody_comes = !self.coming && self.idle.is_empty() && self.looking + self.starting < self.urgent.len();
        let orphans = if self.threads == 0 {
            Some(self.take_all(out))
        } else if nobody_comes {
            let urgent = mem::take(&mut self.urgent);
            Some(self.claim_all(urgent.into_iter()))
        } else {
            None
        };
        // Not another attempt: it might go on like that for ever.
        let next = if self.idle.is_empty() { Next::Leave } else { self.next() };
        (orphans, next, self.closers(out))
    }

    /// A worker has started.
    pub fn name(&mut self, unbooked: Arc<Unbooked>) -> WorkerId {
        self.named += 1;
        self.unbooked.push((WorkerId(self.named), unbooked));
        WorkerId(self.named)
    }

    /// What a worker is to do.
    pub fn look(&mut self, out: &mut Out, since: Since) -> Look {
        match since {
            Since::Call => self.coming = false,
            Since::Turn(counted) => {
                self.will_take_long(counted);
                self.callers -= usize::from(counted.caller);
                self.turns -= 1;
            }
        }
        let urgent = self.take_urgent(out);
        if let Some(turn) = urgent {
            self.turns += 1;
            out.surplus = self.active() > self.size;
            return Look::Run(turn, self.next());
        }
        if self.active() <= self.size {
            let mut job = out.take();
            if job.is_none() && !self.tray.is_empty() {
                mem::swap(&mut self.tray, &mut out.tray);
                job = out.take();
            }
            self.out = out.tray.len();
            if let Some(job) = job {
                self.turns += 1;
                return Look::Run(job, self.next());
            }
        }
        // A thread that was started in the place of a blocked one ends when that one is back.
        if !self.closed && self.threads - self.blocked <= self.size {
            return Look::Rest;
        }
        self.threads -= 1;
        self.leaving += 1;
        out.surplus = self.active() > self.size;
        Look::End(self.closers(out))
    }

    /// A worker that found nothing to do goes to sleep.
    pub fn rest(&mut self, out: &mut Out, worker: WorkerId, waker: Waker) {
        self.idle.push((worker, waker));
        out.surplus = self.active() > self.size;
    }

    pub fn is_idle(&self, worker: WorkerId) -> bool {
        self.idle.iter().any(|&(idle, _)| idle == worker)
    }

    /// A worker's time is up. `None`: but it has been called. Otherwise its waker, to be dropped.
    pub fn expire(&mut self, worker: WorkerId) -> Option<Waker> {
        let at = self.idle.iter().position(|&(idle, _)| idle == worker)?;
        let (_, waker) = self.idle.remove(at);
        self.threads -= 1;
        self.leaving += 1;
        Some(waker)
    }

    /// A worker is about to look at the queue.
    pub fn will_look(&mut self) {
        self.looking += 1;
    }

    /// A worker that was about to look at the trays does something else first.
    pub fn will_not_look(&mut self, counted: Counted) -> Next {
        self.will_take_long(counted);
        self.next()
    }

    fn will_take_long(&mut self, counted: Counted) {
        self.starting -= usize::from(counted.starting);
        self.looking -= usize::from(counted.looking);
    }

    /// A worker's job goes to sleep.
    pub fn block(&mut self, counted: Counted) -> Next {
        self.blocked += 1;
        self.will_not_look(counted)
    }

    /// It is awake again.
    pub fn unblock(&mut self, out: &mut Out) {
        self.blocked -= 1;
        out.surplus = self.active() > self.size;
    }

    // Closing.

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// No more jobs are taken in. Those who are idle are to be called, to take what is left, or to end; and the pool's own
    /// share is to be dropped when the lock is free.
    #[must_use = "they are to be called"]
    pub fn close(&mut self) -> (Vec<Waker>, Option<Share<Shared>>) {
        self.closed = true;
        (mem::take(&mut self.idle).into_iter().map(|(_, waker)| waker).collect(), self.share.take())
    }

    /// The code of a worker's job is going to wait for the pool to finish.
    pub fn call(&mut self, out: &Out) -> Closers {
        self.callers += 1;
        self.closers(out)
    }

    /// A thread ends, whose stop hook may have waited for the pool to finish.
    pub fn left(&mut self, out: &Out, worker: WorkerId, caller: bool) -> Closers {
        self.unbooked.retain(|&(other, _)| other != worker);
        self.leaving -= 1;
        self.callers -= usize::from(caller);
        self.closers(out)
    }

    /// Whether a closed pool has finished, but for jobs that are being refused. From inside, those whose jobs wait for just
    /// that do not count.
    pub fn has_finished(&self, out: &Out, inside: bool) -> bool {
        let queued = self.queued(out) as u64 + self.stream_turns - out.turns_taken;
        queued == 0 && if inside { self.turns <= self.callers } else { self.threads + self.leaving == 0 }
    }

    /// Whether some thread is refusing jobs.
    pub fn is_refusing(&self) -> bool {
        self.refusing > 0
    }

    /// Whom to wake when the pool has finished.
    pub fn wait(&mut self, waker: Waker) {
        // It may have waited before, and have given up.
        if !self.closers.iter().any(|closer| closer.will_wake(&waker)) {
            self.closers.push(waker);
        }
    }

    fn closers(&mut self, out: &Out) -> Closers {
        // Whoever waits from outside is woken for nothing now and then, and waits again.
        let finished = self.closed && (self.has_finished(out, true) || self.has_finished(out, false));
        Closers(if finished { mem::take(&mut self.closers) } else { Vec::new() })
    }
}
