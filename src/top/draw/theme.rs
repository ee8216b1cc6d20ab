//! Colours, and what stands for them where there are none: everything is told by a word or a sign as well.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::cells::width_of;
use crate::admin::status::Mood;

/// The terminal's own sixteen colours, or none.
#[derive(Clone, Copy, Debug)]
pub(in crate::top) struct Theme {
    pub(in crate::top) colour: bool,
}

impl Theme {
    pub(super) const fn plain(self) -> Style {
        Style::new()
    }

    pub(super) const fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What is there to be looked up, not to be read.
    pub(super) const fn faint(self) -> Style {
        self.coloured(Color::DarkGray, Modifier::DIM)
    }

    pub(super) const fn good(self) -> Style {
        self.coloured(Color::Green, Modifier::empty())
    }

    pub(super) const fn uneasy(self) -> Style {
        self.coloured(Color::Yellow, Modifier::BOLD)
    }

    pub(super) const fn bad(self) -> Style {
        self.coloured(Color::Red, Modifier::BOLD)
            .add_modifier(Modifier::BOLD)
    }

    pub(super) const fn mood(self, mood: Mood) -> Style {
        match mood {
            Mood::Good => self.good(),
            Mood::Uneasy => self.uneasy(),
            Mood::Bad => self.bad(),
        }
    }

    /// The phases of a failover.
    pub(super) const fn detect(self) -> Style {
        self.coloured(Color::Yellow, Modifier::empty())
    }

    pub(super) const fn verify(self) -> Style {
        self.coloured(Color::Blue, Modifier::empty())
    }

    pub(super) const fn first_byte(self) -> Style {
        self.coloured(Color::Magenta, Modifier::empty())
    }

    pub(super) const fn spark(self) -> Style {
        self.coloured(Color::Cyan, Modifier::empty())
    }

    /// The first and the last line.
    pub(super) const fn bar(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) const fn alarm(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.colour {
            style.fg(Color::White).bg(Color::Red)
        } else {
            style
        }
    }

    pub(super) const fn notice(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.colour {
            style.fg(Color::Black).bg(Color::Yellow)
        } else {
            style
        }
    }

    /// Over what was true once.
    pub(super) const fn stale(self) -> Style {
        let style = self.coloured(Color::DarkGray, Modifier::DIM);
        style.remove_modifier(Modifier::BOLD)
    }

    /// The head of a section.
    pub(super) fn title(self, text: &str, width: usize) -> Line<'static> {
        let rule = "\u{2500}".repeat(width.saturating_sub(width_of(text) + 2));
        Line::from(vec![
            Span::styled(format!(" {text} "), self.strong()),
            Span::styled(rule, self.faint()),
        ])
    }

    /// A colour, or what else sets it off.
    const fn coloured(self, colour: Color, otherwise: Modifier) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new().add_modifier(otherwise)
        }
    }
}
