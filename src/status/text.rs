//! A status as text, for a terminal of eighty columns and for somebody in a hurry. Pure.

use crate::admin::status::{Mood, ProxyStatus, Status, counted, duration};
use crate::control::ledger::{OutageAccount, SentinelAccount};

/// Outages listed, the latest first.
const MAX_OUTAGES: usize = 5;

/// The numbers of SGR (ECMA-48): bold green, yellow, red.
const GREEN: &str = "1;32";
const YELLOW: &str = "1;33";
const RED: &str = "1;31";

/// `colour`: what matters most is set off, too.
pub(super) fn render(status: &Status, colour: bool) -> String {
    let mut page = String::new();
    for proxy in &status.proxies {
        entry(&mut page, proxy, colour);
    }
    let lost = match status.log_lines_dropped {
        0 => String::new(),
        count => format!(", {} lost", counted(count, "log line")),
    };
    line(
        &mut page,
        &format!(
            "switchmaster {}, process {}, up for {}{lost}",
            status.version,
            status.pid,
            duration(status.uptime_seconds)
        ),
    );
    page
}

fn entry(page: &mut String, proxy: &ProxyStatus, colour: bool) {
    let account = &proxy.account;
    let sgr = match proxy.mood() {
        Mood::Good => GREEN,
        Mood::Uneasy => YELLOW,
        Mood::Bad => RED,
    };
    line(page, &painted(&proxy.headline, sgr, colour));
    line(
        page,
        &format!(
            "  proxy {} on {}, master name {}",
            account.proxy,
            proxy.listen.join(", "),
            account.master_name
        ),
    );
    if let Some(master) = &account.master {
        let verified = if master.verified { "" } else { ", ROLE hidden" };
        line(
            page,
            &format!(
                "  master    {}  epoch {}, generation {}{verified}",
                master.addr, master.epoch, master.generation
            ),
        );
    }
    if let Some(rejected) = &account.rejected {
        let told = format!("{}  {}", rejected.addr, rejected.words);
        line(
            page,
            &format!("  rejected  {}", painted(&told, RED, colour)),
        );
    }
    for replica in &account.replicas {
        line(
            page,
            &format!(
                "  replica   {}  {} bytes behind",
                replica.addr, replica.lag_bytes
            ),
        );
    }
    for sentinel in &account.sentinels {
        let told = format!("{}  {}", sentinel.addr, opinion(sentinel));
        let is_well = sentinel.up == Some(true) && sentinel.agrees == Some(true);
        let told = painted(&told, RED, colour && !is_well);
        line(page, &format!("  sentinel  {told}"));
    }
    if !account.quorum_ok {
        let words = "too few Sentinels answer to agree on a failover";
        line(page, &format!("  {}", painted(words, RED, colour)));
    }
    let s = &proxy.sessions;
    line(
        page,
        &format!(
            "  sessions  {} open, {} waiting, {} since the start, {} moved, {} turned away",
            s.active, s.waiting, s.opened, s.moved, s.turned_away
        ),
    );
    if !s.closed.is_empty() {
        let closed: Vec<_> = s
            .closed
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        line(page, &format!("  closed    {}", closed.join(", ")));
    }
    line(
        page,
        &format!(
            "  clients could not be served for {} since the start",
            duration(account.unavailable_seconds)
        ),
    );
    for outage in account.outages.iter().rev().take(MAX_OUTAGES) {
        line(page, &format!("    {}", story(outage)));
    }
}

fn opinion(sentinel: &SentinelAccount) -> String {
    let names = match (&sentinel.names, sentinel.epoch) {
        (Some(names), Some(epoch)) => format!("names {names} at epoch {epoch}"),
        _ => "names no master".to_owned(),
    };
    let trouble = sentinel
        .trouble
        .as_ref()
        .map_or_else(String::new, |why| format!(" ({why})"));
    match (sentinel.up, sentinel.agrees) {
        (Some(true), Some(true)) => "agrees".to_owned(),
        (Some(true), Some(false)) => format!("DISAGREES: {names}"),
        (Some(true), None) if sentinel.counts() => names,
        (Some(true), None) => format!("says nothing that counts{trouble}"),
        (Some(false), _) => format!(
            "DOWN for {}{trouble}, last it {names}",
            duration(sentinel.since_seconds)
        ),
        (None, _) => "not tried yet".to_owned(),
    }
}

fn story(outage: &OutageAccount) -> String {
    let causes = outage.causes.join(", ");
    let parts = [format!("{} ({causes})", what(outage))];
    let parts: Vec<_> = parts.into_iter().chain(costs(outage)).collect();
    format!(
        "{} ago: {} {}",
        duration(outage.ago_seconds),
        duration(outage.seconds),
        parts.join(", ")
    )
}

/// What came of an outage: `10.0.0.3:6379 -> 10.0.0.4:6379`
pub(crate) fn what(outage: &OutageAccount) -> String {
    match (&outage.from, &outage.to) {
        (Some(from), Some(to)) => format!("{from} -> {to}"),
        (None, Some(to)) => format!("until {to} was verified"),
        _ => outage.outcome.clone(),
    }
}

/// Where its time went, and what became of its sessions.
pub(crate) fn costs(outage: &OutageAccount) -> Vec<String> {
    let phases = [
        ("detect", outage.phases.detect),
        ("verify", outage.phases.verify),
        ("first byte", outage.phases.first_byte),
    ];
    let mut parts: Vec<_> = phases
        .iter()
        .filter_map(|(word, seconds)| Some(format!("{word} {}", duration((*seconds)?))))
        .collect();
    if let (Some(kept), Some(cut)) = (outage.kept, outage.cut) {
        parts.push(format!("{kept} kept, {cut} closed"));
    }
    parts
}

fn painted(text: &str, sgr: &str, colour: bool) -> String {
    if colour {
        format!("\x1b[{sgr}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn line(page: &mut String, text: &str) {
    page.push_str(text);
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ledger::Ledger;
    use crate::net::addr::{HostPort, NodeAddr, SentinelAddr};
    use crate::net::clock::{At, Moment};
    use crate::net::tls::Refused;
    use crate::session::tally::Sum;
    use crate::topology::observation::{Asked, Observation, RoleReport, Said, Unasked, View};
    use crate::topology::{Epoch, MasterAddr, State};
    use crate::worker::Counters;
    use std::net::SocketAddr;
    use std::time::Duration;

    fn page(ledger: &Ledger, at: At) -> String {
        let proxy = ProxyStatus::new(
            ledger.account(at),
            &["127.0.0.1:6379".to_owned()],
            &Counters {
                name: "main".into(),
                sessions: Sum::default(),
                accept_errors: 0,
                refused_not_allowed: 0,
                refused_full: 0,
                refused_source: 0,
                refused_tls: [0; Refused::ALL.len()],
            },
        );
        let mut page = String::new();
        entry(&mut page, &proxy, false);
        page
    }

    /// Two Sentinels, of which the first is told of this.
    fn told(ledger: &mut Ledger, at: At, said: &Said) {
        for port in [26379, 26380] {
            let sentinel = SentinelAddr(HostPort::parse("10.0.0.3", Some(port)).expect("valid"));
            let said = said.clone();
            ledger.observed(at, &Observation { sentinel, said });
        }
    }

    #[test]
    fn who_looks_at_night_reads_why_there_is_no_master() {
        let at = At::for_test(Moment::from_nanos(1_000_000_000));
        let state = State::initial(Duration::from_secs(15));
        let mut ledger = Ledger::new(at, "main", "mymaster", state);
        let why = Unasked {
            reason: "auth",
            words: "login failed: WRONGPASS: set sentinel.password_file".to_owned(),
        };
        told(&mut ledger, at, &Said::Down(why));
        let later = At::for_test(at.moment + Duration::from_secs(13));
        let text = page(&ledger, later);
        for line in [
            "0 of 2 Sentinels answer; 0 sessions wait. Sentinel 10.0.0.3:26379: login failed: WRONGPASS: set \
             sentinel.password_file\n",
            "  sentinel  10.0.0.3:26380  DOWN for 13 s (login failed: WRONGPASS: set sentinel.password_file), last it \
             names no master\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }

        // They answer, and whom they name refuses the login.
        let master = SocketAddr::from(([10, 0, 0, 1], 6379));
        let view = View {
            master: NodeAddr(HostPort::from(master)),
            epoch: Epoch(4),
            down_after: None,
            quorum: None,
            objectively_down: false,
            unanswered: Duration::ZERO,
        };
        told(&mut ledger, at, &Said::Up(None));
        let asked_at = later.moment;
        let said = Said::View {
            view: Ok(view),
            asked_at,
            asked: Asked::ByPoll,
            since: asked_at,
        };
        told(&mut ledger, later, &said);
        let refused = RoleReport::LoginFailed("WRONGPASS".to_owned());
        let words = "it refuses the configured login".to_owned();
        ledger.rejected(later, &MasterAddr::for_test(master), &refused, words);
        let text = page(&ledger, later);
        for line in [
            ". 10.0.0.1:6379 is not accepted as the master: it refuses the configured login\n",
            "  rejected  10.0.0.1:6379  it refuses the configured login\n",
            "  sentinel  10.0.0.3:26379  names 10.0.0.1:6379 at epoch 4\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(
            !text.contains("DISAGREES") && !text.contains("too few"),
            "{text}"
        );
        // It was left alone since.
        let later = At::for_test(later.moment + Duration::from_secs(11));
        assert!(!page(&ledger, later).contains("rejected"));
    }
}
