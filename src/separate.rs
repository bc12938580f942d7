//! Jobs that each have a separate thread.
//!
//! The job is the same as in a pool, and so is its handle. The job waits in a slot that the new thread and its starter
//! share: if the system refuses the thread, the starter refuses the job.
#![forbid(unsafe_code)]

use crate::context::Context;
use crate::primitives::cancel::Stop;
use crate::primitives::job::{Job, JobOwner, Queued, job};
use crate::primitives::join_error::JoinError;
use crate::sync::{Arc, Mutex, thread};

/// Starts a thread that runs `func`, and returns the handle.
pub fn spawn<F: FnOnce() -> R + Send + 'static, R: Send + 'static>(name: Option<String>, func: F) -> Job<R> {
    let mut context = Context::current();
    let (queued, handle) = job(move || context.within(func), Separate(Stop::default()));
    let slot = Arc::new(Mutex::new(Some(queued)));
    let builder = thread::Builder::new().name(name.unwrap_or_else(|| "offthread".into()));
    let started = builder.spawn({
        let slot = slot.clone();
        move || {
            let queued = slot.lock().take();
            if let Some(job) = queued.and_then(Queued::claim) {
                job.run(&mut |_| {});
            }
        }
    });
    if let Err(error) = started {
        let queued = slot.lock().take();
        if let Some(job) = queued.and_then(Queued::claim) {
            job.refuse(JoinError::NoThread(error));
        }
    }
    handle
}

/// The owner of one separate job. Keeps no counts.
struct Separate(Stop);

impl JobOwner for Separate {
    fn cancelled(&self) {}

    fn stop(&self) -> &Stop {
        &self.0
    }
}
