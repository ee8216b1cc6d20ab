//! Pieces of lines: text that fits, sparklines, bars. Pure.

use std::time::{Duration, UNIX_EPOCH};

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::theme::Theme;
use crate::control::ledger::OutageAccount;

/// From nothing to the most there was.
const LEVELS: [char; 8] = [
    '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
];
/// The last second of the year 9999, beyond which no date is written.
const LAST_SECOND: u64 = 253_402_300_799;

/// Columns a text takes.
pub(super) fn width_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// Pads to so many columns. What is longer stays.
pub(super) fn pad(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(width_of(text));
    format!("{text}{}", " ".repeat(missing))
}

/// Breaks a text into lines between words, and within those that are longer than a line.
pub(super) fn fill(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let line = lines.last_mut().map_or(0, |line| width_of(line));
        let room = width.saturating_sub(line + usize::from(line > 0));
        if line > 0 && width_of(word) > room {
            lines.push(String::new());
        }
        for (n, piece) in cut(word, width).into_iter().enumerate() {
            if n > 0 {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(&piece);
            }
        }
    }
    lines
}

fn cut(word: &str, width: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut used = 0;
    for c in word.chars() {
        let columns = width_of(c.encode_utf8(&mut [0; 4]));
        if used + columns > width && used > 0 {
            pieces.push(String::new());
            used = 0;
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push(c);
        }
        used += columns;
    }
    pieces
}

/// A label, and a text beside it that goes on below itself.
pub(super) fn row(
    label: &str,
    label_width: usize,
    text: &str,
    style: Style,
    theme: Theme,
    width: usize,
) -> Vec<Line<'static>> {
    let lines = fill(text, width.saturating_sub(label_width + 2));
    let label_of = |n: usize| if n == 0 { label } else { "" };
    let parts = lines.into_iter().enumerate().map(|(n, text)| {
        Line::from(vec![
            Span::styled(format!(" {}", pad(label_of(n), label_width)), theme.faint()),
            Span::styled(text, style),
        ])
    });
    parts.collect()
}

/// As many of the pieces as there is room for, of the first one what there is room for; `right` at the right edge.
pub(super) fn pieces(left: &[String], between: &str, right: &str, width: usize) -> Line<'static> {
    let room = width.saturating_sub(width_of(right) + 1);
    let mut text = String::new();
    for piece in left {
        if text.is_empty() {
            text = cut(piece, room).swap_remove(0);
            continue;
        }
        let more = format!("{between}{piece}");
        if width_of(&text) + width_of(&more) > room {
            break;
        }
        text.push_str(&more);
    }
    Line::raw(format!(
        "{}{right}",
        pad(&text, width.saturating_sub(width_of(right)))
    ))
}

/// One sign a point; nothing where nothing is known.
pub(super) fn spark(points: &[Option<f64>]) -> String {
    let most = points.iter().flatten().copied().fold(1.0, f64::max);
    let steps = (LEVELS.len() - 1) as f64;
    let level = |value: f64| {
        let step = (value.max(0.0) / most * steps).ceil();
        // In the order of the levels; what is no number at all is the lowest.
        let above = (1..LEVELS.len()).take_while(|n| *n as f64 <= step);
        LEVELS[above.count()]
    };
    points
        .iter()
        .map(|point| point.map_or(' ', level))
        .collect()
}

/// An outage, drawn: its phases one after the other, `longest` seconds being as wide as there is room.
pub(super) fn bar(
    outage: &OutageAccount,
    longest: f64,
    width: usize,
    theme: Theme,
) -> Vec<Span<'static>> {
    let phases = outage.phases;
    let known: f64 = [phases.detect, phases.verify, phases.first_byte]
        .iter()
        .flatten()
        .sum();
    let parts = [
        (phases.detect, "\u{2588}", theme.detect()),
        (phases.verify, "\u{2593}", theme.verify()),
        (phases.first_byte, "\u{2591}", theme.first_byte()),
        (Some(outage.seconds - known), "\u{b7}", theme.faint()),
    ];
    let mut spans = Vec::new();
    let (mut end, mut used) = (0.0, 0);
    for (seconds, sign, style) in parts {
        let seconds = seconds.unwrap_or(0.0).max(0.0);
        end += seconds;
        let upto = columns(end, longest, width);
        // What was is seen, however short.
        let least = usize::from(seconds >= 1e-3 || (seconds > 0.0 && sign != "\u{b7}"));
        let count = upto
            .saturating_sub(used)
            .max(least)
            .min(width.saturating_sub(used));
        used += count;
        if count > 0 {
            spans.push(Span::styled(sign.repeat(count), style));
        }
    }
    spans.push(Span::raw(" ".repeat(width.saturating_sub(used))));
    spans
}

fn columns(seconds: f64, longest: f64, width: usize) -> usize {
    let share = (seconds / longest.max(1e-9) * width as f64).round();
    (1..=width).take_while(|n| *n as f64 <= share).count()
}

/// `08:12:01Z`
pub(super) fn clock(unix: f64) -> String {
    date(unix)
        .split(' ')
        .next_back()
        .unwrap_or_default()
        .to_owned()
}

/// `2026-11-23 08:12:01Z`
pub(super) fn date(unix: f64) -> String {
    let since = Duration::try_from_secs_f64(unix.max(0.0)).unwrap_or_default();
    let since = Duration::from_secs(since.as_secs().min(LAST_SECOND));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since)
        .to_string()
        .replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::tests::outage;

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(fill("one two three", 7), ["one two", "three"]);
        assert_eq!(fill("one two", 3), ["one", "two"]);
        assert_eq!(fill("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(fill("", 3), [""]);
        assert_eq!(fill("a b", 0), ["a", "b"]);
        // Two columns each.
        assert_eq!(fill("\u{4f60}\u{597d}", 3), ["\u{4f60}", "\u{597d}"]);
    }

    #[test]
    fn sparklines_reach_from_nothing_to_the_most() {
        assert_eq!(
            spark(&[Some(0.0), None, Some(50.0), Some(100.0)]),
            "\u{2581} \u{2585}\u{2588}"
        );
        assert_eq!(spark(&[Some(f64::NAN), Some(-1.0)]), "\u{2581}\u{2581}");
        assert_eq!(spark(&[]), "");
    }

    #[test]
    fn bars_are_as_long_as_it_hurt() {
        let drawn = |seconds: [f64; 3], longest| {
            let spans = bar(&outage(seconds), longest, 10, Theme { colour: false });
            spans
                .iter()
                .map(|span| span.content.as_ref())
                .collect::<String>()
        };
        assert_eq!(
            drawn([0.8, 0.1, 0.1], 1.0),
            "\u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2593}\u{2591}"
        );
        assert_eq!(
            drawn([0.4, 0.1, 0.0], 1.0),
            "\u{2588}\u{2588}\u{2588}\u{2588}\u{2593}     "
        );
        // A phase of a millisecond is seen.
        assert_eq!(
            drawn([0.5, 0.001, 0.0], 1.0),
            "\u{2588}\u{2588}\u{2588}\u{2588}\u{2588}\u{2593}    "
        );
        // However wrong the numbers are, it is as wide as it may be.
        assert_eq!(width_of(&drawn([f64::INFINITY, 1.0, f64::NAN], 1.0)), 10);
    }

    #[test]
    fn dates_of_any_number() {
        assert_eq!(date(1_700_000_000.9), "2023-11-14 22:13:20Z");
        assert_eq!(clock(0.0), "00:00:00Z");
        for odd in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(date(odd).ends_with('Z'), "{odd}");
        }
    }

    #[test]
    fn the_first_pieces_stay() {
        let left = ["ab".to_owned(), "cd".to_owned(), "ef".to_owned()];
        assert_eq!(pieces(&left, "-", "R", 10).to_string(), "ab-cd-ef R");
        assert_eq!(pieces(&left, "-", "R", 8).to_string(), "ab-cd  R");
        assert_eq!(pieces(&left, "-", "R", 3).to_string(), "a R");
        assert_eq!(pieces(&[], "-", "", 1).to_string(), " ");
    }
}
