//! Who is watched, and what it takes to go hungry: one thread of the real program stands still, or all of them have a lot to do.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use switchmaster::net::clock::{Moment, now};

use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::load::Load;
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::standstill::Blocked;
use crate::harness::stream::{SOON, connect, echoed};
use crate::harness::topology::{Topology, follows};
use crate::harness::wait_until;
use crate::notify::{Manager, PERIOD};
use crate::{admin_of, get};

const FAILOVERS: usize = 3;
/// Clients that do not read, new ones for each failover.
const SLOW: usize = 8;
/// More than their sockets hold, and little work for the master: requests, and a reply each.
const ASKED: usize = 256;
const REPLY: usize = 64 * 1024;
const LOAD_CONNECTIONS: usize = 16;

fn is_food(message: &str) -> bool {
    message == "WATCHDOG=1"
}

/// When the watchdog was last fed, once it was not for a whole period: the manager ends the process now.
fn last_meal(manager: &Manager, since: Moment) -> Moment {
    let mut last = since;
    loop {
        let left = (last + PERIOD).since(now());
        if left.is_zero() {
            return last;
        }
        assert!(now().since(since) < PERIOD * 3, "it goes on being fed");
        if manager.message(left).is_some_and(|m| is_food(&m)) {
            last = now();
        }
    }
}

fn starves(block: impl FnOnce(u32) -> Blocked, who: &str) {
    let manager = Manager::new();
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let proxy = Proxy::ready(
        manager
            .plan(&sentinel)
            .env("WATCHDOG_USEC", PERIOD.as_micros().to_string())
            .env("SWITCHMASTER_LIMITS_WORKERS", "2")
            .env("SWITCHMASTER_ADMIN_LISTEN", "127.0.0.1:0"),
    );
    let admin = admin_of(&proxy);
    manager.until("food", is_food);
    assert_eq!(get(admin, "/livez").0, 200);
    let blocked = block(proxy.pid());
    let since = now();
    let last = last_meal(&manager, since);
    assert!(
        last.since(since) < PERIOD,
        "fed {:?} behind",
        last.since(since)
    );
    // Nothing else stands still, and whoever asks is told what does.
    wait_until("/livez to name it", SOON, || {
        let (code, words) = get(admin, "/livez");
        code == 503 && words.starts_with(who) && words.matches("worker").count() <= 1
    });
    drop(blocked);
    manager.until("food again", is_food);
    wait_until("/livez to be content", SOON, || {
        get(admin, "/livez").0 == 200
    });
    assert_eq!(echoed(&mut connect(proxy.addr()), b"served"), b"served");
}

#[test]
fn a_blocked_worker_stops_the_watchdog_within_its_period() {
    starves(|pid| Blocked::named(pid, "worker-1"), "worker 1 has not");
}

#[test]
fn a_blocked_control_loop_stops_the_watchdog_within_its_period() {
    starves(Blocked::first, "the control task of ");
}

/// Pipelines requests whose replies it never reads, until nobody takes any more.
fn slow(to: SocketAddr) -> TcpStream {
    let mut client = connect(to);
    let requests = b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n".repeat(ASKED);
    client.set_nonblocking(true).expect("a socket");
    match client.write(&requests) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
        Err(e) => panic!("{e}"),
    }
    client
}

#[test]
fn load_failovers_and_slow_clients_do_not_stop_the_watchdog() {
    let servers = Topology::start();
    let big = "x".repeat(REPLY);
    let kept = servers
        .direct(servers.master().addr())
        .call(&["SET", "big", &big]);
    assert!(kept.is_ok_and(|kept| !kept.is_error()));
    let manager = Manager::new();
    let proxy = Proxy::ready(
        Plan::moving(&servers.sentinels())
            .env("NOTIFY_SOCKET", &manager.path)
            .env("WATCHDOG_USEC", PERIOD.as_micros().to_string())
            .env("SWITCHMASTER_LIMITS_WORKERS", "2"),
    );
    let over = AtomicBool::new(false);
    let meals = thread::scope(|scope| {
        // By a thread that does nothing else: a meal is as old as it is when it is looked at.
        let eating = scope.spawn(|| {
            let mut meals = vec![now()];
            while !over.load(Ordering::Relaxed) {
                if manager.message(PERIOD / 4).is_some_and(|m| is_food(&m)) {
                    meals.push(now());
                }
            }
            meals.push(now());
            meals
        });
        let over = Over(&over);
        let mut unread = Vec::new();
        for round in 0..FAILOVERS {
            // Anew each time: on a machine that has no time for a replica, a write under way at the announcement costs its connection.
            let _loads =
                [1, 16].map(|depth| Load::endless(proxy.addr().port(), LOAD_CONNECTIONS, depth));
            wait_until("the load to reach the master", SOON, || {
                proxy.sockets_to(servers.master().addr()) >= 2 * LOAD_CONNECTIONS
            });
            unread.extend((0..SLOW).map(|_| slow(proxy.addr())));
            let mark = proxy.mark();
            let switch = servers.fail_over(round);
            follows(&proxy, mark, switch);
            servers.ready_again(switch);
        }
        assert!(unread.iter().any(|client| client.peek(&mut [0]).is_ok()));
        drop(over);
        eating.join().expect("no panic")
    });
    let gaps = meals.windows(2).map(|two| two[1].since(two[0]));
    let longest = gaps.max().unwrap_or_default();
    println!(
        "{} meals, the longest time between two {longest:?}",
        meals.len() - 2
    );
    assert!(
        longest < PERIOD,
        "the manager would have ended it: {meals:?}"
    );
}

/// Says so when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
