//! The proxy's log lines in plain words. Pure.

use super::proxy::ProxyEvent;

/// Tells each thing once within an event: the three Sentinels say the same, and dials repeat.
#[derive(Debug, Default)]
pub(super) struct Story {
    announced: bool,
    dial_failed: bool,
    rejected: bool,
}

impl Story {
    /// The sentence of a log line; `None` where there is nothing new to tell.
    pub(super) fn tell(&mut self, event: &ProxyEvent) -> Option<String> {
        let text = |field: &str| event.text(field);
        match event.name.as_str() {
            "failover_seen" => first(&mut self.announced).then(|| {
                format!(
                    "Sentinel {} announced it: {}",
                    text("sentinel"),
                    text("hint")
                )
            }),
            // A hold that is part of the switch is told with it.
            "hold_begin" if text("cause") == "switching" => None,
            "hold_end" if text("outcome") == "switched" => None,
            "hold_begin" => Some(format!(
                "switchmaster holds its clients back ({})",
                text("cause")
            )),
            "hold_end" => Some(format!("switchmaster ended the hold ({})", text("outcome"))),
            "role_rejected" => first(&mut self.rejected)
                .then(|| format!("switchmaster refused {}: {}", text("addr"), text("reason"))),
            "dial_failed" => first(&mut self.dial_failed).then(|| {
                format!(
                    "switchmaster cannot reach {}: {}",
                    text("addr"),
                    text("reason")
                )
            }),
            "sentinel_down" => Some(format!(
                "Sentinel {} is gone: {}",
                text("sentinel"),
                text("reason")
            )),
            "switched" => Some(format!(
                "switchmaster switched to {} (verified in {} ms, fenced in {} ms, {} connections to the old \
                 master closed)",
                text("to"),
                text("verify_ms"),
                text("fence_ms"),
                text("cut")
            )),
            _ => None,
        }
    }
}

/// Whether this is the first time.
fn first(told: &mut bool) -> bool {
    !std::mem::replace(told, true)
}
