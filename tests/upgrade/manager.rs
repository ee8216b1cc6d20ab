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

/// What the package does when it is installed over a version that runs: the postinst script as it is, with a service manager that knows
/// no more than what it was told. Root only: a mount namespace.
#[test]
fn the_package_has_the_running_process_followed_and_restarts_what_cannot_be() {
    assert!(
        rustix::process::geteuid().is_root(),
        "only root can give a script a /run of its own: run this test as root"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(SOON)).expect("a socket");
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let plan = Plan::following(&[sentinel.addr()]).env("NOTIFY_SOCKET", &path);
    let lineage = Lineage::begin(plan);
    let mut client = connect(lineage.addr);
    assert_eq!(echoed(&mut client, b"served"), b"served");

    let script = Script::new(folder.path());
    script.main_pid(lineage.pid());
    let mark = lineage.proxy.mark();
    let running = script.start();
    let new = loop {
        if let Some(pid) = heard(&manager).strip_prefix("MAINPID=") {
            break pid.parse().expect("a process");
        }
    };
    script.main_pid(new);
    assert_eq!(script.finish(running), "", "nothing is restarted");
    lineage.proxy.event_after(mark, "took_over", SOON);
    assert_eq!(echoed(&mut client, b"still"), b"still");
    crate::lineage::kill(new);

    // One whose successor cannot serve is restarted, as nothing else is left to do.
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "[limits]\nworkers = 1\n").expect("a file");
    let plan =
        Plan::following(&[sentinel.addr()]).args(["--config", config.to_str().expect("text")]);
    let lineage = Lineage::begin(plan);
    std::fs::write(&config, "[limits]\nworkers = \"many\"\n").expect("a file");
    script.main_pid(lineage.pid());
    let running = script.start();
    assert_eq!(script.finish(running), "try-restart switchmaster.service\n");
    lineage.proxy.event("upgrade_failed", SOON);
    assert!(crate::lineage::runs(lineage.pid()), "it was ended");

    // A process that does not know what the signal means is not sent it.
    let mut other = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("it is everywhere");
    script.main_pid(other.id());
    let running = script.start();
    assert_eq!(script.finish(running), "try-restart switchmaster.service\n");
    assert!(matches!(other.try_wait(), Ok(None)), "it was ended");
    other.kill().expect("it runs");
    other.wait().expect("it was killed");
}

/// The package's script, and what is there in the place of systemd.
struct Script {
    folder: std::path::PathBuf,
}

impl Script {
    const SYSTEMCTL: &str = "#!/bin/sh
case \"$*\" in
*list-units*) echo 'switchmaster.service loaded active running words' ;;
*MainPID*) cat \"${0%/*}/main_pid\" ;;
esac
";
    const INVOKE: &str = "#!/bin/sh\necho \"$@\" >> \"${0%/*}/invoked\"\n";
    const RUN: &str = "set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
PATH=\"$1:$PATH\" exec sh deploy/debian/switchmaster.postinst configure 0.0.1";

    fn new(folder: &std::path::Path) -> Self {
        use std::os::unix::fs::PermissionsExt;
        for (name, text) in [
            ("systemctl", Self::SYSTEMCTL),
            ("deb-systemd-invoke", Self::INVOKE),
        ] {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("a file");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("our file");
        }
        Self {
            folder: folder.to_path_buf(),
        }
    }

    fn main_pid(&self, pid: u32) {
        // Never half of it: it is read meanwhile.
        let (new, path) = (self.folder.join("new"), self.folder.join("main_pid"));
        std::fs::write(&new, format!("{pid}\n")).expect("a file");
        std::fs::rename(new, path).expect("the same folder");
    }

    fn start(&self) -> std::process::Child {
        std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", Self::RUN, "sh"])
            .arg(&self.folder)
            .spawn()
            .expect("unshare (util-linux): scripts/setup network")
    }

    /// Waits for its end; gives what was restarted.
    fn finish(&self, mut running: std::process::Child) -> String {
        assert!(running.wait().expect("it ends").success());
        let invoked = self.folder.join("invoked");
        let restarted = std::fs::read_to_string(&invoked).unwrap_or_default();
        // For the next time; it may not be there.
        let _ = std::fs::remove_file(invoked);
        restarted
    }
}
