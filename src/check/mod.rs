//! `switchmaster check`, the doctor: looks at the configuration, at this host and, with `--live`, at Sentinels, master and
//! replicas, and changes nothing.
//!
//! ```text
//! host, ask (I/O) --facts--> local, sentinels, nodes (pure) --findings--> render (pure): text or JSON
//! ```
//! Every finding is data: a stable code, a level, a subject, a sentence, a hint that can be pasted. All deadlines
//! together are about five seconds.

mod ask;
mod facts;
mod finding;
mod host;
mod local;
#[cfg(test)]
mod login_tests;
mod nodes;
mod render;
mod sentinels;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;

use std::io::{self, Write};

pub use self::finding::{Code, Finding, Level};
use self::sentinels::Setting;
use crate::config::Loaded;
use crate::exit::Exit;
use crate::sentinel::client::ClientError;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Ask the peers, too.
    pub live: bool,
    /// JSON instead of text.
    pub json: bool,
}

/// Looks, prints, and says how it was: 0 no fault, 1 a fault, 69 nothing could be reached.
pub fn run(loaded: &Loaded, options: Options) -> Exit {
    let mut findings = local::judge(&host::look(loaded));
    let mut reached = true;
    if options.live {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(e) => {
                // Nobody is left to tell when the terminal is gone.
                writeln!(io::stderr(), "cannot start to ask: {e}").ok();
                return Exit::Runtime;
            }
        };
        let answers = runtime.block_on(ask::ask(loaded));
        // A name that is being looked up holds a thread that cannot be ended; nobody waits for it.
        runtime.shutdown_background();
        reached = answers.sentinels.iter().any(|s| is_there(&s.told));
        findings.extend(judge(loaded, &answers));
    }
    finding::sort(&mut findings);
    let page = if options.json {
        render::json(&findings)
    } else {
        render::text(&findings)
    };
    if let Err(e) = io::stdout().write_all(page.as_bytes())
        // `| head` has seen enough.
        && e.kind() != io::ErrorKind::BrokenPipe
    {
        return Exit::Runtime;
    }
    match render::worst(&findings) {
        _ if !reached => Exit::Unreachable,
        Level::Fail => Exit::Runtime,
        Level::Warn | Level::Ok => Exit::Ok,
    }
}

fn judge(loaded: &Loaded, answers: &ask::Answers) -> Vec<Finding> {
    let config = &loaded.config;
    let (settings, map) = (&config.sentinel, &config.sentinel.address_map);
    let setting = Setting {
        user: settings.credentials.username.as_deref(),
        has_login: settings.credentials.password.is_some(),
        tls: settings.tls.as_ref(),
        discover: settings.discover,
        map,
        masters: &answers.masters,
        own: &answers.own,
    };
    let mut findings = sentinels::judge(&answers.sentinels, &setting);
    for (nodes, proxy) in answers.nodes.iter().zip(&config.proxies) {
        let index = answers.masters.iter().position(|m| *m == proxy.master);
        let index = index.unwrap_or_default();
        findings.extend(nodes::judge(nodes, &answers.sentinels, index, map));
    }
    findings
}

/// Something answers there, whatever.
fn is_there<T>(told: &Result<T, ClientError>) -> bool {
    !matches!(
        told,
        Err(ClientError::Resolve(_) | ClientError::Io(_) | ClientError::Timeout { .. })
    )
}
