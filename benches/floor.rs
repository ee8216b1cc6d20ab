//! The reference floor: a relay to one address with no feature at all, in the fastest form that is known here, so
//! that `scripts/bench` shows the price of everything switchmaster adds as a ratio within one run.
//!
//! `floor LISTEN UPSTREAM`, as in `floor 127.0.0.1:7000 127.0.0.1:6379`. One thread, one task a pair of connections,
//! one buffer of 32 KiB for all; what is read is written at once, and only what the peer does not take is copied
//! aside. Both directions end on their own. It checks nothing, counts nothing and knows no failover: never use it.
//!
//! An example to cargo, not a bench: building a bench rebuilds the program with the features of the test
//! dependencies, and it is the program of a plain release build that is measured.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// 16 KiB splits a value of 16 KiB in two; exactly 64 KiB costs twice the processor time of 32 KiB.
const BUFFER_SIZE: usize = 32 * 1024;
/// Connections the kernel keeps until they are accepted, as many as the program asks for.
const BACKLOG: i32 = 4096;
/// Without descriptors `accept(2)` fails at once; it would fail as often as it is asked.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER_SIZE].into_boxed_slice());
}

/// One direction.
#[derive(Default)]
struct Leg {
    spill: Vec<u8>,
    taken: usize,
    source_ended: bool,
    ended: bool,
}

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (address(args.next()), address(args.next())) else {
        return Err(io::Error::other("floor LISTEN UPSTREAM, both IP:port"));
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(serve(listen, upstream))
}

// It ends with its process: nothing has to be waited for.
#[expect(clippy::disallowed_methods)]
async fn serve(listen: SocketAddr, upstream: SocketAddr) -> io::Result<()> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(listen),
        socket2::Type::STREAM,
        None,
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it, which saves a system call each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(relay(client, upstream))),
            Err(error) => {
                eprintln!("accept: {error}");
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

async fn relay(mut client: TcpStream, upstream: SocketAddr) -> io::Result<()> {
    let mut upstream = TcpStream::connect(upstream).await?;
    upstream.set_nodelay(true)?;
    let (mut up, mut down) = (Leg::default(), Leg::default());
    poll_fn(|cx| {
        BUFFER.with_borrow_mut(|buffer| {
            let up = up.pump(cx, &mut client, &mut upstream, buffer)?;
            let down = down.pump(cx, &mut upstream, &mut client, buffer)?;
            if up.is_ready() && down.is_ready() {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        })
    })
    .await
}

impl Leg {
    /// Moves what can be moved; ready when the end was passed on. The runtime's own budget lets others have their turn.
    fn pump(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        buffer: &mut [u8],
    ) -> Poll<io::Result<()>> {
        while !self.ended {
            if self.taken < self.spill.len() {
                self.taken += ready!(Pin::new(&mut *to).poll_write(cx, &self.spill[self.taken..]))?;
                if self.taken == self.spill.len() {
                    // Gives the memory back: an idle pair owns no buffer.
                    (self.spill, self.taken) = (Vec::new(), 0);
                }
            } else if self.source_ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.ended = true;
            } else {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
                let bytes = read.filled();
                if bytes.is_empty() {
                    self.source_ended = true;
                    continue;
                }
                let sent = match Pin::new(&mut *to).poll_write(cx, bytes) {
                    Poll::Ready(sent) => sent?,
                    Poll::Pending => 0,
                };
                if sent < bytes.len() {
                    self.spill.extend_from_slice(&bytes[sent..]);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn address(text: Option<String>) -> Option<SocketAddr> {
    text?.parse().ok()
}
