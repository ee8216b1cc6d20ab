//! Connects at a steady rate over a link between two network namespaces: a sidecar and its applications here, the servers there.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value};

use crate::Size;
use crate::harness::flood::{Ask, Flood, Flooded};
use crate::harness::network::Network;
use crate::harness::sockets::{self, TIME_WAIT};
use crate::harness::split::{Side, Split};
use crate::page::{Cell, Part};
use crate::subject::{CLOSING, HAPROXY_TCP, Running, SWITCHMASTER, Subject, WITHOUT_SPARES};

/// Clients at once: far more than a proxy needs that keeps up.
const AT_MOST: usize = 2000;
/// The value that each client asks for, and the question.
pub(crate) const VALUE: [u8; 64] = [b'v'; 64];
pub(crate) const KEY: &str = "k";
const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
/// `$64`, the value, and two line ends.
const GET_REPLY: usize = 5 + VALUE.len() + 2;
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const REUSE: &str = "/proc/sys/net/ipv4/tcp_tw_reuse";
/// So few that they last for six seconds of a thousand connects.
const FEW_PORTS: (u16, u16) = (32_768, 38_767);
/// Reuse of a port in TIME_WAIT for a new connection: on loopback only, which is the default, and everywhere.
const REUSE_ON_LOOPBACK: &str = "2";
const REUSE_EVERYWHERE: &str = "1";

const COLUMNS: [&str; 10] = [
    "program",
    "connects/s",
    "answered",
    "errors",
    "put off",
    "p50 ms",
    "p99 ms",
    "server connections",
    "TIME_WAIT here",
    "us of CPU each",
];

/// GET on a connection of its own.
pub(crate) fn get(to: SocketAddr, per_second: u32) -> Ask {
    Ask {
        to,
        per_second,
        at_most: AT_MOST,
        request: GET,
        reply: GET_REPLY,
    }
}

/// One program, measured.
#[derive(Debug)]
pub(crate) struct Churned {
    pub(crate) flooded: Flooded,
    /// Connections that the master took meanwhile.
    pub(crate) dials: u64,
    pub(crate) cpu: Duration,
}

/// `--churn`
pub(crate) fn steady(size: &Size) -> Part {
    let title = format!(
        "connect, GET 64 B, close: {} a second offered for {} s, over a link between two network namespaces",
        size.rate, size.seconds
    );
    let Some(network) = Network::make() else {
        return Part::left_out(&title, "not root, so no network namespace");
    };
    let servers = Split::start(network, [Side::Far; 3], [Side::Far; 3]);
    let mut part = Part::new(title, &COLUMNS);
    let seconds = Duration::from_secs(size.seconds as u64);
    for (number, subject) in (0..).zip([SWITCHMASTER, WITHOUT_SPARES, HAPROXY_TCP]) {
        let (churned, time_waits) = one(
            &servers,
            number,
            &subject,
            subject.label,
            size.rate,
            seconds,
            &mut part,
        );
        if subject.label != HAPROXY_TCP.label {
            let (failed, errors) = (churned.flooded.failed(), &churned.flooded.errors);
            part.expect(
                failed == 0,
                format!("{}: {failed} errors: {errors:?}", subject.label),
            );
            part.expect(
                time_waits == 0,
                format!("{}: {time_waits} ports in TIME_WAIT", subject.label),
            );
        }
    }
    part.note("server connections: that the master took meanwhile (INFO stats), the few of the Sentinels among them");
    part.note("TIME_WAIT here: towards the master when the last client had gone; the servers had none unless it is said");
    part
}

/// `--ports`
pub(crate) fn few_ports(size: &Size) -> Part {
    let ports = FEW_PORTS.1 - FEW_PORTS.0 + 1;
    let seconds = Duration::from_secs(size.seconds.div_ceil(4) as u64);
    let title = format!(
        "the same with {ports} ports (net.ipv4.ip_local_port_range), {} a second for {seconds:?}",
        size.rate
    );
    let Some(network) = Network::make() else {
        return Part::left_out(&title, "not root, so no network namespace");
    };
    let servers = Split::start(network, [Side::Far; 3], [Side::Far; 3]);
    let mut part = Part::new(title, &COLUMNS);
    let before = [PORT_RANGE, REUSE].map(|name| std::fs::read_to_string(name).expect("proc(5)"));
    write(PORT_RANGE, &format!("{} {}", FEW_PORTS.0, FEW_PORTS.1));
    for (number, (subject, reuse)) in (10..).zip([
        (SWITCHMASTER, REUSE_ON_LOOPBACK),
        (WITHOUT_SPARES, REUSE_ON_LOOPBACK),
        (CLOSING, REUSE_ON_LOOPBACK),
        (HAPROXY_TCP, REUSE_ON_LOOPBACK),
        (CLOSING, REUSE_EVERYWHERE),
        (HAPROXY_TCP, REUSE_EVERYWHERE),
    ]) {
        write(REUSE, reuse);
        let label = match reuse {
            REUSE_EVERYWHERE => format!("{}; tcp_tw_reuse = 1", subject.label),
            _ => subject.label.to_owned(),
        };
        let (churned, _) = one(
            &servers, number, &subject, &label, size.rate, seconds, &mut part,
        );
        let moves = subject.label != CLOSING.label && subject.label != HAPROXY_TCP.label;
        let failed = churned.flooded.failed();
        part.expect(!moves || failed == 0, format!("{label}: {failed} errors"));
    }
    for (name, value) in [PORT_RANGE, REUSE].iter().zip(before) {
        write(name, value.trim());
    }
    part
}

/// One program; its row, and its ports in TIME_WAIT.
fn one(
    servers: &Split,
    number: u8,
    subject: &Subject,
    label: &str,
    rate: u32,
    seconds: Duration,
    part: &mut Part,
) -> (Churned, usize) {
    let master = servers.nodes[0].addr;
    let own = servers.network.speak_as(number);
    let running = subject.start(&servers.sentinel_addrs(), master);
    let churned = churn(&running, &mut servers.direct(master), rate, seconds);
    let here = std::fs::read_to_string("/proc/net/tcp").expect("proc(5)");
    let time_waits = sockets::between(&here, own, master, TIME_WAIT);
    let there = sockets::at(&servers.network.sockets(), master, TIME_WAIT);
    part.row(row(label, &churned, Some(time_waits)));
    if there > 0 {
        part.note(format!(
            "{label}: {there} connections in TIME_WAIT at the server"
        ));
    }
    if !churned.flooded.errors.is_empty() {
        part.note(format!("{label}: {:?}", churned.flooded.errors));
    }
    if let Some(no_port) = running.no_port().filter(|count| *count > 0.0) {
        part.note(format!(
            "{label}: {no_port} dials found no port, and were made again"
        ));
    }
    (churned, time_waits)
}

/// Connects through this program, while it is looked how many the master takes.
pub(crate) fn churn(running: &Running, master: &mut Conn, rate: u32, lasting: Duration) -> Churned {
    let set = master.call(&[&b"SET"[..], KEY.as_bytes(), &VALUE]);
    assert_eq!(set.ok(), Some(Value::Simple("OK".to_owned())));
    let before = connections(master);
    let taking = running.taking();
    let flood = Flood::start(get(running.addr, rate));
    thread::sleep(lasting);
    let flooded = flood.stop();
    let (cpu, _) = taking.end();
    Churned {
        flooded,
        dials: connections(master) - before,
        cpu: cpu[0],
    }
}

/// The figures of one program in the order of the columns.
pub(crate) fn row(label: &str, churned: &Churned, time_waits: Option<usize>) -> Vec<Cell> {
    let flooded = &churned.flooded;
    let answered = flooded.micros.len();
    vec![
        label.into(),
        Cell::Number(flooded.per_second(), 0),
        answered.into(),
        flooded.failed().into(),
        flooded.put_off.into(),
        flooded.quantile_ms(500).into(),
        flooded.quantile_ms(990).into(),
        churned.dials.into(),
        time_waits.map_or(Cell::None, Cell::from),
        Cell::Number(churned.cpu.as_secs_f64() * 1e6 / answered.max(1) as f64, 0),
    ]
}

/// The columns of [`row`].
pub(crate) fn columns() -> &'static [&'static str] {
    &COLUMNS
}

fn connections(master: &mut Conn) -> u64 {
    let info = master
        .call(&["INFO", "stats"])
        .ok()
        .and_then(|info| info.text());
    info.unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("total_connections_received:"))
        .and_then(|number| number.trim().parse().ok())
        .expect("INFO stats tells connections")
}

fn write(name: &str, value: &str) {
    std::fs::write(name, value).unwrap_or_else(|e| panic!("{name}: {e}"));
}
