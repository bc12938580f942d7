//! What the test binaries of the pool share.

#![allow(dead_code, reason = "each test binary uses its part of it")]

#[path = "../common/mod.rs"]
mod common;

pub use common::{Gate, until, watchdog};
use offthread::{Job, JoinError, PoolStats, ThreadPool, ThreadPoolBuilder};
use std::any::Any;
use std::env;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};

// --- jobs -----------------------------------------------------------------------------------------------------------

/// A job that has started, and runs until `stop` is opened.
pub struct Running<R> {
    pub job: Job<R>,
    pub stop: Gate,
}

impl<R> Running<R> {
    /// Lets the job end, and waits for it.
    pub fn finish(self) -> R {
        self.stop.open();
        self.job.wait()
    }
}

/// Runs until it is told to stop, and then gives what `end` gives.
pub fn running<R: Send + 'static>(pool: &ThreadPool, end: impl FnOnce() -> R + Send + 'static) -> Running<R> {
    let (started, stop) = (Gate::default(), Gate::default());
    let (start, inside) = (started.clone(), stop.clone());
    let job = pool.spawn(move || {
        start.open();
        inside.pass();
        end()
    });
    started.pass();
    Running { job, stop }
}

/// Takes that many threads of the pool; what is submitted when none is left has not started.
pub fn hold(pool: &ThreadPool, threads: usize) -> Vec<Running<()>> {
    (0..threads).map(|_| running(pool, || ())).collect()
}

/// Lets the jobs end that hold these threads.
pub fn stop_all(held: &[Running<()>]) {
    for held in held {
        held.stop.open();
    }
}

/// Gives the threads back.
pub fn release(held: Vec<Running<()>>) {
    held.into_iter().for_each(Running::finish);
}

/// The thread that the pool's next job runs on.
pub fn thread_of(pool: &ThreadPool) -> ThreadId {
    pool.spawn(|| thread::current().id()).wait()
}

/// The name of the thread that calls it.
pub fn own_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// How many jobs run now, which `PoolStats` tells by its sum alone.
#[track_caller]
pub fn running_now(stats: &PoolStats) -> u64 {
    let others = stats.queued as u64 + stats.succeeded + stats.panicked + stats.cancelled;
    stats.submitted.checked_sub(others).unwrap_or_else(|| panic!("more than were submitted: {stats:?}"))
}

/// Counts the threads of a pool as they start and end.
#[derive(Clone, Default)]
pub struct Threads(Arc<(AtomicUsize, AtomicUsize)>);

impl Threads {
    pub fn watch(&self, builder: ThreadPoolBuilder) -> ThreadPoolBuilder {
        let (start, stop) = (self.clone(), self.clone());
        builder
            .on_thread_start(move || {
                start.0.0.fetch_add(1, Ordering::SeqCst);
            })
            .on_thread_stop(move || {
                stop.0.1.fetch_add(1, Ordering::SeqCst);
            })
    }

    pub fn started(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    pub fn stopped(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    #[track_caller]
    pub fn wait_for_all_to_stop(&self) {
        until("each thread has stopped", || self.stopped() == self.started());
    }
}

/// Knows how many are in it at once, and how many there were at most.
#[derive(Clone, Default)]
pub struct Crowd(Arc<(AtomicUsize, AtomicUsize)>);

impl Crowd {
    pub fn enter(&self) {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
    }

    pub fn leave(&self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn now(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    pub fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

// --- values ---------------------------------------------------------------------------------------------------------

/// A value that says on a channel where it was dropped.
pub struct Traced(mpsc::Sender<ThreadId>);

impl Drop for Traced {
    fn drop(&mut self) {
        // A test that has seen enough may be gone.
        let _ = self.0.send(thread::current().id());
    }
}

pub fn traced() -> (Traced, mpsc::Receiver<ThreadId>) {
    let (sender, receiver) = mpsc::channel();
    (Traced(sender), receiver)
}

/// A value whose `Drop` panics, after it has said where.
pub struct Bomb(Traced);

impl Drop for Bomb {
    fn drop(&mut self) {
        // Silent, unlike `panic!`.
        resume_unwind(Box::new("the bomb's panic"));
    }
}

pub fn bomb() -> (Bomb, mpsc::Receiver<ThreadId>) {
    let (traced, dropped) = traced();
    (Bomb(traced), dropped)
}

/// Runs code when it is dropped.
pub struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(code) = self.0.take() {
            code();
        }
    }
}

pub fn on_drop<F: FnOnce()>(code: F) -> OnDrop<F> {
    OnDrop(Some(code))
}

/// Panics without a word if it is not so.
pub fn quiet_assert(is_so: bool) {
    if !is_so {
        resume_unwind(Box::new("a panic that was asked for"));
    }
}

pub fn text(payload: &(dyn Any + Send)) -> &str {
    payload.downcast_ref::<String>().map_or_else(|| payload.downcast_ref::<&str>().copied().unwrap(), String::as_str)
}

// --- the system -----------------------------------------------------------------------------------------------------

/// The folders of this process's threads whose names begin so (with 15 bytes at most, which is all that Linux keeps). While
/// other threads end, the system's list may lack some.
#[cfg(target_os = "linux")]
pub fn threads_named(prefix: &str) -> Vec<std::path::PathBuf> {
    assert!(prefix.len() <= 15);
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    // One that ends just now has no name any more.
    tasks.filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with(prefix))).collect()
}

/// Runs an ignored test of this binary in a process of its own; gives what it printed, as an error if it failed.
fn run(command: &mut Command, probe: &str) -> Result<String, String> {
    command.args(["--ignored", "--exact", probe, "--nocapture", "--test-threads=1"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("running 1 test"), "the probe was not found: {text}");
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// Runs a probe with `OFFTHREAD_POOL_SIZE` set like that.
pub fn child(probe: &str, pool_size: Option<&str>) -> Result<String, String> {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env_remove("OFFTHREAD_POOL_SIZE");
    if let Some(size) = pool_size {
        command.env("OFFTHREAD_POOL_SIZE", size);
    }
    run(&mut command, probe)
}

/// Runs a probe in a process with that many megabytes of addresses; a thread's stack takes `stack` of them unless told.
#[cfg(target_os = "linux")]
pub fn confined_child(probe: &str, memory: usize, stack: usize) -> Result<String, String> {
    let mut command = Command::new("sh");
    // Else each thread would reserve, and in part give back, tens of megabytes at a moment of its own.
    command.env("MALLOC_ARENA_MAX", "1").env("RUST_MIN_STACK", (stack << 20).to_string());
    command.args(["-c", &format!("ulimit -v {} && exec \"$0\" \"$@\"", memory << 10)]).arg(env::current_exe().unwrap());
    run(&mut command, probe)
}

#[track_caller]
pub fn assert_at_rest(pool: &ThreadPool) {
    let stats = pool.stats();
    assert_eq!((stats.queued, running_now(&stats)), (0, 0), "{stats:?}");
}

#[track_caller]
pub fn assert_cancelled<R>(job: Job<R>) {
    match job.outcome().wait() {
        Err(JoinError::Cancelled) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it ran"),
    }
}
