//! What the demo shows and the keys it takes: lines of text, below them one live line on a terminal. The
//! terminal is given back as it was on every way out.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

/// Width of the live line where the terminal does not tell its own.
const WIDTH: usize = 80;
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// SIGINT, SIGTERM and SIGHUP so far. The second one ends the process at once.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);
/// How the terminal was before keys were read from it.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard output and, where it is asked for keys, standard input.
#[derive(Debug)]
pub(super) struct Screen {
    live: bool,
    keys: bool,
    line: String,
    turn: usize,
}

impl Screen {
    /// Takes the terminal. With `keys`, single keys are read from it; without, and where there is no terminal,
    /// standard input is left alone.
    pub(super) fn new(keys: bool) -> Self {
        let live = io::stdout().is_terminal();
        let mut screen = Self {
            live,
            keys: false,
            line: String::new(),
            turn: 0,
        };
        if keys && is_interactive() {
            screen.keys = take_keys().is_ok();
        }
        screen
    }

    /// Prints a line above the live line.
    pub(super) fn say(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        // A reader that has gone away ends nothing here: the run is still judged by its exit code.
        let _ = if self.live {
            writeln!(out, "\r\x1b[2K{text}").and_then(|()| write!(out, "{}", self.line))
        } else {
            writeln!(out, "{text}")
        };
        let _ = out.flush();
    }

    /// Replaces the live line. Nothing is shown where there is no terminal.
    pub(super) fn show(&mut self, status: &str) {
        if !self.live {
            return;
        }
        self.turn = (self.turn + 1) % SPINNER.len();
        let width = match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 1 => usize::from(size.ws_col),
            _ => WIDTH,
        };
        let text: String = format!("{} {status}", SPINNER[self.turn])
            .chars()
            .take(width - 1)
            .collect();
        let mut out = io::stdout().lock();
        let _ = write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush());
        self.line = text;
    }

    /// Takes the live line away.
    pub(super) fn clear(&mut self) {
        if self.live {
            self.line.clear();
            let _ = write!(io::stdout(), "\r\x1b[2K").and_then(|()| io::stdout().flush());
        }
    }

    /// Waits up to `within` for a key. Without keys it merely waits.
    pub(super) fn key(&mut self, within: Duration) -> Option<u8> {
        if !self.keys {
            thread::sleep(within);
            return None;
        }
        let stdin = io::stdin();
        let within = Timespec::try_from(within).ok();
        let mut watched = [PollFd::new(&stdin, PollFlags::IN)];
        if !matches!(poll(&mut watched, within.as_ref()), Ok(1)) {
            return None;
        }
        let mut key = [0];
        match rustix::io::read(&stdin, &mut key) {
            Ok(1) => Some(key[0]),
            // The terminal is gone: as if quitting had been asked for.
            _ => Some(b'q'),
        }
    }

    /// Whether keys are read.
    pub(super) fn has_keys(&self) -> bool {
        self.keys
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
        give_back();
    }
}

/// Whether a person sits there: standard input and output are terminals.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Whether the process was asked to end.
pub(super) fn interrupted() -> bool {
    SIGNALS.load(Ordering::Relaxed) > 0
}

/// Counts SIGINT, SIGTERM and SIGHUP from now on instead of ending by them.
pub(super) fn catch_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let _ = runtime.block_on(count_signals());
        })?;
    Ok(())
}

async fn count_signals() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
        if SIGNALS.fetch_add(1, Ordering::Relaxed) > 0 {
            // The children die with us.
            give_back();
            std::process::exit(130);
        }
    }
}

/// No line editing, no echo; Ctrl-C stays a signal and output stays as it is.
fn take_keys() -> io::Result<()> {
    let before = tcgetattr(io::stdin())?;
    let mut single_keys = before.clone();
    single_keys
        .local_modes
        .remove(LocalModes::ICANON | LocalModes::ECHO);
    *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    tcsetattr(io::stdin(), OptionalActions::Flush, &single_keys)?;
    Ok(())
}

fn give_back() {
    if let Some(before) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}
