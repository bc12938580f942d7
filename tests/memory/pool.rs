//! How much memory cancelled jobs use, and how much a pool keeps after a burst.

use crate::heap::{Heap, NOW, alone};
use crate::helpers::pool::*;
use offthread::{IteratorWrapper, Job, ThreadPool, block_on};
use std::hint::black_box;
use std::mem;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const JOBS: usize = 100_000;
const MEGABYTE: usize = 1 << 20;

/// A job of at least 256 bytes: 100 000 of these jobs take 25 megabytes.
fn job(pool: &ThreadPool, number: usize) -> Job<usize> {
    let captured = [number; 32];
    pool.spawn(move || black_box(&captured)[number % 32])
}

/// Asserts that the shutdown of a pool whose thread is free takes less than ten seconds.
#[track_caller]
fn shut_down_in_time(pool: &ThreadPool) {
    let start = Instant::now();
    pool.shutdown();
    let time = start.elapsed();
    assert!(time < Duration::from_secs(10), "the shutdown took {time:?}");
}

/// Forbids that jobs that are cancelled right after their submission make the queue grow.
#[test]
fn jobs_cancelled_at_once_do_not_grow_the_queue() {
    let (_alone, _watchdog) = (alone(), watchdog());
    let pool = ThreadPool::new(1);
    let held = hold(&pool, 1);
    let first = job(&pool, 1);
    let (most, left) = Heap::measure(|| {
        for number in 0..JOBS {
            let job = job(&pool, number);
            match number % 3 {
                0 => drop(job),
                1 => assert!(job.cancel()),
                _ => drop(job.outcome()),
            }
        }
    });
    assert!(most < 2 * MEGABYTE, "{most} bytes for cancelled jobs");
    assert!(left < MEGABYTE, "{left} bytes are left of the jobs");
    assert_eq!((pool.stats().queued, pool.stats().cancelled), (1, JOBS as u64));
    release(held);
    first.wait();
    shut_down_in_time(&pool);
}

/// Forbids that jobs that are cancelled later, in any order, keep their memory; or that each cancel searches the whole
/// queue.
#[test]
fn jobs_cancelled_later_keep_no_memory() {
    let (_alone, _watchdog) = (alone(), watchdog());
    // From the front, from the back, and in a scattered order (777 and 100 000 are coprime).
    let orders: [fn(usize) -> usize; 3] = [|number| number, |number| JOBS - 1 - number, |number| number * 777 % JOBS];
    for order in orders {
        let pool = ThreadPool::new(1);
        let held = hold(&pool, 1);
        let last = Mutex::new(None);
        let (_, left) = Heap::measure(|| {
            let mut jobs: Vec<_> = (0..JOBS).map(|number| Some(job(&pool, number))).collect();
            *last.lock().unwrap() = Some(job(&pool, 5));
            for number in 0..JOBS {
                drop(jobs[order(number)].take().unwrap());
            }
        });
        // Some stale entries may wait for the next purge, which also frees the queue's capacity.
        assert!(left < MEGABYTE / 4, "{left} bytes are left of the jobs");
        assert_eq!((pool.stats().queued, pool.stats().cancelled), (1, JOBS as u64));
        release(held);
        assert_eq!(last.into_inner().unwrap().unwrap().wait(), 5);
        shut_down_in_time(&pool);
    }
}

/// Forbids that jobs that are cancelled while their pool is busy delay a shutdown or a drain.
#[test]
fn cancelled_jobs_do_not_delay_the_end() {
    let (_alone, _watchdog) = (alone(), watchdog());
    for drain in [false, true] {
        let pool = ThreadPool::new(1);
        let held = hold(&pool, 1);
        let jobs: Vec<_> = (0..JOBS).map(|number| job(&pool, number)).collect();
        assert_eq!(pool.stats().queued, JOBS);
        assert!(jobs.iter().all(Job::cancel));
        assert_eq!(pool.stats().queued, 0);
        release(held);
        let start = Instant::now();
        if drain {
            pool.drain();
        } else {
            pool.shutdown();
        }
        let time = start.elapsed();
        assert!(time < Duration::from_secs(10), "the end took {time:?}");
        let stats = pool.stats();
        assert_eq!((stats.cancelled, stats.succeeded, running_now(&stats)), (JOBS as u64, 1, 0));
    }
}

/// Forbids that a pool, its jobs and its threads leave memory behind.
#[test]
fn nothing_is_left_of_a_pool() {
    let (_alone, _watchdog) = (alone(), watchdog());
    let life = || {
        let threads = Threads::default();
        let pool = threads.watch(ThreadPool::builder().threads(2)).build();
        let held = hold(&pool, 2);
        let jobs: Vec<_> = (0..1000).map(|number| job(&pool, number)).collect();
        for (number, job) in jobs.into_iter().enumerate() {
            match number % 3 {
                0 => drop(job),
                1 => job.detach(),
                _ => assert!(job.cancel()),
            }
        }
        release(held);
        drop(pool);
        threads.wait_for_all_to_stop();
    };
    // A first run, because the first use makes permanent allocations.
    life();
    let (_, left) = Heap::measure(|| {
        for _ in 0..20 {
            life();
        }
        // The last thread may still be ending.
        wait_until_at_rest();
    });
    assert!(left < MEGABYTE, "{left} bytes are left of twenty pools");
}

/// How many more bytes an idle pool keeps than before the burst.
fn kept_after(burst: impl FnOnce(&ThreadPool)) -> usize {
    let pool = ThreadPool::builder().threads(2).keep_alive(Duration::MAX).build();
    release(hold(&pool, 2));
    let at_rest = || {
        until("the pool is idle", || pool.stats().idle == 2 && pool.stats().threads == 2);
        wait_until_at_rest();
    };
    at_rest();
    let (_, left) = Heap::measure(|| {
        burst(&pool);
        at_rest();
    });
    left
}

/// How many bytes a pool may keep: the capacity for 64 entries, and a margin.
const LITTLE: usize = 16 << 10;

/// Forbids that an idle pool keeps the memory of a burst of jobs, however these were submitted, and however they ended.
#[test]
fn an_idle_pool_keeps_nothing_of_many_jobs() {
    const MANY: usize = JOBS / 5;
    type Burst = fn(&ThreadPool) -> Vec<Job<usize>>;
    let (_alone, _watchdog) = (alone(), watchdog());
    let bursts: [Burst; 2] = [
        |pool| (0..MANY).map(|number| job(pool, number)).collect(),
        |pool| pool.spawn_many((0..MANY).map(|number| move || number)),
    ];
    let ends: [fn(Vec<Job<usize>>); 4] = [
        |jobs| assert_eq!(jobs.into_iter().map(Job::wait).count(), MANY),
        |jobs| jobs.into_iter().for_each(Job::detach),
        drop,
        |jobs| jobs.into_iter().step_by(2).for_each(|job| assert!(job.cancel())),
    ];
    for burst in bursts {
        for (number, end) in ends.into_iter().enumerate() {
            let kept = kept_after(|pool| {
                let held = hold(pool, 2);
                let jobs = burst(pool);
                if number < 2 {
                    release(held);
                    end(jobs);
                    pool.spawn(|| ()).wait();
                } else {
                    end(jobs);
                    release(held);
                }
            });
            assert!(kept < LITTLE, "{kept} bytes after jobs that ended in way {number}");
        }
    }
}

/// The same for iterables: dropped without a read, dropped after one item, or closed after one item.
#[test]
fn an_idle_pool_keeps_nothing_of_many_iterables() {
    const ITERABLES: usize = 10_000;
    let (_alone, _watchdog) = (alone(), watchdog());
    for way in 0..3 {
        let kept = kept_after(|pool| {
            let mut streams: Vec<_> =
                (0..ITERABLES).map(|number| IteratorWrapper::new(move || number..).on(pool).max_size(1)).collect();
            for (number, stream) in streams.iter_mut().enumerate() {
                if way > 0 {
                    assert_eq!(block_on(stream.next()), Some(number));
                }
            }
            if way == 2 {
                for stream in &mut streams {
                    block_on(stream.close());
                }
            }
            drop(streams);
            until("the spare threads have ended", || pool.stats().threads == 2);
        });
        assert!(kept < LITTLE, "{kept} bytes after {ITERABLES} iterables that ended in way {way}");
    }
}

/// Waits until the number of bytes has not changed for a moment.
fn wait_until_at_rest() {
    let mut last = NOW.load(Ordering::SeqCst);
    until("the heap is at rest", || {
        let now = NOW.load(Ordering::SeqCst);
        mem::replace(&mut last, now) == now
    });
}

/// Forbids that each `shutdown_timeout` that gives up leaves memory behind.
#[test]
fn shutdowns_that_give_up_leave_no_memory() {
    let _alone = alone();
    let _watchdog = watchdog();
    let pool = ThreadPool::new(1);
    let held = hold(&pool, 1);
    pool.shutdown_timeout(Duration::ZERO).unwrap_err();
    let (_, left) = Heap::measure(|| {
        for _ in 0..10_000 {
            pool.shutdown_timeout(Duration::ZERO).unwrap_err();
        }
    });
    release(held);
    assert!(left < 1000, "{left} bytes are left of calls that have returned");
}

/// Forbids: a pool that is drained keeps the stacks of the threads that have ended.
#[cfg(target_os = "linux")]
#[test]
fn a_drain_gives_the_stacks_of_ended_threads_back() {
    const STACK: usize = 64 << 20;
    const JOBS: usize = 200;
    /// The process's address space, in bytes.
    fn address_space() -> usize {
        let pages: usize =
            std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
        pages * 4096
    }
    let (_alone, _watchdog) = (alone(), watchdog());
    let before = address_space();
    let pool = ThreadPool::builder().threads(1).stack_size(STACK).build();
    // Each job blocks, so a spare thread is started for the next one.
    let jobs = pool.spawn_many((0..JOBS).map(|_| {
        || {
            offthread::wait_cancelled(std::time::Duration::from_millis(1));
            address_space()
        }
    }));
    pool.drain();
    let most = jobs.into_iter().map(offthread::Job::wait).max().unwrap();
    assert!(most < before + JOBS / 2 * STACK, "{} MiB more", (most - before) >> 20);
}
