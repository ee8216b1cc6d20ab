//! What is said where one side has TLS and the other has not, and commands for peers that have it.

use std::path::PathBuf;

use super::finding::{Code, Level, redis_cli};
use super::tests::{first, said, said_of};
use crate::net::addr::HostPort;
use crate::net::tls::{Connector, Origin, Verify};
use crate::sentinel::client::ClientError;

fn ended() -> ClientError {
    ClientError::Ended("Connection reset by peer (os error 104)".to_owned())
}

fn connector(ca: Option<&str>, identity: Option<(&str, &str)>) -> Connector {
    let connector = Connector::new(&Verify::Nobody, None, None).expect("usable");
    connector.of(Origin {
        table: "[proxy.upstream_tls]",
        ca_file: ca.map(PathBuf::from),
        identity: identity.map(|(cert, key)| (PathBuf::from(cert), PathBuf::from(key))),
    })
}

#[test]
fn a_peer_that_ends_it_at_the_first_words_may_speak_tls() {
    let findings = said(|s| s[0].told = Err(ended()));
    assert_eq!(first(&findings), (Level::Fail, Code::SentinelUnreachable));
    let said = &findings[0].message;
    assert!(
        said.starts_with("cannot be asked: the connection was taken"),
        "{said}"
    );
    assert!(said.ends_with("Then set ca_file in [sentinel]"), "{said}");

    let findings = said_of(|n| n.master.as_mut().expect("a master").told = Err(ended()));
    assert_eq!(first(&findings), (Level::Fail, Code::MasterUnreachable));
    let (said, hint) = (&findings[0].message, findings[0].hint.as_deref());
    assert!(
        said.ends_with("Then set ca_file in [proxy.upstream_tls]"),
        "{said}"
    );
    assert!(
        !hint.expect("a command").contains("address_map"),
        "it is there"
    );
}

#[test]
fn commands_for_peers_with_tls_have_it() {
    let at = HostPort::parse("10.0.0.1", Some(6379)).expect("an address");
    let with = |tls: Option<&Connector>| redis_cli(tls, &at, &["ROLE"]);
    assert_eq!(with(None), "redis-cli -h 10.0.0.1 -p 6379 ROLE");
    let all = connector(Some("/etc/my ca.crt"), Some(("/etc/a.crt", "/etc/a.key")));
    assert_eq!(
        with(Some(&all)),
        "redis-cli -h 10.0.0.1 -p 6379 --tls --insecure --cacert '/etc/my ca.crt' --cert /etc/a.crt --key /etc/a.key ROLE"
    );
    let bare = connector(None, None);
    assert_eq!(
        with(Some(&bare)),
        "redis-cli -h 10.0.0.1 -p 6379 --tls --insecure ROLE"
    );
    let findings = said_of(|n| {
        n.tls = Some(connector(Some("/ca.crt"), None));
        n.min_replicas = Some(Ok(0));
    });
    let hint = findings[0].hint.as_deref().expect("commands");
    assert_eq!(hint.matches("--cacert /ca.crt CONFIG").count(), 3, "{hint}");
}
