//! A stream with TLS on it, with the manners of [`Stream`].
//!
//! Three differences to a socket are dealt with here, so that who uses it knows none of them but the first:
//!
//! - What was taken to be written may still be here when the socket takes no more. It goes out with the next write, or when
//!   [`Sealed::poll_flush`] is asked, and never by itself: who may not write to a peer now can still read.
//! - What was read from the socket may still be here, decrypted: a quiet socket does not say that there is nothing to read.
//! - The end of the socket without TLS' own end (close_notify) is an end, too. It could be somebody's who cuts the wire, which
//!   plain TCP does not tell, either; every request and reply says itself where it ends, so half of one is never taken for one. And
//!   a server that is killed, or one of many clients, says no more than that.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::net::socket;
use crate::net::stream::{Stream, send_now};

/// See the head of this file.
#[derive(Debug)]
pub struct Sealed {
    stream: TlsStream<Stream>,
    /// See [`Stream::kept_back`].
    kept_back: usize,
}

impl Sealed {
    pub(super) fn stream(stream: impl Into<TlsStream<Stream>>) -> Stream {
        Stream::Tls(Box::new(Self {
            stream: stream.into(),
            kept_back: 0,
        }))
    }

    /// See [`Stream::poll_read`]. Writes nothing, but when it gives the connection up for what the peer has said: then with TLS' last
    /// word what was kept back goes out as far as it can, and nobody hears what it leads to.
    pub(in crate::net) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => read,
        }
    }

    /// See [`Stream::poll_write`]. An error says that none of these bytes has gone out, or will: whoever hears it may say them to
    /// somebody else.
    pub(in crate::net) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let taken = match &mut self.stream {
            TlsStream::Client(stream) => stream.get_mut().1.writer().write(bytes)?,
            TlsStream::Server(stream) => stream.get_mut().1.writer().write(bytes)?,
        };
        self.kept_back += taken;
        // Some may be on their way when the rest fails. The next call is told of that.
        let _ = self.poll_flush(cx);
        Poll::Ready(Ok(taken))
    }

    /// See [`Stream::poll_flush`].
    pub(in crate::net) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stream.get_ref().1.wants_write() {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        }
        self.kept_back = 0;
        Poll::Ready(Ok(()))
    }

    /// See [`Stream::press`]. How much of what is kept back was taken.
    pub(in crate::net) fn press(&mut self) -> io::Result<usize> {
        match &mut self.stream {
            TlsStream::Client(stream) => {
                let (below, session) = stream.get_mut();
                session.write_tls(&mut Pressed(below))
            }
            TlsStream::Server(stream) => {
                let (below, session) = stream.get_mut();
                session.write_tls(&mut Pressed(below))
            }
        }
    }

    /// See [`Stream::kept_back`].
    pub(in crate::net) const fn kept_back(&self) -> usize {
        self.kept_back
    }

    /// See [`Stream::poll_shutdown`]. Says that this is the end before the socket does.
    pub(in crate::net) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// There is something to read that the socket does not know of, or TLS' own end has come.
    pub(in crate::net) fn has_read_ahead(&self) -> bool {
        // It wants no more from the socket only then.
        !self.stream.get_ref().1.wants_read()
    }

    /// See [`Stream::has_left`]. What comes before the farewell is read ahead, as much as the library keeps (16 KiB): behind more it is not
    /// seen.
    pub(in crate::net) fn has_said_farewell(&mut self) -> bool {
        // Only clients are asked that.
        let TlsStream::Server(stream) = &mut self.stream else {
            return false;
        };
        let (below, session) = stream.get_mut();
        loop {
            match session.process_new_packets() {
                Ok(state) if state.peer_has_closed() => return true,
                Ok(_) => {}
                // Whoever reads it next hears of that.
                Err(_) => return false,
            }
            if !matches!(session.read_tls(&mut Unread(below)), Ok(1..)) {
                return false;
            }
        }
    }

    #[cfg(test)]
    pub(in crate::net) fn say_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let TlsStream::Client(stream) = &mut self.stream {
            stream.get_mut().1.send_close_notify();
        }
        self.poll_flush(cx)
    }

    /// The stream below.
    pub(in crate::net) fn below(&self) -> &Stream {
        self.stream.get_ref().0
    }

    /// See [`Stream::is_quiet`].
    pub(in crate::net) fn is_quiet(&self) -> bool {
        !self.has_read_ahead() && socket::is_quiet(self.below())
    }
}

/// What there is to read of a socket now. Who waits for more of it is woken by that all the same.
struct Unread<'a>(&'a Stream);

impl Read for Unread<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (read, _) = recv(self.0, buf, RecvFlags::DONTWAIT)?;
        Ok(read)
    }
}

/// What a socket takes now. Who waits for more room is woken by that all the same.
struct Pressed<'a>(&'a Stream);

impl Write for Pressed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send_now(self.0, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.below().as_fd()
    }
}
