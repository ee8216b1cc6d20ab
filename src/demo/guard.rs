//! Children that die with their parent, also when that is killed with SIGKILL.
//!
//! A child is our own binary first (`switchmaster __guarded ARG0 PROGRAM ARGS...`); it asks the kernel for
//! a SIGKILL at its parent's end and then becomes the program. So no code of ours runs between fork and
//! exec, and no `unsafe` is needed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The hidden subcommand that leads to [`exec`].
pub const SUBCOMMAND: &str = "__guarded";
/// Names the process that must still be the parent when the guard takes hold.
pub const PARENT_VARIABLE: &str = "SWITCHMASTER_GUARDED_BY";
/// Requests to the starting thread that may wait; a caller beyond them waits for its turn.
const QUEUE: usize = 16;

/// Becomes `program`, which then dies with the process that called [`spawn`]. Returns only on failure.
///
/// # Errors
/// The death signal cannot be set, the parent has already gone, or the program cannot be executed.
pub fn exec(arg0: &OsStr, program: &OsStr, args: &[OsString]) -> io::Error {
    if let Err(e) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return e.into();
    }
    // The parent may have ended before the line above: then no signal will ever come.
    let expected = std::env::var(PARENT_VARIABLE)
        .ok()
        .and_then(|pid| pid.parse().ok());
    if expected.is_none() || getppid().map(Pid::as_raw_pid) != expected {
        return io::Error::other(format!(
            "{SUBCOMMAND} serves switchmaster's own children only: the process that asked for this one is gone"
        ));
    }
    Command::new(program)
        .arg0(arg0)
        .args(args)
        .env_remove(PARENT_VARIABLE)
        .exec()
}

/// A command that runs `program` under the name `arg0` through `guard`, the switchmaster binary.
///
/// It has its own process group: a Ctrl-C at the terminal is for us to handle, not for the child.
pub fn command(guard: &Path, arg0: &OsStr, program: &OsStr) -> Command {
    let mut command = Command::new(guard);
    command
        .arg(SUBCOMMAND)
        .arg(arg0)
        .arg(program)
        .env(PARENT_VARIABLE, std::process::id().to_string())
        .process_group(0);
    command
}

/// Starts a guarded command.
///
/// The kernel's signal comes when the *thread* that started the child ends, not the process
/// (`PR_SET_PDEATHSIG` in prctl(2)). So one thread that never ends starts them all, and callers may be of
/// any lifetime: a test's thread, or one of a pool.
///
/// # Errors
/// The thread or the child cannot be started.
pub fn spawn(command: Command) -> io::Result<Child> {
    let (answer, started) = sync_channel(1);
    starter()?
        .send(Request { command, answer })
        .map_err(|_| io::Error::other("the thread that starts servers is gone"))?;
    started
        .recv()
        .map_err(|_| io::Error::other("the thread that starts servers is gone"))?
}

struct Request {
    command: Command,
    answer: SyncSender<io::Result<Child>>,
}

fn starter() -> io::Result<SyncSender<Request>> {
    static STARTER: Mutex<Option<SyncSender<Request>>> = Mutex::new(None);
    let mut starter = STARTER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(requests) = starter.as_ref() {
        return Ok(requests.clone());
    }
    let (requests, queue) = sync_channel(QUEUE);
    thread::Builder::new()
        .name("starter".into())
        .spawn(move || start_all(&queue))?;
    *starter = Some(requests.clone());
    Ok(requests)
}

fn start_all(queue: &Receiver<Request>) {
    while let Ok(mut request) = queue.recv() {
        let child = request.command.spawn();
        // A caller that no longer listens has panicked; its child must not outlive it.
        if let Err(unheard) = request.answer.send(child)
            && let Ok(mut child) = unheard.0
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
