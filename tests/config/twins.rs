//! Every key as an environment variable.

use std::fs;

use switchmaster::config;
use switchmaster::config::schema::Key;

use super::authority::Authority;
use super::{env, file};

#[test]
fn every_key_has_a_working_twin() {
    let dir = tempfile::tempdir().expect("a folder");
    let [password, token] = ["password", "token"].map(|name| dir.path().join(name));
    fs::write(&password, "secret").expect("written");
    fs::write(&token, "0123456789abcdef\n").expect("written");
    let authority = Authority::new(dir.path(), "ca");
    let pair = authority.sign("here", &["localhost"]);
    let [ca, cert, key_file] =
        [&authority.file(), &pair.cert, &pair.key].map(|path| path.display().to_string());
    let values: Vec<(String, String)> = Key::ALL
        .into_iter()
        .map(|key| {
            let value = match key {
                Key::SentinelAddresses => "10.0.0.3, 10.0.0.4:26380",
                Key::SentinelUsername | Key::ProbeUsername | Key::LoginUsername => "user",
                Key::SentinelPasswordFile | Key::ProbePasswordFile | Key::LoginPasswordFile => {
                    password.to_str().expect("text")
                }
                Key::AdminTokenFile => token.to_str().expect("text"),
                Key::SentinelCaFile | Key::ClientTlsCaFile | Key::UpstreamTlsCaFile => &*ca,
                Key::SentinelCertFile | Key::ClientTlsCertFile | Key::UpstreamTlsCertFile => &*cert,
                Key::SentinelKeyFile | Key::ClientTlsKeyFile | Key::UpstreamTlsKeyFile => {
                    &*key_file
                }
                Key::SentinelServerName | Key::UpstreamTlsServerName => "redis-a",
                Key::SentinelTls
                | Key::SentinelInsecure
                | Key::UpstreamTlsEnabled
                | Key::UpstreamTlsInsecure => "true",
                Key::Discover | Key::ReplayAuth | Key::SpareUpstreams => "false",
                Key::AddressMap => "172.19.0.2:6379=redis-a:6379,172.19.0.3=10.0.0.3",
                Key::FenceAtOdown | Key::ResendReads | Key::AdminActions => "true",
                Key::WhenSentinelsAreLost => "stop",
                Key::OnSwitch => "close",
                Key::Pubsub => "move",
                Key::Agree => "majority",
                Key::Verify | Key::Confirm => "role",
                Key::MaxHeld
                | Key::MaxConnections
                | Key::MaxPerSource
                | Key::MaxConnectionsInAll
                | Key::Workers => "7",
                Key::AllowedUids => "7, 8",
                Key::SocketMode => "0600",
                Key::SocketGroup => "7",
                Key::Name | Key::Master => "other",
                Key::Role => "replica",
                Key::Fallback => "master",
                Key::Listen => "0.0.0.0:7000,unix:/run/a.sock",
                Key::AllowFrom | Key::AdminAllowFrom | Key::ProxyProtocolFrom => {
                    "10.0.0.0/8,192.0.2.0/24"
                }
                Key::AdminListen => "0.0.0.0:8480",
                Key::Level => "debug",
                Key::Format => "json",
                Key::PollInterval => "700ms",
                Key::SentinelConnectTimeout
                | Key::MaxLag
                | Key::HoldMax
                | Key::ShutdownGrace
                | Key::AnnouncedHoldMax
                | Key::ProxyConnectTimeout
                | Key::FirstRequestTimeout
                | Key::WriteStallTimeout
                | Key::UpstreamUserTimeout => "7s",
            };
            (key.env(), value.to_owned())
        })
        .collect();
    let pairs: Vec<_> = values
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let empty = file("");
    let loaded = match config::load(&empty.flags(), env(&pairs)) {
        Ok(loaded) => loaded,
        Err(e) => panic!("{e}"),
    };
    let shown = loaded.show();
    for (name, _) in pairs {
        assert!(
            shown.contains(&format!(" # env {name}")),
            "{name} in\n{shown}"
        );
    }
}
