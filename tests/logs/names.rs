//! Text of peers in the log: one event stays one line, and moves no terminal's cursor.

use super::PATIENCE;
use super::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use super::harness::proxy::{Plan, Proxy};

/// A forged line, a cleared screen, a title, colours, and what some terminals take for escape by itself.
const HOSTILE: &[&str] = &[
    "a\n2026-01-01T00:00:00.000000Z  INFO forged event=\"switched\"",
    "a\r\x1b[2J\x1b]0;title\x07",
    "a\u{9b}31m\u{85}\u{0}\u{7f}",
    "{\"event\":\"switched\"}",
];

/// A Sentinel that uses such words for whatever it is asked.
fn provoked(form: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for words in HOSTILE {
        let fake = FakeSentinel::start(Protocol::Resp3, View::of(([127, 0, 0, 1], 9).into()));
        fake.update(|view| {
            view.announced = Some(((*words).to_owned(), "6379".to_owned()));
            view.sentinel_id = (*words).to_owned();
            view.flags = format!("master,{words}");
        });
        let sentinel = fake.addr().to_string();
        let proxy: Proxy = Plan::bare(["run", "--sentinel", &sentinel, "--listen", "127.0.0.1:0"])
            .args(["--log-format", form, "--log", "debug"])
            .start();
        let said = |what: &str| proxy.output().contains(what);
        super::harness::wait_until("it to be told of", PATIENCE, || {
            said("sentinel_view_refused") || said("role_rejected") || said("master_candidate")
        });
        for hint in ["+switch-master", "+selected-slave", "+odown"] {
            fake.publish(hint, words);
        }
        fake.update(|view| view.announced = Some(("127.0.0.1".to_owned(), (*words).to_owned())));
        super::harness::wait_until("its port to be told of", PATIENCE, || {
            said("sentinel_view_refused")
        });
        lines.extend(proxy.output().lines().map(str::to_owned));
    }
    assert!(lines.len() > HOSTILE.len(), "{lines:#?}");
    lines
}

#[test]
fn in_text_every_line_is_one_of_ours_and_shows_its_control_characters() {
    for line in provoked("text") {
        let (timestamp, rest) = line.split_once(' ').expect(&line);
        humantime::parse_rfc3339(timestamp).unwrap_or_else(|e| panic!("{e}: {line}"));
        let level = rest.split_whitespace().next();
        assert!(
            matches!(level, Some("INFO" | "WARN" | "DEBUG" | "ERROR")),
            "{line}"
        );
        assert!(!line.starts_with("2026-01-01"), "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn in_json_every_line_is_an_object_of_ours() {
    for line in provoked("json") {
        let object: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(object["timestamp"].is_string(), "{line}");
        assert_ne!(object["event"], "switched", "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}
