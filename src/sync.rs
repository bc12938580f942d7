//! std's synchronisation, or loom's: the one file that knows which.
//!
//! Everything else in the crate takes its atomics, cells, locks and threads from here, so that the models of
//! `loom-tests/` check the very source that users run. `cfg(offthread_loom)` is set by the build script of that
//! unpublished package alone; in a user's build this file is a list of re-exports and four thin wrappers:
//!
//! * [`UnsafeCell`] gives access through closures, which is how loom notices two at once;
//! * [`Mutex`] does not poison: no user code ever runs under one, so a panic cannot leave a half-done change behind;
//! * [`Sleeper`] and [`sleep`] put a thread to sleep and wake it: `std::thread::park`, or, since loom has no
//!   `park_timeout`, a token under a lock;
//! * [`slots`] makes a buffer without touching its memory;
//! * [`Tracked`] and [`assert_alone`] have loom notice what is never dropped, or too early.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "this is where they are wrapped")]

/// For globals, which no model touches: loom's objects live for one execution only.
pub(crate) use std::sync::OnceLock;

pub(crate) use imp::*;

/// For the models: spurious wake-ups and deadlines.
#[cfg(offthread_loom)]
pub use imp::Sleeper;

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

    /// Without locking: who has it alone needs no lock.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Locks, if nobody else has the lock just now.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
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

    /// std's cell with loom's way in.
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

    /// Nothing.
    #[derive(Debug, Default)]
    pub(crate) struct Tracked(());

    /// Nothing.
    pub(crate) fn assert_alone(_: &mut atomic::AtomicU8) {}

    /// Wakes one thread out of [`sleep`], or makes its next one return at once.
    #[derive(Debug)]
    pub(crate) struct Sleeper(thread::Thread);

    impl Sleeper {
        pub(crate) fn current() -> Self {
            Self(thread::current())
        }

        pub(crate) fn wake(&self) {
            self.0.unpark();
        }
    }

    /// Sleeps until woken or until the deadline; may also return for no reason.
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

    /// Gives another thread, on another core, the time to do something small: some ten nanoseconds for each of `times`,
    /// without a system call and without touching memory that it may be writing to.
    pub(crate) fn pause(times: u32) {
        if cpus() > 1 {
            for _ in 0..times {
                std::hint::spin_loop();
            }
        }
    }

    /// How many threads can run at once.
    pub(crate) fn cpus() -> usize {
        // Asking costs several system calls, and the answer hardly ever changes.
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

    /// loom's, which does not know of `const { … }`.
    macro_rules! const_thread_local {
        ($($(#[$attribute:meta])* static $name:ident: $type:ty = const $init:block;)+) => {
            ::loom::thread_local! { $($(#[$attribute])* static $name: $type = $init;)+ }
        };
    }
    pub(crate) use const_thread_local as thread_local;

    #[expect(clippy::unnecessary_wraps, reason = "std's, above, can fail")]
    pub(crate) fn slots<T>(len: usize) -> Result<Box<[UnsafeCell<MaybeUninit<T>>]>, TryReserveError> {
        Ok((0..len).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect())
    }

    /// Part of what is to be dropped before a model ends.
    pub(crate) struct Tracked(#[expect(dead_code, reason = "it is there for its own sake")] loom::alloc::Track<()>);

    /// Fails the model if another thread's use of it does not come before this.
    pub(crate) fn assert_alone(atomic: &mut atomic::AtomicU8) {
        atomic.with_mut(|_| ());
    }

    impl Default for Tracked {
        fn default() -> Self {
            Self(loom::alloc::Track::new(()))
        }
    }

    /// What a thread sleeps on. Time does not pass under loom, so a deadline is an event: [`Sleeper::expire`].
    #[derive(Debug, Default)]
    struct Bed {
        woken: bool,
        expired: bool,
    }

    thread_local! {
        static BED: Sleeper = const { Sleeper(Arc::new((locks::Mutex::new(Bed::default()), locks::Condvar::new()))) };
    }

    /// As std's, above; the models use it too.
    #[derive(Clone, Debug)]
    pub struct Sleeper(Arc<(locks::Mutex<Bed>, locks::Condvar)>);

    impl Sleeper {
        /// The calling thread's.
        pub fn current() -> Self {
            BED.with(Clone::clone)
        }

        /// From a model, without anything to tell: a spurious wake-up.
        pub fn wake(&self) {
            self.set(|bed| bed.woken = true);
        }

        /// From a model: from now on, every deadline of that thread has passed.
        pub fn expire(&self) {
            self.set(|bed| bed.expired = true);
        }

        fn set(&self, change: impl FnOnce(&mut Bed)) {
            change(&mut self.0.0.lock().unwrap());
            self.0.1.notify_one();
        }
    }

    pub(crate) fn sleep(deadline: Option<Instant>) {
        let sleeper = Sleeper::current();
        let mut bed = sleeper.0.0.lock().unwrap();
        while !(bed.woken || deadline.is_some() && bed.expired) {
            bed = sleeper.0.1.wait(bed).unwrap();
        }
        bed.woken = false;
    }

    pub(crate) fn is_past(_: Instant) -> bool {
        Sleeper::current().0.0.lock().unwrap().expired
    }

    /// A model has no time to give.
    pub(crate) fn pause(_: u32) {}

    /// One: a model neither spins nor yields before it sleeps.
    pub(crate) fn cpus() -> usize {
        1
    }
}
