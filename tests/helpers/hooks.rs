//! A waker that runs code of the test when it is cloned, woken or dropped.

use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex};
use std::task::{RawWaker, RawWakerVTable, Waker};

/// The hooks of a waker. The code of a hook runs once: at the first clone, wake or drop after the code was set.
#[derive(Default)]
pub struct Hooks {
    pub clone: Hook,
    pub wake: Hook,
    pub drop: Hook,
}

#[derive(Default)]
pub struct Hook(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Hook {
    pub fn set(&self, code: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(code));
    }

    fn run(&self) {
        let code = self.0.lock().unwrap().take();
        if let Some(code) = code {
            code();
        }
    }

    pub fn has_run(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }
}

impl Hooks {
    pub fn waker(self: &Arc<Self>) -> Waker {
        /// Each waker owns one count of the `Arc` that its data points into.
        fn arc(data: *const ()) -> Arc<Hooks> {
            // SAFETY: `data` comes from `Arc::into_raw`, and each caller takes over or gives back the count that goes
            // with it.
            unsafe { Arc::from_raw(data.cast()) }
        }
        fn raw(hooks: Arc<Hooks>) -> RawWaker {
            RawWaker::new(Arc::into_raw(hooks).cast(), &VTABLE)
        }
        fn clone(data: *const ()) -> RawWaker {
            let hooks = ManuallyDrop::new(arc(data));
            hooks.clone.run();
            raw(Arc::clone(&hooks))
        }
        fn wake(data: *const ()) {
            arc(data).wake.run();
        }
        fn wake_by_ref(data: *const ()) {
            ManuallyDrop::new(arc(data)).wake.run();
        }
        fn drop(data: *const ()) {
            arc(data).drop.run();
        }
        const VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop);
        // SAFETY: the functions above keep one count of the `Arc` for each waker, and `Hooks` is `Send + Sync`.
        unsafe { Waker::from_raw(raw(Arc::clone(self))) }
    }
}
