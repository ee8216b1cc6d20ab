//! Reloads: another configuration for a process that serves, without ending a session that need not end.

#[path = "../harness/mod.rs"]
mod harness;

mod credentials;
mod entries;
mod errors;
mod load;

pub(crate) use harness::admin::{admin_of, page as get};
use harness::proxy::{Event, Proxy};
pub(crate) use harness::reload::{
    TOKEN, file, other, plan, post_as, quoted, ready, reload, stage, start, taken_over,
};
use harness::stream::SOON;

/// Sends SIGHUP, and gives the event that tells what came of it.
pub(crate) fn hung_up(proxy: &Proxy, event: &str) -> Event {
    let mark = proxy.mark();
    proxy.hang_up();
    proxy.event_after(mark, event, SOON)
}

/// The value of a metric's one series with this text in its labels.
pub(crate) fn metric(proxy: &Proxy, name: &str, labels: &str) -> f64 {
    let text = get(admin_of(proxy), "/metrics");
    let line = text.lines().find(|line| {
        let (series, _) = line.split_once(' ').unwrap_or((line, ""));
        series.split('{').next() == Some(name) && series.contains(labels)
    });
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} with {labels} in\n{text}"))
}
