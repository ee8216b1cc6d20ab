//! Certificates that are renewed while clients are served.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::client::{Client, knowing};
use super::clients::with;
use super::harness::stream::SOON;
use super::harness::wait_until;

/// Row 44 of the fault matrix, the certificate's part: clients that write all the time notice nothing, and new ones see the new one.
#[test]
fn row_44_a_renewed_certificate_costs_no_session() {
    const CLIENTS: usize = 8;
    let stage = with(|_| String::new());
    let stop = Arc::new(AtomicBool::new(false));
    let echoed: Vec<Arc<AtomicU64>> = (0..CLIENTS).map(|_| Arc::default()).collect();
    let busy: Vec<_> = echoed
        .iter()
        .map(|echoed| {
            let mut client = stage.client();
            let (stop, echoed) = (Arc::clone(&stop), Arc::clone(echoed));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    client.echoes(b"as if nothing had happened");
                    echoed.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let each_goes_on = || {
        let before: Vec<_> = echoed.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        wait_until("every client to be served", SOON, || {
            let mut now = echoed.iter().zip(&before);
            now.all(|(now, before)| now.load(Ordering::Relaxed) > before + 10)
        });
    };
    each_goes_on();
    let old = stage.client().shown();

    // In their places, as whoever renews them does it.
    stage.authority.sign("server", &["127.0.0.1"]);
    let mark = stage.proxy.mark();
    stage.proxy.hang_up();
    let reloaded = stage.proxy.event_after(mark, "reloaded", SOON);
    let changed = reloaded.text("changed");
    assert_eq!(changed, "proxy.client_tls.cert_file of \"main\" changed");
    let new = stage.client().shown();
    assert_ne!(old, new);
    each_goes_on();

    // What is of no use is refused with its file, and changes nothing.
    let key = fs::read(&stage.server.key).expect("there");
    let [key_file, cert_file] = [&stage.server.key, &stage.server.cert].map(|file| file.display());
    let unfit = format!("the key in {key_file} does not fit the certificate in {cert_file}");
    let broken: [(&dyn Fn(), &str); 4] = [
        (&|| drop(stage.authority.sign("other", &["x"])), "nothing"),
        (
            &|| {
                let other = stage.folder.path().join("other.key");
                fs::copy(other, &stage.server.key).expect("copied");
            },
            &unfit,
        ),
        (
            &|| {
                fs::File::create(&stage.server.key)
                    .and_then(|mut file| file.write_all(b"-----BEGIN nothing"))
                    .expect("written");
            },
            "server.key",
        ),
        (
            &|| drop(stage.authority.sign_expired("server", &["127.0.0.1"])),
            "has expired",
        ),
    ];
    for (spoil, words) in broken {
        spoil();
        let mark = stage.proxy.mark();
        stage.proxy.hang_up();
        if words == "nothing" {
            stage.proxy.event_after(mark, "reload_unchanged", SOON);
        } else {
            let failed = stage.proxy.event_after(mark, "reload_failed", SOON);
            let what = failed.text("what");
            assert!(what.contains(words), "{what}");
            assert!(what.contains("server."), "{what}");
        }
        assert_eq!(stage.client().shown(), new, "{words}");
        each_goes_on();
    }
    drop(key);

    stop.store(true, Ordering::Relaxed);
    for client in busy {
        client.join().expect("never disturbed");
    }
}

/// An authority of clients that is no longer believed: whoever comes then is asked anew, whoever is in stays.
#[test]
fn another_authority_of_clients() {
    let stage = with(|authority| format!("client_ca_file = {:?}\n", authority.file()));
    let app = stage.authority.sign("app", &["app"]);
    let server_ca = stage.folder.path().join("server-ca.pem");
    fs::copy(stage.authority.file(), &server_ca).expect("copied");
    let connector = knowing(&server_ca, Some(&app));
    let mut inside = Client::connect(stage.addr(), &connector).expect("let in");
    inside.echoes(b"in");
    super::harness::authority::Authority::new(stage.folder.path(), "ca");
    let mark = stage.proxy.mark();
    stage.proxy.hang_up();
    stage.proxy.event_after(mark, "reloaded", SOON);
    // Tickets of before are of no use, either: the same connector has them.
    let answer =
        Client::connect(stage.addr(), &connector).and_then(|mut client| client.exchange(b"x", 1));
    assert!(answer.is_err());
    inside.echoes(b"still in");
}
