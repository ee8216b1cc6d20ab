//! Findings as text for a terminal and as JSON for programs. Pure.

use std::fmt::Write;

use serde::Serialize;

use super::finding::{Finding, Level};

#[derive(Serialize)]
struct Report<'a> {
    /// The worst there is.
    level: Level,
    fail: usize,
    warn: usize,
    ok: usize,
    findings: &'a [Finding],
}

/// One object.
pub(super) fn json(findings: &[Finding]) -> String {
    let report = Report {
        level: worst(findings),
        fail: count(findings, Level::Fail),
        warn: count(findings, Level::Warn),
        ok: count(findings, Level::Ok),
        findings,
    };
    // Plain data with text for keys always can be written as JSON.
    let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
    text.push('\n');
    text
}

/// One line a finding, its hint below it, and a line that counts.
pub(super) fn text(findings: &[Finding]) -> String {
    let mut page = String::new();
    for finding in findings {
        let word = match finding.level {
            Level::Fail => "FAIL",
            Level::Warn => "warn",
            Level::Ok => "ok  ",
        };
        let line = format!("{}: {}", finding.subject, finding.message);
        // Writing into a String does not fail.
        let _ = writeln!(page, "{word}  {}", printable(&line));
        for line in finding.hint.iter().flat_map(|hint| hint.lines()) {
            let _ = writeln!(page, "        {}", printable(line));
        }
    }
    let _ = writeln!(
        page,
        "{} FAIL, {} warn, {} ok",
        count(findings, Level::Fail),
        count(findings, Level::Warn),
        count(findings, Level::Ok)
    );
    page
}

/// The worst level there is.
pub(super) fn worst(findings: &[Finding]) -> Level {
    findings
        .iter()
        .map(|finding| finding.level)
        .min()
        .unwrap_or(Level::Ok)
}

fn count(findings: &[Finding], level: Level) -> usize {
    findings.iter().filter(|f| f.level == level).count()
}

/// What peers and files said reaches a terminal here.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Code;
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::fail(Code::PortTaken, "127.0.0.1:6379", "taken by \u{1b}[31mx")
                .hint("stop it\nor not"),
            Finding::ok(Code::ConfigValid, "configuration", "valid"),
        ]
    }

    #[test]
    fn text_is_a_line_a_finding_and_no_terminal_obeys_it() {
        assert_eq!(
            text(&findings()),
            "FAIL  127.0.0.1:6379: taken by \u{fffd}[31mx\n        stop it\n        or not\n\
             ok    configuration: valid\n1 FAIL, 0 warn, 1 ok\n"
        );
    }

    #[test]
    fn json_has_the_same_findings() {
        let report: serde_json::Value = serde_json::from_str(&json(&findings())).expect("JSON");
        assert_eq!(report["level"], "fail");
        assert_eq!((&report["fail"], &report["ok"]), (&1.into(), &1.into()));
        assert_eq!(report["findings"][0]["code"], "port_taken");
        assert_eq!(report["findings"][0]["hint"], "stop it\nor not");
        assert_eq!(report["findings"][1]["level"], "ok");
        assert!(report["findings"][1].get("hint").is_none());
    }
}
