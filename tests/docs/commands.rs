//! The commands that the docs give: those that can be run on one machine are run, in front of a local topology.

pub(crate) const NAMES: &[&str] = &[];
