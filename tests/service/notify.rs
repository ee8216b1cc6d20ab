//! sd_notify(3) and the watchdog, spoken with the real program by a manager that is a socket.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use switchmaster::net::clock::now;

use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::{SOON, connect, echoed, free_address, reset};
use crate::{AT_ONCE, CUT, code};

/// A period that a loaded machine keeps.
pub(crate) const PERIOD: Duration = Duration::from_secs(4);

/// What a service manager hears.
pub(crate) struct Manager {
    socket: UnixDatagram,
    pub(crate) path: String,
    _folder: tempfile::TempDir,
}

impl Manager {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        Self {
            socket: UnixDatagram::bind(&path).expect("a socket"),
            path: path.to_str().expect("text").to_owned(),
            _folder: folder,
        }
    }

    /// In the abstract namespace.
    fn unseen() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().to_str().expect("text").to_owned();
        let addr = SocketAddr::from_abstract_name(&name).expect("an address");
        Self {
            socket: UnixDatagram::bind_addr(&addr).expect("a socket"),
            path: format!("@{name}"),
            _folder: folder,
        }
    }

    pub(crate) fn plan(&self, sentinel: &FakeSentinel) -> Plan {
        Plan::following(&[sentinel.addr()])
            .env("NOTIFY_SOCKET", &self.path)
            .env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", "1s")
    }

    /// The next message, if one comes in time.
    pub(crate) fn message(&self, within: Duration) -> Option<String> {
        self.socket
            .set_read_timeout(Some(within))
            .expect("a socket");
        let mut bytes = [0; 4096];
        match self.socket.recv(&mut bytes) {
            Ok(n) => Some(String::from_utf8(bytes[..n].to_vec()).expect("text")),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(e) => panic!("{e}"),
        }
    }

    /// The next message of which this holds; every other one until then.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&str) -> bool) -> (String, Vec<String>) {
        let deadline = now() + SOON;
        let mut others = Vec::new();
        loop {
            let left = deadline.since(now());
            assert!(!left.is_zero(), "never: {what}; instead {others:?}");
            match self.message(left) {
                Some(message) if holds(&message) => return (message, others),
                Some(message) => others.push(message),
                None => {}
            }
        }
    }
}

fn stage() -> (FakeMaster, FakeSentinel) {
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    (master, sentinel)
}

#[test]
fn the_manager_hears_of_the_start_the_state_and_the_end() {
    for manager in [Manager::new(), Manager::unseen()] {
        let (master, sentinel) = stage();
        let mut proxy = manager.plan(&sentinel).start();
        assert_eq!(manager.message(SOON).as_deref(), Some("READY=1"));
        // Ready is who listens, whatever the state of Redis.
        let mut client = connect(proxy.addr());
        assert_eq!(echoed(&mut client, b"served"), b"served");
        let expected = format!("STATUS=1 session to {}", master.addr());
        manager.until("the state", |message| message == expected);
        reset(client);
        let expected = format!("STATUS=0 sessions to {}", master.addr());
        manager.until("the next state", |message| message == expected);

        let mut client = connect(proxy.addr());
        assert_eq!(echoed(&mut client, b"served"), b"served");
        proxy.ask_to_end();
        let (stopping, others) = manager.until("the end", |message| message.contains("STOPPING=1"));
        assert!(
            others.iter().all(|message| message.starts_with("STATUS=")),
            "{others:?}"
        );
        let asked = stopping
            .lines()
            .find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
        let asked: u64 = asked.and_then(|usec| usec.parse().ok()).expect("a number");
        assert!(asked > 1_000_000, "less than the grace: {asked}");
        assert!(code(proxy.exit(AT_ONCE)) == 0);
    }
}

/// Several entries in one line, and what it says of a drain.
#[test]
fn the_state_names_entries_and_the_drain() {
    let manager = Manager::new();
    let (master, sentinel) = (FakeMaster::start(Bytes::Sink), free_address());
    let first = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let text = format!(
        "[sentinel]\naddresses = [\"{}\", \"{sentinel}\"]\n[failover]\non_switch = \"close\"\n[limits]\nshutdown_grace = \"3s\"\n\
         [[proxy]]\nname = \"a\"\nlisten = [\"127.0.0.1:0\"]\n\
         [[proxy]]\nname = \"b\"\nmaster = \"other\"\nlisten = [\"127.0.0.1:0\"]\n",
        first.addr()
    );
    let mut proxy = Plan::bare(["run", "--log-format", "json"])
        .config(text)
        .env("NOTIFY_SOCKET", &manager.path)
        .start();
    let expected = format!(
        "STATUS=a: 0 sessions to {}; b: no master yet, 0 sessions",
        master.addr()
    );
    manager.until("both entries", |message| message == expected);
    let mut client = connect(proxy.addr_of("a"));
    std::io::Write::write_all(&mut client, b"question").expect("written");
    let expected = format!(
        "STATUS=a: 1 session to {}; b: no master yet, 0 sessions",
        master.addr()
    );
    manager.until("a session", |message| message == expected);
    proxy.ask_to_end();
    let expected = format!(
        "STATUS=Draining: a: 1 session to {}; b: no master yet, 0 sessions",
        master.addr()
    );
    manager.until("the drain", |message| message == expected);
    assert_eq!(code(proxy.exit(AT_ONCE)), CUT);
}

#[test]
fn who_cannot_listen_is_not_ready() {
    let manager = Manager::new();
    let (_master, sentinel) = stage();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound").to_string();
    let mut proxy = manager.plan(&sentinel).args(["--listen", &addr]).start();
    assert_eq!(code(proxy.exit(SOON)), 73);
    assert_eq!(manager.message(Duration::from_millis(1)), None);
}

#[test]
fn the_watchdog_is_fed_while_all_turn_and_not_while_they_stand_still() {
    let manager = Manager::new();
    let (_master, sentinel) = stage();
    let period = PERIOD.as_micros().to_string();
    let proxy = Proxy::ready(
        manager
            .plan(&sentinel)
            .env("WATCHDOG_USEC", &period)
            .env("SWITCHMASTER_LIMITS_WORKERS", "3"),
    );
    let is_food = |message: &str| message == "WATCHDOG=1";
    for _ in 0..3 {
        manager.until("food", is_food);
    }
    proxy.freeze();
    // What was said before is heard first.
    while manager.message(Duration::from_millis(1)).is_some() {}
    assert_eq!(manager.message(PERIOD), None, "it stands still");
    proxy.thaw();
    manager.until("food again", is_food);
}

/// A watchdog is for one process: a child that inherits the variables is not asked.
#[test]
fn somebody_elses_watchdog_is_not_fed() {
    let manager = Manager::new();
    let (_master, sentinel) = stage();
    let _proxy = Proxy::ready(
        manager
            .plan(&sentinel)
            .env("WATCHDOG_USEC", "200000")
            .env("WATCHDOG_PID", "1"),
    );
    let mut heard = Vec::new();
    while let Some(message) = manager.message(Duration::from_secs(2)) {
        heard.push(message);
    }
    assert!(heard.contains(&"READY=1".to_owned()), "{heard:?}");
    assert!(!heard.contains(&"WATCHDOG=1".to_owned()), "{heard:?}");
}

/// A manager that is gone, or does not read, is no reason to serve nobody.
#[test]
fn without_a_manager_at_the_other_end_it_serves_all_the_same() {
    let (_master, sentinel) = stage();
    for path in ["/nonexistent/notify", "vsock:2:1"] {
        let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]).env("NOTIFY_SOCKET", path));
        let mut client = connect(proxy.addr());
        assert_eq!(echoed(&mut client, b"served"), b"served");
        proxy.event("manager_unreachable", SOON);
    }
}

/// RELOADING with the time at which it began, and READY behind it, whatever came of it (sd_notify(3)).
#[test]
fn the_manager_hears_when_a_reload_begins_and_ends() {
    let manager = Manager::new();
    let (_master, sentinel) = stage();
    let right = format!(
        "[sentinel]\naddresses = [\"{}\"]\n[[proxy]]\nlisten = [\"127.0.0.1:0\"]\n",
        sentinel.addr()
    );
    let proxy = Plan::bare(["run", "--log-format", "json"])
        .config(right.clone())
        .env("NOTIFY_SOCKET", &manager.path)
        .start();
    assert_eq!(manager.message(SOON).as_deref(), Some("READY=1"));
    let changed = format!("{right}max_connections = 5\n");
    let mut last = 0;
    for (text, event) in [
        (&right, "reload_unchanged"),
        (&changed, "reloaded"),
        (&"[sentinel\n".to_owned(), "reload_failed"),
    ] {
        proxy.rewrite(text);
        let mark = proxy.mark();
        proxy.hang_up();
        let (reloading, others) = manager.until("the reload", |m| m.starts_with("RELOADING=1\n"));
        assert!(!others.iter().any(|m| m == "READY=1"), "{others:?}");
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let since: u64 = since.and_then(|usec| usec.parse().ok()).expect("a number");
        assert!(since > last, "{since} behind {last}");
        last = since;
        manager.until("the end of the reload", |m| m == "READY=1");
        proxy.event_after(mark, event, SOON);
    }
}
