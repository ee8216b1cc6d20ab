//! One thread of a process that stands still, while all others go on.

use std::fs;
use std::marker::PhantomData;

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Stands still until this is dropped, by the thread that made it: only the one that traces can let go (ptrace(2)).
#[derive(Debug)]
pub(crate) struct Blocked {
    thread: Pid,
    _here: PhantomData<*const ()>,
}

impl Blocked {
    /// The thread of this name, in a child of this process.
    pub(crate) fn named(pid: u32, name: &str) -> Self {
        let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
        let found = tasks.find_map(|task| {
            let task = task.ok()?;
            let called = fs::read_to_string(task.path().join("comm")).ok()?;
            (called.trim_end() == name).then(|| task.file_name())
        });
        let found = found.unwrap_or_else(|| panic!("no thread called {name}"));
        let id = found.to_str().and_then(|id| id.parse().ok());
        Self::thread(id.expect("a number"))
    }

    /// The first thread of a child of this process.
    pub(crate) fn first(pid: u32) -> Self {
        Self::thread(pid.cast_signed())
    }

    fn thread(id: i32) -> Self {
        let thread = Pid::from_raw(id);
        ptrace::seize(thread, Options::empty()).expect("a child of this process, or root");
        let blocked = Self {
            thread,
            _here: PhantomData,
        };
        ptrace::interrupt(thread).expect("it is traced");
        let stopped = waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it is traced");
        assert!(
            matches!(stopped, WaitStatus::PtraceEvent(..)),
            "{stopped:?}"
        );
        blocked
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // It may have been killed, which ends it as well.
        let _ = ptrace::detach(self.thread, None);
    }
}
