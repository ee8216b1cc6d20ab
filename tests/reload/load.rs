//! Under load, on real servers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use switchmaster::demo::wire::Conn;

use crate::harness::history::{Outcome, Writers};
use crate::harness::proxy::Proxy;
use crate::harness::stream::SOON;
use crate::harness::topology::{FOLLOW, Topology};
use crate::harness::wait_until;
use crate::{hung_up, metric, plan, reload};

/// Clients that ask without a pause, and clients that ask once now and then.
const BUSY: usize = 16;
const IDLE: usize = 100;
const RELOADS: usize = 20;
/// Requests of each busy client between two reloads, at least.
const BETWEEN: u64 = 20;

/// Clients that each count upwards in a key of their own over one connection, and note the id that the server gave it.
struct Counters {
    stop: Arc<AtomicBool>,
    asked: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<u64>>,
}

impl Counters {
    fn start(proxy: &Proxy) -> Self {
        let (stop, to) = (Arc::new(AtomicBool::new(false)), proxy.addr());
        let asked: Vec<Arc<AtomicU64>> = (0..BUSY).map(|_| Arc::default()).collect();
        let threads = asked.iter().enumerate().map(|(n, asked)| {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(asked));
            thread::spawn(move || {
                let mut conn = Conn::connect(to, SOON).expect("the proxy listens");
                conn.set_timeout(SOON);
                let id = id(&mut conn);
                let key = format!("count:{n}");
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let value = conn.call(&["INCR", &key]).expect("the session lives");
                    last += 1;
                    assert_eq!(value.text(), Some(last.to_string()), "counted once each");
                    asked.store(last, Ordering::Relaxed);
                }
                assert_eq!(self::id(&mut conn), id, "the same connection to the master");
                last
            })
        });
        let threads = threads.collect();
        Self {
            stop,
            asked,
            threads,
        }
    }

    /// Every one of them has been served since.
    fn go_on(&self) {
        let before: Vec<_> = self
            .asked
            .iter()
            .map(|n| n.load(Ordering::Relaxed))
            .collect();
        wait_until("every busy client to be served on", SOON, || {
            let now = self.asked.iter().map(|n| n.load(Ordering::Relaxed));
            now.zip(&before)
                .all(|(now, before)| now >= before + BETWEEN)
        });
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let counts = self
            .threads
            .into_iter()
            .map(|t| t.join().expect("no session lost"));
        counts.sum()
    }
}

fn id(conn: &mut Conn) -> String {
    let id = conn.call(&["CLIENT", "ID"]).expect("the session lives");
    id.text().expect("a number")
}

/// The Sentinels, as a list is written.
fn addresses(servers: &Topology) -> String {
    let sentinels = servers.sentinels();
    let quoted: Vec<_> = sentinels.iter().map(|a| format!("\"{a}\"")).collect();
    quoted.join(", ")
}

/// A file that is right, and differs from the one before in everything that changes without a listener.
fn right(sentinels: &str, turn: usize) -> String {
    let (limit, level) = if turn.is_multiple_of(2) {
        (500, "info")
    } else {
        (400, "info,switchmaster::config=debug")
    };
    format!(
        "[sentinel]\naddresses = [{sentinels}]\npoll_interval = \"{}ms\"\n[failover]\nhold_max = \"{}s\"\nmax_held = {limit}\n\
         [[proxy]]\nlisten = [\"127.0.0.1:0\"]\nmax_connections = {limit}\nconnect_timeout = \"{limit}ms\"\n\
         [limits]\nshutdown_grace = \"{}s\"\n[log]\nlevel = \"{level}\"\n",
        500 + turn,
        20 + turn,
        5 + turn
    )
}

/// One that is wrong, and the line that is.
fn wrong(sentinels: &str, turn: usize) -> (String, u64) {
    let text = right(sentinels, turn + 100);
    match turn % 5 {
        0 => (text.replace("hold_max = \"", "hold_max = \"x"), 5),
        1 => (text.replace("max_held", "max_hold"), 6),
        2 => (
            text.replace("listen = [", "listen = [\"0.0.0.0:7000\", "),
            8,
        ),
        // No TOML.
        3 => (text.replace("[log]", "[log"), 13),
        // In order by itself, and nothing for a process that runs.
        _ => (text.replace("[limits]\n", "[limits]\nworkers = 2\n"), 12),
    }
}

#[test]
fn twenty_reloads_under_load_lose_no_session() {
    twenty_reloads("move");
}

#[test]
fn twenty_reloads_under_load_lose_no_session_that_is_not_looked_into() {
    twenty_reloads("close");
}

fn twenty_reloads(on_switch: &str) {
    let servers = Topology::start();
    let sentinels = addresses(&servers);
    let plan = plan(&right(&sentinels, 0)).env("SWITCHMASTER_FAILOVER_ON_SWITCH", on_switch);
    let proxy = Proxy::ready(plan);
    let mut idle: Vec<(Conn, String)> = (0..IDLE)
        .map(|_| {
            let mut conn = Conn::connect(proxy.addr(), SOON).expect("the proxy listens");
            let id = id(&mut conn);
            (conn, id)
        })
        .collect();
    let busy = Counters::start(&proxy);
    let writers = Writers::start(proxy.addr(), 4, Duration::from_millis(1));
    let holds = proxy.events(0, "hold_begin").len();
    let mut lines = BTreeSet::new();
    for turn in 1..=RELOADS {
        busy.go_on();
        let by_signal = turn % 4 < 2;
        if turn.is_multiple_of(2) {
            proxy.rewrite(&right(&sentinels, turn));
            if by_signal {
                let event = hung_up(&proxy, "reloaded");
                assert_eq!(event.text("by"), "SIGHUP");
            } else {
                let (code, answer) = reload(&proxy);
                assert_eq!(
                    (code, &answer["outcome"]),
                    (200, &Value::from("reloaded")),
                    "{answer}"
                );
            }
            continue;
        }
        let (text, line) = wrong(&sentinels, turn / 2);
        proxy.rewrite(&text);
        lines.insert(line);
        let place = format!("{}:{line}", proxy.config_path().display());
        if by_signal {
            let event = hung_up(&proxy, "reload_failed");
            assert_eq!(event.text("place"), place, "{}", event.fields);
        } else {
            let mark = proxy.mark();
            let (code, answer) = reload(&proxy);
            let expected = if text.contains("workers") { 409 } else { 400 };
            assert_eq!(code, expected, "{answer}");
            assert_eq!(
                answer["problems"][0]["place"],
                Value::from(place.clone()),
                "{answer}"
            );
            assert_eq!(answer["problems"][0]["line"], Value::from(line), "{answer}");
            let event = proxy.event_after(mark, "reload_failed", SOON);
            assert_eq!(event.text("place"), place);
        }
        assert!(metric(&proxy, "switchmaster_config_last_reload_successful", "").abs() < 0.5);
    }
    busy.go_on();
    let answered = busy.stop();
    for (conn, before) in &mut idle {
        assert_eq!(&id(conn), before, "the same connection to the master");
    }
    let history = writers.stop();
    let failed = history.count(|outcome| *outcome != Outcome::Ok);
    println!(
        "{RELOADS} reloads: {answered} answers over {BUSY} sessions, {IDLE} idle ones, {} writes, {failed} failed; lines {lines:?}",
        history.writes.len()
    );
    assert_eq!(failed, 0);
    assert_eq!(
        history.reconnects.iter().sum::<usize>(),
        0,
        "{:?}",
        history.reconnects
    );
    // Nobody was held, and nobody closed, for a reload.
    assert_eq!(proxy.events(0, "hold_begin").len(), holds);
    assert_eq!(proxy.events(0, "sentinels_lost").len(), 0);
    assert!(proxy.closed(IDLE).is_empty(), "{:?}", proxy.closed(IDLE));
    for (outcome, count) in [("reloaded", 10.0), ("unchanged", 0.0), ("failed", 10.0)] {
        let counted = metric(&proxy, "switchmaster_reloads_total", outcome);
        assert!((counted - count).abs() < 0.5, "{outcome}: {counted}");
    }
    assert!(metric(&proxy, "switchmaster_config_last_reload_successful", "") > 0.5);
}

/// Says so when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every reload gives each Sentinel a new link; a failover meanwhile is followed all the same.
#[test]
fn a_failover_amid_reloads_is_followed() {
    let servers = Topology::start();
    let sentinels = addresses(&servers);
    let plan = plan(&right(&sentinels, 0)).env("SWITCHMASTER_FAILOVER_ON_SWITCH", "move");
    let proxy = Proxy::ready(plan);
    let writers = Writers::start(proxy.addr(), 4, Duration::from_millis(1));
    for round in 0..2 {
        let mark = proxy.mark();
        let over = AtomicBool::new(false);
        let reloads = thread::scope(|scope| {
            // Also where what follows fails.
            let watched = Over(&over);
            let reloading = scope.spawn(|| {
                let mut reloads = 0;
                while !over.load(Ordering::Relaxed) {
                    reloads += 1;
                    proxy.rewrite(&right(&sentinels, reloads % 300));
                    let (code, answer) = reload(&proxy);
                    assert_eq!(code, 200, "{answer}");
                }
                reloads
            });
            let switch = servers.fail_over(round);
            let switched = proxy.event_after(mark, "switched", FOLLOW);
            assert_eq!(switched.text("to"), switch.new.to_string());
            drop(watched);
            reloading.join().expect("no panic")
        });
        println!("{reloads} reloads during a failover");
        assert!(reloads > 5);
        servers.settle();
    }
    let history = writers.stop();
    let failed = history.count(|outcome| *outcome != Outcome::Ok);
    println!(
        "{} writes, {failed} without an answer",
        history.writes.len()
    );
    history.assert_at_most_once(&mut servers.direct(servers.master().addr()));
    assert_eq!(proxy.events(0, "sentinels_lost").len(), 0);
}
