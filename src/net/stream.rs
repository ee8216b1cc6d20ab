//! One stream type for every kind of peer, poll-based so that a session can drive two of them in one task.
//!
//! Never buffers, never boxes, never decides anything.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected byte stream, registered with the runtime of the thread that drives it.
#[derive(Debug)]
pub enum Stream {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
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
    /// When the runtime does not know the stream any more.
    pub fn unregister(self) -> io::Result<Unregistered> {
        match self {
            Self::Tcp(s) => s.into_std().map(Unregistered::Tcp),
            Self::Unix(s) => s.into_std().map(Unregistered::Unix),
        }
    }

    /// Reads into `buf`; ready with 0 is the end of the stream (for a `buf` that is not empty).
    ///
    /// A read that did not fill `buf` has emptied the socket: the next call is pending without a system call.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        let done = match self {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, &mut buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, &mut buf),
        };
        done.map_ok(|()| buf.filled().len())
    }

    /// Writes some of `bytes`.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Unix(s) => Pin::new(s).poll_write(cx, bytes),
        }
    }

    /// Sends the end of the stream; reading goes on.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }

    /// Waits until there is something to read, an end or an error among it; reads nothing.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.ready(Interest::READABLE).await.map(drop),
            Self::Unix(s) => s.ready(Interest::READABLE).await.map(drop),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
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
