//! What stands between the clients and the master: the program in one of its configurations, or HAProxy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use switchmaster::demo::guard;
use switchmaster::demo::wire::{Conn, Value};

use crate::harness::cost::Taking;
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::free_address;
use crate::harness::wait_until;

/// A healthy start takes some milliseconds.
const START: Duration = Duration::from_secs(15);
const ASK: Duration = Duration::from_secs(2);
/// Where packages put it, when root's `sbin` is not in `PATH`.
const HAPROXY: [&str; 2] = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"];

/// A program and how it is configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub(crate) label: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Switchmaster(&'static [(&'static str, &'static str)]),
    HaProxy,
}

/// As it comes.
pub(crate) const SWITCHMASTER: Subject = Subject {
    label: "switchmaster",
    kind: Kind::Switchmaster(&[]),
};
pub(crate) const WITHOUT_SPARES: Subject = Subject {
    label: "switchmaster, spare_upstreams = false",
    kind: Kind::Switchmaster(&[("SWITCHMASTER_PROXY_SPARE_UPSTREAMS", "false")]),
};
pub(crate) const CLOSING: Subject = Subject {
    label: "switchmaster, on_switch = \"close\"",
    kind: Kind::Switchmaster(&[("SWITCHMASTER_FAILOVER_ON_SWITCH", "close")]),
};
/// TCP mode, no checks, no log: forwarding and nothing else.
pub(crate) const HAPROXY_TCP: Subject = Subject {
    label: "HAProxy",
    kind: Kind::HaProxy,
};
/// The same program once more: what two runs of one program differ by.
pub(crate) const HAPROXY_AGAIN: Subject = Subject {
    label: "HAProxy again",
    kind: Kind::HaProxy,
};

/// It runs; ends with its value.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    program: Program,
}

#[derive(Debug)]
enum Program {
    Switchmaster(Proxy),
    HaProxy(HaProxy),
}

#[derive(Debug)]
struct HaProxy {
    child: Child,
    _config: tempfile::TempPath,
}

impl Subject {
    /// Starts it before this master; it answers when this returns.
    pub(crate) fn start(&self, sentinels: &[SocketAddr], master: SocketAddr) -> Running {
        let running = match self.kind {
            Kind::Switchmaster(env) => {
                let plan = env
                    .iter()
                    .fold(Plan::moving(sentinels), |plan, (k, v)| plan.env(k, v));
                let proxy = Proxy::ready(plan);
                Running {
                    addr: proxy.addr(),
                    program: Program::Switchmaster(proxy),
                }
            }
            Kind::HaProxy => HaProxy::start(master),
        };
        wait_until(self.label, START, || {
            let pong = Conn::connect(running.addr, ASK).and_then(|mut conn| conn.call(&["PING"]));
            pong.is_ok_and(|pong| pong == Value::Simple("PONG".to_owned()))
        });
        running
    }
}

impl Running {
    /// Takes its processor time from now on.
    pub(crate) fn taking(&self) -> Taking {
        Taking::of([match &self.program {
            Program::Switchmaster(proxy) => proxy.pid(),
            Program::HaProxy(haproxy) => haproxy.child.id(),
        }])
    }

    /// Dials for which there was no port; `None` of a program that does not tell.
    pub(crate) fn no_port(&self) -> Option<f64> {
        match &self.program {
            Program::Switchmaster(proxy) => Some(proxy.status().number("no_port")),
            Program::HaProxy(_) => None,
        }
    }
}

impl HaProxy {
    fn start(master: SocketAddr) -> Running {
        let addr = free_address();
        let text = format!(
            "global\n  nbthread 1\n  maxconn 9000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
             timeout server 1h\nlisten redis\n  bind {addr} backlog 4096\n  server master {master}\n"
        );
        let config = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(config.path(), text).expect("a temporary file");
        let mut command = guard::command(
            Path::new(env!("CARGO_BIN_EXE_switchmaster")),
            "haproxy".as_ref(),
            haproxy().as_os_str(),
        );
        command
            .args(["-db", "-q", "-f"])
            .arg(config.path())
            .stdin(Stdio::null());
        let child = guard::spawn(command).unwrap_or_else(|e| panic!("haproxy: {e}"));
        Running {
            addr,
            program: Program::HaProxy(Self {
                child,
                _config: config.into_temp_path(),
            }),
        }
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn haproxy() -> PathBuf {
    let found = |program: &&str| Command::new(program).arg("-v").output().is_ok();
    let named = std::iter::once("haproxy")
        .chain(HAPROXY)
        .find(|program| found(program));
    named
        .map(PathBuf::from)
        .expect("haproxy is installed: scripts/setup proxies does it")
}
