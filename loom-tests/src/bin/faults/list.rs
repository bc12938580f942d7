//! The faults that are written by hand, and the weakened orderings that no model can catch.
//!
//! Weakened orderings are not listed here: `scan.rs` finds every one of them in the source.
//!
//! To add a logic fault, copy the text to break out of the source into `find` (it may span lines, and must occur exactly
//! once in the file), write into `replace` what a tired programmer might have written instead (it must compile; a
//! warning does not matter), and name the model that is to fail. The list goes stale loudly: a `find` that is gone or no
//! longer unique, and a `model` that does not exist, stop the run.
//!
//! ```text
//! Logic {
//!     file: "src/primitives/oneshot.rs",
//!     name: "send does not wake the receiver",
//!     find: "waker.wake();",
//!     replace: "drop(waker);",
//!     model: "send_wakes_a_waiting_receiver",
//! },
//! ```
//!
//! An ordering that survives its weakening is stronger than it needs to be, or lacks a model: weaken it, or write the
//! model. Where neither is possible it goes into [`ALLOWED`] with the reason. The run still plants it: an entry whose
//! fault is caught after all has to go.
//!
//! ```text
//! Allowed {
//!     file: "src/primitives/spsc.rs",
//!     function: "close",
//!     text: "tail.fetch_or(CLOSED",
//!     fault: "AcqRel->Release",
//!     why: "loom orders every read-modify-write of one word; the Acquire half is needed on …",
//! },
//! ```

/// A mistake in the logic, planted by replacing a piece of source text.
pub(crate) struct Logic {
    /// The source file, from the workspace root, with `/` on every system.
    pub(crate) file: &'static str,
    /// What is broken: "send does not wake the receiver".
    pub(crate) name: &'static str,
    /// The source text to replace; occurs exactly once in the file.
    pub(crate) find: &'static str,
    /// What stands there instead.
    pub(crate) replace: &'static str,
    /// The model that is to catch it. Another one that does is reported, and is no failure.
    pub(crate) model: &'static str,
}

/// A weakened ordering that may survive.
pub(crate) struct Allowed {
    /// The source file, as in [`Logic::file`].
    pub(crate) file: &'static str,
    /// The function that the ordering stands in.
    pub(crate) function: &'static str,
    /// A piece of the source, within the lines from the name of the operation to the ordering.
    pub(crate) text: &'static str,
    /// The fault as the table prints it: "Acquire->Relaxed", "failure Acquire->Relaxed", "Acquire->none" for a fence.
    pub(crate) fault: &'static str,
    /// Why no model can catch it, though the ordering is needed.
    pub(crate) why: &'static str,
}

/// The logic faults, by file.
pub(crate) const LOGIC: &[Logic] = &[
    Logic {
        file: "src/primitives/waker_slot.rs",
        name: "a mark left during a registration is forgotten",
        find: "        if self.state.compare_exchange(REGISTERING, IDLE, Release, Relaxed).is_err() {",
        replace: "        self.state.store(IDLE, Release);\n        if false {",
        model: "event_or_wake",
    },
    Logic {
        file: "src/primitives/waker_slot.rs",
        name: "a registration that is turned away wakes nobody",
        find: "            thread::yield_now();\n            wake(waker);\n            return;",
        replace: "            return;",
        model: "register_again_after_take",
    },
    Logic {
        file: "src/primitives/waker_slot.rs",
        name: "a waker that meets a take stays in the slot",
        find: "            let own = self.waker.with_mut(|cell| unsafe { &mut *cell }.take());",
        replace: "            let own: Option<Waker> = None;",
        model: "event_or_wake",
    },
    Logic {
        file: "src/primitives/waker_slot.rs",
        name: "the slot stays locked after a take",
        find: "        self.state.fetch_and(!TAKING, Release);\n        waker",
        replace: "        waker",
        model: "quiet_after_take",
    },
    Logic {
        file: "src/primitives/waker_slot.rs",
        name: "a taker that finds a registration going on takes all the same",
        find: "        if self.state.fetch_or(TAKING, AcqRel) != IDLE {\n            return None;\n        }",
        replace: "        self.state.fetch_or(TAKING, AcqRel);",
        model: "event_or_wake",
    },
    Logic {
        file: "src/primitives/waker_slot.rs",
        name: "a taker does not look whether another one is at work",
        find: "        if self.state.fetch_or(TAKING, AcqRel) != IDLE {",
        replace: "        if self.state.fetch_or(TAKING, AcqRel) & REGISTERING != 0 {",
        model: "two_takers",
    },
    Logic {
        file: "src/primitives/waker_slot.rs",
        name: "the replaced waker is leaked",
        find: "        // Here, outside the lock, `waker` (the one that was replaced) is dropped.",
        replace: "        mem::forget(waker);",
        model: "replaced_waker_or_event",
    },
    Logic {
        file: "src/primitives/waker_slot.rs",
        name: "the replaced waker is dropped inside the lock",
        find: "|cell| mem::swap(unsafe { &mut *cell }, &mut waker));",
        replace: "|cell| unsafe { *cell = waker.take() });",
        model: "waker_that_registers_in_drop",
    },
    Logic {
        file: "src/primitives/waker_slot.rs",
        name: "the new waker is not put in if there is one already",
        find: "|cell| mem::swap(unsafe { &mut *cell }, &mut waker));",
        replace: "|cell| if unsafe { &*cell }.is_none() { mem::swap(unsafe { &mut *cell }, &mut waker) });",
        model: "replaced_waker_or_event",
    },
    Logic {
        file: "src/primitives/parker.rs",
        name: "notify does not wake the sleeper",
        find: "                    sleeper.wake();\n",
        replace: "                    let _ = sleeper;\n",
        model: "wake_finds_the_sleeper",
    },
    Logic {
        file: "src/primitives/parker.rs",
        name: "notify sets nothing",
        find: "        if self.state.swap(NOTIFIED, AcqRel) == PARKED {",
        replace: "        if self.state.fetch_or(0, AcqRel) == PARKED {",
        model: "wake_publishes",
    },
    Logic {
        file: "src/primitives/parker.rs",
        name: "a wake before the sleep is overlooked",
        find: "        if self.state.compare_exchange(EMPTY, PARKED, Release, Relaxed).is_ok() {\n            sync::sleep(deadline);\n        }",
        replace: "        self.state.swap(PARKED, Release);\n        sync::sleep(deadline);",
        model: "wake_publishes",
    },
    Logic {
        file: "src/primitives/parker.rs",
        name: "a return from sleep is taken for a wake-up",
        find: "        while !self.consume() {",
        replace: "        while self.state.swap(EMPTY, Acquire) == PARKED && false {",
        model: "spurious_wake_ups",
    },
    Logic {
        file: "src/primitives/parker.rs",
        name: "a notification is used twice",
        find: "            && self.state.compare_exchange(NOTIFIED, EMPTY, Acquire, Relaxed).is_ok()",
        replace: "            && self.state.compare_exchange(NOTIFIED, NOTIFIED, Acquire, Relaxed).is_ok()",
        model: "stale_waker",
    },
    Logic {
        file: "src/primitives/parker.rs",
        name: "the deadline is taken for a wake-up",
        find: "                return self.state.swap(EMPTY, Acquire) == NOTIFIED;",
        replace: "                self.state.swap(EMPTY, Acquire);\n                return true;",
        model: "deadline_against_wake",
    },
    Logic {
        file: "src/primitives/parker.rs",
        name: "the deadline is not looked at",
        find: "            if deadline.is_some_and(sync::is_past) {\n                // ORDERING",
        replace: "            if false {\n                // ORDERING",
        model: "deadline_alone",
    },
    Logic {
        file: "src/primitives/parker.rs",
        name: "wake-ups that never cease keep the deadline off",
        find: "        // Here too, in case the wake-ups never cease.\n        if deadline.is_some_and(sync::is_past) {\n            return None;\n        }\n",
        replace: "",
        model: "deadline_with_ceaseless_wakes",
    },
    Logic {
        file: "src/primitives/parker.rs",
        name: "the first poll's waker makes a new one at each clone",
        find: "        f(self.waiter.lock().get_or_insert_with(make))",
        replace: "        f(self.waiter.lock().insert(make()))",
        model: "lazy_waker",
    },
    Logic {
        file: "src/primitives/parker.rs",
        name: "nested calls share a waiter",
        find: "CACHE.try_with(|cache| cache.borrow_mut().pop()).ok().flatten()",
        replace: "CACHE.try_with(|cache| {\n            cache.borrow().last().map(|w| Self { parker: w.parker.clone(), waker: w.waker.clone(), patience: w.patience })\n        }).ok().flatten()",
        model: "nested",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "send does not wake the receiver",
        find: "            Some(waker) if self.last == Last::No => waker.wake(),\n",
        replace: "",
        model: "send_poll",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "the sender leaves without a look at the waker",
        find: "        let waker = unsafe { &(*this).waker }.take();\n",
        replace: "        let waker = None;\n",
        model: "send_poll",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "send overrides a close",
        find: "                Err(now) if State(now).has(State::UNWANTED) => {",
        replace: "                Err(now) if State(now).has(State::GONE) => {",
        model: "send_close",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "the receiver does not look again after it has registered",
        find: "                // SAFETY: the caller's promise; the state is acquired, and the first look took nothing.\n                unsafe { self.look(State(now)) }",
        replace: "                let _ = now;\n                Poll::Pending",
        model: "send_poll",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "WAITING is not set",
        find: "state.with(State::WAITING).0, Relaxed, Acquire)",
        replace: "state.0, Relaxed, Acquire)",
        model: "send_poll",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "a receiver that leaves forgets the value",
        find: "            Poll::Ready(Ok(value)) => (Some(value), waker),",
        replace: "            Poll::Ready(Ok(value)) => {\n                std::mem::forget(value);\n                (None, waker)\n            }",
        model: "send_drop",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "the receiver's waker is kept when it leaves",
        find: "        let waker = self.waker.take();\n        // SAFETY: the caller's promise.\n        match",
        replace: "        let waker = None;\n        // SAFETY: the caller's promise.\n        match",
        model: "dropped_receiver_leaves_no_waker",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "the receiver frees while the sender is at the waker",
        find: "self.has(Self::VALUE.with(Self::CLOSED)) && !self.has(Self::WAITING)",
        replace: "self.has(Self::VALUE.with(Self::CLOSED))",
        model: "send_drop_after_poll",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "nobody frees",
        find: "        let last = |before: State| if before.has(State::GONE) { Last::Yes } else { Last::No };",
        replace: "        let last = |_: State| Last::No;",
        model: "send_drop_after_poll",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "GONE is not set",
        find: "state.fetch_or(State::GONE.0, AcqRel)",
        replace: "state.fetch_or(0, AcqRel)",
        model: "drop_drop",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "close does not wake the sender",
        find: "            channel.closed.wake();\n",
        replace: "",
        model: "closed_close",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "a receiver that is dropped does not wake the sender",
        find: "            if let Some(closed) = closed {\n                closed.wake();\n            }",
        replace: "            drop(closed);",
        model: "closed_drop",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "closed does not look after it has registered",
        find: "            if waiting.0.is_closed() { Poll::Ready(()) } else { Poll::Pending }",
        replace: "            Poll::<()>::Pending",
        model: "closed_close",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "a value that comes back is dropped by the channel too",
        find: "                    return Err(cell.with(|cell| unsafe { (*cell).assume_init_read() }));",
        replace: "                    drop(cell.with(|cell| unsafe { (*cell).assume_init_read() }));\n                    return Err(cell.with(|cell| unsafe { (*cell).assume_init_read() }));",
        model: "send_drop",
    },
    Logic {
        file: "src/primitives/oneshot.rs",
        name: "a cancelled `closed` leaves its waker",
        find: "                drop(self.0.channel().closed.take());",
        replace: "",
        model: "cancelled_closed",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "advance does not wake the peer",
        find: "        if before.is_waiting() {\n            self.wake();\n        }",
        replace: "        let _ = before;",
        model: "both_sleep_in_turn",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "a sender that closes does not wake the receiver",
        find: "        let before = self.shared.tail.close();\n        self.shared.tail.notify(before);",
        replace: "        let _ = self.shared.tail.close();",
        model: "drop_wakes_receiver",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "WAITING is cleared after the waker was taken",
        find: "        self.word.fetch_and(!WAITING, Relaxed);\n        self.peer.wake();",
        replace: "        let waker = self.peer.take();\n        self.word.fetch_and(!WAITING, Relaxed);\n        if let Some(waker) = waker {\n            waker.wake();\n        }",
        model: "cancelled_recv",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "WAITING is not set",
        find: "self.word.fetch_or(WAITING, Relaxed)",
        replace: "self.word.fetch_or(0, Relaxed)",
        model: "both_sleep_in_turn",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "the peer does not look again after it has registered",
        find: "        self.word.fetch_or(WAITING, Relaxed) & !WAITING == seen",
        replace: "        self.word.fetch_or(WAITING, Relaxed);\n        let _ = seen;\n        true",
        model: "both_sleep_in_turn",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "a full channel has room for one more",
        find: "        self.tail.wrapping_sub(self.head) < self.shared.full()",
        replace: "        self.tail.wrapping_sub(self.head) <= self.shared.full()",
        model: "slots_are_reused",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "a closed channel takes an item",
        find: "        if before.is_closed() {\n            self.closed = true;",
        replace: "        if before.is_closed() && false {\n            self.closed = true;",
        model: "send_close",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "a sender that waits for room is not told of the close",
        find: "        let head = self.shared.head.close();\n        self.shared.head.notify(head);\n",
        replace: "",
        model: "close_wakes_sender",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "the receiver closes `head` before `tail`",
        find: "        let tail = self.shared.tail.close();\n        self.tail = tail.count();\n        // After `tail`: a sender that waits for room is woken by `head`, and then looks at `tail` (rule 3).\n        let head = self.shared.head.close();\n        self.shared.head.notify(head);\n",
        replace: "        let head = self.shared.head.close();\n        self.shared.head.notify(head);\n        let tail = self.shared.tail.close();\n        self.tail = tail.count();\n",
        model: "close_wakes_sender",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "a receiver that has closed goes on looking at `tail`",
        find: "if self.known() < wanted && !closed {",
        replace: "if self.known() < wanted {",
        model: "send_close",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "items in the ring are forgotten",
        find: "        drain.drain();\n    }",
        replace: "        let _ = std::mem::ManuallyDrop::new(drain);\n    }",
        model: "send_drop",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "a cancelled attempt leaves its waker",
        find: "        self.0.unwatch();\n    }\n}\n\nimpl<T> Watch for Sender<T>",
        replace: "    }\n}\n\nimpl<T> Watch for Sender<T>",
        model: "cancelled_attempts_leave_no_waker",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "a batch hands back one slot too few",
        find: "            attempt.0.hand_back(items);",
        replace: "            attempt.0.hand_back(items - 1);",
        model: "recv_many",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "the slot is handed back before the item is out",
        find: "        let item = self.read();\n        self.hand_back(1);\n        item",
        replace: "        self.hand_back(1);\n        self.read()",
        model: "slots_are_reused",
    },
    Logic {
        file: "src/primitives/spsc.rs",
        name: "a dropped sender does not close",
        find: "    fn drop(&mut self) {\n        self.close();\n        self.unwatch();\n    }\n}\n\nimpl<T> Receiver<T> {",
        replace: "    fn drop(&mut self) {\n        self.unwatch();\n    }\n}\n\nimpl<T> Receiver<T> {",
        model: "drop_wakes_receiver",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "a cancelled job runs",
        find: "        if !self.claim.start() {\n            return;\n        }",
        replace: "        let _ = self.claim.start();",
        model: "cancel_start",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "start does not take the claim",
        find: "        self.0.fetch_or(CLAIMED, Relaxed) & CLAIMED == 0",
        replace: "        self.0.fetch_or(0, Relaxed) & CLAIMED == 0",
        model: "cancel_start",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "cancel does not take the claim",
        find: "        self.0.fetch_or(CLAIMED | CANCELLED, Release) & CLAIMED == 0",
        replace: "        self.0.fetch_or(CANCELLED, Release) & CLAIMED == 0",
        model: "cancel_start",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "a running job is not told",
        find: "        self.0.fetch_or(CLAIMED | CANCELLED, Release) & CLAIMED == 0",
        replace: "        self.0.fetch_or(CLAIMED, Release) & CLAIMED == 0",
        model: "running_job_is_told",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "a cancelled job is not resolved",
        find: "            let _handle_is_gone = unsafe { self.resolve(Err(JoinError::Cancelled)) };",
        replace: "",
        model: "cancel_start",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "a cancelled job keeps its closure",
        find: "            let dropped = catch_unwind(AssertUnwindSafe(|| drop(func)));",
        replace: "            let dropped = catch_unwind(AssertUnwindSafe(|| self.func.with_mut(|cell| unsafe { *cell = func })));",
        model: "cancel_start",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "the result is forgotten when nobody wants it",
        find: "            contain(|| drop(unwanted));",
        replace: "            mem::forget(unwanted);",
        model: "drop_run",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "a queued job that is dropped is not cancelled",
        find: "            contain(|| {\n                job.cancel();\n            });",
        replace: "            drop(job);",
        model: "drop_queued",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "a dropped handle forgets the result",
        find: "            cell.cancel();\n            drop(unwanted);",
        replace: "            cell.cancel();\n            mem::forget(unwanted);",
        model: "drop_run",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "a dropped handle does not cancel",
        find: "            cell.cancel();\n            drop(unwanted);",
        replace: "            drop(unwanted);",
        model: "running_job_is_told",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "detach cancels",
        find: "    pub fn detach(mut self) {\n",
        replace: "    pub fn detach(mut self) {\n        self.cancel();\n",
        model: "detach_run",
    },
    Logic {
        file: "src/pool.rs",
        name: "nobody is called",
        find: "            Next::Call(bed) => bed.condvar.notify_one(),",
        replace: "            Next::Call(_) => {}",
        model: "submit_idle",
    },
    Logic {
        file: "src/pool.rs",
        name: "the worker that is called stays in the list of idle ones",
        find: "        if let Some(bed) = self.idle.pop() {",
        replace: "        if let Some(bed) = self.idle.last().cloned() {",
        model: "two_jobs_two_threads",
    },
    Logic {
        file: "src/pool.rs",
        name: "a worker does not say that it will look",
        find: "        self.shared.state.lock().looking += 1;\n        self.looking = true;",
        replace: "",
        model: "one_after_another",
    },
    Logic {
        file: "src/pool.rs",
        name: "a worker that drops a result still counts as looking",
        find: "        let next = state.next(self.shared.size);\n        drop(state);\n        Shared::go_on(self.shared, next);",
        replace: "        drop(state);",
        model: "result_whose_drop_waits_for_the_next_job",
    },
    Logic {
        file: "src/pool.rs",
        name: "a worker counts as looking for ever",
        find: "                state.looking -= usize::from(looking);",
        replace: "                let _ = looking;",
        model: "two_jobs_two_threads",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "a worker is not told that nobody wants the result",
        find: "            worker.busy();\n",
        replace: "",
        model: "result_whose_drop_waits_for_the_next_job",
    },
    Logic {
        file: "src/primitives/job.rs",
        name: "a worker is told of the end too late",
        find: "        worker.ended(if result.is_ok() { Ended::Succeeded } else { Ended::Panicked });\n        // SAFETY: as above.\n        if let Err(unwanted) = unsafe { self.resolve(result) } {",
        replace: "        let how = if result.is_ok() { Ended::Succeeded } else { Ended::Panicked };\n        // SAFETY: as above.\n        let resolved = unsafe { self.resolve(result) };\n        worker.ended(how);\n        if let Err(unwanted) = resolved {",
        model: "one_after_another",
    },
    Logic {
        file: "src/pool.rs",
        name: "the last handle calls nobody",
        find: "        for bed in called {\n            bed.condvar.notify_one();\n        }",
        replace: "        drop(called);",
        model: "submit_idle",
    },
    Logic {
        file: "src/pool.rs",
        name: "a closed pool drops its queue",
        find: "            if let Some(job) = state.queue.pop_front() {",
        replace: "            if state.closed {\n                state.queue.clear();\n            }\n            if let Some(job) = state.queue.pop_front() {",
        model: "last_handle",
    },
    Logic {
        file: "src/pool.rs",
        name: "a worker of a closed pool goes idle",
        find: "            } else if state.closed {",
        replace: "            } else if state.closed && false {",
        model: "submit_idle",
    },
];

/// The orderings that stay although no model notices their weakening. Each entry matches exactly one fault.
pub(crate) const ALLOWED: &[Allowed] = &[];
