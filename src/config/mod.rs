//! What is run: each room's own `Config` put together. Resolved; cannot be illegal.
//!
//! ```text
//! flags  --\
//! env    ---+--> written (by key, with who wrote it) --resolve--> Config (typed, bounded, complete)
//! file   --/
//! ```
//! A flag counts more than the environment, that more than the file, that more than the default.
//! A reload reads all of it anew, and [`difference`] says what to do about it.
//! Never binds, dials or logs; the only files read are the configuration and those it names: passwords, certificates, keys.

mod admission;
pub mod difference;
mod env;
mod file;
mod problem;
mod reads;
mod resolve;
pub mod schema;
mod secret;
mod show;
mod text;
mod tls;
mod url;
mod value;
mod written;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::problem::{Error, Problem};
use self::problem::{Source, Text};
use self::schema::{Key, Section};
use self::written::{Item, Items};
use crate::net::addr::ListenAddr;
use crate::net::tls::{Acceptor, Connector, Validity};
use crate::{admin, listener, sentinel, session, telemetry, topology, worker};

/// Read when no other is named and it exists.
pub const DEFAULT_PATH: &str = "/etc/switchmaster/config.toml";
/// How long sessions have to finish what they have begun when the process is to end.
const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// Every key that works, with its default: what `config example` prints.
pub const EXAMPLE: &str = include_str!("../../config.example.toml");

/// One `[[proxy]]` entry, resolved.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The entry's name, unique; in every log line and metric.
    pub name: String,
    /// The name Sentinel knows the master by.
    pub master: String,
    /// Its clients are led to replicas, not to the master.
    pub leads_to_replicas: bool,
    /// How replicas are chosen.
    pub reads: topology::replicas::Choice,
    /// Accepting.
    pub listener: listener::Config,
    /// Sessions.
    pub session: session::Config,
    /// The login for the proxy's own ROLE checks.
    pub probe: sentinel::Credentials,
    /// What clients' connections are logged in with.
    pub login: Option<Arc<session::Login>>,
    /// How data nodes are met, by sessions and by those checks; `None` is without TLS.
    pub upstream_tls: Option<Connector>,
}

impl Proxy {
    /// Entries are known by name, master and role, not by their places: with another of these the sessions are another's.
    pub fn is_same_entry(&self, other: &Self) -> bool {
        self.name == other.name
            && self.master == other.master
            && self.leads_to_replicas == other.leads_to_replicas
    }

    /// How replicas are chosen, where clients are led to them.
    pub fn choice(&self) -> Option<topology::replicas::Choice> {
        self.leads_to_replicas.then_some(self.reads)
    }
}

/// The whole configuration, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[sentinel]`
    pub sentinel: sentinel::Config,
    /// `[failover]`
    pub rules: topology::rules::Rules,
    /// `[[proxy]]`, at least one.
    pub proxies: Vec<Proxy>,
    /// `[admin]`
    pub admin: admin::Config,
    /// `[limits] workers`
    pub workers: worker::Workers,
    /// `[limits] shutdown_grace`
    pub shutdown_grace: Duration,
    /// `[log]`
    pub log: telemetry::Config,
}

impl Config {
    /// Certificates of our own that are shown to somebody.
    pub fn certificates(&self) -> Vec<admin::Certificate> {
        let certificate = |leg, proxy: &str, validity: &Validity| admin::Certificate {
            leg,
            proxy: proxy.to_owned(),
            validity: validity.clone(),
        };
        let sentinel = self.sentinel.tls.iter().filter_map(Connector::validity);
        let mut all: Vec<_> = sentinel.map(|v| certificate("sentinel", "", v)).collect();
        for proxy in &self.proxies {
            let client = proxy.listener.tls.iter().map(Acceptor::validity);
            all.extend(client.map(|v| certificate("client", &proxy.name, v)));
            let upstream = proxy.upstream_tls.iter().filter_map(Connector::validity);
            all.extend(upstream.map(|v| certificate("upstream", &proxy.name, v)));
        }
        all
    }
}

/// What the command line says; absent and empty are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--sentinel`, one address an element.
    pub sentinel: Vec<String>,
    /// `--url`
    pub url: Option<String>,
    /// `--master`
    pub master: Option<String>,
    /// `--listen`, one address an element.
    pub listen: Vec<String>,
    /// `--admin`
    pub admin: Option<String>,
    /// `--log`
    pub log: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
}

/// A configuration and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is run.
    pub config: Config,
    /// What looks like a mistake and does no harm; one line each.
    pub warnings: Vec<String>,
    written: Written,
}

impl Loaded {
    /// The effective values as a configuration file, each with where it came from; no secrets.
    pub fn show(&self) -> String {
        show::render(&self.config, &self.written)
    }
}

/// Reads flags, environment and file. `variables` is the environment of the process.
///
/// # Errors
/// All that is wrong with the configuration, ready to be shown.
pub fn load(
    flags: &Flags,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Error> {
    let environment = env::read(variables)?;
    let text = file_text(flags, &environment)?;
    combine(flags, environment, text)
}

/// Where the admin endpoint of a proxy with this configuration is; `None` where it is off. Nothing else of the configuration
/// has to be complete.
///
/// # Errors
/// What is wrong with that part, or with the file as a whole.
pub fn admin_endpoint(
    flags: &Flags,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Option<ListenAddr>, Error> {
    let environment = env::read(variables)?;
    let text = file_text(flags, &environment)?;
    let (global, _) = written(flags, environment.items, text)?;
    resolve::admin_endpoint(&global)
}

fn file_text(flags: &Flags, environment: &env::Environment) -> Result<Option<Text>, Error> {
    let named = flags.config.as_deref().or(environment.config.as_deref());
    match named {
        Some(path) => file::read(path).map(Some),
        // Where it cannot be told whether it exists, reading it tells why.
        None if !matches!(Path::new(DEFAULT_PATH).try_exists(), Ok(false)) => {
            file::read(Path::new(DEFAULT_PATH)).map(Some)
        }
        None => Ok(None),
    }
}

/// Reads a file's text alone, as if there were no flags and no environment.
///
/// # Errors
/// As [`load`].
pub fn from_text(path: &Path, text: String) -> Result<Loaded, Error> {
    let text = Text {
        path: path.to_owned(),
        text,
    };
    combine(&Flags::default(), env::Environment::default(), Some(text))
}

/// Values by key, all writers put together.
#[derive(Clone, Debug)]
struct Written {
    /// Tables that exist once.
    global: Items,
    /// `[[proxy]]` entries; at least one.
    proxies: Vec<Items>,
    /// Who gave the password for Sentinels, if anybody.
    sentinel_password: Option<Source>,
    /// Who gave the token of those who may act, if anybody.
    admin_token: Option<Source>,
    /// Who gave each entry's probe password, if anybody; as long as `proxies`.
    probe_passwords: Vec<Option<Source>>,
    /// The same of the password that its clients' connections are logged in with.
    login_passwords: Vec<Option<Source>>,
}

fn combine(
    flags: &Flags,
    mut environment: env::Environment,
    text: Option<Text>,
) -> Result<Loaded, Error> {
    let items = std::mem::take(&mut environment.items);
    let (global, proxies) = written(flags, items, text)?;
    resolve::resolve(global, proxies, environment)
}

/// Flags over environment over file: the tables that exist once, and the `[[proxy]]` entries.
fn written(
    flags: &Flags,
    mut env_items: Items,
    text: Option<Text>,
) -> Result<(Items, Vec<Items>), Error> {
    let document = match text {
        Some(text) => file::parse(&Arc::new(text))?,
        None => file::Document::default(),
    };
    let mut flag_items = flag_items(flags);
    if let Some(url) = &flags.url {
        url::from_flag(url, &mut flag_items)?;
    }
    let flag_proxy = flag_items.split_off_proxy();
    let env_proxy = env_items.split_off_proxy();

    let mut global = document.global;
    global.overlay(env_items);
    global.overlay(flag_items);
    let proxies = combine_proxies(document.proxies, env_proxy, flag_proxy)?;
    Ok((global, proxies))
}

fn flag_items(flags: &Flags) -> Items {
    let mut items = Items::default();
    for (key, flag, texts) in [
        (Key::SentinelAddresses, "--sentinel", &flags.sentinel),
        (Key::Listen, "--listen", &flags.listen),
    ] {
        if !texts.is_empty() {
            items.set(key, Item::list(texts.iter().cloned(), Source::Flag(flag)));
        }
    }
    for (key, flag, text) in [
        (Key::Master, "--master", &flags.master),
        (Key::AdminListen, "--admin", &flags.admin),
        (Key::Level, "--log", &flags.log),
        (Key::Format, "--log-format", &flags.log_format),
    ] {
        if let Some(text) = text {
            items.set(key, Item::text(text, Source::Flag(flag)));
        }
    }
    items
}

/// Lays environment and flags over the one entry they can mean. With several entries they cannot
/// mean one; only the logins can be everybody's.
fn combine_proxies(mut entries: Vec<Items>, env: Items, flags: Items) -> Result<Vec<Items>, Error> {
    if entries.len() <= 1 {
        let mut entry = entries.pop().unwrap_or_default();
        entry.overlay(env);
        entry.overlay(flags);
        return Ok(vec![entry]);
    }

    let mut shared_logins = Items::default();
    let mut problems = Vec::new();
    for (key, item) in env.iter().chain(flags.iter()) {
        if matches!(key.section(), Section::Probe | Section::Login) {
            shared_logins.set(key, item.clone());
        } else {
            problems.push(Problem::at(
                &item.source,
                format!(
                    "{} cannot know which of the {} [[proxy]] entries it means",
                    item.source,
                    entries.len()
                ),
                format!("set `{}` in the file, in the entry it is for", key.name()),
            ));
        }
    }
    if !problems.is_empty() {
        return Err(Error::new(problems));
    }
    let combined = entries.into_iter().map(|entry| {
        let mut logins = shared_logins.clone();
        logins.overlay(entry);
        logins
    });
    Ok(combined.collect())
}
