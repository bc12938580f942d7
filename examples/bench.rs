//! The cost of offthread, compared with std alone.
//!
//! ```sh
//! cargo run --release --example bench                # all workloads; takes half a minute or more
//! cargo run --release --example bench -- spsc        # the workloads with `spsc` in their names
//! cargo run --release --example bench -- --quick     # fewer and shorter rounds
//! cargo run --release --example bench -- --svg FILE  # also draws a picture of the ratios
//! ```
//!
//! | workload | one operation | offthread | std |
//! |---|---|---|---|
//! | job round trip | start a job, wait for its result | a pool of 4, `block_on` | one thread for each job |
//! | 100 000 jobs | the same, but all are started before the first is awaited | a pool of 4 | 4 threads, one queue of boxed closures, a channel for each answer |
//! | map of *n* jobs | the same, but no more than *n* are in flight | `ThreadPool::map` on a pool of 4, in order or not | as above, with all jobs in flight |
//! | oneshot, one thread | make a channel, send a value, receive it | `oneshot` | `sync_channel(1)` |
//! | oneshot ping-pong | send a value to another thread and back, over two new channels | `oneshot` | `sync_channel(1)` |
//! | `block_on`, ready | wait for a future that is ready | `block_on` | a poll by hand |
//! | wakes itself | one more poll of a future that wakes itself | `block_on` | a loop of polls |
//! | spawn, yield, join | a task that yields once, among 100 000 | `spawn` | a loop over a `Vec` of boxed futures |
//! | 100 000 sleeps | a task that sleeps up to 200 ms, among 100 000 | `sleep` | one thread, which sleeps until each deadline in a `BinaryHeap` |
//! | `sync_await` | from a thread, run a computation on the loop's thread, wait for its result | `sync_await` | a boxed closure through a channel, the answer through another |
//! | spsc, *n* slots | hand a `u64` from a thread to the main one | `spsc`, sent blocking and awaited | `sync_channel` |
//! | iterable, *n* slots | the next item of an iterator that runs in a thread | `IteratorWrapper` on a pool of 1 | `sync_channel` and a thread |
//! | iterable for one item | open an iterable with 4 slots, take an item, close it | `IteratorWrapper` on a pool of 2 | `sync_channel` and a thread |
//! | generator, *n* slots | the next item that a body in a thread puts | `threaded_generator` on a pool of 1 | `sync_channel` and a thread |
//!
//! A thread for each of 100 000 jobs is no alternative, so std's side of these workloads is a hand-written pool. Some
//! of std's sides are lower bounds rather than alternatives: a poll by hand cannot wait, a loop over futures does not
//! know which future was woken, and a heap of deadlines wakes nobody. For the sleeps, compare the CPU time; a line
//! below the table says how late the sleeps were.
//!
//! # How it measures
//! The two sides take turns, round by round, so that any other load of the machine affects both. A round repeats a
//! batch of operations until the round's time is up. A batch sets up its own threads, whose cost is small beside that
//! of the operations, and checks its result. The first round of each side is a warm-up and does not count.
//!
//! # How to read the table
//! * **ns/op** is the median of the rounds, and **ratio** is the ratio of the medians: below 1, offthread is faster.
//! * **CPU** is the processor time of all threads, over all rounds. Only this column shows the cost of a wait that
//!   spins. `-` means that there is no clock, or that the time was too short for the clock (see [`cpu_time`]).
//! * **allocs/op** is counted in a separate batch, which is not timed. The count includes the setup of the batch's
//!   threads.
//!
//! Trust the ratios rather than the nanoseconds, and never a ratio from a single run. On an idle machine, the ratio of
//! a workload on one thread varies by a tenth from run to run. With several threads it may vary several-fold: it
//! matters whether two threads share a core or have one each, and this depends on the system and on its load. So
//! compare several runs, and treat a ratio between 0.7 and 1.4 as no difference. The allocations hardly vary.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the crate is compared with std")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::{self, File};
use std::future::poll_fn;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

const USAGE: &str = "\
Usage: bench [--quick] [--svg FILE] [NAME]

Measures offthread against std and prints a table in Markdown.

  NAME        measure only the workloads with NAME in their names
  --quick     3 short rounds instead of 7
  --svg FILE  also write a picture of the ratios to FILE
  --help      print this text
";

/// Two ways to do the same work. Each does the given number of operations, numbered from 0, and returns the sum of the
/// numbers.
struct Workload {
    name: &'static str,
    /// How many operations make a batch. A batch should take at least a millisecond, so that its setup does not matter.
    batch: u32,
    ours: fn(u32) -> u64,
    std: fn(u32) -> u64,
}

#[rustfmt::skip] // a table
const WORKLOADS: [Workload; 23] = [
    Workload { name: "job round trip", batch: 2_000, ours: ours::round_trip, std: std_alone::round_trip },
    Workload { name: "100 000 jobs", batch: 100_000, ours: ours::many_jobs, std: std_alone::many_jobs },
    Workload { name: "map of 8 jobs", batch: 100_000, ours: ours::map::<8, true>, std: std_alone::many_jobs },
    Workload { name: "map of 8 jobs, unordered", batch: 100_000, ours: ours::map::<8, false>, std: std_alone::many_jobs },
    Workload { name: "map of 1024 jobs", batch: 100_000, ours: ours::map::<1024, true>, std: std_alone::many_jobs },
    Workload { name: "map of 1024 jobs, unordered", batch: 100_000, ours: ours::map::<1024, false>, std: std_alone::many_jobs },
    Workload { name: "oneshot, one thread", batch: 100_000, ours: ours::oneshot, std: std_alone::oneshot },
    Workload { name: "oneshot ping-pong", batch: 2_000, ours: ours::ping_pong, std: std_alone::ping_pong },
    Workload { name: "block_on, ready", batch: 1_000_000, ours: ours::ready, std: std_alone::ready },
    Workload { name: "wakes itself", batch: 1_000_000, ours: ours::wakes_itself, std: std_alone::wakes_itself },
    Workload { name: "spawn, yield, join", batch: 100_000, ours: ours::spawn_join, std: std_alone::spawn_join },
    Workload { name: "100 000 sleeps", batch: 100_000, ours: ours::sleeps, std: std_alone::sleeps },
    Workload { name: "sync_await", batch: 2_000, ours: ours::sync_await, std: std_alone::sync_await },
    Workload { name: "spsc, 2 slots", batch: 20_000, ours: ours::stream::<2>, std: std_alone::stream::<2> },
    Workload { name: "spsc, 64 slots", batch: 200_000, ours: ours::stream::<64>, std: std_alone::stream::<64> },
    Workload { name: "spsc, 1024 slots", batch: 500_000, ours: ours::stream::<1024>, std: std_alone::stream::<1024> },
    Workload { name: "iterable, 2 slots", batch: 20_000, ours: ours::iterable::<2>, std: std_alone::stream::<2> },
    Workload { name: "iterable, 64 slots", batch: 200_000, ours: ours::iterable::<64>, std: std_alone::stream::<64> },
    Workload { name: "iterable, 1024 slots", batch: 500_000, ours: ours::iterable::<1024>, std: std_alone::stream::<1024> },
    Workload { name: "iterable for one item", batch: 2_000, ours: ours::one_item, std: std_alone::one_item },
    Workload { name: "generator, 2 slots", batch: 20_000, ours: ours::generator::<2>, std: std_alone::stream::<2> },
    Workload { name: "generator, 64 slots", batch: 200_000, ours: ours::generator::<64>, std: std_alone::stream::<64> },
    Workload { name: "generator, 1024 slots", batch: 500_000, ours: ours::generator::<1024>, std: std_alone::stream::<1024> },
];

/// A future that is pending `times` times, wakes itself each time, and is then ready with the number.
async fn yields(times: u32, number: u64) -> u64 {
    let mut left = times;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(number);
        }
        left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// How long each of the sleeps is.
fn lengths(count: u32) -> impl Iterator<Item = (u64, Duration)> {
    // A linear congruential generator: the same for both sides.
    let mut random = 1_u64;
    (0..count.into()).map(move |number| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (number, Duration::from_micros((random >> 33) % 200_000))
    })
}

/// How late the sleeps of one side were: all delays of the last batch, and the longest of all batches.
#[derive(Default)]
struct Lateness {
    batch: Vec<Duration>,
    latest: Duration,
}

static OURS_LATE: Mutex<Lateness> = Mutex::new(Lateness { batch: Vec::new(), latest: Duration::ZERO });
static STD_LATE: Mutex<Lateness> = Mutex::new(Lateness { batch: Vec::new(), latest: Duration::ZERO });

impl Lateness {
    fn note(&mut self, batch: Vec<Duration>) {
        self.latest = batch.iter().copied().fold(self.latest, Duration::max);
        self.batch = batch;
        self.batch.sort();
    }

    fn show(&self) -> String {
        let median = self.batch[self.batch.len() / 2];
        format!("{median:.1?} in the median, {:.1?} at most", self.latest)
    }
}

/// offthread's side.
mod ours {
    use std::future::ready as ready_future;
    use std::hint::black_box;
    use std::thread;
    use std::time::Instant;

    use super::{OURS_LATE, lengths, yields};
    use offthread::{IteratorWrapper, ThreadPool, block_on, oneshot, sleep, spawn, spsc, threaded, threaded_generator};

    pub fn wakes_itself(ops: u32) -> u64 {
        block_on(yields(ops, (0..ops.into()).sum()))
    }

    pub fn spawn_join(ops: u32) -> u64 {
        block_on(async {
            let tasks: Vec<_> = (0..ops.into()).map(|n| spawn(yields(1, n))).collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await;
            }
            sum
        })
    }

    pub fn sleeps(ops: u32) -> u64 {
        block_on(async {
            let start = |(n, length)| {
                spawn(async move {
                    let asked = Instant::now();
                    sleep(length).await;
                    (n, asked.elapsed().checked_sub(length).expect("no sleep is too short"))
                })
            };
            let tasks: Vec<_> = lengths(ops).map(start).collect();
            let (mut sum, mut late) = (0, Vec::with_capacity(tasks.len()));
            for task in tasks {
                let (n, by) = task.await;
                sum += n;
                late.push(by);
            }
            OURS_LATE.lock().unwrap().note(late);
            sum
        })
    }

    pub fn sync_await(ops: u32) -> u64 {
        let pool = ThreadPool::new(1);
        let ask = move || (0..ops.into()).map(|n: u64| offthread::sync_await(async move { n })).sum();
        block_on(async { threaded(ask).on(&pool).await })
    }

    pub fn round_trip(ops: u32) -> u64 {
        let pool = ThreadPool::new(4);
        (0..ops.into()).map(|n: u64| block_on(pool.spawn(move || n))).sum()
    }

    pub fn many_jobs(ops: u32) -> u64 {
        let pool = ThreadPool::new(4);
        let jobs: Vec<_> = (0..ops.into()).map(|n: u64| pool.spawn(move || n)).collect();
        block_on(async {
            let mut sum = 0;
            for job in jobs {
                sum += job.await;
            }
            sum
        })
    }

    pub fn map<const MAX_SIZE: usize, const ORDERED: bool>(ops: u32) -> u64 {
        let pool = ThreadPool::new(4);
        let mut numbers = pool.map(0..ops.into(), |n: u64| n).max_size(MAX_SIZE);
        if !ORDERED {
            numbers = numbers.unordered();
        }
        block_on(async {
            let mut sum = 0;
            while let Some(n) = numbers.next().await {
                sum += n;
            }
            sum
        })
    }

    pub fn oneshot(ops: u32) -> u64 {
        let pass = |n: u64| {
            let (sender, receiver) = oneshot::channel();
            sender.send(n).unwrap();
            receiver.recv_blocking().unwrap()
        };
        (0..ops.into()).map(pass).sum()
    }

    /// Each message carries the sender for its answer.
    struct Ping(u64, oneshot::Sender<Pong>);
    struct Pong(u64, oneshot::Sender<Ping>);

    pub fn ping_pong(ops: u32) -> u64 {
        let (mut to_echo, mut from_main) = oneshot::channel();
        let echo = thread::spawn(move || {
            while let Ok(Ping(n, to_main)) = from_main.recv_blocking() {
                let (to_echo, next) = oneshot::channel();
                assert!(to_main.send(Pong(n, to_echo)).is_ok());
                from_main = next;
            }
        });
        let mut sum = 0;
        for n in 0..ops.into() {
            let (to_main, from_echo) = oneshot::channel();
            assert!(to_echo.send(Ping(n, to_main)).is_ok());
            let Pong(n, next) = block_on(from_echo).unwrap();
            sum += n;
            to_echo = next;
        }
        drop(to_echo);
        echo.join().unwrap();
        sum
    }

    pub fn ready(ops: u32) -> u64 {
        (0..ops.into()).map(|n: u64| block_on(black_box(ready_future(n)))).sum()
    }

    pub fn stream<const SLOTS: usize>(ops: u32) -> u64 {
        let (mut sender, mut receiver) = spsc::channel(SLOTS);
        let producer = thread::spawn(move || (0..ops.into()).for_each(|n: u64| sender.send_blocking(n).unwrap()));
        let sum = block_on(async {
            let mut sum = 0;
            while let Some(n) = receiver.recv().await {
                sum += n;
            }
            sum
        });
        producer.join().unwrap();
        sum
    }

    pub fn iterable<const SLOTS: usize>(ops: u32) -> u64 {
        read::<SLOTS>(IteratorWrapper::new(move || 0..u64::from(ops)))
    }

    pub fn one_item(ops: u32) -> u64 {
        let pool = ThreadPool::new(2);
        block_on(async {
            let mut sum = 0;
            for n in 0..ops.into() {
                let mut items = IteratorWrapper::new(move || n..).on(&pool).max_size(4);
                sum += items.next().await.unwrap();
                items.close().await;
            }
            sum
        })
    }

    pub fn generator<const SLOTS: usize>(ops: u32) -> u64 {
        read::<SLOTS>(threaded_generator(move |out| (0..ops.into()).try_for_each(|n| out.put(n))))
    }

    fn read<const SLOTS: usize>(items: IteratorWrapper<u64>) -> u64 {
        let pool = ThreadPool::new(1);
        let mut items = items.on(&pool).max_size(SLOTS);
        block_on(async {
            let mut sum = 0;
            while let Some(n) = items.next().await {
                sum += n;
            }
            sum
        })
    }
}

/// std's side: the code that one would write without offthread, or a lower bound (see the head). A single value goes
/// through `sync_channel(1)`, the cheapest of std's channels for it, except in `many_jobs`, where `channel` is cheaper.
mod std_alone {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    use std::future::{Future, ready as ready_future};
    use std::hint::black_box;
    use std::pin::{Pin, pin};
    use std::sync::{Arc, Mutex, mpsc};
    use std::task::{Context, Poll, Waker};
    use std::thread;
    use std::time::Instant;

    use super::{STD_LATE, lengths, yields};

    pub fn wakes_itself(ops: u32) -> u64 {
        let mut cx = Context::from_waker(Waker::noop());
        let mut future = pin!(yields(ops, (0..ops.into()).sum()));
        loop {
            if let Poll::Ready(sum) = future.as_mut().poll(&mut cx) {
                return sum;
            }
        }
    }

    pub fn spawn_join(ops: u32) -> u64 {
        let mut cx = Context::from_waker(Waker::noop());
        let mut tasks: Vec<Pin<Box<dyn Future<Output = u64>>>> =
            (0..ops.into()).map(|n| Box::pin(yields(1, n)) as _).collect();
        let mut sum = 0;
        while !tasks.is_empty() {
            tasks.retain_mut(|task| match task.as_mut().poll(&mut cx) {
                Poll::Ready(n) => {
                    sum += n;
                    false
                }
                Poll::Pending => true,
            });
        }
        sum
    }

    pub fn sleeps(ops: u32) -> u64 {
        let mut heap: BinaryHeap<_> = lengths(ops).map(|(n, length)| Reverse((Instant::now() + length, n))).collect();
        let (mut sum, mut late) = (0, Vec::with_capacity(heap.len()));
        while let Some(Reverse((deadline, n))) = heap.pop() {
            if let Some(left) = deadline.checked_duration_since(Instant::now()) {
                thread::sleep(left);
            }
            late.push(deadline.elapsed());
            sum += n;
        }
        STD_LATE.lock().unwrap().note(late);
        sum
    }

    pub fn sync_await(ops: u32) -> u64 {
        let (queue, queued) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let ask = move |n: u64| {
            let (answer, answers) = mpsc::sync_channel(1);
            queue.send(Box::new(move || answer.send(n).unwrap())).unwrap();
            answers.recv().unwrap()
        };
        let asking = thread::spawn(move || (0..ops.into()).map(ask).sum());
        for closure in queued {
            closure();
        }
        asking.join().unwrap()
    }

    pub fn round_trip(ops: u32) -> u64 {
        (0..ops.into()).map(|n: u64| thread::spawn(move || n).join().unwrap()).sum()
    }

    pub fn many_jobs(ops: u32) -> u64 {
        let (queue, queued) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let queued = Arc::new(Mutex::new(queued));
        let worker = || {
            let queued = queued.clone();
            thread::spawn(move || {
                loop {
                    // A separate statement, so that the lock is released before the job runs.
                    let job = queued.lock().unwrap().recv();
                    let Ok(job) = job else { return };
                    job();
                }
            })
        };
        let workers = [(); 4].map(|()| worker());
        let submit = |n: u64| {
            let (answer, answers) = mpsc::channel();
            queue.send(Box::new(move || answer.send(n).unwrap())).unwrap();
            answers
        };
        let answers: Vec<_> = (0..ops.into()).map(submit).collect();
        let sum = answers.into_iter().map(|answer| answer.recv().unwrap()).sum();
        drop(queue);
        for worker in workers {
            worker.join().unwrap();
        }
        sum
    }

    pub fn oneshot(ops: u32) -> u64 {
        let pass = |n: u64| {
            let (sender, receiver) = mpsc::sync_channel(1);
            sender.send(n).unwrap();
            receiver.recv().unwrap()
        };
        (0..ops.into()).map(pass).sum()
    }

    /// Each message carries the sender for its answer.
    struct Ping(u64, mpsc::SyncSender<Pong>);
    struct Pong(u64, mpsc::SyncSender<Ping>);

    pub fn ping_pong(ops: u32) -> u64 {
        let (mut to_echo, mut from_main) = mpsc::sync_channel(1);
        let echo = thread::spawn(move || {
            while let Ok(Ping(n, to_main)) = from_main.recv() {
                let (to_echo, next) = mpsc::sync_channel(1);
                assert!(to_main.send(Pong(n, to_echo)).is_ok());
                from_main = next;
            }
        });
        let mut sum = 0;
        for n in 0..ops.into() {
            let (to_main, from_echo) = mpsc::sync_channel(1);
            assert!(to_echo.send(Ping(n, to_main)).is_ok());
            let Pong(n, next) = from_echo.recv().unwrap();
            sum += n;
            to_echo = next;
        }
        drop(to_echo);
        echo.join().unwrap();
        sum
    }

    pub fn ready(ops: u32) -> u64 {
        let mut cx = Context::from_waker(Waker::noop());
        let poll = |n: u64| match pin!(black_box(ready_future(n))).poll(&mut cx) {
            Poll::Ready(n) => n,
            Poll::Pending => unreachable!("it is ready"),
        };
        (0..ops.into()).map(poll).sum()
    }

    pub fn stream<const SLOTS: usize>(ops: u32) -> u64 {
        let (sender, receiver) = mpsc::sync_channel(SLOTS);
        let producer = thread::spawn(move || (0..ops.into()).for_each(|n: u64| sender.send(n).unwrap()));
        let sum = receiver.iter().sum();
        producer.join().unwrap();
        sum
    }

    pub fn one_item(ops: u32) -> u64 {
        let take = |n: u64| {
            let (sender, receiver) = mpsc::sync_channel(4);
            let producer = thread::spawn(move || (n..).try_for_each(|n| sender.send(n)));
            let item = receiver.recv().unwrap();
            drop(receiver);
            assert!(producer.join().unwrap().is_err());
            item
        };
        (0..ops.into()).map(take).sum()
    }
}

/// How many rounds each side gets, and how long a round lasts at least. The number of rounds is odd, so that there is a
/// median round.
#[derive(Clone, Copy)]
struct Effort {
    rounds: u32,
    round: Duration,
}

const FULL: Effort = Effort { rounds: 7, round: Duration::from_millis(80) };
const QUICK: Effort = Effort { rounds: 3, round: Duration::from_millis(10) };

const COLUMNS: [&str; 7] =
    ["ours ns/op", "std ns/op", "ratio", "ours CPU ns/op", "std CPU ns/op", "ours allocs/op", "std allocs/op"];

fn main() -> ExitCode {
    let (mut effort, mut name, mut svg) = (FULL, None, None);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--quick") => effort = QUICK,
            Some("--svg") => match arguments.next() {
                Some(file) => svg = Some(PathBuf::from(file)),
                None => return misuse("--svg needs the name of a file"),
            },
            Some("--help") => {
                print!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            Some(text) if !text.starts_with('-') && name.is_none() => name = Some(text.to_owned()),
            _ => return misuse(&format!("unexpected argument {}", argument.to_string_lossy())),
        }
    }
    let name = name.unwrap_or_default();
    let chosen: Vec<_> = WORKLOADS.iter().filter(|workload| workload.name.contains(&name)).collect();
    if chosen.is_empty() {
        let names = WORKLOADS.map(|workload| workload.name).join("; ");
        return misuse(&format!("no workload with {name} in its name; there are: {names}"));
    }
    if cfg!(debug_assertions) {
        eprintln!("bench: built without --release, the numbers mean nothing");
    }
    print_cells("workload", COLUMNS);
    print_cells("---", COLUMNS.map(|_| "---:"));
    let ratios: Vec<_> = chosen.into_iter().map(|workload| (workload.name, measure(workload, effort))).collect();
    let cpus = std::thread::available_parallelism().map_or_else(|_| "unknown".into(), |cpus| cpus.to_string());
    if !OURS_LATE.lock().unwrap().batch.is_empty() {
        let [ours, std] = [&OURS_LATE, &STD_LATE].map(|late| late.lock().unwrap().show());
        println!("\nThe sleeps were late: ours by {ours}; std's by {std}.");
    }
    println!("\nMedians of {} rounds of {:?} or more; CPUs: {cpus}.", effort.rounds, effort.round);
    if let Some(file) = svg {
        if let Err(error) = File::create(&file).and_then(|mut svg| draw(&ratios, &mut svg)) {
            eprintln!("bench: {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn misuse(problem: &str) -> ExitCode {
    eprint!("bench: {problem}\n{USAGE}");
    ExitCode::from(2)
}

/// Measures both sides in turn, and prints a row of the table. Returns the ratio.
fn measure(workload: &'static Workload, effort: Effort) -> f64 {
    let [mut ours, mut std] = [workload.ours, workload.std].map(|run| Side { workload, run, rounds: Vec::new() });
    for side in [&ours, &std] {
        side.round(effort.round); // the warm-up
    }
    for _ in 0..effort.rounds {
        for side in [&mut ours, &mut std] {
            let round = side.round(effort.round);
            side.rounds.push(round);
        }
    }
    print_row(workload.name, &ours, &std)
}

/// One of the two sides of a workload, and its measured rounds.
struct Side {
    workload: &'static Workload,
    run: fn(u32) -> u64,
    rounds: Vec<Round>,
}

struct Round {
    ops: f64,
    wall: Duration,
    cpu: Option<Duration>,
}

impl Side {
    fn run_batch(&self) {
        let Workload { name, batch, .. } = *self.workload;
        let sum: u64 = (0..batch.into()).sum();
        assert_eq!((self.run)(batch), sum, "{name}: an operation was lost, or done twice");
    }

    fn round(&self, time: Duration) -> Round {
        let mut ops = 0.0;
        let (cpu_before, start) = (cpu_time(), Instant::now());
        while start.elapsed() < time {
            self.run_batch();
            ops += f64::from(self.workload.batch);
        }
        let wall = start.elapsed();
        Round { ops, wall, cpu: cpu_time().zip(cpu_before).and_then(|(after, before)| after.checked_sub(before)) }
    }

    fn allocations_per_op(&self) -> f64 {
        ALLOCATIONS.store(0, Relaxed);
        COUNTING.store(true, Relaxed);
        self.run_batch();
        COUNTING.store(false, Relaxed);
        f64::from(ALLOCATIONS.load(Relaxed)) / f64::from(self.workload.batch)
    }

    /// The median of the rounds, in nanoseconds.
    fn wall_per_op(&self) -> f64 {
        let mut rounds: Vec<_> = self.rounds.iter().map(|round| round.wall.as_secs_f64() * 1e9 / round.ops).collect();
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 2]
    }

    /// The CPU time of all rounds together, in nanoseconds, because one round may be too short for the clock. `None` if
    /// all rounds together are too short.
    fn cpu_per_op(&self) -> Option<f64> {
        let cpu: Duration = self.rounds.iter().map(|round| round.cpu).sum::<Option<_>>()?;
        let ops: f64 = self.rounds.iter().map(|round| round.ops).sum();
        let error: Duration = self.rounds.iter().map(|_| CPU_TIME_ERROR).sum();
        (cpu > error).then(|| cpu.as_secs_f64() * 1e9 / ops)
    }
}

/// The maximum error of [`cpu_time`] in one round: less than a tick each for user and system time.
const CPU_TIME_ERROR: Duration = Duration::from_millis(20);

/// The CPU time of this process so far. `None` except on Linux: std has no such clock, so this reads `/proc`.
///
/// `/proc/self/stat` includes threads that have ended, which matters because the batches start threads. (The precise
/// counters in `/proc/self/task/*/schedstat` vanish with their threads.) User plus system time is the time that the
/// scheduler has measured, but each is rounded down to ticks of 10 ms. Over 7 rounds of 80 ms on one core, the
/// error is usually a few per cent, and at most 25.
fn cpu_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, which may contain anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    Some(Duration::from_millis((user + system) * 10))
}

fn print_row(name: &str, ours: &Side, std: &Side) -> f64 {
    let sides = [ours, std];
    let nanos = |nanos: f64| if nanos < 100.0 { format!("{nanos:.1}") } else { format!("{nanos:.0}") };
    let wall = sides.map(Side::wall_per_op);
    let ratio = wall[0] / wall[1];
    let shown_ratio = format!("{ratio:.2}");
    let [ours_wall, std_wall] = wall.map(nanos);
    let [ours_cpu, std_cpu] = sides.map(|side| side.cpu_per_op().map_or("-".into(), nanos));
    let [ours_allocs, std_allocs] = sides.map(|side| format!("{:.2}", side.allocations_per_op()));
    print_cells(name, [&ours_wall, &std_wall, &shown_ratio, &ours_cpu, &std_cpu, &ours_allocs, &std_allocs]);
    if io::stdout().is_terminal() {
        println!("  {}", bar(ratio));
    }
    ratio
}

/// The length of a ratio's bar, in powers of ten. 0 means that both sides take equally long.
fn powers_of_ten(ratio: f64) -> f64 {
    ratio.log10().clamp(-3.0, 1.0)
}

/// A bar for a terminal: ten blocks for each power of ten.
fn bar(ratio: f64) -> String {
    let powers = powers_of_ten(ratio);
    let blocks = (1..=30).filter(|n| f64::from(*n) <= 10.0 * powers.abs()).count();
    if powers < 0.0 { format!("{} faster", "█".repeat(blocks)) } else { format!("{} slower", "▒".repeat(blocks)) }
}

fn print_cells(first: &str, others: [&str; 7]) {
    println!("| {first:27} | {} |", others.map(|cell| format!("{cell:>14}")).join(" | "));
}

/// Draws a picture of the ratios. A bar to the left means that offthread is faster.
fn draw(ratios: &[(&str, f64)], svg: &mut impl Write) -> io::Result<()> {
    const ROW: usize = 20;
    let x = |ratio: f64| 610.0 + 120.0 * powers_of_ten(ratio);
    let (height, bottom) = (ROW * (ratios.len() + 2), ROW * (ratios.len() + 1));
    let style = "font-family=\"sans-serif\" font-size=\"12\" fill=\"#777\"";
    writeln!(svg, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" {style}>")?;
    for (ratio, label) in [(0.001, "1/1000"), (0.01, "1/100"), (0.1, "1/10"), (1.0, "as std"), (10.0, "10 times")] {
        let x = x(ratio);
        writeln!(svg, "<path d=\"M{x} {ROW}V{bottom}\" stroke=\"#bbb\"/>")?;
        writeln!(svg, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", ROW - 6)?;
    }
    for (row, (name, ratio)) in (1..).zip(ratios) {
        let (left, right, top) = (x(ratio.min(1.0)), x(ratio.max(1.0)), ROW * row);
        let color = if *ratio < 1.0 { "#2a9d63" } else { "#d1603d" };
        writeln!(svg, "<text x=\"190\" y=\"{}\" text-anchor=\"end\">{name}</text>", top + 14)?;
        writeln!(svg, "<text x=\"200\" y=\"{}\">{ratio:.2}</text>", top + 14)?;
        let (y, width, height) = (top + 4, right - left, ROW - 7);
        writeln!(svg, "<rect x=\"{left:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{color}\"/>")?;
    }
    writeln!(svg, "<text x=\"430\" y=\"{}\" text-anchor=\"middle\">time, compared with std's</text>", height - 5)?;
    writeln!(svg, "</svg>")
}

/// The system's allocator, which counts allocations while a flag is set. In timed rounds, its only cost is reading the
/// flag.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU32 = AtomicU32::new(0);

impl Counting {
    fn count() {
        if COUNTING.load(Relaxed) {
            ALLOCATIONS.fetch_add(1, Relaxed);
        }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: each call is forwarded to `System` unchanged; counting neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which `System` shares.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which `System` shares.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: `block` comes from `System`, with the same layout; the caller answers for `new_size`.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` comes from `System`, with the same layout.
        unsafe { System.dealloc(block, layout) }
    }
}
