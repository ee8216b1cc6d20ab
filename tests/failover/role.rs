//! `confirm = "role"`: clients go to the promoted replica before a Sentinel names it. What that gains, and what becomes of it
//! when the leader is lost in between: the rest of rows 5 and 14.

use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::Value;

use crate::harness::history::{History, Outcome, Writers};
use crate::harness::holds_for;
use crate::harness::proxy::{Event, Plan, Proxy};
use crate::harness::topology::{FAILOVER, FOLLOW, Topology, follows, master_named, serves};
use crate::harness::wait_until;

const PACE: Duration = Duration::from_millis(1);
/// The longest that a generation is in force without a Sentinel's word.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(3);

#[test]
fn row_05_the_successors_own_word_loses_nothing_and_cuts_nobody() {
    let servers = Topology::start();
    let proxy = believing(&servers);
    for round in 0..3 {
        let writers = Writers::start(proxy.addr(), 4, PACE);
        let mark = proxy.mark();
        let switch = servers.fail_over(round);
        let switched = follows(&proxy, mark, switch);
        let confirmed = proxy.event_after(mark, "provisional_confirmed", FOLLOW);
        writers.all_acknowledged_after(confirmed.written(), FOLLOW);
        let history = writers.stop();

        assert_eq!(switched.fields["provisional"], true, "{}", switched.fields);
        assert_eq!(switched.text("trigger"), "role", "{}", switched.fields);
        assert!(switched.index < confirmed.index);
        assert!(confirmed.number("epoch") > 0.0, "{}", confirmed.fields);
        assert_eq!(proxy.events(mark, "switched").len(), 1, "once each");
        println!(
            "round {round}: used {} ms before a Sentinel named it; longest pause {:?}",
            confirmed.number("after_ms"),
            history.longest_pause()
        );
        let mut old = servers.direct(switch.old);
        history.assert_none_after(switched.written(), &mut old);
        let mut new = servers.direct(switch.new);
        history.assert_at_most_once(&mut new);
        history.assert_nothing_lost(&mut new);
        assert_no_invented_errors(&history);
        assert_eq!(history.reconnects, [0; 4], "nobody was cut");
        servers.ready_again(switch);
        empty(&servers);
    }
}

#[test]
fn row_14_the_leader_is_stopped_between_promotion_and_confirmation() {
    let servers = Topology::start();
    let proxy = believing(&servers);
    let old = servers.master().addr();
    let writers = Writers::start(proxy.addr(), 4, PACE);
    let mark = proxy.mark();
    servers
        .cluster()
        .trigger_failover(0)
        .unwrap_or_else(|e| panic!("{e}"));
    let used = proxy.event_after(mark, "switched", FAILOVER);
    let leader = &servers.cluster().sentinels()[0];
    leader.freeze().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(used.fields["provisional"], true, "{}", used.fields);
    let new = used.text("to").parse().expect("an address");

    let back = proxy.event_after(used.index + 1, "switched", CONFIRMED_WITHIN + FOLLOW);
    let why = "the leader had confirmed before it was stopped, so this proves nothing";
    assert!(
        proxy.events(mark, "provisional_confirmed").is_empty(),
        "{why}"
    );
    assert_eq!(back.text("to"), old.to_string(), "{}", back.fields);
    assert_eq!(back.text("trigger"), "not_confirmed", "{}", back.fields);
    let without = back.written().duration_since(used.written());
    assert!(without.is_ok_and(|w| w >= CONFIRMED_WITHIN - SOON));
    for sentinel in &servers.cluster().sentinels()[1..] {
        let mut sentinel = sentinel.connect().expect("the Sentinel runs");
        assert_eq!(master_named(&mut sentinel, "mymaster"), Some(old), "{why}");
    }
    writers.all_acknowledged_after(back.written(), FOLLOW);
    wait_until("the sockets to be gone", FOLLOW, || {
        proxy.sockets_to(new) == 0
    });

    // Not a byte to the one that was left, which is a master until the other Sentinels make it a replica again.
    let history = writers.so_far();
    history.assert_none_after(back.written(), &mut servers.direct(new));
    wait_until("the Sentinels to demote it", FAILOVER * 2, || {
        // Each time anew: they close its connections when they do.
        let role = servers.direct(new).call(&["ROLE"]);
        role.is_ok_and(|role| role.items()[0].text().as_deref() == Some("slave"))
    });
    leader.kill().unwrap_or_else(|e| panic!("{e}"));
    leader.restart().expect("it has its configuration");
    assert_eq!(servers.settle(), old, "nobody was told of the promotion");
    writers.all_acknowledged_after(SystemTime::now(), FOLLOW);
    holds_for("the Sentinels' master", Duration::from_secs(1), || {
        proxy.sockets_to(new) == 0
    });
    assert_eq!(proxy.events(mark, "switched").len(), 2, "there and back");
    serves(&proxy, old, FOLLOW);

    let history = writers.stop();
    let mut node = servers.direct(old);
    history.assert_at_most_once(&mut node);
    assert_no_invented_errors(&history);
    // What was acknowledged in between is what `confirm = "role"` stakes. It is lost, and nothing else is.
    let held = proxy.event_after(mark, "hold_begin", FOLLOW);
    let lost = assert_lost_only_between(&history, &held, &back, &mut node);
    assert!(lost > 0, "clients were served by a master that was undone");
    println!("{lost} writes were staked and lost");
    assert!(
        history.reconnects.iter().all(|n| *n <= 1),
        "only the way back cuts who has a request under way: {:?}",
        history.reconnects
    );
}

#[test]
fn row_14_the_leader_crashes_after_the_promotion_and_confirms_later() {
    let servers = Topology::start();
    let proxy = believing(&servers);
    let old = servers.master().addr();
    let writers = Writers::start(proxy.addr(), 2, PACE);
    let mark = proxy.mark();
    let leader = &servers.cluster().sentinels()[0];
    let armed = leader
        .connect()
        .and_then(|mut c| c.call(&["SENTINEL", "SIMULATE-FAILURE", "crash-after-promotion"]));
    assert_eq!(armed.ok(), Some(Value::Simple("OK".to_owned())));
    servers
        .cluster()
        .trigger_failover(0)
        .unwrap_or_else(|e| panic!("{e}"));
    wait_until("the leader to crash", FAILOVER, || !leader.is_running());
    let held = proxy.event_after(mark, "hold_begin", FOLLOW);
    let used = proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(used.fields["provisional"], true, "{}", used.fields);
    // It may have said so with its last breath; then that is final.
    let over = proxy.event_where(mark, "switched", CONFIRMED_WITHIN + FOLLOW, |fields| {
        fields["to"] == old.to_string()
    });
    writers.all_acknowledged_after(over.written(), FOLLOW);

    // On its disk it has the newer epoch.
    leader.restart().expect("it has its configuration");
    let master = servers.settle();
    wait_until("the proxy to serve the Sentinels' master", FOLLOW, || {
        let last = proxy.events(mark, "switched").pop();
        last.is_some_and(|last| last.text("to") == master.to_string())
    });
    serves(&proxy, master, FOLLOW);
    let last = proxy.events(mark, "switched").pop().expect("seen above");
    writers.all_acknowledged_after(last.written(), FOLLOW);
    let history = writers.stop();
    let mut node = servers.direct(master);
    history.assert_at_most_once(&mut node);
    assert_no_invented_errors(&history);
    let lost = if master == old {
        assert_lost_only_between(&history, &held, &over, &mut node)
    } else {
        // What it took in the first time is still there, and what the old one took since is not.
        assert!(over.index < last.index);
        assert_lost_only_between(&history, &over, &last, &mut node)
    };
    println!("the Sentinels name {master} (it was {old}); {lost} writes were staked and lost");
}

/// A proxy whose sessions outlive a switch, and that takes a successor's own word.
fn believing(servers: &Topology) -> Proxy {
    let plan = Plan::moving(&servers.sentinels());
    Proxy::ready(plan.env("SWITCHMASTER_FAILOVER_CONFIRM", "role"))
}

fn empty(servers: &Topology) {
    let emptied = servers.direct(servers.master().addr()).call(&["FLUSHALL"]);
    assert_eq!(emptied.ok(), Some(Value::Simple("OK".to_owned())));
}

/// How late a log line may be, or a clock off.
const SOON: Duration = Duration::from_millis(100);

/// Acknowledged writes that are missing were under way between these two lines. How many those were.
fn assert_lost_only_between(
    history: &History,
    from: &Event,
    until: &Event,
    node: &mut switchmaster::demo::wire::Conn,
) -> usize {
    let lost = history.lost(node);
    for write in &lost {
        assert!(
            write.ended + SOON >= from.written() && write.began <= until.written(),
            "{} was acknowledged outside of what confirm = \"role\" stakes, and is missing: {write:?}, {} to {}",
            write.token,
            from.fields,
            until.fields
        );
    }
    lost.len()
}

fn assert_no_invented_errors(history: &History) {
    let refused = history.count(|o| matches!(o, Outcome::Refused(_)));
    assert_eq!(refused, 0, "no invented errors");
}
