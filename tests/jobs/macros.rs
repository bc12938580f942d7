//! The decorators `threaded!` and `threaded_separate!`: which functions they accept, what the decorated functions do,
//! and the error messages for other functions.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the tests use std's types, not the crate's")]
#![allow(
    clippy::multiple_bound_locations,
    clippy::needless_arbitrary_self_type,
    clippy::needless_pass_by_value,
    clippy::redundant_allocation,
    clippy::too_many_arguments,
    reason = "the functions are odd on purpose; `without_warnings` has functions that are not"
)]

use offthread::{ThreadPool, Threaded, block_on, threaded, threaded_separate};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::{Debug, Display, Write};
use std::num::ParseIntError;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::{env, fs};

/// Runs the call that `call` returns in each of the four ways, and asserts the same result each time.
#[track_caller]
fn each_way<F, R>(call: impl Fn() -> Threaded<F>, expected: &R)
where
    F: FnOnce() -> R + Send + 'static,
    R: Debug + PartialEq + Send + 'static,
{
    assert_eq!(block_on(async { call().await }), *expected, "awaited");
    assert_eq!(block_on(call().async_call()), *expected, "async_call");
    assert_eq!(call().sync_call(), *expected, "sync_call");
    assert_eq!(block_on(async { call().on(&ThreadPool::new(1)).await }), *expected, "in a pool");
}

// --- functions ------------------------------------------------------------------------------------------------------

threaded! {}
threaded_separate! {}

threaded! {
    /// Parses a number.
    ///
    /// The comment has a second paragraph.
    #[must_use]
    pub fn parse(text: String) -> Result<u32, ParseIntError> {
        let number: u32 = text.parse()?;
        Ok(number)
    }

    #[inline]
    fn nothing() {}

    fn trailing_comma(a: u32, b: u32,) -> u32 { a + b }

    fn returns_early(stop: bool) -> &'static str {
        if stop {
            return "early";
        }
        "late"
    }

    #[cfg(any())]
    fn left_out(what: NoSuchType) -> u32 { what.no_such_field }

    #[cfg(not(any()))]
    fn compiled() -> bool { true }

    /** Another kind of comment. */
    #[allow(unused_variables)]
    #[deprecated = "only for the test"]
    fn unused(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8) {}

    fn r#type(r#fn: u32) -> u32 { r#fn + 1 }

    fn factorial(n: u64) -> u64 { if n == 0 { 1 } else { n * factorial(n - 1).sync_call() } }
}

#[test]
fn plain_functions_can_be_decorated() {
    each_way(|| parse("42".into()), &Ok(42));
    each_way(|| parse("4.2".into()).on(ThreadPool::global()), &"4.2".parse());
    each_way(nothing, &());
    each_way(|| trailing_comma(1, 2), &3);
    each_way(|| returns_early(true), &"early");
    each_way(|| returns_early(false), &"late");
    each_way(compiled, &true);
    #[expect(deprecated, reason = "the attribute has reached the function")]
    let call = || unused(1, 2, 3, 4, 5, 6, 7, 8);
    each_way(call, &());
    each_way(|| r#type(1), &2);
    each_way(|| factorial(5), &120);
}

mod outer {
    pub mod inner {
        offthread::threaded! {
            pub fn public() -> u32 { private().sync_call() }
            pub(crate) fn of_the_crate() -> u32 { super::of_the_parent() }
            pub(super) fn of_super() -> u32 { self::private().sync_call() + crate::macros::outer::of_the_parent() }
            pub(in crate::macros::outer) fn of_a_path(one: super::One) -> super::One { super::One(one.0 + 1) }
            fn private() -> u32 { 1 }
        }
    }

    #[derive(Clone, Debug, PartialEq)]
    pub struct One(pub u32);

    pub fn of_the_parent() -> u32 {
        2
    }

    pub fn check() {
        super::each_way(inner::of_super, &3);
        super::each_way(|| inner::of_a_path(One(1)), &One(2));
    }
}

#[test]
fn visibilities_and_paths_are_kept() {
    each_way(outer::inner::public, &1);
    each_way(outer::inner::of_the_crate, &2);
    outer::check();
}

#[test]
fn the_macros_work_inside_a_function() {
    const BASE: u32 = 40;
    threaded! {
        fn local(n: u32) -> u32 { BASE + n }
        fn other() -> u32 { local(1).sync_call() }
    }
    each_way(|| local(2), &42);
    each_way(other, &41);
    threaded!(
        fn last() {}
    );
    each_way(last, &());
}

// --- generic parameters ---------------------------------------------------------------------------------------------

trait Shape {
    type Side;
    const SIDES: usize;
}

#[derive(Clone, Debug, PartialEq)]
struct Square;

impl Shape for Square {
    type Side = u32;
    const SIDES: usize = 4;
}

/// For bounds with constants in angle brackets, like the two traits below.
struct Sizes<const N: i32>;

trait Allowed {}

trait Between<const LOW: i32, const HIGH: i32> {}

impl Between<-1, 1> for Vec<u8> {}
impl Allowed for Sizes<-1> {}
impl Allowed for Sizes<3> {}

threaded! {
    fn flatten<T: Clone + Into<Vec<Vec<u8>>> + Send + 'static>(items: Vec<Vec<T>>) -> Vec<Vec<u8>> {
        items.into_iter().flatten().flat_map(Into::into).collect()
    }

    fn reversed<T: Send + 'static, const N: usize>(mut items: [T; N]) -> [T; N] {
        items.reverse();
        items
    }

    fn grouped<K, V, F>(items: Vec<(K, V)>, mut keep: F) -> BTreeMap<K, Vec<V>>
    where
        K: Ord + Send + 'static,
        V: Clone + Send + 'static,
        F: FnMut(&V) -> Option<V> + Send + 'static,
    {
        let mut groups = BTreeMap::<K, Vec<V>>::new();
        for (key, value) in items {
            groups.entry(key).or_default().extend(keep(&value));
        }
        groups
    }

    fn with_impl(
        make: impl Fn(u32) -> Vec<Vec<u32>> + Send + 'static,
        times: impl Into<u32> + Send + 'static,
    ) -> usize {
        make(times.into()).len()
    }

    fn with_lifetimes<'a: 'static, 'b, F: for<'x> Fn(&'x str) -> &'x str + Send + 'static>(
        text: &'a str, f: F,
    ) -> String
    where
        'b: 'a,
        for<'y> F: Fn(&'y str) -> &'y str,
    {
        f(text).to_owned()
    }

    fn qualified<S: Shape<Side = u32> + Send + 'static>(shape: S, side: <S as Shape>::Side) -> Option<Option<usize>>
    where
        Option<<S as Shape>::Side>: PartialEq<Option<<S as Shape>::Side>>,
    {
        drop(shape);
        Some(Some(S::SIDES)).filter(|_| Some(side) == Some(1))
    }

    fn shifted<T: From<<Square as Shape>::Side>>(by: u32) -> u32 where T: Into<u32> { T::from(1 << by).into() }

    #[allow(unused_braces)]
    fn with_constants<T: Between<-1, 1> + PartialEq<[u8; { 1 + 1 }]> + Send + 'static>(t: T, u: [u8; 2]) -> bool
    where
        Sizes<-1>: Allowed,
        Sizes<{ 1 + 2 }>: Allowed,
        (Sizes<3>, u8): Into<(Sizes<{ 1 + 2 }>, u8)>,
        Wrapper<Sizes<{ 3 }>>: Any,
        Vec<u8>: Between<{ -1 }, { 1 }>,
    {
        t == u
    }

    fn unsized_<T: ?Sized + Display>(text: Box<T>) -> String where Box<T>: Send + 'static { text.to_string() }
}

#[test]
fn generic_functions_can_be_decorated() {
    each_way(|| flatten(vec![vec![vec![vec![1]], vec![vec![2], vec![3]]]]), &vec![vec![1], vec![2], vec![3]]);
    each_way(|| reversed(["a", "b", "c"]), &["c", "b", "a"]);
    let items = vec![("odd", 1), ("even", 2), ("odd", 3), ("none", 0)];
    let expected = BTreeMap::from([("odd", vec![1, 3]), ("even", vec![2]), ("none", vec![])]);
    each_way(|| grouped(items.clone(), |n| Some(*n).filter(|n| *n > 0)), &expected);
    each_way(|| with_impl(|n| vec![vec![]; n as usize], 3_u8), &3);
    each_way(|| with_lifetimes(" text ", str::trim), &"text".to_owned());
    each_way(|| qualified(Square, 1), &Some(Some(4)));
    each_way(|| shifted::<u32>(3), &8);
    each_way(|| with_constants(vec![1, 2], [1, 2]), &true);
    each_way(|| unsized_::<str>("text".into()), &"text".to_owned());
}

/// The result of a decorated function borrows nothing, whatever lifetimes the signature has.
#[test]
fn the_result_borrows_nothing() {
    trait Named<'a> {
        fn name(&self) -> u32;
    }
    impl Named<'_> for u32 {
        fn name(&self) -> u32 {
            *self
        }
    }
    threaded! {
        fn name<'a, T: Named<'a> + Send + 'static>(item: T) -> u32 { item.name() }
    }
    fn is_static<T: 'static>(item: T) -> T {
        item
    }
    assert_eq!(block_on(is_static(name(3))), 3);
}

// --- arguments ------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy)]
struct Point {
    x: i32,
    y: i32,
}

struct Wrapper<T>(T);

mod shapes {
    pub struct Pair(pub u32, pub Inner);
    pub struct Inner {
        pub n: u32,
    }
    pub struct Unit;
}

use shapes::Unit;

threaded! {
    fn tuple((a, mut b): (u32, u32), mut c: u32) -> u32 {
        b += 1;
        c += 1;
        a + b + c
    }

    fn nothing_named(_: String, _: u32, (): ()) -> u32 { 1 }
    fn fields(Point { x, y: height }: Point, Point { y, .. }: Point) -> (i32, i32, i32) { (x, height, y) }
    fn nested(Wrapper((a, [b, .., c])): Wrapper<(u8, [u8; 4])>) -> [u8; 3] { [a, b, c] }
    fn path(shapes::Pair(a, self::shapes::Inner { n: b, .. }): shapes::Pair, c: u32) -> u32 { a + b + c }
    fn reference(&a: &'static u32, ref b: String, ref mut c: Vec<u32>) -> String {
        c.push(a);
        format!("{b}{c:?}")
    }
    fn bound(all @ Point { x, .. }: Point, Unit: Unit) -> i32 { all.y + x }
    fn either((Ok(n) | Err(n)): Result<u32, u32>) -> u32 { n }
    fn with_attributes(
        #[cfg(any())] gone: NoSuchType,
        #[allow(unused_mut)] mut kept: u32,
        #[cfg(all())] #[allow(unused)] (a, b): (u32, u32),
    ) -> u32 {
        kept + b
    }
    fn argument(argument: u32, _: u32) -> u32 { argument }
}

#[test]
fn arguments_may_be_patterns() {
    each_way(|| tuple((1, 2), 3), &8);
    each_way(|| nothing_named("text".into(), 2, ()), &1);
    each_way(|| fields(Point { x: 1, y: 2 }, Point { x: 3, y: 4 }), &(1, 2, 4));
    each_way(|| nested(Wrapper((1, [2, 3, 4, 5]))), &[1, 2, 5]);
    each_way(|| path(shapes::Pair(1, shapes::Inner { n: 2 }), 3), &6);
    each_way(|| reference(&1, "text".into(), vec![2]), &"text[2, 1]".to_owned());
    each_way(|| bound(Point { x: 1, y: 2 }, Unit), &3);
    each_way(|| either(Err(3)), &3);
    each_way(|| with_attributes(1, (2, 3)), &4);
    each_way(|| argument(1, 2), &1);
}

/// The values that were used or dropped, in order, each with the thread on which this happened.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(&'static str, ThreadId)>>>);

impl Log {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap().push((what, thread::current().id()));
    }

    fn take(&self) -> (Vec<&'static str>, Vec<ThreadId>) {
        self.0.lock().unwrap().drain(..).unzip()
    }

    fn drops(&self, name: &'static str) -> Noted {
        Noted(name, self.clone())
    }
}

/// Adds an entry to the log when it is dropped.
struct Noted(&'static str, Log);

impl Drop for Noted {
    fn drop(&mut self) {
        self.1.note(self.0);
    }
}

struct Two {
    left: Noted,
    right: Noted,
}

/// Defines the same functions twice: plain and decorated.
macro_rules! plain_and_decorated {
    ($($function:tt)*) => {
        struct Plain(Two);
        struct Decorated(Two);
        impl Plain { $($function)* }
        impl Decorated { threaded! { $($function)* } }
    };
}

plain_and_decorated! {
    fn run(
        self,
        _guard: Noted,
        _: Noted,
        two: Two,
        (first, _): (Noted, Noted),
        Two { left: _, .. }: Two,
        mut last: Noted,
        log: Log,
    ) {
        let _local = log.drops("local");
        log.note(two.left.0);
        log.note(self.0.right.0);
        log.note(first.0);
        last.0 = "last, changed";
    }
}

#[test]
fn arguments_live_as_long_as_in_a_plain_function() {
    let log = Log::default();
    let two = |left, right| Two { left: log.drops(left), right: log.drops(right) };
    macro_rules! run {
        ($kind:ident) => {
            $kind(two("self.left", "self.right")).run(
                log.drops("_guard"),
                log.drops("_"),
                two("two.left", "two.right"),
                (log.drops("first"), log.drops("second")),
                two("unbound.left", "unbound.right"),
                log.drops("last"),
                log.clone(),
            )
        };
    }
    run!(Plain);
    let (expected, _) = log.take();
    assert_eq!(expected.len(), 3 + 1 + 11, "{expected:?}");

    run!(Decorated).sync_call();
    assert_eq!(log.take().0, expected);

    let made = run!(Decorated);
    assert_eq!(log.take().0, [""; 0], "the call alone has dropped something");
    let pool = ThreadPool::new(1);
    let there = block_on(pool.spawn(|| thread::current().id()));
    block_on(made.on(&pool));
    let (names, threads) = log.take();
    assert_eq!(names, expected);
    assert!(threads.iter().all(|thread| *thread == there), "a value was not dropped on the pool's thread");

    drop(run!(Decorated));
    assert_eq!(log.take().0.len(), 11, "a call that never runs must drop its arguments");
}

// --- methods --------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq)]
struct Counter {
    count: u32,
}

static SHARED: Counter = Counter { count: 5 };

impl Counter {
    const STEP: u32 = 1;

    threaded! {
        /// Has no receiver.
        pub fn starting_at(count: u32) -> Self { Self { count } }
        fn largest(counters: Vec<Self>) -> Option<Self> { counters.into_iter().max_by_key(|counter| counter.count) }
        fn value(self) -> u32 { self.count }
        fn next(mut self, by: u32) -> Self {
            self.count += by * Self::STEP;
            self
        }
        fn of_arc(self: Arc<Self>, add: u32) -> u32 { self.count + add }
        fn of_path(self: std::sync::Arc<Counter>) -> u32 { self.of_arc(1).sync_call() }
        fn of_box(mut self: Box<Self>) -> Box<Self> {
            self.count += 1;
            self
        }
        fn of_self(self: Self,) -> u32 { self.count }
        fn of_nested(self: Box<Arc<Self>>) -> u32 { self.count }
        fn of_static(&'static self) -> u32 { self.count }
        fn of_static_type(self: &'static Self, add: u32) -> u32 { self.count + add }
        fn unused(self) -> u32 { 1 }
        fn generic<T: Into<u32> + Send + 'static>(self, by: T) -> u32 where Self: Clone { self.count + by.into() }
    }
}

impl<T: Clone + Send + 'static> Wrapper<T> {
    threaded! {
        fn pair<U: Send + 'static>(self, other: U) -> (T, U) { (self.0.clone(), other) }
        fn unwrap(self) -> T where T: Debug { self.0 }
    }
}

trait Greet: Send + Sized + 'static {
    fn name(&self) -> String;

    threaded! {
        fn greet(self) -> String { format!("hello {}", self.name()) }
    }
}

impl Greet for &'static str {
    fn name(&self) -> String {
        (*self).to_owned()
    }
}

#[test]
fn methods_can_be_decorated() {
    let counter = Counter { count: 1 };
    each_way(|| Counter::starting_at(1), &counter);
    each_way(|| Counter::largest(vec![]), &None);
    each_way(|| counter.clone().value(), &1);
    each_way(|| counter.clone().next(2), &Counter { count: 3 });
    let arc = Arc::new(counter.clone());
    each_way(|| Arc::clone(&arc).of_arc(2), &3);
    each_way(|| Arc::clone(&arc).of_path(), &2);
    each_way(|| Box::new(counter.clone()).of_box(), &Box::new(Counter { count: 2 }));
    each_way(|| counter.clone().of_self(), &1);
    each_way(|| Box::new(Arc::clone(&arc)).of_nested(), &1);
    each_way(|| SHARED.of_static(), &5);
    each_way(|| SHARED.of_static_type(1), &6);
    each_way(|| counter.clone().unused(), &1);
    each_way(|| counter.clone().generic(2_u8), &3);
    each_way(|| Wrapper("text").pair(1), &("text", 1));
    each_way(|| Wrapper("text").unwrap(), &"text");
    each_way(|| "world".greet(), &"hello world".to_owned());
}

// --- threads of their own -------------------------------------------------------------------------------------------

fn thread_name() -> Option<String> {
    thread::current().name().map(str::to_owned)
}

threaded_separate! {
    /// Runs in a thread of its own.
    fn separate(a: u32, (b, _): (u32, u32)) -> u32 { a + b }
    fn listener() -> Option<String> { thread_name() }
    fn generic_listener<T: Into<String> + Send + 'static>(mut text: T) -> String where T: Clone {
        text = text.clone();
        format!("{} in {}", text.into(), thread_name().unwrap())
    }
    fn thread_id() -> ThreadId { thread::current().id() }
}

impl Counter {
    threaded_separate! {
        fn listen(self: Arc<Self>) -> (u32, Option<String>) { (self.count, thread_name()) }
        fn create() -> Option<String> { thread_name() }
    }
}

#[test]
fn separate_threads_are_named_after_the_function() {
    each_way(|| separate(1, (2, 3)), &3);
    block_on(async {
        assert_eq!(listener().await.as_deref(), Some("listener"));
        assert_eq!(listener().name("another").await.as_deref(), Some("another"));
        assert_eq!(listener().async_call().await.as_deref(), Some("listener"));
        assert_eq!(listener().sync_call(), thread_name());
        assert_eq!(generic_listener("text").await, "text in generic_listener");
        assert_eq!(Arc::new(Counter { count: 2 }).listen().await, (2, Some("listen".to_owned())));
        assert_eq!(Counter::create().await.as_deref(), Some("create"));
        assert_ne!(thread_id().await, thread_id().await);
    });
}

// --- names and macros at the call site ------------------------------------------------------------------------------

/// Shadows names that the macros might use.
mod shadowed {
    #![allow(dead_code, unused_macros)]
    trait Send {}
    trait FnOnce {}
    struct Threaded;
    mod offthread {}
    fn threaded() {}
    fn threaded_separate() {}
    macro_rules! stringify {
        () => {};
    }
    macro_rules! concat {
        () => {};
    }

    ::offthread::threaded! { pub fn one() -> u32 { 1 } }
    ::offthread::threaded_separate! { pub fn two() -> u32 { 2 } }
}

#[test]
fn shadowed_names_do_no_harm() {
    each_way(shadowed::one, &1);
    each_way(shadowed::two, &2);
}

macro_rules! functions_with_eight_arguments {
    ($($name:ident)*) => {
        threaded! {
            $(
                /// From a macro.
                fn $name<T: Into<Vec<Vec<u32>>> + Send + 'static, U>(
                    a: u32, mut b: u32, (c, d): (u32, u32), e: T, f: U, _: u32, g: u32, h: &'static str,
                ) -> Vec<Vec<u32>>
                where
                    U: Into<Vec<Vec<u32>>> + Send + 'static,
                {
                    b += a + c + d + g;
                    let mut all = vec![vec![b], vec![h.len().try_into().unwrap()]];
                    all.extend(e.into());
                    all.extend(f.into());
                    all
                }
            )*
        }

        #[test]
        fn one_invocation_may_have_thirty_functions() {
            let names = [$(stringify!($name)),*];
            assert_eq!(names.len(), 30);
            let expected = vec![vec![16], vec![4], vec![7], vec![8]];
            $(each_way(|| $name(1, 2, (3, 4), [vec![7]], [vec![8]], 0, 6, "text"), &expected);)*
        }
    };
}

functions_with_eight_arguments! {
    f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12 f13 f14 f15 f16 f17 f18 f19 f20 f21 f22 f23 f24 f25 f26 f27 f28 f29 f30
}

/// The macros cause no warnings. (Clippy's warnings show only when clippy checks the tests.)
pub mod without_warnings {
    #![deny(warnings, missing_docs, unused, clippy::all, clippy::pedantic)]

    use offthread::{threaded, threaded_separate};
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    threaded! {
        /// Takes its argument by value, although the body only reads it.
        pub fn exists(path: PathBuf) -> bool { Path::new(&path).exists() }

        /// Keeps `_permit` until the end.
        ///
        /// And has two paragraphs.
        #[must_use]
        pub fn with_permit(_permit: Arc<u32>, _: String, mut items: Vec<u32>, (a, _b): (u32, u32)) -> Option<u32> {
            items.push(a);
            items.pop()
        }

        /// Has no sections about its errors and panics.
        pub fn fails(text: String) -> Result<u32, std::num::ParseIntError> {
            let number: u32 = text.parse()?;
            assert!(number > 0);
            Ok(number)
        }

        /// Returns nothing.
        pub fn nothing() {}
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

        threaded! {
            /// By value.
            pub fn get(self) -> u32 { self.0 }
            /// Changes `self`.
            pub fn change(mut self) -> u32 {
                self.0 += 1;
                self.0
            }
            /// By `Arc`.
            pub fn of_arc(self: Arc<Self>) -> u32 { self.0 }
            /// Does not use `self`.
            pub fn unused(self) -> u32 { 1 }
            /// Has no receiver.
            pub fn make() -> Self { Self(1) }
        }
        threaded_separate! {
            /// In a thread of its own.
            pub fn apart(self, _times: u32) -> u32 { self.0 }
        }
    }
}

#[test]
fn the_functions_without_warnings_work() {
    use without_warnings as them;
    each_way(|| them::exists("no such file".into()), &false);
    each_way(|| them::with_permit(Arc::new(1), String::new(), vec![], (1, 2)), &Some(1));
    each_way(|| them::fails("3".into()), &Ok(3));
    each_way(them::nothing, &());
    each_way(|| them::Thing::new(1).get(), &1);
    each_way(|| them::Thing::new(1).change(), &2);
    each_way(|| Arc::new(them::Thing::new(1)).of_arc(), &1);
    each_way(|| them::Thing::new(2).unused(), &1);
    each_way(|| them::Thing::make().sync_call().get(), &1);
    each_way(|| them::Thing::new(1).apart(2), &1);
}

// --- messages of users' compilers -----------------------------------------------------------------------------------

/// Checks a program that imports the crate as `blocking`. Returns whether it compiles, and the compiler's output by
/// line.
fn check(name: &str, program: &str) -> (bool, Vec<String>) {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("macros");
    let folder = all.join(name);
    fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = {name:?}\nedition = \"2021\"\n\n\
         [dependencies]\nblocking = {{ package = \"offthread\", path = {:?} }}\n\n[workspace]\n",
        env!("CARGO_MANIFEST_DIR"),
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.join("src/main.rs"), program).unwrap();
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["check", "--quiet", "--offline", "--message-format", "short", "--color", "never", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(all.join("target"))
        // The output must not depend on the flags that these tests were built with.
        .env("RUSTFLAGS", "")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo starts");
    let lines = String::from_utf8_lossy(&output.stderr).lines().map(|line| line.replace('\\', "/")).collect();
    (output.status.success(), lines)
}

/// Refused functions, and what the error message must contain: the function's name, if any, and what to do. A `*`
/// stands for any text.
const REFUSED: &[(&str, &str)] = &[
    ("threaded! { async fn bad() {} }", "`fn bad` in `threaded!`: *nothing but a visibility before `fn`"),
    ("threaded! { pub const fn bad() {} }", "`fn bad` in `threaded!`: *nothing but a visibility before `fn`"),
    ("threaded! { unsafe fn bad() {} }", "`fn bad` in `threaded!`: *nothing but a visibility before `fn`"),
    ("threaded! { unsafe extern \"C\" fn bad() {} }", "`threaded!`: *nothing but a visibility before `fn`"),
    ("threaded! { extern \"C\" fn bad() {} }", "`fn bad` in `threaded!`: *nothing but a visibility before `fn`"),
    ("threaded! { #[inline] pub(crate) extern fn bad() {} }", "`fn bad` in `threaded!`: *a visibility before `fn`"),
    ("impl X { threaded! { fn bad(&self) {} } }", "`fn bad` in `threaded!`: *take `self` or `self: Arc<Self>`"),
    ("impl X { threaded! { fn bad(&mut self, a: u32) {} } }", "`fn bad` in `threaded!`: *or `self: Arc<Self>`"),
    ("impl X { threaded! { fn bad<'a>(&'a self) {} } }", "`fn bad` in `threaded!`: *or `self: Arc<Self>`"),
    ("impl X { threaded! { fn bad<'a>(&'a mut self,) {} } }", "`fn bad` in `threaded!`: *or `self: Arc<Self>`"),
    ("impl X { threaded! { fn bad(self: &Self) {} } }", "`fn bad` in `threaded!`: *or `self: Arc<Self>`"),
    ("impl X { threaded! { fn bad(mut self: &mut Self) {} } }", "`fn bad` in `threaded!`: *or `self: Arc<Self>`"),
    ("threaded! { fn bad() -> u32; }", "`fn bad` in `threaded!`: write a plain `fn name(..) -> R { .. }`"),
    ("threaded! { fn bad(); }", "`fn bad` in `threaded!`: write a plain `fn name(..) -> R { .. }`"),
    ("threaded! { fn bad<T>(t: T) -> T where T: Send; }", "`fn bad` in `threaded!`: write a plain `fn name(..)"),
    (
        "threaded! { fn bad<T>(t: T) where T: Send; fn good() {} }",
        "`fn bad` in `threaded!`: write a plain `fn name(..)",
    ),
    ("threaded! { fn bad() -> impl Sized {} }", "`fn bad` in `threaded!`: *return a type that has a name"),
    ("threaded! { fn bad() -> ! { panic!() } }", "`fn bad` in `threaded!`: *return a type that has a name, not `!`"),
    ("threaded! { pub struct Bad; }", "`threaded!`: write a plain `fn name(..) -> R { .. }`"),
    ("threaded! { let bad = 1; }", "`threaded!`: write a plain `fn name(..) -> R { .. }`"),
    ("threaded! { 1 + 1 }", "`threaded!`: write a plain `fn name(..) -> R { .. }`"),
    ("threaded! { || 1 }", "`threaded!`: write a plain `fn name(..) -> R { .. }`"),
    ("threaded! { fn good() {}; }", "`threaded!`: write a plain `fn name(..) -> R { .. }`"),
    ("threaded! { /// Of nothing. \n }", "`threaded!`: write a plain `fn name(..) -> R { .. }`"),
    ("threaded_separate! { async fn bad() {} }", "`fn bad` in `threaded_separate!`: *a visibility before `fn`"),
    ("impl X { threaded_separate! { fn bad(&self) {} } }", "`fn bad` in `threaded_separate!`: *or `self: Arc<Self>`"),
    ("threaded_separate! { mod bad {} }", "`threaded_separate!`: write a plain `fn name(..) -> R { .. }`"),
    (
        "threaded_iterable! { fn bad() -> impl Iterator { 0..1 } }",
        "`fn bad` in `threaded_iterable!`: *also take `impl Iterator<Item = T>`",
    ),
    (
        "threaded_iterable_separate! { fn bad() -> ! { panic!() } }",
        "`fn bad` in `threaded_iterable_separate!`: *return a type that has a name, not `!`",
    ),
    // The other functions of the invocation are still defined.
    (
        "threaded! { fn good() {} async fn bad() {} fn better() {} } fn test() { drop((good(), better())); }",
        "`fn bad` in `threaded!`: *nothing but a visibility before `fn`",
    ),
];

#[test]
fn refusals_say_what_to_do() {
    let mut text = "fn main() {}\n".to_owned();
    let mut starts = Vec::new();
    for (number, (snippet, _)) in REFUSED.iter().enumerate() {
        starts.push(text.lines().count() + 1);
        writeln!(text, "mod m{number} {{ use blocking::*; struct X; {snippet} }}").unwrap();
    }
    let (success, lines) = check("refused", &text);
    let said = lines.join("\n");
    assert!(!success, "{said}");
    for ((snippet, message), start) in REFUSED.iter().zip(starts) {
        let place = format!("src/main.rs:{start}:");
        let own: Vec<_> = lines.iter().filter(|line| line.contains(&place) && line.contains("error")).collect();
        let [line] = own[..] else { panic!("`{snippet}` should have one error, but has {own:?} in\n{said}") };
        let mut rest = line.split_once("error: ").unwrap().1;
        for part in message.split('*') {
            let at = rest.find(part).unwrap_or_else(|| panic!("`{snippet}` should say {part:?}, but says {line}"));
            rest = &rest[at + part.len()..];
        }
    }
    let errors = lines.iter().filter(|line| line.contains("error: ") || line.contains("error[")).count();
    assert_eq!(errors, REFUSED.len() + 1, "one error for each, and cargo's own:\n{said}");
}

#[test]
fn the_crate_may_be_renamed_and_the_edition_older() {
    let text = r#"
        #![deny(warnings)]
        use std::sync::{Arc, Mutex};

        struct Words(Vec<String>);

        blocking::threaded! {
            pub fn add(a: u32, mut b: u32) -> u32 { b += a; b }
            // In this edition the guard in the last expression outlives the block.
            fn first(words: Arc<Mutex<Words>>) -> Option<String> { words.lock().unwrap().0.first().cloned() }
        }

        impl Words {
            blocking::threaded_separate! {
                fn count(self: Arc<Self>, word: String) -> usize {
                    self.0.iter().filter(|known| **known == word).count()
                }
            }
        }

        fn main() {
            blocking::block_on(async {
                let words = || Words(vec!["to".into(), "be".into()]);
                let count: usize = Arc::new(words()).count("be".into()).await;
                let first: Option<String> = first(Arc::new(Mutex::new(words()))).await;
                let sum: u32 = add(1, 2).await;
                println!("{count} {first:?} {sum}");
            });
        }
    "#;
    let (success, lines) = check("renamed", text);
    assert!(success, "{}", lines.join("\n"));
}

/// The compiler gives the same warnings as for a plain function, at the same places.
#[test]
fn warnings_come_as_for_a_plain_function() {
    let text = "blocking::threaded! {
        fn f(
            unused: u32,
            mut changed: u32,
            mut unchanged: u32,
            (_, part): (u32, u32),
            _silent: u32,
        ) -> u32 {
            let local = 1;
            changed += 1;
            changed + unchanged
        }
    }
    fn main() {
        f(1, 2, 3, (4, 5), 6);
    }";
    let (success, lines) = check("warned", text);
    let said = lines.join("\n");
    assert!(success, "{said}");
    let expected = [
        "src/main.rs:3:13: warning: unused variable: `unused`",
        "src/main.rs:5:13: warning: variable does not need to be mutable",
        "src/main.rs:6:17: warning: unused variable: `part`",
        "src/main.rs:9:17: warning: unused variable: `local`",
        "src/main.rs:15:9: warning: unused `Threaded` that must be used",
    ];
    for warning in expected {
        assert!(said.contains(warning), "no {warning:?} in\n{said}");
    }
    assert_eq!(lines.iter().filter(|line| line.contains(".rs:")).count(), expected.len(), "{said}");
}
