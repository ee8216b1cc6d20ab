//! Holds a history against the invariants. Pure: evidence in, violations and losses out.
//!
//! | | |
//! |---|---|
//! | I1 | a token is executed at most once, and never when its client was told that it was not |
//! | I2 | the replies of a connection are an exact prefix of what its requests yield |
//! | I3 | after the proxy said that it left a master, no write that begins later is executed there |
//! | I4 | no error reply but those that Redis gives |
//! | I5 | a planned failover with nothing else in its way loses no acknowledged write |
//! | I6 | no descriptor is left when the clients have gone |
//! | I7 | memory stays under its cap |
//! | L | healed means served: a new client reaches the master in time |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use super::history::{Evidence, Micros, Op, Outcome, Reply, Request, Round, Token};

/// A session may be faster than the log line that says where it went, and the line may be written late by
/// a process that was frozen in between.
const LOG_LAG: Micros = 10_000_000;
/// So long after an announced failover that came to nothing the next one is not waited for.
const HOLD_MIN_INTERVAL: Micros = 30_000_000;
/// Violations of one invariant that are spelled out; the rest is counted.
const SPELLED_OUT: usize = 10;
/// How the errors begin that may be given to such requests while masters change.
const REDIS_ERRORS: [&str; 7] = [
    "READONLY ",
    "UNBLOCKED ",
    "MASTERDOWN ",
    "NOREPLICAS ",
    "LOADING Redis is loading the dataset in memory",
    "ERR max number of clients reached",
    // Ours, for want of a master: that it was not executed is I1's to check.
    "LOADING switchmaster: no verified master for ",
];

/// What is demanded of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demands {
    /// I7's cap, KiB.
    pub(crate) rss_cap_kib: u64,
    /// Planned failovers are held back for; else their losses are counted and no violation.
    pub(crate) announced_hold: bool,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// `I1` ... `I7` or `L`.
    pub(crate) invariant: &'static str,
    /// What was seen.
    pub(crate) what: String,
}

/// Acknowledged writes that the last master does not have, by the kind of fault that took them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Writes.
    pub(crate) writes: usize,
    /// The longest that one of them had been acknowledged before its master was left.
    pub(crate) oldest: Micros,
}

/// What the checker found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// Empty when all is well.
    pub(crate) violations: Vec<Violation>,
    /// Losses by kind of fault.
    pub(crate) losses: BTreeMap<&'static str, Loss>,
    /// Writes lost by planned failovers with nothing in their way.
    pub(crate) planned_losses: usize,
}

/// Holds the evidence against every invariant.
pub(crate) fn check(evidence: &Evidence, demands: Demands) -> Findings {
    let tokens = Tokens::of(evidence);
    let mut findings = Findings::default();
    let mut found = |invariant, what: Vec<String>| {
        let more = what.len().saturating_sub(SPELLED_OUT);
        let spelled = what.into_iter().take(SPELLED_OUT);
        let rest = (more > 0).then(|| format!("and {more} more of the kind"));
        findings.violations.extend(
            spelled
                .chain(rest)
                .map(|what| Violation { invariant, what }),
        );
    };
    found("I1", at_most_once(evidence, &tokens));
    found("I2", exact_prefixes(evidence));
    found("I3", left_for_good(evidence, &tokens));
    found("I4", only_what_redis_says(evidence));
    found("I6", nothing_left(evidence));
    found("I7", memory(evidence, demands));
    found("L", evidence.stuck.clone());
    let lost = lost(evidence, &tokens);
    let planned: Vec<String> = lost
        .iter()
        .filter(|(_, cause)| {
            cause.is_some_and(|(round, _)| round.clean_planned && !is_unheld(evidence, round))
        })
        .map(|(op, cause)| {
            format!(
                "{} was acknowledged and lost by {}",
                shown(op),
                told(*cause)
            )
        })
        .collect();
    let planned_losses = planned.len();
    if demands.announced_hold {
        found("I5", planned);
    }
    findings.planned_losses = planned_losses;
    for (_, cause) in &lost {
        let (kind, age) = cause.map_or(("nothing that is known", 0), |(r, age)| (r.kind, age));
        let loss = findings.losses.entry(kind).or_default();
        loss.writes += 1;
        loss.oldest = loss.oldest.max(age);
    }
    findings
}

/// Where each token is in the history.
struct Tokens<'a>(HashMap<Token, &'a Op>);

impl<'a> Tokens<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let written = evidence.ops.iter();
        Self(written.filter_map(|op| Some((op.token()?, op))).collect())
    }
}

fn at_most_once(evidence: &Evidence, tokens: &Tokens<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut present = HashSet::new();
    for token in &evidence.present {
        if !present.insert(*token) {
            wrong.push(format!("token {token} is twice on the master"));
        }
    }
    let mut executed = HashMap::new();
    for by in &evidence.executed {
        if let Some(before) = executed.insert(by.token, by.node) {
            wrong.push(format!(
                "token {} was executed by {before} and again by {}",
                by.token, by.node
            ));
        }
    }
    let seen: HashSet<Token> = present.into_iter().chain(executed.into_keys()).collect();
    for token in seen {
        match tokens.0.get(&token) {
            None => wrong.push(format!("token {token} was executed and never written")),
            Some(op) if was_refused(op) => {
                wrong.push(format!("{} was refused and executed", shown(op)));
            }
            Some(_) => {}
        }
    }
    wrong
}

fn was_refused(op: &Op) -> bool {
    matches!(
        op.outcome,
        Outcome::NotSent | Outcome::Replied(Reply::Error(_))
    )
}

fn exact_prefixes(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sessions: HashMap<u32, Session> = HashMap::new();
    let queued: HashSet<(u16, Token)> = evidence
        .ops
        .iter()
        .filter_map(|op| match op.request {
            Request::Enqueue(token) => Some((op.client, token)),
            _ => None,
        })
        .collect();
    for op in &evidence.ops {
        let session = sessions.entry(op.session).or_default();
        // A session that outlives a switch may find what Redis lost in it gone: its list is then shorter than before.
        let moved = evidence
            .declared
            .iter()
            .any(|d| (session.pushed..=op.ended.saturating_add(LOG_LAG)).contains(&d.at));
        if let Err(why) = session.accept(op, &queued, moved) {
            wrong.push(format!("{}: {why}", shown(op)));
        }
    }
    wrong
}

/// What one connection has been told so far.
#[derive(Debug, Default)]
struct Session {
    ended: bool,
    length: i64,
    /// When the last push was answered.
    pushed: Micros,
    message: Option<u64>,
}

impl Session {
    fn accept(
        &mut self,
        op: &Op,
        queued: &HashSet<(u16, Token)>,
        moved: bool,
    ) -> Result<(), String> {
        let Outcome::Replied(reply) = &op.outcome else {
            self.ended = true;
            return Ok(());
        };
        if self.ended {
            return Err(format!("{reply:?} behind a request without a reply"));
        }
        let fits = match (op.request, reply) {
            (Request::Receive, Reply::Message(number)) => {
                let before = self.message.replace(*number);
                before.is_none_or(|before| before < *number)
            }
            (Request::Receive, _) => false,
            // Which errors there may be is another matter (I4).
            (_, Reply::Error(_)) => true,
            (Request::Push(_), Reply::Int(length)) => {
                let before = std::mem::replace(&mut self.length, *length);
                self.pushed = op.ended;
                before < *length || moved && *length > 0
            }
            (Request::Enqueue(_), Reply::Int(length)) => *length > 0,
            (Request::Pop, Reply::Popped(token)) => queued.contains(&(op.client, *token)),
            (Request::Echo(sent) | Request::Fetch(sent), Reply::Bulk(got)) => sent == *got,
            // A master that becomes a replica in the middle takes another's data, or has it expire.
            (Request::Fetch(_) | Request::Pop, Reply::Nil) => true,
            (Request::Store(_), Reply::Done) => true,
            (Request::Publish(_), Reply::Int(receivers)) => *receivers >= 0,
            _ => false,
        };
        if fits {
            Ok(())
        } else {
            Err(format!("was answered with {reply:?}"))
        }
    }
}

fn left_for_good(evidence: &Evidence, tokens: &Tokens<'_>) -> Vec<String> {
    let declared = &evidence.declared;
    let mut wrong = Vec::new();
    for by in &evidence.executed {
        let Some(op) = tokens.0.get(&by.token) else {
            continue;
        };
        // The master in force when the write began, and those declared while it was under way.
        let after = declared.partition_point(|d| d.at <= op.began);
        let Some(in_force) = after.checked_sub(1) else {
            continue;
        };
        let until = declared.partition_point(|d| d.at <= op.ended.saturating_add(LOG_LAG));
        if !declared[in_force..until].iter().any(|d| d.to == by.node) {
            wrong.push(format!(
                "{} was executed by {}, {} s after the proxy said that it serves {}",
                shown(op),
                by.node,
                seconds(op.began - declared[in_force].at),
                declared[in_force].to
            ));
        }
    }
    wrong
}

fn only_what_redis_says(evidence: &Evidence) -> Vec<String> {
    let told = evidence.ops.iter().filter_map(|op| match &op.outcome {
        Outcome::Replied(Reply::Error(text)) => Some((op, text)),
        _ => None,
    });
    told.filter(|(_, text)| !REDIS_ERRORS.iter().any(|known| text.starts_with(known)))
        .map(|(op, text)| format!("{} was answered with the error {text:?}", shown(op)))
        .collect()
}

fn nothing_left(evidence: &Evidence) -> Vec<String> {
    let r = evidence.resources;
    (r.fds_after > r.fds_before)
        .then(|| {
            format!(
                "{} descriptors before the first client, {} after the last",
                r.fds_before, r.fds_after
            )
        })
        .into_iter()
        .collect()
}

fn memory(evidence: &Evidence, demands: Demands) -> Vec<String> {
    let (peak, cap) = (evidence.resources.rss_peak_kib, demands.rss_cap_kib);
    (peak > cap)
        .then(|| format!("{peak} KiB of memory, {cap} at most"))
        .into_iter()
        .collect()
}

/// A lost write, and the fault in which its master was left and how long after the acknowledgement.
type Lost<'a> = (&'a Op, Option<(&'a Round, Micros)>);

fn lost<'a>(evidence: &'a Evidence, tokens: &Tokens<'a>) -> Vec<Lost<'a>> {
    let present: HashSet<Token> = evidence.present.iter().copied().collect();
    let mut lost: Vec<Lost<'a>> = tokens
        .0
        .iter()
        .filter(|(token, op)| {
            matches!(op.request, Request::Push(_))
                && matches!(op.outcome, Outcome::Replied(Reply::Int(_)))
                && !present.contains(token)
        })
        .map(|(_, op)| (*op, cause(evidence, op)))
        .collect();
    lost.sort_by_key(|(op, _)| op.began);
    lost
}

fn cause<'a>(evidence: &'a Evidence, op: &Op) -> Option<(&'a Round, Micros)> {
    let after = evidence.declared.partition_point(|d| d.at <= op.began);
    let serving = evidence.declared[..after].last().map(|d| d.to);
    let left = evidence.declared[after..]
        .iter()
        .find(|d| Some(d.to) != serving)?;
    let within = |round: &&Round| (round.from..=round.to).contains(&left.at);
    let round = evidence.rounds.iter().find(within)?;
    // A fault of replication since then may have taken the write before the master was left.
    let earlier = evidence
        .rounds
        .iter()
        .find(|r| r.disturbs_replication && r.to >= op.ended && r.from <= left.at);
    Some((earlier.unwrap_or(round), left.at.saturating_sub(op.ended)))
}

/// The proxy gave an announced failover up shortly before this one: it is then not to hold for it.
fn is_unheld(evidence: &Evidence, round: &Round) -> bool {
    let switched = |from: Micros| {
        let mut declared = evidence.declared.iter();
        declared.any(|d| (from..round.from).contains(&d.at))
    };
    evidence
        .given_up
        .iter()
        .any(|at| (*at..*at + HOLD_MIN_INTERVAL).contains(&round.from) && !switched(*at))
}

fn told(cause: Option<(&Round, Micros)>) -> String {
    cause.map_or_else(
        || "nothing that is known".to_owned(),
        |(round, age)| format!("{} {} s later", round.what, seconds(age)),
    )
}

fn shown(op: &Op) -> String {
    Shown(op).to_string()
}

struct Shown<'a>(&'a Op);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Op {
            client,
            session,
            began,
            request,
            ..
        } = self.0;
        write!(
            f,
            "{request:?} of client {client} on connection {session} (begun {})",
            seconds(*began)
        )
    }
}

fn seconds(micros: Micros) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
