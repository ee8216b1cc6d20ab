//! Texts that mean something by themselves: addresses, networks, names. Each refusal says what to write.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::problem::printable;
use super::value::Refusal;
use crate::listener::Group;
use crate::net::addr::{AddrError, DEFAULT_SENTINEL_PORT, HostPort, ListenAddr, SentinelAddr};
use crate::net::address_map::Mapping;

/// Longest name of a proxy entry, in bytes.
const MAX_PROXY_NAME: usize = 64;
/// Longest master name or user name, in bytes; Redis itself sets no bound.
const MAX_NAME: usize = 512;
/// Before an IPv4 address in one of IPv6 (RFC 4291, 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;
/// Longest path of a unix socket: `sun_path` less its zero byte (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn sentinel_addr(text: &str) -> Result<SentinelAddr, Refusal> {
    if text.contains("://") {
        return Err(refusal(
            // It is not repeated: there may be a password in it.
            "a URL is given as --url or SWITCHMASTER_URL, and not as an address",
            "here write host:port, for example \"10.0.0.3:26379\"; logins go to username and password_file",
        ));
    }
    let addr = HostPort::parse(text, Some(DEFAULT_SENTINEL_PORT)).map_err(|e| {
        refusal(
            format!("\"{}\" is no address: {e}", printable(text)),
            "write host or host:port, for example \"10.0.0.3:26379\"",
        )
    })?;
    if addr.host.is_unspecified() {
        return Err(refusal(
            format!(
                "\"{}\" is an address to listen on, not one to connect to",
                printable(text)
            ),
            "write the Sentinel's own address, for example \"10.0.0.3:26379\"",
        ));
    }
    Ok(SentinelAddr(addr))
}

pub(super) fn listen_addr(text: &str) -> Result<ListenAddr, Refusal> {
    let addr: ListenAddr = text.parse().map_err(|e: AddrError| {
        let help = match text.parse::<u16>() {
            Ok(port) => format!("did you mean \"127.0.0.1:{port}\"?"),
            Err(_) => {
                "write \"127.0.0.1:6379\", \"unix:/run/switchmaster/main.sock\" or \"systemd:main\""
                    .to_owned()
            }
        };
        (e.to_string(), help)
    })?;
    match &addr {
        ListenAddr::Unix(path) if path.as_os_str().len() > MAX_SOCKET_PATH => Err(refusal(
            format!("the socket path \"{}\" is too long", printable(text)),
            format!("the system allows {MAX_SOCKET_PATH} bytes: choose a shorter path"),
        )),
        ListenAddr::Unix(path) if path.as_os_str().as_encoded_bytes().contains(&0) => Err(refusal(
            format!(
                "the socket path \"{}\" has a zero byte in it",
                printable(text)
            ),
            "write \"unix:/run/switchmaster/main.sock\"",
        )),
        _ => Ok(addr),
    }
}

/// Permissions as chmod(1) writes them. Others than owner and group may be let in; nobody may be let in who can replace the file.
pub(super) fn socket_mode(text: &str) -> Result<u32, Refusal> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal =
        (3..=4).contains(&digits.len()) && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if is_octal && mode <= 0o777 => Ok(mode),
        _ => Err(refusal(
            format!("\"{}\" are no permissions", printable(text)),
            "write three octal digits behind a zero: \"0660\" for owner and group, \"0600\" for the owner alone",
        )),
    }
}

/// A group by its name, or by its number.
pub(super) fn group(text: &str) -> Result<Group, Refusal> {
    let gid = match text.parse::<u32>() {
        Ok(gid) => Some(gid),
        // Asked of whatever keeps the groups of this machine (nsswitch.conf(5)).
        Err(_) => match nix::unistd::Group::from_name(text) {
            Ok(group) => group.map(|group| group.gid.as_raw()),
            Err(_) => None,
        },
    };
    let name = text.to_owned();
    gid.map(|gid| Group { name, gid }).ok_or_else(|| {
        refusal(
            format!("\"{}\" is no group of this machine", printable(text)),
            "write one that `getent group` shows; switchmaster's own user has to be in it",
        )
    })
}

/// An IPv4 network is one whichever way it is written: whoever comes from there is looked at as one of IPv4.
pub(super) fn network(text: &str) -> Result<IpNet, Refusal> {
    let net = text
        .parse::<IpNet>()
        .or_else(|e| text.parse::<IpAddr>().map(IpNet::from).map_err(|_| e))
        .map_err(|_| {
            refusal(
                format!("\"{}\" is not a network", printable(text)),
                "write an address and the length of its prefix, for example \"10.0.0.0/8\", or one address",
            )
        })?;
    let IpNet::V6(net6) = net else {
        return Ok(net.trunc());
    };
    let Some(ip) = net6.addr().to_ipv4_mapped() else {
        return Ok(net.trunc());
    };
    let prefix = net6.prefix_len().checked_sub(MAPPED_PREFIX);
    match prefix.and_then(|prefix| Ipv4Net::new(ip, prefix).ok()) {
        Some(net) => Ok(IpNet::V4(net.trunc())),
        None => Err(refusal(
            format!(
                "\"{}\" is an IPv4 address with a prefix that is not of IPv4",
                printable(text)
            ),
            format!(
                "write the network of IPv4 that is meant, for example \"{ip}/{}\"",
                net6.prefix_len().min(32)
            ),
        )),
    }
}

pub(super) fn mapping(text: &str) -> Result<Mapping, Refusal> {
    let help = "write \"announced\" = \"reachable\", both with a port or both without: \
                \"172.19.0.2:6379\" = \"redis-a.internal:6379\"";
    let (announced, reachable) = text.split_once('=').ok_or_else(|| {
        refusal(
            format!("\"{}\" has no \"=\"", printable(text)),
            "write announced=reachable",
        )
    })?;
    Mapping::parse(announced.trim(), reachable.trim())
        .map_err(|e| refusal(format!("\"{}\": {e}", printable(text)), help))
}

pub(super) fn proxy_name(text: &str) -> Result<(), Refusal> {
    let good = (1..=MAX_PROXY_NAME).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if good {
        return Ok(());
    }
    Err(refusal(
        format!("\"{}\" is not a name", printable(text)),
        format!(
            "use 1 to {MAX_PROXY_NAME} letters, digits, '-' and '_': it stands in logs and metrics"
        ),
    ))
}

/// A name that Redis or Sentinel knows: free in its letters, but one word.
pub(super) fn plain_name(text: &str) -> Result<(), Refusal> {
    let good = (1..=MAX_NAME).contains(&text.len())
        && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    if good {
        return Ok(());
    }
    Err(refusal(
        format!("\"{}\" is not a name", printable(text)),
        format!("write 1 to {MAX_NAME} bytes without spaces"),
    ))
}

pub(super) fn refusal(message: impl Into<String>, help: impl Into<String>) -> Refusal {
    (message.into(), help.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_ipv4_are_that_however_they_are_written() {
        for (text, net) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:a01:203/128", "10.1.2.3/32"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
        ] {
            let read = network(text).map(|net| net.to_string());
            assert_eq!(read, Ok(net.to_owned()), "{text}");
        }
        let (said, help) = network("::ffff:10.0.0.0/8").expect_err("nobody comes from there");
        assert!(said.contains("not of IPv4"), "{said}");
        assert!(help.contains("\"10.0.0.0/8\""), "{help}");
    }
}
