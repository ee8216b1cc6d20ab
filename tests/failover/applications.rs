//! Programs that know nothing of Sentinel.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::topology::{Topology, follows};

/// Lines of the application that may wait to be read by the test.
const QUEUE: usize = 1024;

#[test]
fn plain_redis_py_survives_a_planned_failover() {
    let python = std::env::var("SWITCHMASTER_PYTHON").expect(
        "SWITCHMASTER_PYTHON names no Python with redis-py: run scripts/test, or make one with \
         `python3 -m venv VENV && VENV/bin/pip install redis` and set SWITCHMASTER_PYTHON=VENV/bin/python",
    );
    let servers = Topology::start();
    let proxy = servers.proxy();
    let app = Application::start(&python, proxy.addr().port());
    app.rounds(20);
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    app.rounds(200);
    let report = app.finish();
    assert_eq!(report["other_errors"], 0, "{report}");
    assert_eq!(report["wrong_values"], 0, "{report}");
    assert!(
        report["reconnects"].as_u64().is_some_and(|n| n <= 1),
        "{report}"
    );
    assert!(
        report["connection_errors"].as_u64().is_some_and(|n| n <= 1),
        "{report}"
    );
}

/// `tests/clients/plain_app.py`: a line after each round of commands, a report at the end of its stdin.
struct Application {
    child: Child,
    lines: Receiver<String>,
}

impl Application {
    fn start(python: &str, port: u16) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/plain_app.py");
        let mut child = Command::new(python)
            .args([script, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("SWITCHMASTER_PYTHON={python} cannot be started: {e}"));
        let stdout = BufReader::new(child.stdout.take().expect("asked for above"));
        let (sender, lines) = sync_channel(QUEUE);
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for so many more rounds.
    fn rounds(&self, count: usize) {
        while self.lines.try_recv().is_ok() {}
        for _ in 0..count {
            self.lines
                .recv_timeout(Duration::from_secs(15))
                .expect("the application goes on");
        }
    }

    fn finish(mut self) -> Value {
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
