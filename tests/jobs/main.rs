//! Jobs and their handles: `threaded`, `threaded_separate`, the macros.

#[path = "../helpers/mod.rs"]
mod helpers;

mod chains;
mod jobs;
mod macros;
mod separate;
mod waits;
