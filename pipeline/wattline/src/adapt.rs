//! Fills the ports of `wattline-runtime` with the decoder, the rules, Kafka, files and Delta.
//!
//! The libraries do not see each other; this is where they meet. Nothing here decides anything: each adapter
//! turns one vocabulary into another.

pub(crate) mod archive;
#[cfg(debug_assertions)]
pub(crate) mod crash_points;
pub(crate) mod decoder;
pub(crate) mod exchange;
pub(crate) mod plans;
pub(crate) mod program;
pub(crate) mod references;
pub(crate) mod registry;
#[cfg(debug_assertions)]
pub(crate) mod set_clock;
pub(crate) mod sink;
pub(crate) mod source;

use wattline_core::error::{Kind, Retry};
use wattline_runtime::Error;

/// Carries an error of a component through a port.
pub(crate) fn port_error(error: wattline_connect::Error) -> Error {
    Error::Port { what: error.to_string(), kind: error.kind(), retry: error.retry(), source: Box::new(error) }
}

/// An error of this crate's own making.
pub(crate) fn invalid(what: String) -> Error {
    Error::Port { source: what.clone().into(), what, kind: Kind::Invalid, retry: Retry::Never }
}
