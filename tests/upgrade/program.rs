//! Which program follows, and where none may: by what path a process was started, and who waits for its end.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::UPGRADE;
use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::{connect, echoed};
use crate::harness::wait_for;
use crate::lineage::{Lineage, signal};

#[test]
fn a_link_that_leads_to_another_version_by_now_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("switchmaster");
    let versions = ["1", "2"].map(|version| {
        let file = folder.path().join(version);
        fs::copy(env!("CARGO_BIN_EXE_switchmaster"), &file).expect("room");
        file
    });
    symlink(&versions[0], &link).expect("a link");
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let mut lineage = Lineage::begin(Plan::following(&[sentinel.addr()]).by(&link));
    let mut client = connect(lineage.addr);
    assert_eq!(echoed(&mut client, b"one"), b"one");
    assert_eq!(runs_from(lineage.pid()), versions[0]);
    // Twice: what follows has a path to be followed by, too.
    for version in [&versions[1], &versions[0]] {
        fs::remove_file(&link).expect("it is there");
        symlink(version, &link).expect("a link");
        lineage.upgrade();
        assert_eq!(runs_from(lineage.pid()), *version);
        assert_eq!(echoed(&mut client, b"still"), b"still");
    }
}

fn runs_from(pid: u32) -> std::path::PathBuf {
    fs::read_link(Path::new("/proc").join(pid.to_string()).join("exe")).expect("it runs")
}

/// Its end would be the container's, and so the end of what follows.
#[test]
fn where_a_container_waits_for_it_none_is_begun() {
    let shell = ["sh", "-c", "\"$0\" \"$@\" & wait"];
    for (init, depth) in [(&[][..], 1), (&shell, 2)] {
        let mut within = Command::new("unshare");
        within.args(["--pid", "--fork", "--kill-child"]).args(init);
        let master = FakeMaster::start(Bytes::Echo);
        let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
        let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]).run_by(within));
        let mark = proxy.mark();
        let pid = (0..depth).fold(proxy.pid(), |pid, _| child(pid));
        signal(pid, Signal::USR2);
        let refused = proxy.event_after(mark, "upgrade_refused", UPGRADE);
        assert_eq!(refused.text("reason"), "container", "{}", refused.fields);
        assert_eq!(echoed(&mut connect(proxy.addr()), b"served"), b"served");
    }
}

/// The one child of this process.
fn child(of: u32) -> u32 {
    let is_child = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| status.lines().any(|line| line == format!("PPid:\t{of}")))
    };
    wait_for("a child", UPGRADE, || {
        let mut pids = fs::read_dir("/proc").ok()?;
        pids.find_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            is_child(&pid).then_some(pid)
        })
    })
}
