//! A Sentinel that names another master than the others: told when it lasts, with its end, and not in every failover.

use std::time::Duration;

use super::PATIENCE;
use super::harness::fake_master::{Bytes, FakeMaster};
use super::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use super::harness::proxy::{Plan, Proxy};
use super::harness::topology::{FOLLOW, Topology, follows};
use super::harness::{holds_for, wait_until};

/// Longer than a Sentinel may disagree without a word, which is 3 s.
const LASTING: Duration = Duration::from_secs(4);

#[test]
fn a_sentinel_that_goes_on_naming_another_is_told_of_once_and_so_is_its_end() {
    let (master, another) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let fakes: Vec<_> = (0..3)
        .map(|n| FakeSentinel::start(Protocol::Resp3, View::of(master.addr()).by(n, 3)))
        .collect();
    let sentinels: Vec<_> = fakes.iter().map(FakeSentinel::addr).collect();
    let proxy = Proxy::ready(Plan::following(&sentinels));
    fakes[1].update(|view| {
        view.addr = another.addr();
        view.epoch = 0;
    });
    let begin = proxy.event("sentinel_disagrees", PATIENCE);
    assert_eq!(begin.fields["over"], false, "{}", begin.fields);
    assert_eq!(begin.text("level"), "WARN");
    assert_eq!(begin.text("sentinel"), fakes[1].addr().to_string());
    assert_eq!(begin.text("names"), another.addr().to_string());
    assert_eq!(begin.number("epoch"), 0.0);
    fakes[1].update(|view| {
        view.addr = master.addr();
        view.epoch = 1;
    });
    let end = proxy.event_after(begin.index + 1, "sentinel_disagrees", PATIENCE);
    assert_eq!(end.fields["over"], true, "{}", end.fields);
    assert!(end.number("lasted_ms") >= 3000.0, "{}", end.fields);
    // To and fro: once a minute is enough.
    for _ in 0..2 {
        fakes[1].update(|view| (view.addr, view.epoch) = (another.addr(), 0));
        holds_for("silence about it", LASTING, || {
            proxy.events(end.index + 1, "sentinel_disagrees").is_empty()
        });
        fakes[1].update(|view| (view.addr, view.epoch) = (master.addr(), 1));
    }
}

#[test]
fn a_failover_is_no_disagreement() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let mark = proxy.mark();
    follows(&proxy, mark, servers.fail_over(0));
    wait_until("the story to be told", FOLLOW, || {
        !proxy.events(mark, "outage_over").is_empty()
    });
    holds_for("nobody to disagree", LASTING, || {
        proxy.events(mark, "sentinel_disagrees").is_empty()
    });
}
