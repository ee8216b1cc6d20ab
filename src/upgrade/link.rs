//! The way between the two processes: messages with descriptors, over a socket that keeps them apart (`SOCK_SEQPACKET`).
//!
//! One end is the new process's standard input, from the moment that the old one starts it. So there is no path that anybody
//! else could connect to, and no question of who is at the other end; and when either ends, however that comes about, the kernel
//! tells the other.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use rustix::stdio::dup2_stdin;
use tokio::io::Interest;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::message::{self, DESCRIPTORS_MAX, MESSAGE_MAX, Malformed, Message, Said};

/// Room for the descriptors of one message.
const SPACE: usize = cmsg_space!(ScmRights(DESCRIPTORS_MAX));

/// One end.
#[derive(Debug)]
pub struct Link {
    /// No stream, but watched as one; it is read and written by the calls below alone.
    socket: UnixStream,
    /// What arrives may hold secrets.
    room: Zeroizing<Vec<u8>>,
}

/// What arrived. Descriptors that nobody takes are closed.
#[derive(Debug)]
pub struct Parcel {
    /// What was said.
    pub message: Message,
    /// What came with it.
    pub sockets: Vec<OwnedFd>,
}

/// Why nothing can be said, or heard, any more.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The other process is gone, or has closed its end.
    #[error("the other process is gone")]
    Gone,
    /// What it says is none of what was agreed on.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Descriptors were lost on the way: there were too many of them, or this process may have no more.
    #[error("descriptors were lost on the way: raise LimitNOFILE in the unit (or `ulimit -n`)")]
    Torn,
    /// The kernel's words for what else went wrong.
    #[error("the link to the other process: {0}")]
    Io(io::Error),
}

impl From<Errno> for Broken {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET => Self::Gone,
            _ => Self::Io(errno.into()),
        }
    }
}

/// Both ends, neither of which outlives an `exec` unless it is handed over.
///
/// # Errors
/// When there are no descriptors left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// The end that this process was started with as its standard input, in whose place `/dev/null` comes.
///
/// # Errors
/// When standard input is no such socket.
pub fn from_stdin() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    if rustix::net::sockopt::socket_type(&stdin)? != SocketType::SEQPACKET {
        return Err(Errno::NOTSOCK.into());
    }
    let socket = stdin.as_fd().try_clone_to_owned()?;
    let null = std::fs::File::open("/dev/null")?;
    // Otherwise the other process would not notice that this end was closed.
    dup2_stdin(&null)?;
    Ok(socket)
}

impl Link {
    /// Registers an end with the runtime of this thread.
    ///
    /// # Errors
    /// When the kernel refuses another watch.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: UnixStream::from_std(socket.into())?,
            room: Zeroizing::new(vec![0; MESSAGE_MAX]),
        })
    }

    /// Says something without descriptors.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn say(&self, said: Said) -> Result<(), Broken> {
        self.send(&Message::Said(said), &[]).await
    }

    /// Sends a message with descriptors, of which the receiver gets copies. Waits while the other side does not read: the caller
    /// brings the deadline.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn send(&self, message: &Message, sockets: &[BorrowedFd<'_>]) -> Result<(), Broken> {
        let bytes = message::encode(message)?;
        let sending = || {
            let mut space = [MaybeUninit::uninit(); SPACE];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
                return Err(Errno::TOOMANYREFS.into());
            }
            let bytes = [IoSlice::new(&bytes)];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            Ok(sendmsg(&self.socket, &bytes, &mut control, flags)?)
        };
        match self.socket.async_io(Interest::WRITABLE, sending).await {
            Ok(_) => Ok(()),
            Err(error) => Err(broken(error)),
        }
    }

    /// What a process that is dead had said before. Waits for nothing.
    pub fn last_words(&mut self) -> Vec<Message> {
        let Self { socket, room } = self;
        let mut said = Vec::new();
        while said.len() < LAST_WORDS {
            match take(socket, room) {
                Ok((length @ 1.., _, false)) => {
                    said.extend(message::decode(room.get(..length).unwrap_or_default()));
                }
                _ => break,
            }
        }
        said
    }

    /// The next message. Cancel-safe.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn receive(&mut self) -> Result<Parcel, Broken> {
        let Self { socket, room } = self;
        let taking = || Ok(take(socket, room)?);
        match socket.async_io(Interest::READABLE, taking).await {
            Err(error) => Err(broken(error)),
            Ok((0, _, _)) => Err(Broken::Gone),
            Ok((_, _, true)) => Err(Broken::Torn),
            Ok((length, sockets, false)) => {
                let message = message::decode(room.get(..length).unwrap_or_default())?;
                Ok(Parcel { message, sockets })
            }
        }
    }
}

/// What is read of a dead process at most: it says one thing for each that it is told.
const LAST_WORDS: usize = 64;

/// How long the message is, its descriptors, and whether some of either is missing.
fn take(socket: &UnixStream, room: &mut [u8]) -> Result<(usize, Vec<OwnedFd>, bool), Errno> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let mut receive = || recvmsg(socket, &mut [IoSliceMut::new(room)], &mut control, flags);
    let received = match receive() {
        // It ended without having read all that we said. That is told before what it had said itself.
        Err(Errno::CONNRESET) => receive(),
        received => received,
    }?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors);
        }
    }
    let torn = received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok((received.bytes, sockets, torn))
}

fn broken(error: io::Error) -> Broken {
    match Errno::from_io_error(&error) {
        Some(errno) => errno.into(),
        None => Broken::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::{FdFlags, fcntl_getfd};

    use super::super::message::{Batch, Reign};
    use super::*;
    use crate::net::stream::Kind;
    use crate::session::luggage::Luggage;

    fn links() -> (Link, Link) {
        let (ours, theirs) = pair().expect("descriptors");
        (
            Link::new(ours).expect("a watch"),
            Link::new(theirs).expect("a watch"),
        )
    }

    fn batch(sessions: usize) -> Message {
        let one = Luggage {
            client: Kind::Unix,
            upstream: Some(Kind::Unix),
            tracked: None,
            fresh: false,
            conveyed: None,
        };
        Message::Sessions(Batch {
            reign: Reign {
                entry: "main".to_owned(),
                at: ([127, 0, 0, 1], 1).into(),
                epoch: None,
            },
            sessions: vec![one; sessions],
        })
    }

    #[tokio::test]
    async fn as_many_descriptors_as_the_kernel_takes_arrive_and_none_outlives_an_exec() {
        let (ours, mut theirs) = links();
        let (one, other) = UnixStream::pair().expect("pair");
        let sockets: Vec<_> = [one.as_fd(), other.as_fd()]
            .into_iter()
            .cycle()
            .take(252)
            .collect();
        ours.send(&batch(126), &sockets).await.expect("room");
        let parcel = theirs.receive().await.expect("a message");
        assert_eq!(parcel.message, batch(126));
        assert_eq!(parcel.sockets.len(), 252);
        for socket in &parcel.sockets {
            let flags = fcntl_getfd(socket).expect("a descriptor");
            assert!(flags.contains(FdFlags::CLOEXEC));
        }
    }

    #[tokio::test]
    async fn messages_stay_apart_and_the_end_is_heard_behind_the_last() {
        let (ours, mut theirs) = links();
        ours.say(Said::Go).await.expect("room");
        ours.say(Said::Done).await.expect("room");
        drop(ours);
        for said in [Said::Go, Said::Done] {
            let parcel = theirs.receive().await.expect("a message");
            assert_eq!(parcel.message, Message::Said(said));
        }
        assert!(matches!(theirs.receive().await, Err(Broken::Gone)));
        assert!(matches!(theirs.say(Said::Opened).await, Err(Broken::Gone)));
    }

    /// Whether or not it had read what it was told.
    #[tokio::test]
    async fn what_a_dead_process_had_said_is_read() {
        for unread in [false, true] {
            let (mut ours, theirs) = links();
            if unread {
                ours.say(Said::Go).await.expect("room");
            }
            theirs.say(Said::Adopted).await.expect("room");
            drop(theirs);
            assert_eq!(ours.last_words(), [Message::Said(Said::Adopted)]);
            assert_eq!(ours.last_words(), []);
        }
    }

    #[tokio::test]
    async fn whoever_does_not_read_is_waited_for() {
        let (ours, mut theirs) = links();
        let count = 2000;
        let talking = async {
            for _ in 0..count {
                ours.send(&batch(BATCH), &[]).await.expect("room");
            }
        };
        let hearing = async {
            tokio::task::yield_now().await;
            for _ in 0..count {
                theirs.receive().await.expect("a message");
            }
        };
        const BATCH: usize = 100;
        tokio::join!(talking, hearing);
    }
}
