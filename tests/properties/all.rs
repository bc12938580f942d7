//! Random programs, each compared with a simple model; and the tests of `examples/http.rs`, which have no model.

#[path = "../helpers/mod.rs"]
mod helpers;

// `src/event_loop/timers.rs`, which the `timers.rs` of this folder includes, imports this module.
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
