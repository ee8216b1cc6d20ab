//! Upgrades that come to nothing, and those in the middle of which somebody dies: no more is lost than what was with who died.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::{Conn, WireError};

use crate::UPGRADE;
use crate::harness::history::{Outcome, Writers};
use crate::harness::proxy::Plan;
use crate::harness::stream::connect;
use crate::harness::topology::{FAILOVER, Topology, follows, is_closed, port_of};
use crate::harness::wait_until;
use crate::lineage::{Lineage, client, kill, open_files, ping, runs};

/// Idle clients: they leave at once.
const IDLE: usize = 100;
/// As long as a test wants to be in the middle.
const LONG: &str = "120s";
const GRACE: &str = "SWITCHMASTER_LIMITS_SHUTDOWN_GRACE";
const SOON: Duration = Duration::from_secs(20);
const PACE: Duration = Duration::from_millis(1);

fn plan(servers: &Topology) -> Plan {
    Plan::moving(&servers.sentinels()).env(GRACE, LONG)
}

/// A client in the middle of a request: it is never quiet, so that an upgrade is never over.
pub(crate) struct Unfinished(TcpStream);

impl Unfinished {
    pub(crate) fn new(lineage: &Lineage) -> Self {
        let before = lineage.proxy.bytes_up();
        let mut stream = connect(lineage.addr);
        stream.write_all(b"*1\r\n$4\r\nPI").expect("room");
        wait_until("the beginning to be relayed", SOON, || {
            lineage.proxy.bytes_up() > before
        });
        Self(stream)
    }

    /// It is served still, by whoever it is.
    pub(crate) fn finish(mut self) -> TcpStream {
        self.0.write_all(b"NG\r\n").expect("room");
        let mut reply = [0; 7];
        self.0.read_exact(&mut reply).expect("it is still served");
        assert_eq!(&reply, b"+PONG\r\n");
        self.0
    }

    fn assert_lost(mut self) {
        assert!(matches!(self.0.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
}

/// Idle clients, one that cannot leave, and an upgrade in which the former have left.
pub(crate) struct Middle {
    pub(crate) lineage: Lineage,
    pub(crate) idle: Vec<Conn>,
    pub(crate) unfinished: Unfinished,
    pub(crate) mark: usize,
    pub(crate) new: u32,
}

impl Middle {
    pub(crate) fn of(servers: &Topology) -> Self {
        let mut lineage = Lineage::begin(plan(servers));
        let idle: Vec<Conn> = (0..IDLE).map(|_| client(lineage.addr)).collect();
        let unfinished = Unfinished::new(&lineage);
        let mark = lineage.proxy.mark();
        let new = lineage.start();
        lineage.proxy.event_after(mark, "upgrade_handing", UPGRADE);
        wait_until("the idle clients to be handed", SOON, || {
            open_files(new) > 2 * IDLE
        });
        Self {
            lineage,
            idle,
            unfinished,
            mark,
            new,
        }
    }
}

#[test]
fn the_new_process_dies_in_the_middle() {
    let servers = Topology::start();
    let mut middle = Middle::of(&servers);
    let old = middle.lineage.proxy.pid();
    kill(middle.new);
    let proxy = &middle.lineage.proxy;
    let failed = proxy.event_after(middle.mark, "upgrade_failed", SOON);
    assert_eq!(failed.text("reason"), "ended", "{}", failed.fields);
    assert!(failed.number("handed") >= IDLE as f64, "{}", failed.fields);
    // What it had been given is lost with it, and nothing else is.
    for conn in &mut middle.idle {
        is_closed(conn, SOON);
    }
    ping(&mut client(middle.lineage.addr));
    middle.unfinished.finish();
    assert!(runs(old));
    // And the next one succeeds.
    middle.lineage.forget_last();
    let mut conn = client(middle.lineage.addr);
    middle.lineage.upgrade();
    middle.lineage.wait_for_end(old);
    ping(&mut conn);
}

#[test]
fn the_old_process_dies_in_the_middle() {
    let servers = Topology::start();
    let mut middle = Middle::of(&servers);
    kill(middle.lineage.proxy.pid());
    let proxy = &middle.lineage.proxy;
    proxy.event_after(middle.mark, "took_over", SOON);
    for conn in &mut middle.idle {
        ping(conn);
    }
    ping(&mut client(middle.lineage.addr));
    middle.unfinished.assert_lost();
    // It is whole: it can be followed itself.
    middle.lineage.upgrade();
    for conn in &mut middle.idle {
        ping(conn);
    }
}

#[test]
fn either_dies_before_anything_is_handed() {
    let servers = Topology::start();
    let mut lineage = Lineage::begin(plan(&servers));
    let mut conn = client(lineage.addr);
    let freeze = || {
        for sentinel in servers.cluster().sentinels() {
            sentinel.freeze().expect("it runs");
        }
    };
    // Without Sentinels the new one never knows its master.
    freeze();
    let mark = lineage.proxy.mark();
    let new = lineage.start();
    lineage.proxy.event_after(mark, "taking_over", UPGRADE);
    kill(new);
    let failed = lineage.proxy.event_after(mark, "upgrade_failed", SOON);
    assert_eq!(failed.text("reason"), "ended", "{}", failed.fields);
    lineage.forget_last();
    ping(&mut conn);
    ping(&mut client(lineage.addr));

    let mark = lineage.proxy.mark();
    lineage.start();
    lineage.proxy.event_after(mark, "taking_over", UPGRADE);
    // Long enough to have the listeners: it says what it has been offered by asking its Sentinels.
    wait_until("the listeners to be handed", SOON, || {
        lineage.proxy.events(mark, "sentinel_down").len() >= 3
    });
    kill(lineage.proxy.pid());
    lineage.proxy.event_after(mark, "took_over", SOON);
    is_closed(&mut conn, SOON);
    // The port was never closed; who comes waits for the first master.
    let mut conn = Conn::connect(lineage.addr, FAILOVER).expect("somebody listens");
    conn.send(&["PING"]).expect("sent");
    servers.thaw_all();
    let pong = conn.read().expect("held, then answered");
    assert_eq!(pong.text().as_deref(), Some("PONG"));
}

/// Whenever the new process dies: no write that was acknowledged is lost, none is executed twice, and somebody serves.
#[test]
fn the_new_process_dies_at_any_moment() {
    const ROUNDS: u64 = 16;
    let servers = Topology::start();
    let mut lineage = Lineage::begin(plan(&servers));
    let writers = Writers::start(lineage.addr, 8, PACE);
    let mut failed = 0;
    for round in 0..ROUNDS {
        let mut idle: Vec<Conn> = (0..IDLE).map(|_| client(lineage.addr)).collect();
        let mark = lineage.proxy.mark();
        let new = lineage.start();
        lineage.proxy.event_after(mark, "upgrade_handing", UPGRADE);
        // Not for anything to have happened, but to be somewhere in the middle of it.
        std::thread::sleep(Duration::from_micros(round * 700));
        kill(new);
        let is_over = || {
            let over = |name| lineage.proxy.events(mark, name).len() == 1;
            over("upgrade_failed") || over("upgrade_finished")
        };
        wait_until("the upgrade to be over", SOON, is_over);
        if !lineage.proxy.events(mark, "upgrade_finished").is_empty() {
            // It had everything, and took everything with it.
            break;
        }
        failed += 1;
        lineage.forget_last();
        // Each either went with it or is served, and nothing in between.
        for conn in &mut idle {
            match conn.call(&["PING"]) {
                Ok(pong) => assert_eq!(pong.text().as_deref(), Some("PONG")),
                Err(WireError::Timeout(limit)) => panic!("nobody serves: {limit:?}"),
                Err(_) => {}
            }
        }
        ping(&mut client(lineage.addr));
        writers.all_acknowledged_after(SystemTime::now(), SOON);
    }
    assert!(failed > 0, "every process was killed too late");
    let history = writers.stop();
    let mut master = servers.direct(servers.master().addr());
    assert_eq!(history.lost(&mut master).len(), 0);
    history.assert_at_most_once(&mut master);
    assert_eq!(history.count(|o| matches!(o, Outcome::Refused(_))), 0);
}

/// The same of the old process: the new one serves with whatever it was given.
#[test]
fn the_old_process_dies_at_any_moment() {
    const ROUNDS: u64 = 10;
    let servers = Topology::start();
    let mut lineage = Lineage::begin(plan(&servers));
    let writers = Writers::start(lineage.addr, 8, PACE);
    for round in 0..ROUNDS {
        let mut idle: Vec<Conn> = (0..IDLE).map(|_| client(lineage.addr)).collect();
        let mark = lineage.proxy.mark();
        let old = lineage.pid();
        let new = lineage.start();
        lineage.proxy.event_after(mark, "upgrade_handing", UPGRADE);
        std::thread::sleep(Duration::from_micros(round * 700));
        kill(old);
        let is_it = |fields: &serde_json::Value| fields["pid"] == new;
        lineage.proxy.event_where(mark, "took_over", SOON, is_it);
        for conn in &mut idle {
            match conn.call(&["PING"]) {
                Ok(pong) => assert_eq!(pong.text().as_deref(), Some("PONG")),
                Err(WireError::Timeout(limit)) => panic!("nobody serves: {limit:?}"),
                Err(_) => {}
            }
        }
        ping(&mut client(lineage.addr));
        writers.all_acknowledged_after(SystemTime::now(), SOON);
    }
    let history = writers.stop();
    let mut master = servers.direct(servers.master().addr());
    assert_eq!(history.lost(&mut master).len(), 0);
    history.assert_at_most_once(&mut master);
    assert_eq!(history.count(|o| matches!(o, Outcome::Refused(_))), 0);
}

#[test]
fn what_cannot_serve_leaves_the_old_process_undisturbed() {
    let servers = Topology::start();
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "[limits]\nworkers = 2\n").expect("a file");
    let path = config.to_str().expect("text");
    let mut lineage = Lineage::begin(plan(&servers).args(["--config", path]));
    let mut conn = client(lineage.addr);
    std::fs::write(&config, "[limits]\nworkers = \"many\"\n").expect("a file");
    let mark = lineage.proxy.mark();
    lineage.start();
    let failed = lineage.proxy.event_after(mark, "upgrade_failed", SOON);
    assert_eq!(failed.text("reason"), "ended", "{}", failed.fields);
    assert!(
        failed.text("message").contains("exit status: 78"),
        "{}",
        failed.fields
    );
    lineage.forget_last();
    ping(&mut conn);
    ping(&mut client(lineage.addr));
    std::fs::write(&config, "[limits]\nworkers = 1\n").expect("a file");
    lineage.upgrade();
    ping(&mut conn);
}

#[test]
fn another_form_of_sessions_falls_back_to_a_drain() {
    let servers = Topology::start();
    let mut lineage = Lineage::begin(plan(&servers).env("_SWITCHMASTER_SESSION_FORM", "99"));
    let old = lineage.pid();
    let mut idle = client(lineage.addr);
    let unfinished = Unfinished::new(&lineage);
    let finished = lineage.upgrade();
    assert_eq!(finished.number("handed"), 0.0, "{}", finished.fields);
    assert_eq!(finished.number("left"), 2.0, "{}", finished.fields);
    // The new one has the listeners; the old one finishes what was begun.
    ping(&mut client(lineage.addr));
    is_closed(&mut idle, SOON);
    assert!(runs(old));
    unfinished.finish();
    lineage.wait_for_end(old);
    ping(&mut client(lineage.addr));
}

#[test]
fn none_is_begun_in_a_hold_and_the_next_one_behind_it_succeeds() {
    let servers = Topology::start();
    let mut lineage = Lineage::begin(plan(&servers));
    let mut conn = client(lineage.addr);
    let old_master = servers.master().addr();
    let mark = lineage.proxy.mark();
    servers.node(old_master).kill().expect("SIGKILL");
    lineage.proxy.event_after(mark, "hold_begin", SOON);
    lineage.ask();
    let refused = lineage.proxy.event_after(mark, "upgrade_refused", SOON);
    assert_eq!(refused.text("reason"), "held", "{}", refused.fields);
    let switch = servers.switched_from(old_master);
    follows(&lineage.proxy, mark, switch);
    lineage.upgrade();
    ping(&mut conn);
    assert_eq!(port_of(&mut conn), Some(switch.new.port()));
}

/// A planned failover while both processes serve, and one right after: every write that was acknowledged is there.
#[test]
fn failovers_in_the_middle_and_right_after() {
    let servers = Topology::start();
    let mut middle = Middle::of(&servers);
    let writers = Writers::start(middle.lineage.addr, 4, PACE);
    let switch = servers.fail_over(0);
    let switched = middle
        .lineage
        .proxy
        .event_where(middle.mark, "switched", FAILOVER, |fields| {
            fields["to"] == switch.new.to_string()
        });
    writers.all_acknowledged_after(switched.written(), FAILOVER);
    for conn in &mut middle.idle {
        assert_eq!(port_of(conn), Some(switch.new.port()));
    }
    drop(middle.unfinished);
    middle
        .lineage
        .proxy
        .event_after(middle.mark, "took_over", UPGRADE);
    servers.ready_again(switch);

    let mark = middle.lineage.proxy.mark();
    middle.lineage.upgrade();
    let switch = servers.fail_over(1);
    let switched = middle
        .lineage
        .proxy
        .event_where(mark, "switched", FAILOVER, |fields| {
            fields["to"] == switch.new.to_string()
        });
    writers.all_acknowledged_after(switched.written(), FAILOVER);
    let history = writers.stop();
    let mut master = servers.direct(switch.new);
    assert_eq!(history.lost(&mut master).len(), 0);
    history.assert_at_most_once(&mut master);
    assert_eq!(history.count(|o| *o != Outcome::Ok), 0);
    assert!(history.reconnects.iter().all(|n| *n == 0), "no disconnect");
    for conn in &mut middle.idle {
        assert_eq!(port_of(conn), Some(switch.new.port()));
    }
}
