//! Socket options and questions to the kernel that the runtime does not offer.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};

/// Silence after which the kernel asks whether the peer still lives; how often; how many answers may be missing.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// Options of the client leg. Set on the *listening* socket: Linux hands them to every accepted one, which
/// saves five system calls a connection.
///
/// # Errors
/// When the socket is no TCP socket.
pub fn prepare_client_leg(listening: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(listening);
    // Without it small replies wait for acknowledgements: a fifth of the throughput on bulk.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())
}

/// Options of the upstream leg. `user_timeout` (`TCP_USER_TIMEOUT`) ends a connection whose peer acknowledges
/// nothing for so long, instead of the kernel's quarter of an hour.
///
/// # Errors
/// When the connection has already failed.
pub fn prepare_upstream_leg(stream: &impl AsFd, user_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    socket.set_tcp_user_timeout(Some(user_timeout))
}

/// Makes closing send RST and drop what the kernel has not sent yet: nothing that was withheld in a buffer
/// reaches a fenced master.
///
/// # Errors
/// When the descriptor is no socket.
pub fn reset_on_close(stream: &impl AsFd) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Where the other end is; `None` where that is no address of a network.
pub fn peer(stream: &impl AsFd) -> Option<IpAddr> {
    let addr = SockRef::from(stream).peer_addr().ok()?.as_socket()?;
    Some(addr.ip().to_canonical())
}

/// True when the peer has sent nothing that is unread, and neither closed nor reset.
pub fn is_quiet(stream: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::IN | PollFlags::RDHUP)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready == 0)
}

/// True when the peer will send nothing more: it closed, half-closed or reset. Looks past unread bytes,
/// which reading cannot.
pub fn read_closed(stream: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&at_once)).is_ok_and(|_| {
        fds[0]
            .revents()
            .intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
    })
}

/// Raises the soft limit of open files to the hard one and returns the limit in force; two descriptors are
/// needed a session. `None` is no limit.
///
/// # Errors
/// When the kernel refuses (a sandbox).
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised)?;
    }
    Ok(limit.maximum)
}

/// The limit of open files in force. `None` is no limit.
pub fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn accepted_sockets_inherit_the_options_of_the_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        prepare_client_leg(&listener).expect("options");
        let _client = TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
        let (accepted, _) = listener.accept().expect("accept");
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().expect("nodelay"));
        assert!(socket.keepalive().expect("keepalive"));
        assert_eq!(
            socket.tcp_keepalive_time().expect("time"),
            Duration::from_secs(15)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().expect("interval"),
            Duration::from_secs(5)
        );
        assert_eq!(socket.tcp_keepalive_retries().expect("retries"), 3);
    }

    #[test]
    fn the_upstream_leg_has_a_user_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let stream = TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
        prepare_upstream_leg(&stream, Duration::from_secs(30)).expect("options");
        let socket = SockRef::from(&stream);
        assert_eq!(
            socket.tcp_user_timeout().expect("timeout"),
            Some(Duration::from_secs(30))
        );
        assert!(socket.tcp_nodelay().expect("nodelay"));
        assert!(socket.keepalive().expect("keepalive"));
    }

    #[test]
    fn a_half_close_is_seen_behind_unread_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let mut client = TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
        let (accepted, _) = listener.accept().expect("accept");
        client.write_all(b"unread").expect("write");
        assert!(!read_closed(&accepted));
        client.shutdown(Shutdown::Write).expect("shutdown");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !read_closed(&accepted) {
            assert!(tokio::time::Instant::now() < deadline, "never seen");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise_open_files().expect("raise");
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
