//! A topology with TLS at every port, certificates demanded of everybody, and ACL users for those who are not clients: what any test
//! of the fault matrix runs on with `SWITCHMASTER_TEST_TLS=1`.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use switchmaster::config::EXAMPLE;
use switchmaster::demo::cluster::{Options, Tls};
use switchmaster::demo::wire;
use switchmaster::net::tls::{Connector, Identity, Roots, Verify};
use tempfile::TempDir;

use super::authority::{Authority, Pair};

/// The users that the proxy logs in as, by the keys that name them.
const USERS: [(&str, &str, &str); 2] = [
    (
        "SWITCHMASTER_SENTINEL_USERNAME",
        "proxy",
        "SWITCHMASTER_SENTINEL_PASSWORD",
    ),
    (
        "SWITCHMASTER_PROXY_PROBE_USERNAME",
        "probe",
        "SWITCHMASTER_PROXY_PROBE_PASSWORD",
    ),
];

/// Of every ACL user here.
const PASSWORD: &str = "a-password-of-tests";

/// What the user at the Sentinels needs for an entry with `role = "replica"`, and what for `check --live`.
const FOR_REPLICAS: &str = "+sentinel|replicas";
const FOR_CHECK: &str = "+info +sentinel|ckquorum";

/// The rights that the example file says are enough for this user.
pub(crate) fn documented(user: &str) -> &'static str {
    for more in [FOR_REPLICAS, FOR_CHECK] {
        assert!(EXAMPLE.contains(more), "{more}");
    }
    let rule = format!("ACL SETUSER {user} on >PASSWORD ");
    let (_, rights) = EXAMPLE.split_once(&rule).expect("the example says them");
    rights.lines().next().expect("rights")
}

/// Certificates for everybody, for as long as the test process runs.
pub(crate) struct Papers {
    _folder: TempDir,
    pub(crate) authority: Authority,
    pub(crate) ca: PathBuf,
    pub(crate) server: Pair,
    pub(crate) client: Pair,
}

/// What this run wants everything to have TLS with, if so.
pub(crate) fn papers() -> Option<&'static Papers> {
    let wanted = std::env::var_os("SWITCHMASTER_TEST_TLS").is_some();
    wanted.then(everywhere)
}

/// From now on every [`Conn`](wire::Conn) of this test process has TLS.
pub(crate) fn everywhere() -> &'static Papers {
    static PAPERS: OnceLock<Papers> = OnceLock::new();
    PAPERS.get_or_init(|| {
        let papers = Papers::new();
        wire::connect_with_tls(papers.connector());
        papers
    })
}

/// A test that brings a password of its own brings its user, too, if it has one.
pub(crate) fn gives_way(command: &mut Command, to: &str) {
    for (key, user, password) in USERS {
        let is_ours = |(name, value): (&OsStr, Option<&OsStr>)| {
            name == key && value.is_some_and(|value| value == user)
        };
        if to == password && command.get_envs().any(is_ours) {
            command.env_remove(key);
        }
    }
}

impl Papers {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new(folder.path(), "ca");
        Self {
            ca: authority.file(),
            server: authority.sign("server", &["localhost", "127.0.0.1"]),
            client: authority.sign("client", &["app"]),
            authority,
            _folder: folder,
        }
    }

    /// How tests themselves meet servers and the proxy.
    pub(crate) fn connector(&self) -> Connector {
        let roots = Roots::read(&self.ca).expect("an authority");
        let identity = Identity::read(&self.client.cert, &self.client.key).expect("a certificate");
        Connector::new(&Verify::Against(roots), Some(&identity), None).expect("usable")
    }

    pub(crate) fn servers(&self) -> Tls {
        Tls {
            ca_file: self.ca.clone(),
            cert_file: self.server.cert.clone(),
            key_file: self.server.key.clone(),
        }
    }

    /// Every server speaks TLS; replication, Sentinels and the proxy log in as users of their own.
    pub(crate) fn secure(&self, options: &mut Options) {
        options.tls = Some(self.servers());
        let user = |name: &str, rights: &str| format!("user {name} on >{PASSWORD} {rights}");
        options.extra_node_config.extend([
            user("probe", documented("probe")),
            user("replica", "resetchannels -@all +psync +replconf +ping"),
            user(
                "watcher",
                "allchannels -@all +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info \
                 +client|setname +client|kill +script|kill",
            ),
        ]);
        if options.requirepass.is_none() {
            options.extra_node_config.extend([
                "masteruser replica".to_owned(),
                format!("masterauth {PASSWORD}"),
            ]);
            let name = &options.master_name;
            options.extra_sentinel_config.extend([
                format!("sentinel auth-user {name} watcher"),
                format!("sentinel auth-pass {name} {PASSWORD}"),
            ]);
        }
        let rights = documented("switchmaster");
        let rights = format!("{rights} {FOR_REPLICAS} {FOR_CHECK}");
        options.extra_sentinel_config.push(user("proxy", &rights));
    }

    /// The proxy meets everybody with TLS: clients, masters, Sentinels.
    pub(crate) fn proxy(&self, command: &mut Command) {
        let (ca, server, client) = (&self.ca, &self.server, &self.client);
        for (key, user, password) in USERS {
            command.env(key, user).env(password, PASSWORD);
        }
        command
            .env("SWITCHMASTER_PROXY_CLIENT_TLS_CERT_FILE", &server.cert)
            .env("SWITCHMASTER_PROXY_CLIENT_TLS_KEY_FILE", &server.key)
            .env("SWITCHMASTER_PROXY_CLIENT_TLS_CLIENT_CA_FILE", ca);
        for table in ["SENTINEL", "PROXY_UPSTREAM_TLS"] {
            command
                .env(format!("SWITCHMASTER_{table}_CA_FILE"), ca)
                .env(format!("SWITCHMASTER_{table}_CERT_FILE"), &client.cert)
                .env(format!("SWITCHMASTER_{table}_KEY_FILE"), &client.key);
        }
    }
}
