//! Planned failovers under steady writers on kept connections.

use std::time::SystemTime;

use crate::harness::planned::{Planned, planned_failover};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::Topology;
use crate::moments::{Moments, Witness};

/// The settings of `failover.confirm` that are measured; the first is the program's default and is not told to it.
const CONFIRM: &[&str] = &["sentinel", "role"];

/// The runs of one setting.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) confirm: &'static str,
    pub(crate) runs: Vec<Planned>,
    pub(crate) moments: Vec<Moments>,
}

/// So many of each setting, in turn, so that all meet the same machine.
pub(crate) fn measure(servers: &Topology, count: usize) -> Vec<Setting> {
    let witness = Witness::start(servers);
    let plan = |(at, confirm): (usize, &&'static str)| {
        let plan = Plan::moving(&servers.sentinels());
        let plan = match at {
            0 => plan,
            // In a file: a program that does not know the key refuses it there.
            _ => plan.config(format!("[failover]\nconfirm = \"{confirm}\"\n")),
        };
        let setting = Setting {
            confirm,
            runs: Vec::new(),
            moments: Vec::new(),
        };
        (Proxy::ready(plan), setting)
    };
    let mut settings: Vec<(Proxy, Setting)> = CONFIRM.iter().enumerate().map(plan).collect();
    for number in 0..count {
        for (proxy, setting) in &mut settings {
            let (mark, began) = (proxy.mark(), SystemTime::now());
            let run = planned_failover(servers, proxy, number % servers.sentinels().len());
            // The demotion is what Sentinel does in its own time: waited for once, as it takes ten seconds.
            if number + 1 == count {
                witness.wait_demoted(run.switch.old);
            } else {
                witness.wait_told(began, "+switch-master");
            }
            setting
                .moments
                .push(Moments::planned(&witness, began, (proxy, mark), &run));
            eprintln!(
                "planned failover {:>3}  confirm {:<8}  acknowledged {:>6}  lost {}  disconnects {}  errors {}  \
                 stall {:>7.1} ms",
                number + 1,
                setting.confirm,
                run.acknowledged,
                run.lost,
                run.disconnects,
                run.errors(),
                run.pause.as_secs_f64() * 1000.0
            );
            servers.ready_again(run.switch);
            setting.runs.push(run);
        }
    }
    settings.into_iter().map(|(_, setting)| setting).collect()
}

impl Setting {
    pub(crate) fn sum(&self, of: impl Fn(&Planned) -> usize) -> usize {
        self.runs.iter().map(of).sum()
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        let broken = [
            ("acknowledged writes were lost", self.sum(|run| run.lost)),
            ("connections were closed", self.sum(|run| run.disconnects)),
            ("writes were not acknowledged", self.sum(Planned::errors)),
        ];
        broken
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| {
                format!(
                    "planned failovers, confirm = \"{}\": {count} {what}",
                    self.confirm
                )
            })
            .collect()
    }
}
