//! What somebody wants to see, and what keys change about it. Pure.

use std::time::Duration;

use super::facts::Facts;
use super::keys::Key;
use crate::net::clock::Moment;

/// Shortest and longest time between two questions that may be asked for.
pub(super) const SHORTEST: Duration = Duration::from_millis(100);
pub(super) const LONGEST: Duration = Duration::from_secs(3600);
/// What `+` and `-` go through.
const STEPS: [Duration; 8] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// The part of the facts that fills the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Overview,
    Failovers,
    Log,
}

/// What is shown, and how.
#[derive(Debug)]
pub(super) struct View {
    pub(super) page: Page,
    pub(super) help: bool,
    /// The proxy looked at, by its name: its place may change with a restart.
    selected: Option<String>,
    pub(super) scroll: usize,
    /// How far one can scroll, and how much is seen at once: as drawn last.
    reach: usize,
    height: usize,
    pub(super) every: Duration,
    /// The facts as they were when the screen was frozen, and when that was.
    pub(super) frozen: Option<Box<(Facts, Moment)>>,
}

/// What a key asks of the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// Ask at another pace.
    Pace,
    /// Draw everything anew.
    Redraw,
    /// Stop, as Ctrl-Z does.
    Suspend,
}

impl View {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            page: Page::Overview,
            help: false,
            selected: None,
            scroll: 0,
            reach: 0,
            height: 1,
            every,
            frozen: None,
        }
    }

    /// The place of the selected proxy among these facts; the first one unless another was chosen.
    pub(super) fn selected(&self, facts: &Facts) -> usize {
        let mut proxies = facts.proxies().iter();
        let chosen = proxies.position(|p| Some(&p.account.proxy) == self.selected.as_ref());
        chosen.unwrap_or(0)
    }

    /// Takes in how far one can scroll, so many lines being seen at once.
    pub(super) fn drawn(&mut self, lines: usize, height: usize) {
        self.height = height.max(1);
        self.reach = lines.saturating_sub(height);
        self.scroll = self.scroll.min(self.reach);
    }

    pub(super) fn press(&mut self, key: Key, facts: &Facts, at: Moment) -> Wish {
        match key {
            Key::Ctrl('c') | Key::Char('q') => return Wish::Quit,
            Key::Esc | Key::Enter if self.help => self.help = false,
            Key::Esc => return Wish::Quit,
            Key::Char('?' | 'h') => self.help = !self.help,
            Key::Ctrl('l') => return Wish::Redraw,
            Key::Ctrl('z') => return Wish::Suspend,
            Key::Char('+' | '=') => {
                let longer = STEPS.into_iter().find(|step| *step > self.every);
                return self.pace(longer);
            }
            Key::Char('-') => {
                let shorter = STEPS.into_iter().rfind(|step| *step < self.every);
                return self.pace(shorter);
            }
            Key::Char(' ' | 'p') => {
                self.frozen = match self.frozen.take() {
                    Some(_) => None,
                    None => Some(Box::new((facts.clone(), at))),
                };
            }
            Key::Char('s') => {
                self.page = match self.page {
                    Page::Overview => Page::Failovers,
                    Page::Failovers => Page::Log,
                    Page::Log => Page::Overview,
                };
                self.scroll = 0;
                self.help = false;
            }
            Key::Tab | Key::Right => self.select(facts, 1),
            Key::BackTab | Key::Left => self.select(facts, -1),
            Key::Down | Key::Char('j') => self.scroll_to(self.scroll + 1),
            Key::Up | Key::Char('k') => self.scroll_to(self.scroll.saturating_sub(1)),
            Key::PageDown | Key::Ctrl('f' | 'd') => self.scroll_to(self.scroll + self.height),
            Key::PageUp | Key::Ctrl('b' | 'u') => {
                self.scroll_to(self.scroll.saturating_sub(self.height));
            }
            Key::Home | Key::Char('g') => self.scroll_to(0),
            Key::End | Key::Char('G') => self.scroll_to(self.reach),
            Key::Enter | Key::Char(_) | Key::Ctrl(_) => {}
        }
        Wish::Nothing
    }

    fn scroll_to(&mut self, line: usize) {
        self.scroll = line.min(self.reach);
    }

    fn pace(&mut self, every: Option<Duration>) -> Wish {
        let Some(every) = every else {
            return Wish::Nothing;
        };
        self.every = every;
        Wish::Pace
    }

    fn select(&mut self, facts: &Facts, step: isize) {
        // Of what is on the screen.
        let facts = self.frozen.as_ref().map_or(facts, |frozen| &frozen.0);
        let proxies = facts.proxies();
        if proxies.is_empty() {
            return;
        }
        let next = self.selected(facts).wrapping_add_signed(step);
        // One before the first is the last.
        let next = if next == usize::MAX {
            proxies.len() - 1
        } else {
            next % proxies.len()
        };
        self.selected = Some(proxies[next].account.proxy.clone());
        self.scroll = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::tests::{at, facts_of, status};

    fn pressed(view: &mut View, facts: &Facts, keys: &str) -> Vec<Wish> {
        keys.chars()
            .map(|c| view.press(Key::Char(c), facts, at(0)))
            .collect()
    }

    #[test]
    fn every_way_out() {
        let facts = facts_of(status());
        for key in [Key::Char('q'), Key::Esc, Key::Ctrl('c')] {
            assert_eq!(View::new(SHORTEST).press(key, &facts, at(0)), Wish::Quit);
        }
        // The help is left first.
        let mut view = View::new(SHORTEST);
        pressed(&mut view, &facts, "?");
        assert!(view.help);
        assert_eq!(view.press(Key::Esc, &facts, at(0)), Wish::Nothing);
        assert!(!view.help);
        assert_eq!(view.press(Key::Esc, &facts, at(0)), Wish::Quit);
    }

    #[test]
    fn the_pace_has_bounds() {
        let facts = facts_of(status());
        let mut view = View::new(Duration::from_secs(1));
        assert_eq!(pressed(&mut view, &facts, "+"), [Wish::Pace]);
        assert_eq!(view.every, Duration::from_secs(2));
        pressed(&mut view, &facts, &"-".repeat(20));
        assert_eq!(view.every, STEPS[0]);
        assert_eq!(pressed(&mut view, &facts, "-"), [Wish::Nothing]);
        pressed(&mut view, &facts, &"=".repeat(20));
        assert_eq!(view.every, STEPS[7]);
        // What was asked for on the command line is left where it is.
        let mut view = View::new(SHORTEST);
        assert_eq!(pressed(&mut view, &facts, "-"), [Wish::Nothing]);
        assert_eq!(view.every, SHORTEST);
    }

    #[test]
    fn one_scrolls_as_far_as_there_is_something() {
        let facts = facts_of(status());
        let mut view = View::new(SHORTEST);
        view.drawn(30, 20);
        pressed(&mut view, &facts, "jjk");
        assert_eq!(view.scroll, 1);
        pressed(&mut view, &facts, "G");
        assert_eq!(view.scroll, 10);
        view.press(Key::PageUp, &facts, at(0));
        assert_eq!(view.scroll, 0);
        view.press(Key::PageDown, &facts, at(0));
        // A larger screen shows all of it.
        view.drawn(30, 40);
        assert_eq!(view.scroll, 0);
        assert_eq!(pressed(&mut view, &facts, "j"), [Wish::Nothing]);
        assert_eq!(view.scroll, 0);
    }

    #[test]
    fn proxies_are_selected_in_a_ring_and_by_name() {
        let mut two = status();
        let mut other = two.proxies[0].clone();
        other.account.proxy = "other".into();
        two.proxies.push(other);
        let facts = facts_of(two.clone());
        let mut view = View::new(SHORTEST);
        view.press(Key::BackTab, &facts, at(0));
        assert_eq!(view.selected(&facts), 1);
        two.proxies.reverse();
        assert_eq!(view.selected(&facts_of(two)), 0);
        view.press(Key::Tab, &facts, at(0));
        assert_eq!(view.selected(&facts), 0);
        // Without any there is nothing to select.
        let nothing = Facts::new("here".into());
        View::new(SHORTEST).press(Key::Tab, &nothing, at(0));
    }

    #[test]
    fn a_frozen_screen_keeps_its_facts() {
        let facts = facts_of(status());
        let mut view = View::new(SHORTEST);
        pressed(&mut view, &facts, " ");
        assert!(
            view.frozen
                .as_ref()
                .is_some_and(|f| f.0.proxies().len() == 1)
        );
        pressed(&mut view, &facts, "p");
        assert!(view.frozen.is_none());
    }
}
