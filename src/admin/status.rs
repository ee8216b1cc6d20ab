//! What `GET /status` gives and `switchmaster status` shows: plain data, and the words that all renderings share. Field names
//! are public interface; new ones may be added.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::ledger::Account;
use crate::session::close::CloseReason;
use crate::topology::HoldCause;
use crate::worker::Counters;

/// One process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The time of this account, in seconds of the Unix epoch.
    pub now_at: f64,
    /// When it was started.
    pub started_at: f64,
    /// For how long it has run.
    pub uptime_seconds: f64,
    /// It was told to end: it takes no new clients, and those it has end as they finish what they have begun.
    #[serde(default)]
    pub draining: bool,
    /// Log lines lost because stderr was not read fast enough.
    pub log_lines_dropped: u64,
    /// Its `[[proxy]]` entries.
    pub proxies: Vec<ProxyStatus>,
}

/// One `[[proxy]]` entry.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ProxyStatus {
    /// One sentence that says it all.
    pub headline: String,
    /// Where clients connect.
    pub listen: Vec<String>,
    /// Who is master, and what the Sentinels believe.
    #[serde(flatten)]
    pub account: Account,
    /// Its sessions.
    pub sessions: Sessions,
}

/// Counted since the start of the process, but for `active` and `waiting`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Sessions {
    /// Open now.
    pub active: u64,
    /// Of those, waiting for a master.
    pub waiting: u64,
    /// Ever begun.
    pub opened: u64,
    /// Times that one was carried over to another upstream connection.
    pub moved: u64,
    /// Ended, by reason; reasons that never occurred are left out.
    pub closed: BTreeMap<String, u64>,
    /// Requests answered with an error for want of a master; none was executed.
    pub requests_refused: u64,
    /// Requests whose replies were lost with their connection; whether they were executed nobody knows.
    #[serde(default)]
    pub requests_unknown: u64,
    /// Connections turned away.
    pub turned_away: u64,
    /// Bytes written to masters.
    pub bytes_up: u64,
    /// Bytes written to clients.
    pub bytes_down: u64,
    /// Connections to a master that failed.
    pub dial_failures: u64,
}

impl ProxyStatus {
    /// Puts together what is known of one entry.
    pub fn new(account: Account, listen: &[String], counters: &Counters) -> Self {
        let s = &counters.sessions;
        let closed = CloseReason::ALL
            .iter()
            .map(|reason| (reason.label().to_owned(), s.closed_by(*reason)));
        let sessions = Sessions {
            active: s.active(),
            waiting: s.waiting,
            opened: s.opened,
            moved: s.moved,
            closed: closed.filter(|(_, count)| *count > 0).collect(),
            requests_refused: s.refused,
            requests_unknown: s.unknown,
            turned_away: counters.refused(),
            bytes_up: s.bytes_up,
            bytes_down: s.bytes_down,
            dial_failures: s.dial_failures(),
        };
        Self {
            headline: headline(&account, &sessions),
            listen: listen.to_vec(),
            account,
            sessions,
        }
    }

    /// A verified master serves.
    pub fn is_ready(&self) -> bool {
        self.account.phase == "serving"
    }

    /// It lacks nothing but replicas that may be read from.
    pub fn lacks_replicas(&self) -> bool {
        let hold = self.account.hold.as_ref();
        self.account.pause.is_none() && hold.is_some_and(|hold| hold.cause == NO_REPLICA)
    }

    /// Whether clients are to be sent to a process with these entries. The lack of replicas is none of this process: every other one
    /// lacks them, too, and to be taken out for it would take the master's clients from it as well.
    pub fn are_ready(all: &[Self]) -> bool {
        let each = all.iter();
        are_ready(each.map(|of| (of.is_ready(), of.lacks_replicas())))
    }

    /// How it fares.
    pub fn mood(&self) -> Mood {
        let account = &self.account;
        let unverified = account.master.as_ref().is_some_and(|m| !m.verified);
        let falls_back = account.reads.as_ref().is_some_and(|reads| reads.falls_back);
        let all_agree = account.sentinels.iter().all(|s| s.agrees == Some(true));
        if !self.is_ready() {
            Mood::Bad
        } else if account.degraded
            || account.ambiguous
            || falls_back
            || unverified
            || !account.quorum_ok
            || !all_agree
        {
            Mood::Uneasy
        } else {
            Mood::Good
        }
    }
}

/// Of each entry: it serves, or it lacks replicas alone.
fn are_ready(each: impl Iterator<Item = (bool, bool)>) -> bool {
    let (mut none, mut any) = (true, false);
    for (serves, lacks_replicas) in each {
        if !serves && !lacks_replicas {
            return false;
        }
        none = false;
        any |= serves;
    }
    none || any
}

/// How an entry fares, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mood {
    /// It serves, and all agree.
    Good,
    /// It serves, and something is amiss.
    Uneasy,
    /// Clients wait.
    Bad,
}

impl Mood {
    /// For people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "serving",
            Self::Uneasy => "warning",
            Self::Bad => "clients wait",
        }
    }
}

/// The cause of a hold that an operator wants.
const PAUSED: &str = HoldCause::Paused.label();

/// The cause of a hold of those who read from replicas.
const NO_REPLICA: &str = HoldCause::NoReplica.label();

/// One sentence for somebody who was just woken.
fn headline(account: &Account, sessions: &Sessions) -> String {
    let people = counted(sessions.active, "session");
    let voters = account.sentinels.len();
    let agree = format!("{} of {voters} Sentinels agree", account.agreeing);
    if let (Some(master), Some(pause)) = (&account.master, &account.pause)
        && account
            .hold
            .as_ref()
            .is_some_and(|hold| hold.cause == PAUSED)
    {
        let left = pause.left_seconds.map(duration);
        return format!(
            "Paused by {} for {}, {}: {people}, {} of them waiting. The master is {}; {agree}",
            pause.by,
            duration(pause.seconds),
            left.map_or_else(
                || "until resumed".to_owned(),
                |left| format!("{left} to go")
            ),
            sessions.waiting,
            master.addr
        );
    }
    match (&account.master, &account.hold) {
        // Of a replica whose master does not tell how much it has written nobody knows how old its data is.
        (Some(master), Some(hold)) if account.reads.is_some() => format!(
            "{people} held for {}: {}. Master {}; {agree}{}",
            duration(hold.seconds),
            hold.words,
            master.addr,
            warning(account)
        ),
        (Some(master), Some(hold)) => format!(
            "{people} held for {}: {}. Last master {}; {agree}{}",
            duration(hold.seconds),
            hold.words,
            master.addr,
            obstacle(account)
        ),
        (Some(master), None) if account.reads.is_some() => {
            let reads = account.reads.clone().unwrap_or_default();
            let (usable, all) = (
                reads.usable(),
                counted(reads.replicas.len() as u64, "replica"),
            );
            let from = if reads.falls_back {
                format!(
                    "from the master {}, as none of {all} may be read from",
                    master.addr
                )
            } else {
                format!("from {usable} of {all} of {}", master.addr)
            };
            format!("Serving {people} {from}; {agree}{}", warning(account))
        }
        (Some(master), None) => format!(
            "Serving {people} to {}, followed for {}; {agree}{}",
            master.addr,
            duration(master.since_seconds),
            warning(account)
        ),
        (None, _) => {
            let waiting = account.outages.last().map_or(0.0, |outage| outage.seconds);
            let answering = account
                .sentinels
                .iter()
                .filter(|s| s.up == Some(true))
                .count();
            format!(
                "No master of \"{}\" was verified yet, for {}; {answering} of {voters} Sentinels answer; {people} wait{}",
                account.master_name,
                duration(waiting),
                obstacle(account)
            )
        }
    }
}

/// What has to be mended before clients can go on, where that is known.
fn obstacle(account: &Account) -> String {
    if let Some(rejected) = &account.rejected {
        return format!(
            ". {} is not accepted as the master: {}",
            rejected.addr, rejected.words
        );
    }
    let sentinels = &account.sentinels;
    let down = sentinels.iter().filter(|s| s.up == Some(false));
    match { down }.find_map(|s| Some((&s.addr, s.trouble.as_ref()?))) {
        Some((addr, why)) if sentinels.iter().all(|s| s.up != Some(true)) => {
            format!(". Sentinel {addr}: {why}")
        }
        _ => String::new(),
    }
}

/// What is amiss though it serves.
fn warning(account: &Account) -> &'static str {
    let answers = account.sentinels.iter().any(|s| s.up == Some(true));
    let hides = account.master.as_ref().is_some_and(|m| !m.verified);
    if account.degraded && answers {
        ". No Sentinel knows this master: a failover would go unnoticed"
    } else if account.degraded {
        ". No Sentinel answers: a failover would go unnoticed"
    } else if account.ambiguous {
        ". The Sentinels name different masters"
    } else if hides && account.reads.is_some() {
        ". The master hides its role, and with it how old its replicas' data is: permit ROLE to the user of [proxy.probe]"
    } else if hides {
        ". The master hides its role: it is trusted because most Sentinels name it"
    } else {
        ""
    }
}

/// `1 session`, `2 sessions`
pub fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// The two largest units that say something: `3 d 2 h`, `1.2 s`, `8 ms`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let whole = Duration::try_from_secs_f64(seconds)
        .unwrap_or(Duration::MAX)
        .as_secs();
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    if days > 0 {
        format!("{days} d {hours} h")
    } else if hours > 0 {
        format!("{hours} h {minutes} min")
    } else if minutes > 0 {
        format!("{minutes} min {} s", whole % 60)
    } else if seconds >= 10.0 {
        format!("{whole} s")
    } else if seconds >= 1.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.0} ms", seconds * 1e3)
    }
}

/// `1.5 MiB`
pub fn bytes(count: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == UNITS[0] {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_and_round() {
        for (seconds, words) in [
            (0.0, "0 ms"),
            (0.0084, "8 ms"),
            (0.9996, "1000 ms"),
            (1.26, "1.3 s"),
            (59.9, "59 s"),
            (61.0, "1 min 1 s"),
            (3.0 * 3600.0 + 60.0, "3 h 1 min"),
            (266_400.0, "3 d 2 h"),
            (-1.0, "0 ms"),
        ] {
            assert_eq!(duration(seconds), words, "{seconds}");
        }
    }

    #[test]
    fn a_lack_of_replicas_takes_nobody_from_a_listener_that_serves() {
        let (serves, lacks, waits) = ((true, false), (false, true), (false, false));
        for (all, expected) in [
            (vec![], true),
            (vec![serves, serves], true),
            (vec![serves, lacks], true),
            (vec![lacks], false),
            (vec![lacks, lacks], false),
            (vec![serves, waits], false),
            (vec![serves, lacks, waits], false),
        ] {
            assert_eq!(are_ready(all.iter().copied()), expected, "{all:?}");
        }
    }
}
