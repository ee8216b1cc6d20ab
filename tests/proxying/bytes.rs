//! Both halves of a connection, much data, and readers that take their time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::harness::fake_master::Bytes;
use crate::harness::pattern::{self, Check};
use crate::harness::{holds_for, wait_until};
use crate::{SOON, Stage, read_to_end};

const GIB: u64 = 1024 * 1024 * 1024;
#[test]
fn half_close_passes_in_each_direction() {
    let stage = Stage::set(Bytes::CountUntilEnd);
    let mut client = stage.client();
    client.write_all(b"hello").expect("written");
    client.shutdown(Shutdown::Write).expect("half-closed");
    // The answer is made only when the client's end has arrived, and must come back afterwards.
    assert_eq!(read_to_end(&mut client), b"5");
}

#[test]
fn a_gibibyte_each_way_is_byte_identical() {
    let stage = Stage::set(Bytes::Exchange(GIB));
    let client = stage.client();
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            pattern::write(&client, GIB)?;
            client.shutdown(Shutdown::Write)
        });
        let check = receive(&client, u64::MAX);
        assert_eq!(check.seen(), GIB);
        sending
            .join()
            .expect("no panic")
            .expect("everything was taken");
    });
    wait_until("the other end to have everything", SOON, || {
        let record = &stage.master.records()[0];
        record.ended && record.bytes == GIB
    });
    assert!(
        stage.master.records()[0].matches,
        "some byte changed on its way"
    );
}

#[test]
fn a_slow_reader_is_kept_and_costs_no_memory() {
    const REPLY: u64 = 64 * 1024 * 1024;
    /// Far below the reply: what a session and its sockets may cost a process.
    const BOUND_KIB: u64 = 4 * 1024;
    let stage = Stage::set(Bytes::Source(REPLY));
    let before = stage.proxy.rss_kib();
    let mut slow = stage.client();
    slow.write_all(b"go").expect("written");
    holds_for(
        "little memory while nobody reads",
        Duration::from_secs(3),
        || stage.proxy.rss_kib() <= before + BOUND_KIB,
    );
    // Another client is not in its way.
    let mut other = stage.client();
    other.write_all(b"go").expect("written");
    let mut first = [0; 1024];
    other.read_exact(&mut first).expect("served meanwhile");
    assert_eq!(
        receive(&slow, REPLY).seen(),
        REPLY,
        "every byte, in the end"
    );
}

/// Reads up to `len` bytes or the end, all of which must be the pattern's.
fn receive(mut from: &TcpStream, len: u64) -> Check {
    let mut check = Check::default();
    let mut buffer = vec![0; 256 * 1024];
    while check.seen() < len {
        match from.read(&mut buffer).expect("the pattern goes on") {
            0 => break,
            n => assert!(
                check.accept(&buffer[..n]),
                "wrong within {n} bytes after {}",
                check.seen()
            ),
        }
    }
    check
}
