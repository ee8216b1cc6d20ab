//! Real servers that speak nothing but TLS and demand certificates, with the proxy in the middle.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use switchmaster::demo::cluster::Tls;
use switchmaster::demo::wire::{Conn, Value};

use super::client::{Client, knowing};
use super::harness::authority::Authority;
use super::harness::proxy::{Plan, Proxy};
use super::harness::secure::everywhere;
use super::harness::stream::{SOON, connect};
use super::harness::topology::{FOLLOW, Topology, follows, is_closed, port_of};

fn servers() -> Topology {
    let papers = everywhere();
    Topology::start_with(|options| papers.secure(options))
}

fn plan(servers: &Topology) -> Plan {
    Plan::following(&servers.sentinels()).secure(everywhere())
}

fn idle(proxy: &Proxy) -> Conn {
    let mut conn = Conn::connect(proxy.addr(), SOON).expect("it listens");
    let pong = conn.call(&["PING"]).expect("an answer");
    assert_eq!(pong, Value::Simple("PONG".to_owned()));
    conn
}

/// Each leg by itself, both modes, through planned failovers.
#[test]
fn an_idle_session_outlives_a_failover() {
    let servers = servers();
    for (sentinel, mode) in [(0, "move"), (1, "close")] {
        let moving = plan(&servers).env("SWITCHMASTER_FAILOVER_ON_SWITCH", mode);
        let proxy = Proxy::ready(moving);
        let mut conn = idle(&proxy);
        // A session whose client has no TLS: each leg is by itself.
        let plain = plan(&servers)
            .env("SWITCHMASTER_FAILOVER_ON_SWITCH", mode)
            .env("SWITCHMASTER_PROXY_CLIENT_TLS_CERT_FILE", "")
            .env("SWITCHMASTER_PROXY_CLIENT_TLS_KEY_FILE", "")
            .env("SWITCHMASTER_PROXY_CLIENT_TLS_CLIENT_CA_FILE", "");
        let plain = Proxy::ready(plain);
        let mut bare = connect(plain.addr());
        let mut ping = || {
            bare.write_all(b"PING\r\n")?;
            let mut pong = [0; 7];
            bare.read_exact(&mut pong).map(|()| pong)
        };
        assert_eq!(ping().ok().as_ref(), Some(b"+PONG\r\n"));
        let mark = proxy.mark();
        let switch = servers.fail_over(sentinel);
        let switched = follows(&proxy, mark, switch);
        if mode == "move" {
            assert_eq!(switched.number("kept"), 1.0, "{}", switched.fields);
            assert_eq!(port_of(&mut conn), Some(switch.new.port()));
            assert_eq!(ping().ok().as_ref(), Some(b"+PONG\r\n"));
        } else {
            is_closed(&mut conn, FOLLOW);
        }
        let set = idle(&proxy).call(&["SET", "key", mode]);
        assert_eq!(set.expect("served"), Value::Simple("OK".to_owned()));
        servers.ready_again(switch);
    }
}

/// Row 42 with TLS: one Sentinel shows a certificate for another name. It is left aside, and said to be; the others are followed.
#[test]
fn row_42_one_sentinel_that_cannot_be_believed_is_left_aside() {
    const ODD: usize = 2;
    let papers = everywhere();
    // Tests meet servers by their address, the proxy these Sentinels by a name.
    let pair = papers.authority.sign("row_42", &["localhost", "127.0.0.1"]);
    let servers = Topology::start_with(|options| {
        papers.secure(options);
        options.tls = Some(Tls {
            cert_file: pair.cert.clone(),
            key_file: pair.key.clone(),
            ..papers.servers()
        });
    });
    // Read by whoever starts from now on.
    papers.authority.sign("row_42", &["127.0.0.1"]);
    let odd = &servers.cluster().sentinels()[ODD];
    let restarted = odd.kill().and_then(|()| odd.restart());
    restarted.unwrap_or_else(|e| panic!("{e}"));
    let named = plan(&servers).env("SWITCHMASTER_SENTINEL_SERVER_NAME", "localhost");
    let proxy = Proxy::ready(named);
    let addr = odd.addr().to_string();
    let down = proxy.event_where(0, "sentinel_down", FOLLOW, |f| f["sentinel"] == addr);
    assert_eq!(down.text("reason"), "tls", "{}", down.fields);
    let words = "its certificate is for 127.0.0.1, not for localhost";
    assert!(down.fields.to_string().contains(words), "{}", down.fields);
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    assert_eq!(port_of(&mut idle(&proxy)), Some(switch.new.port()));
    let down = proxy.events(0, "sentinel_down");
    assert!(down.iter().all(|down| down.text("sentinel") == addr));
}

/// Who cannot be believed is told with what to do, and is not used.
#[test]
fn peers_that_cannot_be_believed() {
    let servers = servers();
    let papers = everywhere();
    let folder = tempfile::tempdir().expect("a folder");
    let other = Authority::new(folder.path(), "other");
    for (table, key, value, words) in [
        (
            "SENTINEL",
            "CA_FILE",
            other.file(),
            "unknown issuer: set ca_file",
        ),
        (
            "SENTINEL",
            "SERVER_NAME",
            "elsewhere".into(),
            "not for elsewhere: set server_name = \"localhost\"",
        ),
        (
            "PROXY_UPSTREAM_TLS",
            "CA_FILE",
            other.file(),
            "unknown issuer: set ca_file",
        ),
        (
            "PROXY_UPSTREAM_TLS",
            "SERVER_NAME",
            "elsewhere".into(),
            "not for elsewhere: set server_name = \"localhost\"",
        ),
    ] {
        let variable = format!("SWITCHMASTER_{table}_{key}");
        let proxy = plan(&servers).env(&variable, &value).start();
        let (event, field) = match table {
            "SENTINEL" => ("sentinel_down", "tls"),
            _ => ("role_rejected", "failed"),
        };
        let told = proxy.event(event, SOON);
        assert_eq!(told.text("reason"), field, "{}", told.fields);
        let text = told.fields.to_string().replace("\\\"", "\"");
        assert!(text.contains(words), "{variable}: {text}");
        assert!(proxy.events(0, "ready").is_empty());
        // Believed all the same by whoever says so, loudly.
        if key == "CA_FILE" {
            let insecure = format!("SWITCHMASTER_{table}_INSECURE_SKIP_VERIFY");
            let proxy = plan(&servers).env(&variable, &value).env(&insecure, "true");
            let proxy = Proxy::ready(proxy);
            let warned = proxy.event_where(0, "config_warning", SOON, |fields| {
                fields.to_string().contains("insecure_skip_verify")
            });
            assert!(warned.fields.to_string().contains("anybody on the way"));
            idle(&proxy);
        }
    }
    // Without a certificate of our own, which these servers demand. TLS 1.3 says so behind the handshake.
    for table in ["SENTINEL", "PROXY_UPSTREAM_TLS"] {
        let proxy = plan(&servers)
            .env(&format!("SWITCHMASTER_{table}_CERT_FILE"), "")
            .env(&format!("SWITCHMASTER_{table}_KEY_FILE"), "")
            .start();
        let (event, named) = match table {
            "SENTINEL" => ("sentinel_down", "[sentinel]"),
            _ => ("role_rejected", "[proxy.upstream_tls]"),
        };
        let words = format!("set cert_file and key_file, in {named}");
        let told = proxy.event_where(0, event, SOON, |fields| fields.to_string().contains(&words));
        assert!(told.fields.to_string().contains("TLS: "), "{}", told.fields);
    }
    // A name that is in the certificate, for addresses that are not.
    let named = plan(&servers)
        .env("SWITCHMASTER_SENTINEL_SERVER_NAME", "localhost")
        .env("SWITCHMASTER_PROXY_UPSTREAM_TLS_SERVER_NAME", "localhost");
    let proxy = Proxy::ready(named);
    let mut client = Client::connect(proxy.addr(), &knowing(&papers.ca, Some(&papers.client)));
    let pong = client
        .as_mut()
        .map_err(|e| e.to_string())
        .and_then(|client| client.exchange(b"PING\r\n", 7).map_err(|e| e.to_string()));
    assert_eq!(pong.as_deref(), Ok(&b"+PONG\r\n"[..]));
}

/// What `check --live` finds, by their codes: everything as it should be, and one thing after the other that is not.
#[test]
fn the_doctor_knows_certificates() {
    let servers = servers();
    let papers = everywhere();
    let folder = tempfile::tempdir().expect("a folder");
    let other = Authority::new(folder.path(), "other");
    let sentinels: Vec<String> = servers
        .sentinels()
        .iter()
        .map(ToString::to_string)
        .collect();
    let found = |more: &[(&str, &Path)]| -> Vec<String> {
        let mut check = Command::new(env!("CARGO_BIN_EXE_switchmaster"));
        check
            .args(["check", "--live", "--json", "--listen", "127.0.0.1:0"])
            .args(["--sentinel", &sentinels.join(",")])
            .env("SWITCHMASTER_ADMIN_LISTEN", "off");
        papers.proxy(&mut check);
        check.envs(more.iter().copied());
        let output = check.output().expect("it runs");
        let findings: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("what it found");
        let findings = findings["findings"].as_array().expect("a list").iter();
        let codes = findings.map(|finding| finding["code"].as_str().expect("a word").to_owned());
        codes.collect()
    };
    let times = |more: &[(&str, &Path)], code: &str, expected: usize| {
        let codes = found(more);
        let count = codes.iter().filter(|found| *found == code).count();
        assert_eq!(count, expected, "{code}: {codes:?}");
    };
    for (code, expected) in [
        ("certificate_valid", 3),
        ("sentinel_ok", 3),
        ("master_ok", 1),
        ("replica_ok", 2),
    ] {
        times(&[], code, expected);
    }
    let (ca, elsewhere) = (other.file(), Path::new("elsewhere"));
    let sentinel_ca = ("SWITCHMASTER_SENTINEL_CA_FILE", &*ca);
    times(&[sentinel_ca], "sentinel_tls_failed", 3);
    let sentinel_name = ("SWITCHMASTER_SENTINEL_SERVER_NAME", elsewhere);
    times(&[sentinel_name], "sentinel_tls_failed", 3);
    let upstream_ca = ("SWITCHMASTER_PROXY_UPSTREAM_TLS_CA_FILE", &*ca);
    times(&[upstream_ca], "master_tls_failed", 1);
    // Our own: for clients, as it needs no server's consent.
    let week = SystemTime::now() + 6 * Duration::from_secs(24 * 60 * 60);
    for (pair, code) in [
        (
            other.sign_until("soon", &["localhost"], week),
            "certificate_expires_soon",
        ),
        (
            other.sign_expired("old", &["localhost"]),
            "certificate_expired",
        ),
    ] {
        let cert = ("SWITCHMASTER_PROXY_CLIENT_TLS_CERT_FILE", &*pair.cert);
        let key = ("SWITCHMASTER_PROXY_CLIENT_TLS_KEY_FILE", &*pair.key);
        times(&[cert, key], code, 1);
    }
    // A replica that shows what nobody here vouches for; it goes on replicating.
    let stranger = other.sign("stranger", &["127.0.0.1"]);
    let master = servers.master().addr();
    let nodes = servers.cluster().nodes().iter();
    let replica = { nodes }.find(|node| node.addr() != master);
    let set = replica.expect("two").connect().and_then(|mut conn| {
        let [cert, key] = [&stranger.cert, &stranger.key].map(|path| path.display().to_string());
        conn.call(&[
            "CONFIG",
            "SET",
            "tls-cert-file",
            &cert,
            "tls-key-file",
            &key,
        ])
    });
    assert_eq!(set.expect("it answers"), Value::Simple("OK".to_owned()));
    times(&[], "replica_tls_failed", 1);
}

/// Renewed on our side, for servers: the next connections show it, and what is open goes on.
#[test]
fn a_renewed_certificate_for_servers() {
    let servers = servers();
    let papers = everywhere();
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    for (from, to) in [
        (&papers.client.cert, "app.crt"),
        (&papers.client.key, "app.key"),
    ] {
        std::fs::copy(from, place(to)).expect("copied");
    }
    let proxy = plan(&servers)
        .env("SWITCHMASTER_SENTINEL_CERT_FILE", place("app.crt"))
        .env("SWITCHMASTER_SENTINEL_KEY_FILE", place("app.key"))
        .env(
            "SWITCHMASTER_PROXY_UPSTREAM_TLS_CERT_FILE",
            place("app.crt"),
        )
        .env("SWITCHMASTER_PROXY_UPSTREAM_TLS_KEY_FILE", place("app.key"));
    let proxy = Proxy::ready(proxy);
    let mut before = idle(&proxy);
    for (from, to) in [
        (&papers.server.cert, "app.crt"),
        (&papers.server.key, "app.key"),
    ] {
        std::fs::copy(from, place(to)).expect("copied");
    }
    let mark = proxy.mark();
    proxy.hang_up();
    let reloaded = proxy.event_after(mark, "reloaded", SOON);
    let changed = reloaded.text("changed");
    assert!(changed.contains("sentinel.cert_file changed"), "{changed}");
    assert!(
        changed.contains("proxy.upstream_tls.cert_file of \"main\" changed"),
        "{changed}"
    );
    let pong = before.call(&["PING"]).expect("it goes on");
    assert_eq!(pong, Value::Simple("PONG".to_owned()));
    idle(&proxy);
    // All links are made anew, and the proxy follows as before.
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    let set = idle(&proxy).call(&["SET", "key", "value"]);
    assert_eq!(set.expect("served"), Value::Simple("OK".to_owned()));
}
