//! How to use this crate: a page for each question. This module holds documentation only.
//!
//! * [`choosing`]: which way to run blocking code
//! * [`cancelling`]: the effect of dropping a handle, and how blocking code learns that nobody wants its result
//! * [`panics`]: where a panic is resumed or reported
//! * [`closing`]: how pools, iterables, channels and loops end
//! * [`blocking`]: which calls block their thread, and the consequences
//! * [`context`]: values that code can read without getting them as arguments
//! * [`executors`]: using this crate with tokio, smol, or any other executor
//! * [`asyncio`]: for users of Python's asyncio and aiomisc
//! * [`embedding`]: using this crate in a library
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
