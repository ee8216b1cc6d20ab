//! What the relay does with bytes, ends and slow peers.

use super::*;

const LARGE: usize = 64 * 1024 * 1024;
/// More than the kernel buffers of four loopback sockets.
const HUGE: usize = 128 * 1024 * 1024;

/// The same bytes for the same seed; any shift, loss or repetition shows.
fn fill(random: &mut fastrand::Rng, chunk: &mut [u8]) {
    random.fill(chunk);
}

/// Writes `total` bytes of this seed in chunks of odd sizes.
fn send(mut to: &TcpStream, seed: u64, total: usize) {
    let mut content = fastrand::Rng::with_seed(seed);
    let mut sizes = fastrand::Rng::with_seed(!seed);
    let mut block = vec![0; BLOCK];
    let mut sent = 0;
    while sent < total {
        fill(&mut content, &mut block);
        let mut rest = &block[..BLOCK.min(total - sent)];
        sent += rest.len();
        while !rest.is_empty() {
            let n = (sizes.usize(..50_000) | 1).min(rest.len());
            to.write_all(&rest[..n]).expect("write");
            rest = &rest[n..];
        }
    }
}

const BLOCK: usize = 128 * 1024;

/// Reads and compares what [`send`] writes.
fn check(mut from: &TcpStream, seed: u64, total: usize) {
    let mut content = fastrand::Rng::with_seed(seed);
    let mut expected = vec![0; BLOCK];
    let mut seen = vec![0; BLOCK];
    let mut checked = 0;
    while checked < total {
        fill(&mut content, &mut expected);
        let n = BLOCK.min(total - checked);
        from.read_exact(&mut seen[..n]).expect("read");
        assert!(
            seen[..n] == expected[..n],
            "differs in the block at {checked}"
        );
        checked += n;
    }
}

#[test]
fn both_ways_at_once_byte_for_byte() {
    let upstream = upstream();
    let rig = Rig::serving(&upstream);
    let (client, master) = rig.join(&upstream);
    std::thread::scope(|s| {
        s.spawn(|| send(&client, 1, LARGE));
        s.spawn(|| check(&master, 1, LARGE));
        s.spawn(|| send(&master, 2, LARGE));
        s.spawn(|| check(&client, 2, LARGE));
    });
    wait_until("counted", || {
        let sessions = rig.counters().sessions;
        sessions.bytes_up == LARGE as u64 + 4 && sessions.bytes_down == LARGE as u64 + 4
    });
}

#[test]
fn a_client_that_ended_still_gets_its_replies() {
    let upstream = upstream();
    let rig = Rig::serving(&upstream);
    let (mut client, mut master) = rig.join(&upstream);
    client.write_all(b"question").expect("write");
    client.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(read_to_end(&mut master), b"question");
    assert_silent(&mut client);
    master.write_all(b"answer").expect("write");
    assert_eq!(read(&mut client, 6), b"answer");
    drop(master);
    assert_eq!(read_to_end(&mut client), b"");
    rig.wait_closed(CloseReason::ClientClosed, 1);
}

#[test]
fn a_master_that_ended_still_gets_what_the_client_sends() {
    let upstream = upstream();
    let rig = Rig::serving(&upstream);
    let (mut client, mut master) = rig.join(&upstream);
    master.write_all(b"bye").expect("write");
    master.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(read_to_end(&mut client), b"bye");
    client.write_all(b"late").expect("write");
    assert_eq!(read(&mut master, 4), b"late");
    drop(client);
    assert_eq!(read_to_end(&mut master), b"");
    rig.wait_closed(CloseReason::UpstreamClosed, 1);
    in_time(rig.publisher.doubted());
}

#[test]
fn a_silent_client_is_let_go_after_the_master_ended() {
    let upstream = upstream();
    let rig = Rig::serving(&upstream);
    let (mut client, master) = rig.join(&upstream);
    drop(master);
    assert_eq!(read_to_end(&mut client), b"");
    rig.wait_closed(CloseReason::UpstreamClosed, 1);
}

#[test]
fn a_reset_master_ends_the_client_after_what_it_replied() {
    let upstream = upstream();
    let rig = Rig::serving(&upstream);
    let (mut client, mut master) = rig.join(&upstream);
    master.write_all(b"real").expect("write");
    assert_eq!(read(&mut client, 4), b"real");
    crate::net::socket::reset_on_close(&master).expect("linger");
    drop(master);
    assert_eq!(read_to_end(&mut client), b"");
    drop(client);
    rig.wait_closed(CloseReason::UpstreamReset, 1);
    in_time(rig.publisher.doubted());
}

#[test]
fn a_client_that_resets_ends_the_upstream() {
    let upstream = upstream();
    let rig = Rig::serving(&upstream);
    let (client, mut master) = rig.join(&upstream);
    crate::net::socket::reset_on_close(&client).expect("linger");
    drop(client);
    let error = master.read(&mut [0; 8]).expect_err("a reset is passed on");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    rig.wait_closed(CloseReason::ClientReset, 1);
}

/// Writes until the way is full; gives how much that was.
fn fill_the_way(mut master: &TcpStream, seed: u64) -> usize {
    let mut content = fastrand::Rng::with_seed(seed);
    let mut block = vec![0; BLOCK];
    let mut sent = 0;
    master.set_write_timeout(Some(WATCH)).expect("timeout");
    while sent < HUGE {
        fill(&mut content, &mut block);
        let mut rest = &block[..];
        while !rest.is_empty() {
            match master.write(rest) {
                Ok(n) => {
                    sent += n;
                    rest = &rest[n..];
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return sent;
                }
            }
        }
    }
    sent
}

/// Reads all there is; asserts that it is the beginning of what [`fill_the_way`] wrote; gives its length.
fn check_beginning(client: &mut TcpStream, seed: u64) -> usize {
    let seen = read_to_end(client);
    let mut content = fastrand::Rng::with_seed(seed);
    let mut block = vec![0; BLOCK];
    for part in seen.chunks(BLOCK) {
        fill(&mut content, &mut block);
        assert!(*part == block[..part.len()], "differs");
    }
    seen.len()
}

#[test]
fn a_slow_reader_costs_no_memory_and_is_kept() {
    let upstream = upstream();
    let rig = Rig::serving(&upstream);
    let (mut client, master) = rig.join(&upstream);
    let sent = fill_the_way(&master, 3);
    assert!(
        sent < HUGE,
        "the proxy took everything: it must be holding it"
    );
    assert_eq!(rig.counters().sessions.active(), 1);
    drop(master);
    assert_eq!(check_beginning(&mut client, 3), sent);
}

#[test]
fn at_a_swap_a_slow_reader_gets_what_was_read_and_then_the_end() {
    let upstream = upstream();
    let mut rig = Rig::serving(&upstream);
    let (mut client, master) = rig.join(&upstream);
    let sent = fill_the_way(&master, 4);
    let successor = super::upstream();
    rig.serve(2, &successor);
    rig.wait_acknowledged(2);
    let seen = check_beginning(&mut client, 4);
    let relayed = rig.counters().sessions.bytes_down - 4;
    assert_eq!(seen as u64, relayed);
    assert!(seen > 0 && seen < sent, "{seen} of {sent}");
}
