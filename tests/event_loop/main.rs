//! The event loop: tasks, timers, context, `sync_await`.

#[path = "../helpers/mod.rs"]
mod helpers;

mod basics;
mod block_on;
mod context;
mod contexts;
mod edges;
mod foreign;
mod sync_await;
mod time;
mod timers;
