//! One server process of the local topology: a data node or a Sentinel, that can be killed, frozen, thawed
//! and started again. It never outlives its handle.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::cluster::ClusterError;
use super::guard;
use super::ports::Port;
use super::wait::wait_until;
use super::wire::{Conn, WireError};
use crate::net::clock::now;

/// How much of the end of a log is shown.
const TAIL_BYTES: u64 = 4096;
/// How long a server may take until it answers; generous, as test machines are loaded.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long the kernel may take to stop or continue a process.
const SIGNAL_LIMIT: Duration = Duration::from_secs(5);
/// One exchange with a server on loopback.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(2);

/// One server process. All methods may be called from any thread.
#[derive(Debug)]
pub struct Instance {
    name: String,
    port: Port,
    launch: Launch,
    password: Option<String>,
    state: Mutex<State>,
}

/// How a server is started.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) guard: PathBuf,
    pub(super) arg0: OsString,
    pub(super) program: PathBuf,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
}

#[derive(Debug)]
enum State {
    Down,
    Running(Child),
    Frozen(Child),
}

impl Instance {
    pub(super) fn new(name: String, port: Port, launch: Launch, password: Option<String>) -> Self {
        Self {
            name,
            port,
            launch,
            password,
            state: Mutex::new(State::Down),
        }
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// [`ClusterError::State`] when it is not down, [`ClusterError::Exited`] or [`ClusterError::Timeout`] with
    /// the end of its log when it does not come up.
    pub fn restart(&self) -> Result<(), ClusterError> {
        self.start(&[])?;
        self.wait_answering()
    }

    /// As [`restart`](Self::restart), but a data node follows `master` from its first moment on. A killed
    /// master that is merely restarted is a master again, and an empty one, until a Sentinel demotes it.
    ///
    /// # Errors
    /// As [`restart`](Self::restart).
    pub fn restart_as_replica_of(&self, master: SocketAddr) -> Result<(), ClusterError> {
        self.start(&[
            "--replicaof".into(),
            master.ip().to_string(),
            master.port().to_string(),
        ])?;
        self.wait_answering()
    }

    /// Kills it with SIGKILL and waits for its end. Nothing happens when it is down.
    ///
    /// # Errors
    /// [`ClusterError::Io`] when the system refuses.
    pub fn kill(&self) -> Result<(), ClusterError> {
        let mut state = self.state();
        let io = |source| ClusterError::Io {
            what: format!("cannot kill {}", self.name),
            source,
        };
        if let State::Running(child) | State::Frozen(child) = &mut *state {
            // SIGKILL ends a stopped process too.
            child.kill().map_err(io)?;
            child.wait().map_err(io)?;
        }
        *state = State::Down;
        Ok(())
    }

    /// Stops it with SIGSTOP, as a paused machine: its sockets stay open and the kernel still takes bytes.
    ///
    /// # Errors
    /// [`ClusterError::State`] when it is down.
    pub fn freeze(&self) -> Result<(), ClusterError> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Down) {
            State::Running(child) | State::Frozen(child) => {
                let pid = Pid::from_child(&child);
                *state = State::Frozen(child);
                self.signal(pid, Signal::STOP, true)
            }
            State::Down => Err(self.wrong_state("is down and cannot be frozen")),
        }
    }

    /// Continues it with SIGCONT.
    ///
    /// # Errors
    /// [`ClusterError::State`] when it is down.
    pub fn thaw(&self) -> Result<(), ClusterError> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Down) {
            State::Running(child) | State::Frozen(child) => {
                let pid = Pid::from_child(&child);
                *state = State::Running(child);
                self.signal(pid, Signal::CONT, false)
            }
            State::Down => Err(self.wrong_state("is down and cannot be thawed")),
        }
    }

    /// Where it listens; the same over every restart.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Its process; `None` when it is down.
    pub fn pid(&self) -> Option<u32> {
        match &*self.state() {
            State::Down => None,
            State::Running(child) | State::Frozen(child) => Some(child.id()),
        }
    }

    /// `node 127.0.0.1:5000` or `Sentinel 127.0.0.1:5001`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its process exists and is not frozen.
    pub fn is_running(&self) -> bool {
        match &mut *self.state() {
            State::Running(child) => matches!(child.try_wait(), Ok(None)),
            State::Down | State::Frozen(_) => false,
        }
    }

    /// Whether it was frozen.
    pub fn is_frozen(&self) -> bool {
        matches!(&*self.state(), State::Frozen(_))
    }

    /// The end of its log, at most 4 KiB; empty when there is none.
    pub fn log_tail(&self) -> String {
        tail(&self.launch.log).unwrap_or_default()
    }

    /// A connection, with the topology's password sent if it has one.
    ///
    /// # Errors
    /// As [`Conn::connect`] and [`Conn::call`]; a refused password is [`WireError::Malformed`].
    pub fn connect(&self) -> Result<Conn, WireError> {
        let mut conn = Conn::connect(self.addr(), CALL_LIMIT)?;
        if let Some(password) = &self.password
            && conn.call(&["AUTH", password])?.is_error()
        {
            return Err(WireError::Malformed("the password was refused"));
        }
        Ok(conn)
    }

    pub(super) fn start(&self, extra: &[String]) -> Result<(), ClusterError> {
        let mut state = self.state();
        // One that ended by itself is down too.
        let alive = match &mut *state {
            State::Down => false,
            State::Running(child) | State::Frozen(child) => {
                !matches!(child.try_wait(), Ok(Some(_)))
            }
        };
        if alive {
            return Err(self.wrong_state("is already started"));
        }
        let launch = &self.launch;
        let io = |source| ClusterError::Io {
            what: format!("cannot start {}", self.name),
            source,
        };
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&launch.log)
            .map_err(io)?;
        let mut command = guard::command(&launch.guard, &launch.arg0, launch.program.as_os_str());
        command
            .arg(&launch.config)
            .args(extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(io)?)
            .stderr(log);
        *state = State::Running(guard::spawn(command).map_err(io)?);
        Ok(())
    }

    /// Waits until this very process answers: another server may have taken the port.
    pub(super) fn wait_answering(&self) -> Result<(), ClusterError> {
        let what = format!("{} to answer", self.name);
        let mut exited = false;
        let waited = wait_until(now() + START_LIMIT, &what, || {
            if !self.is_running() {
                exited = true;
                return Ok(());
            }
            let info = self
                .connect()
                .and_then(|mut conn| conn.call(&["INFO", "server"]))
                .map_err(|e| e.to_string())?;
            let answering = info
                .text()
                .as_deref()
                .and_then(|text| info_field(text, "process_id"));
            if answering.is_some() && answering == self.pid().map(|pid| pid.to_string()) {
                Ok(())
            } else {
                Err(format!(
                    "process {} answers at its port",
                    answering.unwrap_or_default()
                ))
            }
        });
        match waited {
            Ok(()) if exited => {
                self.kill()?;
                Err(ClusterError::Exited {
                    who: self.name.clone(),
                    tail: self.log_tail(),
                })
            }
            Ok(()) => Ok(()),
            Err(timeout) => Err(ClusterError::Timeout {
                timeout,
                tail: self.log_tail(),
            }),
        }
    }

    fn signal(&self, pid: Pid, signal: Signal, stopped: bool) -> Result<(), ClusterError> {
        let io = |source| ClusterError::Io {
            what: format!("cannot signal {}", self.name),
            source,
        };
        kill_process(pid, signal).map_err(|e| io(e.into()))?;
        wait_until(
            now() + SIGNAL_LIMIT,
            &format!("{} to stop or continue", self.name),
            || match is_stopped(pid) {
                Ok(is) if is == stopped => Ok(()),
                Ok(_) => Err("it has not yet".into()),
                Err(e) => Err(e.to_string()),
            },
        )
        .map_err(|timeout| ClusterError::Timeout {
            timeout,
            tail: String::new(),
        })
    }

    fn wrong_state(&self, is: &str) -> ClusterError {
        ClusterError::State {
            who: self.name.clone(),
            is: is.to_owned(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The value of `name:value` in an `INFO` reply.
pub(super) fn info_field(info: &str, name: &str) -> Option<String> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(|value| value.trim().to_owned())
}

/// The last lines of a log, at most 4 KiB.
pub(super) fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
    let mut end = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut end)?;
    let end = String::from_utf8_lossy(&end).into_owned();
    Ok(match end.split_once('\n') {
        Some((_, whole_lines)) if len > TAIL_BYTES => whole_lines.to_owned(),
        _ => end,
    })
}

/// Whether all of the process stands still: `T` behind the name in `/proc/PID/stat` (proc(5)).
fn is_stopped(pid: Pid) -> io::Result<bool> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()))?;
    Ok(stat
        .rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with('T')))
}
