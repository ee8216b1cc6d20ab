//! Names of nodes and Sentinels: node 0 is `A`, the one past the last is `X`, who does not exist; link 0 is `s1`.

use std::time::Duration;

use switchmaster::net::addr::{Host, HostPort, NodeAddr, SentinelAddr};
use switchmaster::net::clock::Moment;
use switchmaster::topology::MasterAddr;

/// The address nobody answers at.
pub(crate) const NOWHERE: usize = 23;

pub(crate) fn letter(node: usize) -> char {
    char::from(b'A' + u8::try_from(node).expect("few nodes"))
}

pub(crate) fn node(node: usize) -> NodeAddr {
    NodeAddr(HostPort {
        host: Host::Name(letter(node).to_ascii_lowercase().to_string()),
        port: 6379,
    })
}

pub(crate) fn node_of(addr: &MasterAddr) -> usize {
    index(&addr.host_port().host)
}

pub(crate) fn node_at(addr: &NodeAddr) -> usize {
    index(&addr.0.host)
}

fn index(host: &Host) -> usize {
    let Host::Name(name) = host else {
        panic!("{host}: not one of ours")
    };
    usize::from(name.as_bytes()[0] - b'a')
}

pub(crate) fn sentinel(link: usize) -> SentinelAddr {
    SentinelAddr(HostPort {
        host: Host::Name(format!("s{}", link + 1)),
        port: 26379,
    })
}

/// Not from zero: a clock that starts there hides subtractions that go below it.
pub(crate) fn moment(millis: u64) -> Moment {
    Moment::from_nanos(0) + Duration::from_secs(1000) + Duration::from_millis(millis)
}

pub(crate) fn millis(at: Moment) -> u64 {
    let nanos = at.since(moment(0)).as_nanos();
    u64::try_from(nanos.div_ceil(1_000_000)).expect("a short run")
}
