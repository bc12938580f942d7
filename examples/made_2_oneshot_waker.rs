//! How it is made, 2: the oneshot again, with a waker in place of the condvar. The receiver is a future.
//!
//! A condvar wakes a thread. A waker wakes the code that polls the future: a thread, or one of many tasks on a thread.
//! The real channel is `src/primitives/oneshot.rs`, with a `WakerSlot` (`src/primitives/waker_slot.rs`) in place of the
//! lock. Both follow the same rule: *register the waker, then look again*. Here the lock makes this one step.

#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

enum State<T> {
    /// The waker of the last poll, if there was one.
    Empty(Option<Waker>),
    Value(T),
    Closed,
}
struct Sender<T>(Arc<Mutex<State<T>>>);
struct Receiver<T>(Arc<Mutex<State<T>>>);

fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Mutex::new(State::Empty(None)));
    (Sender(shared.clone()), Receiver(shared))
}

/// Sets the state, and wakes a receiver that waits: outside of the lock, since a waker can run any code.
fn finish<T>(shared: &Mutex<State<T>>, state: State<T>) {
    let before = std::mem::replace(&mut *shared.lock().unwrap(), state);
    if let State::Empty(Some(waker)) = before {
        waker.wake();
    }
}

impl<T> Sender<T> {
    fn send(self, value: T) {
        finish(&self.0, State::Value(value));
    }
}
impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // Two steps are enough: nobody else can send in between.
        let is_empty = matches!(*self.0.lock().unwrap(), State::Empty(_));
        if is_empty {
            finish(&self.0, State::Closed);
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock().unwrap();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Value(value) => Poll::Ready(Some(value)),
            State::Closed => Poll::Ready(None),
            State::Empty(_) => {
                // The newest waker counts: the future may have moved to another task.
                *state = State::Empty(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

/// Counts how often it is woken.
struct Count(AtomicUsize);
impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
fn main() {
    let wakes = Arc::new(Count(AtomicUsize::new(0)));
    let waker = wakes.clone().into();
    let mut cx = Context::from_waker(&waker);
    let (sender, mut receiver) = channel();
    assert_eq!(Pin::new(&mut receiver).poll(&mut cx), Poll::Pending);
    std::thread::spawn(move || sender.send(42)).join().unwrap();
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    assert_eq!(Pin::new(&mut receiver).poll(&mut cx), Poll::Ready(Some(42)));
    let (sender, mut receiver) = channel::<()>();
    assert_eq!(Pin::new(&mut receiver).poll(&mut cx), Poll::Pending);
    drop(sender);
    assert_eq!(Pin::new(&mut receiver).poll(&mut cx), Poll::Ready(None));
    assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
    println!("each poll that was pending was followed by one wake");
}
