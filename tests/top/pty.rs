//! A program on a pseudo-terminal of its own, which is its controlling terminal, and what a person would see there. `setsid` and
//! `bash` are part of every Debian.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use vt100::Parser;

use crate::harness::wait_for;

/// A loaded machine may take its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often the reader looks whether it is wanted no longer.
const LOOK: Duration = Duration::from_millis(20);

/// The terminal and the program on it.
pub(crate) struct Pty {
    master: Option<File>,
    // Open on this side, too, so that its modes can be asked for when the program is gone.
    slave: File,
    before: Termios,
    child: Child,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

/// All that came.
struct Seen {
    parser: Parser,
    bytes: Vec<u8>,
}

impl Pty {
    /// Starts this, a terminal of so many columns and rows being its own.
    pub(crate) fn start(command: &mut Command, (columns, rows): (u16, u16)) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
        grantpt(&master).expect("a pty");
        unlockpt(&master).expect("a pty");
        let path = ptsname(&master, Vec::new()).expect("a pty");
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path.to_str().expect("text"))
            .expect("its other side");
        resize(&master, columns, rows);
        let before = tcgetattr(&slave).expect("a terminal");

        // A session of its own, with this as its terminal; the process stays the same.
        let mut within = Command::new("setsid");
        within
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => within.env(key, value),
                None => within.env_remove(key),
            };
        }
        let end = || slave.try_clone().expect("a descriptor");
        let child = within
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("setsid (util-linux)");

        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Seen {
            parser: Parser::new(size(rows), size(columns), 100),
            bytes: Vec::new(),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (source, filling, stopping) = (
            master.try_clone().expect("a descriptor"),
            Arc::clone(&seen),
            Arc::clone(&stop),
        );
        let reader = thread::spawn(move || read(source, &filling, &stopping));
        Self {
            master: Some(master),
            slave,
            before,
            child,
            seen,
            reader: Some(reader),
            stop,
        }
    }

    /// Types.
    pub(crate) fn press(&self, keys: &str) {
        let master = self.master.as_ref().expect("not hung up");
        rustix::io::write(master, keys.as_bytes()).expect("the terminal takes it");
    }

    /// Another size.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        // First here, so that nothing drawn for the new size meets the old one; and nothing drawn before is left to be seen.
        let mut seen = self.locked();
        if seen.parser.screen().size() == (size(rows), size(columns)) {
            return;
        }
        seen.parser.set_size(size(rows), size(columns));
        seen.parser.process(b"\x1b[2J");
        drop(seen);
        resize(self.master.as_ref().expect("not hung up"), columns, rows);
    }

    /// What stands on it now.
    pub(crate) fn text(&self) -> String {
        self.locked().parser.screen().contents()
    }

    /// Waits until what stands on it is so, and gives it.
    pub(crate) fn wait(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let deadline = switchmaster::net::clock::now() + PATIENCE;
        wait_for(what, PATIENCE + Duration::from_secs(1), || {
            last = self.text();
            if is_so(&last) {
                return Some(last.clone());
            }
            assert!(
                switchmaster::net::clock::now() < deadline,
                "waited in vain for {what}; there is:\n{last}"
            );
            None
        })
    }

    /// Waits until this text stands on it.
    pub(crate) fn wait_text(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    /// Waits until this is so of the terminal itself: a frame comes in pieces.
    pub(crate) fn wait_look(&self, what: &str, is_so: fn(&vt100::Screen) -> bool) {
        wait_for(what, PATIENCE, || self.look(is_so).then_some(()));
    }

    /// Looks at the terminal itself.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&vt100::Screen) -> T) -> T {
        at(self.locked().parser.screen())
    }

    /// Every byte that was written to it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.locked().bytes.clone()
    }

    /// Its modes now, and those before anything ran on it.
    pub(crate) fn modes(&self) -> (Termios, Termios) {
        (
            tcgetattr(&self.slave).expect("a terminal"),
            self.before.clone(),
        )
    }

    /// The program's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal)
            .expect("a child that was not waited for");
    }

    /// Nobody looks any more.
    pub(crate) fn stop_reading(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no panic");
        }
    }

    /// The line is cut.
    pub(crate) fn hang_up(&mut self) {
        self.stop_reading();
        self.master = None;
    }

    /// How the program ended; waits for it.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        wait_for("the program to end", PATIENCE, || {
            self.child.try_wait().expect("a child")
        })
    }

    /// The program has ended, and the terminal is as it was before.
    pub(crate) fn is_given_back(&mut self) -> ExitStatus {
        let status = self.exit();
        // What it wrote last may still be on its way.
        wait_for("the screen to be left", PATIENCE, || {
            self.look(|screen| !screen.alternate_screen() && !screen.hide_cursor())
                .then_some(())
        });
        assert_eq!(
            modes_of(&self.modes().0),
            modes_of(&self.before),
            "{status}"
        );
        status
    }

    fn locked(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
        self.hang_up();
    }
}

/// All flags and all control characters.
pub(crate) fn modes_of(termios: &Termios) -> String {
    format!("{termios:?}")
}

fn read(mut source: File, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let mut bytes = [0; 4096];
    let limit = Timespec::try_from(LOOK).expect("short");
    while !stop.load(Ordering::Relaxed) {
        let mut watched = [PollFd::new(&source, PollFlags::IN)];
        if !matches!(poll(&mut watched, Some(&limit)), Ok(1)) {
            continue;
        }
        let Ok(count @ 1..) = source.read(&mut bytes) else {
            return;
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.parser.process(&bytes[..count]);
        seen.bytes.extend_from_slice(&bytes[..count]);
    }
}

fn resize(terminal: impl AsFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("a terminal");
}

fn size(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a size")
}
