//! Programs of `tests/clients`: a line after each round of commands, a report at the end of their standard input.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// Lines of the application that may wait to be read by the test.
const QUEUE: usize = 1024;
/// Between two lines: a round is held through a failover, a crash among them.
const ROUND: Duration = Duration::from_secs(30);

/// The Python that has the libraries.
pub(crate) fn python() -> String {
    std::env::var("SWITCHMASTER_PYTHON").expect(
        "SWITCHMASTER_PYTHON names no Python with redis-py: run scripts/test, or make one with \
         `python3 -m venv VENV && VENV/bin/pip install redis` and set SWITCHMASTER_PYTHON=VENV/bin/python",
    )
}

/// The folder of Node's libraries. A program that misses them ends at once, and a test then only sees that it is gone.
pub(crate) fn node_modules() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/node/node_modules");
    assert!(
        folder.join("ioredis").is_dir() && folder.join("redis").is_dir(),
        "{} has no libraries: run scripts/setup clients, or `npm ci` beside it",
        folder.display()
    );
    folder
}

/// The running program; killed and waited for when dropped.
#[derive(Debug)]
pub(crate) struct Application {
    name: String,
    child: Child,
    lines: Receiver<String>,
}

impl Application {
    /// Starts `tests/clients/SCRIPT` with these arguments.
    pub(crate) fn start(
        interpreter: &str,
        script: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        let args: Vec<_> = args.into_iter().collect();
        let words = args.iter().map(|arg| arg.as_ref().to_string_lossy());
        let name = format!("{script} {}", words.collect::<Vec<_>>().join(" "));
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/clients")
            .join(script);
        let mut child = Command::new(interpreter)
            .arg(script)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{interpreter} cannot be started: {e}"));
        let stdout = BufReader::new(child.stdout.take().expect("asked for above"));
        let (sender, lines) = sync_channel(QUEUE);
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { name, child, lines }
    }

    /// Waits for so many more rounds.
    pub(crate) fn rounds(&mut self, count: usize) {
        while self.lines.try_recv().is_ok() {}
        for round in 0..count {
            match self.lines.recv_timeout(ROUND) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: no {round}th round within {ROUND:?}", self.name)
                }
                // Its own words on that are on the standard error.
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().expect("a child of this process");
                    panic!("{} ended before its {round}th round: {status}", self.name);
                }
            }
        }
    }

    /// Ends it and gives its report.
    pub(crate) fn finish(mut self) -> Value {
        drop(self.child.stdin.take());
        let last = self.lines.iter().last().expect("a report");
        let status = self.child.wait().expect("a child of this process");
        assert!(status.success(), "{status}: {last}");
        serde_json::from_str(&last).expect("a report in JSON")
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
