//! The examples, and what needs a process of its own.

#[path = "../helpers/mod.rs"]
mod helpers;

mod examples;
mod timer_thread;
mod wc;
