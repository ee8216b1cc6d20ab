//! Reads the header of the PROXY protocol from a connection of a trusted balancer, and not a byte of what is behind it.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::conveyed::{Conveyed, Framed, HEADER_MAX, framed};

/// Longest until the header is there: a balancer sends it with the first packet.
const HEADER_LIMIT: Duration = Duration::from_secs(5);

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHeader {
    /// Something else came, or the end.
    Other,
    /// Nothing came in time.
    Late,
}

/// The header, which is taken from the stream; everything behind it stays there.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Conveyed, NoHeader> {
    match timeout(HEADER_LIMIT, read_patiently(stream)).await {
        Ok(Ok(Some(conveyed))) => Ok(conveyed),
        Ok(Ok(None) | Err(_)) => Err(NoHeader::Other),
        Err(_) => Err(NoHeader::Late),
    }
}

async fn read_patiently(stream: &mut TcpStream) -> io::Result<Option<Conveyed>> {
    let mut said = [0; HEADER_MAX];
    let mut taken = 0;
    loop {
        let peeked = stream.peek(&mut said[taken..]).await?;
        let end = taken + peeked;
        let (length, conveyed) = match framed(&said[..end]) {
            Framed::Whole(length, conveyed) => (length, Some(conveyed)),
            Framed::More if peeked > 0 => (end, None),
            Framed::More | Framed::Bad => return Ok(None),
        };
        // What was looked at is there: it is taken at once.
        stream.read_exact(&mut said[taken..length]).await?;
        taken = length;
        if conveyed.is_some() {
            return Ok(conveyed);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        let theirs = TcpStream::connect(addr).await.expect("it listens");
        (listener.accept().await.expect("accepted").0, theirs)
    }

    #[tokio::test]
    async fn what_is_behind_it_is_left_for_the_session() {
        const HEADER: &[u8] = b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 6379\r\n";
        for size in [1, 7, 1000] {
            let (mut ours, mut theirs) = pair().await;
            let said = [HEADER, b"PING\r\n"].concat();
            let saying = async {
                for piece in said.chunks(size) {
                    theirs.write_all(piece).await.expect("written");
                    tokio::task::yield_now().await;
                }
            };
            let (conveyed, ()) = tokio::join!(read(&mut ours), saying);
            assert_eq!(conveyed, Ok(Conveyed::From([10, 0, 0, 1].into())));
            let mut rest = [0; 6];
            ours.read_exact(&mut rest).await.expect("the rest");
            assert_eq!(&rest, b"PING\r\n");
        }
    }

    #[tokio::test]
    async fn what_is_none_is_noticed() {
        for said in [&b"PING\r\n"[..], b"PROXY TCP4 ", b""] {
            let (mut ours, mut theirs) = pair().await;
            theirs.write_all(said).await.expect("written");
            drop(theirs);
            assert_eq!(read(&mut ours).await, Err(NoHeader::Other), "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_none_is_not_waited_for() {
        let (mut ours, mut theirs) = pair().await;
        theirs.write_all(b"PROXY ").await.expect("written");
        assert_eq!(read(&mut ours).await, Err(NoHeader::Late));
    }
}
