//! What the tests stand on: real processes ([`Proxy`], the demo's cluster of servers, servers that can be parted), scripted peers
//! ([`FakeSentinel`], [`FakeMaster`], [`ChaosRelay`], [`Rogue`]), writers with a history, and waiting for conditions.
//!
//! Everything listens on a free port, ends with its value, and shows its log when a test fails. Nothing
//! here sleeps and hopes: a wait has a condition, a deadline and a name.

// Every test binary uses its own part of this.
#![allow(dead_code)]

pub(crate) mod admin;
pub(crate) mod announced;
pub(crate) mod application;
pub(crate) mod args;
pub(crate) mod authority;
pub(crate) mod chaos;
pub(crate) mod cost;
pub(crate) mod fake_master;
pub(crate) mod fake_sentinel;
pub(crate) mod flood;
pub(crate) mod history;
pub(crate) mod load;
pub(crate) mod name_server;
pub(crate) mod network;
pub(crate) mod pattern;
pub(crate) mod planned;
pub(crate) mod proxy;
pub(crate) mod reload;
pub(crate) mod rogue;
pub(crate) mod secure;
pub(crate) mod sockets;
pub(crate) mod split;
pub(crate) mod standstill;
pub(crate) mod stream;
pub(crate) mod topology;
pub(crate) mod wire;

use std::io::Write;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use switchmaster::demo::server::Server;
use switchmaster::net::clock::now;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The server under test. A run says once which that is, past the test runner, which shows no output of tests that pass.
pub(crate) fn server() -> Server {
    static FOUND: OnceLock<Server> = OnceLock::new();
    let find = || {
        let server = Server::find(None).unwrap_or_else(|e| panic!("{e}"));
        // A run whose stderr is gone is a run all the same.
        let _ = writeln!(std::io::stderr(), "server under test: {server}");
        server
    };
    FOUND.get_or_init(find).clone()
}

/// Waits until there is something, and gives it.
pub(crate) fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < deadline, "waited {within:?} in vain for {what}");
        thread::sleep(LOOK);
    }
}

/// Waits until a condition holds.
pub(crate) fn wait_until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, within, || holds().then_some(()));
}

/// Watches that a condition goes on holding.
pub(crate) fn holds_for(what: &str, time: Duration, mut holds: impl FnMut() -> bool) {
    let end = now() + time;
    while now() < end {
        assert!(holds(), "no longer true: {what}");
        thread::sleep(LOOK);
    }
}

/// Lets this process open as many descriptors as it may; servers and proxies started later inherit that.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, most).expect("up to the hard limit without privilege");
}

/// A number of places, of which each [`Slot`] takes one.
///
/// Sentinel goes into TILT when it is not run for 2 s, and then neither votes nor fails over: a machine
/// full of clusters makes tests fail that have no fault.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Mutex<usize>,
    released: Condvar,
}

/// One taken place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    /// So many places.
    pub(crate) const fn new(places: usize) -> Self {
        Self {
            free: Mutex::new(places),
            released: Condvar::new(),
        }
    }

    /// Waits for a place. Tests end, so this does.
    pub(crate) fn take(&self) -> Slot<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .released
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.released.notify_one();
    }
}
