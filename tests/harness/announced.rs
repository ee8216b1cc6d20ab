//! When the first Sentinel says that there is a new master, and when a new client is first answered by it: two witnesses that
//! do not ask the proxy.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value};
use switchmaster::net::clock::{Moment, now};

use super::topology::{FAILOVER, port_of};

/// What a Sentinel says once a promotion is certain; the first of these, of any Sentinel, starts the clock.
const ANNOUNCEMENTS: [&str; 3] = ["+switch-master", "+promoted-slave", "+config-update-from"];
/// Announcements that may wait to be heard; one of them counts.
const QUEUE: usize = 64;
/// Between two attempts of the client; also the error of its measurement.
const ATTEMPT: Duration = Duration::from_micros(500);
/// One attempt of the client: an attempt that is held through the switch is answered at its end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The first word of each of these Sentinels, and by whom it was said.
pub(crate) fn announcements(sentinels: &[SocketAddr]) -> Receiver<(Moment, String)> {
    let (heard, announcements) = sync_channel(QUEUE);
    for sentinel in sentinels {
        listen(*sentinel, heard.clone());
    }
    announcements
}

/// Tells when this Sentinel first announces something. Its own subscription: the proxy is not asked.
fn listen(sentinel: SocketAddr, heard: SyncSender<(Moment, String)>) {
    let mut conn = Conn::connect(sentinel, FAILOVER).expect("the Sentinel runs");
    let mut command = vec!["SUBSCRIBE"];
    command.extend(ANNOUNCEMENTS);
    conn.send(&command).expect("the Sentinel runs");
    for _ in ANNOUNCEMENTS {
        conn.read().expect("a confirmation for each channel");
    }
    thread::spawn(move || {
        while let Ok(message) = conn.read() {
            let when = now();
            if let [_, channel, _] = message.items()
                && let Some(channel) = channel.text()
            {
                // The run may be over, and nobody listens any more.
                drop(heard.try_send((when, format!("{channel} of {sentinel}"))));
                return;
            }
        }
    });
}

/// When a new connection was first answered by a server other than `old`.
pub(crate) fn first_answer_of_another(proxy: SocketAddr, old: SocketAddr) -> Moment {
    let deadline = now() + FAILOVER;
    while now() < deadline {
        if let Ok(mut conn) = Conn::connect(proxy, PATIENCE)
            && conn
                .call(&["PING"])
                .is_ok_and(|r| r == Value::Simple("PONG".to_owned()))
        {
            let answered = now();
            if port_of(&mut conn).is_some_and(|port| port != old.port()) {
                return answered;
            }
        }
        thread::sleep(ATTEMPT);
    }
    panic!("no answer of another server within {FAILOVER:?}");
}
