//! How it is made, 6: a bounded ring between one producer and one consumer. Two counters say who owns which slot.
//!
//! `tail` counts the items that were put in, and only the producer changes it; `head` counts those that were taken out,
//! and only the consumer changes it. So `tail - head` slots belong to the consumer, the others to the producer.
//!
//! The real ring is `src/primitives/spsc.rs`. Beyond this version it
//! * has no lock around a slot. Here each slot has a lock, which no thread ever waits for, since the counters say which
//!   side owns the slot (*Who may touch what*, and *Synchronisation edges*);
//! * keeps a copy of the other side's counter, and reads the counter only when the copy says full or empty;
//! * sleeps or awaits where this one yields, and can be closed: each counter has two flags (`WAITING`, `CLOSED`).

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

struct Ring<T> {
    tail: AtomicUsize,
    head: AtomicUsize,
    slots: Box<[Mutex<Option<T>>]>,
}
struct Sender<T>(Arc<Ring<T>>);
struct Receiver<T>(Arc<Ring<T>>);
fn channel<T>(max_size: usize) -> (Sender<T>, Receiver<T>) {
    let slots = (0..max_size).map(|_| Mutex::new(None)).collect();
    let ring = Arc::new(Ring { tail: AtomicUsize::new(0), head: AtomicUsize::new(0), slots });
    (Sender(ring.clone()), Receiver(ring))
}

impl<T> Ring<T> {
    fn slot(&self, count: usize) -> &Mutex<Option<T>> {
        &self.slots[count % self.slots.len()]
    }
}
impl<T> Sender<T> {
    /// `Err`: the ring is full, and the item comes back.
    fn try_send(&mut self, item: T) -> Result<(), T> {
        let ring = &*self.0;
        let tail = ring.tail.load(Ordering::Relaxed);
        // Acquire: pairs with the consumer's Release, so a slot that `head` has passed is seen empty.
        if tail - ring.head.load(Ordering::Acquire) == ring.slots.len() {
            return Err(item);
        }
        *ring.slot(tail).lock().unwrap() = Some(item);
        ring.tail.store(tail + 1, Ordering::Release);
        Ok(())
    }

    fn send(&mut self, mut item: T) {
        while let Err(full) = self.try_send(item) {
            item = full;
            thread::yield_now();
        }
    }
}

impl<T> Receiver<T> {
    fn try_recv(&mut self) -> Option<T> {
        let ring = &*self.0;
        let head = ring.head.load(Ordering::Relaxed);
        // Acquire: pairs with the producer's Release, so a slot that `tail` has passed is seen full.
        if ring.tail.load(Ordering::Acquire) == head {
            return None;
        }
        let item = ring.slot(head).lock().unwrap().take();
        ring.head.store(head + 1, Ordering::Release);
        item
    }

    fn recv(&mut self) -> T {
        loop {
            match self.try_recv() {
                Some(item) => return item,
                None => thread::yield_now(),
            }
        }
    }
}

fn main() {
    let (mut sender, mut receiver) = channel(3);
    let producer = thread::spawn(move || (0..10_000).for_each(|n| sender.send(n)));
    for expected in 0..10_000 {
        assert_eq!(receiver.recv(), expected);
    }
    producer.join().unwrap();
    assert_eq!(receiver.try_recv(), None);
    println!("10 000 items came through 3 slots, in order");
}
