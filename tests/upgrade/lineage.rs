//! Processes that follow each other. All of them write to the first one's log.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use switchmaster::demo::wire::{Conn, Value};

use crate::UPGRADE;
use crate::harness::proxy::{Event, Plan, Proxy};
use crate::harness::wait_until;

/// Longest end of a process that has nothing left to serve.
const END: Duration = Duration::from_secs(20);

/// See the head of this file. Every one of them is killed when dropped.
pub(crate) struct Lineage {
    pub(crate) proxy: Proxy,
    /// Where clients connect.
    pub(crate) addr: SocketAddr,
    pids: Vec<u32>,
}

impl Lineage {
    pub(crate) fn begin(plan: Plan) -> Self {
        let proxy = Proxy::ready(plan);
        let addr = proxy.addr();
        Self::of(proxy, addr)
    }

    /// A process that runs already.
    pub(crate) fn of(proxy: Proxy, addr: SocketAddr) -> Self {
        Self {
            addr,
            pids: vec![proxy.pid()],
            proxy,
        }
    }

    /// The one that serves.
    pub(crate) fn pid(&self) -> u32 {
        *self.pids.last().expect("the first one")
    }

    /// SIGUSR2 to the one that serves; does not wait.
    pub(crate) fn ask(&self) {
        signal(self.pid(), Signal::USR2);
    }

    /// Begins an upgrade, and gives the process that is to follow.
    pub(crate) fn start(&mut self) -> u32 {
        let mark = self.proxy.mark();
        self.ask();
        let started = self.proxy.event_after(mark, "upgrade_started", UPGRADE);
        let pid = started.fields["pid"].as_u64().expect("a number");
        let pid = u32::try_from(pid).expect("a process");
        self.add(pid);
        pid
    }

    /// Another one was started.
    pub(crate) fn add(&mut self, pid: u32) {
        self.pids.push(pid);
    }

    /// A whole upgrade: gives the old process's last word on it.
    pub(crate) fn upgrade(&mut self) -> Event {
        let mark = self.proxy.mark();
        let pid = f64::from(self.start());
        let is_it = |fields: &serde_json::Value| fields["pid"].as_f64() == Some(pid);
        let finished = self
            .proxy
            .event_where(mark, "upgrade_finished", UPGRADE, is_it);
        self.proxy.event_where(mark, "took_over", UPGRADE, is_it);
        finished
    }

    /// One of them has come to its end.
    pub(crate) fn wait_for_end(&mut self, pid: u32) {
        if pid == self.proxy.pid() {
            wait_until("the first process to end", END, || !self.proxy.is_running());
        } else {
            wait_until("a process to end", END, || !runs(pid));
        }
    }

    /// It was started, and does not serve.
    pub(crate) fn forget_last(&mut self) {
        let pid = self.pids.pop().expect("at least the first");
        wait_until("a process to end", END, || !runs(pid));
    }
}

impl Drop for Lineage {
    fn drop(&mut self) {
        for pid in self.pids.iter().skip(1) {
            kill(*pid);
        }
    }
}

/// SIGKILL to a process of a lineage; it may have ended.
pub(crate) fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    let _ = kill_process(pid, Signal::KILL);
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    kill_process(pid, signal).expect("a process of this test");
}

/// It runs, and is no zombie that nobody waits for.
pub(crate) fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|s| s.starts_with('Z')))
}

/// Descriptors that it has open.
pub(crate) fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// A client that was answered once, and waits.
pub(crate) fn client(addr: SocketAddr) -> Conn {
    let mut conn = Conn::connect(addr, Duration::from_secs(20)).expect("somebody listens");
    ping(&mut conn);
    conn
}

/// It is still served, on the same connection.
pub(crate) fn ping(conn: &mut Conn) {
    assert_eq!(call(conn, &["PING"]), Value::Simple("PONG".to_owned()));
}

pub(crate) fn call(conn: &mut Conn, args: &[&str]) -> Value {
    conn.call(args)
        .unwrap_or_else(|e| panic!("{args:?} on a connection that should live: {e}"))
}
