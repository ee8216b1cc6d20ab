//! Clients that speak no protocol: raw bytes to the proxy, with deadlines.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;

/// Deadline of everything that should take some milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A client whose reads have a deadline.
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the proxy listens");
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    stream
}

/// An address of 127.0.0.1 where nothing listened a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

/// Writes the bytes and gives what comes back for them.
pub(crate) fn echoed(client: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    client.write_all(bytes).expect("written");
    let mut back = vec![0; bytes.len()];
    client.read_exact(&mut back).expect("echoed");
    back
}

/// What is left on the connection; a reset ends it as well.
pub(crate) fn read_to_end(client: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    match client.read_to_end(&mut rest) {
        Ok(_) => rest,
        Err(e) if e.kind() == ErrorKind::ConnectionReset => rest,
        Err(e) => panic!("the connection does not end: {e}"),
    }
}

/// Goes away with a reset: at once, and without a port in TIME_WAIT behind the proxy.
pub(crate) fn reset(client: TcpStream) {
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .expect("a socket");
}

/// Open, and not a byte.
pub(crate) fn assert_silent(client: &mut TcpStream, time: Duration) {
    client.set_read_timeout(Some(time)).expect("a socket");
    match client.read(&mut [0]) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
        Ok(0) => panic!("closed instead of held"),
        other => panic!("held clients hear nothing: {other:?}"),
    }
}
