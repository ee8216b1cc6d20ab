//! Our side of a handshake with a server: a master, a replica, a Sentinel.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
    client::WebPkiServerVerifier,
};

use super::{Fingerprint, Identity, OUTGOING_MAX, Roots, Sealed, TlsError, Validity, provider};
use crate::net::addr::Host;
use crate::net::stream::Stream;

/// Longest a server takes for its part of the handshake, behind the connection: a server on its way through a thundering herd needs
/// a millisecond for each.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(1);

/// Whom a server has to prove to be.
#[derive(Clone, Debug)]
pub enum Verify {
    /// Whom one of these authorities vouches for.
    Against(Roots),
    /// Anybody. What is said to it is encrypted, for whoever it is.
    Nobody,
}

/// Where a leg is configured, for those who are told to look there.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `[sentinel]`
    pub table: &'static str,
    /// The authorities; `None` are those of this machine.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How servers of one leg are met. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    origin: Option<Arc<Origin>>,
    validity: Option<Validity>,
    same: Same,
}

/// Two with the same of this do the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Same {
    roots: Option<Fingerprint>,
    identity: Option<Fingerprint>,
    server_name: Option<ServerName<'static>>,
}

impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        self.same == other.same
    }
}

impl Connector {
    /// Meets servers that prove what is asked, as `identity` where they want to know, under `server_name` or else the name
    /// that was dialled.
    ///
    /// # Errors
    /// When the authorities are of no use.
    pub fn new(
        verify: &Verify,
        identity: Option<&Identity>,
        server_name: Option<ServerName<'static>>,
    ) -> Result<Self, TlsError> {
        let same = Same {
            roots: match verify {
                Verify::Against(roots) => Some(roots.fingerprint),
                Verify::Nobody => None,
            },
            identity: identity.map(|identity| identity.fingerprint),
            server_name: server_name.clone(),
        };
        let unfit = |e: &dyn std::fmt::Display| TlsError::of_configuration(e);
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| unfit(&e))?;
        let builder = match verify {
            Verify::Against(roots) => {
                let store = Arc::clone(&roots.store);
                let verifier = WebPkiServerVerifier::builder_with_provider(store, provider());
                builder.with_webpki_verifier(verifier.build().map_err(|e| unfit(&e))?)
            }
            Verify::Nobody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody)),
        };
        let config = match identity {
            Some(identity) => {
                let resolver = SingleCertAndKey::from(Arc::clone(&identity.certified));
                builder.with_client_cert_resolver(Arc::new(resolver))
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self {
            config: Arc::new(config),
            server_name,
            origin: None,
            validity: identity.map(|identity| identity.validity.clone()),
            same,
        })
    }

    /// The same, of this place in the configuration: what is said of it names that.
    pub fn of(self, origin: Origin) -> Self {
        let origin = Some(Arc::new(origin));
        Self { origin, ..self }
    }

    /// Where it is configured, if it is.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_deref()
    }

    /// The table that it is configured in.
    pub fn table(&self) -> Option<&'static str> {
        self.origin().map(|origin| origin.table)
    }

    /// Whoever answers is believed.
    pub const fn believes_all(&self) -> bool {
        self.same.roots.is_none()
    }

    /// Of our own certificate and key, if we have them here.
    pub const fn identity(&self) -> Option<Fingerprint> {
        self.same.identity
    }

    /// Of the authorities that are believed.
    pub const fn roots(&self) -> Option<Fingerprint> {
        self.same.roots
    }

    /// Until when our own certificate is valid, if we have one here.
    pub const fn validity(&self) -> Option<&Validity> {
        self.validity.as_ref()
    }

    /// The same for a server that is dialled at an address of this host: where no name is set, its certificate has to be for the host.
    pub fn of_host(&self, host: &Host) -> Self {
        let mut this = self.clone();
        // A host that no certificate can be for is met as what was dialled.
        this.server_name = self.server_name.clone().or_else(|| name_of(host).ok());
        this
    }

    /// What a client needs that waits for what it reads (the local topology's).
    ///
    /// # Errors
    /// When no certificate can be for this host.
    pub fn session(&self, host: &Host) -> Result<ClientConnection, TlsError> {
        let name = self.name(host)?;
        let session = ClientConnection::new(Arc::clone(&self.config), name);
        session.map_err(|e| TlsError::of_configuration(&e))
    }

    fn name(&self, host: &Host) -> Result<ServerName<'static>, TlsError> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => name_of(host),
        }
    }

    /// Shakes hands over a connection to `host`. What it returns has been sent no byte of ours. Dropping the future gives up.
    ///
    /// # Errors
    /// When the server does not prove to be who it has to be, or does not speak TLS.
    pub async fn connect(&self, stream: Stream, host: &Host) -> Result<Stream, TlsError> {
        let name = self.name(host)?;
        let connecting =
            TlsConnector::from(Arc::clone(&self.config)).connect_with(name, stream, |session| {
                session.set_buffer_limit(Some(OUTGOING_MAX));
            });
        // A handshake has more state than a session should carry about for it.
        match timeout(HANDSHAKE_LIMIT, Box::pin(connecting)).await {
            Ok(Ok(stream)) => Ok(Sealed::stream(stream)),
            Ok(Err(error)) => Err(TlsError::of_handshake(&error).in_table(self.table())),
            Err(_) => Err(TlsError::late(HANDSHAKE_LIMIT)),
        }
    }
}

/// What a certificate of this host has to be for.
fn name_of(host: &Host) -> Result<ServerName<'static>, TlsError> {
    match host {
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| {
            TlsError::of_configuration(&format!(
                "\"{name}\" is no name that a certificate can be for: set server_name"
            ))
        }),
    }
}

/// Believes that a server is who it says; not that it has the key of the certificate it shows, which it has to prove.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = provider();
        verify_tls12_signature(
            message,
            cert,
            dss,
            &provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = provider();
        verify_tls13_signature(
            message,
            cert,
            dss,
            &provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
