//! Passwords and ACLs on data nodes and Sentinels, with and without a login for the proxy's own questions.

use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value, WireError};

use crate::harness::history::Writers;
use crate::harness::holds_for;
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::secure::documented;
use crate::harness::topology::{FOLLOW, Topology, follows};

const NODE_PASSWORD: &str = "node secret #1";
const SENTINEL_PASSWORD: &str = "sentinel secret \"2\"";
const PACE: Duration = Duration::from_millis(1);
/// The master is asked for its role every 5 s.
const ONE_ROUND: Duration = Duration::from_secs(6);

#[test]
fn requirepass_with_a_probe_password() {
    let servers = with_requirepass();
    let proxy = Proxy::ready(
        Plan::following(&servers.sentinels())
            .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD),
    );
    let writers = Writers::start_as(proxy.addr(), 2, PACE, Some(NODE_PASSWORD));
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    let switched = follows(&proxy, mark, switch);
    writers.all_acknowledged_after(switched.written(), FOLLOW);
    let history = writers.stop();
    history.assert_none_after(switched.written(), &mut servers.direct(switch.old));
    history.assert_at_most_once(&mut servers.direct(switch.new));
    assert_eq!(
        warnings_about_the_probe(&proxy),
        0,
        "every master was verified"
    );
    assert_silent_about_secrets(&proxy);
}

#[test]
fn nothing_that_clients_send_reaches_the_log_at_any_level() {
    let servers = with_requirepass();
    let proxy = Proxy::ready(
        Plan::moving(&servers.sentinels())
            .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD)
            .env("SWITCHMASTER_LOG_LEVEL", "trace"),
    );
    let mut client = logged_in(&proxy);
    for command in [
        &["CLIENT", "SETNAME", "name-secret"][..],
        &["SET", "key-secret", "value-secret"],
        &["NO-SUCH-COMMAND", "argument-secret"],
        &["AUTH", "wrong-secret"],
        &["GET", "key-secret"],
    ] {
        client.call(command).expect("an answer, an error or not");
    }
    // What it told its server is told to the next one.
    let mark = proxy.mark();
    follows(&proxy, mark, servers.fail_over(0));
    let value = client.call(&["GET", "key-secret"]).expect("a kept session");
    assert_eq!(value.text().as_deref(), Some("value-secret"));
    assert_silent_about_secrets(&proxy);
    let output = proxy.output();
    assert!(
        output.contains("\"level\":\"DEBUG\""),
        "the level is not in force: {output}"
    );
    let secret = output.find("-secret");
    assert!(
        secret.is_none(),
        "a client's text in the log: {}",
        &output[secret.unwrap_or(0)..]
    );
}

#[test]
fn passwords_that_no_server_asks_for_are_no_obstacle() {
    let servers = Topology::start();
    let proxy = Proxy::ready(
        Plan::following(&servers.sentinels())
            .env("SWITCHMASTER_FAILOVER_VERIFY", "role")
            .env("SWITCHMASTER_SENTINEL_PASSWORD", SENTINEL_PASSWORD)
            .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", NODE_PASSWORD),
    );
    assert_eq!(warnings_about_the_probe(&proxy), 0);
    assert!(proxy.events(0, "sentinel_down").is_empty());
}

#[test]
fn requirepass_without_probe_is_accepted_by_a_majority_with_one_warning() {
    let servers = with_requirepass();
    let proxy = servers.proxy();
    let mut kept = logged_in(&proxy);
    let mark = proxy.mark();
    holds_for("traffic while the role is not told", ONE_ROUND, || {
        kept.call(&["PING"]).is_ok_and(|pong| !pong.is_error())
    });
    assert!(proxy.events(mark, "hold_begin").is_empty());
    assert_eq!(
        warnings_about_the_probe(&proxy),
        1,
        "said once, with the key to set"
    );

    let switch = servers.fail_over(0);
    // A majority has to name it: the others follow the leader within about 0.1 s.
    follows(&proxy, mark, switch);
    drop(logged_in(&proxy));
}

#[test]
fn requirepass_without_probe_and_verify_role_holds_clients() {
    const HOLD: Duration = Duration::from_secs(4);
    let servers = with_requirepass();
    let proxy = Plan::following(&servers.sentinels())
        .env("SWITCHMASTER_FAILOVER_VERIFY", "role")
        .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "4s")
        .start();
    let mut client = Conn::connect(proxy.addr(), HOLD / 2).expect("the proxy listens");
    client.send(&["AUTH", NODE_PASSWORD]).expect("sent");
    assert!(matches!(client.read(), Err(WireError::Timeout(_))), "held");
    client.set_timeout(HOLD + FOLLOW);
    assert!(
        matches!(client.read(), Err(WireError::Closed | WireError::Io(_))),
        "closed without a word once `hold_max` has passed"
    );
    let rejected = proxy.event("role_rejected", FOLLOW);
    assert!(!rejected.text("reason").is_empty(), "{}", rejected.fields);
    assert!(proxy.events(0, "ready").is_empty());
    assert_silent_about_secrets(&proxy);
}

#[test]
fn row_42_sentinels_that_do_not_let_us_in_are_left_aside() {
    const USER: &str = "watcher";
    let servers = Topology::start();
    let sentinels = servers.cluster().sentinels();
    for (sentinel, rules) in sentinels.iter().zip([
        &["on", ">watcher-secret", "allchannels", "+@all"][..],
        &["on", ">another", "allchannels", "+@all"],
        &[
            "on",
            ">watcher-secret",
            "allchannels",
            "-@all",
            "+hello",
            "+auth",
            "+ping",
        ],
    ]) {
        let mut command = vec!["ACL", "SETUSER", USER];
        command.extend(rules);
        let reply = sentinel.connect().and_then(|mut conn| conn.call(&command));
        assert_eq!(
            reply.expect("the Sentinel answers"),
            Value::Simple("OK".to_owned())
        );
    }
    let as_watcher = |plan: Plan| {
        plan.env("SWITCHMASTER_SENTINEL_USERNAME", USER)
            .env("SWITCHMASTER_SENTINEL_PASSWORD", "watcher-secret")
    };
    let proxy = Proxy::ready(as_watcher(Plan::following(&servers.sentinels())));
    for (sentinel, reason) in [(1, "auth"), (2, "permission")] {
        let addr = sentinels[sentinel].addr().to_string();
        let down = proxy.event_where(0, "sentinel_down", FOLLOW, |f| f["sentinel"] == addr);
        assert_eq!(down.text("reason"), reason, "{}", down.fields);
    }
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    let known: Vec<_> = proxy.events(0, "sentinel_down");
    assert!(known.len() <= 4, "said over and over: {known:?}");
    assert!(!proxy.output().contains("watcher-secret"));

    // None lets us in: clients wait, and the log says for what.
    let shut_out = as_watcher(Plan::following(&servers.sentinels()[1..]))
        .env("SWITCHMASTER_SENTINEL_DISCOVER", "false")
        .start();
    shut_out.event("waiting", FOLLOW * 2);
    shut_out.event_where(0, "sentinel_down", FOLLOW, |f| {
        let message = f["message"].as_str().unwrap_or_default();
        f["reason"] == "auth" && message.contains("password")
    });
}

#[test]
fn acl_users_with_the_least_rights() {
    const WATCHER: &str = "watcher-secret";
    const PROBE: &str = "probe-secret";
    // What is written down is enough.
    let servers = Topology::start_with(|options| {
        options.requirepass = Some(NODE_PASSWORD.to_owned());
        let rights = documented("probe");
        let user = format!("user probe on >{PROBE} {rights}");
        options.extra_node_config.push(user);
        options.sentinel_requirepass = Some(SENTINEL_PASSWORD.to_owned());
        let rights = documented("switchmaster");
        let user = format!("user watcher on >{WATCHER} {rights}");
        options.extra_sentinel_config.push(user);
    });
    let sentinels: Vec<String> = servers
        .sentinels()
        .iter()
        .map(|addr| format!("\"{addr}\""))
        .collect();
    let folder = servers.cluster().folder();
    let secret = |name: &str, text: &str| {
        let path = folder.join(name);
        // The newline an editor leaves behind is no part of a password.
        std::fs::write(&path, format!("{text}\n")).expect("the cluster's folder");
        path.display().to_string()
    };
    let config = format!(
        r#"
            [sentinel]
            addresses = [{}]
            username = "watcher"
            password_file = "{}"

            [failover]
            verify = "role"

            [[proxy]]
            name = "main"
            master = "mymaster"
            listen = ["127.0.0.1:0"]

            [proxy.probe]
            username = "probe"
            password_file = "{}"
        "#,
        sentinels.join(", "),
        secret("watcher.password", WATCHER),
        secret("probe.password", PROBE),
    );
    let proxy = Proxy::ready(Plan::bare(["run", "--log-format", "json"]).config(config));
    for sentinel in servers.sentinels() {
        proxy.event_where(0, "sentinel_up", FOLLOW, |fields| {
            fields["sentinel"] == sentinel.to_string()
        });
    }
    drop(logged_in(&proxy));
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    drop(logged_in(&proxy));
    for refused in ["sentinel_down", "sentinel_view_refused"] {
        let told = proxy.events(0, refused);
        assert!(told.is_empty(), "{refused}: {:?}", told[0].fields);
    }
    assert!(!proxy.output().contains("SUBSCRIBE"), "{}", proxy.output());
    for secret in [WATCHER, PROBE] {
        assert!(!proxy.output().contains(secret), "a password in the log");
    }
}

#[test]
fn sentinels_with_requirepass() {
    let servers = Topology::start_with(|options| {
        options.sentinel_requirepass = Some(SENTINEL_PASSWORD.to_owned());
    });
    let proxy = Proxy::ready(
        Plan::following(&servers.sentinels())
            .env("SWITCHMASTER_SENTINEL_PASSWORD", SENTINEL_PASSWORD),
    );
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    assert_silent_about_secrets(&proxy);
}

#[test]
fn sentinels_with_requirepass_and_no_password_are_said_to_want_one() {
    let servers = Topology::start_with(|options| {
        options.sentinel_requirepass = Some(SENTINEL_PASSWORD.to_owned());
    });
    let proxy = Plan::following(&servers.sentinels()).start();
    let down = proxy.event("sentinel_down", FOLLOW);
    assert!(
        down.fields.to_string().contains("password"),
        "the line says what to set: {}",
        down.fields
    );
    assert!(proxy.events(0, "ready").is_empty());
}

fn with_requirepass() -> Topology {
    Topology::start_with(|options| options.requirepass = Some(NODE_PASSWORD.to_owned()))
}

fn logged_in(proxy: &Proxy) -> Conn {
    let mut conn = Conn::connect(proxy.addr(), FOLLOW).expect("the proxy listens");
    let reply = conn
        .call(&["AUTH", NODE_PASSWORD])
        .expect("the master answers");
    assert_eq!(reply, Value::Simple("OK".to_owned()));
    conn
}

fn warnings_about_the_probe(proxy: &Proxy) -> usize {
    proxy
        .output()
        .lines()
        .filter(|line| line.contains("\"WARN\"") && line.contains("proxy.probe"))
        .count()
}

fn assert_silent_about_secrets(proxy: &Proxy) {
    let output = proxy.output();
    for secret in ["node secret", "sentinel secret"] {
        assert!(!output.contains(secret), "a password in the log");
    }
}
