//! What the doctor says: data. Text and JSON are renderings of the same list ([`super::render`]).

use serde::Serialize;

use crate::net::addr::HostPort;
use crate::net::tls::Connector;

/// How bad it is. Worse is less, so that the worst sorts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Does not work, or will not when it is needed.
    Fail,
    /// Works, with a risk that can be named; or could not be looked at.
    Warn,
    /// As it should be.
    Ok,
}

/// What was found: public interface, in snake case. In the order of the path from this host to the replicas, except that a
/// fault stands before what follows from it or explains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Code {
    // This host.
    PortTaken,
    PortRefused,
    PortInRange,
    ProxyStuck,
    FewOpenFiles,
    NarrowPortRange,
    ConfigWarning,
    CertificateExpired,
    CertificateExpiresSoon,
    // Sentinels.
    SentinelNamesThisProxy,
    QuorumUnreachable,
    SentinelUnreachable,
    SentinelTlsFailed,
    SentinelLoginNeeded,
    SentinelLoginRefused,
    SentinelRightMissing,
    NotASentinel,
    MasterUnknown,
    SentinelsDisagree,
    SentinelEpochDiffers,
    MasterCalledDown,
    SentinelInTilt,
    SentinelsEven,
    SentinelsFew,
    SentinelTwice,
    DownAfterLong,
    SentinelNotLookedAt,
    // The master.
    MasterAddressLoopback,
    MasterUnreachable,
    MasterTlsFailed,
    MasterIsReplica,
    MasterLoading,
    NotADataNode,
    ProbeLoginNeeded,
    ProbeLoginRefused,
    ProbeLoginIgnored,
    ProbeRightMissing,
    ClientLoginFailed,
    MasterNotLookedAt,
    // Replicas.
    NoReplicas,
    ReplicaMissing,
    ReplicaAddressLoopback,
    ReplicaUnreachable,
    ReplicaTlsFailed,
    ReplicaIsMaster,
    ReplicaBehind,
    MinReplicasUnset,
    MinReplicasNotLookedAt,
    // What is as it should be.
    ConfigValid,
    CertificateValid,
    PortFree,
    ProxyRunning,
    OpenFiles,
    PortRange,
    SentinelOk,
    Quorum,
    SentinelsAgree,
    MasterOk,
    ClientLoginOk,
    ReplicaOk,
    MinReplicasSet,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is, for programs.
    pub code: Code,
    /// How bad.
    pub level: Level,
    /// Whom it concerns: an address, a name.
    pub subject: String,
    /// One sentence.
    pub message: String,
    /// What can be done; commands and configuration lines can be pasted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    pub(super) fn fail(code: Code, subject: impl ToString, message: impl Into<String>) -> Self {
        Self::new(Level::Fail, code, subject, message)
    }

    pub(super) fn warn(code: Code, subject: impl ToString, message: impl Into<String>) -> Self {
        Self::new(Level::Warn, code, subject, message)
    }

    pub(super) fn ok(code: Code, subject: impl ToString, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, code, subject, message)
    }

    pub(super) fn new(
        level: Level,
        code: Code,
        subject: impl ToString,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            level,
            subject: subject.to_string(),
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// Worst first, then in the order of the path.
pub(super) fn sort(findings: &mut [Finding]) {
    // Stable: what concerns several peers alike stays in the order of the configuration.
    findings.sort_by_key(|finding| (finding.level, finding.code));
}

/// A command for this peer, which is met like this, to be pasted into a shell.
pub(super) fn redis_cli(tls: Option<&Connector>, at: &HostPort, words: &[&str]) -> String {
    let mut line = format!("redis-cli -h {} -p {}", at.host, at.port);
    if let Some(tls) = tls {
        line.push_str(" --tls");
        if tls.believes_all() {
            line.push_str(" --insecure");
        }
        let origin = tls.origin();
        let ca = origin.and_then(|origin| origin.ca_file.as_ref());
        let (cert, key) = origin
            .and_then(|origin| origin.identity.as_ref())
            .map(|(cert, key)| (cert, key))
            .unzip();
        for (flag, file) in [("--cacert", ca), ("--cert", cert), ("--key", key)] {
            if let Some(file) = file {
                line = format!("{line} {flag} {}", shell_word(&file.to_string_lossy()));
            }
        }
    }
    for word in words {
        line.push(' ');
        line.push_str(&shell_word(word));
    }
    line
}

/// A command that shows what this peer has to say about TLS.
pub(super) fn tls_client(at: &HostPort) -> String {
    let peer = shell_word(&format!("{}:{}", at.host, at.port));
    format!(
        "openssl s_client -connect {peer} </dev/null | openssl x509 -noout -subject -enddate -ext subjectAltName"
    )
}

/// A word as a shell takes it for one.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+./:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for (word, shown) in [
            ("+subscribe", "+subscribe"),
            ("+sentinel|master", "'+sentinel|master'"),
            ("&+odown", "'&+odown'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(word), shown);
        }
    }

    #[test]
    fn the_worst_comes_first_and_then_the_path() {
        let mut findings = vec![
            Finding::ok(Code::ConfigValid, "", ""),
            Finding::warn(Code::MinReplicasUnset, "", ""),
            Finding::fail(Code::MasterUnreachable, "", ""),
            Finding::warn(Code::FewOpenFiles, "", ""),
            Finding::fail(Code::SentinelUnreachable, "", ""),
            Finding::fail(Code::QuorumUnreachable, "", ""),
        ];
        sort(&mut findings);
        let codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
        assert_eq!(
            codes,
            [
                Code::QuorumUnreachable,
                Code::SentinelUnreachable,
                Code::MasterUnreachable,
                Code::FewOpenFiles,
                Code::MinReplicasUnset,
                Code::ConfigValid,
            ]
        );
    }
}
