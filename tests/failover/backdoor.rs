//! The master changes behind Sentinel's back: it is demoted by `FAILOVER`, or comes back empty. Rows 17 and 19.

use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value};
use switchmaster::net::clock::now;

use crate::harness::topology::{
    FAILOVER, FOLLOW, Topology, follows, idle_client, loses_upstream, port_of, serves,
};
use crate::harness::{wait_for, wait_until};

/// The master is asked for its role every 5 s.
const ONE_ROUND: Duration = Duration::from_secs(6);
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn row_17_failover_behind_sentinels_back() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let old = servers.master().addr();
    let mut kept = idle_client(&proxy);
    let mark = proxy.mark();
    let reply = servers.direct(old).call(&["FAILOVER"]);
    assert_eq!(
        reply.expect("the master answers"),
        Value::Simple("OK".to_owned())
    );
    let demoted = wait_for("the roles to be swapped", FOLLOW * 3, || {
        let role = servers.direct(old).call(&["ROLE"]).ok()?;
        let said = role.items().first()?.text()?;
        (said == "slave").then(|| {
            let port = role.items()[2].text().and_then(|port| port.parse().ok());
            (now(), port.expect("ROLE tells the master's port"))
        })
    });
    let (since, by_role): (_, u16) = demoted;
    let reported = ([127, 0, 0, 1], by_role).into();

    // Redis' own words pass; after one check of the role nobody is sent to a replica any more.
    if let Ok(reply) = kept.call(&["SET", "row17", "kept"]) {
        assert!(
            matches!(&reply, Value::Error(text) if text.starts_with("READONLY")),
            "{reply:?}"
        );
    }
    let hold = proxy.event_after(mark, "hold_begin", ONE_ROUND);
    println!("held {:?} after the demotion", now().since(since));
    assert_eq!(hold.text("cause"), "master_says_replica", "{}", hold.fields);
    let mut newcomer = Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens");
    newcomer.send(&["SET", "row17", "held"]).expect("sent");

    // Sentinel still names the demoted node. The one that ROLE names is not for us to choose.
    wait_until("Sentinel's own switch", PATIENCE, || {
        let switched = !proxy.events(mark, "switched").is_empty();
        assert!(
            switched || proxy.sockets_to(reported) == 0,
            "dialled the node that ROLE names"
        );
        switched
    });
    let master = servers.settle();
    wait_until("the proxy to serve the Sentinels' master", FAILOVER, || {
        Conn::connect(proxy.addr(), FOLLOW)
            .is_ok_and(|mut conn| port_of(&mut conn) == Some(master.port()))
    });
    loses_upstream(&mut kept, FOLLOW);
}

#[test]
fn row_19_master_restarts_empty() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let master = servers.master();
    let mut idle = idle_client(&proxy);
    let stored = idle.call(&["SET", "row19", "gone"]);
    assert_eq!(stored.expect("served"), Value::Simple("OK".to_owned()));
    let mark = proxy.mark();

    master.kill().expect("SIGKILL");
    loses_upstream(&mut idle, FOLLOW);
    // Faster than the Sentinels can call it down.
    master.restart().expect("it starts without data");
    let mut newcomer = Conn::connect(proxy.addr(), FOLLOW).expect("the proxy listens");
    let read = newcomer.call(&["GET", "row19"]).expect("served");
    assert_eq!(read, Value::Nil, "what Redis forgot is not ours to hide");
    serves(&proxy, master.addr(), FOLLOW);
    let switched = proxy.events(mark, "switched");
    assert!(switched.is_empty(), "the master did not move: {switched:?}");
    assert_eq!(servers.settle(), master.addr(), "nor the Sentinels' view");

    // And it is watched as before.
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    loses_upstream(&mut newcomer, FOLLOW);
}
