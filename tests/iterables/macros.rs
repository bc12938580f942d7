//! The decorators `threaded_iterable!` and `threaded_iterable_separate!`: which functions they accept, and what the
//! decorated functions do.

#![forbid(unsafe_code)]
#![allow(
    clippy::multiple_bound_locations,
    clippy::needless_arbitrary_self_type,
    clippy::needless_pass_by_value,
    clippy::unused_self,
    reason = "the functions are odd on purpose; `without_warnings` has functions that are not"
)]

use crate::helpers::iterables::*;
use offthread::{IteratorWrapper, ThreadPool, block_on, threaded_iterable, threaded_iterable_separate};
use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls `call` once for each way to read the stream, and asserts that the items are the same each time.
#[track_caller]
fn each_way<T: Debug + PartialEq + Send + 'static>(call: impl Fn() -> IteratorWrapper<T>, expected: &[T]) {
    assert_eq!(take_all(&mut call()), expected, "awaited");
    assert_eq!(take_all(&mut call().max_size(1)), expected, "with another size");
    assert_eq!(call().sync_call().collect::<Vec<_>>(), expected, "sync_call");
}

/// The same, also in a given pool.
#[track_caller]
fn each_way_and_pool<T: Debug + PartialEq + Send + 'static>(call: impl Fn() -> IteratorWrapper<T>, expected: &[T]) {
    each_way(&call, expected);
    assert_eq!(take_all(&mut call().on(&ThreadPool::new(1))), expected, "in a pool");
}

// --- functions ------------------------------------------------------------------------------------------------------

threaded_iterable! {}
threaded_iterable_separate! {}

threaded_iterable! {
    /// Counts.
    ///
    /// The comment has a second paragraph.
    #[must_use]
    pub fn count(end: u32) -> impl Iterator<Item = u32> { 0..end }

    #[inline]
    fn nothing() -> impl Iterator<Item = ()> { std::iter::empty() }

    fn trailing_comma(a: u32, b: u32,) -> impl Iterator<Item = u32> { a..b }

    fn returns_early(stop: bool) -> impl Iterator<Item = &'static str> {
        if stop {
            return vec!["early"].into_iter();
        }
        vec!["late"].into_iter()
    }

    #[cfg(any())]
    fn left_out(what: NoSuchType) -> impl Iterator<Item = u32> { what.no_such_field }

    #[cfg(not(any()))]
    fn compiled() -> impl Iterator<Item = bool> { [true].into_iter() }

    /** Another kind of comment. */
    #[allow(unused_variables)]
    #[deprecated = "only for the test"]
    fn unused(a: u8, b: u8) -> impl Iterator<Item = u8> { 0..0 }

    fn r#type(r#fn: u32) -> impl Iterator<Item = u32> { r#fn..3 }

    fn mutable(mut from: u32, mut by: u32) -> impl Iterator<Item = u32> {
        from += 1;
        by *= 2;
        (from..).step_by(by as usize).take(3)
    }

    fn tuple((a, mut b): (u32, u32), _: String, [c, ..]: [u32; 3]) -> impl Iterator<Item = u32> {
        b += 1;
        [a, b, c].into_iter()
    }
}

/// Forbids that a macro refuses a plain function, or changes its items.
#[test]
fn plain_functions_can_be_decorated() {
    let _watchdog = watchdog();
    each_way_and_pool(|| count(3), &[0, 1, 2]);
    each_way_and_pool(nothing, &[]);
    each_way_and_pool(|| trailing_comma(1, 3), &[1, 2]);
    each_way_and_pool(|| returns_early(true), &["early"]);
    each_way_and_pool(|| returns_early(false), &["late"]);
    each_way_and_pool(compiled, &[true]);
    #[expect(deprecated, reason = "the attribute has reached the function")]
    let call = || unused(1, 2);
    each_way_and_pool(call, &[]);
    each_way_and_pool(|| r#type(1), &[1, 2]);
    each_way_and_pool(|| mutable(1, 2), &[2, 6, 10]);
    each_way_and_pool(|| tuple((1, 2), String::new(), [3, 4, 5]), &[1, 3, 3]);
}

mod outer {
    pub mod inner {
        offthread::threaded_iterable! {
            pub fn public() -> std::vec::IntoIter<u32> { private().sync_call().collect::<Vec<_>>().into_iter() }
            pub(crate) fn of_the_crate() -> impl Iterator<Item = u32> { 0..super::of_the_parent() }
            pub(super) fn of_super() -> impl Iterator<Item = u32> { self::private().sync_call().next().into_iter() }
            pub(in crate::macros::outer) fn of_a_path(one: super::One) -> impl Iterator<Item = super::One> { [one].into_iter() }
            fn private() -> impl Iterator<Item = u32> { 0..1 }
        }
    }

    #[derive(Clone, Debug, PartialEq)]
    pub struct One(pub u32);

    pub fn of_the_parent() -> u32 {
        2
    }

    pub fn check() {
        super::each_way_and_pool(inner::of_super, &[0]);
        super::each_way_and_pool(|| inner::of_a_path(One(1)), &[One(1)]);
    }
}

/// Forbids that a visibility, or a path in it, is lost.
#[test]
fn visibilities_and_paths_are_kept() {
    let _watchdog = watchdog();
    each_way_and_pool(outer::inner::public, &[0]);
    each_way_and_pool(outer::inner::of_the_crate, &[0, 1]);
    outer::check();
}

/// Forbids that the macros do not work inside a function, or with other brackets.
#[test]
fn the_macros_work_inside_a_function() {
    const BASE: u32 = 40;
    threaded_iterable! {
        fn local(n: u32) -> impl Iterator<Item = u32> { BASE..BASE + n }
        fn other() -> impl Iterator<Item = u32> { local(1).sync_call().next().into_iter() }
    }
    threaded_iterable!(
        fn last() -> std::ops::Range<u8> {
            0..1
        }
    );
    let _watchdog = watchdog();
    each_way_and_pool(|| local(2), &[40, 41]);
    each_way_and_pool(other, &[40]);
    each_way_and_pool(last, &[0]);
}

// --- return types ---------------------------------------------------------------------------------------------------

type Bytes = std::vec::IntoIter<u8>;

threaded_iterable! {
    fn concrete() -> std::vec::IntoIter<u8> { vec![1, 2].into_iter() }
    fn alias() -> Bytes { vec![3].into_iter() }
    fn nested() -> std::vec::IntoIter<Vec<Vec<u8>>> { vec![vec![vec![1]]].into_iter() }
    fn boxed(up: bool) -> Box<dyn Iterator<Item = u32> + Send> {
        if up { Box::new(0..3) } else { Box::new((0..3).rev()) }
    }
    fn range() -> std::ops::Range<u32> { 0..2 }
    fn adapter() -> std::iter::StepBy<std::iter::Skip<std::vec::IntoIter<Option<Option<u8>>>>> {
        vec![Some(None); 3].into_iter().skip(1).step_by(1)
    }
    fn function() -> std::iter::Map<std::ops::Range<u32>, fn(u32) -> u32> { (0..2).map(|n| n + 1) }
    fn sendable() -> impl Iterator<Item = u32> + Send { 0..2 }
    fn with_bounds() -> impl Iterator<Item = u32> + Send + Clone + DoubleEndedIterator { 0..2 }
    fn with_a_lifetime() -> impl Iterator<Item = &'static str> + 'static { ["a"].into_iter() }
    fn with_paths() -> impl Iterator<Item = u8> + std::marker::Send + std::iter::FusedIterator { 0..1 }
    fn nested_item() -> impl Iterator<Item = Vec<Vec<u8>>> { [vec![vec![1]]].into_iter() }
    fn result_item() -> impl Iterator<Item = Result<(u8, [u8; 2]), std::io::Error>> { [Ok((1, [2, 3]))].into_iter() }
    fn bound_of_item() -> impl Iterator<Item = std::collections::BTreeMap<u8, Vec<Option<u8>>>> + Send {
        std::iter::once([(1, vec![None])].into())
    }
}

/// Forbids that a macro refuses a return type that is an iterator, or changes its items.
#[test]
fn any_return_type_that_is_an_iterator_is_accepted() {
    let _watchdog = watchdog();
    each_way_and_pool(concrete, &[1, 2]);
    each_way_and_pool(alias, &[3]);
    each_way_and_pool(nested, &[vec![vec![1]]]);
    each_way_and_pool(|| boxed(true), &[0, 1, 2]);
    each_way_and_pool(|| boxed(false), &[2, 1, 0]);
    each_way_and_pool(range, &[0, 1]);
    each_way_and_pool(adapter, &[Some(None); 2]);
    each_way_and_pool(function, &[1, 2]);
    each_way_and_pool(sendable, &[0, 1]);
    each_way_and_pool(with_bounds, &[0, 1]);
    each_way_and_pool(with_a_lifetime, &["a"]);
    each_way_and_pool(with_paths, &[0]);
    each_way_and_pool(nested_item, &[vec![vec![1]]]);
    assert_eq!(take(&mut result_item()).unwrap().unwrap(), (1, [2, 3]));
    each_way_and_pool(bound_of_item, &[BTreeMap::from([(1, vec![None])])]);
}

// --- max_size -------------------------------------------------------------------------------------------------------

const THREE: usize = 3;

threaded_iterable! {
    #[max_size(2)]
    fn alone(watch: Watch) -> impl Iterator<Item = Item> { watch.numbers() }

    /// Before `max_size`.
    #[max_size(3)]
    #[allow(dead_code)]
    fn between(watch: Watch) -> impl Iterator<Item = Item> { watch.numbers() }

    #[max_size(THREE + 1)]
    /// After `max_size`.
    #[must_use]
    pub(crate) fn first(watch: Watch) -> impl Iterator<Item = Item> + Send { watch.numbers() }

    /// Before `max_size`.
    #[allow(dead_code)]
    #[max_size(5)]
    fn last(watch: Watch) -> Numbers { watch.numbers() }

    fn absent(watch: Watch) -> Numbers { watch.numbers() }

    #[max_size(6)]
    fn generic<T: Into<Watch> + Send + 'static>(watch: T) -> Numbers where T: Clone { watch.into().numbers() }
}

threaded_iterable_separate! {
    #[max_size(7)]
    fn separate(watch: Watch) -> impl Iterator<Item = Item> { watch.numbers() }
    fn separate_absent(watch: Watch) -> Numbers { watch.numbers() }
}

struct Source;

impl Source {
    threaded_iterable! {
        /// A method.
        #[max_size(8)]
        fn method(self: Arc<Self>, watch: Watch) -> impl Iterator<Item = Item> { watch.numbers() }
    }
}

/// Forbids that `#[max_size]` has no effect, or applies to another function.
#[test]
fn max_size_in_the_macro_applies_to_its_function() {
    type Call = (Kind, usize, fn(Watch) -> IteratorWrapper<Item>);
    let _watchdog = watchdog();
    let calls: [Call; 9] = [
        (Kind::Pool, 2, alone),
        (Kind::Pool, 3, between),
        (Kind::Pool, 4, first),
        (Kind::Pool, 5, last),
        (Kind::Pool, 1024, absent),
        (Kind::Pool, 6, generic),
        (Kind::Separate, 7, separate),
        (Kind::Separate, 1024, separate_absent),
        (Kind::Pool, 8, |watch| Arc::new(Source).method(watch)),
    ];
    for (kind, max_size, call) in calls {
        // A size that is given at the call takes precedence.
        for given in [None, Some(1)] {
            let (pool, watch) = (ThreadPool::new(1), Watch::default());
            let mut stream = call(watch.clone());
            if kind == Kind::Pool {
                stream = stream.on(&pool);
            }
            if let Some(max_size) = given {
                stream = stream.max_size(max_size);
            }
            let max_size = given.unwrap_or(max_size);
            let taken = usize::from(poll_once(&mut stream).is_ready());
            until("the buffer is full", || watch.calls() >= max_size && all_are_idle(&pool));
            // Gives the iterator time to make too many items.
            for round in 0..20 {
                assert!(watch.calls() <= max_size + taken, "not {max_size}, in round {round}");
                std::thread::yield_now();
            }
            assert_eq!(take(&mut stream).unwrap().number, taken);
        }
    }
}

// --- generic parameters ---------------------------------------------------------------------------------------------

trait Shape {
    type Side;
}

struct Square;

impl Shape for Square {
    type Side = u32;
}

threaded_iterable! {
    fn flatten<T: Clone + Into<Vec<Vec<u8>>> + Send + 'static>(items: Vec<Vec<T>>) -> impl Iterator<Item = Vec<u8>> {
        items.into_iter().flatten().flat_map(Into::into)
    }

    fn reversed<T: Send + 'static, const N: usize>(mut items: [T; N]) -> std::array::IntoIter<T, N> {
        items.reverse();
        items.into_iter()
    }

    fn kept<K, V, F>(items: Vec<(K, V)>, mut keep: F) -> impl Iterator<Item = (K, Option<V>)> + Send
    where
        K: Ord + Send + 'static,
        V: Clone + Send + 'static,
        F: FnMut(&V) -> Option<V> + Send + 'static,
    {
        items.into_iter().map(move |(key, value)| (key, keep(&value)))
    }

    fn with_impl(
        make: impl Fn(u32) -> Vec<Vec<u32>> + Send + 'static,
        times: impl Into<u32> + Send + 'static,
    ) -> impl Iterator<Item = Vec<u32>> {
        make(times.into()).into_iter()
    }

    fn with_lifetimes<'a: 'static, F: for<'x> Fn(&'x str) -> &'x str + Send + 'static>(
        text: &'a str, f: F,
    ) -> impl Iterator<Item = char>
    where
        for<'y> F: Fn(&'y str) -> &'y str,
    {
        f(text).to_owned().into_bytes().into_iter().map(char::from)
    }

    fn qualified<S: Shape<Side = u32>>(end: <S as Shape>::Side) -> impl Iterator<Item = <S as Shape>::Side> { 0..end }

    fn concrete_where<T>(items: Vec<T>) -> std::vec::IntoIter<T> where T: Send + 'static { items.into_iter() }

    fn unsized_<T: ?Sized + Display>(text: Box<T>) -> std::vec::IntoIter<String> where Box<T>: Send + 'static {
        vec![text.to_string()].into_iter()
    }
}

/// Forbids that generic parameters, bounds or `where` clauses are refused or lost.
#[test]
fn generic_functions_can_be_decorated() {
    let _watchdog = watchdog();
    each_way_and_pool(|| flatten(vec![vec![vec![vec![1]], vec![vec![2], vec![3]]]]), &[vec![1], vec![2], vec![3]]);
    each_way_and_pool(|| reversed(["a", "b", "c"]), &["c", "b", "a"]);
    let keep = |n: &u32| Some(*n).filter(|n| *n > 1);
    each_way_and_pool(|| kept(vec![("one", 1), ("two", 2)], keep), &[("one", None), ("two", Some(2))]);
    each_way_and_pool(|| with_impl(|n| vec![vec![n]; 2], 3_u8), &[vec![3], vec![3]]);
    each_way_and_pool(|| with_lifetimes(" ab ", str::trim), &['a', 'b']);
    each_way_and_pool(|| qualified::<Square>(2), &[0, 1]);
    each_way_and_pool(|| concrete_where(vec![1, 2]), &[1, 2]);
    each_way_and_pool(|| unsized_::<str>("text".into()), &["text".to_owned()]);
}

// --- methods --------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq)]
struct Counter {
    count: u32,
}

static SHARED: Counter = Counter { count: 2 };

impl Counter {
    const STEP: usize = 2;

    threaded_iterable! {
        /// Has no receiver.
        pub fn all(end: u32) -> impl Iterator<Item = Self> { (0..end).map(|count| Self { count }) }
        fn up(self) -> impl Iterator<Item = u32> { 0..self.count }
        fn up_mut(mut self, by: u32) -> impl Iterator<Item = u32> {
            self.count += by;
            (0..self.count).step_by(Self::STEP)
        }
        fn of_arc(self: Arc<Self>, add: u32) -> impl Iterator<Item = u32> { 0..self.count + add }
        fn of_path(self: std::sync::Arc<Counter>) -> std::ops::Range<u32> { 0..self.count }
        fn of_box(mut self: Box<Self>) -> impl Iterator<Item = u32> {
            self.count += 1;
            0..self.count
        }
        fn of_static(&'static self) -> impl Iterator<Item = &'static u32> { std::iter::once(&self.count) }
        fn unused(self) -> impl Iterator<Item = u32> { 0..1 }
        fn generic<T: Into<u32> + Send + 'static>(self, by: T) -> std::ops::Range<u32> where Self: Clone {
            self.count..by.into()
        }
    }
}

struct Wrapper<T>(T);

impl<T: Clone + Send + 'static> Wrapper<T> {
    threaded_iterable! {
        fn repeat<U: Send + Clone + 'static>(self, other: U) -> impl Iterator<Item = (T, U)> {
            std::iter::repeat_n((self.0, other), 2)
        }
        fn once(self) -> std::iter::Once<T> where T: Debug { std::iter::once(self.0) }
    }
}

/// Forbids that a macro refuses one of these receivers, or a function without a receiver.
#[test]
fn methods_can_be_decorated() {
    let _watchdog = watchdog();
    let counter = || Counter { count: 2 };
    each_way_and_pool(|| Counter::all(2), &[Counter { count: 0 }, Counter { count: 1 }]);
    each_way_and_pool(|| counter().up(), &[0, 1]);
    each_way_and_pool(|| counter().up_mut(1), &[0, 2]);
    each_way_and_pool(|| Arc::new(counter()).of_arc(1), &[0, 1, 2]);
    each_way_and_pool(|| Arc::new(counter()).of_path(), &[0, 1]);
    each_way_and_pool(|| Box::new(counter()).of_box(), &[0, 1, 2]);
    each_way_and_pool(|| SHARED.of_static(), &[&2]);
    each_way_and_pool(|| counter().unused(), &[0]);
    each_way_and_pool(|| counter().generic(4_u8), &[2, 3]);
    each_way_and_pool(|| Wrapper("a").repeat(1), &[("a", 1); 2]);
    each_way_and_pool(|| Wrapper("a").once(), &["a"]);
}

// --- start and thread -----------------------------------------------------------------------------------------------

static CALLS: AtomicUsize = AtomicUsize::new(0);

threaded_iterable! {
    fn counted(_guard: Traced) -> impl Iterator<Item = usize> { std::iter::once(CALLS.fetch_add(1, Ordering::SeqCst)) }
}

/// Forbids that the call alone runs the body, or that a stream that never runs leaks its arguments.
#[test]
fn the_body_runs_at_the_first_poll() {
    let _watchdog = watchdog();
    let (guard, dropped) = traced();
    drop(counted(guard));
    assert_eq!(dropped.recv(), Ok(here().0));
    let mut made = counted(traced().0);
    assert_eq!(CALLS.load(Ordering::SeqCst), 0);
    assert_eq!(take_all(&mut made), [0]);
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
}

threaded_iterable_separate! {
    /// Returns an iterator that need not be `Send`.
    fn listener(a: u32) -> impl Iterator<Item = (u32, String)> {
        let a = std::rc::Rc::new(a);
        (0..2).map(move |n| (*a + n, own_name()))
    }
    fn concrete_listener() -> Box<dyn Iterator<Item = String>> { Box::new(std::iter::once_with(own_name)) }
    fn generic_listener<T: Display + Send + 'static>(mut text: Vec<Vec<T>>) -> impl Iterator<Item = String> where T: Clone {
        let last = text.pop().unwrap().remove(0);
        std::iter::once_with(move || format!("{last} in {}", own_name()))
    }
}

impl Counter {
    threaded_iterable_separate! {
        fn listen(self: Arc<Self>) -> impl Iterator<Item = (u32, String)> { std::iter::once((self.count, own_name())) }
        fn create() -> std::iter::Once<String> { std::iter::once(own_name()) }
    }
}

/// Forbids that a separate thread lacks the name of its function, or the given one; or that it accepts a pool.
#[test]
fn separate_threads_are_named_after_the_function() {
    let _watchdog = watchdog();
    let named = |number, name: &str| (number, name.to_owned());
    assert_eq!(take_all(&mut listener(1)), [named(1, "listener"), named(2, "listener")]);
    assert_eq!(take_all(&mut listener(1).name("another")), [named(1, "another"), named(2, "another")]);
    assert!(listener(1).sync_call().eq([named(1, &own_name()), named(2, &own_name())]));
    assert_eq!(take_all(&mut concrete_listener()), ["concrete_listener"]);
    assert_eq!(take_all(&mut generic_listener(vec![vec![1]])), ["1 in generic_listener"]);
    assert_eq!(take_all(&mut Arc::new(Counter { count: 2 }).listen()), [named(2, "listen")]);
    assert_eq!(take_all(&mut Counter::create()), ["create"]);
    assert_says(&panic_of(|| listener(1).on(&ThreadPool::new(1))), "separate");
}

/// Shadows names that the macros might use.
mod shadowed {
    #![allow(dead_code, unused_macros)]
    trait Send {}
    trait Iterator {}
    trait IntoIterator {}
    trait FnOnce {}
    struct IteratorWrapper;
    mod offthread {}
    fn threaded_iterable() {}
    macro_rules! stringify {
        () => {};
    }

    ::offthread::threaded_iterable! { pub fn one() -> std::ops::Range<u32> { 0..1 } }
    ::offthread::threaded_iterable_separate! { #[max_size(2)] pub fn two() -> std::ops::Range<u32> { 0..2 } }
}

/// Forbids that the macros depend on names at the call site.
#[test]
fn shadowed_names_do_no_harm() {
    let _watchdog = watchdog();
    each_way(shadowed::one, &[0]);
    each_way(shadowed::two, &[0, 1]);
}

/// The macros cause no warnings. (Clippy's warnings show only when clippy checks the tests.)
pub mod without_warnings {
    #![deny(warnings, missing_docs, unused, clippy::all, clippy::pedantic)]

    use offthread::{threaded_iterable, threaded_iterable_separate};
    use std::path::PathBuf;
    use std::sync::Arc;

    threaded_iterable! {
        /// Takes its argument by value, although the body only reads it.
        pub fn parts(path: PathBuf) -> impl Iterator<Item = String> {
            let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            parts.into_iter()
        }

        /// Keeps `_permit` until the iterator has been made.
        #[max_size(2)]
        pub fn with_permit(_permit: Arc<u32>, _: String, mut items: Vec<u32>) -> std::vec::IntoIter<u32> {
            items.push(1);
            items.into_iter()
        }
    }

    /// Has methods.
    #[derive(Debug)]
    pub struct Thing(u32);

    impl Thing {
        /// Makes a thing.
        #[must_use]
        pub const fn new(number: u32) -> Self {
            Self(number)
        }

        threaded_iterable! {
            /// By value.
            pub fn up(self) -> impl Iterator<Item = u32> { 0..self.0 }
            /// By `Arc`.
            pub fn of_arc(self: Arc<Self>) -> impl Iterator<Item = u32> + Send { 0..self.0 }
            /// Does not use `self`.
            pub fn unused(self) -> std::ops::Range<u32> { 0..1 }
        }
        threaded_iterable_separate! {
            /// In a thread of its own.
            #[max_size(3)]
            pub fn apart(self, _times: u32) -> impl Iterator<Item = u32> { 0..self.0 }
        }
    }
}

/// Forbids that the functions of `without_warnings` do not work.
#[test]
fn the_functions_without_warnings_work() {
    use without_warnings as them;
    let _watchdog = watchdog();
    each_way_and_pool(|| them::parts("a/b".into()), &["a".to_owned(), "b".to_owned()]);
    each_way_and_pool(|| them::with_permit(Arc::new(1), String::new(), vec![]), &[1]);
    each_way_and_pool(|| them::Thing::new(2).up(), &[0, 1]);
    each_way_and_pool(|| Arc::new(them::Thing::new(1)).of_arc(), &[0]);
    each_way_and_pool(|| them::Thing::new(1).unused(), &[0]);
    each_way(|| them::Thing::new(1).apart(2), &[0]);
}

/// Forbids that a stream of a decorated function does not work in a `scope`.
#[test]
fn a_decorated_function_works_in_a_scope() {
    let _watchdog = watchdog();
    let watch = Watch::default();
    let first = block_on(alone(watch.clone()).scope(async |items| items.next().await.unwrap().number));
    assert_eq!(first, 0);
    assert!(watch.end().is_some());
    watch.wait_for_the_end();
}
