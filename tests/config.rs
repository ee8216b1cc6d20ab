//! The configuration as operators write it: fixtures, the example file, precedence, secrets.
//!
//! `tests/config/bad/*.toml` begin with `# error: TEXT` lines; each TEXT must be in what is shown.

#[path = "config/admission.rs"]
mod admission;
#[path = "harness/authority.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod authority;
#[path = "config/hostile.rs"]
mod hostile;
#[path = "config/reads.rs"]
mod reads;
#[path = "config/twins.rs"]
mod twins;
#[path = "config/url.rs"]
mod url;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use authority::Authority;
use switchmaster::config::schema::{Key, Section};
use switchmaster::config::{self, EXAMPLE, Error, Flags, Loaded};

const SMALLEST: &str = "[sentinel]\naddresses = [\"10.0.0.3\"]\n";

#[test]
fn good_files_load_and_what_is_shown_loads_again() {
    for path in fixtures("tests/config/good") {
        let text = fs::read_to_string(&path).expect("a fixture is text");
        let loaded = match config::from_text(&path, text) {
            Ok(loaded) => loaded,
            Err(e) => panic!("{}:\n{e}", path.display()),
        };
        let shown = loaded.show();
        // Relative paths were resolved, so the place of the copy does not matter.
        let again = match config::from_text(Path::new("shown.toml"), shown.clone()) {
            Ok(again) => again,
            Err(e) => panic!("{}:\n{shown}\n{e}", path.display()),
        };
        assert_eq!(
            format!("{:?}", again.config),
            format!("{:?}", loaded.config)
        );
    }
}

#[test]
fn bad_files_are_refused_with_the_words_they_promise() {
    for path in fixtures("tests/config/bad") {
        let text = fs::read_to_string(&path).expect("a fixture is text");
        let expected: Vec<_> = text
            .lines()
            .map_while(|l| l.strip_prefix("# error: "))
            .collect();
        assert!(!expected.is_empty(), "{} promises no error", path.display());
        let shown = match config::from_text(&path, text.clone()) {
            Ok(_) => panic!("{} loads", path.display()),
            Err(e) => e.to_string(),
        };
        for words in expected {
            assert!(
                shown.contains(words),
                "{}: no `{words}` in\n{shown}",
                path.display()
            );
        }
        assert!(shown.contains("= help: "), "{}:\n{shown}", path.display());
    }
}

#[test]
fn an_error_points_at_its_place() {
    let text = "[sentinel]\naddresses = [\"10.0.0.3\"]\n[failover]\n\thold_max = 5\n";
    assert_eq!(
        error(config::from_text(Path::new("c.toml"), text.to_owned())),
        "\
error: failover.hold_max: 5 has no unit, and seconds and milliseconds are both usual
 --> c.toml:4:13
  |
4 | \thold_max = 5
  | \t           ^
  = help: write \"5s\" or \"5ms\", whichever you mean
"
    );
}

#[test]
fn the_example_shows_the_real_defaults() {
    let plain = config::from_text(Path::new("plain.toml"), SMALLEST.to_owned());
    let plain = plain.expect("the smallest file loads").config;

    let mut needed = Vec::new();
    let text: String = EXAMPLE
        .lines()
        .map(|line| uncommented(line, &mut needed))
        .collect();
    assert_eq!(
        needed,
        [
            "addresses",
            "username",
            "password_file",
            "ca_file",
            "cert_file",
            "key_file",
            "server_name",
            "socket_group",
            "username",
            "password_file",
            "username",
            "password_file",
            "cert_file",
            "key_file",
            "client_ca_file",
            "ca_file",
            "cert_file",
            "key_file",
            "server_name",
            "token_file"
        ],
        "only keys without a default may stay commented out"
    );
    let text = text.replacen("[sentinel]\n", SMALLEST, 1);
    let example = match config::from_text(Path::new("config.example.toml"), text) {
        Ok(example) => example.config,
        Err(e) => panic!("{e}"),
    };
    assert_eq!(format!("{example:?}"), format!("{plain:?}"));
}

#[test]
fn the_example_names_every_key_in_its_table() {
    let mut shown = Vec::new();
    let mut section = None;
    for line in EXAMPLE.lines() {
        if let Some(found) = Section::ALL.into_iter().find(|s| s.header() == open(line)) {
            section = Some(found);
            // Its keys are the operator's own.
            shown.extend(found.keys().filter(|key| key.name().is_empty()));
        }
        if let Some((name, _)) = line.strip_prefix("# ").and_then(|l| l.split_once(" = "))
            && let Some(section) = section
        {
            shown.extend(section.keys().find(|key| key.name() == name));
        }
    }
    assert_eq!(shown, Key::ALL);
}

#[test]
fn all_keys_of_the_example_are_valid_with_their_sample_values() {
    let dir = tempfile::tempdir().expect("a folder");
    let [password, token] = ["password", "token"].map(|name| dir.path().join(name));
    fs::write(&password, "secret").expect("written");
    fs::write(&token, "0123456789abcdef\n").expect("written");
    let authority = Authority::new(dir.path(), "ca");
    let pair = authority.sign("here", &["localhost"]);
    let text: String = EXAMPLE
        .lines()
        .map(
            |line| match open(line).strip_prefix("# ").filter(|l| is_key_line(l)) {
                Some(key) if key.starts_with("password_file") => {
                    format!("password_file = {:?}\n", password)
                }
                Some(key) if key.starts_with("token_file") => {
                    format!("token_file = {:?}\n", token)
                }
                Some(key) if key.starts_with("cert_file") => {
                    format!("cert_file = {:?}\n", pair.cert)
                }
                Some(key) if key.starts_with("key_file") => {
                    format!("key_file = {:?}\n", pair.key)
                }
                Some(key) if key.contains("ca_file = ") => {
                    let name = key.split(' ').next().unwrap_or_default();
                    format!("{name} = {:?}\n", authority.file())
                }
                Some(key) => format!("{key}\n"),
                None => format!("{}\n", open(line)),
            },
        )
        .collect();
    if let Err(e) = config::from_text(Path::new("config.example.toml"), text) {
        panic!("{e}");
    }
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = file(
        "[sentinel]\naddresses = [\"10.0.0.3\"]\n[failover]\nmax_held = 1\nagree = \"majority\"\n[[proxy]]\nmaster = \"file\"\n",
    );
    let flags = Flags {
        config: Some(file.path.clone()),
        master: Some("flag".to_owned()),
        ..Flags::default()
    };
    let loaded = config::load(
        &flags,
        env(&[
            ("SWITCHMASTER_MASTER", "env"),
            ("SWITCHMASTER_FAILOVER_MAX_HELD", "2"),
        ]),
    )
    .expect("valid");
    let shown = loaded.show();
    let source_of = |start: &str| {
        let line = shown.lines().find(|l| l.starts_with(start)).expect(start);
        line.split(" # ").nth(1).expect("a source").to_owned()
    };
    assert_eq!(source_of("master = \"flag\""), "flag --master");
    assert_eq!(
        source_of("max_held = 2"),
        "env SWITCHMASTER_FAILOVER_MAX_HELD"
    );
    assert_eq!(
        source_of("agree = \"majority\""),
        format!("file {}:5", file.path.display())
    );
    assert_eq!(source_of("verify = "), "default");
}

/// Whoever writes a table about TLS means to have it.
#[test]
fn tables_about_tls_that_leave_a_leg_in_the_clear_are_warned_of() {
    for (text, warning) in [
        (
            "[proxy.client_tls]\n# cert_file = \"/c\"\n",
            Some("[proxy.client_tls] has no keys, and clients come without TLS"),
        ),
        (
            "[proxy.upstream_tls]\n",
            Some("[proxy.upstream_tls] has no keys, and masters are met without TLS"),
        ),
        (
            "[proxy.upstream_tls]\nenabled = false\nserver_name = \"redis\"\n",
            Some("enabled = false: what else is said of TLS in [proxy.upstream_tls] means nothing"),
        ),
        ("[proxy.upstream_tls]\nenabled = false\n", None),
        ("", None),
    ] {
        let file = file(&format!("{SMALLEST}[[proxy]]\n{text}"));
        let loaded = config::load(&file.flags(), env(&[])).expect("valid");
        match warning {
            Some(warning) => assert!(
                loaded.warnings.concat().contains(warning),
                "{:?}",
                loaded.warnings
            ),
            None => assert_eq!(loaded.warnings, Vec::<String>::new(), "{text}"),
        }
    }
}

#[test]
fn a_successors_own_word_beside_a_lease_is_warned_of() {
    let confirm = |more: &str| {
        let text = format!("{SMALLEST}[failover]\nconfirm = \"role\"\n{more}");
        let file = file(&text);
        config::load(&file.flags(), env(&[])).expect("valid")
    };
    let alone = confirm("");
    assert!(alone.config.rules.trusts_successors());
    assert_eq!(alone.warnings, Vec::<String>::new());
    let both = confirm("when_sentinels_are_lost = \"stop\"\n");
    assert!(!both.config.rules.trusts_successors());
    let warned = |w: &String| w.contains("failover.confirm = \"role\" does nothing beside");
    assert!(both.warnings.iter().any(warned), "{:?}", both.warnings);
}

#[test]
fn a_flag_cannot_mean_one_of_several_entries() {
    let two = file(&format!(
        "{SMALLEST}[[proxy]]\nname = \"a\"\nlisten = [\"127.0.0.1:1\"]\n[[proxy]]\nname = \"b\"\n"
    ));
    let flags = Flags {
        master: Some("m".to_owned()),
        ..two.flags()
    };
    let shown = error(config::load(
        &flags,
        env(&[("SWITCHMASTER_LISTEN", "127.0.0.1:9")]),
    ));
    for words in [
        "flag --master cannot know which of the 2 [[proxy]] entries it means",
        "env SWITCHMASTER_LISTEN cannot know",
        "set `master` in the file",
    ] {
        assert!(shown.contains(words), "{shown}");
    }
}

#[test]
fn unknown_variables_warn() {
    let smallest = file(SMALLEST);
    let variables = env(&[
        ("SWITCHMASTER_FAILOVER_HOLDMAX", "5s"),
        ("SWITCHMASTER_MASTER", ""),
    ]);
    let loaded = config::load(&smallest.flags(), variables).expect("only a warning");
    assert_eq!(
        loaded.warnings,
        [
            "the environment variable SWITCHMASTER_FAILOVER_HOLDMAX means nothing here; did you mean SWITCHMASTER_FAILOVER_HOLD_MAX?"
        ]
    );
    assert_eq!(
        loaded.config.proxies[0].master, "mymaster",
        "empty is not set"
    );
}

#[test]
fn an_alias_and_its_twin_must_agree() {
    let smallest = file(SMALLEST);
    let variables = env(&[
        ("SWITCHMASTER_SENTINEL", "a"),
        ("SWITCHMASTER_SENTINEL_ADDRESSES", "b"),
    ]);
    assert!(
        error(config::load(&smallest.flags(), variables)).contains("mean the same key and differ")
    );
    let variables = env(&[
        ("SWITCHMASTER_SENTINEL", "a"),
        ("SWITCHMASTER_SENTINEL_ADDRESSES", "a"),
    ]);
    assert!(config::load(&smallest.flags(), variables).is_ok());
}

#[test]
fn passwords_from_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let password = dir.path().join("password");
    fs::write(&password, "s3cr3t with spaces \r\n").expect("written");
    fs::set_permissions(&password, PermissionsExt::from_mode(0o644)).expect("chmod");
    let text = format!("{SMALLEST}username = \"u\"\npassword_file = {password:?}\n");
    let loaded = config::load(&file(&text).flags(), env(&[])).expect("valid");

    let login = &loaded.config.sentinel.credentials;
    let secret = login.password.as_ref().expect("a password");
    assert_eq!(secret.expose_secret(), "s3cr3t with spaces ");
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(
        loaded.warnings[0].contains("chmod 600"),
        "{:?}",
        loaded.warnings
    );
    for text in [loaded.show(), format!("{:?}", loaded)] {
        assert!(!text.contains("s3cr3t"), "{text}");
    }
    assert!(loaded.show().contains("# password = \"********\""));

    fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).expect("chmod");
    let loaded = config::load(&file(&text).flags(), env(&[])).expect("valid");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn the_token_of_those_who_may_act() {
    let text = format!("{SMALLEST}[admin]\nactions = true\n");
    let acting = file(&text);
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("admin_token"), "from-a-credential\n").expect("written");
    let credentials = dir.path().to_str().expect("text");
    for (variable, value, token) in [
        (
            "SWITCHMASTER_ADMIN_TOKEN",
            " from-the-variable ",
            "from-the-variable",
        ),
        ("CREDENTIALS_DIRECTORY", credentials, "from-a-credential"),
    ] {
        let loaded = config::load(&acting.flags(), env(&[(variable, value)])).expect("valid");
        let secret = loaded.config.admin.token.as_ref().expect("a token");
        assert_eq!(secret.expose_secret(), token);
        let shown = loaded.show() + &format!("{:?}", loaded.config);
        assert!(shown.contains("# token = \"********\"") && !shown.contains(token));
        // Where it is for nothing somebody has made a mistake.
        let reading = file(SMALLEST);
        let loaded = config::load(&reading.flags(), env(&[(variable, value)])).expect("valid");
        let told = loaded.warnings.join("\n");
        assert!(told.contains("does nothing"), "{told}");
    }
    let short = env(&[("SWITCHMASTER_ADMIN_TOKEN", "fifteen-is-few!")]);
    let refused = error(config::load(&acting.flags(), short));
    assert!(
        refused.contains("16 printable") && !refused.contains("fifteen"),
        "{refused}"
    );
    // Whoever only asks for the status need not be able to read it.
    let missing = file(&format!("{text}token_file = \"none\"\n"));
    assert!(config::admin_endpoint(&missing.flags(), env(&[])).is_ok());
}

#[test]
fn passwords_from_the_environment_and_from_credentials() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["sentinel_password", "probe_password", "own"] {
        fs::write(dir.path().join(name), name).expect("written");
    }
    let own = dir.path().join("own");
    let two = file(&format!(
        "{SMALLEST}[[proxy]]\nname = \"a\"\nlisten = [\"127.0.0.1:1\"]\n[[proxy]]\nname = \"b\"\n[proxy.probe]\npassword_file = {own:?}\n"
    ));
    let credentials = dir.path().to_str().expect("text");

    let loaded = config::load(
        &two.flags(),
        env(&[
            ("CREDENTIALS_DIRECTORY", credentials),
            ("SWITCHMASTER_SENTINEL_PASSWORD", "variable"),
        ]),
    )
    .expect("valid");
    assert_eq!(passwords(&loaded), ["variable", "probe_password", "own"]);

    let loaded = config::load(
        &two.flags(),
        env(&[
            ("CREDENTIALS_DIRECTORY", credentials),
            ("SWITCHMASTER_PROXY_PROBE_PASSWORD", "variable"),
        ]),
    )
    .expect("valid");
    assert_eq!(passwords(&loaded), ["sentinel_password", "variable", "own"]);

    let named = file(&format!(
        "{SMALLEST}[[proxy]]\n[proxy.probe]\npassword_file = \"credential:own\"\n"
    ));
    let loaded = config::load(
        &named.flags(),
        env(&[("CREDENTIALS_DIRECTORY", credentials)]),
    )
    .expect("valid");
    assert_eq!(passwords(&loaded), ["sentinel_password", "own"]);
    assert!(
        loaded.show().contains("\"credential:own\""),
        "{}",
        loaded.show()
    );
    for (variables, name, problem) in [
        (vec![], "own", "CREDENTIALS_DIRECTORY=/etc/switchmaster"),
        (
            vec![("CREDENTIALS_DIRECTORY", credentials)],
            "other",
            "no credential of this name",
        ),
        (
            vec![("CREDENTIALS_DIRECTORY", credentials)],
            "../own",
            "no name of a credential",
        ),
    ] {
        let text =
            format!("{SMALLEST}[[proxy]]\n[proxy.probe]\npassword_file = \"credential:{name}\"\n");
        let error = config::load(&file(&text).flags(), env(&variables)).expect_err(name);
        assert!(error.to_string().contains(problem), "{error}");
    }

    let one = file(&format!(
        "{SMALLEST}[[proxy]]\n[proxy.probe]\npassword_file = {own:?}\n"
    ));
    let variables = env(&[("SWITCHMASTER_PROXY_PROBE_PASSWORD", "variable")]);
    let loaded = config::load(&one.flags(), variables).expect("valid");
    assert_eq!(
        passwords(&loaded),
        ["variable"],
        "the environment counts more than the file"
    );

    let both = env(&[
        ("SWITCHMASTER_SENTINEL_PASSWORD", "variable"),
        (
            "SWITCHMASTER_SENTINEL_PASSWORD_FILE",
            own.to_str().expect("text"),
        ),
    ]);
    assert!(error(config::load(&one.flags(), both)).contains("both give a password"));
}

#[test]
fn files_that_are_no_configuration() {
    let dir = tempfile::tempdir().expect("a folder");
    let refused = |path: PathBuf| {
        let flags = Flags {
            config: Some(path),
            ..Flags::default()
        };
        error(config::load(&flags, env(&[])))
    };
    assert!(refused(dir.path().to_owned()).contains("is a directory"));
    assert!(refused(dir.path().join("none")).contains("No such file"));

    let large = dir.path().join("large");
    fs::write(&large, vec![b'#'; 1024 * 1024 + 1]).expect("written");
    assert!(refused(large).contains("larger than 1 MiB"));
    let binary = dir.path().join("binary");
    fs::write(&binary, b"# text\n\xff\xfe").expect("written");
    assert!(refused(binary).contains("is not UTF-8 text (line 2)"));
}

/// The line as it stands, or without its comment sign when it is a key with a default.
fn uncommented(line: &str, needed: &mut Vec<String>) -> String {
    let Some(key) = line.strip_prefix("# ").filter(|l| is_key_line(l)) else {
        return format!("{}\n", open(line));
    };
    let name = key.split(' ').next().unwrap_or_default();
    let without_default = [
        "addresses",
        "username",
        "password_file",
        "socket_group",
        "token_file",
        "ca_file",
        "client_ca_file",
        "cert_file",
        "key_file",
        "server_name",
    ];
    if without_default.contains(&name) {
        needed.push(name.to_owned());
        return String::new();
    }
    format!("{key}\n")
}

/// The header of a table that means something by being there, which the example only names.
fn open(line: &str) -> &str {
    line.strip_prefix("# ")
        .filter(|line| line.starts_with("[proxy.") && line.ends_with(']'))
        .unwrap_or(line)
}

fn is_key_line(text: &str) -> bool {
    text.split_once(" = ").is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    })
}

fn passwords(loaded: &Loaded) -> Vec<String> {
    std::iter::once(&loaded.config.sentinel.credentials)
        .chain(loaded.config.proxies.iter().map(|proxy| &proxy.probe))
        .filter_map(|login| login.password.as_ref())
        .map(|password| password.expose_secret().to_owned())
        .collect()
}

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect(folder)
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no fixtures in {folder}");
    paths
}

fn error(result: Result<Loaded, Error>) -> String {
    match result {
        Ok(loaded) => panic!("valid:\n{}", loaded.show()),
        Err(e) => e.to_string(),
    }
}

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// A configuration file of one test.
struct TestFile {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl TestFile {
    fn flags(&self) -> Flags {
        Flags {
            config: Some(self.path.clone()),
            ..Flags::default()
        }
    }
}

fn file(text: &str) -> TestFile {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("config.toml");
    fs::write(&path, text).expect("written");
    TestFile { path, _dir: dir }
}
