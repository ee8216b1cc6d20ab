//! What a bench was asked for: `--name N` and `--name`, nothing else.

use std::process::exit;

/// Arguments that were not taken yet.
#[derive(Debug)]
pub(crate) struct Args {
    usage: &'static str,
    left: Vec<String>,
}

impl Args {
    /// The arguments of this process. `None` when there are none at all: then `cargo test` started the bench, only to
    /// see that it builds and starts; `cargo bench` adds `--bench`.
    pub(crate) fn of_bench(usage: &'static str) -> Option<Self> {
        let given: Vec<String> = std::env::args().skip(1).collect();
        if given.is_empty() {
            return None;
        }
        let left = given.into_iter().filter(|arg| arg != "--bench").collect();
        Some(Self { usage, left })
    }

    /// True when this was given.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.left.len();
        self.left.retain(|arg| arg != name);
        self.left.len() < before
    }

    /// The number behind this, at least 1 and at most `most`.
    pub(crate) fn number(&mut self, name: &str, default: usize, most: usize) -> usize {
        let Some(at) = self.left.iter().position(|arg| arg == name) else {
            return default;
        };
        let taken: Vec<String> = self.left.drain(at..(at + 2).min(self.left.len())).collect();
        match taken.get(1).and_then(|number| number.parse().ok()) {
            Some(number) if (1..=most).contains(&number) => number,
            _ => self.refuse(&format!("{name} needs a number from 1 to {most}")),
        }
    }

    /// Ends the process if something was given that nobody has taken.
    pub(crate) fn end(self) {
        if let Some(unknown) = self.left.first() {
            self.refuse(&format!("{unknown:?} is not known"));
        }
    }

    fn refuse(&self, why: &str) -> ! {
        eprintln!("{why}\n{}", self.usage);
        exit(2)
    }
}
