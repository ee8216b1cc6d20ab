//! Logging set-up: what is written where, and that writing never blocks.
//!
//! ```text
//! any thread --line--> bounded queue --> one thread --> stderr (may stall; nobody waits for it)
//! ```
//! A full queue drops the line and counts it. Text that a peer sent cannot forge a line or move a
//! terminal's cursor: control characters are escaped in both forms.

mod level;
mod often;
mod recent;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::field::Field;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::level::Filter;
pub use self::often::Often;
pub use self::recent::{Recent, RecentEvent};

use crate::net::clock;
use crate::net::rarely::Rarely;

/// Most lines waiting to be written.
const MAX_QUEUED_LINES: usize = 8192;
/// Longest wait at the end of the process for waiting lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);
/// How often that is looked at.
const FLUSH_POLL: Duration = Duration::from_millis(1);
/// Panics that are told of at once; then one a second.
const PANICS_AT_ONCE: u32 = 10;
/// Longest filter, in bytes.
const MAX_FILTER: usize = 1024;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text with colours on a terminal, text without elsewhere.
    #[default]
    Auto,
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

impl Format {
    /// All forms with their names.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("auto", Self::Auto),
        ("text", Self::Text),
        ("json", Self::Json),
    ];

    /// The name it is chosen by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The `[log]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A tracing filter: `info`, `debug`, `switchmaster::control=debug,info`, ...
    pub level: String,
    /// See [`Format`].
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: Format::Auto,
        }
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter means nothing.
    #[error("log.level: {0}")]
    Filter(#[from] FilterError),
    /// Stderr cannot be had.
    #[error("cannot log to stderr: {0}")]
    Stderr(#[from] io::Error),
    /// Called twice in one process.
    #[error("logging is set up already")]
    Twice,
}

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(String);

/// Says whether a text is a filter.
///
/// # Errors
/// When it is not, with the part that is wrong.
pub fn check_filter(text: &str) -> Result<(), FilterError> {
    filter(text).map(drop)
}

/// Sends log lines and panics to stderr from here on. Lines are lost once the guard is dropped.
///
/// # Errors
/// When the filter is not valid, or logging is set up already.
pub fn init(config: &Config) -> Result<Guard, InitError> {
    let filter = filter(&config.level)?;
    // An own descriptor: holding the lock of `io::stderr` over a stalled write would stall whoever prints there.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let counts = Arc::new(Counts::default());
    let (queue, worker) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_QUEUED_LINES)
        .lossy(true)
        .thread_name("log")
        .finish(Output {
            stderr,
            is_json: config.format == Format::Json,
            counts: Arc::clone(&counts),
        });
    let lines = Lines {
        dropped: queue.error_counter(),
        counts,
    };
    let writer = Counted {
        queue,
        counts: Arc::clone(&lines.counts),
    };

    let recent = Recent::default();
    // A failed write is counted; telling it on the stderr that failed would block.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(writer);
    let (initialised, filter) = match config.format {
        Format::Json => {
            let builder = builder
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let filter = Filter::new(
                &config.level,
                Box::new(move |new| handle.reload(new).is_ok()),
            );
            (builder.finish().with(recent.layer()).try_init(), filter)
        }
        form => {
            let builder = builder
                .with_ansi(form == Format::Auto && wants_colour())
                .with_target(false)
                .fmt_fields(debug_fn(write_field).delimited(" "))
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let filter = Filter::new(
                &config.level,
                Box::new(move |new| handle.reload(new).is_ok()),
            );
            (builder.finish().with(recent.layer()).try_init(), filter)
        }
    };
    initialised.map_err(|_| InitError::Twice)?;
    log_panics();
    Ok(Guard {
        lines,
        recent,
        filter,
        _worker: std::mem::ManuallyDrop::new(worker),
    })
}

/// What others than its owner have of the log.
#[derive(Clone, Debug)]
pub struct Handle {
    /// How many lines were written and lost.
    pub lines: Lines,
    /// The last events.
    pub recent: Recent,
    /// What is logged.
    pub filter: Filter,
}

/// Keeps the log going; flushes when dropped, for a bounded time however stalled stderr is.
#[derive(Debug)]
pub struct Guard {
    lines: Lines,
    recent: Recent,
    filter: Filter,
    // Its own drop waits longer than a stalled stderr deserves, and prints about it.
    _worker: std::mem::ManuallyDrop<WorkerGuard>,
}

impl Guard {
    /// How many lines were dropped because stderr did not take them.
    pub fn dropped_lines(&self) -> u64 {
        self.lines.dropped()
    }

    /// For whoever shows it, or changes what is logged.
    pub fn handle(&self) -> Handle {
        Handle {
            lines: self.lines.clone(),
            recent: self.recent.clone(),
            filter: self.filter.clone(),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let deadline = clock::now() + FLUSH_LIMIT;
        while self.lines.waiting() > 0 && clock::now() < deadline {
            std::thread::sleep(FLUSH_POLL);
        }
    }
}

/// Counts of log lines.
#[derive(Clone, Debug)]
pub struct Lines {
    dropped: ErrorCounter,
    counts: Arc<Counts>,
}

impl Lines {
    /// Lines that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.dropped_lines() as u64 + self.counts.failed.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> u64 {
        let offered = self.counts.offered.load(Ordering::Acquire);
        let done = self.counts.done.load(Ordering::Acquire);
        offered.saturating_sub(done + self.dropped.dropped_lines() as u64)
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// Handed to the queue, whether it took them or not.
    offered: AtomicU64,
    /// Taken from the queue, whether stderr took them or not.
    done: AtomicU64,
    /// Not taken by stderr.
    failed: AtomicU64,
}

/// The queue's entrance.
#[derive(Clone)]
struct Counted {
    queue: NonBlocking,
    counts: Arc<Counts>,
}

impl Write for Counted {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.counts.offered.fetch_add(1, Ordering::AcqRel);
        self.queue.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Counted {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The queue's exit, on the log thread.
struct Output {
    stderr: File,
    is_json: bool,
    counts: Arc<Counts>,
}

impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = if self.is_json {
            self.stderr.write_all(&without_c1(line))
        } else {
            self.stderr.write_all(line)
        };
        if written.is_err() {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.counts.done.fetch_add(1, Ordering::AcqRel);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// JSON escapes what its grammar forbids, U+0000 to U+001F. Terminals take U+0080 to U+009F for control characters, too, and
/// some readers of lines U+0085 for an end of line. They can only be inside of texts, where they may be escaped.
fn without_c1(json: &[u8]) -> Cow<'_, [u8]> {
    let is_c1 = |pair: &[u8]| pair[0] == 0xc2 && (0x80..0xa0).contains(&pair[1]);
    if !json.contains(&0x7f) && !json.windows(2).any(is_c1) {
        return Cow::Borrowed(json);
    }
    let mut escaped = Vec::with_capacity(json.len() + 16);
    let mut rest = json;
    while let Some((&byte, behind)) = rest.split_first() {
        let control = match behind.first() {
            _ if byte == 0x7f => Some(byte),
            Some(&second) if is_c1(&[byte, second]) => Some(second),
            _ => None,
        };
        let used = match control {
            Some(control) => {
                escaped.extend_from_slice(format!("\\u{control:04x}").as_bytes());
                1 + usize::from(byte != 0x7f)
            }
            None => {
                escaped.push(byte);
                1
            }
        };
        rest = &rest[used..];
    }
    Cow::Owned(escaped)
}

fn filter(text: &str) -> Result<EnvFilter, FilterError> {
    if text.len() > MAX_FILTER {
        return Err(FilterError(format!(
            "the filter is longer than {MAX_FILTER} bytes"
        )));
    }
    let directives: Vec<_> = text
        .split(',')
        .map(str::trim)
        .filter(|d| !d.is_empty())
        .collect();
    if directives.is_empty() {
        return Err(FilterError("the filter is empty".to_owned()));
    }
    for directive in &directives {
        // A lone word that is no level would pass as the name of a module, and silence all others.
        let is_level = directive
            .parse::<tracing::level_filters::LevelFilter>()
            .is_ok();
        let is_path = directive.contains(['=', ':', '[']) || *directive == "switchmaster";
        if !is_level && !is_path {
            let shown: String = directive
                .chars()
                .take(40)
                .flat_map(char::escape_default)
                .collect();
            return Err(FilterError(format!("\"{shown}\" is not a log level")));
        }
    }
    EnvFilter::builder()
        .with_regex(false)
        .parse(directives.join(","))
        .map_err(|e| FilterError(format!("not a log filter: {e}")))
}

fn wants_colour() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

/// A panic is an event like any other: the default hook would wait for a stalled stderr.
fn log_panics() {
    // A defect that one peer can provoke it can provoke again and again.
    let rarely = Rarely::after(PANICS_AT_ONCE);
    std::panic::set_hook(Box::new(move |panic| {
        let Some(count) = rarely.allow(clock::now()) else {
            return;
        };
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured)
            .then(|| tracing::field::display(backtrace));
        tracing::error!(
            event = "panic",
            thread = std::thread::current().name().unwrap_or("unnamed"),
            backtrace,
            count,
            "{panic}"
        );
    }));
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        if writer.has_ansi_escapes() {
            write!(writer, "\x1b[2m{field}=\x1b[0m")?;
        } else {
            write!(writer, "{field}=")?;
        }
    }
    write!(Escaping(writer), "{value:?}")
}

/// tracing-subscriber 0.3.23 escapes terminal sequences and leaves line breaks; here all control
/// characters are escaped, so that one event is one line.
struct Escaping<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_are_read() {
        for text in [
            "info",
            "DEBUG",
            "off",
            "info,switchmaster::sentinel=debug",
            "switchmaster=trace",
            "warn, switchmaster::session[session]=debug",
        ] {
            assert_eq!(check_filter(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn filters_that_are_refused() {
        for text in [
            "",
            ",",
            "debgu",
            "info,everything",
            "switchmaster=loud",
            &"info,".repeat(1000),
        ] {
            assert!(check_filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn json_of_peers_says_the_same_without_control_characters() {
        for text in [
            "plain ä €",
            "a\u{9b}31m\u{85}\u{7f}ä\u{80}\u{9f}\u{a0}",
            "\u{7f}",
            "Â\u{85}",
        ] {
            let json = serde_json::to_string(text).expect("JSON");
            let escaped = without_c1(json.as_bytes());
            let escaped = std::str::from_utf8(&escaped).expect("text");
            assert!(!escaped.chars().any(char::is_control), "{escaped:?}");
            assert_eq!(serde_json::from_str::<String>(escaped).expect("JSON"), text);
        }
    }

    #[test]
    fn text_of_peers_stays_on_its_line() {
        let mut line = String::new();
        let value = format_args!("a\nERROR forged\r\x1b[2J\u{9b}\u{7f}ä");
        write!(Escaping(&mut Writer::new(&mut line)), "{value}").expect("a String takes all");
        assert_eq!(line, "a\\nERROR forged\\r\\u{1b}[2J\\u{9b}\\u{7f}ä");
    }
}
