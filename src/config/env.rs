//! Reads the environment into what was written. The environment itself is handed in.

use std::ffi::OsString;
use std::path::PathBuf;

use secrecy::SecretString;

use super::problem::{Error, Problem, Source, nearest, printable};
use super::schema::{
    ENV_ADMIN_TOKEN, ENV_ALIASES, ENV_CONFIG, ENV_LOGIN_PASSWORD, ENV_PREFIX, ENV_PROBE_PASSWORD,
    ENV_SENTINEL_PASSWORD, ENV_URL, Key,
};
use super::url;
use super::written::{Item, Items, Raw};

/// Set by systemd for a unit with `LoadCredential=` (systemd.exec(5)).
const ENV_CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Who holds the password of the proxy's own ROLE checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProbeVariable(pub(super) &'static str);

impl Default for ProbeVariable {
    fn default() -> Self {
        Self(ENV_PROBE_PASSWORD)
    }
}

/// What the environment says.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// `SWITCHMASTER_CONFIG`
    pub(super) config: Option<PathBuf>,
    /// The twins, those of `[[proxy]]` keys among them.
    pub(super) items: Items,
    /// `SWITCHMASTER_SENTINEL_PASSWORD`
    pub(super) sentinel_password: Option<SecretString>,
    /// `SWITCHMASTER_PROXY_PROBE_PASSWORD`
    pub(super) probe_password: Option<SecretString>,
    /// The variable that it came from, if any.
    pub(super) probe_password_variable: ProbeVariable,
    /// `SWITCHMASTER_PROXY_LOGIN_PASSWORD`
    pub(super) login_password: Option<SecretString>,
    /// `SWITCHMASTER_ADMIN_TOKEN`
    pub(super) admin_token: Option<SecretString>,
    /// Where systemd put credentials.
    pub(super) credentials: Option<PathBuf>,
    /// What looks like a mistake and does no harm.
    pub(super) warnings: Vec<String>,
}

/// Takes what is ours. An empty variable counts as not set: that is how compose files and unit files say "nothing".
///
/// # Errors
/// When one is not text, or two that mean the same key differ.
pub(super) fn read(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Environment, Error> {
    let mut environment = Environment::default();
    let mut problems = Vec::new();
    let mut url = None;
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        if value.is_empty() {
            continue;
        }
        if name == ENV_CREDENTIALS {
            environment.credentials = Some(PathBuf::from(value));
        } else if name == ENV_CONFIG {
            environment.config = Some(PathBuf::from(value));
        } else if name == ENV_URL {
            url = Some(value);
        } else if name.starts_with(ENV_PREFIX)
            && let Err(problem) = environment.take(name, value)
        {
            problems.push(problem);
        }
    }
    // Behind all others, as it says what they may say.
    if let Some(value) = url
        && let Err(problem) =
            text(ENV_URL, value).and_then(|value| url::from_variable(&value, &mut environment))
    {
        problems.push(problem);
    }
    if problems.is_empty() {
        Ok(environment)
    } else {
        Err(Error::new(problems))
    }
}

impl Environment {
    fn take(&mut self, name: &str, value: OsString) -> Result<(), Problem> {
        let source = Source::Env(name.to_owned());
        let value = text(name, value)?;
        match name {
            ENV_SENTINEL_PASSWORD => self.sentinel_password = Some(value.into()),
            ENV_PROBE_PASSWORD => self.probe_password = Some(value.into()),
            ENV_LOGIN_PASSWORD => self.login_password = Some(value.into()),
            ENV_ADMIN_TOKEN => self.admin_token = Some(value.into()),
            _ => match key_of(name) {
                Some(key) => self.take_key(key, value, source)?,
                None => self.warnings.push(unknown(name)),
            },
        }
        Ok(())
    }

    fn take_key(&mut self, key: Key, value: String, source: Source) -> Result<(), Problem> {
        if let Some(Item {
            raw: Raw::Text(other_value),
            source: other,
        }) = self.items.get(key)
            && *other_value != value
        {
            return Err(Problem::at(
                &source,
                format!("{source} and {other} mean the same key and differ"),
                "unset one of them",
            ));
        }
        self.items.set(key, Item::text(value, source));
        Ok(())
    }
}

/// The value is not repeated: it may be a secret.
fn text(name: &str, value: OsString) -> Result<String, Problem> {
    value.into_string().map_err(|_| {
        Problem::at(
            &Source::Env(name.to_owned()),
            format!("{name} is not UTF-8 text"),
            "set it to plain text",
        )
    })
}

fn key_of(name: &str) -> Option<Key> {
    ENV_ALIASES
        .into_iter()
        .find_map(|(alias, key)| (alias == name).then_some(key))
        .or_else(|| Key::ALL.into_iter().find(|key| key.env() == name))
}

fn unknown(name: &str) -> String {
    let known: Vec<String> = Key::ALL
        .into_iter()
        .map(Key::env)
        .chain(ENV_ALIASES.map(|(alias, _)| alias.to_owned()))
        .chain(
            [
                ENV_CONFIG,
                ENV_URL,
                ENV_SENTINEL_PASSWORD,
                ENV_PROBE_PASSWORD,
                ENV_LOGIN_PASSWORD,
                ENV_ADMIN_TOKEN,
            ]
            .map(str::to_owned),
        )
        .collect();
    // All names share the prefix, which would make all of them look near.
    let bare = name.strip_prefix(ENV_PREFIX).unwrap_or(name);
    let near = nearest(
        bare,
        known.iter().filter_map(|k| k.strip_prefix(ENV_PREFIX)),
    );
    let shown = printable(name);
    match near {
        Some(near) => format!(
            "the environment variable {shown} means nothing here; did you mean {ENV_PREFIX}{near}?"
        ),
        None => format!("the environment variable {shown} means nothing here"),
    }
}
