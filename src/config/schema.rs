//! Every key there is: its place in the file, its environment twin. A key is added here when it works.

/// A table of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// `[sentinel]`
    Sentinel,
    /// `[failover]`
    Failover,
    /// `[[proxy]]`
    Proxy,
    /// `[proxy.probe]`
    Probe,
    /// `[proxy.login]`
    Login,
    /// `[proxy.client_tls]`
    ClientTls,
    /// `[proxy.upstream_tls]`
    UpstreamTls,
    /// `[address_map]`, whose keys are the operator's own.
    AddressMap,
    /// `[admin]`
    Admin,
    /// `[limits]`
    Limits,
    /// `[log]`
    Log,
}

impl Section {
    /// All tables, in the order of the example file.
    pub const ALL: [Self; 11] = [
        Self::Sentinel,
        Self::Failover,
        Self::Proxy,
        Self::Probe,
        Self::Login,
        Self::ClientTls,
        Self::UpstreamTls,
        Self::AddressMap,
        Self::Admin,
        Self::Limits,
        Self::Log,
    ];

    /// The table's dotted name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sentinel => "sentinel",
            Self::Failover => "failover",
            Self::Proxy => "proxy",
            Self::Probe => "proxy.probe",
            Self::Login => "proxy.login",
            Self::ClientTls => "proxy.client_tls",
            Self::UpstreamTls => "proxy.upstream_tls",
            Self::AddressMap => "address_map",
            Self::Admin => "admin",
            Self::Limits => "limits",
            Self::Log => "log",
        }
    }

    /// The table as a line of the file.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Sentinel => "[sentinel]",
            Self::Failover => "[failover]",
            Self::Proxy => "[[proxy]]",
            Self::Probe => "[proxy.probe]",
            Self::Login => "[proxy.login]",
            Self::ClientTls => "[proxy.client_tls]",
            Self::UpstreamTls => "[proxy.upstream_tls]",
            Self::AddressMap => "[address_map]",
            Self::Admin => "[admin]",
            Self::Limits => "[limits]",
            Self::Log => "[log]",
        }
    }

    /// A table of a `[[proxy]]` entry.
    pub const fn is_per_proxy(self) -> bool {
        matches!(
            self,
            Self::Proxy | Self::Probe | Self::Login | Self::ClientTls | Self::UpstreamTls
        )
    }

    /// What it is called within a `[[proxy]]` entry.
    pub fn in_entry(self) -> Option<&'static str> {
        self.name().strip_prefix("proxy.")
    }

    /// The keys of this table.
    pub fn keys(self) -> impl Iterator<Item = Key> {
        Key::ALL
            .into_iter()
            .filter(move |key| key.section() == self)
    }
}

macro_rules! keys {
    ($($(#[$doc:meta])* $key:ident = $section:ident, $name:literal;)*) => {
        /// A key of the configuration.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Key {
            $($(#[$doc])* $key,)*
        }

        impl Key {
            /// All keys, in the order of the example file.
            pub const ALL: [Self; [$(Self::$key),*].len()] = [$(Self::$key),*];

            /// The table it is in.
            pub const fn section(self) -> Section {
                match self { $(Self::$key => Section::$section,)* }
            }

            /// Its name inside the table.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$key => $name,)* }
            }
        }
    };
}

keys! {
    /// Where Sentinels are asked.
    SentinelAddresses = Sentinel, "addresses";
    /// ACL user at a Sentinel.
    SentinelUsername = Sentinel, "username";
    /// File that holds the password for Sentinels.
    SentinelPasswordFile = Sentinel, "password_file";
    /// Meet Sentinels with TLS.
    SentinelTls = Sentinel, "tls";
    /// Authorities that may vouch for a Sentinel.
    SentinelCaFile = Sentinel, "ca_file";
    /// Our certificate for Sentinels that demand one.
    SentinelCertFile = Sentinel, "cert_file";
    /// Its key.
    SentinelKeyFile = Sentinel, "key_file";
    /// The name that Sentinels' certificates are for.
    SentinelServerName = Sentinel, "server_name";
    /// Believe any Sentinel.
    SentinelInsecure = Sentinel, "insecure_skip_verify";
    /// Also follow Sentinels that others report.
    Discover = Sentinel, "discover";
    /// Longest wait for a TCP connection to a Sentinel.
    SentinelConnectTimeout = Sentinel, "connect_timeout";
    /// How often each Sentinel is asked.
    PollInterval = Sentinel, "poll_interval";
    /// What happens to sessions at a switch.
    OnSwitch = Failover, "on_switch";
    /// Keep clients' credentials for a move.
    ReplayAuth = Failover, "replay_auth";
    /// What happens to subscribed sessions at a switch.
    Pubsub = Failover, "pubsub";
    /// Send a read again whose master was lost.
    ResendReads = Failover, "resend_reads";
    /// How long clients wait for a master.
    HoldMax = Failover, "hold_max";
    /// How long clients wait for an announced promotion.
    AnnouncedHoldMax = Failover, "announced_hold_max";
    /// Whose word a promoted replica needs before clients go to it.
    Confirm = Failover, "confirm";
    /// How many Sentinels must name a new master.
    Agree = Failover, "agree";
    /// What a claimed master has to prove.
    Verify = Failover, "verify";
    /// What happens to clients while no majority of the Sentinels answers.
    WhenSentinelsAreLost = Failover, "when_sentinels_are_lost";
    /// Hold as soon as a quorum calls the master down.
    FenceAtOdown = Failover, "fence_at_odown";
    /// Most clients that wait at once.
    MaxHeld = Failover, "max_held";
    /// The proxy entry's name in logs.
    Name = Proxy, "name";
    /// The name Sentinel knows the master by.
    Master = Proxy, "master";
    /// Whom clients are led to.
    Role = Proxy, "role";
    /// Oldest data that is read from a replica.
    MaxLag = Proxy, "max_lag";
    /// What becomes of clients when no replica may be read from.
    Fallback = Proxy, "fallback";
    /// Where clients connect.
    Listen = Proxy, "listen";
    /// Who may connect.
    AllowFrom = Proxy, "allow_from";
    /// Longest wait for a TCP connection to the master.
    ProxyConnectTimeout = Proxy, "connect_timeout";
    /// Give an upstream that a client left as it found it to the next client.
    SpareUpstreams = Proxy, "spare_upstreams";
    /// Most sessions at once.
    MaxConnections = Proxy, "max_connections";
    /// Most of them from one address.
    MaxPerSource = Proxy, "max_connections_per_source";
    /// Balancers that convey their clients' addresses.
    ProxyProtocolFrom = Proxy, "proxy_protocol_from";
    /// Who may connect to a unix socket.
    AllowedUids = Proxy, "allowed_uids";
    /// Permissions of unix sockets.
    SocketMode = Proxy, "socket_mode";
    /// Group of unix sockets.
    SocketGroup = Proxy, "socket_group";
    /// Oldest unacknowledged bytes towards the master.
    UpstreamUserTimeout = Proxy, "upstream_user_timeout";
    /// ACL user of the proxy's own ROLE checks.
    ProbeUsername = Probe, "username";
    /// File that holds the password of the proxy's own ROLE checks.
    ProbePasswordFile = Probe, "password_file";
    /// ACL user that clients' connections are logged in as.
    LoginUsername = Login, "username";
    /// File that holds its password.
    LoginPasswordFile = Login, "password_file";
    /// Our certificate for clients.
    ClientTlsCertFile = ClientTls, "cert_file";
    /// Its key.
    ClientTlsKeyFile = ClientTls, "key_file";
    /// Authorities one of which has to vouch for a client.
    ClientTlsCaFile = ClientTls, "client_ca_file";
    /// Meet data nodes with TLS.
    UpstreamTlsEnabled = UpstreamTls, "enabled";
    /// Authorities that may vouch for a data node.
    UpstreamTlsCaFile = UpstreamTls, "ca_file";
    /// Our certificate for data nodes that demand one.
    UpstreamTlsCertFile = UpstreamTls, "cert_file";
    /// Its key.
    UpstreamTlsKeyFile = UpstreamTls, "key_file";
    /// The name that data nodes' certificates are for.
    UpstreamTlsServerName = UpstreamTls, "server_name";
    /// Believe any data node.
    UpstreamTlsInsecure = UpstreamTls, "insecure_skip_verify";
    /// Announced address -> reachable address; the whole table.
    AddressMap = AddressMap, "";
    /// Where the status page and the metrics are.
    AdminListen = Admin, "listen";
    /// Who may look at them.
    AdminAllowFrom = Admin, "allow_from";
    /// Whether one may act there, too.
    AdminActions = Admin, "actions";
    /// File that holds the token of those who may.
    AdminTokenFile = Admin, "token_file";
    /// Data-plane threads.
    Workers = Limits, "workers";
    /// Most sessions at once over all entries.
    MaxConnectionsInAll = Limits, "max_connections";
    /// How long a client may be silent where places are few.
    FirstRequestTimeout = Limits, "first_request_timeout";
    /// How long a client may take none of its replies.
    WriteStallTimeout = Limits, "write_stall_timeout";
    /// How long sessions have to end in order.
    ShutdownGrace = Limits, "shutdown_grace";
    /// What is logged.
    Level = Log, "level";
    /// How log lines look.
    Format = Log, "format";
}

impl Key {
    /// Its dotted name: `failover.hold_max`.
    pub fn path(self) -> String {
        match (self.section().name(), self.name()) {
            (table, "") => table.to_owned(),
            (table, name) => format!("{table}.{name}"),
        }
    }

    /// Its environment twin: `SWITCHMASTER_FAILOVER_HOLD_MAX`.
    pub fn env(self) -> String {
        format!(
            "{ENV_PREFIX}{}",
            self.path().replace('.', "_").to_ascii_uppercase()
        )
    }

    /// True for keys of a `[[proxy]]` entry.
    pub const fn is_per_proxy(self) -> bool {
        self.section().is_per_proxy()
    }
}

/// What every variable of ours starts with.
pub const ENV_PREFIX: &str = "SWITCHMASTER_";
/// Names the configuration file.
pub const ENV_CONFIG: &str = "SWITCHMASTER_CONFIG";
/// Holds the password for Sentinels.
pub const ENV_SENTINEL_PASSWORD: &str = "SWITCHMASTER_SENTINEL_PASSWORD";
/// Holds the password of the proxy's own ROLE checks.
pub const ENV_PROBE_PASSWORD: &str = "SWITCHMASTER_PROXY_PROBE_PASSWORD";
/// Holds the password that clients' connections are logged in with.
pub const ENV_LOGIN_PASSWORD: &str = "SWITCHMASTER_PROXY_LOGIN_PASSWORD";
/// Holds the token of those who may act over the admin endpoint.
pub const ENV_ADMIN_TOKEN: &str = "SWITCHMASTER_ADMIN_TOKEN";
/// Holds a URL: Sentinels, the master's name, and the login of the proxy's own ROLE checks.
pub const ENV_URL: &str = "SWITCHMASTER_URL";
/// Short names for the three values everybody sets.
pub const ENV_ALIASES: [(&str, Key); 3] = [
    ("SWITCHMASTER_SENTINEL", Key::SentinelAddresses),
    ("SWITCHMASTER_MASTER", Key::Master),
    ("SWITCHMASTER_LISTEN", Key::Listen),
];
