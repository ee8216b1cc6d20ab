//! What a hold and a swap do to sessions that are live.

use super::*;

#[test]
fn held_bytes_wait_and_replies_flow() {
    let upstream = upstream();
    let mut rig = Rig::serving(&upstream);
    let (mut client, mut master) = rig.join(&upstream);
    rig.hold();
    client.write_all(b"withheld").expect("write");
    master.write_all(b"reply").expect("write");
    assert_eq!(read(&mut client, 5), b"reply");
    assert_silent(&mut master);
    rig.release();
    assert_eq!(read(&mut master, 8), b"withheld");
    master.write_all(b"done").expect("write");
    assert_eq!(read(&mut client, 4), b"done");
}

#[test]
fn a_word_that_is_too_old_withholds_until_it_is_extended() {
    let upstream = upstream();
    let mut rig = Rig::serving(&upstream);
    let (mut client, mut master) = rig.join(&upstream);
    rig.publisher.extend(now() - Duration::from_nanos(1));
    client.write_all(b"stale").expect("write");
    assert_silent(&mut master);
    rig.publisher.extend(now() + LONG);
    assert_eq!(read(&mut master, 5), b"stale");
}

#[test]
fn a_client_that_leaves_while_held_has_sent_nothing() {
    let upstream = upstream();
    let mut rig = Rig::serving(&upstream);
    let (mut client, mut master) = rig.join(&upstream);
    rig.hold();
    client.write_all(b"doomed").expect("write");
    client.shutdown(Shutdown::Write).expect("shutdown");
    assert_silent(&mut master);
    rig.release();
    assert_eq!(read_to_end(&mut master), b"");
    drop(master);
    assert_eq!(read_to_end(&mut client), b"");
    rig.wait_closed(CloseReason::ClientLeftWaiting, 1);
}

#[test]
fn a_swap_resets_the_old_master_and_sends_it_nothing_more() {
    let (first, second) = (upstream(), upstream());
    let mut rig = Rig::serving(&first);
    let (mut client, mut master) = rig.join(&first);
    rig.hold();
    client.write_all(b"never").expect("write");
    assert_silent(&mut master);
    rig.serve(2, &second);
    rig.wait_acknowledged(2);
    // Acknowledged: whatever the old master is to see, it has seen.
    master.set_nonblocking(true).expect("nonblocking");
    let error = master.read(&mut [0; 64]).expect_err("bytes or a plain end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(read_to_end(&mut client), b"");
    drop(client);
    rig.wait_closed(CloseReason::Switched, 1);
    let left = in_time(rig.publisher.acknowledged(Generation(2)));
    assert_eq!(left.cut, 1);
    let (_client, _master) = rig.join(&second);
}

#[test]
fn a_client_that_was_cut_is_heard_out_and_not_reset() {
    let (first, second) = (upstream(), upstream());
    let mut rig = Rig::serving(&first);
    let (mut client, _master) = rig.join(&first);
    rig.hold();
    client.write_all(b"unread").expect("write");
    rig.serve(2, &second);
    assert_eq!(read_to_end(&mut client), b"");
    // Closing with unread input would have sent a reset, which destroys replies on their way.
    std::thread::sleep(WATCH);
    assert!(client.take_error().expect("asked").is_none());
    client.write_all(b"more").expect("write");
    drop(client);
    rig.wait_closed(CloseReason::Switched, 1);
}

#[test]
fn replies_that_come_after_the_swap_are_not_delivered() {
    let (first, second) = (upstream(), upstream());
    let mut rig = Rig::serving(&first);
    let (mut client, mut master) = rig.join(&first);
    rig.serve(2, &second);
    rig.wait_acknowledged(2);
    // The reset may have arrived: then nothing can be written at all.
    let _ = master.write_all(b"too late");
    assert_eq!(read_to_end(&mut client), b"");
}

#[test]
fn what_a_client_that_reset_had_sent_does_not_reach_a_master_that_was_left() {
    /// More than the master's kernel takes unread, less than the proxy's takes for it.
    const SENT: usize = 64 * 1024;

    let (first, second) = (upstream(), upstream());
    let small = socket2::SockRef::from(&first).set_recv_buffer_size(4096);
    small.expect("buffer");
    let mut rig = Rig::serving(&first);
    let (mut client, mut master) = rig.join(&first);
    client.write_all(&[b'x'; SENT]).expect("write");
    wait_until("handed to the kernel", || {
        rig.counters().sessions.bytes_up == 4 + SENT as u64
    });
    crate::net::socket::reset_on_close(&client).expect("linger");
    drop(client);
    rig.wait_closed(CloseReason::ClientReset, 1);
    rig.serve(2, &second);
    rig.wait_acknowledged(2);
    // What it has not read makes room for more, if the kernel still has more.
    let error = master
        .read_to_end(&mut Vec::new())
        .expect_err("all of it and a plain end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn generations_in_a_row_leave_no_session_behind() {
    let masters: Vec<_> = (0..5).map(|_| upstream()).collect();
    let mut rig = Rig::serving(&masters[0]);
    let joined: Vec<_> = (0..20).map(|_| rig.join(&masters[0])).collect();
    for (generation, master) in (2..).zip(&masters[1..]) {
        rig.serve(generation, master);
    }
    rig.wait_acknowledged(5);
    for (mut client, _) in joined {
        assert_eq!(read_to_end(&mut client), b"");
    }
    rig.wait_closed(CloseReason::Switched, 20);
    assert_eq!(in_time(rig.publisher.acknowledged(Generation(5))).cut, 20);
}

#[test]
fn a_hold_that_lasts_too_long_closes_live_sessions() {
    let upstream = upstream();
    let mut rig = Rig::new(Duration::from_millis(200));
    rig.serve(1, &upstream);
    let (mut client, mut master) = rig.join(&upstream);
    rig.hold();
    let begin = now();
    assert_eq!(read_to_end(&mut client), b"");
    assert!(now().since(begin) >= Duration::from_millis(190));
    let error = master.read(&mut [0; 8]).expect_err("a fenced master");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    drop(client);
    rig.wait_closed(CloseReason::HeldTooLong, 1);
}

#[test]
fn the_master_that_crashes_under_a_hold_ends_its_sessions() {
    let upstream = upstream();
    let mut rig = Rig::serving(&upstream);
    let (mut client, master) = rig.join(&upstream);
    rig.hold();
    drop(master);
    assert_eq!(read_to_end(&mut client), b"");
    rig.wait_closed(CloseReason::UpstreamClosed, 1);
}
