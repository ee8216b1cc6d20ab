//! A planned failover in which the old master takes part: `SENTINEL FAILOVER <name> COORDINATED` of Valkey 9. The
//! Sentinels elect a leader, it has the master pause writes and hand over to its successor when that has everything,
//! and closes both nodes' clients. What hung in the pause was never executed, but who sent it cannot know.

use std::time::Duration;

use switchmaster::demo::server::Family;
use switchmaster::demo::wire::Conn;

use crate::harness;
use crate::harness::history::{Outcome, Writers};
use crate::harness::topology::{FOLLOW, Topology, follows, idle_client, loses_upstream, serves};

const PACE: Duration = Duration::from_millis(1);
const ROUNDS: usize = 3;

#[test]
#[ignore = "needs Valkey 9 or newer; scripts/test runs it there"]
fn valkey_9_coordinated_failover_with_steady_writers() {
    let server = harness::server();
    assert!(
        server.family() == Family::Valkey && server.version().major >= 9,
        "{server} knows no coordinated failover"
    );
    let servers = Topology::start();
    let proxy = servers.proxy();
    let writers = Writers::start(proxy.addr(), 4, PACE);
    let mut last = servers.master().addr();
    for round in 0..ROUNDS {
        let mut idle = idle_client(&proxy);
        let mark = proxy.mark();

        let switch = servers.fail_over_coordinated(round % 3);
        let switched = follows(&proxy, mark, switch);
        assert_eq!(switch.old, last);
        let hold = proxy.event_after(mark, "hold_begin", FOLLOW);
        assert!(hold.index < switched.index, "{}", hold.fields);
        assert_eq!(hold.text("cause"), "announced", "{}", hold.fields);
        assert_eq!(proxy.events(mark, "switched").len(), 1, "once each");
        // Otherwise Sentinel demotes it no sooner than 8 s after the switch.
        assert_eq!(
            role(&mut servers.direct(switch.old)),
            "slave",
            "it handed over itself"
        );
        loses_upstream(&mut idle, FOLLOW);
        writers.all_acknowledged_after(switched.written(), FOLLOW);
        serves(&proxy, switch.new, FOLLOW);
        last = switch.new;
        assert_eq!(servers.ready_again(switch), last);
    }
    let history = writers.stop();

    let mut master = servers.direct(last);
    history.assert_at_most_once(&mut master);
    // Clients were held and the master paused before the promotion, so nothing acknowledged is missing.
    history.assert_nothing_lost(&mut master);
    // The old masters are replicas and refuse writes: one that came after the fence would be seen here.
    assert_eq!(
        history.count(|o| matches!(o, Outcome::Refused(_))),
        0,
        "neither a demoted master's error nor an invented one"
    );
    let unknown = history.count(|o| *o == Outcome::Unknown);
    println!("{} writes, {unknown} of them unknown", history.writes.len());
    assert!(
        history.reconnects.iter().all(|n| *n <= ROUNDS),
        "one reconnect a failover at most: {:?}",
        history.reconnects
    );
}

fn role(conn: &mut Conn) -> String {
    let role = conn.call(&["ROLE"]).expect("the node answers");
    let said = role.items().first().and_then(|word| word.text());
    said.expect("ROLE begins with a word")
}
