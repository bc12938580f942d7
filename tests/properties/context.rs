//! Contexts: random programs that set, copy, run and wrap.

use offthread::{Context, ContextVar, WithContext};
use proptest::collection::vec;
use proptest::prelude::*;
use std::any::Any;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::{mem, thread};

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut std::task::Context::from_waker(Waker::noop()))
}

static VARS: [ContextVar<Number>; 3] = [const { ContextVar::new() }; 3];

/// A value that is counted while it lives.
#[derive(Clone, Debug)]
struct Number {
    number: u32,
    _living: Arc<()>,
}

/// The values of a context, by variable.
type Model = HashMap<usize, u32>;

#[derive(Clone, Debug)]
enum Op {
    Set(usize, u32),
    Clear(usize),
    /// Sets the variable inside `with`.
    SetInWith(usize, u32),
    /// Adds a copy of the current context to the list of contexts.
    Copy,
    /// `Forget`, `Run` and `Wrap` refer to a context of the list, if there is one.
    Forget(usize),
    Run {
        context: usize,
        ops: Vec<Op>,
        panics: bool,
        on_a_thread: bool,
    },
    /// Adds a future to the list of futures. Each poll runs one of these programs, and panics afterwards if told to.
    Wrap(usize, Vec<(Vec<Op>, bool)>),
    /// `Poll` and `Drop` refer to a future of the list, if there is one.
    Poll {
        future: usize,
        on_a_thread: bool,
    },
    Drop(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let var = || 0..VARS.len();
    let at = || 0..4_usize;
    let leaf = prop_oneof![
        5 => (var(), any::<u32>()).prop_map(|(var, number)| Op::Set(var, number)),
        1 => var().prop_map(Op::Clear),
        1 => (var(), any::<u32>()).prop_map(|(var, number)| Op::SetInWith(var, number)),
        2 => Just(Op::Copy),
        1 => at().prop_map(Op::Forget),
        5 => (at(), prop::bool::weighted(0.2)).prop_map(|(future, on_a_thread)| Op::Poll { future, on_a_thread }),
        1 => at().prop_map(Op::Drop),
    ];
    leaf.prop_recursive(4, 48, 6, move |op| {
        let run = (at(), vec(op.clone(), 0..6), prop::bool::weighted(0.3), prop::bool::weighted(0.2));
        prop_oneof![
            2 => op.clone(),
            2 => run.prop_map(|(context, ops, panics, on_a_thread)| Op::Run { context, ops, panics, on_a_thread }),
            2 => (at(), vec((vec(op, 0..4), prop::bool::weighted(0.2)), 0..4)).prop_map(|(at, polls)| Op::Wrap(at, polls)),
        ]
    })
}

/// The state of a program. No lock is held while code of the program runs.
#[derive(Default)]
struct World {
    contexts: Mutex<Vec<(Context, Model)>>,
    futures: Mutex<Vec<Wrapped>>,
    living: Arc<()>,
    /// Errors found where a panic would abort the process.
    wrong: Mutex<Vec<String>>,
}

struct Wrapped {
    future: WithContext<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Whether each remaining poll panics; after these the future is ready.
    panics: std::vec::IntoIter<bool>,
}

/// Compares the current context with the model in its `Drop`.
struct Dropped {
    world: Arc<World>,
    model: Model,
}

impl Drop for Dropped {
    fn drop(&mut self) {
        if seen() != self.model {
            let wrong = format!("a future was dropped in {:?}, not in {:?}", seen(), self.model);
            self.world.wrong.lock().unwrap().push(wrong);
        }
    }
}

/// The payload of a planned panic.
struct Planned;

fn seen() -> Model {
    VARS.iter().enumerate().filter_map(|(var, value)| Some((var, value.get()?.number))).collect()
}

/// Runs `run` here or on a thread, and checks whether it panics. An unplanned panic is resumed.
fn expect(panics: bool, on_a_thread: bool, run: impl FnOnce() + Send) {
    let run = || catch_unwind(AssertUnwindSafe(run));
    let result = if on_a_thread { thread::scope(|scope| scope.spawn(run).join().unwrap()) } else { run() };
    let panicked = result.map_err(|payload: Box<dyn Any + Send>| {
        if !payload.is::<Planned>() {
            resume_unwind(payload);
        }
    });
    assert_eq!(panicked.is_err(), panics, "whether the code panicked");
}

impl World {
    fn number(&self, number: u32) -> Number {
        Number { number, _living: self.living.clone() }
    }

    fn context(&self, at: usize) -> Option<(Context, Model)> {
        let contexts = self.contexts.lock().unwrap();
        contexts.get(at.checked_rem(contexts.len())?).cloned()
    }

    fn take_future(&self, at: usize) -> Option<Wrapped> {
        let mut futures = self.futures.lock().unwrap();
        let at = at.checked_rem(futures.len())?;
        Some(futures.swap_remove(at))
    }

    /// Runs a program in the current context, whose model is `model`.
    fn run(self: &Arc<Self>, ops: &[Op], model: &mut Model) {
        for op in ops {
            self.step(op, model);
            assert_eq!(seen(), *model, "after {op:?}");
        }
    }

    fn step(self: &Arc<Self>, op: &Op, model: &mut Model) {
        let number_of = |value: Option<Number>| value.map(|value| value.number);
        match *op {
            Op::Set(var, number) => {
                assert_eq!(number_of(VARS[var].set(self.number(number))), model.insert(var, number));
            }
            Op::Clear(var) => assert_eq!(number_of(VARS[var].clear()), model.remove(&var)),
            Op::SetInWith(var, number) => VARS[var].with(|value| {
                let before = model.insert(var, number);
                assert_eq!(number_of(VARS[var].set(self.number(number))), before);
                assert_eq!(value.map(|value| value.number), before);
            }),
            Op::Copy => self.contexts.lock().unwrap().push((Context::current(), model.clone())),
            Op::Forget(at) => {
                let mut contexts = self.contexts.lock().unwrap();
                if let Some(at) = at.checked_rem(contexts.len()) {
                    let forgotten = contexts.swap_remove(at);
                    drop(contexts);
                    drop(forgotten);
                }
            }
            Op::Run { context, ref ops, panics, on_a_thread } => {
                let Some((context, mut inner)) = self.context(context) else { return };
                let before = inner.clone();
                expect(panics, on_a_thread, || {
                    context.run(|| {
                        assert_eq!(seen(), inner);
                        self.run(ops, &mut inner);
                        if panics {
                            resume_unwind(Box::new(Planned));
                        }
                    });
                });
                assert_eq!(context.run(seen), before, "the context has changed");
            }
            Op::Wrap(at, ref polls) => {
                if let Some((context, inner)) = self.context(at) {
                    self.wrap(context, inner, polls.clone());
                }
            }
            Op::Poll { future, on_a_thread } => self.poll(future, on_a_thread),
            Op::Drop(at) => drop(self.take_future(at)),
        }
    }

    fn wrap(self: &Arc<Self>, context: Context, model: Model, polls: Vec<(Vec<Op>, bool)>) {
        let panics: Vec<_> = polls.iter().map(|&(_, panics)| panics).collect();
        let mut dropped = Dropped { world: self.clone(), model };
        let mut polls = polls.into_iter();
        let future = poll_fn(move |_| {
            let Dropped { world, model } = &mut dropped;
            assert_eq!(seen(), *model, "in a poll");
            let Some((ops, panics)) = polls.next() else { return Poll::Ready(()) };
            world.run(&ops, model);
            if panics {
                resume_unwind(Box::new(Planned));
            }
            Poll::Pending
        });
        let wrapped = Wrapped { future: context.wrap(Box::pin(future)), panics: panics.into_iter() };
        self.futures.lock().unwrap().push(wrapped);
    }

    fn poll(&self, at: usize, on_a_thread: bool) {
        let Some(mut wrapped) = self.take_future(at) else { return };
        let panics = wrapped.panics.next();
        let mut polled = None;
        expect(panics == Some(true), on_a_thread, || polled = Some(poll(&mut wrapped.future)));
        if panics.is_none() {
            assert_eq!(polled, Some(Poll::Ready(())));
        } else {
            self.futures.lock().unwrap().push(wrapped);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_program_sees_the_values_of_the_model(ops in vec(op(), 1..40)) {
        let world = Arc::new(World::default());
        world.contexts.lock().unwrap().push(Default::default());
        Context::default().run(|| world.run(&ops, &mut Model::new()));
        prop_assert_eq!(seen(), Model::new());
        let futures = mem::take(&mut *world.futures.lock().unwrap());
        drop(futures);
        prop_assert_eq!(&*world.wrong.lock().unwrap(), &Vec::<String>::new());
        world.contexts.lock().unwrap().clear();
        prop_assert_eq!(Arc::strong_count(&world.living), 1, "a value was leaked");
    }
}
