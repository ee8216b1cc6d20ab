//! Arguments in, exit code out; see `switchmaster --help`.
//!
//! Exit codes: 0 ok, 1 runtime, 2 usage, 69 nothing reachable, 73 port taken, 75 sessions cut at the end,
//! 77 permission, 78 bad configuration.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use switchmaster::cli::{self, Command};
use switchmaster::config::{self, Flags};
use switchmaster::exit::Exit;
use switchmaster::{check, daemon, demo, status, telemetry, top};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Command::Run(flags)) => run(&flags),
        Ok(Command::ConfigShow(flags)) => config_show(&flags),
        Ok(Command::ConfigExample) => print(config::EXAMPLE.as_bytes()),
        Ok(Command::Status(flags, form)) => {
            match config::admin_endpoint(&flags, std::env::vars_os()) {
                Ok(endpoint) => status::run(endpoint.as_ref(), form).into(),
                Err(e) => fail(Exit::Config, &e),
            }
        }
        Ok(Command::Top(flags, options)) => {
            match config::admin_endpoint(&flags, std::env::vars_os()) {
                Ok(endpoint) => top::run(endpoint.as_ref(), options).into(),
                Err(e) => fail(Exit::Config, &e),
            }
        }
        Ok(Command::Check(flags, options)) => match config::load(&flags, std::env::vars_os()) {
            Ok(loaded) => check::run(&loaded, options).into(),
            Err(e) => fail(Exit::Config, &e),
        },
        Ok(Command::Demo(options)) => demo::run(&options).into(),
        Ok(Command::Man(directory)) => man(directory.as_deref()),
        Ok(Command::Completions(shell)) => print(&cli::completions(shell)),
        Ok(Command::Guarded {
            arg0,
            program,
            args,
        }) => fail(Exit::Runtime, &demo::guard::exec(&arg0, &program, &args)),
        Err(stop) => stop.print().into(),
    }
}

fn run(flags: &Flags) -> ExitCode {
    let loaded = match config::load(flags, std::env::vars_os()) {
        Ok(loaded) => loaded,
        Err(e) => return fail(Exit::Config, &e),
    };
    let log = match telemetry::init(&loaded.config.log) {
        Ok(guard) => guard,
        Err(e) => return fail(Exit::Runtime, &e),
    };
    for warning in &loaded.warnings {
        tracing::warn!(event = "config_warning", "{warning}");
    }
    match daemon::run(flags, loaded, log.handle()) {
        Ok(exit) => exit.into(),
        Err(e) => {
            // One event is one line; what to do stands on lines of its own.
            for line in e.to_string().lines() {
                tracing::error!(event = "failed", code = e.exit.code(), "{line}");
            }
            e.exit.into()
        }
    }
}

fn config_show(flags: &Flags) -> ExitCode {
    match config::load(flags, std::env::vars_os()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                tell(&format!("warning: {warning}\n"));
            }
            print(loaded.show().as_bytes())
        }
        Err(e) => fail(Exit::Config, &e),
    }
}

fn man(directory: Option<&Path>) -> ExitCode {
    let written = match directory {
        None => cli::man().map(|page| print(&page)),
        Some(directory) => cli::write_man(directory).map(|()| Exit::Ok.into()),
    };
    written.unwrap_or_else(|e| {
        fail(
            Exit::Runtime,
            &format_args!("cannot write the man page: {e}"),
        )
    })
}

fn print(text: &[u8]) -> ExitCode {
    match io::stdout().write_all(text) {
        Ok(()) => Exit::Ok.into(),
        // `| head` has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Exit::Ok.into(),
        Err(e) => fail(Exit::Runtime, &format_args!("cannot write to stdout: {e}")),
    }
}

fn fail(exit: Exit, error: &dyn std::fmt::Display) -> ExitCode {
    tell(&format!("{}\n", error.to_string().trim_end()));
    exit.into()
}

/// Unlike `eprintln!`, goes on when nobody listens any more.
fn tell(text: &str) {
    io::stderr().write_all(text.as_bytes()).ok();
}
