//! The decorators, macros that make a blocking function awaitable; and `gather!`.
//!
//! All decorators are `__offthread_functions`, which takes functions apart and puts them together again.
#![forbid(unsafe_code)]

/// Makes blocking functions awaitable: each returns a [`Threaded`](crate::Threaded) of what it returned.
///
/// The body runs in a thread once that is awaited, or at [`async_call`](crate::Threaded::async_call); with
/// [`sync_call`](crate::Threaded::sync_call) it runs right there. Calling the function alone runs nothing.
///
/// ```
/// use offthread::{ThreadPool, block_on, threaded};
/// use std::path::PathBuf;
/// use std::{fs, io};
///
/// threaded! {
///     /// Counts the lines of a file.
///     pub fn count_lines(path: PathBuf) -> io::Result<usize> {
///         Ok(fs::read_to_string(path)?.lines().count())
///     }
///
///     fn largest<T: Ord + Send + 'static>(mut items: Vec<T>) -> Option<T> {
///         items.sort();
///         items.pop()
///     }
/// }
///
/// block_on(async {
///     assert!(count_lines("Cargo.toml".into()).await? > 1);
///     let job = largest(vec![3, 5, 4]).async_call(); // it runs from here on
///     assert_eq!(job.await, Some(5));
///     assert_eq!(largest(vec!['a', 'b']).on(&ThreadPool::new(1)).await, Some('b'));
///     assert_eq!(largest(vec!['a', 'b']).sync_call(), Some('b'));
///     io::Result::Ok(())
/// })
/// # .unwrap();
/// ```
///
/// # Methods
/// In an `impl` block a function takes `self`, `self: Arc<Self>` (or any other receiver that owns), `&'static self`, or
/// none.
///
/// ```
/// use offthread::{block_on, threaded};
/// use std::sync::Arc;
///
/// struct Counter {
///     words: Vec<String>,
/// }
///
/// impl Counter {
///     threaded! {
///         fn count(self: Arc<Self>, word: &'static str) -> usize {
///             self.words.iter().filter(|known| *known == word).count()
///         }
///     }
/// }
///
/// let counter = Arc::new(Counter { words: ["to", "be", "or", "not", "to", "be"].map(String::from).into() });
/// block_on(async {
///     assert_eq!(Arc::clone(&counter).count("be").await, 2);
///     assert_eq!(counter.count("that").await, 0);
/// });
/// ```
///
/// # What a function may be
/// Attributes, doc comments, visibility, generic parameters, a `where` clause, `mut` arguments and patterns stay as
/// they are. The whole of each argument moves into the thread, also where the body names only a part of it or nothing,
/// and is dropped there once the body has ended, as in any function. Arguments and result must be `Send + 'static`:
///
/// ```compile_fail,E0277
/// offthread::threaded! {
///     fn count(words: std::rc::Rc<Vec<String>>) -> usize { words.len() }
/// }
/// ```
/// ```compile_fail,E0521
/// offthread::threaded! {
///     fn length(text: &str) -> usize { text.len() }
/// }
/// ```
///
/// One invocation takes some hundred functions before the compiler asks for a higher `recursion_limit`; two take twice
/// as many.
///
/// # What it may not be
/// An async function, since it does not block:
///
/// ```compile_fail
/// offthread::threaded! {
///     async fn answer() -> u32 { 42 }
/// }
/// ```
/// Unsafe, `const`, or `extern`:
///
/// ```compile_fail
/// offthread::threaded! {
///     unsafe fn answer() -> u32 { 42 }
/// }
/// ```
/// ```compile_fail
/// offthread::threaded! {
///     const fn answer() -> u32 { 42 }
/// }
/// ```
/// ```compile_fail
/// offthread::threaded! {
///     extern "C" fn answer() -> u32 { 42 }
/// }
/// ```
/// A method that borrows `self`, since the thread may outlive it:
///
/// ```compile_fail
/// struct Answer(u32);
/// impl Answer {
///     offthread::threaded! {
///         fn get(&self) -> u32 { self.0 }
///     }
/// }
/// ```
/// ```compile_fail
/// struct Answer(u32);
/// impl Answer {
///     offthread::threaded! {
///         fn set(&mut self, answer: u32) { self.0 = answer; }
///     }
/// }
/// ```
/// ```compile_fail
/// struct Answer(u32);
/// impl Answer {
///     offthread::threaded! {
///         fn get<'a>(&'a self) -> u32 { self.0 }
///     }
/// }
/// ```
/// ```compile_fail
/// struct Answer(u32);
/// impl Answer {
///     offthread::threaded! {
///         fn get(self: &Self) -> u32 { self.0 }
///     }
/// }
/// ```
/// One that does not name the type it returns:
///
/// ```compile_fail
/// offthread::threaded! {
///     fn numbers() -> impl Iterator<Item = u32> { 0..3 }
/// }
/// ```
/// One without a body, and what is no function:
///
/// ```compile_fail
/// offthread::threaded! {
///     fn answer() -> u32;
/// }
/// ```
/// ```compile_fail
/// offthread::threaded! {
///     struct Answer(u32);
/// }
/// ```
#[macro_export]
macro_rules! threaded {
    ($($functions:tt)*) => {
        $crate::__offthread_functions! { @each threaded [$($functions)*] $($functions)* }
    };
}

/// Makes blocking functions awaitable, as [`threaded!`](crate::threaded!) does, but each call gets a thread of its own,
/// named after the function.
///
/// For what takes long, or waits for something that only another job can bring: it keeps no pool busy.
///
/// ```
/// use offthread::{block_on, threaded_separate};
/// use std::thread;
///
/// threaded_separate! {
///     fn listener() -> Option<String> {
///         thread::current().name().map(str::to_owned)
///     }
/// }
///
/// assert_eq!(block_on(listener()).as_deref(), Some("listener"));
/// ```
///
/// It takes the same functions as `threaded!`, and refuses the same ones:
///
/// ```compile_fail
/// offthread::threaded_separate! {
///     async fn answer() -> u32 { 42 }
/// }
/// ```
#[macro_export]
macro_rules! threaded_separate {
    ($($functions:tt)*) => {
        $crate::__offthread_functions! { @each threaded_separate [$($functions)*] $($functions)* }
    };
}

/// Makes blocking functions that return iterators readable by async code: each returns an
/// [`IteratorWrapper`](crate::IteratorWrapper) of the items.
///
/// The body runs in a thread once the first item is asked for, and the iterator runs there too.
///
/// ```
/// use offthread::{ThreadPool, block_on, threaded_iterable};
/// use std::path::PathBuf;
/// use std::{fs, io};
///
/// threaded_iterable! {
///     /// The names in a directory.
///     pub fn names(directory: PathBuf) -> impl Iterator<Item = io::Result<PathBuf>> + Send {
///         let entries = fs::read_dir(directory).map_or_else(|error| vec![Err(error)], Iterator::collect);
///         entries.into_iter().map(|entry| Ok(entry?.path()))
///     }
///
///     #[max_size(2)]
///     fn up_to(end: u32) -> std::ops::Range<u32> {
///         0..end
///     }
/// }
///
/// block_on(async {
///     let mut names = names("src".into());
///     while let Some(name) = names.next().await {
///         assert!(name.unwrap().starts_with("src"));
///     }
///     let mut numbers = up_to(1000).on(&ThreadPool::new(1));
///     assert_eq!(numbers.next().await, Some(0)); // and no more than two have been made ahead
///     assert_eq!(up_to(3).sync_call().sum::<u32>(), 3);
/// });
/// ```
///
/// # What a function may be
/// The same as for [`threaded!`](crate::threaded!). It returns `impl Iterator<Item = T>`, maybe with further bounds (which
/// are for the reader: its callers get an `IteratorWrapper<T>`), or names a type that is an iterator, or can be made one.
/// `#[max_size(N)]` says how many items may be made ahead; unless said, 1024.
///
/// ```compile_fail
/// offthread::threaded_iterable! {
///     async fn numbers() -> impl Iterator<Item = u32> { 0..3 }
/// }
/// ```
/// ```compile_fail
/// offthread::threaded_iterable! {
///     fn nothing() {}
/// }
/// ```
/// ```compile_fail
/// offthread::threaded_iterable! {
///     fn numbers() -> impl Iterator { 0..3 }
/// }
/// ```
/// ```compile_fail
/// offthread::threaded_iterable! {
///     #[max_size]
///     fn numbers() -> impl Iterator<Item = u32> { 0..3 }
/// }
/// ```
/// ```compile_fail
/// offthread::threaded_iterable! {
///     #[max_size(1)]
///     #[max_size(2)]
///     fn numbers() -> impl Iterator<Item = u32> { 0..3 }
/// }
/// ```
/// The iterator goes from thread to thread, so it must be `Send`:
///
/// ```compile_fail,E0277
/// offthread::threaded_iterable! {
///     fn numbers() -> impl Iterator<Item = u32> {
///         let step = std::rc::Rc::new(2);
///         (0..3).map(move |n| n * *step)
///     }
/// }
/// ```
#[macro_export]
macro_rules! threaded_iterable {
    ($($functions:tt)*) => {
        $crate::__offthread_functions! { @each threaded_iterable [$($functions)*] $($functions)* }
    };
}

/// Makes blocking functions that return iterators readable by async code, as
/// [`threaded_iterable!`](crate::threaded_iterable!) does, but each iterator gets a thread of its own, named after the
/// function; it need not be `Send`.
///
/// ```
/// use offthread::{block_on, threaded_iterable_separate};
/// use std::rc::Rc;
///
/// threaded_iterable_separate! {
///     #[max_size(1)]
///     fn even() -> impl Iterator<Item = u32> {
///         let step = Rc::new(2);
///         (0..3).map(move |n| n * *step)
///     }
/// }
///
/// assert_eq!(block_on(even().scope(async |numbers| numbers.next().await)), Some(0));
/// ```
///
/// It takes the same functions as `threaded_iterable!`, and refuses the same ones:
///
/// ```compile_fail
/// offthread::threaded_iterable_separate! {
///     async fn numbers() -> impl Iterator<Item = u32> { 0..3 }
/// }
/// ```
#[macro_export]
macro_rules! threaded_iterable_separate {
    ($($functions:tt)*) => {
        $crate::__offthread_functions! { @each threaded_iterable_separate [$($functions)*] $($functions)* }
    };
}

/// Takes functions apart and puts them together again, for the decorators.
///
/// `macro_rules!` can match most of a function at once, but neither a list of generic parameters, nor a `where` clause,
/// nor a pattern before a `:`. These are munched token by token, and each step counts against the `recursion_limit` of
/// 128. So the functions are first told apart, one a step (`@each`), and then each is munched beside the others: the
/// depth is the number of functions plus the tokens of one, not of all.
///
/// On the way a function is `[kind {attributes} {visibility} name] {generics} (arguments) {return type} {where} body`.
/// A step wraps what it has no need to look into in `[]`, as one token tree.
#[doc(hidden)]
#[macro_export]
macro_rules! __offthread_functions {
    // --- One function after the other -------------------------------------------------------------------------------
    // The input comes twice: once to look into its first function, and once for the compiler's own parser to find where
    // that function ends.
    (@each $kind:ident []) => {};
    (@each $kind:ident
        [$(#[$($attribute:tt)*])* $visibility:vis fn $name:ident $($tail:tt)*] $function:item $($rest:tt)*
    ) => {
        $crate::__offthread_functions! {
            @generics [$kind {$(#[$($attribute)*])*} {$visibility} $name] {} [] $($tail)*
        }
        $crate::__offthread_functions! { @each $kind [$($rest)*] $($rest)* }
    };
    (@each $kind:ident
        [$(#[$($attribute:tt)*])* $visibility:vis async fn $name:ident $($tail:tt)*] $function:item $($rest:tt)*
    ) => {
        $crate::__offthread_functions! {
            @error [$kind {} {} $name]
            "an async function does not block: write it outside of the macro, and in it await \
             `offthread::threaded(|| ..)` for what does"
        }
        $crate::__offthread_functions! { @each $kind [$($rest)*] $($rest)* }
    };
    (@each $kind:ident
        [$(#[$($attribute:tt)*])* $visibility:vis const fn $name:ident $($tail:tt)*] $function:item $($rest:tt)*
    ) => {
        $crate::__offthread_functions! {
            @error [$kind {} {} $name] "nothing runs in a thread while the program is compiled: remove `const`"
        }
        $crate::__offthread_functions! { @each $kind [$($rest)*] $($rest)* }
    };
    (@each $kind:ident
        [$(#[$($attribute:tt)*])* $visibility:vis extern $($abi:literal)? fn $name:ident $($tail:tt)*]
        $function:item $($rest:tt)*
    ) => {
        $crate::__offthread_functions! {
            @error [$kind {} {} $name]
            "its callers get an `offthread::Threaded`, which no foreign code can take: remove `extern`"
        }
        $crate::__offthread_functions! { @each $kind [$($rest)*] $($rest)* }
    };
    // What is left is `unsafe`.
    (@each $kind:ident
        [$(#[$($attribute:tt)*])* $visibility:vis $qualifier:ident fn $name:ident $($tail:tt)*]
        $function:item $($rest:tt)*
    ) => {
        $crate::__offthread_functions! {
            @error [$kind {} {} $name]
            "its callers can only vouch for the moment of the call, and the body runs later: remove `",
            ::core::stringify!($qualifier), "`, and write an `", ::core::stringify!($qualifier), "` block in the body"
        }
        $crate::__offthread_functions! { @each $kind [$($rest)*] $($rest)* }
    };
    (@each $kind:ident
        [$(#[$($attribute:tt)*])* $visibility:vis $found:ident $($tail:tt)*] $($again:tt)*
    ) => {
        ::core::compile_error! { ::core::concat!(
            "`", ::core::stringify!($kind), "!` takes plain functions, `fn name(..) -> R { .. }`: ",
            "write what starts with `", ::core::stringify!($found), "` outside of it",
        ) }
    };
    (@each $kind:ident [$($other:tt)*] $($again:tt)*) => {
        ::core::compile_error! { ::core::concat!(
            "`", ::core::stringify!($kind), "!` takes plain functions, `fn name(..) -> R { .. }`, and nothing else",
        ) }
    };

    // --- The generic parameters: they end where each `<` is closed; `[]` has one for each that is open ---------------
    (@generics $function:tt {$($generics:tt)*} [$($open:tt)*] < $($tail:tt)*) => {
        $crate::__offthread_functions! { @generics $function {$($generics)* <} [$($open)* <] $($tail)* }
    };
    (@generics $function:tt {$($generics:tt)*} [$($open:tt)*] << $($tail:tt)*) => {
        $crate::__offthread_functions! { @generics $function {$($generics)* <<} [$($open)* < <] $($tail)* }
    };
    (@generics $function:tt {$($generics:tt)*} [$($open:tt)*] <- $($tail:tt)*) => {
        $crate::__offthread_functions! { @generics $function {$($generics)* <-} [$($open)* <] $($tail)* }
    };
    (@generics $function:tt {$($generics:tt)*} [< $($open:tt)*] > $($tail:tt)*) => {
        $crate::__offthread_functions! { @generics $function {$($generics)* >} [$($open)*] $($tail)* }
    };
    (@generics $function:tt {$($generics:tt)*} [< < $($open:tt)*] >> $($tail:tt)*) => {
        $crate::__offthread_functions! { @generics $function {$($generics)* >>} [$($open)*] $($tail)* }
    };
    (@generics $function:tt $generics:tt [] $arguments:tt -> $($tail:tt)*) => {
        $crate::__offthread_functions! { @returns [$function $generics $arguments] $($tail)* }
    };
    (@generics $function:tt $generics:tt [] $arguments:tt $($tail:tt)*) => {
        $crate::__offthread_functions! { @returns [$function $generics $arguments] () $($tail)* }
    };
    (@generics $function:tt {$($generics:tt)*} $open:tt $token:tt $($tail:tt)*) => {
        $crate::__offthread_functions! { @generics $function {$($generics)* $token} $open $($tail)* }
    };

    // --- The return type --------------------------------------------------------------------------------------------
    // Of an iterable it may be `impl Iterator<Item = T>`, from which the `T` is taken: `{{T}}` then stands for all of it.
    (@returns [[threaded_iterable $($function:tt)*] $generics:tt $arguments:tt] impl $($tail:tt)*) => {
        $crate::__offthread_functions! { @item [[threaded_iterable $($function)*] $generics $arguments] $($tail)* }
    };
    (@returns [[threaded_iterable_separate $($function:tt)*] $generics:tt $arguments:tt] impl $($tail:tt)*) => {
        $crate::__offthread_functions! {
            @item [[threaded_iterable_separate $($function)*] $generics $arguments] $($tail)*
        }
    };
    (@returns [[threaded_iterable $($function:tt)*] $generics:tt $arguments:tt] () $($tail:tt)*) => {
        $crate::__offthread_functions! { @no_items [threaded_iterable $($function)*] }
    };
    (@returns [[threaded_iterable_separate $($function:tt)*] $generics:tt $arguments:tt] () $($tail:tt)*) => {
        $crate::__offthread_functions! { @no_items [threaded_iterable_separate $($function)*] }
    };
    (@returns [$function:tt $generics:tt $arguments:tt] impl $($tail:tt)*) => {
        $crate::__offthread_functions! {
            @error $function "it cannot return `impl Trait`: name the type, or return a `Box<dyn Trait + Send>`"
        }
    };
    (@returns [$function:tt $generics:tt $arguments:tt] ! $($tail:tt)*) => {
        $crate::__offthread_functions! {
            @error $function "stable Rust has no closure that returns `!`: return `std::convert::Infallible`"
        }
    };
    (@returns [$function:tt $generics:tt ($($arguments:tt)*)] $return:ty $body:block $($tail:tt)*) => {
        $crate::__offthread_functions! {
            @receiver [$function $generics {$return} {} $body] ($($arguments)*) $($arguments)*
        }
    };
    (@returns $signature:tt $return:ty where $($tail:tt)*) => {
        $crate::__offthread_functions! { @where $signature {$return} {where} $($tail)* }
    };
    (@returns [$function:tt $generics:tt $arguments:tt] $return:ty; $($tail:tt)*) => {
        $crate::__offthread_functions! { @error $function "it has no body, and the body is what runs in the thread" }
    };

    // --- The items of an iterable that returns `impl Iterator`, and the bounds that follow ---------------------------
    (@item $signature:tt Item = $item:ty > $($tail:tt)*) => {
        $crate::__offthread_functions! { @bounds $signature {{$item}} $($tail)* }
    };
    (@item [$function:tt $generics:tt $arguments:tt] $body:block $($tail:tt)*) => {
        $crate::__offthread_functions! { @no_items $function }
    };
    (@item $signature:tt $token:tt $($tail:tt)*) => {
        $crate::__offthread_functions! { @item $signature $($tail)* }
    };
    (@no_items $function:tt) => {
        $crate::__offthread_functions! {
            @error $function "say what it returns: `impl Iterator<Item = T>`, or a type that is an iterator"
        }
    };
    (@bounds [$function:tt $generics:tt ($($arguments:tt)*)] $return:tt $body:block $($tail:tt)*) => {
        $crate::__offthread_functions! {
            @receiver [$function $generics $return {} $body] ($($arguments)*) $($arguments)*
        }
    };
    (@bounds $signature:tt $return:tt where $($tail:tt)*) => {
        $crate::__offthread_functions! { @where $signature $return {where} $($tail)* }
    };
    (@bounds [$function:tt $generics:tt $arguments:tt] $return:tt; $($tail:tt)*) => {
        $crate::__offthread_functions! { @error $function "it has no body, and the body is what runs in the thread" }
    };
    (@bounds $signature:tt $return:tt $token:tt $($tail:tt)*) => {
        $crate::__offthread_functions! { @bounds $signature $return $($tail)* }
    };

    // --- The `where` clause: it ends at the body, which is the first block that is no argument of a type -------------
    (@where $signature:tt $return:tt {$($where:tt)*} {$($constant:tt)*} > $($tail:tt)*) => {
        $crate::__offthread_functions! { @where $signature $return {$($where)* {$($constant)*} >} $($tail)* }
    };
    (@where $signature:tt $return:tt {$($where:tt)*} {$($constant:tt)*} >> $($tail:tt)*) => {
        $crate::__offthread_functions! { @where $signature $return {$($where)* {$($constant)*} >>} $($tail)* }
    };
    (@where $signature:tt $return:tt {$($where:tt)*} {$($constant:tt)*}, $($tail:tt)*) => {
        $crate::__offthread_functions! { @where $signature $return {$($where)* {$($constant)*},} $($tail)* }
    };
    (@where [$function:tt $generics:tt ($($arguments:tt)*)] $return:tt $where:tt $body:block $($tail:tt)*) => {
        $crate::__offthread_functions! {
            @receiver [$function $generics $return $where $body] ($($arguments)*) $($arguments)*
        }
    };
    (@where [$function:tt $generics:tt $arguments:tt] $return:tt $where:tt ; $($tail:tt)*) => {
        $crate::__offthread_functions! { @error $function "it has no body, and the body is what runs in the thread" }
    };
    (@where $signature:tt $return:tt {$($where:tt)*} $token:tt $($tail:tt)*) => {
        $crate::__offthread_functions! { @where $signature $return {$($where)* $token} $($tail)* }
    };

    // --- The receiver -----------------------------------------------------------------------------------------------
    // The arguments, too, come twice: what is a keyword in the first copy is a token of the user's in the second, so
    // that `$this` is the `self` that the body means, and the compiler's lints see what the user wrote.
    (@receiver $function:tt (&'static self $($same:tt)*) & $static:lifetime $this:tt $(, $($rest:tt)*)?) => {
        $crate::__offthread_functions! {
            @arguments $function {& $static $this,} {} ($($($rest)*)?) $($($rest)*)?
        }
    };
    (@receiver [$function:tt $($parts:tt)*] (& $($lifetime:lifetime)? $(mut)? self $($same:tt)*) $($again:tt)*) => {
        $crate::__offthread_functions! { @borrowed $function }
    };
    (@receiver $function:tt (self: &'static $($same:tt)*) $this:tt: $type:ty $(, $($rest:tt)*)?) => {
        $crate::__offthread_functions! {
            @arguments $function {$this: $type,} {} ($($($rest)*)?) $($($rest)*)?
        }
    };
    (@receiver [$function:tt $($parts:tt)*] ($(mut)? self: & $($same:tt)*) $($again:tt)*) => {
        $crate::__offthread_functions! { @borrowed $function }
    };
    // A reference to the whole of `self` makes the closure capture the whole.
    (@receiver $function:tt (self $($same:tt)*) $this:tt $(: $type:ty)? $(, $($rest:tt)*)?) => {
        $crate::__offthread_functions! {
            @arguments $function {$this $(: $type)?,} {let _ = &$this;} ($($($rest)*)?) $($($rest)*)?
        }
    };
    (@receiver $function:tt (mut self $($same:tt)*) $mut:tt $this:tt $(: $type:ty)? $(, $($rest:tt)*)?) => {
        $crate::__offthread_functions! {
            @arguments $function {$mut $this $(: $type)?,} {let _ = &$this;} ($($($rest)*)?) $($($rest)*)?
        }
    };
    (@receiver $function:tt $($arguments:tt)*) => {
        $crate::__offthread_functions! { @arguments $function {} {} $($arguments)* }
    };
    (@borrowed $function:tt) => {
        $crate::__offthread_functions! {
            @error $function
            "the thread may outlive a `self` that it borrows: take `self` or `self: Arc<Self>`, or take no receiver \
             and pass clones of what the body needs"
        }
    };

    // --- The arguments: `{parameters} {statements that bind them again in the closure}` ------------------------------
    // To bind an argument again moves the whole of it into the closure: left alone, that captures only what it names.
    (@arguments $function:tt $parameters:tt $bindings:tt ()) => {
        $crate::__offthread_functions! { @function $function $parameters $bindings }
    };
    (@arguments $function:tt {$($parameters:tt)*} {$($bindings:tt)*}
        ($name:ident: $($same:tt)*) $argument:tt: $type:ty $(, $($rest:tt)*)?
    ) => {
        $crate::__offthread_functions! {
            @arguments $function
            {$($parameters)* $argument: $type,}
            {
                $($bindings)*
                #[allow(clippy::used_underscore_binding, clippy::no_effect_underscore_binding)]
                let $argument = $argument;
            }
            ($($($rest)*)?) $($($rest)*)?
        }
    };
    (@arguments $function:tt {$($parameters:tt)*} {$($bindings:tt)*}
        (mut $name:ident: $($same:tt)*) $mut:tt $argument:tt: $type:ty $(, $($rest:tt)*)?
    ) => {
        $crate::__offthread_functions! {
            @arguments $function
            {$($parameters)* $argument: $type,}
            {
                $($bindings)*
                #[allow(clippy::used_underscore_binding, clippy::no_effect_underscore_binding)]
                let $mut $argument = $argument;
            }
            ($($($rest)*)?) $($($rest)*)?
        }
    };
    (@arguments $function:tt $parameters:tt $bindings:tt $same:tt $($tail:tt)*) => {
        $crate::__offthread_functions! { @pattern $function $parameters $bindings {} {} $($tail)* }
    };
    // With attributes, or with any other pattern. Each step's `argument` is a name of its own.
    (@pattern $function:tt $parameters:tt $bindings:tt {$($attributes:tt)*} {} #[$($attribute:tt)*] $($tail:tt)*) => {
        $crate::__offthread_functions! {
            @pattern $function $parameters $bindings {$($attributes)* #[$($attribute)*]} {} $($tail)*
        }
    };
    (@pattern $function:tt {$($parameters:tt)*} {$($bindings:tt)*} {$($attributes:tt)*} {$($pattern:tt)*}
        : $type:ty $(, $($rest:tt)*)?
    ) => {
        $crate::__offthread_functions! {
            @arguments $function
            {$($parameters)* $($attributes)* argument: $type,}
            {
                $($bindings)*
                $($attributes)* #[allow(unused_mut)] let mut argument = argument;
                $($attributes)* let $($pattern)* = argument;
            }
            ($($($rest)*)?) $($($rest)*)?
        }
    };
    (@pattern $function:tt $parameters:tt $bindings:tt $attributes:tt {$($pattern:tt)*} $token:tt $($tail:tt)*) => {
        $crate::__offthread_functions! {
            @pattern $function $parameters $bindings $attributes {$($pattern)* $token} $($tail)*
        }
    };

    // --- The function, put together again ----------------------------------------------------------------------------
    (@function
        [
            [threaded {$($attributes:tt)*} {$visibility:vis} $name:ident]
            {$($generics:tt)*} {$return:ty} {$($where:tt)*} $body:block
        ]
        {$($parameters:tt)*} {$($bindings:tt)*}
    ) => {
        $($attributes)*
        $visibility fn $name $($generics)* ($($parameters)*)
            -> $crate::Threaded<impl ::core::ops::FnOnce() -> $return + ::core::marker::Send + 'static>
        $($where)*
        {
            $crate::threaded(move || -> $return { $($bindings)* $body })
        }
    };
    (@function
        [
            [threaded_separate {$($attributes:tt)*} {$visibility:vis} $name:ident]
            {$($generics:tt)*} {$return:ty} {$($where:tt)*} $body:block
        ]
        {$($parameters:tt)*} {$($bindings:tt)*}
    ) => {
        $($attributes)*
        $visibility fn $name $($generics)* ($($parameters)*)
            -> $crate::Threaded<impl ::core::ops::FnOnce() -> $return + ::core::marker::Send + 'static>
        $($where)*
        {
            $crate::threaded_separate(move || -> $return { $($bindings)* $body }).name(::core::stringify!($name))
        }
    };

    (@function
        [
            [threaded_iterable {$($attributes:tt)*} $visibility:tt $name:ident]
            $generics:tt $return:tt $where:tt $body:block
        ]
        $parameters:tt $bindings:tt
    ) => {
        $crate::__offthread_functions! {
            @iterable {} {}
            [threaded_iterable $visibility $name $generics $return $where $body $parameters $bindings {}]
            $($attributes)*
        }
    };
    (@function
        [
            [threaded_iterable_separate {$($attributes:tt)*} $visibility:tt $name:ident]
            $generics:tt $return:tt $where:tt $body:block
        ]
        $parameters:tt $bindings:tt
    ) => {
        $crate::__offthread_functions! {
            @iterable {} {}
            [
                threaded_iterable_separate $visibility $name $generics $return $where $body $parameters $bindings
                {.name(::core::stringify!($name))}
            ]
            $($attributes)*
        }
    };
    // Its `max_size` is taken out of the attributes: `{other attributes} {.max_size(N)}`.
    (@iterable $others:tt {} $function:tt #[max_size($max_size:expr)] $($attributes:tt)*) => {
        $crate::__offthread_functions! { @iterable $others {.max_size($max_size)} $function $($attributes)* }
    };
    (@iterable $others:tt $set:tt [$kind:ident $visibility:tt $name:ident $($function:tt)*]
        #[max_size $($size:tt)*] $($attributes:tt)*
    ) => {
        $crate::__offthread_functions! {
            @error [$kind {} {} $name] "say once how many items may be made ahead, as in `#[max_size(64)]`"
        }
    };
    (@iterable {$($others:tt)*} $set:tt $function:tt #[$($attribute:tt)*] $($attributes:tt)*) => {
        $crate::__offthread_functions! { @iterable {$($others)* #[$($attribute)*]} $set $function $($attributes)* }
    };
    (@iterable {$($attributes:tt)*} {$($set:tt)*}
        [
            $make:ident {$visibility:vis} $name:ident {$($generics:tt)*} {{$item:ty}} {$($where:tt)*} $body:block
            {$($parameters:tt)*} {$($bindings:tt)*} {$($named:tt)*}
        ]
    ) => {
        $($attributes)*
        $visibility fn $name $($generics)* ($($parameters)*) -> $crate::IteratorWrapper<$item>
        $($where)*
        {
            $crate::$make(move || { $($bindings)* $body }) $($set)* $($named)*
        }
    };
    (@iterable {$($attributes:tt)*} {$($set:tt)*}
        [
            $make:ident {$visibility:vis} $name:ident {$($generics:tt)*} {$return:ty} {$($where:tt)*} $body:block
            {$($parameters:tt)*} {$($bindings:tt)*} {$($named:tt)*}
        ]
    ) => {
        $($attributes)*
        $visibility fn $name $($generics)* ($($parameters)*)
            -> $crate::IteratorWrapper<<$return as ::core::iter::IntoIterator>::Item>
        $($where)*
        {
            $crate::$make(move || -> $return { $($bindings)* $body }) $($set)* $($named)*
        }
    };

    // --- What a function may not be ----------------------------------------------------------------------------------
    (@error [$kind:ident $attributes:tt $visibility:tt $name:ident] $($message:tt)*) => {
        ::core::compile_error! { ::core::concat!(
            "`fn ", ::core::stringify!($name), "` in `", ::core::stringify!($kind), "!`: ", $($message)*
        ) }
    };
}

/// Runs some futures concurrently, and returns what they return: `gather!(a, b, c).await` is a tuple of three.
///
/// Each argument is something that can be awaited, and they may be of different types; otherwise it is as
/// [`gather`](crate::gather()), which is for any number of futures of one type.
///
/// ```
/// use offthread::{block_on, gather, sleep, threaded};
/// use std::time::Duration;
///
/// let (sum, (), word) = block_on(gather!(
///     async { 1 + 2 },
///     sleep(Duration::from_millis(1)),
///     threaded(|| "from a thread"),
/// ));
/// assert_eq!((sum, word), (3, "from a thread"));
/// ```
///
/// The arguments are evaluated right there; the futures start when the whole is awaited. It is `Send` where they are.
///
/// # Panics
/// If one of the futures panics, with its panic; the others are dropped.
///
/// # Cancellation
/// Dropping it drops all the futures.
#[macro_export]
macro_rules! gather {
    ($($future:expr),* $(,)?) => { $crate::__offthread_gather!([] $(($future))*) };
}

/// Gives each future a variable: by the rules of hygiene, the `branch` of each step is another one.
#[doc(hidden)]
#[macro_export]
macro_rules! __offthread_gather {
    ([$($branches:tt)*] ($future:expr) $($rest:tt)*) => {
        $crate::__offthread_gather!([$($branches)* (branch $future)] $($rest)*)
    };
    ([$(($branch:ident $future:expr))*]) => {{
        $(let $branch = $future;)*
        async move {
            $(let mut $branch = $crate::__gather::Branch::new($branch);)*
            let branches: &[&str] = &[$(::core::stringify!($branch)),*];
            $crate::__gather::all(branches.len(), |_nth, _cx| {
                let mut _at = 0;
                $(
                    if _nth == _at {
                        return $branch.poll(_cx);
                    }
                    _at += 1;
                )*
                ::core::unreachable!("there are only so many branches")
            })
            .await;
            ($($branch.into_output(),)*)
        }
    }};
}
