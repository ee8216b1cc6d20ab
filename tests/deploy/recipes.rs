//! The recipes for containers, Kubernetes and cloud-init: what can be shown without a cluster or a droplet. Their commands are run,
//! their configurations and variables are read by the program itself.

use std::process::{Command, Output};

use serde_yaml_ng::Value;

use super::harness::fake_master::{Bytes, FakeMaster};
use super::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use super::{NOBODY, PATIENCE, Plan, read, wait_until, watched};

const CONTAINER: &str = "deploy/container/Containerfile";
const SIDECAR: &str = "deploy/kubernetes/sidecar.yaml";
const CLOUD: &str = "deploy/cloud-init/user-data.yaml";

fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn words(command: &Value) -> Vec<&str> {
    let words = command.as_sequence().expect("a command is a list");
    words
        .iter()
        .map(|word| word.as_str().expect("a word"))
        .collect()
}

/// The program with these words, whose first is its name.
fn switchmaster(words: &[&str], variables: &[(&str, &str)]) -> Output {
    assert_eq!(words[0], "switchmaster");
    Command::new(env!("CARGO_BIN_EXE_switchmaster"))
        .args(&words[1..])
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the program runs")
}

fn exit(words: &[&str], admin: &str) -> i32 {
    let output = switchmaster(words, &[("SWITCHMASTER_ADMIN_LISTEN", admin)]);
    output.status.code().expect("it is not killed")
}

/// Starts it with nobody to ask, and again with a master: a probe for life holds in both.
fn asks_whether_it_lives(probe: &[&str]) {
    let (_proxy, admin) = watched(Plan::following(&[NOBODY.parse().expect("an address")]));
    let admin = admin.to_string();
    wait_until("a probe for life without Redis", PATIENCE, || {
        exit(probe, &admin) == 0
    });
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let (proxy, admin) = watched(Plan::following(&[sentinel.addr()]));
    proxy.event("ready", PATIENCE);
    assert_eq!(exit(probe, &admin.to_string()), 0);
    proxy.ask_to_end();
    proxy.event("stopped", PATIENCE);
    wait_until("the end to be noticed", PATIENCE, || {
        exit(probe, &admin.to_string()) != 0
    });
}

#[test]
fn the_sidecar_is_probed_for_life_and_configured_by_variables_that_exist() {
    let pod = &yaml(SIDECAR)["spec"]["template"]["spec"];
    let sidecar = &pod["initContainers"][0];
    assert_eq!(
        sidecar["restartPolicy"], "Always",
        "what makes it a sidecar"
    );
    let probes = ["startupProbe", "livenessProbe"].map(|p| words(&sidecar[p]["exec"]["command"]));
    for probe in &probes {
        assert_eq!(
            probe[1..],
            ["status", "--probe", "live"],
            "Redis is not its affair"
        );
    }
    asks_whether_it_lives(&probes[0]);

    let text = read(SIDECAR);
    let mut variables: Vec<(&str, &str)> = Vec::new();
    for variable in sidecar["env"].as_sequence().expect("variables") {
        let value = variable["value"].as_str().expect("text");
        variables.push((variable["name"].as_str().expect("a name"), value));
    }
    let offered = text
        .split("# - name: ")
        .skip(1)
        .filter_map(|rest| rest.lines().next());
    variables.extend(offered.map(|name| (name, "a value")));
    assert!(variables.len() >= 3, "{variables:?}");
    let shown = switchmaster(&["switchmaster", "config", "show"], &variables);
    let told = String::from_utf8_lossy(&shown.stderr);
    // A variable that means nothing is a warning.
    assert!(shown.status.success() && told.is_empty(), "{told}");
}

#[test]
fn the_droplet_gets_a_configuration_that_is_one() {
    assert!(
        read(CLOUD).starts_with("#cloud-config\n"),
        "or it is taken for a script"
    );
    let data = yaml(CLOUD);
    let file = &data["write_files"][0];
    assert_eq!(file["path"], "/etc/switchmaster/config.toml");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.toml");
    std::fs::write(&path, file["content"].as_str().expect("text")).expect("written");
    let path = path.to_string_lossy();
    let shown = switchmaster(&["switchmaster", "config", "show", "--config", &path], &[]);
    let told = String::from_utf8_lossy(&shown.stderr);
    assert!(shown.status.success() && told.is_empty(), "{told}");
    for line in data["runcmd"].as_sequence().expect("commands") {
        assert!(!words(line).is_empty());
    }
}

#[test]
fn the_container_is_nobody_and_is_asked_whether_it_lives() {
    let text = read(CONTAINER);
    let list = |instruction: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(instruction));
        let line = line.unwrap_or_else(|| panic!("no {instruction}"));
        let list = &line[line.find('[').expect("the form without a shell")..];
        serde_json::from_str(list).expect("JSON")
    };
    assert_eq!(list("ENTRYPOINT"), ["switchmaster"]);
    let probe = list("HEALTHCHECK");
    asks_whether_it_lives(&probe.iter().map(String::as_str).collect::<Vec<_>>());
    let user = text
        .lines()
        .find_map(|line| line.strip_prefix("USER "))
        .expect("a user");
    assert!(
        !user.starts_with('0') && !user.starts_with("root"),
        "{user}"
    );
    // In a user namespace that is everybody whom the kernel cannot name.
    let overflow = switchmaster::listener::OVERFLOW_UID.to_string();
    assert!(!user.contains(&overflow), "{user}");
    let sidecar = read(SIDECAR);
    assert!(sidecar.contains("runAsUser: "));
    assert!(!sidecar.contains(&format!("runAsUser: {overflow}")));
}
