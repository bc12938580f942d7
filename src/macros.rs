//! The decorators, macros that make a blocking function awaitable; and `gather!`.
//!
//! All decorators use `__decorate!`, which takes functions apart and puts them together again.
#![forbid(unsafe_code)]

/// Makes blocking functions awaitable: a function that returned `T` now returns a [`Threaded`](crate::Threaded), and
/// awaiting this value gives a `T`.
///
/// The body runs in a thread once the `Threaded` is awaited, or at [`async_call`](crate::Threaded::async_call). With
/// [`sync_call`](crate::Threaded::sync_call) it runs on the calling thread. Calling the function alone runs nothing.
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
/// let words = ["to", "be", "or", "not", "to", "be"].map(String::from).into();
/// let counter = Arc::new(Counter { words });
/// block_on(async {
///     assert_eq!(Arc::clone(&counter).count("be").await, 2);
///     assert_eq!(counter.count("that").await, 0);
/// });
/// ```
///
/// # What a function may be
/// Attributes, doc comments, visibility, generic parameters, a `where` clause, `mut` arguments and patterns stay as
/// they are. Each argument moves into the thread as a whole, even if the body uses only a part of it or none. It is
/// dropped there once the body has ended, as in any function. Arguments and result must be `Send + 'static`:
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
/// One invocation takes about a hundred functions before the compiler asks for a higher `recursion_limit`; two
/// invocations take twice as many.
///
/// # What it may not be
/// The macro refuses any other function, with one message for all of them:
///
/// - An `async` function, since it does not block. Write it outside of the macro, and await
///   [`threaded(|| ..)`](crate::threaded()) in it for the parts that do block.
/// - An `unsafe` function: its callers could vouch only for the moment of the call. A `const` or `extern` function:
///   neither a constant nor foreign code can use a `Threaded`.
/// - A method that borrows `self`, since the thread may outlive it. Take `self` or `self: Arc<Self>` instead of
///   `&self`, or take no receiver, and pass clones of the values that the body needs.
/// - A function that returns `impl Trait` or `!`. Name the type, return a `Box<dyn Trait + Send>`, or, in place of `!`,
///   a [`std::convert::Infallible`].
/// - A function without a body, and any item that is no function.
///
/// ```compile_fail
/// offthread::threaded! {
///     async fn answer() -> u32 { 42 }
/// }
/// ```
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
/// ```compile_fail
/// offthread::threaded! {
///     fn numbers() -> impl Iterator<Item = u32> { 0..3 }
/// }
/// ```
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
        $crate::__decorate! { @each (Threaded threaded) [$($functions)*] $($functions)* }
    };
}

/// Makes blocking functions awaitable, as [`threaded!`](crate::threaded!) does, but each call gets a thread of its own,
/// named after the function.
///
/// For functions that run for long, or that sleep in blocking calls other than those of this crate: in a pool, such a
/// function would keep a thread busy.
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
        $crate::__decorate! { @each (Threaded threaded_separate name) [$($functions)*] $($functions)* }
    };
}

/// Makes the iterators of blocking functions readable by async code: each function returns an
/// [`IteratorWrapper`](crate::IteratorWrapper).
///
/// The body runs in a thread of a pool once the first item is asked for. The iterator runs in that pool too, maybe on
/// several threads in turn.
///
/// ```
/// use offthread::{ThreadPool, block_on, threaded_iterable};
/// use std::path::PathBuf;
/// use std::{fs, io};
///
/// threaded_iterable! {
///     /// The names in a directory.
///     pub fn names(directory: PathBuf) -> impl Iterator<Item = io::Result<PathBuf>> + Send {
///         let entries: Vec<_> = match fs::read_dir(directory) {
///             Ok(entries) => entries.collect(),
///             Err(error) => vec![Err(error)],
///         };
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
///     // No more than two are made ahead.
///     assert_eq!(numbers.next().await, Some(0));
///     assert_eq!(up_to(3).sync_call().sum::<u32>(), 3);
/// });
/// ```
///
/// # What a function may be
/// The same as for [`threaded!`](crate::threaded!). It returns `impl Iterator<Item = T>`, or a named type that is an
/// iterator or can be made one. The macro discards further bounds after `impl Iterator`: callers get an
/// `IteratorWrapper<T>`. One `#[max_size(N)]` says how many items may be made ahead; without it, 1024.
///
/// These do not compile: an `async` function; one that returns nothing, or `impl Iterator` without its `Item`; a
/// `max_size` without a number, or two of them.
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
        $crate::__decorate! { @each (IteratorWrapper threaded_iterable) [$($functions)*] $($functions)* }
    };
}

/// Makes the iterators of blocking functions readable by async code, as
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
        $crate::__decorate! { @each (IteratorWrapper threaded_iterable_separate name) [$($functions)*] $($functions)* }
    };
}

/// Takes functions apart and puts them together again, for the decorators.
///
/// `macro_rules!` can match most of a function at once, but neither a list of generic parameters, nor a `where` clause,
/// nor a pattern before a `:`. So the signature is munched token by token, and each step counts against the
/// `recursion_limit` of 128. The functions are first separated, one in each step (`@each`), and then each function is
/// munched by itself. The depth is the number of functions plus the tokens of one signature, not of all signatures.
///
/// A `$function` is `[(Type make set_name?) {attributes} {visibility} name]`. `Type` is the type that the function
/// returns, and `make` makes a value of this type. For a separate thread, `set_name` is the method that names the
/// thread after the function. Every step for one function begins with its `$function`. (Only `@emit`, which refuses no
/// function, gets it without the `Type`.) So the last rule, which matches all input that no other rule matches, can
/// say which function in which macro is refused.
#[doc(hidden)]
#[macro_export]
macro_rules! __decorate {
    // --- One function after the other -------------------------------------------------------------------------------
    // The input comes twice: once to look into its first function, and once for the compiler's own parser to find where
    // that function ends.
    (@each $kind:tt []) => {};
    (@each $kind:tt
        [$(#[$($attribute:tt)*])* $visibility:vis fn $name:ident $($tail:tt)*] $function:item $($rest:tt)*
    ) => {
        $crate::__decorate! { @munch [$kind {$(#[$($attribute)*])*} {$visibility} $name] [] {} [] $($tail)* }
        $crate::__decorate! { @each $kind [$($rest)*] $($rest)* }
    };
    (@each $kind:tt
        [$(#[$($attribute:tt)*])* $visibility:vis $qualifier:ident $($abi:literal)? fn $name:ident $($tail:tt)*]
        $function:item $($rest:tt)*
    ) => {
        $crate::__decorate! { @error [$kind {} {} $name] }
        $crate::__decorate! { @each $kind [$($rest)*] $($rest)* }
    };
    (@each $kind:tt $($other:tt)*) => {
        $crate::__decorate! { @error [$kind {} {}] }
    };

    // --- The signature: `[parts so far] {this part so far} [each open <]` --------------------------------------------
    // Its parts are `{generics} (arguments) {return type} {where}`. Outside of all `<>`, the generics end at the
    // arguments, the return type at a `where` or at the body, the `where` clause at the body.
    (@munch $function:tt $parts:tt {$($part:tt)*} [$($open:tt)*] < $($tail:tt)*) => {
        $crate::__decorate! { @munch $function $parts {$($part)* <} [$($open)* <] $($tail)* }
    };
    (@munch $function:tt $parts:tt {$($part:tt)*} [$($open:tt)*] << $($tail:tt)*) => {
        $crate::__decorate! { @munch $function $parts {$($part)* <<} [$($open)* < <] $($tail)* }
    };
    (@munch $function:tt $parts:tt {$($part:tt)*} [$($open:tt)*] <- $($tail:tt)*) => {
        $crate::__decorate! { @munch $function $parts {$($part)* <-} [$($open)* <] $($tail)* }
    };
    (@munch $function:tt $parts:tt {$($part:tt)*} [< $($open:tt)*] > $($tail:tt)*) => {
        $crate::__decorate! { @munch $function $parts {$($part)* >} [$($open)*] $($tail)* }
    };
    (@munch $function:tt $parts:tt {$($part:tt)*} [< < $($open:tt)*] >> $($tail:tt)*) => {
        $crate::__decorate! { @munch $function $parts {$($part)* >>} [$($open)*] $($tail)* }
    };
    (@munch $function:tt [] $generics:tt [] $arguments:tt -> $($tail:tt)*) => {
        $crate::__decorate! { @munch $function [$generics $arguments] {} [] $($tail)* }
    };
    (@munch $function:tt [] $generics:tt [] $arguments:tt $($tail:tt)*) => {
        $crate::__decorate! { @munch $function [$generics $arguments] {()} [] $($tail)* }
    };
    (@munch $function:tt [$generics:tt $arguments:tt] $return:tt [] where $($tail:tt)*) => {
        $crate::__decorate! { @munch $function [$generics $arguments $return] {where} [] $($tail)* }
    };
    (@munch $function:tt [$generics:tt ($($arguments:tt)*) $($return:tt)?] $last:tt [] $body:block $($rest:tt)*) => {
        $crate::__decorate! {
            @arguments $function [{} {} [$($return)? $last] $generics $body] {} {} ($($arguments)*) $($arguments)*
        }
    };
    (@munch $function:tt $parts:tt $part:tt [] ; $($tail:tt)*) => {
        $crate::__decorate! { @error $function }
    };
    (@munch $function:tt $parts:tt {$($part:tt)*} $open:tt $token:tt $($tail:tt)*) => {
        $crate::__decorate! { @munch $function $parts {$($part)* $token} $open $($tail)* }
    };

    // --- The receiver -----------------------------------------------------------------------------------------------
    // The arguments come twice, too. The first copy is matched for keywords; the second has the user's own tokens. So
    // `$this` is the `self` that the body means, and the compiler's lints see the user's code. In front of both are the
    // tokens of the current argument that have been read: `{attributes} {pattern}`.
    (@arguments $function:tt [{} {} $($parts:tt)*] {} {& 'static} (self $($copy:tt)*) $this:tt $(, $($rest:tt)*)?) => {
        $crate::__decorate! {
            @arguments $function [{&'static $this,} {} $($parts)*] {} {} ($($($rest)*)?) $($($rest)*)?
        }
    };
    (@arguments $function:tt $made:tt {} {& $($borrow:tt)*} (self $($copy:tt)*) $($tail:tt)*) => {
        $crate::__decorate! { @error $function }
    };
    // A reference to the whole of `self` makes the closure capture the whole.
    (@arguments $function:tt [{} {} $($parts:tt)*] {} {$($mut:tt)?}
        (self $(: $(&'static)? $owner:path)? $(, $($copy:tt)*)?) $this:tt $(: $type:ty)? $(, $($rest:tt)*)?
    ) => {
        $crate::__decorate! {
            @arguments $function [{$($mut)? $this $(: $type)?,} {let _ = &$this;} $($parts)*] {} {}
            ($($($rest)*)?) $($($rest)*)?
        }
    };
    (@arguments $function:tt $made:tt $attributes:tt $pattern:tt (self $($copy:tt)*) $($tail:tt)*) => {
        $crate::__decorate! { @error $function }
    };

    // --- The arguments: `{parameters} {statements that bind them again in the closure}` ------------------------------
    // To bind an argument again moves the whole of it into the closure, which otherwise captures only the parts that it
    // uses. `$mut` and `$name` are `tt`, since the compiler's lints ignore tokens that an `ident` has captured.
    (@arguments $function:tt [{$($parameters:tt)*} {$($bindings:tt)*} $($parts:tt)*] {$($attributes:tt)*} {$($mut:tt)?}
        ($copy:ident: $($more:tt)*) $name:tt: $type:ty $(, $($rest:tt)*)?
    ) => {
        $crate::__decorate! {
            @arguments $function [
                {$($parameters)* $($attributes)* $name: $type,}
                {
                    $($bindings)*
                    $($attributes)* #[allow(clippy::used_underscore_binding, clippy::no_effect_underscore_binding)]
                    let $($mut)? $name = $name;
                }
                $($parts)*
            ] {} {} ($($($rest)*)?) $($($rest)*)?
        }
    };
    // Any other pattern. Each step's `argument` is a name of its own.
    (@arguments $function:tt [{$($parameters:tt)*} {$($bindings:tt)*} $($parts:tt)*]
        {$($attributes:tt)*} {$($pattern:tt)*} $copy:tt : $type:ty $(, $($rest:tt)*)?
    ) => {
        $crate::__decorate! {
            @arguments $function [
                {$($parameters)* $($attributes)* argument: $type,}
                {
                    $($bindings)*
                    $($attributes)* #[allow(unused_mut)] let mut argument = argument;
                    $($attributes)* let $($pattern)* = argument;
                }
                $($parts)*
            ] {} {} ($($($rest)*)?) $($($rest)*)?
        }
    };
    (@arguments $function:tt $made:tt {$($attributes:tt)*} {} $copy:tt #[$($attribute:tt)*] $($tail:tt)*) => {
        $crate::__decorate! {
            @arguments $function $made {$($attributes)* #[$($attribute)*]} {} ($($tail)*) $($tail)*
        }
    };
    (@arguments $function:tt $made:tt $attributes:tt {$($seen:tt)*} ($copy:tt $($more:tt)*) $token:tt $($tail:tt)*) => {
        $crate::__decorate! { @arguments $function $made $attributes {$($seen)* $token} ($($more)*) $($tail)* }
    };
    (@arguments $function:tt [$parameters:tt $bindings:tt [$return:tt $($where:tt)?] $($parts:tt)*] {} {} ()) => {
        $crate::__decorate! { @returns $function $return $($parts)* $parameters $bindings $($where)? }
    };

    // --- The return type: becomes `[attributes to look at] {new return type} {what the closure returns}` -------------
    (@returns [(IteratorWrapper $($make:ident)+) {$($attributes:tt)*} $($name:tt)*]
        {impl $(::)? $($trait:ident)::+ <Item = $item:ty> $($bounds:tt)*} $($parts:tt)*
    ) => {
        $crate::__decorate! {
            @emit [($($make)+) {} $($name)*] {} [$($attributes)*] {$crate::IteratorWrapper<$item>} {} $($parts)*
        }
    };
    (@returns $function:tt {$(!)? $(impl $($bounds:tt)*)?} $($parts:tt)*) => {
        $crate::__decorate! { @error $function }
    };
    (@returns [(IteratorWrapper $($make:ident)+) {$($attributes:tt)*} $($name:tt)*] {$return:ty} $($parts:tt)*) => {
        $crate::__decorate! {
            @emit [($($make)+) {} $($name)*] {} [$($attributes)*]
            {$crate::IteratorWrapper<<$return as ::core::iter::IntoIterator>::Item>} {-> $return} $($parts)*
        }
    };
    (@returns [(Threaded $($make:ident)+) $($name:tt)*] {$return:ty} $($parts:tt)*) => {
        $crate::__decorate! {
            @emit [($($make)+) $($name)*] {} []
            {$crate::Threaded<impl ::core::ops::FnOnce() -> $return + ::core::marker::Send + 'static>} {-> $return}
            $($parts)*
        }
    };

    // --- The function, put together again, once its `max_size` is taken out of the attributes ------------------------
    (@emit $function:tt {} [#[max_size($size:expr)] $($attributes:tt)*] $($parts:tt)*) => {
        $crate::__decorate! { @emit $function {.max_size($size)} [$($attributes)*] $($parts)* }
    };
    (@emit [$make:tt {$($kept:tt)*} $($name:tt)*] $set:tt [#[$($attribute:tt)*] $($attributes:tt)*] $($parts:tt)*) => {
        $crate::__decorate! {
            @emit [$make {$($kept)* #[$($attribute)*]} $($name)*] $set [$($attributes)*] $($parts)*
        }
    };
    (@emit [($make:ident $($set_name:ident)?) {$($attributes:tt)*} {$visibility:vis} $name:ident]
        {$($set:tt)*} [] {$($output:tt)*} {$($return:tt)*}
        {$($generics:tt)*} $body:block {$($parameters:tt)*} {$($bindings:tt)*} $({$($where:tt)*})?
    ) => {
        $($attributes)*
        $visibility fn $name $($generics)* ($($parameters)*) -> $($output)*
        $($($where)*)?
        {
            $crate::$make(move || $($return)* { $($bindings)* $body })
                $($set)* $(.$set_name(::core::stringify!($name)))?
        }
    };

    // --- What no other rule takes ------------------------------------------------------------------------------------
    (@$step:ident [($type:ident $make:ident $($set_name:ident)?) $attributes:tt $visibility:tt $($name:ident)?]
        $($rest:tt)*
    ) => {
        ::core::compile_error! { ::core::concat!(
            $("`fn ", ::core::stringify!($name), "` in ",)? "`", ::core::stringify!($make), "!`: ",
            "write a plain `fn name(..) -> R { .. }`, with nothing but a visibility before `fn`; take `self` or \
             `self: Arc<Self>`, not a reference; and return a type that has a name, not `!` or `impl Trait` \
             (the macros for iterators also take `impl Iterator<Item = T>`)",
        ) }
    };
}

/// Runs some futures concurrently, and returns what they return: `gather!(a, b, c).await` is a tuple of three.
///
/// Each argument is something that can be awaited; the arguments may be of different types. Apart from that, the macro
/// does the same as [`gather`](crate::gather()), which takes any number of futures of one type.
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
/// The macro evaluates the arguments; the futures start when the macro's value is awaited. The value is `Send` if the
/// arguments, their futures and the outputs are.
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
            $crate::__gather::poll_woken(branches.len(), branches.len(), |_nth, _cx| {
                let mut _at = 0;
                $(
                    if _nth == _at {
                        return $branch.poll(_cx).into();
                    }
                    _at += 1;
                )*
                ::core::unreachable!("there are only so many branches")
            })
            .await;
            ($($branch.into_output().expect("all have finished"),)*)
        }
    }};
}
