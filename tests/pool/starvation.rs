//! A pool cannot starve itself: jobs that wait for other jobs, and for each other, in pools with too few threads.
//!
//! Each test says what it forbids.

#![forbid(unsafe_code)]

use crate::helpers::pool::*;
use offthread::{Job, ThreadPool, block_on, oneshot, spsc, threaded};
use std::hint::black_box;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

/// A pool of `size` threads whose idle threads stay, and the count of its threads.
fn pool_of(size: usize) -> (ThreadPool, Threads) {
    let threads = Threads::default();
    let builder = ThreadPool::builder().threads(size).keep_alive(Duration::MAX);
    (threads.watch(builder).build(), threads)
}

/// Runs jobs that yield five times. Returns the maximum number of them that ran at once.
fn most_at_once(pool: &ThreadPool, jobs: usize) -> usize {
    let crowd = Crowd::default();
    let jobs = pool.spawn_many((0..jobs).map(|_| {
        let crowd = crowd.clone();
        move || {
            crowd.enter();
            (0..5).for_each(|_| thread::yield_now());
            crowd.leave();
        }
    }));
    jobs.into_iter().for_each(Job::wait);
    crowd.most()
}

// --- (a) `wait` in a worker -----------------------------------------------------------------------------------------

/// Forbids that nested waits need a second thread.
#[test]
fn nested_waits_need_one_thread() {
    fn nest(pool: &ThreadPool, left: u32) -> u32 {
        let inside = pool.clone();
        if left == 0 { 0 } else { pool.spawn(move || nest(&inside, left - 1)).wait() + 1 }
    }
    let _watchdog = watchdog();
    let (pool, threads) = pool_of(1);
    assert_eq!(nest(&pool, 100), 100);
    assert_eq!((threads.started(), pool.stats().threads), (1, 1));
    let stats = pool.stats();
    assert_eq!((stats.succeeded, running_now(&stats)), (100, 0));
}

/// Forbids that `wait` in a job does not run a queued job of the same pool inline.
#[test]
fn wait_runs_a_queued_job_inline() {
    let _watchdog = watchdog();
    for size in [1, 3] {
        let (pool, _) = pool_of(size);
        // All other threads are busy.
        let held = hold(&pool, size - 1);
        let inside = pool.clone();
        let same_thread = pool.spawn(move || {
            let id = || thread::current().id();
            let here = id();
            let jobs = inside.spawn_many([id; 5]);
            // The last job first: `wait` does not have to run the jobs before it.
            let mut jobs = jobs.into_iter().rev();
            let last = jobs.next().unwrap();
            let first_wait = last.wait() == here;
            let others_are_queued = inside.stats().queued == 4;
            first_wait && others_are_queued && jobs.all(|job| job.outcome().wait().unwrap() == here)
        });
        assert!(same_thread.wait());
        release(held);
    }
}

/// Forbids that a panic or a cancel of a job that runs inline affects the job that waits for it, or the reverse.
#[test]
fn a_job_that_runs_inline_is_independent_of_the_job_that_waits() {
    let _watchdog = watchdog();
    let (pool, _) = pool_of(1);
    let inside = pool.clone();
    let outer = running(&pool, move || {
        let asked = offthread::is_cancelled();
        let inner_asked = inside.spawn(offthread::is_cancelled).wait();
        let panicked = inside.spawn(|| resume_unwind(Box::new(1))).outcome().wait().map(|()| 1).is_err();
        (asked, inner_asked, panicked, offthread::is_cancelled())
    });
    assert!(!outer.job.cancel());
    assert_eq!(outer.finish(), (true, false, true, true));
    assert_eq!((pool.stats().panicked, pool.stats().succeeded), (1, 2));
}

/// Forbids that nested waits overflow the stack. Each level has a buffer of a sixty-fourth of the stack, so all levels
/// together need more than one stack.
#[test]
fn nested_waits_need_no_deep_stack() {
    type Wait = fn(Job<usize>) -> usize;
    fn nest<const BYTES: usize>(pool: &ThreadPool, wait: Wait, left: usize) -> usize {
        let mut buffer = black_box([1_u8; BYTES]);
        let depth = if left == 0 {
            0
        } else {
            let inside = pool.clone();
            wait(pool.spawn(move || nest::<BYTES>(&inside, wait, left - 1))) + 1
        };
        // Keeps the buffer alive during the wait.
        black_box(&mut buffer);
        depth
    }
    fn check<const BYTES: usize>(builder: offthread::ThreadPoolBuilder) {
        let pool = builder.threads(4).keep_alive(Duration::MAX).build();
        let start = |wait| {
            let inside = pool.clone();
            pool.spawn(move || nest::<BYTES>(&inside, wait, 100))
        };
        let ways: [Wait; 3] =
            [Job::wait, |job| job.outcome().wait().unwrap(), |job| threaded(move || job.wait()).async_call().wait()];
        assert_eq!(ways.map(|wait| start(wait).wait()), [100; 3]);
        assert_eq!([Job::wait as Wait; 4].map(start).map(Job::wait), [100; 4], "four nests at once");
        until("the spare threads have ended", || pool.stats().threads <= 4);
        pool.drain();
    }
    let _watchdog = watchdog();
    // A thread's stack has 2 MiB, unless the environment sets another size.
    check::<{ 32 << 10 }>(ThreadPool::builder());
    check::<{ 4 << 10 }>(ThreadPool::builder().stack_size(256 << 10));
}

/// Forbids that a tree of jobs that wait for their children hangs.
#[test]
fn a_tree_of_waits_does_not_hang() {
    fn sum(pool: &ThreadPool, from: u64, to: u64) -> u64 {
        if to - from == 1 {
            return from;
        }
        let middle = from.midpoint(to);
        let halves = [(from, middle), (middle, to)].map(|(from, to)| {
            let inside = pool.clone();
            pool.spawn(move || sum(&inside, from, to))
        });
        halves.into_iter().map(Job::wait).sum()
    }
    let _watchdog = watchdog();
    for size in [1, 2, 3] {
        let (pool, threads) = pool_of(size);
        assert_eq!(sum(&pool, 0, 200), 19_900);
        until("no more threads than the size", || pool.stats().threads <= size);
        drop(pool);
        threads.wait_for_all_to_stop();
    }
}

// --- (b) spare threads ----------------------------------------------------------------------------------------------

/// Forbids that a job that awaits a job of its own pool of one thread, with `block_on`, hangs.
#[test]
fn nested_awaits_do_not_hang_in_a_pool_of_one_thread() {
    fn nest(pool: &ThreadPool, left: u32) -> u32 {
        let inside = pool.clone();
        if left == 0 { 0 } else { block_on(async { pool.spawn(move || nest(&inside, left - 1)).await }) + 1 }
    }
    let _watchdog = watchdog();
    let (pool, threads) = pool_of(1);
    for _ in 0..5 {
        assert_eq!(nest(&pool, 20), 20);
    }
    until("the spare threads have ended", || pool.stats().threads <= 1);
    assert_eq!(most_at_once(&pool, 50), 1);
    drop(pool);
    threads.wait_for_all_to_stop();
}

/// Forbids that nested `threaded` calls, which use the job's own pool of one thread, hang.
#[test]
fn nested_threaded_calls_do_not_hang_in_a_pool_of_one_thread() {
    fn nest(left: u32) -> u32 {
        assert!(own_name().starts_with("ht-nested"));
        if left == 0 { 0 } else { threaded(move || nest(left - 1)).async_call().wait() + 1 }
    }
    let _watchdog = watchdog();
    let pool = ThreadPool::builder().threads(1).name("ht-nested").build();
    assert_eq!(pool.spawn(|| nest(30)).wait(), 30);
}

/// Forbids that two jobs of a pool of one thread that use both ends of a channel hang, whichever is submitted first.
#[test]
fn both_ends_of_a_channel_may_be_in_a_pool_of_one_thread() {
    let _watchdog = watchdog();
    let (pool, _) = pool_of(1);
    for (max_size, sender_first) in [(1, true), (1, false), (3, true), (64, false)] {
        let (mut sender, mut receiver) = spsc::channel(max_size);
        let send = move || (0..1000).for_each(|item| sender.send_blocking(item).unwrap());
        let receive = move || {
            let mut all = Vec::new();
            while let Some(item) = receiver.recv_blocking() {
                all.push(item);
            }
            all
        };
        let (sending, receiving) = if sender_first {
            let sending = pool.spawn(send);
            (sending, pool.spawn(receive))
        } else {
            let receiving = pool.spawn(receive);
            (pool.spawn(send), receiving)
        };
        assert!(receiving.wait().into_iter().eq(0..1000));
        sending.wait();
    }
    until("the spare thread has ended", || pool.stats().threads <= 1);
}

/// Forbids that a chain of jobs, each of which waits for the next, hangs in a pool of one thread.
#[test]
fn a_chain_of_oneshots_does_not_hang_in_a_pool_of_one_thread() {
    let _watchdog = watchdog();
    let (pool, _) = pool_of(1);
    for block in [|receiver: oneshot::Receiver<u32>| receiver.recv_blocking(), |receiver| block_on(receiver)] {
        let (first, mut end) = oneshot::channel::<u32>();
        let mut first = Some(first);
        let links: Vec<_> = (0..50)
            .map(|_| {
                let (sender, receiver) = oneshot::channel();
                let next = first.replace(sender).unwrap();
                pool.spawn(move || next.send(block(receiver).unwrap() + 1).unwrap())
            })
            .collect();
        // The job with the first value is submitted last.
        let first = first.unwrap();
        pool.spawn(move || first.send(0).unwrap()).wait();
        links.into_iter().for_each(Job::wait);
        assert_eq!(end.try_recv().ok(), Some(50));
    }
}

/// Forbids that a job that is submitted just as the only thread blocks does not run.
#[test]
fn a_job_that_arrives_as_the_worker_blocks_runs() {
    let _watchdog = watchdog();
    let (pool, _) = pool_of(1);
    for round in 0..300 {
        let (sender, receiver) = oneshot::channel();
        let started = Gate::default();
        let start = started.clone();
        let blocked = pool.spawn(move || {
            start.open();
            receiver.recv_blocking().unwrap()
        });
        if round % 3 > 0 {
            started.pass();
            (0..round * 10).for_each(|_| std::hint::spin_loop());
        }
        pool.spawn(move || sender.send(round).unwrap()).wait();
        assert_eq!(blocked.wait(), round);
    }
    until("the spare thread has ended", || pool.stats().threads <= 1);
}

/// Forbids that two pools of one thread, whose jobs wait for each other's jobs, hang.
#[test]
fn jobs_of_two_pools_may_wait_for_each_other() {
    fn ping(here: &ThreadPool, there: &ThreadPool, left: u32) -> u32 {
        let (next, after) = (there.clone(), here.clone());
        if left == 0 { 0 } else { here.spawn(move || ping(&next, &after, left - 1)).wait() + 1 }
    }
    let _watchdog = watchdog();
    let (left, right) = (pool_of(1).0, pool_of(1).0);
    assert_eq!(ping(&left, &right, 20), 20);
    for pool in [left, right] {
        until("the spare threads have ended", || pool.stats().threads <= 1);
    }
}

/// Forbids that a spare thread starts without a queued job, or does not start for the first queued job.
#[test]
fn no_spare_thread_without_a_job_for_it() {
    let _watchdog = watchdog();
    let (pool, threads) = pool_of(1);
    for round in 0..100 {
        let (sender, receiver) = oneshot::channel();
        let (mut items, mut item) = spsc::channel(1);
        let (start, started) = oneshot::channel();
        let job = pool.spawn(move || {
            start.send(()).unwrap();
            receiver.recv_blocking().unwrap() + item.recv_blocking().unwrap()
        });
        started.recv_blocking().unwrap();
        if round % 2 == 0 {
            thread::yield_now();
        }
        sender.send(1).unwrap();
        items.send_blocking(2).unwrap();
        assert_eq!(job.wait(), 3);
        assert_eq!(pool.stats().threads, 1);
    }
    assert_eq!(threads.started(), 1);
    let (sender, receiver) = oneshot::channel();
    let blocked = pool.spawn(move || receiver.recv_blocking().unwrap());
    pool.spawn(move || sender.send(1).unwrap()).wait();
    assert_eq!(blocked.wait(), 1);
    assert!(threads.started() <= 2);
}

// --- wakers that block or run for long ------------------------------------------------------------------------------

/// Wakers that run code of the test on the thread that wakes them.
struct Runs<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Runs<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// Ends this many jobs at once. The jobs' handles are awaited with wakers that run `code`.
fn wake_at_the_end(pool: &ThreadPool, jobs: usize, code: impl Fn() + Send + Sync + 'static) -> Vec<Job<()>> {
    let waker = Waker::from(Arc::new(Runs(code)));
    let mut held = hold(pool, jobs);
    for running in &mut held {
        assert!(Pin::new(&mut running.job).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    stop_all(&held);
    held.into_iter().map(|running| running.job).collect()
}

/// Forbids that the waker of a job's handle, if it blocks without the crate's knowledge, delays other jobs although
/// threads are free.
#[test]
fn a_waker_that_blocks_occupies_only_its_own_thread() {
    let _watchdog = watchdog();
    for blocked in 1..=4 {
        let (pool, threads) = pool_of(4);
        let (go, (begin, begun)) = (Gate::default(), mpsc::channel());
        let may_go = go.clone();
        let jobs = wake_at_the_end(&pool, blocked, move || {
            begin.send(()).unwrap();
            may_go.pass();
        });
        (0..blocked).for_each(|_| begun.recv().unwrap());
        assert!(jobs.iter().all(Job::is_finished), "a job has its result before it wakes");
        let mut queued = Vec::new();
        if blocked < 4 {
            // First one job, then as many jobs as blocked threads, submitted one by one; then many at once.
            for count in [1, blocked] {
                let next: Vec<_> = (0..count).map(|_| pool.spawn(|| ())).collect();
                until("the next jobs have run", || next.iter().all(Job::is_finished));
            }
            let next = pool.spawn_many((0..20).map(|_| || ()));
            until("many jobs have run", || next.iter().all(Job::is_finished));
            assert!(most_at_once(&pool, 50) <= 4 - blocked);
        } else {
            queued = pool.spawn_many((0..20).map(|_| || ()));
            assert_eq!(pool.stats().queued, 20, "all threads are blocked");
        }
        assert!(pool.stats().threads <= 4);
        go.open();
        queued.into_iter().chain(jobs).for_each(Job::wait);
        assert!(most_at_once(&pool, 50) <= 4);
        assert!(threads.started() <= 4);
    }
}

/// Forbids that a waker waits for ever when it runs a task, which waits for the next job of the pool.
#[test]
fn a_waker_that_runs_a_task_occupies_only_its_own_thread() {
    let _watchdog = watchdog();
    // The task blocks in std, spins, waits in the crate, or runs a loop.
    let tasks: [fn(&ThreadPool); 4] = [
        |pool| {
            let (send, receive) = mpsc::channel();
            pool.spawn(move || send.send(()).unwrap()).detach();
            receive.recv().unwrap();
        },
        |pool| {
            let job = pool.spawn(|| ());
            while !job.is_finished() {
                thread::yield_now();
            }
        },
        |pool| pool.spawn(|| ()).wait(),
        |pool| block_on(pool.spawn(|| ())),
    ];
    for task in tasks {
        for size in [2, 4] {
            let (pool, threads) = pool_of(size);
            for _ in 0..20 {
                let (inside, (done, has_done)) = (pool.clone(), mpsc::channel());
                let jobs = wake_at_the_end(&pool, size - 1, move || {
                    task(&inside);
                    done.send(()).unwrap();
                });
                (1..size).for_each(|_| has_done.recv().unwrap());
                jobs.into_iter().for_each(Job::wait);
            }
            until("no more threads than the size", || pool.stats().threads <= size);
            drop(pool);
            threads.wait_for_all_to_stop();
        }
    }
}

// --- many blocked jobs ----------------------------------------------------------------------------------------------

/// Jobs that block in the crate until `let_go`, and then run until their gates open.
struct Blocked {
    jobs: Vec<Job<()>>,
    senders: Vec<oneshot::Sender<()>>,
    /// Counts the jobs that have returned from their blocking call, and have not ended.
    back: Crowd,
    /// One gate for each job.
    ends: Vec<Gate>,
}

fn block(pool: &ThreadPool, number: usize) -> Blocked {
    let (back, started) = (Crowd::default(), Arc::new(AtomicUsize::new(0)));
    let ends: Vec<_> = (0..number).map(|_| Gate::default()).collect();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..number).map(|_| oneshot::channel()).unzip();
    let jobs = pool.spawn_many(receivers.into_iter().zip(&ends).map(|(receiver, end)| {
        let (back, started, end) = (back.clone(), Arc::clone(&started), end.clone());
        move || {
            started.fetch_add(1, Ordering::SeqCst);
            receiver.recv_blocking().unwrap();
            back.enter();
            end.pass();
            back.leave();
        }
    }));
    until("all have started", || started.load(Ordering::SeqCst) == number);
    Blocked { jobs, senders, back, ends }
}

impl Blocked {
    fn let_go(&mut self) {
        let number = self.senders.len();
        self.senders.drain(..).for_each(|sender| sender.send(()).unwrap());
        until("all jobs are back", || self.back.now() == number);
    }
}

/// Forbids that spare threads start jobs after the blocked jobs have returned, so that more jobs run than the pool may
/// run.
#[test]
fn the_size_holds_after_many_blocked_jobs_return() {
    let _watchdog = watchdog();
    for size in [1, 2] {
        let (pool, threads) = pool_of(size);
        let mut blocked = block(&pool, 40);
        blocked.let_go();
        // Forty jobs run at once now. The next jobs must wait until fewer than `size` run.
        let crowd = blocked.back.clone();
        let (seen, new) = (Arc::new(AtomicUsize::new(0)), Crowd::default());
        let late = pool.spawn_many((0..100).map(|_| {
            let (crowd, seen, new) = (crowd.clone(), Arc::clone(&seen), new.clone());
            move || {
                new.enter();
                // `crowd` only shrinks, and is read last. So the sum is at most the number of jobs that really ran at
                // once.
                seen.fetch_max(new.now() + crowd.now(), Ordering::SeqCst);
                thread::yield_now();
                new.leave();
            }
        }));
        for (end, job) in blocked.ends.iter().zip(blocked.jobs) {
            end.open();
            job.wait();
        }
        late.into_iter().for_each(Job::wait);
        let seen = seen.load(Ordering::SeqCst);
        assert!((1..=size).contains(&seen), "{seen} at once in a pool of {size}");
        assert!(new.most() <= size && most_at_once(&pool, 100) <= size);
        until("the spare threads have ended", || pool.stats().threads <= size);
        until("the threads have run their stop hooks", || threads.started() - threads.stopped() <= size);
        assert_eq!(pool.spawn(|| 1).wait(), 1);
    }
}

/// Forbids that more jobs than the size run at once while others are blocked.
#[test]
fn the_size_holds_while_others_are_blocked() {
    let _watchdog = watchdog();
    for size in [1, 2] {
        let (pool, _) = pool_of(size);
        let mut blocked = block(&pool, 10);
        assert!(most_at_once(&pool, 100) <= size);
        // All threads can be used.
        release(hold(&pool, size));
        blocked.let_go();
        blocked.ends.iter().for_each(Gate::open);
        blocked.jobs.into_iter().for_each(Job::wait);
        assert!(most_at_once(&pool, 100) <= size);
    }
}

/// Forbids that a pool starts more than 512 threads for blocked jobs, or that jobs beyond that number are lost.
#[test]
fn there_are_512_threads_at_most() {
    let _watchdog = watchdog();
    let threads = Threads::default();
    let builder = ThreadPool::builder().threads(1).name("ht-many").stack_size(1 << 18).keep_alive(Duration::MAX);
    let pool = threads.watch(builder).build();
    let started = Arc::new(AtomicUsize::new(0));
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..600).map(|_| oneshot::channel()).unzip();
    let jobs = pool.spawn_many(receivers.into_iter().map(|receiver| {
        let started = Arc::clone(&started);
        move || {
            started.fetch_add(1, Ordering::SeqCst);
            receiver.recv_blocking().unwrap()
        }
    }));
    until("512 jobs are blocked", || started.load(Ordering::SeqCst) >= 512);
    let stats = pool.stats();
    assert_eq!((stats.threads, stats.queued, running_now(&stats)), (512, 88, 512));
    #[cfg(target_os = "linux")]
    until("the system lists all threads", || threads_named("ht-many").len() == 512);
    for (number, sender) in senders.into_iter().enumerate() {
        sender.send(number).unwrap();
    }
    assert!(jobs.into_iter().map(Job::wait).eq(0..600));
    assert_eq!(started.load(Ordering::SeqCst), 600);
    until("the spare threads have ended", || pool.stats().threads <= 1);
    assert_eq!(most_at_once(&pool, 20), 1);
    pool.drain();
    threads.wait_for_all_to_stop();
    #[cfg(target_os = "linux")]
    until("the system lists no thread", || threads_named("ht-many").is_empty());
}

/// Forbids that a panic of a blocked job, or of a job on a spare thread, makes the pool miscount its threads.
#[test]
fn panics_of_blocked_jobs_leave_the_pool_as_it_was() {
    let _watchdog = watchdog();
    let (pool, threads) = pool_of(1);
    for _ in 0..20 {
        let (sender, receiver) = oneshot::channel::<()>();
        let blocked = pool.spawn(move || quiet_assert(receiver.recv_blocking().is_ok()));
        let closing = pool.spawn(move || {
            let _sender = sender;
            resume_unwind(Box::new(1));
        });
        assert!(closing.outcome().wait().map(|()| 1).is_err());
        assert!(blocked.outcome().wait().is_err());
    }
    until("the spare threads have ended", || pool.stats().threads <= 1);
    assert_eq!(most_at_once(&pool, 50), 1);
    drop(pool);
    threads.wait_for_all_to_stop();
}

/// Forbids that a job that blocks in a closed pool, or the job that it waits for, is lost; or that a queued job runs
/// after a shutdown.
#[test]
fn no_job_is_lost_if_jobs_block_in_a_closed_pool() {
    let _watchdog = watchdog();
    for way in 0..3 {
        let (pool, threads) = pool_of(1);
        let held = hold(&pool, 1);
        let (sender, receiver) = oneshot::channel();
        let blocked = pool.spawn(move || receiver.recv_blocking().is_ok());
        let sending = pool.spawn(move || sender.send(()).is_ok());
        match way {
            // Both jobs are to run.
            0 => drop(pool),
            1 => {
                held[0].stop.open();
                pool.drain();
            }
            // Neither job is to run.
            _ => assert!(pool.shutdown_timeout(Duration::ZERO).is_err()),
        }
        release(held);
        let outcomes = (blocked.outcome().wait().ok(), sending.outcome().wait().ok());
        assert_eq!(outcomes, if way < 2 { (Some(true), Some(true)) } else { (None, None) });
        threads.wait_for_all_to_stop();
    }
}

/// Forbids that a shutdown does not wait for jobs that block until another thread sends.
#[test]
fn a_shutdown_waits_for_a_blocked_job() {
    let _watchdog = watchdog();
    let (pool, threads) = pool_of(1);
    let mut blocked = block(&pool, 5);
    blocked.ends.iter().for_each(Gate::open);
    assert_eq!(pool.shutdown_timeout(Duration::ZERO).unwrap_err().running, 5);
    thread::scope(|scope| {
        let closer = spawn_until_asleep(scope, || pool.shutdown());
        assert!(!closer.is_finished());
        blocked.senders.drain(..).for_each(|sender| sender.send(()).unwrap());
        closer.join().unwrap();
        assert!(blocked.jobs.iter().all(Job::is_finished));
    });
    threads.wait_for_all_to_stop();
    assert_eq!(pool.stats().succeeded, 5);
}

/// Forbids that a spare thread starts when a job waits for a value that is already there.
#[test]
fn no_spare_thread_starts_for_a_value_that_is_already_there() {
    let _watchdog = watchdog();
    let (pool, threads) = pool_of(1);
    let other = ThreadPool::new(1);
    let finished = other.spawn(|| 1);
    until("the job is finished", || finished.is_finished());
    let (sender, receiver) = oneshot::channel();
    sender.send(2).unwrap();
    let (mut items, mut item) = spsc::channel(1);
    let held = hold(&pool, 1);
    let job = pool.spawn(move || {
        items.send_blocking(4).unwrap();
        finished.wait() + receiver.recv_blocking().unwrap() + item.recv_blocking().unwrap()
    });
    let queued = pool.spawn_many((0..20).map(|_| || ()));
    release(held);
    assert_eq!(job.wait(), 7);
    queued.into_iter().for_each(Job::wait);
    assert_eq!(threads.started(), 1);
}
