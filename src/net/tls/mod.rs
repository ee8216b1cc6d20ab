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

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

pub use acceptor::{Acceptor, Refused};
pub use connector::{Connector, Verify};
pub use fault::TlsError;
pub use material::{Fingerprint, Identity, MaterialError, Roots, Validity};
pub use sealed::Sealed;
pub use tokio_rustls::rustls::pki_types::ServerName;

/// Most bytes that one connection holds back for a peer that does not take them, behind those that the session itself spills: as
/// many as are read at once, so that one read goes out in one write.
const OUTGOING_MAX: usize = 32 * 1024;

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}
