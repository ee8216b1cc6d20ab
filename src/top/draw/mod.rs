//! The screen, made of the facts. Pure: everything that is drawn is handed over, the time included.
//!
//! ```text
//! header     who is asked, how often, when it answered
//! alerts     no answer; frozen
//! headline   one sentence that says it all
//! body       scrolls; in two columns where there is room
//! footer     keys
//! ```

mod cells;
mod log;
mod proxy;
mod theme;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Text};
use ratatui::widgets::Paragraph;

use self::cells::{fill, pieces, row, width_of};
pub(super) use self::theme::Theme;
use super::facts::Facts;
use super::view::{Page, View};
use crate::admin::status::{counted, duration};
use crate::net::clock::Moment;

/// From here on the body has two columns.
const TWO_COLUMNS: u16 = 140;
/// Below, what would be one line takes several.
const NARROW: usize = 64;
/// Most failovers in the overview, the lines of one, and what is left for the log: its title, the failovers', an event.
const MOST: usize = 8;
const FAILOVER_ROWS: usize = 2;
const LOG_ROWS: usize = 3;
/// What is between two columns.
const GUTTER: u16 = 3;

const HELP: &[(&str, &str)] = &[
    ("q, Esc, Ctrl-C", "quit; the proxy does not notice"),
    (
        "Tab, right",
        "the next proxy, where there are several; Shift-Tab, left: the one before",
    ),
    ("j, k, arrows", "scroll; PgUp, PgDn, g, G: further"),
    (
        "space, p",
        "freeze the screen, and go on. The proxy is not paused: nothing here changes anything",
    ),
    (
        "s",
        "all failovers; the log with all its fields; the overview again",
    ),
    ("+, -", "ask less often; more often"),
    ("Ctrl-L", "draw anew"),
    ("Ctrl-Z", "suspend; `fg` goes on"),
    ("?, h", "this help, and away again"),
];
const HELP_TEXT: &str = "Times are UTC. Rates are between two answers; a gap in a sparkline is a question without an answer. \
    A failover's bar is as long as it hurt: \u{2588} until it was decided who is next, \u{2593} until that one had proved itself, \
    \u{2591} until its first reply. The same facts once, for scripts: `switchmaster status --json`.";

/// Draws it. Gives the number of lines of the body, and how many of them there was room for.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    facts: &Facts,
    view: &View,
    theme: Theme,
    now: Moment,
) -> (usize, usize) {
    let (facts, at) = match view.frozen.as_deref() {
        Some((frozen, at)) => (frozen, *at),
        None => (facts, now),
    };
    let area = frame.area();
    let width = usize::from(area.width);
    let mut top = vec![header(facts, view, theme, width)];
    top.extend(alerts(facts, view, theme, now, at, width));
    let above = height(&top, area.height.saturating_sub(2));
    let proxy = facts.proxies().get(view.selected(facts));
    let headline = match proxy {
        Some(proxy) if !view.help => proxy::headline(proxy, theme, width),
        _ => Vec::new(),
    };
    let said = height(&headline, area.height.saturating_sub(above + 1) / 2);
    let [above, said, body, below] = Layout::vertical([
        Constraint::Length(above),
        Constraint::Length(said),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);

    frame.render_widget(Paragraph::new(Text::from(top)), above);
    frame.render_widget(Paragraph::new(Text::from(headline)), said);
    let columns = columns(facts, view, theme, body);
    let lines = columns
        .iter()
        .map(|(_, lines)| lines.len())
        .max()
        .unwrap_or(0);
    let rows = usize::from(body.height);
    let scroll = view.scroll.min(lines.saturating_sub(rows));
    for (area, lines) in columns {
        let seen: Vec<_> = lines.into_iter().skip(scroll).take(rows).collect();
        frame.render_widget(Paragraph::new(Text::from(seen)), area);
    }
    if facts.silence.is_some() && !view.help {
        // What stands there was so once.
        frame.buffer_mut().set_style(said, theme.stale());
        frame.buffer_mut().set_style(body, theme.stale());
    }
    let hidden = lines.saturating_sub(scroll + rows);
    frame.render_widget(Paragraph::new(footer(view, theme, hidden, width)), below);
    (lines, rows)
}

fn height(lines: &[Line<'_>], most: u16) -> u16 {
    u16::try_from(lines.len()).unwrap_or(u16::MAX).min(most)
}

fn header(facts: &Facts, view: &View, theme: Theme, width: usize) -> Line<'static> {
    let mut left = vec![format!(" switchmaster {}", facts.endpoint)];
    let mut right = String::new();
    if let Some(seen) = &facts.seen {
        let status = &seen.status;
        left.push(format!("every {}", humantime::format_duration(view.every)));
        left.push(format!("up {}", duration(status.uptime_seconds)));
        left.push(format!("version {}", status.version));
        if status.log_lines_dropped > 0 {
            left.push(format!(
                "{} lost",
                counted(status.log_lines_dropped, "log line")
            ));
        }
        right = format!("{} ", cells::clock(status.now_at));
    } else {
        left.push(format!("every {}", humantime::format_duration(view.every)));
    }
    pieces(&left, " \u{b7} ", &right, width).style(theme.bar())
}

fn alerts(
    facts: &Facts,
    view: &View,
    theme: Theme,
    now: Moment,
    at: Moment,
    width: usize,
) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(silence) = &facts.silence {
        let since = duration(at.since(silence.since).as_secs_f64());
        let mut text = format!("no answer for {since}: {}", silence.why);
        if facts.seen.is_none() {
            text.push_str(". Does the proxy run, and with this admin.listen? Name it with --admin");
        }
        lines.extend(
            fill(&text, width.saturating_sub(2))
                .into_iter()
                .map(|text| (text, theme.alarm())),
        );
    }
    if let Some((_, since)) = view.frozen.as_deref() {
        let since = duration(now.since(*since).as_secs_f64());
        let text = format!("FROZEN for {since}: this screen, not the proxy; space goes on");
        lines.extend(
            fill(&text, width.saturating_sub(2))
                .into_iter()
                .map(|text| (text, theme.notice())),
        );
    }
    let padded = |text: String| format!(" {text:<0$} ", width.saturating_sub(2));
    lines
        .into_iter()
        .map(|(text, style)| Line::styled(padded(text), style))
        .collect()
}

fn columns(
    facts: &Facts,
    view: &View,
    theme: Theme,
    body: Rect,
) -> Vec<(Rect, Vec<Line<'static>>)> {
    let width = usize::from(body.width);
    if view.help {
        return vec![(body, help(theme, width))];
    }
    let Some(seen) = &facts.seen else {
        return vec![(
            body,
            vec![Line::styled(
                " Waiting for the first answer.",
                theme.faint(),
            )],
        )];
    };
    let selected = view.selected(facts);
    let now_at = seen.status.now_at;
    match (view.page, facts.proxies().get(selected)) {
        (Page::Log, _) => vec![(body, log::whole(&seen.events, now_at, theme, width))],
        (_, None) => {
            vec![(body, vec![Line::styled(" It has no proxy.", theme.faint())])]
        }
        (Page::Failovers, Some(proxy)) => {
            let all = proxy.account.outages.len();
            vec![(body, proxy::failovers(&proxy.account, all, theme, width))]
        }
        (Page::Overview, Some(proxy)) => {
            let history = facts.history(&proxy.account.proxy);
            let who = |width| {
                let mut lines = proxy::list(facts, selected, theme, width);
                lines.extend(proxy::master(proxy, &history, theme, width));
                lines.extend(proxy::sentinels(&proxy.account, theme, width));
                lines
            };
            // So many that something of the log is seen below them.
            let past = |width: usize, rows: usize| {
                let most = (rows.saturating_sub(LOG_ROWS) / FAILOVER_ROWS).clamp(1, MOST);
                let mut lines = proxy::failovers(&proxy.account, most, theme, width);
                lines.extend(log::latest(&seen.events, now_at, theme, width));
                lines
            };
            if body.width < TWO_COLUMNS {
                let mut lines = who(width);
                let left = usize::from(body.height).saturating_sub(lines.len());
                lines.extend(past(width, left));
                return vec![(body, lines)];
            }
            let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)])
                .spacing(GUTTER)
                .areas(body);
            vec![
                (left, who(usize::from(left.width))),
                (
                    right,
                    past(usize::from(right.width), usize::from(right.height) / 2),
                ),
            ]
        }
    }
}

fn help(theme: Theme, width: usize) -> Vec<Line<'static>> {
    let label = HELP
        .iter()
        .map(|(keys, _)| width_of(keys))
        .max()
        .unwrap_or(0)
        + 2;
    let mut lines = vec![theme.title("KEYS", width)];
    for (keys, what) in HELP {
        if width < NARROW {
            lines.push(Line::styled(format!(" {keys}"), theme.strong()));
            lines.extend(row("", 3, what, theme.plain(), theme, width));
        } else {
            lines.extend(row(keys, label, what, theme.plain(), theme, width));
        }
    }
    lines.push(theme.title("WHAT IS SEEN", width));
    lines.extend(row("", 0, HELP_TEXT, theme.plain(), theme, width));
    lines
}

fn footer(view: &View, theme: Theme, hidden: usize, width: usize) -> Line<'static> {
    let other = match view.page {
        Page::Overview => "s failovers",
        Page::Failovers => "s log",
        Page::Log => "s overview",
    };
    let space = if view.frozen.is_some() {
        "space go on"
    } else {
        "space freeze"
    };
    let keys = [
        " q quit",
        "? help",
        space,
        other,
        "j/k scroll",
        "Tab proxy",
        "+/- pace",
    ];
    let right = match hidden {
        0 => String::new(),
        count => format!("{count} more below "),
    };
    pieces(&keys.map(str::to_owned), "  ", &right, width).style(theme.bar())
}
