//! No dead files: every `.rs` file is reached from a cargo target through `mod` declarations.
//!
//! The same walk learns which files only tests compile, because the declaration that reaches them
//! stands under `#[cfg(test)]` or because their target is a test.

use std::collections::BTreeMap;

use super::Finding;
use crate::source::{Token, blank, closing, matches, test_spans, tokens};
use crate::tree::Tree;

/// The files that the compiler reads.
pub(crate) struct Reached {
    /// Path → whether only tests compile it.
    files: BTreeMap<String, bool>,
    missing: Vec<Finding>,
}

impl Reached {
    pub(crate) fn walk(tree: &Tree) -> Self {
        let mut reached = Self { files: BTreeMap::new(), missing: Vec::new() };
        for root in tree.roots() {
            let directory = parent(root);
            reached.visit(tree, root, directory, is_test_target(root));
        }
        reached
    }

    /// Whether only tests compile this file. What was never reached counts as production code.
    pub(crate) fn is_test(&self, path: &str) -> bool {
        self.files.get(path).copied().unwrap_or(false) || is_test_target(path)
    }

    pub(crate) fn dead_files(&self, tree: &Tree) -> Vec<Finding> {
        let dead = tree.with_ending(".rs").filter(|(path, _)| !self.files.contains_key(*path)).map(
            |(path, _)| Finding::new(path, 0, "dead file: no `mod` reaches it from a cargo target"),
        );
        self.missing.iter().cloned().chain(dead).collect()
    }

    fn visit(&mut self, tree: &Tree, path: &str, directory: &str, test: bool) {
        // A second visit matters only when it makes a test file a production file.
        if self.files.get(path).is_some_and(|known| *known <= test) {
            return;
        }
        self.files.insert(path.to_owned(), test);
        let Some(text) = tree.text(path) else { return };
        for declared in declarations(text, directory) {
            let found = declared.candidates.iter().find(|candidate| tree.text(candidate).is_some());
            match found {
                Some(file) => self.visit(tree, file, &declared.directory, test || declared.test),
                None => self.missing.push(Finding::new(
                    path,
                    declared.line,
                    "`mod` names a file that is not there",
                )),
            }
        }
    }
}

/// Integration tests and benches, by cargo's convention (`ring/tests/x.rs`), and the crates under `tests`.
fn is_test_target(path: &str) -> bool {
    let mut folders = path.split('/');
    let krate = folders.next();
    krate == Some("tests") || matches!(folders.next(), Some("tests" | "benches"))
}

/// One `mod name;`.
struct Declared {
    candidates: Vec<String>,
    /// Where the module's own submodules are.
    directory: String,
    line: usize,
    test: bool,
}

fn declarations(text: &str, directory: &str) -> Vec<Declared> {
    let blanked = blank(text);
    let tokens = tokens(&blanked);
    let tests = test_spans(&tokens);
    let mut declared = Vec::new();
    // Inline modules that enclose the current token: (index of the closing brace, name).
    let mut inline: Vec<(usize, &str)> = Vec::new();
    for index in 0..tokens.len() {
        inline.retain(|(end, _)| *end >= index);
        if tokens[index].text != "mod" || index + 2 >= tokens.len() {
            continue;
        }
        let name = tokens[index + 1].text;
        match tokens[index + 2].text {
            "{" => inline.push((closing(&tokens, index + 2), name)),
            ";" => {
                let mut inside = directory.to_owned();
                for (_, module) in &inline {
                    inside = join(&inside, module);
                }
                let test = tests.iter().any(|span| span.contains(&index));
                declared.push(declaration(text, &tokens, index, &inside, test));
            }
            _ => {}
        }
    }
    declared
}

fn declaration(
    text: &str,
    tokens: &[Token<'_>],
    index: usize,
    inside: &str,
    test: bool,
) -> Declared {
    let name = tokens[index + 1].text;
    let line = tokens[index].line;
    if let Some(path) = path_attribute(text, tokens, index) {
        let file = normal(&join(inside, &path));
        let directory = parent(&file).to_owned();
        return Declared { candidates: vec![file], directory, line, test };
    }
    let stem = join(inside, name);
    Declared {
        candidates: vec![format!("{stem}.rs"), format!("{stem}/mod.rs")],
        directory: stem,
        line,
        test,
    }
}

/// The value of `#[path = "…"]` when it stands right before the declaration at `index`.
fn path_attribute(text: &str, tokens: &[Token<'_>], index: usize) -> Option<String> {
    let start =
        (0..index).rev().take(16).find(|n| matches(tokens, *n, &["#", "[", "path", "=", "]"]))?;
    let between = &tokens[start + 5..index];
    if between.iter().any(|token| token.text == ";" || token.text == "}") {
        return None;
    }
    let value = text.get(tokens[start + 3].at + 1..tokens[start + 4].at)?;
    Some(value.trim().trim_matches('"').to_owned())
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Takes `.` and `..` out of a path.
pub(super) fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(files: &[(&str, &str)], roots: &[&str]) -> Vec<String> {
        let tree = Tree::planted(files, roots);
        Reached::walk(&tree).dead_files(&tree).into_iter().map(|f| f.path).collect()
    }

    #[test]
    fn a_file_that_no_mod_reaches_is_dead() {
        let files = [("a/src/lib.rs", "mod b;"), ("a/src/b.rs", "// mod c;"), ("a/src/c.rs", "")];
        assert_eq!(dead(&files, &["a/src/lib.rs"]), ["a/src/c.rs"]);
    }

    #[test]
    fn nested_inline_and_renamed_modules_are_followed() {
        let files = [
            ("a/src/lib.rs", "mod b; mod d { mod e; } #[path = \"other.rs\"] mod f;"),
            ("a/src/b.rs", "pub(crate) mod c;"),
            ("a/src/b/c/mod.rs", ""),
            ("a/src/d/e.rs", ""),
            ("a/src/other.rs", ""),
        ];
        assert_eq!(dead(&files, &["a/src/lib.rs"]), Vec::<String>::new());
    }

    #[test]
    fn a_mod_without_a_file_is_found() {
        assert_eq!(dead(&[("a/src/lib.rs", "mod gone;")], &["a/src/lib.rs"]), ["a/src/lib.rs"]);
    }

    #[test]
    fn test_modules_are_known_and_stay_production_when_both_reach_them() {
        let files = [
            (
                "a/src/lib.rs",
                "#[cfg(test)] mod t; mod both; #[cfg(test)] mod u { #[path = \"../both.rs\"] mod both; }",
            ),
            ("a/src/t.rs", "mod inner;"),
            ("a/src/t/inner.rs", ""),
            ("a/src/both.rs", ""),
            ("a/tests/story.rs", ""),
        ];
        let tree = Tree::planted(&files, &["a/src/lib.rs", "a/tests/story.rs"]);
        let reached = Reached::walk(&tree);
        let tests: Vec<_> =
            files.iter().map(|(path, _)| *path).filter(|p| reached.is_test(p)).collect();
        assert_eq!(tests, ["a/src/t.rs", "a/src/t/inner.rs", "a/tests/story.rs"]);
    }
}
