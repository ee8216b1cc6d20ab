//! A peer that breaks the protocol: it takes connections and does on each what no server does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Nested arrays in one reply; a reader that recurses once for each has no stack left.
const DEPTH: usize = 200_000;
/// One write of a stream without end.
const CHUNK: usize = 64 * 1024;

/// What it does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Takes the connection and says nothing.
    Mute,
    /// Closes it at once.
    HangUp,
    /// Answers everything with these bytes.
    Says(&'static str),
    /// Answers each time with an error that repeats what it was told.
    Echoes,
    /// Answers with a line that does not end.
    EndlessLine,
    /// Answers with a bulk string of many gigabytes, and sends it.
    EndlessBulk,
    /// Answers with an array in an array in an array.
    Nested,
    /// Answers every question with `OK`, and sends events nobody asked for without end.
    EndlessEvents,
}

impl Manner {
    /// Every way to misbehave.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Mute,
        Self::HangUp,
        Self::Says("+OK\r\n"),
        Self::Says("+OK\r\n+OK\r\n+OK\r\n+OK\r\n"),
        Self::Says("-ERR unknown command\r\n"),
        Self::Says("-DENIED Redis is running in protected mode\r\n"),
        Self::Says("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
        Self::Says("$9999999999\r\n"),
        Self::Says("$-9\r\n"),
        Self::Says("*2147483647\r\n"),
        Self::Says("%2147483647\r\n"),
        Self::Says("*-1\r\n"),
        Self::Says(":99999999999999999999999\r\n"),
        Self::Says("\0\u{1b}[2J\r\n"),
        Self::Says("\r\n\r\n"),
        Self::EndlessLine,
        Self::EndlessBulk,
        Self::Nested,
        Self::EndlessEvents,
    ];
}

/// A listener on 127.0.0.1 with bad manners; ends with the value.
#[derive(Debug)]
pub(crate) struct Rogue {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    manner: Manner,
    taken: AtomicUsize,
    ended: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Rogue {
    /// Listens on a free port.
    pub(crate) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            manner,
            taken: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.ended.load(Ordering::Acquire) {
                    return;
                }
                serving.taken.fetch_add(1, Ordering::AcqRel);
                if let Ok(kept) = stream.try_clone() {
                    serving
                        .streams
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(kept);
                }
                let shared = Arc::clone(&serving);
                // The peer turns its back on this one, which is what the tests are about.
                thread::spawn(move || drop(shared.misbehave(&stream)));
            }
        });
        Self { addr, shared }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections so far.
    pub(crate) fn taken(&self) -> usize {
        self.shared.taken.load(Ordering::Acquire)
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        let streams = self
            .shared
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for stream in streams.iter() {
            drop(stream.shutdown(Shutdown::Both));
        }
        drop(TcpStream::connect(self.addr));
    }
}

impl Shared {
    fn misbehave(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        if self.manner == Manner::HangUp {
            return stream.shutdown(Shutdown::Both);
        }
        let mut buffer = [0; 4096];
        loop {
            let read = match stream.read(&mut buffer) {
                Ok(0) => return stream.shutdown(Shutdown::Both),
                Ok(read) => read,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            match self.manner {
                Manner::Mute | Manner::HangUp => {}
                Manner::Says(what) => stream.write_all(what.as_bytes())?,
                Manner::Echoes => {
                    let told = String::from_utf8_lossy(&buffer[..read]).replace(['\r', '\n'], " ");
                    stream.write_all(format!("-ERR what is {told}\r\n").as_bytes())?;
                }
                Manner::EndlessLine => {
                    stream.write_all(b"+")?;
                    return forever(stream, &[b'x'; CHUNK]);
                }
                Manner::EndlessBulk => {
                    stream.write_all(b"$99999999999\r\n")?;
                    return forever(stream, &[b'x'; CHUNK]);
                }
                Manner::Nested => stream.write_all(&b"*1\r\n".repeat(DEPTH))?,
                Manner::EndlessEvents => {
                    stream.write_all(&b"+OK\r\n".repeat(8))?;
                    let event = b">3\r\n$7\r\nmessage\r\n$6\r\n+odown\r\n$27\r\nmaster mymaster 127.0.0.1 1\r\n";
                    return forever(stream, &event.repeat(500));
                }
            }
        }
    }
}

/// Until the peer has had enough.
fn forever(mut stream: &TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    loop {
        stream.write_all(bytes)?;
    }
}
