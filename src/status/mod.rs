//! `switchmaster status`: what a running proxy says of itself, in a terminal. Asks the admin endpoint and shows the answer.

pub(crate) mod fetch;
pub(crate) mod harmless;
pub(crate) mod text;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::admin::status::Status;
use crate::exit::Exit;
use crate::net::addr::ListenAddr;

/// Longest wait for an answer.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Text for people.
    #[default]
    Text,
    /// The JSON as the endpoint gives it.
    Json,
    /// Nothing but the exit code: does the control loop turn?
    ProbeLive,
    /// Nothing but the exit code: has every proxy a verified master?
    ProbeReady,
}

/// Asks the proxy whose admin endpoint is there, and prints; 0 also when clients wait, but for a probe.
pub fn run(endpoint: Option<&ListenAddr>, form: Form) -> Exit {
    let Some(endpoint) = endpoint else {
        complain("the admin endpoint is off (admin.listen), so there is nobody to ask");
        return Exit::Unreachable;
    };
    let path = match form {
        Form::Text | Form::Json => "/status",
        Form::ProbeLive => "/livez",
        Form::ProbeReady => "/readyz",
    };
    let answer = match fetch::get(endpoint, path, ANSWER_LIMIT) {
        Ok(answer) => answer,
        Err(why) => {
            complain(&format!(
                "no answer from {endpoint}: {why}. Does the proxy run, and with this admin.listen? Name it with --admin"
            ));
            return Exit::Unreachable;
        }
    };
    match form {
        Form::ProbeLive | Form::ProbeReady if answer.is_good() => Exit::Ok,
        Form::ProbeLive | Form::ProbeReady => {
            complain(&harmless::lines(&answer.text));
            Exit::Runtime
        }
        Form::Json if answer.is_good() => {
            print(&format!("{}\n", harmless::json(answer.text.trim_end())))
        }
        Form::Text if answer.is_good() => match harmless::read::<Status>(&answer.text) {
            Ok(status) => print(&text::render(&status, wants_colour())),
            Err(error) => {
                complain(&format!(
                    "what {endpoint} answered is no status ({error}): is that another program?"
                ));
                Exit::Runtime
            }
        },
        Form::Text | Form::Json => {
            complain(&format!(
                "{endpoint} answered {}: {}",
                answer.code,
                harmless::lines(&answer.text)
            ));
            Exit::Runtime
        }
    }
}

/// Somebody looks at it, on something that has colours.
fn wants_colour() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !is_dumb && allows_colour()
}

/// <https://no-color.org>
pub(crate) fn allows_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn print(text: &str) -> Exit {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Exit::Ok,
        // `| head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(_) => Exit::Runtime,
    }
}

pub(crate) fn complain(text: &str) {
    // Nobody is left to tell when the terminal is gone.
    writeln!(io::stderr(), "{text}").ok();
}
