//! What one proxy lived through, in the form of `tests/timelines/*.txt`. Messages have no length there, so a timeline
//! shows the order of what the steward was told; what was asked long before it was answered is said in a comment.

use switchmaster::topology::observation::RoleReport;

/// Answers older than this are marked.
const OLD: u64 = 50;

#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    on: bool,
    lines: Vec<String>,
    /// The line of the probe under way: its answer is known later.
    probe: Option<(usize, u64)>,
}

impl Trace {
    pub(crate) fn on() -> Self {
        Self {
            on: true,
            ..Self::default()
        }
    }

    pub(crate) fn line(&mut self, now: u64, text: &str) {
        if self.on {
            self.lines.push(format!("{now:<6}{text}"));
        }
    }

    pub(crate) fn note(&mut self, now: u64, text: &str) {
        if self.on {
            self.lines.push(format!("# {now:<6}{text}"));
        }
    }

    pub(crate) fn view(&mut self, now: u64, link: usize, said: &str, asked_at: u64) {
        if self.on {
            let old = if now - asked_at > OLD {
                format!("   # asked at {asked_at}")
            } else {
                String::new()
            };
            self.lines
                .push(format!("{now:<6}view s{} {said}{old}", link + 1));
        }
    }

    pub(crate) fn freeze(&mut self, since: u64, lasted: u64) {
        if self.on {
            self.lines.push(format!("{since:<6}freeze {lasted}"));
        }
    }

    pub(crate) fn probe(&mut self, now: u64, who: char) {
        if self.on {
            self.probe = Some((self.lines.len(), now));
            self.lines.push(format!("{now:<6}role {who} silent"));
        }
    }

    pub(crate) fn answer(&mut self, who: char, report: &RoleReport) {
        if let Some((line, at)) = self.probe.take() {
            self.lines[line] = format!("{at:<6}role {who} {}", Self::word(report));
        }
    }

    /// The word that timelines have for a report.
    pub(crate) const fn word(report: &RoleReport) -> &'static str {
        match report {
            RoleReport::Failed(_) => "silent",
            other => other.label(),
        }
    }

    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }
}
