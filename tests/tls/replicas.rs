//! An entry that leads to replicas, where every server speaks nothing but TLS and asks for a login.

use std::net::SocketAddr;
use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value};

use super::harness::authority::Authority;
use super::harness::proxy::{Plan, Proxy};
use super::harness::secure::everywhere;
use super::harness::stream::SOON;
use super::harness::topology::{FOLLOW, Topology, port_of};
use super::harness::wait_for;

const PASSWORD: &str = "of-an-application";
/// Until two replicas are proven good.
const JOIN: Duration = Duration::from_secs(30);

fn servers() -> Topology {
    let papers = everywhere();
    let user = format!("user application on >{PASSWORD} ~* &* +@all");
    Topology::start_with(|options| {
        papers.secure(options);
        options.extra_node_config.push(user);
    })
}

fn reading(servers: &Topology) -> Plan {
    Plan::moving(&servers.sentinels())
        .secure(everywhere())
        .env("SWITCHMASTER_PROXY_ROLE", "replica")
        .env("SWITCHMASTER_PROXY_LOGIN_USERNAME", "application")
        .env("SWITCHMASTER_PROXY_LOGIN_PASSWORD", PASSWORD)
}

fn joined(proxy: &Proxy, mark: usize, replicas: usize) {
    wait_for("replicas to be read from", JOIN, || {
        (proxy.events(mark, "replica_joined").len() >= replicas).then_some(())
    });
}

fn client(proxy: &Proxy) -> Conn {
    Conn::connect(proxy.addr(), SOON).expect("it listens")
}

fn who(conn: &mut Conn) -> Option<String> {
    conn.call(&["ACL", "WHOAMI"]).ok()?.text()
}

fn others(servers: &Topology, master: SocketAddr) -> Vec<u16> {
    let nodes = servers.cluster().nodes().iter().map(|node| node.addr());
    nodes
        .filter(|addr| *addr != master)
        .map(|addr| addr.port())
        .collect()
}

/// Probes, lanes and what the Sentinels list go over TLS; each connection to a replica is logged in; a renewed certificate is for all
/// of them; and a session that goes to another replica has all of that there.
#[test]
fn clients_are_led_to_replicas_as_the_application() {
    let servers = servers();
    let papers = everywhere();
    let folder = tempfile::tempdir().expect("a folder");
    let [cert, key] = ["app.crt", "app.key"].map(|name| folder.path().join(name));
    let put = |from: &super::harness::authority::Pair| {
        std::fs::copy(&from.cert, &cert).expect("copied");
        std::fs::copy(&from.key, &key).expect("copied");
    };
    put(&papers.client);
    let plan = reading(&servers)
        .env("SWITCHMASTER_PROXY_UPSTREAM_TLS_CERT_FILE", &cert)
        .env("SWITCHMASTER_PROXY_UPSTREAM_TLS_KEY_FILE", &key);
    let proxy = Proxy::ready(plan);
    joined(&proxy, 0, 2);
    let replicas = others(&servers, servers.master().addr());
    let mut kept = client(&proxy);
    assert_eq!(who(&mut kept).as_deref(), Some("application"));
    let port = port_of(&mut kept).expect("an answer");
    assert!(replicas.contains(&port), "{port}: {replicas:?}");

    put(&papers.server);
    let mark = proxy.mark();
    proxy.hang_up();
    let reloaded = proxy.event_after(mark, "reloaded", SOON);
    let changed = reloaded.text("changed");
    assert!(
        changed.contains("proxy.upstream_tls.cert_file"),
        "{changed}"
    );
    assert_eq!(port_of(&mut kept), Some(port), "not concerned");
    let mut new = client(&proxy);
    assert_eq!(who(&mut new).as_deref(), Some("application"));

    // What was the master is a replica, and one of the replicas the master.
    let switch = servers.fail_over(0);
    servers.ready_again(switch);
    let replicas = others(&servers, switch.new);
    for conn in [&mut kept, &mut new] {
        let port = wait_for("a replica to answer", FOLLOW, || {
            port_of(conn).filter(|port| replicas.contains(port))
        });
        assert_eq!(who(conn).as_deref(), Some("application"), "{port}");
    }
    assert!(proxy.events(0, "login_refused").is_empty());
}

/// A replica that shows what nobody here vouches for is there, and nobody is led to it.
#[test]
fn a_replica_that_cannot_be_believed_is_not_read_from() {
    let servers = servers();
    let proxy = Proxy::ready(reading(&servers));
    joined(&proxy, 0, 2);
    let master = servers.master().addr();
    let folder = tempfile::tempdir().expect("a folder");
    let stranger = Authority::new(folder.path(), "other").sign("stranger", &["127.0.0.1"]);
    let nodes = servers.cluster().nodes().iter();
    let spoilt = { nodes }.find(|node| node.addr() != master).expect("two");
    let mut conn = spoilt.connect().expect("it runs");
    let [cert, key] = [&stranger.cert, &stranger.key].map(|path| path.display().to_string());
    let set = [
        "CONFIG",
        "SET",
        "tls-cert-file",
        &cert,
        "tls-key-file",
        &key,
    ];
    assert_eq!(
        conn.call(&set).expect("an answer"),
        Value::Simple("OK".to_owned())
    );
    let mark = proxy.mark();
    let killed = conn.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(killed.is_ok_and(|answer| !answer.is_error()));
    let addr = spoilt.addr().to_string();
    let left = proxy.event_where(mark, "replica_left", SOON, |fields| fields["addr"] == *addr);
    assert_eq!(left.text("reason"), "refused", "{}", left.fields);
    for _ in 0..4 {
        let port = wait_for("the other one to answer", FOLLOW, || {
            port_of(&mut client(&proxy))
        });
        assert!(
            port != spoilt.addr().port() && port != master.port(),
            "{port}"
        );
    }
}
