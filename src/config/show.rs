//! The effective configuration as a file that could be loaded again, each value with its source.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::problem::{Source, printable_path};
use super::schema::{Key, Section};
use super::secret;
use super::written::{Items, Raw};
use super::{Config, Proxy, Written};
use crate::net::tls::Connector;
use crate::session::OnSwitch;
use crate::telemetry::Format;
use crate::topology::replicas::Fallback;
use crate::topology::rules::{Agree, Confirm, HoldMax, SentinelsLost, Verify};
use crate::worker::Workers;

/// Sources stand in this column where values leave room.
const SOURCE_COLUMN: usize = 44;
/// What stands for a password, however long it is.
const STARS: &str = "\"********\"";

/// One line for each key, passwords as stars.
pub(super) fn render(config: &Config, written: &Written) -> String {
    let mut page = Page(String::new());
    page.0.push_str(
        "# What switchmaster runs with. Valid as a configuration file; passwords are not shown.\n",
    );
    for section in [Section::Sentinel, Section::Failover] {
        page.section(section, config, &config.proxies[0], &written.global);
        if section == Section::Sentinel {
            page.secret("password", written.sentinel_password.as_ref());
        }
    }
    for (((proxy, items), probe), login) in config
        .proxies
        .iter()
        .zip(&written.proxies)
        .zip(&written.probe_passwords)
        .zip(&written.login_passwords)
    {
        page.section(Section::Proxy, config, proxy, items);
        page.section(Section::Probe, config, proxy, items);
        page.secret("password", probe.as_ref());
        page.section(Section::Login, config, proxy, items);
        page.secret("password", login.as_ref());
        page.section(Section::ClientTls, config, proxy, items);
        page.section(Section::UpstreamTls, config, proxy, items);
    }
    page.address_map(config, &written.global);
    for section in [Section::Admin, Section::Limits, Section::Log] {
        page.section(section, config, &config.proxies[0], &written.global);
        if section == Section::Admin {
            page.secret("token", written.admin_token.as_ref());
        }
    }
    page.0
}

struct Page(String);

impl Page {
    fn section(&mut self, section: Section, config: &Config, proxy: &Proxy, items: &Items) {
        self.line(&format!("\n{}", section.header()), None);
        for key in section.keys() {
            match value(key, config, proxy, items) {
                Some(value) => {
                    let source = items.source(key);
                    self.line(
                        &format!("{} = {value}", key.name()),
                        Some(&source.to_string()),
                    );
                }
                None => self.line(&format!("# {} =", key.name()), Some("not set")),
            }
        }
    }

    fn address_map(&mut self, config: &Config, items: &Items) {
        self.line(&format!("\n{}", Section::AddressMap.header()), None);
        let source = items.source(Key::AddressMap).to_string();
        for (announced, reachable) in config.sentinel.address_map.entries() {
            let entry = format!("{} = {}", text(announced), text(reachable));
            self.line(&entry, Some(&source));
        }
    }

    fn secret(&mut self, name: &str, source: Option<&Source>) {
        if let Some(source) = source {
            self.line(&format!("# {name} = {STARS}"), Some(&source.to_string()));
        }
    }

    fn line(&mut self, text: &str, source: Option<&str>) {
        let written = match source {
            Some(source) => writeln!(self.0, "{text:<SOURCE_COLUMN$} # {source}"),
            None => writeln!(self.0, "{text}"),
        };
        // Writing into a String does not fail.
        debug_assert!(written.is_ok());
    }
}

/// The value as it would be written in the file; `None` for what has no default and was not set.
pub(super) fn value(key: Key, config: &Config, proxy: &Proxy, items: &Items) -> Option<String> {
    Some(match key {
        Key::SentinelAddresses => list(&config.sentinel.addresses),
        Key::SentinelUsername => text(config.sentinel.credentials.username.as_ref()?),
        Key::SentinelPasswordFile
        | Key::ProbePasswordFile
        | Key::LoginPasswordFile
        | Key::AdminTokenFile
        | Key::SentinelCaFile
        | Key::SentinelCertFile
        | Key::SentinelKeyFile
        | Key::ClientTlsCertFile
        | Key::ClientTlsKeyFile
        | Key::ClientTlsCaFile
        | Key::UpstreamTlsCaFile
        | Key::UpstreamTlsCertFile
        | Key::UpstreamTlsKeyFile => {
            let item = items.get(key)?;
            match secret::credential(item) {
                Some(name) => text(format!("credential:{name}")),
                None => text(printable_path(&secret::path(item)?)),
            }
        }
        Key::SentinelTls => config.sentinel.tls.is_some().to_string(),
        Key::UpstreamTlsEnabled => proxy.upstream_tls.is_some().to_string(),
        Key::SentinelServerName | Key::UpstreamTlsServerName => match &items.get(key)?.raw {
            Raw::Text(name) => text(name),
            // It would have been refused.
            _ => return None,
        },
        Key::SentinelInsecure => believes_all(config.sentinel.tls.as_ref()),
        Key::UpstreamTlsInsecure => believes_all(proxy.upstream_tls.as_ref()),
        Key::Discover => config.sentinel.discover.to_string(),
        Key::SentinelConnectTimeout => duration(config.sentinel.connect_timeout),
        Key::PollInterval => duration(config.sentinel.poll_interval),
        Key::OnSwitch => text(on_switch(proxy.session.on_switch)),
        Key::ReplayAuth => proxy.session.replay_auth.to_string(),
        Key::Pubsub => text(on_switch(proxy.session.pubsub)),
        Key::ResendReads => proxy.session.resend_reads.to_string(),
        Key::HoldMax => match config.rules.hold_max {
            HoldMax::Auto => text("auto"),
            HoldMax::Fixed(limit) => duration(limit),
        },
        Key::AnnouncedHoldMax => duration(config.rules.announced_hold_max),
        Key::Confirm => text(match config.rules.confirm {
            Confirm::Sentinel => "sentinel",
            Confirm::Role => "role",
        }),
        Key::Agree => text(match config.rules.agree {
            Agree::Any => "any",
            Agree::Majority => "majority",
        }),
        Key::Verify => text(match config.rules.verify {
            Verify::Auto => "auto",
            Verify::Role => "role",
        }),
        Key::WhenSentinelsAreLost => text(match config.rules.when_sentinels_are_lost {
            SentinelsLost::Serve => "serve",
            SentinelsLost::Stop => "stop",
        }),
        Key::FenceAtOdown => config.rules.fence_at_odown.to_string(),
        Key::MaxHeld => proxy.session.max_held.to_string(),
        Key::Name => text(&proxy.name),
        Key::Master => text(&proxy.master),
        Key::Role => text(if proxy.leads_to_replicas {
            "replica"
        } else {
            "master"
        }),
        Key::MaxLag => duration(proxy.reads.max_lag),
        Key::Fallback => text(match proxy.reads.fallback {
            Fallback::Master => "master",
            Fallback::Refuse => "refuse",
        }),
        Key::Listen => list(&proxy.listener.listen),
        Key::AllowFrom => list(&proxy.listener.allow_from),
        Key::ProxyConnectTimeout => duration(proxy.session.connect_timeout),
        Key::SpareUpstreams => proxy.session.spare_upstreams.to_string(),
        Key::MaxConnections => proxy.listener.max_connections.to_string(),
        Key::MaxPerSource => proxy.listener.max_per_source.to_string(),
        Key::ProxyProtocolFrom => list(&proxy.listener.proxy_protocol_from),
        Key::AllowedUids => {
            let uids = proxy.listener.allowed_uids.iter().map(u32::to_string);
            format!("[{}]", uids.collect::<Vec<_>>().join(", "))
        }
        Key::SocketMode => text(format!("{:04o}", proxy.listener.socket_mode)),
        Key::SocketGroup => text(&proxy.listener.socket_group.as_ref()?.name),
        Key::LoginUsername => text(proxy.login.as_ref()?.username.as_ref()?),
        Key::MaxConnectionsInAll => proxy.listener.max_anywhere.to_string(),
        Key::FirstRequestTimeout => duration(proxy.session.first_request_timeout),
        Key::WriteStallTimeout => duration(proxy.session.write_stall_timeout),
        Key::UpstreamUserTimeout => duration(proxy.session.upstream_user_timeout),
        Key::ProbeUsername => text(proxy.probe.username.as_ref()?),
        // Has a page of its own: its keys are values.
        Key::AddressMap => return None,
        Key::AdminListen => text(match config.admin.listener.listen.first() {
            Some(addr) => addr.to_string(),
            None => "off".to_owned(),
        }),
        Key::AdminActions => config.admin.actions.to_string(),
        Key::AdminAllowFrom => list(&config.admin.listener.allow_from),
        Key::Workers => match config.workers {
            Workers::Auto => text("auto"),
            Workers::Fixed(count) => count.to_string(),
        },
        Key::ShutdownGrace => duration(config.shutdown_grace),
        Key::Level => text(&config.log.level),
        Key::Format => text(Format::name(config.log.format)),
    })
}

fn believes_all(tls: Option<&Connector>) -> String {
    tls.is_some_and(Connector::believes_all).to_string()
}

fn text(text: impl AsRef<str>) -> String {
    toml::Value::from(text.as_ref()).to_string()
}

fn duration(duration: Duration) -> String {
    text(humantime::format_duration(duration).to_string())
}

fn list<T: Display>(values: &[T]) -> String {
    let values: Vec<_> = values.iter().map(|value| text(value.to_string())).collect();
    format!("[{}]", values.join(", "))
}

const fn on_switch(choice: OnSwitch) -> &'static str {
    match choice {
        OnSwitch::Move => "move",
        OnSwitch::Close => "close",
    }
}
