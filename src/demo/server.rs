//! Finds a Redis or Valkey server on this machine. Never downloads or installs one.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::wait::wait_until;
use crate::net::clock::now;

/// Names the program, for the demo and for every test, where no argument does.
pub const SERVER_VARIABLE: &str = "SWITCHMASTER_SERVER_BIN";

/// Programs that are looked for in `PATH`, best first. The last two are the server under another name: it
/// looks at `argv[0]` to know what it is, and Debian's `redis-tools` carries nothing else of it.
const NAMES: [&str; 4] = [
    "valkey-server",
    "redis-server",
    "redis-check-rdb",
    "valkey-check-rdb",
];

/// How long a program may take to tell its version, and how many bytes of it are read.
const VERSION_LIMIT: Duration = Duration::from_secs(5);
const VERSION_MAX: u64 = 4096;

/// A program that becomes a data node or a Sentinel by the name it is started under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    program: PathBuf,
    family: Family,
    version: Version,
}

/// Who makes a server; each counts versions on its own since 7.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `Redis server v=`
    Redis,
    /// `Valkey server v=`
    Valkey,
}

/// A server's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 7 of 7.0.15.
    pub major: u32,
    /// 0 of 7.0.15.
    pub minor: u32,
    /// 15 of 7.0.15.
    pub patch: u32,
}

/// No usable server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerNotFound {
    /// Nothing in `PATH`.
    #[error(
        "no Redis or Valkey server in PATH: install one with `apt-get install redis-tools` (it starts no \
         service), or name one with --server-bin"
    )]
    InPath,
    /// The program that the environment names does not tell a version. Nothing else is taken in its place:
    /// whoever asks for a version must not be shown another.
    #[error("{SERVER_VARIABLE}={} is not a Redis or Valkey server that can be started here", .0.display())]
    InEnvironment(PathBuf),
    /// The program that was named does not tell a version.
    #[error(
        "{} is not a Redis or Valkey server that can be started here: install one with \
         `apt-get install redis-tools`, or name another with --server-bin", .0.display()
    )]
    Named(PathBuf),
}

impl Server {
    /// The program at `explicit`, or else at `SWITCHMASTER_SERVER_BIN`, or else the first of `valkey-server`,
    /// `redis-server`, `redis-check-rdb` and `valkey-check-rdb` in `PATH` that tells a server's version.
    ///
    /// # Errors
    /// [`ServerNotFound`], which says how to install one.
    pub fn find(explicit: Option<&Path>) -> Result<Self, ServerNotFound> {
        if let Some(program) = explicit {
            return Self::at(program).ok_or_else(|| ServerNotFound::Named(program.to_owned()));
        }
        // An empty variable counts as not set, as everywhere.
        if let Some(named) = env::var_os(SERVER_VARIABLE).filter(|named| !named.is_empty()) {
            let program = PathBuf::from(named);
            return Self::at(&program).ok_or(ServerNotFound::InEnvironment(program));
        }
        let path = env::var_os("PATH").unwrap_or_default();
        NAMES
            .iter()
            .flat_map(|name| env::split_paths(&path).map(move |folder| folder.join(name)))
            .filter(|program| is_executable(program))
            .find_map(|program| Self::at(&program))
            .ok_or(ServerNotFound::InPath)
    }

    /// The program to execute.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Who it told to be made by.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The version it told.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The name that makes it a data node.
    pub fn node_arg0(&self) -> OsString {
        arg0(&self.program, "server")
    }

    /// The name that makes it a Sentinel.
    pub fn sentinel_arg0(&self) -> OsString {
        arg0(&self.program, "sentinel")
    }

    fn at(program: &Path) -> Option<Self> {
        let (family, version) = version_in(&told_version(program, arg0(program, "server"))?)?;
        Some(Self {
            program: program.to_owned(),
            family,
            version,
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version {
            major,
            minor,
            patch,
        } = self.version;
        let (family, program) = (self.family, self.program.display());
        write!(f, "{family:?} {major}.{minor}.{patch} ({program})")
    }
}

/// The name that makes this program a server or a Sentinel; it goes by its file's name.
fn arg0(program: &Path, role: &str) -> OsString {
    let file = program.file_name().unwrap_or_else(|| OsStr::new("redis"));
    let family = if file.to_string_lossy().starts_with("valkey") {
        "valkey"
    } else {
        "redis"
    };
    format!("{family}-{role}").into()
}

/// What a program prints when asked for its version; `None` when it does not end soon.
fn told_version(program: &Path, arg0: OsString) -> Option<String> {
    let mut child = Command::new(program)
        .arg0(arg0)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let ended = wait_until(now() + VERSION_LIMIT, "a version", || {
        match child.try_wait() {
            Ok(None) => Err("it still runs".into()),
            _ => Ok(()),
        }
    });
    let _ = child.kill();
    let _ = child.wait();
    ended.ok()?;
    let mut told = Vec::new();
    let stdout = child.stdout.take()?;
    stdout.take(VERSION_MAX).read_to_end(&mut told).ok()?;
    Some(String::from_utf8_lossy(&told).into_owned())
}

fn is_executable(program: &Path) -> bool {
    program
        .metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// `Redis server v=7.0.15 sha=...`, `Valkey server v=8.1.0 sha=...`
fn version_in(told: &str) -> Option<(Family, Version)> {
    let (maker, digits) = told.split_once(" server v=")?;
    // Warnings may stand before it.
    let family = match maker.split_whitespace().next_back()? {
        "Redis" => Family::Redis,
        "Valkey" => Family::Valkey,
        _ => return None,
    };
    let mut parts = digits
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().ok());
    Some((
        family,
        Version {
            major: parts.next()??,
            minor: parts.next()??,
            patch: parts.next()??,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        let v = |family, major, minor, patch| {
            Some((
                family,
                Version {
                    major,
                    minor,
                    patch,
                },
            ))
        };
        assert_eq!(
            version_in("Redis server v=7.0.15 sha=00000000:0 bits=64"),
            v(Family::Redis, 7, 0, 15)
        );
        assert_eq!(
            version_in("Valkey server v=9.1.0-rc1 sha=1"),
            v(Family::Valkey, 9, 1, 0)
        );
        assert_eq!(version_in("Other server v=1.0.0"), None);
        assert_eq!(version_in("usage: true [ignored]"), None);
    }

    #[test]
    fn another_program_is_refused_with_a_way_out() {
        let error = Server::find(Some(Path::new("/bin/true"))).expect_err("not a server");
        let text = error.to_string();
        assert!(text.contains("/bin/true") && text.contains("apt-get install redis-tools"));
        assert!(!text.contains('\n'));
    }
}
