//! The thread pool.

#[path = "../helpers/mod.rs"]
mod helpers;

mod basics;
mod edges;
mod map;
mod refused;
mod shutdown;
mod starvation;
