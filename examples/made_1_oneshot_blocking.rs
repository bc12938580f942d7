//! How it is made, 1: a channel for one value, from a mutex and a condvar. The receiver blocks its thread.
//!
//! The real channel is `src/primitives/oneshot.rs`. The next step, `made_2_oneshot_waker`, lets async code receive.
//! Beyond both, the real file
//! * has no lock: one byte says who may touch the value (its *State machine*, and *Who may touch what*);
//! * frees its memory without a reference count (UNSHARED in its *State machine*);
//! * tells the sender when the receiver has gone (`Sender::closed`).

#![forbid(unsafe_code)]

use std::sync::{Arc, Condvar, Mutex};
use std::thread;

enum State<T> {
    Empty,
    Value(T),
    /// The sender was dropped without a value, or the value has been received.
    Closed,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct Sender<T>(Arc<Shared<T>>);
struct Receiver<T>(Arc<Shared<T>>);

fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared { state: Mutex::new(State::Empty), changed: Condvar::new() });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Sender<T> {
    /// Consumes the sender, so at most one value is sent.
    fn send(self, value: T) {
        *self.0.state.lock().unwrap() = State::Value(value);
        // Here the sender is dropped, which wakes the receiver.
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap();
        // Without this, a receiver would wait for ever for a sender that panicked.
        if matches!(*state, State::Empty) {
            *state = State::Closed;
        }
        drop(state);
        self.0.changed.notify_one();
    }
}

impl<T> Receiver<T> {
    /// Blocks until there is a value. `None`: no value will come.
    fn recv(self) -> Option<T> {
        let mut state = self.0.state.lock().unwrap();
        loop {
            match std::mem::replace(&mut *state, State::Closed) {
                State::Value(value) => return Some(value),
                State::Closed => return None,
                State::Empty => *state = State::Empty,
            }
            // Unlocks and sleeps in one step, so no wake is lost. `wait` may also return for no reason, hence the loop.
            state = self.0.changed.wait(state).unwrap();
        }
    }
}

fn main() {
    let (sender, receiver) = channel();
    let thread = thread::spawn(move || sender.send(6 * 7));
    assert_eq!(receiver.recv(), Some(42));
    thread.join().unwrap();

    // Sent before anyone waits.
    let (sender, receiver) = channel();
    sender.send("early");
    assert_eq!(receiver.recv(), Some("early"));

    // Dropped without a value, before the receiver waits or while it waits.
    let (sender, receiver) = channel::<()>();
    let thread = thread::spawn(move || drop(sender));
    assert_eq!(receiver.recv(), None);
    thread.join().unwrap();
    println!("one value, or none, and nobody waits for ever");
}
