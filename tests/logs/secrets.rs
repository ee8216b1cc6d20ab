//! No key, value or password at any level, in the log or anywhere else that can be read, whoever repeats it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use switchmaster::demo::wire::Conn;

use super::PATIENCE;
use super::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use super::harness::proxy::{Plan, Proxy};
use super::harness::rogue::{Manner, Rogue};
use super::harness::topology::{Topology, follows};
use super::harness::wait_until;

/// Each holds this word, so that half of one is found, too.
const MARK: &str = "zmzsecret";
const NODE_PASSWORD: &str = "node zmzsecret #1";
const SENTINEL_PASSWORD: &str = "sentinel-zmzsecret-\"2\"";
const WRONG: &str = "wrong-zmzsecret";

/// What clients send: names of commands, keys, values, logins, in order and out of it.
const COMMANDS: &[&[&str]] = &[
    &["AUTH", WRONG],
    &["AUTH", "user-zmzsecret", WRONG],
    &["HELLO", "3", "AUTH", "default", WRONG],
    &["AUTH", NODE_PASSWORD],
    &[
        "HELLO",
        "2",
        "AUTH",
        "default",
        NODE_PASSWORD,
        "SETNAME",
        "name-zmzsecret",
    ],
    &["HELLO", "9", "AUTH", "default", NODE_PASSWORD],
    &["SET", "key-zmzsecret", "value-zmzsecret"],
    &["GET", "key-zmzsecret", "one-zmzsecret-too-many"],
    &["ZMZSECRET", "argument-zmzsecret"],
    &["SET"],
    &["INCR", "key-zmzsecret"],
    &["EVAL", "return redis.error_reply('zmzsecret')", "0"],
    &["EVAL", "syntax zmzsecret", "0"],
    &["CONFIG", "SET", "zmzsecret", "zmzsecret"],
    &["ACL", "SETUSER", "zmzsecret", ">zmzsecret", "+zmzsecret"],
    &["CLIENT", "KILL", "ADDR", "zmzsecret"],
    &["CLIENT", "SETNAME", "name-zmzsecret"],
    &["CLIENT", "SETINFO", "LIB-NAME", "lib-zmzsecret"],
    &["SUBSCRIBE", "channel-zmzsecret"],
];

fn get(admin: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).expect("the endpoint listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    assert!(text.starts_with("HTTP/1.1 "), "{path}: {text}");
    text
}

/// The log until now, and all that the admin endpoint gives.
fn all_that_is_told(proxy: &Proxy) -> Vec<(String, String)> {
    proxy.status();
    let event = proxy.event("admin_listening", PATIENCE);
    let admin = event.text("addr").parse().expect("an address");
    let paths = ["/", "/status", "/metrics", "/events", "/readyz", "/livez"];
    let mut told: Vec<_> = paths.map(|path| (path.to_owned(), get(admin, path))).into();
    told.push(("the log".to_owned(), proxy.output()));
    told
}

fn is_silent(told: &[(String, String)]) {
    for (what, text) in told {
        let found = text.to_lowercase().find(MARK);
        let around = found.map(|at| text.chars().skip(at.saturating_sub(300)).take(400));
        let around: Option<String> = around.map(Iterator::collect);
        assert!(
            around.is_none(),
            "in {what}: {}",
            around.unwrap_or_default()
        );
    }
}

fn watched(plan: Plan) -> Plan {
    plan.env("SWITCHMASTER_ADMIN_LISTEN", "127.0.0.1:0")
        .env("SWITCHMASTER_LOG_LEVEL", "trace")
}

#[test]
fn nothing_that_clients_servers_or_operators_keep_to_themselves_is_told() {
    let servers = Topology::start_with(|options| {
        options.requirepass = Some(NODE_PASSWORD.to_owned());
        options.sentinel_requirepass = Some(SENTINEL_PASSWORD.to_owned());
    });
    let login = |plan: Plan| {
        plan.env("SWITCHMASTER_SENTINEL_PASSWORD", SENTINEL_PASSWORD)
            .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD)
    };
    let proxy = Proxy::ready(login(watched(Plan::moving(&servers.sentinels()))));
    // One connection for each, as some end a session; and one for all of them.
    let mut all = Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens");
    all.call(&["AUTH", NODE_PASSWORD]).expect("an answer");
    for command in COMMANDS {
        let mut one = Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens");
        one.call(&["AUTH", NODE_PASSWORD]).expect("an answer");
        one.call(command).expect("an answer, an error or not");
        all.call(command).expect("an answer, an error or not");
    }
    // What is no RESP, and half a request.
    for text in [
        "GET inline-zmzsecret\r\n",
        "*2\r\n$3\r\nGET\r\n$-5\r\nzmzsecret\r\n",
        "POST /zmzsecret HTTP/1.1\r\nHost: zmzsecret\r\n\r\n",
        "*3\r\n$3\r\nSET\r\n$9\r\nzmzsec",
    ] {
        let mut raw = TcpStream::connect(proxy.addr()).expect("the proxy listens");
        raw.write_all(text.as_bytes()).expect("sent");
        raw.shutdown(std::net::Shutdown::Write).expect("a socket");
        raw.set_read_timeout(Some(PATIENCE)).expect("a socket");
        drop(raw.read_to_end(&mut Vec::new()));
    }
    // A session that is told to the next master, and one that is not let in there.
    let mut kept = Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens");
    kept.call(&["HELLO", "2", "AUTH", "default", NODE_PASSWORD])
        .expect("an answer");
    kept.call(&["CLIENT", "SETNAME", "name-zmzsecret"])
        .expect("an answer");
    kept.call(&["SET", "key-zmzsecret", "value-zmzsecret"])
        .expect("an answer");
    let mark = proxy.mark();
    follows(&proxy, mark, servers.fail_over(0));
    let value = kept.call(&["GET", "key-zmzsecret"]).expect("it was moved");
    assert_eq!(value.text().as_deref(), Some("value-zmzsecret"));
    let told = all_that_is_told(&proxy);
    let (_, log) = told.last().expect("the log");
    assert!(
        log.contains("\"level\":\"DEBUG\""),
        "the level is not in force"
    );
    is_silent(&told);

    // Passwords that are wrong at both: those are told of, and not told.
    let wrong = watched(Plan::following(&servers.sentinels()))
        .env("SWITCHMASTER_SENTINEL_PASSWORD", WRONG)
        .start();
    wrong.event("sentinel_down", PATIENCE);
    is_silent(&all_that_is_told(&wrong));
    let wrong = watched(Plan::following(&servers.sentinels()))
        .env("SWITCHMASTER_SENTINEL_PASSWORD", SENTINEL_PASSWORD)
        .env("SWITCHMASTER_FAILOVER_VERIFY", "role")
        .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", WRONG)
        .start();
    wrong.event("role_rejected", PATIENCE);
    is_silent(&all_that_is_told(&wrong));
}

#[test]
fn what_is_configured_is_shown_without_its_secrets() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, WRONG).expect("written");
    let file = file.to_str().expect("text");
    for (key, value) in [
        ("SWITCHMASTER_SENTINEL_PASSWORD", SENTINEL_PASSWORD),
        ("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD),
        ("SWITCHMASTER_SENTINEL_PASSWORD_FILE", file),
    ] {
        for command in [&["config", "show"][..], &["check"], &["check", "--json"]] {
            let output = Command::new(env!("CARGO_BIN_EXE_switchmaster"))
                .env_clear()
                .args(command)
                .args(["--sentinel", "127.0.0.1:1", "--listen", "127.0.0.1:0"])
                .env(key, value)
                .output()
                .expect("it runs");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let told = [text(&output.stdout), text(&output.stderr)].concat();
            assert!(!told.is_empty(), "{command:?}");
            is_silent(&[(format!("{command:?} with {key}"), told)]);
        }
    }
}

#[test]
fn a_login_that_a_peer_repeats_in_its_error_is_not_told() {
    // A real server that does not know AUTH repeats its arguments.
    let servers = Topology::start_with(|options| {
        options.replicas = 0;
        options.start_sentinels = false;
        options.extra_node_config = ["AUTH", "HELLO"]
            .map(|command| format!("rename-command {command} \"\""))
            .into();
    });
    let node = servers.cluster().nodes()[0].addr();
    let mut direct = servers.direct(node);
    let repeated = direct.call(&["AUTH", WRONG]).expect("an error");
    assert!(
        format!("{repeated:?}").contains(WRONG),
        "this server repeats nothing: {repeated:?}"
    );
    // From now on it wants what it does not know.
    let set = direct.call(&["CONFIG", "SET", "requirepass", NODE_PASSWORD]);
    assert!(!set.expect("it answers").is_error());
    let fake = FakeSentinel::start(Protocol::Resp3, View::of(node));
    let proxy = watched(Plan::following(&[fake.addr()]))
        .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD)
        .start();
    let rejected = proxy.event("role_rejected", PATIENCE);
    assert!(
        rejected
            .text("message")
            .contains("refuses the configured login"),
        "the reason is told all the same: {}",
        rejected.fields
    );
    is_silent(&all_that_is_told(&proxy));

    // And peers that repeat whatever they are told, in words of their own.
    let echoing = Rogue::start(Manner::Echoes);
    let fake = FakeSentinel::start(Protocol::Resp3, View::of(echoing.addr()));
    let proxy = watched(Plan::following(&[echoing.addr(), fake.addr()]))
        .env("SWITCHMASTER_SENTINEL_PASSWORD", SENTINEL_PASSWORD)
        .env("SWITCHMASTER_PROXY_PROBE_USERNAME", "user")
        .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD)
        .start();
    proxy.event("role_rejected", PATIENCE);
    proxy.event("sentinel_down", PATIENCE);
    wait_until("it to have been asked again", PATIENCE, || {
        echoing.taken() > 4
    });
    is_silent(&all_that_is_told(&proxy));
    let check = Command::new(env!("CARGO_BIN_EXE_switchmaster"))
        .env_clear()
        .args(["check", "--live", "--json", "--listen", "127.0.0.1:0"])
        .args(["--sentinel", &format!("{},{}", echoing.addr(), fake.addr())])
        .env("SWITCHMASTER_ADMIN_LISTEN", "off")
        .env("SWITCHMASTER_SENTINEL_PASSWORD", SENTINEL_PASSWORD)
        .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD)
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(told.contains("sentinel_login_refused"), "{told}");
    is_silent(&[("check --live".to_owned(), told)]);
}
