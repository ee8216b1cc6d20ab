//! A network namespace of one's own: addresses behind a real link, whose packets can be made to vanish.
//!
//! ```text
//! this machine  10.a.b.1 ==== data ==== 10.a.b.2 .. 9   namespace
//!               10.a.c.1 -- management -- 10.a.c.2
//! ```
//! Packets to a cut address leave for a hardware address that nobody has: no refusal, no error, as on a path that is
//! broken somewhere else. The management link is never cut; tests look over it at what the other side does.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The last octet of the first address in the namespace.
const FIRST: u8 = 2;
/// Addresses in the namespace.
const ADDRESSES: u8 = 8;
/// Locally administered, and on no machine.
const NOBODY: &str = "02:00:5e:00:53:fe";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The namespace and its two links; gone with the value.
#[derive(Debug)]
pub(crate) struct Network {
    name: String,
    /// 10.a.b
    prefix: [u8; 3],
}

impl Network {
    /// Makes one; `None`, with a word why, for everybody but root.
    ///
    /// # Panics
    /// When root lacks the tools: a test that was asked for is not skipped.
    pub(crate) fn make() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!(
                "not root, so no network namespace: the stand-in by relays is what was tested"
            );
            return None;
        }
        let id = std::process::id();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // 10.64.0.0/10 in pairs of /24, away from what containers and virtual machines usually take.
        let prefix = [10, 64 + fastrand::u8(..64), 2 * fastrand::u8(..127)];
        // Interface names have 15 characters at most.
        let network = Self {
            name: format!("sm{id}n{number}"),
            prefix,
        };
        network.set_up();
        Some(network)
    }

    fn set_up(&self) {
        let name = &self.name;
        ip(&format!("netns add {name}"));
        self.inside("link set lo up");
        for (kind, subnet, hosts) in [('d', self.prefix, ADDRESSES), ('m', self.management(), 1)] {
            let [a, b, c] = subnet;
            let (near, far) = (self.link(kind), format!("far{kind}"));
            ip(&format!(
                "link add {near} type veth peer name {far} netns {name}"
            ));
            ip(&format!("addr add {a}.{b}.{c}.1/24 dev {near}"));
            ip(&format!("link set {near} up"));
            for host in FIRST..FIRST + hosts {
                self.inside(&format!("addr add {a}.{b}.{c}.{host}/24 dev {far}"));
            }
            self.inside(&format!("link set {far} up"));
        }
    }

    /// The address of this machine on the data link.
    pub(crate) fn near(&self) -> Ipv4Addr {
        self.host(1)
    }

    /// An address in the namespace.
    pub(crate) fn far(&self, index: u8) -> Ipv4Addr {
        assert!(index < ADDRESSES, "the namespace has {ADDRESSES} addresses");
        self.host(FIRST + index)
    }

    /// Where a port of the namespace is reached whatever is cut.
    pub(crate) fn managed(&self, port: u16) -> SocketAddr {
        let [a, b, c] = self.management();
        (Ipv4Addr::new(a, b, c, FIRST), port).into()
    }

    /// `ip netns exec` for this namespace: the program takes the place of the process that is started.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        command
    }

    /// Sets `net.ipv4.NAME` of the namespace.
    pub(crate) fn set(&self, name: &str, value: &str) {
        let set = r#"echo "$1" > "/proc/sys/net/ipv4/$0""#;
        let output = self.command().args(["sh", "-c", set, name, value]).output();
        let output = output.expect("a shell");
        assert!(
            output.status.success(),
            "net.ipv4.{name} = {value}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The sockets of the namespace, as proc(5) shows `/proc/net/tcp`.
    pub(crate) fn sockets(&self) -> String {
        let output = self.command().args(["cat", "/proc/net/tcp"]).output();
        String::from_utf8(output.expect("cat").stdout).expect("text")
    }

    /// From now on connections from here to the namespace come from another address of this side, 100 and this number:
    /// what earlier ones left in TIME_WAIT does not matter to them.
    pub(crate) fn speak_as(&self, number: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        let (host, link) = (100 + number, self.link('d'));
        ip(&format!("addr add {a}.{b}.{c}.{host}/24 dev {link}"));
        ip(&format!(
            "route replace {a}.{b}.{c}.0/24 dev {link} src {a}.{b}.{c}.{host}"
        ));
        self.host(host)
    }

    /// From now on nothing reaches this address of the namespace over the data link.
    pub(crate) fn cut(&self, far: Ipv4Addr) {
        let link = self.link('d');
        ip(&format!(
            "neigh replace {far} lladdr {NOBODY} dev {link} nud permanent"
        ));
    }

    /// It does again.
    pub(crate) fn heal(&self, far: Ipv4Addr) {
        ip(&format!("neigh del {far} dev {}", self.link('d')));
    }

    /// From now on nothing passes the data link in either direction.
    pub(crate) fn cut_all(&self) {
        for index in 0..ADDRESSES {
            self.cut(self.far(index));
        }
        let near = self.near();
        self.inside(&format!(
            "neigh replace {near} lladdr {NOBODY} dev fard nud permanent"
        ));
    }

    /// It does again.
    pub(crate) fn heal_all(&self) {
        for index in 0..ADDRESSES {
            self.heal(self.far(index));
        }
        self.inside(&format!("neigh del {} dev fard", self.near()));
    }

    fn host(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, last)
    }

    fn management(&self) -> [u8; 3] {
        let [a, b, c] = self.prefix;
        [a, b, c + 1]
    }

    fn link(&self, kind: char) -> String {
        format!("{}{kind}", self.name)
    }

    fn inside(&self, args: &str) {
        ip(&format!("-n {} {args}", self.name));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for kind in ['d', 'm'] {
            // The far end goes with the near one. A test that failed early may have neither.
            let link = self.link(kind);
            drop(Command::new("ip").args(["link", "del", &link]).output());
        }
        drop(
            Command::new("ip")
                .args(["netns", "del", &self.name])
                .output(),
        );
    }
}

fn ip(args: &str) {
    let output = Command::new("ip")
        .args(args.split(' '))
        .output()
        .unwrap_or_else(|e| {
            panic!("ip {args}: {e}: install iproute2, or run scripts/setup network")
        });
    assert!(
        output.status.success(),
        "ip {args}: {}: real partitions need the right to make network namespaces (CAP_NET_ADMIN and CAP_SYS_ADMIN; \
         in a container: --privileged)",
        String::from_utf8_lossy(&output.stderr).trim()
    );
}
