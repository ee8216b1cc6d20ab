//! Our side of a handshake with a client.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{Error, ServerConfig};

use super::{Fingerprint, Identity, OUTGOING_MAX, Roots, Sealed, TlsError, Validity, provider};
use crate::net::stream::Stream;

/// Longest a client takes for its part of the handshake. One on a bad line needs a second or two.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for a client that was turned away to end its connection.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// How the two versions of the PROXY protocol begin.
const PROXY_V1: &[u8] = b"PROXY ";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// How clients are met. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    validity: Validity,
    same: (Fingerprint, Option<Fingerprint>),
}

impl PartialEq for Acceptor {
    fn eq(&self, other: &Self) -> bool {
        self.same == other.same
    }
}

impl Acceptor {
    /// Meets clients as `identity`. With `clients` each has to show a certificate that one of these authorities vouches for.
    ///
    /// # Errors
    /// When the authorities are of no use.
    pub fn new(identity: &Identity, clients: Option<&Roots>) -> Result<Self, TlsError> {
        let unfit = |e: &dyn std::fmt::Display| TlsError::of_configuration(e);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| unfit(&e))?;
        let builder = match clients {
            Some(roots) => {
                let store = Arc::clone(&roots.store);
                let verifier = WebPkiClientVerifier::builder_with_provider(store, provider());
                builder.with_client_cert_verifier(verifier.build().map_err(|e| unfit(&e))?)
            }
            None => builder.with_no_client_auth(),
        };
        let resolver = SingleCertAndKey::from(Arc::clone(&identity.certified));
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        if clients.is_some() {
            // A session that is resumed takes the certificate of the one before for good, and that may have ended since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Self {
            config: Arc::new(config),
            validity: identity.validity.clone(),
            same: (identity.fingerprint, clients.map(|roots| roots.fingerprint)),
        })
    }

    /// Clients have to prove who they are.
    pub const fn demands_certificates(&self) -> bool {
        self.same.1.is_some()
    }

    /// Of our own certificate and key.
    pub const fn identity(&self) -> Fingerprint {
        self.same.0
    }

    /// Of the authorities that vouch for clients.
    pub const fn roots(&self) -> Option<Fingerprint> {
        self.same.1
    }

    /// Until when our own certificate is valid.
    pub const fn validity(&self) -> &Validity {
        &self.validity
    }

    /// Shakes hands with a client. Dropping the future closes its connection.
    ///
    /// # Errors
    /// See [`TurnedAway`].
    pub async fn accept(&self, stream: Stream) -> Result<Stream, TurnedAway> {
        let accepting = async {
            if !stream.hears_something().await {
                return Err(TurnedAway::at_once(None));
            }
            if begins_with_proxy_header(&stream) {
                return Err(TurnedAway {
                    why: Some(Refused::ProxyHeader),
                    stream: Some(stream),
                });
            }
            let accepting =
                TlsAcceptor::from(Arc::clone(&self.config)).accept_with(stream, |session| {
                    session.set_buffer_limit(Some(OUTGOING_MAX));
                });
            let accepted = accepting.into_fallible().await;
            accepted.map_err(|(error, stream)| TurnedAway {
                why: Some(Refused::of(&error)),
                stream: Some(stream),
            })
        };
        match timeout(HANDSHAKE_LIMIT, accepting).await {
            Ok(accepted) => accepted.map(Sealed::stream),
            Err(_) => Err(TurnedAway::at_once(Some(Refused::Late))),
        }
    }
}

/// Told from other words that are no TLS if it came in one packet, as balancers send it.
fn begins_with_proxy_header(stream: &Stream) -> bool {
    let mut said = [0; PROXY_V2.len()];
    let peeked = stream.peek(&mut said);
    let said = &said[..peeked];
    said.starts_with(PROXY_V1) || said.starts_with(PROXY_V2)
}

/// A client that is not served.
#[derive(Debug)]
pub struct TurnedAway {
    /// `None` is one of whom there is nothing to tell: it came and left without a word, as a health check does.
    pub why: Option<Refused>,
    stream: Option<Stream>,
}

impl TurnedAway {
    /// One of whom no leave is taken.
    pub const fn at_once(why: Option<Refused>) -> Self {
        Self { why, stream: None }
    }

    /// Takes leave of it, once it was told why: closing with unread input would make the kernel send RST, which destroys what it was told.
    /// Takes a second at the most.
    pub async fn leave(self) {
        let Some(mut stream) = self.stream else {
            return;
        };
        let leaving = async {
            if poll_fn(|cx| stream.poll_shutdown(cx)).await.is_ok() {
                let mut unheard = [0; 1024];
                while let Ok(1..) = poll_fn(|cx| stream.poll_read(cx, &mut unheard)).await {}
            }
        };
        // What it hears of it then is up to it.
        let _ = timeout(LEAVE_LIMIT, leaving).await;
    }
}

/// Why a client that came in on a TLS port is closed before it is served. Public interface, as words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not speak TLS.
    NotTls,
    /// It begins with a header of the PROXY protocol, and is none of those from which one is expected.
    ProxyHeader,
    /// It was not through with its part in time.
    Late,
    /// It went before that.
    Left,
    /// So many are at it that one of them had to go, and it was there longest.
    Crowded,
    /// It has no certificate, and one is demanded.
    NoCertificate,
    /// Its certificate is not one that is believed.
    BadCertificate,
    /// It does not believe our certificate, or takes offence at something else.
    Declined,
    /// It speaks no version or cipher that is spoken here.
    Incompatible,
    /// It breaks the rules.
    Misbehaved,
}

impl Refused {
    /// Each once, in the order of their indices.
    pub const ALL: [Self; 10] = [
        Self::NotTls,
        Self::ProxyHeader,
        Self::Late,
        Self::Left,
        Self::Crowded,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::Declined,
        Self::Incompatible,
        Self::Misbehaved,
    ];

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::ProxyHeader => "proxy_header",
            Self::Late => "timeout",
            Self::Left => "left",
            Self::Crowded => "crowded",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::Declined => "declined",
            Self::Incompatible => "incompatible",
            Self::Misbehaved => "misbehaved",
        }
    }

    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NotTls => {
                "it does not speak TLS; clients of this entry need it (`client_tls`), for example redis-cli --tls"
            }
            Self::ProxyHeader => {
                "it sent a header of the PROXY protocol, which is not expected from it: name it in `proxy_protocol_from`, or \
                 switch that off at the load balancer before it"
            }
            Self::Late => "it was not through with the handshake in 10 s",
            Self::Left => "it went before the end of the handshake",
            Self::Crowded => "too many handshakes were under way, and its was the oldest",
            Self::NoCertificate => "it has shown no certificate, and `client_ca_file` demands one",
            Self::BadCertificate => {
                "its certificate is expired, or not of an authority in `client_ca_file`"
            }
            Self::Declined => {
                "it does not accept our certificate: does it know the authority that signed `cert_file`, and the name it connects to?"
            }
            Self::Incompatible => "it speaks no TLS 1.2 or 1.3 with a cipher that is offered",
            Self::Misbehaved => "it broke the rules of TLS",
        }
    }

    fn of(error: &io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|e| e.downcast_ref::<Error>()) else {
            return Self::Left;
        };
        match error {
            Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => Self::NotTls,
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => {
                Self::BadCertificate
            }
            Error::AlertReceived(_) => Self::Declined,
            Error::PeerIncompatible(_) => Self::Incompatible,
            _ => Self::Misbehaved,
        }
    }
}
