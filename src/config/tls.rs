//! The tables and keys about TLS: from files to what a handshake needs. Read whole, once: a certificate that does not fit its key is
//! a fault of the configuration, not of the first client.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::env::Environment;
use super::problem::{Problem, printable, printable_path, printable_whole};
use super::schema::{Key, Section};
use super::secret::{Places, when_unreadable};
use super::value::Values;
use super::written::Items;
use super::{Loaded, text};
use crate::net::addr::Host;
use crate::net::tls::{
    Acceptor, Connector, Fingerprint, Identity, MaterialError, Origin, Roots, ServerName, Validity,
    Verify, rfc3339,
};

/// The keys of one leg on which we are the client.
struct Leg {
    enabled: Key,
    ca: Key,
    cert: Key,
    key: Key,
    name: Key,
    insecure: Key,
}

const SENTINEL: Leg = Leg {
    enabled: Key::SentinelTls,
    ca: Key::SentinelCaFile,
    cert: Key::SentinelCertFile,
    key: Key::SentinelKeyFile,
    name: Key::SentinelServerName,
    insecure: Key::SentinelInsecure,
};

const UPSTREAM: Leg = Leg {
    enabled: Key::UpstreamTlsEnabled,
    ca: Key::UpstreamTlsCaFile,
    cert: Key::UpstreamTlsCertFile,
    key: Key::UpstreamTlsKeyFile,
    name: Key::UpstreamTlsServerName,
    insecure: Key::UpstreamTlsInsecure,
};

/// What became of `[proxy.client_tls]`.
pub(super) enum Clients {
    /// There is none: clients come without TLS.
    Plain,
    /// It is valid.
    Tls(Acceptor),
    /// It is not; the problems are told.
    Refused,
}

impl Clients {
    pub(super) const fn is_refused(&self) -> bool {
        matches!(self, Self::Refused)
    }

    pub(super) const fn demands_certificates(&self) -> bool {
        match self {
            Self::Tls(acceptor) => acceptor.demands_certificates(),
            Self::Plain | Self::Refused => false,
        }
    }

    pub(super) fn into_acceptor(self) -> Option<Acceptor> {
        match self {
            Self::Tls(acceptor) => Some(acceptor),
            Self::Plain | Self::Refused => None,
        }
    }
}

/// Reads what one set of items names.
pub(super) struct Files<'a> {
    items: &'a Items,
    environment: &'a Environment,
    problems: &'a mut Vec<Problem>,
    warnings: &'a mut Vec<String>,
}

impl<'a> Files<'a> {
    pub(super) fn new(
        items: &'a Items,
        environment: &'a Environment,
        problems: &'a mut Vec<Problem>,
        warnings: &'a mut Vec<String>,
    ) -> Self {
        Self {
            items,
            environment,
            problems,
            warnings,
        }
    }

    /// `[sentinel]`
    pub(super) fn sentinel(&mut self) -> Option<Connector> {
        self.connector(&SENTINEL)
    }

    /// `[proxy.upstream_tls]`
    pub(super) fn upstream(&mut self) -> Option<Connector> {
        self.connector(&UPSTREAM)
    }

    /// `[proxy.client_tls]`
    pub(super) fn clients(&mut self) -> Clients {
        if Section::ClientTls
            .keys()
            .all(|key| self.items.get(key).is_none())
        {
            if self.items.is_open(Section::ClientTls) {
                self.warnings.push(
                    "[proxy.client_tls] has no keys, and clients come without TLS: name cert_file and key_file below it, or \
                     take the line out"
                        .to_owned(),
                );
            }
            return Clients::Plain;
        }
        let before = self.problems.len();
        let identity = self.identity(Key::ClientTlsCertFile, Key::ClientTlsKeyFile);
        let roots = self.roots(Key::ClientTlsCaFile);
        if identity.is_none() && self.problems.len() == before {
            self.refuse(
                Key::ClientTlsCaFile,
                "without a certificate of our own there is no TLS with clients",
                "add cert_file and key_file to [proxy.client_tls]",
            );
        }
        let Some(identity) = identity.filter(|_| self.problems.len() == before) else {
            return Clients::Refused;
        };
        match Acceptor::new(&identity, roots.as_ref()) {
            Ok(acceptor) => Clients::Tls(acceptor),
            Err(error) => {
                let key = if roots.is_some() {
                    Key::ClientTlsCaFile
                } else {
                    Key::ClientTlsCertFile
                };
                self.refuse(key, &error.to_string(), "name other files");
                Clients::Refused
            }
        }
    }

    fn connector(&mut self, leg: &Leg) -> Option<Connector> {
        let others = [leg.ca, leg.cert, leg.key, leg.name, leg.insecure];
        let meant = others.iter().any(|key| self.items.get(*key).is_some());
        let before = self.problems.len();
        let mut values = Values::new(self.items, self.problems);
        let enabled = values.boolean(leg.enabled, meant);
        let insecure = values.boolean(leg.insecure, false);
        let name = values.parsed(leg.name, server_name);
        if !enabled {
            self.is_plain(leg, meant);
            return None;
        }
        let identity = self.identity(leg.cert, leg.key);
        let verify = match self.roots(leg.ca) {
            // Whoever is named beside it: it is for finding out what is wrong with that.
            _ if insecure => {
                let table = leg.insecure.section().header();
                self.warnings.push(format!(
                    "{}: whoever answers is believed to be who was called; anybody on the way can read and change what is said. \
                     Set ca_file in {table} instead",
                    leg.insecure.path()
                ));
                Verify::Nobody
            }
            Some(roots) => Verify::Against(roots),
            // It was named and cannot be used.
            None if self.items.get(leg.ca).is_some() => return None,
            None => match Roots::native() {
                Ok(roots) => Verify::Against(roots),
                Err(error) => {
                    self.refuse(
                        leg.enabled,
                        &error.to_string(),
                        "name the authority that signed the servers' certificates with ca_file",
                    );
                    return None;
                }
            },
        };
        if self.problems.len() > before {
            return None;
        }
        let origin = Origin {
            table: leg.ca.section().header(),
            ca_file: self.file(leg.ca, "authority's certificate"),
            identity: self
                .file(leg.cert, "certificate")
                .zip(self.file(leg.key, "key")),
        };
        match Connector::new(&verify, identity.as_ref(), name) {
            Ok(connector) => Some(connector.of(origin)),
            Err(error) => {
                self.refuse(leg.ca, &error.to_string(), "name another file");
                None
            }
        }
    }

    /// Tells that a leg is in the clear that somebody may believe not to be.
    fn is_plain(&mut self, leg: &Leg, meant: bool) {
        let table = leg.enabled.section();
        let switch = leg.enabled.path();
        if meant {
            self.warnings.push(format!(
                "{switch} = false: what else is said of TLS in {} means nothing, and passwords and data go in the clear",
                table.header()
            ));
        } else if self.items.get(leg.enabled).is_none() && self.items.is_open(table) {
            self.warnings.push(format!(
                "{} has no keys, and masters are met without TLS: set ca_file or enabled = true below it, or take the line out",
                table.header()
            ));
        }
    }

    /// A certificate and its key: both or none.
    fn identity(&mut self, cert: Key, key: Key) -> Option<Identity> {
        let (with, without) = match (self.items.get(cert), self.items.get(key)) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                // Told both, when both are wrong.
                let cert_file = self.file(cert, "certificate");
                let key_file = self.file(key, "key");
                return self.identity_of((cert, cert_file?), (key, key_file?));
            }
            (Some(_), None) => (cert, key),
            (None, Some(_)) => (key, cert),
        };
        let what = format!("{} is missing", without.path());
        let help = "a certificate and its key belong together: name both files";
        self.refuse(with, &what, help);
        None
    }

    fn identity_of(
        &mut self,
        (cert, cert_file): (Key, PathBuf),
        (key, key_file): (Key, PathBuf),
    ) -> Option<Identity> {
        let identity = match Identity::read(&cert_file, &key_file) {
            Ok(identity) => identity,
            Err(error) => {
                let at_fault = if error.path() == Some(&key_file) {
                    key
                } else {
                    cert
                };
                self.unfit(at_fault, &error);
                return None;
            }
        };
        if identity.is_key_open {
            self.warnings.push(format!(
                "everybody on this machine can read the key in {}: chmod 600 it",
                printable_path(&key_file)
            ));
        }
        if let Some(fault) = fault(&identity.validity) {
            self.warnings.push(format!("{}: {fault}", cert.path()));
        }
        if let Some(end) = identity.ended_behind {
            self.warnings.push(format!(
                "{}: behind the first certificate in {} there is one that has expired ({}): who needs it accepts neither. \
                 Take it out if nobody does, or write the new one there",
                cert.path(),
                printable_path(&cert_file),
                rfc3339(end)
            ));
        }
        Some(identity)
    }

    fn roots(&mut self, key: Key) -> Option<Roots> {
        let file = self.file(key, "authority's certificate")?;
        match Roots::read(&file) {
            Ok(roots) => Some(roots),
            Err(error) => {
                self.unfit(key, &error);
                None
            }
        }
    }

    /// The path that is named, if one is.
    fn file(&mut self, key: Key, noun: &'static str) -> Option<PathBuf> {
        let places = Places {
            noun,
            username: None,
            key,
            file: self.items.get(key),
            variable: "",
            value: None,
            variable_first: false,
            credentials: self.environment.credentials.as_deref(),
            credential: "",
        };
        match places.named() {
            Ok(named) => named,
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    fn unfit(&mut self, key: Key, error: &MaterialError) {
        let help = match error {
            MaterialError::Unreadable { path, source } => &when_unreadable(path, source),
            MaterialError::Mismatch { .. } => {
                "name the key that the certificate was made for; after a renewal both files are new"
            }
            MaterialError::Order { .. } => {
                "write the certificate of the key first, and those that vouch for it behind it"
            }
            _ => "name a PEM file (\"-----BEGIN ...\")",
        };
        self.refuse(key, &printable_whole(&error.to_string()), help);
    }

    fn refuse(&mut self, key: Key, what: &str, help: &str) {
        Values::new(self.items, self.problems).refuse(key, what, help);
    }
}

fn server_name(written: &str) -> Result<ServerName<'static>, super::value::Refusal> {
    let help = "write the name (or the IP address) that stands in the servers' certificates";
    let host = Host::parse(written).map_err(|e| {
        let what = format!("\"{}\" is no name: {e}", printable(written));
        text::refusal(what, help)
    })?;
    match host {
        Host::Ip(ip) => Ok(ip.into()),
        Host::Name(name) => ServerName::try_from(name).map_err(|e| {
            let what = format!("\"{}\" is no name: {e}", printable(written));
            text::refusal(what, help)
        }),
    }
}

/// What both ends of a comparison have.
pub(super) trait Made {
    fn identity(&self) -> Option<Fingerprint>;
    fn roots(&self) -> Option<Fingerprint>;
}

impl Made for Connector {
    fn identity(&self) -> Option<Fingerprint> {
        self.identity()
    }

    fn roots(&self) -> Option<Fingerprint> {
        self.roots()
    }
}

impl Made for Acceptor {
    fn identity(&self) -> Option<Fingerprint> {
        Some(self.identity())
    }

    fn roots(&self) -> Option<Fingerprint> {
        self.roots()
    }
}

/// What is in the file of this key is another, wherever it is kept. A key is new with its certificate.
pub(super) fn changed<M: Made>(key: Key, old: Option<&M>, new: Option<&M>) -> bool {
    let (Some(old), Some(new)) = (old, new) else {
        return false;
    };
    match key {
        Key::SentinelCertFile | Key::UpstreamTlsCertFile | Key::ClientTlsCertFile => {
            old.identity() != new.identity()
        }
        // Where nobody is asked any more who is to be believed, another key says so.
        _ => old
            .roots()
            .zip(new.roots())
            .is_some_and(|(old, new)| old != new),
    }
}

/// A certificate that is new and of no use now: what is in force is better.
pub(super) fn unusable(key: Key, new: &Loaded, entry: usize) -> Option<Problem> {
    let proxy = &new.config.proxies[entry];
    let validity = match key {
        Key::SentinelCertFile => new.config.sentinel.tls.as_ref()?.validity()?,
        Key::UpstreamTlsCertFile => proxy.upstream_tls.as_ref()?.validity()?,
        Key::ClientTlsCertFile => proxy.listener.tls.as_ref()?.validity(),
        _ => return None,
    };
    let help = "write a valid certificate and its key there, and reload again";
    let fault = fault(validity)?;
    let what = format!("{}: {fault}", key.path());
    Some(new.problem(key, entry, what, help))
}

/// Why nobody accepts it now.
fn fault(validity: &Validity) -> Option<String> {
    // Before 1970 nothing was over.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let file = printable_path(&validity.path);
    if validity.is_over(now) {
        let end = validity.until();
        Some(format!(
            "the certificate in {file} has expired ({end}), and nobody accepts it"
        ))
    } else if validity.is_to_come(now) {
        let begin = validity.from();
        Some(format!(
            "the certificate in {file} is not valid yet (from {begin}), and nobody accepts it before"
        ))
    } else {
        None
    }
}
