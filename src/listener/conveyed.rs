//! The address that a load balancer conveys in front of a client's bytes (PROXY protocol, versions 1 and 2; the HAProxy project's
//! proxy-protocol.txt). The library says what a header means; here is how much of a stream belongs to it. Pure.

use std::net::IpAddr;

use ppp::{v1, v2};

/// Longest header there is (section 2.2): all TLVs that a balancer sends fit, and nobody makes us read more.
pub const HEADER_MAX: usize = 536;
/// How version 1 begins, and its longest line (section 2.1).
const V1_PREFIX: &[u8] = b"PROXY ";
const V1_MAX: usize = 107;

/// Of version 2: signature, version and command, family and protocol, length (section 2.2).
const V2_FIXED: usize = 16;

/// How far a header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Framed {
    /// So many bytes are the header; what comes behind them is the client's.
    Whole(usize, Conveyed),
    /// All of it belongs to the header, and there is more of it.
    More,
    /// It is none, or a longer one than there may be.
    Bad,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conveyed {
    /// Where the client is.
    From(IpAddr),
    /// The balancer speaks for itself (LOCAL of version 2: its health checks).
    Itself,
    /// It does not say for whom (UNKNOWN, or no address of a network): it answers for that by its own address.
    Unknown,
}

/// Looks at all that has been said so far.
pub fn framed(said: &[u8]) -> Framed {
    if begins(said, v2::PROTOCOL_PREFIX) {
        second(said)
    } else if begins(said, V1_PREFIX) {
        first(said)
    } else {
        Framed::Bad
    }
}

/// Version 1: a line.
fn first(said: &[u8]) -> Framed {
    let line = &said[..said.len().min(V1_MAX)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if said.len() < V1_MAX {
            Framed::More
        } else {
            Framed::Bad
        };
    };
    match v1::Header::try_from(&said[..=end]) {
        Ok(header) if header.header.len() == end + 1 => {
            Framed::Whole(end + 1, of_first(&header.addresses))
        }
        Ok(_) | Err(_) => Framed::Bad,
    }
}

/// Version 2: a fixed part, which says how long the rest is.
fn second(said: &[u8]) -> Framed {
    let Some([.., high, low]) = said.get(..V2_FIXED) else {
        return Framed::More;
    };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([*high, *low]));
    if length > HEADER_MAX {
        return Framed::Bad;
    }
    let Some(header) = said.get(..length) else {
        return Framed::More;
    };
    match v2::Header::try_from(header) {
        Ok(header) => Framed::Whole(length, of_second(&header)),
        Err(_) => Framed::Bad,
    }
}

/// One is the beginning of the other.
fn begins(said: &[u8], prefix: &[u8]) -> bool {
    let length = said.len().min(prefix.len());
    said[..length] == prefix[..length]
}

fn of_first(addresses: &v1::Addresses) -> Conveyed {
    match addresses {
        v1::Addresses::Tcp4(of) => Conveyed::From(of.source_address.into()),
        v1::Addresses::Tcp6(of) => Conveyed::From(IpAddr::from(of.source_address).to_canonical()),
        v1::Addresses::Unknown => Conveyed::Unknown,
    }
}

fn of_second(header: &v2::Header<'_>) -> Conveyed {
    match (header.command, &header.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(of)) => Conveyed::From(of.source_address.into()),
        (v2::Command::Proxy, v2::Addresses::IPv6(of)) => {
            Conveyed::From(IpAddr::from(of.source_address).to_canonical())
        }
        (v2::Command::Local, _) => Conveyed::Itself,
        (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => {
            Conveyed::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn written(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
        [V2, &[0x20 | command, family], &length, payload].concat()
    }

    fn ip(text: &str) -> Conveyed {
        Conveyed::From(text.parse().expect("an address"))
    }

    #[test]
    fn a_header_is_told_from_what_comes_behind_it() {
        let v4 = [10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0x18, 0xeb];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(
            &"2001:db8::1"
                .parse::<std::net::Ipv6Addr>()
                .expect("one")
                .octets(),
        );
        let with_tlv = [&v4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        for (header, conveyed) in [
            (
                b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 6379\r\n".to_vec(),
                ip("10.0.0.1"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 40000 6379\r\n".to_vec(),
                ip("2001:db8::1"),
            ),
            (
                b"PROXY TCP6 ::ffff:10.0.0.1 ::1 40000 6379\r\n".to_vec(),
                ip("10.0.0.1"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Conveyed::Unknown),
            (
                b"PROXY UNKNOWN anything at all\r\n".to_vec(),
                Conveyed::Unknown,
            ),
            (written(1, 0x11, &v4), ip("10.0.0.1")),
            (written(1, 0x11, &with_tlv), ip("10.0.0.1")),
            (written(1, 0x21, &v6), ip("2001:db8::1")),
            (written(0, 0x11, &v4), Conveyed::Itself),
            (written(0, 0x00, &[]), Conveyed::Itself),
            (written(1, 0x00, &[]), Conveyed::Unknown),
            (written(1, 0x31, &[b'x'; 216]), Conveyed::Unknown),
        ] {
            for end in 0..header.len() {
                assert_eq!(
                    framed(&header[..end]),
                    Framed::More,
                    "{}",
                    header[..end].escape_ascii()
                );
            }
            let whole = Framed::Whole(header.len(), conveyed);
            for rest in [&b""[..], b"*1\r\n$4\r\nPING\r\n", b"PROXY TCP4 "] {
                let said = [&header[..], rest].concat();
                assert_eq!(framed(&said), whole, "{}", said.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_none_is_refused_as_soon_as_that_is_certain() {
        let long = [V2, &[0x21, 0x11, 0xff, 0xff]].concat();
        for said in [
            &b"*1\r\n$4\r\nPING\r\n"[..],
            b"GET / HTTP/1.1\r\n",
            b"PING\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 40000\r\n",
            b"PROXY TCP4 10.0.0.256 10.0.0.2 1 2\r\n",
            b"PROXY TCP5 10.0.0.1 10.0.0.2 1 2\r\n",
            b"PROXY \n",
            b"\r\nPING",
            &long,
        ] {
            assert_eq!(framed(said), Framed::Bad, "{}", said.escape_ascii());
        }
        let endless = [&b"PROXY UNKNOWN "[..], &[b'a'; 200]].concat();
        assert_eq!(framed(&endless), Framed::Bad);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_read_more_than_there_may_be(said in prop::collection::vec(any::<u8>(), 0..700), begins in 0..3_usize) {
            let said = [[&b""[..], b"PROXY ", V2][begins], &said].concat();
            match framed(&said) {
                Framed::Whole(length, _) => prop_assert!(length <= said.len() && length <= HEADER_MAX),
                Framed::More => prop_assert!(said.len() < HEADER_MAX),
                Framed::Bad => {}
            }
        }
    }
}
