//! `redis+sentinel://` URLs: Sentinels and the master's name in one text, as applications that know Sentinels have them.
//!
//! ```text
//! redis+sentinel://[[user]:password@]host[:port][,host[:port]...]/master[/0]
//! rediss+sentinel://...                                           with TLS to Sentinels and nodes
//! ```
//! Nobody has standardised these. What the names before `@` log in to is Redis in nearly all programs that read them, and not
//! Sentinel; here they are what `[proxy.probe]` takes, and no login for clients. Whatever else other programs read out of such a
//! text (another database, options, other places for the master's name) is refused with a word on where it goes, and never
//! ignored.
//!
//! By hand, and not by the `url` crate: what it reads (the WHATWG's URL, as RFC 3986) has one host and one port, and it refuses
//! `a:26379,b:26379` as a port that is none. What is left to do is to split at five characters.

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use super::env::{Environment, ProbeVariable};
use super::problem::{Problem, Source};
use super::schema::{ENV_PROBE_PASSWORD, ENV_URL, Key};
use super::text::{plain_name, sentinel_addr};
use super::value::Refusal;
use super::written::{Item, Items};

/// The flag.
const FLAG: &str = "--url";
/// With TLS and without.
const SCHEMES: [(&str, bool); 2] = [("redis+sentinel", false), ("rediss+sentinel", true)];
const FORM: &str =
    "write redis+sentinel://10.0.0.3:26379,10.0.0.4:26379/mymaster (rediss+sentinel:// with TLS)";
/// Longest text that is taken apart.
const URL_MAX: usize = 8 * 1024;

/// What is in one. Hosts are as they were written, and known to be addresses of Sentinels.
#[derive(Debug)]
struct SentinelUrl {
    tls: bool,
    login: Option<(Option<String>, SecretString)>,
    hosts: Vec<String>,
    master: String,
}

/// Lays what a URL on the command line says over what other flags say.
///
/// # Errors
/// When it is none, holds a password, or another flag says the same.
pub(super) fn from_flag(url: &str, flags: &mut Items) -> Result<(), Problem> {
    let source = Source::Flag(FLAG);
    let parsed = parse(url).map_err(|refusal| problem(&source, refusal))?;
    if parsed.login.is_some() {
        return Err(problem(
            &source,
            refusal(
                "there is a password in the URL, and everybody on this machine can read a command line (ps)",
                format!(
                    "set {ENV_URL} to this URL instead, or leave the login out of it and name a file: password_file below \
                     [proxy.probe]"
                ),
            ),
        ));
    }
    lay(parsed, &source, flags)
}

/// The same of the one in the environment, whose login is one of the environment, too.
///
/// # Errors
/// When it is none, or another variable says the same.
pub(super) fn from_variable(url: &str, environment: &mut Environment) -> Result<(), Problem> {
    let source = Source::Env(ENV_URL.to_owned());
    let mut parsed = parse(url).map_err(|refusal| problem(&source, refusal))?;
    if let Some((username, password)) = parsed.login.take() {
        for (key, other) in [
            (Key::ProbeUsername, Key::ProbeUsername.env()),
            (Key::ProbePasswordFile, Key::ProbePasswordFile.env()),
        ] {
            if environment.items.get(key).is_some() {
                return Err(twice(&source, &other));
            }
        }
        if environment.probe_password.replace(password).is_some() {
            return Err(twice(&source, ENV_PROBE_PASSWORD));
        }
        environment.probe_password_variable = ProbeVariable(ENV_URL);
        if let Some(username) = username {
            let item = Item::text(username, source.clone());
            environment.items.set(Key::ProbeUsername, item);
        }
    }
    lay(parsed, &source, &mut environment.items)
}

/// Keys that a URL stands for, among others of the same writer.
fn lay(url: SentinelUrl, source: &Source, items: &mut Items) -> Result<(), Problem> {
    for key in [Key::SentinelAddresses, Key::Master] {
        if let Some(other) = items.get(key) {
            return Err(twice(source, &other.source.to_string()));
        }
    }
    items.set(
        Key::SentinelAddresses,
        Item::list(url.hosts, source.clone()),
    );
    items.set(Key::Master, Item::text(url.master, source.clone()));
    if url.tls {
        for key in [Key::SentinelTls, Key::UpstreamTlsEnabled] {
            if let Some(other) = items.get(key) {
                return Err(twice(source, &other.source.to_string()));
            }
            items.set(key, Item::text("true", source.clone()));
        }
    }
    Ok(())
}

fn twice(source: &Source, other: &str) -> Problem {
    Problem::at(
        source,
        format!("{source} and {other} say the same thing twice"),
        "leave one of them out",
    )
}

fn problem(source: &Source, (message, help): Refusal) -> Problem {
    Problem::at(source, format!("{source}: {message}"), help)
}

fn refusal(message: impl Into<String>, help: impl Into<String>) -> Refusal {
    (message.into(), help.into())
}

/// Takes one apart. No refusal repeats any of it: what is wrong with it may be the place where its password ends.
fn parse(url: &str) -> Result<SentinelUrl, Refusal> {
    let url = url.trim();
    if url.len() > URL_MAX {
        return Err(refusal("this is too long for a URL", FORM));
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(refusal("this is no URL", FORM));
    };
    let known = SCHEMES
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(scheme));
    let Some((_, tls)) = known else {
        let message = match scheme.to_ascii_lowercase().as_str() {
            "redis" | "rediss" | "valkey" | "valkeys" => {
                "this URL names one server, and switchmaster needs the Sentinels that know who is master"
            }
            "redis-sentinel" | "rediss-sentinel" | "sentinel" | "valkey+sentinel" => {
                "programs differ in what such a URL means"
            }
            _ => "this is no URL of Sentinels",
        };
        return Err(refusal(message, FORM));
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if rest.contains('@') {
        return Err(refusal(
            "there is an @ behind the hosts of the URL",
            "in a user or a password / is written %2F, ? is %3F and # is %23",
        ));
    }
    if rest.contains('#') {
        return Err(refusal(
            "there is a # in the URL, behind which some programs have the master's name",
            "write it behind the last host: .../mymaster. A # in a password is written %23",
        ));
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if rest.contains('?') {
        return Err(options(query));
    }
    let (login, hosts) = match authority.split_once('@') {
        None => (None, authority),
        Some((_, hosts)) if hosts.contains('@') => {
            return Err(refusal(
                "there are several @ in the URL",
                "one login stands before all hosts; an @ in a password is written %40",
            ));
        }
        Some((login, hosts)) => (Some(userinfo(login)?), hosts),
    };
    if hosts.is_empty() {
        return Err(refusal("the URL names no Sentinel", FORM));
    }
    // What is judged later is repeated then.
    for (host, number) in hosts.split(',').zip(1..) {
        sentinel_addr(host).map_err(|_| {
            refusal(
                format!("host {number} of the URL is no address to connect to"),
                "write host or host:port, and a comma between two; a login before them ends in @",
            )
        })?;
    }
    Ok(SentinelUrl {
        tls,
        login,
        hosts: hosts.split(',').map(str::to_owned).collect(),
        master: master(path)?,
    })
}

fn userinfo(login: &str) -> Result<(Option<String>, SecretString), Refusal> {
    let Some((username, password)) = login.split_once(':') else {
        return Err(refusal(
            "what stands before @ in the URL may be a user or a password",
            "write user:password@, or :password@ where there is only a password",
        ));
    };
    if login.contains(',') {
        return Err(refusal(
            "there is a comma before the @ of the URL",
            "one login stands before all hosts; a comma in a user or a password is written %2C",
        ));
    }
    if password.is_empty() {
        return Err(refusal(
            "the URL has a login without a password",
            "write user:password@, or leave it out and write username and password_file below [proxy.probe]",
        ));
    }
    let username = decoded(username)?;
    let username = (!username.is_empty()).then_some(username);
    Ok((username, decoded(password)?.into()))
}

/// The name of the master, behind the hosts; with the only database that clients begin with.
fn master(path: &str) -> Result<String, Refusal> {
    let missing = || refusal("the URL does not end in the master's name", FORM);
    let mut parts = path.strip_prefix('/').ok_or_else(missing)?.split('/');
    let name = parts.next().unwrap_or_default();
    let database = parts.next().unwrap_or_default();
    if name.is_empty() {
        return Err(missing());
    }
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if database.is_empty() && is_number(name) {
        return Err(refusal(
            "the number at the end of the URL may be a database or the master's name",
            format!("write both: .../mymaster/0, or .../{name}/0 if the master is called {name}"),
        ));
    }
    if !is_number(database) || parts.next().is_some() {
        return Err(refusal(
            "there is more in the URL behind the master's name than a database",
            FORM,
        ));
    }
    if !database.is_empty() && database.parse() != Ok(0) {
        return Err(refusal(
            "the URL names a database, which each client chooses by itself",
            format!(
                "end the URL at the master's name, and name the database where the application connects: \
                 redis://127.0.0.1:6379/{database}"
            ),
        ));
    }
    let name = decoded(name)?;
    plain_name(&name).map_err(|_| {
        refusal(
            "the master's name in the URL is no name",
            "write it without spaces",
        )
    })?;
    Ok(name)
}

/// What other programs take as options.
fn options(query: &str) -> Refusal {
    let names = query
        .split('&')
        .map(|option| option.split('=').next().unwrap_or_default());
    let is_login = |name: &str| {
        ["sentinel_username", "sentinel_password"]
            .iter()
            .any(|login| name.eq_ignore_ascii_case(login))
    };
    let help = if names.into_iter().any(is_login) {
        "the login for the Sentinels is username and password_file below [sentinel], or SWITCHMASTER_SENTINEL_USERNAME and \
         SWITCHMASTER_SENTINEL_PASSWORD"
    } else {
        "end the URL at the master's name; everything else is a key of its own, see `switchmaster config example`"
    };
    refusal(
        "there are options in the URL (behind ?), of which none is read",
        help,
    )
}

fn decoded(text: &str) -> Result<String, Refusal> {
    let bad = || {
        refusal(
            "there is a % in the URL that does not begin two hexadecimal digits, or not of UTF-8 text",
            "a % in a name or a password is written %25",
        )
    };
    let mut behind = text.split('%').skip(1);
    let is_hex = |part: &str| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !behind.all(is_hex) {
        return Err(bad());
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| bad())?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    type Login = Option<(Option<String>, String)>;

    fn parts(url: &str) -> (bool, Login, Vec<String>, String) {
        let url = match parse(url) {
            Ok(parsed) => parsed,
            Err(refusal) => panic!("{url}: {refusal:?}"),
        };
        let login = url
            .login
            .map(|(user, password)| (user, password.expose_secret().to_owned()));
        (url.tls, login, url.hosts, url.master)
    }

    #[test]
    fn good_ones() {
        let hosts = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect();
        let of = |user: Option<&str>, password: &str| {
            Some((user.map(str::to_owned), password.to_owned()))
        };
        for (url, expected) in [
            ("redis+sentinel://a/m", (false, None, hosts(&["a"]), "m")),
            (
                "rediss+sentinel://a:1,b:2,[::1]:3/m/0",
                (true, None, hosts(&["a:1", "b:2", "[::1]:3"]), "m"),
            ),
            (
                " REDIS+Sentinel://:p:w@a,b/my%2Dmaster/ ",
                (false, of(None, "p:w"), hosts(&["a", "b"]), "my-master"),
            ),
            (
                "redis+sentinel://us%40er:p%2Fw%25@a/7/0",
                (false, of(Some("us@er"), "p/w%"), hosts(&["a"]), "7"),
            ),
        ] {
            let (tls, login, hosts, master): (_, _, Vec<String>, &str) = expected;
            assert_eq!(parts(url), (tls, login, hosts, master.to_owned()), "{url}");
        }
    }

    #[test]
    fn bad_ones_say_what_to_write() {
        for (url, message, help) in [
            ("10.0.0.3:26379", "no URL", "redis+sentinel://10.0.0.3"),
            ("redis://a:6379/0", "names one server", "redis+sentinel://"),
            (
                "redis-sentinel://a/m",
                "programs differ",
                "redis+sentinel://",
            ),
            ("http://a/m", "no URL of Sentinels", "redis+sentinel://"),
            ("redis+sentinel://", "names no Sentinel", "10.0.0.3"),
            ("redis+sentinel:///m", "names no Sentinel", "10.0.0.3"),
            ("redis+sentinel://a", "master's name", "/mymaster"),
            ("redis+sentinel://a/", "master's name", "/mymaster"),
            ("redis+sentinel://a/0", "may be a database", "/mymaster/0"),
            (
                "redis+sentinel://a/m/2",
                "a database",
                "redis://127.0.0.1:6379/2",
            ),
            ("redis+sentinel://a/m/x", "more in the URL", "/mymaster"),
            ("redis+sentinel://a/m/0/1", "more in the URL", "/mymaster"),
            ("redis+sentinel://a#m", "#", "/mymaster"),
            (
                "redis+sentinel://a/m?timeout=1",
                "options",
                "a key of its own",
            ),
            (
                "redis+sentinel://a/m?Sentinel_Password=x",
                "options",
                "below [sentinel]",
            ),
            (
                "redis+sentinel://pw@a/m",
                "user or a password",
                ":password@",
            ),
            (
                "redis+sentinel://u:@a/m",
                "without a password",
                "password_file",
            ),
            ("redis+sentinel://u:p@a,u:p@b/m", "several @", "%40"),
            ("redis+sentinel://a:1,u:p@b:1/m", "a comma before", "%2C"),
            ("redis+sentinel://u:p,w@b/m", "a comma before", "%2C"),
            ("redis+sentinel://u:s3cr3t%40h/m", "host 1", "ends in @"),
            ("redis+sentinel://a,u:secretpass/m", "host 2", "ends in @"),
            ("redis+sentinel://0.0.0.0/m", "host 1", "host:port"),
            ("redis+sentinel://a/m%20n", "is no name", "spaces"),
            ("redis+sentinel://:p/w@a/m", "@ behind", "%2F"),
            ("redis+sentinel://:p#w@a/m", "@ behind", "%23"),
            ("redis+sentinel://:p%zz@a/m", "a %", "%25"),
            ("redis+sentinel://:%ff@a/m", "a %", "%25"),
        ] {
            let (said, to_do) = parse(url).expect_err(url);
            assert!(said.contains(message), "{url}: {said}");
            assert!(to_do.contains(help), "{url}: {to_do}");
        }
        parse(&format!("redis+sentinel://{}/m", "a".repeat(URL_MAX))).expect_err("too long");
    }

    proptest! {
        /// Whatever is wrong with it, and wherever its password seems to end.
        #[test]
        fn no_refusal_repeats_a_password(before in "[a-z/?#@:%,]{0,6}", behind in "[a-z0-9/?#@:%,]{0,9}") {
            const PASSWORD: &str = "SECRET";
            let schemes = ["redis+sentinel", "redis", "SECRET+sentinel"];
            let ends = ["@a/m", "%40a/m", "/m"];
            for (scheme, end) in schemes.iter().flat_map(|scheme| ends.map(|end| (scheme, end))) {
                let url = format!("{scheme}://{before}:{PASSWORD}{behind}{end}");
                match parse(&url) {
                    Err((said, to_do)) => {
                        prop_assert!(!said.contains(PASSWORD) && !to_do.contains(PASSWORD), "{url}: {said}; {to_do}");
                    }
                    // What is judged later, and repeated.
                    Ok(parsed) => {
                        prop_assert!(!parsed.master.contains(PASSWORD), "{url}");
                        prop_assert!(!parsed.hosts.concat().contains(PASSWORD), "{url}");
                    }
                }
            }
        }
    }
}
