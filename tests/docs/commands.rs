//! The commands that the docs give: what can be run on one machine is run in front of a local topology, with its addresses in the place
//! of those on the page. A line that ends in `(other hosts)` is not, nor is a script that has a test of its own.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::blocks::{Block, marked, pages};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{FAILOVER, FOLLOW, Topology};

/// What is behind `test:` of the blocks that are used here.
pub(crate) const NAMES: &[&str] = &["shell"];
const PROGRAM: &str = env!("CARGO_BIN_EXE_switchmaster");
/// Behind a command that needs what one machine has not.
const ELSEWHERE: &str = "(other hosts)";
/// In a comment, before a command that somebody else gives at that moment.
const BY_OTHERS: &str = "then, elsewhere: ";
/// Scripts, and the tests that run them.
const OWN_TESTS: &[(&str, &str)] = &[("scripts/package", "tests/package.rs")];
/// The Sentinels of the pages.
const SENTINELS: &str = "10.0.0.3,10.0.0.4,10.0.0.5";

/// A shell in front of a topology.
struct Shell {
    servers: Topology,
    proxy: Option<Proxy>,
    folder: tempfile::TempDir,
}

impl Shell {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            servers: Topology::start(),
            proxy: None,
            folder,
        }
    }

    fn sentinels(&self) -> String {
        let named: Vec<String> = self
            .servers
            .sentinels()
            .iter()
            .map(ToString::to_string)
            .collect();
        named.join(",")
    }

    fn admin(&self) -> String {
        format!("unix:{}/admin.sock", self.folder.path().display())
    }

    /// The proxy of the page: started by its own line, or by the unit.
    fn proxy(&mut self, line: &str) -> SocketAddr {
        if self.proxy.is_none() {
            let line = line.replace(SENTINELS, &self.sentinels());
            let plan = Plan::bare(line.split_whitespace().skip(1))
                .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
                .env("SWITCHMASTER_FAILOVER_ON_SWITCH", "move")
                .env("SWITCHMASTER_ADMIN_LISTEN", self.admin());
            self.proxy = Some(Proxy::ready(plan));
        }
        self.proxy.as_ref().expect("started above").addr()
    }

    /// Runs a line and gives what it prints.
    fn run(&mut self, line: &str) -> String {
        if line.starts_with("switchmaster --sentinel") {
            self.proxy(line);
            return String::new();
        }
        let port = self.proxy(&format!(
            "switchmaster --sentinel {SENTINELS} --master mymaster"
        ));
        let sentinel = self.servers.sentinels()[0];
        let asked = format!("-h {} -p {}", sentinel.ip(), sentinel.port());
        let words = line
            .replace("-h 10.0.0.3 -p 26379", &asked)
            .replace("-p 6379", &format!("-p {}", port.port()));
        assert!(!words.contains("10.0.0."), "{line}: whose address is that?");
        let mut words = words.split_whitespace();
        let program = match words.next().expect("a program") {
            "switchmaster" => PROGRAM,
            "redis-cli" => "redis-cli",
            other => panic!("{line}: nothing here runs {other}"),
        };
        // The doctor looks at what a proxy is going to listen on; the one that runs has the socket.
        let admin = if line.contains(" check ") {
            "off".to_owned()
        } else {
            self.admin()
        };
        let mark = self.proxy.as_ref().map(Proxy::mark).expect("it runs");
        let output = Command::new(program)
            .args(words)
            .env("SWITCHMASTER_SENTINEL", self.sentinels())
            .env("SWITCHMASTER_MASTER", "mymaster")
            .env("SWITCHMASTER_LISTEN", "127.0.0.1:0")
            .env("SWITCHMASTER_ADMIN_LISTEN", admin)
            .output()
            .expect("it starts");
        let said = String::from_utf8(output.stdout).expect("text");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}{told}");
        // redis-cli says an error like any other answer.
        assert!(
            !said.starts_with("ERR") && !said.starts_with("NO"),
            "{line}: {said}"
        );
        if line.contains("sentinel failover") {
            let proxy = self.proxy.as_ref().expect("it runs");
            proxy.event_after(mark, "switched", FAILOVER + FOLLOW);
        }
        said
    }
}

/// The lines that are to be run, in order.
fn lines(block: &Block) -> Vec<String> {
    let mut found = Vec::new();
    for line in block.text.lines() {
        let line = line.strip_prefix("$ ").unwrap_or(line);
        let (command, comment) = line.split_once(" # ").unwrap_or((line, ""));
        let command = command.trim();
        if comment.ends_with(ELSEWHERE) || command.is_empty() {
            continue;
        }
        if let Some((_, test)) = OWN_TESTS.iter().find(|(script, _)| *script == command) {
            let text = fs::read_to_string(test).expect("the test");
            assert!(text.contains(command), "{test} says nothing of {command}");
            continue;
        }
        found.push(command.to_owned());
        found.extend(comment.strip_prefix(BY_OTHERS).map(str::to_owned));
    }
    found
}

#[test]
fn the_commands_of_the_pages_work() {
    let mut ran = 0;
    for block in marked("test", "shell") {
        let lines = lines(&block);
        if lines.is_empty() {
            continue;
        }
        let mut shell = Shell::start();
        for line in lines {
            let said = shell.run(&line);
            println!("{}: {line}\n{said}", block.place);
            ran += 1;
            if line.ends_with("get k") {
                assert_eq!(said.trim(), "v", "the same address, a new master");
            }
            if line.ends_with("ckquorum mymaster") {
                assert!(said.starts_with("OK"), "{said}");
            }
        }
    }
    assert!(ran >= 9, "the marks are gone: {ran} commands");
}

/// What stands between backticks in a page, but for blocks.
fn spans(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).expect("a page");
    let outside = text.split("```").step_by(2);
    let spans = outside.flat_map(|text| text.split('`').skip(1).step_by(2));
    spans
        .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// The name behind `--bench` or `--test`.
fn behind<'a>(span: &'a str, flag: &str) -> Option<&'a str> {
    span.split_once(flag)?.1.split_whitespace().next()
}

#[test]
fn what_the_text_calls_exists() {
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for (page, span) in pages()
        .iter()
        .flat_map(|page| spans(page).into_iter().map(move |span| (page, span)))
    {
        let exists = if let Some(rest) = span.strip_prefix("switchmaster ") {
            // What may be left out, alternatives, and what stands for something.
            let rest = rest.replace(['[', ']'], "").replace("\\|", "|");
            let words: Vec<_> = rest.split_whitespace().collect();
            let stands = |word: &str| word.bytes().any(|b| b.is_ascii_uppercase());
            let named = words.iter().enumerate().filter(|(at, word)| {
                let next = words.get(at + 1).is_some_and(|next| stands(next));
                !(stands(word) || (word.starts_with("--") && next))
            });
            let words = named
                .map(|(_, word)| *word)
                .map(|word| word.split('|').next().unwrap_or(word).to_owned());
            let output = Command::new(PROGRAM).args(words).arg("--help").output();
            output.expect("the program runs").status.success()
        } else if span.starts_with("scripts/") {
            let script = span.split_whitespace().next().expect("a name");
            fs::metadata(script).is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
        } else if span.starts_with("cargo ") && !span.contains('+') {
            let at = |folder: &str, name: &str| {
                let [file, room] = [
                    format!("{folder}/{name}.rs"),
                    format!("{folder}/{name}/main.rs"),
                ];
                Path::new(&file).exists() || Path::new(&room).exists()
            };
            behind(&span, "--bench ").is_none_or(|name| at("benches", name))
                && behind(&span, "--test ").is_none_or(|name| at("tests", name))
        } else {
            continue;
        };
        if !exists {
            wrong.push(format!("{}: `{span}`", page.display()));
        }
        seen.insert(span);
    }
    assert!(seen.len() > 20, "the pages have another form now: {seen:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
