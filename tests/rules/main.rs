//! Rules of the source: layers, auto traits, and the locations of panics.

#[path = "../helpers/mod.rs"]
mod helpers;

mod auto_traits;
mod layers;
mod locations;
