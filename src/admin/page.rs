//! The status page: one document, no asset from elsewhere, readable without a script. With one it fetches itself every two
//! seconds (the main part alone, `/main`) and puts that in the old one's place, so there is only one rendering. Everything that comes from a
//! configuration or a peer is escaped by the template.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Panel;
use super::samples::{KEPT, Samples};
use super::status::{Mood, ProxyStatus, Status, bytes, counted, duration};
use crate::control::ledger::{Account, OutageAccount, Reads, SentinelAccount};
use crate::telemetry::RecentEvent;

/// Outages drawn.
const MAX_BARS: usize = 8;
/// Log events listed.
const MAX_EVENTS: usize = 40;
/// Size of a sparkline and of a bar, in the units of their drawing.
const SPARK: (f64, f64) = (300.0, 40.0);
const BAR: f64 = 600.0;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page as of now. `nonce` is what its style and its script are allowed by.
pub(super) fn render(panel: &Panel, nonce: &str) -> Markup {
    let status = panel.status();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title_of(&status)) }
                link rel="icon" href="data:,";
                noscript { meta http-equiv="refresh" content="5"; }
                style nonce=(nonce) { (PreEscaped(STYLE)) }
            }
            body {
                (main(panel, &status))
                script nonce=(nonce) { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// What of the page changes.
pub(super) fn render_main(panel: &Panel) -> Markup {
    main(panel, &panel.status())
}

fn title_of(status: &Status) -> String {
    let worst = status.proxies.iter().map(ProxyStatus::mood).max();
    format!("{} - switchmaster", worst.unwrap_or(Mood::Good).word())
}

fn main(panel: &Panel, status: &Status) -> Markup {
    let events = panel.log.recent.events();
    html! {
        main data-title=(title_of(status)) {
            @for proxy in &status.proxies {
                (entry(proxy, &panel.samples(&proxy.account.proxy)))
            }
            (journal(&events, status.now_at))
            footer {
                "switchmaster " (status.version) ", process " (status.pid) ", up for " (duration(status.uptime_seconds))
                @if status.log_lines_dropped > 0 { ", " (counted(status.log_lines_dropped, "log line")) " lost" }
                ". " a href="/status" { "JSON" } " " a href="/metrics" { "metrics" } " " a href="/events" { "events" }
                span id="stale" hidden { " This page does not get through to the proxy any longer." }
            }
        }
    }
}

/// The class of its colour.
const fn class_of(mood: Mood) -> &'static str {
    match mood {
        Mood::Good => "good",
        Mood::Uneasy => "uneasy",
        Mood::Bad => "bad",
    }
}

fn entry(proxy: &ProxyStatus, samples: &Samples) -> Markup {
    let account = &proxy.account;
    let mood = proxy.mood();
    html! {
        section class="proxy" {
            header class=(class_of(mood)) {
                h1 { span class="dot" role="img" aria-label=(mood.word()) {} (proxy.headline) }
                p class="sub" {
                    "proxy " strong { (account.proxy) } ", master name " strong { (account.master_name) } ", clients connect to "
                    @for (n, listen) in proxy.listen.iter().enumerate() {
                        @if n > 0 { ", " }
                        code { (listen) }
                    }
                }
            }
            div class="grid" {
                (sentinels(account))
                (topology(proxy))
                (sparks(proxy, samples))
            }
            (timeline(account))
            (sessions(proxy))
        }
    }
}

fn sentinels(account: &Account) -> Markup {
    html! {
        div class="card" {
            h2 { "Sentinels" }
            @if !account.quorum_ok {
                p class="warn" { "Too few Sentinels answer to agree on a failover." }
            }
            ul class="sentinels" {
                @for sentinel in &account.sentinels { (opinion(sentinel)) }
            }
        }
    }
}

fn opinion(sentinel: &SentinelAccount) -> Markup {
    let (class, word) = match (sentinel.up, sentinel.agrees) {
        (Some(true), Some(true)) => ("good", "agrees"),
        (Some(true), Some(false)) => ("bad", "names another master"),
        (Some(true), None) if sentinel.counts() => ("good", "answers"),
        (Some(true), None) => ("uneasy", "says nothing that counts"),
        (Some(false), _) => ("bad", "cannot be reached"),
        (None, _) => ("uneasy", "not tried yet"),
    };
    html! {
        li class=(class) {
            div { span class="dot" {} code { (sentinel.addr) } " " span class="word" { (word) } }
            div class="fine" {
                @if let Some(names) = &sentinel.names {
                    "names " code { (names) }
                    @if let Some(epoch) = sentinel.epoch { " at epoch " (epoch) }
                    @if let Some(heard) = sentinel.heard_seconds { ", " (duration(heard)) " ago" }
                }
                @if sentinel.objectively_down { "; calls it objectively down" }
                @if let Some(trouble) = &sentinel.trouble { " " (trouble) }
                @if sentinel.up == Some(false) { " for " (duration(sentinel.since_seconds)) }
            }
        }
    }
}

fn topology(proxy: &ProxyStatus) -> Markup {
    let account = &proxy.account;
    html! {
        div class="card" {
            h2 { "Master and replicas" }
            @if let Some(master) = &account.master {
                p class="master" { span class="tag" { "master" } " " code { (master.addr) } }
                dl {
                    dt { "followed for" } dd { (duration(master.since_seconds)) ", by " code { (master.trigger) } }
                    dt { "config-epoch" } dd { (master.epoch) ", generation " (master.generation) }
                    dt { "ROLE" } dd {
                        @match (&master.role, master.role_age_seconds) {
                            (Some(role), Some(age)) => { (role) ", asked " (duration(age)) " ago" }
                            _ if master.verified => "master, when it was adopted",
                            _ => "hidden; most Sentinels vouch for it",
                        }
                    }
                }
                @if account.replicas.is_empty() {
                    p class="fine" { "It tells of no replica." }
                } @else {
                    ul class="replicas" {
                        @for replica in &account.replicas {
                            li { span class="tag" { "replica" } " " code { (replica.addr) } " " span class="fine" {
                                @if replica.lag_bytes == 0 { "in step" } @else { (bytes(replica.lag_bytes as f64)) " behind" }
                            } }
                        }
                    }
                }
                @if let Some(reads) = &account.reads { (readings(reads)) }
            } @else {
                p { "No master was verified yet." }
            }
        }
    }
}

/// Where clients of an entry with `role = "replica"` read.
fn readings(reads: &Reads) -> Markup {
    html! {
        h3 { "Read from" }
        ul class="replicas" {
            @for of in &reads.replicas {
                li { span class="tag" { @if of.usable { "read" } @else { "not read" } } " " code { (of.addr) } " " span class="fine" {
                    @if let Some(words) = &of.words { (words) } @else {
                        (counted(of.sessions, "session"))
                        @if let Some(age) = of.age_seconds { ", at most " (duration(age)) " old" }
                    }
                } }
            }
            @if reads.falls_back || reads.on_master > 0 {
                li { span class="tag" { "master" } " " span class="fine" { (counted(reads.on_master, "session")) ", for want of a replica" } }
            }
        }
    }
}

fn sparks(proxy: &ProxyStatus, samples: &Samples) -> Markup {
    let throughput = samples.throughput();
    let sessions = samples.sessions();
    let unavailable = samples.unavailable();
    let latest = |points: &[f64]| points.last().copied().unwrap_or_default();
    html! {
        div class="card" {
            h2 { "The last five minutes" }
            (spark("throughput", &format!("{}/s", bytes(latest(&throughput))), &throughput, None, "line"))
            (spark("sessions", &proxy.sessions.active.to_string(), &sessions, None, "line"))
            (spark("clients could not be served", &duration(proxy.account.unavailable_seconds), &unavailable, Some(1.0), "gap"))
        }
    }
}

fn spark(what: &str, now: &str, points: &[f64], most: Option<f64>, class: &str) -> Markup {
    let most = most.unwrap_or_else(|| points.iter().copied().fold(1.0, f64::max));
    let (width, height) = SPARK;
    let step = width / (KEPT as f64 - 1.0);
    // The latest point is at the right edge.
    let first = width - step * (points.len().max(1) as f64 - 1.0);
    let place = |(n, value): (usize, &f64)| {
        let (x, y) = (
            first + step * n as f64,
            height - 1.0 - (height - 2.0) * (value / most),
        );
        format!("{x:.1},{y:.1}")
    };
    let line: Vec<_> = points.iter().enumerate().map(place).collect();
    html! {
        figure {
            figcaption { (what) " " strong { (now) } }
            svg class="spark" viewBox=(format!("0 0 {width} {height}")) preserveAspectRatio="none" role="img"
                aria-label=(format!("{what}, the last five minutes, now {now}")) {
                line class="base" x1="0" x2=(width) y1=(height - 1.0) y2=(height - 1.0) {}
                polyline class=(class) points=(line.join(" ")) {}
            }
        }
    }
}

fn timeline(account: &Account) -> Markup {
    let shown: Vec<_> = account.outages.iter().rev().take(MAX_BARS).collect();
    let longest = shown
        .iter()
        .map(|outage| outage.seconds)
        .fold(0.001, f64::max);
    html! {
        div class="card" {
            h2 { "Times in which clients had to wait" }
            @if shown.is_empty() { p class="fine" { "None." } }
            @for outage in &shown { (bar(outage, longest)) }
            @if !shown.is_empty() {
                p class="legend fine" {
                    span class="key detect" {} "until it was decided who is next "
                    span class="key verify" {} "until that one had proved itself "
                    span class="key first" {} "until its first reply"
                }
            }
        }
    }
}

fn bar(outage: &OutageAccount, longest: f64) -> Markup {
    let scale = BAR / longest;
    let phases = outage.phases;
    let parts = [
        ("detect", phases.detect),
        ("verify", phases.verify),
        ("first", phases.first_byte),
    ];
    let known: f64 = parts.iter().filter_map(|(_, seconds)| *seconds).sum();
    let rest = (outage.seconds - known).max(0.0);
    let mut x = 0.0;
    let mut pieces = Vec::new();
    for (class, seconds) in parts.into_iter().chain([("rest", Some(rest))]) {
        let width = seconds.unwrap_or_default() * scale;
        pieces.push((class, x, width, seconds.unwrap_or_default()));
        x += width;
    }
    html! {
        div class="outage" {
            div class="what" {
                strong { (duration(outage.seconds)) }
                " " (title(outage))
                span class="fine" { ", " (duration(outage.ago_seconds)) " ago" }
            }
            svg class="bar" viewBox=(format!("0 0 {BAR} 14")) preserveAspectRatio="none" role="img" aria-label=(title(outage)) {
                @for (class, x, width, seconds) in pieces {
                    @if width > 0.0 {
                        rect class=(class) x=(format!("{x:.2}")) y="0" width=(format!("{:.2}", width.max(1.0))) height="14" {
                            title { (class) " " (duration(seconds)) }
                        }
                    }
                }
            }
            div class="fine" { (story(outage)) }
        }
    }
}

/// `switched 10.0.0.3:6379 -> 10.0.0.4:6379 (+switch-master)`
fn title(outage: &OutageAccount) -> String {
    let causes = outage.causes.join(", ").replace('_', " ");
    match (&outage.from, &outage.to, outage.outcome.as_str()) {
        (Some(from), Some(to), _) => format!("{from} \u{2192} {to} ({causes})"),
        (None, Some(to), _) => format!("start, until {to} was verified"),
        (_, None, "resumed") => format!("same master again ({causes})"),
        (_, None, outcome) => format!("{outcome} ({causes})"),
    }
}

fn story(outage: &OutageAccount) -> String {
    let mut parts = Vec::new();
    let phases = outage.phases;
    for (word, seconds) in [
        ("detect", phases.detect),
        ("verify", phases.verify),
        ("first reply", phases.first_byte),
    ] {
        if let Some(seconds) = seconds {
            parts.push(format!("{word} {}", duration(seconds)));
        }
    }
    if let Some(trigger) = &outage.trigger {
        parts.push(format!("by {trigger}"));
    }
    if let (Some(kept), Some(cut)) = (outage.kept, outage.cut) {
        parts.push(format!("{} kept, {cut} closed", counted(kept, "session")));
    }
    if outage.most_waiting > 0 {
        parts.push(format!(
            "up to {} waited",
            counted(outage.most_waiting, "client")
        ));
    }
    parts.join(", ")
}

fn sessions(proxy: &ProxyStatus) -> Markup {
    let s = &proxy.sessions;
    let numbers = [
        ("open", s.active),
        ("waiting", s.waiting),
        ("since the start", s.opened),
        ("moved to another upstream", s.moved),
        ("turned away", s.turned_away),
        ("requests refused", s.requests_refused),
        ("requests with unknown outcome", s.requests_unknown),
        ("failed dials", s.dial_failures),
    ];
    html! {
        details class="card" {
            summary { h2 { "Sessions" } }
            table { tbody {
                @for (what, count) in numbers { tr { th scope="row" { (what) } td { (count) } } }
                tr { th scope="row" { "to the master" } td { (bytes(s.bytes_up as f64)) } }
                tr { th scope="row" { "to clients" } td { (bytes(s.bytes_down as f64)) } }
                @for (reason, count) in &s.closed { tr { th scope="row" { "closed: " (reason.replace('_', " ")) } td { (count) } } }
            } }
        }
    }
}

fn journal(events: &[RecentEvent], now: f64) -> Markup {
    html! {
        section class="card" {
            h2 { "Log" }
            ol class="events" {
                @for event in events.iter().rev().take(MAX_EVENTS) {
                    li class=(event.level.to_ascii_lowercase()) {
                        span class="fine" { (duration(now - event.at)) " ago" } " "
                        strong { (event.event) } " " (event.message)
                    }
                }
            }
        }
    }
}
