//! The local topology on real servers: it starts, fails over, survives what is done to it, and leaves nothing.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use switchmaster::demo::cluster::{Cluster, Options};
use switchmaster::demo::guard;
use switchmaster::demo::server::Server;
use switchmaster::demo::wait::wait_until;
use switchmaster::net::clock::{Moment, now};

fn options() -> Options {
    let server = Server::find(None).expect("a server: apt-get install redis-tools");
    Options::new(server, PathBuf::from(env!("CARGO_BIN_EXE_switchmaster")))
}

fn soon() -> Moment {
    now() + Duration::from_secs(60)
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn fails_over_and_ends_without_a_trace() {
    let cluster = Cluster::start(&options()).expect("started");
    let first = cluster.master_addr().expect("a master");
    assert_eq!(first, cluster.nodes()[0].addr());

    cluster.trigger_failover(0).expect("a planned failover");
    let second = wait_until(soon(), "another master", || match cluster.settled() {
        Ok(addr) if addr != first => Ok(addr),
        Ok(addr) => Err(format!("still {addr}")),
        Err(missing) => Err(missing),
    })
    .expect("failed over");

    let node = cluster.node_at(second).expect("one of the nodes");
    let killed = node.pid().expect("running");
    node.kill().expect("killed");
    assert!(!node.is_running() && !exists(killed));
    let third = wait_until(soon(), "a third master", || match cluster.settled() {
        Ok(addr) if addr != second => Ok(addr),
        Ok(addr) => Err(format!("still {addr}")),
        Err(missing) => Err(missing),
    })
    .expect("failed over");
    node.restart_as_replica_of(third).expect("back");
    assert_eq!(cluster.wait_settled(soon()).expect("settled"), third);

    let replica = cluster
        .nodes()
        .iter()
        .find(|node| node.addr() != third)
        .expect("a replica");
    replica.freeze().expect("frozen");
    assert!(replica.is_frozen() && !replica.is_running());
    replica.thaw().expect("thawed");
    cluster.sentinels()[1].kill().expect("killed");
    cluster.start_sentinel(1).expect("back");
    cluster.wait_settled(soon()).expect("settled");

    cluster.nodes()[1].freeze().expect("frozen");
    let pids: Vec<u32> = cluster
        .nodes()
        .iter()
        .chain(cluster.sentinels())
        .filter_map(|i| i.pid())
        .collect();
    assert_eq!(pids.len(), 6);
    let folder = cluster.folder().to_owned();
    drop(cluster);
    assert!(!pids.iter().any(|pid| exists(*pid)), "{pids:?}");
    assert!(!folder.exists());
}

#[test]
fn passwords_and_late_sentinels() {
    let options = Options {
        requirepass: Some("a \"b\" c".into()),
        sentinel_requirepass: Some("s".into()),
        start_sentinels: false,
        ..options()
    };
    let cluster = Cluster::start(&options).expect("started");
    assert!(cluster.master_addr().is_err());
    for index in 0..3 {
        cluster.start_sentinel(index).expect("a Sentinel");
    }
    assert_eq!(
        cluster.wait_settled(soon()).expect("settled"),
        cluster.nodes()[0].addr()
    );
}

#[test]
fn a_guarded_child_dies_with_a_killed_parent() {
    let script = format!(
        "{}=$$ '{}' {} sleep sleep 600 & echo $!; wait",
        guard::PARENT_VARIABLE,
        env!("CARGO_BIN_EXE_switchmaster"),
        guard::SUBCOMMAND
    );
    let mut parent = Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut pid = String::new();
    BufReader::new(parent.stdout.take().expect("piped"))
        .read_line(&mut pid)
        .expect("told");
    let stat = format!("/proc/{}/stat", pid.trim());
    // Guarded once it has become the program.
    wait_until(soon(), "the child", || {
        match std::fs::read_to_string(&stat) {
            Ok(stat) if stat.contains("(sleep)") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .expect("started");
    parent.kill().expect("killed");
    parent.wait().expect("reaped");
    // Nobody may be there to reap it: a zombie is as dead.
    wait_until(
        soon(),
        "the child to die",
        || match std::fs::read_to_string(&stat) {
            Ok(stat) if !stat.contains(") Z") => Err(stat),
            _ => Ok(()),
        },
    )
    .expect("dead");
}
