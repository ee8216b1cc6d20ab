//! What is to be said of this host. Pure.

use std::path::Path;
use std::time::Duration;

use super::facts::{Door, DoorOf, Host, Running};
use super::finding::{Code, Finding};
use crate::admin::Certificate;
use crate::listener::{BindError, Holder};
use crate::net::addr::ListenAddr;
use crate::worker::files::{FEW_SESSIONS, sessions_of};

/// The name of our own process, as `ps` shows it.
const OWN_NAME: &str = "switchmaster";
/// Fewer ports than this are few: what RFC 6335 sets aside for this use. Linux takes 28,232 unless told otherwise.
const FEW_PORTS: u32 = 16_384;
/// Seconds for which the port of a closed connection cannot be used again (`TCP_TIMEWAIT_LEN` of the kernel).
const TIME_WAIT: u32 = 60;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Left of a certificate when it should have been renewed: those that renew themselves do it 30 days before the end.
const EXPIRES_SOON: Duration = DAY.saturating_mul(30);
/// Left of it when it is an outage that is about to happen.
const EXPIRES_NOW: Duration = DAY.saturating_mul(7);

pub(super) fn judge(host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(Finding::ok(
        Code::ConfigValid,
        "configuration",
        format!(
            "valid: {}, {}",
            counted(host.sentinels, "Sentinel"),
            counted(host.proxies, "proxy entry")
        ),
    ));
    for warning in &host.warnings {
        let finding = Finding::warn(Code::ConfigWarning, "configuration", warning.clone());
        findings.push(finding.hint("switchmaster config show"));
    }
    // What runs could read them.
    let runs = host.running.iter().any(|running| is_this(running, host));
    let only_roots = host.only_roots.iter().filter(|_| !runs);
    findings.extend(only_roots.map(|(noun, path)| only_root_reads(noun, path)));
    findings.extend(
        host.certificates
            .iter()
            .map(|certificate| of_certificate(certificate, host.now)),
    );
    findings.extend(host.doors.iter().map(|door| at_door(door, host)));
    let range = host.port_range;
    findings.extend(host.doors.iter().filter_map(|door| in_range(door, range)));
    let running = host.running.as_ref();
    findings.extend(running.filter(|r| is_this(r, host)).map(of_running));
    findings.push(open_files(host.open_files));
    findings.push(port_range(host.port_range));
    findings
}

fn only_root_reads(noun: &str, path: &Path) -> Finding {
    let file = path.display();
    let message = format!(
        "only root may read this {noun}: a service with a user of its own, as the packaged one, may not and would end with 78"
    );
    Finding::warn(Code::ConfigWarning, format!("file {file}"), message).hint(format!(
        "in the unit ([Service]): LoadCredential=NAME:{file}, and in the configuration \"credential:NAME\"\n\
         or, where a reload has to see it change: chgrp GROUP {file} && chmod 640 {file}, and in the unit SupplementaryGroups=GROUP"
    ))
}

fn of_certificate(certificate: &Certificate, now: Duration) -> Finding {
    let Certificate {
        leg,
        proxy,
        validity,
    } = certificate;
    let whose = match (*leg, &**proxy) {
        (leg, "") => leg.to_owned(),
        (leg, proxy) => format!("{leg} of proxy \"{proxy}\""),
    };
    let subject = format!("certificate {}", validity.path.display());
    let until = validity.until();
    let hint = "renew it: write the new certificate and its key into the same files, and: systemctl reload switchmaster";
    let left = validity.not_after.saturating_sub(now);
    let days = left.as_secs() / DAY.as_secs();
    if validity.is_over(now) {
        let message = format!("has expired ({until}): nobody accepts it ({whose})");
        Finding::fail(Code::CertificateExpired, subject, message).hint(hint)
    } else if left < EXPIRES_NOW {
        let message = format!("expires in {} ({until}; {whose})", in_days(days));
        Finding::fail(Code::CertificateExpiresSoon, subject, message).hint(hint)
    } else if left < EXPIRES_SOON {
        let message = format!("expires in {} ({until}; {whose})", in_days(days));
        Finding::warn(Code::CertificateExpiresSoon, subject, message).hint(hint)
    } else {
        let message = format!("valid until {until} ({whose})");
        Finding::ok(Code::CertificateValid, subject, message)
    }
}

fn in_days(days: u64) -> String {
    match days {
        0 => "less than a day".to_owned(),
        1 => "a day".to_owned(),
        days => format!("{days} days"),
    }
}

fn at_door(door: &Door, host: &Host) -> Finding {
    let addr = &door.addr;
    let error = match &door.bind {
        Ok(()) if matches!(addr, ListenAddr::Systemd(_)) => {
            return Finding::ok(Code::PortFree, addr, "is for systemd to listen on");
        }
        Ok(()) => return Finding::ok(Code::PortFree, addr, "can be listened on"),
        Err(error) => error,
    };
    let (holder, taken) = match error {
        BindError::PortTaken { holder, .. } => (holder.as_ref(), true),
        BindError::SocketTaken(_) => (None, true),
        _ => (None, false),
    };
    if !taken {
        let finding = Finding::fail(Code::PortRefused, addr, error.to_string());
        return finding.hint(otherwise(door.of));
    }
    if let Some(finding) = ours(door, holder, host) {
        return finding;
    }
    let by = holder.map_or_else(
        || "by a process that does not show here".to_owned(),
        |holder| format!("by {holder}"),
    );
    let mut hint = String::new();
    if let Some(holder) = holder {
        let unit = holder.name.replace('_', "-");
        if matches!(&*unit, "redis-server" | "valkey-server" | "redis-sentinel") {
            hint.push_str(&format!("systemctl disable --now {unit}\n"));
        } else {
            hint.push_str(&format!("ps -fp {}\n", holder.pid));
        }
    } else if let ListenAddr::Tcp(addr) = addr {
        hint.push_str(&format!("sudo ss -tanp 'sport = :{}'\n", addr.port()));
    }
    hint.push_str(otherwise(door.of));
    let finding = match door.of {
        DoorOf::Clients | DoorOf::AdminRequired => {
            Finding::fail(Code::PortTaken, addr, format!("taken {by}"))
        }
        DoorOf::Admin => Finding::warn(
            Code::PortTaken,
            addr,
            format!("taken {by}, so the proxy goes without status page and metrics"),
        ),
    };
    finding.hint(hint)
}

/// A port that the kernel may give to an outgoing connection, so that it can be taken at a restart.
fn in_range(door: &Door, range: Option<(u16, u16)>) -> Option<Finding> {
    let (ListenAddr::Tcp(addr), Some((first, last))) = (&door.addr, range) else {
        return None;
    };
    let port = addr.port();
    (first..=last).contains(&port).then(|| {
        Finding::warn(
            Code::PortInRange,
            addr,
            format!(
                "is among the ports of outgoing connections ({first} to {last}): one of them can have it when the \
                 proxy starts"
            ),
        )
        .hint(format!(
            "sysctl -w net.ipv4.ip_local_reserved_ports={port}\nor a port below {first}"
        ))
    })
}

/// The proxy itself, running there.
fn ours(door: &Door, holder: Option<&Holder>, host: &Host) -> Option<Finding> {
    let running = host.running.as_ref().filter(|running| match door.of {
        DoorOf::Clients => running.listen.contains(&door.addr.to_string()),
        // Another proxy of this host may have the admin address, too.
        DoorOf::AdminRequired | DoorOf::Admin => is_this(running, host),
    });
    let pid = match (running, holder) {
        (Some(running), _) => running.pid,
        (None, Some(holder)) if door.of == DoorOf::Clients && holder.name == OWN_NAME => holder.pid,
        _ => return None,
    };
    Some(Finding::ok(
        Code::ProxyRunning,
        &door.addr,
        format!("switchmaster itself listens there (pid {pid})"),
    ))
}

/// The proxy that answers is the one that is looked at: it has one of its addresses for clients.
fn is_this(running: &Running, host: &Host) -> bool {
    let clients = host.doors.iter().filter(|door| door.of == DoorOf::Clients);
    clients
        .map(|door| door.addr.to_string())
        .any(|addr| running.listen.contains(&addr))
}

fn otherwise(of: DoorOf) -> &'static str {
    match of {
        DoorOf::Clients => "or another address for clients: --listen 127.0.0.1:6380",
        DoorOf::AdminRequired | DoorOf::Admin => {
            "or another address for the admin endpoint: --admin 127.0.0.1:8480, or --admin off"
        }
    }
}

fn of_running(running: &Running) -> Finding {
    let subject = format!("running proxy (pid {})", running.pid);
    if running.live {
        return Finding::ok(Code::ProxyRunning, subject, running.headlines.join("; "));
    }
    Finding::fail(
        Code::ProxyStuck,
        subject,
        "its control loop does not turn (/livez), so it forwards nothing",
    )
    .hint("systemctl restart switchmaster")
}

fn open_files(limit: Option<u64>) -> Finding {
    let subject = "open files";
    let Some(limit) = limit else {
        return Finding::ok(Code::OpenFiles, subject, "no limit");
    };
    let message = format!(
        "the limit of {limit}, as this command has it, allows {} sessions",
        sessions_of(limit)
    );
    if sessions_of(limit) < FEW_SESSIONS {
        Finding::warn(Code::FewOpenFiles, subject, message).hint(
            "in the unit ([Service]): LimitNOFILE=65536\nin a shell, before it is started: ulimit -Hn 65536",
        )
    } else {
        Finding::ok(Code::OpenFiles, subject, message)
    }
}

fn port_range(range: Option<(u16, u16)>) -> Finding {
    let subject = "net.ipv4.ip_local_port_range";
    let Some((first, last)) = range else {
        return Finding::ok(Code::PortRange, subject, "not to be read here");
    };
    let ports = u32::from(last.saturating_sub(first)) + 1;
    let message = format!(
        "{first} to {last}: at most {ports} connections to one master at once, and {} new ones a second of those \
         that are closed in order (their ports rest for {TIME_WAIT} s)",
        ports / TIME_WAIT
    );
    if ports < FEW_PORTS {
        Finding::warn(Code::NarrowPortRange, subject, message)
            .hint(
            "sysctl -w net.ipv4.ip_local_port_range='32768 60999'\nsysctl -w net.ipv4.tcp_tw_reuse=1",
        )
    } else {
        Finding::ok(Code::PortRange, subject, message)
    }
}

/// `1 Sentinel`, `3 Sentinels`, `2 proxy entries`.
pub(super) fn counted(count: usize, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {what}s"),
    }
}
