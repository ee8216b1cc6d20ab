//! What clients and masters say in these tests, byte by byte.

use super::*;

pub(super) const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
pub(super) const PONG: &[u8] = b"+PONG\r\n";
pub(super) const SELECT: &[u8] = b"*2\r\n$6\r\nSELECT\r\n$1\r\n4\r\n";
pub(super) const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
pub(super) const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
pub(super) const QUEUED: &[u8] = b"+QUEUED\r\n";
pub(super) const OK: &[u8] = b"+OK\r\n";
pub(super) const ROLE: &[u8] = b"*1\r\n$4\r\nROLE\r\n";
pub(super) const MASTER: &[u8] = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";

/// One says this, and the other hears it.
pub(super) fn says(from: &mut TcpStream, to: &mut TcpStream, words: &[u8]) {
    from.write_all(words).expect("write");
    assert_eq!(read(to, words.len()), words);
}

/// The client asks this, the master hears it and answers that.
pub(super) fn exchange(
    client: &mut TcpStream,
    master: &mut TcpStream,
    request: &[u8],
    reply: &[u8],
) {
    says(client, master, request);
    says(master, client, reply);
}

/// A pool with sessions that outlive a switch, which serves generation 1 at `upstream`.
pub(super) fn moving(upstream: &TcpListener) -> Rig {
    let options = Options {
        moves: true,
        ..Options::default()
    };
    let mut rig = Rig::with(LONG, options);
    rig.serve(1, upstream);
    rig
}
