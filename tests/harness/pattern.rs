//! An endless stream of bytes in which every shift, loss and repetition shows, cheap to make and to check.
//!
//! A block of pseudo-random bytes, repeated. Its length is prime, so that no buffer size divides it.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::LazyLock;

const BLOCK: usize = 1_048_583;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(0x5eed);
    (0..BLOCK).map(|_| random.u8(..)).collect()
});

/// Writes the first `len` bytes of the stream.
pub(crate) fn write(mut to: &TcpStream, len: u64) -> io::Result<()> {
    let mut left = len;
    while left > 0 {
        let n = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        to.write_all(&BYTES[..n])?;
        left -= n as u64;
    }
    Ok(())
}

/// Holds what arrives, in any pieces, against the stream.
#[derive(Debug, Default)]
pub(crate) struct Check {
    seen: u64,
}

impl Check {
    /// True when these are the next bytes of the stream.
    pub(crate) fn accept(&mut self, mut chunk: &[u8]) -> bool {
        while !chunk.is_empty() {
            let at = usize::try_from(self.seen % BLOCK as u64).expect("less than a block");
            let n = chunk.len().min(BLOCK - at);
            if chunk[..n] != BYTES[at..at + n] {
                return false;
            }
            self.seen += n as u64;
            chunk = &chunk[n..];
        }
        true
    }

    /// Bytes accepted.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }
}
