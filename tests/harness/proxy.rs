//! The real program as a child process, its log lines as events.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde_json::Value;
use switchmaster::net::clock::now;

use super::network::Network;
use super::{cost, sockets, wait_for, wait_until};

/// Log lines shown when a test fails.
const TAIL: usize = 80;
/// A healthy start takes some milliseconds; a loaded machine some more.
const START: Duration = Duration::from_secs(10);

/// Longest until SIGSTOP is in force.
const FROZEN_WITHIN: Duration = Duration::from_secs(3);

/// For a shell of its own mount namespace: the file `$0` over the machine's `$1`, then the program in the shell's place.
const MOUNT: &str = r#"mount --bind "$0" "$1" && shift && exec "$@""#;

/// How a proxy is to be started.
#[derive(Debug)]
pub(crate) struct Plan {
    command: Command,
    config: Option<String>,
    stop_reading_after: Option<&'static str>,
}

/// The running program; killed and waited for when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    child: Child,
    log: Arc<Log>,
    /// Kept open and unread when the test asked for that.
    unread: Arc<Mutex<Option<BufReader<ChildStderr>>>>,
    pub(super) config: Option<tempfile::TempPath>,
}

/// One log line of the program.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Its place in the log.
    pub(crate) index: usize,
    /// The line.
    pub(crate) fields: Value,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    grew: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    text: Vec<String>,
    ended: bool,
}

impl Plan {
    /// The program with these arguments and nothing of this process' configuration.
    pub(crate) fn bare(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchmaster"));
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("SWITCHMASTER_") || key == "RUST_LOG" {
                command.env_remove(key);
            }
        }
        command
            .args(args)
            .env("SWITCHMASTER_FAILOVER_ON_SWITCH", on_switch())
            // The default port is one, the proxies under test are many.
            .env("SWITCHMASTER_ADMIN_LISTEN", "off");
        if let Some(papers) = super::secure::papers() {
            papers.proxy(&mut command);
        }
        Self {
            command,
            config: None,
            stop_reading_after: None,
        }
    }

    /// `mymaster` of these Sentinels on a free port.
    pub(crate) fn following(sentinels: &[SocketAddr]) -> Self {
        let sentinels: Vec<String> = sentinels.iter().map(ToString::to_string).collect();
        Self::bare(["run", "--sentinel", &sentinels.join(",")])
            .args(["--master", "mymaster", "--listen", "127.0.0.1:0"])
            .args(["--log-format", "json"])
    }

    /// The same, and sessions outlive a switch where they can (the program's default).
    pub(crate) fn moving(sentinels: &[SocketAddr]) -> Self {
        Self::following(sentinels).env("SWITCHMASTER_FAILOVER_ON_SWITCH", "move")
    }

    /// TLS on every leg.
    pub(crate) fn secure(mut self, papers: &super::secure::Papers) -> Self {
        papers.proxy(&mut self.command);
        self
    }

    /// More arguments.
    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// One more variable in its environment.
    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        super::secure::gives_way(&mut self.command, key);
        self.command.env(key, value);
        self
    }

    /// It may open so many descriptors and no more.
    pub(crate) fn open_files(self, limit: u32) -> Self {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &limit.to_string()]);
        self.run_by(limited)
    }

    /// By this path to the program.
    pub(crate) fn by(self, path: &Path) -> Self {
        let args = self
            .command
            .get_args()
            .map(OsStr::to_owned)
            .collect::<Vec<_>>();
        let mut command = Command::new(path);
        command.args(args);
        self.instead(command)
    }

    /// Run by this command, which gets its path and its arguments behind its own.
    pub(crate) fn run_by(self, mut outer: Command) -> Self {
        outer
            .arg(self.command.get_program())
            .args(self.command.get_args());
        self.instead(outer)
    }

    /// This command, in the same environment.
    fn instead(mut self, mut command: Command) -> Self {
        for (key, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        self.command = command;
        self
    }

    /// It gets listening sockets as from systemd, with these arguments of `systemd-socket-activate`, and is started by the first
    /// connection.
    pub(crate) fn activated(mut self, sockets: &[&str]) -> Self {
        let mut activated = Command::new("systemd-socket-activate");
        for (key, value) in self.command.get_envs() {
            // It hands on what it is told to, and little else.
            if let (Some(key), Some(value)) = (key.to_str(), value.and_then(OsStr::to_str)) {
                activated.arg(format!("--setenv={key}={value}"));
            }
        }
        activated
            .args(sockets)
            .arg("--")
            .arg(self.command.get_program())
            .args(self.command.get_args());
        self.command = activated;
        self
    }

    /// It runs in this namespace.
    pub(crate) fn within(self, network: &Network) -> Self {
        self.run_by(network.command())
    }

    /// A configuration file with this text.
    pub(crate) fn config(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }

    /// With this file in the place of the machine's own, which must outlive the proxy. Root only: a mount namespace.
    pub(crate) fn in_place_of(self, machines: &str, file: &Path) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "only root can give a program an {machines} of its own: run this test as root"
        );
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", MOUNT])
            .arg(file)
            .arg(machines);
        self.run_by(command)
    }

    /// Nobody reads its stderr any more once this event was seen.
    pub(crate) fn stop_reading_after(mut self, event: &'static str) -> Self {
        self.stop_reading_after = Some(event);
        self
    }

    /// Starts it; does not wait for anything.
    pub(crate) fn start(mut self) -> Proxy {
        let config = self.config.take().map(|text| {
            let file = tempfile::Builder::new()
                .prefix("switchmaster-test-")
                .suffix(".toml")
                .tempfile()
                .expect("a temporary file");
            std::fs::write(file.path(), text).expect("writing a temporary file");
            file.into_temp_path()
        });
        if let Some(path) = &config {
            self.command.arg("--config").arg(path);
        }
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built by cargo");
        let mut stderr = BufReader::new(child.stderr.take().expect("asked for above"));
        let log = Arc::new(Log::default());
        let unread = Arc::new(Mutex::new(None));
        let (writing, keeping) = (Arc::clone(&log), Arc::clone(&unread));
        let last = self.stop_reading_after;
        thread::spawn(move || {
            if writing.read(&mut stderr, last) {
                *keeping.lock().unwrap_or_else(PoisonError::into_inner) = Some(stderr);
            }
        });
        Proxy {
            child,
            log,
            unread,
            config,
        }
    }
}

impl Proxy {
    /// Starts it and waits for the first verified master.
    pub(crate) fn ready(plan: Plan) -> Self {
        let proxy = plan.start();
        proxy.event("ready", START);
        proxy
    }

    /// Where the one TCP listener is.
    pub(crate) fn addr(&self) -> SocketAddr {
        let listening = self.event_where(0, "listening", START, |fields| {
            text(fields, "addr").parse::<SocketAddr>().is_ok()
        });
        text(&listening.fields, "addr")
            .parse()
            .expect("just parsed")
    }

    /// Where the TCP listener of this `[[proxy]]` entry is.
    pub(crate) fn addr_of(&self, entry: &str) -> SocketAddr {
        let listening = self.event_where(0, "listening", START, |fields| {
            text(fields, "proxy") == entry && text(fields, "addr").parse::<SocketAddr>().is_ok()
        });
        text(&listening.fields, "addr")
            .parse()
            .expect("just parsed")
    }

    /// The first such event, waiting for it if need be.
    pub(crate) fn event(&self, name: &str, within: Duration) -> Event {
        self.event_after(0, name, within)
    }

    /// The first such event at or behind this place of the log.
    pub(crate) fn event_after(&self, from: usize, name: &str, within: Duration) -> Event {
        self.event_where(from, name, within, |_| true)
    }

    /// The first such event at or behind this place of the log of which this holds.
    pub(crate) fn event_where(
        &self,
        from: usize,
        name: &str,
        within: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Event {
        let deadline = now() + within;
        let mut next = from;
        let mut lines = self.log.locked();
        loop {
            while next < lines.text.len() {
                if let Some(event) = lines.event(next)
                    && event.name() == name
                    && holds(&event.fields)
                {
                    return event;
                }
                next += 1;
            }
            let left = deadline.since(now());
            // Released first: the panic's own output takes the same lock.
            if left.is_zero() || lines.ended {
                let why = if lines.ended {
                    "the proxy ended"
                } else {
                    "waited in vain"
                };
                drop(lines);
                panic!("no event {name:?} within {within:?}: {why}");
            }
            lines = self
                .log
                .grew
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The place where the next log line will be.
    pub(crate) fn mark(&self) -> usize {
        self.log.locked().text.len()
    }

    /// Every such event at or behind this place, without waiting.
    pub(crate) fn events(&self, from: usize, name: &str) -> Vec<Event> {
        let lines = self.log.locked();
        (from..lines.text.len())
            .filter_map(|index| lines.event(index))
            .filter(|event| event.name() == name)
            .collect()
    }

    /// Everything written to stderr so far.
    pub(crate) fn output(&self) -> String {
        self.log.locked().text.join("\n")
    }

    /// SIGUSR1, and the line of state and counters that it asks for.
    pub(crate) fn status(&self) -> Event {
        let mark = self.mark();
        self.signal(Signal::USR1);
        self.event_after(mark, "status", START)
    }

    /// Sessions ended so far, by the proxy's own reasons, without those that their clients ended. Waits until no more than so
    /// many are `open`: one counts as ended when its client has been taken leave of.
    pub(crate) fn closed(&self, open: usize) -> BTreeMap<String, u64> {
        let status = wait_for("sessions to be counted as ended", START, || {
            let status = self.status();
            (status.number("sessions") <= open as f64).then_some(status)
        });
        let reasons = status.text("closed").split_whitespace();
        reasons
            .map(|reason| {
                let (reason, count) = reason.split_once('=').expect("reason=count");
                (reason.to_owned(), count.parse().expect("a count"))
            })
            .filter(|(reason, _): &(String, u64)| !reason.starts_with("client_"))
            .collect()
    }

    /// SIGSTOP, in force for every thread.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        // Each thread stops by itself; until the last has, bytes still flow.
        let tasks = format!("/proc/{}/task", self.child.id());
        wait_until("every thread of the proxy to stop", FROZEN_WITHIN, || {
            let tasks = std::fs::read_dir(&tasks).expect("a running process");
            tasks.flatten().all(|task| {
                std::fs::read_to_string(task.path().join("stat"))
                    .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|s| s.starts_with('T')))
            })
        });
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// From now on it may have this many descriptors, whatever it was started with.
    pub(crate) fn limit_open_files(&self, limit: u64) {
        let limits = Rlimit {
            current: Some(limit),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Nofile, limits)
            .expect("a child of this process");
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM.
    pub(crate) fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// What all sessions have written to masters so far.
    pub(crate) fn bytes_up(&self) -> f64 {
        self.status().number("bytes_up")
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn terminate(mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.exit(within)
    }

    /// How it ended by itself.
    pub(crate) fn exit(&mut self, within: Duration) -> ExitStatus {
        let child = &mut self.child;
        let status = wait_for("the proxy to end", within, || {
            child.try_wait().expect("a child of this process")
        });
        // What it wrote last must be readable by the caller.
        wait_for("the end of the proxy's log", within, || {
            self.log.locked().ended.then_some(())
        });
        status
    }

    /// True while it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Resident memory, KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        cost::rss_kib(self.child.id())
    }

    /// Open descriptors.
    pub(crate) fn open_fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .expect("the proxy runs")
            .count()
    }

    /// Its connections to this address that are established.
    pub(crate) fn sockets_to(&self, addr: SocketAddr) -> usize {
        self.sockets(addr, sockets::ESTABLISHED)
    }

    /// Its connections to this address that wait for the first answer.
    pub(crate) fn dials_to(&self, addr: SocketAddr) -> usize {
        self.sockets(addr, "02")
    }

    /// The same, and those that the peer has closed while the proxy has not noticed.
    pub(crate) fn sockets_kept_to(&self, addr: SocketAddr) -> usize {
        self.sockets_to(addr) + self.sockets(addr, sockets::CLOSE_WAIT)
    }

    fn sockets(&self, addr: SocketAddr, state: &str) -> usize {
        let remote = sockets::written(addr);
        let own: HashSet<String> = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .expect("the proxy runs")
            .flatten()
            .filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .filter_map(|link| {
                let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
                Some(inode.to_owned())
            })
            .collect();
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux tells its sockets");
        let all = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|f| f.len() > 9 && f[2] == remote && f[3] == state && own.contains(f[9]));
        // The table may name one twice (`sockets`).
        all.map(|f| f[9].to_owned()).collect::<HashSet<_>>().len()
    }

    /// Bytes waiting in the stderr nobody reads.
    pub(crate) fn unread_stderr(&self) -> u64 {
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.as_ref().map_or(0, |stderr| {
            rustix::io::ioctl_fionread(stderr.get_ref()).expect("pipe(7) knows FIONREAD")
        })
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a child of this process that was not waited for");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            let lines = self.log.locked();
            let hidden = lines.text.len().saturating_sub(TAIL);
            eprintln!("--- the proxy's log, {hidden} lines before it left out ---");
            for line in &lines.text[hidden..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Event {
    /// The `event` field.
    pub(crate) fn name(&self) -> &str {
        text(&self.fields, "event")
    }

    /// A field that is text.
    pub(crate) fn text(&self, field: &str) -> &str {
        text(&self.fields, field)
    }

    /// A field that is a number, whole or not.
    pub(crate) fn number(&self, field: &str) -> f64 {
        let value = &self.fields[field];
        value
            .as_f64()
            .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
            .unwrap_or_else(|| panic!("no number {field:?} in {}", self.fields))
    }

    /// When it was written, by the wall clock.
    pub(crate) fn written(&self) -> SystemTime {
        humantime::parse_rfc3339(self.text("timestamp")).expect("an RFC 3339 timestamp")
    }
}

impl Log {
    /// Takes in lines until the end (`false`) or the last event of interest (`true`).
    fn read(&self, from: &mut impl BufRead, last: Option<&str>) -> bool {
        let mut raw = Vec::new();
        loop {
            raw.clear();
            let ended = !matches!(from.read_until(b'\n', &mut raw), Ok(n) if n > 0);
            let mut lines = self.locked();
            if ended {
                lines.ended = true;
                self.grew.notify_all();
                return false;
            }
            lines
                .text
                .push(String::from_utf8_lossy(&raw).trim_end().to_owned());
            self.grew.notify_all();
            let newest = lines.event(lines.text.len() - 1);
            if newest.is_some_and(|event| Some(event.name()) == last) {
                return true;
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn event(&self, index: usize) -> Option<Event> {
        let fields: Value = serde_json::from_str(&self.text[index]).ok()?;
        fields.is_object().then_some(Event { index, fields })
    }
}

fn text<'a>(fields: &'a Value, field: &str) -> &'a str {
    fields[field].as_str().unwrap_or_default()
}

/// Whether [`Plan::following`] starts a proxy whose sessions outlive a switch.
pub(crate) fn sessions_move() -> bool {
    on_switch() == "move"
}

/// What tests that are about both kinds of session run with: `SWITCHMASTER_TEST_ON_SWITCH`, `close` unless set.
fn on_switch() -> String {
    std::env::var("SWITCHMASTER_TEST_ON_SWITCH").unwrap_or_else(|_| "close".to_owned())
}
