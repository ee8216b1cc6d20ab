//! A control-plane stream with two properties the protocol library does not give: a peer cannot make us buffer
//! without end, and a closed link is noticed at once, not at the next question.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::net::stream::Stream;
use crate::net::tls::{Connector, TlsError};

/// Most bytes a peer may send before the next [`Meter::reset`]: no reply we ask for comes near it.
pub(crate) const MAX_UNREAD: usize = 64 * 1024;

/// What the owner of a link knows of its stream.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    left: Arc<AtomicUsize>,
    closed: CancellationToken,
    /// What TLS had against the stream, which the protocol library would tell as any other error.
    fault: Arc<OnceLock<TlsError>>,
    /// The table of the leg, where it is met with TLS.
    table: Option<&'static str>,
    is_plain: bool,
    /// It has said something.
    heard: Arc<AtomicBool>,
}

impl Meter {
    /// A reply or an event was taken in whole: the peer may send as much again. Never less than it may by now: an event may come
    /// between a question and its long reply.
    pub(crate) fn reset(&self) {
        self.left.fetch_max(MAX_UNREAD, Ordering::Relaxed);
    }

    /// The next reply may be so long.
    pub(crate) fn expect(&self, most: usize) {
        self.left.store(most, Ordering::Relaxed);
    }

    /// Completes when the peer has closed, reset, or broken the limit. Never completes before.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// What TLS had against the stream; a server may say after the handshake that it does not accept our certificate.
    pub(crate) fn tls_fault(&self) -> Option<&TlsError> {
        self.fault.get()
    }

    /// It has closed without a word, and we came without TLS.
    pub(crate) fn ended_at_once(&self) -> bool {
        self.is_plain && self.is_closed() && !self.heard.load(Ordering::Relaxed)
    }

    /// True once [`Self::closed`] has completed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }
}

/// A stream that counts what it reads.
#[derive(Debug)]
pub(crate) struct Metered {
    stream: Stream,
    meter: Meter,
}

impl Metered {
    /// Wraps a connected stream, which is met like this.
    pub(crate) fn new(stream: Stream, tls: Option<&Connector>) -> (Self, Meter) {
        let meter = Meter {
            left: Arc::new(AtomicUsize::new(MAX_UNREAD)),
            closed: CancellationToken::new(),
            fault: Arc::default(),
            table: tls.and_then(Connector::table),
            is_plain: tls.is_none(),
            heard: Arc::default(),
        };
        (
            Self {
                stream,
                meter: meter.clone(),
            },
            meter,
        )
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.meter.closed.cancel();
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(AsyncRead::poll_read(Pin::new(&mut self.stream), cx, buf));
        if let Some(fault) = result.as_ref().err().and_then(TlsError::of) {
            let _ = self.meter.fault.set(fault.in_table(self.meter.table));
        }
        let read = buf.filled().len() - before;
        if read > 0 {
            self.meter.heard.store(true, Ordering::Relaxed);
        }
        let left = self.meter.left.load(Ordering::Relaxed);
        let result = match result {
            Ok(()) if read > left => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the peer sent more at once than the reply it was asked for can be long",
            )),
            other => other,
        };
        self.meter
            .left
            .store(left.saturating_sub(read), Ordering::Relaxed);
        if result.is_err() || read == 0 && buf.remaining() > 0 {
            self.meter.closed.cancel();
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.stream), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_does_not_shorten_the_reply_that_is_awaited() {
        let left = Arc::new(AtomicUsize::new(0));
        let meter = Meter {
            left: Arc::clone(&left),
            closed: CancellationToken::new(),
            fault: Arc::default(),
            table: None,
            is_plain: true,
            heard: Arc::default(),
        };
        meter.reset();
        assert_eq!(left.load(Ordering::Relaxed), MAX_UNREAD);
        meter.expect(4 * MAX_UNREAD);
        meter.reset();
        assert_eq!(left.load(Ordering::Relaxed), 4 * MAX_UNREAD);
    }
}
