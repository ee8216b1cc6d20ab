//! What went wrong with TLS, in words that say what to do.

use std::io;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// Why there is no TLS with a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("TLS: {words}{}", .table.map(|table| format!(", in {table}")).unwrap_or_default())]
pub struct TlsError {
    words: String,
    silent: bool,
    /// The words end with a key that can be set.
    names_key: bool,
    /// Where that key is.
    table: Option<&'static str>,
}

impl TlsError {
    /// What was configured cannot be used.
    pub(super) fn of_configuration(what: &dyn std::fmt::Display) -> Self {
        Self::heard(what.to_string())
    }

    #[cfg(test)]
    pub(crate) fn in_words(what: &str) -> Self {
        Self::heard(what.to_owned())
    }

    /// It has not answered to the first word.
    pub(super) fn late(limit: Duration) -> Self {
        Self::nothing(format!(
            "no handshake within {}: it is stopped or overloaded, or this is no TLS port (tls-port)",
            humantime::format_duration(limit)
        ))
    }

    /// What happened while shaking hands, whatever it was.
    pub(super) fn of_handshake(error: &io::Error) -> Self {
        Self::of(error).unwrap_or_else(|| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Self::nothing(
                "the connection was closed during the handshake: what was to answer is gone or full, or this is no TLS port (tls-port)"
                    .to_owned(),
            ),
            _ => Self::nothing(error.to_string()),
        })
    }

    /// It is the network that has something: nobody said anything for or against TLS. Whatever accepted may stand before a server that is
    /// gone, as a forwarder or a load balancer does, or be the kernel of one that ends.
    pub const fn is_silent(&self) -> bool {
        self.silent
    }

    fn heard(words: String) -> Self {
        Self {
            words,
            silent: false,
            names_key: false,
            table: None,
        }
    }

    fn nothing(words: String) -> Self {
        Self {
            words,
            silent: true,
            names_key: false,
            table: None,
        }
    }

    /// The same, with the table that the keys are in which it names.
    pub(crate) fn in_table(self, table: Option<&'static str>) -> Self {
        let table = table.filter(|_| self.names_key);
        Self { table, ..self }
    }

    /// What TLS has against a connection that was read or written; `None` where it is the network that has something.
    pub fn of(error: &io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        Some(Self {
            names_key: names_key(error),
            ..Self::heard(words(error))
        })
    }
}

/// What is said about it ends with a key of ours.
const fn names_key(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::NotValidForNameContext { .. } | CertificateError::UnknownIssuer
        ) | Error::AlertReceived(
            AlertDescription::CertificateRequired
                | AlertDescription::HandshakeFailure
                | AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
        )
    )
}

/// What rustls says, with what to do about it where that is known.
fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected,
            presented,
        }) => {
            let expected = name(expected);
            let shown = match presented.as_slice() {
                [] => "nobody".to_owned(),
                names => listed(names),
            };
            let first = presented.iter().find_map(|name| plain(name));
            let first = first.unwrap_or("NAME");
            format!(
                "its certificate is for {shown}, not for {expected}: set server_name = \"{first}\" (or put {expected} into the certificate)"
            )
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is of an unknown issuer: set ca_file to the authority that signed it".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired: renew it on that server".to_owned(),
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "its certificate is not valid yet: is this clock right?".to_owned(),
        Error::InvalidMessage(_) => {
            "it does not speak TLS: is it a TLS port (tls-port) that was dialled?".to_owned()
        }
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            // Before TLS 1.3 it has no word of its own.
            | AlertDescription::HandshakeFailure
        ) => format!("{error}: if it demands a client certificate, set cert_file and key_file"),
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown,
        ) => format!("{error}: it does not accept the certificate of cert_file"),
        other => other.to_string(),
    }
}

fn name(name: &ServerName<'_>) -> String {
    match name {
        ServerName::IpAddress(ip) => std::net::IpAddr::from(*ip).to_string(),
        name => name.to_str().into_owned(),
    }
}

/// The first few of the names that a peer presents: the rest is its own affair, and so is what it writes there.
fn listed(names: &[String]) -> String {
    const MOST: usize = 4;
    let mut shown: Vec<String> = names.iter().take(MOST).map(|name| escaped(name)).collect();
    if names.len() > MOST {
        shown.push("others".to_owned());
    }
    shown.join(", ")
}

fn escaped(name: &str) -> String {
    const LONGEST: usize = 80;
    let name = plain(name).unwrap_or(name);
    name.chars()
        .take(LONGEST)
        .flat_map(char::escape_default)
        .collect()
}

/// `DnsName("redis-a")` and `IpAddress(10.0.0.3)`, as the library writes them, without what it puts around them.
fn plain(name: &str) -> Option<&str> {
    let inner = name
        .strip_prefix("DnsName(")
        .or_else(|| name.strip_prefix("IpAddress("))?
        .strip_suffix(')')?;
    let inner = inner.trim_matches('"');
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_:*".contains(c);
    (!inner.is_empty() && inner.chars().all(is_name)).then_some(inner)
}
