//! Credentials that are rotated on real servers and taken over by a reload; Sentinels that are others; rules.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use switchmaster::demo::cluster::Options;
use switchmaster::demo::wire::Conn;

use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::history::{Outcome, Writers};
use crate::harness::proxy::Proxy;
use crate::harness::stream::{SOON, connect, echoed};
use crate::harness::topology::{FOLLOW, Topology};
use crate::harness::wait_until;
use crate::{admin_of, get, hung_up, metric, post_as, ready, reload, taken_over};

fn quoted(addrs: &[SocketAddr]) -> String {
    let addrs: Vec<_> = addrs.iter().map(|addr| format!("\"{addr}\"")).collect();
    addrs.join(", ")
}

/// Every Sentinel's answers arrive.
fn all_up(proxy: &Proxy, count: usize) {
    wait_until("every Sentinel to be up", SOON, || {
        let text = get(admin_of(proxy), "/metrics");
        let up =
            |line: &&str| line.starts_with("switchmaster_sentinel_up{") && line.ends_with(" 1");
        text.lines().filter(up).count() == count
    });
}

fn with_logins(servers: &Topology, folder: &Path) -> String {
    format!(
        "[sentinel]\naddresses = [{}]\nusername = \"proxy\"\npassword_file = {:?}\n[[proxy]]\nlisten = [\"127.0.0.1:0\"]\n",
        quoted(&servers.sentinels()),
        folder.join("password").display().to_string()
    )
}

/// Another password of the user at every Sentinel; connections that are logged in stay so.
fn rotate(servers: &Topology, password: &str) {
    for sentinel in servers.cluster().sentinels() {
        let mut conn = Conn::connect(sentinel.addr(), SOON).expect("the Sentinel runs");
        let rule = format!(">{password}");
        let set = [
            "ACL",
            "SETUSER",
            "proxy",
            "on",
            "resetpass",
            &rule,
            "allchannels",
            "+@all",
        ];
        let answer = conn.call(&set).expect("an answer");
        assert!(!answer.is_error(), "{answer:?}");
    }
}

/// Sentinels with a password, and a proxy that has it from a file.
fn with_a_password() -> (Topology, tempfile::TempDir, Proxy) {
    let servers = Topology::start();
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("password"), "the-first\n").expect("written");
    rotate(&servers, "the-first");
    let proxy = ready(&with_logins(&servers, folder.path()));
    (servers, folder, proxy)
}

#[test]
fn a_password_that_was_rotated_is_taken_over_link_by_link() {
    let (servers, folder, proxy) = with_a_password();
    let password = folder.path().join("password");
    all_up(&proxy, 3);
    let writers = Writers::start(proxy.addr(), 4, std::time::Duration::from_millis(1));
    let holds = proxy.events(0, "hold_begin").len();
    rotate(&servers, "the-second");
    fs::write(&password, "the-second\n").expect("written");
    let event = hung_up(&proxy, "reloaded");
    assert_eq!(event.text("changed"), "sentinel.password_file changed");
    // Over new connections, logged in with the new word.
    all_up(&proxy, 3);
    for sentinel in servers.cluster().sentinels() {
        let mut conn = Conn::connect(sentinel.addr(), SOON).expect("the Sentinel runs");
        wait_until("the link to be one of after the reload", SOON, || {
            let list = conn
                .call(&["CLIENT", "LIST"])
                .ok()
                .and_then(|list| list.text());
            let list = list.unwrap_or_default();
            let ours: Vec<_> = list
                .lines()
                .filter(|line| line.contains("user=proxy"))
                .collect();
            !ours.is_empty() && ours.iter().all(|line| age(line) < 30)
        });
    }
    // And it is of use: a failover is followed.
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    let switched = proxy.event_after(mark, "switched", FOLLOW * 3);
    assert_eq!(switched.text("to"), switch.new.to_string());
    let history = writers.stop();
    assert!(history.count(|outcome| *outcome == Outcome::Ok) > 0);
    let before = proxy.events(0, "hold_begin");
    let before = before.iter().filter(|event| event.index < mark).count();
    assert_eq!(before, holds, "nobody was held for the reload");
    assert_eq!(proxy.events(0, "sentinels_lost").len(), 0);
}

fn age(line: &str) -> u64 {
    let age = line.split(' ').find_map(|field| field.strip_prefix("age="));
    age.and_then(|age| age.parse().ok()).unwrap_or(u64::MAX)
}

/// A wrong password is the operator's to notice: the master in force serves on, and the right one mends it.
#[test]
fn a_wrong_password_takes_nobodys_master_away() {
    let (_servers, folder, proxy) = with_a_password();
    let password = folder.path().join("password");
    fs::write(&password, "a-wrong-one\n").expect("written");
    hung_up(&proxy, "reloaded");
    proxy.event("sentinels_lost", SOON * 2);
    let mut client = Conn::connect(proxy.addr(), SOON).expect("the proxy listens");
    assert_eq!(
        client.call(&["PING"]).expect("served").text().as_deref(),
        Some("PONG")
    );
    fs::write(&password, "the-first\n").expect("written");
    hung_up(&proxy, "reloaded");
    all_up(&proxy, 3);
}

/// Addresses of Sentinels come and go; without discovery only those that are written are voters.
#[test]
fn sentinels_come_and_go() {
    let servers = Topology::start();
    let all = servers.sentinels();
    let of = |addrs: &[SocketAddr]| {
        format!(
            "[sentinel]\naddresses = [{}]\ndiscover = false\n[[proxy]]\nlisten = [\"127.0.0.1:0\"]\n",
            quoted(addrs)
        )
    };
    let proxy = ready(&of(&all[..1]));
    all_up(&proxy, 1);
    taken_over(&proxy, &of(&all));
    all_up(&proxy, 3);
    taken_over(&proxy, &of(&all[1..]));
    all_up(&proxy, 2);
    let text = get(admin_of(&proxy), "/metrics");
    assert!(
        !text.contains(&format!("sentinel=\"{}\"", all[0])),
        "it is no voter any more"
    );
    let mark = proxy.mark();
    let switch = servers.fail_over(1);
    let switched = proxy.event_after(mark, "switched", FOLLOW * 3);
    assert_eq!(switched.text("to"), switch.new.to_string());
}

/// With discovery, one that is named no more and that another one tells of is a voter all the same, and all the time.
#[test]
fn a_sentinel_that_is_named_no_more_is_discovered_at_once() {
    let servers = Topology::start();
    let all = servers.sentinels();
    let of = |addrs: &[SocketAddr], discover: bool| {
        format!(
            "[sentinel]\naddresses = [{}]\ndiscover = {discover}\n[[proxy]]\nlisten = [\"127.0.0.1:0\"]\n",
            quoted(addrs)
        )
    };
    let proxy = ready(&of(&all[..1], false));
    all_up(&proxy, 1);
    let mark = proxy.mark();
    taken_over(&proxy, &of(&all[1..], true));
    all_up(&proxy, 3);
    assert!(proxy.events(mark, "sentinel_forgotten").is_empty());
}

/// The rules are the steward's from then on: a lease begins without a hold, and ends with the Sentinels.
#[test]
fn the_rules_are_others_at_once() {
    let servers = Topology::start();
    let of = |rule: &str| {
        format!(
            "[sentinel]\naddresses = [{}]\n[failover]\nwhen_sentinels_are_lost = \"{rule}\"\nhold_max = \"1s\"\n\
             [[proxy]]\nlisten = [\"127.0.0.1:0\"]\n",
            quoted(&servers.sentinels())
        )
    };
    let proxy = ready(&of("serve"));
    all_up(&proxy, 3);
    let writers = Writers::start(proxy.addr(), 4, std::time::Duration::from_millis(1));
    let mark = proxy.mark();
    taken_over(&proxy, &of("stop"));
    all_up(&proxy, 3);
    let so_far = writers.so_far().writes.len();
    wait_until("writes under the lease", SOON, || {
        writers.so_far().writes.len() > so_far + 2000
    });
    assert_eq!(
        proxy.events(mark, "hold_begin").len(),
        0,
        "nobody is held for the reload"
    );
    let history = writers.stop();
    assert_eq!(history.count(|outcome| *outcome != Outcome::Ok), 0);
    for sentinel in servers.cluster().sentinels() {
        sentinel.freeze().expect("it runs");
    }
    let hold = proxy.event_after(mark, "hold_begin", SOON);
    assert_eq!(hold.text("cause"), "unconfirmed", "{}", hold.fields);
    // The other way: at once.
    let mark = proxy.mark();
    taken_over(&proxy, &of("serve"));
    proxy.event_after(mark, "hold_end", SOON);
    for sentinel in servers.cluster().sentinels() {
        sentinel.thaw().expect("it runs");
    }
}

/// Other Sentinels, none of which answers at first. What the one of before has vouched for is true to its end, which is when clients
/// wait for the others.
#[test]
fn a_lease_outlives_the_sentinels_that_gave_it() {
    const DOWN_AFTER_MS: u64 = 5000;
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = |number| {
        let view = View {
            down_after_ms: DOWN_AFTER_MS,
            ..View::of(master.addr()).by(number, 3)
        };
        FakeSentinel::start(Protocol::Resp3, view)
    };
    let of = |sentinels: &[FakeSentinel]| {
        let addrs: Vec<_> = sentinels.iter().map(FakeSentinel::addr).collect();
        format!(
            "[sentinel]\naddresses = [{}]\ndiscover = false\n[failover]\nwhen_sentinels_are_lost = \"stop\"\nhold_max = \"30s\"\n\
             [[proxy]]\nlisten = [\"127.0.0.1:0\"]\n",
            quoted(&addrs)
        )
    };
    let (old, new) = ([0, 1, 2].map(sentinel), [3, 4, 5].map(sentinel));
    for new in &new {
        new.withhold_answers(true);
    }
    let proxy = ready(&of(&old));
    all_up(&proxy, 3);
    let mut client = connect(proxy.addr());
    assert_eq!(echoed(&mut client, b"before"), b"before");
    let mark = proxy.mark();
    taken_over(&proxy, &of(&new));
    wait_until("the others to be asked", SOON, || {
        new.iter().all(|new| new.withheld() > 0)
    });
    assert_eq!(echoed(&mut client, b"meanwhile"), b"meanwhile");
    let early = proxy.events(mark, "hold_begin");
    assert!(early.is_empty(), "{early:?}");
    // For those that never answer nobody waits for ever.
    let hold = proxy.event_after(mark, "hold_begin", SOON);
    assert_eq!(hold.text("cause"), "unconfirmed", "{}", hold.fields);
    assert_eq!(proxy.events(mark, "sentinel_forgotten").len(), 3);
    for new in &new {
        new.withhold_answers(false);
    }
    proxy.event_after(hold.index, "hold_end", SOON);
    assert_eq!(echoed(&mut client, b"behind"), b"behind");

    // And back, to those that do answer: nothing is noticed.
    let mark = proxy.mark();
    taken_over(&proxy, &of(&old));
    wait_until("the others to be forgotten", SOON, || {
        proxy.events(mark, "sentinel_forgotten").len() == 3
    });
    all_up(&proxy, 3);
    assert_eq!(echoed(&mut client, b"back"), b"back");
    for event in ["hold_begin", "sentinels_lost"] {
        assert!(proxy.events(mark, event).is_empty(), "{event}");
    }
}

/// The login of the proxy's own ROLE checks: data nodes with a password, which the proxy learns by a reload.
#[test]
fn the_probe_login_is_tried_at_once() {
    let servers = Topology::start_with(|options: &mut Options| {
        options.requirepass = Some("of-the-nodes".to_owned());
    });
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("probe");
    fs::write(&password, "a-wrong-one\n").expect("written");
    let text = format!(
        "[sentinel]\naddresses = [{}]\n[[proxy]]\nlisten = [\"127.0.0.1:0\"]\n[proxy.probe]\npassword_file = {:?}\n",
        quoted(&servers.sentinels()),
        password.display().to_string()
    );
    // Not its role, but most Sentinels vouch for it.
    let proxy = crate::start(&text);
    proxy.event("role_rejected", SOON);
    fs::write(&password, "of-the-nodes\n").expect("written");
    let (code, answer) = reload(&proxy);
    assert_eq!(code, 200, "{answer}");
    proxy.event("ready", SOON);
    wait_until("its replicas to be known", SOON, || {
        get(admin_of(&proxy), "/metrics").contains("switchmaster_replica_up")
    });
    assert!(metric(&proxy, "switchmaster_master_unverified", "") < 0.5);
}

/// The token of the endpoint itself.
#[test]
fn another_token_counts_from_the_next_request_on() {
    let (_master, sentinel) = crate::stage();
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    fs::write(&token, "the-first-of-the-tokens\n").expect("written");
    let text = format!(
        "[sentinel]\naddresses = [\"{}\"]\n[admin]\nactions = true\ntoken_file = {:?}\n[[proxy]]\nlisten = [\"127.0.0.1:0\"]\n",
        sentinel.addr(),
        token.display().to_string()
    );
    let proxy = Proxy::ready(
        crate::harness::proxy::Plan::bare(["run", "--log-format", "json"])
            .env("SWITCHMASTER_ADMIN_LISTEN", "127.0.0.1:0")
            .config(text),
    );
    let admin = admin_of(&proxy);
    fs::write(&token, "the-second-of-the-tokens\n").expect("written");
    let (code, body) = post_as(admin, "/reload", "", "the-first-of-the-tokens");
    assert_eq!(code, 200, "{body}");
    assert!(!body.contains("the-second"), "{body}");
    let (code, _) = post_as(admin, "/reload", "", "the-first-of-the-tokens");
    assert_eq!(code, 401);
    let (code, body) = post_as(admin, "/reload", "", "the-second-of-the-tokens");
    assert_eq!(code, 200, "{body}");
}
