//! A small blocking Redis client: connect, send a command, read one RESP2 reply, all within a time.
//!
//! For the local topology, its writers and the tests. It never guesses, never retries, and believes no
//! length a peer announces: the proxy's own conversations live in `sentinel::client`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use crate::net::addr::Host;
use crate::net::clock::{Moment, now};
use crate::net::tls::Connector;

/// Longest line (status, error, length) that is read.
pub const LINE_MAX: usize = 64 * 1024;
/// Longest bulk string that is read.
pub const BULK_MAX: usize = 64 * 1024 * 1024;
/// Deepest nesting of arrays that is read.
pub const DEPTH_MAX: usize = 8;
/// Most elements of one array that are read.
pub const ARRAY_MAX: usize = 1024 * 1024;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `+...`
    Simple(String),
    /// `-...`: an answer too, not a failure of the conversation.
    Error(String),
    /// `:...`
    Int(i64),
    /// `$...`
    Bulk(Vec<u8>),
    /// `$-1` or `*-1`
    Nil,
    /// `*...`
    Array(Vec<Self>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No connection: nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The time for the whole exchange is over; whether the command was executed is unknown.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The peer closed; whether the command was executed is unknown.
    #[error("the connection was closed")]
    Closed,
    /// The connection failed; whether the command was executed is unknown.
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
    /// The answer is not RESP2, or larger than the limits of this file.
    #[error("not a readable answer: {0}")]
    Malformed(&'static str),
}

/// How every connection is made, where the whole topology is one with TLS.
static TLS: OnceLock<Connector> = OnceLock::new();

/// From now on every connection of this process has TLS; for tests, which ask servers and the proxy itself in a hundred places. The
/// first who says so says it for all.
pub fn connect_with_tls(connector: Connector) {
    TLS.get_or_init(|| connector);
}

/// One kept connection.
#[derive(Debug)]
pub struct Conn {
    stream: BufReader<Wire>,
    timeout: Duration,
}

impl Conn {
    /// Connects; `timeout` holds for this and for every later exchange.
    ///
    /// # Errors
    /// [`WireError::Connect`] when the peer cannot be reached in time.
    pub fn connect(addr: SocketAddr, timeout: Duration) -> Result<Self, WireError> {
        let stream = TcpStream::connect_timeout(&addr, timeout).map_err(WireError::Connect)?;
        stream.set_nodelay(true).map_err(WireError::Connect)?;
        let stream = match TLS.get() {
            None => Wire::Plain(stream),
            Some(connector) => {
                let session = connector.session(&Host::Ip(addr.ip()));
                let session = session.map_err(|e| WireError::Connect(io::Error::other(e)))?;
                Wire::Sealed(Box::new(StreamOwned::new(session, stream)))
            }
        };
        Ok(Self {
            stream: BufReader::new(stream),
            timeout,
        })
    }

    /// Changes the time of every later exchange.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sends one command and reads its reply.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`read`](Self::read). An error *reply* is `Ok(Value::Error)`.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Value, WireError> {
        self.send(args)?;
        self.read()
    }

    /// Sends one command as an array of bulk strings, without waiting for its reply.
    ///
    /// # Errors
    /// [`WireError::Io`] or [`WireError::Timeout`]; part of the command may have been sent.
    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<(), WireError> {
        let mut out = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            let arg = arg.as_ref();
            out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            out.extend_from_slice(arg);
            out.extend_from_slice(b"\r\n");
        }
        let stream = self.stream.get_mut();
        // With TLS the handshake may still be due, and it is read for, too.
        let limit = Some(self.timeout);
        stream
            .socket()
            .set_write_timeout(limit)
            .and_then(|()| stream.socket().set_read_timeout(limit))
            .and_then(|()| stream.write_all(&out))
            .and_then(|()| stream.flush())
            .map_err(|e| failure(e, self.timeout))
    }

    /// Whether something can be read `within` that time. Nothing is taken off the connection.
    ///
    /// # Errors
    /// [`WireError::Closed`] or [`WireError::Io`] when nothing will ever come.
    pub fn readable(&mut self, within: Duration) -> Result<bool, WireError> {
        match self.fill(now() + within) {
            Ok(_) => Ok(true),
            Err(WireError::Timeout(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Reads one reply.
    ///
    /// # Errors
    /// [`WireError::Timeout`], [`WireError::Closed`], [`WireError::Io`], or [`WireError::Malformed`]; after
    /// any of them the connection is of no further use.
    pub fn read(&mut self) -> Result<Value, WireError> {
        let deadline = now() + self.timeout;
        self.value(deadline, 0)
    }

    fn value(&mut self, deadline: Moment, depth: usize) -> Result<Value, WireError> {
        if depth > DEPTH_MAX {
            return Err(WireError::Malformed("nested too deeply"));
        }
        let line = self.line(deadline)?;
        let Some((kind, rest)) = line.split_first() else {
            return Err(WireError::Malformed("an empty line"));
        };
        let text = || String::from_utf8_lossy(rest).into_owned();
        match kind {
            b'+' => Ok(Value::Simple(text())),
            b'-' => Ok(Value::Error(text())),
            b':' => number(rest).map(Value::Int),
            b'$' => match length(rest, BULK_MAX)? {
                None => Ok(Value::Nil),
                Some(n) => self.bulk(n, deadline).map(Value::Bulk),
            },
            b'*' => match length(rest, ARRAY_MAX)? {
                None => Ok(Value::Nil),
                // Collected one by one: memory follows what arrives, not what was announced.
                Some(n) => (0..n)
                    .map(|_| self.value(deadline, depth + 1))
                    .collect::<Result<_, _>>()
                    .map(Value::Array),
            },
            _ => Err(WireError::Malformed("an unknown type byte")),
        }
    }

    fn line(&mut self, deadline: Moment) -> Result<Vec<u8>, WireError> {
        let mut line = Vec::new();
        loop {
            let buffered = self.fill(deadline)?;
            let end = buffered.iter().position(|b| *b == b'\n');
            let taken = end.map_or(buffered.len(), |i| i + 1);
            line.extend_from_slice(&buffered[..taken]);
            self.stream.consume(taken);
            if line.len() > LINE_MAX {
                return Err(WireError::Malformed("a line longer than 64 KiB"));
            }
            if end.is_some() {
                line.truncate(
                    line.strip_suffix(b"\r\n")
                        .map_or(line.len() - 1, <[u8]>::len),
                );
                return Ok(line);
            }
        }
    }

    fn bulk(&mut self, len: usize, deadline: Moment) -> Result<Vec<u8>, WireError> {
        let mut bulk = Vec::new();
        while bulk.len() < len + 2 {
            let wanted = len + 2 - bulk.len();
            let buffered = self.fill(deadline)?;
            let taken = buffered.len().min(wanted);
            bulk.extend_from_slice(&buffered[..taken]);
            self.stream.consume(taken);
        }
        if !bulk.ends_with(b"\r\n") {
            return Err(WireError::Malformed("a bulk string without its end"));
        }
        bulk.truncate(len);
        Ok(bulk)
    }

    /// At least one byte, before the deadline.
    fn fill(&mut self, deadline: Moment) -> Result<&[u8], WireError> {
        if self.stream.buffer().is_empty() {
            let left = deadline.since(now());
            if left.is_zero() {
                return Err(WireError::Timeout(self.timeout));
            }
            let limit = self.timeout;
            self.stream
                .get_ref()
                .socket()
                .set_read_timeout(Some(left))
                .and_then(|()| fill_uninterrupted(&mut self.stream))
                .map_err(|e| failure(e, limit))?;
            if self.stream.buffer().is_empty() {
                return Err(WireError::Closed);
            }
        }
        Ok(self.stream.buffer())
    }
}

/// What bytes come and go over.
#[derive(Debug)]
enum Wire {
    Plain(TcpStream),
    Sealed(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Sealed(stream) => stream.get_ref(),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buf),
            Self::Sealed(stream) => stream.read(buf),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Sealed(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Sealed(stream) => stream.flush(),
        }
    }
}

impl Value {
    /// The text of a status, an error or a bulk string.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Simple(s) | Self::Error(s) => Some(s.clone()),
            Self::Bulk(b) => Some(String::from_utf8_lossy(b).into_owned()),
            Self::Int(i) => Some(i.to_string()),
            Self::Nil | Self::Array(_) => None,
        }
    }

    /// The elements of an array; nothing for anything else.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            _ => &[],
        }
    }

    /// The value behind `name` in an array of alternating names and values, as `SENTINEL MASTER` answers.
    pub fn field(&self, name: &str) -> Option<String> {
        self.items()
            .chunks_exact(2)
            .find(|pair| pair[0].text().as_deref() == Some(name))
            .and_then(|pair| pair[1].text())
    }

    /// Whether this is an error reply.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}

fn fill_uninterrupted(stream: &mut BufReader<Wire>) -> io::Result<()> {
    loop {
        match stream.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(_) => return Ok(()),
        }
    }
}

fn failure(e: io::Error, limit: Duration) -> WireError {
    match e.kind() {
        // A socket's receive timeout is reported as either.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => WireError::Timeout(limit),
        io::ErrorKind::UnexpectedEof => WireError::Closed,
        _ => WireError::Io(e),
    }
}

fn number(digits: &[u8]) -> Result<i64, WireError> {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|d| d.parse().ok())
        .ok_or(WireError::Malformed("not a number"))
}

fn length(digits: &[u8], max: usize) -> Result<Option<usize>, WireError> {
    match number(digits)? {
        -1 => Ok(None),
        n => usize::try_from(n)
            .ok()
            .filter(|n| *n <= max)
            .map(Some)
            .ok_or(WireError::Malformed("a length out of bounds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    const SHORT: Duration = Duration::from_millis(200);

    /// What a client reads from a peer that sends `bytes`, then closes or stays silent.
    fn answer(bytes: &[u8], close: bool) -> Result<Value, WireError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let mut conn = Conn::connect(listener.local_addr().expect("bound"), SHORT).expect("up");
        let (mut peer, _) = listener.accept().expect("the client");
        peer.write_all(bytes).expect("sent");
        let kept = (!close).then_some(peer);
        let value = conn.read();
        drop(kept);
        value
    }

    #[test]
    fn reads_every_type() {
        assert_eq!(
            answer(
                b"*6\r\n+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n*0\r\n",
                false
            )
            .expect("read"),
            Value::Array(vec![
                Value::Simple("OK".into()),
                Value::Error("ERR no".into()),
                Value::Int(-7),
                Value::Bulk(b"a\r\n".to_vec()),
                Value::Nil,
                Value::Array(vec![]),
            ])
        );
    }

    #[test]
    fn hostile_answers_are_errors() {
        for bytes in [
            &b"$99999999999\r\n"[..],
            b"$-2\r\n",
            b"*2000000\r\n",
            b":x\r\n",
            b"\r\n",
            b"?\r\n",
            b"$1\r\nabc",
            &b"*1\r\n".repeat(DEPTH_MAX + 2),
            &vec![b'+'; LINE_MAX + 2],
        ] {
            assert!(
                matches!(answer(bytes, false), Err(WireError::Malformed(_))),
                "{:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(20)])
            );
        }
    }

    #[test]
    fn a_close_and_a_silence_differ() {
        assert!(matches!(answer(b"$3\r\na", true), Err(WireError::Closed)));
        assert!(matches!(
            answer(b"$3\r\na", false),
            Err(WireError::Timeout(_))
        ));
    }

    #[test]
    fn fields_are_found_by_name() {
        let reply = Value::Array(
            ["ip", "127.0.0.1", "flags", "master"]
                .map(|s| Value::Simple(s.into()))
                .into(),
        );
        assert_eq!(reply.field("flags").as_deref(), Some("master"));
        assert_eq!(reply.field("master"), None);
    }
}
