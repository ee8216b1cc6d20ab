//! The one request that may be sent again (`resend_reads`): a read of which nothing was heard, alone in flight. Whether its
//! master executed it or not, nobody can tell from what it does on another.
//!
//! Kept as it was written, and only if it was written in one piece, which a request of this size is.

use zeroize::Zeroize;

use super::Tracker;
use crate::resp::{Request, Requests, Scan};

/// Longest request that is kept.
const REQUEST_MAX: usize = 1024;

/// What may be sent again: commands that a server flags `readonly`, and neither `blocking`, `noscript` nor `may_replicate`,
/// and whose reply depends on the data and their arguments alone, but for the order of sets and the time that is left
/// (`COMMAND INFO` and its tips, Redis 7.0; a test holds each of them against a server). So no scripts, no cursors, which are one server's
/// own, nothing random, nothing about the server; nor what has been forbidden more often than used: KEYS. Sorted.
pub const READS: &[&str] = &[
    "BITCOUNT",
    "BITFIELD_RO",
    "BITPOS",
    "EXISTS",
    "EXPIRETIME",
    "GEODIST",
    "GEOHASH",
    "GEOPOS",
    "GEOSEARCH",
    "GET",
    "GETBIT",
    "GETRANGE",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HSTRLEN",
    "HVALS",
    "LCS",
    "LINDEX",
    "LLEN",
    "LPOS",
    "LRANGE",
    "MGET",
    "PEXPIRETIME",
    "PTTL",
    "SCARD",
    "SDIFF",
    "SINTER",
    "SINTERCARD",
    "SISMEMBER",
    "SMEMBERS",
    "SMISMEMBER",
    "STRLEN",
    "SUBSTR",
    "SUNION",
    "TTL",
    "TYPE",
    "XLEN",
    "XRANGE",
    "XREVRANGE",
    "ZCARD",
    "ZCOUNT",
    "ZDIFF",
    "ZINTER",
    "ZINTERCARD",
    "ZLEXCOUNT",
    "ZMSCORE",
    "ZRANGE",
    "ZRANGEBYLEX",
    "ZRANGEBYSCORE",
    "ZRANK",
    "ZREVRANGE",
    "ZREVRANGEBYLEX",
    "ZREVRANGEBYSCORE",
    "ZREVRANK",
    "ZSCORE",
    "ZUNION",
];

/// The last request that was written, if it may be sent again.
#[derive(Default)]
pub(super) struct Repeat {
    /// Empty if it may not.
    request: Vec<u8>,
    /// It was taken back, and not sent since.
    taken: bool,
    /// It was sent before: once more it is not.
    again: bool,
}

impl std::fmt::Debug for Repeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repeat({} bytes)", self.request.len())
    }
}

impl Drop for Repeat {
    fn drop(&mut self) {
        self.request.zeroize();
    }
}

impl Repeat {
    /// These bytes are being written; `alone` = nothing is in flight, and they begin at a request.
    fn written(&mut self, bytes: &[u8], alone: bool) {
        // It keeps its room, which is small, for the next one.
        self.request.zeroize();
        self.again = std::mem::take(&mut self.taken);
        if alone && bytes.len() <= REQUEST_MAX && is_one_read(bytes) {
            self.request.extend_from_slice(bytes);
        }
    }
}

impl Tracker {
    /// True when the only thing that keeps this session from being carried over is a read of which nothing was heard, which may be
    /// asked again.
    pub fn is_repeatable(&self) -> bool {
        let Some(repeat) = &self.repeat else {
            return false;
        };
        let kept = !repeat.request.is_empty() && !repeat.again;
        // It was written when nothing was in flight: what is, is it.
        kept && self.pending.in_flight() == 1 && self.obstacle().is_none()
    }

    /// The request that is in flight, to be sent on the next connection. Only after [`is_repeatable`](Self::is_repeatable) said so.
    pub fn take_back(&mut self) -> Vec<u8> {
        debug_assert!(self.is_repeatable());
        self.pending = super::Pending::new();
        match &mut self.repeat {
            Some(repeat) => {
                repeat.taken = true;
                std::mem::take(&mut repeat.request)
            }
            None => Vec::new(),
        }
    }

    /// A request was taken back, and not sent since: its first sending may have had an effect on nobody, but it cannot be said that it
    /// was not executed.
    pub fn is_repeating(&self) -> bool {
        self.repeat.as_ref().is_some_and(|repeat| repeat.taken)
    }

    /// To be called before these bytes are looked at.
    pub(super) fn keep_for_repeat(&mut self, bytes: &[u8]) {
        let alone = self.pending.in_flight() == 0 && self.requests.at_boundary();
        if let Some(repeat) = self.repeat.as_mut().filter(|_| !bytes.is_empty()) {
            repeat.written(bytes, alone);
        }
    }
}

/// The whole of it is one request, in its array form, with a name from the list.
fn is_one_read(bytes: &[u8]) -> bool {
    let whole = Requests::new().next(bytes, &mut ());
    let ordinary = Scan::Ended {
        used: bytes.len(),
        request: Request::Ordinary,
    };
    if whole != Ok(ordinary) || !bytes.starts_with(b"*") {
        return false;
    }
    // The count, the length, the name; no name on the list has a line feed.
    let name = bytes.split(|byte| *byte == b'\n').nth(2);
    let Some(name) = name.and_then(|line| line.strip_suffix(b"\r")) else {
        return false;
    };
    let upper = || name.iter().map(u8::to_ascii_uppercase);
    READS
        .binary_search_by(|read| read.bytes().cmp(upper()))
        .is_ok()
}
