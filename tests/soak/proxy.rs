//! The real program as a child, as often as it is started, on one port. What it says goes to a file a start.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use switchmaster::demo::guard;
use switchmaster::demo::wait::wait_until;
use switchmaster::net::clock::now;

use crate::history::{Declared, Micros};

/// A healthy start takes some milliseconds; one with black-holed Sentinels waits for them.
const READY: Duration = Duration::from_secs(20);
/// SIGTERM ends it once its sessions have had their time to finish.
const END: Duration = Duration::from_secs(10);

/// All of its starts.
#[derive(Debug)]
pub(crate) struct Proxy {
    sentinels: String,
    on_switch: &'static str,
    listen: SocketAddr,
    folder: PathBuf,
    child: Option<Child>,
    starts: usize,
}

impl Proxy {
    /// Starts it for these Sentinels on a free port, with its logs in `folder`.
    pub(crate) fn start(
        sentinels: &[SocketAddr],
        on_switch: &'static str,
        folder: &Path,
    ) -> Result<Self, String> {
        let sentinels: Vec<String> = sentinels.iter().map(ToString::to_string).collect();
        // It must come back on the same port, so the port is chosen here.
        let listen = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|e| format!("no free port: {e}"))?;
        let mut proxy = Self {
            sentinels: sentinels.join(","),
            on_switch,
            listen,
            folder: folder.to_owned(),
            child: None,
            starts: 0,
        };
        proxy.spawn()?;
        proxy.wait_ready()?;
        Ok(proxy)
    }

    /// Where clients connect.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.listen
    }

    /// Starts it again, when it is down. Does not wait for it.
    pub(crate) fn spawn(&mut self) -> Result<(), String> {
        let failed = |e: io::Error| format!("the proxy cannot be started: {e}");
        let program = Path::new(env!("CARGO_BIN_EXE_switchmaster"));
        self.starts += 1;
        let log = std::fs::File::create(self.log(self.starts)).map_err(failed)?;
        let mut command = guard::command(program, "switchmaster".as_ref(), program.as_os_str());
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("SWITCHMASTER_") && key != guard::PARENT_VARIABLE {
                command.env_remove(key);
            }
        }
        command
            .args(["run", "--sentinel", &self.sentinels, "--master", "mymaster"])
            .args(["--listen", &self.listen.to_string()])
            .args(["--log-format", "json"])
            // Else it finds the Sentinels behind the relays, and a black hole is none.
            .env("SWITCHMASTER_SENTINEL_DISCOVER", "false")
            .env("SWITCHMASTER_FAILOVER_ON_SWITCH", self.on_switch)
            .env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", "2s")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(guard::spawn(command).map_err(failed)?);
        Ok(())
    }

    /// Waits until the last start has a verified master.
    pub(crate) fn wait_ready(&mut self) -> Result<(), String> {
        let (deadline, start) = (now() + READY, self.starts);
        wait_until(deadline, "the proxy to be ready", || {
            if !self.is_running() {
                return Err("it ended".to_owned());
            }
            let ready = self.lines(start).any(|line| line["event"] == "ready");
            ready.then_some(()).ok_or_else(|| "it is not".to_owned())
        })
        .map_err(|e| e.to_string())
    }

    /// SIGSTOP.
    pub(crate) fn freeze(&self) -> Result<(), String> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) -> Result<(), String> {
        self.signal(Signal::CONT)
    }

    /// SIGKILL, and waits for its end.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        if let Some(mut child) = self.child.take() {
            child
                .kill()
                .and_then(|()| child.wait())
                .map_err(|e| format!("the proxy cannot be killed: {e}"))?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn terminate(&mut self) -> Result<ExitStatus, String> {
        self.signal(Signal::TERM)?;
        let Some(mut child) = self.child.take() else {
            return Err("the proxy is down".to_owned());
        };
        let ended = wait_until(now() + END, "the proxy to end", || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(e) => Err(e.to_string()),
        });
        ended.map_err(|e| {
            drop(child.kill());
            e.to_string()
        })
    }

    /// Whether its last start still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its process; `None` when it is down.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts so far.
    pub(crate) fn starts(&self) -> usize {
        self.starts
    }

    /// Open descriptors.
    pub(crate) fn open_fds(&self) -> usize {
        let folder = self.pid().map(|pid| format!("/proc/{pid}/fd"));
        folder
            .and_then(|folder| std::fs::read_dir(folder).ok())
            .map_or(0, Iterator::count)
    }

    /// The masters it said it serves, over all starts, by time.
    pub(crate) fn declared(&self) -> Vec<Declared> {
        let mut declared: Vec<Declared> = (1..=self.starts)
            .flat_map(|start| self.lines(start))
            .filter_map(|line| {
                let to = match line["event"].as_str()? {
                    "ready" => line["master"].as_str()?,
                    "switched" => line["to"].as_str()?,
                    _ => return None,
                };
                Some(Declared {
                    at: written(&line)?,
                    to: to.parse().ok()?,
                })
            })
            .collect();
        declared.sort_by_key(|d| d.at);
        declared
    }

    /// When it gave an announced failover up.
    pub(crate) fn given_up(&self) -> Vec<Micros> {
        (1..=self.starts)
            .flat_map(|start| self.lines(start))
            .filter(|line| line["event"] == "announcement_over")
            .filter_map(|line| written(&line))
            .collect()
    }

    /// How often each warning or error was said.
    pub(crate) fn complaints(&self) -> std::collections::BTreeMap<String, usize> {
        let mut complaints = std::collections::BTreeMap::new();
        for line in (1..=self.starts).flat_map(|start| self.lines(start)) {
            if matches!(line["level"].as_str(), Some("WARN" | "ERROR"))
                && let Some(event) = line["event"].as_str()
            {
                *complaints.entry(event.to_owned()).or_default() += 1;
            }
        }
        complaints
    }

    fn lines(&self, start: usize) -> impl Iterator<Item = Value> {
        let text = std::fs::read_to_string(self.log(start)).unwrap_or_default();
        let lines: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        lines.into_iter()
    }

    fn log(&self, start: usize) -> PathBuf {
        self.folder.join(format!("proxy-{start}.log"))
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let child = self.child.as_ref().ok_or("the proxy is down")?;
        kill_process(Pid::from_child(child), signal).map_err(|e| format!("{signal:?}: {e}"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.kill());
    }
}

/// Resident memory of a process, KiB.
pub(crate) fn rss_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn written(line: &Value) -> Option<Micros> {
    let at = humantime::parse_rfc3339(line["timestamp"].as_str()?).ok()?;
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros()).ok()
}
