//! Who else is at the path of a unix socket: whoever answers there, and whoever is about to bind there.

use std::fs::remove_file;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::net::clock::now;

/// Longest wait for others that bind in the same folder, which takes each of them less than a millisecond.
const TURN_LIMIT: Duration = Duration::from_millis(500);
/// How often it is looked whether they are through.
const TURN_EVERY: Duration = Duration::from_millis(5);

/// Whether somebody listens there. Never waits: one whose line is full listens, too.
///
/// # Errors
/// When the kernel does not let this process ask.
pub(super) fn is_taken(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        // Whoever was there has just ended, and taken its file away.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(e),
        // Of another kind, or with a full line (EAGAIN): somebody's all the same.
        Ok(()) | Err(_) => Ok(true),
    }
}

/// Removes what one that was killed has left, if it is still there.
///
/// # Errors
/// When the kernel does not let this process remove it.
pub(super) fn clear_away(path: &Path) -> io::Result<()> {
    match remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Does this while no other process that asks for a turn binds in that folder: what one of them has just bound and does not listen on
/// yet looks like what a killed one has left. A folder that cannot be locked (not readable, or on a file system without locks), or is for too
/// long, is gone to all the same: locking keeps none from serving.
pub(super) fn in_turn<T>(path: &Path, bind: impl FnOnce() -> T) -> T {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Closing it gives the turn away.
    let _turn = open(folder, flags, Mode::empty()).ok().inspect(|folder| {
        let begun = now();
        while flock(folder, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
            && now().since(begun) < TURN_LIMIT
        {
            sleep(TURN_EVERY);
        }
    });
    bind()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;

    /// No more clients are let into its line than it has, and the next one that came patiently would wait for good.
    #[test]
    fn one_whose_line_is_full_is_there() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        socket
            .bind(&SockAddr::unix(&path).expect("short"))
            .expect("bound");
        assert!(!is_taken(&path).expect("allowed"), "it does not listen yet");
        socket.listen(0).expect("it listens");
        let _first = UnixStream::connect(&path).expect("room for one");
        assert!(is_taken(&path).expect("allowed"));
        assert!(is_taken(&path).expect("allowed"));
        drop(socket);
        assert!(!is_taken(&path).expect("allowed"), "nobody is there");
        for _ in 0..2 {
            clear_away(&path).expect("allowed");
            assert!(!is_taken(&path).expect("allowed"), "nor anything of it");
        }
    }

    #[test]
    fn two_take_turns() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let (begun, begins) = sync_channel(1);
        let (goes_on, may_go_on) = sync_channel::<()>(1);
        thread::scope(|scope| {
            let path = &path;
            scope.spawn(move || {
                in_turn(path, || {
                    begun.send(()).expect("somebody waits");
                    may_go_on.recv().expect("it is told");
                    UnixListener::bind(path)
                        .map(std::mem::forget)
                        .expect("bound");
                });
            });
            begins.recv().expect("it begins");
            let second = scope.spawn(move || in_turn(path, || path.exists()));
            // It may be at the lock by now, or not.
            goes_on.send(()).expect("somebody waits");
            assert!(second.join().expect("no panic"), "it came behind the first");
        });
    }

    #[test]
    fn a_lock_that_is_never_given_away_keeps_nobody_from_serving() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        in_turn(&path, || assert!(in_turn(&path, || true)));
        assert!(in_turn(Path::new("/none/s"), || true));
    }
}
