//! The status page in a real browser, through a real failover: live, without an error, and no wider than a telephone.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::topology::{Topology, follows};
use crate::{PATIENCE, Plan, admin_of, watched};

/// Where one can look at what the browser saw.
const SHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/screenshots");

/// The browser's driver; killed when the test ends before it.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        // Asked, not killed: its browser is a process of its own, which it ends first.
        kill_process(Pid::from_child(&self.0), Signal::TERM).ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_page_in_a_browser_lives_through_a_failover() {
    let servers = Topology::start();
    let proxy = watched(Plan::moving(&servers.sentinels()));
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    std::fs::create_dir_all(SHOTS).expect("target can be written");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/page.mjs");
    let child = Command::new("node")
        .args([script, &format!("http://{admin}/"), SHOTS])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/setup browser was run");
    let mut driver = Driver(child);
    let mut asks = driver.0.stdin.take().expect("asked for above");
    let answers = driver.0.stdout.take().expect("asked for above");
    let mut answers = BufReader::new(answers).lines();
    let mut answer = || -> Value {
        let line = answers
            .next()
            .expect(
                "the browser does its part; is there all that `scripts/setup browser` installs?",
            )
            .expect("text");
        serde_json::from_str(&line).expect("JSON")
    };

    let start = answer();
    let headline = |seen: &Value| seen["headline"].as_str().expect("a text").to_owned();
    assert!(
        headline(&start).starts_with("Serving 0 sessions to 127.0.0.1:"),
        "{start}"
    );
    assert_eq!(
        (&start["wide"], &start["troubles"]),
        (&Value::Array(vec![]), &Value::Array(vec![]))
    );

    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    // The timeline's words for it, which come without a reload.
    writeln!(asks, "{} \u{2192} {}", switch.old, switch.new).expect("it listens");
    let after = answer();
    assert!(
        headline(&after).contains(&switch.new.to_string()),
        "{after}"
    );
    assert_eq!(
        (&after["wide"], &after["troubles"]),
        (&Value::Array(vec![]), &Value::Array(vec![]))
    );

    drop(asks);
    assert_eq!(answer()["plain"], true);
    assert!(driver.0.wait().expect("a child").success());
}
