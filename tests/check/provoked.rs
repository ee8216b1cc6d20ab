//! Faults that take more than a command to provoke, each on real servers where there is a way.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use switchmaster::demo::cluster::Options;
use switchmaster::demo::wire::Conn;

use super::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use super::harness::network::Network;
use super::harness::proxy::{Plan, Proxy};
use super::harness::rogue::{Manner, Rogue};
use super::harness::split::Place;
use super::harness::topology::{FAILOVER, FOLLOW, Topology};
use super::harness::{server, wait_for, wait_until};
use super::{NODE_PASSWORD, Report, addresses, check, fakes, list, live, report, text};

const PATIENCE: Duration = Duration::from_secs(10);
/// More than what counts as far behind (16 MiB), and little enough for a replica to go on.
const BURST: usize = 6;
const BURST_EACH: usize = 8 * 1024 * 1024;

fn told(conn: &mut Conn, command: &[&str]) {
    let reply = conn.call(command).expect("it answers");
    assert!(!reply.is_error(), "{command:?}: {reply:?}");
}

/// The demo's topology, as the demo makes it.
#[test]
fn the_demos_topology_is_all_right_but_for_what_is_truly_so() {
    let servers = Topology::start();
    servers.settle();
    let report = live(&servers.sentinels(), &[]);
    report.names("min_replicas_unset", "warn");
    assert_eq!(
        report.codes("warn"),
        ["min_replicas_unset"],
        "{:#}",
        report.json
    );
    assert!(report.codes("fail").is_empty(), "{:#}", report.json);
    let ok = report.codes("ok");
    for code in [
        "config_valid",
        "port_free",
        "open_files",
        "port_range",
        "sentinel_ok",
        "quorum",
        "sentinels_agree",
        "master_ok",
        "replica_ok",
    ] {
        assert!(ok.contains(&code), "no {code} in {:#}", report.json);
    }
    // A login that no server asks for.
    let mut command = check(&["--live", "--sentinel", &list(&servers.sentinels())]);
    command.env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD);
    super::report(command).names("probe_login_ignored", "warn");
    // The same Sentinel by two names.
    let first = servers.sentinels()[0];
    let twice = format!("{first},localhost:{}", first.port());
    let twice = super::report(check(&["--live", "--sentinel", &twice]));
    let finding = twice.names("sentinel_twice", "warn");
    assert!(text(finding, "subject").contains("localhost"), "{finding}");
    // A replica is gone, and the Sentinels still know it.
    let master = servers.settle();
    let nodes = servers.cluster().nodes().iter();
    let replica = { nodes }
        .find(|node| node.addr() != master)
        .expect("two replicas");
    replica.kill().expect("killed");
    let report = wait_for("the master to miss it", PATIENCE, || {
        let report = live(&servers.sentinels(), &[]);
        (report.of("replica_ok").len() == 1).then_some(report)
    });
    report.names("replica_missing", "warn");
}

/// No finding is there without having been seen.
#[test]
fn every_finding_is_provoked_somewhere_here() {
    let read = |path: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(path).expect("our own source")
    };
    let tests = [
        "tests/check.rs",
        "tests/check/provoked.rs",
        "tests/tls/everywhere.rs",
    ];
    let tests = tests.map(read).concat();
    let source = read("src/check/finding.rs");
    let codes = source
        .split_once("pub enum Code {")
        .and_then(|(_, behind)| behind.split_once("\n}"))
        .map(|(codes, _)| codes)
        .expect("the codes");
    let snake = |name: &str| -> String {
        let parts = name.char_indices().map(|(at, c)| match c {
            'A'..='Z' if at > 0 => format!("_{}", c.to_ascii_lowercase()),
            _ => c.to_ascii_lowercase().to_string(),
        });
        parts.collect()
    };
    let names = codes
        .lines()
        .filter_map(|line| line.trim().strip_suffix(','));
    let codes: Vec<String> = names.map(snake).collect();
    assert!(codes.len() > 40, "{codes:?}");
    let unseen: Vec<_> = codes
        .iter()
        .filter(|code| !tests.contains(&format!("\"{code}\"")))
        .collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}

/// One Sentinel was set up anew after a failover and cannot look into the servers: it names the right master at the first epoch.
#[test]
fn a_sentinel_at_another_epoch() {
    let servers = Topology::start_with(|options| {
        options.requirepass = Some(NODE_PASSWORD.to_owned());
    });
    let switch = servers.fail_over(0);
    servers.ready_again(switch);
    let sentinel = &servers.cluster().sentinels()[2];
    let mut conn = sentinel.connect().expect("it runs");
    let (ip, port) = (switch.new.ip().to_string(), switch.new.port().to_string());
    told(&mut conn, &["SENTINEL", "REMOVE", "mymaster"]);
    // Without a password it hears nothing of the others, who tell each other through the servers.
    told(
        &mut conn,
        &["SENTINEL", "MONITOR", "mymaster", &ip, &port, "1"],
    );
    let mut command = check(&["--live", "--sentinel", &list(&servers.sentinels())]);
    command.env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD);
    let report = report(command);
    let differs = report.of("sentinel_epoch_differs");
    assert_eq!(differs.len(), 1, "{:#}", report.json);
    assert_eq!(text(differs[0], "level"), "warn");
    assert!(
        text(differs[0], "subject").contains(&sentinel.addr().to_string()),
        "{:#}",
        report.json
    );
    assert!(
        text(differs[0], "message").contains("is at epoch 0"),
        "{}",
        differs[0]
    );
    assert!(!text(differs[0], "hint").is_empty());
    assert!(
        report.of("sentinels_disagree").is_empty(),
        "{:#}",
        report.json
    );
}

#[test]
fn nobody_to_fail_over_to() {
    let servers = Topology::start_with(|options: &mut Options| {
        options.replicas = 0;
        options.sentinels = 1;
        options.quorum = 1;
    });
    let report = live(&servers.sentinels(), &[]);
    report.names("no_replicas", "fail");
    let few = report.of("sentinels_few");
    assert_eq!(few.len(), 1, "{:#}", report.json);
    assert!(!text(few[0], "hint").is_empty());
    // A Sentinel in a master's place.
    let sentinel = servers.sentinels()[0];
    let misled = fakes(sentinel, 3);
    live(&addresses(&misled), &[]).names("not_a_data_node", "fail");
    // Servers answer ROLE while they load; one that does not, as some that pretend to be one.
    let loading = Rogue::start(Manner::Says(
        "-LOADING Redis is loading the dataset in memory\r\n",
    ));
    let misled = fakes(loading.addr(), 3);
    live(&addresses(&misled), &[]).names("master_loading", "fail");
}

#[test]
fn a_master_that_is_called_down_and_has_no_successor() {
    let servers = Topology::start_with(|options| {
        // Neither may ever be promoted.
        options.extra_node_config = vec!["replica-priority 0".to_owned()];
    });
    let master = servers.settle();
    servers.node(master).freeze().expect("frozen");
    let report = wait_for("a quorum to call it down", FAILOVER, || {
        let report = live(&servers.sentinels(), &[]);
        (!report.of("master_called_down").is_empty()).then_some(report)
    });
    report.names("master_called_down", "fail");
    assert_eq!(
        report.of("master_unreachable").len(),
        1,
        "{:#}",
        report.json
    );
    servers.thaw_all();
}

#[test]
fn replicas_that_are_not_what_the_master_takes_them_for() {
    let servers = Topology::start_with(|options| options.start_sentinels = false);
    let nodes: Vec<_> = servers.cluster().nodes().iter().map(|n| n.addr()).collect();
    let [master, first, second] = nodes[..] else {
        panic!("three nodes: {nodes:?}");
    };
    let named = fakes(master, 3);
    let sentinels = addresses(&named);
    let mut at_master = servers.direct(master);
    wait_until("both replicas to be there", PATIENCE, || {
        live(&sentinels, &[]).of("replica_ok").len() == 2
    });

    // Written faster than it is acknowledged, which happens once a second.
    let value = "x".repeat(BURST_EACH);
    let behind = wait_for("a replica to be far behind", FAILOVER, || {
        for _ in 0..BURST {
            told(&mut at_master, &["SET", "burst", &value]);
        }
        let report = live(&sentinels, &[]);
        let seen = report.codes("warn").contains(&"replica_behind");
        (seen && report.codes("fail").is_empty()).then_some(report)
    });
    behind.names("replica_behind", "warn");

    // One that goes by the address of a node that has left, and is a master of its own.
    told(&mut servers.direct(second), &["REPLICAOF", "NO", "ONE"]);
    let mut at_first = servers.direct(first);
    let port = second.port().to_string();
    told(
        &mut at_first,
        &["CONFIG", "SET", "replica-announce-ip", "127.0.0.1"],
    );
    told(
        &mut at_first,
        &["CONFIG", "SET", "replica-announce-port", &port],
    );
    told(&mut at_master, &["CLIENT", "KILL", "TYPE", "replica"]);
    let report = wait_for("it to go by the other address", FAILOVER, || {
        let report = live(&sentinels, &[]);
        (!report.of("replica_is_master").is_empty()).then_some(report)
    });
    report.names("replica_is_master", "fail");
}

/// `127.0.0.1` means another machine to whoever says it.
#[test]
fn addresses_that_are_right_only_where_they_are_said() {
    let Some(network) = Network::make() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let far = |index, arg0: &std::ffi::OsStr, lines: &[String]| {
        Place::far(&network, &server, arg0, folder.path(), index, lines)
    };
    let node = server.node_arg0();
    let master = far(0, &node, &["save \"\"".to_owned()]);
    let local = format!("127.0.0.1 {}", master.addr.port());
    let _replica = far(
        1,
        &node,
        &["save \"\"".to_owned(), format!("replicaof {local}")],
    );
    let reached = format!("{} {}", master.addr.ip(), master.addr.port());
    let sentinel = far(
        2,
        &server.sentinel_arg0(),
        &[
            format!("sentinel monitor mymaster {local} 1"),
            format!("sentinel monitor reachable {reached} 1"),
        ],
    );
    let report = live(&[sentinel.addr], &[]);
    let finding = report.names("master_address_loopback", "fail");
    assert!(text(finding, "hint").contains("[address_map]"), "{finding}");
    let report = wait_for("the replica to be connected", FAILOVER, || {
        let report = live(&[sentinel.addr], &["--master", "reachable"]);
        report.of("no_replicas").is_empty().then_some(report)
    });
    report.names("replica_address_loopback", "fail");
    assert_eq!(report.of("master_ok").len(), 1, "{:#}", report.json);
}

#[test]
fn what_this_host_is_warned_of() {
    let offline = |args: &[&str]| -> Report {
        report(check(&[&["--sentinel", "127.0.0.1:1"], args].concat()))
    };
    // A port that the kernel gives to others.
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.expect("Linux tells it");
    let first: u16 = range
        .split_whitespace()
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port");
    let free = (first..).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let free = free.expect("one is free");
    offline(&["--listen", &format!("127.0.0.1:{free}")]).names("port_in_range", "warn");

    let mut command = check(&["--sentinel", "127.0.0.1:1"]);
    command.env("SWITCHMASTER_LIMIT_WORKERS", "3");
    let warned = report(command);
    let finding = warned.names("config_warning", "warn");
    assert!(text(finding, "message").contains("SWITCHMASTER_LIMITS_WORKERS"));
}

/// Its control loop stands still while its admin endpoint answers: no switch of the program's does that, so its endpoint is
/// played, with what a real one says of itself.
#[test]
fn a_proxy_whose_control_loop_stands_still() {
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(([127, 0, 0, 1], 1).into()));
    let following = sentinel.addr().to_string();
    let proxy: Proxy = Plan::bare(["run", "--sentinel", &following, "--listen", "127.0.0.1:0"])
        .args(["--log-format", "json", "--admin", "127.0.0.1:0"])
        .start();
    let admin = proxy.event("admin_listening", FOLLOW);
    let admin: SocketAddr = admin.text("addr").parse().expect("an address");
    let listen = proxy.addr().to_string();
    let stuck = stuck_like(admin);
    let report = report(check(&[
        "--sentinel",
        &following,
        "--listen",
        &listen,
        "--admin",
        &stuck.to_string(),
    ]));
    let finding = report.names("proxy_stuck", "fail");
    let pid = format!("(pid {})", proxy.pid());
    assert!(text(finding, "subject").contains(&pid), "{finding}");
}

/// An endpoint that passes on what this one says, but for `/livez`.
fn stuck_like(admin: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    // Ends with the test's process; each connection is one question.
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            let asked = String::from_utf8_lossy(&head[..read]).into_owned();
            let answer = if asked.starts_with("GET /livez") {
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 6\r\nConnection: close\r\n\r\nstuck\n".to_vec()
            } else {
                let mut answer = Vec::new();
                let path = asked.split(' ').nth(1).unwrap_or("/");
                let request =
                    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
                if let Ok(mut real) = std::net::TcpStream::connect(admin) {
                    drop(real.write_all(request.as_bytes()));
                    drop(real.read_to_end(&mut answer));
                }
                answer
            };
            drop(stream.write_all(&answer));
        }
    });
    addr
}
