//! A reader or sender that never has to wait still gives way to its executor. So time-outs around it fire and other
//! tasks run, under the crate's own loop and under other executors.

#![forbid(unsafe_code)]

use crate::helpers::iterables::*;
use offthread::{IteratorWrapper, block_on, spawn, spsc, threaded_iterable, timeout};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

const ITEMS: usize = 1000;
/// After this many items in a row, a reader or a sender that awaits gives way.
const IN_A_ROW: usize = 128;

/// Polls a future until it is ready, and returns how often it was pending. Asserts that each time the future had
/// already woken its waker.
fn times_given_way(future: impl Future<Output = ()>) -> usize {
    let mut future = pin!(future);
    for times in 0.. {
        let witness = Witness::default();
        if future.as_mut().poll(&mut Context::from_waker(&witness.waker())).is_ready() {
            return times;
        }
        assert_eq!(witness.wakes(), 1, "the future is pending, but has not woken its waker");
    }
    unreachable!()
}

fn full_channel() -> (spsc::Sender<usize>, spsc::Receiver<usize>) {
    let (mut sender, receiver) = spsc::channel(ITEMS);
    (0..ITEMS).for_each(|item| sender.try_send(item).unwrap());
    (sender, receiver)
}

/// A stream whose first item was taken, and whose other items are all in its buffer.
fn full_stream(kind: Kind, pool: &offthread::ThreadPool) -> IteratorWrapper<usize> {
    let (done, is_done) = mpsc::channel();
    let mut stream = kind
        .stream(pool, move || {
            let guard = on_drop(move || done.send(()).unwrap());
            (0..ITEMS).inspect(move |_| _ = &guard)
        })
        .max_size(2 * ITEMS);
    let mut first = pin!(poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)));
    while first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        thread::yield_now();
    }
    is_done.recv().unwrap();
    stream
}

/// Forbids: an async method that is always ready never returns to its executor.
#[test]
fn each_awaiting_form_gives_way() {
    let _watchdog = watchdog();
    let expected = ITEMS / IN_A_ROW;

    let (_sender, mut receiver) = full_channel();
    let received = async {
        for item in 0..ITEMS {
            assert_eq!(receiver.recv().await, Some(item));
        }
    };
    assert_eq!(times_given_way(received), expected);

    let (_sender, mut receiver) = full_channel();
    let polled = async {
        for item in 0..ITEMS {
            assert_eq!(poll_fn(|cx| receiver.poll_recv(cx)).await, Some(item));
        }
    };
    assert_eq!(times_given_way(polled), expected);

    let (_sender, mut receiver) = full_channel();
    let many = async {
        let mut items = Vec::new();
        while items.len() < ITEMS {
            assert_eq!(receiver.recv_many(&mut items, 10).await, 10);
        }
        assert!(items.into_iter().eq(0..ITEMS));
    };
    assert_eq!(times_given_way(many), ITEMS / IN_A_ROW.next_multiple_of(10));

    let (mut sender, _receiver) = spsc::channel(ITEMS);
    let sent = async {
        for item in 0..ITEMS {
            sender.send(item).await.unwrap();
        }
    };
    assert_eq!(times_given_way(sent), expected);

    let (_sender, mut receiver) = full_channel();
    let received = async {
        for item in 0..ITEMS {
            assert_eq!(receiver.recv_timeout(Duration::MAX).await, Ok(item));
        }
    };
    assert_eq!(times_given_way(received), expected);

    let (mut sender, _receiver) = spsc::channel(ITEMS);
    let sent = async {
        for item in 0..ITEMS {
            sender.send_timeout(item, Duration::MAX).await.unwrap();
        }
    };
    assert_eq!(times_given_way(sent), expected);

    let pool = offthread::ThreadPool::new(1);
    for kind in BOTH {
        // `full_stream` has taken one item, perhaps after a wait.
        let mut stream = full_stream(kind, &pool);
        let next = async {
            for _ in 1..ITEMS {
                stream.next().await.unwrap();
            }
        };
        assert!((expected - 1..=expected).contains(&times_given_way(next)));

        let mut stream = full_stream(kind, &pool);
        let polled = async {
            for _ in 1..ITEMS {
                poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await.unwrap();
            }
        };
        assert!((expected - 1..=expected).contains(&times_given_way(polled)));

        let mut stream = full_stream(kind, &pool);
        let many = async {
            let mut items = Vec::new();
            // The end is not awaited, because it may come later than the last item.
            while items.len() < ITEMS - 1 {
                assert!(stream.next_many(&mut items, 9).await > 0);
            }
        };
        assert!(times_given_way(many) >= expected - 1);
    }
}

/// Forbids: the count of items in a row survives a wait, so that a reader that waits now and then gives way needlessly.
#[test]
fn a_reader_that_waits_in_between_does_not_give_way() {
    let (mut sender, mut receiver) = spsc::channel(IN_A_ROW);
    for round in 0..5 {
        (0..IN_A_ROW).for_each(|item| sender.try_send(item).unwrap());
        let received = async {
            for _ in 0..IN_A_ROW {
                receiver.recv().await.unwrap();
            }
        };
        assert_eq!(times_given_way(received), 0, "round {round}");
        assert!(pin!(receiver.recv()).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
}

// --- the crate's own loop -------------------------------------------------------------------------------------------

/// Forbids: a time-out around a reader that always has an item fires late, or another task does not run meanwhile.
#[test]
fn a_timeout_around_a_reader_fires_in_time() {
    let _watchdog = watchdog();
    let (turns, read) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (beside, count) = (turns.clone(), read.clone());
    let start = Instant::now();
    let result = block_on(timeout(Duration::from_millis(100), async move {
        spawn(async move {
            loop {
                beside.fetch_add(1, SeqCst);
                offthread::yield_now().await;
            }
        })
        .detach();
        let mut items = threaded_iterable(|| 0_u64..);
        while items.next().await.is_some() {
            count.fetch_add(1, SeqCst);
            // The reader is slower than the iterator.
            let busy = Instant::now();
            while busy.elapsed() < Duration::from_micros(20) {}
            if start.elapsed() > Duration::from_secs(10) {
                return;
            }
        }
    }));
    assert!(result.is_err(), "the time-out did not fire in 10 s");
    let (read, turns) = (read.load(SeqCst), turns.load(SeqCst));
    // When the reader gave way for the last time, the time-out may have fired before the other task's turn.
    assert!(turns + 1 >= read / IN_A_ROW, "the other task had {turns} turns during {read} items");
}

// --- other executors ------------------------------------------------------------------------------------------------

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Like the pool of the crate `futures`: polls the woken tasks, in order, until all tasks have ended.
fn run_queue(tasks: Vec<Task>) {
    struct Woken(usize, mpsc::Sender<usize>);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.1.send(self.0).unwrap();
        }
    }
    let (wake, woken) = mpsc::channel();
    let mut tasks: Vec<_> = tasks.into_iter().map(Some).collect();
    (0..tasks.len()).for_each(|number| wake.send(number).unwrap());
    while tasks.iter().any(Option::is_some) {
        let number = woken.recv().unwrap();
        let waker = Arc::new(Woken(number, wake.clone())).into();
        if let Some(task) = &mut tasks[number] {
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                tasks[number] = None;
            }
        }
    }
}

/// Like tokio: the task that was woken last goes into a slot, the others into a queue. The task in the slot is polled
/// next, but after three polls in a row the queue has a turn.
fn last_in_first_out(tasks: Vec<Task>) {
    #[derive(Default)]
    struct Queue {
        next: Option<usize>,
        others: VecDeque<usize>,
        in_a_row: usize,
    }
    struct Woken(usize, Arc<Mutex<Queue>>);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            let mut queue = self.1.lock().unwrap();
            if let Some(former) = queue.next.replace(self.0) {
                queue.others.push_back(former);
            }
        }
    }
    let queue = Arc::new(Mutex::new(Queue::default()));
    let mut tasks: Vec<_> = tasks.into_iter().map(Some).collect();
    queue.lock().unwrap().others.extend(0..tasks.len());
    while tasks.iter().any(Option::is_some) {
        let number = {
            let mut queue = queue.lock().unwrap();
            queue.in_a_row += 1;
            if queue.in_a_row > 3 {
                queue.in_a_row = 0;
                queue.others.pop_front().or_else(|| queue.next.take())
            } else {
                queue.next.take().or_else(|| queue.others.pop_front())
            }
        };
        let Some(number) = number else {
            thread::yield_now();
            continue;
        };
        let waker = Arc::new(Woken(number, queue.clone())).into();
        if let Some(task) = &mut tasks[number] {
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                tasks[number] = None;
            }
        }
    }
}

/// Forbids: under another executor, an endless reader or sender keeps another task from running.
#[test]
fn other_executors_run_tasks_beside_an_endless_reader_or_sender() {
    let _watchdog = watchdog();
    for executor in [run_queue, last_in_first_out] {
        for direction in ["receives", "sends", "reads a stream"] {
            let done = Arc::new(AtomicBool::new(false));
            let (is_done, late) = (done.clone(), Instant::now() + Duration::from_secs(20));
            let go_on = move || {
                assert!(Instant::now() < late, "the other task did not run while a task endlessly {direction}");
                !is_done.load(SeqCst)
            };
            let (mut sender, mut receiver) = spsc::channel(4096);
            let endless: Task = match direction {
                "receives" => {
                    thread::spawn(move || while sender.send_blocking(()).is_ok() {});
                    Box::pin(async move {
                        while go_on() {
                            receiver.recv().await.unwrap();
                        }
                    })
                }
                "sends" => {
                    thread::spawn(move || while receiver.recv_blocking().is_some() {});
                    Box::pin(async move {
                        while go_on() {
                            sender.send(()).await.unwrap();
                        }
                    })
                }
                _ => Box::pin(async move {
                    let mut items = threaded_iterable(|| 0_u64..);
                    while go_on() {
                        items.next().await.unwrap();
                    }
                    items.close().await;
                }),
            };
            let beside: Task = Box::pin(async move {
                for _ in 0..10 {
                    offthread::yield_now().await;
                }
                done.store(true, SeqCst);
            });
            executor(vec![endless, beside]);
        }
    }
}

/// Forbids: under another executor, a time-out around an endless reader does not fire.
#[test]
fn other_executors_fire_a_timeout_around_an_endless_reader() {
    let _watchdog = watchdog();
    for executor in [run_queue, last_in_first_out] {
        executor(vec![Box::pin(async {
            let (mut sender, mut receiver) = spsc::channel(4096);
            thread::spawn(move || while sender.send_blocking(()).is_ok() {});
            let late = Instant::now() + Duration::from_secs(20);
            let reads = async {
                while Instant::now() < late {
                    receiver.recv().await.unwrap();
                }
            };
            assert!(timeout(Duration::from_millis(20), reads).await.is_err());
        })]);
    }
}

/// Forbids: repeated sleeps of zero length, like Python's `asyncio.sleep(0)`, keep other tasks from running.
#[test]
fn a_sleep_of_zero_lets_other_tasks_run() {
    let _watchdog = watchdog();
    block_on(async {
        let ran = std::rc::Rc::new(std::cell::Cell::new(0));
        let beside = ran.clone();
        spawn(async move {
            for _ in 0..10 {
                beside.set(beside.get() + 1);
                offthread::yield_now().await;
            }
        })
        .detach();
        let mut rounds = 0;
        while ran.get() < 10 {
            rounds += 1;
            assert!(rounds < 100, "the other task does not run");
            offthread::sleep(Duration::ZERO).await;
        }
    });
    assert_eq!(times_given_way(offthread::sleep(Duration::ZERO)), 1);
}

/// Forbids: a `recv_timeout` whose time is over gives way, and then reports the time-out although there is an item.
#[test]
fn a_timeout_that_is_over_hides_no_item() {
    let _watchdog = watchdog();
    let (mut sender, mut receiver) = full_channel();
    block_on(async {
        for item in 0..ITEMS {
            assert_eq!(receiver.recv_timeout(Duration::ZERO).await, Ok(item));
        }
        assert_eq!(receiver.recv_timeout(Duration::ZERO).await, Err(spsc::RecvTimeoutError::Timeout));
        sender.close();
        assert_eq!(receiver.recv_timeout(Duration::ZERO).await, Err(spsc::RecvTimeoutError::Closed));
    });
}
