//! Helpers of the tests.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part of them")]

pub mod common;
pub mod event_loop;
pub mod example;
pub mod iterables;
pub mod pool;
