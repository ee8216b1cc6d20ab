//! The proxy of the demo: our own binary as a process of its own, and what its log says.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::cluster::Cluster;
use super::error::{DemoError, PORT_TAKEN};
use super::guard;
use super::instance::tail;
use super::ports::{is_free, loopback};
use super::wait::wait_until;
use crate::net::clock::{Moment, now};

/// The port an application expects, and how many above it are tried when it is taken.
const PORT: u16 = 6379;
const PORTS_TRIED: u16 = 100;
/// How long it may take until it listens.
const LISTEN_LIMIT: Duration = Duration::from_secs(20);
/// Longest line of its log that is read; a longer one is cut there.
const LINE_MAX: u64 = 64 * 1024;
/// Log lines that are kept for the story and the verdict.
const EVENTS_MAX: usize = 20_000;
/// How long it may take to end when asked to; then it is killed.
const END_LIMIT: Duration = Duration::from_secs(5);

/// One line of the proxy's log.
#[derive(Clone, Debug)]
pub(super) struct ProxyEvent {
    /// When it was written.
    pub(super) at: Moment,
    /// Its stable name.
    pub(super) name: String,
    fields: Value,
}

impl ProxyEvent {
    /// A field as text; empty when it is missing.
    pub(super) fn text(&self, field: &str) -> String {
        match &self.fields[field] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }
    }

    /// A field that is an address.
    pub(super) fn addr(&self, field: &str) -> Option<SocketAddr> {
        self.text(field).parse().ok()
    }
}

/// The running proxy; it ends with it.
#[derive(Debug)]
pub(super) struct Proxy {
    child: Child,
    listen: SocketAddr,
    log: PathBuf,
    events: Arc<Mutex<Vec<ProxyEvent>>>,
    reader: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts `binary` as the proxy of `cluster` on port `asked` of 127.0.0.1, or else on the first one from
    /// 6379 on that is free, and waits until it listens.
    ///
    /// # Errors
    /// [`DemoError::Port`] when none is free; [`DemoError::ProxyEnded`], [`DemoError::Stuck`] or
    /// [`DemoError::Io`] when it does not come up.
    pub(super) fn start(
        binary: &Path,
        cluster: &Cluster,
        asked: Option<u16>,
    ) -> Result<Self, DemoError> {
        let io = |source| DemoError::Io {
            what: "cannot start switchmaster",
            source,
        };
        for listen in candidates(asked)
            .filter(|port| is_free(*port))
            .map(loopback)
        {
            let mut proxy = Self::spawn(binary, cluster, listen).map_err(io)?;
            match proxy.wait_listening(cluster) {
                // Someone else was faster: another demo, for one.
                Err(DemoError::ProxyEnded { .. })
                    if proxy.ended().and_then(|how| how.code()) == Some(i32::from(PORT_TAKEN)) => {}
                listening => return listening.map(|()| proxy),
            }
        }
        Err(no_port(asked))
    }

    fn spawn(binary: &Path, cluster: &Cluster, listen: SocketAddr) -> io::Result<Self> {
        let sentinels: Vec<_> = cluster
            .sentinels()
            .iter()
            .map(|s| s.addr().to_string())
            .collect();
        let mut command = guard::command(binary, "switchmaster".as_ref(), binary.as_os_str());
        command
            .args([
                "run",
                "--sentinel",
                &sentinels.join(","),
                "--master",
                cluster.master_name(),
            ])
            .args(["--listen", &listen.to_string(), "--log-format", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // The demo shows what these arguments do, whatever the shell is set up for.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("SWITCHMASTER_") {
                command.env_remove(name);
            }
        }
        // Nobody is to wait for what the demo's own clients have begun.
        command.env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", "1s");
        let log = cluster.folder().join("switchmaster.log");
        let copy = File::create(&log)?;
        let mut child = guard::spawn(command)?;
        let stderr = child.stderr.take();
        let mut proxy = Self {
            child,
            listen,
            log,
            events: Arc::default(),
            reader: None,
        };
        if let Some(stderr) = stderr {
            let events = Arc::clone(&proxy.events);
            let reader = thread::Builder::new().name("proxy-log".into());
            proxy.reader = Some(reader.spawn(move || read_log(stderr, copy, &events))?);
        }
        Ok(proxy)
    }

    fn wait_listening(&mut self, cluster: &Cluster) -> Result<(), DemoError> {
        let outcome = wait_until(now() + LISTEN_LIMIT, "switchmaster to listen", || {
            let listening = self
                .events_from(0)
                .iter()
                .any(|event| event.name == "listening");
            match self.ended() {
                Some(how) => Ok(Some(how)),
                None if listening => Ok(None),
                None => Err("it has not said so".into()),
            }
        });
        match outcome {
            Ok(None) => Ok(()),
            Ok(Some(how)) => Err(DemoError::ProxyEnded {
                how: how.to_string(),
                tail: self.log_tail(),
            }),
            Err(timeout) => Err(DemoError::Stuck {
                timeout,
                proxy: self.log_tail(),
                sentinel: cluster.sentinel_log_tail(),
            }),
        }
    }

    /// Where its clients connect.
    pub(super) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The events from number `first` on.
    pub(super) fn events_from(&self, first: usize) -> Vec<ProxyEvent> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.get(first..).unwrap_or_default().to_vec()
    }

    /// The end of its log.
    pub(super) fn log_tail(&mut self) -> String {
        // What an ended proxy said last may still be on its way.
        if self.ended().is_some()
            && let Some(reader) = self.reader.take()
        {
            let _ = reader.join();
        }
        tail(&self.log).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = wait_until(now() + END_LIMIT, "the proxy to end", || {
            match self.ended() {
                Some(_) => Ok(()),
                None => Err("it still runs".into()),
            }
        });
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the port that was asked for, if one was, could be listened on: said before any server is started.
pub(super) fn check_port(asked: Option<u16>) -> Result<(), DemoError> {
    if candidates(asked).any(is_free) {
        Ok(())
    } else {
        Err(no_port(asked))
    }
}

fn candidates(asked: Option<u16>) -> RangeInclusive<u16> {
    match asked {
        Some(port) => port..=port,
        None => PORT..=PORT + PORTS_TRIED,
    }
}

fn no_port(asked: Option<u16>) -> DemoError {
    DemoError::Port(match asked {
        Some(port) => {
            format!(
                "port {port} of 127.0.0.1 is taken: choose another with --port, or leave it out"
            )
        }
        None => format!("no port of 127.0.0.1 from {PORT} on is free: choose one with --port"),
    })
}

fn read_log(stderr: ChildStderr, mut copy: File, events: &Mutex<Vec<ProxyEvent>>) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match stderr.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // The copy is for reading after a failure only; without it the demo goes on.
        let _ = copy.write_all(&line);
        if let Some(event) = parse(&line) {
            let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
            if events.len() < EVENTS_MAX {
                events.push(event);
            }
        }
    }
}

fn parse(line: &[u8]) -> Option<ProxyEvent> {
    let fields: Value = serde_json::from_slice(line).ok()?;
    let name = fields.get("event")?.as_str()?.to_owned();
    let written = humantime::parse_rfc3339(fields.get("timestamp")?.as_str()?).ok()?;
    let age = SystemTime::now()
        .duration_since(written)
        .unwrap_or_default();
    Some(ProxyEvent {
        at: now() - age,
        name,
        fields,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_log_line_and_its_time() {
        let written = humantime::format_rfc3339_micros(SystemTime::now() - Duration::from_secs(2));
        let line = format!(
            "{{\"timestamp\":\"{written}\",\"level\":\"INFO\",\"event\":\"switched\",\"to\":\"127.0.0.1:1\",\"cut\":3}}\n"
        );
        let event = parse(line.as_bytes()).expect("a log line");
        assert_eq!(
            (event.name.as_str(), event.text("cut").as_str()),
            ("switched", "3")
        );
        assert_eq!(
            event.addr("to"),
            Some(SocketAddr::from(([127, 0, 0, 1], 1)))
        );
        let age = now().since(event.at);
        assert!(
            age >= Duration::from_secs(2) && age < Duration::from_secs(3),
            "{age:?}"
        );
        assert!(parse(b"{\"event\":\"x\"}").is_none() && parse(b"{").is_none());
    }
}
