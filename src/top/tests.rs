//! The screen as text, for one state after the other: `tests/top/screens/*.txt`. After a wanted change
//! `BLESS=1 cargo test --lib top` writes them anew, for review with `git diff`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use serde_json::json;

use super::draw::{Theme, draw};
use super::facts::Facts;
use super::keys::Key;
use super::view::View;
use crate::admin::status::Status;
use crate::control::ledger::OutageAccount;
use crate::net::clock::Moment;
use crate::status::harmless;
use crate::telemetry::RecentEvent;

const COLOUR: Theme = Theme { colour: true };
const EVERY: Duration = Duration::from_secs(1);
/// When all of this happened.
const NOW: f64 = 1_700_000_000.0;

pub(super) fn at(second: u64) -> Moment {
    Moment::from_nanos(second * 1_000_000_000)
}

pub(super) fn outage([detect, verify, first_byte]: [f64; 3]) -> OutageAccount {
    let told = json!({
        "began_at": NOW - 300.0, "ago_seconds": 300.0, "causes": ["announced_failover"], "outcome": "switched",
        "from": "10.114.0.3:6379", "to": "10.114.0.4:6379", "generation": 3, "epoch": 12, "trigger": "+promoted-slave",
        "over": true, "seconds": 0, "phases": {}, "fence_seconds": 0.0002, "cut": 0, "kept": 42, "most_waiting": 12,
    });
    let mut outage: OutageAccount = serde_json::from_value(told).expect("an outage");
    outage.seconds = detect + verify + first_byte;
    outage.phases.detect = Some(detect);
    outage.phases.verify = Some(verify);
    outage.phases.first_byte = Some(first_byte);
    outage
}

/// One proxy, which serves.
pub(super) fn status() -> Status {
    let sentinel = |host: u32| {
        json!({
            "addr": format!("10.114.0.{host}:26379"), "run_id": "0123", "up": true, "since_seconds": 266_400.0,
            "names": "10.114.0.4:6379", "epoch": 12, "heard_seconds": 0.4, "quorum": 2, "down_after_seconds": 5.0,
            "objectively_down": false, "trouble": null, "agrees": true,
        })
    };
    let told = json!({
        "version": "0.1.0", "pid": 4711, "now_at": NOW, "started_at": NOW - 266_400.0, "uptime_seconds": 266_400.0,
        "log_lines_dropped": 0,
        "proxies": [{
            "headline": "Serving 42 sessions to 10.114.0.4:6379, followed for 5 min 0 s; 3 of 3 Sentinels agree",
            "listen": ["127.0.0.1:6379"], "proxy": "main", "master_name": "mymaster", "phase": "serving", "hold": null,
            "master": {
                "addr": "10.114.0.4:6379", "verified_at_addr": "10.114.0.4:6379", "generation": 3, "epoch": 12,
                "since_at": NOW - 300.0, "since_seconds": 300.0, "trigger": "+promoted-slave", "verified": true,
                "role": "master", "role_age_seconds": 0.6,
            },
            "replicas": [
                { "addr": "10.114.0.3:6379", "lag_bytes": 0 },
                { "addr": "10.114.0.5:6379", "lag_bytes": 1_258_291 },
            ],
            "degraded": false, "ambiguous": false, "quorum_ok": true, "agreeing": 3,
            "sentinels": [sentinel(3), sentinel(4), sentinel(5)],
            "unavailable_seconds": 4.2, "outages_total": 3, "outages": [],
            "sessions": {
                "active": 42, "waiting": 0, "opened": 10_000, "moved": 84, "closed": { "client_closed": 9_950 },
                "requests_refused": 0, "turned_away": 0, "bytes_up": 1_000_000, "bytes_down": 5_000_000, "dial_failures": 0,
            },
        }],
    });
    let mut status: Status = serde_json::from_value(told).expect("a status");
    let mut start = outage([0.03, 0.002, 0.0]);
    start.causes = vec!["starting".into()];
    start.from = None;
    start.ago_seconds = 266_400.0;
    let mut crash = outage([2.4, 0.003, 0.001]);
    crash.causes = vec!["master_lost".into()];
    crash.ago_seconds = 7200.0;
    crash.cut = Some(10);
    crash.kept = Some(32);
    status.proxies[0].account.outages = vec![start, crash, outage([0.9, 0.002, 0.001])];
    status
}

/// The same in the middle of a failover.
fn failing_over() -> Status {
    let mut status = status();
    let proxy = &mut status.proxies[0];
    proxy.headline =
        "42 sessions held for 1.2 s: the link to the master is down. Last master 10.114.0.4:6379; \
        1 of 3 Sentinels agree"
            .into();
    let account = &mut proxy.account;
    account.phase = "held".into();
    account.hold = serde_json::from_value(json!({
        "cause": "master_lost", "words": "the link to the master is down", "seconds": 1.2, "limit_seconds": 15.0,
    }))
    .expect("a hold");
    account.agreeing = 1;
    account.sentinels[1].agrees = Some(false);
    account.sentinels[1].names = Some("10.114.0.5:6379".into());
    account.sentinels[1].epoch = Some(13);
    account.sentinels[2].up = Some(false);
    account.sentinels[2].agrees = None;
    account.sentinels[2].since_seconds = 12.0;
    account.sentinels[2].heard_seconds = Some(13.0);
    let mut lasting = outage([0.0; 3]);
    lasting.over = false;
    lasting.outcome = "lasting".into();
    lasting.causes = vec!["master_lost".into()];
    lasting.to = None;
    lasting.seconds = 1.2;
    lasting.ago_seconds = 1.2;
    lasting.phases = Default::default();
    (lasting.cut, lasting.kept) = (None, None);
    account.outages.push(lasting);
    proxy.sessions.waiting = 40;
    status
}

fn events() -> Vec<RecentEvent> {
    let event = |ago: f64, level: &str, event: &str, message: &str, fields: serde_json::Value| {
        let told = json!({ "at": NOW - ago, "level": level, "event": event, "message": message, "fields": fields });
        serde_json::from_value(told).expect("an event")
    };
    vec![
        event(
            266_400.0,
            "INFO",
            "ready",
            "clients are served",
            json!({ "master": "10.114.0.3:6379" }),
        ),
        event(
            300.0,
            "INFO",
            "switched",
            "10.114.0.3:6379 -> 10.114.0.4:6379",
            json!({ "detect_ms": 900, "cut": 0, "kept": 42 }),
        ),
        event(
            13.0,
            "WARN",
            "sentinel_down",
            "10.114.0.5:26379 cannot be reached: Connection refused (os error 111)",
            json!({}),
        ),
        event(
            1.2,
            "ERROR",
            "failed",
            "something that should not be",
            json!({ "code": 1 }),
        ),
    ]
}

/// A minute of traffic, and then this.
pub(super) fn facts_of(last: Status) -> Facts {
    let mut facts = Facts::new("127.0.0.1:8479".into());
    let uptime = last.uptime_seconds;
    let most = last.proxies[0].sessions.clone();
    for second in 0..60_u64 {
        let mut status = last.clone();
        let left = 60 - second;
        status.uptime_seconds = uptime - left as f64;
        let sessions = &mut status.proxies[0].sessions;
        sessions.bytes_up = most.bytes_up - left * left * 200;
        sessions.bytes_down = most.bytes_down - left * 70_000 - (left % 7) * 9_000;
        sessions.opened = most.opened - left;
        facts.heard(status, vec![], at(second));
    }
    facts.heard(last, events(), at(60));
    facts
}

fn drawn(
    facts: &Facts,
    view: &mut View,
    theme: Theme,
    (width, height): (u16, u16),
    now: Moment,
) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test backend");
    let mut seen = (0, 0);
    terminal
        .draw(|frame| seen = draw(frame, facts, view, theme, now))
        .expect("a test backend");
    view.drawn(seen.0, seen.1);
    terminal.backend().buffer().clone()
}

fn text_of(buffer: &Buffer) -> String {
    let rows = buffer.content.chunks(usize::from(buffer.area.width));
    let line = |row: &[ratatui::buffer::Cell]| {
        let text: String = row.iter().map(|cell| cell.symbol()).collect();
        format!("{}\n", text.trim_end())
    };
    rows.map(line).collect()
}

fn compare(name: &str, buffer: &Buffer) {
    let shown = text_of(buffer);
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/top/screens"));
    let path = folder.join(format!("{name}.txt"));
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(&folder).expect("the tests can be written");
        fs::write(&path, &shown).expect("the snapshot is written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shown == expected,
        "{} differs; if that is wanted: BLESS=1 cargo test --lib top\n--- expected\n{expected}\n--- shown\n{shown}",
        path.display()
    );
}

const SIZES: [(&str, (u16, u16)); 3] = [
    ("80x24", (80, 24)),
    ("40x20", (40, 20)),
    ("200x50", (200, 50)),
];

#[test]
fn serving() {
    for (size, area) in SIZES {
        let mut view = View::new(EVERY);
        compare(
            &format!("serving_{size}"),
            &drawn(&facts_of(status()), &mut view, COLOUR, area, at(60)),
        );
    }
}

#[test]
fn clients_wait() {
    for (size, area) in SIZES {
        let mut view = View::new(EVERY);
        compare(
            &format!("held_{size}"),
            &drawn(&facts_of(failing_over()), &mut view, COLOUR, area, at(60)),
        );
    }
}

#[test]
fn the_endpoint_is_gone() {
    let mut facts = facts_of(status());
    for second in 61..72 {
        facts.unanswered("Connection refused (os error 111)".into(), at(second));
    }
    for (size, area) in SIZES {
        let buffer = drawn(&facts, &mut View::new(EVERY), COLOUR, area, at(72));
        compare(&format!("gone_{size}"), &buffer);
        // What was so is grey, and what is so is not.
        let row = |y: u16| (0..area.0).map(move |x| (x, y));
        let alert = row(1).map(|cell| buffer[cell].bg);
        assert!(alert.into_iter().all(|bg| bg == Color::Red), "{size}");
        let last = area.1 - 2;
        assert!(
            row(last).all(|cell| buffer[cell].fg == Color::DarkGray),
            "{size}"
        );
    }
}

#[test]
fn nobody_has_answered_yet() {
    let mut facts = Facts::new("127.0.0.1:8479".into());
    compare(
        "asking_80x24",
        &drawn(&facts, &mut View::new(EVERY), COLOUR, (80, 24), at(1)),
    );
    facts.unanswered("Connection refused (os error 111)".into(), at(1));
    compare(
        "nobody_80x24",
        &drawn(&facts, &mut View::new(EVERY), COLOUR, (80, 24), at(4)),
    );
}

#[test]
fn help_log_and_frozen() {
    let facts = facts_of(status());
    let shown = |name: &str, keys: &[Key], area| {
        let mut view = View::new(EVERY);
        for key in keys {
            // As the shell does: each key is about what was drawn.
            drawn(&facts, &mut view, COLOUR, area, at(60));
            view.press(*key, &facts, at(60));
        }
        compare(name, &drawn(&facts, &mut view, COLOUR, area, at(72)));
    };
    shown("help_80x24", &[Key::Char('?')], (80, 24));
    shown("help_40x20", &[Key::Char('?')], (40, 20));
    shown("failovers_80x24", &[Key::Char('s')], (80, 24));
    shown("log_80x24", &[Key::Char('s'), Key::Char('s')], (80, 24));
    shown("frozen_80x24", &[Key::Char(' '), Key::Char('+')], (80, 24));
    shown("scrolled_40x20", &[Key::PageDown, Key::Down], (40, 20));
}

#[test]
fn several_proxies() {
    let mut two = status();
    let mut other = failing_over().proxies.remove(0);
    other.account.proxy = "sessions".into();
    two.proxies.push(other);
    let facts = facts_of(two);
    let mut view = View::new(EVERY);
    view.press(Key::Tab, &facts, at(60));
    compare(
        "two_80x24",
        &drawn(&facts, &mut view, COLOUR, (80, 24), at(60)),
    );
}

#[test]
fn a_disagreeing_sentinel_stands_out() {
    let buffer = drawn(
        &facts_of(failing_over()),
        &mut View::new(EVERY),
        COLOUR,
        (80, 40),
        at(60),
    );
    let text = text_of(&buffer);
    let y = text
        .lines()
        .position(|line| line.contains("DISAGREES"))
        .expect("it is told");
    let y = u16::try_from(y).expect("a row");
    assert_eq!(buffer[(3, y)].fg, Color::Red);
    assert!(buffer[(3, y)].modifier.contains(Modifier::BOLD));
    assert_eq!(buffer[(3, y - 1)].fg, Color::Reset, "the one that agrees");
}

#[test]
fn without_colours_there_is_none() {
    let mut gone = facts_of(failing_over());
    let view = || View::new(EVERY);
    let held = drawn(
        &gone,
        &mut view(),
        Theme { colour: false },
        (80, 40),
        at(60),
    );
    gone.unanswered("refused".into(), at(61));
    let gone = drawn(
        &gone,
        &mut view(),
        Theme { colour: false },
        (80, 40),
        at(62),
    );
    for cell in held.content.iter().chain(&gone.content) {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
    }
    assert_eq!(
        text_of(&held),
        text_of(&drawn(
            &facts_of(failing_over()),
            &mut view(),
            COLOUR,
            (80, 40),
            at(60)
        ))
    );
}

#[test]
fn names_do_nothing_to_the_terminal() {
    let hostile = "a\u{1b}[2J\u{9b}5n\r\n\u{202e}z";
    let mut status = status();
    status.version = hostile.into();
    let proxy = &mut status.proxies[0];
    proxy.headline = hostile.into();
    proxy.listen = vec![hostile.into()];
    let account = &mut proxy.account;
    account.proxy = hostile.into();
    account.master_name = hostile.into();
    account.sentinels[0].trouble = Some(hostile.into());
    account.replicas[0].addr = hostile.into();
    let told = serde_json::to_string(&status).expect("JSON");
    let read: Status = harmless::read(&told).expect("a status");
    let mut facts = Facts::new("127.0.0.1:8479".into());
    let mut event = events().remove(0);
    event.message = hostile.into();
    let told = serde_json::to_string(&[event]).expect("JSON");
    facts.heard(read, harmless::read(&told).expect("events"), at(0));
    for area in [(200, 60), (40, 60)] {
        let buffer = drawn(&facts, &mut View::new(EVERY), COLOUR, area, at(0));
        for cell in &buffer.content {
            assert!(
                !cell
                    .symbol()
                    .chars()
                    .any(|c| c.is_control() || c == '\u{202e}'),
                "{cell:?}"
            );
        }
        assert!(
            text_of(&buffer).contains("a\\u{1b}[2J"),
            "{}",
            text_of(&buffer)
        );
    }
}

#[test]
fn every_size_can_be_drawn() {
    let mut two = failing_over();
    two.proxies.push(status().proxies.remove(0));
    let mut facts = facts_of(two);
    facts.unanswered("refused".into(), at(61));
    for width in (1..30).chain([79, 139, 140, 500]) {
        for height in [1, 2, 3, 5, 24, 100] {
            let mut view = View::new(EVERY);
            for key in [Key::Char(' '), Key::Char('s'), Key::Char('?')] {
                drawn(&facts, &mut view, COLOUR, (width, height), at(62));
                view.press(key, &facts, at(62));
            }
            drawn(&facts, &mut view, COLOUR, (width, height), at(62));
        }
    }
}
