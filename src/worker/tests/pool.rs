//! Listeners, workers, and the end.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use super::*;

#[test]
fn a_generation_without_sessions_is_acknowledged_at_once() {
    let mut rig = Rig::with(
        LONG,
        Options {
            workers: Some(3),
            ..Options::default()
        },
    );
    rig.serve(1, &upstream());
    rig.wait_acknowledged(1);
    assert_eq!(in_time(rig.publisher.acknowledged(Generation(1))).cut, 0);
}

#[test]
fn workers_get_the_same_number_of_sessions() {
    let upstream = upstream();
    let mut rig = Rig::with(
        LONG,
        Options {
            workers: Some(2),
            ..Options::default()
        },
    );
    rig.serve(1, &upstream);
    let _joined: Vec<_> = (0..20).map(|_| rig.join(&upstream)).collect();
    let tallies = rig.pool.as_ref().expect("running").tallies();
    let counting = tallies.find(0).expect("the one entry");
    let tallies = &counting.0.tallies;
    let opened: Vec<_> = tallies.iter().map(|t| t.opened.read()).collect();
    assert_eq!(opened, [10, 10]);
    let successor = super::upstream();
    rig.serve(2, &successor);
    rig.wait_acknowledged(2);
    assert_eq!(in_time(rig.publisher.acknowledged(Generation(2))).cut, 20);
}

#[test]
fn peers_that_are_not_allowed_are_turned_away() {
    let options = Options {
        listen: Some(ListenAddr::Tcp(([0, 0, 0, 0], 0).into())),
        allow_from: vec!["10.0.0.0/8".parse().expect("net")],
        ..Options::default()
    };
    let mut rig = Rig::with(LONG, options);
    rig.addr.set_ip([127, 0, 0, 1].into());
    let mut client = rig.connect();
    assert_eq!(read_to_end(&mut client), b"");
    assert_eq!(rig.counters().refused_not_allowed, 1);
    assert_eq!(rig.counters().sessions.opened, 0);
}

#[test]
fn no_more_than_max_connections_and_places_come_free() {
    let upstream = upstream();
    let options = Options {
        max_connections: 1,
        ..Options::default()
    };
    let mut rig = Rig::with(LONG, options);
    rig.serve(1, &upstream);
    let first = rig.join(&upstream);
    assert_eq!(read_to_end(&mut rig.connect()), b"");
    assert_eq!(rig.counters().refused_full, 1);
    drop(first);
    rig.wait_closed(CloseReason::ClientClosed, 1);
    let _second = rig.join(&upstream);
}

#[test]
fn no_more_sessions_than_the_most_there_may_be_whatever_max_connections_says() {
    let upstream = upstream();
    let options = Options {
        workers: Some(2),
        max_connections: 100,
        sessions_max: Some(3),
        ..Options::default()
    };
    let mut rig = Rig::with(LONG, options);
    rig.serve(1, &upstream);
    let mut inside: Vec<_> = (0..3).map(|_| rig.join(&upstream)).collect();
    assert_eq!(read_to_end(&mut rig.connect()), b"");
    assert_eq!(rig.counters().refused_full, 1);
    inside.pop();
    rig.wait_closed(CloseReason::ClientClosed, 1);
    let _next = rig.join(&upstream);
}

#[test]
fn a_unix_socket_serves_and_is_gone_at_the_end() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("main.sock");
    let upstream = upstream();
    let options = Options {
        workers: Some(2),
        listen: Some(ListenAddr::Unix(path.clone())),
        ..Options::default()
    };
    let mut rig = Rig::with(LONG, options);
    rig.serve(1, &upstream);
    let mode = std::fs::metadata(&path).expect("file").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    // One for each worker: the second crosses threads.
    for _ in 0..2 {
        let mut client = UnixStream::connect(&path).expect("connect");
        client.set_read_timeout(Some(PATIENCE)).expect("timeout");
        client.write_all(b"ping").expect("write");
        client.shutdown(Shutdown::Write).expect("shutdown");
        let mut master = accept(&upstream);
        assert_eq!(read_to_end(&mut master), b"ping");
        master.write_all(b"pong").expect("write");
        drop(master);
        assert_eq!(read_to_end(&mut client), b"pong");
    }
    rig.shutdown();
    assert!(!path.exists());
}

#[test]
fn the_end_closes_sessions_in_order_and_soon() {
    let upstream = upstream();
    let mut rig = Rig::with(
        LONG,
        Options {
            workers: Some(2),
            ..Options::default()
        },
    );
    rig.serve(1, &upstream);
    let mut joined: Vec<_> = (0..4).map(|_| rig.join(&upstream)).collect();
    let tallies = rig.pool.as_ref().expect("running").tallies();
    let tallies = tallies.find(0).expect("the one entry").0.tallies.clone();
    let begin = now();
    rig.shutdown();
    assert!(now().since(begin) < THREADS_END_LIMIT);
    for (client, master) in &mut joined {
        assert_eq!(read_to_end(client), b"");
        assert_eq!(read_to_end(master), b"");
    }
    let mut sum = Sum::default();
    for tally in &tallies {
        sum.add(tally);
    }
    assert_eq!(sum.closed_by(CloseReason::Shutdown), 4);
    assert_eq!(sum.active(), 0);
    let refused = TcpStream::connect(rig.addr).expect_err("still listening");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_worker_that_ends_is_reported() {
    let mut rig = Rig::new(LONG);
    let mut pool = rig.pool.take().expect("running");
    pool.stops.drain.cancel();
    let departed = in_time(pool.departed());
    assert_eq!(
        departed,
        Some(Departed {
            worker: 0,
            panicked: false
        })
    );
    block_on(pool.shutdown());
}

#[test]
fn a_drain_closes_the_listeners_first_and_waits_for_what_was_begun() {
    let upstream = upstream();
    let mut rig = Rig::with(
        LONG,
        Options {
            workers: Some(2),
            moves: true,
            ..Options::default()
        },
    );
    rig.serve(1, &upstream);
    let request = b"*1\r\n$4\r\nPING\r\n";
    let mut busy: Vec<_> = (0..4)
        .map(|_| {
            let mut client = rig.connect();
            client.write_all(request).expect("write");
            let mut master = accept(&upstream);
            assert_eq!(read(&mut master, request.len()), request);
            (client, master)
        })
        .collect();
    let (mut idle, _) = busy.pop().map_or_else(
        || unreachable!("four were made"),
        |(mut client, mut master)| {
            master.write_all(b"+PONG\r\n").expect("write");
            assert_eq!(read(&mut client, 7), b"+PONG\r\n");
            (client, master)
        },
    );
    rig.drain();
    // Whoever follows may listen there, though sessions go on.
    TcpListener::bind(rig.addr).expect("the port is free");
    assert_eq!(read_to_end(&mut idle), b"");
    for (client, master) in &mut busy {
        master.write_all(b"+PONG\r\n").expect("write");
        assert_eq!(read_to_end(client), b"+PONG\r\n");
    }
    drop((idle, busy));
    let mut pool = rig.pool.take().expect("running");
    in_time(pool.drained());
    let sum = &pool.tallies().read()[0].sessions;
    assert_eq!(sum.closed_by(CloseReason::Shutdown), 4);
    assert_eq!(sum.active(), 0);
    block_on(pool.shutdown());
}
