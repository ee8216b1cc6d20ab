//! `[proxy.login]`: applications that cannot log in, in front of servers that ask for it.

use std::fs;
use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value};

use crate::harness::admin::{admin_of, page};
use crate::harness::history::Writers;
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::reload::{plan, reload};
use crate::harness::topology::{FOLLOW, Topology, follows, is_closed};
use crate::harness::wait_until;

const NODE_PASSWORD: &str = "node secret #1";
const APP_PASSWORD: &str = "application secret #3";
const OTHER_PASSWORD: &str = "other secret #4";
const PACE: Duration = Duration::from_millis(1);
const MODES: [&str; 2] = ["move", "close"];

#[test]
fn an_application_without_a_password_is_served_through_a_failover() {
    for mode in MODES {
        let servers = with_requirepass();
        let proxy = Proxy::ready(
            Plan::following(&servers.sentinels())
                .env("SWITCHMASTER_FAILOVER_ON_SWITCH", mode)
                .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD)
                .env("SWITCHMASTER_PROXY_LOGIN_PASSWORD", NODE_PASSWORD),
        );
        let mut kept = client(&proxy);
        assert_eq!(asked(&mut kept, &["SET", "kept", "1"]), "OK");
        let writers = Writers::start(proxy.addr(), 2, PACE);
        let mark = proxy.mark();
        let switch = servers.fail_over(0);
        let switched = follows(&proxy, mark, switch);
        writers.all_acknowledged_after(switched.written(), FOLLOW);
        let history = writers.stop();
        history.assert_none_after(switched.written(), &mut servers.direct(switch.old));
        history.assert_at_most_once(&mut servers.direct(switch.new));
        if mode == "move" {
            assert_eq!(asked(&mut kept, &["GET", "kept"]), "1");
        } else {
            is_closed(&mut kept, FOLLOW);
        }
        assert!(!proxy.output().contains("secret"), "a password in the log");
    }
}

#[test]
fn a_clients_own_login_counts_from_then_on_and_after_a_move() {
    let servers = with_requirepass();
    with_users(&servers);
    let proxy = Proxy::ready(
        Plan::moving(&servers.sentinels())
            .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD)
            .env("SWITCHMASTER_PROXY_LOGIN_USERNAME", "application")
            .env("SWITCHMASTER_PROXY_LOGIN_PASSWORD", APP_PASSWORD),
    );
    let (mut plain, mut greeted, mut own) = (client(&proxy), client(&proxy), client(&proxy));
    assert_eq!(asked(&mut plain, &["ACL", "WHOAMI"]), "application");
    assert!(!greeted.call(&["HELLO", "2"]).expect("an answer").is_error());
    assert_eq!(asked(&mut greeted, &["SELECT", "3"]), "OK");
    assert_eq!(asked(&mut own, &["AUTH", "other", OTHER_PASSWORD]), "OK");
    assert_eq!(asked(&mut own, &["ACL", "WHOAMI"]), "other");
    let mark = proxy.mark();
    follows(&proxy, mark, servers.fail_over(0));
    assert_eq!(asked(&mut plain, &["ACL", "WHOAMI"]), "application");
    assert_eq!(asked(&mut greeted, &["ACL", "WHOAMI"]), "application");
    let info = asked(&mut greeted, &["CLIENT", "LIST", "TYPE", "normal"]);
    assert!(
        info.contains("db=3") && info.contains("user=application"),
        "{info}"
    );
    assert_eq!(asked(&mut own, &["ACL", "WHOAMI"]), "other");

    // RESET ends the login at the server, and nobody says otherwise; such a session is not carried over.
    assert_eq!(asked(&mut plain, &["RESET"]), "RESET");
    let refused = plain.call(&["GET", "a"]).expect("an answer");
    assert!(
        refused.text().is_some_and(|text| text.contains("NOAUTH")),
        "{refused:?}"
    );
    assert_eq!(asked(&mut plain, &["AUTH", "other", OTHER_PASSWORD]), "OK");
}

#[test]
fn a_wrong_password_closes_clients_with_a_reason_until_a_reload_mends_it() {
    for mode in MODES {
        let servers = with_requirepass();
        let folder = tempfile::tempdir().expect("a folder");
        let password = folder.path().join("login");
        fs::write(&password, "a wrong secret\n").expect("written");
        let sentinels = servers.sentinels();
        let sentinels: Vec<_> = sentinels.iter().map(|addr| format!("\"{addr}\"")).collect();
        let text = format!(
            "[sentinel]\naddresses = [{}]\n[[proxy]]\nlisten = [\"127.0.0.1:0\"]\n[proxy.login]\npassword_file = {:?}\n",
            sentinels.join(", "),
            password.display().to_string()
        );
        let proxy = Proxy::ready(
            plan(&text)
                .env("SWITCHMASTER_FAILOVER_ON_SWITCH", mode)
                .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD),
        );
        for _ in 0..5 {
            assert!(
                client(&proxy).call(&["PING"]).is_err(),
                "closed without a word"
            );
        }
        let line = proxy.event("login_refused", FOLLOW);
        assert!(
            line.text("message").contains("[proxy.login]"),
            "{}",
            line.fields
        );
        assert!(proxy.events(0, "login_refused").len() < 5, "once a second");
        let closed =
            "switchmaster_sessions_closed_total{proxy=\"main\",reason=\"login_refused\"} 5";
        wait_until("all to be counted", FOLLOW, || {
            page(admin_of(&proxy), "/metrics").contains(closed)
        });
        fs::write(&password, NODE_PASSWORD).expect("written");
        let (code, answer) = reload(&proxy);
        assert_eq!(code, 200, "{answer}");
        assert_eq!(asked(&mut client(&proxy), &["PING"]), "PONG");
        assert!(!proxy.output().contains("secret"), "a password in the log");
    }
}

/// An upstream that a client left as it found it is the next one's, but not with another's rights.
#[test]
fn nobody_gets_an_upstream_that_was_logged_in_for_another() {
    let servers = with_requirepass();
    with_users(&servers);
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("login");
    fs::write(&password, APP_PASSWORD).expect("written");
    let sentinels = servers.sentinels();
    let sentinels: Vec<_> = sentinels.iter().map(|addr| format!("\"{addr}\"")).collect();
    let file = |user: &str| {
        format!(
            "[sentinel]\naddresses = [{}]\n[[proxy]]\nlisten = [\"127.0.0.1:0\"]\n[proxy.login]\nusername = \"{user}\"\npassword_file = {:?}\n",
            sentinels.join(", "),
            password.display().to_string()
        )
    };
    let proxy = Proxy::ready(
        plan(&file("application"))
            .env("SWITCHMASTER_FAILOVER_ON_SWITCH", "move")
            .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD),
    );
    let mut early = client(&proxy);
    for _ in 0..5 {
        assert_eq!(
            asked(&mut client(&proxy), &["ACL", "WHOAMI"]),
            "application"
        );
    }
    assert_eq!(asked(&mut early, &["ACL", "WHOAMI"]), "application");
    fs::write(&password, OTHER_PASSWORD).expect("written");
    proxy.rewrite(&file("other"));
    assert_eq!(reload(&proxy).0, 200);
    // What it has it keeps, and nobody gets it after it.
    assert_eq!(asked(&mut early, &["ACL", "WHOAMI"]), "application");
    drop(early);
    for _ in 0..5 {
        assert_eq!(asked(&mut client(&proxy), &["ACL", "WHOAMI"]), "other");
    }
}

/// Set at the proxy before it is at the servers.
#[test]
fn a_password_that_no_server_asks_for_is_no_obstacle() {
    let servers = Topology::start();
    for mode in MODES {
        let proxy = Proxy::ready(
            Plan::following(&servers.sentinels())
                .env("SWITCHMASTER_FAILOVER_ON_SWITCH", mode)
                .env("SWITCHMASTER_PROXY_LOGIN_PASSWORD", NODE_PASSWORD),
        );
        assert_eq!(asked(&mut client(&proxy), &["PING"]), "PONG");
        assert!(proxy.events(0, "login_refused").is_empty());
    }
}

fn with_requirepass() -> Topology {
    Topology::start_with(|options| options.requirepass = Some(NODE_PASSWORD.to_owned()))
}

/// On every node: ACLs are not replicated.
fn with_users(servers: &Topology) {
    for node in servers.cluster().nodes() {
        let mut node = servers.direct(node.addr());
        for (user, password) in [("application", APP_PASSWORD), ("other", OTHER_PASSWORD)] {
            let password = format!(">{password}");
            let set = ["ACL", "SETUSER", user, "on", &password, "~*", "&*", "+@all"];
            assert_eq!(
                node.call(&set).expect("an answer"),
                Value::Simple("OK".to_owned())
            );
        }
    }
}

fn client(proxy: &Proxy) -> Conn {
    Conn::connect(proxy.addr(), FOLLOW).expect("the proxy listens")
}

/// The first thing a client hears is the answer to what it asked.
fn asked(conn: &mut Conn, command: &[&str]) -> String {
    let value = conn.call(command).expect("an answer");
    value
        .text()
        .unwrap_or_else(|| panic!("{command:?}: {value:?}"))
}
