//! Random programs, each compared with a simple model.

#[path = "../helpers/mod.rs"]
mod helpers;

// The module that the private source in `timers.rs` imports.
#[allow(dead_code, reason = "this test does not use all of it")]
#[path = "../../src/primitives/waker_map.rs"]
mod waker_map;
mod primitives {
    pub(crate) use crate::waker_map;
}

mod channels_and_jobs;
mod context;
mod event_loop;
mod generators;
mod http;
mod iterables;
mod map;
mod pool;
mod timers;
