//! std's synchronisation, or loom's. Only this file knows which.
//!
//! Every other file takes its atomics, `UnsafeCell`s, locks and threads from here, so that the models of `loom-tests/`
//! check the very source that users run. `cfg(offthread_loom)` is set by the build script of that unpublished package
//! alone; in a user's build this file is a list of re-exports and a few thin wrappers:
//!
//! * [`UnsafeCell`] gives access through closures, which is how loom notices two accesses at once;
//! * [`Mutex`] does not poison: no user code ever runs under it, so a panic cannot leave a half-done change behind;
//! * [`Condvar`] is for one waiting thread, and its `wait` takes a deadline;
//! * [`ThreadHandle`] and [`sleep`] are `std::thread::park` and `unpark`. Under loom, which has no `park_timeout`, they
//!   are a token under a lock;
//! * [`slots`] makes a buffer without touching its memory.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "this is where they are wrapped")]

/// For globals, which no model touches: loom's objects live for one execution only.
pub(crate) use std::sync::OnceLock;

pub(crate) use imp::*;

/// For the models: spurious wake-ups and deadlines.
#[cfg(offthread_loom)]
pub use imp::ThreadHandle;

/// A lock that does not poison.
#[derive(Debug)]
pub(crate) struct Mutex<T>(locks::Mutex<T>);

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(locks::Mutex::new(value))
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(not(offthread_loom))]
mod imp {
    use std::cell;
    use std::collections::TryReserveError;
    use std::mem::MaybeUninit;
    use std::time::{Duration, Instant};

    pub(crate) use std::sync as locks;
    pub(crate) use std::sync::{Arc, MutexGuard, atomic};
    pub(crate) use std::{thread, thread_local};

    /// The most yields before a sleep: see `primitives::backoff`.
    pub(crate) const MAX_YIELDS: u32 = 48;

    /// std's cell with loom's interface.
    #[derive(Debug)]
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(cell::UnsafeCell::new(value))
        }

        #[inline]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    /// A buffer of `len` slots that hold nothing yet; its memory is not touched.
    pub(crate) fn slots<T>(len: usize) -> Result<Box<[UnsafeCell<MaybeUninit<T>>]>, TryReserveError> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(len)?;
        // SAFETY: `len` fits the capacity just reserved, and a `MaybeUninit` in a transparent wrapper needs no
        // initialisation.
        unsafe { slots.set_len(len) };
        Ok(slots.into_boxed_slice())
    }

    /// A condvar on which only one thread waits.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(locks::Condvar);

    impl Condvar {
        pub(crate) fn notify(&self) {
            self.0.notify_one();
        }

        /// Unlocks `mutex`, waits for a notification or for the deadline, and locks again. May also return spuriously.
        pub(crate) fn wait<'a, T>(
            &self,
            _mutex: &'a super::Mutex<T>,
            guard: MutexGuard<'a, T>,
            deadline: Option<Instant>,
        ) -> MutexGuard<'a, T> {
            let Some(at) = deadline else { return self.0.wait(guard).unwrap_or_else(locks::PoisonError::into_inner) };
            let left = at.saturating_duration_since(Instant::now());
            self.0.wait_timeout(guard, left).unwrap_or_else(locks::PoisonError::into_inner).0
        }
    }

    /// Wakes one thread out of [`sleep`], or makes its next `sleep` return at once.
    #[derive(Debug)]
    pub(crate) struct ThreadHandle(thread::Thread);

    impl ThreadHandle {
        pub(crate) fn current() -> Self {
            Self(thread::current())
        }

        pub(crate) fn unpark(&self) {
            self.0.unpark();
        }
    }

    /// Sleeps until unparked or until the deadline; may also return spuriously.
    pub(crate) fn sleep(deadline: Option<Instant>) {
        match deadline {
            None => thread::park(),
            Some(at) => match at.saturating_duration_since(Instant::now()) {
                Duration::ZERO => {}
                left => thread::park_timeout(left),
            },
        }
    }

    pub(crate) fn is_past(deadline: Instant) -> bool {
        Instant::now() >= deadline
    }

    /// Gives a thread on another core time for a few steps: some ten nanoseconds for each of `times`, without a system
    /// call, and without access to shared memory. On one CPU, does nothing.
    pub(crate) fn pause(times: u32) {
        if cpus() > 1 {
            for _ in 0..times {
                std::hint::spin_loop();
            }
        }
    }

    /// How many threads can run at once.
    pub(crate) fn cpus() -> usize {
        // Cached: asking the system takes several system calls, and the answer hardly ever changes.
        static CPUS: super::OnceLock<usize> = super::OnceLock::new();
        *CPUS.get_or_init(|| thread::available_parallelism().map_or(1, Into::into))
    }
}

#[cfg(offthread_loom)]
mod imp {
    use std::collections::TryReserveError;
    use std::mem::MaybeUninit;
    use std::time::Instant;

    pub(crate) use loom::sync as locks;
    pub(crate) use loom::sync::{Arc, MutexGuard, atomic};
    pub(crate) use loom::{cell::UnsafeCell, thread};

    /// `thread_local!` for loom: loom's own macro does not accept `const { … }`.
    macro_rules! const_thread_local {
        ($($(#[$attribute:meta])* static $name:ident: $type:ty = const $init:block;)+) => {
            ::loom::thread_local! { $($(#[$attribute])* static $name: $type = $init;)+ }
        };
    }
    pub(crate) use const_thread_local as thread_local;

    /// A model does not yield before it sleeps.
    pub(crate) const MAX_YIELDS: u32 = 0;

    #[expect(clippy::unnecessary_wraps, reason = "std's, above, can fail")]
    pub(crate) fn slots<T>(len: usize) -> Result<Box<[UnsafeCell<MaybeUninit<T>>]>, TryReserveError> {
        Ok((0..len).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect())
    }

    /// loom's own condvar never times out. So the waiting thread sleeps on its token, for which a deadline is an event.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar(locks::Mutex<Option<ThreadHandle>>);

    impl Condvar {
        pub(crate) fn notify(&self) {
            if let Some(waiter) = self.0.lock().unwrap().take() {
                waiter.unpark();
            }
        }

        pub(crate) fn wait<'a, T>(
            &self,
            mutex: &'a super::Mutex<T>,
            guard: MutexGuard<'a, T>,
            deadline: Option<Instant>,
        ) -> MutexGuard<'a, T> {
            *self.0.lock().unwrap() = Some(ThreadHandle::current());
            drop(guard);
            sleep(deadline);
            mutex.lock()
        }
    }

    /// A sleeping thread waits for this. Time does not pass under loom, so a deadline is an event:
    /// [`ThreadHandle::time_out`].
    #[derive(Debug, Default)]
    struct ParkToken {
        unparked: bool,
        timed_out: bool,
    }

    thread_local! {
        static TOKEN: ThreadHandle = const { ThreadHandle::default() };
    }

    /// The same as in the std build, above, and also for models. The `Arc` is std's, since loom drops a thread's locals
    /// in no fixed order.
    #[derive(Clone, Debug, Default)]
    pub struct ThreadHandle(std::sync::Arc<(locks::Mutex<ParkToken>, locks::Condvar)>);

    impl ThreadHandle {
        /// The handle of the calling thread.
        pub fn current() -> Self {
            TOKEN.with(Clone::clone)
        }

        /// A model may call this at any time: a spurious wake-up.
        pub fn unpark(&self) {
            self.set(|token| token.unparked = true);
        }

        /// For models: all deadlines of the handle's thread have passed.
        pub fn time_out(&self) {
            self.set(|token| token.timed_out = true);
        }

        fn set(&self, change: impl FnOnce(&mut ParkToken)) {
            change(&mut self.0.0.lock().unwrap());
            self.0.1.notify_one();
        }
    }

    pub(crate) fn sleep(deadline: Option<Instant>) {
        let thread = ThreadHandle::current();
        let mut token = thread.0.0.lock().unwrap();
        while !(token.unparked || deadline.is_some() && token.timed_out) {
            token = thread.0.1.wait(token).unwrap();
        }
        token.unparked = false;
    }

    pub(crate) fn is_past(_: Instant) -> bool {
        ThreadHandle::current().0.0.lock().unwrap().timed_out
    }

    /// In a model, no time passes.
    pub(crate) fn pause(_: u32) {}

    /// No model uses the default size of a pool.
    pub(crate) fn cpus() -> usize {
        1
    }
}
