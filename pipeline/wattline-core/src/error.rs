//! How every error of wattline answers the two questions its caller asks: whose fault, and try again?
//!
//! Each library crate has one `Error` enum; each of its variants maps to one [`Kind`] and one [`Retry`]
//! by an exhaustive match. The runtime acts on these two answers and never on the text of a message.

/// Whose move an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The user's configuration, rule or command is wrong; the message says what to write.
    Invalid,
    /// The data is not what its schema promises.
    Data,
    /// Something outside (broker, object store, disk) does not answer or refuses for now.
    Unavailable,
    /// Another process owns what this one wanted to write; this one must let go.
    Fenced,
    /// A stated limit (memory, queue, file handles, disk space) is reached.
    Exhausted,
    /// A bug in wattline.
    Internal,
}

/// What the caller may do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same call will fail again.
    Never,
    /// The same call may succeed later; wait between tries.
    Backoff,
    /// The process must first re-read its committed state, then may go on.
    AfterRestore,
}
