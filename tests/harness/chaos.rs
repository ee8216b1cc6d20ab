//! A TCP relay in this process that can become a black hole: connections stay, bytes do not pass.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How soon a pump notices that the relay's mode changed while its peer is silent.
const TICK: Duration = Duration::from_millis(5);

/// A relay on 127.0.0.1 to one address; ends with the value.
#[derive(Debug)]
pub(crate) struct ChaosRelay {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    black_hole: AtomicBool,
    ended: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl ChaosRelay {
    /// Listens on a free port and relays to `to`.
    pub(crate) fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            to,
            black_hole: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if serving.ended.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&serving);
                // A far end that cannot be reached closes the near one, as a relay does.
                thread::spawn(move || drop(shared.join(near)));
            }
        });
        Self { addr, shared }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on bytes wait (those of new connections too), until called with `false`.
    pub(crate) fn black_hole(&self, on: bool) {
        self.shared.black_hole.store(on, Ordering::Release);
    }
}

impl Drop for ChaosRelay {
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
    fn join(self: &Arc<Self>, near: TcpStream) -> std::io::Result<()> {
        let far = TcpStream::connect(self.to)?;
        for stream in [&near, &far] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TICK))?;
            self.streams
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(stream.try_clone()?);
        }
        let back = (far.try_clone()?, near.try_clone()?);
        let shared = Arc::clone(self);
        thread::spawn(move || drop(shared.pump(&back.0, &back.1)));
        self.pump(&near, &far)
    }

    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream) -> std::io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if self.ended.load(Ordering::Acquire) {
                return Ok(());
            }
            let n = match from.read(&mut buffer) {
                Ok(n) => n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    continue;
                }
                Err(e) => {
                    drop(to.shutdown(Shutdown::Both));
                    return Err(e);
                }
            };
            while self.black_hole.load(Ordering::Acquire) && !self.ended.load(Ordering::Acquire) {
                thread::sleep(TICK);
            }
            if n == 0 {
                return to.shutdown(Shutdown::Write);
            }
            to.write_all(&buffer[..n])?;
        }
    }
}
