//! Every key, one by one, and what they do to entries and listeners.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use super::super::{Flags, from_text, load};
use super::*;
use crate::net::tls::authority;

/// Everything that has to be written, and one entry.
const BASE: &str = "[sentinel]\naddresses = [\"10.0.0.3\"]\n";

fn loaded(text: &str) -> Loaded {
    from_text(Path::new("/etc/switchmaster/config.toml"), text.to_owned())
        .unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn between(old: &str, new: &str) -> Difference {
    Difference::between(&loaded(old), &loaded(new)).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(old: &str, new: &str) -> String {
    match Difference::between(&loaded(old), &loaded(new)) {
        Ok(difference) => panic!("taken over: {:?}", difference.words()),
        Err(error) => error.to_string(),
    }
}

/// Two values of this key, neither of which is the default where it matters; an empty text leaves the key out.
const fn values(key: Key) -> (&'static str, &'static str) {
    match key {
        Key::SentinelAddresses => ("[\"10.0.0.3\"]", "[\"10.0.0.3\", \"10.0.0.4\"]"),
        Key::SentinelUsername | Key::ProbeUsername | Key::LoginUsername => ("\"a\"", "\"b\""),
        Key::SentinelPasswordFile
        | Key::ProbePasswordFile
        | Key::LoginPasswordFile
        | Key::AdminTokenFile => ("@one", "@two"),
        Key::SentinelCertFile | Key::ClientTlsCertFile | Key::UpstreamTlsCertFile => {
            ("@one.crt", "@two.crt")
        }
        Key::SentinelKeyFile | Key::ClientTlsKeyFile | Key::UpstreamTlsKeyFile => {
            ("@one.key", "@two.key")
        }
        Key::SentinelCaFile | Key::ClientTlsCaFile | Key::UpstreamTlsCaFile => {
            ("@one.pem", "@two.pem")
        }
        Key::SentinelServerName | Key::UpstreamTlsServerName => ("\"redis-a\"", "\"10.0.0.3\""),
        Key::SentinelTls
        | Key::SentinelInsecure
        | Key::UpstreamTlsEnabled
        | Key::UpstreamTlsInsecure
        | Key::Discover
        | Key::ReplayAuth
        | Key::ResendReads
        | Key::FenceAtOdown
        | Key::SpareUpstreams
        | Key::AdminActions => ("true", "false"),
        Key::SentinelConnectTimeout
        | Key::PollInterval
        | Key::HoldMax
        | Key::AnnouncedHoldMax
        | Key::FirstRequestTimeout
        | Key::WriteStallTimeout
        | Key::ProxyConnectTimeout => ("\"400ms\"", "\"700ms\""),
        Key::UpstreamUserTimeout | Key::ShutdownGrace => ("\"20s\"", "\"40s\""),
        Key::OnSwitch | Key::Pubsub => ("\"move\"", "\"close\""),
        Key::Confirm => ("\"sentinel\"", "\"role\""),
        Key::Agree => ("\"any\"", "\"majority\""),
        Key::Verify => ("\"auto\"", "\"role\""),
        Key::WhenSentinelsAreLost => ("\"serve\"", "\"stop\""),
        Key::MaxHeld | Key::MaxConnections | Key::MaxPerSource | Key::MaxConnectionsInAll => {
            ("10", "20")
        }
        Key::AllowedUids => ("[10]", "[20]"),
        Key::SocketMode => ("\"0600\"", "\"0666\""),
        Key::SocketGroup => ("\"0\"", "\"1\""),
        Key::Name => ("\"one\"", "\"two\""),
        Key::Master => ("\"mymaster\"", "\"other\""),
        Key::Role => ("\"master\"", "\"replica\""),
        Key::Fallback => ("\"master\"", "\"refuse\""),
        Key::MaxLag => ("\"5s\"", "\"20s\""),
        Key::Listen => ("[\"127.0.0.1:7001\"]", "[\"127.0.0.1:7002\"]"),
        Key::AllowFrom | Key::AdminAllowFrom | Key::ProxyProtocolFrom => {
            ("[\"10.0.0.0/8\"]", "[\"10.1.0.0/16\"]")
        }
        Key::AddressMap => ("\"10.0.0.1\" = \"10.9.0.1\"", "\"10.0.0.1\" = \"10.9.0.2\""),
        Key::AdminListen => ("\"127.0.0.1:8479\"", "\"off\""),
        Key::Workers => ("1", "2"),
        Key::Level => ("\"info\"", "\"debug\""),
        Key::Format => ("\"text\"", "\"json\""),
    }
}

/// A file that says this of this key, and what it cannot be said without.
fn file_with(key: Key, value: &str) -> String {
    let value = match value.strip_prefix('@') {
        Some(name) => toml::Value::from(secret(name).display().to_string()).to_string(),
        None => value.to_owned(),
    };
    let line = match key {
        Key::AddressMap => value,
        _ => format!("{} = {value}", key.name()),
    };
    let path = |name| toml::Value::from(secret(name).display().to_string());
    let file = |key: &str, name| format!("{key} = {}\n", path(name));
    let mut around = String::new();
    match key {
        Key::SentinelCertFile | Key::ClientTlsCertFile | Key::UpstreamTlsCertFile => {
            around += &file("key_file", "one.key");
        }
        Key::SentinelKeyFile | Key::ClientTlsKeyFile | Key::UpstreamTlsKeyFile => {
            around += &file("cert_file", "one.crt");
        }
        Key::ClientTlsCaFile => {
            around += &file("cert_file", "one.crt");
            around += &file("key_file", "one.key");
        }
        _ => {}
    }
    let leads = |key| matches!(key, Key::SentinelTls | Key::UpstreamTlsEnabled);
    let is_of_tls = match effect(key) {
        Effect::Upstream => true,
        _ => (Key::SentinelTls as usize..=Key::SentinelInsecure as usize).contains(&(key as usize)),
    };
    if is_of_tls && !matches!(key, Key::SentinelCaFile | Key::UpstreamTlsCaFile) {
        around += &file("ca_file", "one.pem");
    }
    if is_of_tls && !leads(key) {
        around += match effect(key) {
            Effect::Upstream => "enabled = true\n",
            _ => "tls = true\n",
        };
    }
    let line = format!("{around}{line}");
    let login = |line: &str| {
        let password = toml::Value::from(secret("one").display().to_string());
        format!("{line}\npassword_file = {password}\n")
    };
    match key {
        Key::SentinelAddresses => format!("[sentinel]\n{line}\n"),
        Key::SentinelUsername => format!("{BASE}{}", login(&line)),
        _ if key.section() == super::super::Section::Sentinel => format!("{BASE}{line}\n"),
        Key::ProbeUsername => format!("{BASE}[[proxy]]\n[proxy.probe]\n{}", login(&line)),
        Key::ProbePasswordFile => format!("{BASE}[[proxy]]\n[proxy.probe]\n{line}\n"),
        Key::LoginUsername => format!("{BASE}[[proxy]]\n[proxy.login]\n{}", login(&line)),
        Key::LoginPasswordFile => format!("{BASE}[[proxy]]\n[proxy.login]\n{line}\n"),
        Key::AdminActions => format!("{BASE}[admin]\nlisten = \"unix:/run/sm.sock\"\n{line}\n"),
        _ if key.section().is_per_proxy() && key.section() != super::super::Section::Proxy => {
            format!("{BASE}[[proxy]]\n{}\n{line}\n", key.section().header())
        }
        _ => format!("{BASE}{}\n{line}\n", key.section().header()),
    }
}

/// A file with a secret of its own.
fn secret(name: &str) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["one", "two"] {
            let secret = format!("0123456789abcdef-{name}");
            fs::write(folder.path().join(name), secret).expect("written");
        }
        let authority = authority::Authority::new(folder.path(), "one");
        authority.sign("one", &["localhost"]);
        // The same in another place.
        for ending in ["crt", "key", "pem"] {
            let [one, two] =
                ["one", "two"].map(|name| folder.path().join(format!("{name}.{ending}")));
            fs::copy(one, two).expect("copied");
        }
        folder
    });
    folder.path().join(name)
}

/// A key that is missing here does not compile (`values`, `effect`); one that does nothing fails.
#[test]
fn every_key_that_changes_is_noticed_and_has_its_effect() {
    for key in Key::ALL {
        let (one, two) = values(key);
        let (one, two) = (file_with(key, one), file_with(key, two));
        let same = between(&one, &one);
        assert!(same.is_nothing(), "{key:?}: {:?}", same.words());
        if effect(key) == Effect::Restart {
            let why = refused(&one, &two);
            assert!(
                why.contains(&format!("{} needs a restart", key.path())),
                "{why}"
            );
            assert!(why.contains("--> /etc/switchmaster/config.toml:"), "{why}");
            continue;
        }
        let difference = between(&one, &two);
        assert!(difference.has(effect(key)), "{key:?}: {difference:?}");
        assert_eq!(difference.effects.len(), 1, "{key:?}: {difference:?}");
        if effect(key) == Effect::Entry {
            assert_eq!(
                (&*difference.added, &*difference.removed),
                (&[0][..], &[0][..])
            );
            assert_eq!(difference.words().len(), 2, "{:?}", difference.words());
        } else {
            assert_eq!((difference.added.len(), difference.removed.len()), (0, 0));
            let [words] = difference.words() else {
                panic!("{key:?}: {:?}", difference.words());
            };
            assert!(words.starts_with(&key.path()), "{words}");
            assert!(!words.contains("0123456789abcdef"), "{words}");
        }
    }
}

#[test]
fn the_words_say_from_what_to_what() {
    let old = format!("{BASE}[failover]\nhold_max = \"10s\"\n[[proxy]]\nname = \"a\"\n");
    let new = format!(
        "{BASE}[failover]\nhold_max = \"auto\"\n[[proxy]]\nname = \"a\"\nmax_connections = 5\n"
    );
    let difference = between(&old, &new);
    let expected = [
        "failover.hold_max \"10s\" -> \"auto\"",
        "proxy.max_connections of \"a\" 0 -> 5",
    ];
    assert_eq!(difference.words(), expected);
}

/// What counts is what is written in it, wherever it is.
#[test]
fn a_password_in_another_place_is_no_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("password");
    fs::write(&path, "0123456789abcdef-one\n").expect("written");
    let there = file_with(Key::SentinelPasswordFile, "@one");
    let here = format!("{BASE}password_file = {:?}\n", path.display().to_string());
    assert!(between(&there, &here).is_nothing());
    let old = loaded(&here);
    fs::write(&path, "another").expect("written");
    let difference = Difference::between(&old, &loaded(&here)).expect("in order");
    assert_eq!(difference.words(), ["sentinel.password_file changed"]);
}

fn entries(list: &[(&str, &str, &str)]) -> String {
    let mut text = BASE.to_owned();
    for (name, master, listen) in list {
        text.push_str(&format!(
            "[[proxy]]\nname = \"{name}\"\nmaster = \"{master}\"\nlisten = [{listen}]\n"
        ));
    }
    text
}

const A: &str = "\"127.0.0.1:7001\"";
const B: &str = "\"127.0.0.1:7002\"";

#[test]
fn entries_come_and_go_by_name_and_master() {
    let two = entries(&[("a", "m", A), ("b", "n", B)]);
    let turned = entries(&[("b", "n", B), ("a", "m", A)]);
    let order = between(&two, &turned);
    assert!(order.is_nothing(), "{:?}", order.words());
    let places: Vec<_> = order.kept.iter().map(|kept| kept.new).collect();
    assert_eq!(places, [0, 1]);

    let difference = between(&two, &entries(&[("b", "n", B), ("c", "m", A)]));
    assert_eq!(
        (&*difference.removed, &*difference.added),
        (&[0][..], &[1][..])
    );
    let words = [
        "proxy \"a\" (master \"m\") removed",
        "proxy \"c\" (master \"m\") added",
    ];
    assert_eq!(difference.words(), words);
    // Its address changes hands.
    let (old, new) = (
        loaded(&two),
        loaded(&entries(&[("b", "n", B), ("c", "m", A)])),
    );
    let opened: Vec<_> = difference.opened(&new).collect();
    assert_eq!(opened.len(), 1);
    assert!(difference.is_held(&old, opened[0].1));
}

#[test]
fn listeners_come_and_go() {
    let difference = between(
        &entries(&[(
            "a",
            "m",
            "\"127.0.0.1:0\", \"127.0.0.1:0\", \"127.0.0.1:7001\"",
        )]),
        &entries(&[("a", "m", "\"127.0.0.1:7002\", \"127.0.0.1:0\"")]),
    );
    let kept = &difference.kept[0];
    let text = |addrs: &[ListenAddr]| addrs.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(text(&kept.opened), ["127.0.0.1:7002"]);
    assert_eq!(text(&kept.closed), ["127.0.0.1:0", "127.0.0.1:7001"]);
}

#[test]
fn what_the_kernel_would_refuse_needs_a_restart() {
    let open = "\"0.0.0.0:7001\"]\nallow_from = [\"10.0.0.0/8\"";
    let why = refused(&entries(&[("a", "m", A)]), &entries(&[("a", "m", open)]));
    assert!(
        why.contains("0.0.0.0:7001 needs a restart: it overlaps with 127.0.0.1:7001"),
        "{why}"
    );
    assert!(why.contains("config.toml:6:"), "{why}");
    let why = refused(
        &entries(&[("a", "m", A)]),
        &entries(&[("a", "m", "\"systemd:redis\"")]),
    );
    assert!(why.contains("systemd:redis needs a restart"), "{why}");
    // One that it has changes hands.
    let difference = between(
        &entries(&[("a", "m", "\"systemd:redis\"")]),
        &entries(&[("b", "m", "\"systemd:redis\"")]),
    );
    assert_eq!(difference.added, [0]);
}

#[test]
fn all_that_needs_a_restart_is_told_at_once() {
    let new = format!("{BASE}[limits]\nworkers = 4\n[log]\nformat = \"json\"\nlevel = \"debug\"\n");
    let why = refused(BASE, &new);
    assert!(
        why.contains("limits.workers needs a restart: \"auto\" -> 4"),
        "{why}"
    );
    assert!(
        why.contains("log.format needs a restart: \"auto\" -> \"json\""),
        "{why}"
    );
}

#[test]
fn flags_keep_their_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.toml");
    let flags = Flags {
        config: Some(path.clone()),
        listen: vec!["127.0.0.1:7009".to_owned()],
        ..Flags::default()
    };
    fs::write(&path, entries(&[("a", "m", A)])).expect("written");
    let old = load(&flags, []).expect("in order");
    fs::write(&path, entries(&[("a", "m", B)])).expect("written");
    let difference = Difference::between(&old, &load(&flags, []).expect("in order"));
    assert!(difference.expect("in order").is_nothing());
}

/// A certificate is renewed in its place: the paths are the same, and what is in the files is not.
#[test]
fn what_is_in_the_files_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = authority::Authority::new(folder.path(), "ca");
    let place = |name: &str| toml::Value::from(folder.path().join(name).display().to_string());
    let identity = format!(
        "cert_file = {}\nkey_file = {}\n",
        place("a.crt"),
        place("a.key")
    );
    let ca = format!("ca_file = {}\n", place("ca.pem"));
    for (text, effect, path) in [
        (
            format!("{BASE}{ca}{identity}"),
            Effect::Sentinels,
            "sentinel",
        ),
        (
            format!("{BASE}[[proxy]]\n[proxy.client_tls]\n{identity}client_{ca}"),
            Effect::Admission,
            "proxy.client_tls",
        ),
        (
            format!("{BASE}[[proxy]]\n[proxy.upstream_tls]\n{ca}{identity}"),
            Effect::Upstream,
            "proxy.upstream_tls",
        ),
    ] {
        authority.sign("a", &["localhost"]);
        let before = loaded(&text);
        assert!(
            Difference::between(&before, &loaded(&text))
                .expect("valid")
                .is_nothing()
        );
        authority.sign("a", &["localhost"]);
        let difference = Difference::between(&before, &loaded(&text)).expect("valid");
        assert!(difference.has(effect), "{difference:?}");
        let [words] = difference.words() else {
            panic!("{:?}", difference.words());
        };
        assert!(words.starts_with(&format!("{path}.cert_file")), "{words}");
        assert!(words.ends_with(" changed"), "{words}");
        // One that nobody would accept does not take the place of one that serves.
        let in_days = |days: u64| SystemTime::now() + Duration::from_secs(days * 24 * 60 * 60);
        for (words, early) in [("has expired", false), ("is not valid yet", true)] {
            if early {
                authority.sign_between("a", &["localhost"], in_days(1), in_days(2));
            } else {
                authority.sign_expired("a", &["localhost"]);
            }
            let why = Difference::between(&before, &loaded(&text))
                .expect_err("refused")
                .to_string();
            assert!(why.contains(words) && why.contains("a.crt"), "{why}");
            assert!(why.contains("--> /etc/switchmaster/config.toml:"), "{why}");
        }
        // Another authority, in the same place.
        authority.sign("a", &["localhost"]);
        let before = loaded(&text);
        let kept = fs::read(folder.path().join("ca.pem")).expect("there");
        authority::Authority::new(folder.path(), "ca");
        let difference = Difference::between(&before, &loaded(&text)).expect("valid");
        assert!(
            difference.has(effect) && difference.words().len() == 1,
            "{difference:?}"
        );
        assert!(difference.words()[0].contains("ca_file"), "{difference:?}");
        fs::write(folder.path().join("ca.pem"), kept).expect("written");
    }
}
