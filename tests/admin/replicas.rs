//! What is shown of an entry that leads to replicas, and what operators can do with it.

use std::time::Duration;

use switchmaster::demo::wire::Conn;

use crate::actions::{act, acting};
use crate::harness::proxy::Plan;
use crate::harness::topology::{FOLLOW, Topology, port_of};
use crate::harness::{wait_for, wait_until};
use crate::{admin_of, get, series, status};

#[test]
fn an_entry_of_replicas_is_shown_paused_and_reconnected() {
    let servers = Topology::start();
    let master = servers.master().addr();
    let plan = Plan::moving(&servers.sentinels()).env("SWITCHMASTER_PROXY_ROLE", "replica");
    let proxy = acting(plan);
    let admin = admin_of(&proxy);
    let usable = || {
        let all = status(admin)["proxies"][0]["reads"]["replicas"].clone();
        let all = all.as_array().cloned().unwrap_or_default();
        all.iter().filter(|of| of["usable"] == true).count()
    };
    wait_until(
        "two replicas to be read from",
        Duration::from_secs(30),
        || usable() == 2,
    );
    let mut conn = Conn::connect(proxy.addr(), FOLLOW).expect("the proxy listens");
    let port = port_of(&mut conn).expect("a replica answers");
    assert_ne!(port, master.port());
    let headline = status(admin)["proxies"][0]["headline"].to_string();
    assert!(headline.contains("from 2 of 2 replicas"), "{headline}");
    wait_until("its session to be counted", FOLLOW, || {
        let metrics = get(admin, "/metrics").1;
        let line =
            format!("switchmaster_replica_sessions{{proxy=\"main\",replica=\"127.0.0.1:{port}\"}}");
        series(&metrics, &line).is_some_and(|sessions| sessions >= 1.0)
    });
    assert!(get(admin, "/").1.contains("Read from"));

    act(admin, "pause");
    conn.send(&["CONFIG", "GET", "port"]).expect("sent");
    assert!(
        matches!(conn.readable(Duration::from_millis(300)), Ok(false)),
        "it waits"
    );
    let resumed = act(admin, "resume");
    assert_eq!(resumed["after"], "serving", "{resumed}");
    let answer = conn.read().expect("it is answered");
    assert!(!answer.is_error(), "{answer:?}");
    let answer = act(admin, "reconnect");
    assert_eq!(answer["upstreams_left"], 0, "{answer}");
    let after = wait_for("it to be served again", FOLLOW, || port_of(&mut conn));
    assert_ne!(after, master.port());
}
