//! PROXY protocol: a balancer's word for its clients counts, and nobody else's.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::file;
use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::Proxy;
use crate::harness::reload::ready;
use crate::harness::stream::{SOON, connect, echoed, read_to_end, reset};

const V2_FROM_10_0_0_1: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\x9c\x40\x18\xeb";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const ENTRY: &str = "proxy_protocol_from = [\"127.0.0.1\"]\nallow_from = [\"10.0.0.0/8\", \"127.0.0.2\"]\nmax_connections_per_source = 2\n";

fn stage() -> (FakeMaster, FakeSentinel, Proxy) {
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let proxy = ready(&file(&sentinel, "move", ENTRY, ""));
    (master, sentinel, proxy)
}

fn conveyed(to: SocketAddr, header: &[u8]) -> TcpStream {
    let mut stream = connect(to);
    stream.write_all(header).expect("written");
    stream
}

/// From another address of this machine, which is no balancer's.
fn from_elsewhere(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let elsewhere = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    socket
        .bind(&elsewhere.into())
        .expect("an address of this machine");
    socket.connect(&to.into()).expect("it listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    stream
}

#[test]
fn what_a_balancer_conveys_counts_and_the_master_does_not_see_it() {
    let (master, _sentinel, proxy) = stage();
    for header in [
        &b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 6379\r\n"[..],
        b"PROXY TCP6 ::ffff:10.0.0.1 ::1 40000 6379\r\n",
        V2_FROM_10_0_0_1,
        V2_LOCAL,
    ] {
        let before = master.bytes();
        let mut client = conveyed(proxy.addr(), header);
        assert_eq!(echoed(&mut client, b"said\r\n"), b"said\r\n");
        reset(client);
        // In pieces, and what is behind it with the last of them.
        let mut client = connect(proxy.addr());
        for piece in [header, b"said\r\n"].concat().chunks(9) {
            client.write_all(piece).expect("written");
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut back = [0; 6];
        client.read_exact(&mut back).expect("echoed");
        assert_eq!(&back, b"said\r\n");
        reset(client);
        assert_eq!(master.bytes() - before, 12, "{}", header.escape_ascii());
    }
}

#[test]
fn whom_it_speaks_for_may_be_refused() {
    let (master, _sentinel, proxy) = stage();
    let other = b"PROXY TCP4 192.0.2.1 10.0.0.2 40000 6379\r\nsaid\r\n";
    assert_eq!(read_to_end(&mut conveyed(proxy.addr(), other)), b"");
    // For nobody in particular, by whom `allow_from` does not name.
    let unknown = b"PROXY UNKNOWN\r\nsaid\r\n";
    assert_eq!(read_to_end(&mut conveyed(proxy.addr(), unknown)), b"");
    let line = proxy.event("client_refused", SOON);
    assert_eq!(line.text("reason"), "not_allowed");
    assert!(
        line.text("message").contains("192.0.2.1"),
        "{}",
        line.fields
    );

    // Each of its clients is a source of its own.
    let mut inside: Vec<_> = [1, 1, 2, 2]
        .map(|n| {
            conveyed(
                proxy.addr(),
                format!("PROXY TCP4 10.0.0.{n} 10.0.0.9 1 2\r\n").as_bytes(),
            )
        })
        .into();
    for client in &mut inside {
        assert_eq!(echoed(client, b"said\r\n"), b"said\r\n");
    }
    assert_eq!(
        read_to_end(&mut conveyed(proxy.addr(), V2_FROM_10_0_0_1)),
        b""
    );
    let of_source = |fields: &serde_json::Value| fields["reason"] == "max_connections_per_source";
    let line = proxy.event_where(0, "client_refused", SOON, of_source);
    assert!(line.text("message").contains("10.0.0.1"), "{}", line.fields);

    // And what it says is told with its own address.
    let browser = b"PROXY TCP4 10.0.0.3 10.0.0.9 1 2\r\nGET / HTTP/1.1\r\n\r\n";
    assert_eq!(read_to_end(&mut conveyed(proxy.addr(), browser)), b"");
    let of_http = |fields: &serde_json::Value| fields["reason"] == "http";
    let line = proxy.event_where(0, "client_refused", SOON, of_http);
    assert!(line.text("message").contains("10.0.0.3"), "{}", line.fields);
    assert_eq!(master.bytes(), 24);
}

#[test]
fn a_balancer_without_a_header_is_refused_and_so_is_a_header_from_anybody_else() {
    let (master, _sentinel, proxy) = stage();
    for said in [
        &b"*1\r\n$4\r\nPING\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 nonsense\r\n",
    ] {
        assert_eq!(read_to_end(&mut conveyed(proxy.addr(), said)), b"");
    }
    let line = proxy.event("client_refused", SOON);
    assert_eq!(line.text("reason"), "no_proxy_header");
    assert!(
        line.text("message").contains("127.0.0.1"),
        "{}",
        line.fields
    );
    // Silence is not waited for.
    assert_eq!(read_to_end(&mut connect(proxy.addr())), b"");

    let mut honest = from_elsewhere(proxy.addr());
    assert_eq!(echoed(&mut honest, b"said\r\n"), b"said\r\n");
    let mut liar = from_elsewhere(proxy.addr());
    liar.write_all(V2_FROM_10_0_0_1).expect("written");
    assert_eq!(read_to_end(&mut liar), b"");
    let of_header = |fields: &serde_json::Value| fields["reason"] == "proxy_header";
    proxy.event_where(0, "client_refused", SOON, of_header);
    assert_eq!(master.bytes(), 6);
}
