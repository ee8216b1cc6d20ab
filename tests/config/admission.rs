//! Who may connect: what looks like a mistake there.

use switchmaster::config;

use super::{SMALLEST, env, file};

/// What is said of an entry like this.
fn warned(entry: &str) -> Vec<String> {
    let text = format!("{SMALLEST}[[proxy]]\n{entry}");
    config::load(&file(&text).flags(), env(&[]))
        .expect("valid")
        .warnings
}

#[test]
fn a_balancer_whose_clients_nobody_lets_in_is_warned_of() {
    let balancer = "proxy_protocol_from = [\"127.0.0.1\"]\n";
    let told = warned(balancer);
    assert!(
        told.len() == 1 && told[0].contains("no client that a balancer names"),
        "{told:?}"
    );
    let with = warned(&format!("{balancer}allow_from = [\"10.0.0.0/8\"]\n"));
    assert!(with.is_empty(), "{with:?}");
}

#[test]
fn an_address_that_only_this_host_reaches_and_this_host_may_not_is_warned_of() {
    for (listen, allow_from, addr) in [
        ("127.0.0.1:1", "10.9.0.0/16", Some("127.0.0.1:1")),
        ("[::1]:1", "127.0.0.0/8", Some("[::1]:1")),
        ("[::1]:1", "::1", None),
        ("127.0.0.1:1", "127.0.0.2/32", None),
        ("127.0.0.1:1", "0.0.0.0/0", None),
        ("[::1]:1", "::/0", None),
        ("10.0.0.7:1", "10.9.0.0/16", None),
        ("unix:/run/switchmaster/redis.sock", "10.9.0.0/16", None),
        ("systemd:main", "10.9.0.0/16", None),
    ] {
        let keys = format!("listen = [\"{listen}\"]\nallow_from = [\"{allow_from}\"]\n");
        let mut all = vec![("proxy.allow_from", warned(&keys))];
        if !listen.starts_with("systemd:") {
            // The same of the page.
            let keys = format!("[admin]\nlisten = \"{listen}\"\nallow_from = [\"{allow_from}\"]\n");
            all.push(("admin.allow_from", warned(&keys)));
        }
        for (key, told) in all {
            let as_expected = match addr {
                Some(addr) => told.len() == 1 && told[0].starts_with(key) && told[0].contains(addr),
                None => told.is_empty(),
            };
            assert!(as_expected, "{listen} {allow_from}: {told:?}");
        }
    }
}

#[test]
fn what_is_for_unix_sockets_and_stands_where_there_is_none_is_warned_of() {
    const FILE: &str = "unix:/run/switchmaster/redis.sock";
    for (listen, key, dead) in [
        ("127.0.0.1:1", "allowed_uids = [1000]", true),
        (FILE, "allowed_uids = [1000]", false),
        ("systemd:main", "allowed_uids = [1000]", false),
        ("127.0.0.1:1", "socket_mode = \"0666\"", true),
        // Its file has the mode that the socket unit says.
        ("systemd:main", "socket_mode = \"0666\"", true),
        (FILE, "socket_mode = \"0666\"", false),
        ("127.0.0.1:1", "socket_group = \"0\"", true),
        (FILE, "socket_group = \"0\"", false),
    ] {
        let told = warned(&format!("listen = [\"{listen}\"]\n{key}\n"));
        let name = key.split(' ').next().expect("a key");
        let wanted = format!("proxy.{name} of \"main\" does nothing");
        if dead {
            assert!(told.len() == 1 && told[0].contains(&wanted), "{told:?}");
        } else {
            assert!(told.is_empty(), "{told:?}");
        }
    }
}
