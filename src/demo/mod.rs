//! A local topology of real servers, the proxy in front, traffic through it.
//!
//! ```text
//!  load (writers) ──► proxy (a process of its own) ──► cluster (real servers)
//!                        │ its log                        ▲ MONITOR
//!                        ▼                                │
//!  screen ◄── story ◄── stage ──► verdict ◄───────── witness
//! ```
//!
//! The topology alone ([`cluster`]) also carries the tests. Nothing here runs inside the proxy, and nothing
//! touches a server that was not started here.

// --- the topology ----------------------------------------------------------------------------------
pub mod cluster;
mod cluster_config;
pub mod guard;
pub mod instance;
mod ports;
pub mod server;
mod settle;
pub mod wait;
pub mod wire;
// --- what runs against it --------------------------------------------------------------------------
mod load;
mod proxy;
mod witness;
// --- what is shown and judged ----------------------------------------------------------------------
mod error;
mod screen;
mod stage;
mod story;
mod verdict;

use std::path::PathBuf;

use error::{DemoError, FAILED};
use screen::Screen;
use stage::Stage;

/// What is done where nobody can press a key and nothing else was asked for.
const DEFAULT_SCRIPT: [Event; 2] = [Event::Planned, Event::Kill];

/// What the demo does to the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `SENTINEL FAILOVER`.
    Planned,
    /// SIGKILL to the master.
    Kill,
    /// SIGSTOP to the master; thawed after the failover, to show that it is not written to.
    Freeze,
}

/// What the operator asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Events to run one after the other without a terminal; `None` = interactive where there is a terminal.
    pub script: Option<Vec<Event>>,
    /// The server to start; `None` = look for one.
    pub server_bin: Option<PathBuf>,
    /// Port of the proxy on 127.0.0.1; `None` = 6379, or the next free one.
    pub port: Option<u16>,
}

/// Runs the demo to its end and returns the exit code: 0 when the writers came back in time and no old master
/// was written to after a switch, 1 when not, 69 without a server to start, 73 when the port is taken.
///
/// Catches SIGINT, SIGTERM and SIGHUP of the whole process.
pub fn run(options: &Options) -> u8 {
    let script = match &options.script {
        Some(script) => Some(script.clone()),
        None if screen::is_interactive() => None,
        None => Some(DEFAULT_SCRIPT.to_vec()),
    };
    match play(options, script.as_deref()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("switchmaster demo: {error}");
            error.exit_code()
        }
    }
}

fn play(options: &Options, script: Option<&[Event]>) -> Result<u8, DemoError> {
    screen::catch_signals().map_err(|source| DemoError::Io {
        what: "cannot catch signals",
        source,
    })?;
    let mut stage = Stage::set(options, Screen::new(script.is_none()))?;
    stage.introduce();
    match script {
        Some(events) => events.iter().try_for_each(|event| stage.perform(*event))?,
        // Quitting is how a person ends it.
        None => match stage.play() {
            Err(DemoError::Quit) if stage.is_performing() => {
                stage.say("ended in the middle of an event: there is nothing to judge");
                return Ok(0);
            }
            Err(DemoError::Quit) => {}
            outcome => outcome?,
        },
    }
    let evidence = stage.conclude()?;
    let rows = evidence.rows();
    let findings = evidence.findings(&rows);
    stage.say(&format!("\n{}", verdict::table(&rows)));
    for finding in &findings {
        stage.say(&format!("failed: {finding}"));
    }
    if findings.is_empty() && !evidence.episodes.is_empty() {
        stage.say("all writers came back in time, and no old master was written to after a switch");
    }
    Ok(if findings.is_empty() { 0 } else { FAILED })
}
