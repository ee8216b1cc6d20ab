//! The operator's choices that bear on who is master and how long clients wait for one.

use std::time::Duration;

/// Shortest and longest `hold_max = "auto"` (failover.md: down-after + 10 s, at most 60 s).
const AUTO_HOLD_MARGIN: Duration = Duration::from_secs(10);
const AUTO_HOLD_LIMIT: Duration = Duration::from_secs(60);
/// Default of `announced_hold_max`: a promotion takes about 0.1 s from its announcement, its confirmation 1 s more.
const ANNOUNCED_HOLD_MAX: Duration = Duration::from_secs(3);
/// Sentinel's own default of `down-after-milliseconds`, assumed until a Sentinel has said otherwise.
const DEFAULT_DOWN_AFTER: Duration = Duration::from_secs(30);

/// How many Sentinels must name a new master before it is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Agree {
    /// One Sentinel with the highest config-epoch: all others will adopt it.
    #[default]
    Any,
    /// A strict majority of the known Sentinels.
    Majority,
}

/// Whose word an announced successor needs before clients are sent to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confirm {
    /// A Sentinel's.
    #[default]
    Sentinel,
    /// Its own, for so long as the Sentinels may take to name it; then theirs.
    Role,
}

/// What a node has to prove before clients are sent to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// ROLE = master; a node that refuses to answer ROLE without a login is accepted when a strict
    /// majority of Sentinels (at least two) names it.
    #[default]
    Auto,
    /// ROLE = master, always.
    Role,
}

/// What a master in force is worth without the Sentinels' word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SentinelsLost {
    /// It keeps serving: losing the monitoring is no outage.
    #[default]
    Serve,
    /// Nothing is written to it beyond a lease, so that a minority side stops before the other side can have
    /// promoted a master of its own.
    Stop,
}

/// How long a majority's word counts under [`SentinelsLost::Stop`], from the *sending* of the question on: less than the
/// time after which the other Sentinels may call the master down, by four fifths.
pub fn lease(down_after: Duration) -> Duration {
    down_after * 4 / 5
}

/// How often Sentinels must be asked for a lease to be renewed in time, one lost answer and the jitter included.
pub fn lease_poll(down_after: Duration) -> Duration {
    lease(down_after) / 4
}

/// How long clients wait for a verified master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldMax {
    /// The largest `down-after-milliseconds` any Sentinel reports plus 10 s, at most 60 s.
    #[default]
    Auto,
    /// So long; zero closes instead of waiting.
    Fixed(Duration),
}

impl HoldMax {
    /// The limit in force, given the largest down-after seen.
    pub fn resolve(self, down_after: Option<Duration>) -> Duration {
        match self {
            Self::Auto => {
                (down_after.unwrap_or(DEFAULT_DOWN_AFTER) + AUTO_HOLD_MARGIN).min(AUTO_HOLD_LIMIT)
            }
            Self::Fixed(d) => d,
        }
    }
}

/// The `[failover]` section as far as it concerns decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// See [`Agree`].
    pub agree: Agree,
    /// See [`Verify`].
    pub verify: Verify,
    /// See [`HoldMax`].
    pub hold_max: HoldMax,
    /// Longest wait for an announced promotion; zero does not wait for announced ones.
    pub announced_hold_max: Duration,
    /// See [`Confirm`].
    pub confirm: Confirm,
    /// See [`SentinelsLost`].
    pub when_sentinels_are_lost: SentinelsLost,
    /// Hold as soon as a Sentinel sees the master objectively down (`+odown`), although it may still answer us.
    pub fence_at_odown: bool,
}

impl Rules {
    /// True when an announced successor may be used on its own word. Under [`SentinelsLost::Stop`] nothing is written to a
    /// master that no majority vouches for, and nobody vouches for this one yet.
    pub fn trusts_successors(&self) -> bool {
        self.confirm == Confirm::Role && self.when_sentinels_are_lost == SentinelsLost::Serve
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            agree: Agree::default(),
            verify: Verify::default(),
            hold_max: HoldMax::default(),
            announced_hold_max: ANNOUNCED_HOLD_MAX,
            confirm: Confirm::default(),
            when_sentinels_are_lost: SentinelsLost::default(),
            fence_at_odown: false,
        }
    }
}
