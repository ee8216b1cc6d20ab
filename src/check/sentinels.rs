//! What is to be said of the Sentinels: each by itself, then what they say together. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::facts::{SentinelFacts, believed, views};
use super::finding::{Code, Finding, redis_cli, tls_client};
use super::local::counted;
use crate::net::addr::HostPort;
use crate::net::address_map::AddressMap;
use crate::net::tls::Connector;
use crate::sentinel::client::ClientError;
use crate::sentinel::client::inspect::{LIST_REPLICAS, Subscription, Testimony};
use crate::sentinel::event::CHANNELS;
use crate::topology::observation::{NoView, View};

/// A longer `down-after-milliseconds` is a long outage at every crash, and a long hold.
const DOWN_AFTER_LONG: Duration = Duration::from_secs(10);
/// Rights without which a Sentinel is of no use to the proxy.
const NEEDED: &[&str] = &["+sentinel|master", "+sentinel|get-master-addr-by-name"];

/// What the judgement goes by, beside what was seen.
pub(super) struct Setting<'a> {
    /// The user of the login; `None` is the default user.
    pub(super) user: Option<&'a str>,
    /// A login is configured.
    pub(super) has_login: bool,
    /// How Sentinels are met; `None` is without TLS.
    pub(super) tls: Option<&'a Connector>,
    /// Sentinels that others report are followed, too.
    pub(super) discover: bool,
    pub(super) map: &'a AddressMap,
    /// The masters asked about, each once.
    pub(super) masters: &'a [String],
    /// Where this proxy listens.
    pub(super) own: &'a [SocketAddr],
}

pub(super) fn judge(sentinels: &[SentinelFacts], setting: &Setting<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for sentinel in sentinels {
        match &sentinel.told {
            Ok(told) => findings.extend(of_answering(sentinel, told, setting)),
            Err(error) => findings.push(of_failing(sentinel, error, setting)),
        }
    }
    findings.extend(twice(sentinels));
    for (index, master) in setting.masters.iter().enumerate() {
        findings.extend(together(sentinels, index, master, setting));
    }
    findings
}

fn subject(sentinel: &SentinelFacts) -> String {
    format!("Sentinel {}", sentinel.addr)
}

fn user<'a>(setting: &Setting<'a>) -> &'a str {
    setting.user.unwrap_or("default")
}

fn of_failing(sentinel: &SentinelFacts, error: &ClientError, setting: &Setting<'_>) -> Finding {
    let (subject, at) = (subject(sentinel), &sentinel.addr);
    let ping = || redis_cli(setting.tls, at, &["PING"]);
    match error {
        ClientError::Resolve(_)
        | ClientError::Io(_)
        | ClientError::Ended(_)
        | ClientError::Local(_)
        | ClientError::Timeout { .. } => {
            let more = error.suspicion("[sentinel]");
            let message = format!("cannot be {}: {error}{more}", verb(error));
            if sentinel.listed {
                Finding::fail(Code::SentinelUnreachable, subject, message).hint(ping())
            } else {
                // It counts as a voter all the same: a majority is one of all that are known.
                let message =
                    format!("{message}; it is not in sentinel.addresses, others report it");
                Finding::warn(Code::SentinelUnreachable, subject, message).hint(format!(
                    "{}\nif it is gone for good, at each other Sentinel, one after the other: SENTINEL RESET {}",
                    ping(),
                    setting.masters.first().map_or("mymaster", String::as_str)
                ))
            }
        }
        ClientError::Tls(_) => {
            let new = if sentinel.listed {
                Finding::fail
            } else {
                Finding::warn
            };
            new(Code::SentinelTlsFailed, subject, error.to_string()).hint(tls_client(at))
        }
        ClientError::LoginNeeded(_) => Finding::fail(
            Code::SentinelLoginNeeded,
            subject,
            format!("asks for a login and none is configured: {error}"),
        )
        .hint("[sentinel]\npassword_file = \"/etc/switchmaster/sentinel_password\""),
        ClientError::Auth(_) => Finding::fail(
            Code::SentinelLoginRefused,
            subject,
            format!(
                "refuses the password of user \"{}\": {error}",
                user(setting)
            ),
        )
        .hint(redis_cli(
            setting.tls,
            at,
            &["--user", user(setting), "--askpass", "PING"],
        )),
        ClientError::NoPermission(why) => Finding::fail(
            Code::SentinelRightMissing,
            subject,
            format!("user \"{}\" may not even begin: {why}", user(setting)),
        )
        .hint(redis_cli(
            setting.tls,
            at,
            &["ACL", "SETUSER", user(setting), "+hello", "+auth", "+ping"],
        )),
        ClientError::Protocol(why) => Finding::fail(
            Code::NotASentinel,
            subject,
            format!("does not answer as a Sentinel does: {why}"),
        )
        .hint(ping()),
    }
}

/// Whoever has taken a connection is there.
const fn verb(error: &ClientError) -> &'static str {
    match error {
        ClientError::Ended(_) => "asked",
        _ => "reached",
    }
}

fn of_answering(sentinel: &SentinelFacts, told: &Testimony, setting: &Setting<'_>) -> Vec<Finding> {
    let (subject, at) = (subject(sentinel), &sentinel.addr);
    let mut findings = Vec::new();
    findings.extend(rights(sentinel, told, setting));
    if told.tilt == Some(true) {
        findings.push(Finding::warn(
            Code::SentinelInTilt,
            &subject,
            "is in TILT: it saw its clock jump or was not run for 2 s, and takes no part in failovers for 30 s",
        ).hint(format!(
            "if that happens often its machine is starved or its clock is stepped\n{}",
            redis_cli(setting.tls, at, &["INFO", "sentinel"])
        )));
    }
    for (index, testimony) in told.masters.iter().enumerate() {
        let name = setting.masters.get(index).map_or("", String::as_str);
        match &testimony.view {
            Some(Ok(view)) => findings.extend(of_view(sentinel, view, name, setting)),
            Some(Err(NoView::UnknownMaster)) => findings.push(
                Finding::fail(
                    Code::MasterUnknown,
                    &subject,
                    format!("knows no master called \"{name}\""),
                )
                .hint(redis_cli(setting.tls, at, &["SENTINEL", "MASTERS"])),
            ),
            Some(Err(NoView::Absurd(why))) => findings.push(
                Finding::fail(
                    Code::NotASentinel,
                    &subject,
                    format!("gives no usable answer about \"{name}\" ({why}): is that a Sentinel?"),
                )
                .hint(redis_cli(setting.tls, at, &["SENTINEL", "MASTER", name])),
            ),
            // The right to say it is missing, which was said.
            None => {}
        }
    }
    if findings.is_empty() {
        let listed = if sentinel.listed {
            ""
        } else {
            ", known from the others"
        };
        let login = if setting.has_login { ", logged in" } else { "" };
        findings.push(Finding::ok(
            Code::SentinelOk,
            &subject,
            format!("answers{login}{listed}, and tells of every event"),
        ));
    }
    findings
}

/// Rights that are missing, with the line that grants them.
fn rights(sentinel: &SentinelFacts, told: &Testimony, setting: &Setting<'_>) -> Vec<Finding> {
    let channels: Vec<String> = CHANNELS.iter().map(|name| format!("&{name}")).collect();
    let channels = channels.iter().map(String::as_str);
    let mut needed: Vec<&str> = Vec::new();
    let mut without = Vec::new();
    match told.subscription {
        Subscription::Granted => {}
        // Without +subscribe nothing tells which channels are granted; a list of its own is right in every case.
        Subscription::CommandDenied => {
            without.push("SUBSCRIBE");
            needed.extend(["+subscribe", "resetchannels"]);
            needed.extend(channels);
        }
        Subscription::ChannelsDenied => {
            without.push("SUBSCRIBE to Sentinel's channels");
            needed.extend(channels);
        }
    }
    let mut wanted: Vec<&str> = Vec::new();
    let (listing, asked): (Vec<&str>, Vec<&str>) =
        { told.refused.iter() }.partition(|right| **right == LIST_REPLICAS);
    for right in &asked {
        if NEEDED.contains(right) {
            without.push(right);
            needed.push(right);
        } else {
            wanted.push(right);
        }
    }
    let grant = |rights: &[&str]| {
        let mut words = vec!["ACL", "SETUSER", user(setting)];
        words.extend(rights);
        let line = redis_cli(setting.tls, &sentinel.addr, &words);
        format!("{line}\nand the same in its sentinel.conf, so that it outlives a restart")
    };
    let mut findings = Vec::new();
    if !needed.is_empty() {
        findings.push(
            Finding::fail(
                Code::SentinelRightMissing,
                subject(sentinel),
                format!(
                    "user \"{}\" lacks the right to {}, so failovers are noticed late or not at all",
                    user(setting),
                    without.join(", ")
                ),
            )
            .hint(grant(&needed)),
        );
    }
    if !listing.is_empty() {
        findings.push(
            Finding::fail(
                Code::SentinelRightMissing,
                subject(sentinel),
                format!(
                    "user \"{}\" may not ask for the replicas, so that it says of none that it may be read from (role = \"replica\")",
                    user(setting)
                ),
            )
            .hint(grant(&listing)),
        );
    }
    if !wanted.is_empty() {
        findings.push(
            Finding::warn(
                Code::SentinelNotLookedAt,
                subject(sentinel),
                format!(
                    "could not be asked everything: user \"{}\" lacks {}",
                    user(setting),
                    wanted.join(" ")
                ),
            )
            .hint(grant(&wanted)),
        );
    }
    findings
}

fn of_view(
    sentinel: &SentinelFacts,
    view: &View,
    name: &str,
    setting: &Setting<'_>,
) -> Vec<Finding> {
    let (subject, at) = (subject(sentinel), &sentinel.addr);
    let mut findings = Vec::new();
    if names_us(&view.master.0, setting) {
        findings.push(
            Finding::fail(
                Code::SentinelNamesThisProxy,
                &subject,
                format!(
                    "names {} as the master \"{name}\", and that is this proxy's own address: it would talk to itself",
                    view.master
                ),
            )
            .hint(format!(
                "{}\nthen SENTINEL MONITOR {name} with the server's own address, or another --listen for this proxy",
                redis_cli(setting.tls, at, &["SENTINEL", "REMOVE", name])
            )),
        );
    }
    if view.objectively_down {
        findings.push(
            Finding::fail(
                Code::MasterCalledDown,
                &subject,
                format!(
                    "calls the master \"{name}\" ({}) down, and so does a quorum",
                    view.master
                ),
            )
            .hint(redis_cli(setting.tls, at, &["SENTINEL", "MASTER", name])),
        );
    }
    if let Some(after) = view.down_after.filter(|after| *after > DOWN_AFTER_LONG) {
        findings.push(
            Finding::warn(
                Code::DownAfterLong,
                &subject,
                format!(
                    "waits {} s before it calls \"{name}\" down: every crash is an outage of at least that long",
                    after.as_secs()
                ),
            )
            .hint(redis_cli(setting.tls, at,
                &["SENTINEL", "SET", name, "down-after-milliseconds", "5000"],
            )),
        );
    }
    findings
}

fn names_us(announced: &HostPort, setting: &Setting<'_>) -> bool {
    let reached = setting.map.reach(announced.clone()).socket_addr();
    reached.is_some_and(|addr| setting.own.contains(&addr))
}

/// Two addresses of one Sentinel: one voice.
fn twice(sentinels: &[SentinelFacts]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, sentinel) in sentinels.iter().enumerate() {
        let id = |s: &SentinelFacts| s.told.as_ref().ok().and_then(|told| told.run_id.clone());
        let Some(own) = id(sentinel).filter(|_| sentinel.listed) else {
            continue;
        };
        let earlier = sentinels[..n].iter().find(|s| id(s).as_ref() == Some(&own));
        if let Some(earlier) = earlier {
            findings.push(
                Finding::warn(
                    Code::SentinelTwice,
                    subject(sentinel),
                    format!(
                        "is the same Sentinel as {} (run id {own}): it counts once",
                        earlier.addr
                    ),
                )
                .hint(
                    "name each once; if these are two machines, one was cloned: stop it, remove `sentinel myid` from \
                     its file, start it",
                ),
            );
        }
    }
    findings
}

/// What they say of one master together.
fn together(
    sentinels: &[SentinelFacts],
    index: usize,
    name: &str,
    setting: &Setting<'_>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(agreement(sentinels, index, name, setting));
    if let Some(count) = Count::of(sentinels, index, setting.discover) {
        findings.push(quorum(sentinels, index, name, &count, setting));
        findings.extend(number(name, count.known));
    }
    findings
}

fn agreement(
    sentinels: &[SentinelFacts],
    index: usize,
    name: &str,
    setting: &Setting<'_>,
) -> Vec<Finding> {
    let Some((addr, epoch)) = believed(sentinels, index) else {
        return Vec::new();
    };
    let reach = |addr: &HostPort| setting.map.reach(addr.clone());
    let (mut agree, mut findings) = (Vec::new(), Vec::new());
    for (sentinel, view) in views(sentinels, index) {
        let same = reach(&view.master.0) == reach(&addr);
        if same && view.epoch == epoch {
            agree.push(sentinel.addr.to_string());
        }
    }
    for (sentinel, view) in views(sentinels, index) {
        let others = format!("{addr} at epoch {epoch} according to {}", agree.join(", "));
        if reach(&view.master.0) != reach(&addr) {
            findings.push(
                Finding::fail(
                    Code::SentinelsDisagree,
                    subject(sentinel),
                    format!(
                        "names {} as the master \"{name}\" at epoch {}, and it is {others}",
                        view.master, view.epoch
                    ),
                )
                .hint(format!(
                    "a failover under way? ask again in some seconds; else it is cut off from the others, or was set up \
                     anew:\n{}",
                    redis_cli(setting.tls, &sentinel.addr, &["SENTINEL", "SENTINELS", name])
                )),
            );
        } else if view.epoch != epoch {
            findings.push(
                Finding::warn(
                    Code::SentinelEpochDiffers,
                    subject(sentinel),
                    format!(
                        "is at epoch {} for \"{name}\", and it is {others}",
                        view.epoch
                    ),
                )
                .hint(redis_cli(
                    setting.tls,
                    &sentinel.addr,
                    &["SENTINEL", "SENTINELS", name],
                )),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            Code::SentinelsAgree,
            format!("master \"{name}\""),
            format!(
                "{} and no other view: {addr} at epoch {epoch}",
                counted(agree.len(), "Sentinel")
            ),
        ));
    }
    findings
}

/// How many Sentinels there are.
struct Count {
    /// All that know each other.
    known: usize,
    /// Those that are there, as far as it was looked.
    alive: usize,
    /// What a failover takes: the configured quorum to call the master down, a majority to lead.
    needed: usize,
}

impl Count {
    /// `None` where nobody tells of the master.
    fn of(sentinels: &[SentinelFacts], index: usize, discover: bool) -> Option<Self> {
        let told = || sentinels.iter().filter_map(|s| s.told.as_ref().ok());
        let listed = sentinels.iter().filter(|s| s.listed).count();
        let reported = told()
            .filter_map(|told| Some(told.masters.get(index)?.peers.as_ref()?.len() + 1))
            .max();
        views(sentinels, index).next()?;
        let quorum = views(sentinels, index)
            .filter_map(|(_, view)| view.quorum)
            .max();
        let known = reported.unwrap_or(listed);
        let ids: BTreeSet<_> = told().filter_map(|told| told.run_id.clone()).collect();
        let nameless = told().filter(|told| told.run_id.is_none()).count();
        // One that lets nobody in is there.
        let shut = sentinels.iter().filter(|s| {
            matches!(
                s.told,
                Err(ClientError::Auth(_)
                    | ClientError::LoginNeeded(_)
                    | ClientError::NoPermission(_))
            )
        });
        // Those that nobody was to look for.
        let unseen = if discover {
            0
        } else {
            known.saturating_sub(listed)
        };
        let quorum = quorum.and_then(|quorum| usize::try_from(quorum).ok());
        Some(Self {
            known,
            alive: ids.len() + nameless + shut.count() + unseen,
            needed: quorum.unwrap_or(0).max(known / 2 + 1),
        })
    }
}

fn quorum(
    sentinels: &[SentinelFacts],
    index: usize,
    name: &str,
    count: &Count,
    setting: &Setting<'_>,
) -> Finding {
    let subject = format!("quorum of \"{name}\"");
    let Count {
        known,
        alive,
        needed,
    } = count;
    let refusal = sentinels.iter().find_map(|sentinel| {
        let told = sentinel.told.as_ref().ok()?;
        match &told.masters.get(index)?.quorum {
            Some(Err(why)) => Some((&sentinel.addr, why)),
            _ => None,
        }
    });
    let asking = sentinels.iter().find(|s| s.told.is_ok());
    let hint = asking.map(|s| redis_cli(setting.tls, &s.addr, &["SENTINEL", "CKQUORUM", name]));
    let finding = if alive < needed {
        Finding::fail(
            Code::QuorumUnreachable,
            subject,
            format!(
                "no failover is possible: {alive} of {} can be reached from here, {needed} are needed",
                counted(*known, "Sentinel")
            ),
        )
    } else if let Some((addr, why)) = refusal {
        Finding::fail(
            Code::QuorumUnreachable,
            subject,
            format!("no failover is possible in the eyes of Sentinel {addr}: {why}"),
        )
    } else {
        return Finding::ok(
            Code::Quorum,
            subject,
            format!(
                "can be reached: {alive} of {}, {needed} are needed",
                counted(*known, "Sentinel")
            ),
        );
    };
    match hint {
        Some(hint) => finding.hint(hint),
        None => finding,
    }
}

/// Odd, and more than one.
fn number(name: &str, known: usize) -> Option<Finding> {
    let subject = format!("Sentinels of \"{name}\"");
    let finding = match known {
        1 => Finding::warn(
            Code::SentinelsFew,
            subject,
            "there is one: when its machine fails nobody fails over",
        ),
        n if n % 2 == 0 => Finding::warn(
            Code::SentinelsEven,
            subject,
            format!(
                "there are {n}: they bear the loss of {} as {} would, and can be parted into halves of which none is a \
                 majority",
                n / 2 - 1,
                n - 1
            ),
        ),
        _ => return None,
    };
    Some(finding.hint("run three or five, each on a machine of its own"))
}
