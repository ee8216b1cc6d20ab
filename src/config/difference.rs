//! What a reload would change: (what is run, what was read anew) -> what to do, or why it is refused. Pure.
//!
//! All or nothing: what cannot be changed while the process runs refuses the whole of it, with the key and its line, so that
//! nobody has to guess which half of a file is in force.

use std::collections::BTreeSet;

use secrecy::{ExposeSecret, SecretString};

use super::problem::{Error, Problem, Source};
use super::schema::Key;
use super::{Loaded, Proxy, show, tls};
use crate::listener::BindError;
use crate::net::addr::ListenAddr;

/// Longest value in the words of a change, in characters; longer ones are only said to have changed.
const MAX_SHOWN: usize = 60;

/// Where another value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Which Sentinels are asked, how and how often: their links are made anew, one after the other.
    Sentinels,
    /// How it is decided who is master, and who waits for how long: at once.
    Rules,
    /// How sessions are made: the next ones. Their dials and their waiting: at once.
    Sessions,
    /// Who may connect, how many, and the permissions of socket files: the next connections.
    Admission,
    /// Where clients connect.
    Listeners,
    /// Which entry it is: with another one the entry is another.
    Entry,
    /// The proxy's own login at data nodes: at once, over a new connection.
    Probe,
    /// How data nodes are met: the next dials, and the proxy's own connection to the master at once.
    Upstream,
    /// Who may look and act at the admin endpoint: the next requests.
    Admin,
    /// The end of the process, and of an entry.
    Ending,
    /// What is logged.
    Log,
    /// Nowhere before the process is started anew.
    Restart,
}

/// Every key has one effect.
pub const fn effect(key: Key) -> Effect {
    match key {
        Key::SentinelAddresses
        | Key::SentinelUsername
        | Key::SentinelPasswordFile
        | Key::SentinelTls
        | Key::SentinelCaFile
        | Key::SentinelCertFile
        | Key::SentinelKeyFile
        | Key::SentinelServerName
        | Key::SentinelInsecure
        | Key::Discover
        | Key::SentinelConnectTimeout
        | Key::PollInterval
        | Key::AddressMap => Effect::Sentinels,
        Key::HoldMax
        | Key::AnnouncedHoldMax
        | Key::Confirm
        | Key::Agree
        | Key::Verify
        | Key::WhenSentinelsAreLost
        | Key::FenceAtOdown
        | Key::MaxLag
        | Key::Fallback => Effect::Rules,
        Key::OnSwitch
        | Key::ReplayAuth
        | Key::Pubsub
        | Key::ResendReads
        | Key::MaxHeld
        | Key::ProxyConnectTimeout
        | Key::SpareUpstreams
        | Key::UpstreamUserTimeout
        | Key::LoginUsername
        | Key::LoginPasswordFile
        | Key::FirstRequestTimeout
        | Key::WriteStallTimeout => Effect::Sessions,
        Key::AllowFrom
        | Key::MaxConnections
        | Key::MaxPerSource
        | Key::MaxConnectionsInAll
        | Key::AllowedUids
        | Key::ProxyProtocolFrom
        | Key::SocketMode
        | Key::SocketGroup
        | Key::ClientTlsCertFile
        | Key::ClientTlsKeyFile
        | Key::ClientTlsCaFile => Effect::Admission,
        Key::UpstreamTlsEnabled
        | Key::UpstreamTlsCaFile
        | Key::UpstreamTlsCertFile
        | Key::UpstreamTlsKeyFile
        | Key::UpstreamTlsServerName
        | Key::UpstreamTlsInsecure => Effect::Upstream,
        Key::Listen => Effect::Listeners,
        Key::Name | Key::Master | Key::Role => Effect::Entry,
        Key::ProbeUsername | Key::ProbePasswordFile => Effect::Probe,
        Key::AdminAllowFrom | Key::AdminActions | Key::AdminTokenFile => Effect::Admin,
        Key::ShutdownGrace => Effect::Ending,
        Key::Level => Effect::Log,
        // The threads and what they share are made once; the endpoint that answers the reload would cut itself off; lines of two
        // forms in one stream are read by nobody.
        Key::Workers | Key::AdminListen | Key::Format => Effect::Restart,
    }
}

/// An entry that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its place in what was read.
    pub new: usize,
    /// Listeners that it gets.
    pub opened: Vec<ListenAddr>,
    /// Listeners that it loses.
    pub closed: Vec<ListenAddr>,
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// Entries that stay, in the order of what was read.
    pub kept: Vec<Kept>,
    /// Entries that come: places in what was read.
    pub added: Vec<usize>,
    /// Entries that go: places in what is run.
    pub removed: Vec<usize>,
    effects: BTreeSet<Effect>,
    words: Vec<String>,
}

impl Difference {
    /// What `new` changes of `old`.
    ///
    /// # Errors
    /// When some of it needs a restart.
    pub fn between(old: &Loaded, new: &Loaded) -> Result<Self, Error> {
        let mut this = Self::default();
        let mut problems = Vec::new();
        for key in Key::ALL.into_iter().filter(|key| !key.is_per_proxy()) {
            let pair = Pair {
                key,
                old: (old, 0),
                new: (new, 0),
            };
            if !pair.differs() {
                continue;
            }
            if effect(key) == Effect::Restart {
                problems.push(pair.needs_restart());
            }
            problems.extend(tls::unusable(key, new, 0));
            this.note(&pair, "");
        }
        this.entries(old, new, &mut problems);
        this.systemd(old, new, &mut problems);
        this.overlaps(old, new, &mut problems);
        if problems.is_empty() {
            Ok(this)
        } else {
            Err(Error::new(problems))
        }
    }

    /// True when what was read is what is run.
    pub fn is_nothing(&self) -> bool {
        self.words.is_empty()
    }

    /// Something with this effect has changed.
    pub fn has(&self, effect: Effect) -> bool {
        self.effects.contains(&effect)
    }

    /// What changes, a piece each: `failover.hold_max "10s" -> "20s"`. No secrets.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    fn note(&mut self, pair: &Pair<'_>, of: &str) {
        self.effects.insert(effect(pair.key));
        self.words
            .push(format!("{}{of}{}", pair.key.path(), pair.words()));
    }

    /// Who stays, who comes, who goes. An entry is known by its name and its master: with another master its sessions are another's.
    fn entries(&mut self, old: &Loaded, new: &Loaded, problems: &mut Vec<Problem>) {
        let (olds, news) = (&old.config.proxies, &new.config.proxies);
        let same = |a: &Proxy, b: &Proxy| a.is_same_entry(b);
        let of = |proxy: &Proxy| format!("proxy \"{}\" (master \"{}\")", proxy.name, proxy.master);
        for (at, proxy) in olds.iter().enumerate() {
            if !news.iter().any(|new| same(new, proxy)) {
                self.removed.push(at);
                self.words.push(format!("{} removed", of(proxy)));
                self.effects.insert(Effect::Entry);
            }
        }
        for (at, proxy) in news.iter().enumerate() {
            let Some(before) = olds.iter().position(|old| same(old, proxy)) else {
                self.added.push(at);
                self.words.push(format!("{} added", of(proxy)));
                self.effects.insert(Effect::Entry);
                continue;
            };
            for key in Key::ALL.into_iter().filter(|key| key.is_per_proxy()) {
                let pair = Pair {
                    key,
                    old: (old, before),
                    new: (new, at),
                };
                if pair.differs() {
                    self.note(&pair, &format!(" of \"{}\"", proxy.name));
                    problems.extend(tls::unusable(key, new, at));
                }
            }
            let listens = (&olds[before].listener.listen, &proxy.listener.listen);
            self.kept.push(Kept {
                new: at,
                opened: without(listens.1, listens.0),
                closed: without(listens.0, listens.1),
            });
        }
    }

    /// The listeners that are to be opened: each with the place of its entry in what was read.
    pub fn opened<'a>(
        &'a self,
        new: &'a Loaded,
    ) -> impl Iterator<Item = (usize, &'a ListenAddr)> + 'a {
        let kept = self.kept.iter();
        let of_kept = kept.flat_map(|kept| kept.opened.iter().map(move |addr| (kept.new, addr)));
        let of_added = self.added.iter().flat_map(move |at| {
            let listen = &new.config.proxies[*at].listener.listen;
            listen.iter().map(move |addr| (*at, addr))
        });
        of_kept.chain(of_added)
    }

    /// True for a listener that is to be opened, where another entry has it: it changes hands. Port 0 is a new port each time.
    pub fn is_held(&self, old: &Loaded, addr: &ListenAddr) -> bool {
        let any_port = matches!(addr, ListenAddr::Tcp(addr) if addr.port() == 0);
        let mut held = old.config.proxies.iter().flat_map(|p| &p.listener.listen);
        !any_port && held.any(|held| held == addr)
    }

    /// A socket that was not taken at the start was closed then.
    fn systemd(&self, old: &Loaded, new: &Loaded, problems: &mut Vec<Problem>) {
        for (at, addr) in self.opened(new) {
            if matches!(addr, ListenAddr::Systemd(_)) && !self.is_held(old, addr) {
                problems.push(new.problem(
                    Key::Listen,
                    at,
                    format!("proxy.listen: {addr} needs a restart: systemd passes sockets at the start only"),
                    "restart the unit (systemctl restart switchmaster), or write an address",
                ));
            }
        }
    }

    /// The kernel gives no port to an address that overlaps with one that is listened on, and none is given up before the other is had.
    fn overlaps(&self, old: &Loaded, new: &Loaded, problems: &mut Vec<Problem>) {
        let held = || old.config.proxies.iter().flat_map(|p| &p.listener.listen);
        for (at, addr) in self.opened(new) {
            let in_the_way = held().find(|held| *held != addr && held.collides(addr));
            if let Some(held) = in_the_way {
                problems.push(new.problem(
                    Key::Listen,
                    at,
                    format!("proxy.listen: {addr} needs a restart: it overlaps with {held}, which is listened on now"),
                    "restart, or reload twice: once without the old address, then with the new one",
                ));
            }
        }
    }
}

impl Loaded {
    /// Something is wrong with what was written for this key of the entry at this place (of any, where the key is not an entry's).
    pub(super) fn problem(
        &self,
        key: Key,
        entry: usize,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Problem {
        let items = if key.is_per_proxy() {
            &self.written.proxies[entry]
        } else {
            &self.written.global
        };
        match items.source(key) {
            Source::Default => Problem::missing(message, help),
            source => Problem::at(source, message, help),
        }
    }

    /// An address of the entry at this place cannot be listened on.
    pub fn cannot_bind(&self, entry: usize, error: &BindError) -> Error {
        let help =
            "free it or write another one, and reload again; the old configuration stays in force";
        self.problem(Key::Listen, entry, format!("proxy.listen: {error}"), help)
            .into()
    }
}

/// One key, before and after.
struct Pair<'a> {
    key: Key,
    /// Each with the place of the entry.
    old: (&'a Loaded, usize),
    new: (&'a Loaded, usize),
}

impl Pair<'_> {
    fn differs(&self) -> bool {
        let (old, new) = (&self.old.0.config, &self.new.0.config);
        match self.key {
            // What counts is the secret, wherever it is kept.
            Key::SentinelPasswordFile => {
                let secret = |config: &super::Config| config.sentinel.credentials.password.clone();
                !equal(secret(old).as_ref(), secret(new).as_ref())
            }
            Key::ProbePasswordFile => {
                let secret =
                    |(of, at): (&Loaded, usize)| of.config.proxies[at].probe.password.clone();
                !equal(secret(self.old).as_ref(), secret(self.new).as_ref())
            }
            Key::LoginPasswordFile => {
                let secret = |(of, at): (&Loaded, usize)| {
                    let login = of.config.proxies[at].login.clone();
                    login.map(|login| login.password.clone())
                };
                !equal(secret(self.old).as_ref(), secret(self.new).as_ref())
            }
            Key::AdminTokenFile => !equal(old.admin.token.as_ref(), new.admin.token.as_ref()),
            // The file may be the same, and what is in it another.
            Key::SentinelCaFile | Key::SentinelCertFile => {
                let changed = tls::changed(
                    self.key,
                    old.sentinel.tls.as_ref(),
                    new.sentinel.tls.as_ref(),
                );
                changed || self.values().0 != self.values().1
            }
            Key::UpstreamTlsCaFile | Key::UpstreamTlsCertFile => {
                let of = |(of, at): (&Loaded, usize)| of.config.proxies[at].upstream_tls.clone();
                let changed = tls::changed(self.key, of(self.old).as_ref(), of(self.new).as_ref());
                changed || self.values().0 != self.values().1
            }
            Key::ClientTlsCaFile | Key::ClientTlsCertFile => {
                let of = |(of, at): (&Loaded, usize)| of.config.proxies[at].listener.tls.clone();
                let changed = tls::changed(self.key, of(self.old).as_ref(), of(self.new).as_ref());
                changed || self.values().0 != self.values().1
            }
            // The whole table.
            Key::AddressMap => old.sentinel.address_map != new.sentinel.address_map,
            _ => self.values().0 != self.values().1,
        }
    }

    fn values(&self) -> (Option<String>, Option<String>) {
        let value = |(of, at): (&Loaded, usize)| {
            let items = if self.key.is_per_proxy() {
                &of.written.proxies[at]
            } else {
                &of.written.global
            };
            show::value(self.key, &of.config, &of.config.proxies[at], items)
        };
        (value(self.old), value(self.new))
    }

    fn words(&self) -> String {
        let secret = matches!(
            self.key,
            Key::SentinelPasswordFile
                | Key::ProbePasswordFile
                | Key::LoginPasswordFile
                | Key::AdminTokenFile
        );
        let short = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        let (old, new) = self.values();
        let (old, new) = (short(old), short(new));
        let long = |text: &str| text.chars().nth(MAX_SHOWN).is_some();
        if secret || old == new || long(&old) || long(&new) {
            return " changed".to_owned();
        }
        format!(" {old} -> {new}")
    }

    fn needs_restart(&self) -> Problem {
        let (loaded, entry) = self.new;
        let message = format!("{} needs a restart:{}", self.key.path(), self.words());
        let help =
            "restart when it suits (sessions are drained), or put the old value back and reload";
        loaded.problem(self.key, entry, message, help)
    }
}

fn equal(a: Option<&SecretString>, b: Option<&SecretString>) -> bool {
    a.map(ExposeSecret::expose_secret) == b.map(ExposeSecret::expose_secret)
}

/// Those of `all` that `others` have not; one for one, as port 0 may be listed twice.
fn without(all: &[ListenAddr], others: &[ListenAddr]) -> Vec<ListenAddr> {
    let mut others: Vec<_> = others.iter().collect();
    let mut left = Vec::new();
    for addr in all {
        match others.iter().position(|other| *other == addr) {
            Some(at) => drop(others.swap_remove(at)),
            None => left.push(addr.clone()),
        }
    }
    left
}

#[cfg(test)]
#[path = "difference_tests.rs"]
mod tests;
