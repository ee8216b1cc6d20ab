//! Why clients wait for a master, in words: what is wrong with the Sentinels, and with whom they name. Pure.

use crate::net::addr::SentinelAddr;
use crate::topology::decide::Census;
use crate::topology::observation::{RoleReport, Unasked};
use crate::topology::rules::Verify;

/// Why a node is not accepted as the master, and what to do about it.
pub(super) fn rejection(report: &RoleReport, verify: Verify) -> String {
    let remedy = match (report, verify) {
        (RoleReport::Refused(_), Verify::Auto) => {
            "; set proxy.probe.password_file (and username). Without it a majority of at least two Sentinels has to name the node"
        }
        (RoleReport::Refused(_), Verify::Role) => {
            "; set proxy.probe.password_file (and username), or failover.verify = \"auto\" to trust a majority of Sentinels"
        }
        (RoleReport::LoginFailed(_), _) => "; check proxy.probe.username and password_file",
        _ => "",
    };
    format!("{report}{remedy}")
}

/// How many Sentinels answer, and what is wrong with those that do not.
pub(super) fn sentinels(
    census: &Census,
    silent: &[(SentinelAddr, Option<Unasked>)],
    master: &str,
) -> String {
    let Census {
        voters,
        fresh,
        ignorant,
        ..
    } = census;
    if *fresh == 0 && *ignorant > 0 {
        return format!(
            "{ignorant} of {voters} Sentinels know no master named \"{master}\": check the name (SENTINEL MASTERS lists them)"
        );
    }
    let answering = format!("{fresh} of {voters} Sentinels answer");
    if silent.is_empty() {
        return answering;
    }
    let each: Vec<_> = silent.iter().map(short).collect();
    let mut words = format!("{answering}; not {}", each.join(", "));
    // One is told in full: most often it is the same with all.
    if let Some((addr, why)) = silent
        .iter()
        .find_map(|(addr, why)| Some((addr, why.as_ref()?)))
    {
        words = format!("{words}. {addr}: {}", why.words);
    }
    words
}

fn short((addr, why): &(SentinelAddr, Option<Unasked>)) -> String {
    match why {
        Some(why) => format!("{addr} ({})", why.reason),
        None => addr.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::addr::HostPort;

    fn silent(reason: &'static str, words: &str) -> Vec<(SentinelAddr, Option<Unasked>)> {
        let addr = |port| SentinelAddr(HostPort::parse("10.0.0.3", Some(port)).expect("valid"));
        let words = words.to_owned();
        let why = || {
            Some(Unasked {
                reason,
                words: words.clone(),
            })
        };
        vec![(addr(26379), why()), (addr(26380), why())]
    }

    #[test]
    fn what_is_wrong_with_the_sentinels_is_said_and_nothing_else() {
        let none = Census {
            voters: 2,
            ..Census::default()
        };
        let auth = silent(
            "auth",
            "login failed: WRONGPASS: set sentinel.password_file",
        );
        assert_eq!(
            sentinels(&none, &auth, "mymaster"),
            "0 of 2 Sentinels answer; not 10.0.0.3:26379 (auth), 10.0.0.3:26380 (auth). 10.0.0.3:26379: login failed: \
             WRONGPASS: set sentinel.password_file"
        );
        let one = Census { fresh: 1, ..none };
        assert!(sentinels(&one, &auth, "m").starts_with("1 of 2 Sentinels answer; not "));
        assert_eq!(sentinels(&one, &[], "m"), "1 of 2 Sentinels answer");
        let ignorant = Census {
            ignorant: 2,
            ..none
        };
        assert!(sentinels(&ignorant, &[], "m").contains("know no master named \"m\""));
    }

    #[test]
    fn a_refused_login_names_the_key_to_set() {
        let refused = RoleReport::LoginFailed("WRONGPASS".to_owned());
        let said = rejection(&refused, Verify::Auto);
        assert!(said.contains("check proxy.probe.username"), "{said}");
    }
}
