//! Clients that come with TLS, and those that should and do not. The master echoes, in plain.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::{Client, knowing, until_closed};
use super::harness::admin::{admin_of, page};
use super::harness::authority::{Authority, Pair};
use super::harness::fake_master::FakeMaster;
use super::harness::fake_sentinel::FakeSentinel;
use super::harness::proxy::{Plan, Proxy};
use super::harness::reload::stage;
use super::harness::stream::{SOON, connect};
use super::harness::wait_until;

/// A proxy whose clients come with TLS.
pub(crate) struct Stage {
    // Dropped in this order.
    pub(crate) proxy: Proxy,
    pub(crate) master: FakeMaster,
    _sentinel: FakeSentinel,
    pub(crate) authority: Authority,
    pub(crate) server: Pair,
    pub(crate) folder: TempDir,
}

/// With further lines for `[proxy.client_tls]`.
pub(crate) fn with(more: impl FnOnce(&Authority) -> String) -> Stage {
    of("listen = [\"127.0.0.1:0\"]\n", more)
}

/// The same with this entry.
pub(crate) fn of(entry: &str, more: impl FnOnce(&Authority) -> String) -> Stage {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "ca");
    let server = authority.sign("server", &["127.0.0.1"]);
    let (master, sentinel) = stage();
    let text = format!(
        "[sentinel]\naddresses = [\"{}\"]\n[limits]\nshutdown_grace = \"2s\"\nfirst_request_timeout = \"200ms\"\n[[proxy]]\n{entry}\
         [proxy.client_tls]\ncert_file = {:?}\nkey_file = {:?}\n{}",
        sentinel.addr(),
        server.cert,
        server.key,
        more(&authority)
    );
    let plan = Plan::bare(["run", "--log-format", "json"])
        .env("SWITCHMASTER_ADMIN_LISTEN", "127.0.0.1:0")
        .config(text);
    Stage {
        proxy: Proxy::ready(plan),
        master,
        _sentinel: sentinel,
        authority,
        server,
        folder,
    }
}

impl Stage {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.proxy.addr()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr(), &knowing(&self.authority.file(), None)).expect("let in")
    }

    pub(crate) fn client_with(&self, pair: &Pair) -> std::io::Result<Client> {
        Client::connect(self.addr(), &knowing(&self.authority.file(), Some(pair)))
    }

    /// How often clients were closed for this reason.
    pub(crate) fn refused(&self, reason: &str) -> u64 {
        let metrics = page(admin_of(&self.proxy), "/metrics");
        let series = format!(
            "switchmaster_tls_handshake_failures_total{{proxy=\"main\",reason=\"{reason}\"}} "
        );
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
        value
            .expect("there from the start")
            .parse()
            .expect("a number")
    }
}

#[test]
fn bytes_come_and_go() {
    let stage = with(|_| String::new());
    let mut client = stage.client();
    client.echoes(b"hello");
    let long: Vec<u8> = (0..300_000)
        .map(|n| u8::try_from(n % 251).expect("small"))
        .collect();
    client.echoes(&long);
    // One that says no more is answered to the end.
    client.0.write_all(b"the last word").expect("taken");
    client.half_close();
    let answer = client.exchange(b"", 13).expect("to the end");
    assert_eq!(answer, b"the last word");
    // Its own certificate is told of, until when it is valid among it.
    let metrics = page(admin_of(&stage.proxy), "/metrics");
    let series =
        "switchmaster_certificate_expiry_timestamp_seconds{proxy=\"main\",leg=\"client\"} ";
    let end = metrics.lines().find_map(|line| line.strip_prefix(series));
    let end: f64 = end.expect("told").parse().expect("a number");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = (end - now.expect("after 1970").as_secs_f64()) / 86_400.0;
    assert!((364.0..366.0).contains(&days), "{days}");
}

/// Row 43 of the fault matrix: what does not belong there is closed, and the master hears nothing of it.
#[test]
fn row_43_what_speaks_no_tls_is_closed_with_a_reason() {
    let stage = with(|_| String::new());
    let before = stage.master.bytes();
    let all = [
        &b"*1\r\n$4\r\nPING\r\n"[..],
        b"PING\r\n",
        b"GET / HTTP/1.1\r\nHost: redis\r\n\r\n",
        &[0; 512],
        &[0xff; 512],
    ];
    for (said, expected) in all.into_iter().zip(1..) {
        let mut client = connect(stage.addr());
        client.write_all(said).expect("taken");
        let heard = until_closed(&mut client);
        // An alert at the most.
        assert!(heard.len() <= 7, "{}", heard.escape_ascii());
        wait_until("it to be counted", SOON, || {
            stage.refused("not_tls") == expected
        });
    }
    let told = stage.proxy.event("tls_refused", SOON);
    assert_eq!(told.text("reason"), "not_tls");
    assert!(
        told.fields["message"]
            .to_string()
            .contains("from 127.0.0.1:")
    );
    // Whoever set up a balancer is to hear of that, and not of TLS.
    let mut balancer = connect(stage.addr());
    let header = b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n";
    balancer.write_all(header).expect("taken");
    assert_eq!(until_closed(&mut balancer), b"");
    wait_until("it to be counted", SOON, || {
        stage.refused("proxy_header") == 1
    });
    // A health check says nothing, and is none of them; whoever begins and goes is.
    drop(connect(stage.addr()));
    let mut leaves = connect(stage.addr());
    leaves.write_all(&[0x16]).expect("taken");
    drop(leaves);
    wait_until("it to be counted", SOON, || stage.refused("left") == 1);
    stage.client().echoes(b"served all the same");
    assert_eq!(stage.master.bytes() - before, 19);
}

/// Those who open connections and say nothing, or one byte, are many more than there may be; others are served meanwhile.
#[test]
fn a_thousand_handshakes_that_go_no_further() {
    const SILENT: usize = 1200;
    let stage = with(|_| String::new());
    let mut client = stage.client();
    let hello = [0x16, 3, 1, 0, 200];
    let silent: Vec<TcpStream> = (0..SILENT)
        .map(|n| {
            let mut stream = connect(stage.addr());
            stream.write_all(&hello[..n % 5]).expect("taken");
            stream
        })
        .collect();
    client.echoes(b"one that was there before");
    stage.client().echoes(b"one that comes now");
    wait_until("the oldest to be closed", SOON, || {
        stage.refused("crowded") > 0
    });
    // And in the end the others, each in its time.
    let all = || stage.refused("crowded") + stage.refused("timeout");
    wait_until("all to be closed", 3 * SOON, || all() == SILENT as u64);
    client.echoes(b"and after all that");
    drop(silent);
}

#[test]
fn clients_have_to_show_a_certificate() {
    let stage = with(|authority| format!("client_ca_file = {:?}\n", authority.file()));
    let app = stage.authority.sign("app", &["app"]);
    stage.client_with(&app).expect("let in").echoes(b"known");
    let other = Authority::new(stage.folder.path(), "other");
    let expired = stage.authority.sign_expired("old", &["app"]);
    for (pair, reason) in [
        (Some(other.sign("stranger", &["app"])), "bad_certificate"),
        (Some(expired), "bad_certificate"),
        (None, "no_certificate"),
    ] {
        let before = stage.refused(reason);
        let connector = knowing(&stage.authority.file(), pair.as_ref());
        // It is told behind its own part of the handshake.
        let answer = Client::connect(stage.addr(), &connector)
            .and_then(|mut client| client.exchange(b"x", 1));
        assert!(answer.is_err(), "{reason}");
        wait_until("it to be counted", SOON, || {
            stage.refused(reason) == before + 1
        });
    }
    assert_eq!(stage.master.bytes(), 5);
}

/// Who has to prove who it is may come from anywhere.
#[test]
fn an_open_address_needs_a_list_or_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "ca");
    let pair = authority.sign("server", &["127.0.0.1"]);
    let load = |more: &str| {
        let text = format!(
            "[sentinel]\naddresses = [\"10.0.0.3\"]\n[[proxy]]\nlisten = [\"0.0.0.0:0\"]\n[proxy.client_tls]\n\
             cert_file = {:?}\nkey_file = {:?}\n{more}",
            pair.cert, pair.key
        );
        switchmaster::config::from_text(Path::new("config.toml"), text)
    };
    let refused = load("").expect_err("it is known of nobody").to_string();
    assert!(refused.contains("allow_from = ["), "{refused}");
    assert!(
        refused.contains("client_ca_file in [proxy.client_tls]"),
        "{refused}"
    );
    load(&format!("client_ca_file = {:?}\n", authority.file())).expect("everybody is known");
}

/// Its keys are in the memory of the process that has it: it stays there to its end, and others come in next door.
#[test]
fn an_upgrade_leaves_a_session_with_tls_where_it_is() {
    let stage = with(|_| String::new());
    let mut before = stage.client();
    before.echoes(b"before");
    let mark = stage.proxy.mark();
    let pid = Pid::from_raw(stage.proxy.pid().cast_signed()).expect("a process");
    kill_process(pid, Signal::USR2).expect("it runs");
    let started = stage.proxy.event_after(mark, "upgrade_started", SOON);
    let _next = Next(started.number("pid"));
    before.echoes(b"meanwhile");
    stage.proxy.event_after(mark, "took_over", 3 * SOON);
    before.echoes(b"served still");
    stage.client().echoes(b"behind it");
    // In order: a cut would be an error.
    assert_eq!(before.read_to_end(), b"");
    stage.client().echoes(b"and on");
}

/// The process that follows; killed when dropped.
struct Next(f64);

impl Drop for Next {
    fn drop(&mut self) {
        let pid = format!("{}", self.0).parse().ok().and_then(Pid::from_raw);
        // It may have ended.
        let _ = kill_process(pid.expect("a process"), Signal::KILL);
    }
}
