//! The numbers of [`super::table`] in Prometheus' text format.
//!
//! Counters and gauges are made anew at each scrape from what the books and the workers hold, so nothing on the way of a
//! request looks a name up and no series outlives what it was about. Histograms are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use super::actions::Refusals;
use super::reload::{self, Outcome};
use super::table::{self, Kind, Metric};
use super::{Certificate, Entry, Vitals};
use crate::control::ledger::{self, Account, OutageAccount, Totals};
use crate::net::tls::Refused;
use crate::session::close::CloseReason;
use crate::worker::Counters;

const METADATA: Metadata<'_> = Metadata::new(module_path!(), Level::INFO, None);

/// The histograms, which grow from their first value to the end of the process.
#[derive(Clone)]
pub struct Histograms(Arc<PrometheusRecorder>);

impl fmt::Debug for Histograms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Histograms")
    }
}

impl Default for Histograms {
    fn default() -> Self {
        let mut builder = PrometheusBuilder::new();
        for (metric, buckets) in [
            (table::SWITCH_DURATION, table::LONG_BUCKETS),
            (table::HOLD_SECONDS, table::LONG_BUCKETS),
            (table::FENCE_SECONDS, table::SHORT_BUCKETS),
            (table::DIAL_SECONDS, table::SHORT_BUCKETS),
        ] {
            let named = Matcher::Full(metric.name.to_owned());
            builder = builder
                .set_buckets_for_metric(named, buckets)
                .unwrap_or_else(|_| unreachable!("no list of bounds is empty"));
        }
        Self(Arc::new(builder.build_recorder()))
    }
}

impl Histograms {
    /// What this proxy entry's dials are recorded in: made once, then recorded without a look-up.
    pub fn dials(&self, proxy: &str) -> metrics::Histogram {
        self.of(&table::DIAL_SECONDS, &[proxy])
    }

    fn of(&self, metric: &Metric, values: &[&str]) -> metrics::Histogram {
        self.0.describe_histogram(name(metric), None, help(metric));
        self.0.register_histogram(&key(metric, values), &METADATA)
    }

    /// Takes in an outage that is over.
    pub(super) fn record(&self, proxy: &str, outage: &OutageAccount) {
        if outage
            .causes
            .first()
            .is_some_and(|cause| cause == "starting")
        {
            return;
        }
        self.of(&table::HOLD_SECONDS, &[proxy])
            .record(outage.seconds);
        if outage.outcome != ledger::Outcome::Switched.label() {
            return;
        }
        let phases = outage.phases;
        for (phase, seconds) in [
            ("detect", phases.detect),
            ("verify", phases.verify),
            ("first_byte", phases.first_byte),
        ] {
            if let Some(seconds) = seconds {
                self.of(&table::SWITCH_DURATION, &[proxy, phase])
                    .record(seconds);
            }
        }
        if let Some(seconds) = outage.fence_seconds {
            self.of(&table::FENCE_SECONDS, &[proxy]).record(seconds);
        }
    }

    /// Folds what was recorded into the buckets; without it, it would be kept value by value.
    pub(super) fn upkeep(&self) {
        self.0.handle().run_upkeep();
    }
}

/// What is no entry's.
pub(super) struct Process<'a> {
    pub(super) lines_dropped: u64,
    pub(super) refusals: &'a Refusals,
    pub(super) vitals: &'a Vitals,
    pub(super) reloads: reload::Count,
    pub(super) certificates: &'a [Certificate],
}

/// What a scrape gives.
pub(super) fn render(
    entries: &[(Arc<Entry>, Account, Totals, Counters)],
    histograms: &Histograms,
    process: &Process<'_>,
) -> String {
    let sheet = Sheet(PrometheusBuilder::new().build_recorder());
    sheet.set(&table::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    sheet.process(process);
    for (_, account, totals, counters) in entries {
        sheet.master(account);
        sheet.history(account, totals);
        sheet.sessions(&account.proxy, counters);
    }
    sheet.sentinels(entries.iter().map(|(_, account, ..)| account));
    let process = || {
        let collector = metrics_process::Collector::default();
        collector.describe();
        collector.collect();
    };
    metrics::with_local_recorder(&sheet.0, process);
    // The exporter counts in whole numbers; seconds are not, so they go as a gauge and get their true name here.
    let mut text = sheet.0.handle().render().replace(
        &format!("# TYPE {} gauge", table::UNAVAILABLE.name),
        &format!("# TYPE {} counter", table::UNAVAILABLE.name),
    );
    text.push_str(&histograms.0.handle().render());
    text
}

/// One scrape's counters and gauges.
struct Sheet(PrometheusRecorder);

impl Sheet {
    fn set(&self, metric: &Metric, values: &[&str], value: f64) {
        debug_assert!(metric.kind == Kind::Gauge, "{}", metric.name);
        self.0.describe_gauge(name(metric), None, help(metric));
        self.0
            .register_gauge(&key(metric, values), &METADATA)
            .set(value);
    }

    fn flag(&self, metric: &Metric, values: &[&str], value: bool) {
        self.set(metric, values, f64::from(u8::from(value)));
    }

    fn count(&self, metric: &Metric, values: &[&str], value: u64) {
        debug_assert!(metric.kind == Kind::Counter, "{}", metric.name);
        self.0.describe_counter(name(metric), None, help(metric));
        self.0
            .register_counter(&key(metric, values), &METADATA)
            .absolute(value);
    }

    fn process(&self, process: &Process<'_>) {
        self.flag(&table::DRAINING, &[], process.vitals.is_draining());
        for (reason, count) in process.vitals.failed_upgrades() {
            self.count(&table::UPGRADES_FAILED, &[reason], count);
        }
        self.count(&table::LOG_LINES_DROPPED, &[], process.lines_dropped);
        for (reason, count) in process.refusals.read() {
            self.count(&table::ACTIONS_REFUSED, &[reason], count);
        }
        let reloads = &process.reloads;
        for (outcome, count) in Outcome::LABELS.into_iter().zip(reloads.by_outcome) {
            self.count(&table::RELOADS, &[outcome], count);
        }
        self.flag(&table::LAST_RELOAD_SUCCESSFUL, &[], reloads.last_succeeded);
        self.set(&table::LAST_RELOAD_TIMESTAMP, &[], reloads.succeeded_at);
        for certificate in process.certificates {
            let labels = [certificate.proxy.as_str(), certificate.leg];
            let end = certificate.validity.not_after.as_secs_f64();
            self.set(&table::CERTIFICATE_EXPIRY, &labels, end);
        }
    }

    fn master(&self, account: &Account) {
        let proxy = [account.proxy.as_str()];
        self.flag(&table::MASTER_UP, &proxy, account.phase == "serving");
        self.flag(&table::PAUSED, &proxy, account.pause.is_some());
        self.flag(&table::DEGRADED, &proxy, account.degraded);
        self.flag(&table::AMBIGUOUS, &proxy, account.ambiguous);
        let master = account.master.as_ref();
        self.flag(
            &table::MASTER_UNVERIFIED,
            &proxy,
            master.is_some_and(|m| !m.verified),
        );
        self.set(
            &table::MASTER_GENERATION,
            &proxy,
            master.map_or(0.0, |m| m.generation as f64),
        );
        if let Some(master) = master {
            self.set(&table::MASTER_INFO, &[&account.proxy, &master.addr], 1.0);
            self.set(&table::MASTER_EPOCH, &proxy, master.epoch as f64);
            self.set(&table::MASTER_SINCE, &proxy, master.since_at);
        }
        for replica in &account.replicas {
            let labels = [account.proxy.as_str(), replica.addr.as_str()];
            self.set(&table::REPLICA_UP, &labels, 1.0);
            self.set(&table::REPLICA_LAG, &labels, replica.lag_bytes as f64);
        }
        if let Some(reads) = &account.reads {
            self.flag(&table::READS_FROM_MASTER, &proxy, reads.falls_back);
            for of in &reads.replicas {
                let labels = [account.proxy.as_str(), of.addr.as_str()];
                self.flag(&table::REPLICA_USABLE, &labels, of.usable);
                self.set(&table::REPLICA_SESSIONS, &labels, of.sessions as f64);
                if let Some(age) = of.age_seconds {
                    self.set(&table::REPLICA_AGE, &labels, age);
                }
            }
        }
    }

    fn history(&self, account: &Account, totals: &Totals) {
        let proxy = account.proxy.as_str();
        self.0
            .describe_gauge(name(&table::UNAVAILABLE), None, help(&table::UNAVAILABLE));
        let unavailable = key(&table::UNAVAILABLE, &[proxy]);
        self.0
            .register_gauge(&unavailable, &METADATA)
            .set(account.unavailable_seconds);
        for (outcome, count) in &totals.holds {
            self.count(&table::HOLDS, &[proxy, outcome], *count);
        }
        for (trigger, count) in &totals.switches {
            self.count(&table::SWITCHES, &[proxy, trigger], *count);
        }
        for (reason, count) in &totals.role_failures {
            self.count(&table::ROLE_CHECK_FAILURES, &[proxy, reason], *count);
        }
        for (event, count) in &totals.events {
            self.count(&table::SENTINEL_EVENTS, &[proxy, event], *count);
        }
        self.count(&table::UNFENCED, &[proxy], totals.unfenced);
        self.count(&table::STANDSTILLS, &[proxy], totals.standstills);
    }

    fn sessions(&self, proxy: &str, counters: &Counters) {
        let s = &counters.sessions;
        self.set(&table::SESSIONS_ACTIVE, &[proxy], s.active() as f64);
        self.set(&table::SESSIONS_HELD, &[proxy], s.waiting as f64);
        self.set(&table::KEPT_BYTES, &[proxy], s.kept as f64);
        self.set(&table::SESSIONS_UNREAD, &[proxy], s.unread as f64);
        for (result, count) in [
            ("accepted", s.opened),
            ("not_allowed", counters.refused_not_allowed),
            ("full", counters.refused_full),
            ("source_full", counters.refused_source),
        ] {
            self.count(&table::SESSIONS, &[proxy, result], count);
        }
        for (refused, count) in Refused::ALL.into_iter().zip(counters.refused_tls) {
            self.count(&table::TLS_REFUSED, &[proxy, refused.label()], count);
        }
        for reason in CloseReason::ALL {
            self.count(
                &table::SESSIONS_CLOSED,
                &[proxy, reason.label()],
                s.closed_by(reason),
            );
        }
        self.count(&table::SESSIONS_MOVED, &[proxy], s.moved);
        self.count(&table::SESSIONS_ADOPTED, &[proxy], s.adopted);
        self.count(&table::REPLAY_FAILURES, &[proxy], s.replay_failures);
        self.count(&table::REQUESTS_REFUSED, &[proxy], s.refused);
        self.count(&table::BYTES, &[proxy, "up"], s.bytes_up);
        self.count(&table::BYTES, &[proxy, "down"], s.bytes_down);
        for (reason, count) in s.dial_failures_by_reason() {
            self.count(&table::DIAL_FAILURES, &[proxy, reason], count);
        }
        self.count(&table::REQUESTS_UNKNOWN, &[proxy], s.unknown);
        for (reason, count) in s.retired_by_reason() {
            self.count(&table::SESSIONS_RETIRED, &[proxy, reason], count);
        }
        self.count(&table::OLD_GENERATION_BYTES, &[proxy], s.passed_bytes);
        self.count(&table::ACCEPT_ERRORS, &[proxy], counters.accept_errors);
    }

    /// Several entries may follow one master; each has links and an opinion of its own, and the worst is told.
    fn sentinels<'a>(&self, accounts: impl Iterator<Item = &'a Account>) {
        let mut quorums = BTreeMap::new();
        let mut sentinels = BTreeMap::new();
        for account in accounts {
            let master = account.master_name.as_str();
            *quorums.entry(master).or_insert(true) &= account.quorum_ok;
            for sentinel in &account.sentinels {
                let worst = sentinels.entry((master, sentinel.addr.as_str()));
                let (up, disagrees, epoch) = worst.or_insert((true, false, None));
                *up &= sentinel.up == Some(true);
                *disagrees |= sentinel.agrees == Some(false);
                *epoch = sentinel.epoch.max(*epoch);
            }
        }
        for (master, ok) in quorums {
            self.flag(&table::SENTINEL_QUORUM_OK, &[master], ok);
        }
        for ((master, sentinel), (up, disagrees, epoch)) in sentinels {
            let labels = [master, sentinel];
            self.flag(&table::SENTINEL_UP, &labels, up);
            self.flag(&table::SENTINEL_DISAGREES, &labels, disagrees);
            if let Some(epoch) = epoch {
                self.set(&table::SENTINEL_VIEW_EPOCH, &labels, epoch as f64);
            }
        }
    }
}

fn name(metric: &Metric) -> KeyName {
    KeyName::from_const_str(metric.name)
}

fn help(metric: &Metric) -> SharedString {
    SharedString::const_str(metric.help)
}

fn key(metric: &Metric, values: &[&str]) -> Key {
    debug_assert!(metric.labels.len() == values.len(), "{}", metric.name);
    let pairs = metric.labels.iter().zip(values);
    let labels: Vec<_> = pairs
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(metric.name, labels)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::ledger::{Ledger, SentinelAccount};
    use crate::net::clock::At;
    use crate::topology::State;

    /// An entry of one Sentinel.
    fn account(proxy: &str, sentinel: &SentinelAccount, quorum_ok: bool) -> Account {
        let at = At::now();
        let state = State::initial(Duration::ZERO);
        let mut account = Ledger::new(at, proxy, "mymaster", state).account(at);
        account.sentinels = vec![sentinel.clone()];
        account.quorum_ok = quorum_ok;
        account
    }

    #[test]
    fn of_two_entries_of_one_master_the_worst_is_told() {
        let well = SentinelAccount {
            addr: "10.0.0.3:26379".to_owned(),
            up: Some(true),
            agrees: Some(true),
            epoch: Some(8),
            run_id: None,
            since_seconds: 1.0,
            names: None,
            heard_seconds: None,
            quorum: None,
            down_after_seconds: None,
            objectively_down: false,
            reason: None,
            trouble: None,
        };
        let ill = SentinelAccount {
            up: Some(false),
            agrees: Some(false),
            epoch: Some(7),
            ..well.clone()
        };
        let (good, bad) = (account("a", &well, true), account("b", &ill, false));
        for accounts in [[&good, &bad], [&bad, &good]] {
            let sheet = Sheet(PrometheusBuilder::new().build_recorder());
            sheet.sentinels(accounts.into_iter());
            let text = sheet.0.handle().render();
            let labels = "{master=\"mymaster\",sentinel=\"10.0.0.3:26379\"}";
            for line in [
                format!("switchmaster_sentinel_up{labels} 0"),
                format!("switchmaster_sentinel_disagrees{labels} 1"),
                format!("switchmaster_sentinel_view_epoch{labels} 8"),
                "switchmaster_sentinel_quorum_ok{master=\"mymaster\"} 0".to_owned(),
            ] {
                assert!(text.lines().any(|l| l == line), "{line}\n{text}");
            }
        }
    }
}
