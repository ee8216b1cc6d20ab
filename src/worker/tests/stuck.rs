//! A worker whose thread is stuck: whoever looks after the process can tell, though it cannot say so itself.

use std::sync::Mutex;

use super::*;

/// Nobody who turns is idle for so long; four beats.
const IDLE: Duration = Duration::from_secs(1);

/// Recording a dial stops the worker's thread until the gate is open.
struct Gate(Arc<Mutex<()>>);

impl metrics::HistogramFn for Gate {
    fn record(&self, _: f64) {
        drop(self.0.lock().expect("nobody panics with it"));
    }
}

#[test]
fn a_thread_that_stands_still_is_seen_until_it_turns_again() {
    let upstream = upstream();
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().expect("nobody else has it");
    let mut rig = Rig::with(
        LONG,
        Options {
            workers: Some(2),
            dials: Some(metrics::Histogram::from_arc(Arc::new(Gate(Arc::clone(
                &gate,
            ))))),
            ..Options::default()
        },
    );
    rig.serve(1, &upstream);
    let hearts = rig.pool.as_ref().expect("running").hearts();
    let standing = || hearts.idle(now()).filter(|idle| *idle > IDLE).count();
    let client = rig.connect();
    wait_until("one of the two to stand still", || standing() == 1);
    drop(closed);
    wait_until("both to turn", || standing() == 0);
    drop(client);
    rig.shutdown();
    // Who has ended is not stuck.
    let later = now() + LONG;
    assert!(hearts.idle(later).all(|idle| idle.is_zero()));
}
