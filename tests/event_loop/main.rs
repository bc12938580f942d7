//! The event loop: tasks, timers, context, `sync_await`.

#[path = "../helpers/mod.rs"]
mod helpers;

mod basics;
mod block_on;
mod context_variables;
mod edges;
mod foreign;
mod inherited_context;
mod sync_await;
mod time;
mod timers;
