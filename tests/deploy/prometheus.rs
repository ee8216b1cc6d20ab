//! A real Prometheus on a free port with its data in a temporary folder, and promtool.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use switchmaster::demo::guard;

use super::harness::wait_for;

/// It reads its log of samples at start, which is empty; a loaded machine takes a while all the same.
const START: Duration = Duration::from_secs(20);
/// One answer of its API.
const ANSWER: Duration = Duration::from_secs(5);
/// Bytes of its log that are shown when a test fails.
const TAIL: usize = 4096;

/// The running server; killed and waited for when dropped, and by the kernel when this process ends first.
#[derive(Debug)]
pub(crate) struct Prometheus {
    child: Child,
    log: PathBuf,
    addr: Option<SocketAddr>,
}

/// What a tool said and whether it was content.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) content: bool,
    pub(crate) text: String,
}

impl Prometheus {
    /// Starts it with this configuration file; its data and its log go into `folder`.
    pub(crate) fn start(folder: &Path, config: &Path) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_switchmaster"));
        let program = tool("prometheus");
        let log = folder.join("prometheus.log");
        let mut command = guard::command(binary, "prometheus".as_ref(), program.as_os_str());
        command
            .arg("--config.file")
            .arg(config)
            .arg("--storage.tsdb.path")
            .arg(folder.join("data"))
            .arg("--web.listen-address=127.0.0.1:0")
            .env("TZ", "UTC")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("a file in a temporary folder"));
        let child = guard::spawn(command).expect("the program was found");
        let mut prometheus = Self {
            child,
            log,
            addr: None,
        };
        prometheus.addr = Some(wait_for("Prometheus to be ready", START, || {
            if let Ok(Some(status)) = prometheus.child.try_wait() {
                panic!("Prometheus ended: {status}");
            }
            // `msg="Listening on" address=127.0.0.1:34567`
            // It listens before its API answers.
            let log = fs::read_to_string(&prometheus.log).ok()?;
            let ready = log.contains("Server is ready to receive web requests");
            let line = log.lines().find(|line| line.contains("\"Listening on\""))?;
            let addr = line.rsplit_once("address=")?.1.trim().parse().ok()?;
            ready.then_some(addr)
        }));
        prometheus
    }

    /// `data` of what its HTTP API answers to this.
    pub(crate) fn api(&self, path: &str) -> Value {
        let addr = self.addr.expect("it listens");
        let mut stream = TcpStream::connect(addr).expect("it listens");
        stream.set_read_timeout(Some(ANSWER)).expect("a socket");
        // 1.0: the answer is in one piece and ends with the connection.
        let request = format!("GET /api/v1/{path} HTTP/1.0\r\nHost: {addr}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("an answer in time");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let mut json: Value =
            serde_json::from_str(body).unwrap_or_else(|e| panic!("{path}: {e}: {answer}"));
        assert_eq!(json["status"], "success", "{path}: {json}");
        json["data"].take()
    }

    /// What this query gives now, each series with its labels and its value.
    pub(crate) fn query(&self, expr: &str) -> Vec<(Value, f64)> {
        let escaped: String = expr
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        let data = self.api(&format!("query?query={escaped}"));
        let results = data["result"].as_array().expect("a list of series").iter();
        results
            .map(|result| {
                let value = result["value"][1]
                    .as_str()
                    .and_then(|value| value.parse().ok());
                (result["metric"].clone(), value.expect("a number"))
            })
            .collect()
    }

    /// The one number that this query gives, if it gives any.
    pub(crate) fn number(&self, expr: &str) -> Option<f64> {
        let found = self.query(expr);
        assert!(found.len() < 2, "{expr} gives {found:?}");
        found.first().map(|(_, value)| *value)
    }

    /// The alerts that wait or fire now.
    pub(crate) fn alerts(&self) -> Vec<Value> {
        let mut data = self.api("alerts");
        match data["alerts"].take() {
            Value::Array(alerts) => alerts,
            other => panic!("no list of alerts: {other}"),
        }
    }

    /// Waits until the rules were evaluated on what is scraped now: twice, since one evaluation may be under way.
    pub(crate) fn evaluates(&self, within: Duration) {
        let last = || self.api("rules")["groups"][0]["lastEvaluation"].take();
        for _ in 0..2 {
            let before = last();
            wait_for("an evaluation of the rules", within, || {
                (last() != before).then_some(())
            });
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = fs::read(&self.log).unwrap_or_default();
            let tail = &log[log.len().saturating_sub(TAIL)..];
            eprintln!(
                "--- the end of Prometheus' log ---\n{}",
                String::from_utf8_lossy(tail)
            );
        }
    }
}

/// Runs promtool with these arguments and this on its standard input.
pub(crate) fn promtool(args: &[&str], input: &str) -> Said {
    let mut child = Command::new(tool("promtool"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was found");
    let mut stdin = child.stdin.take().expect("asked for above");
    // It reads all of its input before it says anything, or none.
    drop(stdin.write_all(input.as_bytes()));
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said {
        content: output.status.success(),
        text: text(&output.stdout) + &text(&output.stderr),
    }
}

/// Where a program of Debian's package `prometheus` is: in `PATH`, or where `scripts/setup prometheus` unpacked it.
fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/target/prometheus/usr/bin");
    std::env::split_paths(&path)
        .chain([PathBuf::from(unpacked)])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| {
            panic!("no {name} in PATH or {unpacked}: run `scripts/setup prometheus`")
        })
}
