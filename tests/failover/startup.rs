//! The proxy is there before its Sentinels, and real clients before its master.

use std::thread;
use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value, WireError};

use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{FOLLOW, Topology, idle_client};
use crate::harness::{raise_descriptor_limit, wait_until};

/// Longer than the first client has to wait.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn sentinels_come_up_5_s_after_the_proxy() {
    let servers = Topology::start_with(|options| options.start_sentinels = false);
    let proxy = Plan::following(&servers.sentinels()).start();
    let mut early = Conn::connect(proxy.addr(), Duration::from_secs(5)).expect("the proxy listens");
    early.send(&["SET", "early", "bird"]).expect("sent");
    assert!(
        matches!(early.read(), Err(WireError::Timeout(_))),
        "held, not refused"
    );
    proxy.event("waiting", FOLLOW);

    for index in 0..servers.sentinels().len() {
        servers
            .cluster()
            .start_sentinel(index)
            .expect("it has its configuration");
    }
    early.set_timeout(PATIENCE);
    let reply = early.read().expect("served once a master is verified");
    assert_eq!(reply, Value::Simple("OK".to_owned()));
    proxy.event("ready", FOLLOW);
}

#[test]
fn two_thousand_connections_at_once() {
    const CLIENTS: usize = 2000;
    raise_descriptor_limit();
    let servers = Topology::start_with(|options| {
        options.replicas = 0;
        options.sentinels = 1;
        options.quorum = 1;
    });
    let proxy = servers.proxy();
    drop(idle_client(&proxy));
    // What that client left may be kept for the next one for a moment; the proxy's own control connection stays.
    let master = servers.master().addr();
    wait_until("upstreams to be closed", PATIENCE, || {
        proxy.sockets_to(master) <= 1
    });
    let before = settled_fds(&proxy);

    let mut clients: Vec<Conn> = (0..CLIENTS)
        .map(|_| Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens"))
        .collect();
    for client in &mut clients {
        client.send(&["PING"]).expect("sent");
    }
    for client in &mut clients {
        let reply = client.read().expect("answered");
        assert_eq!(reply, Value::Simple("PONG".to_owned()));
    }
    assert!(
        proxy.open_fds() >= before + 2 * CLIENTS,
        "two descriptors a session"
    );
    drop(clients);
    wait_until("descriptors to be back where they were", PATIENCE, || {
        proxy.open_fds() <= before
    });
}

/// The number of descriptors once nothing is being opened or closed any more.
fn settled_fds(proxy: &Proxy) -> usize {
    let mut last = 0;
    wait_until("descriptors to be calm", PATIENCE, || {
        thread::sleep(Duration::from_millis(300));
        let now = proxy.open_fds();
        std::mem::replace(&mut last, now) == now
    });
    last
}
