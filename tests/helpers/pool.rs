//! Helpers of the pool's test binaries.

pub use super::common::{Gate, OnDrop, Traced, on_drop, text, traced, until, watchdog};
use offthread::{Job, JoinError, PoolStats, ThreadPool, ThreadPoolBuilder};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, Scope, ScopedJoinHandle, ThreadId};
use std::time::Duration;
use std::{env, fs};

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

/// Starts a job that runs until `stop` is opened, and then returns the result of `end`.
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

/// Occupies this many threads of the pool. If no thread is left, jobs that are submitted afterwards do not start.
pub fn hold(pool: &ThreadPool, threads: usize) -> Vec<Running<()>> {
    (0..threads).map(|_| running(pool, || ())).collect()
}

/// Lets the jobs that occupy these threads end.
pub fn stop_all(held: &[Running<()>]) {
    for held in held {
        held.stop.open();
    }
}

/// Releases the threads, and waits for the jobs that occupy them.
pub fn release(held: Vec<Running<()>>) {
    held.into_iter().for_each(Running::finish);
}

/// The id of the thread that runs the pool's next job.
pub fn thread_of(pool: &ThreadPool) -> ThreadId {
    pool.spawn(|| thread::current().id()).wait()
}

/// The name of the current thread.
pub fn own_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// How many jobs run now. `PoolStats` has no such counter: the number is `submitted` minus the jobs that are queued or
/// have ended.
#[track_caller]
pub fn running_now(stats: &PoolStats) -> u64 {
    let others = stats.queued as u64 + stats.succeeded + stats.panicked + stats.cancelled;
    stats.submitted.checked_sub(others).unwrap_or_else(|| panic!("the counters exceed `submitted`: {stats:?}"))
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

/// Counts how many jobs are between `enter` and `leave`, and the maximum.
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

// --- threads that wait ----------------------------------------------------------------------------------------------

/// The thread that made this, so that other threads can see whether it sleeps.
#[derive(Clone)]
pub struct ThisThread(Option<PathBuf>);

impl ThisThread {
    pub fn new() -> Self {
        Self(fs::read_link("/proc/thread-self").ok().map(|path| Path::new("/proc").join(path).join("status")))
    }

    /// Waits until the thread sleeps or has ended. On a system without `/proc`: for 20 milliseconds.
    #[track_caller]
    pub fn wait_until_asleep(&self) {
        match &self.0 {
            Some(path) => until("the thread sleeps", || {
                fs::read_to_string(path).map_or(true, |status| status.contains("State:\tS"))
            }),
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Starts a thread that runs `f`. Returns when the thread sleeps or has ended: so a call in `f` that should block has
/// begun to wait, or has already returned.
#[track_caller]
pub fn spawn_until_asleep<'scope, R: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    f: impl FnOnce() -> R + Send + 'scope,
) -> ScopedJoinHandle<'scope, R> {
    let (sender, receiver) = mpsc::channel();
    let started = scope.spawn(move || {
        sender.send(ThisThread::new()).unwrap();
        f()
    });
    receiver.recv().unwrap().wait_until_asleep();
    started
}

// --- values ---------------------------------------------------------------------------------------------------------

/// A value whose `Drop` panics; it sends the thread's id as well.
pub struct Bomb(Traced);

impl Drop for Bomb {
    fn drop(&mut self) {
        // Prints nothing, unlike `panic!`.
        resume_unwind(Box::new("the bomb's panic"));
    }
}

pub fn bomb() -> (Bomb, mpsc::Receiver<ThreadId>) {
    let (traced, dropped) = traced();
    (Bomb(traced), dropped)
}

/// Panics without output if the condition is false.
pub fn quiet_assert(is_so: bool) {
    if !is_so {
        resume_unwind(Box::new("a panic that was asked for"));
    }
}

// --- the system -----------------------------------------------------------------------------------------------------

/// The `/proc` folders of this process's threads whose names start with `prefix` (of at most 15 bytes, as Linux
/// truncates names). The list may be incomplete while threads end.
#[cfg(target_os = "linux")]
pub fn threads_named(prefix: &str) -> Vec<std::path::PathBuf> {
    assert!(prefix.len() <= 15);
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    // A thread that is ending may have no name any more.
    tasks.filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with(prefix))).collect()
}

/// Runs an ignored test of this binary in its own process. Returns its output, as an error if it failed.
fn run(command: &mut Command, probe: &str) -> Result<String, String> {
    command.args(["--ignored", probe, "--nocapture", "--test-threads=1"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("running 1 test"), "the probe was not found: {text}");
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// Runs a probe with the given `OFFTHREAD_POOL_SIZE`.
pub fn child(probe: &str, pool_size: Option<&str>) -> Result<String, String> {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env_remove("OFFTHREAD_POOL_SIZE");
    if let Some(size) = pool_size {
        command.env("OFFTHREAD_POOL_SIZE", size);
    }
    run(&mut command, probe)
}

/// Runs a probe in a process with `memory` megabytes of address space, and a default thread stack of `stack` megabytes.
#[cfg(target_os = "linux")]
pub fn confined_child(probe: &str, memory: usize, stack: usize) -> Result<String, String> {
    let mut command = Command::new("sh");
    // Otherwise each thread reserves, and later partly returns, tens of megabytes for its own arena.
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
        Ok(_) => panic!("the job ran"),
    }
}
