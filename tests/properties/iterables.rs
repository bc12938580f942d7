//! Random programs on streams, compared with the plain iterator.

#![forbid(unsafe_code)]

use crate::helpers::iterables::*;
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
    /// `next` on another thread.
    NextElsewhere,
    /// In a pool, waits until the iterator cannot go on.
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

/// An iterator: how many items it has, and what panics.
#[derive(Clone, Debug)]
struct Plan {
    length: usize,
    make_panics: bool,
    /// The item at which `next` panics.
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

    /// The result of the plain iterator: the number of items, and the possible messages of the panic that follows.
    fn expected(&self) -> (usize, &'static [&'static str]) {
        match self.next_panics {
            _ if self.make_panics => (0, &["make"]),
            // If the `Drop` panics too, it is unspecified which panic comes out.
            Some(at) if at < self.length && self.drop_panics => (at, &["next", "the iterator's end"]),
            Some(at) if at < self.length => (at, &["next"]),
            _ if self.drop_panics => (self.length, &["the iterator's end"]),
            _ => (self.length, &[]),
        }
    }

    /// Whether a panic with this message may come out, also of a stream that is closed before its end.
    fn may_say(&self, text: &str) -> bool {
        self.expected().1.contains(&text) || (self.drop_panics && text == "the iterator's end")
    }
}

/// The result of `next`, or the message of its panic.
type Answer = Result<Option<usize>, String>;

/// The result of `ask`, or the message of its panic.
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
    /// The end or the panic has been seen, or the stream was closed.
    over: bool,
    /// The end was seen before the stream was closed, or a panic was seen.
    seen: bool,
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
                prop_assert!(!self.over && self.taken == items, "{} at {}", text, self.taken);
                prop_assert!(self.plan.may_say(&text), "{}", text);
                (self.over, self.seen) = (true, true);
            }
        }
        prop_assert_eq!(self.stream.is_closed(), self.over);
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
                    Ok(Poll::Pending) => prop_assert!(!self.over, "pending after the end"),
                    Ok(Poll::Ready(item)) => self.check(Ok(number(item)))?,
                    Err(text) => self.check(Err(text))?,
                }
            }
            Step::Pause if self.kind == Kind::Pool => until("the pool is at rest", || all_are_idle(&self.pool)),
            Step::Pause => thread::yield_now(),
            Step::CloseOnce => {
                let answer = answer(|| Witness::default().poll(Box::pin(self.stream.close())).is_ready());
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
            // If there are several panics, it is unspecified which ones come out.
            prop_assert!(!self.seen || self.plan.expected().1.len() > 1, "{} came out again", text);
            prop_assert!(self.plan.may_say(&text), "{}", text);
            self.seen = true;
        }
        self.over = true;
        prop_assert!(self.stream.is_closed());
        Ok(())
    }
}

proptest! {
    // No regression files: a failing case is printed, and can be turned into a test.
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Forbids an item that is lost, doubled or out of order, a panic that is lost or looks like the end, a step that
    /// hangs, and a value that is dropped twice or never.
    #[test]
    fn random_programs_agree_with_a_plain_iterator(
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
        let mut program = Program { stream, kind, pool, plan, taken: 0, over: false, seen: false };
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
        // The pool still works.
        prop_assert_eq!(pool.spawn(|| 1).wait(), 1);
        assert_at_rest(&pool);
    }
}
