//! One planned failover under steady writers, and what it lost: row 5, for its test and for its bench.

use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::Value;

use super::history::{Outcome, Writers};
use super::proxy::{Plan, Proxy};
use super::topology::{FOLLOW, Switch, Topology, follows};

/// Writers on kept connections.
pub(crate) const WRITERS: usize = 10;
/// Between an acknowledgement and the writer's next write: about 500 writes a second, all together.
const PACE: Duration = Duration::from_millis(20);
/// They write so long before the failover.
const STEADY: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) switch: Switch,
    /// Writes that were acknowledged before, during and after.
    pub(crate) acknowledged: usize,
    /// Those of them that the new master does not hold.
    pub(crate) lost: usize,
    /// Writes that were answered with an error.
    pub(crate) refused: usize,
    /// Writes that were never answered.
    pub(crate) unknown: usize,
    /// Connections that a writer had to make again.
    pub(crate) disconnects: usize,
    /// The longest that no writer at all was acknowledged a write: from the old master's last word to the new one's first.
    pub(crate) silence: (SystemTime, SystemTime),
    /// The longest that any writer went between two acknowledgements.
    pub(crate) pause: Duration,
}

impl Planned {
    /// Writes of which a writer did not hear that they were done.
    pub(crate) fn errors(&self) -> usize {
        self.refused + self.unknown
    }
}

/// A proxy that waits for nothing, neither for an announced promotion nor for a master.
pub(crate) fn without_hold(servers: &Topology) -> Proxy {
    let plan = Plan::following(&servers.sentinels());
    Proxy::ready(plan.env("SWITCHMASTER_FAILOVER_HOLD_MAX", "0s"))
}

/// A proxy that goes to an announced successor on its own word.
pub(crate) fn believing(servers: &Topology) -> Proxy {
    let plan = Plan::following(&servers.sentinels());
    Proxy::ready(plan.env("SWITCHMASTER_FAILOVER_CONFIRM", "role"))
}

/// Empties the servers, lets the writers write through this proxy, and fails over by this Sentinel.
pub(crate) fn planned_failover(servers: &Topology, proxy: &Proxy, sentinel: usize) -> Planned {
    let emptied = servers.direct(servers.master().addr()).call(&["FLUSHALL"]);
    assert_eq!(emptied.ok(), Some(Value::Simple("OK".to_owned())));
    let writers = Writers::start(proxy.addr(), WRITERS, PACE);
    writers.all_acknowledged_after(SystemTime::now() + STEADY, STEADY + FOLLOW);

    let mark = proxy.mark();
    let switch = servers.fail_over(sentinel);
    let switched = follows(proxy, mark, switch);
    writers.all_acknowledged_after(switched.written(), FOLLOW);
    let history = writers.stop();
    let mut master = servers.direct(switch.new);
    history.assert_at_most_once(&mut master);
    Planned {
        switch,
        acknowledged: history.count(|o| *o == Outcome::Ok),
        lost: history.lost(&mut master).len(),
        refused: history.count(|o| matches!(o, Outcome::Refused(_))),
        unknown: history.count(|o| *o == Outcome::Unknown),
        disconnects: history.reconnects.iter().sum(),
        silence: history.longest_silence(),
        pause: history.longest_pause(),
    }
}
