//! The last log events, the newest first. Pure.

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use serde_json::Value;

use super::NARROW;
use super::cells::{clock, date, fill, pad};
use super::theme::Theme;
use crate::telemetry::RecentEvent;

/// Events below the overview; the log alone has all that the endpoint keeps.
const MAX_LATEST: usize = 40;
/// Older ones are told with their day, in seconds.
const DAY: f64 = 86_400.0;
/// Where messages begin and go on.
const INDENT: usize = 4;

/// One line each.
pub(super) fn latest(
    events: &[RecentEvent],
    now: f64,
    theme: Theme,
    width: usize,
) -> Vec<Line<'static>> {
    let mut lines = vec![theme.title("LOG", width)];
    for event in events.iter().rev().take(MAX_LATEST) {
        let mut spans = head(event, now, theme);
        if width >= NARROW {
            spans.push(Span::styled(format!("{} ", event.event), theme.faint()));
        }
        spans.push(Span::styled(
            event.message.clone(),
            message_style(event, theme),
        ));
        lines.push(Line::from(spans));
    }
    lines
}

/// All of them, with all their fields.
pub(super) fn whole(
    events: &[RecentEvent],
    now: f64,
    theme: Theme,
    width: usize,
) -> Vec<Line<'static>> {
    let mut lines = vec![theme.title(&format!("LOG, the last {}", events.len()), width)];
    for event in events.iter().rev() {
        let mut spans = head(event, now, theme);
        spans.push(Span::styled(event.event.clone(), theme.strong()));
        lines.push(Line::from(spans));
        let room = width.saturating_sub(INDENT + 1);
        let indented =
            |text: String, style| Line::styled(format!("{}{text}", " ".repeat(INDENT)), style);
        let message = fill(&event.message, room).into_iter();
        lines.extend(message.map(|text| indented(text, message_style(event, theme))));
        let fields: Vec<_> = event
            .fields
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) => format!("{name}={text}"),
                other => format!("{name}={other}"),
            })
            .collect();
        if !fields.is_empty() {
            let fields = fill(&fields.join(" "), room).into_iter();
            lines.extend(fields.map(|text| indented(text, theme.faint())));
        }
    }
    lines
}

fn head(event: &RecentEvent, now: f64, theme: Theme) -> Vec<Span<'static>> {
    let when = if now - event.at < DAY {
        clock(event.at)
    } else {
        date(event.at)
    };
    vec![
        Span::styled(format!(" {when} "), theme.faint()),
        Span::styled(
            format!("{} ", pad(&event.level, 5)),
            level_style(event, theme),
        ),
    ]
}

fn level_style(event: &RecentEvent, theme: Theme) -> Style {
    match event.level.as_str() {
        "ERROR" => theme.bad(),
        "WARN" => theme.uneasy(),
        _ => theme.good(),
    }
}

fn message_style(event: &RecentEvent, theme: Theme) -> Style {
    match event.level.as_str() {
        "ERROR" => theme.bad(),
        "WARN" => theme.uneasy(),
        _ => theme.plain(),
    }
}
