//! What the service manager hears of an upgrade (sd_notify(3)): from the old process who the main one is from now on, and then no word
//! more; from the new one that it is ready, and everything after that.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::Plan;
use crate::harness::stream::{connect, echoed};
use crate::lineage::Lineage;

const SOON: Duration = Duration::from_secs(20);

fn heard(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let length = manager.recv(&mut bytes).expect("a message in time");
    String::from_utf8(bytes[..length].to_vec()).expect("text")
}

#[test]
fn the_main_pid_moves_and_the_old_process_falls_silent() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(SOON)).expect("a socket");
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let plan = Plan::following(&[sentinel.addr()])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "4000000");
    let mut lineage = Lineage::begin(plan);
    let mut client = connect(lineage.addr);
    assert_eq!(echoed(&mut client, b"served"), b"served");
    assert_eq!(heard(&manager), "READY=1");
    for _ in 0..2 {
        let old = lineage.pid();
        lineage.upgrade();
        let new = lineage.pid();
        let mut said = heard(&manager);
        while !said.starts_with("MAINPID=") {
            assert!(
                said.starts_with("STATUS=") || said == "WATCHDOG=1",
                "{said}"
            );
            said = heard(&manager);
        }
        assert_eq!(said, format!("MAINPID={new}"));
        assert_eq!(heard(&manager), "READY=1\nWATCHDOG=1");
        lineage.wait_for_end(old);
        // The watchdog is fed by whoever is watched; nobody says that anything stops.
        let said = [heard(&manager), heard(&manager), heard(&manager)];
        let fine = |said: &String| said.starts_with("STATUS=1 session") || said == "WATCHDOG=1";
        assert!(said.iter().all(fine), "{said:?}");
        assert!(said.iter().any(|said| said == "WATCHDOG=1"), "{said:?}");
        assert_eq!(echoed(&mut client, b"still"), b"still");
    }
}
