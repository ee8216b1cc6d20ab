//! What is wrong with a configuration and where, shown the way rustc shows it.

use std::fmt::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most problems shown at once; the first few are what is read.
const MAX_SHOWN: usize = 20;
/// Longest piece of a source line shown, in characters.
const MAX_LINE_SHOWN: usize = 120;
/// How much of a long line is shown after the culprit, in characters.
const SHOWN_AFTER: usize = 20;
/// Longest value repeated in a message, in characters.
const MAX_VALUE_SHOWN: usize = 80;

/// A configuration file as it was read.
#[derive(Debug)]
pub(super) struct Text {
    /// Where it was read from.
    pub(super) path: PathBuf,
    /// All of it.
    pub(super) text: String,
}

impl Text {
    /// Line and column (in characters), both from 1, of a byte offset.
    pub(super) fn line_column(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A flag of the command line, as `--master`.
    Flag(&'static str),
    /// An environment variable.
    Env(String),
    /// A place in the configuration file.
    File {
        /// The file.
        text: Arc<Text>,
        /// Bytes of the value.
        span: Range<usize>,
    },
    /// A file of systemd's credentials directory.
    Credential(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::File { text, span } => {
                let (line, _) = text.line_column(span.start);
                write!(f, "file {}:{line}", printable_path(&text.path))
            }
            Self::Credential(path) => write!(f, "credential {}", printable_path(path)),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Where; `None` when it is something that is missing.
    source: Option<Source>,
    /// What is wrong, in one line.
    message: String,
    /// What to write instead; may have several lines.
    help: String,
}

impl Problem {
    /// A problem with what was written at `source`.
    pub(super) fn at(source: &Source, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            source: Some(source.clone()),
            message: message.into(),
            help: help.into(),
        }
    }

    /// A problem with what was not written.
    pub(super) fn missing(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            source: None,
            message: message.into(),
            help: help.into(),
        }
    }
}

impl Problem {
    /// The file and the line, where it is something in a file.
    pub fn line(&self) -> Option<(&Path, usize)> {
        match &self.source {
            Some(Source::File { text, span }) => Some((&text.path, text.line_column(span.start).0)),
            _ => None,
        }
    }

    /// Where it was written: `/etc/switchmaster/config.toml:12`, `flag --listen`.
    pub fn place(&self) -> Option<String> {
        match (self.line(), &self.source) {
            (Some((path, line)), _) => Some(format!("{}:{line}", printable_path(path))),
            (None, Some(Source::Default) | None) => None,
            (None, Some(source)) => Some(source.to_string()),
        }
    }

    /// What is wrong, in one line.
    pub fn what(&self) -> &str {
        &self.message
    }

    /// What to write instead; may have several lines.
    pub fn help(&self) -> &str {
        &self.help
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        let indent = match &self.source {
            Some(Source::File { text, span }) => show_snippet(f, text, span)?,
            Some(source @ (Source::Flag(_) | Source::Env(_) | Source::Credential(_))) => {
                writeln!(f, " --> {source}")?;
                1
            }
            Some(Source::Default) | None => 1,
        };
        for (n, line) in self.help.lines().enumerate() {
            let mark = if n == 0 { "= help:" } else { "       " };
            writeln!(f, "{:indent$} {mark} {line}", "")?;
        }
        Ok(())
    }
}

/// Writes place, line and caret; returns the width of the margin.
fn show_snippet(
    f: &mut fmt::Formatter<'_>,
    text: &Text,
    span: &Range<usize>,
) -> Result<usize, fmt::Error> {
    let (line_number, column) = text.line_column(span.start);
    let line = text.text.lines().nth(line_number - 1).unwrap_or_default();
    let culprit = text.text.get(span.clone()).unwrap_or_default();
    // A value of several lines is underlined on its first.
    let width = culprit
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        .max(1);

    // Of a very long line, the part around the culprit.
    let skipped = (column + width + SHOWN_AFTER)
        .saturating_sub(MAX_LINE_SHOWN)
        .min(column - 1);
    let skipped = if line.chars().nth(MAX_LINE_SHOWN).is_some() {
        skipped
    } else {
        0
    };
    let shown: String = line
        .chars()
        .skip(skipped)
        .take(MAX_LINE_SHOWN)
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    // Tabs are repeated under the line, so that the caret stands right however wide they are.
    let padding: String = shown
        .chars()
        .take(column - 1 - skipped)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let carets = "^".repeat(width.min(MAX_LINE_SHOWN));

    let number = line_number.to_string();
    let margin = number.len();
    writeln!(
        f,
        "{:margin$}--> {}:{line_number}:{column}",
        "",
        printable_path(&text.path)
    )?;
    writeln!(f, "{:margin$} |", "")?;
    writeln!(f, "{number} | {shown}")?;
    writeln!(f, "{:margin$} | {padding}{carets}", "")?;
    Ok(margin)
}

/// Everything that is wrong with a configuration. `Display` is meant for people, ready to print.
#[derive(Clone, Debug)]
pub struct Error(Vec<Problem>);

impl Error {
    /// All of these; at least one.
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self(problems)
    }

    /// The first of them, as many as are shown.
    pub fn problems(&self) -> &[Problem] {
        &self.0[..self.0.len().min(MAX_SHOWN)]
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().take(MAX_SHOWN).enumerate() {
            if n > 0 {
                f.write_char('\n')?;
            }
            problem.fmt(f)?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "\n... and {more} more"),
        }
    }
}

impl std::error::Error for Error {}

/// What somebody wrote, fit for a message: short, without control characters.
pub(super) fn printable(text: &str) -> String {
    let mut shown = escaped(text.chars().take(MAX_VALUE_SHOWN));
    if text.chars().nth(MAX_VALUE_SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

/// All of it: of what is short by itself but for paths, whose ends tell most.
pub(super) fn printable_whole(text: &str) -> String {
    escaped(text.chars())
}

fn escaped(text: impl Iterator<Item = char>) -> String {
    text.flat_map(|c| {
        let escape = c.is_control();
        let escaped = c.escape_default().filter(move |_| escape);
        escaped.chain(std::iter::once(c).filter(move |_| !escape))
    })
    .collect()
}

/// A path, fit for a message.
pub(super) fn printable_path(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// The candidate that was probably meant, if one is near.
pub(super) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Similar enough that the guess helps more often than it misleads; clap uses 0.7.
    const NEAR: f64 = 0.7;
    // Distance is quadratic in the length, and no key is that long.
    const LONGEST: usize = 64;
    if text.len() > LONGEST {
        return None;
    }
    let text = text.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::jaro_winkler(&text, &c.to_ascii_lowercase()), c))
        .filter(|(similarity, _)| *similarity > NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}
