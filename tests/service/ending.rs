//! SIGTERM: nobody new is let in, what was begun is finished, and what is not finished in time is cut and told.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use switchmaster::demo::wire::Conn;

use crate::harness::fake_master::{Bytes, FakeMaster, Role};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::{SOON, connect, echoed, free_address, read_to_end};
use crate::harness::topology::{Topology, blocked_clients};
use crate::harness::wait_until;
use crate::{AT_ONCE, CUT, admin_of, code, get};

/// A grace that is never waited for in a test that passes.
const LONG: &str = "120s";

fn plan(servers: &Topology, grace: &str) -> Plan {
    Plan::moving(&servers.sentinels()).env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", grace)
}

fn client(proxy: &Proxy) -> Conn {
    Conn::connect(proxy.addr(), SOON).expect("the proxy listens")
}

/// The connection ends here, with nothing before its end.
fn assert_ends(conn: &mut Conn) {
    match conn.read() {
        Err(_) => {}
        Ok(value) => panic!("{value:?} instead of the end"),
    }
}

/// Counts up by a pipeline that never waits, until the connection ends; gives the replies in the order they came.
fn count_up(proxy: SocketAddr, key: &str, answered: &AtomicU64) -> Vec<u8> {
    let request = format!("*2\r\n$4\r\nINCR\r\n${}\r\n{key}\r\n", key.len());
    let requests = request.repeat(50);
    let mut reading = connect(proxy);
    let mut writing = reading.try_clone().expect("a socket");
    thread::scope(|scope| {
        // Ends with the connection: whoever is not read, or has been closed, cannot write for ever.
        scope.spawn(move || while writing.write_all(requests.as_bytes()).is_ok() {});
        let (mut replies, mut part) = (Vec::new(), [0; 16 * 1024]);
        loop {
            match reading.read(&mut part) {
                Ok(0) => break,
                Ok(n) => replies.extend_from_slice(&part[..n]),
                Err(e) => panic!(
                    "{key}: reset instead of the end after {} bytes: {e}",
                    replies.len()
                ),
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
        // A writer that is blocked hears of it.
        drop(reading.shutdown(Shutdown::Both));
        replies
    })
}

/// Row 44: each request that a master executed is answered, each answer is whole, and nothing comes behind it.
#[test]
fn row_44_pipelines_under_sigterm_get_every_reply_that_is_due() {
    const CLIENTS: usize = 8;

    let servers = Topology::start();
    let mut proxy = Proxy::ready(plan(&servers, LONG).env("SWITCHMASTER_LIMITS_WORKERS", "2"));
    let addr = proxy.addr();
    let answered: [AtomicU64; CLIENTS] = Default::default();
    let replies: Vec<Vec<u8>> = thread::scope(|scope| {
        let counting: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let answered = &answered[n];
                scope.spawn(move || count_up(addr, &format!("count{n}"), answered))
            })
            .collect();
        wait_until("every pipeline to flow", SOON, || {
            answered.iter().all(|n| n.load(Ordering::Relaxed) > 20)
        });
        proxy.ask_to_end();
        counting
            .into_iter()
            .map(|c| c.join().expect("it counts"))
            .collect()
    });
    assert_eq!(code(proxy.exit(AT_ONCE)), 0);

    let mut master = servers.direct(servers.master().addr());
    for (n, replies) in replies.iter().enumerate() {
        let counted = master
            .call(&["GET", &format!("count{n}")])
            .expect("it answers");
        let counted: usize = counted.text().expect("a number").parse().expect("a number");
        let expected: String = (1..=counted).map(|n| format!(":{n}\r\n")).collect();
        assert!(counted > 0, "nothing was counted");
        assert!(
            *replies == expected.as_bytes(),
            "client {n}: {counted} were executed, and {} bytes of {} were answered",
            replies.len(),
            expected.len()
        );
    }
    let stopped = proxy.event("stopped", SOON);
    assert_eq!(
        stopped.number("ended_in_order"),
        CLIENTS as f64,
        "{}",
        stopped.fields
    );
    assert_eq!(stopped.number("cut"), 0.0, "{}", stopped.fields);
    assert_eq!(stopped.number("sessions"), 0.0, "{}", stopped.fields);
}

/// Idle pools go at once, somebody who waits for an element gets it, and meanwhile the port is another's.
#[test]
fn a_successor_takes_the_port_while_the_old_process_finishes() {
    const POOL: usize = 100;

    let servers = Topology::start();
    let plan_at = |listen: &str| {
        plan(&servers, LONG)
            .args(["--listen", listen])
            .env("SWITCHMASTER_ADMIN_LISTEN", "127.0.0.1:0")
    };
    let listen = free_address().to_string();
    let mut old = Proxy::ready(plan_at(&listen));
    let admin = admin_of(&old);
    let mut master = servers.direct(servers.master().addr());
    let mut pool: Vec<Conn> = (0..POOL).map(|_| client(&old)).collect();
    for conn in &mut pool {
        conn.call(&["PING"]).expect("served");
    }
    let mut blocked = client(&old);
    blocked.send(&["BLPOP", "queue", "0"]).expect("sent");
    wait_until("a blocked client", SOON, || {
        blocked_clients(&mut master) == 1
    });
    assert_eq!(get(admin, "/readyz").0, 200);

    old.ask_to_end();
    for conn in &mut pool {
        assert_ends(conn);
    }
    let draining = old.event("draining", SOON);
    assert!(
        draining.number("grace_ms") == 120_000.0,
        "{}",
        draining.fields
    );
    let (ready, words) = get(admin, "/readyz");
    assert_eq!(ready, 503, "{words}");
    assert!(words.contains("draining"), "{words}");
    assert_eq!(get(admin, "/livez").0, 200);
    assert!(get(admin, "/metrics").1.contains("switchmaster_draining 1"));
    let (_, status) = get(admin, "/status");
    assert!(status.contains("\"draining\":true"), "{status}");
    assert!(get(admin, "/").1.contains("Draining, no new clients."));

    // It logs where it listens, so it has the port.
    let new = Proxy::ready(plan_at(&listen));
    let mut next = client(&new);
    next.call(&["RPUSH", "queue", "element"]).expect("served");
    let got = blocked.read().expect("the element");
    assert_eq!(
        got.items().last().and_then(|v| v.text()).as_deref(),
        Some("element")
    );
    assert_ends(&mut blocked);
    assert_eq!(code(old.exit(AT_ONCE)), 0);
    let stopped = old.event("stopped", SOON);
    assert_eq!(
        stopped.number("ended_in_order"),
        POOL as f64 + 1.0,
        "{}",
        stopped.fields
    );
    next.call(&["PING"]).expect("still served");
}

#[test]
fn what_is_not_finished_in_time_is_cut_and_the_exit_code_tells() {
    let servers = Topology::start();
    let mut master = servers.direct(servers.master().addr());
    // The time is over, and a second signal.
    for (grace, event, signals) in [("1s", "grace_over", 1), (LONG, "ended_at_once", 2)] {
        let mut proxy = Proxy::ready(plan(&servers, grace));
        let mut blocked = client(&proxy);
        blocked.send(&["BLPOP", "queue", "0"]).expect("sent");
        wait_until("a blocked client", SOON, || {
            blocked_clients(&mut master) == 1
        });
        let mut idle = client(&proxy);
        idle.call(&["PING"]).expect("served");

        proxy.ask_to_end();
        assert_ends(&mut idle);
        drop(idle);
        proxy.event("draining", SOON);
        if signals > 1 {
            // It tells how it is, also now.
            wait_until("one to be left", SOON, || {
                proxy.status().number("sessions") == 1.0
            });
        }
        for _ in 1..signals {
            proxy.ask_to_end();
        }
        let cut = proxy.event(event, SOON);
        assert_eq!(cut.number("sessions"), 1.0, "{}", cut.fields);
        assert_ends(&mut blocked);
        assert_eq!(code(proxy.exit(AT_ONCE)), CUT, "{event}");
        let stopped = proxy.event("stopped", SOON);
        let ended = ["ended_in_order", "cut", "ended_otherwise"].map(|field| stopped.number(field));
        assert_eq!(ended, [1.0, 1.0, 0.0], "{}", stopped.fields);
        wait_until("the master to notice", SOON, || {
            blocked_clients(&mut master) == 0
        });
    }
}

/// Their requests were written nowhere, and are not written afterwards.
#[test]
fn clients_that_wait_for_a_master_are_closed_unheard() {
    for mode in ["move", "close"] {
        let master = FakeMaster::start(Bytes::Echo);
        master.set_role(Role::Replica);
        let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
        let mut proxy = Plan::following(&[sentinel.addr()])
            .env("SWITCHMASTER_FAILOVER_ON_SWITCH", mode)
            .env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", LONG)
            .start();
        let mut waiting = connect(proxy.addr());
        waiting.write_all(b"GET a\r\n").expect("written");
        proxy.event("role_rejected", SOON);
        wait_until("the client to be counted", SOON, || {
            proxy.status().number("waiting") == 1.0
        });
        proxy.ask_to_end();
        assert_eq!(read_to_end(&mut waiting), b"", "{mode}");
        // A master now would be one too late.
        master.set_role(Role::Master);
        assert_eq!(code(proxy.exit(AT_ONCE)), 0, "{mode}");
        assert_eq!(master.bytes(), 0, "{mode}");
    }
}

#[test]
fn a_request_that_a_hold_keeps_back_is_closed_unheard() {
    let master = FakeMaster::start(Bytes::Sink);
    let successor = FakeMaster::start(Bytes::Sink);
    successor.set_role(Role::Replica);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let mut proxy = Proxy::ready(
        Plan::moving(&[sentinel.addr()])
            .env("SWITCHMASTER_FAILOVER_ANNOUNCED_HOLD_MAX", "60s")
            .env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", LONG),
    );
    let mut client = connect(proxy.addr());
    wait_until("its upstream", SOON, || {
        proxy.sockets_to(master.addr()) >= 2
    });
    wait_until("a subscriber", SOON, || {
        sentinel.announce(successor.addr()) > 0
    });
    proxy.event("hold_begin", SOON);
    client.write_all(b"GET a\r\n").expect("written");
    proxy.ask_to_end();
    assert_eq!(read_to_end(&mut client), b"");
    assert_eq!(code(proxy.exit(AT_ONCE)), 0);
    assert_eq!((master.bytes(), successor.bytes()), (0, 0));
}

/// `on_switch = "close"`: nobody knows of requests, and a moment of silence behind the master's word is what there is.
#[test]
fn without_a_tracker_silence_ends_a_session_and_a_master_that_owes_keeps_it() {
    for (bytes, grace, expected) in [(Bytes::Echo, LONG, 0), (Bytes::Sink, "1s", CUT)] {
        let master = FakeMaster::start(bytes);
        let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
        let mut proxy = Proxy::ready(
            Plan::following(&[sentinel.addr()])
                .env("SWITCHMASTER_FAILOVER_ON_SWITCH", "close")
                .env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", grace),
        );
        let mut idle = connect(proxy.addr());
        let mut talking = connect(proxy.addr());
        if bytes == Bytes::Echo {
            assert_eq!(echoed(&mut talking, b"before"), b"before");
        } else {
            talking.write_all(b"question").expect("written");
            wait_until("the question", SOON, || master.bytes() == 8);
        }
        wait_until("both", SOON, || proxy.status().number("sessions") == 2.0);
        proxy.ask_to_end();
        assert_eq!(read_to_end(&mut idle), b"");
        assert_eq!(read_to_end(&mut talking), b"");
        assert_eq!(code(proxy.exit(AT_ONCE)), expected, "{bytes:?}");
        let stopped = proxy.event("stopped", SOON);
        let cut = if expected == CUT { 1.0 } else { 0.0 };
        assert_eq!(stopped.number("cut"), cut, "{}", stopped.fields);
    }
}

/// A port is free for a successor before the first session has ended, whatever the workers do.
#[test]
fn the_port_is_free_once_the_drain_is_told() {
    let master = FakeMaster::start(Bytes::Sink);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let mut proxy = Proxy::ready(
        Plan::moving(&[sentinel.addr()])
            .env("SWITCHMASTER_LIMITS_WORKERS", "4")
            .env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", LONG),
    );
    let addr = proxy.addr();
    let mut asking: Vec<TcpStream> = (0..8).map(|_| connect(addr)).collect();
    for client in &mut asking {
        client.write_all(b"GET a\r\n").expect("written");
    }
    wait_until("all questions", SOON, || master.bytes() == 8 * 7);
    proxy.ask_to_end();
    let draining = proxy.event("draining", SOON);
    assert_eq!(draining.number("sessions"), 8.0, "{}", draining.fields);
    drop(TcpListener::bind(addr).expect("nobody listens there"));
    // Their clients do not wait for the answers, and so nobody does.
    drop(asking);
    drop(master);
    let left = code(proxy.exit(Duration::from_secs(30)));
    assert_eq!(left, 0);
}
