//! The command line. The only file that knows clap; it decides nothing about the values.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
pub use clap_complete::Shell;

use crate::check;
use crate::config::Flags;
use crate::demo;
use crate::status::Form;
use crate::top;

/// Widest help text, in columns.
const MAX_HELP_WIDTH: usize = 100;

/// What a report of a fault should say.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("SWITCHMASTER_COMMIT"),
    ", ",
    env!("SWITCHMASTER_TARGET"),
    ")"
);

/// What the man page says of the program beside its arguments.
const MAN_SECTIONS: &str = include_str!("man.roff");

const EXAMPLES: &str = "\
Example: three Sentinels, applications keep using localhost:6379
  switchmaster --sentinel 10.0.0.3,10.0.0.4,10.0.0.5 --master mymaster

Several addresses for clients: repeat --listen. A unix socket:
  --listen unix:/run/switchmaster/redis.sock
Passwords are never flags (anybody here can read a command line): see password_file in
`switchmaster config example`; one in a URL is read from SWITCHMASTER_URL, not from --url.
Every key of the file has a variable: SWITCHMASTER_FAILOVER_HOLD_MAX is hold_max in [failover].
A flag counts more than the environment, that more than the file, that more than the default.

SIGTERM or SIGINT ends it in order within limits.shutdown_grace (10s), a second one at once.
Exit codes: 0 ended in order, 1 failed while running, 2 usage, 73 port taken, 75 ended but had to
cut sessions, 77 permission, 78 the configuration is not valid";

const STATUS_EXAMPLES: &str = "\
Exit codes: 0 it answered (with --probe: it is live or ready), 1 it is not, 69 nobody answers
  switchmaster status --probe ready";

const TOP_EXAMPLES: &str = "\
Keys: q quits, ? lists all others. It asks and shows; nothing about the proxy is changed.
Exit codes: 0 quit, 2 no terminal (use `switchmaster status`), 69 the endpoint is off";

const CHECK_EXAMPLES: &str = "\
Exit codes: 0 no FAIL, 1 a FAIL, 69 --live and no Sentinel answers, 78 the configuration is not valid
  switchmaster check --live --config /etc/switchmaster/config.toml";

const DEMO_EXAMPLES: &str = "\
Example: two events one after the other, then a table; exits with 0 when all went well
  switchmaster demo --script planned,kill";

/// What to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Serve.
    Run(Flags),
    /// Print the effective configuration.
    ConfigShow(Flags),
    /// Print the example file.
    ConfigExample,
    /// Show a running proxy.
    Status(Flags, Form),
    /// Show a running proxy, live.
    Top(Flags, top::Options),
    /// Look for faults.
    Check(Flags, check::Options),
    /// Run the demo.
    Demo(demo::Options),
    /// Print the man page, or write one for each command into this directory.
    Man(Option<PathBuf>),
    /// Print what completes arguments in this shell.
    Completions(Shell),
    /// Become another program that dies with its parent; the demo starts its servers so.
    Guarded {
        /// The name the program sees as its own.
        arg0: OsString,
        /// The program.
        program: OsString,
        /// Its arguments.
        args: Vec<OsString>,
    },
}

/// What is printed instead of doing anything: help, version, or what is wrong with the arguments.
#[derive(Debug)]
pub struct Stop(Box<clap::Error>);

impl Stop {
    /// Prints to where it belongs; returns the exit code, 0 for help and 2 for a mistake.
    pub fn print(&self) -> u8 {
        // Nobody is left to tell when the terminal is gone.
        self.0.print().ok();
        u8::try_from(self.0.exit_code()).unwrap_or(1)
    }
}

/// Reads the arguments, the program's name first.
///
/// # Errors
/// When there is nothing to do but to print something.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Stop> {
    let mut arguments = arguments.into_iter().peekable();
    let name = arguments.next();
    if arguments
        .next_if(|first| first == demo::guard::SUBCOMMAND)
        .is_some()
    {
        return guarded(arguments);
    }
    let matches = command()
        .try_get_matches_from(name.into_iter().chain(arguments))
        .map_err(|e| Stop(Box::new(e)))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|e| Stop(Box::new(e)))?;
    cli.into_command()
}

/// Not in the definition: nobody is to see it offered.
fn guarded(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, Stop> {
    let (Some(arg0), Some(program)) = (arguments.next(), arguments.next()) else {
        let name = demo::guard::SUBCOMMAND;
        let message = format!("`{name}` takes a name, a program and its arguments");
        let error = command().error(clap::error::ErrorKind::MissingRequiredArgument, message);
        return Err(Stop(Box::new(error)));
    };
    Ok(Command::Guarded {
        arg0,
        program,
        args: arguments.collect(),
    })
}

fn command() -> clap::Command {
    Cli::command().max_term_width(MAX_HELP_WIDTH)
}

/// The man page of the program as a whole (man(7)).
///
/// # Errors
/// None where there is memory.
pub fn man() -> io::Result<Vec<u8>> {
    let page = clap_mangen::Man::new(command()).manual("User Commands");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    page.render_subcommands_section(&mut text)?;
    text.extend_from_slice(MAN_SECTIONS.as_bytes());
    Ok(text)
}

/// That page and one for each command, as files of this directory.
///
/// # Errors
/// When they cannot be written.
pub fn write_man(directory: &Path) -> io::Result<()> {
    clap_mangen::generate_to(command(), directory)?;
    fs::write(directory.join("switchmaster.1"), man()?)
}

/// What a shell completes arguments by.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    let mut command = command();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// A fixed local port that always leads to the current Redis/Valkey master
#[derive(Parser)]
#[command(name = "switchmaster", version, long_version = LONG_VERSION, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Subcommand)]
enum Sub {
    /// Serve (the default command)
    #[command(after_help = EXAMPLES)]
    Run(Options),
    /// Validate the configuration and this host; --live asks Sentinels and nodes, too
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckOptions),
    /// Show a running proxy: its master, what each Sentinel believes, its last failovers
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusOptions),
    /// The same live, full-screen, with throughput, failovers as bars, and the log
    #[command(after_help = TOP_EXAMPLES)]
    Top(TopOptions),
    /// Start a master, replicas, Sentinels and the proxy here, with traffic, and fail over
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(Demo),
    /// Show the effective configuration, or an example file
    #[command(subcommand, disable_help_subcommand = true)]
    Config(ConfigSub),
    /// Print the man page
    Man {
        /// Write a page for each command into this directory instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print what completes arguments in a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        #[arg(value_name = "SHELL", hide_possible_values = true)]
        shell: Shell,
    },
}

#[derive(Subcommand)]
enum ConfigSub {
    /// Print the effective values and where each came from
    Show(Options),
    /// Print a file with every key, what it means and its default
    Example,
}

#[derive(Args, Clone, Default)]
struct Options {
    /// File [env: SWITCHMASTER_CONFIG] [default: /etc/switchmaster/config.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    // Not a doc comment: rustdoc reads brackets as links.
    #[arg(
        long,
        value_name = "HOSTS",
        value_delimiter = ',',
        help = "Sentinels: HOST[:26379],... [env: SWITCHMASTER_SENTINEL]"
    )]
    sentinel: Vec<String>,
    /// Sentinels and name in one: redis+sentinel://HOST,HOST/NAME [env: SWITCHMASTER_URL]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Its name at Sentinel [env: SWITCHMASTER_MASTER] [default: mymaster]
    #[arg(long, value_name = "NAME")]
    master: Option<String>,
    /// Address for clients [env: SWITCHMASTER_LISTEN] [default: 127.0.0.1:6379]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Status page, metrics; or off [env: SWITCHMASTER_ADMIN_LISTEN] [default: 127.0.0.1:8479]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Log level or filter [env: SWITCHMASTER_LOG_LEVEL] [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// auto, text or json [env: SWITCHMASTER_LOG_FORMAT] [default: auto]
    #[arg(long, value_name = "FORM", value_parser = ["auto", "text", "json"], hide_possible_values = true)]
    log_format: Option<String>,
}

#[derive(Args)]
struct CheckOptions {
    #[command(flatten)]
    options: Options,
    /// Ask the Sentinels, the master and the replicas, too
    #[arg(long)]
    live: bool,
    /// Every finding, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct StatusOptions {
    /// File [env: SWITCHMASTER_CONFIG] [default: /etc/switchmaster/config.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its admin endpoint [env: SWITCHMASTER_ADMIN_LISTEN] [default: 127.0.0.1:8479]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// All of it, as JSON
    #[arg(long)]
    json: bool,
    /// Print nothing; the exit code tells whether it is live or ready
    #[arg(long, value_name = "WHAT", value_parser = ["live", "ready"], conflicts_with = "json")]
    probe: Option<String>,
}

impl StatusOptions {
    fn form(&self) -> Form {
        match self.probe.as_deref() {
            Some("live") => Form::ProbeLive,
            Some(_) => Form::ProbeReady,
            None if self.json => Form::Json,
            None => Form::Text,
        }
    }
}

#[derive(Args)]
struct TopOptions {
    /// File [env: SWITCHMASTER_CONFIG] [default: /etc/switchmaster/config.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its admin endpoint [env: SWITCHMASTER_ADMIN_LISTEN] [default: 127.0.0.1:8479]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// How often it is asked, 100ms to 1h; + and - change it
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = top::interval)]
    interval: Duration,
    /// No colours, as with the variable NO_COLOR
    #[arg(long, alias = "no-colour")]
    no_color: bool,
}

#[derive(Args)]
struct Demo {
    /// Events to run: planned, kill, freeze [default: ask for keys]
    #[arg(long, value_name = "EVENT,...", value_delimiter = ',', value_parser = event)]
    script: Option<Vec<demo::Event>>,
    /// Server to start [env: SWITCHMASTER_SERVER_BIN] [default: from PATH]
    #[arg(long, value_name = "PATH")]
    server_bin: Option<PathBuf>,
    /// Port of the proxy on 127.0.0.1 [default: 6379, or the next free one]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

impl Cli {
    fn into_command(self) -> Result<Command, Stop> {
        let before = self.options;
        Ok(match self.command {
            None => Command::Run(before.into()),
            Some(Sub::Run(options)) => Command::Run(options.over(before).into()),
            Some(Sub::Config(ConfigSub::Show(options))) => {
                Command::ConfigShow(options.over(before).into())
            }
            Some(Sub::Config(ConfigSub::Example)) => {
                before.expect_none("config example")?;
                Command::ConfigExample
            }
            Some(Sub::Check(CheckOptions {
                options,
                live,
                json,
            })) => Command::Check(options.over(before).into(), check::Options { live, json }),
            Some(Sub::Status(options)) => {
                before.expect_none("status")?;
                let form = options.form();
                let flags = Flags {
                    config: options.config,
                    admin: options.admin,
                    ..Flags::default()
                };
                Command::Status(flags, form)
            }
            Some(Sub::Top(options)) => {
                before.expect_none("top")?;
                let flags = Flags {
                    config: options.config,
                    admin: options.admin,
                    ..Flags::default()
                };
                let options = top::Options {
                    every: options.interval,
                    colour: !options.no_color,
                };
                Command::Top(flags, options)
            }
            Some(Sub::Demo(options)) => {
                before.expect_none("demo")?;
                Command::Demo(demo::Options {
                    script: options.script,
                    server_bin: options.server_bin,
                    port: options.port,
                })
            }
            Some(Sub::Man { dir }) => {
                before.expect_none("man")?;
                Command::Man(dir)
            }
            Some(Sub::Completions { shell }) => {
                before.expect_none("completions")?;
                Command::Completions(shell)
            }
        })
    }
}

impl Options {
    /// Options stand before or after the command; those after it count more.
    fn over(self, before: Self) -> Self {
        let fuller = |after: Vec<String>, before| if after.is_empty() { before } else { after };
        Self {
            config: self.config.or(before.config),
            sentinel: fuller(self.sentinel, before.sentinel),
            url: self.url.or(before.url),
            master: self.master.or(before.master),
            listen: fuller(self.listen, before.listen),
            admin: self.admin.or(before.admin),
            log: self.log.or(before.log),
            log_format: self.log_format.or(before.log_format),
        }
    }

    /// Refuses options that the command would ignore.
    fn expect_none(self, command_name: &str) -> Result<(), Stop> {
        if Flags::from(self) == Flags::default() {
            return Ok(());
        }
        let message = format!(
            "`{command_name}` takes no serving options such as --config or --sentinel before it"
        );
        Err(Stop(Box::new(
            command().error(clap::error::ErrorKind::ArgumentConflict, message),
        )))
    }
}

impl From<Options> for Flags {
    fn from(options: Options) -> Self {
        Self {
            config: options.config,
            sentinel: options.sentinel,
            url: options.url,
            master: options.master,
            listen: options.listen,
            admin: options.admin,
            log: options.log,
            log_format: options.log_format,
        }
    }
}

fn event(name: &str) -> Result<demo::Event, String> {
    match name {
        "planned" => Ok(demo::Event::Planned),
        "kill" => Ok(demo::Event::Kill),
        "freeze" => Ok(demo::Event::Freeze),
        _ => Err("events are planned, kill and freeze".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn parsed(arguments: &[&str]) -> Result<Command, Stop> {
        let name = ["switchmaster"].iter();
        parse(name.chain(arguments).map(OsString::from))
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn the_man_page_names_every_exit_status() {
        let status = MAN_SECTIONS.split(".SH").find(|s| s.starts_with(" EXIT"));
        let listed = status
            .expect("a section")
            .lines()
            .filter_map(|l| l.parse::<u8>().ok());
        assert!(listed.eq(Exit::ALL.map(Exit::code)));
    }

    #[test]
    fn serving_is_the_default_command() {
        for arguments in [&["--sentinel", "a,b"][..], &["run", "--sentinel", "a,b"]] {
            let Ok(Command::Run(flags)) = parsed(arguments) else {
                panic!("{arguments:?}");
            };
            assert_eq!(flags.sentinel, ["a", "b"]);
        }
    }

    #[test]
    fn a_guarded_program_keeps_its_own_options() {
        let arguments = [
            "__guarded",
            "redis-sentinel",
            "/bin/rdb",
            "a.conf",
            "--help",
            "--port",
            "1",
            "--",
            "-V",
        ];
        let Ok(Command::Guarded {
            arg0,
            program,
            args,
        }) = parsed(&arguments)
        else {
            panic!("{arguments:?}");
        };
        assert_eq!(
            (arg0, program),
            ("redis-sentinel".into(), "/bin/rdb".into())
        );
        assert_eq!(args, arguments[3..]);
    }

    #[test]
    fn the_demo_reads_its_script() {
        let Ok(Command::Demo(options)) =
            parsed(&["demo", "--script", "planned,kill", "--port", "7000"])
        else {
            panic!("the demo");
        };
        assert_eq!(
            options.script,
            Some(vec![demo::Event::Planned, demo::Event::Kill])
        );
        assert_eq!(options.port, Some(7000));
    }
}
