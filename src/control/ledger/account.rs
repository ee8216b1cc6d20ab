//! The account a ledger gives: plain data, the same for the page, the JSON, the terminal and the metrics. Its field names are
//! public interface.
//!
//! Times are seconds; those that end in `_at` count from the Unix epoch, all others are lengths.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Ledger;
use super::opinion::Opinion;
use super::outage::{Outage, Outcome};
use super::reads::Reads;
use crate::net::addr::SentinelAddr;
use crate::net::clock::At;
use crate::topology::decide::FRESH;
use crate::topology::{HoldCause, Phase};

/// A switch that no worker's word came for by then is reported without it, in seconds (the control task waits for 3).
const UNFENCED_AFTER: f64 = 4.0;

/// One proxy entry.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Account {
    /// Its name.
    pub proxy: String,
    /// The name Sentinel knows the master by.
    pub master_name: String,
    /// `serving`, `held` or `no_master`.
    pub phase: String,
    /// Why clients wait, if they do.
    pub hold: Option<Hold>,
    /// An operator has paused the entry, whatever else clients wait for.
    #[serde(default)]
    pub pause: Option<Pause>,
    /// Who is master.
    pub master: Option<Master>,
    /// Who is named as the master and is not accepted, as long as clients wait.
    #[serde(default)]
    pub rejected: Option<Rejected>,
    /// Its replicas as it told last.
    pub replicas: Vec<Replica>,
    /// The replicas that clients are led to, where they are (`role = "replica"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<Reads>,
    /// No Sentinel answers; the last verified master serves on.
    pub degraded: bool,
    /// The Sentinels name several masters at one epoch.
    pub ambiguous: bool,
    /// As many Sentinels answer as have to agree that a master is down, and most of them all.
    pub quorum_ok: bool,
    /// Sentinels that answer and name the master in force.
    pub agreeing: usize,
    /// Each Sentinel's own opinion.
    pub sentinels: Vec<SentinelAccount>,
    /// Time in which clients could not be served since the start of the process, the one that goes on included.
    pub unavailable_seconds: f64,
    /// Outages that are over.
    pub outages_total: u64,
    /// The last of them and the one that goes on, the latest last.
    pub outages: Vec<OutageAccount>,
}

/// See [`Account::hold`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Hold {
    /// A word.
    pub cause: String,
    /// The same for people.
    pub words: String,
    /// For how long.
    pub seconds: f64,
    /// Longest that clients wait.
    pub limit_seconds: f64,
}

/// See [`Account::pause`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Pause {
    /// Who paused it: a uid, or the token.
    pub by: String,
    /// For how long.
    pub seconds: f64,
    /// When it ends by itself, from now; `None` when somebody has to resume it.
    pub left_seconds: Option<f64>,
}

/// See [`Account::master`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Master {
    /// As the Sentinels announce it.
    pub addr: String,
    /// Where it proved itself.
    pub verified_at_addr: Option<String>,
    /// Counts switches.
    pub generation: u64,
    /// Sentinel's config-epoch.
    pub epoch: u64,
    /// Since when it is followed.
    pub since_at: f64,
    /// For how long.
    pub since_seconds: f64,
    /// What made us follow it.
    pub trigger: String,
    /// It told its role; false when most Sentinels vouch for a node that hides it.
    pub verified: bool,
    /// What it said last when asked for its role.
    pub role: Option<String>,
    /// How long ago.
    pub role_age_seconds: Option<f64>,
}

/// See [`Account::rejected`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Rejected {
    /// As the Sentinels announce it.
    pub addr: String,
    /// What its role check came to: a label of `role_check_failures_total`.
    pub reason: String,
    /// The same for people, and what to do about it.
    pub words: String,
    /// For how long it has been asked in vain.
    pub seconds: f64,
}

/// A replica, as the master tells of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Replica {
    /// Its address.
    pub addr: String,
    /// Bytes of the replication stream that it has not acknowledged.
    pub lag_bytes: u64,
}

/// One Sentinel's own opinion.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SentinelAccount {
    /// As it is dialled.
    pub addr: String,
    /// Its run id, where it tells it.
    pub run_id: Option<String>,
    /// `None`: not tried yet.
    pub up: Option<bool>,
    /// For how long it is so.
    pub since_seconds: f64,
    /// The master it names.
    pub names: Option<String>,
    /// At this config-epoch.
    pub epoch: Option<u64>,
    /// How long ago.
    pub heard_seconds: Option<f64>,
    /// Its quorum.
    pub quorum: Option<u64>,
    /// Its `down-after-milliseconds`, in seconds.
    pub down_after_seconds: Option<f64>,
    /// It sees the master objectively down.
    pub objectively_down: bool,
    /// Why it is down, in a word: the `reason` of `sentinel_down`.
    #[serde(default)]
    pub reason: Option<String>,
    /// Why it is down, or what is wrong with its answer, for people.
    pub trouble: Option<String>,
    /// It names the master in force, lately. `None` when it says nothing that counts, or no master is in force.
    pub agrees: Option<bool>,
}

impl SentinelAccount {
    /// It names a master, lately.
    pub fn counts(&self) -> bool {
        let lately = |heard| heard < FRESH.as_secs_f64();
        self.up == Some(true) && self.names.is_some() && self.heard_seconds.is_some_and(lately)
    }
}

/// A time in which clients could not be served.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct OutageAccount {
    /// When it began.
    pub began_at: f64,
    /// How long ago.
    pub ago_seconds: f64,
    /// Why, in the order in which it was so.
    pub causes: Vec<String>,
    /// `lasting`, `switched` or `resumed`.
    pub outcome: String,
    /// The master before.
    pub from: Option<String>,
    /// The master after.
    pub to: Option<String>,
    /// The new master's generation.
    pub generation: Option<u64>,
    /// Its config-epoch.
    pub epoch: Option<u64>,
    /// What set the switch off.
    pub trigger: Option<String>,
    /// False while it lasts, or its first reply is waited for.
    pub over: bool,
    /// From its beginning to the first reply, or to where clients could go on when nobody asked.
    pub seconds: f64,
    /// Where the time went.
    pub phases: Phases,
    /// Until every worker had let go of the old master; counts from the swap, and is no part of the outage.
    pub fence_seconds: Option<f64>,
    /// Sessions that were closed.
    pub cut: Option<u64>,
    /// Sessions that outlived it.
    pub kept: Option<u64>,
    /// Most clients that waited at once, as far as was seen.
    pub most_waiting: u64,
    /// Sessions that were lost for want of a master, from a second before it began.
    #[serde(default)]
    pub lost: u64,
    /// Requests whose replies were lost with them.
    #[serde(default)]
    pub unknown: u64,
}

/// The parts of an outage, one after the other. Their sum is its length.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Phases {
    /// Until it was decided who is next.
    pub detect: Option<f64>,
    /// Until that one had proved itself.
    pub verify: Option<f64>,
    /// Until its first reply reached a client.
    pub first_byte: Option<f64>,
}

impl OutageAccount {
    /// It has ended, and its first reply is no longer waited for.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Nothing is added to it any more: the fence of a switch is known a moment after its end, or never.
    pub fn is_told(&self) -> bool {
        let fenced = self.outcome != Outcome::Switched.label() || self.fence_seconds.is_some();
        self.over && (fenced || self.ago_seconds - self.seconds > UNFENCED_AFTER)
    }
}

impl Ledger {
    /// What is known now.
    pub fn account(&self, at: At) -> Account {
        // Never less than a moment ago: it is exported as a counter.
        let running = self.open.as_ref().map_or(Duration::ZERO, |outage| {
            if outage.is_lasting() {
                at.moment.since(outage.began)
            } else {
                outage.length()
            }
        });
        let opinions = self.sentinels.iter();
        let sentinels: Vec<_> = opinions
            .map(|(addr, o)| self.sentinel(at, addr, o))
            .collect();
        let agreeing = sentinels.iter().filter(|s| s.agrees == Some(true)).count();
        let over = self.outages.iter().map(|o| tell(at, o, true));
        let open = self.open.iter().map(|o| tell(at, o, false));
        Account {
            proxy: self.proxy.clone(),
            master_name: self.master_name.clone(),
            phase: phase_word(&self.state.phase).to_owned(),
            hold: self.hold(at),
            pause: self.pause.as_ref().map(|pause| Pause {
                by: pause.by.clone(),
                seconds: at.moment.since(pause.since).as_secs_f64(),
                left_seconds: pause
                    .until
                    .map(|until| until.since(at.moment).as_secs_f64()),
            }),
            master: self.master(at),
            rejected: self.rejection(at),
            replicas: self
                .replicas
                .iter()
                .map(|r| Replica {
                    addr: r.addr.0.to_string(),
                    lag_bytes: r.lag,
                })
                .collect(),
            reads: self.reads.clone(),
            degraded: self.degraded,
            ambiguous: self.ambiguous,
            quorum_ok: quorum_ok(&sentinels),
            agreeing,
            sentinels,
            unavailable_seconds: (self.unavailable + running).as_secs_f64(),
            outages_total: self.ended,
            outages: over.chain(open).collect(),
        }
    }

    fn hold(&self, at: At) -> Option<Hold> {
        let Phase::Held { cause, since, .. } = self.state.phase else {
            return None;
        };
        Some(Hold {
            cause: cause.label().to_owned(),
            words: HoldCause::in_words(cause).to_owned(),
            seconds: at.moment.since(since).as_secs_f64(),
            limit_seconds: self.state.hold_max.as_secs_f64(),
        })
    }

    fn master(&self, at: At) -> Option<Master> {
        let addr = self.state.master.as_ref()?;
        let role = self.role.as_ref();
        Some(Master {
            addr: addr.to_string(),
            verified_at_addr: self.state.verified_at.map(|at| at.to_string()),
            generation: self.state.generation.0,
            epoch: self
                .epoch
                .or_else(|| self.swap.as_ref().map(|swap| swap.epoch))
                .map_or(0, |epoch| epoch.0),
            since_at: self.since.unix_of(self.since.moment),
            since_seconds: at.moment.since(self.since.moment).as_secs_f64(),
            trigger: self
                .swap
                .as_ref()
                .map_or("", |swap| swap.trigger)
                .to_owned(),
            verified: self.unverified.as_ref() != Some(addr),
            role: role.map(|(word, _)| (*word).to_owned()),
            role_age_seconds: role.map(|(_, when)| at.moment.since(*when).as_secs_f64()),
        })
    }

    fn sentinel(&self, at: At, addr: &SentinelAddr, opinion: &Opinion) -> SentinelAccount {
        let view = opinion.view.as_ref().and_then(|view| view.as_ref().ok());
        let view_error = opinion.view.as_ref().and_then(|view| view.as_ref().err());
        let down = opinion.down.as_ref();
        let mut account = SentinelAccount {
            addr: addr.0.to_string(),
            run_id: opinion.run_id.as_ref().map(ToString::to_string),
            up: opinion.up,
            since_seconds: at.moment.since(opinion.since).as_secs_f64(),
            names: view.map(|view| view.master.0.to_string()),
            epoch: view.map(|view| view.epoch.0),
            heard_seconds: opinion
                .heard
                .map(|heard| at.moment.since(heard).as_secs_f64()),
            quorum: view.and_then(|view| view.quorum),
            down_after_seconds: view
                .and_then(|view| view.down_after)
                .map(|d| d.as_secs_f64()),
            objectively_down: view.is_some_and(|view| view.objectively_down),
            reason: down.map(|down| down.reason.to_owned()),
            trouble: down
                .map(|down| down.words.clone())
                .or_else(|| view_error.map(ToString::to_string)),
            agrees: None,
        };
        account.agrees = view
            .filter(|_| account.counts())
            .zip(self.state.master.as_ref())
            .map(|(view, master)| *master.host_port() == view.master.0);
        account
    }
}

const fn phase_word(phase: &Phase) -> &'static str {
    match phase {
        Phase::NoMaster => "no_master",
        Phase::Held { .. } => "held",
        Phase::Serving => "serving",
    }
}

/// A failover needs the quorum to call the master down, and a majority to elect its leader.
fn quorum_ok(sentinels: &[SentinelAccount]) -> bool {
    let answering = sentinels.iter().filter(|s| s.counts()).count();
    let quorum = sentinels.iter().filter_map(|s| s.quorum).max().unwrap_or(1);
    answering * 2 > sentinels.len() && answering as u64 >= quorum
}

pub(super) fn tell(at: At, outage: &Outage, over: bool) -> OutageAccount {
    let swap = outage.swap.as_ref();
    let length = match outage.outcome() {
        Outcome::Lasting => at.moment.since(outage.began),
        Outcome::Switched | Outcome::Resumed => outage.length(),
    };
    let seconds = |d: Duration| d.as_secs_f64();
    OutageAccount {
        began_at: at.unix_of(outage.began),
        ago_seconds: at.moment.since(outage.began).as_secs_f64(),
        causes: outage
            .causes
            .iter()
            .map(|cause| (*cause).to_owned())
            .collect(),
        outcome: outage.outcome().label().to_owned(),
        from: outage.from.as_ref().map(ToString::to_string),
        to: swap.map(|swap| swap.to.to_string()),
        generation: swap.map(|swap| swap.generation.0),
        epoch: swap.map(|swap| swap.epoch.0),
        trigger: swap.map(|swap| swap.trigger.to_owned()),
        over,
        seconds: length.as_secs_f64(),
        phases: Phases {
            detect: outage.detect().map(seconds),
            verify: outage.verify().map(seconds),
            first_byte: outage.first_reply().map(seconds),
        },
        fence_seconds: outage.fence.map(seconds),
        cut: outage.left.map(|left| left.cut),
        kept: outage.left.map(|left| left.kept),
        most_waiting: outage.most_waiting,
        lost: outage.lost,
        unknown: outage.unknown,
    }
}
