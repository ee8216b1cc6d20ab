//! The admin endpoint of the real program on real servers: does it tell the truth, and does it stay up whoever asks?

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use switchmaster::admin::table;
use switchmaster::demo::wire::Conn;
use switchmaster::net::clock::now;

mod actions;
mod guard;
#[path = "../harness/mod.rs"]
mod harness;
mod numbers;
mod page;
mod replicas;

use harness::admin::{admin_of, ask, get};
use harness::proxy::{Plan, Proxy};
use harness::topology::{FOLLOW, Switch, Topology, follows};
use harness::{wait_for, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);
/// How far what the proxy tells of an outage may be from what one client measured. It is less than 30 ms in each of twenty
/// failovers on a machine that is busy (`how_far_what_is_told_is_from_what_a_client_measured`).
const TOLERANCE: f64 = 0.1;
/// Threads that may have stood still one after the other, each as long as the one that measures it ([`Played::stall`]): the client, the
/// worker, the control task, the server.
const HOPS: f64 = 4.0;
/// The first byte that reaches nobody: the discard port of this host.
const NOBODY: &str = "127.0.0.1:9";

fn watched(plan: Plan) -> Proxy {
    plan.env("SWITCHMASTER_ADMIN_LISTEN", "127.0.0.1:0").start()
}

fn status(admin: SocketAddr) -> Value {
    let (code, body) = get(admin, "/status");
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// What clients have been answered so far, in bytes.
fn bytes_down(admin: SocketAddr) -> u64 {
    let sessions = &status(admin)["proxies"][0]["sessions"];
    sessions["bytes_down"].as_u64().expect("a count")
}

/// The value of a series in the exposition, by the beginning of its line.
fn series(exposition: &str, wanted: &str) -> Option<f64> {
    let line = exposition.lines().find(|line| line.starts_with(wanted))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// A client that asks again and again over one connection; gives the longest time between two answers.
fn longest_gap(proxy: SocketAddr, until: &AtomicBool) -> f64 {
    let mut conn = Conn::connect(proxy, PATIENCE).expect("the proxy listens");
    let mut longest: f64 = 0.0;
    let mut last = now();
    while !until.load(Relaxed) {
        match conn.call(&["INCR", "gap"]) {
            Ok(_) => {
                longest = longest.max(now().since(last).as_secs_f64());
                last = now();
            }
            Err(_) => {
                if let Ok(again) = Conn::connect(proxy, PATIENCE) {
                    conn = again;
                }
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    longest
}

/// For how long at most this machine let a thread wait that was to run, in seconds.
fn longest_stall(until: &AtomicBool) -> f64 {
    const TICK: Duration = Duration::from_millis(1);
    let mut longest: f64 = 0.0;
    while !until.load(Relaxed) {
        let before = now();
        thread::sleep(TICK);
        longest = longest.max((now().since(before).saturating_sub(TICK)).as_secs_f64());
    }
    longest
}

/// The last outage, when it is over.
fn over(admin: SocketAddr, number: u64) -> Value {
    wait_for("the outage to be over", PATIENCE, || {
        let status = status(admin);
        let proxy = &status["proxies"][0];
        (proxy["outages_total"].as_u64()? >= number).then(|| {
            let outages = proxy["outages"].as_array().expect("a list");
            outages.last().expect("one").clone()
        })
    })
}

/// A failover under one client at work.
struct Played {
    /// What the client measured, in seconds.
    gap: f64,
    /// Meanwhile, see [`longest_stall`].
    stall: f64,
    /// What the Sentinels did.
    switch: Switch,
    /// What the proxy tells of it.
    outage: Value,
}

/// Plays one, which is the proxy's outage of this number.
fn played(servers: &Topology, proxy: &Proxy, kill: bool, number: u64) -> Played {
    let admin = admin_of(proxy);
    let stop = AtomicBool::new(false);
    let mark = proxy.mark();
    thread::scope(|scope| {
        let begun = bytes_down(admin);
        let client = scope.spawn(|| longest_gap(proxy.addr(), &stop));
        let machine = scope.spawn(|| longest_stall(&stop));
        // At work before it begins.
        wait_until("the client to be at work", PATIENCE, || {
            bytes_down(admin) > begun + 50
        });
        let old = servers.settle();
        let switch = if kill {
            servers.node(old).kill().expect("it dies");
            servers.switched_from(old)
        } else {
            servers.fail_over(0)
        };
        follows(proxy, mark, switch);
        let outage = over(admin, number);
        // More answers, so that the gap has ended for the client, too.
        let before = bytes_down(admin);
        wait_until("the client to be at work again", PATIENCE, || {
            bytes_down(admin) > before + 50
        });
        stop.store(true, Relaxed);
        Played {
            gap: client.join().expect("no panic"),
            stall: machine.join().expect("no panic"),
            switch,
            outage,
        }
    })
}

/// Not a test: what one client measured beside what the proxy tells, of ten planned failovers and ten kills.
#[test]
#[ignore = "prints a distribution, for a quiet machine: cargo test --test admin -- --ignored --nocapture how_far"]
fn how_far_what_is_told_is_from_what_a_client_measured() {
    const EACH: usize = 10;
    let servers = Topology::start();
    let proxy = watched(Plan::moving(&servers.sentinels()));
    proxy.event("ready", PATIENCE);
    let mut number = 1;
    for kill in [false, true] {
        let mut apart = Vec::with_capacity(EACH);
        for _ in 0..EACH {
            number += 1;
            let Played {
                gap,
                switch,
                outage,
                ..
            } = played(&servers, &proxy, kill, number);
            let told = outage["seconds"].as_f64().expect("a number");
            apart.push((gap - told) * 1e3);
            if kill {
                servers.bring_back(switch);
            } else {
                servers.ready_again(switch);
            }
        }
        apart.sort_by(f64::total_cmp);
        let all: Vec<_> = apart.iter().map(|ms| format!("{ms:.1}")).collect();
        println!(
            "{}: the client's outage less what is told, ms: median {:.1}; {}",
            if kill { "kill" } else { "planned" },
            f64::midpoint(apart[EACH / 2 - 1], apart[EACH / 2]),
            all.join(" ")
        );
    }
}

#[test]
fn everything_tells_the_same_story_of_a_planned_failover_and_a_kill() {
    let servers = Topology::start();
    let proxy = watched(Plan::moving(&servers.sentinels()));
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    let mut expected = 1;
    for kill in [false, true] {
        let mark = proxy.mark();
        expected += 1;
        let Played {
            gap,
            stall,
            switch,
            outage,
        } = played(&servers, &proxy, kill, expected);
        let seconds = outage["seconds"].as_f64().expect("a number");
        let phases = &outage["phases"];
        let sum: f64 = ["detect", "verify", "first_byte"]
            .iter()
            .filter_map(|phase| phases[phase].as_f64())
            .sum();
        println!("kill: {kill}, client's gap {gap:.3} s, stall {stall:.3} s, outage {outage}");
        assert!((sum - seconds).abs() < 0.001, "phases {sum} of {seconds}");
        assert!(
            (gap - seconds).abs() < HOPS.mul_add(stall, TOLERANCE),
            "the client waited {gap} s, told is {seconds} s, and threads stood still for {stall} s"
        );
        assert_eq!(outage["to"], switch.new.to_string());
        assert_eq!(outage["from"], switch.old.to_string());

        // The log line, the status, readiness, the page and the metrics.
        let switched = proxy.event_after(mark, "switched", FOLLOW);
        assert_eq!(switched.fields["to"], outage["to"]);
        assert_eq!(switched.fields["trigger"], outage["trigger"]);
        let (code, ready) = get(admin, "/readyz");
        assert_eq!(code, 200, "{ready}");
        assert!(ready.contains(&switch.new.to_string()), "{ready}");
        let told = status(admin);
        assert_eq!(told["proxies"][0]["master"]["addr"], switch.new.to_string());
        let (_, page) = get(admin, "/");
        assert!(
            page.contains(&format!("{} \u{2192} {}", switch.old, switch.new)),
            "{page}"
        );
        let (_, metrics) = get(admin, "/metrics");
        let count: u64 = metrics
            .lines()
            .filter(|line| line.starts_with("switchmaster_switches_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        assert_eq!(count, expected - 1, "{metrics}");
        let info = format!(
            "switchmaster_master_info{{proxy=\"main\",addr=\"{}\"}}",
            switch.new
        );
        assert_eq!(series(&metrics, &info), Some(1.0), "{metrics}");
        let old = format!("addr=\"{}\"", switch.old);
        assert!(
            !metrics
                .lines()
                .any(|l| l.starts_with("switchmaster_master_info") && l.contains(&old)),
            "{metrics}"
        );
        let unavailable =
            series(&metrics, "switchmaster_unavailable_seconds_total").expect("it is there");
        assert!(unavailable >= seconds, "{unavailable} of {seconds}");
        let (_, events) = get(admin, "/events");
        let events: Vec<Value> = serde_json::from_str(&events).expect("JSON");
        assert!(
            events
                .iter()
                .any(|e| e["event"] == "switched" && e["fields"]["to"] == outage["to"])
        );
        if kill {
            break;
        }
        servers.ready_again(switch);
    }
}

#[test]
fn readiness_follows_the_master_and_liveness_does_not() {
    let proxy = watched(Plan::following(&[NOBODY.parse().expect("an address")]));
    let admin = admin_of(&proxy);
    let (code, words) = get(admin, "/livez");
    assert_eq!((code, words.as_str()), (200, "ok\n"));
    let (code, words) = get(admin, "/readyz");
    assert_eq!(code, 503);
    assert!(
        words.starts_with("main: not ready: No master of \"mymaster\" was verified yet"),
        "{words}"
    );
    let (_, metrics) = get(admin, "/metrics");
    assert_eq!(
        series(&metrics, "switchmaster_master_up{proxy=\"main\"}"),
        Some(0.0),
        "{metrics}"
    );
    assert!(
        series(&metrics, "switchmaster_unavailable_seconds_total") > Some(0.0),
        "{metrics}"
    );

    let servers = Topology::start();
    let proxy = watched(Plan::following(&servers.sentinels()));
    let admin = admin_of(&proxy);
    wait_until("it to be ready", PATIENCE, || {
        get(admin, "/readyz").0 == 200
    });
    // A Sentinel that falls silent is seen at once; the proxy is as ready as before.
    let silent = servers.sentinels()[2];
    servers.cluster().sentinels()[2].kill().expect("it dies");
    wait_until("the loss to be told", PATIENCE, || {
        let (_, metrics) = get(admin, "/metrics");
        let up = format!("switchmaster_sentinel_up{{master=\"mymaster\",sentinel=\"{silent}\"}}");
        series(&metrics, &up) == Some(0.0)
    });
    assert_eq!(get(admin, "/readyz").0, 200);
    let told = status(admin);
    let sentinels = told["proxies"][0]["sentinels"].as_array().expect("a list");
    assert_eq!(
        sentinels.iter().filter(|s| s["agrees"] == true).count(),
        2,
        "{told}"
    );
    assert_eq!(told["proxies"][0]["quorum_ok"], true, "{told}");
}

#[test]
fn metrics_are_those_of_the_table_and_of_no_other() {
    let servers = Topology::start();
    let proxy = watched(Plan::moving(&servers.sentinels()));
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    let mut conn = Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens");
    conn.call(&["SET", "secret-key", "secret-value"])
        .expect("the master answers");
    let mark = proxy.mark();
    follows(&proxy, mark, servers.fail_over(0));
    over(admin, 2);
    let metrics = wait_for("replicas to be told of", PATIENCE, || {
        let (_, metrics) = get(admin, "/metrics");
        metrics
            .contains("switchmaster_replica_lag_bytes{")
            .then_some(metrics)
    });
    // What is told of an entry that leads to replicas is told of no other.
    let reading = Plan::moving(&servers.sentinels()).env("SWITCHMASTER_PROXY_ROLE", "replica");
    let reading = watched(reading);
    let of_readers = wait_for("what is read from to be told of", PATIENCE, || {
        let (_, metrics) = get(admin_of(&reading), "/metrics");
        metrics
            .contains("switchmaster_replica_age_seconds{")
            .then_some(metrics)
    });
    let metrics = metrics + &of_readers;
    // Where there is a certificate (`tests/tls`).
    let there = |metric: &&table::Metric| metric.name != table::CERTIFICATE_EXPIRY.name;
    for metric in table::ALL.iter().filter(there) {
        let typed = format!("# TYPE {} {}", metric.name, metric.kind.word());
        assert!(metrics.contains(&typed), "no {typed} in:\n{metrics}");
    }
    for line in metrics.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).expect("a name");
        let known =
            name.starts_with("process_") || table::ALL.iter().any(|metric| metric.name == name);
        assert!(known, "{name} is not in the table");
    }
    assert!(!metrics.contains("secret"), "{metrics}");
}

#[test]
fn whoever_asks_wrongly_is_told_so_and_nobody_else_notices() {
    let proxy = watched(Plan::following(&[NOBODY.parse().expect("an address")]));
    let admin = admin_of(&proxy);
    let request = |line: &str, host: &str| {
        format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    let code = |request: String| ask(admin, &request).0;
    assert_eq!(code(request("POST /status", "localhost")), 405);
    assert_eq!(code(request("GET /status", "rebound.example:8479")), 421);
    assert_eq!(code(request("GET /elsewhere", "localhost")), 404);
    assert_eq!(
        code(request("GET /status", &format!("[::1]:{}", admin.port()))),
        200
    );
    assert_eq!(
        code(format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
            "x".repeat(64 * 1024)
        )),
        431
    );
    assert_eq!(code("garbage\r\n\r\n".to_owned()), 400);
    let (_, head, page) = ask(admin, &request("GET /", "localhost"));
    assert!(
        head.to_ascii_lowercase()
            .contains("content-security-policy: default-src 'none'"),
        "{head}"
    );
    for elsewhere in ["src=\"http", "href=\"http", "url(", "@import", "//cdn"] {
        assert!(!page.contains(elsewhere), "{elsewhere} in {page}");
    }

    // Those who say nothing hold no place for ever, and the first beyond the limit is closed at once.
    let slow: Vec<TcpStream> = (0..80)
        .map(|_| TcpStream::connect(admin).expect("accepted by the kernel"))
        .collect();
    for stream in &slow {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    }
    let closed = |mut stream: &TcpStream| matches!(stream.read(&mut [0; 512]), Ok(0) | Err(_));
    assert!(closed(&slow[79]), "beyond the limit");
    assert!(closed(&slow[0]), "a head that does not come");
    wait_until("a place to be free", PATIENCE, || {
        get(admin, "/livez").0 == 200
    });
}

#[test]
fn a_taken_port_costs_the_page_only_where_nobody_asked_for_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("a port").to_string();
    let sentinel = [NOBODY.parse().expect("an address")];
    let asked = Plan::following(&sentinel)
        .env("SWITCHMASTER_ADMIN_LISTEN", &addr)
        .start();
    let failed = asked.event("failed", PATIENCE);
    assert_eq!(failed.fields["code"], 73, "{:?}", failed.fields);
    assert!(
        failed.fields["message"]
            .as_str()
            .is_some_and(|m| m.contains(&addr)),
        "{:?}",
        failed.fields
    );
}

#[test]
fn the_document_is_made_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, table::document()).expect("docs can be written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == table::document(),
        "docs/metrics.md is old: BLESS=1 cargo test --test admin"
    );
}

#[test]
fn status_in_a_terminal_and_as_a_probe() {
    let servers = Topology::start();
    let proxy = watched(Plan::following(&servers.sentinels()));
    let admin = admin_of(&proxy).to_string();
    proxy.event("ready", PATIENCE);
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_switchmaster"));
        let output = command
            .arg("status")
            .args(args)
            .env_remove("SWITCHMASTER_CONFIG")
            .output();
        let output = output.expect("the program was built by cargo");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, text, _) = run(&["--admin", &admin]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.starts_with("Serving 0 sessions to 127.0.0.1:"),
        "{text}"
    );
    assert!(
        text.contains("3 of 3 Sentinels agree") && text.lines().count() > 8,
        "{text}"
    );
    println!("{text}");
    let (code, json, _) = run(&["--admin", &admin, "--json"]);
    assert_eq!(code, Some(0));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["proxies"][0]["phase"], "serving");
    assert_eq!(
        run(&["--admin", &admin, "--probe", "ready"]),
        (Some(0), String::new(), String::new())
    );
    assert_eq!(run(&["--admin", &admin, "--probe", "live"]).0, Some(0));
    // Not ready, and not there.
    let lost = watched(Plan::following(&[NOBODY.parse().expect("an address")]));
    let lost_admin = admin_of(&lost).to_string();
    let (code, _, why) = run(&["--admin", &lost_admin, "--probe", "ready"]);
    assert_eq!(code, Some(1));
    assert!(why.contains("not ready"), "{why}");
    assert_eq!(run(&["--admin", &lost_admin, "--probe", "live"]).0, Some(0));
    let (code, _, why) = run(&["--admin", NOBODY]);
    assert_eq!(code, Some(69), "{why}");
    assert!(why.contains("--admin"), "{why}");
    assert_eq!(run(&["--admin", "off"]).0, Some(69));
}
