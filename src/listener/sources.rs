//! How many connections there are from where (`max_connections_per_source`). Touched once a connection, and only where there is a
//! limit; it holds no more addresses than there are connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// A machine or a customer has a network of its own (RFC 6177): one address of IPv6 says nothing.
const IPV6_PREFIX: u32 = 64;

/// Counts by source.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<HashMap<IpAddr, usize>>);

/// One connection of a source; dropping it leaves.
#[derive(Debug)]
pub(super) struct FromSource {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Sources {
    /// One more from there; `None` when there are `most` already.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr, most: usize) -> Option<FromSource> {
        let source = source_of(peer);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(FromSource {
            sources: Arc::clone(self),
            source,
        })
    }
}

impl Drop for FromSource {
    fn drop(&mut self) {
        let mut counts = self
            .sources
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

fn source_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) => {
            let network = u128::MAX << (u128::BITS - IPV6_PREFIX);
            Ipv6Addr::from_bits(ip.to_bits() & network).into()
        }
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_source_has_its_own_limit_and_none_is_kept_without_connections() {
        let sources = Arc::new(Sources::default());
        let first = sources.enter(ip("10.0.0.1"), 2).expect("room");
        let second = sources.enter(ip("::ffff:10.0.0.1"), 2).expect("room");
        assert!(sources.enter(ip("10.0.0.1"), 2).is_none());
        assert!(sources.enter(ip("10.0.0.2"), 2).is_some());
        drop(first);
        let third = sources.enter(ip("10.0.0.1"), 2).expect("room again");
        drop((second, third));
        assert!(sources.0.lock().expect("nobody panicked").is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let sources = Arc::new(Sources::default());
        let _one = sources.enter(ip("2001:db8::1"), 1).expect("room");
        assert!(sources.enter(ip("2001:db8::ffff:2"), 1).is_none());
        assert!(sources.enter(ip("2001:db8:0:1::1"), 1).is_some());
    }
}
