//! Certificates whose time is over, or is so soon.

use tokio::io::AsyncReadExt;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind};

use super::*;

/// Also in a session that goes on with what was agreed on in one before, in which nobody would look at it again.
#[tokio::test]
async fn a_certificate_that_has_ended_is_believed_in_no_later_session() {
    let place = place();
    // A certificate knows whole seconds.
    let end = SystemTime::now() + Duration::from_secs(3);
    let pair = place.authority.sign_until("app", &["app"], end);
    let server = identity(&place.authority.sign("server", &["redis-a"]));
    let acceptor = Acceptor::new(&server, Some(&roots(&place.authority.file()))).expect("usable");
    let store = roots(&place.authority.file()).store;
    let connectors = [&TLS12, &TLS13].map(|version| {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("known")
            .with_root_certificates(Arc::clone(&store));
        let resolver = SingleCertAndKey::from(Arc::clone(&identity(&pair).certified));
        TlsConnector::from(Arc::new(
            config.with_client_cert_resolver(Arc::new(resolver)),
        ))
    });
    let meet = async |connector: &TlsConnector| {
        let (here, there) = sockets();
        let name = ServerName::try_from("redis-a").expect("a name");
        let client = async {
            let mut client = connector.connect(name, here).await?;
            // Behind what a server gives for later.
            client.read_u8().await?;
            Ok::<_, io::Error>(client.get_ref().1.handshake_kind())
        };
        let server = async {
            let mut server = accept(&acceptor, there).await?;
            poll_fn(|cx| server.poll_write(cx, b"x"))
                .await
                .expect("taken");
            Ok::<_, Option<Refused>>(server)
        };
        timeout(LIMIT, async { tokio::join!(client, server) })
            .await
            .expect("in time")
    };
    for connector in &connectors {
        for _ in 0..2 {
            let (client, server) = meet(connector).await;
            assert!(server.is_ok(), "{server:?}");
            assert_eq!(client.expect("let in"), Some(HandshakeKind::Full));
        }
    }
    let over = end.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_secs(1);
    // A certificate ends by the clock; there is nothing else to wait for.
    tokio::time::sleep(over).await;
    for connector in &connectors {
        let (_, server) = meet(connector).await;
        assert_eq!(server.err(), Some(Some(Refused::BadCertificate)));
    }
}

/// What nobody needs does not make a certificate one that nobody accepts.
#[tokio::test]
async fn which_certificate_of_a_file_counts() {
    let place = place();
    let now = SystemTime::now();
    let since_epoch = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("after 1970");
    let leaf = place.authority.sign("leaf", &["redis-a"]);
    let valid = identity(&leaf);
    assert!(!valid.validity.is_over(since_epoch(now)));
    assert!(!valid.validity.is_to_come(since_epoch(now)));
    assert_eq!(valid.ended_behind, None);

    let behind = |pair: &Pair| {
        let chain = [&leaf, pair].map(|pair| std::fs::read(&pair.cert).expect("there"));
        std::fs::write(&leaf.cert, chain.concat()).expect("written");
        let chained = identity(&leaf);
        std::fs::write(&leaf.cert, &chain[0]).expect("written");
        chained
    };
    // A cross-signed root, as many chains have had behind them, long over.
    let over = behind(&place.authority.sign_expired("over", &["cross"]));
    assert_eq!(over.validity.not_after, valid.validity.not_after);
    assert!(over.ended_behind.is_some_and(|end| end < since_epoch(now)));
    // It is shown to clients all the same, and they accept it.
    let acceptor = Acceptor::new(&over, None).expect("usable");
    let (client, _) = meet(&place.connector(), &acceptor, "redis-a").await;
    assert!(client.is_ok(), "{client:?}");
    // What ends before the certificate may be needed: that is told in time.
    let soon = now + Duration::from_secs(3600);
    let ends = behind(&place.authority.sign_until("ends", &["cross"], soon));
    assert!(
        ends.validity
            .is_over(since_epoch(soon) + Duration::from_secs(1))
    );

    let day = Duration::from_secs(24 * 60 * 60);
    let early = place
        .authority
        .sign_between("early", &["redis-a"], now + day, now + 2 * day);
    assert!(identity(&early).validity.is_to_come(since_epoch(now)));
}

/// An authority is believed for its key, and for as long as it is named (RFC 5280, 6.1.1 d).
#[tokio::test]
async fn an_authority_that_is_over_is_believed_as_long_as_it_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let yesterday = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
    let authority = Authority::until(dir.path(), "ca", yesterday);
    let place = Place { dir, authority };
    let acceptor = place.acceptor(&["redis-a"]);
    let (client, server) = meet(&place.connector(), &acceptor, "redis-a").await;
    assert!(client.is_ok() && server.is_ok(), "{client:?}");
}
