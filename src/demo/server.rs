//! Finds a Redis or Valkey server on this machine. Never downloads or installs one.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::wait::wait_until;
use crate::net::clock::now;

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
    version: Version,
}

/// A server's version; only what decides which directives it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 7 of 7.0.15.
    pub major: u32,
    /// 0 of 7.0.15.
    pub minor: u32,
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
    /// The program that was named does not tell a version.
    #[error(
        "{} is not a Redis or Valkey server that can be started here: install one with \
         `apt-get install redis-tools`, or name another with --server-bin", .0.display()
    )]
    Named(PathBuf),
}

impl Server {
    /// The program at `explicit`, or else the first of `valkey-server`, `redis-server`, `redis-check-rdb` and
    /// `valkey-check-rdb` in `PATH` that tells a server's version.
    ///
    /// # Errors
    /// [`ServerNotFound`], which says how to install one.
    pub fn find(explicit: Option<&Path>) -> Result<Self, ServerNotFound> {
        if let Some(program) = explicit {
            return Self::at(program).ok_or_else(|| ServerNotFound::Named(program.to_owned()));
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

    /// The version it told.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The name that makes it a data node.
    pub fn node_arg0(&self) -> OsString {
        self.named("server")
    }

    /// The name that makes it a Sentinel.
    pub fn sentinel_arg0(&self) -> OsString {
        self.named("sentinel")
    }

    fn at(program: &Path) -> Option<Self> {
        let mut server = Self {
            program: program.to_owned(),
            version: Version { major: 0, minor: 0 },
        };
        server.version = version_in(&told_version(program, server.node_arg0())?)?;
        Some(server)
    }

    fn named(&self, role: &str) -> OsString {
        let file = self
            .program
            .file_name()
            .unwrap_or_else(|| OsStr::new("redis"));
        let family = if file.to_string_lossy().starts_with("valkey") {
            "valkey"
        } else {
            "redis"
        };
        format!("{family}-{role}").into()
    }
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
fn version_in(told: &str) -> Option<Version> {
    let digits = told.split_once("server v=")?.1;
    let mut parts = digits.split(|c: char| !c.is_ascii_digit());
    Some(Version {
        major: parts.next()?.parse().ok()?,
        minor: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        let v = |major, minor| Some(Version { major, minor });
        assert_eq!(
            version_in("Redis server v=7.0.15 sha=00000000:0 bits=64"),
            v(7, 0)
        );
        assert_eq!(version_in("Valkey server v=9.1.0-rc1 sha=1"), v(9, 1));
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
