//! What the docs tell operators to write into files: real servers and the proxy start with it and do what it says.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use switchmaster::demo::wire::{Conn, Value};

use crate::blocks::marked;
use crate::harness::stream::{SOON, free_address};
use crate::harness::{self, wait_for};

/// What is behind `test:` of the blocks that are used here.
pub(crate) const NAMES: &[&str] = &["redis.conf", "sentinel.conf", "config.toml"];

fn blocks(name: &str) -> Vec<String> {
    let found = marked("test", name).into_iter();
    found.map(|block| block.text).collect()
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A server with this configuration on an address of this host instead of the one that it binds.
fn start(sentinel: bool, config: &str, folder: &Path) -> (Server, Conn) {
    let server = harness::server();
    let at = free_address();
    let file = folder.join(format!("{}.conf", at.port()));
    fs::write(&file, config).expect("written");
    let name = if sentinel {
        server.sentinel_arg0()
    } else {
        server.node_arg0()
    };
    let child = Command::new(server.program())
        .arg0(name)
        .arg(&file)
        .args([
            "--bind",
            "127.0.0.1",
            "--port",
            &at.port().to_string(),
            "--dir",
        ])
        .arg(folder)
        .stdout(Stdio::null())
        .spawn()
        .expect("the server starts");
    let server = Server(child);
    let conn = wait_for("the server", SOON, || connected(at));
    (server, conn)
}

fn connected(at: SocketAddr) -> Option<Conn> {
    Conn::connect(at, SOON).ok()
}

/// The texts of an answer, one behind the other.
fn words(conn: &mut Conn, question: &[&str]) -> String {
    let answer = conn.call(question).expect("an answer");
    let words: Vec<String> = answer.items().iter().filter_map(Value::text).collect();
    words.join(" ")
}

/// Every directive of the block has the value that it gives.
fn holds(conn: &mut Conn, block: &str) {
    for line in block.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once(' ').expect("a name and a value");
        if name == "bind" {
            continue;
        }
        let said = words(conn, &["CONFIG", "GET", name]);
        let value = if value == "256mb" { "268435456" } else { value };
        assert!(said.contains(value), "{line}: {said}");
    }
}

#[test]
fn nodes_start_with_the_configuration_for_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let [alike, replica] = <[String; 2]>::try_from(blocks("redis.conf")).expect("two blocks");
    let (_node, mut conn) = start(
        false,
        &[alike.clone(), replica.clone()].concat(),
        folder.path(),
    );
    let password = alike
        .lines()
        .find_map(|line| line.strip_prefix("requirepass "))
        .expect("a password");
    conn.call(&["AUTH", password]).expect("let in");
    holds(&mut conn, &alike);
    holds(&mut conn, &replica);
}

#[test]
fn sentinels_start_with_the_configuration_for_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let [block] = <[String; 1]>::try_from(blocks("sentinel.conf")).expect("one block");
    let (_sentinel, mut conn) = start(true, &block, folder.path());
    let master = words(&mut conn, &["SENTINEL", "MASTER", "mymaster"]);
    for known in ["10.0.0.11", "5000", "60000"] {
        assert!(master.contains(known), "{known}: {master}");
    }
}

#[test]
fn the_proxy_takes_its_configuration() {
    for block in blocks("config.toml") {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(block.as_bytes()).expect("written");
        let shown = Command::new(env!("CARGO_BIN_EXE_switchmaster"))
            .args(["config", "show", "--config"])
            .arg(file.path())
            .env_clear()
            .output()
            .expect("the program runs");
        let told = String::from_utf8_lossy(&shown.stderr);
        assert!(shown.status.success() && told.is_empty(), "{told}");
    }
}
