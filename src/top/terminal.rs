//! The terminal: taken for a screen and single keys, and given back as it was on every way out, a panic and a signal included.

use std::io::{self, IsTerminal, Stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::style::ResetColor;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{Command, execute};
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, kill_current_process_group};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::keys::{Key, Parser};

/// Longest until the rest of a key's sequence has come; a slow line may part it.
const SEQUENCE: Duration = Duration::from_millis(50);
/// Longest wait for a terminal that takes nothing, when it is given back.
const STALLED: Duration = Duration::from_millis(100);
/// A process that was asked to end and has not by then hangs in its terminal, and is ended from beside.
const END_LIMIT: Duration = Duration::from_secs(1);
/// Keys that wait to be looked at; who types more waits.
const MAX_KEYS: usize = 64;

/// Set while the terminal is not as it was.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Why there is no screen to be had, if there is none.
pub(super) fn unfit() -> Option<&'static str> {
    if !io::stdin().is_terminal() {
        return Some("standard input is no terminal");
    }
    if !io::stdout().is_terminal() {
        return Some("standard output is no terminal");
    }
    let term = std::env::var_os("TERM").unwrap_or_default();
    (term == "dumb" || term == "unknown").then_some("this terminal (TERM) cannot show one")
}

/// The terminal, taken. Given back when dropped.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes it.
    ///
    /// # Errors
    /// When it is none, or is gone.
    pub fn take() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // First, so that the words can be read.
                give_back();
                before(panic);
            }));
        });
        enter()?;
        // From here on dropping gives it back.
        let terminal =
            Terminal::new(CrosstermBackend::new(io::stdout())).inspect_err(|_| give_back())?;
        Ok(Self { terminal })
    }

    /// Shows a frame.
    pub(super) fn draw(&mut self, frame: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(frame).map(drop)
    }

    /// Forgets what is on it, so that the next frame is written as a whole.
    pub(super) fn anew(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal
            .resize(Rect::from((ratatui::layout::Position::ORIGIN, size)))
    }

    /// Takes it once more: a shell had it meanwhile.
    pub(super) fn retake(&mut self) -> io::Result<()> {
        give_back();
        enter()?;
        self.anew()
    }

    /// Stops the process, as Ctrl-Z does, and comes back when it goes on.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // The whole job, as the terminal would. Where no shell could let it go on, the kernel ignores it.
        kill_current_process_group(Signal::TSTP)?;
        self.retake()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen, Hide).inspect_err(|_| give_back())
}

/// As it was. Neither waits for a terminal that takes nothing nor for whoever writes to it.
fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // A terminal that is gone needs nothing back.
    disable_raw_mode().ok();
    let mut text = String::new();
    // Writing into a String does not fail.
    let _ = LeaveAlternateScreen.write_ansi(&mut text);
    let _ = ResetColor.write_ansi(&mut text);
    let _ = Show.write_ansi(&mut text);
    let stdout = io::stdout();
    let mut watched = [PollFd::new(&stdout, PollFlags::OUT)];
    let limit = Timespec::try_from(STALLED).ok();
    if matches!(poll(&mut watched, limit.as_ref()), Ok(1)) {
        rustix::io::write(&stdout, text.as_bytes()).ok();
    }
}

/// Keys, as they are pressed; the end of them when the terminal is gone.
pub(super) fn keys() -> io::Result<mpsc::Receiver<Key>> {
    let (tell, pressed) = mpsc::channel(MAX_KEYS);
    // Reading blocks, and has no end that could be waited for: the thread goes with the process.
    std::thread::Builder::new()
        .name("keys".into())
        .spawn(move || {
            let mut parser = Parser::default();
            while let Some(keys) = read(&mut parser) {
                for key in keys {
                    if tell.blocking_send(key).is_err() {
                        return;
                    }
                }
            }
        })?;
    Ok(pressed)
}

fn read(parser: &mut Parser) -> Option<Vec<Key>> {
    let stdin = io::stdin();
    if parser.is_open() {
        let mut watched = [PollFd::new(&stdin, PollFlags::IN)];
        let limit = Timespec::try_from(SEQUENCE).ok();
        if matches!(poll(&mut watched, limit.as_ref()), Ok(0)) {
            return Some(parser.end().into_iter().collect());
        }
    }
    let mut bytes = [0; 64];
    match rustix::io::read(&stdin, &mut bytes) {
        Ok(0) => None,
        Ok(count) => Some(parser.feed(&bytes[..count])),
        Err(rustix::io::Errno::INTR) => Some(Vec::new()),
        Err(_) => None,
    }
}

/// SIGINT, SIGTERM and SIGHUP. Heard on a thread of their own: whoever writes to a terminal that stalls hears nothing.
pub(super) fn ends() -> io::Result<mpsc::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (tell, ended) = mpsc::channel(1);
    let mut signals = {
        let _entered = runtime.enter();
        [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
                futures_util::future::select_all(any).await;
                // Full: it knows already.
                let _ = tell.try_send(());
                tokio::time::sleep(END_LIMIT).await;
            });
            give_back();
            std::process::exit(crate::exit::Exit::Runtime.code().into());
        })?;
    Ok(ended)
}
