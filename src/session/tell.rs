//! What a house says of its dials and its sessions, each kind rarely enough.

use tracing::{debug, error, warn};

use super::close::CloseReason;
use super::house::{House, NO_PORT_PAUSE, Seat};
use crate::net::clock::now;
use crate::net::socket::peer;
use crate::net::stream::Stream;
use crate::topology::{Generation, MasterAddr};
use crate::upstream::DialError;

impl House {
    pub(super) fn dial_failed(
        &self,
        master: &MasterAddr,
        generation: Generation,
        error: &DialError,
    ) {
        self.tally.dial_failures[error.index()].add(1);
        if matches!(error, DialError::NoPort) {
            self.no_port.set(Some((generation, now() + NO_PORT_PAUSE)));
        }
        if !error.is_our_own() {
            self.doubt();
            self.shun(true);
        }
        if let Some(count) = self.common.dials[error.index()].allow(now()) {
            warn!(
                event = "dial_failed",
                proxy = %self.name,
                addr = %master,
                reason = error.label(),
                count,
                "cannot connect to the {}: {error}", self.whom()
            );
        }
    }

    /// What upstreams lead to here, for people.
    fn whom(&self) -> &'static str {
        if self.is_of_replica() {
            "replica"
        } else {
            "master"
        }
    }

    /// A new master did not take over what a session needs.
    pub(super) fn replay_failed(&self, reason: &'static str, again: bool) {
        self.doubt();
        if again {
            self.shun(true);
        }
        self.tally.replay_failures.add(1);
        if let Some(count) = self.common.replays.allow(now()) {
            let then = if again {
                "it is tried again"
            } else {
                "the session is closed"
            };
            warn!(
                event = "replay_failed",
                proxy = %self.name,
                reason,
                count,
                "the new {} did not take over a session: {then}", self.whom()
            );
        }
    }

    /// The master did not accept the proxy's own login.
    pub(super) fn login_refused(&self, reason: &'static str) {
        self.tally.replay_failures.add(1);
        if let Some(count) = self.common.logins.allow(now()) {
            warn!(
                event = "login_refused",
                proxy = %self.name,
                reason,
                count,
                "the {} refuses the login of [proxy.login], and a client was closed: see that user and password are the server's \
                 (ACL SETUSER, requirepass), then reload", self.whom()
            );
        }
    }

    pub(super) fn closed(&self, reason: CloseReason) {
        self.tally.closed[reason.index()].add(1);
        let (proxy, fault) = (&self.name, reason.fault());
        match reason.level() {
            tracing::Level::ERROR => {
                if let Some(count) = self.common.closes[reason.index()].allow(now()) {
                    error!(
                        event = "session_closed", %proxy, %reason, ?fault, count,
                        "a defect of the proxy ended a session; all others go on"
                    );
                }
            }
            tracing::Level::WARN => {
                if let Some(count) = self.common.closes[reason.index()].allow(now()) {
                    warn!(event = "session_closed", %proxy, %reason, ?fault, count, "closed clients");
                }
            }
            _ => debug!(event = "session_closed", %proxy, %reason, ?fault, "session closed"),
        }
    }
}

impl Seat {
    /// The session of this client ends for what it did, or did not do; the line says where the last such came from, by a balancer's
    /// word where there is one.
    pub(super) fn turned_away(&self, reason: CloseReason, client: &Stream) {
        let Some(advice) = reason.advice() else {
            return;
        };
        let house = &self.house;
        if let Some(count) = house.common.closes[reason.index()].allow(now()) {
            let from = self.conveyed.as_deref().copied().or_else(|| peer(client));
            let from = from.map_or_else(|| "this host".to_owned(), |ip| ip.to_string());
            warn!(
                event = "client_refused", proxy = %house.name, %reason, count,
                "closed a connection from {from}: {advice}"
            );
        }
    }
}
