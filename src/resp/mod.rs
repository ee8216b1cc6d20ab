//! Finds where requests and replies end in streams of RESP2, RESP3 and inline commands. Sans-I/O: it is handed bytes, in pieces
//! of any size, and says at which of them a request or a reply is complete.
//!
//! ```text
//! bytes to the master   -> Requests::next -> silent | ordinary | one of the few commands that change a session
//! bytes from the master -> Replies::next  -> value | error | push
//! ```
//!
//! Builds no values and allocates nothing. A payload is skipped by its length, so the cost is per element and not per byte.
//! What is not exactly the protocol as servers write it, or passes a limit, is a [`Doubt`]: said once and for ever, as
//! nothing that follows can be told apart. Redis is more tolerant at some places (it never looks at the two bytes behind a payload);
//! who sends such bytes is relayed all the same, but not understood.

pub mod command;
pub mod feed;

mod inline;
mod number;
mod reply;
mod request;
#[cfg(test)]
mod tests;

pub use reply::{Heard, Kind, Replies};
pub use request::{Ahead, Arguments, Request, Requests, Scan, Unsent};

/// Longest inline command, without its line feed: Redis' `PROTO_INLINE_MAX_SIZE`.
pub const INLINE_MAX: u64 = 64 * 1024;
/// Most elements of one request, and most elements or pairs of one aggregate of a reply: Redis' own limit for a client that
/// has authenticated, from 7.0 on. An older server refuses more than 1024 * 1024 with an error and closes. Elements are only counted here,
/// so a large number costs nothing.
pub const ELEMENTS_MAX: u64 = i32::MAX as u64;
/// Longest payload. Redis refuses what is longer than its `proto-max-bulk-len` (512 MB unless configured, any 63-bit number if so)
/// with an error and closes. Bytes are only counted here.
pub const PAYLOAD_MAX: u64 = i64::MAX as u64;
/// Most elements of one reply that may be outstanding over all levels of nesting. There is no limit of depth, as
/// there is no stack: what is left of the outermost value is one number.
pub const OUTSTANDING_MAX: u64 = 1 << 40;
/// Longest reply of one line (status, error, number). Redis' own are far shorter.
pub const LINE_MAX: u64 = 64 * 1024;

/// Why a stream is not understood any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Doubt {
    /// A length or count is not a number as Redis writes and reads it.
    Number,
    /// More elements than [`ELEMENTS_MAX`] or [`OUTSTANDING_MAX`].
    Elements,
    /// A line longer than [`INLINE_MAX`] or [`LINE_MAX`].
    Line,
    /// An element of a request is no bulk string.
    NotBulk,
    /// A payload is not followed by CR LF.
    Terminator,
    /// A CR without LF, or LF without CR, inside a line of a reply.
    LineEnd,
    /// Unbalanced quotes in an inline command: the server refuses it and closes.
    Quotes,
    /// A NUL in an inline command: the server waits for more and never finds the end of the line. Or in the name of a command,
    /// which servers read up to there.
    Nul,
    /// A reply begins with a byte that is no type.
    Type,
    /// A streamed string or aggregate, whose length is not known at its beginning.
    Streamed,
    /// A push inside another value: servers put several of them where one element was announced.
    NestedPush,
}
