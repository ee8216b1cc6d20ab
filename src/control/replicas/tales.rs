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

pub(super) fn waits(proxy: &str, often: &mut Often) {
    let cause = HoldCause::NoReplica;
    if often.allow("hold_begin", proxy) {
        warn!(event = "hold_begin", proxy, cause = %cause, "clients wait: {}", cause.in_words());
    }
}

pub(super) fn goes_on(proxy: &str, often: &mut Often, lasted: Duration) {
    let cause = HoldCause::NoReplica;
    if often.allow("hold_end", proxy) {
        let held_ms = lasted.as_secs_f64() * 1e3;
        info!(event = "hold_end", proxy, cause = %cause, held_ms, "clients go on");
    }
}
