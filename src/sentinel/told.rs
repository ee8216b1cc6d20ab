//! What is said of one Sentinel in the log.

use std::collections::HashMap;

use tracing::{info, warn};

use super::client::ClientError;
use crate::net::addr::SentinelAddr;
use crate::telemetry::Often;
use crate::topology::observation::{NoView, Said, Unasked};

/// Lines of one name that are written at once; then one a second.
const AT_ONCE: u32 = 10;

/// Each change is logged once, and not more often than once a second.
#[derive(Debug)]
pub(super) struct Told {
    up: Option<bool>,
    why: String,
    /// What was last said of answers that are no views, by master.
    no_view: HashMap<String, NoView>,
    /// Masters whose replicas it does not list.
    no_replicas: HashMap<String, String>,
    often: Often,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            up: None,
            why: String::new(),
            no_view: HashMap::new(),
            no_replicas: HashMap::new(),
            often: Often::after(AT_ONCE),
        }
    }
}

impl Told {
    pub(super) fn up(&mut self, addr: &SentinelAddr, subscribed: bool) {
        if self.up == Some(true) {
            return;
        }
        self.up = Some(true);
        self.why.clear();
        if !self.often.allow("sentinel_up", &addr.to_string()) {
            return;
        }
        if subscribed {
            info!(event = "sentinel_up", sentinel = %addr, "Sentinel {addr} answers");
        } else {
            warn!(
                event = "sentinel_up", sentinel = %addr,
                "Sentinel {addr} answers, but does not let us SUBSCRIBE: failovers are noticed by polling only. Allow it with: \
                 ACL SETUSER <user> +subscribe resetchannels &+switch-master ..."
            );
        }
    }

    pub(super) fn view(&mut self, addr: &SentinelAddr, master: &str, no_view: Option<&NoView>) {
        match no_view {
            None => drop(self.no_view.remove(master)),
            Some(why) if self.no_view.get(master) != Some(why) => {
                if self.often.allow("sentinel_view_refused", &addr.to_string()) {
                    warn!(
                        event = "sentinel_view_refused", sentinel = %addr, master_name = master,
                        "Sentinel {addr} has no usable answer for the master \"{master}\": {why}"
                    );
                }
                self.no_view.insert(master.to_owned(), why.clone());
            }
            Some(_) => {}
        }
    }

    pub(super) fn replicas(
        &mut self,
        addr: &SentinelAddr,
        master: &str,
        why: Option<&ClientError>,
    ) {
        let Some(why) = why else {
            self.no_replicas.remove(master);
            return;
        };
        let text = why.to_string();
        if self.no_replicas.get(master) == Some(&text) {
            return;
        }
        if self
            .often
            .allow("sentinel_lists_no_replicas", &addr.to_string())
        {
            let remedy = match why {
                ClientError::NoPermission(_) => {
                    ": its user needs +sentinel|replicas for an entry with role = \"replica\""
                }
                _ => "",
            };
            warn!(
                event = "sentinel_lists_no_replicas", sentinel = %addr, master_name = master,
                "Sentinel {addr} does not list the replicas of \"{master}\": {text}{remedy}"
            );
        }
        self.no_replicas.insert(master.to_owned(), text);
    }

    /// True when this is news, or the reason is another.
    pub(super) fn down(&mut self, addr: &SentinelAddr, why: &ClientError) -> bool {
        let Unasked { reason, words } = unasked(why);
        let news = self.up != Some(false) || self.why != words;
        if news && self.often.allow("sentinel_down", &addr.to_string()) {
            warn!(event = "sentinel_down", sentinel = %addr, reason, "Sentinel {addr} cannot be asked: {words}");
        }
        self.up = Some(false);
        self.why = words;
        news
    }
}

/// The same for those who decide and account.
pub(super) fn down(why: &ClientError) -> Said {
    Said::Down(unasked(why))
}

fn unasked(why: &ClientError) -> Unasked {
    let remedy = match why {
        ClientError::Auth(_) | ClientError::LoginNeeded(_) => {
            ": set sentinel.password_file (and sentinel.username where it has ACL users)"
        }
        ClientError::NoPermission(_) => {
            ": its user needs +sentinel|master, +sentinel|get-master-addr-by-name, +subscribe and +ping"
        }
        // Whoever has ended a connection is there.
        ClientError::Resolve(_) | ClientError::Io(_) | ClientError::Timeout { .. } => {
            ": check its address and that it runs"
        }
        _ => "",
    };
    Unasked {
        reason: why.label(),
        words: format!("{why}{remedy}{}", why.suspicion("[sentinel]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sentinel::client::REPLY_TIMEOUT;

    /// Who runs, and is where it is looked for, is not to be looked for elsewhere.
    #[test]
    fn each_reason_has_its_own_remedy() {
        let why = || "why".to_owned();
        let timeout = ClientError::Timeout {
            doing: "reading a reply",
            limit: REPLY_TIMEOUT,
        };
        for (error, reason, remedy) in [
            (ClientError::Io(why()), "connect", "its address"),
            (timeout, "timeout", "its address"),
            (
                ClientError::Ended(why()),
                "connect",
                "ca_file in [sentinel]",
            ),
            (ClientError::Auth(why()), "auth", "sentinel.password_file"),
            (ClientError::NoPermission(why()), "permission", "+subscribe"),
        ] {
            let told = unasked(&error);
            assert_eq!(told.reason, reason);
            assert!(told.words.contains(remedy), "{}", told.words);
            let looks = told.words.contains("its address");
            assert_eq!(looks, remedy == "its address", "{}", told.words);
        }
    }
}
