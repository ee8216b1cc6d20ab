//! Whether an address leads back to us: a node there would answer as the replica does that we lead it to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::net::addr::HostPort;

/// One of our `own` listeners would take a connection to this address.
pub(super) fn leads_to_us(at: SocketAddr, own: &[HostPort]) -> bool {
    let own = own.iter().filter_map(HostPort::socket_addr);
    let ip = at.ip().to_canonical();
    own.filter(|own| own.port() == at.port())
        .any(|own| match own.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => ip.is_ipv4() && is_of_this_host(ip),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => is_of_this_host(ip),
            own => own == ip,
        })
}

/// Nothing is sent: what is sent to an address of this host would be sent from it, and the kernel says so. (To bind to it would prove
/// nothing: `ip_nonlocal_bind`.)
fn is_of_this_host(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let sent_from = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((ip, 9))?;
        socket.local_addr()
    };
    ip.is_loopback() || sent_from().is_ok_and(|from| from.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_reached_by_each_of_this_host() {
        let own = |own: &str| {
            vec![HostPort::from(
                own.parse::<SocketAddr>().expect("an address"),
            )]
        };
        for (listens, at, expected) in [
            ("127.0.0.1:7", "127.0.0.1:7", true),
            ("127.0.0.1:7", "127.0.0.2:7", false),
            ("0.0.0.0:7", "127.0.0.2:7", true),
            ("0.0.0.0:7", "127.0.0.2:8", false),
            // TEST-NET-1, RFC 5737: nobody's.
            ("0.0.0.0:7", "192.0.2.1:7", false),
            ("0.0.0.0:7", "[::1]:7", false),
            ("[::]:7", "[::1]:7", true),
            ("[::]:7", "127.0.0.1:7", true),
            ("[::]:7", "192.0.2.1:7", false),
        ] {
            let at = at.parse().expect("an address");
            assert_eq!(leads_to_us(at, &own(listens)), expected, "{listens} {at}");
        }
    }

    #[test]
    fn the_address_by_which_this_host_is_known_is_its_own() {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a port");
        // Where there is a way to others at all.
        if socket.connect(("192.0.2.1", 9)).is_ok() {
            let at = socket.local_addr().expect("bound");
            let own = vec![HostPort::from(SocketAddr::from(([0, 0, 0, 0], at.port())))];
            assert!(leads_to_us(at, &own), "{at}");
        }
    }
}
