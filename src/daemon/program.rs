//! The program that follows this one when an upgrade is asked for, and whether its end would be noticed by the wrong one.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::getppid;
use tokio::process::{Child, Command};

use crate::upgrade::link::{self, Link};

/// Tells a process whom it follows: the id of the process that starts it. Not one of the `SWITCHMASTER_` variables, which are
/// people's.
pub(super) const FOLLOWS: &str = "_SWITCHMASTER_FOLLOWS";
/// The namespace that a machine has for its processes from the beginning (`PROC_PID_INIT_INO` of the kernel); a container's is another.
const FIRST_PIDS: &str = "pid:[4026531836]";

/// How this process was started, as long as that can be known: what is installed later replaces the file or the link, and the path
/// then leads to the new one.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    arguments: Vec<OsString>,
    /// A container was started for it, and waits for its end.
    pub(super) is_container: bool,
}

impl Program {
    /// This one.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let file = std::env::current_exe()?;
        // What it was called by, where that is the same file: a link may lead to another version by then.
        let called = std::env::args_os().next().map(PathBuf::from);
        let is_it = |path: &PathBuf| {
            path.is_absolute()
                && fs::canonicalize(path).is_ok_and(|led| led == file || !file.exists())
        };
        Ok(Self {
            path: called.filter(is_it).unwrap_or(file),
            arguments: std::env::args_os().skip(1).collect(),
            is_container: is_container(),
        })
    }

    /// Starts it as a child of this process, at the other end of a link.
    pub(super) fn start(&self) -> io::Result<(Link, Child)> {
        let (ours, theirs) = link::pair()?;
        let child = Command::new(&self.path)
            .args(&self.arguments)
            .env(FOLLOWS, std::process::id().to_string())
            // Meant for us by its number; without it, for whoever is the main process.
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(theirs))
            .spawn()?;
        Ok((Link::new(ours)?, child))
    }
}

/// A container ends with its first process, or with the one that its init was made to run: the end of this process would be the end of
/// the one that follows.
fn is_container() -> bool {
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let inside = fs::read_link("/proc/self/ns/pid").is_ok_and(|pids| pids != Path::new(FIRST_PIDS));
    std::process::id() == 1 || (inside && parent <= 1)
}
