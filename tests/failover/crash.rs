//! The master dies, hangs, or comes back: rows 1 to 4 and 18.

use std::thread;
use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::Conn;

use crate::harness::history::{Outcome, Writers};
use crate::harness::proxy::Event;
use crate::harness::topology::{
    FAILOVER, FOLLOW, Topology, follows, idle_client, is_closed, loses_upstream, port_of, serves,
};
use crate::harness::{holds_for, wait_until};

/// Goal: 50 ms after the upstream's end.
const CUT: Duration = Duration::from_millis(500);
const PACE: Duration = Duration::from_millis(1);
/// How long a client waits that has come in the middle of an outage.
const OUTAGE: Duration = Duration::from_secs(60);

#[test]
fn row_01_sigkill_master_clients_idle() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let old = servers.master().addr();
    let mut idle: Vec<Conn> = (0..5).map(|_| idle_client(&proxy)).collect();
    let mark = proxy.mark();

    servers.node(old).kill().expect("SIGKILL");
    for client in &mut idle {
        loses_upstream(client, CUT);
    }
    let addr = proxy.addr();
    let newcomer = thread::spawn(move || {
        let mut conn = Conn::connect(addr, OUTAGE).expect("the proxy listens during an outage");
        port_of(&mut conn)
    });
    let switch = servers.switched_from(old);
    let switched = follows(&proxy, mark, switch);

    let served_by = newcomer.join().expect("the waiting client");
    assert_eq!(
        served_by,
        Some(switch.new.port()),
        "held, then served by the new master"
    );
    let hold = proxy.event_after(mark, "hold_begin", Duration::ZERO);
    assert!(
        hold.index < switched.index,
        "held from the crash on, not from the switch"
    );
    proxy.event_after(hold.index, "hold_end", FOLLOW);
}

#[test]
fn row_02_sigkill_writes_in_flight() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let old = servers.master().addr();
    let writers = Writers::start(proxy.addr(), 4, PACE);
    let mut blocked = idle_client(&proxy);
    blocked.send(&["BLPOP", "nothing", "0"]).expect("sent");
    let mark = proxy.mark();

    let killed = SystemTime::now();
    servers.node(old).kill().expect("SIGKILL");
    is_closed(&mut blocked, CUT);
    let switch = servers.switched_from(old);
    let switched = follows(&proxy, mark, switch);
    writers.all_acknowledged_after(switched.written(), FOLLOW);
    let history = writers.stop();

    let mut new = servers.direct(switch.new);
    history.assert_at_most_once(&mut new);
    history.assert_lost_only_before(killed, &mut new);
    assert_eq!(
        history.count(|o| matches!(o, Outcome::Refused(_))),
        0,
        "no invented errors"
    );
    // A dying process' listener is closed after its connections: who is back within that millisecond reaches it
    // once more, and ends with a second unanswered write. A session that moves and had none is not closed at all.
    assert_eq!(
        history.reconnects.iter().sum::<usize>(),
        history.count(|o| *o == Outcome::Unknown),
        "no disconnect without an unanswered write"
    );
    assert!(
        history.reconnects.iter().all(|n| *n <= 3),
        "each writer is cut and then held: {:?}",
        history.reconnects
    );
}

#[test]
fn row_03_sigstop_master_stays_stopped() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let old = servers.master().addr();
    let writers = Writers::start(proxy.addr(), 4, PACE);
    let mut idle = idle_client(&proxy);
    let mut blocked = idle_client(&proxy);
    blocked.send(&["BLPOP", "nothing", "0"]).expect("sent");
    let mark = proxy.mark();

    servers.node(old).freeze().expect("SIGSTOP");
    let switch = servers.switched_from(old);
    let switched = follows(&proxy, mark, switch);

    // The frozen node sends no FIN: these end because of the switch.
    loses_upstream(&mut idle, CUT);
    is_closed(&mut blocked, CUT);
    writers.all_acknowledged_after(switched.written(), FOLLOW);
    serves(&proxy, switch.new, FOLLOW);
    let history = writers.stop();
    let mut new = servers.direct(switch.new);
    history.assert_at_most_once(&mut new);
    history.assert_lost_only_before(switched.written(), &mut new);
}

#[test]
fn row_04_sigstop_master_then_sigcont() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let old = servers.master().addr();
    let writers = Writers::start(proxy.addr(), 4, PACE);
    let mark = proxy.mark();

    servers.node(old).freeze().expect("SIGSTOP");
    let switch = servers.switched_from(old);
    let switched = follows(&proxy, mark, switch);
    writers.all_acknowledged_after(switched.written(), FOLLOW);
    holds_for(
        "no socket to the frozen master",
        Duration::from_secs(3),
        || proxy.sockets_to(old) == 0,
    );
    servers.node(old).thaw().expect("SIGCONT");

    // It is a writable master again, for 8 s at least, with everything its sockets had taken in.
    let mut awake = servers.direct(old);
    holds_for(
        "no socket to the thawed master",
        Duration::from_secs(3),
        || proxy.sockets_to(old) == 0,
    );
    let history = writers.stop();
    assert!(
        is_master(&mut awake),
        "its data must be read before it is demoted"
    );
    history.assert_none_after(switched.written(), &mut awake);
    let mut new = servers.direct(switch.new);
    history.assert_at_most_once(&mut new);
    history.assert_lost_only_before(switched.written(), &mut new);
    assert!(
        proxy.events(switched.index + 1, "switched").is_empty(),
        "no way back"
    );
}

#[test]
fn row_18_master_restarts_in_place() {
    const KEYS: usize = 3000;
    let servers = Topology::start_with(|options| {
        // Loading takes a moment a key, and clients are told so meanwhile: every 1024 bytes, or before 7.0 every 2 MiB.
        let slow = if options.server.version().major >= 7 {
            [
                "key-load-delay 1000",
                "loading-process-events-interval-bytes 1024",
            ]
        } else {
            ["key-load-delay 300", "rdbcompression no"]
        };
        options.extra_node_config.extend(slow.map(str::to_owned));
    });
    let master = servers.master();
    let mut direct = servers.direct(master.addr());
    let fill = format!(
        "for i = 1, {KEYS} do redis.call('SET', 'key:' .. i, string.rep('x', 2000)) end return 'OK'"
    );
    for command in [&["EVAL", &fill, "0"][..], &["SAVE"]] {
        let reply = direct.call(command).expect("the master answers");
        assert_eq!(reply.text().as_deref(), Some("OK"));
    }
    let proxy = servers.proxy();
    let mut idle = idle_client(&proxy);
    let mark = proxy.mark();

    master.kill().expect("SIGKILL");
    loses_upstream(&mut idle, CUT);
    let addr = proxy.addr();
    let newcomer = thread::spawn(move || first_answer_after_loading(addr));
    master.restart().expect("it loads its data and answers");

    assert_eq!(
        newcomer.join().expect("the waiting client"),
        Some(master.addr().port())
    );
    serves(&proxy, master.addr(), FOLLOW);
    let switched: Vec<Event> = proxy.events(mark, "switched");
    assert!(switched.is_empty(), "the master did not move: {switched:?}");
    assert_eq!(
        servers.master().addr(),
        master.addr(),
        "nor did the Sentinels' view"
    );
}

/// The port of who answers, once nobody says `LOADING` any more. Redis' own `-LOADING` may be relayed and a
/// connection may end; a wrong answer may not be.
fn first_answer_after_loading(proxy: std::net::SocketAddr) -> Option<u16> {
    let mut served_by = None;
    wait_until(
        "the restarted master to answer through the proxy",
        FAILOVER,
        || {
            served_by = Conn::connect(proxy, OUTAGE)
                .ok()
                .and_then(|mut conn| port_of(&mut conn));
            served_by.is_some()
        },
    );
    served_by
}

fn is_master(node: &mut Conn) -> bool {
    let role = node.call(&["ROLE"]).expect("the node is asked directly");
    role.items().first().and_then(|r| r.text()).as_deref() == Some("master")
}
