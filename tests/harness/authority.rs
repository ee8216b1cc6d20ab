//! Certificates made for one test: an authority, and what it signs, as files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Signs whatever it is asked to.
pub(crate) struct Authority {
    folder: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// One whose files are in this folder and begin with this name.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self::until(folder, name, SystemTime::now() + 3650 * DAY)
    }

    /// One whose own certificate ends then.
    pub(crate) fn until(folder: &Path, name: &str, end: SystemTime) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.not_before = (SystemTime::now() - 3650 * DAY).into();
        params.not_after = end.into();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        let this = Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            issuer: Issuer::new(params, key),
        };
        fs::write(this.file(), certificate.pem()).expect("written");
        this
    }

    /// Its own certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// A certificate for these names and addresses, good for a year.
    pub(crate) fn sign(&self, file: &str, names: &[&str]) -> Pair {
        self.sign_until(file, names, SystemTime::now() + 365 * DAY)
    }

    /// One that was good until yesterday.
    pub(crate) fn sign_expired(&self, file: &str, names: &[&str]) -> Pair {
        self.sign_until(file, names, SystemTime::now() - DAY)
    }

    /// One that ends then.
    pub(crate) fn sign_until(&self, file: &str, names: &[&str], end: SystemTime) -> Pair {
        self.sign_between(file, names, SystemTime::now() - 60 * DAY, end)
    }

    /// One that begins and ends then.
    pub(crate) fn sign_between(
        &self,
        file: &str,
        names: &[&str],
        begin: SystemTime,
        end: SystemTime,
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, file);
        params.not_before = begin.into();
        params.not_after = end.into();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let pair = Pair {
            cert: self.folder.join(format!("{file}.crt")),
            key: self.folder.join(format!("{file}.key")),
        };
        fs::write(&pair.cert, certificate.pem()).expect("written");
        fs::write(&pair.key, key.serialize_pem()).expect("written");
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).expect("mode");
        pair
    }
}
