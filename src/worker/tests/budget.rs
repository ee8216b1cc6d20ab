//! What is kept of what clients say while there is no upstream is bounded over all of them.

use super::words::*;
use super::*;
use crate::session::SHARE;

const CLIENTS: usize = 6;
const SHARES: usize = 2;
/// Requests of one client: three times what is kept of it.
const REQUESTS: usize = 3 * SHARE / PING.len();

/// Clients that had a master and have lost it, each saying much; those that are read at all have said so.
fn outage() -> (Rig, Vec<TcpStream>) {
    let first = upstream();
    let options = Options {
        moves: true,
        workers: Some(2),
        budget: Budget::of(SHARES * SHARE),
        ..Options::default()
    };
    let mut rig = Rig::with(LONG, options);
    rig.serve(1, &first);
    let joined = (0..CLIENTS).map(|_| {
        let mut client = rig.connect();
        let mut master = accept(&first);
        client.write_all(PING).expect("write");
        assert_eq!(read(&mut master, PING.len()), PING);
        master.write_all(PONG).expect("write");
        assert_eq!(read(&mut client, PONG.len()), PONG);
        (client, master)
    });
    let (mut clients, masters): (Vec<_>, Vec<_>) = joined.unzip();
    rig.hold();
    drop((first, masters));
    // What one of them reads in the instant in which it loses its master is kept whether there is a share for it or not.
    wait_until("all have lost it", || {
        let upstreams = rig.publisher.upstreams(0);
        upstreams.is_some_and(|upstreams| upstreams.open == 0)
    });
    let much = PING.repeat(REQUESTS);
    for client in &mut clients {
        client.write_all(&much).expect("the kernels have room");
    }
    let sessions = || rig.counters().sessions;
    wait_until("two to be read, and four not", || {
        sessions().unread == (CLIENTS - SHARES) as u64
            && sessions().kept == (SHARES * SHARE) as u64
            && sessions().waiting == SHARES as u64
    });
    (rig, clients)
}

#[test]
fn what_is_said_in_an_outage_is_bounded_and_all_of_it_is_served_behind_it() {
    let (mut rig, mut clients) = outage();
    let deadline = Instant::now() + WATCH;
    while Instant::now() < deadline {
        let kept = rig.counters().sessions.kept;
        assert!(kept <= (SHARES * SHARE) as u64, "{kept} bytes");
    }
    let second = upstream();
    rig.serve(2, &second);
    let masters: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut master = accept(&second);
            std::thread::spawn(move || {
                let heard = read(&mut master, REQUESTS * PING.len());
                assert_eq!(heard, PING.repeat(REQUESTS));
                master.write_all(&PONG.repeat(REQUESTS)).expect("write");
                master
            })
        })
        .collect();
    for client in &mut clients {
        assert_eq!(read(client, REQUESTS * PONG.len()), PONG.repeat(REQUESTS));
    }
    for master in masters {
        master.join().expect("heard all of it");
    }
    let sessions = rig.counters().sessions;
    assert_eq!((sessions.kept, sessions.unread), (0, 0));
    assert_eq!(sessions.active(), CLIENTS as u64);
}

#[test]
fn whoever_leaves_makes_room() {
    let (rig, mut clients) = outage();
    // Those that are not read are found to have left when it is their turn.
    clients.clear();
    wait_until("all are gone", || {
        let sessions = rig.counters().sessions;
        (sessions.active(), sessions.kept, sessions.unread) == (0, 0, 0)
    });
}
