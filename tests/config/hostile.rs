//! Text that nobody would write.

use std::path::Path;

use proptest::prelude::*;
use switchmaster::config;
use switchmaster::config::schema::{Key, Section};

use super::{SMALLEST, error};

#[test]
fn deep_nesting_is_an_error_and_not_a_full_stack() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        let depth = 100_000;
        let text = format!(
            "[log]\nlevel = {}{}",
            open.repeat(depth),
            close.repeat(depth)
        );
        error(config::from_text(Path::new("c.toml"), text));
    }
}

#[test]
fn a_very_long_line_is_shown_around_its_culprit() {
    let text = format!(
        "{SMALLEST}# {}\n{}x = 1",
        "-".repeat(5000),
        " ".repeat(5000)
    );
    let shown = error(config::from_text(Path::new("c.toml"), text));
    assert!(shown.len() < 1000, "{shown}");
    assert!(
        shown.contains(" x = 1\n") && shown.contains(" ^\n"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        // Only that it returns matters.
        config::from_text(Path::new("any.toml"), text).map_err(|e| e.to_string()).ok();
    }

    #[test]
    fn no_value_panics(
        section in prop::sample::select(Section::ALL.to_vec()),
        name in prop::sample::select(Key::ALL.map(Key::name).to_vec()),
        value in prop_oneof![
            any::<String>().prop_map(|s| format!("{s:?}")),
            any::<i128>().prop_map(|n| n.to_string()),
            "\"[0-9a-z:./\\[\\]]{0,40}\"",
            "\\[(\"[0-9a-z:./]{0,30}\",){0,4}\\]",
            "\"[0-9]{1,30} ?(ns|ms|s|m|h|d|y|years)\"",
        ],
    ) {
        // A password file named by chance must not be read from this machine.
        prop_assume!(name != "password_file" && name != "token_file");
        let text = format!("{}\n{name} = {value}\n", section.header());
        config::from_text(Path::new("any.toml"), text).map_err(|e| e.to_string()).ok();
    }
}
