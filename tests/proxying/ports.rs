//! More connections to a master than this host has ports for (`EADDRNOTAVAIL`), in a network namespace with a handful of
//! them. Root only; what a dial makes of the error is tested with `upstream` and always runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::holds_for;
use crate::harness::network::Network;
use crate::harness::proxy::{Plan, Proxy};
use crate::{SOON, assert_silent, connect};

/// Ports that the proxy may dial from, one of which is the control plane's. It listens on another.
const PORTS: usize = 16;
/// Clients beyond them.
const LATE: usize = 5;
/// How long they are watched in waiting.
const WATCH: Duration = Duration::from_secs(1);

#[test]
fn clients_without_a_port_wait_for_one_and_nobody_else_notices() {
    let Some(network) = Network::make() else {
        return;
    };
    let last = 40_000 + PORTS - 1;
    network.set("ip_local_port_range", &format!("40000 {last}"));
    let near = || (network.near(), 0).into();
    let (master, next) = (
        FakeMaster::start_at(near(), Bytes::Echo),
        FakeMaster::start_at(near(), Bytes::Echo),
    );
    let sentinel = FakeSentinel::start_at(near(), Protocol::Resp3, View::of(master.addr()));
    let proxy = Proxy::ready(
        Plan::bare(["run", "--log-format", "json"])
            .config(format!(
                "[sentinel]\naddresses = [\"{}\"]\n[failover]\nhold_max = \"60s\"\n\
                 [[proxy]]\nname = \"main\"\nmaster = \"mymaster\"\nlisten = [\"{}:7000\"]\nallow_from = [\"10.0.0.0/8\"]\nspare_upstreams = false\n",
                sentinel.addr(),
                network.far(0)
            ))
            .env("SWITCHMASTER_FAILOVER_ON_SWITCH", "move")
            .within(&network),
    );
    let mut served: Vec<TcpStream> = (1..PORTS).map(|_| connect(proxy.addr())).collect();
    for client in &mut served {
        ask(client);
        hear(client);
    }
    let mark = proxy.mark();

    let mut late: Vec<TcpStream> = (0..LATE).map(|_| connect(proxy.addr())).collect();
    for client in &mut late {
        ask(client);
    }
    let failed = proxy.event_after(mark, "dial_failed", SOON);
    assert_eq!(failed.text("reason"), "no_port");
    assert!(failed.text("message").contains("ip_local_port_range"));
    for client in &mut late {
        assert_silent(client, Duration::from_millis(50));
    }
    let status = proxy.status();
    assert!(status.number("no_port") >= 1.0, "{}", status.fields);
    assert_eq!(status.number("no_port"), status.number("dial_failures"));
    // It says nothing of the master: nobody is held for it.
    holds_for("service", WATCH, || {
        ask(&mut served[0]);
        hear(&mut served[0]);
        ["hold_begin", "switched", "session_closed"]
            .iter()
            .all(|event| proxy.events(mark, event).is_empty())
    });

    // In order: it is the proxy that gives the ports back at once, and keeps none in TIME_WAIT.
    served.drain(..LATE).for_each(drop);
    for client in &mut late {
        client.set_read_timeout(Some(SOON)).expect("a socket");
        hear(client);
    }

    // Full again, and a failover is followed: towards another address every port is free.
    sentinel.switch_master(next.addr());
    let switched = proxy.event_after(mark, "switched", SOON);
    assert_eq!(switched.text("to"), next.addr().to_string());
    let mut new = connect(proxy.addr());
    ask(&mut new);
    hear(&mut new);
    proxy.ask_to_end();
    let stopped = proxy.event("stopped", SOON);
    let counted = stopped.number("no_port");
    assert!(counted >= status.number("no_port"), "{}", stopped.fields);
    assert_eq!(counted, stopped.number("dial_failures"));
}

fn ask(client: &mut TcpStream) {
    client.write_all(b"*1\r\n$4\r\nPING\r\n").expect("written");
}

fn hear(client: &mut TcpStream) {
    let mut pong = [0; 7];
    client.read_exact(&mut pong).expect("answered");
    assert_eq!(&pong, b"+PONG\r\n");
}
