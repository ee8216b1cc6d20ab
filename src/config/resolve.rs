//! From what was written to what is run: the meaning of every key, the bounds, what fits together.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::admission::{MAX_CONNECTIONS, doubts, listener, shuts_this_host_out};
use super::env::Environment;
use super::problem::{Error, Problem, Source};
use super::reads::{ROLES, means_nothing, reads};
use super::schema::{ENV_ADMIN_TOKEN, ENV_LOGIN_PASSWORD, ENV_SENTINEL_PASSWORD, Key};
use super::secret::{Password, Places};
use super::text::{listen_addr, mapping, network, plain_name, proxy_name, refusal, sentinel_addr};
use super::value::{Listed, Values};
use super::written::Items;
use super::{Config, Loaded, Proxy, Written, tls};
use crate::net::addr::ListenAddr;
use crate::net::address_map::AddressMap;
use crate::sentinel::Credentials;
use crate::session::OnSwitch;
use crate::topology::rules::{Agree, Confirm, HoldMax, Rules, SentinelsLost, Verify};
use crate::worker::Workers;
use crate::{admin, listener, sentinel, session, telemetry};

/// Most Sentinels one can name.
const MAX_SENTINELS: usize = 64;
/// Most `[[proxy]]` entries.
const MAX_PROXIES: usize = 256;
/// Most networks one entry allows.
pub(super) const MAX_NETWORKS: usize = 1024;
/// Most entries of `[address_map]`.
const MAX_MAPPINGS: usize = 1024;
/// Bounds of the counts.
const MAX_HELD: RangeInclusive<usize> = 0..=1_000_000;
const WORKERS: RangeInclusive<usize> = 1..=Workers::MAX;
/// Bounds of the times. The lower ones keep a typing error from looking like an outage.
const CONNECT_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
/// An answer counts for 3 s, and a link that has not answered for so long is dead: a longer interval would make both flap.
const POLL_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(1);
const HOLD_MAX: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
const ANNOUNCED_HOLD_MAX: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
const SHUTDOWN_GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const USER_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// 0 is never, of both.
const FIRST_REQUEST: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const WRITE_STALL: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);

/// Shortest token of those who may act over the admin endpoint: 16 hexadecimal digits are 64 bits.
const TOKEN_MIN: usize = 16;

const NO_SENTINEL: &str = "give them in one of three ways:
  switchmaster --sentinel 10.0.0.3:26379,10.0.0.4:26379,10.0.0.5:26379
  SWITCHMASTER_SENTINEL=10.0.0.3:26379,10.0.0.4:26379,10.0.0.5:26379
  in the file: [sentinel] and below it addresses = [\"10.0.0.3:26379\", \"10.0.0.4:26379\"]";

const ROLE_AND_STOP: &str = "failover.confirm = \"role\" does nothing beside when_sentinels_are_lost = \"stop\": the one \
     goes to a new master before a Sentinel names it, the other to none that most Sentinels do not vouch for. Remove one of them";

/// Gives meaning to what was written.
pub(super) fn resolve(
    global: Items,
    proxies: Vec<Items>,
    environment: Environment,
) -> Result<Loaded, Error> {
    let mut problems = Vec::new();
    let mut warnings = environment.warnings.clone();
    if proxies.len() > MAX_PROXIES {
        return Err(Problem::missing(
            format!("{} [[proxy]] entries are too many", proxies.len()),
            format!("at most {MAX_PROXIES} are allowed in one process"),
        )
        .into());
    }

    let mut values = Values::new(&global, &mut problems);
    let mut sentinel = sentinel(&mut values);
    let rules = rules(&mut values);
    if rules.confirm == Confirm::Role && !rules.trusts_successors() {
        warnings.push(ROLE_AND_STOP.to_owned());
    }
    let session = session(&mut values);
    let workers = values
        .count_or_auto(Key::Workers, WORKERS)
        .and_then(NonZeroUsize::new)
        .map_or(Workers::Auto, Workers::Fixed);
    let shutdown_grace = values.duration(
        Key::ShutdownGrace,
        SHUTDOWN_GRACE,
        super::DEFAULT_SHUTDOWN_GRACE,
    );
    let max_anywhere = values.count(Key::MaxConnectionsInAll, MAX_CONNECTIONS, 0);
    let mut admin = admin(&mut values);
    warnings.extend(shuts_this_host_out("admin.allow_from", &admin.listener));
    sentinel.address_map = address_map(&mut values);
    let log = log(&mut values);

    let mut logins = Logins {
        problems: &mut problems,
        warnings: &mut warnings,
    };
    let places = sentinel_password(&global, &environment);
    let sentinel_password = logins.look(&places, &mut sentinel.credentials);
    let mut files = tls::Files::new(&global, &environment, logins.problems, logins.warnings);
    sentinel.tls = files.sentinel();

    let admin_token = token(&global, &environment, &mut admin, &mut logins);

    let only_one = proxies.len() == 1;
    let mut resolved = Vec::new();
    let (mut probe_passwords, mut login_passwords) = (Vec::new(), Vec::new());
    for items in &proxies {
        let mut files = tls::Files::new(items, &environment, &mut problems, &mut warnings);
        let (client_tls, upstream_tls) = (files.clients(), files.upstream());
        let guarded = client_tls.is_refused() || client_tls.demands_certificates();
        let mut values = Values::new(items, &mut problems);
        let mut proxy = proxy(&mut values, &session, max_anywhere, guarded);
        let mut login = Credentials {
            username: values.text(Key::LoginUsername, plain_name),
            password: None,
        };
        proxy.listener.tls = client_tls.into_acceptor();
        proxy.upstream_tls = upstream_tls;
        let mut logins = Logins {
            problems: &mut problems,
            warnings: &mut warnings,
        };
        let places = probe_password(items, &environment, only_one);
        probe_passwords.push(logins.look(&places, &mut proxy.probe));
        let places = login_password(items, &environment, only_one);
        login_passwords.push(logins.look(&places, &mut login));
        proxy.login = logged_in(login);
        warnings.extend(means_nothing(&proxy));
        warnings.extend(doubts(&proxy));
        resolved.push(proxy);
    }
    unique_names(&resolved, &proxies, &mut problems);
    unique_addresses(&resolved, &proxies, &mut problems);

    if !problems.is_empty() {
        return Err(Error::new(problems));
    }
    Ok(Loaded {
        config: Config {
            sentinel,
            rules,
            proxies: resolved,
            admin,
            workers,
            shutdown_grace,
            log,
        },
        warnings,
        written: Written {
            global,
            proxies,
            sentinel_password,
            admin_token,
            probe_passwords,
            login_passwords,
        },
    })
}

/// Where the admin endpoint is, by these items alone.
pub(super) fn admin_endpoint(global: &Items) -> Result<Option<ListenAddr>, Error> {
    let mut problems = Vec::new();
    let admin = admin(&mut Values::new(global, &mut problems));
    if problems.is_empty() {
        Ok(admin.listener.listen.into_iter().next())
    } else {
        Err(Error::new(problems))
    }
}

fn sentinel(values: &mut Values<'_>) -> sentinel::Config {
    let default = sentinel::Config::default();
    let mut addresses = Vec::new();
    match values.list(Key::SentinelAddresses, MAX_SENTINELS, sentinel_addr) {
        Listed::Values(listed) if listed.is_empty() => {
            values.refuse(Key::SentinelAddresses, "the list is empty", NO_SENTINEL);
        }
        Listed::Values(listed) => {
            for (addr, _) in listed {
                // Named twice is asked once: it has one voice.
                if !addresses.contains(&addr) {
                    addresses.push(addr);
                }
            }
        }
        Listed::Unwritten => {
            values.refuse(Key::SentinelAddresses, "no Sentinel is named", NO_SENTINEL);
        }
        Listed::Refused => {}
    }
    sentinel::Config {
        addresses,
        credentials: Credentials {
            username: values.text(Key::SentinelUsername, plain_name),
            password: None,
        },
        tls: None,
        address_map: AddressMap::default(),
        discover: values.boolean(Key::Discover, default.discover),
        connect_timeout: values.duration(
            Key::SentinelConnectTimeout,
            CONNECT_TIMEOUT,
            default.connect_timeout,
        ),
        poll_interval: values.duration(Key::PollInterval, POLL_INTERVAL, default.poll_interval),
    }
}

fn address_map(values: &mut Values<'_>) -> AddressMap {
    let mut map = AddressMap::default();
    if let Listed::Values(listed) = values.list(Key::AddressMap, MAX_MAPPINGS, mapping) {
        for (mapping, source) in listed {
            if !map.insert(mapping) {
                values.push(Problem::at(
                    &source,
                    "address_map: this address is announced twice",
                    "keep one of the two lines",
                ));
            }
        }
    }
    map
}

fn rules(values: &mut Values<'_>) -> Rules {
    let default = Rules::default();
    Rules {
        agree: values.choice(
            Key::Agree,
            &[("any", Agree::Any), ("majority", Agree::Majority)],
            default.agree,
        ),
        verify: values.choice(
            Key::Verify,
            &[("auto", Verify::Auto), ("role", Verify::Role)],
            default.verify,
        ),
        hold_max: values
            .duration_or_auto(Key::HoldMax, HOLD_MAX)
            .map_or(HoldMax::Auto, HoldMax::Fixed),
        announced_hold_max: values.duration(
            Key::AnnouncedHoldMax,
            ANNOUNCED_HOLD_MAX,
            default.announced_hold_max,
        ),
        confirm: values.choice(
            Key::Confirm,
            &[("sentinel", Confirm::Sentinel), ("role", Confirm::Role)],
            default.confirm,
        ),
        when_sentinels_are_lost: values.choice(
            Key::WhenSentinelsAreLost,
            &[
                ("serve", SentinelsLost::Serve),
                ("stop", SentinelsLost::Stop),
            ],
            default.when_sentinels_are_lost,
        ),
        fence_at_odown: values.boolean(Key::FenceAtOdown, default.fence_at_odown),
    }
}

/// Where the admin endpoint listens; "off" is nowhere.
fn admin(values: &mut Values<'_>) -> admin::Config {
    let allow_from = match values.list(Key::AdminAllowFrom, MAX_NETWORKS, network) {
        Listed::Values(networks) => networks.into_iter().map(|(network, _)| network).collect(),
        Listed::Unwritten | Listed::Refused => Vec::new(),
    };
    let read = |text: &str| match text {
        "off" => Ok(None),
        _ => match listen_addr(text)? {
            ListenAddr::Systemd(_) => Err(refusal(
                "the admin endpoint takes no socket from systemd".to_owned(),
                "write \"127.0.0.1:8479\", \"unix:/run/switchmaster/admin.sock\" or \"off\"",
            )),
            addr => Ok(Some(addr)),
        },
    };
    let listen = values
        .parsed(Key::AdminListen, read)
        .unwrap_or_else(|| Some(ListenAddr::Tcp(admin::DEFAULT_LISTEN.into())));
    if listen.as_ref().is_some_and(|addr| !addr.is_local()) && allow_from.is_empty() {
        values.refuse(
            Key::AdminListen,
            "the admin endpoint can be reached from other machines, and `allow_from` does not say from which",
            "it tells everybody who asks where the master is; add to [admin], for example: allow_from = [\"10.0.0.5/32\"]",
        );
    }
    admin::Config {
        listener: listener::Config {
            listen: listen.into_iter().collect(),
            allow_from,
            ..listener::Config::default()
        },
        actions: values.boolean(Key::AdminActions, false),
        token: None,
    }
}

/// Completes the admin endpoint with the token of those who may act there; tells who gave it.
fn token(
    global: &Items,
    environment: &Environment,
    admin: &mut admin::Config,
    told: &mut Logins<'_>,
) -> Option<Source> {
    let places = Places {
        noun: "token",
        username: None,
        key: Key::AdminTokenFile,
        file: global.get(Key::AdminTokenFile),
        variable: ENV_ADMIN_TOKEN,
        value: environment.admin_token.as_ref(),
        variable_first: true,
        credentials: environment.credentials.as_deref(),
        credential: "admin_token",
    };
    let over_tcp = matches!(admin.listener.listen.first(), Some(ListenAddr::Tcp(_)));
    match places.look(told.warnings) {
        Err(problem) => told.problems.push(problem),
        Ok(Some(Password { secret, source })) => {
            let text = secret.expose_secret().trim();
            if text.len() < TOKEN_MIN || !text.bytes().all(|b| b.is_ascii_graphic()) {
                told.problems.push(Problem::at(
                    &source,
                    format!(
                        "admin.token_file: the token is no {TOKEN_MIN} printable characters without a space"
                    ),
                    "write a new one, for example with: openssl rand -hex 32",
                ));
            } else if !(admin.actions && over_tcp) {
                told.warnings.push(
                    "admin.token_file does nothing: it is for [admin] actions = true over TCP"
                        .to_owned(),
                );
            }
            admin.token = Some(text.into());
            return Some(source);
        }
        Ok(None) if admin.actions && over_tcp => {
            let message =
                "admin.actions: over TCP those who may act need a token, and there is none";
            let help = "write 16 characters or more into a file that only switchmaster can read, and name it in [admin]:\n\
                        token_file = \"/etc/switchmaster/admin_token\"\n\
                        or listen on a unix socket, where root and switchmaster's own user may act:\n\
                        listen = \"unix:/run/switchmaster/admin.sock\"";
            told.problems.push(match global.source(Key::AdminActions) {
                Source::Default => Problem::missing(message, help),
                source => Problem::at(source, message, help),
            });
        }
        Ok(None) => {}
    }
    None
}

fn log(values: &mut Values<'_>) -> telemetry::Config {
    let default = telemetry::Config::default();
    telemetry::Config {
        level: values
            .text(Key::Level, |text| {
                telemetry::check_filter(text).map_err(|e| {
                    refusal(
                        e.to_string(),
                        "write off, error, warn, info, debug or trace, or a list such as \
                         \"info,switchmaster::sentinel=debug\"",
                    )
                })
            })
            .unwrap_or(default.level),
        format: values.choice(Key::Format, &telemetry::Format::NAMES, default.format),
    }
}

/// What can become of a session.
const ON_SWITCH: [(&str, OnSwitch); 2] = [("move", OnSwitch::Move), ("close", OnSwitch::Close)];

/// What `[failover]` says of every entry's sessions.
fn session(values: &mut Values<'_>) -> session::Config {
    let default = session::Config::default();
    session::Config {
        on_switch: values.choice(Key::OnSwitch, &ON_SWITCH, default.on_switch),
        replay_auth: values.boolean(Key::ReplayAuth, default.replay_auth),
        pubsub: values.choice(Key::Pubsub, &ON_SWITCH, default.pubsub),
        resend_reads: values.boolean(Key::ResendReads, default.resend_reads),
        max_held: values.count(Key::MaxHeld, MAX_HELD, default.max_held),
        first_request_timeout: values.duration(
            Key::FirstRequestTimeout,
            FIRST_REQUEST,
            default.first_request_timeout,
        ),
        write_stall_timeout: values.duration(
            Key::WriteStallTimeout,
            WRITE_STALL,
            default.write_stall_timeout,
        ),
        ..default
    }
}

fn proxy(
    values: &mut Values<'_>,
    default: &session::Config,
    max_anywhere: usize,
    is_guarded: bool,
) -> Proxy {
    let listener = listener(values, max_anywhere, is_guarded);
    Proxy {
        name: values
            .text(Key::Name, proxy_name)
            .unwrap_or_else(|| "main".to_owned()),
        master: values
            .text(Key::Master, plain_name)
            .unwrap_or_else(|| "mymaster".to_owned()),
        reads: reads(values),
        leads_to_replicas: values.choice(Key::Role, &ROLES, false),
        listener,
        session: session::Config {
            connect_timeout: values.duration(
                Key::ProxyConnectTimeout,
                CONNECT_TIMEOUT,
                default.connect_timeout,
            ),
            upstream_user_timeout: values.duration(
                Key::UpstreamUserTimeout,
                USER_TIMEOUT,
                default.upstream_user_timeout,
            ),
            spare_upstreams: values.boolean(Key::SpareUpstreams, default.spare_upstreams),
            ..*default
        },
        probe: Credentials {
            username: values.text(Key::ProbeUsername, plain_name),
            password: None,
        },
        login: None,
        upstream_tls: None,
    }
}

fn sentinel_password<'a>(global: &'a Items, environment: &'a Environment) -> Places<'a> {
    Places {
        noun: "password",
        username: global.get(Key::SentinelUsername),
        key: Key::SentinelPasswordFile,
        file: global.get(Key::SentinelPasswordFile),
        variable: ENV_SENTINEL_PASSWORD,
        value: environment.sentinel_password.as_ref(),
        variable_first: true,
        credentials: environment.credentials.as_deref(),
        credential: "sentinel_password",
    }
}

fn probe_password<'a>(
    items: &'a Items,
    environment: &'a Environment,
    only_one: bool,
) -> Places<'a> {
    Places {
        noun: "password",
        username: items.get(Key::ProbeUsername),
        key: Key::ProbePasswordFile,
        file: items.get(Key::ProbePasswordFile),
        variable: environment.probe_password_variable.0,
        value: environment.probe_password.as_ref(),
        // Of several entries, those that name a file of their own keep it.
        variable_first: only_one,
        credentials: environment.credentials.as_deref(),
        credential: "probe_password",
    }
}

fn login_password<'a>(
    items: &'a Items,
    environment: &'a Environment,
    only_one: bool,
) -> Places<'a> {
    Places {
        username: items.get(Key::LoginUsername),
        key: Key::LoginPasswordFile,
        file: items.get(Key::LoginPasswordFile),
        variable: ENV_LOGIN_PASSWORD,
        value: environment.login_password.as_ref(),
        credential: "login_password",
        ..probe_password(items, environment, only_one)
    }
}

/// Without a password there is nothing to log in with.
fn logged_in(login: Credentials) -> Option<Arc<session::Login>> {
    let Credentials { username, password } = login;
    password.map(|password| Arc::new(session::Login { username, password }))
}

/// Where problems and warnings about logins go.
struct Logins<'a> {
    problems: &'a mut Vec<Problem>,
    warnings: &'a mut Vec<String>,
}

impl Logins<'_> {
    /// Completes a login with its password; tells who gave it.
    fn look(&mut self, places: &Places<'_>, login: &mut Credentials) -> Option<Source> {
        match places.look(self.warnings) {
            Ok(Some(password)) => {
                login.password = Some(password.secret);
                return Some(password.source);
            }
            Ok(None) => {
                if let Some(username) = places.username.filter(|_| login.username.is_some()) {
                    let section = places.key.section();
                    self.problems.push(Problem::at(
                        &username.source,
                        format!(
                            "{}.username: a user name without a password is no login",
                            section.name()
                        ),
                        "add password_file = \"/path/to/the/password\", or remove the user name",
                    ));
                }
            }
            Err(problem) => self.problems.push(problem),
        }
        None
    }
}

fn unique_names(proxies: &[Proxy], items: &[Items], problems: &mut Vec<Problem>) {
    let mut seen = HashMap::new();
    for (n, (proxy, items)) in proxies.iter().zip(items).enumerate() {
        let Some(first) = seen.insert(proxy.name.as_str(), n + 1) else {
            continue;
        };
        let message = format!(
            "proxy.name: entries {first} and {} are both called \"{}\"",
            n + 1,
            proxy.name
        );
        let help = "give each [[proxy]] entry a name of its own; it stands in every log line";
        problems.push(match items.source(Key::Name) {
            Source::Default => Problem::missing(message, help),
            source => Problem::at(source, message, help),
        });
    }
}

fn unique_addresses(proxies: &[Proxy], items: &[Items], problems: &mut Vec<Problem>) {
    let mut seen: Vec<(&ListenAddr, &str)> = Vec::new();
    for (proxy, items) in proxies.iter().zip(items) {
        for addr in &proxy.listener.listen {
            if let Some((other, name)) = seen.iter().find(|(other, _)| other.collides(addr)) {
                let message = if *other == addr {
                    format!(
                        "proxy.listen: {addr} is listed twice, by \"{name}\" and \"{}\"",
                        proxy.name
                    )
                } else {
                    format!(
                        "proxy.listen: {addr} of \"{}\" and {other} of \"{name}\" overlap",
                        proxy.name
                    )
                };
                let help = "each address can be listened on once: change the port of one";
                problems.push(match items.source(Key::Listen) {
                    Source::Default => Problem::missing(message, help),
                    source => Problem::at(source, message, help),
                });
            }
            seen.push((addr, &proxy.name));
        }
    }
}
