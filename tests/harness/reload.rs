//! Another configuration for a proxy that runs.

use std::path::Path;

use rustix::process::Signal;

use super::proxy::Proxy;

impl Proxy {
    /// Where its configuration file is.
    pub(crate) fn config_path(&self) -> &Path {
        self.config.as_deref().expect("the test gave it one")
    }

    /// Puts another text into its configuration file, whole at any moment.
    pub(crate) fn rewrite(&self, text: &str) {
        let path = self.config_path();
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, text).expect("writing a temporary file");
        std::fs::rename(&fresh, path).expect("the same folder");
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }
}
