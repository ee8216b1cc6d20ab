//! The proxy's own login at data nodes, on behalf of clients that cannot log in (`[proxy.login]`).

use secrecy::{ExposeSecret, SecretString};

use crate::resp::command;

/// What each new upstream is told first, unless its client has logged in by itself.
#[derive(Clone, Debug)]
pub struct Login {
    /// The ACL user; `None` where there is only a password.
    pub username: Option<String>,
    /// Its password.
    pub password: SecretString,
}

impl Login {
    /// As it is written to a server.
    pub(super) fn words(&self) -> command::Login<'_> {
        command::Login {
            user: self.username.as_deref().map(str::as_bytes),
            password: self.password.expose_secret().as_bytes(),
        }
    }
}

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        self.username == other.username
            && self.password.expose_secret() == other.password.expose_secret()
    }
}
