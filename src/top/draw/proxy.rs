//! One proxy: who is master, what flows, what each Sentinel believes, what the last failovers cost. Pure.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::NARROW;
use super::cells::{bar, date, fill, pad, pieces, row, spark, width_of};
use super::theme::Theme;
use crate::admin::status::{ProxyStatus, bytes, counted, duration};
use crate::control::ledger::{Account, OutageAccount, SentinelAccount};
use crate::status::text::{costs, what};
use crate::top::facts::{Facts, History, Rates};

/// Proxies listed at once, around the selected one.
const MAX_LISTED: usize = 8;
/// Sentinels shown; more than that nobody runs for one master.
const MOST_SENTINELS: usize = 64;
/// Columns of the labels.
const LABEL: usize = 11;
/// Columns of a rate: `1023.9 KiB/s`
const RATE: usize = 13;
/// Widest sparkline: five minutes at one question a second would be no use on any screen.
const MAX_SPARK: usize = 120;
/// A replica of a busy master is always a little behind; redis' own backlog is as long, in bytes.
const LAGGING: u64 = 1024 * 1024;
/// A Sentinel is asked each second; what it said longer ago is told with its age, in seconds.
const LATE: f64 = 2.0;
/// A bar takes this part of the width, where its story stands beside it, and is no wider than that.
const BAR_SHARE: usize = 6;
const MAX_BAR: usize = 40;

/// The sentence for somebody who was just woken.
pub(super) fn headline(proxy: &ProxyStatus, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let style = theme.mood(proxy.mood()).patch(theme.strong());
    let lines = fill(&proxy.headline, width.saturating_sub(2)).into_iter();
    lines
        .map(|text| Line::styled(format!(" {text}"), style))
        .collect()
}

/// All proxies, where there are several.
pub(super) fn list(
    facts: &Facts,
    selected: usize,
    theme: Theme,
    width: usize,
) -> Vec<Line<'static>> {
    let proxies = facts.proxies();
    if proxies.len() < 2 {
        return Vec::new();
    }
    let first = selected
        .saturating_sub(MAX_LISTED / 2)
        .min(proxies.len().saturating_sub(MAX_LISTED));
    let shown = proxies.iter().enumerate().skip(first).take(MAX_LISTED);
    let name = shown
        .clone()
        .map(|(_, p)| width_of(&p.account.proxy))
        .max()
        .unwrap_or(0)
        .min(width);
    let title = format!("PROXIES, {} of {}", selected + 1, proxies.len());
    let mut lines = vec![theme.title(&title, width)];
    for (n, proxy) in shown {
        let account = &proxy.account;
        let rates = facts.history(&account.proxy).latest();
        let master = account
            .master
            .as_ref()
            .map_or("no master", |m| m.addr.as_str());
        let flow = |of: fn(&Rates) -> f64| rates.map_or_else(|| "-".to_owned(), |r| rate(of(&r)));
        let mark = if n == selected { '>' } else { ' ' };
        let text_style = if n == selected {
            theme.strong()
        } else {
            theme.plain()
        };
        lines.push(Line::from(vec![
            Span::styled(format!("{mark}{} ", pad(&account.proxy, name)), text_style),
            Span::styled(format!("{:<9} ", phase(account)), theme.mood(proxy.mood())),
            Span::styled(
                format!(
                    "{}  {} open, {} held  up {} down {}",
                    pad(master, 21),
                    proxy.sessions.active,
                    proxy.sessions.waiting,
                    flow(|r| r.up),
                    flow(|r| r.down)
                ),
                text_style,
            ),
        ]));
    }
    lines
}

/// The master, its replicas, and what flows.
pub(super) fn master(
    proxy: &ProxyStatus,
    history: &History,
    theme: Theme,
    width: usize,
) -> Vec<Line<'static>> {
    let account = &proxy.account;
    let title = format!(
        "{}: \"{}\" on {}",
        account.proxy,
        account.master_name,
        proxy.listen.join(", ")
    );
    let mut lines = vec![theme.title(&title, width)];
    let text = |label: &str, text: &str| row(label, LABEL, text, theme.plain(), theme, width);
    let phase = Span::styled(phase(account), theme.mood(proxy.mood()));
    let label = |label: &str| Span::styled(format!(" {}", pad(label, LABEL)), theme.faint());
    if let Some(master) = &account.master {
        let role = match (&master.role, master.role_age_seconds) {
            (Some(role), Some(age)) if role == "master" => {
                format!(", ROLE {} ago", duration(age))
            }
            (Some(role), Some(age)) => format!(", ROLE {role} {} ago", duration(age)),
            _ if master.verified => String::new(),
            _ => ", ROLE hidden".to_owned(),
        };
        let order = format!(
            "epoch {}, generation {}{role}",
            master.epoch, master.generation
        );
        let mut first = vec![
            label("master"),
            Span::styled(format!("{}  ", master.addr), theme.strong()),
            phase,
        ];
        if width >= NARROW {
            first.push(Span::raw(format!("  {order}")));
        }
        lines.push(Line::from(first));
        if width < NARROW {
            lines.extend(text("", &order));
        }
        let by = if master.trigger.is_empty() {
            String::new()
        } else {
            format!(", by {}", master.trigger)
        };
        let since = format!(
            "{}, for {}{by}",
            date(master.since_at),
            duration(master.since_seconds)
        );
        lines.extend(text("since", &since));
    } else {
        lines.push(Line::from(vec![label("master"), phase]));
    }
    if let Some(hold) = &account.hold {
        // A pause ends when its time is over, or when somebody ends it.
        let limit = match &account.pause {
            Some(pause) => pause.left_seconds.map_or_else(
                || ", until it is resumed".to_owned(),
                |left| format!(", for {} more", duration(left)),
            ),
            None => format!(" of at most {}", duration(hold.limit_seconds)),
        };
        let told = format!(
            "{}{limit}: {} ({})",
            duration(hold.seconds),
            hold.words,
            hold.cause
        );
        lines.extend(row("held for", LABEL, &told, theme.bad(), theme, width));
    }
    for replica in &account.replicas {
        let lag = match replica.lag_bytes {
            0 => Span::styled("in step", theme.good()),
            lag => {
                let style = if lag < LAGGING {
                    theme.plain()
                } else {
                    theme.uneasy()
                };
                Span::styled(format!("{} behind", bytes(lag as f64)), style)
            }
        };
        lines.push(Line::from(vec![
            label("replica"),
            Span::raw(format!("{}  ", replica.addr)),
            lag,
        ]));
    }
    for of in account.reads.iter().flat_map(|reads| &reads.replicas) {
        let (word, style) = if of.usable {
            (counted(of.sessions, "session"), theme.good())
        } else {
            (of.reason.clone().unwrap_or_default(), theme.uneasy())
        };
        lines.push(Line::from(vec![
            label("read from"),
            Span::raw(format!("{}  ", of.addr)),
            Span::styled(word, style),
        ]));
    }
    let s = &proxy.sessions;
    let new = history
        .latest()
        .map_or_else(String::new, |r| format!(", {:.1} new/s", r.opened));
    let mut counts = format!(
        "{} open, {} held{new}, {} moved, {} turned away",
        s.active, s.waiting, s.moved, s.turned_away
    );
    if s.requests_refused > 0 {
        counts.push_str(&format!(
            ", {} refused",
            counted(s.requests_refused, "request")
        ));
    }
    if s.dial_failures > 0 {
        counts.push_str(&format!(", {}", counted(s.dial_failures, "failed dial")));
    }
    let style = if s.waiting > 0 {
        theme.bad()
    } else {
        theme.plain()
    };
    lines.extend(row("sessions", LABEL, &counts, style, theme, width));
    for (word, of) in [
        ("to master", (|r| r.up) as fn(&Rates) -> f64),
        ("to clients", |r| r.down),
    ] {
        let room = width.saturating_sub(LABEL + RATE + 3).min(MAX_SPARK);
        let now = history
            .latest()
            .map_or_else(|| "-".to_owned(), |r| rate(of(&r)));
        lines.push(Line::from(vec![
            label(word),
            Span::raw(pad(&now, RATE)),
            Span::styled(spark(&history.last(room, of)), theme.spark()),
        ]));
    }
    let lost = format!(
        "{} since the start, {}",
        duration(account.unavailable_seconds),
        counted(account.outages_total, "outage")
    );
    lines.extend(text("unserved", &lost));
    lines
}

fn rate(bytes_a_second: f64) -> String {
    format!("{}/s", bytes(bytes_a_second))
}

/// `SERVING`, `NO MASTER`
fn phase(account: &Account) -> String {
    account.phase.replace('_', " ").to_uppercase()
}

/// Each Sentinel's own opinion.
pub(super) fn sentinels(account: &Account, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let all = &account.sentinels;
    let mut title = format!("SENTINELS, {} of {} agree", account.agreeing, all.len());
    if account.ambiguous {
        title.push_str(", THEY NAME DIFFERENT MASTERS");
    }
    let mut lines = vec![theme.title(&title, width)];
    if !account.quorum_ok {
        let words = "too few Sentinels answer to agree on a failover";
        lines.push(Line::styled(format!(" {words}"), theme.bad()));
    }
    let named = |s: &SentinelAccount| s.names.clone().unwrap_or_else(|| "names none".to_owned());
    // Never wider than the screen, however long somebody's name is.
    let widest = |of: &dyn Fn(&SentinelAccount) -> usize| {
        let all = all.iter().take(MOST_SENTINELS);
        all.map(of).max().unwrap_or(0).min(width)
    };
    let addrs = widest(&|s| width_of(&s.addr));
    let names = widest(&|s| width_of(&named(s)));
    for sentinel in all.iter().take(MOST_SENTINELS) {
        let (sign, verdict, style) = verdict(sentinel, theme);
        let row_style = if style == theme.good() {
            theme.plain()
        } else {
            style
        };
        let epoch = sentinel
            .epoch
            .map_or_else(|| "epoch -".to_owned(), |epoch| format!("epoch {epoch}"));
        let state = state(sentinel);
        if width < NARROW {
            lines.push(Line::from(vec![
                Span::styled(format!(" {sign} "), style),
                Span::styled(format!("{}  ", sentinel.addr), row_style),
                Span::styled(verdict, style),
            ]));
            let told = format!("{} {epoch}, {state}", named(sentinel));
            lines.extend(row("", 2, &told, row_style, theme, width));
        } else {
            lines.push(Line::from(vec![
                Span::styled(format!(" {sign} "), style),
                Span::styled(format!("{}  ", pad(&sentinel.addr, addrs)), row_style),
                Span::styled(format!("{verdict:<12}  "), style),
                Span::styled(
                    format!("{}  {epoch:<8}  {state}", pad(&named(sentinel), names)),
                    row_style,
                ),
            ]));
        }
    }
    lines
}

fn verdict(sentinel: &SentinelAccount, theme: Theme) -> (char, &'static str, Style) {
    match (sentinel.up, sentinel.agrees) {
        (Some(true), Some(true)) => ('\u{25cf}', "agrees", theme.good()),
        (Some(true), Some(false)) => ('\u{2716}', "DISAGREES", theme.bad()),
        (Some(true), None) if sentinel.counts() => ('\u{25cf}', "answers", theme.plain()),
        (Some(true), None) => ('?', "says nothing", theme.uneasy()),
        (Some(false), _) => ('\u{2716}', "DOWN", theme.bad()),
        (None, _) => ('?', "not tried", theme.uneasy()),
    }
}

fn state(sentinel: &SentinelAccount) -> String {
    let since = duration(sentinel.since_seconds);
    let mut parts = match sentinel.up {
        Some(true) => vec![format!("up {since}")],
        Some(false) => vec![format!("down for {since}")],
        None => Vec::new(),
    };
    // Of one that answers as it should the time is no news.
    let late = sentinel.heard_seconds.filter(|heard| *heard >= LATE);
    if let Some(heard) = late.filter(|_| sentinel.up == Some(true)) {
        parts.push(format!("heard {} ago", duration(heard)));
    }
    if sentinel.objectively_down {
        parts.push("calls it objectively down".to_owned());
    }
    parts.extend(sentinel.trouble.clone());
    parts.join(", ")
}

/// The last times in which clients had to wait, drawn in their phases; the latest first.
pub(super) fn failovers(
    account: &Account,
    most: usize,
    theme: Theme,
    width: usize,
) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(vec![
        Span::styled(" FAILOVERS ", theme.strong()),
        Span::styled("\u{2588}", theme.detect()),
        Span::styled(" detect ", theme.faint()),
        Span::styled("\u{2593}", theme.verify()),
        Span::styled(" verify ", theme.faint()),
        Span::styled("\u{2591}", theme.first_byte()),
        Span::styled(" first byte ", theme.faint()),
        Span::styled("\u{2500}".repeat(width.saturating_sub(41)), theme.faint()),
    ])];
    let longest = account
        .outages
        .iter()
        .rev()
        .take(most)
        .map(|o| o.seconds)
        .fold(0.001, f64::max);
    if account.outages.is_empty() {
        lines.push(Line::styled(" none", theme.faint()));
    }
    for outage in account.outages.iter().rev().take(most) {
        lines.extend(failover(outage, longest, theme, width));
    }
    lines
}

fn failover(
    outage: &OutageAccount,
    longest: f64,
    theme: Theme,
    width: usize,
) -> Vec<Line<'static>> {
    let style = if outage.over {
        theme.strong()
    } else {
        theme.bad()
    };
    let (length, ago) = (duration(outage.seconds), duration(outage.ago_seconds));
    let causes = outage.causes.join(", ").replace('_', " ");
    let mut cost = costs(outage);
    if outage.most_waiting > 0 {
        cost.push(format!("{} waited", outage.most_waiting));
    }
    let mut lines = Vec::new();
    if width < NARROW {
        lines.push(Line::styled(format!(" {length}, {ago} ago"), style));
        lines.extend(row(
            "",
            2,
            &format!("{} ({causes})", what(outage)),
            theme.plain(),
            theme,
            width,
        ));
        let mut drawn = vec![Span::raw("   ")];
        drawn.extend(bar(outage, longest, width.saturating_sub(5), theme));
        lines.push(Line::from(drawn));
        lines.extend(row("", 2, &cost.join(", "), theme.faint(), theme, width));
        return lines;
    }
    lines.push(Line::from(vec![
        Span::styled(format!(" {} ", pad(&length, 9)), style),
        Span::raw(what(outage)),
        Span::styled(format!("  {ago} ago, {causes}"), theme.faint()),
    ]));
    let mut drawn = vec![Span::raw(" ")];
    let room = (width / BAR_SHARE).min(MAX_BAR);
    drawn.extend(bar(outage, longest, room, theme));
    drawn.push(Span::raw(" "));
    drawn.extend(pieces(&cost, ", ", "", width.saturating_sub(room + 3)).spans);
    lines.push(Line::from(drawn));
    lines
}
