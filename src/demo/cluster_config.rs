//! The configuration files of the local topology. Pure: options and ports in, text out.

use std::path::Path;

use super::cluster::{Options, Tls};
use super::ports::Port;

/// One configuration a data node; the first is the master's.
pub(super) fn nodes(options: &Options, ports: &[Port]) -> Vec<String> {
    let master = ports[0].addr();
    ports
        .iter()
        .map(|port| {
            let addr = port.addr();
            let mut lines = common(addr.port(), options.tls.as_ref());
            lines.extend([
                "save \"\"".into(),
                "appendonly no".into(),
                "repl-diskless-sync yes".into(),
                // The default waits 5 s for further replicas before each synchronisation.
                "repl-diskless-sync-delay 0".into(),
                "repl-ping-replica-period 1".into(),
                "replica-priority 100".into(),
            ]);
            if options.server.version().major >= 7 {
                lines.push("enable-debug-command yes".into());
            }
            if let Some(password) = &options.requirepass {
                lines.push(format!("requirepass {}", quoted(password)));
                lines.push(format!("masterauth {}", quoted(password)));
            }
            if addr != master {
                lines.push(format!("replicaof {} {}", master.ip(), master.port()));
            }
            lines.extend(options.extra_node_config.iter().cloned());
            text(&lines)
        })
        .collect()
}

/// One configuration a Sentinel. All instances are named to each other in advance: what they would find out
/// by listening to each other for some seconds.
pub(super) fn sentinels(options: &Options, nodes: &[Port], sentinels: &[Port]) -> Vec<String> {
    let name = &options.master_name;
    let ids: Vec<String> = sentinels.iter().map(|_| run_id()).collect();
    (0..sentinels.len())
        .map(|own| {
            let mut lines = common(sentinels[own].addr().port(), options.tls.as_ref());
            lines.push(format!("sentinel myid {}", ids[own]));
            let master = nodes[0].addr();
            lines.push(format!(
                "sentinel monitor {name} {} {} {}",
                master.ip(),
                master.port(),
                options.quorum
            ));
            lines.push(format!(
                "sentinel down-after-milliseconds {name} {}",
                options.down_after.as_millis()
            ));
            lines.push(format!(
                "sentinel failover-timeout {name} {}",
                options.failover_timeout.as_millis()
            ));
            if let Some(password) = &options.requirepass {
                lines.push(format!("sentinel auth-pass {name} {}", quoted(password)));
            }
            if let Some(password) = &options.sentinel_requirepass {
                lines.push(format!("requirepass {}", quoted(password)));
                lines.push(format!("sentinel sentinel-pass {}", quoted(password)));
            }
            for replica in &nodes[1..] {
                let addr = replica.addr();
                lines.push(format!(
                    "sentinel known-replica {name} {} {}",
                    addr.ip(),
                    addr.port()
                ));
            }
            for other in (0..sentinels.len()).filter(|other| *other != own) {
                let addr = sentinels[other].addr();
                lines.push(format!(
                    "sentinel known-sentinel {name} {} {} {}",
                    addr.ip(),
                    addr.port(),
                    ids[other]
                ));
            }
            lines.extend(options.extra_sentinel_config.iter().cloned());
            text(&lines)
        })
        .collect()
}

/// A value in quotes, as the servers' configuration parser reads it back.
pub(super) fn quoted(value: &str) -> String {
    let mut out = String::from("\"");
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

fn common(port: u16, tls: Option<&Tls>) -> Vec<String> {
    let mut lines = vec![
        "bind 127.0.0.1".into(),
        "protected-mode no".into(),
        "daemonize no".into(),
    ];
    let Some(tls) = tls else {
        lines.push(format!("port {port}"));
        return lines;
    };
    let file = |path: &Path| quoted(&path.to_string_lossy());
    lines.extend([
        "port 0".into(),
        format!("tls-port {port}"),
        format!("tls-ca-cert-file {}", file(&tls.ca_file)),
        format!("tls-cert-file {}", file(&tls.cert_file)),
        format!("tls-key-file {}", file(&tls.key_file)),
        "tls-auth-clients yes".into(),
        // Of Sentinels: towards each other and towards nodes.
        "tls-replication yes".into(),
    ]);
    lines
}

fn text(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

/// 40 hexadecimal digits.
fn run_id() -> String {
    (0..40)
        .map(|_| char::from(b"0123456789abcdef"[fastrand::usize(..16)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_cannot_leave_its_quotes() {
        assert_eq!(quoted("a b"), "\"a b\"");
        assert_eq!(quoted("\"\\\nü"), "\"\\\"\\\\\\x0a\\xc3\\xbc\"");
    }
}
