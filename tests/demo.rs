//! `switchmaster demo` as a whole: real servers, the real proxy, the exit code, and nothing left behind.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use switchmaster::demo::wait::wait_until;
use switchmaster::net::clock::now;

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchmaster"));
    command
        .arg("demo")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn output(args: &[&str]) -> Output {
    demo(args).output().expect("a demo")
}

/// The addresses a started demo names for its servers, and its port.
fn addresses(demo: &mut Child) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for line in BufReader::new(demo.stdout.as_mut().expect("piped")).lines() {
        let line = line.expect("text");
        let words = line.split([' ', ',', ';']);
        addresses.extend(words.filter_map(|word| word.parse::<SocketAddr>().ok()));
        if line.contains("redis-cli") {
            return addresses;
        }
    }
    let mut why = String::new();
    let _ = demo
        .stderr
        .as_mut()
        .expect("piped")
        .read_to_string(&mut why);
    panic!("it ended early: {why}");
}

fn wait_gone(addresses: &[SocketAddr]) {
    assert_eq!(addresses.len(), 7, "{addresses:?}");
    wait_until(
        now() + Duration::from_secs(20),
        "all to be gone",
        || match addresses
            .iter()
            .find(|addr| TcpStream::connect(addr).is_ok())
        {
            Some(addr) => Err(format!("{addr} still answers")),
            None => Ok(()),
        },
    )
    .expect("nothing left");
}

#[test]
fn a_script_of_all_events_passes() {
    let run = output(&["--script", "planned,kill,freeze"]);
    let out = String::from_utf8_lossy(&run.stdout);
    let err = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{out}\n{err}");
    for row in ["before", "planned", "kill", "freeze"] {
        let rows = out
            .lines()
            .filter(|line| line.starts_with(row) && line.ends_with(" 0"));
        assert_eq!(rows.count(), 1, "{row}:\n{out}");
    }
}

#[test]
fn a_killed_demo_leaves_no_process() {
    // What a killed process cannot remove is removed with this.
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = demo(&["--script", "planned"]);
    let mut demo = command
        .env("TMPDIR", folder.path())
        .spawn()
        .expect("a demo");
    let addresses = addresses(&mut demo);
    demo.kill().expect("killed");
    demo.wait().expect("reaped");
    wait_gone(&addresses);
}

#[test]
fn an_interrupted_demo_cleans_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = demo(&["--script", "planned"]);
    let mut demo = command
        .env("TMPDIR", folder.path())
        .spawn()
        .expect("a demo");
    let addresses = addresses(&mut demo);
    let pid = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
    assert_eq!(demo.wait().expect("ended").code(), Some(1));
    wait_gone(&addresses);
    let left = folder.path().read_dir().expect("readable").count();
    assert_eq!(left, 0);
}

#[test]
fn what_is_missing_is_said_in_one_line() {
    let run = output(&["--server-bin", "/bin/true"]);
    assert_eq!(run.status.code(), Some(69));
    let err = String::from_utf8_lossy(&run.stderr);
    assert!(
        err.lines().count() == 1 && err.contains("apt-get install redis-tools"),
        "{err}"
    );
}

#[test]
fn a_server_that_the_environment_names_is_never_replaced_by_another() {
    let run = demo(&["--script", "planned"])
        .env("SWITCHMASTER_SERVER_BIN", "/nowhere/valkey-server")
        .output()
        .expect("started");
    assert_eq!(run.status.code(), Some(69));
    let err = String::from_utf8_lossy(&run.stderr);
    assert!(
        err.lines().count() == 1 && err.contains("SWITCHMASTER_SERVER_BIN=/nowhere/valkey-server"),
        "{err}"
    );
}

#[test]
fn a_taken_port_is_said_before_anything_starts() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let run = output(&["--port", &port]);
    assert_eq!(run.status.code(), Some(73));
    assert!(String::from_utf8_lossy(&run.stderr).contains(&port));
}
