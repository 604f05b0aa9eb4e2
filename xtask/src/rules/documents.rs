//! Documents point at things that exist: links to files and headings, and in inline code the paths
//! (`server/src/x.rs`) and tests (`ring/src/x.rs::a_story`) that they name.

use super::Finding;
use super::modules::normal;
use crate::tree::Tree;

/// Endings by which inline code is taken for a path, when it also has a `/`.
const ENDINGS: [&str; 8] = [".rs", ".md", ".toml", ".proto", ".yml", ".sh", ".json", ".txt"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.with_ending(".md").flat_map(|(path, text)| check_file(tree, path, text)).collect()
}

fn check_file(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, prose) in prose_lines(text) {
        for target in links(prose) {
            if let Err(message) = check_link(tree, path, target) {
                findings.push(Finding::new(path, line, message));
            }
        }
        for code in prose.split('`').skip(1).step_by(2) {
            if let Err(message) = check_reference(tree, code) {
                findings.push(Finding::new(path, line, message));
            }
        }
    }
    findings
}

/// Lines outside of fenced code blocks, with their numbers.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((index + 1, line))
    })
}

fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next())
}

fn check_link(tree: &Tree, path: &str, target: &str) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let file =
        if file.is_empty() { path.to_owned() } else { normal(&format!("{directory}/{file}")) };
    if !tree.exists(&file) {
        return Err(format!("link to {target}: there is no {file}"));
    }
    let known = tree.text(&file).is_none_or(|text| {
        anchor.is_empty()
            || prose_lines(text).any(|(_, line)| line.starts_with('#') && slug(line) == anchor)
    });
    if known { Ok(()) } else { Err(format!("link to {target}: {file} has no such heading")) }
}

/// A heading's anchor, as the usual renderers make it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn check_reference(tree: &Tree, code: &str) -> Result<(), String> {
    let (file, item) = code.split_once("::").unwrap_or((code, ""));
    let is_path = file.contains('/') && ENDINGS.iter().any(|ending| file.ends_with(ending));
    if !is_path
        || file.contains(|c: char| c.is_whitespace() || "*…<{$:".contains(c))
        || file.starts_with('/')
    {
        return Ok(());
    }
    if !tree.exists(file) {
        return Err(format!("`{code}`: there is no {file}"));
    }
    let name = item.rsplit("::").next().unwrap_or("");
    let named =
        tree.text(file).is_none_or(|text| name.is_empty() || text.contains(&format!("fn {name}")));
    if named { Ok(()) } else { Err(format!("`{code}`: {file} has no fn {name}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(readme: &str) -> Vec<String> {
        let files = [
            ("README.md", readme),
            ("docs/a.md", "# The Way, of a Put\n"),
            ("ring/src/id.rs", "fn a_story() {}"),
        ];
        check(&Tree::planted(&files, &[])).into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn links_and_headings_that_exist_pass() {
        let readme = "# Top\n[a](docs/a.md), [b](docs/a.md#the-way-of-a-put), [c](#top), [d](docs), [e](https://x.org/y)\n";
        assert_eq!(findings(readme), Vec::<String>::new());
    }

    #[test]
    fn links_and_headings_that_do_not_exist_are_found() {
        assert_eq!(findings("[a](docs/b.md)"), ["link to docs/b.md: there is no docs/b.md"]);
        assert_eq!(
            findings("[a](docs/a.md#gone)"),
            ["link to docs/a.md#gone: docs/a.md has no such heading"]
        );
    }

    #[test]
    fn code_references_name_files_and_tests_that_exist() {
        assert_eq!(
            findings("`ring/src/id.rs`, `ring/src/id.rs::a_story`, `a/*.rs`, `put.rs`"),
            Vec::<String>::new()
        );
        assert_eq!(
            findings("`ring/src/gone.rs`"),
            ["`ring/src/gone.rs`: there is no ring/src/gone.rs"]
        );
        assert_eq!(
            findings("`ring/src/id.rs::gone`"),
            ["`ring/src/id.rs::gone`: ring/src/id.rs has no fn gone"]
        );
    }

    #[test]
    fn fenced_code_is_not_prose() {
        assert_eq!(findings("```text\n[a](gone.md) `x/gone.rs`\n```\n"), Vec::<String>::new());
    }
}
