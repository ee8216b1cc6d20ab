//! There is no master yet, or no Sentinel, or the program is asked to end.

use std::io::{Read, Write};
use std::time::Duration;

use switchmaster::net::clock::now;

use crate::harness::fake_master::{Bytes, FakeMaster, Role};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::Plan;
use crate::{SOON, Stage, assert_silent, connect, echoed, free_address, read_to_end};
#[test]
fn a_client_without_a_master_is_held_then_served() {
    let master = FakeMaster::start(Bytes::Echo);
    master.set_role(Role::Replica);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let proxy = Plan::following(&[sentinel.addr()]).start();
    let mut client = connect(proxy.addr());
    client.write_all(b"early").expect("written");
    let rejected = proxy.event("role_rejected", SOON);
    assert_eq!(rejected.text("addr"), master.addr().to_string());
    assert_silent(&mut client, Duration::from_millis(500));
    assert!(master.records().is_empty(), "not a byte to a replica");

    for (role, time) in [(Role::Loading, 500), (Role::Mute, 1500)] {
        master.set_role(role);
        assert_silent(&mut client, Duration::from_millis(time));
    }
    master.set_role(Role::Master);
    client.set_read_timeout(Some(SOON)).expect("a socket");
    let mut back = [0; 5];
    client.read_exact(&mut back).expect("held, then served");
    assert_eq!(&back, b"early");
}

#[test]
fn a_client_is_closed_when_hold_max_has_passed() {
    let master = FakeMaster::start(Bytes::Echo);
    master.set_role(Role::Replica);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let proxy = Plan::following(&[sentinel.addr()])
        .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "2s")
        .start();
    let mut client = connect(proxy.addr());
    assert_silent(&mut client, Duration::from_millis(1500));
    client.set_read_timeout(Some(SOON)).expect("a socket");
    assert_eq!(read_to_end(&mut client), b"");
}

#[test]
fn nothing_at_the_sentinels_address_is_waited_for() {
    let place = free_address();
    let proxy = Plan::following(&[place]).start();
    let mut client = connect(proxy.addr());
    client.write_all(b"early").expect("written");
    // It says whom it cannot ask, and that clients wait for that.
    let down = proxy.event("sentinel_down", SOON);
    assert_eq!(down.text("sentinel"), place.to_string());
    let waiting = proxy.event("waiting", SOON);
    assert_eq!(waiting.number("answering"), 0.0, "{}", waiting.fields);
    assert_silent(&mut client, Duration::from_millis(500));

    let master = FakeMaster::start(Bytes::Echo);
    let _sentinel = FakeSentinel::start_at(place, Protocol::Resp3, View::of(master.addr()));
    client.set_read_timeout(Some(SOON)).expect("a socket");
    let mut back = [0; 5];
    client
        .read_exact(&mut back)
        .expect("served as soon as a Sentinel is there");
    assert_eq!(&back, b"early");
}

#[test]
fn sigterm_ends_it_at_once_with_a_client_waiting() {
    let proxy = Plan::following(&[free_address()]).start();
    let mut client = connect(proxy.addr());
    client.write_all(b"early").expect("written");
    proxy.event("waiting", SOON);
    let asked = now();
    let status = proxy.terminate(SOON);
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(now().since(asked) < Duration::from_secs(2), "at once");
}

#[test]
fn sigterm_ends_it_in_traffic() {
    let stage = Stage::set(Bytes::Echo);
    let mut client = stage.client();
    assert_eq!(echoed(&mut client, b"before"), b"before");
    let status = stage.proxy.terminate(Duration::from_secs(30));
    assert_eq!(status.code(), Some(0), "{status}");
    client.set_read_timeout(Some(SOON)).expect("a socket");
    assert_eq!(read_to_end(&mut client), b"");
}
