//! Tables: what was seen, and what is said first of it.

use std::net::SocketAddr;
use std::time::Duration;

use super::facts::*;
use super::finding::{Code, Finding, Level, sort};
use super::sentinels::Setting;
use super::{local, nodes, sentinels};
use crate::admin::Certificate;
use crate::listener;
use crate::net::addr::{HostPort, ListenAddr, NodeAddr, SentinelAddr};
use crate::net::address_map::{AddressMap, Mapping};
use crate::net::tls::{TlsError, Validity};
use crate::sentinel::Peer;
use crate::sentinel::client::ClientError;
use crate::sentinel::client::inspect::{MasterTestimony, Subscription, Testimony};
use crate::topology::Epoch;
use crate::topology::observation::{NoView, ReplicaSeen, RoleReport, RunId, View};
use crate::topology::rules::Verify;

const MASTER: &str = "10.0.0.1:6379";

fn at(text: &str) -> HostPort {
    text.parse().expect("an address")
}

fn id(n: usize) -> RunId {
    RunId::parse(&format!("{n:040x}")).expect("40 digits")
}

/// A Sentinel of three, and nothing is wrong.
fn sentinel(n: usize) -> SentinelFacts {
    let addr = |n| at(&format!("10.0.0.{}:26379", n + 2));
    let peers = (0..3).filter(|other| *other != n).map(|other| Peer {
        addr: SentinelAddr(addr(other)),
        run_id: Some(id(other)),
    });
    SentinelFacts {
        addr: addr(n),
        listed: true,
        told: Ok(Testimony {
            peer: addr(n).socket_addr().expect("an address"),
            run_id: Some(id(n)),
            subscription: Subscription::Granted,
            tilt: Some(false),
            refused: Vec::new(),
            masters: vec![MasterTestimony {
                view: Some(Ok(View {
                    master: NodeAddr(at(MASTER)),
                    epoch: Epoch(3),
                    down_after: Some(Duration::from_secs(5)),
                    quorum: Some(2),
                    objectively_down: false,
                    unanswered: Duration::ZERO,
                })),
                replicas: Some(2),
                peers: Some(peers.collect()),
                quorum: Some(Ok("OK".to_owned())),
            }],
        }),
    }
}

pub(super) fn told(sentinel: &mut SentinelFacts) -> &mut Testimony {
    sentinel.told.as_mut().expect("it answers")
}

fn view(sentinel: &mut SentinelFacts) -> &mut View {
    let view = told(sentinel).masters[0].view.as_mut();
    view.expect("permitted").as_mut().expect("a view")
}

fn peers(sentinel: &mut SentinelFacts) -> &mut Vec<Peer> {
    told(sentinel).masters[0].peers.as_mut().expect("permitted")
}

pub(super) fn dead() -> ClientError {
    ClientError::Io("Connection refused (os error 111)".to_owned())
}

pub(super) fn said(change: impl FnOnce(&mut Vec<SentinelFacts>)) -> Vec<Finding> {
    said_with(change, &AddressMap::default(), &[])
}

fn said_with(
    change: impl FnOnce(&mut Vec<SentinelFacts>),
    map: &AddressMap,
    own: &[SocketAddr],
) -> Vec<Finding> {
    let mut facts = vec![sentinel(0), sentinel(1), sentinel(2)];
    change(&mut facts);
    let masters = ["mymaster".to_owned()];
    let setting = Setting {
        user: Some("watcher"),
        has_login: true,
        tls: None,
        discover: true,
        map,
        masters: &masters,
        own,
    };
    let mut findings = sentinels::judge(&facts, &setting);
    sort(&mut findings);
    findings
}

pub(super) fn first(findings: &[Finding]) -> (Level, Code) {
    (findings[0].level, findings[0].code)
}

#[test]
fn healthy_sentinels_are_all_ok() {
    let findings = said(|_| {});
    let codes: Vec<_> = findings.iter().map(|f| f.code).collect();
    use Code::{Quorum, SentinelOk, SentinelsAgree};
    assert_eq!(
        codes,
        [SentinelOk, SentinelOk, SentinelOk, Quorum, SentinelsAgree]
    );
    assert!(
        findings.iter().all(|f| f.level == Level::Ok),
        "{findings:?}"
    );
}

#[test]
fn each_fault_of_a_sentinel_is_named_first() {
    type Change = fn(&mut Vec<SentinelFacts>);
    let cases: &[(Level, Code, Change)] = &[
        (Level::Fail, Code::SentinelUnreachable, |s| {
            s[1].told = Err(dead());
        }),
        (Level::Warn, Code::SentinelUnreachable, |s| {
            s[1].listed = false;
            s[1].told = Err(dead());
        }),
        (Level::Fail, Code::QuorumUnreachable, |s| {
            s[1].told = Err(dead());
            s[2].told = Err(dead());
        }),
        (Level::Fail, Code::QuorumUnreachable, |s| {
            told(&mut s[0]).masters[0].quorum = Some(Err("NOQUORUM 1 usable Sentinels".to_owned()));
        }),
        // A quorum of three needs all three.
        (Level::Fail, Code::QuorumUnreachable, |s| {
            s[1].told = Err(dead());
            view(&mut s[0]).quorum = Some(3);
        }),
        (Level::Fail, Code::SentinelLoginRefused, |s| {
            s[0].told = Err(ClientError::Auth("WRONGPASS".to_owned()));
        }),
        // Those that let nobody in are there: the quorum is not what is wrong.
        (Level::Fail, Code::SentinelLoginNeeded, |s| {
            s[0].told = Err(ClientError::LoginNeeded("NOAUTH".to_owned()));
            s[1].told = Err(ClientError::LoginNeeded("NOAUTH".to_owned()));
        }),
        (Level::Fail, Code::NotASentinel, |s| {
            s[0].told = Err(ClientError::Protocol("HTTP".to_owned()));
        }),
        (Level::Fail, Code::MasterUnknown, |s| {
            told(&mut s[2]).masters[0].view = Some(Err(NoView::UnknownMaster));
        }),
        (Level::Fail, Code::SentinelsDisagree, |s| {
            view(&mut s[2]).master = NodeAddr(at("10.0.0.9:6379"));
            view(&mut s[2]).epoch = Epoch(2);
        }),
        (Level::Fail, Code::SentinelsDisagree, |s| {
            view(&mut s[2]).master = NodeAddr(at("10.0.0.9:6379"));
        }),
        (Level::Warn, Code::SentinelEpochDiffers, |s| {
            view(&mut s[2]).epoch = Epoch(2);
        }),
        (Level::Fail, Code::MasterCalledDown, |s| {
            view(&mut s[0]).objectively_down = true;
        }),
        (Level::Warn, Code::SentinelInTilt, |s| {
            told(&mut s[0]).tilt = Some(true);
        }),
        (Level::Warn, Code::DownAfterLong, |s| {
            view(&mut s[0]).down_after = Some(Duration::from_secs(30));
        }),
        (Level::Warn, Code::SentinelsEven, |s| {
            s.pop();
            for sentinel in s {
                peers(sentinel).pop();
            }
        }),
        (Level::Warn, Code::SentinelsFew, |s| {
            s.truncate(1);
            peers(&mut s[0]).clear();
            view(&mut s[0]).quorum = Some(1);
        }),
        (Level::Warn, Code::SentinelTwice, |s| {
            let mut other = s[0].clone();
            other.addr = at("sentinel-a:26379");
            s.push(other);
        }),
        (Level::Warn, Code::SentinelNotLookedAt, |s| {
            told(&mut s[0]).refused = vec!["+info"];
            told(&mut s[0]).tilt = None;
        }),
    ];
    for (number, (level, code, change)) in cases.iter().enumerate() {
        let findings = said(change);
        assert_eq!(
            first(&findings),
            (*level, *code),
            "case {number}: {findings:?}"
        );
        assert!(findings[0].hint.is_some(), "case {number}: {findings:?}");
    }
}

#[test]
fn the_wrong_one_is_the_one_with_the_older_epoch_or_the_fewer_friends() {
    for epoch in [2, 3] {
        let findings = said(|s| {
            view(&mut s[1]).master = NodeAddr(at("10.0.0.9:6379"));
            view(&mut s[1]).epoch = Epoch(epoch);
        });
        assert_eq!(findings[0].subject, "Sentinel 10.0.0.3:26379");
        assert_eq!(findings[1].level, Level::Ok, "the others are not blamed");
    }
}

#[test]
fn a_peer_that_cannot_be_believed_is_there_all_the_same() {
    let findings = said(|s| s[0].told = Err(ClientError::Tls(TlsError::in_words("no"))));
    assert_eq!(first(&findings), (Level::Fail, Code::SentinelTlsFailed));
    let hint = findings[0].hint.as_deref().expect("a command");
    assert!(
        hint.starts_with("openssl s_client -connect 10.0.0.2:26379"),
        "{hint}"
    );
}

#[test]
fn missing_rights_come_with_the_line_that_grants_them() {
    let findings = said(|s| {
        told(&mut s[0]).subscription = Subscription::CommandDenied;
        told(&mut s[0]).refused = vec!["+sentinel|master", "+info"];
    });
    assert_eq!(first(&findings), (Level::Fail, Code::SentinelRightMissing));
    let hint = findings[0].hint.as_ref().expect("a line to paste");
    let hint = hint.lines().next().expect("a line to paste");
    let start = "redis-cli -h 10.0.0.2 -p 26379 ACL SETUSER watcher +subscribe resetchannels '&+switch-master'";
    assert!(hint.starts_with(start), "{hint}");
    assert!(hint.ends_with("'&+sentinel' '+sentinel|master'"), "{hint}");
    assert_eq!(findings[1].code, Code::SentinelNotLookedAt);

    let findings = said(|s| told(&mut s[0]).subscription = Subscription::ChannelsDenied);
    let hint = findings[0].hint.as_ref().expect("a line to paste");
    assert!(!hint.contains("+subscribe"), "it has that: {hint}");
    assert!(!hint.contains("resetchannels"), "what it has stays: {hint}");
}

#[test]
fn a_sentinel_that_names_this_proxy_is_the_first_fault() {
    let own = at(MASTER).socket_addr().expect("an address");
    let findings = said_with(|_| {}, &AddressMap::default(), &[own]);
    assert_eq!(
        first(&findings),
        (Level::Fail, Code::SentinelNamesThisProxy)
    );

    let mut map = AddressMap::default();
    map.insert(Mapping::parse(MASTER, "192.0.2.1:6379").expect("an entry"));
    let findings = said_with(|_| {}, &map, &[own]);
    assert_eq!(
        first(&findings).0,
        Level::Ok,
        "what is reached is what counts"
    );
}

fn node(announced: &str, role: RoleReport) -> Node {
    Node {
        announced: at(announced),
        reached: at(announced),
        is_us: false,
        told: Ok(NodeTold {
            role,
            refused_login: None,
        }),
    }
}

fn seen(addr: &str) -> ReplicaSeen {
    ReplicaSeen {
        addr: NodeAddr(at(addr)),
        lag: 0,
    }
}

fn healthy() -> Nodes {
    let replica = |addr| (seen(addr), node(addr, RoleReport::Replica));
    Nodes {
        proxy: "main".to_owned(),
        probe_user: Some("probe".to_owned()),
        has_login: true,
        tls: None,
        verify: Verify::Auto,
        master: Some(node(MASTER, RoleReport::Master)),
        login: None,
        min_replicas: Some(Ok(1)),
        replicas: vec![replica("10.0.0.11:6379"), replica("10.0.0.12:6379")],
        replicas_known: Some(2),
    }
}

fn master(nodes: &mut Nodes) -> &mut Node {
    nodes.master.as_mut().expect("a master")
}

fn role(node: &mut Node, role: RoleReport) {
    node.told.as_mut().expect("it answers").role = role;
}

pub(super) fn said_of(change: impl FnOnce(&mut Nodes)) -> Vec<Finding> {
    let mut facts = healthy();
    change(&mut facts);
    let sentinels = [sentinel(0), sentinel(1), sentinel(2)];
    let mut findings = nodes::judge(&facts, &sentinels, 0, &AddressMap::default());
    sort(&mut findings);
    findings
}

#[test]
fn healthy_nodes_are_all_ok() {
    let findings = said_of(|_| {});
    let codes: Vec<_> = findings.iter().map(|f| f.code).collect();
    use Code::{MasterOk, MinReplicasSet, ReplicaOk};
    assert_eq!(codes, [MasterOk, ReplicaOk, ReplicaOk, MinReplicasSet]);
    assert!(
        findings.iter().all(|f| f.level == Level::Ok),
        "{findings:?}"
    );
}

#[test]
fn each_fault_of_a_node_is_named_first() {
    type Change = fn(&mut Nodes);
    let noauth = || RoleReport::Refused("NOAUTH Authentication required.".to_owned());
    let cases: &[(Level, Code, Change)] = &[
        (Level::Fail, Code::MasterUnreachable, |n| {
            master(n).told = Err(dead());
        }),
        (Level::Fail, Code::MasterIsReplica, |n| {
            role(master(n), RoleReport::Replica);
        }),
        (Level::Fail, Code::MasterLoading, |n| {
            role(master(n), RoleReport::Loading);
        }),
        (Level::Fail, Code::NotADataNode, |n| {
            role(master(n), RoleReport::NotADataNode);
        }),
        (Level::Fail, Code::ProbeLoginRefused, |n| {
            role(master(n), RoleReport::LoginFailed("WRONGPASS".to_owned()));
        }),
        (Level::Fail, Code::ProbeRightMissing, |n| {
            let why = "NOPERM User probe has no permissions to run the 'role' command";
            role(&mut n.replicas[1].1, RoleReport::Refused(why.to_owned()));
        }),
        (Level::Warn, Code::ProbeLoginIgnored, |n| {
            let told = master(n).told.as_mut().expect("it answers");
            told.refused_login = Some("WRONGPASS".to_owned());
        }),
        (Level::Fail, Code::NoReplicas, |n| n.replicas.clear()),
        (Level::Warn, Code::ReplicaMissing, |n| {
            n.replicas.pop();
        }),
        (Level::Fail, Code::ReplicaUnreachable, |n| {
            n.replicas[0].1.told = Err(dead());
        }),
        // It takes connections and does not answer.
        (Level::Fail, Code::ReplicaUnreachable, |n| {
            role(&mut n.replicas[0].1, RoleReport::Failed("late".to_owned()));
        }),
        (Level::Fail, Code::MasterUnreachable, |n| {
            role(master(n), RoleReport::Failed("late".to_owned()));
        }),
        (Level::Fail, Code::ReplicaIsMaster, |n| {
            role(&mut n.replicas[0].1, RoleReport::Master);
        }),
        (Level::Warn, Code::ReplicaBehind, |n| {
            n.replicas[0].0.lag = 100_000_000;
        }),
        (Level::Fail, Code::ReplicaAddressLoopback, |n| {
            n.replicas[0].1.reached = at("127.0.0.1:6379");
        }),
        (Level::Warn, Code::MinReplicasUnset, |n| {
            n.min_replicas = Some(Ok(0));
        }),
        (Level::Warn, Code::MinReplicasNotLookedAt, |n| {
            n.min_replicas = Some(Err(ClientError::NoPermission("NOPERM".to_owned())));
        }),
        (Level::Warn, Code::MasterNotLookedAt, |n| n.master = None),
    ];
    for (number, (level, code, change)) in cases.iter().enumerate() {
        let findings = said_of(change);
        assert_eq!(
            first(&findings),
            (*level, *code),
            "case {number}: {findings:?}"
        );
        assert!(findings[0].hint.is_some(), "case {number}: {findings:?}");
    }
    // Without a login a hidden role is believed by `verify = "auto"` and by nobody else.
    for (verify, level) in [(Verify::Auto, Level::Warn), (Verify::Role, Level::Fail)] {
        let findings = said_of(|n| {
            n.has_login = false;
            n.verify = verify;
            role(master(n), noauth());
        });
        assert_eq!(first(&findings), (level, Code::ProbeLoginNeeded));
    }
}

#[test]
fn a_loopback_address_is_right_only_where_its_sentinel_is_here() {
    let judged = |peer: &str| {
        let mut facts = healthy();
        facts.master = Some(node("127.0.0.1:6379", RoleReport::Master));
        let mut witness = sentinel(0);
        told(&mut witness).peer = peer.parse().expect("an address");
        view(&mut witness).master = NodeAddr(at("127.0.0.1:6379"));
        let mut findings = nodes::judge(&facts, &[witness], 0, &AddressMap::default());
        sort(&mut findings);
        first(&findings)
    };
    assert_eq!(judged("127.0.0.1:26379").0, Level::Ok);
    let remote = judged("10.0.0.2:26379");
    assert_eq!(remote, (Level::Fail, Code::MasterAddressLoopback));
}

fn host() -> Host {
    Host {
        warnings: Vec::new(),
        sentinels: 3,
        proxies: 1,
        open_files: Some(65_536),
        port_range: Some((32_768, 60_999)),
        doors: Vec::new(),
        running: None,
        only_roots: Vec::new(),
        certificates: Vec::new(),
        now: Duration::ZERO,
    }
}

fn running(listen: &str) -> Running {
    Running {
        pid: 7,
        listen: vec![listen.to_owned()],
        headlines: vec!["Serving".to_owned()],
        live: true,
    }
}

fn said_here(change: impl FnOnce(&mut Host)) -> Vec<Finding> {
    let mut facts = host();
    change(&mut facts);
    let mut findings = local::judge(&facts);
    sort(&mut findings);
    findings
}

fn taken(by: &str, of: DoorOf) -> Door {
    let addr = "127.0.0.1:6379".parse().expect("an address");
    let holder = listener::Holder {
        pid: 7,
        name: by.to_owned(),
    };
    Door {
        addr: ListenAddr::Tcp(addr),
        of,
        bind: Err(listener::BindError::PortTaken {
            addr,
            holder: (!by.is_empty()).then_some(holder),
        }),
    }
}

#[test]
fn faults_of_this_host() {
    assert!(said_here(|_| {}).iter().all(|f| f.level == Level::Ok));
    let narrow = said_here(|host| host.port_range = Some((50_000, 50_999)));
    assert_eq!(first(&narrow), (Level::Warn, Code::NarrowPortRange));
    let words = "1000 connections to one master at once, and 16 new ones a second";
    assert!(narrow[0].message.contains(words), "{}", narrow[0].message);
    let within = said_here(|host| host.port_range = Some((6000, 60_999)));
    assert_eq!(first(&within).0, Level::Ok);
    let within = said_here(|host| {
        host.port_range = Some((6000, 60_999));
        host.doors.push(Door {
            bind: Ok(()),
            ..taken("", DoorOf::Clients)
        });
    });
    assert_eq!(first(&within), (Level::Warn, Code::PortInRange));
    let secret = |host: &mut Host| {
        let path = "/etc/switchmaster/sentinel_password";
        host.only_roots = vec![("password", path.into())];
    };
    let unread = said_here(secret);
    assert_eq!(first(&unread), (Level::Warn, Code::ConfigWarning));
    assert!(
        unread[0]
            .message
            .contains("only root may read this password")
    );
    let few = said_here(|host| host.open_files = Some(1024));
    assert_eq!(first(&few), (Level::Warn, Code::FewOpenFiles));
    assert!(few[0].message.contains("384 sessions"), "{few:?}");
    let warned = said_here(|host| host.warnings.push("unknown variable".to_owned()));
    assert_eq!(first(&warned), (Level::Warn, Code::ConfigWarning));
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    for (days, level, code) in [
        (31, Level::Ok, Code::CertificateValid),
        (29, Level::Warn, Code::CertificateExpiresSoon),
        (6, Level::Fail, Code::CertificateExpiresSoon),
        (0, Level::Fail, Code::CertificateExpired),
    ] {
        let findings = said_here(|host| {
            host.now = 20_000 * DAY + Duration::from_secs(1);
            host.certificates.push(Certificate {
                leg: "client",
                proxy: "main".to_owned(),
                validity: Validity {
                    path: "/etc/switchmaster/server.crt".into(),
                    not_before: Duration::ZERO,
                    not_after: (20_000 + days) * DAY,
                },
            });
        });
        let found = findings.iter().find(|finding| finding.code == code);
        let found = found.unwrap_or_else(|| panic!("{days}: {findings:?}"));
        assert_eq!(found.level, level, "{found:?}");
        assert!(found.subject.contains("server.crt"), "{found:?}");
        assert!(
            found.message.contains("client of proxy \"main\""),
            "{found:?}"
        );
        assert_eq!(found.hint.is_some(), level != Level::Ok, "{found:?}");
    }
    let stuck = said_here(|host| {
        host.doors.push(taken("switchmaster", DoorOf::Clients));
        host.running = Some(Running {
            live: false,
            ..running("127.0.0.1:6379")
        });
    });
    assert_eq!(first(&stuck), (Level::Fail, Code::ProxyStuck));
}

#[test]
fn a_taken_port_names_its_holder_unless_that_is_the_proxy() {
    let findings = said_here(|host| host.doors.push(taken("redis-server", DoorOf::Clients)));
    assert_eq!(first(&findings), (Level::Fail, Code::PortTaken));
    assert!(findings[0].message.contains("redis-server (pid 7)"));
    let hint = findings[0].hint.as_deref().expect("two ways out");
    assert!(
        hint.contains("systemctl disable --now redis-server"),
        "{hint}"
    );
    assert!(hint.contains("--listen"), "{hint}");

    let own = said_here(|host| host.doors.push(taken("switchmaster", DoorOf::Clients)));
    assert_eq!(first(&own).0, Level::Ok);
    // Another user's process shows no name; the proxy that answers says where it listens.
    for (listen, level) in [("127.0.0.1:6379", Level::Ok), ("127.0.0.1:1", Level::Fail)] {
        let findings = said_here(|host| {
            host.doors.push(taken("", DoorOf::Clients));
            host.running = Some(running(listen));
        });
        assert_eq!(first(&findings).0, level);
    }
    let admin = said_here(|host| host.doors.push(taken("nginx", DoorOf::Admin)));
    assert_eq!(first(&admin), (Level::Warn, Code::PortTaken));
    let admin = said_here(|host| host.doors.push(taken("nginx", DoorOf::AdminRequired)));
    assert_eq!(first(&admin), (Level::Fail, Code::PortTaken));
    let admin = said_here(|host| {
        host.doors.push(taken("switchmaster", DoorOf::Admin));
        host.running = Some(running("127.0.0.1:1"));
    });
    assert_eq!(
        first(&admin),
        (Level::Warn, Code::PortTaken),
        "another proxy's"
    );
}
