//! The examples, and a test that needs its own process.

#[path = "../helpers/mod.rs"]
mod helpers;

mod examples;
mod timer_thread;
mod wc;
