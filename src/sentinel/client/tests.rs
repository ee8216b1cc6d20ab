//! What Sentinels answer, in both protocol versions, and what none should.

use std::time::Duration;

use proptest::prelude::*;
use redis::Value;

use super::listing::first_the_living;
use super::reply::*;
use super::{ClientError, Errno, io, of_dial};
use crate::net::addr::{HostPort, NodeAddr};
use crate::topology::Epoch;
use crate::topology::observation::{NoView, RoleDetail, RunId, View};

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

fn details(pairs: &[(&str, &str)], resp3: bool) -> Value {
    if resp3 {
        Value::Map(pairs.iter().map(|(k, v)| (bulk(k), bulk(v))).collect())
    } else {
        Value::Array(pairs.iter().flat_map(|(k, v)| [bulk(k), bulk(v)]).collect())
    }
}

const MASTER: &[(&str, &str)] = &[
    ("name", "mymaster"),
    ("ip", "10.0.0.1"),
    ("port", "6379"),
    ("flags", "master"),
    ("config-epoch", "7"),
    ("down-after-milliseconds", "5000"),
    ("quorum", "2"),
];

fn address(host: &str, port: &str) -> Value {
    Value::Array(vec![bulk(host), bulk(port)])
}

#[test]
fn both_protocol_versions_give_the_same_view() {
    let expected = View {
        master: NodeAddr(HostPort::parse("10.0.0.2:6380", None).expect("an address")),
        epoch: Epoch(7),
        down_after: Some(Duration::from_secs(5)),
        quorum: Some(2),
        objectively_down: false,
        unanswered: Duration::ZERO,
    };
    for resp3 in [false, true] {
        // The address is taken from the second answer: the first shows the old one while failing over.
        let view = read_view(&details(MASTER, resp3), &address("10.0.0.2", "6380"));
        assert_eq!(view, Ok(expected.clone()));
    }
}

#[test]
fn a_master_is_down_for_a_quorum_only_if_it_is_the_one_that_is_named() {
    let mut fields = MASTER.to_vec();
    fields[3] = ("flags", "master,s_down,o_down,failover_in_progress");
    let details = details(&fields, true);
    let down = |host: &str| {
        let view = read_view(&details, &address(host, "6379"));
        view.expect("a view").objectively_down
    };
    assert!(down("10.0.0.1"));
    // The leader names the promoted replica, and still describes the master that is left.
    assert!(!down("10.0.0.2"));
}

#[test]
fn how_long_a_master_is_silent_is_counted_as_the_sentinel_counts_it() {
    let silent = |host: &str, more: &[(&str, &str)]| {
        let mut fields = MASTER.to_vec();
        fields.retain(|(key, _)| !more.iter().any(|(other, _)| other == key));
        fields.extend(more);
        let view = read_view(&details(&fields, true), &address(host, "6379"));
        view.expect("a view").unanswered.as_millis()
    };
    let here = "10.0.0.1";
    assert_eq!(silent(here, &[]), 0);
    let quiet = [("last-ping-sent", "0"), ("last-ok-ping-reply", "700")];
    assert_eq!(silent(here, &quiet), 0, "it has answered what it was asked");
    let owing = [("last-ping-sent", "900"), ("last-ok-ping-reply", "1700")];
    assert_eq!(silent(here, &owing), 900);
    let cut = [quiet[0], quiet[1], ("flags", "master,disconnected")];
    assert_eq!(silent(here, &cut), 700);
    assert_eq!(silent("10.0.0.2", &owing), 0, "the old master's silence");
}

#[test]
fn addresses_nobody_can_dial_are_refused() {
    let details = details(MASTER, true);
    for (host, port) in [
        ("0.0.0.0", "6379"),
        ("::", "6379"),
        ("10.0.0.1", "0"),
        ("10.0.0.1", "65536"),
        ("10.0.0.1", "-1"),
        ("", "6379"),
        ("a b", "6379"),
        ("a\r\nPING", "6379"),
        ("10.0.0.1", ""),
    ] {
        let view = read_view(&details, &address(host, port));
        assert!(
            matches!(view, Err(NoView::Absurd(_))),
            "{host} {port}: {view:?}"
        );
    }
    assert!(read_view(&details, &address("fd00::1", "6379")).is_ok());
    assert!(read_view(&details, &address("redis-a.internal", "6379")).is_ok());
}

#[test]
fn no_epoch_is_no_view() {
    let without: Vec<_> = MASTER
        .iter()
        .copied()
        .filter(|(k, _)| *k != "config-epoch")
        .collect();
    let view = read_view(&details(&without, true), &address("10.0.0.1", "6379"));
    assert!(matches!(view, Err(NoView::Absurd(_))));
}

#[test]
fn peers_without_an_address_are_left_out() {
    let run_id = "0123456789abcdef0123456789abcdef01234567";
    let good = details(
        &[("ip", "10.0.0.9"), ("port", "26379"), ("runid", run_id)],
        false,
    );
    let peer = read_peer(&good).expect("a peer");
    assert_eq!(peer.addr.to_string(), "10.0.0.9:26379");
    assert_eq!(peer.run_id, RunId::parse(run_id));
    assert_eq!(
        read_peer(&details(&[("ip", "10.0.0.9"), ("port", "0")], false)),
        None
    );
    // A Sentinel that was announced and never seen has no run id yet.
    let early = details(
        &[("ip", "10.0.0.9"), ("port", "26379"), ("runid", "")],
        true,
    );
    assert_eq!(read_peer(&early).and_then(|p| p.run_id), None);
}

#[test]
fn replicas_are_listed_by_name_and_by_ipv6_and_the_living_come_first() {
    let replica =
        |ip: &str, flags: &str| details(&[("ip", ip), ("port", "6379"), ("flags", flags)], true);
    let mut listed: Vec<Value> = (0..70)
        .map(|n| replica(&format!("10.0.0.{n}"), "s_down,slave,disconnected"))
        .collect();
    listed.push(replica("fd00::2", "slave"));
    listed.push(replica("replica-a.internal", "slave"));
    listed.push(replica("::", "slave"));
    let read = first_the_living(&listed);
    let shown: Vec<String> = read.iter().map(|of| of.addr.0.to_string()).collect();
    assert_eq!(shown[..2], ["[fd00::2]:6379", "replica-a.internal:6379"]);
    assert_eq!(
        (read.len(), read.iter().filter(|of| of.down).count()),
        (64, 62)
    );
    // The master tells of them by the same names (ROLE).
    let of = |host: &str| Value::Array(vec![bulk(host), bulk("6379"), bulk("7")]);
    let role = [
        bulk("master"),
        Value::Int(9),
        Value::Array(vec![of("fd00::2"), of("replica-a.internal")]),
    ];
    let named = read[..2].iter().map(|of| of.addr.clone()).collect();
    assert_eq!(read_detail(&role), Some(RoleDetail::Master(9, named)));
}

#[test]
fn a_replica_is_down_where_the_sentinel_calls_it_so_and_not_for_want_of_a_connection() {
    let replica =
        |ip: &str, flags: &str| details(&[("ip", ip), ("port", "6379"), ("flags", flags)], true);
    // As a Sentinel lists them in the moment of a failover, before it has connected to any of them.
    let listed = [
        replica("10.0.0.1", "s_down,slave"),
        replica("10.0.0.2", "slave,disconnected"),
        replica("10.0.0.3", "o_down,slave,disconnected"),
        replica("10.0.0.4", "slave"),
    ];
    let read = first_the_living(&listed);
    let shown: Vec<_> = read
        .iter()
        .map(|of| (of.addr.0.to_string(), of.down))
        .collect();
    let expected = [(4, false), (2, false), (1, true), (3, true)];
    let expected = expected.map(|(n, down)| (format!("10.0.0.{n}:6379"), down));
    assert_eq!(shown, expected);
}

#[test]
fn a_master_may_have_more_replicas_than_are_shown() {
    let of = |n: u16| {
        let (host, port) = (format!("10.0.{}.1", n / 256), 10_000 + n);
        Value::Array(vec![bulk(&host), bulk(&port.to_string()), bulk("7")])
    };
    let listed = (0..900).map(of).collect();
    let role = [bulk("master"), Value::Int(9), Value::Array(listed)];
    let Some(RoleDetail::Master(9, attached)) = read_detail(&role) else {
        panic!("a master");
    };
    assert_eq!(attached.len(), 900, "each may be read from");
    assert_eq!(attached[899].0.to_string(), "10.0.3.1:10899");
    assert_eq!(read_replicas(&role).len(), 64, "for people");
}

#[test]
fn what_this_host_lacks_says_nothing_of_the_node() {
    for (errno, local) in [
        (Errno::ADDRNOTAVAIL, true),
        (Errno::MFILE, true),
        (Errno::NFILE, true),
        (Errno::CONNREFUSED, false),
        (Errno::HOSTUNREACH, false),
    ] {
        let error = of_dial(&io::Error::from(errno));
        assert_eq!(
            matches!(error, ClientError::Local(_)),
            local,
            "{errno:?}: {error}"
        );
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        Just(Value::Okay),
        any::<i64>().prop_map(Value::Int),
        any::<bool>().prop_map(Value::Boolean),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::BulkString),
        ".{0,20}".prop_map(Value::SimpleString),
        proptest::sample::select(MASTER).prop_map(|(k, _)| bulk(k)),
    ];
    leaf.prop_recursive(3, 24, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            proptest::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
        ]
    })
}

proptest! {
    #[test]
    fn any_reply_is_survived(a in any_value(), b in any_value()) {
        let _ = read_view(&a, &b);
        let _ = read_peer(&a);
    }

    #[test]
    fn any_pushed_event_is_survived(channel in any::<Vec<u8>>(), payload in any::<Vec<u8>>()) {
        if let Some(event) = raw_event(&channel, &payload) {
            prop_assert!(event.channel.len() + event.payload.len() <= MAX_EVENT_BYTES);
            let _ = crate::sentinel::event::parse(&event.channel, &event.payload);
        }
    }
}

#[test]
fn what_a_peer_sent_is_printable() {
    let shown = printable("\u{1b}[31mred\u{7}\r\n");
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    assert!(printable(&"x".repeat(10_000)).len() <= 200);
}

#[test]
fn what_an_error_repeats_of_a_question_is_left_out() {
    for (error, shown) in [
        (
            "ERR unknown command 'AUTH', with args beginning with: 'default' 'secret' ",
            "ERR unknown command 'AUTH'",
        ),
        (
            "ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, ",
            "ERR unknown command `HELLO`",
        ),
        (
            "NOPERM this user has no permissions",
            "NOPERM this user has no permissions",
        ),
    ] {
        assert_eq!(without_arguments(error), shown);
    }
}
