//! What the control tasks of an entry go by, made from the configuration and from what is listened on.

use std::sync::Arc;

use crate::config::Proxy;
use crate::control::Settings;
use crate::control::replicas::Reading;
use crate::listener::Bound;
use crate::net::addr::{HostPort, ListenAddr};
use crate::net::address_map::AddressMap;
use crate::topology::rules::{Rules, SentinelsLost};

/// Its Sentinels vouch for the master, or it is not written to.
pub(super) fn leases(rules: &Rules) -> bool {
    rules.when_sentinels_are_lost == SentinelsLost::Stop
}

/// `own` listeners can never be the master, and none of `all` a replica.
pub(super) fn settings(
    proxy: &Proxy,
    rules: &Rules,
    own: Vec<HostPort>,
    all: &[HostPort],
    map: &Arc<AddressMap>,
) -> Settings {
    Settings {
        reading: proxy.choice().map(|choice| Reading {
            choice,
            address_map: Arc::clone(map),
            own: all.to_vec(),
        }),
        rules: *rules,
        probe: proxy.probe.clone(),
        tls: proxy.upstream_tls.clone(),
        connect_timeout: proxy.session.connect_timeout,
        own,
    }
}

/// The addresses at which we would be talking to ourselves.
pub(super) fn own_addresses(held: &[Bound]) -> Vec<HostPort> {
    held.iter()
        .filter_map(|held| match held.addr() {
            ListenAddr::Tcp(addr) => Some(HostPort::from(*addr)),
            ListenAddr::Unix(_) | ListenAddr::Systemd(_) => None,
        })
        .collect()
}
