//! What the control task tells people: one line each, in the words of the field. The names of events and fields are
//! public interface.

use std::time::Duration;

use tracing::{info, warn};

use super::Entry;
use super::action::{Swap, Tale, Unfulfilled};
use super::ledger::{Disagreement, Harm, OutageAccount, Phases};
use super::waiting;
use crate::net::addr::SentinelAddr;
use crate::telemetry::Often;
use crate::topology::decide::{Candidate, Census};
use crate::topology::observation::{RoleReport, Unasked};
use crate::topology::publish::Left;
use crate::topology::rules::SentinelsLost;
use crate::topology::{HoldCause, MasterAddr};

/// Lines of one name that are written at once: some failovers in a row are told in full. Then one a second.
pub(super) const AT_ONCE: u32 = 30;

/// Tells what can be told at once.
pub(super) fn tell(entry: &Entry, often: &mut Often, tale: &Tale) {
    let proxy = &*entry.name;
    // Clients of its replicas need not wait for a master; when they wait, and what for, is told by those who know.
    if matches!(tale, Tale::HoldBegin(_) | Tale::HoldEnd { .. })
        && entry.settings.borrow().reading.is_some()
    {
        return;
    }
    // Told by `switched` when the workers have acknowledged.
    if matches!(tale, Tale::Switched(_)) || !often.allow(tale.event(), proxy) {
        return;
    }
    match tale {
        Tale::Ready(swap) => ready(entry, swap),
        Tale::Switched(_) => {}
        Tale::FailoverSeen { sentinel, hint } => {
            let hint = hint.as_str();
            info!(event = "failover_seen", proxy, master_name = %entry.master, %sentinel, hint, "Sentinel announces {hint}");
        }
        Tale::Candidate(candidate) => tell_candidate(entry, candidate),
        Tale::RoleRejected { addr, report } => rejected(entry, addr, report),
        Tale::Unverified(addr, why) => warn!(
            event = "master_unverified", proxy, addr = %addr,
            "{why}: the master does not tell its role without a login; it is trusted because most Sentinels name it. Set \
             proxy.probe.password_file (a user with +role is enough) to have it verified, or failover.verify = \
             \"role\" to refuse such a node"
        ),
        Tale::Confirmed { epoch, after } => info!(
            event = "provisional_confirmed",
            proxy,
            epoch = epoch.0,
            after_ms = millis(*after),
            "the Sentinels name the new master, too"
        ),
        Tale::Undone { why, after } => warn!(
            event = "provisional_undone",
            proxy,
            reason = why.label(),
            after_ms = millis(*after),
            "the new master is left again ({}); what it was written may be lost: failover.confirm is \"role\"",
            why.in_words()
        ),
        Tale::AnnouncementOver { why } => {
            let (reason, words) = match why {
                Unfulfilled::Aborted => ("aborted", "Sentinel gave the failover up"),
                Unfulfilled::NotPromoted => {
                    ("not_promoted", "the replica was not promoted in time")
                }
                Unfulfilled::NotTold => (
                    "not_told",
                    "the replica does not say whether it was promoted: it refuses the login of [proxy.probe], or wants one",
                ),
                Unfulfilled::NotConfirmed => (
                    "not_confirmed",
                    "the replica was promoted, and no Sentinel confirmed it in time",
                ),
            };
            warn!(
                event = "announcement_over",
                proxy, reason, "the announced failover is not waited for any longer: {words}"
            );
        }
        Tale::HoldBegin(cause) => {
            info!(event = "hold_begin", proxy, cause = %cause, "clients wait: {}", cause.in_words());
        }
        Tale::HoldEnd {
            cause,
            lasted,
            switched,
        } => {
            let outcome = if *switched { "switched" } else { "resumed" };
            let held_ms = millis(*lasted);
            info!(event = "hold_end", proxy, cause = %cause, outcome, held_ms, "clients go on");
        }
        Tale::NamesUs { sentinel, addr } => warn!(
            event = "sentinel_names_us", proxy, %sentinel, %addr,
            "Sentinel {sentinel} names our own listener {addr} as the master; that is not followed. Listen on another \
             port, or announce the master by an address that is not this host's loopback"
        ),
        Tale::Paused { .. } | Tale::Resumed { .. } | Tale::Reconnecting { .. } => {
            ordered(entry, tale);
        }
        Tale::SentinelsLost(census) => sentinels_lost(entry, *census),
        Tale::SentinelsBack => {
            info!(
                event = "sentinels_back",
                proxy,
                degraded = false,
                "Sentinels answer again"
            );
        }
        Tale::Ambiguous(true) => warn!(
            event = "ambiguous",
            proxy,
            "the Sentinels name different masters at the same config-epoch and no majority agrees; nothing is changed. \
             Compare: redis-cli -p 26379 SENTINEL MASTER {}",
            entry.master
        ),
        Tale::Ambiguous(false) => {
            info!(event = "ambiguous_end", proxy, "the Sentinels agree again");
        }
        Tale::SetAside(addr) => warn!(
            event = "candidate_set_aside", proxy, addr = %addr,
            "one Sentinel alone names a master that cannot be verified; it is not counted while most name another"
        ),
        Tale::StoodStill(gap) => {
            let gap_ms = millis(*gap);
            warn!(
                event = "stood_still",
                proxy,
                gap_ms,
                "this process stood still; nothing is forwarded until the master is confirmed"
            );
        }
        Tale::Waiting {
            census,
            silent,
            rejected,
            held,
        } => waits(entry, *census, silent, rejected.as_ref(), *held),
    }
}

/// What an operator asked for, and who that was.
fn ordered(entry: &Entry, tale: &Tale) {
    let proxy = &*entry.name;
    match tale {
        Tale::Paused { by, limit } => {
            let for_ms = limit.map(millis);
            let until = limit.map_or_else(
                || "until it is resumed".to_owned(),
                |limit| format!("for {}", humantime::format_duration(limit)),
            );
            warn!(
                event = "paused",
                proxy, by, for_ms, "paused {until}: new requests wait, what is under way is ended"
            );
        }
        Tale::Resumed { by, lasted } => {
            let paused_ms = millis(*lasted);
            let by = by.as_deref().unwrap_or("time");
            warn!(event = "resumed", proxy, by, paused_ms, "the pause is over");
        }
        Tale::Reconnecting { by } => {
            warn!(
                event = "reconnecting",
                proxy,
                by,
                "every session takes another connection to the master, as soon as it can"
            );
        }
        _ => {}
    }
}

/// What became of the upstreams that were to be given up; those that are left have something under way.
pub(super) fn let_go(entry: &Entry, upstreams: Option<u64>, left: Option<u64>, took: Duration) {
    let proxy = &*entry.name;
    let took_ms = millis(took);
    info!(
        event = "let_go",
        proxy, upstreams, left, took_ms, "sessions have given their connections to the master up"
    );
}

/// A switch is in force and every worker has let go of the old master (what became of the sessions), or has not in time (`None`).
pub(super) fn switched(
    entry: &Entry,
    swap: &Swap,
    fence: Duration,
    left: Option<Left>,
    harm: Harm,
) {
    let proxy = &*entry.name;
    let from = swap
        .from
        .as_ref()
        .map_or_else(|| "none".to_owned(), MasterAddr::to_string);
    let Swap {
        to,
        generation,
        epoch,
        trigger,
        detect,
        verify,
        provisional,
        ..
    } = swap;
    let (detect_ms, verify_ms, fence_ms) = (millis(*detect), millis(*verify), millis(fence));
    let (generation, epoch) = (generation.0, epoch.0);
    let Harm {
        paused,
        held,
        lost,
        unknown,
    } = harm;
    let paused_ms = millis(paused);
    if let Some(Left { cut, kept }) = left {
        info!(
            event = "switched", proxy, from, to = %to, generation, epoch, trigger, detect_ms, verify_ms, fence_ms, cut, kept,
            paused_ms, held, lost, unknown, provisional,
            "switched to the new master"
        );
    } else {
        warn!(
            event = "switched_unfenced", proxy, from, to = %to, generation, epoch, trigger, detect_ms, verify_ms, fence_ms,
            paused_ms, held, lost, unknown, provisional,
            "switched to the new master, but not every worker has confirmed that it let go of the old one"
        );
    }
}

/// An outage is over, and all of it is known: the one line that tells the whole story, in the words and numbers of `/status`.
pub(super) fn outage_over(proxy: &str, outage: &OutageAccount) {
    let ms = |seconds: f64| (seconds * 1e6).round() / 1e3;
    let Phases {
        detect,
        verify,
        first_byte,
    } = outage.phases;
    let (from, to) = (outage.from.as_deref(), outage.to.as_deref());
    let part = |name: &str, seconds: Option<f64>| {
        seconds.map(|seconds| format!(", {name} {} ms", ms(seconds)))
    };
    let parts = [
        part("detect", detect),
        part("verify", verify),
        part("first reply", first_byte),
    ];
    let parts: String = parts.into_iter().flatten().collect();
    let unavailable_ms = ms(outage.seconds);
    info!(
        event = "outage_over", proxy, outcome = outage.outcome, causes = %outage.causes.join(","), from, to,
        generation = outage.generation, epoch = outage.epoch, trigger = outage.trigger, unavailable_ms,
        detect_ms = detect.map(ms), verify_ms = verify.map(ms), first_byte_ms = first_byte.map(ms),
        fence_ms = outage.fence_seconds.map(ms), cut = outage.cut, kept = outage.kept, held = outage.most_waiting,
        lost = outage.lost, unknown = outage.unknown,
        "clients were not served for {unavailable_ms} ms{parts}; {} held, {} lost, {} requests with unknown outcome",
        outage.most_waiting, outage.lost, outage.unknown
    );
}

/// A Sentinel names another master than the one in force for longer than a failover takes, or does so no longer.
pub(super) fn disagreement(entry: &Entry, news: &Disagreement) {
    let proxy = &*entry.name;
    let master_name = &*entry.master;
    let Disagreement {
        sentinel,
        names,
        epoch,
        lasted,
        over,
        rejected,
    } = news;
    let lasted_ms = millis(*lasted);
    if *over {
        info!(
            event = "sentinel_disagrees", proxy, master_name, %sentinel, over, lasted_ms,
            "Sentinel {sentinel} agrees again, or says nothing that counts"
        );
    } else if let Some(why) = rejected {
        warn!(
            event = "sentinel_disagrees", proxy, master_name, %sentinel, over, %names, epoch, lasted_ms,
            "Sentinel {sentinel} names {names} as the master at epoch {epoch}, and that is not accepted yet: {why}"
        );
    } else {
        warn!(
            event = "sentinel_disagrees", proxy, master_name, %sentinel, over, %names, epoch, lasted_ms,
            "Sentinel {sentinel} names {names} as the master at epoch {epoch}, and that is not the one in force. Cut off from \
             the others, or set up anew? Look with: redis-cli SENTINEL SENTINELS {master_name}"
        );
    }
}

/// The control connection is lost and a redial failed.
pub(super) fn master_gone(entry: &Entry, addr: &MasterAddr, why: &str) {
    let proxy = &*entry.name;
    tracing::debug!(event = "master_gone", proxy, addr = %addr, "the master cannot be reached: {why}");
}

fn ready(entry: &Entry, swap: &Swap) {
    let proxy = &*entry.name;
    let Swap {
        to,
        generation,
        epoch,
        verify,
        ..
    } = swap;
    let verify_ms = millis(*verify);
    info!(
        event = "ready", proxy, master_name = %entry.master, master = %to, generation = generation.0, epoch = epoch.0, verify_ms,
        "serving: {to} is the master"
    );
}

fn tell_candidate(entry: &Entry, candidate: &Candidate) {
    let proxy = &*entry.name;
    let Candidate {
        addr,
        epoch,
        support,
        voters,
        asked,
        ..
    } = candidate;
    let (epoch, trigger) = (epoch.0, asked.label());
    info!(
        event = "master_candidate", proxy, addr = %addr, epoch, support, voters, trigger,
        "{support} of {voters} Sentinels name {addr} at epoch {epoch}; asking for its role"
    );
}

fn sentinels_lost(entry: &Entry, census: Census) {
    let proxy = &*entry.name;
    let Census {
        ignorant, voters, ..
    } = census;
    let what = if ignorant > 0 {
        let master = &entry.master;
        format!(
            "{ignorant} of {voters} Sentinels answer, but know no master named \"{master}\" any longer"
        )
    } else {
        "no Sentinel has had an answer that counts for 3 s".to_owned()
    };
    let rules = entry.settings.borrow().rules;
    let then = match rules.when_sentinels_are_lost {
        SentinelsLost::Serve => {
            "the last verified master keeps serving, but a failover would go unnoticed"
        }
        SentinelsLost::Stop => {
            "clients wait until a majority answers again (failover.when_sentinels_are_lost is \"stop\")"
        }
    };
    warn!(
        event = "sentinels_lost",
        proxy,
        degraded = true,
        ignorant,
        "{what}; {then}"
    );
}

fn rejected(entry: &Entry, addr: &MasterAddr, report: &RoleReport) {
    let proxy = &*entry.name;
    let reason = report.label();
    let why = waiting::rejection(report, entry.settings.borrow().rules.verify);
    warn!(event = "role_rejected", proxy, addr = %addr, reason, "not accepted as master yet: {why}");
}

fn waits(
    entry: &Entry,
    census: Census,
    silent: &[(SentinelAddr, Option<Unasked>)],
    rejected: Option<&(MasterAddr, RoleReport)>,
    held: Option<HoldCause>,
) {
    let proxy = &*entry.name;
    let verify = entry.settings.borrow().rules.verify;
    let sentinels = waiting::sentinels(&census, silent, &entry.master);
    let candidate = rejected.map_or_else(String::new, |(addr, report)| {
        let why = waiting::rejection(report, verify);
        format!(". {addr} is not accepted as the master: {why}")
    });
    let (addr, reason) = rejected
        .map(|(addr, report)| (addr.to_string(), report.label()))
        .unzip();
    let cause = held.map_or("no master was verified yet", HoldCause::in_words);
    warn!(
        event = "waiting", proxy, master_name = %entry.master, sentinels = census.voters, answering = census.fresh, addr, reason,
        "clients wait: {cause}. {sentinels}{candidate}"
    );
}

fn millis(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e3
}
