//! What a `[[proxy]]` entry says of reading from replicas.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Proxy;
use super::schema::Key;
use super::value::Values;
use crate::topology::replicas::{Choice, Fallback};

/// A proof of a replica's age is renewed eight times in that time, and every 100 ms at the most.
const MAX_LAG: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// True for the one that leads to replicas.
pub(super) const ROLES: [(&str, bool); 2] = [("master", false), ("replica", true)];
const FALLBACKS: [(&str, Fallback); 2] =
    [("master", Fallback::Master), ("refuse", Fallback::Refuse)];

pub(super) fn reads(values: &mut Values<'_>) -> Choice {
    let default = Choice::default();
    Choice {
        max_lag: values.duration(Key::MaxLag, MAX_LAG, default.max_lag),
        fallback: values.choice(Key::Fallback, &FALLBACKS, default.fallback),
    }
}

/// Somebody meant something by it.
pub(super) fn means_nothing(proxy: &Proxy) -> Option<String> {
    let said = !proxy.leads_to_replicas && proxy.reads != Choice::default();
    said.then(|| {
        format!(
            "proxy.max_lag and proxy.fallback of \"{}\" do nothing: they are for role = \"replica\"",
            proxy.name
        )
    })
}
