//! Passwords and the like: from the environment, a file or systemd's credentials; never from the command line.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::problem::{Problem, Source, printable_path};
use super::schema::Key;
use super::written::{Item, Items, Raw};
use super::{Loaded, Written};

/// Longest password file read; a password longer than this is another file.
const MAX_SECRET_BYTES: u64 = 64 * 1024;
/// What stands before the name of a credential in the place of a path.
const CREDENTIAL: &str = "credential:";
/// Permission bits for everybody else.
const WORLD_READABLE: u32 = 0o004;

/// Keys that name a file with a secret, and what that is.
const HOLDERS: [(Key, &str); 7] = [
    (Key::SentinelPasswordFile, "password"),
    (Key::ProbePasswordFile, "password"),
    (Key::LoginPasswordFile, "password"),
    (Key::AdminTokenFile, "token"),
    (Key::SentinelKeyFile, "key"),
    (Key::ClientTlsKeyFile, "key"),
    (Key::UpstreamTlsKeyFile, "key"),
];

/// The places a password may be.
pub(super) struct Places<'a> {
    /// The word for it, in messages.
    pub(super) noun: &'static str,
    /// The user name it belongs to, if one was written.
    pub(super) username: Option<&'a Item>,
    /// The key that names a file, for messages.
    pub(super) key: Key,
    /// What was written for that key.
    pub(super) file: Option<&'a Item>,
    /// The variable that may hold the password itself.
    pub(super) variable: &'static str,
    /// What it holds.
    pub(super) value: Option<&'a SecretString>,
    /// True when the variable counts more than a file named in the configuration file.
    pub(super) variable_first: bool,
    /// Where systemd put credentials.
    pub(super) credentials: Option<&'a Path>,
    /// The one that is taken without being named.
    pub(super) credential: &'static str,
}

/// A password and who gave it.
pub(super) struct Password {
    /// The password itself.
    pub(super) secret: SecretString,
    /// Who gave it.
    pub(super) source: Source,
}

impl Places<'_> {
    /// The password, if there is one.
    ///
    /// # Errors
    /// When it is given twice, or its file cannot be read or is empty.
    pub(super) fn look(&self, warnings: &mut Vec<String>) -> Result<Option<Password>, Problem> {
        if let Some(secret) = self.value {
            if let Some(Item {
                source: other @ Source::Env(_),
                ..
            }) = self.file
            {
                return Err(Problem::at(
                    other,
                    format!("{} and {other} both give a {}", self.variable, self.noun),
                    "unset one of them",
                ));
            }
            if self.variable_first || self.file.is_none() {
                return Ok(Some(Password {
                    secret: secret.clone(),
                    source: Source::Env(self.variable.to_owned()),
                }));
            }
        }
        if let Some((item, name)) = self.file.and_then(|item| Some((item, credential(item)?))) {
            let path = self.passed(item, name)?;
            return self.read(&path, &item.source, warnings).map(Some);
        }
        if let Some(item) = self.file {
            let path = self.path(item)?;
            return self.read(&path, &item.source, warnings).map(Some);
        }
        match self.credentials.map(|folder| folder.join(self.credential)) {
            Some(path) if path.exists() => {
                let source = Source::Credential(path.clone());
                self.read(&path, &source, warnings).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The file that is named, which whoever asks reads.
    ///
    /// # Errors
    /// When it is a credential that was not passed, or no path.
    pub(super) fn named(&self) -> Result<Option<PathBuf>, Problem> {
        let Some(item) = self.file else {
            return Ok(None);
        };
        let path = match credential(item) {
            Some(name) => self.passed(item, name)?,
            None => self.path(item)?,
        };
        Ok(Some(path))
    }

    fn path(&self, item: &Item) -> Result<PathBuf, Problem> {
        path(item).ok_or_else(|| {
            Problem::at(
                &item.source,
                format!("{}: a path in quotes is needed", self.key.path()),
                format!("write \"/path/to/the/{}\"", self.noun),
            )
        })
    }

    fn read(
        &self,
        path: &Path,
        source: &Source,
        warnings: &mut Vec<String>,
    ) -> Result<Password, Problem> {
        read(path, source, (self.key, self.noun), warnings)
    }

    /// The file of a credential that was named.
    fn passed(&self, item: &Item, name: &str) -> Result<PathBuf, Problem> {
        let bad = |what: &str, help: String| {
            let what = format!("{}: {CREDENTIAL}{name}: {what}", self.key.path());
            Problem::at(&item.source, what, help)
        };
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(bad(
                "this is no name of a credential",
                "write the name that stands before the colon in LoadCredential=NAME:PATH"
                    .to_owned(),
            ));
        }
        let Some(folder) = self.credentials else {
            return Err(bad(
                "systemd passed no credentials (CREDENTIALS_DIRECTORY is not set)",
                format!(
                    "add LoadCredential={name}:/path/to/the/{} to the unit, or name a file. By hand, where a folder holds it \
                     in a file called {name}:\nCREDENTIALS_DIRECTORY=/etc/switchmaster switchmaster check --live",
                    self.noun
                ),
            ));
        };
        let path = folder.join(name);
        if !path.exists() {
            return Err(bad(
                "systemd passed no credential of this name",
                format!(
                    "add LoadCredential={name}:/path/to/the/{} to the unit",
                    self.noun
                ),
            ));
        }
        Ok(path)
    }
}

impl Loaded {
    /// The files that hold secrets, each with what that is. What systemd passes is not among them: it sees to who may read it.
    pub fn secret_files(&self) -> Vec<(&'static str, PathBuf)> {
        let Written {
            global, proxies, ..
        } = &self.written;
        let named = |items: &Items, key: Key, noun: &'static str| {
            let item = items.get(key).filter(|item| credential(item).is_none())?;
            Some((noun, path(item)?))
        };
        let mut files = Vec::new();
        for items in std::iter::once(global).chain(proxies) {
            files.extend(
                HOLDERS
                    .iter()
                    .filter_map(|(key, noun)| named(items, *key, noun)),
            );
        }
        files.sort();
        files.dedup();
        files
    }
}

/// What to do about a file that cannot be read.
pub(super) fn when_unreadable(path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return "the file must exist and be readable by the user that switchmaster runs as"
            .to_owned();
    }
    let path = printable_path(path);
    format!(
        "the user that switchmaster runs as may not read it. In the unit ([Service]): LoadCredential=NAME:{path} and here \
         \"credential:NAME\"\nor give it to a group (chgrp GROUP {path}; chmod 640 {path}), and in the unit SupplementaryGroups=GROUP"
    )
}

/// The name of a credential, where an item names one.
pub(super) fn credential(item: &Item) -> Option<&str> {
    match &item.raw {
        Raw::Text(text) => text.strip_prefix(CREDENTIAL),
        _ => None,
    }
}

/// The file an item names; beside the configuration file unless absolute, so that both move together.
pub(super) fn path(item: &Item) -> Option<PathBuf> {
    let Raw::Text(text) = &item.raw else {
        return None;
    };
    if text.is_empty() {
        return None;
    }
    let path = match &item.source {
        Source::File { text: file, .. } => {
            let folder = file.path.parent().unwrap_or_else(|| Path::new(""));
            folder.join(text)
        }
        _ => PathBuf::from(text),
    };
    // Absolute, so that what `config show` prints means the same elsewhere.
    Some(std::path::absolute(&path).unwrap_or(path))
}

fn read(
    path: &Path,
    source: &Source,
    (key, noun): (Key, &'static str),
    warnings: &mut Vec<String>,
) -> Result<Password, Problem> {
    let shown = printable_path(path);
    let bad =
        |what: String, help: &str| Problem::at(source, format!("{}: {what}", key.path()), help);
    let unreadable = |e| {
        bad(
            format!("cannot read the {noun} from {shown}: {e}"),
            &when_unreadable(path, &e),
        )
    };

    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_file() && metadata.mode() & WORLD_READABLE != 0 {
        warnings.push(format!(
            "everybody on this machine can read the {noun} in {shown}: chmod 600 it"
        ));
    }
    let mut secret = String::new();
    file.take(MAX_SECRET_BYTES + 1)
        .read_to_string(&mut secret)
        .map_err(unreadable)?;
    if secret.len() as u64 > MAX_SECRET_BYTES {
        return Err(bad(
            format!("{shown} is larger than 64 KiB"),
            &format!("this is hardly a {noun}: name its file"),
        ));
    }
    // Editors and `echo` end a file with a newline that nobody means.
    if secret.ends_with('\n') {
        secret.pop();
        if secret.ends_with('\r') {
            secret.pop();
        }
    }
    if secret.is_empty() {
        return Err(bad(
            format!("{shown} is empty"),
            &format!("write the {noun} into it, or leave the key out where none is needed"),
        ));
    }
    Ok(Password {
        secret: secret.into(),
        source: source.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_may_not_read_comes_with_ways_to_let_it() {
        let path = Path::new("/etc/switchmaster/sentinel_password");
        let denied = when_unreadable(path, &io::ErrorKind::PermissionDenied.into());
        for way in [
            "LoadCredential=NAME:/etc/switchmaster/sentinel_password",
            "\"credential:NAME\"",
            "SupplementaryGroups=GROUP",
        ] {
            assert!(denied.contains(way), "{denied}");
        }
        let missing = when_unreadable(path, &io::ErrorKind::NotFound.into());
        assert!(missing.contains("must exist"), "{missing}");
    }
}
