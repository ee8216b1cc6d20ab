//! Logging set-up: what is written where, and that writing never blocks.

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text with colours on a terminal, text without elsewhere.
    #[default]
    Auto,
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// The `[log]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A tracing filter: `info`, `debug`, `switchmaster::control=debug,info`, ...
    pub level: String,
    /// See [`Format`].
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: Format::Auto,
        }
    }
}
