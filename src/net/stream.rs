//! One stream type for every kind of peer, poll-based so that a session can drive two of them in one task.
//!
//! Never buffers and never decides anything; only what is encrypted has more to it than its socket, and is in a box, so that a plain
//! session does not pay for it.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, SendFlags, send};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::socket;
use super::tls::Sealed;

/// A connected byte stream, registered with the runtime of the thread that drives it.
#[derive(Debug)]
pub enum Stream {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
    /// Either of them, with TLS on it.
    Tls(Box<Sealed>),
}

/// A connected, non-blocking stream that belongs to no runtime yet, so that it can move between threads.
#[derive(Debug)]
pub enum Unregistered {
    /// A TCP connection.
    Tcp(std::net::TcpStream),
    /// A unix stream socket.
    Unix(std::os::unix::net::UnixStream),
}

/// What a stream is, for whoever gets no more than its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A TCP connection.
    Tcp,
    /// A unix stream socket.
    Unix,
}

impl Unregistered {
    /// A connected, non-blocking stream of this kind.
    pub fn of(kind: Kind, socket: OwnedFd) -> Self {
        match kind {
            Kind::Tcp => Self::Tcp(socket.into()),
            Kind::Unix => Self::Unix(socket.into()),
        }
    }

    /// What it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Tcp(_) => Kind::Tcp,
            Self::Unix(_) => Kind::Unix,
        }
    }

    /// Registers with the runtime of this thread.
    ///
    /// # Errors
    /// When the kernel refuses another watch (`epoll_ctl(2)`: ENOMEM, ENOSPC).
    pub fn register(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(s) => TcpStream::from_std(s).map(Stream::Tcp),
            Self::Unix(s) => UnixStream::from_std(s).map(Stream::Unix),
        }
    }
}

impl Stream {
    /// Leaves the runtime of this thread.
    ///
    /// # Errors
    /// When the runtime does not know the stream any more, or it has TLS on it, whose keys are in this process.
    pub fn unregister(self) -> io::Result<Unregistered> {
        match self {
            Self::Tcp(s) => s.into_std().map(Unregistered::Tcp),
            Self::Unix(s) => s.into_std().map(Unregistered::Unix),
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Reads into `buf`; ready with 0 is the end of the stream (for a `buf` that is not empty).
    ///
    /// A read that did not fill `buf` has emptied the socket: the next call is pending without a system call. Not so with TLS, where
    /// only a pending one says so.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        let done = match self {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, &mut buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, &mut buf),
            Self::Tls(s) => s.poll_read(cx, &mut buf),
        };
        done.map_ok(|()| buf.filled().len())
    }

    /// Writes some of `bytes`. What has TLS on it may have some of that left when the socket takes no more: see
    /// [`poll_flush`](Self::poll_flush).
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Unix(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Tls(s) => s.poll_write(cx, bytes),
        }
    }

    /// Hands over what the kernel takes at this moment, whether or not the runtime has heard of room: the kernel tells of it only once there
    /// is much. `None`: it takes nothing. Otherwise so many of `bytes` are taken, which may be none where TLS had kept some back.
    ///
    /// # Errors
    /// When the connection is no more.
    pub fn press(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let (pressed, sealed) = match self {
            Self::Tcp(_) | Self::Unix(_) => (send_now(self, bytes), false),
            Self::Tls(s) => (s.press(), true),
        };
        match pressed {
            Ok(0) => Ok(None),
            Ok(taken) => Ok(Some(if sealed { 0 } else { taken })),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Ready when all that was written is with the kernel, which it always is without TLS. To be asked by whoever goes to sleep and
    /// has not just written; reading does not do it, as who reads may be forbidden to write.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(s) => s.poll_flush(cx),
        }
    }

    /// How many bytes were written since all were with the kernel: of so many some may still be here.
    pub const fn kept_back(&self) -> usize {
        match self {
            Self::Tcp(_) | Self::Unix(_) => 0,
            Self::Tls(s) => s.kept_back(),
        }
    }

    /// It has TLS on it: its bytes are not all with the kernel, and it cannot leave this process.
    #[inline]
    pub const fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whoever is at its other end is on this machine.
    pub fn is_unix(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Unix(_) => true,
            Self::Tls(s) => matches!(s.below(), Self::Unix(_)),
        }
    }

    /// Sends the end of the stream; reading goes on.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => s.poll_shutdown(cx),
        }
    }

    /// True when the peer has sent nothing that is unread, and neither closed nor reset.
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Tcp(s) => socket::is_quiet(s),
            Self::Unix(s) => socket::is_quiet(s),
            Self::Tls(s) => s.is_quiet(),
        }
    }

    /// True when the peer will say nothing more: it closed, half-closed or reset, or said so in TLS. Looks past what is unread.
    pub fn has_left(&mut self) -> bool {
        socket::read_closed(self)
            || match self {
                Self::Tls(s) => s.has_said_farewell(),
                Self::Tcp(_) | Self::Unix(_) => false,
            }
    }

    /// Waits for something to read, and reads nothing. False: there will be nothing.
    pub async fn hears_something(&self) -> bool {
        let mut first = [0_u8; 1];
        loop {
            // Of a runtime that is shutting down nobody cares what is said.
            if self.readable().await.is_err() {
                return false;
            }
            let peek = || {
                let peeked = rustix::net::recv(self, &mut first[..], RecvFlags::PEEK)?;
                Ok(peeked.1 > 0)
            };
            // Tells the runtime where there is nothing: it may have been woken for nothing.
            let peeked = match self {
                Self::Tcp(s) => s.try_io(Interest::READABLE, peek),
                Self::Unix(s) => s.try_io(Interest::READABLE, peek),
                Self::Tls(_) => return true,
            };
            match peeked {
                Ok(said) => return said,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
    }

    /// What has come and is not read yet, as much as there is room for; the runtime is not asked.
    pub fn peek(&self, buf: &mut [u8]) -> usize {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        rustix::net::recv(self, buf, flags).map_or(0, |(peeked, _)| peeked)
    }

    /// Says in TLS that this is the end, and not to the socket.
    #[cfg(test)]
    pub(crate) fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(s) => s.say_farewell(cx),
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    /// Waits until there is something to read, an end or an error among it; reads nothing.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        let socket = match self {
            Self::Tls(s) if s.has_read_ahead() => return Ok(()),
            Self::Tls(s) => s.below(),
            plain => plain,
        };
        match socket {
            Self::Tcp(s) => s.ready(Interest::READABLE).await.map(drop),
            Self::Unix(s) => s.ready(Interest::READABLE).await.map(drop),
            Self::Tls(_) => unreachable!("there is no TLS below TLS"),
        }
    }
}

/// Past the runtime. Who waits for room is woken by it all the same.
pub(super) fn send_now(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(
        socket,
        bytes,
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )?)
}

/// For what goes below TLS, and for the protocol library of the control plane.
impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => {
                // Whoever waits for an answer here must have asked. A peer that takes no more may still have said something.
                let _ = s.poll_flush(cx);
                s.poll_read(cx, buf)
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Self::poll_write(self.get_mut(), cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, parts),
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, parts),
            Self::Tls(s) => {
                let first = parts.iter().find(|part| !part.is_empty());
                s.poll_write(cx, first.map_or(&[], |part| part))
            }
        }
    }

    /// Records go out together.
    fn is_write_vectored(&self) -> bool {
        !self.is_tls()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_shutdown(self.get_mut(), cx)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tls(s) => s.as_fd(),
            Self::Tcp(s) => s.as_fd(),
            Self::Unix(s) => s.as_fd(),
        }
    }
}

impl AsFd for Unregistered {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(s) => s.as_fd(),
            Self::Unix(s) => s.as_fd(),
        }
    }
}
