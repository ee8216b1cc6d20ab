//! Thousands of idle sessions: accepting them all, their memory, and a swap that cuts them all (`on_switch = "close"`) or keeps
//! them all (`"move"`), with what it costs a client beside them. The masters are real; the Sentinel is scripted, so that it is the
//! swap that is measured and not an election.

use std::time::Duration;

use crate::Size;
use crate::crowd::{Crowd, Steady};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::Topology;
use crate::page::{Cell, Part, largest, median};

/// Swaps of each configuration.
const SWAPS: usize = 5;
/// From the Sentinel's word to the log line.
const FOLLOW: Duration = Duration::from_secs(10);
/// Descriptors of everything but the crowd, in each process.
const RESERVED_FILES: u64 = 500;
/// Answers of the steady client that are awaited before and behind a swap.
const ANSWERS: usize = 20;

/// `--idle`
pub(crate) fn measure(size: &Size) -> Part {
    // Two descriptors a session in the proxy.
    let limit = switchmaster::net::socket::open_files().unwrap_or(u64::MAX);
    let most = usize::try_from(limit.saturating_sub(RESERVED_FILES) / 2).unwrap_or(usize::MAX);
    let sessions = size.sessions.min(most);
    let mut part = Part::new(
        format!(
            "{sessions} idle sessions and a swap, {SWAPS} of each; one client asks each millisecond beside them"
        ),
        &[
            "on_switch, idle sessions",
            "accepted in s",
            "KiB a session",
            "fence ms, median",
            "max",
            "all cut in ms",
            "all asked again, answered in ms",
            "longest gap of the other client ms, median",
            "max",
        ],
    );
    if sessions < size.sessions {
        part.note(format!(
            "the limit of open files ({limit}) allows no more than {sessions} sessions"
        ));
    }
    let masters = [single(), single()];
    for mode in ["close", "move"] {
        for count in [0, sessions] {
            let row = swaps(mode, count, &masters, &mut part);
            part.row(row);
        }
    }
    part.note("all cut: from the log line of the switch to the end that the last client saw");
    part.note("gap: between two answers; a millisecond of it is the client's own pause");
    part
}

fn single() -> Topology {
    Topology::start_with(|options| {
        options.replicas = 0;
        options.sentinels = 1;
        options.quorum = 1;
    })
}

fn swaps(mode: &str, count: usize, masters: &[Topology; 2], part: &mut Part) -> Vec<Cell> {
    let addrs = [masters[0].master().addr(), masters[1].master().addr()];
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(addrs[0]));
    let plan = Plan::following(&[sentinel.addr()]).env("SWITCHMASTER_FAILOVER_ON_SWITCH", mode);
    let proxy = Proxy::ready(plan);
    let base = proxy.rss_kib();
    let steady = Steady::start(proxy.addr());
    let mut accepted = Vec::new();
    let mut memory = f64::NAN;
    let (mut fences, mut cuts, mut answers, mut gaps) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // The other client's session may be among them, or between two connections.
    let all_but_one = count as f64..=count as f64 + 1.0;
    let mut crowd: Option<Crowd> = None;
    for swap in 1..=SWAPS {
        let crowd_now = match crowd.take() {
            Some(crowd) => crowd,
            None => {
                let (crowd, took) = Crowd::gather(proxy.addr(), count);
                accepted.push(took.as_secs_f64());
                crowd
            }
        };
        if swap == 1 && count > 0 {
            memory = proxy.rss_kib().saturating_sub(base) as f64 / count as f64;
        }
        steady.wait_answered(ANSWERS);
        steady.take_worst_ms();
        let mark = proxy.mark();
        sentinel.switch_master(addrs[swap % 2]);
        let switched = proxy.event_after(mark, "switched", FOLLOW);
        steady.wait_answered(ANSWERS);
        gaps.push(steady.take_worst_ms());
        fences.push(switched.number("fence_ms"));
        if mode == "close" {
            if let Some(last) = crowd_now.wait_ended() {
                let after = last.duration_since(switched.written());
                cuts.push(after.unwrap_or_default().as_secs_f64() * 1000.0);
            }
            let cut = switched.number("cut");
            part.expect(
                all_but_one.contains(&cut),
                format!("{cut} of {count} sessions cut"),
            );
        } else {
            answers.push(crowd_now.ask_all().as_secs_f64() * 1000.0);
            let kept = switched.number("kept");
            part.expect(
                all_but_one.contains(&kept) && crowd_now.ended() == 0,
                format!("{kept} of {count} sessions kept"),
            );
            crowd = Some(crowd_now);
        }
    }
    let or_none = |figure: f64| match figure.is_nan() || count == 0 {
        true => Cell::None,
        false => Cell::from(figure),
    };
    vec![
        Cell::Text(format!("{mode}, {count}")),
        or_none(median(&accepted)),
        or_none(memory),
        median(&fences).into(),
        largest(&fences).into(),
        or_none(median(&cuts)),
        or_none(median(&answers)),
        median(&gaps).into(),
        largest(&gaps).into(),
    ]
}
