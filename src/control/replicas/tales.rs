//! What is told of replicas, a line each; the names are public interface.

use std::time::Duration;

use tracing::{info, warn};

use crate::net::addr::NodeAddr;
use crate::telemetry::Often;
use crate::topology::publish::Left;
use crate::topology::replicas::{MAX_ASKED, Unfit};
use crate::topology::{Generation, HoldCause};

pub(super) fn joined(proxy: &str, often: &mut Often, addr: &NodeAddr, generation: Generation) {
    if often.allow("replica_joined", proxy) {
        let generation = generation.0;
        info!(event = "replica_joined", proxy, addr = %addr.0, generation, "{} is read from", addr.0);
    }
}

/// From this line on no byte goes there, unless `left` is missing: then a worker may still hold a socket.
pub(super) fn left(
    proxy: &str,
    often: &mut Often,
    addr: &NodeAddr,
    why: Unfit,
    fence: Duration,
    left: Option<Left>,
) {
    if !often.allow("replica_left", proxy) {
        return;
    }
    let (addr, reason, words) = (&addr.0, why.label(), why.in_words());
    let fence_ms = fence.as_secs_f64() * 1e3;
    match left {
        Some(Left { cut, kept }) => info!(
            event = "replica_left", proxy, addr = %addr, reason, fence_ms, cut, kept,
            "{addr} is not read from any more: {words}"
        ),
        None => warn!(
            event = "replica_left", proxy, addr = %addr, reason, fence_ms,
            "{addr} is not to be read from any more ({words}), and not every worker has let go of it in time"
        ),
    }
}

pub(super) fn left_out(proxy: &str, often: &mut Often, left_out: usize) {
    if often.allow("replicas_left_out", proxy) {
        warn!(
            event = "replicas_left_out",
            proxy,
            left_out,
            most = MAX_ASKED,
            "the Sentinels list more than {MAX_ASKED} replicas: {left_out} are not asked, those first that are called down. SENTINEL \
             RESET, at one Sentinel after the other, removes dead ones"
        );
    }
}

pub(super) fn fallback(proxy: &str, often: &mut Often, begins: bool) {
    if !often.allow("fallback", proxy) {
        return;
    }
    if begins {
        warn!(
            event = "fallback_begin",
            proxy, "no replica may be read from: clients are led to the master"
        );
    } else {
        info!(
            event = "fallback_end",
            proxy, "new clients are led to replicas again"
        );
    }
}

/// What is there stays there, new clients go elsewhere; or may come again.
pub(super) fn takes_newcomers(proxy: &str, often: &mut Often, addr: &NodeAddr, takes: bool) {
    let addr = &addr.0;
    if takes {
        if often.allow("replica_opened", proxy) {
            info!(event = "replica_opened", proxy, %addr, "{addr} takes new connections again");
        }
    } else if often.allow("replica_shut", proxy) {
        warn!(
            event = "replica_shut", proxy, %addr,
            "{addr} takes no new connections (maxclients, a full queue, a firewall?): new clients are led elsewhere, those it has stay"
        );
    }
}

pub(super) fn is_us(proxy: &str, often: &mut Often, addr: &NodeAddr) {
    if often.allow("sentinel_names_us", proxy) {
        let addr = &addr.0;
        warn!(
            event = "sentinel_names_us", proxy, %addr,
            "a Sentinel lists our own listener {addr} as a replica; that is not read from. Listen on another port, or correct what \
             that replica announces (replica-announce-ip, replica-announce-port)"
        );
    }
}

pub(super) fn waits(proxy: &str, often: &mut Often, cause: HoldCause) {
    if often.allow("hold_begin", proxy) {
        warn!(event = "hold_begin", proxy, cause = %cause, "clients wait: {}", cause.in_words());
    }
}

pub(super) fn goes_on(proxy: &str, often: &mut Often, cause: HoldCause, lasted: Duration) {
    if often.allow("hold_end", proxy) {
        let held_ms = lasted.as_secs_f64() * 1e3;
        info!(event = "hold_end", proxy, cause = %cause, held_ms, "clients go on");
    }
}
