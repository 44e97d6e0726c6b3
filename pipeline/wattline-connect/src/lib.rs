//! The edge of wattline: the only crate that talks to the world.
//!
//! Sources hand over raw records in blocks per lane ([`source::SourceEvent`]) and never decode; sinks take
//! finished bytes and batches and never plan. Whatever the outside does (broker gone, topic recreated, file
//! corrupt, disk full) arrives as an event or as an [`Error`] that says whose move it is.
//!
//! Sources and publishers block: each is driven by a thread of its own, so that a slow broker stops only that
//! thread. The [`store`] and the [`archive`] on it are async, because a tick waits for many of their objects at once.

pub mod archive;
pub mod backup;
pub mod embedded;
pub mod error;
pub mod files;
pub mod kafka;
pub mod reference;
pub mod schema_registry;
pub mod source;
pub mod store;

pub use error::{Error, Result};
