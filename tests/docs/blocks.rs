//! The blocks of the pages, and that each of them is accounted for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A fenced or indented block of a page.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// The page and the line where it begins.
    pub(crate) place: String,
    /// What the line before it says becomes of it, without its brackets.
    pub(crate) mark: Option<String>,
    /// Behind the three ticks; `None` for an indented one.
    pub(crate) language: Option<String>,
    /// As it stands there, without its indentation.
    pub(crate) text: String,
}

impl Block {
    /// The name behind `test:` or `run:`.
    pub(crate) fn named(&self, kind: &str) -> Option<&str> {
        self.mark.as_deref()?.strip_prefix(kind)?.strip_prefix(": ")
    }
}

/// README.md, CONTRIBUTING.md and everything in docs.
pub(crate) fn pages() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("README.md"), PathBuf::from("CONTRIBUTING.md")];
    let mut open = vec![PathBuf::from("docs")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("docs") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every block of a page.
pub(crate) fn of_page(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).expect("a page");
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    let (mut before, mut mark) = ("", None);
    while let Some((index, line)) = lines.next() {
        let place = format!("{}:{}", page.display(), index + 1);
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let indent = line.len() - line.trim_start().len();
            let mut text = String::new();
            for (_, line) in lines.by_ref() {
                if line.trim() == "```" {
                    break;
                }
                text.push_str(line.get(indent..).unwrap_or(""));
                text.push('\n');
            }
            let language = Some(language.to_owned());
            let mark = mark.take();
            blocks.push(Block {
                place,
                mark,
                language,
                text,
            });
        } else if line.starts_with("    ") && before.is_empty() && !line.trim().is_empty() {
            // Indented by four after an empty line, or by more within a list, where that is a paragraph's indent, too.
            let mut text = format!("{}\n", line.trim());
            while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("    ")) {
                text.push_str(line.trim());
                text.push('\n');
            }
            let mark = mark.take();
            blocks.push(Block {
                place,
                mark,
                language: None,
                text,
            });
        } else if let Some(said) = line.trim().strip_prefix("<!-- ") {
            let said = said.strip_suffix(" -->").expect("a mark of one line");
            mark = Some(said.to_owned());
            before = "";
            continue;
        } else if !line.is_empty() {
            mark = None;
        }
        before = line;
    }
    blocks
}

/// All blocks of all pages.
pub(crate) fn all() -> Vec<Block> {
    pages().iter().flat_map(|page| of_page(page)).collect()
}

/// The blocks that are marked so, at least one.
pub(crate) fn marked(kind: &str, name: &str) -> Vec<Block> {
    let is = |block: &Block| block.named(kind) == Some(name);
    let found: Vec<Block> = all().into_iter().filter(is).collect();
    assert!(!found.is_empty(), "no page has <!-- {kind}: {name} -->");
    found
}

#[test]
fn each_block_is_run_or_says_why_not() {
    let tested = BTreeSet::from_iter(super::commands::NAMES.iter().chain(super::settings::NAMES));
    let run = BTreeSet::from_iter(super::clients::NAMES);
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for block in all() {
        let why = block.named("not run");
        let (test, page) = (block.named("test"), block.named("run"));
        // A drawing is nothing to run.
        if block.language.as_deref() == Some("text") || why.is_some_and(|why| why.len() > 10) {
            continue;
        }
        let known = test.is_some_and(|name| tested.contains(&name))
            || page.is_some_and(|name| run.contains(&name));
        if known {
            used.extend(test.or(page).map(str::to_owned));
        } else {
            wrong.push(format!(
                "{}: {:?}, {:?}",
                block.place,
                block.mark,
                block.text.lines().next()
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "neither run nor said why not:\n{}",
        wrong.join("\n")
    );
    let unused: Vec<_> = tested
        .union(&run)
        .filter(|name| !used.contains(***name))
        .collect();
    assert!(unused.is_empty(), "no page has a block for {unused:?}");
}
