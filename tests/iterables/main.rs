//! Blocking iterators, and generators, as streams.

#[path = "../helpers/mod.rs"]
mod helpers;

mod basics;
mod close;
mod edges;
mod fairness;
mod generator;
mod generator_promises;
mod macros;
mod pool;
