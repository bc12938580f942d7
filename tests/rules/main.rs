//! Rules of the source: layers, auto traits, and where a panic points to.

#[path = "../helpers/mod.rs"]
mod helpers;

mod auto_traits;
mod layers;
mod locations;
