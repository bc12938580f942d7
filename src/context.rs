//! Context variables: values that jobs and tasks inherit, and that code reads without getting them as arguments.
//!
//! # How
//! A [`Context`] is an `Arc` of a map from variables to values, or `None` if it is empty. Each thread has a current
//! context. A shared map is never changed: setting a variable replaces the map by a changed copy. So a copy of the
//! context never sees later changes, and no lock is needed.
//!
//! The map is copied whole, since variables are few, and are read more often than they are set.
//!
//! 1. The current context is borrowed for a look-up, a copy, a change or a swap, and never while user code runs. So a
//!    value's `Clone` or `Drop`, a closure or a future may use any variable, even the same one.
//! 2. [`Context::within`] and [`Context::incomplete`] restore the caller's context, also after a panic.
//! 3. Lazy entry: a `block_on` makes its event loop only when the loop is needed. So it installs a callback,
//!    [`Current::complete`], which sets the current loop. The callback runs before the context is copied or the current
//!    loop is read: see [`complete`]. The callback belongs to the current context, and is swapped together with it.
//! 4. Dropping a context does not panic: a panic in a value's `Drop` is caught. The last copy may be dropped anywhere,
//!    and the panic would end unrelated code there.
//!
//! Each job (`Shared::job` in `pool/mod.rs`, `separate.rs`), stream (`pool/stream.rs`), task (`event_loop/`; also those
//! of `call_soon` and `call_later`) and branch (`gather.rs`) has a copy of the context in which it was made.
#![forbid(unsafe_code)]

use std::any::{Any, type_name};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::task::{self, Poll};

use crate::primitives::drop_queue::drop_flat;
use crate::primitives::join_error::discard;
use crate::sync::{OnceLock, thread_local};

thread_local! {
    static CURRENT: Current = const { Current { context: RefCell::new(Context(None)), complete: Cell::new(None) } };
}

struct Current {
    context: RefCell<Context>,
    /// Sets the current loop, once it is needed: see rule 3.
    complete: Cell<Option<fn()>>,
}

impl Current {
    #[inline]
    fn complete(&self) {
        if let Some(complete) = self.complete.take() {
            complete();
        }
    }
}

/// A variable's address, which tells it from all others.
type Key = usize;

type Value = Arc<dyn Any + Send + Sync>;

/// A variable whose value belongs to the [context](Context) in which it was set. If another thread or task sets the
/// variable, this thread or task does not see the new value.
///
/// Under another runtime (tokio, smol) each thread has one context, so the tasks that the thread polls share it. To
/// give a task a context of its own, wrap it: `Context::current().wrap(future)`, or
/// [`LoopHandle::wrap`](crate::LoopHandle::wrap).
///
/// A variable is a `static`. At first it has no value anywhere. A job gets a copy of the context in which it was
/// started.
///
/// ```
/// use offthread::{ContextVar, block_on, threaded};
///
/// static REQUEST_ID: ContextVar<u64> = ContextVar::new();
///
/// REQUEST_ID.set(7);
/// // Returns the old value. Only the job sees the 8.
/// let seen = block_on(threaded(|| REQUEST_ID.set(8)));
/// assert_eq!((seen, REQUEST_ID.get()), (Some(7), Some(7)));
/// ```
///
/// Threads that are not started by this crate are given a copy by hand:
///
/// ```
/// use offthread::{Context, ContextVar};
///
/// static USER: ContextVar<&str> = ContextVar::new();
///
/// fn greeting() -> String {
///     format!("Hello, {}!", USER.get().unwrap_or("stranger"))
/// }
///
/// USER.set("Ada");
/// assert_eq!(greeting(), "Hello, Ada!");
///
/// // A copy goes wherever it is needed, and what is set there stays there.
/// let context = Context::current();
/// std::thread::spawn(move || {
///     assert_eq!(greeting(), "Hello, stranger!");
///     context.run(|| {
///         assert_eq!(greeting(), "Hello, Ada!");
///         USER.set("Bob");
///     });
/// })
/// .join()
/// .unwrap();
/// assert_eq!(greeting(), "Hello, Ada!");
/// ```
///
/// Values go to other threads, several threads may read a value at the same time, and [`get`](Self::get) clones it. So
/// these do not compile:
///
/// ```compile_fail,E0277
/// # use offthread::ContextVar;
/// static NOT_SYNC: ContextVar<std::cell::Cell<i32>> = ContextVar::new();
/// ```
/// ```compile_fail,E0277
/// # use offthread::ContextVar;
/// static NOT_SEND: ContextVar<std::sync::MutexGuard<'static, i32>> = ContextVar::new();
/// ```
/// ```compile_fail,E0277
/// # use offthread::ContextVar;
/// static NOT_CLONE: ContextVar<std::sync::Mutex<i32>> = ContextVar::new();
/// ```
/// ```compile_fail,E0310
/// # use offthread::ContextVar;
/// struct NotStatic<T>(ContextVar<T>);
/// ```
///
/// A variable is identified by its address, so it must not move. A `const` has no address, and a local variable may
/// move:
///
/// ```compile_fail,E0716
/// # use offthread::ContextVar;
/// const USER: ContextVar<&str> = ContextVar::new();
/// USER.set("Ada");
/// ```
/// ```compile_fail,E0597
/// # use offthread::ContextVar;
/// let user: ContextVar<&str> = ContextVar::new();
/// user.set("Ada");
/// ```
pub struct ContextVar<T: 'static> {
    /// Gives the variable an address of its own, since it has a size, whatever `T` is. It has interior mutability, so
    /// the compiler merges no two variables, and refuses a `const`.
    _place: OnceLock<()>,
    _value: PhantomData<fn() -> T>,
}

impl<T: Clone + Send + Sync + 'static> ContextVar<T> {
    /// A variable that has no value anywhere. For a `static`.
    ///
    /// ```
    /// use offthread::ContextVar;
    ///
    /// static REQUEST_ID: ContextVar<u64> = ContextVar::new();
    /// assert_eq!(REQUEST_ID.get(), None);
    /// ```
    #[must_use = "a variable that is not kept in a `static` cannot be used"]
    #[expect(clippy::new_without_default, reason = "a `static` cannot be made by `default`")]
    pub const fn new() -> Self {
        Self { _place: OnceLock::new(), _value: PhantomData }
    }

    /// A copy of the value, or `None` if the variable has none in the current context.
    ///
    /// ```
    /// # use offthread::ContextVar;
    /// static REQUEST_ID: ContextVar<u64> = ContextVar::new();
    ///
    /// assert_eq!(REQUEST_ID.get(), None);
    /// REQUEST_ID.set(7);
    /// assert_eq!(REQUEST_ID.get(), Some(7));
    /// ```
    ///
    /// # Panics
    /// If the value's `Clone` does.
    pub fn get(&'static self) -> Option<T> {
        self.with(|value| Some(value?.clone()))
    }

    /// Calls `f` with a reference to the value, and returns what `f` returns.
    ///
    /// ```
    /// # use offthread::ContextVar;
    /// static PATH: ContextVar<Vec<String>> = ContextVar::new();
    ///
    /// PATH.set(vec!["usr".into(), "bin".into()]);
    /// assert_eq!(PATH.with(|path| path.map_or(0, Vec::len)), 2);
    /// ```
    ///
    /// If `f` sets the variable, later reads see the new value; the reference does not change.
    ///
    /// # Panics
    /// If `f` does.
    pub fn with<R>(&'static self, f: impl FnOnce(Option<&T>) -> R) -> R {
        let key = self.key();
        let value = CURRENT.try_with(|current| current.context.borrow().get(key).cloned()).unwrap_or_default();
        f(value.as_deref().and_then(|value| value.downcast_ref()))
    }

    /// Sets the value in the current context. Returns the old value.
    ///
    /// The old value is cloned only if a copy of the context, or a [`with`](Self::with) that is running, shares it.
    ///
    /// ```
    /// # use offthread::ContextVar;
    /// static REQUEST_ID: ContextVar<u64> = ContextVar::new();
    ///
    /// assert_eq!(REQUEST_ID.set(7), None);
    /// assert_eq!(REQUEST_ID.set(8), Some(7));
    /// ```
    ///
    /// At the very end of a thread, when its thread-locals are being dropped, there may be no current context any more.
    /// The value is then dropped.
    ///
    /// # Panics
    /// If the old value's `Clone` does. The new value has been set even then.
    pub fn set(&'static self, value: T) -> Option<T> {
        self.replace(Some(Arc::new(value)))
    }

    /// Takes the value out of the current context, and returns it.
    ///
    /// The value is cloned only if a copy of the context, or a [`with`](Self::with) that is running, shares it.
    ///
    /// ```
    /// # use offthread::ContextVar;
    /// static REQUEST_ID: ContextVar<u64> = ContextVar::new();
    ///
    /// REQUEST_ID.set(7);
    /// assert_eq!(REQUEST_ID.clear(), Some(7));
    /// assert_eq!(REQUEST_ID.get(), None);
    /// ```
    ///
    /// # Panics
    /// If the value's `Clone` does. The value has been taken out of the context even then.
    pub fn clear(&'static self) -> Option<T> {
        self.replace(None)
    }

    fn replace(&'static self, value: Option<Value>) -> Option<T> {
        let key = self.key();
        let old = CURRENT.try_with(|current| current.context.borrow_mut().replace(key, value)).ok()??;
        old.downcast().ok().map(Arc::unwrap_or_clone)
    }

    fn key(&'static self) -> Key {
        ptr::from_ref(self).addr()
    }
}

impl<T> fmt::Debug for ContextVar<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextVar<{}>", type_name::<T>())
    }
}

/// Sets the current loop in the current context, if it is still missing (rule 3). Called before the loop is read.
pub fn complete() {
    let _ = CURRENT.try_with(Current::complete);
}

/// The values that all [variables](ContextVar) had at one moment.
///
/// A copy is cheap, however many variables it has; an empty context takes no memory. Setting a variable does not change
/// the copies that were taken before.
///
/// ```
/// use offthread::{Context, ContextVar};
///
/// static REQUEST_ID: ContextVar<u64> = ContextVar::new();
///
/// REQUEST_ID.set(7);
/// let seven = Context::current();
/// REQUEST_ID.set(8);
/// assert_eq!(seven.run(|| REQUEST_ID.get()), Some(7));
/// assert_eq!(REQUEST_ID.get(), Some(8));
/// ```
///
/// The default context is empty. If the `Drop` of a value panics while a context is dropped, only the panic hook
/// reports it.
#[derive(Clone, Default)]
pub struct Context(
    /// `None`: empty.
    Option<Arc<Map>>,
);

/// A map is changed in single steps.
impl UnwindSafe for Context {}
impl RefUnwindSafe for Context {}

#[derive(Clone, Default)]
struct Map(
    /// Sorted by key.
    Vec<(Key, Value)>,
);

impl Map {
    /// The index of the variable's value. `Err`: where to insert it.
    fn find(&self, key: Key) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(key, _)| *key)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        for (_, value) in mem::take(&mut self.0) {
            // A value may own the last copy of another context.
            drop_flat(value).unwrap_or_else(discard);
        }
    }
}

/// Holds the caller's context, and makes it current again when dropped.
struct Swapped<'a> {
    context: &'a mut Context,
    complete: Option<fn()>,
}

impl Swapped<'_> {
    /// At the end of a thread, when there is no current context, does nothing.
    #[inline]
    fn swap(&mut self) {
        let _ = CURRENT.try_with(|current| {
            mem::swap(&mut *current.context.borrow_mut(), self.context);
            self.complete = current.complete.replace(self.complete);
        });
    }
}

impl Drop for Swapped<'_> {
    #[inline]
    fn drop(&mut self) {
        self.swap();
    }
}

impl Context {
    /// A copy of the current context.
    ///
    /// ```
    /// use offthread::{Context, ContextVar};
    ///
    /// static REQUEST_ID: ContextVar<u64> = ContextVar::new();
    ///
    /// REQUEST_ID.set(7);
    /// let context = Context::current();
    /// let thread = std::thread::spawn(move || context.run(|| REQUEST_ID.get()));
    /// assert_eq!(thread.join().unwrap(), Some(7));
    /// ```
    #[inline]
    pub fn current() -> Self {
        let copy = |current: &Current| {
            current.complete();
            current.context.borrow().clone()
        };
        CURRENT.try_with(copy).unwrap_or_default()
    }

    /// Runs `f` in a copy of the current context. `complete` sets the current loop in this copy, once the loop is
    /// needed: see rule 3.
    #[inline]
    pub(crate) fn incomplete<R>(complete: fn(), f: impl FnOnce() -> R) -> R {
        // `f` changes the current context itself; afterwards the copy made here replaces it.
        let outer =
            CURRENT.try_with(|current| (current.context.borrow().clone(), current.complete.replace(Some(complete))));
        let (mut context, complete) = outer.unwrap_or_default();
        let _outer = Swapped { context: &mut context, complete };
        f()
    }

    /// Runs `f` in a copy of this context, and returns what `f` returns.
    ///
    /// Values that `f` sets do not leak out: neither the caller nor this context sees them.
    ///
    /// ```
    /// use offthread::{Context, ContextVar};
    ///
    /// static REQUEST_ID: ContextVar<u64> = ContextVar::new();
    ///
    /// REQUEST_ID.set(7);
    /// let inside = Context::default().run(|| {
    ///     assert_eq!(REQUEST_ID.get(), None);
    ///     REQUEST_ID.set(8);
    ///     REQUEST_ID.get()
    /// });
    /// assert_eq!((inside, REQUEST_ID.get()), (Some(8), Some(7)));
    /// ```
    ///
    /// # Panics
    /// If `f` does. The caller's context is back by then.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        self.clone().within(f)
    }

    /// A future that is polled, and dropped, in this context, on whichever thread. For other executors.
    ///
    /// Values that the future sets last from poll to poll, and do not leak out.
    ///
    /// ```
    /// use offthread::{Context, ContextVar, block_on};
    ///
    /// static REQUEST_ID: ContextVar<u64> = ContextVar::new();
    ///
    /// REQUEST_ID.set(7);
    /// let next = Context::current().wrap(async { REQUEST_ID.get().map(|id| id + 1) });
    /// let thread = std::thread::spawn(|| block_on(next));
    /// assert_eq!(thread.join().unwrap(), Some(8));
    /// ```
    pub fn wrap<F: Future>(self, future: F) -> WithContext<F> {
        WithContext(Some(Wrapped { future: Box::pin(future), context: self }))
    }

    /// Makes this context the current one while `f` runs. This context keeps what `f` sets.
    pub(crate) fn within<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let mut swapped = Swapped { context: self, complete: None };
        swapped.swap();
        f()
    }

    fn get(&self, key: Key) -> Option<&Value> {
        let map = self.0.as_ref()?;
        Some(&map.0[map.find(key).ok()?].1)
    }

    /// Replaces a value; the old and the new one may be none. Drops nothing.
    fn replace(&mut self, key: Key, value: Option<Value>) -> Option<Value> {
        match self.0.as_ref().map_or(Err(0), |map| map.find(key)) {
            Err(at) => {
                if let Some(value) = value {
                    Arc::make_mut(self.0.get_or_insert_default()).0.insert(at, (key, value));
                }
                None
            }
            Ok(at) => {
                let entries = &mut Arc::make_mut(self.0.as_mut()?).0;
                if let Some(value) = value {
                    return Some(mem::replace(&mut entries[at].1, value));
                }
                let (_, old) = entries.remove(at);
                if entries.is_empty() {
                    self.0 = None;
                }
                Some(old)
            }
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables = self.0.as_ref().map_or(0, |map| map.0.len());
        f.debug_struct("Context").field("variables", &variables).finish_non_exhaustive()
    }
}

/// A future with a context of its own. From [`Context::wrap`].
///
/// Dropping it drops the future, in the context. It is `Send` where the future is:
///
/// ```compile_fail,E0277
/// fn is_send(_: impl Send) {}
/// let not_send = std::future::ready(std::rc::Rc::new(()));
/// is_send(offthread::Context::current().wrap(not_send));
/// ```
///
/// # Panics
/// If the future does, with its panic: the poller's context has been restored by then. And if the future is polled
/// again after it was ready.
#[must_use = "a future does nothing unless it is awaited"]
pub struct WithContext<F>(
    /// `None` once it is ready.
    Option<Wrapped<F>>,
);

struct Wrapped<F> {
    /// Boxed, since a polled future must not move, and this file has no unsafe code.
    future: Pin<Box<F>>,
    /// The context of the future while it is not being polled.
    context: Context,
}

impl<F> WithContext<F> {
    /// Drops the future, in its context.
    fn end(&mut self) {
        if let Some(Wrapped { future, mut context }) = self.0.take() {
            context.within(|| drop(future));
        }
    }
}

impl<F: Future> Future for WithContext<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let Some(Wrapped { future, context }) = &mut self.0 else {
            panic!("a future with a context was polled again after it had given its result")
        };
        let polled = context.within(|| future.as_mut().poll(cx));
        if polled.is_ready() {
            self.end();
        }
        polled
    }
}

impl<F> Drop for WithContext<F> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<F> fmt::Debug for WithContext<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = self.0.as_ref().map(|wrapped| &wrapped.context);
        f.debug_struct("WithContext").field("context", &context).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_takes_no_memory_once_its_last_variable_is_cleared() {
        static ONE: ContextVar<u8> = ContextVar::new();
        static OTHER: ContextVar<u8> = ContextVar::new();
        Context::default().run(|| {
            assert!(Context::current().0.is_none());
            ONE.clear();
            assert!(Context::current().0.is_none());
            ONE.set(1);
            OTHER.set(2);
            ONE.clear();
            assert!(Context::current().0.is_some());
            OTHER.clear();
            assert!(Context::current().0.is_none());
        });
    }
}
