//! Random programs against streams, held against the plain iterator.

#![forbid(unsafe_code)]

mod iterable_helpers;

use iterable_helpers::*;
use offthread::{IteratorWrapper, ThreadPool, block_on};
use proptest::collection::vec;
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use std::thread;

#[derive(Clone, Debug)]
enum Step {
    Next,
    NextMany(usize),
    /// Polls the stream once.
    Poll,
    /// Polls `next` once and drops it.
    NextOnce,
    /// On another thread.
    NextElsewhere,
    /// Lets the iterator come as far as it can.
    Pause,
    /// Polls `close` once and drops it.
    CloseOnce,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => Just(Step::Next),
        6 => (0..6_usize).prop_map(Step::NextMany),
        4 => Just(Step::Poll),
        6 => Just(Step::NextOnce),
        2 => Just(Step::NextElsewhere),
        3 => Just(Step::Pause),
        1 => Just(Step::CloseOnce),
        1 => Just(Step::Close),
    ]
}

/// The iterator: how many items it has, and what panics.
#[derive(Clone, Debug)]
struct Plan {
    length: usize,
    make_panics: bool,
    /// The item at which `next` does.
    next_panics: Option<usize>,
    drop_panics: bool,
}

fn plan() -> impl Strategy<Value = Plan> {
    let rarely = || prop::bool::weighted(0.15);
    (0..25_usize, rarely(), prop::option::weighted(0.3, 0..25_usize), rarely()).prop_map(
        |(length, make_panics, next_panics, drop_panics)| Plan { length, make_panics, next_panics, drop_panics },
    )
}

impl Plan {
    fn stream(&self, kind: Kind, pool: &ThreadPool, watch: &Watch) -> IteratorWrapper<Item> {
        let plan = self.clone();
        watch.stream(kind, pool, move |numbers| {
            if plan.make_panics {
                quiet_panic("make");
            }
            let numbers = if plan.drop_panics { numbers.bomb() } else { numbers };
            numbers.take(plan.length).inspect(move |item| {
                if plan.next_panics == Some(item.number) {
                    quiet_panic("next");
                }
            })
        })
    }

    /// What the plain iterator gives: that many items, and then perhaps a panic, of one or two kinds.
    fn expected(&self) -> (usize, &'static [&'static str]) {
        match self.next_panics {
            _ if self.make_panics => (0, &["make"]),
            // If the `Drop` panics too, which of the two comes out is left open.
            Some(at) if at < self.length && self.drop_panics => (at, &["next", "the iterator's end"]),
            Some(at) if at < self.length => (at, &["next"]),
            _ if self.drop_panics => (self.length, &["the iterator's end"]),
            _ => (self.length, &[]),
        }
    }

    /// Whether a panic with this text may come out, also of one that is closed before its end.
    fn may_say(&self, text: &str) -> bool {
        self.expected().1.contains(&text) || (self.drop_panics && text == "the iterator's end")
    }
}

/// What comes out of `next`.
type Answer = Result<Option<usize>, String>;

/// The stream's answer, and a panic's text.
fn answer<R>(ask: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(ask)).map_err(|payload| text(&*payload).to_owned())
}

fn number(item: Option<Item>) -> Option<usize> {
    item.map(|item| item.number)
}

struct Program {
    stream: IteratorWrapper<Item>,
    kind: Kind,
    pool: ThreadPool,
    plan: Plan,
    taken: usize,
    /// The end, or the panic, has been seen; or it was closed.
    over: bool,
    /// The end, or the panic, was seen before it was closed.
    seen: bool,
    /// A `close` that had to wait was dropped.
    given_up: bool,
}

impl Program {
    fn check(&mut self, answer: Answer) -> Result<(), TestCaseError> {
        let (items, panics) = self.plan.expected();
        match answer {
            Ok(Some(number)) => {
                prop_assert!(!self.over && self.taken < items, "an item after the end");
                prop_assert_eq!(number, self.taken);
                self.taken += 1;
            }
            Ok(None) => {
                prop_assert!(self.over || (self.taken == items && panics.is_empty()), "the end at {}", self.taken);
                self.seen |= !self.over;
                self.over = true;
            }
            Err(text) => {
                // A `close` that was given up may have left it the panic it would have ended with.
                let late = self.given_up && !self.seen;
                prop_assert!(late || (!self.over && self.taken == items), "{} at {}", text, self.taken);
                prop_assert!(self.plan.may_say(&text), "{}", text);
                (self.over, self.seen) = (true, true);
            }
        }
        // Between the last item and the end that is seen, either may be.
        if self.over || self.taken < items {
            prop_assert_eq!(self.stream.is_closed(), self.over);
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Next => {
                let answer = answer(|| number(take(&mut self.stream)));
                self.check(answer)?;
            }
            Step::NextElsewhere => {
                let stream = &mut self.stream;
                let answer = thread::scope(|scope| scope.spawn(|| answer(|| number(take(stream)))).join().unwrap());
                self.check(answer)?;
            }
            Step::NextMany(limit) => {
                let mut items = Vec::new();
                let answer = answer(|| block_on(self.stream.next_many(&mut items, *limit)));
                prop_assert!(items.len() <= *limit);
                if let Ok(count) = answer {
                    prop_assert_eq!(count, items.len());
                }
                let items = numbers(items);
                let is_end = items.is_empty() && *limit > 0;
                for number in items {
                    prop_assert_eq!(number, self.taken);
                    self.taken += 1;
                }
                prop_assert!(self.taken <= self.plan.expected().0);
                match answer {
                    Ok(_) if is_end => self.check(Ok(None))?,
                    Ok(_) => {}
                    Err(text) => self.check(Err(text))?,
                }
            }
            Step::Poll | Step::NextOnce => {
                let answer = answer(|| match step {
                    Step::Poll => poll_once(&mut self.stream),
                    _ => Witness::default().poll(Box::pin(self.stream.next())),
                });
                match answer {
                    Ok(Poll::Pending) => prop_assert!(!self.over, "nothing, after the end"),
                    Ok(Poll::Ready(item)) => self.check(Ok(number(item)))?,
                    Err(text) => self.check(Err(text))?,
                }
            }
            Step::Pause if self.kind == Kind::Pool => until("it is at rest", || all_are_idle(&self.pool)),
            Step::Pause => thread::yield_now(),
            Step::CloseOnce => {
                let answer = answer(|| Witness::default().poll(Box::pin(self.stream.close())).is_ready());
                self.given_up |= matches!(answer, Ok(false));
                self.closed(answer.map(drop))?;
            }
            Step::Close => {
                let answer = answer(|| block_on(self.stream.close()));
                self.closed(answer)?;
            }
        }
        Ok(())
    }

    fn closed(&mut self, answer: Result<(), String>) -> Result<(), TestCaseError> {
        if let Err(text) = answer {
            // Of several panics, which come out is left open.
            prop_assert!(!self.seen || self.plan.expected().1.len() > 1, "{} came out again", text);
            prop_assert!(self.plan.may_say(&text), "{}", text);
        }
        self.over = true;
        prop_assert!(self.stream.is_closed());
        Ok(())
    }
}

proptest! {
    // No files are written: a case that fails is printed, small enough to become a test of its own.
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Forbids an item that is lost, comes twice or out of order, a panic that is lost or looks like the end, a step that
    /// hangs, and anything that is dropped twice or never.
    #[test]
    fn random_programs(
        separate in any::<bool>(),
        max_size in 1..8_usize,
        plan in plan(),
        steps in vec(step(), 0..40),
        end in 0..4,
    ) {
        let _watchdog = watchdog();
        let kind = if separate { Kind::Separate } else { Kind::Pool };
        let (pool, watch) = (ThreadPool::new(1), Watch::default());
        let stream = plan.stream(kind, &pool, &watch).max_size(max_size);
        let mut program = Program { stream, kind, pool, plan, taken: 0, over: false, seen: false, given_up: false };
        for step in &steps {
            program.step(step)?;
        }
        let Program { mut stream, pool, plan, over, .. } = program;
        match end {
            0 => drop(stream),
            1 => thread::spawn(|| drop(stream)).join().unwrap(),
            2 => {
                let answer = answer(|| block_on(stream.close()));
                prop_assert!(answer.is_ok() || !plan.expected().1.is_empty());
                prop_assert!(watch.end().is_some() || watch.makes() == 0);
                drop(stream);
            }
            _ => {
                let answer = answer(|| block_on(stream.scope(async |items| while items.next().await.is_some() {})));
                prop_assert!(over || answer.is_ok() == plan.expected().1.is_empty());
                prop_assert!(watch.end().is_some() || watch.makes() == 0);
            }
        }
        watch.wait_for_the_end();
        // The pool is none the worse.
        prop_assert_eq!(pool.spawn(|| 1).wait(), 1);
        assert_at_rest(&pool);
    }
}
