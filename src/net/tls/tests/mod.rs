//! Both ends of a handshake, over sockets with room for next to nothing.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::authority::{Authority, Pair};
use super::*;
use crate::net::addr::Host;
use crate::net::stream::Stream;

mod over;

const LIMIT: Duration = Duration::from_secs(30);
/// The kernel makes of it what it can do with at least.
const SMALL: usize = 4096;

struct Place {
    dir: TempDir,
    authority: Authority,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(dir.path(), "ca");
    Place { dir, authority }
}

fn identity(pair: &Pair) -> Identity {
    Identity::read(&pair.cert, &pair.key).expect("a certificate and its key")
}

fn roots(file: &Path) -> Roots {
    Roots::read(file).expect("an authority")
}

fn host(name: &str) -> Host {
    Host::parse(name).expect("a host")
}

fn nth(at: usize) -> u8 {
    u8::try_from(at % 256).expect("less than 256")
}

fn sockets() -> (Stream, Stream) {
    let (one, other) = UnixStream::pair().expect("pair");
    for socket in [&one, &other] {
        SockRef::from(socket)
            .set_send_buffer_size(SMALL)
            .expect("an option");
    }
    (Stream::Unix(one), Stream::Unix(other))
}

impl Place {
    fn acceptor(&self, names: &[&str]) -> Acceptor {
        let pair = self.authority.sign("server", names);
        Acceptor::new(&identity(&pair), None).expect("usable")
    }

    fn connector(&self) -> Connector {
        let verify = Verify::Against(roots(&self.authority.file()));
        Connector::new(&verify, None, None).expect("usable")
    }
}

/// Takes leave of whoever is turned away.
async fn accept(acceptor: &Acceptor, stream: Stream) -> Result<Stream, Option<Refused>> {
    match acceptor.accept(stream).await {
        Ok(stream) => Ok(stream),
        Err(turned_away) => {
            let why = turned_away.why;
            turned_away.leave().await;
            Err(why)
        }
    }
}

async fn meet(
    connector: &Connector,
    acceptor: &Acceptor,
    name: &str,
) -> (Result<Stream, TlsError>, Result<Stream, Option<Refused>>) {
    let (here, there) = sockets();
    let name = host(name);
    let meeting = async { tokio::join!(connector.connect(here, &name), accept(acceptor, there)) };
    timeout(LIMIT, meeting).await.expect("in time")
}

/// The two ends of one connection.
pub(crate) async fn pair() -> (Stream, Stream) {
    let place = place();
    let (connector, acceptor) = (place.connector(), place.acceptor(&["redis-a"]));
    let (client, server) = meet(&connector, &acceptor, "redis-a").await;
    (client.expect("connected"), server.expect("accepted"))
}

/// What a server and its client say of each other.
#[tokio::test]
async fn who_is_believed() {
    let place = place();
    let other = Authority::new(place.dir.path(), "other");
    let stranger = Connector::new(&Verify::Against(roots(&other.file())), None, None);
    let stranger = stranger.expect("usable");
    let named = ServerName::try_from("redis-b").expect("a name");
    let named = Connector::new(
        &Verify::Against(roots(&place.authority.file())),
        None,
        Some(named),
    );
    let named = named.expect("usable");
    let of_table = stranger.clone().of(Origin {
        table: "[sentinel]",
        ca_file: None,
        identity: None,
    });
    let anybody = Connector::new(&Verify::Nobody, None, None).expect("usable");
    let expired = place.authority.sign_expired("expired", &["redis-a"]);
    let expired = Acceptor::new(&identity(&expired), None).expect("usable");
    let a = place.acceptor(&["redis-a", "10.0.0.3"]);
    let b = place.acceptor(&["redis-b"]);
    let known = place.connector();
    for (connector, acceptor, name, verdict) in [
        (&known, &a, "redis-a", Ok(())),
        (&known, &a, "10.0.0.3", Ok(())),
        (
            &known,
            &a,
            "redis-b",
            Err("is for redis-a, 10.0.0.3, not for redis-b: set server_name = \"redis-a\""),
        ),
        (
            &known,
            &b,
            "10.0.0.3",
            Err("is for redis-b, not for 10.0.0.3: set server_name = \"redis-b\""),
        ),
        (&named, &b, "10.0.0.3", Ok(())),
        (&named, &a, "redis-a", Err("not for redis-b")),
        (&stranger, &a, "redis-a", Err("unknown issuer: set ca_file")),
        (
            &of_table,
            &a,
            "redis-a",
            Err("that signed it, in [sentinel]"),
        ),
        (&known, &expired, "redis-a", Err("has expired")),
        (&anybody, &expired, "elsewhere", Ok(())),
    ] {
        let (client, server) = meet(connector, acceptor, name).await;
        match (verdict, client) {
            (Ok(()), Ok(_)) => assert!(server.is_ok(), "{name}: {server:?}"),
            (Err(words), Err(error)) => {
                assert!(error.to_string().contains(words), "{name}: {error}");
                // It is told why; without that it is as good as gone.
                let refused = server.expect_err("refused");
                assert_eq!(refused, Some(Refused::Declined), "{name}");
            }
            (expected, met) => panic!("{name}: {expected:?}, and {met:?}"),
        }
    }
}

/// What is dialled at an address and known by a name has to have a certificate for that name.
#[tokio::test]
async fn a_server_at_an_address_of_its_host() {
    let place = place();
    let acceptor = place.acceptor(&["redis-a"]);
    let connector = place.connector();
    let (client, _) = meet(&connector, &acceptor, "10.0.0.3").await;
    assert!(client.is_err());
    for (host, believed) in [("redis-a", true), ("redis-b", false)] {
        let of_host = connector.of_host(&self::host(host));
        let (client, _) = meet(&of_host, &acceptor, "10.0.0.3").await;
        assert_eq!(client.is_ok(), believed, "{host}");
    }
    // A name that was set is the name.
    let named = ServerName::try_from("redis-a").expect("a name");
    let roots = Verify::Against(roots(&place.authority.file()));
    let named = Connector::new(&roots, None, Some(named)).expect("usable");
    let (client, _) = meet(&named.of_host(&host("redis-b")), &acceptor, "10.0.0.3").await;
    assert!(client.is_ok());
}

#[tokio::test]
async fn clients_that_have_to_prove_who_they_are() {
    let place = place();
    let other = Authority::new(place.dir.path(), "other");
    let server = place.authority.sign("server", &["redis-a"]);
    let acceptor = Acceptor::new(&identity(&server), Some(&roots(&place.authority.file())));
    let acceptor = acceptor.expect("usable");
    assert!(acceptor.demands_certificates());
    let as_whom = |pair: Option<Pair>| {
        let verify = Verify::Against(roots(&place.authority.file()));
        let identity = pair.map(|pair| identity(&pair));
        Connector::new(&verify, identity.as_ref(), None).expect("usable")
    };
    let known = as_whom(Some(place.authority.sign("app", &["app"])));
    let unknown = as_whom(Some(other.sign("stranger", &["app"])));
    let expired = as_whom(Some(place.authority.sign_expired("old", &["app"])));
    for (connector, verdict) in [
        (known, None),
        (as_whom(None), Some(Refused::NoCertificate)),
        (unknown, Some(Refused::BadCertificate)),
        (expired, Some(Refused::BadCertificate)),
    ] {
        let (here, there) = sockets();
        let name = host("redis-a");
        let client = async {
            let client = connector.connect(here, &name).await;
            // With TLS 1.3 it is through with its own part, and says more than the server reads before it makes up its mind.
            let mut client = client.expect("through with its own part");
            let said = poll_fn(|cx| client.poll_write(cx, &[b' '; 32 * 1024])).await;
            said.expect("taken");
            if verdict.is_some() {
                let read = poll_fn(|cx| client.poll_read(cx, &mut [0; 8])).await;
                let error = read.expect_err("no answer");
                let words = TlsError::of(&error).expect("TLS says so").to_string();
                assert!(words.contains("cert_file"), "{words}");
                // It was not cut off, which takes away what is still on its way.
                let end = loop {
                    match recv(&client, &mut [0_u8; 8][..], RecvFlags::empty()) {
                        Err(Errno::AGAIN) => tokio::task::yield_now().await,
                        end => break end,
                    }
                };
                assert_eq!(end.map(|(_, read)| read), Ok(0));
            }
            verdict.is_none().then_some(client)
        };
        let meeting = async { tokio::join!(client, accept(&acceptor, there)) };
        let (_client, server) = timeout(LIMIT, meeting).await.expect("in time");
        assert_eq!(server.err(), verdict.map(Some));
    }
}

#[tokio::test]
async fn what_does_not_speak_tls() {
    let place = place();
    let acceptor = place.acceptor(&["redis-a"]);
    for (said, verdict) in [
        (&b"PING\r\n"[..], Some(Refused::NotTls)),
        (b"*1\r\n$4\r\nPING\r\n", Some(Refused::NotTls)),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Some(Refused::NotTls)),
        (
            b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 6379\r\n\x16\x03\x01",
            Some(Refused::ProxyHeader),
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0\x16\x03\x01",
            Some(Refused::ProxyHeader),
        ),
        (b"PROXYING\r\n", Some(Refused::NotTls)),
        (&[0; 64], Some(Refused::NotTls)),
        (&[0xff; 64], Some(Refused::NotTls)),
        // The beginning of a hello, and no more.
        (&[0x16, 3, 1, 1, 0, 1, 0, 0], Some(Refused::Left)),
        // A health check that only looks whether somebody listens.
        (b"", None),
    ] {
        let (client, server) = UnixStream::pair().expect("pair");
        let (mut client, server) = (client, Stream::Unix(server));
        client.write_all(said).await.expect("room");
        client.shutdown().await.expect("the end");
        let refused = timeout(LIMIT, accept(&acceptor, server)).await;
        let refused = refused.expect("at once").expect_err("no TLS");
        assert_eq!(refused, verdict, "{}", said.escape_ascii());
    }
    let connector = place.connector();
    let (here, there) = sockets();
    let Stream::Unix(mut there) = there else {
        unreachable!("it is one");
    };
    there
        .write_all(b"-ERR Protocol error\r\n")
        .await
        .expect("room");
    let error = connector.connect(here, &host("redis-a")).await;
    let error = error.expect_err("no TLS");
    assert!(!error.is_silent());
    assert!(error.to_string().contains("tls-port"), "{error}");
    let (here, there) = sockets();
    drop(there);
    let error = connector.connect(here, &host("redis-a")).await;
    assert!(error.expect_err("nobody").is_silent());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_ends_in_time() {
    let place = place();
    let acceptor = place.acceptor(&["redis-a"]);
    let (_silent, server) = sockets();
    let refused = accept(&acceptor, server).await.err();
    assert_eq!(refused, Some(Some(Refused::Late)));
    let connector = place.connector();
    let (client, _silent) = sockets();
    let error = connector.connect(client, &host("redis-a")).await;
    let error = error.expect_err("no answer");
    assert!(error.is_silent());
    assert!(error.to_string().contains("TLS port"), "{error}");
}

/// More than all buffers there are, both ways at once; no byte is lost, and the end arrives behind the last.
#[tokio::test]
async fn many_bytes_both_ways_through_small_sockets() {
    const BYTES: usize = 8 * 1024 * 1024;
    async fn write(stream: &mut Stream, pattern: u8) -> io::Result<()> {
        let mut written = 0;
        while written < BYTES {
            let chunk: Vec<u8> = (written..BYTES.min(written + 32 * 1024))
                .map(|at| nth(at).wrapping_mul(pattern))
                .collect();
            let n = poll_fn(|cx| stream.poll_write(cx, &chunk)).await?;
            written += n;
        }
        poll_fn(|cx| stream.poll_shutdown(cx)).await
    }
    async fn read(stream: &mut Stream, pattern: u8) -> io::Result<usize> {
        let mut buffer = vec![0; 10_000];
        let mut read = 0;
        loop {
            let n = poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await?;
            if n == 0 {
                return Ok(read);
            }
            for byte in &buffer[..n] {
                assert_eq!(*byte, nth(read).wrapping_mul(pattern), "at {read}");
                read += 1;
            }
        }
    }
    // Each end by itself: one task that does both would not show that each of them goes on.
    let (mut client, mut server) = pair().await;
    let first = async { tokio::join!(write(&mut client, 3), read(&mut server, 3)) };
    let (written, read_up) = timeout(LIMIT, first).await.expect("in time");
    written.expect("written");
    assert_eq!(read_up.expect("read"), BYTES);
    // The client has said its last word, and hears on.
    let second = async { tokio::join!(write(&mut server, 7), read(&mut client, 7)) };
    let (written, read_down) = timeout(LIMIT, second).await.expect("in time");
    written.expect("written");
    assert_eq!(read_down.expect("read"), BYTES);
}

/// Whoever writes to a peer that does not read is stopped, soon.
#[tokio::test]
async fn what_is_held_back_is_bounded() {
    let (mut client, server) = pair().await;
    let cx = &mut Context::from_waker(Waker::noop());
    let chunk = vec![b'x'; 64 * 1024];
    let mut taken = 0;
    for _ in 0..100 {
        match client.poll_write(cx, &chunk) {
            Poll::Ready(n) => taken += n.expect("taken"),
            Poll::Pending => break,
        }
    }
    assert!(taken < 200_000, "{taken} bytes were taken");
    assert!(client.poll_write(cx, &chunk).is_pending());
    assert!(client.poll_flush(cx).is_pending());
    drop(server);
}

/// What was taken goes out when it is asked to, and not because somebody reads: who reads may be forbidden to write.
#[tokio::test]
async fn what_was_taken_goes_out_when_it_is_asked_to() {
    let (mut client, mut server) = pair().await;
    let cx = &mut Context::from_waker(Waker::noop());
    let chunk = vec![b'x'; 32 * 1024];
    let mut buffer = vec![0; 64 * 1024];
    let mut taken = 0;
    while let Poll::Ready(n) = client.poll_write(cx, &chunk) {
        taken += n.expect("taken");
    }
    let mut hear = |server: &mut Stream| {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut heard = 0;
        while let Poll::Ready(n) = server.poll_read(cx, &mut buffer) {
            heard += n.expect("read");
        }
        heard
    };
    let mut read = hear(&mut server);
    for _ in 0..50 {
        assert!(client.poll_read(cx, &mut [0; 8]).is_pending());
        assert_eq!(hear(&mut server), 0);
        tokio::task::yield_now().await;
    }
    assert!(client.kept_back() > 0);
    let flushing = poll_fn(|cx| {
        let flushed = client.poll_flush(cx);
        read += hear(&mut server);
        cx.waker().wake_by_ref();
        match flushed {
            Poll::Ready(flushed) if read == taken => Poll::Ready(flushed),
            Poll::Ready(_) | Poll::Pending => Poll::Pending,
        }
    });
    let flushed = timeout(LIMIT, flushing).await.expect("in time");
    flushed.expect("sent");
    assert_eq!(client.kept_back(), 0);
}

/// A socket that is quiet says nothing of what was read from it already.
#[tokio::test]
async fn what_was_read_ahead_is_there_to_read() {
    let (mut client, mut server) = pair().await;
    poll_fn(|cx| server.poll_write(cx, b"0123456789"))
        .await
        .expect("taken");
    let mut buffer = [0; 4];
    assert_eq!(
        poll_fn(|cx| client.poll_read(cx, &mut buffer)).await.ok(),
        Some(4)
    );
    assert!(!client.is_quiet());
    timeout(LIMIT, client.readable())
        .await
        .expect("at once")
        .expect("readable");
    let mut rest = [0; 16];
    assert_eq!(
        poll_fn(|cx| client.poll_read(cx, &mut rest)).await.ok(),
        Some(6)
    );
    assert!(client.is_quiet());
    let quiet = timeout(Duration::from_millis(50), client.readable()).await;
    assert!(quiet.is_err(), "there is nothing to read");
}

/// A process that is killed says no farewell, as without TLS.
#[tokio::test]
async fn an_end_without_a_farewell_is_an_end() {
    let (mut client, server) = pair().await;
    drop(server);
    let end = poll_fn(|cx| client.poll_read(cx, &mut [0; 8])).await;
    assert_eq!(end.ok(), Some(0));
}

/// Some say farewell and wait for the answer before they close.
#[tokio::test]
async fn a_farewell_is_an_end_also_behind_what_is_unread() {
    const SAID: usize = 4000;
    let (mut client, mut server) = pair().await;
    assert!(!server.has_left());
    poll_fn(|cx| client.poll_write(cx, &[b'x'; SAID]))
        .await
        .expect("taken");
    assert!(!server.has_left());
    poll_fn(|cx| client.poll_farewell(cx)).await.expect("said");
    assert!(server.has_left() && server.has_left());
    let mut heard = 0;
    loop {
        match poll_fn(|cx| server.poll_read(cx, &mut [0; 1024])).await {
            Ok(0) => break,
            n => heard += n.expect("read"),
        }
    }
    assert_eq!(heard, SAID);
}

/// What was taken may be on its way: nobody is told that it was not, and may be said again.
#[tokio::test]
async fn what_was_taken_is_never_denied() {
    let (mut client, server) = pair().await;
    drop(server);
    let write =
        async |client: &mut Stream| poll_fn(|cx| client.poll_write(cx, b"SET a 1\r\n")).await;
    assert_eq!(write(&mut client).await.ok(), Some(9));
    let error = write(&mut client).await.expect_err("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn files_that_are_of_no_use() {
    let place = place();
    let folder = place.dir.path();
    let [one, two] = ["one", "two"].map(|name| place.authority.sign(name, &["x"]));
    let garbage = folder.join("garbage");
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nsecret!!\n").expect("written");
    let empty = folder.join("empty");
    std::fs::write(&empty, "").expect("written");
    let none = folder.join("none");
    let upside_down = folder.join("upside_down");
    let chain = [place.authority.file(), one.cert.clone()];
    let chain = chain.map(|file| std::fs::read(file).expect("there"));
    std::fs::write(&upside_down, chain.concat()).expect("written");
    for (cert, key, words) in [
        (&upside_down, &one.key, "fits certificate 2 of"),
        (&upside_down, &two.key, "does not fit the certificate"),
        (&one.cert, &two.key, "does not fit the certificate"),
        (&one.key, &one.key, "there is no certificate in"),
        (&one.cert, &one.cert, "there is no private key"),
        (&none, &one.key, "cannot read"),
        (&one.cert, &none, "cannot read"),
        (&garbage, &one.key, "is not PEM"),
        (&empty, &one.key, "there is no certificate in"),
    ] {
        let error = Identity::read(cert, key)
            .expect_err("of no use")
            .to_string();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let error = Roots::read(&one.key).expect_err("of no use");
    assert!(error.to_string().contains("no certificate"), "{error}");
}

#[test]
fn what_is_another_after_a_renewal() {
    let place = place();
    let first = place.authority.sign("server", &["x"]);
    let before = identity(&first);
    assert_eq!(before.fingerprint, identity(&first).fingerprint);
    let again = identity(&place.authority.sign("server", &["x"]));
    assert_ne!(before.fingerprint, again.fingerprint);
    let soon = SystemTime::now() + Duration::from_secs(3600);
    let soon = identity(&place.authority.sign_until("server", &["x"], soon));
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("after 1970");
    assert!(!soon.validity.is_over(now));
    assert!(soon.validity.is_over(now + Duration::from_secs(3601)));
}

#[test]
fn what_is_offered_first_of_tls_1_2_does_not_wear_out() {
    let suites = &provider().cipher_suites;
    let mut limits = suites.iter().filter_map(|suite| match suite {
        SupportedCipherSuite::Tls12(suite) => Some(suite.common.confidentiality_limit),
        SupportedCipherSuite::Tls13(_) => None,
    });
    assert_eq!(limits.next(), Some(u64::MAX));
    // Who knows nothing else is served all the same.
    assert!(limits.any(|limit| limit < u64::MAX));
}
