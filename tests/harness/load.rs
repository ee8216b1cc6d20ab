//! `redis-benchmark` as a load that must not notice a failover: it ends with an error when a connection is closed or a
//! reply is one, and says so.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait_for;

/// Longest time of one run: a million requests take less than a minute, with failovers among them.
const RUN: Duration = Duration::from_secs(600);

/// It runs with less of the processor than the servers: a starved Sentinel does nothing for 30 s. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Load(Child);

/// What it found out about one kind of command.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// `SET`
    pub(crate) test: String,
    pub(crate) per_second: f64,
    /// The longest that one request took; some versions do not say.
    pub(crate) longest_ms: Option<f64>,
}

impl Load {
    /// SETs and GETs until it is ended.
    pub(crate) fn endless(port: u16, connections: usize, pipeline: usize) -> Self {
        let count = ["-n", "100000", "-l", "-q"];
        Self::start(port, connections, pipeline, &count, Stdio::null())
    }

    /// So many SETs, then so many GETs.
    pub(crate) fn once(port: u16, connections: usize, pipeline: usize, requests: usize) -> Self {
        let count = ["-n", &requests.to_string(), "--csv"];
        Self::start(port, connections, pipeline, &count, Stdio::piped())
    }

    fn start(port: u16, connections: usize, pipeline: usize, more: &[&str], out: Stdio) -> Self {
        let child = Command::new("nice")
            .args(["-n", "15", "redis-benchmark", "-p", &port.to_string()])
            .args(["-c", &connections.to_string(), "-P", &pipeline.to_string()])
            .args(["-t", "set,get"])
            .args(more)
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("redis-benchmark: {e}: apt-get install redis-tools"));
        Self(child)
    }

    /// It still runs, and has not complained.
    pub(crate) fn assert_undisturbed(&mut self) {
        let ended = self.ended();
        drop(self.0.kill());
        let said = text(self.0.stderr.as_mut());
        assert!(ended.is_none(), "it ended: {ended:?}: {said}");
        let errors = complaints(&said);
        assert!(errors.is_empty(), "{errors:?}");
    }

    /// Waits for its end, and gives its figures or what it complained of.
    pub(crate) fn finish(mut self) -> Result<Vec<Figure>, String> {
        let status = wait_for("redis-benchmark to end", RUN, || self.ended());
        // Both are short enough for their pipes.
        let (out, err) = (text(self.0.stdout.as_mut()), text(self.0.stderr.as_mut()));
        let complaints = [complaints(&out), complaints(&err)].concat();
        if !status.success() || !complaints.is_empty() {
            return Err(format!("{status}: {}", complaints.join("; ")));
        }
        let figures: Vec<Figure> = out.lines().filter_map(figure).collect();
        if figures.len() == 2 {
            Ok(figures)
        } else {
            Err(format!("it did not do all of its work: {out}"))
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child of this process")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// `"SET","81234.00","0.3",...`: the test, requests a second, then the mean, least, p50, p95, p99 and longest latency.
/// The line of headings has no number.
fn figure(line: &str) -> Option<Figure> {
    let mut fields = line.split(',').map(|field| field.trim_matches('"'));
    let test = fields.next()?.to_owned();
    let per_second = fields.next()?.parse().ok()?;
    let longest_ms = fields.nth(5).and_then(|longest| longest.parse().ok());
    Some(Figure {
        test,
        per_second,
        longest_ms,
    })
}

fn complaints(said: &str) -> Vec<String> {
    let complains = |line: &&str| line.contains("rror");
    said.lines()
        .filter(complains)
        .map(ToOwned::to_owned)
        .collect()
}

fn text(from: Option<&mut impl Read>) -> String {
    let mut said = Vec::new();
    if let Some(from) = from {
        from.read_to_end(&mut said).expect("a pipe");
    }
    String::from_utf8_lossy(&said).into_owned()
}
