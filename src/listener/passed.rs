//! Listening sockets that the service manager made and passed (sd_listen_fds(3)): they outlive this process, so that no client is
//! refused while one follows another, and a port below 1024 needs no privilege here.

use std::env;
use std::path::PathBuf;

use listenfd::ListenFd;
use socket2::Socket;

use super::bind::{BindError, Bound};
use crate::net::addr::ListenAddr;
use crate::net::socket::prepare_client_leg;

/// What a socket is called whose unit names it not (sd_listen_fds_with_names(3)).
const NAMELESS: &str = "unknown";

/// The sockets that nobody has taken yet.
pub struct Passed {
    sockets: ListenFd,
    /// In their order; `None` where it was taken.
    names: Vec<Option<String>>,
}

impl std::fmt::Debug for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Passed").field(&self.names).finish()
    }
}

impl Passed {
    /// What this process was started with. Takes LISTEN_FDS out of the environment: to be called once, before there is a
    /// thread that reads it.
    pub fn from_env() -> Self {
        // Read first: the names mean nothing without the descriptors, and stay.
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let sockets = ListenFd::from_env();
        let names = names_of(&names, sockets.len());
        Self { sockets, names }
    }

    /// Nothing was passed.
    pub fn nothing() -> Self {
        Self {
            sockets: ListenFd::empty(),
            names: Vec::new(),
        }
    }

    /// The names of those that nobody has taken.
    pub fn left(&self) -> Vec<String> {
        self.names.iter().flatten().cloned().collect()
    }

    /// All sockets of this name; `is_guarded` when it is known who may connect from other machines.
    pub(super) fn take(&mut self, name: &str, is_guarded: bool) -> Result<Vec<Bound>, BindError> {
        let mut taken = Vec::new();
        for index in 0..self.names.len() {
            if self.names[index].as_deref() == Some(name) {
                taken.push(self.take_one(index, name, is_guarded)?);
                self.names[index] = None;
            }
        }
        if taken.is_empty() {
            return Err(BindError::NotPassed {
                name: name.to_owned(),
                passed: self.left(),
            });
        }
        Ok(taken)
    }

    fn take_one(&mut self, index: usize, name: &str, is_guarded: bool) -> Result<Bound, BindError> {
        let failed = |source| BindError::Socket {
            addr: ListenAddr::Systemd(name.to_owned()),
            source,
        };
        let asked = ListenAddr::Systemd(name.to_owned());
        let unfit = |what: &str| BindError::NotListening {
            name: name.to_owned(),
            what: what.to_owned(),
        };
        let Some(socket) = self.stream(index) else {
            return Err(unfit(
                "no stream socket, or LISTEN_FDS announces more than there are",
            ));
        };
        if !socket.is_listener().map_err(failed)? {
            return Err(unfit("a connection, and no listening socket"));
        }
        // The unit may say otherwise; a blocked accept(2) would stop every session of its thread.
        socket.set_nonblocking(true).map_err(failed)?;
        let addr = socket.local_addr().map_err(failed)?;
        if let Some(addr) = addr.as_socket() {
            prepare_client_leg(&socket).map_err(failed)?;
            if !ListenAddr::Tcp(addr).is_local() && !is_guarded {
                return Err(BindError::OpenToAll {
                    name: name.to_owned(),
                    addr,
                });
            }
            return Ok(Bound::passed(ListenAddr::Tcp(addr), &asked, socket));
        }
        // One in the abstract namespace has no path; it is named as tools show it.
        let path = addr.as_pathname().map_or_else(
            || {
                let name = addr.as_abstract_namespace().unwrap_or_default();
                PathBuf::from(format!("@{}", name.escape_ascii()))
            },
            PathBuf::from,
        );
        Ok(Bound::passed(ListenAddr::Unix(path), &asked, socket))
    }

    /// `None` for what is no stream socket of the internet or of this machine.
    fn stream(&mut self, index: usize) -> Option<Socket> {
        if let Ok(socket) = self.sockets.take_tcp_listener(index) {
            return socket.map(Socket::from);
        }
        let socket = self.sockets.take_unix_listener(index).ok()?;
        socket.map(Socket::from)
    }
}

/// One name for each of so many sockets.
fn names_of(names: &str, sockets: usize) -> Vec<Option<String>> {
    let mut names = names.split(':');
    let mut name = || names.next().filter(|name| !name.is_empty());
    (0..sockets)
        .map(|_| Some(name().unwrap_or(NAMELESS).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_order_of_the_sockets() {
        for (names, sockets, expected) in [
            ("", 0, vec![]),
            ("", 1, vec!["unknown"]),
            ("main", 1, vec!["main"]),
            ("main:main:other", 3, vec!["main", "main", "other"]),
            ("main", 2, vec!["main", "unknown"]),
            (":main", 2, vec!["unknown", "main"]),
            ("main:other", 1, vec!["main"]),
        ] {
            let named: Vec<_> = names_of(names, sockets).into_iter().flatten().collect();
            assert_eq!(named, expected, "{names:?} of {sockets}");
        }
    }

    #[test]
    fn what_was_not_passed_is_told_with_what_was() {
        let mut passed = Passed::nothing();
        let error = passed.take("main", true).expect_err("nothing was passed");
        assert_eq!(error.exit_code(), 78);
        assert!(error.to_string().contains("systemd:main"), "{error}");
        passed.names = names_of("other", 1);
        let error = passed.take("main", true).expect_err("another was passed");
        assert!(error.to_string().contains("(but other)"), "{error}");
    }
}
