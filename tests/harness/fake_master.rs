//! A master that says of its role what the test wants, and that is a raw end of bytes for everyone else.
//!
//! A connection whose first byte is `*` is taken for the proxy's own (ROLE, PING, AUTH, HELLO); every
//! other one carries the test's bytes, and what arrives on it is recorded. So a test's own bytes must
//! not begin with `*`.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use switchmaster::net::clock::{Moment, now};

use super::pattern;
use super::wire::{Reply, read_command};

/// What the node says when asked for its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `master`
    Master,
    /// `slave` of somebody.
    Replica,
    /// `-NOAUTH`: it wants a login first.
    NoAuth,
    /// `-LOADING`
    Loading,
    /// Connected, and not a word.
    Mute,
}

/// What becomes of the bytes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// They come back.
    Echo,
    /// They vanish.
    Sink,
    /// They are held against the pattern while as many bytes of it are sent back; then each side ends.
    Exchange(u64),
    /// After the first byte so many bytes of the pattern are sent; then nothing.
    Source(u64),
    /// The answer to everything read up to the client's end: the number of bytes, as text.
    CountUntilEnd,
}

/// What one client connection brought.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// When it was accepted.
    pub(crate) opened: Moment,
    /// Bytes received.
    pub(crate) bytes: u64,
    /// When the last of them arrived.
    pub(crate) last_byte: Option<Moment>,
    /// The peer sent its end (or reset).
    pub(crate) ended: bool,
    /// All bytes so far were those of the pattern (checked by `Exchange` only).
    pub(crate) matches: bool,
}

/// A scripted master on 127.0.0.1; ends with the value.
#[derive(Debug)]
pub(crate) struct FakeMaster {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bytes: Bytes,
    role: Mutex<Role>,
    records: Mutex<Vec<Record>>,
    streams: Mutex<Vec<TcpStream>>,
    /// Connections of the proxy itself: now, and the most there ever were at once.
    controls: Mutex<(usize, usize)>,
    ended: AtomicBool,
}

impl FakeMaster {
    /// Listens on a free port and says it is a master.
    pub(crate) fn start(bytes: Bytes) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), bytes)
    }

    /// The same at this address.
    pub(crate) fn start_at(at: SocketAddr, bytes: Bytes) -> Self {
        let listener = TcpListener::bind(at).expect("a master's port");
        let addr = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            bytes,
            role: Mutex::new(Role::Master),
            records: Mutex::default(),
            streams: Mutex::default(),
            controls: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.ended.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(kept) = stream.try_clone() {
                    locked(&serving.streams).push(kept);
                }
                let shared = Arc::clone(&serving);
                // A peer that is gone is what many tests are about; the record says so.
                thread::spawn(move || drop(shared.serve(&stream)));
            }
        });
        Self { addr, shared }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what it says of its role, on open connections as well.
    pub(crate) fn set_role(&self, role: Role) {
        *locked(&self.shared.role) = role;
    }

    /// The most connections of the proxy itself that were open at once.
    pub(crate) fn most_controls(&self) -> usize {
        locked(&self.shared.controls).1
    }

    /// Bytes of clients so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.records().iter().map(|record| record.bytes).sum()
    }

    /// What clients brought so far, in the order of their connections.
    pub(crate) fn records(&self) -> Vec<Record> {
        locked(&self.shared.records).clone()
    }
}

impl Drop for FakeMaster {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        for stream in locked(&self.shared.streams).iter() {
            drop(stream.shutdown(Shutdown::Both));
        }
        // Wakes the accepting thread, which then lets go of the port.
        drop(TcpStream::connect(self.addr));
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let opened = now();
        let mut first = [0];
        // A connection without a byte is nobody's yet; its record begins with its first byte or its end.
        let seen = stream.peek(&mut first).unwrap_or(0);
        if seen == 1 && first[0] == b'*' {
            {
                let mut controls = locked(&self.controls);
                controls.0 += 1;
                controls.1 = controls.1.max(controls.0);
            }
            let outcome = self.control(stream);
            locked(&self.controls).0 -= 1;
            return outcome;
        }
        let index = {
            let mut records = locked(&self.records);
            records.push(Record {
                opened,
                bytes: 0,
                last_byte: None,
                ended: false,
                matches: true,
            });
            records.len() - 1
        };
        let outcome = self.raw(stream, index);
        locked(&self.records)[index].ended = true;
        outcome
    }

    fn control(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reading = BufReader::new(stream);
        while let Some(words) = read_command(&mut reading)? {
            let role = *locked(&self.role);
            let reply = match (words[0].to_ascii_uppercase().as_str(), role) {
                (_, Role::Mute) => continue,
                ("AUTH" | "CLIENT", _) => Reply::Simple("OK"),
                ("HELLO", _) => Reply::Error("ERR unknown command 'HELLO'".to_owned()),
                (_, Role::NoAuth) => Reply::Error("NOAUTH Authentication required.".to_owned()),
                (_, Role::Loading) => {
                    Reply::Error("LOADING Redis is loading the dataset in memory".to_owned())
                }
                ("PING", _) => Reply::Simple("PONG"),
                ("ROLE", Role::Master) => Reply::Array(vec![
                    Reply::bulk("master"),
                    Reply::Integer(0),
                    Reply::Array(Vec::new()),
                ]),
                ("ROLE", Role::Replica) => Reply::Array(vec![
                    Reply::bulk("slave"),
                    Reply::bulk("127.0.0.1"),
                    Reply::Integer(1),
                    Reply::bulk("connected"),
                    Reply::Integer(0),
                ]),
                _ => Reply::Error(format!("ERR unknown command '{}'", words[0])),
            };
            (&*stream).write_all(&reply.encode(false))?;
        }
        Ok(())
    }

    fn raw(&self, stream: &TcpStream, index: usize) -> std::io::Result<()> {
        match self.bytes {
            Bytes::Echo => self.read_all(stream, index, |chunk| (&*stream).write_all(chunk)),
            Bytes::Sink => self.read_all(stream, index, |_| Ok(())),
            Bytes::CountUntilEnd => {
                self.read_all(stream, index, |_| Ok(()))?;
                let total = locked(&self.records)[index].bytes;
                (&*stream).write_all(total.to_string().as_bytes())?;
                stream.shutdown(Shutdown::Write)
            }
            Bytes::Source(len) => {
                let mut wrote = false;
                self.read_all(stream, index, |_| {
                    if std::mem::replace(&mut wrote, true) {
                        return Ok(());
                    }
                    pattern::write(stream, len)
                })
            }
            Bytes::Exchange(len) => thread::scope(|scope| {
                let sending = scope.spawn(move || {
                    pattern::write(stream, len)?;
                    stream.shutdown(Shutdown::Write)
                });
                let mut check = pattern::Check::default();
                let received = self.read_all(stream, index, |chunk| {
                    if !check.accept(chunk) {
                        locked(&self.records)[index].matches = false;
                    }
                    Ok(())
                });
                let sent = sending.join().expect("the sending half does not panic");
                received.and(sent)
            }),
        }
    }

    fn read_all(
        &self,
        mut stream: &TcpStream,
        index: usize,
        mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; 64 * 1024 - 1];
        loop {
            let n = match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            {
                let record = &mut locked(&self.records)[index];
                record.bytes += n as u64;
                record.last_byte = Some(now());
            }
            each(&buffer[..n])?;
        }
    }
}

/// A panicking test must not hide its reason behind a poisoned lock.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
