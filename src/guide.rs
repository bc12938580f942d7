//! How to use this crate: a page for each question. There is no code in this module.
//!
//! * [`choosing`]: which way to run blocking code
//! * [`cancelling`]: what dropping a handle does, and how blocking code learns of it
//! * [`panics`]: where a panic goes
//! * [`closing`]: how pools, iterables, channels and loops end
//! * [`blocking`]: which calls block their thread, and what that means there
//! * [`context`]: values that code reads without being passed them
//! * [`executors`]: with tokio, smol, or any other executor
//! * [`asyncio`]: for people who come from Python
//! * [`embedding`]: in a library
#![forbid(unsafe_code)]

#[doc = include_str!("guide/choosing.md")]
pub mod choosing {}

#[doc = include_str!("guide/cancelling.md")]
pub mod cancelling {}

#[doc = include_str!("guide/panics.md")]
pub mod panics {}

#[doc = include_str!("guide/closing.md")]
pub mod closing {}

#[doc = include_str!("guide/blocking.md")]
pub mod blocking {}

#[doc = include_str!("guide/context.md")]
pub mod context {}

#[doc = include_str!("guide/executors.md")]
pub mod executors {}

#[doc = include_str!("guide/asyncio.md")]
pub mod asyncio {}

#[doc = include_str!("guide/embedding.md")]
pub mod embedding {}
