//! What is said of one Sentinel in the log.

use std::collections::HashMap;

use tracing::{info, warn};

use super::client::ClientError;
use crate::net::addr::SentinelAddr;
use crate::telemetry::Often;
use crate::topology::observation::NoView;

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

    /// True when this is news.
    pub(super) fn down(&mut self, addr: &SentinelAddr, why: &ClientError) -> bool {
        let text = why.to_string();
        let news = self.up != Some(false);
        if (news || self.why != text) && self.often.allow("sentinel_down", &addr.to_string()) {
            let reason = why.label();
            let remedy = match why {
                ClientError::Auth(_) | ClientError::LoginNeeded(_) => {
                    ": set sentinel.password_file (and sentinel.username where it has ACL users)"
                }
                ClientError::NoPermission(_) => {
                    ": its user needs +sentinel|master, +sentinel|get-master-addr-by-name, +subscribe and +ping"
                }
                _ => "",
            };
            warn!(event = "sentinel_down", sentinel = %addr, reason, "Sentinel {addr} cannot be asked: {text}{remedy}");
        }
        self.up = Some(false);
        self.why = text;
        news
    }
}
