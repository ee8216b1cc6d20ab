//! What Sentinel publishes, understood; pure.
//!
//! Events are hints: they say when to ask and whom, never what is true. Payload forms as in `sentinelEvent()` of
//! Sentinel's source: `<type> <name> <ip> <port>`, followed by `@ <master> <ip> <port>` unless the type is
//! `master`; `+switch-master` alone is `<master> <old ip> <old port> <new ip> <new port>`.

use crate::net::addr::{Host, HostPort, NodeAddr};
use crate::topology::observation::{Hint, Succession};

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

/// Words of a payload that mean something to us.
const MAX_WORDS: usize = 10;

/// An event that concerns one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The master's name.
    pub master: &'a str,
    /// What happened.
    pub hint: Hint,
    /// Whom the leader is about to promote.
    pub succession: Option<Succession>,
}

/// Understands one event; `None` for what is not Sentinel's form or not subscribed to.
pub fn parse<'a>(channel: &str, payload: &'a str) -> Option<Event<'a>> {
    let hint = hint_of(channel)?;
    let words: Vec<&str> = payload.split_ascii_whitespace().take(MAX_WORDS).collect();
    let master = match words.as_slice() {
        [name, ..] if hint == Hint::SwitchMaster => name,
        ["master", name, ..] | [_, _, _, _, "@", name, ..] => name,
        _ => return None,
    };
    let succession = match words.as_slice() {
        ["slave", _, ip, port, "@", _, master_ip, master_port, ..]
            if hint == Hint::SelectedSlave =>
        {
            let (master, successor) = (node(master_ip, master_port)?, node(ip, port)?);
            Some(Succession { master, successor })
        }
        _ => None,
    };
    Some(Event {
        master,
        hint,
        succession,
    })
}

fn node(host: &str, port: &str) -> Option<NodeAddr> {
    let host = Host::parse(host).ok().filter(|h| !h.is_unspecified())?;
    HostPort::new(host, port.parse().ok()?).ok().map(NodeAddr)
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
            let event = parse(channel, payload).expect(channel);
            assert_eq!((event.master, event.hint), ("mymaster", hint), "{channel}");
            assert_eq!(event.succession.is_some(), channel == "+selected-slave");
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
