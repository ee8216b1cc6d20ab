//! The result on one page, and the history as a file for who wants to know why.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use crate::checker::{Demands, Findings};
use crate::history::{Evidence, Micros, Op, Outcome, Reply, Request, Round};
use crate::proxy::Proxy;

/// Every invariant, and in how many words it can be said.
const INVARIANTS: [(&str, &str); 8] = [
    (
        "I1",
        "every write executed at most once, refused ones never",
    ),
    ("I2", "replies are an exact prefix of what was asked for"),
    ("I3", "no write reaches a master that was left"),
    ("I4", "no error reply but Redis' own"),
    ("I5", "planned failovers lose no acknowledged write"),
    ("I6", "no descriptor left when clients have gone"),
    ("I7", "memory under its cap"),
    ("L", "healed means served"),
];

/// The page.
pub(crate) fn result(
    seed: u64,
    evidence: &Evidence,
    demands: Demands,
    findings: &Findings,
    proxy: &Proxy,
) -> String {
    let mut page = format!("soak, seed {seed}\n\n");
    faults(&mut page, evidence, findings);
    let _ = writeln!(page);
    requests(&mut page, evidence, proxy);
    let _ = writeln!(page);
    for (invariant, what) in INVARIANTS {
        let broken: Vec<_> = findings
            .violations
            .iter()
            .filter(|v| v.invariant == invariant)
            .collect();
        let verdict = if !broken.is_empty() {
            "BROKEN"
        } else if invariant == "I5" && !demands.announced_hold {
            "counted, not demanded"
        } else {
            "held"
        };
        let _ = writeln!(page, "{invariant:<3} {what:<55} {verdict}");
        for violation in broken {
            let _ = writeln!(page, "      {}", violation.what);
        }
    }
    page
}

/// Writes all that was observed, for a run that failed.
///
/// # Errors
/// In words.
pub(crate) fn write_history(folder: &Path, seed: u64, evidence: &Evidence) -> Result<(), String> {
    let write = || -> std::io::Result<()> {
        let mut out = BufWriter::new(std::fs::File::create(folder.join("history.txt"))?);
        writeln!(out, "seed {seed}")?;
        for round in &evidence.rounds {
            writeln!(out, "{} - {}  {}", round.from, round.to, round.what)?;
        }
        for declared in &evidence.declared {
            writeln!(out, "{}  serves {}", declared.at, declared.to)?;
        }
        for executed in &evidence.executed {
            writeln!(out, "executed {} by {}", executed.token, executed.node)?;
        }
        for op in &evidence.ops {
            writeln!(
                out,
                "{} - {}  client {} connection {}  {:?}  {:?}",
                op.began, op.ended, op.client, op.session, op.request, op.outcome
            )?;
        }
        out.flush()
    };
    write().map_err(|e| format!("cannot write the history: {e}"))
}

fn faults(page: &mut String, evidence: &Evidence, findings: &Findings) {
    let _ = writeln!(
        page,
        "{:<24} {:>5} {:>14} {:>6}  acknowledged at most before the master was left",
        "fault", "times", "longest pause", "lost"
    );
    let mut kinds: BTreeMap<&str, Vec<&Round>> = BTreeMap::new();
    for round in &evidence.rounds {
        kinds.entry(round.kind).or_default().push(round);
    }
    let acks = acks(&evidence.ops);
    for (kind, rounds) in kinds {
        let pause = rounds.iter().map(|r| pause(&acks, r)).max().unwrap_or(0);
        let loss = findings.losses.get(kind).copied().unwrap_or_default();
        let age = match loss.writes {
            0 => String::new(),
            _ => seconds(loss.oldest),
        };
        let _ = writeln!(
            page,
            "{kind:<24} {:>5} {:>14} {:>6}  {age}",
            rounds.len(),
            seconds(pause),
            loss.writes
        );
    }
    if let Some(loss) = findings.losses.get("nothing that is known") {
        let _ = writeln!(page, "{:<24} {:>27}", "no fault known", loss.writes);
    }
}

fn requests(page: &mut String, evidence: &Evidence, proxy: &Proxy) {
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    let mut sessions = HashSet::new();
    for op in &evidence.ops {
        sessions.insert(op.session);
        let name = match &op.outcome {
            Outcome::Replied(Reply::Error(text)) => {
                let word = text.split(' ').next().unwrap_or_default();
                format!("answered with {word}")
            }
            Outcome::Replied(_) => "answered".to_owned(),
            Outcome::NotSent => "not sent".to_owned(),
            Outcome::Unknown => "unknown".to_owned(),
        };
        *outcomes.entry(name).or_default() += 1;
    }
    let outcomes: Vec<String> = outcomes
        .into_iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let r = evidence.resources;
    let _ = writeln!(
        page,
        "{} requests on {} connections: {}",
        evidence.ops.len(),
        sessions.len(),
        outcomes.join(", ")
    );
    let _ = writeln!(
        page,
        "{} executions witnessed; {} starts of the proxy, {} masters declared; {} KiB of memory at most; \
         descriptors {} before, {} after",
        evidence.executed.len(),
        proxy.starts(),
        evidence.declared.len(),
        r.rss_peak_kib,
        r.fds_before,
        r.fds_after
    );
    let complaints: Vec<String> = proxy
        .complaints()
        .into_iter()
        .map(|(event, count)| format!("{event} {count}"))
        .collect();
    let _ = writeln!(page, "the proxy warned: {}", complaints.join(", "));
    let _ = writeln!(
        page,
        "the run itself was woken late by {} ms at most",
        r.late_ms
    );
}

/// When each client was acknowledged a write, by client.
fn acks(ops: &[Op]) -> HashMap<u16, Vec<Micros>> {
    let mut acks: HashMap<u16, Vec<Micros>> = HashMap::new();
    for op in ops {
        // The others wait on purpose now and then.
        if matches!(op.request, Request::Push(_))
            && matches!(op.outcome, Outcome::Replied(Reply::Int(_)))
        {
            acks.entry(op.client).or_default().push(op.ended);
        }
    }
    acks
}

/// The longest that a client went without an acknowledged write, as far as the pause began in the round.
fn pause(acks: &HashMap<u16, Vec<Micros>>, round: &Round) -> Micros {
    let of = |times: &Vec<Micros>| {
        times
            .windows(2)
            .filter(|pair| (round.from..=round.to).contains(&pair[0]))
            .map(|pair| pair[1] - pair[0])
            .max()
    };
    acks.values().filter_map(of).max().unwrap_or(0)
}

fn seconds(micros: Micros) -> String {
    format!("{}.{:03} s", micros / 1_000_000, micros / 1000 % 1000)
}
