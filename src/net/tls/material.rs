//! Certificates and keys, as they are in files.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_cert::der::Decode;
use zeroize::Zeroizing;

use super::provider;

/// Largest file that is read; a bundle of every authority there is has 250 KiB.
const FILE_MAX: u64 = 1024 * 1024;
/// Readable by "others", in the mode of a file.
const WORLD_READABLE: u32 = 0o004;

/// What is wrong with a file. Each names it.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// The kernel does not give it.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No file of this kind is so large.
    #[error("{} is larger than 1 MiB", .0.display())]
    TooLarge(PathBuf),
    /// It is no PEM.
    #[error("{} is not PEM: {reason}", path.display())]
    NotPem {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It has other things in it.
    #[error("there is no {what} in {}", path.display())]
    Without {
        /// Which file.
        path: PathBuf,
        /// What it was to hold.
        what: &'static str,
    },
    /// It is PEM, and what is in it is no certificate or key that is understood.
    #[error("{}: {reason}", path.display())]
    Unfit {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The key is another certificate's.
    #[error("the key in {} does not fit the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// The key is that of a certificate that does not come first.
    #[error(
        "the key in {} fits certificate {place} of {}, which has to come first in it",
        key.display(), cert.display()
    )]
    Order {
        /// The key's file.
        key: PathBuf,
        /// The certificates' file.
        cert: PathBuf,
        /// Which one in it, from 1.
        place: usize,
    },
    /// This machine trusts nobody.
    #[error("this machine has no certificate authorities: {0}")]
    NoNativeRoots(String),
}

impl MaterialError {
    /// Which file is at fault, or the first of them.
    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Unreadable { path, .. }
            | Self::TooLarge(path)
            | Self::NotPem { path, .. }
            | Self::Without { path, .. }
            | Self::Unfit { path, .. }
            | Self::Mismatch { key: path, .. }
            | Self::Order { cert: path, .. } => Some(path),
            Self::NoNativeRoots(_) => None,
        }
    }
}

/// Says whether what was read is what was read before; of no use to whoever wants to know what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

/// From when until when a certificate is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The file that it is in.
    pub path: PathBuf,
    /// Since the Unix epoch.
    pub not_before: Duration,
    /// Since the Unix epoch.
    pub not_after: Duration,
}

impl Validity {
    /// It is over at this time since the Unix epoch.
    pub fn is_over(&self, now: Duration) -> bool {
        self.not_after < now
    }

    /// It has not begun at this time since the Unix epoch.
    pub fn is_to_come(&self, now: Duration) -> bool {
        now < self.not_before
    }

    /// Until when, for people.
    pub fn until(&self) -> impl std::fmt::Display + use<> {
        rfc3339(self.not_after)
    }

    /// From when, for people.
    pub fn from(&self) -> impl std::fmt::Display + use<> {
        rfc3339(self.not_before)
    }
}

/// A time since the Unix epoch, for people.
pub fn rfc3339(time: Duration) -> impl std::fmt::Display + use<> {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + time)
}

/// A certificate, those between it and its authority, and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
    /// Of the certificate. It ends with the first of those behind it that had not ended when they were read: whoever needs that one
    /// accepts neither from then on.
    pub validity: Validity,
    /// When one of those behind it had ended before that. Where that is a root that has another certificate by now, nobody needs it.
    pub ended_behind: Option<Duration>,
    /// Of the certificates and the key.
    pub fingerprint: Fingerprint,
    /// Everybody on this machine can read the key.
    pub is_key_open: bool,
}

impl Identity {
    /// Reads both files.
    ///
    /// # Errors
    /// When one cannot be used, or they do not belong together.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, MaterialError> {
        let (text, _) = read(cert)?;
        let chain = certificates(cert, &text)?;
        let (secret, is_key_open) = read(key)?;
        let fingerprint = fingerprint(&[&text, &secret]);
        let parsed = PrivateKeyDer::from_pem_slice(&secret).map_err(|e| match e {
            pem::Error::NoItemsFound => MaterialError::Without {
                path: key.to_owned(),
                what: "private key (without a passphrase)",
            },
            e => not_pem(key, &e),
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        // Before 1970 nothing had ended.
        let now = now.unwrap_or_default();
        let mut times = chain.iter().map(|certificate| times(cert, certificate));
        // There is one, or it would have been refused above.
        let (not_before, mut not_after) = times.next().unwrap_or(Ok((now, now)))?;
        let mut ended_behind = None;
        for times in times {
            match times? {
                (_, end) if end < now => ended_behind = ended_behind.max(Some(end)),
                (_, end) => not_after = not_after.min(end),
            }
        }
        let validity = Validity {
            path: cert.to_owned(),
            not_before,
            not_after,
        };
        let unfit = |reason: String| MaterialError::Unfit {
            path: key.to_owned(),
            reason,
        };
        let signer = provider()
            .key_provider
            .load_private_key(parsed)
            .map_err(|e| unfit(format!("cannot use this private key: {e}")))?;
        let certified = CertifiedKey::new(chain, signer);
        if certified.keys_match().is_err() {
            let (key, cert) = (key.to_owned(), cert.to_owned());
            return Err(match place_of(&certified) {
                Some(place) => MaterialError::Order { key, cert, place },
                None => MaterialError::Mismatch { key, cert },
            });
        }
        Ok(Self {
            certified: Arc::new(certified),
            validity,
            ended_behind,
            fingerprint,
            is_key_open,
        })
    }
}

/// Which certificate of the chain is that of the key, from 1.
fn place_of(certified: &CertifiedKey) -> Option<usize> {
    let fits = |certificate: &CertificateDer<'static>| {
        let alone = CertifiedKey::new(vec![certificate.clone()], Arc::clone(&certified.key));
        alone.keys_match().is_ok()
    };
    certified.cert.iter().position(fits).map(|at| at + 1)
}

/// The authorities that are believed.
#[derive(Clone, Debug)]
pub struct Roots {
    pub(super) store: Arc<RootCertStore>,
    /// Of their certificates.
    pub fingerprint: Fingerprint,
    /// In words: whose they are.
    pub whose: String,
}

impl Roots {
    /// Those in this file, and nobody else.
    ///
    /// # Errors
    /// When there is none that can be used.
    pub fn read(path: &Path) -> Result<Self, MaterialError> {
        let (text, _) = read(path)?;
        let mut store = RootCertStore::empty();
        for certificate in certificates(path, &text)? {
            store.add(certificate).map_err(|e| MaterialError::Unfit {
                path: path.to_owned(),
                reason: format!("cannot use this certificate authority: {e}"),
            })?;
        }
        Ok(Self {
            store: Arc::new(store),
            fingerprint: fingerprint(&[&text]),
            whose: path.display().to_string(),
        })
    }

    /// Those that this machine trusts.
    ///
    /// # Errors
    /// When there are none.
    pub fn native() -> Result<Self, MaterialError> {
        let found = rustls_native_certs::load_native_certs();
        let mut hasher = DefaultHasher::new();
        found.certs.hash(&mut hasher);
        let mut store = RootCertStore::empty();
        // Some machines have one or two that nobody can use; the others count all the same.
        let (added, _) = store.add_parsable_certificates(found.certs);
        if added == 0 {
            let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
            let why = if errors.is_empty() {
                "install ca-certificates, or name a file".to_owned()
            } else {
                errors.join(", ")
            };
            return Err(MaterialError::NoNativeRoots(why));
        }
        Ok(Self {
            store: Arc::new(store),
            fingerprint: Fingerprint(hasher.finish()),
            whose: "those of this machine".to_owned(),
        })
    }
}

/// What a file holds, and whether everybody may read it. Wiped when dropped: it may be a key.
fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, bool), MaterialError> {
    let unreadable = |source| MaterialError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let is_open = metadata.is_file() && metadata.mode() & WORLD_READABLE != 0;
    // Of one size, so that no half of it is left behind where it grew.
    let size = usize::try_from(metadata.len().min(FILE_MAX)).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(MaterialError::TooLarge(path.to_owned()));
    }
    Ok((bytes, is_open))
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|e| not_pem(path, &e))?;
    if found.is_empty() {
        return Err(MaterialError::Without {
            path: path.to_owned(),
            what: "certificate",
        });
    }
    Ok(found)
}

/// The library repeats the line that it did not understand, which may be a part of a key.
fn not_pem(path: &Path, error: &pem::Error) -> MaterialError {
    let reason = match error {
        pem::Error::MissingSectionEnd { .. } => "a section does not end",
        pem::Error::IllegalSectionStart { .. } => {
            "a section begins with a line that says not what it is"
        }
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be taken apart",
    };
    MaterialError::NotPem {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

/// From when until when it is valid, since the Unix epoch.
fn times(path: &Path, der: &CertificateDer<'_>) -> Result<(Duration, Duration), MaterialError> {
    let certificate = x509_cert::Certificate::from_der(der).map_err(|e| MaterialError::Unfit {
        path: path.to_owned(),
        reason: format!("not a certificate: {e}"),
    })?;
    let validity = certificate.tbs_certificate.validity;
    let [begin, end] =
        [validity.not_before, validity.not_after].map(|time| time.to_unix_duration());
    Ok((begin, end))
}

fn fingerprint(contents: &[&[u8]]) -> Fingerprint {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    Fingerprint(hasher.finish())
}
