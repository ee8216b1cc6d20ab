//! Addresses as types by role, so that a Sentinel's address is never dialled as a master's.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// The port Redis and Valkey listen on unless told otherwise.
pub const DEFAULT_REDIS_PORT: u16 = 6379;
/// The port Sentinel listens on unless told otherwise.
pub const DEFAULT_SENTINEL_PORT: u16 = 26379;
/// Longest name of a passed socket (`FileDescriptorName=` in systemd.socket(5)).
const MAX_SOCKET_NAME: usize = 255;
/// Longest host name accepted (RFC 1035, section 2.3.4).
const MAX_HOST_NAME: usize = 253;

/// A host as somebody named it: by address, or by a name that is resolved at each dial.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
    /// A DNS name (Sentinel's `announce-hostnames`, or what the operator wrote), in lower case.
    Name(String),
}

impl Host {
    /// Parses a host without port.
    ///
    /// # Errors
    /// When the text is empty, too long, or holds a character no host name has.
    pub fn parse(text: &str) -> Result<Self, AddrError> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(text).parse::<IpAddr>() {
            return Ok(Self::Ip(canonical(ip)));
        }
        if bare.is_some() {
            return Err(AddrError::BadHost(printable(text)));
        }
        if text.is_empty() {
            return Err(AddrError::NoHost);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let all_digits = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let good = !name.is_empty()
            && name.len() <= MAX_HOST_NAME
            && !all_digits
            && name.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && !label.starts_with('-')
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            });
        if !good {
            return Err(AddrError::BadHost(printable(text)));
        }
        Ok(Self::Name(name.to_ascii_lowercase()))
    }

    /// True for `0.0.0.0` and `::`, which are places to listen on and never places to dial.
    pub fn is_unspecified(&self) -> bool {
        matches!(self, Self::Ip(ip) if ip.is_unspecified())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A host and a port. `Display` gives the form that `FromStr` reads: IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Where.
    pub host: Host,
    /// TCP port, never 0.
    pub port: u16,
}

impl HostPort {
    /// Joins host and port.
    ///
    /// # Errors
    /// When the port is 0.
    pub fn new(host: Host, port: u16) -> Result<Self, AddrError> {
        if port == 0 {
            Err(AddrError::BadPort("0".to_owned()))
        } else {
            Ok(Self { host, port })
        }
    }

    /// Parses `host`, `host:port`, `1.2.3.4:port`, `::1` or `[::1]:port`.
    ///
    /// # Errors
    /// When the host or the port is missing or not valid.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, AddrError> {
        let text = text.trim();
        // A bare IPv6 address has colons but no port.
        let (host, port) = if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else if let Some((host, port)) = text.rsplit_once(':') {
            if text.starts_with('[') && port.ends_with(']') {
                (text, None)
            } else {
                (host, Some(port))
            }
        } else {
            (text, None)
        };
        let port = match port {
            Some(p) if p.bytes().all(|b| b.is_ascii_digit()) => p
                .parse::<u16>()
                .map_err(|_| AddrError::BadPort(printable(p)))?,
            Some(p) => return Err(AddrError::BadPort(printable(p))),
            None => default_port.ok_or(AddrError::NoPort)?,
        };
        if host.contains(':') && !host.starts_with('[') && host != text {
            return Err(AddrError::BadHost(printable(text)));
        }
        Self::new(Host::parse(host)?, port)
    }

    /// The socket address, when no name has to be resolved for it.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match &self.host {
            Host::Ip(ip) => Some(SocketAddr::new(*ip, self.port)),
            Host::Name(_) => None,
        }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(addr: SocketAddr) -> Self {
        Self {
            host: Host::Ip(canonical(addr.ip())),
            port: addr.port(),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl FromStr for HostPort {
    type Err = AddrError;
    fn from_str(text: &str) -> Result<Self, AddrError> {
        Self::parse(text, None)
    }
}

/// Where a Sentinel is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SentinelAddr(pub HostPort);

/// A data node (master or replica) as a Sentinel announced it: a claim, not yet a decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAddr(pub HostPort);

/// Where clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// A TCP address; port 0 lets the kernel choose one.
    Tcp(SocketAddr),
    /// A unix stream socket, made with mode 0660.
    Unix(PathBuf),
    /// Sockets of this name that systemd listens on and passes (`FileDescriptorName=` in systemd.socket(5)).
    Systemd(String),
}

impl ListenAddr {
    /// True when only this host can reach it, as far as the text tells: what is passed is looked at when it is taken.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(addr) => canonical(addr.ip()).is_loopback(),
            Self::Unix(_) | Self::Systemd(_) => true,
        }
    }

    /// True when the kernel would refuse to bind both. Port 0 is a new port each time.
    pub fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => {
                let any = a.ip().is_unspecified() || b.ip().is_unspecified();
                a.port() != 0
                    && a.port() == b.port()
                    && (a.ip() == b.ip() || (any && a.is_ipv4() == b.is_ipv4()))
            }
            (a, b) => a == b,
        }
    }
}

impl FromStr for ListenAddr {
    type Err = AddrError;
    fn from_str(text: &str) -> Result<Self, AddrError> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err(AddrError::BadSocketPath(printable(path)))
            };
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            let allowed = |c: char| c.is_ascii_graphic() && c != ':';
            return if (1..=MAX_SOCKET_NAME).contains(&name.len()) && name.chars().all(allowed) {
                Ok(Self::Systemd(name.to_owned()))
            } else {
                Err(AddrError::BadSocketName(printable(name)))
            };
        }
        // Listening on a name would bind to whatever it resolves to today; only `localhost` is plain.
        let text = text
            .strip_prefix("localhost:")
            .map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| AddrError::BadListen(printable(&text)))
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

impl fmt::Display for SentinelAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is no address. Every message says what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Nothing before the port.
    #[error("no host: write host:port, for example 10.0.0.3:6379")]
    NoHost,
    /// No port where one is needed.
    #[error("no port: write host:port, for example 10.0.0.3:6379")]
    NoPort,
    /// Not an IP address and not a host name.
    #[error(
        "\"{0}\" is neither an IP address nor a host name (IPv6 with a port is written [::1]:6379)"
    )]
    BadHost(String),
    /// Not a number from 1 to 65535.
    #[error("\"{0}\" is not a port: a number from 1 to 65535 is needed")]
    BadPort(String),
    /// Listeners take IP:port, unix:/path or systemd:NAME.
    #[error(
        "\"{0}\" is not a listening address: write IP:port (127.0.0.1:6379, [::1]:6379), unix:/path or systemd:NAME"
    )]
    BadListen(String),
    /// Unix sockets need an absolute path.
    #[error("\"{0}\" is not an absolute path: write unix:/run/switchmaster/main.sock")]
    BadSocketPath(String),
    /// Names of passed sockets are short and printable.
    #[error(
        "\"{0}\" is no name of a socket: write systemd:NAME, the FileDescriptorName= of the socket unit"
    )]
    BadSocketName(String),
}

/// IPv4 addresses in IPv6 clothing are the same address: `::ffff:10.0.0.1` is `10.0.0.1`.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// What a peer or an operator wrote, made fit for a log line: short, no control characters.
fn printable(text: &str) -> String {
    text.chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_are_read() {
        for (text, shown) in [
            ("10.0.0.3:6379", "10.0.0.3:6379"),
            ("redis-a.Internal:7000", "redis-a.internal:7000"),
            ("[::1]:6379", "[::1]:6379"),
            ("::1", "[::1]:26379"),
            ("[::1]", "[::1]:26379"),
            ("10.0.0.3", "10.0.0.3:26379"),
            ("::ffff:10.0.0.1", "10.0.0.1:26379"),
        ] {
            let addr = HostPort::parse(text, Some(DEFAULT_SENTINEL_PORT)).expect(text);
            assert_eq!(addr.to_string(), shown);
            assert_eq!(addr.to_string().parse::<HostPort>().expect(shown), addr);
        }
    }

    #[test]
    fn forms_that_are_refused() {
        for text in [
            "",
            ":6379",
            "a:0",
            "a:65536",
            "a:b",
            "a b:1",
            "[::1",
            "1.2.3:4",
            "a::1:x",
            "-a:1",
            "256.1.1.1:5",
        ] {
            assert!(HostPort::parse(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn listeners() {
        assert!("127.0.0.1:0".parse::<ListenAddr>().expect("tcp").is_local());
        assert!(
            "localhost:1"
                .parse::<ListenAddr>()
                .expect("name")
                .is_local()
        );
        assert!(
            "[::ffff:127.0.0.1]:1"
                .parse::<ListenAddr>()
                .expect("mapped")
                .is_local()
        );
        assert!(!"0.0.0.0:1".parse::<ListenAddr>().expect("any").is_local());
        assert!("unix:/a".parse::<ListenAddr>().expect("unix").is_local());
        assert!("unix:a".parse::<ListenAddr>().is_err());
        let passed: ListenAddr = "systemd:main".parse().expect("a name");
        assert_eq!(passed, ListenAddr::Systemd("main".to_owned()));
        assert_eq!(passed.to_string(), "systemd:main");
        for name in ["", "a:b", "a b", "\u{e4}", &"a".repeat(256)] {
            let text = format!("systemd:{name}");
            assert!(text.parse::<ListenAddr>().is_err(), "{text}");
        }
        assert!("example.org:1".parse::<ListenAddr>().is_err());
    }
}
