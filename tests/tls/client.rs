//! A client with TLS of a test's own making, one thread, blocking.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;

use switchmaster::net::addr::Host;
use switchmaster::net::tls::{Connector, Identity, Roots, Verify};
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use super::harness::authority::Pair;
use super::harness::stream::{SOON, connect};

/// See the head of this file.
pub(crate) struct Client(pub(crate) StreamOwned<ClientConnection, TcpStream>);

/// Believes this authority, and shows this certificate.
pub(crate) fn knowing(ca: &Path, pair: Option<&Pair>) -> Connector {
    let roots = Roots::read(ca).expect("an authority");
    let identity = pair.map(|pair| Identity::read(&pair.cert, &pair.key).expect("a certificate"));
    Connector::new(&Verify::Against(roots), identity.as_ref(), None).expect("usable")
}

impl Client {
    /// Through with the handshake.
    pub(crate) fn connect(to: SocketAddr, connector: &Connector) -> io::Result<Self> {
        Self::over(connect(to), connector)
    }

    /// The same over this connection.
    pub(crate) fn over(mut stream: TcpStream, connector: &Connector) -> io::Result<Self> {
        let host = Host::Ip(stream.peer_addr()?.ip());
        let mut session = connector.session(&host).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(Self(StreamOwned::new(session, stream)))
    }

    /// Says this, and hears so many bytes.
    pub(crate) fn exchange(&mut self, said: &[u8], bytes: usize) -> io::Result<Vec<u8>> {
        self.0.write_all(said)?;
        self.0.flush()?;
        let mut heard = vec![0; bytes];
        self.0.read_exact(&mut heard)?;
        Ok(heard)
    }

    /// What comes back is what was said.
    pub(crate) fn echoes(&mut self, said: &[u8]) {
        let heard = self.exchange(said, said.len()).expect("an echo");
        assert_eq!(heard, said);
    }

    /// The certificate that the proxy has shown.
    pub(crate) fn shown(&self) -> Vec<u8> {
        let certificates = self.0.conn.peer_certificates().expect("through");
        certificates[0].to_vec()
    }

    /// Says that it will say no more, and hears on.
    pub(crate) fn half_close(&mut self) {
        self.0.conn.send_close_notify();
        self.0.flush().expect("taken");
        self.0.sock.shutdown(Shutdown::Write).expect("connected");
    }

    /// All that comes until the end.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        self.0.read_to_end(&mut all).expect("to its end");
        all
    }
}

/// Waits until the other side has closed, and gives what it said before.
pub(crate) fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(SOON)).expect("an option");
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return all,
            Err(e) => panic!("it is still open: {e}"),
        }
    }
}
