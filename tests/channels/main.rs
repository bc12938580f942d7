//! The channels: `oneshot` and `spsc`.

#[path = "../helpers/mod.rs"]
mod helpers;
#[path = "../helpers/hooks.rs"]
mod hooks;

mod oneshot;
mod spsc;
