//! Keys that are for `role = "replica"`.

use switchmaster::config;

use super::{SMALLEST, env, file};

#[test]
fn what_is_for_replicas_and_stands_beside_a_master_is_warned_of() {
    for (role, warns) in [("master", true), ("replica", false)] {
        let text = format!("{SMALLEST}[[proxy]]\nrole = \"{role}\"\nmax_lag = \"3s\"\n");
        let file = file(&text);
        let loaded = config::load(&file.flags(), env(&[])).expect("valid");
        let warned =
            |w: &String| w.contains("proxy.max_lag and proxy.fallback of \"main\" do nothing");
        assert_eq!(
            loaded.warnings.iter().any(warned),
            warns,
            "{:?}",
            loaded.warnings
        );
        assert_eq!(loaded.config.proxies[0].choice().is_some(), !warns);
    }
}
