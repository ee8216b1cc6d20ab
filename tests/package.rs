//! The Debian package, from nothing to purged: in a copy of this machine's files that lives in memory, so that nothing is installed here.

mod harness;

use std::io::{BufRead, BufReader, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use switchmaster::demo::wire::{Conn, Value};

use harness::stream::{SOON, free_address};
use harness::topology::Topology;
use harness::{wait_for, wait_until};

const CONFIG: &str = "/etc/switchmaster/config.toml";
const UNIT: &str = "/lib/systemd/system/switchmaster.service";
/// Nobody's: the unit's user is made by systemd, which does not run there.
const SOMEBODY: &str = "65534";

/// Longest installation over a program that runs.
const INSTALLED: Duration = Duration::from_secs(60);
/// Sessions that are open then.
const SESSIONS: usize = 10;
/// In the place of systemd, which runs nowhere but as the first process: it knows the main process it was told of.
const SYSTEMCTL: &str = "#!/bin/sh
case \"$*\" in
*list-units*) echo 'switchmaster.service loaded active running words' ;;
*MainPID*) cat /run/main_pid ;;
esac
";
/// Says what was to be started, stopped or restarted.
const INVOKE: &str = "#!/bin/sh\necho \"$@\" >> /run/invoked\n";

/// The files of this machine with whatever is done to them; gone with the value.
struct Machine {
    holder: Child,
    /// Where they are, for those within.
    root: PathBuf,
}

impl Machine {
    fn make() -> Self {
        const MOUNT: &str = "set -e
            mount -t tmpfs tmpfs \"$1\"
            mkdir \"$1/changed\" \"$1/work\" \"$1/root\"
            mount -t overlay overlay -o \"lowerdir=/,upperdir=$1/changed,workdir=$1/work\" \"$1/root\"
            mount -t proc proc \"$1/root/proc\"
            mount --bind /dev \"$1/root/dev\"
            mount -t tmpfs tmpfs \"$1/root/run\"
            mount -t tmpfs tmpfs \"$1/root/tmp\"
            echo mounted
            exec cat";
        let folder = tempfile::tempdir().expect("a folder").keep();
        let mut holder = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                MOUNT,
                "sh",
            ])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux): scripts/setup network");
        let mut said = String::new();
        let mut out = BufReader::new(holder.stdout.take().expect("piped"));
        out.read_line(&mut said).expect("it says something");
        assert_eq!(said, "mounted\n", "overlay and tmpfs, as root");
        let root = folder.join("root");
        Self { holder, root }
    }

    /// A command among those files.
    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--mount",
                "--target",
                &self.holder.id().to_string(),
                "chroot",
            ])
            .arg(&self.root)
            .args(line)
            .stdin(Stdio::null());
        command
    }

    fn output(&self, line: &[&str]) -> Output {
        self.command(line).output().expect("nsenter and chroot")
    }

    /// A command that has to succeed; what it says.
    fn run(&self, line: &[&str]) -> String {
        let output = self.output(line);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line:?}: {said}{told}");
        said
    }

    fn exists(&self, path: &str) -> bool {
        self.output(&["test", "-e", path]).status.success()
    }

    fn write(&self, path: &str, text: &str) {
        self.run(&["sh", "-c", "printf %s \"$1\" >\"$2\"", "sh", text, path]);
    }

    /// Puts a file of this machine there and installs it.
    fn install(&self, package: &Path) {
        let text = std::fs::File::open(package).expect("the package");
        let copied = self
            .command(&["dd", "status=none", "of=/tmp/switchmaster.deb"])
            .stdin(text)
            .status();
        assert!(copied.expect("dd").success());
        // As apt would, which asks nobody about a file that was changed here.
        self.run(&["dpkg", "--force-confold", "-i", "/tmp/switchmaster.deb"]);
    }

    /// A service manager for what the package does there.
    fn supervise(&self, main: u32) {
        self.run(&["mkdir", "-p", "/run/systemd/system"]);
        for (path, text) in [
            ("/usr/local/sbin/systemctl", SYSTEMCTL),
            ("/usr/local/sbin/deb-systemd-invoke", INVOKE),
        ] {
            self.write(path, text);
            self.run(&["chmod", "755", path]);
        }
        self.main_pid(main);
    }

    fn main_pid(&self, pid: u32) {
        // Never half of it: it is read meanwhile.
        self.write("/run/main_pid.new", &format!("{pid}\n"));
        self.run(&["mv", "/run/main_pid.new", "/run/main_pid"]);
    }

    /// What the unit starts, as somebody without a privilege.
    fn start_unit(&self) -> Child {
        self.start_notifying("")
    }

    /// The same, and whom it tells how it is.
    fn start_notifying(&self, manager: &str) -> Child {
        let unit = self.run(&["cat", UNIT]);
        let start = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="));
        let line: Vec<&str> = start.expect("a command").split_whitespace().collect();
        let within = [
            &[
                "setpriv",
                "--reuid",
                SOMEBODY,
                "--regid",
                SOMEBODY,
                "--clear-groups",
            ],
            &*line,
        ];
        self.command(&within.concat())
            .env("NOTIFY_SOCKET", manager)
            .env("SWITCHMASTER_ADMIN_LISTEN", "off")
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The mounts end with the last process among them.
        self.holder.kill().ok();
        self.holder.wait().ok();
        if let Some(folder) = self.root.parent() {
            std::fs::remove_dir(folder).ok();
        }
    }
}

/// The package of this build, called so.
fn build(version: &str, out: &Path) -> PathBuf {
    let output = Command::new("scripts/package")
        .args([
            "--binary",
            env!("CARGO_BIN_EXE_switchmaster"),
            "--compress",
            "none",
            "--version",
            version,
            "--out",
        ])
        .arg(out)
        .output()
        .expect("bash");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let said = String::from_utf8(output.stdout).expect("a path");
    PathBuf::from(said.lines().last().expect("a path"))
}

/// A process that was started by one that we started; killed when dropped.
struct Follower(u32);

impl Follower {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.cast_signed()).expect("a process")
    }

    /// It runs, and is no zombie that nobody waits for.
    fn runs(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.0))
            .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|s| s.starts_with('Z')))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended.
        let _ = kill_process(self.pid(), Signal::KILL);
    }
}

/// The process that the manager is told to be the main one from now on.
fn introduced(manager: &UnixDatagram) -> Follower {
    let mut bytes = [0; 4096];
    wait_for("MAINPID", INSTALLED, || {
        let length = manager.recv(&mut bytes).ok()?;
        let said = std::str::from_utf8(&bytes[..length]).expect("text");
        let pid = said.strip_prefix("MAINPID=")?;
        Some(Follower(pid.parse().expect("a process")))
    })
}

/// A session, and what the master calls its connection.
fn session(port: u16) -> (Conn, Value) {
    let mut conn = Conn::connect(([127, 0, 0, 1], port).into(), SOON).expect("it listens");
    let id = conn.call(&["CLIENT", "ID"]).expect("served");
    (conn, id)
}

fn serves(port: u16) -> bool {
    let port = port.to_string();
    let cli = |line: &[&str]| {
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .args(line)
            .output();
        String::from_utf8(output.expect("redis-cli").stdout).expect("text")
    };
    cli(&["set", "installed", "yes"]).trim() == "OK" && cli(&["get", "installed"]).trim() == "yes"
}

/// Ends in order what was started by `nsenter`, which becomes what it starts.
fn end(mut service: Child) {
    kill_process(Pid::from_child(&service), Signal::TERM).expect("it runs");
    let status = service.wait().expect("it ends");
    let mut told = String::new();
    let mut stderr = service.stderr.take().expect("piped");
    stderr.read_to_string(&mut told).expect("text");
    assert_eq!(status.code(), Some(0), "{told}");
}

#[test]
fn the_package_is_installed_configured_upgraded_removed_and_purged() {
    assert!(
        rustix::process::geteuid().is_root(),
        "a package is installed by root: run this test as root; nothing is changed on this machine"
    );
    let topology = Topology::start();
    let out = tempfile::tempdir().expect("a folder");
    let (first, second) = (build("0.1.0", out.path()), build("0.1.1", out.path()));
    let machine = Machine::make();

    machine.install(&first);
    for path in [
        "/usr/bin/switchmaster",
        "/usr/share/man/man1/switchmaster.1.gz",
        "/usr/share/bash-completion/completions/switchmaster",
        "/usr/share/doc/switchmaster/examples/config.example.toml",
        "/usr/share/doc/switchmaster/switchmaster.cdx.json.gz",
        UNIT,
        CONFIG,
    ] {
        assert!(machine.exists(path), "{path}");
    }
    let conffiles = machine.run(&["dpkg-query", "-f", "${Conffiles}", "-W", "switchmaster"]);
    assert!(conffiles.contains(CONFIG), "{conffiles}");
    let enabled = "/etc/systemd/system/multi-user.target.wants/switchmaster.service";
    assert!(!machine.exists(enabled), "who has configured it enables it");
    machine.run(&["dpkg", "--verify", "switchmaster"]);
    let unconfigured = machine.start_unit().wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&unconfigured.stderr);
    assert_eq!(unconfigured.status.code(), Some(78), "{told}");
    assert!(told.contains("no Sentinel is named"), "{told}");

    let sentinels: Vec<String> = topology
        .sentinels()
        .iter()
        .map(ToString::to_string)
        .collect();
    let listen = free_address();
    let config = format!(
        "[sentinel]\naddresses = {sentinels:?}\n[[proxy]]\nmaster = {:?}\nlisten = [\"{listen}\"]\n",
        topology.cluster().master_name(),
    );
    machine.write(CONFIG, &config);
    machine.run(&["/usr/bin/switchmaster", "check", "--json"]);
    let name = format!("{}/notify", out.path().display());
    let addr = SocketAddr::from_abstract_name(&name).expect("an address");
    let manager = UnixDatagram::bind_addr(&addr).expect("a socket");
    manager.set_read_timeout(Some(SOON)).expect("a socket");
    let mut service = machine.start_notifying(&format!("@{name}"));
    wait_until("the application to work", SOON, || serves(listen.port()));
    machine.supervise(service.id());
    let mut sessions = [(); SESSIONS].map(|()| session(listen.port()));

    let new = thread::scope(|scope| {
        let introduced = scope.spawn(|| {
            let new = introduced(&manager);
            machine.main_pid(new.0);
            new
        });
        machine.install(&second);
        introduced.join().expect("no panic")
    });
    let version = machine.run(&["dpkg-query", "-f", "${Version}", "-W", "switchmaster"]);
    assert_eq!(version, "0.1.1");
    assert_eq!(
        machine.run(&["cat", CONFIG]),
        config,
        "what was written is kept"
    );
    assert!(!machine.exists("/run/invoked"), "nothing is restarted");
    assert_eq!(service.wait().expect("it ends").code(), Some(0));
    // What runs is what was installed, whose sessions are those of before, on the connections they had.
    let running = std::fs::read_link(format!("/proc/{}/exe", new.0)).expect("it runs");
    assert!(
        running.ends_with("usr/bin/switchmaster"),
        "{}",
        running.display()
    );
    let version = |program: &str| machine.run(&[program, "--version"]);
    assert_eq!(
        version(&format!("/proc/{}/exe", new.0)),
        version("/usr/bin/switchmaster")
    );
    for (conn, id) in &mut sessions {
        assert_eq!(conn.call(&["CLIENT", "ID"]).ok().as_ref(), Some(&*id));
    }
    assert!(serves(listen.port()));
    kill_process(new.pid(), Signal::TERM).expect("it runs");
    wait_until("the new process to end", SOON, || !new.runs());
    machine.run(&["rm", "-r", "/run/systemd"]);

    let service = machine.start_unit();
    wait_until("the upgraded program", SOON, || serves(listen.port()));
    end(service);

    machine.run(&["dpkg", "--remove", "switchmaster"]);
    assert!(!machine.exists("/usr/bin/switchmaster") && !machine.exists(UNIT));
    assert_eq!(
        machine.run(&["cat", CONFIG]),
        config,
        "kept for who installs it again"
    );
    machine.run(&["dpkg", "--purge", "switchmaster"]);
    assert!(!machine.exists("/etc/switchmaster"));
    let left = machine.output(&["dpkg-query", "-W", "switchmaster"]);
    assert!(!left.status.success(), "nothing of it is left");
}
