//! `switchmaster check` on real servers: healthy, and with each fault provoked. The fault is what is named first.

mod harness;
#[path = "check/provoked.rs"]
mod provoked;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use switchmaster::demo::wire::Conn;

use harness::fake_master::{Bytes, FakeMaster};
use harness::fake_sentinel::{FakeSentinel, Protocol, View};
use harness::proxy::{Plan, Proxy};
use harness::rogue::{Manner, Rogue};
use harness::topology::{FAILOVER, FOLLOW, Topology};
use harness::wait_for;

const NODE_PASSWORD: &str = "node secret #1";
const SENTINEL_PASSWORD: &str = "sentinel secret \"2\"";
const WATCHER: &str = "watcher-secret";
const PROBE: &str = "probe-secret";
/// Sentinel's own limit is 2 s; a machine that is busy adds to that.
const TILTING: Duration = Duration::from_millis(2500);

/// What one run gave.
struct Report {
    exit: i32,
    json: Value,
}

impl Report {
    fn findings(&self) -> &[Value] {
        self.json["findings"].as_array().expect("a list")
    }

    /// Code and level of what is named first.
    fn first(&self) -> (&str, &str) {
        let first = &self.findings()[0];
        (text(first, "code"), text(first, "level"))
    }

    fn codes(&self, level: &str) -> Vec<&str> {
        let of_level = self.findings().iter().filter(|f| f["level"] == level);
        of_level.map(|f| text(f, "code")).collect()
    }

    fn of(&self, code: &str) -> Vec<&Value> {
        let of_code = self.findings().iter().filter(|f| f["code"] == code);
        of_code.collect()
    }

    /// This is what is wrong, before all else; the exit code says how bad.
    fn names(&self, code: &str, level: &str) -> &Value {
        assert_eq!(self.first(), (code, level), "{:#}", self.json);
        let exit = if level == "fail" { 1 } else { 0 };
        assert_eq!(self.exit, exit, "{:#}", self.json);
        assert!(!text(&self.findings()[0], "hint").is_empty());
        &self.findings()[0]
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// `check` with nothing of this process' configuration, on a port that nobody else has.
fn check(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchmaster"));
    command
        .env_clear()
        .env("SWITCHMASTER_ADMIN_LISTEN", "off")
        .args(["check", "--listen", "127.0.0.1:0"])
        .args(args)
        .stdin(Stdio::null());
    command
}

fn report(mut command: Command) -> Report {
    let output = command.arg("--json").output().expect("the program runs");
    let shown = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    Report {
        exit: output.status.code().expect("it is not killed"),
        json: serde_json::from_str(&shown).unwrap_or_else(|e| panic!("{e}: {shown}{told}")),
    }
}

fn list(sentinels: &[SocketAddr]) -> String {
    let sentinels: Vec<_> = sentinels.iter().map(ToString::to_string).collect();
    sentinels.join(",")
}

fn live(sentinels: &[SocketAddr], args: &[&str]) -> Report {
    let mut command = check(&["--live", "--sentinel", &list(sentinels)]);
    command.args(args);
    report(command)
}

/// Does what a hint says, in a shell, as somebody who may.
fn paste(finding: &Value, password: &str) {
    let lines: Vec<_> = text(finding, "hint")
        .lines()
        .filter(|line| line.starts_with("redis-cli "))
        .collect();
    assert!(!lines.is_empty(), "nothing to paste: {finding}");
    for line in lines {
        let output = Command::new("sh")
            .args(["-c", line])
            .env("REDISCLI_AUTH", password)
            .output()
            .expect("a shell");
        let said = String::from_utf8_lossy(&output.stdout);
        // CONFIG REWRITE and ACL SETUSER answer OK.
        assert!(said.contains("OK"), "{line}: {said}");
    }
}

/// So many Sentinels that know each other and name this master.
fn fakes(master: SocketAddr, count: usize) -> Vec<FakeSentinel> {
    fakes_speaking(Protocol::Resp3, master, count)
}

fn fakes_speaking(protocol: Protocol, master: SocketAddr, count: usize) -> Vec<FakeSentinel> {
    let view = |n| View::of(master).by(n, count);
    let fakes: Vec<_> = (0..count)
        .map(|n| FakeSentinel::start(protocol, view(n)))
        .collect();
    let known: Vec<_> = (0..count)
        .map(|n| (fakes[n].addr(), view(n).sentinel_id))
        .collect();
    for (n, fake) in fakes.iter().enumerate() {
        let mut others = known.clone();
        others.remove(n);
        fake.update(|view| view.sentinels = others);
    }
    fakes
}

fn addresses(fakes: &[FakeSentinel]) -> Vec<SocketAddr> {
    fakes.iter().map(FakeSentinel::addr).collect()
}

#[test]
fn a_topology_that_breaks_piece_by_piece() {
    let servers = Topology::start();
    let sentinels = servers.sentinels();
    let master = servers.settle();

    // Healthy: one thing is truly so, and the hint ends it.
    let healthy = live(&sentinels, &[]);
    healthy.names("min_replicas_unset", "warn");
    assert_eq!(healthy.codes("warn"), ["min_replicas_unset"]);
    assert_eq!(healthy.of("sentinel_ok").len(), 3);
    assert_eq!(healthy.of("replica_ok").len(), 2);
    paste(healthy.of("min_replicas_unset")[0], "");
    let all_ok = live(&sentinels, &[]);
    assert_eq!(all_ok.json["level"], "ok", "{:#}", all_ok.json);
    assert_eq!(all_ok.of("min_replicas_set").len(), 1);
    // One that is named leads to the others; the text says the same as the JSON.
    let one = live(&sentinels[..1], &[]);
    assert_eq!(one.of("sentinel_ok").len(), 3, "{:#}", one.json);
    text_is_the_same_list(&sentinels);
    let unknown = live(&sentinels, &["--master", "another"]);
    unknown.names("master_unknown", "fail");
    assert_eq!(unknown.codes("warn"), ["master_not_looked_at"]);

    faults_of_scripted_sentinels(&servers, master);

    // A port that nobody listens on, in a replica's place.
    let replica = servers
        .cluster()
        .nodes()
        .iter()
        .find(|n| n.addr() != master);
    let replica = replica.expect("two replicas");
    replica.freeze().expect("frozen");
    let frozen = live(&sentinels, &[]);
    let finding = frozen.names("replica_unreachable", "fail");
    assert!(text(finding, "subject").contains(&replica.addr().to_string()));
    replica.thaw().expect("thawed");

    // A Sentinel that stood still calls itself tilted for 30 s.
    let cluster = servers.cluster().sentinels();
    cluster[0].freeze().expect("frozen");
    std::thread::sleep(TILTING);
    cluster[0].thaw().expect("thawed");
    let tilted = wait_for("a Sentinel in TILT, and nothing else", FAILOVER, || {
        let report = live(&sentinels, &[]);
        (report.first().0 == "sentinel_in_tilt").then_some(report)
    });
    let finding = tilted.names("sentinel_in_tilt", "warn");
    assert!(text(finding, "subject").contains(&sentinels[0].to_string()));

    cluster[2].kill().expect("killed");
    let gone = live(&sentinels, &[]);
    gone.names("sentinel_unreachable", "fail");
    cluster[1].kill().expect("killed");
    let gone = live(&sentinels, &[]);
    gone.names("quorum_unreachable", "fail");
    assert_eq!(gone.of("sentinel_unreachable").len(), 2);
    assert_eq!(gone.of("master_ok").len(), 1, "it is asked all the same");
    cluster[0].kill().expect("killed");
    let gone = live(&sentinels, &[]);
    assert_eq!((gone.exit, gone.first().0), (69, "sentinel_unreachable"));
}

fn text_is_the_same_list(sentinels: &[SocketAddr]) {
    let output = check(&["--live", "--sentinel", &list(sentinels)]).output();
    let output = output.expect("the program runs");
    let shown = String::from_utf8(output.stdout).expect("text");
    let findings = live(sentinels, &[]);
    // The lag of a replica may be another by now.
    let subjects = findings.findings().iter().map(|f| text(f, "subject"));
    for (line, subject) in shown.lines().zip(subjects) {
        let line = line.strip_prefix("ok    ").expect(line);
        assert!(line.starts_with(&format!("{subject}: ")), "{line}");
    }
    assert!(shown.ends_with("ok\n"), "{shown}");
}

fn faults_of_scripted_sentinels(servers: &Topology, master: SocketAddr) {
    let four = fakes(master, 4);
    live(&addresses(&four), &[]).names("sentinels_even", "warn");
    drop(four);
    // Older than HELLO.
    let old = fakes_speaking(Protocol::Resp2Only, master, 3);
    let old = live(&addresses(&old), &[]);
    assert_eq!(old.json["level"], "ok", "{:#}", old.json);
    assert_eq!(old.of("sentinel_ok").len(), 3, "{:#}", old.json);

    let three = fakes(master, 3);
    let sentinels = addresses(&three);
    let calm = live(&sentinels, &[]);
    assert_eq!(calm.json["level"], "ok", "{:#}", calm.json);
    three[1].update(|view| view.down_after_ms = 30_000);
    live(&sentinels, &[]).names("down_after_long", "warn");
    three[1].update(|view| view.down_after_ms = 1500);

    let nodes = servers.cluster().nodes().iter();
    let other = nodes.map(|node| node.addr()).find(|addr| *addr != master);
    let other = other.expect("two replicas");
    three[1].update(|view| {
        view.addr = other;
        view.epoch = 0;
    });
    let disagreeing = live(&sentinels, &[]);
    let finding = disagreeing.names("sentinels_disagree", "fail");
    assert!(text(finding, "subject").contains(&sentinels[1].to_string()));
    assert_eq!(
        disagreeing.of("master_ok").len(),
        1,
        "the right one is asked"
    );

    // All name an address where nobody is.
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let nobody = nobody.expect("a port");
    for fake in &three {
        fake.update(|view| (view.addr, view.epoch) = (nobody, 2));
    }
    let unreachable = live(&sentinels, &[]);
    let finding = unreachable.names("master_unreachable", "fail");
    assert!(text(finding, "hint").contains(&format!("[address_map]\n\"{nobody}\" = ")));
    // The same address is this proxy's own.
    let own = live(&sentinels, &["--listen", &nobody.to_string()]);
    own.names("sentinel_names_this_proxy", "fail");
    // A replica.
    for fake in &three {
        fake.update(|view| view.addr = other);
    }
    live(&sentinels, &[]).names("master_is_replica", "fail");
}

#[test]
fn logins_and_rights() {
    let servers = Topology::start_with(|options| {
        options.requirepass = Some(NODE_PASSWORD.to_owned());
        options.sentinel_requirepass = Some(SENTINEL_PASSWORD.to_owned());
    });
    let sentinels = servers.sentinels();
    let run = |variables: &[(&str, &str)]| {
        let mut command = check(&["--live", "--sentinel", &list(&sentinels)]);
        let prefixed = variables
            .iter()
            .map(|(k, v)| (format!("SWITCHMASTER_{k}"), v));
        command.envs(prefixed);
        let report = report(command);
        let shown = report.json.to_string();
        for secret in [NODE_PASSWORD, SENTINEL_PASSWORD, WATCHER, PROBE] {
            assert!(!shown.contains(&secret.replace('"', "\\\"")), "{shown}");
        }
        report
    };

    // Passwords.
    run(&[]).names("sentinel_login_needed", "fail");
    let wrong = run(&[("SENTINEL_PASSWORD", "wrong")]);
    wrong.names("sentinel_login_refused", "fail");
    assert_eq!(wrong.of("sentinel_login_refused").len(), 3);
    assert!(
        wrong.of("quorum_unreachable").is_empty(),
        "nobody knows that"
    );
    let sentinel = ("SENTINEL_PASSWORD", SENTINEL_PASSWORD);
    run(&[sentinel]).names("probe_login_needed", "warn");
    run(&[sentinel, ("FAILOVER_VERIFY", "role")]).names("probe_login_needed", "fail");
    let wrong = run(&[sentinel, ("PROXY_PROBE_PASSWORD", "wrong")]);
    wrong.names("probe_login_refused", "fail");
    let right = run(&[sentinel, ("PROXY_PROBE_PASSWORD", NODE_PASSWORD)]);
    right.names("min_replicas_unset", "warn");

    // Rights at a node: the line that is named grants them.
    let instances = |of| match of {
        "nodes" => servers.cluster().nodes(),
        _ => servers.cluster().sentinels(),
    };
    let set_user = |of, user: &str, rules: &[&str]| {
        for instance in instances(of) {
            let mut conn: Conn = instance.connect().expect("it runs");
            let mut command = vec!["ACL", "SETUSER", user];
            command.extend(rules);
            let reply = conn.call(&command).expect("it answers");
            assert!(!reply.is_error(), "{reply:?}");
        }
    };
    set_user("nodes", "probe", &["on", &format!(">{PROBE}"), "+ping"]);
    let probe = [
        ("PROXY_PROBE_USERNAME", "probe"),
        ("PROXY_PROBE_PASSWORD", PROBE),
    ];
    let as_probe = [&[sentinel][..], &probe].concat();
    let master = run(&as_probe);
    master.names("probe_right_missing", "fail");
    paste(master.of("probe_right_missing")[0], NODE_PASSWORD);
    let replicas = run(&as_probe);
    let lacking = replicas.of("probe_right_missing");
    assert_eq!(lacking.len(), 2, "{:#}", replicas.json);
    for finding in lacking {
        paste(finding, NODE_PASSWORD);
    }
    run(&as_probe).names("min_replicas_not_looked_at", "warn");

    // Rights at the Sentinels.
    let watcher = [
        ("SENTINEL_USERNAME", "watcher"),
        ("SENTINEL_PASSWORD", WATCHER),
    ];
    let as_watcher = [&watcher[..], &probe].concat();
    let password = format!(">{WATCHER}");
    let granted = "+hello +auth +ping +info +sentinel|myid +sentinel|sentinels +sentinel|ckquorum";
    let rules = |more: &[&'static str]| {
        let mut rules = vec!["reset", "on", &password, "-@all"];
        rules.extend(granted.split(' '));
        rules.extend(more);
        set_user("sentinels", "watcher", &rules);
    };
    let views = ["+sentinel|master", "+sentinel|get-master-addr-by-name"];
    for more in [
        &[views[0], views[1], "resetchannels"][..],
        &[views[0], views[1], "resetchannels", "+subscribe"],
        &[views[0], views[1], "resetchannels", "+subscribe", "&+odown"],
        &[views[0], "allchannels", "+subscribe"],
        &["resetchannels"],
    ] {
        rules(more);
        let lacking = run(&as_watcher);
        lacking.names("sentinel_right_missing", "fail");
        let findings = lacking.of("sentinel_right_missing");
        assert_eq!(findings.len(), 3, "{more:?}: {:#}", lacking.json);
        for finding in findings {
            paste(finding, SENTINEL_PASSWORD);
        }
        let granted = run(&as_watcher);
        granted.names("min_replicas_not_looked_at", "warn");
        assert_eq!(granted.of("sentinel_ok").len(), 3, "{more:?}");
    }
    // Whoever leads clients to replicas has to be told of them.
    let reading = [&as_watcher[..], &[("PROXY_ROLE", "replica")]].concat();
    let lacking = run(&reading);
    let findings = lacking.of("sentinel_right_missing");
    assert_eq!(findings.len(), 3, "{:#}", lacking.json);
    assert!(text(findings[0], "message").contains("role = \"replica\""));
    for finding in findings {
        paste(finding, SENTINEL_PASSWORD);
    }
    assert!(run(&reading).of("sentinel_right_missing").is_empty());

    // A login for clients that cannot log in by themselves.
    let with = |password| [&as_probe[..], &[("PROXY_LOGIN_PASSWORD", password)]].concat();
    let wrong = run(&with("wrong"));
    let finding = wrong.names("client_login_failed", "fail");
    assert!(
        text(finding, "hint").contains("--askpass PING"),
        "{finding}"
    );
    let right = run(&with(NODE_PASSWORD));
    assert_eq!(right.of("client_login_ok").len(), 1, "{:#}", right.json);

    set_user("sentinels", "watcher", &["-info", "-sentinel|ckquorum"]);
    let partly = run(&as_watcher);
    let finding = partly.names("sentinel_not_looked_at", "warn");
    assert!(text(finding, "message").contains("+info +sentinel|ckquorum"));
}

#[test]
fn faults_of_this_host() {
    let own = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = own.local_addr().expect("bound").to_string();
    let offline = |args: &[&str]| report(check(&[&["--sentinel", "127.0.0.1:1"], args].concat()));

    let calm = offline(&[]);
    assert_eq!(calm.exit, 0, "{:#}", calm.json);
    assert_eq!(calm.codes("fail").len(), 0);

    let taken = offline(&["--listen", &addr]);
    let finding = taken.names("port_taken", "fail");
    let holder = format!("(pid {})", std::process::id());
    assert!(text(finding, "message").contains(&holder), "{finding}");
    offline(&["--admin", &addr]).names("port_taken", "fail");

    // A unix socket where somebody answers, and where nothing can be made.
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("a.sock");
    let unix = |path: &std::path::Path| format!("unix:{}", path.display());
    let answering = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    offline(&["--listen", &unix(&socket)]).names("port_taken", "fail");
    drop(answering);
    let stale = offline(&["--listen", &unix(&socket)]);
    assert_eq!(stale.of("port_free").len(), 2, "{:#}", stale.json);
    assert!(socket.exists(), "nothing was changed");
    let nowhere = folder.path().join("none/a.sock");
    offline(&["--listen", &unix(&nowhere)]).names("port_refused", "fail");

    // In a shell with a limit of its own, and in a network of its own.
    let within = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        let inner = check(&["--sentinel", "127.0.0.1:1"]);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SWITCHMASTER_ADMIN_LISTEN", "off")
            .args(args)
            .arg(inner.get_program())
            .args(inner.get_args())
            .stdin(Stdio::null());
        report(command)
    };
    let few = within("sh", &["-c", "ulimit -n 300 && exec \"$0\" \"$@\""]);
    let finding = few.names("few_open_files", "warn");
    assert!(text(finding, "message").contains("allows 75 sessions"));
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(
            std::io::stderr(),
            "not root, so no network namespace: the narrow port range is tested as a fact alone"
        );
        return;
    }
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    let narrowed = format!("echo 50000 50999 > {range} && exec \"$0\" \"$@\"");
    let narrow = within("unshare", &["--net", "sh", "-c", &narrowed]);
    narrow.names("narrow_port_range", "warn");
}

#[test]
fn the_proxy_that_runs_is_no_fault() {
    let sentinel = fakes(([127, 0, 0, 1], 1).into(), 1);
    let following = list(&addresses(&sentinel));
    let args = ["run", "--sentinel", &following, "--listen", "127.0.0.1:0"];
    let proxy: Proxy = Plan::bare(args)
        .args(["--log-format", "json", "--admin", "127.0.0.1:0"])
        .start();
    let listen = proxy.addr().to_string();
    let admin = proxy.event("admin_listening", FOLLOW);
    let admin = admin.text("addr").to_owned();
    let look = |admin: &str| {
        let sentinel = ["--sentinel", &following];
        report(check(
            &[&sentinel[..], &["--listen", &listen, "--admin", admin]].concat(),
        ))
    };
    let running = look(&admin);
    assert_eq!(running.json["fail"], 0, "{:#}", running.json);
    assert_eq!(running.of("proxy_running").len(), 3, "{:#}", running.json);
    // Known by its name as well.
    let running = look("off");
    let finding = &running.of("proxy_running")[0];
    assert!(
        text(finding, "message").contains("switchmaster"),
        "{finding}"
    );
}

#[test]
fn peers_that_say_nothing_or_nonsense_hold_nobody_up() {
    for manner in [Manner::Mute, Manner::HangUp, Manner::EndlessEvents] {
        let rogues: Vec<_> = (0..3).map(|_| Rogue::start(manner)).collect();
        let addresses: Vec<_> = rogues.iter().map(Rogue::addr).collect();
        let report = live(&addresses, &[]);
        let first = &report.findings()[0];
        assert!([1, 69].contains(&report.exit), "{manner:?}: {first}");
        assert!(text(first, "subject").starts_with("Sentinel "), "{first}");
    }
    // A data node in a Sentinel's place.
    let node = FakeMaster::start(Bytes::Sink);
    let report = live(&[node.addr()], &[]);
    report.names("not_a_sentinel", "fail");
}

#[test]
fn what_is_not_valid_is_said_as_by_run() {
    let said = |command: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_switchmaster"))
            .env_clear()
            .args([command, "--config", "tests/config/bad/bare_number.toml"])
            .stdin(Stdio::null())
            .output()
            .expect("the program runs");
        assert!(output.stdout.is_empty());
        (output.status.code(), output.stderr)
    };
    assert_eq!(said("check"), said("run"));
    assert_eq!(said("check").0, Some(78));
}
