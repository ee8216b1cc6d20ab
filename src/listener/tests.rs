//! Binding, admission, and what the errors of `accept(2)` mean.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use rustix::io::Errno;
use tokio::io::AsyncWriteExt;

use super::accept::{Peer, admits, may_user};
use super::bind::unix_error;
use super::refusal::{Refusal, Trouble};
use super::*;
use crate::net::rarely::logged;
use crate::net::reserve::Reserve;
use crate::net::tls::authority::Authority;
use crate::net::tls::{Identity, Roots};

fn tcp(port: u16) -> Config {
    Config {
        listen: vec![ListenAddr::Tcp(([127, 0, 0, 1], port).into())],
        ..Config::default()
    }
}

fn unix(path: &Path) -> Config {
    Config {
        listen: vec![ListenAddr::Unix(path.to_path_buf())],
        ..Config::default()
    }
}

fn bind(config: &Config, passed: &mut Passed) -> Result<Vec<Bound>, BindError> {
    Inherited::default().bind(None, config, passed)
}

#[test]
fn a_taken_port_says_by_whom() {
    let other = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = other.local_addr().expect("addr").port();
    let error = bind(&tcp(port), &mut Passed::nothing()).expect_err("taken");
    assert_eq!(error.exit_code(), 73);
    let BindError::PortTaken { holder, .. } = &error else {
        panic!("{error}");
    };
    let holder = holder.as_ref().expect("this process may look at itself");
    assert_eq!(holder.pid, std::process::id());
    assert!(error.to_string().contains(&format!("(pid {})", holder.pid)));
}

#[test]
fn an_address_of_another_host_is_named_as_such() {
    // TEST-NET-1 (RFC 5737) is nobody's address.
    let config = Config {
        listen: vec![ListenAddr::Tcp(([192, 0, 2, 1], 0).into())],
        ..Config::default()
    };
    let error = bind(&config, &mut Passed::nothing()).expect_err("not local");
    assert!(matches!(error, BindError::NotLocal(_)), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("s");
    let before = UnixListener::bind(&path).expect("bind");
    let error = bind(&unix(&path), &mut Passed::nothing()).expect_err("in use");
    assert!(matches!(error, BindError::SocketTaken(_)), "{error}");
    assert_eq!(error.exit_code(), 73);
    drop(before);
    assert!(path.exists(), "a closed listener leaves its file");
    let bound = bind(&unix(&path), &mut Passed::nothing()).expect("stale");
    UnixStream::connect(&path).expect("listens");
    drop(bound);
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_socket_is_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("notes");
    fs::write(&path, "precious").expect("write");
    let error = bind(&unix(&path), &mut Passed::nothing()).expect_err("a file");
    assert!(matches!(error, BindError::NotASocket(_)), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("kept"), "precious");
}

#[test]
fn a_file_that_took_the_place_of_ours_is_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("s");
    let ours = bind(&unix(&path), &mut Passed::nothing()).expect("bind");
    fs::remove_file(&path).expect("remove");
    let _theirs = UnixListener::bind(&path).expect("bind");
    drop(ours);
    assert!(path.exists());
}

#[test]
fn a_file_system_that_takes_no_file_is_said_to_be_one() {
    let error = unix_error(Path::new("/run/redis.sock"), Errno::ROFS.into());
    assert_eq!(error.exit_code(), 77);
    let told = error.to_string();
    for remedy in ["below /run/switchmaster", "ReadWritePaths=/run to"] {
        assert!(told.contains(remedy), "{told}");
    }
}

#[test]
fn another_file_is_not_given_what_is_our_sockets() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("s");
    let mut config = unix(&path);
    let ours = bind(&config, &mut Passed::nothing()).expect("bind");
    let mode = |path: &Path| {
        let found = fs::metadata(path).expect("there");
        found.permissions().mode() & 0o7777
    };
    assert_eq!(mode(&path), DEFAULT_SOCKET_MODE);
    config.socket_mode = 0o666;
    config.socket_group = Some(Group {
        name: "own".to_owned(),
        gid: rustix::process::getegid().as_raw(),
    });
    ours[0].dress(&config).expect("it is ours");
    assert_eq!(mode(&path), 0o666);

    let precious = folder.path().join("precious");
    fs::write(&precious, "secret").expect("write");
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).expect("own");
    fs::remove_file(&path).expect("remove");
    std::os::unix::fs::symlink(&precious, &path).expect("link");
    ours[0].dress(&config).expect_err("a link");
    assert_eq!(mode(&precious), 0o600);
    fs::remove_file(&path).expect("remove");
    fs::hard_link(&precious, &path).expect("link");
    ours[0].dress(&config).expect_err("a file");
    assert_eq!(mode(&precious), 0o600);
    fs::remove_file(&path).expect("remove");
    let _theirs = UnixListener::bind(&path).expect("bind");
    let before = mode(&path);
    ours[0].dress(&config).expect_err("another socket");
    assert_eq!(mode(&path), before);
}

#[test]
fn who_was_let_in_before_counts_where_it_comes_from() {
    let config = Config {
        max_per_source: 1,
        ..Config::default()
    };
    let ceiling = Ceiling::new(None, &Reserve::default());
    let door = Door::new("main".into(), &config, ceiling);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let addr = listener.local_addr().expect("bound");
    let _client = TcpStream::connect(addr).expect("it listens");
    let (adopted, _) = listener.accept().expect("came");
    let here = Peer::At(addr.ip());
    let first = door.admit(&adopted, None);
    assert_eq!(door.enter(true, here).err(), Some(Refusal::SourceFull));
    // More than there may be are not turned out, and each leaves by itself.
    let second = door.admit(&adopted, None);
    drop(first);
    assert_eq!(door.enter(true, here).err(), Some(Refusal::SourceFull));
    drop(second);
    let (entrance, _) = door.enter(true, here).expect("nobody is there");
    assert_eq!(entrance.conveyed(), None);
    drop(entrance);
    // Of a balancer's client its own address counts.
    let elsewhere = [192, 0, 2, 1].into();
    let conveyed = door.admit(&adopted, Some(elsewhere));
    assert_eq!(conveyed.conveyed(), Some(elsewhere));
    door.enter(true, here).expect("the balancer is no source");
}

/// What a balancer says of a client that it does not name.
#[tokio::test]
async fn a_balancer_that_does_not_say_for_whom_comes_in_as_itself() {
    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    const UNIX: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0";
    const V1: &[u8] = b"PROXY UNKNOWN\r\n";
    const NAMED: &[u8] = b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let addr = listener.local_addr().expect("bound");
    let balancer = Peer::At(addr.ip());
    for (local, allow_from, header, comes_in) in [
        (false, "10.0.0.0/8", LOCAL, true),
        (false, "10.0.0.0/8", UNIX, false),
        (false, "10.0.0.0/8", V1, false),
        (false, "10.0.0.0/8", NAMED, true),
        (false, "127.0.0.0/8", UNIX, true),
        (false, "127.0.0.0/8", V1, true),
        (false, "127.0.0.0/8", NAMED, false),
        // Also on a loopback listener.
        (true, "10.0.0.0/8", V1, false),
        (true, "127.0.0.0/8", V1, true),
    ] {
        let config = Config {
            allow_from: vec![allow_from.parse().expect("a network")],
            max_per_source: 1,
            ..Config::default()
        };
        let ceiling = Ceiling::new(None, &Reserve::default());
        let door = std::sync::Arc::new(Door::new("main".into(), &config, ceiling));
        let client = async {
            let mut client = tokio::net::TcpStream::connect(addr)
                .await
                .expect("it listens");
            client.write_all(header).await.expect("written");
            client
        };
        let (_client, accepted) = tokio::join!(client, listener.accept());
        let (stream, _) = accepted.expect("came");
        let accepted = door.clone().introduce(stream, local, balancer).await;
        let what = header.escape_ascii();
        assert_eq!(accepted.is_some(), comes_in, "{local} {allow_from} {what}");
        let conveyed = accepted.as_ref().and_then(|one| one.entrance.conveyed());
        assert_eq!(conveyed.is_some(), comes_in && header == NAMED, "{what}");
        if header == V1 && comes_in {
            // It counts as any other of that address.
            assert_eq!(door.enter(true, balancer).err(), Some(Refusal::SourceFull));
        }
    }
}

#[test]
fn who_may_connect() {
    let nets = ["10.1.0.0/16", "fd00::/8"].map(|net| net.parse().expect(net));
    for (peer, local, admitted) in [
        ("127.0.0.1", true, false),
        ("::1", true, false),
        ("127.0.0.1", false, false),
        ("10.1.2.3", true, true),
        ("10.1.2.3", false, true),
        ("::ffff:10.1.2.3", false, true),
        ("10.2.0.1", false, false),
        ("fd12::1", false, true),
        ("2001:db8::1", false, false),
    ] {
        let peer = peer.parse().expect(peer);
        assert_eq!(admits(&nets, local, peer), admitted, "{peer} {local}");
    }
    // Nobody is named.
    for (peer, local, admitted) in [
        ("127.0.0.1", true, true),
        ("127.9.9.9", true, true),
        ("::1", true, true),
        ("::ffff:127.0.0.1", true, true),
        ("127.0.0.1", false, false),
        ("10.1.2.3", true, false),
        ("10.1.2.3", false, false),
    ] {
        let peer = peer.parse().expect(peer);
        assert_eq!(admits(&[], local, peer), admitted, "{peer} {local}");
    }
}

#[test]
fn users_by_the_kernels_word() {
    for (allowed, uid, verdict) in [
        (&[][..], 1000, Ok(())),
        (&[], OVERFLOW_UID, Ok(())),
        (&[1000, 1001], 1001, Ok(())),
        (&[1000], 0, Err(Refusal::NotAUser)),
        (
            &[1000, OVERFLOW_UID],
            OVERFLOW_UID,
            Err(Refusal::UnknownUser),
        ),
    ] {
        let judged = may_user(allowed, uid, OVERFLOW_UID);
        assert_eq!(judged, verdict, "{uid} of {allowed:?}");
    }
    // On a machine that was told to call them otherwise.
    assert_eq!(may_user(&[1000], 1000, 1000), Err(Refusal::UnknownUser));
    assert_eq!(may_user(&[OVERFLOW_UID], OVERFLOW_UID, 1000), Ok(()));
}

#[test]
fn no_error_of_accept_is_taken_for_another() {
    let of = |errno: Errno| Trouble::of(&io::Error::from(errno));
    assert_eq!(of(Errno::MFILE), Trouble::ProcessFiles);
    for errno in [Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
        assert_eq!(of(errno), Trouble::MachineResources, "{errno}");
        assert!(of(errno).pauses());
    }
    for errno in [Errno::CONNABORTED, Errno::HOSTUNREACH, Errno::PROTO] {
        assert!(!of(errno).pauses(), "{errno} concerns one connection");
    }
    assert!(of(Errno::INVAL).pauses());
    assert!(Trouble::of(&io::Error::other("no errno")).pauses());
}

#[test]
fn a_line_counts_what_happened_for_its_own_reason() {
    let door = Door::new(
        "main".into(),
        &Config::default(),
        Ceiling::new(None, &Reserve::default()),
    );
    let lines = logged(|| {
        for refusal in Refusal::ALL {
            door.refuse(refusal, None);
            door.refuse(refusal, None);
        }
        for trouble in Trouble::ALL {
            door.failed(trouble, &io::Error::other("made for this test"));
        }
    });
    for refusal in Refusal::ALL {
        let line = format!("reason=\"{}\" count=1", refusal.label());
        assert!(lines.contains(&line), "{line} in {lines}");
    }
    assert_eq!(lines.matches("accept_failed").count(), Trouble::ALL.len());
    let counted = door.not_allowed.read() + door.full.read() + door.source_full.read();
    assert_eq!(counted, 2 * Refusal::ALL.len() as u64);
}

#[test]
fn places_by_kind_are_in_order() {
    for (i, refusal) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(refusal as usize, i);
    }
    for (i, trouble) in Trouble::ALL.into_iter().enumerate() {
        assert_eq!(trouble as usize, i);
    }
}

/// What another process had bound for this entry.
fn heirloom(inherited: &mut Inherited, entry: Option<&str>, asked: &ListenAddr) -> ListenAddr {
    let config = Config {
        listen: vec![asked.clone()],
        ..Config::default()
    };
    let bound = bind(&config, &mut Passed::nothing()).expect("a socket");
    let socket = bound[0].as_fd().try_clone_to_owned().expect("files");
    let entry = entry.map(str::to_owned);
    inherited.add(entry, asked.to_string(), bound[0].file(), socket);
    bound[0].own_file(false);
    bound[0].addr().clone()
}

fn addrs(bound: &[Bound]) -> Vec<ListenAddr> {
    bound.iter().map(|bound| bound.addr().clone()).collect()
}

#[test]
fn each_port_that_was_any_goes_to_the_entry_and_the_listener_that_had_it() {
    let mut inherited = Inherited::default();
    let any = &tcp(0).listen[0];
    let ports =
        [Some("a"), Some("b"), Some("b"), None].map(|entry| heirloom(&mut inherited, entry, any));
    let mut take = |entry, config: &Config| {
        let bound = inherited.bind(entry, config, &mut Passed::nothing());
        addrs(&bound.expect("bound"))
    };
    let twice = Config {
        listen: vec![any.clone(), any.clone()],
        ..Config::default()
    };
    assert_eq!(take(Some("b"), &twice), ports[1..3]);
    assert_eq!(take(None, &tcp(0)), ports[3..]);
    let [new] = &take(Some("c"), &tcp(0))[..] else {
        panic!("one was asked for");
    };
    assert!(!ports.contains(new), "it is nobody else's");
    assert_eq!(take(Some("a"), &tcp(0)), ports[..1]);
}

#[test]
fn an_address_may_have_been_another_entrys_but_not_the_admin_endpoints() {
    let folder = tempfile::tempdir().expect("folder");
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let mut inherited = Inherited::default();
    let at = heirloom(&mut inherited, Some("a"), &unix(&first).listen[0]);
    let bound = inherited.bind(Some("b"), &unix(&first), &mut Passed::nothing());
    let bound = bound.expect("it changes hands");
    assert_eq!(addrs(&bound), [at]);
    assert_eq!(bound[0].asked(), bound[0].addr());

    heirloom(&mut inherited, None, &unix(&second).listen[0]);
    let error = inherited.bind(Some("b"), &unix(&second), &mut Passed::nothing());
    assert_eq!(error.expect_err("somebody listens there").exit_code(), 73);
}

/// On a listener of both kinds: what a line says can be written into `allow_from` as it is.
#[test]
fn a_client_of_ipv4_is_told_of_as_one() {
    let ip = "::ffff:192.0.2.7".parse().expect("an address");
    assert_eq!(Peer::At(ip).to_string(), "192.0.2.7");
}

/// What somebody else has put at the path meanwhile is not what this program made: it gets no permissions, and stays.
#[test]
fn a_file_that_took_the_place_of_an_inherited_one_is_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    for (name, replaced) in [("ours", false), ("theirs", true)] {
        let path = folder.path().join(name);
        let mut inherited = Inherited::default();
        heirloom(&mut inherited, Some("a"), &unix(&path).listen[0]);
        let theirs = replaced.then(|| {
            fs::remove_file(&path).expect("it was made");
            let theirs = UnixListener::bind(&path).expect("bind");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("own");
            theirs
        });
        let config = Config {
            socket_mode: 0o666,
            ..unix(&path)
        };
        let mut bound = Vec::new();
        let lines = logged(|| {
            let taken = inherited.bind(Some("a"), &config, &mut Passed::nothing());
            bound = taken.expect("it is taken over all the same");
        });
        assert_eq!(lines.contains("config_warning"), replaced, "{lines}");
        bound[0].own_file(true);
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, if replaced { 0o600 } else { 0o666 });
        drop((bound, inherited.unclaimed()));
        assert_eq!(path.exists(), replaced);
        drop(theirs);
    }
    // Neither one that nobody asked for any more.
    let path = folder.path().join("unclaimed");
    let mut inherited = Inherited::default();
    heirloom(&mut inherited, Some("a"), &unix(&path).listen[0]);
    fs::remove_file(&path).expect("it was made");
    let _theirs = UnixListener::bind(&path).expect("bind");
    for bound in inherited.unclaimed() {
        bound.own_file(true);
    }
    assert!(path.exists());
}

/// Two that start at once: what one has bound and does not listen on yet is not what a killed process has left.
#[test]
fn of_two_that_start_at_once_one_serves_and_the_other_is_told() {
    const ROUNDS: usize = 100;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("s");
    for _ in 0..ROUNDS {
        drop(UnixListener::bind(&path).expect("a stale one"));
        let both = Barrier::new(2);
        let start = || {
            both.wait();
            bind(&unix(&path), &mut Passed::nothing())
        };
        let started = thread::scope(|scope| {
            let [one, two] = [(), ()].map(|()| scope.spawn(start));
            [one, two].map(|start| start.join().expect("no panic"))
        });
        assert_eq!(started.iter().filter(|bound| bound.is_ok()).count(), 1);
        UnixStream::connect(&path).expect("somebody listens");
    }
}

/// Between the look at who comes and the first byte said to it there may be a reload.
#[test]
fn whoever_was_let_in_is_met_by_the_terms_that_let_it_in() {
    let folder = tempfile::tempdir().expect("folder");
    let authority = Authority::new(folder.path(), "ca");
    let server = authority.sign("server", &["redis-a"]);
    let identity = Identity::read(&server.cert, &server.key).expect("a certificate");
    let roots = Roots::read(&authority.file()).expect("an authority");
    let mutual = Config {
        tls: Some(Acceptor::new(&identity, Some(&roots)).expect("usable")),
        ..Config::default()
    };
    let door = Door::new(
        "main".into(),
        &mutual,
        Ceiling::new(None, &Reserve::default()),
    );
    let stranger = Peer::At([192, 0, 2, 7].into());
    let (_entrance, greeting) = door.enter(false, stranger).expect("it has to prove itself");
    door.change(&Config {
        allow_from: vec!["10.0.0.0/8".parse().expect("a network")],
        ..Config::default()
    });
    assert!(greeting.is_some_and(|greeting| greeting.tls.demands_certificates()));
    let refused = door.enter(false, stranger).map(drop);
    assert_eq!(refused, Err(Refusal::NotAllowed));
}
