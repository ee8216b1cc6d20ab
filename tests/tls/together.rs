//! TLS with clients beside what else is asked of them: what they speak, where they come from, how many there are.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use switchmaster::net::addr::Host;
use tokio_rustls::rustls::StreamOwned;

use super::client::{Client, knowing, until_closed};
use super::clients::{Stage, of, with};
use super::harness::admin::{admin_of, page};
use super::harness::reload::{file, quoted, ready, stage};
use super::harness::stream::{SOON, connect, free_address, reset};
use super::harness::wait_until;

const HTTP: &[u8] = b"GET / HTTP/1.1\r\nHost: redis\r\n\r\n";
const HELLO: &[u8] = b"\x16\x03\x01\x00\xee\x01\x00\x00\xea\x03\x03\x00\x01";
const CONVEYED: &[u8] = b"PROXY TCP4 192.0.2.9 10.0.0.2 40000 6379\r\n";
const LISTEN: &str = "listen = [\"127.0.0.1:0\"]\n";

/// So many sessions have ended for this reason, or connections were counted with this result.
fn counted(stage: &Stage, series: &str) -> u64 {
    let page = page(admin_of(&stage.proxy), "/metrics");
    let value = page.lines().find_map(|line| line.strip_prefix(series));
    value.map_or(0, |value| value.trim().parse().expect("a number"))
}

fn closed(stage: &Stage, reason: &str) -> u64 {
    let series =
        format!("switchmaster_sessions_closed_total{{proxy=\"main\",reason=\"{reason}\"}} ");
    counted(stage, &series)
}

/// All that it hears until it is closed, however that is done.
fn hears(mut client: Client) -> Vec<u8> {
    let mut heard = Vec::new();
    // It may be closed with something of it unread.
    let _ = client.0.read_to_end(&mut heard);
    heard
}

#[test]
fn what_is_said_behind_the_handshake_is_looked_at() {
    let stage = with(|_| String::new());
    for (reason, said) in [("http", HTTP), ("tls", HELLO), ("proxy_header", CONVEYED)] {
        for size in [1, said.len()] {
            let before = closed(&stage, reason);
            let mut client = stage.client();
            for piece in said.chunks(size) {
                // It may be closed before all is said.
                if client.0.write_all(piece).is_err() {
                    break;
                }
            }
            assert_eq!(hears(client), b"", "{reason}");
            wait_until("it to be counted", SOON, || {
                closed(&stage, reason) == before + 1
            });
        }
        let line = stage
            .proxy
            .event_where(0, "client_refused", SOON, |fields| {
                fields["reason"] == reason
            });
        let message = line.text("message");
        assert!(message.contains("127.0.0.1"), "{message}");
    }
    assert_eq!(stage.master.bytes(), 0);
    stage.client().echoes(b"GET /path\r\n");
}

#[test]
fn a_handshake_where_there_is_no_tls_is_known_for_what_it_is() {
    let (master, sentinel) = stage();
    let listen = free_address();
    let entry = ("main", "mymaster", &*quoted(listen));
    let proxy = ready(&file(sentinel.addr(), &[entry]));
    let with_tls = with(|_| String::new());
    let connector = knowing(&with_tls.authority.file(), None);
    assert!(Client::connect(proxy.addr(), &connector).is_err());
    let line = proxy.event("client_refused", SOON);
    assert_eq!(line.text("reason"), "tls");
    assert!(
        line.text("message").contains("client_tls"),
        "{}",
        line.fields
    );
    assert_eq!(master.bytes(), 0);
}

/// Who has to prove who it is needs no `allow_from`, also where somebody else says where it comes from; that is said in plain,
/// before the handshake.
#[test]
fn a_balancers_header_comes_before_the_handshake() {
    let entry =
        format!("{LISTEN}proxy_protocol_from = [\"127.0.0.1\"]\nmax_connections_per_source = 2\n");
    let stage = of(&entry, |ca| format!("client_ca_file = {:?}\n", ca.file()));
    let app = stage.authority.sign("app", &["app"]);
    let known = knowing(&stage.authority.file(), Some(&app));
    let conveyed = || {
        let mut stream = connect(stage.addr());
        stream.write_all(CONVEYED).expect("taken");
        stream
    };
    let mut clients = [(); 2].map(|()| Client::over(conveyed(), &known).expect("let in"));
    for client in &mut clients {
        client.echoes(b"conveyed");
    }
    // A third one from there does not even get to the handshake.
    let third = Client::over(conveyed(), &known);
    assert!(third.is_err());
    let of_source = |fields: &serde_json::Value| fields["reason"] == "max_connections_per_source";
    let line = stage
        .proxy
        .event_where(0, "client_refused", SOON, of_source);
    assert!(
        line.text("message").contains("192.0.2.9"),
        "{}",
        line.fields
    );
    for client in clients {
        reset(client.0.into_parts().1);
    }
    // Its word does not stand for a certificate.
    let nobody = knowing(&stage.authority.file(), None);
    wait_until("one without a certificate to be refused", SOON, || {
        let answer =
            Client::over(conveyed(), &nobody).and_then(|mut client| client.exchange(b"x", 1));
        assert!(answer.is_err());
        stage.refused("no_certificate") > 0
    });
    // Without its word nobody is let in from there, and inside TLS it is none.
    assert!(stage.client_with(&app).is_err());
    let of_header = |fields: &serde_json::Value| fields["reason"] == "no_proxy_header";
    stage
        .proxy
        .event_where(0, "client_refused", SOON, of_header);
    let mut twice = None;
    wait_until("a place to come free", SOON, || {
        twice = Client::over(conveyed(), &known).ok();
        twice.is_some()
    });
    let mut twice = twice.expect("just waited for");
    twice.0.write_all(CONVEYED).expect("taken");
    assert_eq!(hears(twice), b"");
    wait_until("it to be counted", SOON, || {
        closed(&stage, "proxy_header") == 1
    });
    assert_eq!(stage.master.bytes(), 16);
}

#[test]
fn places_are_taken_before_the_handshake() {
    let stage = of(&format!("{LISTEN}max_connections_per_source = 2\n"), |_| {
        String::new()
    });
    let silent = [(); 2].map(|()| connect(stage.addr()));
    let mut third = connect(stage.addr());
    assert_eq!(until_closed(&mut third), b"");
    let series = "switchmaster_sessions_total{proxy=\"main\",result=\"source_full\"} ";
    wait_until("it to be counted", SOON, || counted(&stage, series) == 1);
    drop(silent);
    wait_until("a place to come free", SOON, || {
        let client = Client::connect(stage.addr(), &knowing(&stage.authority.file(), None));
        client.is_ok_and(|mut client| client.exchange(b"in", 2).is_ok())
    });
}

/// Through with the handshake, and nothing else: they are as silent as any.
#[test]
fn the_silent_make_room_where_places_are_few() {
    let stage = of(&format!("{LISTEN}max_connections = 8\n"), |_| String::new());
    let silent: Vec<Client> = (0..3).map(|_| stage.client()).collect();
    let mut asked: Vec<Client> = (0..4).map(|_| stage.client()).collect();
    for client in &mut asked {
        client.echoes(b"asked\r\n");
    }
    for client in silent {
        assert_eq!(hears(client), b"");
    }
    wait_until("them to be counted", SOON, || {
        closed(&stage, "no_request") == 3
    });
    for client in &mut asked {
        client.echoes(b"asked\r\n");
    }
}

/// On a unix socket the kernel's word comes first, and TLS behind it.
#[test]
fn a_unix_socket_with_tls_knows_its_users() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("main.sock");
    let own = rustix::process::geteuid().as_raw();
    for (uid, served) in [(own, true), (own + 1, false)] {
        let entry = format!(
            "listen = [\"127.0.0.1:0\", \"unix:{}\"]\nallowed_uids = [{uid}]\n",
            path.display()
        );
        let stage = of(&entry, |_| String::new());
        let mut socket = UnixStream::connect(&path).expect("it listens");
        socket.set_read_timeout(Some(SOON)).expect("a socket");
        if served {
            let connector = knowing(&stage.authority.file(), None);
            let host = Host::parse("127.0.0.1").expect("an address");
            let session = connector.session(&host).expect("usable");
            let mut client = StreamOwned::new(session, socket);
            client.write_all(b"local").expect("written");
            let mut back = [0; 5];
            client.read_exact(&mut back).expect("echoed");
            assert_eq!(&back, b"local");
        } else {
            let mut heard = Vec::new();
            socket.read_to_end(&mut heard).expect("closed");
            assert_eq!(heard, b"");
            let line = stage.proxy.event("client_refused", SOON);
            assert_eq!(line.text("reason"), "uid_not_allowed");
        }
        let mut plain: TcpStream = connect(stage.addr());
        plain.write_all(b"PING\r\n").expect("taken");
        until_closed(&mut plain);
    }
}
