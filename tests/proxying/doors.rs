//! Where clients connect, who may, and what a start says that cannot succeed.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::{SOON, connect, echoed, read_to_end};

/// A user without a name, who is in no group of this machine's.
const SOMEBODY: u32 = 64_999;

#[test]
fn a_port_that_is_taken_is_said_and_ends_it_with_73() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("bound").to_string();
    let (code, output) = refused(Plan::bare([
        "run",
        "--sentinel",
        "127.0.0.1:1",
        "--master",
        "mymaster",
        "--listen",
        &addr,
    ]));
    assert_eq!(code, Some(73), "{output}");
    assert!(output.contains(&addr), "{output}");
}

#[test]
fn a_listener_for_all_without_allow_from_ends_it_with_78() {
    let (code, output) = refused(Plan::bare([
        "run",
        "--sentinel",
        "127.0.0.1:1",
        "--master",
        "mymaster",
        "--listen",
        "0.0.0.0:0",
    ]));
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("allow_from"), "it names the key: {output}");
}

#[test]
fn allow_from_lets_in_whom_it_names() {
    for (listen, network, allowed) in [
        ("0.0.0.0:0", "10.255.0.0/16", false),
        ("0.0.0.0:0", "127.0.0.0/8", true),
        ("127.0.0.1:0", "10.255.0.0/16", false),
    ] {
        let master = FakeMaster::start(Bytes::Echo);
        let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
        let proxy = Proxy::ready(Plan::bare(["run", "--log-format", "json"]).config(format!(
            "{}\n{}allow_from = [\"{network}\"]\n",
            sentinel_section(&sentinel),
            proxy_section("main", "mymaster", listen),
        )));
        let mut client = connect(SocketAddr::from(([127, 0, 0, 1], proxy.addr().port())));
        if allowed {
            assert_eq!(echoed(&mut client, b"let in"), b"let in");
        } else {
            assert_eq!(read_to_end(&mut client), b"", "closed without a word");
            assert!(master.records().is_empty(), "the master never heard of it");
        }
    }
}

#[test]
fn two_entries_lead_to_two_masters() {
    let (one, other) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::CountUntilEnd),
    );
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(one.addr()));
    sentinel.watch(View {
        master: "cache".to_owned(),
        ..View::of(other.addr())
    });
    let proxy = Plan::bare(["run", "--log-format", "json"])
        .config(format!(
            "{}\n{}\n{}",
            sentinel_section(&sentinel),
            proxy_section("main", "mymaster", "127.0.0.1:0"),
            proxy_section("cache", "cache", "127.0.0.1:0"),
        ))
        .start();
    for entry in ["main", "cache"] {
        proxy.event_where(0, "ready", SOON, |fields| fields["proxy"] == entry);
    }
    let mut to_one = connect(proxy.addr_of("main"));
    assert_eq!(echoed(&mut to_one, b"main"), b"main");
    let mut to_other = connect(proxy.addr_of("cache"));
    to_other.write_all(b"four").expect("written");
    to_other.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(read_to_end(&mut to_other), b"4");

    // A switch of one concerns nobody of the other.
    let next = FakeMaster::start(Bytes::Echo);
    sentinel.switch_master(next.addr());
    let switched = proxy.event("switched", SOON);
    assert_eq!(switched.text("proxy"), "main");
    assert_eq!(read_to_end(&mut to_one), b"", "cut");
    let mut again = connect(proxy.addr_of("cache"));
    again.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(read_to_end(&mut again), b"0");
}

#[test]
fn a_unix_socket_is_a_listener() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("main.sock");
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let listen = format!("unix:{}", path.display());
    let proxy = Proxy::ready(Plan::bare(["run", "--log-format", "json"]).config(format!(
        "{}\n{}",
        sentinel_section(&sentinel),
        proxy_section("main", "mymaster", &listen),
    )));
    let listening = proxy.event("listening", SOON);
    assert_eq!(listening.text("addr"), listen);
    let mut client = UnixStream::connect(&path).expect("the proxy listens");
    client.set_read_timeout(Some(SOON)).expect("a socket");
    client.write_all(b"local").expect("written");
    let mut back = [0; 5];
    client.read_exact(&mut back).expect("echoed");
    assert_eq!(&back, b"local");
    drop(client);
    assert_eq!(proxy.terminate(SOON).code(), Some(0));
    assert!(!path.exists(), "its own socket file is taken away");
}

/// The kernel gives a file to a group for its members alone.
#[test]
fn a_group_that_it_is_not_in_ends_it_with_78_and_the_line_for_the_unit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(folder.path(), open).expect("our own");
    let config = folder.path().join("config.toml");
    let text = format!(
        "[sentinel]\naddresses = [\"127.0.0.1:1\"]\n[[proxy]]\nlisten = [\"unix:{}\"]\nsocket_group = \"0\"\n[admin]\nlisten = \"off\"\n",
        folder.path().join("main.sock").display()
    );
    fs::write(&config, text).expect("written");
    // Wherever the program is built, somebody else can run it here.
    let program = folder.path().join("switchmaster");
    fs::copy(env!("CARGO_BIN_EXE_switchmaster"), &program).expect("copied");
    let mut command = Command::new(program);
    command.arg("--config").arg(&config).current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(SOMEBODY).gid(SOMEBODY);
    }
    let output = command.output().expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("SupplementaryGroups=0"), "{told}");
    assert!(!folder.path().join("main.sock").exists(), "left behind");
}

fn sentinel_section(sentinel: &FakeSentinel) -> String {
    format!("[sentinel]\naddresses = [\"{}\"]\n", sentinel.addr())
}

fn proxy_section(name: &str, master: &str, listen: &str) -> String {
    format!("[[proxy]]\nname = \"{name}\"\nmaster = \"{master}\"\nlisten = [\"{listen}\"]\n")
}

/// How a start ended that must not succeed, and what was said.
fn refused(plan: Plan) -> (Option<i32>, String) {
    let mut proxy = plan.start();
    let status = proxy.exit(SOON);
    (status.code(), proxy.output())
}
