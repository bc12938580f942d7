//! Random programs on an event loop, compared with simple models: tasks with a record of what happened to each, timers
//! with a sorted list, contexts with a map.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]

use crate::helpers::event_loop::*;
use offthread::{
    Context, ContextVar, EventLoop, JoinError, LoopHandle, Task, block_on, gather, oneshot, sleep, sleep_until, spawn,
    sync_await, threaded, threaded_separate, timeout, yield_now,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

fn micros(number: u64) -> Duration {
    Duration::from_micros(number)
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

// --- tasks ----------------------------------------------------------------------------------------------------------

/// One step of a task.
#[derive(Clone, Copy, Debug)]
enum Act {
    Yield,
    Sleep(u64),
    /// Waits for a job.
    Job,
    /// Waits for a task of its own.
    Task,
}

/// How a task ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Value(i32),
    Panic,
    Never,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Local,
    Handle,
    Elsewhere,
}

#[derive(Clone, Debug)]
enum Step {
    Spawn(Vec<Act>, End, Way),
    /// `Cancel` to `Outcome` refer to a task whose handle the program has; `Wake` to any task. `true`: on another
    /// thread.
    Cancel(usize, bool),
    Drop(usize, bool),
    Detach(usize),
    Await(usize),
    Outcome(usize),
    Wake(usize, bool),
    Yield,
    Sleep(u64),
    /// `true`: on another thread.
    CallSoon(bool),
    /// `true`: cancelled at once.
    CallLater(u64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let act = prop_oneof![
        4 => Just(Act::Yield),
        2 => (0..300_u64).prop_map(Act::Sleep),
        1 => Just(Act::Job),
        1 => Just(Act::Task),
    ];
    let end = prop_oneof![3 => any::<i32>().prop_map(End::Value), 1 => Just(End::Panic), 2 => Just(End::Never)];
    let way = prop_oneof![3 => Just(Way::Local), 1 => Just(Way::Handle), 1 => Just(Way::Elsewhere)];
    let elsewhere = || prop::bool::weighted(0.3);
    prop_oneof![
        10 => (vec(act, 0..4), end, way).prop_map(|(acts, end, way)| Step::Spawn(acts, end, way)),
        3 => (0..20_usize, elsewhere()).prop_map(|(at, elsewhere)| Step::Cancel(at, elsewhere)),
        3 => (0..20_usize, elsewhere()).prop_map(|(at, elsewhere)| Step::Drop(at, elsewhere)),
        2 => (0..20_usize).prop_map(Step::Detach),
        3 => (0..20_usize).prop_map(Step::Await),
        3 => (0..20_usize).prop_map(Step::Outcome),
        4 => (0..20_usize, elsewhere()).prop_map(|(at, elsewhere)| Step::Wake(at, elsewhere)),
        6 => Just(Step::Yield),
        2 => (0..300_u64).prop_map(Step::Sleep),
        2 => elsewhere().prop_map(Step::CallSoon),
        2 => (0..300_u64, any::<bool>()).prop_map(|(delay, cancel)| Step::CallLater(delay, cancel)),
    ]
}

/// The records of a task's future.
struct Record {
    loops_thread: ThreadId,
    polls: AtomicUsize,
    ended: AtomicBool,
    drops: AtomicUsize,
    wrong: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Record {
    fn check(&self, is_so: bool) {
        self.wrong.fetch_or(!is_so, Ordering::SeqCst);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn is_dropped(&self) -> bool {
        self.drops.load(Ordering::SeqCst) > 0
    }
}

/// A task's future, which updates the record.
struct Body {
    record: Arc<Record>,
    future: Pin<Box<dyn Future<Output = i32> + Send>>,
}

impl Body {
    fn new(loops_thread: ThreadId, acts: Vec<Act>, end: End) -> (Self, Arc<Record>) {
        let record = Arc::new(Record {
            loops_thread,
            polls: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            drops: AtomicUsize::new(0),
            wrong: AtomicBool::new(false),
            waker: Mutex::new(None),
        });
        let inside = Arc::clone(&record);
        let future = async move {
            for act in acts {
                match act {
                    Act::Yield => yield_now().await,
                    Act::Sleep(time) => sleep(micros(time)).await,
                    Act::Job => assert_eq!(threaded(|| 1).await, 1),
                    Act::Task => assert_eq!(spawn(async { 2 }).await, 2),
                }
            }
            if matches!(end, End::Never) {
                pending::<()>().await;
            }
            inside.ended.store(true, Ordering::SeqCst);
            if let End::Value(value) = end { value } else { quiet_panic("planned") }
        };
        (Self { record: Arc::clone(&record), future: Box::pin(future) }, record)
    }
}

impl Future for Body {
    type Output = i32;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<i32> {
        let record = Arc::clone(&self.record);
        record.check(thread::current().id() == record.loops_thread && !record.has_ended());
        record.polls.fetch_add(1, Ordering::SeqCst);
        *record.waker.lock().unwrap() = Some(cx.waker().clone());
        self.future.as_mut().poll(cx)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let earlier = self.record.drops.fetch_add(1, Ordering::SeqCst);
        self.record.check(thread::current().id() == self.record.loops_thread && earlier == 0);
    }
}

/// A task whose handle the program still has.
struct Entry {
    task: Task<i32>,
    record: Arc<Record>,
    end: End,
    cancelled: bool,
}

#[derive(Default)]
struct Program {
    entries: Vec<Entry>,
    /// The records of all tasks.
    records: Vec<Arc<Record>>,
    /// The records of the detached tasks that will end.
    detached: Vec<Arc<Record>>,
    /// How many callbacks of each kind were submitted and not cancelled.
    soon: usize,
    later: usize,
    /// Which callbacks have run, and how many timers have fired.
    called_soon: Arc<Mutex<Vec<usize>>>,
    called_later: Arc<AtomicUsize>,
}

/// Runs `f` here, or on another thread while this thread waits.
fn at<R: Send>(elsewhere: bool, f: impl FnOnce() -> R + Send) -> R {
    if elsewhere { meanwhile(f) } else { f() }
}

impl Program {
    fn take(&mut self, at: usize) -> Option<Entry> {
        let at = at.checked_rem(self.entries.len())?;
        Some(self.entries.swap_remove(at))
    }

    async fn step(&mut self, step: Step) {
        let handle = LoopHandle::current();
        match step {
            Step::Spawn(acts, end, way) => {
                let (body, record) = Body::new(thread::current().id(), acts, end);
                let task = match way {
                    Way::Local => spawn(body),
                    Way::Handle => handle.spawn(body),
                    // On that thread no loop is current, so the task itself must make its loop current.
                    Way::Elsewhere => meanwhile(|| handle.spawn(body)),
                };
                assert_eq!(record.polls.load(Ordering::SeqCst), 0, "the task was polled inside `spawn`");
                self.records.push(Arc::clone(&record));
                self.entries.push(Entry { task, record, end, cancelled: false });
            }
            Step::Cancel(which, elsewhere) => {
                let Some(which) = which.checked_rem(self.entries.len()) else { return };
                let Entry { task, record, cancelled, .. } = &mut self.entries[which];
                if !*cancelled {
                    let answer = at(elsewhere, || task.cancel());
                    assert_eq!(answer, !record.has_ended(), "`cancel` returns true if the task had not finished");
                    *cancelled = answer;
                }
            }
            Step::Drop(which, elsewhere) => {
                let Some(Entry { task, record, cancelled, .. }) = self.take(which) else { return };
                let was_polled = record.polls.load(Ordering::SeqCst) > 0;
                at(elsewhere, || drop(task));
                // The message of a new task, or of a cancel by another thread, may still be in the inbox.
                let at_once = was_polled && !cancelled && !elsewhere;
                assert!(!at_once || record.is_dropped(), "the handle was dropped, but the future was not");
                until("the future is gone", || record.is_dropped()).await;
            }
            Step::Detach(which) => {
                let Some(Entry { task, record, end, cancelled }) = self.take(which) else { return };
                task.detach();
                if !cancelled && !matches!(end, End::Never) {
                    self.detached.push(record);
                }
            }
            Step::Await(which) => {
                let Some(Entry { task, record, end, cancelled }) = self.take(which) else { return };
                match end {
                    _ if cancelled => assert_says(&panic_in(task).await, "cancel"),
                    End::Value(value) => assert_eq!(task.await, value),
                    End::Panic => assert_eq!(panic_in(task).await, "planned"),
                    End::Never => assert!(timeout(micros(100), task).await.is_err()),
                }
                until("the future is gone", || record.is_dropped()).await;
            }
            Step::Outcome(which) => {
                let Some(Entry { task, end, cancelled, .. }) = self.take(which) else { return };
                let is_right = match timeout(if cancelled { LONG } else { micros(500) }, task.outcome()).await {
                    Ok(Ok(value)) => !cancelled && matches!(end, End::Value(expected) if expected == value),
                    Ok(Err(JoinError::Panicked(panic))) => {
                        !cancelled && matches!(end, End::Panic) && panic.message() == "planned"
                    }
                    Ok(Err(error)) => cancelled && matches!(error, JoinError::Cancelled),
                    // The task may not have ended yet.
                    Err(_) => !cancelled,
                };
                assert!(is_right);
            }
            Step::Wake(which, elsewhere) => {
                // Also of a task that has ended.
                let Some(which) = which.checked_rem(self.records.len()) else { return };
                if let Some(waker) = self.records[which].waker.lock().unwrap().clone() {
                    at(elsewhere, || waker.wake());
                }
            }
            Step::Yield => yield_now().await,
            Step::Sleep(time) => sleep(micros(time)).await,
            Step::CallSoon(elsewhere) => {
                let (called, number) = (Arc::clone(&self.called_soon), self.soon);
                at(elsewhere, || handle.call_soon(move || called.lock().unwrap().push(number)));
                self.soon += 1;
            }
            Step::CallLater(delay, cancel) => {
                let called = Arc::clone(&self.called_later);
                let timer = handle.call_later(micros(delay), move || {
                    called.fetch_add(1, Ordering::SeqCst);
                });
                if cancel {
                    assert!(timer.cancel());
                } else {
                    self.later += 1;
                }
            }
        }
        for Entry { task, record, cancelled, .. } in &self.entries {
            assert!(*cancelled || task.is_finished() == record.has_ended());
        }
    }

    /// Waits for the detached tasks and for the callbacks.
    async fn settle(&self) {
        let detached = || self.detached.iter().all(|record| record.has_ended());
        until("the detached tasks have ended", detached).await;
        until("all calls were made", || self.called_later.load(Ordering::SeqCst) >= self.later).await;
        until("all calls were made", || self.called_soon.lock().unwrap().len() >= self.soon).await;
    }
}

proptest! {
    #![proptest_config(config(32))]

    /// No program of spawns, cancels, detaches, wakes, sleeps and callbacks, in one or more `block_on` calls, loses a
    /// task, polls or drops it on another thread, drops it twice, or gets a wrong outcome.
    #[test]
    fn tasks_agree_with_the_model(programs in vec(vec(step(), 0..25), 1..4)) {
        let _watchdog = watchdog();
        let mut event_loop = EventLoop::new();
        let mut program = Program::default();
        let polls = |program: &Program| -> usize {
            program.records.iter().map(|record| record.polls.load(Ordering::SeqCst)).sum()
        };
        for steps in programs {
            event_loop.block_on(async {
                for step in steps {
                    program.step(step).await;
                }
            });
            let before = polls(&program);
            program.records.iter().for_each(|record| {
                let waker = record.waker.lock().unwrap().clone();
                meanwhile(|| waker.inspect(Waker::wake_by_ref));
            });
            prop_assert_eq!(polls(&program), before, "polled between two calls");
        }
        event_loop.block_on(program.settle());
        // Some handles are dropped before the loop, and some after it.
        let rest = program.entries.split_off(program.entries.len() / 2);
        program.entries.clear();
        drop(event_loop);
        for Entry { task, record, end, cancelled } in rest {
            let ended = record.has_ended() && !cancelled;
            match block_on(task.outcome()) {
                Ok(value) => prop_assert!(ended && matches!(end, End::Value(expected) if expected == value)),
                Err(JoinError::Panicked(_)) => prop_assert!(ended && matches!(end, End::Panic)),
                Err(error) => prop_assert!(!ended && matches!(error, JoinError::Cancelled)),
            }
        }
        let before = polls(&program);
        for record in &program.records {
            prop_assert_eq!(record.drops.load(Ordering::SeqCst), 1);
            record.waker.lock().unwrap().take().inspect(Waker::wake_by_ref);
            prop_assert!(!record.wrong.load(Ordering::SeqCst), "on another thread, twice, or after its end");
        }
        prop_assert_eq!(polls(&program), before);
        prop_assert!(program.called_soon.lock().unwrap().iter().copied().eq(0..program.soon), "not in order");
        prop_assert_eq!(program.called_later.load(Ordering::SeqCst), program.later);
    }
}

// --- timers ---------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
enum Cancel {
    No,
    /// Right after the callback was added.
    AtOnce,
    /// From another callback that is due after this time.
    After(u64),
}

/// The callbacks that ran, or the sleeps that ended: number and time.
type Fired = Arc<Mutex<Vec<(usize, Instant)>>>;

proptest! {
    #![proptest_config(config(24))]

    /// No callback runs early, out of the order of the deadlines, twice, or after its cancellation; and none is lost.
    #[test]
    fn calls_behave_like_a_sorted_list(
        timers in vec((0..4000_u64, prop_oneof![
            4 => Just(Cancel::No),
            1 => Just(Cancel::AtOnce),
            1 => (0..4000_u64).prop_map(Cancel::After),
        ]), 0..40),
    ) {
        let _watchdog = watchdog();
        let fired = Fired::default();
        // The two instants that enclose each deadline; and whether the callback was cancelled, which may be decided
        // later.
        let mut deadlines = Vec::new();
        let mut cancelled = Vec::new();
        block_on(async {
            let handle = LoopHandle::current();
            for (number, &(delay, cancel)) in timers.iter().enumerate() {
                let inside = Arc::clone(&fired);
                let earliest = Instant::now() + micros(delay);
                let timer = handle.call_later(micros(delay), move || {
                    inside.lock().unwrap().push((number, Instant::now()));
                });
                deadlines.push((earliest, Instant::now() + micros(delay)));
                let answer = Arc::new(Mutex::new(None));
                cancelled.push(Arc::clone(&answer));
                match cancel {
                    Cancel::No => *answer.lock().unwrap() = Some(false),
                    Cancel::AtOnce => *answer.lock().unwrap() = Some(timer.cancel()),
                    Cancel::After(delay) => {
                        let cancel = move || *answer.lock().unwrap() = Some(timer.cancel());
                        drop(handle.call_later(micros(delay), cancel));
                    }
                }
            }
            until("all was decided", || cancelled.iter().all(|answer| answer.lock().unwrap().is_some())).await;
            let due = cancelled.iter().filter(|answer| *answer.lock().unwrap() == Some(false)).count();
            until("all calls were made", || fired.lock().unwrap().len() >= due).await;
            turns().await;
        });
        let fired = fired.lock().unwrap();
        let mut expected: Vec<_> = (0..timers.len()).filter(|&n| *cancelled[n].lock().unwrap() == Some(false)).collect();
        let mut called: Vec<_> = fired.iter().map(|&(number, _)| number).collect();
        for (place, &(number, at)) in fired.iter().enumerate() {
            prop_assert!(at >= deadlines[number].0, "too early");
            for &(later, _) in &fired[place..] {
                prop_assert!(deadlines[later].1 >= deadlines[number].0, "{later} was due before {number}");
            }
        }
        called.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(called, expected);
        for (number, &(_, cancel)) in timers.iter().enumerate() {
            if matches!(cancel, Cancel::AtOnce) {
                prop_assert_eq!(*cancelled[number].lock().unwrap(), Some(true));
            }
        }
    }

    /// No sleeping task wakes early, out of the order of the deadlines, or after it was dropped.
    #[test]
    fn sleeps_behave_like_a_sorted_list(sleepers in vec((0..40_u64, prop::bool::weighted(0.2)), 0..40)) {
        let _watchdog = watchdog();
        let fired = Fired::default();
        let base = Instant::now() + 2 * MILLI;
        // Many sleeps have the same deadline.
        let deadline = |number: usize| base + micros(sleepers[number].0 * 100);
        let registered = block_on(async {
            let tasks: Vec<_> = (0..sleepers.len())
                .map(|number| {
                    let (inside, deadline) = (Arc::clone(&fired), deadline(number));
                    spawn(async move {
                        sleep_until(deadline).await;
                        inside.lock().unwrap().push((number, Instant::now()));
                    })
                })
                .collect();
            turns().await;
            let registered = Instant::now();
            let mut kept = Vec::new();
            for (number, task) in tasks.into_iter().enumerate() {
                if sleepers[number].1 && !task.is_finished() {
                    drop(task);
                } else {
                    kept.push((number, task));
                }
            }
            let numbers: Vec<_> = kept.iter().map(|&(number, _)| number).collect();
            for (_, task) in kept {
                task.await;
            }
            sleep_until(base + 5 * MILLI).await;
            let mut woken: Vec<_> = fired.lock().unwrap().iter().map(|&(number, _)| number).collect();
            woken.sort_unstable();
            assert_eq!(woken, numbers);
            registered
        });
        let fired = fired.lock().unwrap();
        prop_assert!(fired.iter().all(|&(number, at)| at >= deadline(number)), "too early");
        // Sleeps whose deadline had passed when they began end in another order.
        let order = fired.iter().map(|&(number, _)| deadline(number)).filter(|&deadline| deadline > registered);
        prop_assert!(order.is_sorted());
    }
}

// --- contexts -------------------------------------------------------------------------------------------------------

static VARS: [ContextVar<u32>; 3] = [const { ContextVar::new() }; 3];

/// The values of a context, by variable.
type Model = BTreeMap<usize, u32>;

fn seen() -> Model {
    VARS.iter().enumerate().filter_map(|(var, value)| Some((var, value.get()?))).collect()
}

#[derive(Clone, Debug)]
enum Op {
    Set(usize, u32),
    Clear(usize),
    Yield,
    Sleep,
    /// Starts another program, and goes on with this one.
    Start(Place, Vec<Op>),
    /// Runs a program in a `timeout`, which has no context of its own.
    Timeout(Vec<Op>),
    Wrap(Vec<Op>),
    Gather(Vec<Vec<Op>>),
    /// Waits for all programs that were started.
    Join,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Task,
    HandlesTask,
    Soon,
    Later,
    Job,
    Separate,
    /// Its own loop, in a job.
    BlockOn,
    /// Another thread, which enters the loop.
    Entered,
}

fn op() -> impl Strategy<Value = Op> {
    let var = || 0..VARS.len();
    let place = prop::sample::select(vec![
        Place::Task,
        Place::HandlesTask,
        Place::Soon,
        Place::Later,
        Place::Job,
        Place::Separate,
        Place::BlockOn,
        Place::Entered,
    ]);
    let leaf = prop_oneof![
        6 => (var(), any::<u32>()).prop_map(|(var, value)| Op::Set(var, value)),
        1 => var().prop_map(Op::Clear),
        3 => Just(Op::Yield),
        1 => Just(Op::Sleep),
        1 => Just(Op::Join),
    ];
    leaf.prop_recursive(3, 40, 6, move |op| {
        let ops = || vec(op.clone(), 0..6);
        prop_oneof![
            2 => op.clone(),
            3 => (place.clone(), ops()).prop_map(|(place, ops)| Op::Start(place, ops)),
            1 => ops().prop_map(Op::Timeout),
            1 => ops().prop_map(Op::Wrap),
            1 => vec(ops(), 0..4).prop_map(Op::Gather),
        ]
    })
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs a program in the current context, whose model is `model`. Returns the model at the end.
fn run(ops: Vec<Op>, mut model: Model) -> Boxed<Model> {
    Box::pin(async move {
        let mut started = Vec::new();
        assert_eq!(seen(), model, "at the start");
        for op in ops {
            let what = format!("{op:?}");
            match op {
                Op::Set(var, value) => assert_eq!(VARS[var].set(value), model.insert(var, value)),
                Op::Clear(var) => assert_eq!(VARS[var].clear(), model.remove(&var)),
                Op::Yield => yield_now().await,
                Op::Sleep => sleep(micros(50)).await,
                Op::Start(place, ops) => started.push(start(place, ops, model.clone())),
                Op::Timeout(ops) => model = timeout(LONG, run(ops, model)).await.unwrap(),
                Op::Wrap(ops) => drop(Context::current().wrap(run(ops, model.clone())).await),
                Op::Gather(branches) => {
                    drop(gather(branches.into_iter().map(|ops| run(ops, model.clone()))).await);
                }
                Op::Join => {
                    for started in started.drain(..) {
                        started.await;
                    }
                }
            }
            assert_eq!(seen(), model, "after {what}");
        }
        for started in started {
            started.await;
        }
        assert_eq!(seen(), model, "at the end");
        model
    })
}

/// Blocking code: changes the context, then runs the program on the loop and waits for it.
fn run_blocking(ops: Vec<Op>, mut model: Model) {
    assert_eq!(seen(), model, "at the start");
    assert_eq!(VARS[0].set(7), model.insert(0, 7));
    sync_await(run(ops, model.clone()));
    assert_eq!(seen(), model, "a change of the program on the loop is seen here");
}

fn start(place: Place, ops: Vec<Op>, model: Model) -> Boxed<()> {
    let handle = LoopHandle::current();
    match place {
        Place::Task => Box::pin(ended(spawn(run(ops, model)))),
        Place::HandlesTask => Box::pin(ended(handle.spawn(run(ops, model)))),
        Place::Soon | Place::Later => {
            let (sender, receiver) = oneshot::channel();
            let call = move || {
                assert_eq!(seen(), model, "in a call");
                // The callback changes its context, and a task sees the change.
                let mut model = model;
                assert_eq!(VARS[1].set(8), model.insert(1, 8));
                sender.send(spawn(run(ops, model))).unwrap();
            };
            if matches!(place, Place::Soon) {
                handle.call_soon(call);
            } else {
                drop(handle.call_later(micros(50), call));
            }
            Box::pin(async { drop(receiver.await.expect("the call has failed").await) })
        }
        Place::Job => Box::pin(threaded(|| run_blocking(ops, model)).async_call()),
        Place::Separate => Box::pin(threaded_separate(|| run_blocking(ops, model)).async_call()),
        Place::BlockOn => Box::pin(
            threaded(move || {
                block_on(run(ops, model.clone()));
                assert_eq!(seen(), model, "a change in `block_on` is seen outside");
            })
            .async_call(),
        ),
        Place::Entered => Box::pin(elsewhere(move || {
            assert_eq!(seen(), Model::new());
            handle.enter(|| run_blocking(ops, Model::new()));
            assert_eq!(seen(), Model::new(), "a change in `enter` is seen outside");
        })),
    }
}

async fn ended<T>(future: impl Future<Output = T>) {
    future.await;
}

proptest! {
    #![proptest_config(config(64))]

    /// Once a program has started another one, neither of the two sees the changes that the other makes.
    #[test]
    fn contexts_behave_like_maps(ops in vec(op(), 1..12), again in vec(op(), 0..6)) {
        let _watchdog = watchdog();
        let mut event_loop = EventLoop::builder().pool_size(2).build();
        event_loop.block_on(run(ops, Model::new()));
        prop_assert_eq!(seen(), Model::new());
        event_loop.block_on(run(again, Model::new()));
        prop_assert_eq!(seen(), Model::new());
    }
}
