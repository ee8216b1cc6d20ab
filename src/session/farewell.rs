//! Closing a client in order: what it is owed, the end of the stream, then its last words unheard.
//!
//! Closing a socket with unread input makes the kernel send RST, which destroys replies still on their way.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::timeout;

use super::Ending;
use super::house::Seat;
use crate::net::stream::Stream;

/// Longest wait for a client to take the replies it is owed.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// Longest time a client's input is read and dropped after the end was sent.
const DISCARD_LIMIT: Duration = Duration::from_secs(1);
/// Both limits when the proxy is to end at once.
const FLUSH_LIMIT_NOW: Duration = Duration::from_millis(500);
const DISCARD_LIMIT_NOW: Duration = Duration::from_millis(100);

/// Takes leave of a client; takes at most the two limits above.
pub(super) async fn farewell(seat: &mut Seat, mut client: Stream, owed: BytesMut) {
    let at_once = is_now(seat);
    let (flush, discard) = if at_once {
        (FLUSH_LIMIT_NOW, DISCARD_LIMIT_NOW)
    } else {
        (FLUSH_LIMIT, DISCARD_LIMIT)
    };
    let flushed = tokio::select! {
        flushed = timeout(flush, pay(seat, &mut client, owed)) => flushed,
        () = sleep_from_now(seat, FLUSH_LIMIT_NOW), if !at_once => return,
    };
    if !matches!(flushed, Ok(Ok(()))) {
        return;
    }
    tokio::select! {
        _ = timeout(discard, unheard(seat, &mut client)) => {}
        () = sleep_from_now(seat, DISCARD_LIMIT_NOW), if !at_once => {}
    }
}

async fn pay(seat: &Seat, client: &mut Stream, mut owed: BytesMut) -> io::Result<()> {
    while owed.has_remaining() {
        let n = poll_fn(|cx| client.poll_write(cx, &owed)).await?;
        seat.house.tally.bytes_down.add(n as u64);
        owed.advance(n);
    }
    poll_fn(|cx| client.poll_shutdown(cx)).await
}

async fn unheard(seat: &Seat, client: &mut Stream) {
    while let Ok(1..) =
        poll_fn(|cx| client.poll_read(cx, &mut seat.house.buffer.borrow_mut())).await
    {}
}

fn is_now(seat: &Seat) -> bool {
    seat.house.ending() == Ending::Now
}

/// Ready so long after the proxy was to end at once.
async fn sleep_from_now(seat: &Seat, grace: Duration) {
    poll_fn(|_| {
        if is_now(seat) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    tokio::time::sleep(grace).await;
}
