//! Rules of the source: layers and auto traits.

#[path = "../helpers/mod.rs"]
mod helpers;

mod auto_traits;
mod layers;
