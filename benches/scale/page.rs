//! What a part found: a table for people, the same as JSON, and what is wrong.

use serde_json::{Map, Value, json};

/// A table whose first column is a name.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    pub(crate) notes: Vec<String>,
    /// Counts that must not be; figures of speed are never among them.
    pub(crate) findings: Vec<String>,
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Text(String),
    Count(u64),
    /// With so many digits behind the point.
    Number(f64, usize),
    None,
}

impl Part {
    pub(crate) fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.to_vec(),
            rows: Vec::new(),
            notes: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// A part that could not be measured here, and why that is no failure.
    pub(crate) fn left_out(title: &str, why: &str) -> Self {
        let mut part = Self::new(title, &[]);
        part.notes.push(format!("left out: {why}"));
        part
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "{cells:?}");
        // Progress, on the other stream.
        eprintln!(
            "  {}",
            cells.iter().map(Cell::text).collect::<Vec<_>>().join(" | ")
        );
        self.rows.push(cells);
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub(crate) fn expect(&mut self, holds: bool, finding: impl Into<String>) {
        if !holds {
            self.findings.push(finding.into());
        }
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut out = format!("\n{}\n", self.title);
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(Cell::text).collect())
            .collect();
        let wide = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(self.columns[column].len())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(wide).collect();
        let mut line = |cells: &[&str]| {
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                out += &match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("  {cell:>width$}"),
                };
            }
            out += "\n";
        };
        line(&self.columns);
        for row in &rows {
            line(&row.iter().map(String::as_str).collect::<Vec<_>>());
        }
        for note in &self.notes {
            out += &format!("  {note}\n");
        }
        out
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let cells = self.columns.iter().zip(row);
            Value::Object(
                cells
                    .map(|(name, cell)| ((*name).to_owned(), cell.value()))
                    .collect::<Map<_, _>>(),
            )
        });
        json!({
            "title": self.title,
            "rows": rows.collect::<Vec<_>>(),
            "notes": self.notes,
            "findings": self.findings,
        })
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Count(count) => count.to_string(),
            Self::Number(number, digits) => format!("{number:.digits$}"),
            Self::None => "-".to_owned(),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Count(count) => json!(count),
            Self::Number(number, _) => json!(number),
            Self::None => Value::Null,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number, 2)
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The largest.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}
