//! What Sentinels announce, and where it is reached from here (NAT, containers, private networks). Pure.

use std::collections::BTreeMap;

use super::addr::{AddrError, Host, HostPort};

/// Announced -> reachable. What it does not name is reached where it is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressMap {
    addresses: BTreeMap<HostPort, HostPort>,
    /// For every port of a host that has no entry of its own.
    hosts: BTreeMap<Host, Host>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// One port of a host.
    Address(HostPort, HostPort),
    /// A host, at whatever port.
    Host(Host, Host),
}

impl Mapping {
    /// Reads an entry: both sides `host:port`, or both `host`.
    ///
    /// # Errors
    /// When one of them is no address, or only one has a port.
    pub fn parse(announced: &str, reachable: &str) -> Result<Self, AddrError> {
        match (Host::parse(announced), Host::parse(reachable)) {
            (Ok(from), Ok(to)) => Ok(Self::Host(from, to)),
            _ => Ok(Self::Address(announced.parse()?, reachable.parse()?)),
        }
    }
}

impl AddressMap {
    /// Adds an entry; false when there is one for the same address.
    pub fn insert(&mut self, mapping: Mapping) -> bool {
        match mapping {
            Mapping::Address(from, to) => self.addresses.insert(from, to).is_none(),
            Mapping::Host(from, to) => self.hosts.insert(from, to).is_none(),
        }
    }

    /// Where what is announced is reached.
    pub fn reach(&self, announced: HostPort) -> HostPort {
        if let Some(to) = self.addresses.get(&announced) {
            return to.clone();
        }
        match self.hosts.get(&announced.host) {
            Some(host) => HostPort {
                host: host.clone(),
                port: announced.port,
            },
            None => announced,
        }
    }

    /// Every entry, as it would be written.
    pub fn entries(&self) -> impl Iterator<Item = (String, String)> {
        let addresses = self
            .addresses
            .iter()
            .map(|(from, to)| (from.to_string(), to.to_string()));
        let hosts = self
            .hosts
            .iter()
            .map(|(from, to)| (from.to_string(), to.to_string()));
        addresses.chain(hosts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> AddressMap {
        let mut map = AddressMap::default();
        for (from, to) in entries {
            assert!(map.insert(Mapping::parse(from, to).expect("an entry")));
        }
        map
    }

    fn reach(map: &AddressMap, announced: &str) -> String {
        map.reach(announced.parse().expect("an address"))
            .to_string()
    }

    #[test]
    fn a_port_of_its_own_comes_before_its_host() {
        let map = map(&[
            ("172.19.0.2:6379", "redis-a.internal:7000"),
            ("172.19.0.2", "10.0.0.2"),
            ("redis-b", "::1"),
        ]);
        for (announced, reached) in [
            ("172.19.0.2:6379", "redis-a.internal:7000"),
            ("172.19.0.2:26379", "10.0.0.2:26379"),
            ("REDIS-B:6379", "[::1]:6379"),
            ("172.19.0.3:6379", "172.19.0.3:6379"),
        ] {
            assert_eq!(reach(&map, announced), reached);
        }
        assert_eq!(map.entries().count(), 3);
    }

    #[test]
    fn one_side_alone_cannot_have_a_port() {
        for (from, to) in [
            ("a:1", "b"),
            ("a", "b:1"),
            ("a:1", ""),
            ("", "b"),
            ("a:0", "b:1"),
        ] {
            assert!(Mapping::parse(from, to).is_err(), "{from} = {to}");
        }
    }

    #[test]
    fn the_same_address_twice_is_told() {
        let mut map = map(&[("a:1", "b:1")]);
        assert!(!map.insert(Mapping::parse("A.:1", "c:1").expect("an entry")));
    }
}
