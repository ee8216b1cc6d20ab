//! What Sentinel publishes, understood; pure.
//!
//! Events are hints: they say when to ask and whom, never what is true. Payload forms as in `sentinelEvent()` of
//! Sentinel's source: `<type> <name> <ip> <port>`, followed by `@ <master> <ip> <port>` unless the type is
//! `master`; `+switch-master` alone is `<master> <old ip> <old port> <new ip> <new port>`.

use crate::topology::observation::Hint;

/// The events subscribed to. Exact names: a least-privilege user may not PSUBSCRIBE.
pub const CHANNELS: &[&str] = &[
    "+switch-master",
    "+promoted-slave",
    "+config-update-from",
    "+failover-state-reconf-slaves",
    "+failover-end",
    "+failover-end-for-timeout",
    "+reset-master",
    "+reboot",
    "+monitor",
    "-monitor",
    "+odown",
    "-odown",
    "+selected-slave",
    "+failover-state-send-slaveof-noone",
    "-failover-abort-not-elected",
    "-failover-abort-no-good-slave",
    "-failover-abort-slave-timeout",
    "-failover-abort-master-timeout",
    "+sentinel",
];

/// An event that concerns one master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The master's name.
    pub master: &'a str,
    /// What happened.
    pub hint: Hint,
}

/// Understands one event; `None` for what is not Sentinel's form or not subscribed to.
pub fn parse<'a>(channel: &str, payload: &'a str) -> Option<Event<'a>> {
    let hint = hint_of(channel)?;
    let mut words = payload.split_ascii_whitespace();
    let first = words.next()?;
    let master = if hint == Hint::SwitchMaster {
        first
    } else if first == "master" {
        words.next()?
    } else {
        words.skip_while(|word| *word != "@").nth(1)?
    };
    Some(Event { master, hint })
}

fn hint_of(channel: &str) -> Option<Hint> {
    Some(match channel {
        "+switch-master" => Hint::SwitchMaster,
        "+promoted-slave" => Hint::PromotedSlave,
        "+config-update-from" => Hint::ConfigUpdate,
        "+failover-state-reconf-slaves" => Hint::ReconfSlaves,
        "+failover-end" | "+failover-end-for-timeout" => Hint::FailoverEnd,
        "+reset-master" => Hint::Reset,
        "+reboot" => Hint::Reboot,
        "+monitor" => Hint::Monitor,
        "-monitor" => Hint::Unmonitor,
        "+odown" => Hint::ObjectivelyDown,
        "-odown" => Hint::NoLongerDown,
        "+selected-slave" | "+failover-state-send-slaveof-noone" => Hint::SelectedSlave,
        "+sentinel" => Hint::NewSentinel,
        _ if channel.starts_with("-failover-abort-") => Hint::Aborted,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn real_payloads() {
        for (channel, payload, hint) in [
            (
                "+switch-master",
                "mymaster 127.0.0.1 6379 127.0.0.1 6380",
                Hint::SwitchMaster,
            ),
            (
                "+selected-slave",
                "slave 127.0.0.1:6380 127.0.0.1 6380 @ mymaster 127.0.0.1 6379",
                Hint::SelectedSlave,
            ),
            (
                "+odown",
                "master mymaster 127.0.0.1 6379 #quorum 2/2",
                Hint::ObjectivelyDown,
            ),
            (
                "+config-update-from",
                "sentinel 0f3d9c 127.0.0.1 26380 @ mymaster 127.0.0.1 6379",
                Hint::ConfigUpdate,
            ),
            (
                "+monitor",
                "master mymaster 127.0.0.1 6379 quorum 2",
                Hint::Monitor,
            ),
            (
                "-failover-abort-no-good-slave",
                "master mymaster 127.0.0.1 6379",
                Hint::Aborted,
            ),
        ] {
            assert_eq!(
                parse(channel, payload),
                Some(Event {
                    master: "mymaster",
                    hint
                }),
                "{channel}"
            );
        }
    }

    #[test]
    fn every_subscribed_channel_is_understood() {
        for channel in CHANNELS {
            let hint = hint_of(channel).expect(channel);
            assert!(channel.starts_with(hint.as_str()) || matches!(hint, Hint::SelectedSlave));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(channel in ".{0,40}", payload in ".{0,200}") {
            let _ = parse(&channel, &payload);
        }

        #[test]
        fn the_master_is_found_whatever_else_is_said(
            name in "[A-Za-z0-9._-]{1,30}", node in "[a-z0-9:.]{1,30}", tail in "[ -~]{0,40}"
        ) {
            let payload = format!("slave {node} 10.0.0.1 6380 @ {name} 10.0.0.2 6379 {tail}");
            let event = parse("+promoted-slave", &payload).expect("an event");
            prop_assert_eq!(event.master, name);
        }
    }
}
