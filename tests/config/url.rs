//! URLs of Sentinels: `--url` and `SWITCHMASTER_URL`.

use secrecy::ExposeSecret;
use switchmaster::config::{self, Flags};

use super::{SMALLEST, env, error, file};

const URL: &str = "SWITCHMASTER_URL";

/// What is said of a flag like this; `more` are others.
fn refused(url: &str, more: Flags) -> String {
    let nothing = file("");
    let flags = Flags {
        url: Some(url.to_owned()),
        config: nothing.flags().config,
        ..more
    };
    error(config::load(&flags, env(&[])))
}

#[test]
fn a_url_is_sentinels_and_a_name() {
    let nothing = file("");
    let url = "redis+sentinel://10.0.0.3,sentinel-b:26380,[fd00::5]:1/orders/0";
    let flags = Flags {
        url: Some(url.to_owned()),
        ..nothing.flags()
    };
    let by_flag = config::load(&flags, env(&[])).expect("valid");
    let by_variable = config::load(&nothing.flags(), env(&[(URL, url)])).expect("valid");
    for (loaded, source) in [
        (&by_flag, "flag --url"),
        (&by_variable, "env SWITCHMASTER_URL"),
    ] {
        let addresses = loaded.config.sentinel.addresses.iter();
        let addresses: Vec<_> = addresses.map(|addr| addr.0.to_string()).collect();
        assert_eq!(
            addresses,
            ["10.0.0.3:26379", "sentinel-b:26380", "[fd00::5]:1"]
        );
        assert_eq!(loaded.config.proxies[0].master, "orders");
        assert!(loaded.config.sentinel.tls.is_none());
        assert!(loaded.config.proxies[0].upstream_tls.is_none());
        assert!(loaded.show().contains(source), "{}", loaded.show());
        assert_eq!(loaded.warnings, Vec::<String>::new());
    }
    // It counts more than the file, as other flags do.
    let written = file("[sentinel]\naddresses = [\"10.9.9.9\"]\n[[proxy]]\nmaster = \"other\"\n");
    let flags = Flags {
        url: flags.url,
        ..written.flags()
    };
    let over = config::load(&flags, env(&[])).expect("valid").config;
    assert_eq!(over.proxies[0].master, "orders");
    assert_eq!(over.sentinel.addresses.len(), 3);
}

#[test]
fn with_tls_to_sentinels_and_nodes() {
    let nothing = file("");
    let variables = env(&[(URL, "rediss+sentinel://10.0.0.3/m")]);
    let config = config::load(&nothing.flags(), variables)
        .expect("valid")
        .config;
    assert!(config.sentinel.tls.is_some());
    assert!(config.proxies[0].upstream_tls.is_some());
    assert!(config.proxies[0].listener.tls.is_none());
}

#[test]
fn its_login_is_for_role_checks_and_comes_from_the_environment_alone() {
    let url = "redis+sentinel://probe:s3cr%2Ft@10.0.0.3/m";
    let nothing = file("");
    let loaded = config::load(&nothing.flags(), env(&[(URL, url)])).expect("valid");
    let proxy = &loaded.config.proxies[0];
    assert_eq!(proxy.probe.username.as_deref(), Some("probe"));
    let password = proxy.probe.password.as_ref().expect("a password");
    assert_eq!(password.expose_secret(), "s3cr/t");
    assert!(proxy.login.is_none(), "clients log in by themselves");
    assert!(loaded.config.sentinel.credentials.password.is_none());
    let shown = loaded.show();
    assert!(shown.contains("# env SWITCHMASTER_URL"), "{shown}");
    assert!(!format!("{shown}{loaded:?}").contains("s3cr"), "{shown}");

    let refused = refused(url, Flags::default());
    for words in [
        "can read a command line",
        "set SWITCHMASTER_URL",
        "[proxy.probe]",
    ] {
        assert!(refused.contains(words), "{refused}");
    }
    assert!(!refused.contains("s3cr"), "{refused}");
}

#[test]
fn what_is_said_twice_is_refused() {
    let url = "rediss+sentinel://:p@10.0.0.3/m";
    for (variable, value) in [
        ("SWITCHMASTER_SENTINEL", "10.0.0.4"),
        ("SWITCHMASTER_MASTER", "m"),
        ("SWITCHMASTER_SENTINEL_TLS", "false"),
        ("SWITCHMASTER_PROXY_UPSTREAM_TLS_ENABLED", "false"),
        ("SWITCHMASTER_PROXY_PROBE_PASSWORD", "p"),
        ("SWITCHMASTER_PROXY_PROBE_USERNAME", "u"),
    ] {
        let nothing = file("");
        let variables = env(&[(URL, url), (variable, value)]);
        let refused = error(config::load(&nothing.flags(), variables));
        assert!(refused.contains("say the same thing twice"), "{refused}");
        assert!(refused.contains("leave one of them out"), "{refused}");
    }
    let more = Flags {
        sentinel: vec!["10.0.0.4".to_owned()],
        ..Flags::default()
    };
    let refused = refused("redis+sentinel://10.0.0.3/m", more);
    assert!(
        refused.contains("flag --sentinel say the same"),
        "{refused}"
    );
}

/// What is wrong may be how its login was written.
#[test]
fn nothing_of_a_bad_one_is_repeated() {
    for url in [
        "redis+sentinel://u:s3cr3t%40h/mymaster",
        "redis+sentinel://user:s3cr3t/mymaster",
        "redis+sentinel://h1:26379,user:s3cr3t@h2:26379/mymaster",
        "redis+sentinel://h/u:s3cr3t%20x/0",
    ] {
        let nothing = file("");
        let by_variable = error(config::load(&nothing.flags(), env(&[(URL, url)])));
        for refused in [refused(url, Flags::default()), by_variable] {
            assert!(!refused.contains("s3cr3t"), "{refused}");
            assert!(refused.contains("= help: "), "{refused}");
        }
    }
}

#[test]
fn bad_ones_say_where_and_what_to_write() {
    for (url, words) in [
        ("redis://10.0.0.3:6379/0", "names one server"),
        ("redis+sentinel://10.0.0.3", "master's name"),
        ("redis+sentinel://10.0.0.3/m/5", "redis://127.0.0.1:6379/5"),
        (
            "redis+sentinel://10.0.0.3;10.0.0.4/m",
            "host 1 of the URL is no address",
        ),
        (
            "redis+sentinel://10.0.0.3,/m",
            "host 2 of the URL is no address",
        ),
        (
            "redis+sentinel://10.0.0.3:port/m",
            "host 1 of the URL is no address",
        ),
        ("redis+sentinel://10.0.0.3/m%0A", "--url"),
    ] {
        let refused = refused(url, Flags::default());
        assert!(refused.contains(words), "{url}: {refused}");
        assert!(refused.contains("= help: "), "{url}: {refused}");
    }
}

#[test]
fn of_several_entries_it_means_none() {
    let two = file(&format!(
        "{SMALLEST}[[proxy]]\nname = \"a\"\nlisten = [\"127.0.0.1:1\"]\n[[proxy]]\nname = \"b\"\n"
    ));
    let flags = Flags {
        url: Some("redis+sentinel://10.0.0.3/m".to_owned()),
        ..two.flags()
    };
    let refused = error(config::load(&flags, env(&[])));
    assert!(
        refused.contains("flag --url cannot know which of the 2 [[proxy]] entries it means"),
        "{refused}"
    );
}
