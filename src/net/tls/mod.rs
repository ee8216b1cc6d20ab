//! TLS on a leg: a handshake turns a [`Stream`](super::stream::Stream) into one that is encrypted ([`Sealed`]), and nobody behind that
//! has to know.
//!
//! ```text
//! files --material--> Identity, Roots --> Acceptor (we are the server) --accept()--+
//!                                     --> Connector (we are the client) -connect()-+--> Stream::Tls(Box<Sealed>)
//! ```
//!
//! One provider of cryptography, ring, named in every configuration: none is installed for the process, so none can be by accident.
//! A configuration is made once, from files that were read once; a reload makes a new one for new handshakes, and a connection
//! keeps what it was made with.

mod acceptor;
#[cfg(test)]
#[path = "../../../tests/harness/authority.rs"]
pub(crate) mod authority;
mod connector;
mod fault;
mod material;
mod sealed;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::{Arc, LazyLock};

use tokio_rustls::rustls::SupportedCipherSuite;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

pub use acceptor::{Acceptor, Refused, TurnedAway};
pub use connector::{Connector, Origin, Verify};
pub use fault::TlsError;
pub use material::{Fingerprint, Identity, MaterialError, Roots, Validity, rfc3339};
pub use sealed::Sealed;
pub use tokio_rustls::rustls::pki_types::ServerName;

/// Most bytes that one connection holds back for a peer that does not take them, behind those that the session itself spills: as
/// many as are read at once, so that one read goes out in one write.
const OUTGOING_MAX: usize = 32 * 1024;

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = ring::default_provider();
        // Servers take the first that they know, too. TLS 1.2 has no new keys for a connection whose old ones have seen so many
        // records as they may (AES-GCM: 2^24), and ends it, which ChaCha20 never has to.
        provider.cipher_suites.sort_by_key(|suite| match suite {
            SupportedCipherSuite::Tls13(_) => 0,
            SupportedCipherSuite::Tls12(suite)
                if suite.common.confidentiality_limit == u64::MAX =>
            {
                1
            }
            SupportedCipherSuite::Tls12(_) => 2,
        });
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}
