//! Every metric there is: the one source of names, units, help and labels. `docs/metrics.md` is made of it, and tests hold the
//! exporter, the alert rules and the dashboard against it. Names are public interface.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    /// Prometheus' word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its full name.
    pub name: &'static str,
    /// See [`Kind`].
    pub kind: Kind,
    /// What it is, for people; with its unit.
    pub help: &'static str,
    /// The names of its labels. Values come from the configuration, from Sentinel, or from closed sets; never from a client.
    pub labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Metric = Metric {
            name: concat!("switchmaster_", $name),
            kind: Kind::$kind,
            help: $help,
            labels: &[$($label),*],
        };)*
        /// All of them, in the order in which they are documented.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD_INFO = Gauge "build_info" ["version"] "Always 1; the label says which program this is.";
    DRAINING = Gauge "draining" [] "1 from the signal that ends the process: it takes no new clients, and sessions end as they finish.";
    UPGRADES_FAILED = Counter "upgrades_failed_total" ["reason"] "Upgrades that came to nothing, by reason: this process went on.";

    MASTER_UP = Gauge "master_up" ["proxy"]
        "1 while clients are served by a verified master, 0 while they wait for one.";
    MASTER_INFO = Gauge "master_info" ["proxy", "addr"] "Always 1; the label is the master in force as Sentinel announces it.";
    MASTER_GENERATION = Gauge "master_generation" ["proxy"] "Masters adopted since the start, those of the processes before an upgrade included; grows by one at each switch.";
    MASTER_EPOCH = Gauge "master_epoch" ["proxy"] "Sentinel's config-epoch of the master in force.";
    MASTER_SINCE = Gauge "master_since_timestamp_seconds" ["proxy"] "When the master in force was adopted, in seconds of the Unix epoch.";
    MASTER_UNVERIFIED = Gauge "master_unverified" ["proxy"]
        "1 while the master hides its role from the proxy and is trusted because most Sentinels name it.";
    DEGRADED = Gauge "degraded" ["proxy"] "1 while no Sentinel answers; the last verified master serves on, but a failover would go unnoticed.";
    AMBIGUOUS = Gauge "ambiguous" ["proxy"] "1 while the Sentinels name several masters at one config-epoch and no majority agrees.";

    SWITCHES = Counter "switches_total" ["proxy", "trigger"] "Switches to another master, by what set them off.";
    SWITCH_DURATION = Histogram "switch_duration_seconds" ["proxy", "phase"]
        "Phases of a switch, in seconds. detect: from the first moment clients had to wait to the decision; verify: until the new master had proved its role; first_byte: until its first reply reached a client (only when clients were at work).";
    UNAVAILABLE = Counter "unavailable_seconds_total" ["proxy"]
        "Time in which clients could not be served, in seconds; grows while it lasts.";
    HOLDS = Counter "holds_total" ["proxy", "outcome"] "Times that clients had to wait, by how it ended: switched or resumed.";
    HOLD_SECONDS = Histogram "hold_seconds" ["proxy"] "How long clients had to wait each time, in seconds.";
    FENCE_SECONDS = Histogram "fence_seconds" ["proxy"]
        "From a switch until the last connection to the old master was given up, in seconds.";
    UNFENCED = Counter "switches_unfenced_total" ["proxy"]
        "Switches at which not every worker gave up the old master in time; must stay 0.";
    STANDSTILLS = Counter "standstills_total" ["proxy"]
        "Times this process stood still for more than half a second (SIGSTOP, suspended machine, no processor time).";

    SESSIONS_ACTIVE = Gauge "sessions_active" ["proxy"] "Sessions that are open.";
    SESSIONS_HELD = Gauge "sessions_held" ["proxy"] "Of those, sessions that wait for a master and have none meanwhile.";
    KEPT_BYTES = Gauge "kept_request_bytes" ["proxy"]
        "Memory set aside for what clients have said while there is no connection to say it to, in bytes: 32 KiB a session, and 64 MiB over all entries at the most.";
    SESSIONS_UNREAD = Gauge "sessions_unread" ["proxy"] "Sessions whose clients are not read meanwhile, because none of that memory is left.";
    SESSIONS = Counter "sessions_total" ["proxy", "result"]
        "Connections of clients: accepted, not_allowed (allow_from, allowed_uids, a missing header of a balancer), full (max_connections, open files), or source_full (max_connections_per_source).";
    TLS_REFUSED = Counter "tls_handshake_failures_total" ["proxy", "reason"]
        "Connections of clients that were closed before they were served because of TLS, by reason: not_tls (it speaks something else), proxy_header (of the PROXY protocol, from none in `proxy_protocol_from`), timeout, left, crowded (too many at once), no_certificate, bad_certificate, declined (it does not accept ours), incompatible, misbehaved.";
    SESSIONS_CLOSED = Counter "sessions_closed_total" ["proxy", "reason"] "Sessions that ended, by reason.";
    SESSIONS_ADOPTED = Counter "sessions_adopted_total" ["proxy"] "Sessions that were taken over from the process before (an upgrade), or taken back from the one after.";
    SESSIONS_MOVED = Counter "sessions_moved_total" ["proxy"] "Times that a session was carried over to another upstream connection.";
    REPLAY_FAILURES = Counter "replay_failures_total" ["proxy"] "Times that a new master did not take over what a session needs.";
    REQUESTS_REFUSED = Counter "requests_refused_total" ["proxy"]
        "Requests answered with -LOADING for want of a master; none of them was executed.";
    REQUESTS_UNKNOWN = Counter "requests_unknown_total" ["proxy"]
        "Requests that a master was sent, in part or as a whole, and whose replies were lost when the proxy closed their connection: whether they were executed the client cannot know. A connection that is not followed request by request counts one if its client had the last word; clients that left by themselves are not counted.";
    SESSIONS_RETIRED = Counter "sessions_retired_total" ["proxy", "reason"]
        "Sessions that ended and could not have been carried over any more, by what they had done (on_switch = \"move\").";
    OLD_GENERATION_BYTES = Counter "old_generation_bytes_total" ["proxy"]
        "Bytes that went to a master that had been left by then, looked at after each write; must stay 0.";
    BYTES = Counter "bytes_total" ["proxy", "direction"] "Bytes relayed: up to the master, down to clients.";
    DIAL_SECONDS = Histogram "dial_duration_seconds" ["proxy"] "TCP connections to the master that succeeded, in seconds.";
    DIAL_FAILURES = Counter "dial_failures_total" ["proxy", "reason"]
        "TCP connections to the master that failed, by reason; no_port: this host had no local port left, and clients wait for one.";
    ACCEPT_ERRORS = Counter "accept_errors_total" ["proxy"] "Failed calls of accept(2), for want of descriptors or memory.";

    ROLE_CHECK_FAILURES = Counter "role_check_failures_total" ["proxy", "reason"]
        "Answers to ROLE that were not a master's, by what was wrong.";
    SENTINEL_UP = Gauge "sentinel_up" ["master", "sentinel"] "1 while the link to this Sentinel works.";
    SENTINEL_VIEW_EPOCH = Gauge "sentinel_view_epoch" ["master", "sentinel"] "The config-epoch this Sentinel gives the master.";
    SENTINEL_DISAGREES = Gauge "sentinel_disagrees" ["master", "sentinel"]
        "1 while this Sentinel names another master than the one in force.";
    SENTINEL_QUORUM_OK = Gauge "sentinel_quorum_ok" ["master"]
        "1 while enough Sentinels answer to agree on a failover and to elect its leader.";
    SENTINEL_EVENTS = Counter "sentinel_events_total" ["proxy", "event"] "Events of Sentinels, by name; each Sentinel's counts.";
    REPLICA_UP = Gauge "replica_up" ["proxy", "replica"] "Always 1 for each replica that the master tells of (ROLE, every 5 s; the first 64).";
    REPLICA_LAG = Gauge "replica_lag_bytes" ["proxy", "replica"]
        "Bytes of the replication stream that this replica has not acknowledged.";
    REPLICA_USABLE = Gauge "replica_usable" ["proxy", "replica"]
        "1 while clients are led to this replica (role = \"replica\"), 0 while it is listed and they are not.";
    REPLICA_SESSIONS = Gauge "replica_sessions" ["proxy", "replica"] "Sessions that read from this replica (role = \"replica\").";
    REPLICA_AGE = Gauge "replica_age_seconds" ["proxy", "replica"]
        "What this replica has is no older than that (role = \"replica\"); nothing where that is not known.";
    READS_FROM_MASTER = Gauge "reads_from_master" ["proxy"]
        "1 while clients are led to the master for want of a replica (fallback = \"master\").";

    PAUSED = Gauge "paused" ["proxy"] "1 while an operator has paused the entry (POST /proxies/NAME/pause).";
    ACTIONS_REFUSED = Counter "actions_refused_total" ["reason"]
        "Attempts to act over the admin endpoint by somebody who may not: no_token, wrong_token, wrong_user.";

    RELOADS = Counter "reloads_total" ["outcome"] "Times that the configuration was read anew (SIGHUP, POST /reload): reloaded, unchanged, or failed.";
    LAST_RELOAD_SUCCESSFUL = Gauge "config_last_reload_successful" []
        "0 while the configuration as it was read last cannot be carried out and an older one is in force, else 1.";
    LAST_RELOAD_TIMESTAMP = Gauge "config_last_reload_timestamp_seconds" []
        "When the configuration in force was read last, in seconds of the Unix epoch; at first the start.";

    CERTIFICATE_EXPIRY = Gauge "certificate_expiry_timestamp_seconds" ["proxy", "leg"]
        "When a certificate of the proxy's own expires, in seconds of the Unix epoch: the one it shows to clients, to data nodes (upstream), or to Sentinels (whose proxy is empty); of a chain, the part that ends first.";

    LOG_LINES_DROPPED = Counter "log_lines_dropped_total" [] "Log lines lost because stderr was not read fast enough.";
}

/// Bucket bounds of waits and outages, in seconds: from a quick switch to `hold_max`.
pub const LONG_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0,
];
/// Of what takes microseconds to milliseconds.
pub const SHORT_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0,
];

/// The document: a table of all metrics.
pub fn document() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         What `GET /metrics` of the admin endpoint gives, in Prometheus' text format. This page is made from the table in\n\
         `src/admin/table.rs`. Beside these there is the customary `process_*` family. No label ever holds the address of a\n\
         client, a key, a user or anything else that a client sends.\n\n\
         | name | kind | labels | what it is |\n|---|---|---|---|\n",
    );
    for metric in ALL {
        let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        page.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            metric.name,
            metric.kind.word(),
            labels.join(", "),
            metric.help
        ));
    }
    page
}
