//! One failover after another: row 21. Its half about announcements that come to nothing is in `announced`.

use std::time::Duration;

use switchmaster::demo::wire::Conn;

use crate::harness::history::{Outcome, Writers};
use crate::harness::topology::{FOLLOW, Topology, follows, idle_client, loses_upstream, serves};
use crate::harness::wait_until;

const PACE: Duration = Duration::from_millis(1);
const FAILOVERS: usize = 5;
/// Allocators keep some of what was once used.
const MORE_KIB: u64 = 3 * 1024;

#[test]
fn row_21_five_planned_failovers_in_a_row() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    drop(idle_client(&proxy));
    let mut before = None;
    let writers = Writers::start(proxy.addr(), 4, PACE);
    let mut last = None;
    for round in 0..FAILOVERS {
        let mut idle: Vec<Conn> = (0..50).map(|_| idle_client(&proxy)).collect();
        let mark = proxy.mark();
        let switch = servers.fail_over(round % 3);
        let switched = follows(&proxy, mark, switch);
        for client in &mut idle {
            loses_upstream(client, FOLLOW);
        }
        drop(idle);
        writers.all_acknowledged_after(switched.written(), FOLLOW);
        serves(&proxy, switch.new, FOLLOW);
        assert_eq!(proxy.events(mark, "switched").len(), 1, "once each");
        if round + 1 < FAILOVERS {
            servers.ready_again(switch);
        }
        // After the first: what is allocated once was.
        let (fds, kib) = *before.get_or_insert_with(|| (proxy.open_fds(), proxy.rss_kib()));
        wait_until("descriptors as after the first", FOLLOW, || {
            proxy.open_fds() <= fds
        });
        let now_kib = proxy.rss_kib();
        assert!(now_kib <= kib + MORE_KIB, "{kib} KiB became {now_kib}");
        last = Some(switch.new);
    }
    let history = writers.stop();
    let mut master = servers.direct(last.expect("five rounds"));
    history.assert_at_most_once(&mut master);
    // Held each time, so nothing acknowledged is missing.
    history.assert_nothing_lost(&mut master);
    assert_eq!(
        history.count(|o| matches!(o, Outcome::Refused(_))),
        0,
        "no invented errors"
    );
    assert!(
        history.reconnects.iter().all(|n| *n <= FAILOVERS),
        "one reconnect a failover at most: {:?}",
        history.reconnects
    );
}
