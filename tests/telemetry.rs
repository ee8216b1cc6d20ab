//! The log as others see it: in a process of its own, through a pipe that is read or is not.
//!
//! Logging is set up once a process, so each test runs this program again as the child it watches.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use switchmaster::net::clock;
use switchmaster::telemetry::{self, Config, Format};

/// Names what the child does; the test `child` does nothing without it.
const ROLE: &str = "TEST_TELEMETRY_ROLE";
/// More lines than the queue holds and more bytes than a pipe holds.
const FLOOD: usize = 20_000;
/// A stalled process would take for ever; a loaded machine takes less than this.
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn a_full_pipe_costs_lines_and_never_time() {
    let mut child = spawn("flood");
    // Stderr is a pipe that is open and never read.
    let stderr = child.stderr.take();
    let status = wait(&mut child);
    drop(stderr);
    assert_eq!(status, Some(0));
    let told = read(child.stdout.take().expect("a pipe"));
    let millis = |name: &str| -> u64 {
        let value = told
            .split(name)
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        value
            .and_then(|v| v.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {told}"))
    };
    assert!(millis("dropped=") > 0, "{told}");
    assert!(millis("flush_ms=") < 5_000, "{told}");
}

#[test]
fn lines_that_wait_at_the_end_are_written() {
    let mut child = spawn("short");
    let log = read(child.stderr.take().expect("a pipe"));
    assert_eq!(wait(&mut child), Some(0));
    assert_eq!(log.lines().count(), 100, "{log}");
}

#[test]
fn a_peer_cannot_forge_a_line() {
    for role in ["forge_text", "forge_json"] {
        let mut child = spawn(role);
        let log = read(child.stderr.take().expect("a pipe"));
        assert_eq!(wait(&mut child), Some(0));
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(!log.trim_end().chars().any(char::is_control), "{log:?}");
    }
}

#[test]
fn json_is_flat() {
    let mut child = spawn("json");
    let log = read(child.stderr.take().expect("a pipe"));
    assert_eq!(wait(&mut child), Some(0));
    let line: serde_json::Value = serde_json::from_str(log.trim()).expect(&log);
    assert_eq!(line["event"], "switched");
    assert_eq!(line["proxy"], "main");
    assert_eq!(line["generation"], 7);
    assert_eq!(line["detect_ms"], 1.5);
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["message"], "now at 10.0.0.4:6379");
    let timestamp = line["timestamp"].as_str().expect("a text");
    let form: String = timestamp
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(form, "0000-00-00T00:00:00.000000Z");
}

#[test]
fn text_without_a_terminal_has_no_colours() {
    let mut child = spawn("plain");
    let log = read(child.stderr.take().expect("a pipe"));
    assert_eq!(wait(&mut child), Some(0));
    let (_, rest) = log.split_once("Z  INFO ").expect(&log);
    assert_eq!(rest, "now at 10.0.0.4:6379 event=\"switched\" proxy=main\n");
}

#[test]
fn on_a_terminal_it_is_text_with_colours_unless_they_are_not_wanted() {
    for (variable, value, coloured) in [
        ("TERM", "xterm", true),
        ("TERM", "dumb", false),
        ("NO_COLOR", "1", false),
    ] {
        let program = std::env::current_exe().expect("a path");
        let program = program.to_str().expect("text");
        // script(1), of every Debian, runs it under a terminal of its own.
        let output = Command::new("script")
            .args(["--quiet", "--return", "--command"])
            .arg(format!(
                "'{program}' --exact child --nocapture --test-threads=1"
            ))
            .arg("/dev/null")
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .env(ROLE, "plain")
            .env(variable, value)
            .stdin(Stdio::null())
            .output()
            .expect("script runs: apt-get install bsdutils");
        let shown = String::from_utf8_lossy(&output.stdout);
        let line = shown
            .lines()
            .find(|line| line.contains("now at 10.0.0.4:6379"));
        let line = line.unwrap_or_else(|| panic!("{variable}={value}: {shown}"));
        assert_eq!(
            line.contains("\x1b["),
            coloured,
            "{variable}={value}: {line:?}"
        );
        assert!(
            line.contains("event=") && line.contains("switched"),
            "{line:?}"
        );
        assert!(!line.starts_with('{'), "{line:?}");
    }
}

#[test]
fn a_panic_is_a_line() {
    let mut child = spawn("panic");
    let log = read(child.stderr.take().expect("a pipe"));
    assert_eq!(wait(&mut child), Some(0));
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(
        log.contains("event=\"panic\"") && log.contains("of all things"),
        "{log}"
    );
}

/// Not a test: what the tests above run.
#[test]
fn child() {
    let Some(role) = std::env::var_os(ROLE) else {
        return;
    };
    let role = role.to_str().expect("text");
    let format = match role {
        "json" | "forge_json" => Format::Json,
        _ => Format::Auto,
    };
    let guard = telemetry::init(&Config {
        format,
        ..Config::default()
    })
    .expect("logging starts");
    act(role);
    let lines = guard.handle().lines;
    let start = clock::now();
    drop(guard);
    let flush_ms = clock::now().since(start).as_millis();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "dropped={} flush_ms={flush_ms} .", lines.dropped()).expect("stdout");
    stdout.flush().expect("stdout");
    // The test harness has nothing to add.
    std::process::exit(0);
}

fn act(role: &str) {
    let hostile = "a\nERROR forged\r\x1b[2J\u{9b}31m\u{7f}\u{0}";
    match role {
        "flood" => {
            for n in 0..FLOOD {
                tracing::info!(
                    event = "flood",
                    n,
                    "a line that nobody reads, long enough to matter"
                );
            }
        }
        "short" => {
            for n in 0..100 {
                tracing::info!(event = "short", n, "a line");
            }
        }
        "forge_text" | "forge_json" => {
            tracing::warn!(event = "x", peer = %hostile, quoted = hostile, "{hostile}");
        }
        "json" => tracing::info!(
            event = "switched",
            proxy = "main",
            generation = 7,
            detect_ms = 1.5,
            "now at {}",
            "10.0.0.4:6379"
        ),
        "plain" => tracing::info!(event = "switched", proxy = %"main", "now at 10.0.0.4:6379"),
        "panic" => {
            let ended = std::thread::spawn(|| panic!("of all things\nthis")).join();
            assert!(ended.is_err());
        }
        role => panic!("no such role: {role}"),
    }
}

fn spawn(role: &str) -> Child {
    Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this program runs")
}

/// The exit code; a child that hangs is killed, and fails the test.
fn wait(child: &mut Child) -> Option<i32> {
    let deadline = clock::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        if clock::now() > deadline {
            child.kill().expect("a child");
            panic!("still running after {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn read(mut pipe: impl Read) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).expect("text");
    text
}
